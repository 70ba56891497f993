//! The boot server: what nodes boot and install from, who may install, and how far each is.
//!
//! Async lives here and nowhere else. Where to start reading:
//!
//! * [`machine`]: the life of a node, pure;
//! * [`token`]: the two secrets of a grant;
//! * [`store`]: what outlives the server;
//! * [`catalog`]: the files of a generation that may be served;
//! * [`Server`]: these together, behind every protocol: [`Server::fetch`] is what HTTP and
//!   TFTP call, [`Server::peek`] what DHCP asks.

use std::fmt;
use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use bytes::Bytes;

use crate::manifest::FileEntry;
use crate::media::boot_tree;
use crate::net::MacAddr;
use crate::serve::catalog::{Access, Catalog, Item};
use crate::serve::machine::{Boot, Limits, State, Time};
use crate::serve::store::{Entry, Store};
use crate::serve::token::{Key, Purpose, Token};

pub mod arming;
pub mod catalog;
pub mod dhcp;
pub mod http;
pub mod listen;
pub mod machine;
pub mod network;
pub mod programs;
pub mod redfish;
pub mod run;
pub mod status;
pub mod store;
pub mod tftp;
pub mod token;

/// What serving needs to know besides the output folder.
#[derive(Clone, Debug)]
pub struct Options {
    pub out: PathBuf,
    pub state: PathBuf,
    pub limits: Limits,
}

/// Everything behind the protocols.
pub struct Server {
    out: PathBuf,
    catalog: RwLock<Arc<Catalog>>,
    /// Those that installations which have begun still take their files from.
    older: RwLock<Vec<Arc<Catalog>>>,
    pub store: Store,
    key: Key,
    limits: Limits,
    pub counts: Counts,
    /// How many follow the events of the status page.
    followers: AtomicU64,
}

/// What is counted since the server started.
#[derive(Debug, Default)]
pub struct Counts {
    pub requests: AtomicU64,
    pub refused: AtomicU64,
    /// Connections that did not agree on TLS.
    pub tls_failed: AtomicU64,
    pub bytes_sent: AtomicU64,
    /// Files being sent in pieces now.
    pub downloads: AtomicU64,
    pub events: AtomicU64,
    pub events_without_token: AtomicU64,
    pub events_foreign: AtomicU64,
    pub events_malformed: AtomicU64,
    pub events_oversized: AtomicU64,
    pub generations: AtomicU64,
}

/// Who asks, as far as the protocol tells.
#[derive(Clone, Debug, Default)]
pub struct Asker<'a> {
    pub address: Option<IpAddr>,
    /// The addresses of `X-RHN-Provisioning-MAC-*`; empty if there are none.
    pub macs: Vec<MacAddr>,
    /// Which node it says it is (`X-Nodeforge-Node`). Nobody is believed for it: it tells only
    /// which generation's files fit.
    pub node: Option<&'a str>,
    /// What follows `Authorization: Bearer`.
    pub token: Option<&'a str>,
    /// `http` or `tftp`, for the timeline.
    pub protocol: &'static str,
    /// Wants to know the size only (HEAD): no attempt begins. Of TFTP it is not known before the
    /// answer; who asks for `tsize`, goes away and comes again is the same boot.
    pub only_looks: bool,
}

/// What is sent.
#[derive(Debug)]
pub struct Served {
    /// Size in bytes and digest of the whole.
    pub file: FileEntry,
    pub body: Contents,
    /// Whether it is made per request, for one machine.
    pub is_script: bool,
}

#[derive(Debug)]
pub enum Contents {
    Bytes(Bytes),
    File(File),
}

/// Why something is not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is in no manifest, and so does not exist.
    Unknown,
    /// It needs a token, and none came with the request.
    NoToken(String),
    /// It is there, and not for who asks.
    Forbidden(String),
    /// It cannot be sent now.
    NotReady(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("there is no such file"),
            Self::NoToken(why) | Self::Forbidden(why) | Self::NotReady(why) => f.write_str(why),
        }
    }
}

/// The clock of the server, in seconds since the Unix epoch.
pub fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::try_from(since.as_secs()).unwrap_or(Time::MAX)
}

impl Server {
    /// Opens the output folder and the state.
    ///
    /// # Errors
    ///
    /// Fails if either cannot be used.
    pub fn open(options: &Options) -> Result<Self> {
        let catalog = Catalog::current(&options.out)?;
        let store = Store::open(&options.state)?;
        let key = Key::open(&options.state)?;
        let mut wanted = store.in_use();
        wanted.remove(&catalog.number());
        // One that is gone makes installations begin anew, as it would without a server.
        let older =
            wanted.into_iter().filter_map(|number| Catalog::generation(&options.out, number).ok());
        Ok(Self {
            out: options.out.clone(),
            older: RwLock::new(older.map(Arc::new).collect()),
            catalog: RwLock::new(Arc::new(catalog)),
            store,
            key,
            limits: options.limits,
            counts: Counts::default(),
            followers: AtomicU64::new(0),
        })
    }

    /// The files that are served now. Whoever keeps it sees one generation, whatever is
    /// published meanwhile.
    pub fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.read().expect("no writer panics"))
    }

    /// Takes up what was published since; whether there was something. What cannot be used
    /// changes nothing.
    ///
    /// # Errors
    ///
    /// Fails if the new generation cannot be used.
    pub fn take_up_current(&self) -> Result<bool> {
        if crate::output::current(&self.out) == Some(self.catalog().number()) {
            return Ok(false);
        }
        let catalog = Arc::new(Catalog::current(&self.out)?);
        let number = catalog.number();
        let mut older = self.older.write().expect("no writer panics");
        older.retain(|known| known.number() != number);
        let before =
            std::mem::replace(&mut *self.catalog.write().expect("no writer panics"), catalog);
        older.push(before);
        Ok(true)
    }

    /// Lets go of generations that no installation needs any more.
    pub fn let_go(&self) {
        if !self.older.read().expect("no writer panics").is_empty() {
            let wanted = self.store.in_use();
            let mut older = self.older.write().expect("no writer panics");
            older.retain(|catalog| wanted.contains(&catalog.number()));
        }
    }

    /// The generation that answers a request: that of the installation it belongs to, by the
    /// node in the path, else the one it says it is, or else by the address it comes from, so that a kickstart and what it
    /// refers to fit whatever is published meanwhile; the current one for everybody else.
    fn catalog_for(&self, path: &str, asker: &Asker<'_>) -> Arc<Catalog> {
        let current = self.catalog();
        let older = self.older.read().expect("no writer panics");
        if older.is_empty() {
            return current;
        }
        let named = path.strip_prefix("nodes/").and_then(|rest| rest.split_once('/'));
        let named = named.or_else(|| path.strip_prefix("secret/")?.split_once('.'));
        let node = match (named.map(|(node, _)| node).or(asker.node), asker.address) {
            (Some(node), _) => Some(node),
            (None, Some(IpAddr::V4(address))) => current.node_of_address(address).map(|it| &**it),
            _ => None,
        };
        let number = node.and_then(|node| {
            self.store.with_record(node, |record| record.and_then(machine::Record::installs_from))
        });
        let of_installation = older.iter().find(|catalog| Some(catalog.number()) == number);
        of_installation.map_or(current, Arc::clone)
    }

    /// The folder that is served.
    pub fn out(&self) -> &Path {
        &self.out
    }

    /// What the machine with this MAC address would boot if it asked now; `None` for one
    /// that is in no manifest. Changes nothing: for DHCP.
    pub async fn peek(&self, mac: MacAddr) -> Option<Boot> {
        let catalog = self.catalog();
        let node = catalog.node_of_mac(mac)?;
        // What another process has just changed is better known late than not at all.
        _ = self.store.refresh().await;
        Some(self.store.record(node).boot(catalog.there(node), self.limits, now()))
    }

    /// Notes a sign of life in the timeline of the node with this MAC address, such as `dhcp`,
    /// if it is being watched (armed or being installed).
    ///
    /// # Errors
    ///
    /// Fails if the state cannot be written.
    pub async fn note(&self, mac: MacAddr, step: &'static str, detail: String) -> Result<()> {
        match self.catalog().node_of_mac(mac).cloned() {
            Some(node) => self.note_of(&node, step, detail).await,
            None => Ok(()),
        }
    }

    async fn note_of(&self, node: &str, step: &'static str, detail: String) -> Result<()> {
        let is_watched = self.store.with_record(node, |record| {
            record.is_some_and(|it| matches!(it.state, State::Armed | State::Installing))
        });
        if !is_watched {
            return Ok(());
        }
        let node = node.to_owned();
        let change = self.store.change(move |change| {
            let record = change.record(&node);
            change.note(&node, &server_entry(step, record.state, detail))
        });
        change.await.map(|_| ())
    }

    /// What is to be sent for `path`, which is looked up and never opened by itself: paths are
    /// those below `boot.url`, such as `pxe/boot.ipxe`. TFTP's root is `pxe/`.
    ///
    /// # Errors
    ///
    /// Says why it is not sent.
    pub async fn fetch(&self, path: &str, asker: &Asker<'_>) -> Result<Served, Refusal> {
        // A boot script begins an installation, so it is that of now, whatever began before.
        let current = self.catalog();
        let is_script = |item: &Item| matches!(item.access, Access::Script(..));
        if let Some(item) = current.find(path).filter(is_script) {
            return self.boot_script(&current, &item, asker).await;
        }
        let catalog = self.catalog_for(path, asker);
        let found = catalog.find(path).filter(|item| !is_script(item));
        let item = found.ok_or_else(|| unknown(&catalog, path))?;
        self.require_access(&catalog, &item, asker).await?;
        let file = catalog.open(&item).map_err(|fault| {
            // Paths of this machine are its own affair.
            eprintln!("warning: {fault:#}");
            Refusal::NotReady(format!("{path} cannot be sent; the server says why where it runs"))
        })?;
        if path.ends_with("/vmlinuz") && !asker.only_looks {
            self.kernel_taken(&catalog, asker).await.map_err(not_ready)?;
        }
        if let Access::Kickstart(node) | Access::Embedded(node) = &item.access
            && !asker.only_looks
        {
            self.kickstart_taken(node).await.map_err(not_ready)?;
        }
        Ok(Served { file: item.file, body: Contents::File(file), is_script: false })
    }

    /// A kernel has no name of its own: whose it is tells the address that asks.
    async fn kernel_taken(&self, catalog: &Catalog, asker: &Asker<'_>) -> Result<()> {
        let Some(IpAddr::V4(address)) = asker.address else { return Ok(()) };
        match catalog.node_of_address(address) {
            Some(node) => self.note_of(node, "kernel", asker.protocol.to_owned()).await,
            None => Ok(()),
        }
    }

    /// The installer is at work: its kickstart was asked for.
    async fn kickstart_taken(&self, node: &Arc<str>) -> Result<()> {
        let is_known = |record: &machine::Record| {
            let mut after = record.clone();
            after.kickstart_taken(now());
            after == *record
        };
        if self.store.with_record(node, |record| record.is_some_and(is_known)) {
            return Ok(());
        }
        let node = Arc::clone(node);
        let change = self.store.change(move |change| {
            let mut record = change.record(&node);
            let before = record.clone();
            record.kickstart_taken(now());
            if record != before {
                change.note(&node, &server_entry("kickstart", record.state, String::new()))?;
                change.put(&node, record)?;
            }
            Ok(())
        });
        change.await
    }

    async fn require_access(
        &self,
        catalog: &Catalog,
        item: &Item,
        asker: &Asker<'_>,
    ) -> Result<(), Refusal> {
        match &item.access {
            Access::Anyone | Access::Script(..) => Ok(()),
            Access::Token(node) => {
                let Some(given) = asker.token.map(token::digest) else {
                    return Err(Refusal::NoToken(format!("this needs the secret token of {node}")));
                };
                self.store.refresh().await.map_err(not_ready)?;
                let opens = self.store.with_record(node, |record| {
                    record.is_some_and(|it| it.opens_secrets(&given, now()))
                });
                match opens {
                    true => Ok(()),
                    false => Err(Refusal::Forbidden(format!(
                        "this needs the secret token of {node}, which is valid while it is installed"
                    ))),
                }
            }
            Access::Kickstart(node) | Access::Embedded(node) => {
                self.require_install(catalog, node, asker).await
            }
        }
    }

    async fn require_install(
        &self,
        catalog: &Catalog,
        node: &Arc<str>,
        asker: &Asker<'_>,
    ) -> Result<(), Refusal> {
        let is_own = |mac: &MacAddr| catalog.node_of_mac(*mac) == Some(node);
        if !asker.macs.is_empty() && !asker.macs.iter().any(is_own) {
            return Err(Refusal::Forbidden(format!("this is {node}'s, and another machine asks")));
        }
        self.store.refresh().await.map_err(not_ready)?;
        let boot = self.store.with_record(node, |record| {
            let of = |record: &machine::Record| {
                record.kickstart(catalog.there(node), self.limits, now())
            };
            record.map_or(Boot::Disk, of)
        });
        match boot {
            Boot::Install(_) => Ok(()),
            Boot::Halt { message } => Err(Refusal::Forbidden(format!("{node}: {message}"))),
            Boot::Disk => Err(Refusal::Forbidden(format!(
                "{node} is not armed: `nodeforge arm {node}` lets it be installed once"
            ))),
        }
    }

    /// The boot script of a node for one boot loader: the one that was built, with the words of
    /// the grant on its kernel line, or one that boots from disk or halts.
    async fn boot_script(
        &self,
        catalog: &Arc<Catalog>,
        item: &Item,
        asker: &Asker<'_>,
    ) -> Result<Served, Refusal> {
        let Access::Script(mac, loader) = item.access else { return Err(Refusal::Unknown) };
        let node = catalog.node_of_mac(mac).ok_or(Refusal::Unknown)?;
        let boot = catalog.boot_of(node).ok_or(Refusal::Unknown)?;
        self.store.refresh().await.map_err(not_ready)?;
        let is_wanted = self.store.with_record(node, |record| {
            let boot = record.map(|it| it.boot(catalog.there(node), self.limits, now()));
            matches!(boot, Some(Boot::Install(_)))
        });
        // Before an attempt begins: one that cannot be had is none.
        let built = match is_wanted {
            true => installer_script(catalog, item, node, &boot.arguments)?,
            false => String::new(),
        };
        let decision = self.decide(catalog, node, asker).await.map_err(not_ready)?;
        let text = match decision {
            Boot::Disk => boot_tree::disk_script(loader, node, &boot.disk_boot),
            Boot::Halt { message } => {
                boot_tree::halt_script(loader, node, &message, &boot.disk_boot)
            }
            Boot::Install(install) => {
                // It was armed in this moment.
                let built = match built.is_empty() {
                    true => installer_script(catalog, item, node, &boot.arguments)?,
                    false => built,
                };
                let words = self.words(node, &install, boot.needs_token);
                built.replace(&boot.arguments, &format!("{} {words}", boot.arguments))
            }
        };
        let file = FileEntry::of(text.as_bytes());
        Ok(Served { file, body: Contents::Bytes(text.into()), is_script: true })
    }

    /// The decision for a boot script, which begins an attempt if it is to install.
    async fn decide(
        &self,
        catalog: &Arc<Catalog>,
        node: &Arc<str>,
        asker: &Asker<'_>,
    ) -> Result<Boot> {
        let limits = self.limits;
        let peeked = self.store.with_record(node, |record| {
            record.map(|it| it.boot(catalog.there(node), limits, now()))
        });
        match peeked {
            None | Some(Boot::Disk) => return Ok(Boot::Disk),
            Some(boot) if asker.only_looks => return Ok(boot),
            Some(_) => {}
        }
        let (node, catalog) = (Arc::clone(node), Arc::clone(catalog));
        let detail = match asker.address {
            Some(address) => format!("{} to {address}", asker.protocol),
            None => asker.protocol.to_owned(),
        };
        let change = self.store.change(move |change| {
            let mut record = change.record(&node);
            let before = record.clone();
            let there = catalog.there(&node);
            let boot = record.start_boot(there, catalog.number(), limits, now());
            if record != before {
                let detail = record.reason.clone().unwrap_or(detail);
                change.note(&node, &server_entry("boot script", record.state, detail))?;
                change.put(&node, record)?;
            }
            Ok(boot)
        });
        change.await
    }

    /// The tokens that a node has, which it must not tell in its reports.
    fn tokens_of(&self, node: &str) -> Vec<Token> {
        let grant = self.store.with_record(node, |record| record.map(|record| record.last_grant));
        let purposes = [Purpose::Secrets, Purpose::Events];
        let tokens = grant
            .map(|grant| purposes.map(|purpose| self.key.token(purpose, node, grant)).into_iter());
        tokens.into_iter().flatten().collect()
    }

    /// The words of a grant on the installer's kernel line.
    fn words(&self, node: &str, install: &machine::Install, needs_token: bool) -> String {
        let token = |purpose| self.key.token(purpose, node, install.grant);
        let mut words = vec![format!("nodeforge.grant={}", install.grant)];
        if needs_token {
            words.push(format!("nodeforge.token={}", token(Purpose::Secrets).expose()));
        }
        words.push(format!("nodeforge.event_token={}", token(Purpose::Events).expose()));
        if install.overwrite {
            words.push(format!("nodeforge.reinstall={}", install.grant));
        }
        if install.wipe_daos {
            words.push("nodeforge.wipe_daos=1".to_owned());
        }
        words.join(" ")
    }
}

/// An image that the boot menus name and that was not fetched is a server that is not ready.
fn unknown(catalog: &Catalog, path: &str) -> Refusal {
    let is_pending =
        path.strip_prefix("pxe/").is_some_and(|path| catalog.manifest().pxe.pending.contains(path));
    match is_pending {
        true => {
            Refusal::NotReady(format!("{path} is still to come: `nodeforge fetch`, then `build`"))
        }
        false => Refusal::Unknown,
    }
}

/// An entry of the timeline for something that the server saw itself.
fn server_entry(step: &str, state: State, detail: String) -> Entry {
    Entry {
        time: now(),
        source: "server".to_owned(),
        step: step.to_owned(),
        state: state.word().to_owned(),
        detail,
        ..Entry::default()
    }
}

/// The boot script that was built, which has `arguments`. What is wrong is said where the server
/// runs: boot loaders do not show the text of an error.
fn installer_script(
    catalog: &Catalog,
    item: &Item,
    node: &str,
    arguments: &str,
) -> Result<String, Refusal> {
    let read = read_text(catalog, item).and_then(|built| {
        anyhow::ensure!(
            built.contains(arguments),
            "the boot menu of {node} lacks the installer's arguments: its template in the site's \
             folder must have {{{{arguments}}}}"
        );
        Ok(built)
    });
    read.map_err(|fault| {
        eprintln!("warning: {node} cannot be installed: {fault:#}");
        Refusal::NotReady(format!(
            "the boot script of {node} cannot be sent; the server says why where it runs"
        ))
    })
}

fn read_text(catalog: &Catalog, item: &Item) -> Result<String> {
    let text = std::io::read_to_string(catalog.open(item)?);
    let text = text.context("reading a boot menu")?;
    anyhow::ensure!(
        FileEntry::of(text.as_bytes()) == item.file,
        "a boot menu is not what was built; `nodeforge verify` tells more"
    );
    Ok(text)
}

fn not_ready(fault: anyhow::Error) -> Refusal {
    Refusal::NotReady(format!("{fault:#}"))
}
