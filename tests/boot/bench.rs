//! The cluster of `lab.toml`, built by the program, on guests.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use crate::examples::printed;
use crate::kickstart::{pre, sections};
use crate::support;

use super::guest::Guest;
use super::initrd;
use super::lan::Lan;
use super::machine::{Disks, Machine};

/// A boot to multi-user takes 20 to 25 seconds alone and three times that beside two others
/// on two cores; a machine that also compiles is twice slower still.
pub const BOOT_TIMEOUT: Duration = Duration::from_secs(600);

/// What an administrator's command in a running guest may take; it needs a second or two.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// Whether a guest's system disk already has nodeforge's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Installs them, then boots: the first boot.
    Install,
    Boot,
}

/// A node of the cluster with its disks.
pub struct Node {
    pub name: &'static str,
    pub disks: Disks,
    pub machine: Machine,
}

impl Node {
    /// A node in the planned hardware: that of a client is small.
    pub fn new(name: &'static str, disks: Disks) -> Self {
        let machine = if disks.are_of_a_server() { Machine::planned() } else { Machine::small() };
        Self { name, disks, machine }
    }

    /// Starts it and does not wait.
    #[track_caller]
    pub fn start(&self, lan: &Lan, start: Start) -> Guest {
        self.start_with(lan, start, "")
    }

    /// Starts it with `more` on the kernel line.
    #[track_caller]
    pub fn start_with(&self, lan: &Lan, start: Start, more: &str) -> Guest {
        let initrd = match start {
            Start::Install => installer(self.name),
            Start::Boot => initrd(),
        };
        // What the plan asks for, and what makes guests quicker.
        let line = format!(
            "console=tty0 console=ttyS0,115200 intel_iommu=on transparent_hugepage=never \
             {QUICK} {more}"
        );
        let mac = format!("52:54:00:77:00:1{}", self.name.trim_start_matches("node"));
        let arguments = self.machine.arguments(&self.disks, &mac, &lan.netdev(self.name));
        Guest::start_with_shell(self.name, &support::guest_kernel(), &initrd, &line, arguments)
    }
}

/// What makes guests quicker and quieter: with iommu=pt the IOMMU is there, and the kernel's own
/// drivers go past it. A loaded host is late with the timer interrupts that the kernel counts at
/// its start, and panics without no_timer_check.
pub const QUICK: &str = "loglevel=4 panic=-1 mitigations=off iommu=pt no5lvl no_timer_check \
                         systemd.show_status=0";

/// A folder for a test's disks, empty.
#[track_caller]
pub fn scratch(test: &str) -> PathBuf {
    let folder = boot_folder().join(test);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).unwrap();
    }
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Where disks lie: they are too large for a /tmp in memory.
fn boot_folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("boot")
}

/// `nodeforge build lab.toml`, once for all tests.
pub fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let folder = scratch("built");
        let cluster = support::repository().join("tests/boot/lab.toml");
        std::fs::copy(cluster, folder.join("lab.toml")).unwrap();
        printed(&folder, &["build", "lab.toml", "-o", "out"]);
        folder.join("out/current")
    })
}

pub fn stand_in() -> PathBuf {
    support::repository().join("tests/boot/stand_in")
}

/// The initrd that finds the system disk and starts what is on it.
pub fn initrd() -> PathBuf {
    static INITRD: OnceLock<PathBuf> = OnceLock::new();
    let made = INITRD.get_or_init(|| {
        let tree = initrd::tree_with(std::fs::read(stand_in().join("init")).unwrap());
        let initrd = boot_folder().join("initrd");
        plain_cpio(tree.path(), &initrd);
        initrd
    });
    made.clone()
}

/// That initrd and, behind it, what `stand_in/install` puts on the system disk of `node`: what
/// packages would bring, the node's archives, and the scripts of its kickstart.
#[track_caller]
pub fn installer(node: &str) -> PathBuf {
    let tree = support::scratch();
    let seed = tree.path().join("seed");
    let kickstart = std::fs::read_to_string(built().join(format!("nodes/{node}/kickstart.ks")));
    let kickstart = kickstart.expect("a build writes kickstarts");
    let pre = pre(&kickstart);
    let files = pre.split("# shellcheck source").next().expect("split gives one part");
    support::write(&seed, "pre.sh", files);
    support::write(&seed, "unpack.sh", sections(&kickstart, "%post --nochroot").remove(0));
    support::write(&seed, "target.sh", sections(&kickstart, "%post --interpreter").remove(0));
    support::write(&seed, "packages", sections(&kickstart, "%packages").remove(0));
    let meta = "LABEL=DAOSMETA /var/lib/daos xfs defaults 0 0\n";
    let is_server = files.contains("NF_KEPT='DAOSMETA") || files.contains("NF_KEPT=DAOSMETA");
    support::write(&seed, "fstab", if is_server { meta } else { "" });
    for file in ["install", "packages.sh"] {
        support::write(&seed, file, std::fs::read(stand_in().join(file)).unwrap());
    }
    support::write(&seed, "fakes", fakes());
    add_archives(&seed, node, files);

    let archive = tree.path().join("seed.cpio");
    let content = tree.path().join("content");
    std::fs::create_dir(&content).unwrap();
    std::fs::rename(&seed, content.join("seed")).unwrap();
    plain_cpio(&content, &archive);
    let path = boot_folder().join(format!("install-{node}"));
    let parts = [initrd(), archive].map(|part| std::fs::read(part).unwrap());
    std::fs::write(&path, parts.concat()).unwrap();
    path
}

/// Packs `folder` without gzip, which a guest would take seconds to undo. GNU cpio pads to 512
/// bytes, so that a second archive behind this one is found.
#[track_caller]
fn plain_cpio(folder: &Path, archive: &Path) {
    let script = "find . -mindepth 1 -printf '%P\\n' | LC_ALL=C sort | \
                  cpio --create --format=newc --owner=0:0 --quiet >\"$1\"";
    let output = support::command("sh")
        .args(["-c", script, "sh"])
        .arg(archive)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "cpio: {:?}", support::spoken_lines(&output));
}

/// The archives as the kickstart's `%pre` fetches them.
fn add_archives(seed: &Path, node: &str, node_sh: &str) {
    let layers = node_sh.lines().find_map(|line| line.strip_prefix("NF_LAYERS="));
    let layers = layers.expect("a kickstart names its layers").trim_matches('\'');
    for layer in layers.split_whitespace() {
        let archive = built().join(format!("layers/{layer}/layer.tar.gz"));
        let bytes = std::fs::read(archive).unwrap();
        support::write(seed, &format!("archives/layer-{layer}.tar.gz"), bytes);
    }
    let overlay = std::fs::read(built().join(format!("nodes/{node}/overlay.tar.gz"))).unwrap();
    support::write(seed, "archives/overlay.tar.gz", overlay);
}

/// The fakes of DAOS's programs, without what only a debugger wants.
pub fn fakes() -> Vec<u8> {
    static FAKES: OnceLock<Vec<u8>> = OnceLock::new();
    let bytes = FAKES.get_or_init(|| {
        let stripped = boot_folder().join("fakes");
        let output = support::command("strip")
            .arg("-o")
            .args([&*stripped, support::fakes()])
            .output()
            .unwrap();
        assert!(output.status.success(), "strip: {:?}", support::spoken_lines(&output));
        std::fs::read(stripped).unwrap()
    });
    bytes.clone()
}
