//! What every test may use: programs, scratch folders, listings of trees.

pub mod determinism;
pub mod listing;

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// Whether a test has to be skipped because one of `programs` is not installed.
///
/// Says so on the real standard error, past the test runner's capture.
///
/// # Panics
///
/// Panics instead where `CI` is set: a judge that is missing there has judged nothing.
#[track_caller]
pub fn lacks(programs: &[&str]) -> bool {
    let missing: Vec<&str> =
        programs.iter().copied().filter(|program| find_program(program).is_none()).collect();
    if missing.is_empty() {
        return false;
    }
    let missing = missing.join(", ");
    assert!(
        std::env::var_os("CI").is_none(),
        "{missing}: not installed; scripts/setup-tests installs what the tests need"
    );
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("\nSKIPPED {test}: {missing} missing; run scripts/setup-tests\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    true
}

/// Where `program` is: in the tests' own Python environment, on `PATH`, or where Debian
/// puts a user's programs and root's.
pub fn find_program(program: &str) -> Option<PathBuf> {
    let tool = match program {
        KERNEL => Some(guest_kernel()),
        STAND_IN => Some(stand_in_system()),
        _ => None,
    };
    if tool.is_some() {
        return tool.filter(|path| path.exists());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::iter::once(tools_dir().join("python/bin"))
        .chain(std::env::split_paths(&path))
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

/// `PATH` with all folders where [`find_program`] looks.
pub fn path() -> std::ffi::OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let folders = std::iter::once(tools_dir().join("python/bin"));
    std::env::join_paths(folders.chain(std::env::split_paths(&path)).chain(more)).unwrap()
}

/// Where `program` is that every machine with the tests has; see [`find_program`].
#[track_caller]
pub fn program(program: &str) -> PathBuf {
    find_program(program).unwrap_or_else(|| panic!("`{program}` is missing here"))
}

/// Python itself, not a wrapper that looks for more programs.
pub fn python() -> String {
    let output = command("python3").args(["-c", "import sys; print(sys.executable)"]).output();
    String::from_utf8(output.expect("python3 is missing here").stdout).unwrap().trim().to_owned()
}

/// The name under which [`lacks`] looks for the kernel that boot tests start.
pub const KERNEL: &str = "the guest kernel";

/// The name under which [`lacks`] looks for the system that boot tests install on.
pub const STAND_IN: &str = "the stand-in system";

/// An ext4 filesystem with a small Debian, as `scripts/make-stand-in` made it.
pub fn stand_in_system() -> PathBuf {
    tools_dir().join("stand-in/root.ext4")
}

/// The same as an archive.
pub fn stand_in_archive() -> PathBuf {
    tools_dir().join("stand-in/root.tar")
}

/// The root of an installer, with that system in it, as `scripts/make-stand-in` made it.
pub fn install_img() -> PathBuf {
    tools_dir().join("stand-in/install.img")
}

/// The binary of tests/fakes, built once: cargo knows no variable for it.
#[track_caller]
pub fn fakes() -> &'static Path {
    static FAKES: OnceLock<PathBuf> = OnceLock::new();
    FAKES.get_or_init(|| {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| env!("CARGO").to_owned());
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("tmp is in target");
        let output = Command::new(cargo)
            .args(["test", "--no-run", "--locked", "--test", "fakes"])
            .args(["--message-format=json", "--target-dir"])
            .arg(target)
            .current_dir(repository())
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        let messages = String::from_utf8(output.stdout).unwrap();
        let messages = messages.lines().map(|line| {
            serde_json::from_str::<serde_json::Value>(line).expect("cargo speaks JSON")
        });
        let built = messages.filter(|message| message["target"]["name"] == "fakes");
        let mut executable =
            built.filter_map(|message| message["executable"].as_str().map(PathBuf::from));
        executable.next_back().expect("cargo builds the fakes")
    })
}

/// Debian's cloud kernel, as `scripts/setup-tests` unpacked it.
pub fn guest_kernel() -> PathBuf {
    tools_dir().join("kernel/vmlinuz")
}

/// A module of the guest kernel by its path below `kernel/`, such as `fs/fat/vfat.ko`.
///
/// # Panics
///
/// Panics where `scripts/setup-tests` did not take it.
pub fn guest_module(path: &str) -> PathBuf {
    let mut kernels = std::fs::read_dir(tools_dir().join("kernel/modules")).unwrap();
    let kernel = kernels.next().expect("there is a kernel").unwrap().path();
    let module = kernel.join("kernel").join(path);
    assert!(module.is_file(), "{}: run scripts/setup-tests", module.display());
    module
}

/// `test-tools` in the target folder, filled by `scripts/setup-tests`.
fn tools_dir() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("tmp is in target");
    target.join("test-tools")
}

/// A command for `program`, with a plain locale, UTC and no standard input.
///
/// # Panics
///
/// Panics where the program is missing: a test asks [`lacks`] first.
#[track_caller]
pub fn command(program: &str) -> Command {
    let path = find_program(program).unwrap_or_else(|| panic!("{program}: not installed"));
    let mut command = Command::new(path);
    command.env("LC_ALL", "C.UTF-8").env("TZ", "UTC").stdin(Stdio::null());
    command
}

/// Runs `program` to its end; the caller judges its exit code and output.
#[track_caller]
pub fn run<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> Output {
    command(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("starting {program}: {error}"))
}

/// Both streams of `program`, which has to find nothing wrong.
///
/// # Panics
///
/// Panics, with all it said, if it does not exit 0.
#[track_caller]
pub fn judged(program: &str, arguments: &[&str]) -> String {
    let output = run(program, arguments);
    let said = spoken_lines(&output).join("\n");
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    said
}

/// Runs one of the Python judges beside the Rust ones.
#[track_caller]
pub fn run_judge<S: AsRef<OsStr>>(script: &str, arguments: &[S]) -> Output {
    let script = repository().join("tests/oracles").join(script);
    command("python")
        .arg(script)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("starting python: {error}"))
}

/// Both streams of a finished program, as text, without blank lines.
pub fn spoken_lines(output: &Output) -> Vec<String> {
    [&output.stdout, &output.stderr]
        .into_iter()
        .flat_map(|stream| {
            String::from_utf8_lossy(stream).lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .filter(|line| !line.trim().is_empty())
        .collect()
}

/// The root of the checkout.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// An empty folder that goes with the value.
pub fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("nodeforge-test-").tempdir().unwrap()
}

/// Writes `contents` to `root/path`, with the folders above it.
#[track_caller]
pub fn write(root: &Path, path: &str, contents: impl AsRef<[u8]>) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, contents).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// Sets the permission bits of `root/path`.
#[track_caller]
pub fn set_mode(root: &Path, path: &str, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(root.join(path), std::fs::Permissions::from_mode(mode)).unwrap();
}

/// The files below `root` whose path there satisfies `wanted`, relative, in path order.
pub fn files_below(root: &Path, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    walkdir::WalkDir::new(root)
        .sort_by_file_name()
        .into_iter()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned())
        .filter(|path| wanted(path))
        .collect()
}
