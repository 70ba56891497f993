//! The clusters under examples/, through the program itself, before the judges.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use crate::oracles::build::{self, Node};
use crate::oracles::documents;
use crate::support::{self, determinism, repository};

/// The example clusters, which must always build.
const EXAMPLES: [&str; 2] = ["examples/lab3.toml", "examples/titan.toml"];

/// The program under test.
pub fn nodeforge() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_nodeforge"))
}

/// Runs `nodeforge arguments…` in `folder`, with the programs that the tests find; the caller looks
/// at its exit code and output.
pub fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(nodeforge());
    command.args(arguments).current_dir(folder).env("PATH", support::path());
    command.stdin(Stdio::null()).output().unwrap()
}

/// What `nodeforge arguments…`, run in `folder`, prints on standard output.
///
/// # Panics
///
/// Panics, with all it said, if it does not exit 0.
#[track_caller]
pub fn printed(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new(nodeforge())
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = support::spoken_lines(&output).join("\n");
    assert!(output.status.success(), "nodeforge {arguments:?}: {}\n{said}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_schema_for_editors_accepts_the_examples() {
    if support::lacks(&["python"]) {
        return;
    }
    let folder = support::scratch();
    let schema = folder.path().join("schema.json");
    std::fs::write(&schema, printed(repository(), &["schema"])).unwrap();
    let paths: Vec<PathBuf> = EXAMPLES.map(|example| repository().join(example)).into();
    let paths: Vec<&Path> = paths.iter().map(|path| &**path).collect();
    assert_eq!(documents::json_schema(&schema, &paths), [""; 0]);

    let broken = folder.path().join("broken.toml");
    let text = std::fs::read_to_string(paths[0]).unwrap();
    std::fs::write(&broken, text.replace("[cluster]\n", "[cluster]\nnaem = 'x'\n")).unwrap();
    let found = documents::json_schema(&schema, &[&broken]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("'naem' was unexpected"), "{found:?}");
}

/// An example, built once for all tests that look at it.
pub struct Built {
    /// Holds a copy of examples/ with throw-away secrets, and `out`.
    pub folder: PathBuf,
    cluster: &'static str,
}

pub fn lab3() -> &'static Built {
    static BUILT: OnceLock<Built> = OnceLock::new();
    BUILT.get_or_init(|| Built::new("lab3.toml"))
}

pub fn titan() -> &'static Built {
    static BUILT: OnceLock<Built> = OnceLock::new();
    BUILT.get_or_init(|| Built::new("titan.toml"))
}

impl Built {
    fn new(cluster: &'static str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("built").join(cluster);
        if folder.exists() {
            std::fs::remove_dir_all(&folder).unwrap();
        }
        copy_with_secrets(&folder, cluster);
        printed(&folder, &["build", cluster, "-o", "out"]);
        Self { folder, cluster }
    }

    /// The generation that was published.
    pub fn current(&self) -> PathBuf {
        self.folder.join("out/current")
    }

    /// The nodes, each with the common layer below those of its roles, in their order.
    fn nodes(&self) -> Vec<Node> {
        let nodes = printed(&self.folder, &["nodes", self.cluster, "--json"]);
        let nodes: serde_json::Value = serde_json::from_str(&nodes).unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let node = |node: &serde_json::Value| Node {
            name: text(&node["name"]),
            layers: std::iter::once("common".to_owned())
                .chain(node["roles"].as_array().unwrap().iter().map(text))
                .collect(),
        };
        nodes.as_array().unwrap().iter().map(node).collect()
    }
}

/// Copies examples/ to `folder`, with secrets that `cluster` names and nobody else has.
pub fn copy_with_secrets(folder: &Path, cluster: &str) {
    let examples = repository().join("examples");
    let is_source = |path: &str| !path.starts_with("secrets/") && !path.starts_with("out/");
    for path in support::files_below(&examples, is_source) {
        support::write(folder, &path, std::fs::read(examples.join(&path)).unwrap());
    }
    let mut child = Command::new(nodeforge())
        .args(["secrets", "init", cluster, "--password-stdin"])
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"correct horse battery staple\n").unwrap();
    assert!(child.wait().unwrap().success(), "nodeforge secrets init {cluster}");
}

#[test]
fn every_judge_passes_what_the_reference_cluster_builds() {
    if !support::lacks(&build::NEEDS) {
        assert_eq!(build::findings(&lab3().current(), &lab3().nodes()), [""; 0]);
    }
}

#[test]
fn every_judge_passes_what_514_nodes_build() {
    if !support::lacks(&build::NEEDS) {
        let nodes = titan().nodes();
        assert_eq!(nodes.len(), 514);
        assert_eq!(build::findings(&titan().current(), &nodes), [""; 0]);
    }
}

#[test]
fn verify_agrees_with_what_was_built() {
    for built in [lab3(), titan()] {
        printed(&built.folder, &["verify", "out"]);
    }
}

#[test]
fn a_build_is_the_same_wherever_and_by_whomever_it_is_made() {
    for cluster in ["lab3.toml", "titan.toml"] {
        let input = support::scratch();
        copy_with_secrets(input.path(), cluster);
        let arguments = ["build", cluster, "-o", "out"];
        // All but the cache for the next build, which speaks of this program and these files.
        let mut found = determinism::differences(input.path(), nodeforge(), &arguments, "out");
        found.retain(|line| !line.contains(".inputs"));
        assert_eq!(found, [""; 0], "{cluster}");
    }
}
