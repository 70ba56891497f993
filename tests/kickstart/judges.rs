//! What others say of the kickstart: pykickstart's ksvalidator, shellcheck, and a reading for
//! programs that the installer image does not have.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nodeforge::render::install::golden;
use nodeforge::render::kickstart::{
    self, EmbeddedFile, Firewall, KickstartContext, OverlaySource, SecretsSource, Selinux,
};

use super::machine::{Contents, Disk, Machine};
use super::overlay::hand_over;
use super::{client, pre, profiles, rendered, rendered_as, sections, server, words};

const RELEASES: [&str; 3] = ["8.8", "8.9", "8.10"];
const SELINUX: [Selinux; 3] = [Selinux::Disabled, Selinux::Permissive, Selinux::Enforcing];
const OVERLAYS: [OverlaySource; 3] =
    [OverlaySource::Http, OverlaySource::Media, OverlaySource::Embedded];
const SECRETS: [SecretsSource; 4] =
    [SecretsSource::None, SecretsSource::Token, SecretsSource::Media, SecretsSource::Embedded];

/// One context for each neighbourhood of choices: each value of each choice meets each value
/// of the next one.
pub fn matrix() -> Vec<KickstartContext> {
    let mut contexts = Vec::new();
    for (number, overlay) in (0..12).zip(OVERLAYS.iter().cycle()) {
        let base = if number % 2 == 0 { client() } else { server() };
        let secrets = SECRETS[number / 3];
        let embedded = |name: &str| EmbeddedFile {
            name: name.into(),
            base64: vec!["QUJD".into(), "REVG".into()],
        };
        contexts.push(KickstartContext {
            url: base.url.replace("8.9", RELEASES[number % 3]),
            overlay: *overlay,
            secrets,
            embedded: match (overlay, secrets) {
                (OverlaySource::Embedded, _) => {
                    vec![embedded("overlay.tar.gz"), embedded("SHA256SUMS")]
                }
                (_, SecretsSource::Embedded) => vec![embedded("secrets.tar.gz")],
                _ => Vec::new(),
            },
            root_hash: (secrets == SecretsSource::Embedded)
                .then(|| "$6$saltsalt$abc./DEF".to_owned()),
            selinux: SELINUX[(number / 2) % 3],
            firewall: match number % 4 {
                0 | 1 => Firewall::Disabled,
                2 => Firewall::Enabled { ports: Vec::new() },
                _ => Firewall::Enabled { ports: words("10001:tcp 31416-31450:tcp") },
            },
            proxy: (number % 5 == 0).then(|| "http://proxy.lab.local:3128".to_owned()),
            ntp_servers: if number % 3 == 0 { Vec::new() } else { base.ntp_servers.clone() },
            services: if number == 4 { Vec::new() } else { base.services.clone() },
            ..base
        });
    }
    let mut bare = client();
    bare.network.device = "52:54:00:03:00:13".into();
    bare.network.gateway = None;
    bare.network.nameservers.clear();
    bare.network.mtu = None;
    bare.repos.clear();
    bare.disabled_modules.clear();
    bare.excluded_packages.clear();
    bare.ssh_keys.clear();
    bare.kernel_args.clear();
    contexts.push(bare);
    contexts
}

/// What `%pre` writes for anaconda, fresh and kept.
fn include_for(context: &KickstartContext, disk: &Disk) -> String {
    let machine = Machine::new("nodeforge.reinstall=1");
    let mut context = KickstartContext { secrets: SecretsSource::None, ..context.clone() };
    hand_over(&machine, &mut context);
    machine.add(disk);
    machine.run(&pre(&rendered(&context)));
    let include = machine.read("tmp/nodeforge-disk.ks");
    assert!(!include.is_empty(), "{:?}", machine.read("dev/tty1"));
    include
}

#[test]
fn ksvalidator_finds_nothing_to_say() {
    let blank = Disk::sata("sda", 1, 480, "S1");
    let kept = blank.clone().part(Contents::empty()).part(Contents::labelled("xfs", "DAOSMETA"));
    let folder = tempfile::tempdir().unwrap();
    for (number, context) in matrix().iter().enumerate() {
        let is_server = !context.kept.is_empty();
        let include = include_for(context, if is_server { &kept } else { &blank });
        assert_eq!(include.contains("--noformat"), is_server, "{include}");
        let text = rendered(context);
        let whole = text.replace("%include /tmp/nodeforge-disk.ks\n", &include);
        assert_ne!(whole, text, "the include is not in the kickstart");
        let file = folder.path().join(format!("{number}.ks"));
        fs::write(&file, whole).unwrap();
        let (said, nothing) = judged_by_ksvalidator(&file);
        assert_eq!(said, nothing, "about {context:#?}");
    }
}

/// What ksvalidator says, and what it says of a kickstart that is right.
pub fn judged_by_ksvalidator(file: &Path) -> (String, String) {
    let judge = Command::new("ksvalidator")
        .args(["-v", "RHEL8"])
        .arg(file)
        .output()
        .expect("ksvalidator is missing here: pip install pykickstart");
    let said = String::from_utf8([judge.stdout, judge.stderr].concat()).unwrap();
    (said, format!("\nChecking kickstart file {}\n\n", file.display()))
}

#[test]
fn a_client_gets_exactly_these_commands() {
    let text = rendered(&client());
    let own = text.split_once("# ==================== cli1 ====================\n").unwrap().1;
    let commands = own.split("\n%pre").next().unwrap();
    assert_eq!(
        commands,
        r#"text
skipx
eula --agreed
firstboot --disabled
url --url='https://vault.almalinux.org/8.9/BaseOS/x86_64/kickstart/'
repo --name='appstream' --baseurl='https://vault.almalinux.org/8.9/AppStream/x86_64/kickstart/'
repo --name='mlnx_ofed' --baseurl='http://10.20.0.2:8080/repos/mlnx_ofed-5.8/rhel8.9/x86_64/' --cost=900 --excludepkgs='rdma-core*,opensm*'
module --name='pmdk' --disable
lang 'en_US.UTF-8'
keyboard --vckeymap='us'
timezone 'Asia/Shanghai' --utc --ntpservers='192.168.3.1,192.168.3.2'
network --device='bootif' --bootproto=static --ip=192.168.3.13 --netmask=255.255.255.0 --gateway=192.168.3.1 --nameserver=192.168.3.1,192.168.3.2 --mtu=9000 --hostname='cli1.lab.local' --noipv6 --activate
rootpw --lock
sshkey --username=root 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 it'\''s #1 "admin"@lab'
selinux --disabled
firewall --disabled
services --enabled=chronyd,sshd
reboot --eject
%include /tmp/nodeforge-disk.ks

%addon com_redhat_kdump --disable
%end

%packages
@^minimal-environment
chrony
daos-client
-iwl7260-firmware
-cockpit
%end
"#
    );
}

#[test]
fn every_value_of_the_context_is_a_shell_word_of_its_own() {
    let nasty = "a'b\"c$(d)`e`\\f %end";
    let mut context = client();
    context.install_disk.serial = Some(nasty.into());
    let pre = sections(&rendered(&context), "%pre ").remove(1);
    let header = pre.split("END_OF_FILE").nth(1).unwrap().trim_start_matches('\'').to_owned();
    let output = Command::new("/bin/bash")
        .args(["-c", &(header + "printf %s \"$NF_DISK_SERIAL\"")])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), nasty);
}

#[test]
fn shellcheck_is_silent_about_scripts_and_sections() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = scripts();
    let golden = rendered_as(kickstart::GOLDEN, &golden(&server()));
    for text in [rendered(&client()), rendered(&server()), golden] {
        for opening in OPENINGS {
            for section in sections(&text, opening) {
                let file = folder.path().join(format!("section{}", files.len()));
                fs::write(&file, format!("#!/bin/bash\n{section}")).unwrap();
                files.push(file);
            }
        }
    }
    assert_eq!(files.len(), 9 + 7 + 3 * 6, "{files:?}");
    let judge = Command::new("shellcheck")
        .arg("--external-sources")
        .args(&files)
        .output()
        .expect("shellcheck is missing here");
    assert_eq!(String::from_utf8([judge.stdout, judge.stderr].concat()).unwrap(), "");
}

const OPENINGS: [&str; 4] = ["%pre ", "%post ", "%onerror ", "%traceback "];

fn scripts() -> Vec<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shims = fs::read_dir(here.join("tests/kickstart/shims")).unwrap();
    let mut files: Vec<PathBuf> = shims.map(|entry| entry.unwrap().path()).collect();
    files.extend(kickstart_scripts().iter().map(|file| here.join("profiles").join(file)));
    files
}

fn kickstart_scripts() -> Vec<&'static str> {
    kickstart::FILES.into_iter().filter(|file| file.ends_with(".sh")).collect()
}

/// Programs that lorax 28.14 takes out of the installer image, and those that EL8 has in an
/// older version only or not at all.
const ABSENT: [&str; 30] = [
    "base64",
    "chcon",
    "cmp",
    "comm",
    "csplit",
    "diff",
    "expand",
    "factor",
    "file",
    "fold",
    "getent",
    "install",
    "join",
    "jq",
    "mkfifo",
    "nl",
    "nohup",
    "nproc",
    "pgrep",
    "pkill",
    "printenv",
    "setsid",
    "sha512sum",
    "shuf",
    "stat",
    "stdbuf",
    "timeout",
    "truncate",
    "unlink",
    "yes",
];

#[test]
fn scripts_of_the_installer_use_nothing_it_does_not_have() {
    // target.sh runs inside the installed system, which has all of them.
    for script in kickstart_scripts().into_iter().filter(|file| !file.ends_with("target.sh")) {
        for (number, line) in (1..).zip(profiles(script).lines()) {
            for command in commands_in(line) {
                assert!(!ABSENT.contains(&command), "{script}:{number}: {command}");
            }
        }
    }
    assert_eq!(commands_in("x=$(stat a) | base64 && if nl; then"), ["stat", "base64", "nl"]);
}

/// The words of a line of shell that stand where a command does, roughly.
fn commands_in(line: &str) -> Vec<&str> {
    let mut commands = Vec::new();
    let mut is_start = true;
    for word in line.split('#').next().unwrap().split_whitespace() {
        let opened = word.rsplit_once("$(").or(word.rsplit_once("<(")).map(|(_, command)| command);
        if let Some(command) = opened {
            commands.push(command);
        } else if is_start && word.starts_with(|first: char| first.is_ascii_lowercase()) {
            let is_keyword = ["if", "then", "else", "do", "while", "elif"].contains(&word);
            if !is_keyword && !word.contains('=') {
                commands.push(word.trim_end_matches(';'));
            }
            is_start = is_keyword;
            continue;
        }
        is_start = matches!(word, "|" | "||" | "&&" | "!" | "{" | "(" | "then" | "do" | "else")
            || word.ends_with(';');
    }
    commands
}
