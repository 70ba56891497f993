//! The hardware that guests are: what `lab.toml` says a box is, and ways to deviate from it.

use std::path::{Path, PathBuf};

use crate::support;

/// A box: two NUMA nodes with one core and three, an IOMMU, and at the second NUMA node an SSD
/// (0000:81:00.0) and a network card (0000:82:00.0). Or a small one: a core, and the network
/// card at 0000:00:10.0.
#[derive(Clone, Debug)]
pub struct Machine {
    pub is_small: bool,
    /// Taken from the host only as the guest touches it.
    pub memory_mib: u32,
    pub has_iommu: bool,
    pub has_ssd: bool,
    pub nic_slot: NicSlot,
}

/// Where the network card is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NicSlot {
    /// 0000:82:00.0.
    Planned,
    /// On the root bus, at the first NUMA node.
    Other,
}

impl Machine {
    /// `hw.box` of `lab.toml`.
    pub fn planned() -> Self {
        Self {
            is_small: false,
            memory_mib: 9 << 10,
            has_iommu: true,
            has_ssd: true,
            nic_slot: NicSlot::Planned,
        }
    }

    /// `hw.small` of `lab.toml`: less to start for an emulator.
    pub fn small() -> Self {
        Self { is_small: true, memory_mib: 2 << 10, ..Self::planned() }
    }

    /// QEMU's arguments for the machine with `disks`, and with `mac` on the network `netdev`.
    pub fn arguments(&self, disks: &Disks, mac: &str, netdev: &str) -> Vec<String> {
        let half = self.memory_mib / 2;
        let mut words = vec!["-machine q35".to_owned(), format!("-m {}M", half * 2)];
        if self.has_iommu {
            words.push("-device intel-iommu".to_owned());
        }
        if self.is_small {
            words.push("-accel tcg -smp 1".to_owned());
        } else {
            words.extend(two_numa_nodes(half));
        }
        words.push(drive("system", &disks.system, "pcie.0"));
        words.extend(disks.meta.as_ref().map(|meta| drive("meta", meta, "pcie.0")));
        if let Some(ssd) = disks.ssd.as_ref().filter(|_| self.has_ssd) {
            words.push(drive("ssd", ssd, "slot1"));
        }
        let bus = match (self.is_small, self.nic_slot) {
            (false, NicSlot::Planned) => "slot2",
            (true, NicSlot::Planned) => "pcie.0,addr=0x10",
            (_, NicSlot::Other) => "pcie.0",
        };
        words.push(format!("-netdev {netdev}"));
        words.push(format!("-device virtio-net-pci,netdev=lan,mac={mac},bus={bus},romfile="));
        words.iter().flat_map(|word| word.split(' ').map(str::to_owned)).collect()
    }
}

/// QEMU's arguments for processors and memory of two NUMA nodes, `half` MiB at each, and for
/// slots behind a host bridge of the second.
fn two_numa_nodes(half: u32) -> Vec<String> {
    // With two sockets the guests' kernel was seen to hang without an accelerator, with one
    // it boots. One thread for all cores, as hosts have few.
    let mut words = vec!["-accel tcg,thread=single -smp 4,sockets=1,cores=4,threads=1".to_owned()];
    for (node, cpus) in ["0", "1-3"].into_iter().enumerate() {
        words.push(format!("-object memory-backend-ram,id=mem{node},size={half}M,reserve=off"));
        words.push(format!("-numa node,nodeid={node},memdev=mem{node},cpus={cpus}"));
    }
    words.push("-device pxb-pcie,id=far,bus_nr=0x80,numa_node=1,bus=pcie.0".to_owned());
    for slot in [1, 2] {
        words.push(format!("-device pcie-root-port,id=slot{slot},bus=far,chassis={slot}"));
    }
    words
}

/// An NVMe disk whose serial number is `id`. What the guest flushes stays in the host's
/// memory, which outlives QEMU.
fn drive(id: &str, path: &Path, bus: &str) -> String {
    let path = path.display();
    format!(
        "-drive if=none,id={id},file={path},format=qcow2,cache=unsafe \
         -device nvme,serial={id},drive={id},bus={bus}"
    )
}

/// The disks of a machine, each a layer on top of a file that stays as it is.
#[derive(Debug)]
pub struct Disks {
    folder: PathBuf,
    system: PathBuf,
    /// DAOSMETA, on servers.
    meta: Option<PathBuf>,
    /// The data SSD, on servers.
    ssd: Option<PathBuf>,
}

impl Disks {
    /// Disks of a server before its first boot, in `folder`.
    pub fn of_server(folder: &Path) -> Self {
        let ssd = folder.join("blank-ssd");
        std::fs::create_dir_all(folder).unwrap();
        std::fs::File::create(&ssd).unwrap().set_len(256 << 20).unwrap();
        Self {
            meta: Some(layer(folder, "meta", &blank_metadata(folder), "raw")),
            ssd: Some(layer(folder, "ssd", &ssd, "raw")),
            ..Self::of_client(folder)
        }
    }

    /// The disk of a node that stores nothing, in `folder`.
    pub fn of_client(folder: &Path) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let system = layer(folder, "system", &support::stand_in_system(), "raw");
        Self { folder: folder.to_owned(), system, meta: None, ssd: None }
    }

    /// The disk of a node that stores nothing, made by somebody else as `image`.
    pub fn of_image(folder: &Path, image: &Path) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let system = layer(folder, "system", image, "qcow2");
        Self { folder: folder.to_owned(), system, meta: None, ssd: None }
    }

    /// Whether there are disks for data.
    pub fn are_of_a_server(&self) -> bool {
        self.ssd.is_some()
    }

    /// Disks in `folder` that begin as these are now; these must not change any more.
    pub fn copy_to(&self, folder: &Path) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let copy = |name, disk: &PathBuf| layer(folder, name, disk, "qcow2");
        Self {
            folder: folder.to_owned(),
            system: copy("system", &self.system),
            meta: self.meta.as_ref().map(|meta| copy("meta", meta)),
            ssd: self.ssd.as_ref().map(|ssd| copy("ssd", ssd)),
        }
    }

    /// A copy, in `folder`, of what these are at this moment.
    #[track_caller]
    pub fn frozen_in(&self, folder: &Path) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let freeze = |name, disk: &PathBuf| {
            let path = folder.join(format!("{name}.qcow2"));
            std::fs::copy(disk, &path).unwrap();
            path
        };
        Self {
            folder: folder.to_owned(),
            system: freeze("system", &self.system),
            meta: self.meta.as_ref().map(|meta| freeze("meta", meta)),
            ssd: self.ssd.as_ref().map(|ssd| freeze("ssd", ssd)),
        }
    }

    /// With a system disk that is to be installed anew.
    pub fn with_new_system(mut self) -> Self {
        self.system = layer(&self.folder, "new-system", &support::stand_in_system(), "raw");
        self
    }

    /// With an SSD that somebody else has put a filesystem on.
    pub fn with_foreign_ssd(self) -> Self {
        let output = support::command("mkfs.ext4")
            .args(["-q", "-F"])
            .arg(self.folder.join("blank-ssd"))
            .output()
            .unwrap();
        assert!(output.status.success(), "mkfs.ext4: {:?}", support::spoken_lines(&output));
        self
    }

    /// With an empty DAOSMETA: where a reinstallation lost it.
    pub fn with_new_metadata(mut self) -> Self {
        let blank = blank_metadata(&self.folder);
        self.meta = Some(layer(&self.folder, "new-meta", &blank, "raw"));
        self
    }
}

/// The file that a guest writes to instead of `base`.
#[track_caller]
fn layer(folder: &Path, name: &str, base: &Path, format: &str) -> PathBuf {
    let path = folder.join(format!("{name}.qcow2"));
    let output = support::command("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", format, "-b"])
        .args([base, &path])
        .output()
        .unwrap();
    assert!(output.status.success(), "qemu-img: {:?}", support::spoken_lines(&output));
    path
}

/// An empty filesystem as the kickstart's `part --label=DAOSMETA --fstype=xfs` makes it.
#[track_caller]
pub fn blank_metadata(folder: &Path) -> PathBuf {
    let path = folder.join("blank-meta");
    std::fs::File::create(&path).unwrap().set_len(512 << 20).unwrap();
    let output = support::command("mkfs.xfs")
        .args(["-q", "-f", "-L", "DAOSMETA"])
        .arg(&path)
        .output()
        .unwrap();
    assert!(output.status.success(), "mkfs.xfs: {:?}", support::spoken_lines(&output));
    path
}
