//! Machines that are started from media: every kind of firmware and drive, and a volume that is
//! found by its label.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::media::{BEGINS, ENDS, Lab, area_files, dvd, volume_files};
use crate::oracles::archives::stand_in_cpio;
use crate::support::{self, listing};

use super::guest::{Guest, Turn};
use super::{NEEDS, initrd};

/// Firmware, a boot loader that reads slowly and a kernel take half a minute; a machine that also
/// compiles is five times slower.
const TIMEOUT: Duration = Duration::from_secs(300);

const OVMF_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const OVMF_VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Firmware {
    Bios,
    Uefi,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drive {
    Cd,
    UsbStick,
}

#[track_caller]
fn lacks() -> bool {
    support::lacks(&[&NEEDS[..], &dvd::NEEDS, &["bsdtar", OVMF_CODE]].concat())
}

/// Starts a machine that has nothing but `iso`, and compares what the installer's stand-in sees in
/// its root with what is to be handed over.
#[track_caller]
fn boot(iso: &Path, firmware: Firmware, drive: Drive) {
    let folder = support::scratch();
    let mut qemu = support::command("qemu-system-x86_64");
    qemu.args(["-accel", "tcg", "-smp", "1", "-m", "512", "-machine", "q35", "-nic", "none"]);
    if firmware == Firmware::Uefi {
        let vars = folder.path().join("vars.fd");
        std::fs::copy(OVMF_VARS, &vars).unwrap();
        let pflash = "if=pflash,format=raw";
        qemu.args(["-drive", &format!("{pflash},readonly=on,file={OVMF_CODE}")]);
        qemu.args(["-drive", &format!("{pflash},file={}", vars.display())]);
    }
    let file = format!("if=none,id=medium,format=raw,file={}", iso.display());
    match drive {
        Drive::Cd => {
            qemu.args(["-drive", &format!("{file},readonly=on,media=cdrom")]);
            qemu.args(["-device", "ide-cd,drive=medium,bootindex=1"]);
        }
        Drive::UsbStick => {
            qemu.args(["-drive", &format!("{file},snapshot=on"), "-device", "qemu-xhci"]);
            qemu.args(["-device", "usb-storage,drive=medium,removable=on,bootindex=1"]);
        }
    }
    let expected = area_files(iso);
    let turn = Turn::wait_for_one();
    let mut guest = Guest::start_firmware(&turn, &format!("{firmware:?}-{drive:?}"), qemu);
    let report =
        guest.lines_between(BEGINS, ENDS, TIMEOUT).unwrap_or_else(|failure| panic!("{failure}"));
    guest.quit();
    let (line, digests) = report.split_first().expect("it begins with the kernel line");
    let words: Vec<&str> = line
        .split(' ')
        .filter(|word| !word.contains("BOOT_IMAGE=") && !word.starts_with("initrd="))
        .collect();
    assert_eq!(
        words.join(" "),
        "inst.stage2=hd:LABEL=AlmaLinux-8-9-x86_64-dvd quiet inst.ks=file:/ks.cfg inst.text \
         console=tty0 console=ttyS0,115200"
    );
    assert_eq!(digests_of(digests), digests_by_name(&expected));
}

/// `digest  /name`, but for the initrd's own.
fn digests_of(lines: &[String]) -> BTreeMap<String, String> {
    let entries = lines.iter().filter_map(|line| line.split_once("  /"));
    entries
        .filter(|(_, name)| *name != "init")
        .map(|(digest, name)| (name.to_owned(), digest.to_owned()))
        .collect()
}

fn digests_by_name(files: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, String> {
    files.iter().map(|(name, bytes)| (name.clone(), listing::sha256(bytes))).collect()
}

#[test]
fn bios_starts_an_iso_for_all_nodes_from_a_cd() {
    if !lacks() {
        boot(&Lab::isos().made("lab3.iso"), Firmware::Bios, Drive::Cd);
    }
}

#[test]
fn bios_starts_a_nodes_iso_from_a_usb_stick() {
    if !lacks() {
        boot(&Lab::isos().made("node0.iso"), Firmware::Bios, Drive::UsbStick);
    }
}

#[test]
fn uefi_starts_a_nodes_iso_from_a_cd() {
    if !lacks() {
        boot(&Lab::isos().made("node1.iso"), Firmware::Uefi, Drive::Cd);
    }
}

#[test]
fn uefi_starts_an_iso_for_all_nodes_from_a_usb_stick() {
    if !lacks() {
        boot(&Lab::isos().made("lab3.iso"), Firmware::Uefi, Drive::UsbStick);
    }
}

/// Mounts what has the label, as anaconda's dracut module does, and tells what it finds there.
const LOOK_FOR_OEMDRV: &str = "#!/bin/busybox sh
b=/bin/busybox
$b mkdir -p /proc /sys /mnt
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs devtmpfs /dev
for module in /modules/*.ko; do $b insmod $module; done
$b mount -t vfat -o ro \"$($b findfs LABEL=OEMDRV)\" /mnt
$b echo
$b echo 'nodeforge-boot-test: begin'
cd /mnt && for file in *; do
    $b sha256sum \"$file\" | $b sed 's,  ,  /,'
done
$b echo 'nodeforge-boot-test: end'
$b sleep 60
$b poweroff -f
";

/// In the order of loading.
const MODULES: [&str; 4] = ["nls/nls_cp437", "nls/nls_ascii", "fat/fat", "fat/vfat"];

#[test]
fn a_volume_is_found_by_its_label_beside_other_disks() {
    if support::lacks(&NEEDS) || support::lacks(&["mcopy", "mkfs.vfat"]) {
        return;
    }
    let folder = support::scratch();
    let tree = initrd::tree_with(LOOK_FOR_OEMDRV);
    for (at, module) in MODULES.iter().enumerate() {
        let name = module.rsplit('/').next().unwrap();
        let bytes = std::fs::read(support::guest_module(&format!("fs/{module}.ko"))).unwrap();
        support::write(tree.path(), &format!("modules/{at}-{name}.ko"), bytes);
    }
    let packed = folder.path().join("initrd.img");
    stand_in_cpio(tree.path(), &packed);
    let other = folder.path().join("other.img");
    std::fs::File::create(&other).unwrap().set_len(4 << 20).unwrap();
    dvd::run("mkfs.vfat", &["-n", "OTHER", other.to_str().unwrap()]);

    let volume = Lab::volumes().made("node0.oemdrv.img");
    let mut qemu = support::command("qemu-system-x86_64");
    qemu.args(["-accel", "tcg", "-smp", "1", "-m", "512", "-machine", "q35", "-nic", "none"]);
    for (id, path) in [("other", &other), ("oemdrv", &volume)] {
        let file = path.display();
        qemu.args(["-drive", &format!("if=none,id={id},format=raw,snapshot=on,file={file}")]);
        qemu.args(["-device", &format!("nvme,serial={id},drive={id}")]);
    }
    qemu.arg("-kernel").arg(support::guest_kernel()).arg("-initrd").arg(&packed);
    qemu.args(["-append", "console=ttyS0 loglevel=4 panic=-1"]);
    let turn = Turn::wait_for_one();
    let mut guest = Guest::start_firmware(&turn, "oemdrv", qemu);
    let report =
        guest.lines_between(BEGINS, ENDS, TIMEOUT).unwrap_or_else(|failure| panic!("{failure}"));
    guest.quit();
    assert_eq!(digests_of(&report), digests_by_name(&volume_files(&volume)));
}
