//! `nodeforge check`: everything wrong, at once.

use anyhow::Result;

use crate::cli::CheckArgs;
use crate::cluster::Cluster;
use crate::commands::{Outcome, lint, load, report};
use crate::diag::Color;
use crate::secrets::Reach;

pub fn run(args: &CheckArgs, color: Color) -> Result<Outcome> {
    let (mut source, cluster, mut problems) = load::read(&args.cluster)?;
    if let Some(cluster) = &cluster {
        lint::prepare(cluster, &mut source, &mut problems);
        lint::secrets(cluster, Reach::FilesOnly, &mut problems);
        lint::packages(cluster, lint::repositories(&args.repodata)?.as_ref(), &mut problems);
    }
    let problems = load::sorted(problems, cluster.as_ref());
    match args.json {
        true => report::print_json(&problems, &source.map)?,
        false => report::draw(&problems, &source.map, color)?,
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
