//! `nodeforge image`: the disks of virtual machines, thin on a shared base; or of any machine,
//! assembled from a root tree.

mod install;
mod rootfs;
mod spool;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::build::BuildError;
use crate::build::media::{MediaBuilder, from_media};
use crate::cli::{ClusterArgs, ImageArgs};
use crate::cluster::Cluster;
use crate::commands::{Outcome, lint, load, media, report};
use crate::diag::{Color, Diagnostic, SourceMap};
use crate::lab::base::{self, Base};
use crate::lab::images::{self, DataDisks, NodeImage, Target, Written};
use crate::lab::process;
use crate::media::node::volume;
use crate::media::seed;
use crate::output::disk::{self, named};
use crate::output::image_list::{self, Image};
use crate::output::whole_file::Audience;
use crate::range;
use crate::render::prepared::Prepared;
use crate::secrets::{KindSecrets, Reach};
use crate::units::ByteSize;
use crate::vm::{self, DiskUse, Machine, Network, WayOut};

pub fn run(args: &ImageArgs, color: Color) -> Result<Outcome> {
    disk::require_text(&args.out)?;
    match (&args.base, &args.rootfs, &args.iso) {
        (Some(base), _, _) => on_base(args, base, color),
        (None, Some(rootfs), _) => rootfs::run(args, rootfs, color),
        (None, None, Some(iso)) => install::run(args, iso, color),
        (None, None, None) => unreachable!("clap asks for one of them"),
    }
}

fn on_base(args: &ImageArgs, base: &Path, color: Color) -> Result<Outcome> {
    let started = Instant::now();
    let wanted =
        Wanted { cluster: &args.cluster, nodes: args.node.as_deref(), way_out: WayOut::Open };
    let Some(made) = make(&wanted, color)? else { return Ok(Outcome::Problems) };
    let base = base::open(base, args.base_sha256)?;
    refuse_running(&args.out)?;
    write_thin(args, &made, &base, started)?;
    Ok(Outcome::Done)
}

/// Writes what is the nodes' own on top of `base`, lists it, and tells what took the time since
/// `started`.
fn write_thin(args: &ImageArgs, made: &Made, base: &Base, started: Instant) -> Result<()> {
    let data = match args.recreate_data {
        true => DataDisks::Recreated,
        false => DataDisks::Kept,
    };
    let target = Target { folder: &args.out, base, data, lab: &made.name };
    let written = images::write(&made.nodes, target)?;
    image_list::add(&args.out, listed(made, &args.out)?)?;
    tell(made, base, &written, &args.out);
    eprintln!(
        "{}: images of {} on {}: {} files ({:.2} s)",
        args.out.display(),
        range::fold(&made.names),
        base.path.display(),
        written.n_files,
        started.elapsed().as_secs_f64(),
    );
    Ok(())
}

/// Disks and seeds as they were made. Data disks are no images: they are the guests' own.
fn listed(made: &Made, folder: &Path) -> Result<Vec<Image>> {
    let mut images = Vec::new();
    for machine in made.nodes.iter().map(|node| &node.machine) {
        for disk in &machine.disks {
            let kind = match disk.use_ {
                DiskUse::System => "qcow2 disk on a base",
                DiskUse::Seed => "seed",
                DiskUse::Data => continue,
            };
            let path = folder.join(&disk.file);
            let file = File::open(&path).with_context(|| named("opening", &path))?;
            images.push(Image::of(&path, file, &machine.name, kind)?);
        }
    }
    Ok(images)
}

/// A disk under a running guest is nothing to replace.
fn refuse_running(folder: &Path) -> Result<()> {
    let Ok(folder) = std::fs::canonicalize(folder) else { return Ok(()) };
    if !process::running(&folder)?.is_empty() {
        bail!("the lab in {0} runs: `nodeforge lab down -d {0}` first", folder.display());
    }
    Ok(())
}

/// Says what the user may not expect.
pub fn tell(made: &Made, base: &Base, written: &Written, folder: &Path) {
    if !written.kept.is_empty() {
        let names = written.kept.iter().filter_map(|disk| disk.path.file_name());
        let names: Vec<_> = names.map(|name| name.to_string_lossy()).collect();
        eprintln!("note: kept as they were: {}; --recreate-data empties them", names.join(", "));
    }
    for disk in written.kept.iter().filter(|disk| disk.size != disk.planned) {
        eprintln!(
            "warning: {} has {} and not the {} of the cluster file: --recreate-data makes it anew, \
             empty",
            disk.path.display(),
            disk.size,
            disk.planned,
        );
    }
    let grown = images::full_size(&made.nodes, base);
    if let Some(free) = free_space(folder).filter(|free| *free < grown) {
        eprintln!(
            "warning: the disks may grow to {} GiB, and {} has {} GiB free",
            grown.gib(),
            folder.display(),
            free.gib(),
        );
    }
    if made.nodes.iter().any(|node| node.audience == Audience::Owner) {
        eprintln!("note: seeds and system disks hold the nodes' secrets: keep them like passwords");
    }
}

fn free_space(folder: &Path) -> Option<ByteSize> {
    let space = rustix::fs::statvfs(folder).ok()?;
    Some(ByteSize::from_bytes(space.f_bavail.saturating_mul(space.f_frsize)))
}

/// Of which nodes images are wanted.
pub struct Wanted<'a> {
    pub cluster: &'a ClusterArgs,
    pub nodes: Option<&'a str>,
    pub way_out: WayOut,
}

/// Nodes with what their images hold.
pub struct Made {
    /// The cluster's.
    pub name: String,
    pub names: BTreeSet<range::NodeName>,
    /// Sorted by name.
    pub nodes: Vec<NodeImage>,
}

/// Makes what the images of the wanted nodes hold; draws the problems and returns `None` where
/// that cannot be.
pub fn make(wanted: &Wanted<'_>, color: Color) -> Result<Option<Made>> {
    let nothing = |_: &Prepared<'_>, _: &Cluster, _: &[usize]| Ok(());
    Ok(make_with(wanted, color, nothing)?.map(|(made, ())| made))
}

/// As [`make`], with what `further` makes of the kind of each node.
fn make_with<T>(
    wanted: &Wanted<'_>,
    color: Color,
    further: impl FnOnce(&Prepared<'_>, &Cluster, &[usize]) -> Result<T, BuildError>,
) -> Result<Option<(Made, T)>> {
    let (mut source, cluster, mut problems) = load::read(wanted.cluster)?;
    let Some(mut cluster) = cluster else {
        return refused(wanted, &problems.into_sorted(), &source.map, color);
    };
    from_media(&mut cluster);
    let secrets = lint::secrets(&cluster, Reach::Everything, &mut problems);
    lint::packages(&cluster, None, &mut problems);
    let names = load::selection(&cluster, wanted.nodes)?;
    let machines = machines(&cluster, &names, wanted.way_out).unwrap_or_else(|found| {
        problems.extend(found);
        Vec::new()
    });
    let prepared = lint::prepare(&cluster, &mut source, &mut problems);
    let found = load::sorted(problems, Some(&cluster));
    let (Some(prepared), Outcome::Done) = (prepared, report::outcome(&found, None)) else {
        return refused(wanted, &found, &source.map, color);
    };
    report::draw(&found, &source.map, color)?;
    let kinds: Vec<usize> = machines.iter().map(|(at, _)| cluster.nodes[*at].kind).collect();
    let made = further(&prepared, &cluster, &kinds)
        .and_then(|further| Ok((nodes(&prepared, &cluster, &secrets, machines)?, further)));
    match made {
        Ok((nodes, further)) => {
            Ok(Some((Made { name: cluster.name.clone(), names, nodes }, further)))
        }
        Err(fault) => refused(wanted, &fault.into_problems()?, &source.map, color),
    }
}

fn refused<T>(
    wanted: &Wanted<'_>,
    problems: &[Diagnostic],
    sources: &SourceMap,
    color: Color,
) -> Result<Option<T>> {
    report::draw(problems, sources, color)?;
    let summary = report::summary(problems);
    eprintln!("{}: {summary}; nothing was made", wanted.cluster.cluster.display());
    Ok(None)
}

/// The machines of the nodes, or what keeps them from being emulated, told once.
fn machines(
    cluster: &Cluster,
    names: &BTreeSet<range::NodeName>,
    way_out: WayOut,
) -> Result<Vec<(usize, Machine)>, Vec<Diagnostic>> {
    let mut machines = Vec::new();
    let mut problems = Vec::new();
    let mut told = BTreeSet::new();
    for (at, node) in cluster.nodes.iter().enumerate().filter(|(_, it)| names.contains(&it.name)) {
        match Machine::of(cluster, node, way_out) {
            Ok(machine) => machines.push((at, machine)),
            Err(found) => problems
                .extend(found.into_iter().filter(|problem| told.insert(problem.message.clone()))),
        }
    }
    if problems.is_empty() { Ok(machines) } else { Err(problems) }
}

fn nodes<'a>(
    prepared: &'a Prepared<'a>,
    cluster: &'a Cluster,
    secrets: &'a [KindSecrets],
    machines: Vec<(usize, Machine)>,
) -> Result<Vec<NodeImage>, BuildError> {
    let builder = MediaBuilder::new(prepared, cluster, secrets)?;
    let mut nodes = Vec::with_capacity(machines.len());
    for of_kind in machines.chunk_by(|a, b| cluster.nodes[a.0].kind == cluster.nodes[b.0].kind) {
        let mut renderer = builder.renderer(cluster.nodes[of_kind[0].0].kind);
        for (at, machine) in of_kind {
            let node = &cluster.nodes[*at];
            let medium = builder.node(node, &mut renderer)?;
            let audience = media::audience(&medium);
            let script = &prepared.media_scripts().seed;
            let files = seed::files(cluster, node, &medium, script)
                .with_context(|| format!("making the seed of {}", node.name))?;
            let seed = volume(seed::LABEL, &of_lab(files, machine))
                .with_context(|| format!("laying out the seed of {}", node.name))?;
            nodes.push(NodeImage { machine: machine.clone(), seed, audience });
        }
    }
    Ok(nodes)
}

/// The files of a seed, in a machine that has a way out.
fn of_lab(mut files: Vec<(String, Vec<u8>)>, machine: &Machine) -> Vec<(String, Vec<u8>)> {
    let outside = machine.nics.iter().find(|nic| nic.network == Network::Outside);
    let config = files.iter_mut().find(|(name, _)| name == "network-config");
    if let (Some(outside), Some((_, config))) = (outside, config) {
        let planned = String::from_utf8_lossy(config).into_owned();
        *config = vm::seed::network_config(&planned, outside.mac).into_bytes();
    }
    files
}
