//! `nodeforge why`: which line set a value, and what it overrode.

use std::io::Write;

use anyhow::Result;

use crate::cli::WhyArgs;
use crate::cluster::{self, Cluster, DiskBoot, Rule, Why, WhyError};
use crate::commands::{Outcome, load};
use crate::daos::memory::{self, Demand};
use crate::diag::{Color, SourceMap};
use crate::range::NodeName;

pub fn run(args: &WhyArgs, color: Color) -> Result<Outcome> {
    let Some(loaded) = load::resolved(&args.cluster, color)? else { return Ok(Outcome::Problems) };
    let node = NodeName::new(&args.node);
    let why = match cluster::why(&loaded.source.doc, &loaded.source.map, &node, &args.key) {
        Ok(why) => why,
        Err(WhyError::NoNode(name)) => return Err(load::no_node(&loaded.cluster, &name)),
        Err(fault) => return Err(fault.into()),
    };
    let mut out = std::io::stdout().lock();
    let by_default = || worked_out(&loaded.cluster, &node, &args.key);
    let value = computed(&loaded.cluster, &node, &args.key)
        .or_else(|| why.said.is_empty().then(by_default).flatten())
        .unwrap_or_else(|| why.value.clone());
    writeln!(out, "{} = {value}", args.key)?;
    print_history(&why, &loaded.source.map, &mut out)?;
    if !why.doc.is_empty() {
        writeln!(out, "  {}", why.doc)?;
    }
    Ok(Outcome::Done)
}

fn print_history(why: &Why, sources: &SourceMap, out: &mut impl Write) -> Result<()> {
    if why.said.is_empty() {
        writeln!(out, "  by default; nothing sets it")?;
    }
    for (at, said) in why.said.iter().rev().enumerate() {
        let verb = match (why.rule, at) {
            (Rule::Add, _) => "said by",
            (Rule::Replace, 0) => "set by",
            (Rule::Replace, _) => "over",
        };
        writeln!(out, "  {verb:<7} {}  {} = {}", said.by, sources.place(said.span), said.value)?;
    }
    Ok(())
}

/// What a rule makes of a default that is not one value for all: of nothing said, what the
/// node gets.
fn worked_out(cluster: &Cluster, node: &NodeName, key: &str) -> Option<String> {
    let node = cluster.node(node.as_str())?;
    let kind = cluster.kind_of(node);
    let (daos, hw) = (&cluster.daos, &kind.hw);
    let quoted = |text: &str| Some(format!("\"{text}\""));
    match key.strip_prefix("os.").or(key.strip_prefix("hw.")).unwrap_or(key) {
        "daos.system_ram_reserved" => {
            quoted(&daos.system_ram_reserved.to_string().replace(' ', ""))
        }
        "daos.format_by" => quoted(daos.format_by.as_ref()?.as_str()),
        "daos.repo.baseurl" => quoted(&daos.repo.baseurl),
        "daos.repo.module_hotfixes" => Some(daos.repo.module_hotfixes.to_string()),
        "daos.nr_hugepages" if kind.is_server() => {
            Some(Demand::of(daos, &kind.engines).nr_hugepages.to_string())
        }
        "mirror" => quoted(&kind.os.mirror),
        "mem_total" => Some(memory::mem_total(hw).to_string()),
        "disk_boot" => quoted(match hw.disk_boot {
            DiskBoot::Exit => "exit",
            DiskBoot::ExitFail => "exit 1",
            DiskBoot::Sanboot => "sanboot",
            DiskBoot::Chain => "chain",
        }),
        key => {
            let (nic, field) = key.strip_prefix("nic.")?.split_once('.')?;
            let nic = hw.nics.iter().find(|known| known.key == nic)?;
            match field {
                "name" => quoted(&nic.name),
                "boot" => Some(nic.is_boot.to_string()),
                _ => None,
            }
        }
    }
}

/// What a rule or an inventory makes of a NIC's value for this node.
fn computed(cluster: &Cluster, node: &NodeName, key: &str) -> Option<String> {
    let (key, field) = key.strip_prefix("nic.")?.split_once('.')?;
    let node = cluster.node(node.as_str())?;
    let at = cluster.kind_of(node).hw.nics.iter().position(|nic| nic.key == key)?;
    let nic = &node.nics[at];
    match field {
        "ip" => Some(format!("\"{}\"", nic.ip?)),
        "mac" => Some(format!("\"{}\"", nic.mac?)),
        "guid" => Some(format!("\"{}\"", nic.guid?)),
        _ => None,
    }
}
