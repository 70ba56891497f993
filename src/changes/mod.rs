//! What one build has and another has not, said once for all nodes that share it.
//!
//! [`compare()`] holds two [`Side`]s against each other: generations on a disk, or what a cluster
//! file would give. Manifests come first; of nodes whose folders are equal nothing is opened, and
//! of the others one at a time. What archives and kickstarts derive from other files (digests,
//! embedded archives, names of layers) is left out: only what somebody would have changed counts.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::format::digest::Digest;
use crate::manifest::{Folder, Manifest, NodeEntry};
use crate::range::NodeName;
use crate::tree::{FileTree, Mode};

mod compare;
mod kickstart;
mod shouts;
mod text;

pub use compare::compare;

/// What is compared. Any thread may ask.
pub trait Side: Sync {
    fn manifest(&self) -> &Manifest;

    /// The files of a shared layer.
    fn layer(&self, name: &str) -> Result<FileTree>;

    /// The files of a node's own layer.
    fn node(&self, name: &str) -> Result<FileTree>;

    /// A node's kickstart; `None` if it is a secret of somebody else. It may hold secrets.
    fn kickstart(&self, node: &str) -> Result<Option<String>>;

    /// A file of the boot tree that belongs to `node`, or to all; `None` for large ones, which
    /// their digests tell apart.
    fn boot_file(&self, node: Option<&str>, path: &str) -> Result<Option<Vec<u8>>>;

    /// What stands for a node's bundle of secrets.
    fn secret(&self, node: &str) -> Secret;
}

/// A node's bundle of secrets, as far as it can be told from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secret {
    None,
    Bundle(Digest),
    /// They are another user's.
    NotReadable,
}

impl Secret {
    /// Whether the two are known to differ.
    fn differs(self, other: Secret) -> bool {
        self != other && ![self, other].contains(&Secret::NotReadable)
    }
}

/// Whether changed lines are kept, or only counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patches {
    Kept,
    Counted,
}

/// What an installed node needs so that it is as if it were installed anew; see
/// docs/rollout.md, "Changing things".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    Nothing,
    /// Files of its root changed, which could be copied to it.
    Files,
    /// What only an installation does: packages, disks, the release.
    Reinstall,
}

impl Need {
    pub fn as_str(self) -> &'static str {
        match self {
            Need::Nothing => "nothing",
            Need::Files => "files",
            Need::Reinstall => "reinstall",
        }
    }
}

/// Whether something is there on one side only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Added,
    Removed,
    Changed,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            State::Added => "added",
            State::Removed => "removed",
            State::Changed => "changed",
        }
    }
}

/// One thing that changed: a file, or a fact about a node such as its roles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// `/etc/hosts`, `kickstart`, `pxe/boot.ipxe`, `roles client -> client,admin`.
    pub what: String,
    pub state: State,
    pub amount: Amount,
    /// Old and new mode, where they differ.
    pub mode: Option<(Mode, Mode)>,
    pub need: Need,
    /// The lines as `diff -u` shows them, with the nodes whose lines these are.
    pub patch: Option<String>,
}

/// How much of a thing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Amount {
    /// Lines of text.
    Lines { added: u32, removed: u32 },
    /// Not text, too large, or nobody's to see.
    Unseen,
    /// Nothing to count: a mode, a fact.
    Whole,
}

/// Changes that the same nodes have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// In order.
    pub nodes: Vec<String>,
    pub changes: Vec<NodeChange>,
    /// Whether all its nodes are in a group before it as well.
    pub is_also: bool,
}

/// A change of a group's nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeChange {
    pub change: Change,
    /// Whether each node has lines of its own; the patch is the first node's then.
    pub varies: bool,
}

/// What changes in a layer that nodes share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerChange {
    pub name: String,
    /// That have the layer before and after.
    pub nodes: Vec<String>,
    pub changes: Vec<Change>,
}

/// A change that can lose data, or that no file brings to an installed node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shout {
    /// What it is about: `engines[0].targets`, `DAOS`, `kernel arguments`, `release`.
    pub what: String,
    /// Old and new value, as people write them; `None` where each node has its own.
    pub values: Option<(String, String)>,
    pub consequence: String,
    pub nodes: Vec<String>,
}

/// All that differs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub added: Vec<String>,
    pub removed: Vec<String>,
    pub shouts: Vec<Shout>,
    pub layers: Vec<LayerChange>,
    /// Larger groups first.
    pub groups: Vec<Group>,
    /// Of the boot tree, beside what is a node's own.
    pub boot: Vec<Change>,
    /// Of the nodes on both sides, what each needs.
    pub needs: BTreeMap<Need, Vec<String>>,
    /// How many nodes' secrets could not be compared.
    pub unread_secrets: usize,
    /// Whether folders of the store differ, be it only in how the same files are packed.
    pub is_packed_anew: bool,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        let Self { added, removed, shouts, layers, groups, boot, .. } = self;
        let lists = [added.is_empty(), removed.is_empty(), shouts.is_empty(), layers.is_empty()];
        lists.into_iter().all(|it| it) && groups.is_empty() && boot.is_empty()
    }
}

/// What two manifests list differently; no file is opened for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedChanges {
    /// In order, as all lists here.
    pub added: Vec<NodeName>,
    pub removed: Vec<NodeName>,
    /// Nodes with files of their own that differ, and which these are.
    pub changed: Vec<(NodeName, Vec<String>)>,
    /// Shared layers that are new or differ.
    pub layers: Vec<String>,
}

impl ListedChanges {
    pub fn between(old: &Manifest, new: &Manifest) -> Self {
        let mut changes = Self::default();
        for (name, node) in &new.nodes {
            match old.nodes.get(name) {
                None => changes.added.push(NodeName::new(name)),
                Some(before) if before.folder.digest == node.folder.digest => {}
                Some(before) => {
                    let names = before.folder.differing(&node.folder);
                    let names = names.into_iter().map(str::to_owned).collect();
                    changes.changed.push((NodeName::new(name), names));
                }
            }
        }
        let removed = old.nodes.keys().filter(|name| !new.nodes.contains_key(*name));
        changes.removed = removed.map(NodeName::new).collect();
        changes.added.sort();
        changes.removed.sort();
        changes.changed.sort();
        let is_new = |(name, folder): &(&String, &Folder)| old.layers.get(*name) != Some(folder);
        changes.layers = new.layers.iter().filter(is_new).map(|(name, _)| name.clone()).collect();
        changes
    }

    /// How many nodes of `new` changed in anything: files, layers, roles, addresses.
    pub fn n_changed(&self, old: &Manifest, new: &Manifest) -> usize {
        let has_new_layer =
            |node: &NodeEntry| node.layers.iter().any(|it| self.layers.contains(it));
        let is_changed = |(name, node): &(&String, &NodeEntry)| {
            old.nodes.get(*name).is_some_and(|before| before != *node || has_new_layer(node))
        };
        new.nodes.iter().filter(is_changed).count()
    }
}
