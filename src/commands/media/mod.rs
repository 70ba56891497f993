//! `nodeforge media`: what machines without network boot are installed from.

pub mod iso;
mod verify;
mod volumes;

use anyhow::Result;

use crate::build::BuildError;
use crate::build::media::{MediaBuilder, from_media};
use crate::cli::{ClusterArgs, MediaVerb};
use crate::commands::{Outcome, lint, load, report};
use crate::diag::{Color, Diagnostic, SourceMap};
use crate::media::node::NodeMedium;
use crate::output::whole_file::Audience;
use crate::secrets::Reach;

pub fn run(verb: &MediaVerb, color: Color) -> Result<Outcome> {
    match verb {
        MediaVerb::Oemdrv(args) => volumes::oemdrv(args, color),
        MediaVerb::Seed(args) => volumes::seed(args, color),
        MediaVerb::Iso(args) => iso::run(args, color),
        MediaVerb::Verify(args) => verify::run(args),
    }
}

/// Who may read a medium of the node.
pub fn audience(medium: &NodeMedium<'_>) -> Audience {
    match medium.has_secrets() {
        true => Audience::Owner,
        false => Audience::Everybody,
    }
}

/// Says how many of the media hold secrets.
pub fn tell_of_secrets(n_secret: usize) {
    match n_secret {
        0 => {}
        1 => eprintln!("note: it holds the node's secrets: keep it like a password"),
        n => eprintln!("note: {n} of them hold their nodes' secrets: keep them like passwords"),
    }
}

/// Reads the cluster, and has `make` make something of what its nodes get from media.
pub fn with_builder(
    args: &ClusterArgs,
    color: Color,
    make: impl FnOnce(&MediaBuilder<'_>) -> Result<(), BuildError>,
) -> Result<Outcome> {
    let (mut source, cluster, mut problems) = load::read(args)?;
    let made = match cluster {
        None => None,
        Some(mut cluster) => {
            from_media(&mut cluster);
            let secrets = lint::secrets(&cluster, Reach::Everything, &mut problems);
            lint::packages(&cluster, None, &mut problems);
            let prepared = lint::prepare(&cluster, &mut source, &mut problems);
            let found = load::sorted(std::mem::take(&mut problems), Some(&cluster));
            report::draw(&found, &source.map, color)?;
            match (prepared, report::outcome(&found, None)) {
                (Some(prepared), Outcome::Done) => {
                    Some(MediaBuilder::new(&prepared, &cluster, &secrets).and_then(|it| make(&it)))
                }
                _ => return refused(args, &found),
            }
        }
    };
    match made {
        None => failed(args, &problems.into_sorted(), &source.map, color),
        Some(Ok(())) => Ok(Outcome::Done),
        Some(Err(fault)) => failed(args, &fault.into_problems()?, &source.map, color),
    }
}

fn failed(
    args: &ClusterArgs,
    problems: &[Diagnostic],
    sources: &SourceMap,
    color: Color,
) -> Result<Outcome> {
    report::draw(problems, sources, color)?;
    refused(args, problems)
}

fn refused(args: &ClusterArgs, problems: &[Diagnostic]) -> Result<Outcome> {
    let summary = report::summary(problems);
    eprintln!("{}: {summary}; nothing was made", args.cluster.display());
    Ok(Outcome::Problems)
}
