//! `nodeforge why`: which line set a value, and what it overrode.

use std::io::Write;

use anyhow::Result;

use crate::cli::WhyArgs;
use crate::cluster::{self, Cluster, Rule, Why, WhyError};
use crate::commands::{Outcome, load};
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
    let value = computed(&loaded.cluster, &node, &args.key).unwrap_or_else(|| why.value.clone());
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
