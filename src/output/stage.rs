//! Putting folders and secrets where a publication will find them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::format::digest::Digest;
use crate::manifest::{ArtifactWriter, FileEntry, Folder, NodeEntry, SecretEntry, is_clean_name};
use crate::output::disk::{self, PUBLIC, PUBLIC_FILE, SECRET_DIR, SECRET_FILE, named};
use crate::output::{NewSecret, Output, SECRET, STORE, SecretSource};

/// A file of a folder to be staged.
#[derive(Clone, Copy, Debug)]
pub struct NewFile<'a> {
    /// Its path inside the folder.
    pub name: &'a str,
    pub contents: Contents<'a>,
}

/// Where a new file's bytes are.
#[derive(Clone, Copy, Debug)]
pub enum Contents<'a> {
    Bytes(&'a [u8]),
    /// In a file elsewhere, such as a cache of downloads. It is linked if it can be, else
    /// copied, and read once either way: other bytes than expected are an error.
    Elsewhere {
        path: &'a Path,
        expected: FileEntry,
    },
}

impl Contents<'_> {
    fn entry(&self) -> FileEntry {
        match self {
            Contents::Bytes(bytes) => FileEntry::of(bytes),
            Contents::Elsewhere { expected, .. } => *expected,
        }
    }
}

impl Output {
    /// Puts a folder of `files` into the store, unless it is there already. Several threads
    /// may do so at once.
    ///
    /// Files that `alike`, a folder of the current generation, has too are linked from
    /// there: of a large folder only what changed is written.
    ///
    /// # Errors
    ///
    /// Fails for a name that leads out of the folder, a file elsewhere that is not what it
    /// should be, or a write that fails; the store is as before then.
    pub fn stage(&self, files: &[NewFile<'_>], alike: Option<&Folder>) -> Result<Folder> {
        let mut entries = BTreeMap::new();
        for file in files {
            ensure!(is_clean_name(file.name), "`{}` is no name for an artefact", file.name);
            let is_new = entries.insert(file.name.to_owned(), file.contents.entry()).is_none();
            ensure!(is_new, "`{}` comes twice in one folder", file.name);
        }
        let folder = Folder::of(entries);
        if !self.is_in_store(&folder) {
            let staged = self.staging()?.join(self.staged_name());
            disk::make_dir(&staged, PUBLIC)?;
            for file in files {
                let known = alike
                    .filter(|alike| alike.files.get(file.name) == Some(&folder.files[file.name]));
                self.stage_file(&staged, file, known)?;
            }
            self.put_into_store(&staged, &folder)?;
            self.n_written.fetch_add(1, Ordering::Relaxed);
        }
        Ok(folder)
    }

    /// Keeps a secret file of `node` for the generation to come, at `name` in `secret/`.
    /// Several threads may do so at once.
    ///
    /// # Errors
    ///
    /// Fails for a name that leads elsewhere or comes twice, or a write that fails.
    pub fn add_secret(&self, node: &str, name: &str, contents: &[u8]) -> Result<()> {
        let is_ours = [super::MANIFEST, super::SUMS].contains(&name);
        ensure!(is_clean_name(name) && !is_ours, "`{name}` is no name for a secret artefact");
        let FileEntry { size, sha256 } = FileEntry::of(contents);
        let entry = SecretEntry { node: node.to_owned(), size, sha256 };
        if self.has_secret_now(name, &entry) {
            return self.note_secret(name, entry, SecretSource::CurrentGeneration);
        }
        self.note_secret(name, entry, SecretSource::Staged)?;
        let folder = self.staging()?.join(SECRET);
        disk::ensure_dir(&folder, SECRET_DIR)?;
        disk::ensure_parents(&folder, name, SECRET_DIR)?;
        disk::write_file(&folder.join(name), SECRET_FILE, contents)
    }

    /// Takes `node` over from the current generation, with its secrets: its entry for the
    /// next manifest.
    ///
    /// # Errors
    ///
    /// Fails if the current generation has no such node, or has lost files of it.
    pub fn carry_node(&self, node: &str) -> Result<NodeEntry> {
        let carried = self.generation().and_then(|generation| {
            Some((generation, generation.manifest.nodes.get(node)?.clone()))
        });
        let Some((generation, entry)) = carried else {
            bail!("{node} has not been built yet; build without --only once");
        };
        let lost = || format!("files of {node} were changed or lost; build without --only once");
        ensure!(self.is_in_store(&entry.folder), lost());
        let secrets = generation.secrets.as_ref().with_context(lost)?;
        for (name, secret) in secrets.files.iter().filter(|(_, secret)| secret.node == node) {
            let contents = fs::read(generation.path.join(SECRET).join(name)).with_context(lost)?;
            ensure!(FileEntry::of(&contents) == secret.file(), lost());
            self.note_secret(name, secret.clone(), SecretSource::CurrentGeneration)?;
        }
        Ok(entry)
    }

    /// Whether the store holds all of `folder`. Only names, sizes and modes are looked at:
    /// folders come into the store whole, so this is about what happened to them since.
    pub(super) fn is_in_store(&self, folder: &Folder) -> bool {
        let path = self.store_path(&folder.digest);
        let is_whole = |(name, file): (&String, &FileEntry)| {
            disk::is_file_of(&path.join(name), file.size, PUBLIC_FILE)
        };
        disk::is_dir_of(&path, PUBLIC) && folder.files.iter().all(is_whole)
    }

    fn store_path(&self, digest: &Digest) -> PathBuf {
        self.root.join(STORE).join(digest.to_string())
    }

    /// A name that no other thread has.
    fn staged_name(&self) -> String {
        format!("folder-{}", self.n_staged.fetch_add(1, Ordering::Relaxed))
    }

    fn stage_file(&self, staged: &Path, file: &NewFile<'_>, alike: Option<&Folder>) -> Result<()> {
        disk::ensure_parents(staged, file.name, PUBLIC)?;
        let path = staged.join(file.name);
        if let Some(alike) = alike {
            let known = self.store_path(&alike.digest).join(file.name);
            let size = alike.files[file.name].size;
            if disk::is_file_of(&known, size, PUBLIC_FILE) && fs::hard_link(&known, &path).is_ok() {
                return Ok(());
            }
        }
        match file.contents {
            Contents::Bytes(bytes) => disk::write_file(&path, PUBLIC_FILE, bytes),
            Contents::Elsewhere { path: source, expected } => {
                link_or_copy(source, &path, PUBLIC_FILE, expected)
            }
        }
    }

    /// Moves a finished folder to its place. Another thread may have been first: then theirs
    /// is as good. One that is there and is not whole is taken out in the same step.
    fn put_into_store(&self, staged: &Path, folder: &Folder) -> Result<()> {
        let path = self.store_path(&folder.digest);
        let Err(fault) = fs::rename(staged, &path) else {
            return Ok(());
        };
        let is_taken =
            matches!(fault.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists);
        if !is_taken {
            return Err(fault).with_context(|| named("renaming a finished part to", &path));
        }
        if self.is_in_store(folder) {
            return Ok(());
        }
        renameat_with(CWD, staged, CWD, &path, RenameFlags::EXCHANGE)
            .map_err(io::Error::from)
            .with_context(|| named("replacing the damaged", &path))
    }

    fn note_secret(&self, name: &str, entry: SecretEntry, source: SecretSource) -> Result<()> {
        let mut secrets = self.secrets.lock().expect("no holder of the lock panics");
        let is_new = secrets.insert(name.to_owned(), NewSecret { entry, source }).is_none();
        ensure!(is_new, "the secret file `{name}` comes twice");
        Ok(())
    }

    /// Whether the current generation has that secret, unchanged and readable to nobody else.
    fn has_secret_now(&self, name: &str, entry: &SecretEntry) -> bool {
        let Some(generation) = self.generation() else { return false };
        let path = generation.path.join(SECRET).join(name);
        generation.secrets.as_ref().is_some_and(|it| it.files.get(name) == Some(entry))
            && disk::is_file_of(&path, entry.size, SECRET_FILE)
            && fs::read(path).is_ok_and(|contents| FileEntry::of(&contents) == entry.file())
    }
}

/// Makes `path` a link to the bytes of `source` if that has the right mode, else a copy, and
/// makes sure that they are as expected.
pub(super) fn link_or_copy(
    source: &Path,
    path: &Path,
    mode: u32,
    expected: FileEntry,
) -> Result<()> {
    let mut bytes = File::open(source).with_context(|| named("opening", source))?;
    // Across filesystems, or for another user's files, a copy does as well.
    let is_linked =
        disk::is_file_of(source, expected.size, mode) && fs::hard_link(source, path).is_ok();
    let found = if is_linked {
        copied(&mut bytes, io::sink())
    } else {
        copied(&mut bytes, disk::create(path, mode)?)
    };
    let found =
        found.with_context(|| format!("copying {} to {}", source.display(), path.display()))?;
    ensure!(
        found == expected,
        "{} is not the file it was: {} bytes with SHA-256 {}, and {} bytes with {} were expected",
        source.display(),
        found.size,
        found.sha256,
        expected.size,
        expected.sha256,
    );
    Ok(())
}

fn copied<W: io::Write>(source: &mut File, out: W) -> io::Result<FileEntry> {
    let mut writer = ArtifactWriter::new("", out);
    io::copy(source, &mut writer)?;
    Ok(writer.finish().1.file)
}
