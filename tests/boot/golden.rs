//! Golden images: installed by the test installer in a virtual machine that the program runs, and
//! what is left when an installation does not come to its end.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::examples::nodeforge;
use crate::lab::processes_in;
use crate::media::dvd;
use crate::oracles::archives::stand_in_cpio;
use crate::support::{self, judged};

use super::bench::{BOOT_TIMEOUT, COMMAND_TIMEOUT};
use super::guest::{Guest, Turn};
use super::initrd;
use super::install::{self, Firmware, NODE, workplace};

#[track_caller]
fn lacks() -> bool {
    install::lacks() || support::lacks(&dvd::NEEDS)
}

/// A folder with install.toml, whose box is a virtual machine, and the installer's ISO. With
/// `init`, that is what it starts.
#[track_caller]
fn workplace_with_iso(test: &str, init: Option<&str>) -> PathBuf {
    let folder = workplace(test, Firmware::Bios);
    let text = std::fs::read_to_string(folder.join("install.toml")).unwrap();
    let vm = "[hw.box]\nvm = { disk = \"24GiB\", ssd = \"256MiB\", iommu = true }\n";
    let text = text.replacen("[hw.box]\n", vm, 1);
    support::write(&folder, "install.toml", text);
    let initrd = match init {
        None => folder.join("initrd"),
        Some(init) => {
            let initrd = folder.join("other-initrd");
            stand_in_cpio(initrd::tree_with(init).path(), &initrd);
            initrd
        }
    };
    dvd::make(&folder, &initrd, Some(&support::install_img()));
    folder
}

const ISO: &str = "AlmaLinux-8.9-x86_64-dvd.iso";

/// `nodeforge image --install` of one node, by QEMU's emulation.
fn image(folder: &Path, timeout: &str) -> Command {
    let mut command = Command::new(nodeforge());
    command
        .args(["image", "install.toml", "--install", "--iso", ISO, "--node", NODE.0])
        .args(["--accel", "tcg", "--timeout", timeout])
        .env("PATH", support::path())
        .stdin(Stdio::null())
        .current_dir(folder);
    command
}

#[track_caller]
fn made(folder: &Path) -> String {
    let output = image(folder, "25min").output().unwrap();
    let said = support::spoken_lines(&output).join("\n");
    assert!(output.status.success(), "{said}");
    said
}

/// The one golden image of the list.
#[track_caller]
fn golden(folder: &Path) -> Value {
    let list = std::fs::read(folder.join("images/images.json")).unwrap();
    let list: Value = serde_json::from_slice(&list).unwrap();
    let images = list["images"].as_array().unwrap();
    let mut golden = images.iter().filter(|image| image["node"].is_null());
    let found = golden.next().unwrap_or_else(|| panic!("{list:#}")).clone();
    assert!(golden.next().is_none(), "{list:#}");
    found
}

/// Starts the node's disk as it is, and looks at what was installed.
#[track_caller]
fn is_installed_as_planned(folder: &Path) {
    let turn = Turn::wait_for_one();
    let disk = folder.join(format!("images/{}.qcow2", NODE.0));
    let mut qemu = support::command("qemu-system-x86_64");
    qemu.args(["-machine", "q35,graphics=off", "-accel", "tcg,thread=single", "-smp", "1"])
        .args(["-m", "1G", "-nic", "none", "-drive"])
        .arg(format!("if=none,id=system,format=qcow2,cache=unsafe,file={}", disk.display()))
        .args(["-device", "nvme,serial=system,drive=system,bootindex=1"]);
    let mut guest = Guest::start_firmware_with_shell(&turn, "golden-node0", qemu);
    guest.wait_for_shell(BOOT_TIMEOUT);
    let mut run = |command: &str| guest.run(command, COMMAND_TIMEOUT);
    let line = run("cat /proc/cmdline");
    for word in ["BOOT_IMAGE=", " root=UUID=", " intel_iommu=on", " console=ttyS0,115200"] {
        assert!(line.contains(word), "{word} in {line}");
    }
    let packages = run("cat /var/lib/nodeforge/packages");
    assert_eq!(
        run("grep -v -e ^- -e ^@ /var/lib/nodeforge/packages | sort"),
        run("sort /usr/share/nodeforge-test/packages")
    );
    for package in ["daos-server", "daos-admin", "cloud-init", "@^minimal-environment"] {
        assert!(packages.lines().any(|line| line == package), "{package} in {packages}");
    }
    assert_eq!(run("test -x /usr/bin/daos_server && echo there"), "there");
    let source = run("cat /etc/cloud/cloud.cfg.d/90-nodeforge.cfg");
    assert!(source.ends_with("datasource_list: [NoCloud, None]"), "{source}");
    assert_eq!(run("systemctl is-enabled cloud-init cloud-final | sort -u"), "enabled");
    // Nothing is a node's, or another machine's.
    assert_eq!(run("cat /etc/hostname"), "localhost.localdomain");
    assert_eq!(run("getent shadow root | cut -d : -f 2 | cut -c 1"), "!");
    assert_eq!(run("ls /etc/ssh"), "");
    assert_eq!(run("ls /etc/sysconfig/network-scripts"), "");
    assert_eq!(run("test -e /etc/nodeforge || echo none"), "none");
    // Boot entries are called by the machine-id that the installer made up.
    let entries = run("ls /boot/loader/entries");
    let id = run("cat /etc/machine-id");
    assert!(id.len() == 32 && !entries.contains(&id), "{id}, {entries}");
    let labels = "lsblk -n -r -o LABEL,MOUNTPOINT | grep -E '^(NF|DAOS)' | sort";
    assert_eq!(
        run(labels).lines().collect::<Vec<_>>(),
        ["DAOSMETA /var/lib/daos", "NFLOG /var/log", "NFROOT /"]
    );
    guest.quit();
}

#[test]
fn a_golden_image_is_installed_once_and_carries_a_nodes_disk() {
    if lacks() {
        return;
    }
    let folder = workplace_with_iso("golden", None);
    let turn = Turn::wait_for_one();
    let said = made(&folder);
    drop(turn);
    assert!(said.contains(".golden.qcow2: installed ("), "{said}");
    let listed = golden(&folder);
    assert_eq!(listed["reproducible"], "no");
    assert_eq!(listed["why"], "an installer made it");
    assert_eq!(listed["installed"]["machine"], "bios, nvme, 24 GiB");
    let iso = std::fs::read(folder.join(ISO)).unwrap();
    assert_eq!(listed["installed"]["iso"], support::listing::sha256(&iso));
    let path = folder.join("images").join(listed["file"].as_str().unwrap());
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o444);
    judged("qemu-img", &["check", path.to_str().unwrap()]);
    let disk = folder.join("images/node0.qcow2");
    let info = judged("qemu-img", &["info", "--output=json", disk.to_str().unwrap()]);
    let info: Value = serde_json::from_str(&info).unwrap();
    assert_eq!(info["backing-filename"], format!("./{}", listed["file"].as_str().unwrap()));
    assert!(folder.join("images/node0-seed.img").exists());

    let said = made(&folder);
    assert!(said.contains("kept, of the same ISO and kickstart"), "{said}");
    assert_eq!(golden(&folder), listed);
    is_installed_as_planned(&folder);
}

/// Between two looks at what a guest has done; it needs the processors itself.
const LOOK: Duration = Duration::from_millis(20);

/// Waits until the console of an installation says something.
#[track_caller]
fn wait_for_a_word(folder: &Path) {
    let deadline = Instant::now() + BOOT_TIMEOUT;
    let console = || -> Option<u64> {
        let mut entries = std::fs::read_dir(folder.join("images")).ok()?.flatten();
        let log = entries.find(|it| it.file_name().to_string_lossy().ends_with(".install.log"))?;
        Some(log.metadata().ok()?.len())
    };
    while console().is_none_or(|length| length == 0) {
        assert!(Instant::now() < deadline, "nothing was said");
        std::thread::sleep(LOOK);
    }
}

/// Names in the folder of images, but for the console.
fn left(folder: &Path) -> Vec<String> {
    let mut names = support::files_below(&folder.join("images"), |_| true);
    names.retain(|name| !name.ends_with(".install.log"));
    names
}

/// Ends nodeforge by a signal once the guest says something, and waits until QEMU is gone.
#[track_caller]
fn ended_by(folder: &Path, signal: &str) -> std::process::Output {
    for name in support::files_below(folder, |path| path.ends_with(".install.log")) {
        std::fs::remove_file(folder.join(name)).unwrap();
    }
    let run = image(folder, "25min").stderr(Stdio::piped()).spawn().unwrap();
    wait_for_a_word(folder);
    judged("kill", &[signal, &run.id().to_string()]);
    let output = run.wait_with_output().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !processes_in(folder).is_empty() {
        assert!(Instant::now() < deadline, "{:?}", processes_in(folder));
        std::thread::sleep(LOOK);
    }
    output
}

/// An installer that says that it has started, and nothing from then on.
const NEVER_DONE: &str = "#!/bin/busybox sh
/bin/busybox echo installing
exec /bin/busybox sleep 100000
";

#[test]
fn an_installation_that_does_not_end_leaves_its_console_and_nothing_else() {
    if lacks() {
        return;
    }
    let folder = workplace_with_iso("golden-ended", Some(NEVER_DONE));
    let _turn = Turn::wait_for_one();

    let output = ended_by(&folder, "-KILL");
    assert_eq!(output.status.code(), None);
    // The next run removes what there is in its place for such things.
    let left_there = left(&folder);
    assert!(left_there.iter().all(|name| name.starts_with(".assembly/")), "{left_there:?}");

    let output = ended_by(&folder, "-INT");
    let said = support::spoken_lines(&output).join("\n");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("error: installing admin-server-"), "{said}");
    assert!(said.contains(".golden.qcow2: interrupted\n  "), "{said}");
    assert!(said.contains("the whole console is in "), "{said}");
    assert_eq!(left(&folder), [""; 0]);

    let output = image(&folder, "1s").output().unwrap();
    let said = support::spoken_lines(&output).join("\n");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("not done within 0:01 min; --timeout gives it more"), "{said}");
    assert_eq!(left(&folder), [""; 0]);
    assert_eq!(processes_in(&folder), [""; 0]);
}
