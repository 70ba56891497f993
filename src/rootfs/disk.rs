//! A disk that BIOS and UEFI start: GPT with GRUB's two partitions, the root, and a partition for each
//! filesystem of DAOS's that outlives reinstallations.
//!
//! What all nodes share is written once, and each node's disk is a copy with the difference.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::{SeekFrom, ioctl_ficlone, seek};

use crate::format::digest::Digest;
use crate::format::gpt::{self, Guid, N_TABLE_SECTORS, Partition, PartitionUse, SECTOR};
use crate::format::grub;
use crate::output::disk::named;
use crate::output::whole_file::{Audience, WholeFile};
use crate::progress::{Progress, Unit};
use crate::render::kickstart::KeptFilesystem;
use crate::rootfs::ext4::{self, Place};
use crate::rootfs::loader::Loader;
use crate::rootfs::tree::RootTree;
use crate::tool;
use crate::units::ByteSize;

/// Partitions begin at whole MiB.
const MIB: u64 = (1 << 20) / SECTOR;
const BIOS_BOOT: u64 = MIB;
const EFI_SYSTEM: u64 = 2 * MIB;
const ROOT: u64 = EFI_SYSTEM + EFI_SYSTEM_BYTES as u64 / SECTOR;
/// FAT32 has 65,525 clusters or more, which are sectors here.
pub const EFI_SYSTEM_BYTES: usize = 64 << 20;
/// What a root may grow by where nobody says how large the disk is.
const GROWTH: ByteSize = ByteSize::from_gib(2);

/// Where what is on a disk, in sectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub n_root: u64,
    /// First sector and length of each kept filesystem's partition.
    pub kept: Vec<(u64, u64)>,
    pub n_sectors: u64,
}

impl Layout {
    /// For a root of `needed` bytes or more on a disk of `disk`, or of what is needed.
    ///
    /// # Errors
    ///
    /// Says how much the disk lacks.
    pub fn of(
        needed: ByteSize,
        kept: &[KeptFilesystem],
        disk: Option<ByteSize>,
    ) -> Result<Self, String> {
        let n_kept: u64 = kept.iter().map(|it| it.size_mib * MIB).sum();
        let n_needed = needed.bytes().div_ceil(SECTOR).next_multiple_of(MIB);
        let n_around = ROOT + n_kept + MIB;
        let n_growth = GROWTH.bytes() / SECTOR;
        let n_sectors = disk.map_or(n_around + n_needed + n_growth, |disk| disk.bytes() / SECTOR);
        let n_root = n_sectors.saturating_sub(n_around) / MIB * MIB;
        if n_root < n_needed {
            return Err(format!(
                "a disk of {} MiB is too small, {} MiB are needed: make hw.vm.disk larger",
                n_sectors / MIB,
                (n_around + n_needed) / MIB,
            ));
        }
        let mut next = ROOT + n_root;
        let kept = kept.iter().map(|it| {
            let first = next;
            next += it.size_mib * MIB;
            (first, it.size_mib * MIB)
        });
        Ok(Self { n_root, kept: kept.collect(), n_sectors })
    }

    pub fn size(&self) -> ByteSize {
        ByteSize::from_bytes(self.n_sectors * SECTOR)
    }
}

/// The GUID of `what` of a node: the same for the same cluster, node and part.
pub fn guid(cluster: &str, node: &str, what: &str) -> Guid {
    let digest = Digest::of(format!("{cluster}\0{node}\0image {what}").as_bytes());
    Guid::from_seed(*digest.as_bytes().first_chunk().expect("it has 32 bytes"))
}

/// The GUID of the root's partition, by which the kernel finds it.
pub fn root_guid(cluster: &str, node: &str) -> Guid {
    guid(cluster, node, "root")
}

/// Roots that nodes share, by their length, each in a file of its own.
pub struct Assembly<'a> {
    /// The cluster's name.
    pub cluster: &'a str,
    pub tree: &'a RootTree,
    pub loader: &'a Loader,
    /// A folder for files that are in nobody's way.
    pub spool: &'a Path,
    pub shared: BTreeMap<u64, PathBuf>,
}

/// A node's disk.
#[derive(Clone, Copy)]
pub struct NodeDisk<'a> {
    pub node: &'a str,
    /// With what is the node's own.
    pub tree: &'a RootTree,
    pub layout: &'a Layout,
    pub kept: &'a [KeptFilesystem],
}

impl Assembly<'_> {
    /// Writes a node's disk to `out`, which is empty, and which other programs open as `path`.
    ///
    /// # Errors
    ///
    /// Fails if the disk does, and with what e2fsprogs says.
    pub fn write(&mut self, disk: NodeDisk<'_>, out: &File, path: &Path) -> Result<()> {
        let shared = self.shared_root(disk.layout.n_root)?;
        copy_data(&shared, out).with_context(|| named("copying the shared root to", path))?;
        let size = disk.layout.size().bytes();
        out.set_len(size).with_context(|| format!("making a disk of {size} bytes"))?;
        self.write_around(disk, out).context("writing the boot loader and partitions")?;
        let spool = self.spool.join(disk.node);
        fs::create_dir(&spool).with_context(|| named("making", &spool))?;
        let place = Place { image: path, offset: ROOT * SECTOR };
        ext4::change(place, self.tree, disk.tree, &spool)
            .with_context(|| format!("making the disk of {}", disk.node))?;
        fs::remove_dir_all(&spool).with_context(|| named("removing", &spool))
    }

    fn shared_root(&mut self, n_root: u64) -> Result<PathBuf> {
        if let Some(path) = self.shared.get(&n_root) {
            return Ok(path.clone());
        }
        let path = self.spool.join(format!("root-{n_root}.raw"));
        let file = File::create_new(&path).with_context(|| named("making", &path))?;
        file.set_len((ROOT + n_root) * SECTOR).with_context(|| named("making", &path))?;
        let spool = self.spool.join(format!("root-{n_root}"));
        fs::create_dir(&spool).with_context(|| named("making", &spool))?;
        let place = Place { image: &path, offset: ROOT * SECTOR };
        let id = guid(self.cluster, "", "root filesystem");
        ext4::make(place, ByteSize::from_bytes(n_root * SECTOR), id)?;
        ext4::change(place, &RootTree::default(), self.tree, &spool)?;
        fs::remove_dir_all(&spool).with_context(|| named("removing", &spool))?;
        self.shared.insert(n_root, path.clone());
        Ok(path)
    }

    fn write_around(&self, disk: NodeDisk<'_>, out: &File) -> io::Result<()> {
        let of = |what: &str| guid(self.cluster, disk.node, what);
        let partition = |name, use_, first_sector, n_sectors| Partition {
            name,
            use_,
            guid: of(name),
            first_sector,
            n_sectors,
        };
        let mut partitions = vec![
            partition("bios-boot", PartitionUse::BiosBoot, BIOS_BOOT, EFI_SYSTEM - BIOS_BOOT),
            partition("efi-system", PartitionUse::EfiSystem, EFI_SYSTEM, ROOT - EFI_SYSTEM),
            partition("root", PartitionUse::Linux, ROOT, disk.layout.n_root),
        ];
        for (kept, (first, n_sectors)) in disk.kept.iter().zip(&disk.layout.kept) {
            partitions.push(partition(kept.label, PartitionUse::Linux, *first, *n_sectors));
        }
        debug_assert!(disk.layout.n_sectors > N_TABLE_SECTORS);
        let mut core = self.loader.core.clone();
        grub::place_core(&mut core, BIOS_BOOT)?;
        if core.len() as u64 > (EFI_SYSTEM - BIOS_BOOT) * SECTOR {
            return Err(io::Error::other("GRUB's core does not fit into its partition"));
        }
        let code = grub::boot_code(&self.loader.boot_img, BIOS_BOOT)?;
        gpt::write(out.try_clone()?, of("disk"), &partitions, &code)?;
        out.write_all_at(&core, BIOS_BOOT * SECTOR)?;
        write_sparse(&self.loader.efi_system, out, EFI_SYSTEM * SECTOR)
    }
}

/// Writes what of `bytes` is not zero into a file of zeros.
fn write_sparse(bytes: &[u8], out: &File, offset: u64) -> io::Result<()> {
    const BLOCK: usize = 4096;
    for (at, block) in bytes.chunks(BLOCK).enumerate() {
        if block.iter().any(|byte| *byte != 0) {
            out.write_all_at(block, offset + (at * BLOCK) as u64)?;
        }
    }
    Ok(())
}

/// Fills `out`, which is empty, with what is in the sparse file at `path`: as a second reference to
/// the same blocks where the filesystem can do that, else data only.
fn copy_data(path: &Path, out: &File) -> io::Result<()> {
    let from = File::open(path)?;
    if ioctl_ficlone(out, &from).is_ok() {
        return Ok(());
    }
    let metadata = from.metadata()?;
    let size = metadata.len();
    let taken = metadata.blocks() * 512;
    let progress = Progress::start("copying the shared root", Some(taken), Unit::Bytes);
    out.set_len(size)?;
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < size {
        at = match seek(&from, SeekFrom::Data(at)) {
            Ok(at) => at,
            Err(rustix::io::Errno::NXIO) => break,
            Err(fault) => return Err(fault.into()),
        };
        let end = seek(&from, SeekFrom::Hole(at))?;
        while at < end {
            let length = buffer.len().min((end - at) as usize);
            from.read_exact_at(&mut buffer[..length], at)?;
            out.write_all_at(&buffer[..length], at)?;
            at += length as u64;
            progress.advance(length as u64);
        }
    }
    progress.finish();
    Ok(())
}

/// Whether an image's data are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Deflate,
}

/// Makes a qcow2 image of the raw disk at `raw`, which is to be at `path`.
///
/// qemu-img writes in order unless told otherwise, so the same disk gives the same bytes.
///
/// # Errors
///
/// Fails with what qemu-img says.
pub fn to_qcow2(
    raw: &Path,
    path: &Path,
    audience: Audience,
    compression: Compression,
) -> Result<WholeFile> {
    let out = WholeFile::begin(path, audience)?;
    let mut arguments: Vec<String> =
        ["convert", "-p", "-f", "raw", "-O", "qcow2"].map(str::to_owned).into();
    if compression == Compression::Deflate {
        arguments.push("-c".to_owned());
    }
    arguments.push(raw.display().to_string());
    arguments.push(out.path_meanwhile().display().to_string());
    let total = fs::metadata(raw).with_context(|| named("reading", raw))?.len();
    let progress = Progress::start("writing the qcow2 image", Some(total), Unit::Bytes);
    tool::watched(&tool::found("qemu-img"), &arguments, &[], &mut |said| {
        if let Some(percent) = percent_in(said) {
            progress.reach((total as f64 * percent / 100.0) as u64);
        }
    })
    .with_context(|| named("writing", path))?;
    progress.finish();
    let length = out.file().metadata().with_context(|| named("reading", path))?.len();
    ensure!(length > 0, "qemu-img wrote nothing to {}", path.display());
    Ok(out)
}

/// The last of qemu-img's `    (12.34/100%)`.
fn percent_in(said: &str) -> Option<f64> {
    let (before, _) = said.rsplit_once("/100%)")?;
    before.rsplit_once('(')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_takes_what_the_kept_filesystems_leave() {
        let kept =
            [KeptFilesystem { label: "DAOSMETA", size_mib: 16, mount: "/var/lib/daos".into() }];
        let layout =
            Layout::of(ByteSize::from_mib(100), &kept, Some(ByteSize::from_mib(1000))).unwrap();
        // 66 MiB before, 1 after.
        assert_eq!(layout.n_root, (1000 - 66 - 16 - 1) * MIB);
        assert_eq!(layout.kept, [((1000 - 16 - 1) * MIB, 16 * MIB)]);
        assert_eq!(layout.size(), ByteSize::from_mib(1000));

        let layout = Layout::of(ByteSize::from_mib(100), &[], None).unwrap();
        assert_eq!(layout.size(), ByteSize::from_mib(66 + 100 + 2048 + 1));

        let fault = Layout::of(ByteSize::from_mib(100), &kept, Some(ByteSize::from_mib(150)));
        assert_eq!(
            fault.unwrap_err(),
            "a disk of 150 MiB is too small, 183 MiB are needed: make hw.vm.disk larger"
        );
    }

    #[test]
    fn progress_is_the_last_that_qemu_img_said() {
        assert_eq!(percent_in("    (0.00/100%)\r    (12.50/100%)\r"), Some(12.5));
        assert_eq!(percent_in(" (0.0"), None);
    }
}
