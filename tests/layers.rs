//! Modules use only their own layer of `src/lib.rs` and the layers above it.
//!
//! A search of the text: it wants one path per `use`, and no `use crate::{a, b}`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use regex::Regex;

use crate::support::{self, repository};

#[test]
fn modules_use_only_their_own_layer_and_those_above() {
    assert_eq!(transgressions(&repository().join("src")), [""; 0]);
}

/// One line for every use of a lower layer in the sources below `src`.
fn transgressions(src: &Path) -> Vec<String> {
    let modules = layered_modules(&fs::read_to_string(src.join("lib.rs")).unwrap());
    let mut found = Vec::new();
    for (module, layer) in &modules {
        for (path, text) in sources_of(src, module) {
            let used = used_modules(&text);
            let below = modules.iter().filter(|(_, other_layer)| other_layer > layer);
            for (other, _) in below.filter(|(other, _)| used.contains(other)) {
                found.push(format!("{path}: uses `{other}`, which is in a layer below `{module}`"));
            }
            if used.iter().any(|name| name == "{") {
                found.push(format!("{path}: `crate::{{…}}`: write one path per `use`"));
            }
        }
    }
    found
}

/// The modules of `lib.rs` with their layer: each `// Heading.` line starts a new one.
fn layered_modules(lib: &str) -> Vec<(String, usize)> {
    let mut modules = Vec::new();
    let mut layer = 0;
    for line in lib.lines() {
        if line.starts_with("// ") {
            layer += 1;
        }
        let name = line.strip_prefix("pub mod ").or_else(|| line.strip_prefix("mod "));
        if let Some(name) = name.and_then(|rest| rest.strip_suffix(';')) {
            modules.push((name.to_owned(), layer));
        }
    }
    modules
}

/// Path and text of `src/module.rs`, or of all that is in `src/module/`.
fn sources_of(src: &Path, module: &str) -> Vec<(String, String)> {
    let file = format!("{module}.rs");
    let folder = format!("{module}/");
    support::files_below(src, |path| {
        path == file || path.starts_with(&folder) && path.ends_with(".rs")
    })
    .into_iter()
    .map(|path| {
        let text = fs::read_to_string(src.join(&path)).unwrap();
        (path, text)
    })
    .collect()
}

/// What follows `crate::` anywhere but in a comment: module names, or `{`.
fn used_modules(text: &str) -> Vec<String> {
    let path = Regex::new(r"\bcrate::(\w+|\{)").unwrap();
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| path.captures_iter(line).map(|found| found[1].to_owned()))
        .collect()
}

#[test]
fn every_module_of_the_library_stands_in_a_layer() {
    let modules = layered_modules(&fs::read_to_string(repository().join("src/lib.rs")).unwrap());
    let outside: Vec<&str> =
        modules.iter().filter(|(_, layer)| *layer == 0).map(|(name, _)| &**name).collect();
    assert_eq!(outside, [""; 0]);
    assert!(modules.last().is_some_and(|(_, layer)| *layer > 1), "{modules:?}");
}

#[test]
fn a_use_of_a_lower_layer_is_told_with_file_and_module() {
    let src = support::scratch();
    support::write(src.path(), "lib.rs", "// Words.\npub mod net;\n\n// Edges.\npub mod tool;\n");
    support::write(src.path(), "net.rs", "use crate::net::MacAddr;\n/// See [`crate::tool`].\n");
    support::write(src.path(), "tool.rs", "use crate::net::MacAddr;\n");
    assert_eq!(transgressions(src.path()), [""; 0]);

    support::write(src.path(), "net.rs", "fn f() { crate::tool::run() }\n");
    support::write(src.path(), "tool.rs", "use crate::{net, tool};\n");
    assert_eq!(
        transgressions(src.path()),
        [
            "net.rs: uses `tool`, which is in a layer below `net`",
            "tool.rs: `crate::{…}`: write one path per `use`",
        ]
    );
}

/// Cargo looks for no test files here (`autotests = false`): one that nobody names would
/// compile in nobody's build and fail in nobody's test.
#[test]
fn every_test_file_is_part_of_the_one_binary() {
    let main = fs::read_to_string(repository().join("tests/main.rs")).unwrap();
    let named: BTreeSet<&str> = main
        .lines()
        .filter_map(|line| line.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')))
        .collect();
    let files = support::files_below(&repository().join("tests"), |path| path.ends_with(".rs"));
    let there: BTreeSet<&str> = files
        .iter()
        .filter_map(|path| match path.split_once('/') {
            None => path.strip_suffix(".rs"),
            Some((folder, "mod.rs")) => Some(folder),
            Some(_) => None,
        })
        .filter(|name| *name != "main")
        .collect();
    assert_eq!(named, there);
}
