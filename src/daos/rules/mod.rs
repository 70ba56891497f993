//! Every rule of DAOS that a cluster file can break, found before a node boots.
//!
//! [`check`] reports all of them, each with DAOS's own code where it has one, at its place
//! in the cluster file. Work is done per kind, not per node, and a problem that several kinds
//! share is reported once with the range of their nodes. What a code means in full stands in
//! [`explain`](crate::daos::explain).

mod cluster;
mod engines;
mod host;
mod pools;
mod storage;
mod variables;

pub use host::{may_oversubscribe, n_cores_needed};

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::Cluster;
use crate::diag::{Code, Diagnostic, Problems, Span, codes};
use crate::range::{self, NodeName};

/// Stands in a message for the nodes it is about.
const NODES: &str = "{nodes}";
/// Stands in a message for "has" or "have", as the number of nodes asks for.
const HAS: &str = "{has}";

/// Checks the whole cluster against the rules of its DAOS version.
pub fn check(cluster: &Cluster, problems: &mut Problems) {
    let mut findings = Findings::new(cluster);
    cluster::check(cluster, &mut findings);
    pools::check(cluster, &mut findings);
    for (at, kind) in cluster.kinds.iter().enumerate() {
        findings.kind = at;
        host::check_any(cluster, kind, &mut findings);
        if kind.is_server() {
            engines::check(cluster, kind, &mut findings);
            host::check_server(cluster, kind, &mut findings);
        }
        if kind.is_client() {
            host::check_client(cluster, kind, &mut findings);
        }
    }
    problems.extend(findings.into_diagnostics());
}

/// The rules that judge the values they point at and nothing else.
const OF_ONE_VALUE: [Code; 23] = [
    codes::BAD_ACCESS_POINTS,
    codes::BAD_CONFIG,
    codes::BAD_PORT,
    codes::BUSID_RANGE,
    codes::DAOS_VERSION,
    codes::DEVICE_PATH,
    codes::ENGINE_VARIABLE,
    codes::EVEN_ACCESS_POINTS,
    codes::FAULT_PATH_DEPTH,
    codes::FRACTIONAL_SIZE,
    codes::IGNORED,
    codes::LOG_LEVEL,
    codes::METADATA_FILESYSTEM,
    codes::MIXED_TIERS,
    codes::NO_RESERVED_RAM,
    codes::PROVIDER,
    codes::SCM_TOO_SMALL,
    codes::SUPPORT_MATRIX,
    codes::SWEPT_PATH,
    codes::SYSTEM_NAME,
    codes::TOO_MANY_HELPERS,
    codes::UNSIGNED_PACKAGES,
    codes::USELESS_VARIABLE,
];

/// Checks what can be checked of a cluster in which values are made up, because the file has
/// errors: rules of single values, where all places a finding names are `values` that are
/// written and that no problem so far is about. What needs a sum or a comparison waits until
/// the rest is right: it would blame the wrong thing.
pub fn check_partly(cluster: &Cluster, values: &BTreeSet<Span>, problems: &mut Problems) {
    let mut found = Problems::default();
    check(cluster, &mut found);
    let blamed: Vec<Span> =
        problems.iter().filter_map(|problem| Some(problem.primary.as_ref()?.span)).collect();
    let overlaps = |a: Span, b: Span| a.source == b.source && a.start < b.end && b.start < a.end;
    let is_sound =
        |span: Span| values.contains(&span) && !blamed.iter().any(|blamed| overlaps(span, *blamed));
    let sound = found.into_sorted().into_iter().filter(|finding| {
        let mut labels = finding.primary.iter().chain(&finding.others);
        OF_ONE_VALUE.contains(&finding.code) && labels.all(|label| is_sound(label.span))
    });
    problems.extend(sound);
}

/// What was found so far, by place and text, with the kinds it holds for.
struct Findings<'a> {
    /// The nodes of each kind.
    names: Vec<Vec<&'a NodeName>>,
    /// The kind being checked.
    kind: usize,
    found: BTreeMap<(Option<Span>, Code, String), Finding>,
}

struct Finding {
    diagnostic: Diagnostic,
    kinds: Vec<usize>,
}

impl<'a> Findings<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        let mut names = vec![Vec::new(); cluster.kinds.len()];
        for node in &cluster.nodes {
            names[node.kind].push(&node.name);
        }
        Self { names, kind: 0, found: BTreeMap::new() }
    }

    /// Takes a problem of the kind being checked; [`NODES`] in its message becomes the nodes
    /// of all kinds that have it.
    fn push(&mut self, diagnostic: Diagnostic) {
        let place = diagnostic.primary.as_ref().map(|label| label.span);
        let key = (place, diagnostic.code, diagnostic.message.clone());
        let kind = self.kind;
        let finding =
            self.found.entry(key).or_insert_with(|| Finding { diagnostic, kinds: Vec::new() });
        if finding.kinds.last() != Some(&kind) {
            finding.kinds.push(kind);
        }
    }

    fn into_diagnostics(self) -> impl Iterator<Item = Diagnostic> {
        let names = self.names;
        self.found.into_values().map(move |Finding { mut diagnostic, kinds }| {
            if diagnostic.message.contains(NODES) {
                let nodes: Vec<&NodeName> =
                    kinds.iter().flat_map(|kind| names[*kind].iter().copied()).collect();
                let has = if nodes.len() == 1 { "has" } else { "have" };
                diagnostic.message =
                    diagnostic.message.replace(HAS, has).replace(NODES, &range::fold(nodes));
            }
            diagnostic
        })
    }
}
