//! A node's disk that `image --rootfs` assembled of the stand-in system, started by BIOS and UEFI
//! with GRUB, its kernel and nothing from the host, until the first boot has ended.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::examples::nodeforge;
use crate::kickstart::sections;
use crate::support;

use super::bench::{BOOT_TIMEOUT, COMMAND_TIMEOUT, QUICK, built, fakes, scratch};
use super::guest::{Guest, Turn};
use super::lacks_for_nodes;
use super::lan::Lan;
use super::machine::{Disks, Machine};

const OVMF_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const OVMF_VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// A client: it needs no disk but its own.
const NODE: &str = "node2";

#[track_caller]
fn lacks() -> bool {
    let further =
        ["mke2fs", "debugfs", "grub-mkimage", "/usr/lib/grub/i386-pc/boot.img", OVMF_CODE];
    lacks_for_nodes() || support::lacks(&further)
}

/// The archive that a site would give: the stand-in system with what DAOS's packages bring.
#[track_caller]
fn root_archive(folder: &Path) -> PathBuf {
    let archive = folder.join("root.tar");
    std::fs::copy(support::stand_in_archive(), &archive).unwrap();
    let more = folder.join("more");
    let unit = "[Unit]\nDescription=Stands for a package's\n[Service]\nType=oneshot\n\
                ExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n";
    for name in ["chrony-wait", "sshd", "tuned"] {
        support::write(&more, &format!("usr/lib/systemd/system/{name}.service"), unit);
    }
    let kickstart = built().join(format!("nodes/{NODE}/kickstart.ks"));
    let kickstart = std::fs::read_to_string(kickstart).unwrap();
    let packages = sections(&kickstart, "%packages").remove(0);
    support::write(&more, "usr/share/nodeforge-test/packages", packages);
    support::write(&more, "usr/libexec/nodeforge-test/bin/dmg", fakes());
    support::set_mode(&more, "usr/libexec/nodeforge-test/bin/dmg", 0o755);
    for name in ["daos_agent", "daos"] {
        let file = more.join("usr/libexec/nodeforge-test/bin/dmg");
        std::fs::create_dir_all(more.join("usr/bin")).unwrap();
        std::fs::hard_link(file, more.join("usr/bin").join(name)).unwrap();
    }
    let tar = |arguments: &[&str]| {
        let output = support::command("tar").arg("-f").arg(&archive).args(arguments).output();
        let output = output.unwrap();
        assert!(output.status.success(), "tar: {:?}", support::spoken_lines(&output));
    };
    let server = "./usr/lib/systemd/system/daos_server.service";
    tar(&["--delete", "./usr/bin/dmg", server, &format!("{server}.d")]);
    let more = more.to_str().unwrap();
    tar(&["--append", "--owner=0", "--group=0", "--numeric-owner", "-C", more, "./usr"]);
    archive
}

/// The disk, made once for all firmware. What makes guests quicker is in the cluster file: the
/// kernel line is GRUB's.
#[track_caller]
fn image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let folder = scratch("rootfs");
        let lab = std::fs::read_to_string(support::repository().join("tests/boot/lab.toml"));
        let words = QUICK.split_whitespace().chain(["transparent_hugepage=never"]);
        let words: Vec<String> = words.map(|word| format!("\"{word}\"")).collect();
        let line = format!("firewall = \"disabled\"\nkernel_args = [{}]\n", words.join(", "));
        let lab = lab.unwrap().replacen("firewall = \"disabled\"\n", &line, 1);
        assert!(lab.contains("kernel_args"));
        support::write(&folder, "lab.toml", lab);
        let root = root_archive(&folder);
        let output = std::process::Command::new(nodeforge())
            .args(["image", "lab.toml", "--node", NODE, "-o", "out", "--rootfs"])
            .arg(&root)
            .arg("--kernel")
            .arg(support::guest_kernel())
            .env("PATH", support::path())
            .current_dir(&folder)
            .output()
            .unwrap();
        assert!(output.status.success(), "{:?}", support::spoken_lines(&output));
        std::fs::remove_file(root).unwrap();
        folder.join(format!("out/{NODE}.qcow2"))
    })
}

/// Starts the disk with `firmware`, and looks at what comes up.
#[track_caller]
fn boots_to_the_end_of_its_first_boot(name: &str, firmware: &[String]) {
    let turn = Turn::wait_for_one();
    let disks = Disks::of_image(&scratch(name), image());
    let lan = Lan::new(&[NODE]);
    let mut qemu = support::command("qemu-system-x86_64");
    let mac = "52:54:00:77:00:12";
    qemu.args(Machine::small().arguments(&disks, mac, &lan.netdev(NODE))).args(firmware);
    let mut guest = Guest::start_firmware_with_shell(&turn, name, qemu);
    guest.wait_for("nodeforge-firstboot: all steps are done", BOOT_TIMEOUT);

    let mut run = |command: &str| guest.run(command, COMMAND_TIMEOUT);
    let line = run("cat /proc/cmdline");
    assert!(line.contains(" root=PARTUUID=") && line.contains(" intel_iommu=on"), "{line}");
    assert_eq!(run("hostname"), "node2.bench.test");
    assert_eq!(run("awk '$2 == \"/\" {print $3, substr($4, 1, 2)}' /proc/mounts"), "ext4 rw");
    assert_eq!(
        run("stat --format %U:%G:%a /etc/daos/certs/clients"),
        "daos_server:daos_server:700"
    );
    assert_eq!(run("systemctl is-enabled chronyd sshd tuned | sort -u"), "enabled");
    assert_eq!(run("grep ^root: /etc/shadow | cut -d: -f2"), "!!");
    assert_eq!(run("nmcli -g GENERAL.STATE device show lan0"), "100 (connected)");
    let is_uefi = firmware.iter().any(|word| word.contains("OVMF"));
    assert_eq!(run("test -d /sys/firmware/efi && echo uefi || echo bios") == "uefi", is_uefi);
    guest.quit();
}

#[test]
fn bios_starts_an_assembled_disk() {
    if !lacks() {
        boots_to_the_end_of_its_first_boot("assembled-bios", &[]);
    }
}

#[test]
fn uefi_starts_an_assembled_disk() {
    if lacks() {
        return;
    }
    let folder = support::scratch();
    let variables = folder.path().join("vars.fd");
    std::fs::copy(OVMF_VARS, &variables).unwrap();
    let flash = |file: &str| ["-drive".to_owned(), format!("if=pflash,format=raw,{file}")];
    let code = flash(&format!("readonly=on,file={OVMF_CODE}"));
    let variables = flash(&format!("file={}", variables.display()));
    boots_to_the_end_of_its_first_boot("assembled-uefi", &[code, variables].concat());
}
