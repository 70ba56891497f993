//! The codes of all diagnostics nodeforge can give; one is never reused.
//!
//! `DAOS-n` is DAOS's own number. NF1xx: the cluster file; NF2xx: names and addresses;
//! NF3xx: templates and paths; NF4xx: secrets; NF5xx: hardware and advice.

use std::fmt;

/// The stable name of one kind of problem, such as `DAOS-706` or `NF101`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(&'static str);

impl Code {
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// A code and what it stands for.
#[derive(Clone, Copy, Debug)]
pub struct Meaning {
    pub code: Code,
    /// One line, lower case, no full stop.
    pub title: &'static str,
}

pub const SYNTAX: Code = Code("NF100");
pub const UNKNOWN_KEY: Code = Code("NF101");
pub const WRONG_TYPE: Code = Code("NF102");
pub const MISSING: Code = Code("NF103");
pub const NOT_ALLOWED: Code = Code("NF104");
pub const OUT_OF_RANGE: Code = Code("NF105");
pub const ROLE_CONFLICT: Code = Code("NF106");
pub const RANGE_CONFLICT: Code = Code("NF107");
pub const INCLUDE_CYCLE: Code = Code("NF108");
pub const UNREADABLE: Code = Code("NF109");
pub const BAD_RANGE: Code = Code("NF110");
pub const BAD_FORMAT: Code = Code("NF111");
pub const FACTS: Code = Code("NF112");
pub const GIVEN_TWICE: Code = Code("NF113");
pub const SURPLUS_ROWS: Code = Code("NF114");
pub const UNUSED_VARIABLE: Code = Code("NF115");
pub const UNKNOWN_CODE: Code = Code("NF117");
pub const NOT_IN_SET: Code = Code("NF118");
pub const UNUSED: Code = Code("NF119");
pub const EXPRESSION: Code = Code("NF120");
pub const BAD_VALUE: Code = Code("NF121");
pub const BAD_HOST_NAME: Code = Code("NF201");
pub const NAME_TWICE: Code = Code("NF202");
pub const MAC_TWICE: Code = Code("NF203");
pub const ADDRESS_TWICE: Code = Code("NF204");
pub const OUTSIDE_SUBNET: Code = Code("NF205");
pub const UNKNOWN_NAME: Code = Code("NF206");
pub const BAD_MAC: Code = Code("NF207");
pub const BAD_ADDRESS: Code = Code("NF208");
pub const KERNEL_NIC_NAME: Code = Code("NF209");
pub const BOOT_NIC: Code = Code("NF210");
pub const NO_FABRIC_ADDRESS: Code = Code("NF211");
pub const RESERVED_ADDRESS: Code = Code("NF213");
pub const RACK: Code = Code("NF214");
pub const BAD_URL: Code = Code("NF215");
pub const SERIAL_TWICE: Code = Code("NF216");
pub const REPO_ARCHIVE: Code = Code("NF217");
pub const TEMPLATE_SYNTAX: Code = Code("NF301");
pub const TEMPLATE_VALUE: Code = Code("NF302");
pub const PARTIAL_CYCLE: Code = Code("NF303");
pub const BAD_PATH: Code = Code("NF304");
pub const OVERLAY: Code = Code("NF305");
pub const UNKNOWN_OVERLAY: Code = Code("NF306");
pub const PATH_TWICE: Code = Code("NF307");
pub const UNSAFE_TEXT: Code = Code("NF308");
pub const INLINE_SECRET: Code = Code("NF401");
pub const SECRET_UNREADABLE: Code = Code("NF402");
pub const BAD_HASH: Code = Code("NF403");
pub const NO_CERTIFICATES: Code = Code("NF404");
pub const UNKNOWN_PACKAGE: Code = Code("NF501");
pub const NO_SUCH_PACKAGE: Code = Code("NF502");
pub const DISK_RULE: Code = Code("NF503");
pub const DATA_DISK: Code = Code("NF504");
pub const SUPPORT_MATRIX: Code = Code("NF505");
pub const VERBS_WITHOUT_OFED: Code = Code("NF506");
pub const NO_ADMIN: Code = Code("NF507");
pub const EMBEDDED_TOO_LARGE: Code = Code("NF508");
pub const OVERLAY_MODE: Code = Code("NF509");
pub const DAOS_VERSION: Code = Code("NF510");
pub const NOT_A_SERVER: Code = Code("NF511");
pub const SINGLE_ACCESS_POINT: Code = Code("NF512");
pub const SYSTEM_NAME: Code = Code("NF513");
pub const PROVIDER: Code = Code("NF514");
pub const BAD_PORT: Code = Code("NF515");
pub const PORT_OVERLAP: Code = Code("NF516");
pub const FRACTIONAL_SIZE: Code = Code("NF517");
pub const FORMAT_BY: Code = Code("NF518");
pub const VOLATILE_PATH: Code = Code("NF519");
pub const SWEPT_PATH: Code = Code("NF520");
pub const PATH_CLASH: Code = Code("NF521");
pub const LOG_LEVEL: Code = Code("NF522");
pub const TOO_FEW_HUGEPAGES: Code = Code("NF523");
pub const PAPER_MEMORY: Code = Code("NF524");
pub const USELESS_VARIABLE: Code = Code("NF525");
pub const UNSIGNED_PACKAGES: Code = Code("NF526");
pub const TOO_MANY_HELPERS: Code = Code("NF527");
pub const NO_CLIENT_FABRIC: Code = Code("NF528");
pub const IGNORED: Code = Code("NF529");
pub const DEVICE_TWICE: Code = Code("NF530");
pub const FILE_TOO_LARGE: Code = Code("NF531");
pub const TOO_FEW_CORES: Code = Code("NF532");
pub const NUMA_MISMATCH: Code = Code("NF533");
pub const UNEVEN_TARGETS: Code = Code("NF534");
pub const BUSID_RANGE: Code = Code("NF535");
pub const NO_DOMAIN: Code = Code("NF537");
pub const DEVICE_PATH: Code = Code("NF538");
pub const ENGINE_VARIABLE: Code = Code("NF539");
pub const UNKNOWN_OWNER: Code = Code("NF540");
pub const TOO_MANY_TARGETS: Code = Code("NF541");
pub const LABEL_TWICE: Code = Code("NF550");
pub const POOL_OPTIONS: Code = Code("NF551");
pub const POOL_RANKS: Code = Code("NF552");
pub const CONTAINERS_WITHOUT_AGENT: Code = Code("NF553");
pub const CONTAINER_OWNER: Code = Code("NF554");
pub const POOL_PROPERTY: Code = Code("NF555");
pub const NO_VM: Code = Code("NF560");
pub const NOT_EMULATED: Code = Code("NF561");

pub const LOW_MEMORY: Code = Code("DAOS-214");
pub const UNKNOWN_ROLE: Code = Code("DAOS-308");
pub const MIXED_TIERS: Code = Code("DAOS-309");
pub const ROLES_WITH_DCPM: Code = Code("DAOS-312");
pub const ROLES_NOT_ONCE: Code = Code("DAOS-313");
pub const ROLES_MISSING: Code = Code("DAOS-314");
pub const TIERS_WITHOUT_ROLES: Code = Code("DAOS-315");
pub const TOO_MANY_TIERS: Code = Code("DAOS-316");
pub const METADATA_WITHOUT_ROLES: Code = Code("DAOS-317");
pub const ROLES_WITHOUT_METADATA: Code = Code("DAOS-318");
pub const WAL_DATA_WITHOUT_META: Code = Code("DAOS-319");
pub const EMPTY_HOST_LIST: Code = Code("DAOS-503");
pub const NO_IOMMU: Code = Code("DAOS-602");
pub const WRONG_SYSTEM: Code = Code("DAOS-603");
pub const FABRIC_CLASSES: Code = Code("DAOS-613");
pub const VFIO_DISABLED: Code = Code("DAOS-614");
pub const TRANSPARENT_HUGEPAGES: Code = Code("DAOS-621");
pub const BAD_CONFIG: Code = Code("DAOS-701");
pub const BAD_ACCESS_POINTS: Code = Code("DAOS-705");
pub const EVEN_ACCESS_POINTS: Code = Code("DAOS-706");
pub const NO_PROVIDER: Code = Code("DAOS-707");
pub const NO_ENGINES: Code = Code("DAOS-708");
pub const SAME_FABRIC: Code = Code("DAOS-709");
pub const SAME_LOG_FILE: Code = Code("DAOS-710");
pub const SAME_SCM_MOUNT: Code = Code("DAOS-711");
pub const SAME_PMEM: Code = Code("DAOS-712");
pub const SAME_BDEV: Code = Code("DAOS-713");
pub const BDEV_COUNTS: Code = Code("DAOS-714");
pub const TARGET_COUNTS: Code = Code("DAOS-715");
pub const HELPER_COUNTS: Code = Code("DAOS-716");
pub const FAULT_PATH: Code = Code("DAOS-717");
pub const FAULT_PATH_AND_CALLBACK: Code = Code("DAOS-722");
pub const FAULT_PATH_DEPTH: Code = Code("DAOS-724");
pub const HUGEPAGES_RANGE: Code = Code("DAOS-725");
pub const HUGEPAGES_DISABLED: Code = Code("DAOS-726");
pub const NUMA_IMBALANCE: Code = Code("DAOS-728");
pub const METADATA_NO_PATH: Code = Code("DAOS-729");
pub const SCM_TOO_SMALL: Code = Code("DAOS-730");
pub const SCM_TOO_LARGE: Code = Code("DAOS-731");
pub const SCM_CLASSES: Code = Code("DAOS-732");
pub const ENGINE_ROLES: Code = Code("DAOS-733");
pub const NO_RESERVED_RAM: Code = Code("DAOS-734");
pub const SCM_HUGEPAGES: Code = Code("DAOS-736");
pub const METADATA_FILESYSTEM: Code = Code("DAOS-1001");

/// Codes that are set aside and that nothing gives yet.
pub const RESERVED: &[Code] = &[OVERLAY_MODE];

/// Every code that starts with NF, in order.
pub const MEANINGS: &[Meaning] = &[
    Meaning { code: SYNTAX, title: "the file is not well-formed TOML" },
    Meaning { code: UNKNOWN_KEY, title: "a key that the cluster file does not know" },
    Meaning { code: WRONG_TYPE, title: "a value of the wrong type" },
    Meaning { code: MISSING, title: "a value that must be given is missing" },
    Meaning { code: NOT_ALLOWED, title: "a value that is not one of those allowed" },
    Meaning { code: OUT_OF_RANGE, title: "a number outside its range" },
    Meaning { code: ROLE_CONFLICT, title: "two roles of one node set one key differently" },
    Meaning { code: RANGE_CONFLICT, title: "two ranges with equally many nodes set one key" },
    Meaning { code: INCLUDE_CYCLE, title: "a file includes itself" },
    Meaning { code: UNREADABLE, title: "a file that the cluster file names cannot be read" },
    Meaning { code: BAD_RANGE, title: "a range of nodes that cannot be read" },
    Meaning { code: BAD_FORMAT, title: "a format number this nodeforge does not know" },
    Meaning {
        code: FACTS,
        title: "the inventory lacks a column, a row or a value, or has one twice",
    },
    Meaning { code: GIVEN_TWICE, title: "a value stands in the cluster file and in the inventory" },
    Meaning { code: SURPLUS_ROWS, title: "rows of the inventory that belong to no node" },
    Meaning { code: UNUSED_VARIABLE, title: "a variable that no template uses" },
    Meaning {
        code: UNKNOWN_CODE,
        title: "`allow` names a code that does not exist or allows nothing",
    },
    Meaning { code: NOT_IN_SET, title: "`remove` names something that is not in the set" },
    Meaning { code: UNUSED, title: "something that is defined and never used" },
    Meaning { code: EXPRESSION, title: "an expression in braces that cannot be computed" },
    Meaning { code: BAD_VALUE, title: "a value that cannot be read as what it stands for" },
    Meaning { code: BAD_HOST_NAME, title: "a name that is no host name" },
    Meaning { code: NAME_TWICE, title: "a name that two nodes share" },
    Meaning { code: MAC_TWICE, title: "a hardware address that two NICs share" },
    Meaning { code: ADDRESS_TWICE, title: "an address that two NICs share" },
    Meaning { code: OUTSIDE_SUBNET, title: "an address outside the subnet of its network" },
    Meaning { code: UNKNOWN_NAME, title: "a name that nothing in the file defines" },
    Meaning { code: BAD_MAC, title: "a hardware address that cannot be read" },
    Meaning { code: BAD_ADDRESS, title: "an IP address or a subnet that cannot be read" },
    Meaning { code: KERNEL_NIC_NAME, title: "an interface name that cannot be given" },
    Meaning { code: BOOT_NIC, title: "a node without exactly one boot NIC that can be told apart" },
    Meaning { code: NO_FABRIC_ADDRESS, title: "a fabric NIC without an address" },
    Meaning { code: RESERVED_ADDRESS, title: "an address that a network keeps for itself" },
    Meaning { code: RACK, title: "racks that do not fit their nodes" },
    Meaning { code: BAD_URL, title: "a URL that cannot be used" },
    Meaning { code: SERIAL_TWICE, title: "a serial number or GUID that two nodes share" },
    Meaning { code: REPO_ARCHIVE, title: "an archive of packages that cannot be used" },
    Meaning { code: TEMPLATE_SYNTAX, title: "a template that cannot be read" },
    Meaning { code: TEMPLATE_VALUE, title: "a template that names an undefined value" },
    Meaning { code: PARTIAL_CYCLE, title: "templates that include each other in a circle" },
    Meaning { code: BAD_PATH, title: "a path that would leave the image" },
    Meaning { code: OVERLAY, title: "an overlay.toml that does not fit its files" },
    Meaning { code: UNKNOWN_OVERLAY, title: "an overlay or profile that does not exist" },
    Meaning { code: PATH_TWICE, title: "two overlays of one node want one path" },
    Meaning {
        code: UNSAFE_TEXT,
        title: "text with a character that could change what a file means",
    },
    Meaning { code: INLINE_SECRET, title: "a secret written into the cluster file" },
    Meaning { code: SECRET_UNREADABLE, title: "a secret that cannot be read" },
    Meaning { code: BAD_HASH, title: "a password hash that EL8 does not know" },
    Meaning { code: NO_CERTIFICATES, title: "certificates that are asked for and not there" },
    Meaning { code: UNKNOWN_PACKAGE, title: "a package name that is not known in EL8" },
    Meaning { code: NO_SUCH_PACKAGE, title: "a package that no configured repository has" },
    Meaning {
        code: DISK_RULE,
        title: "a rule for the install disk that may match no disk or several",
    },
    Meaning { code: DATA_DISK, title: "an install disk that is one of the data disks" },
    Meaning { code: SUPPORT_MATRIX, title: "a release that DAOS has not been validated on" },
    Meaning { code: VERBS_WITHOUT_OFED, title: "InfiniBand verbs without the MLNX_OFED packages" },
    Meaning { code: NO_ADMIN, title: "a cluster in which no node can format the storage" },
    Meaning { code: EMBEDDED_TOO_LARGE, title: "an embedded overlay above 1 MiB" },
    Meaning { code: OVERLAY_MODE, title: "settings of [boot] that do not go together" },
    Meaning { code: DAOS_VERSION, title: "a DAOS version whose rules are not known" },
    Meaning { code: NOT_A_SERVER, title: "an access point that is not a server" },
    Meaning { code: SINGLE_ACCESS_POINT, title: "a single access point on bare metal" },
    Meaning { code: SYSTEM_NAME, title: "a system name that DAOS cannot take" },
    Meaning { code: PROVIDER, title: "a fabric provider that DAOS does not have" },
    Meaning { code: BAD_PORT, title: "a port that no service can have, or that two want" },
    Meaning { code: PORT_OVERLAP, title: "two engines whose port ranges overlap" },
    Meaning { code: FRACTIONAL_SIZE, title: "a size that is not a whole number of GiB" },
    Meaning { code: FORMAT_BY, title: "a formatting node that is not an admin" },
    Meaning { code: VOLATILE_PATH, title: "data on a path that a reboot empties" },
    Meaning { code: SWEPT_PATH, title: "data in a folder that is swept after 30 days" },
    Meaning { code: PATH_CLASH, title: "a path inside another one that is mounted over it" },
    Meaning { code: LOG_LEVEL, title: "a log level that DAOS does not have" },
    Meaning { code: TOO_FEW_HUGEPAGES, title: "fewer hugepages than the engines need" },
    Meaning { code: PAPER_MEMORY, title: "memory that is enough only on paper" },
    Meaning { code: USELESS_VARIABLE, title: "an environment variable that has no effect" },
    Meaning { code: UNSIGNED_PACKAGES, title: "DAOS packages whose signatures are not checked" },
    Meaning { code: TOO_MANY_HELPERS, title: "more helpers than an engine uses" },
    Meaning { code: NO_CLIENT_FABRIC, title: "a client without a NIC on the engines' networks" },
    Meaning { code: IGNORED, title: "a setting that DAOS ignores" },
    Meaning { code: DEVICE_TWICE, title: "one device in two places of an engine" },
    Meaning { code: FILE_TOO_LARGE, title: "files for data that the disk cannot hold" },
    Meaning { code: TOO_FEW_CORES, title: "an engine with more threads than cores" },
    Meaning { code: NUMA_MISMATCH, title: "an engine and its NIC on different NUMA nodes" },
    Meaning { code: UNEVEN_TARGETS, title: "targets that do not spread evenly over the devices" },
    Meaning { code: BUSID_RANGE, title: "a range of PCI buses that cannot be read" },
    Meaning { code: NO_DOMAIN, title: "a fabric NIC whose domain is not given" },
    Meaning { code: DEVICE_PATH, title: "a block device that is not under /dev" },
    Meaning { code: ENGINE_VARIABLE, title: "an environment variable that keeps engines down" },
    Meaning { code: UNKNOWN_OWNER, title: "a file whose owner no package of the node creates" },
    Meaning { code: TOO_MANY_TARGETS, title: "more targets than the devices of an engine serve" },
    Meaning { code: LABEL_TWICE, title: "two pools or containers of one name" },
    Meaning { code: POOL_OPTIONS, title: "settings of a pool that dmg does not take together" },
    Meaning { code: POOL_RANKS, title: "ranks of a pool that cannot be" },
    Meaning {
        code: CONTAINERS_WITHOUT_AGENT,
        title: "containers to be made by an admin that is not a client",
    },
    Meaning { code: CONTAINER_OWNER, title: "containers in a pool that root may not use" },
    Meaning { code: POOL_PROPERTY, title: "an unknown property of a pool" },
    Meaning { code: NO_VM, title: "a lab of hardware that is no virtual machine" },
    Meaning { code: NOT_EMULATED, title: "hardware that QEMU cannot be given" },
];

/// Every code of DAOS's own that nodeforge knows, by number (DAOS `src/control/fault/code/codes.go`).
pub const DAOS_MEANINGS: &[Meaning] = &[
    Meaning { code: LOW_MEMORY, title: "less memory than the smallest RAM disks need" },
    Meaning { code: UNKNOWN_ROLE, title: "a bdev role that does not exist" },
    Meaning { code: MIXED_TIERS, title: "SSDs and emulated devices in one engine" },
    Meaning { code: ROLES_WITH_DCPM, title: "bdev roles on an engine with persistent memory" },
    Meaning { code: ROLES_NOT_ONCE, title: "a bdev role that no tier or several tiers have" },
    Meaning { code: ROLES_MISSING, title: "bdev roles on some tiers and not on all" },
    Meaning { code: TIERS_WITHOUT_ROLES, title: "several bdev tiers without roles" },
    Meaning { code: TOO_MANY_TIERS, title: "more than three bdev tiers with roles" },
    Meaning { code: METADATA_WITHOUT_ROLES, title: "control_metadata without bdev roles" },
    Meaning { code: ROLES_WITHOUT_METADATA, title: "bdev roles without control_metadata" },
    Meaning { code: WAL_DATA_WITHOUT_META, title: "wal and data on a tier without meta" },
    Meaning { code: EMPTY_HOST_LIST, title: "a host list without servers" },
    Meaning { code: NO_IOMMU, title: "SSDs for an unprivileged daos_server without an IOMMU" },
    Meaning { code: WRONG_SYSTEM, title: "system names that differ" },
    Meaning { code: FABRIC_CLASSES, title: "engines on InfiniBand and on Ethernet" },
    Meaning { code: VFIO_DISABLED, title: "SSDs for an unprivileged daos_server without VFIO" },
    Meaning { code: TRANSPARENT_HUGEPAGES, title: "transparent hugepages on a server" },
    Meaning { code: BAD_CONFIG, title: "a configuration that DAOS cannot use" },
    Meaning { code: BAD_ACCESS_POINTS, title: "a list of access points that cannot be used" },
    Meaning { code: EVEN_ACCESS_POINTS, title: "an even number of access points" },
    Meaning { code: NO_PROVIDER, title: "no fabric provider" },
    Meaning { code: NO_ENGINES, title: "a server without engines" },
    Meaning { code: SAME_FABRIC, title: "two engines on one interface and port" },
    Meaning { code: SAME_LOG_FILE, title: "two engines with one log file" },
    Meaning { code: SAME_SCM_MOUNT, title: "two engines with one scm mount" },
    Meaning { code: SAME_PMEM, title: "two engines with one PMem device" },
    Meaning { code: SAME_BDEV, title: "two engines with one block device" },
    Meaning { code: BDEV_COUNTS, title: "engines with different numbers of block devices" },
    Meaning { code: TARGET_COUNTS, title: "engines with different numbers of targets" },
    Meaning { code: HELPER_COUNTS, title: "engines with different numbers of helpers" },
    Meaning { code: FAULT_PATH, title: "a fault path that cannot be read" },
    Meaning { code: FAULT_PATH_AND_CALLBACK, title: "a fault path and a fault callback" },
    Meaning { code: FAULT_PATH_DEPTH, title: "a fault path of more than two levels" },
    Meaning { code: HUGEPAGES_RANGE, title: "a number of hugepages outside its range" },
    Meaning { code: HUGEPAGES_DISABLED, title: "block devices without hugepages" },
    Meaning { code: NUMA_IMBALANCE, title: "NUMA nodes with different numbers of engines" },
    Meaning { code: METADATA_NO_PATH, title: "a control_metadata device without a path" },
    Meaning { code: SCM_TOO_SMALL, title: "a RAM disk below 4 GiB" },
    Meaning { code: SCM_TOO_LARGE, title: "a RAM disk larger than the memory allows" },
    Meaning { code: SCM_CLASSES, title: "engines with different scm classes" },
    Meaning { code: ENGINE_ROLES, title: "bdev roles on some engines and not on all" },
    Meaning { code: NO_RESERVED_RAM, title: "less than 1 GiB reserved for the system" },
    Meaning { code: SCM_HUGEPAGES, title: "engines that mount their RAM disks differently" },
    Meaning {
        code: METADATA_FILESYSTEM,
        title: "control_metadata on a filesystem that cannot hold it",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_listed_once_and_in_order() {
        let listed: Vec<Code> = MEANINGS.iter().map(|meaning| meaning.code).collect();
        assert!(listed.is_sorted_by(|a, b| a < b), "{listed:?}");
        let number = |code: Code| code.as_str().strip_prefix("DAOS-").unwrap().parse().unwrap();
        let listed: Vec<u32> = DAOS_MEANINGS.iter().map(|meaning| number(meaning.code)).collect();
        assert!(listed.is_sorted_by(|a, b| a < b), "{listed:?}");
    }
}
