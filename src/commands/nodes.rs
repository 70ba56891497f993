//! `nodeforge nodes`: who is in the cluster.

use std::collections::BTreeSet;
use std::io::Write;

use anyhow::Result;
use serde::Serialize;

use crate::cli::NodesArgs;
use crate::cluster::{Cluster, Node};
use crate::commands::{Outcome, load};
use crate::diag::Color;
use crate::range::NodeName;
use crate::render::context;

/// One row of the list.
#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    roles: Vec<&'a str>,
    hw: &'a str,
    mac: Option<String>,
    address: Option<String>,
    rack: Option<&'a str>,
    serial: Option<&'a str>,
}

pub fn run(args: &NodesArgs, color: Color) -> Result<Outcome> {
    let Some(loaded) = load::resolved(&args.cluster, color)? else { return Ok(Outcome::Problems) };
    let cluster = &loaded.cluster;
    let only = load::selection(cluster, args.only.as_deref())?;
    let nodes = || cluster.nodes.iter().filter(|node| only.contains(&node.name));
    let mut out = std::io::stdout().lock();
    if args.json {
        let rows: Vec<Row<'_>> = nodes().map(|node| row(cluster, node)).collect();
        serde_json::to_writer_pretty(&mut out, &rows)?;
        writeln!(out)?;
    } else if args.hosts {
        print_hosts(cluster, &only, &mut out)?;
    } else if args.ethers {
        for row in nodes().map(|node| row(cluster, node)) {
            writeln!(out, "{} {}", row.mac.unwrap_or_default(), row.name)?;
        }
    } else {
        print_table(nodes().map(|node| row(cluster, node)).collect(), &mut out)?;
    }
    Ok(Outcome::Done)
}

fn row<'a>(cluster: &'a Cluster, node: &'a Node) -> Row<'a> {
    let kind = cluster.kind_of(node);
    let boot = kind.boot_nic().and_then(|at| node.nics.get(at));
    Row {
        name: node.name.as_str(),
        roles: kind.roles.iter().map(|role| role.value.as_str()).collect(),
        hw: &kind.hw.name.value,
        mac: boot.and_then(|nic| nic.mac).map(|mac| mac.to_string()),
        address: cluster.primary_address(node).map(|address| address.to_string()),
        rack: node.rack.as_deref(),
        serial: node.serial.as_deref(),
    }
}

/// The lines of the file that all nodes get, for the selected ones.
fn print_hosts(cluster: &Cluster, only: &BTreeSet<NodeName>, out: &mut impl Write) -> Result<()> {
    for host in context::hosts(cluster, |node| only.contains(&node.name)) {
        writeln!(out, "{} {}", host.address, host.names)?;
    }
    Ok(())
}

fn print_table(rows: Vec<Row<'_>>, out: &mut impl Write) -> Result<()> {
    let dash = || "-".to_owned();
    let mut cells: Vec<[String; 6]> =
        vec![["NAME", "ROLES", "MAC", "ADDRESS", "RACK", "SERIAL"].map(str::to_owned)];
    cells.extend(rows.into_iter().map(|row| {
        [
            row.name.to_owned(),
            row.roles.join(","),
            row.mac.unwrap_or_else(dash),
            row.address.unwrap_or_else(dash),
            row.rack.map_or_else(dash, str::to_owned),
            row.serial.map_or_else(dash, str::to_owned),
        ]
    }));
    let width = |column: usize| cells.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..6).map(width).collect();
    for row in &cells {
        let padded = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        writeln!(out, "{}", padded.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}
