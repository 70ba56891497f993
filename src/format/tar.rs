//! The tar archive, in GNU's dialect, which GNU tar 1.30 and bsdtar unpack.

use std::io::{self, Read, Write};
use std::ops::Range;

use tar::{Builder, EntryType, Header};

use crate::format::{Body, MTIME_SECS, Member, body_of, check_entry, cut_short, invalid_data};
use crate::tree::{FileTree, Mode, TreePath};

/// Two blocks of zeros end an archive (POSIX.1-2017, `pax`, "ustar Interchange Format").
const N_END_BYTES: usize = 1024;

const N_BLOCK_BYTES: usize = 512;

/// Writes `tree` to `out` as a tar archive.
///
/// The same tree gives the same bytes: entries in path order, owned by root (number and
/// name), with the constant time. Names and link targets over 100 bytes go before their
/// entry, as GNU's long-name records.
///
/// # Errors
///
/// Fails if `out` fails, or with [`io::ErrorKind::InvalidInput`] for a path over the
/// kernel's limit or a link to nowhere.
pub fn write<W: Write>(tree: &FileTree, out: W) -> io::Result<()> {
    let mut archive = Builder::new(out);
    let blank = blank_header()?;
    for (path, placed) in tree.entries() {
        check_entry(path, &placed.entry)?;
        let body = body_of(&placed.entry);
        let mut header = blank.clone();
        header.set_mode(placed.entry.mode().bits());
        let contents = match body {
            Body::File(contents) => contents,
            Body::Dir | Body::Symlink(_) => &[],
        };
        // The crate would write a size that differs from the contents without a word.
        header.set_size(contents.len() as u64);
        set_type_and_names(&mut archive, &mut header, path, body)?;
        header.set_cksum();
        archive.append(&header, contents)?;
    }
    archive.into_inner()?;
    Ok(())
}

/// A header that says root and the constant time.
fn blank_header() -> io::Result<Header> {
    let mut header = Header::new_gnu();
    header.set_uid(0);
    header.set_gid(0);
    header.set_username("root")?;
    header.set_groupname("root")?;
    header.set_mtime(MTIME_SECS.into());
    Ok(header)
}

fn set_type_and_names<W: Write>(
    archive: &mut Builder<W>,
    header: &mut Header,
    path: &TreePath,
    body: Body<'_>,
) -> io::Result<()> {
    let path = path.as_str();
    let mut folder_name = Vec::new();
    let name = match body {
        Body::File(_) => {
            header.set_entry_type(EntryType::Regular);
            path.as_bytes()
        }
        Body::Dir => {
            header.set_entry_type(EntryType::Directory);
            folder_name.extend_from_slice(path.as_bytes());
            folder_name.push(b'/');
            &folder_name
        }
        Body::Symlink(target) => {
            header.set_entry_type(EntryType::Symlink);
            let field = &mut header.as_old_mut().linkname;
            put_name(archive, field, target.as_bytes(), EntryType::GNULongLink)?;
            path.as_bytes()
        }
    };
    put_name(archive, &mut header.as_old_mut().name, name, EntryType::GNULongName)
}

/// Puts `name` into its field of a header; one that does not fit goes before the header in
/// full, and its beginning into the field.
fn put_name<W: Write>(
    archive: &mut Builder<W>,
    field: &mut [u8; 100],
    name: &[u8],
    long_name: EntryType,
) -> io::Result<()> {
    let n_fitting = name.len().min(field.len());
    field[..n_fitting].copy_from_slice(&name[..n_fitting]);
    if n_fitting == name.len() {
        return Ok(());
    }
    let mut header = Header::new_gnu();
    let gnu_name = b"././@LongLink";
    header.as_old_mut().name[..gnu_name.len()].copy_from_slice(gnu_name);
    header.set_entry_type(long_name);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(name.len() as u64 + 1);
    header.set_cksum();
    archive.append(&header, name.chain(&b"\0"[..]))
}

/// Shows each member of `archive` to `visit`, in archive order; see
/// [`Archive::read`](crate::format::Archive::read).
///
/// It reads GNU's dialect only and borrows everything from `archive`: the crate's reader
/// takes any dialect, and twenty times as long.
pub fn read(
    mut archive: &[u8],
    visit: &mut dyn FnMut(Member<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let (mut long_name, mut long_link) = (None, None);
    loop {
        let (block, rest) = archive.split_first_chunk().ok_or_else(cut_short)?;
        if *block == [0; N_BLOCK_BYTES] {
            let is_described = long_name.or(long_link).is_some();
            return check_end(archive, is_described);
        }
        let header = Block(block);
        header.check()?;
        let n_bytes = header.number(SIZE)?;
        let (data, rest) = split_padded(rest, n_bytes).ok_or_else(cut_short)?;
        archive = rest;
        match header.entry_type() {
            b'L' => long_name = Some(data),
            b'K' => long_link = Some(data),
            _ => visit(member(header, data, long_name.take(), long_link.take())?)?,
        }
    }
}

/// Two blocks of zeros, and nothing else.
fn check_end(rest: &[u8], is_described: bool) -> io::Result<()> {
    if is_described {
        return Err(invalid_data("a long name belongs to no entry".to_owned()));
    }
    match rest.len() {
        N_END_BYTES if rest.iter().all(|byte| *byte == 0) => Ok(()),
        0..N_END_BYTES => Err(cut_short()),
        _ => Err(invalid_data("something follows the end of the archive".to_owned())),
    }
}

/// `n_bytes` of data, and what follows the block in which they end.
fn split_padded(rest: &[u8], n_bytes: u64) -> Option<(&[u8], &[u8])> {
    let n_bytes = usize::try_from(n_bytes).ok()?;
    let n_padded = n_bytes.checked_next_multiple_of(N_BLOCK_BYTES)?;
    let (padded, rest) = rest.split_at_checked(n_padded)?;
    Some((&padded[..n_bytes], rest))
}

/// A header as it stands in an archive.
#[derive(Clone, Copy)]
struct Block<'a>(&'a [u8; N_BLOCK_BYTES]);

// Where its fields are: GNU tar's manual, "Basic Tar Format".
const NAME: Range<usize> = 0..100;
const MODE: Range<usize> = 100..108;
const UID: Range<usize> = 108..116;
const GID: Range<usize> = 116..124;
const SIZE: Range<usize> = 124..136;
const MTIME: Range<usize> = 136..148;
const CHECKSUM: Range<usize> = 148..156;
const ENTRY_TYPE: usize = 156;
const LINK_NAME: Range<usize> = 157..257;
const MAGIC: Range<usize> = 257..265;

impl<'a> Block<'a> {
    /// Its checksum is the sum of its bytes, those of the checksum itself taken as spaces.
    fn check(self) -> io::Result<()> {
        let sum = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        let n_spaces = CHECKSUM.len() as u64;
        let expected = sum(self.0) - sum(&self.0[CHECKSUM]) + n_spaces * u64::from(b' ');
        if self.0[MAGIC] != *b"ustar  \0" || self.number(CHECKSUM)? != expected {
            return Err(invalid_data("a header is not GNU tar's, or its checksum is wrong".into()));
        }
        Ok(())
    }

    /// An octal number, closed by a NUL or a space or both.
    fn number(self, field: Range<usize>) -> io::Result<u64> {
        let text = self.0[field].split(|byte| *byte == 0).next().unwrap_or_default().trim_ascii();
        let is_octal = !text.is_empty() && text.iter().all(|digit| matches!(digit, b'0'..=b'7'));
        if !is_octal {
            return Err(invalid_data("a number in a header is not octal".to_owned()));
        }
        // At most twelve digits of three bits.
        Ok(text.iter().fold(0, |number, digit| number << 3 | u64::from(digit - b'0')))
    }

    fn entry_type(self) -> u8 {
        self.0[ENTRY_TYPE]
    }

    /// A name: from its own entry if it is too long for its field.
    fn name(self, field: Range<usize>, long: Option<&'a [u8]>) -> io::Result<&'a str> {
        let bytes = long.unwrap_or(&self.0[field]);
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        std::str::from_utf8(&bytes[..end])
            .map_err(|_| invalid_data("a name or a link's target is not UTF-8".to_owned()))
    }
}

fn member<'a>(
    header: Block<'a>,
    data: &'a [u8],
    long_name: Option<&'a [u8]>,
    long_link: Option<&'a [u8]>,
) -> io::Result<Member<'a>> {
    let name = header.name(NAME, long_name)?;
    let odd = |what| invalid_data(format!("`{name}` is {what}"));
    let (path, body) = match header.entry_type() {
        b'0' => (name, Body::File(data)),
        b'5' if data.is_empty() => (name.strip_suffix('/').unwrap_or(name), Body::Dir),
        b'2' if data.is_empty() => (name, Body::Symlink(header.name(LINK_NAME, long_link)?)),
        _ => return Err(odd("neither a file, a folder nor a link")),
    };
    let mode = u32::try_from(header.number(MODE)?).ok().and_then(Mode::new);
    Ok(Member {
        path,
        mode: mode.ok_or_else(|| odd("of an odd mode"))?,
        uid: header.number(UID)?,
        gid: header.number(GID)?,
        mtime_secs: header.number(MTIME)?,
        body,
    })
}
