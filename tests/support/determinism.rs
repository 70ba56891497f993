//! Same input, same bytes: a command run twice in surroundings that have nothing in common
//! but its input.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use super::listing;

/// What differs from run to run although the result must not.
struct Surroundings {
    folder: &'static str,
    umask: &'static str,
    zone: &'static str,
    locale: &'static str,
    n_threads: &'static str,
    /// Added to the modification time of every input, in seconds since the Unix epoch.
    mtime_secs: u64,
}

const SURROUNDINGS: [Surroundings; 2] = [
    Surroundings {
        folder: "a",
        umask: "0022",
        zone: "UTC",
        locale: "C",
        n_threads: "1",
        mtime_secs: 1_000_000_000,
    },
    Surroundings {
        folder: "another folder, with a longer name",
        umask: "0077",
        zone: "Asia/Shanghai",
        locale: "tr_TR.UTF-8",
        n_threads: "7",
        mtime_secs: 2_000_000_000,
    },
];

/// Runs `program arguments…` in two copies of `input` and returns how the trees that it
/// left under `output` there differ: paths, modes, link targets, bytes.
///
/// # Panics
///
/// Panics if a run fails, or leaves nothing under `output`.
#[track_caller]
pub fn differences(input: &Path, program: &Path, arguments: &[&str], output: &str) -> Vec<String> {
    let scratch = super::scratch();
    let trees = SURROUNDINGS.map(|surroundings| {
        let folder = scratch.path().join(surroundings.folder);
        copy_with_mtimes(input, &folder, surroundings.mtime_secs);
        run(&surroundings, &folder, program, arguments);
        let tree = listing::of_folder(&folder.join(output));
        assert!(!tree.is_empty(), "{} left nothing under {output}", program.display());
        tree
    });
    listing::differences(&trees[0], &trees[1])
}

#[track_caller]
fn run(surroundings: &Surroundings, folder: &Path, program: &Path, arguments: &[&str]) {
    let home = folder.with_extension("home");
    std::fs::create_dir_all(&home).unwrap();
    // A shell sets the umask: the standard library cannot, and neither can safe Rust.
    let output = Command::new("/bin/sh")
        .args(["-c", "umask $1 && shift && exec \"$@\"", "sh", surroundings.umask])
        .arg(program)
        .args(arguments)
        .current_dir(folder)
        .env("HOME", home)
        .env("LANG", surroundings.locale)
        .env("LC_ALL", surroundings.locale)
        .env("RAYON_NUM_THREADS", surroundings.n_threads)
        .env("TZ", surroundings.zone)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{} {arguments:?}: {}\n{}",
        program.display(),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

fn copy_with_mtimes(from: &Path, to: &Path, mtime_secs: u64) {
    for entry in walkdir::WalkDir::new(from).sort_by_file_name() {
        let entry = entry.unwrap();
        let target: PathBuf = to.join(entry.path().strip_prefix(from).unwrap());
        if entry.file_type().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
            let mtime = SystemTime::UNIX_EPOCH + Duration::from_secs(mtime_secs);
            std::fs::File::options()
                .append(true)
                .open(&target)
                .unwrap()
                .set_modified(mtime)
                .unwrap();
        }
    }
}

#[test]
fn a_command_that_looks_only_at_its_input_leaves_the_same_tree_twice() {
    let input = super::scratch();
    super::write(input.path(), "text", "hello");
    let script = "install -d -m 755 out && install -m 640 text out/copy && ln -s copy out/link";
    assert_eq!(differences(input.path(), Path::new("/bin/sh"), &["-c", script], "out"), [""; 0]);
}

#[test]
fn whatever_leaks_into_a_tree_is_told_by_path() {
    let input = super::scratch();
    super::write(input.path(), "text", "hello");
    for (script, leak) in [
        ("pwd > out/leak", "folder"),
        ("echo $HOME > out/leak", "home"),
        ("date -d @0 > out/leak", "zone"),
        ("echo $LANG > out/leak", "locale"),
        ("echo $RAYON_NUM_THREADS > out/leak", "threads"),
        ("stat -c %Y text > out/leak", "mtime"),
        ("umask > out/leak", "umask"),
    ] {
        let script = format!("install -d -m 755 out && {script} && chmod 644 out/leak");
        let found = differences(input.path(), Path::new("/bin/sh"), &["-c", &script], "out");
        assert_eq!(found.len(), 1, "{leak}: {found:?}");
        assert!(found[0].starts_with("leak: expected 100644 "), "{leak}: {found:?}");
    }
    let script = "install -d -m 755 out && touch out/leak";
    assert_eq!(
        differences(input.path(), Path::new("/bin/sh"), &["-c", script], "out"),
        [format!(
            "leak: expected 100644 0:0 0 bytes sha256 {0}, found 100600 0:0 0 bytes sha256 {0}",
            listing::sha256(b"")
        )]
    );
}
