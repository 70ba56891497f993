//! External programs: run with a list of arguments, never through a shell.

use std::convert::Infallible;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

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

/// Where programs are that a plain user's `PATH` may lack.
const FURTHER: [&str; 2] = ["/usr/sbin", "/sbin"];

/// Where `program` is: in a folder of `PATH`, or among those of administrators.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(FURTHER.map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// What to run `program` by: its path, or its name where it is not [found](find), for the error that
/// says so.
pub fn found(program: &str) -> String {
    let path = find(program).and_then(|path| path.into_os_string().into_string().ok());
    path.unwrap_or_else(|| program.to_owned())
}

/// Makes a process of this program the program `words[0]`, with the others as its arguments. The
/// kernel kills it when the thread of `parent` that started it is gone, however that ended.
///
/// # Errors
///
/// Fails if it cannot be started, and if `parent` is gone already.
pub fn become_tied(parent: i32, words: &[String]) -> Result<Infallible> {
    let (program, arguments) = words.split_first().context("there is no program to start")?;
    set_parent_process_death_signal(Some(Signal::KILL)).context("asking for the parent's end")?;
    // It may have ended before the kernel was asked.
    let is_there = getppid().is_some_and(|found| found.as_raw_nonzero().get() == parent);
    ensure!(is_there, "the process {parent} did not start this one");
    Err(Command::new(program).args(arguments).exec()).with_context(|| format!("starting {program}"))
}

/// How often a program is looked at while it runs.
const LOOK: Duration = Duration::from_millis(10);

/// As much of standard output as a look is shown.
const SHOWN: u64 = 64;

/// Runs `program` like [`output_with`], and every now and then shows `look` the end of what it has
/// printed on standard output so far. Returns what it printed on standard error: some programs tell
/// so what went wrong, and exit 0.
///
/// # Errors
///
/// Fails as [`output_of`] does.
pub fn watched<S: AsRef<OsStr>>(
    program: &str,
    arguments: &[S],
    environment: &[(&str, String)],
    look: &mut dyn FnMut(&str),
) -> Result<String> {
    // A file, as a pipe nobody reads meanwhile would stop the program.
    let mut said = tempfile::tempfile().context("making a temporary file")?;
    let stderr = said.try_clone().context("making a temporary file")?;
    let printed = tempfile::tempfile().context("making a temporary file")?;
    let stdout = printed.try_clone().context("making a temporary file")?;
    let mut child = Command::new(program)
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .with_context(|| format!("starting {program}"))?;
    let status = loop {
        match child.try_wait().with_context(|| format!("waiting for {program}"))? {
            Some(status) => break status,
            None => std::thread::sleep(LOOK),
        }
        look(&end_of(&printed)?);
    };
    let mut stderr = Vec::new();
    said.rewind().and_then(|()| said.take(MAX_STDERR).read_to_end(&mut stderr))?;
    if !status.success() {
        bail!("{program}: {status}: {}", tail(&stderr));
    }
    Ok(String::from_utf8_lossy(&stderr).into_owned())
}

/// The end of a file that another program writes to by the same description: its place stays.
fn end_of(file: &File) -> Result<String> {
    let read = || -> std::io::Result<Vec<u8>> {
        let length = file.metadata()?.len();
        let n_shown = SHOWN.min(length);
        let mut end = vec![0; n_shown as usize];
        file.read_exact_at(&mut end, length - n_shown)?;
        Ok(end)
    };
    let end = read().context("reading a temporary file")?;
    Ok(String::from_utf8_lossy(&end).into_owned())
}

/// The last lines of what a program said, in one line.
pub fn tail(said: &[u8]) -> String {
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
