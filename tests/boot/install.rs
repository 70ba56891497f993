//! A kickstart executed for real: an armed node boots from the network, the test installer of
//! `installer/` does what its kickstart says, and the system on its disk becomes ready.
//!
//! All of it is served by the program: DHCP, boot programs, the installer's images, kickstart,
//! overlays, secrets and events.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::examples::{nodeforge, printed};
use crate::media::dvd;
use crate::oracles::archives::stand_in_cpio;
use crate::support;

use super::bench::{self, BOOT_TIMEOUT, COMMAND_TIMEOUT, scratch};
use super::guest::{Guest, Turn};
use super::lan::Lan;
use super::network::{self, Net, OVMF_CODE, OVMF_VARS, Process};
use super::{NEEDS, initrd};

/// From firmware to an installed disk; it takes a minute, three beside a compiler.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(600);

const FURTHER_NEEDS: [&str; 10] = [
    "qemu-img",
    "strip",
    "unshare",
    "nsenter",
    "ip",
    "curl",
    "grub-mkimage",
    support::STAND_IN,
    "/usr/lib/ipxe/undionly.kpxe",
    OVMF_CODE,
];

/// `install.toml`'s nodes: name and MAC address.
pub const NODE: (&str, &str) = ("node0", "52:54:00:78:00:11");
const BROKEN: (&str, &str) = ("node1", "52:54:00:78:00:12");

const SAYS: &str = "nodeforge-boot-test: installer: ";
const INSTALLED: &str = "nodeforge-boot-test: installer: installed";
const FORMAT_BEGINS: &str = "nodeforge-boot-test: dmg storage format begins";

#[track_caller]
pub fn lacks() -> bool {
    support::lacks(&[&NEEDS[..], &FURTHER_NEEDS].concat())
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// Whose ROM is iPXE.
    Bios,
    /// PXE of its own, which loads GRUB.
    Uefi,
}

/// A boot server with its network, and the disks of one machine.
struct Site {
    folder: PathBuf,
    net: Net,
    firmware: Firmware,
    _server: Process,
    turn: Turn,
}

impl Site {
    /// Builds install.toml for machines of `firmware` and serves it.
    #[track_caller]
    fn new(test: &str, firmware: Firmware) -> Self {
        let turn = Turn::wait_for_one();
        let folder = workplace(test, firmware);
        let installer = folder.join("initrd");
        let images = [
            ("vmlinuz", &*support::guest_kernel()),
            ("initrd.img", &installer),
            ("install.img", &support::install_img()),
        ];
        network::fill_cache(&folder.join("cache"), &images);
        add_boot_program(&folder, firmware);
        let words = ["build", "install.toml", "--cache", "cache", "--boot-programs", "programs"];
        printed(&folder, &words);
        let net = Net::new();
        let mut command = net.command(nodeforge());
        command.args(["serve", "--dhcp"]).current_dir(&folder);
        let server = Process::start(command, Vec::new());
        server.wait_for(" on br0 (10.78.0.1)");
        Self { folder, net, firmware, _server: server, turn }
    }

    #[track_caller]
    fn arm(&self, node: &str) {
        printed(&self.folder, &["arm", node]);
    }

    /// Starts the machine as `node`. Its firmware asks the network first, then its disk.
    #[track_caller]
    fn start(&self, (node, mac): (&str, &str), name: &str) -> Guest {
        let qemu = support::find_program("qemu-system-x86_64").expect("the test asked for it");
        let mut command = self.net.command(&qemu);
        let nic = "-netdev tap,id=lan,ifname=port0,script=no,downscript=no \
                   -object rng-random,id=random,filename=/dev/urandom -device virtio-rng-pci,rng=random";
        let words = machine(&self.folder, self.firmware, mac, ",bootindex=1") + nic;
        command.args(words.split_whitespace());
        Guest::start_firmware_with_shell(&self.turn, &format!("{node}-{name}"), command)
    }

    /// Arms the node and has it installed; its machine is off afterwards.
    #[track_caller]
    fn install(&self, node: (&str, &str), name: &str) {
        self.arm(node.0);
        let mut guest = self.start(node, name);
        guest.wait_for(INSTALLED, INSTALL_TIMEOUT);
        guest.wait_for_end(COMMAND_TIMEOUT);
        assert_eq!(self.status(node.0)["state"], "installed");
    }

    /// Starts an installed node, which boots from its disk until it is ready.
    #[track_caller]
    fn start_installed(&self, node: (&str, &str), name: &str) -> Guest {
        let mut guest = self.start(node, name);
        guest.wait_for(&format!("nodeforge-ready: {} is ready", node.0), BOOT_TIMEOUT);
        assert_eq!(guest.lines_with(SAYS), [""; 0], "the installer ran");
        self.wait_for_state(node.0, "ready");
        guest
    }

    /// `GET /api/v1/nodes/NODE`.
    #[track_caller]
    fn status(&self, node: &str) -> Value {
        let curl = support::find_program("curl").expect("the test asked for it");
        let url = format!("http://10.78.0.1/api/v1/nodes/{node}");
        let output = self.net.command(&curl).args(["-sS", "--fail", &url]).output().unwrap();
        assert!(output.status.success(), "{:?}", support::spoken_lines(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The node's last words may still be on their way when its console has them.
    #[track_caller]
    fn wait_for_state(&self, node: &str, state: &str) {
        let deadline = Instant::now() + COMMAND_TIMEOUT;
        while self.status(node)["state"] != state {
            assert!(Instant::now() < deadline, "{:#}", self.status(node));
            std::thread::yield_now();
        }
    }
}

/// QEMU's arguments for a box as install.toml has it, with the disks in `folder`: it starts its
/// network card as `boot` says, and its disk second. BIOS has iPXE in the card's ROM, OVMF a driver
/// of its own.
fn machine(folder: &Path, firmware: Firmware, mac: &str, boot: &str) -> String {
    let folder = folder.display();
    let firmware = match firmware {
        Firmware::Bios => String::new(),
        Firmware::Uefi => format!(
            "-global virtio-net-pci.romfile= \
             -drive if=pflash,unit=0,readonly=on,format=raw,file={OVMF_CODE} \
             -drive if=pflash,unit=1,format=raw,file={folder}/vars "
        ),
    };
    let machine = format!(
        "-machine q35,graphics=off -accel tcg,thread=single -smp 3,sockets=1,cores=3,threads=1 \
         -m 9G -device intel-iommu \
         -drive if=none,id=system,file={folder}/system.qcow2,format=qcow2,cache=unsafe \
         -device nvme,serial=system,drive=system,bootindex=2 \
         -drive if=none,id=ssd,file={folder}/ssd.qcow2,format=qcow2,cache=unsafe \
         -device nvme,serial=ssd,drive=ssd,addr=0x11 \
         -device virtio-net-pci,netdev=lan,mac={mac},addr=0x10{boot} "
    );
    machine + &firmware
}

/// Of the word `secret`.
const ROOT_PASSWORD: &str = "$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1\n";

/// A folder with the cluster file for machines of `firmware`, the installer's initrd, and the
/// empty disks of a machine.
#[track_caller]
pub fn workplace(test: &str, firmware: Firmware) -> PathBuf {
    let folder = scratch(test);
    let text = support::repository().join("tests/boot/install.toml");
    let mut text = std::fs::read_to_string(text).unwrap();
    if firmware == Firmware::Uefi {
        text = text.replace(r#"firmware = "bios""#, "firmware = \"uefi\"\ndisk_boot = \"chain\"");
    }
    support::write(&folder, "install.toml", text);
    support::write(&folder, "root.sha512", ROOT_PASSWORD);
    support::set_mode(&folder, "root.sha512", 0o600);
    pack_installer(&folder.join("initrd"));
    add_disk(&folder, "system", "24G");
    add_disk(&folder, "ssd", "256M");
    std::fs::copy(OVMF_VARS, folder.join("vars")).unwrap();
    folder
}

#[track_caller]
fn add_disk(folder: &Path, name: &str, size: &str) {
    let path = folder.join(format!("{name}.qcow2"));
    let output = support::command("qemu-img")
        .args(["create", "-q", "-f", "qcow2"])
        .arg(&path)
        .arg(size)
        .output()
        .unwrap();
    assert!(output.status.success(), "qemu-img: {:?}", support::spoken_lines(&output));
}

#[track_caller]
fn add_boot_program(folder: &Path, firmware: Firmware) {
    let (name, from) = match firmware {
        Firmware::Bios => ("undionly.kpxe", PathBuf::from("/usr/lib/ipxe/undionly.kpxe")),
        Firmware::Uefi => ("grub/grubx64.efi", network::network_grub(folder)),
    };
    support::write(folder, &format!("programs/{name}"), std::fs::read(from).unwrap());
}

/// Modules that the installer's initrd needs, in the order of loading.
const MODULES: [&str; 13] = [
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci",
    "net/core/failover",
    "drivers/net/net_failover",
    "drivers/net/virtio_net",
    "drivers/block/loop",
    "fs/squashfs/squashfs",
    "fs/overlayfs/overlay",
    "drivers/cdrom/cdrom",
    "fs/isofs/isofs",
];

/// The installer's initrd: what is in `installer/`, and what it puts on a node as packages do.
#[track_caller]
fn pack_installer(path: &Path) {
    let from = support::repository().join("tests/boot/installer");
    let read = |name: &str| std::fs::read(from.join(name)).unwrap();
    let tree = initrd::tree_with(read("init"));
    support::write(tree.path(), "udhcpc", read("udhcpc"));
    support::set_mode(tree.path(), "udhcpc", 0o755);
    for (at, module) in MODULES.iter().enumerate() {
        let name = module.rsplit('/').next().unwrap();
        let bytes = std::fs::read(support::guest_module(&format!("{module}.ko"))).unwrap();
        support::write(tree.path(), &format!("modules/{at:02}-{name}.ko"), bytes);
    }
    let busybox = std::fs::read(tree.path().join("bin/busybox")).unwrap();
    support::write(tree.path(), "installer/busybox", busybox);
    support::write(tree.path(), "installer/fakes", bench::fakes());
    let packages = std::fs::read(bench::stand_in().join("packages.sh")).unwrap();
    support::write(tree.path(), "installer/packages.sh", packages);
    for file in support::files_below(&from, |path| !["init", "udhcpc"].contains(&path)) {
        support::write(tree.path(), &format!("installer/{file}"), read(&file));
    }
    for file in ["busybox", "systemctl", "target/usr/bin/grubby"] {
        support::set_mode(tree.path(), &format!("installer/{file}"), 0o755);
    }
    stand_in_cpio(tree.path(), path);
}

/// What makes the server the member that it is: its superblock, and the start of its SSD.
#[track_caller]
fn state_of(guest: &mut Guest) -> String {
    let script = "cd /var/lib/daos && sha256sum daos_control/engine0/superblock && \
        disk=$(echo /sys/bus/pci/devices/0000:00:11.0/nvme/nvme*/nvme*n1) && \
        head -c 1048576 /dev/${disk##*/} | sha256sum && head -c 8 /dev/${disk##*/} && \
        echo && blkid -p -s UUID -o value \"$(findmnt -n -o SOURCE /var/lib/daos)\"";
    let state = guest.run(script, COMMAND_TIMEOUT);
    assert_eq!(state.lines().nth(2), Some("SPDKBLOB"), "{state}");
    state
}

/// What only an installation from beginning to end leaves on a node.
#[track_caller]
fn assert_installed_as_planned(guest: &mut Guest) {
    let token = "stat -c %a /etc/nodeforge/event-token";
    assert_eq!(guest.run(token, COMMAND_TIMEOUT), "600");
    let line = guest.run("cat /proc/cmdline", COMMAND_TIMEOUT);
    // The one that GRUB read from the disk.
    assert!(line.starts_with("BOOT_IMAGE="), "{line}");
    for word in ["root=UUID=", " intel_iommu=on", " console=ttyS0,115200"] {
        assert!(line.contains(word), "{word} in {line}");
    }
    assert!(!line.contains("token"), "{line}");
    let hash = guest.run("getent shadow root | cut -d : -f 2", COMMAND_TIMEOUT);
    assert_eq!(hash, ROOT_PASSWORD.trim());
    let labels = "lsblk -n -r -o LABEL,MOUNTPOINT | grep -E '^(NF|DAOS)' | sort";
    assert_eq!(
        guest.run(labels, COMMAND_TIMEOUT).lines().collect::<Vec<_>>(),
        ["DAOSMETA /var/lib/daos", "NFLOG /var/log", "NFROOT /"]
    );
    assert_eq!(guest.run("ls /etc/sysconfig/network-scripts", COMMAND_TIMEOUT), "");
    let enabled = "systemctl is-enabled chronyd sshd tuned chrony-wait";
    assert_eq!(guest.run(enabled, COMMAND_TIMEOUT), "enabled\nenabled\nenabled\nenabled");
    let tokens = "grep -rlE 'token=[A-Za-z0-9_-]{20}' /root /etc /boot /var/log || true";
    assert_eq!(guest.run(tokens, COMMAND_TIMEOUT), "");
}

/// The steps that the boot server has of the node, each once, in the order in which they began.
fn steps(status: &Value) -> Vec<&str> {
    let mut steps = Vec::new();
    for entry in status["timeline"].as_array().unwrap() {
        let step = entry["step"].as_str().unwrap();
        if !steps.contains(&step) {
            steps.push(step);
        }
    }
    steps
}

/// Whether `wanted` are in `steps`, in this order.
fn are_in_order(steps: &[&str], wanted: &[&str]) -> bool {
    let mut rest = steps.iter();
    wanted.iter().all(|step| rest.any(|found| found == step))
}

#[track_caller]
fn installs_until_ready(site: &Site) -> Guest {
    site.install(NODE, "install");
    let mut guest = site.start_installed(NODE, "first-boot");
    assert_installed_as_planned(&mut guest);
    assert_eq!(guest.lines_with(FORMAT_BEGINS).len(), 1);
    let status = site.status("node0");
    let steps = steps(&status);
    let wanted =
        ["dhcp", "boot script", "kernel", "kickstart", "disk", "finish", "90-preflight", "ready"];
    assert!(are_in_order(&steps, &wanted), "{steps:?}");
    assert_eq!(status["state"], "ready");
    guest
}

#[test]
fn a_bios_machine_installs_itself_once_becomes_ready_and_keeps_its_data_when_installed_anew() {
    if lacks() {
        return;
    }
    let site = Site::new("install-bios", Firmware::Bios);
    let mut guest = installs_until_ready(&site);
    let before = state_of(&mut guest);
    guest.begin_shutdown(COMMAND_TIMEOUT).wait_for_end(BOOT_TIMEOUT);

    site.install(NODE, "reinstall");
    let mut guest = site.start_installed(NODE, "again");
    assert_installed_as_planned(&mut guest);
    assert_eq!(guest.lines_with(FORMAT_BEGINS), [""; 0]);
    assert_eq!(state_of(&mut guest), before);
    guest.quit();
}

#[test]
fn a_uefi_machine_installs_itself_once_and_becomes_ready() {
    if lacks() {
        return;
    }
    let site = Site::new("install-uefi", Firmware::Uefi);
    installs_until_ready(&site).quit();
}

#[test]
fn an_installation_that_fails_says_why_on_the_console_and_to_the_boot_server() {
    if lacks() {
        return;
    }
    let site = Site::new("install-fails", Firmware::Bios);
    site.arm(BROKEN.0);
    let mut guest = site.start(BROKEN, "install");
    guest.wait_for("nodeforge-boot-test: installer: error: ", INSTALL_TIMEOUT);
    site.wait_for_state(BROKEN.0, "failed");
    let status = site.status(BROKEN.0);
    let reason = status["reason"].as_str().unwrap();
    assert!(reason.starts_with("The installer stopped with an error: "), "{reason}");
    let log = status["log"].to_string();
    assert!(log.contains("--- anaconda.log"), "{log}");
    assert!(log.contains("no-such-unit.service"), "{log}");
    guest.quit();
}

#[test]
fn a_machine_installs_itself_from_a_nodes_iso_and_not_again_while_the_iso_stays_in() {
    if lacks() || support::lacks(&dvd::NEEDS) {
        return;
    }
    let turn = Turn::wait_for_one();
    let folder = workplace("install-iso", Firmware::Bios);
    let base = dvd::make(&folder, &folder.join("initrd"), Some(&support::install_img()));
    let base = base.to_str().unwrap();
    let words = ["media", "iso", "install.toml", "--base", base, "--node", NODE.0, "-o", "."];
    printed(&folder, &words);

    let lan = Lan::new(&[NODE.0]);
    let iso = folder.join(format!("{}.iso", NODE.0));
    let start = |name: &str| {
        let stick = format!(
            "-drive if=none,id=stick,file={},format=raw,snapshot=on \
             -device nvme,serial=stick,drive=stick,bootindex=1 -netdev {}",
            iso.display(),
            lan.netdev(NODE.0)
        );
        let words = machine(&folder, Firmware::Bios, NODE.1, ",romfile=") + &stick;
        let mut command = support::command("qemu-system-x86_64");
        command.args(words.split_whitespace());
        Guest::start_firmware_with_shell(&turn, &format!("{}-{name}", NODE.0), command)
    };
    let mut guest = start("install");
    guest.wait_for(INSTALLED, INSTALL_TIMEOUT);
    guest.wait_for_end(COMMAND_TIMEOUT);

    let mut guest = start("again");
    guest.wait_for("node0 is installed on nvme", INSTALL_TIMEOUT);
    assert_eq!(guest.lines_with("installer: partitions"), [""; 0]);
    guest.quit();
}
