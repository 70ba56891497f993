//! What each artefact follows from, as digests: where they are equal, nothing is made again.
//!
//! A digest may cover more than its artefact needs, never less: then something is made
//! again and found equal. What one node has of its own is hashed as it stands in the model,
//! which is quick; what its kind and the cluster give it is hashed once for all of them.

use std::fmt::Write;

use crate::build::{BuildInput, Layer};
use crate::cluster::{Cluster, Node, OverlayVia};
use crate::format::digest::{Digest, Hasher};
use crate::tree::FileTree;

/// What the nodes of one kind share of what they are made from.
///
/// `layers` are the kind's shared layers; they count where they travel inside the nodes' own
/// files.
pub(super) fn of_kind(input: &BuildInput<'_>, kind: usize, layers: &[(String, &Layer)]) -> Hasher {
    let (cluster, model) = (input.cluster, &input.cluster.kinds[kind]);
    let mut text = format!("{}\n", input.prepared.kind_fingerprint(kind));
    let boot = (&cluster.boot.overlay.value, &cluster.boot.secrets.value, &model.hw.disk_boot);
    let n_secrets = input.secrets[kind].bundle().len();
    write_line(&mut text, &(boot, input.stage2(model), n_secrets > 0, model.primary_nic()));
    for nic in &model.hw.nics {
        let names = (&nic.key, &nic.name.value, nic.net.as_deref());
        let place = (nic.pci.as_deref(), nic.domain.as_deref(), nic.numa.as_deref());
        write_line(&mut text, &(names, place, nic.is_boot, nic.mtu, &nic.link));
    }
    if cluster.boot.overlay.value != OverlayVia::Http {
        layers.iter().for_each(|(name, layer)| write_line(&mut text, &(name, layer.folder.digest)));
    }
    let mut hasher = Hasher::default();
    hasher.update(input.program.as_bytes());
    hasher.update(text.as_bytes());
    hasher
}

/// What one node is made from; `kind` is of its kind.
pub(super) fn of_node(cluster: &Cluster, node: &Node, kind: &Hasher) -> Digest {
    let mut text = String::with_capacity(256);
    let formats = cluster.daos.format_by.as_ref().is_some_and(|admin| admin.value == node.name);
    write_line(&mut text, &(node.name.as_str(), &node.rack, &node.serial, &node.fault_path));
    write_line(&mut text, &(formats, node.bmc_ip));
    for nic in &node.nics {
        write_line(&mut text, &(nic.ip, nic.mac, nic.guid));
    }
    let mut hasher = kind.clone();
    hasher.update(text.as_bytes());
    hasher.finish()
}

/// What a layer is made from: what is in it, and the program that packs it.
pub(super) fn of_layer(program: &Digest, tree: &FileTree) -> Digest {
    let mut hasher = Hasher::default();
    hasher.update(program.as_bytes());
    tree.describe(|bytes| hasher.update(bytes));
    hasher.finish()
}

/// Debug output of plain values: no two different ones look alike.
fn write_line<T: std::fmt::Debug>(text: &mut String, values: &T) {
    writeln!(text, "{values:?}").expect("a string takes all that is written");
}
