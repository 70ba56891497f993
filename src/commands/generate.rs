//! `nodeforge generate`: parts of a cluster file from what is there.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::cli::GenerateHwArgs;
use crate::commands::Outcome;
use crate::hardware::{self, COLLECT, Facts, Reading, TOOLS};

/// Makes an `[hw.NAME]` block, or prints the script that collects the facts for it.
pub fn hw(args: &GenerateHwArgs) -> Result<Outcome> {
    let mut out = io::stdout().lock();
    if args.script {
        out.write_all(COLLECT.as_bytes())?;
        return Ok(Outcome::Done);
    }
    let facts = read_facts(&args.from)?;
    if args.json {
        out.write_all(facts.to_json().as_bytes())?;
        return Ok(Outcome::Done);
    }
    if let Some(name) = &args.name {
        let is_plain = name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
        ensure!(is_plain, "`{name}` cannot be the name of a hw; use letters, digits, `_` and `-`");
    }
    let choice = hardware::choose(&facts, args.name.as_deref());
    out.write_all(hardware::block(&choice).as_bytes())?;
    for what in choice.missing() {
        eprintln!("warning: no fact tells {what}");
    }
    Ok(Outcome::Done)
}

/// What all `places` say of the box; what could not be made use of is told on standard error.
fn read_facts(places: &[PathBuf]) -> Result<Facts> {
    let mut facts = Facts::default();
    let mut tools = Vec::new();
    for (name, text) in texts(places)? {
        for Reading { from, outcome } in hardware::read(&name, &text, &mut facts)? {
            match outcome {
                hardware::Outcome::Read(tool) if tools.contains(&tool) => {}
                hardware::Outcome::Read(tool) => tools.push(tool),
                hardware::Outcome::Absent => eprintln!("warning: {from}: nothing in it"),
                hardware::Outcome::Unknown => {
                    eprintln!("warning: {from}: not recognised, left out");
                }
            }
        }
    }
    if tools.is_empty() {
        bail!("nothing was recognised; expected outputs of {TOOLS}");
    }
    eprintln!("read: {}", tools.join(", "));
    Ok(facts)
}

/// Every file with its text, in the order of the places and of the names in a folder.
fn texts(places: &[PathBuf]) -> Result<Vec<(String, String)>> {
    let mut texts = Vec::new();
    for place in places {
        if place == Path::new("-") {
            let mut bytes = Vec::new();
            io::stdin().lock().read_to_end(&mut bytes).context("reading standard input")?;
            texts.push(("standard input".to_owned(), text(bytes)));
            continue;
        }
        let reading = || format!("reading {}", place.display());
        if !place.is_dir() {
            texts.push((place.display().to_string(), text(fs::read(place).with_context(reading)?)));
            continue;
        }
        let entries = fs::read_dir(place).with_context(reading)?;
        let entries: io::Result<Vec<_>> = entries.collect();
        let mut files: Vec<PathBuf> =
            entries.with_context(reading)?.into_iter().map(|entry| entry.path()).collect();
        files.sort();
        files.retain(|path| {
            let is_file = path.is_file();
            if !is_file {
                eprintln!("warning: {}: no file, left out", path.display());
            }
            is_file
        });
        ensure!(!files.is_empty(), "{}: a folder without files", place.display());
        for path in files {
            let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            texts.push((path.display().to_string(), text(bytes)));
        }
    }
    Ok(texts)
}

/// Names of disks need not be UTF-8; what is recognised in the text is.
fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}
