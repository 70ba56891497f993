//! The image that all nodes of a lab share: opened, and refused if it is not what it should be.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::format::digest::Digest;
use crate::format::qcow2::{self, DiskFormat, HEADER_BYTES, Header};
use crate::output::disk::{self, named};
use crate::progress::{Progress, Unit};
use crate::units::ByteSize;

/// An image that disks can be layered on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// Absolute, without links.
    pub path: PathBuf,
    pub format: DiskFormat,
    /// The disk as a guest sees it.
    pub size: ByteSize,
}

/// Longer chains are loops, or a mistake.
const MAX_CHAIN: usize = 16;

/// Opens the image at `path`, whose digest must be `expected` if there is one.
///
/// # Errors
///
/// Says what is wrong with the image, and what mends it.
pub fn open(path: &Path, expected: Option<Digest>) -> Result<Base> {
    let path = fs::canonicalize(path).with_context(|| named("opening the base image", path))?;
    ensure!(path.is_file(), "the base image {} is no file", path.display());
    disk::require_text(&path)?;
    let (format, size) = judge(&path, 0)?;
    if let Some(expected) = expected {
        compare(&path, expected)?;
    }
    Ok(Base { path, format, size })
}

/// Reads all of the image; an image of another digest may be anybody's.
fn compare(path: &Path, expected: Digest) -> Result<()> {
    let read = || {
        let file = File::open(path)?;
        let progress =
            Progress::start("checking the base image", Some(file.metadata()?.len()), Unit::Bytes);
        let found = Digest::of_reader(file, |bytes| progress.advance(bytes));
        progress.finish();
        found
    };
    let (found, _) = read().with_context(|| named("reading", path))?;
    ensure!(
        found == expected,
        "the base image {} is not the one that --base-sha256 names: its digest is {found}; \
         fetch it again",
        path.display()
    );
    Ok(())
}

fn judge(path: &Path, depth: usize) -> Result<(DiskFormat, ByteSize)> {
    let begin = beginning(path).with_context(|| named("reading", path))?;
    if !begin.starts_with(&qcow2::MAGIC) {
        return Ok((DiskFormat::Raw, judge_raw(path, &begin)?));
    }
    let header = Header::read(&begin)
        .with_context(|| format!("{} cannot be a base image", path.display()))?;
    let is_whole = File::open(path).and_then(|file| qcow2::is_whole(&file));
    ensure!(
        is_whole.with_context(|| named("reading", path))?,
        "the base image {} is cut short, or its tables lead nowhere: fetch it again",
        path.display()
    );
    if let Some(backing) = &header.backing {
        follow(path, backing, depth)?;
    }
    Ok((DiskFormat::Qcow2, header.virtual_size))
}

fn beginning(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut begin = Vec::new();
    File::open(path)?.take(HEADER_BYTES as u64).read_to_end(&mut begin)?;
    Ok(begin)
}

/// The image below, by QEMU's rules: from the folder of the image that names it.
fn follow(path: &Path, backing: &str, depth: usize) -> Result<()> {
    let of = || format!("the base image {} stands on `{backing}`", path.display());
    ensure!(depth < MAX_CHAIN, "{}, and that on more than {MAX_CHAIN} others", of());
    let name = backing.strip_prefix("file:").unwrap_or(backing);
    let is_protocol = name.split('/').next().is_some_and(|first| first.contains(':'));
    ensure!(!is_protocol, "{}, which is no file of this host", of());
    let below = path.parent().unwrap_or(Path::new("/")).join(name);
    if !below.exists() {
        bail!(
            "{}, which is not there; put it there, or join them: \
             qemu-img convert -O qcow2 {} whole.qcow2",
            of(),
            path.display()
        );
    }
    judge(&below, depth + 1).with_context(of)?;
    Ok(())
}

/// What begins a file that is taken for a disk and is none.
const OTHERS: [(&[u8], &str); 8] = [
    (b"KDMV", "a VMDK image: qemu-img convert -O qcow2"),
    (b"# Disk DescriptorFile", "a VMDK image: qemu-img convert -O qcow2"),
    (b"vhdxfile", "a VHDX image: qemu-img convert -O qcow2"),
    (b"conectix", "a VHD image: qemu-img convert -O qcow2"),
    (b"\x1f\x8b", "compressed: gunzip"),
    (b"\xfd7zXZ\0", "compressed: unxz"),
    (b"\x28\xb5\x2f\xfd", "compressed: unzstd"),
    (b"<", "a web page: fetch the image again"),
];

/// Where the first volume descriptor of an ISO says what it is (ECMA-119 8.1). Most have a master
/// boot record, too.
const ISO_MARK: (usize, &[u8]) = (16 * 2048 + 1, b"CD001");

/// A raw disk has no mark of its own: it is one if it holds what disks hold.
fn judge_raw(path: &Path, begin: &[u8]) -> Result<ByteSize> {
    let path_shown = path.display();
    if let Some((_, what)) = OTHERS.iter().find(|(magic, _)| begin.starts_with(magic)) {
        bail!("the base image {path_shown} is {what}");
    }
    let at =
        |offset: usize, magic: &[u8]| begin.get(offset..).is_some_and(|it| it.starts_with(magic));
    ensure!(
        !at(ISO_MARK.0, ISO_MARK.1),
        "the base image {path_shown} is an ISO: `image --install --iso` installs from an \
         installer's, and --base wants the disk of a system with cloud-init"
    );
    // A master boot record, ext2 to ext4 (`s_magic`), XFS.
    let is_disk = at(510, b"\x55\xaa") || at(1080, b"\x53\xef") || at(0, b"XFSB");
    let is_named_qcow2 = path.extension().is_some_and(|it| it == "qcow2");
    ensure!(
        is_disk && !is_named_qcow2,
        "the base image {path_shown} is neither qcow2 nor a raw disk with partitions or a \
         filesystem: fetch it again"
    );
    let length = fs::metadata(path).with_context(|| named("reading", path))?.len();
    ensure!(
        length % 512 == 0,
        "the base image {path_shown} has {length} bytes, no whole number of sectors: \
         fetch it again"
    );
    Ok(ByteSize::from_bytes(length))
}
