//! What servers are and answer.

use serde::{Deserialize, Serialize};

/// One daos_server with its engines.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Server {
    pub name: String,
    /// Its IPv4 address.
    pub address: String,
    pub port: u16,
    pub system: String,
    pub secure: bool,
    /// Names, as daos_server.yml has them.
    pub access_points: Vec<String>,
    pub provider: String,
    pub engines: Vec<Engine>,
    /// The database of the management service; on access points once they are formatted.
    pub database: Option<Database>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Engine {
    /// Of its superblock; `None` while it awaits a format.
    pub uuid: Option<String>,
    pub rank: Option<u32>,
    pub scm_mount: String,
    pub bdevs: Vec<String>,
    pub port: u32,
    /// Joined since the server started: only then it answers.
    pub is_running: bool,
    /// By `dmg system stop`.
    pub is_stopped: bool,
    /// Rounds until it starts, after a boot: worlds only.
    pub delay: u32,
}

/// What the management service remembers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Database {
    /// Whether the first access point founded it, or it came from one that did.
    pub is_bootstrapped: bool,
    /// Grows with every change; replicas take over a higher one.
    pub version: u64,
    pub members: Vec<Member>,
    pub pools: Vec<String>,
    /// `POOL/CONTAINER`.
    pub containers: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    pub addr: String,
    pub state: String,
    pub fault_domain: String,
    pub rank: u32,
    pub incarnation: u64,
    pub uuid: String,
    pub fabric_uri: String,
    pub info: String,
}

/// What dmg and servers ask a server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    Scan,
    Devices,
    Format,
    Erase,
    Stop,
    Start,
    /// To a replica: its database, if its management service runs.
    Replica,
    /// To any server: who holds the replicas.
    Replicas,
    Join(Member),
    CreatePool(String),
    CreateContainer(String),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    Done,
    Scan {
        provider: String,
    },
    /// Per engine whether it answers.
    Devices(Vec<bool>),
    /// Per engine what came of it.
    Formatted(Vec<Formatted>),
    /// Addresses of the access points, and the system's name.
    Replicas {
        hosts: Vec<String>,
        system: String,
    },
    /// `None` before a format.
    Replica(Option<Database>),
    Joined {
        rank: u32,
    },
    NotLeader,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Formatted {
    pub scm_mount: String,
    pub bdevs: Vec<String>,
    pub outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    New,
    /// Formatted before and not running: formatted again without touching the SSDs.
    Again,
    /// `SCM is already formatted`.
    Running,
}

impl Server {
    pub fn is_replica(&self) -> bool {
        self.access_points.contains(&self.name)
    }

    /// Whether the management service runs here: with the first engine that has a superblock.
    pub fn has_service(&self) -> bool {
        let is_started = |engine: &Engine| engine.uuid.is_some() && engine.delay == 0;
        self.is_replica() && self.database.is_some() && self.engines.iter().any(is_started)
    }

    /// Answers what one server can answer by itself; changes of the database are made by
    /// whoever has found the leader.
    pub fn answer(&mut self, request: &Request) -> Reply {
        match request {
            Request::Scan => Reply::Scan { provider: self.provider.clone() },
            Request::Devices => {
                Reply::Devices(self.engines.iter().map(|engine| engine.is_running).collect())
            }
            Request::Format => Reply::Formatted(self.format()),
            Request::Erase => {
                for engine in &mut self.engines {
                    *engine = Engine {
                        scm_mount: engine.scm_mount.clone(),
                        bdevs: engine.bdevs.clone(),
                        port: engine.port,
                        ..Engine::default()
                    };
                }
                self.database = None;
                Reply::Done
            }
            Request::Stop => {
                for engine in &mut self.engines {
                    engine.is_stopped = true;
                    engine.is_running = false;
                }
                self.change(|database| {
                    for member in &mut database.members {
                        member.state = "stopped".into();
                        member.info = "system stop".into();
                    }
                })
            }
            Request::Start => {
                self.engines.iter_mut().for_each(|engine| engine.is_stopped = false);
                Reply::Done
            }
            Request::Replicas => {
                Reply::Replicas { hosts: self.access_points.clone(), system: self.system.clone() }
            }
            Request::Replica => {
                Reply::Replica(self.database.clone().filter(|_| self.has_service()))
            }
            Request::Join(member) => match &mut self.database {
                Some(database) => Reply::Joined { rank: database.join(member) },
                None => Reply::NotLeader,
            },
            Request::CreatePool(label) => {
                self.change(|database| database.pools.push(label.clone()))
            }
            Request::CreateContainer(name) => {
                self.change(|database| database.containers.push(name.clone()))
            }
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut Database)) -> Reply {
        let Some(database) = &mut self.database else { return Reply::NotLeader };
        change(database);
        database.version += 1;
        Reply::Done
    }

    fn format(&mut self) -> Vec<Formatted> {
        let name = &self.name;
        let format = |(index, engine): (usize, &mut Engine)| {
            let outcome = match (&engine.uuid, engine.is_running) {
                (None, _) => Outcome::New,
                (Some(_), false) => Outcome::Again,
                (Some(_), true) => Outcome::Running,
            };
            if outcome == Outcome::New {
                engine.uuid = Some(uuid(&format!("{name}/{index}")));
                engine.rank = None;
            }
            Formatted { scm_mount: engine.scm_mount.clone(), bdevs: engine.bdevs.clone(), outcome }
        };
        let formatted = self.engines.iter_mut().enumerate().map(format).collect();
        if self.is_replica() && self.database.is_none() {
            self.found();
        }
        formatted
    }

    /// A replica's empty database; the first access point's is the system's. The same
    /// happens to one whose `control_raft` was lost.
    pub fn found(&mut self) {
        let is_first = self.access_points.first() == Some(&self.name);
        self.database = Some(Database { is_bootstrapped: is_first, ..Database::default() });
    }

    /// The engines that have to join, as members.
    pub fn joining(&self) -> Vec<(usize, Member)> {
        let is_joining = |engine: &Engine| {
            engine.uuid.is_some() && !engine.is_running && !engine.is_stopped && engine.delay == 0
        };
        let engines = self.engines.iter().enumerate().filter(|(_, engine)| is_joining(engine));
        engines.map(|(index, engine)| (index, self.member(engine))).collect()
    }

    fn member(&self, engine: &Engine) -> Member {
        Member {
            addr: format!("{}:{}", self.address, self.port),
            state: "joined".into(),
            fault_domain: format!("/{}", self.name),
            rank: engine.rank.unwrap_or(0),
            incarnation: 1_795_334_996_605_610_266,
            uuid: engine.uuid.clone().unwrap_or_default(),
            fabric_uri: format!("{}://{}:{}", self.provider, self.address, engine.port),
            info: String::new(),
        }
    }
}

impl Database {
    /// The rank of a member: its old one, or the next.
    fn join(&mut self, member: &Member) -> u32 {
        self.version += 1;
        if let Some(known) = self.members.iter_mut().find(|known| known.uuid == member.uuid) {
            known.state = "joined".into();
            known.info.clear();
            return known.rank;
        }
        let rank = u32::try_from(self.members.len()).unwrap_or(0);
        self.members.push(Member { rank, ..member.clone() });
        rank
    }
}

/// Of the replicas' databases, that of the leader: there is one where most replicas run and
/// one of them was bootstrapped.
pub fn leader(databases: &[Option<Database>]) -> Option<usize> {
    let n_running = databases.iter().flatten().count();
    if n_running * 2 <= databases.len() {
        return None;
    }
    let is_bootstrapped = |at: &usize| databases[*at].as_ref().is_some_and(|db| db.is_bootstrapped);
    (0..databases.len()).filter(is_bootstrapped).max_by_key(|at| {
        let version = databases[*at].as_ref().map_or(0, |database| database.version);
        (version, std::cmp::Reverse(*at))
    })
}

/// A UUID that differs from call to call and machine to machine.
pub fn uuid(seed: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_nanos());
    let a = fnv(&format!("{seed} {now} {}", std::process::id()));
    let b = fnv(&format!("{now} {seed} b"));
    let hex = format!("{a:016x}{b:016x}");
    format!("{}-{}-4{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
}

/// FNV-1a: numbers for keys that the real ones make by hashing, too.
pub fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
