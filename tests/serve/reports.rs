//! What nodes say of themselves.

use serde_json::{Value, json};

use super::{Lab, NODE1, NODE2, Server, paths, word};
use crate::examples::printed;
use crate::support;

/// Arms a node and starts its installer; the event token.
fn start(lab: &Lab, server: &Server, node: &str, mac: &str) -> String {
    lab.arm(&[node]);
    word(&server.text(&paths(mac)[2]), "nodeforge.event_token").unwrap().to_owned()
}

fn event(node: &str, seq: u32, step: &str, state: &str) -> String {
    let log = if state == "failed" { vec!["the last line"] } else { vec![] };
    json!({ "node": node, "boot_id": "b1", "seq": seq, "step": step, "state": state,
            "time": "2026-11-22T20:00:00Z", "message": format!("{step} {state}"), "log": log })
    .to_string()
}

#[test]
fn a_nodes_events_make_its_timeline() {
    if support::lacks(&["curl"]) {
        return;
    }
    let lab = Lab::new();
    let server = lab.serve();
    let token = start(&lab, &server, "node2", NODE2);
    assert_eq!(server.status(&[], "nodes/node2/kickstart.ks"), 200);
    for (step, state, becomes) in [
        ("disk", "ended", "installing"),
        ("packages", "started", "installing"),
        ("finish", "ended", "installed"),
    ] {
        let posted = json!({ "node": "node2", "step": step, "state": state, "message": "" });
        assert_eq!(server.post(&token, &posted.to_string()), 204);
        assert_eq!(server.state("node2"), becomes, "{step}");
    }
    for (seq, step, state, becomes) in [
        (1, "10-owners", "done", "firstboot"),
        (2, "90-preflight", "failed", "failed"),
        (3, "90-preflight", "done", "firstboot"),
        (4, "ready", "ready", "ready"),
    ] {
        // One that comes twice counts once.
        for _ in 0..2 {
            assert_eq!(server.post(&token, &event("node2", seq, step, state)), 204);
        }
        assert_eq!(server.state("node2"), becomes, "{step}");
        if state == "failed" {
            let failures = server.json("api/v1/failures");
            assert_eq!(failures[0]["reason"], "90-preflight failed");
            assert_eq!(failures[0]["log"], json!(["the last line"]));
        }
    }
    let status = server.json("api/v1/nodes/node2");
    let timeline: Vec<String> = status["timeline"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| ["source", "step", "state"].map(|key| it[key].as_str().unwrap()).join(" "))
        .collect();
    assert_eq!(
        timeline,
        [
            "server armed armed",
            "server boot script installing",
            "server kickstart installing",
            "installer disk ended",
            "installer packages started",
            "installer finish ended",
            "node 10-owners done",
            "node 90-preflight failed",
            "node 90-preflight done",
            "node ready ready",
        ]
    );
    assert_eq!(status["log"], json!(["the last line"]));
    let told: Value =
        serde_json::from_str(&printed(lab.path(), &["status", "node2", "--json"])).unwrap();
    assert_eq!(told["nodes"][0]["state"], "ready");
    assert_eq!(told["counts"]["ready"], 1);
}

#[test]
fn bad_oversized_and_foreign_events_are_refused_and_counted() {
    if support::lacks(&["curl"]) {
        return;
    }
    let lab = Lab::new();
    let server = lab.serve();
    let token = start(&lab, &server, "node1", NODE1);
    let other = start(&lab, &server, "node2", NODE2);
    let good = event("node1", 1, "10-owners", "done");
    let secret = word(&server.text(&paths(NODE1)[2]), "nodeforge.token").unwrap().to_owned();

    assert_eq!(server.status(&["--data-binary", &good], "events"), 401);
    for (token, status) in [(other.as_str(), 403), (secret.as_str(), 403), ("x", 403)] {
        assert_eq!(server.post(token, &good), status);
    }
    assert_eq!(server.post(&token, &event("node9", 1, "a", "done")), 403);
    for bad in ["", "{", "[]", "{\"node\":\"node1\"}", &good.replace("done", "exploded")] {
        assert_eq!(server.post(&token, bad), 400, "{bad:?}");
    }
    let large = good.replace("10-owners done", &"x".repeat(40_000));
    assert_eq!(server.post(&token, &large), 413);
    assert_eq!(server.status(&[], "events"), 405);
    assert_eq!(server.state("node1"), "installing");
    assert_eq!(server.post(&token, &good), 204);

    let metrics = server.text("metrics");
    for (outcome, count) in
        [("taken", 1), ("without_token", 1), ("foreign", 4), ("malformed", 5), ("oversized", 1)]
    {
        let line = format!("nodeforge_events_total{{outcome=\"{outcome}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
}

#[test]
fn a_token_in_a_report_is_told_to_nobody() {
    if support::lacks(&["curl"]) {
        return;
    }
    let lab = Lab::new();
    let server = lab.serve();
    let token = start(&lab, &server, "node2", NODE2);
    let secret = word(&server.text(&paths(NODE2)[2]), "nodeforge.token").unwrap().to_owned();
    let cut = "x".repeat(3990);
    let told = json!({ "node": "node2", "step": "disk", "state": "failed",
                       "message": format!("{cut}{secret}"),
                       "log": [format!("nodeforge.token={secret}"), format!("Bearer {token} sent")] });
    assert_eq!(server.post(&token, &told.to_string()), 204);
    let shown = server.text("api/v1/nodes/node2");
    assert!(!shown.contains(&secret[..8]) && !shown.contains(&token[..8]), "{shown}");
    assert!(shown.contains("nodeforge.token=(token)") && shown.contains("Bearer (token) sent"));
    assert!(!server.said().contains(&secret[..8]));
}

#[test]
fn a_refusal_of_the_installer_is_a_failure_with_its_reason_until_the_next_try() {
    if support::lacks(&["curl"]) {
        return;
    }
    let lab = Lab::new();
    let server = lab.serve();
    let token = start(&lab, &server, "node2", NODE2);
    let refused = json!({ "node": "node2", "step": "disk", "state": "refused",
                          "message": "2 disks match the rule" });
    assert_eq!(server.post(&token, &refused.to_string()), 204);
    let status = server.json("api/v1/nodes/node2");
    assert_eq!(
        (status["state"].as_str(), status["reason"].as_str()),
        (Some("failed"), Some("2 disks match the rule"))
    );
    assert!(printed(lab.path(), &["status"]).contains("2 disks match the rule"));
    // Anybody may ask for a kickstart.
    assert_eq!(server.status(&[], "nodes/node2/kickstart.ks"), 200);
    assert_eq!(server.state("node2"), "failed");
    assert!(server.text(&paths(NODE2)[2]).contains("vmlinuz"), "it is tried again");
    assert_eq!(server.state("node2"), "installing");
}

#[test]
fn followers_hear_of_changes_as_they_happen() {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpStream;

    if support::lacks(&["curl"]) {
        return;
    }
    let lab = Lab::new();
    let server = lab.serve();
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    assert!(lines.by_ref().any(|line| line.starts_with("retry: ")));
    lab.arm(&["node1"]);
    let data =
        lines.by_ref().find_map(|line| Some(line.strip_prefix("data: ")?.to_owned())).unwrap();
    let row: Value = serde_json::from_str(&data).unwrap();
    assert_eq!((row["name"].as_str(), row["state"].as_str()), (Some("node1"), Some("armed")));
    server.stop();
    assert_eq!(
        lines.filter(|line| line.starts_with("data: ")).count(),
        0,
        "it ends with the server"
    );
}
