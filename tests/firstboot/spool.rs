//! The spool of events, and what sends it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;

use super::world::{Ran, World};

const EVENT: &str = "usr/libexec/nodeforge/event";
const REPORT: &str = "usr/libexec/nodeforge/report";
const TOKEN: &str = "tok-EN_123.~+/=";

fn spool(world: &World) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(world.path("var/lib/nodeforge/events"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn put(world: &World, arguments: &[&str]) {
    let ran = world.run(EVENT, arguments);
    assert_eq!(ran, Ran { status: 0, out: String::new(), err: String::new() });
}

#[test]
fn an_event_is_whole_ascii_json_with_a_number() {
    let world = World::bare("srv1");
    world.write("log", "one\ntwö \"2\" \\ \u{1}\nthree\n");
    put(
        &world,
        &["20-b", "failed", "no \"disk\"\nat all \\ tö", world.path("log").to_str().unwrap()],
    );
    put(&world, &["20-b", "done", "fine", world.path("log").to_str().unwrap()]);
    assert_eq!(spool(&world), ["000000000001.json", "000000000002.json"]);
    let read = |name: &str| -> serde_json::Value {
        let text = world.read(&format!("var/lib/nodeforge/events/{name}"));
        assert!(text.is_ascii() && text.ends_with("}\n") && text.lines().count() == 1, "{text}");
        serde_json::from_str(&text).unwrap()
    };
    let mut event = read("000000000001.json");
    let time = event.as_object_mut().unwrap().remove("time").unwrap();
    assert!(regex::Regex::new("^20[0-9-]+T[0-9:]+Z$").unwrap().is_match(time.as_str().unwrap()));
    assert_eq!(
        event,
        serde_json::json!({
            "node": "srv1", "boot_id": "boot-1", "seq": 1, "step": "20-b", "state": "failed",
            "message": "no \"disk\" at all \\ t  ", "log": ["one", "tw   \"2\" \\  ", "three"],
        })
    );
    assert_eq!(read("000000000002.json")["log"], serde_json::json!([]));
}

#[test]
fn the_spool_is_bounded_and_loses_the_oldest() {
    let world = World::bare("srv1");
    for number in 1..=256 {
        world.write(&format!("var/lib/nodeforge/events/{number:012}.json"), "{}\n");
    }
    world.write("var/lib/nodeforge/events.last", "256\n");
    world.write("log", format!("{}\n", "x".repeat(100_000)).repeat(50));
    put(&world, &["a", "failed", &"m".repeat(50_000), world.path("log").to_str().unwrap()]);
    let names = spool(&world);
    assert_eq!(
        (names.len(), names[0].as_str(), names[255].as_str()),
        (256, "000000000002.json", "000000000257.json")
    );
    let event = world.read("var/lib/nodeforge/events/000000000257.json");
    assert!(event.len() < 7000, "{}", event.len());
}

#[test]
fn many_events_come_at_once() {
    let world = World::bare("srv1");
    let mut command = world.command(EVENT);
    let mut child = command.arg("-").stdin(std::process::Stdio::piped()).spawn().unwrap();
    let lines = "preflight/a\tdone\tfine\npreflight/b\tfailed\tno; Authorization: Bearer sesame\n";
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    put(&world, &["c", "done", "x"]);
    let events: String = spool(&world)
        .iter()
        .map(|name| world.read(&format!("var/lib/nodeforge/events/{name}")))
        .collect();
    let told: Vec<String> = events
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|event| {
            format!("{} {} {} {}", event["seq"], event["step"], event["state"], event["message"])
        })
        .collect();
    assert_eq!(
        told,
        [
            r#"1 "preflight/a" "done" "fine""#,
            r#"2 "preflight/b" "failed" "no; Authorization: Bearer (removed)""#,
            r#"3 "c" "done" "x""#,
        ]
    );
}

#[test]
fn a_damaged_counter_goes_on_after_the_youngest_event() {
    let world = World::bare("srv1");
    for damage in ["", "junk\n", "99999999999999999999\n"] {
        world.write("var/lib/nodeforge/events.last", damage);
        put(&world, &["a", "done", "x"]);
    }
    assert_eq!(spool(&world), ["000000000001.json", "000000000002.json", "000000000003.json"]);
}

#[test]
fn an_event_never_fails_whoever_tells() {
    let world = World::bare("srv1");
    put(&world, &[]);
    put(&world, &["a", "failed", "x", "/no/such/log"]);
    world.remove("etc/nodeforge/node.json");
    put(&world, &["a", "done", "x"]);
    world.remove("var/lib/nodeforge");
    world.write("var/lib/nodeforge", "a file");
    put(&world, &["a", "done", "x"]);
}

/// What a boot server saw of one request.
struct Request {
    line: String,
    headers: Vec<String>,
    body: String,
}

/// A boot server that answers with one status after another and then with 200, and what it
/// is asked.
fn boot_server(statuses: &'static [u16]) -> (u16, mpsc::Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut statuses = statuses.iter();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut lines = Vec::new();
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                match line.trim_end() {
                    "" => break,
                    line => lines.push(line.to_owned()),
                }
            }
            let length = lines.iter().find_map(|line| {
                line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok()
            });
            let mut body = vec![0; length.unwrap_or(0)];
            reader.read_exact(&mut body).unwrap();
            let status = statuses.next().unwrap_or(&200);
            write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                .unwrap();
            let request = Request {
                line: lines.remove(0),
                headers: lines,
                body: String::from_utf8(body).unwrap(),
            };
            if sender.send(request).is_err() {
                return;
            }
        }
    });
    (port, receiver)
}

/// A node with events in its spool, and a token.
fn reporting(port: u16, n_events: usize) -> World {
    let world = World::bare("srv1");
    world.edit(
        "etc/nodeforge/kind.json",
        "http://127.0.0.1:9\"",
        &format!("http://127.0.0.1:{port}\""),
    );
    world.write("etc/nodeforge/event-token", format!("{TOKEN}\n"));
    for number in 1..=n_events {
        put(&world, &["step", "done", &format!("event {number}")]);
    }
    world
}

/// Runs the sender; curl is the real one, but what it is called with is noted.
fn report(world: &World) -> Ran {
    let curl = std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .map(|folder| folder.join("curl"))
        .find(|file| file.is_file())
        .expect("`curl` is missing here");
    world.executable(
        "bin/curl",
        &format!("echo \"curl $*\" >>\"$NODEFORGE_ROOT/calls\"\nexec {} \"$@\"", curl.display()),
    );
    world.run(REPORT, &[])
}

#[test]
fn events_are_sent_in_order_and_gone_then() {
    let (port, requests) = boot_server(&[]);
    let world = reporting(port, 3);
    assert_eq!(report(&world), Ran { status: 0, out: String::new(), err: String::new() });
    assert_eq!(spool(&world), [""; 0]);
    for number in 1..=3 {
        let request = requests.recv().unwrap();
        assert_eq!(request.line, "POST /events HTTP/1.1");
        let header = format!("Authorization: Bearer {TOKEN}");
        assert!(request.headers.contains(&header), "{:?}", request.headers);
        assert!(request.headers.contains(&"Content-Type: application/json".to_owned()));
        let event: serde_json::Value = serde_json::from_str(&request.body).unwrap();
        assert_eq!(event["message"], format!("event {number}"));
        assert!(!request.body.contains(TOKEN));
    }
    assert!(!world.read("calls").contains(TOKEN), "{}", world.read("calls"));
}

#[test]
fn a_server_that_cannot_now_is_asked_again_later() {
    for (statuses, told) in
        [(&[503, 503, 500][..], "503"), (&[401], "401"), (&[429, 502], "429"), (&[302], "302")]
    {
        let (port, requests) = boot_server(statuses);
        let world = reporting(port, 2);
        let ran = report(&world);
        assert_eq!((ran.status, spool(&world).len()), (0, 0));
        let first = format!(
            "nodeforge-report: http://127.0.0.1:{port}/events does not take events (status {told}): trying again, the boot goes on"
        );
        assert_eq!(ran.out.lines().next(), Some(first.as_str()));
        let last = format!("nodeforge-report: http://127.0.0.1:{port}/events answers again");
        assert_eq!(ran.out.lines().last(), Some(last.as_str()));
        assert!(!ran.out.contains(TOKEN) && !ran.err.contains(TOKEN));
        let bodies: Vec<String> = requests.try_iter().map(|request| request.body).collect();
        assert_eq!(bodies.len(), statuses.len() + 2);
        assert!(
            bodies.windows(2).take(statuses.len()).all(|pair| pair[0] == pair[1]),
            "{bodies:?}"
        );
    }
}

#[test]
fn waits_grow_and_differ() {
    let world = reporting(1, 1);
    let output = report(&world);
    assert_eq!(output.status, -1, "it goes on until the test ends it");
    assert!(output.out.contains("(status 000)"), "{}", output.out);
    assert_eq!(spool(&world).len(), 1);
    let calls = world.read("calls");
    let waits: Vec<u64> =
        calls.lines().filter_map(|line| line.strip_prefix("sleep ")?.parse().ok()).collect();
    let longest = [2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300];
    assert_eq!(waits.len(), longest.len(), "{calls}");
    for (wait, longest) in waits.iter().zip(longest) {
        assert!((longest / 2..=longest).contains(wait), "{waits:?}");
    }
}

#[test]
fn what_the_server_will_never_take_does_not_stand_in_the_way() {
    let (port, requests) = boot_server(&[400]);
    let world = reporting(port, 2);
    world.write("var/lib/nodeforge/events/000000000000.json", "{\"torn");
    let ran = report(&world);
    assert_eq!(
        ran.out,
        format!(
            "nodeforge-report: event 000000000000.json is torn: dropped\nnodeforge-report: http://127.0.0.1:{port}/events refuses event 000000000001.json with status 400: dropped\n"
        )
    );
    assert_eq!((ran.status, spool(&world).len(), requests.try_iter().count()), (0, 0, 2));
}

#[test]
fn without_a_usable_token_nothing_is_sent() {
    for token in [None, Some(""), Some("a\"b\nheader = \"x"), Some("two words")] {
        let (port, requests) = boot_server(&[]);
        let world = reporting(port, 1);
        match token {
            None => world.remove("etc/nodeforge/event-token"),
            Some(token) => world.write("etc/nodeforge/event-token", token),
        }
        let ran = report(&world);
        assert_eq!(
            (ran.status, ran.out.as_str()),
            (
                1,
                "nodeforge-report: no usable token in /etc/nodeforge/event-token: events stay here\n"
            ),
        );
        assert_eq!((spool(&world).len(), requests.try_iter().count()), (1, 0));
    }
}
