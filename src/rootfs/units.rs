//! Units of systemd, enabled in a tree as `systemctl --root` would: by the links that their
//! `[Install]` sections ask for (systemd.unit(5)).

use std::collections::BTreeSet;

use crate::rootfs::tree::RootTree;

/// Where a unit that links point to may be.
const FOLDERS: [&str; 3] = ["etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"];
/// What the ends of units' names are; others are services.
const TYPES: [&str; 7] =
    [".service", ".socket", ".timer", ".target", ".path", ".mount", ".automount"];

/// A link to be made.
pub type Link = (String, String);

/// The links, path and target, that enable `units` and what comes with them.
///
/// # Errors
///
/// The names of units that are not in the tree.
pub fn enabled<'u>(
    tree: &RootTree,
    units: impl IntoIterator<Item = &'u str>,
) -> Result<Vec<Link>, Vec<String>> {
    let mut waiting: Vec<String> = units.into_iter().map(full_name).collect();
    let (mut links, mut missing) = (Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    while let Some(unit) = waiting.pop() {
        if !seen.insert(unit.clone()) {
            continue;
        }
        match find(tree, &unit) {
            None => missing.push(unit),
            Some((path, text)) => {
                for (key, name) in install_section(&text) {
                    let linked = |folder: &str| {
                        let link = format!("etc/systemd/system/{folder}{unit}");
                        (link, format!("/{path}"))
                    };
                    match key {
                        "WantedBy" => links.push(linked(&format!("{name}.wants/"))),
                        "RequiredBy" => links.push(linked(&format!("{name}.requires/"))),
                        "Alias" => {
                            links.push((format!("etc/systemd/system/{name}"), format!("/{path}")));
                        }
                        _ => waiting.push(name.to_owned()),
                    }
                }
            }
        }
    }
    links.sort();
    missing.sort();
    if missing.is_empty() { Ok(links) } else { Err(missing) }
}

fn full_name(unit: &str) -> String {
    let has_type = TYPES.iter().any(|end| unit.ends_with(end));
    if has_type { unit.to_owned() } else { format!("{unit}.service") }
}

/// Where the unit, or the template that it is of, stands, and its text.
fn find(tree: &RootTree, unit: &str) -> Option<(String, String)> {
    let template = unit.split_once('@').and_then(|(name, rest)| {
        let (_, end) = rest.rsplit_once('.')?;
        Some(format!("{name}@.{end}"))
    });
    let names = [Some(unit.to_owned()), template];
    let paths = names.into_iter().flatten().flat_map(|name| {
        FOLDERS.iter().map(move |folder| format!("{folder}/{name}")).collect::<Vec<_>>()
    });
    paths.into_iter().find_map(|path| {
        let (_, contents) = tree.file(&path)?;
        let text = String::from_utf8_lossy(&contents.read().ok()?).into_owned();
        Some((path, text))
    })
}

/// The words of the keys in `[Install]` that make links or name further units.
fn install_section(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = text.lines().map(str::trim).skip_while(|line| *line != "[Install]").skip(1);
    let lines = lines.take_while(|line| !line.starts_with('['));
    lines.filter_map(|line| line.split_once('=')).flat_map(|(key, words)| {
        let key = key.trim();
        let is_known = ["WantedBy", "RequiredBy", "Alias", "Also"].contains(&key);
        words.split_whitespace().filter(move |_| is_known).map(move |word| (key, word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::tree::{Contents, Kind, Meta, Node};
    use crate::tree::{Mode, TreePath};

    #[test]
    fn units_are_enabled_by_the_links_that_they_ask_for() {
        let mut tree = RootTree::default();
        let unit = |text: &str| Node {
            meta: Meta::ours(Mode::FILE),
            kind: Kind::File(Contents::Bytes(text.as_bytes().into())),
        };
        for (path, text) in [
            (
                "usr/lib/systemd/system/chronyd.service",
                "[Unit]\nAlso=x\n[Install]\nWantedBy=multi-user.target\nAlias=ntp.service\n",
            ),
            (
                "usr/lib/systemd/system/a.socket",
                "[Install]\nRequiredBy = sockets.target\nAlso=a.service\n[X]\nAlias=no\n",
            ),
            ("etc/systemd/system/a.service", "[Service]\n"),
            ("usr/lib/systemd/system/t@.service", "[Install]\nWantedBy=x.target y.target\n"),
        ] {
            tree.insert(TreePath::new(path).unwrap(), unit(text)).unwrap();
        }
        let links = enabled(&tree, ["chronyd", "a.socket", "t@1.service"]).unwrap();
        let links: Vec<String> = links.iter().map(|(at, to)| format!("{at} -> {to}")).collect();
        assert_eq!(
            links,
            [
                "etc/systemd/system/multi-user.target.wants/chronyd.service -> /usr/lib/systemd/system/chronyd.service",
                "etc/systemd/system/ntp.service -> /usr/lib/systemd/system/chronyd.service",
                "etc/systemd/system/sockets.target.requires/a.socket -> /usr/lib/systemd/system/a.socket",
                "etc/systemd/system/x.target.wants/t@1.service -> /usr/lib/systemd/system/t@.service",
                "etc/systemd/system/y.target.wants/t@1.service -> /usr/lib/systemd/system/t@.service",
            ]
        );
        let missing = enabled(&tree, ["sshd", "none.timer", "chronyd"]).unwrap_err();
        assert_eq!(missing, ["none.timer", "sshd.service"]);
    }
}
