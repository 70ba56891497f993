//! What must hold for any bytes from outside: one function a kind of input, none of which panics.
//!
//! The fuzzer runs them on nightly (`make fuzz`); `tests/fuzzing.rs` replays the corpus and tries
//! random bytes on stable.

use std::borrow::Cow;
use std::path::PathBuf;

use nodeforge::builtin;
use nodeforge::cluster::doc::{self, ClusterDoc, Document};
use nodeforge::cluster::{Cluster, Resolved};
use nodeforge::daos;
use nodeforge::diag::{Color, Problems, SourceMap};
use nodeforge::format::{Archive, gzip, listing_of, pack};
use nodeforge::hardware::{self, Facts};
use nodeforge::manifest::{Manifest, SecretManifest};
use nodeforge::overlay::{self, LibraryFile, LibraryFiles};
use nodeforge::profile;
use nodeforge::range;
use nodeforge::render::context;
use nodeforge::render::template::{Templates, Values};
use nodeforge::tree::{FileTree, Mode, TreePath};

/// A kind of input and what is tried with it.
pub type Target = (&'static str, fn(&[u8]));

/// All of them, by the names of their folders in corpus/.
pub const TARGETS: [Target; 11] = [
    ("captures", captures),
    ("cluster", cluster),
    ("expressions", expressions),
    ("gzip", gzips),
    ("inventory", inventory),
    ("manifest", manifest),
    ("newc", newc),
    ("overlay", overlays),
    ("ranges", ranges),
    ("tar", tar),
    ("templates", templates),
];

/// No input of interest is larger, and none shall take long.
const MAX_BYTES: usize = 1 << 20;

const CLUSTER: &str = r#"format = 1
[cluster]
name = "fuzz"
[boot]
url = "http://10.0.0.2"
[os]
release = "8.10"
[daos]
version = "2.6.5"
provider = "ofi+tcp"
access_points = ["srv1"]
security = "insecure"
[net.lan]
subnet = "10.0.0.0/16"
[hw.pc]
firmware = "uefi"
memory = "16GiB"
cores = 8
install_disk = { bus = "sata" }
nic.lan = { name = "lan0", net = "lan", boot = true }
[node."srv[1-3]"]
hw = "pc"
roles = ["client"]
"#;

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes.get(..MAX_BYTES).unwrap_or(bytes)).ok()
}

/// A cluster file as a user writes it: every problem is told and drawn.
pub fn cluster(bytes: &[u8]) {
    if let Some(text) = text(bytes) {
        check(text, "");
    }
}

/// The rows that an inventory may have.
pub fn inventory(bytes: &[u8]) {
    let columns =
        r#"facts = { csv = "rows.csv", key = "name", columns = ["mac.lan", "ip.lan", "serial"] }"#;
    if let Some(rows) = text(bytes) {
        check(&format!("{CLUSTER}{columns}\n"), rows);
    }
}

/// What may stand where an address is worked out of a node's name.
pub fn expressions(bytes: &[u8]) {
    if let Some(text) = text(bytes) {
        let quoted = serde_json::to_string(text).expect("text can be quoted");
        check(&format!("{CLUSTER}nic.lan.ip = {quoted}\nserial = {quoted}\n"), "");
    }
}

fn check(cluster: &str, rows: &str) {
    let (mut map, mut problems) = (SourceMap::default(), Problems::default());
    let source = map.add(PathBuf::from("cluster.toml"), cluster.to_owned());
    let (table, is_partial) = doc::parse(&map, source, &mut problems);
    let mut doc = ClusterDoc::default();
    for (path, _) in doc::inventories(&table) {
        doc.inventories.insert(PathBuf::from(path), map.add(path.into(), rows.to_owned()));
    }
    for (path, file) in &builtin::files() {
        let name = path.strip_prefix("profiles/").and_then(|name| name.strip_suffix(".toml"));
        if let Some(name) = name {
            let text = String::from_utf8(file.bytes.to_vec()).expect("profiles are text");
            let source = map.add(file.shown.clone(), text);
            doc.profiles.insert(name.to_owned(), profile::parse(&map, source, &mut problems));
        }
    }
    let folder = PathBuf::new();
    doc.documents.push(Document { source, table, folder, is_partial });
    match Cluster::resolve_as_far(&doc, &map, &mut problems) {
        Resolved::Whole(cluster) => daos::rules::check(&cluster, &mut problems),
        Resolved::Partly(cluster) => {
            daos::rules::check_partly(&cluster, &doc.values(), &mut problems);
        }
        Resolved::Nothing => {}
    }
    for problem in problems.into_sorted() {
        nodeforge::diag::render(&problem, &map, Color::Never);
    }
}

/// `srv[1-3,7]`: what it stands for can be folded and unfolded again.
pub fn ranges(bytes: &[u8]) {
    let Some(Ok(names)) = text(bytes).map(range::expand) else { return };
    let again = range::expand(&range::fold(&names)).expect("a folded range is a range");
    let sorted = |mut names: Vec<range::NodeName>| {
        names.sort();
        names
    };
    assert_eq!(sorted(again), sorted(names));
}

/// A template: it renders or says why not, and its settled form gives the same.
pub fn templates(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let mut templates = Templates::new();
    if templates.add("fuzz", text).is_err() {
        return;
    }
    let sample = context::sample();
    let values = Values::of(&sample);
    templates.undefined("fuzz", &sample, context::OPEN_ROOTS);
    let rendered = templates.render_values("fuzz", &values);
    for changing in [&[&["node"][..]][..], &[&["hosts"][..], &["os", "release"][..]][..]] {
        let settled = templates.settle("fuzz", &values, changing);
        assert_eq!(templates.render_settled(&settled, &values), rendered);
    }
}

pub fn newc(bytes: &[u8]) {
    archive(Archive::Newc, bytes);
}

pub fn tar(bytes: &[u8]) {
    archive(Archive::Tar, bytes);
}

/// An archive of somebody: what can be listed has clean paths. And one of ours, whose file is
/// those bytes: what is listed is what was packed.
fn archive(archive: Archive, bytes: &[u8]) {
    if let Ok(listing) = archive.list(bytes) {
        assert!(listing.iter().all(|it| TreePath::is_clean(it.path.as_str())));
    }
    let mut tree = FileTree::default();
    tree.add_file("fuzz", Mode::FILE, bytes, "fuzz").expect("the tree is empty");
    let mut plain = Vec::new();
    archive.write(&tree, &mut plain).expect("memory takes all that is written");
    assert_eq!(archive.list(&plain).expect("our own archive can be read"), listing_of(&tree));
}

/// A gzip file of somebody, and the bytes packed by us.
pub fn gzips(bytes: &[u8]) {
    let mut plain = Vec::new();
    if gzip::read(bytes, MAX_BYTES, &mut plain).is_ok() {
        assert!(plain.len() <= MAX_BYTES);
    }
    let mut tree = FileTree::default();
    tree.add_file("fuzz", Mode::FILE, bytes, "fuzz").expect("the tree is empty");
    for level in [gzip::Level::Fast, gzip::Level::Small] {
        // It reads back what it wrote, and fails where that differs.
        pack(&tree, Archive::Newc, level).expect("a small file can be packed");
    }
}

/// The lists of a generation: what is read is written and read again as the same.
pub fn manifest(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::from_json(bytes) {
        let mut json = Vec::new();
        manifest.write_json(&mut json).expect("memory takes all that is written");
        assert_eq!(Manifest::from_json(&json).expect("our own list can be read"), manifest);
        let sizes = manifest.artifacts().map(|artifact| artifact.file.size);
        let n_bytes = sizes.fold(0, u64::saturating_add);
        assert_eq!(manifest.totals().n_bytes, n_bytes);
    }
    if let Ok(secrets) = SecretManifest::from_json(bytes) {
        let mut json = Vec::new();
        secrets.write_json(&mut json).expect("memory takes all that is written");
        assert_eq!(SecretManifest::from_json(&json).expect("our own can be read"), secrets);
    }
}

/// What lspci, lsblk, dmidecode, daos_server and others print.
pub fn captures(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let mut facts = Facts::default();
    if hardware::read("capture", text, &mut facts).is_ok() {
        hardware::block(&hardware::choose(&facts, None));
        facts.to_json();
    }
}

/// A site's overlay.toml, with a file beside it that it may speak of.
pub fn overlays(bytes: &[u8]) {
    let file = |bytes: &[u8]| LibraryFile {
        shown: PathBuf::from("site"),
        bytes: Cow::Owned(bytes.to_vec()),
    };
    let files = LibraryFiles::from([
        ("overlays/fuzz/overlay.toml".to_owned(), file(bytes)),
        ("overlays/fuzz/rootfs/etc/fuzz.hbs".to_owned(), file(b"{{node.name}}\n")),
        ("overlays/fuzz/rootfs/usr/bin/fuzz".to_owned(), file(b"#!/bin/sh\n")),
    ]);
    let (mut sources, mut problems) = (SourceMap::default(), Problems::default());
    overlay::read(&files, &mut sources, &mut problems);
    for problem in problems.into_sorted() {
        nodeforge::diag::render(&problem, &sources, Color::Never);
    }
}
