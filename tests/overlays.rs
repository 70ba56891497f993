//! The built-in overlays: what they make of the example clusters, and what independent
//! programs say of it.
//!
//! The trees are under golden/overlays/; `UPDATE_GOLDEN=1` writes them anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use nodeforge::builtin;
use nodeforge::cluster::{Cluster, Node};
use nodeforge::daos;
use nodeforge::diag::{Color, Problems, SourceMap, render};
use nodeforge::overlay::{self, LibraryFile, LibraryFiles};
use nodeforge::render::context::{ClusterContext, KindContext, NodeContext, sample};
use nodeforge::render::overlay::{OverlayUse, Renderer, Scope};
use nodeforge::render::template::Values;
use nodeforge::source;
use nodeforge::tree::{Entry, FileTree, Placed, TreePath};

struct Example {
    cluster: Cluster,
    renderer: Renderer,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[track_caller]
fn example(name: &str) -> Example {
    let mut source = source::read(&root().join(name), None).unwrap();
    let mut problems = std::mem::take(&mut source.problems);
    let cluster = Cluster::resolve(&source.doc, &source.map, &mut problems);
    let overlays = overlay::read(&source.library, &mut source.map, &mut problems);
    let renderer = Renderer::new(overlays, &source.map, &mut problems);
    let drawn: Vec<String> = problems
        .into_sorted()
        .iter()
        .filter(|problem| problem.is_error())
        .map(|problem| render(problem, &source.map, Color::Never))
        .collect();
    assert!(drawn.is_empty(), "{}", drawn.join("\n"));
    Example { cluster: cluster.unwrap(), renderer }
}

impl Example {
    fn uses(&self, node: &Node) -> Vec<OverlayUse<'_>> {
        let kind = self.cluster.kind_of(node);
        let roles = kind.roles.iter().map(|role| role.value.as_str());
        let mut uses = Vec::new();
        for role in std::iter::once("common").chain(roles) {
            let Some((role, overlays)) = self.cluster.layers.get_key_value(role) else { continue };
            uses.extend(
                overlays.iter().map(|overlay| OverlayUse { overlay: &overlay.value, role }),
            );
        }
        uses
    }

    fn values(&self, node: &Node) -> Values {
        let (cluster, kind) = (&self.cluster, self.cluster.kind_of(node));
        let yaml = kind.is_server().then(|| daos::config::server_yaml(cluster, kind, node));
        let owners = self.renderer.owner_lines(&self.uses(node));
        let mut values =
            Values::of(&ClusterContext::of(cluster, daos::config::control_yaml(cluster)));
        values.set(&KindContext::of(cluster, kind, owners));
        values.set(&NodeContext::of(cluster, node, yaml));
        values
    }

    /// Everything the overlays give to a node, with the scope of each file.
    #[track_caller]
    fn tree(&self, name: &str) -> (FileTree, BTreeMap<String, Scope>) {
        let node = self.cluster.node(name).unwrap();
        let (uses, mut values) = (self.uses(node), self.values(node));
        let (mut tree, mut scopes) = (FileTree::default(), BTreeMap::new());
        for scope in [Scope::Cluster, Scope::Kind, Scope::Node] {
            for used in &uses {
                let part = self.renderer.render(&[*used], scope, &mut values).unwrap();
                scopes.extend(part.entries().map(|(path, _)| (path.to_string(), scope)));
                tree.overlay(&part).unwrap();
            }
        }
        assert_eq!(self.renderer.clashes(&uses, &values), []);
        (tree, scopes)
    }
}

/// `mode owner scope path origin`, and where links point, one line an entry.
fn listing(tree: &FileTree, scopes: &BTreeMap<String, Scope>) -> String {
    let line = |(path, placed): (&TreePath, &Placed)| {
        let scope = format!("{:?}", scopes[path.as_str()]).to_lowercase();
        let kind = match &placed.entry {
            Entry::Dir { .. } => "/".to_owned(),
            Entry::File { .. } => String::new(),
            Entry::Symlink { target } => format!(" -> {target}"),
        };
        format!(
            "{} {} {scope:7} {path}{kind}  # {}\n",
            placed.entry.mode(),
            placed.owner,
            placed.origin
        )
    };
    tree.entries().map(line).collect()
}

fn files(tree: &FileTree) -> BTreeMap<String, String> {
    let text = |placed: &Placed| match &placed.entry {
        Entry::File { contents, .. } => Some(String::from_utf8(contents.to_vec()).unwrap()),
        _ => None,
    };
    tree.entries().filter_map(|(path, placed)| Some((path.to_string(), text(placed)?))).collect()
}

/// Compares `files` with golden/overlays/`case`/; `UPDATE_GOLDEN=1` rewrites it instead.
#[track_caller]
fn assert_golden(case: &str, files: &BTreeMap<String, String>) {
    let folder = root().join("tests/golden/overlays").join(case);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let _ = fs::remove_dir_all(&folder);
        for (path, text) in files {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }
    let entries = walkdir::WalkDir::new(&folder).into_iter().map(Result::unwrap);
    let golden: BTreeMap<String, String> = entries
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| {
            let path = entry.path().strip_prefix(&folder).unwrap().display().to_string();
            (path, fs::read_to_string(entry.path()).unwrap())
        })
        .collect();
    for (path, text) in files {
        assert_eq!(Some(text), golden.get(path), "{case}/{path}; UPDATE_GOLDEN=1 writes it anew");
    }
    assert_eq!(files.keys().collect::<Vec<_>>(), golden.keys().collect::<Vec<_>>(), "{case}");
}

#[track_caller]
fn assert_node(example_name: &str, node: &str) {
    let (tree, scopes) = example(example_name).tree(node);
    let mut all = files(&tree);
    // The same bytes on every node and in overlays/.
    all.retain(|path, _| !path.starts_with("usr/libexec/") && !path.starts_with("usr/sbin/"));
    all.insert("LISTING".into(), listing(&tree, &scopes));
    let stem = Path::new(example_name).file_stem().unwrap().to_str().unwrap();
    assert_golden(&format!("{stem}-{node}"), &all);
}

#[test]
fn lab3_admin_and_server() {
    assert_node("examples/lab3.toml", "node0");
}

#[test]
fn lab3_client() {
    assert_node("examples/lab3.toml", "node2");
}

#[test]
fn titan_admin() {
    assert_node("examples/titan.toml", "adm1");
}

#[test]
fn titan_server() {
    assert_node("examples/titan.toml", "srv017");
}

#[test]
fn bonds_vlans_and_a_firewall() {
    assert_node("tests/fixtures/overlays/bonded.toml", "box1");
}

/// Everything a node gets, below a folder of its own.
pub fn unpacked(example_name: &str, node: &str) -> tempfile::TempDir {
    let (tree, _) = example(example_name).tree(node);
    let folder = tempfile::tempdir().unwrap();
    for (path, placed) in tree.entries() {
        let path = folder.path().join(path.as_str());
        match &placed.entry {
            Entry::Dir { .. } => fs::create_dir_all(path).unwrap(),
            Entry::File { mode, contents } => {
                fs::write(&path, contents).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(mode.bits())).unwrap();
            }
            Entry::Symlink { target } => std::os::unix::fs::symlink(target, path).unwrap(),
        }
    }
    folder
}

/// What `program` says, on both streams.
#[track_caller]
fn said(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap_or_else(|fault| panic!("{command:?}: {fault}"));
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

const NODES: [(&str, &str); 5] = [
    ("examples/lab3.toml", "node0"),
    ("examples/lab3.toml", "node2"),
    ("examples/titan.toml", "adm1"),
    ("examples/titan.toml", "srv017"),
    ("tests/fixtures/overlays/bonded.toml", "box1"),
];

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    for (example, node) in NODES {
        let folder = unpacked(example, node);
        let units = folder.path().join("usr/lib/systemd/system");
        fs::create_dir_all(&units).unwrap();
        for daemon in ["daos_server", "daos_agent"] {
            let unit = format!("[Service]\nType=simple\nExecStart=/usr/bin/{daemon}\n");
            fs::write(units.join(format!("{daemon}.service")), unit).unwrap();
            let program = folder.path().join("usr/bin").join(daemon);
            fs::create_dir_all(program.parent().unwrap()).unwrap();
            fs::write(&program, "").unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let mut verify = Command::new("systemd-analyze");
        verify.arg("verify").arg(format!("--root={}", folder.path().display()));
        verify.args(["nodeforge-firstboot.service", "nodeforge-ready.service"]);
        verify.args(["nodeforge-report.path", "nodeforge-report.service"]);
        verify.args(["daos_server.service", "daos_agent.service"]);
        if folder.path().join("etc/systemd/system/nodeforge-format.service").exists() {
            verify.arg("nodeforge-format.service");
        }
        let (_, words) = said(&mut verify);
        let complaints: Vec<&str> = words
            .lines()
            // Units of the system that the folder does not hold.
            .filter(|line| !line.contains("Unit sysinit.target not found"))
            .filter(|line| {
                line.contains("nodeforge") || line.contains("daos_") || line.contains("nknown")
            })
            .collect();
        assert_eq!(complaints, Vec::<&str>::new(), "{example} {node}");
    }
}

/// Directives that systemd 239 of EL8 knows (systemd.unit(5), systemd.service(5),
/// systemd.link(5), coredump.conf(5), journald.conf(5) of that version), as far as we use
/// them: the one that verifies here is newer.
#[test]
fn only_directives_of_systemd_239_are_used() {
    let known: BTreeSet<&str> = [
        "Unit.Description",
        "Unit.Documentation",
        "Unit.Wants",
        "Unit.After",
        "Unit.ConditionPathExists",
        "Unit.Before",
        "Unit.BindsTo",
        "Unit.RequiresMountsFor",
        "Unit.StartLimitIntervalSec",
        "Unit.StartLimitBurst",
        "Service.Type",
        "Service.RemainAfterExit",
        "Service.ExecStart",
        "Service.StandardOutput",
        "Service.StandardError",
        "Service.TimeoutStartSec",
        "Service.Restart",
        "Service.RestartSec",
        "Service.User",
        "Service.Group",
        "Service.KillMode",
        "Service.SendSIGKILL",
        "Service.SuccessExitStatus",
        "Service.TimeoutStopSec",
        "Install.WantedBy",
        "Path.DirectoryNotEmpty",
        "Match.MACAddress",
        "Match.Path",
        "Link.Name",
        "Journal.Storage",
        "Journal.SystemMaxUse",
        "Journal.SystemKeepFree",
        "Coredump.Storage",
        "Coredump.Compress",
        "Coredump.ProcessSizeMax",
        "Coredump.ExternalSizeMax",
        "Coredump.MaxUse",
        "Coredump.KeepFree",
    ]
    .into();
    for (example_name, node) in NODES {
        let (tree, _) = example(example_name).tree(node);
        for (path, text) in files(&tree).iter().filter(|(path, _)| path.starts_with("etc/systemd/"))
        {
            let mut section = "";
            for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
                match line.strip_prefix('[') {
                    Some(name) => section = name.trim_end_matches(']'),
                    None => {
                        let key = format!("{section}.{}", line.split('=').next().unwrap());
                        assert!(known.contains(key.as_str()), "{path}: {key}");
                    }
                }
            }
        }
    }
}

#[test]
fn python_reads_the_ini_files_as_they_are_meant() {
    let folder = unpacked("tests/fixtures/overlays/bonded.toml", "box1");
    let script = r#"
import configparser, glob, json, sys
found = {}
for path in sorted(glob.glob("etc/NetworkManager/system-connections/*") + glob.glob("etc/yum.repos.d/*")):
    parser = configparser.ConfigParser(strict=True, interpolation=None)
    parser.read(path)
    found[path.split("/")[-1]] = {s: sorted(parser[s]) for s in parser.sections()}
print(json.dumps(found))
"#;
    let (is_fine, words) =
        said(Command::new("python3").args(["-c", script]).current_dir(folder.path()));
    assert!(is_fine, "{words}");
    let found: BTreeMap<String, BTreeMap<String, Vec<String>>> =
        serde_json::from_str(&words).unwrap();
    let sections = |file: &str| found[file].keys().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(sections("lan0.nmconnection"), ["connection", "ethernet"]);
    assert_eq!(sections("bond0.nmconnection"), ["bond", "connection", "ethernet", "ipv4", "ipv6"]);
    assert_eq!(
        sections("fab.200.nmconnection"),
        ["connection", "ethernet", "ipv4", "ipv6", "vlan"]
    );
    assert_eq!(sections("almalinux.repo"), ["appstream", "baseos", "extras"]);
    assert_eq!(found["lan0.nmconnection"]["connection"].last().unwrap(), "wait-device-timeout");
}

/// The built-in overlays with a site's files over them, and what is wrong with them.
fn with_site(site: &[(&str, &str)]) -> (Renderer, Vec<String>) {
    let file = |(path, text): &(&str, &str)| {
        let bytes = text.as_bytes().to_vec().into();
        ((*path).to_owned(), LibraryFile { shown: path.into(), bytes })
    };
    let library: LibraryFiles = overlay::shadow(builtin::files(), site.iter().map(file).collect());
    let (mut sources, mut problems) = (SourceMap::default(), Problems::default());
    let overlays = overlay::read(&library, &mut sources, &mut problems);
    let renderer = Renderer::new(overlays, &sources, &mut problems);
    let text = |problem: &nodeforge::diag::Diagnostic| {
        let place = sources.place(problem.primary.as_ref().unwrap().span);
        format!("{place} {} {} ({})", problem.code, problem.message, problem.help.join("; "))
    };
    (renderer, problems.into_sorted().iter().map(text).collect())
}

#[test]
fn the_built_in_overlays_mention_only_what_there_is() {
    assert_eq!(with_site(&[]).1, Vec::<String>::new());
}

#[test]
fn a_site_is_told_what_is_wrong_with_its_overlays_without_any_node() {
    let toml = "description = 'd'\nwhen = ['daos.securty == x']\n[link.'etc/x']\ntarget = '{{node.nam}}'\n[file.'etc/y']\neach = 'node.connections'\nname = '{uid}'\n";
    let (_, problems) = with_site(&[
        ("overlays/site/overlay.toml", toml),
        ("overlays/site/rootfs/etc/y.hbs", ""),
        ("overlays/site/rootfs/etc/a.hbs", "{{#if no}}\n{{/if}}{{#each hosts}}{{adress}}{{/each}}"),
        ("overlays/site/rootfs/etc/b.hbs", "x\n{{#if}}\n"),
        ("overlays/site/rootfs/etc/c.hbs", "{{vars.anything}} {{> site/p}}"),
        ("overlays/site/partials/p.hbs", "{{> site/q}}"),
        ("overlays/site/partials/q.hbs", "\n {{> site/p}}"),
        ("overlays/hosts/rootfs/etc/hosts.hbs", "{{cluster.nme}}"),
    ]);
    assert_eq!(
        problems,
        [
            "overlays/hosts/rootfs/etc/hosts.hbs:1:3 NF302 `cluster.nme` is not defined (did you mean `name`?)",
            "overlays/site/overlay.toml:2:9 NF302 `daos.securty` is not defined (did you mean `security`?)",
            "overlays/site/overlay.toml:4:10 NF302 `node.nam` is not defined (did you mean `name`?)",
            "overlays/site/overlay.toml:7:8 NF305 `node.connections` is no list of items with a `uid` ()",
            "overlays/site/rootfs/etc/a.hbs:1:7 NF302 `no` is not defined (known here: boot, cluster, daos, engines, hosts, hw, kind, net, node, os, repos, roles, vars)",
            "overlays/site/rootfs/etc/a.hbs:2:25 NF302 `hosts[].adress` is not defined (did you mean `address`?)",
            "overlays/site/rootfs/etc/b.hbs:2:8 NF301 this is no template (braces come in pairs, and every block is closed: `{{#if x}}…{{/if}}`)",
            "overlays/site/partials/q.hbs:2:2 NF303 templates include each other: site/q → site/p → site/q (move what both need into a third one)",
        ]
    );
}

#[test]
fn the_site_s_own_values_are_found_wherever_they_are_mentioned() {
    let toml = "description = 'd'\nwhen = ['vars.a']\n[link.'etc/x']\ntarget = '{{vars.b}}'\nwhen = ['vars.c == 1']\n";
    let (renderer, problems) = with_site(&[
        ("overlays/site/overlay.toml", toml),
        (
            "overlays/site/rootfs/etc/a.hbs",
            "{{#each hosts}}{{@root.vars.d}}{{../cluster.vars.e}}{{/each}}{{> site/p}}",
        ),
        ("overlays/site/partials/p.hbs", "{{#if vars.f}}{{/if}}{{node.name}}"),
    ]);
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(renderer.vars("site"), ["a", "b", "c", "d", "e", "f"].map(str::to_owned).into());
    assert_eq!(renderer.vars("hosts"), BTreeSet::new());
}

#[test]
fn two_overlays_that_want_one_path_are_told_apart() {
    let (renderer, problems) = with_site(&[
        (
            "overlays/site/overlay.toml",
            "description = 'd'\n[file.'etc/hosts']\nwhen = ['cluster.ntp']",
        ),
        ("overlays/site/rootfs/etc/hosts", ""),
    ]);
    assert_eq!(problems, Vec::<String>::new());
    let uses = ["hosts", "site"].map(|overlay| OverlayUse { overlay, role: "common" });
    let mut values = Values::of(&sample());
    let clashes: Vec<String> =
        renderer.clashes(&uses, &values).iter().map(|clash| clash.message.clone()).collect();
    assert_eq!(clashes, ["`/etc/hosts` comes from overlay `hosts` and from `site`"]);
    let faults = renderer.render(&uses, Scope::Cluster, &mut values).unwrap_err();
    assert_eq!(faults[0].message, "`/etc/hosts` comes from hosts (common) and from site (common)");
    values.set(&serde_json::json!({ "cluster": { "name": "x", "ntp": [] } }));
    assert_eq!(renderer.clashes(&uses, &values), []);
}
