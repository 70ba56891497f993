//! How problems reach the user: drawn on standard error, or as JSON on standard output.

use std::io::{IsTerminal, Write};

use anyhow::Result;

use crate::cli::{ColorChoice, Deny};
use crate::commands::Outcome;
use crate::diag::{self, Color, Diagnostic, Severity, SourceMap};

/// Colours on a terminal, unless the user says otherwise or NO_COLOR is set (no-color.org).
pub fn color(choice: ColorChoice) -> Color {
    let is_wanted = match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => {
            std::io::stderr().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        }
    };
    if is_wanted { Color::Always } else { Color::Never }
}

/// Draws every problem on standard error.
pub fn draw(problems: &[Diagnostic], sources: &SourceMap, color: Color) -> Result<()> {
    let mut stderr = std::io::stderr().lock();
    for problem in problems {
        writeln!(stderr, "{}\n", diag::render(problem, sources, color))?;
    }
    Ok(())
}

/// Prints every problem as one JSON array on standard output.
pub fn print_json(problems: &[Diagnostic], sources: &SourceMap) -> Result<()> {
    let list: Vec<_> = problems.iter().map(|problem| problem.to_json(sources)).collect();
    let mut stdout = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut stdout, &list)?;
    writeln!(stdout)?;
    Ok(())
}

/// Whether any of the problems fails the verb.
pub fn outcome(problems: &[Diagnostic], deny: Option<Deny>) -> Outcome {
    let fails = |problem: &Diagnostic| match problem.severity {
        Severity::Error => true,
        Severity::Warning => deny == Some(Deny::Warnings),
        Severity::Allowed => false,
    };
    if problems.iter().any(fails) { Outcome::Problems } else { Outcome::Done }
}

/// `2 errors, 1 warning`, or `no problems`.
pub fn summary(problems: &[Diagnostic]) -> String {
    let count = |severity: Severity, one: &str, more: &str| {
        let n_found = problems.iter().filter(|problem| problem.severity == severity).count();
        match n_found {
            0 => None,
            1 => Some(format!("1 {one}")),
            n_found => Some(format!("{n_found} {more}")),
        }
    };
    let counts: Vec<String> = [
        count(Severity::Error, "error", "errors"),
        count(Severity::Warning, "warning", "warnings"),
        count(Severity::Allowed, "problem allowed", "problems allowed"),
    ]
    .into_iter()
    .flatten()
    .collect();
    if counts.is_empty() { "no problems".to_owned() } else { counts.join(", ") }
}
