//! How a node's kickstart follows from the cluster.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::cluster::{
    BdevClass, Cluster, DiskRule, Firewall, Kind, Node, Os, OverlayVia, Repo, SecretsVia, Security,
    Selinux, Tree,
};
use crate::render::context;
use crate::render::kickstart::{
    self, Bus, EmbeddedFile, KeptFilesystem, KickstartContext, Network,
};
use crate::render::template::Values;
use crate::units::ByteSize;

/// What of a kickstart is the same for all nodes of a kind.
#[derive(Clone, Debug)]
pub struct KindKickstart(KickstartContext);

/// What of a kickstart is known only when the node's other artefacts are.
#[derive(Clone, Debug, Default)]
pub struct NodeFiles {
    /// Digest of the node's own overlay.tar.gz, in hex.
    pub overlay_sha256: String,
    /// Files inside the kickstart, for `boot.overlay` or `boot.secrets` = "embedded".
    pub embedded: Vec<EmbeddedFile>,
    /// The root password's hash, only for `boot.secrets` = "embedded".
    pub root_hash: Option<String>,
}

/// The fields of a [`KickstartContext`] that are a node's own.
#[derive(Serialize)]
struct OwnValues<'a> {
    node: &'a str,
    network: Network,
    overlay_sha256: String,
    embedded: Vec<EmbeddedFile>,
    root_hash: Option<String>,
}

/// Where in a [`KickstartContext`] that stands which [`KindKickstart::set_node`] sets anew.
pub const OWN_PATHS: &[&[&str]] = &[
    &["node"],
    &["network", "ip"],
    &["network", "device"],
    &["network", "hostname"],
    &["overlay_sha256"],
    &["embedded"],
    &["root_hash"],
];

/// What a golden image is called in its kickstart, where a node's has the node's name.
pub const GOLDEN_IMAGE: &str = "golden image";

/// The serial number of the disk that a golden image is installed on.
pub const GOLDEN_DISK: &str = "nfgolden";

/// What makes a node of a golden image and a seed.
const CLOUD_INIT: &str = "cloud-init";

/// Its units on EL8 (cloud-init 23.1, `systemd/`); cloud images have them enabled, and nothing says
/// that a preset does so for everybody.
const CLOUD_INIT_UNITS: [&str; 4] =
    ["cloud-init-local", "cloud-init", "cloud-config", "cloud-final"];

/// Module streams that are disabled: pmdk's libpmemobj is older than the one DAOS brings (DAOS's
/// own utils/scripts/helpers/repo-helper-el8.sh disables it).
pub const DISABLED_MODULES: [&str; 1] = ["pmdk"];

impl KindKickstart {
    /// `layers` are the kind's shared layers in the order of unpacking.
    pub fn of(cluster: &Cluster, kind: &Kind, layers: &[String]) -> Self {
        let os = &kind.os;
        let (excluded, packages) = packages(os);
        Self(KickstartContext {
            node: String::new(),
            boot_url: cluster.boot.url.value.clone(),
            overlay: match cluster.boot.overlay.value {
                OverlayVia::Http => kickstart::OverlaySource::Http,
                OverlayVia::Media => kickstart::OverlaySource::Media,
                OverlayVia::Embedded => kickstart::OverlaySource::Embedded,
            },
            secrets: match (has_secrets(cluster, kind), cluster.boot.secrets.value) {
                (false, _) => kickstart::SecretsSource::None,
                (true, SecretsVia::Token) => kickstart::SecretsSource::Token,
                (true, SecretsVia::Media) => kickstart::SecretsSource::Media,
                (true, SecretsVia::Embedded) => kickstart::SecretsSource::Embedded,
            },
            layers: layers.to_vec(),
            overlay_sha256: String::new(),
            embedded: Vec::new(),
            url: tree_url(os, "BaseOS"),
            proxy: None,
            repos: repos(cluster, os),
            disabled_modules: DISABLED_MODULES.map(str::to_owned).into(),
            packages,
            excluded_packages: excluded,
            services: os.services.iter().cloned().collect(),
            lang: os.locale.clone(),
            keymap: os.keyboard.clone(),
            timezone: cluster.timezone.clone(),
            ntp_servers: cluster.ntp.clone(),
            network: network(cluster, kind),
            root_hash: None,
            ssh_keys: os.ssh_keys.iter().map(|key| key.value.clone()).collect(),
            selinux: match os.selinux {
                Selinux::Disabled => kickstart::Selinux::Disabled,
                Selinux::Permissive => kickstart::Selinux::Permissive,
                Selinux::Enforcing => kickstart::Selinux::Enforcing,
            },
            firewall: firewall(cluster, kind),
            kernel_args: kernel_args(kind),
            install_disk: disk_rule(&kind.hw.install_disk),
            meta_disk: None,
            data_pci: data_pci(kind),
            data_devices: data_devices(kind),
            root_mib: kickstart::DEFAULT_ROOT_MIB,
            log_mib: kickstart::DEFAULT_LOG_MIB,
            kept: kept(cluster, kind),
            tmpfiles: format!("/{}", context::TMPFILES),
            setperms: if kind.is_server() { vec!["daos-server".into()] } else { Vec::new() },
        })
    }

    /// What the templates see of a node whose own values are still to be [set](Self::set_node).
    pub fn values(&self) -> Values {
        Values::of(&self.0)
    }

    /// As the golden image of nodes of this kind is installed.
    pub fn golden(&self) -> KickstartContext {
        golden(&self.0)
    }

    /// Sets in `values`, which are those of the kind, what is `node`'s own.
    pub fn set_node(&self, values: &mut Values, cluster: &Cluster, node: &Node, files: NodeFiles) {
        let mut network = self.0.network.clone();
        if let Some(address) = cluster.primary_address(node) {
            network.ip = address.to_string();
        }
        // Without a network boot nobody passes BOOTIF=, and the MAC address is all there is.
        if cluster.boot.overlay.value == OverlayVia::Media {
            let mac = cluster.boot_mac(node);
            network.device = mac.map_or_else(|| "link".to_owned(), |mac| mac.to_string());
        }
        network.hostname = match cluster.domain.as_str() {
            "" => node.name.to_string(),
            domain => format!("{}.{domain}", node.name),
        };
        values.set(&OwnValues {
            node: node.name.as_str(),
            network,
            overlay_sha256: files.overlay_sha256,
            embedded: files.embedded,
            root_hash: files.root_hash,
        });
    }
}

/// What installs the golden image of nodes that `of_nodes` installs: without anything that is a node's
/// own, or a secret, or that a seed brings; on the one disk that is there for it.
pub fn golden(of_nodes: &KickstartContext) -> KickstartContext {
    let mut golden = KickstartContext {
        node: GOLDEN_IMAGE.to_owned(),
        boot_url: String::new(),
        secrets: kickstart::SecretsSource::None,
        layers: Vec::new(),
        services: CLOUD_INIT_UNITS.map(str::to_owned).into(),
        network: Network {
            device: "link".to_owned(),
            ip: String::new(),
            netmask: String::new(),
            gateway: None,
            nameservers: Vec::new(),
            mtu: None,
            hostname: String::new(),
        },
        ssh_keys: Vec::new(),
        install_disk: kickstart::DiskRule {
            serial: Some(GOLDEN_DISK.to_owned()),
            ..kickstart::DiskRule::default()
        },
        meta_disk: None,
        data_pci: Vec::new(),
        data_devices: Vec::new(),
        tmpfiles: String::new(),
        setperms: Vec::new(),
        ..of_nodes.clone()
    };
    golden.excluded_packages.retain(|package| package != CLOUD_INIT);
    if !golden.packages.iter().any(|package| package == CLOUD_INIT) {
        golden.packages.push(CLOUD_INIT.to_owned());
    }
    golden
}

/// Whether a node of this kind needs a bundle of secrets: a root password's hash, or
/// certificates.
pub fn has_secrets(cluster: &Cluster, kind: &Kind) -> bool {
    let uses_daos = kind.is_server() || kind.is_admin() || kind.is_client();
    kind.os.root_password.is_some()
        || (uses_daos && cluster.daos.security.value == Security::Certificates)
}

/// What the installed kernel is booted with, the console included.
pub fn kernel_args(kind: &Kind) -> Vec<String> {
    let consoles = kind
        .hw
        .console
        .iter()
        .flat_map(|console| ["console=tty0".to_owned(), format!("console={console}")]);
    kind.os.kernel_args.iter().cloned().chain(consoles).collect()
}

/// Excluded and wanted packages.
pub fn packages(os: &Os) -> (Vec<String>, Vec<String>) {
    let (excluded, wanted): (Vec<&String>, Vec<&String>) =
        os.packages.keys().partition(|package| package.starts_with('-'));
    let excluded = excluded.into_iter().map(|package| package[1..].to_owned()).collect();
    (excluded, wanted.into_iter().cloned().collect())
}

fn tree_url(os: &Os, repository: &str) -> String {
    let tree = match os.tree {
        Tree::Kickstart => "kickstart",
        Tree::Os => "os",
    };
    format!("{}/{repository}/x86_64/{tree}/", os.mirror.value)
}

fn repos(cluster: &Cluster, os: &Os) -> Vec<kickstart::Repo> {
    let own = |name: &str, baseurl: String| kickstart::Repo {
        name: name.to_owned(),
        baseurl,
        cost: None,
        exclude: Vec::new(),
    };
    let mut repos = vec![
        own("appstream", tree_url(os, "AppStream")),
        own("powertools", tree_url(os, "PowerTools")),
    ];
    if os.epel {
        repos.push(own("epel", os.epel_url.clone()));
    }
    let configured = |repo: &Repo| kickstart::Repo {
        name: repo.id.clone(),
        baseurl: repo.baseurl.value.clone(),
        cost: repo.priority.map(u32::from),
        exclude: repo.exclude.clone(),
    };
    repos.push(configured(&cluster.daos.repo));
    repos.extend(cluster.repos.values().map(configured));
    repos
}

fn network(cluster: &Cluster, kind: &Kind) -> Network {
    let primary = kind.primary_nic().map(|at| &kind.hw.nics[at]);
    let net = primary.and_then(|nic| cluster.nets.get(&nic.net.as_ref()?.value));
    Network {
        device: "bootif".into(),
        ip: String::new(),
        netmask: net.map_or_else(String::new, |net| net.subnet.netmask().to_string()),
        gateway: net.and_then(|net| net.gateway.as_ref()).map(|gateway| gateway.value.to_string()),
        nameservers: net
            .map_or_else(Vec::new, |net| net.dns.iter().map(ToString::to_string).collect()),
        mtu: primary.and_then(|nic| nic.mtu),
        hostname: String::new(),
    }
}

fn firewall(cluster: &Cluster, kind: &Kind) -> kickstart::Firewall {
    match kind.os.firewall {
        Firewall::Disabled => kickstart::Firewall::Disabled,
        Firewall::Enabled => kickstart::Firewall::Enabled {
            ports: context::open_ports(cluster, kind)
                .iter()
                .map(|port| port.replace('/', ":"))
                .collect(),
        },
    }
}

fn disk_rule(rule: &DiskRule) -> kickstart::DiskRule {
    let bus = rule.bus.as_deref().map(|bus| match bus {
        "mmc" => Bus::Mmc,
        "nvme" => Bus::Nvme,
        "sas" => Bus::Sas,
        "sata" => Bus::Sata,
        "usb" => Bus::Usb,
        "virtio" => Bus::Virtio,
        _ => Bus::Scsi,
    });
    kickstart::DiskRule {
        by_path: rule.by_path.clone(),
        by_id: rule.by_id.clone(),
        serial: rule.serial.clone(),
        wwn: rule.wwn.clone(),
        bus,
        min_bytes: rule.min.map(ByteSize::bytes),
        max_bytes: rule.max.map(ByteSize::bytes),
    }
}

/// Every SSD planned for data, by the hw's lists and by the tiers.
fn data_pci(kind: &Kind) -> Vec<String> {
    let listed = kind.hw.nvme.values().flat_map(|list| list.iter().map(|ssd| ssd.to_string()));
    let mut addresses: Vec<String> = listed.chain(devices(kind, BdevClass::Nvme)).collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

fn data_devices(kind: &Kind) -> Vec<String> {
    let mut devices: Vec<String> = devices(kind, BdevClass::Kdev).collect();
    devices.sort();
    devices.dedup();
    devices
}

fn devices(kind: &Kind, class: BdevClass) -> impl Iterator<Item = String> {
    let tiers = kind.engines.iter().flat_map(|engine| &engine.bdevs);
    tiers
        .filter(move |tier| tier.class.value == class)
        .flat_map(|tier| tier.list.iter().map(|device| device.value.clone()))
}

/// The filesystems that outlive a reinstall: control_metadata, and the folder of file bdevs
/// with room for all of them.
pub fn kept(cluster: &Cluster, kind: &Kind) -> Vec<KeptFilesystem> {
    let mut kept = Vec::new();
    if kind.has_control_metadata() {
        let metadata = &cluster.daos.control_metadata;
        kept.push(KeptFilesystem {
            label: kickstart::DAOSMETA,
            size_mib: metadata.size.mib(),
            mount: metadata.path.value.clone(),
        });
    }
    if let Some((folder, size)) = file_bdevs(kind) {
        // XFS keeps some of its room for itself: a twentieth, and half a GiB for its log.
        let size_mib = size.mib() + size.mib() / 20 + 512;
        kept.push(KeptFilesystem { label: kickstart::DAOSDATA, size_mib, mount: folder });
    }
    kept
}

/// The one folder that holds all file bdevs, and their size together.
fn file_bdevs(kind: &Kind) -> Option<(String, ByteSize)> {
    let tiers = kind.engines.iter().flat_map(|engine| &engine.bdevs);
    let mut by_folder: BTreeMap<&str, ByteSize> = BTreeMap::new();
    for tier in tiers.filter(|tier| tier.class.value == BdevClass::File) {
        for file in tier.list.iter() {
            let folder = file.value.rsplit_once('/').map_or("/", |(folder, _)| folder);
            let size = tier.size.as_ref().map_or(ByteSize::default(), |size| size.value);
            let sum = by_folder.entry(folder).or_default();
            *sum = *sum + size;
        }
    }
    let total: ByteSize = by_folder.values().copied().sum();
    let folder = by_folder.keys().copied().reduce(common_folder)?;
    Some((folder.to_owned(), total))
}

/// The deepest folder above both.
fn common_folder<'a>(a: &'a str, b: &'a str) -> &'a str {
    let n_equal = a
        .split('/')
        .zip(b.split('/'))
        .take_while(|(a, b)| a == b)
        .map(|(part, _)| part.len() + 1)
        .sum::<usize>();
    &a[..n_equal.saturating_sub(1).min(a.len())]
}
