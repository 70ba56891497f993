//! Where a build puts what it makes: the output folder, or nowhere when somebody only wants to
//! know what it would be.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;

use anyhow::{Context, Result, bail};

use crate::build::NodeArtifacts;
use crate::changes::Side;
use crate::format::digest::Digest;
use crate::manifest::{Folder, Manifest, NodeEntry, shared_name};
use crate::output::{Filling, Inputs, NewFile, Output, Stored};
use crate::tree::FileTree;

/// What takes the files of a build. Several threads may use it at once.
pub(super) trait Target: Sync {
    /// The generation before, whose nodes and layers are taken over where nothing changed.
    fn before(&self) -> Option<&Manifest>;

    /// Whether what a folder of that generation lists is still there.
    fn has(&self, folder: &Folder) -> bool;

    /// A file of a folder of that generation.
    fn read(&self, folder: &Folder, name: &str) -> Result<Vec<u8>>;

    /// A folder of that generation is not what it lists: it is to be made anew.
    fn distrust(&self, folder: &Folder);

    /// Takes the files of one folder.
    fn stage(&self, files: &[NewFile<'_>]) -> Result<Folder>;

    /// Takes a secret file of `node`, for `secret/`.
    fn add_secret(&self, node: &str, name: &str, contents: &[u8]) -> Result<()>;

    /// Takes a node over that is not built, with its secrets.
    fn carry_node(&self, node: &str) -> Result<NodeEntry>;

    /// Takes over a layer that only nodes which are not built have.
    fn carry_layer(&self, layer: &str) -> Result<Folder>;

    /// Begins the boot tree.
    fn boot_tree(&self) -> Filling<'_>;

    /// Told of each node that was made anew, after its files were taken.
    fn made(&self, node: &str, artifacts: NodeArtifacts);

    /// Told of each text of the boot tree that was made anew.
    fn made_boot_file(&self, path: &str, text: String);
}

impl Target for Output {
    fn before(&self) -> Option<&Manifest> {
        self.current()
    }

    fn has(&self, folder: &Folder) -> bool {
        self.is_in_store(folder)
    }

    fn read(&self, folder: &Folder, name: &str) -> Result<Vec<u8>> {
        let path = self.file_in_store(folder, name);
        fs::read(&path).with_context(|| format!("reading {}", path.display()))
    }

    fn distrust(&self, folder: &Folder) {
        Output::distrust(self, folder);
    }

    fn stage(&self, files: &[NewFile<'_>]) -> Result<Folder> {
        Output::stage(self, files)
    }

    fn add_secret(&self, node: &str, name: &str, contents: &[u8]) -> Result<()> {
        Output::add_secret(self, node, name, contents)
    }

    fn carry_node(&self, node: &str) -> Result<NodeEntry> {
        Output::carry_node(self, node)
    }

    fn carry_layer(&self, layer: &str) -> Result<Folder> {
        Output::carry_layer(self, layer)
    }

    fn boot_tree(&self) -> Filling<'_> {
        self.fill(self.current().map(|manifest| &manifest.pxe.folder))
    }

    fn made(&self, _: &str, _: NodeArtifacts) {}

    fn made_boot_file(&self, _: &str, _: String) {}
}

/// How much of what was made is kept to be looked at, in bytes; what does not fit is made again.
const MAX_KEPT: usize = 48 << 20;

/// Takes files and keeps their digests, and a part of them for those who look at them next.
pub(super) struct Nowhere<'o> {
    old: &'o Stored,
    /// What every kickstart begins with: it is not kept with each.
    scripts: &'o str,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    n_bytes: usize,
    trees: BTreeMap<String, FileTree>,
    kickstarts: BTreeMap<String, String>,
    boot_files: BTreeMap<String, String>,
}

impl<'o> Nowhere<'o> {
    /// With `old` as the generation before; every kickstart begins with `scripts`.
    pub(super) fn beside(old: &'o Stored, scripts: &'o str) -> Self {
        Self { old, scripts, kept: Mutex::default() }
    }

    /// The files of a node's own layer, once; `None` if it was not made or not kept.
    pub(super) fn take_tree(&self, node: &str) -> Option<FileTree> {
        self.kept().trees.remove(node)
    }

    /// As [`take_tree`](Self::take_tree), its kickstart.
    pub(super) fn take_kickstart(&self, node: &str) -> Option<String> {
        let own = self.kept().kickstarts.remove(node)?;
        Some([self.scripts, &own].concat())
    }

    /// As [`take_tree`](Self::take_tree), a text of the boot tree.
    pub(super) fn take_boot_file(&self, path: &str) -> Option<String> {
        self.kept().boot_files.remove(path)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().expect("no holder of the lock panics")
    }
}

impl Kept {
    /// Whether that many bytes more may be kept; they count from now on.
    fn has_room(&mut self, n_bytes: usize) -> bool {
        let fits = self.n_bytes + n_bytes <= MAX_KEPT;
        self.n_bytes += if fits { n_bytes } else { 0 };
        fits
    }
}

impl Target for Nowhere<'_> {
    fn before(&self) -> Option<&Manifest> {
        Some(self.old.manifest())
    }

    /// Whether files were lost since is for a build to find out.
    fn has(&self, _: &Folder) -> bool {
        true
    }

    fn read(&self, folder: &Folder, name: &str) -> Result<Vec<u8>> {
        self.old.read(folder, name)
    }

    fn distrust(&self, _: &Folder) {}

    fn stage(&self, files: &[NewFile<'_>]) -> Result<Folder> {
        let entry = |file: &NewFile<'_>| (shared_name(file.name), file.contents.entry());
        Ok(Folder::of(files.iter().map(entry).collect()))
    }

    fn add_secret(&self, _: &str, _: &str, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn carry_node(&self, node: &str) -> Result<NodeEntry> {
        bail!("{node} is to be taken over, and what is compared is a build of all nodes")
    }

    fn carry_layer(&self, layer: &str) -> Result<Folder> {
        bail!("the layer {layer} is to be taken over, and what is compared is a whole build")
    }

    fn boot_tree(&self) -> Filling<'_> {
        Filling::nowhere(&self.old.manifest().pxe.folder)
    }

    fn made(&self, node: &str, artifacts: NodeArtifacts) {
        let NodeArtifacts { tree, mut kickstart, .. } = artifacts;
        let own = kickstart.split_off(self.scripts.len());
        let n_bytes: u64 = tree.entries().map(|(_, placed)| placed.entry.size() + 256).sum();
        let mut kept = self.kept();
        if kept.has_room(n_bytes as usize + own.len()) {
            kept.trees.insert(node.to_owned(), tree);
            kept.kickstarts.insert(node.to_owned(), own);
        }
    }

    fn made_boot_file(&self, path: &str, text: String) {
        let mut kept = self.kept();
        if kept.has_room(text.len()) {
            kept.boot_files.insert(path.to_owned(), text);
        }
    }
}

/// What of the generation before stands for inputs that are the same now.
pub(super) struct Before<'a> {
    manifest: Option<&'a Manifest>,
    made_from: &'a Inputs,
}

impl<'a> Before<'a> {
    pub(super) fn of(target: &'a dyn Target, made_from: &'a Inputs) -> Self {
        Self { manifest: target.before(), made_from }
    }

    /// The layer's folder, if that was made from `inputs`.
    pub(super) fn layer(&self, name: &str, inputs: &Digest) -> Option<&'a Folder> {
        let is_same = self.made_from.layers.get(name) == Some(inputs);
        self.manifest.filter(|_| is_same)?.layers.get(name)
    }

    /// The node's entry, if the node was made from `inputs`.
    pub(super) fn node(&self, name: &str, inputs: &Digest) -> Option<&'a NodeEntry> {
        let is_same = self.made_from.nodes.get(name) == Some(inputs);
        self.manifest.filter(|_| is_same)?.nodes.get(name)
    }

    /// Whether all of a node is made from what it was made from before, as `now` says.
    pub(super) fn is_same_node(&self, name: &str, now: &Inputs) -> bool {
        let before = self.made_from.nodes.get(name);
        before.is_some() && before == now.nodes.get(name)
    }
}
