//! How a cluster's servers come out: memory, hugepages, cores, tiers and capacity, with the
//! arithmetic. `nodeforge plan` prints it.

use std::fmt;

use crate::cluster::{Bdev, BdevClass, Cluster, Engine, Kind, ScmClass};
use crate::daos::config::{bdev_class, bdev_role};
use crate::daos::memory::{self, Demand, MemTotal, in_gib};
use crate::daos::versions;
use crate::range;
use crate::units::ByteSize;

/// The whole cluster; `Display` is the text of `plan`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizing {
    pub version: String,
    /// Whether nodeforge knows this version's formulas, or took the oldest ones.
    pub is_version_known: bool,
    pub access_points: Vec<String>,
    pub format_by: Option<String>,
    pub kinds: Vec<KindSizing>,
    pub n_servers: usize,
    pub n_engines: usize,
    pub n_targets: u64,
    /// Metadata and small values: all RAM disks together; `None` with PMem.
    pub scm: Option<ByteSize>,
    pub n_ssds: usize,
    /// Files for data; SSDs have sizes only their box knows.
    pub files: ByteSize,
}

/// One kind of server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KindSizing {
    /// The nodes, folded.
    pub nodes: String,
    pub n_nodes: usize,
    pub hw: String,
    pub demand: Demand,
    pub mem_total: MemTotal,
    /// What stays for the system and its page cache when all RAM disks are full.
    pub left: Option<ByteSize>,
    /// Physical, all sockets together.
    pub cores: Option<u32>,
    pub engines: Vec<EngineSizing>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineSizing {
    pub numa: Option<u32>,
    pub fabric: String,
    pub port: u32,
    pub targets: u32,
    pub helpers: u32,
    /// With the two the system's own threads get.
    pub cores: u32,
    /// GiB; `None` for PMem, or where no size fits.
    pub scm_gib: Option<u64>,
    pub scm_class: ScmClass,
    pub tiers: Vec<TierSizing>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierSizing {
    pub class: BdevClass,
    pub n_devices: usize,
    /// Of each, for class file.
    pub size: Option<ByteSize>,
    pub roles: Vec<&'static str>,
}

/// Computes the sizing of every kind of server.
pub fn size(cluster: &Cluster) -> Sizing {
    let daos = &cluster.daos;
    let mut names = vec![Vec::new(); cluster.kinds.len()];
    for node in &cluster.nodes {
        names[node.kind].push(&node.name);
    }
    let servers = cluster.kinds.iter().zip(names).filter(|(kind, _)| kind.is_server());
    let kinds: Vec<KindSizing> = servers
        .map(|(kind, names)| kind_sizing(cluster, kind, names.len(), range::fold(names)))
        .collect();
    let engines = || {
        kinds.iter().flat_map(|kind| kind.engines.iter().map(move |engine| (kind.n_nodes, engine)))
    };
    let has_pmem = engines().any(|(_, engine)| engine.scm_class == ScmClass::Dcpm);
    let tiers = || engines().flat_map(|(n, engine)| engine.tiers.iter().map(move |tier| (n, tier)));
    let ram = |(n, engine): (usize, &EngineSizing)| {
        ByteSize::from_gib(engine.scm_gib.unwrap_or(0)) * n as u64
    };
    let files = |(n, tier): (usize, &TierSizing)| {
        tier.size.unwrap_or_default() * (n * tier.n_devices) as u64
    };
    let is_ssd = |tier: &TierSizing| tier.class == BdevClass::Nvme;
    Sizing {
        version: daos.version.value.clone(),
        is_version_known: versions::find(&daos.version).is_some(),
        access_points: daos.access_points.iter().map(|name| name.value.to_string()).collect(),
        format_by: daos.format_by.as_ref().map(|name| name.value.to_string()),
        n_servers: kinds.iter().map(|kind| kind.n_nodes).sum(),
        n_engines: engines().map(|(n, _)| n).sum(),
        n_targets: engines().map(|(n, engine)| n as u64 * u64::from(engine.targets)).sum(),
        scm: (!has_pmem).then(|| engines().map(ram).sum()),
        n_ssds: tiers().filter(|(_, tier)| is_ssd(tier)).map(|(n, tier)| n * tier.n_devices).sum(),
        files: tiers().map(files).sum(),
        kinds,
    }
}

fn kind_sizing(cluster: &Cluster, kind: &Kind, n_nodes: usize, nodes: String) -> KindSizing {
    let demand = Demand::of(&cluster.daos, &kind.engines);
    let mem_total = memory::mem_total(&kind.hw);
    let engines: Vec<EngineSizing> =
        kind.engines.iter().map(|engine| engine_sizing(cluster, kind, engine)).collect();
    let ram_disks: ByteSize =
        engines.iter().map(|engine| ByteSize::from_gib(engine.scm_gib.unwrap_or(0))).sum();
    let taken = demand.hugepage_memory() + ram_disks;
    let left = mem_total.size().bytes().checked_sub(taken.bytes()).map(ByteSize::from_bytes);
    let (hw, cores) = (kind.hw.name.value.clone(), kind.hw.cores.as_ref().map(|cores| cores.value));
    KindSizing { nodes, n_nodes, hw, demand, mem_total, left, cores, engines }
}

fn engine_sizing(cluster: &Cluster, kind: &Kind, engine: &Engine) -> EngineSizing {
    EngineSizing {
        numa: engine.numa.as_ref().map(|numa| numa.value),
        fabric: kind.hw.nics[engine.fabric_nic].name.value.clone(),
        port: engine.port.value,
        targets: engine.targets.value,
        helpers: engine.helpers.value,
        cores: engine.targets.value.saturating_add(engine.helpers.value).saturating_add(2),
        scm_gib: memory::scm_size_gib(&cluster.daos, kind, engine),
        scm_class: engine.scm.class.value,
        tiers: engine.bdevs.iter().map(tier_sizing).collect(),
    }
}

fn tier_sizing(bdev: &Bdev) -> TierSizing {
    let is_file = bdev.class.value == BdevClass::File;
    TierSizing {
        class: bdev.class.value,
        n_devices: bdev.list.len(),
        size: bdev.size.as_ref().filter(|_| is_file).map(|size| size.value),
        roles: bdev.roles.iter().map(|role| bdev_role(role.value)).collect(),
    }
}

impl fmt::Display for Sizing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DAOS {}", self.version)?;
        if !self.is_version_known {
            write!(f, " (unknown; by the rules of 2.6.0)")?;
        }
        writeln!(f, ", access points {}", self.access_points.join(", "))?;
        match &self.format_by {
            Some(admin) => writeln!(f, "formatted by {admin}")?,
            None => writeln!(f, "formatted by nobody: there is no admin")?,
        }
        for kind in &self.kinds {
            write!(f, "\n{kind}")?;
        }
        let plural = |n: usize| if n == 1 { "" } else { "s" };
        write!(
            f,
            "\ncluster: {} server{}, {} engine{}, {} targets",
            self.n_servers,
            plural(self.n_servers),
            self.n_engines,
            plural(self.n_engines),
            self.n_targets
        )?;
        if let Some(scm) = self.scm {
            write!(f, ", {scm} of RAM disks")?;
        }
        if self.n_ssds > 0 {
            write!(f, ", {} SSD{}", self.n_ssds, plural(self.n_ssds))?;
        }
        if self.files.bytes() > 0 {
            write!(f, ", {} in files", self.files)?;
        }
        writeln!(f)
    }
}

impl fmt::Display for KindSizing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.n_nodes == 1 { "" } else { "s" };
        writeln!(f, "{} ({} node{plural}, hw {})", self.nodes, self.n_nodes, self.hw)?;
        let demand = &self.demand;
        writeln!(f, "  MemTotal    {}", self.mem_total)?;
        writeln!(
            f,
            "  hugepages   {} of 2 MiB = {}",
            demand.nr_hugepages,
            in_gib(demand.hugepage_memory())
        )?;
        writeln!(
            f,
            "  reserved    {} system + {} × {} engine",
            in_gib(demand.system_ram_reserved),
            demand.n_engines,
            in_gib(demand.engine_reserve)
        )?;
        if let Some(max) = demand.max_ramdisk(self.mem_total.size()) {
            writeln!(f, "  scm         at most {} an engine", in_gib(max))?;
        }
        if let Some(left) = self.left {
            writeln!(f, "  left        {} beside hugepages and full RAM disks", in_gib(left))?;
        }
        let needed: u32 = self.engines.iter().map(|engine| engine.cores).sum();
        match self.cores {
            Some(cores) => writeln!(f, "  cores       {needed} of {cores}")?,
            None => writeln!(f, "  cores       {needed}; the hw does not say how many it has")?,
        }
        for (at, engine) in self.engines.iter().enumerate() {
            writeln!(f, "  engine {at}    {engine}")?;
        }
        Ok(())
    }
}

impl fmt::Display for EngineSizing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(numa) = self.numa {
            write!(f, "NUMA {numa}, ")?;
        }
        write!(
            f,
            "{} port {}, {} targets + {} helpers on {} cores; ",
            self.fabric, self.port, self.targets, self.helpers, self.cores
        )?;
        match (self.scm_class, self.scm_gib) {
            (ScmClass::Dcpm, _) => write!(f, "scm PMem")?,
            (ScmClass::Ram, Some(gib)) => write!(f, "scm {gib} GiB")?,
            (ScmClass::Ram, None) => write!(f, "scm: too little memory")?,
        }
        self.tiers.iter().try_for_each(|tier| write!(f, "; {tier}"))
    }
}

impl fmt::Display for TierSizing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let roles = match self.roles.as_slice() {
            [] => "data".to_owned(),
            roles => roles.join("+"),
        };
        write!(f, "{} {} for {roles}", self.n_devices, bdev_class(self.class))?;
        self.size.map_or(Ok(()), |size| write!(f, " of {}", in_gib(size)))
    }
}
