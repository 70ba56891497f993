//! The tar archive, in GNU's dialect, which GNU tar 1.30 and bsdtar unpack.

use std::io::{self, Read, Write};

use tar::{Archive, Builder, EntryType, Header};

use crate::format::{Body, MTIME_SECS, Member, body_of, check_entry, invalid_data};
use crate::tree::{FileTree, Mode, TreePath};

/// Two blocks of zeros end an archive (POSIX.1-2017, `pax`, "ustar Interchange Format").
const N_END_BYTES: usize = 1024;

const N_BLOCK_BYTES: u64 = 512;

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
pub fn read(archive: &[u8], visit: &mut dyn FnMut(Member<'_>) -> io::Result<()>) -> io::Result<()> {
    let (mut contents, mut end) = (Vec::new(), 0);
    for entry in Archive::new(archive).entries()? {
        let mut entry = entry?;
        let n_padded = entry.size().checked_next_multiple_of(N_BLOCK_BYTES);
        end = n_padded
            .and_then(|n_padded| entry.raw_file_position().checked_add(n_padded))
            .ok_or_else(|| invalid_data("an entry's size has no end".to_owned()))?;
        read_member(&mut entry, &mut contents, visit)?;
    }
    let rest = usize::try_from(end).ok().and_then(|end| archive.get(end..));
    match rest {
        Some(zeros) if zeros.len() == N_END_BYTES && zeros.iter().all(|byte| *byte == 0) => Ok(()),
        Some(zeros) if zeros.len() > N_END_BYTES => {
            Err(invalid_data("something follows the end of the archive".to_owned()))
        }
        _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive has no end")),
    }
}

fn read_member(
    entry: &mut tar::Entry<'_, &[u8]>,
    contents: &mut Vec<u8>,
    visit: &mut dyn FnMut(Member<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let path_bytes = entry.path_bytes().into_owned();
    let link_bytes = entry.link_name_bytes().map(|target| target.into_owned());
    let path = std::str::from_utf8(&path_bytes)
        .map_err(|_| invalid_data("a name that is not UTF-8".to_owned()))?;
    let odd = |what| invalid_data(format!("`{path}` is {what}"));
    let entry_type = entry.header().entry_type();
    contents.clear();
    if entry_type == EntryType::Regular {
        entry.read_to_end(contents)?;
    }
    if contents.len() as u64 != entry.size() {
        let message = format!("`{path}` is cut short, or has contents and is no file");
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
    }
    let (path, body) = match entry_type {
        EntryType::Regular => (path, Body::File(contents)),
        EntryType::Directory => (path.strip_suffix('/').unwrap_or(path), Body::Dir),
        EntryType::Symlink => {
            let target = link_bytes.as_deref().unwrap_or_default();
            let target = std::str::from_utf8(target);
            (path, Body::Symlink(target.map_err(|_| odd("a link whose target is not UTF-8"))?))
        }
        _ => return Err(odd("neither a file, a folder nor a link")),
    };
    let header = entry.header();
    visit(Member {
        path,
        mode: Mode::new(header.mode()?).ok_or_else(|| odd("of an odd mode"))?,
        uid: header.uid()?,
        gid: header.gid()?,
        mtime_secs: header.mtime()?,
        body,
    })
}
