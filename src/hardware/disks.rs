//! lsblk.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::hardware::Facts;

/// `lsblk -J -b -O`; 2.32 of EL8 writes numbers and truth values as texts.
pub fn read(json: &Value, facts: &mut Facts) -> Result<(), String> {
    let devices = json["blockdevices"].as_array().ok_or("`blockdevices` is no array")?;
    for device in devices {
        let name = text(device, "name").ok_or("a block device without `name`")?;
        if text(device, "type").as_deref() != Some("disk") || is_never_a_disk(&name) {
            continue;
        }
        let size = text(device, "size");
        let size_bytes = size.as_ref().map(|size| {
            size.parse().map_err(|_| format!("the size of {name} is {size}; expected bytes (`-b`)"))
        });
        let mut mounts = BTreeSet::new();
        collect_mounts(device, &mut mounts);
        let n_parts = device["children"].as_array().map_or(0, Vec::len);
        let disk = facts.disk(&name);
        disk.size_bytes = size_bytes.transpose()?;
        disk.model = text(device, "model");
        disk.serial = text(device, "serial");
        disk.bus = disk.bus.take().or(bus(device, &name));
        disk.mounts = mounts;
        disk.holds = match (n_parts, text(device, "fstype")) {
            (_, Some(filesystem)) => Some(filesystem),
            (0, None) => None,
            (1, None) => Some("1 partition".to_owned()),
            (n, None) => Some(format!("{n} partitions")),
        };
    }
    Ok(())
}

/// Memory, loops and pseudo-disks of hypervisors that lsblk also calls disks.
fn is_never_a_disk(name: &str) -> bool {
    ["zram", "loop", "ram", "fd", "nbd", "dm-", "md", "sr", "pmem"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

fn collect_mounts(device: &Value, mounts: &mut BTreeSet<String>) {
    // `mountpoints` from util-linux 2.37 on.
    let many = device["mountpoints"].as_array().into_iter().flatten().filter_map(Value::as_str);
    mounts.extend(many.chain(device["mountpoint"].as_str()).map(str::to_owned));
    for child in device["children"].as_array().into_iter().flatten() {
        collect_mounts(child, mounts);
    }
}

fn bus(device: &Value, name: &str) -> Option<String> {
    let transport = text(device, "tran");
    let bus = match transport.as_deref() {
        Some("ata") => "sata",
        Some(bus @ ("sata" | "sas" | "nvme" | "usb" | "virtio")) => bus,
        _ if text(device, "subsystems")?.contains("virtio") => "virtio",
        _ if name.starts_with("mmcblk") => "mmc",
        _ if name.starts_with("sd") => "scsi",
        _ => return None,
    };
    Some(bus.to_owned())
}

/// A text, number or truth value as text; nothing for null and blanks.
fn text(device: &Value, key: &str) -> Option<String> {
    let text = match &device[key] {
        Value::Null => return None,
        Value::String(text) => text.trim().to_owned(),
        other => other.to_string(),
    };
    (!text.is_empty()).then_some(text)
}
