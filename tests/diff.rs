//! `diff`, `generations` and `rollback`: what changed, what there is to go back to, and going
//! back.
//!
//! golden/diff.txt holds what `diff` says of edits of the lab; `UPDATE_GOLDEN=1` writes it anew.

use std::fmt::Write;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::examples::{copy_with_secrets, nodeforge};
use crate::support::{self, listing, repository};

/// Edits of the lab: a name, and what is replaced by what.
const EDITS: &[(&str, &[(&str, &str)])] = &[
    ("nothing", &[("# Three virtual machines", "# Three machines")]),
    ("targets", &[("targets = 1", "targets = 2")]),
    ("access points", &[("access_points = [\"node0\"]", "access_points = [\"node1\"]")]),
    ("time servers", &[("ntp = [\"192.168.3.1\"]", "ntp = [\"192.168.3.1\", \"192.168.3.2\"]")]),
    ("a MAC address", &[("52:54:00:03:00:13", "52:54:00:03:00:14")]),
    ("an address", &[("192.168.3.13", "192.168.3.23")]),
    ("kernel arguments", &[("[\"intel_iommu=on\"]", "[\"intel_iommu=on\", \"quiet\"]")]),
    ("DAOS", &[("version = \"2.6.0\"", "version = \"2.6.5\"")]),
    ("console", &[("ttyS0,115200", "ttyS1,9600")]),
    (
        "a package that begins like a command",
        &[("kernel_args", "packages = [\"text-tools\"]\nkernel_args")],
    ),
    ("release", &[("release = \"8.9\"", "release = \"8.10\"")]),
    ("a package", &[("roles = [\"client\"]", "roles = [\"client\"]\npackages = [\"tmux\"]")]),
    ("a role", &[("roles = [\"client\"]", "roles = [\"client\", \"admin\"]")]),
    ("disks", &[("min = \"40GiB\"", "min = \"30GiB\"")]),
    ("boot URL", &[("http://192.168.3.1:8080", "http://192.168.3.1:8081")]),
    (
        "swapped MAC addresses",
        &[("03:00:12", "03:00:99"), ("03:00:13", "03:00:12"), ("03:00:99", "03:00:13")],
    ),
    ("another node", &[("[node.node2]", "[node.node3]")]),
    (
        "two things",
        &[
            (
                "system_ram_reserved = \"1GiB\"",
                "control_log_mask = \"DEBUG\"\nsystem_ram_reserved = \"1GiB\"",
            ),
            ("roles = [\"server\"]", "roles = [\"server\"]\npackages = [\"tmux\"]"),
        ],
    ),
];

/// A lab that is built once, with an output folder `out`.
struct Lab(tempfile::TempDir);

impl Lab {
    fn new() -> Self {
        let lab = Self(support::scratch());
        copy_with_secrets(lab.path(), "lab3.toml");
        assert_eq!(lab.run(&["build", "lab3.toml", "--cache", "none"]).0, 0);
        lab
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn out(&self) -> PathBuf {
        self.path().join("out")
    }

    /// The exit code, standard output and standard error.
    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(nodeforge());
        command.args(arguments).current_dir(self.path()).stdin(Stdio::null());
        let Output { status, stdout, stderr } = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().unwrap(), text(stdout), text(stderr))
    }

    fn diff(&self, arguments: &[&str]) -> (i32, String, String) {
        let arguments: Vec<&str> = ["diff"].iter().chain(arguments).copied().collect();
        self.run(&arguments)
    }

    /// Writes the lab with `edits` as new.toml.
    #[track_caller]
    fn edit(&self, edits: &[(&str, &str)]) {
        let mut text = fs::read_to_string(self.path().join("lab3.toml")).unwrap();
        for (from, to) in edits {
            assert!(text.contains(from), "{from:?} stands in lab3.toml");
            text = text.replace(from, to);
        }
        fs::write(self.path().join("new.toml"), text).unwrap();
    }

    #[track_caller]
    fn build(&self, edits: &[(&str, &str)]) {
        self.edit(edits);
        let (code, _, said) = self.run(&["build", "new.toml", "--cache", "none"]);
        assert_eq!(code, 0, "{said}");
    }

    fn current(&self) -> String {
        fs::read_link(self.out().join("current")).unwrap().display().to_string()
    }
}

#[test]
fn every_edit_is_told_grouped_and_with_what_it_needs() {
    let lab = Lab::new();
    let mut told = String::new();
    let before = listing::of_folder(&lab.out());
    for (name, edits) in EDITS {
        lab.edit(edits);
        let (code, changes, said) = lab.diff(&["new.toml", "--cache", "none"]);
        assert_eq!(code, i32::from(*name != "nothing"), "{name}: {said}");
        write!(told, "== {name}\n{changes}").unwrap();
    }
    let written = listing::differences(&before, &listing::of_folder(&lab.out()));
    assert_eq!(written, [""; 0], "diff writes nothing");
    lab.edit(&[("targets = 1", "targets = 2")]);
    let (_, patch, _) = lab.diff(&["new.toml", "--cache", "none", "--patch"]);
    write!(told, "== targets, with the lines\n{patch}").unwrap();

    let golden = repository().join("tests/golden/diff.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&golden, &told).unwrap();
    }
    assert_eq!(told, fs::read_to_string(golden).unwrap(), "UPDATE_GOLDEN=1 writes it anew");
}

/// What is said of a build before it is made is what the store says of it afterwards.
#[test]
fn a_preview_says_what_the_build_then_does() {
    for overlay in [
        "overlay = \"embedded\"",
        "overlay = \"http\"",
        "overlay = \"embedded\"\nsecrets = \"embedded\" #",
    ] {
        let lab = Lab::new();
        let way = ("overlay = \"embedded\"", overlay);
        let token = ("secrets = \"token\"  ", "# ");
        let rest = if overlay.contains("secrets") { vec![way, token] } else { vec![way] };
        lab.build(&rest);
        for (_, edits) in EDITS
            .iter()
            .filter(|(name, _)| ["targets", "another node", "swapped MAC addresses"].contains(name))
        {
            lab.build(&rest);
            let number = lab.current().rsplit('/').next().unwrap().to_owned();
            let all: Vec<(&str, &str)> = rest.iter().chain(*edits).copied().collect();
            lab.edit(&all);
            let (code, preview, said) = lab.diff(&["new.toml", "--cache", "none", "-u"]);
            lab.build(&all);
            let (built_code, built, _) = lab.diff(&[&number, "current", "-u"]);
            let lines = |text: &str| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
            assert_eq!((code, lines(&preview)), (built_code, lines(&built)), "{said}");
            let (code, _, said) = lab.diff(&["new.toml", "--cache", "none"]);
            assert_eq!(code, 0, "{said}");
            assert!(!said.contains("packed otherwise"), "{said}");
        }
    }
}

#[test]
fn changes_are_given_to_scripts_as_json() {
    let lab = Lab::new();
    lab.edit(&[("targets = 1", "targets = 2"), ("[node.node2]", "[node.node9]")]);
    let (code, printed, _) = lab.diff(&["new.toml", "--cache", "none", "--json"]);
    assert_eq!(code, 1);
    let found: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(found["same"], false);
    assert_eq!(
        (&found["old"], &found["new"]),
        (&json!({"generation": 1}), &json!({"cluster": "new.toml"}))
    );
    assert_eq!((&found["added"], &found["removed"]), (&json!(["node9"]), &json!(["node2"])));
    assert_eq!(
        found["shouts"],
        json!([{
            "what": "engines[0].targets", "old": "1", "new": "2", "nodes": ["node0", "node1"],
            "consequence": "the engine does not find its targets' data",
        }])
    );
    let changed = |what: &str, n_lines: u32| {
        json!({
            "what": what, "state": "changed", "lines_added": n_lines, "lines_removed": n_lines,
            "old_mode": null, "new_mode": null, "need": "files", "patch": null, "varies": false,
        })
    };
    // What preflight compares the machine with follows from the targets, too.
    let changes = [changed("/etc/daos/daos_server.yml", 1), changed("/etc/nodeforge/kind.json", 5)];
    assert_eq!(found["groups"], json!([{"nodes": ["node0", "node1"], "changes": changes}]));
    assert_eq!(found["layers"][0]["name"], "common");
    assert_eq!(found["layers"][0]["changes"][0]["what"], "/etc/hosts");
    assert_eq!(
        found["needs"],
        json!({"nothing": [], "files": ["node0", "node1"], "reinstall": []})
    );
    let (code, printed, _) = lab.diff(&["1", "current", "--json"]);
    let found: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((code, &found["same"], &found["new"]["generation"]), (0, &json!(true), &json!(1)));
}

#[test]
fn trouble_is_told_from_a_difference() {
    let lab = Lab::new();
    lab.edit(&[("selinux = \"disabled\"", "selinux = \"off\"")]);
    for (arguments, reason) in [
        (&["7"][..], "out has no generation 7; there are: 1"),
        (&["1", "7"], "out has no generation 7"),
        (&["99999999999999999999"], "there are not so many generations"),
        (&["lab3.toml", "-o", "nowhere"], "nowhere was not made by nodeforge"),
        (&["no-such.toml"], "reading no-such.toml"),
        (&["new.toml"], "error[NF104]"),
        (&["current"], "name what to compare it with"),
        (&["lab3.toml", "1"], "the older side comes first"),
        (&["lab3.toml", "new.toml"], "the older side comes first"),
        (&["1", "current", "--site", "x"], "none is named"),
        (&[], "required"),
        (&["1", "1", "1"], "unexpected value"),
        (&[""], "neither a generation nor a cluster file"),
    ] {
        let (code, printed, said) = lab.diff(arguments);
        assert_eq!((code, printed.as_str()), (2, ""), "{arguments:?}: {said}");
        assert!(said.contains(reason), "{arguments:?}: {said}");
    }
}

/// Folders that are the same are not read: what was lost of them does not matter.
#[test]
fn nodes_that_are_as_before_are_not_opened() {
    let lab = Lab::new();
    let package = ("roles = [\"client\"]", "roles = [\"client\"]\npackages = [\"tmux\"]");
    lab.build(&[package]);
    for node in ["node0", "node1"] {
        for file in ["overlay.tar.gz", "kickstart.ks"] {
            fs::write(lab.out().join("current/nodes").join(node).join(file), "").unwrap();
        }
    }
    let (code, told, said) = lab.diff(&["1", "2"]);
    assert_eq!(code, 1, "{said}");
    assert!(told.contains("1 node node2: reinstall\n  kickstart  +1\n"), "{told}");

    fs::write(lab.out().join("generations/1/nodes/node2/kickstart.ks"), "").unwrap();
    let (code, _, said) = lab.diff(&["1", "2"]);
    assert_eq!(code, 2);
    assert!(said.contains("comparing node2: ") && said.contains("is not what was built"), "{said}");
}

/// Equal changes of many nodes are one line, whatever stands in their names and addresses.
#[test]
fn nodes_of_a_range_are_told_together_and_the_odd_one_beside_them() {
    let lab = Lab::new();
    let nodes = "[node.\"srv[01-40]\"]\nhw = \"vm\"\nroles = [\"client\"]\nnic.mgmt.ip = \"192.168.3.100 + {index}\"\n\
                 nic.mgmt.mac = \"MAC\"\n";
    let mut inventory = "name,mac.mgmt\n".to_owned();
    (1..=40).for_each(|n| writeln!(inventory, "srv{n:02},52:54:00:03:01:{n:02x}").unwrap());
    fs::write(lab.path().join("nodes.csv"), inventory).unwrap();
    let facts = "facts = { csv = \"nodes.csv\", key = \"name\", columns = [\"mac.mgmt\"] }\n";
    let nodes = nodes.replace("nic.mgmt.mac = \"MAC\"\n", facts);
    let with = |text: String| text + "\n[node.node0]";
    lab.build(&[("[node.node0]", &with(nodes.clone()))]);
    lab.edit(&[
        ("[node.node0]", &with(nodes + "[node.srv17]\npackages = [\"tmux\"]\n")),
        ("192.168.3.1:8080", "192.168.3.1:8081"),
        ("192.168.3.100", "192.168.3.150"),
    ]);
    let (code, told, said) = lab.diff(&["new.toml", "--cache", "none"]);
    assert_eq!(code, 1, "{said}");
    for line in [
        "40 nodes srv[01-40] also: files\n  \
         /etc/NetworkManager/system-connections/enp0s8.nmconnection  +1 -1, each node its own\n",
        "  pxe/grub/grub.cfg-01-{mac}  +1 -1\n",
        "1 node srv17 also: reinstall\n",
    ] {
        assert!(told.contains(line), "{line}\n{told}");
    }
}

/// A new root password is a difference of the nodes that have it, in their bundle or in their
/// kickstart.
#[test]
fn secrets_are_compared_and_never_shown() {
    for (way, what) in [("token", "secret/{name}.tar.gz"), ("embedded", "kickstart (secrets)")] {
        let lab = Lab::new();
        let secrets = format!("secrets = \"{way}\" #");
        let edits = [("secrets = \"token\"", secrets.as_str())];
        lab.build(&edits);
        let hash = lab.path().join("secrets/root.sha512");
        let old = fs::read_to_string(&hash).unwrap();
        fs::remove_file(&hash).unwrap();
        assert_eq!(lab.run(&["secrets", "init", "new.toml"]).0, 0);
        let new = fs::read_to_string(&hash).unwrap();
        let (code, told, said) = lab.diff(&["new.toml", "--cache", "none", "--patch"]);
        assert_eq!(code, 1, "{said}");
        assert!(told.contains(&format!("3 nodes node[0-2]: files\n  {what}  changed\n")), "{told}");
        for hash in [old.trim_end(), new.trim_end()] {
            assert!(!told.contains(hash) && !said.contains(hash), "{told}{said}");
        }
    }
}

#[test]
fn generations_are_listed_with_what_changed() {
    let lab = Lab::new();
    lab.build(&[("[node.node2]", "[node.node3]")]);
    lab.build(&[
        ("[node.node2]", "[node.node3]"),
        ("roles = [\"client\"]", "roles = [\"client\"]\npackages = [\"tmux\"]"),
    ]);
    let (code, printed, _) = lab.run(&["generations", "--json"]);
    assert_eq!(code, 0);
    let rows: Value = serde_json::from_str(&printed).unwrap();
    let facts = |row: &Value| {
        [
            "generation",
            "current",
            "nodes",
            "nodes_added",
            "nodes_changed",
            "nodes_removed",
            "damage",
        ]
        .map(|key| row[key].clone())
    };
    let null = Value::Null;
    assert_eq!(
        rows.as_array().unwrap().iter().map(facts).collect::<Vec<_>>(),
        [
            [
                json!(1),
                json!(false),
                json!(3),
                null.clone(),
                null.clone(),
                null.clone(),
                null.clone()
            ],
            // /etc/hosts of all is another.
            [json!(2), json!(false), json!(3), json!(1), json!(2), json!(1), null.clone()],
            [json!(3), json!(true), json!(3), json!(0), json!(1), json!(0), null.clone()],
        ]
    );
    let (_, table, _) = lab.run(&["generations"]);
    let changed: Vec<&str> = table.lines().map(|line| line.rsplit("  ").next().unwrap()).collect();
    assert_eq!(changed, ["NODES CHANGED", "-", "1 new, 2 changed, 1 gone", "1 changed"]);
    let marked: Vec<bool> = table.lines().map(|line| line.starts_with('*')).collect();
    assert_eq!(marked, [false, false, false, true]);

    fs::write(lab.out().join("generations/2/manifest.json"), "{").unwrap();
    let (code, table, _) = lab.run(&["generations"]);
    assert_eq!(code, 1);
    assert!(
        table.lines().nth(2).unwrap().contains("damaged: reading out/generations/2/manifest.json"),
        "{table}"
    );
    assert_eq!(lab.run(&["generations", "-o", "examples"]).0, 1);
}

#[test]
fn a_rollback_goes_one_back_or_to_a_number_and_removes_nothing() {
    let lab = Lab::new();
    for timezone in ["UTC", "Europe/Berlin"] {
        lab.build(&[("Asia/Shanghai", timezone)]);
    }
    let before = listing::of_folder(&lab.out());
    let (code, _, said) = lab.run(&["rollback"]);
    assert_eq!((code, lab.current().as_str()), (0, "generations/2"), "{said}");
    assert!(said.starts_with("out/current: generation 2 is current now, 3 was\n"), "{said}");
    assert!(said.contains("makes generation 4\n"), "{said}");
    let differences = listing::differences(&before, &listing::of_folder(&lab.out()));
    assert_eq!(differences.len(), 1, "only the link is another: {differences:?}");
    assert_eq!(lab.run(&["verify"]).0, 0);

    let (code, printed, _) = lab.run(&["rollback", "1", "--json"]);
    let done: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((code, done), (0, json!({"changed": true, "from": 2, "generation": 1})));
    let (code, _, said) = lab.run(&["rollback"]);
    assert_eq!(code, 1);
    assert!(said.contains("out has no generation before 1"), "{said}");
    let (code, _, said) = lab.run(&["rollback", "1"]);
    assert_eq!(code, 0);
    assert!(said.contains("generation 1 is current already; nothing was changed"), "{said}");
    assert_eq!(lab.run(&["rollback", "3"]).0, 0);
    assert_eq!(lab.current(), "generations/3");
    assert_eq!(lab.run(&["rollback", "1"]).0, 0);
    lab.build(&[("Asia/Shanghai", "Asia/Tokyo")]);
    assert_eq!(lab.current(), "generations/4", "a later build comes after the highest");
}

#[test]
fn a_rollback_to_what_is_not_whole_is_refused() {
    let lab = Lab::new();
    lab.build(&[("Asia/Shanghai", "UTC"), ("[node.node2]", "[node.node3]")]);
    let refused = |arguments: &[&str], reason: &str| {
        let arguments: Vec<&str> = ["rollback"].iter().chain(arguments).copied().collect();
        let (code, _, said) = lab.run(&arguments);
        assert_eq!(code, 1, "{arguments:?}");
        assert!(said.contains(reason), "{said}");
        assert_eq!(lab.current(), "generations/2");
    };
    refused(&["5"], "out has no generation 5; there are: 1, 2");
    refused(&["-o", "examples"], "was not made by nodeforge");

    let lock = File::options().write(true).open(lab.out().join(".nodeforge")).unwrap();
    lock.lock().unwrap();
    refused(&[], "another build is writing to out");
    lock.unlock().unwrap();

    let node2 = lab.out().join("generations/1/nodes/node2/overlay.tar.gz");
    let bytes = fs::read(&node2).unwrap();
    fs::remove_file(&node2).unwrap();
    refused(&[], "it is not as it was built: nodes/node2/overlay.tar.gz");
    fs::write(&node2, &bytes).unwrap();
    flip_first_byte(&node2);
    refused(&[], "it is not as it was built: nodes/node2/overlay.tar.gz");
    fs::write(&node2, bytes).unwrap();
    let secret = lab.out().join("generations/1/secret/node0.tar.gz");
    fs::rename(&secret, secret.with_extension("away")).unwrap();
    refused(&["1"], "it is not as it was built: secret/node0.tar.gz");
    fs::rename(secret.with_extension("away"), &secret).unwrap();
    fs::write(lab.out().join("generations/1/manifest.json"), "{}").unwrap();
    refused(&["1"], "generation 1 cannot be made current: reading out/generations/1/manifest.json");
}

/// A build of some nodes, after a change that reaches all: the others keep what is inside their
/// kickstarts and their menus, with nothing known of what they were made from.
#[test]
fn nodes_that_are_not_built_are_as_they_were_and_told_so() {
    let lab = Lab::new();
    lab.build(&[("Asia/Shanghai", "UTC")]);
    assert_eq!(lab.run(&["rollback"]).0, 0);
    let menus = |mac: &str| {
        let menu = lab.out().join(format!("current/pxe/ipxe/52-54-00-03-00-{mac}.ipxe"));
        fs::read_to_string(menu).ok()
    };
    let before = ["11", "13"].map(menus);
    // Node 0 keeps the MAC address it was built with, too.
    lab.edit(&[
        ("Asia/Shanghai", "Europe/Berlin"),
        ("ttyS0,115200", "ttyS1,9600"),
        ("52:54:00:03:00:11", "52:54:00:03:00:98"),
    ]);
    let (code, _, said) =
        lab.run(&["build", "new.toml", "--cache", "none", "--only", "node1", "-o", "out"]);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains(
            "the layer common is another one now, and of the nodes that have it 2 were not built"
        ),
        "{said}"
    );
    assert_eq!(["11", "13"].map(menus), before);
    assert!(menus("12").unwrap().contains("ttyS1,9600"));
    assert_eq!(menus("98"), None);
    assert_eq!(lab.run(&["verify"]).0, 0);

    let (_, told, _) = lab.run(&["diff", "1", "3"]);
    assert!(told.contains("layer common, 1 node node1: files"), "{told}");
    let (_, told, _) = lab.run(&["diff", "new.toml"]);
    assert!(told.contains("layer common, an older one"), "{told}");
    assert!(told.ends_with("; nothing 1 node node1\n"), "{told}");
}

#[test]
fn a_new_layer_is_not_told_of_nodes_that_bring_the_old_one() {
    let by_media = ("overlay = \"embedded\"", "overlay = \"media\"");
    let lab = Lab::new();
    lab.build(&[by_media]);
    lab.edit(&[by_media, ("Asia/Shanghai", "UTC")]);
    let only = ["build", "new.toml", "--cache", "none", "--only", "node1"];
    assert_eq!(lab.run(&only).0, 0);
    let (_, told, _) = lab.run(&["diff", "2", "3"]);
    assert!(told.contains("layer common, 1 node node1: files"), "{told}");
}

#[test]
fn a_mac_address_does_not_go_to_a_node_while_the_other_one_keeps_it() {
    let lab = Lab::new();
    let swap = [("03:00:11", "03:00:97"), ("03:00:12", "03:00:11"), ("03:00:97", "03:00:12")];
    lab.edit(&swap);
    let (code, _, said) =
        lab.run(&["build", "new.toml", "--cache", "none", "--only", "node1", "-o", "out"]);
    assert_eq!(code, 1);
    let reason = "52:54:00:03:00:11 of node1 is still node0's, which is not built";
    assert!(said.contains(reason), "{said}");
    assert_eq!(lab.current(), "generations/1");
}

/// Another first byte: neither size nor mode tell.
fn flip_first_byte(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes[0] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn what_verify_finds_a_fresh_build_mends() {
    let lab = Lab::new();
    let current = lab.out().join("current");
    let verified = || lab.run(&["verify"]);
    for name in ["nodes/node0/kickstart.ks", "layers/common/layer.tar.gz", "pxe/boot.ipxe"] {
        flip_first_byte(&current.join(name));
    }
    fs::write(current.join("pxe/foreign"), "").unwrap();
    fs::set_permissions(current.join("manifest.json"), fs::Permissions::from_mode(0o600)).unwrap();
    flip_first_byte(&current.join("secret/node1.tar.gz"));
    let (code, _, said) = verified();
    assert_eq!(code, 1);
    assert!(said.contains("help: `nodeforge build CLUSTER -o out --fresh`"), "{said}");
    // It looks at sizes and modes only.
    assert_eq!(lab.run(&["build", "lab3.toml", "--cache", "none"]).0, 0);
    assert_eq!(verified().0, 1);
    assert_eq!(lab.run(&["build", "lab3.toml", "--cache", "none", "--fresh"]).0, 0);
    let (code, found, _) = verified();
    assert_eq!((code, &*found), (0, ""));

    // What is plainly lost is seen by any build.
    fs::remove_dir_all(fs::canonicalize(current.join("nodes/node1")).unwrap()).unwrap();
    let (code, _, said) = lab.run(&["build", "lab3.toml", "--cache", "none"]);
    assert_eq!(code, 0);
    assert!(said.contains("is up to date: "), "{said}");
    assert!(said.contains("; 1 folder was damaged and made anew"), "{said}");
}

/// A layer inside kickstarts is read, so that its damage is seen.
#[test]
fn a_layer_that_is_found_damaged_is_made_anew() {
    let lab = Lab::new();
    flip_first_byte(&lab.out().join("current/layers/common/layer.tar.gz"));
    lab.build(&[("52:54:00:03:00:12", "52:54:00:03:00:99")]);
    let (code, found, _) = lab.run(&["verify"]);
    assert_eq!((code, &*found), (0, ""));
}

/// What a killed build or rollback left neither stops a rollback nor is lost to the next build.
#[test]
fn a_rollback_after_a_crash_leaves_the_rest_to_the_next_build() {
    let lab = Lab::new();
    lab.build(&[("Asia/Shanghai", "UTC")]);
    let staging = lab.out().join(".staging");
    fs::create_dir(&staging).unwrap();
    fs::write(staging.join("folder-0"), "half a file").unwrap();
    std::os::unix::fs::symlink("generations/2", staging.join("rollback")).unwrap();
    assert_eq!(lab.run(&["rollback"]).0, 0);
    assert_eq!(lab.current(), "generations/1");
    assert!(staging.join("folder-0").exists() && !staging.join("rollback").exists());
    assert_eq!(lab.run(&["verify"]).0, 0);
    lab.build(&[]);
    assert!(!staging.exists());
    // A current that leads nowhere wants a number.
    fs::remove_file(lab.out().join("current")).unwrap();
    let (code, _, said) = lab.run(&["rollback"]);
    assert_eq!(code, 1);
    assert!(said.contains("out has no current generation: say which one to take"), "{said}");
    let (code, table, said) = lab.run(&["generations"]);
    assert_eq!((code, table.contains('*')), (1, false), "{said}");
    assert_eq!(lab.run(&["rollback", "2"]).0, 0);
    assert_eq!(lab.current(), "generations/2");
}
