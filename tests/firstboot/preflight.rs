//! Each check of preflight, on machines that are as planned but for one thing.

use std::io::{Read, Write};
use std::net::TcpListener;

use super::assert_golden;
use super::world::{World, blob, meminfo};

const PREFLIGHT: &str = "usr/libexec/nodeforge/preflight";

/// `FATAL CHECK: measured` for each verdict that is not ok. Every one of them must have a fix.
#[track_caller]
fn complaints(world: &World) -> Vec<String> {
    let ran = world.run(PREFLIGHT, &["--json"]);
    let report: serde_json::Value =
        serde_json::from_str(&ran.out).unwrap_or_else(|fault| panic!("{fault}: {ran:?}"));
    let mut found = Vec::new();
    for row in report["verdicts"].as_array().unwrap() {
        let text = |key: &str| row[key].as_str().unwrap();
        let line = format!("{} {}: {}", text("verdict"), text("check"), text("measured"));
        assert_eq!(text("verdict") == "ok", text("fix").is_empty(), "{line}");
        if text("verdict") != "ok" {
            found.push(line.replace(world.root().to_str().unwrap(), ""));
        }
    }
    let is_fatal = found.iter().any(|line| line.starts_with("FATAL "));
    assert_eq!(ran.status, i32::from(is_fatal), "{found:?}");
    assert_eq!(ran.err, "");
    found
}

/// One change to a machine, and what preflight says then.
type Case = (&'static str, fn(&World), &'static [&'static str]);

#[track_caller]
fn assert_cases(machine: fn() -> World, cases: &[Case]) {
    let mut wrong = String::new();
    for (what, change, expected) in cases {
        let world = machine();
        change(&world);
        let found = complaints(&world);
        if found != *expected {
            wrong += &format!("{what}\n  found    {found:?}\n  expected {expected:?}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn machines_as_planned_pass() {
    for (what, world) in [
        ("server", World::server()),
        ("fresh server", World::fresh_server()),
        ("lab", World::lab()),
        ("admin", World::admin()),
    ] {
        assert_eq!(complaints(&world), [""; 0], "{what}");
    }
}

#[test]
fn a_person_reads_one_line_a_check() {
    let world = World::server();
    let ran = world.run(PREFLIGHT, &[]);
    assert_golden("preflight-server.txt", &ran.out);
    assert_eq!((ran.status, ran.err.as_str()), (0, ""));
    world.remove("sys/kernel/iommu_groups");
    world.write("proc/cmdline", "ro quiet\n");
    let ran = world.run(PREFLIGHT, &[]);
    let said: Vec<&str> =
        ran.out.lines().filter(|line| !line.starts_with("nodeforge-preflight: ok")).collect();
    assert_eq!(
        said,
        [
            "nodeforge-preflight: FATAL iommu: 0 groups in /sys/kernel/iommu_groups: daos_server as daos_server cannot drive the SSDs; turn on VT-d in the firmware's set-up, and add intel_iommu=on to the kernel line (it is not there)",
            "nodeforge-preflight: FATAL: iommu: 0 groups in /sys/kernel/iommu_groups: daos_server as daos_server cannot drive the SSDs (in all: 27 ok, 0 warning, 1 fatal)",
        ]
    );
}

#[test]
fn memory_cores_and_iommu() {
    assert_cases(
        World::server,
        &[
            (
                "a little less memory",
                |world| world.write("proc/meminfo", meminfo(112)),
                &[
                    "warning memory: MemTotal is 110.2 GiB; the engines need 38.0 GiB, the plan took it to be 125.4 GiB",
                ],
            ),
            (
                "too little memory",
                |world| world.write("proc/meminfo", meminfo(16)),
                &[
                    "FATAL memory: MemTotal is 15.8 GiB; the engines need 38.0 GiB, the plan took it to be 125.4 GiB (2560 hugepages of 2 MiB = 5 GiB, + 16 GiB system_ram_reserved, + 1 engine × (1 GiB reserve + 16 GiB scm) = 38 GiB)",
                ],
            ),
            (
                "no meminfo",
                |world| world.remove("proc/meminfo"),
                &[
                    "FATAL memory: /proc/meminfo has no MemTotal",
                    "FATAL hugepages: the kernel has no hugepages",
                ],
            ),
            (
                "cores that are off",
                |world| {
                    for cpu in 0..10 {
                        world.write(&format!("sys/devices/system/cpu/cpu{cpu}/online"), "0\n");
                    }
                },
                &["FATAL cores:numa0: NUMA node 0 has 6 physical cores; its engines need 7"],
            ),
            (
                "threads are not cores",
                |world| {
                    for cpu in 8..16 {
                        let core = format!("sys/devices/system/cpu/cpu{cpu}/topology/core_id");
                        world.write(&core, format!("{}\n", cpu - 8));
                    }
                    for cpu in [0, 1, 8, 9] {
                        let core = format!("sys/devices/system/cpu/cpu{cpu}/topology/core_id");
                        world.write(&core, "7\n");
                    }
                },
                &["FATAL cores:numa0: NUMA node 0 has 6 physical cores; its engines need 7"],
            ),
            (
                "no such NUMA node",
                |world| world.remove("sys/devices/system/node/node0"),
                &["FATAL cores:numa0: there is no NUMA node 0"],
            ),
            (
                "no IOMMU",
                |world| world.remove("sys/kernel/iommu_groups"),
                &[
                    "FATAL iommu: 0 groups in /sys/kernel/iommu_groups: daos_server as daos_server cannot drive the SSDs",
                ],
            ),
            (
                "no IOMMU for root",
                |world| {
                    world.remove("sys/kernel/iommu_groups");
                    world.edit("etc/nodeforge/kind.json", "\"required\"", "\"useful\"");
                },
                &[
                    "warning iommu: 0 groups in /sys/kernel/iommu_groups: daos_server drives the SSDs as root, without protection",
                ],
            ),
            (
                "THP",
                |world| {
                    world.write(
                        "sys/kernel/mm/transparent_hugepage/enabled",
                        "[always] madvise never\n",
                    )
                },
                &["warning thp: transparent hugepages: always"],
            ),
            (
                "THP that DAOS refuses",
                |world| {
                    world.write(
                        "sys/kernel/mm/transparent_hugepage/enabled",
                        "always [madvise] never\n",
                    );
                    world.edit("etc/nodeforge/kind.json", "\"tolerated\"", "\"refused\"");
                },
                &["FATAL thp: transparent hugepages: madvise; DAOS 2.6.0 does not start with them"],
            ),
            (
                "another box",
                |world| world.write("sys/class/dmi/id/product_serial", "BOX2\n"),
                &["warning machine: serial number BOX2, the inventory says BOX1"],
            ),
        ],
    );
}

#[test]
fn hugepages_are_tried_out_and_put_back() {
    let world = World::server();
    assert_eq!(complaints(&world), [""; 0]);
    let calls = world.read("calls");
    let tries: Vec<&str> = calls.lines().filter(|line| line.starts_with("sysctl")).collect();
    assert_eq!(tries, ["sysctl -q -w vm.nr_hugepages=2560", "sysctl -q -w vm.nr_hugepages=0"]);
    assert_eq!(world.read("proc/sys/vm/nr_hugepages"), "0\n");

    assert_cases(
        World::server,
        &[
            (
                "memory in pieces",
                |world| world.write("answers/hugepages", "2000\n"),
                &[
                    "FATAL hugepages: the kernel gave 2000 of 2560 hugepages of 2 MiB, with 126.0 GiB of memory available",
                ],
            ),
            (
                "they are there",
                |world| {
                    world.write("answers/hugepages", "0\n");
                    world.write("proc/sys/vm/nr_hugepages", "2560\n");
                },
                &[],
            ),
            (
                "an engine runs with fewer",
                |world| {
                    world.write("answers/hugepages", "0\n");
                    world.write("proc/77/comm", "daos_engine\n");
                },
                &[
                    "warning hugepages: 0 of 2 MiB are there, 2560 are needed; not tried, as an engine is running",
                ],
            ),
            (
                "of another size",
                |world| world.edit("proc/meminfo", "2048", "1048576"),
                &["FATAL hugepages: hugepages are of 1048576 KiB"],
            ),
            (
                "a kernel without",
                |world| world.edit("proc/meminfo", "Hugepagesize", "Huge"),
                &["FATAL hugepages: the kernel has no hugepages"],
            ),
        ],
    );
}

const LAN: &str = "sys/devices/pci0000:00/0000:01:00.0/net/lan0";
const PROFILES: &str = "etc/NetworkManager/system-connections";

#[test]
fn nics() {
    assert_cases(
        World::server,
        &[
            (
                "missing",
                |world| {
                    world.remove("sys/class/net/lan0");
                },
                &[
                    "FATAL nic:lan0: there is no lan0; there are: fab0 (02:00:00:00:01:11, 0000:17:00.0)",
                ],
            ),
            (
                "called otherwise",
                |world| {
                    world.remove("sys/class/net/lan0");
                    world.link("sys/class/net/eth0", &format!("../../../{LAN}"));
                },
                &["FATAL nic:lan0: there is no lan0; the NIC that the plan means is called eth0"],
            ),
            (
                "another card",
                |world| world.write(&format!("{LAN}/address"), "02:00:00:00:00:99\n"),
                &[
                    "FATAL nic:lan0: has the address 02:00:00:00:00:99, the plan says 02:00:00:00:00:11",
                ],
            ),
            (
                "another slot",
                |world| {
                    world.edit("etc/nodeforge/kind.json", "0000:01:00.0", "0000:02:00.0");
                },
                &["FATAL nic:lan0: hangs on 0000:01:00.0, the plan says 0000:02:00.0"],
            ),
            (
                "another NUMA node",
                |world| world.write("sys/devices/pci0000:00/0000:17:00.0/numa_node", "1\n"),
                &[
                    "warning nic:fab0: 0000:17:00.0, link, 10.1.0.11/24, one profile: on NUMA node 1, the plan says 0",
                ],
            ),
            (
                "no link",
                |world| {
                    world.write(&format!("{LAN}/carrier"), "0\n");
                    world.write(&format!("{LAN}/operstate"), "down\n");
                },
                &["FATAL nic:lan0: no link (operstate down)"],
            ),
            (
                "no address",
                |world| world.answer_address("lan0", &[]),
                &["FATAL nic:lan0: has no IPv4 address, the plan says 10.0.0.11/24"],
            ),
            (
                "another address",
                |world| world.answer_address("lan0", &["10.0.0.99"]),
                &["FATAL nic:lan0: has 10.0.0.99/24, the plan says 10.0.0.11/24"],
            ),
            (
                "one address too many",
                |world| world.answer_address("lan0", &["10.0.0.11", "10.0.0.99"]),
                &["warning nic:lan0: has 10.0.0.99/24 beside 10.0.0.11/24"],
            ),
            (
                "no `ip`",
                |world| world.remove("bin/ip"),
                &[
                    "FATAL nic:fab0: has no IPv4 address, the plan says 10.1.0.11/24",
                    "FATAL nic:lan0: has no IPv4 address, the plan says 10.0.0.11/24",
                ],
            ),
            (
                "no profile",
                |world| world.remove(&format!("{PROFILES}/lan0.nmconnection")),
                &["FATAL nic:lan0: 0 profiles of NetworkManager are for it: none"],
            ),
            (
                "a second profile by name",
                |world| {
                    world.write(
                        &format!("{PROFILES}/x.nmconnection"),
                        "[connection]\ninterface-name=lan0\n",
                    );
                },
                &[
                    "FATAL nic:lan0: 2 profiles of NetworkManager are for it: /etc/NetworkManager/system-connections/lan0.nmconnection /etc/NetworkManager/system-connections/x.nmconnection",
                ],
            ),
            (
                "a second profile by address, in /run",
                |world| {
                    world.write(
                        "run/NetworkManager/system-connections/x.nmconnection",
                        "[ethernet]\nmac-address=02:00:00:00:00:11\n",
                    );
                },
                &[
                    "FATAL nic:lan0: 2 profiles of NetworkManager are for it: /etc/NetworkManager/system-connections/lan0.nmconnection /run/NetworkManager/system-connections/x.nmconnection",
                ],
            ),
            (
                "the installer's profile",
                |world| {
                    world.write(
                        "etc/sysconfig/network-scripts/ifcfg-lan0",
                        "DEVICE=\"lan0\"\nONBOOT=yes\n",
                    );
                    world.write("etc/sysconfig/network-scripts/ifcfg-lo", "DEVICE=lo\n");
                },
                &[
                    "FATAL nic:lan0: 2 profiles of NetworkManager are for it: /etc/NetworkManager/system-connections/lan0.nmconnection /etc/sysconfig/network-scripts/ifcfg-lan0",
                ],
            ),
            (
                "a profile for any NIC",
                |world| {
                    world.write(
                        &format!("{PROFILES}/any.nmconnection"),
                        "[connection]\ntype=ethernet\n",
                    );
                },
                &[
                    "FATAL nic:fab0: 2 profiles of NetworkManager are for it: /etc/NetworkManager/system-connections/any.nmconnection /etc/NetworkManager/system-connections/fab0.nmconnection",
                    "FATAL nic:lan0: 2 profiles of NetworkManager are for it: /etc/NetworkManager/system-connections/any.nmconnection /etc/NetworkManager/system-connections/lan0.nmconnection",
                ],
            ),
            (
                "a bond's member has the bond's address",
                |world| {
                    world.write(&format!("{LAN}/address"), "02:00:00:00:01:11\n");
                    world.write(&format!("{LAN}/bonding_slave/perm_hwaddr"), "02:00:00:00:00:11\n");
                },
                &[],
            ),
        ],
    );
}

#[test]
fn names() {
    assert_cases(
        World::server,
        &[
            (
                "own name leads home",
                |world| {
                    world.edit("etc/hosts", "127.0.0.1   localhost", "127.0.0.1   srv1 localhost");
                },
                &[
                    "FATAL names:srv1: leads to 10.0.0.11 127.0.0.1: others would be told to look for it at home",
                ],
            ),
            (
                "own name leads elsewhere",
                |world| world.edit("etc/hosts", "10.0.0.11 ", "10.0.0.99 "),
                &["FATAL names:srv1: leads to 10.0.0.99, the plan says 10.0.0.11"],
            ),
            (
                "an access point leads elsewhere",
                |world| world.edit("etc/hosts", "10.0.0.12 ", "10.0.0.99 "),
                &["FATAL names:srv2: leads to 10.0.0.99, the plan says 10.0.0.12"],
            ),
            (
                "an access point is unknown",
                |world| world.edit("etc/hosts", " srv3", " srv33"),
                &[
                    "FATAL names:srv3: leads to nothing, the plan says 10.0.0.13",
                    "warning names:srv3-fab.up: leads to nothing, the plan says 10.1.0.13",
                ],
            ),
            (
                "another node leads elsewhere",
                |world| world.edit("etc/hosts", "10.0.0.21 ", "10.0.0.99 "),
                &["warning names:lab1.up: leads to 10.0.0.99, the plan says 10.0.0.21"],
            ),
            (
                "no list",
                |world| world.remove("etc/nodeforge/peers"),
                &["FATAL names: /etc/nodeforge/peers is missing or empty"],
            ),
        ],
    );
    assert_cases(
        World::admin,
        &[(
            "the admin that formats would format another",
            |world| {
                world.edit("etc/hosts", "10.0.0.21 ", "10.0.0.99 ");
            },
            &["FATAL names:lab1.up: leads to 10.0.0.99, the plan says 10.0.0.21"],
        )],
    );
}

#[test]
fn the_clock() {
    let unsynchronised = |world: &World| {
        world.answer("timedatectl show --property=NTPSynchronized --value", 0, "no");
    };
    let world = World::server();
    unsynchronised(&world);
    assert_eq!(
        complaints(&world),
        [
            "FATAL clock: the clock was not synchronised within 0 s, and certificates fail on a clock that is wrong"
        ]
    );
    let world = World::server();
    unsynchronised(&world);
    world.edit("etc/nodeforge/kind.json", "\"certificates\": true", "\"certificates\": false");
    assert_eq!(complaints(&world), ["warning clock: the clock was not synchronised within 0 s"]);
}

const MOUNTS: &str = "proc/self/mountinfo";

#[test]
fn control_metadata() {
    assert_cases(
        World::server,
        &[
            (
                "not mounted",
                |world| world.edit(MOUNTS, "/ /var/lib/daos ", "/ /srv "),
                &[
                    "FATAL control-metadata: control_metadata is not mounted at /var/lib/daos: the path lies on / (xfs)",
                ],
            ),
            (
                "on a network",
                |world| world.edit(MOUNTS, "- xfs /dev/sda4", "- nfs4 nas:/daos"),
                &["FATAL control-metadata: /var/lib/daos is nfs4 on nas:/daos: not local"],
            ),
            (
                "in memory",
                |world| world.edit(MOUNTS, "- xfs /dev/sda4", "- tmpfs tmpfs"),
                &[
                    "FATAL control-metadata: /var/lib/daos is tmpfs on tmpfs: not persistent, a reboot loses it",
                ],
            ),
            (
                "nosuid",
                |world| world.edit(MOUNTS, "rw,relatime", "rw,nosuid,relatime"),
                &[
                    "FATAL control-metadata: /var/lib/daos is xfs on /dev/sda4, mounted nosuid, which DAOS refuses",
                ],
            ),
            (
                "read-only",
                |world| world.edit(MOUNTS, "rw,relatime", "ro,relatime"),
                &["FATAL control-metadata: /var/lib/daos is xfs on /dev/sda4, read-only"],
            ),
            (
                "not in fstab",
                |world| world.edit("etc/fstab", "LABEL=DAOSMETA", "#LABEL=DAOSMETA"),
                &[
                    "warning control-metadata: /var/lib/daos is xfs on /dev/sda4, but not in /etc/fstab",
                ],
            ),
            (
                "no mounts at all",
                |world| world.remove(MOUNTS),
                &[
                    "FATAL control-metadata: control_metadata is not mounted at /var/lib/daos: the path lies on nothing",
                ],
            ),
        ],
    );
}

const SSD: &str = "sys/devices/pci0000:5d/0000:5e:00.0";
const DISK: &str = "sys/devices/pci0000:5d/0000:5e:00.0/nvme/nvme0/nvme0n1";

#[test]
fn ssds() {
    assert_cases(
        World::fresh_server,
        &[
            (
                "missing",
                |world| world.remove("sys/bus/pci/devices/0000:5e:00.0"),
                &[
                    "FATAL nvme:0000:5e:00.0: there is nothing at 0000:5e:00.0; SSDs are at: 0000:5f:00.0",
                ],
            ),
            (
                "something else in the slot",
                |world| world.write(&format!("{SSD}/class"), "0x030000\n"),
                &["FATAL nvme:0000:5e:00.0: 0000:5e:00.0 is no NVMe SSD (class 0x030000)"],
            ),
            (
                "no namespace",
                |world| world.remove("sys/block/nvme0n1"),
                &["FATAL nvme:0000:5e:00.0: 0000:5e:00.0 shows no namespace (driver nvme)"],
            ),
            (
                "unreadable",
                |world| world.remove("dev/nvme0n1"),
                &[
                    "FATAL nvme:0000:5e:00.0: nvme0n1 (FAST 9000, 2.0 GiB, serial SSD-A) cannot be read",
                ],
            ),
            (
                "the system's own",
                |world| {
                    world.write(&format!("{DISK}/nvme0n1p1/partition"), "1\n");
                    world.write(&format!("{DISK}/nvme0n1p1/dev"), "259:44\n");
                    world.edit(
                        MOUNTS,
                        "8:3 / / rw - xfs /dev/sda3",
                        "259:44 / / rw - xfs /dev/root",
                    );
                },
                &[
                    "FATAL nvme:0000:5e:00.0: nvme0n1 (FAST 9000, 2.0 GiB, serial SSD-A) is the system's own disk: mounted at /",
                ],
            ),
            (
                "mounted",
                |world| {
                    let mounts = world.read(MOUNTS);
                    world.write(
                        MOUNTS,
                        mounts + "3 1 0:9 / /srv/old\\040data rw - ext4 /dev/nvme0n1 rw\n",
                    );
                },
                &[
                    "FATAL nvme:0000:5e:00.0: nvme0n1 (FAST 9000, 2.0 GiB, serial SSD-A) is in use: mounted at /srv/old data",
                ],
            ),
            (
                "swap",
                |world| world.write("proc/swaps", "Filename Type\n/dev/nvme0n1 partition 1 0 -2\n"),
                &[
                    "FATAL nvme:0000:5e:00.0: nvme0n1 (FAST 9000, 2.0 GiB, serial SSD-A) is in use: swap",
                ],
            ),
            (
                "held by md",
                |world| world.write(&format!("{DISK}/holders/md0/x"), ""),
                &[
                    "FATAL nvme:0000:5e:00.0: nvme0n1 (FAST 9000, 2.0 GiB, serial SSD-A) is in use: held by md0",
                ],
            ),
            (
                "LVM",
                |world| world.answer("blkid -p -o export /dev/nvme0n1", 0, "TYPE=LVM2_member"),
                &[
                    "FATAL nvme:0000:5e:00.0: nvme0n1 (FAST 9000, 2.0 GiB, serial SSD-A) holds a physical volume of LVM",
                ],
            ),
            (
                "md",
                |world| {
                    world.answer("blkid -p -o export /dev/nvme0n1", 0, "TYPE=linux_raid_member")
                },
                &[
                    "FATAL nvme:0000:5e:00.0: nvme0n1 (FAST 9000, 2.0 GiB, serial SSD-A) holds a member of an md array",
                ],
            ),
            (
                "a filesystem",
                |world| world.answer("blkid -p -o export /dev/nvme0n1", 0, "UUID=1\nTYPE=ntfs"),
                &["FATAL nvme:0000:5e:00.0: nvme0n1 (FAST 9000, 2.0 GiB, serial SSD-A) holds ntfs"],
            ),
            (
                "a filesystem on a partition",
                |world| {
                    world.write(&format!("{DISK}/nvme0n1p1/partition"), "1\n");
                    world.answer("blkid -p -o export /dev/nvme0n1p1", 0, "TYPE=ext4");
                },
                &[
                    "FATAL nvme:0000:5e:00.0: nvme0n1 (FAST 9000, 2.0 GiB, serial SSD-A) holds ext4 on nvme0n1p1",
                ],
            ),
            (
                "a partition table",
                |world| world.answer("blkid -p -o export /dev/nvme0n1", 0, "PTTYPE=gpt"),
                &[
                    "FATAL nvme:0000:5e:00.0: nvme0n1 (FAST 9000, 2.0 GiB, serial SSD-A) holds a partition table (gpt)",
                ],
            ),
            (
                "several signatures",
                |world| world.answer("blkid -p -o export /dev/nvme0n1", 8, ""),
                &[
                    "FATAL nvme:0000:5e:00.0: nvme0n1 (FAST 9000, 2.0 GiB, serial SSD-A) holds several signatures",
                ],
            ),
            (
                "blkid fails",
                |world| world.answer("blkid -p -o export /dev/nvme0n1", 4, ""),
                &[
                    "FATAL nvme:0000:5e:00.0: nvme0n1 (FAST 9000, 2.0 GiB, serial SSD-A) holds something that blkid cannot read (status 4)",
                ],
            ),
            (
                "DAOS's data of another life",
                |world| world.write("dev/nvme1n1", blob()),
                &[
                    "FATAL nvme:0000:5f:00.0: nvme1n1 (FAST 9000, 2.0 GiB, serial SSD-B) holds data of DAOS, but engine 0 has no superblock (/var/lib/daos/daos_control/engine0/superblock)",
                ],
            ),
            (
                "the same, given up",
                |world| {
                    world.write("dev/nvme1n1", blob());
                    world.write("var/lib/nodeforge/wipe-grant", "srv1 by the installer\n");
                },
                &[
                    "warning nvme:0000:5f:00.0: nvme1n1 (FAST 9000, 2.0 GiB, serial SSD-B) holds data of DAOS, but engine 0 has no superblock (/var/lib/daos/daos_control/engine0/superblock); a wipe was granted",
                ],
            ),
            (
                "the same, another node given up",
                |world| {
                    world.write("dev/nvme1n1", blob());
                    world.write("var/lib/nodeforge/wipe-grant", "srv2\n");
                },
                &[
                    "FATAL nvme:0000:5f:00.0: nvme1n1 (FAST 9000, 2.0 GiB, serial SSD-B) holds data of DAOS, but engine 0 has no superblock (/var/lib/daos/daos_control/engine0/superblock)",
                ],
            ),
            (
                "in vfio's hands, nobody has looked",
                |world| {
                    world.link(&format!("{SSD}/driver"), "../../../bus/pci/drivers/vfio-pci");
                },
                &[
                    "FATAL nvme:0000:5e:00.0: is bound to vfio-pci, so nobody can see whether it holds data, and engine 0 has no superblock",
                ],
            ),
            (
                "in vfio's hands, looked at in this boot",
                |world| {
                    world.link(&format!("{SSD}/driver"), "../../../bus/pci/drivers/vfio-pci");
                    world.write("run/nodeforge/ssds-seen-empty", "0000:5e:00.0\n");
                },
                &[],
            ),
            (
                "on another NUMA node",
                |world| world.write(&format!("{SSD}/numa_node"), "1\n"),
                &[
                    "warning nvme:0000:5e:00.0: nvme0n1 (FAST 9000, 2.0 GiB, serial SSD-A) is on NUMA node 1, engine 0 on 0",
                ],
            ),
        ],
    );
    assert_cases(
        World::server,
        &[
            (
                "in DAOS's hands",
                |world| {
                    world.link(&format!("{SSD}/driver"), "../../../bus/pci/drivers/vfio-pci");
                },
                &[],
            ),
            (
                "replaced by an empty one",
                |world| world.write("dev/nvme0n1", [0; 4096]),
                &[
                    "warning nvme:0000:5e:00.0: nvme0n1 (FAST 9000, 2.0 GiB, serial SSD-A) is empty, although engine 0 has been formatted",
                ],
            ),
            (
                "another serial than at the format",
                |world| {
                    world.write(
                        "var/lib/nodeforge/ssd-serials.json",
                        r#"{"0000:5e:00.0": "SSD-X"}"#,
                    );
                },
                &[
                    "warning nvme:0000:5e:00.0: nvme0n1 (FAST 9000, 2.0 GiB, serial SSD-A): at the format serial SSD-X was here",
                ],
            ),
            (
                "control_metadata lost: no engine may be formatted over its data",
                |world| {
                    world.remove("var/lib/daos/daos_control");
                    world.edit("etc/nodeforge/kind.json", "\"srv1\",", "\"srv9\",");
                },
                &[
                    "FATAL nvme:0000:5e:00.0: nvme0n1 (FAST 9000, 2.0 GiB, serial SSD-A) holds data of DAOS, but engine 0 has no superblock (/var/lib/daos/daos_control/engine0/superblock)",
                    "FATAL nvme:0000:5f:00.0: nvme1n1 (FAST 9000, 2.0 GiB, serial SSD-B) holds data of DAOS, but engine 0 has no superblock (/var/lib/daos/daos_control/engine0/superblock)",
                ],
            ),
        ],
    );
}

#[test]
fn a_wipe_grant_ends_with_the_format() {
    let world = World::fresh_server();
    world.write("var/lib/nodeforge/wipe-grant", "srv1\n");
    complaints(&world);
    assert_eq!(world.read("var/lib/nodeforge/wipe-grant"), "srv1\n");
    world.write("var/lib/daos/daos_control/engine0/superblock", "superblock");
    complaints(&world);
    assert!(!world.path("var/lib/nodeforge/wipe-grant").exists());
}

#[test]
fn what_was_seen_in_this_boot_is_remembered_and_serials_since_the_format() {
    let world = World::fresh_server();
    world.write("dev/nvme1n1", blob());
    complaints(&world);
    assert_eq!(world.read("run/nodeforge/ssds-seen-empty"), "0000:5e:00.0\n");
    assert!(!world.path("var/lib/nodeforge/ssd-serials.json").exists());
    let world = World::server();
    complaints(&world);
    let serials: serde_json::Value =
        serde_json::from_str(&world.read("var/lib/nodeforge/ssd-serials.json")).unwrap();
    assert_eq!(serials, serde_json::json!({"0000:5e:00.0": "SSD-A", "0000:5f:00.0": "SSD-B"}));
}

/// What lab1's machine complains about in any case: it has fewer cores than planned, and may.
const FILE: &str = "var/daos/bdev0";

#[test]
fn files_for_ssds() {
    assert_cases(
        World::lab,
        &[
            (
                "DAOS's data of another life",
                |world| world.write(FILE, blob()),
                &[
                    "FATAL bdev-file:/var/daos/bdev0: /var/daos/bdev0 holds data of DAOS, but engine 0 has no superblock (/var/lib/daos/daos_control/engine0/superblock)",
                ],
            ),
            (
                "something foreign",
                |world| world.write(FILE, "my thesis"),
                &["FATAL bdev-file:/var/daos/bdev0: holds something that is not DAOS's"],
            ),
            ("empty", |world| world.write(FILE, [0; 4096]), &[]),
            (
                "no folder",
                |world| world.remove("var/daos"),
                &["FATAL bdev-file:/var/daos/bdev0: there is no folder /var/daos"],
            ),
            (
                "formatted",
                |world| {
                    world.write(FILE, blob());
                    world.write("var/lib/daos/daos_control/engine0/superblock", "x");
                },
                &[],
            ),
            (
                "formatted, the file is gone",
                |world| {
                    world.write("var/lib/daos/daos_control/engine0/superblock", "x");
                },
                &["FATAL bdev-file:/var/daos/bdev0: missing, although engine 0 has been formatted"],
            ),
            (
                "formatted, the file is another",
                |world| {
                    world.write(FILE, [0; 4096]);
                    world.write("var/lib/daos/daos_control/engine0/superblock", "x");
                },
                &[
                    "warning bdev-file:/var/daos/bdev0: holds no data of DAOS, although engine 0 has been formatted",
                ],
            ),
            (
                "a wipe was granted",
                |world| {
                    world.write(FILE, blob());
                    world.write("var/lib/nodeforge/wipe-grant", "lab1\n");
                },
                &[
                    "warning bdev-file:/var/daos/bdev0: /var/daos/bdev0 holds data of DAOS, but engine 0 has no superblock (/var/lib/daos/daos_control/engine0/superblock); a wipe was granted",
                ],
            ),
            (
                "too few cores, which the cluster file allows",
                |world| {
                    for cpu in 2..16 {
                        world.write(&format!("sys/devices/system/cpu/cpu{cpu}/online"), "0\n");
                    }
                },
                &["warning cores: the machine has 2 physical cores; its engines need 4"],
            ),
        ],
    );
}

#[test]
fn mount_points_for_scm() {
    assert_cases(
        World::server,
        &[
            (
                "missing",
                |world| world.remove("mnt/daos0"),
                &["FATAL scm:/mnt/daos0: there is no folder /mnt/daos0"],
            ),
            (
                "taken",
                |world| {
                    let mounts = world.read(MOUNTS);
                    world.write(MOUNTS, mounts + "3 1 8:9 / /mnt/daos0 rw - xfs /dev/sda9 rw\n");
                },
                &["FATAL scm:/mnt/daos0: xfs is mounted on /mnt/daos0, which is not DAOS's"],
            ),
            (
                "mounted by DAOS",
                |world| {
                    let mounts = world.read(MOUNTS);
                    world.write(MOUNTS, mounts + "3 1 0:9 / /mnt/daos0 rw - tmpfs tmpfs rw\n");
                },
                &[],
            ),
        ],
    );
}

/// DAOS mounts PMem when it starts, so that its superblock cannot be seen before.
#[test]
fn pmem_that_has_a_filesystem_has_been_formatted() {
    let with_pmem = |world: &World| {
        let kind = "etc/nodeforge/kind.json";
        world.edit(kind, "\"ram\"", "\"dcpm\"");
        world.edit(kind, "\"scm_devices\": []", "\"scm_devices\": [\"/dev/pmem0\"]");
        world.edit(kind, "\"control_metadata\": \"/var/lib/daos\"", "\"control_metadata\": null");
        world.edit(kind, "/var/lib/daos/daos_control/engine0/superblock", "/mnt/daos0/superblock");
        world.remove("var/lib/daos/daos_control");
        world.answer("blkid -p -o export /dev/pmem0", 2, "");
    };
    let blob = "holds data of DAOS, but engine 0 has no superblock (/mnt/daos0/superblock)";
    let world = World::server();
    with_pmem(&world);
    let expected = [("5e", "nvme0n1", "A"), ("5f", "nvme1n1", "B")].map(|(bus, disk, serial)| {
        format!(
            "FATAL nvme:0000:{bus}:00.0: {disk} (FAST 9000, 2.0 GiB, serial SSD-{serial}) {blob}"
        )
    });
    assert_eq!(complaints(&world), expected);
    world.answer("blkid -p -o export /dev/pmem0", 0, "TYPE=ext4");
    assert_eq!(complaints(&world), [""; 0]);
}

#[test]
fn files_need_room() {
    let world = World::lab();
    world.edit("etc/nodeforge/kind.json", "1048576", "1152921504606846976");
    let found = complaints(&world);
    assert!(found.len() == 1 && found[0].starts_with("FATAL bdev-file:/var/daos: /var/daos has "));
    assert!(found[0].ends_with(" GiB free, 1073741824.0 GiB are still to be written"), "{found:?}");
    // What is written needs no more room; what a hole promises, does.
    world.write("var/lib/daos/daos_control/engine0/superblock", "x");
    world.write(FILE, blob());
    assert!(complaints(&world)[0].starts_with("warning bdev-file:/var/daos: "));
}

#[test]
fn kernel_devices() {
    let with_device = |world: &World| {
        world.write("sys/block/sdb/dev", "8:16\n");
        world.write("dev/sdb", [0; 4096]);
        world.answer("blkid -p -o export /dev/sdb", 2, "");
        world.edit("etc/nodeforge/kind.json", "\"devices\": []", "\"devices\": [\"/dev/sdb\"]");
    };
    let world = World::fresh_server();
    with_device(&world);
    assert_eq!(complaints(&world), [""; 0]);
    world.answer("blkid -p -o export /dev/sdb", 0, "TYPE=xfs");
    assert_eq!(complaints(&world), ["FATAL device:/dev/sdb: sdb holds xfs"]);
    world.write("dev/sdb", blob());
    let blob = "FATAL device:/dev/sdb: sdb holds data of DAOS, but engine 0 has no superblock (/var/lib/daos/daos_control/engine0/superblock)";
    assert_eq!(complaints(&world), [blob]);
    world.remove("sys/block/sdb");
    assert_eq!(complaints(&world), ["FATAL device:/dev/sdb: there is no disk /dev/sdb"]);
}

const RAFT: &str = "var/lib/daos/daos_control/control_raft";

#[test]
fn an_access_point_without_its_database() {
    assert_cases(
        World::server,
        &[
            (
                "the engine was formatted",
                |world| world.remove(RAFT),
                &[
                    "FATAL raft: engines here have been formatted, but the database is gone (/var/lib/daos/daos_control/control_raft)",
                ],
            ),
            (
                "the folder is empty",
                |world| world.remove(&format!("{RAFT}/daos_system.db")),
                &[
                    "FATAL raft: engines here have been formatted, but the database is gone (/var/lib/daos/daos_control/control_raft)",
                ],
            ),
            (
                "it was granted to rejoin",
                |world| {
                    world.remove(RAFT);
                    world.write("var/lib/nodeforge/rejoin-grant", "srv1\n");
                },
                &[
                    "warning raft: engines here have been formatted, but the database is gone (/var/lib/daos/daos_control/control_raft); it was granted to rejoin",
                ],
            ),
            (
                "another node",
                |world| {
                    world.remove(RAFT);
                    world.edit("etc/nodeforge/kind.json", "\"srv1\",", "\"srv9\",");
                },
                &[],
            ),
        ],
    );
    let members =
        r#"{"response":{"members":[{"rank":0,"state":"joined"}]},"error":null,"status":0}"#;
    for (what, status, said, expected) in [
        (
            "dmg sees a system",
            0,
            members,
            "FATAL raft: no database here, but the system is known: dmg sees 1 members",
        ),
        (
            "dmg gets nowhere",
            1,
            r#"{"response":null,"error":"unable to contact","status":-1025}"#,
            "warning raft: no database yet, and whether srv2, srv3 have one could not be found out: dmg cannot tell (unable to contact), telemetry is off",
        ),
        (
            "dmg says nothing",
            0,
            "",
            "warning raft: no database yet, and whether srv2, srv3 have one could not be found out: dmg's answer cannot be read, telemetry is off",
        ),
        (
            "dmg says half of it",
            0,
            r#"{"response":{"mem"#,
            "warning raft: no database yet, and whether srv2, srv3 have one could not be found out: dmg's answer cannot be read, telemetry is off",
        ),
        (
            "dmg says a list",
            0,
            "[]",
            "warning raft: no database yet, and whether srv2, srv3 have one could not be found out: dmg's answer cannot be read, telemetry is off",
        ),
        (
            "dmg sees no members",
            0,
            r#"{"response":{"members":null},"error":null,"status":0}"#,
            "warning raft: no database yet, and whether srv2, srv3 have one could not be found out: dmg cannot tell (no members), telemetry is off",
        ),
    ] {
        let world = World::fresh_server();
        world.edit(
            "etc/nodeforge/kind.json",
            "\"telemetry_port\": 9191",
            "\"telemetry_port\": null",
        );
        world.answer("dmg -j system query", status, said);
        assert_eq!(complaints(&world), [expected], "{what}");
    }
    let world = World::fresh_server();
    world.edit("etc/nodeforge/kind.json", "\"telemetry_port\": 9191", "\"telemetry_port\": null");
    world.remove("bin/dmg");
    assert_eq!(
        complaints(&world),
        [
            "warning raft: no database yet, and whether srv2, srv3 have one could not be found out: there is no dmg here, telemetry is off"
        ]
    );
}

#[test]
fn the_telemetry_of_another_access_point_tells_that_a_system_is_there() {
    for (words, expected) in [
        (
            "# HELP engine_rank x\nengine_rank{rank=\"0\"} 0\n",
            "FATAL raft: no database here, but the system is known: an engine runs on 127.0.0.1",
        ),
        (
            "go_goroutines 4\n",
            "warning raft: no database yet, and whether 127.0.0.1 has one could not be found out: there is no dmg here, no engine's telemetry answers",
        ),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            let length = words.len();
            write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n{words}").unwrap();
        });
        let world = World::fresh_server();
        world.remove("bin/dmg");
        let kind = "etc/nodeforge/kind.json";
        world.edit(kind, "\"telemetry_port\": 9191", &format!("\"telemetry_port\": {port}"));
        world.edit(kind, "\"srv2\",\n", "");
        world.edit(kind, "\"srv3\"", "\"127.0.0.1\"");
        assert_eq!(complaints(&world), [expected]);
        server.join().unwrap();
    }
}

const DAOS_SERVER: &str =
    "rpm --query --queryformat %{VERSION}|%{SIGPGP:pgpsig}|%{RSAHEADER:pgpsig}\n daos-server";
const ALL_PACKAGES: &str = "rpm --query --all --queryformat %{NAME}|%{SIGPGP:pgpsig}|%{RSAHEADER:pgpsig}|%{SIGGPG:pgpsig}\n";
const MEMLOCK: &str = "systemctl show --property=LimitMEMLOCK --value daos_server.service";
const FIREWALLD: &str = "systemctl is-active --quiet firewalld.service";

#[test]
fn packages_and_access() {
    assert_cases(
        World::server,
        &[
            (
                "no rpm",
                |world| world.remove("bin/rpm"),
                &[
                    "warning packages: there is no rpm here, so nobody knows which packages there are",
                ],
            ),
            (
                "not installed",
                |world| world.answer(DAOS_SERVER, 1, "package daos-server is not installed"),
                &["FATAL packages:daos-server: is not installed"],
            ),
            (
                "another version",
                |world| world.answer(DAOS_SERVER, 0, "2.6.5|RSA/SHA256|(none)"),
                &["FATAL packages:daos-server: 2.6.5, RSA/SHA256, the plan says 2.6.0"],
            ),
            (
                "unsigned",
                |world| world.answer(DAOS_SERVER, 0, "2.6.0|(none)|(none)"),
                &["FATAL packages:daos-server: 2.6.0, not signed, the plan wants signatures"],
            ),
            (
                "unsigned, as planned",
                |world| {
                    world.answer(DAOS_SERVER, 0, "2.6.0|(none)|(none)");
                    world.edit("etc/nodeforge/kind.json", "\"signed\": true", "\"signed\": false");
                },
                &[],
            ),
            (
                "others unsigned",
                |world| {
                    world.answer(
                        ALL_PACKAGES,
                        0,
                        "own|(none)|(none)|(none)\nbash|RSA|(none)|(none)",
                    )
                },
                &["warning packages:signatures: 1 of 2 packages are not signed: own"],
            ),
            (
                "rpm's database is broken",
                |world| world.answer(ALL_PACKAGES, 1, ""),
                &["warning packages:signatures: the list of packages cannot be read:"],
            ),
            (
                "SELinux is off",
                |world| world.answer("getenforce", 0, "Permissive"),
                &["warning selinux: permissive, the plan says enforcing"],
            ),
            (
                "no SELinux",
                |world| world.remove("bin/getenforce"),
                &["warning selinux: disabled, the plan says enforcing"],
            ),
            (
                "the firewall is off",
                |world| world.answer(FIREWALLD, 3, ""),
                &["warning firewall: firewalld does not run, the plan says it does"],
            ),
            (
                "ports are closed",
                |world| world.answer("firewall-cmd --list-ports", 0, "9191/tcp"),
                &["FATAL firewall: closed ports that the plan opens: 10001/tcp"],
            ),
            (
                "firewalld hangs",
                |world| world.answer("firewall-cmd --list-ports", 252, ""),
                &["warning firewall: firewalld does not answer:"],
            ),
            (
                "a firewall that nobody planned",
                |world| {
                    world.edit(
                        "etc/nodeforge/kind.json",
                        "\"firewall\": \"enabled\"",
                        "\"firewall\": \"disabled\"",
                    );
                },
                &[
                    "FATAL firewall: firewalld runs, the plan says it does not: ports of DAOS are closed",
                ],
            ),
            (
                "locked memory",
                |world| world.answer(MEMLOCK, 0, "65536"),
                &["FATAL memlock:daos_server: LimitMEMLOCK is 65536"],
            ),
            (
                "locked memory as a number",
                |world| world.answer(MEMLOCK, 0, "18446744073709551615"),
                &[],
            ),
            (
                "the helper lost its bit",
                |world| {
                    world
                        .write("answers/owners/usr/bin/daos_server_helper", "root daos_server 750");
                },
                &[
                    "FATAL helper: /usr/bin/daos_server_helper root:daos_server 0750, not root's with 4750",
                ],
            ),
            (
                "no helper",
                |world| world.remove("usr/bin/daos_server_helper"),
                &["warning helper: there is no /usr/bin/daos_server_helper"],
            ),
            (
                "a certificate is missing",
                |world| world.remove("etc/daos/certs/server.crt"),
                &["FATAL certificates:server.crt: /etc/daos/certs/server.crt is missing"],
            ),
            (
                "a key of another's",
                |world| {
                    world.write("answers/owners/etc/daos/certs/server.key", "root root 400");
                },
                &[
                    "FATAL certificates:server.key: /etc/daos/certs/server.key is root's with 0400; DAOS takes it only as daos_server's with 0400",
                ],
            ),
            (
                "a key that others read",
                |world| {
                    world.write(
                        "answers/owners/etc/daos/certs/server.key",
                        "daos_server daos_server 440",
                    );
                },
                &[
                    "FATAL certificates:server.key: /etc/daos/certs/server.key is daos_server's with 0440; DAOS takes it only as daos_server's with 0400",
                ],
            ),
            (
                "an ended certificate",
                |world| {
                    world.answer(
                        "openssl x509 -noout -checkend 0 -in /etc/daos/certs/server.crt",
                        1,
                        "Certificate will expire",
                    );
                },
                &[
                    "FATAL certificates:server.crt: /etc/daos/certs/server.crt has ended or cannot be read (Certificate will expire)",
                ],
            ),
            (
                "a certificate about to end",
                |world| {
                    world.answer(
                        "openssl x509 -noout -checkend 2592000 -in /etc/daos/certs/server.crt",
                        1,
                        "Certificate will expire",
                    );
                },
                &[
                    "warning certificates:server.crt: /etc/daos/certs/server.crt ends within 30 days (Certificate will expire)",
                ],
            ),
        ],
    );
    assert_cases(
        World::lab,
        &[(
            "users may not lock memory",
            |world| world.remove("etc/security/limits.d/90-nodeforge-daos.conf"),
            &["FATAL memlock:users: users have a limit on locked memory"],
        )],
    );
}

#[test]
fn one_check_that_breaks_does_not_hide_the_others() {
    let world = World::server();
    // A plan that no build makes.
    world.edit(
        "etc/nodeforge/kind.json",
        "\"control_metadata\": \"/var/lib/daos\"",
        "\"control_metadata\": 7",
    );
    world.edit("etc/nodeforge/kind.json", "\"tolerated\"", "null");
    world.edit("etc/nodeforge/kind.json", "\"planned_bytes\"", "\"planned\"");
    assert_eq!(
        complaints(&world),
        [
            "warning memory: could not be looked at: KeyError: 'planned_bytes'",
            "FATAL control-metadata: could not be looked at: TypeError: unsupported operand type(s) for +: 'int' and 'str'",
            "FATAL raft: could not be looked at: TypeError: unsupported operand type(s) for +: 'int' and 'str'",
        ]
    );
}

#[test]
fn without_a_plan_nothing_starts() {
    for file in ["kind.json", "node.json"] {
        let world = World::server();
        world.write(&format!("etc/nodeforge/{file}"), "{\"half");
        let ran = world.run(PREFLIGHT, &[]);
        assert_eq!((ran.status, ran.err.as_str()), (1, ""));
        assert_eq!(
            ran.out,
            "nodeforge-preflight: FATAL plan: /etc/nodeforge/kind.json or node.json cannot be read; unpack the node's layers again\n"
        );
    }
    assert_eq!(World::server().run(PREFLIGHT, &["--force"]).status, 2);
}

#[test]
fn a_tool_that_hangs_is_left_behind() {
    let world = World::server();
    world.remove("bin/timedatectl");
    // Longer than the limit of one question; the test is over sooner than the tool.
    world.executable("bin/timedatectl", "exec /bin/sleep 600");
    let started = std::time::Instant::now();
    let found = complaints(&world);
    assert!(found.len() == 1 && found[0].starts_with("FATAL clock: "), "{found:?}");
    assert!(started.elapsed().as_secs() < 120, "{:?}", started.elapsed());
}
