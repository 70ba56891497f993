//! `nodeforge generations`: what a boot tree can go back to.

use std::io::Write;
use std::time::SystemTime;

use anyhow::Result;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::changes::ListedChanges;
use crate::cli::GenerationsArgs;
use crate::commands::Outcome;
use crate::manifest::Manifest;
use crate::output::{self, ListedGeneration};
use crate::units::ByteSize;

/// One row of the list.
struct Row {
    number: u64,
    is_current: bool,
    made: String,
    /// Or why the generation cannot be used.
    contents: Result<Contents, String>,
}

struct Contents {
    n_nodes: usize,
    n_artifacts: usize,
    size: ByteSize,
    /// Against the one before it; `None` where there is none to compare with.
    changed: Option<NodeCounts>,
}

/// How many nodes are new, changed in anything, or gone.
#[derive(Clone, Copy)]
struct NodeCounts {
    added: usize,
    changed: usize,
    removed: usize,
}

impl NodeCounts {
    fn between(old: &Manifest, new: &Manifest) -> Self {
        let listed = ListedChanges::between(old, new);
        let changed = listed.n_changed(old, new);
        Self { added: listed.added.len(), changed, removed: listed.removed.len() }
    }
}

pub fn run(args: &GenerationsArgs) -> Result<Outcome> {
    let mut rows = Vec::new();
    let mut before: Option<Manifest> = None;
    output::generations(&args.out, |generation| {
        let (row, manifest) = row(generation, before.take());
        rows.push(row);
        before = manifest;
        Ok(())
    })?;
    let n_damaged = rows.iter().filter(|row| row.contents.is_err()).count();
    let has_current = rows.iter().any(|row| row.is_current);
    let mut out = std::io::stdout().lock();
    if args.json {
        let rows: Vec<Value> = rows.iter().map(as_json).collect();
        serde_json::to_writer_pretty(&mut out, &rows)?;
        writeln!(out)?;
    } else {
        print_table(&rows, &mut out)?;
    }
    if rows.is_empty() {
        eprintln!("nothing has been built into {} yet", args.out.display());
    } else if !has_current {
        eprintln!("warning: none of them is current");
    }
    let is_good = n_damaged == 0 && (has_current || rows.is_empty());
    Ok(if is_good { Outcome::Done } else { Outcome::Problems })
}

fn row(generation: ListedGeneration, before: Option<Manifest>) -> (Row, Option<Manifest>) {
    let (contents, manifest) = match generation.manifest {
        Ok(manifest) => {
            let changed = before.map(|before| NodeCounts::between(&before, &manifest));
            let size: u64 = manifest.artifacts().map(|artifact| artifact.file.size).sum();
            let contents = Contents {
                n_nodes: manifest.nodes.len(),
                n_artifacts: manifest.artifacts().count(),
                size: ByteSize::from_bytes(size),
                changed,
            };
            (Ok(contents), Some(manifest))
        }
        Err(fault) => (Err(fault), None),
    };
    let row = Row {
        number: generation.number,
        is_current: generation.is_current,
        made: utc(generation.made),
        contents,
    };
    (row, manifest)
}

/// `2024-01-02T03:04:05Z` (RFC 3339).
fn utc(at: SystemTime) -> String {
    let at = OffsetDateTime::from(at);
    let (hour, minute, second) = at.to_hms();
    let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

fn print_table(rows: &[Row], out: &mut impl Write) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "  {:>10}  {:20}  {:>6}  {:>9}  {:>10}  NODES CHANGED",
        "GENERATION", "MADE", "NODES", "ARTEFACTS", "SIZE"
    )?;
    for row in rows {
        let mark = if row.is_current { '*' } else { ' ' };
        write!(out, "{mark} {:>10}  {}  ", row.number, row.made)?;
        match &row.contents {
            Ok(contents) => writeln!(
                out,
                "{:>6}  {:>9}  {:>6.1} MiB  {}",
                contents.n_nodes,
                contents.n_artifacts,
                contents.size.bytes() as f64 / f64::from(1 << 20),
                changed(contents.changed),
            )?,
            Err(fault) => writeln!(out, "damaged: {fault}")?,
        }
    }
    Ok(())
}

/// `1 new, 3 changed, 2 gone`.
fn changed(counts: Option<NodeCounts>) -> String {
    let Some(NodeCounts { added, changed, removed }) = counts else { return "-".to_owned() };
    let parts: Vec<String> = [(added, "new"), (changed, "changed"), (removed, "gone")]
        .into_iter()
        .filter(|(n_nodes, _)| *n_nodes > 0)
        .map(|(n_nodes, what)| format!("{n_nodes} {what}"))
        .collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

fn as_json(row: &Row) -> Value {
    let contents = row.contents.as_ref();
    let counts = contents.ok().and_then(|contents| contents.changed);
    json!({
        "generation": row.number,
        "current": row.is_current,
        "made": row.made,
        "nodes": contents.ok().map(|contents| contents.n_nodes),
        "artifacts": contents.ok().map(|contents| contents.n_artifacts),
        "bytes": contents.ok().map(|contents| contents.size.bytes()),
        "nodes_added": counts.map(|counts| counts.added),
        "nodes_changed": counts.map(|counts| counts.changed),
        "nodes_removed": counts.map(|counts| counts.removed),
        "damage": contents.err(),
    })
}
