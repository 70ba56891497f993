//! A cluster in a file: for tests that need no machines.
//!
//! `DAOS_FAKE_WORLD` names a folder with `world.json`. Each call of dmg is one tick of a
//! world that only moves when it is asked: events come due by the number of the `system
//! query`, engines that are due join, then the call is answered and the world written back.
//! `calls.log` gets a line of JSON for each call, with how things truly were.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cluster::{self, Database, Reply, Request, Server};
use crate::dmg::{self, Answer, Control, Fabric, Fault};

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct World {
    pub servers: Vec<Place>,
    pub system: String,
    pub port: u16,
    /// daos_control.yml's; empty is what the file says then.
    pub hostlist: Vec<String>,
    /// How many `system query` there were.
    pub queries: u64,
    pub counts: BTreeMap<String, u64>,
    pub events: Vec<Event>,
    pub overrides: Vec<Override>,
    /// Queries that a freshly formatted engine takes to join.
    pub join_delay: u32,
    /// What formatting fails with, by host.
    pub format_errors: BTreeMap<String, String>,
    /// What every call to these hosts fails with.
    pub host_errors: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Place {
    #[serde(flatten)]
    pub server: Server,
    pub is_up: bool,
}

/// Something that happens before the `at`-th `system query` is answered, counted from 1.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Event {
    pub at: u64,
    /// `down node1`, `up node1`, `boot node1 3`, `wipe node1`, `stop node1`, `start node1`,
    /// `lose-raft node0`, `format`.
    pub action: String,
}

/// A call that goes its own way.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Override {
    /// The words of the command: `system query`.
    pub on: String,
    /// Of the calls of that command, the first and the last, counted from 1.
    pub from: u64,
    pub to: u64,
    pub hang: bool,
    pub stdout: Option<String>,
    pub stderr: Option<String>,
    pub code: Option<u8>,
    /// The command takes effect when this file is there.
    pub wait_for: Option<String>,
    /// SIGKILL for the program that called, `before` or `after` the command took effect.
    pub kill_caller: Option<String>,
}

/// Answers one call of `program`; returns its exit code.
pub fn answer(folder: &Path, program: &str, arguments: &[String]) -> u8 {
    let path = folder.join("world.json");
    let text = fs::read_to_string(&path).expect("the world can be read");
    let mut world: World = serde_json::from_str(&text).expect("the world is one");
    let command = words(arguments);
    let count = world.counts.entry(command.clone()).or_insert(0);
    *count += 1;
    let count = *count;
    if command == "system query" {
        world.tick();
    }
    world.settle();
    let special =
        world.overrides.iter().find(|o| o.on == command && (o.from..=o.to).contains(&count));
    let special = special.cloned();
    let call = json!({
        "program": program, "arguments": arguments, "command": command, "query": world.queries,
        "truth": world.truth(), "is_special": special.is_some(),
    });
    log(folder, &call);
    let special = special.unwrap_or_default();
    if special.kill_caller.as_deref() == Some("before") {
        save(&path, &world);
        kill_caller();
        return 1;
    }
    while special.wait_for.as_ref().is_some_and(|file| !Path::new(file).exists()) {
        std::thread::sleep(Duration::from_millis(10));
    }
    // What hangs is killed, and time has passed all the same.
    save(&path, &world);
    let answer = if special.hang { world.hang() } else { dmg::run(program, arguments, &mut world) };
    save(&path, &world);
    if special.kill_caller.is_some() {
        kill_caller();
    }
    Answer {
        stdout: special.stdout.unwrap_or(answer.stdout),
        stderr: special.stderr.unwrap_or(answer.stderr),
        code: special.code.unwrap_or(answer.code),
    }
    .print()
}

/// The words of a command line that are no options.
fn words(arguments: &[String]) -> String {
    let mut words = Vec::new();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "-o" | "-l" => drop(arguments.next()),
            option if option.starts_with('-') => {}
            word => words.push(word),
        }
    }
    let n_words =
        if words.first() == Some(&"storage") && words.get(1) == Some(&"query") { 3 } else { 2 };
    words.truncate(n_words);
    words.join(" ")
}

fn save(path: &Path, world: &World) {
    let text = serde_json::to_string_pretty(world).expect("a world becomes JSON");
    let new = path.with_extension("new");
    fs::write(&new, text).expect("the world can be written");
    fs::rename(&new, path).expect("the world can be replaced");
}

fn log(folder: &Path, call: &Value) {
    let file = OpenOptions::new().create(true).append(true).open(folder.join("calls.log"));
    let mut file = file.expect("the calls can be logged");
    // In one piece: somebody may be reading.
    file.write_all(format!("{call}\n").as_bytes()).expect("the calls can be logged");
}

fn kill_caller() {
    let caller = std::os::unix::process::parent_id().to_string();
    let status = Command::new("kill").args(["-KILL", &caller]).status();
    assert!(status.is_ok_and(|status| status.success()), "the caller cannot be killed");
}

impl World {
    /// One `system query` later.
    fn tick(&mut self) {
        self.queries += 1;
        for place in self.servers.iter_mut().filter(|place| place.is_up) {
            for engine in &mut place.server.engines {
                engine.delay = engine.delay.saturating_sub(1);
            }
        }
        let queries = self.queries;
        let due: Vec<Event> =
            self.events.iter().filter(|event| event.at == queries).cloned().collect();
        due.iter().for_each(|event| self.happen(&event.action));
    }

    pub fn happen(&mut self, action: &str) {
        let mut words = action.split(' ');
        let what = words.next().unwrap_or_default();
        let name = words.next().unwrap_or_default();
        let number = words.next().and_then(|number| number.parse().ok()).unwrap_or(0);
        if what == "format" {
            let up = self.servers.iter_mut().filter(|place| place.is_up);
            up.for_each(|place| drop(place.server.answer(&Request::Format)));
            return;
        }
        let place = self.servers.iter_mut().find(|place| place.server.name == name);
        let place = place.unwrap_or_else(|| panic!("`{action}`: there is no such server"));
        match what {
            "down" => place.is_up = false,
            "up" | "boot" => place.is_up = true,
            "wipe" => drop(place.server.answer(&Request::Erase)),
            "stop" => place.server.engines.iter_mut().for_each(|engine| engine.is_stopped = true),
            "start" => place.server.engines.iter_mut().for_each(|engine| engine.is_stopped = false),
            "lose-raft" => place.server.database = None,
            _ => panic!("`{action}` is no event"),
        }
        for engine in &mut place.server.engines {
            if matches!(what, "down" | "boot" | "stop") {
                engine.is_running = false;
            }
            if what == "boot" {
                engine.delay = number;
            }
        }
    }

    /// Replicas catch up, and engines that can join do.
    pub fn settle(&mut self) {
        loop {
            let Some((leader, database)) = self.leader() else { return };
            for place in self.servers.iter_mut().filter(|place| place.is_up) {
                if place.server.has_service() {
                    place.server.database = Some(database.clone());
                }
            }
            let joining = self.servers.iter().enumerate().filter(|(_, place)| place.is_up);
            let next = joining.flat_map(|(at, place)| {
                place.server.joining().into_iter().map(move |(index, member)| (at, index, member))
            });
            let Some((at, index, member)) = next.collect::<Vec<_>>().into_iter().next() else {
                return;
            };
            let Reply::Joined { rank } = self.servers[leader].server.answer(&Request::Join(member))
            else {
                return;
            };
            let engine = &mut self.servers[at].server.engines[index];
            (engine.rank, engine.is_running) = (Some(rank), true);
        }
    }

    fn leader(&self) -> Option<(usize, Database)> {
        let replicas: Vec<(usize, &Place)> = self
            .servers
            .iter()
            .enumerate()
            .filter(|(_, place)| place.server.is_replica())
            .collect();
        let databases: Vec<Option<Database>> = replicas
            .iter()
            .map(|(_, place)| {
                let is_there = place.is_up && place.server.has_service();
                place.server.database.clone().filter(|_| is_there)
            })
            .collect();
        let at = cluster::leader(&databases)?;
        Some((replicas[at].0, databases[at].clone()?))
    }

    /// How things are: for whoever judges what was done.
    pub fn truth(&self) -> Value {
        let state = |place: &Place| {
            let engines = &place.server.engines;
            if !place.is_up {
                "down"
            } else if engines.iter().all(|engine| engine.uuid.is_none()) {
                "awaits"
            } else if engines.iter().all(|engine| engine.is_running) {
                "runs"
            } else {
                "formatted"
            }
        };
        let hosts: BTreeMap<&str, &str> =
            self.servers.iter().map(|place| (place.server.name.as_str(), state(place))).collect();
        json!({ "hosts": hosts, "has_leader": self.leader().is_some() })
    }
}

impl Fabric for World {
    fn control(&mut self, _path: Option<&str>) -> Result<Control, String> {
        let names = self.servers.iter().map(|place| place.server.name.clone());
        let hosts = if self.hostlist.is_empty() { names.collect() } else { self.hostlist.clone() };
        let hosts = hosts.into_iter().filter(|host| host != "none").collect();
        Ok(Control { name: self.system.clone(), port: self.port, hosts })
    }

    fn call(&mut self, host: &str, request: &Request) -> Result<Reply, Fault> {
        if let Some(error) = self.host_errors.get(host) {
            return Err(Fault::Server(error.clone()));
        }
        let shown = format!("{host}:{}", self.port);
        let is_it = |place: &&mut Place| place.server.name == host || place.server.address == host;
        let Some(place) = self.servers.iter_mut().find(is_it) else {
            return Err(match host.parse::<std::net::Ipv4Addr>() {
                Ok(_) => Fault::Unreachable(shown),
                Err(_) => Fault::Unresolvable(host.to_owned()),
            });
        };
        if !place.is_up {
            // The management service is asked for by address.
            let is_service = matches!(request, Request::Replica);
            let address = format!("{}:{}", place.server.address, self.port);
            return Err(Fault::Refused(if is_service { address } else { shown }));
        }
        if matches!(request, Request::Format)
            && let Some(error) = self.format_errors.get(host)
        {
            return Err(Fault::Server(error.clone()));
        }
        let reply = place.server.answer(request);
        if let Reply::Formatted(engines) = &reply {
            for (engine, formatted) in place.server.engines.iter_mut().zip(engines) {
                if formatted.outcome == cluster::Outcome::New {
                    engine.delay = self.join_delay;
                }
            }
        }
        Ok(reply)
    }

    fn hang(&mut self) -> ! {
        loop {
            std::thread::sleep(Duration::from_secs(3600));
        }
    }
}
