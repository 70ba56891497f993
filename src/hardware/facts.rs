//! What is known of one box; the JSON form is the fields as they stand here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

/// The format number of the JSON form.
pub const FORMAT: u32 = 1;

/// What is known of one box. In JSON with `"nodeforge_facts": 1` beside the fields; each of
/// them may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Facts {
    /// [`FORMAT`], in the JSON form; tells it from other JSON.
    pub nodeforge_facts: u32,
    /// Who made the box, as SMBIOS says: `Dell Inc.`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maker: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// `uefi` or `bios`: how the running system was booted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firmware: Option<String>,
    /// Whether the firmware could boot as UEFI.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_uefi: Option<bool>,
    /// `intel` or `amd`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sockets: Option<u32>,
    /// Physical, all sockets together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cores: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numa_nodes: Option<u32>,
    /// `KVM`, `VMware`, …; absent on bare metal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hypervisor: Option<String>,
    /// Whether the kernel uses an IOMMU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iommu: Option<bool>,
    /// The size of each DIMM, in MiB.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dimms_mib: Vec<u64>,
    /// MemTotal of /proc/meminfo.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_total_kib: Option<u64>,
    /// /proc/cmdline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_line: Option<String>,
    /// By PCI address.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pci: BTreeMap<String, PciDevice>,
    /// By the kernel's name, such as `sda`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub disks: BTreeMap<String, Disk>,
    /// By the kernel's name, such as `eno1`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub nics: BTreeMap<String, Nic>,
    /// RDMA devices by name, such as `mlx5_0`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rdma: BTreeMap<String, Rdma>,
    /// SSDs by PCI address that DAOS itself proposed to use, with their NUMA node.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub daos_ssds: BTreeMap<String, Option<u32>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PciDevice {
    /// The class of the device, four hex digits: `0108` is an NVMe controller.
    pub class: String,
    /// What lspci calls it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The vendor's number, four hex digits.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub vendor: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numa: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Disk {
    /// `sata`, `sas`, `nvme`, `virtio`, `scsi`, `usb` or `mmc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bus: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Where it or what is on it is mounted; `[SWAP]` for swap space.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub mounts: BTreeSet<String>,
    /// What is on it: a filesystem's type, or the number of partitions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holds: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pci: Option<String>,
    /// Its name under /dev/disk/by-path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_path: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Nic {
    /// `ether` or `infiniband`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pci: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numa: Option<u32>,
    /// The hardware address: six octets, of InfiniBand twenty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    pub is_up: bool,
    /// IPv4 addresses with their prefix length.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub ips: BTreeSet<String>,
    /// Made by software, or a part of the management controller: never planned with.
    pub is_virtual: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rdma {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pci: Option<String>,
}

impl Facts {
    pub fn pci_device(&mut self, address: &str) -> &mut PciDevice {
        self.pci.entry(address.to_owned()).or_default()
    }

    pub fn disk(&mut self, name: &str) -> &mut Disk {
        self.disks.entry(name.to_owned()).or_default()
    }

    pub fn nic(&mut self, name: &str) -> &mut Nic {
        self.nics.entry(name.to_owned()).or_default()
    }

    /// The JSON form.
    pub fn to_json(&self) -> String {
        let whole = Self { nodeforge_facts: FORMAT, ..self.clone() };
        serde_json::to_string_pretty(&whole).expect("texts and numbers are JSON") + "\n"
    }

    /// Takes over what the JSON form of another file says.
    pub fn absorb(&mut self, other: Facts) -> Result<(), String> {
        merge(&mut self.maker, other.maker, "maker")?;
        merge(&mut self.product, other.product, "product")?;
        merge(&mut self.serial, other.serial, "serial number")?;
        merge(&mut self.firmware, other.firmware, "firmware")?;
        merge(&mut self.cpu, other.cpu, "CPU vendor")?;
        merge(&mut self.sockets, other.sockets, "number of sockets")?;
        merge(&mut self.cores, other.cores, "number of cores")?;
        merge(&mut self.numa_nodes, other.numa_nodes, "number of NUMA nodes")?;
        merge(&mut self.hypervisor, other.hypervisor, "hypervisor")?;
        merge(&mut self.iommu, other.iommu, "IOMMU")?;
        merge(&mut self.can_uefi, other.can_uefi, "firmware")?;
        if !other.dimms_mib.is_empty() {
            self.dimms_mib = other.dimms_mib;
        }
        self.mem_total_kib = other.mem_total_kib.or(self.mem_total_kib);
        self.kernel_line = other.kernel_line.or(self.kernel_line.take());
        self.pci.extend(other.pci);
        self.disks.extend(other.disks);
        self.nics.extend(other.nics);
        self.rdma.extend(other.rdma);
        self.daos_ssds.extend(other.daos_ssds);
        Ok(())
    }
}

/// Sets a fact; a different one from another file tells that the files are of two boxes.
pub fn merge<T>(slot: &mut Option<T>, value: Option<T>, what: &str) -> Result<(), String>
where
    T: PartialEq + fmt::Display,
{
    let Some(value) = value else { return Ok(()) };
    match slot {
        Some(known) if *known != value => Err(format!(
            "the {what} is {value} here and {known} in another output; give the outputs of one box"
        )),
        _ => {
            *slot = Some(value);
            Ok(())
        }
    }
}
