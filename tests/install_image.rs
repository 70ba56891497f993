//! `image --install` without an installer: what is refused before anything starts, which nodes share
//! an image, and what is made of each way in which a machine can end. A script stands for QEMU.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::examples::{copy_with_secrets, nodeforge, run};
use crate::media::dvd;
use crate::support;

#[track_caller]
fn lacks() -> bool {
    support::lacks(&[&dvd::NEEDS[..], &["qemu-img"]].concat())
}

/// The script that stands for QEMU: it writes to the console, and tells on standard output why the
/// machine ended, as the word in the file `ends` asks for.
const QEMU: &str = r#"#!/bin/sh
for word in "$@"; do
    case $word in file,append=on,path=*) log=${word#*path=} log=${log%,id=console} ;; esac
done
say() { printf '%s\r\n' "$@" >>"$log"; }
told() { printf '{"event": "SHUTDOWN", "data": {"guest": true, "reason": "%s"}}\n' "$1"; }
printf '%s\n' "$@" >>words
echo run >>runs
say 'Linux version 4.18' 'Starting installer'
case $(cat ends) in
    well) say '== nodeforge: the golden image is installed ==' && told guest-shutdown ;;
    reset) say '== nodeforge: the golden image is installed ==' && told guest-reset ;;
    early) told guest-shutdown ;;
    refused)
        say '== nodeforge: golden image is NOT installed ==' 'No group: daos.' 'Waiting for a person;'
        exec sleep 600
        ;;
    panic) say '---[ end Kernel panic - not syncing: VFS ]---' && exec sleep 600 ;;
    full)
        echo '{"event": "BLOCK_IO_ERROR", "data": {"action": "stop", "reason": "No space left on device"}}'
        exec sleep 600
        ;;
    broken) echo 'qemu: no such machine' >&2 && exit 1 ;;
esac
"#;

const ISO: &str = "AlmaLinux-8.9-x86_64-dvd.iso";

/// examples/lab3.toml with secrets, an installer's ISO, and a QEMU that ends well.
fn workplace() -> tempfile::TempDir {
    let folder = support::scratch();
    copy_with_secrets(folder.path(), "lab3.toml");
    support::write(folder.path(), "initrd", "an initrd");
    dvd::make(folder.path(), &folder.path().join("initrd"), None);
    support::write(folder.path(), "bin/qemu-system-x86_64", QEMU);
    support::set_mode(folder.path(), "bin/qemu-system-x86_64", 0o755);
    support::write(folder.path(), "ends", "well");
    folder
}

fn image(folder: &Path, more: &[&str]) -> Output {
    let path = std::iter::once(folder.join("bin"));
    let rest = support::path();
    let path = std::env::join_paths(path.chain(std::env::split_paths(&rest))).unwrap();
    Command::new(nodeforge())
        .args(["image", "lab3.toml", "--install", "--iso", ISO, "--accel", "tcg"])
        .args(more)
        .current_dir(folder)
        .env("PATH", path)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[track_caller]
fn made(folder: &Path, more: &[&str]) -> String {
    let output = image(folder, more);
    let said = support::spoken_lines(&output).join("\n");
    assert_eq!(output.status.code(), Some(0), "{said}");
    said
}

/// What a run that fails says, and the names in the folder of images afterwards.
#[track_caller]
fn refused(folder: &Path, more: &[&str]) -> (String, Vec<String>) {
    let output = image(folder, more);
    let said = support::spoken_lines(&output).join("\n");
    assert_eq!(output.status.code(), Some(1), "{said}");
    let images = folder.join("images");
    let names = if images.exists() { support::files_below(&images, |_| true) } else { Vec::new() };
    (said, names)
}

fn list(folder: &Path) -> Vec<Value> {
    let list = fs::read(folder.join("images/images.json")).unwrap();
    let list: Value = serde_json::from_slice(&list).unwrap();
    list["images"].as_array().unwrap().clone()
}

fn goldens(folder: &Path) -> Vec<String> {
    let images = list(folder);
    let goldens = images.iter().filter(|image| image["installed"].is_object());
    goldens.map(|image| image["file"].as_str().unwrap().to_owned()).collect()
}

fn n_runs(folder: &Path) -> usize {
    fs::read_to_string(folder.join("runs")).map_or(0, |text| text.lines().count())
}

#[test]
fn each_set_of_nodes_with_the_same_installed_gets_an_image_once() {
    if lacks() {
        return;
    }
    let lab = workplace();
    let folder = lab.path();
    made(folder, &["--node", "node1"]);
    let first = goldens(folder);
    assert_eq!((first.len(), n_runs(folder)), (1, 1));
    assert!(first[0].starts_with("server-"), "{first:?}");
    let words = fs::read_to_string(folder.join("words")).unwrap();
    for word in [
        "-no-reboot",
        "virtio-net-pci,netdev=outside,mac=02:4e:46:00:00:01,romfile=,bus=pcie.0,addr=0x4",
        "inst.stage2=hd:LABEL=AlmaLinux-8-9-x86_64-dvd quiet inst.ks=file:/ks.cfg inst.cmdline \
         console=tty0 console=ttyS0,115200 no_timer_check",
    ] {
        assert!(words.lines().any(|line| line == word), "{word} in {words}");
    }
    // The other roles have other packages; that of node1 stays.
    let said = made(folder, &[]);
    assert!(said.contains(&format!("{}: kept, of the same ISO and kickstart", first[0])), "{said}");
    let all = goldens(folder);
    assert_eq!((all.len(), n_runs(folder)), (3, 3), "{said}");
    for (node, roles) in [("node0", "admin-server-"), ("node1", "server-"), ("node2", "client-")] {
        let disk = folder.join(format!("images/{node}.qcow2"));
        let info = support::judged("qemu-img", &["info", "--output=json", disk.to_str().unwrap()]);
        let info: Value = serde_json::from_str(&info).unwrap();
        let golden = all.iter().find(|name| name.starts_with(roles)).unwrap();
        assert_eq!(info["backing-filename"], format!("./{golden}"), "{node}");
    }
    made(folder, &[]);
    assert_eq!(n_runs(folder), 3);
    // The list says which images are as they would be made again, and why others are not.
    for image in list(folder) {
        let is_golden = image["installed"].is_object();
        assert_eq!(image["reproducible"], if is_golden { "no" } else { "yes" }, "{image:#}");
        assert_eq!(image["why"].is_string(), is_golden, "{image:#}");
        assert_eq!(image["node"].is_null(), is_golden, "{image:#}");
    }
    let sums = Command::new("sha256sum")
        .args(["--quiet", "-c", "SHA256SUMS"])
        .current_dir(folder.join("images"))
        .output()
        .unwrap();
    assert!(sums.status.success(), "{:?}", support::spoken_lines(&sums));

    // Another list of packages is another image, and disks on the old one keep it.
    let text = fs::read_to_string(folder.join("lab3.toml")).unwrap();
    let more = text.replacen("[os]\n", "[os]\npackages = [\"tmux\"]\n", 1);
    assert_ne!(more, text);
    support::write(folder, "lab3.toml", more);
    made(folder, &["--node", "node1"]);
    assert_eq!((goldens(folder).len(), n_runs(folder)), (4, 4));
    assert!(goldens(folder).contains(&first[0]));
}

#[test]
fn what_an_installation_does_not_end_well_of_is_told_and_nothing_stays_but_the_console() {
    if lacks() {
        return;
    }
    let lab = workplace();
    for (ends, reason) in [
        (
            "reset",
            "the machine was not switched off by the installer at its end, but by guest-reset\n  Linux version",
        ),
        (
            "early",
            "the machine ended before the kickstart was at its end\n  Linux version 4.18\n  Starting installer\n",
        ),
        ("refused", "the installation gave up\n  No group: daos.\n"),
        ("panic", "the installer does not get on: ---[ end Kernel panic - not syncing: VFS ]---\n"),
        ("full", "QEMU cannot write the disk: No space left on device\n"),
        ("broken", "QEMU ended with exit status: 1: qemu: no such machine\n"),
        ("late", "the machine ended before the kickstart"),
    ] {
        support::write(lab.path(), "ends", ends);
        let (said, names) = refused(lab.path(), &["--node", "node2"]);
        assert!(said.contains("error: installing client-"), "{said}");
        assert!(said.contains(&format!(".golden.qcow2: {reason}")), "{ends}: {said}");
        assert!(said.contains("the whole console is in "), "{said}");
        assert_eq!(names.len(), 1, "{ends}: {names:?}");
        assert!(names[0].ends_with(".install.log"), "{names:?}");
    }
}

#[test]
fn an_image_that_was_changed_or_is_unknown_is_nothing_to_stand_on() {
    if lacks() {
        return;
    }
    let lab = workplace();
    let folder = lab.path();
    made(folder, &["--node", "node2"]);
    let path = folder.join("images").join(&goldens(folder)[0]);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let good = fs::read(&path).unwrap();
    fs::write(&path, [good.as_slice(), b"x"].concat()).unwrap();
    let (said, _) = refused(folder, &["--node", "node2"]);
    assert!(said.contains("was changed since it was installed"), "{said}");
    fs::write(&path, good).unwrap();
    made(folder, &["--node", "node2"]);
    fs::remove_file(folder.join("images/images.json")).unwrap();
    let (said, _) = refused(folder, &["--node", "node2"]);
    assert!(said.contains("does not say what it was installed from"), "{said}");
    assert_eq!(n_runs(folder), 1);
    fs::remove_file(path).unwrap();
    made(folder, &["--node", "node2"]);
    assert_eq!(n_runs(folder), 2);
}

#[test]
fn what_cannot_be_installed_is_refused_before_anything_is_started() {
    if lacks() {
        return;
    }
    let lab = workplace();
    let folder = lab.path();
    let iso = |path: &str, name: &str, bytes: &[u8]| {
        let whole = fs::read(folder.join(path)).unwrap();
        fs::write(folder.join(name), [bytes, &whole[bytes.len()..]].concat()).unwrap();
    };
    iso(ISO, "text.iso", &vec![b'x'; 17 * 2048]);
    let tree = support::scratch();
    support::write(tree.path(), "readme", "no installer");
    dvd::run(
        "xorriso",
        &[
            "-as",
            "mkisofs",
            "-quiet",
            "-o",
            folder.join("data.iso").to_str().unwrap(),
            tree.path().to_str().unwrap(),
        ],
    );
    for (name, reason) in [
        ("text.iso", "text.iso is no ISO 9660 image: give the vendor's ISO"),
        (
            "data.iso",
            "data.iso has no isolinux/isolinux.cfg: it is no ISO of AlmaLinux 8's installer",
        ),
        ("none.iso", "opening none.iso: No such file or directory"),
    ] {
        let output = run(folder, &["image", "lab3.toml", "--install", "--iso", name]);
        let said = support::spoken_lines(&output).join("\n");
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(reason), "{said}");
    }

    let text = fs::read_to_string(folder.join("lab3.toml")).unwrap();
    let vm = text.lines().find(|line| line.starts_with("vm = ")).unwrap().to_owned();
    support::write(folder, "lab3.toml", text.replace(&vm, "vm = { disk = \"36GiB\" }"));
    let (said, names) = refused(folder, &[]);
    assert!(said.contains("nothing was made:\n"), "{said}");
    assert!(
        said.contains(
            "node1: a disk of 36864 MiB is too small, 39821 MiB are needed: make hw.vm.disk larger"
        ),
        "{said}"
    );
    assert_eq!(names, [""; 0]);
    support::write(folder, "lab3.toml", text.replace(&vm, ""));
    let (said, _) = refused(folder, &[]);
    assert!(said.contains("error[NF560]"), "{said}");
    support::write(folder, "lab3.toml", text);

    let output = Command::new(nodeforge())
        .args(["image", "lab3.toml", "--install", "--iso", ISO, "--accel", "tcg"])
        .current_dir(folder)
        .env("PATH", folder)
        .output()
        .unwrap();
    let said = support::spoken_lines(&output).join("\n");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("nothing can be installed here:\n  QEMU is not installed: install "),
        "{said}"
    );
    assert!(said.contains("\n  qemu-img is not there: install qemu-utils"), "{said}");
    assert_eq!(n_runs(folder), 0);
    assert!(!folder.join("images").exists());
}

#[test]
fn options_that_do_not_go_together_are_a_wrong_command_line() {
    let folder = support::scratch();
    let usage = |arguments: &str| {
        let words: Vec<&str> = arguments.split_whitespace().collect();
        let output = run(folder.path(), &words);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments}: {said}");
        said.split("\n\n").next().unwrap().replace('\n', "")
    };
    for (arguments, expected) in [
        (
            "image c.toml",
            "error: the following required arguments were not provided:  \
             <--base <IMAGE>|--rootfs <DIR|TAR>|--install>",
        ),
        (
            "image c.toml --rootfs d",
            "error: the following required arguments were not provided:  --kernel <FILE>",
        ),
        (
            "image c.toml --rootfs d --format raw",
            "error: the following required arguments were not provided:  --kernel <FILE>",
        ),
        (
            "image c.toml --rootfs d --format tar --kernel k",
            "error: the argument '--kernel <FILE>' cannot be used with '--format tar'",
        ),
        (
            "image c.toml --install",
            "error: the following required arguments were not provided:  --iso <ISO>",
        ),
        (
            "image c.toml --install --iso i --base b",
            "error: the argument '--install' cannot be used with '--base <IMAGE>'",
        ),
        (
            "image c.toml --install --iso i --rootfs d",
            "error: the argument '--install' cannot be used with '--rootfs <DIR|TAR>'",
        ),
        (
            "image c.toml --base b --iso i",
            "error: the argument '--base <IMAGE>' cannot be used with '--iso <ISO>'",
        ),
        (
            "image c.toml --rootfs d --kernel k --recreate-data",
            "error: the argument '--rootfs <DIR|TAR>' cannot be used with '--recreate-data'",
        ),
    ] {
        assert_eq!(usage(arguments), expected, "{arguments}");
    }
    // With all that it needs, the command line is right, and there is no cluster file.
    for arguments in
        ["--rootfs d --format tar", "--rootfs d --kernel k", "--base b --recreate-data"]
    {
        let words: Vec<&str> =
            ["image", "c.toml"].into_iter().chain(arguments.split_whitespace()).collect();
        assert_eq!(run(folder.path(), &words).status.code(), Some(1), "{arguments}");
    }
}
