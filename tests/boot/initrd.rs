//! The base initrd of boot tests: busybox, and an init that reports the tree it finds.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::oracles::archives::stand_in_cpio;
use crate::support;
use crate::support::listing::{Content, Listed, Listing, S_IFDIR, S_IFLNK, S_IFREG};

pub const REPORT_BEGINS: &str = "nodeforge-boot-test: begin";
pub const REPORT_ENDS: &str = "nodeforge-boot-test: end";

/// Nothing is mounted: `find` sees the initramfs alone. The sleep ends a guest whose test
/// was killed.
const INIT: &str = r#"#!/bin/busybox sh
b=/bin/busybox
$b echo
$b echo 'nodeforge-boot-test: begin'
$b find / -xdev -mindepth 1 | while IFS= read -r path; do
    if [ -L "$path" ]; then
        content=$($b readlink "$path")
    elif [ -f "$path" ]; then
        content=$($b sha256sum "$path")
        content=${content%% *}
    else
        content=
    fi
    $b echo "$($b stat -c '%f|%u:%g|%s' "$path")|$content|${path#/}"
done
$b echo 'nodeforge-boot-test: end'
$b sleep 60
$b poweroff -f
"#;

/// What every guest has: the base's own files, and what the kernel's built-in archive has
/// (usr/default_cpio_list).
const OWN: [&str; 7] = ["bin", "bin/busybox", "dev", "dev/console", "filler", "init", "root"];

/// The tree of an initrd whose init is a script for busybox.
#[track_caller]
pub fn tree_with(init: impl AsRef<[u8]>) -> TempDir {
    let tree = support::scratch();
    let busybox = support::find_program("busybox").expect("the test asked for it");
    support::write(tree.path(), "init", init);
    support::write(tree.path(), "bin/busybox", std::fs::read(busybox).unwrap());
    for path in ["init", "bin/busybox"] {
        support::set_mode(tree.path(), path, 0o755);
    }
    tree
}

/// Writes the base to `folder` with a length that is odd, and returns its path.
#[track_caller]
pub fn base_of_odd_length(folder: &Path) -> PathBuf {
    let tree = tree_with(INIT);
    let base = folder.join("base.cpio.gz");
    let is_odd = |n_filler: usize| {
        // Letters that do not compress: each step changes the length by about a byte.
        let filler: String = (0..n_filler).map(|n| char::from(b'a' + (n * n % 23) as u8)).collect();
        support::write(tree.path(), "filler", filler);
        stand_in_cpio(tree.path(), &base);
        base.metadata().unwrap().len() % 2 == 1
    };
    assert!((0..64).any(is_odd), "no filler makes the length odd");
    base
}

/// The guest's report as a listing, without what every guest has and `expected` does not
/// name.
#[track_caller]
pub fn listing_of(report: &[String], expected: &Listing) -> Listing {
    report
        .iter()
        .map(|line| entry(line).unwrap_or_else(|| panic!("not a line of a report: {line:?}")))
        .filter(|(path, _)| expected.contains_key(path) || !OWN.contains(&&**path))
        .collect()
}

/// `mode in hex|uid:gid|size|digest or target|path`.
fn entry(line: &str) -> Option<(String, Listed)> {
    let mut fields = line.splitn(5, '|');
    let mode = u32::from_str_radix(fields.next()?, 16).ok()?;
    let owner = fields.next()?.to_owned();
    let size: u64 = fields.next()?.parse().ok()?;
    let content = fields.next()?.to_owned();
    let path = fields.next()?.to_owned();
    let (size, content) = match mode & 0o170000 {
        S_IFREG => (size, Content::Sha256(content)),
        S_IFLNK => (0, Content::LinkTo(content)),
        S_IFDIR => (0, Content::Folder),
        _ => (0, Content::Unread),
    };
    Some((path, Listed { mode, owner, size, content }))
}

#[test]
fn a_report_is_read_as_a_listing() {
    let report = [
        "41ed|0:0|60||etc",
        "81a4|0:0|2|abcd|etc/a|b",
        "a1ff|0:0|1|a|etc/link",
        "81ed|0:0|9|ffff|init",
    ]
    .map(str::to_owned);
    let listed = |mode, size, content| Listed { mode, owner: "0:0".to_owned(), size, content };
    let expected = Listing::from([
        ("etc".to_owned(), listed(0o040755, 0, Content::Folder)),
        ("etc/a|b".to_owned(), listed(0o100644, 2, Content::Sha256("abcd".to_owned()))),
        ("etc/link".to_owned(), listed(0o120777, 0, Content::LinkTo("a".to_owned()))),
    ]);
    assert_eq!(listing_of(&report, &expected), expected);
}
