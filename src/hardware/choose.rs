//! What of a box's facts an operator would write down, and what only a person can decide.

use std::collections::BTreeMap;

use crate::daos::memory::{self, in_gib};
use crate::hardware::facts::{Disk, Facts, Nic, PciDevice};
use crate::net::PciAddress;
use crate::units::ByteSize;

/// An `hw.NAME` block before it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The NAME of `hw.NAME`.
    pub name: String,
    /// What the box calls itself.
    pub title: String,
    pub firmware: Option<Chosen<String>>,
    pub cpu: Option<String>,
    pub memory: Option<Chosen<ByteSize>>,
    pub mem_total: Option<Chosen<ByteSize>>,
    pub sockets: Option<Chosen<u32>>,
    /// Physical, all sockets together.
    pub cores: Option<u32>,
    /// The best guess first.
    pub install_disks: Vec<DiskChoice>,
    /// The boot NIC first, then the fabric's, then the others.
    pub nics: Vec<NicChoice>,
    /// Data SSDs by NUMA node; `None` where no fact says which.
    pub ssds: BTreeMap<Option<u32>, Vec<SsdChoice>>,
    pub console: Option<String>,
    pub vm: Option<VmChoice>,
    /// This box's own serial number.
    pub serial: Option<String>,
}

/// A value, and what to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen<T> {
    pub value: T,
    pub note: String,
    pub is_guess: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskChoice {
    pub rule: Rule,
    pub note: String,
}

/// How `install_disk` names a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    ByPath(String),
    /// The bus and a window around the size, which no other disk of the box meets.
    BusAndSize {
        bus: String,
        min: ByteSize,
        max: ByteSize,
    },
    /// Of this box only.
    Serial(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicChoice {
    pub key: String,
    /// The planned name; never one of the kernel's own.
    pub name: String,
    pub pci: Option<String>,
    pub domain: Option<String>,
    pub numa: Option<u32>,
    pub use_: NicUse,
    pub note: String,
    /// This box's own MAC address or GUID.
    pub address: Option<String>,
}

/// What a NIC is proposed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NicUse {
    Boot,
    InfinibandFabric,
    EthernetFabric,
    /// Left out unless a person wants it.
    Spare,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SsdChoice {
    pub address: String,
    pub note: String,
    /// Why it is not proposed for data.
    pub obstacle: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmChoice {
    pub disk: ByteSize,
    pub has_iommu: bool,
}

/// Decides what can be decided.
pub fn choose(facts: &Facts, name: Option<&str>) -> Choice {
    let (install_disks, system) = install_disks(facts);
    let vm_disk = system.and_then(|name| facts.disks[name].size_bytes);
    Choice {
        name: name.map_or_else(|| default_name(facts), str::to_owned),
        title: title(facts),
        firmware: firmware(facts),
        cpu: facts.cpu.clone(),
        memory: memory(facts),
        mem_total: mem_total(facts),
        sockets: sockets(facts),
        cores: facts.cores,
        nics: nics(facts),
        ssds: ssds(facts, system),
        console: console(facts),
        vm: facts.hypervisor.as_ref().map(|_| VmChoice {
            disk: whole_gib_below(vm_disk.unwrap_or(40 << 30)),
            has_iommu: facts.iommu == Some(true),
        }),
        serial: facts.serial.clone(),
        install_disks,
    }
}

/// `r760` of `PowerEdge R760`: the first word with a digit; `vm` for virtual machines.
fn default_name(facts: &Facts) -> String {
    if facts.hypervisor.is_some() {
        return "vm".to_owned();
    }
    let product = facts.product.as_deref().unwrap_or_default().to_ascii_lowercase();
    let plain = |word: &str| -> String {
        word.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect()
    };
    let model = product.split_whitespace().find(|word| word.contains(|c: char| c.is_ascii_digit()));
    let model = model.map(plain).unwrap_or_default();
    let model = model.trim_matches('-');
    if model.is_empty() { "box".to_owned() } else { model.to_owned() }
}

fn title(facts: &Facts) -> String {
    match (&facts.product, &facts.maker) {
        (Some(product), Some(maker)) => format!("{product}, {maker}"),
        (Some(name), None) | (None, Some(name)) => name.clone(),
        (None, None) => "it does not say what it is".to_owned(),
    }
}

fn firmware(facts: &Facts) -> Option<Chosen<String>> {
    let guess = |value: &str, note: &str| {
        Some(Chosen { value: value.to_owned(), note: note.to_owned(), is_guess: true })
    };
    match (&facts.firmware, facts.can_uefi) {
        (Some(firmware), _) => {
            Some(Chosen { value: firmware.clone(), note: String::new(), is_guess: false })
        }
        (None, _) if facts.disks.values().any(|disk| disk.mounts.contains("/boot/efi")) => {
            guess("uefi", "the running system has /boot/efi mounted")
        }
        (None, Some(true)) => guess("uefi", "dmidecode says that it can; is it set up so?"),
        (None, _) => None,
    }
}

fn memory(facts: &Facts) -> Option<Chosen<ByteSize>> {
    if let [first, rest @ ..] = facts.dimms_mib.as_slice() {
        let sum = facts.dimms_mib.iter().map(|mib| ByteSize::from_mib(*mib)).sum();
        let each = match rest.iter().all(|mib| mib == first) {
            true => format!(" of {}", ByteSize::from_mib(*first)),
            false => String::new(),
        };
        let plural = if rest.is_empty() { "" } else { "s" };
        let note = format!("{} DIMM{plural}{each}", facts.dimms_mib.len());
        return Some(Chosen { value: sum, note, is_guess: false });
    }
    let total = ByteSize::from_bytes(facts.mem_total_kib? << 10);
    let note = format!("from MemTotal, {}: dmidecode, as root, would tell", in_gib(total));
    Some(Chosen { value: dimms_of(total), note, is_guess: true })
}

/// The least usual size of memory that leaves `mem_total`.
fn dimms_of(mem_total: ByteSize) -> ByteSize {
    let step = match mem_total.gib() {
        0..16 => 1,
        16..128 => 8,
        _ => 32,
    };
    // The kernel's own structures alone take 1/64.
    let least = mem_total + ByteSize::from_bytes(mem_total.bytes() / 64);
    ByteSize::from_gib((least.bytes() - 1).div_euclid(1 << 30).div_euclid(step) * step + step)
}

/// MemTotal as an installed node will have it, which differs from a rescue system's by what
/// is kept for crash dumps.
fn mem_total(facts: &Facts) -> Option<Chosen<ByteSize>> {
    let measured = ByteSize::from_bytes(facts.mem_total_kib? << 10);
    let has_crashkernel =
        facts.kernel_line.as_ref().is_some_and(|line| line.contains("crashkernel="));
    let kept = match has_crashkernel {
        true => ByteSize::default(),
        false => memory::crashkernel(dimms_of(measured)),
    };
    let value = ByteSize::from_gib(measured.saturating_sub(kept).gib());
    let note = match has_crashkernel {
        true => "/proc/meminfo, down to whole GiB".to_owned(),
        false => format!("/proc/meminfo less {kept} for crashkernel, down to whole GiB"),
    };
    (value.bytes() > 0).then_some(Chosen { value, note, is_guess: false })
}

fn sockets(facts: &Facts) -> Option<Chosen<u32>> {
    let value = facts.sockets?;
    let note = match facts.numa_nodes.filter(|nodes| *nodes != value) {
        Some(nodes) => format!("and {nodes} NUMA nodes; DAOS wants one a socket"),
        None => String::new(),
    };
    Some(Chosen { value, note, is_guess: false })
}

/// The last serial console of the kernel line, without parity and bits.
fn console(facts: &Facts) -> Option<String> {
    let words = facts.kernel_line.as_ref()?.split_whitespace();
    let mut consoles = words.filter_map(|word| word.strip_prefix("console="));
    let serial = consoles.rfind(|name| name.starts_with("ttyS"))?;
    let (port, speed) = serial.split_once(',').unwrap_or((serial, "115200"));
    let speed: String = speed.chars().take_while(char::is_ascii_digit).collect();
    Some(format!("{port},{speed}"))
}

fn whole_gib_below(bytes: u64) -> ByteSize {
    ByteSize::from_gib(ByteSize::from_bytes(bytes).gib())
}

/// What `lsblk` and the like say of a disk, for a comment.
fn describe(name: &str, disk: &Disk) -> String {
    let size = disk.size_bytes.map(|bytes| in_gib(ByteSize::from_bytes(bytes)));
    let parts = [Some(name.to_owned()), size, disk.bus.clone(), disk.model.clone()];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

fn holds_system(disk: &Disk) -> bool {
    disk.mounts.iter().any(|mount| mount == "[SWAP]" || !mount.starts_with("/run"))
}

fn is_nvme(disk: &Disk) -> bool {
    disk.bus.as_deref() == Some("nvme")
}

/// Controllers that makers sell for the system and nothing else.
fn is_boot_device(disk: &Disk) -> bool {
    let model = disk.model.as_deref().unwrap_or_default().to_ascii_lowercase();
    ["boss", "ns204i", "m.2 nvme 2-bay raid"].iter().any(|name| model.contains(name))
}

/// The disks to install on, the best guess first, and the name of that one.
fn install_disks(facts: &Facts) -> (Vec<DiskChoice>, Option<&str>) {
    let is_medium = |disk: &Disk| {
        disk.bus.as_deref() == Some("usb") || disk.mounts.iter().any(|m| m.starts_with("/run/"))
    };
    let disks = || facts.disks.iter().filter(|(_, disk)| disk.size_bytes.is_some_and(|n| n > 0));
    let mut candidates: Vec<(&String, &Disk)> = disks()
        .filter(|(_, disk)| holds_system(disk) || !is_medium(disk))
        .filter(|(_, disk)| holds_system(disk) || !is_nvme(disk) || is_boot_device(disk))
        .collect();
    if candidates.is_empty() {
        // Nothing but SSDs for data, as it seems: the smallest one.
        candidates.extend(disks().min_by_key(|(_, disk)| disk.size_bytes));
    }
    candidates.sort_by_key(|(name, disk)| {
        (!holds_system(disk), !is_boot_device(disk), disk.size_bytes, *name)
    });
    let choices = candidates.iter().filter_map(|(name, disk)| {
        let note = match holds_system(disk) {
            true => format!("{}; the running system is on it", describe(name, disk)),
            false => describe(name, disk),
        };
        Some(DiskChoice { rule: rule(disk, disks().map(|(_, disk)| disk))?, note })
    });
    (choices.collect(), candidates.first().map(|(name, _)| name.as_str()))
}

fn rule<'a>(disk: &Disk, mut all: impl Iterator<Item = &'a Disk>) -> Option<Rule> {
    if let Some(by_path) = &disk.by_path {
        return Some(Rule::ByPath(by_path.clone()));
    }
    let (bus, size) = (disk.bus.clone()?, disk.size_bytes?);
    let (min, max) = (whole_gib_below(size), ByteSize::from_gib((size >> 30) + 1));
    let meets = |other: &Disk| {
        let within = |size: u64| (min.bytes()..=max.bytes()).contains(&size);
        other.bus == disk.bus && other.size_bytes.is_some_and(within)
    };
    match all.all(|other| other == disk || !meets(other)) {
        true => Some(Rule::BusAndSize { bus, min, max }),
        false => disk.serial.clone().map(Rule::Serial),
    }
}

/// Every NVMe controller but the one of the system, by NUMA node.
fn ssds(facts: &Facts, system: Option<&str>) -> BTreeMap<Option<u32>, Vec<SsdChoice>> {
    let disk_at =
        |address: &str| facts.disks.iter().find(|(_, disk)| disk.pci.as_deref() == Some(address));
    let of_lspci = facts.pci.iter().filter(|(_, device)| device.class == "0108").map(|(at, _)| at);
    let of_lsblk = facts.disks.values().filter(|disk| is_nvme(disk)).filter_map(|d| d.pci.as_ref());
    let mut addresses: Vec<&String> =
        of_lspci.chain(of_lsblk).chain(facts.daos_ssds.keys()).collect();
    addresses.sort();
    addresses.dedup();
    let mut ssds: BTreeMap<Option<u32>, Vec<SsdChoice>> = BTreeMap::new();
    for address in addresses {
        let disk = disk_at(address);
        if disk.is_some_and(|(name, disk)| Some(name.as_str()) == system || holds_system(disk)) {
            continue;
        }
        let device = facts.pci.get(address);
        let note = match (disk, device) {
            (Some((name, disk)), _) => describe(name, disk),
            (None, Some(device)) => device.name.clone(),
            (None, None) => String::new(),
        };
        let numa = numa_of(facts, address).or(facts.daos_ssds.get(address).copied().flatten());
        let obstacle = obstacle(address, disk.map(|(_, disk)| disk));
        ssds.entry(numa).or_default().push(SsdChoice { address: address.clone(), note, obstacle });
    }
    ssds
}

fn obstacle(address: &str, disk: Option<&Disk>) -> Option<String> {
    if address.split(':').next().is_some_and(|domain| domain.len() > 4) {
        // Domains above ffff are made by the vmd driver; DAOS takes the address of the VMD
        // (docs/admin/deployment.md, "Enable Intel VMD").
        return Some("behind Intel VMD: DAOS takes the VMD's own address instead".to_owned());
    }
    let disk = disk?;
    if is_boot_device(disk) {
        return Some("sold for the system, not for data".to_owned());
    }
    disk.holds.as_ref().map(|holds| format!("holds {holds}: is that still wanted?"))
}

/// The NUMA node of a device; a box with one node has no other.
fn numa_of(facts: &Facts, address: &str) -> Option<u32> {
    let said = facts.pci.get(address).and_then(|device| device.numa);
    said.or((facts.numa_nodes.or(facts.sockets) == Some(1)).then_some(0))
}

/// A port as it was found, before it is planned.
struct Port<'a> {
    kernel_name: Option<&'a str>,
    pci: Option<String>,
    nic: Nic,
    is_infiniband: bool,
    rdma: Option<&'a str>,
    device: Option<&'a PciDevice>,
}

fn nics(facts: &Facts) -> Vec<NicChoice> {
    let ports = ports(facts);
    let boot = boot_port(facts, &ports);
    let has_infiniband = ports.iter().any(|port| port.is_infiniband);
    let use_of = |at: usize, port: &Port<'_>| match () {
        () if Some(at) == boot => NicUse::Boot,
        () if port.is_infiniband => NicUse::InfinibandFabric,
        () if !has_infiniband && port.rdma.is_some() => NicUse::EthernetFabric,
        () => NicUse::Spare,
    };
    let (mut n_lan, mut n_fab) = (1, 0);
    let mut choices: Vec<NicChoice> = ports
        .iter()
        .enumerate()
        .map(|(at, port)| {
            let use_ = use_of(at, port);
            let numbered = |prefix: &str, count: &mut u32| {
                *count += 1;
                format!("{prefix}{}", *count - 1)
            };
            let (key, name) = match use_ {
                NicUse::Boot => ("mgmt".to_owned(), "lan0".to_owned()),
                NicUse::Spare => {
                    let name = numbered("lan", &mut n_lan);
                    (name.clone(), name)
                }
                NicUse::InfinibandFabric | NicUse::EthernetFabric => {
                    let name = numbered("fab", &mut n_fab);
                    (name.clone(), name)
                }
            };
            nic_choice(facts, port, use_, key, name)
        })
        .collect();
    choices.sort_by_key(|choice| match choice.use_ {
        NicUse::Boot => 0,
        NicUse::InfinibandFabric | NicUse::EthernetFabric => 1,
        NicUse::Spare => 2,
    });
    choices
}

fn nic_choice(
    facts: &Facts,
    port: &Port<'_>,
    use_: NicUse,
    key: String,
    name: String,
) -> NicChoice {
    let is_fabric = matches!(use_, NicUse::InfinibandFabric | NicUse::EthernetFabric);
    let (domain, of_domain) = match is_fabric {
        true => domain(facts, port),
        false => (None, None),
    };
    let state = port.kernel_name.map(|name| {
        let state = if port.nic.is_up { "up" } else { "down" };
        format!("{name} here, {state}")
    });
    let ips = port.nic.ips.iter().cloned().collect::<Vec<_>>().join(" ");
    let device = port.device.map(|device| device.name.clone());
    let notes = [state, Some(ips).filter(|ips| !ips.is_empty()), device, of_domain];
    let numa = port.nic.numa.or(port.pci.as_ref().and_then(|pci| numa_of(facts, pci)));
    NicChoice {
        key,
        name,
        pci: port.pci.clone(),
        domain,
        // Only the fabric's matters, and a box with one node need not say it.
        numa: numa.filter(|_| is_fabric),
        use_,
        note: notes.into_iter().flatten().collect::<Vec<_>>().join(", "),
        address: port.nic.address.as_ref().and_then(|address| own_address(address)),
    }
}

/// A MAC address, or the GUID at the end of an InfiniBand address of 20 octets.
fn own_address(address: &str) -> Option<String> {
    let octets: Vec<&str> = address.split(':').collect();
    match octets.len() {
        6 => Some(address.to_owned()),
        20 => Some(octets[12..].concat()),
        _ => None,
    }
}

/// Ports in the order of the bus: those lspci knows, and those only ip knows.
fn ports(facts: &Facts) -> Vec<Port<'_>> {
    let real: Vec<(&String, &Nic, Option<String>)> = facts
        .nics
        .iter()
        .filter(|(name, nic)| !nic.is_virtual && name.as_str() != "lo")
        .map(|(name, nic)| (name, nic, nic.pci.clone().or_else(|| address_of_name(name))))
        .collect();
    let is_port = |device: &PciDevice| {
        matches!(device.class.as_str(), "0200" | "0207")
            && !device.name.contains("Virtual Function")
    };
    let mut ports = Vec::new();
    for (address, device) in facts.pci.iter().filter(|(_, device)| is_port(device)) {
        let found = real.iter().find(|(_, _, pci)| pci.as_ref() == Some(address));
        let nic = found.map(|(_, nic, _)| (*nic).clone()).unwrap_or_default();
        ports.push(Port {
            kernel_name: found.map(|(name, _, _)| name.as_str()),
            is_infiniband: match nic.link_type.as_deref() {
                Some(link_type) => link_type == "infiniband",
                None => device.class == "0207",
            },
            rdma: rdma_at(facts, address),
            device: Some(device),
            pci: Some(address.clone()),
            nic,
        });
    }
    let has_listed = !ports.is_empty();
    for (name, nic, pci) in real {
        let is_known = match &pci {
            Some(pci) => facts.pci.get(pci).is_some_and(is_port),
            // Without its place it may be any of those lspci told of.
            None => has_listed,
        };
        if nic.link_type.is_none() || is_known {
            continue;
        }
        let rdma = pci.as_ref().and_then(|pci| rdma_at(facts, pci));
        let is_infiniband = nic.link_type.as_deref() == Some("infiniband");
        let nic = nic.clone();
        ports.push(Port { kernel_name: Some(name), pci, nic, is_infiniband, rdma, device: None });
    }
    ports.sort_by(|a, b| (&a.pci, a.kernel_name).cmp(&(&b.pci, b.kernel_name)));
    ports
}

fn rdma_at<'a>(facts: &'a Facts, address: &str) -> Option<&'a str> {
    let found = facts.rdma.iter().find(|(_, rdma)| rdma.pci.as_deref() == Some(address));
    found.map(|(name, _)| name.as_str())
}

/// The PCI address in a name like `enp23s0f1np1` or `ibp23s0`, whose numbers are decimal
/// (systemd.net-naming-scheme(7)).
fn address_of_name(name: &str) -> Option<String> {
    let rest = name.strip_prefix("en").or_else(|| name.strip_prefix("ib"))?;
    let (domain, rest) = match rest.strip_prefix('P') {
        Some(rest) => number(rest)?,
        None => (0, rest),
    };
    let (bus, rest) = number(rest.strip_prefix('p')?)?;
    let (slot, rest) = number(rest.strip_prefix('s')?)?;
    let function = match rest.strip_prefix('f') {
        Some(rest) => number(rest)?.0,
        None => 0,
    };
    let address = format!("{domain:04x}:{bus:02x}:{slot:02x}.{function:x}");
    address.parse::<PciAddress>().ok().map(|address| address.as_str().to_owned())
}

/// The number at the start of `text`, and what follows it.
fn number(text: &str) -> Option<(u32, &str)> {
    let n_digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at(n_digits);
    Some((digits.parse().ok()?, rest))
}

/// The port the box booted from, or the likeliest: with an address, up, first on the bus.
fn boot_port(facts: &Facts, ports: &[Port<'_>]) -> Option<usize> {
    let bootif = facts.kernel_line.as_ref().and_then(|line| {
        let word = line.split_whitespace().find_map(|word| word.strip_prefix("BOOTIF="))?;
        Some(word.strip_prefix("01-")?.replace('-', ":").to_ascii_lowercase())
    });
    let ethernet = || ports.iter().enumerate().filter(|(_, port)| !port.is_infiniband);
    let booted = ethernet().find(|(_, port)| bootif.is_some() && port.nic.address == bootif);
    let likeliest =
        || ethernet().min_by_key(|(at, port)| (port.nic.ips.is_empty(), !port.nic.is_up, *at));
    booted.or_else(likeliest).map(|(at, _)| at)
}

/// The fabric domain of a port, and what to know of it.
///
/// EL8's own rdma-core renames `mlx5_0` by its place (`ibp23s0`); MLNX_OFED leaves the names
/// the driver gives, in the order of the bus.
fn domain(facts: &Facts, port: &Port<'_>) -> (Option<String>, Option<String>) {
    let is_mellanox = port.device.is_some_and(|device| device.vendor == "15b3");
    match (port.rdma, &port.pci) {
        (Some(name), _) if name.starts_with("mlx5_") || !is_mellanox => {
            (Some(name.to_owned()), None)
        }
        (named, Some(pci)) if is_mellanox => {
            let is_one = |device: &&PciDevice| {
                device.vendor == "15b3"
                    && device.class.starts_with("02")
                    && !device.name.contains("Virtual Function")
            };
            let before = facts.pci.range(..pci.clone()).map(|(_, device)| device);
            let domain = format!("mlx5_{}", before.filter(is_one).count());
            let note = match named {
                Some(name) => format!("DECIDE: {name} here, {domain} with MLNX_OFED"),
                None => "DECIDE: the domain is counted along the bus; `fi_info` tells".to_owned(),
            };
            (Some(domain), Some(note))
        }
        (named, _) => (named.map(str::to_owned), None),
    }
}
