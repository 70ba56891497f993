//! The `newc` cpio archive, which the kernel unpacks as an initramfs.
//!
//! Layout: kernel `Documentation/driver-api/early-userspace/buffer-format.rst`. An entry is a
//! header of 110 ASCII bytes, its name with a NUL, and its data; name and data begin and end
//! at multiples of four bytes. Written by the cpio crate and read here, strictly and by other
//! code: what is read back then says something about what was written.

use std::collections::BTreeMap;
use std::io::{self, Write};

use cpio::newc;

use crate::format::{
    Body, MTIME_SECS, Member, body_of, check_entry, cut_short, invalid_data, invalid_input,
};
use crate::tree::{Entry, FileTree, Mode, TreePath};

const S_IFMT: u32 = 0o170_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;

const MAGIC: &[u8] = b"070701";
const TRAILER: &str = "TRAILER!!!";
const N_FIELDS: usize = 13;
const N_HEADER_BYTES: usize = 110;

/// The fields of a header that say something about the entry.
#[derive(Clone, Copy, Debug)]
struct Header {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime_secs: u32,
    n_data_bytes: u32,
    /// With the closing NUL.
    n_name_bytes: u32,
}

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

/// How many zeros make `n_bytes` a multiple of four.
fn n_padding_bytes(n_bytes: usize) -> usize {
    n_bytes.wrapping_neg() % 4
}

impl Header {
    fn from_bytes(bytes: &[u8; N_HEADER_BYTES]) -> io::Result<Self> {
        let (magic, texts) = bytes.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(invalid_data("an entry does not begin with 070701".to_owned()));
        }
        let mut fields = [0_u32; N_FIELDS];
        for (field, text) in fields.iter_mut().zip(texts.chunks_exact(8)) {
            for digit in text {
                let value = char::from(*digit).to_digit(16).ok_or_else(|| {
                    invalid_data("a number in a header is not hexadecimal".to_owned())
                })?;
                *field = *field << 4 | value;
            }
        }
        let [_, mode, uid, gid, _, mtime_secs, n_data_bytes, .., n_name_bytes, _] = fields;
        Ok(Self { mode, uid, gid, mtime_secs, n_data_bytes, n_name_bytes })
    }
}

/// Shows each member of `archive` to `visit`, in archive order; see
/// [`Archive::read`](crate::format::Archive::read).
pub fn read(
    mut archive: &[u8],
    visit: &mut dyn FnMut(Member<'_>) -> io::Result<()>,
) -> io::Result<()> {
    loop {
        let (header, name, data) = read_entry(&mut archive)?;
        if name == TRAILER {
            let is_end = data.is_empty() && archive.is_empty();
            let surplus = || invalid_data("something follows the end of the archive".to_owned());
            return is_end.then_some(()).ok_or_else(surplus);
        }
        visit(member(header, name, data)?)?;
    }
}

fn read_entry<'a>(archive: &mut &'a [u8]) -> io::Result<(Header, &'a str, &'a [u8])> {
    let (bytes, rest) = archive.split_first_chunk().ok_or_else(cut_short)?;
    *archive = rest;
    let header = Header::from_bytes(bytes)?;
    let n_name_bytes = header.n_name_bytes as usize;
    let name = take(archive, n_name_bytes)?;
    take(archive, n_padding_bytes(N_HEADER_BYTES + n_name_bytes))?;
    let data = take(archive, header.n_data_bytes as usize)?;
    take(archive, n_padding_bytes(data.len()))?;
    let name = name.strip_suffix(b"\0").filter(|name| !name.contains(&0));
    let name = name.and_then(|name| std::str::from_utf8(name).ok());
    let name = name.ok_or_else(|| invalid_data("a name is not UTF-8 with one NUL".to_owned()))?;
    Ok((header, name, data))
}

fn take<'a>(archive: &mut &'a [u8], n_bytes: usize) -> io::Result<&'a [u8]> {
    let (taken, rest) = archive.split_at_checked(n_bytes).ok_or_else(cut_short)?;
    *archive = rest;
    Ok(taken)
}

fn member<'a>(header: Header, name: &'a str, data: &'a [u8]) -> io::Result<Member<'a>> {
    let odd = |what| invalid_data(format!("`{name}` is {what}"));
    let body = match header.mode & S_IFMT {
        S_IFDIR if data.is_empty() => Body::Dir,
        S_IFREG => Body::File(data),
        S_IFLNK => Body::Symlink(
            std::str::from_utf8(data).map_err(|_| odd("a link whose target is not UTF-8"))?,
        ),
        _ => return Err(odd("neither a file, a folder nor a link")),
    };
    Ok(Member {
        path: name,
        mode: Mode::new(header.mode & !S_IFMT).ok_or_else(|| odd("of an odd mode"))?,
        uid: header.uid.into(),
        gid: header.gid.into(),
        mtime_secs: header.mtime_secs.into(),
        body,
    })
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
