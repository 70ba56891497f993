//! Archives and digests: GNU cpio, bsdtar and sha256sum read what a build wrote.

use std::path::Path;
use std::process::Stdio;

use crate::support;
use crate::support::listing::{self, Content, Listed, Listing, S_IFDIR, S_IFLNK, S_IFREG};

/// How `archive` differs from `expected` in paths, modes, owners, sizes and links, as bsdtar
/// lists it and, for a cpio, GNU cpio too; and what in it is not the same on every build.
pub fn findings(archive: &Path, expected: &Listing) -> Vec<String> {
    let mut found = gzip_faults(archive);
    let listed_by_bsdtar = bsdtar(archive);
    let mut listings = vec![("bsdtar", &listed_by_bsdtar)];
    let listed_by_cpio;
    if archive.to_str().is_some_and(|name| name.ends_with(".cpio.gz")) {
        listed_by_cpio = gnu_cpio(archive);
        listings.push(("cpio", &listed_by_cpio));
    }
    for (program, entries) in listings {
        let listing: Listing =
            entries.iter().map(|entry| (entry.path.clone(), entry.listed.clone())).collect();
        if listing.len() != entries.len() {
            found.push(format!("{program}: a path stands twice"));
        }
        found.extend(order_faults(entries).into_iter().map(|fault| format!("{program}: {fault}")));
        let differences = listing::differences(expected, &listing);
        found.extend(differences.into_iter().map(|line| format!("{program}: {line}")));
    }
    found.into_iter().map(|line| format!("{}: {line}", archive.display())).collect()
}

/// What an independent program makes of `archive`, for the other judges: its tree in the
/// folder `into`.
#[track_caller]
pub fn extract(archive: &Path, into: &Path) {
    let output = support::command("bsdtar")
        .args(["-x", "-p", "--no-same-owner", "-f"])
        .arg(archive)
        .arg("-C")
        .arg(into)
        .output()
        .unwrap();
    let said = support::spoken_lines(&output);
    assert!(output.status.success(), "bsdtar -xf {}: {said:?}", archive.display());
}

/// What `sha256sum -c` says of `folder/SHA256SUMS`.
pub fn sha256sums(folder: &Path) -> Vec<String> {
    let output = support::command("sha256sum")
        .args(["--check", "--strict", "--quiet", "SHA256SUMS"])
        .current_dir(folder)
        .output()
        .unwrap();
    let mut found = support::spoken_lines(&output);
    if found.is_empty() && !output.status.success() {
        found.push(format!("sha256sum: {}", output.status));
    }
    found
}

/// One line of a listing.
struct Line {
    path: String,
    date: String,
    listed: Listed,
}

/// The day all entries are from: 2023-11-21, as a listing prints it.
const DATE: &str = "Nov 21 2023";

/// RFC 1952 §2.3.1: no time, no name, an unknown system; and one member only, since the
/// kernel stops reading an archive that is split over several (lib/decompress_inflate.c).
fn gzip_faults(archive: &Path) -> Vec<String> {
    let bytes = std::fs::read(archive).unwrap();
    let mut found = Vec::new();
    let is_plain = bytes.starts_with(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0]) && bytes.get(9) == Some(&255);
    if !is_plain {
        found.push("the gzip header holds a time, a name or a system".to_owned());
    }
    let mut member = flate2::bufread::GzDecoder::new(&bytes[..]);
    match std::io::copy(&mut member, &mut std::io::sink()) {
        Ok(_) if member.get_ref().is_empty() => {}
        Ok(_) => found.push("more than one gzip member".to_owned()),
        Err(error) => found.push(format!("gzip: {error}")),
    }
    found
}

fn order_faults(entries: &[Line]) -> Vec<String> {
    let mut found = Vec::new();
    let undated = entries.iter().filter(|entry| entry.date != DATE);
    found.extend(undated.map(|entry| format!("{}: dated {}, not {DATE}", entry.path, entry.date)));
    let unsorted = entries.windows(2).filter(|pair| pair[0].path >= pair[1].path);
    found.extend(unsorted.map(|pair| format!("{} stands before {}", pair[0].path, pair[1].path)));
    for (position, entry) in entries.iter().enumerate() {
        let Some((parent, _)) = entry.path.rsplit_once('/') else { continue };
        let is_there = entries[..position].iter().any(|other| other.path == parent);
        if !is_there {
            found.push(format!("{}: no entry of its folder before it", entry.path));
        }
    }
    found
}

fn bsdtar(archive: &Path) -> Vec<Line> {
    let output = support::command("bsdtar")
        .args(["-t", "-v", "--numeric-owner", "-f"])
        .arg(archive)
        .output()
        .unwrap();
    assert!(output.status.success(), "bsdtar: {:?}", support::spoken_lines(&output));
    lines(&output.stdout)
}

fn gnu_cpio(archive: &Path) -> Vec<Line> {
    let mut gzip = support::command("gzip")
        .args(["-d", "-c"])
        .arg(archive)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = support::command("cpio")
        .args(["--list", "--verbose", "--numeric-uid-gid", "--quiet"])
        .stdin(gzip.stdout.take().unwrap())
        .output()
        .unwrap();
    assert!(gzip.wait().unwrap().success(), "gzip -d {}", archive.display());
    assert!(output.status.success(), "cpio: {:?}", support::spoken_lines(&output));
    lines(&output.stdout)
}

fn lines(listing: &[u8]) -> Vec<Line> {
    String::from_utf8_lossy(listing).lines().map(line).collect()
}

/// `drwxr-xr-x  2 0  0  0 Nov 21  2023 etc`: the form of `ls -l`, links with ` -> target`.
#[track_caller]
fn line(text: &str) -> Line {
    let mut rest = text;
    let mut field = || {
        let (word, after) = rest.trim_start().split_once(' ').unwrap_or((rest.trim_start(), ""));
        rest = after;
        word.to_owned()
    };
    let [kind, _n_links, user, group, size, month, day, year] = std::array::from_fn(|_| field());
    let (path, link) = rest.split_once(" -> ").unwrap_or((rest, ""));
    let mode = mode_of(&kind).unwrap_or_else(|| panic!("not a line of a listing: {text}"));
    let is_file = mode & 0o170000 == S_IFREG;
    let content = match mode & 0o170000 {
        S_IFLNK => Content::LinkTo(link.to_owned()),
        S_IFDIR => Content::Folder,
        _ => Content::Unread,
    };
    Line {
        path: path.trim_end_matches('/').to_owned(),
        date: format!("{month} {day} {year}"),
        listed: Listed {
            mode,
            owner: format!("{user}:{group}"),
            size: if is_file { size.parse().unwrap() } else { 0 },
            content,
        },
    }
}

/// `st_mode` of `-rwsr-xr-t`, or `None` for a file type no archive of ours may hold.
fn mode_of(text: &str) -> Option<u32> {
    let letters: Vec<char> = text.chars().collect();
    let kind = match letters.first()? {
        'd' => S_IFDIR,
        '-' => S_IFREG,
        'l' => S_IFLNK,
        _ => return None,
    };
    let mut mode = kind;
    for (position, letter) in letters[1..].iter().take(9).enumerate() {
        let bit = 1 << (8 - position);
        let special = 0o4000 >> (position / 3);
        mode |= match letter {
            '-' => 0,
            's' | 't' => bit | special,
            'S' | 'T' => special,
            _ => bit,
        };
    }
    Some(mode)
}

/// Packs `folder` with GNU cpio and gzip as the product packs: sorted, root's, one date.
#[track_caller]
pub fn stand_in_cpio(folder: &Path, archive: &Path) {
    pack(folder, archive, "cpio --create --format=newc --owner=0:0 --reproducible --quiet");
}

/// Packs `folder` with GNU tar and gzip likewise.
#[track_caller]
pub fn stand_in_tar(folder: &Path, archive: &Path) {
    let tar = "tar --create --format=gnu --no-recursion --files-from=- --numeric-owner --owner=0 --group=0";
    pack(folder, archive, tar);
}

/// `program` reads the names on its standard input. The byte at 9 of a gzip header is the
/// system, 255 for an unknown one (RFC 1952 §2.3.1); gzip writes 3.
#[track_caller]
fn pack(folder: &Path, archive: &Path, program: &str) {
    let script = format!(
        "set -e; find . -mindepth 1 -exec touch -h -d @1700524800 {{}} +; \
         find . -mindepth 1 -printf '%P\\n' | LC_ALL=C sort | {program} | gzip -n > \"$1\"; \
         printf '\\377' | dd of=\"$1\" bs=1 seek=9 conv=notrunc status=none"
    );
    let output = support::command("sh")
        .args(["-c", &script, "sh"])
        .arg(archive)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{:?}", support::spoken_lines(&output));
}

/// A small tree with a link, an empty file, a secret and a set-id bit.
pub fn sample_tree() -> tempfile::TempDir {
    let tree = support::scratch();
    for (path, mode, contents) in [
        ("etc/daos/certs/server.key", 0o400, "key"),
        ("etc/daos/daos_server.yml", 0o640, "name: daos_server\n"),
        ("etc/empty", 0o644, ""),
        ("usr/libexec/nodeforge/a file", 0o4755, "#!/bin/bash\n"),
    ] {
        support::write(tree.path(), path, contents);
        support::set_mode(tree.path(), path, mode);
    }
    for (path, mode) in [
        ("etc", 0o755),
        ("etc/daos", 0o755),
        ("etc/daos/certs", 0o700),
        ("usr", 0o755),
        ("usr/libexec", 0o755),
        ("usr/libexec/nodeforge", 0o1777),
    ] {
        support::set_mode(tree.path(), path, mode);
    }
    std::os::unix::fs::symlink("/usr/bin/true", tree.path().join("etc/link")).unwrap();
    tree
}

#[test]
fn an_archive_lists_as_the_tree_it_was_made_from() {
    if support::lacks(&["cpio", "bsdtar", "gzip"]) {
        return;
    }
    let (tree, out) = (sample_tree(), support::scratch());
    let archive = out.path().join("x.cpio.gz");
    stand_in_cpio(tree.path(), &archive);
    let expected = listing::of_folder(tree.path());
    assert_eq!(expected.len(), 11);
    assert_eq!(findings(&archive, &expected), [""; 0]);

    let copy = out.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    extract(&archive, &copy);
    assert_eq!(listing::differences(&expected, &listing::of_folder(&copy)), [""; 0]);
}

#[test]
fn an_archive_that_differs_is_told_by_both_readers() {
    if support::lacks(&["cpio", "bsdtar", "gzip"]) {
        return;
    }
    let (tree, out) = (sample_tree(), support::scratch());
    let archive = out.path().join("x.cpio.gz");
    stand_in_cpio(tree.path(), &archive);
    let mut expected = listing::of_folder(tree.path());
    expected.get_mut("etc/empty").unwrap().mode = S_IFREG | 0o600;
    expected.remove("etc/link");
    let name = archive.display();
    let by = |program: &str| {
        [
            format!(
                "{name}: {program}: etc/empty: expected 100600 0:0 0 bytes sha256 {}, found 100644 0:0 0 bytes",
                listing::sha256(b"")
            ),
            format!(
                "{name}: {program}: etc/link: not expected (120777 0:0 0 bytes -> /usr/bin/true)"
            ),
        ]
    };
    assert_eq!(findings(&archive, &expected), [by("bsdtar"), by("cpio")].concat());
}

#[test]
fn what_leaks_into_an_archive_is_told() {
    if support::lacks(&["cpio", "bsdtar", "gzip", "tar"]) {
        return;
    }
    let (tree, out) = (sample_tree(), support::scratch());
    let archive = out.path().join("x.tar.gz");
    let pack = |options: &str| {
        let script = format!("tar --format=gnu {options} -cf - etc/empty etc/daos | gzip > \"$1\"");
        let output = support::command("sh")
            .args(["-c", &script, "sh"])
            .arg(&archive)
            .current_dir(tree.path())
            .output()
            .unwrap();
        assert!(output.status.success());
        findings(&archive, &Listing::new())
    };
    let found = pack("--owner=7 --group=8 --mtime=@0");
    for finding in [
        "the gzip header holds a time, a name or a system",
        "bsdtar: etc/empty: dated Jan 1 1970, not Nov 21 2023",
        "bsdtar: etc/empty stands before etc/daos",
        "bsdtar: etc/empty: no entry of its folder before it",
        "bsdtar: etc/empty: not expected (100644 7:8 0 bytes)",
    ] {
        let line = format!("{}: {finding}", archive.display());
        assert!(found.contains(&line), "{finding}: {found:#?}");
    }
    let member = std::fs::read(&archive).unwrap();
    std::fs::write(&archive, [&member[..], &member[..]].concat()).unwrap();
    assert!(gzip_faults(&archive).contains(&"more than one gzip member".to_owned()));
}

#[test]
fn digests_are_checked_by_sha256sum() {
    let folder = support::scratch();
    support::write(folder.path(), "a", "1");
    let found_for = |line: &str| {
        support::write(folder.path(), "SHA256SUMS", line);
        sha256sums(folder.path())
    };
    assert_eq!(found_for(&format!("{}  a\n", listing::sha256(b"1"))), [""; 0]);
    let found = found_for(&format!("{}  a\n", listing::sha256(b"2")));
    assert_eq!(found[0], "a: FAILED");
    let found = found_for("nonsense\n");
    assert!(found[0].ends_with("no properly formatted checksum lines found"), "{found:?}");
}
