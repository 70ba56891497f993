//! Which artefacts a build makes, and from what: plain data that can be printed.

use std::collections::BTreeSet;

use crate::cluster::Cluster;
use crate::range::NodeName;

/// The kickstart, of a node's folder.
pub const KICKSTART: &str = "kickstart.ks";
/// The node's own layer for `%post` and images.
pub const OVERLAY_TAR: &str = "overlay.tar.gz";
/// The node's own layer for stateless boots: appended to an initrd after the shared layers.
pub const OVERLAY_CPIO: &str = "overlay.cpio.gz";
/// What the installer's initrd carries beside the installer.
pub const INSTALL_CPIO: &str = "install.cpio.gz";
/// A shared layer for `%post` and images.
pub const LAYER_TAR: &str = "layer.tar.gz";
/// A shared layer for stateless boots.
pub const LAYER_CPIO: &str = "layer.cpio.gz";

/// What to build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The shared layers, each with its overlays.
    pub layers: Vec<(String, Vec<String>)>,
    /// The nodes to render, by their place in [`Cluster::nodes`], grouped by kind.
    pub groups: Vec<Group>,
    /// The nodes that stay as they are in the current generation.
    pub carried: Vec<NodeName>,
}

/// Nodes of one kind that are rendered one after another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub kind: usize,
    pub nodes: Vec<usize>,
}

/// How many nodes a thread takes at a time: enough that copying what their kind shares does
/// not count, few enough that all threads have work to the end.
const GROUP_SIZE: usize = 128;

impl Plan {
    /// The plan for the nodes in `only`; equal clusters give equal plans.
    pub fn of(cluster: &Cluster, only: &BTreeSet<NodeName>) -> Self {
        let layers = cluster.layers.iter().map(|(name, overlays)| {
            (name.clone(), overlays.iter().map(|overlay| overlay.value.clone()).collect())
        });
        let mut of_kind: Vec<Vec<usize>> = vec![Vec::new(); cluster.kinds.len()];
        let mut carried = Vec::new();
        for (at, node) in cluster.nodes.iter().enumerate() {
            match only.contains(&node.name) {
                true => of_kind[node.kind].push(at),
                false => carried.push(node.name.clone()),
            }
        }
        let groups = of_kind.iter().enumerate().flat_map(|(kind, nodes)| {
            nodes.chunks(GROUP_SIZE).map(move |nodes| Group { kind, nodes: nodes.to_vec() })
        });
        Self { layers: layers.collect(), groups: groups.collect(), carried }
    }

    pub fn n_nodes(&self) -> usize {
        self.groups.iter().map(|group| group.nodes.len()).sum()
    }
}
