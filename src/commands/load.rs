//! What most verbs begin with: read the cluster file, resolve it, pick nodes.

use std::collections::BTreeSet;

use anyhow::{Result, anyhow, bail};

use crate::cli::ClusterArgs;
use crate::cluster::{Cluster, Node};
use crate::commands::report;
use crate::diag::{Color, Diagnostic};
use crate::range::{self, NodeName};
use crate::source::{self, Source};

/// A cluster and all it was read from.
pub struct Loaded {
    pub source: Source,
    pub cluster: Cluster,
    /// Warnings and what is allowed, sorted.
    pub problems: Vec<Diagnostic>,
}

/// Reads and resolves; draws the problems and returns `None` if the file has errors.
pub fn resolved(args: &ClusterArgs, color: Color) -> Result<Option<Loaded>> {
    let (source, cluster, problems) = read(args)?;
    match cluster.filter(|_| !problems.iter().any(Diagnostic::is_error)) {
        Some(cluster) => Ok(Some(Loaded { source, cluster, problems })),
        None => {
            report::draw(&problems, &source.map, color)?;
            eprintln!("{}: {}", args.cluster.display(), report::summary(&problems));
            Ok(None)
        }
    }
}

/// Reads and resolves; a cluster comes back if the file could be understood, even if rules
/// are broken.
pub fn read(args: &ClusterArgs) -> Result<(Source, Option<Cluster>, Vec<Diagnostic>)> {
    let mut source = source::read(&args.cluster, args.site.as_deref())?;
    let mut problems = std::mem::take(&mut source.problems);
    let cluster = Cluster::resolve(&source.doc, &source.map, &mut problems);
    let problems = problems.into_sorted();
    Ok((source, cluster, problems))
}

/// The nodes that `range` names; all without one.
pub fn selection(cluster: &Cluster, range: Option<&str>) -> Result<BTreeSet<NodeName>> {
    let Some(range) = range else {
        return Ok(cluster.nodes.iter().map(|node| node.name.clone()).collect());
    };
    let names =
        range::expand(range).map_err(|fault| anyhow!("`{range}` is no range of nodes: {fault}"))?;
    let unknown: Vec<&NodeName> =
        names.iter().filter(|name| cluster.node(name.as_str()).is_none()).collect();
    if !unknown.is_empty() {
        let known = range::fold(cluster.nodes.iter().map(|node| &node.name));
        bail!("there is no node {}; there are: {known}", range::fold(unknown));
    }
    Ok(names.into_iter().collect())
}

/// The node of that name.
pub fn node<'a>(cluster: &'a Cluster, name: &str) -> Result<&'a Node> {
    cluster.node(name).ok_or_else(|| no_node(cluster, name))
}

/// The error for a node that is not there.
pub fn no_node(cluster: &Cluster, name: &str) -> anyhow::Error {
    let known = range::fold(cluster.nodes.iter().map(|node| &node.name));
    anyhow!("there is no node `{name}`; there are: {known}")
}
