//! `nodeforge-node`: what it says of a node, and when a node is ready.

use super::assert_golden;
use super::world::{Ran, World};

const NODE: &str = "usr/sbin/nodeforge-node";

fn record(world: &World, step: &str, state: &str, message: &str) {
    let text = format!(
        "{{\"step\":\"{step}\",\"state\":\"{state}\",\"time\":\"2026-01-02T03:04:05Z\",\"seconds\":7,\"digest\":\"x\",\"boot_id\":\"boot-1\",\"message\":\"{message}\"}}\n"
    );
    world.write(&format!("var/lib/nodeforge/steps/{step}.json"), text);
}

fn with_units(world: &World, firstboot: &str, server: &str) {
    for (unit, state) in [("nodeforge-firstboot", firstboot), ("daos_server", server)] {
        let status = i32::from(state != "active") * 3;
        world.answer(&format!("systemctl is-active {unit}.service"), status, state);
    }
}

#[test]
fn before_anything_ran() {
    let world = World::bare("srv1");
    with_units(&world, "inactive", "inactive");
    let ran = world.run(NODE, &["status"]);
    assert_golden("status-nothing-ran.txt", &ran.out);
    assert_eq!((ran.status, ran.err.as_str()), (1, ""));
}

#[test]
fn all_is_well() {
    let world = World::bare("adm1");
    with_units(&world, "active", "inactive");
    for step in ["10-owners", "20-kernel-args", "90-preflight"] {
        record(&world, step, "done", "fine");
    }
    let verdicts = r#"{"boot_id": "boot-0", "time": "2026-01-02T03:04:05Z", "verdicts": [{"check": "a", "verdict": "ok", "measured": "x", "fix": ""}]}"#;
    world.write("var/lib/nodeforge/preflight.json", verdicts);
    world.write(
        "var/lib/nodeforge/format/formatted.json",
        r#"{"verified": "2026-01-02T03:05:06Z"}"#,
    );
    world.write("etc/nodeforge/event-token", "sesame\n");
    world.write("var/lib/nodeforge/events/000000000001.json", "{}\n");
    let ran = world.run(NODE, &["status"]);
    assert_golden("status-all-is-well.txt", &ran.out);
    assert_eq!((ran.status, ran.err.as_str()), (0, ""));
    assert!(!ran.out.contains("sesame"));
}

#[test]
fn what_failed_and_why_and_the_last_lines() {
    let world = World::bare("srv1");
    with_units(&world, "failed", "inactive");
    record(&world, "10-owners", "done", "3 paths have their owners");
    record(&world, "90-preflight", "failed", "FATAL: memory: too little");
    world.write("proc/sys/kernel/random/boot_id", "boot-2\n");
    let lines: String = (1..=20).map(|number| format!("line {number}\n")).collect();
    world.write("var/lib/nodeforge/logs/90-preflight.log", lines);
    let verdicts = r#"{"boot_id": "boot-2", "time": "2026-01-02T03:04:05Z", "verdicts": [
        {"check": "a", "verdict": "ok", "measured": "x", "fix": ""},
        {"check": "memory", "verdict": "FATAL", "measured": "too little", "fix": "buy some"},
        {"check": "thp", "verdict": "warning", "measured": "on", "fix": "turn off"}]}"#;
    world.write("var/lib/nodeforge/preflight.json", verdicts);
    world.write("var/lib/nodeforge/wipe-grant", "srv1\n");
    let ran = world.run(NODE, &["status"]);
    assert_golden("status-failed.txt", &ran.out);
    assert_eq!((ran.status, ran.err.as_str()), (1, ""));
    let ran = world.run(NODE, &["status", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(report["first_boot"], "FAILED at 90-preflight");
    assert_eq!(report["steps"][1]["state"], "not run");
    assert_eq!(report["preflight"]["verdicts"][1]["fix"], "buy some");
    assert_eq!(report["grants"], serde_json::json!(["wipe"]));
    assert_eq!(ran.status, 1);
}

#[test]
fn damaged_files_do_not_keep_status_from_telling() {
    let world = World::bare("srv1");
    world.write("var/lib/nodeforge/steps/10-owners.json", "{\"torn");
    world.write("var/lib/nodeforge/preflight.json", "[]");
    world.write("etc/nodeforge/kind.json", "");
    let ran = world.run(NODE, &["status"]);
    assert_eq!((ran.status, ran.err.as_str()), (1, ""));
    assert_eq!(ran.out.lines().next(), Some("srv1: no roles: first boot has not run"));
}

#[test]
fn the_other_verbs() {
    let world = World::server();
    let ran = world.run(NODE, &["preflight", "--json"]);
    assert_eq!(ran.status, 0, "{ran:?}");
    let ran = world.run(NODE, &["format"]);
    let words = "nodeforge-node: /usr/libexec/nodeforge/format is not on this node; only the roles that need it have it\n";
    assert_eq!(ran, Ran { status: 1, out: String::new(), err: words.into() });
    world.executable("usr/libexec/nodeforge/format", "echo \"format $*\"; exit 5");
    let ran = world.run(NODE, &["format", "--dry-run"]);
    assert_eq!(ran, Ran { status: 5, out: "format --dry-run\n".into(), err: String::new() });
    for wrong in [
        &[][..],
        &["statsu"],
        &["status", "--all"],
        &["format", "--force"],
        &["grant"],
        &["grant", "all", "srv1"],
        &["wait-ready", "x"],
    ] {
        let ran = world.run(NODE, wrong);
        assert_eq!((ran.status, ran.out.as_str()), (2, ""), "{wrong:?}");
        assert!(ran.err.starts_with("What the first boot did on this node"), "{}", ran.err);
    }
    assert_eq!(world.run(NODE, &["--help"]).status, 0);
}

#[test]
fn a_grant_names_the_node() {
    let world = World::bare("srv1");
    let ran = world.run(NODE, &["grant", "wipe", "srv2"]);
    assert_eq!(
        (ran.status, ran.err.as_str()),
        (2, "nodeforge-node: this node is srv1, not srv2\n")
    );
    assert!(!world.path("var/lib/nodeforge/wipe-grant").exists());
    let ran = world.run(NODE, &["grant", "wipe", "srv1"]);
    assert_eq!((ran.status, ran.out.as_str()), (0, "granted once: wipe on srv1\n"));
    assert!(world.read("var/lib/nodeforge/wipe-grant").starts_with("srv1 "));
}

/// What the node must say it waits for, and what then happens to it.
type Change<'a> = (&'a str, &'a dyn Fn(&World));

/// Runs until the node is ready; `change` makes it so, one thing after another, each once the
/// node has said what it waits for.
fn ready(world: &World, changes: &[Change<'_>]) -> Vec<String> {
    use std::io::{BufRead, BufReader};
    let mut child =
        world.command(NODE).arg("wait-ready").stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut changes = changes.iter();
    let mut said = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if line.contains(" waits for ") {
            let (expected, change) = changes.next().expect(&line);
            assert_eq!(line, *expected);
            change(world);
        }
        said.push(line);
    }
    assert!(child.wait().unwrap().success());
    said
}

#[test]
fn a_server_is_ready_when_its_engines_run_on_a_format() {
    let world = World::fresh_server();
    with_units(&world, "activating", "inactive");
    world.write("var/lib/nodeforge/wipe-grant", "srv1\n");
    let said = ready(
        &world,
        &[
            (
                "nodeforge-ready: srv1 waits for the first boot, daos_server, the format of engine 0, 1 of 1 engines",
                &|world| with_units(world, "active", "inactive"),
            ),
            (
                "nodeforge-ready: srv1 waits for daos_server, the format of engine 0, 1 of 1 engines",
                &|world| with_units(world, "active", "active"),
            ),
            ("nodeforge-ready: srv1 waits for the format of engine 0, 1 of 1 engines", &|world| {
                world.write("var/lib/daos/daos_control/engine0/superblock", "x")
            }),
            ("nodeforge-ready: srv1 waits for 1 of 1 engines", &|world| {
                world.write("proc/77/comm", "daos_engine\n")
            }),
        ],
    );
    assert_eq!(said.last().unwrap(), "nodeforge-ready: srv1 is ready");
    assert!(!world.path("var/lib/nodeforge/wipe-grant").exists(), "it was for this format");
    assert!(
        world.read("var/lib/nodeforge/events/000000000005.json").contains("\"state\":\"ready\"")
    );
}

#[test]
fn a_client_and_server_waits_for_its_agent_too() {
    let world = World::lab();
    with_units(&world, "active", "active");
    world.answer("systemctl is-active daos_agent.service", 3, "failed");
    world.write("var/lib/daos/daos_control/engine0/superblock", "x");
    world.write("proc/77/comm", "daos_engine\n");
    let said = ready(
        &world,
        &[("nodeforge-ready: lab1 waits for daos_agent", &|world| {
            world.answer("systemctl is-active daos_agent.service", 0, "active");
        })],
    );
    assert_eq!(said.last().unwrap(), "nodeforge-ready: lab1 is ready");
}

#[test]
fn the_admin_that_formats_waits_for_a_format_seen_in_this_boot() {
    let world = World::admin();
    with_units(&world, "active", "inactive");
    let marker = "var/lib/nodeforge/format/formatted.json";
    world.write(marker, r#"{"boot_id": "boot-0"}"#);
    let waits = "nodeforge-ready: adm1 waits for all servers in the formatted system";
    let said = ready(&world, &[(waits, &|world| world.write(marker, r#"{"boot_id": "boot-1"}"#))]);
    assert_eq!(said.last().unwrap(), "nodeforge-ready: adm1 is ready");
}
