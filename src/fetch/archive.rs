//! Repositories out of what vendors ship: a tar archive, plain or gzipped, or an ISO.
//!
//! ```text
//! ~/.cache/nodeforge/archives/<digest>/files/…      the folder that holds repodata/
//!                                      record.json  of which archive, with size and digest of each
//!                             .incoming-…           work of a running build; what a killed one left
//!                             .lock
//! ```
//!
//! An archive is read twice: for the names, so that nothing is written before all of it was found
//! good, and for the files. Start with [`ArchiveCache`]; [`look`] is what a check asks.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use flate2::read::MultiGzDecoder;
use serde::{Deserialize, Serialize};

use super::iso::{self, IsoError, ListedKind};
use super::{Note, magic};
use crate::format::digest::{Digest, DigestWriter};
use crate::manifest::{FileEntry, is_clean_name};
use crate::progress::{Progress, Unit};

/// What makes a folder a repository, by its path from there.
const REPOMD: &str = "repodata/repomd.xml";

/// The only form of the record so far.
const RECORD_FORMAT: u32 = 1;

/// Of files that a boot tree links to.
const FILE_MODE: u32 = 0o644;

/// What an archive is, by its first bytes: names lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveKind {
    Tar,
    TarGz,
    Iso,
}

/// Why an archive cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("the archive {path} cannot be read: {fault}", path = .0.display(), fault = .1)]
    Unreadable(PathBuf, io::Error),
    #[error("{} is neither a tar archive, plain or gzipped, nor an ISO 9660 image", .0.display())]
    NotAnArchive(PathBuf),
    #[error("{path} is damaged: {fault}", path = .0.display(), fault = .1)]
    Damaged(PathBuf, String),
    #[error("the names in {} are cut short: it has no Rock Ridge extension", .0.display())]
    CutNames(PathBuf),
    #[error("{} has no repository metadata: no repodata/repomd.xml is in it", .0.display())]
    NoRepository(PathBuf),
    #[error("{} has no repository in `{folder}`; it has some in {}", archive.display(), listed(there))]
    NotInFolder { archive: PathBuf, folder: String, there: Vec<String> },
    #[error("{} has several repositories: in {}", .0.display(), listed(.1))]
    Several(PathBuf, Vec<String>),
    #[error("`{entry}` in {} is {fault}", archive.display())]
    BadEntry { archive: PathBuf, entry: String, fault: &'static str },
    #[error("{needed} bytes are to be unpacked into {}, and {free} are free", .cache.display())]
    NoRoom { cache: PathBuf, needed: u64, free: u64 },
    #[error("unpacking into {path}: {fault}", path = .0.display(), fault = .1)]
    Cache(PathBuf, io::Error),
}

impl ArchiveError {
    /// What to do about it.
    pub fn help(&self) -> String {
        const BY_HAND: &str =
            "put its folder of packages on a web server and name that as `baseurl`";
        match self {
            Self::Unreadable(..) => {
                "download it to there, or correct the path, which is relative to this file"
                    .to_owned()
            }
            Self::NotAnArchive(_) => "name the `.tgz`, `.tar.gz`, `.tar` or `.iso`".to_owned(),
            Self::Damaged(..) => {
                "compare its checksum with the vendor's, and get it anew".to_owned()
            }
            Self::NoRepository(_) => {
                format!("unpack it, run `createrepo_c` in its folder of packages, then {BY_HAND}")
            }
            Self::NotInFolder { there, .. } if there[..] == ["."] => {
                "take `folder` out: the repository is at the archive's top".to_owned()
            }
            Self::NotInFolder { there, .. } | Self::Several(_, there) => {
                let example = there.first().map_or("RPMS", String::as_str);
                format!("choose one, as in `folder = \"{example}\"`")
            }
            Self::BadEntry { .. } | Self::CutNames(_) => {
                format!("unpack it by hand, then {BY_HAND}")
            }
            Self::NoRoom { .. } | Self::Cache(..) => {
                "free some space, or name another folder with `--cache`".to_owned()
            }
        }
    }
}

fn listed(folders: &[String]) -> String {
    let quoted: Vec<String> = folders.iter().map(|folder| format!("`{folder}`")).collect();
    quoted.join(", ")
}

/// Tells what the file at `archive` is, by its beginning.
///
/// # Errors
///
/// [`ArchiveError::Unreadable`] or [`ArchiveError::NotAnArchive`].
pub fn look(archive: &Path) -> Result<ArchiveKind, ArchiveError> {
    let look = || -> io::Result<Option<ArchiveKind>> {
        let mut file = File::open(archive)?;
        if magic::is_gzip(&mut file)? {
            file.seek(SeekFrom::Start(0))?;
            let mut start = Vec::new();
            // What gzip refuses is no archive of ours, whatever it is.
            let _ = MultiGzDecoder::new(&mut file).take(512).read_to_end(&mut start);
            let is_tar = magic::is_tar(&mut io::Cursor::new(start))?;
            return Ok(is_tar.then_some(ArchiveKind::TarGz));
        }
        if magic::is_tar(&mut file)? {
            return Ok(Some(ArchiveKind::Tar));
        }
        Ok(magic::is_iso9660(&mut file)?.then_some(ArchiveKind::Iso))
    };
    look()
        .map_err(|fault| ArchiveError::Unreadable(archive.to_owned(), fault))?
        .ok_or_else(|| ArchiveError::NotAnArchive(archive.to_owned()))
}

/// A repository that was unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// Where its files are.
    pub folder: PathBuf,
    /// By path inside the folder.
    pub files: BTreeMap<String, FileEntry>,
}

impl Unpacked {
    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.files.values().map(|file| file.size).sum()
    }
}

/// The cache's folder of archives, which is ours alone while this value lives: what was unpacked
/// stays as it is until a build has linked it.
#[derive(Debug)]
pub struct ArchiveCache {
    root: PathBuf,
    _lock: File,
}

impl ArchiveCache {
    /// Makes and locks the folder in `cache`, waiting while another build has it, and removes
    /// what a killed build left.
    ///
    /// # Errors
    ///
    /// Fails if the folder cannot be made, locked or cleaned.
    pub fn open(cache: &Path, tell: &dyn Fn(Note)) -> Result<Self> {
        let root = cache.join("archives");
        fs::create_dir_all(&root)
            .with_context(|| format!("making the cache folder {}", root.display()))?;
        let path = root.join(".lock");
        let lock = File::create(&path).with_context(|| format!("opening {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let at = root.display();
                tell(Note::Info(format!("another build is at work in {at}, waiting for it")));
                lock.lock().with_context(|| format!("locking {}", path.display()))?;
            }
            Err(TryLockError::Error(fault)) => {
                return Err(fault).with_context(|| format!("locking {}", path.display()));
            }
        }
        let sweep = || -> io::Result<()> {
            for entry in fs::read_dir(&root)? {
                let entry = entry?;
                if entry.file_name().to_string_lossy().starts_with(INCOMING) {
                    fs::remove_dir_all(entry.path())?;
                }
            }
            Ok(())
        };
        sweep().with_context(|| format!("cleaning {}", root.display()))?;
        Ok(Self { root, _lock: lock })
    }

    /// The repository in `archive`, unpacked unless it was before: the one whose path there ends
    /// in `folder`, else the one nearest to the top.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`]; what was unpacked before is untouched then.
    pub fn unpack(&self, archive: &Path, folder: Option<&str>) -> Result<Unpacked, ArchiveError> {
        let kind = look(archive)?;
        let unreadable = |fault| ArchiveError::Unreadable(archive.to_owned(), fault);
        let identity = Identity::of(archive, folder).map_err(unreadable)?;
        let place = self.root.join(identity.place());
        if let Some(unpacked) = read_record(&place, &identity) {
            return Ok(unpacked);
        }
        let listing = Listing::of(archive, kind)?;
        let repository = listing.repository(archive, folder)?;
        self.install(archive, kind, &repository, &place, identity)
    }

    /// Unpacks `repository` and moves it to `place` in one step.
    fn install(
        &self,
        archive: &Path,
        kind: ArchiveKind,
        repository: &Repository<'_>,
        place: &Path,
        identity: Identity,
    ) -> Result<Unpacked, ArchiveError> {
        self.require_room(repository.sizes.values().sum())?;
        let failed = |fault| ArchiveError::Cache(self.root.clone(), fault);
        let staging =
            tempfile::Builder::new().prefix(INCOMING).tempdir_in(&self.root).map_err(failed)?;
        let new = staging.path().join("new");
        let files = write_files(archive, kind, repository, &new.join(FILES))?;
        let publish = || -> io::Result<()> {
            let record = Record { format: RECORD_FORMAT, archive: identity, files: files.clone() };
            let json = serde_json::to_vec_pretty(&record).expect("a record is plain data");
            fs::write(new.join(RECORD), json)?;
            // Sizes are all that the next build looks at.
            rustix::fs::syncfs(File::open(&new)?)?;
            if fs::symlink_metadata(place).is_ok() {
                fs::rename(place, staging.path().join("old"))?;
            }
            fs::rename(&new, place)
        };
        publish().map_err(failed)?;
        Ok(Unpacked { folder: place.join(FILES), files })
    }

    fn require_room(&self, needed: u64) -> Result<(), ArchiveError> {
        let space = rustix::fs::statvfs(&self.root)
            .map_err(|fault| ArchiveError::Cache(self.root.clone(), fault.into()))?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        match needed > free {
            true => Err(ArchiveError::NoRoom { cache: self.root.clone(), needed, free }),
            false => Ok(()),
        }
    }
}

const INCOMING: &str = ".incoming-";
const FILES: &str = "files";
const RECORD: &str = "record.json";

/// Which archive it was, and what was wanted of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    path: String,
    folder: Option<String>,
    /// Bytes.
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    fn of(archive: &Path, folder: Option<&str>) -> io::Result<Self> {
        let metadata = fs::metadata(archive)?;
        Ok(Self {
            path: fs::canonicalize(archive)?.to_string_lossy().into_owned(),
            folder: folder.map(str::to_owned),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    /// One folder for each archive: a newer one of the same path takes its place.
    fn place(&self) -> String {
        Digest::of(format!("{:?} {:?}", self.path, self.folder).as_bytes()).to_string()
    }
}

/// `record.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    format: u32,
    archive: Identity,
    files: BTreeMap<String, FileEntry>,
}

/// What was unpacked to `place`, if it is of that archive and nothing is missing; the bytes are
/// compared when they are linked.
fn read_record(place: &Path, identity: &Identity) -> Option<Unpacked> {
    let record: Record = serde_json::from_slice(&fs::read(place.join(RECORD)).ok()?).ok()?;
    let folder = place.join(FILES);
    let is_there = |(name, file): (&String, &FileEntry)| {
        let metadata = fs::symlink_metadata(folder.join(name));
        metadata.is_ok_and(|it| it.is_file() && it.len() == file.size)
    };
    let is_whole = record.format == RECORD_FORMAT
        && record.archive == *identity
        && record.files.keys().all(|name| is_clean_name(name))
        && record.files.iter().all(is_there);
    is_whole.then_some(Unpacked { folder, files: record.files })
}

/// The names in an archive, from its top.
#[derive(Debug, Default)]
struct Listing {
    /// Bytes of each file.
    files: BTreeMap<String, u64>,
    links: BTreeMap<String, Target>,
}

/// What stands at a name that is no file or folder.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    /// A link to that path in the archive.
    Inside(String),
    /// A link to elsewhere, a device, a pipe.
    Elsewhere,
}

impl Listing {
    fn of(archive: &Path, kind: ArchiveKind) -> Result<Self, ArchiveError> {
        let mut listing = Self::default();
        walk(archive, kind, &mut |name, entry| {
            match entry {
                Entry::File { size, .. } => _ = listing.files.insert(name.to_owned(), size),
                Entry::Other(target) => _ = listing.links.insert(name.to_owned(), target),
            }
            Ok(())
        })?;
        Ok(listing)
    }

    /// The repository that `folder` names the end of, else the only one nearest to the top.
    fn repository(
        &self,
        archive: &Path,
        folder: Option<&str>,
    ) -> Result<Repository<'_>, ArchiveError> {
        let tops: Vec<&str> = self
            .files
            .keys()
            .filter_map(|name| name.strip_suffix(REPOMD))
            .filter(|top| top.is_empty() || top.ends_with('/'))
            .collect();
        if tops.is_empty() {
            return Err(ArchiveError::NoRepository(archive.to_owned()));
        }
        let is_wanted = |top: &&str| {
            let wanted = folder.map(|folder| format!("/{folder}/"));
            wanted.is_none_or(|wanted| format!("/{top}").ends_with(&wanted))
        };
        let wanted: Vec<&str> = tops.iter().copied().filter(is_wanted).collect();
        let depth = |top: &str| top.matches('/').count();
        let nearest = wanted.iter().map(|top| depth(top)).min();
        let nearest: Vec<&str> =
            wanted.into_iter().filter(|top| Some(depth(top)) == nearest).collect();
        match nearest[..] {
            [top] => self.below(archive, top),
            [] => Err(ArchiveError::NotInFolder {
                archive: archive.to_owned(),
                folder: folder.unwrap_or_default().to_owned(),
                there: names_of(&tops),
            }),
            _ => Err(ArchiveError::Several(archive.to_owned(), names_of(&nearest))),
        }
    }

    /// What is below `top`, which ends in a slash or is empty.
    fn below<'a>(&self, archive: &Path, top: &'a str) -> Result<Repository<'a>, ArchiveError> {
        let bad = |entry: &str, fault| ArchiveError::BadEntry {
            archive: archive.to_owned(),
            entry: entry.escape_debug().to_string(),
            fault,
        };
        let mut repository = Repository { top, sizes: BTreeMap::new(), links: BTreeMap::new() };
        for (name, size) in &self.files {
            let Some(inner) = name.strip_prefix(top) else { continue };
            if !is_clean_name(inner) {
                return Err(bad(name, "no name that a repository's file can have"));
            }
            repository.sizes.insert(inner.to_owned(), *size);
        }
        for name in self.links.keys() {
            let Some(inner) = name.strip_prefix(top) else { continue };
            let target = self.file_behind(name).and_then(|target| target.strip_prefix(top));
            let target = target.filter(|_| is_clean_name(inner));
            let target =
                target.ok_or_else(|| bad(name, "no file, and no link to one beside it"))?;
            repository.links.insert(inner.to_owned(), target.to_owned());
        }
        Ok(repository)
    }

    /// The file that a link leads to, over other links if need be.
    fn file_behind(&self, link: &str) -> Option<&str> {
        const MAX_LINKS: usize = 8;
        let mut name = link;
        for _ in 0..MAX_LINKS {
            match self.links.get(name)? {
                Target::Inside(target) => name = target,
                Target::Elsewhere => return None,
            }
            if let Some((file, _)) = self.files.get_key_value(name) {
                return Some(file);
            }
        }
        None
    }
}

/// The folders' names in their order.
fn names_of(tops: &[&str]) -> Vec<String> {
    let name = |top: &&str| if top.is_empty() { "." } else { top.trim_end_matches('/') }.to_owned();
    let mut names: Vec<String> = tops.iter().map(name).collect();
    names.sort();
    names
}

/// What is to be unpacked, by path from the folder that holds repodata/.
#[derive(Debug)]
struct Repository<'a> {
    /// That folder's path in the archive with a slash behind it; empty for the archive's top.
    top: &'a str,
    sizes: BTreeMap<String, u64>,
    /// Names that stand for the bytes of another file.
    links: BTreeMap<String, String>,
}

fn write_files(
    archive: &Path,
    kind: ArchiveKind,
    repository: &Repository<'_>,
    folder: &Path,
) -> Result<BTreeMap<String, FileEntry>, ArchiveError> {
    let name = archive.file_name().unwrap_or_default().to_string_lossy();
    let total = repository.sizes.values().sum();
    let progress = Progress::start(&format!("unpacking {name}"), Some(total), Unit::Bytes);
    let mut files = BTreeMap::new();
    let mut write = |name: &str, entry: Entry<'_>| {
        let inner = name.strip_prefix(repository.top);
        if let (Some(inner), Entry::File { bytes, .. }) = (inner, entry) {
            files.insert(
                inner.to_owned(),
                write_file(archive, bytes, &folder.join(inner), &progress)?,
            );
        }
        Ok(())
    };
    let walked = walk(archive, kind, &mut write);
    progress.finish();
    walked?;
    // Between the two readings it may have become another file.
    if !files.keys().eq(repository.sizes.keys()) {
        let fault = "it changed while it was read".to_owned();
        return Err(ArchiveError::Damaged(archive.to_owned(), fault));
    }
    for (link, target) in &repository.links {
        let path = folder.join(link);
        make_parent(&path)
            .and_then(|()| fs::hard_link(folder.join(target), &path))
            .map_err(|fault| ArchiveError::Cache(path, fault))?;
        files.insert(link.clone(), files[target]);
    }
    Ok(files)
}

fn make_parent(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path.parent().expect("a file stands in a folder"))
}

fn write_file(
    archive: &Path,
    bytes: &mut dyn Read,
    path: &Path,
    progress: &Progress,
) -> Result<FileEntry, ArchiveError> {
    let failed = |fault| ArchiveError::Cache(path.to_owned(), fault);
    let create = || -> io::Result<File> {
        make_parent(path)?;
        let file = File::create(path)?;
        file.set_permissions(Permissions::from_mode(FILE_MODE))?;
        Ok(file)
    };
    let mut out = DigestWriter::new(BufWriter::new(create().map_err(failed)?));
    let mut piece = vec![0; 256 * 1024];
    loop {
        let count = match bytes.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => count,
            Err(fault) if fault.kind() == io::ErrorKind::Interrupted => continue,
            Err(fault) => return Err(damaged(archive)(fault)),
        };
        out.write_all(&piece[..count]).map_err(failed)?;
        progress.advance(count as u64);
    }
    let (mut out, size, sha256) = out.finish();
    out.flush().map_err(failed)?;
    Ok(FileEntry { size, sha256 })
}

fn damaged(archive: &Path) -> impl Fn(io::Error) -> ArchiveError + '_ {
    |fault| ArchiveError::Damaged(archive.to_owned(), fault.to_string())
}

/// Something in an archive that is no folder.
enum Entry<'a> {
    File { size: u64, bytes: &'a mut dyn Read },
    Other(Target),
}

type Take<'t> = dyn FnMut(&str, Entry<'_>) -> Result<(), ArchiveError> + 't;

/// Reads the whole archive and hands each entry to `take`, with its name from the top.
fn walk(archive: &Path, kind: ArchiveKind, take: &mut Take<'_>) -> Result<(), ArchiveError> {
    let open = File::open(archive);
    let file = open.map_err(|fault| ArchiveError::Unreadable(archive.to_owned(), fault))?;
    let file = BufReader::with_capacity(256 * 1024, file);
    match kind {
        ArchiveKind::Tar => walk_tar(archive, file, take),
        ArchiveKind::TarGz => walk_tar(archive, MultiGzDecoder::new(file), take),
        ArchiveKind::Iso => walk_iso(archive, file, take),
    }
}

fn walk_tar(archive: &Path, reader: impl Read, take: &mut Take<'_>) -> Result<(), ArchiveError> {
    let damaged = damaged(archive);
    let mut tar = tar::Archive::new(Tail::new(reader));
    for entry in tar.entries().map_err(&damaged)? {
        let mut entry = entry.map_err(&damaged)?;
        let kind = entry.header().entry_type();
        if kind.is_dir() || kind.is_pax_global_extensions() {
            continue;
        }
        let raw = entry.path_bytes().into_owned();
        let name = resolve("", &raw).ok_or_else(|| ArchiveError::BadEntry {
            archive: archive.to_owned(),
            entry: raw.escape_ascii().to_string(),
            fault: "no clean path inside it",
        })?;
        if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
            let size = entry.size();
            take(&name, Entry::File { size, bytes: &mut entry })?;
            continue;
        }
        let link = entry.link_name_bytes();
        let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        let target = match link {
            Some(link) if kind.is_symlink() => resolve(folder, &link),
            Some(link) if kind.is_hard_link() => resolve("", &link),
            _ => None,
        };
        take(&name, Entry::Other(target.map_or(Target::Elsewhere, Target::Inside)))?;
    }
    // The checksum of gzip stands behind all data, and a tar archive ends in zeros: without
    // them it was cut off between two files.
    let mut rest = tar.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(&damaged)?;
    match rest.ends_in_zeros() {
        true => Ok(()),
        false => Err(damaged(io::Error::other("it ends too early"))),
    }
}

/// Passes bytes on and knows whether the last 1024 were zeros, as those of a whole tar archive
/// are (POSIX pax, "ustar Interchange Format").
struct Tail<R> {
    inner: R,
    n_zeros: usize,
}

impl<R> Tail<R> {
    fn new(inner: R) -> Self {
        Self { inner, n_zeros: 0 }
    }

    fn ends_in_zeros(&self) -> bool {
        self.n_zeros >= 1024
    }
}

impl<R: Read> Read for Tail<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(bytes)?;
        let n_last = bytes[..count].iter().rev().take_while(|byte| **byte == 0).count();
        self.n_zeros = if n_last == count { self.n_zeros + count } else { n_last };
        Ok(count)
    }
}

/// `path` as seen from `folder`, as a clean one from the top; `None` if it is absolute, leads
/// out, or is not UTF-8.
fn resolve(folder: &str, path: &[u8]) -> Option<String> {
    let path = std::str::from_utf8(path).ok().filter(|path| !path.starts_with('/'))?;
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop()?,
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

fn walk_iso(
    archive: &Path,
    mut image: impl Read + Seek,
    take: &mut Take<'_>,
) -> Result<(), ArchiveError> {
    let listed = iso::list(&mut image).map_err(|fault| match fault {
        IsoError::NoRockRidge => ArchiveError::CutNames(archive.to_owned()),
        fault => ArchiveError::Damaged(archive.to_owned(), fault.to_string()),
    })?;
    for it in listed {
        let ListedKind::File { offset, length } = it.kind else {
            take(&it.path, Entry::Other(Target::Elsewhere))?;
            continue;
        };
        let size = u64::from(length);
        image.seek(SeekFrom::Start(offset)).map_err(damaged(archive))?;
        let mut bytes = Whole { inner: (&mut image).take(size) };
        take(&it.path, Entry::File { size, bytes: &mut bytes })?;
    }
    Ok(())
}

/// Fails where a file in an image goes on behind the image's end.
struct Whole<R> {
    inner: io::Take<R>,
}

impl<R: Read> Read for Whole<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(bytes)? {
            0 if self.inner.limit() > 0 && !bytes.is_empty() => {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends too early"))
            }
            count => Ok(count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tar archive of `entries`: name, type, and the bytes or the link's target.
    fn tar(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, text) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o600);
            // Builder refuses the names that are to be refused.
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            let is_file = *kind == tar::EntryType::Regular;
            if !is_file {
                header.as_mut_bytes()[157..157 + text.len()].copy_from_slice(text.as_bytes());
            }
            let bytes = if is_file { text.as_bytes() } else { b"" };
            header.set_size(bytes.len() as u64);
            header.set_cksum();
            builder.append(&header, bytes).unwrap();
        }
        builder.into_inner().unwrap()
    }

    const FILE: tar::EntryType = tar::EntryType::Regular;
    const SYMLINK: tar::EntryType = tar::EntryType::Symlink;
    const HARD_LINK: tar::EntryType = tar::EntryType::Link;

    /// What comes of an archive: its files, or the fault without the path of the archive.
    fn unpacked(bytes: &[u8], folder: Option<&str>) -> Result<BTreeMap<String, String>, String> {
        let scratch = tempfile::tempdir().unwrap();
        let archive = scratch.path().join("a.tar");
        fs::write(&archive, bytes).unwrap();
        let cache = scratch.path().join("cache");
        let archives = ArchiveCache::open(&cache, &|_| ()).unwrap();
        let found = archives.unpack(&archive, folder).map_err(|fault| {
            let n_left = fs::read_dir(cache.join("archives")).unwrap().count();
            assert_eq!(n_left, 1, "only the lock is left behind");
            fault.to_string().replace(archive.to_str().unwrap(), "it")
        })?;
        assert_eq!(archives.unpack(&archive, folder).unwrap(), found, "as recorded");
        let text = |name: &String| fs::read_to_string(found.folder.join(name)).unwrap();
        for (name, entry) in &found.files {
            assert_eq!(FileEntry::of(text(name).as_bytes()), *entry);
        }
        Ok(found.files.keys().map(|name| (name.clone(), text(name))).collect())
    }

    fn files<const N: usize>(files: [(&str, &str); N]) -> Result<BTreeMap<String, String>, String> {
        Ok(files.map(|(name, text)| (name.to_owned(), text.to_owned())).into())
    }

    #[test]
    fn the_repository_nearest_to_the_top_is_taken_with_its_links() {
        let bytes = tar(&[
            ("./M/docs/readme", FILE, "no package"),
            ("./M/docs/link", SYMLINK, "/etc/passwd"),
            ("./M/RPMS/a.rpm", FILE, "a"),
            ("./M/RPMS/repodata/repomd.xml", FILE, "<repomd/>"),
            ("./M/RPMS/sub/b.rpm", SYMLINK, "../c.rpm"),
            ("./M/RPMS/c.rpm", HARD_LINK, "M/RPMS/a.rpm"),
            ("./M/RPMS/deep/repodata/repomd.xml", FILE, "<deeper/>"),
        ]);
        let all = files([
            ("a.rpm", "a"),
            ("c.rpm", "a"),
            ("deep/repodata/repomd.xml", "<deeper/>"),
            ("repodata/repomd.xml", "<repomd/>"),
            ("sub/b.rpm", "a"),
        ]);
        assert_eq!(unpacked(&bytes, None), all);
        assert_eq!(unpacked(&bytes, Some("RPMS")), all);
        assert_eq!(unpacked(&bytes, Some("M/RPMS")), all);
        assert_eq!(
            unpacked(&bytes, Some("RPMS/deep")),
            files([("repodata/repomd.xml", "<deeper/>")])
        );
        assert_eq!(
            unpacked(&bytes, Some("PMS")),
            Err("it has no repository in `PMS`; it has some in `M/RPMS`, `M/RPMS/deep`".to_owned())
        );
    }

    #[test]
    fn archives_that_are_none_or_have_no_single_repository_are_refused() {
        let whole = tar(&[("repodata/repomd.xml", FILE, "x"), ("a", FILE, "y")]);
        let refused = |text: &str| Err(text.to_owned());
        for (bytes, expected) in [
            (whole.clone(), files([("a", "y"), ("repodata/repomd.xml", "x")])),
            (
                tar(&[("a.rpm", FILE, "x"), ("my-repodata/repomd.xml", FILE, "x")]),
                refused("it has no repository metadata: no repodata/repomd.xml is in it"),
            ),
            (
                tar(&[("A/repodata/repomd.xml", FILE, "x"), ("B/repodata/repomd.xml", FILE, "x")]),
                refused("it has several repositories: in `A`, `B`"),
            ),
            (
                b"PK\x03\x04 a zip".to_vec(),
                refused("it is neither a tar archive, plain or gzipped, nor an ISO 9660 image"),
            ),
            (
                tar(&[("repodata/repomd.xml", FILE, "x"), ("../a", FILE, "y")]),
                refused("`../a` in it is no clean path inside it"),
            ),
            (
                tar(&[("repodata/repomd.xml", FILE, "x"), ("/etc/cron.d/a", FILE, "y")]),
                refused("`/etc/cron.d/a` in it is no clean path inside it"),
            ),
            (
                tar(&[("repodata/repomd.xml", FILE, "x"), ("a", SYMLINK, "../../etc/passwd")]),
                refused("`a` in it is no file, and no link to one beside it"),
            ),
            (
                tar(&[
                    ("repodata/repomd.xml", FILE, "x"),
                    ("a", SYMLINK, "b"),
                    ("b", SYMLINK, "a"),
                ]),
                refused("`a` in it is no file, and no link to one beside it"),
            ),
        ] {
            assert_eq!(unpacked(&bytes, None), expected);
        }
    }

    #[test]
    fn an_archive_that_was_cut_off_is_refused_wherever_that_was() {
        let whole = tar(&[("repodata/repomd.xml", FILE, "x"), ("a", FILE, "y")]);
        // The two files have four blocks of 512 bytes; two of zeros end the archive.
        for length in (512..=2560).step_by(64) {
            let fault = unpacked(&whole[..length], None).unwrap_err();
            assert!(fault.starts_with("it is damaged: "), "{length}: {fault}");
        }
        let scratch = tempfile::tempdir().unwrap();
        let path = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
        fs::create_dir_all(path("root/repodata")).unwrap();
        fs::write(path("root/repodata/repomd.xml"), "x").unwrap();
        fs::write(path("root/z.rpm"), vec![7; 1 << 20]).unwrap();
        let (iso, root) = (path("a.iso"), path("root"));
        crate::tool::output_of("xorriso", &["-as", "mkisofs", "-quiet", "-R", "-o", &iso, &root])
            .unwrap();
        let whole = fs::read(iso).unwrap();
        let files = unpacked(&whole, None).unwrap();
        assert_eq!(files.into_keys().collect::<Vec<_>>(), ["repodata/repomd.xml", "z.rpm"]);
        let fault = unpacked(&whole[..whole.len() / 2], None).unwrap_err();
        assert_eq!(fault, "it is damaged: it ends too early");
    }

    #[test]
    fn a_gzipped_archive_must_be_whole_to_its_last_byte() {
        let bytes = tar(&[("repodata/repomd.xml", FILE, "x")]);
        let mut packed = Vec::new();
        flate2::read::GzEncoder::new(&bytes[..], flate2::Compression::fast())
            .read_to_end(&mut packed)
            .unwrap();
        assert_eq!(unpacked(&packed, None), files([("repodata/repomd.xml", "x")]));
        let at = packed.len() - 8;
        packed[at] ^= 1;
        let fault = unpacked(&packed, None).unwrap_err();
        assert!(fault.starts_with("it is damaged: "), "a wrong checksum: {fault}");
        let fault = unpacked(&packed[..at], None).unwrap_err();
        assert!(fault.starts_with("it is damaged: "), "no checksum: {fault}");
    }

    #[test]
    fn a_changed_archive_is_unpacked_anew_and_what_was_left_is_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let archive = scratch.path().join("a.tar");
        fs::write(&archive, tar(&[("repodata/repomd.xml", FILE, "old")])).unwrap();
        let root = scratch.path().join("archives");
        let left = root.join(".incoming-left/new/files");
        fs::create_dir_all(&left).unwrap();
        let archives = ArchiveCache::open(scratch.path(), &|_| ()).unwrap();
        assert!(!left.exists());
        let old = archives.unpack(&archive, None).unwrap();
        fs::write(&archive, tar(&[("repodata/repomd.xml", FILE, "new")])).unwrap();
        let new = archives.unpack(&archive, None).unwrap();
        assert_ne!(old.files, new.files);
        assert_eq!(fs::read_to_string(new.folder.join(REPOMD)).unwrap(), "new");
        assert_eq!(fs::read_dir(&root).unwrap().count(), 2, "the lock and one folder");

        fs::remove_file(new.folder.join(REPOMD)).unwrap();
        assert_eq!(archives.unpack(&archive, None).unwrap(), new, "what is lost is made again");
        assert!(new.folder.join(REPOMD).exists());
    }
}
