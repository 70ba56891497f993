//! The consoles of a lab's nodes: how far a node is by what it says, and a way to talk to it.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Seek, SeekFrom, Write};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use serde::Serialize;

use crate::lab::Lab;

/// As much of a console as is read for its end.
const TAIL: u64 = 256 << 10;

/// The log of a node's console, of its last start.
pub fn log_name(node: &str) -> String {
    format!("{node}.console")
}

/// The socket of a node's console.
pub fn socket_name(node: &str) -> String {
    format!("{node}.serial")
}

/// How far a node is, by its console.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "state", content = "said")]
pub enum Progress {
    /// Nothing of nodeforge's so far.
    Booting,
    /// What it said last.
    Working(String),
    Ready,
    /// Why.
    Failed(String),
}

impl Progress {
    /// What the lines of a console tell; later lines count more.
    pub fn of<'l>(lines: impl IntoIterator<Item = &'l str>) -> Self {
        lines.into_iter().fold(Self::Booting, Self::after)
    }

    fn after(self, line: &str) -> Self {
        // A console has the kernel's and systemd's own words before ours.
        let said = ["nodeforge-ready: ", "nodeforge-firstboot: ", "nodeforge-format: "]
            .iter()
            .find_map(|begin| line.find(begin).map(|at| &line[at..]));
        let panicked = line.find("Kernel panic").map(|at| &line[at..]);
        match said {
            Some(said) if said.starts_with("nodeforge-ready: ") && said.ends_with(" is ready") => {
                Self::Ready
            }
            Some(said) if said.contains(": FAILED") => Self::Failed(said.to_owned()),
            // What the admin tells of the format comes after it is ready, too.
            Some(said) if said.starts_with("nodeforge-format: ") && self == Self::Ready => self,
            // "DAOS stays down …" explains a failure.
            Some(said) if !is_new_run(said) && matches!(self, Self::Failed(_)) => self,
            Some(said) => Self::Working(said.to_owned()),
            None => panicked.map_or(self, |said| Self::Failed(said.to_owned())),
        }
    }
}

/// Whether a step has just begun or ended well: the first boot was started again.
fn is_new_run(said: &str) -> bool {
    said.contains(": done in ") || said.contains(": was done before") || said.contains("all steps")
}

/// The end of a node's console, by lines, without the control codes of terminals.
///
/// # Errors
///
/// Fails if the log is there and cannot be read.
pub fn tail(lab: &Lab, node: &str) -> Result<Vec<String>> {
    let path = lab.path(&log_name(node));
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(&path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => {
            let bytes = read.with_context(|| format!("reading {}", path.display()))?;
            Ok(String::from_utf8_lossy(&bytes).lines().map(plain).collect())
        }
    }
}

/// A line without control characters and the sequences of ECMA-48 (`ESC [ … letter`).
pub fn plain(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' && characters.next_if_eq(&'[').is_some() {
            characters.by_ref().find(|end| ('@'..='~').contains(end));
        } else if !character.is_control() {
            text.push(character);
        }
    }
    text
}

/// Ctrl-]: leaves the console, as in telnet and virsh.
const LEAVE: u8 = 0x1d;

/// Joins standard input and output with the console of `node` until Ctrl-], the end of the
/// input, or the end of the guest.
///
/// # Errors
///
/// Fails if the node does not run.
pub fn attach(lab: &Lab, node: &str) -> Result<()> {
    let console = UnixStream::connect(lab.socket(&socket_name(node)));
    let console =
        console.with_context(|| format!("opening the console of {node}: does it run?"))?;
    for line in tail(lab, node)?.iter().rev().take(10).rev() {
        println!("{line}");
    }
    let mut output = console.try_clone().context("using the console twice")?;
    let _terminal = RawTerminal::of_input()?;
    std::thread::spawn(move || {
        // What it says is shown until it ends or the reader of ours goes away.
        let _ = copy_out(&mut output);
        let _ = output.shutdown(std::net::Shutdown::Both);
    });
    send_input(console)
}

fn copy_out(console: &mut UnixStream) -> io::Result<()> {
    let mut piece = [0; 4096];
    let mut stdout = io::stdout();
    loop {
        match console.read(&mut piece)? {
            0 => return Ok(()),
            n_read => stdout.write_all(&piece[..n_read])?,
        }
        stdout.flush()?;
    }
}

fn send_input(mut console: UnixStream) -> Result<()> {
    let mut piece = [0; 256];
    loop {
        let n_read = io::stdin().read(&mut piece).context("reading the keyboard")?;
        let end = piece[..n_read].iter().position(|byte| *byte == LEAVE);
        let typed = &piece[..end.unwrap_or(n_read)];
        if console.write_all(typed).is_err() || end.is_some() || n_read == 0 {
            return Ok(());
        }
    }
}

/// A terminal that hands over every key; as before once this is dropped.
struct RawTerminal(Option<Termios>);

impl RawTerminal {
    fn of_input() -> Result<Self> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(Self(None));
        }
        eprintln!("Ctrl-] leaves the console");
        let before = tcgetattr(&stdin).context("asking for the state of the terminal")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).context("setting up the terminal")?;
        Ok(Self(Some(before)))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // Nothing can be done about a terminal that is gone.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_tells_how_far_its_node_is() {
        let working = |said: &str| Progress::Working(said.to_owned());
        let failed = |said: &str| Progress::Failed(said.to_owned());
        let panic = "Kernel panic - not syncing: no init";
        for (lines, expected) in [
            (&["Linux version 4.18"][..], Progress::Booting),
            (
                &["[  9.1] x[1]: nodeforge-firstboot: 10-owners: done in 1 s"],
                working("nodeforge-firstboot: 10-owners: done in 1 s"),
            ),
            (&["nodeforge-ready: node0 is ready"], Progress::Ready),
            (
                &["nodeforge-ready: node0 is ready", "nodeforge-format: all 2 servers joined"],
                Progress::Ready,
            ),
            (
                &[
                    "nodeforge-firstboot: 90-preflight: FAILED: 1 check failed",
                    "nodeforge-firstboot: DAOS stays down. Once it is mended: reboot",
                    "nodeforge-ready: node0 waits for the first boot",
                ],
                failed("nodeforge-firstboot: 90-preflight: FAILED: 1 check failed"),
            ),
            (
                &[
                    "nodeforge-firstboot: 90-preflight: FAILED: 1 check failed",
                    "nodeforge-firstboot: 90-preflight: done in 3 s",
                ],
                working("nodeforge-firstboot: 90-preflight: done in 3 s"),
            ),
            (&["[ 1.0] Kernel panic - not syncing: no init"], failed(panic)),
        ] {
            assert_eq!(Progress::of(lines.iter().copied()), expected, "{lines:?}");
        }
    }

    #[test]
    fn lines_are_shown_without_the_codes_of_terminals() {
        assert_eq!(plain("\u{1b}[0;32m  OK  \u{1b}[0m] Started\r"), "  OK  ] Started");
    }
}
