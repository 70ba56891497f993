//! The boot server: real processes on loopback, asked by real curl.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

use crate::examples::{copy_with_secrets, nodeforge, printed};
use crate::support;

mod bmc;
mod boot;
mod hostile;
mod lasting;
mod life;
mod node;
mod page;
mod rebuilt;
mod reports;
mod storm;
mod tftp;

/// The MAC addresses of lab3's nodes, with dashes.
const NODE0: &str = "52-54-00-03-00-11";
const NODE1: &str = "52-54-00-03-00-12";
const NODE2: &str = "52-54-00-03-00-13";
const STRANGER: &str = "52-54-00-99-99-99";

/// The three paths by which a machine asks what to boot.
fn paths(mac: &str) -> [String; 3] {
    [
        format!("pxe/pxelinux.cfg/01-{mac}"),
        format!("pxe/grub/grub.cfg-01-{mac}"),
        format!("pxe/ipxe/{mac}.ipxe"),
    ]
}

/// A built lab3.
struct Lab(tempfile::TempDir);

impl Lab {
    fn new() -> Self {
        let lab = Self(support::scratch());
        copy_with_secrets(lab.path(), "lab3.toml");
        lab.edit("overlay = \"embedded\"", "overlay = \"http\"");
        lab.build();
        lab
    }

    /// With a server, and node1 armed; the script that node1 then boots by.
    fn with_armed_node() -> (Self, Server, String) {
        let lab = Self::new();
        let server = lab.serve();
        lab.arm(&["node1"]);
        let script = server.text(&paths(NODE1)[2]);
        (lab, server, script)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn edit(&self, from: &str, to: &str) {
        let path = self.path().join("lab3.toml");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from:?} stands in lab3.toml");
        fs::write(path, text.replace(from, to)).unwrap();
    }

    fn build(&self) {
        printed(
            self.path(),
            &["build", "lab3.toml", "--boot-programs", "programs"][..self.n_words()],
        );
    }

    /// Boot programs are taken if the test has put some there.
    fn n_words(&self) -> usize {
        if self.path().join("programs").exists() { 4 } else { 2 }
    }

    /// A large file that is served as `pxe/large.bin`; its bytes.
    fn add_large_file(&self, size: usize) -> Vec<u8> {
        let bytes: Vec<u8> = (0..size).map(|at| (at * 7 + at / 251) as u8).collect();
        support::write(self.path(), "programs/large.bin", &bytes);
        self.build();
        bytes
    }

    fn arm(&self, words: &[&str]) {
        printed(self.path(), &[&["arm"][..], words].concat());
    }

    fn serve(&self) -> Server {
        self.serve_with(&["--forwarded", "--listen", "127.0.0.1:0"])
    }

    fn serve_with(&self, words: &[&str]) -> Server {
        Server::start(self.path(), &[&["serve", "out"][..], words].concat())
    }

    /// Exit code and standard error of `nodeforge words…`.
    fn failed(&self, words: &[&str]) -> (i32, String) {
        let mut command = Command::new(nodeforge());
        let output = command.args(words).current_dir(self.path()).stdin(Stdio::null()).output();
        let output = output.unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }
}

/// A running server, which ends with the value.
struct Server {
    child: Child,
    url: String,
    said: Arc<Mutex<String>>,
}

impl Server {
    /// Starts it and waits until it says that it listens.
    fn start(folder: &Path, words: &[&str]) -> Self {
        let mut command = Command::new(nodeforge());
        command.args(words).current_dir(folder).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let said = Arc::new(Mutex::new(String::new()));
        let address = loop {
            let mut line = String::new();
            if lines.read_line(&mut line).unwrap() == 0 {
                panic!("the server ended: {}", said.lock().unwrap());
            }
            said.lock().unwrap().push_str(&line);
            if let Some((_, address)) = line.trim().split_once("listening on ") {
                break address.to_owned();
            }
        };
        let keeps = Arc::clone(&said);
        thread::spawn(move || {
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|length| length > 0) {
                keeps.lock().unwrap().push_str(&std::mem::take(&mut line));
            }
        });
        let scheme = if words.contains(&"--tls-key") { "https" } else { "http" };
        Self { child, url: format!("{scheme}://{address}"), said }
    }

    fn address(&self) -> &str {
        self.url.split_once("://").unwrap().1
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// What curl says to `path`, with the status as the last line of its standard output.
    fn curl(&self, words: &[&str], path: &str) -> Output {
        let mut command = support::command("curl");
        command
            .args([
                "--silent",
                "--show-error",
                "--path-as-is",
                "--max-time",
                "60",
                "--noproxy",
                "*",
            ])
            .args(["--write-out", "\n%{http_code}"])
            .args(words)
            .arg(format!("{}/{path}", self.url));
        command.output().unwrap()
    }

    /// Status and body.
    fn ask(&self, words: &[&str], path: &str) -> (u16, Vec<u8>) {
        let output = self.curl(words, path);
        let said = output.stdout;
        let at = said.iter().rposition(|byte| *byte == b'\n').unwrap();
        let status = String::from_utf8_lossy(&said[at + 1..]).parse().unwrap();
        (status, said[..at].to_vec())
    }

    fn status(&self, words: &[&str], path: &str) -> u16 {
        self.ask(words, path).0
    }

    fn text(&self, path: &str) -> String {
        let (status, body) = self.ask(&[], path);
        let text = String::from_utf8(body).unwrap();
        assert_eq!(status, 200, "{path}: {text}");
        text
    }

    fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.text(path)).unwrap()
    }

    /// State of a node as the interface tells it.
    fn state(&self, node: &str) -> String {
        self.json(&format!("api/v1/nodes/{node}"))["state"].as_str().unwrap().to_owned()
    }

    /// Posts `event` with `token`; the status.
    fn post(&self, token: &str, event: &str) -> u16 {
        let header = format!("Authorization: Bearer {token}");
        self.status(&["--header", &header, "--data-binary", event], "events")
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM.
    fn stop(&self) {
        let pid = self.child.id().to_string();
        assert!(support::run("kill", &["-TERM", &pid]).status.success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It is gone already where a test has ended it.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// The value of a word of a boot script.
fn word<'a>(script: &'a str, name: &str) -> Option<&'a str> {
    script.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

/// Reads a stream to its end.
fn read_all(mut stream: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    _ = stream.read_to_end(&mut bytes);
    bytes
}
