//! A build that makes only what changed leaves what a build from nothing leaves.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use nodeforge::manifest::{Manifest, NodeEntry};
use serde_json::Value;

use crate::examples::nodeforge;
use crate::support;

/// A cluster that changes at random, the same way in every run.
struct Changing {
    /// xorshift64 (G. Marsaglia, "Xorshift RNGs", 2003).
    state: u64,
    nodes: BTreeMap<u8, ChangingNode>,
    timezone: &'static str,
    ntp: Option<u8>,
    domain: bool,
    overlay: &'static str,
    release: &'static str,
    selinux: &'static str,
    system_ram_gib: u8,
    targets: u8,
    mtu: Option<u16>,
    console: bool,
    format_by: bool,
}

#[derive(Clone)]
struct ChangingNode {
    mac: u8,
    is_client: bool,
    package: Option<&'static str>,
    kernel_arg: Option<u8>,
    serial: Option<u8>,
}

impl Changing {
    fn new(seed: u64) -> Self {
        let node = |mac| ChangingNode {
            mac,
            is_client: mac % 3 == 2,
            package: None,
            kernel_arg: None,
            serial: None,
        };
        Self {
            state: seed,
            nodes: (1..=8).map(|number| (number, node(number))).collect(),
            timezone: "UTC",
            ntp: None,
            domain: true,
            overlay: "http",
            release: "8.10",
            selinux: "disabled",
            system_ram_gib: 4,
            targets: 4,
            mtu: None,
            console: true,
            format_by: false,
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % limit
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// Changes one key of the cluster or of a node, adds a node, or takes one away.
    fn change(&mut self) {
        let numbers: Vec<u8> = self.nodes.keys().copied().collect();
        let number = self.one_of(&numbers[1..]);
        match self.below(18) {
            0 => self.timezone = self.one_of(&["UTC", "Asia/Shanghai", "Europe/Berlin"]),
            1 => self.ntp = self.one_of(&[None, Some(1), Some(2)]),
            2 => self.domain = !self.domain,
            3 => self.overlay = self.one_of(&["http", "media", "embedded"]),
            4 => self.release = self.one_of(&["8.10", "8.9"]),
            5 => self.selinux = self.one_of(&["disabled", "permissive", "enforcing"]),
            6 => self.system_ram_gib = self.one_of(&[4, 5]),
            7 => self.targets = self.one_of(&[2, 4, 6]),
            8 => self.mtu = self.one_of(&[None, Some(9000)]),
            9 => self.console = !self.console,
            10 => self.format_by = !self.format_by,
            11 if self.nodes.len() > 4 => _ = self.nodes.remove(&number),
            12 | 11 => {
                let number = self.below(100) as u8 + 10;
                let fresh = ChangingNode {
                    mac: number,
                    is_client: number.is_multiple_of(2),
                    package: None,
                    kernel_arg: None,
                    serial: None,
                };
                self.nodes.entry(number).or_insert(fresh);
            }
            what => {
                let choice = self.below(3);
                let node = self.nodes.get_mut(&number).expect("the number is a node's");
                match what {
                    13 => node.mac = node.mac.wrapping_add(128),
                    14 => node.package = [None, Some("tmux"), Some("screen")][choice as usize],
                    15 => node.kernel_arg = [None, Some(1), Some(2)][choice as usize],
                    16 => node.serial = [None, Some(1), Some(2)][choice as usize],
                    _ => node.is_client = !node.is_client,
                }
            }
        }
    }

    /// The cluster file; node 1 is the one admin and access point.
    fn text(&self) -> String {
        let Self { timezone, overlay, release, selinux, system_ram_gib, targets, .. } = self;
        let domain = if self.domain { "domain = \"lab.example\"\n" } else { "" };
        let mut text = format!(
            r#"format = 1
[cluster]
name = "changing"
timezone = "{timezone}"
{domain}"#
        );
        text += &self.ntp.map_or_else(String::new, |ntp| format!("ntp = [\"10.0.0.{ntp}\"]\n"));
        write!(
            text,
            r#"[boot]
url = "http://10.0.0.2:8080"
overlay = "{overlay}"
[os]
release = "{release}"
selinux = "{selinux}"
[daos]
version = "2.6.0"
provider = "ofi+tcp"
access_points = ["n1"]
security = "insecure"
system_ram_reserved = "{system_ram_gib}GiB"
{}[net.mgmt]
subnet = "10.0.0.0/16"
[hw.box]
firmware = "uefi"
memory = "64GiB"
cores = 16
install_disk = {{ bus = "sata" }}
{}nic.mgmt = {{ name = "lan0", net = "mgmt", boot = true{} }}
[[role.server.engine]]
targets = {targets}
fabric = "mgmt"
scm = {{ class = "ram", size = "16GiB" }}
bdev = [{{ class = "nvme", list = ["0000:5e:00.0"], roles = ["wal", "meta", "data"] }}]
"#,
            if self.format_by { "format_by = \"n1\"\n" } else { "" },
            if self.console { "console = \"ttyS0,115200\"\n" } else { "" },
            self.mtu.map_or_else(String::new, |mtu| format!(", mtu = {mtu}")),
        )
        .unwrap();
        for (number, node) in &self.nodes {
            let roles = match (number, node.is_client) {
                (1, _) => "\"admin\", \"server\"",
                (_, true) => "\"client\"",
                (_, false) => "\"server\"",
            };
            let list = |name: &str, value: Option<String>| {
                value.map_or_else(String::new, |value| format!("{name} = [\"{value}\"]\n"))
            };
            let serial = node.serial.map(|serial| format!("serial = \"S{number}-{serial}\"\n"));
            write!(
                text,
                "[node.n{number}]\nhw = \"box\"\nroles = [{roles}]\n{}{}{}\
                 nic.mgmt = {{ ip = \"10.0.1.{number}\", mac = \"02:00:00:00:{number:02x}:{:02x}\" }}\n",
                list("packages", node.package.map(str::to_owned)),
                list("kernel_args", node.kernel_arg.map(|number| format!("nodeforge.x={number}"))),
                serial.unwrap_or_default(),
                node.mac,
            )
            .unwrap();
        }
        text
    }
}

#[test]
fn building_what_changed_gives_what_building_everything_gives() {
    for seed in [0x5eed_0001, 0x5eed_0002] {
        let scratch = support::scratch();
        let folder = scratch.path();
        let mut cluster = Changing::new(seed);
        let mut before: Option<Manifest> = None;
        for step in 0..20 {
            let at = format!("seed {seed:#x}, step {step}");
            fs::write(folder.join("cluster.toml"), cluster.text()).unwrap();
            let n_threads = ["1", "2", "8"][step % 3];
            let said = build(folder, "kept", n_threads, &at);
            build(folder, &format!("new{step}"), "2", &at);
            let text = |out: &str, name: &str| {
                fs::read_to_string(folder.join(out).join("current").join(name)).unwrap()
            };
            for name in ["manifest.json", "SHA256SUMS", "layers/SHA256SUMS"] {
                let (kept, new) = (text("kept", name), text(&format!("new{step}"), name));
                assert!(kept == new, "{name} differs; {at}\n{}", cluster.text());
            }
            // The lists are right about the files, too.
            let verify =
                Command::new(nodeforge()).args(["verify", "kept"]).current_dir(folder).output();
            let verified = verify.unwrap();
            assert!(verified.status.success(), "{at}: {verified:?}");
            fs::remove_dir_all(folder.join(format!("new{step}"))).unwrap();

            let manifest = Manifest::from_json(text("kept", "manifest.json").as_bytes()).unwrap();
            if let Some(before) = &before {
                let is_changed = |(name, node): &(&String, &NodeEntry)| {
                    before.nodes.get(*name).is_some_and(|old| old.folder != node.folder)
                };
                let changed: Vec<&String> =
                    manifest.nodes.iter().filter(is_changed).map(|(name, _)| name).collect();
                let mut told: Vec<&str> = said["changed"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|it| it.as_str().unwrap())
                    .collect();
                told.sort_unstable();
                assert_eq!(told, changed, "{at}");
            }
            before = Some(manifest);
            cluster.change();
        }
    }
}

fn build(folder: &Path, out: &str, n_threads: &str, at: &str) -> Value {
    let output = Command::new(nodeforge())
        .args(["build", "cluster.toml", "--json", "--cache", "none", "-o", out])
        .env("RAYON_NUM_THREADS", n_threads)
        .current_dir(folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{at}: {said}\n{}",
        fs::read_to_string(folder.join("cluster.toml")).unwrap()
    );
    serde_json::from_slice(&output.stdout).unwrap()
}
