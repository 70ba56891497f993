//! A machine as QEMU's command line, for 6.2 (EL8) and later.

use std::fmt::Write as _;

use crate::cluster::{CpuVendor, Firmware};
use crate::vm::{Disk, DiskBus, DiskUse, Machine, Network, Place, VmNic};

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    Kvm,
    /// QEMU's own emulation, with a thread for all processors of a guest or one for each.
    Tcg(Threads),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    One,
    EachProcessor,
}

/// What a machine's command line has beside the machine itself.
pub struct Surroundings<'a> {
    pub accelerator: Accelerator,
    /// QEMU's `-netdev` for a card, without its id.
    pub netdev: &'a dyn Fn(&VmNic) -> String,
    /// The `-chardev`, without its id, that is the console.
    pub console: &'a str,
    /// Of UEFI: the firmware and the machine's own variables.
    pub uefi: Option<Uefi<'a>>,
    /// What is written may be lost when the host itself fails, for guests that are quicker.
    pub cache: Cache,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uefi<'a> {
    pub code: &'a str,
    pub variables: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// What a guest flushes is on the host's disk.
    Durable,
    /// What a guest flushes is in the host's memory, which outlives QEMU.
    InMemory,
}

/// Processors of an emulator without what costs it much and shows nothing: `rep stosb`, by
/// which a kernel with `erms` clears hugepages, goes byte by byte there, and each change of
/// `smap`'s flag ends a block of translated code. EL8 needs none of these.
const EMULATED_CPU: &str = "erms=off,fsrm=off,avx=off,avx2=off,smap=off,smep=off,umip=off,\
                            pku=off,xsave=off,la57=off";

/// The words of the command line after the program.
pub fn arguments(machine: &Machine, around: &Surroundings<'_>) -> Vec<String> {
    let mut words = Words::default();
    words.add("-name", format!("guest={}", machine.name));
    base(&mut words, machine, around.accelerator);
    words.add("-nodefaults", "-no-user-config".to_owned());
    words.add("-display", "none".to_owned());
    memory(&mut words, machine);
    if let Some(serial) = &machine.serial {
        words.add("-smbios", format!("type=1,serial={}", escaped(serial)));
    }
    if let Some(uefi) = &around.uefi {
        let [code, variables] = [uefi.code, uefi.variables].map(escaped);
        words.add("-drive", format!("if=pflash,unit=0,format=raw,readonly=on,file={code}"));
        words.add("-drive", format!("if=pflash,unit=1,format=raw,file={variables}"));
    }
    buses(&mut words, machine);
    for disk in &machine.disks {
        add_disk(&mut words, disk, around.cache);
    }
    for nic in &machine.nics {
        words.add("-netdev", format!("{},id={}", (around.netdev)(nic), nic.id));
        let (id, mac, place) = (&nic.id, nic.mac, at(nic.place));
        words.add("-device", format!("virtio-net-pci,netdev={id},mac={mac},romfile={place}"));
    }
    words.add("-device", format!("virtio-rng-pci{}", at(machine.rng)));
    words.add("-chardev", format!("{},id=console", around.console));
    for _ in 0..machine.console {
        words.add("-serial", "null".to_owned());
    }
    words.add("-serial", "chardev:console".to_owned());
    words.0
}

#[derive(Default)]
struct Words(Vec<String>);

impl Words {
    fn add(&mut self, option: &str, value: String) {
        self.0.extend([option.to_owned(), value]);
    }
}

fn base(words: &mut Words, machine: &Machine, accelerator: Accelerator) {
    // An emulated IOMMU and KVM agree only with an interrupt controller that is QEMU's.
    let chip = match (machine.has_iommu, accelerator) {
        (true, Accelerator::Kvm) => ",kernel-irqchip=split",
        _ => "",
    };
    let memory = if machine.numa.len() == 1 { ",memory-backend=memory0" } else { "" };
    words.add("-machine", format!("q35{chip}{memory}"));
    let (accelerator, cpu) = match accelerator {
        Accelerator::Kvm => ("kvm".to_owned(), "host".to_owned()),
        Accelerator::Tcg(threads) => {
            let threads = if threads == Threads::One { "single" } else { "multi" };
            let vendor = match machine.cpu {
                CpuVendor::Intel => "GenuineIntel",
                CpuVendor::Amd => "AuthenticAMD",
            };
            (format!("tcg,thread={threads}"), format!("max,vendor={vendor},{EMULATED_CPU}"))
        }
    };
    words.add("-accel", accelerator);
    words.add("-cpu", cpu);
    let (sockets, cores) = (machine.sockets, machine.cores_per_socket);
    let total = sockets * cores;
    words.add("-smp", format!("{total},sockets={sockets},cores={cores},threads=1"));
    words.add("-uuid", machine.uuid.clone());
}

/// Taken from the host only as the guest touches it.
fn memory(words: &mut Words, machine: &Machine) {
    words.add("-m", format!("{}M", machine.memory.mib()));
    for (node, (cores, mib)) in machine.numa_nodes().enumerate() {
        words.add("-object", format!("memory-backend-ram,id=memory{node},size={mib}M,reserve=off"));
        if machine.numa.len() > 1 {
            let cpus =
                cores.map_or_else(String::new, |[first, last]| format!(",cpus={first}-{last}"));
            words.add("-numa", format!("node,nodeid={node},memdev=memory{node}{cpus}"));
        }
    }
}

fn buses(words: &mut Words, machine: &Machine) {
    if machine.has_iommu {
        let device = match machine.cpu {
            CpuVendor::Intel => "intel-iommu",
            CpuVendor::Amd => "amd-iommu",
        };
        words.add("-device", device.to_owned());
    }
    let mut chassis = 0;
    for bus in &machine.buses {
        let number = bus.number;
        let numa = bus.numa.filter(|_| machine.numa.len() > 1);
        let numa = numa.map_or_else(String::new, |numa| format!(",numa_node={numa}"));
        if number > 0 {
            let slot = bus.slots[0];
            words.add(
                "-device",
                format!(
                    "pxb-pcie,id=root{number:02x},bus_nr={number}{numa},bus=pcie.0,addr=0x{slot:x}"
                ),
            );
        }
        for (at, port) in bus.ports.iter().enumerate() {
            chassis += 1;
            let on = match number {
                0 => format!("pcie.0,addr=0x{:x}", bus.slots[at]),
                _ => format!("root{number:02x},addr=0x{at:x}"),
            };
            words.add(
                "-device",
                format!(
                    "pcie-root-port,id=bus{port:02x},chassis={chassis},slot={chassis},bus={on}"
                ),
            );
        }
    }
}

fn add_disk(words: &mut Words, disk: &Disk, cache: Cache) {
    let cache = match (disk.use_, cache) {
        (DiskUse::Seed, _) => "readonly=on",
        (_, Cache::InMemory) => "discard=unmap,cache=unsafe",
        (_, Cache::Durable) => "discard=unmap",
    };
    let (id, format, file) = (&disk.id, disk.format.as_str(), escaped(&disk.file));
    words.add("-drive", format!("if=none,id={id},format={format},{cache},file={file}"));
    // A kernel given with -kernel has the index 0.
    let boot = if disk.use_ == DiskUse::System { ",bootindex=1" } else { "" };
    let (serial, place) = (escaped(&disk.serial), at(disk.place));
    let device = match disk.bus {
        DiskBus::Virtio => format!("virtio-blk-pci,drive={id},serial={serial}{boot}{place}"),
        DiskBus::Nvme => format!("nvme,drive={id},serial={serial}{boot}{place}"),
        DiskBus::Sata => format!("ide-hd,bus=ide.0,drive={id},serial={serial}{boot}"),
        DiskBus::Scsi => {
            words.add("-device", format!("virtio-scsi-pci,id={id}-scsi{place}"));
            format!("scsi-hd,bus={id}-scsi.0,drive={id},serial={serial}{boot}")
        }
    };
    words.add("-device", device);
}

/// Where a device is, as the end of its `-device`.
fn at(place: Place) -> String {
    match place {
        Place::Root { slot, function: 0 } => format!(",bus=pcie.0,addr=0x{slot:x}"),
        Place::Root { slot, function } => format!(",bus=pcie.0,addr=0x{slot:x}.{function}"),
        Place::Port { bus, function: 0 } => format!(",bus=bus{bus:02x},addr=0x0,multifunction=on"),
        Place::Port { bus, function } => format!(",bus=bus{bus:02x},addr=0x0.{function}"),
        Place::Sata => String::new(),
    }
}

/// A comma in a value of QEMU's is written twice.
pub fn escaped(value: &str) -> String {
    value.replace(',', ",,")
}

/// Where distributions have UEFI for guests: the firmware, and variables to begin with.
pub const UEFI_FIRMWARE: [[&str; 2]; 5] = [
    ["/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"],
    ["/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"],
    ["/usr/share/edk2/ovmf/OVMF_CODE.secboot.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"],
    ["/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"],
    ["/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"],
];

/// Names of QEMU, by distribution: Debian's and Fedora's, then EL's.
pub const PROGRAMS: [&str; 2] = ["qemu-system-x86_64", "/usr/libexec/qemu-kvm"];

/// A shell script that runs the machine in the foreground, its console on the terminal.
pub fn script(machine: &Machine) -> String {
    let netdev = |nic: &VmNic| match &nic.network {
        Network::Outside => "user".to_owned(),
        Network::Lab(net) => {
            format!("stream,server=off,addr.type=unix,addr.path=./lan-{net}.switch")
        }
    };
    let uefi = Uefi { code: "@code@", variables: "@variables@" };
    let words = arguments(
        machine,
        &Surroundings {
            accelerator: Accelerator::Kvm,
            netdev: &netdev,
            console: "stdio,mux=on,signal=off",
            uefi: (machine.firmware == Firmware::Uefi).then_some(uefi),
            cache: Cache::Durable,
        },
    );
    let nets: Vec<&str> = machine.lab_networks().collect();
    let mut text = SCRIPT_HEAD.replace("@NAME@", &machine.name).replace("@NETS@", &nets.join(" "));
    if machine.firmware == Firmware::Uefi {
        text.push_str(&uefi_of_script(&machine.name));
    }
    text.push_str("exec \"$qemu\"");
    for pair in words.chunks(2) {
        let pair: Vec<String> = pair.iter().map(|word| in_script(word)).collect();
        let _ = match pair[0].as_str() {
            "-accel" | "-cpu" => write!(text, " \\\n    {} \"${}\"", pair[0], &pair[0][1..]),
            _ => write!(text, " \\\n    {}", pair.join(" ")),
        };
    }
    text.push_str(" \\\n    -mon console \"$@\"\n");
    text.replace("@TCG@", &in_script(&tcg_cpu(machine)))
}

const SCRIPT_HEAD: &str = r#"#!/bin/sh
# Made by nodeforge: runs @NAME@ as a virtual machine, with its console here. Ctrl-A X ends it,
# Ctrl-A C leads to QEMU's monitor. Words given to this script go to QEMU.
# It wants QEMU 7.2, and the nodes' network: `nodeforge lab switch @NETS@` in this folder, for
# all of them. `nodeforge lab up` starts the whole lab, on older ones too.
set -eu
cd "$(dirname "$0")"
qemu=${QEMU:-$(command -v qemu-system-x86_64 || echo /usr/libexec/qemu-kvm)}
if [ "${ACCEL:-}" != tcg ] && [ -w /dev/kvm ]; then
    accel=kvm cpu=host
else
    accel=tcg cpu=@TCG@
fi
"#;

fn tcg_cpu(machine: &Machine) -> String {
    let mut words = Words::default();
    base(&mut words, machine, Accelerator::Tcg(Threads::EachProcessor));
    let at = words.0.iter().position(|word| word == "-cpu").expect("there is a processor");
    words.0.swap_remove(at + 1)
}

fn uefi_of_script(name: &str) -> String {
    let mut text = String::from("for pair in");
    for [code, variables] in UEFI_FIRMWARE {
        let _ = write!(text, " \\\n    {code}:{variables}");
    }
    let _ = write!(
        text,
        "; do\n    code=${{pair%:*}}\n    [ ! -e \"$code\" ] || break\ndone\n\
         vars={name}-vars.fd\n[ -e \"$vars\" ] || cp \"${{pair#*:}}\" \"$vars\"\n"
    );
    text
}

/// A word as a shell takes it for itself; the firmware's path is a variable of the script.
fn in_script(word: &str) -> String {
    if let Some(before) = word.strip_suffix("@code@") {
        return format!("{before}\"$code\"");
    }
    if let Some(before) = word.strip_suffix("@variables@") {
        return format!("{before}\"$vars\"");
    }
    shlex::try_quote(word).expect("no value of a machine has a NUL").into_owned()
}
