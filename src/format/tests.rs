use std::process::{Command, Stdio};
use std::{fs, io::Write as _, thread};

use proptest::prelude::*;

use super::*;
use crate::tree::Owner;

const BOTH: [Archive; 2] = [Archive::Tar, Archive::Newc];

/// A tree with each kind of entry, odd modes, odd sizes and a name over 100 bytes.
fn sample() -> FileTree {
    let mut tree = FileTree::default();
    let mode = |bits| Mode::new(bits).unwrap();
    tree.add_file("etc/hosts", Mode::FILE, "127.0.0.1 localhost\n", "hosts").unwrap();
    tree.add_file("etc/empty", Mode::SECRET, "", "hosts").unwrap();
    tree.add_file("etc-more/x", Mode::SCRIPT, vec![0xff; 513], "more").unwrap();
    tree.add_file("usr/bin/su", mode(0o4755), "12345", "su").unwrap();
    let long = format!("var/{}/file", "long".repeat(30));
    tree.add_file(&long, Mode::FILE, "deep", "deep").unwrap();
    let put = |tree: &mut FileTree, path: &str, entry| {
        let placed = Placed { entry, owner: Owner::root(), origin: "links".into() };
        tree.insert(TreePath::new(path).unwrap(), placed).unwrap();
    };
    put(&mut tree, "etc/localtime", Entry::Symlink { target: "../usr//share/./UTC".into() });
    put(&mut tree, "etc/away", Entry::Symlink { target: "/far/".repeat(30) });
    put(&mut tree, "tmp", Entry::Dir { mode: mode(0o1777) });
    tree
}

fn written(archive: Archive, tree: &FileTree) -> Vec<u8> {
    let mut bytes = Vec::new();
    archive.write(tree, &mut bytes).unwrap();
    bytes
}

/// Runs `program` with `archive` on its standard input and returns what it prints.
#[track_caller]
fn piped(program: &str, arguments: &[&str], archive: Vec<u8>) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|fault| panic!("this test needs {program}: {fault}"));
    let mut stdin = child.stdin.take().unwrap();
    let feeder = thread::spawn(move || stdin.write_all(&archive));
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{program}: {stderr}");
    output.stdout
}

/// The lines of the `ls -l`-like listing that `program` prints of `archive`, their columns
/// parted by single spaces.
#[track_caller]
fn judged(program: &str, arguments: &[&str], archive: Vec<u8>) -> Vec<String> {
    let listing = String::from_utf8(piped(program, arguments, archive)).unwrap();
    listing.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn archives_hold_exactly_their_tree() {
    let tree = sample();
    for archive in BOTH {
        let bytes = written(archive, &tree);
        assert_eq!(archive.list(&bytes).unwrap(), listing_of(&tree), "{archive:?}");
        archive.check(&tree, &bytes).unwrap();
    }
}

#[test]
fn newc_is_the_documented_text_header_name_and_contents() {
    let mut tree = FileTree::default();
    tree.add_file("etc/motd", Mode::FILE, "hi\n", "motd").unwrap();
    let header = |ino, mode, n_links, mtime, size, name_size| {
        format!(
            "070701{ino:08x}{mode:08x}{:08x}{:08x}{n_links:08x}{mtime:08x}{size:08x}\
             {:08x}{:08x}{:08x}{:08x}{name_size:08x}{:08x}",
            0, 0, 0, 0, 0, 0, 0
        )
    };
    let expected = [
        header(1, 0o040_755, 2, MTIME_SECS, 0, 4),
        "etc\0\0\0".to_owned(),
        header(2, 0o100_644, 1, MTIME_SECS, 3, 9),
        "etc/motd\0\0hi\n\0".to_owned(),
        header(0, 0, 1, 0, 0, 11),
        "TRAILER!!!\0\0\0\0".to_owned(),
    ];
    assert_eq!(String::from_utf8(written(Archive::Newc, &tree)).unwrap(), expected.concat());
}

#[test]
fn gnu_cpio_lists_newc_as_we_mean_it() {
    let listing = judged("cpio", &["-tv", "--quiet"], written(Archive::Newc, &sample()));
    let long = "long".repeat(30);
    let expected = [
        "drwxr-xr-x 2 root root 0 Nov 21 2023 etc".to_owned(),
        "drwxr-xr-x 2 root root 0 Nov 21 2023 etc-more".to_owned(),
        "-rwxr-xr-x 1 root root 513 Nov 21 2023 etc-more/x".to_owned(),
        format!("lrwxrwxrwx 1 root root 150 Nov 21 2023 etc/away -> {}", "/far/".repeat(30)),
        "-rw------- 1 root root 0 Nov 21 2023 etc/empty".to_owned(),
        "-rw-r--r-- 1 root root 20 Nov 21 2023 etc/hosts".to_owned(),
        "lrwxrwxrwx 1 root root 19 Nov 21 2023 etc/localtime -> ../usr//share/./UTC".to_owned(),
        "drwxrwxrwt 2 root root 0 Nov 21 2023 tmp".to_owned(),
        "drwxr-xr-x 3 root root 0 Nov 21 2023 usr".to_owned(),
        "drwxr-xr-x 2 root root 0 Nov 21 2023 usr/bin".to_owned(),
        "-rwsr-xr-x 1 root root 5 Nov 21 2023 usr/bin/su".to_owned(),
        "drwxr-xr-x 3 root root 0 Nov 21 2023 var".to_owned(),
        format!("drwxr-xr-x 2 root root 0 Nov 21 2023 var/{long}"),
        format!("-rw-r--r-- 1 root root 4 Nov 21 2023 var/{long}/file"),
    ];
    assert_eq!(listing, expected);
}

#[test]
fn bsdtar_lists_tar_as_we_mean_it() {
    let listing = judged("bsdtar", &["-tvf", "-"], written(Archive::Tar, &sample()));
    let long = "long".repeat(30);
    let expected = [
        "drwxr-xr-x 0 root root 0 Nov 21 2023 etc/".to_owned(),
        "drwxr-xr-x 0 root root 0 Nov 21 2023 etc-more/".to_owned(),
        "-rwxr-xr-x 0 root root 513 Nov 21 2023 etc-more/x".to_owned(),
        format!("lrwxrwxrwx 0 root root 0 Nov 21 2023 etc/away -> {}", "/far/".repeat(30)),
        "-rw------- 0 root root 0 Nov 21 2023 etc/empty".to_owned(),
        "-rw-r--r-- 0 root root 20 Nov 21 2023 etc/hosts".to_owned(),
        "lrwxrwxrwx 0 root root 0 Nov 21 2023 etc/localtime -> ../usr//share/./UTC".to_owned(),
        "drwxrwxrwt 0 root root 0 Nov 21 2023 tmp/".to_owned(),
        "drwxr-xr-x 0 root root 0 Nov 21 2023 usr/".to_owned(),
        "drwxr-xr-x 0 root root 0 Nov 21 2023 usr/bin/".to_owned(),
        "-rwsr-xr-x 0 root root 5 Nov 21 2023 usr/bin/su".to_owned(),
        "drwxr-xr-x 0 root root 0 Nov 21 2023 var/".to_owned(),
        format!("drwxr-xr-x 0 root root 0 Nov 21 2023 var/{long}/"),
        format!("-rw-r--r-- 0 root root 4 Nov 21 2023 var/{long}/file"),
    ];
    assert_eq!(listing, expected);
}

#[test]
fn gnu_tar_unpacks_what_we_pack() {
    let folder = tempfile::tempdir().unwrap();
    let packed = pack(&sample(), Archive::Tar, gzip::Level::Fast).unwrap();
    let into = folder.path().to_str().unwrap();
    piped("tar", &["-xzpf", "-", "-C", into, "--no-same-owner"], packed);
    let read = |path: &str| fs::read(folder.path().join(path)).unwrap();
    assert_eq!(read("etc-more/x"), [0xff; 513]);
    assert_eq!(read(&format!("var/{}/file", "long".repeat(30))), b"deep");
    let target = fs::read_link(folder.path().join("etc/localtime")).unwrap();
    assert_eq!(target.to_str(), Some("../usr//share/./UTC"));
}

#[test]
fn packed_archives_unpack_with_gzip_to_the_plain_ones() {
    for archive in BOTH {
        for level in [gzip::Level::Fast, gzip::Level::Small] {
            let packed = pack(&sample(), archive, level).unwrap();
            let mut plain = Vec::new();
            gzip::read(&packed, 1 << 20, &mut plain).unwrap();
            assert_eq!(plain, written(archive, &sample()), "{archive:?} {level:?}");
            assert_eq!(piped("gzip", &["-dc"], packed), plain, "{archive:?} {level:?}");
        }
    }
}

/// Archives on disk are named by their bytes: a compressor that was updated and packs
/// differently rebuilds every node, so it should not pass unnoticed.
#[test]
fn the_bytes_of_archives_are_those_of_the_last_version() {
    let digests = BOTH.map(|archive| {
        [gzip::Level::Fast, gzip::Level::Small]
            .map(|level| Digest::of(&pack(&sample(), archive, level).unwrap()).to_string())
    });
    let expected = [
        [
            "3fee57e039147161a89e773e85790797ef88e275b73e8ac85ce20edaf61190c7",
            "d5ffc4bfe46e83ba5958059a6c0b8446dac28e2cf514423223b37e87f1469158",
        ],
        [
            "aef6470485c5a57d7971c5e12db6981b271c81c878a8f6a7a79130040dd6eecc",
            "5540b1a66b056241a26f46dca697dc344ea6a306089e4d808c9e157385d4d3c3",
        ],
    ];
    assert_eq!(digests, expected);
}

#[test]
fn gzip_headers_hold_no_time_no_name_and_no_system() {
    let header = |level| {
        let mut packed = Vec::new();
        gzip::write(b"x", level, &mut packed).unwrap();
        packed[..10].to_vec()
    };
    assert_eq!(header(gzip::Level::Fast), [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255]);
    assert_eq!(header(gzip::Level::Small), [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
}

#[test]
fn a_file_around_a_ready_part_is_one_plain_gzip_file() {
    let ready = gzip::Ready::new(&b"the same in every file\n".repeat(2000)).unwrap();
    for (n_before, n_after) in [(0, 0), (1, 0), (0, 1), (120, 9000), (70_000, 200_000)] {
        let bytes = |n: u32| (0..n).map(|n| (n.wrapping_mul(n) / 7) as u8).collect::<Vec<u8>>();
        let (before, after) = (bytes(n_before), bytes(n_after));
        let plain = [&before, ready.plain(), &after].concat();
        let n_before = before.len();
        let mut packed = Vec::new();
        gzip::write_around(&before, &ready, &after, gzip::Level::Fast, &mut packed).unwrap();
        let mut unpacked = Vec::new();
        gzip::read(&packed, plain.len(), &mut unpacked).unwrap();
        assert!(unpacked == plain, "{n_before} bytes before, {n_after} after");
        gzip::check_around(&packed, n_before, &ready, &plain).unwrap();
        for at in (10..packed.len()).step_by(packed.len() / 50 + 1) {
            let mut broken = packed.clone();
            broken[at] ^= 1;
            let is_other =
                |read: std::io::Result<()>, unpacked: Vec<u8>| read.is_err() || unpacked != plain;
            let mut unpacked = Vec::new();
            let read = gzip::read(&broken, plain.len(), &mut unpacked);
            let checked = gzip::check_around(&broken, n_before, &ready, &plain);
            // Some bits say the same either way: how far back equal bytes are.
            assert!(checked.is_err() || !is_other(read, unpacked), "byte {at} is broken");
        }
        assert!(gzip::check_around(&packed[..packed.len() - 1], n_before, &ready, &plain).is_err());
    }
}

#[test]
fn a_used_compressor_gives_the_bytes_of_a_new_one() {
    let compressed = |text: &[u8], level| {
        let mut packed = Vec::new();
        gzip::write(text, level, &mut packed).unwrap();
        packed
    };
    let texts: Vec<Vec<u8>> =
        (0..6).map(|n| format!("line {n} of many\n").repeat(n * 3000).into_bytes()).collect();
    for level in [gzip::Level::Fast, gzip::Level::Small] {
        for text in &texts {
            let by_new =
                thread::scope(|scope| scope.spawn(|| compressed(text, level)).join().unwrap());
            assert_eq!(compressed(text, level), by_new, "{} bytes, {level:?}", text.len());
        }
    }
}

#[test]
fn gzip_reads_back_what_no_room_can_hold_in_one_go() {
    let text: Vec<u8> = (0..100_000_u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
    let mut packed = Vec::new();
    gzip::write(&text, gzip::Level::Fast, &mut packed).unwrap();
    let mut plain = Vec::new();
    gzip::read(&packed, text.len(), &mut plain).unwrap();
    assert!(plain == text);
}

#[test]
fn gzip_refuses_bombs_second_members_and_cuts() {
    let mut packed = Vec::new();
    gzip::write(&[0; 100_000], gzip::Level::Fast, &mut packed).unwrap();
    let fault = |packed: &[u8], max_bytes| {
        gzip::read(packed, max_bytes, &mut Vec::new()).unwrap_err().to_string()
    };
    assert_eq!(fault(&packed, 99_999), "it unpacks to more than 99999 bytes");
    assert_eq!(
        fault(&[&packed[..], &packed[..]].concat(), 1 << 20),
        "the gzip file's checksum or end is wrong"
    );
    assert_eq!(fault(&packed[..packed.len() - 12], 1 << 20), "the gzip file is cut short");
    assert_eq!(fault(b"PK\x03\x04aaaaaaaaaaa", 1), "not a gzip file with a plain header");
    assert_eq!(fault(&[], 1), "not a gzip file with a plain header");
}

#[test]
fn what_no_kernel_unpacks_is_refused() {
    for archive in BOTH {
        for (path, target) in [("link", ""), ("link", "a\0b"), ("link", &"x".repeat(4096))] {
            let mut tree = FileTree::default();
            let entry = Entry::Symlink { target: target.to_owned() };
            let placed = Placed { entry, owner: Owner::root(), origin: "links".into() };
            tree.insert(TreePath::new(path).unwrap(), placed).unwrap();
            let fault = archive.write(&tree, Vec::new()).unwrap_err();
            assert_eq!(fault.kind(), io::ErrorKind::InvalidInput, "{archive:?} {target:?}");
        }
        let mut tree = FileTree::default();
        tree.add_file(&"a".repeat(4096), Mode::FILE, "", "long").unwrap();
        let fault = archive.write(&tree, Vec::new()).unwrap_err();
        assert_eq!(fault.to_string(), "a path of 4096 bytes; 4095 at most", "{archive:?}");
    }
}

#[test]
fn a_changed_archive_is_told_from_its_tree() {
    let tree = sample();
    for archive in BOTH {
        let told = |change: &dyn Fn(&mut FileTree)| {
            let mut other = sample();
            change(&mut other);
            archive.check(&tree, &written(archive, &other)).unwrap_err().to_string()
        };
        let replaced = |path: &'static str, mode, contents: &'static str| {
            move |other: &mut FileTree| {
                let mut upper = FileTree::default();
                upper.add_file(path, mode, contents, "upper").unwrap();
                other.overlay(&upper).unwrap();
            }
        };
        let contents = replaced("etc/hosts", Mode::FILE, "127.0.0.1 localhosT\n");
        assert_eq!(told(&contents), "`/etc/hosts` differs in the archive");
        let mode = replaced("etc/hosts", Mode::SCRIPT, "127.0.0.1 localhost\n");
        assert_eq!(told(&mode), "`/etc/hosts` differs in the archive");
        let surplus = replaced("z", Mode::FILE, "");
        assert_eq!(told(&surplus), "`/z` is surplus in the archive");
        let empty = |other: &mut FileTree| *other = FileTree::default();
        assert_eq!(told(&empty), "`/etc` is missing in the archive");
    }
}

#[test]
fn cut_archives_are_refused_wherever_they_are_cut() {
    for archive in BOTH {
        let bytes = written(archive, &sample());
        let is_refused = |bytes: &[u8]| archive.read(bytes, &mut |_| Ok(())).is_err();
        for n_bytes in 0..bytes.len() {
            assert!(is_refused(&bytes[..n_bytes]), "{archive:?} cut at {n_bytes}");
        }
        assert!(is_refused(&[&bytes[..], b"x"].concat()), "{archive:?} with one byte more");
    }
}

#[test]
fn crates_read_what_we_write() {
    let (mut listed, mut bytes) = (Vec::new(), &written(Archive::Newc, &sample())[..]);
    loop {
        let member = cpio::NewcReader::new(bytes).unwrap();
        if member.entry().is_trailer() {
            break;
        }
        let entry = member.entry().clone();
        let mut contents = Vec::new();
        bytes = member.to_writer(&mut contents).unwrap();
        listed.push((entry.name().to_owned(), entry.ino(), entry.mode() & 0o7777, contents));
    }
    let expected: Vec<_> = (1..)
        .zip(sample().entries())
        .map(|(ino, (path, placed))| {
            let contents = match body_of(&placed.entry) {
                Body::Dir => vec![],
                Body::File(contents) => contents.to_vec(),
                Body::Symlink(target) => target.into(),
            };
            (path.as_str().to_owned(), ino, placed.entry.mode().bits(), contents)
        })
        .collect();
    assert_eq!(listed, expected);

    let tar = written(Archive::Tar, &sample());
    let mut archive = ::tar::Archive::new(&tar[..]);
    let paths = archive.entries().unwrap().map(|entry| {
        let path = entry.unwrap().path().unwrap().into_owned();
        path.to_str().unwrap().trim_end_matches('/').to_owned()
    });
    let expected = sample().entries().map(|(path, _)| path.to_string()).collect::<Vec<_>>();
    assert_eq!(paths.collect::<Vec<_>>(), expected);
}

#[test]
fn devices_and_hard_links_are_refused() {
    let refused = |archive: Archive, bytes: &[u8]| archive.list(bytes).unwrap_err().to_string();
    let fifo = cpio::newc::Builder::new("pipe").mode(0o010_644).write(Vec::new(), 0);
    let bytes = cpio::newc::trailer(fifo.finish().unwrap()).unwrap();
    assert_eq!(refused(Archive::Newc, &bytes), "`pipe` is neither a file, a folder nor a link");
    let mut builder = ::tar::Builder::new(Vec::new());
    let mut header = ::tar::Header::new_gnu();
    header.set_entry_type(::tar::EntryType::Link);
    header.set_size(0);
    builder.append_link(&mut header, "hard", "other").unwrap();
    let bytes = builder.into_inner().unwrap();
    assert_eq!(refused(Archive::Tar, &bytes), "`hard` is neither a file, a folder nor a link");
}

#[test]
fn paths_that_leave_the_image_are_not_listed() {
    let climbing = cpio::newc::Builder::new("../x").mode(0o100_644).write(Vec::new(), 0);
    let bytes = cpio::newc::trailer(climbing.finish().unwrap()).unwrap();
    assert!(Archive::Newc.list(&bytes).unwrap_err().to_string().starts_with("`../x` is not a"));
}

/// Makes the header checksums of a garbled tar right again, so that readers look further.
fn mend_checksums(tar: &mut [u8]) {
    for block in tar.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn readers_take_garbled_archives_without_panic(
        is_tar in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let archive = if is_tar { Archive::Tar } else { Archive::Newc };
        let mut bytes = written(archive, &sample());
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if is_tar {
            mend_checksums(&mut bytes);
        }
        let _ = archive.list(&bytes);
        let _ = archive.list(&bytes[..cut.index(bytes.len())]);
        let _ = gzip::read(&bytes, 1 << 20, &mut Vec::new());
    }

    #[test]
    fn readers_take_noise_without_panic(noise in prop::collection::vec(any::<u8>(), 0..2048)) {
        for archive in BOTH {
            let _ = archive.list(&noise);
        }
        let mut packed = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255];
        packed.extend(noise);
        let _ = gzip::read(&packed, 1 << 20, &mut Vec::new());
    }
}
