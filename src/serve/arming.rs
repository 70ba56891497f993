//! Giving and taking the permission to install.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};

use crate::range::{self, NodeName};
use crate::serve::catalog::Catalog;
use crate::serve::machine::{Grant, State, Time};
use crate::serve::store::{Change, Store};
use crate::serve::token::{Key, Purpose};
use crate::serve::{now, server_entry};

/// What is granted to all nodes alike.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub seconds: Time,
    pub wipe_daos: bool,
    pub overwrite: bool,
}

/// One node that was armed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Armed {
    pub node: String,
    pub grant: u64,
    pub expires: Time,
    /// It may have a system on its disk, which UEFI firmware then boots first.
    pub was_installed: bool,
}

/// Arms `nodes`, all or none.
///
/// # Errors
///
/// Fails if one of them is being installed or has no MAC address, or if the servers would come
/// to run different versions of DAOS (2.6 has no rolling upgrade); tells all of them.
pub fn arm(
    store: &Store,
    key: Key,
    catalog: &Catalog,
    nodes: &BTreeSet<NodeName>,
    request: Request,
) -> Result<Vec<Armed>> {
    let without_mac = nodes.iter().filter(|node| catalog.boot_of(node.as_str()).is_none());
    let without_mac = range::fold(without_mac);
    ensure!(without_mac.is_empty(), "{without_mac} cannot boot from the network: no MAC address");
    let servers: BTreeMap<NodeName, String> = catalog
        .manifest()
        .nodes
        .iter()
        .filter_map(|(name, node)| Some((NodeName::new(name), node.boot.as_ref()?.daos.clone()?)))
        .collect();
    let mac = |name: &NodeName| {
        let mac = catalog.node(name.as_str())?.macs.first()?;
        Some((name.clone(), mac.clone()))
    };
    let macs: BTreeMap<NodeName, String> = nodes.iter().filter_map(mac).collect();
    let nodes = nodes.clone();
    store.change_now(move |change| {
        require_idle(change, &nodes)?;
        require_one_version(change, &nodes, &servers)?;
        let grant = change.new_grant(now())?;
        let arm_one = |node: &NodeName| {
            let identity = (macs.get(node).cloned(), servers.get(node).cloned());
            arm_one(change, &key, node.as_str(), grant, identity, request)
        };
        let armed = nodes.iter().map(arm_one).collect::<Result<_>>()?;
        Store::tell_others(change)?;
        Ok(armed)
    })
}

fn arm_one(
    change: &mut Change<'_>,
    key: &Key,
    node: &str,
    id: u64,
    (mac, daos): (Option<String>, Option<String>),
    request: Request,
) -> Result<Armed> {
    let mut record = change.record(node);
    let expires = now() + request.seconds;
    let grant = Grant {
        id,
        armed: now(),
        expires,
        mac,
        wipe_daos: request.wipe_daos,
        overwrite: request.overwrite,
        daos,
        secret: key.token(Purpose::Secrets, node, id).digest(),
        event: key.token(Purpose::Events, node, id).digest(),
        attempts: 0,
        last_attempt: 0,
        is_heard: false,
        before: State::Unknown,
        reason_before: None,
        generation: 0,
    };
    let was_installed = record.installed.is_some();
    record.arm(grant, now())?;
    let what = if request.wipe_daos { "; DAOS's data is given up" } else { "" };
    change.note(node, &server_entry("armed", State::Armed, format!("grant {id}{what}")))?;
    change.put(node, record)?;
    Ok(Armed { node: node.to_owned(), grant: id, expires, was_installed })
}

fn require_idle(change: &Change<'_>, nodes: &BTreeSet<NodeName>) -> Result<()> {
    let is_busy = |node: &&NodeName| change.record(node.as_str()).state == State::Installing;
    let busy = range::fold(nodes.iter().filter(is_busy));
    ensure!(
        busy.is_empty(),
        "{busy}: being installed now; wait, or disarm first. Nothing was armed"
    );
    Ok(())
}

/// The version that each server will have when all grants are used must be one.
fn require_one_version(
    change: &Change<'_>,
    nodes: &BTreeSet<NodeName>,
    servers: &BTreeMap<NodeName, String>,
) -> Result<()> {
    if !nodes.iter().any(|node| servers.contains_key(node)) {
        return Ok(());
    }
    let mut by_version: BTreeMap<String, Vec<&NodeName>> = BTreeMap::new();
    for (server, built) in servers {
        let version = match nodes.contains(server) {
            true => Some(built.clone()),
            false => {
                let record = change.record(server.as_str());
                let granted = record.grant.and_then(|grant| grant.daos);
                granted.or_else(|| record.installed.and_then(|installed| installed.daos))
            }
        };
        if let Some(version) = version {
            by_version.entry(version).or_default().push(server);
        }
    }
    let told: Vec<String> = by_version
        .iter()
        .map(|(version, servers)| format!("{version} on {}", range::fold(servers.iter().copied())))
        .collect();
    ensure!(
        by_version.len() <= 1,
        "all servers run one version of DAOS, and there would be {}: arm all servers together. \
         Nothing was armed",
        told.join(", ")
    );
    Ok(())
}

/// Takes the grants of `nodes` away; returns the nodes that had one.
///
/// # Errors
///
/// Fails if the state cannot be written.
pub fn disarm(store: &Store, nodes: &BTreeSet<NodeName>) -> Result<Vec<NodeName>> {
    let nodes = nodes.clone();
    store.change_now(move |change| {
        let mut disarmed = Vec::new();
        for node in nodes {
            let mut record = change.record(node.as_str());
            if record.disarm(now()) {
                let entry = server_entry("disarmed", record.state, String::new());
                change.note(node.as_str(), &entry)?;
                change.put(node.as_str(), record)?;
                disarmed.push(node);
            }
        }
        Store::tell_others(change)?;
        Ok(disarmed)
    })
}
