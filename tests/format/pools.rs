//! Pools and containers, each made once, after all have joined.

use serde_json::{Value, json};

use super::machine::{ALREADY, FORMATTED, Machine};

fn with_pools(machine: Machine) -> Machine {
    machine.change_plan(|plan| {
        plan["pools"] = json!([
            {
                "label": "tank", "size": "90%", "tier_ratio": null, "ranks": "0,1",
                "properties": "rd_fac:1,space_rb:5", "user": "alice@", "group": "hpc@",
                "acl": ["A::root@:rwcdtTaAo"],
                "containers": [
                    { "label": "home", "type": "POSIX", "properties": "rd_lvl:1" },
                    { "label": "scratch", "type": "POSIX", "properties": null },
                ],
            },
            { "label": "fast", "size": "1099511627776B", "tier_ratio": "10,90", "acl": [], "containers": [] },
        ]);
    });
    machine
}

/// The calls that make something.
fn created(machine: &Machine) -> Vec<Vec<String>> {
    let calls = machine.calls();
    let creating =
        calls.iter().filter(|call| call["command"].as_str().unwrap().ends_with("create"));
    creating
        .map(|call| {
            let words = call["arguments"].as_array().unwrap().iter();
            let words: Vec<&str> = words.map(|word| word.as_str().unwrap()).collect();
            let without = |word: &&&str| !word.starts_with('/') && !["-o", "-j"].contains(word);
            let program = call["program"].as_str().unwrap();
            let root = machine.root.path().to_str().unwrap();
            std::iter::once(program)
                .chain(words.iter().filter(without).copied())
                .map(|word| word.replace(root, ""))
                .collect()
        })
        .collect()
}

#[test]
fn pools_and_containers_are_made_once_as_planned() {
    let machine = with_pools(Machine::new());
    let run = machine.run();
    machine.assert_joined(&run, 1, FORMATTED);
    let tank = "dmg pool create --size=90% --ranks=0,1 --user=alice@ --group=hpc@ --properties=rd_fac:1,space_rb:5 --acl-file=/var/lib/nodeforge/format/acl tank";
    let expected = [
        tank,
        "daos container create --type=POSIX --properties=rd_lvl:1 tank home",
        "daos container create --type=POSIX tank scratch",
        "dmg pool create --size=1099511627776B --tier-ratio=10,90 fast",
    ];
    let expected: Vec<Vec<String>> =
        expected.iter().map(|line| line.split(' ').map(str::to_owned).collect()).collect();
    assert_eq!(created(&machine), expected);
    let run = machine.run();
    machine.assert_joined(&run, 1, ALREADY);
    assert_eq!(created(&machine).len(), 4);
}

#[test]
fn a_pool_that_a_person_destroyed_does_not_come_back() {
    let machine = with_pools(Machine::new());
    machine.run();
    machine.change_server("node0", |server| server["database"]["pools"] = json!([]));
    let run = machine.run();
    machine.assert_joined(&run, 1, ALREADY);
    assert_eq!(created(&machine).len(), 4);
}

#[test]
fn pools_that_exist_are_left_alone() {
    let machine = with_pools(Machine::new().formatted());
    machine.change_server("node0", |server| {
        server["database"]["pools"] = json!(["tank", "other"]);
        server["database"]["containers"] = json!(["tank/home"]);
    });
    let run = machine.run();
    machine.assert_joined(&run, 0, ALREADY);
    let made: Vec<String> =
        created(&machine).iter().map(|line| line.last().unwrap().clone()).collect();
    assert_eq!(made, ["scratch", "fast"]);
}

#[test]
fn a_pool_that_cannot_be_made_stops_for_a_person_and_is_tried_at_the_next_start() {
    let answer = json!({ "response": null, "status": -1025, "error": "pool create failed: DER_NOSPACE(-1007): No space on storage target" });
    let how = json!({ "stdout": answer.to_string(), "code": 1 });
    let machine = with_pools(Machine::new()).override_calls("pool create", 1, 1, how);
    let run = machine.run();
    run.assert(1, &["tank was not made: pool create failed: DER_NOSPACE(-1007)"]);
    assert!(machine.marker().is_some(), "the format itself went well");
    // The stand-in made it all the same, as a real one may: it is found.
    let run = machine.run();
    machine.assert_joined(&run, 1, ALREADY);
    let tanks = created(&machine).iter().filter(|line| line.last().unwrap() == "tank").count();
    assert_eq!(tanks, 1);
}

#[test]
fn an_unclear_list_of_pools_makes_none() {
    for stdout in [
        "",
        "{",
        "[]",
        r#"{"response": null, "error": null, "status": 0}"#,
        r#"{"response": {"pools": 3}, "error": null, "status": 0}"#,
    ] {
        let how = json!({ "stdout": stdout, "code": 0 });
        let machine = with_pools(Machine::new()).override_calls("pool list", 1, 999, how);
        let run = machine.run();
        run.assert(1, &["gave up: waiting to make pools: `dmg pool list"]);
        assert_eq!(created(&machine), Vec::<Vec<String>>::new(), "{stdout:?}");
    }
}

#[test]
fn a_container_that_cannot_be_asked_for_is_not_made() {
    let answer = json!({ "response": null, "status": -1006, "error": "unable to contact the agent: DER_UNREACH(-1006)" });
    let how = json!({ "stdout": answer.to_string(), "code": 1 });
    let machine = with_pools(Machine::new()).override_calls("container query", 1, 3, how);
    let run = machine.run();
    run.assert(
        0,
        &["waiting to make pools: `daos container query tank home`: unable to contact the agent"],
    );
    machine.assert_joined(&run, 1, FORMATTED);
    assert_eq!(created(&machine).len(), 4);
}

#[test]
fn no_pool_is_made_while_a_server_is_missing() {
    let machine = with_pools(Machine::new().formatted().down("node2"));
    let run = machine.run();
    machine.assert_untouched(&run, &["waiting for node2"]);
    assert_eq!(created(&machine), Vec::<Vec<String>>::new());
    let asked = |call: &Value| call["command"] == "pool list";
    assert!(!machine.calls().iter().any(asked));
}
