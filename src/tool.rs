//! External programs: run with a list of arguments, never through a shell.

use std::ffi::OsStr;
use std::io::Read;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

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
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
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
    ensure!(status.success(), "{program}: {status}");
    Ok(printed)
}
