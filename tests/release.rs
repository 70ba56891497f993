//! `scripts/check-glibc`, which decides whether a release runs on EL8.

use std::path::Path;
use std::process::Output;

use crate::support::{self, repository};

/// Runs the check with an `objdump` that says what it is told to.
fn check_glibc(headers: &str, symbols: &str) -> Output {
    let folder = support::scratch();
    let script = format!(
        "#!/bin/sh\ncase $1 in -p) cat <<'E'\n{headers}\nE\n;; -T) cat <<'E'\n{symbols}\nE\n;; esac\n"
    );
    support::write(folder.path(), "objdump", script);
    support::set_mode(folder.path(), "objdump", 0o755);
    let path = std::env::var("PATH").unwrap();
    support::command("bash")
        .arg(repository().join("scripts/check-glibc"))
        .arg(Path::new("nodeforge"))
        .env("PATH", format!("{}:{path}", folder.path().display()))
        .output()
        .unwrap()
}

#[test]
fn a_binary_runs_on_el8_if_it_is_static_or_needs_glibc_2_28_at_most() {
    let needed = "  NEEDED               libc.so.6";
    let symbol = |version: &str| format!("0 DF *UND* 0 (GLIBC_{version}) some_symbol");
    let both = |a, b| format!("{}\n{}", symbol(a), symbol(b));
    for (headers, symbols, verdict, says) in [
        ("", String::new(), 0, "nodeforge: static"),
        (needed, both("2.2.5", "2.28"), 0, "nodeforge: needs glibc 2.28; EL8 has 2.28"),
        (needed, both("2.9", "2.17"), 0, "nodeforge: needs glibc 2.17; EL8 has 2.28"),
        (needed, both("2.4", "2.34"), 1, "nodeforge: needs glibc 2.34; EL8 has 2.28:"),
        (needed, symbol("2.100"), 1, "nodeforge: needs glibc 2.100; EL8 has 2.28:"),
        (needed, String::new(), 1, "nodeforge: dynamic, and names no version of glibc"),
    ] {
        let output = check_glibc(headers, &symbols);
        let said = support::spoken_lines(&output);
        assert_eq!((output.status.code(), &*said[0]), (Some(verdict), says), "{symbols}");
    }
}
