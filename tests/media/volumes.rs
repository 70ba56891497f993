//! OEMDRV volumes and seeds: fsck.fat, mtools and blkid look at them, ksvalidator and cloud-init at
//! what is in them.

use std::os::unix::fs::PermissionsExt;

use crate::media::{Lab, dvd, nodeforge_in, volume_files};
use crate::oracles::kickstart::ksvalidator;
use crate::support::{self, determinism, listing};

const NEEDS: [&str; 4] = ["fsck.fat", "mcopy", "blkid", "bsdtar"];

#[test]
fn volumes_are_clean_and_found_by_their_labels() {
    if support::lacks(&NEEDS) {
        return;
    }
    for (name, label) in [("node0.oemdrv.img", "OEMDRV"), ("node2.seed.img", "CIDATA")] {
        let volume = Lab::volumes().made(name);
        let path = volume.to_str().unwrap();
        // It says what it would repair, and exits 0 only if that is nothing.
        let said = dvd::run("fsck.fat", &["-n", "-v", path]);
        assert!(!said.contains("Performing changes"), "{said}");
        assert_eq!(dvd::run("blkid", &["-p", "-s", "LABEL", "-o", "value", path]).trim(), label);
        let mode = volume.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name} holds secrets");
    }
}

#[test]
fn fsck_refuses_a_volume_that_is_damaged() {
    if support::lacks(&NEEDS) {
        return;
    }
    let folder = support::scratch();
    let mut bytes = std::fs::read(Lab::volumes().made("node0.oemdrv.img")).unwrap();
    // The first clusters of the first table.
    bytes[515..560].fill(0xff);
    let damaged = folder.path().join("damaged");
    std::fs::write(&damaged, bytes).unwrap();
    assert!(!support::run("fsck.fat", &["-n", damaged.to_str().unwrap()]).status.success());
}

#[test]
fn an_oemdrv_volume_holds_what_its_kickstart_takes() {
    if support::lacks(&NEEDS) || support::lacks(&["ksvalidator"]) {
        return;
    }
    let files = volume_files(&Lab::volumes().made("node0.oemdrv.img"));
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    let kind = names.iter().find(|name| name.contains("layer-kind-")).expect("a kind has a layer");
    assert_eq!(
        names,
        [
            "ks.cfg",
            "nodeforge-SHA256SUMS.ks",
            "nodeforge-layer-admin.tar.gz.ks",
            "nodeforge-layer-common.tar.gz.ks",
            kind,
            "nodeforge-layer-server.tar.gz.ks",
            "nodeforge-overlay.tar.gz.ks",
            "nodeforge-secrets.tar.gz.ks",
        ]
    );
    let kickstart = String::from_utf8(files["ks.cfg"].clone()).unwrap();
    let digest = listing::sha256(&files["nodeforge-overlay.tar.gz.ks"]);
    for line in [
        "NF_NODE='node0'",
        "NF_OVERLAY=media",
        "NF_SECRETS=media",
        &format!("NF_OWN_SHA256='{digest}'"),
    ] {
        assert!(kickstart.lines().any(|found| found == line), "{line} is missing");
    }
    let folder = support::scratch();
    support::write(folder.path(), "ks.cfg", &kickstart);
    assert_eq!(ksvalidator(&[&folder.path().join("ks.cfg")]), [""; 0]);
}

#[test]
fn media_of_all_kinds_are_the_same_wherever_and_by_whomever_they_are_made() {
    let lab = Lab::volumes();
    let arguments = |what: &'static str| ["media", what, "lab3.toml", "node[0-2]", "-o", "again"];
    for what in ["oemdrv", "seed"] {
        let input = support::scratch();
        for path in support::files_below(&lab.folder, |path| !path.starts_with("made/")) {
            support::write(input.path(), &path, std::fs::read(lab.folder.join(&path)).unwrap());
        }
        let program = crate::examples::nodeforge();
        assert_eq!(
            determinism::differences(input.path(), program, &arguments(what), "again"),
            [""; 0],
            "{what}"
        );
    }
}

#[test]
fn verify_tells_whose_a_volume_is_and_what_is_wrong() {
    if support::lacks(&NEEDS) {
        return;
    }
    let lab = Lab::volumes();
    let good = nodeforge_in(&lab.folder, &["media", "verify", "made/node1.oemdrv.img"]);
    let said = "made/node1.oemdrv.img: a volume labelled OEMDRV, for node1: as it should be";
    assert_eq!(good, (true, said.to_owned()));
    let good = nodeforge_in(&lab.folder, &["media", "verify", "made/node1.seed.img"]);
    let said = "made/node1.seed.img: a seed labelled CIDATA, for node1: as it should be";
    assert_eq!(good, (true, said.to_owned()));

    let folder = support::scratch();
    let volume = folder.path().join("volume");
    std::fs::copy(lab.made("node1.oemdrv.img"), &volume).unwrap();
    let path = volume.to_str().unwrap();
    support::write(folder.path(), "other", "other");
    let other = folder.path().join("other");
    dvd::run(
        "mcopy",
        &["-o", "-i", path, other.to_str().unwrap(), "::nodeforge-overlay.tar.gz.ks"],
    );
    dvd::run(
        "mdel",
        &["-i", path, "::nodeforge-secrets.tar.gz.ks", "::nodeforge-layer-server.tar.gz.ks"],
    );
    let (is_good, said) = nodeforge_in(folder.path(), &["media", "verify", "volume"]);
    assert!(!is_good);
    assert_eq!(
        said,
        "node1: the layer server is missing\n\
         node1: its overlay is not the one that its kickstart expects\n\
         node1: its secrets are missing\n\
         volume: a volume labelled OEMDRV, for node1: 3 problems"
    );

    dvd::run("mlabel", &["-i", path, "::OTHER"]);
    let (is_good, said) = nodeforge_in(folder.path(), &["media", "verify", "volume"]);
    assert!(!is_good && said.contains("is a volume labelled `OTHER`: neither OEMDRV"), "{said}");
}

#[test]
fn a_seed_says_what_cloud_init_understands() {
    if support::lacks(&NEEDS) || support::lacks(&["cloud-init"]) {
        return;
    }
    let files = volume_files(&Lab::volumes().made("node0.seed.img"));
    let folder = support::scratch();
    for (name, bytes) in &files {
        support::write(folder.path(), name, bytes);
    }
    let user_data = folder.path().join("user-data");
    let said = dvd::run("cloud-init", &["schema", "--config-file", user_data.to_str().unwrap()]);
    assert!(said.contains("Valid"), "{said}");
    support::write(folder.path(), "broken", "#cloud-config\nusers: 7\n");
    let broken = folder.path().join("broken");
    let judge = support::run("cloud-init", &["schema", "--config-file", broken.to_str().unwrap()]);
    assert!(!judge.status.success(), "{:?}", support::spoken_lines(&judge));

    let text = |name: &str| String::from_utf8(files[name].clone()).unwrap();
    assert_eq!(
        text("network-config"),
        "# Made by nodeforge, for the time until the overlay is there.\n\
         version: 2\n\
         ethernets:\n  \
           boot:\n    \
             match: {macaddress: \"52:54:00:03:00:11\"}\n    \
             addresses: [\"192.168.3.11/24\"]\n    \
             gateway4: 192.168.3.1\n    \
             nameservers: {addresses: [\"192.168.3.1\"]}\n"
    );
    let meta_data = text("meta-data");
    let (instance, rest) = meta_data.split_once('\n').unwrap();
    assert!(instance.starts_with("instance-id: nodeforge-"), "{instance}");
    assert_eq!(rest, "local-hostname: node0.lab.local\n");
    let id = instance.trim_start_matches("instance-id: ");
    assert!(text("nodeforge-node.sh").ends_with(&format!("NF_INSTANCE={id}\n")));
}

#[test]
fn nothing_is_made_of_a_cluster_with_errors() {
    let folder = support::scratch();
    let text = std::fs::read_to_string(support::repository().join("examples/lab3.toml")).unwrap();
    support::write(folder.path(), "lab3.toml", text);
    support::write(
        folder.path(),
        "os-alma89.toml",
        std::fs::read(support::repository().join("examples/os-alma89.toml")).unwrap(),
    );
    let (is_good, said) = nodeforge_in(folder.path(), &["media", "oemdrv", "lab3.toml", "node0"]);
    assert!(!is_good && said.ends_with("nothing was made"), "{said}");
    assert!(!folder.path().join("media").exists());
    let lab = Lab::volumes();
    let (is_good, said) =
        nodeforge_in(&lab.folder, &["media", "seed", "lab3.toml", "node9", "-o", "none"]);
    assert!(!is_good && said.contains("there is no node node9"), "{said}");
    assert!(!lab.folder.join("none").exists());
}
