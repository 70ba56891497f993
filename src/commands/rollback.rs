//! `nodeforge rollback`: an older generation becomes the current one.

use std::io::Write;

use anyhow::Result;
use serde_json::json;

use crate::cli::RollbackArgs;
use crate::commands::Outcome;
use crate::output::{self, RolledBack};

pub fn run(args: &RollbackArgs) -> Result<Outcome> {
    let done = output::rollback(&args.out, args.generation)?;
    if args.json {
        let json = json!({
            "changed": done.from != Some(done.to),
            "from": done.from,
            "generation": done.to,
        });
        let mut out = std::io::stdout().lock();
        serde_json::to_writer_pretty(&mut out, &json)?;
        writeln!(out)?;
    }
    tell(args, done);
    Ok(Outcome::Done)
}

fn tell(args: &RollbackArgs, RolledBack { from, to, highest }: RolledBack) {
    let out = args.out.join("current");
    match from {
        Some(from) if from == to => {
            eprintln!("{}: generation {to} is current already; nothing was changed", out.display());
            return;
        }
        Some(from) => eprintln!("{}: generation {to} is current now, {from} was", out.display()),
        None => eprintln!("{}: generation {to} is current now", out.display()),
    }
    eprintln!(
        "note: installed nodes do not follow, only installations to come; the next build that \
         changes something makes generation {}",
        highest + 1
    );
}
