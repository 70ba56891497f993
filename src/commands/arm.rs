//! `nodeforge arm` and `disarm`: who may be installed.

use std::collections::BTreeSet;
use std::io::Write;

use anyhow::{Result, anyhow, bail};
use serde_json::json;

use crate::cli::{ArmArgs, DisarmArgs};
use crate::commands::Outcome;
use crate::commands::bmc::{self, Bmcs};
use crate::commands::serve::state_folder;
use crate::diag::Color;
use crate::range::{self, NodeName};
use crate::serve::arming::{self, Armed, Request};
use crate::serve::catalog::Catalog;
use crate::serve::store::Store;
use crate::serve::token::Key;

pub fn arm(args: &ArmArgs, color: Color) -> Result<Outcome> {
    let catalog = Catalog::current(&args.place.out)?;
    let nodes = nodes(&catalog, &args.nodes)?;
    let bmcs = match &args.bmc.network_boot {
        None => None,
        Some(cluster) => match Bmcs::read(&args.bmc, cluster.clone(), &nodes, color)? {
            None => return Ok(Outcome::Problems),
            bmcs => bmcs,
        },
    };
    let state = state_folder(&args.place.out, args.place.state.as_deref());
    let is_new_state = !state.join("state.db").exists();
    let store = Store::open(&state)?;
    let request = Request {
        seconds: i64::try_from(args.lasting.as_u64())?,
        wipe_daos: args.wipe_daos,
        overwrite: args.overwrite,
    };
    let armed = arming::arm(&store, Key::open(&state)?, &catalog, &nodes, request)?;
    tell(args, &nodes, &armed);
    if is_new_state {
        eprintln!(
            "note: made {}: a server that was started with another --state does not look there",
            state.display()
        );
    }
    let pending = &catalog.manifest().pxe.pending;
    if !pending.is_empty() {
        eprintln!(
            "warning: the boot tree still lacks {}: until `nodeforge fetch` and `build`, nodes that \
             want it wait in vain",
            pending.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
        );
    }
    let told = bmcs.as_ref().map_or_else(Vec::new, Bmcs::tell);
    if args.json {
        let json: Vec<_> = armed
            .iter()
            .enumerate()
            .map(|(at, it)| {
                let mut json = json!({ "node": it.node, "grant": it.grant, "expires": it.expires });
                if let Some((_, result)) = told.get(at) {
                    json["bmc"] = match result {
                        Ok(done) => json!({ "system": done.system, "reset": done.reset }),
                        Err(failure) => json!({ "error": bmc::in_full(failure) }),
                    };
                }
                json
            })
            .collect();
        print(&json)?;
    }
    let is_told = bmcs.as_ref().is_none_or(|bmcs| bmc::report(bmcs, &told));
    Ok(if is_told { Outcome::Done } else { Outcome::Problems })
}

fn tell(args: &ArmArgs, nodes: &BTreeSet<NodeName>, armed: &[Armed]) {
    let Some(first) = armed.first() else { return };
    eprintln!(
        "armed {} with grant {}: installed once, at the next network boot within {}",
        range::fold(nodes),
        first.grant,
        args.lasting,
    );
    if args.wipe_daos {
        eprintln!("note: the data of DAOS on {} will be lost", range::fold(nodes));
    }
    if args.bmc.network_boot.is_some() {
        return;
    }
    let again = nodes.iter().zip(armed).filter(|(_, it)| it.was_installed).map(|(node, _)| node);
    let again = range::fold(again);
    if !again.is_empty() {
        eprintln!(
            "note: {again} may boot from disk first, as UEFI does after an installation: choose \
             the network once (F12 or F11 on most machines), or have their BMCs do it: \
             --network-boot CLUSTER"
        );
    }
}

pub fn disarm(args: &DisarmArgs) -> Result<Outcome> {
    let catalog = Catalog::current(&args.place.out)?;
    let state = state_folder(&args.place.out, args.place.state.as_deref());
    let store = Store::open(&state)?;
    // Nodes that were taken out of the cluster keep their grants until somebody takes those away.
    let is_known = |node: &str| {
        catalog.node(node).is_some() || store.with_record(node, |record| record.is_some())
    };
    let nodes = nodes_of(&catalog, &args.nodes, is_known)?;
    let disarmed = arming::disarm(&store, &nodes)?;
    if args.json {
        print(&disarmed.iter().map(NodeName::as_str).collect::<Vec<_>>())?;
    }
    match disarmed.is_empty() {
        true => eprintln!("{}: not armed; nothing was changed", range::fold(&nodes)),
        false => eprintln!("disarmed {}", range::fold(&disarmed)),
    }
    Ok(Outcome::Done)
}

fn print(json: &impl serde::Serialize) -> Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, json)?;
    writeln!(out)?;
    Ok(())
}

/// The nodes that `range` names, which the boot tree must all have.
pub fn nodes(catalog: &Catalog, range: &str) -> Result<BTreeSet<NodeName>> {
    nodes_of(catalog, range, |node| catalog.node(node).is_some())
}

fn nodes_of(
    catalog: &Catalog,
    range: &str,
    is_known: impl Fn(&str) -> bool,
) -> Result<BTreeSet<NodeName>> {
    let names =
        range::expand(range).map_err(|fault| anyhow!("`{range}` is no range of nodes: {fault}"))?;
    let unknown: Vec<&NodeName> = names.iter().filter(|name| !is_known(name.as_str())).collect();
    if !unknown.is_empty() {
        let known: Vec<NodeName> = catalog.manifest().nodes.keys().map(NodeName::new).collect();
        bail!(
            "the boot tree has no node {}; it has: {}",
            range::fold(unknown),
            range::fold(&known)
        );
    }
    Ok(names.into_iter().collect())
}
