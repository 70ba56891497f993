//! The box as a whole: dmidecode, /proc/meminfo, lscpu, the kernel line, the firmware.

use serde_json::Value;

use crate::hardware::Facts;
use crate::hardware::facts::merge;

/// `dmidecode`, of which BIOS (0), system (1) and memory devices (17) are read.
pub fn read_dmidecode(text: &str, facts: &mut Facts) -> Result<(), String> {
    let mut section = "";
    let mut dimms_mib = Vec::new();
    // How many of them are of the memory device being read: one, or none.
    let mut n_of_device = 0;
    for line in text.lines() {
        if !line.starts_with(['\t', ' ']) {
            section = line.trim();
            n_of_device = 0;
            continue;
        }
        let line = line.trim();
        if section == "BIOS Information" && line == "UEFI is supported" {
            facts.can_uefi = Some(true);
        }
        let Some((key, value)) = line.split_once(": ") else { continue };
        let value = value.trim();
        match (section, key) {
            ("System Information", "Manufacturer") => {
                merge(&mut facts.maker, said(value), "maker")?;
            }
            ("System Information", "Product Name") => {
                merge(&mut facts.product, said(value), "product")?;
            }
            ("System Information", "Serial Number") => {
                merge(&mut facts.serial, said(value), "serial number")?;
            }
            ("Memory Device", "Size") => {
                let size = dimm(value)?;
                n_of_device = usize::from(size.is_some());
                dimms_mib.extend(size);
            }
            // PMem sits in slots of memory and is none.
            ("Memory Device", "Type") if value.contains("non-volatile") => {
                dimms_mib.truncate(dimms_mib.len() - n_of_device);
                n_of_device = 0;
            }
            _ => {}
        }
    }
    if !dimms_mib.is_empty() {
        facts.dimms_mib = dimms_mib;
    }
    Ok(())
}

/// What a maker left unfilled is no fact.
fn said(value: &str) -> Option<String> {
    let is_blank = ["", "Not Specified", "None", "Default string", "To Be Filled By O.E.M."];
    (!is_blank.contains(&value)).then(|| value.to_owned())
}

/// The size of a memory device in MiB; nothing for an empty slot.
fn dimm(size: &str) -> Result<Option<u64>, String> {
    if matches!(size, "No Module Installed" | "Unknown" | "Not Installed") {
        return Ok(None);
    }
    let unreadable = || format!("`Size: {size}` of a memory device; expected one like `32 GB`");
    let (number, unit) = size.split_once(' ').ok_or_else(unreadable)?;
    let number: u64 = number.parse().map_err(|_| unreadable())?;
    // dmidecode's units are binary (dmidecode.c, dmi_print_memory_size).
    match unit {
        "MB" | "MiB" => Ok(Some(number)),
        "GB" | "GiB" => Ok(Some(number << 10)),
        "TB" | "TiB" => Ok(Some(number << 20)),
        _ => Err(unreadable()),
    }
}

/// /proc/meminfo.
pub fn read_meminfo(text: &str, facts: &mut Facts) -> Result<(), String> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let number = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse().ok());
    facts.mem_total_kib = Some(number.ok_or("expected a line like `MemTotal: 527950336 kB`")?);
    Ok(())
}

/// `lscpu -J`; newer versions nest fields below `children`.
pub fn read_lscpu_json(json: &Value, facts: &mut Facts) -> Result<(), String> {
    let mut fields = Vec::new();
    collect_fields(&json["lscpu"], &mut fields);
    read_lscpu_fields(&fields, facts)
}

fn collect_fields(list: &Value, fields: &mut Vec<(String, String)>) {
    for field in list.as_array().into_iter().flatten() {
        let text = |key: &str| field[key].as_str().map(|text| text.trim().to_owned());
        if let (Some(name), Some(data)) = (text("field"), text("data")) {
            fields.push((name.trim_end_matches(':').to_owned(), data));
        }
        collect_fields(&field["children"], fields);
    }
}

/// `lscpu`.
pub fn read_lscpu_text(text: &str, facts: &mut Facts) -> Result<(), String> {
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    let fields: Vec<(String, String)> =
        fields.map(|(name, data)| (name.trim().to_owned(), data.trim().to_owned())).collect();
    read_lscpu_fields(&fields, facts)
}

fn read_lscpu_fields(fields: &[(String, String)], facts: &mut Facts) -> Result<(), String> {
    let find = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, data)| data);
    let number = |name: &str| {
        let data = find(name).ok_or_else(|| format!("expected the field `{name}` of lscpu"))?;
        data.parse::<u32>().map_err(|_| format!("`{name}` of lscpu is `{data}`, not a number"))
    };
    let (sockets, per_socket) = (number("Socket(s)")?, number("Core(s) per socket")?);
    merge(&mut facts.sockets, Some(sockets), "number of sockets")?;
    merge(&mut facts.cores, Some(sockets.saturating_mul(per_socket)), "number of cores")?;
    merge(&mut facts.numa_nodes, number("NUMA node(s)").ok(), "number of NUMA nodes")?;
    let cpu = find("Vendor ID").and_then(|vendor| match vendor.as_str() {
        "GenuineIntel" => Some("intel".to_owned()),
        "AuthenticAMD" => Some("amd".to_owned()),
        _ => None,
    });
    merge(&mut facts.cpu, cpu, "CPU vendor")?;
    merge(&mut facts.hypervisor, find("Hypervisor vendor").cloned(), "hypervisor")
}

/// /proc/cmdline.
pub fn read_kernel_line(text: &str, facts: &mut Facts) -> Result<(), String> {
    facts.kernel_line = Some(text.trim().to_owned());
    Ok(())
}

/// `ls -d /sys/firmware/*`: `efi` is there if the system was booted by UEFI.
pub fn read_firmware(text: &str, facts: &mut Facts) -> Result<(), String> {
    let is_uefi = text.lines().any(|line| line.trim() == "/sys/firmware/efi");
    let firmware = if is_uefi { "uefi" } else { "bios" };
    merge(&mut facts.firmware, Some(firmware.to_owned()), "firmware")
}
