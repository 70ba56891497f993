//! Makes a part of each node of a cluster, as a build does, and nothing else.
//!
//!     overlay CLUSTER.toml FOLDER prepare|overlays|boot
//!
//! `overlays` renders and packs the own files of each node, `boot` renders its kickstart and its
//! boot menus. With `prepare` it stops before the first node: the difference is what the nodes cost.

use std::fs;
use std::path::Path;

use nodeforge::cluster::{Cluster, Node, Resolved};
use nodeforge::diag::Problems;
use nodeforge::format::digest::Digest;
use nodeforge::format::{Archive, gzip, pack};
use nodeforge::media::boot_tree::{self, KindMenus, Stage2};
use nodeforge::render::install::NodeFiles;
use nodeforge::render::prepared::{self, NodeRenderer};
use nodeforge::source;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|it| it != "--bench").collect();
    let [cluster, folder, work] = arguments.as_slice() else {
        panic!("usage: overlay CLUSTER.toml FOLDER prepare|overlays|boot");
    };
    let mut source = source::read(Path::new(cluster), None).expect("the file can be read");
    let mut problems = std::mem::take(&mut source.problems);
    let resolved = Cluster::resolve_as_far(&source.doc, &source.map, &mut problems);
    let Resolved::Whole(cluster) = resolved else { panic!("the cluster has errors") };
    let mut problems = Problems::default();
    let (library, map) = (&source.library, &mut source.map);
    let prepared = prepared::prepare(&cluster, library, boot_tree::TEMPLATES, map, &mut problems)
        .expect("the library has no errors");
    if work == "prepare" {
        return;
    }
    let folder = Path::new(folder);
    for (at, kind) in cluster.kinds.iter().enumerate() {
        let mut renderer = prepared.nodes_of_kind(at);
        let menus = KindMenus::of(prepared.templates(), &cluster, kind, Stage2::Mirror);
        for node in cluster.nodes.iter().filter(|node| node.kind == at) {
            match work.as_str() {
                "overlays" => write_overlay(folder, node, &mut renderer),
                _ => write_boot_files(folder, node, &mut renderer, &menus),
            }
        }
    }
}

fn write_overlay(folder: &Path, node: &Node, renderer: &mut NodeRenderer<'_, '_>) {
    let tree = renderer.own_tree(node).unwrap_or_else(|_| panic!("{} fails", node.name));
    let packed = pack(&tree, Archive::Newc, gzip::Level::Fast).expect("it can be packed");
    let path = folder.join(format!("{}.cpio.gz", node.name));
    fs::write(path, packed).expect("it can be written");
}

fn write_boot_files(
    folder: &Path,
    node: &Node,
    renderer: &mut NodeRenderer<'_, '_>,
    menus: &KindMenus<'_>,
) {
    // Of an overlay that is packed elsewhere, there is only the digest in a kickstart.
    let overlay_sha256 = Digest::of(node.name.as_str().as_bytes()).to_string();
    let files = NodeFiles { overlay_sha256, embedded: Vec::new(), root_hash: None };
    let kickstart = renderer.kickstart(node, files);
    let kickstart = kickstart.unwrap_or_else(|_| panic!("{}'s kickstart fails", node.name));
    let path = folder.join(format!("{}.ks", node.name));
    fs::write(path, kickstart).expect("it can be written");
    let menus = menus.files(node).unwrap_or_else(|_| panic!("{}'s menus fail", node.name));
    assert_eq!(menus.len(), 3, "of PXELINUX, GRUB and iPXE");
    for (name, text) in menus {
        fs::write(folder.join(name.replace('/', "-")), text).expect("it can be written");
    }
}
