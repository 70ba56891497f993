//! Reads files out of an ISO 9660 image: single ones, or all of them.
//!
//! Written here, as it takes a few hundred lines and no program on the admin's host: a path is
//! looked up from the primary volume descriptor, by Rock Ridge names where the image has
//! them (lorax's images do) and by plain ones without regard to case. A list of all files is
//! made by Rock Ridge names only, as plain ones are cut short. Not read: Joliet, files of several
//! extents (4 GiB and more), interleaving, folders that were moved for their depth.

use std::collections::BTreeSet;
use std::io::{self, Read, Seek, SeekFrom};

/// Bytes of a logical sector (ECMA-119 6.1.2).
const SECTOR: u64 = 2048;
/// The longest directory that is read; those of an installer's ISO have a few sectors.
const MAX_DIRECTORY_BYTES: u32 = 16 << 20;
/// The most continuation areas that one record may have; a long name needs one.
const MAX_CONTINUATIONS: usize = 16;

/// Where a file or directory lies in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    offset: u64,
    /// Bytes.
    length: u32,
    is_directory: bool,
}

/// Why a file cannot be read out of an image.
#[derive(Debug, thiserror::Error)]
pub enum IsoError {
    #[error("it is no ISO 9660 image")]
    NotIso,
    #[error("it has no file `{0}`")]
    NotFound(String),
    #[error("its directory of `{0}` is damaged")]
    Damaged(String),
    #[error("its names are cut short: it has no Rock Ridge extension")]
    NoRockRidge,
    #[error("reading it")]
    Io(#[from] io::Error),
}

/// Returns a reader of the file at `path` (such as `images/install.img`) in `image`.
///
/// The reader ends early if the image does.
///
/// # Errors
///
/// [`IsoError::NotFound`] if there is no such file.
pub fn open<'a, R: Read + Seek>(
    image: &'a mut R,
    path: &str,
) -> Result<io::Take<&'a mut R>, IsoError> {
    let mut extent = root(image)?;
    for name in path.split('/') {
        if !extent.is_directory {
            return Err(IsoError::NotFound(path.to_owned()));
        }
        let directory = read_directory(image, extent, path)?;
        extent = find(&directory, name)
            .map_err(|Damaged| IsoError::Damaged(path.to_owned()))?
            .ok_or_else(|| IsoError::NotFound(path.to_owned()))?;
    }
    if extent.is_directory {
        return Err(IsoError::NotFound(path.to_owned()));
    }
    image.seek(SeekFrom::Start(extent.offset))?;
    Ok(image.take(u64::from(extent.length)))
}

/// Something in an image that is no folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// From the top of the image: `RPMS/repodata/repomd.xml`.
    pub path: String,
    pub kind: ListedKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListedKind {
    /// Where the file's bytes are.
    File {
        offset: u64,
        length: u32,
    },
    SymbolicLink,
}

/// Everything in the image but folders, by Rock Ridge names; a name that is not UTF-8 has
/// replacement characters.
///
/// # Errors
///
/// [`IsoError::NoRockRidge`] if a name is a plain one only.
pub fn list<R: Read + Seek>(image: &mut R) -> Result<Vec<Listed>, IsoError> {
    let mut listed = Vec::new();
    let mut folders = vec![(String::new(), root(image)?)];
    // In a damaged image a folder may hold one of those above it.
    let mut seen = BTreeSet::new();
    while let Some((folder, extent)) = folders.pop() {
        let damaged = || IsoError::Damaged(folder.clone());
        if !seen.insert(extent.offset) {
            return Err(damaged());
        }
        let directory = read_directory(image, extent, &folder)?;
        for record in records(&directory) {
            let record = record.map_err(|Damaged| damaged())?;
            let (identifier, system_use) = fields(record).ok_or_else(damaged)?;
            if is_itself_or_parent(identifier) {
                continue;
            }
            let extent = extent_of(record).ok_or_else(damaged)?;
            let RockRidge { name, is_link } = rock_ridge(image, system_use, &folder)?;
            let name = name.ok_or(IsoError::NoRockRidge)?;
            let path = match folder.as_str() {
                "" => String::from_utf8_lossy(&name).into_owned(),
                folder => format!("{folder}/{}", String::from_utf8_lossy(&name)),
            };
            if extent.is_directory {
                folders.push((path, extent));
                continue;
            }
            let kind = match is_link {
                true => ListedKind::SymbolicLink,
                false => ListedKind::File { offset: extent.offset, length: extent.length },
            };
            listed.push(Listed { path, kind });
        }
    }
    Ok(listed)
}

fn read_directory<R: Read + Seek>(
    image: &mut R,
    extent: Extent,
    path: &str,
) -> Result<Vec<u8>, IsoError> {
    if extent.length > MAX_DIRECTORY_BYTES {
        return Err(IsoError::Damaged(path.to_owned()));
    }
    let mut directory = vec![0; extent.length as usize];
    image.seek(SeekFrom::Start(extent.offset))?;
    image.read_exact(&mut directory)?;
    Ok(directory)
}

/// The root directory, by the primary volume descriptor (ECMA-119 8.4), which is the first.
fn root<R: Read + Seek>(image: &mut R) -> Result<Extent, IsoError> {
    let mut descriptor = [0; SECTOR as usize];
    image.seek(SeekFrom::Start(16 * SECTOR))?;
    match image.read_exact(&mut descriptor) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(IsoError::NotIso),
        other => other?,
    }
    if &descriptor[..7] != b"\x01CD001\x01" || little_u16(&descriptor[128..]) != SECTOR as u16 {
        return Err(IsoError::NotIso);
    }
    let record = &descriptor[156..190];
    extent_of(record).filter(|extent| extent.is_directory).ok_or(IsoError::NotIso)
}

/// A directory record that points outside of itself.
struct Damaged;

/// Looks `name` up among the records of `directory`.
fn find(directory: &[u8], name: &str) -> Result<Option<Extent>, Damaged> {
    for record in records(directory) {
        let record = record?;
        if is_named(record, name).ok_or(Damaged)? {
            return extent_of(record).map(Some).ok_or(Damaged);
        }
    }
    Ok(None)
}

/// The records of `directory` (ECMA-119 9.1).
fn records(directory: &[u8]) -> impl Iterator<Item = Result<&[u8], Damaged>> {
    directory.chunks(SECTOR as usize).flat_map(|sector| {
        let mut rest = sector;
        // A length of 0 ends the sector: no record crosses its end (ECMA-119 6.8.1.1).
        std::iter::from_fn(move || {
            let length = rest.first().copied().filter(|length| *length > 0)?;
            let Some((record, after)) = rest.split_at_checked(length.into()) else {
                rest = &[];
                return Some(Err(Damaged));
            };
            rest = after;
            Some(Ok(record))
        })
    })
}

/// Where the file of a directory record lies; `None` if the record cannot be of a whole file.
fn extent_of(record: &[u8]) -> Option<Extent> {
    const DIRECTORY: u8 = 1 << 1;
    const MORE_EXTENTS: u8 = 1 << 7;
    let flags = *record.get(25)?;
    (flags & MORE_EXTENTS == 0).then_some(Extent {
        offset: u64::from(little_u32(&record[2..])) * SECTOR,
        length: little_u32(&record[10..]),
        is_directory: flags & DIRECTORY != 0,
    })
}

/// Whether `record` is of the file `name`; `None` if the record is damaged.
fn is_named(record: &[u8], name: &str) -> Option<bool> {
    let (identifier, system_use) = fields(record)?;
    if is_itself_or_parent(identifier) {
        return Some(false);
    }
    if let Some(alternate) = rock_ridge_name(system_use) {
        return Some(alternate == name.as_bytes());
    }
    let plain = identifier.split(|byte| *byte == b';').next()?;
    let plain = plain.strip_suffix(b".").unwrap_or(plain);
    Some(plain.eq_ignore_ascii_case(name.as_bytes()))
}

/// The identifier of a directory record and its system use area; `None` if it is damaged.
fn fields(record: &[u8]) -> Option<(&[u8], &[u8])> {
    let identifier_length = usize::from(*record.get(32)?);
    let identifier = record.get(33..33 + identifier_length)?;
    // A padding byte keeps what follows at an even place (ECMA-119 9.1.12).
    let system_use = record.get(33 + identifier_length + usize::from(identifier_length % 2 == 0)..);
    Some((identifier, system_use.unwrap_or_default()))
}

/// The first two records of a directory (ECMA-119 6.8.2.2).
fn is_itself_or_parent(identifier: &[u8]) -> bool {
    matches!(identifier, [0] | [1])
}

/// What the Rock Ridge extension says of a record.
#[derive(Default)]
struct RockRidge {
    name: Option<Vec<u8>>,
    is_link: bool,
}

/// Reads the `NM` and `SL` entries of a system use area (RRIP 1.12 §4.1.3, §4.1.4) and of the
/// areas it goes on in (SUSP 1.12 §5.1, `CE`), where long names are.
fn rock_ridge<R: Read + Seek>(
    image: &mut R,
    system_use: &[u8],
    folder: &str,
) -> Result<RockRidge, IsoError> {
    let damaged = || IsoError::Damaged(folder.to_owned());
    let mut found = RockRidge::default();
    let mut area = system_use.to_vec();
    for _ in 0..MAX_CONTINUATIONS {
        let mut next = None;
        for entry in entries(&area) {
            match (&entry[..2], entry.len()) {
                // Flags 1 and 2 mark `.` and `..`, flag 0 a name that goes on.
                (b"NM", 5..) if entry[4] & 0b110 == 0 => {
                    found.name.get_or_insert_default().extend(&entry[5..]);
                }
                (b"SL", _) => found.is_link = true,
                (b"CE", 28..) => next = Some(entry),
                _ => {}
            }
        }
        let Some(next) = next else { return Ok(found) };
        let (sector, start, length) =
            (little_u32(&next[4..]), little_u32(&next[12..]), little_u32(&next[20..]));
        if u64::from(length) > SECTOR {
            return Err(damaged());
        }
        let mut following = vec![0; length as usize];
        image.seek(SeekFrom::Start(u64::from(sector) * SECTOR + u64::from(start)))?;
        image.read_exact(&mut following)?;
        area = following;
    }
    Err(damaged())
}

/// The entries of a system use area, which may end in padding (SUSP 1.12 §4.1).
fn entries(system_use: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = system_use;
    std::iter::from_fn(move || {
        let length = usize::from(*rest.get(2)?);
        let (entry, after) = rest.split_at_checked(length).filter(|(it, _)| it.len() >= 4)?;
        rest = after;
        (&entry[..2] != b"ST").then_some(entry)
    })
}

/// The name by the `NM` entry of a system use area (RRIP 1.12 §4.1.4).
///
/// Names that go on in a continuation area are not read: they are longer than any of ours.
fn rock_ridge_name(system_use: &[u8]) -> Option<&[u8]> {
    entries(system_use)
        .find(|entry| entry.starts_with(b"NM") && entry.len() >= 5 && entry[4] & 0b111 == 0)
        .map(|entry| &entry[5..])
}

fn little_u16(bytes: &[u8]) -> u16 {
    u16::from_le_bytes([bytes[0], bytes[1]])
}

fn little_u32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Cursor;

    use super::*;
    use crate::tool;

    /// An ISO by xorriso with a kernel of odd length, with or without Rock Ridge.
    fn iso(rock_ridge: &str) -> Cursor<Vec<u8>> {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("images/pxeboot")).unwrap();
        fs::write(root.join("images/pxeboot/vmlinuz"), vec![7; 5001]).unwrap();
        for number in 0..200 {
            fs::write(root.join(format!("images/filler{number:03}.dat")), "x").unwrap();
        }
        fs::write(root.join("images/zlast.img"), "last").unwrap();
        let path = folder.path().join("boot.iso");
        let (path, root) = (path.to_str().unwrap(), root.to_str().unwrap());
        let arguments =
            ["-as", "mkisofs", "-quiet", "-iso-level", "3", "-o", path, rock_ridge, root];
        tool::output_of("xorriso", &arguments).unwrap();
        Cursor::new(fs::read(path).unwrap())
    }

    fn contents(image: &mut Cursor<Vec<u8>>, path: &str) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        open(image, path)
            .map_err(|error| error.to_string())?
            .read_to_end(&mut bytes)
            .map_err(|error| error.to_string())?;
        Ok(bytes)
    }

    #[test]
    fn files_are_found_with_and_without_rock_ridge() {
        for option in ["-R", "-J"] {
            let mut image = iso(option);
            assert_eq!(
                contents(&mut image, "images/pxeboot/vmlinuz"),
                Ok(vec![7; 5001]),
                "{option}"
            );
            assert_eq!(
                contents(&mut image, "images/zlast.img"),
                Ok(b"last".to_vec()),
                "behind several sectors of directory, {option}"
            );
        }
    }

    #[test]
    fn all_files_are_listed_by_their_full_names() {
        let image = &mut iso("-R");
        let listed = list(image).unwrap();
        assert_eq!(listed.len(), 202);
        let last = listed.iter().find(|it| it.path == "images/zlast.img").unwrap();
        let ListedKind::File { offset, length } = last.kind else { panic!("{last:?}") };
        let offset = offset as usize;
        assert_eq!(image.get_ref()[offset..offset + length as usize], *b"last");

        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("RPMS")).unwrap();
        // Names of 30 to 240 bytes: in the record, partly behind it, wholly behind it.
        let mut expected: Vec<String> =
            (30..=240).step_by(5).map(|n| format!("RPMS/{}.rpm", "x".repeat(n - 4))).collect();
        for name in &expected {
            fs::write(root.join(name), name).unwrap();
        }
        std::os::unix::fs::symlink("x", root.join("RPMS/link")).unwrap();
        let path = folder.path().join("long.iso");
        let (path, root) = (path.to_str().unwrap(), root.to_str().unwrap());
        tool::output_of("xorriso", &["-as", "mkisofs", "-quiet", "-R", "-o", path, root]).unwrap();
        let listed = list(&mut Cursor::new(fs::read(path).unwrap())).unwrap();
        expected.push("RPMS/link".to_owned());
        expected.sort();
        let mut paths: Vec<&str> = listed.iter().map(|it| it.path.as_str()).collect();
        paths.sort_unstable();
        assert_eq!(paths, expected);
        let links = listed.iter().filter(|it| it.kind == ListedKind::SymbolicLink);
        assert_eq!(links.map(|it| it.path.as_str()).collect::<Vec<_>>(), ["RPMS/link"]);

        let plain = list(&mut iso("--norock")).map_err(|error| error.to_string());
        let expected = "its names are cut short: it has no Rock Ridge extension";
        assert_eq!(plain, Err(expected.to_owned()));
    }

    #[test]
    fn absent_files_folders_and_other_images_are_said_so() {
        let mut image = iso("-R");
        for path in ["images/install.img", "images/pxeboot", "images/zlast.img/x"] {
            assert_eq!(
                contents(&mut image, path),
                Err(format!("it has no file `{path}`")),
                "{path}"
            );
        }
        let mut text = Cursor::new(b"<html>".to_vec());
        assert_eq!(contents(&mut text, "x"), Err("it is no ISO 9660 image".to_owned()));
    }

    #[test]
    fn no_single_changed_byte_of_a_directory_makes_the_reader_panic() {
        let image = iso("-R").into_inner();
        let directory = root(&mut Cursor::new(&image)).unwrap().offset as usize;
        for offset in (16 * 2048..16 * 2048 + 200).chain(directory..directory + 600) {
            for value in [0, 1, 0x7f, 0xff] {
                let mut changed = image.clone();
                changed[offset] = value;
                let _ = open(&mut Cursor::new(&changed), "images/pxeboot/vmlinuz").is_ok();
                let _ = list(&mut Cursor::new(&changed)).is_ok();
            }
        }
    }
}
