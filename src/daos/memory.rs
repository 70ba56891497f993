//! How much memory a server needs and how large its ram-disks can be.
//!
//! The formulas are DAOS's own (`server/config/server.go`, `SetNrHugepages`;
//! `server/storage/scm.go`, `CalcRamdiskSize` and `CalcMemForRamdiskSize`), so that a size
//! rendered here is one that daos_server accepts. MemTotal, which they start from, is not
//! known before a node has booted: [`mem_total`] estimates it from below.

use std::fmt;

use crate::cluster::{Daos, Engine, Hw, Kind, ScmClass, ScmSize};
use crate::daos::versions::{self, LoneTarget, Release};
use crate::units::ByteSize;

/// The size of the hugepages DAOS uses, x86-64's default.
pub const HUGEPAGE: ByteSize = ByteSize::from_mib(2);

/// The smallest ram-disk (`MinRamdiskMem`; codes 214 and 730).
pub const MIN_RAMDISK: ByteSize = ByteSize::from_gib(4);

/// What DAOS reserves per engine, at least (`DefaultEngineMemRsvd`).
const ENGINE_RESERVE: ByteSize = ByteSize::from_gib(1);

/// What DAOS reserves per target of an engine (`DefaultTgtMemRsvd`).
const TARGET_RESERVE: ByteSize = ByteSize::from_mib(128);

/// Hugepage memory per target and per metadata service (`memHugepageMinPerTarget`).
const HUGEPAGES_PER_STREAM: u64 = ByteSize::from_gib(1).bytes() / HUGEPAGE.bytes();

/// What /proc/meminfo calls MemTotal on a node, which is less than its DIMMs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemTotal {
    /// The cluster file says it.
    Given(ByteSize),
    /// The DIMMs less [`margin`].
    Estimated { dimms: ByteSize },
}

impl MemTotal {
    pub fn size(self) -> ByteSize {
        match self {
            MemTotal::Given(size) => size,
            MemTotal::Estimated { dimms } => dimms.saturating_sub(margin(dimms)),
        }
    }
}

impl fmt::Display for MemTotal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MemTotal::Given(size) => write!(f, "{}", in_gib(*size)),
            MemTotal::Estimated { dimms } => write!(
                f,
                "{} (estimated: {} of memory less {} for the kernel and crashkernel)",
                in_gib(self.size()),
                in_gib(*dimms),
                in_gib(margin(*dimms))
            ),
        }
    }
}

/// MemTotal of a box: as the cluster file says, or estimated from its DIMMs.
pub fn mem_total(hw: &Hw) -> MemTotal {
    match &hw.mem_total {
        Some(given) => MemTotal::Given(given.value),
        None => MemTotal::Estimated { dimms: hw.memory.value },
    }
}

/// How much of the DIMMs never shows in MemTotal; an estimate from above, because a scm size
/// that is too large keeps an engine down while one a little small costs nothing.
///
/// Four parts: one page structure of 64 bytes for each page of 4 KiB (1/64); firmware and
/// per-CPU areas, which grow with the box (1/1024); the kernel's image and early
/// allocations (256 MiB, of which a small VM uses about half); and what EL8's
/// `crashkernel=auto` takes (kexec-tools 2.0.26: 160 MiB from 1 GiB on, 192 MiB from 4 GiB
/// on, 256 MiB from 64 GiB on, 512 MiB from 1 TiB on).
pub fn margin(dimms: ByteSize) -> ByteSize {
    let page_structures = ByteSize::from_bytes(dimms.bytes() / 64);
    let firmware = ByteSize::from_bytes(dimms.bytes() / 1024);
    page_structures + firmware + ByteSize::from_mib(256) + crashkernel(dimms)
}

/// What EL8's `crashkernel=auto` takes of a box with `dimms`.
pub fn crashkernel(dimms: ByteSize) -> ByteSize {
    match dimms.gib() {
        0 => ByteSize::default(),
        1..4 => ByteSize::from_mib(160),
        4..64 => ByteSize::from_mib(192),
        64..1024 => ByteSize::from_mib(256),
        _ => ByteSize::from_mib(512),
    }
}

/// What the formulas read of one engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineShape {
    pub targets: u32,
    pub bdevs: Bdevs,
}

/// What an engine has below its first tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bdevs {
    None,
    /// SSDs, files or kernel devices.
    Some,
    /// The same, with a tier that holds metadata (Metadata-on-SSD).
    WithMeta,
}

impl EngineShape {
    pub fn of(engine: &Engine) -> Self {
        let has_bdevs = engine.bdevs.iter().any(|bdev| !bdev.list.is_empty());
        let bdevs = match (has_bdevs, engine.has_meta_role()) {
            (false, _) => Bdevs::None,
            (true, false) => Bdevs::Some,
            (true, true) => Bdevs::WithMeta,
        };
        Self { targets: engine.targets.value, bdevs }
    }

    /// How many GiB of hugepages it needs: one for each target and one for the metadata
    /// service.
    fn n_streams(self, release: &Release) -> u64 {
        let targets = u64::from(self.targets);
        match self.bdevs {
            Bdevs::None => 0,
            Bdevs::WithMeta => targets + 1,
            Bdevs::Some if targets == 1 && release.lone_target == LoneTarget::CountsTwice => 2,
            Bdevs::Some => targets,
        }
    }
}

/// The hugepages DAOS asks for when `nr_hugepages` is 0, all engines of a node together.
pub fn nr_hugepages(release: &Release, engines: &[EngineShape]) -> u64 {
    engines.iter().map(|engine| engine.n_streams(release)).sum::<u64>() * HUGEPAGES_PER_STREAM
}

/// What DAOS takes from a node's memory before it makes ram-disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// As configured, or as DAOS computes them.
    pub nr_hugepages: u64,
    pub system_ram_reserved: ByteSize,
    /// For each engine; DAOS takes the targets of the first one for all.
    pub engine_reserve: ByteSize,
    pub n_engines: u64,
}

impl Demand {
    /// The demand of `engines` under `daos`, by the formulas of its version.
    pub fn of(daos: &Daos, engines: &[Engine]) -> Self {
        let release = versions::find_or_oldest(&daos.version);
        let shapes: Vec<EngineShape> = engines.iter().map(EngineShape::of).collect();
        let mut demand = Self::by_formula(release, &shapes, daos.system_ram_reserved.value);
        match &daos.nr_hugepages {
            _ if daos.disable_hugepages.value => demand.nr_hugepages = 0,
            // DAOS takes 0 as "compute it".
            Some(configured) if configured.value > 0 => demand.nr_hugepages = configured.value,
            _ => {}
        }
        demand
    }

    /// The demand with `nr_hugepages` left to DAOS.
    pub fn by_formula(
        release: &Release,
        engines: &[EngineShape],
        system_ram_reserved: ByteSize,
    ) -> Self {
        let targets = engines.first().map_or(0, |engine| u64::from(engine.targets));
        Self {
            nr_hugepages: nr_hugepages(release, engines),
            system_ram_reserved,
            engine_reserve: (TARGET_RESERVE * targets).max(ENGINE_RESERVE),
            n_engines: engines.len() as u64,
        }
    }

    pub fn hugepage_memory(&self) -> ByteSize {
        HUGEPAGE * self.nr_hugepages
    }

    fn reserved(&self) -> ByteSize {
        self.hugepage_memory() + self.system_ram_reserved + self.engine_reserve * self.n_engines
    }

    /// The largest ram-disk each engine can have; `None` where not even the reserves fit, or
    /// there is no engine.
    pub fn max_ramdisk(&self, mem_total: ByteSize) -> Option<ByteSize> {
        let left = mem_total.bytes().checked_sub(self.reserved().bytes())?;
        left.checked_div(self.n_engines).map(ByteSize::from_bytes)
    }

    /// The MemTotal from which on each engine can have a ram-disk of `ramdisk`.
    pub fn min_mem_total(&self, ramdisk: ByteSize) -> ByteSize {
        self.reserved() + ramdisk * self.n_engines
    }

    /// The sum behind [`min_mem_total`](Self::min_mem_total), written out.
    pub fn sum(&self, ramdisk: ByteSize) -> String {
        let engines = match self.n_engines {
            1 => "1 engine".to_owned(),
            n => format!("{n} engines"),
        };
        format!(
            "{} hugepages of 2 MiB = {}, + {} system_ram_reserved, + {engines} × ({} reserve + {} \
             scm) = {}",
            self.nr_hugepages,
            in_gib(self.hugepage_memory()),
            in_gib(self.system_ram_reserved),
            in_gib(self.engine_reserve),
            in_gib(ramdisk),
            in_gib(self.min_mem_total(ramdisk))
        )
    }
}

/// The `scm_size` to render for `engine`, in GiB; `None` leaves it out: for class dcpm, and
/// where memory is too small for any, so that DAOS itself says so.
pub fn scm_size_gib(daos: &Daos, kind: &Kind, engine: &Engine) -> Option<u64> {
    if engine.scm.class.value != ScmClass::Ram {
        return None;
    }
    match engine.scm.size.as_ref()?.value {
        ScmSize::Fixed(size) => Some(size.gib()),
        ScmSize::Auto => auto_scm_size(daos, kind).map(ByteSize::gib),
    }
}

/// The size of each ram-disk of "auto": the largest that DAOS would allow, in whole GiB;
/// `None` where that is less than it accepts.
pub fn auto_scm_size(daos: &Daos, kind: &Kind) -> Option<ByteSize> {
    let max = Demand::of(daos, &kind.engines).max_ramdisk(mem_total(&kind.hw).size())?;
    (max >= MIN_RAMDISK).then(|| ByteSize::from_gib(max.gib()))
}

/// `size` in GiB with at most one decimal, rounded down: `11.3 GiB`.
pub fn in_gib(size: ByteSize) -> String {
    let tenths = size.bytes() / (ByteSize::from_gib(1).bytes() / 10);
    match tenths % 10 {
        0 => format!("{} GiB", tenths / 10),
        rest => format!("{}.{rest} GiB", tenths / 10),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GIB: fn(u64) -> ByteSize = ByteSize::from_gib;

    fn release(version: &str) -> &'static Release {
        versions::find(version).unwrap()
    }

    fn engines(n: usize, targets: u32, bdevs: Bdevs) -> Vec<EngineShape> {
        vec![EngineShape { targets, bdevs }; n]
    }

    /// The figures that the real daos_server 2.6.0 gave.
    #[test]
    fn the_formulas_give_what_daos_server_gave() {
        for (n_engines, targets, reserved, scm, hugepages, min) in [
            (1, 1, 16, 4, 1024, 23),
            (1, 1, 1, 4, 1024, 8),
            (1, 4, 16, 16, 2560, 38),
            (1, 16, 16, 16, 8704, 51),
            (2, 8, 16, 16, 9216, 68),
        ] {
            let shapes = engines(n_engines, targets, Bdevs::WithMeta);
            let demand = Demand::by_formula(release("2.6.0"), &shapes, GIB(reserved));
            let case = format!("{n_engines} × {targets} targets, {reserved} GiB reserved");
            assert_eq!(demand.nr_hugepages, hugepages, "{case}");
            assert_eq!(demand.min_mem_total(GIB(scm)), GIB(min), "{case}");
            assert_eq!(demand.max_ramdisk(GIB(min)), Some(GIB(scm)), "{case}");
        }
    }

    #[test]
    fn a_lone_target_without_meta_counts_twice_from_2_6_2_on() {
        let shapes = engines(1, 1, Bdevs::Some);
        for (version, pages) in [("2.6.0", 512), ("2.6.2", 1024), ("2.6.5", 1024), ("2.8.0", 1024)]
        {
            assert_eq!(nr_hugepages(release(version), &shapes), pages, "in {version}");
        }
        assert_eq!(nr_hugepages(release("2.6.5"), &engines(1, 1, Bdevs::WithMeta)), 1024);
        assert_eq!(nr_hugepages(release("2.6.5"), &engines(2, 4, Bdevs::None)), 0);
    }

    #[test]
    fn the_sum_is_written_out() {
        let demand = Demand::by_formula(release("2.6.0"), &engines(1, 1, Bdevs::WithMeta), GIB(16));
        assert_eq!(
            demand.sum(GIB(4)),
            "1024 hugepages of 2 MiB = 2 GiB, + 16 GiB system_ram_reserved, + 1 engine × (1 GiB \
             reserve + 4 GiB scm) = 23 GiB"
        );
    }

    #[test]
    fn memory_that_does_not_hold_the_reserves_has_no_ramdisk() {
        let demand = Demand::by_formula(release("2.6.0"), &engines(1, 1, Bdevs::WithMeta), GIB(16));
        assert_eq!(demand.max_ramdisk(GIB(18)), None);
        assert_eq!(demand.max_ramdisk(GIB(19)), Some(GIB(0)));
        assert_eq!(Demand::by_formula(release("2.6.0"), &[], GIB(16)).max_ramdisk(GIB(99)), None);
    }

    #[test]
    fn the_margin_grows_with_the_box() {
        for (dimms, left) in
            [(9, "8.4 GiB"), (12, "11.3 GiB"), (256, "251.2 GiB"), (1024, "1006.2 GiB")]
        {
            let mem_total = MemTotal::Estimated { dimms: GIB(dimms) };
            assert_eq!(in_gib(mem_total.size()), left, "of {dimms} GiB");
        }
    }

    fn any_bdevs() -> impl Strategy<Value = Bdevs> {
        prop_oneof![Just(Bdevs::None), Just(Bdevs::Some), Just(Bdevs::WithMeta)]
    }

    fn any_version() -> impl Strategy<Value = &'static str> {
        prop_oneof![Just("2.6.0"), Just("2.6.5"), Just("2.8.0")]
    }

    proptest! {
        #[test]
        fn more_memory_never_makes_a_smaller_ramdisk(
            version in any_version(), bdevs in any_bdevs(),
            n in 1..5_usize, targets in 1..40_u32, gib in 0..4096_u64, more in 0..64_u64,
        ) {
            let demand = Demand::by_formula(release(version), &engines(n, targets, bdevs), GIB(16));
            prop_assert!(demand.max_ramdisk(GIB(gib)) <= demand.max_ramdisk(GIB(gib + more)));
            let estimate = |gib| MemTotal::Estimated { dimms: GIB(gib) }.size();
            prop_assert!(estimate(gib) <= estimate(gib + more));
        }

        #[test]
        fn more_targets_or_engines_never_need_less(
            version in any_version(), bdevs in any_bdevs(),
            n in 1..5_usize, targets in 1..40_u32, gib in 0..4096_u64,
        ) {
            let demand = |n, targets| {
                Demand::by_formula(release(version), &engines(n, targets, bdevs), GIB(16))
            };
            let base = demand(n, targets);
            for larger in [demand(n, targets + 1), demand(n + 1, targets)] {
                prop_assert!(larger.nr_hugepages >= base.nr_hugepages);
                prop_assert!(larger.min_mem_total(GIB(4)) >= base.min_mem_total(GIB(4)));
                prop_assert!(larger.max_ramdisk(GIB(gib)) <= base.max_ramdisk(GIB(gib)));
            }
        }

        #[test]
        fn a_ramdisk_of_the_largest_size_just_fits(
            bdevs in any_bdevs(), n in 1..5_usize, targets in 1..40_u32, gib in 64..4096_u64,
        ) {
            let demand = Demand::by_formula(release("2.6.0"), &engines(n, targets, bdevs), GIB(16));
            if let Some(max) = demand.max_ramdisk(GIB(gib)) {
                let needed = demand.min_mem_total(max);
                prop_assert!(needed <= GIB(gib));
                prop_assert!(GIB(gib).bytes() - needed.bytes() < n as u64);
            }
        }
    }
}
