//! Archive formats: a [`FileTree`] in, bytes out, and back.
//!
//! The same tree gives the same bytes everywhere: entries in path order, owned by root,
//! with one constant time. [`newc`] and [`tar`] write and read the plain archives, [`gzip`]
//! packs them, [`digest`] names bytes. [`pack`] does all of it for one archive and reads
//! the result back before anybody sees it. [`fat`] makes small volumes that firmware and
//! installers mount, [`qcow2`] a disk on top of another, [`gpt`] and [`grub`] what firmware wants of a
//! disk. Nothing in here knows what a node is.

use std::cell::Cell;
use std::io;

use memchr::memmem;

use crate::format::digest::Digest;
use crate::tree::{Entry, FileTree, Mode, Placed, TreePath};

pub mod digest;
pub mod fat;
pub mod gpt;
pub mod grub;
pub mod gzip;
pub mod newc;
pub mod qcow2;
mod quick_deflate;
pub mod tar;

/// The time of everything in an artefact, in seconds since the Unix epoch:
/// 2023-11-21T00:00:00Z, the day AlmaLinux 8.9 was released.
pub const MTIME_SECS: u32 = 1_700_524_800;

/// The longest path, in bytes, that the kernel unpacks from an initramfs: its `PATH_MAX`
/// less the closing NUL (`init/initramfs.c`, `do_header` and `do_symlink`).
const MAX_PATH_LEN: usize = 4095;

/// The two shapes an archive of files comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Archive {
    /// For `tar` on an installed system.
    Tar,
    /// For the kernel, which unpacks it as an initramfs.
    Newc,
}

impl Archive {
    /// Writes `tree` to `out`; see [`tar::write`] and [`newc::write`].
    ///
    /// # Errors
    ///
    /// Fails if `out` fails, or with [`io::ErrorKind::InvalidInput`] for a tree that the
    /// format cannot describe.
    pub fn write<W: io::Write>(self, tree: &FileTree, out: W) -> io::Result<()> {
        match self {
            Archive::Tar => tar::write(tree, out),
            Archive::Newc => newc::write(tree, out),
        }
    }

    /// Shows each member of `archive` to `visit`, in archive order.
    ///
    /// # Errors
    ///
    /// Fails with `visit`'s error, or with [`io::ErrorKind::InvalidData`] or
    /// [`io::ErrorKind::UnexpectedEof`] for bytes that [`write`](Self::write) would not have
    /// written: another kind of entry, a cut, anything after the end.
    pub fn read(
        self,
        archive: &[u8],
        visit: &mut dyn FnMut(Member<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        match self {
            Archive::Tar => tar::read(archive, visit),
            Archive::Newc => newc::read(archive, visit),
        }
    }

    /// What is in `archive`, in archive order.
    ///
    /// # Errors
    ///
    /// Those of [`read`](Self::read), and [`io::ErrorKind::InvalidData`] for a path that
    /// would leave the image.
    pub fn list(self, archive: &[u8]) -> io::Result<Vec<Listed>> {
        let mut listing = Vec::new();
        self.read(archive, &mut |member| {
            let path =
                TreePath::new(member.path).map_err(|fault| invalid_data(fault.to_string()))?;
            listing.push(Listed { path, mode: member.mode, content: member.body.into() });
            Ok(())
        })?;
        Ok(listing)
    }

    /// Makes sure that `archive` holds exactly `tree`: the same entries in the same order,
    /// byte for byte, owned by root and with the constant time.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidData`] names the first path that differs.
    pub fn check(self, tree: &FileTree, archive: &[u8]) -> io::Result<()> {
        let mut expected = tree.entries();
        self.read(archive, &mut |member| match expected.next() {
            Some((path, placed)) if member.is(path, placed) => Ok(()),
            Some((path, _)) => Err(invalid_data(format!("`/{path}` differs in the archive"))),
            None => Err(invalid_data(format!("`/{}` is surplus in the archive", member.path))),
        })?;
        match expected.next() {
            None => Ok(()),
            Some((path, _)) => Err(invalid_data(format!("`/{path}` is missing in the archive"))),
        }
    }
}

/// Writes `tree` as a gzipped archive, then unpacks it and compares it with `tree`.
///
/// # Errors
///
/// [`io::ErrorKind::InvalidInput`] for a tree that the format cannot describe;
/// [`io::ErrorKind::InvalidData`] if what was read back is not what was to be written.
pub fn pack(tree: &FileTree, archive: Archive, level: gzip::Level) -> io::Result<Vec<u8>> {
    pack_around(tree, archive, level, None)
}

/// As large as the buffers are that a thread keeps, in bytes: what is made for one node fits.
const MAX_KEPT_BUFFER: usize = 512 << 10;

/// As [`pack`], for a tree with a file that holds the bytes of `ready`: they are not compressed
/// again. Where they are not found, it is [`pack`].
///
/// # Errors
///
/// Those of [`pack`].
pub fn pack_around(
    tree: &FileTree,
    archive: Archive,
    level: gzip::Level,
    ready: Option<&gzip::Ready>,
) -> io::Result<Vec<u8>> {
    thread_local! {
        // Two buffers a thread, as asking the system for new ones took longer than filling
        // them. Those of a layer with 10,000 hosts would lie there while all nodes are made.
        static PLAIN: Cell<(Vec<u8>, Vec<u8>)> = const { Cell::new((Vec::new(), Vec::new())) };
    }
    let (mut plain, mut unpacked) = PLAIN.take();
    plain.clear();
    unpacked.clear();
    archive.write(tree, &mut plain)?;
    let mut packed = Vec::with_capacity(plain.len() / 4);
    let found = ready.and_then(|ready| Some((ready, find(&plain, ready.plain())?)));
    match found {
        Some((ready, at)) => {
            let (before, after) = (&plain[..at], &plain[at + ready.plain().len()..]);
            gzip::write_around(before, ready, after, level, &mut packed)?;
            gzip::check_around(&packed, at, ready, &plain)?;
            archive.check(tree, &plain)?;
        }
        None => {
            gzip::write(&plain, level, &mut packed)?;
            gzip::read(&packed, plain.len(), &mut unpacked)?;
            archive.check(tree, &unpacked)?;
        }
    }
    if plain.capacity().max(unpacked.capacity()) <= MAX_KEPT_BUFFER {
        PLAIN.set((plain, unpacked));
    }
    packed.shrink_to_fit();
    Ok(packed)
}

/// Where `part` begins in `bytes`, if the first place that looks like it is it.
fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    // A searcher for all of a long part takes longer to make than the search.
    let at = memmem::find(bytes, part.get(..32)?)?;
    bytes[at..].starts_with(part).then_some(at)
}

/// One entry of an archive, as it stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// Without the `/` that tar puts after a folder's name.
    pub path: &'a str,
    pub mode: Mode,
    pub uid: u64,
    pub gid: u64,
    pub mtime_secs: u64,
    pub body: Body<'a>,
}

impl Member<'_> {
    fn is(&self, path: &TreePath, placed: &Placed) -> bool {
        let is_same_body = match (&placed.entry, self.body) {
            (Entry::Dir { .. }, Body::Dir) => true,
            (Entry::File { contents, .. }, Body::File(found)) => **contents == *found,
            (Entry::Symlink { target }, Body::Symlink(found)) => target == found,
            _ => false,
        };
        is_same_body
            && self.path == path.as_str()
            && self.mode == placed.entry.mode()
            && (self.uid, self.gid, self.mtime_secs) == (0, 0, u64::from(MTIME_SECS))
    }
}

/// What a [`Member`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    Dir,
    File(&'a [u8]),
    Symlink(&'a str),
}

/// A line of an archive's or a tree's listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub path: TreePath,
    pub mode: Mode,
    pub content: Content,
}

/// What stands at a path, files by their digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    Dir,
    File { size: u64, sha256: Digest },
    Symlink { target: String },
}

impl From<Body<'_>> for Content {
    fn from(body: Body<'_>) -> Self {
        match body {
            Body::Dir => Content::Dir,
            Body::File(bytes) => {
                Content::File { size: bytes.len() as u64, sha256: Digest::of(bytes) }
            }
            Body::Symlink(target) => Content::Symlink { target: target.to_owned() },
        }
    }
}

/// What `tree` holds, to compare with [`Archive::list`].
pub fn listing_of(tree: &FileTree) -> Vec<Listed> {
    let listed = |(path, placed): (&TreePath, &Placed)| Listed {
        path: path.clone(),
        mode: placed.entry.mode(),
        content: body_of(&placed.entry).into(),
    };
    tree.entries().map(listed).collect()
}

fn body_of(entry: &Entry) -> Body<'_> {
    match entry {
        Entry::Dir { .. } => Body::Dir,
        Entry::File { contents, .. } => Body::File(contents),
        Entry::Symlink { target } => Body::Symlink(target),
    }
}

/// Refuses what the tree's types allow and an unpacking kernel does not: paths beyond
/// `PATH_MAX`, links to nowhere.
fn check_entry(path: &TreePath, entry: &Entry) -> io::Result<()> {
    let n_bytes = path.as_str().len();
    if n_bytes > MAX_PATH_LEN {
        return Err(invalid_input(format!("a path of {n_bytes} bytes; {MAX_PATH_LEN} at most")));
    }
    match entry {
        Entry::Symlink { target }
            if target.is_empty() || target.len() > MAX_PATH_LEN || target.contains('\0') =>
        {
            Err(invalid_input(format!("`/{path}` is a link to {target:?}, which is no path")))
        }
        _ => Ok(()),
    }
}

fn invalid_input(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

fn invalid_data(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

fn cut_short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is cut short")
}

#[cfg(test)]
mod tests;
