//! A stand-in for the vendor's ISO: its folders, boot configurations and ways to boot, as lorax
//! 28.14 makes them (share/templates.d/99-generic/x86.tmpl), around a kernel and an initrd of the
//! tests' own.

use std::path::{Path, PathBuf};

use crate::support::{self, KERNEL};

/// What making one needs; see [`support::lacks`].
pub const NEEDS: [&str; 9] = [
    "xorriso",
    "grub-mkimage",
    "mkfs.vfat",
    "mmd",
    "mcopy",
    "/usr/lib/grub/x86_64-efi/linuxefi.mod",
    "/usr/lib/ISOLINUX/isolinux.bin",
    "/usr/lib/syslinux/modules/bios/menu.c32",
    KERNEL,
];

pub const LABEL: &str = "AlmaLinux-8-9-x86_64-dvd";

pub const ISOLINUX: &str = "\
default menu.c32
timeout 600
menu title AlmaLinux 8.9
label linux
  menu label ^Install AlmaLinux 8.9
  kernel vmlinuz
  append initrd=initrd.img inst.stage2=hd:LABEL=AlmaLinux-8-9-x86_64-dvd quiet
label check
  menu label Test this ^media & install AlmaLinux 8.9
  menu default
  kernel vmlinuz
  append initrd=initrd.img inst.stage2=hd:LABEL=AlmaLinux-8-9-x86_64-dvd rd.live.check quiet
menu separator
menu begin ^Troubleshooting
  menu title Troubleshooting
label rescue
  menu label ^Rescue a AlmaLinux system
  kernel vmlinuz
  append initrd=initrd.img inst.stage2=hd:LABEL=AlmaLinux-8-9-x86_64-dvd inst.rescue quiet
label local
  menu label Boot from ^local drive
  localboot 0xffff
menu end
";

pub const GRUB: &str = "\
set default=\"1\"

function load_video {
  insmod all_video
}

load_video
set gfxpayload=keep

set timeout=60

search --no-floppy --set=root -l 'AlmaLinux-8-9-x86_64-dvd'

menuentry 'Install AlmaLinux 8.9' --class fedora --class gnu-linux --class gnu --class os {
\tlinuxefi /images/pxeboot/vmlinuz inst.stage2=hd:LABEL=AlmaLinux-8-9-x86_64-dvd quiet
\tinitrdefi /images/pxeboot/initrd.img
}
menuentry 'Test this media & install AlmaLinux 8.9' --class fedora --class gnu-linux {
\tlinuxefi /images/pxeboot/vmlinuz inst.stage2=hd:LABEL=AlmaLinux-8-9-x86_64-dvd rd.live.check quiet
\tinitrdefi /images/pxeboot/initrd.img
}
submenu 'Troubleshooting -->' {
\tmenuentry 'Rescue a AlmaLinux system' --class fedora --class gnu-linux {
\t\tlinuxefi /images/pxeboot/vmlinuz inst.stage2=hd:LABEL=AlmaLinux-8-9-x86_64-dvd inst.rescue quiet
\t\tinitrdefi /images/pxeboot/initrd.img
\t}
}
";

/// Writes the ISO to `folder/AlmaLinux-8.9-x86_64-dvd.iso`, with `initrd` as the installer's, and
/// its second stage where there is one.
#[track_caller]
pub fn make(folder: &Path, initrd: &Path, stage2: Option<&Path>) -> PathBuf {
    let tree = support::scratch();
    let top = tree.path();
    let copy = |from: &Path, to: &str| support::write(top, to, std::fs::read(from).unwrap());
    support::write(top, "isolinux/isolinux.cfg", ISOLINUX);
    support::write(top, "EFI/BOOT/grub.cfg", GRUB);
    support::write(
        top,
        ".treeinfo",
        "[general]\nversion = 1\n\n[release]\nname = AlmaLinux\nversion = 8.9\n",
    );
    copy(Path::new("/usr/lib/ISOLINUX/isolinux.bin"), "isolinux/isolinux.bin");
    for module in ["ldlinux", "libcom32", "libutil", "menu"] {
        let from = format!("/usr/lib/syslinux/modules/bios/{module}.c32");
        copy(Path::new(&from), &format!("isolinux/{module}.c32"));
    }
    for folder in ["isolinux", "images/pxeboot"] {
        copy(&support::guest_kernel(), &format!("{folder}/vmlinuz"));
        copy(initrd, &format!("{folder}/initrd.img"));
    }
    if let Some(stage2) = stage2 {
        copy(stage2, "images/install.img");
    }
    make_efiboot(top);
    let iso = folder.join("AlmaLinux-8.9-x86_64-dvd.iso");
    run(
        "xorriso",
        &["-as", "mkisofs", "-quiet", "-V", LABEL, "-R", "-J"]
            .into_iter()
            .chain(["-isohybrid-mbr", "/usr/lib/ISOLINUX/isohdpfx.bin"])
            .chain(["-b", "isolinux/isolinux.bin", "-c", "isolinux/boot.cat"])
            .chain(["-boot-load-size", "4", "-boot-info-table", "-no-emul-boot"])
            .chain(["-eltorito-alt-boot", "-e", "images/efiboot.img", "-no-emul-boot"])
            .chain(["-isohybrid-gpt-basdat", "-o", iso.to_str().unwrap(), top.to_str().unwrap()])
            .collect::<Vec<_>>(),
    );
    implant_checksum(&iso);
    iso
}

/// What implantisomd5 writes into the application use of the volume descriptor (ECMA-119 8.4.32).
fn implant_checksum(iso: &Path) {
    use std::os::unix::fs::FileExt;

    let text = "ISO MD5SUM = 00112233445566778899aabbccddeeff;SKIPSECTORS = 15;RHLISOSTATUS=1;";
    let file = std::fs::File::options().write(true).open(iso).unwrap();
    file.write_all_at(text.as_bytes(), 16 * 2048 + 883).unwrap();
}

/// The EFI system partition: GRUB and its configuration.
fn make_efiboot(top: &Path) {
    let program = top.join("EFI/BOOT/BOOTX64.EFI");
    let modules = "part_gpt part_msdos fat iso9660 normal configfile linux linuxefi search search_label \
                   all_video test boot";
    let arguments = ["-O", "x86_64-efi", "-p", "/EFI/BOOT", "-o", program.to_str().unwrap()];
    run(
        "grub-mkimage",
        &arguments.into_iter().chain(modules.split_whitespace()).collect::<Vec<_>>(),
    );
    let volume = top.join("images/efiboot.img");
    std::fs::File::create(&volume).unwrap().set_len(4 << 20).unwrap();
    let volume = volume.to_str().unwrap();
    run("mkfs.vfat", &["--invariant", "-n", "ANACONDA", volume]);
    run("mmd", &["-i", volume, "::EFI", "::EFI/BOOT"]);
    let config = top.join("EFI/BOOT/grub.cfg");
    let files = [program.to_str().unwrap(), config.to_str().unwrap()];
    run("mcopy", &["-i", volume, files[0], files[1], "::EFI/BOOT/"]);
}

/// Runs a program that has to succeed.
#[track_caller]
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = support::run(program, arguments);
    let said = support::spoken_lines(&output).join("\n");
    assert!(output.status.success(), "{program} {arguments:?}: {}\n{said}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The file at `path` of an ISO, as xorriso reads it.
#[track_caller]
pub fn file_of(iso: &Path, path: &str) -> Vec<u8> {
    let folder = support::scratch();
    let to = folder.path().join("file");
    let inside = format!("/{path}");
    let (iso, to_text) = (iso.to_str().unwrap(), to.to_str().unwrap());
    run("xorriso", &["-osirrox", "on", "-indev", iso, "-extract", &inside, to_text]);
    std::fs::read(to).unwrap()
}
