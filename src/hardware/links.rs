//! `ls -l` of folders whose links say where a device sits: /sys/block, /sys/class/net,
//! /sys/class/nvme, /sys/class/infiniband, /sys/class/iommu and /dev/disk/by-path.

use crate::hardware::Facts;
use crate::hardware::pci::address_in;

/// The name and the target of a line of `ls -l` that is a link.
pub fn link(line: &str) -> Option<(&str, &str)> {
    let (left, target) = line.split_once(" -> ")?;
    let name = left.rsplit([' ', '/']).next()?;
    let is_link = left.starts_with('l') && left.len() > 10 && !name.is_empty();
    is_link.then_some((name, target.trim()))
}

pub fn read(text: &str, facts: &mut Facts) -> Result<(), String> {
    for (name, target) in text.lines().filter_map(link) {
        read_link(name, target, facts);
    }
    Ok(())
}

fn read_link(name: &str, target: &str, facts: &mut Facts) {
    let folder = target.rsplit('/').nth(1).unwrap_or_default();
    match folder {
        "net" => {
            let nic = facts.nic(name);
            nic.pci = address_in(target);
            // The host's end of a management controller hangs on USB.
            nic.is_virtual |= target.contains("/virtual/") || target.contains("/usb");
        }
        "infiniband" => facts.rdma.entry(name.to_owned()).or_default().pci = address_in(target),
        "iommu" => facts.iommu = Some(true),
        // Where the kernel joins paths (nvme_core.multipath), the disk is no part of the
        // controller's folder; a controller and its first namespace have one number.
        "nvme" => {
            let disk = facts.disk(&format!("{name}n1"));
            disk.pci = disk.pci.take().or(address_in(target));
            disk.bus = Some("nvme".to_owned());
        }
        _ if is_block(target) => {
            let disk = facts.disk(name);
            disk.pci = address_in(target);
            disk.bus = bus(target).or(disk.bus.take());
        }
        _ if is_by_path(name, target) => {
            let disk = facts.disk(target.rsplit('/').next().unwrap_or_default());
            // `pci-…` and `virtio-pci-…` are one disk: the first in order is kept.
            if disk.by_path.as_deref().is_none_or(|known| name < known) {
                disk.by_path = Some(name.to_owned());
            }
        }
        _ => {}
    }
}

fn is_block(target: &str) -> bool {
    let is_of_a_bus = target.contains("/block/") || target.contains("/nvme/");
    is_of_a_bus && target.contains("devices/") && !target.contains("/virtual/")
}

/// The bus by where the disk hangs, as the installer's choice of disks tells it
/// (profiles/kickstart/disk.sh, `bus_of`).
fn bus(target: &str) -> Option<String> {
    let has = |start: &str| target.split('/').any(|folder| folder.starts_with(start));
    let bus = match target {
        _ if has("usb") => "usb",
        _ if target.contains("/nvme/") => "nvme",
        _ if has("virtio") && has("host") => "scsi",
        _ if has("virtio") => "virtio",
        _ if has("ata") => "sata",
        _ if has("end_device-") => "sas",
        _ if has("mmc_host") => "mmc",
        _ => "scsi",
    };
    Some(bus.to_owned())
}

fn is_by_path(name: &str, target: &str) -> bool {
    let is_place = ["pci-", "virtio-pci-", "platform-", "acpi-", "ccw-"]
        .iter()
        .any(|prefix| name.starts_with(prefix));
    is_place && !name.contains("-part") && target.starts_with("../../")
}
