//! What leads to a format, and what does not.

use serde_json::{Value, json};

use super::machine::{ALREADY, FORMATTED, Machine, engine};

#[test]
fn servers_that_all_wait_are_formatted_once_after_a_while() {
    let machine = Machine::new();
    let run = machine.run();
    machine.assert_joined(&run, 1, FORMATTED);
    let commands: Vec<String> =
        machine.calls().iter().map(|call| call["command"].as_str().unwrap().to_owned()).collect();
    let round = ["system query", "network scan", "storage query list-devices"];
    let expected: Vec<&str> = [&round[..]; 4]
        .concat()
        .into_iter()
        .chain(["system query", "storage format"])
        .chain(round)
        .collect();
    assert_eq!(commands, expected);
    let marker = machine.marker().unwrap();
    assert_eq!(marker["how"], "formatted");
    assert_eq!(marker["boot_id"], "boot-1");
    assert_eq!(marker["members"].as_array().unwrap().len(), 3);
    let record = machine.json("var/lib/nodeforge/steps/format.json").unwrap();
    assert_eq!(record["state"], "done");
    assert_eq!(record["message"], FORMATTED);
}

#[test]
fn engines_that_take_a_while_to_join_are_waited_for() {
    let machine = Machine::new();
    machine.change_world(|world| world["join_delay"] = json!(6));
    let run = machine.run();
    machine.assert_joined(&run, 1, FORMATTED);
}

#[test]
fn a_second_run_only_looks() {
    let machine = Machine::new();
    machine.run();
    machine.write("proc/sys/kernel/random/boot_id", "boot-2\n");
    let first = machine.marker().unwrap();
    let run = machine.run();
    machine.assert_joined(&run, 1, ALREADY);
    let second = machine.marker().unwrap();
    assert_eq!((&second["formatted"], &second["how"]), (&first["formatted"], &first["how"]));
    assert_eq!(second["boot_id"], "boot-2");
}

#[test]
fn without_one_server_the_others_are_not_formatted() {
    let machine = Machine::new().down("node2");
    let run = machine.run();
    let reason = "waiting for node2 (the server at node2:10001 refused the connection); nothing is formatted until all servers are there";
    machine.assert_untouched(&run, &[reason, &format!("gave up after 15 min: {reason}")]);
}

#[test]
fn a_server_that_comes_later_is_waited_for() {
    let machine = Machine::new().down("node2").events(&[(9, "up node2")]);
    let run = machine.run();
    run.assert(0, &["waiting for node2 ("]);
    machine.assert_joined(&run, 1, FORMATTED);
    let format = machine.calls().into_iter().find(|call| call["command"] == "storage format");
    assert_eq!(format.unwrap()["query"], 13, "four whole rounds after it came");
}

#[test]
fn a_server_that_goes_away_again_starts_the_wait_anew() {
    let machine = Machine::new().events(&[
        (3, "down node1"),
        (5, "up node1"),
        (7, "down node1"),
        (9, "up node1"),
    ]);
    let run = machine.run();
    machine.assert_joined(&run, 1, FORMATTED);
    let format = machine.calls().into_iter().find(|call| call["command"] == "storage format");
    assert_eq!(format.unwrap()["query"], 13);
}

#[test]
fn the_management_service_is_waited_for() {
    let machine = Machine::new().down("node0").events(&[(5, "up node0")]);
    let run = machine.run();
    run.assert(0, &["the server at 10.77.0.10:10001 refused the connection"]);
    machine.assert_joined(&run, 1, FORMATTED);
}

#[test]
fn where_nothing_is_up_nothing_is_formatted() {
    let machine = Machine::new().down("node0").down("node1").down("node2");
    let run = machine.run();
    machine.assert_untouched(
        &run,
        &["gave up after 15 min", "unable to contact the DAOS Management Service"],
    );
}

#[test]
fn with_three_replicas_one_that_is_down_holds_up_the_format() {
    let machine = Machine::with_three_replicas().down("node2").events(&[(9, "up node2")]);
    let run = machine.run();
    run.assert(0, &["waiting for node2 ("]);
    machine.assert_joined(&run, 1, FORMATTED);
}

#[test]
fn servers_formatted_without_their_first_access_point_join_when_it_is_formatted() {
    // Transcripts 88 to 93: another admin formatted node1 and node2 alone.
    let machine = Machine::with_three_replicas().down("node0");
    machine.dmg(&["storage", "format"]);
    machine.forget_calls();
    let machine = machine.events(&[(3, "up node0")]);
    let run = machine.run_with(&[], &[("NODEFORGE_QUERY_SECONDS", "1")]);
    run.assert(0, &["`dmg system query` did not answer in 1 s"]);
    machine.assert_joined(&run, 1, FORMATTED);
}

#[test]
fn an_uninitialized_system_with_a_running_engine_stops_for_a_person() {
    let machine = Machine::new().formatted().events(&[(1, "lose-raft node0")]);
    let run = machine.run();
    machine.assert_untouched(
        &run,
        &["the engines of node0, node1, node2 run", "nothing is formatted", "control_raft"],
    );
}

#[test]
fn one_engine_that_runs_is_enough_to_stop() {
    let machine = Machine::new().formatted().events(&[
        (1, "lose-raft node0"),
        (1, "wipe node1"),
        (1, "wipe node2"),
    ]);
    let run = machine.run();
    machine.assert_untouched(&run, &["the engines of node0 run"]);
}

#[test]
fn a_formatted_cluster_that_boots_is_not_taken_for_a_new_one() {
    // For three rounds: "uninitialized", and every host says 611.
    let machine = Machine::new().formatted().events(&[
        (1, "boot node0 3"),
        (1, "boot node1 3"),
        (1, "boot node2 3"),
    ]);
    let run = machine.run();
    run.assert(0, &["all 3 servers wait to be formatted: waiting to see whether it stays so"]);
    machine.assert_joined(&run, 0, ALREADY);
}

#[test]
fn a_stopped_system_is_a_formatted_one() {
    let machine = Machine::new().formatted();
    machine.dmg(&["system", "stop"]);
    machine.forget_calls();
    let run = machine.run();
    machine.assert_untouched(&run, &["the system is formatted; waiting for node0 ("]);
}

#[test]
fn an_erased_system_is_formatted_where_nothing_forbids_it() {
    let machine = Machine::new().formatted();
    machine.dmg(&["system", "erase"]);
    machine.forget_calls();
    let run = machine.run();
    machine.assert_joined(&run, 1, FORMATTED);
}

#[test]
fn the_marker_forbids_to_format_an_erased_system() {
    let machine = Machine::new();
    machine.run();
    machine.dmg(&["system", "erase"]);
    let run = machine.run();
    run.assert(1, &["says that this system was formatted, yet it calls itself uninitialized"]);
    assert_eq!(machine.formats(), 1);
    std::fs::remove_file(machine.path("var/lib/nodeforge/format/formatted.json")).unwrap();
    let run = machine.run();
    machine.assert_joined(&run, 2, FORMATTED);
}

#[test]
fn another_admin_that_is_faster_is_noticed_at_the_last_moment() {
    // The fifth query is the one right before the format.
    let machine = Machine::new().events(&[(5, "format")]);
    let run = machine.run();
    run.assert(0, &["the system has just become formatted"]);
    machine.assert_joined(&run, 0, ALREADY);
}

#[test]
fn a_control_file_that_lists_too_few_servers_formats_none() {
    let machine = Machine::new();
    machine.change_world(|world| world["hostlist"] = json!(["node0"]));
    let run = machine.run();
    machine.assert_untouched(&run, &["waiting for node1 (no answer), node2 (no answer)"]);
}

#[test]
fn a_control_file_that_lists_no_server_formats_none() {
    let machine = Machine::new();
    machine.change_world(|world| world["hostlist"] = json!(["none"]));
    let run = machine.run();
    machine.assert_untouched(&run, &["empty hostlist parameter in configuration"]);
}

#[test]
fn a_control_file_that_lists_a_foreign_server_formats_none() {
    let machine = Machine::with(&["node0", "node1", "node2", "node3"], &["node0"]);
    machine.change_plan(|plan| drop(plan["servers"].as_array_mut().unwrap().pop()));
    let run = machine.run();
    machine.assert_untouched(&run, &["daos_control.yml names hosts that are not planned: node3"]);
}

#[test]
fn hosts_without_address_or_way_are_named() {
    for (host, reason) in [
        ("10.77.0.99", "the server could not be reached at the configured address"),
        ("nosuchhost", "lookup nosuchhost"),
    ] {
        let machine = Machine::new();
        machine.change_world(|world| world["hostlist"] = json!(["node0", "node1", host]));
        machine.change_plan(|plan| {
            let key = if host.starts_with('1') { "address" } else { "name" };
            plan["servers"][2][key] = json!(host);
        });
        let run = machine.run();
        machine.assert_untouched(&run, &[reason]);
    }
}

#[test]
fn what_dmg_may_not_or_cannot_ask_is_unknown() {
    for error in [
        "system query failed: server: code = 603 description = \"request system does not match running system (other != daos_server)\"",
        "system query failed: rpc error: code = Unavailable desc = connection error: desc = \"error reading server preface: EOF\"",
        "system query failed: rpc error: code = PermissionDenied desc = version check failed for *mgmt.SystemQueryReq: rpc error: code = PermissionDenied desc = component mismatch (req: \"admin\" != cert: \"agent\")",
        "system query failed: client: code = 503 description = \"empty hostlist parameter in configuration\"",
    ] {
        let answer = json!({ "response": null, "error": error, "status": -1025 }).to_string();
        let how = json!({ "stdout": answer, "code": 1 });
        let machine = Machine::new().override_calls("system query", 1, 999, how);
        let run = machine.run();
        machine.assert_untouched(&run, &["gave up after 15 min: waiting: `dmg system query`"]);
    }
}

/// Answers that mean nothing, whatever the question.
fn garbage() -> Vec<(&'static str, Value)> {
    let uninitialized = "system is uninitialized (storage format required?)";
    vec![
        ("nothing, exit 0", json!({ "stdout": "", "stderr": "", "code": 0 })),
        ("nothing, exit 1", json!({ "stdout": "", "code": 1 })),
        ("an empty object, exit 0", json!({ "stdout": "{}", "code": 0 })),
        ("an empty object, exit 1", json!({ "stdout": "{}", "code": 1 })),
        ("null", json!({ "stdout": "null", "code": 0 })),
        ("an array", json!({ "stdout": "[]", "code": 0 })),
        ("HTML", json!({ "stdout": "<html>502 Bad Gateway</html>", "code": 0 })),
        ("cut off", json!({ "stdout": "{\"response\": {\"members\": [{\"addr\":", "code": 0 })),
        (
            "cut off before its end, with the words that allow a format",
            json!({ "stdout": format!("{{\"response\": null, \"error\": \"{uninitialized}\""), "code": 1 }),
        ),
        (
            "the words that allow a format, but not as JSON",
            json!({ "stdout": format!("ERROR: dmg: {uninitialized}\n"), "code": 1 }),
        ),
        (
            "no response, no error, exit 0",
            json!({ "stdout": "{\"response\": null, \"error\": null, \"status\": 0}", "code": 0 }),
        ),
        (
            "an empty response, exit 0",
            json!({ "stdout": "{\"response\": {}, \"error\": null, \"status\": 0}", "code": 0 }),
        ),
    ]
}

#[test]
fn garbage_from_system_query_is_never_uninitialized() {
    let more = [
        (
            "the words that allow a format, but exit 0",
            json!({ "stdout": "{\"response\": null, \"error\": \"system is uninitialized (storage format required?)\", \"status\": -1025}", "code": 0 }),
        ),
        (
            "no members, exit 0",
            json!({ "stdout": "{\"response\": {\"members\": []}, \"error\": null, \"status\": 0}", "code": 0 }),
        ),
        (
            "null for members, exit 0",
            json!({ "stdout": "{\"response\": {\"members\": null}, \"error\": null, \"status\": 0}", "code": 0 }),
        ),
        (
            "members that are none, exit 0",
            json!({ "stdout": "{\"response\": {\"members\": [1, \"a\"]}, \"error\": null, \"status\": 0}", "code": 0 }),
        ),
    ];
    for (what, how) in garbage().into_iter().chain(more) {
        let machine = Machine::new().override_calls("system query", 1, 999, how);
        machine.change_plan(|plan| plan["deadline_seconds"] = json!(300));
        let run = machine.run();
        assert_eq!((run.code, machine.formats()), (Some(1), 0), "{what}:\n{}", run.said);
        assert!(
            run.last().contains("gave up after 5 min: waiting: `dmg system query`"),
            "{what}: {}",
            run.said
        );
    }
}

#[test]
fn garbage_from_the_other_questions_is_no_picture() {
    for command in ["network scan", "storage query list-devices"] {
        for (what, how) in garbage() {
            let machine = Machine::new().override_calls(command, 1, 999, how);
            machine.change_plan(|plan| plan["deadline_seconds"] = json!(300));
            let run = machine.run();
            let ended = (run.code, machine.formats());
            assert_eq!(ended, (Some(1), 0), "{command}: {what}:\n{}", run.said);
        }
    }
}

#[test]
fn a_round_of_garbage_starts_the_wait_anew() {
    let how = json!({ "stdout": "{", "code": 0 });
    let machine = Machine::new().override_calls("storage query list-devices", 3, 3, how);
    let run = machine.run();
    machine.assert_joined(&run, 1, FORMATTED);
    let format = machine.calls().into_iter().find(|call| call["command"] == "storage format");
    assert_eq!(format.unwrap()["query"], 8);
}

#[test]
fn questions_that_hang_are_broken_off_and_asked_again() {
    for command in ["system query", "network scan", "storage query list-devices"] {
        let machine = Machine::new().override_calls(command, 2, 3, json!({ "hang": true }));
        let run = machine.run_with(&[], &[("NODEFORGE_QUERY_SECONDS", "1")]);
        run.assert(0, &[&format!("`dmg {command}` did not answer in 1 s")]);
        machine.assert_joined(&run, 1, FORMATTED);
    }
}

#[test]
fn another_error_than_611_is_no_clear_word() {
    let answer = json!({
        "response": {
            "host_errors": {
                "server: code = 611 description = \"DAOS I/O Engine instance not started or not responding on dRPC\"": "node[0-1]:10001",
                "server: code = 999 description = \"something else\"": "node2:10001",
            },
            "host_storage_map": null,
        },
        "error": "3 hosts had errors", "status": -1025,
    });
    let how = json!({ "stdout": answer.to_string(), "code": 1 });
    let machine = Machine::new().override_calls("storage query list-devices", 1, 999, how);
    let run = machine.run();
    machine.assert_untouched(&run, &["no clear word of the engines of node2 (something else)"]);
}

#[test]
fn a_server_of_two_engines_is_there_when_both_have_joined() {
    let machine = Machine::new();
    machine.change_server("node1", |server| {
        server["engines"] = json!([engine(31416), engine(32416)]);
    });
    machine.change_plan(|plan| plan["servers"][1]["engines"] = json!(2));
    let run = machine.run();
    machine.assert_joined(&run, 1, FORMATTED);
    assert_eq!(machine.marker().unwrap()["members"].as_array().unwrap().len(), 4);
    machine.change_plan(|plan| plan["servers"][1]["engines"] = json!(3));
    let run = machine.run();
    run.assert(1, &["waiting for node1 (not joined, 2 of 3 joined)"]);
    assert_eq!(machine.formats(), 1);
}

#[test]
fn a_server_that_joins_from_another_address_is_known_by_its_fault_domain() {
    let machine = Machine::new();
    machine.change_server("node1", |server| server["address"] = json!("10.88.0.11"));
    let run = machine.run();
    machine.assert_joined(&run, 1, FORMATTED);
}

#[test]
fn forty_servers_of_folded_names_are_all_told_apart() {
    let names: Vec<String> = (1..=40).map(|n| format!("srv{n:03}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let machine = Machine::with(&names, &["srv001"]).down("srv017").events(&[(6, "up srv017")]);
    let run = machine.run();
    run.assert(0, &["waiting for srv017 ("]);
    machine.assert_joined(&run, 1, "the system is formatted: all 40 servers joined");
}

#[test]
fn only_the_planned_admin_formats() {
    let machine = Machine::new();
    machine.write("etc/nodeforge/node.json", r#"{"name": "node1"}"#);
    let run = machine.run();
    machine.assert_untouched(
        &run,
        &["node0 formats this system, not this node (node1): nothing is formatted"],
    );
    assert_eq!(machine.calls(), Vec::<Value>::new());
}

#[test]
fn without_node_json_the_host_name_says_who_this_is() {
    let machine = Machine::new();
    std::fs::remove_file(machine.path("etc/nodeforge/node.json")).unwrap();
    let run = machine.run();
    machine.assert_untouched(&run, &["node0 formats this system, not this node ()"]);
    machine.write("etc/hostname", "node0.lab.local\n");
    let run = machine.run();
    machine.assert_joined(&run, 1, FORMATTED);
}

#[test]
fn a_plan_that_cannot_be_read_formats_nothing() {
    for text in ["", "{", "[]", "{}", r#"{"system": "s", "format_by": "node0"}"#] {
        let machine = Machine::new();
        machine.write("etc/nodeforge/format.json", text);
        let run = machine.run();
        machine.assert_untouched(&run, &["format.json cannot be used", "nothing is formatted"]);
    }
}

#[test]
fn without_dmg_nothing_happens() {
    let machine = Machine::new();
    std::fs::remove_file(machine.path("bin/dmg")).unwrap();
    let run = machine.run();
    machine.assert_untouched(&run, &["dmg cannot be run: No such file or directory"]);
}

#[test]
fn a_note_that_cannot_be_written_forbids_the_format() {
    let machine = Machine::new();
    machine.write("var/lib/nodeforge/format/started.json.new/in-the-way", "");
    let run = machine.run();
    machine.assert_untouched(&run, &["cannot be written", "nothing is formatted"]);
}

#[test]
fn a_dry_run_says_what_would_be_done_and_leaves_no_trace() {
    for (machine, code, words) in [
        (
            Machine::new(),
            0,
            "would format: all 3 servers wait to be formatted, if it stays so for 1 min",
        ),
        (
            Machine::new().formatted(),
            0,
            "would do nothing: formatted already, all 3 servers joined",
        ),
        (Machine::new().down("node1"), 1, "would not format: waiting for node1 ("),
        (
            Machine::new().formatted().down("node1"),
            1,
            "would not format: the system is formatted; waiting for node1 (",
        ),
        (
            Machine::new().formatted().events(&[(1, "lose-raft node0")]),
            1,
            "would not format, but stop for a person: the system is uninitialized, yet",
        ),
    ] {
        let run = machine.run_with(&["--dry-run"], &[]);
        run.assert(code, &[words]);
        assert_eq!((machine.formats(), machine.path("var").exists()), (0, false), "{words}");
        assert_eq!(machine.calls().len(), 3, "{words}");
    }
}

#[test]
fn a_dry_run_names_the_note_or_the_marker_that_forbids() {
    for (file, words) in [
        ("started.json", "started.json says that a format was started"),
        ("formatted.json", "formatted.json says that this system was formatted"),
    ] {
        let machine = Machine::new();
        machine.write(&format!("var/lib/nodeforge/format/{file}"), "{}");
        machine.run_with(&["--dry-run"], &[]).assert(1, &["would not format", words]);
        assert_eq!(machine.formats(), 0);
    }
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    let run = Machine::new().run_with(&["--force"], &[]);
    assert_eq!(run.code, Some(2));
}

#[test]
fn events_tell_the_story_without_being_waited_for() {
    let machine = Machine::new().down("node2").events(&[(4, "up node2")]);
    let event = "usr/libexec/nodeforge/event";
    machine.write(event, "#!/bin/sh\necho \"$1 $2 $3\" >>\"$NODEFORGE_ROOT/events\"\nexit 3\n");
    std::fs::set_permissions(
        machine.path(event),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let run = machine.run();
    machine.assert_joined(&run, 1, FORMATTED);
    let events = std::fs::read_to_string(machine.path("events")).unwrap();
    let states: Vec<&str> = events.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    assert_eq!(states.first(), Some(&"waiting"), "{events}");
    assert!(states.contains(&"started"), "{events}");
    assert_eq!(events.lines().last(), Some(format!("format done {FORMATTED}").as_str()));
}
