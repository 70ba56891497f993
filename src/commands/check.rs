//! `nodeforge check`: everything wrong, at once.

use anyhow::Result;

use crate::cli::{CheckArgs, ClusterArgs};
use crate::cluster::Cluster;
use crate::commands::{Outcome, lint, load, report};
use crate::diag::{Color, Diagnostic, SourceMap};
use crate::repodata::Repodata;
use crate::secrets::Reach;

/// What `check` finds in a cluster file.
#[derive(Debug)]
pub struct Found {
    pub sources: SourceMap,
    /// `None` if the file could not be understood.
    pub cluster: Option<Cluster>,
    /// In the order of the files.
    pub problems: Vec<Diagnostic>,
}

/// Reads the cluster file and all it names; package names are judged by `repositories`, or
/// by the list that nodeforge brings along.
///
/// # Errors
///
/// Fails if the cluster file itself or the site folder cannot be read.
pub fn find(args: &ClusterArgs, repositories: Option<&Repodata>) -> Result<Found> {
    let (mut source, cluster, mut problems) = load::read(args)?;
    if let Some(cluster) = &cluster {
        lint::prepare(cluster, &mut source, &mut problems);
        lint::secrets(cluster, Reach::FilesOnly, &mut problems);
        lint::packages(cluster, repositories, &mut problems);
        lint::archives(cluster, Reach::FilesOnly, &mut problems);
    }
    let problems = load::sorted(problems, cluster.as_ref());
    Ok(Found { sources: source.map, cluster, problems })
}

pub fn run(args: &CheckArgs, color: Color) -> Result<Outcome> {
    let repositories = lint::repositories(&args.repodata)?;
    let Found { sources, cluster, problems } = find(&args.cluster, repositories.as_ref())?;
    match args.json {
        true => report::print_json(&problems, &sources)?,
        false => report::draw(&problems, &sources, color)?,
    }
    let path = args.cluster.cluster.display();
    match &cluster {
        Some(cluster) => eprintln!("{path}: {}: {}", describe(cluster), report::summary(&problems)),
        None => eprintln!("{path}: {}", report::summary(&problems)),
    }
    Ok(report::outcome(&problems, args.deny))
}

/// `514 nodes (2 admin, 512 server)`.
pub fn describe(cluster: &Cluster) -> String {
    let n_nodes = cluster.nodes.len();
    let roles = cluster.layers.keys().filter(|role| *role != "common");
    let counts: Vec<String> =
        roles.map(|role| format!("{} {role}", cluster.nodes_with_role(role).count())).collect();
    format!("{n_nodes} node{} ({})", if n_nodes == 1 { "" } else { "s" }, counts.join(", "))
}
