//! Who means no good is refused, and nobody else is harmed.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::{Lab, read_all, word};
use crate::support;

/// What the server says to these bytes, which make it hang up or say that nothing follows.
fn say(address: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    // It may have hung up before it has read everything.
    _ = stream.write_all(bytes);
    String::from_utf8_lossy(&read_all(stream)).into_owned()
}

#[test]
fn no_path_leads_out_of_the_manifest() {
    if support::lacks(&["curl"]) {
        return;
    }
    let lab = Lab::new();
    let server = lab.serve();
    lab.arm(&["node1"]);
    for path in [
        "../../etc/passwd",
        "pxe/../../../../../etc/passwd",
        "pxe/..%2f..%2f..%2fetc/passwd",
        "%2e%2e/%2e%2e/etc/passwd",
        "pxe/%2e%2e/secret/node1.tar.gz",
        "nodes/node1/../../secret/node1.tar.gz",
        "nodes/node1/..\\..\\secret\\node1.tar.gz",
        "pxe/boot.ipxe%00",
        "pxe/boot.ipxe/",
        "pxe/./boot.ipxe",
        "/etc/passwd",
        "api/v1/nodes/../../secret/node1.tar.gz",
        "pxe/ipxe/52:54:00:03:00:12.ipxe",
        "pxe/ipxe/52-54-00-03-00-12.IPXE",
    ] {
        let (status, body) = server.ask(&[], path);
        assert_eq!((status, body.as_slice()), (404, &b"there is no such file\n"[..]), "{path}");
    }
    let state_key = std::fs::read(lab.path().join("out.state/key")).unwrap();
    assert_eq!(state_key.len(), 32);
}

#[test]
fn the_state_folder_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;

    let lab = Lab::new();
    lab.arm(&["node1"]);
    let mode =
        |path: &str| std::fs::metadata(lab.path().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("out.state"), mode("out.state/key")), (0o700, 0o600));
}

#[test]
fn requests_that_are_too_large_or_no_http_are_refused() {
    let lab = Lab::new();
    let server = lab.serve();
    let huge = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(1000));
    let line = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(100_000));
    for (request, statuses) in [
        (huge.as_bytes(), &["431", "400"][..]),
        (many.as_bytes(), &["431", "400"]),
        (line.as_bytes(), &["414", "431", "400"]),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", &["400"]),
        (b"GET / HTTP/9.9\r\n\r\n", &["400", "505"]),
        (b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", &["400", "401"]),
        (b"DELETE /manifest.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", &["405"]),
    ] {
        let answer = say(server.address(), request);
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(statuses.contains(&status), "{answer}");
    }
    assert_eq!(server.status(&[], "manifest.json"), 200);
}

#[test]
fn a_thousand_slow_clients_harm_nobody() {
    if support::lacks(&["curl"]) {
        return;
    }
    let lab = Lab::new();
    let large = lab.add_large_file(8 << 20);
    let server = lab.serve();
    // Some never end their headers, some never read what they asked for.
    let slow: Vec<TcpStream> = (0..1000)
        .map(|at| {
            let mut stream = TcpStream::connect(server.address()).unwrap();
            let request = match at % 2 {
                0 => &b"GET /manifest.json HTTP/1.1\r\nHost:"[..],
                _ => b"GET /pxe/large.bin HTTP/1.1\r\nHost: x\r\n\r\n",
            };
            stream.write_all(request).unwrap();
            stream
        })
        .collect();
    for _ in 0..5 {
        assert_eq!(server.ask(&[], "pxe/large.bin"), (200, large.clone()));
        assert_eq!(server.status(&[], "manifest.json"), 200);
    }
    let status = format!("/proc/{}/status", server.child.id());
    let mut text = String::new();
    File::open(status).unwrap().read_to_string(&mut text).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: u64 = line.trim().strip_suffix(" kB").unwrap().trim().parse().unwrap();
    assert!(kib < (64 << 10) + 1000 * 16, "{kib} KiB: more than 64 MiB and 16 KiB a connection");
    drop(slow);
}

#[test]
fn whatever_is_posted_or_asked_for_is_answered_and_changes_nothing() {
    if support::lacks(&["curl"]) {
        return;
    }
    let (_lab, server, script) = Lab::with_armed_node();
    let token = word(&script, "nodeforge.event_token").unwrap();
    let before = server.json("api/v1/nodes/node1");
    let mut runner =
        TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
    let posts = (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..300));
    runner
        .run(&posts, |(is_own, body)| {
            let token = if is_own { token } else { "stolen" };
            let head = format!(
                "POST /events HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            let answer = say(server.address(), &[head.as_bytes(), &body].concat());
            let status = answer.split(' ').nth(1).unwrap_or_default();
            prop_assert!(matches!(status, "400" | "403"), "{answer}");
            Ok(())
        })
        .unwrap();
    runner
        .run(&"[ -~]{0,60}", |path| {
            let request = format!(
                "GET /{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
                path.replace(' ', "%20")
            );
            let answer = say(server.address(), request.as_bytes());
            let status = answer.split(' ').nth(1).unwrap_or_default();
            prop_assert!(matches!(status, "404" | "400" | "200"), "{path}: {answer}");
            Ok(())
        })
        .unwrap();
    assert_eq!(server.json("api/v1/nodes/node1"), before);
}
