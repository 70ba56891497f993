//! From a plan to a published generation: renders, packs, stages and publishes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rayon::prelude::*;

use crate::cluster::{Cluster, Node, OverlayVia, SecretsVia};
use crate::diag::{Diagnostic, codes};
use crate::fetch::CachedImages;
use crate::format::digest::Digest;
use crate::format::{Archive, gzip, pack};
use crate::manifest::{FileEntry, Folder, Manifest, NodeEntry, PxeEntry, Reproducible, layer_sums};
use crate::media::boot_tree::{self, Stage2};
use crate::media::install_archive::{self, Handed};
use crate::output::{Contents, NewFile, Output, Published};
use crate::plan::{self, Group, Plan};
use crate::progress::Progress;
use crate::render::install::{self, NodeFiles};
use crate::render::kickstart::EmbeddedFile;
use crate::render::prepared::{NodeRenderer, Prepared};
use crate::secrets::KindSecrets;
use crate::tree::FileTree;
use crate::units::ByteSize;

/// The most that the archives inside one kickstart may weigh: anaconda keeps the kickstart
/// in memory several times over, and firmware fetches it before there is a disk.
pub const MAX_EMBEDDED: ByteSize = ByteSize::from_mib(1);

/// What a build starts from.
pub struct BuildInput<'a> {
    pub cluster: &'a Cluster,
    pub plan: &'a Plan,
    pub prepared: &'a Prepared<'a>,
    /// By the order of [`Cluster::kinds`].
    pub secrets: &'a [KindSecrets],
    /// The installer's images by release, as far as they were fetched.
    pub images: &'a BTreeMap<String, CachedImages>,
    /// Files that are put into the boot tree as they are, by path below `pxe/`.
    pub boot_programs: &'a BTreeMap<String, BootProgram>,
}

/// A program that firmware loads, from the site's own folder.
#[derive(Clone, Debug)]
pub struct BootProgram {
    pub path: PathBuf,
    pub entry: FileEntry,
}

/// What a build made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Built {
    pub published: Published,
    pub n_nodes: usize,
    pub n_artifacts: usize,
    pub size: ByteSize,
}

/// Why a build stopped.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Something in the user's files, found only while rendering.
    #[error("the cluster cannot be built")]
    Problems(Vec<Diagnostic>),
    #[error(transparent)]
    World(#[from] anyhow::Error),
}

/// A shared layer: its archives and what the store knows of them.
struct Layer {
    folder: Folder,
    tar: Vec<u8>,
}

/// Builds what `input` plans into `output` and publishes it.
///
/// # Errors
///
/// [`BuildError`]; the current generation is untouched then.
pub fn build(
    input: &BuildInput<'_>,
    output: Output,
    progress: &Progress,
) -> Result<Built, BuildError> {
    require_free(input, &output)?;
    let layers = build_layers(input, &output)?;
    let mut manifest = Manifest::new(&input.cluster.name, Reproducible::Yes);
    manifest.allowed = input.cluster.allow.iter().map(|code| code.value.clone()).collect();
    manifest.layers =
        layers.iter().map(|(name, layer)| (name.clone(), layer.folder.clone())).collect();
    let sums = layer_sums(&manifest.layers);
    for name in &input.plan.carried {
        if output.current().is_some_and(|current| current.nodes.contains_key(name.as_str())) {
            manifest.nodes.insert(name.to_string(), output.carry_node(name.as_str())?);
        }
    }
    let shared = Shared { layers: &layers, layer_sums: sums.as_bytes() };
    let groups: Vec<Vec<(String, NodeEntry)>> = input
        .plan
        .groups
        .par_iter()
        .map(|group| build_group(input, group, &shared, &output, progress))
        .collect::<Result<_, BuildError>>()?;
    manifest.nodes.extend(groups.into_iter().flatten());
    manifest.pxe = build_boot_tree(input, &output)?;
    let (n_nodes, n_artifacts) = (manifest.nodes.len(), manifest.artifacts().count());
    let size: u64 = manifest.artifacts().map(|artifact| artifact.file.size).sum();
    let published = output.publish(manifest)?;
    Ok(Built { published, n_nodes, n_artifacts, size: ByteSize::from_bytes(size) })
}

/// What the nodes' own artefacts refer to or take along.
struct Shared<'a> {
    layers: &'a BTreeMap<String, Layer>,
    layer_sums: &'a [u8],
}

/// A node's folder is some 100 KiB and, with its links in the boot tree, a dozen files.
fn require_free(input: &BuildInput<'_>, output: &Output) -> Result<()> {
    let n_nodes = input.plan.n_nodes() as u64;
    let images: u64 = input.images.values().map(CachedImages::size).sum();
    let needed = ByteSize::from_bytes(n_nodes * (128 << 10) + (16 << 20) + images);
    output.require_free(needed, n_nodes * 12 + 100)
}

fn build_layers(
    input: &BuildInput<'_>,
    output: &Output,
) -> Result<BTreeMap<String, Layer>, BuildError> {
    let trees = input.prepared.layers().map_err(BuildError::Problems)?;
    let layers: Vec<(String, Layer)> = trees
        .into_par_iter()
        .map(|(name, tree)| {
            let layer =
                build_layer(&tree, output).with_context(|| format!("building the layer {name}"))?;
            Ok((name, layer))
        })
        .collect::<Result<_>>()?;
    Ok(layers.into_iter().collect())
}

fn build_layer(tree: &FileTree, output: &Output) -> Result<Layer> {
    let packed = pack_layer(tree)?;
    let files = [
        NewFile { name: plan::LAYER_CPIO, contents: Contents::Bytes(&packed.cpio) },
        NewFile { name: plan::LAYER_TAR, contents: Contents::Bytes(&packed.tar) },
    ];
    output.stage(&files, None)?;
    Ok(packed.into_layer())
}

/// The archives of a shared layer.
struct PackedLayer {
    tar: Vec<u8>,
    cpio: Vec<u8>,
}

fn pack_layer(tree: &FileTree) -> Result<PackedLayer> {
    Ok(PackedLayer {
        tar: pack(tree, Archive::Tar, gzip::Level::Small)?,
        cpio: pack(tree, Archive::Newc, gzip::Level::Small)?,
    })
}

impl PackedLayer {
    fn into_layer(self) -> Layer {
        let files = [(plan::LAYER_CPIO, &self.cpio), (plan::LAYER_TAR, &self.tar)];
        let entries = files.map(|(name, bytes)| (name.to_owned(), FileEntry::of(bytes)));
        Layer { folder: Folder::of(BTreeMap::from(entries)), tar: self.tar }
    }
}

fn build_group(
    input: &BuildInput<'_>,
    group: &Group,
    shared: &Shared<'_>,
    output: &Output,
    progress: &Progress,
) -> Result<Vec<(String, NodeEntry)>, BuildError> {
    let mut renderer = input.prepared.nodes_of_kind(group.kind);
    let mut entries = Vec::with_capacity(group.nodes.len());
    for at in &group.nodes {
        let node = &input.cluster.nodes[*at];
        let folder =
            build_node(input, node, &mut renderer, shared, output).map_err(
                |fault| match fault {
                    BuildError::World(fault) => {
                        BuildError::World(fault.context(format!("building {}", node.name)))
                    }
                    problems => problems,
                },
            )?;
        entries.push((node.name.to_string(), entry(input.cluster, node, folder)));
        progress.advance(1);
    }
    Ok(entries)
}

fn entry(cluster: &Cluster, node: &Node, folder: Folder) -> NodeEntry {
    let kind = cluster.kind_of(node);
    let boot = kind.boot_nic();
    let others = node.nics.iter().enumerate().filter(|(at, _)| Some(*at) != boot);
    let macs = boot
        .and_then(|at| node.nics[at].mac)
        .into_iter()
        .chain(others.filter_map(|(_, nic)| nic.mac));
    NodeEntry {
        roles: kind.roles.iter().map(|role| role.value.clone()).collect(),
        layers: install::layers(kind),
        macs: macs.map(|mac| mac.to_string()).collect(),
        release: kind.os.release.value.clone(),
        folder,
    }
}

/// The files of one node, secret or not.
struct NodeArtifacts {
    tar: Vec<u8>,
    cpio: Vec<u8>,
    kickstart: String,
    install: Vec<u8>,
}

/// Whether the kickstart itself holds secrets.
fn is_kickstart_secret(cluster: &Cluster, secrets: &KindSecrets) -> bool {
    cluster.boot.secrets.value == SecretsVia::Embedded && !secrets.is_empty()
}

fn make_node(
    cluster: &Cluster,
    node: &Node,
    renderer: &mut NodeRenderer<'_, '_>,
    shared: &Shared<'_>,
    secrets: &KindSecrets,
) -> Result<NodeArtifacts, BuildError> {
    let tree = renderer.own_tree(node).map_err(BuildError::Problems)?;
    let tar = pack(&tree, Archive::Tar, gzip::Level::Fast).context("packing the overlay")?;
    let cpio = pack(&tree, Archive::Newc, gzip::Level::Fast).context("packing the overlay")?;
    let roles = install::layers(cluster.kind_of(node));
    let layers: Vec<(String, &Layer)> =
        roles.into_iter().map(|role| (role.clone(), &shared.layers[&role])).collect();
    let root_hash = secrets.root_hash().filter(|_| is_kickstart_secret(cluster, secrets));
    let files = NodeFiles {
        overlay_sha256: Digest::of(&tar).to_string(),
        embedded: embedded(cluster, node.name.as_str(), &tar, &layers, shared, secrets)?,
        root_hash: root_hash.map(str::to_owned),
    };
    let kickstart = renderer.kickstart(node, files).map_err(BuildError::Problems)?;
    let install = install_archive(cluster, &kickstart, &tar, &layers, shared)?;
    Ok(NodeArtifacts { tar, cpio, kickstart, install })
}

/// Makes and stages the files of one node; those that hold secrets go to the secret folder.
fn build_node(
    input: &BuildInput<'_>,
    node: &Node,
    renderer: &mut NodeRenderer<'_, '_>,
    shared: &Shared<'_>,
    output: &Output,
) -> Result<Folder, BuildError> {
    let secrets = &input.secrets[node.kind];
    let made = make_node(input.cluster, node, renderer, shared, secrets)?;
    let name = node.name.as_str();
    let mut public = vec![
        NewFile { name: plan::OVERLAY_CPIO, contents: Contents::Bytes(&made.cpio) },
        NewFile { name: plan::OVERLAY_TAR, contents: Contents::Bytes(&made.tar) },
    ];
    if is_kickstart_secret(input.cluster, secrets) {
        output.add_secret(name, &format!("{name}.ks"), made.kickstart.as_bytes())?;
        output.add_secret(name, &format!("{name}.install.cpio.gz"), &made.install)?;
    } else {
        public.push(NewFile {
            name: plan::KICKSTART,
            contents: Contents::Bytes(made.kickstart.as_bytes()),
        });
        public.push(NewFile { name: plan::INSTALL_CPIO, contents: Contents::Bytes(&made.install) });
        if !secrets.is_empty() {
            output.add_secret(name, &format!("{name}.tar.gz"), secrets.bundle())?;
        }
    }
    Ok(output.stage(&public, None)?)
}

/// The kickstart of one node as `build` writes it, but without anything secret in it.
///
/// # Errors
///
/// [`BuildError`], as for a build.
pub fn kickstart(
    prepared: &Prepared<'_>,
    cluster: &Cluster,
    node: &Node,
) -> Result<String, BuildError> {
    let trees = prepared.layers().map_err(BuildError::Problems)?;
    let layers = trees
        .iter()
        .map(|(name, tree)| Ok((name.clone(), pack_layer(tree)?.into_layer())))
        .collect::<Result<BTreeMap<String, Layer>>>()?;
    let folders = layers.iter().map(|(name, layer)| (name.clone(), layer.folder.clone())).collect();
    let sums = layer_sums(&folders);
    let shared = Shared { layers: &layers, layer_sums: sums.as_bytes() };
    let mut renderer = prepared.nodes_of_kind(node.kind);
    Ok(make_node(cluster, node, &mut renderer, &shared, &KindSecrets::default())?.kickstart)
}

/// The archives inside the kickstart, as `boot.overlay` and `boot.secrets` want them.
fn embedded(
    cluster: &Cluster,
    node: &str,
    tar: &[u8],
    layers: &[(String, &Layer)],
    shared: &Shared<'_>,
    secrets: &KindSecrets,
) -> Result<Vec<EmbeddedFile>, BuildError> {
    let mut files: Vec<(String, &[u8])> = Vec::new();
    if cluster.boot.overlay.value == OverlayVia::Embedded {
        files.push(("SHA256SUMS".to_owned(), shared.layer_sums));
        files.extend(
            layers
                .iter()
                .map(|(role, layer)| (format!("layer-{role}.tar.gz"), layer.tar.as_slice())),
        );
        files.push(("overlay.tar.gz".to_owned(), tar));
    }
    if cluster.boot.secrets.value == SecretsVia::Embedded && !secrets.is_empty() {
        files.push(("secrets.tar.gz".to_owned(), secrets.bundle()));
    }
    let size = ByteSize::from_bytes(files.iter().map(|(_, bytes)| bytes.len() as u64).sum());
    if size > MAX_EMBEDDED {
        let message = format!(
            "the archives of {node} are {} KiB, too much for a kickstart",
            size.bytes() >> 10
        );
        let problem = Diagnostic::error(codes::EMBEDDED_TOO_LARGE, message)
            .at(cluster.boot.overlay.span)
            .help("set `overlay = \"http\"` or `\"media\"`")
            .note(format!("at most {} KiB go into a kickstart", MAX_EMBEDDED.bytes() >> 10));
        return Err(BuildError::Problems(vec![problem]));
    }
    Ok(files
        .into_iter()
        .map(|(name, bytes)| EmbeddedFile { name, base64: base64(bytes) })
        .collect())
}

/// The bytes in base64, 76 characters a line (RFC 2045 §6.8).
fn base64(bytes: &[u8]) -> Vec<String> {
    use base64::Engine;

    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    let lines = text.as_bytes().chunks(76);
    lines.map(|line| std::str::from_utf8(line).expect("base64 is ASCII").to_owned()).collect()
}

fn install_archive(
    cluster: &Cluster,
    kickstart: &str,
    tar: &[u8],
    layers: &[(String, &Layer)],
    shared: &Shared<'_>,
) -> Result<Vec<u8>> {
    let names: Vec<String> = layers.iter().map(|(role, _)| install_archive::layer(role)).collect();
    let mut files = vec![
        Handed { name: install_archive::KICKSTART, contents: kickstart.as_bytes() },
        Handed { name: install_archive::OVERLAY, contents: tar },
    ];
    if cluster.boot.overlay.value == OverlayVia::Media {
        files.push(Handed { name: install_archive::LAYER_SUMS, contents: shared.layer_sums });
        let handed = names.iter().zip(layers);
        files.extend(handed.map(|(name, (_, layer))| Handed { name, contents: &layer.tar }));
    }
    let tree = install_archive::tree(&files)?;
    pack(&tree, Archive::Newc, gzip::Level::Fast).context("packing what the installer takes along")
}

/// The boot files of all nodes, and the images as far as they are in the cache.
fn build_boot_tree(input: &BuildInput<'_>, output: &Output) -> Result<PxeEntry, BuildError> {
    let template_problem = |fault| BuildError::Problems(vec![input.prepared.diagnostic(&fault)]);
    let templates = input.prepared.templates();
    let mut texts = boot_tree::shared_files(templates, input.cluster).map_err(template_problem)?;
    let nodes: Vec<BTreeMap<String, String>> = input
        .cluster
        .nodes
        .par_iter()
        .map(|node| {
            let release = &input.cluster.kind_of(node).os.release.value;
            let has_stage2 =
                input.images.get(release).is_some_and(|images| images.install_img.is_some());
            let stage2 = if has_stage2 { Stage2::BootServer } else { Stage2::Mirror };
            boot_tree::node_files(templates, input.cluster, node, stage2)
        })
        .collect::<Result<_, _>>()
        .map_err(template_problem)?;
    texts.extend(nodes.into_iter().flatten());
    let images = images(input);
    let text_files = texts
        .iter()
        .map(|(name, text)| NewFile { name, contents: Contents::Bytes(text.as_bytes()) });
    let image_files = images.present.iter().map(|(name, path, expected)| NewFile {
        name,
        contents: Contents::Elsewhere { path, expected: *expected },
    });
    let programs = input.boot_programs.iter().map(|(name, program)| NewFile {
        name,
        contents: Contents::Elsewhere { path: &program.path, expected: program.entry },
    });
    let files: Vec<NewFile<'_>> = text_files.chain(image_files).chain(programs).collect();
    let alike = output.current().map(|manifest| manifest.pxe.folder.clone());
    let folder = output.stage(&files, alike.as_ref())?;
    Ok(PxeEntry { folder, pending: images.pending })
}

/// The installer's images as files of the boot tree.
#[derive(Default)]
struct Images<'a> {
    present: Vec<(String, &'a Path, FileEntry)>,
    pending: BTreeSet<String>,
}

fn images<'a>(input: &BuildInput<'a>) -> Images<'a> {
    let mut images = Images::default();
    let folders: BTreeMap<&str, String> = input
        .cluster
        .kinds
        .iter()
        .map(|kind| (kind.os.release.value.as_str(), boot_tree::images(kind)))
        .collect();
    for (release, folder) in folders {
        let Some(cached) = input.images.get(release) else {
            images.pending.extend(["vmlinuz", "initrd.img"].map(|name| format!("{folder}/{name}")));
            continue;
        };
        let mut add = |name: &str, image: &'a crate::fetch::CachedImage| {
            let entry = FileEntry { size: image.image.size, sha256: image.image.sha256 };
            images.present.push((format!("{folder}/{name}"), &image.path, entry));
        };
        add("vmlinuz", &cached.kernel);
        add("initrd.img", &cached.initrd);
        if let Some(install_img) = &cached.install_img {
            add("images/install.img", install_img);
        }
    }
    images
}

/// The problems of a failed build, or the failure of the world as it is.
impl BuildError {
    pub fn into_problems(self) -> Result<Vec<Diagnostic>> {
        match self {
            BuildError::Problems(problems) => Ok(problems),
            BuildError::World(fault) => Err(fault),
        }
    }
}
