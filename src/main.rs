//! Parse, run, report, exit code.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use nodeforge::cli;
use nodeforge::commands::{self, Outcome};

fn main() -> ExitCode {
    let cli = cli::parse();
    match commands::run(&cli) {
        Ok(outcome) => exit_code(outcome),
        // A reader that has seen enough (`nodeforge nodes … | head`) is no failure of ours.
        Err(fault) if is_broken_pipe(&fault) => ExitCode::SUCCESS,
        Err(fault) => {
            let _ = writeln!(std::io::stderr(), "error: {fault:#}");
            exit_code(commands::failure(&cli))
        }
    }
}

fn exit_code(outcome: Outcome) -> ExitCode {
    match outcome {
        Outcome::Done => ExitCode::SUCCESS,
        Outcome::Problems => ExitCode::FAILURE,
        Outcome::Trouble => ExitCode::from(2),
    }
}

fn is_broken_pipe(fault: &anyhow::Error) -> bool {
    fault.chain().any(|cause| {
        let kind = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        let json = || cause.downcast_ref::<serde_json::Error>()?.io_error_kind();
        kind.or_else(json) == Some(ErrorKind::BrokenPipe)
    })
}
