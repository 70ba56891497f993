//! `nodeforge init`: a commented cluster file to start from.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

use crate::cli::{InitArgs, InitKind};
use crate::commands::Outcome;

const LAB: &str = include_str!("init/lab.toml");
const BARE_METAL: &str = include_str!("init/bare-metal.toml");

pub fn run(args: &InitArgs) -> Result<Outcome> {
    let text = match args.kind {
        InitKind::Lab => LAB,
        InitKind::BareMetal => BARE_METAL,
    };
    if args.file == Path::new("-") {
        std::io::stdout().lock().write_all(text.as_bytes())?;
        return Ok(Outcome::Done);
    }
    let path = args.file.display();
    let file = OpenOptions::new().write(true).create_new(true).open(&args.file);
    let mut file =
        file.with_context(|| format!("making {path} (what is there is never replaced)"))?;
    file.write_all(text.as_bytes()).with_context(|| format!("writing {path}"))?;
    eprintln!("wrote {path}; next: edit it, then `nodeforge check {path}`");
    Ok(Outcome::Done)
}
