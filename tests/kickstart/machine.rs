//! A made-up machine in a folder: what `/sys`, `/proc`, udev and blkid say of its disks, and
//! the tools that an EL8 installer image has, some of them replaced by `shims/`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::support;

pub const GIB: u64 = 1 << 30;

/// What lorax 28.14 leaves of coreutils, util-linux and the rest in the installer image
/// (`share/templates.d/99-generic/runtime-cleanup.tmpl`), as far as a script may want it.
/// Gone are base64, cmp, comm, diff, expand, factor, fold, install, join, mkfifo, nl, nohup,
/// nproc, pgrep, printenv, runuser, setsid, sha512sum, shuf, stat, stdbuf, test, timeout,
/// truncate, unlink, who and yes.
const INSTALLER_TOOLS: [&str; 44] = [
    "awk",
    "basename",
    "bash",
    "cat",
    "chgrp",
    "chmod",
    "chown",
    "chroot",
    "cp",
    "curl",
    "cut",
    "date",
    "dd",
    "df",
    "dirname",
    "du",
    "env",
    "find",
    "flock",
    "grep",
    "gzip",
    "head",
    "hexdump",
    "ln",
    "ls",
    "mkdir",
    "mktemp",
    "mv",
    "od",
    "readlink",
    "realpath",
    "rm",
    "rmdir",
    "sed",
    "seq",
    "sha256sum",
    "sort",
    "sync",
    "tail",
    "tar",
    "tee",
    "touch",
    "tr",
    "uniq",
];

/// Programs of the machine that only record how they were called.
const RECORDED: [&str; 10] = [
    "chpasswd",
    "dracut",
    "efibootmgr",
    "journalctl",
    "kexec",
    "lsblk",
    "restorecon",
    "rpm",
    "systemctl",
    "systemd-tmpfiles",
];

pub struct Machine {
    folder: TempDir,
}

impl Machine {
    /// A machine without disks, with a screen and a serial console.
    pub fn new(kernel_line: &str) -> Self {
        let machine = Self { folder: tempfile::tempdir().unwrap() };
        for folder in ["sys/block", "dev/disk/by-label", "answers/udev", "answers/blkid", "tmp"] {
            fs::create_dir_all(machine.path(folder)).unwrap();
        }
        machine.write("proc/cmdline", format!("BOOT_IMAGE=vmlinuz inst.text {kernel_line}\n"));
        machine.write(
            "proc/mounts",
            "rootfs / rootfs rw 0 0\n/dev/loop0 /run/rootfsbase squashfs ro 0 0\n",
        );
        machine.write("sys/class/tty/console/active", "tty0 ttyS0\n");
        for console in ["tty1", "ttyS0", "console"] {
            machine.write(&format!("dev/{console}"), "");
        }
        machine.add_tools();
        machine
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(path)
    }

    pub fn write(&self, path: &str, contents: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    pub fn append(&self, path: &str, more: &str) {
        let text = self.read(path) + more;
        self.write(path, text);
    }

    /// A file's text; nothing if it is not there.
    pub fn read(&self, path: &str) -> String {
        match fs::read(self.path(path)) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).replace('\r', ""),
            Err(_) => String::new(),
        }
    }

    pub fn link(&self, path: &str, target: impl AsRef<Path>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    /// The files below a folder with their modes and contents, links with their targets.
    pub fn listing(&self, folder: &str) -> BTreeMap<String, String> {
        let root = self.path(folder);
        let mut listing = BTreeMap::new();
        for entry in walkdir::WalkDir::new(&root).min_depth(1) {
            let entry = entry.unwrap();
            let name = entry.path().strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o7777;
            let what = if entry.file_type().is_symlink() {
                format!("-> {}", fs::read_link(entry.path()).unwrap().display())
            } else if entry.file_type().is_dir() {
                format!("{mode:04o}/")
            } else {
                let bytes = fs::read(entry.path()).unwrap();
                format!("{mode:04o} {}", String::from_utf8_lossy(&bytes))
            };
            listing.insert(name, what);
        }
        listing
    }

    /// Runs a script with bash and nothing but the tools of the machine.
    pub fn run(&self, script: &str) -> Output {
        self.write("script", script);
        Command::new("/bin/bash")
            .arg(self.path("script"))
            .env_clear()
            .env("PATH", self.path("bin"))
            .env("NF_SYSROOT", self.folder.path().canonicalize().unwrap())
            .env("NF_RUN", self.path("run/nodeforge"))
            .env("NF_TARGET", self.path("target"))
            .env("NF_PAUSE", "0")
            .env("NF_RETRIES", "1")
            .env("NF_PYTHON", support::python())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn add_tools(&self) {
        fs::create_dir(self.path("bin")).unwrap();
        for tool in INSTALLER_TOOLS {
            symlink(support::program(tool), self.path("bin").join(tool)).unwrap();
        }
        let shims = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kickstart/shims");
        for shim in ["blkid", "grubby", "mount", "sleep", "udevadm", "umount"] {
            symlink(shims.join(shim), self.path("bin").join(shim)).unwrap();
        }
        for name in RECORDED {
            symlink(shims.join("recorder"), self.path("bin").join(name)).unwrap();
        }
    }

    pub fn add(&self, disk: &Disk) {
        let place = format!("sys/devices/{}/block/{}", disk.place, disk.name);
        self.write(&format!("{place}/size"), format!("{}\n", disk.bytes / 512));
        self.write(&format!("{place}/removable"), format!("{}\n", u8::from(disk.removable)));
        self.write(&format!("{place}/ro"), format!("{}\n", u8::from(disk.read_only)));
        self.link(
            &format!("sys/block/{}", disk.name),
            format!("../devices/{}/block/{}", disk.place, disk.name),
        );
        for holder in &disk.holders {
            fs::create_dir_all(self.path(&format!("{place}/holders/{holder}"))).unwrap();
        }
        self.write(&format!("answers/udev/{}", disk.name), &disk.udev);
        for link in &disk.links {
            self.link(&format!("dev/disk/{link}"), format!("../../{}", disk.name));
        }
        self.add_contents(&disk.name, &disk.whole);
        for (number, part) in (1..).zip(&disk.parts) {
            let name = disk.part_name(number);
            self.write(&format!("{place}/{name}/partition"), format!("{number}\n"));
            self.add_contents(&name, part);
        }
    }

    fn add_contents(&self, device: &str, contents: &Contents) {
        let first_bytes =
            if contents.is_daos_blob { &b"SPDKBLOB\x03\0\0\0"[..] } else { &[0; 4096] };
        self.write(&format!("dev/{device}"), first_bytes);
        if !contents.blkid.is_empty() {
            self.write(&format!("answers/blkid/{device}"), &contents.blkid);
        }
        if contents.blkid.contains("LABEL=OEMDRV") {
            self.link("dev/disk/by-label/OEMDRV", format!("../../{device}"));
        }
        for (path, text) in &contents.files {
            self.write(&format!("fs/{device}/{path}"), text);
        }
        if contents.is_mountable {
            fs::create_dir_all(self.path(&format!("fs/{device}"))).unwrap();
        }
    }
}

/// What is on a disk or partition.
#[derive(Clone, Default)]
pub struct Contents {
    /// What `blkid -p -o export` prints, or `ambivalent`, or `ioerror`; nothing if empty.
    blkid: String,
    is_daos_blob: bool,
    is_mountable: bool,
    files: Vec<(String, String)>,
}

impl Contents {
    pub fn empty() -> Self {
        Self::default()
    }

    pub fn of_type(fstype: &str) -> Self {
        Self { blkid: format!("TYPE={fstype}\n"), is_mountable: true, ..Self::default() }
    }

    pub fn labelled(fstype: &str, label: &str) -> Self {
        Self {
            blkid: format!("LABEL={label}\nTYPE={fstype}\n"),
            is_mountable: true,
            ..Self::default()
        }
    }

    pub fn daos_blob() -> Self {
        Self { is_daos_blob: true, ..Self::default() }
    }

    pub fn blkid_fails(how: &str) -> Self {
        Self { blkid: how.into(), ..Self::default() }
    }

    pub fn unmountable(mut self) -> Self {
        self.is_mountable = false;
        self.files.clear();
        self
    }

    pub fn file(mut self, path: &str, text: &str) -> Self {
        self.files.push((path.into(), text.into()));
        self
    }

    pub fn tag(mut self, key: &str, value: &str) -> Self {
        self.blkid += &format!("{key}={value}\n");
        self
    }
}

#[derive(Clone)]
pub struct Disk {
    name: String,
    bytes: u64,
    place: String,
    removable: bool,
    read_only: bool,
    udev: String,
    links: Vec<String>,
    holders: Vec<String>,
    whole: Contents,
    parts: Vec<Contents>,
}

impl Disk {
    pub fn at(name: &str, place: &str, gib: u64) -> Self {
        Self {
            name: name.into(),
            bytes: gib * GIB,
            place: place.into(),
            removable: false,
            read_only: false,
            udev: String::new(),
            links: Vec::new(),
            holders: Vec::new(),
            whole: Contents::empty(),
            parts: Vec::new(),
        }
    }

    /// On port `port` of an AHCI controller.
    pub fn sata(name: &str, port: u8, gib: u64, serial: &str) -> Self {
        let place =
            format!("pci0000:00/0000:00:17.0/ata{port}/host{port}/target{port}:0:0/{port}:0:0:0");
        Self::at(name, &place, gib)
            .udev(&format!("ID_BUS=ata\nID_SERIAL=MODEL_{serial}\nID_SERIAL_SHORT={serial}\n"))
            .known_as(&format!("by-path/pci-0000:00:17.0-ata-{port}"))
            .known_as(&format!("by-id/ata-MODEL_{serial}"))
    }

    pub fn nvme(name: &str, pci: &str, gib: u64, serial: &str) -> Self {
        let controller = &name[..name.rfind('n').unwrap()];
        Self::at(name, &format!("pci0000:5d/0000:5d:02.0/{pci}/nvme/{controller}"), gib)
            .udev(&format!("ID_SERIAL=MODEL_{serial}\nID_SERIAL_SHORT={serial}\n"))
            .known_as(&format!("by-path/pci-{pci}-nvme-1"))
    }

    pub fn virtio(name: &str, slot: u8, gib: u64, serial: &str) -> Self {
        Self::at(name, &format!("pci0000:00/0000:00:0{slot}.0/virtio{slot}"), gib)
            .udev(&format!("ID_SERIAL={serial}\n"))
    }

    pub fn usb(name: &str, gib: u64) -> Self {
        let place = "pci0000:00/0000:00:14.0/usb1/1-1/1-1:1.0/host9/target9:0:0/9:0:0:0";
        Self::at(name, place, gib).udev("ID_BUS=usb\nID_SERIAL=Stick-0:0\nID_SERIAL_SHORT=STICK\n")
    }

    pub fn udev(mut self, properties: &str) -> Self {
        self.udev += properties;
        self
    }

    pub fn known_as(mut self, link: &str) -> Self {
        self.links.push(link.into());
        self
    }

    pub fn held_by(mut self, holder: &str) -> Self {
        self.holders.push(holder.into());
        self
    }

    pub fn removable(mut self) -> Self {
        self.removable = true;
        self
    }

    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    pub fn whole(mut self, contents: Contents) -> Self {
        self.whole = contents;
        self
    }

    pub fn part(mut self, contents: Contents) -> Self {
        self.parts.push(contents);
        self
    }

    pub fn part_name(&self, number: usize) -> String {
        let ends_in_digit = self.name.ends_with(|c: char| c.is_ascii_digit());
        format!("{}{}{number}", self.name, if ends_in_digit { "p" } else { "" })
    }
}
