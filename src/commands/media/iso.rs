//! `nodeforge media iso`: bootable ISOs, one for all nodes or one a node.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::build::BuildError;
use crate::build::media::MediaBuilder;
use crate::cli::MediaIsoArgs;
use crate::cluster::{Cluster, Node};
use crate::commands::{Outcome, load, media};
use crate::diag::Color;
use crate::format::gzip;
use crate::media::all_nodes::{AllNodes, nobodys_kickstart};
use crate::media::embed::{self, Owner};
use crate::media::install_archive::KICKSTART;
use crate::output::whole_file::{self, Audience, WholeFile};
use crate::progress::{Progress, Unit};
use crate::range;
use crate::remaster::{self, Base, Changed, SharedIso};
use crate::units::ByteSize;

/// The ISO that those of nodes are made from. A node of that name has its own.
fn shared_name(cluster: &Cluster) -> &'static str {
    match cluster.node("shared") {
        None => "shared.iso",
        Some(_) => "shared.base.iso",
    }
}

/// The ISO for all nodes. No node's has a dot before its ending.
fn all_nodes_name(cluster: &Cluster) -> String {
    let is_taken = cluster.name == "shared" || cluster.node(&cluster.name).is_some();
    format!("{}.{}iso", cluster.name, if is_taken { "all." } else { "" })
}

/// The base is the user's, and nothing that is written here.
fn require_other(base: &Base, path: &Path) -> Result<()> {
    let id = |path: &Path| path.metadata().map(|metadata| (metadata.dev(), metadata.ino()));
    let is_base = id(path).is_ok_and(|found| id(&base.iso.path).is_ok_and(|base| base == found));
    ensure!(
        !is_base,
        "{} is the base itself, which stays as it is: name another folder with --out",
        path.display()
    );
    Ok(())
}

pub fn run(args: &MediaIsoArgs, color: Color) -> Result<Outcome> {
    let base = Base::open(&args.base)?;
    media::with_builder(&args.cluster, color, |builder| match &args.node {
        Some(range) => for_each(args, &base, builder, range),
        None => for_all(args, &base, builder),
    })
}

/// One ISO for all nodes.
fn for_all(args: &MediaIsoArgs, base: &Base, builder: &MediaBuilder<'_>) -> Result<(), BuildError> {
    let started = Instant::now();
    let cluster = builder.cluster();
    let nodes: Vec<&Node> = cluster.nodes.iter().collect();
    let changed = base.changed(&arguments(cluster, &nodes))?;
    warn_of_release(base, cluster, &nodes);
    let prepared = builder.prepared();
    let mut all = AllNodes::new(prepared.kickstart_scripts());
    let mut has_secrets = false;
    for of_kind in nodes.chunk_by(|a, b| a.kind == b.kind) {
        let mut renderer = builder.renderer(of_kind[0].kind);
        for node in of_kind {
            let medium = builder.node(node, &mut renderer)?;
            has_secrets |= medium.has_secrets();
            all.add(node, &medium).context("making an ISO for all nodes")?;
        }
    }
    let owner = Owner::Cluster(cluster.name.clone());
    let pick = &prepared.media_scripts().pick;
    let packed = all
        .with_files(cluster, pick, |files| embed::packed_whole(files, None, &owner))
        .context("making an ISO for all nodes")?;
    let (area, area_size) = packed.context("packing the embed area")?;
    let path = args.out.join(all_nodes_name(cluster));
    require_other(base, &path)?;
    let audience = if has_secrets { Audience::Owner } else { Audience::Everybody };
    let size = remaster::size_of(base, area_size);
    whole_file::require_folder(&args.out, size)?;
    write(base, &changed, (&area, area_size), &path, audience)?;
    eprintln!(
        "{}: for {} nodes: {} ({:.2} s)",
        path.display(),
        nodes.len(),
        range::fold(nodes.iter().map(|node| &node.name)),
        started.elapsed().as_secs_f64()
    );
    media::tell_of_secrets(usize::from(has_secrets));
    Ok(())
}

fn write(
    base: &Base,
    changed: &Changed,
    (area, area_size): (&[u8], usize),
    path: &Path,
    audience: Audience,
) -> Result<()> {
    let size = remaster::size_of(base, area_size);
    let progress = Progress::start("writing the ISO", Some(size.bytes()), Unit::Bytes);
    let out = WholeFile::begin(path, audience)?;
    remaster::write(base, changed, (area, area_size), &out, &progress)?;
    progress.finish();
    whole_file::publish(vec![out])
}

/// One ISO for each of the nodes in `range`.
fn for_each(
    args: &MediaIsoArgs,
    base: &Base,
    builder: &MediaBuilder<'_>,
    range: &str,
) -> Result<(), BuildError> {
    let started = Instant::now();
    let cluster = builder.cluster();
    let wanted = load::selection(cluster, Some(range))?;
    let nodes: Vec<&Node> =
        cluster.nodes.iter().filter(|node| wanted.contains(&node.name)).collect();
    // Of all nodes: the next run may ask for others.
    let all: Vec<&Node> = cluster.nodes.iter().collect();
    let changed = base.changed(&arguments(cluster, &all))?;
    warn_of_release(base, cluster, &nodes);
    let names = nodes.iter().map(|node| format!("{}.iso", node.name));
    for name in names.chain([shared_name(cluster).to_owned()]) {
        require_other(base, &args.out.join(name))?;
    }
    let area_size = area_size(builder.shared_size());
    whole_file::require_folder(&args.out, remaster::size_of(base, area_size))?;
    let shared_path = args.out.join(shared_name(cluster));
    let shared = shared(&shared_path, base, &changed, area_size)?;
    let of_copies = shared.size_of_copy(&args.out)?.bytes() * nodes.len() as u64;
    whole_file::require_folder(&args.out, ByteSize::from_bytes(of_copies))?;
    let until_shared = started.elapsed();
    let took = Took { shared: until_shared, ..make_nodes(args, builder, &shared, &nodes)? };
    tell(args, &shared_path, &nodes, &took);
    Ok(())
}

/// Room for the layers and as much again as nodes have of their own, which is little.
fn area_size(shared_size: ByteSize) -> usize {
    let needed = shared_size.bytes() + (2 << 20);
    usize::try_from(needed.next_multiple_of(embed::SIZE.bytes())).expect("layers are far smaller")
}

/// The ISO that all the others are copies of: the one that is there if it was made from the same.
fn shared(path: &Path, base: &Base, changed: &Changed, area_size: usize) -> Result<SharedIso> {
    let kickstart = nobodys_kickstart();
    let files = [(KICKSTART.to_owned(), kickstart.as_bytes())];
    let area =
        embed::packed(&files, None, &Owner::Nobody, area_size).context("packing the embed area")?;
    if !remaster::is_made_of(path, base, changed, &area) {
        write(base, changed, (&area, area_size), path, Audience::Everybody)?;
    }
    SharedIso::open(path)
}

/// How long what took, and what was made.
#[derive(Default)]
struct Took {
    shared: Duration,
    copying: Duration,
    patching: Duration,
    syncing: Duration,
    n_secret: usize,
}

fn make_nodes(
    args: &MediaIsoArgs,
    builder: &MediaBuilder<'_>,
    shared: &SharedIso,
    nodes: &[&Node],
) -> Result<Took, BuildError> {
    let total = shared.size * nodes.len() as u64;
    let progress = Progress::start("writing ISOs", Some(total), Unit::Bytes);
    let scripts = builder.prepared().kickstart_scripts().as_bytes();
    let scripts = gzip::Ready::new(scripts).context("packing the kickstarts' scripts")?;
    let mut took = Took::default();
    for of_kind in nodes.chunk_by(|a, b| a.kind == b.kind) {
        let mut renderer = builder.renderer(of_kind[0].kind);
        for node in of_kind {
            let path = args.out.join(format!("{}.iso", node.name));
            let audience = match builder.has_secrets(node) {
                true => Audience::Owner,
                false => Audience::Everybody,
            };
            took.n_secret += usize::from(audience == Audience::Owner);
            let out = WholeFile::begin(&path, audience)?;
            timed(&mut took.copying, || shared.copy(&out, &progress))?;
            timed(&mut took.patching, || -> Result<(), BuildError> {
                let medium = builder.node(node, &mut renderer)?;
                let owner = Owner::Node(node.name.to_string());
                let area =
                    embed::packed(&medium.files(), Some(&scripts), &owner, shared.area_size())
                        .with_context(|| format!("packing the embed area of {}", node.name))?;
                Ok(shared.patch(&out, &area)?)
            })?;
            timed(&mut took.syncing, || whole_file::publish(vec![out]))?;
        }
    }
    progress.finish();
    Ok(took)
}

fn timed<T>(sum: &mut Duration, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let done = work();
    *sum += started.elapsed();
    done
}

fn tell(args: &MediaIsoArgs, shared: &Path, nodes: &[&Node], took: &Took) {
    let each = |sum: Duration| sum.as_secs_f64() * 1000.0 / nodes.len() as f64;
    eprintln!(
        "{}: ISOs of {}: {} file{}; {:.2} s until there was {}, then for each node {:.1} ms \
         to copy it, {:.1} ms to write what is the node's, {:.1} ms to bring it to disk",
        args.out.display(),
        range::fold(nodes.iter().map(|node| &node.name)),
        nodes.len(),
        if nodes.len() == 1 { "" } else { "s" },
        took.shared.as_secs_f64(),
        shared.file_name().unwrap_or_default().display(),
        each(took.copying),
        each(took.patching),
        each(took.syncing),
    );
    media::tell_of_secrets(took.n_secret);
}

/// The kernel arguments that all of `nodes` want of the installer: a boot configuration is the same
/// for all of them.
fn arguments(cluster: &Cluster, nodes: &[&Node]) -> Vec<String> {
    let consoles: BTreeSet<Option<&str>> =
        nodes.iter().map(|node| cluster.kind_of(node).hw.console.as_deref()).collect();
    let mut arguments = vec!["inst.text".to_owned()];
    match consoles.iter().collect::<Vec<_>>()[..] {
        [Some(console)] => {
            arguments.extend(["console=tty0".to_owned(), format!("console={console}")]);
        }
        [None] | [] => {}
        _ => eprintln!(
            "note: the nodes have different consoles, and all ISOs have one kernel line: the installer \
             shows itself on the screen only"
        ),
    }
    arguments
}

/// The ISO's release is what is installed from; the packages come from the mirror.
pub fn warn_of_release(base: &Base, cluster: &Cluster, nodes: &[&Node]) {
    let Some(release) = &base.release else { return };
    let wanted: BTreeSet<&str> =
        nodes.iter().map(|node| cluster.kind_of(node).os.release.value.as_str()).collect();
    for wanted in wanted.into_iter().filter(|wanted| wanted != release) {
        eprintln!(
            "warning: {} is of release {release}, and nodes are to run {wanted}: the installer of one \
             release may not install another",
            base.iso.path.display()
        );
    }
}
