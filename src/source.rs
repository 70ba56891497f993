//! Reads everything a cluster file names: includes, inventories, profiles, overlays.
//!
//! Nothing here executes anything, and secrets are not read.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use walkdir::WalkDir;

use crate::builtin;
use crate::cluster::doc::{self, ClusterDoc, Document};
use crate::diag::{Diagnostic, Problems, SourceId, SourceMap, Span, codes};
use crate::overlay::{LibraryFile, LibraryFiles, shadow};
use crate::profile;

/// Everything that was read, before anything is resolved.
#[derive(Debug)]
pub struct Source {
    pub map: SourceMap,
    pub doc: ClusterDoc,
    /// The built-in profiles and overlays, shadowed file by file by the site's.
    pub library: LibraryFiles,
    pub problems: Problems,
}

/// Reads the cluster file at `path` and all it names; `site` shadows the built-in library.
///
/// # Errors
///
/// Fails if the cluster file itself or the site folder cannot be read. What is wrong *in*
/// a file is in [`Source::problems`].
pub fn read(path: &Path, site: Option<&Path>) -> Result<Source> {
    let mut source = Source {
        map: SourceMap::default(),
        doc: ClusterDoc::default(),
        library: library(site)?,
        problems: Problems::default(),
    };
    let text = read_text(path).with_context(|| format!("reading {}", path.display()))?;
    let mut chain = Vec::new();
    source.add_document(path, text, &mut chain);
    source.add_inventories();
    source.add_profiles();
    source.doc.overlays = overlay_names(&source.library);
    Ok(source)
}

/// No cluster file or inventory is larger; a device that never ends is no file.
const MAX_BYTES: u64 = 64 << 20;

/// The text of a file, which must be UTF-8.
fn read_text(path: &Path) -> io::Result<String> {
    let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    let file = File::open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_char_device() || kind.is_block_device() {
        return Err(invalid("it is a device".to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(invalid("the file is larger than 64 MiB".to_owned()));
    }
    String::from_utf8(bytes).map_err(|fault| {
        let before = &fault.as_bytes()[..fault.utf8_error().valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        invalid(format!("line {line} is not UTF-8 text"))
    })
}

impl Source {
    /// Adds the file and, before it, the files it includes; `chain` are the files that are
    /// including this one.
    fn add_document(&mut self, path: &Path, text: String, chain: &mut Vec<PathBuf>) {
        let source = self.map.add(path.to_owned(), text);
        let (table, is_partial) = doc::parse(&self.map, source, &mut self.problems);
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        chain.push(path.to_owned());
        let includes: Vec<(String, Span)> =
            doc::includes(&table).into_iter().map(|(path, span)| (path.to_owned(), span)).collect();
        for (included, span) in includes {
            self.include(&folder.join(included), span, chain);
        }
        chain.pop();
        self.doc.documents.push(Document { source, table, folder, is_partial });
    }

    fn include(&mut self, path: &Path, span: Span, chain: &mut Vec<PathBuf>) {
        if let Some(first) = chain.iter().position(|outer| identity(outer) == identity(path)) {
            let files: Vec<String> =
                chain[first + 1..].iter().map(|path| path.display().to_string()).collect();
            let diagnostic = Diagnostic::error(
                codes::INCLUDE_CYCLE,
                format!("{} includes itself", path.display()),
            )
            .at(span)
            .help("take this one out: a file is read once, before the file that includes it");
            self.problems.push(match files.is_empty() {
                true => diagnostic,
                false => diagnostic.note(format!("through {}", files.join(", "))),
            });
            return;
        }
        match read_text(path) {
            Ok(text) => self.add_document(path, text, chain),
            Err(fault) => {
                self.problems.push(unreadable(path, &fault, span));
                self.doc.lacks_files = true;
            }
        }
    }

    fn add_inventories(&mut self) {
        let mut wanted: BTreeMap<PathBuf, Span> = BTreeMap::new();
        for document in &self.doc.documents {
            for (csv, span) in doc::inventories(&document.table) {
                wanted.entry(document.folder.join(csv)).or_insert(span);
            }
        }
        for (path, span) in wanted {
            match read_text(&path) {
                Ok(text) => {
                    let id = self.map.add(path.clone(), text);
                    self.doc.inventories.insert(path, id);
                }
                Err(fault) => self.problems.push(unreadable(&path, &fault, span)),
            }
        }
    }

    fn add_profiles(&mut self) {
        let names = profile_names(&self.library);
        for name in names {
            let Some(id) = self.add_library_text(&format!("profiles/{name}.toml")) else {
                continue;
            };
            let profile = profile::parse(&self.map, id, &mut self.problems);
            self.doc.profiles.insert(name, profile);
        }
    }

    /// Makes a text file of the library one that diagnostics can point into.
    pub fn add_library_text(&mut self, path: &str) -> Option<SourceId> {
        let file = self.library.get(path)?;
        match std::str::from_utf8(&file.bytes) {
            Ok(text) => Some(self.map.add(file.shown.clone(), text.to_owned())),
            Err(_) => {
                let id = self.map.add(file.shown.clone(), String::new());
                let message = format!("{} is not UTF-8 text", file.shown.display());
                self.problems
                    .push(Diagnostic::error(codes::UNREADABLE, message).at(Span::new(id, 0..0)));
                None
            }
        }
    }
}

fn unreadable(path: &Path, fault: &io::Error, span: Span) -> Diagnostic {
    let message = format!("{} cannot be read: {fault}", path.display());
    let diagnostic = Diagnostic::error(codes::UNREADABLE, message).at(span);
    match fault.kind() {
        io::ErrorKind::NotFound => {
            diagnostic.help("relative paths start from the folder of the file that says them")
        }
        io::ErrorKind::InvalidData => diagnostic.help("save it as UTF-8"),
        io::ErrorKind::IsADirectory => diagnostic.help("name a file"),
        _ => diagnostic.help("let the user who runs nodeforge read it"),
    }
}

/// The same for two ways of writing one path, where the file exists.
fn identity(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn overlay_names(library: &LibraryFiles) -> Vec<String> {
    names(library, "overlays/", "/overlay.toml")
}

fn profile_names(library: &LibraryFiles) -> Vec<String> {
    names(library, "profiles/", ".toml")
}

/// What stands between `prefix` and `suffix` in the paths that have both, if it is one name.
fn names(library: &LibraryFiles, prefix: &str, suffix: &str) -> Vec<String> {
    let names = library.keys().filter_map(|path| path.strip_prefix(prefix)?.strip_suffix(suffix));
    names.filter(|name| !name.contains('/')).map(str::to_owned).collect()
}

/// The built-in library, with the site's files laid over it.
fn library(site: Option<&Path>) -> Result<LibraryFiles> {
    let built_in = builtin::files();
    let Some(site) = site else { return Ok(built_in) };
    let mut files = LibraryFiles::new();
    let folders = ["profiles", "overlays"].map(|part| site.join(part));
    let folders: Vec<PathBuf> = folders.into_iter().filter(|folder| folder.is_dir()).collect();
    ensure!(
        !folders.is_empty(),
        "the site folder {} has neither profiles/ nor overlays/",
        site.display(),
    );
    for folder in folders {
        add_folder(&mut files, site, &folder)?;
    }
    Ok(shadow(built_in, files))
}

/// Adds the files below `folder` by their path from `site`.
///
/// # Errors
///
/// Fails for what is neither a file nor a folder, and for a link that leads out of the site
/// folder: a build would publish what lies there.
fn add_folder(files: &mut LibraryFiles, site: &Path, folder: &Path) -> Result<()> {
    let reading = |path: &Path| format!("reading {}", path.display());
    let top = site.canonicalize().with_context(|| reading(site))?;
    for entry in WalkDir::new(folder).follow_links(true).sort_by_file_name() {
        let entry =
            entry.with_context(|| format!("reading the site folder {}", folder.display()))?;
        let path = entry.path();
        if entry.path_is_symlink() {
            let target = path.canonicalize().with_context(|| reading(path))?;
            ensure!(
                target.starts_with(&top),
                "{} is a link to {}, outside the site folder: put a copy there",
                path.display(),
                target.display(),
            );
        }
        if entry.file_type().is_dir() {
            continue;
        }
        ensure!(
            entry.file_type().is_file(),
            "{} is neither a file nor a folder: overlay.toml makes links",
            path.display(),
        );
        let below = path.strip_prefix(site).expect("the walk starts below the site folder");
        let name = below.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
        let bytes = fs::read(path).with_context(|| reading(path))?;
        let file = LibraryFile { shown: path.to_owned(), bytes: Cow::Owned(bytes) };
        files.insert(name.to_owned(), file);
    }
    Ok(())
}
