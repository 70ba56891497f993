//! Ending a lab: no process, no socket and no network is left.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::lab::process::{self, Role, Running};
use crate::lab::qmp::Qmp;
use crate::lab::{Locked, console, switch};

/// What QEMU takes to write its caches and end, and the kernel to end what was killed.
const END: Duration = Duration::from_secs(30);

/// How a process of a lab ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub node: String,
    pub how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Its system shut itself down.
    ShutDown,
    /// It did not within the time: as by a power cut, but QEMU's caches are written.
    PowerCut,
    /// QEMU did not listen.
    Killed,
}

/// Shuts the nodes down, all at once, and gives them `patience`; then ends them. The switch goes
/// last.
///
/// # Errors
///
/// Fails if something cannot be ended.
pub fn stop(lab: &Locked<'_>, patience: Duration) -> Result<Vec<Ended>> {
    let (switches, guests): (Vec<Running>, Vec<Running>) = process::running(lab.folder())?
        .into_iter()
        .partition(|process| process.role == Role::Switch);
    for guest in &guests {
        // A guest that does not listen is ended below.
        let _ = tell(lab, guest, "system_powerdown");
    }
    let deadline = Instant::now() + patience;
    let mut ended = Vec::new();
    for guest in &guests {
        let Role::Node(node) = &guest.role else { continue };
        let how = end(lab, guest, deadline.saturating_duration_since(Instant::now()))?;
        ended.push(Ended { node: node.clone(), how });
    }
    for process in &switches {
        process.terminate();
        if !process.has_ended_within(END) {
            process.kill();
        }
    }
    let left = process::running(lab.folder())?;
    let pids: Vec<String> = left.iter().map(|process| process.pid.to_string()).collect();
    ensure!(pids.is_empty(), "processes of the lab that do not end: {}", pids.join(", "));
    remove_sockets(lab)?;
    Ok(ended)
}

fn end(lab: &Locked<'_>, guest: &Running, patience: Duration) -> Result<How> {
    if guest.has_ended_within(patience) {
        return Ok(How::ShutDown);
    }
    if tell(lab, guest, "quit").is_ok() && guest.has_ended_within(END) {
        return Ok(How::PowerCut);
    }
    guest.kill();
    ensure!(guest.has_ended_within(END), "process {} does not end", guest.pid);
    Ok(How::Killed)
}

fn tell(lab: &Locked<'_>, guest: &Running, command: &str) -> Result<()> {
    let Role::Node(node) = &guest.role else { return Ok(()) };
    Qmp::connect(lab, node)?.execute(command).map(|_| ())
}

/// Those of QEMU and of switches: who was killed has left its own.
fn remove_sockets(lab: &Locked<'_>) -> Result<()> {
    let Ok(state) = lab.state() else { return Ok(()) };
    let of_node = |node: &String| [format!("{node}.qmp"), console::socket_name(node)];
    let of_nets = state.networks.iter().map(|net| switch::socket_name(net));
    for name in state.nodes.iter().flat_map(of_node).chain(of_nets) {
        let path = lab.path(&name);
        match fs::remove_file(&path) {
            Err(fault) if fault.kind() != io::ErrorKind::NotFound => {
                return Err(fault).with_context(|| format!("removing {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}
