//! `nodeforge lab` with the nodes of lab.toml on the stand-in system: from one command until all
//! are ready and the storage is formatted once, and down again.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::examples::{nodeforge, printed};
use crate::lab::{Lab, processes_in};
use crate::support;

use super::bench::{COMMAND_TIMEOUT, QUICK, installer, scratch};
use super::guest::{self, Turn};
use super::lacks_for_nodes;
use super::machine::blank_metadata;

const NODES: [&str; 3] = ["node0", "node1", "node2"];

/// A folder with the cluster file and, for each node, the initrd that installs it and the disk
/// that DAOSMETA is on: the stand-in has no partitions.
fn workplace(test: &str) -> PathBuf {
    let folder = scratch(test);
    std::fs::copy(support::repository().join("tests/boot/lab.toml"), folder.join("lab.toml"))
        .unwrap();
    let meta = blank_metadata(&folder);
    for node in NODES {
        std::fs::copy(&meta, folder.join(format!("meta-{node}"))).unwrap();
        std::fs::copy(installer(node), folder.join(format!("install-{node}"))).unwrap();
    }
    folder
}

/// What the nodes have beside the plan: DAOSMETA, and a root shell for the test.
const FURTHER: &str = "-drive if=none,id=meta,format=raw,cache=unsafe,file=../meta-{node} \
                       -device nvme,serial=meta,drive=meta,bus=pcie.0 \
                       -serial unix:{node}.shell,server=on,wait=off";

/// `nodeforge lab up` with the stand-in; QEMU's emulation, and no way out.
fn up(folder: &Path, nodes: &str) -> Command {
    let mut command = Command::new(nodeforge());
    command
        .args(["lab", "up", "lab.toml", "--accel", "tcg", "--isolated", "--timeout", "25min"])
        .args(["--node", nodes, "--initrd", "install-{node}", "--append", QUICK])
        .args(["--qemu", FURTHER, "--base"])
        .arg(support::stand_in_system())
        .arg("--kernel")
        .arg(support::guest_kernel())
        .env("PATH", support::path())
        .current_dir(folder);
    command
}

fn consoles(folder: &Path) -> String {
    let of = |node| std::fs::read_to_string(folder.join(format!("lab/{node}.console")));
    NODES.map(|node| of(node).unwrap_or_default()).concat()
}

#[test]
fn one_command_brings_three_nodes_up_until_the_storage_is_formatted_once() {
    if lacks_for_nodes() {
        return;
    }
    let _turn = Turn::wait_for_several();
    let folder = workplace("lab");
    let lab = Lab::of(&folder.join("lab"));
    let output = up(&folder, "node[0-2]").output().unwrap();
    let said = support::spoken_lines(&output).join("\n");
    std::fs::write(folder.join("up.log"), &said).unwrap();
    assert!(output.status.success(), "{said}\n---- consoles\n{}", consoles(&folder));
    assert!(said.contains("3 of 3 ready ("), "{said}");

    let status = printed(&folder, &["lab", "status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    for (at, node) in NODES.into_iter().enumerate() {
        assert_eq!(status[at]["name"], node);
        assert_eq!(status[at]["progress"]["state"], "ready", "{status}");
        assert!(status[at]["pid"].is_u64(), "{status}");
    }
    let consoles = consoles(&folder);
    let n_lines = |text: &str| consoles.lines().filter(|line| line.contains(text)).count();
    assert_eq!(n_lines("nodeforge-boot-test: dmg storage format begins"), 1, "{consoles}");
    assert_eq!(n_lines("nodeforge-format: the system is formatted: all 2 servers joined"), 1);
    // The disk for data is the one that was formatted, at its planned address.
    for node in ["node0", "node1"] {
        let ssd = std::fs::read(folder.join(format!("lab/{node}-data0.raw"))).unwrap();
        assert!(ssd.starts_with(b"SPDKBLOB"), "{node}");
    }

    // The way out is there, and NetworkManager leaves it alone.
    let shell = folder.join("lab/node2.shell");
    let devices = "nmcli -t -f DEVICE,TYPE,STATE device | grep :ethernet: | sort";
    let devices = guest::run_in_shell(&shell, devices, COMMAND_TIMEOUT);
    assert_eq!(devices.trim(), "enp0s4:ethernet:disconnected\nlan0:ethernet:connected");

    printed(&folder, &["lab", "down", "--timeout", "2s"]);
    assert_eq!(processes_in(&folder.join("lab")), [""; 0]);
    drop(lab);
}
