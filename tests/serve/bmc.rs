//! `arm --network-boot` with a Redfish service that is not ours: sushy-tools' emulator, which
//! OpenStack tests its bare metal with.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::lasting::make_certificate;
use super::{Lab, nodeforge, support};
use crate::support::spoken_lines;

/// A BMC on loopback for one machine that is on, with TLS, and `admin` with `secret`.
struct Emulator {
    process: Child,
    port: u16,
    certificate: String,
}

const SYSTEM: &str = "redfish/v1/Systems/00000000-0000-4000-8000-000000000001";

impl Emulator {
    fn start(lab: &Lab) -> Self {
        make_certificate(lab.path());
        let place = lab.path().display();
        let configuration = format!(
            "SUSHY_EMULATOR_LISTEN_IP = '127.0.0.1'
SUSHY_EMULATOR_LISTEN_PORT = 0
SUSHY_EMULATOR_SSL_CERT = '{place}/c.pem'
SUSHY_EMULATOR_SSL_KEY = '{place}/k.pem'
SUSHY_EMULATOR_AUTH_FILE = '{place}/htpasswd'
SUSHY_EMULATOR_STATE_DIR = '{place}'
SUSHY_EMULATOR_FAKE_SYSTEMS = [{{'uuid': '00000000-0000-4000-8000-000000000001',
    'name': 'node0', 'power_state': 'On', 'external_notifier': False, 'nics': []}}]
"
        );
        support::write(lab.path(), "bmc.py", configuration);
        // bcrypt's hash of `secret`.
        let users = "admin:$2b$04$G3KfybZGatDQBCSSK3aMY.HlEjBPOv/DuEuyiG2Y97aBqfwYPvTJa\n";
        support::write(lab.path(), "htpasswd", users);
        let mut process = support::command("sushy-emulator")
            .args(["--fake", "--config"])
            .arg(lab.path().join("bmc.py"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let port = lines
            .find_map(|line| {
                line.unwrap().rsplit_once("Running on https://127.0.0.1:")?.1.parse().ok()
            })
            .expect("it says where it listens");
        // Whoever writes to a closed pipe ends.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, port, certificate: format!("{place}/c.pem") }
    }

    fn system(&self) -> Value {
        let mut curl = support::command("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--fail",
            "--noproxy",
            "*",
            "--user",
            "admin:secret",
        ]);
        curl.args(["--cacert", &self.certificate]);
        let output =
            curl.arg(format!("https://127.0.0.1:{}/{SYSTEM}", self.port)).output().unwrap();
        assert!(output.status.success(), "{:?}", spoken_lines(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Exit code, standard output and standard error of `nodeforge arm … --network-boot lab3.toml`.
fn arm(lab: &Lab, words: &[&str], password: &str) -> (i32, String, String) {
    let output = Command::new(nodeforge())
        .arg("arm")
        .args(words)
        .args(["--network-boot", "lab3.toml"])
        .current_dir(lab.path())
        .env("BMC_USER", "admin")
        .env("BMC_PASSWORD", password)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn state(lab: &Lab, node: &str) -> String {
    let output = Command::new(nodeforge())
        .args(["status", "--json", node])
        .current_dir(lab.path())
        .output()
        .unwrap();
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    status["nodes"][0]["state"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_bmc_boots_its_machine_from_the_network_and_one_that_is_away_is_named() {
    if support::lacks(&["curl", "openssl", "sushy-emulator"]) {
        return;
    }
    let lab = Lab::new();
    let emulator = Emulator::start(&lab);
    let bmc = format!(
        "[hw.vm.bmc]\nip = \"127.0.0.0 + {{index}} + 1\"\nport = {}\n\
         user = {{ env = \"BMC_USER\" }}\npassword = {{ env = \"BMC_PASSWORD\" }}\n\n[role.server]\n",
        emulator.port
    );
    lab.edit("[role.server]\n", &bmc);
    assert_eq!(emulator.system()["Boot"]["BootSourceOverrideTarget"], "Hdd");

    // No certificate that the system knows: no password leaves.
    let (status, _, said) = arm(&lab, &["node0"], "secret");
    assert_eq!(status, 1);
    assert!(said.contains("node0: its BMC was not told: asking https://127.0.0.1:"), "{said}");
    assert!(said.contains("certificate"), "{said}");
    assert!(said.contains("they are armed all the same. node0: if the disk comes first"), "{said}");
    assert_eq!(emulator.system()["Boot"]["BootSourceOverrideTarget"], "Hdd");
    assert_eq!(state(&lab, "node0"), "armed");

    let ca = ["--bmc-ca", "c.pem"];
    let (status, _, said) = arm(&lab, &[&["node0"][..], &ca].concat(), "guess");
    assert_eq!(status, 1);
    assert!(said.contains("the BMC does not accept the user or the password"), "{said}");
    assert!(!said.contains("guess"), "{said}");

    // node1's would be 127.0.0.2, where nobody listens.
    let words = [&["node[0-1]", "--json"][..], &ca].concat();
    let (status, json, said) = arm(&lab, &words, "secret");
    assert_eq!(status, 1);
    assert!(said.contains("node0: will boot from the network when started next"), "{said}");
    assert!(said.contains("node1: its BMC was not told: asking https://127.0.0.2:"), "{said}");
    assert!(!said.contains("secret"), "{said}");
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["bmc"]["system"], format!("/{SYSTEM}"));
    assert_eq!(json[0]["bmc"]["reset"], Value::Null);
    assert!(json[1]["bmc"]["error"].as_str().unwrap().contains("127.0.0.2"), "{json}");
    let system = emulator.system();
    assert_eq!(system["Boot"]["BootSourceOverrideTarget"], "Pxe");
    assert_eq!(system["PowerState"], "On");

    let words = [&["node0", "--restart"][..], &ca].concat();
    let (status, _, said) = arm(&lab, &words, "secret");
    assert_eq!(status, 0, "{said}");
    assert!(said.contains("node0: restarted, from the network"), "{said}");
    // This emulator keeps every override for good.
    assert!(said.contains("note: the BMC of node0 keeps the order for every boot"), "{said}");
}

#[test]
fn what_is_missing_for_a_bmc_is_told_at_once_and_nothing_is_armed() {
    let lab = Lab::new();
    let (status, _, said) = arm(&lab, &["node[0-2]"], "secret");
    assert_eq!(status, 1);
    assert!(said.contains("node[0-2]: no address of a BMC; give `bmc.ip`"), "{said}");
    assert!(said.contains("Nothing was armed"), "{said}");
    assert_eq!(state(&lab, "node0"), "unknown");

    lab.edit(
        "[role.server]\n",
        "[hw.vm.bmc]\nuser = { env = \"NOBODY_SETS_THIS\" }\n\n[role.server]\n",
    );
    lab.edit("[node.node1]\n", "[node.node1]\nbmc.ip = \"127.0.0.1\"\n");
    let (status, _, said) = arm(&lab, &["node[0-2]", "--uefi-http"], "secret");
    assert_eq!(status, 1);
    for missing in [
        "node1: bmc.user: the environment variable `NOBODY_SETS_THIS`",
        "no `bmc.password` is given",
        "node[0,2]: no address of a BMC",
        "node[0-2]: a BIOS does not boot by UEFI HTTP",
    ] {
        assert!(said.contains(missing), "{missing}: {said}");
    }
    assert_eq!(lab.failed(&["arm", "node0", "--restart"]).0, 2, "without --network-boot");
}
