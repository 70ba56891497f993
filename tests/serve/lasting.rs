//! What outlives a crash, a rebuild and the end.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Lab, NODE1, NODE2, paths, read_all, word};
use crate::support;
use crate::support::listing::sha256;

#[test]
fn what_was_answered_outlives_kill_9() {
    if support::lacks(&["curl"]) {
        return;
    }
    let lab = Lab::new();
    let mut server = lab.serve();
    lab.arm(&["node2"]);
    let script = server.text(&paths(NODE2)[2]);
    let token = word(&script, "nodeforge.event_token").unwrap().to_owned();
    assert_eq!(server.status(&[], "nodes/node2/kickstart.ks"), 200);
    server.kill();
    server = lab.serve();
    assert_eq!(server.state("node2"), "installing");
    assert_eq!(server.text(&paths(NODE2)[2]), script, "the same grant and the same tokens");

    // A reporter that goes on posting while the server dies again and again.
    let mut n_answered = 0;
    for round in 0..3 {
        let is_enough = AtomicBool::new(false);
        let first = n_answered + 1;
        let url = format!("{}/events", server.url);
        thread::scope(|scope| {
            let posts = scope.spawn(|| {
                let mut seq = first;
                loop {
                    let event = json!({ "node": "node2", "boot_id": "b", "seq": seq, "step": "s",
                                        "state": "started", "message": "" });
                    let header = format!("Authorization: Bearer {token}");
                    let body = event.to_string();
                    let words =
                        ["-s", "-f", "--noproxy", "*", "-H", &header, "--data-binary", &body, &url];
                    if !support::run("curl", &words).status.success() {
                        return seq - 1;
                    }
                    if seq - first >= 5 {
                        is_enough.store(true, Ordering::Release);
                    }
                    seq += 1;
                }
            });
            while !is_enough.load(Ordering::Acquire) && !posts.is_finished() {
                thread::yield_now();
            }
            server.kill();
            n_answered = posts.join().unwrap();
        });
        assert!(n_answered >= first + 5, "round {round}");
        server = lab.serve();
        let timeline = server.json("api/v1/nodes/node2")["timeline"].clone();
        let n_kept =
            timeline.as_array().unwrap().iter().filter(|it| it["source"] == "node").count();
        // One may have been written whose answer was lost.
        let is_whole = n_kept == n_answered as usize || n_kept == n_answered as usize + 1;
        assert!(is_whole, "{n_answered} were answered, {n_kept} are there");
    }
    assert_eq!(server.state("node2"), "firstboot");
    assert!(!server.text(&paths(NODE2)[2]).contains("vmlinuz"));
}

#[test]
fn one_server_has_the_state() {
    let lab = Lab::new();
    let _server = lab.serve();
    let (code, said) = lab.failed(&["serve", "out", "--forwarded", "--listen", "127.0.0.1:0"]);
    assert_eq!(code, 1);
    assert!(said.contains("another server runs on out.state"), "{said}");
}

/// A GET over a connection of its own: status, ETag and body.
fn get(address: &str, path: &str) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("GET /{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let answer = read_all(stream);
    let at = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&answer[..at]).to_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let etag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap_or_default();
    (status, etag.to_owned(), answer[at + 4..].to_vec())
}

#[test]
fn a_rebuild_under_load_is_taken_up_whole() {
    if support::lacks(&["curl"]) {
        return;
    }
    let lab = Lab::new();
    let server = lab.serve();
    lab.arm(&["node1"]);
    let (is_over, n_downloads) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        for path in [
            "nodes/node1/kickstart.ks",
            "nodes/node0/overlay.tar.gz",
            "layers/SHA256SUMS",
            "manifest.json",
        ] {
            let (is_over, n_downloads, address) = (&is_over, &n_downloads, server.address());
            scope.spawn(move || {
                while !is_over.load(Ordering::Acquire) {
                    let (status, etag, body) = get(address, path);
                    assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
                    assert_eq!(etag, format!("\"{}\"", &sha256(&body)[..32]), "{path}");
                    n_downloads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let ports = ["9191", "9192", "9193", "9194", "9195", "9196", "9197", "9198"];
        for pair in ports.windows(2) {
            lab.edit(
                &format!("telemetry_port = {}", pair[0]),
                &format!("telemetry_port = {}", pair[1]),
            );
            lab.build();
        }
        let newest = fs::read(lab.path().join("out/current/manifest.json")).unwrap();
        while get(server.address(), "manifest.json").2 != newest {
            thread::yield_now();
        }
        is_over.store(true, Ordering::Release);
    });
    assert!(n_downloads.into_inner() > 50);
    let said = server.said();
    let mut warnings = said.lines().filter(|line| line.starts_with("warning"));
    assert!(
        warnings.all(|line| line.contains("images of the installer are still to come")),
        "{said}"
    );
}

#[test]
fn an_installation_that_has_begun_goes_on_with_the_files_it_began_with() {
    if support::lacks(&["curl"]) {
        return;
    }
    let lab = Lab::new();
    let mut server = lab.serve();
    lab.arm(&["node1"]);
    let script = server.text(&paths(NODE1)[2]);
    let files = ["nodes/node1/kickstart.ks", "nodes/node1/overlay.tar.gz"];
    let begun = files.map(|path| server.ask(&[], path));
    let rebuild = |from: u32, to: u32| {
        for at in from..to {
            let suffix = |at: u32| format!("intel_iommu=on\", \"quiet{at}");
            let from = if at == 0 { "intel_iommu=on".to_owned() } else { suffix(at) };
            lab.edit(&from, &suffix(at + 1));
            lab.build();
        }
    };
    rebuild(0, 7);
    let newest = fs::read(lab.path().join("out/current/manifest.json")).unwrap();
    while server.ask(&[], "manifest.json").1 != newest {
        thread::yield_now();
    }
    assert_eq!(files.map(|path| server.ask(&[], path)), begun);
    // Another server takes it up where the first one was killed.
    server.kill();
    server = lab.serve();
    assert_eq!(files.map(|path| server.ask(&[], path)), begun);
    assert_ne!(fs::read(lab.path().join("out/current").join(files[0])).unwrap(), begun[0].1);

    let token = word(&script, "nodeforge.event_token").unwrap();
    let event = json!({ "node": "node1", "step": "finish", "state": "ended", "message": "" });
    assert_eq!(server.post(token, &event.to_string()), 204);
    while lab.path().join("out/generations/1").exists() {
        rebuild_once(&lab);
    }
}

/// Changes one thing and builds; a held generation goes when nobody holds it any more.
fn rebuild_once(lab: &Lab) {
    let path = lab.path().join("lab3.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("quiet7", "quiet7x").replace("quiet7xx", "quiet7")).unwrap();
    lab.build();
}

#[test]
fn a_generation_that_is_held_is_not_swept() {
    let lab = Lab::new();
    let out = lab.path().join("out");
    let held = nodeforge::output::hold_current(&out).unwrap();
    let kickstart = fs::canonicalize(out.join("current/nodes/node0/kickstart.ks")).unwrap();
    let rebuild = |from: u32, to: u32| {
        for port in from..to {
            lab.edit(
                &format!("telemetry_port = {port}"),
                &format!("telemetry_port = {}", port + 1),
            );
            lab.build();
        }
    };
    rebuild(9191, 9198);
    let is_there = |number: u32| out.join(format!("generations/{number}")).exists();
    assert_eq!(held.number(), 1);
    assert!(is_there(1) && !is_there(2) && kickstart.exists());
    drop(held);
    rebuild(9198, 9200);
    assert!(!is_there(1) && !kickstart.exists());
}

#[test]
fn stopping_finishes_running_downloads() {
    if support::lacks(&["curl"]) {
        return;
    }
    let lab = Lab::new();
    let bytes = lab.add_large_file(24 << 20);
    let mut server = lab.serve();
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.write_all(b"GET /pxe/large.bin HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut first = [0; 4096];
    stream.read_exact(&mut first).unwrap();
    let idle = TcpStream::connect(server.address()).unwrap();
    server.stop();
    // The listener goes first.
    while TcpStream::connect(server.address()).is_ok() {
        thread::yield_now();
    }
    assert_eq!(server.child.try_wait().unwrap(), None, "it waits for the download");
    let answer = [first.to_vec(), read_all(stream)].concat();
    assert!(answer.ends_with(&bytes), "{} bytes came", answer.len());
    drop(idle);
    assert!(server.child.wait().unwrap().success());
    assert!(server.said().contains("1 downloads are still running"), "{}", server.said());
}

#[test]
fn a_file_that_is_cut_while_it_is_sent_ends_the_connection() {
    let lab = Lab::new();
    let bytes = lab.add_large_file(24 << 20);
    let server = lab.serve();
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.write_all(b"GET /pxe/large.bin HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut first = [0; 4096];
    stream.read_exact(&mut first).unwrap();
    // More than sockets hold.
    let n_left = 20 << 20;
    let file = File::options().write(true).open(lab.path().join("out/current/pxe/large.bin"));
    file.unwrap().set_len(n_left).unwrap();
    let answer = [first.to_vec(), read_all(stream)].concat();
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    assert_eq!(answer.len() - head, n_left as usize);
    assert!(bytes.starts_with(&answer[head..]), "what came is the file's");
    assert_eq!(get(server.address(), "manifest.json").0, 200);
}

#[test]
fn tls_takes_the_given_certificate_and_asks_for_it_where_the_url_is_https() {
    if support::lacks(&["curl", "openssl"]) {
        return;
    }
    let lab = Lab::new();
    let (code, said) =
        lab.failed(&["serve", "out", "--listen", "0.0.0.0:8080", "--tls-certificate", "c"]);
    assert_eq!(code, 2, "{said}");
    lab.edit("http://192.168.3.1:8080", "https://localhost:8443");
    let bytes = lab.add_large_file(3_000_017);
    let (code, said) = lab.failed(&["serve", "out", "--listen", "127.0.0.1:8443"]);
    assert!(code == 1 && said.contains("needs --tls-certificate"), "{said}");
    make_certificate(lab.path());
    let tls = ["--tls-certificate", "c.pem", "--tls-key", "k.pem"];
    let server = lab.serve_with(&[&tls[..], &["--forwarded", "--listen", "127.0.0.1:0"]].concat());
    let certificate = lab.path().join("c.pem");
    let trusted = ["--cacert", certificate.to_str().unwrap()];
    assert_eq!(server.status(&trusted, "manifest.json"), 200);
    assert_eq!(server.ask(&trusted, "pxe/large.bin"), (200, bytes));
    assert_eq!(server.curl(&[], "manifest.json").status.code(), Some(60), "nobody else's");
    let told = "warning: TLS with 127.0.0.1 failed (1 in all): ";
    let deadline = Instant::now() + Duration::from_secs(30);
    while !server.said().contains(told) {
        assert!(Instant::now() < deadline, "{}", server.said());
        thread::yield_now();
    }
    lab.arm(&["node1"]);
    let (status, script) = server.ask(&trusted, &paths(NODE1)[2]);
    assert!(
        status == 200 && String::from_utf8(script).unwrap().contains("https://localhost:8443/")
    );
}

pub fn make_certificate(folder: &Path) {
    let mut command = support::command("openssl");
    let words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=IP:127.0.0.1 -keyout k.pem -out c.pem";
    let made = command.args(words.split(' ')).current_dir(folder).stderr(Stdio::null()).status();
    assert!(made.unwrap().success());
}
