//! Holding two sides against each other.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::sync::Mutex;

use anyhow::{Context, Result};
use rayon::prelude::*;

use crate::changes::kickstart::{View, brings_layers, is_kind_layer, need_of, view};
use crate::changes::shouts::{self, Cry};
use crate::changes::text::{Difference, Identity};
use crate::changes::{
    Amount, Change, Changes, Group, LayerChange, ListedChanges, Need, NodeChange, Patches, Secret,
    Shout, Side, State,
};
use crate::format::digest::Digest;
use crate::manifest::{Manifest, NodeEntry};
use crate::media::boot_tree;
use crate::net::MacAddr;
use crate::plan;
use crate::range::NodeName;
use crate::tree::{Entry, FileTree, Mode, TreePath};

/// Beyond so many variants of one change, those of single nodes are told together.
const MAX_VARIANTS: usize = 4;

/// All that `new` has otherwise than `old`.
///
/// # Errors
///
/// Fails if a file cannot be read, or is not what its manifest says.
pub fn compare(old: &dyn Side, new: &dyn Side, patches: Patches) -> Result<Changes> {
    let (before, after) = (old.manifest(), new.manifest());
    let listed = ListedChanges::between(before, after);
    let names = |nodes: Vec<NodeName>| nodes.iter().map(ToString::to_string).collect();
    let nodes = sorted(before.nodes.keys().filter(|name| after.nodes.contains_key(*name)).cloned());
    let comparison = Comparison {
        old,
        new,
        patches,
        boot: before.pxe.folder.differing(&after.pxe.folder),
        collected: Mutex::new(Collected {
            needs: vec![Need::Nothing; nodes.len()],
            ..Collected::default()
        }),
        nodes,
    };
    let layers = comparison.layers()?;
    comparison.own()?;
    let boot = comparison.shared_boot_files()?;
    let Comparison { nodes, collected, .. } = comparison;
    let collected = collected.into_inner().expect("no holder of the lock panics");
    let mut changes = Changes {
        added: names(listed.added),
        removed: names(listed.removed),
        layers,
        boot,
        unread_secrets: collected.unread_secrets,
        is_packed_anew: !digests(before).eq(digests(after)),
        ..Changes::default()
    };
    changes.shouts = shouts_of(collected.cries, &nodes);
    changes.groups = groups_of(collected.variants, &nodes);
    for (at, need) in collected.needs.into_iter().enumerate() {
        changes.needs.entry(need).or_default().push(nodes[at].clone());
    }
    Ok(changes)
}

/// Of all folders of a build.
fn digests(manifest: &Manifest) -> impl Iterator<Item = (String, Digest)> {
    manifest.folders().map(|(place, folder)| (place, folder.digest))
}

/// As people count: `node2` before `node10`.
fn sorted(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut names: Vec<NodeName> = names.map(NodeName::new).collect();
    names.sort();
    names.into_iter().map(|name| name.as_str().to_owned()).collect()
}

struct Comparison<'s> {
    old: &'s dyn Side,
    new: &'s dyn Side,
    patches: Patches,
    /// Those on both sides, in order; elsewhere known by their place here.
    nodes: Vec<String>,
    /// Of the boot tree, the paths that differ.
    boot: BTreeSet<&'s str>,
    collected: Mutex<Collected>,
}

/// What was found of nodes, by any thread in any order.
#[derive(Default)]
struct Collected {
    variants: Variants,
    cries: BTreeMap<Cry, Vec<usize>>,
    needs: Vec<Need>,
    unread_secrets: usize,
}

/// Changes that are equal line by line, or but for what the nodes are called.
#[derive(Default)]
struct Variants {
    /// `None` where one became part of another.
    all: Vec<Option<Variant>>,
    /// Of each in `all` itself, or the one it became part of.
    parents: Vec<usize>,
    by_lines: BTreeMap<(Shape, Option<Digest>), usize>,
}

/// What can be said of a change without its lines.
type Shape = (String, State, Amount, Option<(Mode, Mode)>);

struct Variant {
    change: Change,
    /// The first node, whose lines are those of `change`.
    first: usize,
    nodes: Vec<usize>,
}

impl Variants {
    fn add(&mut self, at: usize, change: Change, lines: &[Option<Digest>]) {
        let shape = (change.what.clone(), change.state, change.amount, change.mode);
        let mut place = self.all.len();
        self.all.push(Some(Variant { change, first: at, nodes: vec![at] }));
        self.parents.push(place);
        for lines in lines {
            let known = self.by_lines.entry((shape.clone(), *lines)).or_insert(place);
            let known = *known;
            place = self.join(place, known);
        }
    }

    /// Makes one of two, the smaller part of the larger, and returns where it is.
    fn join(&mut self, a: usize, b: usize) -> usize {
        let (a, b) = (self.root(a), self.root(b));
        if a == b {
            return a;
        }
        let size = |at: usize| self.all[at].as_ref().map_or(0, |variant| variant.nodes.len());
        let (into, from) = if size(a) > size(b) { (a, b) } else { (b, a) };
        let part = self.all[from].take().expect("a root has a variant");
        let whole = self.all[into].as_mut().expect("a root has a variant");
        if part.first < whole.first {
            (whole.first, whole.change) = (part.first, part.change);
        }
        whole.nodes.extend(part.nodes);
        self.parents[from] = into;
        into
    }

    fn root(&mut self, mut at: usize) -> usize {
        while self.parents[at] != at {
            self.parents[at] = self.parents[self.parents[at]];
            at = self.parents[at];
        }
        at
    }
}

/// A change that was just found.
struct Found {
    change: Change,
    /// Of the changed lines, and of them without the node's own names; none where there are no
    /// lines.
    lines: [Option<Digest>; 2],
    cries: Vec<Cry>,
}

/// A file as far as it can be compared; `old` and `new` are `None` where it is not there.
struct Pair<'t> {
    what: String,
    old: Option<Content<'t>>,
    new: Option<Content<'t>>,
}

#[derive(Clone, Copy)]
enum Content<'t> {
    Text(&'t str),
    Unseen,
}

impl<'t> Content<'t> {
    fn of(bytes: &'t [u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => Content::Text(text),
            _ => Content::Unseen,
        }
    }
}

impl Comparison<'_> {
    /// The layers of all and of roles that changed; a kind's layer counts as its nodes' own.
    fn layers(&self) -> Result<Vec<LayerChange>> {
        let (before, after) = (self.old.manifest(), self.new.manifest());
        let mut changes = Vec::new();
        for (name, folder) in &before.layers {
            let other = after.layers.get(name);
            if is_kind_layer(name) || other.is_none_or(|other| other.digest == folder.digest) {
                continue;
            }
            let has_it = |manifest: &Manifest, node: &String| {
                manifest.nodes[node].layers.iter().any(|layer| layer == name)
            };
            let with_it = |at: &usize| {
                let node = &self.nodes[*at];
                has_it(before, node) && has_it(after, node)
            };
            let mut nodes: Vec<usize> = (0..self.nodes.len()).filter(with_it).collect();
            self.leave_out_old_inside(&mut nodes)?;
            if nodes.is_empty() {
                continue;
            }
            let (old, new) = (self.old.layer(name)?, self.new.layer(name)?);
            let none = FileTree::default();
            let found = self.tree_changes(&Trees {
                old: [&old, &none],
                new: [&new, &none],
                paths: differing_paths(&old, &new),
                identities: &<[Identity; 2]>::default(),
            });
            if found.is_empty() {
                continue; // Packed otherwise.
            }
            let mut collected = self.collected();
            for at in &nodes {
                for found in &found {
                    collected.note_needs(*at, found);
                }
            }
            changes.push(LayerChange {
                name: name.clone(),
                nodes: nodes.into_iter().map(|at| self.nodes[at].clone()).collect(),
                changes: found.into_iter().map(|found| found.change).collect(),
            });
        }
        Ok(changes)
    }

    /// Of nodes that have a new layer, leaves out those that were not built with it, where layers
    /// are inside what is the node's own: that is as it was.
    fn leave_out_old_inside(&self, nodes: &mut Vec<usize>) -> Result<()> {
        let (before, after) = (self.old.manifest(), self.new.manifest());
        let is_as_it_was = |at: &usize| {
            let (before, after) = (&before.nodes[&self.nodes[*at]], &after.nodes[&self.nodes[*at]]);
            let has_kickstart = after.folder.files.contains_key(plan::KICKSTART);
            has_kickstart && before.folder.digest == after.folder.digest
        };
        // How layers travel is the cluster's to say: one node tells for all.
        let Some(one) = nodes.iter().copied().find(is_as_it_was) else { return Ok(()) };
        let kickstart = self.new.kickstart(&self.nodes[one])?;
        if kickstart.is_some_and(|text| brings_layers(&text)) {
            nodes.retain(|at| !is_as_it_was(at));
        }
        Ok(())
    }

    /// What changed of the nodes' own, kind by kind, so that only two kinds' layers are in
    /// memory at a time, and the files of one node a thread.
    fn own(&self) -> Result<()> {
        let (before, after) = (self.old.manifest(), self.new.manifest());
        let kind_layer =
            |node: &NodeEntry| node.layers.iter().find(|it| is_kind_layer(it)).cloned();
        let mut by_kinds: BTreeMap<(Option<String>, Option<String>), Vec<usize>> = BTreeMap::new();
        for at in 0..self.nodes.len() {
            if self.is_suspect(at) {
                let name = &self.nodes[at];
                let kinds = (kind_layer(&before.nodes[name]), kind_layer(&after.nodes[name]));
                by_kinds.entry(kinds).or_default().push(at);
            }
        }
        for ((old, new), nodes) in by_kinds {
            let tree = |side: &dyn Side, layer: Option<String>| {
                layer.map_or_else(|| Ok(FileTree::default()), |layer| side.layer(&layer))
            };
            let (old, new) = (tree(self.old, old)?, tree(self.new, new)?);
            let paths = differing_paths(&old, &new);
            nodes.into_par_iter().try_for_each(|at| {
                let name = &self.nodes[at];
                let found = self.node(at, [&old, &new], &paths);
                self.collected().add(at, found.with_context(|| format!("comparing {name}"))?);
                anyhow::Ok(())
            })?;
        }
        Ok(())
    }

    /// Whether a node has to be looked at, as its manifests' entries tell.
    fn is_suspect(&self, at: usize) -> bool {
        let name = &self.nodes[at];
        let (before, after) = (&self.old.manifest().nodes[name], &self.new.manifest().nodes[name]);
        let has_secret_kickstart = !after.folder.files.contains_key(plan::KICKSTART);
        let secrets = (self.old.secret(name), self.new.secret(name));
        if [secrets.0, secrets.1].contains(&Secret::NotReadable) && secrets.0 != secrets.1 {
            self.collected().unread_secrets += 1;
        }
        before != after
            || has_secret_kickstart
            || secrets.0.differs(secrets.1)
            || self.has_other_boot_files(before, after)
    }

    fn has_other_boot_files(&self, before: &NodeEntry, after: &NodeEntry) -> bool {
        let is_other = |(path, _): &(String, _)| self.boot.contains(path.as_str());
        !self.boot.is_empty() && boot_paths(before).iter().chain(&boot_paths(after)).any(is_other)
    }

    fn node(
        &self,
        at: usize,
        kinds: [&FileTree; 2],
        kinds_paths: &BTreeSet<TreePath>,
    ) -> Result<Vec<Found>> {
        let name = self.nodes[at].as_str();
        let (before, after) = (&self.old.manifest().nodes[name], &self.new.manifest().nodes[name]);
        let identities = [Identity::new(name, &before.macs), Identity::new(name, &after.macs)];
        let mut found = self.facts(before, after);
        if before.folder.digest != after.folder.digest || !kinds_paths.is_empty() {
            let (old, new) = (self.old.node(name)?, self.new.node(name)?);
            let mut paths = differing_paths(&old, &new);
            paths.extend(kinds_paths.iter().cloned());
            found.extend(self.tree_changes(&Trees {
                old: [&old, kinds[0]],
                new: [&new, kinds[1]],
                paths,
                identities: &identities,
            }));
        }
        found.extend(self.kickstart(name, [before, after], &identities)?);
        if self.old.secret(name).differs(self.new.secret(name)) {
            found.push(unseen("secret/{name}.tar.gz".to_owned(), Need::Files));
        }
        found.extend(self.boot_files(name, [before, after], &identities)?);
        Ok(found)
    }

    fn facts(&self, before: &NodeEntry, after: &NodeEntry) -> Vec<Found> {
        let mut found = Vec::new();
        if before.roles != after.roles {
            let what = format!("roles {} -> {}", before.roles.join(","), after.roles.join(","));
            found.push(fact(what, Need::Reinstall, Vec::new()));
        }
        if let Some(cry) = shouts::of_release(&before.release, &after.release) {
            let what = format!("release {} -> {}", before.release, after.release);
            found.push(fact(what, Need::Reinstall, vec![cry]));
        }
        if before.macs != after.macs {
            let old: BTreeSet<&String> = before.macs.iter().collect();
            let new: BTreeSet<&String> = after.macs.iter().collect();
            let of = |these: &BTreeSet<&String>, others: &BTreeSet<&String>| {
                let only: Vec<&str> = these.difference(others).map(|mac| mac.as_str()).collect();
                if only.is_empty() { "(none)".to_owned() } else { only.join(",") }
            };
            let what = match old == new {
                true => {
                    format!("order of MACs {} -> {}", before.macs.join(","), after.macs.join(","))
                }
                false => format!("MAC {} -> {}", of(&old, &new), of(&new, &old)),
            };
            found.push(fact(what, Need::Nothing, Vec::new()));
        }
        found
    }

    fn kickstart(
        &self,
        name: &str,
        [before, after]: [&NodeEntry; 2],
        identities: &[Identity; 2],
    ) -> Result<Vec<Found>> {
        let file = |entry: &NodeEntry| entry.folder.files.get(plan::KICKSTART).copied();
        if file(before).is_some() && file(before) == file(after) {
            return Ok(Vec::new());
        }
        let (old, new) = (self.old.kickstart(name)?, self.new.kickstart(name)?);
        let (Some(old), Some(new)) = (old, new) else {
            self.collected().unread_secrets += 1;
            return Ok(Vec::new());
        };
        let (old, new): (View, View) = (view(&old), view(&new));
        let mut found = Vec::new();
        for (what, old, new) in
            [("kickstart (scripts)", &old.scripts, &new.scripts), ("kickstart", &old.own, &new.own)]
        {
            if old != new {
                let difference = Difference::of(old, new, self.patches);
                let lines = difference.added.iter().chain(&difference.removed);
                let need = match what {
                    "kickstart" => lines.map(|line| need_of(line)).max().unwrap_or(Need::Nothing),
                    _ => Need::Nothing,
                };
                let mut change = lines_found(what, State::Changed, difference, need, identities);
                change.cries.extend(shouts::of_kickstart(old, new));
                found.push(change);
            }
        }
        for (layer, digest) in &new.layers {
            let digest_in = |manifest: &Manifest| manifest.layers.get(layer).map(|it| it.digest);
            let is_told = digest_in(self.old.manifest()) != digest_in(self.new.manifest());
            if !is_told && old.layers.get(layer).is_some_and(|old| old != digest) {
                // Of a node that was not built when the layer was.
                found.push(unseen(format!("layer {layer}, an older one"), Need::Files));
            }
        }
        if old.hidden != new.hidden {
            found.push(unseen("kickstart (secrets)".to_owned(), Need::Files));
        }
        Ok(found)
    }

    /// The boot menus of a node, which are named by its MAC address.
    fn boot_files(
        &self,
        name: &str,
        [before, after]: [&NodeEntry; 2],
        identities: &[Identity; 2],
    ) -> Result<Vec<Found>> {
        let old: BTreeMap<&str, String> =
            boot_paths(before).into_iter().map(|(path, what)| (what, path)).collect();
        let new: BTreeMap<&str, String> =
            boot_paths(after).into_iter().map(|(path, what)| (what, path)).collect();
        let mut found = Vec::new();
        for what in old.keys().chain(new.keys().filter(|what| !old.contains_key(*what))) {
            let paths = [old.get(what), new.get(what)];
            if !paths.iter().flatten().any(|path| self.boot.contains(path.as_str())) {
                continue;
            }
            found.extend(self.boot_file(Some(name), what, paths, identities)?);
        }
        Ok(found)
    }

    /// What is left of the boot tree when the menus of the nodes are gone.
    fn shared_boot_files(&self) -> Result<Vec<Change>> {
        let mut paths = self.boot.clone();
        let own: Vec<String> = [self.old, self.new]
            .into_iter()
            .flat_map(|side| side.manifest().nodes.values())
            .flat_map(|node| boot_paths(node).into_iter().map(|(path, _)| path))
            .collect();
        for path in &own {
            paths.remove(path.as_str());
        }
        let mut changes = Vec::new();
        for path in paths {
            let path = path.to_owned();
            let found = self.boot_file(
                None,
                &path,
                [Some(&path), Some(&path)],
                &<[Identity; 2]>::default(),
            )?;
            changes.extend(found.map(|found| found.change));
        }
        Ok(changes)
    }

    fn boot_file(
        &self,
        node: Option<&str>,
        what: &str,
        paths: [Option<&String>; 2],
        identities: &[Identity; 2],
    ) -> Result<Option<Found>> {
        let sides = [self.old, self.new];
        let mut contents: [Option<Option<Vec<u8>>>; 2] = [None, None];
        for ((side, path), content) in sides.into_iter().zip(paths).zip(&mut contents) {
            let is_there = |path: &&String| side.manifest().pxe.folder.files.contains_key(path);
            if let Some(path) = path.filter(is_there) {
                *content = Some(side.boot_file(node, path)?);
            }
        }
        let [old, new] = contents.each_ref().map(|content| {
            content.as_ref().map(|bytes| bytes.as_deref().map_or(Content::Unseen, Content::of))
        });
        let pair = Pair { what: format!("pxe/{what}"), old, new };
        Ok(self.pair(&pair, Need::Nothing, identities))
    }

    fn tree_changes(&self, trees: &Trees<'_>) -> Vec<Found> {
        trees.paths.iter().filter_map(|path| self.entry(path, trees)).collect()
    }

    fn entry(&self, path: &TreePath, trees: &Trees<'_>) -> Option<Found> {
        let get = |trees: &[&FileTree; 2]| {
            trees.iter().find_map(|tree| tree.get(path)).map(|placed| placed.entry.clone())
        };
        let (old, new) = (get(&trees.old), get(&trees.new));
        if old == new {
            return None;
        }
        let modes = old.as_ref().zip(new.as_ref()).map(|(old, new)| (old.mode(), new.mode()));
        let mode = modes.filter(|(old, new)| old != new);
        let what = format!("/{path}");
        if let (None | Some(Entry::Dir { .. }), None | Some(Entry::Dir { .. })) = (&old, &new) {
            // Folders come and go with what is in them.
            let change = Change { mode, ..whole(what, Need::Files) };
            return mode.map(|_| Found { change, lines: [None; 2], cries: Vec::new() });
        }
        let (old_link, new_link) = (link(&old), link(&new));
        let pair = Pair {
            what: what.clone(),
            old: content(&old, old_link.as_deref()),
            new: content(&new, new_link.as_deref()),
        };
        let found = self.pair(&pair, Need::Files, trees.identities);
        let mut found = found.unwrap_or_else(|| fact(what, Need::Files, Vec::new()));
        found.change.mode = mode;
        if let (Some(Content::Text(old)), Some(Content::Text(new))) = (pair.old, pair.new) {
            found.cries = shouts::of_file(path.as_str(), old, new);
            let needs = found.cries.iter().map(|cry| cry.need);
            found.change.need = needs.fold(found.change.need, Need::max);
        }
        Some(found)
    }

    /// `None` if there is no difference to be seen.
    fn pair(&self, pair: &Pair<'_>, need: Need, identities: &[Identity; 2]) -> Option<Found> {
        let state = match (&pair.old, &pair.new) {
            (None, None) => return None,
            (None, Some(_)) => State::Added,
            (Some(_), None) => State::Removed,
            (Some(_), Some(_)) => State::Changed,
        };
        match (text_of(&pair.old), text_of(&pair.new)) {
            (Some(old), Some(new)) if state == State::Changed && old == new => None,
            (Some(old), Some(new)) => {
                let difference = Difference::of(old, new, self.patches);
                Some(lines_found(&pair.what, state, difference, need, identities))
            }
            _ => {
                let mut found = unseen(pair.what.clone(), need);
                found.change.state = state;
                Some(found)
            }
        }
    }

    fn collected(&self) -> std::sync::MutexGuard<'_, Collected> {
        self.collected.lock().expect("no holder of the lock panics")
    }
}

fn text_of<'t>(content: &Option<Content<'t>>) -> Option<&'t str> {
    match content {
        None => Some(""),
        Some(Content::Text(text)) => Some(text),
        Some(Content::Unseen) => None,
    }
}

/// Two pairs of trees, the upper one first.
struct Trees<'t> {
    old: [&'t FileTree; 2],
    new: [&'t FileTree; 2],
    paths: BTreeSet<TreePath>,
    identities: &'t [Identity; 2],
}

/// The paths whose entries are not the same, or in one of the trees only.
fn differing_paths(old: &FileTree, new: &FileTree) -> BTreeSet<TreePath> {
    let only = |these: &FileTree, others: &FileTree| -> Vec<TreePath> {
        let differs = |path: &TreePath, entry: &Entry| {
            others.get(path).is_none_or(|other| other.entry != *entry)
        };
        let entries = these.entries().filter(|(path, placed)| differs(path, &placed.entry));
        entries.map(|(path, _)| path.clone()).collect()
    };
    only(old, new).into_iter().chain(only(new, old)).collect()
}

/// A link's target as the text of a file.
fn link(entry: &Option<Entry>) -> Option<String> {
    match entry {
        Some(Entry::Symlink { target }) => Some(format!("link to {target}\n")),
        _ => None,
    }
}

fn content<'t>(entry: &'t Option<Entry>, link: Option<&'t str>) -> Option<Content<'t>> {
    match entry {
        None | Some(Entry::Dir { .. }) => None,
        Some(Entry::File { contents, .. }) => Some(Content::of(contents)),
        Some(Entry::Symlink { .. }) => link.map(Content::Text),
    }
}

/// The paths of a node's boot files below `pxe/`, each with a name that is the same for all nodes.
fn boot_paths(node: &NodeEntry) -> Vec<(String, &'static str)> {
    const NAMES: [&str; 3] = ["pxelinux.cfg/01-{mac}", "grub/grub.cfg-01-{mac}", "ipxe/{mac}.ipxe"];
    let mac = node.macs.first().and_then(|mac| MacAddr::from_str(mac).ok());
    mac.map(|mac| boot_tree::node_paths(mac).into_iter().zip(NAMES).collect()).unwrap_or_default()
}

fn whole(what: String, need: Need) -> Change {
    Change { what, state: State::Changed, amount: Amount::Whole, mode: None, need, patch: None }
}

fn fact(what: String, need: Need, cries: Vec<Cry>) -> Found {
    Found { change: whole(what, need), lines: [None; 2], cries }
}

fn unseen(what: String, need: Need) -> Found {
    let change = Change { amount: Amount::Unseen, ..whole(what, need) };
    Found { change, lines: [None; 2], cries: Vec::new() }
}

fn lines_found(
    what: &str,
    state: State,
    difference: Difference<'_>,
    need: Need,
    [old, new]: &[Identity; 2],
) -> Found {
    let n_lines = |lines: &[&str]| u32::try_from(lines.len()).unwrap_or(u32::MAX);
    let amount =
        Amount::Lines { added: n_lines(&difference.added), removed: n_lines(&difference.removed) };
    let nobody = Identity::default();
    let lines = [difference.key(&nobody, &nobody), difference.key(old, new)].map(Some);
    let patch = difference.patch;
    let change = Change { what: what.to_owned(), state, amount, mode: None, need, patch };
    Found { change, lines, cries: Vec::new() }
}

impl Collected {
    fn add(&mut self, at: usize, found: Vec<Found>) {
        for found in found {
            self.note_needs(at, &found);
            self.variants.add(at, found.change, &found.lines);
        }
    }

    fn note_needs(&mut self, at: usize, found: &Found) {
        self.needs[at] = self.needs[at].max(found.change.need);
        for cry in &found.cries {
            self.cries.entry(cry.clone()).or_default().push(at);
        }
    }
}

fn names(at: &[usize], nodes: &[String]) -> Vec<String> {
    at.iter().map(|at| nodes[*at].clone()).collect()
}

/// A shout and whose it is.
type CryOf = (Cry, Vec<usize>);

/// Shouts by what they are about; those that differ on every node are one.
fn shouts_of(cries: BTreeMap<Cry, Vec<usize>>, nodes: &[String]) -> Vec<Shout> {
    let mut by_what: BTreeMap<(String, String), Vec<CryOf>> = BTreeMap::new();
    for (cry, mut at) in cries {
        at.sort_unstable();
        at.dedup();
        let key = (cry.what.clone(), cry.consequence.clone());
        by_what.entry(key).or_default().push((cry, at));
    }
    let mut shouts = Vec::new();
    for ((what, consequence), cries) in by_what {
        let (single, others): (Vec<_>, Vec<_>) = match cries.len() > MAX_VARIANTS {
            true => cries.into_iter().partition(|(_, at)| at.len() == 1),
            false => (Vec::new(), cries),
        };
        let shout = |values, at: &[usize]| Shout {
            what: what.clone(),
            values,
            consequence: consequence.clone(),
            nodes: names(at, nodes),
        };
        shouts.extend(others.into_iter().map(|(cry, at)| shout(Some((cry.old, cry.new)), &at)));
        if !single.is_empty() {
            let mut at: Vec<usize> = single.into_iter().flat_map(|(_, at)| at).collect();
            at.sort_unstable();
            shouts.push(shout(None, &at));
        }
    }
    shouts
}

/// Changes of equal nodes together, the larger groups first.
fn groups_of(variants: Variants, nodes: &[String]) -> Vec<Group> {
    let mut by_shape: BTreeMap<Shape, Vec<Variant>> = BTreeMap::new();
    for variant in variants.all.into_iter().flatten() {
        let change = &variant.change;
        let shape = (change.what.clone(), change.state, change.amount, change.mode);
        by_shape.entry(shape).or_default().push(variant);
    }
    let mut by_nodes: BTreeMap<Vec<usize>, Vec<NodeChange>> = BTreeMap::new();
    for variants in by_shape.into_values() {
        let (single, others): (Vec<_>, Vec<_>) = match variants.len() > MAX_VARIANTS {
            true => variants.into_iter().partition(|variant| variant.nodes.len() == 1),
            false => (Vec::new(), variants),
        };
        for mut variant in others {
            variant.nodes.sort_unstable();
            let change = NodeChange { change: variant.change, varies: false };
            by_nodes.entry(variant.nodes).or_default().push(change);
        }
        let Some(first) = single.iter().min_by_key(|variant| variant.nodes[0]) else { continue };
        let need = single.iter().map(|variant| variant.change.need).max();
        let mut change = first.change.clone();
        change.need = need.unwrap_or(change.need);
        let mut at: Vec<usize> = single.iter().map(|variant| variant.nodes[0]).collect();
        at.sort_unstable();
        by_nodes.entry(at).or_default().push(NodeChange { change, varies: true });
    }
    let mut by_size: Vec<(Vec<usize>, Vec<NodeChange>)> = by_nodes.into_iter().collect();
    by_size.sort_by_key(|(at, _)| Reverse(at.len()));
    let mut seen: BTreeSet<usize> = BTreeSet::new();
    let mut groups = Vec::new();
    for (at, changes) in by_size {
        let is_also = at.iter().all(|at| seen.contains(at));
        seen.extend(&at);
        groups.push(Group { nodes: names(&at, nodes), changes, is_also });
    }
    groups
}
