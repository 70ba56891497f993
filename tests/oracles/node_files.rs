//! Small files of a node's tree that no program of the test machine judges: tmpfiles,
//! sysctl, module lists, NetworkManager keyfiles; and files that must not be there.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::ini::{self, Setting};
use super::systemd239::TMPFILES_TYPES;
use crate::support::{self, files_below};

/// All that is wrong with such files below `root`, a node's whole tree.
pub fn findings(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for path in files_below(root, |_| true) {
        let read = || std::fs::read_to_string(root.join(&path)).unwrap();
        let faults: Vec<String> = if path.contains("/tmpfiles.d/") {
            faults_by_line(&read(), tmpfiles_fault)
        } else if path.contains("/sysctl.d/") {
            faults_by_line(&read(), sysctl_fault)
        } else if path.contains("/modules-load.d/") {
            faults_by_line(&read(), module_fault)
        } else if path.starts_with("etc/NetworkManager/system-connections/") {
            keyfile_faults(root, &path)
        } else {
            Vec::new()
        };
        found.extend(faults.into_iter().map(|fault| format!("{path}{fault}")));
        found.extend(
            FORBIDDEN
                .iter()
                .filter(|(part, _)| path.contains(part))
                .map(|(_, why)| format!("{path}: {why}")),
        );
    }
    found.extend(shared_uuids(root));
    found
}

/// Parts of paths that no node's tree may have, and why.
const FORBIDDEN: &[(&str, &str)] = &[
    ("etc/sudoers", "nothing here gives rights by sudo"),
    ("etc/passwd", "users come with the packages"),
    ("etc/shadow", "the root password is set by usermod, from the secrets"),
    ("sysconfig/network-scripts/ifcfg-", "keyfiles only: two profiles of one NIC compete"),
    (".rpmdb", "a Debian rpm's database"),
];

fn faults_by_line(text: &str, fault: fn(&str) -> Option<String>) -> Vec<String> {
    let lines = (1..).zip(text.lines());
    lines
        .filter(|(_, line)| !line.trim().is_empty() && !line.starts_with(['#', ';']))
        .filter_map(|(number, line)| fault(line).map(|fault| format!(":{number}: {fault}")))
        .collect()
}

/// tmpfiles.d(5) of systemd 239: type and modifiers, path, mode, user, group, age, argument.
fn tmpfiles_fault(line: &str) -> Option<String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (kind, modifiers) = fields[0].split_at(1);
    let field = |number: usize| fields.get(number).copied().unwrap_or("-");
    let (path, mode, owners) = (field(1), field(2), [field(3), field(4)]);
    let digits = mode.trim_start_matches('~');
    if !TMPFILES_TYPES.contains(kind) {
        return Some(format!("systemd 239 has no tmpfiles type {kind}"));
    }
    if let Some(modifier) = modifiers.chars().find(|modifier| !"!+".contains(*modifier)) {
        return Some(format!("systemd 239 has no tmpfiles modifier {modifier}"));
    }
    // `w+` came with systemd 246.
    if modifiers.contains('+') && !"fpLcbaA".contains(kind) {
        return Some(format!("{kind}+ means nothing to systemd 239"));
    }
    if !path.starts_with('/') && !path.starts_with('%') {
        return Some(format!("{path}: not an absolute path"));
    }
    if mode != "-"
        && !(digits.len() == 4 && digits.bytes().all(|byte| (b'0'..b'8').contains(&byte)))
    {
        return Some(format!("{mode}: not a mode of four octal digits"));
    }
    owners.iter().find(|owner| owner.bytes().all(|byte| byte.is_ascii_digit())).map(|owner| {
        format!("{owner}: owners are given by name; the numbers come with the packages")
    })
}

/// sysctl.d(5) of systemd 239: neither `-key` (244) nor patterns (246).
fn sysctl_fault(line: &str) -> Option<String> {
    let is_key = |key: &str| {
        key.starts_with(|letter: char| letter.is_ascii_lowercase())
            && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_./-".contains(&byte))
    };
    match line.split_once('=') {
        Some((key, value)) if is_key(key.trim()) && !value.trim().is_empty() => None,
        _ => Some(format!("not `key = value` for systemd 239: {line}")),
    }
}

/// modules-load.d(5): one module a line.
fn module_fault(line: &str) -> Option<String> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    (!line.bytes().all(is_name)).then(|| format!("not a module's name: {line}"))
}

/// NetworkManager's nm-settings-keyfile(5): a keyfile that others may read is ignored.
fn keyfile_faults(root: &Path, path: &str) -> Vec<String> {
    let metadata = root.join(path).metadata().unwrap();
    let mode = metadata.permissions().mode() & 0o7777;
    let (settings, mut found) = ini::parse("", &std::fs::read_to_string(root.join(path)).unwrap());
    let value = |section: &str, key: &str| {
        let is_it = |setting: &&Setting| setting.section == section && setting.key == key;
        settings.iter().find(is_it).map(|setting| &*setting.value)
    };
    if mode != 0o600 {
        found.push(format!(": mode {mode:04o}: NetworkManager ignores a keyfile that is not 0600"));
    }
    if !path.ends_with(".nmconnection") {
        found.push(": NetworkManager reads *.nmconnection only".to_owned());
    }
    for (section, key) in [
        ("connection", "id"),
        ("connection", "uuid"),
        ("connection", "type"),
        ("connection", "autoconnect-priority"),
        ("ipv4", "method"),
        ("ipv6", "method"),
    ] {
        if value(section, key).is_none_or(str::is_empty) {
            found.push(format!(": [{section}] {key}= is missing"));
        }
    }
    if value("connection", "uuid").is_some_and(|uuid| !is_uuid(uuid)) {
        found.push(": [connection] uuid= is not a UUID".to_owned());
    }
    if value("ipv4", "method") == Some("manual") {
        if value("ipv4", "address1").is_none() {
            found.push(": [ipv4] method=manual without address1=".to_owned());
        }
        // Without it the node counts as online before its planned address is there.
        if value("ipv4", "may-fail") != Some("false") {
            found.push(": [ipv4] may-fail=false is missing".to_owned());
        }
    }
    found
}

fn is_uuid(text: &str) -> bool {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12] && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

/// Two keyfiles with one uuid: NetworkManager takes one of them.
fn shared_uuids(root: &Path) -> Vec<String> {
    let mut by_uuid: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in files_below(root, |path| path.ends_with(".nmconnection")) {
        let (settings, _) = ini::parse("", &std::fs::read_to_string(root.join(&path)).unwrap());
        let uuids = settings.into_iter().filter(|setting| setting.key == "uuid");
        uuids.for_each(|uuid| by_uuid.entry(uuid.value).or_default().push(path.clone()));
    }
    let shared = by_uuid.into_iter().filter(|(_, paths)| paths.len() > 1);
    shared.map(|(uuid, paths)| format!("uuid {uuid} in {}", paths.join(" and "))).collect()
}

const KEYFILE: &str = "etc/NetworkManager/system-connections/lan0.nmconnection";
const GOOD_KEYFILE: &str = "[connection]\nid=lan0\nuuid=6b2c1f3e-0000-5000-8000-000000000001\n\
    type=ethernet\nautoconnect-priority=100\n[ethernet]\nmac-address=52:54:00:00:00:01\n\
    [ipv4]\nmethod=manual\naddress1=10.0.0.1/24\nmay-fail=false\n[ipv6]\nmethod=disabled\n";

fn findings_of(path: &str, text: &str, mode: u32) -> Vec<String> {
    let root = support::scratch();
    support::write(root.path(), path, text);
    support::set_mode(root.path(), path, mode);
    findings(root.path())
}

#[test]
fn sound_files_pass() {
    for (path, text, mode) in [
        (
            "usr/lib/tmpfiles.d/x.conf",
            "# c\nd /var/log/daos 0755 daos_server daos_server -\nz /etc/x 0640 root daos_agent\n\
             L+ /etc/y - - - - z\nd! /run/x\n",
            0o644,
        ),
        (
            "etc/sysctl.d/x.conf",
            "vm.max_map_count = 1000000\nnet/ipv4/conf/lan0.1/rp_filter=2\n",
            0o644,
        ),
        ("etc/modules-load.d/x.conf", "# c\nvfio-pci\n", 0o644),
        (KEYFILE, GOOD_KEYFILE, 0o600),
    ] {
        assert_eq!(findings_of(path, text, mode), [""; 0], "{path}");
    }
}

#[test]
fn lines_that_el8_would_refuse_or_misread_are_told() {
    for (path, line, finding) in [
        ("etc/tmpfiles.d/x.conf", "d= /x", "systemd 239 has no tmpfiles modifier ="),
        ("etc/tmpfiles.d/x.conf", "z- /x", "systemd 239 has no tmpfiles modifier -"),
        ("etc/tmpfiles.d/x.conf", "w+ /x - - - - y", "w+ means nothing to systemd 239"),
        ("etc/tmpfiles.d/x.conf", "y /x", "systemd 239 has no tmpfiles type y"),
        ("etc/tmpfiles.d/x.conf", "d x", "x: not an absolute path"),
        ("etc/tmpfiles.d/x.conf", "d /x 755", "755: not a mode of four octal digits"),
        (
            "etc/tmpfiles.d/x.conf",
            "d /x 0755 990 990",
            "990: owners are given by name; the numbers come with the packages",
        ),
        (
            "etc/sysctl.d/x.conf",
            "vm.swappiness",
            "not `key = value` for systemd 239: vm.swappiness",
        ),
        (
            "etc/sysctl.d/x.conf",
            "-vm.swappiness = 1",
            "not `key = value` for systemd 239: -vm.swappiness = 1",
        ),
        (
            "etc/sysctl.d/x.conf",
            "net.ipv4.conf.*.rp_filter = 1",
            "not `key = value` for systemd 239: net.ipv4.conf.*.rp_filter = 1",
        ),
        ("etc/modules-load.d/x.conf", "vfio-pci ids=1", "not a module's name: vfio-pci ids=1"),
    ] {
        let found = findings_of(path, &format!("# c\n{line}\n"), 0o644);
        assert_eq!(found, [format!("{path}:2: {finding}")], "{line}");
    }
}

#[test]
fn keyfiles_that_networkmanager_would_ignore_are_told() {
    for (from, to, mode, finding) in [
        ("", "", 0o644, "mode 0644: NetworkManager ignores a keyfile that is not 0600"),
        ("uuid=6b2c", "uuid=", 0o600, "[connection] uuid= is not a UUID"),
        ("address1", "address", 0o600, "[ipv4] method=manual without address1="),
        ("may-fail=false", "may-fail=true", 0o600, "[ipv4] may-fail=false is missing"),
        ("type=ethernet\n", "", 0o600, "[connection] type= is missing"),
    ] {
        let found = findings_of(KEYFILE, &GOOD_KEYFILE.replacen(from, to, 1), mode);
        assert_eq!(found, [format!("{KEYFILE}: {finding}")], "{from}");
    }
    let root = support::scratch();
    let second = KEYFILE.replace("lan0", "lan1");
    for path in [KEYFILE, &second] {
        support::write(root.path(), path, GOOD_KEYFILE);
        support::set_mode(root.path(), path, 0o600);
    }
    assert_eq!(
        findings(root.path()),
        [format!("uuid 6b2c1f3e-0000-5000-8000-000000000001 in {KEYFILE} and {second}")]
    );
}

#[test]
fn files_that_a_node_must_not_get_are_told() {
    assert_eq!(
        findings_of("etc/sudoers.d/x", "", 0o440),
        ["etc/sudoers.d/x: nothing here gives rights by sudo"]
    );
}
