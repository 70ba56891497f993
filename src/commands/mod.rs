//! One file a verb: turns arguments into domain options and calls the pipeline.

mod check;
mod report;

use anyhow::Result;

use crate::cli::{Cli, Verb};

/// How a verb ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Problems were found and reported.
    Problems,
}

/// Runs the verb of the command line.
///
/// # Errors
///
/// Fails where the world does: a file that cannot be read, a full disk.
pub fn run(cli: &Cli) -> Result<Outcome> {
    let color = report::color(cli.color);
    match &cli.verb {
        Verb::Check(args) => check::run(args, color),
        _ => anyhow::bail!("not there yet"),
    }
}
