//! Every key of the cluster file: type, unit, default, example and meaning.
//!
//! This table is the only place that says what may be written; the check for unknown keys,
//! the JSON Schema (`nodeforge schema`) and docs/cluster-file.md all come from it.

use crate::toml_doc::{Key, Need, Shape};

const fn required(
    name: &'static str,
    shape: Shape,
    example: &'static str,
    doc: &'static str,
) -> Key {
    Key { name, shape, doc, default: "", example, need: Need::Required }
}

const fn optional(
    name: &'static str,
    shape: Shape,
    example: &'static str,
    doc: &'static str,
) -> Key {
    Key { name, shape, doc, default: "", example, need: Need::Optional }
}

const fn defaulted(
    name: &'static str,
    shape: Shape,
    default: &'static str,
    example: &'static str,
    doc: &'static str,
) -> Key {
    Key { name, shape, doc, default, example, need: Need::Optional }
}

const TEXTS: Shape = Shape::List(&Shape::Text);
const PORT: Shape = Shape::Integer(1, 65535);
const COUNT: Shape = Shape::Integer(0, 1_000_000);

/// The whole file.
pub const CLUSTER_FILE: &[Key] = &[
    required("format", Shape::Integer(1, 1), "1", "The version of this format."),
    optional(
        "include",
        TEXTS,
        "[\"os-alma89.toml\"]",
        "Files read first; this file wins over them. Paths are relative to this file.",
    ),
    optional(
        "allow",
        TEXTS,
        "[\"DAOS-706\"]",
        "Codes of broken rules to build with all the same; the manifest says so.",
    ),
    required(
        "cluster",
        Shape::Table(CLUSTER),
        "{ name = \"lab3\" }",
        "What the cluster is called and what all nodes share.",
    ),
    required(
        "boot",
        Shape::Table(BOOT),
        "{ url = \"http://192.168.3.1:8080\" }",
        "How nodes reach what is built for them.",
    ),
    required(
        "os",
        Shape::Table(OS_CLUSTER),
        "{ release = \"8.10\" }",
        "The operating system. Any key may also stand in a role or a node.",
    ),
    required(
        "daos",
        Shape::Table(DAOS),
        "{ version = \"2.6.0\" }",
        "What all DAOS configuration files agree on.",
    ),
    required(
        "net",
        Shape::Map(&Shape::Table(NET)),
        "{ mgmt = { subnet = \"192.168.3.0/24\" } }",
        "Subnets by name.",
    ),
    optional(
        "repo",
        Shape::Map(&Shape::Table(REPO)),
        "{ mlnx_ofed = { baseurl = \"http://…/\" } }",
        "Further package repositories by id. One whose id or URL holds `mlnx`, `ofed` or `doca` counts as MLNX_OFED, which ofi+verbs needs; so does one whose archive's name does.",
    ),
    required("hw", Shape::Map(&Shape::Table(HW)), "{ vm = { … } }", "What a box is, by name."),
    optional(
        "role",
        Shape::Map(&Shape::Table(ROLE)),
        "{ server = { run_as = \"root\" } }",
        "What a box does, on top of the profile of the same name. Built in: common, admin, server, client.",
    ),
    optional(
        "rack",
        Shape::Map(&Shape::Table(RACK)),
        "{ \"r[01-32]\" = { nodes = \"srv[001-512]\", per = 16 } }",
        "Racks by name or range, and the nodes in them.",
    ),
    required(
        "node",
        Shape::Map(&Shape::Table(NODE)),
        "{ node0 = { hw = \"vm\", roles = [\"server\"] } }",
        "Nodes by name or range. Of two ranges that set one key, the one with fewer nodes wins.",
    ),
    optional(
        "vars",
        Shape::Map(&Shape::Scalar),
        "{ motd = \"hello\" }",
        "A site's own values, for its own templates as `vars.NAME`.",
    ),
];

const CLUSTER: &[Key] = &[
    required("name", Shape::Text, "\"lab3\"", "The cluster's name: letters, digits and hyphens."),
    optional("domain", Shape::Text, "\"lab.local\"", "The DNS domain of all nodes."),
    defaulted("timezone", Shape::Text, "UTC", "\"Asia/Shanghai\"", "An IANA time zone."),
    optional(
        "ntp",
        TEXTS,
        "[\"192.168.3.1\"]",
        "NTP servers by name or address; without any, EL's public pool is used.",
    ),
];

const BOOT: &[Key] = &[
    required(
        "url",
        Shape::Text,
        "\"http://192.168.3.1:8080\"",
        "Where `out/current` is served; every URL in an artefact starts here.",
    ),
    defaulted(
        "overlay",
        Shape::OneOf(&["http", "media", "embedded"]),
        "http",
        "\"embedded\"",
        "How a node gets its overlay while it is installed: by URL, from the initrd or an OEMDRV medium, or inside the kickstart (up to 1 MiB).",
    ),
    defaulted(
        "secrets",
        Shape::OneOf(&["token", "media", "embedded"]),
        "token",
        "\"media\"",
        "How a node gets its secrets: from the boot server with a token, from a medium, or inside the kickstart, which makes that a secret file.",
    ),
];

/// Keys that `[os]`, roles and nodes share.
macro_rules! os_keys {
    ($($more:expr,)*) => {
        &[
            $($more,)*
            defaulted("mirror", Shape::Text, "https://vault.almalinux.org/RELEASE, for 8.10 https://repo.almalinux.org/almalinux/8.10", "\"https://vault.almalinux.org/8.9\"", "The folder of an AlmaLinux mirror that holds BaseOS and AppStream."),
            defaulted("tree", Shape::OneOf(&["kickstart", "os"]), "kickstart", "\"os\"", "Install from the release as shipped, or from the tree that gathers updates."),
            defaulted("selinux", Shape::OneOf(&["disabled", "permissive", "enforcing"]), "enforcing", "\"disabled\"", "SELinux's mode. DAOS ships no policy of its own and needs none off."),
            defaulted("firewall", Shape::OneOf(&["disabled", "enabled"]), "enabled", "\"disabled\"", "Enabled opens exactly what the node's roles need, and ssh."),
            defaulted("epel", Shape::Bool, "true", "false", "Whether EPEL is configured; the DAOS packages need it."),
            defaulted("epel_url", Shape::Text, "https://dl.fedoraproject.org/pub/epel/8/Everything/x86_64/", "\"http://10.20.0.2/epel8/\"", "Where EPEL's packages are."),
            defaulted("locale", Shape::Text, "en_US.UTF-8", "\"en_GB.UTF-8\"", "The system's locale."),
            defaulted("keyboard", Shape::Text, "us", "\"de\"", "The console's keyboard."),
            optional("root_password", Shape::Secret, "{ file = \"secrets/root.sha512\" }", "A `$6$` or `$5$` hash; without it the account is locked."),
            optional("ssh_keys", TEXTS, "[\"ssh-ed25519 AAAA… admin@lab\"]", "Public keys that may log in as root."),
            optional("kernel_args", Shape::Set, "[\"intel_iommu=on\"]", "Kernel arguments of the installed system. `console=` comes from the hw, and Intel gets `intel_iommu=on` where no `intel_iommu=` is set."),
            optional("packages", Shape::Set, "[\"tmux\"]", "Packages and groups (`@core`) to install; a leading `-` leaves one out."),
            optional("services", Shape::Set, "[\"tuned\"]", "Units of packages to enable."),
            optional("ports", Shape::Set, "[\"8080/tcp\"]", "Ports to open beside those of DAOS, which are computed."),
            optional("sysctl", Shape::Set, "[\"vm.swappiness=1\"]", "Kernel settings, `key=value` each."),
            optional("modules", Shape::Set, "[\"nvme_rdma\"]", "Kernel modules to load at boot."),
            optional("overlays", Shape::Set, "[\"site-motd\"]", "Overlays to lay on top of those of the profiles."),
        ]
    };
}

const RELEASE: Key = required(
    "release",
    Shape::OneOf(&["8.8", "8.9", "8.10"]),
    "\"8.10\"",
    "The AlmaLinux release.",
);
const RELEASE_OVER: Key = optional(
    "release",
    Shape::OneOf(&["8.8", "8.9", "8.10"]),
    "\"8.10\"",
    "The AlmaLinux release.",
);
const VARS: Key = optional(
    "vars",
    Shape::Map(&Shape::Scalar),
    "{ rank = 3 }",
    "A site's own values, for its own templates as `vars.NAME`.",
);

const OS_CLUSTER: &[Key] = os_keys![RELEASE,];

const DAOS: &[Key] = &[
    required(
        "version",
        Shape::Text,
        "\"2.6.0\"",
        "The DAOS release, which decides the rules and the keys that are written.",
    ),
    defaulted(
        "repo",
        Shape::Table(REPO),
        "the project's repository for the version",
        "{ baseurl = \"https://packages.daos.io/v2.6.0/EL8/packages/x86_64/\", gpgcheck = false }",
        "Where DAOS's packages come from.",
    ),
    defaulted(
        "system_name",
        Shape::Text,
        "daos_server",
        "\"daos_server\"",
        "The system's name, 1 to 15 characters. DAOS's documentation advises to keep the default.",
    ),
    required(
        "provider",
        Shape::Text,
        "\"ofi+tcp;ofi_rxm\"",
        "The fabric provider: ofi+tcp, ofi+tcp;ofi_rxm, ofi+verbs;ofi_rxm, ucx+….",
    ),
    required(
        "access_points",
        Shape::HostList,
        "[\"node0\"]",
        "The servers that hold the management service: 1, 3 or 5; the first one bootstraps.",
    ),
    defaulted("port", PORT, "10001", "10001", "The TCP port of the control plane."),
    defaulted(
        "security",
        Shape::OneOf(&["insecure", "certificates"]),
        "certificates",
        "\"insecure\"",
        "Whether the control plane is protected by certificates.",
    ),
    optional(
        "certificates",
        Shape::Table(CERTIFICATES),
        "{ dir = \"secrets/daos\" }",
        "Where `nodeforge certs init` keeps the certificates; required for `security = \"certificates\"`.",
    ),
    defaulted(
        "system_ram_reserved",
        Shape::Size,
        "16GiB, from DAOS 2.8 on 64GiB",
        "\"1GiB\"",
        "Memory DAOS leaves to the system; whole GiB.",
    ),
    optional("telemetry_port", PORT, "9191", "The servers' telemetry port; off without it."),
    optional(
        "fault_path",
        Shape::Text,
        "\"/{rack}/{name}\"",
        "The fault domain of a server: at most two levels; `{rack}` and `{name}` are filled in.",
    ),
    defaulted(
        "format_by",
        Shape::Text,
        "the first admin by name",
        "\"adm1\"",
        "The admin node that formats the storage.",
    ),
    defaulted(
        "format_deadline",
        Shape::TimeSpan,
        "24h",
        "\"3d\"",
        "How long that admin waits for all servers before it gives up with their names: s, min, h or d. It formats only when all are there; a day is enough for racks that are cabled one after the other.",
    ),
    optional(
        "pool",
        Shape::List(&Shape::Table(POOL)),
        "[{ label = \"tank\", size = \"90%\" }]",
        "Pools to make once all servers have joined, `[[daos.pool]]` each. One that exists is left alone, one that is destroyed later does not come back.",
    ),
    defaulted(
        "control_metadata",
        Shape::Table(CONTROL_METADATA),
        "{ path = \"/var/lib/daos\" }",
        "{ size = \"20GiB\" }",
        "Where servers with Metadata-on-SSD keep what must outlive a reinstall.",
    ),
    optional("control_log_mask", Shape::Text, "\"INFO\"", "The control plane's log level."),
    defaulted(
        "nr_hugepages",
        COUNT,
        "computed from the targets",
        "8704",
        "Hugepages of 2 MiB, all engines of a node together.",
    ),
    defaulted("disable_hugepages", Shape::Bool, "false", "false", "Never with block devices."),
    defaulted(
        "disable_vfio",
        Shape::Bool,
        "false",
        "true",
        "Use UIO instead of VFIO; does not work on EL8 without patches.",
    ),
    defaulted("disable_vmd", Shape::Bool, "false", "true", "Do not use Intel VMD."),
    defaulted("enable_hotplug", Shape::Bool, "false", "true", "NVMe hot plug."),
    defaulted("disable_srx", Shape::Bool, "false", "true", "Do not share receive buffers."),
    optional("crt_timeout", Shape::Integer(1, 86400), "30", "The RPC timeout in seconds."),
    optional(
        "core_dump_filter",
        Shape::Integer(0, 511),
        "19",
        "What a core file of an engine holds (core(5)).",
    ),
    optional(
        "client_env",
        TEXTS,
        "[\"FI_TCP_IFACE=lan0\"]",
        "`NAME=value` settings that servers hand to clients.",
    ),
    optional(
        "agent",
        Shape::Table(AGENT),
        "{ telemetry_port = 9192 }",
        "daos_agent.yml beyond what it shares with the servers.",
    ),
];

/// `[[daos.pool]]`: the options of `dmg pool create`.
pub const POOL: &[Key] = &[
    required(
        "label",
        Shape::Text,
        "\"tank\"",
        "The pool's name: letters, digits and `:._-`, up to 127 characters.",
    ),
    required(
        "size",
        Shape::Text,
        "\"90%\"",
        "A share of what is free, `90%`, or a size over all engines, `10TiB`.",
    ),
    defaulted(
        "tier_ratio",
        Shape::Integer(1, 99),
        "6",
        "6",
        "The percentage of a size that lies in memory or on the meta SSDs; not with a share.",
    ),
    optional(
        "ranks",
        Shape::List(&Shape::Integer(0, 1_000_000)),
        "[0, 1, 2]",
        "The engines to use, by rank; all without it. Ranks are given in the order of joining.",
    ),
    optional(
        "properties",
        Shape::Map(&Shape::Scalar),
        "{ rd_fac = 1 }",
        "Properties of the pool, as `dmg pool set-prop` calls them.",
    ),
    optional("user", Shape::Text, "\"alice@\"", "The user who owns the pool; root without it."),
    optional("group", Shape::Text, "\"hpc@\"", "The group that owns the pool; root's without it."),
    optional(
        "acl",
        TEXTS,
        "[\"A::alice@:rw\"]",
        "Entries of the pool's access control list; DAOS's own without it: owner and owning group.",
    ),
    optional(
        "container",
        Shape::List(&Shape::Table(CONTAINER)),
        "[{ label = \"home\" }]",
        "Containers to make in it, `[[daos.pool.container]]` each; the admin must be a client, too.",
    ),
];

/// `[[daos.pool.container]]`: the options of `daos container create`.
pub const CONTAINER: &[Key] = &[
    required("label", Shape::Text, "\"home\"", "The container's name, as a pool's."),
    defaulted(
        "type",
        Shape::OneOf(&[
            "POSIX", "HDF5", "PYTHON", "SPARK", "DATABASE", "ROOT", "SEISMIC", "METEO", "unknown",
        ]),
        "POSIX",
        "\"POSIX\"",
        "What it holds.",
    ),
    optional(
        "properties",
        Shape::Map(&Shape::Scalar),
        "{ rd_lvl = 1 }",
        "Properties of the container, as `daos container set-prop` calls them.",
    ),
];

const CERTIFICATES: &[Key] = &[
    required("dir", Shape::Text, "\"secrets/daos\"", "The folder, relative to this file."),
    defaulted("days", Shape::Integer(1, 7300), "1095", "1095", "How long new certificates hold."),
];

const CONTROL_METADATA: &[Key] = &[
    defaulted(
        "path",
        Shape::Text,
        "/var/lib/daos",
        "\"/var/lib/daos\"",
        "The folder; on a filesystem of its own, labelled DAOSMETA, that a reinstall keeps.",
    ),
    defaulted(
        "size",
        Shape::Size,
        "8GiB",
        "\"20GiB\"",
        "The size of that filesystem; file bdevs are added to it.",
    ),
];

const AGENT: &[Key] = &[
    optional("telemetry_port", PORT, "9192", "The agents' telemetry port; off without it."),
    defaulted(
        "disable_caching",
        Shape::Bool,
        "false",
        "true",
        "Do not cache what servers say of themselves.",
    ),
    optional(
        "cache_expiration",
        Shape::Integer(0, 1_000_000),
        "30",
        "Minutes until the cache is refreshed.",
    ),
    optional("log_mask", Shape::Text, "\"INFO\"", "The agent's log level."),
];

const NET: &[Key] = &[
    required("subnet", Shape::Text, "\"192.168.3.0/24\"", "The subnet with its prefix length."),
    optional(
        "gateway",
        Shape::Text,
        "\"192.168.3.1\"",
        "The default gateway; only for one net of a node.",
    ),
    optional("dns", TEXTS, "[\"192.168.3.1\"]", "Name servers."),
    defaulted(
        "kind",
        Shape::OneOf(&["ethernet", "infiniband"]),
        "ethernet",
        "\"infiniband\"",
        "What the subnet runs on.",
    ),
];

const REPO: &[Key] = &[
    optional(
        "baseurl",
        Shape::Text,
        "\"https://packages.daos.io/v2.6.0/EL8/packages/x86_64/\"",
        "The repository's URL: a folder with repodata/. This or `archive` is needed.",
    ),
    optional(
        "archive",
        Shape::Text,
        "\"MLNX_OFED_LINUX-5.8-4.1.5.0-rhel8.9-x86_64.tgz\"",
        "Instead of `baseurl`: a tar archive, plain or gzipped, or an ISO with the repository in it, relative to this file. The build unpacks it, and nodes get it from `boot.url`/pxe/repos/ID/.",
    ),
    optional(
        "folder",
        Shape::Text,
        "\"RPMS\"",
        "The folder in the archive that holds repodata/; by default the only one nearest to its top.",
    ),
    defaulted(
        "gpgcheck",
        Shape::Bool,
        "true",
        "false",
        "Whether dnf checks signatures. The installer never does.",
    ),
    optional(
        "gpgkey",
        TEXTS,
        "[\"https://packages.daos.io/RPM-GPG-KEY-2023\"]",
        "URLs of the signing keys.",
    ),
    defaulted(
        "module_hotfixes",
        Shape::Bool,
        "false, for DAOS true",
        "true",
        "Whether packages here may replace those of module streams.",
    ),
    optional(
        "priority",
        Shape::Integer(1, 99),
        "10",
        "A lower number wins over other repositories.",
    ),
    optional("exclude", TEXTS, "[\"kernel*\"]", "Packages never taken from here."),
];

const HW: &[Key] = &[
    required("firmware", Shape::OneOf(&["bios", "uefi"]), "\"uefi\"", "How the box boots."),
    CPU,
    MEMORY,
    MEM_TOTAL,
    SOCKETS,
    CORES,
    INSTALL_DISK,
    NIC_KEY,
    NVME,
    CONSOLE,
    BMC_KEY,
    DISK_BOOT,
    VM_KEY,
];

const FIRMWARE: Key =
    optional("firmware", Shape::OneOf(&["bios", "uefi"]), "\"uefi\"", "How the box boots.");
const CPU: Key = defaulted(
    "cpu",
    Shape::OneOf(&["intel", "amd"]),
    "intel",
    "\"amd\"",
    "The vendor. Intel needs `intel_iommu=on`, AMD nothing.",
);
const MEMORY: Key = optional(
    "memory",
    Shape::Size,
    "\"1TiB\"",
    "The size of the DIMMs. Required, in the hw or in the node.",
);
const MEM_TOTAL: Key = defaulted(
    "mem_total",
    Shape::Size,
    "memory less a margin for the kernel",
    "\"1007GiB\"",
    "MemTotal of /proc/meminfo, where it is known.",
);
const SOCKETS: Key =
    defaulted("sockets", Shape::Integer(1, 64), "1", "2", "CPU sockets, each a NUMA node.");
const CORES: Key =
    optional("cores", Shape::Integer(1, 65535), "64", "Physical cores, all sockets together.");
const INSTALL_DISK: Key = optional(
    "install_disk",
    Shape::Table(DISK_RULE),
    "{ bus = \"virtio\", min = \"40GiB\" }",
    "Which disk to install on: all conditions must hold and exactly one disk match. Data disks are always refused. Required, in the hw or in the node.",
);
const NIC_KEY: Key = optional(
    "nic",
    Shape::Map(&Shape::Table(NIC)),
    "{ mgmt = { name = \"lan0\", net = \"mgmt\", boot = true } }",
    "NICs by a name that engines and inventories use.",
);
const NVME: Key = optional(
    "nvme",
    Shape::Map(&TEXTS),
    "{ numa0 = [\"0000:5e:00.0\"] }",
    "Data SSDs by PCI address, in lists that engines name.",
);
const CONSOLE: Key = optional(
    "console",
    Shape::Text,
    "\"ttyS0,115200\"",
    "The serial console, on every boot entry.",
);
const BMC_KEY: Key =
    optional("bmc", Shape::Table(BMC), "{ kind = \"redfish\" }", "The management controller.");
const DISK_BOOT: Key = defaulted(
    "disk_boot",
    Shape::OneOf(&["exit", "exit 1", "sanboot", "chain"]),
    "sanboot for bios, exit for uefi",
    "\"exit 1\"",
    "How a network boot program hands over to the disk; it differs by vendor.",
);
const VM_KEY: Key = optional(
    "vm",
    Shape::Table(VM),
    "{ disk = \"40GiB\" }",
    "What `image` and `lab` need to know of a virtual machine.",
);

const DISK_RULE: &[Key] = &[
    optional(
        "by_path",
        Shape::Text,
        "\"pci-0000:01:00.0-ata-1\"",
        "A name under /dev/disk/by-path.",
    ),
    optional(
        "by_id",
        Shape::Text,
        "\"ata-INTEL_SSDSC2KB480G8_…\"",
        "A name under /dev/disk/by-id.",
    ),
    optional("serial", Shape::Text, "\"PHYF1234\"", "The disk's serial number."),
    optional("wwn", Shape::Text, "\"0x5000c500a1b2c3d4\"", "The disk's World Wide Name."),
    optional(
        "bus",
        Shape::OneOf(&["virtio", "sata", "sas", "nvme", "scsi", "usb", "mmc"]),
        "\"sata\"",
        "How the disk is attached.",
    ),
    optional("min", Shape::Size, "\"200GiB\"", "The least size."),
    optional("max", Shape::Size, "\"1TiB\"", "The greatest size."),
];

const NIC: &[Key] = &[
    defaulted(
        "name",
        Shape::Text,
        "its key",
        "\"lan0\"",
        "The interface's name on the node; not one of the kernel's own (eth0, ib0).",
    ),
    optional("net", Shape::Text, "\"mgmt\"", "The net it is on."),
    defaulted(
        "boot",
        Shape::Bool,
        "false, for the only NIC true",
        "true",
        "Whether the node boots from it: exactly one NIC of a node.",
    ),
    optional(
        "ip",
        Shape::Text,
        "\"10.20.1.0 + {index}\"",
        "Its IPv4 address; `{index}` is the number at the end of the node's name.",
    ),
    optional("mac", Shape::Text, "\"52:54:00:03:00:11\"", "Its hardware address."),
    optional("guid", Shape::Text, "\"0c42a10300b1c2d3\"", "An InfiniBand port's GUID."),
    optional("pci", Shape::Text, "\"0000:17:00.0\"", "Its PCI address; InfiniBand needs it."),
    optional("domain", Shape::Text, "\"mlx5_0\"", "Its fabric domain."),
    optional("numa", Shape::Integer(0, 63), "0", "The NUMA node it is attached to."),
    optional("mtu", Shape::Integer(576, 65520), "9000", "Bytes."),
    optional(
        "vlan",
        Shape::Table(VLAN),
        "{ of = \"mgmt\", id = 100 }",
        "Makes it a VLAN on another NIC.",
    ),
    optional(
        "bond",
        Shape::Table(BOND),
        "{ of = [\"lan0\", \"lan1\"], mode = \"active-backup\" }",
        "Makes it a bond of other NICs.",
    ),
];

const VLAN: &[Key] = &[
    required("of", Shape::Text, "\"mgmt\"", "The NIC below, by its key."),
    required("id", Shape::Integer(1, 4094), "100", "The VLAN id."),
];

const BOND: &[Key] = &[
    required("of", TEXTS, "[\"lan0\", \"lan1\"]", "The NICs below, by their keys."),
    defaulted(
        "mode",
        Shape::OneOf(&[
            "active-backup",
            "802.3ad",
            "balance-rr",
            "balance-xor",
            "broadcast",
            "balance-tlb",
            "balance-alb",
        ]),
        "active-backup",
        "\"802.3ad\"",
        "The bonding mode.",
    ),
];

const BMC: &[Key] = &[
    defaulted(
        "kind",
        Shape::OneOf(&["redfish", "ipmi"]),
        "redfish",
        "\"redfish\"",
        "How it is spoken to.",
    ),
    optional("ip", Shape::Text, "\"10.30.1.0 + {index}\"", "Its address."),
    defaulted("port", PORT, "443", "8443", "The TCP port of its Redfish service."),
    optional(
        "user",
        Shape::Secret,
        "{ env = \"BMC_USER\" }",
        "Its user; read only by the verbs that need it.",
    ),
    optional(
        "password",
        Shape::Secret,
        "{ cmd = \"pass bmc/titan\" }",
        "Its password; read only by the verbs that need it.",
    ),
];

const VM: &[Key] = &[
    required("disk", Shape::Size, "\"40GiB\"", "The size of the system disk."),
    defaulted("iommu", Shape::Bool, "false", "true", "Whether the machine gets an IOMMU."),
    defaulted("ssd", Shape::Size, "\"16GiB\"", "\"64GiB\"", "The size of each disk for data."),
];

const RUN_AS: Key = defaulted(
    "run_as",
    Shape::OneOf(&["root", "daos_server"]),
    "daos_server",
    "\"root\"",
    "Who runs daos_server; root only where class nvme meets no IOMMU.",
);
const ENGINE_KEY: Key = optional(
    "engine",
    Shape::List(&Shape::Table(ENGINE)),
    "[{ targets = 8, fabric = \"fab0\", … }]",
    "The engines, one a NUMA node.",
);
const PROFILE: Key = defaulted(
    "profile",
    Shape::Text,
    "the role's own name",
    "\"server\"",
    "The profile the role builds on.",
);

const ROLE: &[Key] = os_keys![RELEASE_OVER, PROFILE, RUN_AS, ENGINE_KEY, VARS,];

const NODE: &[Key] = os_keys![
    optional("hw", Shape::Text, "\"r760\"", "What the box is."),
    optional("roles", TEXTS, "[\"server\"]", "What the box does."),
    optional("serial", Shape::Text, "\"7CXK1234\"", "The box's serial number."),
    optional(
        "facts",
        Shape::Table(FACTS),
        "{ csv = \"inventory.csv\", key = \"name\", columns = [\"mac.mgmt\"] }",
        "Values from an inventory."
    ),
    RELEASE_OVER,
    FIRMWARE,
    CPU,
    MEMORY,
    MEM_TOTAL,
    SOCKETS,
    CORES,
    INSTALL_DISK,
    NIC_KEY,
    NVME,
    CONSOLE,
    BMC_KEY,
    DISK_BOOT,
    VM_KEY,
    RUN_AS,
    ENGINE_KEY,
    VARS,
];

const FACTS: &[Key] = &[
    required(
        "csv",
        Shape::Text,
        "\"inventory.csv\"",
        "The file, relative to this one; its first line names the columns.",
    ),
    required("key", Shape::Text, "\"name\"", "The column that holds the node's name."),
    required(
        "columns",
        TEXTS,
        "[\"mac.mgmt\", \"serial\"]",
        "The columns to take: `mac.NIC`, `guid.NIC`, `serial`, `bmc_ip`. Others are ignored.",
    ),
];

const RACK: &[Key] = &[
    required(
        "nodes",
        Shape::HostList,
        "\"srv[001-512]\"",
        "The nodes in it; for a range of racks, in order.",
    ),
    optional("per", Shape::Integer(1, 1000), "16", "Nodes in each rack of a range."),
];

/// Keys of one engine.
pub const ENGINE: &[Key] = &[
    required(
        "targets",
        Shape::Integer(1, 1024),
        "8",
        "I/O service threads; a multiple of the number of SSDs is best.",
    ),
    defaulted("helpers", Shape::Integer(0, 1024), "targets / 4", "2", "Helper threads."),
    optional(
        "first_core",
        Shape::Integer(0, 65535),
        "0",
        "The first core to use; not together with numa.",
    ),
    optional("numa", Shape::Integer(0, 63), "0", "The NUMA node the engine is pinned to."),
    required("fabric", Shape::Text, "\"fab0\"", "The NIC it uses, by its key in the hw."),
    defaulted(
        "port",
        Shape::Integer(1, 1_000_000),
        "31316 + 1000 for each engine before it",
        "31416",
        "Its first fabric port; it takes targets + helpers + 2 from there and a few more, none above 65535.",
    ),
    required("scm", Shape::Table(SCM), "{ class = \"ram\", size = \"auto\" }", "The first tier."),
    optional(
        "bdev",
        Shape::List(&Shape::Table(BDEV)),
        "[{ class = \"nvme\", from = \"nvme.numa0\", wal_meta = 1 }]",
        "The tiers of block devices, at most three with roles.",
    ),
    optional("log_mask", Shape::Text, "\"INFO\"", "The engine's log level."),
    defaulted(
        "log_file",
        Shape::Text,
        "/var/log/daos/daos_engine.N.log",
        "\"/var/log/daos/daos_engine.0.log\"",
        "The engine's log.",
    ),
    optional("env", TEXTS, "[\"FI_TCP_IFACE=lan0\"]", "`NAME=value` settings of the engine."),
    optional(
        "env_pass_through",
        TEXTS,
        "[\"HTTP_PROXY\"]",
        "Variables of daos_server that the engine sees too.",
    ),
];

const SCM: &[Key] = &[
    required("class", Shape::OneOf(&["ram", "dcpm"]), "\"ram\"", "Memory, or persistent memory."),
    defaulted(
        "size",
        Shape::SizeOrAuto,
        "auto",
        "\"auto\"",
        "The size of the RAM disk in whole GiB; `auto` is as much as the memory allows. Only for class ram.",
    ),
    defaulted("mount", Shape::Text, "/mnt/daosN", "\"/mnt/daos_scm\"", "Where it is mounted."),
    optional("list", TEXTS, "[\"/dev/pmem0\"]", "The PMem device. Only for class dcpm."),
    defaulted(
        "hugepages_disabled",
        Shape::Bool,
        "false",
        "true",
        "Mount the RAM disk without transparent hugepages.",
    ),
];

/// Keys of one tier of block devices.
pub const BDEV: &[Key] = &[
    required(
        "class",
        Shape::OneOf(&["nvme", "file", "kdev"]),
        "\"nvme\"",
        "SSDs by PCI address, files, or block devices.",
    ),
    optional("list", TEXTS, "[\"0000:5e:00.0\"]", "The devices or files."),
    optional("from", Shape::Text, "\"nvme.numa0\"", "A list of the hw instead of `list`."),
    optional(
        "size",
        Shape::Size,
        "\"16GiB\"",
        "The size of each file in whole GiB; only for class file.",
    ),
    optional(
        "roles",
        Shape::List(&Shape::OneOf(&["wal", "meta", "data"])),
        "[\"wal\", \"meta\"]",
        "What the tier holds, for Metadata-on-SSD.",
    ),
    optional(
        "wal_meta",
        Shape::Integer(1, 64),
        "1",
        "Splits the list: the first N devices for wal and meta, the rest for data.",
    ),
    optional("busid_range", Shape::Text, "\"0x80-0x8f\"", "Only devices on these buses."),
];

/// Keys of a profile file, profiles/NAME.toml.
pub const PROFILE_FILE: &[Key] = os_keys![required(
    "description",
    Shape::Text,
    "\"Runs daos_server\"",
    "What the role is for, in one line."
),];

/// Keys under `[os]`, any of which may stand in a role or a node.
pub const OS: &[Key] = OS_CLUSTER;

/// Keys of a node block, all of them.
pub const NODE_KEYS: &[Key] = NODE;
