//! Holding what is on disk against the manifest: missing, changed, foreign, wrong modes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rayon::prelude::*;

use crate::manifest::{ArtifactWriter, Comparison, FileEntry, Manifest, SecretManifest, compare};
use crate::output::disk::{self, PUBLIC, PUBLIC_FILE, SECRET_DIR, SECRET_FILE, named};
use crate::output::{
    CURRENT, Current, GENERATIONS, Generation, INPUTS, MANIFEST, MARKER, SECRET, STAGING, STORE,
    SUMS, publish, store_link,
};

/// What was found of an output folder. Paths are seen from `out`: `current/nodes/node0/…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    pub generation: u64,
    /// How many files were read and were as listed.
    pub n_good: u64,
    pub files: Comparison,
    pub wrong_modes: Vec<WrongMode>,
    pub secrets: Secrets,
}

impl Verification {
    pub fn is_good(&self) -> bool {
        self.files.is_equal() && self.wrong_modes.is_empty()
    }
}

/// A file or folder whose permission bits are not what they were made with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WrongMode {
    pub path: String,
    pub found: u32,
    pub expected: u32,
}

/// Whether the secret files were among those looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    Verified,
    /// They are another user's, as they should be for a web server.
    NotReadable,
}

/// Reads everything under `root/current` and compares it with the manifests. Changes
/// nothing, and needs no lock: a generation does not change once it is published.
///
/// # Errors
///
/// Fails if there is no generation, its manifest cannot be used, or a file cannot be read.
pub fn verify(root: &Path) -> Result<Verification> {
    ensure!(disk::exists(&root.join(MARKER))?, "{} was not made by nodeforge", root.display());
    let generation = match Current::read(root)? {
        Current::Generation(generation) => generation,
        Current::Nothing => bail!("nothing has been built into {} yet", root.display()),
        Current::Damaged(reason) => bail!("the current generation cannot be used: {reason}"),
    };
    verify_generation(&generation, Some(root))
}

/// As [`verify`], of any generation; `root` is looked at too, if it is named.
pub(super) fn verify_generation(
    generation: &Generation,
    root: Option<&Path>,
) -> Result<Verification> {
    let mut survey = Survey::default();
    survey.generation(generation)?;
    if let Some(root) = root {
        survey.beside(root)?;
    }
    let expected = expected_files(generation)?;
    let found = survey.found(&expected)?;
    let mut files = compare(&expected, &found);
    let n_good = (expected.len() - files.missing.len() - files.changed.len()) as u64;
    files.changed.append(&mut survey.wrong_links);
    files.changed.sort();
    survey.wrong_modes.sort();
    Ok(Verification {
        generation: generation.number,
        n_good,
        files,
        wrong_modes: survey.wrong_modes,
        secrets: if generation.secrets.is_some() {
            Secrets::Verified
        } else {
            Secrets::NotReadable
        },
    })
}

/// Every file that should be there, by its path from the output folder.
fn expected_files(generation: &Generation) -> Result<BTreeMap<String, FileEntry>> {
    let manifest = &generation.manifest;
    let mut manifest_json = Vec::new();
    manifest.write_json(&mut manifest_json)?;
    let sums = publish::sums_of(manifest.artifacts(), &manifest_json);
    let mut files: BTreeMap<String, FileEntry> = manifest
        .artifacts()
        .map(|artifact| (format!("{CURRENT}/{}", artifact.name), artifact.file))
        .collect();
    files.insert(format!("{CURRENT}/{MANIFEST}"), FileEntry::of(&manifest_json));
    files.insert(format!("{CURRENT}/{SUMS}"), FileEntry::of(sums.as_bytes()));
    if let Some(secrets) = &generation.secrets {
        files.extend(expected_secrets(secrets)?);
    }
    Ok(files)
}

fn expected_secrets(secrets: &SecretManifest) -> Result<Vec<(String, FileEntry)>> {
    let mut manifest_json = Vec::new();
    secrets.write_json(&mut manifest_json)?;
    let sums = publish::sums_of(secrets.artifacts(), &manifest_json);
    let own = [
        (MANIFEST.to_owned(), FileEntry::of(&manifest_json)),
        (SUMS.to_owned(), FileEntry::of(sums.as_bytes())),
    ];
    let artifacts = secrets.artifacts().map(|artifact| (artifact.name, artifact.file));
    let place = |(name, file)| (format!("{CURRENT}/{SECRET}/{name}"), file);
    Ok(own.into_iter().chain(artifacts).map(place).collect())
}

/// What stands where, before any file is read.
#[derive(Default)]
struct Survey {
    /// Files and whatever else is no folder: by the path to report, where to read it.
    files: BTreeMap<String, PathBuf>,
    wrong_links: Vec<String>,
    wrong_modes: Vec<WrongMode>,
}

/// The modes that a folder's contents should have.
#[derive(Clone, Copy)]
struct Modes {
    dir: u32,
    file: u32,
}

const PUBLIC_MODES: Modes = Modes { dir: PUBLIC, file: PUBLIC_FILE };
const SECRET_MODES: Modes = Modes { dir: SECRET_DIR, file: SECRET_FILE };

impl Survey {
    /// Walks a generation; of the links in it only those are followed that lead where the
    /// manifest says.
    fn generation(&mut self, generation: &Generation) -> Result<()> {
        self.mode(CURRENT, &generation.path, PUBLIC)?;
        let links = links_of(&generation.manifest);
        let mut folders = vec![(CURRENT.to_owned(), generation.path.clone())];
        while let Some((place, path)) = folders.pop() {
            for (name, path) in disk::entries_in(&path)? {
                let place = format!("{place}/{name}");
                let file_type = file_type(&path)?;
                if place == format!("{CURRENT}/{SECRET}") && file_type.is_dir() {
                    self.mode(&place, &path, SECRET_DIR)?;
                    if generation.secrets.is_some() {
                        self.folder(&place, &path, SECRET_MODES)?;
                    }
                } else if file_type.is_dir() {
                    self.mode(&place, &path, PUBLIC)?;
                    folders.push((place, path));
                } else if let Some(target) = links.get(&place) {
                    self.link(place, &path, target)?;
                } else {
                    self.file(place, path, PUBLIC_FILE)?;
                }
            }
        }
        Ok(())
    }

    fn link(&mut self, place: String, path: &Path, target: &str) -> Result<()> {
        if !fs::read_link(path).is_ok_and(|found| found == Path::new(target)) {
            self.wrong_links.push(place);
            return Ok(());
        }
        let folder = path.parent().expect("a link is in a folder").join(target);
        if folder.is_dir() {
            self.mode(&place, &folder, PUBLIC)?;
            self.folder(&place, &folder, PUBLIC_MODES)?;
        }
        Ok(())
    }

    /// Walks a folder in which there are no links of ours.
    fn folder(&mut self, place: &str, path: &Path, modes: Modes) -> Result<()> {
        for (name, path) in disk::entries_in(path)? {
            let place = format!("{place}/{name}");
            if file_type(&path)?.is_dir() {
                self.mode(&place, &path, modes.dir)?;
                self.folder(&place, &path, modes)?;
            } else {
                self.file(place, path, modes.file)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, place: String, path: PathBuf, mode: u32) -> Result<()> {
        if file_type(&path)?.is_file() {
            self.mode(&place, &path, mode)?;
        }
        self.files.insert(place, path);
        Ok(())
    }

    fn mode(&mut self, place: &str, path: &Path, expected: u32) -> Result<()> {
        let metadata = fs::metadata(path).with_context(|| named("looking at", path))?;
        let found = disk::mode_of(&metadata);
        if found != expected {
            self.wrong_modes.push(WrongMode { path: place.to_owned(), found, expected });
        }
        Ok(())
    }

    /// Notes what stands beside our own folders, and their modes.
    fn beside(&mut self, root: &Path) -> Result<()> {
        const OURS: [&str; 6] = [MARKER, STAGING, STORE, GENERATIONS, CURRENT, INPUTS];
        let entries = disk::entries_in(root)?;
        self.files.extend(entries.into_iter().filter(|(name, _)| !OURS.contains(&name.as_str())));
        [STORE, GENERATIONS].into_iter().try_for_each(|it| self.mode(it, &root.join(it), PUBLIC))
    }

    /// Reads the files that are expected; others are only named, and so are those whose
    /// size tells enough.
    fn found(&self, expected: &BTreeMap<String, FileEntry>) -> Result<BTreeMap<String, FileEntry>> {
        let unread = FileEntry { size: u64::MAX, ..FileEntry::of(b"") };
        let read = |(place, path): (&String, &PathBuf)| {
            let has_size = |file: &FileEntry| {
                let metadata = fs::symlink_metadata(path);
                metadata.is_ok_and(|it| it.is_file() && it.len() == file.size)
            };
            let is_worth_reading = expected.get(place).is_some_and(has_size);
            Ok((place.clone(), if is_worth_reading { digest_of(path)? } else { unread }))
        };
        self.files.par_iter().map(read).collect()
    }
}

/// Where each link of a generation should lead.
fn links_of(manifest: &Manifest) -> BTreeMap<String, String> {
    let link = |place: String, digest| (format!("{CURRENT}/{place}"), store_link(&place, digest));
    manifest.folders().map(|(place, folder)| link(place, &folder.digest)).collect()
}

fn file_type(path: &Path) -> Result<fs::FileType> {
    let metadata = fs::symlink_metadata(path).with_context(|| named("looking at", path))?;
    Ok(metadata.file_type())
}

fn digest_of(path: &Path) -> Result<FileEntry> {
    let digest = || -> io::Result<FileEntry> {
        let mut writer = ArtifactWriter::new("", io::sink());
        io::copy(&mut File::open(path)?, &mut writer)?;
        Ok(writer.finish().1.file)
    };
    digest().with_context(|| named("reading", path))
}
