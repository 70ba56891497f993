//! The cache folder: one folder a release, with a record of what is whole.
//!
//! ```text
//! ~/.cache/nodeforge/8.9/vmlinuz  initrd.img  install.img  boot.iso  .treeinfo
//!                        images.json    the record: size, digest and origin of each image
//!                        .incoming/     part files, kept over runs
//!                        .lock
//! ```
//!
//! The record is written last: a kill in between leaves files that it does not describe, which
//! count as absent.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::{Client, Note, magic};
use crate::format::digest::Digest;

/// One of the files that an install starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ImageName {
    /// The installer's kernel.
    #[serde(rename = "vmlinuz")]
    Kernel,
    /// The installer's initramfs.
    #[serde(rename = "initrd.img")]
    Initrd,
    /// The installer itself (anaconda's stage 2).
    #[serde(rename = "install.img")]
    InstallImg,
    /// The boot ISO, which holds all the others.
    #[serde(rename = "boot.iso")]
    BootIso,
}

impl ImageName {
    /// The file's name in the cache.
    pub fn file_name(self) -> &'static str {
        match self {
            ImageName::Kernel => "vmlinuz",
            ImageName::Initrd => "initrd.img",
            ImageName::InstallImg => "install.img",
            ImageName::BootIso => "boot.iso",
        }
    }

    /// Where it stands in an installation tree and in an ISO; `None` for the ISO itself.
    pub(super) fn tree_path(self) -> Option<&'static str> {
        match self {
            ImageName::Kernel => Some("images/pxeboot/vmlinuz"),
            ImageName::Initrd => Some("images/pxeboot/initrd.img"),
            ImageName::InstallImg => Some("images/install.img"),
            ImageName::BootIso => None,
        }
    }

    /// Several times the size that the image has in any EL8 release, in bytes.
    pub(super) fn max_bytes(self) -> u64 {
        match self {
            ImageName::Kernel => 128 << 20,
            ImageName::Initrd => 1 << 30,
            ImageName::InstallImg => 4 << 30,
            ImageName::BootIso => 16 << 30,
        }
    }

    /// Fails if the file at `path` is not what its name says.
    pub(super) fn ensure_kind(self, path: &Path, source: &str) -> Result<()> {
        let look = || -> io::Result<(bool, &str)> {
            let mut file = File::open(path)?;
            Ok(match self {
                ImageName::Kernel => (magic::is_linux_kernel(&mut file)?, "Linux kernel"),
                ImageName::Initrd => (magic::is_initramfs(&mut file)?, "initramfs"),
                ImageName::InstallImg => (magic::is_squashfs(&mut file)?, "squashfs image"),
                ImageName::BootIso => (magic::is_iso9660(&mut file)?, "ISO 9660 image"),
            })
        };
        let (is_right, kind) = look().with_context(|| format!("reading {}", path.display()))?;
        if !is_right {
            bail!("{source} has the digest it should have, but is no {kind}: use another mirror");
        }
        Ok(())
    }
}

/// What an image's digest rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Assurance {
    /// The mirror's own unsigned word: whole, and as genuine as the mirror and the way to it.
    MirrorDigest,
    /// A pinned digest or AlmaLinux's signature: genuine, wherever it came from.
    Signed,
}

/// What the record says of one image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedImage {
    /// Bytes.
    pub size: u64,
    pub sha256: Digest,
    /// Where it came from, for people.
    pub source: String,
    pub assurance: Assurance,
}

/// `images.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    format: u32,
    release: String,
    pub images: BTreeMap<ImageName, RecordedImage>,
}

/// The only form of the record so far.
const RECORD_FORMAT: u32 = 1;

/// An image in the cache whose size and digest are those of the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CachedImage {
    pub path: PathBuf,
    #[serde(flatten)]
    pub image: RecordedImage,
}

/// The images that a boot tree links to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedImages {
    pub kernel: CachedImage,
    pub initrd: CachedImage,
    pub install_img: Option<CachedImage>,
}

impl CachedImages {
    /// Bytes of all of them.
    pub fn size(&self) -> u64 {
        let images = [&self.kernel, &self.initrd].into_iter().chain(&self.install_img);
        images.map(|image| image.image.size).sum()
    }
}

/// Returns the images of `release` in the folder `cache`, if the kernel and the initramfs are
/// there and whole; anything that is not as recorded counts as absent.
///
/// Reads the files to compare their digests (0.6 s a GB).
pub fn cached(cache: &Path, release: &str) -> Option<CachedImages> {
    Some(CachedImages {
        kernel: cached_image(cache, release, ImageName::Kernel)?,
        initrd: cached_image(cache, release, ImageName::Initrd)?,
        install_img: cached_image(cache, release, ImageName::InstallImg),
    })
}

/// Returns one image of `release` in the folder `cache`, if it is there and whole.
pub fn cached_image(cache: &Path, release: &str, name: ImageName) -> Option<CachedImage> {
    let folder = cache.join(release);
    let image = Record::read(&folder, release)?.images.remove(&name)?;
    let path = folder.join(name.file_name());
    // An image that cannot be read is as good as absent: the caller fetches or does without.
    let file = File::open(&path).ok()?;
    if file.metadata().ok()?.len() != image.size {
        return None;
    }
    let (sha256, _) = Digest::of_reader(file, |_| ()).ok()?;
    (sha256 == image.sha256).then_some(CachedImage { path, image })
}

/// The default cache folder: `nodeforge` in the user's cache folder by the XDG Base Directory
/// Specification, given `$XDG_CACHE_HOME` and `$HOME`. `None` if neither is an absolute path.
pub fn default_folder(xdg_cache_home: Option<&Path>, home: Option<&Path>) -> Option<PathBuf> {
    let xdg = xdg_cache_home.filter(|path| path.is_absolute()).map(Path::to_owned);
    let base = xdg.or_else(|| Some(home.filter(|path| path.is_absolute())?.join(".cache")))?;
    Some(base.join("nodeforge"))
}

impl Record {
    pub fn new(release: &str) -> Self {
        Self { format: RECORD_FORMAT, release: release.to_owned(), images: BTreeMap::new() }
    }

    /// The record of a release's folder; `None` if there is none or it is not one of ours.
    pub fn read(folder: &Path, release: &str) -> Option<Self> {
        let text = fs::read_to_string(folder.join("images.json")).ok()?;
        let record: Self = serde_json::from_str(&text).ok()?;
        (record.format == RECORD_FORMAT && record.release == release).then_some(record)
    }

    fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join("images.json");
        let mut text = serde_json::to_string_pretty(self).expect("a record is plain data");
        text.push('\n');
        let write = || -> io::Result<()> {
            let mut file = tempfile::Builder::new()
                .prefix(".images.json")
                .permissions(Permissions::from_mode(0o644))
                .tempfile_in(folder)?;
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            File::open(folder)?.sync_all()
        };
        write().with_context(|| format!("writing {}", path.display()))
    }
}

/// A release's folder that is ours alone while this value lives.
pub(super) struct ReleaseFolder {
    path: PathBuf,
    release: String,
    _lock: File,
}

impl ReleaseFolder {
    /// Makes and locks the folder; waits while another fetch has it.
    pub fn lock(cache: &Path, release: &str, client: &Client) -> Result<Self> {
        let is_plain = release
            .split('.')
            .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
        if !is_plain {
            bail!("`{release}` is no release; expected one like 8.9");
        }
        let path = cache.join(release);
        let incoming = path.join(".incoming");
        fs::create_dir_all(&incoming)
            .with_context(|| format!("making the cache folder {}", incoming.display()))?;
        let lock_path = path.join(".lock");
        let lock =
            File::create(&lock_path).with_context(|| format!("opening {}", lock_path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                client.tell(Note::Info(format!(
                    "another fetch is at work in {}, waiting for it",
                    path.display()
                )));
                lock.lock().with_context(|| format!("locking {}", lock_path.display()))?;
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("locking {}", lock_path.display()));
            }
        }
        Ok(Self { path, release: release.to_owned(), _lock: lock })
    }

    /// Where an image stays until it is known to be good.
    pub fn part_path(&self, name: ImageName) -> PathBuf {
        self.path.join(".incoming").join(format!("{}.part", name.file_name()))
    }

    pub fn record(&self) -> Record {
        Record::read(&self.path, &self.release).unwrap_or_else(|| Record::new(&self.release))
    }

    /// Moves `images`, whose part files are whole, into place all together and records them;
    /// `treeinfo` is the tree's own list, if there is one.
    pub fn install(
        &self,
        images: BTreeMap<ImageName, RecordedImage>,
        treeinfo: Option<&[u8]>,
    ) -> Result<()> {
        let mut record = self.record();
        for (name, image) in &images {
            name.ensure_kind(&self.part_path(*name), &image.source)?;
        }
        if let Some(treeinfo) = treeinfo {
            let path = self.path.join(".treeinfo");
            fs::write(&path, treeinfo).with_context(|| format!("writing {}", path.display()))?;
        }
        for (name, image) in images {
            let path = self.path.join(name.file_name());
            fs::rename(self.part_path(name), &path)
                .with_context(|| format!("moving an image to {}", path.display()))?;
            record.images.insert(name, image);
        }
        record.write(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_follows_xdg_and_ignores_relative_paths() {
        let path = |text| Some(Path::new(text));
        for (xdg, home, folder) in [
            (path("/x"), path("/h"), Some("/x/nodeforge")),
            (None, path("/h"), Some("/h/.cache/nodeforge")),
            (path("x"), path("/h"), Some("/h/.cache/nodeforge")),
            (path(""), None, None),
            (None, path("h"), None),
        ] {
            assert_eq!(
                default_folder(xdg, home),
                folder.map(PathBuf::from),
                "{xdg:?} and {home:?}"
            );
        }
    }

    #[test]
    fn only_what_is_as_recorded_is_cached() {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path().join("8.9");
        fs::create_dir(&folder).unwrap();
        let image = |bytes: &[u8]| RecordedImage {
            size: bytes.len() as u64,
            sha256: Digest::of(bytes),
            source: "https://m.example".to_owned(),
            assurance: Assurance::Signed,
        };
        let mut record = Record::new("8.9");
        for (name, bytes) in [(ImageName::Kernel, b"kernel"), (ImageName::Initrd, b"initrd")] {
            fs::write(folder.join(name.file_name()), bytes).unwrap();
            record.images.insert(name, image(bytes));
        }
        record.write(&folder).unwrap();
        let of = |name: &str, bytes| CachedImage { path: folder.join(name), image: image(bytes) };
        let whole = CachedImages {
            kernel: of("vmlinuz", b"kernel"),
            initrd: of("initrd.img", b"initrd"),
            install_img: None,
        };
        assert_eq!(cached(cache.path(), "8.9"), Some(whole));

        assert_eq!(cached(cache.path(), "8.10"), None, "another release");
        for (bytes, why) in [(&b"Kernel"[..], "changed"), (b"kerne", "short"), (b"", "empty")] {
            fs::write(folder.join("vmlinuz"), bytes).unwrap();
            assert_eq!(cached(cache.path(), "8.9"), None, "{why}");
        }
        fs::remove_file(folder.join("vmlinuz")).unwrap();
        assert_eq!(cached(cache.path(), "8.9"), None, "gone");
    }
}
