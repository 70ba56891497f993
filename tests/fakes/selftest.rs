//! The stand-ins against what the real programs answered: tests/fixtures/dmg.
//!
//! For each recorded answer the cluster is brought into the state it was recorded in, the
//! same command is given, and exit code, standard output and standard error have to be the
//! same, but for what differs from run to run: UUIDs, times, the order of joining, hashes.

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

use serde_json::Value;

use crate::cluster::{Engine, Reply, Request, Server};
use crate::dmg::{self, Answer, Control, Fabric, Fault};
use crate::world::{Place, World};

/// A recorded answer, the access points, and what happened before.
struct Recorded {
    file: &'static str,
    replicas: &'static [&'static str],
    story: &'static [&'static str],
}

const ONE: &[&str] = &["node0"];
const THREE: &[&str] = &["node0", "node1", "node2"];

const fn row(file: &'static str, story: &'static [&'static str]) -> Recorded {
    Recorded { file, replicas: ONE, story }
}

const fn row3(file: &'static str, story: &'static [&'static str]) -> Recorded {
    Recorded { file, replicas: THREE, story }
}

const WIPED: &[&str] = &["format", "wipe node2"];
const MS_LATE: &[&str] = &["down node0", "format", "up node0"];
const MS_DOWN_RUNNING: &[&str] = &["format", "down node0"];
const SEED: &[&str] = &["down node1", "down node2", "format", "up node1", "up node2"];
const AP_LATE: &[&str] = &["down node2", "format", "up node2"];

const RECORDED: &[Recorded] = &[
    row("02-one-up-two-down-format-json", &["down node1", "down node2"]),
    row("03-network-scan", &["down node1", "down node2"]),
    row("04-all-await-query", &[]),
    row("05-all-await-query-json", &[]),
    row("07-all-await-scan-json", &[]),
    row("09-all-await-listdevices-json", &[]),
    row("10-all-await-usage-json", &[]),
    row("11-node2-down-format-json", &[]),
    row("12-after-partial-format-query-json", &["down node1", "format"]),
    row("13-after-partial-format-query", &["format"]),
    row("14-format-again-json", &["format"]),
    row("15-format-again", &["format"]),
    row("16-format-again-force", &["format"]),
    row("20-node1-down-query-json", &["format", "down node1"]),
    row("20b-node1-down-network-scan", &["format", "down node1"]),
    row("21-node1-back-query", &["format", "down node1", "up node1"]),
    row("22-node2-wiped-query", WIPED),
    row("23-node2-wiped-listdev", WIPED),
    row("24-node2-wiped-format-all", WIPED),
    row("25-node2-wiped-format-l", WIPED),
    row("26-node2-after", &["format", "wipe node2", "format"]),
    row("30-unreachable-netscan", &["hosts node0,node1,node2,10.77.0.99"]),
    row("32-wrong-system-name", &["format", "name other"]),
    row("33-nothing-up-query", &["down node0", "down node1", "down node2"]),
    row("34-nothing-up-format", &["down node0", "down node1", "down node2"]),
    row("35-ms-down-query", &["down node0"]),
    row("36-ms-down-format", &["down node0"]),
    row("37-ms-down-after-format-query", &["down node0", "format"]),
    row("38-ms-late-query", MS_LATE),
    row("39-ms-late-format", MS_LATE),
    row("40-ms-late-after", &["down node0", "format", "up node0", "format"]),
    row("50-running-ms-down-format", MS_DOWN_RUNNING),
    row("51-running-ms-down-format-text", MS_DOWN_RUNNING),
    row("52-ms-back", &["format", "down node0", "up node0"]),
    row("62-system-stop", &["format"]),
    row("63-stopped-query", &["format", "dmg system stop"]),
    row("64-format-when-stopped", &["format", "dmg system stop"]),
    row("65-system-erase", &["format", "dmg system stop"]),
    row("66-after-erase-query", &["format", "dmg system erase"]),
    row("67-format-after-erase", &["format", "dmg system erase"]),
    row("70-hostlist-empty-format", &["hosts none"]),
    row("71-seed-hostlist-node0-format", &["hosts node0"]),
    row("72-seed-hostlist-node0-after", SEED),
    row("73-then-format-all", SEED),
    row("74-then-format-l-rest", SEED),
    row("75-after", &["down node1", "down node2", "format", "up node1", "up node2", "format"]),
    row("77-ranks-hosts", &["format"]),
    row("78-leader", &["format"]),
    row3("80-3ap-one-down-query", &["down node2"]),
    row3("81-3ap-one-down-format", &["down node2"]),
    row3("82-3ap-one-down-after", &["down node2", "format"]),
    row3("83-3ap-late-listdev", AP_LATE),
    row3("84-3ap-late-format", AP_LATE),
    row3("85-3ap-late-format-l", AP_LATE),
    row3("86-3ap-late-after", &["down node2", "format", "up node2", "format"]),
    row3("87-3ap-leader", &["format"]),
    row3("88-3ap-bootstrap-down-query", &["down node0"]),
    row3("89-3ap-bootstrap-down-format", &["down node0"]),
    row3("90-3ap-bootstrap-down-after", &["down node0", "format"]),
    row3("91-3ap-bootstrap-late-query", MS_LATE),
    row3("92-3ap-bootstrap-late-format", MS_LATE),
    row3("93-3ap-bootstrap-late-after", &["down node0", "format", "up node0", "format"]),
    row3("94-leader", &["format"]),
    row("c0-secure-server-insecure-dmg", &["secure"]),
    row("d0-MSdown-engines-stopped-format", &["format", "stop node1", "stop node2", "down node0"]),
];

/// Compares all of them; returns the exit code.
pub fn run() -> u8 {
    let quiet: Box<dyn Fn(&panic::PanicHookInfo<'_>) + Send + Sync> = Box::new(|_| {});
    let loud = panic::take_hook();
    panic::set_hook(quiet);
    let faults: Vec<String> =
        RECORDED.iter().filter_map(|recorded| compare(recorded).err()).collect();
    panic::set_hook(loud);
    faults.iter().for_each(|fault| println!("{fault}\n"));
    println!("{} of {} recorded answers are met", RECORDED.len() - faults.len(), RECORDED.len());
    u8::from(!faults.is_empty())
}

fn compare(recorded: &Recorded) -> Result<(), String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("tests/fixtures/dmg/{}.txt", recorded.file));
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let (command, code, real) = read(&text).ok_or(format!("{}: no transcript", recorded.file))?;
    let mut still = Still(world(recorded));
    let given = answer_of(&command, &mut still);
    let shown = |answer: &Answer| {
        format!("exit {}\n{}{}", answer.code, plain(&answer.stdout), plain(&answer.stderr))
    };
    let real = Answer { code, ..real };
    match shown(&given) == shown(&real) {
        true => Ok(()),
        false => Err(format!(
            "{}: {command:?}\n--- recorded\n{}\n--- given\n{}",
            recorded.file,
            shown(&real),
            shown(&given)
        )),
    }
}

/// The command, the exit code and the answer of a transcript.
fn read(text: &str) -> Option<(Vec<String>, u8, Answer)> {
    let (command, rest) = text.split_once("\n--- rc=")?;
    let (code, rest) = rest.split_once("  seconds=")?;
    let (_, rest) = rest.split_once("--- stdout\n")?;
    let (stdout, stderr) = rest.split_once("--- stderr")?;
    let (_, words) = command.split_once("dmg ")?;
    let command = words.split(' ').map(str::to_owned).collect();
    let stderr = stderr.strip_prefix('\n').unwrap_or(stderr);
    let answer = Answer { stdout: stdout.to_owned(), stderr: stderr.to_owned(), code: 0 };
    Some((command, code.parse().ok()?, answer))
}

/// What hung was ended by timeout(1), with 124.
fn answer_of(command: &[String], still: &mut Still) -> Answer {
    panic::catch_unwind(AssertUnwindSafe(|| dmg::run("dmg", command, still)))
        .unwrap_or(Answer { code: 124, ..Answer::default() })
}

fn world(recorded: &Recorded) -> World {
    let server = |at: usize| Server {
        name: format!("node{at}"),
        address: format!("10.77.0.1{at}"),
        port: 10001,
        system: "daos_server".into(),
        access_points: recorded.replicas.iter().map(|&name| name.into()).collect(),
        provider: "ofi+tcp".into(),
        engines: vec![Engine {
            scm_mount: "/mnt/daos".into(),
            bdevs: vec!["/var/daos/bdev0".into()],
            port: 31416,
            ..Engine::default()
        }],
        ..Server::default()
    };
    let mut world = World {
        servers: (0..3).map(|at| Place { server: server(at), is_up: true }).collect(),
        system: "daos_server".into(),
        port: 10001,
        ..World::default()
    };
    for action in recorded.story {
        match action.split_once(' ') {
            Some(("dmg", command)) => {
                let command: Vec<String> = command.split(' ').map(str::to_owned).collect();
                dmg::run("dmg", &command, &mut world);
            }
            Some(("hosts", hosts)) => {
                world.hostlist = hosts.split(',').map(str::to_owned).collect()
            }
            Some(("name", name)) => world.system = name.to_owned(),
            _ if *action == "secure" => {
                for host in ["node0", "node1", "node2"] {
                    world.host_errors.insert(host.into(), Fault::Preface.text());
                }
            }
            _ => world.happen(action),
        }
        world.settle();
    }
    world
}

/// A world in which what hangs is an error that can be caught.
struct Still(World);

impl Fabric for Still {
    fn control(&mut self, path: Option<&str>) -> Result<Control, String> {
        self.0.control(path)
    }

    fn call(&mut self, host: &str, request: &Request) -> Result<Reply, Fault> {
        self.0.call(host, request)
    }

    fn hang(&mut self) -> ! {
        panic!("it hangs");
    }
}

/// Without what differs from run to run.
fn plain(text: &str) -> String {
    match serde_json::from_str::<Value>(text) {
        Ok(mut value) => {
            plain_json("", &mut value);
            format!("{value:#}\n")
        }
        Err(_) => plain_text(text),
    }
}

/// Ranks are given in the order of joining: rows of members are sorted, without their rank.
fn plain_text(text: &str) -> String {
    let is_uuid = |word: &&str| word.len() == 36 && word.matches('-').count() == 4;
    let mut members = Vec::new();
    let mut lines = Vec::new();
    for line in text.lines() {
        match line.split_whitespace().nth(1).filter(is_uuid) {
            Some(uuid) => {
                members.push(
                    line.replace(uuid, "UUID").trim_start_matches(char::is_numeric).to_owned(),
                );
            }
            None => lines.push(line.to_owned()),
        }
    }
    members.sort();
    lines.extend(members);
    lines.concat() + "\n"
}

fn plain_json(key: &str, value: &mut Value) {
    match value {
        Value::Object(table)
            if matches!(key, "HostStorage" | "HostFabrics" | "host_storage_map") =>
        {
            let mut entries: Vec<Value> = table.values().cloned().collect();
            entries.iter_mut().for_each(|entry| plain_json("", entry));
            entries.sort_by_key(Value::to_string);
            *value = Value::Array(entries);
        }
        Value::Object(table) => table.iter_mut().for_each(|(key, value)| plain_json(key, value)),
        Value::Array(items) => {
            items.iter_mut().for_each(|item| plain_json("", item));
            if matches!(key, "members" | "Results") {
                items.sort_by_key(Value::to_string);
            }
        }
        _ if matches!(key, "uuid" | "incarnation" | "last_update" | "rank" | "Rank") => {
            *value = Value::Null
        }
        _ if key.ends_with("_kb") => *value = Value::Null,
        _ => {}
    }
}
