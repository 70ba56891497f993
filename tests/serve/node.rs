//! The scripts of a node, as they are, against the server: one installation from the kernel
//! line to `ready`.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Lab, NODE1, Server, paths, word};
use crate::support::{self, repository};

/// The root of a made-up machine whose kernel line is that of the boot script.
fn boot(root: &Path, script: &str) {
    let line = script.lines().find(|line| line.starts_with("kernel ")).unwrap();
    let line = line.trim_start_matches("kernel ").replace(" || goto disk", "");
    support::write(root, "proc/cmdline", format!("{line}\n"));
    support::write(root, "sys/class/tty/console/active", "tty0\n");
    support::write(root, "dev/console", "");
    fs::create_dir_all(root.join("run/nodeforge/archives")).unwrap();
    fs::create_dir_all(root.join("mnt/sysimage")).unwrap();
}

/// Runs lines of the installer's scripts as the kickstart does, in the machine's root.
fn install(server: &Server, root: &Path, script: &str, lines: &str) {
    let from = repository().join("profiles/kickstart");
    let text = format!(
        "NF_NODE=node1 NF_URL={} NF_SECRETS=token NF_RETRIES=0 NF_KEPT= NF_LAYERS=\n\
         . {from}/lib.sh\n. {from}/{script}.sh\n{lines}\n",
        server.url,
        from = from.display()
    );
    let mut bash = Command::new("bash");
    bash.args(["-c", &text]).env("NF_SYSROOT", root).env("NF_TARGET", root.join("mnt/sysimage"));
    let output = bash.env("NF_RUN", root.join("run/nodeforge")).output().unwrap();
    assert!(output.status.success(), "{lines}: {output:?}");
}

#[test]
fn a_nodes_own_scripts_take_it_from_the_kernel_line_to_ready() {
    if support::lacks(&["curl"]) {
        return;
    }
    let (lab, server, script) = Lab::with_armed_node();
    let machine = support::scratch();
    let root = machine.path();
    boot(root, &script);

    install(
        &server,
        root,
        "fetch",
        "NF_STEP=disk; report disk ended 'fresh installation on \"vda\"'",
    );
    assert_eq!(server.state("node1"), "installing");
    install(&server, root, "fetch", "secrets_by_token");
    let bundle = fs::read(root.join("run/nodeforge/archives/secrets.tar.gz")).unwrap();
    assert_eq!(bundle, fs::read(lab.path().join("out/current/secret/node1.tar.gz")).unwrap());

    let finish = "store_event_token; store_grant; report \"$NF_STEP\" ended installed";
    install(&server, root, "finish", finish);
    let installed = root.join("mnt/sysimage");
    let grant = fs::read_to_string(installed.join("var/lib/nodeforge/grant")).unwrap();
    assert_eq!(Some(grant.trim()), word(&script, "nodeforge.grant"));
    assert_eq!(server.state("node1"), "installed");

    first_boot(&server, &installed);
    let status = server.json("api/v1/nodes/node1");
    assert_eq!(status["state"], "ready", "{status}");
    let last = status["timeline"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["detail"], "node1 is ready: \\ and \"quotes\"");
    assert!(!server.text(&paths(NODE1)[2]).contains("vmlinuz"));
}

/// The events of a first boot, put into the spool and sent by the overlay's own scripts.
fn first_boot(server: &Server, root: &Path) {
    let overlay = repository().join("overlays/firstboot/rootfs");
    for script in ["lib.sh", "event", "report"] {
        let path = format!("usr/libexec/nodeforge/{script}");
        support::write(root, &path, fs::read(overlay.join(&path)).unwrap());
    }
    support::write(root, "etc/nodeforge/node.json", "{\n  \"name\": \"node1\"\n}\n");
    let kind = format!("{{\n  \"boot_url\": \"{}\"\n}}\n", server.url);
    support::write(root, "etc/nodeforge/kind.json", kind);
    support::write(root, "proc/sys/kernel/random/boot_id", "0f1e2d3c-boot\n");
    let run = |script: &str, words: &[&str]| {
        let mut bash = Command::new("bash");
        bash.arg(root.join("usr/libexec/nodeforge").join(script)).args(words);
        let output = bash.env("NODEFORGE_ROOT", root).output().unwrap();
        assert!(output.status.success(), "{script}: {output:?}");
    };
    run("event", &["10-owners", "started", ""]);
    run("event", &["10-owners", "done", "3 owners set"]);
    run("event", &["ready", "ready", "node1 is ready: \\ and \"quotes\""]);
    run("report", &[]);
    let spool = fs::read_dir(root.join("var/lib/nodeforge/events")).unwrap();
    assert_eq!(spool.count(), 0, "all was taken");
}

#[test]
fn an_installer_whose_token_is_gone_gets_no_secrets() {
    if support::lacks(&["curl"]) {
        return;
    }
    let (lab, server, script) = Lab::with_armed_node();
    let machine = support::scratch();
    boot(machine.path(), &script);
    crate::examples::printed(lab.path(), &["disarm", "node1"]);
    let without_a_person =
        "refuse() { printf '%s\\n' \"$1\" >\"$NF_RUN/refused\"; exit 0; }; secrets_by_token";
    install(&server, machine.path(), "fetch", without_a_person);
    let refused = fs::read_to_string(machine.path().join("run/nodeforge/refused")).unwrap();
    assert!(refused.contains("cannot be fetched") && refused.contains("403"), "{refused}");
}
