//! Rules about what an engine asks of its box: memory, cores, IOMMU, disk, fabric.

use crate::cluster::{BdevClass, Cluster, DiskRule, Engine, Hw, Kind, ScmClass, ScmSize};
use crate::daos::config::{self, numbered};
use crate::daos::memory::{self, Demand, EngineShape, MIN_RAMDISK, MemTotal, in_gib};
use crate::daos::rules::cluster::{is_routed, needs_ofed};
use crate::daos::rules::{Findings, HAS, NODES};
use crate::daos::versions::{self, NeedsHugepages, TransparentHugepages};
use crate::diag::{Diagnostic, Span, codes};
use crate::units::ByteSize;

/// What holds for every node.
pub(super) fn check_any(cluster: &Cluster, kind: &Kind, findings: &mut Findings<'_>) {
    let release = &kind.os.release;
    let version = &cluster.daos.version.value;
    // EL 8.8 with extended support and 8.10 are on the support matrix of 2.6.
    if !["8.8", "8.10"].contains(&release.as_str()) {
        let message =
            format!("AlmaLinux {} is not on the support matrix of DAOS {version}", release.value);
        findings.push(
            Diagnostic::warning(codes::SUPPORT_MATRIX, message)
                .at(release.span)
                .help("8.10 is, and 8.8 with extended support"),
        );
    }
}

pub(super) fn check_server(cluster: &Cluster, kind: &Kind, findings: &mut Findings<'_>) {
    check_memory(cluster, kind, findings);
    check_hugepages(cluster, kind, findings);
    check_cores(kind, findings);
    check_access_to_ssds(cluster, kind, findings);
    check_transparent_hugepages(cluster, kind, findings);
    check_files_fit(cluster, kind, findings);
    check_paths(cluster, kind, findings);
    check_metadata_mount(cluster, kind, findings);
}

/// Each ram-disk must fit: as DAOS computes it from MemTotal when it starts.
fn check_memory(cluster: &Cluster, kind: &Kind, findings: &mut Findings<'_>) {
    let daos = &cluster.daos;
    check_mem_total(&kind.hw, findings);
    if !kind.engines.iter().any(|engine| engine.scm.class.value == ScmClass::Ram) {
        return;
    }
    let demand = Demand::of(daos, &kind.engines);
    let total = memory::mem_total(&kind.hw);
    let needed = demand.min_mem_total(MIN_RAMDISK);
    if total.size() < needed {
        report_low_memory(cluster, kind, &demand, findings);
        return;
    }
    let max = demand.max_ramdisk(total.size()).unwrap_or_default();
    for engine in &kind.engines {
        let Some(size) = &engine.scm.size else { continue };
        if let ScmSize::Fixed(fixed) = size.value
            && fixed > max
        {
            report_large_scm(kind, &demand, (fixed, size.span), max, findings);
        }
    }
}

fn check_mem_total(hw: &Hw, findings: &mut Findings<'_>) {
    if let Some(total) = hw.mem_total.as_ref().filter(|total| total.value > hw.memory.value) {
        let message =
            format!("mem_total {} is more than the memory, {}", total.value, hw.memory.value);
        findings.push(
            Diagnostic::error(codes::OUT_OF_RANGE, message)
                .at(total.span)
                .also(hw.memory.span, "the memory")
                .help("take the number from /proc/meminfo, or leave it out"),
        );
    }
}

/// Where the memory was said.
fn memory_span(hw: &Hw) -> Span {
    hw.mem_total.as_ref().map_or(hw.memory.span, |total| total.span)
}

/// Whether `needed` bytes are in the DIMMs, so that only the estimate of what the kernel
/// takes stands against it.
fn is_enough_on_paper(total: MemTotal, needed: ByteSize) -> bool {
    matches!(total, MemTotal::Estimated { dimms } if dimms >= needed)
}

fn report_low_memory(cluster: &Cluster, kind: &Kind, demand: &Demand, findings: &mut Findings<'_>) {
    let total = memory::mem_total(&kind.hw);
    let fixed = kind.engines.iter().filter_map(|engine| match engine.scm.size.as_ref()?.value {
        ScmSize::Fixed(size) => Some(size),
        ScmSize::Auto => None,
    });
    let wanted = fixed.max().unwrap_or_default().max(MIN_RAMDISK);
    let needed = demand.min_mem_total(wanted);
    let has = kind.hw.mem_total.as_ref().unwrap_or(&kind.hw.memory).value;
    let reserved = &cluster.daos.system_ram_reserved;
    let least = Demand { system_ram_reserved: ByteSize::from_gib(1), ..*demand };
    let help = match least.min_mem_total(wanted) {
        least if least <= total.size() => format!(
            "give it more memory; for a lab, `system_ram_reserved = \"1GiB\"` makes {} enough",
            in_gib(least)
        ),
        _ => "give it more memory, or fewer targets or engines".to_owned(),
    };
    let diagnostic = if is_enough_on_paper(total, needed) {
        Diagnostic::warning(
            codes::PAPER_MEMORY,
            format!(
                "{NODES} {HAS} {} of memory, and MemTotal hardly the {} needed",
                in_gib(has),
                in_gib(needed)
            ),
        )
        .help("give it more memory, or say what /proc/meminfo shows with `mem_total`")
    } else {
        Diagnostic::error(
            codes::LOW_MEMORY,
            format!(
                "{NODES} {HAS} {} of memory; this configuration needs {}",
                in_gib(has),
                in_gib(needed)
            ),
        )
        .help(help)
    };
    findings.push(
        diagnostic
            .at(memory_span(&kind.hw))
            .also(reserved.span, format!("{} are reserved", in_gib(reserved.value)))
            .note(demand.sum(wanted))
            .note(format!("MemTotal: {total}")),
    );
}

fn report_large_scm(
    kind: &Kind,
    demand: &Demand,
    (fixed, span): (ByteSize, Span),
    max: ByteSize,
    findings: &mut Findings<'_>,
) {
    let total = memory::mem_total(&kind.hw);
    let sizes = format!("{} of scm, the memory allows {}", in_gib(fixed), in_gib(max));
    let diagnostic = if is_enough_on_paper(total, demand.min_mem_total(fixed)) {
        let message = format!("{NODES} {HAS} hardly room for {sizes}");
        Diagnostic::warning(codes::PAPER_MEMORY, message)
    } else {
        let message = format!("{NODES} {HAS} no room for {sizes}");
        Diagnostic::error(codes::SCM_TOO_LARGE, message)
    };
    findings.push(
        diagnostic
            .at(span)
            .also(memory_span(&kind.hw), "the memory")
            .help("write `size = \"auto\"`, which takes what the memory allows")
            .note(demand.sum(fixed))
            .note(format!("MemTotal: {total}")),
    );
}

fn check_hugepages(cluster: &Cluster, kind: &Kind, findings: &mut Findings<'_>) {
    let daos = &cluster.daos;
    let release = versions::find_or_oldest(&daos.version);
    let needing = kind.engines.iter().flat_map(|engine| &engine.bdevs).find(|bdev| {
        release.needs_hugepages == NeedsHugepages::AnyBdev || bdev.class.value == BdevClass::Nvme
    });
    if let (true, Some(bdev)) = (daos.disable_hugepages.value, needing) {
        findings.push(
            Diagnostic::error(
                codes::HUGEPAGES_DISABLED,
                "block devices cannot do without hugepages",
            )
            .at(daos.disable_hugepages.span)
            .also(bdev.span, "block devices")
            .help("leave `disable_hugepages` out"),
        );
        return;
    }
    let Some(configured) = daos.nr_hugepages.as_ref().filter(|pages| pages.value > 0) else {
        return;
    };
    let shapes: Vec<EngineShape> = kind.engines.iter().map(EngineShape::of).collect();
    let needed = memory::nr_hugepages(release, &shapes);
    if configured.value < needed {
        let message =
            format!("{} hugepages, and the engines of {NODES} need {needed}", configured.value);
        findings.push(
            Diagnostic::error(codes::TOO_FEW_HUGEPAGES, message)
                .at(configured.span)
                .help("leave `nr_hugepages` out: DAOS computes it")
                .note("1 GiB for each target, and 1 GiB for each engine with a meta role"),
        );
    }
}

/// The physical cores `engine` needs.
///
/// `dss_tgt_nr_check` (src/engine/init.c): two cores are kept for the system's own threads.
pub fn n_cores_needed(engine: &Engine) -> u32 {
    let targets = engine.targets.value;
    let helpers = engine.helpers.value.min(targets.saturating_mul(2));
    targets.saturating_add(helpers).saturating_add(2)
}

/// Whether the cluster file lets `engine` run with fewer cores than it needs.
pub fn may_oversubscribe(engine: &Engine) -> bool {
    let value = |text: &str| text.strip_prefix("DAOS_TARGET_OVERSUBSCRIBE=").map(str::to_owned);
    let mut values = engine.env.iter().filter_map(|variable| value(variable));
    values.next_back().is_some_and(|value| value == "1" || value.eq_ignore_ascii_case("true"))
}

fn check_cores(kind: &Kind, findings: &mut Findings<'_>) {
    let Some(cores) = &kind.hw.cores else { return };
    let per_socket = cores.value / kind.hw.sockets.max(1);
    for engine in kind.engines.iter().filter(|engine| !may_oversubscribe(engine)) {
        let (available, whose) = match &engine.numa {
            Some(_) => (per_socket, "a socket"),
            None => (cores.value, "the box"),
        };
        let needed = n_cores_needed(engine);
        if needed > available {
            let message =
                format!("an engine of {NODES} needs {needed} cores, and {whose} has {available}");
            findings.push(
                Diagnostic::error(codes::TOO_FEW_CORES, message)
                    .at(engine.targets.span)
                    .also(cores.span, "the cores, all sockets together")
                    .help("lower targets and helpers; for a lab, env DAOS_TARGET_OVERSUBSCRIBE=1")
                    .note(format!(
                        "2 for the system + {} targets + {} helpers",
                        engine.targets.value,
                        needed - 2 - engine.targets.value
                    )),
            );
        }
        if let Some(first) = engine.first_core.as_ref().filter(|first| first.value >= available) {
            let message = format!("first_core {} is beyond the last core of {NODES}", first.value);
            findings.push(
                Diagnostic::error(codes::TOO_FEW_CORES, message)
                    .at(first.span)
                    .also(cores.span, "the cores, counted from 0")
                    .help("leave `first_core` out"),
            );
        }
    }
}

/// An unprivileged daos_server reaches SSDs only by VFIO and an IOMMU
/// (`prepBdevStorage`, server/server_utils.go).
fn check_access_to_ssds(cluster: &Cluster, kind: &Kind, findings: &mut Findings<'_>) {
    let is_root = kind.run_as.as_ref().is_some_and(|user| user.value == "root");
    let ssds = kind.engines.iter().flat_map(|engine| &engine.bdevs);
    let Some(ssds) = ssds.into_iter().find(|bdev| bdev.class.value == BdevClass::Nvme) else {
        return;
    };
    if is_root {
        return;
    }
    let disable_vfio = &cluster.daos.disable_vfio;
    if disable_vfio.value {
        findings.push(
            Diagnostic::error(
                codes::VFIO_DISABLED,
                "without VFIO only root reaches SSDs, and daos_server does not run as root",
            )
            .at(disable_vfio.span)
            .also(ssds.class.span, "SSDs")
            .help("leave `disable_vfio` out"),
        );
    }
    // The resolver turns Intel's on, and the kernel AMD's by itself.
    let off = ["intel_iommu=off", "amd_iommu=off", "iommu=off"];
    let is_off = off.into_iter().any(|argument| kind.os.kernel_args.contains(argument));
    let has_none = kind.hw.vm.as_ref().is_some_and(|vm| !vm.has_iommu);
    if is_off || has_none {
        let help = match has_none {
            true => "set `iommu = true` in the hw's `vm`, or `run_as = \"root\"`",
            false => "take the argument that turns it off out of `kernel_args`",
        };
        findings.push(
            Diagnostic::error(
                codes::NO_IOMMU,
                format!("daos_server of {NODES} cannot reach its SSDs without an IOMMU"),
            )
            .at(ssds.class.span)
            .help(help),
        );
    }
}

fn check_transparent_hugepages(cluster: &Cluster, kind: &Kind, findings: &mut Findings<'_>) {
    let daos = &cluster.daos;
    let release = versions::find_or_oldest(&daos.version);
    let is_off = kind.os.kernel_args.contains("transparent_hugepage=never");
    let is_refused = release.transparent_hugepages == TransparentHugepages::Refused;
    if is_refused && !is_off && !daos.disable_hugepages.value {
        let message = format!(
            "DAOS {} does not start with transparent hugepages, and {NODES} {HAS} them",
            daos.version.value
        );
        findings.push(
            Diagnostic::error(codes::TRANSPARENT_HUGEPAGES, message)
                .at(kind.span)
                .help("add \"transparent_hugepage=never\" to `os.kernel_args`"),
        );
    }
}

/// What the system itself takes of the install disk, at least.
const SYSTEM_DISK: ByteSize = ByteSize::from_gib(10);

/// The least size of the install disk, if the cluster file says any.
fn disk_size(kind: &Kind) -> Option<(ByteSize, Span)> {
    let DiskRule { min, span, .. } = kind.hw.install_disk;
    let of_vm = kind.hw.vm.as_ref().map(|vm| vm.disk);
    Some((of_vm.or(min)?, span))
}

/// Files for data lie on the install disk, next to the system and control_metadata.
fn check_files_fit(cluster: &Cluster, kind: &Kind, findings: &mut Findings<'_>) {
    let Some((disk, span)) = disk_size(kind) else { return };
    let tiers = kind.engines.iter().flat_map(|engine| &engine.bdevs);
    let files: Vec<_> = tiers.filter(|bdev| bdev.class.value == BdevClass::File).collect();
    let Some(last) = files.last() else { return };
    let of_tier = |bdev: &&crate::cluster::Bdev| {
        bdev.size.as_ref().map_or(ByteSize::default(), |size| size.value) * bdev.list.len() as u64
    };
    let data: ByteSize = files.iter().map(of_tier).sum();
    let metadata = match kind.has_control_metadata() {
        true => cluster.daos.control_metadata.size.value,
        false => ByteSize::default(),
    };
    if data + metadata + SYSTEM_DISK > disk {
        let message =
            format!("{} of files for data do not fit on the disk of {NODES}", in_gib(data));
        findings.push(
            Diagnostic::error(codes::FILE_TOO_LARGE, message)
                .at(last.size.as_ref().map_or(last.span, |size| size.span))
                .also(span, format!("a disk of {}", in_gib(disk)))
                .help("make the files smaller or the disk larger")
                .note(format!(
                    "{} of data + {} of control_metadata + {} for the system",
                    in_gib(data),
                    in_gib(metadata),
                    in_gib(SYSTEM_DISK)
                )),
        );
    }
}

/// Folders of the system: a filesystem mounted over one hides what is in it.
const SYSTEM_FOLDERS: [&str; 19] = [
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/lib",
    "/lib64",
    "/media",
    "/mnt",
    "/opt",
    "/root",
    "/sbin",
    "/srv",
    "/usr",
    "/var",
    "/var/lib",
    "/var/log",
    "/etc/daos",
    "/var/log/daos",
];

/// The kickstart makes a filesystem for control_metadata and mounts it at its path.
fn check_metadata_mount(cluster: &Cluster, kind: &Kind, findings: &mut Findings<'_>) {
    let path = &cluster.daos.control_metadata.path;
    if kind.has_control_metadata() && SYSTEM_FOLDERS.contains(&path.as_str()) {
        let message =
            format!("control_metadata mounted at {} would hide what is there", path.value);
        findings.push(
            Diagnostic::error(codes::PATH_CLASH, message)
                .at(path.span)
                .help("choose a folder of its own, like /var/lib/daos"),
        );
    }
}

/// What lies below a mount point is hidden as soon as DAOS mounts scm there.
fn check_paths(cluster: &Cluster, kind: &Kind, findings: &mut Findings<'_>) {
    let mut paths: Vec<(String, Span, &str)> = Vec::new();
    if kind.has_control_metadata() {
        let path = &cluster.daos.control_metadata.path;
        paths.push((path.value.clone(), path.span, "control_metadata"));
    }
    let mut mounts: Vec<(String, Span)> = Vec::new();
    for (at, engine) in kind.engines.iter().enumerate() {
        mounts.push((numbered(&engine.scm.mount, at), engine.scm.mount.span));
        paths.push((numbered(&engine.log_file, at), engine.log_file.span, "the log"));
        let files = engine.bdevs.iter().filter(|bdev| bdev.class.value == BdevClass::File);
        for file in files.flat_map(|bdev| bdev.list.iter()) {
            paths.push((file.value.clone(), file.span, "the file"));
        }
    }
    for (mount, span) in &mounts {
        let is_inside = |path: &str| path.starts_with(&format!("{mount}/"));
        let others = mounts.iter().map(|(path, span)| (path.clone(), *span, "the scm"));
        let clashes = paths.iter().cloned().chain(others);
        for (path, path_span, what) in clashes
            .filter(|(path, _, what)| is_inside(path) || (path == mount && *what != "the scm"))
        {
            let message = format!("{what} {path} would be hidden by the scm mounted at {mount}");
            findings.push(
                Diagnostic::error(codes::PATH_CLASH, message)
                    .at(path_span)
                    .also(*span, "the mount point")
                    .help("choose a path outside the mount point"),
            );
        }
    }
}

/// The agent gets the kind's NICs on the engines' networks.
pub(super) fn check_client(cluster: &Cluster, kind: &Kind, findings: &mut Findings<'_>) {
    let provider = &cluster.daos.provider;
    let nics: Vec<_> = config::fabric_nics(cluster, kind).collect();
    let nets = config::engine_nets(cluster).into_iter().collect::<Vec<_>>().join(", ");
    // Without any, that is what is wrong.
    if nics.is_empty() && !nets.is_empty() {
        let message = format!("{NODES} {HAS} no NIC on the engines' network ({nets})");
        // Only tcp is routed; there the agent looks for a NIC itself.
        let diagnostic = match is_routed(provider) {
            true => Diagnostic::warning(codes::NO_CLIENT_FABRIC, message),
            false => Diagnostic::error(codes::NO_CLIENT_FABRIC, message),
        };
        findings.push(
            diagnostic.at(kind.span).help("add a NIC with that `net` to the hw of these clients"),
        );
    }
    let is_of_cornelis_or_slingshot =
        ["ofi+opx", "ofi+cxi"].iter().any(|name| provider.starts_with(name));
    if !needs_ofed(provider) && !is_of_cornelis_or_slingshot {
        return;
    }
    for nic in nics.into_iter().filter(|nic| nic.domain.is_none()) {
        let message = format!("`{}` needs the domain of the NIC `{}`", provider.value, nic.key);
        let example = if needs_ofed(provider) { "mlx5_0" } else { "cxi0" };
        findings.push(
            Diagnostic::error(codes::NO_DOMAIN, message)
                .at(nic.span)
                .help(format!("add `domain = \"{example}\"` to it; `fi_info` lists them")),
        );
    }
}
