//! A place for what images are made from, while they are made.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::{FlockOperation, flock};

use crate::output::disk::{self, named};
use crate::output::whole_file;
use crate::units::ByteSize;

/// Files that nobody is to see, in a folder beside the images. What a killed run left there is
/// removed by the next one.
pub struct Spool {
    pub path: PathBuf,
    /// Held as long as the folder is in use.
    _lock: File,
}

impl Spool {
    /// Makes `out` and the folder in it.
    ///
    /// # Errors
    ///
    /// Fails if another run makes images there.
    pub fn in_folder(out: &Path) -> Result<Self> {
        whole_file::require_folder(out, ByteSize::default())?;
        let out = fs::canonicalize(out).with_context(|| named("opening", out))?;
        let lock = File::open(&out).with_context(|| named("opening", &out))?;
        ensure!(
            flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok(),
            "another nodeforge makes images in {}",
            out.display()
        );
        let path = out.join(".assembly");
        disk::remove_dir(&path)?;
        disk::make_dir(&path, disk::SECRET_DIR)?;
        Ok(Self { path, _lock: lock })
    }

    /// A new folder in it.
    ///
    /// # Errors
    ///
    /// Fails if there is one.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        disk::make_dir(&path, disk::SECRET_DIR)?;
        Ok(path)
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // The next run tries again.
        let _ = fs::remove_dir_all(&self.path);
    }
}
