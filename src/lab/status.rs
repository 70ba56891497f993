//! How a lab is: which nodes run, and how far they are.

use anyhow::Result;
use serde::Serialize;

use crate::lab::Lab;
use crate::lab::console::{self, Progress};
use crate::lab::process::{self, Role};

/// One node of a lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeStatus {
    pub name: String,
    /// The number of its QEMU, if it runs.
    pub pid: Option<i32>,
    /// By the console of its last start.
    pub progress: Progress,
    /// What its console said last.
    pub last_line: String,
}

/// All nodes of `lab`, sorted by name.
///
/// # Errors
///
/// Fails if there is no lab in the folder.
pub fn of(lab: &Lab) -> Result<Vec<NodeStatus>> {
    let running = process::running(lab.folder())?;
    let pid_of = |name: &str| {
        let its = |role: &Role| matches!(role, Role::Node(node) if node == name);
        running.iter().find(|process| its(&process.role)).map(|process| process.pid)
    };
    let nodes = lab.state()?.nodes.into_iter();
    nodes.map(|name| of_node(lab, pid_of(&name), name)).collect()
}

/// One node, whose QEMU is `pid`.
///
/// # Errors
///
/// Fails if its console cannot be read.
pub fn of_node(lab: &Lab, pid: Option<i32>, name: String) -> Result<NodeStatus> {
    let lines = console::tail(lab, &name)?;
    let last = lines.iter().rev().find(|line| !line.trim().is_empty());
    Ok(NodeStatus {
        pid,
        progress: Progress::of(lines.iter().map(String::as_str)),
        last_line: last.cloned().unwrap_or_default(),
        name,
    })
}
