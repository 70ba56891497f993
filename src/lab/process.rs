//! The processes of a lab, as the kernel knows them.
//!
//! No file says which they are: one that a killed program left would name a process that is
//! somebody else's by now. A process is of a lab if it was started in the lab's folder with
//! the words that a lab starts QEMU and its switch with.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// What a process of a lab is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Node(String),
    Switch,
}

/// A running process of a lab. Its handle stays with this very process, whatever later gets
/// the same number.
#[derive(Debug)]
pub struct Running {
    pub role: Role,
    pub pid: i32,
    handle: OwnedFd,
}

/// The processes of the lab in `folder`, an absolute path without links.
///
/// # Errors
///
/// Fails if /proc cannot be read.
pub fn running(folder: &Path) -> Result<Vec<Running>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("reading /proc")? {
        let name = entry.context("reading /proc")?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        found.extend(of_lab(pid, folder));
    }
    found.sort_by(|a, b| (&a.role, a.pid).cmp(&(&b.role, b.pid)));
    Ok(found)
}

/// The process, if it is of the lab. It is asked who it is after the handle is there, so that
/// the answer is of the process that the handle is of.
fn of_lab(pid: i32, folder: &Path) -> Option<Running> {
    if fs::read_link(format!("/proc/{pid}/cwd")).ok()? != folder {
        return None;
    }
    let handle = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    let is_there = fs::read_link(format!("/proc/{pid}/cwd")).ok()? == folder;
    let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<&str> =
        words.split(|byte| *byte == 0).filter_map(|word| str::from_utf8(word).ok()).collect();
    let role = role(&words).filter(|_| is_there)?;
    Some(Running { role, pid, handle })
}

fn role(words: &[&str]) -> Option<Role> {
    if let [_, "lab", "switch", "--of-lab", ..] = words {
        return Some(Role::Switch);
    }
    let after = |option: &str| words.windows(2).find(|pair| pair[0] == option).map(|pair| pair[1]);
    let name = after("-name")?.strip_prefix("guest=")?;
    (after("-qmp")? == qmp_option(name)).then(|| Role::Node(name.to_owned()))
}

/// The word by which a lab's QEMU is known, beside its guest's name.
pub fn qmp_option(node: &str) -> String {
    format!("unix:{node}.qmp,server=on,wait=off")
}

impl Running {
    /// Waits until it has ended; tells whether it has within `timeout`.
    pub fn has_ended_within(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            let rest = rustix::event::Timespec {
                tv_sec: i64::try_from(rest.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: rest.subsec_nanos().into(),
            };
            // A handle can be read once its process is gone.
            match poll(&mut [PollFd::new(&self.handle, PollFlags::IN)], Some(&rest)) {
                Ok(n_ready) => return n_ready > 0,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }

    /// Sends it SIGTERM.
    pub fn terminate(&self) {
        // It fails where the process has ended meanwhile.
        let _ = pidfd_send_signal(&self.handle, Signal::TERM);
    }

    /// Sends it SIGKILL.
    pub fn kill(&self) {
        let _ = pidfd_send_signal(&self.handle, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_lab_starts_is_of_a_lab() {
        let qmp = "unix:node0.qmp,server=on,wait=off";
        for (words, expected) in [
            (&["nodeforge", "lab", "switch", "--of-lab", "mgmt"][..], Some(Role::Switch)),
            (&["qemu", "-name", "guest=node0", "-qmp", qmp], Some(Role::Node("node0".into()))),
            (&["qemu", "-name", "guest=node1", "-qmp", qmp], None),
            (&["qemu", "-name", "guest=node0"], None),
            (&["nodeforge", "lab", "switch", "mgmt"], None),
            (&["tail", "-f", "node0.console"], None),
            (&[], None),
        ] {
            assert_eq!(role(words), expected, "{words:?}");
        }
    }
}
