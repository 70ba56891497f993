//! Boot programs: which firmware is told to load what, and whether that is there.
//!
//! They are other projects' work and come with the build, from its folder of boot programs
//! (`build --boot-programs`). Here they are only chosen, and looked at before anything is
//! served: firmware that finds nothing says little more than `PXE-E53`.

use crate::manifest::Manifest;

/// What a client is to load, by path below the TFTP root or as a URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Programs {
    /// Of BIOS machines, by TFTP.
    pub bios: Option<String>,
    /// Of x86-64 UEFI machines, by TFTP.
    pub uefi: Option<String>,
    /// Of x86-64 UEFI machines that boot by HTTP: a URL.
    pub uefi_http: Option<String>,
    /// The URL of the script that iPXE goes on with.
    pub script: String,
}

/// For BIOS machines, the best first; beside each, what it loads from its own folder.
const BIOS: [(&str, &[&str]); 3] =
    [("undionly.kpxe", &[]), ("lpxelinux.0", &["ldlinux.c32"]), ("pxelinux.0", &["ldlinux.c32"])];
/// For UEFI machines. shim first, as only it starts with Secure Boot.
const UEFI: [(&str, &[&str]); 4] = [
    ("grub/shimx64.efi", &["grub/grubx64.efi"]),
    ("grub/grubx64.efi", &[]),
    ("snponly.efi", &[]),
    ("ipxe.efi", &[]),
];
/// For UEFI machines that boot by HTTP: GRUB would look for its menus by HTTP as well, with the
/// names it has for TFTP.
const UEFI_HTTP: [(&str, &[&str]); 2] = [("snponly.efi", &[]), ("ipxe.efi", &[])];

/// One line about the boot programs that a person should read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// What a kind of firmware is told.
    Told(String),
    /// A kind of firmware gets nothing; others may.
    Missing(String),
    /// What is there cannot work.
    Broken(String),
}

impl Programs {
    /// Chooses from the boot tree of `manifest`.
    pub fn of(manifest: &Manifest) -> Self {
        let url = manifest.boot.as_ref().map_or("", |boot| boot.url.as_str());
        let first = |choices: &[(&str, &[&str])]| {
            let is_there = |(name, needs): &&(&str, &[&str])| {
                has(manifest, name) && needs.iter().all(|need| has(manifest, need))
            };
            choices.iter().find(is_there).map(|(name, _)| (*name).to_owned())
        };
        Self {
            bios: first(&BIOS),
            uefi: first(&UEFI),
            uefi_http: first(&UEFI_HTTP).map(|name| format!("{url}/pxe/{name}")),
            script: format!("{url}/pxe/boot.ipxe"),
        }
    }

    /// The same for a network whose addresses come from another DHCP server: GRUB 2.06 was
    /// seen to look for its menu at that server, not where it was loaded from, so iPXE is better
    /// where there is one. With Secure Boot only shim and GRUB start; the other server then has
    /// to name us as `next-server`.
    pub fn beside_another_dhcp(mut self, manifest: &Manifest) -> Self {
        let is_grub = self.uefi.as_deref().is_some_and(|name| name.starts_with("grub/"));
        let ipxe = UEFI_HTTP.iter().map(|(name, _)| *name).find(|name| has(manifest, name));
        if let (true, Some(ipxe)) = (is_grub, ipxe) {
            self.uefi = Some(ipxe.to_owned());
        }
        self
    }

    /// Whether any firmware but iPXE's own gets something.
    pub fn are_any(&self) -> bool {
        self.bios.is_some() || self.uefi.is_some() || self.uefi_http.is_some()
    }
}

fn has(manifest: &Manifest, name: &str) -> bool {
    manifest.pxe.folder.files.contains_key(name)
}

/// What to say of the boot programs of `manifest` before serving them. `head` gives the first
/// kilobyte or more of a file below `pxe/`.
pub fn findings<E: std::fmt::Display>(
    manifest: &Manifest,
    programs: &Programs,
    head: impl Fn(&str) -> Result<Vec<u8>, E>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let script = "then boot.ipxe by HTTP";
    for (firmware, program, choices) in [
        ("BIOS", &programs.bios, &BIOS[..]),
        ("UEFI", &programs.uefi, &UEFI[..]),
        ("UEFI HTTP boot", &programs.uefi_http, &UEFI_HTTP[..]),
    ] {
        let Some(program) = program else {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            findings.push(Finding::Missing(format!(
                "{firmware}: nothing to boot; put {} into the folder of boot programs and build again",
                names.join(" or ")
            )));
            continue;
        };
        let then = match program.rsplit('/').next().unwrap_or(program) {
            "shimx64.efi" => "which loads grub/grubx64.efi, then grub/grub.cfg-01-MAC by TFTP",
            "grubx64.efi" => "then grub/grub.cfg-01-MAC by TFTP",
            "pxelinux.0" | "lpxelinux.0" => "then pxelinux.cfg/01-MAC by TFTP",
            _ => script,
        };
        let way = if program.contains("://") { "" } else { " by TFTP" };
        findings.push(Finding::Told(format!("{firmware}: {program}{way}, {then}")));
    }
    findings.push(Finding::Told(format!("iPXE: {}", programs.script)));
    findings.extend(unreachable_archives(manifest, programs));
    for (name, needs) in [&BIOS[..], &UEFI[..]].concat() {
        if !has(manifest, name) {
            continue;
        }
        for need in needs.iter().filter(|need| !has(manifest, need)) {
            findings.push(Finding::Broken(format!(
                "pxe/{name} is there, and pxe/{need}, which it loads, is not: put it into the \
                 folder of boot programs and build again"
            )));
        }
        if let Some(fault) = fault(name, head(name)) {
            findings.push(Finding::Broken(format!("pxe/{name} {fault}")));
        }
    }
    findings
}

/// GRUB 2.02 to 2.06 asks port 80 whatever the URL says (their grub-core/net/http.c has it as
/// `HTTP_PORT`), and HTTP is how it gets a node's install.cpio.gz.
fn unreachable_archives(manifest: &Manifest, programs: &Programs) -> Option<Finding> {
    let program = programs.uefi.as_deref().filter(|name| name.starts_with("grub/"))?;
    let url = &manifest.boot.as_ref()?.url;
    let rest = url.strip_prefix("http://")?;
    let (_, port) = rest.split('/').next()?.rsplit_once(':').filter(|(_, port)| *port != "80")?;
    // The kickstart of a node that boots with the archive is in there.
    let mut boots = manifest.nodes.values().filter_map(|node| node.boot.as_ref());
    boots.any(|boot| boot.arguments.contains("inst.ks=file:")).then(|| {
        Finding::Missing(format!(
            "UEFI: {program} gets install.cpio.gz by HTTP, for which most versions of GRUB ask port \
             80, not {port}: let boot.url have no port, or put snponly.efi into the folder of boot \
             programs and take away {program}"
        ))
    })
}

/// What is wrong with a program, judged by its first bytes.
fn fault<E: std::fmt::Display>(name: &str, head: Result<Vec<u8>, E>) -> Option<String> {
    let head = match head {
        Ok(head) => head,
        Err(error) => return Some(format!("cannot be read: {error}")),
    };
    let is_efi = name.ends_with(".efi");
    match (is_efi, machine(&head)) {
        (true, Some(0x8664)) | (false, None) if !head.is_empty() => None,
        (true, Some(0x014c)) => Some("is for 32-bit UEFI; take the one for x86-64".to_owned()),
        (true, Some(0xaa64)) => Some("is for Arm; take the one for x86-64".to_owned()),
        (true, _) => Some("is no UEFI program".to_owned()),
        (false, Some(_)) => Some("is a UEFI program, and BIOS machines would load it".to_owned()),
        (false, None) => Some("is empty".to_owned()),
    }
}

/// The machine type of a UEFI program (PE format, "COFF file header").
fn machine(head: &[u8]) -> Option<u16> {
    let u16_at = |at: usize| Some(u16::from_le_bytes(head.get(at..at + 2)?.try_into().ok()?));
    if !head.starts_with(b"MZ") {
        return None;
    }
    let header = usize::from(u16_at(0x3c)?);
    (head.get(header..header + 4)? == b"PE\0\0").then(|| u16_at(header + 4))?
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::manifest::{
        ClusterBoot, FileEntry, Folder, NodeBoot, NodeEntry, PxeEntry, Reproducible, shared_name,
    };

    fn manifest(names: &[&str]) -> Manifest {
        let mut manifest = Manifest::new("lab3", Reproducible::Yes);
        let entry = |name: &&str| (shared_name(name), FileEntry::of(b"x"));
        let files = names.iter().map(entry).collect();
        manifest.pxe = PxeEntry { folder: Folder::of(files), pending: Default::default() };
        let url = "http://192.168.3.1:8080".to_owned();
        manifest.boot = Some(ClusterBoot { url, ..ClusterBoot::default() });
        manifest
    }

    fn efi(machine: u16) -> Vec<u8> {
        let mut head = b"MZ".to_vec();
        head.resize(0x3c, 0);
        head.extend([0x80, 0, 0, 0]);
        head.resize(0x80, 0);
        head.extend(b"PE\0\0");
        head.extend(machine.to_le_bytes());
        head
    }

    fn head(name: &str) -> Result<Vec<u8>, String> {
        Ok(if name.ends_with(".efi") { efi(0x8664) } else { b"\xeb\x58".to_vec() })
    }

    #[test]
    fn the_best_program_that_is_whole_is_chosen() {
        for (names, bios, uefi, http) in [
            (&[][..], None, None, None),
            (&["undionly.kpxe", "pxelinux.0", "ldlinux.c32"], Some("undionly.kpxe"), None, None),
            (&["pxelinux.0", "ldlinux.c32"], Some("pxelinux.0"), None, None),
            (&["pxelinux.0"], None, None, None),
            (&["grub/shimx64.efi", "grub/grubx64.efi"], None, Some("grub/shimx64.efi"), None),
            (&["grub/shimx64.efi", "snponly.efi"], None, Some("snponly.efi"), Some("snponly.efi")),
            (&["grub/grubx64.efi"], None, Some("grub/grubx64.efi"), None),
        ] {
            let programs = Programs::of(&manifest(names));
            let url = http.map(|name| format!("http://192.168.3.1:8080/pxe/{name}"));
            assert_eq!(
                (programs.bios.as_deref(), programs.uefi.as_deref(), programs.uefi_http),
                (bios, uefi, url),
                "{names:?}"
            );
        }
    }

    #[test]
    fn beside_another_dhcp_server_ipxe_comes_before_grub() {
        for (names, uefi) in [
            (&["grub/grubx64.efi", "snponly.efi"][..], Some("snponly.efi")),
            (&["grub/grubx64.efi"], Some("grub/grubx64.efi")),
            (&["undionly.kpxe"], None),
        ] {
            let manifest = manifest(names);
            let programs = Programs::of(&manifest).beside_another_dhcp(&manifest);
            assert_eq!(programs.uefi.as_deref(), uefi, "{names:?}");
        }
    }

    #[test]
    fn every_firmware_is_spoken_of() {
        let names = ["undionly.kpxe", "grub/shimx64.efi", "grub/grubx64.efi"];
        let said = findings(&manifest(&names), &Programs::of(&manifest(&names)), head);
        let told = |text: &str| Finding::Told(text.to_owned());
        assert_eq!(
            said,
            [
                told("BIOS: undionly.kpxe by TFTP, then boot.ipxe by HTTP"),
                told(
                    "UEFI: grub/shimx64.efi by TFTP, which loads grub/grubx64.efi, then \
                     grub/grub.cfg-01-MAC by TFTP"
                ),
                Finding::Missing(
                    "UEFI HTTP boot: nothing to boot; put snponly.efi or ipxe.efi into the folder \
                     of boot programs and build again"
                        .to_owned()
                ),
                told("iPXE: http://192.168.3.1:8080/pxe/boot.ipxe"),
            ]
        );
    }

    #[test]
    fn grub_that_would_ask_the_wrong_port_is_named() {
        let mut manifest = manifest(&["grub/grubx64.efi"]);
        let mut said = |url: &str, arguments: &str| {
            manifest.boot.as_mut().unwrap().url = url.to_owned();
            let boot = NodeBoot { arguments: arguments.to_owned(), ..NodeBoot::default() };
            let node = NodeEntry {
                roles: Vec::new(),
                layers: Vec::new(),
                macs: Vec::new(),
                release: "8.9".to_owned(),
                folder: Folder::of(BTreeMap::new()),
                boot: Some(boot),
            };
            manifest.nodes.insert("node0".to_owned(), node);
            let said = findings(&manifest, &Programs::of(&manifest), head);
            said.iter().any(|it| matches!(it, Finding::Missing(text) if text.contains("not 8080")))
        };
        assert!(said("http://192.168.3.1:8080", "inst.ks=file:/ks.cfg"));
        assert!(!said("http://192.168.3.1", "inst.ks=file:/ks.cfg"));
        assert!(!said("http://192.168.3.1:80/lab", "inst.ks=file:/ks.cfg"));
        assert!(!said("http://192.168.3.1:8080", "inst.ks=http://192.168.3.1:8080/nodes/n.ks"));
    }

    #[test]
    fn programs_that_cannot_work_are_named() {
        let fault_of = |name: &str, bytes: Vec<u8>| {
            let manifest = manifest(&[name, "grub/grubx64.efi"]);
            let heads = |asked: &str| if asked == name { Ok(bytes.clone()) } else { head(asked) };
            let said = findings(&manifest, &Programs::of(&manifest), heads);
            let broken = said.into_iter().find_map(|finding| match finding {
                Finding::Broken(text) => Some(text),
                _ => None,
            });
            broken.unwrap_or_default()
        };
        for (name, bytes, expected) in [
            ("snponly.efi", efi(0x8664), ""),
            ("snponly.efi", efi(0x014c), "is for 32-bit UEFI; take the one for x86-64"),
            ("snponly.efi", b"<html>".to_vec(), "is no UEFI program"),
            ("snponly.efi", vec![], "is no UEFI program"),
            ("undionly.kpxe", efi(0x8664), "is a UEFI program, and BIOS machines would load it"),
            ("undionly.kpxe", vec![], "is empty"),
        ] {
            let said = fault_of(name, bytes);
            let expected =
                if expected.is_empty() { String::new() } else { format!("pxe/{name} {expected}") };
            assert_eq!(said, expected);
        }
        let manifest = manifest(&["grub/shimx64.efi"]);
        let said = findings(&manifest, &Programs::of(&manifest), head);
        assert!(said.iter().any(|finding| matches!(
            finding,
            Finding::Broken(text) if text.starts_with("pxe/grub/shimx64.efi is there, and pxe/grub/grubx64.efi")
        )));
    }
}
