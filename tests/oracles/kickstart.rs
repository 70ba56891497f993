//! Kickstarts: pykickstart's own parser as the judge, and the scripts in the sections.

use std::path::Path;

use super::scripts::{Language, Script};
use crate::support;

/// What `ksvalidator -v RHEL8` says of `kickstarts`: errors, and warnings of deprecated
/// commands.
///
/// Its output decides. The exit code is the number of problems and wraps at 256, and a
/// warning alone leaves it 0 (pykickstart, tools/ksvalidator.py).
pub fn ksvalidator(kickstarts: &[&Path]) -> Vec<String> {
    let arguments = |files: &[&Path]| -> Vec<String> {
        let files = files.iter().map(|path| path.to_str().unwrap().to_owned());
        ["-v", "RHEL8"].map(str::to_owned).into_iter().chain(files).collect()
    };
    // One process for many files is 50 times faster, but its messages name no file: only
    // where it has any are the files judged one by one.
    if kickstarts.is_empty() || complaints(&arguments(kickstarts), kickstarts.len()).is_empty() {
        return Vec::new();
    }
    let one_by_one = |path: &&Path| {
        let found = complaints(&arguments(&[path]), 1);
        found.into_iter().map(|line| format!("{}: {line}", path.display())).collect::<Vec<_>>()
    };
    kickstarts.iter().flat_map(one_by_one).collect()
}

fn complaints(arguments: &[String], n_files: usize) -> Vec<String> {
    let output = support::run("ksvalidator", arguments);
    let lines = support::spoken_lines(&output);
    let is_heading = |line: &&String| line.starts_with("Checking kickstart file ");
    let (headings, mut found): (Vec<_>, Vec<_>) = lines.iter().partition(is_heading);
    let silent = format!("ksvalidator checked {} of {n_files} files", headings.len());
    let failed = format!("ksvalidator: {}", output.status);
    if headings.len() != n_files {
        found.push(&silent);
    }
    if found.is_empty() && !output.status.success() {
        found.push(&failed);
    }
    found.into_iter().cloned().collect()
}

/// The scripts of the `%pre`, `%pre-install`, `%post`, `%onerror` and `%traceback` sections
/// of `text`, with the lines on which they stand.
///
/// Without `--interpreter` anaconda gives a section to /bin/sh (anaconda 33.16.9.5,
/// pyanaconda/kickstart.py, `AnacondaKSScript`).
pub fn sections(name: &str, text: &str) -> Vec<Script> {
    let mut scripts = Vec::new();
    let mut open: Option<Script> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if let Some(script) = &mut open {
            if first == "%end" {
                scripts.extend(open.take());
            } else {
                script.text.push_str(line);
                script.text.push('\n');
            }
        } else if SCRIPT_SECTIONS.contains(&first) {
            open = Some(Script {
                name: format!("{name} {first}"),
                first_line: number + 1,
                language: Language::of_interpreter(interpreter(words).unwrap_or("/bin/sh")),
                text: String::new(),
            });
        }
    }
    scripts.extend(open);
    scripts
}

const SCRIPT_SECTIONS: [&str; 5] = ["%pre", "%pre-install", "%post", "%onerror", "%traceback"];

fn interpreter<'a>(mut options: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    while let Some(option) = options.next() {
        if option == "--interpreter" {
            return options.next();
        }
        if let Some(value) = option.strip_prefix("--interpreter=") {
            return Some(value.trim_matches('"'));
        }
    }
    None
}

const GOOD: &str = "text\nrootpw --lock\ntimezone UTC --utc\n%packages\n@core\n%end\n";

#[test]
fn ksvalidator_accepts_a_kickstart_for_el8() {
    if support::lacks(&["ksvalidator"]) {
        return;
    }
    let folder = support::scratch();
    for name in ["a.ks", "b.ks"] {
        support::write(folder.path(), name, GOOD);
    }
    let [a, b] = ["a.ks", "b.ks"].map(|name| folder.path().join(name));
    assert_eq!(ksvalidator(&[&a, &b]), [""; 0]);
}

#[test]
fn ksvalidator_refuses_errors_and_deprecated_commands_by_file() {
    if support::lacks(&["ksvalidator"]) {
        return;
    }
    let cases = [
        ("bogus", "Unknown command: bogus"),
        ("rootpw --allow-ssh x", "Unexpected arguments to rootpw"),
        ("timesource --ntp-server=x", "Unknown command: timesource"),
        ("install", "Ignoring deprecated command"),
        ("auth --useshadow", "authconfig command will be deprecated"),
        ("ignoredisk --interactive", "Ignoring deprecated option"),
        ("%packages --nobase\n%end", "--nobase"),
    ];
    let folder = support::scratch();
    let path = |number: usize| folder.path().join(format!("{number}.ks"));
    for (number, (line, _)) in cases.iter().enumerate() {
        std::fs::write(path(number), format!("{GOOD}{line}\n")).unwrap();
    }
    std::fs::write(path(cases.len()), GOOD).unwrap();
    let paths: Vec<_> = (0..=cases.len()).map(path).collect();
    let found = ksvalidator(&paths.iter().map(|path| &**path).collect::<Vec<_>>());
    let of = |number| -> Vec<&String> {
        let prefix = format!("{}: ", path(number).display());
        found.iter().filter(|line| line.starts_with(&prefix)).collect()
    };
    for (number, (line, word)) in cases.iter().enumerate() {
        assert!(of(number).iter().any(|found| found.contains(word)), "{line}: {:?}", of(number));
    }
    assert_eq!(of(cases.len()), [""; 0]);
    assert_eq!(found.len(), (0..cases.len()).map(|number| of(number).len()).sum::<usize>());
}

#[test]
fn a_section_is_a_script_with_its_interpreter_and_line() {
    let text = "text\n%pre --interpreter=/bin/bash --erroronfail\necho pre\n%end\n\
                %packages\n@core\n%end\n%post --nochroot --interpreter /usr/libexec/platform-python\n\
                import os\n\nos.sync()\n%end\n%onerror\nexit 1\n%end\n";
    let script = |name: &str, first_line, language, text: &str| Script {
        name: name.to_owned(),
        first_line,
        language,
        text: text.to_owned(),
    };
    assert_eq!(
        sections("x.ks", text),
        [
            script("x.ks %pre", 3, Language::Bash, "echo pre\n"),
            script("x.ks %post", 9, Language::Python, "import os\n\nos.sync()\n"),
            script("x.ks %onerror", 14, Language::Sh, "exit 1\n"),
        ]
    );
}
