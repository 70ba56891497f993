use std::collections::BTreeSet;
use std::env;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rayon::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::manifest::{Comparison, FileEntry, Folder, NodeEntry, Reproducible};

/// A folder in memory where there is one: what a test asserts about order and kills should
/// not wait for another program's writes to reach a disk.
fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    let folder =
        if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn bytes<'a>(name: &'a str, text: &'a str) -> NewFile<'a> {
    NewFile { name, contents: Contents::Bytes(text.as_bytes()) }
}

/// A cluster of five nodes; `text` stands in each one's kickstart and secret.
fn build_of(output: &Output, text: &str) -> Result<Manifest> {
    let nodes: Vec<String> = (0..5).map(|n| format!("node{n}")).collect();
    let entries = nodes.par_iter().map(|node| -> Result<(String, NodeEntry)> {
        output.add_secret(node, &format!("{node}.tar.gz"), format!("key {text}").as_bytes())?;
        let kickstart = format!("# {node}\n{text}\n");
        Ok((node.clone(), node_entry(output.stage(&[bytes("kickstart.ks", &kickstart)])?)))
    });
    let mut manifest = Manifest::new("lab3", Reproducible::Yes);
    manifest.nodes = entries.collect::<Result<_>>()?;
    let layer = output.stage(&[bytes("layer.tar.gz", "common")])?;
    manifest.layers.insert("common".into(), layer);
    let pxe = output.fill(output.current().map(|manifest| &manifest.pxe.folder));
    pxe.add(&bytes("boot.ipxe", "#!ipxe\n"))?;
    pxe.add(&bytes("pxelinux.cfg/default", text))?;
    manifest.pxe.folder = pxe.finish()?;
    Ok(manifest)
}

fn node_entry(folder: Folder) -> NodeEntry {
    NodeEntry {
        roles: vec!["server".into()],
        layers: vec!["common".into()],
        macs: vec![],
        release: "8.9".into(),
        folder,
        boot: None,
    }
}

fn build(root: &Path, text: &str) -> Result<Published> {
    let output = Output::open(root)?;
    let manifest = build_of(&output, text)?;
    output.publish(manifest, &Inputs::default())
}

/// Everything under `root`: its mode, and its digest or where it leads.
fn snapshot(root: &Path) -> BTreeMap<String, String> {
    let line = |entry: walkdir::DirEntry| {
        let metadata = entry.path().symlink_metadata().unwrap();
        let mode = metadata.permissions().mode() & 0o7777;
        let is = if metadata.is_dir() {
            format!("{mode:04o} folder")
        } else if metadata.is_file() {
            format!("{mode:04o} {}", Digest::of(&fs::read(entry.path()).unwrap()))
        } else {
            format!("-> {}", fs::read_link(entry.path()).unwrap().display())
        };
        (entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned(), is)
    };
    let is_artefact = |entry: &walkdir::DirEntry| entry.file_name() != INPUTS;
    let entries = walkdir::WalkDir::new(root).into_iter().filter_entry(is_artefact);
    entries.map(|entry| line(entry.unwrap())).collect()
}

fn names(path: &Path) -> BTreeSet<String> {
    disk::names_in(path).unwrap().into_iter().collect()
}

/// The folders of the store that generations refer to.
fn referenced(root: &Path) -> BTreeSet<String> {
    let digests = names(&root.join(GENERATIONS)).into_iter().flat_map(|number| {
        let generation = Generation::read(root, number.parse().unwrap()).unwrap();
        let folders = generation.manifest.folders();
        folders.map(|(_, folder)| folder.digest.to_string()).collect::<Vec<_>>()
    });
    digests.collect()
}

#[track_caller]
fn assert_nothing_stale(root: &Path) {
    assert_eq!(
        names(root),
        [MARKER, CURRENT, GENERATIONS, INPUTS, STORE].map(str::to_owned).into(),
        "in {}",
        root.display()
    );
    assert_eq!(names(&root.join(STORE)), referenced(root));
    assert!(names(&root.join(GENERATIONS)).len() <= N_KEPT_GENERATIONS);
}

/// Runs `test` of this binary once more, after `shell` commands, with `root` as its task.
fn this_test_again(test: &str, shell: &str, root: &Path) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("{shell}\nexec \"$0\" \"$@\"")])
        .arg(env::current_exe().unwrap())
        .args(["--exact", &format!("output::tests::{test}"), "--nocapture"])
        .env("NODEFORGE_TEST_ROOT", root);
    command
}

/// What the process that [`this_test_again`] started should work on.
fn task() -> Option<PathBuf> {
    env::var_os("NODEFORGE_TEST_ROOT").map(PathBuf::from)
}

/// Runs `command`, which must succeed, and returns the line after `answer: ` in its output.
#[track_caller]
fn answer_of(mut command: Command) -> String {
    let output = command.output().unwrap();
    let (stdout, stderr) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert!(output.status.success(), "{stdout}{stderr}");
    let answer = stdout.split_once("answer: ").unwrap_or_else(|| panic!("{stdout}{stderr}")).1;
    answer.lines().next().unwrap().to_owned()
}

fn new(generation: u64, n_written: u64, n_reused: u64) -> Published {
    Published::New { generation, n_written, n_reused }
}

#[test]
fn an_output_folder_looks_like_this() {
    let scratch = scratch();
    let root = scratch.path().join("deep/out");
    let output = Output::open(&root).unwrap();
    let node = output.stage(&[bytes("kickstart.ks", "text\n")]).unwrap();
    let layer = output.stage(&[bytes("layer.tar.gz", "c")]).unwrap();
    let pxe = output.stage(&[bytes("grub/grub.cfg", "exit\n")]).unwrap();
    output.add_secret("node0", "node0.tar.gz", b"key").unwrap();
    let mut manifest = Manifest::new("lab3", Reproducible::Yes);
    manifest.nodes.insert("node0".into(), node_entry(node.clone()));
    manifest.layers.insert("common".into(), layer.clone());
    manifest.pxe.folder = pxe.clone();
    assert_eq!(output.publish(manifest, &Inputs::default()).unwrap(), new(1, 3, 0));

    let digest = |text: &str| Digest::of(text.as_bytes());
    let file = |mode: &str, text: &str| format!("{mode} {}", digest(text));
    let (node, layer, pxe) = (node.digest, layer.digest, pxe.digest);
    let layer_sums = format!("{}  common/layer.tar.gz\n", digest("c"));
    let manifest = fs::read_to_string(root.join("current/manifest.json")).unwrap();
    let sums = format!(
        "{}  manifest.json\n{}  layers/SHA256SUMS\n{}  layers/common/layer.tar.gz\n\
         {}  nodes/node0/kickstart.ks\n{}  pxe/grub/grub.cfg\n",
        digest(&manifest),
        digest(&layer_sums),
        digest("c"),
        digest("text\n"),
        digest("exit\n"),
    );
    let secret_manifest = format!(
        "{{\n  \"format\": 1,\n  \"files\": {{\n    \"node0.tar.gz\": {{\n      \"node\": \"node0\",\n      \
         \"size\": 3,\n      \"sha256\": \"{}\"\n    }}\n  }}\n}}\n",
        digest("key")
    );
    let secret_sums =
        format!("{}  manifest.json\n{}  node0.tar.gz\n", digest(&secret_manifest), digest("key"));
    let folder = "0755 folder".to_owned();
    let expected = [
        ("".to_owned(), folder.clone()),
        (".nodeforge".to_owned(), file("0644", MARKER_TEXT)),
        ("current".to_owned(), "-> generations/1".to_owned()),
        ("generations".to_owned(), folder.clone()),
        ("generations/1".to_owned(), folder.clone()),
        ("generations/1/SHA256SUMS".to_owned(), file("0644", &sums)),
        ("generations/1/layers".to_owned(), folder.clone()),
        ("generations/1/layers/SHA256SUMS".to_owned(), file("0644", &layer_sums)),
        ("generations/1/layers/common".to_owned(), format!("-> ../../../store/{layer}")),
        ("generations/1/manifest.json".to_owned(), file("0644", &manifest)),
        ("generations/1/nodes".to_owned(), folder.clone()),
        ("generations/1/nodes/node0".to_owned(), format!("-> ../../../store/{node}")),
        ("generations/1/pxe".to_owned(), format!("-> ../../store/{pxe}")),
        ("generations/1/secret".to_owned(), "0700 folder".to_owned()),
        ("generations/1/secret/SHA256SUMS".to_owned(), file("0600", &secret_sums)),
        ("generations/1/secret/manifest.json".to_owned(), file("0600", &secret_manifest)),
        ("generations/1/secret/node0.tar.gz".to_owned(), file("0600", "key")),
        ("store".to_owned(), folder.clone()),
        (format!("store/{node}"), folder.clone()),
        (format!("store/{node}/kickstart.ks"), file("0644", "text\n")),
        (format!("store/{layer}"), folder.clone()),
        (format!("store/{layer}/layer.tar.gz"), file("0644", "c")),
        (format!("store/{pxe}"), folder.clone()),
        (format!("store/{pxe}/grub"), folder),
        (format!("store/{pxe}/grub/grub.cfg"), file("0644", "exit\n")),
    ];
    assert_eq!(snapshot(&root), expected.into());
}

#[test]
fn sha256sum_accepts_each_list_of_sums() {
    let scratch = scratch();
    build(scratch.path(), "one").unwrap();
    for (folder, n_files) in [("current", 10), ("current/layers", 1), ("current/secret", 6)] {
        let output = Command::new("sha256sum")
            .args(["-c", "--strict", "SHA256SUMS"])
            .current_dir(scratch.path().join(folder))
            .output()
            .expect("this test needs sha256sum");
        let lines = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{folder}: {lines}");
        assert_eq!(lines.lines().filter(|it| it.ends_with(": OK")).count(), n_files, "{lines}");
    }
}

#[test]
fn a_build_that_changes_nothing_writes_nothing() {
    let scratch = scratch();
    build(scratch.path(), "one").unwrap();
    let inodes = || -> BTreeMap<PathBuf, (u64, i64, i64)> {
        let entries = walkdir::WalkDir::new(scratch.path()).into_iter().map(Result::unwrap);
        let stamp = |it: fs::Metadata| (it.ino(), it.mtime(), it.mtime_nsec());
        entries.map(|it| (it.path().to_owned(), stamp(it.metadata().unwrap()))).collect()
    };
    let before = inodes();
    let unchanged = Published::Unchanged { generation: 1, n_mended: 0 };
    assert_eq!(build(scratch.path(), "one").unwrap(), unchanged);
    assert_eq!(inodes(), before);
}

#[test]
fn a_changed_node_is_one_new_folder() {
    let scratch = scratch();
    let root = scratch.path();
    build(root, "one").unwrap();
    let before = names(&root.join(STORE));
    let output = Output::open(root).unwrap();
    let mut manifest = build_of(&output, "one").unwrap();
    let changed = output.stage(&[bytes("kickstart.ks", "other")]).unwrap();
    manifest.nodes.get_mut("node3").unwrap().folder = changed.clone();
    assert_eq!(output.publish(manifest, &Inputs::default()).unwrap(), new(2, 1, 6));
    let added: BTreeSet<String> = names(&root.join(STORE)).difference(&before).cloned().collect();
    assert_eq!(added, [changed.digest.to_string()].into());
    assert!(verify(root).unwrap().is_good());
    assert_nothing_stale(root);
}

#[test]
fn five_generations_stay_and_the_current_one() {
    let scratch = scratch();
    let root = scratch.path();
    for n in 1..=7 {
        let layer = u64::from(n == 1);
        assert_eq!(build(root, &format!("build {n}")).unwrap(), new(n, 6 + layer, 1 - layer));
    }
    assert_eq!(names(&root.join(GENERATIONS)), ["3", "4", "5", "6", "7"].map(str::to_owned).into());
    assert_nothing_stale(root);

    fs::remove_file(root.join(CURRENT)).unwrap();
    symlink("generations/3", root.join(CURRENT)).unwrap();
    let output = Output::open(root).unwrap();
    fs::create_dir(root.join(STAGING)).unwrap();
    for number in [8, 9] {
        fs::create_dir(root.join(GENERATIONS).join(number.to_string())).unwrap();
    }
    sweep::sweep(root).unwrap();
    drop(output);
    let kept = ["3", "5", "6", "7", "8", "9"].map(str::to_owned);
    assert_eq!(names(&root.join(GENERATIONS)), kept.into());
    assert!(verify(root).unwrap().is_good());
}

#[test]
fn a_folder_of_somebody_else_is_refused_and_left_alone() {
    let scratch = scratch();
    let root = scratch.path().join("home");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("thesis.tex"), "years of work").unwrap();
    let before = snapshot(&root);
    let fault = build(&root, "one").unwrap_err();
    assert_eq!(
        format!("{fault:#}"),
        format!(
            "{} holds files and was not made by nodeforge; name an empty or a new folder",
            root.display()
        )
    );
    assert_eq!(snapshot(&root), before);
}

#[test]
fn foreign_files_inside_an_output_folder_stay() {
    let scratch = scratch();
    let root = scratch.path();
    build(root, "one").unwrap();
    let foreign = ["notes.txt", "store/README", "generations/01", "generations/old"];
    for path in foreign {
        fs::write(root.join(path), "mine").unwrap();
    }
    for n in 0..7 {
        build(root, &format!("build {n}")).unwrap();
    }
    for path in foreign {
        assert_eq!(fs::read(root.join(path)).unwrap(), b"mine", "{path}");
    }
}

#[test]
fn two_builds_do_not_write_at_once() {
    let scratch = scratch();
    let output = Output::open(scratch.path()).unwrap();
    let fault = Output::open(scratch.path()).unwrap_err();
    assert_eq!(
        fault.to_string(),
        format!("another build is writing to {}; wait for it to end", scratch.path().display())
    );
    drop(output);
    build(scratch.path(), "one").unwrap();
}

#[test]
fn a_build_that_fails_leaves_the_old_generation_and_nothing_else() {
    let scratch = scratch();
    let root = scratch.path();
    build(root, "one").unwrap();
    let before = snapshot(root);
    let output = Output::open(root).unwrap();
    let mut manifest = build_of(&output, "two").unwrap();
    manifest.layers.insert("lost".into(), Folder::of(BTreeMap::new()));
    let fault = output.publish(manifest, &Inputs::default()).unwrap_err();
    assert_eq!(fault.to_string(), "the folder of layers/lost was not staged, or is lost");
    assert_eq!(snapshot(root), before);
}

#[test]
fn what_a_killed_build_left_is_removed_by_the_next() {
    let scratch = scratch();
    let root = scratch.path();
    build(root, "one").unwrap();
    let before = snapshot(root);
    let output = Output::open(root).unwrap();
    build_of(&output, "two").unwrap();
    fs::create_dir_all(root.join(STAGING).join("away/half")).unwrap();
    std::mem::forget(output.staging.lock().unwrap().take());
    drop(output);
    assert!(names(&root.join(STORE)).len() > 7 && names(root).contains(STAGING));
    assert_eq!(build(root, "one").unwrap(), Published::Unchanged { generation: 1, n_mended: 0 });
    assert_eq!(snapshot(root), before);
}

#[test]
fn verification_finds_what_is_missing_changed_foreign_and_open() {
    let scratch = scratch();
    let root = scratch.path();
    build(root, "one").unwrap();
    let whole = Verification {
        generation: 1,
        n_good: 18,
        files: Comparison::default(),
        wrong_modes: vec![],
        secrets: Secrets::Verified,
    };
    assert_eq!(verify(root).unwrap(), whole);

    let current = root.join(CURRENT);
    let chmod = |path: &str, mode| {
        fs::set_permissions(current.join(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    fs::remove_file(current.join("nodes/node0/kickstart.ks")).unwrap();
    fs::write(current.join("nodes/node1/kickstart.ks"), "# node1\nonE\n").unwrap();
    fs::write(current.join("layers/common/layer.tar.gz"), "commons").unwrap();
    fs::write(current.join("secret/node2.tar.gz"), "key two").unwrap();
    fs::write(current.join("nodes/node4/rootkit"), "").unwrap();
    fs::write(root.join("notes.txt"), "").unwrap();
    symlink("/etc", current.join("pxe/etc")).unwrap();
    fs::remove_file(current.join("nodes/node3")).unwrap();
    symlink("/etc", current.join("nodes/node3")).unwrap();
    chmod("secret", 0o755);
    chmod("secret/node0.tar.gz", 0o644);
    chmod("nodes/node2/kickstart.ks", 0o600);
    chmod("nodes/node4/rootkit", 0o4755);
    let wrong_mode =
        |path: &str, found, expected| WrongMode { path: path.to_owned(), found, expected };
    assert_eq!(
        verify(root).unwrap(),
        Verification {
            n_good: 13,
            files: Comparison {
                missing: vec![
                    "current/nodes/node0/kickstart.ks".into(),
                    "current/nodes/node3/kickstart.ks".into()
                ],
                changed: vec![
                    "current/layers/common/layer.tar.gz".into(),
                    "current/nodes/node1/kickstart.ks".into(),
                    "current/nodes/node3".into(),
                    "current/secret/node2.tar.gz".into()
                ],
                foreign: vec![
                    "current/nodes/node4/rootkit".into(),
                    "current/pxe/etc".into(),
                    "notes.txt".into()
                ],
            },
            wrong_modes: vec![
                wrong_mode("current/nodes/node2/kickstart.ks", 0o600, 0o644),
                wrong_mode("current/nodes/node4/rootkit", 0o4755, 0o644),
                wrong_mode("current/secret", 0o755, 0o700),
                wrong_mode("current/secret/node0.tar.gz", 0o644, 0o600),
            ],
            ..whole
        }
    );
}

#[test]
fn verification_says_when_there_is_nothing_whole_to_verify() {
    let scratch = scratch();
    let root = scratch.path();
    let fault = || format!("{:#}", verify(root).unwrap_err());
    let path = root.display();
    assert_eq!(fault(), format!("{path} was not made by nodeforge"));
    drop(Output::open(root).unwrap());
    assert_eq!(fault(), format!("nothing has been built into {path} yet"));
    build(root, "one").unwrap();
    fs::write(root.join("current/manifest.json"), "{\"format\": 7}").unwrap();
    assert_eq!(
        fault(),
        format!(
            "the current generation cannot be used: reading {path}/generations/1/manifest.json: \
             it is of format 7, and this version of nodeforge reads format 1"
        )
    );
    fs::remove_file(root.join(CURRENT)).unwrap();
    symlink("../elsewhere", root.join(CURRENT)).unwrap();
    assert_eq!(
        fault(),
        format!(
            "the current generation cannot be used: \
             {path}/current leads to ../elsewhere, which is no generation"
        )
    );
}

#[test]
fn a_build_mends_what_was_damaged_although_nothing_changed() {
    let scratch = scratch();
    let root = scratch.path();
    let chmod = |path: &str, mode| {
        let path = root.join(CURRENT).join(path);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    for damage in [
        &(|| fs::write(root.join("current/nodes/node0/kickstart.ks"), "").unwrap()) as &dyn Fn(),
        &|| {
            fs::remove_dir_all(root.join(CURRENT).join("layers/common/").canonicalize().unwrap())
                .unwrap()
        },
        &|| fs::write(root.join("current/SHA256SUMS"), "").unwrap(),
        &|| fs::write(root.join("current/manifest.json"), "{}").unwrap(),
        &|| fs::write(root.join("current/secret/node0.tar.gz"), "stolen").unwrap(),
        &|| chmod("secret", 0o755),
        &|| chmod("secret/node1.tar.gz", 0o644),
        &|| chmod("nodes/node2/kickstart.ks", 0o600),
        &|| fs::remove_file(root.join("current/pxe")).unwrap(),
        &|| fs::remove_file(root.join(CURRENT)).unwrap(),
    ] {
        build(root, "one").unwrap();
        damage();
        assert!(verify(root).map_or(true, |it| !it.is_good()));
        build(root, "one").unwrap();
        assert!(verify(root).unwrap().is_good());
    }
}

#[test]
fn a_damaged_generation_is_told_and_a_folder_in_its_place_is_left() {
    let scratch = scratch();
    let root = scratch.path();
    build(root, "one").unwrap();
    fs::remove_file(root.join("current/manifest.json")).unwrap();
    let output = Output::open(root).unwrap();
    assert_eq!(
        output.damage().unwrap(),
        format!(
            "reading {}/generations/1/manifest.json: No such file or directory (os error 2)",
            root.display()
        )
    );
    assert!(output.current().is_none());
    drop(output);
    fs::remove_file(root.join(CURRENT)).unwrap();
    fs::create_dir(root.join(CURRENT)).unwrap();
    let fault = Output::open(root).unwrap_err();
    assert_eq!(
        fault.to_string(),
        format!("{}/current is not the link that nodeforge made; move it away", root.display())
    );
}

#[test]
fn nodes_that_are_not_built_are_carried_over_with_their_secrets() {
    let scratch = scratch();
    let root = scratch.path();
    build(root, "one").unwrap();
    let output = Output::open(root).unwrap();
    let mut manifest = Manifest::new("lab3", Reproducible::Yes);
    manifest.layers = output.current().unwrap().layers.clone();
    manifest.pxe = output.current().unwrap().pxe.clone();
    for node in ["node0", "node1", "node2", "node4"] {
        manifest.nodes.insert(node.into(), output.carry_node(node).unwrap());
    }
    let folder = output.stage(&[bytes("kickstart.ks", "two")]).unwrap();
    output.add_secret("node3", "node3.tar.gz", b"key two").unwrap();
    manifest.nodes.insert("node3".into(), node_entry(folder));
    assert_eq!(output.publish(manifest, &Inputs::default()).unwrap(), new(2, 1, 6));
    let read = |path: &str| fs::read_to_string(root.join(CURRENT).join(path)).unwrap();
    assert_eq!(read("nodes/node0/kickstart.ks"), "# node0\none\n");
    assert_eq!(read("nodes/node3/kickstart.ks"), "two");
    assert_eq!(read("secret/node0.tar.gz"), "key one");
    assert_eq!(read("secret/node3.tar.gz"), "key two");
    assert_eq!(verify(root).unwrap().n_good, 18);
    assert!(verify(root).unwrap().is_good());
}

#[test]
fn nodes_without_a_whole_predecessor_are_not_carried_over() {
    let scratch = scratch();
    let root = scratch.path();
    build(root, "one").unwrap();
    let current = root.join(CURRENT);
    fs::remove_file(current.join("nodes/node0/kickstart.ks")).unwrap();
    fs::write(current.join("secret/node1.tar.gz"), "other").unwrap();
    let output = Output::open(root).unwrap();
    let lost = "were changed or lost; build without --only once";
    for (node, expected) in [
        ("node0", format!("files of node0 {lost}")),
        ("node1", format!("files of node1 {lost}")),
        ("node9", "node9 has not been built yet; build without --only once".to_owned()),
    ] {
        assert_eq!(output.carry_node(node).unwrap_err().to_string(), expected);
    }
}

#[test]
fn files_elsewhere_are_linked_and_must_be_what_they_were() {
    let scratch = scratch();
    let (root, cached) = (scratch.path().join("out"), scratch.path().join("vmlinuz"));
    fs::write(&cached, "kernel").unwrap();
    fs::set_permissions(&cached, fs::Permissions::from_mode(0o644)).unwrap();
    let output = Output::open(&root).unwrap();
    let staged = |expected: &[u8]| {
        let contents = Contents::Elsewhere { path: &cached, expected: FileEntry::of(expected) };
        output.stage(&[NewFile { name: "images/8.9/vmlinuz", contents }])
    };
    let folder = staged(b"kernel").unwrap();
    let in_store = output.root.join(STORE).join(folder.digest.to_string());
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    assert_eq!(inode(&in_store.join("images/8.9/vmlinuz")), inode(&cached));
    let fault = staged(b"colonel").unwrap_err();
    let expected = format!(
        "{} is not the file it was: 6 bytes with SHA-256 {}, and 7 bytes with {} were expected",
        cached.display(),
        Digest::of(b"kernel"),
        Digest::of(b"colonel"),
    );
    assert_eq!(fault.to_string(), expected);
    fs::set_permissions(&cached, fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_dir_all(&in_store).unwrap();
    staged(b"kernel").unwrap();
    let copy = in_store.join("images/8.9/vmlinuz");
    assert_ne!(inode(&copy), inode(&cached));
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o7777, 0o644);
}

#[test]
fn of_an_alike_folder_only_what_changed_is_written() {
    let scratch = scratch();
    let output = Output::open(scratch.path()).unwrap();
    let staged = |text, alike: Option<&Folder>| {
        let filling = output.fill(alike);
        filling.add(&bytes("big", "unchanged")).unwrap();
        filling.add(&bytes("small", text)).unwrap();
        filling.finish().unwrap()
    };
    let one = staged("one", None);
    let two = staged("two", Some(&one));
    let inode = |folder: &Folder, name: &str| {
        let path = scratch.path().join(STORE).join(folder.digest.to_string()).join(name);
        fs::metadata(path).unwrap().ino()
    };
    assert_eq!(inode(&one, "big"), inode(&two, "big"));
    assert_ne!(inode(&one, "small"), inode(&two, "small"));
}

#[test]
fn what_is_kept_of_an_alike_folder_is_not_looked_at_again() {
    let scratch = scratch();
    let output = Output::open(scratch.path()).unwrap();
    let name = |name: &str| [name.to_owned()];
    let filling = output.fill(None);
    assert!(!filling.keep(&name("big")), "there is nothing to keep it of");
    filling.add(&bytes("big", "unchanged")).unwrap();
    filling.add(&bytes("small", "one")).unwrap();
    let one = filling.finish().unwrap();

    let filling = output.fill(Some(&one));
    assert!(filling.keep(&name("big")) && !filling.keep(&name("big")));
    assert!(!filling.keep(&["small".to_owned(), "none".to_owned()]));
    filling.add(&bytes("small", "one")).unwrap();
    assert_eq!(filling.finish().unwrap(), one);

    let filling = output.fill(Some(&one));
    assert!(filling.keep(&name("big")));
    filling.add(&bytes("other", "two")).unwrap();
    let two = filling.finish().unwrap();
    let names: Vec<&str> = two.files.keys().collect();
    assert_eq!(names, ["big", "other"]);
    assert_eq!(two.files.get("big"), one.files.get("big"));

    let filling = output.fill(Some(&one));
    assert!(filling.keep(&name("big")));
    filling.add(&bytes("big", "another")).unwrap();
    let fault = filling.finish().unwrap_err();
    assert_eq!(fault.to_string(), "`big` comes twice in one folder");
}

#[test]
fn a_generation_shares_the_links_of_the_one_before_as_far_as_they_are_right() {
    let scratch = scratch();
    let link = |generation: u64, place: &str| {
        scratch.path().join(GENERATIONS).join(format!("{generation}/{place}"))
    };
    let inode = |generation, place| fs::symlink_metadata(link(generation, place)).unwrap().ino();
    build(scratch.path(), "one").unwrap();
    build(scratch.path(), "two").unwrap();
    assert_eq!(inode(1, "layers/common"), inode(2, "layers/common"));
    assert_ne!(inode(1, "nodes/node0"), inode(2, "nodes/node0"));
    let damaged = link(2, "layers/common");
    fs::remove_file(&damaged).unwrap();
    symlink("../../../store", &damaged).unwrap();
    build(scratch.path(), "three").unwrap();
    assert_ne!(inode(2, "layers/common"), inode(3, "layers/common"));
    let verified = verify(scratch.path()).unwrap();
    assert!(verified.generation == 3 && verified.is_good(), "{verified:?}");
}

#[test]
fn names_that_lead_elsewhere_or_come_twice_are_refused() {
    let scratch = scratch();
    let output = Output::open(scratch.path()).unwrap();
    for name in ["../x", "/x", "", "a\\b", "a\nb"] {
        let fault = output.stage(&[bytes(name, "")]).unwrap_err();
        assert_eq!(fault.to_string(), format!("`{name}` is no name for an artefact"));
        assert!(output.add_secret("node0", name, b"").is_err(), "{name:?}");
    }
    let fault = output.stage(&[bytes("a", "1"), bytes("a", "2")]).unwrap_err();
    assert_eq!(fault.to_string(), "`a` comes twice in one folder");
    output.add_secret("node0", "a", b"").unwrap();
    let fault = output.add_secret("node1", "a", b"").unwrap_err();
    assert_eq!(fault.to_string(), "the secret file `a` comes twice");
    assert!(output.add_secret("node0", "manifest.json", b"").is_err());
}

#[test]
fn too_little_space_is_told_before_anything_is_written() {
    let scratch = scratch();
    let output = Output::open(scratch.path()).unwrap();
    output.require_free(ByteSize::from_bytes(1), 1).unwrap();
    let fault = output.require_free(ByteSize::from_gib(1 << 30), 1).unwrap_err().to_string();
    let (start, end) = fault.split_once(" has ").unwrap();
    assert_eq!(start, scratch.path().display().to_string());
    assert!(
        end.ends_with(
            " MiB free, and this build needs about 1099511627777 MiB: \
             free some space, or build elsewhere"
        ),
        "{fault}"
    );
}

#[test]
fn any_number_of_threads_gives_the_same_output() {
    let built = |n_threads| {
        let scratch = scratch();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        pool.install(|| build(scratch.path(), "one")).unwrap();
        snapshot(scratch.path())
    };
    assert_eq!(built(1), built(8));
}

#[test]
fn any_umask_gives_the_same_output() {
    if let Some(root) = task() {
        println!("answer: {:?}", build(&root, "one").unwrap());
        return;
    }
    let built = |umask| {
        let scratch = scratch();
        let root = scratch.path().join("out");
        let test = "any_umask_gives_the_same_output";
        let answer = answer_of(this_test_again(test, &format!("umask {umask}"), &root));
        assert_eq!(answer, format!("{:?}", new(1, 7, 0)));
        snapshot(&root)
    };
    assert_eq!(built("000"), built("077"));
    assert_eq!(built("022"), built("027"));
    assert_eq!(built("022"), built("077"));
}

#[test]
fn a_write_that_fails_in_the_middle_leaves_the_old_generation() {
    if let Some(root) = task() {
        println!("answer: {:#}", build(&root, &"long".repeat(20_000)).unwrap_err());
        return;
    }
    let scratch = scratch();
    let root = scratch.path();
    build(root, "one").unwrap();
    let before = snapshot(root);
    // The kernel refuses to let a file grow beyond 32 KiB or so, as it refuses on a full disk.
    let test = "a_write_that_fails_in_the_middle_leaves_the_old_generation";
    let answer = answer_of(this_test_again(test, "trap '' XFSZ; ulimit -f 64", root));
    let start = format!("writing {}/.staging/secret/node", root.display());
    assert!(answer.starts_with(&start), "{answer}");
    assert!(answer.ends_with(".tar.gz: File too large (os error 27)"), "{answer}");
    assert_eq!(snapshot(root), before);
}

#[test]
fn another_user_can_read_what_is_public_and_write_nothing() {
    if let Some(root) = task() {
        let built = build(&root, "two").unwrap_err();
        let verified = verify(&root).unwrap();
        let kickstart = fs::read_to_string(root.join("current/nodes/node0/kickstart.ks")).unwrap();
        let secret = fs::read(root.join("current/secret/node0.tar.gz")).unwrap_err();
        println!("answer: {built:#}, {verified:?}, {kickstart:?}, {secret}");
        return;
    }
    let scratch = scratch();
    let root = scratch.path().join("out");
    build(&root, "one").unwrap();
    let before = snapshot(&root);
    // The test's own program may lie where the other user cannot reach it.
    let program = scratch.path().join("program");
    // By a program of its own: a process that another test is just starting would inherit an
    // open file of ours, and a program open for writing cannot be started (ETXTBSY).
    let copied = Command::new("cp").arg(env::current_exe().unwrap()).arg(&program).status();
    assert!(copied.unwrap().success());
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(program)
        .args(["--exact", "output::tests::another_user_can_read_what_is_public_and_write_nothing"])
        .arg("--nocapture")
        .env("NODEFORGE_TEST_ROOT", &root);
    let expected = Verification {
        generation: 1,
        n_good: 11,
        files: Comparison::default(),
        wrong_modes: vec![],
        secrets: Secrets::NotReadable,
    };
    assert_eq!(
        answer_of(command),
        format!(
            "opening {}/.nodeforge: Permission denied (os error 13), {expected:?}, \
             \"# node0\\none\\n\", Permission denied (os error 13)",
            root.display()
        )
    );
    assert_eq!(snapshot(&root), before);
}

/// The texts that the killed builds write in turn.
const TEXTS: [&str; 4] = ["one", "two", "three", "four"];

#[test]
fn a_build_killed_at_any_moment_leaves_an_old_or_a_new_generation() {
    if let Some(root) = task() {
        println!("started");
        for text in TEXTS.iter().cycle() {
            build(&root, text).unwrap();
        }
    }
    let texts_of = |root: &Path| -> BTreeSet<String> {
        (0..5)
            .flat_map(|n| [format!("nodes/node{n}/kickstart.ks"), format!("secret/node{n}.tar.gz")])
            .map(|path| fs::read_to_string(root.join(CURRENT).join(path)).unwrap())
            .map(|text| text.trim_end().rsplit(['\n', ' ']).next().unwrap().to_owned())
            .collect()
    };
    let mut n_seen_old = 0;
    for round in 0..8 {
        let scratch = scratch();
        let root = scratch.path();
        for kill in 0..10 {
            killed_after(root, Duration::from_micros((round * 10 + kill) * 7919 % 20_000));
            if disk::exists(&root.join(CURRENT)).unwrap() {
                n_seen_old += 1;
                let verification = verify(root).unwrap();
                assert!(verification.is_good(), "{verification:?}");
                let texts = texts_of(root);
                assert!(texts.len() == 1 && TEXTS.contains(&texts.first().unwrap().as_str()));
            }
            build(root, TEXTS[0]).unwrap();
            assert_eq!(texts_of(root), [TEXTS[0].to_owned()].into());
            assert!(verify(root).unwrap().is_good());
            assert_nothing_stale(root);
        }
    }
    assert!(n_seen_old > 70, "only {n_seen_old} kills came after a first build");
}

/// Lets another process build into `root` over and over, and kills it.
fn killed_after(root: &Path, delay: Duration) {
    let test = "a_build_killed_at_any_moment_leaves_an_old_or_a_new_generation";
    let mut child = this_test_again(test, ":", root).stdout(Stdio::piped()).spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let is_start = |line: &io::Result<String>| line.as_ref().unwrap().ends_with("started");
    assert!(stdout.lines().any(|line| is_start(&line)));
    thread::sleep(delay);
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), None, "it should have been killed, and ended with {status}");
}
