//! Thin qcow2 images: a header that names a base, and no data of their own.
//!
//! [`overlay`] writes what `qemu-img create -b` would, byte by byte the same for the same
//! arguments and without starting a program. [`Header::read`] reads what decides whether an
//! image can be a base. Both follow QEMU's docs/interop/qcow2.txt, version 3; numbers are
//! big-endian.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use thiserror::Error;

use crate::units::ByteSize;

/// `QFI\xfb`.
pub const MAGIC: [u8; 4] = *b"QFI\xfb";
/// As much of an image as [`Header::read`] looks at: one cluster of QEMU's default size.
pub const HEADER_BYTES: usize = 1 << CLUSTER_BITS;

const CLUSTER_BITS: u32 = 16;
const CLUSTER: usize = 1 << CLUSTER_BITS;
/// One cluster of L2 entries maps 512 MiB of the guest's disk.
const L1_ENTRY_BYTES: u64 = (CLUSTER as u64 / 8) << CLUSTER_BITS;
/// Up to and with the compression type, padded to 8 bytes.
const HEADER_LENGTH: u32 = 112;
const BACKING_FORMAT: u32 = 0xe279_2aca;
/// QEMU reads no longer name (block/qcow2.c).
const MAX_BACKING_NAME: usize = 1023;
/// QEMU's QCOW_MAX_L1_SIZE, which is 2 PiB with clusters of 64 KiB.
const MAX_L1_BYTES: u64 = 32 << 20;

/// What the bytes that an overlay does not hold are read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backing<'a> {
    /// A path, from the overlay's folder if it is relative. A relative one must not look
    /// like a protocol (`a:b`).
    pub name: &'a str,
    pub format: DiskFormat,
}

/// The formats that an image may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFormat {
    Qcow2,
    Raw,
}

impl DiskFormat {
    /// As QEMU calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            DiskFormat::Qcow2 => "qcow2",
            DiskFormat::Raw => "raw",
        }
    }
}

/// The bytes of an image of `size`, all of it on `backing`: four clusters for a disk of up
/// to 4 TiB. A size that is not a whole number of sectors is rounded up.
///
/// # Errors
///
/// [`io::ErrorKind::InvalidInput`] for a name that qcow2 has no room for, or a size beyond
/// QEMU's.
pub fn overlay(size: ByteSize, backing: Backing<'_>) -> io::Result<Vec<u8>> {
    let refuse = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, why.to_owned()));
    if backing.name.is_empty() || backing.name.len() > MAX_BACKING_NAME {
        return refuse("the name of a base has 1 to 1023 bytes");
    }
    let size = size.bytes().next_multiple_of(512);
    let n_l1_entries = size.div_ceil(L1_ENTRY_BYTES);
    if n_l1_entries * 8 > MAX_L1_BYTES {
        return refuse("a disk of more than 2 PiB");
    }
    let n_l1_clusters = (n_l1_entries * 8).div_ceil(CLUSTER as u64).max(1);
    // Header, refcount table, refcount block, then L1: at most 515, and a block counts 32,768.
    let n_clusters = 3 + usize::try_from(n_l1_clusters).expect("checked to be small");
    let [refcount_table, refcount_block, l1_table] = [1, 2, 3].map(|at| at * CLUSTER);

    let mut image = vec![0; n_clusters * CLUSTER];
    write_header(&mut image, size, n_l1_entries, backing);
    put64(&mut image, refcount_table, refcount_block as u64);
    for cluster in 0..n_clusters {
        image[refcount_block + 2 * cluster + 1] = 1;
    }
    debug_assert_eq!(get64(&image, 40), l1_table as u64);
    Ok(image)
}

fn write_header(image: &mut [u8], size: u64, n_l1_entries: u64, backing: Backing<'_>) {
    let format = backing.format.as_str().as_bytes();
    let extension = HEADER_LENGTH as usize;
    let after_format = extension + 8 + format.len().next_multiple_of(8);
    let name = after_format + 8; // past the end mark, which is all zero
    image[..4].copy_from_slice(&MAGIC);
    put32(image, 4, 3);
    put64(image, 8, name as u64);
    put32(image, 16, u32::try_from(backing.name.len()).expect("checked to be small"));
    put32(image, 20, CLUSTER_BITS);
    put64(image, 24, size);
    put32(image, 36, u32::try_from(n_l1_entries).expect("checked to be small"));
    put64(image, 40, 3 * CLUSTER as u64);
    put64(image, 48, CLUSTER as u64);
    put32(image, 56, 1);
    put32(image, 96, 4); // refcounts of 16 bits
    put32(image, 100, HEADER_LENGTH);
    put32(image, extension, BACKING_FORMAT);
    put32(image, extension + 4, u32::try_from(format.len()).expect("a short word"));
    image[extension + 8..][..format.len()].copy_from_slice(format);
    image[name..][..backing.name.len()].copy_from_slice(backing.name.as_bytes());
}

/// What an image says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The disk as a guest sees it.
    pub virtual_size: ByteSize,
    /// The image below this one, as written.
    pub backing: Option<String>,
    /// The format of that image, where the header says it.
    pub backing_format: Option<String>,
}

/// Why an image cannot be used as a base.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    #[error("it is not qcow2")]
    NotQcow2,
    #[error("its header is cut off or makes no sense: {0}")]
    Broken(&'static str),
    #[error("it is qcow2 version {0}; 2 and 3 are known")]
    Version(u32),
    #[error("it is encrypted")]
    Encrypted,
    #[error("its data are in another file")]
    ExternalData,
    #[error("it is marked as corrupt; `qemu-img check -r all` may mend it")]
    Corrupt,
    #[error("it was not closed properly; `qemu-img check -r leaks` mends it")]
    Dirty,
    #[error("it has features (mask {0:#x}) that QEMU 6.2 does not know")]
    Features(u64),
}

impl Header {
    /// Reads the first [`HEADER_BYTES`] of an image, or all of a shorter one.
    ///
    /// # Errors
    ///
    /// Says why the image can be no base.
    pub fn read(bytes: &[u8]) -> Result<Self, Fault> {
        if !bytes.starts_with(&MAGIC) {
            return Err(Fault::NotQcow2);
        }
        if bytes.len() < 104 {
            return Err(Fault::Broken("too short"));
        }
        let version = get32(bytes, 4);
        let length = match version {
            2 => 72,
            3 => get32(bytes, 100) as usize,
            other => return Err(Fault::Version(other)),
        };
        check_features(if version == 3 { get64(bytes, 72) } else { 0 })?;
        if get32(bytes, 32) != 0 {
            return Err(Fault::Encrypted);
        }
        if !(9..=21).contains(&get32(bytes, 20)) {
            return Err(Fault::Broken("the size of its clusters"));
        }
        Ok(Self {
            virtual_size: ByteSize::from_bytes(get64(bytes, 24)),
            backing: backing_name(bytes)?,
            backing_format: extension(bytes, length, BACKING_FORMAT)?.map(text),
        })
    }
}

/// Whether all that the tables of a qcow2 image name lies in its file, as far as `qemu-img check`
/// asks for it, too: the last cluster may be cut, as nothing need have been written to its end.
/// `Header::read` has taken its header.
///
/// # Errors
///
/// Fails if the file cannot be read.
pub fn is_whole(file: &File) -> io::Result<bool> {
    let length = file.metadata()?.len();
    let mut header = [0; 104];
    file.read_exact_at(&mut header, 0)?;
    let cluster_bits = get32(&header, 20);
    let cluster = 1_u64 << cluster_bits;
    let begins_inside = |at: u64, size: u64| {
        at.checked_add(size).is_some_and(|end| end < length.saturating_add(cluster))
    };
    let table = |at: u64, size: u64| -> io::Result<Option<Vec<u8>>> {
        if at.checked_add(size).is_none_or(|end| end > length) {
            return Ok(None);
        }
        let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, at)?;
        Ok(Some(bytes))
    };
    let refcount_size = u64::from(get32(&header, 56)) << cluster_bits;
    let l1_size = u64::from(get32(&header, 36)) * 8;
    if l1_size > MAX_L1_BYTES || refcount_size > MAX_REFCOUNT_TABLE_BYTES {
        return Ok(false);
    }
    let refcounts = table(get64(&header, 48), refcount_size)?;
    let Some((refcounts, l1)) = refcounts.zip(table(get64(&header, 40), l1_size)?) else {
        return Ok(false);
    };
    let mut blocks = entries(&refcounts, 8).map(|entry| entry & !0x1ff).filter(|at| *at != 0);
    if !blocks.all(|at| begins_inside(at, cluster)) {
        return Ok(false);
    }
    // Version 2 has other fields there, which are of no account: its flags are never set.
    let is_extended = get32(&header, 4) == 3 && get64(&header, 72) & 16 != 0;
    let stride = if is_extended { 16 } else { 8 };
    for at in entries(&l1, 8).map(|entry| entry & OFFSET).filter(|at| *at != 0) {
        let Some(l2) = table(at, cluster)? else { return Ok(false) };
        let is_inside = |entry: u64| match entry >> 62 & 1 {
            0 => entry & OFFSET == 0 || begins_inside(entry & OFFSET, cluster),
            _ => {
                let n_offset_bits = 62 - (cluster_bits - 8);
                let at = entry & ((1 << n_offset_bits) - 1);
                let n_sectors = (entry >> n_offset_bits & ((1 << (cluster_bits - 8)) - 1)) + 1;
                begins_inside(at & !511, n_sectors * 512)
            }
        };
        if !entries(&l2, stride).all(is_inside) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The bits of an entry of L1 or L2 that say where in the file it leads.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// QEMU's QCOW_MAX_REFTABLE_SIZE.
const MAX_REFCOUNT_TABLE_BYTES: u64 = 8 << 20;

/// What begins each `stride` bytes of a table.
fn entries(table: &[u8], stride: usize) -> impl Iterator<Item = u64> {
    table.chunks_exact(stride).map(|entry| get64(entry, 0))
}

/// The bits of `incompatible_features`: 0 dirty, 1 corrupt, 2 external data file, 3 compression
/// type, 4 extended L2.
fn check_features(features: u64) -> Result<(), Fault> {
    match features {
        _ if features >> 5 != 0 => Err(Fault::Features(features)),
        _ if features & 4 != 0 => Err(Fault::ExternalData),
        _ if features & 2 != 0 => Err(Fault::Corrupt),
        _ if features & 1 != 0 => Err(Fault::Dirty),
        _ => Ok(()),
    }
}

fn backing_name(bytes: &[u8]) -> Result<Option<String>, Fault> {
    let (offset, length) = (get64(bytes, 8), get32(bytes, 16) as usize);
    if offset == 0 {
        return Ok(None);
    }
    let name = usize::try_from(offset)
        .ok()
        .filter(|_| length <= MAX_BACKING_NAME)
        .and_then(|offset| bytes.get(offset..)?.get(..length));
    name.map(|name| Some(text(name))).ok_or(Fault::Broken("the name of its base"))
}

/// The header extension of that type, between the end of the header and the mark of type 0.
fn extension(bytes: &[u8], header: usize, wanted: u32) -> Result<Option<&[u8]>, Fault> {
    let broken = || Fault::Broken("a header extension");
    let mut rest = bytes.get(header..).ok_or(Fault::Broken("its length"))?;
    loop {
        let (head, body) = rest.split_at_checked(8).ok_or_else(broken)?;
        let (kind, length) = (get32(head, 0), get32(head, 4) as usize);
        if kind == 0 {
            return Ok(None);
        }
        let content = body.get(..length).ok_or_else(broken)?;
        if kind == wanted {
            return Ok(Some(content));
        }
        rest = body.get(length.next_multiple_of(8)..).ok_or_else(broken)?;
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn put32(image: &mut [u8], at: usize, value: u32) {
    image[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

fn put64(image: &mut [u8], at: usize, value: u64) {
    image[at..at + 8].copy_from_slice(&value.to_be_bytes());
}

fn get32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn get64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Backing<'_> = Backing { name: "/images/base.qcow2", format: DiskFormat::Qcow2 };

    #[test]
    fn a_header_reads_back_as_it_was_written() {
        for (name, format) in [("../base.raw", DiskFormat::Raw), (BASE.name, BASE.format)] {
            let image = overlay(ByteSize::from_gib(40), Backing { name, format }).unwrap();
            let header = Header {
                virtual_size: ByteSize::from_gib(40),
                backing: Some(name.to_owned()),
                backing_format: Some(format.as_str().to_owned()),
            };
            assert_eq!(Header::read(&image[..HEADER_BYTES]), Ok(header));
        }
    }

    #[test]
    fn the_l1_table_grows_with_the_disk_and_odd_sizes_become_whole_sectors() {
        for (bytes, size, n_entries, n_clusters) in [
            (1, 512, 1, 4),
            (1 << 29, 1 << 29, 1, 4),
            ((1 << 29) + 1, (1 << 29) + 512, 2, 4),
            (8 << 40, 8 << 40, 16_384, 5),
        ] {
            let image = overlay(ByteSize::from_bytes(bytes), BASE).unwrap();
            let found = (get64(&image, 24), get32(&image, 36), image.len() / CLUSTER);
            assert_eq!(found, (size, n_entries, n_clusters), "{bytes} bytes");
        }
    }

    #[test]
    fn what_qcow2_cannot_say_is_refused() {
        let long = "x".repeat(1024);
        for (gib, name) in [(1, ""), (1, &long), (4 << 20, "base")] {
            let backing = Backing { name, format: DiskFormat::Raw };
            let fault = overlay(ByteSize::from_gib(gib), backing).unwrap_err();
            assert_eq!(fault.kind(), io::ErrorKind::InvalidInput, "{gib} GiB on {name:?}");
        }
    }

    #[test]
    fn an_image_that_can_be_no_base_is_refused_by_what_is_wrong_with_it() {
        let change = |at: usize, value: u8| {
            let mut image = overlay(ByteSize::from_gib(1), BASE).unwrap();
            image[at] = value;
            image.truncate(HEADER_BYTES);
            Header::read(&image).unwrap_err()
        };
        for (at, value, fault) in [
            (0, b'X', Fault::NotQcow2),
            (7, 4, Fault::Version(4)),
            (35, 1, Fault::Encrypted),
            (79, 1, Fault::Dirty),
            (79, 2, Fault::Corrupt),
            (79, 4, Fault::ExternalData),
            (79, 32, Fault::Features(32)),
            (23, 60, Fault::Broken("the size of its clusters")),
            (13, 1, Fault::Broken("the name of its base")),
            (101, 1, Fault::Broken("its length")),
            (116, 9, Fault::Broken("a header extension")),
        ] {
            assert_eq!(change(at, value), fault, "byte {at} is {value}");
        }
        assert_eq!(Header::read(&MAGIC), Err(Fault::Broken("too short")));
        assert_eq!(Header::read(b""), Err(Fault::NotQcow2));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(mut bytes: Vec<u8>, version in 0..5_u8) {
            bytes.resize(bytes.len().max(8), 0);
            bytes[..8].copy_from_slice(&[b'Q', b'F', b'I', 0xfb, 0, 0, 0, version]);
            let _ = Header::read(&bytes);
        }
    }
}
