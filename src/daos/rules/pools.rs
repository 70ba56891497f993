//! Rules about the pools and containers to make after the format: what dmg or the servers
//! would refuse when nobody is looking any more.

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::{Cluster, Kind, Pool, PoolSize, Sited};
use crate::daos::rules::Findings;
use crate::diag::{Diagnostic, codes};
use crate::toml_doc::did_you_mean;

pub(super) fn check(cluster: &Cluster, findings: &mut Findings<'_>) {
    let pools = &cluster.daos.pools;
    check_labels(pools.iter().map(|pool| &pool.label), "pool", findings);
    for pool in pools {
        let labels = pool.containers.iter().map(|container| &container.label);
        check_labels(labels, "container", findings);
        check_size(pool, findings);
        check_ranks(cluster, pool, findings);
        check_properties(pool, findings);
        check_container_maker(cluster, pool, findings);
        check_container_owner(pool, findings);
    }
}

fn check_labels<'a>(
    labels: impl Iterator<Item = &'a Sited<String>>,
    what: &str,
    findings: &mut Findings<'_>,
) {
    let mut seen = BTreeMap::new();
    for label in labels {
        if let Some(first) = seen.insert(label.value.as_str(), label.span) {
            let message = format!("two {what}s are called `{}`", label.value);
            findings.push(
                Diagnostic::error(codes::LABEL_TWICE, message)
                    .at(label.span)
                    .also(first, "the first one")
                    .help(format!("give each {what} a label of its own")),
            );
        }
    }
}

/// `src/control/cmd/dmg/pool.go`: "size=% may not be mixed with tier-ratio".
fn check_size(pool: &Pool, findings: &mut Findings<'_>) {
    let Some(ratio) = &pool.tier_ratio else { return };
    if let PoolSize::Share(share) = pool.size.value {
        let message =
            format!("`{}` has a share of {share}% and a ratio of its tiers", pool.label.value);
        findings.push(
            Diagnostic::error(codes::POOL_OPTIONS, message)
                .at(ratio.span)
                .also(pool.size.span, "a share takes as much of every tier")
                .help("leave `tier_ratio` out, or give `size` in bytes, like `10TiB`"),
        );
    }
}

fn check_ranks(cluster: &Cluster, pool: &Pool, findings: &mut Findings<'_>) {
    let servers = cluster.kinds.iter().filter(|kind| kind.is_server());
    let n_engines: usize = servers.map(|kind| kind.n_nodes * kind.engines.len()).sum();
    let mut seen = BTreeSet::new();
    for rank in &pool.ranks {
        let message = if usize::try_from(rank.value).is_ok_and(|rank| rank >= n_engines) {
            format!("there is no rank {}: the cluster has {n_engines} engines", rank.value)
        } else if !seen.insert(rank.value) {
            format!("rank {} is listed twice", rank.value)
        } else {
            continue;
        };
        findings.push(
            Diagnostic::error(codes::POOL_RANKS, message)
                .at(rank.span)
                .help("ranks count the engines from 0; leave `ranks` out for all of them"),
        );
    }
}

/// What `dmg pool create --properties` takes in 2.6 (`src/control/lib/daos/pool_property.go`).
const POOL_PROPERTIES: [&str; 18] = [
    "checkpoint",
    "checkpoint_freq",
    "checkpoint_thresh",
    "data_thresh",
    "ec_cell_sz",
    "ec_pda",
    "perf_domain",
    "rd_fac",
    "reclaim",
    "reintegration",
    "rp_pda",
    "scrub",
    "scrub_freq",
    "scrub_thresh",
    "self_heal",
    "space_rb",
    "svc_ops_enabled",
    "svc_rf",
];

/// A warning: a release between those that were read may have more.
fn check_properties(pool: &Pool, findings: &mut Findings<'_>) {
    for (name, value) in &pool.properties {
        if POOL_PROPERTIES.contains(&name.as_str()) {
            continue;
        }
        let help = match did_you_mean(name, POOL_PROPERTIES) {
            Some(similar) => format!("did you mean `{similar}`?"),
            None => format!("known are {}", POOL_PROPERTIES.join(", ")),
        };
        let message = format!("`{name}` is no property of a pool that nodeforge knows");
        findings.push(
            Diagnostic::warning(codes::POOL_PROPERTY, message)
                .at(value.span)
                .help(help)
                .note("dmg refuses what it does not know, after the format"),
        );
    }
}

/// `daos` talks to the servers through an agent, which only clients have.
fn check_container_maker(cluster: &Cluster, pool: &Pool, findings: &mut Findings<'_>) {
    let Some(container) = pool.containers.first() else { return };
    let Some(admin) = cluster.daos.format_by.as_ref().and_then(|name| cluster.node(name.as_str()))
    else {
        return;
    };
    if !Kind::is_client(cluster.kind_of(admin)) {
        let name = &admin.name;
        let message = format!(
            "`{name}` cannot make the containers of `{}`: it is not a client",
            pool.label.value
        );
        findings.push(
            Diagnostic::error(codes::CONTAINERS_WITHOUT_AGENT, message)
                .at(container.span)
                .also(admin.span, "its roles lack `client`")
                .help(format!(
                    "add `client` to the roles of `{name}`, or leave the containers out"
                )),
        );
    }
}

/// Containers are made as root, who has no rights by being root.
fn check_container_owner(pool: &Pool, findings: &mut Findings<'_>) {
    let Some(container) = pool.containers.first() else { return };
    let is_roots = pool.user.as_ref().is_none_or(|user| user.value == "root@");
    let grants = |entry: &Sited<String>| {
        let mut parts = entry.value.split(':');
        let (principal, permissions) = (parts.nth(2), parts.next());
        principal == Some("root@") && permissions.is_some_and(|p| p.contains(['w', 'c']))
    };
    if !is_roots && !pool.acl.iter().any(grants) {
        let user = pool.user.as_ref().map_or("", |user| user.value.as_str());
        let message =
            format!("root may not make containers in `{}`, which is {user}'s", pool.label.value);
        findings.push(
            Diagnostic::error(codes::CONTAINER_OWNER, message)
                .at(container.span)
                .help("add `A::root@:rwc` to the pool's `acl`, with entries for all who use it; or leave `user` out"),
        );
    }
}
