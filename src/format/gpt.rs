//! Partition tables in GPT (UEFI 5.3), written by the gpt crate with GUIDs that are given: the same
//! arguments give the same bytes.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Seek, Write};

use gpt::GptConfig;
use gpt::disk::LogicalBlockSize;
use gpt::mbr::ProtectiveMBR;
use gpt::partition::Partition as Entry;
use gpt::partition_types::{self, Type};
use uuid::Uuid;

use crate::format::invalid_input;

/// Bytes of a sector.
pub const SECTOR: u64 = 512;
/// Sectors that the table takes at each end of a disk, the protective MBR at its beginning included.
pub const N_TABLE_SECTORS: u64 = 34;
/// Bytes of the MBR that are a boot loader's.
pub const BOOT_CODE: usize = 440;

/// 16 bytes that name a disk or a partition; displayed as firmware and kernels write them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guid([u8; 16]);

impl Guid {
    /// One of version 8, "custom" (RFC 9562 §5.8), that follows from `seed`.
    pub fn from_seed(seed: [u8; 16]) -> Self {
        let mut bytes = seed;
        bytes[6] = bytes[6] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(bytes)
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
        f.pad(&parts.join("-"))
    }
}

/// What a partition is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartitionUse {
    /// Holds what of GRUB a BIOS starts.
    BiosBoot,
    EfiSystem,
    Linux,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition<'a> {
    /// At most 36 letters; Linux has it below `/dev/disk/by-partlabel/`.
    pub name: &'a str,
    pub use_: PartitionUse,
    pub guid: Guid,
    pub first_sector: u64,
    pub n_sectors: u64,
}

/// Writes the tables of `partitions`, numbered from 1, to both ends of `disk`, and `boot_code` to its
/// first sector.
///
/// # Errors
///
/// Fails if `disk` does, or with [`io::ErrorKind::InvalidInput`] for a disk of 2 TiB or more with boot
/// code, and partitions beyond its end.
pub fn write<D: Read + Write + Seek + fmt::Debug>(
    mut disk: D,
    guid: Guid,
    partitions: &[Partition<'_>],
    boot_code: &[u8; BOOT_CODE],
) -> io::Result<()> {
    let n_sectors = disk.seek(io::SeekFrom::End(0))? / SECTOR;
    let last_usable = n_sectors.saturating_sub(N_TABLE_SECTORS);
    if partitions.iter().any(|it| it.first_sector + it.n_sectors - 1 > last_usable) {
        return Err(invalid_input(format!("a disk of {n_sectors} sectors is too small")));
    }
    // What does not fit into the protective MBR's number is all ones (UEFI 5.2.3).
    let n_protected = u32::try_from(n_sectors - 1).unwrap_or(u32::MAX);
    let mut mbr = ProtectiveMBR::with_lb_size(n_protected);
    mbr.set_bootcode(*boot_code);
    mbr.overwrite_lba0(&mut disk).map_err(io::Error::other)?;
    let entries: BTreeMap<u32, Entry> = (1..).zip(partitions.iter().map(entry)).collect();
    let mut table = GptConfig::new()
        .writable(true)
        .logical_block_size(LogicalBlockSize::Lb512)
        .create_from_device(disk, Some(uuid_of(guid)))
        .map_err(io::Error::other)?;
    table.update_partitions(entries).map_err(io::Error::other)?;
    table.write().map_err(io::Error::other)?;
    Ok(())
}

fn entry(partition: &Partition<'_>) -> Entry {
    Entry {
        part_type_guid: type_of(partition.use_),
        part_guid: uuid_of(partition.guid),
        first_lba: partition.first_sector,
        last_lba: partition.first_sector + partition.n_sectors - 1,
        flags: 0,
        name: partition.name.to_owned(),
    }
}

fn type_of(use_: PartitionUse) -> Type {
    match use_ {
        PartitionUse::BiosBoot => partition_types::BIOS,
        PartitionUse::EfiSystem => partition_types::EFI,
        PartitionUse::Linux => partition_types::LINUX_FS,
    }
}

fn uuid_of(guid: Guid) -> Uuid {
    Uuid::from_bytes(guid.0)
}
