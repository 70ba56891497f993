//! What becomes of grants and installations when the cluster file changes under them.

use std::fs;
use std::thread;

use serde_json::json;

use super::{Lab, NODE0, NODE1, NODE2, Server, paths, word};
use crate::support;

const NEW: &str = "52-54-00-03-00-99";

/// Builds, and waits until that is served.
fn rebuild(lab: &Lab, server: &Server) {
    lab.build();
    let newest = fs::read(lab.path().join("out/current/manifest.json")).unwrap();
    while server.ask(&[], "manifest.json").1 != newest {
        thread::yield_now();
    }
}

#[test]
fn a_grant_is_a_machines_and_goes_to_no_other_with_its_name() {
    if support::lacks(&["curl"]) {
        return;
    }
    let lab = Lab::new();
    let server = lab.serve();
    lab.arm(&["node1", "--wipe-daos"]);
    let [old, new] = [NODE0, NODE1].map(|mac| mac.replace('-', ":"));
    for (from, to) in [(&*old, "swapped"), (&*new, &*old), ("swapped", &*new)] {
        lab.edit(from, to);
    }
    rebuild(&lab, &server);
    for path in paths(NODE0) {
        let script = server.text(&path);
        assert!(!script.contains("vmlinuz"), "{path}: {script}");
        assert!(script.contains("armed for the machine with MAC 52:54:00:03:00:12"), "{script}");
    }
    for path in paths(NODE1) {
        assert!(!server.text(&path).contains("vmlinuz"), "{path}");
    }
    assert_eq!(server.status(&[], "nodes/node1/kickstart.ks"), 403);
    lab.failed(&["disarm", "node1"]);
    lab.arm(&["node1"]);
    assert!(server.text(&paths(NODE0)[2]).contains("vmlinuz"));
}

#[test]
fn a_node_that_became_a_server_is_not_installed_with_the_grant_of_a_client() {
    if support::lacks(&["curl"]) {
        return;
    }
    let lab = Lab::new();
    let server = lab.serve();
    lab.arm(&["node2"]);
    lab.edit("roles = [\"client\"]", "roles = [\"server\"]");
    rebuild(&lab, &server);
    let script = server.text(&paths(NODE2)[2]);
    assert!(!script.contains("vmlinuz"), "{script}");
    assert!(script.contains("armed for no server of DAOS, but the boot tree has DAOS 2.6.0"));
}

#[test]
fn a_nic_that_is_replaced_in_the_middle_is_told_what_to_do() {
    if support::lacks(&["curl"]) {
        return;
    }
    let lab = Lab::new();
    let server = lab.serve();
    lab.arm(&["node1"]);
    assert!(server.text(&paths(NODE1)[2]).contains("vmlinuz"));
    lab.edit(&NODE1.replace('-', ":"), &NEW.replace('-', ":"));
    rebuild(&lab, &server);
    // As from the node's own address: other files would be those of its installation.
    let own = ["-H", "X-Nodeforge-Node: node1"];
    for path in paths(NEW) {
        let (status, script) = server.ask(&own, &path);
        let script = String::from_utf8(script).unwrap();
        assert_eq!(status, 200, "{path}");
        assert!(script.contains("disarm, and arm again"), "{path}: {script}");
    }
}

#[test]
fn a_node_that_was_taken_out_can_be_disarmed() {
    if support::lacks(&["curl"]) {
        return;
    }
    let lab = Lab::new();
    let server = lab.serve();
    lab.arm(&["node2"]);
    let script = server.text(&paths(NODE2)[2]);
    let token = word(&script, "nodeforge.token").unwrap().to_owned();
    let header = format!("Authorization: Bearer {token}");
    lab.edit("[node.node2]", "[node.node3]");
    rebuild(&lab, &server);
    let secrets = || server.status(&["-H", &header], "secret/node2.tar.gz");
    assert_eq!(secrets(), 200, "the installation goes on");
    let (code, said) = lab.failed(&["status"]);
    assert_eq!(code, 0);
    assert!(said.contains("node2: installing, and not in the boot tree any more"), "{said}");
    assert_eq!(lab.failed(&["disarm", "node2"]), (0, "disarmed node2\n".to_owned()));
    assert!([403, 404].contains(&secrets()));
    assert!(!lab.failed(&["status"]).1.contains("node2"));
    let (code, said) = lab.failed(&["disarm", "node9"]);
    assert_eq!(code, 1);
    assert!(said.contains("the boot tree has no node node9"), "{said}");
}

#[test]
fn layers_are_those_of_the_installation_whatever_address_it_comes_from() {
    if support::lacks(&["curl"]) {
        return;
    }
    let lab = Lab::new();
    let server = lab.serve();
    lab.arm(&["node1"]);
    server.text(&paths(NODE1)[2]);
    let files = ["layers/SHA256SUMS", "layers/common/layer.tar.gz"];
    let own = ["-H", "X-Nodeforge-Node: node1"];
    let begun = files.map(|path| server.ask(&own, path));
    lab.edit("Asia/Shanghai", "Europe/Berlin");
    rebuild(&lab, &server);
    assert_eq!(files.map(|path| server.ask(&own, path)), begun);
    for other in [&[][..], &["-H", "X-Nodeforge-Node: node0"], &["-H", "X-Nodeforge-Node: ../x"]] {
        assert_ne!(server.ask(other, files[1]), begun[1], "{other:?}");
    }
}

#[test]
fn a_script_that_cannot_be_sent_is_no_attempt_and_is_told() {
    if support::lacks(&["curl"]) {
        return;
    }
    let lab = Lab::new();
    let server = lab.serve();
    lab.arm(&["node2"]);
    let script = lab.path().join("out/current").join(&paths(NODE2)[2]);
    let built = fs::read(&script).unwrap();
    fs::write(&script, "").unwrap();
    let (status, body) = server.ask(&[], &paths(NODE2)[2]);
    let body = String::from_utf8(body).unwrap();
    assert_eq!(status, 503);
    assert!(!body.contains("store"), "{body}");
    assert_eq!(server.state("node2"), "armed");
    assert!(server.said().contains("node2 cannot be installed: "), "{}", server.said());
    fs::write(&script, built).unwrap();
    assert!(server.text(&paths(NODE2)[2]).contains("vmlinuz"));
}

/// Installed, and ready; then the installer's last words come a second time.
#[test]
fn what_the_installer_said_comes_late_and_changes_nothing() {
    if support::lacks(&["curl"]) {
        return;
    }
    let (_lab, server, script) = Lab::with_armed_node();
    let token = word(&script, "nodeforge.event_token").unwrap().to_owned();
    let finish = json!({ "node": "node1", "step": "finish", "state": "ended", "message": "" });
    let ready = json!({ "node": "node1", "boot_id": "b", "seq": 1, "step": "ready",
                        "state": "ready", "message": "" });
    for event in [&finish, &ready] {
        assert_eq!(server.post(&token, &event.to_string()), 204);
    }
    let refused = json!({ "node": "node1", "step": "disk", "state": "refused", "message": "old" });
    for event in [&finish, &refused] {
        assert_eq!(server.post(&token, &event.to_string()), 204);
        assert_eq!(server.state("node1"), "ready");
    }
}
