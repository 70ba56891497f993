//! `nodeforge lab`: the nodes as virtual machines of this host.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::cli::{
    AcceleratorChoice, LabConsoleArgs, LabDownArgs, LabStatusArgs, LabUpArgs, LabVerb,
};
use crate::commands::image::{Made, Wanted};
use crate::commands::{Outcome, image};
use crate::diag::Color;
use crate::lab::console::Progress;
use crate::lab::down::{self, How};
use crate::lab::host::{self, WantedAccelerator};
use crate::lab::images::{self, DataDisks, NodeImage, Target};
use crate::lab::status::{self, NodeStatus};
use crate::lab::up::{self, DirectKernel, Found, Guest, Start};
use crate::lab::{Lab, Locked, base, switch};
use crate::tool;
use crate::vm::{DiskUse, Machine, WayOut};

/// How often consoles are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// As much of a console's line as the table shows, in characters.
const MAX_LINE: usize = 120;
/// What guests without a switch, or of another cluster, are given to shut down.
const CLEAN_UP: Duration = Duration::from_secs(30);

pub fn run(verb: &LabVerb, color: Color) -> Result<Outcome> {
    match verb {
        LabVerb::Up(args) => up(args, color),
        LabVerb::Status(args) => show_status(args),
        LabVerb::Console(args) => console(args),
        LabVerb::Down(args) => down(args),
        LabVerb::Switch(args) => switch::run(&args.nets).map(|()| Outcome::Done),
        LabVerb::Tied(args) => match tool::become_tied(args.parent, &args.words)? {},
    }
}

fn up(args: &LabUpArgs, color: Color) -> Result<Outcome> {
    let wanted =
        Wanted { cluster: &args.cluster, nodes: args.node.as_deref(), way_out: WayOut::Open };
    let Some(made) = image::make(&wanted, color)? else { return Ok(Outcome::Problems) };
    let machines: Vec<Machine> = made.nodes.iter().map(|node| node.machine.clone()).collect();
    let qemu = host::qemu()?;
    let accelerator = host::accelerator(wanted_accelerator(args.accel), machines.len())?;
    let kernels = kernels(args, &made)?;
    let further = args.qemu.as_deref().map_or(Some(Vec::new()), shlex::split);
    let further = further.context("--qemu has a quote that does not end")?;
    up::require_files(&kernels)?;
    std::fs::create_dir_all(&args.lab.dir)
        .with_context(|| format!("making {}", args.lab.dir.display()))?;
    let lab = Lab::open(&args.lab.dir)?;
    let lab = lab.lock()?;
    let state = whole_state(&lab, &made.name, &machines)?;
    let running = take_over(&lab, &state)?;
    up::warn_of_memory(&machines, &mut std::io::stderr())?;
    make_images(args, &lab, made, &running)?;
    up::record(&lab, &state)?;
    if running.is_none() {
        up::start_switch(&lab, &program()?, &state.networks)?;
    }
    let start = Start { accelerator, qemu: &qemu, further: &further, is_restricted: args.isolated };
    let running = running.unwrap_or_default();
    let mut guests = Vec::new();
    for (at, machine) in machines.iter().enumerate() {
        if running.contains(&machine.name) {
            eprintln!("{}: runs already", machine.name);
            continue;
        }
        guests.push(up::start_node(&lab, machine, &start, kernels.get(at))?);
        eprintln!("{}: started", machine.name);
    }
    if args.no_wait {
        return Ok(Outcome::Done);
    }
    let nodes: Vec<&str> = machines.iter().map(|machine| machine.name.as_str()).collect();
    wait(&lab, &nodes, &mut guests, Duration::from_secs(args.timeout.as_u64()))
}

pub fn wanted_accelerator(choice: AcceleratorChoice) -> WantedAccelerator {
    match choice {
        AcceleratorChoice::Auto => WantedAccelerator::Any,
        AcceleratorChoice::Kvm => WantedAccelerator::Kvm,
        AcceleratorChoice::Tcg => WantedAccelerator::Tcg,
    }
}

fn program() -> Result<PathBuf> {
    std::env::current_exe().context("asking for this program's own path")
}

/// The kernel of each node, absolute paths: QEMU is started elsewhere.
fn kernels(args: &LabUpArgs, made: &Made) -> Result<Vec<DirectKernel>> {
    let Some(kernel) = &args.kernel else { return Ok(Vec::new()) };
    let of = |node: &NodeImage| {
        let path = |path: &String| {
            let path = path.replace("{node}", &node.machine.name);
            std::path::absolute(&path).with_context(|| format!("naming {path}"))
        };
        Ok(DirectKernel {
            kernel: path(kernel)?,
            initrd: args.initrd.as_ref().map(path).transpose()?,
            line: [args.append.as_deref().unwrap_or_default(), &node.machine.kernel_line].join(" "),
        })
    };
    made.nodes.iter().map(of).collect()
}

/// What the lab consists of, with nodes of earlier runs of the same cluster.
fn whole_state(lab: &Locked<'_>, name: &str, machines: &[Machine]) -> Result<crate::lab::LabState> {
    let mut state = up::state_of(name, machines);
    let Ok(before) = lab.state() else { return Ok(state) };
    if before.name != name {
        bail!(
            "{} is the lab of the cluster {}; -d names another folder",
            lab.folder().display(),
            before.name
        );
    }
    for (all, earlier) in [(&mut state.nodes, before.nodes), (&mut state.networks, before.networks)]
    {
        let merged: BTreeSet<String> = all.drain(..).chain(earlier).collect();
        all.extend(merged);
    }
    Ok(state)
}

/// The nodes that run, if their switch does; `None` once nothing runs.
fn take_over(lab: &Locked<'_>, state: &crate::lab::LabState) -> Result<Option<Vec<String>>> {
    match up::running_nodes(lab, state)? {
        Found::Nothing => Ok(None),
        Found::Nodes(nodes) => Ok(Some(nodes)),
        Found::Remains => {
            eprintln!("note: an earlier lab was not ended whole: its processes are ended now");
            down::stop(lab, CLEAN_UP)?;
            Ok(None)
        }
    }
}

/// Makes the images of nodes that have none, or of all that do not run.
fn make_images(
    args: &LabUpArgs,
    lab: &Locked<'_>,
    mut made: Made,
    running: &Option<Vec<String>>,
) -> Result<()> {
    let has_disks = |machine: &Machine| {
        let mut needed = machine.disks.iter().filter(|disk| disk.use_ != DiskUse::Data);
        needed.all(|disk| lab.path(&disk.file).exists())
    };
    if args.fresh && running.as_ref().is_some_and(|nodes| !nodes.is_empty()) {
        bail!("the lab runs: `nodeforge lab down` before new disks");
    }
    made.nodes.retain(|node| args.fresh || !has_disks(&node.machine));
    if made.nodes.is_empty() {
        return Ok(());
    }
    let Some(path) = &args.base else {
        let names = made.nodes.iter().map(|node| node.machine.name.as_str());
        return Err(anyhow!(
            "there is no disk of {} yet: --base names the image to make it of",
            names.collect::<Vec<_>>().join(", ")
        ));
    };
    let base = base::open(path, args.base_sha256)?;
    let data = if args.recreate_data { DataDisks::Recreated } else { DataDisks::Kept };
    let target = Target { folder: lab.folder(), base: &base, data, lab: &made.name };
    let written = images::write(&made.nodes, target)?;
    image::tell(&made, &base, &written, lab.folder());
    Ok(())
}

/// Tells what nodes say of themselves until all are ready, one has failed or ended, or the time
/// is up.
fn wait(
    lab: &Locked<'_>,
    nodes: &[&str],
    guests: &mut [Guest],
    timeout: Duration,
) -> Result<Outcome> {
    let started = Instant::now();
    let mut told: BTreeMap<String, Progress> = BTreeMap::new();
    let mut ended: BTreeSet<String> = BTreeSet::new();
    loop {
        for guest in guests.iter_mut() {
            if guest.has_ended() && ended.insert(guest.node.clone()) {
                eprintln!("{}: QEMU has ended", guest.node);
            }
        }
        for node in nodes {
            let status = status::of_node(lab, None, (*node).to_owned())?;
            if told.get(*node) != Some(&status.progress) {
                tell_progress(node, &status.progress, started.elapsed());
                told.insert((*node).to_owned(), status.progress);
            }
        }
        let n_ready = told.values().filter(|progress| **progress == Progress::Ready).count();
        let is_settled = |node: &&str| {
            ended.contains(*node)
                || matches!(told.get(*node), Some(Progress::Ready | Progress::Failed(_)))
        };
        if nodes.iter().all(is_settled) {
            let is_whole = n_ready == nodes.len() && ended.is_empty();
            eprintln!("{n_ready} of {} ready ({})", nodes.len(), clock(started.elapsed()));
            return Ok(if is_whole { Outcome::Done } else { Outcome::Problems });
        }
        if started.elapsed() > timeout {
            let late: Vec<&str> = nodes.iter().filter(|it| !is_settled(it)).copied().collect();
            eprintln!("not ready within {}: {}; they go on", clock(timeout), late.join(", "));
            return Ok(Outcome::Problems);
        }
        std::thread::sleep(LOOK);
    }
}

fn tell_progress(node: &str, progress: &Progress, elapsed: Duration) {
    let said = match progress {
        Progress::Booting => "boots",
        Progress::Working(said) | Progress::Failed(said) => said,
        Progress::Ready => "ready",
    };
    eprintln!("{} {node}: {said}", clock(elapsed));
}

/// `2:07`, minutes and seconds.
pub fn clock(time: Duration) -> String {
    format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}

fn show_status(args: &LabStatusArgs) -> Result<Outcome> {
    let lab = Lab::open(&args.lab.dir)?;
    let nodes = status::of(&lab)?;
    let mut out = std::io::stdout().lock();
    match args.json {
        true => {
            serde_json::to_writer_pretty(&mut out, &nodes)?;
            writeln!(out)?;
        }
        false => out.write_all(table(&nodes).as_bytes())?,
    }
    Ok(Outcome::Done)
}

fn table(nodes: &[NodeStatus]) -> String {
    let mut cells = vec![["NAME", "PID", "STATE", "CONSOLE"].map(str::to_owned)];
    cells.extend(nodes.iter().map(|node| {
        let pid = node.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let (state, line) = match (&node.progress, node.pid) {
            (_, None) => ("off", &node.last_line),
            (Progress::Booting, _) => ("boots", &node.last_line),
            (Progress::Working(_), _) => ("works", &node.last_line),
            (Progress::Ready, _) => ("ready", &node.last_line),
            (Progress::Failed(why), _) => ("failed", why),
        };
        let line = line.chars().take(MAX_LINE).collect();
        [node.name.clone(), pid, state.to_owned(), line]
    }));
    let width = |column: usize| cells.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..4).map(width).collect();
    let mut text = String::new();
    for row in &cells {
        let padded = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(padded.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn console(args: &LabConsoleArgs) -> Result<Outcome> {
    let lab = Lab::open(&args.lab.dir)?;
    let state = lab.state()?;
    if !state.nodes.contains(&args.node) {
        bail!("there is no node `{}` in the lab; there are: {}", args.node, state.nodes.join(", "));
    }
    crate::lab::console::attach(&lab, &args.node)?;
    Ok(Outcome::Done)
}

fn down(args: &LabDownArgs) -> Result<Outcome> {
    let lab = Lab::open(&args.lab.dir)?;
    lab.state()?;
    let lab = lab.lock()?;
    let ended = down::stop(&lab, Duration::from_secs(args.timeout.as_u64()))?;
    for guest in &ended {
        let how = match guest.how {
            How::ShutDown => "shut down",
            How::PowerCut => "did not shut down in time: its power was cut",
            How::Killed => "did not answer: it was killed",
        };
        eprintln!("{}: {how}", guest.node);
    }
    if ended.is_empty() {
        eprintln!("nothing was running");
    }
    Ok(Outcome::Done)
}
