//! What a format answers, and what is made of it.

use std::io::Read;
use std::process::{Child, ChildStdout, Command};
use std::time::{Duration, Instant};

use serde_json::json;

use super::machine::{ALREADY, FORMATTED, Machine};

const REFUSED: &str =
    "client: code = 506 description = \"the server at node2:10001 refused the connection\"";

#[test]
fn a_partial_failure_stops_for_a_person_and_is_not_repeated() {
    let machine = Machine::new();
    machine.change_world(|world| world["format_errors"] = json!({ "node2": REFUSED }));
    let words = [
        "FAILED on node2: the server at node2:10001 refused the connection",
        "formatted: node0, node1. It is not repeated",
        "dmg storage format -l node2",
    ];
    machine.run().assert(1, &words);
    assert_eq!(machine.formats(), 1);
    assert_eq!(machine.marker(), None);
    assert_eq!(machine.note().unwrap()["state"], "failed");
    let record = machine.json("var/lib/nodeforge/steps/format.json").unwrap();
    assert_eq!(record["state"], "failed");

    // A restart and a reboot say so again.
    machine.write("proc/sys/kernel/random/boot_id", "boot-2\n");
    let again = machine.run();
    again.assert(1, &words);
    assert_eq!(machine.formats(), 1);

    // A person mends it.
    machine.change_world(|world| world["format_errors"] = json!({}));
    machine.dmg(&["storage", "format", "-l", "node2"]);
    let mended = machine.run();
    mended.assert(0, &words);
    assert_eq!(mended.last(), format!("nodeforge-format: {ALREADY}"));
    assert!(machine.marker().is_some());
    assert_eq!(machine.note(), None);
}

#[test]
fn a_failed_format_is_not_repeated_when_everything_looks_new_again() {
    let machine = Machine::new();
    let all = ["node0", "node1", "node2"].map(|name| (name, REFUSED));
    machine.change_world(|world| {
        world["format_errors"] = json!(std::collections::BTreeMap::from(all))
    });
    machine.run().assert(1, &["formatted: none. It is not repeated"]);
    machine.change_world(|world| world["format_errors"] = json!({}));
    machine.run().assert(1, &["FAILED on node0"]);
    assert_eq!(machine.formats(), 1);
    // Until a person takes the note away.
    machine.remove_note();
    let run = machine.run();
    machine.assert_joined(&run, 2, FORMATTED);
}

fn clean_answer(hosts: &[&str]) -> String {
    let entry = |host: &&str| {
        (host.to_string(), json!({ "storage": {}, "hosts": format!("{host}:10001") }))
    };
    let storage: serde_json::Map<_, _> = hosts.iter().map(entry).collect();
    json!({ "response": { "host_errors": {}, "HostStorage": storage }, "error": null, "status": 0 })
        .to_string()
}

#[test]
fn exit_code_0_with_a_missing_host_is_no_success() {
    let how = json!({ "stdout": clean_answer(&["node0", "node1"]), "code": 0 });
    let machine = Machine::new().override_calls("storage format", 1, 1, how);
    machine.run().assert(1, &["FAILED on node2: dmg said nothing of it"]);
    assert_eq!((machine.formats(), machine.marker()), (1, None));
}

#[test]
fn exit_code_0_without_any_host_is_no_success() {
    for answer in [clean_answer(&[]), r#"{"response": {}, "error": null, "status": 0}"#.to_owned()]
    {
        let how = json!({ "stdout": answer, "code": 0 });
        let machine = Machine::new().override_calls("storage format", 1, 1, how);
        machine.run().assert(1, &["FAILED on node0: dmg said nothing of it; node1"]);
        assert_eq!((machine.formats(), machine.marker()), (1, None));
    }
}

#[test]
fn a_clean_answer_with_exit_code_1_is_no_success() {
    let how = json!({ "stdout": clean_answer(&["node[0-2]"]), "code": 1 });
    let machine = Machine::new().override_calls("storage format", 1, 1, how);
    machine.run().assert(1, &["FAILED on dmg: exit code 1"]);
    assert_eq!((machine.formats(), machine.marker()), (1, None));
}

#[test]
fn garbage_for_an_answer_is_followed_by_questions_only() {
    for answer in
        ["", "{", "Format Summary:", "[]", r#"{"response": [], "error": null, "status": 0}"#]
    {
        let how = json!({ "stdout": answer, "code": 0 });
        let machine = Machine::new().override_calls("storage format", 1, 1, how);
        let run = machine.run();
        run.assert(0, &["dmg ended without a clear answer", "it is not repeated"]);
        machine.assert_joined(&run, 1, ALREADY);
    }
}

#[test]
fn dmg_that_stopped_waiting_is_followed_by_questions_only() {
    let error = "rpc error: code = DeadlineExceeded desc = context deadline exceeded";
    let answer = json!({
        "response": { "host_errors": { error: "node[0-2]:10001" }, "HostStorage": null },
        "error": "3 hosts had errors", "status": -1025,
    });
    let how = json!({ "stdout": answer.to_string(), "code": 1 });
    let machine = Machine::new().override_calls("storage format", 1, 1, how);
    machine.change_world(|world| world["join_delay"] = json!(12));
    let run = machine.run();
    run.assert(0, &["dmg stopped waiting for node0, node1, node2"]);
    machine.assert_joined(&run, 1, ALREADY);
}

#[test]
fn a_refusal_because_another_admin_formatted_is_followed_by_questions_only() {
    let answer = json!({
        "response": null, "status": -1025,
        "error": "client: code = 509 description = \"storage format invoked on a running system\"",
    });
    let how = json!({ "stdout": answer.to_string(), "code": 1 });
    let machine = Machine::new().override_calls("storage format", 1, 1, how);
    let run = machine.run();
    run.assert(0, &["dmg refused: storage format invoked on a running system"]);
    machine.assert_joined(&run, 1, ALREADY);
}

#[test]
fn any_other_refusal_stops_for_a_person() {
    let answer = json!({ "response": null, "status": -1025, "error": "unknown flag `o'" });
    let how = json!({ "stdout": answer.to_string(), "code": 1 });
    let machine = Machine::new().override_calls("storage format", 1, 1, how);
    machine.run().assert(1, &["FAILED on dmg: unknown flag `o'"]);
    assert_eq!((machine.formats(), machine.marker()), (1, None));
}

#[test]
fn engines_that_never_join_are_named_at_the_deadline() {
    let machine = Machine::new().events(&[(7, "stop node2")]);
    machine.change_world(|world| world["join_delay"] = json!(4));
    let run = machine.run();
    run.assert(1, &["gave up after 15 min: the system is formatted; waiting for node2 ("]);
    assert_eq!((machine.formats(), machine.marker()), (1, None));
    // The next run goes on asking, and does not format.
    machine.dmg(&["system", "start"]);
    let run = machine.run();
    machine.assert_joined(&run, 1, ALREADY);
}

/// Waits for something another process does.
#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what} takes too long");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Reads what `script` says up to `words`, and returns the rest of it.
#[track_caller]
fn wait_for_words(script: &mut Child, words: &str) -> ChildStdout {
    let mut stdout = script.stdout.take().unwrap();
    let mut said = String::new();
    let mut bytes = [0; 4096];
    while !said.contains(words) {
        let n_bytes = stdout.read(&mut bytes).unwrap();
        assert!(n_bytes > 0, "{said}");
        said.push_str(std::str::from_utf8(&bytes[..n_bytes]).unwrap());
    }
    stdout
}

fn signal(name: &str, pid: u32) {
    let status = Command::new("kill").args([name, &pid.to_string()]).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_running_format_is_not_killed_by_a_stop() {
    for name in ["-TERM", "-INT"] {
        let machine = Machine::new();
        let gate = machine.path("gate");
        let how = json!({ "wait_for": gate.to_str().unwrap() });
        let machine = machine.override_calls("storage format", 1, 1, how);
        let mut script = machine.start(&[]);
        wait_until("the format", || machine.formats() == 1);
        signal(name, script.id());
        let asked = "asked to stop: dmg is at work and is not interrupted";
        let _stdout = wait_for_words(&mut script, asked);
        assert_eq!(script.try_wait().unwrap(), None);
        std::fs::write(&gate, "").unwrap();
        assert_eq!(script.wait().unwrap().code(), Some(143));
        assert_eq!(machine.note().unwrap()["state"], "formatted");
        let run = machine.run();
        machine.assert_joined(&run, 1, ALREADY);
    }
}

#[test]
fn a_format_that_outlived_its_script_is_waited_for() {
    let machine = Machine::new();
    let gate = machine.path("gate");
    let how = json!({ "wait_for": gate.to_str().unwrap() });
    let machine = machine.override_calls("storage format", 1, 1, how);
    let mut script = machine.start(&[]);
    wait_until("the format", || machine.formats() == 1);
    script.kill().unwrap();
    script.wait().unwrap();
    let calls = machine.calls().len();
    // A clock a thousand times as fast: it has to wait for something real.
    let mut second = machine.start(&[("NODEFORGE_TIME_SCALE", "0.001")]);
    let waits = "waiting: another run, or a dmg that one started, is still at work";
    let mut stdout = wait_for_words(&mut second, waits);
    assert_eq!(machine.calls().len(), calls, "nobody is asked while it runs");
    std::fs::write(&gate, "").unwrap();
    let mut said = String::new();
    stdout.read_to_string(&mut said).unwrap();
    assert_eq!(second.wait().unwrap().code(), Some(0), "{said}");
    assert_eq!(machine.formats(), 1);
    assert!(machine.marker().is_some());
}

#[test]
fn a_stop_while_waiting_ends_it_at_once() {
    let machine = Machine::new().override_calls("system query", 1, 1, json!({ "hang": true }));
    let mut script = machine.start(&[]);
    wait_until("the first question", || !machine.calls().is_empty());
    signal("-TERM", script.id());
    assert_eq!(script.wait().unwrap().code(), Some(143));
    assert_eq!((machine.formats(), machine.note()), (0, None));
}
