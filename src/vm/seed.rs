//! What a lab changes in a node's seed.

use std::fmt::Write as _;

use crate::net::MacAddr;

/// cloud-init's network configuration for the time until the node's own files are there: the
/// packages come by the way out, `outside`, as the lab's network leads nowhere. Afterwards no
/// profile names that card, and NetworkManager, which makes none by itself, leaves it alone.
pub fn network_config(planned: &str, outside: MacAddr) -> String {
    let leads_out = |line: &&str| {
        let line = line.trim_start();
        !line.starts_with("gateway4:") && !line.starts_with("nameservers:")
    };
    let mut text = String::new();
    for line in planned.lines().filter(leads_out) {
        text.push_str(line);
        text.push('\n');
    }
    let _ = write!(
        text,
        "  outside:\n    match: {{macaddress: \"{outside}\"}}\n    dhcp4: true\n    optional: true\n"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_come_by_the_way_out_and_not_by_a_gateway_that_is_not_there() {
        let planned = "version: 2\nethernets:\n  boot:\n    addresses: [\"10.0.0.2/24\"]\n    \
                       gateway4: 10.0.0.1\n    nameservers: {addresses: [\"10.0.0.1\"]}\n    mtu: 9000\n";
        let expected = "version: 2\nethernets:\n  boot:\n    addresses: [\"10.0.0.2/24\"]\n    \
                        mtu: 9000\n  outside:\n    match: {macaddress: \"02:00:00:00:00:01\"}\n    \
                        dhcp4: true\n    optional: true\n";
        let outside = MacAddr::from_octets([2, 0, 0, 0, 0, 1]);
        assert_eq!(network_config(planned, outside), expected);
    }
}
