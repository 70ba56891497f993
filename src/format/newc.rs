//! The `newc` cpio archive, which the kernel unpacks as an initramfs.
//!
//! Layout: kernel `Documentation/driver-api/early-userspace/buffer-format.rst`.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use cpio::newc;

use crate::format::{Body, MTIME_SECS, Member, body_of, check_entry, invalid_data, invalid_input};
use crate::tree::{Entry, FileTree, Mode, TreePath};

const S_IFMT: u32 = 0o170_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;

/// Writes `tree` to `out` as a `newc` archive.
///
/// The same tree gives the same bytes: entries in path order (so that folders come before
/// what is in them, which the kernel needs), owned by root, with the constant time, and
/// inode numbers unique and counted from 1. The archive ends with its trailer; nothing is
/// padded beyond it.
///
/// # Errors
///
/// Fails if `out` fails, or with [`io::ErrorKind::InvalidInput`] for a file of 4 GiB or
/// more, which `newc` cannot describe, a path over the kernel's limit or a link to nowhere.
pub fn write<W: Write>(tree: &FileTree, out: W) -> io::Result<()> {
    let n_subfolders = count_subfolders(tree);
    let mut out = Unflushed(out);
    for (ino, (path, placed)) in (1..).zip(tree.entries()) {
        check_entry(path, &placed.entry)?;
        let size = size_in_newc(path, placed.entry.size())?;
        let (file_type, n_links, data) = match body_of(&placed.entry) {
            Body::Dir => (S_IFDIR, 2 + n_subfolders.get(path.as_str()).unwrap_or(&0), &[][..]),
            Body::File(contents) => (S_IFREG, 1, contents),
            Body::Symlink(target) => (S_IFLNK, 1, target.as_bytes()),
        };
        let mut member = newc::Builder::new(path.as_str())
            .ino(ino)
            .mode(file_type | placed.entry.mode().bits())
            .nlink(n_links)
            .mtime(MTIME_SECS)
            .write(out, size);
        // `finish` pads only after as many bytes as were declared; `write_all` sees to that.
        member.write_all(data)?;
        out = member.finish()?;
    }
    newc::trailer(out)?;
    Ok(())
}

/// How many folders stand directly in each folder that has any; each holds a `..` that
/// counts as a link to it.
fn count_subfolders(tree: &FileTree) -> BTreeMap<&str, u32> {
    let mut n_subfolders = BTreeMap::new();
    for (path, placed) in tree.entries() {
        if let (Entry::Dir { .. }, Some((parent, _))) =
            (&placed.entry, path.as_str().rsplit_once('/'))
        {
            *n_subfolders.entry(parent).or_insert(0) += 1;
        }
    }
    n_subfolders
}

fn size_in_newc(path: &TreePath, n_bytes: u64) -> io::Result<u32> {
    u32::try_from(n_bytes).map_err(|_| {
        invalid_input(format!(
            "`/{path}` has {n_bytes} bytes; a cpio archive holds less than 4 GiB"
        ))
    })
}

/// Swallows flushes: the cpio crate flushes after every padded entry, which would break a
/// compressor's stream into blocks and a buffer into small writes.
struct Unflushed<W>(W);

impl<W: Write> Write for Unflushed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Shows each member of `archive` to `visit`, in archive order; see
/// [`Archive::read`](crate::format::Archive::read).
pub fn read(archive: &[u8], visit: &mut dyn FnMut(Member<'_>) -> io::Result<()>) -> io::Result<()> {
    let mut contents = Vec::new();
    let mut member = newc::Reader::new(archive)?;
    while !member.entry().is_trailer() {
        contents.clear();
        member.read_to_end(&mut contents)?;
        let entry = member.entry();
        // The crate does not call a body that ends too early an error.
        if contents.len() as u64 != u64::from(entry.file_size()) {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("`{}` is cut short", entry.name()),
            ));
        }
        visit(Member {
            path: entry.name(),
            mode: Mode::new(entry.mode() & !S_IFMT)
                .ok_or_else(|| invalid_data(format!("`{}` has an odd mode", entry.name())))?,
            uid: entry.uid().into(),
            gid: entry.gid().into(),
            mtime_secs: entry.mtime().into(),
            body: body_read(entry, &contents)?,
        })?;
        member = newc::Reader::new(member.finish()?)?;
    }
    let is_empty = member.entry().file_size() == 0;
    match member.finish()? {
        [] if is_empty => Ok(()),
        _ => Err(invalid_data("something follows the end of the archive".to_owned())),
    }
}

fn body_read<'a>(entry: &newc::Entry, contents: &'a [u8]) -> io::Result<Body<'a>> {
    let odd = |what| invalid_data(format!("`{}` is {what}", entry.name()));
    match entry.mode() & S_IFMT {
        S_IFDIR if contents.is_empty() => Ok(Body::Dir),
        S_IFDIR => Err(odd("a folder with contents")),
        S_IFREG => Ok(Body::File(contents)),
        S_IFLNK => {
            let target = std::str::from_utf8(contents);
            Ok(Body::Symlink(target.map_err(|_| odd("a link whose target is not UTF-8"))?))
        }
        _ => Err(odd("neither a file, a folder nor a link")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_four_gibibytes_are_refused() {
        let path = TreePath::new("var/big").unwrap();
        assert_eq!(size_in_newc(&path, u64::from(u32::MAX)).unwrap(), u32::MAX);
        let fault = size_in_newc(&path, 1 << 32).unwrap_err();
        assert_eq!(
            (fault.kind(), fault.to_string()),
            (
                io::ErrorKind::InvalidInput,
                "`/var/big` has 4294967296 bytes; a cpio archive holds less than 4 GiB".to_owned()
            )
        );
    }
}
