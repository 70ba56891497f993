//! ISOs, as xorriso, isoinfo, mtools and ksvalidator see them, and what is refused as a base.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::examples::nodeforge;
use crate::media::{Lab, area_files, dvd, nodeforge_in, volume_files};
use crate::oracles::kickstart::ksvalidator;
use crate::support::{self, determinism};

/// What these tests need; see [`support::lacks`].
#[track_caller]
fn lacks() -> bool {
    support::lacks(&[&dvd::NEEDS[..], &["busybox", "cpio", "bsdtar", "isoinfo"]].concat())
}

const GOOD: &str = "an ISO labelled AlmaLinux-8-9-x86_64-dvd, for";

#[test]
fn a_remastered_iso_starts_as_its_base_does() {
    if lacks() {
        return;
    }
    let lab = Lab::isos();
    // Without the places, which move, and sizes, which grow.
    let boots = |iso: &Path| {
        let arguments = ["-indev", iso.to_str().unwrap(), "-report_el_torito", "plain"];
        let said =
            dvd::run("xorriso", &[&arguments[..], &["-report_system_area", "plain"]].concat());
        let is_kept = |line: &&str| {
            ["El Torito img path", "El Torito img opts", "System area summary", "partition path"]
                .iter()
                .any(|start| line.contains(start))
        };
        said.lines().filter(is_kept).map(str::to_owned).collect::<Vec<_>>()
    };
    let expected = boots(&lab.base());
    assert_eq!(expected.len(), 6, "{expected:?}");
    for name in ["lab3.iso", "shared.iso", "node0.iso", "node1.iso"] {
        assert_eq!(boots(&lab.made(name)), expected, "{name}");
        let iso = lab.made(name);
        let said = dvd::run("isoinfo", &["-d", "-i", iso.to_str().unwrap()]);
        assert!(said.contains("Volume id: AlmaLinux-8-9-x86_64-dvd\n"), "{said}");
    }
    for (name, mode) in [("node0.iso", 0o600), ("lab3.iso", 0o600), ("shared.iso", 0o644)] {
        let found = lab.made(name).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{name}");
    }
}

#[test]
fn boot_configurations_agree_and_all_else_is_as_in_the_base() {
    if lacks() {
        return;
    }
    let lab = Lab::isos();
    let iso = lab.made("node0.iso");
    let config = String::from_utf8(dvd::file_of(&iso, "EFI/BOOT/grub.cfg")).unwrap();
    let arguments = "quiet inst.ks=file:/ks.cfg inst.text console=tty0 console=ttyS0,115200";
    let expected = dvd::GRUB
        .replace("default=\"1\"", "default=\"0\"")
        .replace("timeout=60", "timeout=3")
        .replace("rd.live.check ", "")
        .replace(
            "dvd quiet\n\tinitrdefi /images/pxeboot/initrd.img",
            &format!("dvd {arguments}\n\tinitrdefi /images/pxeboot/initrd.img /isolinux/node.img"),
        );
    assert_eq!(config, expected);
    let folder = support::scratch();
    support::write(folder.path(), "efiboot.img", dvd::file_of(&iso, "images/efiboot.img"));
    let efiboot = folder.path().join("efiboot.img");
    let efiboot = efiboot.to_str().unwrap();
    assert_eq!(dvd::run("mtype", &["-i", efiboot, "::EFI/BOOT/grub.cfg"]), expected);
    dvd::run("fsck.fat", &["-n", efiboot]);

    let config = String::from_utf8(dvd::file_of(&iso, "isolinux/isolinux.cfg")).unwrap();
    let expected = dvd::ISOLINUX
        .replace("timeout 600", "timeout 30")
        .replace("  menu default\n", "")
        .replace("label linux\n", "label linux\n  menu default\n")
        .replace("rd.live.check ", "")
        .replace("initrd=initrd.img inst.stage2=hd:LABEL=AlmaLinux-8-9-x86_64-dvd quiet", &format!("initrd=initrd.img,/isolinux/node.img inst.stage2=hd:LABEL=AlmaLinux-8-9-x86_64-dvd {arguments}"));
    assert_eq!(config, expected);
    for path in
        ["isolinux/vmlinuz", "images/pxeboot/initrd.img", "EFI/BOOT/BOOTX64.EFI", ".treeinfo"]
    {
        assert!(dvd::file_of(&iso, path) == dvd::file_of(&lab.base(), path), "{path} differs");
    }
}

#[test]
fn a_nodes_iso_brings_what_its_oemdrv_volume_does() {
    if lacks() || support::lacks(&["ksvalidator"]) {
        return;
    }
    let lab = Lab::isos();
    let folder = support::scratch();
    let to = folder.path().to_str().unwrap();
    let (is_good, said) =
        nodeforge_in(&lab.folder, &["media", "oemdrv", "lab3.toml", "node[0-1]", "-o", to]);
    assert!(is_good, "{said}");
    for node in ["node0", "node1"] {
        let volume = volume_files(&folder.path().join(format!("{node}.oemdrv.img")));
        assert_eq!(area_files(&lab.made(&format!("{node}.iso"))), volume, "{node}");
    }
    let of_all = area_files(&lab.made("lab3.iso"));
    let of_nobody = area_files(&lab.made("shared.iso"));
    assert_eq!(of_nobody.keys().collect::<Vec<_>>(), ["ks.cfg"]);
    support::write(folder.path(), "all.ks", &of_all["ks.cfg"]);
    support::write(folder.path(), "nobody.ks", &of_nobody["ks.cfg"]);
    let files = ["all.ks", "nobody.ks"].map(|name| folder.path().join(name));
    assert_eq!(ksvalidator(&[&files[0], &files[1]]), [""; 0]);
}

#[test]
fn isos_are_the_same_wherever_and_by_whomever_they_are_made() {
    if lacks() {
        return;
    }
    let lab = Lab::isos();
    let input = support::scratch();
    for path in support::files_below(&lab.folder, |path| !path.starts_with("made/")) {
        support::write(input.path(), &path, std::fs::read(lab.folder.join(&path)).unwrap());
    }
    let base =
        ["media", "iso", "lab3.toml", "--base", "AlmaLinux-8.9-x86_64-dvd.iso", "-o", "again"];
    for more in [&["--all"][..], &["--node", "node2"]] {
        let arguments = [&base[..], more].concat();
        let found = determinism::differences(input.path(), nodeforge(), &arguments, "again");
        assert_eq!(found, [""; 0], "{more:?}");
    }
}

#[test]
fn a_shared_iso_is_made_once_and_again_when_its_base_is_another() {
    if lacks() {
        return;
    }
    let lab = Lab::isos();
    let made = || lab.made("shared.iso").metadata().unwrap().modified().unwrap();
    let before = made();
    let base = lab.base();
    let base = base.to_str().unwrap();
    let again = ["media", "iso", "lab3.toml", "--base", base, "--node", "node1", "-o", "made"];
    assert!(nodeforge_in(&lab.folder, &again).0);
    assert_eq!(made(), before);

    let folder = support::scratch();
    let other = folder.path().join("other.iso");
    let mut bytes = std::fs::read(lab.base()).unwrap();
    // ECMA-119 8.4.26: the time the volume was created.
    bytes[16 * 2048 + 813..][..4].copy_from_slice(b"2022");
    std::fs::write(&other, bytes).unwrap();
    for name in ["shared.iso", "node1.iso"] {
        std::fs::copy(lab.made(name), folder.path().join(name)).unwrap();
    }
    let made = || folder.path().join("shared.iso").metadata().unwrap().modified().unwrap();
    let before = made();
    let (other, out) = (other.to_str().unwrap(), folder.path().to_str().unwrap());
    let of_other = ["media", "iso", "lab3.toml", "--base", other, "--node", "node1", "-o", out];
    assert!(nodeforge_in(&lab.folder, &of_other).0);
    assert_ne!(made(), before);
}

#[test]
fn verify_finds_what_does_not_fit_together() {
    if lacks() {
        return;
    }
    let lab = Lab::isos();
    for (name, nodes) in [
        ("node1.iso", "node1"),
        ("lab3.iso", "node[0-2]"),
        ("shared.iso", "nobody, it installs nothing"),
    ] {
        let said = nodeforge_in(&lab.folder, &["media", "verify", &format!("made/{name}")]);
        assert_eq!(said, (true, format!("made/{name}: {GOOD} {nodes}: as it should be")));
    }
    let folder = support::scratch();
    let change = |from: &str, to: &str| {
        let mut bytes = std::fs::read(lab.made("node0.iso")).unwrap();
        assert_eq!(from.len(), to.len());
        let mut n_found = 0;
        let mut at = 0;
        while let Some(found) = memchr::memmem::find(&bytes[at..], from.as_bytes()) {
            at += found;
            bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
            n_found += 1;
        }
        assert!(n_found > 0, "{from} is nowhere");
        std::fs::write(folder.path().join("changed.iso"), bytes).unwrap();
        let (is_good, said) = nodeforge_in(folder.path(), &["media", "verify", "changed.iso"]);
        assert!(!is_good, "{from}");
        said
    };
    let said = change(
        "search --no-floppy --set=root -l 'AlmaLinux",
        "search --no-floppy --set=root -l 'XlmaLinux",
    );
    assert!(said.starts_with("EFI/BOOT/grub.cfg: GRUB looks for the label `XlmaLinux-8-9-x86_64-dvd`, and the volume's is"), "{said}");
    let said = change(
        "initrd=initrd.img,/isolinux/node.img inst.stage2=hd:LABEL=Alma",
        "initrd=initrd.img,/isolinux/node.img inst.stage2=hd:LABEL=Xlma",
    );
    assert!(
        said.starts_with("isolinux/isolinux.cfg, linux: inst.stage2 names the label `Xlma"),
        "{said}"
    );
    let said = change("nodeforge-area-1", "nodeforge-area-2");
    assert!(said.contains("isolinux/node.img: it is no embed area of nodeforge"), "{said}");
    let said = change("linuxefi /images/pxeboot/vmlinuz", "linuxefi /images/pxeboot/xmlinuz");
    assert!(said.contains(": there is no /images/pxeboot/xmlinuz\n"), "{said}");
    let said = change("EL TORITO SPECIFICATION", "XL TORITO SPECIFICATION");
    assert!(said.starts_with("it has no boot catalog: no firmware starts it as a CD\n"), "{said}");
    let (is_good, said) =
        nodeforge_in(&lab.folder, &["media", "verify", lab.base().to_str().unwrap()]);
    assert!(!is_good);
    assert!(said.contains("isolinux/isolinux.cfg, linux: no inst.ks=\n"), "{said}");
    assert!(
        said.contains("isolinux/node.img is missing: it was not made by nodeforge\n"),
        "{said}"
    );
}

#[test]
fn a_wrong_base_is_refused_before_anything_is_written() {
    if lacks() {
        return;
    }
    let lab = Lab::isos();
    let folder = support::scratch();
    let good = std::fs::read(lab.base()).unwrap();
    support::write(folder.path(), "text.iso", "<html>404");
    support::write(folder.path(), "short.iso", &good[..good.len() / 2]);
    let tree = folder.path().join("tree");
    support::write(&tree, "README", "no installer");
    let plain = folder.path().join("plain.iso");
    let [tree, plain] = [tree, plain].map(|path| path.to_str().unwrap().to_owned());
    dvd::run("xorriso", &["-as", "mkisofs", "-quiet", "-R", "-o", &plain, &tree]);
    for (name, fault) in [
        ("none.iso", "opening"),
        ("text.iso", "is no ISO 9660 image: give the vendor's ISO"),
        ("short.iso", "is cut short: it says that it has"),
        ("plain.iso", "has no isolinux/isolinux.cfg: it is no ISO of AlmaLinux 8's installer"),
    ] {
        let base = folder.path().join(name);
        let out = folder.path().join("out");
        let arguments = ["--base", base.to_str().unwrap(), "-o", out.to_str().unwrap()];
        let arguments = [&["media", "iso", "lab3.toml"], &arguments[..]].concat();
        let (is_good, said) = nodeforge_in(&lab.folder, &arguments);
        assert!(!is_good && said.contains(fault), "{name}: {said}");
        assert!(!out.exists(), "{name}");
    }
}

#[test]
fn a_base_is_never_replaced_and_names_that_meet_are_kept_apart() {
    if lacks() {
        return;
    }
    let lab = Lab::new("names");
    let base = dvd::make(&lab.folder, &lab.folder.join("lab3.toml"), None);
    let named = lab.folder.join("node0.iso");
    std::fs::rename(base, &named).unwrap();
    let before = std::fs::read(&named).unwrap();
    std::fs::hard_link(&named, lab.folder.join("lab3.iso")).unwrap();
    let to_base = ["media", "iso", "lab3.toml", "--base", "node0.iso", "-o", "."];
    for more in [&[][..], &["--node", "node[0-1]"]] {
        let (is_good, said) = nodeforge_in(&lab.folder, &[&to_base[..], more].concat());
        assert!(!is_good && said.contains("is the base itself"), "{said}");
    }
    assert_eq!(std::fs::read(&named).unwrap(), before);
    assert!(!lab.folder.join("shared.iso").exists());

    let text = std::fs::read_to_string(lab.folder.join("lab3.toml")).unwrap();
    let text = text.replace("name = \"lab3\"", "name = \"node0\"");
    std::fs::write(lab.folder.join("lab3.toml"), text).unwrap();
    let made = ["media", "iso", "lab3.toml", "--base", "node0.iso", "-o", "made"];
    assert!(nodeforge_in(&lab.folder, &made).0);
    assert!(nodeforge_in(&lab.folder, &[&made[..], &["--node", "node0"]].concat()).0);
    let names = support::files_below(&lab.folder.join("made"), |_| true);
    assert_eq!(names, ["node0.all.iso", "node0.iso", "shared.iso"]);
}

/// The shell's limit on the size of files stands in for a full disk: the write fails likewise.
#[test]
fn a_write_that_fails_leaves_what_was_there() {
    if lacks() {
        return;
    }
    let lab = Lab::isos();
    let folder = support::scratch();
    support::write(folder.path(), "lab3.iso", "before");
    let base = lab.base();
    let output = Command::new("/bin/bash")
        .args(["-c", "trap '' XFSZ; ulimit -f 10240; exec \"$@\"", "bash"])
        .arg(nodeforge())
        .args(["media", "iso", "lab3.toml", "--base", base.to_str().unwrap()])
        .args(["-o", folder.path().to_str().unwrap()])
        .current_dir(&lab.folder)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = support::spoken_lines(&output).join("\n");
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("lab3.iso of ") && said.contains("xorriso"), "{said}");
    assert_eq!(support::files_below(folder.path(), |_| true), ["lab3.iso"]);
    assert_eq!(std::fs::read(folder.path().join("lab3.iso")).unwrap(), b"before");
}

/// A stand-in for xorriso ends the program in the middle of its work, as a power cut would. What it
/// is given by name holds no secrets: such files stay behind, and anybody may read them.
#[test]
fn a_run_that_is_killed_leaves_what_was_there_and_no_secrets() {
    if lacks() {
        return;
    }
    let lab = Lab::isos();
    let folder = support::scratch();
    support::write(folder.path(), "out/lab3.iso", "before");
    let seen = folder.path().join("seen");
    let script = format!(
        "#!/bin/sh\nfor word; do\ncase $word in\nstdio:/proc/*) echo half >\"${{word#stdio:}}\" ;;\n\
         *) [ ! -f \"$word\" ] || cat \"$word\" >>{} ;;\nesac\ndone\nkill -KILL $PPID\n",
        seen.display()
    );
    support::write(folder.path(), "bin/xorriso", &script);
    support::set_mode(folder.path(), "bin/xorriso", 0o755);
    let path = format!("{}:/usr/bin:/bin", folder.path().join("bin").display());
    let base = lab.base();
    let output = Command::new(nodeforge())
        .args(["media", "iso", "lab3.toml", "--base", base.to_str().unwrap()])
        .args(["-o", folder.path().join("out").to_str().unwrap()])
        .current_dir(&lab.folder)
        .env("PATH", path)
        .env("TMPDIR", folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let seen = std::fs::read(seen).unwrap();
    let has = |text: &str| memchr::memmem::find(&seen, text.as_bytes()).is_some();
    assert!(has("inst.ks=file:/ks.cfg") && !has("nodeforge-area-1"));
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(9));
    assert_eq!(support::files_below(&folder.path().join("out"), |_| true), ["lab3.iso"]);
    assert_eq!(std::fs::read(folder.path().join("out/lab3.iso")).unwrap(), b"before");
}
