//! What nodes get from a medium: as a build makes it, but in memory, and with everything on the
//! medium, whatever `[boot]` says of overlay and secrets.

use std::collections::BTreeMap;

use anyhow::Context;

use crate::build::{BuildError, Layer, inputs, pack_layer};
use crate::cluster::{Cluster, Node, OverlayVia, SecretsVia};
use crate::format::digest::Digest;
use crate::format::{Archive, gzip, pack};
use crate::manifest::layer_sums;
use crate::media::node::NodeMedium;
use crate::render::install::NodeFiles;
use crate::render::prepared::{NodeRenderer, Prepared};
use crate::secrets::KindSecrets;
use crate::units::ByteSize;

/// Sets `cluster` to what holds for nodes that are installed from a medium: there is no kernel
/// line with a token, and no boot server that has the node's overlay.
pub fn from_media(cluster: &mut Cluster) {
    cluster.boot.overlay.value = OverlayVia::Media;
    cluster.boot.secrets.value = SecretsVia::Media;
}

/// Makes the files of nodes; what they share is made once.
pub struct MediaBuilder<'a> {
    prepared: &'a Prepared<'a>,
    cluster: &'a Cluster,
    /// By the order of [`Cluster::kinds`].
    secrets: &'a [KindSecrets],
    layers: BTreeMap<String, Layer>,
    layer_sums: String,
}

impl<'a> MediaBuilder<'a> {
    /// `cluster` is one [`from_media`], and `prepared` is of it.
    ///
    /// # Errors
    ///
    /// [`BuildError`], as for a build.
    pub fn new(
        prepared: &'a Prepared<'a>,
        cluster: &'a Cluster,
        secrets: &'a [KindSecrets],
    ) -> Result<Self, BuildError> {
        let trees = prepared.layers().map_err(BuildError::Problems)?;
        let mut layers = BTreeMap::new();
        for (name, tree) in trees {
            let inputs = inputs::of_layer(&Digest::of(b""), &tree);
            layers.insert(name, pack_layer(&tree)?.into_layer(inputs));
        }
        let folders = layers.iter().map(|(name, layer)| (name.clone(), layer.folder.clone()));
        let layer_sums = layer_sums(&folders.collect());
        Ok(Self { prepared, cluster, secrets, layers, layer_sums })
    }

    /// What renders the nodes of one kind, for [`node`](Self::node).
    pub fn renderer(&self, kind: usize) -> NodeRenderer<'_, 'a> {
        self.prepared.nodes_of_kind(kind)
    }

    /// What `node` gets; `renderer` is of its kind.
    ///
    /// # Errors
    ///
    /// [`BuildError`], as for a build.
    pub fn node(
        &self,
        node: &'a Node,
        renderer: &mut NodeRenderer<'_, 'a>,
    ) -> Result<NodeMedium<'_>, BuildError> {
        let tree = renderer.own_tree(node).map_err(BuildError::Problems)?;
        let overlay =
            pack(&tree, Archive::Tar, gzip::Level::Fast).context("packing the overlay")?;
        let overlay_sha256 = Digest::of(&overlay).to_string();
        let files = NodeFiles { overlay_sha256, ..NodeFiles::default() };
        let kickstart = renderer.kickstart(node, files).map_err(BuildError::Problems)?;
        let names = self.prepared.layers_of(node.kind).iter();
        let layers = names.map(|name| (name.as_str(), self.layers[name].tar.as_slice()));
        Ok(NodeMedium {
            name: node.name.as_str(),
            kickstart,
            overlay,
            layers: layers.collect(),
            layer_sums: self.layer_sums.as_bytes(),
            secrets: self.secrets[node.kind].bundle(),
        })
    }

    /// Bytes of all shared layers together.
    pub fn shared_size(&self) -> ByteSize {
        ByteSize::from_bytes(self.layers.values().map(|layer| layer.tar.len() as u64).sum())
    }

    /// Whether what `node` gets has to be kept like a password.
    pub fn has_secrets(&self, node: &Node) -> bool {
        !self.secrets[node.kind].is_empty()
    }

    pub fn cluster(&self) -> &'a Cluster {
        self.cluster
    }

    pub fn prepared(&self) -> &'a Prepared<'a> {
        self.prepared
    }
}
