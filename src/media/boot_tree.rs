//! The boot tree `pxe/`: what PXELINUX, GRUB and iPXE ask for, by MAC address, and a
//! dnsmasq.conf that sends each firmware to its boot program.
//!
//! File names: `pxelinux.cfg/01-<mac>` (PXELINUX, "Configuration filename"),
//! `grub/grub.cfg-01-<mac>` (GRUB's net_default_mac), `ipxe/<mac>.ipxe` (ours, from
//! boot.ipxe by `${netX/mac:hexhyp}`).

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::cluster::{Cluster, DiskBoot, Firmware, Kind, Net, Node, OverlayVia, SecretsVia};
use crate::manifest::{BootNet, ClusterBoot, NodeBoot};
use crate::net::MacAddr;
use crate::render::install;
use crate::render::template::{Settled, TemplateError, Templates, Values};

/// The templates of the boot tree, by their path in the library below `profiles/`.
pub const TEMPLATES: &[&str] = &[
    "boot/boot.ipxe.hbs",
    "boot/dnsmasq.conf.hbs",
    "boot/grub.cfg.hbs",
    "boot/grub.default.hbs",
    "boot/node.ipxe.hbs",
    "boot/pxelinux.cfg.hbs",
    "boot/pxelinux.default.hbs",
];

/// What a boot menu needs to know of a node.
#[derive(Serialize)]
struct NodeMenu<'a> {
    node: &'a str,
    cluster: &'a str,
    url: &'a str,
    /// The folder of the installer's kernel and initrd, from the top of the boot tree.
    images: String,
    /// The installer's kernel arguments.
    arguments: &'a str,
    /// Where the boot loader finds install.cpio.gz, if the node boots with it.
    install_archive: Option<String>,
    /// PXELINUX's SERIAL directive: port and baud rate.
    serial_port: Option<String>,
    /// GRUB's serial command.
    serial_unit: Option<String>,
    /// PXELINUX's LOCALBOOT type.
    localboot: &'static str,
    /// The lines that boot from disk, in the language of the boot loader.
    disk: &'static str,
}

/// The boot menus of the nodes of one kind, but for what is the nodes' own.
pub struct KindMenus<'a> {
    templates: &'a Templates,
    cluster: &'a Cluster,
    kind: &'a Kind,
    stage2: Stage2,
    /// PXELINUX's, GRUB's, iPXE's.
    menus: [KindMenu; 3],
}

struct KindMenu {
    values: Values,
    settled: Settled,
    /// What the path of install.cpio.gz begins with.
    top: String,
}

/// The fields of a [`NodeMenu`] that are a node's own.
const OWN_PATHS: &[&[&str]] = &[&["node"], &["arguments"], &["install_archive"]];

impl<'a> KindMenus<'a> {
    pub fn of(
        templates: &'a Templates,
        cluster: &'a Cluster,
        kind: &'a Kind,
        stage2: Stage2,
    ) -> Self {
        let url = cluster.boot.url.as_str();
        let serial = kind.hw.console.as_deref().and_then(serial);
        let disk_boot = kind.hw.disk_boot;
        let menu = |template, top, disk| {
            let values = Values::of(&NodeMenu {
                node: "",
                cluster: &cluster.name,
                url,
                images: images(kind),
                arguments: "",
                install_archive: None,
                serial_port: serial.map(|(unit, speed)| format!("{unit} {speed}")),
                serial_unit: serial.map(|(unit, speed)| format!("--unit={unit} --speed={speed}")),
                localboot: localboot(disk_boot),
                disk,
            });
            KindMenu { settled: templates.settle(template, &values, OWN_PATHS), values, top }
        };
        let menus = [
            menu("boot/pxelinux.cfg.hbs", url.to_owned(), ""),
            menu("boot/grub.cfg.hbs", grub_device(url), grub_disk(disk_boot)),
            menu("boot/node.ipxe.hbs", url.to_owned(), ipxe_disk(disk_boot)),
        ];
        Self { templates, cluster, kind, stage2, menus }
    }

    /// The boot files of one node of the kind by path below `pxe/`; none without a MAC address.
    ///
    /// # Errors
    ///
    /// Fails when a site's template is wrong.
    pub fn files(&self, node: &Node) -> Result<BTreeMap<String, String>, TemplateError> {
        let cluster = self.cluster;
        let Some(mac) = cluster.boot_mac(node) else { return Ok(BTreeMap::new()) };
        let arguments = installer_arguments(cluster, self.kind, node, mac, self.stage2);
        let is_handed_over = cluster.boot.overlay.value == OverlayVia::Media;
        let is_secret = holds_secrets(cluster, self.kind);
        let mut files = BTreeMap::new();
        for (path, menu) in node_paths(mac).into_iter().zip(&self.menus) {
            let archive = is_handed_over.then(|| match is_secret {
                true => format!("{}/secret/{}.install.cpio.gz", menu.top, node.name),
                false => format!("{}/nodes/{}/install.cpio.gz", menu.top, node.name),
            });
            let mut values = menu.values.clone();
            values.set_root("node", node.name.as_str().into());
            values.set_root("arguments", arguments.as_str().into());
            values.set_root("install_archive", archive.into());
            files.insert(path, self.templates.render_settled(&menu.settled, &values)?);
        }
        Ok(files)
    }
}

/// The paths of one node's files below `pxe/`: PXELINUX's, GRUB's, iPXE's.
pub fn node_paths(mac: MacAddr) -> [String; 3] {
    let name = mac.pxe_config_name();
    [
        format!("pxelinux.cfg/{name}"),
        format!("grub/grub.cfg-{name}"),
        format!("ipxe/{}.ipxe", mac.hyphenated()),
    ]
}

/// The folder of the installer's images for a kind, from the top of the boot tree.
pub fn images(kind: &Kind) -> String {
    format!("images/{}", kind.os.release.value)
}

/// Where the installer's second stage comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage2 {
    /// From the tree that the kickstart's `url` names.
    Mirror,
    /// From the boot server, which has install.img.
    BootServer,
}

/// dracut.cmdline(7) and anaconda's boot-options: the network comes up on the NIC that
/// booted, by the DHCP server that let it boot, and the kickstart takes over from there.
fn installer_arguments(
    cluster: &Cluster,
    kind: &Kind,
    node: &Node,
    mac: MacAddr,
    stage2: Stage2,
) -> String {
    let url = cluster.boot.url.as_str();
    let mut words = vec!["ip=dhcp".to_owned(), format!("BOOTIF={}", mac.pxe_config_name())];
    words.push(match (cluster.boot.overlay.value, holds_secrets(cluster, kind)) {
        (OverlayVia::Media, _) => "inst.ks=file:/ks.cfg".to_owned(),
        (_, true) => format!("inst.ks={url}/secret/{}.ks", node.name),
        (_, false) => format!("inst.ks={url}/nodes/{}/kickstart.ks", node.name),
    });
    words.push("inst.ks.sendmac".to_owned());
    if stage2 == Stage2::BootServer {
        words.push(format!("inst.stage2={url}/pxe/{}", images(kind)));
    }
    words.push("inst.text".to_owned());
    words.extend(kind.hw.console.as_ref().map(|console| format!("console=tty0 console={console}")));
    words.join(" ")
}

/// What the boot server needs to know of a node; `None` without a MAC address.
pub fn node_boot(cluster: &Cluster, node: &Node, stage2: Stage2) -> Option<NodeBoot> {
    let kind = cluster.kind_of(node);
    let mac = cluster.boot_mac(node)?;
    Some(NodeBoot {
        address: cluster.primary_address(node),
        rack: node.rack.clone(),
        daos: kind.is_server().then(|| cluster.daos.version.value.clone()),
        arguments: installer_arguments(cluster, kind, node, mac, stage2),
        disk_boot: disk_boot_name(kind.hw.disk_boot).to_owned(),
        needs_token: cluster.boot.secrets.value == SecretsVia::Token
            && install::has_secrets(cluster, kind),
    })
}

/// What the boot server needs to know of the cluster.
pub fn cluster_boot(cluster: &Cluster) -> ClusterBoot {
    ClusterBoot {
        url: cluster.boot.url.value.clone(),
        domain: cluster.domain.clone(),
        ntp: cluster.ntp.iter().filter_map(|server| server.parse().ok()).collect(),
        nets: boot_nets(cluster)
            .map(|net| BootNet {
                name: net.name.clone(),
                network: net.subnet.network(),
                netmask: net.subnet.netmask(),
                gateway: net.gateway.as_ref().map(|gateway| gateway.value),
                dns: net.dns.clone(),
            })
            .collect(),
    }
}

/// The words of `disk_boot` in the cluster file.
const DISK_BOOTS: [(DiskBoot, &str); 4] = [
    (DiskBoot::Exit, "exit"),
    (DiskBoot::ExitFail, "exit 1"),
    (DiskBoot::Sanboot, "sanboot"),
    (DiskBoot::Chain, "chain"),
];

fn disk_boot_name(disk_boot: DiskBoot) -> &'static str {
    let name = DISK_BOOTS.iter().find(|(known, _)| *known == disk_boot);
    name.expect("the table has every one").1
}

/// A boot loader that is told by a script what to boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loader {
    Pxelinux,
    Grub,
    Ipxe,
}

impl Loader {
    /// In the order of [`node_paths`].
    pub const ALL: [Self; 3] = [Self::Pxelinux, Self::Grub, Self::Ipxe];
}

/// The script that boots from disk. `disk_boot` is [`NodeBoot`]'s; what nobody knows is
/// `exit`.
pub fn disk_script(loader: Loader, node: &str, disk_boot: &str) -> String {
    let disk_boot = disk_boot_of(disk_boot);
    match loader {
        Loader::Pxelinux => format!(
            "# {node} boots from disk.\nDEFAULT disk\nPROMPT 0\nTIMEOUT 10\n\nLABEL disk\n  LOCALBOOT {}\n",
            localboot(disk_boot)
        ),
        Loader::Grub => format!(
            "# {node} boots from disk.\nset default=0\nset timeout=0\n\n\
             menuentry 'Boot {node} from disk' {{\n{}\n}}\n",
            grub_disk(disk_boot)
        ),
        Loader::Ipxe => {
            format!("#!ipxe\necho nodeforge: {node} boots from disk\n{}\n", ipxe_disk(disk_boot))
        }
    }
}

fn disk_boot_of(name: &str) -> DiskBoot {
    let known = DISK_BOOTS.iter().find(|(_, known)| *known == name);
    known.map_or(DiskBoot::Exit, |(known, _)| *known)
}

/// The script that shows `message` and goes no further until a person comes. All but letters,
/// digits and harmless marks is left out of the message: it stands in three languages. `disk_boot`
/// as for [`disk_script`], which that person may choose.
pub fn halt_script(loader: Loader, node: &str, message: &str, disk_boot: &str) -> String {
    let disk_boot = disk_boot_of(disk_boot);
    let is_harmless = |c: &char| c.is_ascii_alphanumeric() || " .,:;/()+=_-".contains(*c);
    let message: String = message.chars().filter(is_harmless).collect();
    match loader {
        Loader::Pxelinux => format!(
            "# {node} waits for a person.\nSAY nodeforge: {node}: {message}\nSAY Waiting for a person; Enter boots from disk.\n\
             DEFAULT disk\nPROMPT 1\nTIMEOUT 0\n\nLABEL disk\n  LOCALBOOT {}\n",
            localboot(disk_boot)
        ),
        Loader::Grub => format!(
            "# {node} waits for a person.\nset timeout=-1\n\n\
             menuentry 'nodeforge: {node}: {message}' {{\n  true\n}}\n\n\
             menuentry 'Boot from disk' {{\n{}\n}}\n",
            grub_disk(disk_boot)
        ),
        Loader::Ipxe => format!(
            "#!ipxe\n:halt\necho nodeforge: {node}: {message}\n\
             echo Waiting for a person; restart the machine when the cause is gone.\n\
             sleep 60\ngoto halt\n"
        ),
    }
}

/// Whether the kickstart of such a node, and what is made with it, is itself secret.
pub fn holds_secrets(cluster: &Cluster, kind: &Kind) -> bool {
    cluster.boot.secrets.value == SecretsVia::Embedded && install::has_secrets(cluster, kind)
}

/// Unit and baud rate of `ttyS0,115200n8`; `None` for a console that is no serial port.
fn serial(console: &str) -> Option<(u8, u32)> {
    let (device, options) = console.split_once(',').unwrap_or((console, "9600"));
    let unit = device.strip_prefix("ttyS")?.parse().ok()?;
    let digits = options.bytes().take_while(u8::is_ascii_digit).count();
    Some((unit, options[..digits].parse().ok()?))
}

/// GRUB's name of the boot server: `(http,192.168.3.1:8080)`, with the path of the URL.
fn grub_device(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let (host, path) = rest
        .split_once('/')
        .map_or((rest, String::new()), |(host, path)| (host, format!("/{path}")));
    format!("({scheme},{host}){path}")
}

fn localboot(disk_boot: DiskBoot) -> &'static str {
    match disk_boot {
        DiskBoot::Sanboot => "0x80",
        DiskBoot::Exit | DiskBoot::ExitFail | DiskBoot::Chain => "-1",
    }
}

/// The handover differs by vendor: after `exit` some UEFI firmware goes on with its boot
/// order, other boxes need an error (`exit 1`) or the disk's own loader.
fn grub_disk(disk_boot: DiskBoot) -> &'static str {
    match disk_boot {
        DiskBoot::Exit | DiskBoot::Sanboot => "  exit",
        // Debian's GRUB 2.06 passes over the number: OVMF was seen in its setup afterwards.
        DiskBoot::ExitFail => "  exit 1",
        // The installed system's own loader, else the one that firmware without boot entries
        // starts (UEFI 2.9 §3.5.1.1). In one line, as templates take no other values.
        DiskBoot::Chain => {
            "  if search --no-floppy --file --set=root /EFI/almalinux/shimx64.efi; \
             then chainloader /EFI/almalinux/shimx64.efi; \
             elif search --no-floppy --file --set=root /EFI/BOOT/BOOTX64.EFI; \
             then chainloader /EFI/BOOT/BOOTX64.EFI; \
             else exit 1; fi"
        }
    }
}

fn ipxe_disk(disk_boot: DiskBoot) -> &'static str {
    match disk_boot {
        DiskBoot::Exit => "exit",
        DiskBoot::ExitFail => "exit 1",
        DiskBoot::Sanboot => "sanboot --no-describe --drive 0x80",
        DiskBoot::Chain => {
            "sanboot --no-describe --drive 0x80 --filename \\EFI\\almalinux\\shimx64.efi"
        }
    }
}

/// What the shared files of the boot tree say.
#[derive(Serialize)]
struct Shared<'a> {
    cluster: &'a str,
    domain: &'a str,
    ntp: String,
    url: &'a str,
    disk: &'static str,
    /// The boot program of UEFI machines: GRUB takes the folder it was loaded from as its
    /// prefix and looks for its configuration there.
    efi_program: &'static str,
    ranges: Vec<Range>,
    hosts: Vec<Host<'a>>,
}

/// One subnet that nodes boot from.
#[derive(Serialize)]
struct Range {
    name: String,
    network: String,
    netmask: String,
    gateway: String,
    dns: String,
}

#[derive(Serialize)]
struct Host<'a> {
    mac: String,
    address: String,
    name: &'a str,
}

/// The files that all nodes share, by path below `pxe/`: the way in, the answer to unknown
/// machines, and dnsmasq.conf.
///
/// # Errors
///
/// Fails when a site's template is wrong.
pub fn shared_files(
    templates: &Templates,
    cluster: &Cluster,
) -> Result<BTreeMap<String, String>, TemplateError> {
    let ntp = cluster.ntp.iter().filter(|server| server.parse::<std::net::Ipv4Addr>().is_ok());
    let values = Values::of(&Shared {
        cluster: &cluster.name,
        domain: &cluster.domain,
        ntp: ntp.cloned().collect::<Vec<_>>().join(","),
        url: &cluster.boot.url,
        disk: grub_disk(disk_boot_of_strangers(cluster)),
        efi_program: "grub/shimx64.efi",
        ranges: ranges(cluster),
        hosts: hosts(cluster),
    });
    [
        ("boot.ipxe", "boot/boot.ipxe.hbs"),
        ("dnsmasq.conf", "boot/dnsmasq.conf.hbs"),
        ("grub/grub.cfg", "boot/grub.default.hbs"),
        ("pxelinux.cfg/default", "boot/pxelinux.default.hbs"),
    ]
    .into_iter()
    .map(|(path, template)| Ok((path.to_owned(), templates.render_values(template, &values)?)))
    .collect()
}

/// A machine that nobody knows is left to its firmware, unless all nodes of UEFI need more than
/// that: then it is likely to be of their kind.
fn disk_boot_of_strangers(cluster: &Cluster) -> DiskBoot {
    let kinds = cluster.kinds.iter().filter(|kind| kind.hw.firmware == Firmware::Uefi);
    let ways: Vec<DiskBoot> = kinds.map(|kind| kind.hw.disk_boot).collect();
    match !ways.is_empty() && ways.iter().all(|way| *way == DiskBoot::Chain) {
        true => DiskBoot::Chain,
        // Firmware that is told of a success shows its setup instead of going on (UEFI 2.10 §3.1.1).
        false => DiskBoot::ExitFail,
    }
}

fn hosts(cluster: &Cluster) -> Vec<Host<'_>> {
    let host = |node| {
        let mac = cluster.boot_mac(node)?;
        let address = cluster.primary_address(node)?;
        Some(Host { mac: mac.to_string(), address: address.to_string(), name: node.name.as_str() })
    };
    cluster.nodes.iter().filter_map(host).collect()
}

/// The subnets of the addresses that nodes boot with.
fn boot_nets(cluster: &Cluster) -> impl Iterator<Item = &Net> {
    let nets: BTreeSet<&str> = cluster
        .kinds
        .iter()
        .filter_map(|kind| Some(kind.hw.nics[kind.primary_nic()?].net.as_ref()?.value.as_str()))
        .collect();
    nets.into_iter().filter_map(|name| cluster.nets.get(name))
}

fn ranges(cluster: &Cluster) -> Vec<Range> {
    boot_nets(cluster)
        .map(|net| Range {
            name: net.name.clone(),
            network: net.subnet.network().to_string(),
            netmask: net.subnet.netmask().to_string(),
            gateway: net
                .gateway
                .as_ref()
                .map_or_else(String::new, |gateway| gateway.value.to_string()),
            dns: net.dns.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_the_disk_is_one_line_as_templates_take_it() {
        for (disk_boot, name) in DISK_BOOTS {
            for way in [grub_disk(disk_boot), ipxe_disk(disk_boot), localboot(disk_boot)] {
                assert!(!way.chars().any(char::is_control), "{name}: {way:?}");
            }
        }
    }
}
