//! A machine as libvirt's XML, for hosts where libvirt runs the lab.
//!
//! Formats: <https://libvirt.org/formatdomain.html> and formatnetwork. libvirt before 11.5 has
//! no emulated NVMe: such disks are in its passthrough of QEMU's own words.

use std::fmt::Write as _;
use std::path::Path;

use quick_xml::escape::escape;

use crate::cluster::{CpuVendor, Firmware};
use crate::vm::{Disk, DiskBus, DiskUse, Machine, Network, Place, VmNic};

/// The domain of a machine whose disks lie in `folder`, an absolute path. `lab` goes before the
/// names, which are the host's.
pub fn domain(machine: &Machine, lab: &str, folder: &Path) -> String {
    let mut xml = format!(
        "<!-- Made by nodeforge. virsh net-define each NETWORK.xml first. -->\n\
         <domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\n  \
         <name>{}-{}</name>\n  <uuid>{}</uuid>\n  <memory unit='MiB'>{}</memory>\n  \
         <vcpu>{}</vcpu>\n",
        escape(lab),
        escape(&machine.name),
        machine.uuid,
        machine.memory.mib(),
        machine.sockets * machine.cores_per_socket,
    );
    let firmware = if machine.firmware == Firmware::Uefi { " firmware='efi'" } else { "" };
    let smbios = if machine.serial.is_some() { "\n    <smbios mode='sysinfo'/>" } else { "" };
    if let Some(serial) = &machine.serial {
        let serial = escape(serial);
        let _ = writeln!(
            xml,
            "  <sysinfo type='smbios'>\n    <system>\n      <entry name='serial'>{serial}</entry>\n    </system>\n  </sysinfo>"
        );
    }
    let _ = writeln!(
        xml,
        "  <os{firmware}>\n    <type arch='x86_64' machine='q35'>hvm</type>{smbios}\n  </os>"
    );
    let chip = if machine.has_iommu { "<ioapic driver='qemu'/>" } else { "" };
    let _ = writeln!(xml, "  <features><acpi/><apic/>{chip}</features>");
    xml.push_str(&cpu(machine));
    xml.push_str("  <devices>\n");
    let buses = Buses::of(machine);
    xml.push_str(&buses.controllers(machine));
    for (at, disk) in machine.disks.iter().enumerate().filter(|(_, disk)| disk.bus != DiskBus::Nvme)
    {
        xml.push_str(&disk_of(disk, at, folder, &buses));
    }
    for nic in &machine.nics {
        xml.push_str(&interface(nic, lab, &buses));
    }
    let _ = writeln!(
        xml,
        "    <serial type='pty'>\n      <target port='{0}'/>\n    </serial>\n    \
         <console type='pty'>\n      <target type='serial' port='{0}'/>\n    </console>\n    \
         <memballoon model='none'/>\n    <rng model='virtio'>\n      \
         <backend model='random'>/dev/urandom</backend>\n      {1}\n    </rng>",
        machine.console,
        buses.address(machine.rng),
    );
    if machine.has_iommu && machine.cpu == CpuVendor::Intel {
        xml.push_str("    <iommu model='intel'/>\n");
    }
    xml.push_str("  </devices>\n");
    xml.push_str(&passthrough(machine, folder, &buses));
    xml.push_str("</domain>\n");
    xml
}

/// The Ethernet of a lab's `net`, which leads nowhere else.
pub fn network(lab: &str, net: &str) -> String {
    let name = network_name(lab, net);
    format!("<network>\n  <name>{}</name>\n</network>\n", escape(&name))
}

fn network_name(lab: &str, net: &str) -> String {
    format!("{lab}-{net}")
}

fn cpu(machine: &Machine) -> String {
    let (sockets, cores) = (machine.sockets, machine.cores_per_socket);
    let topology = format!("<topology sockets='{sockets}' cores='{cores}' threads='1'/>");
    if machine.numa.len() == 1 || machine.numa.contains(&0) {
        return format!("  <cpu mode='host-passthrough'>\n    {topology}\n  </cpu>\n");
    }
    let mut text = format!("  <cpu mode='host-passthrough'>\n    {topology}\n    <numa>\n");
    for (node, (cores, mib)) in machine.numa_nodes().enumerate() {
        let [first, last] = cores.expect("each has cores");
        let _ = writeln!(
            text,
            "      <cell id='{node}' cpus='{first}-{last}' memory='{mib}' unit='MiB'/>"
        );
    }
    text + "    </numa>\n  </cpu>\n"
}

/// Which of libvirt's controllers leads to each planned bus.
struct Buses(Vec<(u8, usize)>);

impl Buses {
    fn of(machine: &Machine) -> Self {
        let mut index = 0;
        let mut buses = Vec::new();
        for bus in &machine.buses {
            index += usize::from(bus.number > 0);
            for port in &bus.ports {
                index += 1;
                buses.push((*port, index));
            }
        }
        Self(buses)
    }

    fn index(&self, bus: u8) -> usize {
        let found = self.0.iter().find(|(number, _)| *number == bus);
        found.expect("a device is behind a port of its machine").1
    }

    fn controllers(&self, machine: &Machine) -> String {
        let mut xml = String::from("    <controller type='pci' index='0' model='pcie-root'/>\n");
        for bus in &machine.buses {
            let first = self.index(bus.ports[0]);
            let mut parent = 0;
            if bus.number > 0 {
                parent = first - 1;
                let numa = bus.numa.filter(|_| machine.numa.len() > 1);
                let numa = numa.map_or_else(String::new, |numa| format!("<node>{numa}</node>"));
                let (number, place) = (bus.number, root_address(bus.slots[0], 0));
                let _ = writeln!(
                    xml,
                    "    <controller type='pci' index='{parent}' model='pcie-expander-bus'>\n      \
                     <target busNr='{number}'>{numa}</target>\n      {place}\n    </controller>"
                );
            }
            for (at, port) in bus.ports.iter().enumerate() {
                let slot = if bus.number > 0 { at } else { usize::from(bus.slots[at]) };
                let _ = writeln!(
                    xml,
                    "    <controller type='pci' index='{}' model='pcie-root-port'>\n      \
                     <address type='pci' domain='0x0000' bus='0x{parent:02x}' slot='0x{slot:02x}' function='0x0'/>\n    \
                     </controller>",
                    self.index(*port)
                );
            }
        }
        xml
    }

    fn address(&self, place: Place) -> String {
        match place {
            Place::Root { slot, function } => root_address(slot, function),
            Place::Port { bus, function } => format!(
                "<address type='pci' domain='0x0000' bus='0x{:02x}' slot='0x00' function='0x{function}'/>",
                self.index(bus)
            ),
            Place::Sata => "<address type='drive' controller='0' bus='0' unit='0'/>".to_owned(),
        }
    }
}

fn root_address(slot: u8, function: u8) -> String {
    format!(
        "<address type='pci' domain='0x0000' bus='0x00' slot='0x{slot:02x}' function='0x{function}'/>"
    )
}

fn disk_of(disk: &Disk, at: usize, folder: &Path, buses: &Buses) -> String {
    let letter = char::from(b'a' + u8::try_from(at % 26).expect("below 26"));
    let (name, bus) = match disk.bus {
        DiskBus::Virtio => (format!("vd{letter}"), "virtio"),
        DiskBus::Sata => (format!("sd{letter}"), "sata"),
        DiskBus::Scsi => (format!("sd{letter}"), "scsi"),
        DiskBus::Nvme => unreachable!("the caller leaves these out"),
    };
    let (read_only, boot) = match disk.use_ {
        DiskUse::Seed => ("      <readonly/>\n", ""),
        DiskUse::System => ("", "      <boot order='1'/>\n"),
        DiskUse::Data => ("", ""),
    };
    // A SCSI disk is at a controller that libvirt adds.
    let place = match disk.bus {
        DiskBus::Scsi => String::new(),
        _ => format!("      {}\n", buses.address(disk.place)),
    };
    let path = folder.join(&disk.file).display().to_string();
    format!(
        "    <disk type='file' device='disk'>\n      \
         <driver name='qemu' type='{}'/>\n      <source file='{}'/>\n      \
         <target dev='{name}' bus='{bus}'/>\n{read_only}      <serial>{}</serial>\n{boot}{place}    </disk>\n",
        disk.format.as_str(),
        escape(&path),
        escape(&disk.serial),
    )
}

fn interface(nic: &VmNic, lab: &str, buses: &Buses) -> String {
    let (kind, source) = match &nic.network {
        Network::Outside => ("user", String::new()),
        Network::Lab(net) => {
            let name = network_name(lab, net);
            ("network", format!("      <source network='{}'/>\n", escape(&name)))
        }
    };
    format!(
        "    <interface type='{kind}'>\n      <mac address='{}'/>\n{source}      \
         <model type='virtio'/>\n      <rom enabled='no'/>\n      {}\n    </interface>\n",
        nic.mac,
        buses.address(nic.place),
    )
}

/// What libvirt has no words for.
fn passthrough(machine: &Machine, folder: &Path, buses: &Buses) -> String {
    let mut words: Vec<String> = Vec::new();
    if machine.has_iommu && machine.cpu == CpuVendor::Amd {
        words.extend(["-device".to_owned(), "amd-iommu".to_owned()]);
    }
    for disk in machine.disks.iter().filter(|disk| disk.bus == DiskBus::Nvme) {
        let (id, serial) = (&disk.id, &disk.serial);
        let file = folder.join(&disk.file).display().to_string().replace(',', ",,");
        let place = match disk.place {
            Place::Root { slot, function } => format!("bus=pcie.0,addr=0x{slot:x}.{function}"),
            Place::Port { bus, function } => {
                format!("bus=pci.{},addr=0x0.{function}", buses.index(bus))
            }
            Place::Sata => unreachable!("an SSD is no SATA disk"),
        };
        let boot = if disk.use_ == DiskUse::System { ",bootindex=1" } else { "" };
        let format = disk.format.as_str();
        words.extend([
            "-drive".to_owned(),
            format!("if=none,id={id},format={format},file={file}"),
            "-device".to_owned(),
            format!("nvme,drive={id},serial={serial}{boot},{place}"),
        ]);
    }
    if words.is_empty() {
        return String::new();
    }
    let arguments: String =
        words.iter().map(|word| format!("    <qemu:arg value='{}'/>\n", escape(word))).collect();
    format!("  <qemu:commandline>\n{arguments}  </qemu:commandline>\n")
}
