//! A made-up node in a folder: its overlay as a build gives it, what `/sys` and `/proc` say,
//! and tools that answer what they are told to. It is as planned until a test changes it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;

use tempfile::TempDir;

use crate::overlays;
use crate::support;

/// Programs of EL8's minimal install that the scripts may call as they are.
const TOOLS: [&str; 22] = [
    "bash",
    "cat",
    "chmod",
    "cut",
    "date",
    "dirname",
    "env",
    "flock",
    "grep",
    "head",
    "ls",
    "mkdir",
    "mv",
    "readlink",
    "rm",
    "sed",
    "sha256sum",
    "sort",
    "sync",
    "tail",
    "tee",
    "timeout",
];

/// Programs that answer from `answers/`.
const ANSWERING: [&str; 14] = [
    "blkid",
    "dmg",
    "firewall-cmd",
    "getenforce",
    "grubby",
    "ip",
    "openssl",
    "restorecon",
    "rpm",
    "selinuxenabled",
    "systemctl",
    "systemd-tmpfiles",
    "timedatectl",
    "udevadm",
];

const SHIMS: [&str; 4] = ["getent", "sleep", "stat", "sysctl"];

pub struct World {
    folder: TempDir,
}

impl World {
    /// A node of the fixture's cluster with its files, and nothing else.
    pub fn bare(node: &str) -> Self {
        let world = Self { folder: support::scratch() };
        copy(&overlay_of(node), &world.root());
        for script in ["usr/libexec/nodeforge/preflight", "usr/sbin/nodeforge-node"] {
            world.edit(script, "/usr/libexec/platform-python", &support::python());
        }
        fs::create_dir_all(world.path("answers")).unwrap();
        fs::create_dir_all(world.path("bin")).unwrap();
        let shims = support::repository().join("tests/firstboot/shims");
        for tool in TOOLS {
            symlink(support::program(tool), world.path("bin").join(tool)).unwrap();
        }
        for tool in ANSWERING {
            symlink(shims.join("answer"), world.path("bin").join(tool)).unwrap();
        }
        for tool in SHIMS {
            symlink(shims.join(tool), world.path("bin").join(tool)).unwrap();
        }
        world.write("proc/sys/kernel/random/boot_id", "boot-1\n");
        world.write("proc/cmdline", "ro quiet intel_iommu=on transparent_hugepage=never\n");
        world.answer("systemd-tmpfiles", 0, "");
        world.answer("selinuxenabled", 1, "");
        world.answer("rpm", 1, "");
        world
    }

    /// srv1: an access point with two SSDs that has been formatted.
    pub fn server() -> Self {
        let world = Self::bare("srv1");
        world.add_common("BOX1");
        world.add_cores(32);
        world.add_nic("lan0", "0000:01:00.0", "02:00:00:00:00:11", "10.0.0.11", 0);
        world.add_nic("fab0", "0000:17:00.0", "02:00:00:00:01:11", "10.1.0.11", 0);
        world.add_ssd("nvme0n1", "0000:5e:00.0", "SSD-A");
        world.add_ssd("nvme1n1", "0000:5f:00.0", "SSD-B");
        world.write("proc/meminfo", meminfo(128));
        for group in 0..3 {
            fs::create_dir_all(world.path(&format!("sys/kernel/iommu_groups/{group}"))).unwrap();
        }
        world.write("var/lib/daos/daos_control/engine0/superblock", "superblock");
        world.write("var/lib/daos/daos_control/control_raft/daos_system.db", "raft");
        for disk in ["nvme0n1", "nvme1n1"] {
            world.write(&format!("dev/{disk}"), blob());
        }
        fs::create_dir_all(world.path("mnt/daos0")).unwrap();
        world.add_daos_server();
        world
    }

    /// What the package daos-server brings, and the certificates of a server.
    fn add_daos_server(&self) {
        for (path, owner) in [
            ("daosCA.crt", "root root 644"),
            ("server.crt", "daos_server daos_server 644"),
            ("server.key", "daos_server daos_server 400"),
        ] {
            self.add_certificate(path, owner);
        }
        fs::create_dir_all(self.path("etc/daos/certs/clients")).unwrap();
        self.write("answers/owners/etc/daos/certs/clients", "daos_server daos_server 700");
        self.write("usr/bin/daos_server_helper", "");
        self.write("answers/owners/usr/bin/daos_server_helper", "root daos_server 4750");
        self.answer_packages("daos-server", "2.6.0|RSA/SHA256, Key ID abc|(none)");
        self.answer("firewall-cmd --list-ports", 0, "10001/tcp 9191/tcp");
    }

    fn add_certificate(&self, path: &str, owner: &str) {
        self.write(&format!("etc/daos/certs/{path}"), "pem");
        self.write(&format!("answers/owners/etc/daos/certs/{path}"), owner);
    }

    /// srv1 after its first installation.
    pub fn fresh_server() -> Self {
        let world = Self::server();
        world.remove("var/lib/daos/daos_control");
        for disk in ["nvme0n1", "nvme1n1"] {
            world.write(&format!("dev/{disk}"), [0; 4096]);
        }
        let words = r#"{"response":null,"error":"system is uninitialized (storage format required?)","status":-1025}"#;
        world.answer("dmg -j system query", 1, words);
        world
    }

    /// lab1: a server and client on a virtual machine, with a file for an SSD.
    pub fn lab() -> Self {
        let world = Self::bare("lab1");
        world.add_common("");
        world.add_cores(16);
        world.add_nic("lan0", "0000:00:03.0", "02:00:00:00:00:21", "10.0.0.21", -1);
        world.write("proc/meminfo", meminfo(64));
        world.write(
            "proc/self/mountinfo",
            "1 0 252:1 / / rw - xfs /dev/vda1 rw\n2 1 252:2 / /var/lib/daos rw - xfs /dev/vda2 rw\n",
        );
        fs::create_dir_all(world.path("mnt/daos0")).unwrap();
        fs::create_dir_all(world.path("var/daos")).unwrap();
        fs::create_dir_all(world.path("var/lib/daos")).unwrap();
        // 16 GiB are not to be had everywhere that tests run.
        world.edit("etc/nodeforge/kind.json", "17179869184", "1048576");
        world.add_daos_server();
        for (path, owner) in
            [("agent.crt", "daos_agent daos_agent 644"), ("agent.key", "daos_agent daos_agent 400")]
        {
            world.add_certificate(path, owner);
        }
        world.answer_packages("daos-client", "2.6.0|(none)|RSA/SHA256, Key ID abc");
        world
    }

    /// adm1: the admin that formats.
    pub fn admin() -> Self {
        let world = Self::bare("adm1");
        world.add_common("BOX9");
        world.add_nic("lan0", "0000:01:00.0", "02:00:00:00:00:31", "10.0.0.31", 0);
        world.add_nic("fab0", "0000:17:00.0", "02:00:00:00:01:31", "10.1.0.31", 0);
        for (path, owner) in [
            ("daosCA.crt", "root root 644"),
            ("admin.crt", "root root 644"),
            ("admin.key", "root root 400"),
        ] {
            world.write(&format!("etc/daos/certs/{path}"), "pem");
            world.write(&format!("answers/owners/etc/daos/certs/{path}"), owner);
        }
        world.answer_packages("daos-admin", "2.6.0|RSA/SHA256, Key ID abc|(none)");
        world.answer("firewall-cmd --list-ports", 0, "");
        world
    }

    fn add_common(&self, serial: &str) {
        self.write("sys/class/dmi/id/product_serial", serial);
        self.write("sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n");
        self.write("proc/sys/vm/nr_hugepages", "0\n");
        self.write(
            "proc/self/mountinfo",
            "1 0 8:3 / / rw - xfs /dev/sda3 rw\n2 1 8:4 / /var/lib/daos rw,relatime - xfs /dev/sda4 rw\n",
        );
        self.write("etc/fstab", "# made\nLABEL=NFROOT / xfs defaults 0 0\nLABEL=DAOSMETA /var/lib/daos xfs defaults 0 0\n");
        self.answer("rpm --version", 0, "RPM version 4.14.3");
        let form = "%{NAME}|%{SIGPGP:pgpsig}|%{RSAHEADER:pgpsig}|%{SIGGPG:pgpsig}\n";
        self.answer(
            &format!("rpm --query --all --queryformat {form}"),
            0,
            "bash|RSA/SHA256|(none)|(none)\ngpg-pubkey|(none)|(none)|(none)",
        );
        self.answer("getenforce", 0, "Enforcing");
        self.answer("systemctl is-active --quiet firewalld.service", 0, "");
        self.answer(
            "systemctl show --property=LimitMEMLOCK --value daos_server.service",
            0,
            "infinity",
        );
        self.answer("timedatectl show --property=NTPSynchronized --value", 0, "yes");
        self.answer("openssl", 0, "Certificate will not expire");
    }

    fn add_cores(&self, n_cores: u32) {
        for cpu in 0..n_cores {
            let (package, core) = (cpu * 2 / n_cores, cpu % (n_cores / 2));
            let topology = format!("sys/devices/system/cpu/cpu{cpu}/topology");
            self.write(&format!("{topology}/physical_package_id"), format!("{package}\n"));
            self.write(&format!("{topology}/core_id"), format!("{core}\n"));
            self.write(&format!("sys/devices/system/node/node{package}/cpu{cpu}/x"), "");
        }
    }

    pub fn add_nic(&self, name: &str, pci: &str, mac: &str, address: &str, numa: i32) {
        let device = format!("sys/devices/pci0000:00/{pci}");
        let nic = format!("{device}/net/{name}");
        self.write(&format!("{nic}/address"), format!("{mac}\n"));
        self.write(&format!("{nic}/carrier"), "1\n");
        self.write(&format!("{nic}/operstate"), "up\n");
        self.write(&format!("{device}/numa_node"), format!("{numa}\n"));
        self.write(&format!("{device}/class"), "0x020000\n");
        self.link(&format!("{nic}/device"), "../..");
        self.link(&format!("sys/class/net/{name}"), &format!("../../../{nic}"));
        self.link(&format!("sys/bus/pci/devices/{pci}"), &format!("../../../../{device}"));
        self.answer_address(name, &[address]);
    }

    /// What `ip` says of an interface.
    pub fn answer_address(&self, nic: &str, addresses: &[&str]) {
        let info: Vec<_> = addresses
            .iter()
            .map(|address| serde_json::json!({"family": "inet", "local": address, "prefixlen": 24}))
            .collect();
        let words = serde_json::json!([{"ifname": nic, "addr_info": info}]).to_string();
        self.answer(&format!("ip -j -4 address show dev {nic}"), 0, &words);
    }

    pub fn add_ssd(&self, disk: &str, pci: &str, serial: &str) {
        let device = format!("sys/devices/pci0000:5d/{pci}");
        let controller =
            format!("{device}/nvme/{}", disk.split('n').take(2).collect::<Vec<_>>().join("n"));
        self.write(&format!("{device}/class"), "0x010802\n");
        self.write(&format!("{device}/numa_node"), "0\n");
        self.link(&format!("{device}/driver"), "../../../bus/pci/drivers/nvme");
        self.write(&format!("{controller}/serial"), format!("{serial}  \n"));
        self.write(&format!("{controller}/model"), "FAST 9000   \n");
        self.write(&format!("{controller}/{disk}/size"), "4194304\n");
        self.write(
            &format!("{controller}/{disk}/dev"),
            format!("259:{}\n", disk.len() + serial.len()),
        );
        self.link(&format!("{controller}/{disk}/device"), "..");
        self.link(&format!("sys/block/{disk}"), &format!("../../{controller}/{disk}"));
        self.link(&format!("sys/bus/pci/devices/{pci}"), &format!("../../../../{device}"));
        self.write(&format!("dev/{disk}"), [0; 4096]);
        self.answer(&format!("blkid -p -o export /dev/{disk}"), 2, "");
    }

    fn answer_packages(&self, package: &str, words: &str) {
        let form = "%{VERSION}|%{SIGPGP:pgpsig}|%{RSAHEADER:pgpsig}\n";
        self.answer(&format!("rpm --query --queryformat {form} {package}"), 0, words);
    }

    /// What a tool says from now on to these words, or to all if they are its name alone.
    pub fn answer(&self, words: &str, status: i32, said: &str) {
        let said = if said.is_empty() { String::new() } else { format!("{said}\n") };
        self.write(&format!("answers/{}", words.replace('/', "%")), format!("{status}\n{said}"));
    }

    pub fn root(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap()
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    pub fn write(&self, path: &str, contents: impl AsRef<[u8]>) {
        support::write(&self.root(), path, contents);
    }

    pub fn executable(&self, path: &str, text: &str) {
        self.write(path, format!("#!/bin/bash\n{text}\n"));
        support::set_mode(&self.root(), path, 0o755);
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    /// Replaces text of a file, which must be there.
    #[track_caller]
    pub fn edit(&self, path: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(path)).unwrap();
        assert!(text.contains(from), "{path} has no {from:?}:\n{text}");
        fs::write(self.path(path), text.replace(from, to)).unwrap();
    }

    #[track_caller]
    pub fn remove(&self, path: &str) {
        let path = self.path(path);
        match path.symlink_metadata().unwrap().is_dir() {
            true => fs::remove_dir_all(path).unwrap(),
            false => fs::remove_file(path).unwrap(),
        }
    }

    pub fn link(&self, path: &str, target: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&path);
        symlink(target, path).unwrap();
    }

    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.path(program));
        command
            .env_clear()
            .env("NODEFORGE_ROOT", self.root())
            .env("NODEFORGE_DEVICE_WAIT", "0")
            .env("NODEFORGE_CLOCK_WAIT", "0")
            .env("NODEFORGE_READY_WAIT", "0.01")
            .env("PATH", self.path("bin"))
            // As Python 3.6 sees the world under systemd: later ones would take UTF-8 anyway.
            .env("LC_ALL", "C")
            .env("PYTHONUTF8", "0")
            .env("PYTHONCOERCECLOCALE", "0")
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, program: &str, arguments: &[&str]) -> Ran {
        Ran::of(&self.command(program).args(arguments).output().unwrap(), &self.root())
    }
}

/// How a program ended and what it said, with the folder of the made-up machine left out.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    pub status: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn of(output: &Output, root: &Path) -> Self {
        let text =
            |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(root.to_str().unwrap(), "");
        Self {
            status: output.status.code().unwrap_or(-1),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }
}

/// The first bytes of a disk or file that DAOS has formatted.
pub fn blob() -> Vec<u8> {
    let mut bytes = b"SPDKBLOB\x03\0\0\0".to_vec();
    bytes.resize(4096, 0);
    bytes
}

pub fn meminfo(gib: u64) -> String {
    let kib = gib * 1024 * 1024 - gib * 16 * 1024;
    format!("MemTotal:       {kib} kB\nMemAvailable:   {kib} kB\nHugepagesize:       2048 kB\n")
}

/// The files of a node, rendered once for all tests.
fn overlay_of(node: &str) -> PathBuf {
    static TREES: Mutex<BTreeMap<String, TempDir>> = Mutex::new(BTreeMap::new());
    let mut trees = TREES.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let tree = trees
        .entry(node.to_owned())
        .or_insert_with(|| overlays::unpacked("tests/fixtures/firstboot/cluster.toml", node));
    tree.path().to_owned()
}

fn copy(from: &Path, to: &Path) {
    for entry in walkdir::WalkDir::new(from).min_depth(1).into_iter().map(Result::unwrap) {
        let target = to.join(entry.path().strip_prefix(from).unwrap());
        let kind = entry.file_type();
        if kind.is_dir() {
            fs::create_dir_all(&target).unwrap();
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path()).unwrap(), &target).unwrap();
        } else {
            fs::copy(entry.path(), &target).unwrap();
            let mode = entry.metadata().unwrap().permissions().mode();
            fs::set_permissions(&target, fs::Permissions::from_mode(mode)).unwrap();
        }
    }
}
