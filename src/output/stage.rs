//! Putting folders and secrets where a publication will find them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::format::digest::Digest;
use crate::manifest::{
    ArtifactWriter, FileEntry, Folder, NodeEntry, SecretEntry, is_clean_name, shared_name,
};
use crate::output::disk::{self, PUBLIC, PUBLIC_FILE, SECRET_DIR, SECRET_FILE, named};
use crate::output::{NewSecret, Output, SECRET, STORE, SecretSource, Trust};

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
    /// Whose digest is known already.
    Digested {
        bytes: &'a [u8],
        sha256: Digest,
    },
    /// In a file elsewhere, such as a cache of downloads. It is linked if it can be, else
    /// copied, and read once either way: other bytes than expected are an error.
    Elsewhere {
        path: &'a Path,
        expected: FileEntry,
    },
}

impl Contents<'_> {
    /// Size and digest.
    pub fn entry(&self) -> FileEntry {
        match self {
            Contents::Bytes(bytes) => FileEntry::of(bytes),
            Contents::Digested { bytes, sha256 } => {
                FileEntry { size: bytes.len() as u64, sha256: *sha256 }
            }
            Contents::Elsewhere { expected, .. } => *expected,
        }
    }
}

impl Output {
    /// Puts a folder of `files` into the store, unless it is there already. Several threads
    /// may do so at once.
    ///
    /// # Errors
    ///
    /// Fails for a name that leads out of the folder, a file elsewhere that is not what it
    /// should be, or a write that fails; the store is as before then.
    pub fn stage(&self, files: &[NewFile<'_>]) -> Result<Folder> {
        let mut entries = BTreeMap::new();
        for file in files {
            ensure!(is_clean_name(file.name), "`{}` is no name for an artefact", file.name);
            let is_new = entries.insert(shared_name(file.name), file.contents.entry()).is_none();
            ensure!(is_new, "`{}` comes twice in one folder", file.name);
        }
        let folder = Folder::of(entries);
        if !self.is_in_store(&folder) {
            let staged = self.staging()?.join(self.staged_name());
            disk::make_dir(&staged, PUBLIC)?;
            for file in files {
                stage_file(&staged, file)?;
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

    /// Takes a layer over from the current generation, for nodes that are taken over.
    ///
    /// # Errors
    ///
    /// Fails if the current generation has no such layer, or has lost files of it.
    pub fn carry_layer(&self, layer: &str) -> Result<Folder> {
        let carried = self.current().and_then(|manifest| manifest.layers.get(layer));
        carried.filter(|folder| self.is_in_store(folder)).cloned().with_context(|| {
            format!("the layer {layer} was changed or lost; build without --only once")
        })
    }

    /// Whether the store holds all of `folder`. Only names, sizes and modes are looked at:
    /// folders come into the store whole, so this is about what happened to them since.
    pub fn is_in_store(&self, folder: &Folder) -> bool {
        if !self.is_trusted(folder) {
            return false;
        }
        let path = self.store_path(&folder.digest);
        let is_whole = |(name, file): (&str, &FileEntry)| {
            disk::is_file_of(&path.join(name), file.size, PUBLIC_FILE)
        };
        let is_whole = disk::is_dir_of(&path, PUBLIC) && folder.files.iter().all(is_whole);
        if is_whole {
            self.note_seen(folder);
        }
        is_whole
    }

    /// Has `folder` made anew, whatever it looks like: what was read of it was not what it lists.
    pub fn distrust(&self, folder: &Folder) {
        self.seen.lock().expect("no holder of the lock panics").remove(&folder.digest);
        self.distrusted.lock().expect("no holder of the lock panics").insert(folder.digest);
    }

    fn is_trusted(&self, folder: &Folder) -> bool {
        let is_known_bad = || {
            let distrusted = self.distrusted.lock().expect("no holder of the lock panics");
            distrusted.contains(&folder.digest)
        };
        match self.trust {
            Trust::InWhatLooksRight => !is_known_bad(),
            // Nothing but what this build put there itself.
            Trust::None => self.has_seen(folder),
        }
    }

    /// Whether this build found `folder` in the store or put it there; nothing is looked at.
    pub(super) fn has_seen(&self, folder: &Folder) -> bool {
        self.seen.lock().expect("no holder of the lock panics").contains(&folder.digest)
    }

    /// Notes that `folder` was just put into the store.
    fn note_new(&self, folder: &Folder) {
        self.distrusted.lock().expect("no holder of the lock panics").remove(&folder.digest);
        self.note_seen(folder);
    }

    fn note_seen(&self, folder: &Folder) {
        self.seen.lock().expect("no holder of the lock panics").insert(folder.digest);
    }

    /// Begins a large folder that is filled file by file. Of `alike`, if all of it is in the store,
    /// what is the same is linked.
    pub fn fill<'o>(&'o self, alike: Option<&'o Folder>) -> Filling<'o> {
        Filling::of(Some(self), alike.filter(|folder| self.is_in_store(folder)))
    }

    /// Where a file of a folder of the store is.
    pub fn file_in_store(&self, folder: &Folder, name: &str) -> PathBuf {
        self.store_path(&folder.digest).join(name)
    }

    fn store_path(&self, digest: &Digest) -> PathBuf {
        self.root.join(STORE).join(digest.to_string())
    }

    /// A name that no other thread has.
    fn staged_name(&self) -> String {
        format!("folder-{}", self.n_staged.fetch_add(1, Ordering::Relaxed))
    }

    /// Moves a finished folder to its place. Another thread may have been first: then theirs
    /// is as good. One that is there and is not whole is taken out in the same step.
    fn put_into_store(&self, staged: &Path, folder: &Folder) -> Result<()> {
        let path = self.store_path(&folder.digest);
        let Err(fault) = fs::rename(staged, &path) else {
            self.note_new(folder);
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
            .with_context(|| named("replacing the damaged", &path))?;
        self.note_new(folder);
        Ok(())
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

/// A folder of the store in the making; several threads may add to it.
#[derive(Debug)]
pub struct Filling<'o> {
    /// `None` if nothing is to be written.
    output: Option<&'o Output>,
    alike: Option<&'o Folder>,
    /// Which files of `alike` were kept, by their position.
    kept: Box<[AtomicBool]>,
    /// Made when there is something to write.
    staged: Mutex<Option<PathBuf>>,
    /// Those that were not kept.
    added: Mutex<BTreeMap<Arc<str>, FileEntry>>,
}

impl<'o> Filling<'o> {
    /// A folder that is listed and not made. Of `alike`, files can be kept.
    pub fn nowhere(alike: &'o Folder) -> Self {
        Self::of(None, Some(alike))
    }

    fn of(output: Option<&'o Output>, alike: Option<&'o Folder>) -> Self {
        let n_alike = alike.map_or(0, |folder| folder.files.len());
        let kept = (0..n_alike).map(|_| AtomicBool::new(false)).collect();
        Self { output, alike, kept, staged: Mutex::default(), added: Mutex::default() }
    }

    /// Adds a file.
    ///
    /// # Errors
    ///
    /// Fails for a name that leads out of the folder or comes twice, a file elsewhere that is
    /// not what it should be, or a write that fails.
    pub fn add(&self, file: &NewFile<'_>) -> Result<()> {
        ensure!(is_clean_name(file.name), "`{}` is no name for an artefact", file.name);
        let entry = file.contents.entry();
        self.note(shared_name(file.name), entry)?;
        match self.output.filter(|_| !self.is_kept(file.name, &entry)) {
            None => Ok(()),
            Some(output) => stage_file(&self.staged(output)?, file),
        }
    }

    /// Adds files as the folder that this one is like has them; adds nothing and returns false
    /// if that lacks one.
    pub fn keep(&self, names: &[String]) -> bool {
        let position = |name: &String| self.alike?.files.position(name);
        let Some(positions) = names.iter().map(position).collect::<Option<Vec<_>>>() else {
            return false;
        };
        positions.into_iter().all(|at| !self.kept[at].swap(true, Ordering::Relaxed))
    }

    /// Whether the folder that this one is like has that very file.
    fn is_kept(&self, name: &str, entry: &FileEntry) -> bool {
        self.alike.is_some_and(|alike| alike.files.get(name) == Some(entry))
    }

    /// Puts the folder into the store, unless it is there already.
    ///
    /// # Errors
    ///
    /// Fails for a link or write that fails.
    pub fn finish(self) -> Result<Folder> {
        let folder = self.folder()?;
        let is_there = |output: &Output| output.has_seen(&folder) || output.is_in_store(&folder);
        let Some(output) = self.output.filter(|output| !is_there(output)) else {
            return Ok(folder);
        };
        let staged = self.staged(output)?;
        for (name, entry) in folder.files.iter().filter(|(name, entry)| self.is_kept(name, entry)) {
            disk::ensure_parents(&staged, name, PUBLIC)?;
            let known = output.file_in_store(self.alike.expect("files are kept of it"), name);
            let path = staged.join(name);
            if fs::hard_link(&known, &path).is_err() {
                link_or_copy(&known, &path, PUBLIC_FILE, *entry)?;
            }
        }
        output.put_into_store(&staged, &folder)?;
        output.n_written.fetch_add(1, Ordering::Relaxed);
        Ok(folder)
    }

    fn note(&self, name: Arc<str>, entry: FileEntry) -> Result<()> {
        let mut added = self.added.lock().expect("no holder of the lock panics");
        match added.insert(Arc::clone(&name), entry) {
            None => Ok(()),
            Some(_) => bail!("`{name}` comes twice in one folder"),
        }
    }

    /// What was kept and added; of one that is like the other in everything nothing is made anew.
    fn folder(&self) -> Result<Folder> {
        let added = std::mem::take(&mut *self.added.lock().expect("no holder of the lock panics"));
        let Some(alike) = self.alike else { return Ok(Folder::of(added)) };
        let is_kept = |at: &usize| self.kept[*at].load(Ordering::Relaxed);
        let kept: Vec<usize> = (0..alike.files.len()).filter(is_kept).collect();
        let is_twice = |name: &&Arc<str>| alike.files.position(name).is_some_and(|at| is_kept(&at));
        if let Some(name) = added.keys().find(is_twice) {
            bail!("`{name}` comes twice in one folder");
        }
        let is_same = kept.len() + added.len() == alike.files.len()
            && added.iter().all(|(name, entry)| self.is_kept(name, entry));
        if is_same {
            return Ok(alike.clone());
        }
        let mut files = added;
        files.extend(kept.into_iter().map(|at| alike.files.at(at).clone()));
        Ok(Folder::of(files))
    }

    fn staged(&self, output: &Output) -> Result<PathBuf> {
        let mut staged = self.staged.lock().expect("no holder of the lock panics");
        if let Some(path) = &*staged {
            return Ok(path.clone());
        }
        let path = output.staging()?.join(output.staged_name());
        disk::make_dir(&path, PUBLIC)?;
        *staged = Some(path.clone());
        Ok(path)
    }
}

fn stage_file(staged: &Path, file: &NewFile<'_>) -> Result<()> {
    disk::ensure_parents(staged, file.name, PUBLIC)?;
    let path = staged.join(file.name);
    match file.contents {
        Contents::Bytes(bytes) | Contents::Digested { bytes, .. } => {
            disk::write_file(&path, PUBLIC_FILE, bytes)
        }
        Contents::Elsewhere { path: source, expected } => {
            link_or_copy(source, &path, PUBLIC_FILE, expected)
        }
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
