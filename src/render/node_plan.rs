//! What the plan says of a node, for the node itself: the JSON that preflight compares the
//! machine with.
//!
//! `/etc/nodeforge/kind.json` ([`KindPlan`]) holds all that nodes of a kind share and is made
//! once for them; `/etc/nodeforge/node.json` ([`NodePlan`]) holds what is the node's own:
//! names, addresses, serial numbers. Neither grows with the cluster. Every field is written,
//! also `null`: a reader need not know defaults.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::cluster::{
    BdevClass, Cluster, CpuVendor, Engine, Firewall, Kind, Link, Nic, Node, NodeNic, ScmClass,
    Security, Selinux,
};
use crate::daos;
use crate::daos::memory::{self, Demand};
use crate::daos::rules::{may_oversubscribe, n_cores_needed};
use crate::daos::versions::{self, TransparentHugepages};
use crate::render::context::{TmpfilesLine, certificate_lines, open_ports};
use crate::units::ByteSize;

/// What nodes with the same hardware, roles and settings share.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KindPlan {
    /// Names of the cluster file, in its order.
    pub roles: Vec<String>,
    /// Runs daos_server.
    pub server: bool,
    /// Runs daos_agent.
    pub client: bool,
    /// Runs dmg.
    pub admin: bool,
    /// Where events go, below this URL.
    pub boot_url: String,
    pub daos: DaosPlan,
    /// `disabled`, `permissive` or `enforcing`.
    pub selinux: String,
    /// `disabled` or `enabled`.
    pub firewall: String,
    /// What an enabled firewall lets in beside ssh: `10001/tcp`, `31416-31421/tcp`.
    pub ports: Vec<String>,
    /// In the order of the cluster file; one for each NIC that the node has a use for.
    pub nics: Vec<NicPlan>,
    /// Only on servers.
    pub storage: Option<StoragePlan>,
    /// Certificates and keys with owner and mode; empty without certificates.
    pub certificates: Vec<CertificatePlan>,
}

/// What of `[daos]` a node can look at.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DaosPlan {
    pub version: String,
    /// Packages of DAOS that the roles need, in that version.
    pub packages: Vec<String>,
    /// Whether packages of DAOS's repository must be signed.
    pub signed: bool,
    pub system_name: String,
    pub port: u16,
    pub telemetry_port: Option<u16>,
    /// In the order of the servers' files: the first one founds the system.
    pub access_points: Vec<String>,
    /// The admin that formats.
    pub format_by: Option<String>,
    pub certificates: bool,
    /// `refused` where DAOS does not start with transparent hugepages, or `tolerated`.
    pub transparent_hugepages: String,
    /// The first word of the fabric after `ofi+`: `tcp`, `verbs`.
    pub provider: String,
}

/// One NIC of `[hw]`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NicPlan {
    /// The key in the cluster file.
    pub key: String,
    /// The interface name.
    pub name: String,
    /// `ethernet`, `infiniband`, `vlan` or `bond`.
    pub link: String,
    /// `0000:17:00.0`.
    pub pci: Option<String>,
    pub numa: Option<u32>,
    /// An engine's fabric.
    pub fabric: bool,
}

/// What daos_server needs of the machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StoragePlan {
    /// User and group that daos_server runs as.
    pub run_as: String,
    /// `required` where an unprivileged daos_server drives SSDs through vfio, `useful` where
    /// root does, `unused` without SSDs or without vfio.
    pub iommu: String,
    /// `intel` or `amd`: how the firmware calls its IOMMU.
    pub cpu: String,
    pub memory: MemoryPlan,
    /// Where control_metadata lies; `null` without Metadata-on-SSD.
    pub control_metadata: Option<String>,
    pub engines: Vec<EnginePlan>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MemoryPlan {
    /// What /proc/meminfo's MemTotal must be at least, by DAOS's formula.
    pub required_bytes: u64,
    /// That formula with its numbers.
    pub sum: String,
    /// What MemTotal was taken to be when sizes were computed.
    pub planned_bytes: u64,
    /// Of 2 MiB, all engines together.
    pub hugepages: u64,
}

/// One daos_engine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EnginePlan {
    /// From 0.
    pub index: usize,
    pub numa: Option<u32>,
    /// Physical cores: targets, helpers and two more.
    pub cores: u32,
    /// Whether the cluster file lets it run with fewer.
    pub oversubscribed: bool,
    pub scm_mount: String,
    /// `ram` or `dcpm`.
    pub scm_class: String,
    /// PMem devices of class dcpm.
    pub scm_devices: Vec<String>,
    /// The file that DAOS writes when it formats this engine.
    pub superblock: String,
    /// PCI addresses.
    pub nvme: Vec<String>,
    pub files: Vec<FilePlan>,
    /// Block devices by path.
    pub devices: Vec<String>,
}

/// A file that stands in for an SSD.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FilePlan {
    pub path: String,
    pub bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CertificatePlan {
    pub path: String,
    /// Octal.
    pub mode: String,
    pub user: String,
}

/// What is one node's own.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodePlan {
    /// First: scripts without a JSON parser take it from here.
    pub name: String,
    pub fqdn: String,
    /// What its name stands for; `null` without an address.
    pub address: Option<String>,
    /// Of the box.
    pub serial: Option<String>,
    /// Whether this admin formats the storage.
    pub formats: bool,
    /// Those of its NICs that have an address or an identity; by [`NicPlan::name`].
    pub nics: Vec<NodeNicPlan>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeNicPlan {
    pub name: String,
    /// `192.168.3.11/24`.
    pub address: Option<String>,
    pub mac: Option<String>,
}

impl KindPlan {
    pub fn of(cluster: &Cluster, kind: &Kind, run_as: &str) -> Self {
        let security = cluster.daos.security.value;
        Self {
            roles: kind.roles.iter().map(|role| role.value.clone()).collect(),
            server: kind.is_server(),
            client: kind.is_client(),
            admin: kind.is_admin(),
            boot_url: cluster.boot.url.value.clone(),
            daos: daos_plan(cluster, kind),
            selinux: match kind.os.selinux {
                Selinux::Disabled => "disabled".into(),
                Selinux::Permissive => "permissive".into(),
                Selinux::Enforcing => "enforcing".into(),
            },
            firewall: match kind.os.firewall {
                Firewall::Disabled => "disabled".into(),
                Firewall::Enabled => "enabled".into(),
            },
            ports: open_ports(cluster, kind).into_iter().collect(),
            nics: kind.hw.nics.iter().filter_map(|nic| nic_plan(kind, nic)).collect(),
            storage: kind.is_server().then(|| storage_plan(cluster, kind, run_as)),
            certificates: match security {
                Security::Certificates => certificates(kind, run_as),
                Security::Insecure => Vec::new(),
            },
        }
    }

    /// As kind.json: indented, for people read it too.
    pub fn to_json(&self) -> String {
        to_json(self)
    }
}

impl NodePlan {
    pub fn of(cluster: &Cluster, node: &Node, fqdn: String) -> Self {
        let kind = cluster.kind_of(node);
        let format_by = cluster.daos.format_by.as_ref();
        let nics = kind.hw.nics.iter().zip(&node.nics);
        Self {
            name: node.name.as_str().to_owned(),
            fqdn,
            address: cluster.primary_address(node).map(|address| address.to_string()),
            serial: node.serial.clone(),
            formats: format_by.is_some_and(|admin| admin.value == node.name),
            nics: nics.filter_map(|(nic, own)| node_nic_plan(cluster, nic, own)).collect(),
        }
    }

    /// As node.json.
    pub fn to_json(&self) -> String {
        to_json(self)
    }
}

fn to_json(plan: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(plan).expect("a plan is plain data");
    text.push('\n');
    text
}

fn daos_plan(cluster: &Cluster, kind: &Kind) -> DaosPlan {
    let daos = &cluster.daos;
    let packages = [
        (kind.is_server(), "daos-server"),
        (kind.is_client(), "daos-client"),
        (kind.is_admin(), "daos-admin"),
    ];
    let needed = packages.into_iter().filter(|(is_needed, _)| *is_needed);
    let provider = daos.provider.value.split(';').next().unwrap_or_default();
    DaosPlan {
        version: daos.version.value.clone(),
        packages: needed.map(|(_, package)| package.to_owned()).collect(),
        signed: daos.repo.gpgcheck.value,
        system_name: daos.system_name.value.clone(),
        port: daos.port.value,
        telemetry_port: daos.telemetry_port.as_ref().map(|port| port.value),
        access_points: daos.access_points.iter().map(|name| name.value.as_str().into()).collect(),
        format_by: daos.format_by.as_ref().map(|admin| admin.value.as_str().into()),
        certificates: daos.security.value == Security::Certificates,
        transparent_hugepages: match versions::find_or_oldest(&daos.version).transparent_hugepages {
            TransparentHugepages::Refused => "refused".into(),
            TransparentHugepages::Tolerated => "tolerated".into(),
        },
        provider: provider.rsplit('+').next().unwrap_or_default().to_owned(),
    }
}

/// `None` for a NIC that nothing uses: neither an address nor a bond or VLAN needs it.
fn nic_plan(kind: &Kind, nic: &Nic) -> Option<NicPlan> {
    let carries_another = kind.hw.nics.iter().any(|above| match &above.link {
        Link::Vlan { of, .. } => *of == nic.key,
        Link::Bond { members, .. } => members.contains(&nic.key),
        Link::Ethernet | Link::Infiniband => false,
    });
    let is_fabric =
        kind.engines.iter().any(|engine| kind.hw.nics[engine.fabric_nic].key == nic.key);
    (nic.net.is_some() || nic.is_boot || is_fabric || carries_another).then(|| NicPlan {
        key: nic.key.clone(),
        name: nic.name.value.clone(),
        link: match nic.link {
            Link::Ethernet => "ethernet".into(),
            Link::Infiniband => "infiniband".into(),
            Link::Vlan { .. } => "vlan".into(),
            Link::Bond { .. } => "bond".into(),
        },
        pci: nic.pci.as_ref().map(|pci| pci.value.as_str().to_owned()),
        numa: nic.numa.as_ref().map(|numa| numa.value),
        fabric: is_fabric,
    })
}

fn node_nic_plan(cluster: &Cluster, nic: &Nic, own: &NodeNic) -> Option<NodeNicPlan> {
    let net = nic.net.as_ref().and_then(|net| cluster.nets.get(&net.value));
    let address = own.ip.zip(net).map(|(ip, net)| format!("{ip}/{}", net.subnet.prefix_len()));
    let mac = match nic.link {
        Link::Ethernet => own.mac.map(|mac| mac.to_string()),
        _ => None,
    };
    (address.is_some() || mac.is_some()).then(|| NodeNicPlan {
        name: nic.name.value.clone(),
        address,
        mac,
    })
}

fn storage_plan(cluster: &Cluster, kind: &Kind, run_as: &str) -> StoragePlan {
    let drives_ssds = kind.uses_bdev_class(BdevClass::Nvme) && !cluster.daos.disable_vfio.value;
    let metadata =
        kind.has_control_metadata().then(|| cluster.daos.control_metadata.path.value.clone());
    StoragePlan {
        run_as: run_as.to_owned(),
        iommu: match (drives_ssds, run_as) {
            (false, _) => "unused".into(),
            (true, "root") => "useful".into(),
            (true, _) => "required".into(),
        },
        cpu: match kind.hw.cpu {
            CpuVendor::Intel => "intel".into(),
            CpuVendor::Amd => "amd".into(),
        },
        memory: memory_plan(cluster, kind),
        engines: (0..)
            .zip(&kind.engines)
            .map(|(index, engine)| engine_plan(index, engine, metadata.as_deref()))
            .collect(),
        control_metadata: metadata,
    }
}

fn memory_plan(cluster: &Cluster, kind: &Kind) -> MemoryPlan {
    let daos = &cluster.daos;
    let demand = Demand::of(daos, &kind.engines);
    let sizes = kind.engines.iter().filter_map(|engine| memory::scm_size_gib(daos, kind, engine));
    let ramdisk = ByteSize::from_gib(sizes.max().unwrap_or_default());
    MemoryPlan {
        required_bytes: demand.min_mem_total(ramdisk).bytes(),
        sum: demand.sum(ramdisk),
        planned_bytes: memory::mem_total(&kind.hw).size().bytes(),
        hugepages: demand.nr_hugepages,
    }
}

fn engine_plan(index: usize, engine: &Engine, metadata: Option<&str>) -> EnginePlan {
    let of_class = |class: BdevClass| {
        let tiers = engine.bdevs.iter().filter(move |tier| tier.class.value == class);
        tiers.flat_map(|tier| tier.list.iter().map(move |device| (tier, device.value.clone())))
    };
    let mount = daos::config::numbered(&engine.scm.mount.value, index);
    EnginePlan {
        index,
        numa: engine.numa.as_ref().map(|numa| numa.value),
        cores: n_cores_needed(engine),
        oversubscribed: may_oversubscribe(engine),
        scm_class: match engine.scm.class.value {
            ScmClass::Ram => "ram".into(),
            ScmClass::Dcpm => "dcpm".into(),
        },
        scm_devices: engine.scm.list.iter().map(|device| device.value.clone()).collect(),
        superblock: match metadata {
            Some(path) => format!("{path}/daos_control/engine{index}/superblock"),
            None => format!("{mount}/superblock"),
        },
        scm_mount: mount,
        nvme: of_class(BdevClass::Nvme).map(|(_, address)| address).collect(),
        files: of_class(BdevClass::File)
            .map(|(tier, path)| FilePlan {
                path,
                bytes: tier.size.as_ref().map_or(0, |size| size.bytes()),
            })
            .collect(),
        devices: of_class(BdevClass::Kdev).map(|(_, path)| path).collect(),
    }
}

fn certificates(kind: &Kind, run_as: &str) -> Vec<CertificatePlan> {
    let lines = certificate_lines(kind, run_as);
    let named: BTreeSet<TmpfilesLine> = lines.into_iter().filter(|line| line.mode != "-").collect();
    let plan =
        |line: TmpfilesLine| CertificatePlan { path: line.path, mode: line.mode, user: line.user };
    named.into_iter().map(plan).collect()
}
