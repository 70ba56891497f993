//! The clusters under examples/, through the program itself, before the judges.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::oracles::documents;
use crate::support::{self, repository};

/// The example clusters, which must always build.
const EXAMPLES: [&str; 2] = ["examples/lab3.toml", "examples/titan.toml"];

/// The program under test.
pub fn nodeforge() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_nodeforge"))
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
