//! What the server remembers: one SQLite database, written ahead (WAL), which the server and
//! the verbs `arm`, `disarm` and `status` share.
//!
//! All records are in memory, too. Whatever changes them goes through one thread, which puts
//! what has come together into one transaction, makes it durable, and only then answers: an
//! answer that left the server is on the disk, and a thousand nodes that report in one second
//! cost a few fsyncs. Records that another process changed are read again first.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, RwLock};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};
use serde::Serialize;
use tokio::sync::{broadcast, oneshot};

use crate::serve::machine::Record;

/// The version of the tables.
const FORMAT: i64 = 1;

/// How many entries a node's timeline keeps.
pub const MAX_TIMELINE: i64 = 1000;

/// How many changes one transaction takes.
const MAX_BATCH: usize = 512;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS nodes (name TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS timeline (
        id INTEGER PRIMARY KEY, node TEXT NOT NULL, time INTEGER NOT NULL, source TEXT NOT NULL,
        step TEXT NOT NULL, state TEXT NOT NULL, detail TEXT NOT NULL, log TEXT,
        boot_id TEXT, seq INTEGER);
    CREATE INDEX IF NOT EXISTS timeline_of_node ON timeline (node, id);
    CREATE UNIQUE INDEX IF NOT EXISTS events_once ON timeline (node, boot_id, seq)
        WHERE seq IS NOT NULL;
    CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    INSERT OR IGNORE INTO meta VALUES ('format', 1), ('outside_changes', 0), ('last_grant', 0);
";

/// One line of a node's timeline.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Seconds since the Unix epoch, by the server's clock.
    pub time: i64,
    /// `server`, `installer` or `node`.
    pub source: String,
    pub step: String,
    pub state: String,
    pub detail: String,
    /// The end of the log of what failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
    /// The boot it happened in and its number there, of events of an installed node: a report
    /// that comes twice counts once.
    #[serde(skip)]
    pub once: Option<(String, i64)>,
}

pub type Records = HashMap<Arc<str>, Arc<Record>>;

/// The open database.
pub struct Store {
    folder: PathBuf,
    shared: Arc<Shared>,
    reader: Mutex<Connection>,
    log: WriteAheadLog,
    jobs: Mutex<Sender<Job>>,
}

struct Shared {
    records: RwLock<Records>,
    /// The names of nodes whose record has changed.
    changes: broadcast::Sender<Arc<str>>,
    /// The changes by other processes that the records know of.
    seen: AtomicI64,
}

/// What runs inside a transaction; what it returns runs when that is on the disk.
type Job = Box<dyn FnOnce(&mut Change<'_>) -> Result<Box<dyn FnOnce() + Send>> + Send>;

/// The database inside a transaction.
pub struct Change<'a> {
    connection: &'a Connection,
    known: &'a RwLock<Records>,
    changed: BTreeMap<Arc<str>, Arc<Record>>,
}

impl Change<'_> {
    /// The record of a node; an empty one for a node that nobody has heard of yet.
    pub fn record(&self, node: &str) -> Record {
        let known = || self.known.read().expect("no writer panics").get(node).cloned();
        let record = self.changed.get(node).cloned().or_else(known);
        record.map_or_else(Record::default, |record| (*record).clone())
    }

    /// Replaces the record of a node.
    ///
    /// # Errors
    ///
    /// Fails if the database does.
    pub fn put(&mut self, node: &str, record: Record) -> Result<()> {
        let json = serde_json::to_string(&record)?;
        let mut put = self
            .connection
            .prepare_cached("INSERT OR REPLACE INTO nodes (name, record) VALUES (?1, ?2)")?;
        put.execute(params![node, json])?;
        self.changed.insert(node.into(), Arc::new(record));
        Ok(())
    }

    /// Adds to the timeline of a node; whether it was not there yet.
    ///
    /// # Errors
    ///
    /// Fails if the database does.
    pub fn note(&mut self, node: &str, entry: &Entry) -> Result<bool> {
        let mut insert = self.connection.prepare_cached(
            "INSERT OR IGNORE INTO timeline (node, time, source, step, state, detail, log, boot_id, seq)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?;
        let log = (!entry.log.is_empty()).then(|| entry.log.join("\n"));
        let (boot_id, seq) = entry.once.clone().unzip();
        let Entry { time, source, step, state, detail, .. } = entry;
        let n_added =
            insert.execute(params![node, time, source, step, state, detail, log, boot_id, seq])?;
        if n_added > 0 && self.connection.last_insert_rowid() % 64 == 0 {
            self.forget_old(node)?;
        }
        Ok(n_added > 0)
    }

    fn forget_old(&self, node: &str) -> Result<()> {
        let mut forget = self.connection.prepare_cached(
            "DELETE FROM timeline WHERE node = ?1 AND id <=
             (SELECT id FROM timeline WHERE node = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
        )?;
        forget.execute(params![node, MAX_TIMELINE])?;
        Ok(())
    }

    /// Counts one more of `counter`.
    ///
    /// # Errors
    ///
    /// Fails if the database does.
    pub fn count(&mut self, counter: &str) -> Result<()> {
        let mut add = self.connection.prepare_cached(
            "INSERT INTO counters VALUES (?1, 1) ON CONFLICT (name) DO UPDATE SET value = value + 1",
        )?;
        add.execute([counter])?;
        Ok(())
    }

    /// A number for a new grant: the time, but never one that was given before.
    ///
    /// # Errors
    ///
    /// Fails if the database does.
    pub fn new_grant(&mut self, now: i64) -> Result<u64> {
        let last: i64 = self.connection.query_row(
            "SELECT value FROM meta WHERE name = 'last_grant'",
            [],
            |row| row.get(0),
        )?;
        let grant = now.max(last + 1);
        self.connection.execute("UPDATE meta SET value = ?1 WHERE name = 'last_grant'", [grant])?;
        Ok(grant.unsigned_abs())
    }
}

impl Store {
    /// Opens the database in `folder`, which is made (0700) if it is not there.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be read or written, or is of another version.
    pub fn open(folder: &Path) -> Result<Self> {
        make_private(folder)?;
        let writer = connect(folder)?;
        writer.execute_batch(TABLES).with_context(|| in_database(folder))?;
        let format: i64 =
            writer
                .query_row("SELECT value FROM meta WHERE name = 'format'", [], |row| row.get(0))?;
        ensure!(
            format == FORMAT,
            "{} is of format {format}, and this version of nodeforge reads format {FORMAT}",
            folder.display()
        );
        let records = read_records(&writer).with_context(|| in_database(folder))?;
        let seen = outside_changes(&writer)?;
        let (changes, _) = broadcast::channel(4096);
        let shared =
            Arc::new(Shared { records: RwLock::new(records), changes, seen: AtomicI64::new(seen) });
        let (jobs, queue) = mpsc::channel();
        let for_writer = Arc::clone(&shared);
        thread::Builder::new()
            .name("state".to_owned())
            .spawn(move || write_all(writer, &queue, &for_writer))
            .context("starting the thread that writes the state")?;
        Ok(Self {
            folder: folder.to_owned(),
            shared,
            log: WriteAheadLog::open(folder)?,
            reader: Mutex::new(connect(folder)?),
            jobs: Mutex::new(jobs),
        })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What is known of a node.
    pub fn record(&self, node: &str) -> Arc<Record> {
        let known = self.shared.records.read().expect("no writer panics").get(node).cloned();
        known.unwrap_or_default()
    }

    /// Looks at what is known of a node, without a copy.
    pub fn with_record<T>(&self, node: &str, look: impl FnOnce(Option<&Record>) -> T) -> T {
        let records = self.shared.records.read().expect("no writer panics");
        look(records.get(node).map(|record| &**record))
    }

    /// The nodes whose records `is_one` holds for, whether the boot tree still has them or not.
    pub fn nodes_where(&self, is_one: impl Fn(&Record) -> bool) -> Vec<Arc<str>> {
        let records = self.shared.records.read().expect("no writer panics");
        let found = records.iter().filter(|(_, record)| is_one(record));
        found.map(|(node, _)| Arc::clone(node)).collect()
    }

    /// The generations that installations which have begun take their files from.
    pub fn in_use(&self) -> BTreeSet<u64> {
        let records = self.shared.records.read().expect("no writer panics");
        records.values().filter_map(|record| record.installs_from()).collect()
    }

    /// The names of nodes as their records change.
    pub fn changes(&self) -> broadcast::Receiver<Arc<str>> {
        self.shared.changes.subscribe()
    }

    /// Makes a change durable; what `change` returns is known to be on the disk.
    ///
    /// # Errors
    ///
    /// Fails with `change`, which then has changed nothing, or if the database does.
    pub async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Change<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.send(change).await.context("the state cannot be written")?
    }

    /// [`change`](Self::change), for who may wait.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn change_now<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Change<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.send(change).blocking_recv().context("the state cannot be written")?
    }

    fn send<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Change<'_>) -> Result<T> + Send + 'static,
    ) -> oneshot::Receiver<Result<T>> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |database| {
            let outcome = change(database);
            let failed = outcome.as_ref().err().map(|fault| format!("{fault:#}"));
            let reply: Box<dyn FnOnce() + Send> = Box::new(move || _ = answer.send(outcome));
            match failed {
                None => Ok(reply),
                Some(fault) => {
                    reply();
                    bail!(fault)
                }
            }
        });
        // The thread ends only with the store; a lost answer is an error of its own.
        _ = self.jobs.lock().expect("no sender panics").send(job);
        answered
    }

    /// Reads again what another process changed, if one did: by the thread that writes, so
    /// that nothing newer is overwritten.
    ///
    /// # Errors
    ///
    /// Fails if the database does.
    pub async fn refresh(&self) -> Result<()> {
        let written = self.log.written();
        if written.is_some() && written == *self.log.known.read().expect("no writer panics") {
            return Ok(());
        }
        let now = outside_changes(&self.reader.lock().expect("no reader panics"))?;
        if now != self.shared.seen.load(Ordering::Acquire) {
            self.change(|_| Ok(())).await?;
        }
        *self.log.known.write().expect("no writer panics") = written;
        Ok(())
    }

    /// Says to other processes that records have changed.
    ///
    /// # Errors
    ///
    /// Fails if the database does.
    pub fn tell_others(change: &mut Change<'_>) -> Result<()> {
        change
            .connection
            .execute("UPDATE meta SET value = value + 1 WHERE name = 'outside_changes'", [])?;
        Ok(())
    }

    /// The timeline of a node, oldest first.
    ///
    /// # Errors
    ///
    /// Fails if the database does.
    pub fn timeline(&self, node: &str) -> Result<Vec<Entry>> {
        let reader = self.reader.lock().expect("no reader panics");
        let mut select = reader.prepare_cached(
            "SELECT time, source, step, state, detail, log FROM timeline WHERE node = ?1
             ORDER BY id DESC LIMIT ?2",
        )?;
        let rows = select.query_map(params![node, MAX_TIMELINE], |row| {
            let log: Option<String> = row.get(5)?;
            Ok(Entry {
                time: row.get(0)?,
                source: row.get(1)?,
                step: row.get(2)?,
                state: row.get(3)?,
                detail: row.get(4)?,
                log: log.map_or_else(Vec::new, |log| log.lines().map(str::to_owned).collect()),
                once: None,
            })
        })?;
        let mut entries = rows.collect::<Result<Vec<Entry>, _>>()?;
        entries.reverse();
        Ok(entries)
    }

    /// All counters, by name.
    ///
    /// # Errors
    ///
    /// Fails if the database does.
    pub fn counters(&self) -> Result<BTreeMap<String, i64>> {
        let reader = self.reader.lock().expect("no reader panics");
        let mut select = reader.prepare_cached("SELECT name, value FROM counters")?;
        let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

/// Tells without asking SQLite whether anybody has written since: each request asks, and almost
/// never has anybody. Every transaction is written to this file, which stays while the database
/// is open (<https://www.sqlite.org/walformat.html>).
struct WriteAheadLog {
    file: File,
    /// When it had last been written, when the records were last known to be new.
    known: RwLock<Option<SystemTime>>,
}

/// Two writes within a tick of the kernel's clock, 10 ms at most, leave the same time behind.
const SAME_TIME: Duration = Duration::from_millis(50);

impl WriteAheadLog {
    fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("state.db-wal");
        let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        Ok(Self { file, known: RwLock::new(None) })
    }

    /// When it was last written; `None` if another write might leave the same time.
    fn written(&self) -> Option<SystemTime> {
        let written = self.file.metadata().and_then(|metadata| metadata.modified()).ok()?;
        let is_past = written.elapsed().is_ok_and(|passed| passed > SAME_TIME);
        is_past.then_some(written)
    }
}

impl Shared {
    /// Replaces all records by what was read, and tells which differ.
    fn take_over(&self, read: Records) {
        let mut records = self.records.write().expect("no writer panics");
        let differs =
            |(name, record): &(&Arc<str>, &Arc<Record>)| records.get(*name) != Some(record);
        let changed: Vec<Arc<str>> =
            read.iter().filter(differs).map(|(name, _)| Arc::clone(name)).collect();
        *records = read;
        drop(records);
        self.tell(changed);
    }

    fn tell(&self, changed: impl IntoIterator<Item = Arc<str>>) {
        for name in changed {
            // Without a listener nobody wants to know.
            _ = self.changes.send(name);
        }
    }
}

/// The records in the state folder `folder`, without a right to write there; none where no
/// server has run yet.
///
/// # Errors
///
/// Fails if they cannot be read.
pub fn peek(folder: &Path) -> Result<Records> {
    let path = folder.join("state.db");
    if !path.try_exists().with_context(|| in_database(folder))? {
        return Ok(Records::new());
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let read = || -> Result<Records> {
        let connection = Connection::open_with_flags(&path, flags)?;
        connection.busy_timeout(Duration::from_secs(10))?;
        let has_nodes: bool = connection.query_row(
            "SELECT count(*) > 0 FROM sqlite_master WHERE name = 'nodes'",
            [],
            |row| row.get(0),
        )?;
        if has_nodes { read_records(&connection) } else { Ok(Records::new()) }
    };
    read().with_context(|| in_database(folder))
}

/// The thread that writes.
fn write_all(mut database: Connection, queue: &Receiver<Job>, shared: &Shared) {
    while let Ok(first) = queue.recv() {
        let batch = std::iter::once(first).chain(queue.try_iter().take(MAX_BATCH - 1));
        match write_batch(&mut database, batch, shared) {
            Ok(replies) => replies.into_iter().for_each(|reply| reply()),
            // Their answers are dropped with the jobs, which tells those who wait.
            Err(fault) => eprintln!("error: writing the state: {fault:#}"),
        }
    }
}

fn write_batch(
    database: &mut Connection,
    batch: impl Iterator<Item = Job>,
    shared: &Shared,
) -> Result<Vec<Box<dyn FnOnce() + Send>>> {
    let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let now = outside_changes(&transaction)?;
    if shared.seen.load(Ordering::Acquire) != now {
        shared.take_over(read_records(&transaction)?);
        // Not before the records are there: who compares meanwhile waits for this thread.
        shared.seen.store(now, Ordering::Release);
    }
    let mut replies = Vec::new();
    let mut changed = BTreeMap::new();
    for job in batch {
        transaction.execute_batch("SAVEPOINT job")?;
        let known = &shared.records;
        let mut change = Change { connection: &transaction, known, changed };
        let before = change.changed.clone();
        match job(&mut change) {
            Ok(reply) => {
                changed = change.changed;
                replies.push(reply);
                transaction.execute_batch("RELEASE job")?;
            }
            Err(_) => {
                changed = before;
                transaction.execute_batch("ROLLBACK TO job; RELEASE job")?;
            }
        }
    }
    let now = outside_changes(&transaction)?;
    transaction.commit()?;
    let mut records = shared.records.write().expect("no writer panics");
    let names: Vec<Arc<str>> = changed.keys().cloned().collect();
    records.extend(changed);
    drop(records);
    shared.seen.store(now, Ordering::Release);
    shared.tell(names);
    Ok(replies)
}

fn connect(folder: &Path) -> Result<Connection> {
    let path = folder.join("state.db");
    let open = || -> rusqlite::Result<Connection> {
        let connection = Connection::open(&path)?;
        connection.busy_timeout(Duration::from_secs(10))?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        // What was answered must outlive a power cut, not only the process.
        connection.pragma_update(None, "synchronous", "full")?;
        connection.set_prepared_statement_cache_capacity(32);
        Ok(connection)
    };
    open().with_context(|| format!("opening {}", path.display()))
}

fn read_records(database: &Connection) -> Result<Records> {
    let mut select = database.prepare_cached("SELECT name, record FROM nodes")?;
    let mut rows = select.query([])?;
    let mut records = Records::new();
    while let Some(row) = rows.next()? {
        let (name, json): (String, String) = (row.get(0)?, row.get(1)?);
        let record =
            serde_json::from_str(&json).with_context(|| format!("the record of {name}"))?;
        records.insert(name.into(), Arc::new(record));
    }
    Ok(records)
}

fn outside_changes(database: &Connection) -> Result<i64> {
    let mut select =
        database.prepare_cached("SELECT value FROM meta WHERE name = 'outside_changes'")?;
    let value = select.query_row([], |row| row.get(0)).optional()?;
    Ok(value.unwrap_or(0))
}

/// The folder holds the key that all tokens follow from.
fn make_private(folder: &Path) -> Result<()> {
    let make = || match fs::metadata(folder) {
        Ok(_) => Ok(()),
        Err(_) => DirBuilder::new().mode(0o700).recursive(true).create(folder),
    };
    make().with_context(|| format!("making {}", folder.display()))
}

fn in_database(folder: &Path) -> String {
    format!("reading {}", folder.join("state.db").display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_another_process_has_changed_is_known_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (server, other) =
            (Store::open(folder.path()).unwrap(), Store::open(folder.path()).unwrap());
        for last_grant in 1..200 {
            // Some come when the write before is past, most come right after it.
            if last_grant % 50 == 0 {
                thread::sleep(SAME_TIME * 2);
                server.refresh().await.unwrap();
                assert!(server.log.known.read().unwrap().is_some());
            }
            let change = other.change(move |change| {
                let record = Record { last_grant, ..Record::default() };
                change.put("node0", record)?;
                Store::tell_others(change)
            });
            change.await.unwrap();
            server.refresh().await.unwrap();
            assert_eq!(server.record("node0").last_grant, last_grant);
        }
    }
}
