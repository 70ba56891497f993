//! Names and addresses, parsed once into types that cannot be wrong.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

pub use ipnet::Ipv4Net;

/// The hardware address of an Ethernet NIC.
///
/// Parsed from the forms firmware and switches print (`52:54:00:aa:bb:cc`,
/// `52-54-00-AA-BB-CC`); displayed in lower case with colons, which is the form DHCP
/// servers and iPXE's `${net0/mac}` use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// The address with these octets, as packets carry it.
    pub const fn from_octets(octets: [u8; 6]) -> Self {
        Self(octets)
    }

    /// The name PXELINUX and GRUB look for: `01-52-54-00-aa-bb-cc`, where `01` is the ARP
    /// hardware type of Ethernet.
    pub fn pxe_config_name(self) -> String {
        format!("01-{}", self.hyphenated())
    }

    /// `52-54-00-aa-bb-cc`, as in iPXE's `${netX/mac:hexhyp}`.
    pub fn hyphenated(self) -> String {
        self.to_string().replace(':', "-")
    }

    /// Whether the address stands for many stations, or for none: no NIC has such a one.
    pub fn is_multicast_or_zero(self) -> bool {
        self.0[0] & 1 == 1 || self.0 == [0; 6]
    }
}

impl FromStr for MacAddr {
    type Err = ParseMacAddrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut octets = [0; 6];
        parse_octets(text, &[':', '-'], &mut octets)
            .ok_or_else(|| ParseMacAddrError(text.into()))?;
        Ok(Self(octets))
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_octets(&self.0, f)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a MAC address; expected six hex octets like `52:54:00:aa:bb:cc`")]
pub struct ParseMacAddrError(String);

/// The 64-bit port GUID of an InfiniBand NIC, as `ibstat` and vendors' labels print it.
///
/// Parsed with or without colons and `0x`; displayed as eight octets with colons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InfinibandGuid([u8; 8]);

impl FromStr for InfinibandGuid {
    type Err = ParseGuidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || ParseGuidError(text.to_owned());
        let mut octets = [0; 8];
        let digits = text.strip_prefix("0x").unwrap_or(text);
        if digits.contains(':') {
            parse_octets(digits, &[':'], &mut octets).ok_or_else(invalid)?;
            return Ok(Self(octets));
        }
        let is_hex = digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let number = is_hex.then(|| u64::from_str_radix(digits, 16)).ok_or_else(invalid)?;
        Ok(Self(number.expect("16 hex digits fit into 64 bits").to_be_bytes()))
    }
}

impl fmt::Display for InfinibandGuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_octets(&self.0, f)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an InfiniBand GUID; expected 16 hex digits like `0c42a10300b1c2d3`")]
pub struct ParseGuidError(String);

/// Two hex digits each, exactly as many as `octets` holds; `+c`, which
/// `u8::from_str_radix` would take, is no octet.
fn parse_octets(text: &str, separators: &[char], octets: &mut [u8]) -> Option<()> {
    let mut fields = text.split(separators);
    for octet in octets {
        let field = fields.next()?;
        let is_two_hex_digits = field.len() == 2 && field.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_two_hex_digits {
            return None;
        }
        *octet = u8::from_str_radix(field, 16).ok()?;
    }
    fields.next().is_none().then_some(())
}

/// At most eight octets with colons.
fn write_octets(octets: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b':'; 3 * 8];
    for (three, octet) in text.chunks_exact_mut(3).zip(octets) {
        three[0] = HEX_DIGITS[usize::from(octet >> 4)];
        three[1] = HEX_DIGITS[usize::from(octet & 15)];
    }
    let text = &text[..(3 * octets.len()).saturating_sub(1)];
    f.write_str(std::str::from_utf8(text).expect("hex digits are ASCII"))
}

/// Where a device sits on the PCI bus: `0000:81:00.0`, in full and in lower case, the only
/// form DAOS takes (`bdev_list` of class nvme, DAOS code 701).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress(String);

impl Default for PciAddress {
    /// The first address, where the host bridge is: no device that a user plans with.
    fn default() -> Self {
        Self("0000:00:00.0".to_owned())
    }
}

impl PciAddress {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PciAddress {
    type Err = ParsePciAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fields: Vec<&str> = text.split([':', '.']).collect();
        let is_hex = |digits: &str| digits.bytes().all(|b| b.is_ascii_hexdigit());
        let widths: Vec<usize> = fields.iter().map(|field| field.len()).collect();
        let separators: String = text.chars().filter(|c| matches!(c, ':' | '.')).collect();
        let is_address = separators == "::."
            && matches!(widths.as_slice(), [4..=6, 2, 2, 1])
            && fields.iter().all(|field| is_hex(field));
        match is_address {
            true => Ok(Self(text.to_ascii_lowercase())),
            false => Err(ParsePciAddressError(text.to_owned())),
        }
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a full PCI address; expected domain, bus, device and function like `0000:81:00.0`"
)]
pub struct ParsePciAddressError(String);

/// Whether `name` is a host name: letters, digits and inner hyphens, 63 characters a label,
/// lower case as EL's `hostnamectl` and DAOS's rank map expect (RFC 1123 §2.1).
pub fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

/// Why `name` cannot be the planned name of a network interface, if it cannot.
///
/// The kernel takes up to 15 bytes (IFNAMSIZ); renaming into the kernel's own namespace
/// (`eth0`, `ib0`) races with the next probe (systemd.link(5), "NamePolicy").
pub fn interface_name_fault(name: &str) -> Option<&'static str> {
    let is_valid = (1..=15).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && name.starts_with(|c: char| c.is_ascii_alphabetic());
    if !is_valid {
        return Some(
            "an interface name has 1 to 15 letters, digits, `-`, `_` or `.`, a letter first",
        );
    }
    let is_numbered = |prefix: &str| {
        name.strip_prefix(prefix)
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
    };
    if ["eth", "ib", "wlan", "usb"].into_iter().any(is_numbered) || name == "lo" {
        return Some("the kernel gives out this name itself, and renaming a NIC into it races");
    }
    None
}

/// The IPv4 address `offset` above `base`, if there is one.
pub fn offset_address(base: Ipv4Addr, offset: u64) -> Option<Ipv4Addr> {
    let sum = u64::from(u32::from(base)).checked_add(offset)?;
    u32::try_from(sum).ok().map(Ipv4Addr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addr_accepts_what_firmware_prints() {
        for (input, canonical) in [
            ("52:54:00:aa:bb:cc", "52:54:00:aa:bb:cc"),
            ("52-54-00-AA-BB-CC", "52:54:00:aa:bb:cc"),
            ("00:00:00:00:00:00", "00:00:00:00:00:00"),
        ] {
            let mac: MacAddr = input.parse().unwrap();
            assert_eq!(mac.to_string(), canonical, "from {input:?}");
        }
    }

    #[test]
    fn mac_addr_refuses_what_only_looks_like_one() {
        for input in
            ["", "52:54:00:aa:bb", "52:54:00:aa:bb:cc:dd", "+c:54:00:aa:bb:cc", "525400aabbcc"]
        {
            assert!(input.parse::<MacAddr>().is_err(), "from {input:?}");
        }
    }

    #[test]
    fn guid_accepts_plain_prefixed_and_colon_forms() {
        for input in ["0c42a10300b1c2d3", "0x0C42A10300B1C2D3", "0c:42:a1:03:00:b1:c2:d3"] {
            let guid: InfinibandGuid = input.parse().unwrap();
            assert_eq!(guid.to_string(), "0c:42:a1:03:00:b1:c2:d3", "from {input:?}");
        }
        assert!("0c42a10300b1c2".parse::<InfinibandGuid>().is_err());
    }

    #[test]
    fn pci_address_must_be_full() {
        assert_eq!("0000:5E:00.0".parse::<PciAddress>().unwrap().as_str(), "0000:5e:00.0");
        assert!("10000:01:00.0".parse::<PciAddress>().is_ok(), "VMD domains are wider");
        for input in ["81:00.0", "0000:81:00", "0000.81.00:0", "zzzz:81:00.0", "0000:81:00.0\n"] {
            assert!(input.parse::<PciAddress>().is_err(), "from {input:?}");
        }
    }

    #[test]
    fn host_names_follow_rfc_1123() {
        for (name, is_valid) in [
            ("node0", true),
            ("a.b-c", true),
            ("", false),
            ("Node0", false),
            ("-a", false),
            ("a_b", false),
            ("a..b", false),
        ] {
            assert_eq!(is_host_name(name), is_valid, "{name:?}");
        }
    }

    #[test]
    fn interface_names_keep_out_of_the_kernels_own() {
        for (name, is_valid) in [
            ("lan0", true),
            ("enp0s8", true),
            ("ibft", true),
            ("eth0", false),
            ("ib0", false),
            ("lo", false),
            ("0lan", false),
            ("averyveryverylongname", false),
            ("a b", false),
        ] {
            assert_eq!(interface_name_fault(name).is_none(), is_valid, "{name:?}");
        }
    }
}
