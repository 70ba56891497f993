//! Units and drop-ins of a node: systemd's own verifier, and the tables of what EL8's
//! systemd 239 knows, which the verifier of a newer machine cannot tell.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::ini::{self, Setting};
use super::systemd239::{
    EXEC_PREFIXES, SPECIFIERS, UNITS_OF_EL8, VALUES, link_keys, unit_directives,
};
use crate::support::{self, files_below};

/// All that is wrong with the units, drop-ins, enabling links and .link files below `root`,
/// a node's whole tree.
pub fn findings(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for path in files_below(root, is_unit_or_dropin) {
        found.extend(directive_findings(root, &path));
    }
    for path in files_below(root, |path| path.contains("systemd/network/")) {
        found.extend(link_findings(root, &path));
    }
    found.extend(place_findings(root));
    found.extend(enabling_findings(root));
    found.extend(verify(root));
    found
}

const UNIT_FOLDERS: [&str; 2] = ["etc/systemd/system", "usr/lib/systemd/system"];

const UNIT_SUFFIXES: [&str; 9] = [
    ".service",
    ".timer",
    ".path",
    ".socket",
    ".mount",
    ".automount",
    ".swap",
    ".target",
    ".slice",
];

fn is_unit_name(name: &str) -> bool {
    UNIT_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

fn is_unit_or_dropin(path: &str) -> bool {
    let in_folder = UNIT_FOLDERS.iter().any(|folder| path.starts_with(folder));
    in_folder && (is_unit_name(path) || path.ends_with(".conf") && path.contains(".d/"))
}

/// The unit that the file at `path` is, or adds to: `a.service` for `…/a.service.d/x.conf`.
fn unit_of(path: &str) -> &str {
    let mut parts = path.rsplit('/');
    let name = parts.next().unwrap_or_default();
    let folder = parts.next().unwrap_or_default();
    folder.strip_suffix(".d").filter(|unit| is_unit_name(unit)).unwrap_or(name)
}

fn directive_findings(root: &Path, path: &str) -> Vec<String> {
    let (settings, mut found) = ini::parse(path, &read(root, path));
    for setting in &settings {
        let place = format!("{path}:{}", setting.line);
        let faults = [
            directive_fault(setting),
            value_fault(setting),
            specifier_fault(setting),
            executable_fault(setting),
        ];
        found.extend(faults.into_iter().flatten().map(|fault| format!("{place}: {fault}")));
        found.extend(unknown_units(root, setting).map(|fault| format!("{place}: {fault}")));
    }
    found
}

fn directive_fault(setting: &Setting) -> Option<String> {
    let Setting { section, key, .. } = setting;
    let Some(known) = unit_directives(section) else {
        return Some(format!("systemd 239 has no section [{section}]"));
    };
    let is_private = section.starts_with("X-") || key.starts_with("X-");
    (!is_private && !known.contains(&&**key))
        .then(|| format!("systemd 239 has no {key}= in [{section}]"))
}

fn value_fault(setting: &Setting) -> Option<String> {
    let (_, known) = VALUES.iter().find(|(key, _)| *key == setting.key)?;
    let value = &*setting.value;
    // A path or mount unit's `Type=` is a file system.
    let is_judged = setting.section == "Service" || setting.key != "Type";
    let is_known = value.is_empty()
        || known
            .iter()
            .any(|word| value == *word || word.ends_with(':') && value.starts_with(word));
    (is_judged && !is_known).then(|| format!("systemd 239 does not know {}={value}", setting.key))
}

fn specifier_fault(setting: &Setting) -> Option<String> {
    let mut rest = setting.value.chars();
    while let Some(letter) = rest.by_ref().find(|&letter| letter == '%').and_then(|_| rest.next()) {
        if !SPECIFIERS.contains(letter) {
            return Some(format!("systemd 239 has no specifier %{letter}"));
        }
    }
    None
}

fn executable_fault(setting: &Setting) -> Option<String> {
    let is_command = setting.key.starts_with("Exec") && !setting.value.is_empty();
    let path = setting.value.trim_start_matches(|letter| EXEC_PREFIXES.contains(letter));
    (is_command && !path.starts_with('/')).then(|| {
        format!("{}: an absolute path is wanted, after none but {EXEC_PREFIXES}", setting.key)
    })
}

const UNIT_LISTS: [&str; 12] = [
    "After",
    "Also",
    "Before",
    "BindsTo",
    "Conflicts",
    "OnFailure",
    "PartOf",
    "RequiredBy",
    "Requires",
    "Requisite",
    "WantedBy",
    "Wants",
];

/// Names that neither the node's tree nor EL8 has. systemd ignores them in `After=` and
/// `Wants=`, which hides a slip of the pen.
fn unknown_units(root: &Path, setting: &Setting) -> impl Iterator<Item = String> {
    let names = if UNIT_LISTS.contains(&&*setting.key) { &*setting.value } else { "" };
    names
        .split_whitespace()
        .filter(|name| !name.contains('%') && !is_known_unit(root, name))
        .map(|name| format!("{}={name}: no such unit on an EL8 node", setting.key))
}

fn is_known_unit(root: &Path, name: &str) -> bool {
    let template = match name.split_once('@') {
        Some((stem, rest)) => {
            let suffix = rest.rfind('.').map_or("", |dot| &rest[dot..]);
            format!("{stem}@{suffix}")
        }
        None => name.to_owned(),
    };
    // Units of devices and mounts are made by udev and fstab.
    let is_made = name.ends_with(".device") || name.ends_with(".mount");
    let is_there = |name: &str| {
        UNITS_OF_EL8.contains(&name)
            || UNIT_FOLDERS.iter().any(|folder| root.join(folder).join(name).exists())
    };
    is_made || is_there(name) || is_there(&template)
}

/// Presets do nothing for a node that anaconda has installed, and a vendor's unit is not
/// replaced: the next update would be lost, or would win.
fn place_findings(root: &Path) -> Vec<String> {
    files_below(root, |path| path.contains("systemd/"))
        .iter()
        .filter_map(|path| {
            let name = path.rsplit('/').next().unwrap_or_default();
            let is_replacement =
                UNIT_FOLDERS.iter().any(|folder| *path == format!("{folder}/{name}"))
                    && UNITS_OF_EL8.contains(&name);
            if path.contains("-preset/") {
                Some(format!("{path}: presets are not applied on a node; enable by a link"))
            } else if is_replacement {
                Some(format!("{path}: replaces a packaged unit; use a drop-in"))
            } else {
                None
            }
        })
        .collect()
}

/// Links in `*.wants/` and `*.requires/` that lead nowhere on an EL8 node.
fn enabling_findings(root: &Path) -> Vec<String> {
    let is_enabling = |path: &Path| {
        let folder = path.parent().and_then(Path::extension);
        folder.is_some_and(|end| end == "wants" || end == "requires")
    };
    walkdir::WalkDir::new(root)
        .sort_by_file_name()
        .into_iter()
        .map(Result::unwrap)
        .filter(|entry| entry.path_is_symlink() && is_enabling(entry.path()))
        .filter_map(|entry| {
            let path = entry.path().strip_prefix(root).unwrap().display().to_string();
            let target = entry.path().read_link().unwrap();
            let name = target.file_name().unwrap().to_str().unwrap();
            let folder = target.parent().unwrap().to_str().unwrap();
            let is_absolute = UNIT_FOLDERS.iter().any(|known| folder == format!("/{known}"));
            if !is_absolute {
                return Some(format!(
                    "{path}: -> {}: an absolute path to a unit is wanted",
                    target.display()
                ));
            }
            let is_there = root.join(target.strip_prefix("/").unwrap()).exists();
            let is_packaged = folder == "/usr/lib/systemd/system" && UNITS_OF_EL8.contains(&name);
            (!is_there && !is_packaged)
                .then(|| format!("{path}: -> {}: no such unit on an EL8 node", target.display()))
        })
        .collect()
}

fn link_findings(root: &Path, path: &str) -> Vec<String> {
    if !path.ends_with(".link") {
        return vec![format!("{path}: systemd-networkd is not on an EL8 node")];
    }
    let (settings, mut found) = ini::parse(path, &read(root, path));
    for Setting { line, section, key, value } in &settings {
        let fault = match link_keys(section) {
            None => Some(format!("no section [{section}] in a .link file")),
            Some(known) if !known.contains(&&**key) => {
                Some(format!("systemd 239 has no {key}= in [{section}] of a .link file"))
            }
            Some(_) if key == "MACAddress" && value.len() != "00:00:00:00:00:00".len() => Some(
                format!("MACAddress={value}: systemd 239 matches one 6-byte address; use Path="),
            ),
            Some(_) if key == "Name" => name_fault(value),
            Some(_) => None,
        };
        found.extend(fault.map(|fault| format!("{path}:{line}: {fault}")));
    }
    for (section, key) in [("Match", ""), ("Link", "Name")] {
        let has = |setting: &Setting| {
            setting.section == section && (key.is_empty() || setting.key == key)
        };
        if !settings.iter().any(has) {
            found.push(format!("{path}: [{section}] {key} is missing"));
        }
    }
    found
}

/// The kernel names interfaces so by itself: a rename into such a name races.
fn name_fault(name: &str) -> Option<String> {
    let stem = name.trim_end_matches(|letter: char| letter.is_ascii_digit());
    let is_kernels = stem != name && ["eth", "ib", "wlan", "usb"].contains(&stem);
    // IFNAMSIZ is 16 with the NUL (linux/if.h).
    (is_kernels || name.is_empty() || name.len() > 15)
        .then(|| format!("Name={name}: 1 to 15 bytes, and not a name that the kernel gives itself"))
}

/// What `systemd-analyze verify` says of the node's units, on a root that holds them, stand-ins
/// for EL8's own units, and the programs they start.
fn verify(root: &Path) -> Vec<String> {
    let units: BTreeSet<String> =
        files_below(root, is_unit_or_dropin).iter().map(|path| unit_of(path).to_owned()).collect();
    if units.is_empty() {
        return Vec::new();
    }
    let image = support::scratch();
    for path in files_below(root, is_unit_or_dropin) {
        support::write(image.path(), &path, read(root, &path));
    }
    for unit in UNITS_OF_EL8 {
        support::write(image.path(), &format!("usr/lib/systemd/system/{unit}"), stand_in(unit));
    }
    for program in PROGRAMS_OF_EL8.iter().map(|path| path.to_string()).chain(own_programs(root)) {
        support::write(image.path(), &program, "#!/bin/sh\n");
        support::set_mode(image.path(), &program, 0o755);
    }
    let output = support::command("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(format!("--root={}", image.path().display()))
        .args(&units)
        .output()
        .unwrap();
    let prefix = format!("{}/", image.path().display());
    let said = support::spoken_lines(&output);
    let mut found: Vec<String> = said.iter().map(|line| line.replace(&prefix, "")).collect();
    if found.is_empty() && !output.status.success() {
        found.push(format!("systemd-analyze: {}", output.status));
    }
    found
}

/// The executables that the node's tree itself brings.
fn own_programs(root: &Path) -> Vec<String> {
    use std::os::unix::fs::PermissionsExt;
    files_below(root, |path| {
        root.join(path).metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o111 != 0)
    })
}

/// A unit of EL8 by name only, but for DAOS's, whose settings the drop-ins meet.
fn stand_in(unit: &str) -> String {
    let body = match unit {
        "daos_server.service" => {
            "[Service]\nType=simple\nUser=daos_server\nGroup=daos_server\n\
             RuntimeDirectory=daos_server\nExecStart=/usr/bin/daos_server start\n\
             Restart=on-failure\nRestartSec=10\nLimitMEMLOCK=infinity\n"
        }
        "daos_agent.service" => {
            "[Service]\nType=notify\nUser=daos_agent\nGroup=daos_agent\n\
             RuntimeDirectory=daos_agent\nExecStart=/usr/bin/daos_agent start\n"
        }
        _ if unit.ends_with(".service") => "[Service]\nType=oneshot\nExecStart=/usr/bin/true\n",
        _ if unit.ends_with(".socket") => "[Socket]\nListenStream=/run/stand-in\n",
        _ if unit.ends_with(".timer") => "[Timer]\nOnBootSec=15min\n",
        "dev-hugepages.mount" => "[Mount]\nWhat=hugetlbfs\nWhere=/dev/hugepages\nType=hugetlbfs\n",
        "-.mount" => "[Mount]\nWhat=/dev/root\nWhere=/\n",
        _ => "",
    };
    format!("[Unit]\nDescription={unit}\nDefaultDependencies=no\n{body}")
}

/// Programs of EL8's minimal install, and DAOS's, that a unit may start.
const PROGRAMS_OF_EL8: &[&str] = &[
    "bin/bash",
    "bin/sh",
    "usr/bin/bash",
    "usr/bin/chronyc",
    "usr/bin/daos_agent",
    "usr/bin/daos_server",
    "usr/bin/dmg",
    "usr/bin/echo",
    "usr/bin/mkdir",
    "usr/bin/sh",
    "usr/bin/sleep",
    "usr/bin/systemctl",
    "usr/bin/systemd-tmpfiles",
    "usr/bin/test",
    "usr/bin/true",
    "usr/libexec/platform-python",
    "usr/sbin/grubby",
    "usr/sbin/modprobe",
    "usr/sbin/restorecon",
    "usr/sbin/sysctl",
];

fn read(root: &Path, path: &str) -> String {
    let path: PathBuf = root.join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

const GOOD_UNIT: &str = "[Unit]\nDescription=x\nAfter=network-online.target\n\
    Wants=network-online.target\nConditionKernelCommandLine=!x\n\
    [Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/libexec/x/run %n\n\
    StandardOutput=append:/var/log/x.log\nRestart=on-failure\n\
    [Install]\nWantedBy=multi-user.target\n";

/// A root with a unit, its program, a link that enables it, a drop-in and a .link file.
fn good_root() -> tempfile::TempDir {
    let root = support::scratch();
    support::write(root.path(), "etc/systemd/system/x.service", GOOD_UNIT);
    support::write(root.path(), "usr/libexec/x/run", "#!/bin/bash\n");
    support::set_mode(root.path(), "usr/libexec/x/run", 0o755);
    support::write(
        root.path(),
        "etc/systemd/system/daos_server.service.d/10-x.conf",
        "[Unit]\nRequires=x.service\nAfter=x.service\nRequiresMountsFor=/var/lib/daos\n\
         StartLimitIntervalSec=0\n[Service]\nUser=root\nGroup=root\n",
    );
    support::write(
        root.path(),
        "etc/systemd/network/10-lan0.link",
        "[Match]\nMACAddress=52:54:00:00:00:01\n[Link]\nName=lan0\n",
    );
    let wants = root.path().join("etc/systemd/system/multi-user.target.wants");
    std::fs::create_dir(&wants).unwrap();
    std::os::unix::fs::symlink("/etc/systemd/system/x.service", wants.join("x.service")).unwrap();
    let daos = "/usr/lib/systemd/system/daos_server.service";
    std::os::unix::fs::symlink(daos, wants.join("daos_server.service")).unwrap();
    root
}

#[test]
fn a_sound_set_of_units_passes() {
    if support::lacks(&["systemd-analyze"]) {
        return;
    }
    assert_eq!(findings(good_root().path()), [""; 0]);
}

#[test]
fn a_unit_that_systemd_239_would_not_understand_is_refused() {
    let path = "etc/systemd/system/x.service";
    for (from, to, finding) in [
        (
            "ConditionKernelCommandLine",
            "ConditionMemory",
            "x.service:5: systemd 239 has no ConditionMemory= in [Unit]",
        ),
        (
            "RemainAfterExit=yes",
            "OOMPolicy=stop",
            "x.service:8: systemd 239 has no OOMPolicy= in [Service]",
        ),
        ("[Install]", "[Instal]", "x.service:13: systemd 239 has no section [Instal]"),
        (
            "Type=oneshot",
            "Type=notify-reload",
            "x.service:7: systemd 239 does not know Type=notify-reload",
        ),
        (
            "append:",
            "truncate:",
            "x.service:10: systemd 239 does not know StandardOutput=truncate:/var/log/x.log",
        ),
        ("%n", "%d", "x.service:9: systemd 239 has no specifier %d"),
        (
            "=/usr/libexec/x/run",
            "=:/usr/libexec/x/run",
            "x.service:9: ExecStart: an absolute path is wanted, after none but @-+!",
        ),
        (
            "After=network-online",
            "After=network-onlin",
            "x.service:3: After=network-onlin.target: no such unit on an EL8 node",
        ),
    ] {
        let root = good_root();
        support::write(root.path(), path, GOOD_UNIT.replace(from, to));
        assert_eq!(
            directive_findings(root.path(), path),
            [format!("etc/systemd/system/{finding}")]
        );
    }
}

#[test]
fn systemd_itself_refuses_what_it_cannot_load() {
    if support::lacks(&["systemd-analyze"]) {
        return;
    }
    for (from, to, finding) in [
        (
            "/usr/libexec/x/run",
            "/usr/libexec/x/walk",
            "x.service: Command /usr/libexec/x/walk is not executable: No such file or directory",
        ),
        (
            "ExecStart=/usr/libexec/x/run %n\n",
            "",
            "x.service: Service has no ExecStart=, ExecStop=, or SuccessAction=. Refusing.",
        ),
        (
            "RemainAfterExit=yes",
            "RemainAfterExit=maybe",
            "etc/systemd/system/x.service:8: Failed to parse boolean value, ignoring: maybe",
        ),
    ] {
        let root = good_root();
        support::write(root.path(), "etc/systemd/system/x.service", GOOD_UNIT.replace(from, to));
        let found = verify(root.path());
        assert!(found.iter().any(|line| line == finding), "{to}: {found:?}");
    }
}

#[test]
fn presets_replaced_units_and_dangling_links_are_refused() {
    let root = good_root();
    support::write(root.path(), "usr/lib/systemd/system-preset/10-x.preset", "enable x.service\n");
    support::write(root.path(), "usr/lib/systemd/system/chronyd.service", GOOD_UNIT);
    let wants = root.path().join("etc/systemd/system/multi-user.target.wants");
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, wants.join(name)).unwrap();
    link("/usr/lib/systemd/system/nothing.service", "nothing.service");
    link("../x.service", "y.service");
    assert_eq!(
        place_findings(root.path()),
        [
            "usr/lib/systemd/system/chronyd.service: replaces a packaged unit; use a drop-in",
            "usr/lib/systemd/system-preset/10-x.preset: presets are not applied on a node; enable by a link",
        ]
    );
    let folder = "etc/systemd/system/multi-user.target.wants";
    assert_eq!(
        enabling_findings(root.path()),
        [
            format!(
                "{folder}/nothing.service: -> /usr/lib/systemd/system/nothing.service: no such unit on an EL8 node"
            ),
            format!("{folder}/y.service: -> ../x.service: an absolute path to a unit is wanted"),
        ]
    );
}

#[test]
fn a_link_file_that_el8s_udev_would_ignore_is_refused() {
    let path = "etc/systemd/network/10-x.link";
    for (text, finding) in [
        (
            "[Match]\nPermanentMACAddress=52:54:00:00:00:01\n[Link]\nName=lan0\n",
            ":2: systemd 239 has no PermanentMACAddress= in [Match] of a .link file",
        ),
        (
            "[Match]\nMACAddress=52:54:00:00:00:01 52:54:00:00:00:02\n[Link]\nName=lan0\n",
            ":2: MACAddress=52:54:00:00:00:01 52:54:00:00:00:02: systemd 239 matches one 6-byte address; use Path=",
        ),
        (
            "[Match]\nPath=pci-0000:17:00.0\n[Link]\nName=ib0\n",
            ":4: Name=ib0: 1 to 15 bytes, and not a name that the kernel gives itself",
        ),
        ("[Match]\nPath=pci-0000:17:00.0\n[Link]\nMTUBytes=4092\n", ": [Link] Name is missing"),
    ] {
        let root = support::scratch();
        support::write(root.path(), path, text);
        assert_eq!(link_findings(root.path(), path), [format!("{path}{finding}")]);
    }
}
