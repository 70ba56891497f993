//! External programs: run with a list of arguments, never through a shell.

use std::ffi::OsStr;
use std::io::{Read, Seek};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// Runs `program` and returns what it printed on standard output.
///
/// # Errors
///
/// Fails if it cannot be started or does not exit 0; the tail of its standard error is in
/// the message.
pub fn output_of<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> Result<Vec<u8>> {
    output_with(program, arguments, &[])
}

/// Runs `program` like [`output_of`], with these variables in its environment.
///
/// # Errors
///
/// Fails as [`output_of`] does.
pub fn output_with<S: AsRef<OsStr>>(
    program: &str,
    arguments: &[S],
    environment: &[(&str, String)],
) -> Result<Vec<u8>> {
    let output = Command::new(program)
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {program}"))?;
    if !output.status.success() {
        bail!("{program}: {}: {}", output.status, tail(&output.stderr));
    }
    Ok(output.stdout)
}

/// The last lines of what a program said, in one line.
fn tail(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let lines: Vec<&str> = said.lines().collect();
    lines[lines.len().saturating_sub(5)..].join(" | ")
}

/// As much of standard error as is looked at for its last lines.
const MAX_STDERR: u64 = 64 << 10;

/// Runs `program` like [`output_of`], but takes no more than `max_bytes` of what it prints.
///
/// # Errors
///
/// Fails as [`output_of`] does, and if it prints more; it is ended then.
pub fn short_output_of<S: AsRef<OsStr>>(
    program: &str,
    arguments: &[S],
    max_bytes: u64,
) -> Result<Vec<u8>> {
    // A file, as a pipe nobody reads meanwhile would stop the program.
    let mut said = tempfile::tempfile().context("making a temporary file")?;
    let stderr = said.try_clone().context("making a temporary file")?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .with_context(|| format!("starting {program}"))?;
    let mut printed = Vec::new();
    let stdout = child.stdout.take().expect("it is piped");
    let read = stdout.take(max_bytes + 1).read_to_end(&mut printed);
    let is_too_long = printed.len() as u64 > max_bytes;
    if is_too_long || read.is_err() {
        // It may have ended by itself; either way it is gone after `wait`.
        let _ = child.kill();
    }
    let status = child.wait().with_context(|| format!("waiting for {program}"))?;
    read.with_context(|| format!("reading what {program} prints"))?;
    ensure!(!is_too_long, "{program} prints more than {max_bytes} bytes");
    if !status.success() {
        let mut stderr = Vec::new();
        said.rewind().and_then(|()| said.take(MAX_STDERR).read_to_end(&mut stderr))?;
        bail!("{program}: {status}: {}", tail(&stderr));
    }
    Ok(printed)
}
