//! What firmware and boot loaders read from `pxe/`: dnsmasq and GRUB have checkers of their
//! own, PXELINUX and iPXE do not.

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::{self, files_below};

/// All that is wrong in the `pxe/` folder of a build.
pub fn findings(pxe: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for path in files_below(pxe, |path| !path.starts_with("images/")) {
        let file = pxe.join(&path);
        let text = || std::fs::read_to_string(&file).unwrap();
        let faults = if path.ends_with("dnsmasq.conf") {
            dnsmasq(&file)
        } else if path.contains("grub.cfg") {
            grub(&file)
        } else if path.starts_with("pxelinux.cfg/") {
            pxelinux(&text())
        } else if path.ends_with(".ipxe") {
            ipxe(&text())
        } else {
            Vec::new()
        };
        found.extend(faults.into_iter().map(|fault| format!("{path}: {fault}")));
        found.extend(name_fault(&path));
    }
    found
}

/// PXELINUX and GRUB look for `01-` and the address with dashes in lower case
/// (syslinux doc/pxelinux.txt; grub docs "Network"): another name is never found.
fn name_fault(path: &str) -> Option<String> {
    let name = path.rsplit('/').next().unwrap_or_default();
    let address = name
        .strip_prefix("grub.cfg-01-")
        .or_else(|| path.starts_with("pxelinux.cfg/").then(|| name.strip_prefix("01-")).flatten());
    let is_by_address = path.starts_with("pxelinux.cfg/") || path.starts_with("grub/");
    let is_plain = !is_by_address || !name.contains("01-");
    let is_address = address.is_some_and(|address| {
        let is_octet = |part: &str| {
            part.len() == 2 && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        address.split('-').count() == 6 && address.split('-').all(is_octet)
    });
    (!is_plain && !is_address).then(|| format!("{path}: no boot loader asks for this name"))
}

/// What `dnsmasq --test` says of a configuration.
pub fn dnsmasq(path: &Path) -> Vec<String> {
    let conf = format!("--conf-file={}", path.display());
    let output = support::run("dnsmasq", &["--test", &conf]);
    let said = support::spoken_lines(&output);
    let is_praise = |line: &String| line == "dnsmasq: syntax check OK.";
    if output.status.success() && said.iter().all(is_praise) && !said.is_empty() {
        return Vec::new();
    }
    said.into_iter().chain([format!("dnsmasq: {}", output.status)]).collect()
}

/// What `grub-script-check` says of a menu.
pub fn grub(path: &Path) -> Vec<String> {
    let output = support::run("grub-script-check", &[path]);
    let mut found = support::spoken_lines(&output);
    if found.is_empty() && !output.status.success() {
        found.push(format!("grub-script-check: {}", output.status));
    }
    found
}

/// What keeps PXELINUX from booting by `text`, after syslinux's doc/syslinux.txt.
pub fn pxelinux(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut labels = BTreeSet::new();
    let mut wanted = Vec::new();
    let mut bootless: Option<&str> = None;
    let no_boot = |label: &str| format!("LABEL {label} boots nothing");
    for (number, line) in (1..).zip(text.lines()) {
        let (keyword, value) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        match keyword.to_ascii_uppercase().as_str() {
            "LABEL" => {
                found.extend(bootless.replace(value).map(no_boot));
                if !labels.insert(value) {
                    found.push(format!("{number}: LABEL {value} stands twice"));
                }
            }
            "DEFAULT" | "ONTIMEOUT" => wanted.push(value),
            "KERNEL" | "LINUX" | "COM32" | "LOCALBOOT" => bootless = None,
            // The kernel cuts at COMMAND_LINE_SIZE (arch/x86/include/asm/setup.h).
            "APPEND" if value.len() > 2047 => {
                found.push(format!("{number}: APPEND is longer than the kernel's 2047 bytes"));
            }
            "APPEND" | "INITRD" | "IPAPPEND" | "TIMEOUT" | "TOTALTIMEOUT" | "PROMPT" | "SAY"
            | "SERIAL" | "MENU" | "UI" | "DISPLAY" | "NOESCAPE" | "CONSOLE" => {}
            _ if keyword.is_empty() || keyword.starts_with('#') => {}
            _ => found.push(format!("{number}: PXELINUX has no keyword {keyword}")),
        }
    }
    found.extend(bootless.map(no_boot));
    let unknown = wanted.iter().filter(|label| !labels.contains(*label));
    found.extend(unknown.map(|label| format!("no LABEL {label}")));
    if wanted.is_empty() {
        found.push("no DEFAULT".to_owned());
    }
    found
}

/// What keeps iPXE from running `text`: it must begin with `#!ipxe` (ipxe.org/scripting), use
/// commands that iPXE has, and go to labels that are there.
pub fn ipxe(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if text.lines().next() != Some("#!ipxe") {
        found.push("1: does not begin with `#!ipxe`".to_owned());
    }
    let labels: BTreeSet<&str> =
        text.lines().filter_map(|line| line.trim().strip_prefix(':')).map(str::trim).collect();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.starts_with(['#', ':']) {
            continue;
        }
        // `a && b || c`; the arguments of `echo` and `set` may hold anything.
        for command in line.split("&&").flat_map(|part| part.split("||")) {
            let mut words = command.split_whitespace();
            let Some(name) = words.next() else { continue };
            if !IPXE_COMMANDS.contains(&name) {
                found.push(format!("{number}: iPXE has no command {name}"));
            }
            let target = words.next_back().filter(|_| name == "goto");
            if let Some(target) = target.filter(|to| !to.contains('$') && !labels.contains(to)) {
                found.push(format!("{number}: goto {target}: no such label"));
            }
        }
    }
    found
}

const IPXE_COMMANDS: &[&str] = &[
    "autoboot",
    "boot",
    "chain",
    "choose",
    "clear",
    "colour",
    "console",
    "cpair",
    "cpuid",
    "dhcp",
    "echo",
    "exit",
    "goto",
    "ifclose",
    "ifconf",
    "iflinkwait",
    "ifopen",
    "ifstat",
    "imgargs",
    "imgfetch",
    "imgfree",
    "imgload",
    "imgselect",
    "imgstat",
    "imgtrust",
    "imgverify",
    "inc",
    "initrd",
    "iseq",
    "isset",
    "item",
    "kernel",
    "login",
    "menu",
    "module",
    "nslookup",
    "ntp",
    "param",
    "params",
    "ping",
    "poweroff",
    "prompt",
    "read",
    "reboot",
    "route",
    "sanboot",
    "sanhook",
    "sanunhook",
    "set",
    "shell",
    "show",
    "sleep",
    "sync",
    "time",
    "vcreate",
    "vdestroy",
];

#[test]
fn dnsmasq_and_grub_judge_their_own_files() {
    if support::lacks(&["dnsmasq", "grub-script-check"]) {
        return;
    }
    let folder = support::scratch();
    let path = folder.path().join("x");
    std::fs::write(&path, "port=0\nenable-tftp\ntftp-root=/srv/out/current/pxe\n").unwrap();
    assert_eq!(dnsmasq(&path), [""; 0]);
    std::fs::write(&path, "port=0\nenable-tfpt\n").unwrap();
    let name = path.display();
    assert_eq!(
        dnsmasq(&path),
        [format!("dnsmasq: bad option at line 2 of {name}"), "dnsmasq: exit status: 1".to_owned()]
    );
    std::fs::write(&path, "menuentry 'x' {\n  linuxefi /k a=b\n  initrdefi /i\n}\n").unwrap();
    assert_eq!(grub(&path), [""; 0]);
    std::fs::write(&path, "menuentry 'x' {\n  linuxefi /k\n").unwrap();
    let found = grub(&path);
    assert!(found.iter().any(|line| line.contains("syntax error")), "{found:?}");
}

#[test]
fn pxelinux_menus_are_judged() {
    let good = "DEFAULT install\nPROMPT 0\n# c\nLABEL install\n  KERNEL vmlinuz\n  APPEND a=b\n\
                LABEL disk\n  LOCALBOOT 0\n";
    assert_eq!(pxelinux(good), [""; 0]);
    for (from, to, finding) in [
        ("DEFAULT install", "DEFAULT instal", "no LABEL instal"),
        ("DEFAULT install", "", "no DEFAULT"),
        ("  KERNEL vmlinuz\n", "", "LABEL install boots nothing"),
        ("  LOCALBOOT 0\n", "", "LABEL disk boots nothing"),
        ("PROMPT 0", "PROMT 0", "2: PXELINUX has no keyword PROMT"),
        ("LABEL disk", "LABEL install", "7: LABEL install stands twice"),
        ("a=b", &"a".repeat(2048), "6: APPEND is longer than the kernel's 2047 bytes"),
    ] {
        assert_eq!(pxelinux(&good.replace(from, to)), [finding], "{from} {to}");
    }
}

#[test]
fn ipxe_scripts_are_judged() {
    let good = "#!ipxe\n# c\nset base http://x\nkernel ${base}/k initrd=initrd.magic || goto disk\n\
                initrd ${base}/i && boot || goto disk\n:disk\nexit 1\n";
    assert_eq!(ipxe(good), [""; 0]);
    for (from, to, finding) in [
        ("#!ipxe\n", "#!ipxe \n", "1: does not begin with `#!ipxe`"),
        ("|| goto disk\n:", "|| goto disc\n:", "5: goto disc: no such label"),
        ("exit 1", "exti 1", "7: iPXE has no command exti"),
    ] {
        assert_eq!(ipxe(&good.replace(from, to)), [finding], "{from} {to}");
    }
}

#[test]
fn menus_under_names_that_nothing_asks_for_are_told() {
    for name in [
        "pxelinux.cfg/01-52-54-00-03-00-11",
        "pxelinux.cfg/default",
        "grub/grub.cfg",
        "grub/grub.cfg-01-52-54-00-03-00-11",
        "boot.ipxe",
        "ipxe/02-4e-46-01-00-01.ipxe",
    ] {
        assert_eq!(name_fault(name), None);
    }
    for name in [
        "pxelinux.cfg/01-52-54-00-03-00-AA",
        "pxelinux.cfg/01-52:54:00:03:00:11",
        "grub/grub.cfg-01-52-54-00-03-00",
    ] {
        assert_eq!(name_fault(name).unwrap(), format!("{name}: no boot loader asks for this name"));
    }
}
