//! A QEMU process: started, listened to, and ended.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tempfile::TempDir;

use crate::support;

/// How many guests keep two cores busy: each has one thread for all its processors, and waits now
/// and then.
const N_AT_A_TIME: usize = 3;

static QUEUE: Mutex<Queue> = Mutex::new(Queue { n_free: N_AT_A_TIME, n_came: 0, n_served: 0 });
static MOVED: Condvar = Condvar::new();

/// Who comes first is served first: a test that wants all places would wait for ever else.
struct Queue {
    n_free: usize,
    n_came: u64,
    n_served: u64,
}

/// The right to start guests: held for the length of a test. The tests' threads queue here.
pub struct Turn {
    n_places: usize,
}

impl Turn {
    /// Waits until no other test has guests.
    pub fn wait() -> Self {
        Self::of_places(N_AT_A_TIME)
    }

    /// As [`Turn::wait`], for a test that has one guest at a time: other such tests may have theirs
    /// meanwhile.
    pub fn wait_for_one() -> Self {
        Self::of_places(1)
    }

    /// As [`Turn::wait`], for a test whose guests wait for one another: one other test may have its
    /// guest meanwhile.
    pub fn wait_for_several() -> Self {
        Self::of_places(N_AT_A_TIME - 1)
    }

    fn of_places(n_places: usize) -> Self {
        let mut queue = QUEUE.lock().unwrap_or_else(PoisonError::into_inner);
        let own = queue.n_came;
        queue.n_came += 1;
        let queue = MOVED.wait_while(queue, |it| it.n_served != own || it.n_free < n_places);
        let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
        queue.n_served += 1;
        queue.n_free -= n_places;
        MOVED.notify_all();
        Self { n_places }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        QUEUE.lock().unwrap_or_else(PoisonError::into_inner).n_free += self.n_places;
        MOVED.notify_all();
    }
}

/// Lines after which a guest gets nowhere, whatever is waited for.
const DEAD_ENDS: [&str; 4] = [
    "nodeforge-boot-test: FAILED",
    "is NOT installed",
    "end Kernel panic",
    "You are in emergency mode",
];

/// An Intel, which is what the IOMMU is, without what costs an emulator much: `rep stosb`, by
/// which a kernel with `erms` clears hugepages, goes byte by byte there, and each change of
/// `smap`'s flag ends a block of translated code.
const CPU: &str = "max,vendor=GenuineIntel,erms=off,fsrm=off,avx=off,avx2=off,\
                   smap=off,smep=off,umip=off,pku=off,xsave=off,la57=off";

/// A running guest. Dropped, it is ended: by its own process, and no other. If the test fails
/// meanwhile, what it said is printed.
pub struct Guest {
    name: String,
    process: Child,
    console: Receiver<String>,
    said: Vec<String>,
    /// Up to which of the lines in `said` a wait has looked.
    n_looked_at: usize,
    /// Of the second serial port, where there is one.
    shell: Option<BufReader<UnixStream>>,
    /// Holds the control sockets.
    folder: TempDir,
}

impl Guest {
    /// Starts a guest without network or disk, with its console on the serial port.
    #[track_caller]
    pub fn start(_turn: &Turn, kernel: &Path, initrd: &Path) -> Self {
        let arguments = ["-accel", "tcg", "-smp", "1", "-m", "512", "-nic", "none"]
            .map(str::to_owned)
            .into_iter()
            .collect();
        // A panic ends the guest at once instead of waiting for the timeout.
        Self::spawn("guest", kernel, initrd, "loglevel=4 panic=-1", arguments)
    }

    /// Starts a guest with a machine of `arguments` and a root shell for
    /// [`Guest::run`] on its second serial port.
    #[track_caller]
    pub fn start_with_shell(
        name: &str,
        kernel: &Path,
        initrd: &Path,
        kernel_line: &str,
        arguments: Vec<String>,
    ) -> Self {
        let mut guest = Self::spawn(name, kernel, initrd, kernel_line, arguments);
        let shell = guest.connect("shell");
        guest.shell = Some(BufReader::new(shell));
        guest
    }

    #[track_caller]
    fn spawn(
        name: &str,
        kernel: &Path,
        initrd: &Path,
        kernel_line: &str,
        arguments: Vec<String>,
    ) -> Self {
        let mut command = support::command("qemu-system-x86_64");
        command
            .args(arguments)
            .arg("-kernel")
            .arg(kernel)
            .arg("-initrd")
            .arg(initrd)
            .args(["-append", &format!("console=ttyS0 {kernel_line}")]);
        Self::run_qemu(name, command)
    }

    /// Starts a guest that finds out from its firmware what to boot. `qemu` is QEMU with the
    /// machine in its arguments.
    #[track_caller]
    pub fn start_firmware(_turn: &Turn, name: &str, qemu: Command) -> Self {
        Self::run_qemu(name, qemu)
    }

    /// As [`Guest::start_firmware`], with a shell for [`Guest::run`] once the installed system
    /// has one.
    #[track_caller]
    pub fn start_firmware_with_shell(turn: &Turn, name: &str, qemu: Command) -> Self {
        let mut guest = Self::start_firmware(turn, name, qemu);
        let shell = guest.connect("shell");
        guest.shell = Some(BufReader::new(shell));
        guest
    }

    #[track_caller]
    fn run_qemu(name: &str, mut command: Command) -> Self {
        let folder = support::scratch();
        let socket =
            |name: &str| format!("unix:{}/{name},server=on,wait=off", folder.path().display());
        let mut process = command
            .args(["-cpu", CPU, "-nodefaults", "-no-reboot", "-nographic"])
            .args(["-serial", "stdio", "-serial", &socket("shell"), "-monitor", "none"])
            .args(["-qmp", &socket("qmp")])
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("qemu starts");
        let stdout = process.stdout.take().expect("stdout is piped");
        let (sender, console) = channel();
        let copy = copy_of_console(name);
        std::thread::spawn(move || forward_lines(stdout, copy, &sender));
        let name = name.to_owned();
        Self { name, process, console, said: Vec::new(), n_looked_at: 0, shell: None, folder }
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
        self.look_for(first, |line| line == first, deadline)?;
        let begin = self.n_looked_at;
        self.look_for(last, |line| line == last, deadline)?;
        Ok(self.said[begin..self.n_looked_at - 1].to_vec())
    }

    /// Waits for a line that contains `marker`, after those that earlier waits have seen, and
    /// returns it.
    ///
    /// # Panics
    ///
    /// Panics, and so prints what the guest said, if it ends or `timeout` passes before.
    #[track_caller]
    pub fn wait_for(&mut self, marker: &str, timeout: Duration) -> String {
        self.wait_for_both(marker, "", timeout)
    }

    /// As [`Guest::wait_for`], for a line that contains two texts.
    #[track_caller]
    pub fn wait_for_both(&mut self, marker: &str, other: &str, timeout: Duration) -> String {
        let deadline = Instant::now() + timeout;
        let is_marker = |line: &str| line.contains(marker) && line.contains(other);
        match self.look_for(marker, is_marker, deadline) {
            Ok(()) => self.said[self.n_looked_at - 1].clone(),
            // What was said is printed when the guest is dropped.
            Err(failure) => {
                let reason = failure.lines().next().unwrap_or_default();
                panic!("{}: {reason} {other}", self.name)
            }
        }
    }

    /// As [`Guest::wait_for`], but a line that was said before earlier ones counts, too.
    #[track_caller]
    pub fn wait_for_any_time(&mut self, marker: &str, timeout: Duration) {
        if self.lines_with(marker).is_empty() {
            self.wait_for(marker, timeout);
        }
    }

    fn look_for(
        &mut self,
        marker: &str,
        is_marker: impl Fn(&str) -> bool,
        deadline: Instant,
    ) -> Result<(), String> {
        loop {
            while let Some(line) = self.said.get(self.n_looked_at) {
                self.n_looked_at += 1;
                if is_marker(line) {
                    return Ok(());
                }
                if DEAD_ENDS.iter().any(|dead_end| line.contains(dead_end)) && self.shell.is_some()
                {
                    return Err(self.failure(&format!("`{line}`"), marker));
                }
            }
            let rest = deadline.saturating_duration_since(Instant::now());
            match self.console.recv_timeout(rest) {
                Ok(line) => self.said.push(line),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(self.failure("the time was up", marker));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.process.wait().expect("QEMU is our child");
                    let why = match status.success() {
                        true => "the guest ended".to_owned(),
                        false => format!("QEMU ended with {status}"),
                    };
                    return Err(self.failure(&why, marker));
                }
            }
        }
    }

    fn failure(&self, why: &str, marker: &str) -> String {
        format!("{why} before it said `{marker}`\n{}", self.said.join("\n"))
    }

    /// The lines so far that contain `text`, whether waited for or not.
    pub fn lines_with(&mut self, text: &str) -> Vec<String> {
        self.said.extend(self.console.try_iter());
        self.said.iter().filter(|line| line.contains(text)).cloned().collect()
    }

    /// Waits until the root shell of a system that says nothing by itself is there.
    ///
    /// # Panics
    ///
    /// Panics if it is not within `timeout`.
    #[track_caller]
    pub fn wait_for_shell(&mut self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let shell = self.shell.as_mut().expect("the guest has a shell");
        shell.get_ref().set_read_timeout(Some(timeout)).unwrap();
        let mut line = Vec::new();
        while !line.ends_with(b"hello\n") {
            line.clear();
            let n_read = shell.read_until(b'\n', &mut line).unwrap_or(0);
            let is_late = Instant::now() > deadline;
            assert!(n_read > 0 && !is_late, "{}: there is no shell", self.name);
        }
    }

    /// What `command` says to a root shell of the guest, on both streams.
    ///
    /// # Panics
    ///
    /// Panics if it fails or does not end within `timeout`.
    #[track_caller]
    pub fn run(&mut self, command: &str, timeout: Duration) -> String {
        let (status, said) = self.try_run(command, timeout);
        assert!(status == 0, "{}: `{command}` ended with {status}:\n{said}", self.name);
        said
    }

    /// Exit code and words of `command`; see [`Guest::run`].
    #[track_caller]
    pub fn try_run(&mut self, command: &str, timeout: Duration) -> (i32, String) {
        self.send(command, timeout);
        let answer = self
            .answer(timeout)
            .unwrap_or_else(|| panic!("{}: `{command}` did not end within {timeout:?}", self.name));
        let (status, said) = answer.split_once(' ').unwrap_or((&answer, ""));
        let said = BASE64_STANDARD.decode(said).expect("the shell answers in base64");
        let status = status.parse().expect("the shell answers with an exit code");
        (status, String::from_utf8_lossy(&said).trim_end().to_owned())
    }

    #[track_caller]
    fn send(&mut self, command: &str, timeout: Duration) {
        let command = format!("{}\n", BASE64_STANDARD.encode(command));
        let shell = self.shell.as_mut().expect("the guest has a shell");
        shell.get_ref().set_read_timeout(Some(timeout)).unwrap();
        shell.get_mut().write_all(command.as_bytes()).unwrap();
    }

    /// The next answer of the shell.
    fn answer(&mut self, timeout: Duration) -> Option<String> {
        let deadline = Instant::now() + timeout;
        let shell = self.shell.as_mut()?;
        while Instant::now() < deadline {
            let mut line = Vec::new();
            match shell.read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
            let line = String::from_utf8_lossy(&line).trim().to_owned();
            if is_answer(&line) {
                return Some(line);
            }
        }
        None
    }

    /// Has systemd shut the system down.
    #[track_caller]
    pub fn begin_shutdown(mut self, timeout: Duration) -> Self {
        self.send("systemctl --no-block reboot", timeout);
        self
    }

    /// Waits for the end of QEMU, after [`Guest::begin_shutdown`]: it does not reboot.
    #[track_caller]
    pub fn wait_for_end(mut self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let Err(failure) = self.look_for("its last line", |_| false, deadline) else { return };
        assert!(failure.starts_with("the guest ended"), "{}: it does not shut down", self.name);
        self.process.wait().expect("QEMU is our child");
    }

    /// The name it was started with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Ends the guest through QEMU's control socket, as a power cut would, and waits for that.
    /// QEMU's own caches are written.
    #[track_caller]
    pub fn quit(mut self) {
        self.tell_qemu("quit");
        assert!(self.process.wait().expect("QEMU is our child").success());
    }

    /// Lets `look` see the disks as they would be found after a power cut at this moment: the
    /// guest stands still, and what it has flushed is in their files.
    #[track_caller]
    pub fn paused<T>(&self, look: impl FnOnce() -> T) -> T {
        self.tell_qemu("stop");
        let seen = look();
        self.tell_qemu("cont");
        seen
    }

    #[track_caller]
    fn tell_qemu(&self, command: &str) {
        let told = self.try_to_tell_qemu(command);
        told.unwrap_or_else(|fault| panic!("{}: `{command}` by QMP: {fault}", self.name));
    }

    /// QEMU's docs/interop/qmp-spec: capabilities are negotiated before the first command, and
    /// events come between the answers.
    fn try_to_tell_qemu(&self, command: &str) -> std::io::Result<()> {
        let mut control = self.connect("qmp");
        control.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut answers = BufReader::new(control.try_clone()?);
        let mut answer = String::new();
        answers.read_line(&mut answer)?;
        for command in ["qmp_capabilities", command] {
            writeln!(control, "{{\"execute\": \"{command}\"}}")?;
            loop {
                answer.clear();
                let n_read = answers.read_line(&mut answer)?;
                if n_read == 0 || answer.contains("\"return\"") {
                    break;
                }
                if answer.contains("\"error\"") {
                    return Err(std::io::Error::other(answer));
                }
            }
        }
        Ok(())
    }

    /// One of QEMU's sockets. It makes them at its start, which a loaded machine delays.
    #[track_caller]
    fn connect(&self, socket: &str) -> UnixStream {
        let path = self.folder.path().join(socket);
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match UnixStream::connect(&path) {
                Ok(stream) => return stream,
                Err(error) => assert!(Instant::now() < deadline, "{}: {error}", path.display()),
            }
            std::thread::yield_now();
        }
    }

    fn transcript(&mut self) -> String {
        self.said.extend(self.console.try_iter());
        let mut text = format!("---- what {} said\n", self.name);
        for line in &self.said {
            let _ = writeln!(text, "{line}");
        }
        text
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Both fail only where the guest has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.transcript());
        }
    }
}

/// An exit code, and base64. UEFI firmware talks on this port, too, before the shell does.
fn is_answer(line: &str) -> bool {
    let (status, said) = line.split_once(' ').unwrap_or((line, ""));
    status.parse::<i32>().is_ok() && !said.contains(' ')
}

/// What `command` says to the root shell behind `socket`, of a guest that somebody else started.
///
/// # Panics
///
/// Panics if it fails or does not end within `timeout`.
#[track_caller]
pub fn run_in_shell(socket: &Path, command: &str, timeout: Duration) -> String {
    let mut shell = UnixStream::connect(socket).unwrap();
    shell.set_read_timeout(Some(timeout)).unwrap();
    writeln!(shell, "{}", BASE64_STANDARD.encode(command)).unwrap();
    let mut lines = BufReader::new(shell).lines();
    let answer = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains(' '))).unwrap();
    let answer = answer.unwrap();
    let (status, said) = answer.trim().split_once(' ').expect("it has a space");
    let said = String::from_utf8(BASE64_STANDARD.decode(said).unwrap()).unwrap();
    assert_eq!(status, "0", "`{command}`: {said}");
    said
}

/// `tmp/boot/TEST/GUEST.console` in the target folder: to look at while a test runs.
fn copy_of_console(guest: &str) -> File {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test").replace("::", ".");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("boot").join(test);
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("{guest}.console"));
    File::options().create(true).append(true).open(path).unwrap()
}

fn forward_lines(console: ChildStdout, mut copy: File, sender: &Sender<String>) {
    for line in BufReader::new(console).split(b'\n') {
        let Ok(line) = line else { return };
        let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
        // A copy that cannot be written is missed by nobody.
        let _ = writeln!(copy, "{line}");
        if sender.send(line).is_err() {
            return;
        }
    }
}
