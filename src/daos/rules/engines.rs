//! Rules about engines: each one, and those of one node among themselves.

use std::collections::BTreeMap;

use crate::cluster::{Bdev, Cluster, Engine, Kind, Link, NetKind, Nic, Sited};
use crate::daos::config::{bdev_class, numbered};
use crate::daos::rules::{Findings, NODES, cluster, storage, variables};
use crate::daos::versions::{self, TransparentHugepages};
use crate::diag::{Code, Diagnostic, Span, codes};

pub(super) fn check(cluster: &Cluster, kind: &Kind, findings: &mut Findings<'_>) {
    if kind.engines.is_empty() {
        let role = kind.roles.iter().find(|role| role.value == "server");
        findings.push(
            Diagnostic::error(codes::NO_ENGINES, "a server without engines stores nothing")
                .at(role.map_or(kind.span, |role| role.span))
                .help("add `[[role.server.engine]]`"),
        );
        return;
    }
    for engine in &kind.engines {
        check_engine(cluster, kind, engine, findings);
        storage::check(engine, findings);
    }
    check_unique(kind, findings);
    check_alike(cluster, kind, findings);
    check_port_ranges(kind, findings);
    check_numa_balance(kind, findings);
    check_fabric_classes(cluster, kind, findings);
}

fn check_engine(cluster: &Cluster, kind: &Kind, engine: &Engine, findings: &mut Findings<'_>) {
    check_threads(engine, findings);
    check_ports(cluster, engine, findings);
    check_pinning(kind, engine, findings);
    check_log_mask(engine, findings);
    cluster::check_variables(&engine.env, cluster, findings);
    variables::check(cluster, engine, findings);
    check_fabric_address(kind, engine, findings);
}

/// Engines are reached by IP, over InfiniBand too: a NIC on no net has no address.
fn check_fabric_address(kind: &Kind, engine: &Engine, findings: &mut Findings<'_>) {
    let nic = &kind.hw.nics[engine.fabric_nic];
    if nic.net.is_some() {
        return;
    }
    let above = kind.hw.nics.iter().find(|other| match &other.link {
        Link::Bond { members, .. } => members.contains(&nic.key),
        Link::Vlan { of, .. } => *of == nic.key,
        _ => false,
    });
    let help = match above {
        Some(above) => format!("use `{}`, which stands on it", above.key),
        None => format!("give `nic.{}` a `net` and its nodes an `ip`", nic.key),
    };
    let message = format!("an engine of {NODES} uses the NIC `{}`, which has no address", nic.key);
    findings.push(
        Diagnostic::error(codes::NO_FABRIC_ADDRESS, message)
            .at(engine.fabric.span)
            .also(nic.span, "the NIC")
            .help(help),
    );
}

fn check_threads(engine: &Engine, findings: &mut Findings<'_>) {
    let (targets, helpers) = (&engine.targets, &engine.helpers);
    // `dss_tgt_nr_check` (src/engine/init.c) cuts them without more than a line in the log.
    if helpers.value > targets.value.saturating_mul(2) {
        let message = format!(
            "{} helpers for {} targets: DAOS uses two a target",
            helpers.value, targets.value
        );
        findings.push(
            Diagnostic::warning(codes::TOO_MANY_HELPERS, message)
                .at(helpers.span)
                .help("a helper for every four targets is usual"),
        );
    }
}

/// The last port an engine listens on: its first one, and one for each of its threads.
fn last_port(engine: &Engine) -> u64 {
    let n_threads = u64::from(engine.targets.value) + u64::from(engine.helpers.value) + 2;
    u64::from(engine.port.value) + n_threads
}

/// DAOS checks only that ports are positive: 70000 loads, and the engine then fails.
fn check_ports(cluster: &Cluster, engine: &Engine, findings: &mut Findings<'_>) {
    let port = &engine.port;
    if last_port(engine) > 65535 {
        let message = match port.value {
            port if port > 65535 => format!("port {port} does not exist; the last one is 65535"),
            port => format!("an engine at port {port} needs ports up to {}", last_port(engine)),
        };
        findings.push(
            Diagnostic::error(codes::BAD_PORT, message)
                .at(port.span)
                .help("31316 is usual, with 1000 more for each further engine"),
        );
    }
    let daos = &cluster.daos;
    let control =
        [("the control plane", Some(&daos.port)), ("telemetry", daos.telemetry_port.as_ref())];
    for (service, other) in control.into_iter().filter_map(|(name, port)| Some((name, port?))) {
        let is_within = (u64::from(port.value)..=last_port(engine)).contains(&other.value.into());
        if is_within {
            let message = format!("port {} is wanted by an engine and by {service}", other.value);
            findings.push(
                Diagnostic::error(codes::BAD_PORT, message)
                    .at(port.span)
                    .also(other.span, service)
                    .help("31316 is usual for an engine"),
            );
        }
    }
}

fn check_pinning(kind: &Kind, engine: &Engine, findings: &mut Findings<'_>) {
    let Some(numa) = &engine.numa else { return };
    if let Some(first_core) = &engine.first_core {
        let (code, fate) = match first_core.value {
            0 => (codes::IGNORED, "DAOS ignores the latter"),
            _ => (codes::BAD_CONFIG, "DAOS takes only one of them"),
        };
        let message = format!("`numa` and `first_core` both choose cores: {fate}");
        let diagnostic = match first_core.value {
            0 => Diagnostic::warning(code, message),
            _ => Diagnostic::error(code, message),
        };
        findings.push(
            diagnostic
                .at(first_core.span)
                .also(numa.span, "the NUMA node")
                .help("leave `first_core` out"),
        );
    }
    let nic = &kind.hw.nics[engine.fabric_nic];
    if let Some(nic_numa) = nic.numa.as_ref().filter(|nic_numa| nic_numa.value != numa.value) {
        let message = format!(
            "an engine on NUMA node {} with the NIC `{}` of NUMA node {}",
            numa.value, nic.key, nic_numa.value
        );
        findings.push(
            Diagnostic::warning(codes::NUMA_MISMATCH, message)
                .at(numa.span)
                .also(nic_numa.span, "the NIC's NUMA node")
                .help("every message would cross the sockets: use a NIC of the engine's own"),
        );
    }
}

/// `StrToLogLevel` (server/engine/utils.go) takes any case.
const ENGINE_LEVELS: [&str; 12] = [
    "DEBUG", "DBUG", "INFO", "NOTE", "WARN", "ERROR", "ERR", "CRIT", "ALRT", "FATAL", "EMRG",
    "EMIT",
];

/// A level, then `SUBSYSTEM=LEVEL` pairs, with commas between.
fn check_log_mask(engine: &Engine, findings: &mut Findings<'_>) {
    let Some(mask) = &engine.log_mask else { return };
    let is_level =
        |level: &str| ENGINE_LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level));
    let is_valid = mask.split(',').enumerate().all(|(at, token)| match token.split_once('=') {
        Some((subsystem, level)) => !subsystem.eq_ignore_ascii_case("all") && is_level(level),
        None => at == 0 && is_level(token),
    });
    if !is_valid {
        let message = format!("an engine has no log mask `{}`", mask.value);
        findings.push(
            Diagnostic::error(codes::LOG_LEVEL, message)
                .at(mask.span)
                .help(format!("choose one of {}", ENGINE_LEVELS.join(", "))),
        );
    }
}

/// What no two engines of a node may share.
fn check_unique(kind: &Kind, findings: &mut Findings<'_>) {
    let engines = || kind.engines.iter().enumerate();
    let fabric = engines().map(|(at, engine)| {
        let nic = &kind.hw.nics[engine.fabric_nic].name.value;
        (at, format!("{nic} port {}", engine.port.value), engine.port.span)
    });
    report_twice(findings, codes::SAME_FABRIC, "use", fabric, "give each engine its own port");
    let logs =
        engines().map(|(at, engine)| (at, numbered(&engine.log_file, at), engine.log_file.span));
    report_twice(findings, codes::SAME_LOG_FILE, "log to", logs, "leave `log_file` out");
    let mounts =
        engines().map(|(at, engine)| (at, numbered(&engine.scm.mount, at), engine.scm.mount.span));
    report_twice(findings, codes::SAME_SCM_MOUNT, "mount scm at", mounts, "leave `mount` out");
    let pmem = engines().flat_map(|(at, engine)| {
        engine.scm.list.iter().map(move |device| (at, device.value.clone(), device.span))
    });
    report_twice(findings, codes::SAME_PMEM, "use", pmem, "one PMem device an engine");
    let bdevs = engines().flat_map(|(at, engine)| {
        let devices = engine.bdevs.iter().flat_map(|bdev| {
            bdev.list.iter().map(|device| (device, device_span(bdev, device.span)))
        });
        devices.map(move |(device, span)| (at, device.value.to_ascii_lowercase(), span))
    });
    report_twice(findings, codes::SAME_BDEV, "use", bdevs, "each device belongs to one engine");
}

/// The device where the tier names it, or the tier where it takes a list of the hw.
fn device_span(bdev: &Bdev, device: Span) -> Span {
    let tier = bdev.span;
    let is_within =
        device.source == tier.source && device.start >= tier.start && device.end <= tier.end;
    if is_within { device } else { tier }
}

/// Reports the values that a second engine has, once for each two engines; a value that
/// comes twice in one engine is another rule's.
fn report_twice(
    findings: &mut Findings<'_>,
    code: Code,
    verb: &str,
    values: impl Iterator<Item = (usize, String, Span)>,
    help: &str,
) {
    let mut seen: BTreeMap<String, (usize, Span)> = BTreeMap::new();
    // By the two engines: the first value they share, its places, and how many there are.
    let mut shared: BTreeMap<(usize, usize), (String, [Span; 2], usize)> = BTreeMap::new();
    for (at, value, span) in values {
        match seen.get(&value).copied() {
            None => {
                seen.insert(value, (at, span));
            }
            Some((first, _)) if first == at => {}
            Some((first, first_span)) => {
                let spans = [span, first_span];
                shared.entry((first, at)).or_insert((value, spans, 0)).2 += 1;
            }
        }
    }
    for ((first, at), (value, [span, first_span], n_values)) in shared {
        let more = match n_values {
            1 => String::new(),
            n => format!(" and {} more", n - 1),
        };
        let message = format!("engines {first} and {at} both {verb} {value}{more}");
        let mut diagnostic = Diagnostic::error(code, message).at(span).help(help);
        if first_span != span {
            diagnostic = diagnostic.also(first_span, format!("engine {first}"));
        }
        findings.push(diagnostic);
    }
}

/// What all engines of a node must have in common.
fn check_alike(cluster: &Cluster, kind: &Kind, findings: &mut Findings<'_>) {
    let Some((first, others)) = kind.engines.split_first() else { return };
    let release = versions::find_or_oldest(&cluster.daos.version);
    for (at, engine) in (1..).zip(others) {
        let differ = |what: &str, of_first: String, of_this: String| {
            format!("engine 0 has {of_first} {what}, engine {at} has {of_this}")
        };
        if engine.targets.value != first.targets.value {
            let (a, b) = (first.targets.value.to_string(), engine.targets.value.to_string());
            findings.push(
                Diagnostic::error(codes::TARGET_COUNTS, differ("targets", a, b))
                    .at(engine.targets.span)
                    .also(first.targets.span, "engine 0")
                    .help("give all engines of a node equally many"),
            );
        }
        if engine.helpers.value != first.helpers.value {
            let (a, b) = (first.helpers.value.to_string(), engine.helpers.value.to_string());
            findings.push(
                Diagnostic::error(codes::HELPER_COUNTS, differ("helpers", a, b))
                    .at(engine.helpers.span)
                    .also(first.helpers.span, "engine 0")
                    .help("give all engines of a node equally many"),
            );
        }
        let n_bdevs =
            |engine: &Engine| engine.bdevs.iter().map(|bdev| bdev.list.len()).sum::<usize>();
        if n_bdevs(engine) != n_bdevs(first) {
            let (a, b) = (n_bdevs(first).to_string(), n_bdevs(engine).to_string());
            findings.push(
                Diagnostic::warning(codes::BDEV_COUNTS, differ("block devices", a, b))
                    .at(engine.bdevs.first().map_or(engine.span, |bdev| bdev.list.span))
                    .help("DAOS goes on, but the engine with fewer fills up first"),
            );
        }
        if engine.scm.class.value != first.scm.class.value {
            findings.push(
                Diagnostic::error(
                    codes::SCM_CLASSES,
                    format!("engine 0 and engine {at} have scm of different classes"),
                )
                .at(engine.scm.class.span)
                .also(first.scm.class.span, "engine 0")
                .help("use one class for all engines of a node"),
            );
        }
        if engine.has_roles() != first.has_roles() {
            findings.push(
                Diagnostic::error(
                    codes::ENGINE_ROLES,
                    format!("only one of engine 0 and engine {at} has bdev roles"),
                )
                .at(engine.bdevs.first().map_or(engine.span, |bdev| bdev.span))
                .help("set roles on all engines (Metadata-on-SSD) or on none"),
            );
        }
        let is_strict = release.transparent_hugepages == TransparentHugepages::Refused;
        if is_strict && engine.scm.hugepages_disabled != first.scm.hugepages_disabled {
            findings.push(
                Diagnostic::error(
                    codes::SCM_HUGEPAGES,
                    format!("engine 0 and engine {at} differ in `hugepages_disabled`"),
                )
                .at(engine.scm.span)
                .also(first.scm.span, "engine 0")
                .help("set it for all engines of a node or for none"),
            );
        }
    }
}

/// Engines on one interface listen on one port per thread, counted from `port`.
fn check_port_ranges(kind: &Kind, findings: &mut Findings<'_>) {
    for (at, engine) in kind.engines.iter().enumerate() {
        for (other_at, other) in kind.engines[..at].iter().enumerate() {
            let (low, high) = match engine.port.value <= other.port.value {
                true => (engine, other),
                false => (other, engine),
            };
            let do_overlap = last_port(low) >= u64::from(high.port.value)
                && low.port.value != high.port.value
                && low.fabric_nic == high.fabric_nic;
            if do_overlap {
                let message = format!(
                    "engines {other_at} and {at} may both want port {} of `{}`",
                    high.port.value, high.fabric.value
                );
                findings.push(
                    Diagnostic::warning(codes::PORT_OVERLAP, message)
                        .at(engine.port.span)
                        .also(other.port.span, format!("engine {other_at}"))
                        .help("leave room for targets + helpers + 2 ports; 1000 apart is usual"),
                );
            }
        }
    }
}

/// DAOS spreads hugepages evenly over the NUMA nodes that have engines.
fn check_numa_balance(kind: &Kind, findings: &mut Findings<'_>) {
    let mut by_numa: BTreeMap<u32, usize> = BTreeMap::new();
    let mut last: Option<&Sited<u32>> = None;
    for engine in &kind.engines {
        let Some(numa) = &engine.numa else { return };
        *by_numa.entry(numa.value).or_default() += 1;
        last = Some(numa);
    }
    let mut counts = by_numa.values();
    let first = counts.next();
    if let (Some(last), true) = (last, counts.any(|count| Some(count) != first)) {
        let counts: Vec<String> =
            by_numa.iter().map(|(numa, n)| format!("{n} on NUMA node {numa}")).collect();
        findings.push(
            Diagnostic::error(
                codes::NUMA_IMBALANCE,
                format!("engines are spread unevenly: {}", counts.join(", ")),
            )
            .at(last.span)
            .help("give each NUMA node that has engines equally many"),
        );
    }
}

/// InfiniBand, or Ethernet in all its forms.
fn is_infiniband(cluster: &Cluster, nic: &Nic) -> bool {
    let net = nic.net.as_ref().and_then(|net| cluster.nets.get(&net.value));
    nic.link == Link::Infiniband || net.is_some_and(|net| net.kind == NetKind::Infiniband)
}

fn check_fabric_classes(cluster: &Cluster, kind: &Kind, findings: &mut Findings<'_>) {
    let Some((first, others)) = kind.engines.split_first() else { return };
    let class = |engine: &Engine| is_infiniband(cluster, &kind.hw.nics[engine.fabric_nic]);
    for (at, engine) in (1..).zip(others).filter(|(_, engine)| class(engine) != class(first)) {
        findings.push(
            Diagnostic::error(
                codes::FABRIC_CLASSES,
                format!("of engines 0 and {at}, one is on InfiniBand and one on Ethernet"),
            )
            .at(engine.fabric.span)
            .also(first.fabric.span, "engine 0")
            .help("put all engines on NICs of one class"),
        );
    }
}

/// `nvme tier`, `file tier` or `kdev tier`, for messages.
pub(super) fn tier_name(bdev: &Bdev) -> String {
    format!("{} tier", bdev_class(bdev.class.value))
}
