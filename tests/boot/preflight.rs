//! One server in hardware that is or is not as planned: the verdict on the console, and DAOS
//! down where it is fatal.

use super::bench::{BOOT_TIMEOUT, COMMAND_TIMEOUT, Node, Start, scratch};
use super::guest::{Guest, Turn};
use super::lacks_for_nodes;
use super::lan::Lan;
use super::machine::{Disks, Machine, NicSlot};
use super::rollout::daos_stays_down;

/// A server that is to be installed, in a machine that `change` deviates from the plan.
#[track_caller]
fn install(lan: &Lan, test: &str, change: impl Fn(&mut Machine)) -> Guest {
    let disks = Disks::of_server(&scratch(test).join("node1"));
    let mut node = Node::new("node1", disks);
    change(&mut node.machine);
    node.start(lan, Start::Install)
}

/// Waits for the end of preflight in this boot, and returns its lines that are not ok.
#[track_caller]
fn verdicts(guest: &mut Guest) -> Vec<String> {
    guest.wait_for("nodeforge-firstboot: 90-preflight: ", BOOT_TIMEOUT);
    let lines = guest.run(
        "journalctl --output=cat --unit=nodeforge-firstboot | grep '^nodeforge-preflight: [a-zA-Z]* [a-z-]*:'",
        COMMAND_TIMEOUT,
    );
    lines.lines().filter(|line| !line.contains(": ok ")).map(str::to_owned).collect()
}

/// Asserts that exactly the checks `fatal` were fatal and, as they say, with `measured`.
#[track_caller]
fn assert_fatal(guest: &mut Guest, check: &str, measured: &str) {
    let found = verdicts(guest);
    let fatal: Vec<&String> = found.iter().filter(|line| line.contains(": FATAL ")).collect();
    assert_eq!(fatal.len(), 1, "{found:#?}");
    assert!(fatal[0].contains(&format!("FATAL {check}: ")), "{found:#?}");
    assert!(fatal[0].contains(measured), "{found:#?}");
    // The console has had it, too.
    assert_eq!(guest.lines_with(&format!("nodeforge-preflight: FATAL {check}: ")).len(), 1);
    daos_stays_down(guest);
}

#[test]
fn a_server_as_planned_passes_and_ssds_in_use_do_not() {
    if lacks_for_nodes() {
        return;
    }
    let _turn = Turn::wait();
    let lan = Lan::new(&["node1"]);
    let mut guest = install(&lan, "as-planned", |_| {});
    assert_eq!(verdicts(&mut guest), [""; 0]);
    guest.wait_for("nodeforge-firstboot: all steps are done", BOOT_TIMEOUT);
    guest.wait_for("SCM format required on instance 0", BOOT_TIMEOUT);
    guest.run("systemctl is-active daos_server", COMMAND_TIMEOUT);

    // What somebody else wrote, and what DAOS wrote while its superblock is lost.
    let ssd =
        "disk=$(echo /sys/bus/pci/devices/0000:81:00.0/nvme/nvme*/nvme*n1); disk=/dev/${disk##*/}";
    for (content, verdict) in [
        ("mkfs.ext4 -q -F $disk", "holds ext4"),
        ("printf SPDKBLOB | dd of=$disk conv=fsync", "holds data of DAOS"),
    ] {
        let soil = format!("systemctl stop daos_server nodeforge-firstboot; {ssd}; {content}");
        guest.run(&soil, COMMAND_TIMEOUT);
        // A start of DAOS runs the first boot again, which looks at the SSD again.
        daos_stays_down(&mut guest);
        let check = "nodeforge-preflight: FATAL nvme:0000:81:00.0: ";
        guest.wait_for_both(check, verdict, COMMAND_TIMEOUT);
    }
    guest.quit();
}

#[test]
fn hardware_that_is_not_as_planned_keeps_daos_down() {
    if lacks_for_nodes() {
        return;
    }
    let _turn = Turn::wait();
    type Change = fn(&mut Machine);
    let cases: [(&str, Change, &str, &str); 4] = [
        (
            "no-iommu",
            |machine| machine.has_iommu = false,
            "iommu",
            "0 groups in /sys/kernel/iommu_groups",
        ),
        (
            "no-ssd",
            |machine| machine.has_ssd = false,
            "nvme:0000:81:00.0",
            "there is nothing at 0000:81:00.0",
        ),
        (
            "wrong-nic",
            |machine| machine.nic_slot = NicSlot::Other,
            "nic:lan0",
            "the plan says 0000:82:00.0",
        ),
        (
            "little-memory",
            |machine| machine.memory_mib = 7 << 10,
            "memory",
            "the engines need 8.0 GiB",
        ),
    ];
    // Two at a time, for two cores.
    for pair in cases.chunks(2) {
        let lans = [Lan::new(&["node1"]), Lan::new(&["node1"])];
        let machines = pair.iter().zip(&lans);
        let mut guests: Vec<Guest> =
            machines.map(|((test, change, ..), lan)| install(lan, test, change)).collect();
        for (guest, (_, _, check, measured)) in guests.iter_mut().zip(pair) {
            assert_fatal(guest, check, measured);
        }
        guests.into_iter().for_each(Guest::quit);
    }
}
