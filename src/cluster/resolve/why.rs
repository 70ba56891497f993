//! Which line set a value, and what it overrode.

use std::collections::BTreeSet;

use crate::cluster::doc::ClusterDoc;
use crate::cluster::merge::{Layer, Merged, MergedTable};
use crate::cluster::resolve::reader::Reader;
use crate::cluster::resolve::{Resolver, whole_layers};
use crate::cluster::schema::{CLUSTER_FILE, NODE_KEYS};
use crate::diag::{SourceMap, Span};
use crate::range::NodeName;
use crate::toml_doc::{Key, Shape, did_you_mean};

/// The history of one value of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// As it would be written in TOML.
    pub value: String,
    /// Who said something of it, the lowest standing first; empty for a default.
    pub said: Vec<Said>,
    pub rule: Rule,
    /// What the key means.
    pub doc: &'static str,
}

/// How several layers' words make one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The last one replaces the others.
    Replace,
    /// They add up to a set.
    Add,
}

/// One layer's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The layer, such as `[os]` or `profile server`.
    pub by: String,
    pub span: Span,
    pub value: String,
}

/// Why a key cannot be explained.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WhyError {
    #[error("there is no node `{0}`")]
    NoNode(String),
    #[error("the node `{0}` has no hw or roles")]
    Incomplete(String),
    #[error("there is no key `{key}`{}", .similar.as_ref().map(|similar| format!("; did you mean `{similar}`?")).unwrap_or_default())]
    NoKey { key: String, similar: Option<String> },
    #[error("`{key}` is a table; ask for one of: {}", .within.join(", "))]
    Table { key: String, within: Vec<String> },
}

/// Explains `key` (`os.selinux`, `nic.mgmt.ip`, `daos.port`, …) of `node`.
///
/// # Errors
///
/// See [`WhyError`].
pub fn why(
    doc: &ClusterDoc,
    sources: &SourceMap,
    node: &NodeName,
    key: &str,
) -> Result<Why, WhyError> {
    let mut reader = Reader::default();
    let resolver = Resolver::new(doc, sources, &mut reader);
    let blocks = resolver.blocks_of.get(node).ok_or_else(|| WhyError::NoNode(node.to_string()))?;
    let first = key.split('.').next().unwrap_or_default();
    let is_of_the_cluster = CLUSTER_FILE.iter().any(|known| known.name == first)
        && !matches!(first, "os" | "hw" | "role" | "node" | "vars");
    if is_of_the_cluster {
        return explain(&resolver.whole, &whole_layers(doc), CLUSTER_FILE, key);
    }
    let path =
        ["os.", "hw.", "role."].iter().find_map(|prefix| key.strip_prefix(prefix)).unwrap_or(key);
    let Some((hw, roles)) = resolver.hw_and_roles(&mut reader, blocks) else {
        return Err(WhyError::Incomplete(node.to_string()));
    };
    let merge = resolver.merge(&mut reader, blocks, &hw, &roles);
    explain(&merge.table, &merge.layers, NODE_KEYS, path)
}

fn explain(
    table: &MergedTable<'_>,
    layers: &[Layer<'_>],
    keys: &[Key],
    path: &str,
) -> Result<Why, WhyError> {
    let found = table.find(path);
    let key = find_key(keys, path);
    let said = |item: &crate::toml_doc::Item, layer: usize| Said {
        by: layers[layer].name.clone(),
        span: item.span,
        value: item.display(),
    };
    let doc = key.map_or("", |key| key.doc);
    match found {
        Some(Merged::Value(chosen)) => {
            let mut history: Vec<Said> =
                chosen.overridden.iter().map(|(item, layer)| said(item, *layer)).collect();
            history.push(said(chosen.item, chosen.layer));
            Ok(Why { value: chosen.item.display(), said: history, rule: Rule::Replace, doc })
        }
        Some(Merged::Set(set)) => {
            let members: Vec<String> =
                set.members.keys().map(|member| format!("\"{member}\"")).collect();
            let history = set.said.iter().map(|(item, layer)| said(item, *layer)).collect();
            Ok(Why {
                value: format!("[{}]", members.join(", ")),
                said: history,
                rule: Rule::Add,
                doc,
            })
        }
        Some(Merged::Table(inner)) => Err(WhyError::Table {
            key: path.to_owned(),
            within: inner.keys.keys().map(|name| format!("{path}.{name}")).collect(),
        }),
        None => match key {
            Some(Key { shape: Shape::Table(within), .. }) => Err(WhyError::Table {
                key: path.to_owned(),
                within: within.iter().map(|key| format!("{path}.{}", key.name)).collect(),
            }),
            Some(Key { shape: Shape::Map(_), .. }) | None => Err(no_key(table, keys, path)),
            Some(key) => Ok(Why {
                value: default_of(key),
                said: Vec::new(),
                rule: Rule::Replace,
                doc: key.doc,
            }),
        },
    }
}

/// The default as it would be written in TOML, where it is one value and no rule.
fn default_of(key: &Key) -> String {
    let is_word = !key.default.contains([' ', ',']);
    match key.shape {
        _ if key.default.is_empty() => "not set".to_owned(),
        Shape::Text | Shape::OneOf(_) | Shape::Size | Shape::SizeOrAuto if is_word => {
            format!("\"{}\"", key.default)
        }
        _ => key.default.to_owned(),
    }
}

/// The schema's entry of a path; names of maps are passed over.
fn find_key<'k>(keys: &'k [Key], path: &str) -> Option<&'k Key> {
    let (first, rest) = match path.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (path, None),
    };
    let key = keys.iter().find(|key| key.name == first)?;
    let Some(rest) = rest else { return Some(key) };
    match key.shape {
        Shape::Table(keys) => find_key(keys, rest),
        Shape::Map(Shape::Table(keys)) => find_key(keys, rest.split_once('.')?.1),
        // A name of the user's choice, such as `nvme.numa0`.
        Shape::Map(_) if !rest.contains('.') => Some(key),
        _ => None,
    }
}

fn no_key(table: &MergedTable<'_>, keys: &[Key], path: &str) -> WhyError {
    let mut known: BTreeSet<String> = keys.iter().map(|key| key.name.to_owned()).collect();
    collect_paths("", table, &mut known);
    let similar = did_you_mean(path, known.iter().map(String::as_str)).map(str::to_owned);
    WhyError::NoKey { key: path.to_owned(), similar }
}

fn collect_paths(prefix: &str, table: &MergedTable<'_>, paths: &mut BTreeSet<String>) {
    for (name, merged) in &table.keys {
        let path = if prefix.is_empty() { (*name).to_owned() } else { format!("{prefix}.{name}") };
        if let Merged::Table(inner) = merged {
            collect_paths(&path, inner, paths);
        }
        paths.insert(path);
    }
}
