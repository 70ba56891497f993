//! Scripts that run on a node or in the installer: shellcheck for shells, and for Python
//! whether EL8's platform-python 3.6 can run it.

use std::collections::BTreeSet;
use std::path::Path;

use regex::Regex;

use super::el8_tools;
use crate::support;

/// A script and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// For people: a path, or a path and a kickstart section.
    pub name: String,
    /// The line of that file on which the script begins, counted from 1.
    pub first_line: usize,
    pub language: Language,
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Language {
    Sh,
    Bash,
    Python,
    Other(String),
}

impl Language {
    /// From what follows `#!`, or from a kickstart's `--interpreter`.
    pub fn of_interpreter(interpreter: &str) -> Self {
        match interpreter.trim() {
            "/bin/sh" | "/usr/bin/sh" => Language::Sh,
            "/bin/bash" | "/usr/bin/bash" => Language::Bash,
            "/usr/libexec/platform-python" => Language::Python,
            other => Language::Other(other.to_owned()),
        }
    }
}

/// The scripts below `root`: files that begin with `#!`, and the shell snippets of
/// /etc/profile.d.
pub fn of_tree(root: &Path) -> Vec<Script> {
    let read = |path: String| {
        let text = String::from_utf8(std::fs::read(root.join(&path)).unwrap()).ok()?;
        let shebang = text.lines().next().and_then(|line| line.strip_prefix("#!"));
        let interpreter = shebang.map(|line| line.split(" -").next().unwrap_or(line));
        let is_snippet = path.starts_with("etc/profile.d/") && path.ends_with(".sh");
        let interpreter = interpreter.or(is_snippet.then_some("/bin/sh"))?;
        let language = Language::of_interpreter(interpreter);
        Some(Script { name: path, first_line: 1, language, text })
    };
    support::files_below(root, |_| true).into_iter().filter_map(read).collect()
}

/// All that is wrong with `scripts` for EL8: shellcheck, Python 3.6, tools newer than EL8's.
///
/// Scripts that differ only in numbers, digests and embedded base64 are judged once: 514
/// nodes have a handful of distinct scripts.
pub fn findings(scripts: &[Script]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let distinct: Vec<&Script> = scripts
        .iter()
        .filter(|script| seen.insert((script.language.clone(), shape(&script.text))))
        .collect();
    let of = |language: Language| -> Vec<&Script> {
        distinct.iter().copied().filter(|script| script.language == language).collect()
    };
    let mut found = shellcheck("sh", &of(Language::Sh));
    found.extend(shellcheck("bash", &of(Language::Bash)));
    found.extend(python36(&of(Language::Python)));
    for script in distinct {
        if let Language::Other(interpreter) = &script.language {
            let name = &script.name;
            found.push(format!("{name}: `{interpreter}` is not a script interpreter of EL8's minimal install; use /bin/bash or /usr/libexec/platform-python"));
        }
        found.extend(el8_tools::findings(script));
    }
    found
}

/// `text` with all that may differ from node to node made equal, base64 blocks cut short.
fn shape(text: &str) -> String {
    let value = Regex::new(r"\b[0-9a-f]{32,}\b|[0-9]+").unwrap();
    value.replace_all(&without_base64(text), "0").into_owned()
}

/// `text` with the inner lines of base64 blocks emptied: shellcheck needs a minute for a
/// megabyte of here-document. The number of lines stays.
fn without_base64(text: &str) -> String {
    let is_base64 = |line: &str| {
        line.len() >= 60
            && line.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte))
    };
    text.lines()
        .map(|line| if is_base64(line) { "\n".into() } else { format!("{line}\n") })
        .collect()
}

/// What shellcheck says of `scripts` in `shell`, at every severity.
///
/// A script that shellcheck is told to pass over must say why on the directive's line.
fn shellcheck(shell: &str, scripts: &[&Script]) -> Vec<String> {
    if scripts.is_empty() {
        return Vec::new();
    }
    let folder = support::scratch();
    for (number, script) in scripts.iter().enumerate() {
        support::write(folder.path(), &number.to_string(), without_base64(&script.text));
    }
    let output = support::command("shellcheck")
        .args(["--norc", "--severity=style", "--format=gcc"])
        .arg(format!("--shell={shell}"))
        .args((0..scripts.len()).map(|number| number.to_string()))
        .current_dir(folder.path())
        .output()
        .unwrap();
    let mut found: Vec<String> =
        support::spoken_lines(&output).iter().map(|line| at_its_place(line, scripts)).collect();
    if found.is_empty() && !output.status.success() {
        found.push(format!("shellcheck: {}", output.status));
    }
    found
}

/// What keeps `scripts` from running under platform-python 3.6.
fn python36(scripts: &[&Script]) -> Vec<String> {
    if scripts.is_empty() {
        return Vec::new();
    }
    let folder = support::scratch();
    let paths: Vec<_> = (0..scripts.len()).map(|n| folder.path().join(n.to_string())).collect();
    for (path, script) in paths.iter().zip(scripts) {
        std::fs::write(path, &script.text).unwrap();
    }
    let output = support::run_judge("python36.py", &paths);
    let prefix = format!("{}/", folder.path().display());
    let mut found: Vec<String> = support::spoken_lines(&output)
        .iter()
        .map(|line| at_its_place(line.strip_prefix(&prefix).unwrap_or(line), scripts))
        .collect();
    if found.is_empty() && !output.status.success() {
        found.push(format!("python36.py: {}", output.status));
    }
    found
}

/// `number:line:rest` with the script's name and the line of the file it stands in.
fn at_its_place(message: &str, scripts: &[&Script]) -> String {
    let mut parts = message.splitn(3, ':');
    let number = parts.next().and_then(|part| part.parse::<usize>().ok());
    let line = parts.next().and_then(|part| part.parse::<usize>().ok());
    let script = number.and_then(|number| scripts.get(number));
    match (script, line, parts.next()) {
        (Some(script), Some(line), Some(rest)) => {
            format!("{}:{}:{rest}", script.name, line + script.first_line - 1)
        }
        _ => message.to_owned(),
    }
}

pub fn script(language: Language, text: &str) -> Script {
    Script { name: "x".to_owned(), first_line: 1, language, text: text.to_owned() }
}

#[test]
fn sound_scripts_pass() {
    if support::lacks(&["shellcheck", "python"]) {
        return;
    }
    let scripts = [
        script(Language::Sh, "set -eu\necho \"$1\"\n"),
        script(
            Language::Bash,
            "#!/bin/bash\nset -euo pipefail\nlocal_name=${1@Q}\necho \"$local_name\"\n",
        ),
        script(Language::Python, "import subprocess\nprint(f'{subprocess.PIPE}')\n"),
    ];
    assert_eq!(findings(&scripts), [""; 0]);
}

#[test]
fn shellcheck_tells_the_line_of_the_file_that_the_script_stands_in() {
    if support::lacks(&["shellcheck"]) {
        return;
    }
    let bad = Script { first_line: 10, ..script(Language::Bash, "true\necho $1\n") };
    assert_eq!(
        findings(&[bad]),
        ["x:11:6: note: Double quote to prevent globbing and word splitting. [SC2086]"]
    );
    let found = findings(&[script(Language::Sh, "f() { local a=1; echo \"$a\"; }\nf\n")]);
    assert_eq!(found, ["x:1:7: warning: In POSIX sh, 'local' is undefined. [SC3043]"]);
}

#[test]
fn python_newer_than_3_6_is_refused() {
    if support::lacks(&["python"]) {
        return;
    }
    for (text, finding) in [
        (
            "if (n := 1):\n    pass\n",
            "x:1: Assignment expressions are only supported in Python 3.8 and greater",
        ),
        (
            "def f(a, /):\n    pass\n",
            "x:1: Positional-only parameters are only supported in Python 3.8 and greater",
        ),
        (
            "match 1:\n    case 1:\n        pass\n",
            "x:3: Pattern matching is only supported in Python 3.10 and greater",
        ),
        (
            "x = 1\nprint(f'{x=}')\n",
            "x:2: f-string: self documenting expressions are only supported in Python 3.8 and greater",
        ),
        (
            "from __future__ import annotations\n",
            "x:1: `from __future__ import annotations` came with Python 3.7",
        ),
        ("import dataclasses\n", "x:1: `dataclasses` came with Python 3.7"),
        (
            "import subprocess\nsubprocess.run(['a'], capture_output=True)\n",
            "x:2: `run(capture_output=…)` came with Python 3.7",
        ),
        (
            "import subprocess\nsubprocess.check_output(['a'], text=True)\n",
            "x:2: `check_output(text=…)` came with Python 3.7",
        ),
        ("'a'.removeprefix('b')\n", "x:1: `.removeprefix` came with Python 3.9"),
        (
            "import os\nprint 'x'\n",
            "x:2: Missing parentheses in call to 'print'. Did you mean print(...)?",
        ),
    ] {
        assert_eq!(findings(&[script(Language::Python, text)]), [finding], "{text}");
    }
}

#[test]
fn an_interpreter_that_el8_lacks_is_refused() {
    let root = support::scratch();
    support::write(root.path(), "usr/bin/tool", "#!/usr/bin/env python3\n");
    support::write(root.path(), "etc/plain", "no script\n");
    assert_eq!(
        findings(&of_tree(root.path())),
        [
            "usr/bin/tool: `/usr/bin/env python3` is not a script interpreter of EL8's minimal install; use /bin/bash or /usr/libexec/platform-python"
        ]
    );
}

#[test]
fn scripts_that_differ_in_numbers_only_are_judged_once() {
    if support::lacks(&["shellcheck"]) {
        return;
    }
    let [one, two] = ["10.0.0.1", "10.0.0.2"]
        .map(|address| script(Language::Bash, &format!("echo {address} $1\n")));
    assert_eq!(findings(&[one, two]).len(), 1);
    let base64 = format!("cat <<'EOF'\n{0}\n{0}\nEOF\necho $1\n", "QUJD".repeat(19));
    let found = findings(&[script(Language::Bash, &base64)]);
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("x:5:6: "), "{found:?}");
}
