//! `nodeforge media oemdrv` and `seed`: a small volume a node.

use std::time::Instant;

use anyhow::{Context, Result};
use rayon::prelude::*;

use crate::build::BuildError;
use crate::build::media::MediaBuilder;
use crate::cli::MediaVolumesArgs;
use crate::cluster::Node;
use crate::commands::{Outcome, load, media};
use crate::diag::Color;
use crate::media::node::{self, NodeMedium, OEMDRV};
use crate::media::seed;
use crate::output::whole_file::{self, Audience, WholeFile};
use crate::progress::{Progress, Unit};
use crate::range;
use crate::units::ByteSize;

/// How many volumes are on their way at once: each is an open file, and all of them go to disk
/// together.
const BATCH: usize = 256;
/// As many nodes as a thread renders one after another.
const GROUP: usize = 32;
/// About what a volume takes on disk.
const USUAL_SIZE: ByteSize = ByteSize::from_bytes(256 << 10);

pub fn oemdrv(args: &MediaVolumesArgs, color: Color) -> Result<Outcome> {
    make(args, color, "oemdrv", &|_, _, medium| {
        node::volume(OEMDRV, &medium.files()).context("laying out the volume")
    })
}

pub fn seed(args: &MediaVolumesArgs, color: Color) -> Result<Outcome> {
    make(args, color, "seed", &|builder, node, medium| {
        let script = &builder.prepared().media_scripts().seed;
        let files = seed::files(builder.cluster(), node, medium, script)?;
        node::volume(seed::LABEL, &files).context("laying out the volume")
    })
}

/// Makes the bytes of a node's volume.
type MakeVolume<'v> =
    &'v (dyn Fn(&MediaBuilder<'_>, &Node, &NodeMedium<'_>) -> Result<Vec<u8>> + Sync);

fn make(
    args: &MediaVolumesArgs,
    color: Color,
    what: &str,
    volume: MakeVolume<'_>,
) -> Result<Outcome> {
    let started = Instant::now();
    media::with_builder(&args.cluster, color, |builder| {
        let cluster = builder.cluster();
        let wanted = load::selection(cluster, Some(&args.nodes))?;
        let nodes: Vec<&Node> =
            cluster.nodes.iter().filter(|node| wanted.contains(&node.name)).collect();
        let size = ByteSize::from_bytes(USUAL_SIZE.bytes() * nodes.len() as u64);
        whole_file::require_folder(&args.out, size)?;
        let progress = Progress::start("making volumes", Some(nodes.len() as u64), Unit::Nodes);
        let mut size = ByteSize::default();
        let mut n_secret = 0;
        for batch in nodes.chunks(BATCH) {
            let made = batch
                .par_chunks(GROUP)
                .map(|group| make_group(args, what, builder, group, volume, &progress))
                .collect::<Result<Vec<_>, BuildError>>()?;
            let mut files = Vec::new();
            for (file, n_bytes, audience) in made.into_iter().flatten() {
                size = size + ByteSize::from_bytes(n_bytes);
                n_secret += usize::from(audience == Audience::Owner);
                files.push(file);
            }
            whole_file::publish(files)?;
        }
        progress.finish();
        eprintln!(
            "{}: {what} of {}: {} volume{}, {:.1} MiB ({:.2} s)",
            args.out.display(),
            range::fold(nodes.iter().map(|node| &node.name)),
            nodes.len(),
            if nodes.len() == 1 { "" } else { "s" },
            size.bytes() as f64 / f64::from(1 << 20),
            started.elapsed().as_secs_f64(),
        );
        media::tell_of_secrets(n_secret);
        Ok(())
    })
}

type Made = (WholeFile, u64, Audience);

fn make_group(
    args: &MediaVolumesArgs,
    what: &str,
    builder: &MediaBuilder<'_>,
    nodes: &[&Node],
    volume: MakeVolume<'_>,
    progress: &Progress,
) -> Result<Vec<Made>, BuildError> {
    let mut made = Vec::with_capacity(nodes.len());
    for of_kind in nodes.chunk_by(|a, b| a.kind == b.kind) {
        let mut renderer = builder.renderer(of_kind[0].kind);
        for node in of_kind {
            let medium = builder.node(node, &mut renderer)?;
            let audience = media::audience(&medium);
            let bytes = volume(builder, node, &medium)
                .with_context(|| format!("making the medium of {}", node.name))?;
            let path = args.out.join(format!("{}.{what}.img", node.name));
            let file = WholeFile::with_contents(&path, audience, &bytes)?;
            made.push((file, bytes.len() as u64, audience));
            progress.advance(1);
        }
    }
    Ok(made)
}
