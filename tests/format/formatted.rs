//! A system that is formatted: found, rejoined, short of servers, with a reinstalled one.

use serde_json::json;

use super::machine::{ALREADY, Machine};

#[test]
fn a_freshly_installed_admin_finds_the_system_formatted() {
    let machine = Machine::new().formatted();
    let run = machine.run();
    machine.assert_joined(&run, 0, ALREADY);
    assert_eq!(machine.marker().unwrap()["how"], "found");
    assert_eq!(machine.calls().len(), 3);
}

#[test]
fn a_member_that_never_joined_is_named() {
    // Transcript 68: the query lists who joined, and says nothing of node2.
    let machine = Machine::new().down("node2");
    machine.dmg(&["storage", "format"]);
    machine.forget_calls();
    let machine = machine.events(&[(2, "up node2")]);
    let run = machine.run();
    machine.assert_untouched(
        &run,
        &["the system is formatted; waiting for node2 (its engine does not run)"],
    );
}

#[test]
fn joined_members_that_are_down_are_waited_for() {
    // Transcript 20: `system query` still says joined.
    let machine = Machine::new().formatted().down("node1").events(&[(8, "up node1")]);
    let run = machine.run();
    run.assert(
        0,
        &["the system is formatted; waiting for node1 (the server at node1:10001 refused"],
    );
    machine.assert_joined(&run, 0, ALREADY);
}

#[test]
fn a_reinstalled_server_is_reported_with_the_commands_and_not_formatted() {
    // Transcripts 22 to 26.
    let machine = Machine::new().formatted().events(&[(1, "wipe node2")]);
    let run = machine.run();
    machine.assert_untouched(
        &run,
        &[
            "node2: the system is formatted and the engine does not run. Reinstalled without its data",
            "dmg storage format -l node2",
            "the old one 2 stays listed",
        ],
    );
    let warning = "Nothing is formatted by itself";
    assert_eq!(run.said.matches(warning).count(), 1, "once is enough:\n{}", run.said);
    machine.dmg(&["storage", "format", "-l", "node2"]);
    machine.forget_calls();
    let run = machine.run();
    machine.assert_joined(&run, 0, ALREADY);
    let members = machine.marker().unwrap()["members"].clone();
    assert_eq!(members.as_array().unwrap().len(), 4, "the old rank stays");
}

#[test]
fn the_loss_of_the_quorum_is_waited_out() {
    let machine = Machine::with_three_replicas()
        .formatted()
        .down("node1")
        .down("node2")
        .events(&[(4, "up node1"), (4, "up node2")]);
    let run = machine.run_with(&[], &[("NODEFORGE_QUERY_SECONDS", "1")]);
    run.assert(0, &["`dmg system query` did not answer in 1 s"]);
    machine.assert_joined(&run, 0, ALREADY);
}

#[test]
fn a_replica_that_is_down_does_not_hide_that_the_system_is_formatted() {
    let machine =
        Machine::with_three_replicas().formatted().down("node0").events(&[(5, "up node0")]);
    let run = machine.run();
    run.assert(0, &["the system is formatted; waiting for node0"]);
    machine.assert_joined(&run, 0, ALREADY);
}

#[test]
fn states_other_than_joined_are_waited_for_and_named() {
    for state in [
        "awaitformat",
        "starting",
        "ready",
        "stopping",
        "stopped",
        "excluded",
        "adminexcluded",
        "errored",
        "unresponsive",
    ] {
        let machine = Machine::new().formatted();
        machine.change_server("node0", |server| {
            server["database"]["members"][1]["state"] = json!(state);
        });
        machine.change_plan(|plan| plan["deadline_seconds"] = json!(120));
        let run = machine.run();
        machine.assert_untouched(
            &run,
            &["the system is formatted; waiting for node", &format!("({state})")],
        );
    }
}

#[test]
fn a_replica_that_lost_its_database_while_others_know_the_system_changes_nothing() {
    let machine = Machine::with_three_replicas().formatted().events(&[(1, "lose-raft node2")]);
    let run = machine.run();
    machine.assert_joined(&run, 0, ALREADY);
}

#[test]
fn a_broken_marker_is_written_anew_once_all_have_joined() {
    let machine = Machine::new().formatted();
    machine.write("var/lib/nodeforge/format/formatted.json", "{\"formatted\":");
    let run = machine.run();
    run.assert(0, &["the old marker cannot be read"]);
    machine.assert_joined(&run, 0, ALREADY);
}

#[test]
fn all_servers_reinstalled_with_used_ssds_is_no_complete_picture() {
    // Their preflight keeps daos_server down: the admin sees nobody.
    let machine = Machine::new().down("node0").down("node1").down("node2");
    let run = machine.run();
    machine.assert_untouched(&run, &["refused the connection"]);
}
