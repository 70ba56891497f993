//! All that an overlay's templates can see, and how it follows from the cluster.
//!
//! Three structs, one for each scope a file can have: what all nodes share
//! ([`ClusterContext`]), what nodes of one kind share ([`KindContext`]) and what is a node's
//! own ([`NodeContext`]). Their fields are the roots of the paths in templates, and a root
//! belongs to one scope only: so what a template mentions says how often it must be rendered.
//!
//! Names are those of the cluster file. Every field is written, also `null` and empty ones:
//! a name that is absent is a mistake in the template. Whatever takes more than one `{{#if}}`
//! is computed here. [`sample`] is a context in which every list has an element and every
//! optional value is there: what a template may mention at all.

mod derive;
mod sample;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

pub use derive::{
    KERNEL_ARGS_FILE, TMPFILES, certificate_lines, connection_uuid, hosts, open_ports,
};
pub use sample::sample;

use crate::render::overlay::Scope;

/// Below these paths stand names of the site's choice.
pub const OPEN_ROOTS: &[&str] = &["cluster.vars", "net", "roles", "vars"];

/// Whose values lie under a root; `None` for what is no root.
pub fn root_scope(root: &str) -> Option<Scope> {
    match root {
        "boot" | "cluster" | "daos" | "hosts" | "net" | "repos" | "roles" => Some(Scope::Cluster),
        "engines" | "hw" | "kind" | "os" | "vars" => Some(Scope::Kind),
        "node" => Some(Scope::Node),
        _ => None,
    }
}

/// The roots that all nodes of the cluster share.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClusterContext {
    pub cluster: ClusterValues,
    pub boot: BootValues,
    pub daos: DaosValues,
    /// `[net.NAME]` by name.
    pub net: BTreeMap<String, NetValues>,
    /// `[repo.NAME]`, sorted by name; DAOS's own is `daos.repo`.
    pub repos: Vec<RepoValues>,
    /// Every address of every node with its names, for /etc/hosts.
    pub hosts: Vec<HostValues>,
    /// The names of the nodes by role, sorted; `admin`, `server` and `client` are always there.
    pub roles: BTreeMap<String, Vec<String>>,
}

/// The roots that nodes with the same hw, roles and settings share.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KindContext {
    pub os: OsValues,
    pub hw: HwValues,
    pub kind: KindValues,
    /// One for each daos_engine, in the order of the file.
    pub engines: Vec<EngineValues>,
    /// The site's own values: those of the cluster and, over them, those of the kind.
    pub vars: BTreeMap<String, Value>,
}

/// The root that is a node's own.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeContext {
    pub node: NodeValues,
}

/// `[cluster]`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClusterValues {
    pub name: String,
    /// Empty if there is none.
    pub domain: String,
    /// An IANA name, such as `Asia/Shanghai`.
    pub timezone: String,
    /// NTP servers; empty leaves EL's pool.
    pub ntp: Vec<String>,
    /// The site's own values that no kind overrides.
    pub vars: BTreeMap<String, Value>,
}

/// `[boot]`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BootValues {
    /// Without a slash at the end.
    pub url: String,
}

/// `[daos]`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DaosValues {
    pub version: String,
    pub repo: RepoValues,
    pub system_name: String,
    /// Such as `ofi+tcp;ofi_rxm`.
    pub provider: String,
    /// `tcp`, `verbs`, … : the part of the provider between `ofi+` and `;`.
    pub transport: String,
    pub access_points: Vec<String>,
    /// The control plane's TCP port.
    pub port: u16,
    /// `insecure` or `certificates`.
    pub security: String,
    pub telemetry_port: Option<u16>,
    /// The agent's; clients only.
    pub agent_telemetry_port: Option<u16>,
    /// The admin that formats the storage.
    pub format_by: Option<String>,
    /// The whole text of daos_control.yml.
    pub control_yaml: String,
    /// The whole text of /etc/nodeforge/format.json.
    pub format_json: String,
}

/// `[net.NAME]`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NetValues {
    /// `192.168.3.0/24`.
    pub subnet: String,
    pub gateway: Option<String>,
    pub dns: Vec<String>,
    /// `ethernet` or `infiniband`.
    pub kind: String,
}

/// One section of a .repo file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RepoValues {
    /// The id in brackets.
    pub id: String,
    /// What `dnf repolist` shows.
    pub title: String,
    pub baseurl: String,
    /// `1` or `0`.
    pub gpgcheck: u8,
    /// URLs of keys in a line, separated by spaces; empty if there is none.
    pub gpgkey: String,
    pub module_hotfixes: bool,
    pub priority: Option<u16>,
    /// Package globs in a line, separated by spaces; empty if nothing is left out.
    pub exclude: String,
}

/// One line of /etc/hosts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct HostValues {
    pub address: String,
    /// The canonical name first, separated by spaces.
    pub names: String,
}

/// `[os]` with what profiles, roles and nodes add.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OsValues {
    pub release: String,
    pub mirror: String,
    /// `disabled`, `permissive` or `enforcing`.
    pub selinux: String,
    /// `disabled` or `enabled`.
    pub firewall: String,
    pub locale: String,
    pub keyboard: String,
    pub epel: bool,
    pub ssh_keys: Vec<String>,
    /// Sorted; `console=` is not among them.
    pub kernel_args: Vec<String>,
    /// Kernel modules to load at boot, sorted.
    pub modules: Vec<String>,
    pub sysctl: Vec<SysctlValues>,
    /// What an enabled firewall lets in beside ssh.
    pub ports: Vec<PortValues>,
    /// BaseOS, AppStream and extras, pinned to the mirror.
    pub repos: Vec<RepoValues>,
    pub powertools: RepoValues,
    pub epel_repo: RepoValues,
}

/// One kernel setting.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct SysctlValues {
    /// As sysctl.d writes it, with slashes where an interface name holds a dot.
    pub key: String,
    pub value: String,
}

/// A port or a range of ports: `10001` or `31416-31421`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PortValues {
    pub port: String,
    /// `tcp` or `udp`.
    pub protocol: String,
}

/// `[hw.NAME]`, as far as the installed system cares.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HwValues {
    pub name: String,
    /// `bios` or `uefi`.
    pub firmware: String,
    /// `intel` or `amd`.
    pub cpu: String,
    pub sockets: u32,
    /// Physical cores, all sockets together.
    pub cores: Option<u32>,
    /// The serial console, such as `ttyS0,115200`.
    pub console: Option<String>,
}

/// What follows from hw, roles and settings together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KindValues {
    pub roles: Vec<String>,
    /// Who daos_server runs as: user and group in one name.
    pub run_as: String,
    /// Whether daos_server runs as the user its package made.
    pub runs_as_packaged: bool,
    /// Where control_metadata lies; `null` if no engine has bdev roles.
    pub control_metadata: Option<String>,
    /// Paths whose filesystems daos_server needs, separated by spaces; may be empty.
    pub mounts: String,
    /// Log files that DAOS appends to for ever, by daemon.
    pub server_logs: Vec<String>,
    pub agent_logs: Vec<String>,
    /// Folders, owners and modes that tmpfiles.d sets.
    pub tmpfiles: Vec<TmpfilesLine>,
    /// The whole text of daos_agent.yml; `null` on nodes that are no clients.
    pub agent_yaml: Option<String>,
    /// The whole text of kind.json, see [`KindPlan`](crate::render::node_plan::KindPlan).
    pub plan_json: String,
}

/// One line of tmpfiles.d.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct TmpfilesLine {
    /// `d` makes a folder, `z` sets owner and mode, `Z` does so below, too.
    pub action: String,
    pub path: String,
    /// Octal; `-` leaves it as it is.
    pub mode: String,
    pub user: String,
    pub group: String,
}

/// One daos_engine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EngineValues {
    /// From 0.
    pub index: usize,
    /// The interface name of its fabric NIC.
    pub interface: String,
    pub port: u32,
    pub targets: u32,
    pub helpers: u32,
    pub numa: Option<u32>,
    pub scm_mount: String,
    pub log_file: String,
}

/// One machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeValues {
    /// The name in the cluster file, and the host name.
    pub name: String,
    /// With the domain, if there is one.
    pub fqdn: String,
    /// What its name stands for in /etc/hosts; `null` without an address.
    pub address: Option<String>,
    pub rack: Option<String>,
    pub serial: Option<String>,
    /// Whether this admin formats the storage.
    pub formats: bool,
    /// NetworkManager's profiles: one for each NIC that is configured.
    pub connections: Vec<ConnectionValues>,
    /// systemd's .link files: one for each NIC that is real.
    pub links: Vec<LinkValues>,
    /// The whole text of daos_server.yml; `null` on other nodes.
    pub server_yaml: Option<String>,
    /// The whole text of node.json, see [`NodePlan`](crate::render::node_plan::NodePlan).
    pub plan_json: String,
}

/// One NetworkManager profile (`nm-settings(5)`, keyfile).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConnectionValues {
    /// The NIC's key in the cluster file.
    pub key: String,
    /// The interface name, and the profile's name.
    pub id: String,
    pub uuid: String,
    /// `ethernet`, `infiniband`, `vlan` or `bond`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Which of two profiles for one NIC wins; ours.
    pub priority: i32,
    /// Only this hardware takes the profile; `null` for what is not Ethernet hardware.
    pub mac: Option<String>,
    pub mtu: Option<u32>,
    /// `datagram` or `connected`; `null` but for InfiniBand.
    pub transport_mode: Option<String>,
    pub vlan: Option<VlanValues>,
    pub bond: Option<BondValues>,
    /// The interface of the bond it belongs to.
    pub master: Option<String>,
    pub ipv4: Option<Ipv4Values>,
    /// Whether it is up only for what lies over it; a bond's member is neither.
    pub without_address: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VlanValues {
    pub id: u16,
    /// The interface it is on.
    pub parent: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BondValues {
    /// Such as `802.3ad` or `active-backup`.
    pub mode: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ipv4Values {
    /// `192.168.3.11/24`.
    pub address: String,
    /// `null` but for the NIC the node's name stands for.
    pub gateway: Option<String>,
    /// Each followed by `;`, as keyfiles write lists; empty if there is none.
    pub dns: String,
    /// As `dns`.
    pub dns_search: String,
}

/// One systemd .link file (`systemd.link(5)`, version 239).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LinkValues {
    /// The interface name to give.
    pub name: String,
    /// Ethernet is known by its address.
    pub mac: Option<String>,
    /// InfiniBand is known by its place, such as `pci-0000:17:00.0`; `*` beside an address
    /// keeps VLANs and bonds, which share it, from being taken for the NIC.
    pub path: Option<String>,
}
