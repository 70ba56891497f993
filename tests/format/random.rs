//! Whatever happens around it: at most one format, and only on a complete picture.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};

use super::machine::Machine;

/// Rounds that have to show the same before a format.
const SETTLE_ROUNDS: usize = 4;

#[derive(Clone, Debug)]
struct Story {
    three_replicas: bool,
    formatted: bool,
    join_delay: u32,
    events: Vec<(u64, String)>,
    overrides: Vec<(&'static str, u64, u64, &'static str)>,
    format_error: bool,
    /// How often the script is started, whatever came of it.
    n_runs: usize,
}

fn stories() -> impl Strategy<Value = Story> {
    let node = prop::sample::select(vec!["node0", "node1", "node2"]);
    let what = prop::sample::select(vec![
        "down",
        "up",
        "up",
        "up",
        "boot",
        "boot",
        "wipe",
        "stop",
        "start",
        "lose-raft",
        "format",
    ]);
    let event = (1_u64..30, what, node, 0_u32..8).prop_map(|(at, what, node, delay)| {
        let action = match what {
            "format" => "format".to_owned(),
            "boot" => format!("boot {node} {delay}"),
            _ => format!("{what} {node}"),
        };
        (at, action)
    });
    let command = prop::sample::select(vec![
        "system query",
        "network scan",
        "storage query list-devices",
        "storage format",
        "storage format",
    ]);
    let how = prop::sample::select(vec!["empty", "cut", "null", "before", "after", "exit 1"]);
    let special = (command, 1_u64..12, 0_u64..3, how).prop_map(|(on, from, more, how)| match on {
        // Each is a call of its own.
        "storage format" => (on, 1, 2, how),
        _ => (on, from, from + more, if matches!(how, "before" | "after") { "cut" } else { how }),
    });
    (
        any::<bool>(),
        prop::bool::weighted(0.3),
        0_u32..7,
        prop::collection::vec(event, 0..7),
        prop::collection::vec(special, 0..3),
        prop::bool::weighted(0.2),
        1_usize..4,
    )
        .prop_map(
            |(three_replicas, formatted, join_delay, events, overrides, format_error, n_runs)| {
                Story {
                    three_replicas,
                    formatted,
                    join_delay,
                    events,
                    overrides,
                    format_error,
                    n_runs,
                }
            },
        )
}

fn machine(story: &Story) -> Machine {
    let machine =
        if story.three_replicas { Machine::with_three_replicas() } else { Machine::new() };
    let machine = if story.formatted { machine.formatted() } else { machine };
    let events: Vec<(u64, &str)> =
        story.events.iter().map(|(at, action)| (*at, action.as_str())).collect();
    let mut machine = machine.events(&events);
    for (on, from, to, how) in &story.overrides {
        let how = match *how {
            "empty" => json!({ "stdout": "", "code": 0 }),
            "cut" => json!({ "stdout": "{\"response\": {\"mem", "code": 0 }),
            "null" => json!({ "stdout": "null", "code": 0 }),
            "exit 1" => json!({ "code": 1 }),
            when => json!({ "kill_caller": when }),
        };
        machine = machine.override_calls(on, *from, *to, how);
    }
    machine.change_world(|world| {
        world["join_delay"] = json!(story.join_delay);
        if story.format_error {
            world["format_errors"] = json!({ "node1": "server: code = 1 description = \"no\"" });
        }
    });
    machine.change_plan(|plan| plan["deadline_seconds"] = json!(300));
    machine
}

/// Whether the world was, at this call, what a format asks for.
fn is_new(call: &Value) -> bool {
    let hosts = call["truth"]["hosts"].as_object().unwrap();
    // `formatted` answers as one that awaits its first format does: no question tells.
    hosts.values().all(|state| matches!(state.as_str(), Some("awaits" | "formatted")))
        && call["truth"]["has_leader"] == false
        && call["is_special"] == false
}

fn check(story: &Story) -> Result<(), TestCaseError> {
    let machine = machine(story);
    let mut said = String::new();
    for _ in 0..story.n_runs {
        let run = machine.run_with(&[], &[("NODEFORGE_QUERY_SECONDS", "0.3")]);
        said.push_str(&format!("{}exit {:?}\n", run.said, run.code));
        prop_assert!(matches!(run.code, Some(0 | 1) | None), "{}", said);
    }
    prop_assert!(machine.formats() <= 1, "{} formats\n{}", machine.formats(), said);
    let calls = machine.calls();
    let Some(at) = calls.iter().position(|call| call["command"] == "storage format") else {
        return Ok(());
    };
    prop_assert!(at > 3 * SETTLE_ROUNDS, "{}", said);
    let seen = &calls[at - 3 * SETTLE_ROUNDS - 1..at];
    let shown: Vec<String> = seen.iter().map(|call| call["truth"].to_string()).collect();
    // The last question, right before the format, is about the system only.
    let (last, rounds) = seen.split_last().expect("there are several");
    prop_assert!(last["truth"]["has_leader"] == false, "{}\n{}", shown.join("\n"), said);
    prop_assert!(rounds.iter().all(is_new), "{}\n{}", shown.join("\n"), said);
    Ok(())
}

#[test]
fn at_most_one_format_and_only_of_a_system_that_was_new_for_a_while() {
    let config =
        Config { cases: 32, failure_persistence: None, max_shrink_iters: 10, ..Config::default() };
    // The same stories every time: a failure is to be found again.
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    runner.run(&stories(), |story| check(&story)).unwrap();
}
