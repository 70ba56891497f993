//! `dmg` and `daos`: command lines in, answers out, as 2.6.0 gives them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::cluster::{Database, Formatted, Outcome, Reply, Request, fnv};
use crate::hostset;

/// Why a server gave no answer, in the words of gRPC and dmg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nobody listens; the host as it was asked for.
    Refused(String),
    Unreachable(String),
    /// The name has no address.
    Unresolvable(String),
    /// One side has certificates and the other none.
    Preface,
    /// The server's own words.
    Server(String),
}

impl Fault {
    pub fn text(&self) -> String {
        match self {
            Fault::Refused(host) => {
                format!("client: code = 506 description = \"the server at {host} refused the connection\"")
            }
            Fault::Unreachable(host) => format!(
                "client: code = 505 description = \"the server could not be reached at the configured address ({host})\""
            ),
            Fault::Unresolvable(host) => format!(
                "rpc error: code = Unavailable desc = connection error: desc = \"transport: error while dialing: dial tcp: lookup {host}: no such host\""
            ),
            Fault::Preface => {
                "rpc error: code = Unavailable desc = connection error: desc = \"error reading server preface: EOF\"".into()
            }
            Fault::Server(text) => text.clone(),
        }
    }
}

/// daos_control.yml, as far as it matters.
#[derive(Clone, Debug)]
pub struct Control {
    pub name: String,
    pub port: u16,
    /// Unfolded, without ports.
    pub hosts: Vec<String>,
}

/// How servers are reached.
pub trait Fabric {
    /// The control file, from `path` or where it is by default.
    ///
    /// # Errors
    ///
    /// dmg's words.
    fn control(&mut self, path: Option<&str>) -> Result<Control, String>;

    fn call(&mut self, host: &str, request: &Request) -> Result<Reply, Fault>;

    /// As the real one hangs where the management service has no leader.
    fn hang(&mut self) -> !;
}

/// What is printed, and the exit code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub stdout: String,
    pub stderr: String,
    pub code: u8,
}

impl Answer {
    pub fn print(&self) -> u8 {
        use std::io::Write;
        // A reader that has gone away is no reason to panic.
        let _ = std::io::stdout().write_all(self.stdout.as_bytes());
        let _ = std::io::stderr().write_all(self.stderr.as_bytes());
        self.code
    }
}

/// The options that matter, and the words between them.
#[derive(Clone, Debug, Default)]
struct Line {
    is_json: bool,
    is_verbose: bool,
    is_forced: bool,
    config: Option<String>,
    hosts: Option<String>,
    rank_hosts: Option<String>,
    words: Vec<String>,
}

fn read_line(arguments: &[String]) -> Line {
    let mut line = Line::default();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
            _ => (argument.as_str(), None),
        };
        let mut value = || value.clone().or_else(|| arguments.next().cloned());
        match name {
            "-j" | "--json" => line.is_json = true,
            "-v" | "--verbose" => line.is_verbose = true,
            "-f" | "--force" => line.is_forced = true,
            "-o" | "--config-path" => line.config = value(),
            "-l" | "--host-list" => line.hosts = value(),
            "--rank-hosts" => line.rank_hosts = value(),
            _ if name.starts_with('-') => {}
            _ => line.words.push(name.to_owned()),
        }
    }
    line
}

pub fn run(program: &str, arguments: &[String], fabric: &mut dyn Fabric) -> Answer {
    let line = read_line(arguments);
    let control = match fabric.control(line.config.as_deref()) {
        Ok(control) => control,
        Err(error) => return failure(program, &line, Value::Null, &error, &error),
    };
    let hosts = match &line.hosts {
        Some(hosts) => hosts.split(',').map(str::to_owned).collect(),
        None => control.hosts.clone(),
    };
    let mut session = Session { program, line, control, hosts, fabric };
    let words: Vec<String> = session.line.words.clone();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["system", "query"] => session.system_query(),
        ["system", "leader-query"] => session.leader_query(),
        ["system", "stop"] => session.system_stop(),
        ["system", "start"] => session.system_start(),
        ["system", "erase"] => session.system_erase(),
        ["network", "scan"] => session.network_scan(),
        ["storage", "scan"] => session.storage_scan(),
        ["storage", "format"] => session.storage_format(),
        ["storage", "query", "list-devices"] => session.list_devices(),
        ["storage", "query", "usage"] => session.usage(),
        ["pool", "list"] => session.pool_list(),
        ["pool", "create", label] => session.pool_create(label),
        ["container" | "cont", "query", pool, label] => session.container_query(pool, label),
        ["container" | "cont", "create", pool, label] => session.container_create(pool, label),
        ["version"] => session.success(
            json!({ "name": "DAOS Admin Tool", "version": "2.6.0" }),
            "dmg version 2.6.0\n",
        ),
        _ => {
            let error = format!("Unknown command `{}'", session.line.words.join(" "));
            session.fail(Value::Null, &error)
        }
    }
}

struct Session<'a> {
    program: &'a str,
    line: Line,
    control: Control,
    hosts: Vec<String>,
    fabric: &'a mut dyn Fabric,
}

/// What the management service answers.
enum Service {
    /// The database, and the host that leads.
    Leads(Database, String),
    Fails(String),
}

const UNINITIALIZED: &str =
    "rpc error: code = Unknown desc = system is uninitialized (storage format required?)";
const NOT_STARTED: &str = "server: code = 611 description = \"DAOS I/O Engine instance not started or not responding on dRPC\"";
const RUNNING_SYSTEM: &str =
    "client: code = 509 description = \"storage format invoked on a running system\"";
/// What dmg adds for people, by the code in its error.
const RESOLUTIONS: [(&str, &str); 3] = [
    (
        "code = 503",
        "client: code = 503 resolution = \"specify a non-empty list of DAOS server addresses in configuration ('hostlist' parameter) and retry the client application\"",
    ),
    (
        "code = 509",
        "client: code = 509 resolution = \"stop and erase the system, then retry the format operation\"",
    ),
    (
        "code = 603",
        "server: code = 603 resolution = \"retry the request with the correct system name\"",
    ),
];
const NO_IPMCTL: &str = "pbin: code = 5 description = \"parse show dimm cmd output: EOF\"";

impl Session<'_> {
    fn with_port(&self, host: &str) -> String {
        format!("{host}:{}", self.control.port)
    }

    /// Asks any server for the replicas, and those for their databases.
    fn service(&mut self) -> Service {
        if self.hosts.is_empty() {
            return Service::Fails(
                "client: code = 503 description = \"empty hostlist parameter in configuration\""
                    .into(),
            );
        }
        let mut replicas = None;
        let mut fault = None;
        for host in self.hosts.clone() {
            match self.fabric.call(&host, &Request::Replicas) {
                Ok(Reply::Replicas { hosts, system }) => {
                    replicas = Some((hosts, system));
                    break;
                }
                Ok(_) => {}
                Err(error) => fault = Some(error),
            }
        }
        let Some((replicas, system)) = replicas else {
            let fault = fault.map_or_else(String::new, |fault| fault.text());
            return Service::Fails(match fault.contains("code = 506") {
                true => format!("{fault}: unable to contact the DAOS Management Service"),
                false => fault,
            });
        };
        if system != self.control.name {
            return Service::Fails(format!(
                "server: code = 603 description = \"request system does not match running system ({} != {system})\"",
                self.control.name
            ));
        }
        self.ask_replicas(&replicas)
    }

    fn ask_replicas(&mut self, replicas: &[String]) -> Service {
        let mut databases = vec![None; replicas.len()];
        let mut first_word = None;
        let mut fault = None;
        for (at, host) in replicas.iter().enumerate() {
            match self.fabric.call(host, &Request::Replica) {
                Ok(Reply::Replica(database)) => {
                    first_word.get_or_insert(database.is_some());
                    databases[at] = database;
                }
                Ok(_) => {}
                Err(error) => fault = Some(error),
            }
        }
        if let Some(leader) = crate::cluster::leader(&databases) {
            let database = databases.swap_remove(leader).expect("a leader has a database");
            return Service::Leads(database, replicas[leader].clone());
        }
        match first_word {
            // The first that answers decides: one that awaits a format says so, one whose
            // service runs waits for a leader, and dmg with it.
            Some(false) => Service::Fails(UNINITIALIZED.into()),
            Some(true) => self.fabric.hang(),
            None => {
                let fault = fault.map_or_else(String::new, |fault| fault.text());
                Service::Fails(format!("{fault}: unable to contact the DAOS Management Service"))
            }
        }
    }

    fn system_query(&mut self) -> Answer {
        let database = match self.service() {
            Service::Leads(database, _) => database,
            Service::Fails(error) => {
                return self.fail(Value::Null, &format!("system query failed: {error}"));
            }
        };
        if let Some(hosts) = &self.line.rank_hosts {
            let is_known = database.members.iter().any(|m| m.fault_domain == format!("/{hosts}"));
            if !is_known {
                let error = format!("non-existent hosts {hosts}");
                let response = json!({ "members": null, "providers": null });
                let shown = format!("system query failed: {error}");
                return failure(self.program, &self.line, response, &error, &shown);
            }
        }
        let members: Vec<Value> = database.members.iter().map(member).collect();
        let provider = database
            .members
            .first()
            .map_or("", |member| member.fabric_uri.split("://").next().unwrap_or_default());
        let text = match self.line.is_verbose {
            true => verbose_members(&database),
            false => folded_members(&database),
        };
        self.success(json!({ "members": members, "providers": [provider] }), &text)
    }

    fn leader_query(&mut self) -> Answer {
        let (database, leader) = match self.service() {
            Service::Leads(database, leader) => (database, leader),
            Service::Fails(error) => {
                return self.fail(Value::Null, &format!("leader query failed: {error}"));
            }
        };
        let replicas = self.replicas();
        let address = |host: &String| {
            let domain = format!("/{host}");
            let member = database.members.iter().find(|member| member.fault_domain == domain);
            member.map_or_else(|| self.with_port(host), |member| member.addr.clone())
        };
        let replicas: Vec<String> = replicas.iter().map(address).collect();
        let response = json!({
            "current_leader": address(&leader), "replicas": replicas, "down_replicas": null,
        });
        self.success(response, &format!("Current Leader: {leader}\n"))
    }

    fn replicas(&mut self) -> Vec<String> {
        for host in self.hosts.clone() {
            if let Ok(Reply::Replicas { hosts, .. }) = self.fabric.call(&host, &Request::Replicas) {
                return hosts;
            }
        }
        Vec::new()
    }

    fn system_stop(&mut self) -> Answer {
        let members = match self.service() {
            Service::Leads(database, _) => database.members,
            Service::Fails(error) => {
                return self.fail(Value::Null, &format!("system stop failed: {error}"));
            }
        };
        self.tell_all(&Request::Stop);
        let result = |member: &crate::cluster::Member| {
            json!({ "state": "stopped", "Addr": member.addr, "Rank": member.rank,
                    "Action": "stop", "Errored": false, "Msg": "system stop" })
        };
        self.success(json!({ "Results": members.iter().map(result).collect::<Vec<_>>() }), "")
    }

    fn system_start(&mut self) -> Answer {
        self.tell_all(&Request::Start);
        self.success(json!({ "Results": [] }), "")
    }

    fn system_erase(&mut self) -> Answer {
        self.tell_all(&Request::Erase);
        self.success(Value::Null, "")
    }

    fn tell_all(&mut self, request: &Request) {
        for host in self.hosts.clone() {
            // A host that is down is told by nobody, as with the real one.
            let _ = self.fabric.call(&host, request);
        }
    }

    /// Asks every host; returns the replies, and the faults folded by their text.
    fn ask_all(&mut self, request: &Request) -> (Vec<(String, Reply)>, HostErrors) {
        let mut replies = Vec::new();
        let mut errors = HostErrors::default();
        for host in self.hosts.clone() {
            match self.fabric.call(&host, request) {
                Ok(reply) => replies.push((host, reply)),
                Err(fault) => errors.push(fault.text(), host),
            }
        }
        (replies, errors)
    }

    fn network_scan(&mut self) -> Answer {
        let (replies, errors) = self.ask_all(&Request::Scan);
        let mut fabrics = HostMap::default();
        for (host, reply) in replies {
            let Reply::Scan { provider } = reply else { continue };
            let fabric = json!({
                "Interfaces": [{ "Provider": provider, "Device": "eth0", "NumaNode": 0,
                                 "Priority": 0, "NetDevClass": 1 }],
                "Providers": [provider], "NumaCount": 1, "CoresPerNuma": 2,
            });
            fabrics.push(fabric, host);
        }
        let response = json!({
            "host_errors": errors.to_json(self.control.port),
            "HostFabrics": fabrics.to_json("HostFabric", "HostSet", self.control.port),
        });
        // Hosts that failed do not make it fail.
        self.success(response, "")
    }

    fn storage_scan(&mut self) -> Answer {
        let (replies, mut errors) = self.ask_all(&Request::Scan);
        let mut storage = HostMap::default();
        for (host, _) in replies {
            errors.push(NO_IPMCTL.into(), host.clone());
            let memory = json!({
                "hugepages_total": 0, "hugepages_free": 0, "hugepages_reserved": 0,
                "hugepages_surplus": 0, "hugepage_size_kb": 2048, "mem_total_kb": 24_682_416,
                "mem_free_kb": 20_321_152, "mem_available_kb": 24_005_748,
            });
            storage.push(host_storage(Value::Null, Value::Null, Value::Null, memory), host);
        }
        self.storage_answer("HostStorage", &storage, &errors, "")
    }

    fn list_devices(&mut self) -> Answer {
        let (replies, mut errors) = self.ask_all(&Request::Devices);
        let mut storage = HostMap::default();
        for (host, reply) in replies {
            let Reply::Devices(engines) = reply else { continue };
            if engines.iter().any(|is_running| !is_running) || engines.is_empty() {
                errors.push(NOT_STARTED.into(), host.clone());
            }
            if engines.contains(&true) {
                let smd = json!({ "devices": null, "pools": {} });
                storage.push(host_storage(Value::Null, Value::Null, smd, Value::Null), host);
            }
        }
        self.storage_answer("host_storage_map", &storage, &errors, "")
    }

    fn usage(&mut self) -> Answer {
        let (replies, mut errors) = self.ask_all(&Request::Scan);
        let stopped =
            "rpc error: code = Unknown desc = meta smd usage info unavailable as engines stopped";
        replies.into_iter().for_each(|(host, _)| errors.push(stopped.into(), host));
        let response =
            json!({ "host_errors": errors.to_json(self.control.port), "HostStorage": null });
        self.success(response, "")
    }

    fn storage_format(&mut self) -> Answer {
        if self.hosts.is_empty() {
            let error =
                "client: code = 503 description = \"empty hostlist parameter in configuration\"";
            return self.fail(Value::Null, error);
        }
        if self.line.hosts.is_none() && self.is_running_system() {
            return self.fail(Value::Null, RUNNING_SYSTEM);
        }
        let (replies, errors) = self.ask_all(&Request::Format);
        let mut storage = HostMap::default();
        let mut rows = Vec::new();
        for (host, reply) in replies {
            let Reply::Formatted(engines) = reply else { continue };
            let n_new = engines.iter().filter(|engine| engine.outcome == Outcome::New).count();
            rows.push((host.clone(), engines.len(), n_new));
            storage.push_alone(formatted(&engines), host);
        }
        let text = format_summary(&rows);
        self.storage_answer("HostStorage", &storage, &errors, &text)
    }

    /// Whether the management service knows members; one that is down or waits for a leader
    /// keeps nobody from formatting.
    fn is_running_system(&mut self) -> bool {
        let replicas = self.replicas();
        let mut databases = Vec::new();
        for host in replicas {
            databases.push(match self.fabric.call(&host, &Request::Replica) {
                Ok(Reply::Replica(database)) => database,
                _ => None,
            });
        }
        let leader = crate::cluster::leader(&databases);
        leader.and_then(|at| databases[at].as_ref()).is_some_and(|db| !db.members.is_empty())
    }

    fn storage_answer(
        &self,
        key: &str,
        storage: &HostMap,
        errors: &HostErrors,
        text: &str,
    ) -> Answer {
        let response = json!({
            "host_errors": errors.to_json(self.control.port),
            key: storage.to_json("storage", "hosts", self.control.port),
        });
        if errors.is_empty() {
            return self.success(response, text);
        }
        let n_hosts = errors.n_hosts();
        let error = format!("{n_hosts} host{} had errors", if n_hosts == 1 { "" } else { "s" });
        let mut answer = self.fail(response, &error);
        if !self.line.is_json {
            answer.stdout = text.to_owned();
            answer.stderr = format!("{}\n{}", errors.table(), answer.stderr);
        }
        answer
    }

    fn pool_list(&mut self) -> Answer {
        let database = match self.service() {
            Service::Leads(database, _) => database,
            Service::Fails(error) => {
                return self.fail(Value::Null, &format!("list pools failed: {error}"));
            }
        };
        let pool = |label: &String| {
            json!({ "uuid": crate::cluster::uuid(label), "label": label, "svc_reps": [0],
                    "state": "Ready" })
        };
        let pools: Vec<Value> = database.pools.iter().map(pool).collect();
        let pools = if pools.is_empty() { Value::Null } else { Value::Array(pools) };
        self.success(json!({ "status": 0, "pools": pools }), "")
    }

    fn pool_create(&mut self, label: &str) -> Answer {
        let (database, leader) = match self.service() {
            Service::Leads(database, leader) => (database, leader),
            Service::Fails(error) => {
                return self.fail(Value::Null, &format!("pool create failed: {error}"));
            }
        };
        if database.pools.iter().any(|known| known == label) {
            let error = "pool create failed: DER_EXIST(-1004): Entity already exists";
            return self.fail(Value::Null, error);
        }
        if let Err(fault) = self.fabric.call(&leader, &Request::CreatePool(label.into())) {
            return self.fail(Value::Null, &format!("pool create failed: {}", fault.text()));
        }
        let ranks: Vec<u32> = database.members.iter().map(|member| member.rank).collect();
        let response = json!({
            "uuid": crate::cluster::uuid(label), "svc_ldr": 0, "svc_reps": [0],
            "tgt_ranks": ranks, "tier_bytes": [1_000_000_000, 16_000_000_000_u64],
        });
        self.success(response, "Pool created\n")
    }

    fn container_query(&mut self, pool: &str, label: &str) -> Answer {
        match self.service() {
            Service::Leads(database, _) => {
                let name = format!("{pool}/{label}");
                if database.containers.contains(&name) {
                    let response = json!({ "container_label": label, "container_type": "POSIX" });
                    return self.success(response, "");
                }
                let mut answer = self.fail(
                    Value::Null,
                    "failed to open container: DER_NONEXIST(-1005): The specified entity does not exist",
                );
                answer.stdout = answer.stdout.replace("-1025", "-1005");
                answer
            }
            Service::Fails(error) => self.fail(Value::Null, &error),
        }
    }

    fn container_create(&mut self, pool: &str, label: &str) -> Answer {
        match self.service() {
            Service::Leads(_, leader) => {
                let name = format!("{pool}/{label}");
                match self.fabric.call(&leader, &Request::CreateContainer(name)) {
                    Ok(_) => self.success(json!({ "container_label": label }), ""),
                    Err(fault) => self.fail(Value::Null, &fault.text()),
                }
            }
            Service::Fails(error) => self.fail(Value::Null, &error),
        }
    }

    fn success(&self, response: Value, text: &str) -> Answer {
        let stdout = match self.line.is_json {
            true => envelope(response, Value::Null, 0),
            false => text.to_owned(),
        };
        Answer { stdout, stderr: String::new(), code: 0 }
    }

    fn fail(&self, response: Value, error: &str) -> Answer {
        failure(self.program, &self.line, response, error, error)
    }
}

fn failure(program: &str, line: &Line, response: Value, error: &str, shown: &str) -> Answer {
    let stdout = match line.is_json {
        true => envelope(response, Value::from(error), -1025),
        false => String::new(),
    };
    let mut stderr = format!("ERROR: {program}: {shown}\n");
    let resolution = RESOLUTIONS.iter().find(|(code, _)| shown.contains(code));
    if let Some((_, resolution)) = resolution {
        stderr.push_str(&format!("ERROR: {program}: {resolution}\n"));
    }
    Answer { stdout, stderr, code: 1 }
}

fn envelope(response: Value, error: Value, status: i32) -> String {
    let value = json!({ "response": response, "error": error, "status": status });
    format!("{value:#}\n")
}

fn member(member: &crate::cluster::Member) -> Value {
    json!({
        "addr": member.addr, "state": member.state, "fault_domain": member.fault_domain,
        "rank": member.rank, "incarnation": member.incarnation, "uuid": member.uuid,
        "fabric_uri": member.fabric_uri, "secondary_fabric_uris": null, "fabric_contexts": 2,
        "secondary_fabric_contexts": null, "info": member.info,
        "last_update": "2026-11-22T08:10:01.169367163Z",
    })
}

fn capitalised(word: &str) -> String {
    word[..1].to_uppercase() + &word[1..]
}

fn folded_members(database: &Database) -> String {
    let mut by_state: BTreeMap<&str, Vec<(u64, String)>> = BTreeMap::new();
    for member in &database.members {
        let rank = (u64::from(member.rank), member.rank.to_string());
        by_state.entry(&member.state).or_default().push(rank);
    }
    let mut rows = vec![vec!["Rank".to_owned(), "State".to_owned()]];
    for (state, ranks) in by_state {
        let ranks: Vec<(u64, &str)> = ranks.iter().map(|(n, text)| (*n, text.as_str())).collect();
        let shown = hostset::ranges(&ranks);
        let shown = if ranks.len() == 1 { shown } else { format!("[{shown}]") };
        rows.push(vec![shown, capitalised(state)]);
    }
    table(&rows) + "\n"
}

fn verbose_members(database: &Database) -> String {
    let titles = ["Rank", "UUID", "Control Address", "Fault Domain", "State", "Reason"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    for member in &database.members {
        rows.push(vec![
            member.rank.to_string(),
            member.uuid.clone(),
            member.addr.clone(),
            member.fault_domain.clone(),
            capitalised(&member.state),
            member.info.clone(),
        ]);
    }
    table(&rows) + "\n"
}

fn format_summary(rows: &[(String, usize, usize)]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut lines = vec![["Hosts", "SCM Devices", "NVMe Devices"].map(str::to_owned).to_vec()];
    for (host, n_scm, n_nvme) in rows {
        lines.push(vec![host.clone(), n_scm.to_string(), n_nvme.to_string()]);
    }
    let lines = table(&lines);
    let indented: Vec<String> = lines.lines().map(|line| format!("  {line}\n")).collect();
    format!("Format Summary:\n{}", indented.concat())
}

/// Columns as wide as their widest cell, a space after each, a rule below the titles.
fn table(rows: &[Vec<String>]) -> String {
    let n_columns = rows[0].len();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..n_columns).map(width).collect();
    let mut text = String::new();
    for (at, row) in rows.iter().enumerate() {
        let line = |cells: &[String]| -> String {
            let cells = cells.iter().zip(&widths);
            cells.map(|(cell, width)| format!("{cell:width$} ")).collect()
        };
        text.push_str(&line(row));
        text.push('\n');
        if at == 0 {
            let rule: Vec<String> = row.iter().map(|title| "-".repeat(title.len())).collect();
            text.push_str(&line(&rule));
            text.push('\n');
        }
    }
    text
}

/// One engine's or several engines' devices after a format.
fn formatted(engines: &[Formatted]) -> Value {
    let mut mounts = Vec::new();
    let mut devices = Vec::new();
    for engine in engines {
        let info = match engine.outcome {
            Outcome::New | Outcome::Again => "CTL_SUCCESS",
            Outcome::Running => "SCM is already formatted",
        };
        mounts.push(json!({
            "class": "", "device_list": null, "info": info,
            "path": format!("{}/daos", engine.scm_mount), "rank": 0,
            "total_bytes": 0, "avail_bytes": 0, "usable_bytes": 0,
        }));
        if engine.outcome == Outcome::New {
            devices.extend(engine.bdevs.iter().map(|bdev| formatted_device(bdev)));
        }
    }
    let devices = if devices.is_empty() { Value::Null } else { Value::Array(devices) };
    host_storage(devices, Value::Array(mounts), Value::Null, Value::Null)
}

fn formatted_device(bdev: &str) -> Value {
    let controller = |info: &str, address: &str, smd: Value| {
        json!({
            "info": info, "model": "", "serial": "", "pci_addr": address, "fw_rev": "",
            "vendor_id": "", "pci_type": "", "socket_id": 0, "health_stats": null,
            "namespaces": null, "smd_devices": smd, "dev_state": "UNKNOWN", "led_state": "NA",
        })
    };
    let smd = json!([{
        "role_bits": 7, "uuid": "", "tgt_ids": null, "rank": 0, "total_bytes": 0,
        "avail_bytes": 0, "usable_bytes": 0, "cluster_size": 0, "meta_size": 0,
        "meta_wal_size": 0, "rdb_size": 0, "rdb_wal_size": 0, "roles": "data,meta,wal",
        "has_sys_xs": false, "ctrlr": controller("", "", Value::Null), "ctrlr_namespace_id": 0,
    }]);
    controller("CTL_SUCCESS", bdev, smd)
}

fn host_storage(nvme: Value, mounts: Value, smd: Value, memory: Value) -> Value {
    json!({
        "nvme_devices": nvme, "scm_modules": null, "scm_namespaces": null,
        "scm_mount_points": mounts, "smd_info": smd, "reboot_required": false,
        "mem_info": memory,
    })
}

/// Hosts by the text of their error.
#[derive(Clone, Debug, Default)]
struct HostErrors(BTreeMap<String, Vec<String>>);

impl HostErrors {
    fn push(&mut self, text: String, host: String) {
        self.0.entry(text).or_default().push(host);
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn n_hosts(&self) -> usize {
        let mut hosts: Vec<&String> = self.0.values().flatten().collect();
        hosts.sort();
        hosts.dedup();
        hosts.len()
    }

    fn to_json(&self, port: u16) -> Value {
        let hosts = |hosts: &Vec<String>| Value::from(hostset::fold(hosts, port));
        Value::Object(self.0.iter().map(|(text, of)| (text.clone(), hosts(of))).collect())
    }

    /// For people: `description` without its code.
    fn table(&self) -> String {
        let mut rows = vec![vec!["Hosts".to_owned(), "Error".to_owned()]];
        for (text, hosts) in &self.0 {
            let plain = text.split_once("description = \"").map_or(text.as_str(), |(_, rest)| rest);
            let is_client = text.starts_with("client:");
            let plain = if is_client { plain.trim_end_matches('"') } else { text };
            rows.push(vec![hostset::fold_names(hosts), plain.to_owned()]);
        }
        let lines: Vec<String> = table(&rows).lines().map(|line| format!("  {line}\n")).collect();
        format!("ERROR: Errors:\n{}", lines.concat())
    }
}

/// Hosts by what they all have, under a number that is its hash.
#[derive(Clone, Debug, Default)]
struct HostMap(Vec<(Value, Vec<String>)>);

impl HostMap {
    fn push(&mut self, value: Value, host: String) {
        match self.0.iter_mut().find(|(known, _)| *known == value) {
            Some((_, hosts)) => hosts.push(host),
            None => self.0.push((value, vec![host])),
        }
    }

    /// Where the real hash covers more than what is shown.
    fn push_alone(&mut self, value: Value, host: String) {
        self.0.push((value, vec![host]));
    }

    fn to_json(&self, value_key: &str, hosts_key: &str, port: u16) -> Value {
        if self.0.is_empty() {
            return Value::Null;
        }
        let mut map = Map::new();
        for (value, hosts) in &self.0 {
            let key = fnv(&format!("{value}{}", hosts.join(","))).to_string();
            let entry = json!({ value_key: value, hosts_key: hostset::fold(hosts, port) });
            map.insert(key, entry);
        }
        Value::Object(map)
    }
}
