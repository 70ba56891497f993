//! The three files DAOS reads: daos_server.yml, daos_agent.yml and daos_control.yml.
//!
//! Field order is the order of keys in DAOS's own example files (`utils/config/*.yml`).
//! What the files must agree on (system name, access points in one order, port, security)
//! is taken from the same place, so it cannot differ. A field that is `None` or empty is left
//! out: DAOS refuses keys it does not know, and a key that a version lacks is never filled.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::cluster::{
    Bdev, BdevClass, BdevRole, Cluster, Daos, Engine, Kind, Nic, Node, Scm, ScmClass, Security,
    Sited,
};
use crate::daos::memory;
use crate::daos::versions::{self, HotplugKey, ReplicasKey};
use crate::daos::yaml::to_yaml;

/// Where daos_server, its helper, engines and the agent write their logs; a missing folder
/// is fatal to them and no package makes it. Writable for the group `daos_daemons`, which
/// the users of server and agent share.
pub const LOG_DIR: &str = "/var/log/daos";

const CONTROL_LOG: &str = "/var/log/daos/daos_server.log";
const HELPER_LOG: &str = "/var/log/daos/daos_server_helper.log";
const AGENT_LOG: &str = "/var/log/daos/daos_agent.log";
const CERTS: &str = "/etc/daos/certs";

/// daos_server.yml.
#[derive(Clone, Debug, Serialize)]
pub struct ServerConfig {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_points: Option<Vec<String>>,
    /// What access_points are called from 2.8 on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mgmt_svc_replicas: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_metadata: Option<ControlMetadataConfig>,
    pub port: u16,
    pub transport_config: TransportConfig,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault_path: Option<String>,
    pub provider: String,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crt_timeout: Option<u64>,
    #[serde(skip_serializing_if = "is_false")]
    pub disable_srx: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub core_dump_filter: Option<u64>,
    #[serde(skip_serializing_if = "is_false")]
    pub disable_vfio: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub disable_vmd: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub enable_hotplug: bool,
    /// The opposite of enable_hotplug, from 2.8 on.
    #[serde(skip_serializing_if = "is_false")]
    pub disable_hotplug: bool,
    /// All engines together. Only where the operator chose a number: left out, DAOS computes
    /// it at every start by the rules of the version installed, which change (2.6.2), and a
    /// number written today would be too small tomorrow. `plan` prints what it computes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nr_hugepages: Option<u64>,
    #[serde(skip_serializing_if = "is_false")]
    pub disable_hugepages: bool,
    /// GiB. Always written: the default differs between versions, and the scm sizes of this
    /// file were computed with it.
    pub system_ram_reserved: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_log_mask: Option<String>,
    pub control_log_file: String,
    pub helper_log_file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub telemetry_port: Option<u16>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub client_env_vars: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub engines: Vec<EngineConfig>,
}

/// Where Metadata-on-SSD keeps superblocks and the raft database.
#[derive(Clone, Debug, Serialize)]
pub struct ControlMetadataConfig {
    pub path: String,
}

/// Who may talk to whom; the shape is shared by all three files.
#[derive(Clone, Debug, Serialize)]
pub struct TransportConfig {
    pub allow_insecure: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_cert_dir: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_cert: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// One item of `engines`.
#[derive(Clone, Debug, Serialize)]
pub struct EngineConfig {
    pub targets: u32,
    /// Always written, 0 too.
    pub nr_xs_helpers: u32,
    /// Excludes `first_core`: DAOS ignores one of the two, or fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pinned_numa_node: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_core: Option<u32>,
    pub fabric_iface: String,
    pub fabric_iface_port: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_mask: Option<String>,
    pub log_file: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env_vars: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env_pass_through: Vec<String>,
    pub storage: Vec<TierConfig>,
}

/// One item of `storage`: the scm tier first, then block devices.
#[derive(Clone, Debug, Serialize)]
pub struct TierConfig {
    pub class: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scm_mount: Option<String>,
    /// GiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scm_size: Option<u64>,
    #[serde(skip_serializing_if = "is_false")]
    pub scm_hugepages_disabled: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scm_list: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bdev_list: Vec<String>,
    /// GiB each, for class file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bdev_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bdev_busid_range: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bdev_roles: Vec<&'static str>,
}

/// daos_agent.yml.
#[derive(Clone, Debug, Serialize)]
pub struct AgentConfig {
    pub name: String,
    pub access_points: Vec<String>,
    pub port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub telemetry_port: Option<u16>,
    /// Goes with the port: without it a process exports nothing unless it asks to.
    #[serde(skip_serializing_if = "is_false")]
    pub telemetry_enabled: bool,
    pub transport_config: TransportConfig,
    pub log_file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_log_mask: Option<String>,
    #[serde(skip_serializing_if = "is_false")]
    pub disable_caching: bool,
    /// Minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_expiration: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fabric_ifaces: Vec<NumaFabric>,
}

/// The fabric NICs of one NUMA node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NumaFabric {
    pub numa_node: u32,
    pub devices: Vec<FabricDevice>,
}

/// Interface and domain in one item: as two items DAOS takes them for two broken devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FabricDevice {
    pub iface: String,
    pub domain: String,
}

/// daos_control.yml.
#[derive(Clone, Debug, Serialize)]
pub struct ControlConfig {
    pub name: String,
    pub port: u16,
    /// Every server: format and query reach only the hosts that are listed.
    pub hostlist: Vec<String>,
    pub transport_config: TransportConfig,
}

/// What daos_server.yml says on `node`, which is of `kind`.
pub fn server_config(cluster: &Cluster, kind: &Kind, node: &Node) -> ServerConfig {
    ServerConfig { fault_path: node.fault_path.clone(), ..kind_config(cluster, kind) }
}

/// What daos_agent.yml says on all nodes of `kind`.
pub fn agent_config(cluster: &Cluster, kind: &Kind) -> AgentConfig {
    let daos = &cluster.daos;
    AgentConfig {
        name: daos.system_name.value.clone(),
        access_points: access_points(daos),
        port: daos.port.value,
        telemetry_port: daos.agent.telemetry_port.as_ref().map(value),
        telemetry_enabled: daos.agent.telemetry_port.is_some(),
        transport_config: transport_config(daos, Component::Agent),
        log_file: AGENT_LOG.to_owned(),
        control_log_mask: daos.agent.log_mask.as_ref().map(value),
        disable_caching: daos.agent.disable_caching.value,
        cache_expiration: daos.agent.cache_expiration.as_ref().map(value),
        fabric_ifaces: fabric_ifaces(cluster, kind),
    }
}

/// What daos_control.yml says on every admin node.
pub fn control_config(cluster: &Cluster) -> ControlConfig {
    let daos = &cluster.daos;
    ControlConfig {
        name: daos.system_name.value.clone(),
        port: daos.port.value,
        hostlist: {
            let is_server = |node: &&Node| cluster.kind_of(node).is_server();
            cluster.nodes.iter().filter(is_server).map(|node| node.name.to_string()).collect()
        },
        transport_config: transport_config(daos, Component::Admin),
    }
}

/// daos_server.yml of one kind, ready to take each node's fault path.
#[derive(Clone, Debug)]
pub struct ServerYaml {
    before_fault_path: String,
    after_fault_path: String,
}

impl ServerYaml {
    /// Renders what all nodes of `kind` share.
    pub fn of_kind(cluster: &Cluster, kind: &Kind) -> Self {
        /// Marks where the line goes; it is replaced, never seen.
        const MARK: &str = "\nfault_path: MARK\n";
        let marked =
            ServerConfig { fault_path: Some("MARK".to_owned()), ..kind_config(cluster, kind) };
        let yaml = with_header(cluster, "daos_server.yml", &to_yaml(&marked));
        // Only a key of the outermost level can stand at the start of a line.
        let (before, after) = yaml.split_once(MARK).expect("the key was written on one line");
        Self { before_fault_path: format!("{before}\n"), after_fault_path: after.to_owned() }
    }

    /// The file without a fault path.
    pub fn text(&self) -> String {
        [self.before_fault_path.as_str(), &self.after_fault_path].concat()
    }

    /// The file for `node`: the same but for the fault path.
    pub fn for_node(&self, node: &Node) -> String {
        #[derive(Serialize)]
        struct Line<'a> {
            fault_path: &'a str,
        }
        let line = node.fault_path.as_deref().map(|fault_path| to_yaml(&Line { fault_path }));
        [&self.before_fault_path, line.as_deref().unwrap_or_default(), &self.after_fault_path]
            .concat()
    }
}

/// daos_server.yml of one node; with many nodes of a kind use [`ServerYaml`].
pub fn server_yaml(cluster: &Cluster, kind: &Kind, node: &Node) -> String {
    ServerYaml::of_kind(cluster, kind).for_node(node)
}

/// daos_agent.yml of all nodes of `kind`.
pub fn agent_yaml(cluster: &Cluster, kind: &Kind) -> String {
    with_header(cluster, "daos_agent.yml", &to_yaml(&agent_config(cluster, kind)))
}

/// daos_control.yml of all admin nodes.
pub fn control_yaml(cluster: &Cluster) -> String {
    with_header(cluster, "daos_control.yml", &to_yaml(&control_config(cluster)))
}

/// `text` with `{n}` replaced by the number of the engine, counted from 0.
pub fn numbered(text: &str, engine: usize) -> String {
    text.replace("{n}", &engine.to_string())
}

fn with_header(cluster: &Cluster, file: &str, yaml: &str) -> String {
    format!(
        "# {file} of {}, for DAOS {}. Made by nodeforge; change the cluster file instead.\n{yaml}",
        cluster.name, cluster.daos.version.value
    )
}

/// daos_server.yml without the fault path.
pub fn kind_config(cluster: &Cluster, kind: &Kind) -> ServerConfig {
    let daos = &cluster.daos;
    let release = versions::find_or_oldest(&daos.version);
    let (access_points, mgmt_svc_replicas) = match release.replicas_key {
        ReplicasKey::AccessPoints => (Some(access_points(daos)), None),
        ReplicasKey::MgmtSvcReplicas => (None, Some(access_points(daos))),
    };
    let (enable_hotplug, disable_hotplug) = match release.hotplug_key {
        HotplugKey::EnableHotplug => (daos.enable_hotplug.value, false),
        HotplugKey::DisableHotplug => (false, !daos.enable_hotplug.value),
    };
    let path = || ControlMetadataConfig { path: daos.control_metadata.path.value.clone() };
    ServerConfig {
        name: daos.system_name.value.clone(),
        access_points,
        mgmt_svc_replicas,
        // With roles and without a path, or the other way round, DAOS fails (318, 317).
        control_metadata: kind.has_control_metadata().then(path),
        port: daos.port.value,
        transport_config: transport_config(daos, Component::Server),
        fault_path: None,
        provider: daos.provider.value.clone(),
        crt_timeout: daos.crt_timeout.as_ref().map(value),
        disable_srx: daos.disable_srx.value,
        core_dump_filter: daos.core_dump_filter.as_ref().map(value),
        disable_vfio: daos.disable_vfio.value,
        disable_vmd: daos.disable_vmd.value,
        enable_hotplug,
        disable_hotplug,
        nr_hugepages: daos.nr_hugepages.as_ref().map(value),
        disable_hugepages: daos.disable_hugepages.value,
        system_ram_reserved: daos.system_ram_reserved.gib(),
        control_log_mask: daos.control_log_mask.as_ref().map(value),
        control_log_file: CONTROL_LOG.to_owned(),
        helper_log_file: HELPER_LOG.to_owned(),
        telemetry_port: daos.telemetry_port.as_ref().map(value),
        client_env_vars: daos.client_env.iter().map(value).collect(),
        engines: kind
            .engines
            .iter()
            .enumerate()
            .map(|(at, engine)| engine_config(daos, kind, at, engine))
            .collect(),
    }
}

fn engine_config(daos: &Daos, kind: &Kind, at: usize, engine: &Engine) -> EngineConfig {
    let scm_size = memory::scm_size_gib(daos, kind, engine);
    let mut storage = vec![scm_tier(&engine.scm, at, scm_size)];
    storage.extend(engine.bdevs.iter().map(|bdev| bdev_tier(bdev, at)));
    let pinned_numa_node = engine.numa.as_ref().map(value);
    EngineConfig {
        targets: engine.targets.value,
        nr_xs_helpers: engine.helpers.value,
        pinned_numa_node,
        first_core: match pinned_numa_node {
            Some(_) => None,
            None => engine.first_core.as_ref().map(value),
        },
        fabric_iface: kind.hw.nics[engine.fabric_nic].name.value.clone(),
        fabric_iface_port: engine.port.value,
        log_mask: engine.log_mask.as_ref().map(value),
        log_file: numbered(&engine.log_file, at),
        env_vars: engine.env.iter().map(value).collect(),
        env_pass_through: engine.env_pass_through.clone(),
        storage,
    }
}

fn scm_tier(scm: &Scm, at: usize, scm_size: Option<u64>) -> TierConfig {
    TierConfig {
        class: match scm.class.value {
            ScmClass::Ram => "ram",
            ScmClass::Dcpm => "dcpm",
        },
        scm_mount: Some(numbered(&scm.mount, at)),
        scm_size,
        scm_hugepages_disabled: scm.hugepages_disabled,
        scm_list: scm.list.iter().map(value).collect(),
        bdev_list: Vec::new(),
        bdev_size: None,
        bdev_busid_range: None,
        bdev_roles: Vec::new(),
    }
}

fn bdev_tier(bdev: &Bdev, at: usize) -> TierConfig {
    let is_file = bdev.class.value == BdevClass::File;
    let size = bdev.size.as_ref().filter(|_| is_file);
    // In the order DAOS's documentation names them, whatever the cluster file's.
    let roles: BTreeSet<BdevRole> = bdev.roles.iter().map(|role| role.value).collect();
    TierConfig {
        class: bdev_class(bdev.class.value),
        scm_mount: None,
        scm_size: None,
        scm_hugepages_disabled: false,
        scm_list: Vec::new(),
        bdev_list: bdev.list.iter().map(|device| numbered(device, at)).collect(),
        bdev_size: size.map(|size| size.gib()),
        bdev_busid_range: bdev.busid_range.as_ref().map(value),
        bdev_roles: roles.into_iter().map(bdev_role).collect(),
    }
}

/// The class as DAOS's files and the cluster file say it.
pub fn bdev_class(class: BdevClass) -> &'static str {
    match class {
        BdevClass::Nvme => "nvme",
        BdevClass::File => "file",
        BdevClass::Kdev => "kdev",
    }
}

/// The role as DAOS's files and the cluster file say it.
pub fn bdev_role(role: BdevRole) -> &'static str {
    match role {
        BdevRole::Wal => "wal",
        BdevRole::Meta => "meta",
        BdevRole::Data => "data",
    }
}

/// The order of the file, on all nodes: the first access point bootstraps the system.
fn access_points(daos: &Daos) -> Vec<String> {
    daos.access_points.iter().map(|name| name.value.to_string()).collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Component {
    Server,
    Agent,
    Admin,
}

fn transport_config(daos: &Daos, component: Component) -> TransportConfig {
    let name = match component {
        Component::Server => "server",
        Component::Agent => "agent",
        Component::Admin => "admin",
    };
    let file = |file: &str| Some(format!("{CERTS}/{file}"));
    match daos.security.value {
        Security::Insecure => TransportConfig {
            allow_insecure: true,
            client_cert_dir: None,
            ca_cert: None,
            cert: None,
            key: None,
        },
        Security::Certificates => TransportConfig {
            allow_insecure: false,
            client_cert_dir: file("clients").filter(|_| component == Component::Server),
            ca_cert: file("daosCA.crt"),
            cert: file(&format!("{name}.crt")),
            key: file(&format!("{name}.key")),
        },
    }
}

/// A kind's NICs on the networks that engines use, by NUMA node.
fn fabric_ifaces(cluster: &Cluster, kind: &Kind) -> Vec<NumaFabric> {
    let mut by_numa: BTreeMap<u32, Vec<FabricDevice>> = BTreeMap::new();
    for nic in fabric_nics(cluster, kind) {
        let numa_node = nic.numa.as_ref().map_or(0, value);
        by_numa.entry(numa_node).or_default().push(FabricDevice {
            iface: nic.name.value.clone(),
            // Sockets and tcp call the domain as the interface is called.
            domain: nic.domain.as_ref().unwrap_or(&nic.name).value.clone(),
        });
    }
    by_numa.into_iter().map(|(numa_node, devices)| NumaFabric { numa_node, devices }).collect()
}

/// The NICs through which a client of `kind` reaches the engines: those on a network that an
/// engine uses.
pub fn fabric_nics<'a>(cluster: &'a Cluster, kind: &'a Kind) -> impl Iterator<Item = &'a Nic> {
    let nets = engine_nets(cluster);
    kind.hw
        .nics
        .iter()
        .filter(move |nic| nic.net.as_ref().is_some_and(|net| nets.contains(&net.value[..])))
}

/// The networks of the cluster that an engine uses.
pub fn engine_nets(cluster: &Cluster) -> BTreeSet<&str> {
    let servers = cluster.kinds.iter().filter(|kind| kind.is_server());
    servers
        .flat_map(|kind| kind.engines.iter().map(move |engine| &kind.hw.nics[engine.fabric_nic]))
        .filter_map(|nic| Some(nic.net.as_ref()?.value.as_str()))
        .collect()
}

fn value<T: Clone>(sited: &Sited<T>) -> T {
    sited.value.clone()
}

fn is_false(flag: &bool) -> bool {
    !flag
}
