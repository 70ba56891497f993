//! One file a verb: turns arguments into domain options and calls the pipeline.

mod arm;
mod bmc;
mod build;
pub mod certs;
pub mod check;
mod daos;
mod diff;
pub mod fetch;
mod generate;
mod generations;
mod image;
mod init;
mod lab;
mod lint;
mod load;
mod media;
mod nodes;
mod reference;
mod report;
mod rollback;
pub mod secrets;
mod serve;
mod show;
mod status;
mod verify;
mod why;

use anyhow::Result;

use crate::cli::{Cli, GenerateVerb, SecretsVerb, Verb};

/// How a verb ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Problems were found and reported; of `diff`: something differs.
    Problems,
    /// The verb could not tell, where [`Problems`](Self::Problems) would be an answer.
    Trouble,
}

/// How a verb ends that fails with an error.
pub fn failure(cli: &Cli) -> Outcome {
    match cli.verb {
        Verb::Diff(_) => Outcome::Trouble,
        _ => Outcome::Problems,
    }
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
        Verb::Build(args) => build::run(args, color),
        Verb::Show(args) => show::run(args, color),
        Verb::Verify(args) => verify::run(args),
        Verb::Diff(args) => diff::run(args, color),
        Verb::Generations(args) => generations::run(args),
        Verb::Rollback(args) => rollback::run(args),
        Verb::Serve(args) => serve::run(args),
        Verb::Arm(args) => arm::arm(args, color),
        Verb::Disarm(args) => arm::disarm(args),
        Verb::Status(args) => status::run(args),
        Verb::Fetch(args) => fetch::verb(args, color),
        Verb::Media(verb) => media::run(verb, color),
        Verb::Plan(args) => daos::plan(args, color),
        Verb::Explain(args) => daos::explain(args),
        Verb::Init(args) => init::run(args),
        Verb::Image(args) => image::run(args, color),
        Verb::Lab(verb) => lab::run(verb, color),
        Verb::Generate(GenerateVerb::Hw(args)) => generate::hw(args),
        Verb::Secrets(SecretsVerb::Init(args)) => secrets::verb(args, color),
        Verb::Certs(verb) => certs::verb(verb, color),
    }
}
