//! What is in a tree: one line an entry, so that two trees can be compared and the
//! difference read.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use sha2::{Digest, Sha256};

/// Entries by path: relative, without `./` and without a slash at the end.
pub type Listing = BTreeMap<String, Listed>;

/// One entry as an archive or a kernel sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// File type and permission bits, as in `st_mode`.
    pub mode: u32,
    /// `uid:gid`.
    pub owner: String,
    /// Bytes of a file; 0 for anything else.
    pub size: u64,
    pub content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Not looked at: a plain listing of an archive does not say.
    Unread,
    Folder,
    Sha256(String),
    LinkTo(String),
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:o} {} {} bytes", self.mode, self.owner, self.size)?;
        match &self.content {
            Content::Unread | Content::Folder => Ok(()),
            Content::Sha256(digest) => write!(f, " sha256 {digest}"),
            Content::LinkTo(target) => write!(f, " -> {target}"),
        }
    }
}

/// File types of `st_mode`, inode(7).
pub const S_IFDIR: u32 = 0o040000;
pub const S_IFREG: u32 = 0o100000;
pub const S_IFLNK: u32 = 0o120000;

/// The tree below `root`, which is not itself listed. Owners are told as root's: archives
/// are root's throughout, whoever runs the tests.
pub fn of_folder(root: &Path) -> Listing {
    let walk = walkdir::WalkDir::new(root).min_depth(1).sort_by_file_name();
    walk.into_iter()
        .map(|entry| {
            let entry = entry.unwrap();
            let path = entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            (path, of_path(entry.path()))
        })
        .collect()
}

fn of_path(path: &Path) -> Listed {
    let metadata = path.symlink_metadata().unwrap();
    let owner = "0:0".to_owned();
    if metadata.is_symlink() {
        let target = path.read_link().unwrap().to_str().unwrap().to_owned();
        return Listed { mode: S_IFLNK | 0o777, owner, size: 0, content: Content::LinkTo(target) };
    }
    let mode = metadata.permissions().mode();
    if metadata.is_dir() {
        return Listed { mode, owner, size: 0, content: Content::Folder };
    }
    let content = Content::Sha256(sha256(&std::fs::read(path).unwrap()));
    Listed { mode, owner, size: metadata.size(), content }
}

/// Lower-case hex, as `sha256sum` prints it.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What `actual` has that differs from `expected`, one line a path. Content is compared
/// where both sides know it.
pub fn differences(expected: &Listing, actual: &Listing) -> Vec<String> {
    let paths: std::collections::BTreeSet<&String> = expected.keys().chain(actual.keys()).collect();
    paths
        .into_iter()
        .filter_map(|path| match (expected.get(path), actual.get(path)) {
            (Some(wanted), None) => Some(format!("{path}: missing ({wanted})")),
            (None, Some(found)) => Some(format!("{path}: not expected ({found})")),
            (Some(wanted), Some(found)) if !agree(wanted, found) => {
                Some(format!("{path}: expected {wanted}, found {found}"))
            }
            _ => None,
        })
        .collect()
}

fn agree(wanted: &Listed, found: &Listed) -> bool {
    let is_unread = |listed: &Listed| listed.content == Content::Unread;
    (wanted.mode, &wanted.owner, wanted.size) == (found.mode, &found.owner, found.size)
        && (is_unread(wanted) || is_unread(found) || wanted.content == found.content)
}

#[test]
fn listings_differ_by_path_mode_size_and_content() {
    let folder = super::scratch();
    super::write(folder.path(), "etc/a", "1");
    super::set_mode(folder.path(), "etc/a", 0o600);
    super::set_mode(folder.path(), "etc", 0o755);
    let expected = of_folder(folder.path());
    assert_eq!(differences(&expected, &expected), [""; 0]);

    super::write(folder.path(), "etc/a", "2");
    super::set_mode(folder.path(), "etc", 0o700);
    std::os::unix::fs::symlink("a", folder.path().join("etc/b")).unwrap();
    let (one, two) = (sha256(b"1"), sha256(b"2"));
    assert_eq!(
        differences(&expected, &of_folder(folder.path())),
        [
            "etc: expected 40755 0:0 0 bytes, found 40700 0:0 0 bytes".to_owned(),
            format!(
                "etc/a: expected 100600 0:0 1 bytes sha256 {one}, found 100600 0:0 1 bytes sha256 {two}"
            ),
            "etc/b: not expected (120777 0:0 0 bytes -> a)".to_owned(),
        ]
    );
}
