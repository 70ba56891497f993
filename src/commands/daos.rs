//! `explain` and `plan`: what nodeforge knows of DAOS, and what it works out.

use std::io::Write;

use anyhow::{Result, bail};

use crate::cli::{ExplainArgs, PlanArgs};
use crate::commands::{Outcome, load};
use crate::daos::{explain as codes, sizing};
use crate::diag::Color;
use crate::toml_doc::did_you_mean;

/// Explains one code, or lists all.
pub fn explain(args: &ExplainArgs) -> Result<Outcome> {
    let mut out = std::io::stdout().lock();
    let Some(code) = &args.code else {
        for explanation in codes::all() {
            writeln!(out, "{:<9} {}", explanation.code.as_str(), explanation.title)?;
        }
        return Ok(Outcome::Done);
    };
    let Some(explanation) = codes::explain(&code.to_ascii_uppercase()) else {
        let codes: Vec<&str> = codes::all().map(|explanation| explanation.code.as_str()).collect();
        match did_you_mean(code, codes) {
            Some(similar) => bail!("there is no code `{code}`; did you mean `{similar}`?"),
            None => bail!("there is no code `{code}`; `nodeforge explain` lists all"),
        }
    };
    writeln!(out, "{}", explanation.wrapped(width()))?;
    Ok(Outcome::Done)
}

/// The width of the terminal, 80 where there is none; wider lines than 100 are hard to read.
fn width() -> usize {
    let columns = rustix::termios::tcgetwinsize(std::io::stdout()).map(|size| size.ws_col);
    match columns {
        Ok(columns) if columns > 0 => usize::from(columns).clamp(40, 100),
        _ => 80,
    }
}

/// Prints the sums of each kind of node, and who formats.
pub fn plan(args: &PlanArgs, color: Color) -> Result<Outcome> {
    let Some(loaded) = load::resolved(&args.cluster, color)? else { return Ok(Outcome::Problems) };
    write!(std::io::stdout().lock(), "{}", sizing::size(&loaded.cluster))?;
    Ok(Outcome::Done)
}
