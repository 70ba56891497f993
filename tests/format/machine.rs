//! An admin in a folder, with a made-up cluster around it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support;

/// What the script calls by name, and the paths below the folder that is its root.
pub struct Machine {
    pub root: TempDir,
}

/// How a run of the script ended.
#[derive(Debug)]
pub struct Run {
    /// `None` if a signal ended it.
    pub code: Option<i32>,
    pub said: String,
}

impl Run {
    /// The words of the last line.
    pub fn last(&self) -> &str {
        self.said.lines().last().unwrap_or_default()
    }

    #[track_caller]
    pub fn assert(&self, code: i32, words: &[&str]) -> &Self {
        assert_eq!(self.code, Some(code), "{}", self.said);
        for words in words {
            assert!(self.said.contains(words), "no `{words}` in:\n{}", self.said);
        }
        self
    }
}

/// Seconds, of a clock that jumps.
const DEADLINE: u64 = 900;

impl Machine {
    /// node0 is the admin; node0 to node2 are servers that await a format, node0 is the
    /// access point.
    pub fn new() -> Self {
        Self::with(&["node0", "node1", "node2"], &["node0"])
    }

    /// Of its three servers all are access points.
    pub fn with_three_replicas() -> Self {
        Self::with(&["node0", "node1", "node2"], &["node0", "node1", "node2"])
    }

    pub fn with(servers: &[&str], access_points: &[&str]) -> Self {
        let machine = Self { root: TempDir::new().unwrap() };
        let address = |at: usize| format!("10.77.0.{}", 10 + at);
        let plan_of = |(at, name): (usize, &&str)| json!({ "name": name, "address": address(at), "addresses": [address(at)], "engines": 1 });
        let plan = json!({
            "system": "daos_server", "format_by": "node0", "deadline_seconds": DEADLINE,
            "port": 10001, "domain": "lab.local", "access_points": access_points,
            "servers": servers.iter().enumerate().map(plan_of).collect::<Vec<_>>(), "pools": [],
        });
        let server = |(at, name): (usize, &&str)| {
            json!({
                "name": name, "address": address(at), "port": 10001, "system": "daos_server",
                "secure": false, "access_points": access_points, "provider": "ofi+tcp",
                "engines": [engine(31416)], "database": null, "is_up": true,
            })
        };
        let world = json!({
            "system": "daos_server", "port": 10001,
            "servers": servers.iter().enumerate().map(server).collect::<Vec<_>>(),
        });
        machine.write("etc/nodeforge/format.json", &plan.to_string());
        machine.write("etc/nodeforge/node.json", r#"{"name": "node0"}"#);
        machine.write("proc/sys/kernel/random/boot_id", "boot-1\n");
        machine.write("world/world.json", &world.to_string());
        fs::create_dir(machine.path("bin")).unwrap();
        for name in ["dmg", "daos"] {
            std::os::unix::fs::symlink(support::fakes(), machine.path("bin").join(name)).unwrap();
        }
        machine
    }

    /// A system that was formatted by somebody else: this admin knows nothing of it.
    pub fn formatted(self) -> Self {
        self.dmg(&["storage", "format"]);
        self.dmg(&["system", "query"]);
        self.forget_calls();
        self
    }

    /// The counts begin anew: events and overrides are counted from here.
    pub fn forget_calls(&self) {
        self.change_world(|world| {
            world["queries"] = json!(0);
            world["counts"] = json!({});
            world["events"] = json!([]);
            world["overrides"] = json!([]);
        });
        let _ = fs::remove_file(self.path("world/calls.log"));
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn change_world(&self, change: impl FnOnce(&mut Value)) {
        self.change("world/world.json", change);
    }

    pub fn change_plan(&self, change: impl FnOnce(&mut Value)) {
        self.change("etc/nodeforge/format.json", change);
    }

    fn change(&self, path: &str, change: impl FnOnce(&mut Value)) {
        let mut value = self.json(path).unwrap();
        change(&mut value);
        self.write(path, &value.to_string());
    }

    /// Changes one server of the world, now.
    pub fn change_server(&self, name: &str, change: impl FnOnce(&mut Value)) {
        self.change_world(|world| {
            let servers = world["servers"].as_array_mut().unwrap();
            change(servers.iter_mut().find(|server| server["name"] == name).unwrap());
        });
    }

    pub fn down(self, name: &str) -> Self {
        self.change_server(name, |server| {
            server["is_up"] = json!(false);
            server["engines"][0]["is_running"] = json!(false);
        });
        self
    }

    /// Lets things happen before the n-th `system query`.
    pub fn events(self, events: &[(u64, &str)]) -> Self {
        let events = events.iter().map(|(at, action)| json!({ "at": at, "action": action }));
        self.change_world(|world| world["events"] = events.collect());
        self
    }

    /// Lets calls of `command`, from the first to the last of these numbers, go their own way.
    pub fn override_calls(self, command: &str, from: u64, to: u64, mut how: Value) -> Self {
        how["on"] = json!(command);
        how["from"] = json!(from);
        how["to"] = json!(to);
        self.change_world(|world| {
            if !world["overrides"].is_array() {
                world["overrides"] = json!([]);
            }
            world["overrides"].as_array_mut().unwrap().push(how);
        });
        self
    }

    pub fn run(&self) -> Run {
        self.run_with(&[], &[])
    }

    pub fn run_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Run {
        let output = self.command(arguments, variables).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        Run { code: output.status.code(), said: String::from_utf8(said).unwrap() }
    }

    pub fn start(&self, variables: &[(&str, &str)]) -> Child {
        self.command(&[], variables).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn command(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("overlays/daos-admin/rootfs/usr/libexec/nodeforge/format");
        let mut command = self.with_environment(Command::new("python3"));
        command.arg(script).args(arguments).envs(variables.iter().copied());
        command
    }

    fn with_environment(&self, mut command: Command) -> Command {
        let path = std::env::var("PATH").unwrap();
        command
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .env("NODEFORGE_ROOT", self.root.path())
            .env("NODEFORGE_TIME_SCALE", "0")
            .env("NODEFORGE_QUERY_SECONDS", "30")
            .env("DAOS_FAKE_WORLD", self.path("world"))
            .stdin(Stdio::null());
        command
    }

    /// What a person does by hand.
    pub fn dmg(&self, arguments: &[&str]) -> Run {
        let mut command = self.with_environment(Command::new(self.path("bin/dmg")));
        let output = command.args(arguments).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        Run { code: output.status.code(), said: String::from_utf8(said).unwrap() }
    }

    /// Every call of dmg so far, with how things truly were.
    pub fn calls(&self) -> Vec<Value> {
        let log = fs::read_to_string(self.path("world/calls.log")).unwrap_or_default();
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// How often `dmg storage format` was called: never with --force or for some hosts only.
    #[track_caller]
    pub fn formats(&self) -> usize {
        let calls = self.calls();
        let is_format = |call: &&Value| call["command"] == "storage format";
        let formats: Vec<&Value> = calls.iter().filter(is_format).collect();
        for format in &formats {
            let control = self.path("etc/daos/daos_control.yml").display().to_string();
            assert_eq!(format["arguments"], json!(["-o", control, "-j", "storage", "format"]));
        }
        formats.len()
    }

    pub fn json(&self, path: &str) -> Option<Value> {
        let text = fs::read_to_string(self.path(path)).ok()?;
        Some(serde_json::from_str(&text).unwrap())
    }

    pub fn marker(&self) -> Option<Value> {
        self.json("var/lib/nodeforge/format/formatted.json")
    }

    pub fn note(&self) -> Option<Value> {
        self.json("var/lib/nodeforge/format/started.json")
    }

    pub fn remove_note(&self) {
        fs::remove_file(self.path("var/lib/nodeforge/format/started.json")).unwrap();
    }

    /// A run that ended well: one or no format, marker, no note, the last line as promised.
    #[track_caller]
    pub fn assert_joined(&self, run: &Run, formats: usize, last: &str) {
        run.assert(0, &[]);
        assert_eq!(run.last(), format!("nodeforge-format: {last}"), "{}", run.said);
        assert_eq!(self.formats(), formats, "{}", run.said);
        assert!(self.marker().is_some(), "no marker");
        assert_eq!(self.note(), None);
    }

    /// A run that ended without a format, and left no mark.
    #[track_caller]
    pub fn assert_untouched(&self, run: &Run, words: &[&str]) {
        run.assert(1, words);
        assert_eq!(self.formats(), 0, "{}", run.said);
        assert_eq!(self.marker(), None);
        assert_eq!(self.note(), None);
        let record = self.json("var/lib/nodeforge/steps/format.json").unwrap();
        assert_eq!(record["state"], "failed", "{record}");
    }
}

pub const FORMATTED: &str = "the system is formatted: all 3 servers joined";
pub const ALREADY: &str = "the system was formatted already: all 3 servers joined";

pub fn engine(port: u32) -> Value {
    json!({
        "uuid": null, "rank": null, "scm_mount": "/mnt/daos", "bdevs": ["/var/daos/bdev0"],
        "port": port, "is_running": false, "is_stopped": false, "delay": 0,
    })
}
