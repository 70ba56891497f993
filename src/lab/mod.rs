//! Labs: the nodes of a cluster as virtual machines of this host, without root.
//!
//! A lab is a folder. [`base`] judges the image that all nodes share, [`images`] writes what is a
//! node's own on top of it. [`up`] starts a QEMU for each node and one [`switch`] between them,
//! [`down`] ends them; both find what runs by asking the kernel ([`process`]), not by files that
//! a killed program may leave behind. [`console`] reads how far a node is, and leads to it.
//! [`install`] is no part of a lab: it has an installer fill a disk that labs can stand on.
//!
//! The nodes' network is a process of ours, as nothing else serves rootless guests of QEMU 6.2
//! and later alike: `-netdev dgram` and `stream` came with 7.2; `socket,mcast=` joins its group
//! on the host's default interface, so with `localaddr=127.0.0.1` no frame arrives and without
//! it all of them are on the host's own network; `socket,listen=` is TCP that any user of the
//! host may connect to. `socket,fd=` takes a Unix socket, which has an owner, on all of them.

pub mod base;
pub mod console;
pub mod down;
pub mod host;
pub mod images;
pub mod install;
pub mod process;
mod qmp;
pub mod status;
pub mod switch;
pub mod up;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::output::disk::named;

const STATE: &str = "lab.json";
const LOCK: &str = "lab.lock";

/// What the folder of a lab says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabState {
    /// The cluster's name.
    pub name: String,
    /// Sorted by name.
    pub nodes: Vec<String>,
    /// The networks between them.
    pub networks: Vec<String>,
}

/// The folder of a lab.
#[derive(Debug)]
pub struct Lab {
    folder: PathBuf,
    /// Sockets are reached through it: their paths may have 107 bytes, a folder's has more.
    open: File,
}

/// The right to start and end the processes of a lab, for as long as it lives.
pub struct Locked<'a> {
    lab: &'a Lab,
    _lock: File,
}

impl std::ops::Deref for Locked<'_> {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        self.lab
    }
}

fn no_lab(folder: &Path) -> anyhow::Error {
    anyhow!(
        "there is no lab in {}: `nodeforge lab up CLUSTER --base IMAGE` makes one, -d names another",
        folder.display()
    )
}

impl Lab {
    /// The lab in `folder`, which exists.
    ///
    /// # Errors
    ///
    /// Fails if the folder cannot be opened.
    pub fn open(folder: &Path) -> Result<Self> {
        let open = || -> io::Result<Self> {
            let folder = fs::canonicalize(folder)?;
            let open = File::open(&folder)?;
            Ok(Self { folder, open })
        };
        match open() {
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => Err(no_lab(folder)),
            opened => opened.with_context(|| named("opening the lab", folder)),
        }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A short path of a socket in the folder, for this process.
    fn socket(&self, name: &str) -> PathBuf {
        use std::os::fd::AsRawFd;
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.open.as_raw_fd()))
    }

    /// What the lab consists of.
    ///
    /// # Errors
    ///
    /// Fails if no `lab up` has been here.
    pub fn state(&self) -> Result<LabState> {
        let path = self.path(STATE);
        if !path.exists() {
            return Err(no_lab(&self.folder));
        }
        let text = fs::read(&path).with_context(|| named("reading", &path))?;
        serde_json::from_slice(&text).with_context(|| named("reading", &path))
    }

    /// Keeps other runs from starting and ending its processes.
    ///
    /// # Errors
    ///
    /// Fails if another has the right.
    pub fn lock(&self) -> Result<Locked<'_>> {
        let path = self.path(LOCK);
        let mut options = File::options();
        let lock = options.create(true).append(true).open(&path);
        let lock = lock.with_context(|| named("opening", &path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Locked { lab: self, _lock: lock }),
            Err(_) => {
                bail!("another nodeforge starts or ends the lab in {}", self.folder.display())
            }
        }
    }
}
