//! Tools newer than EL8's: the machine that tests a script has them, the node has not.
//!
//! EL8 ships bash 4.4.20, coreutils 8.30, util-linux 2.32.1, tar 1.30, curl 7.61.1,
//! findutils 4.6.0, grep 3.1, sed 4.5, gawk 4.2.1, procps-ng 3.3.15, systemd 239,
//! OpenSSL 1.1.1, NetworkManager 1.40 (8.9). Each row names what came later and the release
//! notes that say when.

use std::sync::LazyLock;

use regex::Regex;

use super::scripts::{Language, Script};

/// A regular expression over one command line, what is wrong with it, and who says so.
struct Row {
    pattern: Regex,
    what: &'static str,
    source: &'static str,
}

/// What `script` uses that EL8 lacks, with its place. Comments are passed over.
pub fn findings(script: &Script) -> Vec<String> {
    if !matches!(script.language, Language::Sh | Language::Bash) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (number, command) in command_lines(&script.text) {
        for row in ROWS.iter().filter(|row| row.pattern.is_match(&command)) {
            let line = script.first_line + number;
            found.push(format!("{}:{line}: {} ({})", script.name, row.what, row.source));
        }
    }
    found
}

/// Lines with their number from 0, continued lines joined, comments left out.
fn command_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in text.lines().enumerate() {
        if open.is_none() && line.trim_start().starts_with('#') {
            continue;
        }
        let (_, command) = open.get_or_insert((number, String::new()));
        if let Some(part) = line.strip_suffix('\\') {
            command.push_str(part);
            command.push(' ');
        } else {
            command.push_str(line);
            lines.extend(open.take());
        }
    }
    lines.extend(open);
    lines
}

static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| {
    let in_shell = SHELL.iter().map(|&(pattern, what, source)| (pattern.to_owned(), what, source));
    let options = OPTIONS.iter().map(|&(program, options, what, source)| {
        (format!(r"\b{program}\b[^|;&]*[\s,](?:{options})(?:[\s=,)]|$)"), what, source)
    });
    let absent = ABSENT.iter().map(|&(program, what, source)| {
        let pattern = format!(
            r"(?:^|[;&|(!`{{]|\b(?:then|do|else|elif|if|while|until|exec|command -v|sudo)\s)\s*(?:/usr/bin/|/bin/|/usr/sbin/)?(?:{program})(?:[\s;)]|$)"
        );
        (pattern, what, source)
    });
    in_shell
        .chain(options)
        .chain(absent)
        .map(|(pattern, what, source)| Row { pattern: Regex::new(&pattern).unwrap(), what, source })
        .collect()
});

/// Of the shell itself: pattern, what it is, source.
const SHELL: &[(&str, &str, &str)] = &[
    (r"\$\{[\w\[\]@*!]+@[ULuKk]\}", "`${name@U}` and its like need bash 5.1", "bash NEWS 5.1"),
    (r"\bEPOCH(REALTIME|SECONDS)\b", "`EPOCHREALTIME` needs bash 5.0", "bash NEWS 5.0"),
    (r"\bBASH_ARGV0\b", "`BASH_ARGV0` needs bash 5.0", "bash NEWS 5.0"),
    (r"\bSRANDOM\b", "`SRANDOM` needs bash 5.1", "bash NEWS 5.1"),
    (r"\bwait\s+(-\w+\s+)*-\w*p\b", "`wait -p` needs bash 5.1", "bash NEWS 5.1"),
    (r"\bwait\s+(-\w+\s+)*-\w*f\b", "`wait -f` needs bash 5.0", "bash NEWS 5.0"),
    (
        r"\bshopt\b.*\b(localvar_inherit|localvar_unset|assoc_expand_once|progcomp_alias)\b",
        "this shopt needs bash 5.0",
        "bash NEWS 5.0",
    ),
    (
        r"\bshopt\b.*\b(patsub_replacement|varredir_close|noexpand_translation|array_expand_once)\b",
        "this shopt needs bash 5.2 or later",
        "bash NEWS 5.2, 5.3",
    ),
    (r"\$\{[ |]", "`${ command; }` needs bash 5.3", "bash NEWS 5.3"),
];

/// Program, options (alternatives of a regular expression), what, source.
const OPTIONS: &[(&str, &str, &str, &str)] = &[
    // coreutils 8.30
    (
        "env",
        "--(default|ignore|block|list)-signal(-handling)?",
        "this env option needs coreutils 8.31",
        "coreutils NEWS 8.31",
    ),
    ("env", "--argv0|-a", "`env --argv0` needs coreutils 9.5", "coreutils NEWS 9.5"),
    ("stat", "--cached", "`stat --cached` needs coreutils 8.32", "coreutils NEWS 8.32"),
    ("ls", "--zero", "`ls --zero` needs coreutils 9.0", "coreutils NEWS 9.0"),
    (
        "ls",
        "--time=(birth|creation)",
        "`ls --time=birth` needs coreutils 8.32",
        "coreutils NEWS 8.32",
    ),
    (
        "cksum",
        "-a|--algorithm|--check|--untagged",
        "`cksum -a` needs coreutils 9.0",
        "coreutils NEWS 9.0",
    ),
    ("wc", "--total", "`wc --total` needs coreutils 9.1", "coreutils NEWS 9.1"),
    ("dd", "(iseek|oseek)=\\S*", "`dd iseek=`, `oseek=` need coreutils 9.1", "coreutils NEWS 9.1"),
    ("(cp|mv)", "--update=\\S+", "`--update=KIND` needs coreutils 9.3", "coreutils NEWS 9.3"),
    ("(cp|mv|install)", "--debug", "`--debug` needs coreutils 9.3", "coreutils NEWS 9.3"),
    (
        "mv",
        "--exchange|--no-copy",
        "this mv option needs coreutils 9.3 or 9.5",
        "coreutils NEWS 9.3, 9.5",
    ),
    ("date", "--resolution", "`date --resolution` needs coreutils 9.3", "coreutils NEWS 9.3"),
    // tar 1.30
    ("tar", "--zstd", "`tar --zstd` needs tar 1.31", "tar NEWS 1.31"),
    ("tar", "--set-mtime-(command|format)", "`tar --set-mtime-…` needs tar 1.35", "tar NEWS 1.35"),
    // curl 7.61.1
    ("curl", "--http0.9", "`curl --http0.9` needs curl 7.64", "curl docs/cmdline-opts"),
    ("curl", "--doh-url", "`curl --doh-url` needs curl 7.62", "curl docs/cmdline-opts"),
    (
        "curl",
        "--parallel(-max|-immediate)?|-Z",
        "`curl --parallel` needs curl 7.66",
        "curl docs/cmdline-opts",
    ),
    (
        "curl",
        "--(no-)?progress-meter",
        "`curl --no-progress-meter` needs curl 7.67",
        "curl docs/cmdline-opts",
    ),
    ("curl", "--etag-(save|compare)", "`curl --etag-…` needs curl 7.68", "curl docs/cmdline-opts"),
    (
        "curl",
        "--retry-all-errors",
        "`curl --retry-all-errors` needs curl 7.71",
        "curl docs/cmdline-opts",
    ),
    ("curl", "--output-dir", "`curl --output-dir` needs curl 7.73", "curl docs/cmdline-opts"),
    (
        "curl",
        "--create-file-mode|--aws-sigv4",
        "this curl option needs curl 7.75",
        "curl docs/cmdline-opts",
    ),
    (
        "curl",
        "--fail-with-body",
        "`curl --fail-with-body` needs curl 7.76",
        "curl docs/cmdline-opts",
    ),
    ("curl", "--json", "`curl --json` needs curl 7.82", "curl docs/cmdline-opts"),
    (
        "curl",
        "--remove-on-error|--(no-)?clobber",
        "this curl option needs curl 7.83",
        "curl docs/cmdline-opts",
    ),
    ("curl", "--rate", "`curl --rate` needs curl 7.84", "curl docs/cmdline-opts"),
    ("curl", "--url-query", "`curl --url-query` needs curl 7.87", "curl docs/cmdline-opts"),
    (
        "curl",
        "--variable|--expand-\\w+|--ca-native",
        "this curl option needs curl 8.2 or 8.3",
        "curl docs/cmdline-opts",
    ),
    (
        "curl",
        "\\S*%\\{(json|header_json|exitcode|errormsg|method|certs|onerror|stderr|stdout)\\}\\S*",
        "this `--write-out` variable is newer than curl 7.61",
        "curl docs/cmdline-opts/write-out",
    ),
    // util-linux 2.32.1
    (
        "lsblk",
        "\"?(PATH|PTTYPE|PTUUID|FSVER|FSAVAIL|FSUSED|FSSIZE|FSUSE%|FSROOTS|MOUNTPOINTS|PARTTYPENAME|START|PARTN|DISK-SEQ|DAX|ZONE-SZ|MQ)\"?",
        "this lsblk column is newer than util-linux 2.32",
        "util-linux 2.33 to 2.39 release notes",
    ),
    (
        "lsblk",
        "-[MEAN]|--(merge|dedup|noempty|nvme|virtio|width|shell)",
        "this lsblk option is newer than util-linux 2.32",
        "util-linux 2.34 to 2.38 release notes",
    ),
    (
        "findmnt",
        "--(real|pseudo|shadowed|vfs-all|deleted|id|uniq-id)",
        "this findmnt option is newer than util-linux 2.32",
        "util-linux 2.33 to 2.39 release notes",
    ),
    (
        "mount",
        "--mkdir\\S*|-m",
        "`mount --mkdir` needs util-linux 2.35 or later",
        "util-linux 2.35 release notes",
    ),
    (
        "(sfdisk|wipefs|mkswap|cfdisk|fdisk)",
        "--lock\\S*",
        "`--lock` needs util-linux 2.35",
        "util-linux 2.35, 2.36 release notes",
    ),
    (
        "dmesg",
        "--(since|until|json|follow-new)|-W|-J",
        "this dmesg option needs util-linux 2.36 or later",
        "util-linux 2.36 to 2.38 release notes",
    ),
    (
        "unshare",
        "--map-(users|groups|auto)|--setuid|--setgid",
        "this unshare option needs util-linux 2.33 or later",
        "util-linux release notes",
    ),
    (
        "blkdiscard",
        "--force",
        "`blkdiscard --force` needs util-linux 2.36",
        "util-linux 2.36 release notes",
    ),
    // findutils, grep, procps
    ("find", "-files0-from", "`find -files0-from` needs findutils 4.9", "findutils NEWS 4.9"),
    ("grep", "--no-ignore-case", "`grep --no-ignore-case` needs grep 3.5", "grep NEWS 3.5"),
    // systemd 239
    (
        "systemctl",
        "--(timestamp|with-dependencies|kill-whom|mkdir|read-only|legend|what|marked|drop-in|when|image|stdin|no-warn|kill-value|check-inhibitors)(=\\S*)?|-P|-T",
        "this systemctl option is newer than systemd 239",
        "systemd NEWS 240 to 256",
    ),
    (
        "systemctl",
        "clean|freeze|thaw|bind|mount-image|log-level|log-target|service-log-level|service-log-target|soft-reboot|whoami|sleep",
        "this systemctl verb is newer than systemd 239",
        "systemd NEWS 243 to 254",
    ),
    (
        "journalctl",
        "--(namespace|facility|cursor-file|relinquish-var|smart-relinquish-var|list-namespaces|truncate-newline|exclude-identifier|image|list-invocation|invocation)(=\\S*)?|-I",
        "this journalctl option is newer than systemd 239",
        "systemd NEWS 242 to 257",
    ),
    (
        "systemd-run",
        "--(shell|working-directory|same-dir|on-clock-change|on-timezone-change|background|ignore-failure)(=\\S*)?|-S|-d",
        "this systemd-run option is newer than systemd 239",
        "systemd NEWS 240 to 256",
    ),
    (
        "systemd-tmpfiles",
        "--(dry-run|purge|graceful|image|tldr)(=\\S*)?|-E",
        "this systemd-tmpfiles option is newer than systemd 239",
        "systemd NEWS 247 to 256",
    ),
    (
        "systemd-analyze",
        "security|condition|exit-status|capability|inspect-elf|compare-versions|filesystems|timestamp|unit-files",
        "this systemd-analyze verb is newer than systemd 239",
        "systemd NEWS 240 to 254",
    ),
    (
        "hostnamectl",
        "hostname|--json\\S*",
        "EL8 has `hostnamectl set-hostname` only",
        "systemd NEWS 249",
    ),
    (
        "udevadm",
        "wait|lock|test-builtin --action\\S*|--json\\S*|--tree",
        "this is newer than systemd 239's udevadm",
        "systemd NEWS 251 to 254",
    ),
    ("busctl", "--json\\S*|-j", "`busctl --json` needs systemd 240", "systemd NEWS 240"),
    // OpenSSL 1.1.1
    (
        "openssl",
        "fipsinstall|kdf|mac|-provider|-copy_extensions",
        "this needs OpenSSL 3.0",
        "openssl CHANGES 3.0",
    ),
    // NetworkManager 1.40
    (
        "nmcli",
        "checkpoint",
        "`nmcli device checkpoint` needs NetworkManager 1.44 or later",
        "NetworkManager NEWS",
    ),
];

/// Programs that a minimal install of EL8 lacks, at the start of a command.
const ABSENT: &[(&str, &str, &str)] = &[
    (
        "jq|yq",
        "EL8's minimal install has no jq or yq: use platform-python's json",
        "EL8 comps, minimal-environment",
    ),
    (
        "python|python2|python3(\\.\\d+)?|env python3?",
        "EL8's minimal install has no python3: use /usr/libexec/platform-python",
        "EL8 package python36 is a module of AppStream",
    ),
    ("wget|nc|ncat|socat", "EL8's minimal install has curl only", "EL8 comps, minimal-environment"),
    (
        "ifconfig|route|netstat|brctl|arp",
        "net-tools is not in EL8's minimal install: use ip, ss",
        "EL8 comps, minimal-environment",
    ),
    (
        "dig|nslookup|host",
        "bind-utils is not in EL8's minimal install: use getent",
        "EL8 comps, minimal-environment",
    ),
    (
        "xxd|bc|zstd|pigz|strace|tree|perl",
        "not in EL8's minimal install",
        "EL8 comps, minimal-environment",
    ),
    (
        "resolvconf|netplan|apt-get|dpkg|update-grub|update-initramfs",
        "Debian's tool, not EL8's",
        "EL8",
    ),
    (
        "dnf5|systemd-creds|systemd-cryptenroll|systemd-repart|userdbctl|homectl|oomctl|pidwait|basenc|lsfd",
        "newer than EL8",
        "release notes of systemd, procps-ng, coreutils, util-linux",
    ),
];

fn found_in(text: &str) -> Vec<String> {
    findings(&super::scripts::script(Language::Bash, text))
}

#[test]
fn what_el8_has_passes() {
    for line in [
        "echo \"${name@Q}\" \"${PATH}\" \"${list[@]}\"",
        "wait -n",
        "lsblk --noheadings --nodeps --bytes --output NAME,SIZE,SERIAL \"$PATH\"",
        "lsblk -dno NAME,TYPE,RM,TRAN,SIZE,WWN,MODEL",
        "curl --fail --silent --show-error --retry 5 --retry-connrefused --max-time 60 --output x y",
        "tar --extract --gzip --file x --directory / --no-overwrite-dir --sort=name",
        "systemctl show --property=ActiveState --value daos_server.service",
        "systemctl enable --now chronyd.service",
        "journalctl --unit=daos_server --no-pager --lines=20",
        "ip route add default via 10.0.0.1",
        "ip -j link show",
        "/usr/libexec/platform-python -c 'import json'",
        "hostnamectl set-hostname node0",
        "# jq would be nice here: EPOCHREALTIME",
        "echo route host tree",
        "findmnt --noheadings --output SOURCE,FSTYPE --target /var/lib/daos",
    ] {
        assert_eq!(found_in(line), [""; 0], "{line}");
    }
}

#[test]
fn what_came_after_el8_is_refused() {
    for line in [
        "echo \"${name@U}\"",
        "echo \"$EPOCHREALTIME\"",
        "wait -n -p pid",
        "lsblk -o NAME,PATH",
        "lsblk --output NAME,MOUNTPOINTS --json",
        "lsblk --output PTTYPE \"$disk\"",
        "curl --fail-with-body x",
        "curl -s --retry-all-errors x",
        "curl -s \\\n    --no-progress-meter x",
        "tar --zstd -xf x",
        "systemctl show -P ActiveState x",
        "systemctl clean x",
        "journalctl --namespace=x",
        "hostnamectl hostname node0",
        "udevadm wait /dev/x",
        "value=$(jq .x file)",
        "if ! jq -e . x; then true; fi",
        "command -v yq",
        "python3 -c 'import json'",
        "dmesg --since yesterday",
        "mount --mkdir /dev/x /mnt",
    ] {
        assert_eq!(found_in(line).len(), 1, "{line}: {:?}", found_in(line));
    }
    let script = Script {
        first_line: 40,
        ..super::scripts::script(Language::Bash, "true\ncurl \\\n  --json x\n")
    };
    assert_eq!(findings(&script), ["x:41: `curl --json` needs curl 7.82 (curl docs/cmdline-opts)"]);
}
