//! What happens inside the installed system, and how an installation ends.

use nodeforge::render::kickstart::{KickstartContext, SecretsSource, Selinux};

use super::machine::Machine;
use super::{client, pre, rendered, sections, server};

/// A machine with an installed system that is just unpacked, and what `%pre` left in /run.
fn unpacked(kernel_line: &str, context: &KickstartContext) -> Machine {
    let machine = Machine::new(kernel_line);
    let pre = pre(&rendered(context));
    let files = pre.split("# shellcheck source").next().unwrap();
    assert!(machine.run(files).status.success());
    machine.write("answers/boot-entry", "ro intel_iommu=on console=ttyS0,115200 quiet\n");
    machine.write(
        "answers/rpm --query --queryformat %{VERSION}-%{RELEASE}.%{ARCH}\\n kernel-core",
        "4.18.0-513.5.1.el8_9.x86_64\n4.18.0-513.9.1.el8_9.x86_64\n",
    );
    machine.write("usr/lib/tmpfiles.d/nodeforge.conf", "d /var/log/daos\n");
    machine.write("run/nodeforge/unpacked", "/etc/who\n");
    machine
}

/// What the section did, and what it told a person.
fn run_target(machine: &Machine, context: &KickstartContext) -> (String, String) {
    machine.run(&sections(&rendered(context), "%post --interpreter").remove(0));
    (machine.read("answers/actions"), machine.read("dev/tty1"))
}

const ACTIONS: &str = "systemd-tmpfiles --create /usr/lib/tmpfiles.d/nodeforge.conf
rpm --quiet --query daos-server
rpm --setperms daos-server
rpm --quiet --query daos-client
rpm --setperms daos-client
rpm --query --queryformat %{VERSION}-%{RELEASE}.%{ARCH}\\n kernel-core
dracut --force --kver 4.18.0-513.5.1.el8_9.x86_64
dracut --force --kver 4.18.0-513.9.1.el8_9.x86_64
grubby --info=ALL
";

#[test]
fn the_target_is_finished_in_order() {
    let machine = unpacked("", &server());
    assert_eq!(run_target(&machine, &server()), (ACTIONS.into(), String::new()));
}

#[test]
fn files_are_relabelled_unless_selinux_is_off() {
    let context = KickstartContext { selinux: Selinux::Permissive, ..server() };
    let machine = unpacked("", &context);
    let run = machine.path("run/nodeforge");
    let wanted = format!("{ACTIONS}restorecon -i -f {}/unpacked\n", run.display());
    assert_eq!(run_target(&machine, &context), (wanted, String::new()));
}

#[test]
fn the_root_hash_goes_through_standard_input_and_is_gone_then() {
    let machine = unpacked("", &server());
    machine.write("root/.nodeforge-root-hash", "$6$salt$hash\n");
    let (actions, _) = run_target(&machine, &server());
    assert_eq!(actions, format!("chpasswd --encrypted\nroot:$6$salt$hash\n{ACTIONS}"));
    assert!(!machine.path("root/.nodeforge-root-hash").exists());
}

#[test]
fn a_hash_that_el8_does_not_know_is_refused() {
    let machine = unpacked("", &server());
    machine.write("root/.nodeforge-root-hash", "$y$j9T$salt$hash\n");
    let (_, console) = run_target(&machine, &server());
    assert!(console.contains("\nThe root password's hash is not a SHA-256 or SHA-512 one.\n"));
}

#[test]
fn nic_profiles_of_the_installer_are_removed_and_no_others() {
    let machine = unpacked("", &server());
    let scripts = "etc/sysconfig/network-scripts";
    for name in ["ifcfg-lo", "ifcfg-ens3", "keys-ens3", "route-ens3", "route6-ens3", "readme"] {
        machine.write(&format!("{scripts}/{name}"), "");
    }
    for name in ["10-anaconda-ifname-ksdev0.link", "71-net-ifnames-prefix-net0", "70-lan0.link"] {
        machine.write(&format!("etc/systemd/network/{name}"), "");
    }
    run_target(&machine, &server());
    let left: Vec<String> = machine.listing("etc").into_keys().collect();
    assert_eq!(
        left,
        [
            "sysconfig",
            "sysconfig/network-scripts",
            "sysconfig/network-scripts/ifcfg-lo",
            "sysconfig/network-scripts/readme",
            "systemd",
            "systemd/network",
            "systemd/network/70-lan0.link",
        ]
    );
}

#[test]
fn missing_kernel_arguments_are_added_or_refused() {
    let machine = unpacked("", &server());
    machine.write("answers/boot-entry", "ro console=ttyS0,115200n8\n");
    let (actions, console) = run_target(&machine, &server());
    let added = "grubby --update-kernel=ALL --args=intel_iommu=on console=ttyS0,115200\ngrubby --info=ALL\n";
    assert_eq!((actions, console), (format!("{ACTIONS}{added}"), String::new()));

    let machine = unpacked("", &server());
    machine.write("answers/boot-entry", "ro intel_iommu=on\n");
    machine.write("answers/fail-grubby", "");
    let (_, console) = run_target(&machine, &server());
    assert!(
        console.contains(
            "\nThe boot entries lack kernel arguments of the plan: console=ttyS0,115200\n"
        ),
        "{console}"
    );
}

#[test]
fn a_failing_command_is_named_on_the_console_and_nothing_goes_on() {
    let machine = unpacked("", &server());
    machine.write("answers/fail-systemd-tmpfiles", "");
    let (actions, console) = run_target(&machine, &server());
    assert_eq!(
        actions,
        "systemd-tmpfiles --create /usr/lib/tmpfiles.d/nodeforge.conf\nsleep 30\nsleep 30\nsleep 30\n"
    );
    let reason = console.lines().nth(3).unwrap();
    let (line, rest) = reason.split_once(" of step 'target' failed: ").unwrap();
    assert!(line.strip_prefix("Line ").unwrap().parse::<u32>().is_ok(), "{line}");
    assert_eq!(rest, r#"systemd-tmpfiles --create "$NF_TMPFILES""#);
}

fn run_finish(machine: &Machine, context: &KickstartContext) -> String {
    machine.run(&sections(&rendered(context), "%post --nochroot").remove(1));
    machine.read("dev/tty1")
}

#[test]
fn the_end_stores_the_grant_and_keeps_logs_without_tokens() {
    let line = "nodeforge.reinstall=17 nodeforge.token=sesame nodeforge.event_token=";
    let context = client();
    let machine = unpacked(line, &context);
    machine.write(
        "tmp/syslog",
        "Command line: a nodeforge.token=sesame nodeforge.event_token=tell b\n",
    );
    machine.write("tmp/nodeforge-pre.log", "decision\n");
    machine.write("tmp/ks-script-abc.log", "x\n");
    machine.write("answers/journalctl", "kernel: \"nodeforge.token=sesame\"\n");
    machine.write("run/nodeforge/archives/secrets.tar.gz", "secret");
    assert_eq!(run_finish(&machine, &context), "");
    let listing: Vec<(String, String)> = machine.listing("target").into_iter().collect();
    let scrubbed =
        "0600 Command line: a nodeforge.token=(removed) nodeforge.event_token=(removed) b\n";
    let wanted = [
        ("var", "0755/"),
        ("var/lib", "0755/"),
        ("var/lib/nodeforge", "0755/"),
        ("var/lib/nodeforge/grant", "0600 17\n"),
        ("var/log", "0755/"),
        ("var/log/anaconda", "0755/"),
        ("var/log/anaconda/journal.log", "0600 kernel: \"nodeforge.token=(removed)\"\n"),
        ("var/log/anaconda/ks-script-abc.log", "0600 x\n"),
        ("var/log/anaconda/nodeforge-pre.log", "0600 decision\n"),
        ("var/log/anaconda/syslog", scrubbed),
    ];
    assert_eq!(listing, wanted.map(|(path, what)| (path.to_owned(), what.to_owned())));
    let left = ["tmp/NOSAVE_LOGS", "tmp/NOSAVE_INPUT_KS", "run/nodeforge/archives"];
    assert_eq!(left.map(|path| machine.path(path).exists()), [true, false, false]);
}

#[test]
fn the_event_token_stays_with_root_and_in_no_log() {
    let context = client();
    let machine = unpacked("nodeforge.event_token=tell-It.~+/=_9", &context);
    machine.write("tmp/nodeforge-pre.log", "nodeforge.event_token=tell-It.~+/=_9\n");
    assert_eq!(run_finish(&machine, &context), "");
    let listing = machine.listing("target");
    assert_eq!(listing["etc/nodeforge/event-token"], "0600 tell-It.~+/=_9\n");
    let others = listing.iter().filter(|(path, _)| *path != "etc/nodeforge/event-token");
    assert_eq!(others.filter(|(_, text)| text.contains("tell-It")).count(), 0);
    for line in ["", "nodeforge.event_token="] {
        let machine = unpacked(line, &context);
        run_finish(&machine, &context);
        assert!(!machine.path("target/etc").exists(), "{line}");
    }
    let machine = unpacked("nodeforge.event_token=a\"b", &context);
    let console = run_finish(&machine, &context);
    assert!(console.contains("holds characters that no token has"), "{console}");
    assert!(!machine.path("target/var/lib/nodeforge/grant").exists());
}

#[test]
fn only_an_installer_that_was_told_to_wipe_grants_a_wipe() {
    for (line, granted) in [
        ("nodeforge.reinstall=17 nodeforge.wipe_daos=1", "cli1 by the installer\n"),
        ("nodeforge.reinstall=17", ""),
        ("nodeforge.wipe_daos=1", ""),
        ("nodeforge.reinstall=17 nodeforge.wipe_daos=0", ""),
    ] {
        let machine = unpacked(line, &client());
        run_finish(&machine, &client());
        let path = machine.path("target/var/lib/nodeforge/wipe-grant");
        assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), granted, "{line}");
    }
}

#[test]
fn an_installation_without_a_grant_stores_zero() {
    let machine = unpacked("", &client());
    run_finish(&machine, &client());
    assert_eq!(machine.read("target/var/lib/nodeforge/grant"), "0\n");
}

#[test]
fn a_kickstart_with_secrets_leaves_no_copy_behind() {
    let context = KickstartContext { secrets: SecretsSource::Embedded, ..client() };
    let machine = unpacked("", &context);
    machine.write("target/root/anaconda-ks.cfg", "secret");
    run_finish(&machine, &context);
    let left = ["target/root/anaconda-ks.cfg", "tmp/NOSAVE_INPUT_KS"];
    assert_eq!(left.map(|path| machine.path(path).exists()), [false, true]);
}

#[test]
fn an_error_of_the_installer_stays_on_the_console() {
    let machine = unpacked("", &client());
    machine.write("tmp/packaging.log", "fine\nERR packaging: Error: nothing provides daos\n");
    machine.run(&sections(&rendered(&client()), "%onerror ").remove(0));
    let console = machine.read("dev/ttyS0");
    assert!(
        console.contains("--- packaging.log\nERR packaging: Error: nothing provides daos\n"),
        "{console}"
    );
    assert_eq!(machine.read("answers/actions"), "sleep 30\nsleep 30\nsleep 30\n");
}
