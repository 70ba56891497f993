//! Starting a lab: the switch, then a QEMU for each node that does not run yet.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::io::{FdFlags, fcntl_setfd};

use crate::cluster::Firmware;
use crate::lab::process::{self, Role};
use crate::lab::qmp::Qmp;
use crate::lab::{LabState, Locked, STATE, console, host, switch};
use crate::output::disk::named;
use crate::vm::qemu::{self, Accelerator, Cache, Surroundings, Uefi};
use crate::vm::{Machine, Network, VmNic, networks};

/// What QEMU and the switch may take to start on a loaded host.
const START: Duration = Duration::from_secs(60);
/// How often it is looked whether they have.
const LOOK: Duration = Duration::from_millis(20);

/// A kernel that QEMU starts instead of the boot loader on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectKernel {
    pub kernel: PathBuf,
    pub initrd: Option<PathBuf>,
    /// Its command line.
    pub line: String,
}

/// How to start guests.
pub struct Start<'a> {
    pub accelerator: Accelerator,
    pub qemu: &'a Path,
    /// Further words for QEMU; `{node}` in one is the node's name.
    pub further: &'a [String],
    /// Whether the way out leads out; else it ends in QEMU.
    pub is_restricted: bool,
}

/// A node whose QEMU this process started.
pub struct Guest {
    pub node: String,
    process: Child,
}

impl Guest {
    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.process.try_wait().is_ok_and(|status| status.is_some())
    }
}

/// Writes down what the lab consists of.
///
/// # Errors
///
/// Fails if the folder cannot be written.
pub fn record(lab: &Locked<'_>, state: &LabState) -> Result<()> {
    let path = lab.path(STATE);
    let part = lab.path(".lab.json.part");
    let write = || -> Result<()> {
        let mut text = serde_json::to_vec_pretty(state)?;
        text.push(b'\n');
        fs::write(&part, text)?;
        fs::rename(&part, &path)?;
        Ok(())
    };
    write().with_context(|| named("writing", &path))
}

/// The names of nodes that run already. A switch that lost its guests, or guests that lost their
/// switch, are nothing to build on: it tells so.
///
/// # Errors
///
/// Fails if /proc cannot be read.
pub fn running_nodes(lab: &Locked<'_>, state: &LabState) -> Result<Found> {
    let running = process::running(lab.folder())?;
    let mut nodes: Vec<String> = Vec::new();
    let mut n_switches = 0;
    for process in &running {
        match &process.role {
            Role::Node(node) => nodes.push(node.clone()),
            Role::Switch => n_switches += 1,
        }
    }
    let is_strange = |node: &String| !state.nodes.contains(node);
    let has_all_networks = state.networks.iter().all(|net| connect(lab, net).is_ok());
    Ok(match (n_switches, nodes.is_empty()) {
        (0, true) => Found::Nothing,
        (1, _) if has_all_networks && !nodes.iter().any(is_strange) => Found::Nodes(nodes),
        _ => Found::Remains,
    })
}

/// What of a lab runs before a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Nothing,
    /// The switch, and these nodes, perhaps none.
    Nodes(Vec<String>),
    /// Processes without the others that they need.
    Remains,
}

/// Starts the switch of the lab's networks, and waits until it listens.
///
/// # Errors
///
/// Fails with what it said if it does not come up.
pub fn start_switch(lab: &Locked<'_>, program: &Path, nets: &[String]) -> Result<()> {
    let mut command = Command::new(program);
    command.args(["lab", "switch", "--of-lab"]).args(nets);
    let mut process = spawn(lab, command, "switch.log")?;
    let deadline = Instant::now() + START;
    while !nets.iter().all(|net| connect(lab, net).is_ok()) {
        let has_ended = process.try_wait().context("waiting for the switch")?.is_some();
        if has_ended || Instant::now() > deadline {
            bail!("the switch of the lab does not start: {}", log_end(lab, "switch.log"));
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

fn connect(lab: &Locked<'_>, net: &str) -> std::io::Result<UnixStream> {
    UnixStream::connect(lab.socket(&switch::socket_name(net)))
}

/// Starts the QEMU of a machine, and waits until it takes commands.
///
/// # Errors
///
/// Fails with what QEMU said if it does not come up.
pub fn start_node(
    lab: &Locked<'_>,
    machine: &Machine,
    start: &Start<'_>,
    kernel: Option<&DirectKernel>,
) -> Result<Guest> {
    let node = &machine.name;
    let ports = plug_in(lab, machine)?;
    let netdev = |nic: &VmNic| netdev(nic, &ports, start.is_restricted);
    let console = format!(
        "socket,path={},server=on,wait=off,logfile={}",
        console::socket_name(node),
        console::log_name(node)
    );
    let variables = format!("{node}-vars.fd");
    let code = match machine.firmware {
        Firmware::Bios => None,
        Firmware::Uefi => Some(uefi(lab, &variables)?),
    };
    let uefi = code.map(|code| Uefi { code, variables: &variables });
    let accelerator = start.accelerator;
    let cache = Cache::InMemory;
    let around = Surroundings { accelerator, netdev: &netdev, console: &console, uefi, cache };
    let mut command = Command::new(start.qemu);
    command.args(qemu::arguments(machine, &around));
    command.args(["-qmp", &process::qmp_option(node)]);
    command.args(start.further.iter().map(|word| word.replace("{node}", node)));
    if let Some(kernel) = kernel {
        command.arg("-kernel").arg(&kernel.kernel);
        command.args(["-append", &kernel.line]);
        command
            .args(kernel.initrd.iter().flat_map(|initrd| ["-initrd".as_ref(), initrd.as_os_str()]));
    }
    let log = format!("{node}.qemu");
    let mut guest = Guest { node: node.clone(), process: spawn(lab, command, &log)? };
    let deadline = Instant::now() + START;
    while Qmp::connect(lab, node).is_err() {
        let has_ended = guest.has_ended();
        if has_ended || Instant::now() > deadline {
            bail!("the QEMU of {node} does not start: {}", log_end(lab, &log));
        }
        std::thread::sleep(LOOK);
    }
    Ok(guest)
}

/// A connection to the switch for each card of the lab's networks, which QEMU inherits.
fn plug_in(lab: &Locked<'_>, machine: &Machine) -> Result<Vec<(String, UnixStream)>> {
    let mut ports = Vec::new();
    for nic in &machine.nics {
        let Network::Lab(net) = &nic.network else { continue };
        let plug = || -> Result<UnixStream> {
            let port = connect(lab, net)?;
            fcntl_setfd(&port, FdFlags::empty()).map_err(std::io::Error::from)?;
            Ok(port)
        };
        let port = plug().with_context(|| format!("plugging {} into {net}", machine.name))?;
        ports.push((nic.id.clone(), port));
    }
    Ok(ports)
}

fn netdev(nic: &VmNic, ports: &[(String, UnixStream)], is_restricted: bool) -> String {
    use std::os::fd::AsRawFd;
    match ports.iter().find(|(id, _)| *id == nic.id) {
        Some((_, port)) => format!("socket,fd={}", port.as_raw_fd()),
        None if is_restricted => "user,restrict=on".to_owned(),
        None => "user".to_owned(),
    }
}

/// The firmware; the node's own variables are made if there are none.
fn uefi(lab: &Locked<'_>, variables: &str) -> Result<&'static str> {
    let [code, fresh] = host::uefi()?;
    let path = lab.path(variables);
    if !path.exists() {
        let part = lab.path(&format!(".{variables}.part"));
        let copy = || fs::copy(fresh, &part).and_then(|_| fs::rename(&part, &path));
        copy().with_context(|| named("writing", &path))?;
    }
    Ok(code.to_str().expect("the paths of firmware are text"))
}

/// Starts a process in the lab's folder that outlives this one, and the terminal.
fn spawn(lab: &Locked<'_>, mut command: Command, log: &str) -> Result<Child> {
    let program = command.get_program().to_owned();
    let mut start = || -> std::io::Result<Child> {
        let log = File::create(lab.path(log))?;
        command
            .current_dir(lab.folder())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
    };
    start().with_context(|| format!("starting {}", program.display()))
}

fn log_end(lab: &Locked<'_>, log: &str) -> String {
    let path = lab.path(log);
    let text = fs::read_to_string(&path).unwrap_or_default();
    match text.lines().rev().find(|line| !line.trim().is_empty()) {
        Some(line) => format!("{line} ({})", path.display()),
        None => format!("it said nothing ({})", path.display()),
    }
}

/// What a lab of `machines` consists of.
pub fn state_of(name: &str, machines: &[Machine]) -> LabState {
    LabState {
        name: name.to_owned(),
        nodes: machines.iter().map(|machine| machine.name.clone()).collect(),
        networks: networks(machines).into_iter().map(str::to_owned).collect(),
    }
}

/// Warns of what this host lacks for `machines`: guests take memory as they touch it.
///
/// # Errors
///
/// Fails if the warning cannot be written.
pub fn warn_of_memory(machines: &[Machine], out: &mut impl Write) -> std::io::Result<()> {
    let wanted: crate::units::ByteSize = machines.iter().map(|machine| machine.memory).sum();
    let Some(free) = host::available_memory().filter(|free| *free < wanted) else { return Ok(()) };
    writeln!(
        out,
        "warning: the guests may take {:.1} GiB of memory, and this host has {:.1} GiB: they are \
         killed, or slow, once they use it; make hw.memory smaller or start fewer with --node",
        gib(wanted),
        gib(free)
    )
}

fn gib(size: crate::units::ByteSize) -> f64 {
    size.bytes() as f64 / f64::from(1 << 30)
}

/// Refuses kernels that are not there before anything is started.
///
/// # Errors
///
/// Names the first file that is missing.
pub fn require_files(kernels: &[DirectKernel]) -> Result<()> {
    for kernel in kernels {
        for path in std::iter::once(&kernel.kernel).chain(&kernel.initrd) {
            ensure!(path.is_file(), "{} is not there", path.display());
        }
    }
    Ok(())
}
