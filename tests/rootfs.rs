//! `image --rootfs` before judges: partitions, filesystems and archives that other programs read, the
//! same bytes everywhere, and what is refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tar::{Builder, EntryType, Header};

use crate::examples::{nodeforge, run};
use crate::support::{self, judged};

/// The judges, and what the program itself runs.
const NEEDS: [&str; 10] = [
    "mke2fs",
    "debugfs",
    "e2fsck",
    "grub-mkimage",
    "qemu-img",
    "sgdisk",
    "fsck.fat",
    "mdir",
    "grub-fstest",
    "bsdtar",
];

#[track_caller]
fn lacks() -> bool {
    let boot_img = "/usr/lib/grub/i386-pc/boot.img";
    support::lacks(&[&NEEDS[..], &[boot_img]].concat())
}

/// `security.capability` of a program that may open raw sockets (linux/capability.h, version 2).
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[derive(Clone)]
struct Entry {
    path: &'static str,
    type_: EntryType,
    mode: u32,
    owner: (u64, u64),
    text: &'static str,
}

const fn entry(path: &'static str, type_: EntryType, mode: u32, text: &'static str) -> Entry {
    Entry { path, type_, mode, owner: (0, 0), text }
}

const UNIT: &str = "[Install]\nWantedBy=multi-user.target\n";

/// A system in small: the units that the nodes enable, root's line in shadow, and all kinds of
/// entries with owners, modes and names that are easily lost.
const TREE: &[Entry] = &[
    entry("./", EntryType::Directory, 0o555, ""),
    entry("./usr/", EntryType::Directory, 0o755, ""),
    entry("./etc/", EntryType::Directory, 0o755, ""),
    entry("./lib", EntryType::Symlink, 0o777, "usr/lib"),
    entry("./etc/shadow", EntryType::Regular, 0o000, "root:old:1:0:::::\nbin:*:1:0:::::\n"),
    entry("./etc/ssh/ssh_host_rsa_key", EntryType::Regular, 0o600, "everybody's"),
    entry("./usr/lib/systemd/system/chronyd.service", EntryType::Regular, 0o644, UNIT),
    entry("./usr/lib/systemd/system/chrony-wait.service", EntryType::Regular, 0o644, UNIT),
    entry("./usr/lib/systemd/system/sshd.service", EntryType::Regular, 0o644, UNIT),
    entry("./usr/lib/systemd/system/tuned.service", EntryType::Regular, 0o644, UNIT),
    Entry {
        owner: (0, 1234),
        ..entry("./usr/bin/setgid", EntryType::Regular, 0o2755, "a program")
    },
    entry("./usr/bin/other-name", EntryType::Link, 0o2755, "./usr/bin/setgid"),
    entry("./usr/bin/ping", EntryType::Regular, 0o755, "has a capability"),
    Entry { owner: (998, 997), ..entry("./srv/a \"b\" <5>", EntryType::Regular, 0o640, "odd") },
    Entry { owner: (998, 997), ..entry("./srv/pipe", EntryType::Fifo, 0o600, "") },
    entry("./srv/null", EntryType::Char, 0o666, ""),
];

fn pack(path: &Path, entries: &[Entry]) {
    let mut archive = Builder::new(fs::File::create(path).unwrap());
    for entry in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(entry.type_);
        header.set_mode(entry.mode);
        header.set_uid(entry.owner.0);
        header.set_gid(entry.owner.1);
        header.set_mtime(1_600_000_000);
        header.set_size(0);
        if entry.path.ends_with("ping") {
            let attribute = ("SCHILY.xattr.security.capability", &CAPABILITY[..]);
            archive.append_pax_extensions([attribute]).unwrap();
        }
        match entry.type_ {
            EntryType::Symlink | EntryType::Link => {
                archive.append_link(&mut header, entry.path, entry.text).unwrap();
            }
            EntryType::Regular => {
                header.set_size(entry.text.len() as u64);
                archive.append_data(&mut header, entry.path, entry.text.as_bytes()).unwrap();
            }
            _ => {
                header.set_device_major(1).unwrap();
                header.set_device_minor(3).unwrap();
                archive.append_data(&mut header, entry.path, &[][..]).unwrap();
            }
        }
    }
    archive.into_inner().unwrap();
}

/// What boot loaders take for a kernel; it says that it is version 1.2.
fn kernel() -> Vec<u8> {
    let mut kernel = vec![0; 0x400];
    kernel[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    kernel[0x20e..0x210].copy_from_slice(&[0, 1]);
    kernel[0x300..0x309].copy_from_slice(b"1.2 (me) ");
    kernel
}

/// The cluster of the boot tests with small disks, the tree and a kernel.
fn workplace() -> tempfile::TempDir {
    let folder = support::scratch();
    let lab = fs::read_to_string(support::repository().join("tests/boot/lab.toml")).unwrap();
    let small = lab
        .replace("disk = \"8GiB\", iommu = true }", "disk = \"400MiB\", iommu = true }")
        .replace("selinux = \"disabled\" ", "selinux = \"enforcing\" ");
    assert_ne!(small, lab);
    support::write(folder.path(), "lab.toml", small);
    support::write(folder.path(), "kernel", kernel());
    pack(&folder.path().join("tree.tar"), TREE);
    folder
}

/// An archive has no kernel.
fn arguments<'a>(node: &'a str, format: &'a str) -> Vec<&'a str> {
    let source = ["image", "lab.toml", "--rootfs", "tree.tar"];
    let kernel: &[&str] = if format == "tar" { &[] } else { &["--kernel", "kernel"] };
    let rest = ["--node", node, "--format", format, "-oout"];
    [&source[..], kernel, &rest[..]].concat()
}

#[track_caller]
fn made(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    let said = support::spoken_lines(&output).join("\n");
    assert!(output.status.success(), "{said}");
    said
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// First sector and number of sectors of each partition, as sgdisk sees them.
fn partitions(disk: &str) -> Vec<(u64, u64)> {
    let table = judged("sgdisk", &["-p", disk]);
    let lines = table.lines().skip_while(|line| !line.starts_with("Number")).skip(1);
    let words = lines.map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    words
        .map(|words| {
            let [first, last] = [1, 2].map(|at| words[at].parse::<u64>().unwrap());
            (first, last + 1 - first)
        })
        .collect()
}

/// A partition of a disk in a file of its own.
fn cut(disk: &Path, (first, n_sectors): (u64, u64), name: &str) -> PathBuf {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; n_sectors as usize * 512];
    fs::File::open(disk).unwrap().read_exact_at(&mut bytes, first * 512).unwrap();
    let path = disk.with_file_name(name);
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn judges_find_a_disk_in_order_and_the_tree_on_it_with_its_owners() {
    if lacks() {
        return;
    }
    let lab = workplace();
    let said = made(lab.path(), &arguments("node2", "raw"));
    assert!(said.contains("warning: the tree has no /lib/modules/1.2, and so"), "{said}");
    let disk = lab.path().join("out/node2.raw");
    let raw = text(&disk);
    assert!(judged("sgdisk", &["-v", &raw]).contains("No problems found"));
    let [_, esp, root] = partitions(&raw)[..] else { panic!("not three partitions") };
    let esp = text(&cut(&disk, esp, "esp"));
    judged("fsck.fat", &["-n", &esp]);
    assert!(judged("mdir", &["-/", "-b", "-i", &esp, "::"]).contains("::/EFI/BOOT/BOOTX64.EFI"));
    let root = text(&cut(&disk, root, "root"));
    judged("e2fsck", &["-f", "-n", &root]);

    for (path, expected) in [
        ("/", "directory 0555 0 0 1600000000"),
        ("/lib", "symlink 0777 0 0 1600000000"),
        ("/usr/bin/setgid", "regular 02755 0 1234 1600000000"),
        ("/usr/bin/other-name", "regular 02755 0 1234 1600000000"),
        ("/srv/a \"\"b\"\" <5>", "regular 0640 998 997 1600000000"),
        ("/srv/pipe", "FIFO 0600 998 997 1600000000"),
        ("/srv/null", "character 0666 0 0 1600000000"),
        ("/etc/shadow", "regular 0000 0 0 1700524800"),
        ("/.autorelabel", "regular 0644 0 0 1700524800"),
    ] {
        assert_eq!(stat(&root, path), expected, "{path}");
    }
    let listed = judged("debugfs", &["-R", "stat /usr/bin/setgid", &root]);
    assert!(listed.contains("Links: 2"), "{listed}");
    let listed = judged("debugfs", &["-R", "ea_get -x /usr/bin/ping security.capability", &root]);
    assert!(listed.contains("01 00 00 02 00 20 00 00"), "{listed}");
    let gone = judged("debugfs", &["-R", "stat /etc/ssh/ssh_host_rsa_key", &root]);
    assert!(gone.contains("File not found"), "{gone}");

    // By GRUB's own eyes, which are not those of e2fsprogs.
    let cat = |path: &str| judged("grub-fstest", &[&raw, "cat", &format!("(loop0,gpt3){path}")]);
    assert_eq!(cat("/etc/shadow"), "root:!!:1:0:::::\nbin:*:1:0:::::");
    let config = cat("/boot/grub/grub.cfg");
    let guid = judged("sgdisk", &["-i", "3", &raw]);
    let guid = guid.lines().find_map(|line| line.strip_prefix("Partition unique GUID: ")).unwrap();
    let line = format!("linux /boot/nodeforge/vmlinuz root=PARTUUID={} ro ", guid.to_lowercase());
    assert!(config.contains(&line), "{config}");
    assert!(config.contains(" console=ttyS0,115200") && config.contains(" intel_iommu=on"));
    let kernel = judged("grub-fstest", &[&raw, "crc", "(loop0,gpt3)/boot/nodeforge/vmlinuz"]);
    let given = lab.path().join("kernel");
    let mut crc = flate2::Crc::new();
    crc.update(&fs::read(given).unwrap());
    assert_eq!(kernel.trim(), format!("{:08x}", crc.sum()));

    // What an administrator checks them by.
    let out = lab.path().join("out");
    let checked = Command::new("sha256sum").args(["-c", "SHA256SUMS"]).current_dir(&out).output();
    assert_eq!(support::spoken_lines(&checked.unwrap()), ["node2.raw: OK"]);
    let list: Value = serde_json::from_slice(&fs::read(out.join("images.json")).unwrap()).unwrap();
    assert_eq!(list["images"][0]["size"], 400 << 20);
    assert_eq!(list["images"][0]["reproducible"], "yes");
}

/// `TYPE MODE UID GID MTIME`, as debugfs tells.
#[track_caller]
fn stat(filesystem: &str, path: &str) -> String {
    let said = judged("debugfs", &["-R", &format!("stat \"{path}\""), filesystem]);
    let field = |name: &str| {
        let rest = said.split_once(name).unwrap_or_else(|| panic!("{path}: {said}")).1;
        rest.split_whitespace().next().unwrap().to_owned()
    };
    let seconds = field("mtime: 0x");
    let seconds = u64::from_str_radix(seconds.split(':').next().unwrap(), 16).unwrap();
    let [type_, mode, user, group] = ["Type: ", "Mode:", "User:", "Group:"].map(field);
    format!("{type_} {mode} {user} {group} {seconds}")
}

#[test]
fn a_kept_filesystem_has_a_partition_that_is_named_like_it() {
    if lacks() {
        return;
    }
    let lab = workplace();
    let text_of = lab.path().join("lab.toml");
    let toml = fs::read_to_string(&text_of).unwrap();
    let toml = toml.replace("[net.lan]", "[daos.control_metadata]\nsize = \"320MiB\"\n\n[net.lan]");
    fs::write(&text_of, toml.replace("disk = \"8GiB\"", "disk = \"800MiB\"")).unwrap();
    made(lab.path(), &arguments("node1", "qcow2"));
    let qcow2 = text(&lab.path().join("out/node1.qcow2"));
    let raw = text(&lab.path().join("node1.raw"));
    judged("qemu-img", &["convert", "-O", "raw", &qcow2, &raw]);
    assert!(judged("sgdisk", &["-v", &raw]).contains("No problems found"));
    let said = judged("sgdisk", &["-i", "4", &raw]);
    assert!(said.contains("Partition name: 'DAOSMETA'"), "{said}");
    assert_eq!(partitions(&raw)[3].1, 320 << 11);
    let cat = |path: &str| judged("grub-fstest", &[&raw, "cat", &format!("(loop0,gpt3){path}")]);
    let line = "LABEL=DAOSMETA /var/lib/daos xfs defaults,x-systemd.requires=nodeforge-filesystem@DAOSMETA.service 0 0";
    assert!(cat("/etc/fstab").ends_with(line));
    let unit = lab.path().join("nodeforge-filesystem@DAOSMETA.service");
    fs::write(&unit, cat("/etc/systemd/system/nodeforge-filesystem@.service")).unwrap();
    let verified = support::run("systemd-analyze", &["verify", "--man=no", &text(&unit)]);
    let ours: Vec<String> = support::spoken_lines(&verified)
        .into_iter()
        .filter(|line| line.contains("nodeforge-filesystem"))
        .collect();
    assert_eq!(ours, [""; 0]);
}

#[test]
fn the_same_inputs_give_the_same_disk_wherever_it_is_made() {
    if lacks() {
        return;
    }
    let lab = workplace();
    for format in ["qcow2", "qcow2-compressed", "tar"] {
        let arguments = arguments("node2", format);
        let program = nodeforge();
        let found =
            support::determinism::differences(lab.path(), Path::new(&program), &arguments, "out");
        assert_eq!(found, [""; 0], "{format}");
    }
}

#[test]
fn qcow2_holds_what_raw_does_and_the_archive_what_the_tree_does() {
    if lacks() {
        return;
    }
    let lab = workplace();
    let image = |name: &str| text(&lab.path().join("out").join(name));
    // What a killed run left there goes.
    support::write(lab.path(), "out/.assembly/tree/0", "half a file");
    made(lab.path(), &arguments("node2", "raw"));
    assert_eq!(
        support::files_below(&lab.path().join("out"), |_| true),
        ["SHA256SUMS", "images.json", "node2.raw"]
    );
    for format in ["qcow2", "qcow2-compressed"] {
        made(lab.path(), &arguments("node2", format));
        judged("qemu-img", &["check", &image("node2.qcow2")]);
        judged("qemu-img", &["compare", &image("node2.qcow2"), &image("node2.raw")]);
    }
    let info = judged("qemu-img", &["info", "--output=json", &image("node2.qcow2")]);
    let info: Value = serde_json::from_str(&info).unwrap();
    assert!(info.get("backing-filename").is_none());

    made(lab.path(), &arguments("node2", "tar"));
    let listing = judged("bsdtar", &["--numeric-owner", "-tvf", &image("node2.tar.gz")]);
    let line = |name: &str| {
        let found = listing.lines().find(|line| line.ends_with(name));
        let words = found.unwrap_or_else(|| panic!("{name}: {listing}")).split_whitespace();
        words.take(4).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("usr/bin/setgid"), "-rwxr-sr-x 0 0 1234");
    assert_eq!(line("a \"b\" <5>"), "-rw-r----- 0 998 997");
    assert_eq!(line("srv/pipe"), "prw------- 0 998 997");
    assert!(listing.contains("etc/nodeforge/kernel-args"), "{listing}");
    assert!(!listing.contains("vmlinuz") && !listing.contains("autorelabel"), "{listing}");
    let sums = fs::read_to_string(lab.path().join("out/SHA256SUMS")).unwrap();
    let names: Vec<&str> = sums.lines().filter_map(|line| line.split("  ").nth(1)).collect();
    assert_eq!(names, ["node2.qcow2", "node2.raw", "node2.tar.gz"]);
}

#[test]
fn a_folder_of_a_plain_users_is_taken_to_be_roots() {
    if lacks() {
        return;
    }
    let lab = workplace();
    let tree = lab.path().join("tree");
    fs::create_dir(&tree).unwrap();
    for entry in TREE.iter().filter(|entry| entry.type_ == EntryType::Regular) {
        support::write(&tree, entry.path, entry.text);
    }
    std::os::unix::fs::chown(&tree, Some(1000), Some(1000)).unwrap();
    std::os::unix::fs::chown(tree.join("usr/bin/ping"), Some(1000), Some(1000)).unwrap();
    let owners = || {
        let mut arguments = arguments("node2", "tar");
        arguments[3] = "tree";
        made(lab.path(), &arguments);
        let archive = text(&lab.path().join("out/node2.tar.gz"));
        let listing = judged("bsdtar", &["--numeric-owner", "-tvf", &archive]);
        let line = listing.lines().find(|line| line.ends_with("/ping")).unwrap();
        line.split_whitespace().skip(2).take(2).collect::<Vec<_>>().join(":")
    };
    assert_eq!(owners(), "0:0");
    std::os::unix::fs::chown(&tree, Some(0), Some(0)).unwrap();
    assert_eq!(owners(), "1000:1000");
}

#[test]
fn what_cannot_become_a_disk_is_refused_with_nothing_left_behind() {
    if lacks() {
        return;
    }
    let lab = workplace();
    let folder = lab.path();
    let without = |missing: &str| {
        let kept = TREE.iter().filter(|entry| !entry.path.contains(missing));
        kept.cloned().collect::<Vec<_>>()
    };
    pack(&folder.join("no-sshd.tar"), &without("sshd"));
    pack(&folder.join("no-shadow.tar"), &without("shadow"));
    pack(&folder.join("no-etc.tar"), &TREE[..2]);
    let linked =
        [&without("none")[..], &[entry("./etc/nodeforge", EntryType::Symlink, 0o777, "x")]];
    pack(&folder.join("linked.tar"), &linked.concat());
    let cut_short = fs::read(folder.join("tree.tar")).unwrap();
    fs::write(folder.join("cut.tar"), &cut_short[..cut_short.len() / 2]).unwrap();
    fs::write(folder.join("text"), "no archive").unwrap();
    for (tree, kernel, reason) in [
        ("tree.tar", "text", "text is no Linux kernel: give a vmlinuz"),
        ("tree.tar", "none", "opening none: No such file or directory (os error 2)"),
        ("none", "kernel", "opening the root tree none: No such file or directory (os error 2)"),
        (
            "text",
            "kernel",
            "it is neither a folder nor a tar archive, plain or by gzip, xz or zstd",
        ),
        ("cut.tar", "kernel", "cut.tar is no whole tar archive"),
        ("linked.tar", "kernel", "/etc/nodeforge is no folder, where one is to be"),
        ("no-etc.tar", "kernel", "no-etc.tar is no root tree: it has no /etc"),
        (
            "no-sshd.tar",
            "kernel",
            "node2: the tree has no sshd.service, to be enabled: install what brings it into the tree",
        ),
        (
            "no-shadow.tar",
            "kernel",
            "node2: /etc/shadow knows no root: install the package setup (Debian: passwd) into the tree",
        ),
    ] {
        let mut arguments = arguments("node2", "raw");
        (arguments[3], arguments[5]) = (tree, kernel);
        let output = run(folder, &arguments);
        let said = support::spoken_lines(&output).join("\n");
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(reason), "{tree} {kernel}: {said}");
        let left = fs::read_dir(folder.join("out")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{tree} {kernel}");
    }
    let output = run(folder, &["image", "lab.toml", "--rootfs", "tree.tar", "--format", "raw"]);
    assert_eq!(output.status.code(), Some(2));
}

/// A full disk at each of the places where one may be met first.
#[test]
fn a_full_disk_is_told_and_leaves_nothing() {
    if lacks() || support::lacks(&["unshare"]) {
        return;
    }
    let lab = workplace();
    let folder = lab.path();
    fs::create_dir(folder.join("out")).unwrap();
    let mut random = vec![0; 12 << 20];
    for (at, byte) in random.iter_mut().enumerate() {
        *byte = ((at * at) >> 7) as u8;
    }
    support::write(folder, "big/usr/big", random);
    for entry in TREE.iter().filter(|entry| entry.type_ == EntryType::Regular) {
        support::write(&folder.join("big"), entry.path, entry.text);
    }
    judged(
        "bsdtar",
        &["-C", &text(&folder.join("big")), "-cf", &text(&folder.join("big.tar")), "."],
    );
    for (tree, size, reason) in [
        // While the archive is unpacked.
        ("big.tar", "8m", "No space left on device"),
        // Before anything is assembled.
        ("big.tar", "20m", "MiB are to be written"),
        // While the filesystem is filled.
        ("tree.tar", "2m", "No space left on device"),
    ] {
        let script = "mount -t tmpfs -o size=$1 none out && shift || exit 99\n\
                      \"$@\"; code=$?; ls -A out; exit $code";
        let mut arguments = arguments("node2", "raw");
        arguments[3] = tree;
        let output = support::command("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", size])
            .arg(nodeforge())
            .args(arguments)
            .env("PATH", support::path())
            .current_dir(folder)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{tree} in {size}: {said}");
        assert!(said.contains(reason), "{tree} in {size}: {said}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{tree} in {size}");
    }
}
