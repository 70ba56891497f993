//! A [`Choice`] as TOML.

use crate::hardware::choose::{Choice, Chosen, DiskChoice, NicChoice, NicUse, Rule, SsdChoice};
use crate::units::ByteSize;

/// The block `[hw.NAME]`, with comments where a person must decide, and below it as a comment
/// what belongs to this one box.
pub fn block(choice: &Choice) -> String {
    let mut lines = vec![
        comment(&format!(
            "Made by `nodeforge generate hw` from the facts of one box: {}",
            choice.title
        )),
        "# A line with DECIDE is a guess: only a person knows.".to_owned(),
        format!("[hw.{}]", choice.name),
    ];
    lines.push(firmware(choice));
    lines.extend(choice.cpu.as_ref().map(|cpu| format!("cpu = {}", text(cpu))));
    lines.extend(memory(choice));
    lines.extend(choice.sockets.as_ref().map(|sockets| said("sockets", sockets.value, sockets)));
    lines.extend(choice.cores.map(|cores| with_note(&format!("cores = {cores}"), "physical")));
    lines.extend(install_disk(&choice.install_disks));
    lines.extend(nics(&choice.nics));
    lines.extend(ssds(choice));
    lines.push(match &choice.console {
        Some(console) => format!("console = {}", text(console)),
        None => {
            "# console = \"ttyS0,115200\"   # the kernel line names no serial console".to_owned()
        }
    });
    lines.push(match &choice.vm {
        Some(vm) => {
            let iommu = if vm.has_iommu { ", iommu = true" } else { "" };
            format!("vm = {{ disk = {}{iommu} }}", size(vm.disk))
        }
        None => "# bmc = { kind = \"redfish\", user = { env = \"BMC_USER\" }, password = { cmd = \"pass bmc\" } }".to_owned(),
    });
    lines.push(String::new());
    lines.extend(own_values(choice));
    lines.join("\n") + "\n"
}

impl Choice {
    /// What an `hw` cannot do without and no fact told, each with the tool that would.
    pub fn missing(&self) -> Vec<&'static str> {
        let rows = [
            (self.firmware.is_none(), "how the box boots: ls -d /sys/firmware/*"),
            (self.memory.is_none(), "the memory: dmidecode -t 17, or /proc/meminfo"),
            (self.install_disks.is_empty(), "the disks: lsblk -J -b -O"),
            (self.boot_nic().is_none(), "an Ethernet port: ip -j addr, or lspci -Dvmmnn"),
        ];
        rows.into_iter().filter(|(is_missing, _)| *is_missing).map(|(_, what)| what).collect()
    }

    fn boot_nic(&self) -> Option<&NicChoice> {
        self.nics.iter().find(|nic| nic.use_ == NicUse::Boot)
    }
}

fn firmware(choice: &Choice) -> String {
    match &choice.firmware {
        Some(firmware) => said("firmware", text(&firmware.value), firmware),
        None => with_note("# firmware = \"uefi\"", "DECIDE: or \"bios\"; no fact tells"),
    }
}

fn memory(choice: &Choice) -> Vec<String> {
    let memory = match &choice.memory {
        Some(memory) => said("memory", size(memory.value), memory),
        None => with_note("# memory = \"256GiB\"", "DECIDE: no fact tells"),
    };
    let total = choice.mem_total.as_ref().map(|total| said("mem_total", size(total.value), total));
    std::iter::once(memory).chain(total).collect()
}

fn install_disk(disks: &[DiskChoice]) -> Vec<String> {
    let line = |disk: &DiskChoice| {
        let rule = match &disk.rule {
            Rule::ByPath(name) => format!("by_path = {}", text(name)),
            Rule::BusAndSize { bus, min, max } => {
                format!("bus = {}, min = {}, max = {}", text(bus), size(*min), size(*max))
            }
            Rule::Serial(serial) => format!("serial = {}", text(serial)),
        };
        let note = match &disk.rule {
            Rule::Serial(_) => format!("{}; the serial number is this box's alone", disk.note),
            _ => disk.note.clone(),
        };
        with_note(&format!("install_disk = {{ {rule} }}"), &note)
    };
    let Some((first, others)) = disks.split_first() else {
        let example = "# install_disk = { bus = \"sata\", max = \"1TiB\" }";
        return vec![with_note(example, "DECIDE: no fact tells of a disk")];
    };
    let mut lines = vec!["# DECIDE: the disk to install on; it is wiped.".to_owned(), line(first)];
    lines.extend(others.iter().map(|disk| format!("# {}", line(disk))));
    lines
}

fn nics(nics: &[NicChoice]) -> Vec<String> {
    let mut lines = Vec::new();
    if nics.iter().all(|nic| nic.use_ != NicUse::Boot) {
        let example = "# nic.mgmt = { name = \"lan0\", net = \"mgmt\", boot = true }";
        lines.push(with_note(example, "DECIDE: no fact tells of an Ethernet port"));
    }
    if !nics.is_empty() {
        lines.push(
            "# DECIDE: which NIC boots (its firmware must do PXE), and the `net` of each."
                .to_owned(),
        );
    }
    lines.extend(nics.iter().map(nic));
    lines
}

fn nic(nic: &NicChoice) -> String {
    let mut fields = vec![format!("name = {}", text(&nic.name))];
    let said = |key: &str, value: &Option<String>| {
        value.as_ref().map(|value| format!("{key} = {}", text(value)))
    };
    fields.extend(said("pci", &nic.pci));
    fields.extend(said("domain", &nic.domain));
    fields.extend(nic.numa.map(|numa| format!("numa = {numa}")));
    let (start, net) = match nic.use_ {
        NicUse::Boot => ("", "net = \"mgmt\", boot = true"),
        NicUse::InfinibandFabric => ("", "net = \"ib\""),
        NicUse::EthernetFabric => ("", "net = \"fabric\""),
        NicUse::Spare => ("# ", "net = \"…\""),
    };
    let line = format!("{start}nic.{} = {{ {}, {net} }}", nic.key, fields.join(", "));
    with_note(&line, &nic.note)
}

fn ssds(choice: &Choice) -> Vec<String> {
    let mut lines = Vec::new();
    for (numa, ssds) in &choice.ssds {
        let key = match numa {
            Some(numa) => format!("numa{numa}"),
            None => {
                lines.push("# DECIDE: no fact tells the NUMA node of these SSDs.".to_owned());
                "all".to_owned()
            }
        };
        match ssds.iter().any(|ssd| ssd.obstacle.is_none()) {
            true => lines.push(format!("nvme.{key} = [")),
            false => lines.push(format!("nvme.{key} = [        # DECIDE: none is free")),
        }
        lines.extend(ssds.iter().map(ssd));
        lines.push("]".to_owned());
    }
    lines
}

fn ssd(ssd: &SsdChoice) -> String {
    let item = format!("{},", text(&ssd.address));
    match &ssd.obstacle {
        None => with_note(&format!("    {item}"), &ssd.note),
        Some(obstacle) => {
            let parts = [ssd.note.as_str(), obstacle];
            let note = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
            with_note(&format!("    # {item}"), &format!("DECIDE: {}", note.join("; ")))
        }
    }
}

/// What is this box's alone, for the block of its node or the inventory.
fn own_values(choice: &Choice) -> Vec<String> {
    let mut lines = vec![
        "# This box's own values, for its block or the inventory:".to_owned(),
        "# [node.NAME]".to_owned(),
        format!("# hw = {}", text(&choice.name)),
        "# roles = [\"server\"]".to_owned(),
    ];
    lines.extend(choice.serial.as_ref().map(|serial| format!("# serial = {}", text(serial))));
    for nic in &choice.nics {
        let Some(address) = &nic.address else { continue };
        let key = if address.contains(':') { "mac" } else { "guid" };
        lines.push(format!("# nic.{}.{key} = {}", nic.key, text(address)));
    }
    lines
}

fn said<T>(key: &str, value: impl std::fmt::Display, chosen: &Chosen<T>) -> String {
    let decide = if chosen.is_guess { "DECIDE: " } else { "" };
    with_note(&format!("{key} = {value}"), &format!("{decide}{}", chosen.note))
}

fn with_note(line: &str, note: &str) -> String {
    if note.is_empty() {
        return line.to_owned();
    }
    format!("{line}   {}", comment(note))
}

/// A comment of one line, whatever the box calls itself.
fn comment(note: &str) -> String {
    let plain: String = note.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    format!("# {plain}")
}

fn text(value: &str) -> String {
    toml::Value::String(value.to_owned()).to_string()
}

fn size(size: ByteSize) -> String {
    text(&size.to_string().replace(' ', ""))
}
