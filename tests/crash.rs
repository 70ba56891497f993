//! Builds that are killed, run out of space, or meet a disk that fails; and readers beside builds.
//!
//! strace(1) is the failing machine: it kills the program, or makes one of its system calls
//! fail, at a call chosen by number. So each point is exactly one place between two changes of
//! the filesystem, whatever the machine's speed, and a failure can be repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nodeforge::manifest::{FileEntry, Manifest};
use nodeforge::output::verify;

use crate::examples::nodeforge;
use crate::support;

/// Every call that changes a file, a folder or a link, and those that bring them to disk.
const CHANGING_CALLS: &str = "chmod,fchmod,fsync,link,linkat,mkdir,mkdirat,openat,rename,renameat,\
                              renameat2,rmdir,symlink,symlinkat,syncfs,unlink,unlinkat,write";

/// The calls of which a publication consists, and no files of nodes.
const PUBLISHING_CALLS: &str = "fsync,link,linkat,rename,renameat,renameat2,rmdir,symlink,\
                                symlinkat,syncfs,unlink,unlinkat";

/// Those that a full or a broken disk refuses.
const FAILING_CALLS: &str = "fsync,link,linkat,mkdir,mkdirat,rename,renameat,renameat2,symlink,\
                             symlinkat,syncfs,write";

/// So many versions of a cluster that what one leaves in the store is gone when it comes again.
const N_VERSIONS: u64 = 8;

/// Of the password "crash".
const ROOT_HASH: &str = "$6$saltsaltsaltsalt$Hu4YTkHag2rBaqkc0WmDW08TFnqD9VmPHf4miY6rZKN5y..LJvX/Qhu9svpiZgApAZ5xZcQIwCfFJn0/95nOb/\n";

/// A call of one name, by its number among those of the same name in its thread: strace counts
/// them so.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    call: String,
    number: u64,
}

/// A folder with a cluster file that has [`N_VERSIONS`] versions, and an output folder.
struct World {
    folder: tempfile::TempDir,
    /// xorshift64 (G. Marsaglia, "Xorshift RNGs", 2003).
    state: u64,
    /// The manifest of each version, as a build from nothing lists it.
    manifests: Vec<Vec<u8>>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self { folder: support::scratch(), state: seed, manifests: Vec::new() };
        fs::write(world.path("root.sha512"), ROOT_HASH).unwrap();
        support::set_mode(world.folder.path(), "root.sha512", 0o600);
        for version in 0..N_VERSIONS {
            world.write_version(version);
            world.succeed(&["build", "cluster.toml", "--cache", "none", "-o", "clean"]);
            world.manifests.push(manifest_of(&world.path("clean/current")));
            fs::remove_dir_all(world.path("clean")).unwrap();
        }
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % limit
    }

    /// One node's serial number is the version's, and so is a value in the layer of all nodes.
    fn write_version(&self, version: u64) {
        let timezone = format!("Etc/GMT+{version}");
        let text = format!(
            r#"format = 1
[cluster]
name = "crash"
timezone = "{timezone}"
[boot]
url = "http://10.0.0.2:8080"
secrets = "media"
[os]
release = "8.10"
root_password = {{ file = "root.sha512" }}
[daos]
version = "2.6.5"
provider = "ofi+tcp;ofi_rxm"
access_points = ["srv1"]
security = "insecure"
system_ram_reserved = "1GiB"
[net.lan]
subnet = "10.0.0.0/24"
[hw.pc]
firmware = "uefi"
memory = "16GiB"
cores = 8
install_disk = {{ bus = "sata", min = "120GiB" }}
nic.lan = {{ name = "lan0", net = "lan", boot = true }}
[role.server]
run_as = "root"
kernel_args = ["transparent_hugepage=never"]
[[role.server.engine]]
targets = 1
fabric = "lan"
scm = {{ class = "ram", size = "4GiB" }}
bdev = [{{ class = "file", list = ["/var/daos/bdev0"], size = "8GiB", roles = ["wal", "meta", "data"] }}]
[node.srv1]
hw = "pc"
roles = ["admin", "server"]
nic.lan = {{ ip = "10.0.0.10", mac = "02:00:00:00:00:10" }}
[node.cli1]
hw = "pc"
roles = ["client"]
serial = "S{version}"
nic.lan = {{ ip = "10.0.0.11", mac = "02:00:00:00:00:11" }}
"#
        );
        fs::write(self.path("cluster.toml"), text).unwrap();
    }

    /// Runs the program to its end, which must be a good one.
    #[track_caller]
    fn succeed(&self, arguments: &[&str]) {
        let output = self.command(nodeforge(), &[], arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    }

    /// Runs the program under strace, which does `what` to it at one call.
    fn run_at(&self, point: &Point, what: &str, arguments: &[&str]) -> Output {
        self.run_with(&point.call, &format!("{what}:when={}", point.number), arguments)
    }

    fn run_with(&self, calls: &str, what: &str, arguments: &[&str]) -> Output {
        let inject = format!("inject={calls}:{what}");
        let program = nodeforge().to_str().unwrap();
        let traced = ["-f", "-qq", "-o", "trace", "-e", &format!("trace={calls}"), "-e", &inject];
        let strace = support::find_program("strace").expect("the test asked for it");
        self.command(&strace, &[&traced[..], &[program]].concat(), arguments).output().unwrap()
    }

    fn command(&self, program: &Path, before: &[&str], arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(before).args(arguments).current_dir(self.folder.path());
        // One thread: calls have the same numbers in each run.
        command.env("RAYON_NUM_THREADS", "1").env("LC_ALL", "C.UTF-8");
        command
    }

    /// The calls among `calls` that a whole run makes, but for those by whose number a thread may
    /// tell something on the terminal: what cannot be told is another matter.
    fn points(&self, calls: &str, arguments: &[&str]) -> Vec<Point> {
        let output = self.run_with(calls, "delay_enter=0:when=1", arguments);
        assert!(output.status.success(), "{}", said(&output));
        let trace = fs::read_to_string(self.path("trace")).unwrap();
        let mut counts = BTreeMap::<(&str, &str), u64>::new();
        let (mut points, mut told) = (BTreeSet::new(), BTreeSet::new());
        for line in trace.lines() {
            let Some((thread, call)) = line.split_once(' ') else { continue };
            let call = call.trim_start();
            let Some((name, _)) = call.split_once('(') else { continue };
            if !calls.split(',').any(|known| known == name) {
                continue;
            }
            let number = counts.entry((thread, name)).or_default();
            *number += 1;
            let point = Point { call: name.to_owned(), number: *number };
            match call.starts_with("write(1,") || call.starts_with("write(2,") {
                true => told.insert(point),
                false => points.insert(point),
            };
        }
        // A run that fails tells more: as many calls again are left alone.
        let n_told = told.into_iter().map(|point| point.number).max().unwrap_or(0);
        let is_free = |point: &Point| point.call != "write" || point.number > 2 * n_told + 8;
        points.into_iter().filter(is_free).collect()
    }

    /// The version whose manifest stands below `current`; `None` if nothing does. All that it
    /// lists must be there.
    #[track_caller]
    fn current(&self, at: &str) -> Option<u64> {
        let out = self.path("out");
        if fs::symlink_metadata(out.join("current")).is_err() {
            return None;
        }
        let verification = verify(&out).unwrap();
        assert!(verification.is_good(), "{at}: {verification:?}");
        let manifest = manifest_of(&out.join("current"));
        let version = self.manifests.iter().position(|known| *known == manifest);
        Some(version.unwrap_or_else(|| panic!("{at}: no build gives this manifest")) as u64)
    }

    /// Nothing is left but what generations refer to.
    #[track_caller]
    fn assert_nothing_stale(&self, at: &str) {
        let out = self.path("out");
        assert!(!out.join(".staging").exists(), "{at}: the staging folder is still there");
        let mut wanted = BTreeSet::new();
        for generation in names_in(&out.join("generations")) {
            let manifest = manifest_of(&out.join("generations").join(&generation));
            let manifest = Manifest::from_json(&manifest).unwrap();
            wanted.extend(manifest.folders().map(|(_, folder)| folder.digest.to_string()));
        }
        assert_eq!(names_in(&out.join("store")), wanted, "{at}");
    }
}

fn manifest_of(generation: &Path) -> Vec<u8> {
    fs::read(generation.join("manifest.json")).unwrap()
}

fn names_in(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const BUILD: &[&str] = &["build", "cluster.toml", "--cache", "none", "-o", "out"];

/// What a build that is killed finds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    Nothing,
    OldGeneration,
}

/// Kills builds at `n_points` of their `calls`.
#[track_caller]
fn kill_builds(n_points: u64, calls: &str, seed: u64, start: Start) {
    if support::lacks(&["strace"]) {
        return;
    }
    let mut world = World::new(seed);
    if start == Start::OldGeneration {
        world.write_version(0);
        world.succeed(BUILD);
    }
    world.write_version(1);
    let points = world.points(calls, BUILD);
    let mut n_killed = 0;
    for round in 0..n_points {
        if start == Start::Nothing {
            fs::remove_dir_all(world.path("out")).unwrap();
        }
        let version = (round + 2) % N_VERSIONS;
        world.write_version(version);
        let old = world.current("before");
        let point = &points[world.below(points.len() as u64) as usize];
        let at = format!("seed {seed:#x}, round {round}, {point:?}");
        let output = world.run_at(point, "signal=SIGKILL", BUILD);
        n_killed += u64::from(!output.status.success());
        let found = world.current(&at);
        assert!(found == old || found == Some(version), "{at}: {old:?} became {found:?}");
        world.succeed(BUILD);
        assert_eq!(world.current(&at), Some(version), "{at}");
        world.assert_nothing_stale(&at);
    }
    // The last calls of some runs are beyond the end of others.
    assert!(n_killed * 20 >= n_points * 19, "only {n_killed} of {n_points} were killed");
}

#[test]
fn a_first_build_killed_anywhere_leaves_nothing_or_all_of_it() {
    kill_builds(40, CHANGING_CALLS, 0x5eed_0011, Start::Nothing);
}

#[test]
fn a_build_of_what_changed_killed_anywhere_leaves_the_old_or_the_new() {
    kill_builds(60, CHANGING_CALLS, 0x5eed_0012, Start::OldGeneration);
}

#[test]
fn a_publication_killed_anywhere_leaves_the_old_or_the_new() {
    kill_builds(40, PUBLISHING_CALLS, 0x5eed_0013, Start::OldGeneration);
}

#[test]
fn a_rollback_killed_anywhere_leaves_the_old_or_the_new() {
    if support::lacks(&["strace"]) {
        return;
    }
    let mut world = World::new(0x5eed_0014);
    for version in [0, 1] {
        world.write_version(version);
        world.succeed(BUILD);
    }
    let rollback =
        |to: u64| ["rollback".to_owned(), (to + 1).to_string(), "-o".into(), "out".into()];
    let (mut points, mut current, mut n_killed) = (Vec::new(), 1, 0);
    for round in 0..=60 {
        let to = 1 - current;
        let arguments = rollback(to);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        if round == 0 {
            points = world.points(CHANGING_CALLS, &arguments);
            current = to;
            continue;
        }
        let point = &points[world.below(points.len() as u64) as usize];
        let at = format!("round {round}, {point:?}");
        let output = world.run_at(point, "signal=SIGKILL", &arguments);
        n_killed += u64::from(!output.status.success());
        let found = world.current(&at);
        assert!(found == Some(current) || found == Some(to), "{at}: {found:?}");
        world.succeed(&arguments);
        assert_eq!(world.current(&at), Some(to), "{at}");
        current = to;
    }
    assert!(n_killed > 50, "only {n_killed} were killed");
    // What killed rollbacks left goes with the next build.
    world.write_version(2);
    world.succeed(BUILD);
    world.assert_nothing_stale("after the rollbacks");
}

/// Lets one call of a build fail, at points all over it.
#[track_caller]
fn fail_builds(error: &str, message: &str, seed: u64) {
    if support::lacks(&["strace"]) {
        return;
    }
    let mut world = World::new(seed);
    world.write_version(0);
    world.succeed(BUILD);
    world.write_version(1);
    let points = world.points(FAILING_CALLS, BUILD);
    let mut n_refused = 0;
    for round in 0..20 {
        let version = (round + 2) % N_VERSIONS;
        world.write_version(version);
        let old = world.current("before");
        let point = &points[world.below(points.len() as u64) as usize];
        let at = format!("{error} at {point:?}");
        let output = world.run_at(point, &format!("error={error}"), BUILD);
        let found = world.current(&at);
        let said = said(&output);
        match output.status.code() {
            Some(0) => assert_eq!(found, Some(version), "{at}: {said}"),
            Some(1) => {
                n_refused += 1;
                assert!(found == old || found == Some(version), "{at}: {old:?} -> {found:?}");
                let tells =
                    said.lines().any(|line| line.starts_with("error: ") && line.contains(message));
                assert!(tells, "{at}: {said}");
            }
            code => panic!("{at}: exit code {code:?}: {said}"),
        }
        world.succeed(BUILD);
        assert_eq!(world.current(&at), Some(version), "{at}");
        world.assert_nothing_stale(&at);
    }
    assert!(n_refused > 10, "only {n_refused} builds met the failing disk");
}

#[test]
fn a_full_disk_is_told_and_leaves_the_old_generation() {
    fail_builds("ENOSPC", "No space left on device", 0x5eed_0015);
}

#[test]
fn a_broken_disk_is_told_and_leaves_the_old_generation() {
    fail_builds("EIO", "Input/output error", 0x5eed_0016);
}

const N_REBUILDS: u64 = 100;
const N_READS: u64 = 1_000_000;

#[test]
fn readers_beside_rebuilds_find_every_file_whole_and_of_one_generation() {
    let world = World::new(0x5eed_0017);
    world.write_version(0);
    world.succeed(BUILD);
    let mut known = BTreeMap::<String, Vec<FileEntry>>::new();
    for manifest in &world.manifests {
        for artifact in Manifest::from_json(manifest).unwrap().artifacts() {
            known.entry(artifact.name).or_default().push(artifact.file);
        }
    }
    let (is_done, n_reads) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut n_generations = 0;
            while !is_done.load(Ordering::Relaxed) || n_reads.load(Ordering::Relaxed) < N_READS {
                n_reads.fetch_add(read_generation(&world.path("out"), &known), Ordering::Relaxed);
                n_generations += 1;
            }
            n_generations
        });
        for build in 1..=N_REBUILDS {
            if reader.is_finished() {
                break; // It found something, which joining it tells.
            }
            world.write_version(build % N_VERSIONS);
            world.succeed(BUILD);
        }
        is_done.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > N_REBUILDS);
    });
    assert!(n_reads.into_inner() >= N_READS);
}

/// Reads small files of the current generation over and over, as a boot server does, and of
/// `current` itself; returns how many were read. `known` has all that may stand at a name.
fn read_generation(out: &Path, known: &BTreeMap<String, Vec<FileEntry>>) -> u64 {
    const N_ROUNDS: u64 = 20;
    let current = out.join("current");
    let target = fs::read_link(&current).expect("current is always there");
    let generation = out.join(&target);
    // Five generations stay. A reader that was stopped for so many builds is too late.
    let is_late = || {
        let number = |target: &Path| -> u64 {
            target.file_name().unwrap().to_str().unwrap().parse().unwrap()
        };
        number(&fs::read_link(&current).unwrap()) >= number(&target) + 5
    };
    let mut n_reads = 0;
    for _ in 0..N_ROUNDS {
        let manifest = match fs::read(generation.join("manifest.json")) {
            Err(_) if is_late() => return n_reads,
            read => Manifest::from_json(&read.expect("a generation has a manifest")).unwrap(),
        };
        for artifact in manifest.artifacts().filter(|it| it.file.size < 8192) {
            let path = generation.join(&artifact.name);
            match fs::read(&path) {
                Err(_) if is_late() => return n_reads,
                Err(fault) => panic!("{path:?}: {fault}"),
                Ok(bytes) => assert_eq!(FileEntry::of(&bytes), artifact.file, "{path:?}"),
            }
            let bytes = fs::read(current.join(&artifact.name)).expect("no file is ever missing");
            let is_known = known[&artifact.name].contains(&FileEntry::of(&bytes));
            assert!(is_known, "current/{} is of no build", artifact.name);
            n_reads += 2;
        }
    }
    n_reads
}
