//! `nodeforge media`: ISOs, OEMDRV volumes and seeds, before judges that mount, list and check them.

pub mod dvd;
mod iso;
mod scripts;
mod volumes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use crate::examples::{copy_with_secrets, nodeforge, printed};
use crate::oracles::archives::{extract, stand_in_cpio};
use crate::support;

/// The reference cluster, and media of its nodes.
pub struct Lab {
    /// Holds a copy of examples/ with throw-away secrets, and what was made.
    pub folder: PathBuf,
}

impl Lab {
    /// Volumes of all nodes in `volumes`.
    pub fn volumes() -> &'static Self {
        static LAB: OnceLock<Lab> = OnceLock::new();
        LAB.get_or_init(|| {
            let lab = Self::new("volumes");
            for what in ["oemdrv", "seed"] {
                printed(&lab.folder, &["media", what, "lab3.toml", "node[0-2]", "-o", "made"]);
            }
            lab
        })
    }

    /// The stand-in ISO, an ISO for all nodes, and those of node0 and node1, in `made`.
    pub fn isos() -> &'static Self {
        static LAB: OnceLock<Lab> = OnceLock::new();
        LAB.get_or_init(|| {
            let lab = Self::new("isos");
            let base = dvd::make(&lab.folder, &installer(&lab.folder), None);
            let base = base.to_str().unwrap();
            printed(&lab.folder, &["media", "iso", "lab3.toml", "--base", base, "-o", "made"]);
            let one = ["media", "iso", "lab3.toml", "--base", base, "--node", "node[0-1]"];
            printed(&lab.folder, &[&one[..], &["-o", "made"]].concat());
            lab
        })
    }

    fn new(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("media").join(name);
        if folder.exists() {
            std::fs::remove_dir_all(&folder).unwrap();
        }
        copy_with_secrets(&folder, "lab3.toml");
        Self { folder }
    }

    pub fn made(&self, name: &str) -> PathBuf {
        self.folder.join("made").join(name)
    }

    pub fn base(&self) -> PathBuf {
        self.folder.join("AlmaLinux-8.9-x86_64-dvd.iso")
    }
}

/// What `nodeforge arguments…` says in `folder`, and whether it was content.
fn nodeforge_in(folder: &Path, arguments: &[&str]) -> (bool, String) {
    let output: Output = Command::new(nodeforge())
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (output.status.success(), support::spoken_lines(&output).join("\n"))
}

/// The words that the stand-in installer begins and ends with.
pub const BEGINS: &str = "nodeforge-boot-test: begin";
pub const ENDS: &str = "nodeforge-boot-test: end";

/// An initrd that tells the kernel line and the digests of the files in its root.
fn installer(folder: &Path) -> PathBuf {
    let init = "#!/bin/busybox sh
b=/bin/busybox
$b mkdir -p /proc
$b mount -t proc proc /proc
$b echo
$b echo 'nodeforge-boot-test: begin'
$b cat /proc/cmdline
for file in /*; do
    [ ! -f \"$file\" ] || $b sha256sum \"$file\"
done
$b echo 'nodeforge-boot-test: end'
$b sleep 60
$b poweroff -f
";
    let tree = crate::boot::tree_with(init);
    let initrd = folder.join("initrd.img");
    stand_in_cpio(tree.path(), &initrd);
    initrd
}

/// What the area of an ISO unpacks to, as bsdtar reads it: contents by name.
#[track_caller]
pub fn area_files(iso: &Path) -> BTreeMap<String, Vec<u8>> {
    let folder = support::scratch();
    let area = folder.path().join("node.img");
    std::fs::write(&area, dvd::file_of(iso, "isolinux/node.img")).unwrap();
    let tree = support::scratch();
    extract(&area, tree.path());
    files_of(tree.path())
}

/// What is in a FAT volume, as mtools reads it: contents by name.
#[track_caller]
pub fn volume_files(volume: &Path) -> BTreeMap<String, Vec<u8>> {
    let tree = support::scratch();
    let to = format!("{}/", tree.path().display());
    dvd::run("mcopy", &["-n", "-i", volume.to_str().unwrap(), "::*", &to]);
    files_of(tree.path())
}

fn files_of(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = support::files_below(folder, |_| true);
    names
        .into_iter()
        .map(|name| (name.clone(), std::fs::read(folder.join(name)).unwrap()))
        .collect()
}
