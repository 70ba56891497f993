//! ip.

use serde_json::Value;

use crate::hardware::Facts;
use crate::net::PciAddress;

/// `ip -j link` or `ip -j addr`, with `-d` or without.
pub fn read(links: &[Value], facts: &mut Facts) -> Result<(), String> {
    for link in links {
        let name = link["ifname"].as_str().ok_or("an interface without `ifname`")?;
        let link_type = link["link_type"].as_str();
        if !matches!(link_type, Some("ether" | "infiniband")) {
            continue;
        }
        let nic = facts.nic(name);
        nic.link_type = link_type.map(str::to_owned);
        // A member of a bond shows the bond's address, and its own as the permanent one.
        let address = link["permaddr"].as_str().or(link["address"].as_str());
        nic.address = address.map(str::to_owned);
        nic.is_up = link["operstate"] == "UP";
        nic.is_virtual |= link["linkinfo"]["info_kind"].is_string();
        if let Some(parent) = link["parentdev"].as_str()
            && parent.parse::<PciAddress>().is_ok()
        {
            nic.pci = Some(parent.to_owned());
        }
        for address in link["addr_info"].as_array().into_iter().flatten() {
            if let ("inet", Some(local)) =
                (address["family"].as_str().unwrap_or_default(), address["local"].as_str())
            {
                nic.ips.insert(format!("{local}/{}", address["prefixlen"]));
            }
        }
    }
    Ok(())
}
