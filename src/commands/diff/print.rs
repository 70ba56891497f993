//! How changes are told.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use crate::changes::{Amount, Change, Changes, Group, LayerChange, Need, Shout, State};
use crate::range::{self, NodeName};

/// The newer side.
pub enum New<'a> {
    Generation(u64),
    Cluster(&'a Path),
}

pub fn nothing_differs(old: u64, new: &New<'_>) -> String {
    match new {
        New::Generation(new) => format!("generations {old} and {new} are the same"),
        New::Cluster(path) => {
            format!("a build of {} would change nothing in generation {old}", path.display())
        }
    }
}

pub fn text(changes: &Changes, old: u64, new: &New<'_>) -> Result<()> {
    let mut out = io::stdout().lock();
    match new {
        New::Generation(new) => writeln!(out, "generation {old} -> generation {new}")?,
        New::Cluster(path) => writeln!(out, "generation {old} -> {}", path.display())?,
    }
    for shout in &changes.shouts {
        writeln!(out, "{}", shouted(shout))?;
    }
    for layer in &changes.layers {
        let need = need_of(&layer.changes);
        writeln!(out, "layer {}, {}: {need}", layer.name, counted(&layer.nodes))?;
        layer.changes.iter().try_for_each(|change| print_change(&mut out, change, None))?;
    }
    for group in &changes.groups {
        print_group(&mut out, group)?;
    }
    if !changes.boot.is_empty() {
        writeln!(out, "boot tree")?;
        changes.boot.iter().try_for_each(|change| print_change(&mut out, change, None))?;
    }
    for (what, nodes) in [("new", &changes.added), ("gone", &changes.removed)] {
        if !nodes.is_empty() {
            writeln!(out, "{what}: {}", counted(nodes))?;
        }
    }
    let needs: Vec<String> = changes
        .needs
        .iter()
        .rev()
        .map(|(need, nodes)| format!("{} {}", need.as_str(), counted(nodes)))
        .collect();
    if !needs.is_empty() {
        writeln!(out, "installed nodes need: {}", needs.join("; "))?;
    }
    Ok(())
}

fn print_group(out: &mut impl Write, group: &Group) -> io::Result<()> {
    let also = if group.is_also { " also" } else { "" };
    let need = group.changes.iter().map(|it| it.change.need).max().unwrap_or(Need::Nothing);
    writeln!(out, "{}{also}: {}", counted(&group.nodes), need.as_str())?;
    for it in &group.changes {
        let varies = it.varies.then(|| group.nodes[0].as_str());
        print_change(out, &it.change, varies)?;
    }
    Ok(())
}

/// `first` is the node whose lines are shown where each node has its own.
fn print_change(out: &mut impl Write, change: &Change, first: Option<&str>) -> io::Result<()> {
    let own = if first.is_some() { ", each node its own" } else { "" };
    writeln!(out, "  {}{}{own}", change.what, amount(change))?;
    if let (Some(first), Some(_)) = (first, &change.patch) {
        writeln!(out, "    of {first}:")?;
    }
    let lines = change.patch.iter().flat_map(|patch| patch.lines());
    lines.into_iter().try_for_each(|line| writeln!(out, "    {line}"))
}

/// `  +1 -2`, `  new, 3 lines`, `  mode 0644 -> 0600`.
fn amount(change: &Change) -> String {
    let mut text = String::new();
    let mut add = |part: String| {
        let separator = if text.is_empty() { "  " } else { ", " };
        write!(text, "{separator}{part}").expect("a string takes all that is written");
    };
    match change.state {
        State::Added => add("new".to_owned()),
        State::Removed => add("gone".to_owned()),
        State::Changed => {}
    }
    match (change.state, change.amount) {
        (State::Added, Amount::Lines { added: n_lines, .. })
        | (State::Removed, Amount::Lines { removed: n_lines, .. }) => {
            add(format!("{n_lines} line{}", if n_lines == 1 { "" } else { "s" }));
        }
        (_, Amount::Lines { added: 0, removed }) => add(format!("-{removed}")),
        (_, Amount::Lines { added, removed: 0 }) => add(format!("+{added}")),
        (_, Amount::Lines { added, removed }) => add(format!("+{added} -{removed}")),
        (State::Changed, Amount::Unseen) => add("changed".to_owned()),
        (_, Amount::Unseen | Amount::Whole) => {}
    }
    if let Some((old, new)) = change.mode {
        add(format!("mode {old} -> {new}"));
    }
    text
}

fn shouted(shout: &Shout) -> String {
    let Shout { what, values, consequence, nodes } = shout;
    let values = match values {
        Some((old, new)) => format!("{old} -> {new}"),
        None => "each node its own".to_owned(),
    };
    format!("! {what}: {values}: {consequence}: {}", counted(nodes))
}

fn need_of(changes: &[Change]) -> &'static str {
    changes.iter().map(|change| change.need).max().unwrap_or(Need::Nothing).as_str()
}

/// `512 nodes srv[001-512]`.
fn counted(nodes: &[String]) -> String {
    let names: Vec<NodeName> = nodes.iter().map(NodeName::new).collect();
    match names.len() {
        0 => "no node".to_owned(),
        1 => format!("1 node {}", names[0]),
        n_nodes => format!("{n_nodes} nodes {}", range::fold(&names)),
    }
}

pub fn json(changes: &Changes, old: u64, new: &New<'_>) -> Result<()> {
    let layer = |it: &LayerChange| {
        let changes: Vec<Value> = it.changes.iter().map(change_json).collect();
        json!({"name": it.name, "nodes": it.nodes, "changes": changes})
    };
    let needs = [Need::Nothing, Need::Files, Need::Reinstall].map(|need| {
        let nodes = changes.needs.get(&need).cloned().unwrap_or_default();
        (need.as_str().to_owned(), Value::from(nodes))
    });
    let json = json!({
        "same": changes.is_empty(),
        "old": {"generation": old},
        "new": match new {
            New::Generation(number) => json!({"generation": number}),
            New::Cluster(path) => json!({"cluster": path.display().to_string()}),
        },
        "shouts": changes.shouts.iter().map(shout_json).collect::<Vec<_>>(),
        "layers": changes.layers.iter().map(layer).collect::<Vec<_>>(),
        "groups": changes.groups.iter().map(group_json).collect::<Vec<_>>(),
        "boot": changes.boot.iter().map(change_json).collect::<Vec<_>>(),
        "added": changes.added,
        "removed": changes.removed,
        "needs": needs.into_iter().collect::<serde_json::Map<_, _>>(),
        "secrets_not_compared": changes.unread_secrets,
    });
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, &json)?;
    writeln!(out)?;
    Ok(())
}

fn shout_json(shout: &Shout) -> Value {
    let (old, new) = shout.values.clone().unzip();
    json!({
        "what": shout.what,
        "old": old,
        "new": new,
        "consequence": shout.consequence,
        "nodes": shout.nodes,
    })
}

fn group_json(group: &Group) -> Value {
    let changes = group.changes.iter().map(|it| {
        let mut change = change_json(&it.change);
        change["varies"] = it.varies.into();
        change
    });
    json!({"nodes": group.nodes, "changes": changes.collect::<Vec<_>>()})
}

fn change_json(change: &Change) -> Value {
    let (added, removed) = match change.amount {
        Amount::Lines { added, removed } => (Some(added), Some(removed)),
        Amount::Unseen | Amount::Whole => (None, None),
    };
    let (old_mode, new_mode) =
        change.mode.map(|(old, new)| (old.to_string(), new.to_string())).unzip();
    json!({
        "what": change.what,
        "state": change.state.as_str(),
        "lines_added": added,
        "lines_removed": removed,
        "old_mode": old_mode,
        "new_mode": new_mode,
        "need": change.need.as_str(),
        "patch": change.patch,
    })
}
