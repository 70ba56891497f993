//! Images of virtual machines before QEMU's and libvirt's own judges, and the processes of a lab:
//! what starts, what is left, what a killed run leaves behind.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nodeforge::format::digest::Digest;
use nodeforge::format::qcow2::{Backing, DiskFormat, overlay};
use nodeforge::units::ByteSize;
use serde_json::Value;

use crate::examples::{copy_with_secrets, nodeforge, printed, run};
use crate::support::{self, judged};

/// A lab of a test: whatever becomes of the test, nothing of it goes on running.
pub struct Lab(PathBuf);

impl Lab {
    /// The lab in `folder`, which need not exist yet.
    pub fn of(folder: &Path) -> Self {
        Self(folder.to_owned())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // It fails where the test did not come as far as a lab.
        let _ = Command::new(nodeforge())
            .args(["lab", "down", "--timeout", "1s", "-d"])
            .arg(&self.0)
            .output();
    }
}

/// The command lines of all processes that run in `folder`.
pub fn processes_in(folder: &Path) -> Vec<String> {
    let folder = fs::canonicalize(folder).unwrap();
    let of = |pid: &Path| -> Option<String> {
        (fs::read_link(pid.join("cwd")).ok()? == folder).then_some(())?;
        let words = fs::read(pid.join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&words).replace('\0', " ").trim_end().to_owned())
    };
    let entries = fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| of(&entry.unwrap().path())).collect()
}

/// What a run that fails says last.
#[track_caller]
fn refusal(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap().lines().last().unwrap().to_owned()
}

/// A copy of examples/lab3.toml with secrets, and a base image of 1 GiB with something on it.
fn workplace() -> tempfile::TempDir {
    let folder = support::scratch();
    copy_with_secrets(folder.path(), "lab3.toml");
    let mut disk = vec![0; 1 << 20];
    disk[510..512].copy_from_slice(b"\x55\xaa");
    fs::write(folder.path().join("base.raw"), disk).unwrap();
    folder
}

const QEMU: [&str; 2] = ["qemu-img", "qemu-system-x86_64"];

#[test]
fn qemu_takes_a_thin_image_for_the_disk_that_its_base_is() {
    if support::lacks(&QEMU) {
        return;
    }
    let folder = support::scratch();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let mut disk: Vec<u8> = (0..3_u32 << 20).flat_map(|at| (at / 1000).to_le_bytes()).collect();
    disk.truncate(5 << 20);
    fs::write(path("base.raw"), &disk).unwrap();
    judged("qemu-img", &["convert", "-O", "qcow2", &path("base.raw"), &path("base.qcow2")]);
    for (name, format, size) in [
        ("./base.raw", DiskFormat::Raw, 5 << 20),
        ("base.qcow2", DiskFormat::Qcow2, 5 << 20),
        ("base.qcow2", DiskFormat::Qcow2, 40 << 30),
        ("base.qcow2", DiskFormat::Qcow2, 9 << 40),
    ] {
        let size = ByteSize::from_bytes(size);
        let image = overlay(size, Backing { name, format }).unwrap();
        fs::write(path("thin.qcow2"), &image).unwrap();
        assert!(judged("qemu-img", &["check", &path("thin.qcow2")]).starts_with("No errors"));
        let info = judged("qemu-img", &["info", "--output=json", &path("thin.qcow2")]);
        let info: Value = serde_json::from_str(&info).unwrap();
        assert_eq!(info["virtual-size"], size.bytes());
        assert_eq!(info["backing-filename"], name);
        assert_eq!(info["backing-filename-format"], format.as_str());
        // Longer than its base, the rest is zeros.
        judged("qemu-img", &["compare", &path("thin.qcow2"), &path("base.raw")]);
        // What is written goes to the image, and the base stays.
        let write = ["-c", "write -P 7 65536 200000", &path("thin.qcow2")];
        judged("qemu-io", &write);
        judged("qemu-img", &["check", &path("thin.qcow2")]);
        assert_eq!(fs::read(path("base.raw")).unwrap(), disk);
        judged(
            "qemu-img",
            &["rebase", "-u", "-b", &path("base.raw"), "-F", "raw", &path("thin.qcow2")],
        );
        judged("qemu-img", &["check", &path("thin.qcow2")]);
    }
}

#[test]
fn images_pass_the_judges_and_are_the_same_from_run_to_run() {
    if support::lacks(&QEMU) || support::lacks(&["virt-xml-validate", "shellcheck", "mdir"]) {
        return;
    }
    let lab = workplace();
    let make =
        |out: &str| run(lab.path(), &["image", "lab3.toml", "--base", "base.raw", "-o", out]);
    let output = make("first");
    assert!(output.status.success(), "{:?}", support::spoken_lines(&output));
    make("second");
    let names = support::files_below(&lab.path().join("first"), |_| true);
    let kinds = ["-seed.img", ".qcow2", ".sh", ".xml"];
    let mut expected: Vec<String> =
        ["SHA256SUMS", "images.json", "lab3-mgmt.network.xml"].map(str::to_owned).into();
    for node in ["node0", "node1", "node2"] {
        expected.extend(kinds.map(|kind| format!("{node}{kind}")));
    }
    assert_eq!(names, expected);
    for name in &names {
        let path = lab.path().join("first").join(name);
        let shown = path.to_str().unwrap();
        let [first, second] = ["first", "second"].map(|out| lab.path().join(out).join(name));
        let [first, second] = [first, second].map(|path| fs::read(path).unwrap());
        match name.rsplit('.').next().unwrap() {
            "SHA256SUMS" => {
                let checked = support::command("sha256sum")
                    .args(["-c", name])
                    .current_dir(path.parent().unwrap())
                    .output()
                    .unwrap();
                assert_eq!(support::spoken_lines(&checked).len(), 6, "a disk and a seed each");
                assert!(checked.status.success(), "{:?}", support::spoken_lines(&checked));
            }
            "json" => {}
            // libvirt wants the folder in its XML.
            "xml" => {
                assert!(judged("virt-xml-validate", &[shown]).ends_with("validates"));
                continue;
            }
            "sh" => drop(judged("shellcheck", &[shown])),
            "qcow2" => drop(judged("qemu-img", &["check", shown])),
            _ => {
                // The secrets of the node are on it.
                assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
                let listing = judged("mdir", &["-b", "-i", shown, "::"]);
                assert!(listing.contains("::/user-data"), "{listing}");
            }
        }
        assert_eq!(first, second, "{name}");
    }
}

#[test]
fn data_disks_stay_as_they_are_unless_the_user_says_so() {
    let lab = workplace();
    let file = lab.path().join("lab3.toml");
    let text = fs::read_to_string(&file).unwrap();
    let with_disk = "class = \"kdev\"\nlist = [\"/dev/vdb\"]";
    let text =
        text.replace("class = \"file\"\nlist = [\"/var/daos/bdev0\"]\nsize = \"16GiB\"", with_disk);
    assert!(text.contains(with_disk));
    fs::write(&file, text).unwrap();
    let image = ["image", "lab3.toml", "--base", "base.raw", "--node", "node0"];
    printed(lab.path(), &image);
    let disk = lab.path().join("images/node0-data0.raw");
    assert_eq!(disk.metadata().unwrap().len(), 16 << 30);
    fs::write(&disk, "data").unwrap();
    fs::write(lab.path().join("images/node0.qcow2"), "system").unwrap();

    let output = run(lab.path(), &image);
    let said = support::spoken_lines(&output).join("\n");
    assert!(said.contains("kept as they were: node0-data0.raw"), "{said}");
    let smaller = "images/node0-data0.raw has 4 bytes and not the 16 GiB of the cluster file";
    assert!(said.contains(smaller), "{said}");
    assert_eq!(fs::read(&disk).unwrap(), b"data");
    assert_ne!(fs::read(lab.path().join("images/node0.qcow2")).unwrap(), b"system");

    printed(lab.path(), &[&image[..], &["--recreate-data"]].concat());
    assert_eq!(disk.metadata().unwrap().len(), 16 << 30);
    // %pre knows data disks of a lab by their serial numbers.
    let script = fs::read_to_string(lab.path().join("images/node0.sh")).unwrap();
    assert!(script.contains("drive=data0,serial=nfdata-0"), "{script}");
}

#[test]
fn a_base_that_is_not_what_it_claims_is_refused_and_nothing_is_written() {
    if support::lacks(&QEMU) {
        return;
    }
    let lab = workplace();
    let path = |name: &str| lab.path().join(name);
    let qemu_img = |arguments: &[&str]| {
        let output = support::command("qemu-img").args(arguments).current_dir(lab.path()).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{:?}", support::spoken_lines(&output));
    };
    qemu_img(&["create", "-q", "-f", "qcow2", "lost.qcow2", "1M"]);
    qemu_img(&["create", "-q", "-f", "qcow2", "-b", "lost.qcow2", "-F", "qcow2", "chain.qcow2"]);
    fs::remove_file(path("lost.qcow2")).unwrap();
    let secret = "secret,id=key,data=x";
    // Not LUKS: qemu-img measures processors for that, and fails on quick ones.
    let options = "encrypt.format=aes,encrypt.key-secret=key";
    qemu_img(&[
        "create",
        "-q",
        "--object",
        secret,
        "-f",
        "qcow2",
        "-o",
        options,
        "encrypted.qcow2",
        "1M",
    ]);
    qemu_img(&["create", "-q", "-f", "qcow2", "-o", "data_file=data.raw", "outside.qcow2", "1M"]);
    qemu_img(&["create", "-q", "-f", "vmdk", "base.vmdk", "1M"]);
    fs::write(path("page.qcow2"), "<html>404</html>").unwrap();
    fs::write(path("zeros.raw"), vec![0; 4096]).unwrap();
    let mut cut = fs::read(path("base.raw")).unwrap();
    cut.truncate(1000);
    fs::write(path("cut.raw"), cut).unwrap();
    let mut disk: Vec<u8> = (0..1_u32 << 19).flat_map(|at| (at / 9).to_le_bytes()).collect();
    disk[510..512].copy_from_slice(b"\x55\xaa");
    fs::write(path("whole.raw"), &disk).unwrap();
    disk[16 * 2048 + 1..][..5].copy_from_slice(b"CD001");
    fs::write(path("boot.iso"), &disk).unwrap();
    let convert = ["convert", "-O", "qcow2", "whole.raw"];
    let kinds: [(&str, &[&str]); 4] = [
        ("plain.qcow2", &[]),
        ("compressed.qcow2", &["-c"]),
        ("old.qcow2", &["-o", "compat=0.10"]),
        ("extended.qcow2", &["-o", "extended_l2=on,cluster_size=2M"]),
    ];
    for (name, options) in kinds {
        qemu_img(&[&convert[..], options, &[name]].concat());
        let whole = fs::read(path(name)).unwrap();
        for n_bytes in [whole.len() / 30, whole.len() / 3, whole.len() * 2 / 3] {
            fs::write(path("short.qcow2"), &whole[..n_bytes]).unwrap();
            let said = refusal(lab.path(), &["image", "lab3.toml", "--base", "short.qcow2"]);
            assert!(said.contains("cut short") || said.contains("cut off"), "{name}: {said}");
        }
    }
    for (base, reason) in [
        ("no-such.qcow2", "opening the base image no-such.qcow2: No such file"),
        ("chain.qcow2", "stands on `lost.qcow2`, which is not there"),
        ("encrypted.qcow2", "it is encrypted"),
        ("outside.qcow2", "its data are in another file"),
        ("base.vmdk", "is a VMDK image: qemu-img convert"),
        ("page.qcow2", "is a web page"),
        ("zeros.raw", "is neither qcow2 nor a raw disk"),
        ("cut.raw", "has 1000 bytes, no whole number of sectors"),
        ("boot.iso", "is an ISO: `image --install --iso` installs from"),
    ] {
        let said = refusal(lab.path(), &["image", "lab3.toml", "--base", base]);
        assert!(said.contains(reason), "{base}: {said}");
    }
    let digest = Digest::of(&fs::read(path("base.raw")).unwrap()).to_string();
    let image = ["image", "lab3.toml", "--base", "base.raw", "--base-sha256"];
    let other = Digest::of(b"other").to_string();
    let said = refusal(lab.path(), &[&image[..], &[&other]].concat());
    assert!(said.contains("is not the one that --base-sha256 names"), "{said}");
    assert!(!path("images").exists());
    printed(lab.path(), &[&image[..], &[&digest]].concat());
    for (name, _) in kinds {
        printed(lab.path(), &["image", "lab3.toml", "--base", name, "-o", "of-whole"]);
    }
    let other_kind = ["image", "lab3.toml", "--base", "base.raw", "--format", "raw"];
    let output = run(lab.path(), &other_kind);
    assert_eq!(output.status.code(), Some(2), "{:?}", support::spoken_lines(&output));
    let output = Command::new(nodeforge())
        .args(["image", "lab3.toml", "--base", "base.raw", "-o"])
        .arg(OsStr::from_bytes(b"\xff"))
        .current_dir(lab.path())
        .output()
        .unwrap();
    let said = support::spoken_lines(&output).join("\n");
    assert!(output.status.code() == Some(1) && said.contains("is not UTF-8 text"), "{said}");
}

#[test]
fn hardware_that_is_no_virtual_machine_or_cannot_be_one_is_told_with_its_place() {
    let lab = workplace();
    let file = lab.path().join("lab3.toml");
    let good = fs::read_to_string(&file).unwrap();
    let vm = "vm = { disk = \"40GiB\", iommu = false }";
    let nic = "name = \"enp0s8\", net";
    for (from, to, code) in [
        (vm, "", "error[NF560]: hw `vm` is no virtual machine"),
        (
            nic,
            "name = \"lan0\", pci = \"0000:00:1f.0\", net",
            "error[NF561]: 0000:00:1f.0 cannot be",
        ),
        (
            nic,
            "name = \"lan0\", pci = \"10000:01:00.0\", net",
            "error[NF561]: 10000:01:00.0 cannot be",
        ),
        (
            nic,
            "name = \"lan0\", pci = \"0000:03:02.0\", net",
            "error[NF561]: 0000:03:02.0 cannot be",
        ),
        (
            nic,
            "name = \"lan0\", pci = \"0000:03:00.1\", net",
            "error[NF561]: bus 03 has no device 00.0",
        ),
    ] {
        assert!(good.contains(from), "{from}");
        fs::write(&file, good.replace(from, to)).unwrap();
        let output = run(lab.path(), &["image", "lab3.toml", "--base", "base.raw"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert_eq!(said.matches("error[").count(), 1, "once for all nodes: {said}");
        assert!(said.contains(code), "{code}: {said}");
        assert!(said.ends_with("nothing was made\n"), "{said}");
        assert!(!lab.path().join("images").exists());
    }
}

/// `lab up` of machines whose disk boots nothing: they start, and that is all.
const UP: [&str; 9] =
    ["lab", "up", "lab3.toml", "--base", "base.raw", "--accel", "tcg", "--isolated", "--no-wait"];

fn pids(folder: &Path) -> Vec<Option<u64>> {
    let status = printed(folder, &["lab", "status", "--json"]);
    let status: Value = serde_json::from_str(&status).unwrap();
    status.as_array().unwrap().iter().map(|node| node["pid"].as_u64()).collect()
}

fn sockets_in(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).unwrap();
    entries.filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_socket()).count()
}

fn kill(pid: u64) {
    judged("kill", &["-9", &pid.to_string()]);
}

#[test]
fn a_lab_goes_up_once_and_down_without_leaving_anything() {
    if support::lacks(&QEMU) {
        return;
    }
    let folder = workplace();
    let lab = Lab::of(&folder.path().join("lab"));
    assert!(refusal(folder.path(), &["lab", "down"]).contains("there is no lab in lab"));
    let output = run(folder.path(), &UP);
    assert!(output.status.success(), "{:?}", support::spoken_lines(&output));
    let before = pids(folder.path());
    assert!(before.iter().all(Option::is_some), "{before:?}");
    assert_eq!(processes_in(&lab.0).len(), 4, "three guests and a switch");
    assert_eq!(sockets_in(&lab.0), 7, "two a guest and one of the switch");
    let said = refusal(folder.path(), &["image", "lab3.toml", "--base", "base.raw", "-o", "lab"]);
    assert!(said.contains("runs: `nodeforge lab down"), "{said}");

    // Again: what runs stays, what was killed comes back.
    kill(before[1].unwrap());
    let output = run(folder.path(), &UP);
    let said = support::spoken_lines(&output).join("\n");
    assert!(output.status.success(), "{said}");
    for line in ["node0: runs already", "node1: started", "node2: runs already"] {
        assert!(said.contains(line), "{said}");
    }
    let after = pids(folder.path());
    assert_eq!((after[0], after[2]), (before[0], before[2]));
    assert_ne!(after[1], before[1]);

    let output = run(folder.path(), &["lab", "down", "--timeout", "1s"]);
    assert!(output.status.success(), "{:?}", support::spoken_lines(&output));
    assert_eq!(processes_in(&lab.0), [""; 0]);
    assert_eq!(pids(folder.path()), [None; 3]);
    assert_eq!(sockets_in(&lab.0), 0);
    let output = run(folder.path(), &["lab", "down"]);
    assert!(support::spoken_lines(&output).join("\n").contains("nothing was running"));
}

#[test]
fn what_a_killed_run_leaves_behind_the_next_one_cleans() {
    if support::lacks(&QEMU) {
        return;
    }
    let folder = workplace();
    let lab = Lab::of(&folder.path().join("lab"));
    let up = |arguments: &[&str]| {
        let mut command = Command::new(nodeforge());
        command.args(arguments).current_dir(folder.path()).env("PATH", support::path());
        command.stderr(Stdio::null()).spawn().unwrap()
    };
    // Killed as soon as its first process is there.
    let mut killed = up(&UP);
    while !lab.0.exists() || processes_in(&lab.0).is_empty() {
        assert!(killed.try_wait().unwrap().is_none(), "it ended before it started anything");
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(up(&UP).wait().unwrap().success());
    assert!(pids(folder.path()).iter().all(Option::is_some));

    // Guests without their switch cannot be plugged in again: they are started anew.
    let guests = pids(folder.path());
    let switch = fs::read_dir("/proc").unwrap().find_map(|entry| {
        let pid: u64 = entry.unwrap().file_name().to_str()?.parse().ok()?;
        let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        let is_here =
            fs::read_link(format!("/proc/{pid}/cwd")).ok()? == fs::canonicalize(&lab.0).ok()?;
        (is_here && words.contains("\0switch\0")).then_some(pid)
    });
    kill(switch.expect("the lab has a switch"));
    assert!(up(&UP).wait().unwrap().success());
    let again = pids(folder.path());
    assert!(again.iter().zip(&guests).all(|(new, old)| new.is_some() && new != old), "{again:?}");
    assert_eq!(processes_in(&lab.0).len(), 4);
}
