//! FAT volumes: small ones of ours, with files in the root folder only, and files inside
//! volumes that others made.
//!
//! Written and read by the fatfs crate, which checks little of what it is asked for: names that
//! differ in case only would be one file, and folders that it makes are refused by fsck.fat. So
//! there are no folders here, and the names are checked first.

use std::collections::BTreeSet;
use std::io::{self, Cursor, ErrorKind, Read, Write};

use fatfs::{
    Date, DateTime, FatType, FileSystem, FormatVolumeOptions, FsOptions, Time, TimeProvider,
    format_volume,
};

use crate::format::{invalid_data, invalid_input};

/// Bytes of a sector.
const SECTOR: u64 = 512;
/// Bytes that any file may waste in its last cluster.
const MAX_CLUSTER: u64 = 32 << 10;
/// The largest volume that is laid out: FAT32's files end at 4 GiB, our media far before.
const MAX_BYTES: u64 = 1 << 30;
/// Entries of a root folder of FAT12 and FAT16, as mkfs.fat has it.
const N_ROOT_ENTRIES: usize = 512;
/// UTF-16 units of a name in one entry of a long name.
const UNITS_PER_ENTRY: usize = 13;

/// Returns a volume of its own size, without a partition table, that holds `files` in its root
/// folder, in the order given.
///
/// The same arguments give the same bytes: `serial` is the volume's number, and every time is
/// [`MTIME_SECS`](crate::format::MTIME_SECS).
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`] for a label of more than 11 capital letters and digits, a name that
/// FAT cannot have or that comes twice, and more than a GiB.
pub fn volume(label: &str, serial: u32, files: &[(&str, &[u8])]) -> io::Result<Vec<u8>> {
    let label = padded_label(label)?;
    check_names(files)?;
    let n_bytes = size_of_volume(files)?;
    let mut bytes = vec![0; usize::try_from(n_bytes).expect("a GiB at most")];
    let options = FormatVolumeOptions::new().volume_id(serial).volume_label(label);
    format_volume(Cursor::new(&mut bytes[..]), options)?;
    let volume = FileSystem::new(Cursor::new(&mut bytes[..]), options_at_our_time())?;
    for (name, contents) in files {
        volume.root_dir().create_file(name)?.write_all(contents)?;
    }
    volume.unmount()?;
    Ok(bytes)
}

/// Returns an EFI system partition of `n_bytes`, FAT32 as UEFI 13.3 wants it of disks, with `program`
/// at the path that firmware starts of its own accord, `EFI/BOOT/BOOTX64.EFI`.
///
/// The same arguments give the same bytes.
///
/// # Errors
///
/// [`ErrorKind::StorageFull`] if the program does not fit.
pub fn efi_system_partition(serial: u32, n_bytes: usize, program: &[u8]) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; n_bytes];
    let options = FormatVolumeOptions::new()
        .volume_id(serial)
        .volume_label(padded_label("EFI")?)
        .fat_type(FatType::Fat32)
        .bytes_per_cluster(SECTOR as u32);
    format_volume(Cursor::new(&mut bytes[..]), options)?;
    let volume = FileSystem::new(Cursor::new(&mut bytes[..]), options_at_our_time())?;
    let folder = volume.root_dir().create_dir("EFI")?.create_dir("BOOT")?;
    folder.create_file("BOOTX64.EFI")?.write_all(program).map_err(|fault| match fault.kind() {
        ErrorKind::WriteZero | ErrorKind::Other => ErrorKind::StorageFull.into(),
        _ => fault,
    })?;
    drop(folder);
    // Counts the free clusters, which a new volume does not tell.
    volume.stats()?;
    volume.unmount()?;
    mend_folders(&mut bytes);
    Ok(bytes)
}

/// Bytes of an entry of a folder.
const ENTRY: usize = 32;
/// An entry's attributes when it is a part of a long name.
const LONG_NAME: u8 = 0x0f;

/// fatfs gives `.` and `..` long names, which they must not have, and `..` of a folder in the root
/// the root's number instead of 0 (Microsoft's FAT specification, "Directory Creation"). Here each
/// folder is one cluster of a sector.
fn mend_folders(bytes: &mut [u8]) {
    for folder in bytes.chunks_exact_mut(SECTOR as usize) {
        let is_folder = folder[11] == LONG_NAME
            && folder[ENTRY..].starts_with(b".          ")
            && folder[3 * ENTRY..].starts_with(b"..         ");
        if !is_folder {
            continue;
        }
        let entries: Vec<u8> = [1..2, 3..4, 4..SECTOR as usize / ENTRY]
            .into_iter()
            .flat_map(|range| folder[range.start * ENTRY..range.end * ENTRY].to_vec())
            .collect();
        folder.fill(0);
        folder[..entries.len()].copy_from_slice(&entries);
        let parent = ENTRY + 26;
        if folder[parent..parent + 2] == [2, 0] {
            folder[parent..parent + 2].fill(0);
        }
    }
}

/// A volume that is looked at.
pub struct Volume<'a>(FileSystem<Cursor<&'a mut [u8]>>);

impl<'a> Volume<'a> {
    /// Opens the volume that `bytes` are; they are changed only by [`replace`](Self::replace).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidData`] if they are no FAT volume.
    pub fn open(bytes: &'a mut [u8]) -> io::Result<Self> {
        let opened = FileSystem::new(Cursor::new(bytes), options_at_our_time());
        let fault = |fault: io::Error| invalid_data(format!("it is no FAT volume: {fault}"));
        opened.map(Self).map_err(fault)
    }

    /// The label in the root folder; empty where there is none.
    ///
    /// # Errors
    ///
    /// Fails for a volume that is cut short.
    pub fn label(&self) -> io::Result<String> {
        Ok(self.0.read_volume_label_from_root_dir()?.unwrap_or_default())
    }

    /// The names of the files in the root folder, in the volume's order.
    ///
    /// # Errors
    ///
    /// Fails for a volume that is damaged.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let entries = self.0.root_dir().iter();
        let files = entries.filter(|entry| entry.as_ref().map_or(true, |entry| entry.is_file()));
        files.map(|entry| Ok(entry?.file_name())).collect()
    }

    /// The contents of the file at `path`, such as `EFI/BOOT/grub.cfg`, whatever its case.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if there is none.
    pub fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        let mut contents = Vec::new();
        self.0.root_dir().open_file(path)?.read_to_end(&mut contents)?;
        Ok(contents)
    }

    /// Writes `contents` into the file at `path`, which is there already.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if it is not; [`ErrorKind::StorageFull`] if the volume has no room.
    pub fn replace(&self, path: &str, contents: &[u8]) -> io::Result<()> {
        let mut file = self.0.root_dir().open_file(path)?;
        file.truncate()?;
        let full = |fault: io::Error| match fault.kind() {
            ErrorKind::WriteZero | ErrorKind::Other => ErrorKind::StorageFull.into(),
            _ => fault,
        };
        file.write_all(contents).map_err(full)?;
        file.flush()
    }

    /// Writes what is not written yet.
    ///
    /// # Errors
    ///
    /// Fails for a volume that is damaged.
    pub fn close(self) -> io::Result<()> {
        self.0.unmount()
    }
}

/// The label as FAT has it: 11 bytes, with spaces at the end.
fn padded_label(label: &str) -> io::Result<[u8; 11]> {
    let is_allowed = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
    let mut padded = [b' '; 11];
    match label.len() <= padded.len() && label.bytes().all(is_allowed) {
        true => padded[..label.len()].copy_from_slice(label.as_bytes()),
        false => return Err(invalid_input(format!("`{label}` is no label of a FAT volume"))),
    }
    Ok(padded)
}

/// Long names of letters, digits and some marks, none twice when case is disregarded.
fn check_names(files: &[(&str, &[u8])]) -> io::Result<()> {
    let mut seen = BTreeSet::new();
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    for (name, _) in files {
        let is_name = (1..=255).contains(&name.len())
            && !name.starts_with('.')
            && !name.ends_with('.')
            && name.bytes().all(is_allowed);
        if !is_name {
            return Err(invalid_input(format!("`{name}` is no name for a file on a FAT volume")));
        }
        if !seen.insert(name.to_ascii_lowercase()) {
            return Err(invalid_input(format!("`{name}` comes twice on a FAT volume")));
        }
    }
    let n_entries: usize =
        files.iter().map(|(name, _)| 1 + name.len().div_ceil(UNITS_PER_ENTRY)).sum();
    // One is the label's.
    match n_entries < N_ROOT_ENTRIES {
        true => Ok(()),
        false => Err(invalid_input(format!("{} files are too many for one folder", files.len()))),
    }
}

/// Bytes of a volume that has room for `files` whatever its clusters and tables are.
fn size_of_volume(files: &[(&str, &[u8])]) -> io::Result<u64> {
    let n_data: u64 = files.iter().map(|(_, contents)| contents.len() as u64).sum();
    if n_data > MAX_BYTES {
        return Err(invalid_input(format!("{n_data} bytes are too many for a FAT volume")));
    }
    // fatfs takes clusters of 512 bytes up to 1 MiB, and of a few KiB beyond.
    let cluster = if n_data < 512 << 10 { 2 * SECTOR } else { MAX_CLUSTER };
    let n_tables = n_data / 64 + (48 << 10);
    Ok((n_data + n_tables + cluster * files.len() as u64).next_multiple_of(64 << 10))
}

fn options_at_our_time() -> FsOptions {
    FsOptions::new().update_accessed_date(false).time_provider(&OurTime)
}

/// [`MTIME_SECS`](crate::format::MTIME_SECS) as FAT has it, in no time zone.
#[derive(Debug)]
struct OurTime;

impl TimeProvider for OurTime {
    fn get_current_date(&self) -> Date {
        Date { year: 2023, month: 11, day: 21 }
    }

    fn get_current_date_time(&self) -> DateTime {
        let time = Time { hour: 0, min: 0, sec: 0, millis: 0 };
        DateTime { date: self.get_current_date(), time }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_holds_its_files_and_its_label() {
        let large = vec![7; 300_000];
        let files: [(&str, &[u8]); 3] =
            [("ks.cfg", b"text\n"), ("nodeforge-SHA256SUMS.ks", b""), ("large", &large)];
        let mut bytes = volume("OEMDRV", 0x1234_5678, &files).unwrap();
        assert_eq!(bytes, volume("OEMDRV", 0x1234_5678, &files).unwrap());
        let volume = Volume::open(&mut bytes).unwrap();
        assert_eq!(volume.label().unwrap(), "OEMDRV");
        assert_eq!(volume.names().unwrap(), files.map(|(name, _)| name));
        for (name, contents) in files {
            assert!(volume.read(name).unwrap() == contents, "{name}");
        }
    }

    #[test]
    fn volumes_of_all_sizes_have_room() {
        for n_bytes in [0, 1, 511, 400_000, 524_287, 524_288, 5_000_000, 17_000_000, 40_000_001] {
            let contents = vec![b'x'; n_bytes];
            let names: Vec<String> = (0..40).map(|number| format!("empty-file-{number}")).collect();
            let mut files: Vec<(&str, &[u8])> =
                names.iter().map(|name| (name.as_str(), &b"1"[..])).collect();
            files.push(("last", &contents));
            let mut bytes = volume("CIDATA", 1, &files).unwrap();
            let volume = Volume::open(&mut bytes).unwrap();
            assert!(volume.read("last").unwrap() == contents, "{n_bytes} bytes");
        }
    }

    #[test]
    fn firmware_finds_its_program_on_an_efi_system_partition() {
        let program = vec![7; 300_001];
        let mut bytes = efi_system_partition(7, 64 << 20, &program).unwrap();
        assert!(bytes == efi_system_partition(7, 64 << 20, &program).unwrap());
        let volume = Volume::open(&mut bytes).unwrap();
        assert!(volume.read("EFI/BOOT/BOOTX64.EFI").unwrap() == program);
        let fault = efi_system_partition(7, 64 << 20, &vec![7; 64 << 20]).unwrap_err();
        assert_eq!(fault.kind(), ErrorKind::StorageFull);
    }

    #[test]
    fn what_fat_cannot_hold_is_refused() {
        let fault = |label: &str, names: &[&str]| {
            let files: Vec<(&str, &[u8])> = names.iter().map(|name| (*name, &b""[..])).collect();
            let fault = volume(label, 0, &files).unwrap_err();
            assert_eq!(fault.kind(), ErrorKind::InvalidInput);
            fault.to_string()
        };
        assert_eq!(fault("oemdrv", &[]), "`oemdrv` is no label of a FAT volume");
        assert_eq!(fault("OEMDRV", &["a/b"]), "`a/b` is no name for a file on a FAT volume");
        assert_eq!(fault("OEMDRV", &["ks", "KS"]), "`KS` comes twice on a FAT volume");
        let many: Vec<String> = (0..200).map(|n| format!("a-name-of-20-bytes{n:02}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(fault("OEMDRV", &many), "200 files are too many for one folder");
    }

    #[test]
    fn a_file_is_replaced_as_far_as_there_is_room() {
        let mut bytes = volume("EFI", 0, &[("grub.cfg", b"old"), ("other", b"1")]).unwrap();
        let before = bytes.len();
        let volume = Volume::open(&mut bytes).unwrap();
        volume.replace("GRUB.CFG", b"new and longer").unwrap();
        let fault = volume.replace("other", &vec![0; before]).unwrap_err();
        assert_eq!(fault.kind(), ErrorKind::StorageFull);
        assert_eq!(volume.replace("none", b"").unwrap_err().kind(), ErrorKind::NotFound);
        volume.close().unwrap();
        assert_eq!(Volume::open(&mut bytes).unwrap().read("grub.cfg").unwrap(), b"new and longer");
    }
}
