//! A real cloud-init, Debian's, that finds a node's seed: it makes the stand-in system the node, once.

use std::time::Duration;

use crate::examples::printed;
use crate::support;

use super::bench::{COMMAND_TIMEOUT, QUICK, initrd, scratch};
use super::guest::{Guest, Turn};
use super::lacks_for_nodes;
use super::lan::Lan;
use super::machine::{Disks, Machine};

/// cloud-init is written in Python, and the guest is emulated: two minutes alone, for both boots.
const TIMEOUT: Duration = Duration::from_secs(900);

#[test]
fn cloud_init_makes_a_node_of_a_seed_once() {
    if lacks_for_nodes() {
        return;
    }
    let _turn = Turn::wait_for_one();
    let folder = scratch("cloud-init");
    let cluster = support::repository().join("tests/boot/lab.toml");
    std::fs::copy(cluster, folder.join("lab.toml")).unwrap();
    printed(&folder, &["media", "seed", "lab.toml", "node2", "-o", "media"]);
    let disks = Disks::of_client(&folder);
    let lan = Lan::new(&["node2"]);
    let line = format!(
        "console=tty0 console=ttyS0,115200 intel_iommu=on transparent_hugepage=never \
         nodeforge-test.cloud-init {QUICK}"
    );
    let start = |name: &str| {
        let mac = "52:54:00:77:00:12";
        let mut words = Machine::small().arguments(&disks, mac, &lan.netdev("node2"));
        let seed = folder.join("media/node2.seed.img");
        let drive = format!("if=none,id=seed,format=raw,readonly=on,file={}", seed.display());
        words.extend(["-drive", &drive].map(str::to_owned));
        words.extend(["-device", "nvme,serial=seed,drive=seed,bus=pcie.0"].map(str::to_owned));
        Guest::start_with_shell(name, &support::guest_kernel(), &initrd(), &line, words)
    };
    // The script restarts the machine when it is done.
    start("seeded").wait_for_end(TIMEOUT);

    let mut guest = start("node2");
    guest.wait_for("nodeforge-firstboot: all steps are done", TIMEOUT);
    guest.run("cloud-init status --wait", TIMEOUT);
    let mut run = |command: &str| guest.run(command, COMMAND_TIMEOUT);
    // Each boot of cloud-init's is in its log, and so is where its settings came from.
    let log = "/var/log/cloud-init.log";
    assert_eq!(run(&format!("grep -c \"running 'init-local'\" {log}")), "2");
    assert_eq!(run(&format!("grep -c 'Invalid cloud-config' {log} || true")), "0");
    assert!(run("cat /run/cloud-init/result.json").contains("DataSourceNoCloud"));
    let network = run(&format!("grep 'Applying network configuration' {log}"));
    assert!(network.contains("10.77.0.13/24"), "{network}");
    // The script of the seed ran at the first boot, and found its mark at the second.
    assert_eq!(run("grep -c install /var/log/dnf-calls"), "1");
    assert_eq!(run("grep -c 'nodeforge' /var/lib/nodeforge/seeded"), "1");
    assert_eq!(run("hostname"), "node2.bench.test");
    assert_eq!(run("nmcli -g GENERAL.CONNECTION device show lan0"), "lan0");
    assert_eq!(run("ls /etc/NetworkManager/system-connections"), "lan0.nmconnection");
    assert_eq!(run("stat --format %U:%a /etc/nodeforge/kernel-args"), "root:644");
    guest.quit();
}
