//! The admin dies at the worst moments.

use serde_json::json;

use super::machine::{ALREADY, FORMATTED, Machine};

#[test]
fn death_between_note_and_format_leaves_it_to_a_person() {
    let how = json!({ "kill_caller": "before" });
    let machine = Machine::new().override_calls("storage format", 1, 1, how);
    let run = machine.run();
    assert_eq!(run.code, None, "{}", run.said);
    assert_eq!(machine.note().unwrap()["state"], "started");
    for _ in 0..2 {
        let run = machine.run();
        run.assert(
            1,
            &[
                "a format was started here at",
                "its end is not known",
                "it is not repeated, only asked for",
                "If no server was formatted",
                "started.json; systemctl restart nodeforge-format",
            ],
        );
        assert_eq!((machine.formats(), machine.marker()), (1, None));
    }
    machine.remove_note();
    let run = machine.run();
    machine.assert_joined(&run, 2, FORMATTED);
}

#[test]
fn death_after_the_format_and_before_the_marker_does_not_format_again() {
    let how = json!({ "kill_caller": "after" });
    let machine = Machine::new().override_calls("storage format", 1, 1, how);
    assert_eq!(machine.run().code, None);
    assert_eq!(machine.marker(), None);
    machine.write("proc/sys/kernel/random/boot_id", "boot-2\n");
    let run = machine.run();
    machine.assert_joined(&run, 1, ALREADY);
    assert_eq!(machine.marker().unwrap()["how"], "formatted");
}

#[test]
fn death_and_a_reboot_of_all_do_not_format_again() {
    let how = json!({ "kill_caller": "after" });
    let machine = Machine::new().override_calls("storage format", 1, 1, how);
    assert_eq!(machine.run().code, None);
    let machine = machine.events(&[(6, "boot node0 9"), (6, "boot node1 9"), (6, "boot node2 9")]);
    let run = machine.run();
    machine.assert_joined(&run, 1, ALREADY);
}

#[test]
fn death_while_all_formats_fail_is_told_from_what_dmg_left() {
    let how = json!({ "kill_caller": "after" });
    let machine = Machine::new().override_calls("storage format", 1, 1, how);
    let refused =
        "client: code = 506 description = \"the server at node1:10001 refused the connection\"";
    machine.change_world(|world| world["format_errors"] = json!({ "node1": refused }));
    assert_eq!(machine.run().code, None);
    // dmg was killed with its caller's death in mind, not with it: its answer may have come
    // or not. Either way nothing is formatted again.
    let run = machine.run();
    run.assert(1, &["not repeated"]);
    assert_eq!((machine.formats(), machine.marker()), (1, None));
}

#[test]
fn a_torn_note_still_forbids() {
    for text in ["", "{", "[]", "{\"state\": \"started\"}", "null"] {
        let machine = Machine::new();
        machine.write("var/lib/nodeforge/format/started.json", text);
        let run = machine.run();
        run.assert(1, &["it is not repeated, only asked for"]);
        assert_eq!((machine.formats(), machine.marker()), (0, None), "{text:?}");
    }
}

#[test]
fn an_older_answer_is_not_taken_for_that_of_a_new_format() {
    let how = json!({ "kill_caller": "before" });
    let machine = Machine::new().override_calls("storage format", 1, 1, how);
    let old = json!({
        "response": { "host_errors": {}, "HostStorage": { "1": { "storage": {}, "hosts": "node[0-2]:10001" } } },
        "error": null, "status": 0,
    });
    machine.write("var/lib/nodeforge/format/dmg.json", &old.to_string());
    assert_eq!(machine.run().code, None);
    machine.run().assert(1, &["its end is not known"]);
    assert_ne!(machine.note().unwrap()["state"], "formatted");
}
