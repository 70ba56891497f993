//! Reads single files out of an ISO 9660 image.
//!
//! Written here, as it takes a hundred lines and no program on the admin's host: a path is
//! looked up from the primary volume descriptor, by Rock Ridge names where the image has
//! them (lorax's images do) and by plain ones without regard to case. Not read: Joliet, files
//! of several extents (4 GiB and more), interleaving.

use std::io::{self, Read, Seek, SeekFrom};

/// Bytes of a logical sector (ECMA-119 6.1.2).
const SECTOR: u64 = 2048;
/// The longest directory that is read; those of an installer's ISO have a few sectors.
const MAX_DIRECTORY_BYTES: u32 = 16 << 20;

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
        if extent.length > MAX_DIRECTORY_BYTES {
            return Err(IsoError::Damaged(path.to_owned()));
        }
        let mut directory = vec![0; extent.length as usize];
        image.seek(SeekFrom::Start(extent.offset))?;
        image.read_exact(&mut directory)?;
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

/// Looks `name` up among the records of `directory` (ECMA-119 9.1).
fn find(directory: &[u8], name: &str) -> Result<Option<Extent>, Damaged> {
    for sector in directory.chunks(SECTOR as usize) {
        let mut rest = sector;
        // A length of 0 ends the sector: no record crosses its end (ECMA-119 6.8.1.1).
        while let Some(length) = rest.first().copied().filter(|length| *length > 0) {
            let (record, after) = rest.split_at_checked(length.into()).ok_or(Damaged)?;
            if is_named(record, name).ok_or(Damaged)? {
                return extent_of(record).map(Some).ok_or(Damaged);
            }
            rest = after;
        }
    }
    Ok(None)
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
    let identifier_length = usize::from(*record.get(32)?);
    let identifier = record.get(33..33 + identifier_length)?;
    if matches!(identifier, [0] | [1]) {
        return Some(false); // The directory itself and its parent.
    }
    // A padding byte keeps what follows at an even place (ECMA-119 9.1.12).
    let system_use = record.get(33 + identifier_length + usize::from(identifier_length % 2 == 0)..);
    if let Some(alternate) = rock_ridge_name(system_use.unwrap_or_default()) {
        return Some(alternate == name.as_bytes());
    }
    let plain = identifier.split(|byte| *byte == b';').next()?;
    let plain = plain.strip_suffix(b".").unwrap_or(plain);
    Some(plain.eq_ignore_ascii_case(name.as_bytes()))
}

/// The name by the `NM` entry of a system use area (RRIP 1.12 §4.1.4).
///
/// Names that go on in a continuation area are not read: they are longer than any of ours.
fn rock_ridge_name(system_use: &[u8]) -> Option<&[u8]> {
    let mut rest = system_use;
    while rest.len() >= 4 {
        let (entry, after) = rest.split_at_checked(rest[2].into()).filter(|(e, _)| e.len() >= 4)?;
        if entry.starts_with(b"NM") && entry.len() >= 5 && entry[4] & 0b111 == 0 {
            return Some(&entry[5..]);
        }
        rest = after;
    }
    None
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
                let _ = open(&mut Cursor::new(changed), "images/pxeboot/vmlinuz").is_ok();
            }
        }
    }
}
