//! The machine that a golden image is installed in: the firmware of the nodes and a disk on the bus
//! that theirs is on, so that what is installed starts there, and besides only what an installer
//! needs.

use crate::cluster::Firmware;
use crate::format::digest::Digest;
use crate::net::MacAddr;
use crate::render::install::GOLDEN_DISK;
use crate::units::ByteSize;
use crate::vm::{Disk, DiskBus, DiskUse, Machine, Network, Place, VmNic, uuid_of};

/// EL8's installer wants 3 GiB where its packages come by network.
const MEMORY: ByteSize = ByteSize::from_gib(4);
/// Of which packing and unpacking keep two busy.
const N_CORES: u32 = 2;
/// Where the installer's medium is; it is no disk of [`Machine`]'s own.
const MEDIUM_SLOT: u8 = 6;

/// What of a node's machine is in its golden image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoldenDisk {
    pub firmware: Firmware,
    pub bus: DiskBus,
    pub size: ByteSize,
}

impl GoldenDisk {
    /// Of a machine's system disk.
    pub fn of(machine: &Machine) -> Self {
        let mut disks = machine.disks_for(DiskUse::System);
        let system = disks.next().expect("every machine has a system disk");
        Self { firmware: machine.firmware, bus: system.bus, size: system.size }
    }

    /// In words, such as `bios, nvme, 24 GiB`: the same only for equal ones.
    pub fn describe(&self) -> String {
        let firmware = match self.firmware {
            Firmware::Bios => "bios",
            Firmware::Uefi => "uefi",
        };
        let bus = match self.bus {
            DiskBus::Virtio => "virtio",
            DiskBus::Nvme => "nvme",
            DiskBus::Sata => "sata",
            DiskBus::Scsi => "scsi",
        };
        format!("{firmware}, {bus}, {}", self.size)
    }
}

/// The machine for the image `name` whose nodes' machines are like `node`'s. Its disk, in qcow2, is
/// opened as `file`.
pub fn machine(name: &str, node: &Machine, file: &str) -> Machine {
    let golden = GoldenDisk::of(node);
    let root = |slot| Place::Root { slot, function: 0 };
    let digest = Digest::of(name.as_bytes());
    Machine {
        name: name.to_owned(),
        uuid: uuid_of(&digest),
        serial: None,
        firmware: golden.firmware,
        cpu: node.cpu,
        memory: MEMORY,
        sockets: 1,
        cores_per_socket: N_CORES,
        numa: vec![N_CORES],
        has_iommu: false,
        console: 0,
        kernel_line: String::new(),
        buses: Vec::new(),
        disks: vec![Disk {
            id: "system".to_owned(),
            file: file.to_owned(),
            format: crate::format::qcow2::DiskFormat::Qcow2,
            size: golden.size,
            bus: golden.bus,
            serial: GOLDEN_DISK.to_owned(),
            use_: DiskUse::System,
            place: if golden.bus == DiskBus::Sata { Place::Sata } else { root(3) },
        }],
        nics: vec![VmNic {
            id: "outside".to_owned(),
            network: Network::Outside,
            mac: MacAddr::from_octets([0x02, 0x4e, 0x46, 0, 0, 1]),
            place: root(4),
        }],
        rng: root(5),
    }
}

/// QEMU's words for the installer's medium: a disk that nobody can write to, by a driver that every
/// installer of EL8 has.
pub fn medium(iso: &str) -> [String; 4] {
    let file = crate::vm::qemu::escaped(iso);
    [
        "-drive".to_owned(),
        format!("if=none,id=medium,format=raw,readonly=on,file={file}"),
        "-device".to_owned(),
        format!("nvme,drive=medium,serial=nfmedium,bus=pcie.0,addr=0x{MEDIUM_SLOT:x}"),
    ]
}
