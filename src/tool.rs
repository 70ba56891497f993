//! External programs: run with a list of arguments, never through a shell.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs `program` and returns what it printed on standard output.
///
/// # Errors
///
/// Fails if it cannot be started or does not exit 0; the tail of its standard error is in
/// the message.
pub fn output_of<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> Result<Vec<u8>> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {program}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let tail: Vec<&str> = stderr.lines().rev().take(5).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        bail!("{program}: {}: {}", output.status, tail.join(" | "));
    }
    Ok(output.stdout)
}
