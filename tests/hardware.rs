//! `generate hw`: from what a box's tools say to a block that `check` accepts.
//!
//! tests/corpus/hardware holds captures: `r760.txt` is what `generate hw --script` prints on a
//! server of two sockets, `vm/` a folder of outputs of a virtual machine, each with the block
//! that is made of it. `UPDATE_GOLDEN=1` writes the blocks anew.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use nodeforge::hardware::{self, Facts};
use proptest::prelude::*;

use crate::examples::nodeforge;
use crate::oracles::scripts::{self, Language, Script};
use crate::support;

const CAPTURES: &str = "tests/corpus/hardware";

/// The block that is made of the texts, each with its name.
fn block_of(texts: &[(&str, &str)]) -> Result<String, String> {
    let mut facts = Facts::default();
    for (name, text) in texts {
        hardware::read(name, text, &mut facts).map_err(|fault| fault.to_string())?;
    }
    Ok(hardware::block(&hardware::choose(&facts, None)))
}

fn capture(name: &str) -> String {
    fs::read_to_string(Path::new(CAPTURES).join(name)).unwrap()
}

/// `nodeforge generate hw arguments…` with `input` on standard input.
fn generate(folder: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(nodeforge())
        .args(["generate", "hw"])
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A verb that does not read its input closes it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// Standard output and standard error of a verb that must do its work.
#[track_caller]
fn done(output: Output) -> (String, String) {
    let [out, said] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success(), "{said}");
    (out, said)
}

#[track_caller]
fn assert_golden(name: &str, made: &str) {
    let path = Path::new(CAPTURES).join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, made).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap_or_default(), made, "{name}");
}

#[test]
fn a_server_of_two_sockets_becomes_a_block() {
    let folder = support::repository();
    let (block, said) = done(generate(folder, &["--from", &format!("{CAPTURES}/r760.txt")], ""));
    assert_golden("r760.toml", &block);
    assert!(said.starts_with("read: lspci -vmmnn, "), "{said}");
    assert!(!said.contains("warning"), "{said}");
}

#[test]
fn a_folder_of_a_virtual_machine_becomes_a_block_and_a_strange_file_is_told() {
    let folder = support::repository();
    let (block, said) = done(generate(folder, &["--from", &format!("{CAPTURES}/vm")], ""));
    assert_golden("vm.toml", &block);
    assert_eq!(
        said.lines().next(),
        Some("warning: tests/corpus/hardware/vm/notes.txt: not recognised, left out")
    );
}

/// A cluster of one server with that hw: what a person adds below the block.
fn cluster_with(block: &str, hw: &str, engines: &str, nics: &str) -> String {
    format!(
        r#"format = 1
[cluster]
name = "new"
[boot]
url = "http://10.20.0.2:8080"
[os]
release = "8.10"
[daos]
version = "2.6.5"
provider = "ofi+verbs;ofi_rxm"
access_points = ["srv1"]
security = "insecure"
[repo.mlnx_ofed]
baseurl = "http://10.20.0.2:8080/mlnx_ofed/"
[net.mgmt]
subnet = "10.20.0.0/20"
[net.ib]
subnet = "10.64.0.0/16"
kind = "infiniband"
{block}
{engines}
[node.srv1]
hw = "{hw}"
roles = ["admin", "server"]
nic.mgmt = {{ ip = "10.20.1.17", mac = "b4:45:06:f0:12:2a" }}
{nics}
"#
    )
}

/// What `nodeforge check` says of the text, errors only.
fn errors_of(cluster: &str) -> Vec<String> {
    let folder = support::scratch();
    support::write(folder.path(), "cluster.toml", cluster);
    let output = Command::new(nodeforge())
        .args(["check", "cluster.toml", "--json"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let errors = found.as_array().unwrap().iter().filter(|problem| problem["severity"] == "error");
    errors.map(|problem| format!("{} {}", problem["code"], problem["message"])).collect()
}

const ENGINES: &str = r#"
[[role.server.engine]]
numa = 0
fabric = "fab0"
targets = 16
scm = { class = "ram", size = "auto" }
bdev = [{ class = "nvme", from = "nvme.numa0", wal_meta = 1 }]
[[role.server.engine]]
numa = 1
fabric = "fab1"
targets = 16
scm = { class = "ram", size = "auto" }
bdev = [{ class = "nvme", from = "nvme.numa1", wal_meta = 1 }]
"#;

#[test]
fn the_block_of_the_server_is_accepted_by_check() {
    let block = block_of(&[("r760.txt", &capture("r760.txt"))]).unwrap();
    let nics = "nic.fab0.ip = \"10.64.0.17\"\nnic.fab1.ip = \"10.64.8.17\"";
    assert_eq!(errors_of(&cluster_with(&block, "r760", ENGINES, nics)), [""; 0]);
}

#[test]
fn the_block_of_the_virtual_machine_is_accepted_by_check() {
    let block = capture("vm.toml");
    let engines = r#"
[role.server]
run_as = "root"
[[role.server.engine]]
targets = 1
fabric = "mgmt"
scm = { class = "ram", size = "4GiB" }
bdev = [{ class = "file", list = ["/var/daos/bdev0"], size = "16GiB", roles = ["wal", "meta", "data"] }]
"#;
    let cluster = cluster_with(&block, "vm", engines, "")
        .replace("ofi+verbs;ofi_rxm", "ofi+tcp;ofi_rxm")
        .replace("security =", "system_ram_reserved = \"1GiB\"\nsecurity =")
        .replace("[net.ib]\nsubnet = \"10.64.0.0/16\"\nkind = \"infiniband\"\n", "");
    assert_eq!(errors_of(&cluster), [""; 0], "{cluster}");
}

#[test]
fn facts_as_json_say_the_same_as_the_outputs_they_come_from() {
    let folder = support::repository();
    let place = format!("{CAPTURES}/r760.txt");
    let (facts, _) = done(generate(folder, &["--from", &place, "--json"], ""));
    let (block, said) = done(generate(folder, &["--from", "-"], &facts));
    assert_eq!(block, capture("r760.toml"));
    assert_eq!(said, "read: facts as JSON\n");
}

#[test]
fn the_documented_facts_are_facts() {
    let page = fs::read_to_string("docs/generate-hw.md").unwrap();
    let json = page.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    let block = block_of(&[("page", json)]).unwrap();
    assert_eq!(
        values(&block),
        [
            "[hw.vm]",
            "firmware = \"uefi\"",
            "cpu = \"intel\"",
            "memory = \"512GiB\"",
            "mem_total = \"503GiB\"",
            "sockets = 2",
            "cores = 64",
            "install_disk = { by_path = \"pci-0000:00:17.0-ata-1\" }",
            "nic.mgmt = { name = \"lan0\", pci = \"0000:02:00.0\", net = \"mgmt\", boot = true }",
            "nvme.numa0 = [",
            "    \"0000:5e:00.0\",",
            "]",
            "console = \"ttyS0,115200\"",
            "vm = { disk = \"447GiB\", iommu = true }",
        ]
    );
}

#[test]
fn the_name_of_the_block_can_be_chosen() {
    let folder = support::repository();
    let place = format!("{CAPTURES}/r760.txt");
    let (block, _) = done(generate(folder, &["--from", &place, "--name", "storage"], ""));
    assert!(
        block.contains("\n[hw.storage]\n") && block.contains("# hw = \"storage\"\n"),
        "{block}"
    );
    let refused = generate(folder, &["--from", &place, "--name", "a b"], "");
    assert_eq!(refused.status.code(), Some(1));
}

/// The lines of a block that are no comments, without what stands behind them.
fn values(block: &str) -> Vec<&str> {
    let lines = block.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| line.split("   #").next().unwrap()).collect()
}

/// DAOS's own proposal decides which SSDs hold data, and on which NUMA node NICs are.
#[test]
fn the_tools_of_daos_tell_of_ssds_and_nics() {
    let scan = "---------\nlocalhost\n---------\n\n    -------------\n    NUMA Socket 1\n    \
                -------------\n\n        Provider          Interfaces \n        --------          \
                ---------- \n        ofi+verbs;ofi_rxm ib1        \n";
    let config = "name: daos_server\nport: 10001\nengines:\n- targets: 16\n  pinned_numa_node: 1\n  \
                  fabric_iface: ib1\n  storage:\n  - class: ram\n    scm_mount: /mnt/daos0\n  - \
                  class: nvme\n    bdev_list:\n    - \"0000:c1:00.0\"\n    - 0000:c2:00.0\n";
    let ip = r#"[{"ifname":"lan9","link_type":"ether","operstate":"UP","address":"52:54:00:00:00:09"},
        {"ifname":"ib1","link_type":"infiniband","operstate":"UP","parentdev":"0000:b1:00.0"}]"#;
    let block = block_of(&[("scan", scan), ("config", config), ("ip", ip)]).unwrap();
    assert_eq!(
        values(&block),
        [
            "[hw.box]",
            "nic.mgmt = { name = \"lan0\", net = \"mgmt\", boot = true }",
            "nic.fab0 = { name = \"fab0\", pci = \"0000:b1:00.0\", numa = 1, net = \"ib\" }",
            "nvme.numa1 = [",
            "    \"0000:c1:00.0\",",
            "    \"0000:c2:00.0\",",
            "]",
        ]
    );
}

/// An SSD that somebody's data may be on is named, and not offered.
#[test]
fn ssds_in_use_and_behind_vmd_are_left_to_a_person() {
    let lspci = "0000:5e:00.0 Non-Volatile memory controller [0108]: Samsung SSD [144d:a824]\n\
                 0000:5f:00.0 Non-Volatile memory controller [0108]: Samsung SSD [144d:a824]\n\
                 10000:01:00.0 Non-Volatile memory controller [0108]: Samsung SSD [144d:a824]\n";
    let lsblk = r#"{"blockdevices":[{"name":"nvme0n1","type":"disk","size":"960197124096","tran":"nvme",
        "fstype":"xfs","mountpoint":null},
        {"name":"sda","type":"disk","size":480103981056,"tran":"sata","children":
            [{"name":"sda1","type":"part","mountpoints":["/"]}]},
        {"name":"sdb","type":"disk","size":15000000000,"tran":"usb"}]}"#;
    let block = format!(
        "total 0\n{}\n{}\n",
        "lrwxrwxrwx 1 root root 0 Jan 1 00:00 nvme0n1 -> ../devices/pci0000:5d/0000:5d:02.0/0000:5e:00.0/nvme/nvme0/nvme0n1",
        "lrwxrwxrwx 1 root root 0 Jan 1 00:00 sda -> ../devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda"
    );
    let made = block_of(&[("a", lspci), ("b", lsblk), ("c", &block)]).unwrap();
    let rule = "install_disk = { bus = \"sata\", min = \"447GiB\", max = \"448GiB\" }";
    assert!(values(&made).contains(&rule), "{made}");
    assert!(!made.contains("sdb"), "a stick is no disk to install on: {made}");
    let of_ssds: Vec<&str> = made.lines().filter(|line| line.starts_with("    ")).collect();
    assert_eq!(
        of_ssds,
        [
            "    # \"0000:5e:00.0\",   # DECIDE: nvme0n1 894.2 GiB nvme; holds xfs: is that still wanted?",
            "    \"0000:5f:00.0\",   # Samsung SSD",
            "    # \"10000:01:00.0\",   # DECIDE: Samsung SSD; behind Intel VMD: DAOS takes the VMD's own address instead",
        ]
    );
}

/// Ethernet that does RDMA is the fabric where there is no InfiniBand; the NIC the box was
/// booted from by PXE boots.
#[test]
fn ethernet_with_rdma_is_the_fabric_and_bootif_tells_the_boot_nic() {
    let lspci = "0000:17:00.0 Ethernet controller [0200]: Mellanox ConnectX-6 Dx [15b3:101d]\n\
                 0000:17:00.1 Ethernet controller [0200]: Mellanox ConnectX-6 Dx [15b3:101d]\n\
                 0000:17:00.2 Ethernet controller [0200]: Mellanox ConnectX Family mlx5Gen Virtual Function [15b3:101e]\n";
    let ip = r#"[{"ifname":"enp23s0f0np0","link_type":"ether","operstate":"UP","address":"b8:3f:d2:00:00:01",
            "addr_info":[{"family":"inet","local":"10.0.0.1","prefixlen":24}]},
        {"ifname":"enp23s0f1np1","link_type":"ether","operstate":"UP","address":"b8:3f:d2:00:00:02"},
        {"ifname":"bond0","link_type":"ether","linkinfo":{"info_kind":"bond"}}]"#;
    let links = "lrwxrwxrwx 1 root root 0 Jan 1 00:00 mlx5_0 -> ../../devices/pci0000:16/0000:17:00.0/infiniband/mlx5_0\n\
                 lrwxrwxrwx 1 root root 0 Jan 1 00:00 mlx5_1 -> ../../devices/pci0000:16/0000:17:00.1/infiniband/mlx5_1\n";
    let line = "BOOT_IMAGE=vmlinuz inst.ks=http://x/ks BOOTIF=01-B8-3F-D2-00-00-02\n";
    let made = block_of(&[("a", lspci), ("b", ip), ("c", links), ("d", line)]).unwrap();
    let nics: Vec<&str> =
        values(&made).into_iter().filter(|line| line.starts_with("nic")).collect();
    assert_eq!(
        nics,
        [
            "nic.mgmt = { name = \"lan0\", pci = \"0000:17:00.1\", net = \"mgmt\", boot = true }",
            "nic.fab0 = { name = \"fab0\", pci = \"0000:17:00.0\", domain = \"mlx5_0\", net = \"fabric\" }",
        ]
    );
}

#[test]
fn an_output_that_is_not_as_its_tool_writes_it_is_told_with_file_and_form() {
    for (text, expected) in [
        ("{\"blockdevices\": [", "box, read as JSON: not well-formed: EOF while parsing"),
        ("{\"blockdevices\": {}}", "box, read as lsblk -J: `blockdevices` is no array"),
        (
            "{\"blockdevices\": [{\"name\":\"sda\",\"type\":\"disk\",\"size\":\"447.1G\"}]}",
            "box, read as lsblk -J: the size of sda is 447.1G; expected bytes (`-b`)",
        ),
        (
            "NAME   MAJ:MIN RM   SIZE RO TYPE",
            "box, read as lsblk: not JSON; expected `lsblk -J -b -O`",
        ),
        (
            "1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536",
            "box, read as ip: not JSON; expected `ip -j addr`",
        ),
        (
            "5e:00.0 Non-Volatile memory controller: Samsung SSD",
            "box, read as lspci: no class numbers; expected `lspci -Dvmmnn`",
        ),
        ("Slot:\tfoo\n", "box, read as lspci -vmmnn: line 1: `foo` is no PCI address"),
        (
            "Slot:\t0000:5e:00.0\nClass:\tNon-Volatile memory controller\n",
            "box, read as lspci -vmmnn: line 2: a class without its number; expected `lspci -Dvmmnn`",
        ),
        (
            "MemTotal: lots\n",
            "box, read as /proc/meminfo: expected a line like `MemTotal: 527950336 kB`",
        ),
        ("{\"lscpu\": []}", "box, read as lscpu -J: expected the field `Socket(s)` of lscpu"),
        (
            "# dmidecode 3.3\nMemory Device\n\tSize: 32 bananas\n",
            "box, read as dmidecode: `Size: 32 bananas` of a memory device; expected one like `32 GB`",
        ),
        ("engines: 7\n", "box, read as daos_server config generate: no daos_server.yml: "),
        (
            "{\"nodeforge_facts\": 2}",
            "box, read as facts as JSON: `nodeforge_facts` is 2; this nodeforge knows 1",
        ),
        (
            "{\"nodeforge_facts\": 1, \"cpus\": 2}",
            "box, read as facts as JSON: unknown field `cpus`",
        ),
    ] {
        let fault = block_of(&[("box", text)]).unwrap_err();
        assert!(fault.starts_with(expected), "of {text:?}: {fault}");
    }
}

#[test]
fn persistent_memory_is_no_memory() {
    let device = |size: &str, kind: &str| {
        format!("Memory Device\n\tSize: {size}\n\tForm Factor: DIMM\n\tType: {kind}\n\n")
    };
    let dmidecode = [
        "# dmidecode 3.3\n".to_owned(),
        device("32 GB", "DDR4"),
        device("128 GB", "Logical non-volatile device"),
        device("No Module Installed", "Logical non-volatile device"),
        device("16384 MB", "DDR4"),
    ];
    let block = block_of(&[("dmidecode", &dmidecode.concat())]).unwrap();
    assert_eq!(values(&block), ["[hw.box]", "memory = \"48GiB\""]);
    assert!(block.contains("# 2 DIMMs\n"), "{block}");
}

#[test]
fn outputs_of_two_boxes_are_refused() {
    let other =
        "Architecture: x86_64\nCore(s) per socket: 16\nSocket(s): 1\nVendor ID: GenuineIntel\n";
    let fault = block_of(&[("r760.txt", &capture("r760.txt")), ("lscpu", other)]).unwrap_err();
    assert_eq!(
        fault,
        "lscpu, read as lscpu: the number of sockets is 1 here and 2 in another output; give the \
         outputs of one box"
    );
}

#[test]
fn nothing_to_go_by_is_an_error_and_says_what_is_expected() {
    let folder = support::scratch();
    support::write(folder.path(), "notes", "Ask before you pull the power.\n");
    support::write(folder.path(), "empty/keep/x", "");
    for (arguments, expected) in [
        (["--from", "notes"], "nothing was recognised; expected outputs of lspci -Dvmmnn, lsblk"),
        (["--from", "missing"], "reading missing: No such file or directory"),
        (["--from", "empty"], "empty: a folder without files"),
    ] {
        let output = generate(folder.path(), &arguments, "");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(said.contains(expected) && output.stdout.is_empty(), "{arguments:?}: {said}");
    }
    assert_eq!(generate(folder.path(), &[], "").status.code(), Some(2));
}

#[test]
fn what_no_fact_tells_is_a_comment_and_a_warning() {
    let folder = support::scratch();
    let (block, said) =
        done(generate(folder.path(), &["--from", "-"], "MemTotal:       12040192 kB\n"));
    assert_eq!(values(&block), ["[hw.box]", "memory = \"12GiB\"", "mem_total = \"11GiB\""]);
    assert_eq!(
        said,
        "read: /proc/meminfo\n\
         warning: no fact tells how the box boots: ls -d /sys/firmware/*\n\
         warning: no fact tells the disks: lsblk -J -b -O\n\
         warning: no fact tells an Ethernet port: ip -j addr, or lspci -Dvmmnn\n"
    );
}

/// On whatever machine the tests run: it has memory, a kernel and a processor.
#[test]
fn the_script_collects_what_generate_reads() {
    let folder = support::scratch();
    let (script, _) = done(generate(folder.path(), &["--script"], ""));
    if !support::lacks(&["shellcheck", "python"]) {
        let script = Script {
            name: "collect.sh".into(),
            first_line: 1,
            language: Language::Sh,
            text: script.clone(),
        };
        assert_eq!(scripts::findings(&[script]), [""; 0]);
    }
    let output = support::command("sh").args(["-c", &script]).output().unwrap();
    assert!(output.status.success());
    let collected = String::from_utf8(output.stdout).unwrap();
    let (block, said) = done(generate(folder.path(), &["--from", "-"], &collected));
    assert!(said.contains("/proc/meminfo") && said.contains("/proc/cmdline"), "{said}");
    let table: toml::Table = block.parse().unwrap_or_else(|fault| panic!("{fault}: {block}"));
    let hw = table["hw"].as_table().unwrap().values().next().unwrap();
    assert!(hw["memory"].is_str() && hw["firmware"].is_str(), "{block}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Captures are cut, mixed and damaged on their way: an error, or a block that is TOML.
    #[test]
    fn whatever_a_capture_holds_the_block_is_toml(
        which in prop::sample::select(vec!["r760.txt", "vm/lsblk.json", "vm/ip.json", "vm/lspci.txt"]),
        at in any::<prop::sample::Index>(), n in 0..200_usize,
        put in "[ -~\n\t\\u{0}\\u{7f}\\u{85}\\u{e9}\"]{0,12}",
    ) {
        let text = capture(which);
        let at = at.index(text.len());
        let end = (at + n).min(text.len());
        let damaged = format!("{}{put}{}", &text[..at], &text[end..]);
        if let Ok(block) = block_of(&[("box", &damaged)]) {
            let table: Result<toml::Table, _> = block.parse();
            prop_assert!(table.is_ok(), "{:?}: {block}", table.err());
        }
    }

    #[test]
    fn names_that_a_box_gives_itself_cannot_leave_their_comment(name in any::<String>()) {
        let facts = serde_json::json!({
            "nodeforge_facts": 1, "product": name, "maker": name, "serial": name,
            "kernel_line": format!("console=ttyS{name} BOOTIF={name}"),
            "disks": { "sda": { "size_bytes": 1u64 << 40, "model": name, "serial": name, "by_path": name } },
            "nics": { "eno1": { "link_type": "ether", "address": name } },
            "pci": { "0000:5e:00.0": { "class": "0108", "name": name } },
        });
        let block = block_of(&[("box", &facts.to_string())]).unwrap();
        let table: toml::Table = block.parse().unwrap();
        prop_assert_eq!(table.len(), 1, "{}", block);
        prop_assert_eq!(table["hw"].as_table().unwrap().len(), 1, "{}", block);
    }
}
