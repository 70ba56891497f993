//! How far the cluster is, as it is told: the shapes of the JSON interface.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::manifest::NodeEntry;
use crate::range::NodeName;
use crate::serve::catalog::Catalog;
use crate::serve::machine::{Record, State, Time};
use crate::serve::store::Entry;

/// `GET /api/v1/cluster`.
#[derive(Debug, Serialize)]
pub struct ClusterStatus {
    pub name: String,
    /// Of `out/current`.
    pub generation: u64,
    pub n_nodes: u64,
    /// By state; every state is there.
    pub counts: BTreeMap<&'static str, u64>,
    /// Nodes by rack, in the order people count; those without one under an empty name.
    pub racks: BTreeMap<String, Vec<String>>,
}

/// One node as the list shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Row<'a> {
    pub name: &'a str,
    /// Joined by commas.
    pub role: String,
    pub rack: Option<&'a str>,
    pub mac: Option<&'a str>,
    pub state: State,
    /// When it came into that state, in seconds since the Unix epoch; null of a node that
    /// nobody has heard of.
    pub since: Option<Time>,
    /// Why it failed.
    pub reason: Option<String>,
    /// What it was at when it was last heard of.
    pub step: String,
}

/// `GET /api/v1/nodes/NAME`.
#[derive(Debug, Serialize)]
pub struct NodeStatus<'a> {
    #[serde(flatten)]
    pub row: Row<'a>,
    pub address: Option<String>,
    pub grant: Option<GrantStatus>,
    /// Oldest first.
    pub timeline: Vec<Entry>,
    /// The end of the log of the last failure.
    pub log: Vec<String>,
}

/// A grant as anyone may see it.
#[derive(Debug, Serialize)]
pub struct GrantStatus {
    pub id: u64,
    pub expires: Time,
    pub attempts: u32,
    pub wipe_daos: bool,
}

impl ClusterStatus {
    pub fn of(catalog: &Catalog, record: impl Fn(&str) -> Arc<Record>) -> Self {
        let manifest = catalog.manifest();
        let mut counts: BTreeMap<&'static str, u64> =
            State::ALL.iter().map(|state| (state.word(), 0)).collect();
        let mut racks: BTreeMap<String, Vec<NodeName>> = BTreeMap::new();
        for (name, node) in &manifest.nodes {
            *counts.entry(record(name).state.word()).or_default() += 1;
            let rack = node.boot.as_ref().and_then(|boot| boot.rack.clone()).unwrap_or_default();
            racks.entry(rack).or_default().push(NodeName::new(name));
        }
        let in_order = |(rack, mut nodes): (String, Vec<NodeName>)| {
            nodes.sort();
            (rack, nodes.iter().map(ToString::to_string).collect())
        };
        Self {
            name: manifest.cluster.clone(),
            generation: catalog.number(),
            n_nodes: manifest.nodes.len() as u64,
            counts,
            racks: racks.into_iter().map(in_order).collect(),
        }
    }
}

/// All nodes, in the order people count.
pub fn rows(catalog: &Catalog, record: impl Fn(&str) -> Arc<Record>) -> Vec<Row<'_>> {
    let nodes = &catalog.manifest().nodes;
    let mut rows: Vec<Row<'_>> =
        nodes.iter().map(|(name, node)| row(name, node, &record(name))).collect();
    rows.sort_by_cached_key(|row| NodeName::new(row.name));
    rows
}

/// One node.
pub fn row<'a>(name: &'a str, node: &'a NodeEntry, record: &Record) -> Row<'a> {
    Row {
        name,
        role: node.roles.join(","),
        rack: node.boot.as_ref().and_then(|boot| boot.rack.as_deref()),
        mac: node.macs.first().map(String::as_str),
        state: record.state,
        since: (record.since > 0).then_some(record.since),
        reason: record.reason.clone(),
        step: record.step.clone(),
    }
}

impl<'a> NodeStatus<'a> {
    pub fn of(name: &'a str, node: &'a NodeEntry, record: &Record, timeline: Vec<Entry>) -> Self {
        let grant = record.grant.as_ref().map(|grant| GrantStatus {
            id: grant.id,
            expires: grant.ends(),
            attempts: grant.attempts,
            wipe_daos: grant.wipe_daos,
        });
        Self {
            row: row(name, node, record),
            address: node.boot.as_ref().and_then(|boot| boot.address).map(|it| it.to_string()),
            grant,
            log: log_of(&timeline),
            timeline,
        }
    }
}

/// The log of the last failure in a timeline.
pub fn log_of(timeline: &[Entry]) -> Vec<String> {
    let with_log = timeline.iter().rev().find(|entry| !entry.log.is_empty());
    with_log.map_or_else(Vec::new, |entry| entry.log.clone())
}
