//! The scripts of media, run on made-up machines: the one that picks a node, and the one that makes
//! a node of a cloud image.

use std::os::unix::fs::symlink;

use crate::kickstart::machine::{Disk, Machine};
use crate::kickstart::pre;
use crate::media::{Lab, area_files, dvd, volume_files};
use crate::support::{self, listing};

/// A machine that was started from the ISO for all nodes: what dracut hands over is in its root.
fn from_iso(mac: &str, serial: &str) -> Machine {
    let machine = Machine::new("");
    machine.add(&Disk::virtio("vda", 3, 60, "system"));
    machine.write("sys/class/net/lo/address", "00:00:00:00:00:00\n");
    machine.write("sys/class/net/ens3/address", format!("{mac}\n"));
    machine.write("sys/class/dmi/id/product_serial", format!("{serial}\n"));
    for (name, contents) in area_files(&Lab::isos().made("lab3.iso")) {
        machine.write(&name, contents);
    }
    machine
}

fn lacks() -> bool {
    support::lacks(&[&dvd::NEEDS[..], &["busybox", "cpio", "bsdtar"]].concat())
}

#[test]
fn a_machine_is_told_by_its_mac_address_and_gets_its_own() {
    if lacks() {
        return;
    }
    for node in ["node0", "node1"] {
        let own = area_files(&Lab::isos().made(&format!("{node}.iso")));
        let mac = if node == "node0" { "52:54:00:03:00:11" } else { "52:54:00:03:00:12" };
        let machine = from_iso(mac, "Not Specified");
        let output = machine.run(&pre(&machine.read("ks.cfg")));
        assert!(output.status.success(), "{:?}", support::spoken_lines(&output));
        assert!(
            machine.read("dev/tty1").contains(&format!("nodeforge: this machine is {node}.\n"))
        );
        // The commands and packages are those of the node's own kickstart.
        let kickstart = String::from_utf8(own["ks.cfg"].clone()).unwrap();
        let commands = machine.read("tmp/nodeforge-node.ks");
        let begin = kickstart.find(&format!("# ==================== {node} ")).unwrap();
        let expected = kickstart[begin..].split("%pre ").next().unwrap();
        assert_eq!(commands, expected);
        assert!(commands.contains("%include /tmp/nodeforge-disk.ks\n"), "{commands}");
        assert!(
            machine.read("tmp/nodeforge-disk.ks").contains("--ondisk=vda")
                || machine.read("tmp/nodeforge-disk.ks").contains("vda")
        );
        for (name, from) in [
            ("overlay.tar.gz", "nodeforge-overlay.tar.gz.ks"),
            ("secrets.tar.gz", "nodeforge-secrets.tar.gz.ks"),
        ] {
            let have =
                std::fs::read(machine.path(&format!("run/nodeforge/archives/{name}"))).unwrap();
            assert_eq!(listing::sha256(&have), listing::sha256(&own[from]), "{node}: {name}");
        }
    }
}

#[test]
fn an_unknown_machine_is_refused_on_the_console() {
    if lacks() {
        return;
    }
    let machine = from_iso("52:54:00:99:99:99", "ABC1234");
    let output = machine.run(&pre(&machine.read("ks.cfg")));
    assert!(!output.status.success());
    for console in ["dev/tty1", "dev/ttyS0"] {
        let said = machine.read(console);
        assert!(said.contains("nodeforge: this machine is NOT installed"), "{said}");
        assert!(said.contains("No node of this medium has one of the MAC addresses"), "{said}");
        assert!(said.contains("It has: mac 52:54:00:99:99:99 serial ABC1234"), "{said}");
        assert!(said.contains("Nothing on any disk has been touched."), "{said}");
    }
    assert!(!machine.path("tmp/nodeforge-disk.ks").exists());
}

#[test]
fn a_machine_that_goes_by_two_nodes_is_refused() {
    if lacks() {
        return;
    }
    let machine = from_iso("52:54:00:03:00:11", "");
    machine.write("sys/class/net/ens4/address", "52:54:00:03:00:12\n");
    let output = machine.run(&pre(&machine.read("ks.cfg")));
    assert!(!output.status.success());
    let said = machine.read("dev/tty1");
    assert!(
        said.contains("This machine goes by several nodes of this medium: node0 node1"),
        "{said}"
    );
    assert!(!machine.path("tmp/nodeforge-disk.ks").exists());
}

/// A machine of a cloud image with the seed of `node` as its second drive.
fn of_image(node: &str) -> Machine {
    let machine = Machine::new("");
    for (name, contents) in volume_files(&Lab::volumes().made(&format!("{node}.seed.img"))) {
        machine.write(&format!("fs/vdb/{name}"), contents);
    }
    machine.write("dev/vdb", "");
    machine.link("dev/disk/by-label/CIDATA", "../../vdb");
    machine.write("etc/fstab", "");
    let shims = support::repository().join("tests/kickstart/shims");
    for tool in ["dnf", "mkfs.xfs"] {
        symlink(shims.join("recorder"), machine.path("bin").join(tool)).unwrap();
    }
    symlink(support::program("truncate"), machine.path("bin/truncate")).unwrap();
    machine.write("answers/boot-entry", "ro quiet\n");
    machine
}

/// As cloud-init starts it, but for the mount of the seed.
fn seed(machine: &Machine) -> std::process::Output {
    let values = machine.read("fs/vdb/nodeforge-node.sh");
    let script = machine.read("fs/vdb/nodeforge-seed.sh");
    machine.run(&format!("NF_TARGET=$NF_SYSROOT\nset -a\n{values}\nset +a\n{script}"))
}

#[test]
fn a_seed_makes_a_node_in_the_order_of_the_kickstart() {
    if lacks() {
        return;
    }
    let machine = of_image("node0");
    // The filesystem that outlives a reinstallation is mounted once it is in /etc/fstab.
    let values = machine.read("fs/vdb/nodeforge-node.sh");
    let kept = values.lines().find_map(|line| line.strip_prefix("NF_KEPT=")).unwrap();
    let kept: Vec<&str> = kept.trim_matches('\'').split(' ').filter(|it| !it.is_empty()).collect();
    assert!(!kept.is_empty());
    for one in &kept {
        let mount = one.rsplit(':').next().unwrap();
        machine.append("proc/mounts", &format!("/dev/loop1 {mount} xfs rw 0 0\n"));
    }
    machine.write("etc/sysconfig/network-scripts/ifcfg-eth0", "DEVICE=eth0\n");
    machine.write("etc/NetworkManager/system-connections/cloud-init-eth0.nmconnection", "");
    let output = seed(&machine);
    let said = support::spoken_lines(&output).join("\n");
    assert!(output.status.success(), "{said}\n{}", machine.read("dev/tty1"));

    let actions = machine.read("answers/actions");
    let expected = [
        "mount vdb",
        "dnf --assumeyes module",
        "dnf --assumeyes install",
        "chpasswd --encrypted",
        "systemctl enable chronyd",
        "systemctl --no-block reboot",
    ];
    let order: Vec<String> = actions
        .lines()
        .map(|line| line.split(' ').take(3).collect::<Vec<_>>().join(" "))
        .filter(|line| expected.contains(&line.as_str()))
        .collect();
    assert_eq!(order, expected, "{actions}");
    let install = actions.lines().find(|line| line.starts_with("dnf --assumeyes install")).unwrap();
    let has = |word: &str| install.split(' ').any(|found| found == word);
    assert!(
        has("daos-server") && has("@^minimal-environment") && has("--exclude=plymouth"),
        "{install}"
    );
    assert!(!install.contains(" -plymouth"), "{install}");

    assert_eq!(machine.read("etc/hostname").trim(), "node0.lab.local");
    assert!(machine.path("etc/yum.repos.d/daos.repo").exists());
    for gone in [
        "etc/sysconfig/network-scripts/ifcfg-eth0",
        "etc/NetworkManager/system-connections/cloud-init-eth0.nmconnection",
    ] {
        assert!(!machine.path(gone).exists(), "{gone}");
    }
    assert!(
        machine
            .read("etc/cloud/cloud.cfg.d/99-nodeforge.cfg")
            .contains("\nnetwork: {config: disabled}\n")
    );
    let fstab = machine.read("etc/fstab");
    for one in &kept {
        let label = one.split(':').next().unwrap();
        assert!(fstab.contains(&format!("/var/lib/nodeforge/{label}.xfs ")), "{fstab}");
        assert!(machine.path(&format!("var/lib/nodeforge/{label}.xfs")).exists());
    }
    assert!(machine.read("var/lib/nodeforge/seeded").starts_with("nodeforge-"));

    let n_before = actions.lines().count();
    assert!(seed(&machine).status.success());
    assert_eq!(machine.read("answers/actions").lines().count(), n_before, "it is done once");
}

#[test]
fn packages_that_a_golden_image_brings_are_not_fetched() {
    if lacks() {
        return;
    }
    let machine = of_image("node2");
    let values = machine.read("fs/vdb/nodeforge-node.sh");
    let words = |name: &str| -> Vec<String> {
        let line = values.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_matches('\'').split(' ').map(str::to_owned).collect()
    };
    let without = words("NF_WITHOUT=").into_iter().map(|package| format!("-{package}"));
    let mut list: Vec<String> = words("NF_PACKAGES=").into_iter().chain(without).collect();
    list.push("cloud-init".to_owned());
    let last = list.remove(0);
    let asked = |list: &[String]| {
        let machine = of_image("node2");
        machine.write("var/lib/nodeforge/packages", list.join("\n") + "\n");
        let output = seed(&machine);
        assert!(output.status.success(), "{:?}", support::spoken_lines(&output));
        machine.read("answers/actions").contains("dnf --assumeyes install")
    };
    assert!(asked(&list), "{last} is not on the list");
    list.push(last);
    assert!(!asked(&list), "all are on the list");
}

#[test]
fn a_seed_that_is_not_whole_changes_nothing() {
    if lacks() {
        return;
    }
    let machine = of_image("node2");
    machine.append("fs/vdb/nodeforge-overlay.tar.gz.ks", "x");
    assert!(!seed(&machine).status.success());
    let said = machine.read("dev/tty1");
    assert!(said.contains("The overlay of node2 has the digest"), "{said}");
    assert!(said.contains("Nothing has been changed."), "{said}");
    assert!(!machine.read("answers/actions").contains("dnf"));
    assert!(!machine.path("var/lib/nodeforge/seeded").exists());
}
