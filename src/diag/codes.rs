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
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_listed_once_and_in_order() {
        let listed: Vec<Code> = MEANINGS.iter().map(|meaning| meaning.code).collect();
        assert!(listed.is_sorted_by(|a, b| a < b), "{listed:?}");
    }
}
