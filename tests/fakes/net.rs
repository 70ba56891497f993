//! Servers that are processes: over TCP, with their state on disk as the real ones keep it.
//!
//! What others look for is where it would be: `engineN/superblock` and `control_raft` below
//! `control_metadata/daos_control`, `SPDKBLOB` at the start of what was formatted, the line
//! `SCM format required on instance 0` in the log, a process `daos_engine` per engine. One
//! line of JSON asks, one answers.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use nodeforge::range;
use serde::{Deserialize, Serialize};

use crate::cluster::{self, Database, Engine, Reply, Request, Server};
use crate::dmg::{Control, Fabric, Fault};

const PATIENCE: Duration = Duration::from_secs(5);
/// How often a server looks whether it has to join or to catch up.
const ROUND: Duration = Duration::from_millis(300);
const MAGIC: &[u8] = b"SPDKBLOB";

#[derive(Serialize, Deserialize)]
struct Envelope {
    is_secure: bool,
    request: Request,
}

/// The side that asks: dmg, daos, and servers among each other.
#[derive(Debug)]
pub struct Tcp {
    port: u16,
    is_secure: bool,
}

impl Default for Tcp {
    fn default() -> Self {
        Self { port: 10001, is_secure: false }
    }
}

#[derive(Deserialize)]
struct ControlYaml {
    #[serde(default = "default_name")]
    name: String,
    #[serde(default = "default_port")]
    port: u16,
    #[serde(default)]
    hostlist: Vec<String>,
    /// daos_agent.yml has these instead.
    #[serde(default)]
    access_points: Vec<String>,
    #[serde(default)]
    transport_config: Transport,
}

#[derive(Default, Deserialize)]
struct Transport {
    #[serde(default)]
    allow_insecure: bool,
}

fn default_name() -> String {
    "daos_server".into()
}

fn default_port() -> u16 {
    10001
}

impl Fabric for Tcp {
    fn control(&mut self, path: Option<&str>) -> Result<Control, String> {
        let candidates = ["/etc/daos/daos_control.yml", "/etc/daos/daos_agent.yml"];
        let exists = |path: &&str| Path::new(path).exists();
        let path = path.or_else(|| candidates.into_iter().find(exists));
        let path = path.ok_or("no configuration file found")?;
        let text = fs::read_to_string(path).map_err(|error| format!("reading {path}: {error}"))?;
        let yaml: ControlYaml =
            serde_saphyr::from_str(&text).map_err(|error| format!("parsing {path}: {error}"))?;
        self.port = yaml.port;
        self.is_secure = !yaml.transport_config.allow_insecure;
        let listed = if yaml.hostlist.is_empty() { yaml.access_points } else { yaml.hostlist };
        Ok(Control { name: yaml.name, port: yaml.port, hosts: unfold(&listed) })
    }

    fn call(&mut self, host: &str, request: &Request) -> Result<Reply, Fault> {
        let shown = format!("{host}:{}", self.port);
        let addresses = (host, self.port).to_socket_addrs();
        let address = addresses.ok().and_then(|mut found| found.next());
        let address = address.ok_or_else(|| Fault::Unresolvable(host.to_owned()))?;
        let stream =
            TcpStream::connect_timeout(&address, PATIENCE).map_err(|error| match error.kind() {
                ErrorKind::ConnectionRefused => Fault::Refused(shown.clone()),
                _ => Fault::Unreachable(shown.clone()),
            })?;
        exchange(stream, &Envelope { is_secure: self.is_secure, request: request.clone() })
            .map_err(|_| Fault::Preface)
    }

    fn hang(&mut self) -> ! {
        loop {
            thread::sleep(Duration::from_secs(3600));
        }
    }
}

fn unfold(hosts: &[String]) -> Vec<String> {
    let without_port = |host: &String| host.split(':').next().unwrap_or_default().to_owned();
    let hosts = hosts.iter().map(without_port);
    let expanded = hosts.flat_map(|host| match range::expand(&host) {
        Ok(names) => names.iter().map(ToString::to_string).collect(),
        Err(_) => vec![host],
    });
    expanded.collect()
}

fn exchange(mut stream: TcpStream, envelope: &Envelope) -> io::Result<Reply> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{}\n", serde_json::to_string(envelope)?).as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

/// `daos_server start`.
pub fn daos_server(called: &str, arguments: &[String]) -> u8 {
    if arguments.first().map(String::as_str) == Some("version") {
        println!("DAOS Control Server v2.6.0");
        return 0;
    }
    let config = arguments.windows(2).find(|pair| pair[0] == "-o" || pair[0] == "--config");
    let config = config.map_or("/etc/daos/daos_server.yml", |pair| pair[1].as_str());
    match Process::start(called, Path::new(config)) {
        Ok(process) => process.serve(),
        Err(error) => {
            eprintln!("ERROR: {error}");
            1
        }
    }
}

/// `daos_engine`: is there, and ends with its server.
pub fn daos_engine() -> u8 {
    let parent = std::os::unix::process::parent_id();
    while std::os::unix::process::parent_id() == parent {
        thread::sleep(Duration::from_millis(500));
    }
    0
}

#[derive(Deserialize)]
struct ServerYaml {
    #[serde(default = "default_name")]
    name: String,
    #[serde(default)]
    access_points: Vec<String>,
    #[serde(default = "default_port")]
    port: u16,
    #[serde(default)]
    transport_config: Transport,
    provider: String,
    control_log_file: Option<PathBuf>,
    control_metadata: Option<Metadata>,
    #[serde(default)]
    engines: Vec<EngineYaml>,
}

#[derive(Deserialize)]
struct Metadata {
    path: PathBuf,
}

#[derive(Deserialize)]
struct EngineYaml {
    #[serde(default)]
    fabric_iface_port: u32,
    #[serde(default)]
    storage: Vec<TierYaml>,
}

#[derive(Deserialize)]
struct TierYaml {
    class: String,
    scm_mount: Option<PathBuf>,
    #[serde(default)]
    bdev_list: Vec<String>,
}

/// What the disk holds of an engine.
#[derive(Serialize, Deserialize)]
struct Superblock {
    uuid: String,
    rank: Option<u32>,
    /// A RAM disk without control_metadata forgets with a reboot.
    boot_id: Option<String>,
}

struct Process {
    server: Arc<Mutex<Server>>,
    disk: Arc<Disk>,
    listener: TcpListener,
    engine_program: PathBuf,
}

impl Process {
    fn start(called: &str, config: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(config)
            .map_err(|error| format!("config file {}: {error}", config.display()))?;
        let yaml: ServerYaml = serde_saphyr::from_str(&text)
            .map_err(|error| format!("config file {}: {error}", config.display()))?;
        println!("DAOS Server config loaded from {}", config.display());
        if yaml.access_points.len().is_multiple_of(2) {
            return Err("serverconfig: code = 706 description = \"non-odd number of access points in configuration\"".into());
        }
        let disk = Disk::new(&yaml)?;
        let mut server = server(&yaml)?;
        disk.load(&mut server);
        for (index, engine) in server.engines.iter().enumerate() {
            if engine.uuid.is_none() {
                disk.log(&format!("SCM format required on instance {index}"));
            }
        }
        let listener = TcpListener::bind(("0.0.0.0", yaml.port))
            .map_err(|error| format!("listening on port {}: {error}", yaml.port))?;
        disk.log(&format!(
            "DAOS Control Server v2.6.0 (pid {}) listening on 0.0.0.0:{}",
            std::process::id(),
            yaml.port
        ));
        // Beside this program, by its own name; found by PATH if this one was.
        let engine_program = Path::new(called).with_file_name("daos_engine");
        let server = Arc::new(Mutex::new(server));
        Ok(Self { server, disk: Arc::new(disk), listener, engine_program })
    }

    fn serve(self) -> u8 {
        let rounds = Rounds {
            server: Arc::clone(&self.server),
            disk: Arc::clone(&self.disk),
            engine_program: self.engine_program,
            children: Vec::new(),
        };
        thread::spawn(move || rounds.run());
        for stream in self.listener.incoming().flatten() {
            let (server, disk) = (Arc::clone(&self.server), Arc::clone(&self.disk));
            // What a client broke off is the client's loss.
            thread::spawn(move || drop(answer_one(stream, &server, &disk)));
        }
        0
    }
}

fn lock(server: &Mutex<Server>) -> MutexGuard<'_, Server> {
    server.lock().expect("no thread panics while it holds the server")
}

fn answer_one(mut stream: TcpStream, server: &Mutex<Server>, disk: &Disk) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream.try_clone()?).read_line(&mut line)?;
    let envelope: Envelope = serde_json::from_str(&line)?;
    let reply = {
        let mut server = lock(server);
        if envelope.is_secure != server.secure {
            // The real one fails in the TLS handshake.
            return Ok(());
        }
        let before = server.clone();
        let reply = server.answer(&envelope.request);
        disk.save(&before, &server);
        reply
    };
    stream.write_all(format!("{}\n", serde_json::to_string(&reply)?).as_bytes())
}

fn server(yaml: &ServerYaml) -> Result<Server, String> {
    let name =
        fs::read_to_string("/proc/sys/kernel/hostname").map_err(|error| error.to_string())?;
    let name = name.trim().split('.').next().unwrap_or_default().to_owned();
    let address = (name.as_str(), yaml.port).to_socket_addrs().ok();
    let address = address.and_then(|found| found.into_iter().find(|address| address.is_ipv4()));
    let engine = |engine: &EngineYaml| Engine {
        scm_mount: {
            let mount = engine.storage.iter().find_map(|tier| tier.scm_mount.clone());
            mount.unwrap_or_default().display().to_string()
        },
        bdevs: engine.storage.iter().flat_map(|tier| tier.bdev_list.clone()).collect(),
        port: engine.fabric_iface_port,
        ..Engine::default()
    };
    Ok(Server {
        address: address.map_or_else(String::new, |address| address.ip().to_string()),
        name,
        port: yaml.port,
        system: yaml.name.clone(),
        secure: !yaml.transport_config.allow_insecure,
        access_points: unfold(&yaml.access_points),
        provider: yaml.provider.split(';').next().unwrap_or_default().to_owned(),
        engines: yaml.engines.iter().map(engine).collect(),
        database: None,
    })
}

/// Where a server keeps things.
struct Disk {
    log: Option<Mutex<File>>,
    metadata: Option<PathBuf>,
    scm_mounts: Vec<PathBuf>,
    /// Per engine whether a reboot empties it.
    is_volatile: Vec<bool>,
}

impl Disk {
    fn new(yaml: &ServerYaml) -> Result<Self, String> {
        let open = |path: &PathBuf| {
            let file = OpenOptions::new().create(true).append(true).open(path);
            file.map(Mutex::new).map_err(|error| {
                let reason = match error.kind() {
                    ErrorKind::NotFound => "no such file or directory".to_owned(),
                    _ => error.to_string(),
                };
                format!("create log file: open {}: {reason}", path.display())
            })
        };
        let metadata = yaml.control_metadata.as_ref().map(|metadata| metadata.path.clone());
        let mount = |engine: &EngineYaml| {
            engine.storage.iter().find_map(|tier| tier.scm_mount.clone()).unwrap_or_default()
        };
        let is_ram = |engine: &EngineYaml| engine.storage.iter().any(|tier| tier.class == "ram");
        Ok(Self {
            log: yaml.control_log_file.as_ref().map(open).transpose()?,
            is_volatile: {
                let of = |engine| metadata.is_none() && is_ram(engine);
                yaml.engines.iter().map(of).collect()
            },
            scm_mounts: yaml.engines.iter().map(mount).collect(),
            metadata,
        })
    }

    fn log(&self, text: &str) {
        println!("{text}");
        if let Some(log) = &self.log {
            let mut log = log.lock().expect("no thread panics while it logs");
            // The real one goes on when its log is full.
            let _ = writeln!(log, "daos_server INFO {text}");
        }
    }

    fn superblock(&self, index: usize) -> PathBuf {
        match &self.metadata {
            Some(path) => path.join(format!("daos_control/engine{index}/superblock")),
            None => self.scm_mounts[index].join("superblock"),
        }
    }

    fn raft(&self) -> PathBuf {
        let folder = match &self.metadata {
            Some(path) => path.join("daos_control"),
            None => self.scm_mounts.first().cloned().unwrap_or_default(),
        };
        folder.join("control_raft/daos_system.db")
    }

    fn load(&self, server: &mut Server) {
        for (index, engine) in server.engines.iter_mut().enumerate() {
            let Some(superblock) = read_json::<Superblock>(&self.superblock(index)) else {
                continue;
            };
            if superblock.boot_id.is_none_or(|id| id == boot_id()) {
                (engine.uuid, engine.rank) = (Some(superblock.uuid), superblock.rank);
            }
        }
        server.database = read_json(&self.raft());
        let is_formatted = server.engines.iter().any(|engine| engine.uuid.is_some());
        if server.is_replica() && is_formatted && server.database.is_none() {
            self.log("no database found: founding a new one");
            server.found();
            self.save_database(server.database.as_ref());
        }
    }

    /// Writes what differs between two states.
    fn save(&self, before: &Server, after: &Server) {
        for (index, (old, new)) in before.engines.iter().zip(&after.engines).enumerate() {
            if (&old.uuid, old.rank) == (&new.uuid, new.rank) {
                continue;
            }
            let Some(uuid) = &new.uuid else {
                let _ = fs::remove_file(self.superblock(index));
                continue;
            };
            if old.uuid.is_none() {
                new.bdevs.iter().for_each(|bdev| self.wipe(bdev));
            }
            let boot_id = self.is_volatile[index].then(boot_id);
            let superblock = Superblock { uuid: uuid.clone(), rank: new.rank, boot_id };
            self.write(&self.superblock(index), &superblock);
        }
        if before.database != after.database {
            self.save_database(after.database.as_ref());
        }
    }

    fn save_database(&self, database: Option<&Database>) {
        match database {
            Some(database) => self.write(&self.raft(), database),
            None => drop(fs::remove_file(self.raft())),
        }
    }

    fn write(&self, path: &Path, value: &impl Serialize) {
        let write = || -> io::Result<()> {
            let folder = path.parent().expect("a file has a folder");
            fs::create_dir_all(folder)?;
            let new = path.with_extension("new");
            let mut file = File::create(&new)?;
            file.write_all(serde_json::to_string_pretty(value)?.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, path)?;
            File::open(folder)?.sync_all()
        };
        if let Err(error) = write() {
            self.log(&format!("writing {}: {error}", path.display()));
        }
    }

    /// What is left of a device after a format: DAOS's mark, and nothing that was there.
    fn wipe(&self, bdev: &str) {
        let path = match bdev.starts_with('/') {
            true => Some(PathBuf::from(bdev)),
            false => block_device(bdev),
        };
        let Some(path) = path else {
            return self.log(&format!("{bdev}: no block device"));
        };
        let write = || -> io::Result<()> {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            let mut file =
                OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
            let mut start = MAGIC.to_vec();
            start.resize(4096, 0);
            file.write_all(&start)?;
            file.sync_all()
        };
        if let Err(error) = write() {
            self.log(&format!("writing {}: {error}", path.display()));
        }
    }
}

/// `/dev/nvme0n1` of `0000:81:00.0`.
fn block_device(pci: &str) -> Option<PathBuf> {
    let below = |folder: PathBuf| fs::read_dir(folder).ok()?.flatten().next();
    let controller = below(format!("/sys/bus/pci/devices/{pci}/nvme").into())?;
    let name = controller.file_name().into_string().ok()?;
    Some(PathBuf::from(format!("/dev/{name}n1")))
}

fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Option<T> {
    serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
}

fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    id.unwrap_or_default().trim().to_owned()
}

/// What a server does by itself: catch up with the leader, join it, start engines.
struct Rounds {
    server: Arc<Mutex<Server>>,
    disk: Arc<Disk>,
    engine_program: PathBuf,
    /// By engine.
    children: Vec<(usize, Child)>,
}

impl Rounds {
    fn run(mut self) {
        loop {
            self.round();
            thread::sleep(ROUND);
        }
    }

    fn round(&mut self) {
        let server = lock(&self.server).clone();
        let mut tcp = Tcp { port: server.port, is_secure: server.secure };
        let mut databases: Vec<Option<Database>> = Vec::new();
        for host in &server.access_points {
            let is_self = *host == server.name;
            databases.push(match is_self {
                true => server.database.clone().filter(|_| server.has_service()),
                false => match tcp.call(host, &Request::Replica) {
                    Ok(Reply::Replica(database)) => database,
                    _ => None,
                },
            });
        }
        let leader = cluster::leader(&databases);
        if let Some(leader) = leader {
            self.catch_up(databases[leader].as_ref());
            self.join(&server, &server.access_points[leader], &mut tcp);
        }
        self.tend_engines();
    }

    fn catch_up(&self, leaders: Option<&Database>) {
        let mut server = lock(&self.server);
        let (Some(own), Some(leaders)) = (&server.database, leaders) else { return };
        if leaders.version > own.version || !own.is_bootstrapped {
            let before = server.clone();
            server.database = Some(leaders.clone());
            self.disk.save(&before, &server);
        }
    }

    fn join(&self, server: &Server, leader: &str, tcp: &mut Tcp) {
        if server.address.is_empty() || server.address.starts_with("127.") {
            // An engine that tells others to find it at 127.0.0.1 never joined.
            return;
        }
        for (index, member) in server.joining() {
            let request = Request::Join(member);
            let reply = match leader == server.name {
                true => {
                    let mut server = lock(&self.server);
                    let before = server.clone();
                    let reply = server.answer(&request);
                    self.disk.save(&before, &server);
                    Ok(reply)
                }
                false => tcp.call(leader, &request),
            };
            let Ok(Reply::Joined { rank }) = reply else { continue };
            let mut server = lock(&self.server);
            let before = server.clone();
            server.engines[index].rank = Some(rank);
            server.engines[index].is_running = true;
            self.disk.save(&before, &server);
            self.disk.log(&format!("engine {index} joined as rank {rank}"));
        }
    }

    /// A process for each engine that runs, and none for the others.
    fn tend_engines(&mut self) {
        let engines = lock(&self.server).engines.clone();
        self.children.retain_mut(|(index, child)| {
            if engines[*index].is_running {
                return true;
            }
            let _ = child.kill();
            let _ = child.wait();
            false
        });
        for (index, engine) in engines.iter().enumerate() {
            let is_there = self.children.iter().any(|(of, _)| *of == index);
            if !engine.is_running || is_there {
                continue;
            }
            match Command::new(&self.engine_program).args(["-I", &index.to_string()]).spawn() {
                Ok(child) => self.children.push((index, child)),
                Err(error) => {
                    self.disk.log(&format!("starting engine {index}: {error}"));
                    lock(&self.server).engines[index].is_stopped = true;
                    lock(&self.server).engines[index].is_running = false;
                }
            }
        }
    }
}
