//! What cannot change once the storage is formatted.
//!
//! DAOS's documentation marks these keys; a change needs a new format, which loses the data,
//! so a comparison of two configurations must shout. [`changes`] compares two clusters.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::cluster::{Cluster, Kind, Node};
use crate::daos::config;
use crate::range::NodeName;

/// A key of daos_server.yml that format fixes, and where the cluster file says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImmutableKey {
    /// As in daos_server.yml; `[]` stands for each item.
    pub yaml: &'static str,
    /// As in the cluster file; `None` where nodeforge does not write the key.
    pub cluster: Option<&'static str>,
    /// What a change does.
    pub consequence: &'static str,
}

/// Every such key, in the order of daos_server.yml (`utils/config/daos_server.yml`, "Immutable
/// after running \"dmg storage format\"").
pub const IMMUTABLE: &[ImmutableKey] = &[
    key("name", Some("daos.system_name"), "servers refuse each other, as another system's (603)"),
    key("access_points", Some("daos.access_points"), "a second, empty system may be founded"),
    key("mgmt_svc_replicas", Some("daos.access_points"), "a second, empty system may be founded"),
    key(
        "control_metadata.path",
        Some("daos.control_metadata.path"),
        "superblocks are not found, and the next format wipes the SSDs",
    ),
    key(
        "control_metadata.device",
        None,
        "superblocks are not found, and the next format wipes the SSDs",
    ),
    key(
        "fault_path",
        Some("daos.fault_path"),
        "ranks join with another fault domain than their data was laid out for",
    ),
    key("bdev_exclude", None, "SSDs appear or vanish under formatted engines"),
    key("engines[].targets", Some("engine.targets"), "the engine does not find its targets' data"),
    key(
        "engines[].nr_xs_helpers",
        Some("engine.helpers"),
        "the engine's threads no longer match its layout",
    ),
    key(
        "engines[].first_core",
        Some("engine.first_core"),
        "the engine's threads no longer match its layout",
    ),
    key(
        "engines[].storage[].class",
        Some("engine.scm.class, engine.bdev.class"),
        "the engine does not find its data",
    ),
    key(
        "engines[].storage[].bdev_list",
        Some("engine.bdev.list"),
        "the engine does not find its data, or takes it for another role's",
    ),
    // Not marked there. But a tier's devices hold what its roles said when they were formatted, and
    // nothing moves that: other roles look for it elsewhere, as another bdev_list does.
    key(
        "engines[].storage[].bdev_roles",
        Some("engine.bdev.roles"),
        "the engine looks for logs, metadata or data where they are not",
    ),
];

const fn key(
    yaml: &'static str,
    cluster: Option<&'static str>,
    consequence: &'static str,
) -> ImmutableKey {
    ImmutableKey { yaml, cluster, consequence }
}

/// The entry for a path into daos_server.yml such as `engines[1].storage[2].bdev_list[0]`,
/// if format fixes it or what it is part of.
pub fn find(path: &str) -> Option<&'static ImmutableKey> {
    let path = without_indices(path);
    IMMUTABLE.iter().find(|key| {
        let rest = path.strip_prefix(key.yaml);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    })
}

/// One immutable value that two clusters say differently.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The path into daos_server.yml, such as `engines[0].storage[1].bdev_list`.
    pub what: String,
    pub key: &'static ImmutableKey,
    /// `None` where it is not said, as of an engine that is new.
    pub old: Option<Value>,
    pub new: Option<Value>,
    /// The servers it holds for, in order; those in one of the two clusters only are none.
    pub nodes: Vec<NodeName>,
}

/// What changes, of all that format fixes, on the servers that both clusters have; sorted by
/// path, then by the nodes. A difference of the whole cluster names all its servers.
pub fn changes(old: &Cluster, new: &Cluster) -> Vec<Change> {
    // Nodes of one kind have one file, but for the fault path.
    let mut by_kinds: BTreeMap<(usize, usize), Vec<(&Node, &Node)>> = BTreeMap::new();
    for old_node in old.nodes.iter().filter(|node| old.kind_of(node).is_server()) {
        let Some(new_node) = new.node(old_node.name.as_str()) else { continue };
        if new.kind_of(new_node).is_server() {
            by_kinds.entry((old_node.kind, new_node.kind)).or_default().push((old_node, new_node));
        }
    }
    let mut found: Vec<Change> = Vec::new();
    for ((old_kind, new_kind), pairs) in by_kinds {
        let of_kind =
            between(&values(old, &old.kinds[old_kind]), &values(new, &new.kinds[new_kind]));
        let nodes = || pairs.iter().map(|(node, _)| node.name.clone());
        for difference in of_kind {
            add(&mut found, difference, nodes());
        }
        for (old_node, new_node) in &pairs {
            let path = |node: &Node| {
                let path = node.fault_path.clone().map(Value::from);
                path.map(|path| (String::from("fault_path"), path)).into_iter().collect()
            };
            for difference in between(&path(old_node), &path(new_node)) {
                add(&mut found, difference, std::iter::once(old_node.name.clone()));
            }
        }
    }
    for change in &mut found {
        change.nodes.sort();
    }
    found.sort_by(|a, b| (&a.what, &a.nodes).cmp(&(&b.what, &b.nodes)));
    found
}

/// The immutable values of a file by their paths.
type Values = BTreeMap<String, Value>;

/// A path and its two values.
type Difference = (String, Option<Value>, Option<Value>);

fn add(found: &mut Vec<Change>, difference: Difference, nodes: impl Iterator<Item = NodeName>) {
    let (what, old, new) = difference;
    let same = |change: &&mut Change| change.what == what && change.old == old && change.new == new;
    if let Some(change) = found.iter_mut().find(same) {
        change.nodes.extend(nodes);
        return;
    }
    let key = find(&what).expect("only immutable values are compared");
    found.push(Change { what, key, old, new, nodes: nodes.collect() });
}

fn between(old: &Values, new: &Values) -> Vec<Difference> {
    let paths = old.keys().chain(new.keys().filter(|path| !old.contains_key(*path)));
    paths
        .filter(|path| old.get(*path) != new.get(*path))
        .map(|path| (path.clone(), old.get(path).cloned(), new.get(path).cloned()))
        .collect()
}

/// What daos_server.yml of a kind says under the keys of [`IMMUTABLE`].
fn values(cluster: &Cluster, kind: &Kind) -> Values {
    let file = serde_json::to_value(config::kind_config(cluster, kind))
        .expect("texts, numbers and lists are JSON");
    let mut values = Values::new();
    for key in IMMUTABLE {
        let steps: Vec<&str> = key.yaml.split('.').collect();
        collect(&file, &steps, String::new(), &mut values);
    }
    // Only the name of the list changed with 2.8.
    if let Some(replicas) = values.remove("mgmt_svc_replicas") {
        values.insert("access_points".to_owned(), replicas);
    }
    values
}

fn collect(value: &Value, steps: &[&str], path: String, values: &mut Values) {
    let Some((step, rest)) = steps.split_first() else {
        values.insert(path, value.clone());
        return;
    };
    let dot = if path.is_empty() { "" } else { "." };
    let (name, is_list) = match step.strip_suffix("[]") {
        Some(name) => (name, true),
        None => (*step, false),
    };
    let Some(inner) = value.get(name) else { return };
    let path = format!("{path}{dot}{name}");
    match inner.as_array().filter(|_| is_list) {
        Some(items) => {
            for (at, item) in items.iter().enumerate() {
                collect(item, rest, format!("{path}[{at}]"), values);
            }
        }
        None => collect(inner, rest, path, values),
    }
}

/// `engines[1].targets` as `engines[].targets`.
fn without_indices(path: &str) -> String {
    let mut is_index = false;
    path.chars()
        .filter(|c| {
            match c {
                '[' => is_index = true,
                ']' => is_index = false,
                _ => return !is_index,
            }
            true
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_into_the_file_find_what_format_fixes() {
        for (path, found) in [
            ("name", Some("name")),
            ("access_points[2]", Some("access_points")),
            ("engines[1].targets", Some("engines[].targets")),
            ("engines[0].storage[2].bdev_list[11]", Some("engines[].storage[].bdev_list")),
            ("engines[0].storage[0].scm_size", None),
            ("engines[0].targets_more", None),
            ("control_log_mask", None),
        ] {
            assert_eq!(find(path).map(|key| key.yaml), found, "of {path}");
        }
    }
}
