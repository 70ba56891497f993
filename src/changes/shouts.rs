//! Changes of a file that lose data, or that copying the file does not bring about.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::changes::Need;
use crate::daos::immutable::{IMMUTABLE, ImmutableKey};

/// A shout of one node or layer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cry {
    pub what: String,
    pub old: String,
    pub new: String,
    pub consequence: String,
    pub need: Need,
}

const SERVER_YML: &str = "etc/daos/daos_server.yml";
const KERNEL_ARGS: &str = "etc/nodeforge/kernel-args";

/// What is to be shouted about a file that is there before and after.
pub fn of_file(path: &str, old: &str, new: &str) -> Vec<Cry> {
    let mut cries = Vec::new();
    if path == KERNEL_ARGS {
        cries.extend(kernel_arguments(old, new));
    }
    if path.starts_with("etc/daos/") {
        cries.extend(daos_version(old, new));
    }
    if path == SERVER_YML {
        cries.extend(immutable(old, new));
    }
    cries
}

/// What is to be shouted about a node's own part of its kickstart.
pub fn of_kickstart(old: &str, new: &str) -> Option<Cry> {
    let arguments = |text: &str| {
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix("NF_KERNEL_ARGS="))?;
        Some(value.trim_matches('\'').to_owned())
    };
    kernel_arguments(&arguments(old)?, &arguments(new)?)
}

/// The release that a node installs.
pub fn of_release(old: &str, new: &str) -> Option<Cry> {
    (old != new).then(|| Cry {
        what: "release of AlmaLinux".to_owned(),
        old: old.to_owned(),
        new: new.to_owned(),
        consequence: "another kernel and other packages".to_owned(),
        need: Need::Reinstall,
    })
}

fn kernel_arguments(old: &str, new: &str) -> Option<Cry> {
    let words = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        lines.flat_map(str::split_whitespace).map(str::to_owned).collect()
    };
    let (old, new) = (words(old), words(new));
    // Which ones differ: kinds that have others beside them are told together.
    let only = |these: &[String], others: &[String]| -> Vec<String> {
        these.iter().filter(|word| !others.contains(word)).cloned().collect()
    };
    let (gone, come) = (only(&old, &new), only(&new, &old));
    let is_order = gone.is_empty() && come.is_empty();
    let (gone, come) = if is_order { (old.clone(), new.clone()) } else { (gone, come) };
    let list = |words: Vec<String>| match words.is_empty() {
        true => "(none)".to_owned(),
        false => words.join(" "),
    };
    (old != new).then(|| Cry {
        what: "kernel arguments".to_owned(),
        old: list(gone),
        new: list(come),
        consequence: "an installed node keeps its old ones until it is installed again".to_owned(),
        need: Need::Reinstall,
    })
}

/// By the first line of the files that nodeforge writes for DAOS.
fn daos_version(old: &str, new: &str) -> Option<Cry> {
    let (old, new) = (written_for(old)?, written_for(new)?);
    (old != new).then(|| Cry {
        what: "DAOS".to_owned(),
        old: old.to_owned(),
        new: new.to_owned(),
        consequence: "servers of two versions do not form one system: change all at once"
            .to_owned(),
        need: Need::Reinstall,
    })
}

fn written_for(text: &str) -> Option<&str> {
    let (_, rest) = text.lines().next()?.split_once(", for DAOS ")?;
    Some(rest.split_once(". ").map_or(rest, |(version, _)| version))
}

/// The keys that format fixes. A file that is not YAML, such as a site's, has none.
fn immutable(old: &str, new: &str) -> Vec<Cry> {
    let values = |text: &str| -> BTreeMap<String, (Value, &'static ImmutableKey)> {
        let file: Value = serde_saphyr::from_str(text).unwrap_or_default();
        let mut values = BTreeMap::new();
        for key in IMMUTABLE {
            let steps: Vec<&str> = key.yaml.split('.').collect();
            collect(&file, &steps, "", &mut |path, value| {
                values.insert(shared_name(path), (value.clone(), key));
            });
        }
        values
    };
    let (old, new) = (values(old), values(new));
    let paths: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let value = |side: &BTreeMap<String, (Value, _)>, path: &String| {
        side.get(path).map(|(value, _)| value.clone())
    };
    paths
        .into_iter()
        .filter(|path| value(&old, path) != value(&new, path))
        .map(|path| {
            let (_, key) = old.get(path).or(new.get(path)).expect("one of them has the path");
            Cry {
                what: path.clone(),
                old: shown(value(&old, path)),
                new: shown(value(&new, path)),
                consequence: key.consequence.to_owned(),
                need: Need::Files,
            }
        })
        .collect()
}

/// DAOS 2.8 calls the same list by another name.
fn shared_name(path: String) -> String {
    if path == "mgmt_svc_replicas" { "access_points".to_owned() } else { path }
}

fn shown(value: Option<Value>) -> String {
    match value {
        None => "(not said)".to_owned(),
        Some(Value::String(text)) => text,
        Some(Value::Array(items)) => {
            let items: Vec<String> = items.into_iter().map(|item| shown(Some(item))).collect();
            format!("[{}]", items.join(", "))
        }
        Some(value) => value.to_string(),
    }
}

/// Gives `take` each value at a path such as `engines[].targets`, with the numbers of the items.
fn collect(value: &Value, steps: &[&str], path: &str, take: &mut dyn FnMut(String, &Value)) {
    let Some((step, rest)) = steps.split_first() else {
        take(path.to_owned(), value);
        return;
    };
    let name = step.strip_suffix("[]").unwrap_or(step);
    let Some(inner) = value.get(name) else { return };
    let dot = if path.is_empty() { "" } else { "." };
    let path = format!("{path}{dot}{name}");
    match inner.as_array().filter(|_| step.ends_with("[]")) {
        Some(items) => {
            for (at, item) in items.iter().enumerate() {
                collect(item, rest, &format!("{path}[{at}]"), take);
            }
        }
        None => collect(inner, rest, &path, take),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(path: &str, old: &str, new: &str) -> Vec<String> {
        let cries = of_file(path, old, new).into_iter();
        cries.map(|cry| format!("{}: {} -> {}", cry.what, cry.old, cry.new)).collect()
    }

    #[test]
    fn what_format_fixes_is_shouted_by_its_path_and_the_rest_is_not() {
        let old = "# daos_server.yml of x, for DAOS 2.6.0. Made by nodeforge.\nname: a\n\
                   access_points:\n- n1\nport: 1\nengines:\n- targets: 4\n  storage:\n  \
                   - class: ram\n    scm_size: 1\n  - class: nvme\n    bdev_list: [a, b]\n    \
                   bdev_roles: [meta, data]\n";
        let new = old
            .replace("- n1", "- n2")
            .replace("port: 1", "port: 2")
            .replace("targets: 4", "targets: 8")
            .replace("[a, b]", "[a]")
            .replace("[meta, data]", "[data]")
            .replace("2.6.0", "2.6.5");
        assert_eq!(
            said(SERVER_YML, old, &new),
            [
                "DAOS: 2.6.0 -> 2.6.5",
                "access_points: [n1] -> [n2]",
                "engines[0].storage[1].bdev_list: [a, b] -> [a]",
                "engines[0].storage[1].bdev_roles: [meta, data] -> [data]",
                "engines[0].targets: 4 -> 8",
            ]
        );
        let renamed = old.replace("access_points", "mgmt_svc_replicas");
        assert_eq!(said(SERVER_YML, old, &renamed), [""; 0]);
    }

    #[test]
    fn kernel_arguments_are_compared_word_by_word() {
        assert_eq!(
            said(KERNEL_ARGS, "# once\na=1 b\n", "# twice\na=1 c\n"),
            ["kernel arguments: b -> c"]
        );
        assert_eq!(said(KERNEL_ARGS, "a\nb\n", "b\na\n"), ["kernel arguments: a b -> b a"]);
        assert_eq!(said(KERNEL_ARGS, "a\n", "a\nb\n"), ["kernel arguments: (none) -> b"]);
        assert_eq!(said(KERNEL_ARGS, "# once\na=1 b\n", "# twice\na=1\nb\n"), [""; 0]);
        let kickstart =
            |console: &str| format!("lang 'C'\nNF_KERNEL_ARGS='a=1 console={console}'\n");
        let cry = of_kickstart(&kickstart("ttyS0"), &kickstart("ttyS1")).unwrap();
        assert_eq!((&*cry.old, &*cry.new), ("console=ttyS0", "console=ttyS1"));
        assert_eq!(of_kickstart(&kickstart("ttyS0"), &kickstart("ttyS0")), None);
    }
}
