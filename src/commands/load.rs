//! What most verbs begin with: read the cluster file, resolve it, pick nodes.

use std::collections::BTreeSet;

use anyhow::{Result, anyhow, bail};

use crate::cli::ClusterArgs;
use crate::cluster::{Cluster, Node, Resolved};
use crate::commands::report;
use crate::daos;
use crate::diag::{Color, Diagnostic, Problems};
use crate::range::{self, NodeName};
use crate::source::{self, Source};

/// A cluster and all it was read from.
pub struct Loaded {
    pub source: Source,
    pub cluster: Cluster,
}

/// Reads and resolves; draws the problems and returns `None` if the file has errors.
pub fn resolved(args: &ClusterArgs, color: Color) -> Result<Option<Loaded>> {
    let (source, cluster, problems) = read(args)?;
    let problems = sorted(problems, cluster.as_ref());
    match cluster.filter(|_| !problems.iter().any(Diagnostic::is_error)) {
        Some(cluster) => Ok(Some(Loaded { source, cluster })),
        None => {
            report::draw(&problems, &source.map, color)?;
            eprintln!("{}: {}", args.cluster.display(), report::summary(&problems));
            Ok(None)
        }
    }
}

/// Reads and resolves; a cluster comes back if the file could be understood, even if rules
/// are broken.
pub fn read(args: &ClusterArgs) -> Result<(Source, Option<Cluster>, Problems)> {
    let mut source = source::read(&args.cluster, args.site.as_deref())?;
    let mut problems = std::mem::take(&mut source.problems);
    let cluster = match Cluster::resolve_as_far(&source.doc, &source.map, &mut problems) {
        Resolved::Whole(cluster) => {
            daos::rules::check(&cluster, &mut problems);
            Some(*cluster)
        }
        Resolved::Partly(cluster) => {
            daos::rules::check_partly(&cluster, &source.doc.values(), &mut problems);
            None
        }
        Resolved::Nothing => None,
    };
    Ok((source, cluster, problems))
}

/// All problems in order, those that the cluster file allows marked as such.
pub fn sorted(mut problems: Problems, cluster: Option<&Cluster>) -> Vec<Diagnostic> {
    if let Some(cluster) = cluster {
        problems.allow(cluster.allow.iter().map(|code| (code.value.as_str(), code.span)));
    }
    problems.into_sorted()
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
