//! A QEMU process: started, listened to, and ended.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support;

/// Two guests on two cores, beside the tests that judge, take more than twice as long.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A running guest. Dropped, it is ended: by its own process, and no other.
pub struct Guest {
    process: Child,
    console: Receiver<String>,
    said: Vec<String>,
    /// Holds the control socket.
    folder: TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Guest {
    /// Starts a guest without network or disk, with its console on the serial port.
    #[track_caller]
    pub fn start(kernel: &Path, initrd: &Path) -> Self {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = support::scratch();
        let control = folder.path().join("qmp");
        let mut process = support::command("qemu-system-x86_64")
            .args(["-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "512"])
            .args(["-nodefaults", "-nic", "none", "-no-reboot", "-nographic"])
            .args(["-serial", "stdio", "-monitor", "none"])
            .args(["-qmp", &format!("unix:{},server=on,wait=off", control.display())])
            .arg("-kernel")
            .arg(kernel)
            .arg("-initrd")
            .arg(initrd)
            // A panic ends the guest at once instead of waiting for the timeout.
            .args(["-append", "console=ttyS0 loglevel=4 panic=-1"])
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("qemu starts");
        let stdout = process.stdout.take().expect("stdout is piped");
        let (sender, console) = channel();
        std::thread::spawn(move || forward_lines(stdout, &sender));
        Self { process, console, said: Vec::new(), folder, _turn: turn }
    }

    /// The lines that the guest says after `first` and before `last`.
    ///
    /// # Errors
    ///
    /// Fails, with all that the guest said so far, when it ends or `timeout` passes before.
    pub fn lines_between(
        &mut self,
        first: &str,
        last: &str,
        timeout: Duration,
    ) -> Result<Vec<String>, String> {
        let deadline = Instant::now() + timeout;
        self.wait_for(first, deadline)?;
        let begin = self.said.len();
        self.wait_for(last, deadline)?;
        Ok(self.said[begin..self.said.len() - 1].to_vec())
    }

    fn wait_for(&mut self, marker: &str, deadline: Instant) -> Result<(), String> {
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            let why = match self.console.recv_timeout(rest) {
                Ok(line) => {
                    let is_marker = line == marker;
                    self.said.push(line);
                    if is_marker {
                        return Ok(());
                    }
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => "the time was up",
                Err(RecvTimeoutError::Disconnected) => "the guest ended",
            };
            return Err(format!("{why} before it said `{marker}`\n{}", self.said.join("\n")));
        }
    }

    /// Ends the guest through QEMU's control socket and waits for that.
    #[track_caller]
    pub fn quit(mut self) {
        self.ask_to_quit().expect("QEMU answers on its control socket");
        assert!(self.process.wait().expect("QEMU is our child").success());
    }

    /// QEMU's docs/interop/qmp-spec: capabilities are negotiated before the first command.
    fn ask_to_quit(&self) -> std::io::Result<()> {
        let mut control = UnixStream::connect(self.folder.path().join("qmp"))?;
        control.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut answers = BufReader::new(control.try_clone()?);
        let mut answer = String::new();
        answers.read_line(&mut answer)?;
        for command in ["qmp_capabilities", "quit"] {
            writeln!(control, "{{\"execute\": \"{command}\"}}")?;
            answers.read_line(&mut answer)?;
        }
        Ok(())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Both fail only where the guest has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn forward_lines(console: ChildStdout, sender: &Sender<String>) {
    for line in BufReader::new(console).split(b'\n') {
        let Ok(line) = line else { return };
        let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
        if sender.send(line).is_err() {
            return;
        }
    }
}
