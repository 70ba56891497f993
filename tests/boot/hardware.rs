//! One server in hardware that is or is not as planned: the verdict on the console, and DAOS
//! down where it is fatal.

use super::bench::{BOOT_TIMEOUT, COMMAND_TIMEOUT, Node, Start, scratch};
use super::guest::{Guest, Turn};
use super::lacks_for_nodes;
use super::lan::Lan;
use super::machine::{Disks, NicSlot};
use super::rollout::{at_once, daos_stays_down};

/// Verdicts of preflight in this boot, once it has ended, that are not ok.
#[track_caller]
pub fn verdicts(guest: &mut Guest) -> Vec<String> {
    guest.wait_for_any_time("nodeforge-firstboot: 90-preflight: ", BOOT_TIMEOUT);
    let lines = guest.run(
        "journalctl --boot --output=cat --unit=nodeforge-firstboot | \
            grep '^nodeforge-preflight: [a-zA-Z]* [a-z-]*:'",
        COMMAND_TIMEOUT,
    );
    lines.lines().filter(|line| !line.contains(": ok ")).map(str::to_owned).collect()
}

/// Asserts that the checks of `expected` were fatal, and no others, for what they measured.
#[track_caller]
fn assert_fatal(guest: &mut Guest, expected: &[(&str, &str)]) {
    let found = verdicts(guest);
    let fatal: Vec<&String> = found.iter().filter(|line| line.contains(": FATAL ")).collect();
    assert_eq!(fatal.len(), expected.len(), "{found:#?}");
    for (check, measured) in expected {
        let begin = format!("nodeforge-preflight: FATAL {check}: ");
        let is_it = |line: &&&String| line.starts_with(&begin) && line.contains(measured);
        assert_eq!(fatal.iter().filter(is_it).count(), 1, "{check}: {found:#?}");
        // The console has had it, too.
        assert!(!guest.lines_with(&begin).is_empty(), "{begin}");
    }
}

/// Two servers, for two cores, that deviate from the plan in all ways that do not hide each
/// other. As planned is what the nodes of [`super::rollout`] are; there, too, are SSDs that
/// DAOS has used.
#[test]
fn hardware_that_is_not_as_planned_keeps_daos_down() {
    if lacks_for_nodes() {
        return;
    }
    let _turn = Turn::wait();
    let folder = scratch("deviations");
    let lans = [Lan::new(&["node1"]), Lan::new(&["node1"])];

    let mut poor = Node::new("node1", Disks::of_server(&folder.join("poor")).with_foreign_ssd());
    poor.machine.has_iommu = false;
    poor.machine.memory_mib = 7 << 10;
    let mut odd = Node::new("node1", Disks::of_server(&folder.join("odd")));
    odd.machine.has_ssd = false;
    odd.machine.nic_slot = NicSlot::Other;

    let mut guests = [poor.start(&lans[0], Start::Install), odd.start(&lans[1], Start::Install)];
    // A restart while the steps run waits for them, too; those further below run them again.
    guests[0].wait_for("nodeforge-firstboot: 10-owners: done", BOOT_TIMEOUT);
    daos_stays_down(&mut guests[0]);
    assert_fatal(
        &mut guests[0],
        &[
            ("iommu", "0 groups in /sys/kernel/iommu_groups"),
            ("memory", "the engines need 8.0 GiB"),
            ("nvme:0000:81:00.0", "holds ext4"),
        ],
    );
    assert_fatal(
        &mut guests[1],
        &[
            ("nic:lan0", "the plan says 0000:82:00.0"),
            ("nvme:0000:81:00.0", "there is nothing at 0000:81:00.0"),
        ],
    );
    at_once(&mut guests, daos_stays_down);
    guests.into_iter().for_each(Guest::quit);
}
