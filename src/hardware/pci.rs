//! lspci, and the NUMA nodes in sysfs.

use crate::hardware::Facts;
use crate::net::PciAddress;

/// `lspci -Dvmmnn`: records of `Key:<tab>value`, an empty line after each.
pub fn read_records(text: &str, facts: &mut Facts) -> Result<(), String> {
    let mut address = None;
    for (number, line) in (1..).zip(text.lines()) {
        let Some((key, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        if key == "Slot" {
            let full = full_address(value)
                .ok_or_else(|| format!("line {number}: `{value}` is no PCI address"))?;
            facts.pci_device(&full);
            address = Some(full);
        }
        let Some(address) = &address else { continue };
        let device = facts.pci_device(address);
        match key {
            "Class" => {
                let (_, class) = named_number(value).ok_or_else(|| {
                    format!("line {number}: a class without its number; expected `lspci -Dvmmnn`")
                })?;
                device.class = class;
            }
            "Vendor" => device.vendor = named_number(value).map_or(String::new(), |named| named.1),
            "Device" => {
                device.name = named_number(value).map_or(value.to_owned(), |named| named.0);
            }
            "NUMANode" => device.numa = value.parse().ok(),
            _ => {}
        }
    }
    Ok(())
}

/// `lspci -Dnn`: `0000:5e:00.0 Class name [0108]: Vendor Device [144d:a824] (rev 02)`.
pub fn read_lines(text: &str, facts: &mut Facts) -> Result<(), String> {
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let expected = || {
            format!(
                "line {number}: expected `ADDRESS CLASS [0108]: NAME [144d:a824]` of `lspci -Dnn`"
            )
        };
        let (address, rest) = line.split_once(' ').ok_or_else(expected)?;
        let address = full_address(address).ok_or_else(expected)?;
        let (class, name) = rest.split_once("]: ").ok_or_else(expected)?;
        let (_, class) = class.rsplit_once('[').ok_or_else(expected)?;
        if !is_number(class) {
            return Err(expected());
        }
        let (name, ids) = name.rsplit_once(" [").unwrap_or((name, ""));
        let device = facts.pci_device(&address);
        device.class = class.to_owned();
        device.name = name.to_owned();
        device.vendor = ids.split(':').next().unwrap_or_default().to_owned();
    }
    Ok(())
}

/// `grep -H . /sys/bus/pci/devices/*/numa_node`; -1 stands for a box with one node.
pub fn read_numa_nodes(text: &str, facts: &mut Facts) -> Result<(), String> {
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let parts = line.strip_prefix(NUMA_PREFIX).and_then(|rest| rest.split_once("/numa_node:"));
        let Some((address, numa)) = parts else {
            return Err(format!("line {number}: expected `{NUMA_PREFIX}ADDRESS/numa_node:0`"));
        };
        facts.pci_device(address).numa = numa.trim().parse().ok();
    }
    Ok(())
}

/// What each line of the NUMA nodes begins with.
pub const NUMA_PREFIX: &str = "/sys/bus/pci/devices/";

/// lspci leaves the domain out where all devices are in the first one.
pub fn full_address(text: &str) -> Option<String> {
    let full = match text.matches(':').count() {
        1 => format!("0000:{text}"),
        _ => text.to_owned(),
    };
    Some(full.parse::<PciAddress>().ok()?.as_str().to_owned())
}

/// The last PCI address in a path below /sys/devices.
pub fn address_in(path: &str) -> Option<String> {
    let mut addresses = path.split('/').filter_map(|part| part.parse::<PciAddress>().ok());
    addresses.next_back().map(|address| address.as_str().to_owned())
}

/// `NVMe SSD Controller PM173X [a824]` as name and number.
fn named_number(text: &str) -> Option<(String, String)> {
    let (name, number) = text.strip_suffix(']')?.rsplit_once('[')?;
    is_number(number).then(|| (name.trim().to_owned(), number.to_owned()))
}

fn is_number(text: &str) -> bool {
    text.len() == 4 && text.bytes().all(|b| b.is_ascii_hexdigit())
}
