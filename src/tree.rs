//! What is in an image: files, folders and links by path, before any format.
//!
//! A [`FileTree`] proves to the format writers that paths are clean and relative, that
//! every parent folder has an entry of its own, and that nothing is both a file and a folder.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

/// Where a file goes inside an image: relative, `/`-separated, without `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreePath(String);

impl TreePath {
    /// # Errors
    ///
    /// Fails for a path that is absolute, climbs, has empty parts, or holds a control character.
    pub fn new(path: &str) -> Result<Self, TreePathError> {
        match Self::is_clean(path) {
            true => Ok(Self(path.to_owned())),
            false => Err(TreePathError(path.to_owned())),
        }
    }

    /// Whether `path` can be one.
    pub fn is_clean(path: &str) -> bool {
        path.split('/').all(|part| !matches!(part, "" | "." | ".."))
            && !path.contains(char::is_control)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folder it is in; `None` at the top.
    pub fn parent(&self) -> Option<&str> {
        self.0.rsplit_once('/').map(|(parent, _)| parent)
    }

    /// The folders above this path, outermost first.
    pub fn ancestors(&self) -> impl Iterator<Item = TreePath> + '_ {
        self.0.match_indices('/').map(|(end, _)| TreePath(self.0[..end].to_owned()))
    }
}

impl Borrow<str> for TreePath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A path that would leave the image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a clean path inside the image: relative, no `.`, `..`, empty parts or control characters"
)]
pub struct TreePathError(String);

/// Permission bits, set-id and sticky bits included: `0o0000` to `0o7777`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mode(u16);

impl Mode {
    pub const FILE: Mode = Mode(0o644);
    pub const SCRIPT: Mode = Mode(0o755);
    pub const SECRET: Mode = Mode(0o600);
    pub const DIR: Mode = Mode(0o755);

    /// `None` for bits beyond `0o7777`.
    pub const fn new(bits: u32) -> Option<Self> {
        if bits <= 0o7777 { Some(Self(bits as u16)) } else { None }
    }

    pub const fn bits(self) -> u32 {
        self.0 as u32
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

/// Who owns a file on the installed node, by name.
///
/// Archives are root:root throughout: the users come with the RPMs and their numbers are
/// not known before. The names are applied afterwards, by one tmpfiles list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub user: Arc<str>,
    pub group: Arc<str>,
}

impl Owner {
    pub fn root() -> Self {
        // Nearly every entry's: a copy costs no memory.
        static ROOT: LazyLock<Arc<str>> = LazyLock::new(|| "root".into());
        Self { user: Arc::clone(&ROOT), group: Arc::clone(&ROOT) }
    }

    pub fn is_root(&self) -> bool {
        &*self.user == "root" && &*self.group == "root"
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.user, self.group)
    }
}

/// One thing in an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    Dir { mode: Mode },
    File { mode: Mode, contents: Arc<[u8]> },
    Symlink { target: String },
}

impl Entry {
    /// Permission bits; a link's are always `0777`.
    pub fn mode(&self) -> Mode {
        match self {
            Entry::Dir { mode } | Entry::File { mode, .. } => *mode,
            Entry::Symlink { .. } => Mode(0o777),
        }
    }

    /// Bytes of content: a file's length, a link's target's length, 0 for a folder.
    pub fn size(&self) -> u64 {
        match self {
            Entry::Dir { .. } => 0,
            Entry::File { contents, .. } => contents.len() as u64,
            Entry::Symlink { target } => target.len() as u64,
        }
    }
}

/// An entry with its owner and what put it there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    pub entry: Entry,
    pub owner: Owner,
    /// The overlay or profile it came from, for people: `daos-server (server)`.
    pub origin: Arc<str>,
}

/// Everything in one image, in path order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileTree {
    entries: BTreeMap<TreePath, Placed>,
}

impl FileTree {
    /// Puts `placed` at `path`; folders above it that have no entry yet are made, 0755 root.
    ///
    /// A folder may be put twice: the later mode and owner hold. Anything else twice is a
    /// conflict.
    ///
    /// # Errors
    ///
    /// [`TreeConflict`] when something else is in the way; the tree is unchanged then.
    pub fn insert(&mut self, path: TreePath, placed: Placed) -> Result<(), TreeConflict> {
        let conflict = |at: &TreePath, there: &Placed| TreeConflict {
            path: at.clone(),
            first: there.origin.clone(),
            second: placed.origin.clone(),
        };
        if !self.has_folder_of(&path) {
            for parent in path.ancestors() {
                if let Some(there) = self.entries.get(&parent).filter(|there| !is_dir(there)) {
                    return Err(conflict(&parent, there));
                }
            }
        }
        if let Some(there) = self.entries.get(&path)
            && !(is_dir(there) && is_dir(&placed))
        {
            return Err(conflict(&path, there));
        }
        if !self.has_folder_of(&path) {
            for parent in path.ancestors() {
                self.entries.entry(parent).or_insert_with(|| Placed {
                    entry: Entry::Dir { mode: Mode::DIR },
                    owner: Owner::root(),
                    origin: placed.origin.clone(),
                });
            }
        }
        self.entries.insert(path, placed);
        Ok(())
    }

    /// Whether the folder that `path` is in has an entry; those above it have one then, too.
    pub fn has_folder_of(&self, path: &TreePath) -> bool {
        path.parent().is_none_or(|parent| self.entries.get(parent).is_some_and(is_dir))
    }

    /// Puts a root-owned file at `path`; see [`insert`](Self::insert).
    pub fn add_file(
        &mut self,
        path: &str,
        mode: Mode,
        contents: impl AsRef<[u8]>,
        origin: &str,
    ) -> Result<(), AddError> {
        let entry = Entry::File { mode, contents: contents.as_ref().into() };
        let placed = Placed { entry, owner: Owner::root(), origin: origin.into() };
        Ok(self.insert(TreePath::new(path)?, placed)?)
    }

    pub fn get(&self, path: &TreePath) -> Option<&Placed> {
        self.entries.get(path)
    }

    /// All entries in path order, which puts parents before children.
    pub fn entries(&self) -> impl Iterator<Item = (&TreePath, &Placed)> {
        self.entries.iter()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Gives `take` bytes that are equal for trees of equal content, and for no others; owners
    /// and origins do not count.
    pub fn describe(&self, mut take: impl FnMut(&[u8])) {
        for (path, placed) in &self.entries {
            let (kind, content): (_, &[u8]) = match &placed.entry {
                Entry::Dir { .. } => ('d', &[]),
                Entry::File { contents, .. } => ('f', contents),
                Entry::Symlink { target } => ('l', target.as_bytes()),
            };
            let (mode, n_bytes) = (placed.entry.mode(), content.len());
            take(format!("{path}\n{kind} {mode} {n_bytes}\n").as_bytes());
            take(content);
        }
    }

    /// Lays `upper` over this tree: its files replace this tree's files.
    ///
    /// # Errors
    ///
    /// [`TreeConflict`] where a folder of one is a file of the other.
    pub fn overlay(&mut self, upper: &FileTree) -> Result<(), TreeConflict> {
        for (path, placed) in upper.entries() {
            let is_file = |placed: &Placed| !matches!(placed.entry, Entry::Dir { .. });
            if is_file(placed) && self.entries.get(path).is_some_and(is_file) {
                self.entries.remove(path);
            }
            self.insert(path.clone(), placed.clone())?;
        }
        Ok(())
    }
}

fn is_dir(placed: &Placed) -> bool {
    matches!(placed.entry, Entry::Dir { .. })
}

/// Two things want one path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`/{path}` comes from {first} and from {second}")]
pub struct TreeConflict {
    pub path: TreePath,
    pub first: Arc<str>,
    pub second: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    #[error(transparent)]
    Path(#[from] TreePathError),
    #[error(transparent)]
    Conflict(#[from] TreeConflict),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(tree: &FileTree) -> Vec<&str> {
        tree.entries().map(|(path, _)| path.as_str()).collect()
    }

    #[test]
    fn paths_that_leave_the_image_are_refused() {
        for path in ["", "/etc", "../x", "a/../b", "a//b", "a/./b", "a/", "a\0b", "a\nb"] {
            assert!(TreePath::new(path).is_err(), "{path:?}");
        }
        assert_eq!(TreePath::new("etc/daos/..x").unwrap().as_str(), "etc/daos/..x");
    }

    #[test]
    fn parents_get_entries_of_their_own() {
        let mut tree = FileTree::default();
        tree.add_file("etc/ssh/sshd_config", Mode::SECRET, "", "ssh").unwrap();
        assert_eq!(paths(&tree), ["etc", "etc/ssh", "etc/ssh/sshd_config"]);
    }

    #[test]
    fn a_file_and_a_folder_cannot_share_a_path() {
        let mut tree = FileTree::default();
        tree.add_file("etc/a", Mode::FILE, "", "one").unwrap();
        let before = tree.clone();
        for path in ["etc", "etc/a", "etc/a/b"] {
            let fault = tree.add_file(path, Mode::FILE, "", "two").unwrap_err();
            assert!(matches!(fault, AddError::Conflict(_)), "{path}");
            assert_eq!(tree, before);
        }
    }

    #[test]
    fn an_upper_tree_replaces_files_and_keeps_the_rest() {
        let (mut lower, mut upper) = (FileTree::default(), FileTree::default());
        lower.add_file("etc/a", Mode::FILE, "1", "lower").unwrap();
        lower.add_file("etc/b", Mode::FILE, "2", "lower").unwrap();
        upper.add_file("etc/a", Mode::SECRET, "3", "upper").unwrap();
        lower.overlay(&upper).unwrap();
        let origins: Vec<&str> =
            lower.entries().skip(1).map(|(_, placed)| &*placed.origin).collect();
        assert_eq!(origins, ["upper", "lower"]);
    }
}
