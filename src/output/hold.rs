//! Holding a generation, so that no build removes what a server still serves.
//!
//! The hold is a shared flock(2) on the generation's folder: it needs no right to write, many
//! may have it, and it ends with the process, however that ends. The sweep takes the lock for
//! itself alone before it removes a generation, and leaves those that it cannot have.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::format::digest::Digest;
use crate::manifest::{Manifest, SecretManifest};
use crate::output::disk::named;
use crate::output::generations::{current_number, require_generation, require_ours};
use crate::output::{GENERATIONS, Generation, STORE};

/// How often `current` may move on while it is being held.
const N_TRIES: u32 = 100;

/// A generation that stays as long as this lives.
#[derive(Debug)]
pub struct Held {
    number: u64,
    path: PathBuf,
    root: PathBuf,
    /// Keeps the lock.
    _folder: File,
}

impl Held {
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Its folder, from the output folder.
    pub fn place(&self) -> PathBuf {
        Path::new(GENERATIONS).join(self.number.to_string())
    }

    /// Its lists of public and of secret files, these if they may be read.
    ///
    /// # Errors
    ///
    /// Fails if they cannot be used.
    pub fn manifests(&self) -> Result<(Manifest, Option<SecretManifest>)> {
        let generation = Generation::read(&self.root, self.number)
            .with_context(|| format!("generation {} cannot be used", self.number))?;
        Ok((generation.manifest, generation.secrets))
    }

    /// A file of the generation itself.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be read.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.path.join(name);
        fs::read(&path).with_context(|| named("reading", &path))
    }
}

/// Holds the current generation below `root`.
///
/// # Errors
///
/// Fails if nothing has been built there.
pub fn hold_current(root: &Path) -> Result<Held> {
    require_ours(root)?;
    for _ in 0..N_TRIES {
        let Some(number) = current_number(root) else {
            bail!("nothing has been built into {} yet", root.display())
        };
        // A build may be removing what was current a moment ago.
        if let Some(held) = try_hold(root, number)? {
            return Ok(held);
        }
    }
    bail!("{} changes too fast to be read", root.display())
}

/// Holds generation `number` below `root`.
///
/// # Errors
///
/// Fails if it is not there.
pub fn hold(root: &Path, number: u64) -> Result<Held> {
    require_ours(root)?;
    require_generation(root, number)?;
    let held = try_hold(root, number)?;
    held.with_context(|| format!("generation {number} is being removed"))
}

/// The number that `current` leads to; cheap enough to ask often.
pub fn current(root: &Path) -> Option<u64> {
    current_number(root)
}

/// Where a folder of the store lies, from the output folder.
pub fn store_path(digest: &Digest) -> PathBuf {
    Path::new(STORE).join(digest.to_string())
}

fn try_hold(root: &Path, number: u64) -> Result<Option<Held>> {
    let path = root.join(GENERATIONS).join(number.to_string());
    let folder = match File::open(&path) {
        Err(fault) if fault.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.with_context(|| named("opening", &path))?,
    };
    match flock(&folder, FlockOperation::NonBlockingLockShared) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(None),
        Err(errno) => {
            return Err(std::io::Error::from(errno)).with_context(|| named("holding", &path));
        }
    }
    // The lock is on what was opened, which may have been moved away before it was locked.
    let is_still_there = path.exists();
    let held = Held { number, path, root: root.to_owned(), _folder: folder };
    Ok(is_still_there.then_some(held))
}

/// Whether somebody holds the generation in this folder. The lock that comes back keeps others
/// from taking hold of it.
pub(super) fn lock_alone(path: &Path) -> Result<Option<File>> {
    let folder = File::open(path).with_context(|| named("opening", path))?;
    match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Ok(None),
        // A filesystem without such locks (NFS of some servers) holds nothing.
        Ok(()) | Err(_) => Ok(Some(folder)),
    }
}
