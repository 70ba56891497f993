//! The runner of the steps, and the steps that are not preflight.

use std::fs;

use super::world::{Ran, World};

const FIRSTBOOT: &str = "usr/libexec/nodeforge/firstboot";
const DOWN: &str = "nodeforge-firstboot: DAOS stays down. Once it is mended: reboot, or start the DAOS unit, which runs this again\n";

/// A node with steps of the test's own: name, comment lines, what it does.
fn with_steps(steps: &[(&str, &str, &str)]) -> World {
    let world = World::bare("adm1");
    fs::remove_dir_all(world.path("usr/libexec/nodeforge/steps.d")).unwrap();
    for (name, comments, text) in steps {
        set_step(&world, name, comments, text);
    }
    world
}

fn set_step(world: &World, name: &str, comments: &str, text: &str) {
    let path = format!("usr/libexec/nodeforge/steps.d/{name}");
    world.executable(&path, &format!("{comments}\n{text}"));
}

/// How the first boot ended and what it said, with seconds evened out.
fn first_boot(world: &World) -> (i32, String) {
    let Ran { status, out, err } = world.run(FIRSTBOOT, &[]);
    assert_eq!(err, "");
    let seconds = regex::Regex::new(r"done in [0-9]+ s").unwrap();
    (status, seconds.replace_all(&out, "done in 0 s").into_owned())
}

fn said(lines: &[&str]) -> String {
    let line = |line: &&str| match line.strip_prefix('|') {
        Some(words) => format!("{words}\n"),
        None => format!("nodeforge-firstboot: {line}\n"),
    };
    lines.iter().map(line).collect()
}

fn record(world: &World, step: &str) -> serde_json::Value {
    serde_json::from_str(&world.read(&format!("var/lib/nodeforge/steps/{step}.json"))).unwrap()
}

/// `step state message` of each event, in order.
fn events(world: &World) -> Vec<String> {
    let mut files: Vec<_> = fs::read_dir(world.path("var/lib/nodeforge/events"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let line = |file: &std::path::PathBuf| {
        let event: serde_json::Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        let text = |key: &str| event[key].as_str().unwrap().to_owned();
        format!("{} {} {}", text("step"), text("state"), text("message"))
    };
    files.iter().map(line).collect()
}

#[test]
fn a_step_runs_once_or_always_and_again_when_it_or_its_input_has_changed() {
    let world = with_steps(&[
        ("20-b", "# run: once\n# input: /etc/b.conf\n# input: /etc/missing", "echo b"),
        ("10-a", "", "echo a"),
        ("30-c", "# run: always", "echo c"),
        ("README", "", "echo no"),
    ]);
    world.write("etc/b.conf", "1\n");
    let all = [
        "|a",
        "10-a: done in 0 s",
        "|b",
        "20-b: done in 0 s",
        "|c",
        "30-c: done in 0 s",
        "all steps are done",
    ];
    assert_eq!(first_boot(&world), (0, said(&all)));
    let again = [
        "10-a: was done before",
        "20-b: was done before",
        "|c",
        "30-c: done in 0 s",
        "all steps are done",
    ];
    assert_eq!(first_boot(&world), (0, said(&again)));
    let with_b = [
        "10-a: was done before",
        "|b",
        "20-b: done in 0 s",
        "|c",
        "30-c: done in 0 s",
        "all steps are done",
    ];
    world.write("etc/b.conf", "2\n");
    assert_eq!(first_boot(&world), (0, said(&with_b)));
    assert_eq!(first_boot(&world), (0, said(&again)));
    world.write("etc/missing", "no more\n");
    assert_eq!(first_boot(&world), (0, said(&with_b)));
    set_step(&world, "10-a", "", "echo new");
    let with_a = [
        "|new",
        "10-a: done in 0 s",
        "20-b: was done before",
        "|c",
        "30-c: done in 0 s",
        "all steps are done",
    ];
    assert_eq!(first_boot(&world), (0, said(&with_a)));
}

#[test]
fn a_record_says_what_a_step_did() {
    let world = with_steps(&[("10-a", "", "echo first; echo 'the \"last\" \\ line'; echo")]);
    first_boot(&world);
    let record = record(&world, "10-a");
    let keys: Vec<&String> = record.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["boot_id", "digest", "message", "seconds", "state", "step", "time"]);
    assert_eq!(record["message"], "the \"last\" \\ line");
    assert_eq!(
        (&record["step"], &record["state"], &record["boot_id"]),
        (&"10-a".into(), &"done".into(), &"boot-1".into())
    );
    assert_eq!(record["digest"].as_str().unwrap().len(), 64);
    assert_eq!(
        events(&world),
        [
            "firstboot started the steps of the first boot",
            "10-a done the \"last\" \\ line",
            "firstboot done all steps are done",
        ]
    );
    assert_eq!(
        world.read("run/nodeforge/motd"),
        "nodeforge: all steps of the first boot are done. More: nodeforge-node status\n"
    );
}

#[test]
fn the_first_step_that_fails_is_the_last_one_and_runs_again_next_time() {
    let world = with_steps(&[
        ("10-a", "", "true"),
        ("20-b", "", "echo looking; echo no disk; exit 3"),
        ("30-c", "", "echo c"),
    ]);
    let words = said(&[
        "10-a: done in 0 s",
        "|looking",
        "|no disk",
        "20-b: FAILED: exit status 3: no disk",
    ]);
    assert_eq!(first_boot(&world), (1, words + DOWN));
    assert_eq!(record(&world, "20-b")["state"], "failed");
    assert!(!world.path("var/lib/nodeforge/steps/30-c.json").exists());
    assert_eq!(events(&world)[2], "20-b failed exit status 3: no disk");
    assert_eq!(
        world.read("run/nodeforge/motd"),
        "nodeforge: the first boot FAILED at 20-b: exit status 3: no disk\nnodeforge: DAOS stays down. More: nodeforge-node status\n"
    );
    set_step(&world, "20-b", "", "echo disk");
    let words = said(&[
        "10-a: was done before",
        "|disk",
        "20-b: done in 0 s",
        "|c",
        "30-c: done in 0 s",
        "all steps are done",
    ]);
    assert_eq!(first_boot(&world), (0, words));
}

#[test]
fn a_torn_or_foreign_record_counts_for_nothing() {
    let world = with_steps(&[("10-a", "", "echo a")]);
    first_boot(&world);
    let whole = world.read("var/lib/nodeforge/steps/10-a.json");
    let ran = said(&["|a", "10-a: done in 0 s", "all steps are done"]);
    for torn in [
        String::new(),
        whole[..whole.len() / 2].to_owned(),
        "\0".repeat(whole.len()),
        whole.replace("10-a", "10-b"),
        whole.replace("\"done\"", "\"failed\""),
    ] {
        world.write("var/lib/nodeforge/steps/10-a.json", &torn);
        assert_eq!(first_boot(&world), (0, ran.clone()), "{torn:?}");
    }
    assert_eq!(first_boot(&world), (0, said(&["10-a: was done before", "all steps are done"])));
}

#[test]
fn a_step_reboots_the_node_once_and_never_in_a_circle() {
    let world =
        with_steps(&[("10-a", "", "echo set for the next boot; exit 75"), ("20-b", "", "echo b")]);
    world.answer("systemctl --no-block reboot", 0, "");
    let rebooting = said(&[
        "|set for the next boot",
        "10-a: the node reboots to finish it: set for the next boot",
        "10-a: FAILED: the reboot did not come",
    ]);
    assert_eq!(first_boot(&world), (1, rebooting.clone() + DOWN));
    assert!(world.read("calls").ends_with("systemctl --no-block reboot\nsleep 300\n"));
    // Nobody rebooted: asking again is no circle.
    assert_eq!(first_boot(&world), (1, rebooting + DOWN));
    world.write("proc/sys/kernel/random/boot_id", "boot-2\n");
    let calls = world.read("calls");
    let refused = said(&[
        "|set for the next boot",
        "10-a: FAILED: it asks for a second reboot, which would not end: set for the next boot",
    ]);
    assert_eq!(first_boot(&world), (1, refused.clone() + DOWN));
    assert_eq!(world.read("calls"), calls, "no second reboot");
    assert_eq!(record(&world, "10-a")["state"], "failed");
    set_step(&world, "10-a", "", "echo it worked");
    let words =
        said(&["|it worked", "10-a: done in 0 s", "|b", "20-b: done in 0 s", "all steps are done"]);
    assert_eq!(first_boot(&world), (0, words));
}

#[test]
fn a_node_that_cannot_reboot_says_so() {
    let world = with_steps(&[("10-a", "", "exit 75")]);
    world.answer("systemctl --no-block reboot", 1, "");
    let (status, words) = first_boot(&world);
    assert_eq!(
        (status, words.lines().nth(1)),
        (1, Some("nodeforge-firstboot: 10-a: FAILED: the node cannot be rebooted"))
    );
}

#[test]
fn a_step_that_hangs_is_ended() {
    let world = with_steps(&[("10-a", "", "echo waiting for a disk; exec /bin/sleep 600")]);
    let output = world.command(FIRSTBOOT).env("NODEFORGE_STEP_LIMIT", "1").output().unwrap();
    let ran = Ran::of(&output, &world.root());
    let words =
        said(&["|waiting for a disk", "10-a: FAILED: not done within 1 s: waiting for a disk"]);
    assert_eq!((ran.status, ran.out), (1, words + DOWN));
}

#[test]
fn two_runs_at_once_do_not_happen() {
    let world =
        with_steps(&[("10-a", "", "echo \"$($NODEFORGE_ROOT/usr/libexec/nodeforge/firstboot)\"")]);
    let words = said(&[
        "|nodeforge-firstboot: FAILED: it is running already",
        "10-a: done in 0 s",
        "all steps are done",
    ]);
    assert_eq!(first_boot(&world), (0, words));
}

#[test]
fn what_opens_something_reaches_neither_record_nor_event() {
    let world = with_steps(&[(
        "10-a",
        "",
        "echo line nodeforge.token=sesame x; echo 'Authorization: Bearer sesame'; echo '-----BEGIN PRIVATE KEY-----'; echo sesame; echo '-----END PRIVATE KEY-----'; echo last nodeforge.event_token=sesame; exit 1",
    )]);
    first_boot(&world);
    let mut texts = vec![world.read("var/lib/nodeforge/steps/10-a.json")];
    for entry in fs::read_dir(world.path("var/lib/nodeforge/events")).unwrap() {
        texts.push(fs::read_to_string(entry.unwrap().path()).unwrap());
    }
    assert_eq!(texts.len(), 3);
    assert!(!texts.concat().contains("sesame"), "{texts:?}");
    let log = texts[1..].iter().find(|text| text.contains("\"failed\"")).unwrap();
    let event: serde_json::Value = serde_json::from_str(log).unwrap();
    assert_eq!(
        event["log"],
        serde_json::json!([
            "line nodeforge.token=(removed) x",
            "Authorization: Bearer (removed)",
            "(removed)",
            "last nodeforge.event_token=(removed)",
        ])
    );
}

/// Runs one of our steps; returns what it said and what tools it called.
fn step(world: &World, name: &str) -> (i32, String, String) {
    world.write("calls", "");
    let ran = world.run(&format!("usr/libexec/nodeforge/steps.d/{name}"), &[]);
    assert_eq!(ran.err, "");
    (ran.status, ran.out, world.read("calls"))
}

#[test]
fn kernel_arguments_are_set_once_and_never_in_a_circle() {
    let world = World::bare("srv1");
    let run = || step(&world, "20-kernel-args");
    world.answer("grubby --update-kernel=ALL --args=intel_iommu=on", 0, "");
    world.write("proc/cmdline", "root=/dev/vda1 transparent_hugepage=never\n");
    let text = "no boot entries on this node; add to its kernel line: intel_iommu=on\n";
    assert_eq!(run(), (1, text.to_owned(), String::new()));
    fs::create_dir_all(world.path("boot/loader/entries")).unwrap();
    let calls = "grubby --update-kernel=ALL --args=intel_iommu=on\n";
    let text = "set for the next boot: intel_iommu=on\n";
    assert_eq!(run(), (75, text.to_owned(), calls.to_owned()));
    let circle = "the boot entries have them, the kernel still came up without: intel_iommu=on\n";
    assert_eq!(run(), (1, circle.to_owned(), String::new()));
    world.write("proc/cmdline", "intel_iommu=on transparent_hugepage=never\n");
    let text = "the running kernel has all 2 arguments of the plan\n";
    assert_eq!(run(), (0, text.to_owned(), String::new()));
    // They were lost again, perhaps with a new kernel: that is mended, too.
    world.write("proc/cmdline", "transparent_hugepage=never\n");
    assert_eq!(run().0, 75);
}

#[test]
fn grubby_that_fails_fails_the_step() {
    let world = World::bare("srv1");
    world.write("proc/cmdline", "transparent_hugepage=never\n");
    fs::create_dir_all(world.path("boot/loader/entries")).unwrap();
    world.answer("grubby", 1, "");
    assert_eq!(step(&world, "20-kernel-args").0, 1);
    assert!(!world.path("var/lib/nodeforge/kernel-args.asked").exists());
}

#[test]
fn owners_are_set_by_the_list_and_looked_at_afterwards() {
    let world = World::bare("srv1");
    let list = "usr/lib/tmpfiles.d/nodeforge.conf";
    fs::create_dir_all(world.path("var/daos")).unwrap();
    world.write(
        list,
        "# x\nd /var/daos 0755 daos_server daos_server -\nz /gone 0400 nobody nobody -\n",
    );
    world.write("answers/owners/var/daos", "daos_server:daos_server\n");
    world.answer("rpm --quiet --query daos-server", 0, "");
    world.answer("rpm --setperms daos-server", 0, "");
    let calls = "rpm --quiet --query daos-server\nrpm --setperms daos-server\nrpm --quiet --query daos-client\nrpm --quiet --query daos-admin\nsystemd-tmpfiles --create nodeforge.conf\nselinuxenabled \n";
    let text = "1 paths have their owners\n";
    assert_eq!(step(&world, "10-owners"), (0, text.to_owned(), calls.to_owned()));
    world.write("answers/owners/var/daos", "root:root\n");
    let text = "/var/daos belongs to root:root, not to daos_server:daos_server\n";
    assert_eq!(step(&world, "10-owners"), (1, text.to_owned(), calls.to_owned()));
    // A kept filesystem has no labels of this system.
    world.answer("selinuxenabled", 0, "");
    world.answer("restorecon /var/daos", 0, "");
    assert!(step(&world, "10-owners").2.ends_with("selinuxenabled \nrestorecon /var/daos\n"));
    world.answer("rpm --setperms daos-server", 1, "");
    assert_eq!(step(&world, "10-owners").0, 1);
    world.remove("bin/rpm");
    world.write("answers/owners/var/daos", "daos_server:daos_server\n");
    assert_eq!(step(&world, "10-owners").0, 0);
}

#[test]
fn a_whole_first_boot_ends_well_and_a_fatal_verdict_ends_it() {
    let world = World::server();
    world.write("usr/lib/tmpfiles.d/nodeforge.conf", "");
    let (status, words) = first_boot(&world);
    assert!(status == 0 && words.ends_with("nodeforge-firstboot: all steps are done\n"), "{words}");
    assert!(events(&world).iter().any(|event| event.starts_with("preflight/iommu done 3 groups")));
    world.remove("sys/kernel/iommu_groups");
    let (status, words) = first_boot(&world);
    let last = "nodeforge-firstboot: 90-preflight: FAILED: nodeforge-preflight: FATAL: iommu: 0 groups in /sys/kernel/iommu_groups: daos_server as daos_server cannot drive the SSDs (in all: 27 ok, 0 warning, 1 fatal)\n";
    assert_eq!(status, 1);
    assert!(words.ends_with(&format!("{last}{DOWN}")), "{words}");
    assert!(
        events(&world).iter().any(|event| event.starts_with("preflight/iommu failed 0 groups"))
    );
}
