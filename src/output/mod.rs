//! The output folder: durable, content-addressed, never half written.
//!
//! ```text
//! out/.nodeforge                     marks the folder as ours; holds the lock of a build
//! out/.staging/                      work of a running build; what a killed one left
//! out/store/<digest>/                the files of one node, one layer, or of pxe
//! out/generations/<n>/               manifest.json, SHA256SUMS, layers/SHA256SUMS,
//!                                    nodes/<name>, layers/<name>, pxe -> the store,
//!                                    secret/ (0700; its files 0600)
//! out/current -> generations/<n>     what readers see
//! out/.inputs                        what that was made from: a cache for the next build
//! ```
//!
//! A build stages folders, from several threads if it likes, and publishes them together:
//! everything goes to disk, then `current` is replaced in one step. A reader sees the old
//! set or the new one, whenever the build dies. What a dead build left is in `.staging` or
//! in the store without a generation that refers to it; the next [`Output::open`] removes
//! it. Start there; [`verify()`] reads only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock, statvfs};

use crate::format::digest::Digest;
use crate::manifest::{Manifest, SecretEntry, SecretManifest};
use crate::output::disk::{PUBLIC, named};
use crate::units::ByteSize;

pub(crate) mod disk;
mod generations;
mod hold;
pub mod image_list;
mod inputs;
mod publish;
mod rollback;
mod stage;
mod sweep;
mod verify;
pub mod whole_file;

pub use generations::{ListedGeneration, Stored, generations};
pub use hold::{Held, current, hold, hold_current, store_path};
pub use inputs::{Inputs, Remarks, Whole, made_from};
pub use publish::Published;
pub use rollback::{RolledBack, rollback};
pub use stage::{Contents, Filling, NewFile};
pub use verify::{Secrets, Verification, WrongMode, verify};

/// How many generations stay; the current one stays in any case, and those that a server holds.
pub const N_KEPT_GENERATIONS: usize = 5;

const MARKER: &str = ".nodeforge";
const MARKER_TEXT: &str =
    "This folder is written by nodeforge; builds remove from it what is theirs.\n";
const STAGING: &str = ".staging";
const STORE: &str = "store";
const GENERATIONS: &str = "generations";
const CURRENT: &str = "current";
const INPUTS: &str = ".inputs";
const MANIFEST: &str = "manifest.json";
const SUMS: &str = "SHA256SUMS";
const SECRET: &str = "secret";

/// An output folder that no other build writes to while this lives.
#[derive(Debug)]
pub struct Output {
    root: PathBuf,
    marker: Lock,
    current: Current,
    /// The path of the staging folder once there is one: a build that changes nothing
    /// writes nothing.
    staging: Mutex<Option<PathBuf>>,
    n_staged: AtomicU64,
    n_written: AtomicU64,
    /// Folders of the store that were found whole or put there meanwhile.
    seen: Mutex<BTreeSet<Digest>>,
    trust: Trust,
    /// Folders of the store whose files are known to be other than listed.
    distrusted: Mutex<BTreeSet<Digest>>,
    secrets: Mutex<BTreeMap<String, NewSecret>>,
}

/// Whether what stands in an output folder is taken for what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Where names, sizes and modes are right.
    InWhatLooksRight,
    /// Not at all: everything is made anew.
    None,
}

/// What stands under `current`.
#[derive(Debug)]
enum Current {
    Nothing,
    Generation(Box<Generation>),
    Damaged(String),
}

#[derive(Debug)]
struct Generation {
    number: u64,
    path: PathBuf,
    manifest: Manifest,
    /// `None` if they are another user's.
    secrets: Option<SecretManifest>,
}

/// A secret of the generation to come.
#[derive(Debug)]
struct NewSecret {
    entry: SecretEntry,
    source: SecretSource,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SecretSource {
    Staged,
    CurrentGeneration,
}

impl Output {
    /// Opens `root` for a build, making it if it is not there, and removes what a killed
    /// build left.
    ///
    /// # Errors
    ///
    /// Fails if another build holds the folder, if it holds something and is no output of
    /// nodeforge, or if it cannot be written to; nothing is touched then.
    pub fn open(root: &Path) -> Result<Self> {
        Self::open_with(root, Trust::InWhatLooksRight)
    }

    /// As [`Output::open`], with that much trust in what is there.
    ///
    /// # Errors
    ///
    /// As [`Output::open`].
    pub fn open_with(root: &Path, trust: Trust) -> Result<Self> {
        let marker = Lock::take(root)?;
        for name in [STORE, GENERATIONS] {
            disk::ensure_dir(&root.join(name), PUBLIC)?;
        }
        sweep::sweep(root)?;
        let current = match trust {
            Trust::InWhatLooksRight => Current::read(root)?,
            Trust::None => Current::Nothing,
        };
        Ok(Self {
            root: root.to_owned(),
            marker,
            current,
            staging: Mutex::new(None),
            n_staged: AtomicU64::new(0),
            n_written: AtomicU64::new(0),
            seen: Mutex::default(),
            trust,
            distrusted: Mutex::default(),
            secrets: Mutex::new(BTreeMap::new()),
        })
    }

    /// The manifest of the current generation; `None` before the first, or if it is damaged.
    pub fn current(&self) -> Option<&Manifest> {
        match &self.current {
            Current::Generation(generation) => Some(&generation.manifest),
            Current::Nothing | Current::Damaged(_) => None,
        }
    }

    /// Why the current generation cannot be read, for a warning: a whole build replaces it.
    pub fn damage(&self) -> Option<&str> {
        match &self.current {
            Current::Damaged(reason) => Some(reason),
            Current::Nothing | Current::Generation(_) => None,
        }
    }

    /// Makes sure that `size` bytes in `n_files` files and folders will fit.
    ///
    /// # Errors
    ///
    /// Says how much there is and how much is needed.
    pub fn require_free(&self, size: ByteSize, n_files: u64) -> Result<()> {
        let root = self.root.display();
        let space = statvfs(&self.root).map_err(io::Error::from);
        let space = space.with_context(|| format!("asking for the free space of {root}"))?;
        let free = ByteSize::from_bytes(space.f_bavail.saturating_mul(space.f_frsize));
        ensure!(
            free >= size,
            "{root} has {} MiB free, and this build needs about {} MiB: free some space, or build elsewhere",
            free.mib(),
            size.mib() + 1,
        );
        // Filesystems that make inodes as they go say that they have none at all.
        ensure!(
            space.f_files == 0 || space.f_favail >= n_files,
            "{root} has room for {} more files, and this build needs about {n_files}: build elsewhere",
            space.f_favail,
        );
        Ok(())
    }

    fn generation(&self) -> Option<&Generation> {
        match &self.current {
            Current::Generation(generation) => Some(generation),
            Current::Nothing | Current::Damaged(_) => None,
        }
    }

    /// The staging folder, made when it is first asked for.
    fn staging(&self) -> Result<PathBuf> {
        let mut staging = self.staging.lock().expect("no holder of the lock panics");
        if let Some(path) = &*staging {
            return Ok(path.clone());
        }
        let path = self.root.join(STAGING);
        disk::make_dir(&path, disk::SECRET_DIR)?;
        *staging = Some(path.clone());
        Ok(path)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.staging.lock().is_ok_and(|staging| staging.is_some()) {
            // Frees the space of a build that failed. If this fails too, the next build does it.
            let _ = sweep::sweep(&self.root);
        }
    }
}

impl Current {
    fn read(root: &Path) -> Result<Self> {
        let link = root.join(CURRENT);
        let target = match fs::read_link(&link) {
            Ok(target) => target,
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(Self::Nothing),
            Err(fault) if fault.kind() == io::ErrorKind::InvalidInput => {
                bail!("{} is not the link that nodeforge made; move it away", link.display())
            }
            Err(fault) => return Err(fault).with_context(|| named("reading", &link)),
        };
        let number = target.to_str().and_then(|target| {
            target.strip_prefix(GENERATIONS)?.strip_prefix('/').and_then(generation_number)
        });
        let Some(number) = number else {
            return Ok(Self::Damaged(format!(
                "{} leads to {}, which is no generation",
                link.display(),
                target.display()
            )));
        };
        Ok(match Generation::read(root, number) {
            Ok(generation) => Self::Generation(Box::new(generation)),
            Err(fault) => Self::Damaged(format!("{fault:#}")),
        })
    }
}

impl Generation {
    fn read(root: &Path, number: u64) -> Result<Self> {
        let path = root.join(GENERATIONS).join(number.to_string());
        let file = path.join(MANIFEST);
        let json = fs::read(&file).with_context(|| named("reading", &file))?;
        let manifest = Manifest::from_json(&json).with_context(|| named("reading", &file))?;
        Ok(Self { number, secrets: read_secrets(&path)?, path, manifest })
    }
}

fn read_secrets(generation: &Path) -> Result<Option<SecretManifest>> {
    let path = generation.join(SECRET).join(MANIFEST);
    let json = match fs::read(&path) {
        Err(fault) if fault.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
        read => read.with_context(|| named("reading", &path))?,
    };
    let secrets = SecretManifest::from_json(&json).with_context(|| named("reading", &path))?;
    Ok(Some(secrets))
}

/// `Some(12)` for `12`, and for nothing that is spelled otherwise.
fn generation_number(name: &str) -> Option<u64> {
    name.parse().ok().filter(|number: &u64| number.to_string() == name)
}

/// Where the link at `place` in a generation leads for a folder of the store: the path from
/// the link's own folder.
fn store_link(place: &str, digest: &Digest) -> String {
    let up = "../".repeat(2 + place.matches('/').count());
    format!("{up}{STORE}/{digest}")
}

/// The marker of an output folder, locked while this lives.
#[derive(Debug)]
struct Lock(File);

impl Lock {
    /// Opens and locks the marker; makes it and the folder where nothing is yet.
    fn take(root: &Path) -> Result<Self> {
        let path = root.join(MARKER);
        if !disk::exists(root)? {
            if let Some(parent) = root.parent() {
                fs::create_dir_all(parent).with_context(|| named("making", parent))?;
            }
            disk::ensure_dir(root, PUBLIC)?;
        }
        if !disk::exists(&path)? {
            let mut entries = fs::read_dir(root).with_context(|| named("reading", root))?;
            ensure!(
                entries.next().is_none() || disk::exists(&path)?,
                "{} holds files and was not made by nodeforge; name an empty or a new folder",
                root.display()
            );
        }
        let mut options = fs::OpenOptions::new();
        let marker = options.read(true).write(true).create(true).truncate(false).open(&path);
        let marker = marker.with_context(|| named("opening", &path))?;
        match flock(&marker, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                bail!("another build is writing to {}; wait for it to end", root.display())
            }
            Err(errno) => {
                return Err(io::Error::from(errno)).with_context(|| named("locking", &path));
            }
        }
        disk::fill_if_empty(&marker, disk::PUBLIC_FILE, MARKER_TEXT)
            .with_context(|| named("writing", &path))?;
        Ok(Self(marker))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a process that another thread is just starting has a copy
        // of the file until it becomes the other program.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests;
