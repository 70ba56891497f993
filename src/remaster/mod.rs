//! ISOs of installers, made anew with other boot configurations and one more initrd, and copies of
//! them whose initrd is another.
//!
//! xorriso writes them: it keeps the boot sectors, partition tables and El Torito entries of the ISO
//! that it reads (`-boot_image any replay`). What is read of an ISO is read here.

pub mod verify;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::fs::ioctl_ficlone;

use crate::fetch::iso::{self, IsoError};
use crate::format::MTIME_SECS;
use crate::format::digest::Hasher;
use crate::format::fat;
use crate::media::boot_config::{self, Language, Wanted};
use crate::media::embed;
use crate::output::disk;
use crate::output::whole_file::{Audience, WholeFile};
use crate::progress::Progress;
use crate::tool;
use crate::units::ByteSize;

/// Bytes of a logical sector (ECMA-119 6.1.2).
const SECTOR: u64 = 2048;
/// The most that a boot configuration or efiboot.img may have.
const MAX_READ: u64 = 256 << 20;
/// The EFI system partition, as a file of the ISO.
pub const EFIBOOT: &str = "images/efiboot.img";
/// Where ISOLINUX looks for its configuration.
pub const ISOLINUX_CONFIG: &str = "isolinux/isolinux.cfg";
/// Where GRUB's may be; the first is there in every base.
pub const GRUB_CONFIGS: [&str; 4] =
    ["EFI/BOOT/grub.cfg", "EFI/BOOT/BOOT.conf", "boot/grub2/grub.cfg", "boot/grub/grub.cfg"];
/// Names what a shared ISO was made from.
const STAMP: &str = "isolinux/node.txt";

/// A boot configuration of an ISO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub path: &'static str,
    pub language: Language,
    pub text: String,
}

/// An installer's ISO.
#[derive(Debug)]
pub struct Iso {
    pub file: File,
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
    pub label: String,
    /// The primary volume descriptor.
    descriptor: Vec<u8>,
}

/// What is in the ISO to be remastered.
#[derive(Debug)]
pub struct Base {
    pub iso: Iso,
    pub configs: Vec<Config>,
    pub efiboot: Vec<u8>,
    /// The release in `.treeinfo`, such as `8.9`.
    pub release: Option<String>,
}

impl Iso {
    /// Opens an ISO 9660 image.
    ///
    /// # Errors
    ///
    /// Says what it is not.
    pub fn open(path: &Path) -> Result<Self> {
        let shown = path.display();
        let mut file = File::open(path).with_context(|| format!("opening {shown}"))?;
        let size = file.metadata().with_context(|| format!("looking at {shown}"))?.len();
        let mut descriptor = vec![0; SECTOR as usize];
        let read =
            file.seek(SeekFrom::Start(16 * SECTOR)).and_then(|_| file.read_exact(&mut descriptor));
        ensure!(
            read.is_ok() && &descriptor[..6] == b"\x01CD001",
            "{shown} is no ISO 9660 image: give the vendor's ISO, such as AlmaLinux-8.9-x86_64-boot.iso"
        );
        // ECMA-119 8.4.8: the number of logical blocks, in both byte orders.
        let n_sectors = u32::from_le_bytes(*descriptor[80..].first_chunk().expect("it is long"));
        ensure!(
            size >= u64::from(n_sectors) * SECTOR,
            "{shown} is cut short: it says that it has {} bytes, and has {size}: get it anew",
            u64::from(n_sectors) * SECTOR
        );
        let label = String::from_utf8_lossy(&descriptor[40..72]).trim_end().to_owned();
        Ok(Self { file, path: path.to_owned(), size, label, descriptor })
    }

    /// The file at `path`; `None` if there is none.
    ///
    /// # Errors
    ///
    /// Fails for a damaged ISO and a file of more than 256 MiB.
    pub fn read(&mut self, path: &str) -> Result<Option<Vec<u8>>> {
        let read = match iso::open(&mut self.file, path) {
            Ok(file) if file.limit() > MAX_READ => Err(IsoError::Damaged(path.to_owned())),
            Ok(mut file) => {
                let mut contents = Vec::new();
                file.read_to_end(&mut contents).map(|_| Some(contents)).map_err(IsoError::Io)
            }
            Err(IsoError::NotFound(_)) => Ok(None),
            Err(fault) => Err(fault),
        };
        read.with_context(|| format!("reading {path} of {}", self.path.display()))
    }

    /// Where the file at `path` lies, and its length.
    ///
    /// # Errors
    ///
    /// Fails for a damaged ISO, and if there is no such file.
    pub fn find(&mut self, path: &str) -> Result<(u64, u64)> {
        let found = match iso::open(&mut self.file, path) {
            Ok(file) => {
                let length = file.limit();
                file.into_inner().stream_position().map(|at| (at, length)).map_err(IsoError::Io)
            }
            Err(fault) => Err(fault),
        };
        found.with_context(|| format!("looking for {path} in {}", self.path.display()))
    }

    /// The boot configurations in the tree.
    ///
    /// # Errors
    ///
    /// Fails for a damaged ISO.
    pub fn configs(&mut self) -> Result<Vec<Config>> {
        let grub = GRUB_CONFIGS.map(|path| (path, Language::Grub));
        let mut configs = Vec::new();
        for (path, language) in [(ISOLINUX_CONFIG, Language::Isolinux)].into_iter().chain(grub) {
            if let Some(text) = self.read(path)? {
                let text = String::from_utf8_lossy(&text).into_owned();
                configs.push(Config { path, language, text });
            }
        }
        Ok(configs)
    }

    /// The checksum that implantisomd5 put into the volume descriptor's application use
    /// (ECMA-119 8.4.32).
    pub fn has_implanted_checksum(&self) -> bool {
        self.descriptor[883..1395].starts_with(b"ISO MD5SUM = ")
    }

    /// Whether BIOSes start it from a USB stick, too: a boot sector's signature (isohybrid).
    ///
    /// # Errors
    ///
    /// Fails if it cannot be read.
    pub fn is_hybrid(&self) -> Result<bool> {
        let mut signature = [0; 2];
        let read = self.file.read_exact_at(&mut signature, 510);
        read.with_context(|| format!("reading {}", self.path.display()))?;
        Ok(signature == [0x55, 0xaa])
    }
}

impl Base {
    /// Reads what is to be changed in the ISO at `path`.
    ///
    /// # Errors
    ///
    /// Says what it lacks of an installer's ISO for BIOS and UEFI.
    pub fn open(path: &Path) -> Result<Self> {
        disk::require_text(path)?;
        let mut iso = Iso::open(path)?;
        let shown = path.display();
        let configs = iso.configs()?;
        for needed in [ISOLINUX_CONFIG, GRUB_CONFIGS[0]] {
            ensure!(
                configs.iter().any(|config| config.path == needed),
                "{shown} has no {needed}: it is no ISO of AlmaLinux 8's installer that starts by BIOS and UEFI"
            );
        }
        let efiboot = iso.read(EFIBOOT)?;
        let efiboot =
            efiboot.with_context(|| format!("{shown} has no {EFIBOOT}, from which UEFI starts"))?;
        let treeinfo = iso.read(".treeinfo")?.unwrap_or_default();
        let release = release_in(&String::from_utf8_lossy(&treeinfo));
        Ok(Self { iso, configs, efiboot, release })
    }

    /// The boot configurations as they are to be, and efiboot.img with its own.
    ///
    /// # Errors
    ///
    /// Says which configuration does not start the installer.
    pub fn changed(&self, arguments: &[String]) -> Result<Changed> {
        let wanted = Wanted { label: &self.iso.label, initrd: embed::INITRD, arguments };
        let shown = self.iso.path.display();
        let mut configs = Vec::new();
        for config in &self.configs {
            let text = boot_config::changed(&config.text, config.language, &wanted)
                .with_context(|| format!("changing {} of {shown}", config.path))?;
            configs.push(Config { text, ..config.clone() });
        }
        let efiboot = changed_efiboot(&self.efiboot, &wanted)
            .with_context(|| format!("changing {EFIBOOT} of {shown}"))?;
        Ok(Changed { configs, efiboot })
    }

    /// What an ISO is told by that was made from this one with `changed`, as far as it can be told
    /// without reading all of it: the volume descriptor has size and time of creation.
    fn stamp(&self, changed: &Changed, area: &[u8]) -> String {
        let mut hasher = Hasher::default();
        hasher.update(env!("CARGO_PKG_VERSION").as_bytes());
        hasher.update(&self.iso.size.to_le_bytes());
        hasher.update(&self.iso.descriptor);
        for config in &changed.configs {
            hasher.update(config.text.as_bytes());
        }
        hasher.update(&changed.efiboot);
        hasher.update(area);
        format!("made by nodeforge from {}\n", hasher.finish())
    }
}

/// The boot files of a base, changed.
#[derive(Clone, Debug)]
pub struct Changed {
    configs: Vec<Config>,
    efiboot: Vec<u8>,
}

impl Changed {
    /// The kernel line of the entry that starts the installer by itself, without the initrds.
    pub fn installer_line(&self) -> Option<String> {
        let isolinux = self.configs.iter().find(|config| config.language == Language::Isolinux)?;
        let entries = boot_config::entries(&isolinux.text, isolinux.language);
        let entry = entries.into_iter().find(boot_config::Entry::is_installer)?;
        Some(entry.arguments.join(" "))
    }
}

/// `version = 8.9` of the section `[release]` of a .treeinfo.
fn release_in(treeinfo: &str) -> Option<String> {
    let section = treeinfo.split("[release]").nth(1)?;
    let section = section.split("\n[").next()?;
    let values = section.lines().filter_map(|line| line.split_once('='));
    let mut versions = values.filter(|(name, _)| name.trim() == "version");
    versions.next().map(|(_, value)| value.trim().to_owned())
}

/// efiboot.img with its GRUB configurations changed; they are there in the tree, too, but GRUB
/// reads those of the partition it was started from.
fn changed_efiboot(efiboot: &[u8], wanted: &Wanted<'_>) -> Result<Vec<u8>> {
    let mut bytes = efiboot.to_vec();
    let volume = fat::Volume::open(&mut bytes)?;
    for path in GRUB_CONFIGS {
        let text = match volume.read(path) {
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => continue,
            read => read.with_context(|| format!("reading {path}"))?,
        };
        let text = String::from_utf8_lossy(&text);
        let text = boot_config::changed(&text, Language::Grub, wanted).context(path)?;
        volume.replace(path, text.as_bytes()).with_context(|| format!("writing {path}"))?;
    }
    volume.close()?;
    Ok(bytes)
}

/// Writes to `out` the ISO of `base` with the `changed` boot files and an area of `area_size` bytes
/// that begins with `area`.
///
/// The same arguments give the same bytes. `progress` counts bytes.
///
/// # Errors
///
/// Fails as xorriso does: if it is not installed, or if the disk is full.
pub fn write(
    base: &Base,
    changed: &Changed,
    (area, area_size): (&[u8], usize),
    out: &WholeFile,
    progress: &Progress,
) -> Result<()> {
    let folder = tempfile::tempdir().context("making a temporary folder")?;
    let mut files: Vec<(PathBuf, String)> = Vec::new();
    let mut add = |name: &str, contents: &[u8]| -> Result<File> {
        let path = folder.path().join(format!("{}", files.len()));
        let mut file =
            File::create_new(&path).with_context(|| format!("making {}", path.display()))?;
        file.write_all(contents).with_context(|| format!("writing {}", path.display()))?;
        files.push((path, format!("/{name}")));
        Ok(file)
    };
    for config in &changed.configs {
        add(config.path, config.text.as_bytes())?;
    }
    add(EFIBOOT, &changed.efiboot)?;
    add(STAMP, base.stamp(changed, area).as_bytes())?;
    // Nodes' secrets are in the area: no other file ever holds them, not even for a moment.
    add(embed::PATH, b"")?.set_len(area_size as u64).context("making the embed area")?;
    let arguments = xorriso_arguments(base, &out.path_meanwhile(), &files);
    let written =
        watching(out.file(), progress, || tool::output_with("xorriso", &arguments, &environment()));
    let written = written.map_err(|fault| match fault.downcast_ref::<io::Error>() {
        Some(cause) if cause.kind() == io::ErrorKind::NotFound => {
            fault.context("xorriso is not installed: install the package xorriso")
        }
        _ => fault,
    });
    let making = || format!("making {} of {}", out.path().display(), base.iso.path.display());
    written.with_context(making)?;
    let (offset, length) =
        Iso::open(&out.path_meanwhile()).and_then(|mut iso| iso.find(embed::PATH))?;
    ensure!(
        length == area_size as u64 && area.len() <= area_size,
        "the embed area has {length} bytes"
    );
    out.file().write_all_at(area, offset).with_context(making)
}

/// Times are the same in every ISO (<https://reproducible-builds.org/specs/source-date-epoch/>).
fn environment() -> [(&'static str, String); 3] {
    [
        ("SOURCE_DATE_EPOCH", MTIME_SECS.to_string()),
        ("TZ", "UTC".to_owned()),
        ("LC_ALL", "C".to_owned()),
    ]
}

fn xorriso_arguments(base: &Base, out: &Path, files: &[(PathBuf, String)]) -> Vec<String> {
    let time = format!("={MTIME_SECS}");
    let mut words: Vec<String> = Vec::new();
    let mut add = |new: &[&str]| words.extend(new.iter().map(|word| (*word).to_owned()));
    add(&["-no_rc", "-report_about", "WARNING", "-return_with", "SORRY", "32"]);
    add(&["-padding", "0", "-overwrite", "on"]);
    let (base, out) =
        (format!("stdio:{}", base.iso.path.display()), format!("stdio:{}", out.display()));
    add(&["-indev", &base, "-outdev", &out, "-boot_image", "any", "replay"]);
    for (path, inside) in files {
        add(&["-map", &path.display().to_string(), inside]);
        add(&[
            "-chown", "0", inside, "--", "-chgrp", "0", inside, "--", "-chmod", "0444", inside,
            "--",
        ]);
        add(&[
            "-alter_date",
            "a-c",
            &time,
            inside,
            "--",
            "-alter_date",
            "m-c",
            &time,
            inside,
            "--",
        ]);
        add(&["-alter_date", "c", &time, inside, "--"]);
    }
    add(&["-commit", "-end"]);
    words
}

/// Runs `work`, which fills `file`, and moves `progress` by what is in it.
fn watching<T>(file: &File, progress: &Progress, work: impl FnOnce() -> T) -> T {
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut seen = 0;
            while !is_done.load(Ordering::Relaxed) {
                std::thread::park_timeout(Duration::from_millis(100));
                let length = file.metadata().map_or(seen, |metadata| metadata.len());
                progress.advance(length.saturating_sub(seen));
                seen = seen.max(length);
            }
        });
        let done = work();
        is_done.store(true, Ordering::Relaxed);
        done
    })
}

/// Whether the ISO at `path` is what [`write`] makes of these.
pub fn is_made_of(path: &Path, base: &Base, changed: &Changed, area: &[u8]) -> bool {
    let stamp = || Iso::open(path).ok()?.read(STAMP).ok()?;
    stamp().is_some_and(|found| found == base.stamp(changed, area).as_bytes())
}

/// An ISO that the ISOs of nodes are copies of but for its area.
#[derive(Debug)]
pub struct SharedIso {
    file: File,
    pub size: u64,
    /// Where the area is, and its bytes.
    offset: u64,
    area_size: usize,
    /// How much of the area is not padding.
    n_used: usize,
}

impl SharedIso {
    /// Finds the area of the ISO at `path`.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the area.
    pub fn open(path: &Path) -> Result<Self> {
        let mut iso = Iso::open(path)?;
        let (offset, length) = iso.find(embed::PATH)?;
        let area = iso.read(embed::PATH)?.unwrap_or_default();
        let area = embed::read(&area)
            .with_context(|| format!("reading the area of {}", path.display()))?;
        let area_size = usize::try_from(length).context("the area is too large")?;
        Ok(Self { file: iso.file, size: iso.size, offset, area_size, n_used: area.n_used })
    }

    pub fn area_size(&self) -> usize {
        self.area_size
    }

    /// Bytes that a copy in `folder` takes on disk: those of its area where the filesystem can share
    /// the rest.
    ///
    /// # Errors
    ///
    /// Fails if nothing can be written there.
    pub fn size_of_copy(&self, folder: &Path) -> Result<ByteSize> {
        let trial = WholeFile::begin(&folder.join("trial"), Audience::Owner)?;
        let is_shared = ioctl_ficlone(trial.file(), &self.file).is_ok();
        Ok(ByteSize::from_bytes(if is_shared { self.area_size as u64 } else { self.size }))
    }

    /// Fills `out`, which is empty, with the ISO: as a second reference to the same blocks where the
    /// filesystem can do that, else as a copy.
    ///
    /// # Errors
    ///
    /// Fails if the disk does.
    pub fn copy(&self, out: &WholeFile, progress: &Progress) -> Result<()> {
        let copying = || format!("copying the shared ISO to {}", out.path().display());
        if ioctl_ficlone(out.file(), &self.file).is_ok() {
            progress.advance(self.size);
            return Ok(());
        }
        const PIECE: usize = 8 << 20;
        let mut at = 0;
        while at < self.size {
            let (mut from, mut to) = (at, at);
            let n_copied = rustix::fs::copy_file_range(
                &self.file,
                Some(&mut from),
                out.file(),
                Some(&mut to),
                PIECE.min((self.size - at) as usize),
            );
            match n_copied {
                Ok(0) => {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof))
                        .with_context(copying);
                }
                Ok(n_copied) => {
                    at += n_copied as u64;
                    progress.advance(n_copied as u64);
                }
                // The two are of different filesystems (copy_file_range(2)).
                Err(_) if at == 0 => {
                    return self.copy_by_reading(out, progress).with_context(copying);
                }
                Err(fault) => return Err(io::Error::from(fault)).with_context(copying),
            }
        }
        Ok(())
    }

    fn copy_by_reading(&self, out: &WholeFile, progress: &Progress) -> io::Result<()> {
        let mut piece = vec![0; 1 << 20];
        let mut at = 0;
        while at < self.size {
            let length = piece.len().min((self.size - at) as usize);
            self.file.read_exact_at(&mut piece[..length], at)?;
            out.file().write_all_at(&piece[..length], at)?;
            at += length as u64;
            progress.advance(length as u64);
        }
        Ok(())
    }

    /// Writes `area`, by [`embed::packed`] for an area of this size, into the copy `out`.
    ///
    /// # Errors
    ///
    /// Fails if the disk does.
    pub fn patch(&self, out: &WholeFile, area: &[u8]) -> Result<()> {
        let patching = || format!("writing the area of {}", out.path().display());
        ensure!(area.len() <= self.area_size, "an area of {} bytes is too large", area.len());
        out.file().write_all_at(area, self.offset).with_context(patching)?;
        // What the copy has of the shared ISO's own.
        if let Some(surplus) = self.n_used.checked_sub(area.len()) {
            let at = self.offset + area.len() as u64;
            out.file().write_all_at(&vec![0; surplus], at).with_context(patching)?;
        }
        Ok(())
    }
}

/// Bytes that the ISO of `base` takes with an area of `area_size` bytes: its directories and
/// partitions are laid out anew.
pub fn size_of(base: &Base, area_size: usize) -> ByteSize {
    ByteSize::from_bytes(base.iso.size + area_size as u64 + base.efiboot.len() as u64 + (4 << 20))
}
