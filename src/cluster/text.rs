//! What free text must look like before it may reach a kickstart, a unit or a YAML file.
//!
//! Templates do not escape, so a value that could end a line, a word or a string is refused
//! where it is written, with its place.

use std::net::Ipv4Addr;

use crate::diag::{Code, codes};
use crate::net::is_host_name;

/// What a text stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextKind {
    /// Letters, digits and inner hyphens, as in a host name without dots.
    ClusterName,
    Domain,
    HostOrAddress,
    TimeZone,
    Locale,
    Keyboard,
    Url,
    AbsolutePath,
    /// The name of a link under /dev/disk, a serial number or a WWN; spaces are allowed.
    DiskName,
    Word,
    /// A log level, or one for each facility.
    LogMask,
    KernelArgument,
    Package,
    Unit,
    Port,
    Sysctl,
    SshKey,
    Console,
    Environment,
    /// Of a pool or a container.
    Label,
    /// `NAME@` or `NAME@DOMAIN`, as dmg names owners.
    Principal,
    /// An entry of a pool's access control list.
    AclEntry,
    /// What may stand in dmg's `NAME:VALUE,NAME:VALUE`.
    PropertyName,
    PropertyValue,
}

impl TextKind {
    /// The code of a text that is not of this kind.
    pub fn code(self) -> Code {
        match self {
            TextKind::ClusterName | TextKind::Domain | TextKind::HostOrAddress => {
                codes::BAD_HOST_NAME
            }
            TextKind::Url => codes::BAD_URL,
            TextKind::AbsolutePath => codes::BAD_PATH,
            _ => codes::BAD_VALUE,
        }
    }

    /// What is expected, in words, if `text` is not of this kind.
    pub fn fault(self, text: &str) -> Option<&'static str> {
        let (is_valid, expected) = self.judge(text);
        (!is_valid).then_some(expected)
    }

    fn judge(self, text: &str) -> (bool, &'static str) {
        match self {
            TextKind::ClusterName => (
                is_host_name(text) && !text.contains('.'),
                "lower-case letters, digits and inner hyphens",
            ),
            TextKind::Domain => (is_host_name(text), "a DNS domain in lower case like `lab.local`"),
            TextKind::HostOrAddress => (
                is_host_name(text) || text.parse::<Ipv4Addr>().is_ok(),
                "a host name in lower case or an IPv4 address",
            ),
            TextKind::TimeZone => (
                only(text, "+-_/") && !text.starts_with('/') && !text.contains("//"),
                "an IANA time zone like `Asia/Shanghai` or `UTC`",
            ),
            TextKind::Locale => (only(text, "._-@"), "a locale like `en_US.UTF-8`"),
            TextKind::Keyboard => (only(text, "_-"), "a keyboard map like `us`"),
            TextKind::Url => {
                (is_url(text), "a URL like `http://192.168.3.1:8080`, without spaces and quotes")
            }
            TextKind::AbsolutePath => (
                is_absolute_path(text),
                "a clean absolute path like `/var/lib/daos`, without spaces and quotes",
            ),
            TextKind::DiskName => (
                only(text, " ._:-+@/=") && !text.contains(".."),
                "the name of a disk, without quotes",
            ),
            TextKind::Word => {
                (only(text, "._:;+-/@="), "one word of letters, digits and `._:;+-/@=`")
            }
            TextKind::LogMask => {
                (only(text, ",=_"), "a log level like `INFO`, or several like `WARN,OBJECT=DEBUG`")
            }
            TextKind::KernelArgument => (
                only(text, "._:+-/@=,%~^"),
                "one kernel argument like `intel_iommu=on`, without spaces and quotes",
            ),
            TextKind::Package => (
                only(
                    text.strip_prefix('-').unwrap_or(text).trim_start_matches(['@', '^']),
                    "._+-:*",
                ),
                "a package name, or a group like `@core`",
            ),
            TextKind::Unit => (only(text, "._:@-\\"), "a unit's name like `chronyd`"),
            TextKind::Port => (is_port(text), "a port and its protocol like `8080/tcp`"),
            TextKind::Sysctl => {
                let parts = text.split_once('=');
                let is_valid = parts.is_some_and(|(key, value)| {
                    only(key.trim(), "._-/") && only(value.trim(), " ._-,:/\t")
                });
                (is_valid, "a kernel setting like `vm.swappiness=1`")
            }
            TextKind::SshKey => {
                (is_ssh_key(text), "one public key like `ssh-ed25519 AAAA… name@host`")
            }
            TextKind::Console => (is_console(text), "a serial console like `ttyS0,115200`"),
            TextKind::Environment => {
                let parts = text.split_once('=');
                let is_name =
                    |name: &str| only(name, "_") && !name.starts_with(|c: char| c.is_ascii_digit());
                let is_valid = parts.is_some_and(|(name, value)| {
                    is_name(name) && !value.contains(['"', '\'', '\\', '`', '$'])
                });
                (is_valid, "a setting like `NAME=value`, without quotes")
            }
            TextKind::Label => (
                is_label(text),
                "a label of up to 127 letters, digits and `:._-`, not a UUID and no option",
            ),
            TextKind::Principal => (is_principal(text), "a user or group like `alice@`"),
            TextKind::AclEntry => (is_acl_entry(text), "an entry like `A::alice@:rw`"),
            TextKind::PropertyName => (only(text, "_-"), "a property like `rd_fac`"),
            TextKind::PropertyValue => (only(text, "._%-"), "one word, as dmg takes it"),
        }
    }
}

/// Not empty, and only ASCII letters, digits and characters of `extra`.
fn only(text: &str, extra: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || extra.contains(c))
}

/// DAOS's `daos_label_is_valid` (src/include/daos_types.h); a leading hyphen would make it an
/// option of dmg.
fn is_label(text: &str) -> bool {
    let is_uuid = text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    only(text, ":._-") && text.len() <= 127 && !is_uuid && !text.starts_with('-')
}

fn is_principal(text: &str) -> bool {
    let Some((name, domain)) = text.split_once('@') else { return false };
    only(name, "._-") && !name.starts_with('-') && (domain.is_empty() || only(domain, "._-"))
}

/// `TYPE:FLAGS:PRINCIPAL:PERMISSIONS`; DAOS's docs/overview/security.md.
fn is_acl_entry(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    let [kind, flags, principal, permissions] = parts[..] else { return false };
    kind == "A"
        && flags.chars().all(|flag| flag == 'G')
        && is_principal(principal)
        && permissions.chars().all(|permission| "rwcdtTaAo".contains(permission))
}

fn is_url(text: &str) -> bool {
    let rest = ["http://", "https://", "ftp://", "file://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    let is_local = text.starts_with("file:///");
    let host = rest.map(|rest| rest.split('/').next().unwrap_or_default());
    let is_host = host.is_some_and(|host| {
        let (name, port) = host.split_once(':').unwrap_or((host, "80"));
        TextKind::HostOrAddress.fault(&name.to_ascii_lowercase()).is_none()
            && port.parse::<u16>().is_ok()
    });
    (is_host || is_local) && only(text, ":/?#[]@!&()*+,;=%-._~$")
}

fn is_absolute_path(text: &str) -> bool {
    let is_clean = |rest: &str| rest.split('/').all(|part| !matches!(part, "" | "." | ".."));
    only(text, "/._+-@:") && text.strip_prefix('/').is_some_and(is_clean)
}

fn is_port(text: &str) -> bool {
    let number = |digits: &str| {
        digits.parse::<u16>().ok().filter(|port| *port > 0 && !digits.starts_with('+'))
    };
    let Some((ports, "tcp" | "udp")) = text.split_once('/') else { return false };
    match ports.split_once('-') {
        Some((first, last)) => {
            number(first).zip(number(last)).is_some_and(|(first, last)| first < last)
        }
        None => number(ports).is_some(),
    }
}

fn is_ssh_key(text: &str) -> bool {
    let mut words = text.split(' ');
    let kind = words.next().unwrap_or_default();
    let is_kind = ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"]
        .iter()
        .any(|prefix| kind.starts_with(prefix));
    let is_body = words.next().is_some_and(|body| body.len() >= 40 && only(body, "+/="));
    is_kind && is_body && only(text, " +/=@._-:,")
}

fn is_console(text: &str) -> bool {
    let (device, options) = text.split_once(',').unwrap_or((text, "9600"));
    let is_device = device.strip_prefix("tty").is_some_and(|rest| only(rest, ""))
        || device.strip_prefix("hvc").is_some_and(|rest| only(rest, ""));
    is_device && only(options, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_takes_what_it_should_and_refuses_what_could_break_out() {
        let table: [(TextKind, &[&str], &[&str]); 14] = [
            (TextKind::LogMask, &["INFO", "WARN,OBJECT=DEBUG"], &["", "INFO WARN", "a\""]),
            (
                TextKind::Url,
                &["http://10.20.0.2:8080", "https://a.b/c%20d/", "file:///mnt/x/"],
                &["", "10.0.0.1", "http://", "http://a b", "http://a/\"", "http://a:99999/"],
            ),
            (
                TextKind::AbsolutePath,
                &["/var/lib/daos", "/mnt/daos_scm"],
                &["var", "/", "/a/../b", "/a//b", "/a b", "/a'", "/a/"],
            ),
            (
                TextKind::KernelArgument,
                &["intel_iommu=on", "console=ttyS0,115200n8", "quiet"],
                &["a b", "a\"b", "", "a;b", "$(x)"],
            ),
            (
                TextKind::Package,
                &["daos-server", "@core", "@^minimal-environment", "-firewalld", "kernel*"],
                &["a b", "", "%end", "a\""],
            ),
            (
                TextKind::Port,
                &["8080/tcp", "31316-31340/tcp", "53/udp"],
                &["8080", "0/tcp", "70000/tcp", "9-5/tcp", "8080/sctp"],
            ),
            (
                TextKind::Sysctl,
                &["vm.swappiness=1", "net.ipv4.tcp_rmem=4096 87380 16777216"],
                &["vm.swappiness", "a=b;c", "=1"],
            ),
            (
                TextKind::SshKey,
                &[
                    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGAp0+kV/1OCkbZfxmBOMLftlM+Nj9AN9PKtGWRzmuxy admin@lab",
                ],
                &["ssh-ed25519", "AAAA", "ssh-rsa AAAA\" x"],
            ),
            (
                TextKind::Console,
                &["ttyS0,115200", "ttyS1", "hvc0"],
                &["com1", "ttyS0 x", "ttyS0,1\"", "tty"],
            ),
            (
                TextKind::Environment,
                &["FI_TCP_IFACE=lan0", "A=", "_x=1,2 3"],
                &["A", "1A=x", "A=\"x\"", "A=$B"],
            ),
            (
                TextKind::TimeZone,
                &["UTC", "Asia/Shanghai", "Etc/GMT+8"],
                &["", "../etc", "/x", "a b"],
            ),
            (TextKind::HostOrAddress, &["192.168.3.1", "ntp.example"], &["a_b", "", "a b"]),
            (TextKind::Unit, &["chronyd", "getty@tty1.service"], &["a b", ""]),
            (TextKind::Word, &["ofi+tcp;ofi_rxm", "mlx5_0"], &["a b", "a\"", "a'b", ""]),
        ];
        for (kind, good, bad) in table {
            for text in good {
                assert_eq!(kind.fault(text), None, "{kind:?} {text:?}");
            }
            for text in bad {
                assert!(kind.fault(text).is_some(), "{kind:?} {text:?}");
            }
        }
    }
}
