//! What README.md and docs/ say of the program, against the program.
//!
//! The references are made from the tables that the program itself uses. `UPDATE_GOLDEN=1`
//! writes them anew; review the difference like code.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::CommandFactory;
use nodeforge::cli::Cli;
use nodeforge::cluster::schema::CLUSTER_FILE;
use nodeforge::daos::explain;
use nodeforge::overlay::OVERLAY_FILE;
use nodeforge::render::context::sample;
use nodeforge::toml_doc::reference;
use regex::Regex;
use serde_json::Value;

use crate::support::repository;

#[test]
fn the_reference_of_the_cluster_file_is_that_of_the_schema() {
    assert_part("docs/cluster-file.md", "reference", &reference(CLUSTER_FILE, 3));
}

#[test]
fn the_reference_of_overlays_is_that_of_the_schema() {
    assert_part("docs/site.md", "overlay.toml", &reference(OVERLAY_FILE, 4));
}

#[test]
fn the_list_of_codes_is_the_programs() {
    assert_text("docs/codes.md", &explain::markdown());
}

#[test]
fn every_value_a_template_can_see_is_described() {
    let page = read("docs/site.md");
    let described: BTreeSet<&str> = backticked(&page).collect();
    let mut paths = BTreeSet::new();
    collect_paths("", &sample(), &mut paths);
    let missing: Vec<&String> =
        paths.iter().filter(|path| !described.contains(path.as_str())).collect();
    assert_eq!(missing, [""; 0], "not in docs/site.md");
}

#[test]
fn the_readme_names_every_verb() {
    let page = read("README.md");
    let command = Cli::command();
    let verbs = command.get_subcommands().filter(|verb| verb.get_name() != "help");
    let missing: Vec<&str> = verbs
        .map(clap::Command::get_name)
        .filter(|verb| !page.contains(&format!("`nodeforge {verb}")))
        .collect();
    assert_eq!(missing, [""; 0], "not in the command list of README.md");
}

#[test]
fn every_command_in_a_page_is_one_the_program_takes() {
    let mut wrong = Vec::new();
    for page in pages() {
        for line in read(&page).lines() {
            let Some(command) = line.strip_prefix("$ nodeforge ") else { continue };
            let command = command.split(" | ").next().unwrap();
            let command = command.split(" > ").next().unwrap();
            let words = shlex::split(command).unwrap();
            let words = std::iter::once("nodeforge".to_owned()).chain(words);
            if let Err(fault) = Cli::command().try_get_matches_from(words) {
                wrong.push(format!("{}: {line}: {fault}", page.display()));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
}

/// Verbs that only read, on the examples: what a page shows is what the program prints, in the
/// order shown; a line `…` stands for lines left out.
#[test]
fn what_a_page_shows_of_the_examples_is_what_the_program_prints() {
    let mut wrong = Vec::new();
    let mut n_compared = 0;
    for page in pages() {
        for (command, shown) in sessions(&read(&page)) {
            let words = shlex::split(&command).unwrap();
            let only_reads = ["check", "explain", "generate", "nodes", "plan", "show", "why"];
            let is_ours = words
                .iter()
                .any(|word| ["examples/", "tests/"].iter().any(|ours| word.starts_with(ours)));
            if !only_reads.contains(&words[0].as_str()) || !(is_ours || words[0] == "explain") {
                continue;
            }
            let printed = printed_by(&words);
            n_compared += 1;
            let mut rest = printed.as_str();
            for part in shown.split("…\n").filter(|part| !part.is_empty()) {
                match rest.split_once(part) {
                    Some((_, after)) => rest = after,
                    None => {
                        wrong.push(format!("{}: {command}: not printed:\n{part}", page.display()))
                    }
                }
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
    assert!(n_compared >= 8, "only {n_compared} commands were found in the pages");
}

#[test]
fn links_between_the_pages_lead_somewhere() {
    let link = Regex::new(r"\]\(([^)#:]+)(#[^)]*)?\)").unwrap();
    let mut dead = Vec::new();
    for page in pages() {
        let folder = page.parent().unwrap().to_owned();
        for found in link.captures_iter(&read(&page)) {
            let target = folder.join(&found[1]);
            if !repository().join(&target).exists() {
                dead.push(format!("{}: {}", page.display(), &found[1]));
            }
        }
    }
    assert_eq!(dead, [""; 0]);
}

/// The corpus says what is wrong with it, place by place; the example only differs in its
/// first comment.
#[test]
fn the_example_as_blogged_is_the_corpus_file_that_is_judged() {
    let body = |path: &str| {
        let text = read(path);
        let lines = text.lines().skip_while(|line| line.starts_with('#') || line.is_empty());
        lines.map(str::to_owned).collect::<Vec<String>>()
    };
    assert_eq!(
        body("examples/lab3-as-blogged.toml"),
        body("tests/corpus/daos/lab3-as-blogged.toml")
    );
}

/// The commands of nodeforge in the console blocks of a page, each with what follows it.
fn sessions(page: &str) -> Vec<(String, String)> {
    let blocks = page.split("```console\n").skip(1).filter_map(|rest| rest.split("```").next());
    let commands = blocks.flat_map(|block| block.split("$ nodeforge ").skip(1));
    let parted = commands.filter_map(|text| text.split_once('\n'));
    parted.map(|(command, shown)| (command.to_owned(), shown.to_owned())).collect()
}

/// Both streams, without colour: the messages and then the data.
fn printed_by(words: &[String]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_nodeforge"))
        .args(words)
        .current_dir(repository())
        .output()
        .unwrap();
    [output.stderr, output.stdout].map(|bytes| String::from_utf8(bytes).unwrap()).concat()
}

/// Paths of values as the pages write them: a list is its name and its items' fields behind
/// `[]`; below `net` and `roles` stand names of the user's choice.
fn collect_paths(prefix: &str, value: &Value, paths: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) if ["net", "roles"].contains(&prefix) => {
            let field = fields.values().next().unwrap();
            collect_paths(&format!("{prefix}.NAME"), field, paths);
        }
        Value::Object(fields) if !fields.is_empty() => {
            for (name, field) in fields {
                let dot = if prefix.is_empty() { "" } else { "." };
                collect_paths(&format!("{prefix}{dot}{name}"), field, paths);
            }
        }
        Value::Array(items) if items[0].is_object() => {
            collect_paths(&format!("{prefix}[]"), &items[0], paths);
        }
        // What all repositories have is said once, at `repos[]`.
        _ if prefix.contains("repo.") && prefix != "daos.repo" => {}
        _ if prefix.contains("_repo.") || prefix.contains("powertools.") => {}
        _ if prefix.starts_with("os.repos[]") => {}
        _ => {
            paths.insert(prefix.to_owned());
        }
    }
}

/// Words between backticks that are one path.
fn backticked(page: &str) -> impl Iterator<Item = &str> {
    page.split('`').filter(|word| !word.contains(char::is_whitespace))
}

/// The pages people read, from the top of the repository.
fn pages() -> Vec<PathBuf> {
    let docs = fs::read_dir(repository().join("docs")).unwrap();
    let docs = docs.map(|entry| Path::new("docs").join(entry.unwrap().file_name()));
    let is_page = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
    let mut pages: Vec<PathBuf> = docs.filter(is_page).collect();
    pages.extend(["README.md", "CHANGELOG.md", "CONTRIBUTING.md"].map(PathBuf::from));
    pages.sort();
    pages
}

fn read(path: impl AsRef<Path>) -> String {
    let path = repository().join(path);
    fs::read_to_string(&path).unwrap_or_else(|fault| panic!("{}: {fault}", path.display()))
}

/// Compares what stands between the marks of part `name` with `expected`.
#[track_caller]
fn assert_part(path: &str, name: &str, expected: &str) {
    let page = read(path);
    let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->"));
    let (before, rest) = page.split_once(&begin).expect("the page has the mark where it begins");
    let (_, after) = rest.split_once(&end).expect("the page has the mark where it ends");
    assert_text(path, &format!("{before}{begin}{expected}\n{end}{after}"));
}

#[track_caller]
fn assert_text(path: &str, expected: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(repository().join(path), expected).unwrap();
    }
    assert!(
        read(path) == expected,
        "{path} is not what the program says; UPDATE_GOLDEN=1 cargo test --test suite docs:: writes it anew"
    );
}
