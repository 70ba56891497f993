//! The root of a system: everything in it with owners by number, before any format.
//!
//! Unlike a [`FileTree`](crate::tree::FileTree), whose files are all root's and in memory, it holds
//! what packages installed: gigabytes, which stay where they are.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::format::MTIME_SECS;
use crate::tree::{Mode, TreePath};

/// Owner, mode and time of something in a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    pub mode: Mode,
    pub uid: u32,
    pub gid: u32,
    /// Since the Unix epoch.
    pub mtime_secs: u64,
    /// Extended attributes by their full name, `security.capability`.
    pub xattrs: BTreeMap<String, Arc<[u8]>>,
}

impl Meta {
    /// Of something of nodeforge's: root's, with the constant time.
    pub fn ours(mode: Mode) -> Self {
        Self { mode, uid: 0, gid: 0, mtime_secs: MTIME_SECS.into(), xattrs: BTreeMap::new() }
    }
}

/// The bytes of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    Bytes(Arc<[u8]>),
    /// A file of this host's, of so many bytes.
    Host(PathBuf, u64),
}

impl Contents {
    /// In bytes.
    pub fn size(&self) -> u64 {
        match self {
            Contents::Bytes(bytes) => bytes.len() as u64,
            Contents::Host(_, size) => *size,
        }
    }

    /// All of them.
    ///
    /// # Errors
    ///
    /// Fails if the host's file cannot be read.
    pub fn read(&self) -> std::io::Result<Vec<u8>> {
        match self {
            Contents::Bytes(bytes) => Ok(bytes.to_vec()),
            Contents::Host(path, _) => std::fs::read(path),
        }
    }
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Folder,
    File(Contents),
    Symlink(String),
    /// A further name of the file at that path.
    HardLink(TreePath),
    Fifo,
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
}

/// One thing in a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub meta: Meta,
    pub kind: Kind,
}

/// Everything below a root. Every parent of an entry is a folder in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootTree {
    /// Of the root itself.
    pub root: Meta,
    nodes: BTreeMap<TreePath, Node>,
}

/// The most links that are followed, as in the kernel (path_resolution(7)).
const MAX_LINKS: usize = 40;

impl Default for RootTree {
    fn default() -> Self {
        Self { root: Meta::ours(Mode::DIR), nodes: BTreeMap::new() }
    }
}

impl RootTree {
    /// In path order, which puts parents before children.
    pub fn nodes(&self) -> impl Iterator<Item = (&TreePath, &Node)> {
        self.nodes.iter()
    }

    pub fn get(&self, path: &TreePath) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// Bytes of all files, each rounded up to a block of 4 KiB.
    pub fn size(&self) -> u64 {
        let sizes = self.nodes.values().map(|node| match &node.kind {
            Kind::File(contents) => contents.size().next_multiple_of(4096),
            Kind::HardLink(_) => 0,
            _ => 256,
        });
        sizes.sum()
    }

    /// Puts `node` at `path`, in the place of what is there; a folder that is there takes the owner
    /// and mode of a new one. Folders above it are made.
    ///
    /// # Errors
    ///
    /// Says what is in the way: a file above it, or a folder in the place of something else.
    pub fn insert(&mut self, path: TreePath, node: Node) -> Result<(), String> {
        for parent in path.ancestors() {
            let above = || Node { meta: Meta::ours(Mode::DIR), kind: Kind::Folder };
            match &self.nodes.entry(parent.clone()).or_insert_with(above).kind {
                Kind::Folder => {}
                Kind::Symlink(_) => {
                    return Err(format!("/{path} is to be written, but /{parent} is a link"));
                }
                _ => return Err(format!("/{path} is to be written, but /{parent} is a file")),
            }
        }
        let is_folder = |node: &Node| node.kind == Kind::Folder;
        if self.nodes.get(&path).is_some_and(is_folder) && !is_folder(&node) {
            return Err(format!("/{path} is a folder, where a file is to be"));
        }
        if self.nodes.get(&path).is_some_and(|there| !is_folder(there)) && is_folder(&node) {
            return Err(format!("/{path} is no folder, where one is to be"));
        }
        self.keep_other_names(&path);
        self.nodes.insert(path, node);
        Ok(())
    }

    /// Removes the file or link at `path`, if there is one; folders stay.
    pub fn remove(&mut self, path: &TreePath) {
        if self.nodes.get(path).is_some_and(|node| node.kind != Kind::Folder) {
            self.keep_other_names(path);
            self.nodes.remove(path);
        }
    }

    /// What is at `path` stays under its other names when it goes here.
    fn keep_other_names(&mut self, path: &TreePath) {
        let Some(Node { kind: Kind::File(_), .. }) = self.nodes.get(path) else { return };
        let is_name = |node: &Node| matches!(&node.kind, Kind::HardLink(to) if to == path);
        let names = self.nodes.iter().filter(|(_, node)| is_name(node));
        let names: Vec<TreePath> = names.map(|(name, _)| name.clone()).collect();
        let Some((first, others)) = names.split_first() else { return };
        let file = self.nodes[path].clone();
        self.nodes.insert(first.clone(), file);
        for other in others {
            if let Some(node) = self.nodes.get_mut(other) {
                node.kind = Kind::HardLink(first.clone());
            }
        }
    }

    /// The path without links that `path`, relative to the root, leads to; `None` where it leads to
    /// nothing.
    pub fn resolve(&self, path: &str) -> Option<TreePath> {
        let mut rest: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut found: Vec<String> = Vec::new();
        let mut n_links = 0;
        while let Some(part) = rest.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    found.pop();
                    continue;
                }
                _ => found.push(part),
            }
            let at = TreePath::new(&found.join("/")).ok()?;
            if let Kind::Symlink(target) = &self.nodes.get(&at)?.kind {
                n_links += 1;
                if n_links > MAX_LINKS {
                    return None;
                }
                found.pop();
                if target.starts_with('/') {
                    found.clear();
                }
                rest.extend(target.split('/').rev().map(str::to_owned));
            }
        }
        TreePath::new(&found.join("/")).ok()
    }

    /// The file that `path` leads to, hard links followed, and its owner and mode.
    pub fn file(&self, path: &str) -> Option<(&Meta, &Contents)> {
        let mut node = self.nodes.get(&self.resolve(path)?)?;
        if let Kind::HardLink(target) = &node.kind {
            node = self.nodes.get(target)?;
        }
        match &node.kind {
            Kind::File(contents) => Some((&node.meta, contents)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    fn node(kind: Kind) -> Node {
        Node { meta: Meta::ours(Mode::FILE), kind }
    }

    fn file(text: &str) -> Node {
        node(Kind::File(Contents::Bytes(text.as_bytes().into())))
    }

    fn tree(nodes: &[(&str, Node)]) -> RootTree {
        let mut tree = RootTree::default();
        for (at, node) in nodes {
            tree.insert(path(at), node.clone()).unwrap();
        }
        tree
    }

    #[test]
    fn links_are_followed_as_below_a_root_of_their_own() {
        let tree = tree(&[
            ("lib", node(Kind::Symlink("usr/lib".into()))),
            ("usr/lib/os", file("")),
            ("etc/os", node(Kind::Symlink("../../../lib/os".into()))),
            ("etc/absolute", node(Kind::Symlink("/etc/os".into()))),
            ("etc/loop", node(Kind::Symlink("loop".into()))),
            ("etc/lost", node(Kind::Symlink("/none".into()))),
        ]);
        for (from, to) in [
            ("lib/os", Some("usr/lib/os")),
            ("etc/absolute", Some("usr/lib/os")),
            ("etc/../lib/./os", Some("usr/lib/os")),
            ("etc/loop", None),
            ("etc/lost", None),
            ("none", None),
        ] {
            assert_eq!(tree.resolve(from), to.map(path), "{from}");
        }
    }

    #[test]
    fn a_file_that_is_replaced_lives_on_under_its_other_names() {
        let link = |to: &str| node(Kind::HardLink(path(to)));
        let mut tree = tree(&[("a", file("1")), ("b", link("a")), ("c", link("a"))]);
        tree.insert(path("a"), file("2")).unwrap();
        let contents = |name: &str| tree.file(name).unwrap().1.read().unwrap();
        assert_eq!(["a", "b", "c"].map(contents), [b"2", b"1", b"1"]);
    }

    #[test]
    fn nothing_is_written_through_a_link_or_a_file() {
        let mut tree = tree(&[("lib", node(Kind::Symlink("usr".into()))), ("usr/f", file(""))]);
        for (at, node, fault) in [
            ("lib/x", file(""), "/lib/x is to be written, but /lib is a link"),
            ("usr/f/x", file(""), "/usr/f/x is to be written, but /usr/f is a file"),
            ("usr", file(""), "/usr is a folder, where a file is to be"),
            ("usr/f", node(Kind::Folder), "/usr/f is no folder, where one is to be"),
        ] {
            let before = tree.clone();
            assert_eq!(tree.insert(path(at), node).unwrap_err(), fault);
            assert_eq!(tree, before, "{at}");
        }
    }
}
