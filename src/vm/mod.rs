//! The virtual machine that a node is in a lab: the planned hardware, as QEMU can emulate it.
//!
//! [`Machine::of`] lays it out: which devices there are, and at which PCI address each is, so
//! that the first boot finds what the plan says. [`qemu`] and [`libvirt`] put it into words.
//! Nothing here looks at a disk or starts a program.

pub mod installer;
pub mod libvirt;
mod place;
pub mod qemu;
pub mod seed;

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::{BdevClass, Cluster, CpuVendor, Firmware, Hw, Kind, Link, Nic, Node, Vm};
use crate::daos::rules::n_cores_needed;
use crate::diag::{Diagnostic, Span, codes};
use crate::format::digest::Digest;
use crate::format::qcow2::DiskFormat;
use crate::net::MacAddr;
use crate::units::ByteSize;

pub use place::{ExpanderBus, Place};

use place::Slots;

/// What a serial number of a data disk begins with. `%pre` never installs on such a disk.
pub const DATA_SERIAL: &str = "nfdata-";

/// A node as a virtual machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    pub name: String,
    /// The same for the same node of the same cluster.
    pub uuid: String,
    /// What DMI says of the box, if the inventory knows it.
    pub serial: Option<String>,
    pub firmware: Firmware,
    pub cpu: CpuVendor,
    pub memory: ByteSize,
    pub sockets: u32,
    pub cores_per_socket: u32,
    /// How many cores each NUMA node has.
    pub numa: Vec<u32>,
    pub has_iommu: bool,
    /// The number of the serial port that is the console.
    pub console: u32,
    /// What the installed system is booted with: the arguments of the kernel.
    pub kernel_line: String,
    /// Further root buses, by number, that planned addresses ask for.
    pub buses: Vec<ExpanderBus>,
    /// The system disk is the first.
    pub disks: Vec<Disk>,
    pub nics: Vec<VmNic>,
    /// Of the source of random numbers.
    pub rng: Place,
}

/// A disk of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// `system`, `seed`, `data0`, …: also how QEMU calls it.
    pub id: String,
    /// The name of its file.
    pub file: String,
    pub format: DiskFormat,
    pub size: ByteSize,
    pub bus: DiskBus,
    pub serial: String,
    pub use_: DiskUse,
    pub place: Place,
}

/// What a disk is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskUse {
    System,
    /// The files that cloud-init reads; read-only.
    Seed,
    Data,
}

/// How a disk hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskBus {
    Virtio,
    Nvme,
    Sata,
    Scsi,
}

/// A network card of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmNic {
    /// `lan0`, …: how QEMU calls it.
    pub id: String,
    pub network: Network,
    pub mac: MacAddr,
    pub place: Place,
}

/// Where a network card leads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Network {
    /// The lab's own Ethernet for this `net` of the cluster file.
    Lab(String),
    /// QEMU's user network: the way out, which no profile of the node configures.
    Outside,
}

/// Whether a machine gets a card for [`Network::Outside`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WayOut {
    Open,
    None,
}

impl Machine {
    /// The machine of `node`.
    ///
    /// # Errors
    ///
    /// Everything that keeps the hardware of the node from being emulated.
    pub fn of(cluster: &Cluster, node: &Node, way_out: WayOut) -> Result<Self, Vec<Diagnostic>> {
        let kind = cluster.kind_of(node);
        let Some(vm) = &kind.hw.vm else { return Err(vec![no_vm(node, kind)]) };
        let mut slots = Slots::default();
        let ssds = planned_ssds(kind, &mut slots);
        let nics = planned_nics(cluster, node, kind, &mut slots);
        // A kernel counts disks by their slots: the seed is not to stand between the others.
        let system = system_disk(node, kind, vm, &mut slots);
        let data = data_disks(node, kind, vm, &ssds, &mut slots);
        let seed = seed_disk(node, &mut slots);
        let outside = (way_out == WayOut::Open).then(|| VmNic {
            id: "outside".to_owned(),
            network: Network::Outside,
            mac: made_mac(cluster, node, "the way out"),
            place: slots.free(),
        });
        let rng = slots.free();
        let sockets = kind.hw.sockets.max(1);
        let cores = kind.hw.cores.as_ref().map_or(2, |cores| cores.value);
        let cores_per_socket = cores.div_ceil(sockets).max(1);
        let buses = slots.finish()?;
        Ok(Self {
            name: node.name.as_str().to_owned(),
            uuid: uuid(cluster, node),
            serial: node.serial.clone(),
            firmware: kind.hw.firmware,
            cpu: kind.hw.cpu,
            memory: kind.hw.memory.value,
            sockets,
            cores_per_socket,
            numa: numa_nodes(kind, sockets * cores_per_socket),
            has_iommu: vm.has_iommu,
            console: console_port(&kind.hw),
            kernel_line: kernel_line(kind),
            buses,
            disks: [system, seed].into_iter().chain(data).collect(),
            nics: nics.into_iter().chain(outside).collect(),
            rng,
        })
    }

    /// The first and the last core of each NUMA node, none of one without cores, and its memory in
    /// MiB: equal shares, the last with what is over.
    pub fn numa_nodes(&self) -> impl Iterator<Item = (Option<[u32; 2]>, u64)> {
        let (total, n_nodes) = (self.memory.mib(), self.numa.len() as u64);
        let mut first = 0;
        self.numa.iter().enumerate().map(move |(at, n_cores)| {
            let cores = (*n_cores > 0).then_some([first, first + n_cores.saturating_sub(1)]);
            first += n_cores;
            let is_last = at + 1 == self.numa.len();
            (cores, total / n_nodes + if is_last { total % n_nodes } else { 0 })
        })
    }

    /// The networks that the machine is on, beside the way out.
    pub fn lab_networks(&self) -> impl Iterator<Item = &str> {
        self.nics.iter().filter_map(|nic| match &nic.network {
            Network::Lab(net) => Some(net.as_str()),
            Network::Outside => None,
        })
    }

    pub fn disks_for(&self, use_: DiskUse) -> impl Iterator<Item = &Disk> {
        self.disks.iter().filter(move |disk| disk.use_ == use_)
    }
}

/// The networks that `machines` are on, sorted.
pub fn networks<'m>(machines: impl IntoIterator<Item = &'m Machine>) -> BTreeSet<&'m str> {
    machines.into_iter().flat_map(Machine::lab_networks).collect()
}

fn no_vm(node: &Node, kind: &Kind) -> Diagnostic {
    let hw = &kind.hw.name;
    Diagnostic::error(codes::NO_VM, format!("hw `{}` is no virtual machine", hw.value))
        .at_labelled(hw.span, format!("of {}", node.name))
        .help(format!("add to hw.{}: vm = {{ disk = \"48GiB\" }}", hw.value))
}

fn not_emulated(span: Span, message: String) -> Diagnostic {
    Diagnostic::error(codes::NOT_EMULATED, message).at(span)
}

fn planned_nics(cluster: &Cluster, node: &Node, kind: &Kind, slots: &mut Slots) -> Vec<VmNic> {
    let mut nics = Vec::new();
    // Those with an address of their own first: the others take what is left.
    for (nic, of_node) in kind.hw.nics.iter().zip(&node.nics) {
        let place = match (&nic.link, &nic.pci) {
            (Link::Vlan { .. } | Link::Bond { .. }, _) => continue,
            (Link::Infiniband, _) => {
                let message = format!("nic `{}` is InfiniBand, which QEMU does not have", nic.key);
                slots.problem(not_emulated(nic.span, message));
                continue;
            }
            (Link::Ethernet, Some(pci)) => Some(slots.planned(
                pci.value.as_str(),
                nic.numa.as_ref().map(|n| n.value),
                pci.span,
            )),
            (Link::Ethernet, None) => slot_in_name(&nic.name.value).and_then(|slot| slots.at(slot)),
        };
        let network = Network::Lab(net_of(&kind.hw, nic));
        let mac = of_node.mac.unwrap_or_else(|| made_mac(cluster, node, &nic.key));
        nics.push((nic.key.clone(), network, mac, place));
    }
    let nics = nics.into_iter().map(|(id, network, mac, place)| {
        let place = place.unwrap_or_else(|| slots.free());
        VmNic { id: format!("nic-{id}"), network, mac, place }
    });
    nics.collect()
}

/// The slot on the first bus in the kernel's own name of a card: 8 in `enp0s8`. The name comes
/// by itself there, and no other card wants it.
fn slot_in_name(name: &str) -> Option<u8> {
    name.strip_prefix("enp0s")?.parse().ok()
}

/// The Ethernet that a card is plugged into: its own, or that of what is made of it.
fn net_of(hw: &Hw, nic: &Nic) -> String {
    let made_of_it = |other: &&Nic| match &other.link {
        Link::Bond { members, .. } => members.contains(&nic.key),
        _ => false,
    };
    let bond = hw.nics.iter().find(made_of_it).and_then(|bond| bond.net.as_ref());
    nic.net.as_ref().or(bond).map_or_else(|| nic.key.clone(), |net| net.value.clone())
}

/// The places of the SSDs that the node's engines use, by their addresses.
fn planned_ssds(kind: &Kind, slots: &mut Slots) -> BTreeMap<String, Place> {
    let mut places = BTreeMap::new();
    for engine in &kind.engines {
        let numa = engine.numa.as_ref().map(|numa| numa.value);
        let tiers = engine.bdevs.iter().filter(|bdev| bdev.class.value == BdevClass::Nvme);
        for ssd in tiers.flat_map(|bdev| &bdev.list.value) {
            let place = || slots.planned(&ssd.value, numa, ssd.span);
            places.entry(ssd.value.clone()).or_insert_with(place);
        }
    }
    places
}

/// The SSDs that the node's engines use, and a disk for each block device that a path names.
fn data_disks(
    node: &Node,
    kind: &Kind,
    vm: &Vm,
    ssds: &BTreeMap<String, Place>,
    slots: &mut Slots,
) -> Vec<Disk> {
    let tiers = kind.engines.iter().flat_map(|engine| &engine.bdevs);
    let paths = tiers.filter(|bdev| bdev.class.value == BdevClass::Kdev);
    let paths: BTreeSet<&str> =
        paths.flat_map(|bdev| &bdev.list.value).map(|path| path.value.as_str()).collect();
    let of_ssds = ssds.values().map(|place| (DiskBus::Nvme, *place)).collect::<Vec<_>>();
    let of_paths = paths.into_iter().map(|path| (bus_of_path(path), slots.free()));
    let placed = of_ssds.into_iter().chain(of_paths);
    let disks = placed.enumerate().map(|(at, (bus, place))| Disk {
        id: format!("data{at}"),
        file: format!("{}-data{at}.raw", node.name),
        format: DiskFormat::Raw,
        size: vm.ssd,
        bus,
        serial: format!("{DATA_SERIAL}{at}"),
        use_: DiskUse::Data,
        place,
    });
    disks.collect()
}

/// The bus that makes a kernel call a disk so.
fn bus_of_path(path: &str) -> DiskBus {
    match path.strip_prefix("/dev/") {
        Some(name) if name.starts_with("nvme") => DiskBus::Nvme,
        Some(name) if name.starts_with("sd") => DiskBus::Scsi,
        _ => DiskBus::Virtio,
    }
}

fn system_disk(node: &Node, kind: &Kind, vm: &Vm, slots: &mut Slots) -> Disk {
    let rule = &kind.hw.install_disk;
    let bus = match rule.bus.as_deref() {
        Some("nvme") => DiskBus::Nvme,
        Some("sata") => DiskBus::Sata,
        Some("sas" | "scsi") => DiskBus::Scsi,
        _ => DiskBus::Virtio,
    };
    Disk {
        id: "system".to_owned(),
        file: format!("{}.qcow2", node.name),
        format: DiskFormat::Qcow2,
        size: vm.disk,
        bus,
        serial: rule.serial.clone().unwrap_or_else(|| "nfsystem".to_owned()),
        use_: DiskUse::System,
        place: if bus == DiskBus::Sata { Place::Sata } else { slots.free() },
    }
}

fn seed_disk(node: &Node, slots: &mut Slots) -> Disk {
    Disk {
        id: "seed".to_owned(),
        file: format!("{}-seed.img", node.name),
        format: DiskFormat::Raw,
        size: ByteSize::default(),
        bus: DiskBus::Virtio,
        serial: "nfseed".to_owned(),
        use_: DiskUse::Seed,
        place: slots.free(),
    }
}

/// Equal shares of `n_cores`, unless that is too few for the engines of a NUMA node and others
/// have some over.
fn numa_nodes(kind: &Kind, n_cores: u32) -> Vec<u32> {
    let of_nics = kind.hw.nics.iter().filter_map(|nic| nic.numa.as_ref());
    let of_engines = kind.engines.iter().filter_map(|engine| engine.numa.as_ref());
    let highest = of_nics.chain(of_engines).map(|numa| numa.value).max();
    let n_nodes = highest.map_or(1, |numa| numa + 1).max(kind.hw.sockets);
    let needed = |numa: u32| -> u32 {
        let engines = kind.engines.iter();
        let there =
            engines.filter(|engine| engine.numa.as_ref().is_some_and(|it| it.value == numa));
        there.map(n_cores_needed).sum::<u32>().max(1)
    };
    let needed: Vec<u32> = (0..n_nodes).map(needed).collect();
    let end = |node: u32| node * n_cores / n_nodes;
    let equal = (0..n_nodes).map(|node| end(node + 1) - end(node)).collect();
    shared_by_need(equal, &needed)
}

/// Moves cores, one by one, from the node with most over to one with too few.
fn shared_by_need(mut cores: Vec<u32>, needed: &[u32]) -> Vec<u32> {
    loop {
        let poor = (0..cores.len()).find(|at| cores[*at] < needed[*at]);
        let rich = (0..cores.len()).max_by_key(|at| cores[*at].saturating_sub(needed[*at]));
        match (poor, rich.filter(|at| cores[*at] > needed[*at])) {
            (Some(poor), Some(rich)) => {
                cores[rich] -= 1;
                cores[poor] += 1;
            }
            _ => return cores,
        }
    }
}

/// 1 for `ttyS1,115200`.
fn console_port(hw: &Hw) -> u32 {
    let console = hw.console.as_deref().unwrap_or("ttyS0");
    let port = console.split(',').next().and_then(|port| port.strip_prefix("ttyS"));
    port.and_then(|port| port.parse().ok()).filter(|port| *port < 4).unwrap_or(0)
}

/// As the kickstart's `bootloader --append` has it.
fn kernel_line(kind: &Kind) -> String {
    let console = kind
        .hw
        .console
        .iter()
        .flat_map(|console| ["console=tty0".to_owned(), format!("console={console}")]);
    let words: Vec<String> = console.chain(kind.os.kernel_args.iter().cloned()).collect();
    words.join(" ")
}

fn digest_of(cluster: &Cluster, node: &Node, what: &str) -> Digest {
    Digest::of(format!("{}\0{}\0{what}", cluster.name, node.name).as_bytes())
}

/// A locally administered address for a card that the cluster file gives none.
fn made_mac(cluster: &Cluster, node: &Node, what: &str) -> MacAddr {
    let digest = digest_of(cluster, node, what);
    let own = digest.as_bytes();
    MacAddr::from_octets([0x02, own[0], own[1], own[2], own[3], own[4]])
}

fn uuid(cluster: &Cluster, node: &Node) -> String {
    uuid_of(&digest_of(cluster, node, "machine"))
}

/// Of version 8, "custom" (RFC 9562 §5.8).
fn uuid_of(digest: &Digest) -> String {
    let mut bytes = digest.as_bytes()[..16].to_owned();
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_shared_evenly_unless_engines_need_more_on_one_numa_node() {
        for (equal, needed, expected) in [
            (vec![4], vec![3], vec![4]),
            (vec![2, 2], vec![1, 1], vec![2, 2]),
            (vec![2, 2], vec![1, 3], vec![1, 3]),
            (vec![2, 2], vec![1, 9], vec![1, 3]),
            (vec![0, 1], vec![1, 1], vec![0, 1]),
            (vec![8, 8, 8, 8], vec![1, 12, 1, 1], vec![7, 12, 7, 6]),
        ] {
            let shared = shared_by_need(equal.clone(), &needed);
            assert_eq!(shared, expected, "{equal:?} for {needed:?}");
        }
    }
}
