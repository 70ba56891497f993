//! What DAOS's own tools say of a box: `daos_server network scan`, `daos_server config generate`.

use serde::Deserialize;

use crate::hardware::Facts;
use crate::hardware::pci::full_address;

/// The table of `daos_server network scan` (`cmd/dmg/pretty/network.go`): under each
/// `NUMA Socket N` rows of a provider and its interfaces.
pub fn read_network_scan(text: &str, facts: &mut Facts) -> Result<(), String> {
    let mut numa = None;
    for line in text.lines().map(str::trim) {
        if let Some(number) = line.strip_prefix("NUMA Socket ") {
            numa = number.trim().parse().ok();
            continue;
        }
        let Some((provider, interfaces)) = line.split_once(char::is_whitespace) else { continue };
        if numa.is_none() || !provider.contains('+') {
            continue;
        }
        for name in interfaces.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            facts.nic(name).numa = numa;
        }
    }
    numa.map(|_: u32| ()).ok_or_else(|| "expected `NUMA Socket 0` and a table below it".to_owned())
}

/// The part of daos_server.yml that tells where things sit.
#[derive(Deserialize)]
struct ServerFile {
    engines: Vec<EngineOfFile>,
}

#[derive(Deserialize)]
struct EngineOfFile {
    pinned_numa_node: Option<u32>,
    fabric_iface: Option<String>,
    #[serde(default)]
    storage: Vec<TierOfFile>,
}

#[derive(Deserialize)]
struct TierOfFile {
    class: String,
    #[serde(default)]
    bdev_list: Vec<String>,
}

/// The YAML of `daos_server config generate` or `dmg config generate`, or any daos_server.yml.
pub fn read_config(text: &str, facts: &mut Facts) -> Result<(), String> {
    let file: ServerFile =
        serde_saphyr::from_str(text).map_err(|fault| format!("no daos_server.yml: {fault}"))?;
    for engine in file.engines {
        if let (Some(interface), Some(numa)) = (&engine.fabric_iface, engine.pinned_numa_node) {
            facts.nic(interface).numa = Some(numa);
        }
        let tiers = engine.storage.iter().filter(|tier| tier.class == "nvme");
        for ssd in tiers.flat_map(|tier| &tier.bdev_list) {
            let address = full_address(ssd)
                .ok_or_else(|| format!("`{ssd}` of a bdev_list is no PCI address"))?;
            facts.daos_ssds.insert(address, engine.pinned_numa_node);
        }
    }
    Ok(())
}
