//! What machines get, and who gets what.

use std::fs;

use super::{Lab, NODE0, NODE1, NODE2, STRANGER, paths, word};
use crate::examples::printed;
use crate::support;
use crate::support::listing::sha256;

#[test]
fn only_an_armed_node_gets_the_installer_on_every_path() {
    if support::lacks(&["curl"]) {
        return;
    }
    let lab = Lab::new();
    let server = lab.serve();
    for mac in [NODE0, NODE1, NODE2] {
        for path in paths(mac) {
            let script = server.text(&path);
            assert!(!script.contains("vmlinuz"), "{path}: {script}");
        }
    }
    for path in paths(STRANGER) {
        assert_eq!(server.status(&[], &path), 404, "{path}");
    }
    lab.arm(&["node1"]);
    for path in paths(NODE1) {
        let script = server.text(&path);
        assert!(script.contains("vmlinuz"), "{path}: {script}");
        let grant = word(&script, "nodeforge.grant").unwrap();
        assert!(grant.len() >= 10 && grant.bytes().all(|b| b.is_ascii_digit()), "{grant}");
        assert_eq!(word(&script, "nodeforge.reinstall"), None);
        assert_eq!(word(&script, "nodeforge.wipe_daos"), None);
        assert_eq!(word(&script, "nodeforge.token").map(str::len), Some(43));
        assert_eq!(word(&script, "nodeforge.event_token").map(str::len), Some(43));
    }
    for path in paths(NODE0).iter().chain(&paths(NODE2)) {
        assert!(!server.text(path).contains("vmlinuz"), "{path}");
    }
    printed(lab.path(), &["disarm", "node1"]);
    for path in paths(NODE1) {
        assert!(!server.text(&path).contains("vmlinuz"), "{path}");
    }
}

#[test]
fn a_look_at_a_script_is_no_attempt_and_asking_twice_is_one() {
    if support::lacks(&["curl"]) {
        return;
    }
    let lab = Lab::new();
    let server = lab.serve();
    lab.arm(&["node2"]);
    let path = &paths(NODE2)[2];
    assert_eq!(server.status(&["--head"], path), 200);
    assert_eq!(server.state("node2"), "armed");
    assert_eq!(server.text(path), server.text(path));
    assert_eq!(server.json("api/v1/nodes/node2")["grant"]["attempts"], 1);
    assert_eq!(server.state("node2"), "installing");
}

#[test]
fn a_machine_that_never_ends_its_installation_halts_with_a_message() {
    if support::lacks(&["curl"]) {
        return;
    }
    let lab = Lab::new();
    let server = lab.serve_with(&["--forwarded", "--listen", "127.0.0.1:0", "--attempts", "2"]);
    lab.arm(&["node2"]);
    for attempt in 1..=2 {
        let script = server.text(&paths(NODE2)[1]);
        assert!(script.contains("vmlinuz"), "{attempt}");
        // The kickstart is a sign of life: what asks after it is another boot.
        assert_eq!(server.status(&[], "nodes/node2/kickstart.ks"), 200);
    }
    for path in paths(NODE2) {
        let script = server.text(&path);
        assert!(!script.contains("vmlinuz") && script.contains("did not end 2 times"), "{script}");
    }
    // Nor does a machine get in by the kickstart's own path.
    let mac = format!("X-RHN-Provisioning-MAC-0: eth0 {NODE2}");
    for (headers, path) in
        [(&[][..], "nodes/node2/kickstart.ks"), (&["-H", mac.as_str()], "kickstart")]
    {
        let (status, said) = server.ask(headers, path);
        let said = String::from_utf8(said).unwrap();
        assert!(status == 403 && said.contains("did not end 2 times"), "{path}: {status} {said}");
    }
    let status = server.json("api/v1/nodes/node2");
    assert_eq!(status["state"], "failed");
    assert!(status["reason"].as_str().unwrap().contains("did not end 2 times"), "{status}");
    lab.arm(&["node2"]);
    assert!(server.text(&paths(NODE2)[1]).contains("vmlinuz"));
}

#[test]
fn a_kickstart_is_its_own_nodes_and_only_while_it_may_be_installed() {
    if support::lacks(&["curl"]) {
        return;
    }
    let lab = Lab::new();
    let server = lab.serve();
    let mac = |mac: &str| format!("X-RHN-Provisioning-MAC-0: eth0 {}", mac.replace('-', ":"));
    let path = "nodes/node1/kickstart.ks";
    assert_eq!(server.status(&[], path), 403);
    assert_eq!(server.status(&["-H", &mac(NODE1)], "kickstart"), 403);
    lab.arm(&["node1"]);
    let expected = fs::read(lab.path().join("out/current").join(path)).unwrap();
    assert_eq!(server.ask(&[], path), (200, expected.clone()));
    assert_eq!(server.ask(&["-H", &mac(NODE1)], path), (200, expected.clone()));
    assert_eq!(server.ask(&["-H", &mac(NODE1)], "kickstart"), (200, expected));
    assert_eq!(server.status(&["-H", &mac(NODE2)], path), 403);
    assert_eq!(server.status(&["-H", &mac(STRANGER)], "kickstart"), 403);
    assert_eq!(server.status(&[], "kickstart"), 403);
}

#[test]
fn the_secret_token_opens_one_bundle_and_dies_when_the_node_is_installed() {
    if support::lacks(&["curl"]) {
        return;
    }
    let lab = Lab::new();
    let server = lab.serve();
    let path = |node: &str| format!("secret/{node}.tar.gz");
    let with = |token: &str| format!("Authorization: Bearer {token}");
    assert_eq!(server.status(&[], &path("node1")), 401);
    lab.arm(&["node[0-1]"]);
    let scripts = [NODE0, NODE1].map(|mac| server.text(&paths(mac)[0]));
    let secret = [0, 1].map(|at| word(&scripts[at], "nodeforge.token").unwrap());
    let event = word(&scripts[1], "nodeforge.event_token").unwrap();
    let bundle = fs::read(lab.path().join("out/current").join(path("node1"))).unwrap();

    assert_eq!(server.ask(&["-H", &with(secret[1])], &path("node1")), (200, bundle));
    for (token, node) in
        [(secret[0], "node1"), (secret[1], "node0"), (event, "node1"), (&secret[1][1..], "node1")]
    {
        assert_eq!(server.status(&["-H", &with(token)], &path(node)), 403, "{node} with {token:?}");
    }
    assert_eq!(server.status(&[], &path("node1")), 401);
    assert_eq!(server.status(&["-H", &with(secret[1])], "secret/manifest.json"), 404);

    let installed = r#"{"node":"node1","step":"finish","state":"ended","message":"installed"}"#;
    assert_eq!(server.post(event, installed), 204);
    assert_eq!(server.status(&["-H", &with(secret[1])], &path("node1")), 403);
    assert_eq!(server.state("node1"), "installed");
    assert!(!server.text(&paths(NODE1)[0]).contains("vmlinuz"));

    lab.arm(&["node1"]);
    assert_eq!(server.status(&["-H", &with(secret[1])], &path("node1")), 403);
    assert_eq!(server.post(event, installed), 403, "the old event token is replaced");
    let said = server.said();
    let state = fs::read(lab.path().join("out.state/state.db")).unwrap();
    let wal = fs::read(lab.path().join("out.state/state.db-wal")).unwrap();
    for token in [secret[0], secret[1], event] {
        assert!(!said.contains(token), "{said}");
        for file in [&state, &wal] {
            assert!(!file.windows(token.len()).any(|bytes| bytes == token.as_bytes()));
        }
    }
}

#[test]
fn files_come_whole_in_parts_and_not_at_all_if_known() {
    if support::lacks(&["curl"]) {
        return;
    }
    let lab = Lab::new();
    let bytes = lab.add_large_file(3_000_017);
    let server = lab.serve();
    let path = "pxe/large.bin";
    assert_eq!(server.ask(&[], path), (200, bytes.clone()));
    let (status, head) = server.ask(&["--head"], path);
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert_eq!(status, 200);
    assert!(
        head.contains("content-length: 3000017") && head.contains("accept-ranges: bytes"),
        "{head}"
    );
    let etag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap().trim();
    assert_eq!(etag, format!("\"{}\"", &sha256(&bytes)[..32]));

    for (range, from, to) in [
        ("0-0", 0, 1),
        ("1000-299999", 1000, 300_000),
        ("2999999-", 2_999_999, 3_000_017),
        ("-17", 3_000_000, 3_000_017),
    ] {
        assert_eq!(
            server.ask(&["--range", range], path),
            (206, bytes[from..to].to_vec()),
            "{range}"
        );
    }
    assert_eq!(server.status(&["--range", "3000017-"], path), 416);
    let known = format!("If-None-Match: {etag}");
    assert_eq!(server.ask(&["-H", &known], path), (304, Vec::new()));

    let half = lab.path().join("half");
    fs::write(&half, &bytes[..1_234_567]).unwrap();
    let half_name = half.to_str().unwrap();
    let resumed = server.curl(&["--continue-at", "-", "--output", half_name], path);
    assert!(resumed.status.success(), "{resumed:?}");
    assert_eq!(fs::read(half).unwrap(), bytes);
}

#[test]
fn everything_in_the_manifest_is_served_and_nothing_else_is() {
    if support::lacks(&["curl"]) {
        return;
    }
    let lab = Lab::new();
    let server = lab.serve();
    lab.arm(&["node[0-2]"]);
    let sums = server.text("SHA256SUMS");
    let is_script = |path: &str| {
        ["pxe/pxelinux.cfg/01-", "pxe/grub/grub.cfg-01-", "pxe/ipxe/"]
            .iter()
            .any(|top| path.starts_with(top))
    };
    let mut n_files = 0;
    for (digest, path) in sums.lines().filter_map(|line| line.split_once("  ")) {
        let (status, body) = server.ask(&[], path);
        assert_eq!(status, 200, "{path}");
        if !is_script(path) {
            assert_eq!(sha256(&body), digest, "{path}");
            n_files += 1;
        }
    }
    assert!(n_files > 15, "{n_files}");
    support::write(lab.path(), "out/current/nodes/node0/left-behind", "x");
    support::write(lab.path(), "out/current/pxe/left-behind", "x");
    for path in [
        "pxe",
        "pxe/",
        "nodes",
        "nodes/node0",
        "nodes/node0/",
        "secret",
        "secret/",
        "secret/manifest.json",
        ".nodeforge",
        ".inputs",
        "generations/1/manifest.json",
        "current/manifest.json",
        "nodes/node0/left-behind",
        "pxe/left-behind",
        "store",
        "nodes/node9/kickstart.ks",
    ] {
        assert_eq!(server.status(&[], path), 404, "{path}");
    }
}

#[test]
fn images_that_are_still_to_come_are_a_server_that_is_not_ready() {
    if support::lacks(&["curl"]) {
        return;
    }
    let lab = Lab::new();
    let server = lab.serve();
    let (status, head) = server.ask(&["--head"], "pxe/images/8.9/vmlinuz");
    assert_eq!(status, 503);
    assert!(String::from_utf8(head).unwrap().to_lowercase().contains("retry-after: "));
}

#[test]
fn a_file_that_is_not_what_was_built_is_not_served() {
    if support::lacks(&["curl"]) {
        return;
    }
    let lab = Lab::new();
    let server = lab.serve();
    let file = fs::canonicalize(lab.path().join("out/current/nodes/node0/overlay.tar.gz")).unwrap();
    fs::remove_file(&file).unwrap();
    assert_eq!(server.status(&[], "nodes/node0/overlay.tar.gz"), 503);
    std::os::unix::fs::symlink("/etc/passwd", &file).unwrap();
    assert_eq!(server.status(&[], "nodes/node0/overlay.tar.gz"), 503);
}

#[test]
fn an_address_that_nodes_would_not_find_is_refused() {
    let lab = Lab::new();
    for (words, told) in [
        (
            &["serve", "out", "--listen", "127.0.0.1:8080"][..],
            "address 127.0.0.1 is not the URL's, 192.168.3.1",
        ),
        (&["serve", "out", "--listen", "0.0.0.0:8081"], "port 8081 is not the URL's, 8080"),
    ] {
        let (code, said) = lab.failed(words);
        assert_eq!(code, 1, "{said}");
        assert!(
            said.contains(told) && said.contains("http://192.168.3.1:8080 (boot.url)"),
            "{said}"
        );
    }
}

#[test]
fn servers_of_two_versions_of_daos_are_not_armed() {
    if support::lacks(&["curl"]) {
        return;
    }
    let lab = Lab::new();
    let server = lab.serve();
    lab.arm(&["node[0-1]"]);
    for (mac, node) in [(NODE0, "node0"), (NODE1, "node1")] {
        let script = server.text(&paths(mac)[2]);
        let token = word(&script, "nodeforge.event_token").unwrap();
        let event = format!(r#"{{"node":"{node}","step":"finish","state":"ended","message":""}}"#);
        assert_eq!(server.post(token, &event), 204);
    }
    lab.edit("version = \"2.6.0\"", "version = \"2.6.3\"");
    lab.build();
    let (code, said) = lab.failed(&["arm", "node[1-2]"]);
    assert_eq!(code, 1);
    assert!(said.contains("2.6.0 on node0, 2.6.3 on node1"), "{said}");
    assert_eq!(server.state("node2"), "unknown", "nothing was armed");
    lab.arm(&["node2"]);
    lab.arm(&["node[0-1]"]);
}

#[test]
fn a_grant_for_another_version_of_daos_installs_nothing() {
    if support::lacks(&["curl"]) {
        return;
    }
    let lab = Lab::new();
    lab.arm(&["node[0-1]"]);
    lab.edit("version = \"2.6.0\"", "version = \"2.6.3\"");
    lab.build();
    let server = lab.serve();
    let script = server.text(&paths(NODE0)[2]);
    assert!(!script.contains("vmlinuz") && script.contains("armed for DAOS 2.6.0"), "{script}");
    for node in ["node0", "node1"] {
        let (status, said) = server.ask(&[], &format!("nodes/{node}/kickstart.ks"));
        let said = String::from_utf8(said).unwrap();
        assert!(status == 403 && said.contains("armed for DAOS 2.6.0"), "{node}: {status} {said}");
    }
    assert_eq!([server.state("node0"), server.state("node1")], ["failed", "armed"]);
}

#[test]
fn wiping_and_overwriting_are_words_of_their_own() {
    if support::lacks(&["curl"]) {
        return;
    }
    let lab = Lab::new();
    let server = lab.serve();
    lab.arm(&["node0", "--wipe-daos"]);
    lab.arm(&["node2", "--overwrite"]);
    let script = server.text(&paths(NODE0)[0]);
    assert_eq!(word(&script, "nodeforge.wipe_daos"), Some("1"));
    assert_eq!(word(&script, "nodeforge.reinstall"), None);
    let script = server.text(&paths(NODE2)[0]);
    assert_eq!(word(&script, "nodeforge.reinstall"), word(&script, "nodeforge.grant"));
    assert_eq!(word(&script, "nodeforge.wipe_daos"), None);
}
