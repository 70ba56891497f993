//! What differs between releases of DAOS, as data.
//!
//! A new release is a new row of [`RELEASES`]; nothing else compares version numbers.

use crate::units::ByteSize;

/// What one release of DAOS does, and the later ones up to the next row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release {
    /// Major, minor, patch: the first version that behaves so.
    pub since: (u32, u32, u32),
    /// The default of `system_ram_reserved` (`server/storage/scm.go`, `DefaultSysMemRsvd`).
    pub system_ram_reserved: ByteSize,
    /// How the list of management service replicas is called.
    pub replicas_key: ReplicasKey,
    /// How hot plug of SSDs is asked for.
    pub hotplug_key: HotplugKey,
    /// Whether an engine with one target and no meta role counts as two for hugepages
    /// (`server/config/server.go`, `SetNrHugepages`).
    pub lone_target: LoneTarget,
    /// What daos_server does where transparent hugepages are on.
    pub transparent_hugepages: TransparentHugepages,
    /// Which tiers cannot do without hugepages (code 726).
    pub needs_hugepages: NeedsHugepages,
    /// What daos_server asks of the variables it hands to engines.
    pub engine_variables: EngineVariables,
}

/// What daos_server checks in an engine's environment before it starts it
/// (`server/engine/config.go`, `UpdatePMDKEnvars`, `UpdateABTEnvarsUCX`,
/// `UpdateABTEnvarsMdOnSsd`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineVariables {
    /// PMEMOBJ_CONF may not set what DAOS sets itself.
    pub pmemobj_conf: PmemobjConf,
    /// The least ABT_THREAD_STACKSIZE, in bytes, of engines with PMem, on UCX, and with
    /// Metadata-on-SSD; 0 where nothing is asked.
    pub min_stack_dcpm: u64,
    pub min_stack_ucx: u64,
    pub min_stack_md_on_ssd: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PmemobjConf {
    Unchecked,
    /// `sds.at_create` belongs to DAOS: never set for PMem, never 1 for RAM.
    Checked,
}

/// The key of the access points in daos_server.yml.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicasKey {
    AccessPoints,
    MgmtSvcReplicas,
}

/// The key for hot plug in daos_server.yml, which changed its sense in 2.8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HotplugKey {
    EnableHotplug,
    DisableHotplug,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoneTarget {
    CountsOnce,
    CountsTwice,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransparentHugepages {
    Tolerated,
    /// Code 621.
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeedsHugepages {
    AnyBdev,
    NvmeOnly,
}

const V2_6_0: Release = Release {
    since: (2, 6, 0),
    system_ram_reserved: ByteSize::from_gib(16),
    replicas_key: ReplicasKey::AccessPoints,
    hotplug_key: HotplugKey::EnableHotplug,
    lone_target: LoneTarget::CountsOnce,
    transparent_hugepages: TransparentHugepages::Tolerated,
    needs_hugepages: NeedsHugepages::AnyBdev,
    engine_variables: EngineVariables {
        pmemobj_conf: PmemobjConf::Unchecked,
        min_stack_dcpm: 0,
        min_stack_ucx: 0,
        min_stack_md_on_ssd: 0,
    },
};

const V2_6_2: Release = Release {
    since: (2, 6, 2),
    lone_target: LoneTarget::CountsTwice,
    engine_variables: EngineVariables {
        pmemobj_conf: PmemobjConf::Checked,
        min_stack_dcpm: 20480,
        ..V2_6_0.engine_variables
    },
    ..V2_6_0
};

const V2_6_5: Release = Release {
    since: (2, 6, 5),
    transparent_hugepages: TransparentHugepages::Refused,
    engine_variables: EngineVariables { min_stack_ucx: 32768, ..V2_6_2.engine_variables },
    ..V2_6_2
};

const V2_8_0: Release = Release {
    since: (2, 8, 0),
    system_ram_reserved: ByteSize::from_gib(64),
    replicas_key: ReplicasKey::MgmtSvcReplicas,
    hotplug_key: HotplugKey::DisableHotplug,
    needs_hugepages: NeedsHugepages::NvmeOnly,
    engine_variables: EngineVariables { min_stack_md_on_ssd: 24576, ..V2_6_5.engine_variables },
    ..V2_6_5
};

/// Every release with rules of its own, oldest first.
pub const RELEASES: [Release; 4] = [V2_6_0, V2_6_2, V2_6_5, V2_8_0];

/// The series whose files and formulas were read; versions outside are not guessed at.
const KNOWN_SERIES: [(u32, u32); 2] = [(2, 6), (2, 8)];

/// The rules of `version`, such as `2.6.5`; `None` for what is no version or not known.
pub fn find(version: &str) -> Option<&'static Release> {
    let version = parse(version)?;
    if !KNOWN_SERIES.contains(&(version.0, version.1)) {
        return None;
    }
    RELEASES.iter().rev().find(|release| release.since <= version)
}

/// The rules of `version`, or those of the oldest release where it is not known: so that the
/// other rules can still be checked after [`find`] has been reported.
pub fn find_or_oldest(version: &str) -> &'static Release {
    find(version).unwrap_or(&RELEASES[0])
}

fn parse(version: &str) -> Option<(u32, u32, u32)> {
    let is_number =
        |digits: &&str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let mut numbers = version.split('.').map(|digits| Some(digits).filter(is_number)?.parse().ok());
    let parsed = (numbers.next()??, numbers.next()??, numbers.next()??);
    numbers.next().is_none().then_some(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_follows_the_last_release_that_changed_something() {
        for (version, since) in [
            ("2.6.0", Some((2, 6, 0))),
            ("2.6.1", Some((2, 6, 0))),
            ("2.6.3", Some((2, 6, 2))),
            ("2.6.5", Some((2, 6, 5))),
            ("2.6.9", Some((2, 6, 5))),
            ("2.8.0", Some((2, 8, 0))),
            ("2.4.2", None),
            ("2.7.101", None),
            ("3.0.0", None),
            ("2.6", None),
            ("2.6.0-rc1", None),
            ("2.6.+1", None),
            ("2.6.0.1", None),
        ] {
            assert_eq!(find(version).map(|release| release.since), since, "of {version:?}");
        }
    }
}
