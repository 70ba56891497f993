//! Rules about what holds for the whole cluster.

use std::collections::BTreeSet;

use crate::cluster::{Cluster, Kind, Sited};
use crate::daos::rules::Findings;
use crate::daos::versions;
use crate::diag::{Diagnostic, codes};
use crate::units::ByteSize;

pub(super) fn check(cluster: &Cluster, findings: &mut Findings<'_>) {
    check_version(cluster, findings);
    check_access_points(cluster, findings);
    check_access_point_names(cluster, findings);
    check_system_name(cluster, findings);
    check_provider(cluster, findings);
    check_control_ports(cluster, findings);
    check_reserved_ram(cluster, findings);
    check_fault_path(cluster, findings);
    check_admins(cluster, findings);
    check_control_metadata(cluster, findings);
    check_log_masks(cluster, findings);
    check_core_dump_filter(cluster, findings);
    check_packages(cluster, findings);
    check_variables(&cluster.daos.client_env, cluster, findings);
}

fn check_version(cluster: &Cluster, findings: &mut Findings<'_>) {
    let version = &cluster.daos.version;
    if versions::find(version).is_none() {
        let message = format!("nodeforge does not know the rules of DAOS {}", version.value);
        findings.push(
            Diagnostic::error(codes::DAOS_VERSION, message)
                .at(version.span)
                .help("name a release of 2.6 or 2.8 in full, like `version = \"2.6.0\"`"),
        );
    }
}

fn servers(cluster: &Cluster) -> impl Iterator<Item = &Kind> {
    cluster.kinds.iter().filter(|kind| kind.is_server())
}

/// 1, 3 or 5: the replicas of a raft database.
fn check_access_points(cluster: &Cluster, findings: &mut Findings<'_>) {
    let points = &cluster.daos.access_points;
    let n_points = points.len();
    let version = &cluster.daos.version.value;
    if n_points == 0 {
        findings.push(
            Diagnostic::error(codes::BAD_ACCESS_POINTS, "no access point is named")
                .at(points.span)
                .help("name 1, 3 or 5 servers; the first one bootstraps the system"),
        );
    } else if n_points.is_multiple_of(2) {
        let kept = if n_points == 2 { 1 } else { n_points - 1 };
        let kept: Vec<String> =
            points[..kept].iter().map(|name| format!("\"{}\"", name.value)).collect();
        let message = format!("an even number of access points: DAOS {version} refuses to start");
        findings.push(
            Diagnostic::error(codes::EVEN_ACCESS_POINTS, message)
                .at_labelled(points.span, format!("{n_points} hosts"))
                .help(format!("name 1, 3 or 5 servers: access_points = [{}]", kept.join(", ")))
                .note("`nodeforge explain DAOS-706` tells more"),
        );
    } else if n_points == 1 && servers(cluster).any(|kind| kind.hw.vm.is_none()) {
        warn_of_a_single_access_point(cluster, findings);
    }
}

fn warn_of_a_single_access_point(cluster: &Cluster, findings: &mut Findings<'_>) {
    let n_servers: usize = servers(cluster).map(|kind| kind.n_nodes).sum();
    let help = match n_servers {
        0..3 => {
            "with fewer than three servers, keep a nightly copy of \
                 control_metadata's `daos_control/control_raft` elsewhere"
        }
        _ => "name 3 or 5 servers, in different racks",
    };
    let points = &cluster.daos.access_points;
    findings.push(
        Diagnostic::warning(
            codes::SINGLE_ACCESS_POINT,
            "a single access point: when this server is lost, so is the management database",
        )
        .at(points.span)
        .help(help),
    );
}

fn check_access_point_names(cluster: &Cluster, findings: &mut Findings<'_>) {
    let mut seen = BTreeSet::new();
    for point in cluster.daos.access_points.iter() {
        if !seen.insert(&point.value) {
            let message = format!("the access point `{}` is named twice", point.value);
            findings.push(
                Diagnostic::error(codes::BAD_ACCESS_POINTS, message)
                    .at(point.span)
                    .help("each replica of the management database needs a server of its own"),
            );
        }
        // A name that is no node at all has been reported where the file was resolved.
        let Some(node) = cluster.node(point.as_str()) else { continue };
        if !cluster.kind_of(node).is_server() {
            let message = format!("the access point `{}` is not a server", point.value);
            findings.push(
                Diagnostic::error(codes::NOT_A_SERVER, message)
                    .at(point.span)
                    .also(node.span, "its roles lack `server`")
                    .help("name a node with the role `server`: daos_server runs nowhere else"),
            );
        }
    }
}

/// `DAOS_SYS_NAME_MAX` is 15 (`src/include/daos_types.h`).
fn check_system_name(cluster: &Cluster, findings: &mut Findings<'_>) {
    let name = &cluster.daos.system_name;
    if !(1..=15).contains(&name.len()) {
        let message = format!("the system name `{}` has {} characters", name.value, name.len());
        findings.push(
            Diagnostic::error(codes::SYSTEM_NAME, message)
                .at(name.span)
                .help("use 1 to 15 characters; DAOS's documentation advises `daos_server`"),
        );
    }
}

/// What CaRT has a plugin for (`src/cart/crt_hg.c`, 2.6.0). Those with a comma are left out:
/// the control plane reads it as two providers and refuses.
const PROVIDERS: [&str; 15] = [
    "ofi+tcp",
    "ofi+tcp;ofi_rxm",
    "ofi+verbs",
    "ofi+verbs;ofi_rxm",
    "ofi+cxi",
    "ofi+opx",
    "ucx+tcp",
    "ucx+rc",
    "ucx+rc_v",
    "ucx+rc_x",
    "ucx+ud",
    "ucx+ud_v",
    "ucx+ud_x",
    "ucx+dc_x",
    "ucx+all",
];

fn check_provider(cluster: &Cluster, findings: &mut Findings<'_>) {
    let provider = &cluster.daos.provider;
    if provider.contains(',') || !PROVIDERS.contains(&provider.as_str()) {
        let message = format!("DAOS has no fabric provider `{}`", provider.value);
        findings.push(
            Diagnostic::error(codes::PROVIDER, message)
                .at(provider.span)
                .help(format!("choose exactly one of {}", PROVIDERS.join(", "))),
        );
    }
    let is_ofed = |name: &str| {
        let name = name.to_ascii_lowercase();
        ["mlnx", "ofed", "doca", "mellanox"].iter().any(|word| name.contains(word))
    };
    let has_ofed = cluster.repos.iter().any(|(name, repo)| {
        let source = match &repo.archive {
            Some(archive) => archive.path.file_name().unwrap_or_default().to_string_lossy(),
            None => repo.baseurl.as_str().into(),
        };
        is_ofed(name) || is_ofed(&source)
    });
    if needs_ofed(provider) && !has_ofed {
        let message = format!("`{}` without a repository of MLNX_OFED", provider.value);
        findings.push(
            Diagnostic::error(codes::VERBS_WITHOUT_OFED, message)
                .at(provider.span)
                .help("add `[repo.mlnx_ofed]` with its ISO or tarball as `archive`, or the `baseurl` of a mirror")
                .note("DAOS is validated with MLNX_OFED; EL8's own drivers are not supported"),
        );
    }
}

/// Whether the provider speaks InfiniBand verbs.
pub(super) fn needs_ofed(provider: &str) -> bool {
    provider.starts_with("ofi+verbs") || (provider.starts_with("ucx+") && provider != "ucx+tcp")
}

/// Whether the provider's traffic is routed like any other.
pub(super) fn is_routed(provider: &str) -> bool {
    provider.starts_with("ofi+tcp") || provider == "ucx+tcp"
}

fn check_control_ports(cluster: &Cluster, findings: &mut Findings<'_>) {
    let daos = &cluster.daos;
    let telemetry = [&daos.telemetry_port, &daos.agent.telemetry_port].into_iter().flatten();
    for port in telemetry.filter(|port| port.value == daos.port.value) {
        let message =
            format!("port {} is wanted by telemetry and by the control plane", port.value);
        findings.push(
            Diagnostic::error(codes::BAD_PORT, message)
                .at(port.span)
                .help("9191 for servers and 9192 for agents are usual"),
        );
    }
}

fn check_reserved_ram(cluster: &Cluster, findings: &mut Findings<'_>) {
    let reserved = &cluster.daos.system_ram_reserved;
    if reserved.value < ByteSize::from_gib(1) {
        let message = format!("{} is too little memory for the system", reserved.value);
        findings.push(
            Diagnostic::error(codes::NO_RESERVED_RAM, message)
                .at(reserved.span)
                .help("reserve at least 1GiB; servers want the default"),
        );
    } else {
        check_whole_gib("system_ram_reserved", reserved, findings);
    }
}

/// DAOS's files count in GiB, and its reader cuts `4.5` to 4 without a word.
pub(super) fn check_whole_gib(what: &str, size: &Sited<ByteSize>, findings: &mut Findings<'_>) {
    if !size.is_whole_gib() {
        let message = format!("{what} is {}, not a whole number of GiB", size.value);
        let (below, above) = (size.gib(), size.gib() + 1);
        findings.push(
            Diagnostic::error(codes::FRACTIONAL_SIZE, message)
                .at(size.span)
                .help(format!("write {below}GiB or {above}GiB: DAOS's files know no other unit")),
        );
    }
}

fn check_fault_path(cluster: &Cluster, findings: &mut Findings<'_>) {
    let Some(path) = &cluster.daos.fault_path else { return };
    // That it starts at the root and has no empty level was checked when it was read.
    let n_levels = path.split('/').skip(1).count();
    if n_levels > 2 {
        findings.push(
            Diagnostic::error(
                codes::FAULT_PATH_DEPTH,
                format!("a fault path of {n_levels} levels: DAOS takes two"),
            )
            .at(path.span)
            .help("keep the level that fails together, like `/{rack}/{name}`"),
        );
    }
}

fn check_admins(cluster: &Cluster, findings: &mut Findings<'_>) {
    let span = cluster.daos.span;
    let has_servers = servers(cluster).next().is_some();
    let has_admins = cluster.kinds.iter().any(Kind::is_admin);
    if !has_servers {
        findings.push(
            Diagnostic::error(codes::EMPTY_HOST_LIST, "no node has the role `server`")
                .at(span)
                .help("give nodes the role: dmg's host list would be empty"),
        );
    } else if !has_admins {
        findings.push(
            Diagnostic::error(codes::NO_ADMIN, "no node has the role `admin`: nobody formats")
                .at(span)
                .help("add `admin` to the roles of one node, which may be a server"),
        );
    }
    let Some(format_by) = &cluster.daos.format_by else { return };
    let Some(node) = cluster.node(format_by.as_str()) else { return };
    if !cluster.kind_of(node).is_admin() {
        let message = format!("`{}` cannot format: it is not an admin", format_by.value);
        findings.push(
            Diagnostic::error(codes::FORMAT_BY, message)
                .at(format_by.span)
                .also(node.span, "its roles lack `admin`")
                .help("name a node with the role `admin`, or leave `format_by` out"),
        );
    }
}

/// What a path stands on, as far as its name tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ground {
    Lasting,
    /// Emptied by a reboot.
    Volatile,
    /// Cleaned of what is older than 30 days (systemd's tmpfiles.d/tmp.conf on EL8).
    Swept,
    /// Mounted nosuid on EL8, or by automount from the network.
    Unusable,
}

pub(super) fn ground(path: &str) -> Ground {
    let is_under = |folder: &str| path == folder || path.starts_with(&format!("{folder}/"));
    let is_under_any = |folders: &[&str]| folders.iter().any(|folder| is_under(folder));
    if is_under("/var/tmp") {
        Ground::Swept
    } else if is_under("/tmp") {
        Ground::Volatile
    } else if is_under_any(&["/run", "/var/run", "/dev", "/proc", "/sys", "/net", "/nfs", "/misc"])
    {
        Ground::Unusable
    } else {
        Ground::Lasting
    }
}

fn check_control_metadata(cluster: &Cluster, findings: &mut Findings<'_>) {
    let path = &cluster.daos.control_metadata.path;
    if !servers(cluster).any(Kind::has_control_metadata) {
        return;
    }
    let help = "leave it at /var/lib/daos, which gets a filesystem of its own that reinstalls keep";
    let diagnostic = match ground(path) {
        Ground::Lasting => return,
        Ground::Unusable => Diagnostic::error(
            codes::METADATA_FILESYSTEM,
            format!("control_metadata cannot be in {}: nosuid or not local", path.value),
        ),
        Ground::Volatile | Ground::Swept => Diagnostic::error(
            codes::VOLATILE_PATH,
            format!("control_metadata would not last in {}", path.value),
        )
        .note("without its superblocks DAOS takes used SSDs for new ones and wipes them"),
    };
    findings.push(diagnostic.at(path.span).help(help));
}

/// `logging.LogLevel` takes any case.
const CONTROL_LEVELS: [&str; 6] = ["DISABLED", "TRACE", "DEBUG", "INFO", "NOTICE", "ERROR"];

fn check_log_masks(cluster: &Cluster, findings: &mut Findings<'_>) {
    let daos = &cluster.daos;
    for mask in [&daos.control_log_mask, &daos.agent.log_mask].into_iter().flatten() {
        if !CONTROL_LEVELS.iter().any(|level| level.eq_ignore_ascii_case(mask)) {
            let message = format!("the control plane has no log level `{}`", mask.value);
            findings.push(
                Diagnostic::error(codes::LOG_LEVEL, message)
                    .at(mask.span)
                    .help(format!("choose one of {}", CONTROL_LEVELS.join(", "))),
            );
        }
    }
}

fn check_core_dump_filter(cluster: &Cluster, findings: &mut Findings<'_>) {
    let daos = &cluster.daos;
    // A byte in DAOS's reader.
    if let Some(filter) = daos.core_dump_filter.as_ref().filter(|filter| filter.value > 255) {
        let message = format!("core_dump_filter {} does not fit into 8 bits", filter.value);
        findings.push(
            Diagnostic::error(codes::OUT_OF_RANGE, message)
                .at(filter.span)
                .help("leave it out for DAOS's own, 19: private and shared memory, ELF headers"),
        );
    }
}

fn check_packages(cluster: &Cluster, findings: &mut Findings<'_>) {
    let gpgcheck = &cluster.daos.repo.gpgcheck;
    if !gpgcheck.value {
        findings.push(
            Diagnostic::warning(
                codes::UNSIGNED_PACKAGES,
                "the signatures of DAOS's packages are not checked",
            )
            .at(gpgcheck.span)
            .help(
                "set `gpgcheck = true` and \
                 `gpgkey = [\"https://packages.daos.io/RPM-GPG-KEY-2023\"]`",
            ),
        );
    }
}

/// Variables of libfabric's sockets provider, which this DAOS does not have.
pub(super) fn check_variables(
    variables: &[Sited<String>],
    cluster: &Cluster,
    findings: &mut Findings<'_>,
) {
    for variable in variables.iter().filter(|variable| variable.starts_with("FI_SOCKETS_")) {
        let name = variable.split('=').next().unwrap_or_default();
        let message = format!("{name} has no effect with `{}`", cluster.daos.provider.value);
        findings.push(
            Diagnostic::warning(codes::USELESS_VARIABLE, message)
                .at(variable.span)
                .help("leave it out: it belongs to the provider `sockets`"),
        );
    }
}
