//! A cluster that can be built: the types that the resolver fills and everybody reads.
//!
//! Nodes that share hw, roles and every setting share one [`Kind`]; a [`Node`] holds only
//! what is its own. So work and memory per node stay small with thousands of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::ops::Deref;
use std::path::PathBuf;

use crate::cluster::secret_ref::SecretRef;
use crate::diag::Span;
use crate::net::{InfinibandGuid, Ipv4Net, MacAddr, PciAddress};
use crate::range::NodeName;
use crate::units::{ByteSize, Seconds};

/// A value and the place in the cluster file that set it, or, for a default, the place to
/// point at when the value is the problem.
#[derive(Clone, Debug)]
pub struct Sited<T> {
    pub value: T,
    pub span: Span,
}

impl<T> Deref for Sited<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// The whole cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub name: String,
    /// The DNS domain of the nodes; empty if there is none.
    pub domain: String,
    /// An IANA time zone, such as `Asia/Shanghai`.
    pub timezone: String,
    /// NTP servers by name or address; empty leaves EL's pool.
    pub ntp: Vec<String>,
    pub boot: Boot,
    pub daos: Daos,
    pub nets: BTreeMap<String, Net>,
    pub repos: BTreeMap<String, Repo>,
    /// The overlays of each shared layer, by `common` and the names of the roles in use.
    pub layers: BTreeMap<String, Vec<Sited<String>>>,
    pub kinds: Vec<Kind>,
    /// Sorted by name.
    pub nodes: Vec<Node>,
    /// Rack names in the order of the file, each with its nodes.
    pub racks: BTreeMap<String, Vec<NodeName>>,
    /// Codes of broken rules that the file allows by name.
    pub allow: Vec<Sited<String>>,
    /// The site's own values for its templates, cluster-wide.
    pub vars: BTreeMap<String, Sited<VarValue>>,
    /// Where the cluster file starts: for problems no line is to blame for.
    pub top: Span,
}

impl Cluster {
    pub fn kind_of(&self, node: &Node) -> &Kind {
        &self.kinds[node.kind]
    }

    pub fn node(&self, name: &str) -> Option<&Node> {
        let name = NodeName::new(name);
        let at = self.nodes.binary_search_by(|node| node.name.cmp(&name)).ok()?;
        Some(&self.nodes[at])
    }

    /// The archives of packages, by the ids of their repositories.
    pub fn archives(&self) -> impl Iterator<Item = (&str, &RepoArchive)> {
        let repos = self.repos.values().chain([&self.daos.repo]);
        repos.filter_map(|repo| Some((repo.id.as_str(), repo.archive.as_ref()?)))
    }

    pub fn nodes_with_role<'a>(&'a self, role: &'a str) -> impl Iterator<Item = &'a Node> {
        self.nodes.iter().filter(move |node| self.kind_of(node).has_role(role))
    }

    /// The nodes of one kind.
    pub fn nodes_of_kind(&self, kind: usize) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(move |node| node.kind == kind)
    }

    /// The MAC address the node's firmware boots from.
    pub fn boot_mac(&self, node: &Node) -> Option<MacAddr> {
        node.nics.get(self.kind_of(node).boot_nic()?)?.mac
    }

    /// The address a node's name stands for: that of its boot NIC, or of the bond over it.
    pub fn primary_address(&self, node: &Node) -> Option<Ipv4Addr> {
        let kind = self.kind_of(node);
        node.nics.get(kind.primary_nic()?)?.ip
    }
}

/// `[boot]`: how nodes reach what was built for them.
#[derive(Clone, Debug)]
pub struct Boot {
    /// The URL under which `out/current` is served, without a slash at the end.
    pub url: Sited<String>,
    pub overlay: Sited<OverlayVia>,
    pub secrets: Sited<SecretsVia>,
}

/// How a node being installed gets its overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverlayVia {
    /// By URL, from the boot server.
    Http,
    /// From the installer's own initrd or a filesystem labelled OEMDRV.
    Media,
    /// Inside the kickstart.
    Embedded,
}

/// How a node being installed gets its secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretsVia {
    /// From the boot server, with a token from the kernel line.
    Token,
    /// From a medium.
    Media,
    /// Inside the kickstart, which becomes a secret itself.
    Embedded,
}

/// `[daos]`: what all DAOS configuration files agree on.
#[derive(Clone, Debug)]
pub struct Daos {
    pub version: Sited<String>,
    pub repo: Repo,
    pub system_name: Sited<String>,
    pub provider: Sited<String>,
    /// In the order written, which is the same on all nodes; the first one bootstraps.
    pub access_points: Sited<Vec<Sited<NodeName>>>,
    /// The control plane's TCP port.
    pub port: Sited<u16>,
    pub security: Sited<Security>,
    pub certificates: Option<Certificates>,
    pub system_ram_reserved: Sited<ByteSize>,
    pub telemetry_port: Option<Sited<u16>>,
    /// At most two levels below `/`; may hold `{rack}` and `{name}`.
    pub fault_path: Option<Sited<String>>,
    /// The one admin that formats; `None` only where the cluster has no admin.
    pub format_by: Option<Sited<NodeName>>,
    /// How long it waits for all servers.
    pub format_deadline: Sited<Seconds>,
    /// In the order of the file.
    pub pools: Vec<Pool>,
    pub control_metadata: ControlMetadata,
    pub control_log_mask: Option<Sited<String>>,
    /// Total over the engines of a node; `None` computes it.
    pub nr_hugepages: Option<Sited<u64>>,
    pub disable_hugepages: Sited<bool>,
    pub disable_vfio: Sited<bool>,
    pub disable_vmd: Sited<bool>,
    pub enable_hotplug: Sited<bool>,
    pub disable_srx: Sited<bool>,
    /// Seconds.
    pub crt_timeout: Option<Sited<u64>>,
    pub core_dump_filter: Option<Sited<u64>>,
    /// `NAME=value` each, for clients.
    pub client_env: Vec<Sited<String>>,
    pub agent: Agent,
    /// Where the `[daos]` table begins.
    pub span: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    Insecure,
    Certificates,
}

/// `[[daos.pool]]`: a pool to make once all servers have joined.
#[derive(Clone, Debug)]
pub struct Pool {
    pub label: Sited<String>,
    pub size: Sited<PoolSize>,
    /// Percent of a total size that go to the first tier; `None` leaves DAOS's own, 6.
    pub tier_ratio: Option<Sited<u32>>,
    /// Empty for all.
    pub ranks: Vec<Sited<u32>>,
    pub properties: BTreeMap<String, Sited<VarValue>>,
    /// `NAME@` or `NAME@DOMAIN`; `None` for root.
    pub user: Option<Sited<String>>,
    pub group: Option<Sited<String>>,
    /// Entries as dmg reads them, `A::alice@:rw`; empty leaves DAOS's own.
    pub acl: Vec<Sited<String>>,
    pub containers: Vec<Container>,
    pub span: Span,
}

/// How large a pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolSize {
    /// Percent of what is free, 1 to 100.
    Share(u8),
    /// Over all engines and tiers.
    Total(ByteSize),
}

/// `[[daos.pool.container]]`.
#[derive(Clone, Debug)]
pub struct Container {
    pub label: Sited<String>,
    /// As `daos container create --type` calls it.
    pub kind: String,
    pub properties: BTreeMap<String, Sited<VarValue>>,
    pub span: Span,
}

/// Where the certificates were made by `nodeforge certs init`.
#[derive(Clone, Debug)]
pub struct Certificates {
    pub dir: Sited<PathBuf>,
    /// How long new ones hold.
    pub days: u32,
}

/// `[daos.control_metadata]`: where engines with Metadata-on-SSD keep what must outlive a reinstall.
#[derive(Clone, Debug)]
pub struct ControlMetadata {
    pub path: Sited<String>,
    /// The size of the filesystem DAOSMETA that the kickstart makes for it.
    pub size: Sited<ByteSize>,
}

/// `[daos.agent]`: daos_agent.yml beyond what it shares with the servers.
#[derive(Clone, Debug)]
pub struct Agent {
    pub telemetry_port: Option<Sited<u16>>,
    pub disable_caching: Sited<bool>,
    /// Minutes; `None` leaves DAOS's own.
    pub cache_expiration: Option<Sited<u64>>,
    pub log_mask: Option<Sited<String>>,
}

/// `[net.NAME]`: one subnet.
#[derive(Clone, Debug)]
pub struct Net {
    pub name: String,
    pub subnet: Sited<Ipv4Net>,
    pub gateway: Option<Sited<Ipv4Addr>>,
    pub dns: Vec<Ipv4Addr>,
    pub kind: NetKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetKind {
    Ethernet,
    Infiniband,
}

/// A package repository.
#[derive(Clone, Debug)]
pub struct Repo {
    /// The id in brackets of the .repo file.
    pub id: String,
    /// Of an archive: where the boot server has what is in it.
    pub baseurl: Sited<String>,
    /// What the build unpacks for the boot server.
    pub archive: Option<RepoArchive>,
    pub gpgcheck: Sited<bool>,
    /// URLs of keys; empty where none is configured.
    pub gpgkey: Vec<String>,
    pub module_hotfixes: bool,
    pub priority: Option<u16>,
    /// Package globs dnf leaves out of this repository.
    pub exclude: Vec<String>,
}

/// A repository as vendors ship it: a tar archive or an ISO.
#[derive(Clone, Debug)]
pub struct RepoArchive {
    pub path: Sited<PathBuf>,
    /// The end of the path, inside the archive, of the folder that holds repodata/.
    pub folder: Option<String>,
}

/// A value under `vars`.
#[derive(Clone, Debug, PartialEq)]
pub enum VarValue {
    Text(String),
    Integer(i64),
    Bool(bool),
}

/// What nodes with the same hw, roles and settings have in common.
#[derive(Clone, Debug)]
pub struct Kind {
    pub hw: Hw,
    /// In the order written; `common` is not among them.
    pub roles: Vec<Sited<String>>,
    /// The profile each of the roles builds on, in the same order: a role of another name
    /// that builds on `server` makes a server.
    pub profiles: Vec<String>,
    pub os: Os,
    pub run_as: Option<Sited<String>>,
    pub engines: Vec<Engine>,
    /// Overlays of the node's own blocks in the cluster file, beyond those of its roles.
    pub own_overlays: Vec<Sited<String>>,
    pub vars: BTreeMap<String, Sited<VarValue>>,
    /// The `[node.RANGE]` keys that make this kind, widest first.
    pub ranges: Vec<String>,
    /// The first of those keys: for problems of the kind that no value is to blame for.
    pub span: Span,
    /// How many nodes are of this kind.
    pub n_nodes: usize,
}

impl Kind {
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|name| name.value == role)
    }

    fn builds_on(&self, profile: &str) -> bool {
        self.profiles.iter().any(|name| name == profile)
    }

    /// Runs daos_server.
    pub fn is_server(&self) -> bool {
        self.builds_on("server")
    }

    /// Runs dmg.
    pub fn is_admin(&self) -> bool {
        self.builds_on("admin")
    }

    /// Runs daos_agent.
    pub fn is_client(&self) -> bool {
        self.builds_on("client")
    }

    /// The index in [`Hw::nics`] of the NIC the node boots from.
    pub fn boot_nic(&self) -> Option<usize> {
        self.hw.nics.iter().position(|nic| nic.is_boot)
    }

    /// The index of the NIC whose address the node's name stands for: the boot NIC, or the
    /// bond over it.
    pub fn primary_nic(&self) -> Option<usize> {
        let boot = self.boot_nic()?;
        let key = &self.hw.nics[boot].key;
        let bond = self.hw.nics.iter().position(|nic| match &nic.link {
            Link::Bond { members, .. } => members.contains(key),
            _ => false,
        });
        bond.or(Some(boot))
    }

    /// Where control_metadata is written: only if an engine's bdev tiers have roles
    /// (Metadata-on-SSD; DAOS codes 317 and 318).
    pub fn has_control_metadata(&self) -> bool {
        self.engines.iter().any(Engine::has_roles)
    }

    /// Whether any engine has a bdev tier of `class`.
    pub fn uses_bdev_class(&self, class: BdevClass) -> bool {
        self.engines.iter().flat_map(|engine| &engine.bdevs).any(|bdev| bdev.class.value == class)
    }
}

/// `[hw.NAME]`: what a box is.
#[derive(Clone, Debug)]
pub struct Hw {
    pub name: Sited<String>,
    pub firmware: Firmware,
    pub cpu: CpuVendor,
    /// DIMM size, as written.
    pub memory: Sited<ByteSize>,
    /// What /proc/meminfo's MemTotal will say, if the file says so.
    pub mem_total: Option<Sited<ByteSize>>,
    pub sockets: u32,
    /// Physical cores, all sockets together.
    pub cores: Option<Sited<u32>>,
    pub install_disk: DiskRule,
    pub nics: Vec<Nic>,
    /// Lists of data SSDs by name, as engines refer to them (`nvme.numa0`).
    pub nvme: BTreeMap<String, Sited<Vec<Sited<PciAddress>>>>,
    /// The serial console, such as `ttyS0,115200`.
    pub console: Option<String>,
    pub bmc: Option<Bmc>,
    /// How the node boots from disk when the network tells it to.
    pub disk_boot: DiskBoot,
    pub vm: Option<Vm>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    Bios,
    Uefi,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuVendor {
    Intel,
    Amd,
}

/// How a network boot program hands over to the disk; it differs by vendor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskBoot {
    /// iPXE `exit`.
    Exit,
    /// iPXE `exit 1`.
    ExitFail,
    /// `sanboot --drive 0x80`, for BIOS.
    Sanboot,
    /// Loads EL's boot loader from the EFI system partition.
    Chain,
}

/// Which disk to install on: every condition given must hold, and exactly one disk must match.
#[derive(Clone, Debug)]
pub struct DiskRule {
    /// A name under /dev/disk/by-path.
    pub by_path: Option<String>,
    /// A name under /dev/disk/by-id.
    pub by_id: Option<String>,
    pub serial: Option<String>,
    pub wwn: Option<String>,
    /// As lsblk's TRAN says: `sata`, `sas`, `nvme`, `virtio`, …
    pub bus: Option<String>,
    pub min: Option<ByteSize>,
    pub max: Option<ByteSize>,
    pub span: Span,
}

/// `nic.NAME` of a hw.
#[derive(Clone, Debug)]
pub struct Nic {
    /// The key in the cluster file, by which engines and inventories name it.
    pub key: String,
    /// The interface name on the node.
    pub name: Sited<String>,
    pub net: Option<Sited<String>>,
    pub is_boot: bool,
    pub pci: Option<Sited<PciAddress>>,
    /// The fabric domain, such as `mlx5_0`.
    pub domain: Option<Sited<String>>,
    pub numa: Option<Sited<u32>>,
    pub mtu: Option<u32>,
    pub link: Link,
    pub span: Span,
}

/// What a NIC is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    Ethernet,
    Infiniband,
    /// `of` and `members` are keys of other NICs of the same hw.
    Vlan {
        id: u16,
        of: String,
    },
    Bond {
        mode: String,
        members: Vec<String>,
    },
}

/// How to reach a box's BMC; credentials are references and read by nobody here.
#[derive(Clone, Debug)]
pub struct Bmc {
    pub kind: String,
    /// The TCP port of its Redfish service.
    pub port: u16,
    pub user: Option<SecretRef>,
    pub password: Option<SecretRef>,
}

/// What `image` and `lab` read.
#[derive(Clone, Debug)]
pub struct Vm {
    pub disk: ByteSize,
    pub has_iommu: bool,
    /// Each disk for data.
    pub ssd: ByteSize,
}

impl Vm {
    /// Disks for data are sparse: this is what DAOS may fill.
    pub const SSD: ByteSize = ByteSize::from_gib(16);
}

/// `[os]`, and what roles and nodes say of the same keys.
#[derive(Clone, Debug)]
pub struct Os {
    pub release: Sited<String>,
    pub mirror: Sited<String>,
    pub tree: Tree,
    pub selinux: Selinux,
    pub firewall: Firewall,
    pub epel: bool,
    pub epel_url: String,
    pub locale: String,
    pub keyboard: String,
    pub root_password: Option<Sited<SecretRef>>,
    pub ssh_keys: Vec<Sited<String>>,
    /// Everything to boot the installed node with, `console=` not included.
    pub kernel_args: BTreeSet<String>,
    /// Names and groups (`@core`); a leading `-` leaves one out.
    pub packages: BTreeMap<String, Span>,
    /// Units of RPMs to enable.
    pub services: BTreeSet<String>,
    /// `8080/tcp` each: ports beyond those of DAOS, which are computed.
    pub ports: BTreeSet<String>,
    /// `key=value` each.
    pub sysctl: BTreeSet<String>,
    /// Kernel modules to load.
    pub modules: BTreeSet<String>,
}

/// Which of AlmaLinux's trees to install from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tree {
    /// The release as shipped.
    Kickstart,
    /// With updates.
    Os,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selinux {
    Disabled,
    Permissive,
    Enforcing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firewall {
    Disabled,
    Enabled,
}

/// `[[role.server.engine]]`: one daos_engine process.
#[derive(Clone, Debug)]
pub struct Engine {
    pub targets: Sited<u32>,
    pub helpers: Sited<u32>,
    pub first_core: Option<Sited<u32>>,
    pub numa: Option<Sited<u32>>,
    /// The key of a NIC of the hw.
    pub fabric: Sited<String>,
    /// The index of that NIC in [`Hw::nics`].
    pub fabric_nic: usize,
    pub port: Sited<u32>,
    pub scm: Scm,
    /// In the order of the file, `wal_meta` already split into tiers.
    pub bdevs: Vec<Bdev>,
    pub log_mask: Option<Sited<String>>,
    pub log_file: Sited<String>,
    /// `NAME=value` each.
    pub env: Vec<Sited<String>>,
    pub env_pass_through: Vec<String>,
    /// The value of `engine` where this one begins.
    pub span: Span,
}

impl Engine {
    pub fn has_roles(&self) -> bool {
        self.bdevs.iter().any(|bdev| !bdev.roles.is_empty())
    }

    pub fn has_meta_role(&self) -> bool {
        self.bdevs.iter().any(|bdev| bdev.roles.iter().any(|role| role.value == BdevRole::Meta))
    }
}

/// An engine's first tier.
#[derive(Clone, Debug)]
pub struct Scm {
    pub class: Sited<ScmClass>,
    /// `None` for class dcpm.
    pub size: Option<Sited<ScmSize>>,
    pub mount: Sited<String>,
    /// PMem devices, for class dcpm.
    pub list: Vec<Sited<String>>,
    pub hugepages_disabled: bool,
    pub span: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScmClass {
    Ram,
    Dcpm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScmSize {
    /// As large as the memory allows; computed by [`crate::daos`].
    Auto,
    Fixed(ByteSize),
}

/// One tier of block devices.
#[derive(Clone, Debug)]
pub struct Bdev {
    pub class: Sited<BdevClass>,
    /// PCI addresses for nvme, paths for file and kdev.
    pub list: Sited<Vec<Sited<String>>>,
    /// The size of each file, for class file.
    pub size: Option<Sited<ByteSize>>,
    pub roles: Vec<Sited<BdevRole>>,
    pub busid_range: Option<Sited<String>>,
    pub span: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BdevClass {
    Nvme,
    File,
    Kdev,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BdevRole {
    Wal,
    Meta,
    Data,
}

/// One machine: what is its own, beside its kind.
#[derive(Clone, Debug)]
pub struct Node {
    pub name: NodeName,
    /// Its place in [`Cluster::kinds`].
    pub kind: usize,
    pub rack: Option<String>,
    /// By the order of [`Hw::nics`] of its kind.
    pub nics: Vec<NodeNic>,
    pub serial: Option<String>,
    pub bmc_ip: Option<Ipv4Addr>,
    /// DAOS's fault path with rack and name filled in.
    pub fault_path: Option<String>,
    /// The `[node.RANGE]` key that names it, the narrowest.
    pub span: Span,
}

/// What one node's NIC has of its own.
#[derive(Clone, Debug, Default)]
pub struct NodeNic {
    pub ip: Option<Ipv4Addr>,
    pub mac: Option<MacAddr>,
    pub guid: Option<InfinibandGuid>,
}
