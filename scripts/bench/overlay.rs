//! Renders and packs the own files of each node of a cluster, as a build does, and nothing else.
//!
//!     overlay CLUSTER.toml FOLDER prepare|all
//!
//! With `prepare` it stops before the first node: the difference is what the nodes cost.

use std::fs;
use std::path::Path;

use nodeforge::cluster::{Cluster, Resolved};
use nodeforge::diag::Problems;
use nodeforge::format::{Archive, gzip, pack};
use nodeforge::media::boot_tree;
use nodeforge::render::prepared;
use nodeforge::source;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|it| it != "--bench").collect();
    let [cluster, folder, work] = arguments.as_slice() else {
        panic!("usage: overlay CLUSTER.toml FOLDER prepare|all");
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
    for kind in 0..cluster.kinds.len() {
        let mut renderer = prepared.nodes_of_kind(kind);
        for node in cluster.nodes.iter().filter(|node| node.kind == kind) {
            let tree = renderer.own_tree(node).unwrap_or_else(|_| panic!("{} fails", node.name));
            let packed = pack(&tree, Archive::Newc, gzip::Level::Fast).expect("it can be packed");
            let path = Path::new(folder).join(format!("{}.cpio.gz", node.name));
            fs::write(path, packed).expect("it can be written");
        }
    }
}
