//! `nodeforge media verify`: whether a medium is whole, and whose.

use std::io::Write;

use anyhow::Result;
use serde_json::json;

use crate::cli::MediaVerifyArgs;
use crate::commands::Outcome;
use crate::range::{self, NodeName};
use crate::remaster::verify::{MediumKind, Verified, verify};

pub fn run(args: &MediaVerifyArgs) -> Result<Outcome> {
    let found = verify(&args.file)?;
    let names: Vec<NodeName> = found.nodes.iter().map(NodeName::new).collect();
    let nodes = range::fold(&names);
    let mut out = std::io::stdout().lock();
    if args.json {
        let json = json!({
            "good": found.problems.is_empty(),
            "kind": found.kind.as_str(),
            "label": found.label,
            "nodes": found.nodes,
            "problems": found.problems,
        });
        serde_json::to_writer_pretty(&mut out, &json)?;
        writeln!(out)?;
    } else {
        for problem in &found.problems {
            writeln!(out, "{problem}")?;
        }
    }
    eprintln!("{}: {}: {}", args.file.display(), what(&found, &nodes), state(&found));
    Ok(match found.problems.is_empty() {
        true => Outcome::Done,
        false => Outcome::Problems,
    })
}

fn what(found: &Verified, nodes: &str) -> String {
    let of = match found.nodes.len() {
        0 => "nobody, it installs nothing".to_owned(),
        _ => nodes.to_owned(),
    };
    match found.kind {
        MediumKind::Iso => format!("an ISO labelled {}, for {of}", found.label),
        MediumKind::Oemdrv => format!("a volume labelled {}, for {of}", found.label),
        MediumKind::Seed => format!("a seed labelled {}, for {of}", found.label),
    }
}

fn state(found: &Verified) -> String {
    match found.problems.len() {
        0 => "as it should be".to_owned(),
        1 => "1 problem".to_owned(),
        n_problems => format!("{n_problems} problems"),
    }
}
