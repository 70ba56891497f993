//! Everything that one build published, before every judge: one call.
//!
//! 514 nodes have a handful of distinct trees. What a program has to be started for is judged
//! once for each distinct input; what costs nothing is judged for every node.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use regex::bytes::Regex;

use super::{archives, boot_menus, documents, kickstart, node_files, scripts, systemd};
use crate::support::{self, files_below, listing};

/// The programs that [`findings`] starts; see [`support::lacks`].
pub const NEEDS: [&str; 9] = [
    "bsdtar",
    "cpio",
    "dnsmasq",
    "grub-script-check",
    "gzip",
    "ksvalidator",
    "python",
    "shellcheck",
    "systemd-analyze",
];

/// A node of a build.
#[derive(Clone, Debug)]
pub struct Node {
    pub name: String,
    /// The shared layers below its own, in the order in which they are unpacked.
    pub layers: Vec<String>,
}

/// All that is wrong with the build that `current` leads to.
pub fn findings(current: &Path, nodes: &[Node]) -> Vec<String> {
    let unpacked = support::scratch();
    let mut found = node_folder_faults(current, nodes);
    if !found.is_empty() {
        return found;
    }
    found.extend(kickstart_faults(current, nodes));
    for node in nodes {
        found.extend(archive_faults(current, node, unpacked.path()));
    }
    for layer in layers_of(nodes) {
        let archive = current.join(format!("layers/{layer}/layer.tar.gz"));
        unpack(&[&archive], &unpacked.path().join("layers").join(layer));
    }
    found.extend(content_faults(unpacked.path()));
    for representative in distinct_nodes(unpacked.path(), nodes) {
        found.extend(whole_tree_faults(current, representative));
    }
    found.extend(boot_menus::findings(&current.join("pxe")));
    found.extend(archives::sha256sums(current));
    found.extend(archives::sha256sums(&current.join("layers")));
    found.extend(secrecy_faults(current, unpacked.path()));
    found
}

/// What every node has; exactly these.
const NODE_FILES: [&str; 4] =
    ["install.cpio.gz", "kickstart.ks", "overlay.cpio.gz", "overlay.tar.gz"];

fn node_folder_faults(current: &Path, nodes: &[Node]) -> Vec<String> {
    let names_in = |path: &Path| -> BTreeSet<String> {
        let entries = path.read_dir().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let wanted = nodes.iter().map(|node| node.name.clone()).collect();
    let mut found = set_faults("nodes", &wanted, &names_in(&current.join("nodes")));
    let files = NODE_FILES.iter().map(|name| (*name).to_owned()).collect();
    for name in &wanted {
        let folder = format!("nodes/{name}");
        let path = current.join(&folder);
        let there = if path.exists() { names_in(&path) } else { BTreeSet::new() };
        found.extend(set_faults(&folder, &files, &there));
    }
    found
}

fn set_faults(folder: &str, wanted: &BTreeSet<String>, there: &BTreeSet<String>) -> Vec<String> {
    let missing = wanted.difference(there).map(|name| format!("{folder}/{name}: missing"));
    let foreign = there.difference(wanted).map(|name| format!("{folder}/{name}: foreign"));
    missing.chain(foreign).collect()
}

fn kickstart_faults(current: &Path, nodes: &[Node]) -> Vec<String> {
    let path_of = |node: &Node| current.join(format!("nodes/{}/kickstart.ks", node.name));
    let paths: Vec<PathBuf> = nodes.iter().map(path_of).collect();
    let mut found = kickstart::ksvalidator(&paths.iter().map(|path| &**path).collect::<Vec<_>>());
    let sections = paths.iter().flat_map(|path| {
        let text = std::fs::read_to_string(path).unwrap();
        kickstart::sections(path.strip_prefix(current).unwrap().to_str().unwrap(), &text)
    });
    found.extend(scripts::findings(&sections.collect::<Vec<_>>()));
    found
}

/// Reads the node's archives as other programs do, leaves its own layer in
/// `unpacked/nodes/NAME`, and tells where the archives disagree.
fn archive_faults(current: &Path, node: &Node, unpacked: &Path) -> Vec<String> {
    let folder = current.join("nodes").join(&node.name);
    let [tar, cpio, install] =
        ["overlay.tar.gz", "overlay.cpio.gz", "install.cpio.gz"].map(|name| folder.join(name));
    let own = unpacked.join("nodes").join(&node.name);
    unpack(&[&tar], &own);
    let expected = listing::of_folder(&own);
    let mut found = archives::findings(&tar, &expected);
    found.extend(archives::findings(&cpio, &expected));

    let installer = support::scratch();
    unpack(&[&install], installer.path());
    let files = listing::of_folder(installer.path());
    found.extend(archives::findings(&install, &files));
    // dracut hands over /*cfg and /*ks only (anaconda 33.16.9.5, dracut/anaconda-lib.sh).
    let lost = files
        .keys()
        .filter(|path| !(path.ends_with("cfg") || path.ends_with("ks")) || path.contains('/'));
    found.extend(
        lost.map(|path| format!("{}: {path} never reaches the installer", install.display())),
    );
    let kickstart = std::fs::read(folder.join("kickstart.ks")).unwrap();
    if std::fs::read(installer.path().join("ks.cfg")).ok() != Some(kickstart) {
        found.push(format!("{}: ks.cfg is not the node's kickstart", install.display()));
    }
    found
}

fn unpack(archives: &[&Path], into: &Path) {
    std::fs::create_dir_all(into).unwrap();
    for archive in archives {
        archives::extract(archive, into);
    }
}

fn layers_of(nodes: &[Node]) -> BTreeSet<&String> {
    nodes.iter().flat_map(|node| &node.layers).collect()
}

/// What is judged file by file, in all own and shared layers below `unpacked`.
fn content_faults(unpacked: &Path) -> Vec<String> {
    let mut found = scripts::findings(&scripts::of_tree(unpacked));
    let is_yaml = |path: &str| path.ends_with(".yml") || path.ends_with(".yaml");
    let mut distinct: BTreeMap<Vec<u8>, PathBuf> = BTreeMap::new();
    for path in files_below(unpacked, is_yaml) {
        let path = unpacked.join(path);
        distinct.entry(std::fs::read(&path).unwrap()).or_insert(path);
    }
    let paths: Vec<&Path> = distinct.values().map(|path| &**path).collect();
    found.extend(documents::yaml11(&paths).into_iter().filter_map(Result::err));
    found
}

/// One node for each set of layers and paths in the own layer.
fn distinct_nodes<'a>(unpacked: &Path, nodes: &'a [Node]) -> Vec<&'a Node> {
    let mut seen = BTreeSet::new();
    let is_new = |node: &&Node| {
        let own = unpacked.join("nodes").join(&node.name);
        seen.insert((node.layers.clone(), files_below(&own, |_| true)))
    };
    nodes.iter().filter(is_new).collect()
}

/// What only shows in the whole tree: shared layers with the node's own on top.
fn whole_tree_faults(current: &Path, node: &Node) -> Vec<String> {
    let tree = support::scratch();
    let layer = |name: &String| current.join(format!("layers/{name}/layer.tar.gz"));
    let own = current.join(format!("nodes/{}/overlay.tar.gz", node.name));
    let archives: Vec<PathBuf> = node.layers.iter().map(layer).chain([own]).collect();
    unpack(&archives.iter().map(|path| &**path).collect::<Vec<_>>(), tree.path());
    let found = [systemd::findings(tree.path()), node_files::findings(tree.path())].concat();
    found.into_iter().map(|line| format!("{}: {line}", node.name)).collect()
}

/// What a secret looks like, and what it is.
const SECRETS: [(&str, &str); 2] = [
    (r"-----BEGIN [A-Z ]*PRIVATE KEY-----", "a private key"),
    (r"\$[0-9a-z]{1,3}\$[^$\s]{4,}\$[./0-9A-Za-z]{20,}", "a password hash"),
];

/// Private keys and password hashes stand under secret/ only, which only its owner enters.
fn secrecy_faults(current: &Path, unpacked: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let is_public = |path: &str| !path.starts_with("secret/") && !path.ends_with(".gz");
    let published = files_below(current, is_public).into_iter().map(|path| current.join(path));
    let packed = files_below(unpacked, |_| true).into_iter().map(|path| unpacked.join(path));
    for path in published.chain(packed) {
        let bytes = std::fs::read(&path).unwrap();
        let secrets =
            SECRETS.iter().filter(|(pattern, _)| Regex::new(pattern).unwrap().is_match(&bytes));
        found.extend(
            secrets.map(|(_, what)| format!("{}: {what} in a public file", path.display())),
        );
    }
    let secret = current.join("secret");
    if secret.exists() {
        for entry in walkdir::WalkDir::new(&secret).sort_by_file_name() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o7777;
            let wanted = if entry.file_type().is_dir() { 0o700 } else { 0o600 };
            if mode != wanted {
                let path = entry.path().strip_prefix(current).unwrap().display();
                found.push(format!("{path}: mode {mode:04o}, not {wanted:04o}"));
            }
        }
    }
    found
}

/// A build of one node, made by hand.
fn stand_in() -> (tempfile::TempDir, Vec<Node>) {
    let current = support::scratch();
    let root = current.path();
    let layer = support::scratch();
    support::write(layer.path(), "etc/hosts", "10.0.0.1 n1\n");
    pack(layer.path(), &root.join("layers/common/layer.tar.gz"), Format::Tar);

    let own = support::scratch();
    support::write(own.path(), "etc/hostname", "n1\n");
    support::write(own.path(), "etc/daos/daos_server.yml", "name: daos_server\n");
    support::write(own.path(), "usr/libexec/run", "#!/bin/bash\ntrue\n");
    support::set_mode(own.path(), "usr/libexec/run", 0o755);
    publish_node(
        root,
        own.path(),
        "text\nrootpw --lock\n%pre --interpreter=/bin/bash\ntrue\n%end\n",
    );

    support::write(root, "pxe/pxelinux.cfg/default", "DEFAULT a\nLABEL a\n  LOCALBOOT 0\n");
    support::write(root, "pxe/boot.ipxe", "#!ipxe\nexit\n");
    support::write(root, "secret/n1.tar.gz", "$6$");
    support::set_mode(root, "secret", 0o700);
    support::set_mode(root, "secret/n1.tar.gz", 0o600);
    write_digests(&root.join("layers"));
    write_digests(root);
    (current, vec![Node { name: "n1".to_owned(), layers: vec!["common".to_owned()] }])
}

fn publish_node(root: &Path, own: &Path, kickstart: &str) {
    support::write(root, "nodes/n1/kickstart.ks", kickstart);
    pack(own, &root.join("nodes/n1/overlay.tar.gz"), Format::Tar);
    pack(own, &root.join("nodes/n1/overlay.cpio.gz"), Format::Cpio);
    let installer = support::scratch();
    support::write(installer.path(), "ks.cfg", kickstart);
    pack(installer.path(), &root.join("nodes/n1/install.cpio.gz"), Format::Cpio);
}

#[derive(Clone, Copy)]
enum Format {
    Cpio,
    Tar,
}

fn pack(folder: &Path, archive: &Path, format: Format) {
    std::fs::create_dir_all(archive.parent().unwrap()).unwrap();
    for entry in walkdir::WalkDir::new(folder).min_depth(1) {
        let entry = entry.unwrap();
        if entry.file_type().is_dir() {
            support::set_mode(Path::new("/"), entry.path().to_str().unwrap(), 0o755);
        }
    }
    match format {
        Format::Cpio => archives::stand_in_cpio(folder, archive),
        Format::Tar => archives::stand_in_tar(folder, archive),
    }
}

fn write_digests(folder: &Path) {
    let public = files_below(folder, |path| !path.starts_with("secret/") && path != "SHA256SUMS");
    let line = |path: &String| {
        format!("{}  {path}\n", listing::sha256(&std::fs::read(folder.join(path)).unwrap()))
    };
    support::write(folder, "SHA256SUMS", public.iter().map(line).collect::<String>());
}

#[test]
fn a_sound_build_passes_every_judge() {
    if support::lacks(&NEEDS) {
        return;
    }
    let (current, nodes) = stand_in();
    assert_eq!(findings(current.path(), &nodes), [""; 0]);
}

#[test]
fn each_judge_is_asked_about_a_build() {
    if support::lacks(&NEEDS) {
        return;
    }
    let (current, nodes) = stand_in();
    let root = current.path();
    let own = support::scratch();
    for (path, text) in [
        ("etc/daos/daos_server.yml", "a: 1\na: 2\n"),
        ("etc/systemd/system/x.service", "[Service]\nExecStart=/usr/libexec/nothing\n"),
        ("etc/sysctl.d/x.conf", "nonsense\n"),
        ("usr/libexec/run", "#!/bin/bash\njq $1\n"),
        ("etc/key", "-----BEGIN PRIVATE KEY-----\n"),
        ("etc/hash", "$6$0123456789abcdef$0123456789abcdefghijklmno\n"),
    ] {
        support::write(own.path(), path, text);
    }
    publish_node(root, own.path(), "bogus\nrootpw --lock\n%pre\nlocal a=1\n%end\n");
    support::write(root, "pxe/boot.ipxe", "exti\n");
    support::write(root, "secret/n1.key", "x");
    support::set_mode(root, "secret/n1.key", 0o644);
    pack(own.path(), &root.join("nodes/n1/install.cpio.gz"), Format::Cpio);

    let found = findings(root, &nodes);
    for finding in [
        "Unknown command: bogus",
        "nodes/n1/kickstart.ks %pre:4:1: warning: In POSIX sh, 'local' is undefined. [SC3043]",
        "the key 'a' stands twice",
        "n1: x.service: Command /usr/libexec/nothing is not executable",
        "n1: etc/sysctl.d/x.conf:1: not `key = value`",
        "nodes/n1/usr/libexec/run:2:4: note: Double quote",
        "EL8's minimal install has no jq",
        "etc/key: a private key in a public file",
        "etc/hash: a password hash in a public file",
        "boot.ipxe: 1: does not begin with `#!ipxe`",
        "pxe/boot.ipxe: FAILED",
        "secret/n1.key: mode 0644, not 0600",
        "install.cpio.gz: ks.cfg is not the node's kickstart",
        "etc/key never reaches the installer",
    ] {
        assert!(found.iter().any(|line| line.contains(finding)), "{finding}: {found:#?}");
    }
}

#[test]
fn missing_and_foreign_node_files_are_told() {
    let (current, nodes) = stand_in();
    std::fs::remove_file(current.path().join("nodes/n1/kickstart.ks")).unwrap();
    support::write(current.path(), "nodes/n1/core", "");
    support::write(current.path(), "nodes/n2/core", "");
    assert_eq!(
        findings(current.path(), &nodes),
        ["nodes/n2: foreign", "nodes/n1/kickstart.ks: missing", "nodes/n1/core: foreign"]
    );
}
