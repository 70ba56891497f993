//! Cluster files as users write them, good and bad, with what `nodeforge check` says of each.
//!
//! tests/corpus/README.md tells what is where and how the expectations are written.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nodeforge::cli::ClusterArgs;
use nodeforge::commands::check::{self, Found};
use nodeforge::diag::{self, Color, Diagnostic, SourceMap};
use proptest::prelude::*;

use crate::examples::{nodeforge, printed};
use crate::support;

/// The cluster files right in a folder of the repository, by paths relative to it: what is
/// drawn names them, and must be the same everywhere.
pub fn cluster_files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    files
}

/// `error DAOS-706 7:17`; in another file with its name.
pub fn expectation(path: &Path, sources: &SourceMap, found: &Diagnostic) -> String {
    let (severity, code) = (found.severity.as_str(), found.code);
    let Some(primary) = &found.primary else { return format!("{severity} {code}") };
    let place = sources.line_column(primary.span);
    let file = sources.path(primary.span.source);
    let other = match file == path {
        true => String::new(),
        false => format!("{}:", file.file_name().unwrap().to_str().unwrap()),
    };
    format!("{severity} {code} {other}{}:{}", place.line, place.column)
}

/// Whether expectations are to be written rather than compared.
fn is_updating() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some()
}

/// What is wrong with the `# expect: …` lines at the top of the file, if anything; they
/// are written anew where `UPDATE_GOLDEN` is set.
pub fn expectation_fault(
    path: &Path,
    sources: &SourceMap,
    problems: &[Diagnostic],
) -> Option<String> {
    let mut found: Vec<String> =
        problems.iter().map(|problem| expectation(path, sources, problem)).collect();
    if found.is_empty() {
        found.push("nothing".to_owned());
    }
    let text = fs::read_to_string(path).unwrap();
    let expected: Vec<&str> =
        text.lines().map_while(|line| line.strip_prefix("# expect: ")).collect();
    if expected == found {
        return None;
    }
    if is_updating() {
        let body: Vec<&str> = text.lines().skip(expected.len()).collect();
        let header: String = found.iter().map(|line| format!("# expect: {line}\n")).collect();
        fs::write(path, format!("{header}{}\n", body.join("\n"))).unwrap();
    }
    let messages: Vec<&str> = problems.iter().map(|problem| &problem.message[..]).collect();
    let path = path.display();
    Some(format!("{path}:\n  expected {expected:?}\n  found {found:?}\n  {messages:#?}"))
}

/// The cluster file and, where it says `# site: NAME`, that folder beside it.
fn arguments(path: &Path) -> ClusterArgs {
    let text = fs::read_to_string(path).unwrap();
    let site = text.lines().find_map(|line| line.strip_prefix("# site: "));
    ClusterArgs {
        cluster: path.to_owned(),
        site: site.map(|name| path.parent().unwrap().join(name)),
    }
}

fn check(path: &Path) -> Found {
    check::find(&arguments(path), None)
        .unwrap_or_else(|fault| panic!("{}: {fault:#}", path.display()))
}

/// Every bad file with what is found in it, sought once for all tests.
fn bad_files() -> &'static [(PathBuf, Found)] {
    static FOUND: OnceLock<Vec<(PathBuf, Found)>> = OnceLock::new();
    FOUND.get_or_init(|| {
        hide_secrets(Path::new(BAD));
        cluster_files(BAD).into_iter().map(|path| (path.clone(), check(&path))).collect()
    })
}

fn drawn(found: &Found) -> String {
    let problems = found.problems.iter();
    problems
        .map(|problem| format!("{}\n\n", diag::render(problem, &found.sources, Color::Never)))
        .collect()
}

const BAD: &str = "tests/corpus/bad";
const GOOD: &str = "tests/corpus/good";

/// git keeps no such modes, and a secret that others can read is one more problem.
fn hide_secrets(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    for path in support::files_below(folder, |path| path.contains("secrets/")) {
        fs::set_permissions(folder.join(path), fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[test]
fn every_bad_file_has_exactly_the_problems_it_announces() {
    let files = bad_files();
    assert!(files.len() >= 70, "only {} bad files", files.len());
    let mut wrong = Vec::new();
    for (path, found) in files {
        // Once more if the number of expectations changes, as they move the lines below them.
        let again =
            is_updating() && expectation_fault(path, &found.sources, &found.problems).is_some();
        let renewed = again.then(|| check(path));
        let found = renewed.as_ref().unwrap_or(found);
        wrong.extend(expectation_fault(path, &found.sources, &found.problems));
        if found.problems.is_empty() {
            wrong.push(format!("{}: nothing is wrong", path.display()));
        }
        let golden = path.with_extension("txt");
        let text = drawn(found);
        if fs::read_to_string(&golden).unwrap_or_default() != text {
            if is_updating() {
                fs::write(&golden, &text).unwrap();
            }
            wrong.push(format!("{} differs from what is drawn now:\n{text}", golden.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A problem without a fix is a riddle.
#[test]
fn every_error_says_where_and_what_to_do() {
    let mut wrong = Vec::new();
    for (path, found) in bad_files() {
        for problem in &found.problems {
            let tells = |text: &str| problem.message.contains(text);
            // These say in the message what is expected.
            let is_plain = tells("expected") || tells("quote") || tells("missing");
            let is_helped =
                !problem.help.is_empty() || is_plain || problem.code == diag::codes::SYNTAX;
            if problem.primary.is_none() || !is_helped || problem.message.contains('\n') {
                wrong.push(format!("{}: {} {}", path.display(), problem.code, problem.message));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn problems_come_in_one_order_however_often_they_are_sought() {
    for (path, found) in bad_files() {
        assert_eq!(drawn(found), drawn(&check(path)), "{}", path.display());
    }
}

/// Codes that no file of the corpus can give, each with the reason.
const NOT_IN_THE_CORPUS: [(&str, &str); 14] = [
    ("NF502", "only with --repodata: tests/verbs.rs"),
    ("NF508", "only build knows the size: the test below"),
    ("NF509", "reserved"),
    ("NF560", "only image and lab make machines: tests/lab.rs"),
    ("NF561", "only image and lab make machines: tests/lab.rs"),
    ("DAOS-308", "the schema takes no other word (NF104)"),
    ("DAOS-317", "control_metadata is written if and only if there are roles"),
    ("DAOS-318", "control_metadata is written if and only if there are roles"),
    ("DAOS-603", "all files take the name from one place"),
    ("DAOS-707", "the schema wants a provider (NF103)"),
    ("DAOS-717", "a path that cannot be read is refused before (NF121)"),
    ("DAOS-722", "the cluster file has no callback"),
    ("DAOS-725", "the schema takes no such number (NF105)"),
    ("DAOS-729", "no device is written"),
];

/// A file that holds what the rule of a code is about, and keeps the rule: where no file
/// `CODE-…-ok.toml` does.
const PASSING: [(&str, &str, &str); 53] = [
    ("NF100", "good/three-vms.toml", "format = 1"),
    ("NF101", "good/permissive.toml", "locale = "),
    ("NF102", "good/permissive.toml", "epel = true"),
    ("NF103", "good/one-node.toml", "[cluster]\nname = "),
    ("NF104", "good/permissive.toml", "selinux = \"permissive\""),
    ("NF105", "good/several-nets.toml", "mtu = 9000"),
    ("NF106", "good/custom-role.toml", "roles = [\"login\", \"client\"]"),
    ("NF107", "good/exclusion.toml", "[node.\"srv[01,05-06]\"]"),
    ("NF108", "good/vlan.toml", "include = [\"site/lab.toml\"]"),
    ("NF109", "good/several-nets.toml", "csv = \"site/lab.csv\""),
    ("NF110", "good/exclusion.toml", "srv[01-16]!srv[03,13]"),
    ("NF111", "good/three-vms.toml", "format = 1"),
    ("NF112", "good/sixteen-servers.toml", "columns = ["),
    ("NF113", "good/kdev.toml", "list = ["),
    ("NF114", "good/exclusion.toml", "csv = \"site/holes.csv\""),
    ("NF115", "good/overlay-of-the-site.toml", "contact = "),
    ("NF117", "good/roce.toml", "allow = [\"DAOS-706\"]"),
    ("NF118", "good/firewall-and-selinux.toml", "remove = ["),
    ("NF119", "good/several-nets.toml", "[net.fabric]"),
    ("NF120", "good/sixteen-servers.toml", "fault_path = \"/{rack}/{name}\""),
    ("NF121", "good/permissive.toml", "sysctl = ["),
    ("NF201", "good/three-vms.toml", "domain = \"trio.test\""),
    ("NF202", "good/three-vms.toml", "[node.vm2]"),
    ("NF203", "good/three-vms.toml", "nic.mgmt.mac = "),
    ("NF204", "good/three-vms.toml", "nic.mgmt.ip = "),
    ("NF205", "good/several-nets.toml", "subnet = \"10.10.0.0/16\""),
    ("NF206", "good/custom-role.toml", "profile = \"client\""),
    ("NF207", "good/sixteen-servers.toml", "\"guid.fab0\""),
    ("NF208", "good/several-nets.toml", "10.10.0.1 + {index} * 256"),
    ("NF209", "good/three-vms.toml", "name = \"lan0\""),
    ("NF210", "good/one-node.toml", "boot = true"),
    ("NF213", "good/three-vms.toml", "gateway = "),
    ("NF214", "good/sixteen-servers.toml", "per = 4"),
    ("NF215", "good/permissive.toml", "baseurl = "),
    ("NF216", "good/sixteen-servers.toml", "\"serial\""),
    ("NF217", "good/mlnx-ofed-archive.toml", "archive = "),
    ("NF301", "good/own/overlays/motd/rootfs/etc/motd.hbs", "{{node.name}}"),
    ("NF302", "good/own/overlays/motd/rootfs/etc/motd.hbs", "{{vars.contact}}"),
    ("NF303", "../../overlays/repos/rootfs/etc/yum.repos.d/daos.repo.hbs", "{{>"),
    ("NF304", "good/one-node.toml", "/var/daos/bdev0"),
    ("NF305", "good/own/overlays/handover/overlay.toml", "mode = \"0400\""),
    ("NF306", "good/overlay-of-the-site.toml", "overlays = [\"motd\"]"),
    ("NF307", "good/overlay-with-owner.toml", "overlays = [\"handover\"]"),
    ("NF308", "good/three-vms.toml", "ssh_keys = ["),
    ("NF401", "good/three-vms.toml", "root_password = { file = "),
    ("NF402", "good/three-vms.toml", "secrets/root.sha512"),
    ("NF403", "good/three-vms.toml", "secrets/root.sha512"),
    ("NF404", "good/certificates.toml", "certificates = { dir = "),
    ("NF501", "good/custom-role.toml", "vim-enhanced"),
    ("NF503", "good/site/metal.toml", "install_disk = { by_path = "),
    ("NF504", "good/site/metal.toml", "nvme.numa0 = ["),
    ("NF508", "good/embedded-secrets.toml", "overlay = \"embedded\""),
    ("NF540", "good/own/overlays/handover/overlay.toml", "owner = \"daos_server:daos_server\""),
];

/// Of secrets that are made before the file is built: until then check warns of them.
const PASSING_ONCE_MADE: [&str; 3] = ["NF402", "NF403", "NF404"];

/// What is announced at the top of the corpus's files: the code and the path of each line.
fn announced() -> Vec<(String, PathBuf)> {
    let files = [BAD, GOOD, "tests/corpus/daos"].into_iter().flat_map(cluster_files);
    let mut announced = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        for line in text.lines().map_while(|line| line.strip_prefix("# expect: ")) {
            let mut words = line.split(' ').skip(1);
            // A problem without a place would prove nothing of it.
            if let (Some(code), Some(_place)) = (words.next(), words.next()) {
                announced.push((code.to_owned(), path.clone()));
            }
        }
    }
    announced
}

/// The other tests hold every file to what it announces.
#[test]
fn every_code_has_a_failing_and_a_passing_case() {
    let announced = announced();
    let ok_files: Vec<String> = cluster_files("tests/corpus/daos")
        .into_iter()
        .filter(|path| fs::read_to_string(path).unwrap().starts_with("# expect: nothing\n"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|name| name.ends_with("-ok"))
        .collect();
    let fails = |code: &str| announced.iter().any(|(announced, _)| announced == code);
    let passes = |code: &str| {
        let start = format!("{}-", code.to_lowercase());
        let holds = |(of, path, text): &(&str, &str, &str)| {
            let is_clean = PASSING_ONCE_MADE.contains(&code)
                || !announced.iter().any(|(at, file)| at == code && file.ends_with(path));
            let file = fs::read_to_string(Path::new("tests/corpus").join(path)).unwrap();
            *of == code && is_clean && file.contains(text)
        };
        ok_files.iter().any(|name| name.starts_with(&start)) || PASSING.iter().any(holds)
    };
    let mut wrong = Vec::new();
    let all = diag::codes::MEANINGS.iter().chain(diag::codes::DAOS_MEANINGS);
    let all: Vec<&str> = all.map(|meaning| meaning.code.as_str()).collect();
    for code in &all {
        let exception = NOT_IN_THE_CORPUS.iter().find(|(excepted, _)| excepted == code);
        match (exception, fails(code)) {
            (None, false) => wrong.push(format!("{code}: no failing case")),
            (Some((_, reason)), true) => {
                wrong.push(format!("{code}: fails, in spite of: {reason}"))
            }
            _ => {}
        }
        if exception.is_none() && !passes(code) {
            wrong.push(format!("{code}: no passing case"));
        }
    }
    let excepted = NOT_IN_THE_CORPUS.iter().map(|(code, _)| *code);
    let named = excepted.chain(PASSING.iter().map(|(code, ..)| *code));
    wrong.extend(named.filter(|code| !all.contains(code)).map(|code| format!("{code} is no code")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let reserved: Vec<&str> = diag::codes::RESERVED.iter().map(|code| code.as_str()).collect();
    let excepted = |reason: &str| {
        let found = NOT_IN_THE_CORPUS.iter().filter(|(_, why)| *why == reason);
        found.map(|(code, _)| *code).collect::<Vec<_>>()
    };
    assert_eq!(excepted("reserved"), reserved);
}

/// NF508: only build knows how large the archives are.
#[test]
fn layers_above_a_mebibyte_are_not_put_into_a_kickstart() {
    let folder = support::scratch();
    let base = fs::canonicalize("tests/corpus/good/site/mgmt-engine.toml").unwrap();
    support::write(
        folder.path(),
        "cluster.toml",
        format!(
            "format = 1\ninclude = [\"{}\"]\n[boot]\noverlay = \"embedded\"\n[os]\noverlays = [\"big\"]\n",
            base.display()
        ),
    );
    let overlay = "site/overlays/big";
    support::write(folder.path(), &format!("{overlay}/overlay.toml"), "description = \"Big\"\n");
    // Noise that gzip makes no smaller (a linear congruential generator).
    let mut state = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    })
    .take(1_200_000)
    .collect();
    support::write(folder.path(), &format!("{overlay}/rootfs/var/lib/big"), noise);
    let output = Command::new(nodeforge())
        .args(["build", "cluster.toml", "--site", "site", "-o", "out"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("error[NF508]") && said.contains("cluster.toml:4:11"), "{said}");
    assert!(!folder.path().join("out/current").exists());
}

fn run(arguments: &[&str]) -> Output {
    Command::new(nodeforge()).args(arguments).output().unwrap()
}

#[test]
fn build_writes_nothing_for_a_file_with_errors() {
    let scratch = support::scratch();
    let with_errors =
        bad_files().iter().filter(|(_, found)| found.problems.iter().any(Diagnostic::is_error));
    for (at, (path, _)) in with_errors.step_by(9).enumerate() {
        let args = arguments(path);
        let out = scratch.path().join(format!("out{at}"));
        let mut command = vec!["build", path.to_str().unwrap(), "-o", out.to_str().unwrap()];
        let site = args.site.unwrap_or_default();
        if !site.as_os_str().is_empty() {
            command.extend(["--site", site.to_str().unwrap()]);
        }
        let output = run(&command);
        assert_eq!(output.status.code(), Some(1), "{}", path.display());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.ends_with("; nothing was built\n"), "{}: {said}", path.display());
        assert!(!out.exists(), "{}", path.display());
    }
}

#[test]
fn a_secret_that_only_build_needs_stops_it_before_anything_is_written() {
    let scratch = support::scratch();
    let (path, out) = (format!("{BAD}/secrets-unreadable.toml"), scratch.path().join("out"));
    assert_eq!(run(&["check", &path]).status.code(), Some(0));
    assert_eq!(run(&["check", &path, "--deny", "warnings"]).status.code(), Some(1));
    assert_eq!(run(&["build", &path, "-o", out.to_str().unwrap()]).status.code(), Some(1));
    assert!(!out.exists());
}

#[test]
fn json_names_file_line_and_column_of_each_problem() {
    let path = format!("{BAD}/csv-faults.toml");
    let output = run(&["check", &path, "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let list = list.as_array().unwrap();
    assert_eq!(list.len(), check(Path::new(&path)).problems.len());
    for problem in list {
        assert!(problem["file"].as_str().unwrap().starts_with(BAD), "{problem}");
        assert!(problem["line"].as_u64().unwrap() >= 1, "{problem}");
        assert!(problem["column"].as_u64().unwrap() >= 1, "{problem}");
    }
}

#[test]
fn exit_codes_tell_problems_from_wrong_command_lines() {
    let bad = format!("{BAD}/keys-top-level.toml");
    for (arguments, code) in [
        (vec!["check", &bad[..]], 1),
        (vec!["check", "tests/corpus/nowhere.toml"], 1),
        (vec!["check"], 2),
        (vec!["check", &bad, "--denny", "warnings"], 2),
        (vec!["check", &bad, "--deny", "everything"], 2),
        (vec!["chekc", &bad], 2),
    ] {
        assert_eq!(run(&arguments).status.code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn every_good_file_has_no_error_and_ten_of_release_8_10_have_nothing() {
    let files = cluster_files(GOOD);
    assert!(files.len() >= 20, "only {} good files", files.len());
    let (mut wrong, mut n_spotless) = (Vec::new(), 0);
    for path in &files {
        let mut found = check(path);
        if is_updating() && expectation_fault(path, &found.sources, &found.problems).is_some() {
            found = check(path);
        }
        wrong.extend(expectation_fault(path, &found.sources, &found.problems));
        let errors: Vec<&Diagnostic> =
            found.problems.iter().filter(|problem| problem.is_error()).collect();
        if !errors.is_empty() {
            wrong.push(format!("{}: {}", path.display(), drawn(&found)));
        }
        let is_8_10 = found.cluster.is_some_and(|cluster| {
            cluster.kinds.iter().all(|kind| kind.os.release.value == "8.10")
        });
        n_spotless += usize::from(is_8_10 && found.problems.is_empty());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(n_spotless >= 10, "only {n_spotless} of release 8.10 have nothing");
}

#[test]
fn every_good_file_builds_and_verifies() {
    let scratch = support::scratch();
    for path in support::files_below(Path::new(GOOD), |path| !path.contains("secrets/")) {
        support::write(scratch.path(), &path, fs::read(Path::new(GOOD).join(&path)).unwrap());
    }
    let files = cluster_files(GOOD);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    build_and_verify(scratch.path(), path);
                }
            });
        }
    });
}

/// Builds a copy of the file in `folder`, with secrets that are made for it where it names some.
fn build_and_verify(folder: &Path, path: &Path) {
    let args = arguments(path);
    let name = path.file_name().unwrap().to_str().unwrap();
    let text = fs::read_to_string(path).unwrap();
    if text.contains("secrets/") {
        let mut child = Command::new(nodeforge())
            .args(["secrets", "init", name, "--password-stdin"])
            .current_dir(folder)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"correct horse\n").unwrap();
        assert!(child.wait().unwrap().success(), "secrets of {name}");
    }
    let out = format!("out-{name}");
    let mut arguments = vec!["build", name, "-o", &out, "--cache", "cache"];
    let site = args.site.map(|site| site.file_name().unwrap().to_str().unwrap().to_owned());
    if let Some(site) = &site {
        arguments.extend(["--site", site]);
    }
    printed(folder, &arguments);
    printed(folder, &["verify", &out]);
}

/// A rule for 512 nodes that goes wrong is one problem with one range, not 512.
#[test]
fn a_slip_in_a_range_of_512_nodes_is_one_problem() {
    let found = check(Path::new("tests/corpus/bad/ranges-of-512-nodes.toml"));
    let messages: Vec<&str> = found.problems.iter().map(|problem| &problem.message[..]).collect();
    assert_eq!(
        messages,
        [
            "the address of srv[001-512] lies outside 192.168.3.0/24 of net `mgmt`",
            "`srv002` has the MAC address of `srv001`: 52:54:00:03:00:99, and 510 more such",
        ]
    );
}

/// One change to a cluster file, somewhere in it.
#[derive(Clone, Debug)]
enum Change {
    /// Puts another byte in place of one.
    Byte(prop::sample::Index, u8),
    /// Leaves a line out.
    NoLine(prop::sample::Index),
    /// Puts a word in the place of another one.
    Words(prop::sample::Index, prop::sample::Index),
}

impl Change {
    fn any() -> impl Strategy<Value = Self> {
        let index = any::<prop::sample::Index>;
        prop_oneof![
            (index(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
            index().prop_map(Change::NoLine),
            (index(), index()).prop_map(|(a, b)| Change::Words(a, b)),
        ]
    }

    fn apply(&self, text: &str) -> String {
        if text.is_empty() {
            return String::new();
        }
        match self {
            Change::Byte(at, byte) => {
                let mut bytes = text.as_bytes().to_vec();
                bytes[at.index(text.len())] = *byte;
                String::from_utf8_lossy(&bytes).into_owned()
            }
            Change::NoLine(at) => {
                let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
                lines.remove(at.index(lines.len()));
                lines.concat()
            }
            Change::Words(a, b) => {
                let mut words: Vec<&str> = text.split_inclusive([' ', '\n', '"', '.']).collect();
                let (a, b) = (a.index(words.len()), b.index(words.len()));
                words.swap(a, b);
                words.concat()
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn check_survives_any_slip_in_an_example(
        example in prop::sample::select(vec!["lab3.toml", "titan-small.toml"]),
        changes in prop::collection::vec(Change::any(), 1..6),
    ) {
        let folder = support::scratch();
        let examples = Path::new("examples");
        for name in ["lab3.toml", "titan.toml", "os-alma89.toml", "inventory.csv"] {
            let text = fs::read_to_string(examples.join(name)).unwrap();
            fs::write(folder.path().join(name), text).unwrap();
        }
        // 512 nodes say no more than 16, in a fraction of the time.
        let titan = fs::read_to_string(examples.join("titan.toml")).unwrap();
        let titan = titan.replace("[001-512]", "[001-016]").replace("r[01-32]", "r[01-02]");
        fs::write(folder.path().join("titan-small.toml"), titan).unwrap();
        let path = folder.path().join(example);
        let text = fs::read_to_string(&path).unwrap();
        let changed = changes.iter().fold(text, |text, change| change.apply(&text));
        fs::write(&path, &changed).unwrap();
        let started = Instant::now();
        let found = check::find(&ClusterArgs { cluster: path, site: None }, None);
        if let Ok(found) = found {
            let text = drawn(&found);
            let has_escape = text.contains('\u{1b}');
            prop_assert!(!has_escape);
        }
        prop_assert!(started.elapsed() < Duration::from_secs(10));
    }
}
