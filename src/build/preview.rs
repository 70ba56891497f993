//! What a build would publish, without writing anything.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow};
use rayon::prelude::*;

use crate::build::{
    BuildError, BuildInput, BuiltNode, Layer, Shared, base64, entry, images, inputs,
    is_kickstart_secret, make_node, pack_layer,
};
use crate::changes::{Secret, Side};
use crate::cluster::{Node, OverlayVia};
use crate::diag::Diagnostic;
use crate::format::digest::Digest;
use crate::manifest::{FileEntry, Folder, Manifest, NodeEntry, PxeEntry, Reproducible, layer_sums};
use crate::media::boot_tree::{self, Stage2};
use crate::output::{Inputs, Stored};
use crate::plan::{self, Group};
use crate::render::install::NodeFiles;
use crate::render::kickstart::EmbeddedFile;
use crate::tree::FileTree;

/// The manifest of a build that is not made; the files in it are rendered again when somebody
/// asks for them.
pub struct Preview<'a> {
    input: &'a BuildInput<'a>,
    manifest: Manifest,
    trees: BTreeMap<String, FileTree>,
    /// Of each kind's bundle of secrets.
    secrets: Vec<Secret>,
}

impl<'a> Preview<'a> {
    /// Works out what `input` would give. Of the nodes that `old` has and whose inputs are the
    /// same nothing is rendered.
    ///
    /// # Errors
    ///
    /// [`BuildError`], as for a build.
    pub fn new(input: &'a BuildInput<'a>, old: &Stored) -> Result<Self, BuildError> {
        let trees = input.prepared.layers().map_err(BuildError::Problems)?;
        let secrets = input.secrets.iter().map(|secrets| match secrets.is_empty() {
            true => Secret::None,
            false if is_kickstart_secret(input.cluster, secrets) => Secret::None,
            false => Secret::Bundle(Digest::of(secrets.bundle())),
        });
        let secrets = secrets.collect();
        let known = old.inputs();
        let made = match input.whole.is_some() && input.whole == known.whole {
            true => old.manifest().clone(),
            false => manifest(input, &trees, old, &known)?,
        };
        Ok(Self { input, manifest: made, trees, secrets })
    }

    fn node_of(&self, name: &str) -> Result<&'a Node> {
        self.input.cluster.node(name).with_context(|| format!("there is no node {name}"))
    }
}

/// The manifest that a build would publish, without its own files.
fn manifest(
    input: &BuildInput<'_>,
    trees: &BTreeMap<String, FileTree>,
    old: &Stored,
    known: &Inputs,
) -> Result<Manifest, BuildError> {
    let layers: BTreeMap<String, Layer> = trees
        .par_iter()
        .map(|(name, tree)| {
            let layer = layer(input, name, tree, old, known);
            Ok((name.clone(), layer.with_context(|| format!("building the layer {name}"))?))
        })
        .collect::<Result<_>>()?;
    let mut manifest = Manifest::new(&input.cluster.name, Reproducible::Yes);
    manifest.layers =
        layers.iter().map(|(name, layer)| (name.clone(), layer.folder.clone())).collect();
    let sums = layer_sums(&manifest.layers);
    let shared = Shared::new(input.prepared, &layers, &sums)?;
    let groups: Vec<Vec<BuiltNode>> = input
        .plan
        .groups
        .par_iter()
        .map(|group| preview_group(input, group, &shared, old, known))
        .collect::<Result<_, BuildError>>()?;
    let mut made_from = BTreeMap::new();
    for node in groups.into_iter().flatten() {
        made_from.insert(node.name.clone(), node.inputs);
        manifest.nodes.insert(node.name, node.entry);
    }
    manifest.pxe = pxe(input, old, known, &made_from)?;
    Ok(manifest)
}

fn layer(
    input: &BuildInput<'_>,
    name: &str,
    tree: &FileTree,
    old: &Stored,
    known: &Inputs,
) -> Result<Layer> {
    let inputs = inputs::of_layer(&input.program, tree);
    let is_apart = input.cluster.boot.overlay.value == OverlayVia::Http;
    match old.manifest().layers.get(name) {
        Some(folder) if is_apart && known.layers.get(name) == Some(&inputs) => {
            Ok(Layer { folder: folder.clone(), inputs, tar: Vec::new() })
        }
        _ => Ok(pack_layer(tree)?.into_layer(inputs)),
    }
}

fn preview_group(
    input: &BuildInput<'_>,
    group: &Group,
    shared: &Shared<'_>,
    old: &Stored,
    known: &Inputs,
) -> Result<Vec<BuiltNode>, BuildError> {
    let layers = shared.layers_of(input.prepared.layers_of(group.kind));
    let kind_inputs = inputs::of_kind(input, group.kind, &layers);
    let mut renderer = None;
    let mut nodes = Vec::with_capacity(group.nodes.len());
    for at in &group.nodes {
        let node = &input.cluster.nodes[*at];
        let name = node.name.as_str();
        let inputs = inputs::of_node(input.cluster, node, &kind_inputs);
        let is_known = known.nodes.get(name) == Some(&inputs);
        let before = old.manifest().nodes.get(name).filter(|_| is_known);
        let folder = match before {
            Some(before) => before.folder.clone(),
            None => {
                let renderer =
                    renderer.get_or_insert_with(|| input.prepared.nodes_of_kind(group.kind));
                let secrets = &input.secrets[node.kind];
                let made = make_node(input.cluster, node, renderer, &layers, shared, secrets)?;
                let mut files = vec![
                    (plan::OVERLAY_CPIO, FileEntry::of(&made.cpio)),
                    (plan::OVERLAY_TAR, FileEntry::of(&made.tar)),
                ];
                if !is_kickstart_secret(input.cluster, secrets) {
                    files.push((plan::KICKSTART, FileEntry::of(made.kickstart.as_bytes())));
                    files.push((plan::INSTALL_CPIO, FileEntry::of(&made.install)));
                }
                Folder::of(files.into_iter().map(|(name, it)| (name.to_owned(), it)).collect())
            }
        };
        let entry: NodeEntry = entry(input, node, folder);
        nodes.push(BuiltNode { name: name.to_owned(), entry, inputs });
    }
    Ok(nodes)
}

fn pxe(
    input: &BuildInput<'_>,
    old: &Stored,
    known: &Inputs,
    made_from: &BTreeMap<String, Digest>,
) -> Result<PxeEntry, BuildError> {
    let template_problem = |fault| BuildError::Problems(vec![input.prepared.diagnostic(&fault)]);
    let before = &old.manifest().pxe.folder.files;
    let of_nodes: Vec<Vec<(String, FileEntry)>> = input
        .cluster
        .nodes
        .par_iter()
        .map(|node| {
            let name = node.name.as_str();
            let is_known = known.nodes.get(name).is_some_and(|it| made_from.get(name) == Some(it));
            let paths = input.cluster.boot_mac(node).map(boot_tree::node_paths);
            let kept: Option<Vec<(String, FileEntry)>> =
                paths.filter(|_| is_known).and_then(|it| {
                    it.into_iter().map(|path| before.get(&path).map(|file| (path, *file))).collect()
                });
            if let Some(kept) = kept {
                return Ok(kept);
            }
            let files = node_boot_files(input, node).map_err(BuildError::Problems)?;
            Ok(files
                .into_iter()
                .map(|(path, text)| (path, FileEntry::of(text.as_bytes())))
                .collect())
        })
        .collect::<Result<_, BuildError>>()?;
    let mut files: BTreeMap<String, FileEntry> = of_nodes.into_iter().flatten().collect();
    let shared = boot_tree::shared_files(input.prepared.templates(), input.cluster)
        .map_err(template_problem)?;
    files.extend(shared.into_iter().map(|(path, text)| (path, FileEntry::of(text.as_bytes()))));
    let images = images(input);
    files.extend(images.present.into_iter().map(|(path, _, file)| (path, file)));
    files.extend(input.boot_programs.iter().map(|(path, program)| (path.clone(), program.entry)));
    for (id, repository) in input.repositories {
        let packages = repository.files.iter();
        files.extend(packages.map(|(name, file)| (format!("repos/{id}/{name}"), *file)));
    }
    Ok(PxeEntry { folder: Folder::of(files), pending: images.pending })
}

fn node_boot_files(
    input: &BuildInput<'_>,
    node: &Node,
) -> Result<BTreeMap<String, String>, Vec<Diagnostic>> {
    let release = &input.cluster.kind_of(node).os.release.value;
    let has_stage2 = input.images.get(release).is_some_and(|images| images.install_img.is_some());
    let stage2 = if has_stage2 { Stage2::BootServer } else { Stage2::Mirror };
    boot_tree::node_files(input.prepared.templates(), input.cluster, node, stage2)
        .map_err(|fault| vec![input.prepared.diagnostic(&fault)])
}

/// What was rendered once and fails now: not the user's to mend.
fn again(problems: Vec<Diagnostic>) -> anyhow::Error {
    let messages: Vec<String> = problems.into_iter().map(|problem| problem.message).collect();
    anyhow!("rendering again: {}", messages.join("; "))
}

impl Side for Preview<'_> {
    fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn layer(&self, name: &str) -> Result<FileTree> {
        self.trees.get(name).cloned().with_context(|| format!("there is no layer {name}"))
    }

    fn node(&self, name: &str) -> Result<FileTree> {
        let node = self.node_of(name)?;
        self.input.prepared.nodes_of_kind(node.kind).own_tree(node).map_err(again)
    }

    /// Without the public archives that may be inside, which nobody compares.
    fn kickstart(&self, node: &str) -> Result<Option<String>> {
        let node = self.node_of(node)?;
        let secrets = &self.input.secrets[node.kind];
        let is_secret = is_kickstart_secret(self.input.cluster, secrets);
        let embedded = match is_secret {
            true => vec![EmbeddedFile {
                name: "secrets.tar.gz".to_owned(),
                base64: base64(secrets.bundle()),
            }],
            false => Vec::new(),
        };
        let root_hash = secrets.root_hash().filter(|_| is_secret).map(str::to_owned);
        let files = NodeFiles { overlay_sha256: String::new(), embedded, root_hash };
        let mut renderer = self.input.prepared.nodes_of_kind(node.kind);
        renderer.kickstart(node, files).map(Some).map_err(again)
    }

    fn boot_file(&self, node: Option<&str>, path: &str) -> Result<Option<Vec<u8>>> {
        let files = match node {
            Some(node) => node_boot_files(self.input, self.node_of(node)?).map_err(again)?,
            None => boot_tree::shared_files(self.input.prepared.templates(), self.input.cluster)
                .map_err(|fault| again(vec![self.input.prepared.diagnostic(&fault)]))?,
        };
        Ok(files.get(path).map(|text| text.clone().into_bytes()))
    }

    fn secret(&self, node: &str) -> Secret {
        match self.input.cluster.node(node) {
            Some(node) => self.secrets[node.kind],
            None => Secret::None,
        }
    }
}
