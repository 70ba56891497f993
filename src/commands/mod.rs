//! One file a verb: turns arguments into domain options and calls the pipeline.

pub mod certs;
mod check;
pub mod fetch;
mod load;
mod nodes;
mod reference;
mod report;
pub mod secrets;
mod why;

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
        Verb::Nodes(args) => nodes::run(args, color),
        Verb::Why(args) => why::run(args, color),
        Verb::Schema => reference::schema(),
        Verb::Completions(args) => reference::completions(args),
        Verb::Man(args) => reference::man(args),
        _ => anyhow::bail!("not there yet"),
    }
}
