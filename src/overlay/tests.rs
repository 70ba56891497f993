use serde_json::json;

use super::*;
use crate::diag::{Color, render};

fn library(files: &[(&str, &str)]) -> LibraryFiles {
    let file = |(path, text): &(&str, &str)| {
        let bytes = text.as_bytes().to_vec().into();
        ((*path).to_owned(), LibraryFile { shown: path.into(), bytes })
    };
    files.iter().map(file).collect()
}

/// Place and message of each problem, and its help.
fn problems(files: &[(&str, &str)]) -> Vec<String> {
    let (mut sources, mut problems) = (SourceMap::default(), Problems::default());
    read(&library(files), &mut sources, &mut problems);
    let text = |problem: &Diagnostic| {
        let place = problem.primary.as_ref().map(|label| sources.place(label.span));
        let place = place.unwrap_or_default();
        format!("{place} {} {} ({})", problem.code, problem.message, problem.help.join("; "))
    };
    problems.into_sorted().iter().map(text).collect()
}

#[test]
fn modes_owners_conditions_and_lists_are_read() {
    let files = library(&[
        (
            "overlays/net/overlay.toml",
            r#"description = "NICs"
when = ["node.links"]
[file."etc/a.key"]
mode = "0400"
owner = "daos_server:daos_daemons"
when = ["daos.security == certificates"]
[file."etc/net/x.link"]
each = "node.links"
name = "10-{name}.link"
[dir."root/.ssh"]
mode = "0700"
[link."etc/localtime"]
target = "../usr/share/zoneinfo/{{cluster.timezone}}"
"#,
        ),
        ("overlays/net/rootfs/etc/a.key", "key"),
        ("overlays/net/rootfs/etc/net/x.link.hbs", "{{item.name}}"),
        ("overlays/net/partials/p.hbs", "p"),
        ("profiles/server.toml", "not ours"),
    ]);
    let (mut sources, mut problems) = (SourceMap::default(), Problems::default());
    let overlays = read(&files, &mut sources, &mut problems);
    assert_eq!(problems.into_sorted(), []);
    let overlay = &overlays["net"];
    let files: Vec<String> = overlay
        .files
        .iter()
        .map(|file| format!("{} {} {} {}", file.path, file.mode, file.owner, file.when.len()))
        .collect();
    assert_eq!(
        files,
        ["etc/a.key 0400 daos_server:daos_daemons 1", "etc/net/x.link 0644 root:root 0"]
    );
    let each = overlay.files[1].each.as_ref().unwrap();
    assert_eq!(
        (each.list.join("."), format!("{}<{}>{}", each.before, each.field, each.after)),
        ("node.links".into(), "10-<name>.link".into())
    );
    assert_eq!(overlay.dirs[0].path.as_str(), "root/.ssh");
    assert_eq!(overlay.links[0].target, "../usr/share/zoneinfo/{{cluster.timezone}}");
    assert_eq!(overlay.partials[0].name, "net/p");
    assert_eq!(overlay.when[0].test, Test::Holds);
}

#[test]
fn what_does_not_fit_is_reported_at_its_place() {
    let toml = "overlays/a/overlay.toml";
    let rows: [(&str, &str, &str); 14] = [
        (
            "",
            "x",
            "overlays/a/overlay.toml:1:1 NF103 `description` is missing (add `description = \"Who may log in\"`)",
        ),
        (
            "description='d'\nfiles=1",
            "x",
            "overlays/a/overlay.toml:2:1 NF101 unknown key `files` (did you mean `file`?)",
        ),
        (
            "description='d'\n[file.'etc/xy']\nmode='0600'",
            "etc/x",
            "overlays/a/overlay.toml:2:7 NF305 overlay `a`: there is no file `etc/xy` below rootfs/ (did you mean `etc/x`?)",
        ),
        (
            "description='d'\n[file.'etc/x']\nmode='600 '",
            "etc/x",
            "overlays/a/overlay.toml:3:6 NF305 overlay `a`: `600 ` is no mode (write three or four octal digits: `mode = \"0640\"`)",
        ),
        (
            "description='d'\n[file.'etc/x']\nowner='1000'",
            "etc/x",
            "overlays/a/overlay.toml:3:7 NF305 overlay `a`: `1000` is no owner (write user and group by name: `owner = \"daos_server:daos_server\"`)",
        ),
        (
            "description='d'\nwhen=['a = b']",
            "x",
            "overlays/a/overlay.toml:2:7 NF305 overlay `a`: `a = b` is no condition (write `path`, `!path`, `path == value` or `path != value`)",
        ),
        (
            "description='d'\n[file.'etc/x']\neach='a'",
            "etc/x",
            "overlays/a/overlay.toml:2:7 NF305 overlay `a`: `each` and `name` go together (each = \"node.links\", name = \"10-{name}.link\")",
        ),
        (
            "description='d'\n[file.'etc/x']\neach='a'\nname='../{b}'",
            "etc/x.hbs",
            "overlays/a/overlay.toml:4:6 NF305 overlay `a`: `a` and `../{b}` name no list and file (each = \"node.links\", name = \"10-{name}.link\", in the same folder)",
        ),
        (
            "description='d'\n[dir.'/etc']",
            "x",
            "overlays/a/overlay.toml:2:6 NF304 overlay `a`: `/etc` is not a clean path inside the image: relative, no `.`, `..`, empty parts or control characters (write it as below the node's root: `etc/chrony.conf`)",
        ),
        (
            "description='d'\n[dir.'../etc']",
            "x",
            "overlays/a/overlay.toml:2:6 NF304 overlay `a`: `../etc` is not a clean path inside the image: relative, no `.`, `..`, empty parts or control characters (write it as below the node's root: `etc/chrony.conf`)",
        ),
        (
            "description='d'\n[link.'var/run/x']\ntarget='y'",
            "x",
            "overlays/a/overlay.toml:2:7 NF304 overlay `a`: `var/run/x` goes through a link: `/var/run` and `/var/lock` are below `/run` (write where the file itself lies on the installed disk)",
        ),
        (
            "description='d'",
            "lib/x",
            "overlays/a/overlay.toml:1:1 NF304 overlay `a`: `lib/x` goes through a link: `/lib` is `usr/lib` on EL8 (write where the file itself lies on the installed disk)",
        ),
        (
            "description='d'",
            "tmp/x",
            "overlays/a/overlay.toml:1:1 NF304 overlay `a`: `tmp/x` would be lost: `/tmp` is no part of the installed disk (write where the file itself lies on the installed disk)",
        ),
        (
            "description='d'\n[link.x]",
            "y",
            "overlays/a/overlay.toml:2:7 NF103 `target` is missing (add `target = \"/usr/lib/systemd/system/x.service\"`)",
        ),
    ];
    for (text, file, expected) in rows {
        let file = format!("overlays/a/rootfs/{file}");
        assert_eq!(problems(&[(toml, text), (&file, "")]), [expected], "{text}");
    }
    assert_eq!(
        problems(&[(toml, "description='d'"), ("overlays/a/root/etc/x", "")]),
        [
            "overlays/a/overlay.toml:1:1 NF305 overlay `a`: `root/etc/x` is no part of an overlay (files of the node lie below rootfs/, included templates are partials/NAME.hbs)"
        ]
    );
    assert_eq!(
        problems(&[("overlays/a/rootfs/etc/x", "")]),
        [
            " NF305 overlay `a` has no overlay.toml (add one with `description = \"…\"`: overlays/NAME/overlay.toml)"
        ]
    );
}

#[test]
fn a_problem_is_drawn_at_its_line() {
    let files = library(&[("overlays/a/overlay.toml", "description='d'\n[file.'etc/x']\n")]);
    let (mut sources, mut problems) = (SourceMap::default(), Problems::default());
    read(&files, &mut sources, &mut problems);
    let drawn: String = problems
        .into_sorted()
        .iter()
        .map(|problem| render(problem, &sources, Color::Never))
        .collect();
    assert!(drawn.contains("overlays/a/overlay.toml:2:7"), "{drawn}");
}

#[test]
fn a_site_replaces_file_by_file_and_adds() {
    let builtin = library(&[("a/x", "1"), ("a/y.hbs", "1"), ("a/z", "1"), ("a/w", "1")]);
    let site = library(&[("a/x", "2"), ("a/y", "2"), ("a/z.hbs", "2"), ("b/new", "2")]);
    let merged = shadow(builtin, site);
    let listing: Vec<String> = merged
        .iter()
        .map(|(path, file)| format!("{path}={}", String::from_utf8_lossy(&file.bytes)))
        .collect();
    assert_eq!(listing, ["a/w=1", "a/x=2", "a/y=2", "a/z.hbs=2", "b/new=2"]);
}

#[test]
fn conditions_ask_values_of_the_context() {
    let mut sources = SourceMap::default();
    let span = Span::new(sources.add("x".into(), String::new()), 0..0);
    let context = json!({ "a": { "b": "c" }, "n": 0, "none": null, "list": [1], "yes": true });
    for (text, expected) in [
        ("a.b", Some(true)),
        ("!a.b", Some(false)),
        ("a.b == c", Some(true)),
        ("a.b==d", Some(false)),
        ("a.b != d", Some(true)),
        ("n", Some(false)),
        ("n == 0", Some(true)),
        ("none", Some(false)),
        ("! list", Some(false)),
        ("yes == true", Some(true)),
        ("a.x", None),
    ] {
        let condition = Condition::parse(text, span).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(condition.holds(&context), expected, "{text}");
    }
    for text in ["", "a b", "a = b", "a == b == c", "a == ", "a == b != c", "a.", "a == b c"] {
        assert_eq!(Condition::parse(text, span), None, "{text}");
    }
}
