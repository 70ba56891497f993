//! Three nodes on one network: they configure themselves, the admin formats once, and never
//! again whatever is switched off, lost or installed anew.

use std::sync::LazyLock;

use super::bench::{BOOT_TIMEOUT, COMMAND_TIMEOUT, Node, Start, scratch};
use super::guest::{Guest, Turn};
use super::hardware::verdicts;
use super::lacks_for_nodes;
use super::lan::Lan;
use super::machine::Disks;

const NODES: [&str; 3] = ["node0", "node1", "node2"];

const FORMAT_BEGINS: &str = "nodeforge-boot-test: dmg storage format begins";
const FORMAT_ENDED: &str = "nodeforge-boot-test: dmg storage format ended with 0";
const FORMATTED: &str = "nodeforge-format: the system is formatted: all 2 servers joined";
const FORMATTED_ALREADY: &str =
    "nodeforge-format: the system was formatted already: all 2 servers joined";

/// The cluster after its first boot, with a server that comes late, and a clean shutdown. Made
/// by the first test that wants it; its disks are for copying.
struct FormattedCluster {
    admin: Disks,
    server: Disks,
    client: Disks,
    /// The admin's disks when dmg had formatted, and had not come to tell the orchestrator.
    power_cut: Disks,
    /// Before the second server let DAOS start, after more rounds than a format needs.
    n_formats_before: usize,
    /// Superblocks on the admin's disks then.
    superblocks_before: String,
    /// What [`state_of`] found on the two servers in the end.
    states: [String; 2],
    n_formats: usize,
}

static FORMATTED_CLUSTER: LazyLock<FormattedCluster> = LazyLock::new(first_boot);

fn first_boot() -> FormattedCluster {
    let folder = scratch("formatted");
    let lan = Lan::new(&NODES);
    let nodes = [
        Node::new("node0", Disks::of_server(&folder.join("node0"))),
        Node::new("node1", Disks::of_server(&folder.join("node1"))),
        Node::new("node2", Disks::of_client(&folder.join("node2"))),
    ];
    let mut admin = nodes[0].start_with(&lan, Start::Install, "boot_test.hold=format");
    let client = nodes[2].start(&lan, Start::Install);
    let waits = "nodeforge-format: waiting for node1 (";
    admin.wait_for_both(waits, "; nothing is formatted until all servers are there", BOOT_TIMEOUT);

    let mut late = nodes[1].start(&lan, Start::Install);
    for _ in 0..3 {
        admin.wait_for("nodeforge-boot-test: dmg network scan", BOOT_TIMEOUT);
    }
    late.wait_for("nodeforge-firstboot: 90-preflight: done", BOOT_TIMEOUT);
    let n_formats_before = n_formats_of(&mut admin);
    let superblocks_before = admin.run("find /var/lib/daos -name superblock", COMMAND_TIMEOUT);

    admin.wait_for(FORMAT_ENDED, BOOT_TIMEOUT);
    assert_eq!(admin.lines_with(FORMATTED), [""; 0]);
    let power_cut = admin.paused(|| nodes[0].disks.frozen_in(&folder.join("power-cut")));
    admin.run("touch /run/nodeforge-test-go-on", COMMAND_TIMEOUT);

    let mut guests = [admin, late, client];
    guests[0].wait_for_any_time(FORMATTED, BOOT_TIMEOUT);
    wait_until_ready(&mut guests);
    let states = [state_of(&mut guests[0]), state_of(&mut guests[1])];
    let n_formats = guests.iter_mut().map(n_formats_of).sum();
    shut_down(guests);
    let [admin, server, client] = nodes.map(|node| node.disks);
    FormattedCluster {
        admin,
        server,
        client,
        power_cut,
        n_formats_before,
        superblocks_before,
        states,
        n_formats,
    }
}

/// Waits for each guest's `nodeforge-ready` line. The order of other lines is left open.
#[track_caller]
fn wait_until_ready(guests: &mut [Guest]) {
    for guest in guests {
        let marker = format!("nodeforge-ready: {} is ready", guest.name());
        guest.wait_for_any_time(&marker, BOOT_TIMEOUT);
    }
}

fn n_formats_of(guest: &mut Guest) -> usize {
    guest.lines_with(FORMAT_BEGINS).len()
}

#[track_caller]
fn shut_down<const N: usize>(guests: [Guest; N]) {
    let leaving = guests.map(|guest| guest.begin_shutdown(COMMAND_TIMEOUT));
    for guest in leaving {
        guest.wait_for_end(BOOT_TIMEOUT);
    }
}

/// What makes a server the member that it is: its superblock, and the start of its SSD. The
/// mark of a format is in both.
#[track_caller]
fn state_of(guest: &mut Guest) -> String {
    let script = "cd /var/lib/daos && sha256sum daos_control/engine0/superblock && \
        disk=$(echo /sys/bus/pci/devices/0000:81:00.0/nvme/nvme*/nvme*n1) && \
        head -c 1048576 /dev/${disk##*/} | sha256sum && head -c 8 /dev/${disk##*/}";
    let state = guest.run(script, COMMAND_TIMEOUT);
    assert!(state.ends_with("SPDKBLOB"), "{state}");
    state
}

#[test]
fn three_nodes_become_ready_and_format_once_also_over_a_reboot() {
    if lacks_for_nodes() {
        return;
    }
    let _turn = Turn::wait();
    let formatted = &*FORMATTED_CLUSTER;
    assert_eq!(formatted.n_formats, 1);

    let folder = scratch("reboot");
    let lan = Lan::new(&NODES);
    let disks = [&formatted.admin, &formatted.server, &formatted.client];
    let mut guests = std::array::from_fn(|index| {
        let disks = disks[index].copy_to(&folder.join(NODES[index]));
        Node::new(NODES[index], disks).start(&lan, Start::Boot)
    });
    wait_until_ready(&mut guests);
    guests[0].wait_for_any_time(FORMATTED_ALREADY, BOOT_TIMEOUT);
    assert_eq!(guests.each_mut().map(n_formats_of), [0, 0, 0]);
    assert_eq!([state_of(&mut guests[0]), state_of(&mut guests[1])], formatted.states);
    for guest in &mut guests {
        assert_eq!(verdicts(guest), [""; 0], "{}", guest.name());
    }
    network_manager_has_taken_the_profiles(&mut guests[2]);
    guests.into_iter().for_each(Guest::quit);
}

/// The names and addresses of a client are those of the plan, and by its keyfiles.
#[track_caller]
fn network_manager_has_taken_the_profiles(client: &mut Guest) {
    // The name comes from the .link file: without it this would be enp0s16.
    let names = client.run("ls /sys/class/net", COMMAND_TIMEOUT);
    assert_eq!(names.lines().collect::<Vec<_>>(), ["lan0", "lo"]);
    let profiles =
        client.run("nmcli -t -f NAME,TYPE,DEVICE,FILENAME connection show", COMMAND_TIMEOUT);
    let of_nics: Vec<&str> = profiles.lines().filter(|line| !line.contains(":loopback:")).collect();
    let keyfile = "/etc/NetworkManager/system-connections/lan0.nmconnection";
    assert_eq!(of_nics, [format!("lan0:802-3-ethernet:lan0:{keyfile}")]);
    let device = "nmcli -g GENERAL.STATE,IP4.ADDRESS,IP4.GATEWAY,IP6.ADDRESS device show lan0";
    let device = client.run(device, COMMAND_TIMEOUT);
    assert_eq!(device.trim(), "100 (connected)\n10.77.0.13/24");
    assert_eq!(client.run("hostname", COMMAND_TIMEOUT), "node2.bench.test");
}

#[test]
fn an_admin_that_lost_power_right_after_the_format_does_not_format_again() {
    if lacks_for_nodes() {
        return;
    }
    let _turn = Turn::wait();
    let formatted = &*FORMATTED_CLUSTER;
    let folder = scratch("power-cut");
    let lan = Lan::new(&NODES);
    let disks = [("node0", &formatted.power_cut), ("node1", &formatted.server)];
    let mut guests = disks.map(|(name, disks)| {
        Node::new(name, disks.copy_to(&folder.join(name))).start(&lan, Start::Boot)
    });
    guests[0].wait_for_any_time(FORMATTED_ALREADY, BOOT_TIMEOUT);
    wait_until_ready(&mut guests);
    assert_eq!(guests.each_mut().map(n_formats_of), [0, 0]);
    assert_eq!(guests.each_mut().map(state_of), formatted.states);
    guests.into_iter().for_each(Guest::quit);
}

#[test]
fn nothing_is_formatted_before_the_last_server_is_there() {
    if lacks_for_nodes() {
        return;
    }
    let _turn = Turn::wait();
    let formatted = &*FORMATTED_CLUSTER;
    assert_eq!(formatted.n_formats_before, 0);
    assert_eq!(formatted.superblocks_before, "");
    assert_eq!(formatted.n_formats, 1);
}

#[test]
fn an_admin_installed_anew_finds_the_formatted_system() {
    if lacks_for_nodes() {
        return;
    }
    let _turn = Turn::wait();
    let formatted = &*FORMATTED_CLUSTER;
    let folder = scratch("new-admin");
    let lan = Lan::new(&NODES);
    let disks = formatted.admin.copy_to(&folder.join("node0")).with_new_system();
    let admin = Node::new("node0", disks).start(&lan, Start::Install);
    let disks = formatted.server.copy_to(&folder.join("node1"));
    let server = Node::new("node1", disks).start(&lan, Start::Boot);
    let mut guests = [admin, server];
    guests[0].wait_for_any_time(FORMATTED_ALREADY, BOOT_TIMEOUT);
    wait_until_ready(&mut guests);
    assert_eq!(guests.each_mut().map(n_formats_of), [0, 0]);
    // DAOSMETA was kept: both are the members that they were.
    assert_eq!(guests.each_mut().map(state_of), formatted.states);
    guests.into_iter().for_each(Guest::quit);
}

#[test]
fn servers_that_lost_their_metadata_leave_used_ssds_alone() {
    if lacks_for_nodes() {
        return;
    }
    let _turn = Turn::wait();
    let formatted = &*FORMATTED_CLUSTER;
    let folder = scratch("lost-metadata");
    let lan = Lan::new(&NODES);
    let mut guests =
        [("node0", &formatted.admin), ("node1", &formatted.server)].map(|(name, disks)| {
            let disks = disks.copy_to(&folder.join(name)).with_new_system().with_new_metadata();
            Node::new(name, disks).start(&lan, Start::Install)
        });
    for guest in &mut guests {
        let reason = guest.wait_for("nodeforge-preflight: FATAL nvme:0000:81:00.0: ", BOOT_TIMEOUT);
        assert!(reason.contains("holds data of DAOS, but engine 0 has no superblock"), "{reason}");
        guest.wait_for("nodeforge-firstboot: 90-preflight: FAILED: ", BOOT_TIMEOUT);
    }
    at_once(&mut guests, daos_stays_down);
    assert_eq!(guests.each_mut().map(n_formats_of), [0, 0]);
    for (guest, before) in guests.iter_mut().zip(&formatted.states) {
        let script = "disk=$(echo /sys/bus/pci/devices/0000:81:00.0/nvme/nvme*/nvme*n1) && \
            head -c 1048576 /dev/${disk##*/} | sha256sum";
        let ssd = guest.run(script, COMMAND_TIMEOUT);
        assert_eq!(ssd, before.lines().nth(1).expect("the SSD's digest"));
    }
    guests.into_iter().for_each(Guest::quit);
}

/// Does the same with all guests, each on a core of its own as far as there are some.
#[track_caller]
pub fn at_once(guests: &mut [Guest], act: fn(&mut Guest)) {
    std::thread::scope(|scope| {
        for guest in guests {
            scope.spawn(move || act(guest));
        }
    });
}

/// daos_server does not run, and a restart by hand does not start it.
#[track_caller]
pub fn daos_stays_down(guest: &mut Guest) {
    let restart = "systemctl restart daos_server";
    let (status, said) = guest.try_run(restart, BOOT_TIMEOUT);
    assert!(status != 0, "{restart}: {said}");
    assert!(said.contains("dependency"), "{restart}: {said}");
    let (_, state) = guest.try_run("systemctl is-active daos_server", COMMAND_TIMEOUT);
    assert_eq!(state, "inactive");
    let (_, found) = guest.try_run("pgrep '^daos_[se]'", COMMAND_TIMEOUT);
    assert_eq!(found, "");
}
