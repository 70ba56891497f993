//! From a plan to a published generation: renders, packs, stages and publishes.

mod inputs;
pub mod media;
mod preview;
mod target;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};
use rayon::prelude::*;

use crate::build::target::{Before, Target};
use crate::changes::ListedChanges;
use crate::cluster::{Cluster, Kind, Node, OverlayVia, SecretsVia};
use crate::diag::{Diagnostic, codes};
use crate::fetch::{CachedImages, Unpacked};
use crate::format::digest::{Beginning, Beginnings, Digest};
use crate::format::{Archive, gzip, pack, pack_around};
use crate::manifest::{
    FileEntry, Folder, LAYER_SUMS, Manifest, NodeEntry, PxeEntry, Reproducible, layer_sums,
    shared_name,
};
use crate::media::boot_tree::{self, KindMenus, Stage2};
use crate::media::install_archive::{self, Handed};
use crate::net::MacAddr;
use crate::output::{Contents, Filling, Inputs, NewFile, Output, Published, Remarks, Whole};
use crate::plan::{self, Group, Plan};
use crate::progress::Progress;
use crate::range::NodeName;
use crate::render::install::NodeFiles;
use crate::render::kickstart::EmbeddedFile;
use crate::render::prepared::{NodeRenderer, Prepared};
use crate::render::template::TemplateError;
use crate::secrets::KindSecrets;
use crate::tree::FileTree;
use crate::units::ByteSize;

pub use preview::Preview;

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
    /// What was unpacked of archives of packages, by the ids of their repositories.
    pub repositories: &'a BTreeMap<String, Unpacked>,
    /// Of the program that builds and its library: what another one made is made again.
    pub program: Digest,
    /// Of everything that the build starts from; `None` to make everything anew.
    pub whole: Option<Digest>,
    /// Whether preparing the library gave warnings.
    pub remarks: Remarks,
}

/// A program that firmware loads, from the site's own folder.
#[derive(Clone, Debug)]
pub struct BootProgram {
    pub path: PathBuf,
    pub entry: FileEntry,
}

/// What a build made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    pub published: Published,
    pub n_nodes: usize,
    pub n_artifacts: usize,
    pub size: ByteSize,
    /// Against the generation before; `None` for the first one, where all is new.
    pub changes: Option<ListedChanges>,
    /// Shared layers that are other than before, and how many nodes have them that were not built.
    pub beyond: BTreeMap<String, usize>,
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
    inputs: Digest,
    /// layer.tar.gz, where it travels inside other files.
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
    if let Some(built) = input.whole.and_then(|whole| unchanged(&output, whole)) {
        return Ok(built);
    }
    let known = output.inputs();
    require_free(input, &output)?;
    let (manifest, made_from) = make(input, &output, &known, progress)?;
    let changes = output.current().map(|current| ListedChanges::between(current, &manifest));
    let beyond = output.current().map(|current| beyond(input.plan, current, &manifest));
    let built = Built {
        beyond: beyond.unwrap_or_default(),
        ..Built::of(&manifest, Published::Unchanged { generation: 0, n_mended: 0 }, changes)
    };
    let published = output.publish(manifest, &made_from)?;
    Ok(Built { published, ..built })
}

/// What a build that starts from `whole` makes, if that is the current generation already and
/// all of it is there.
pub fn unchanged(output: &Output, whole: Digest) -> Option<Built> {
    let is_same = output.made_from().is_some_and(|made_from| made_from.digest == whole);
    let (generation, manifest) = is_same.then(|| output.untouched())??;
    let published = Published::Unchanged { generation, n_mended: 0 };
    Some(Built::of(manifest, published, Some(ListedChanges::default())))
}

/// Makes what `input` plans, hands it to `target`, and lists it. `known` is what the generation
/// before was made from.`made_one` is called for each node.
fn make(
    input: &BuildInput<'_>,
    target: &dyn Target,
    known: &Inputs,
    progress: &Progress,
) -> Result<(Manifest, Inputs), BuildError> {
    let before = Before::of(target, known);
    let whole = input.whole.map(|digest| Whole { digest, remarks: input.remarks });
    let mut made_from = Inputs { whole, ..Inputs::default() };
    let layers = build_layers(input, target, &before)?;
    made_from.layers = layers.iter().map(|(name, layer)| (name.clone(), layer.inputs)).collect();
    let mut manifest = Manifest::new(&input.cluster.name, Reproducible::Yes);
    manifest.allowed = input.cluster.allow.iter().map(|code| code.value.clone()).collect();
    manifest.layers =
        layers.iter().map(|(name, layer)| (name.clone(), layer.folder.clone())).collect();
    carry(input, target, known, &mut manifest, &mut made_from)?;
    let sums = layer_sums(&manifest.layers);
    // As the publication lists it; it is counted with the others here.
    manifest.files.insert(LAYER_SUMS.to_owned(), FileEntry::of(sums.as_bytes()));
    let shared = Shared::new(input.prepared, &layers, &sums)?;
    // Some of them list all nodes, and the values for that take more memory than the nodes do
    // when they are made: so it is done first.
    let shared_boot_files =
        shared_boot_files(input).map_err(|fault| template_problem(input, &fault))?;
    let groups: Vec<Vec<BuiltNode>> = input
        .plan
        .groups
        .par_iter()
        .map(|group| build_group(input, group, &shared, &before, target, progress))
        .collect::<Result<_, BuildError>>()?;
    for node in groups.into_iter().flatten() {
        made_from.nodes.insert(node.name.clone(), node.inputs);
        manifest.nodes.insert(node.name, node.entry);
    }
    manifest.pxe = build_boot_tree(input, target, &before, &made_from, shared_boot_files)?;
    manifest.boot = Some(boot_tree::cluster_boot(input.cluster));
    Ok((manifest, made_from))
}

/// What a build of some nodes changes for the others, which [`Built::beyond`] tells.
fn beyond(plan: &Plan, before: &Manifest, now: &Manifest) -> BTreeMap<String, usize> {
    let is_other = |layer: &&String| {
        let digest = |manifest: &Manifest| manifest.layers.get(*layer).map(|it| it.digest);
        digest(before).is_some() && digest(before) != digest(now)
    };
    let carried = plan.carried.iter().filter_map(|name| now.nodes.get(name.as_str()));
    let mut beyond = BTreeMap::new();
    for layer in carried.flat_map(|node| node.layers.iter().filter(is_other)) {
        *beyond.entry(layer.clone()).or_default() += 1;
    }
    beyond
}

/// Takes over the nodes that are not built, with the layers that only they have.
fn carry(
    input: &BuildInput<'_>,
    target: &dyn Target,
    known: &Inputs,
    manifest: &mut Manifest,
    made_from: &mut Inputs,
) -> Result<()> {
    let was_built =
        |name: &str| target.before().is_some_and(|before| before.nodes.contains_key(name));
    let mut layers = BTreeMap::new();
    let mut macs = BTreeMap::new();
    for name in input.plan.carried.iter().filter(|name| was_built(name.as_str())) {
        let node = target.carry_node(name.as_str())?;
        for layer in node.layers.iter().filter(|layer| !manifest.layers.contains_key(*layer)) {
            layers.insert(layer.clone(), target.carry_layer(layer)?);
        }
        macs.extend(node.macs.iter().map(|mac| (mac.clone(), name)));
        manifest.nodes.insert(name.to_string(), node);
        let inputs = known.nodes.get_key_value(name.as_str());
        made_from.nodes.extend(inputs.map(|(name, digest)| (name.clone(), *digest)));
    }
    manifest.layers.extend(layers);
    for node in input.plan.groups.iter().flat_map(|group| &group.nodes) {
        let node = &input.cluster.nodes[*node];
        let taken = node.nics.iter().find_map(|nic| macs.get_key_value(&nic.mac?.to_string()));
        if let Some((mac, other)) = taken {
            bail!(
                "{mac} of {} is still {other}'s, which is not built: build without --only",
                node.name
            );
        }
    }
    Ok(())
}

impl BuildInput<'_> {
    /// Where the installer of a kind's nodes gets its second stage.
    fn stage2(&self, kind: &Kind) -> Stage2 {
        match self.images.get(&kind.os.release.value) {
            Some(CachedImages { install_img: Some(_), .. }) => Stage2::BootServer,
            _ => Stage2::Mirror,
        }
    }
}

impl Built {
    fn of(manifest: &Manifest, published: Published, changes: Option<ListedChanges>) -> Self {
        let totals = manifest.totals();
        Self {
            published,
            n_nodes: manifest.nodes.len(),
            n_artifacts: totals.n_artifacts,
            size: ByteSize::from_bytes(totals.n_bytes),
            changes,
            beyond: BTreeMap::new(),
        }
    }
}

/// What the nodes' own artefacts refer to or take along.
struct Shared<'a> {
    layers: &'a BTreeMap<String, Layer>,
    layer_sums: &'a [u8],
    /// What every kickstart begins with.
    scripts: gzip::Ready,
    scripts_begin: Beginning,
}

impl<'a> Shared<'a> {
    fn new(
        prepared: &Prepared<'_>,
        layers: &'a BTreeMap<String, Layer>,
        layer_sums: &'a str,
    ) -> Result<Self> {
        let scripts = prepared.kickstart_scripts().as_bytes();
        Ok(Self {
            layers,
            layer_sums: layer_sums.as_bytes(),
            scripts: gzip::Ready::new(scripts).context("packing the kickstarts' scripts")?,
            scripts_begin: Beginning::new(scripts),
        })
    }

    fn layers_of(&self, names: &[String]) -> Vec<(String, &'a Layer)> {
        names.iter().map(|name| (name.clone(), &self.layers[name])).collect()
    }
}

/// A node's folder is some 100 KiB and, with its links in the boot tree, a dozen files. Those that
/// were built before may be as they were, and then take their links and no more; so do images.
fn require_free(input: &BuildInput<'_>, output: &Output) -> Result<()> {
    let n_nodes = input.plan.n_nodes() as u64;
    let before = output.current();
    let is_new = |at: &&usize| {
        let name = input.cluster.nodes[**at].name.as_str();
        before.is_none_or(|before| !before.nodes.contains_key(name))
    };
    let n_new =
        input.plan.groups.iter().flat_map(|group| &group.nodes).filter(is_new).count() as u64;
    let is_there = |name: &str, entry: &FileEntry| {
        before.is_some_and(|before| before.pxe.folder.files.get(name) == Some(entry))
    };
    let images = images(input).present.into_iter().map(|(name, _, entry)| (name, entry));
    let packages = input.repositories.iter().flat_map(|(id, repository)| {
        repository.files.iter().map(move |(name, entry)| (in_repository(id, name), *entry))
    });
    let taken: u64 = images
        .chain(packages)
        .filter(|(name, entry)| !is_there(name, entry))
        .map(|(_, entry)| entry.size)
        .sum();
    let needed =
        ByteSize::from_bytes(n_new * (128 << 10) + n_nodes * (4 << 10) + (16 << 20) + taken);
    let n_packages: usize = input.repositories.values().map(|it| it.files.len()).sum();
    output.require_free(needed, n_nodes * 12 + 100 + n_packages as u64)
}

fn build_layers(
    input: &BuildInput<'_>,
    target: &dyn Target,
    before: &Before<'_>,
) -> Result<BTreeMap<String, Layer>, BuildError> {
    let trees = input.prepared.layers().map_err(BuildError::Problems)?;
    let layers: Vec<(String, Layer)> = trees
        .into_par_iter()
        .map(|(name, tree)| {
            let layer = build_layer(input, &name, &tree, target, before)
                .with_context(|| format!("building the layer {name}"))?;
            Ok((name, layer))
        })
        .collect::<Result<_>>()?;
    Ok(layers.into_iter().collect())
}

fn build_layer(
    input: &BuildInput<'_>,
    name: &str,
    tree: &FileTree,
    target: &dyn Target,
    before: &Before<'_>,
) -> Result<Layer> {
    let inputs = inputs::of_layer(&input.program, tree);
    let is_tar_wanted = match input.cluster.boot.overlay.value {
        OverlayVia::Http => false,
        OverlayVia::Media | OverlayVia::Embedded => true,
    };
    if let Some(folder) = before.layer(name, &inputs).filter(|folder| target.has(folder)) {
        let tar = if is_tar_wanted { target.read(folder, plan::LAYER_TAR)? } else { Vec::new() };
        let is_whole = tar.is_empty() || FileEntry::of(&tar) == folder.files[plan::LAYER_TAR];
        if is_whole {
            return Ok(Layer { folder: folder.clone(), inputs, tar });
        }
        target.distrust(folder);
    }
    let packed = pack_layer(tree)?;
    let files = [
        NewFile { name: plan::LAYER_CPIO, contents: Contents::Bytes(&packed.cpio) },
        NewFile { name: plan::LAYER_TAR, contents: Contents::Bytes(&packed.tar) },
    ];
    let folder = target.stage(&files)?;
    let tar = if is_tar_wanted { packed.tar } else { Vec::new() };
    Ok(Layer { folder, inputs, tar })
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
    fn into_layer(self, inputs: Digest) -> Layer {
        let files = [(plan::LAYER_CPIO, &self.cpio), (plan::LAYER_TAR, &self.tar)];
        let entries = files.map(|(name, bytes)| (shared_name(name), FileEntry::of(bytes)));
        Layer { folder: Folder::of(BTreeMap::from(entries)), inputs, tar: self.tar }
    }
}

/// A node as it goes into the manifest, and what it was made from.
struct BuiltNode {
    name: String,
    entry: NodeEntry,
    inputs: Digest,
}

fn build_group(
    input: &BuildInput<'_>,
    group: &Group,
    shared: &Shared<'_>,
    before: &Before<'_>,
    target: &dyn Target,
    progress: &Progress,
) -> Result<Vec<BuiltNode>, BuildError> {
    let layers = shared.layers_of(input.prepared.layers_of(group.kind));
    let kind_inputs = inputs::of_kind(input, group.kind, &layers);
    // What shares much is made ready for the first node that is made anew.
    let mut maker = None;
    let mut built = Vec::with_capacity(group.nodes.len());
    for at in &group.nodes {
        let node = &input.cluster.nodes[*at];
        let inputs = inputs::of_node(input.cluster, node, &kind_inputs);
        let as_before = before.node(node.name.as_str(), &inputs);
        let folder = match as_before.map(|entry| reuse(input, node, entry, target)).transpose()? {
            Some(Some(folder)) => folder,
            _ => {
                let maker = maker.get_or_insert_with(|| Maker {
                    renderer: input.prepared.nodes_of_kind(group.kind),
                    install_begin: Beginnings::default(),
                });
                build_node(input, node, maker, &layers, shared, target).map_err(
                    |fault| match fault {
                        BuildError::World(fault) => {
                            BuildError::World(fault.context(format!("building {}", node.name)))
                        }
                        problems => problems,
                    },
                )?
            }
        };
        let entry = entry(input, node, folder);
        built.push(BuiltNode { name: node.name.to_string(), entry, inputs });
        progress.advance(1);
    }
    Ok(built)
}

/// What makes the nodes of one kind, one after another.
struct Maker<'p, 'a> {
    renderer: NodeRenderer<'p, 'a>,
    /// Of install.cpio.gz, up to the end of the scripts.
    install_begin: Beginnings,
}

/// The folder of a node that would be made as it stands in the store; its secrets are kept for
/// the generation to come. `None` if it has to be made again.
fn reuse(
    input: &BuildInput<'_>,
    node: &Node,
    before: &NodeEntry,
    target: &dyn Target,
) -> Result<Option<Folder>> {
    let secrets = &input.secrets[node.kind];
    // The digest of a secret kickstart would have to say what the secrets are.
    if is_kickstart_secret(input.cluster, secrets) || !target.has(&before.folder) {
        return Ok(None);
    }
    add_bundle(node.name.as_str(), secrets, target)?;
    Ok(Some(before.folder.clone()))
}

fn add_bundle(node: &str, secrets: &KindSecrets, target: &dyn Target) -> Result<()> {
    match secrets.is_empty() {
        true => Ok(()),
        false => target.add_secret(node, &format!("{node}.tar.gz"), secrets.bundle()),
    }
}

fn entry(input: &BuildInput<'_>, node: &Node, folder: Folder) -> NodeEntry {
    let kind = input.cluster.kind_of(node);
    let boot = kind.boot_nic();
    let others = node.nics.iter().enumerate().filter(|(at, _)| Some(*at) != boot);
    let macs = boot
        .and_then(|at| node.nics[at].mac)
        .into_iter()
        .chain(others.filter_map(|(_, nic)| nic.mac));
    NodeEntry {
        roles: kind.roles.iter().map(|role| role.value.clone()).collect(),
        layers: input.prepared.layers_of(node.kind).to_vec(),
        macs: macs.map(|mac| mac.to_string()).collect(),
        release: kind.os.release.value.clone(),
        folder,
        boot: boot_tree::node_boot(input.cluster, node, input.stage2(kind)),
    }
}

/// The files of one node, secret or not.
struct NodeArtifacts {
    /// What the archives hold.
    tree: FileTree,
    tar: Vec<u8>,
    tar_sha256: Digest,
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
    layers: &[(String, &Layer)],
    shared: &Shared<'_>,
    secrets: &KindSecrets,
) -> Result<NodeArtifacts, BuildError> {
    let tree = renderer.own_tree(node).map_err(BuildError::Problems)?;
    let tar = pack(&tree, Archive::Tar, gzip::Level::Fast).context("packing the overlay")?;
    let cpio = pack(&tree, Archive::Newc, gzip::Level::Fast).context("packing the overlay")?;
    let tar_sha256 = Digest::of(&tar);
    let root_hash = secrets.root_hash().filter(|_| is_kickstart_secret(cluster, secrets));
    let files = NodeFiles {
        overlay_sha256: tar_sha256.to_string(),
        embedded: embedded(cluster, node.name.as_str(), &tar, layers, shared, secrets)?,
        root_hash: root_hash.map(str::to_owned),
    };
    let kickstart = renderer.kickstart(node, files).map_err(BuildError::Problems)?;
    let install = install_archive(cluster, &kickstart, &tar, layers, shared)?;
    Ok(NodeArtifacts { tree, tar, tar_sha256, cpio, kickstart, install })
}

/// Makes and stages the files of one node; those that hold secrets go to the secret folder.
fn build_node(
    input: &BuildInput<'_>,
    node: &Node,
    maker: &mut Maker<'_, '_>,
    layers: &[(String, &Layer)],
    shared: &Shared<'_>,
    target: &dyn Target,
) -> Result<Folder, BuildError> {
    let secrets = &input.secrets[node.kind];
    let made = make_node(input.cluster, node, &mut maker.renderer, layers, shared, secrets)?;
    let name = node.name.as_str();
    let mut public = vec![
        NewFile { name: plan::OVERLAY_CPIO, contents: Contents::Bytes(&made.cpio) },
        NewFile {
            name: plan::OVERLAY_TAR,
            contents: Contents::Digested { bytes: &made.tar, sha256: made.tar_sha256 },
        },
    ];
    if is_kickstart_secret(input.cluster, secrets) {
        target.add_secret(name, &format!("{name}.ks"), made.kickstart.as_bytes())?;
        target.add_secret(name, &format!("{name}.install.cpio.gz"), &made.install)?;
    } else {
        let bytes = made.kickstart.as_bytes();
        let sha256 = shared.scripts_begin.digest(bytes);
        let contents = Contents::Digested { bytes, sha256 };
        public.push(NewFile { name: plan::KICKSTART, contents });
        let n_shared_bytes = shared.scripts.end_in(&made.install).unwrap_or(0);
        let sha256 = maker.install_begin.digest(&made.install, n_shared_bytes);
        let contents = Contents::Digested { bytes: &made.install, sha256 };
        public.push(NewFile { name: plan::INSTALL_CPIO, contents });
        add_bundle(name, secrets, target)?;
    }
    let folder = target.stage(&public)?;
    target.made(name, made);
    Ok(folder)
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
        .map(|(name, tree)| {
            let inputs = inputs::of_layer(&Digest::of(b""), tree);
            Ok((name.clone(), pack_layer(tree)?.into_layer(inputs)))
        })
        .collect::<Result<BTreeMap<String, Layer>>>()?;
    let folders = layers.iter().map(|(name, layer)| (name.clone(), layer.folder.clone())).collect();
    let sums = layer_sums(&folders);
    let shared = Shared::new(prepared, &layers, &sums)?;
    let mut renderer = prepared.nodes_of_kind(node.kind);
    let layers = shared.layers_of(prepared.layers_of(node.kind));
    let secrets = KindSecrets::default();
    Ok(make_node(cluster, node, &mut renderer, &layers, &shared, &secrets)?.kickstart)
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
    pack_around(&tree, Archive::Newc, gzip::Level::Fast, Some(&shared.scripts))
        .context("packing what the installer takes along")
}

fn template_problem(input: &BuildInput<'_>, fault: &TemplateError) -> BuildError {
    BuildError::Problems(vec![input.prepared.diagnostic(fault)])
}

/// The boot files of all nodes, with `shared`, those that are nobody's own, by path below `pxe/`;
/// and the images as far as they are in the cache.
///
/// A node's files are those of the current generation where it is made from the same as then.
fn build_boot_tree(
    input: &BuildInput<'_>,
    target: &dyn Target,
    before: &Before<'_>,
    made_from: &Inputs,
    shared: BTreeMap<String, String>,
) -> Result<PxeEntry, BuildError> {
    let tree = target.boot_tree();
    let add = |texts: BTreeMap<String, String>| -> Result<(), BuildError> {
        for (name, text) in texts {
            tree.add(&NewFile { name: &name, contents: Contents::Bytes(text.as_bytes()) })?;
            target.made_boot_file(&name, text);
        }
        Ok(())
    };
    // Made when a kind's first node wants one.
    let menus: Vec<OnceLock<KindMenus<'_>>> =
        input.cluster.kinds.iter().map(|_| OnceLock::new()).collect();
    let carried: BTreeSet<&str> = input.plan.carried.iter().map(NodeName::as_str).collect();
    input.cluster.nodes.par_iter().try_for_each(|node| -> Result<(), BuildError> {
        if carried.contains(node.name.as_str()) {
            // As it was, with the MAC address it had; one that was never built has none.
            return Ok(keep_menus(target, &tree, node.name.as_str())?);
        }
        let mac = input.cluster.boot_mac(node);
        if let Some(mac) = mac.filter(|_| before.is_same_node(node.name.as_str(), made_from))
            && tree.keep(&boot_tree::node_paths(mac))
        {
            return Ok(());
        }
        let menus = menus[node.kind].get_or_init(|| kind_menus(input, node.kind));
        add(menus.files(node).map_err(|fault| template_problem(input, &fault))?)
    })?;
    add(shared)?;
    let images = images(input);
    for (name, path, expected) in &images.present {
        let contents = Contents::Elsewhere { path, expected: *expected };
        tree.add(&NewFile { name, contents })?;
    }
    for (name, program) in input.boot_programs {
        let contents = Contents::Elsewhere { path: &program.path, expected: program.entry };
        tree.add(&NewFile { name, contents })?;
    }
    for (id, repository) in input.repositories {
        repository.files.par_iter().try_for_each(|(name, expected)| {
            let path = repository.folder.join(name);
            let contents = Contents::Elsewhere { path: &path, expected: *expected };
            tree.add(&NewFile { name: &in_repository(id, name), contents }).with_context(|| {
                format!("taking [repo.{id}] from the cache, {}", repository.folder.display())
            })
        })?;
    }
    let folder = tree.finish()?;
    Ok(PxeEntry { folder, pending: images.pending })
}

/// Where a file of a repository stands below `pxe/`.
fn in_repository(id: &str, name: &str) -> String {
    format!("repos/{id}/{name}")
}

/// Takes over the boot menus of a node that is not built.
fn keep_menus(target: &dyn Target, tree: &Filling<'_>, node: &str) -> Result<()> {
    let entry = target.before().and_then(|before| before.nodes.get(node));
    let Some(mac) = entry.filter(|it| it.boot.is_some()).and_then(|it| it.macs.first()) else {
        return Ok(());
    };
    let mac: MacAddr =
        mac.parse().with_context(|| format!("the manifest's MAC address of {node}"))?;
    ensure!(
        tree.keep(&boot_tree::node_paths(mac)),
        "the boot menus of {node} were changed or lost; build without --only once"
    );
    Ok(())
}

fn kind_menus<'a>(input: &BuildInput<'a>, kind: usize) -> KindMenus<'a> {
    let kind = &input.cluster.kinds[kind];
    KindMenus::of(input.prepared.templates(), input.cluster, kind, input.stage2(kind))
}

/// The boot files that all nodes share, by path below `pxe/`.
fn shared_boot_files(input: &BuildInput<'_>) -> Result<BTreeMap<String, String>, TemplateError> {
    boot_tree::shared_files(input.prepared.templates(), input.cluster)
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
