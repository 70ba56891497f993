//! `nodeforge show`: what a node gets.

use std::io::Write;

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::build;
use crate::cli::ShowArgs;
use crate::cluster::{Cluster, Node};
use crate::commands::{Outcome, lint, load, report};
use crate::diag::{Color, Diagnostic, Problems};
use crate::media::boot_tree::{KindMenus, Stage2};
use crate::render::prepared::Prepared;
use crate::tree::{Entry, FileTree, TreePath};

pub fn run(args: &ShowArgs, color: Color) -> Result<Outcome> {
    let Some(mut loaded) = load::resolved(&args.cluster, color)? else {
        return Ok(Outcome::Problems);
    };
    let mut problems = Problems::default();
    let prepared = lint::prepare(&loaded.cluster, &mut loaded.source, &mut problems);
    let Some(prepared) = prepared else {
        report::draw(&problems.into_sorted(), &loaded.source.map, color)?;
        return Ok(Outcome::Problems);
    };
    let node = load::node(&loaded.cluster, &args.node)?;
    let shown = match args.what.as_deref() {
        None => whole_tree(&prepared, node).and_then(|tree| Ok(print_list(&tree, args)?)),
        Some("kickstart") => build::kickstart(&prepared, &loaded.cluster, node)
            .map_err(Shown::from)
            .and_then(|text| Ok(print(text.as_bytes())?)),
        Some("pxe") => print_boot_files(&prepared, &loaded.cluster, node),
        Some(path) => {
            whole_tree(&prepared, node).and_then(|tree| Ok(print_file(&tree, path, node)?))
        }
    };
    match shown {
        Ok(()) => Ok(Outcome::Done),
        Err(Shown::World(fault)) => Err(fault),
        Err(Shown::Problems(problems)) => {
            report::draw(&problems, &loaded.source.map, color)?;
            Ok(Outcome::Problems)
        }
    }
}

/// Why something cannot be shown.
enum Shown {
    Problems(Vec<Diagnostic>),
    World(anyhow::Error),
}

impl From<anyhow::Error> for Shown {
    fn from(fault: anyhow::Error) -> Self {
        Self::World(fault)
    }
}

impl From<build::BuildError> for Shown {
    fn from(fault: build::BuildError) -> Self {
        match fault.into_problems() {
            Ok(problems) => Self::Problems(problems),
            Err(fault) => Self::World(fault),
        }
    }
}

/// All layers of the node on top of each other.
fn whole_tree(prepared: &Prepared<'_>, node: &Node) -> Result<FileTree, Shown> {
    let layers = prepared.layers().map_err(Shown::Problems)?;
    let own = prepared.nodes_of_kind(node.kind).own_tree(node).map_err(Shown::Problems)?;
    let mut tree = FileTree::default();
    let shared = prepared.layers_of(node.kind);
    for layer in shared.iter().map(|name| &layers[name]).chain([&own]) {
        tree.overlay(layer).map_err(|fault| Shown::World(fault.into()))?;
    }
    Ok(tree)
}

fn print_list(tree: &FileTree, args: &ShowArgs) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if args.json {
        let rows: Vec<_> = tree
            .entries()
            .map(|(path, placed)| {
                json!({
                    "path": format!("/{path}"),
                    "type": kind_of(&placed.entry),
                    "mode": placed.entry.mode().to_string(),
                    "owner": placed.owner.to_string(),
                    "size": placed.entry.size(),
                    "target": target_of(&placed.entry),
                    "from": &*placed.origin,
                })
            })
            .collect();
        serde_json::to_writer_pretty(&mut out, &rows)?;
        writeln!(out)?;
        return Ok(());
    }
    let files = || tree.entries().filter(|(_, placed)| !matches!(placed.entry, Entry::Dir { .. }));
    let width =
        |of: &dyn Fn(&TreePath) -> usize| files().map(|(path, _)| of(path)).max().unwrap_or(0);
    let path_width = width(&|path| path.as_str().len() + 1);
    let owner_width = files().map(|(_, placed)| placed.owner.to_string().len()).max().unwrap_or(0);
    for (path, placed) in files() {
        let link =
            target_of(&placed.entry).map_or_else(String::new, |target| format!(" -> {target}"));
        writeln!(
            out,
            "{}  {:owner_width$}  {:>6}  {:path_width$}  {}{link}",
            placed.entry.mode(),
            placed.owner.to_string(),
            placed.entry.size(),
            format!("/{path}"),
            placed.origin,
        )?;
    }
    Ok(())
}

fn kind_of(entry: &Entry) -> &'static str {
    match entry {
        Entry::Dir { .. } => "directory",
        Entry::File { .. } => "file",
        Entry::Symlink { .. } => "link",
    }
}

fn target_of(entry: &Entry) -> Option<&str> {
    match entry {
        Entry::Symlink { target } => Some(target),
        _ => None,
    }
}

fn print_file(tree: &FileTree, path: &str, node: &Node) -> Result<()> {
    let inside = TreePath::new(path.trim_start_matches('/')).with_context(|| {
        format!("reading the path `{path}`; `kickstart` and `pxe` are the other words")
    })?;
    match tree.get(&inside).map(|placed| &placed.entry) {
        Some(Entry::File { contents, .. }) => print(contents),
        Some(Entry::Symlink { target }) => {
            print(format!("{path} is a link to {target}\n").as_bytes())
        }
        Some(Entry::Dir { .. }) => {
            bail!("`{path}` is a folder; `show` without a path lists what is in it")
        }
        None => bail!("{} gets no `{path}`; `show` without a path lists what it gets", node.name),
    }
}

fn print_boot_files(prepared: &Prepared<'_>, cluster: &Cluster, node: &Node) -> Result<(), Shown> {
    let kind = cluster.kind_of(node);
    let menus = KindMenus::of(prepared.templates(), cluster, kind, Stage2::Mirror);
    let files =
        menus.files(node).map_err(|fault| Shown::Problems(vec![prepared.diagnostic(&fault)]))?;
    for (path, text) in files {
        print(format!("==> pxe/{path} <==\n{text}\n").as_bytes())?;
    }
    Ok(())
}

fn print(bytes: &[u8]) -> Result<()> {
    Ok(std::io::stdout().lock().write_all(bytes)?)
}
