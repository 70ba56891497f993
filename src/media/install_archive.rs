//! What the installer's initrd carries beside the installer: kickstart and overlay.
//!
//! dracut hands `/*cfg` and `/*ks` of the initrd over to the installer's root and nothing
//! else (anaconda 33.16.9.5, dracut/anaconda-copy-ks.sh), so every file here is named so.
//! This is not the node's overlay: a root-shaped archive on the installer's initrd would
//! change the installer and never reach the node.

use crate::tree::{AddError, FileTree, Mode};

/// The kickstart, which `inst.ks=file:/ks.cfg` names.
pub const KICKSTART: &str = "ks.cfg";
/// The node's own overlay.
pub const OVERLAY: &str = "nodeforge-overlay.tar.gz.ks";
/// The digests of the shared layers.
pub const LAYER_SUMS: &str = "nodeforge-SHA256SUMS.ks";

/// The node's bundle of secrets.
pub const SECRETS: &str = "nodeforge-secrets.tar.gz.ks";

/// The name of a shared layer.
pub fn layer(role: &str) -> String {
    format!("nodeforge-layer-{role}.tar.gz.ks")
}

/// One file for the installer.
#[derive(Clone, Copy, Debug)]
pub struct Handed<'a> {
    pub name: &'a str,
    pub contents: &'a [u8],
}

/// The tree of install.cpio.gz.
///
/// # Errors
///
/// Fails if two files have one name.
pub fn tree(files: &[Handed<'_>]) -> Result<FileTree, AddError> {
    let mut tree = FileTree::default();
    for file in files {
        tree.add_file(file.name, Mode::SECRET, file.contents, "install")?;
    }
    Ok(tree)
}
