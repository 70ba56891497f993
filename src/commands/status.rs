//! `nodeforge status`: how far the nodes are.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::cli::StatusArgs;
use crate::commands::serve::state_folder;
use crate::commands::{Outcome, arm};
use crate::range::{self, NodeName};
use crate::serve::catalog::Catalog;
use crate::serve::machine::{Record, Time};
use crate::serve::now;
use crate::serve::status::{self, ClusterStatus, Row};
use crate::serve::store::{self, Records};

/// How often --watch looks.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    cluster: ClusterStatus,
    nodes: &'a [Row<'a>],
}

pub fn run(args: &StatusArgs) -> Result<Outcome> {
    let state = state_folder(&args.place.out, args.place.state.as_deref());
    tell_of_strangers(args, &state)?;
    let mut last = String::new();
    loop {
        let text = text(args, &state)?;
        if text != last {
            let mut out = std::io::stdout().lock();
            out.write_all(text.as_bytes())?;
            out.flush()?;
            last = text;
        }
        if !args.watch {
            return Ok(Outcome::Done);
        }
        std::thread::sleep(LOOK);
    }
}

fn text(args: &StatusArgs, state: &Path) -> Result<String> {
    let catalog = Catalog::current(&args.place.out)?;
    let only = args.nodes.as_deref().map(|range| arm::nodes(&catalog, range)).transpose()?;
    let mut records = store::peek(state)?;
    for record in records.values_mut().filter(|record| record.has_expired(now())) {
        // A server that runs writes it down.
        Arc::make_mut(record).expire(now());
    }
    let cluster = ClusterStatus::of(&catalog, |node| record(&records, node));
    let rows = chosen(status::rows(&catalog, |node| record(&records, node)), only.as_ref());
    let mut text = match (args.json, args.watch) {
        (true, true) => serde_json::to_string(&Whole { cluster, nodes: &rows })?,
        (true, false) => serde_json::to_string_pretty(&Whole { cluster, nodes: &rows })?,
        (false, _) => table(&cluster, &rows, args.watch),
    };
    text.push('\n');
    Ok(text)
}

/// Nodes that the boot tree does not have any more are in no list; what they may do is told.
fn tell_of_strangers(args: &StatusArgs, state: &Path) -> Result<()> {
    let catalog = Catalog::current(&args.place.out)?;
    let records = store::peek(state)?;
    let strangers = records.iter().filter(|(node, record)| {
        catalog.node(node).is_none() && record.grant.is_some() && !record.has_expired(now())
    });
    let mut alike: BTreeMap<String, BTreeSet<NodeName>> = BTreeMap::new();
    for (node, record) in strangers {
        let state = match &record.reason {
            Some(reason) => format!("{} ({reason})", record.state.word()),
            None => record.state.word().to_owned(),
        };
        alike.entry(state).or_default().insert(NodeName::new(&**node));
    }
    for (state, nodes) in alike {
        let names = range::fold(&nodes);
        eprintln!(
            "warning: {names}: {state}, and not in the boot tree any more: `nodeforge disarm '{names}'` \
             ends that, and takes tokens away"
        );
    }
    Ok(())
}

fn record(records: &Records, node: &str) -> Arc<Record> {
    records.get(node).cloned().unwrap_or_default()
}

fn chosen<'a>(rows: Vec<Row<'a>>, only: Option<&BTreeSet<NodeName>>) -> Vec<Row<'a>> {
    let is_chosen = |row: &Row<'_>| only.is_none_or(|only| only.contains(&NodeName::new(row.name)));
    rows.into_iter().filter(is_chosen).collect()
}

/// Ages change all the time: what is watched has the times instead, and is told when it changes.
fn table(cluster: &ClusterStatus, rows: &[Row<'_>], is_watched: bool) -> String {
    let when = |since: Option<Time>| match (since, is_watched) {
        (None, _) => "-".to_owned(),
        (Some(since), true) => clock(since),
        (Some(since), false) => age(now().saturating_sub(since)),
    };
    let mut cells = vec![["NAME", "STATE", "SINCE", "STEP", "REASON"].map(str::to_owned)];
    cells.extend(rows.iter().map(|row| {
        let step = if row.step.is_empty() { "-" } else { &row.step };
        let reason = row.reason.clone().unwrap_or_default();
        [row.name.to_owned(), row.state.word().to_owned(), when(row.since), step.to_owned(), reason]
    }));
    let width = |column: usize| cells.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..5).map(width).collect();
    let mut text = String::new();
    for row in &cells {
        let padded = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(padded.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    let counts = cluster.counts.iter().filter(|(_, count)| **count > 0);
    let counts: Vec<String> = counts.map(|(state, count)| format!("{count} {state}")).collect();
    text.push_str(&format!(
        "{}, generation {}: {}",
        cluster.name,
        cluster.generation,
        counts.join(", ")
    ));
    if is_watched {
        text.push('\n');
    }
    text
}

/// `14:05:09`, UTC.
fn clock(time: Time) -> String {
    let second = time.rem_euclid(86_400);
    format!("{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// `42s`, `7min`, `3h`, `12d`.
fn age(seconds: Time) -> String {
    match seconds.max(0) {
        seconds @ 0..100 => format!("{seconds}s"),
        seconds @ 100..6_000 => format!("{}min", seconds / 60),
        seconds @ 6_000..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}
