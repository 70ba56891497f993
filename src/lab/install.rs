//! An installation that nobody watches: QEMU with an installer's kernel, its medium and an empty
//! disk, until the guest powers itself off.
//!
//! It has succeeded if the kickstart said so on the console and the guest then switched itself off;
//! everything else is a failure, told with the end of the console. QEMU ends with this process,
//! whatever ends that.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use crate::lab::console::plain;
use crate::output::disk::named;
use crate::progress::Progress;
use crate::render::install::GOLDEN_IMAGE;
use crate::tool;
use crate::vm::qemu::{self, Accelerator, Cache, Surroundings, Uefi};
use crate::vm::{Machine, installer};

/// How often the guest is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// As many of the console's last lines as an error tells.
const N_TOLD: usize = 15;
/// What scripts take to tell the whole reason once they have begun.
const REASON: Duration = Duration::from_secs(5);
/// What a guest that has failed never gets out of: kernels that panic, and dracut's shell.
const DEAD_ENDS: [&str; 3] =
    ["end Kernel panic", "Entering emergency mode", "/run/initramfs/rdsosreport.txt"];

/// What is to be started.
#[derive(Clone, Copy)]
pub struct Installation<'a> {
    /// As [`installer::machine`] makes it.
    pub machine: &'a Machine,
    pub accelerator: Accelerator,
    pub qemu: &'a Path,
    pub uefi: Option<Uefi<'a>>,
    /// The installer's medium.
    pub iso: &'a Path,
    pub kernel: &'a Path,
    pub initrd: &'a Path,
    /// The kernel's command line.
    pub line: &'a str,
    /// Where the console goes.
    pub log: &'a Path,
    pub timeout: Duration,
}

impl Installation<'_> {
    /// Runs it to its end; `progress` is told what the console says.
    ///
    /// # Errors
    ///
    /// Says how it failed, with the end of the console: the kickstart or the installer gave up, the
    /// guest or QEMU ended before, the time was over, or the user interrupts. QEMU has ended then.
    pub fn run(&self, progress: &Progress, is_interrupted: &AtomicBool) -> Result<()> {
        let mut console = Console::create(self.log)?;
        let mut guest = self.start()?;
        let ended = self.wait(&mut guest, &mut console, progress, is_interrupted);
        guest.end();
        console.read()?;
        let judged = ended.and_then(|status| judge(status, &mut guest, &console));
        judged.map_err(|fault| console.told_with(&fault, self.log))
    }

    fn start(&self) -> Result<Guest> {
        let log = self.log.to_str().context("the console's path is no text")?;
        let iso = self.iso.to_str().context("the path of the ISO is no text")?;
        let arguments = qemu::arguments(
            self.machine,
            &Surroundings {
                accelerator: self.accelerator,
                netdev: &|_| "user".to_owned(),
                console: &format!("file,append=on,path={}", qemu::escaped(log)),
                uefi: self.uefi,
                cache: Cache::InMemory,
            },
        );
        let program = std::env::current_exe().context("asking for this program's own path")?;
        let said = tempfile::tempfile().context("making a temporary file")?;
        let mut command = Command::new(program);
        command
            .args(["lab", "tied", &std::process::id().to_string()])
            .arg(self.qemu)
            .args(arguments)
            .args(installer::medium(iso))
            .arg("-kernel")
            .arg(self.kernel)
            .arg("-initrd")
            .arg(self.initrd)
            .args(["-append", self.line, "-no-reboot", "-qmp", "stdio"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(said.try_clone().context("making a temporary file")?);
        // Ctrl-C is for this process; it ends QEMU.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut process = command.spawn().context("starting QEMU")?;
        let stdout = process.stdout.take().expect("it is piped");
        let mut stdin = process.stdin.take().expect("it is piped");
        // Fails where QEMU has ended; its exit code and its words tell why.
        let _ = writeln!(stdin, "{{\"execute\": \"qmp_capabilities\"}}");
        let (sender, events) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Ok(event) = serde_json::from_str(&line)
                    && sender.send(event).is_err()
                {
                    return;
                }
            }
            // Open as long as QEMU is: it would take the end for an error.
            drop(stdin);
        });
        Ok(Guest { process, events, said, shutdown: None })
    }

    fn wait(
        &self,
        guest: &mut Guest,
        console: &mut Console,
        progress: &Progress,
        is_interrupted: &AtomicBool,
    ) -> Result<ExitStatus> {
        let started = Instant::now();
        let mut failed_at = None;
        loop {
            if let Some(status) = guest.process.try_wait().context("waiting for QEMU")? {
                return Ok(status);
            }
            guest.take_events()?;
            console.read()?;
            if let Some(last) = console.lines.back() {
                progress.tell(last);
            }
            if console.failure.is_some() {
                let since = failed_at.get_or_insert_with(Instant::now);
                if console.is_reason_whole || since.elapsed() > REASON {
                    bail!("the installation gave up");
                }
            }
            if let Some(dead_end) = &console.dead_end {
                bail!("the installer does not get on: {dead_end}");
            }
            if is_interrupted.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            if started.elapsed() > self.timeout {
                let secs = self.timeout.as_secs();
                bail!(
                    "not done within {}:{:02} min; --timeout gives it more",
                    secs / 60,
                    secs % 60
                );
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// Whether a guest that has ended ended as it should.
fn judge(status: ExitStatus, guest: &mut Guest, console: &Console) -> Result<()> {
    guest.take_events()?;
    if !status.success() {
        let words = guest.words();
        bail!("QEMU ended with {status}: {words}");
    }
    if console.failure.is_some() {
        bail!("the installation gave up");
    }
    match (console.is_installed, guest.shutdown.as_deref()) {
        (true, Some("guest-shutdown")) => Ok(()),
        (false, _) => bail!("the machine ended before the kickstart was at its end"),
        (true, reason) => bail!(
            "the machine was not switched off by the installer at its end, but by {}",
            reason.unwrap_or("something unknown")
        ),
    }
}

/// A QEMU; dropped, it is ended.
struct Guest {
    process: Child,
    /// QEMU's answers and events (docs/interop/qmp-spec).
    events: Receiver<Value>,
    /// What it wrote to standard error.
    said: File,
    /// Why it ended (QEMU's qapi/run-state.json, `ShutdownCause`).
    shutdown: Option<String>,
}

impl Guest {
    fn take_events(&mut self) -> Result<()> {
        // Ended, it has nothing to add: the thread that reads reaches the end of all at once.
        let is_running = self.process.try_wait().is_ok_and(|status| status.is_none());
        let events: Vec<Value> = match is_running {
            true => self.events.try_iter().collect(),
            false => self.events.iter().collect(),
        };
        for event in events {
            match event["event"].as_str() {
                Some("SHUTDOWN") => {
                    self.shutdown = event["data"]["reason"].as_str().map(str::to_owned);
                }
                // The guest stands still then (-drive werror=enospc, QEMU's default).
                Some("BLOCK_IO_ERROR") if event["data"]["action"] == "stop" => {
                    let reason = event["data"]["reason"].as_str().unwrap_or("unknown");
                    bail!("QEMU cannot write the disk: {reason}");
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The last words on standard error.
    fn words(&mut self) -> String {
        let mut said = Vec::new();
        let read = std::io::Seek::rewind(&mut self.said)
            .and_then(|()| (&mut self.said).take(64 << 10).read_to_end(&mut said));
        match read {
            Ok(_) => tool::tail(&said),
            Err(fault) => fault.to_string(),
        }
    }

    fn end(&mut self) {
        // Neither fails but where it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.end();
    }
}

/// What the guest has said, as it is said.
struct Console {
    log: File,
    /// The beginning of a line.
    rest: Vec<u8>,
    /// The last ones that have something on them.
    lines: VecDeque<String>,
    is_installed: bool,
    /// The lines since the one by which scripts give up.
    failure: Option<Vec<String>>,
    is_reason_whole: bool,
    dead_end: Option<String>,
}

impl Console {
    /// Begins the log anew.
    fn create(path: &Path) -> Result<Self> {
        let mut options = File::options();
        let log = options.read(true).write(true).create(true).truncate(true).open(path);
        Ok(Self {
            log: log.with_context(|| named("making", path))?,
            rest: Vec::new(),
            lines: VecDeque::new(),
            is_installed: false,
            failure: None,
            is_reason_whole: false,
            dead_end: None,
        })
    }

    fn read(&mut self) -> Result<()> {
        self.log.read_to_end(&mut self.rest).context("reading the console's log")?;
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            self.take(plain(&String::from_utf8_lossy(&line)));
        }
        Ok(())
    }

    fn take(&mut self, line: String) {
        let line = line.trim_end();
        if line.trim().is_empty() {
            return;
        }
        self.is_installed |= line.contains(&format!("nodeforge: the {GOLDEN_IMAGE} is installed"));
        match &mut self.failure {
            None if line.contains(&format!("nodeforge: {GOLDEN_IMAGE} is NOT installed")) => {
                self.failure = Some(Vec::new());
            }
            // It is told on several consoles, and again and again (lib.sh's `refuse`).
            Some(reason) if !self.is_reason_whole => {
                self.is_reason_whole = line.starts_with("Waiting for a person");
                if !self.is_reason_whole {
                    reason.push(line.to_owned());
                }
            }
            _ => {}
        }
        if DEAD_ENDS.iter().any(|dead_end| line.contains(dead_end)) {
            self.dead_end.get_or_insert_with(|| line.to_owned());
        }
        self.lines.push_back(line.to_owned());
        if self.lines.len() > N_TOLD {
            self.lines.pop_front();
        }
    }

    /// The failure with what the console says of it.
    fn told_with(&self, fault: &anyhow::Error, log: &Path) -> anyhow::Error {
        let lines: Vec<&str> = match &self.failure {
            Some(reason) if !reason.is_empty() => reason.iter().map(String::as_str).collect(),
            _ => self.lines.iter().map(String::as_str).collect(),
        };
        let lines = match lines.is_empty() {
            true => "nothing was said".to_owned(),
            false => lines.join("\n  "),
        };
        anyhow!("{fault:#}\n  {lines}\nthe whole console is in {}", log.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A console after `pieces`, read after each.
    fn after(pieces: &[&str]) -> Console {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut console = Console::create(&path).unwrap();
        let mut guest = File::options().append(true).open(&path).unwrap();
        for piece in pieces {
            guest.write_all(piece.as_bytes()).unwrap();
            console.read().unwrap();
        }
        console
    }

    const INSTALLED: &str = "\r\n==== nodeforge: the golden image is installed ====\r\n";
    const REFUSED: &str = "\r\n==== nodeforge: golden image is NOT installed ====\r\n\
        No disk of this machine is the install disk.\r\n\
        Nothing on any disk has been touched.\r\n\
        \r\n\
        Waiting for a person; restart the machine when the cause is gone.\r\n";

    #[test]
    fn what_the_kickstart_says_is_found_however_it_arrives() {
        let console = after(&["\u{1b}[1mbooting\r\n\r\n", &INSTALLED[..12], &INSTALLED[12..]]);
        assert!(console.is_installed && console.failure.is_none() && console.dead_end.is_none());
        assert_eq!(console.lines.front().unwrap(), "booting");

        let console = after(&[REFUSED, REFUSED]);
        assert!(!console.is_installed && console.is_reason_whole);
        let fault = console.told_with(&anyhow!("the installation gave up"), Path::new("log"));
        assert_eq!(
            fault.to_string(),
            "the installation gave up\n  No disk of this machine is the install disk.\n  \
             Nothing on any disk has been touched.\nthe whole console is in log"
        );

        let panic = "[ 1.2] ---[ end Kernel panic - not syncing: No init found ]---\r\n";
        assert!(after(&[panic]).dead_end.is_some());
        assert!(!after(&[&INSTALLED[..40]]).is_installed);
    }

    #[test]
    fn an_error_tells_the_last_lines_of_a_console_that_does_not_say_why() {
        let text: String = (0..20).map(|at| format!("line {at}\r\n\r\n")).collect();
        let fault = after(&[&text]).told_with(&anyhow!("interrupted"), Path::new("log"));
        let text = fault.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 17);
        assert_eq!(lines[1], "  line 5");
        assert_eq!(lines[15], "  line 19");
        let nothing = after(&[]).told_with(&anyhow!("interrupted"), Path::new("log")).to_string();
        assert_eq!(nothing, "interrupted\n  nothing was said\nthe whole console is in log");
    }
}
