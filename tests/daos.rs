//! The DAOS model: rules against a corpus of cluster files, and the rendered files.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nodeforge::cluster::{Cluster, Kind, Sited};
use nodeforge::daos;
use nodeforge::diag::{Diagnostic, Problems, SourceMap};
use nodeforge::source;
use serde_json::{Value, json};

use crate::corpus::{cluster_files, expectation, expectation_fault};

/// What `nodeforge check` finds in the file, and the cluster if it could be understood.
fn check(path: &Path) -> (Option<Cluster>, SourceMap, Vec<Diagnostic>) {
    let mut source = source::read(path, None).unwrap();
    let mut problems = std::mem::take(&mut source.problems);
    let cluster = Cluster::resolve(&source.doc, &source.map, &mut problems);
    if let Some(cluster) = &cluster {
        let mut found = Problems::default();
        daos::rules::check(cluster, &mut found);
        problems.extend(found.into_sorted());
    }
    (cluster, source.map, problems.into_sorted())
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Each file of the corpus begins with one `# expect: …` line for each problem, in the order
/// of their places; `nothing` stands for a good file. `UPDATE_GOLDEN=1` writes the lines
/// (twice, if their number changes).
#[test]
fn every_file_of_the_corpus_has_exactly_the_problems_it_announces() {
    let mut wrong = Vec::new();
    for path in cluster_files("tests/corpus/daos") {
        let (_, sources, problems) = check(&path);
        wrong.extend(expectation_fault(&path, &sources, &problems));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The codes that the rules can give, by the names of their constants.
fn codes_of_the_rules() -> Vec<String> {
    let listed = fs::read_to_string(folder("src/diag/codes.rs")).unwrap();
    let code_of = |name: &str| {
        let line = listed
            .lines()
            .find_map(|line| line.strip_prefix(&format!("pub const {name}: Code = Code(\"")));
        line.unwrap().trim_end_matches("\");").to_owned()
    };
    let mut codes = BTreeSet::new();
    for entry in fs::read_dir(folder("src/daos/rules")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        for part in text.split("codes::").skip(1) {
            let is_name = |c: &char| c.is_ascii_uppercase() || c.is_ascii_digit() || *c == '_';
            let name: String = part.chars().take_while(is_name).collect();
            if !name.is_empty() {
                codes.insert(code_of(&name));
            }
        }
    }
    codes.into_iter().collect()
}

#[test]
fn each_rule_has_a_failing_and_a_passing_file_in_the_corpus() {
    let files = cluster_files("tests/corpus/daos");
    let is_named = |path: &PathBuf, start: &str, is_passing: bool| {
        let name = path.file_stem().unwrap().to_str().unwrap();
        name.starts_with(start) && name.ends_with("-ok") == is_passing
    };
    let lacks = |code: &String| {
        let start = format!("{}-", code.to_lowercase());
        let fails = files
            .iter()
            .filter(|path| is_named(path, &start, false))
            .any(|path| fs::read_to_string(path).unwrap().contains(&format!(" {code} ")));
        let passes = files
            .iter()
            .filter(|path| is_named(path, &start, true))
            .any(|path| fs::read_to_string(path).unwrap().starts_with("# expect: nothing\n"));
        !(fails && passes)
    };
    let codes = codes_of_the_rules();
    let lacking: Vec<&String> = codes.iter().filter(|code| lacks(code)).collect();
    assert!(codes.len() > 60 && lacking.is_empty(), "of {}: {lacking:?}", codes.len());
}

#[test]
fn the_bases_of_the_corpus_and_the_examples_have_no_errors() {
    for (name, expected) in [
        ("tests/corpus/daos/base/lab.toml", vec![]),
        ("tests/corpus/daos/base/metal.toml", vec![]),
        ("examples/lab3.toml", vec!["warning NF505 17:11", "warning NF526 28:87"]),
        (
            "examples/titan.toml",
            vec!["warning DAOS-714 85:14", "warning NF505 os-alma89.toml:3:11"],
        ),
    ] {
        let path = folder(name);
        let (cluster, sources, problems) = check(&path);
        let found: Vec<String> =
            problems.iter().map(|problem| expectation(&path, &sources, problem)).collect();
        assert!(cluster.is_some(), "{name}: {problems:#?}");
        assert_eq!(found, expected, "{name}: {problems:#?}");
    }
}

/// A cluster file of this repository without its problems.
fn cluster(name: &str) -> Cluster {
    check(&folder(name)).0.unwrap()
}

/// The first kind with `role`, and its first node.
fn kind_with<'a>(cluster: &'a Cluster, role: &'a str) -> (&'a Kind, &'a nodeforge::cluster::Node) {
    let node = cluster.nodes_with_role(role).next().unwrap();
    (cluster.kind_of(node), node)
}

/// What PyYAML, a YAML 1.1 reader that is not ours, makes of each text. Duplicate keys fail.
fn read_by_pyyaml(texts: &[String]) -> Vec<Value> {
    let script = r#"
import json, sys, yaml
class Strict(yaml.SafeLoader):
    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"duplicate key among {keys}"
        return super().construct_mapping(node, deep)
json.dump([yaml.load(text, Strict) for text in json.load(sys.stdin)], sys.stdout)
"#;
    let mut python = crate::support::command("python")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 starts");
    let mut stdin = python.stdin.take().unwrap();
    stdin.write_all(json!(texts).to_string().as_bytes()).unwrap();
    drop(stdin);
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "PyYAML refuses a file");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_server_file_of_lab3_is_as_documented() {
    let cluster = cluster("examples/lab3.toml");
    let (kind, node) = kind_with(&cluster, "server");
    let yaml = daos::server_yaml(&cluster, kind, node);
    assert_eq!(
        yaml,
        r#"# daos_server.yml of lab3, for DAOS 2.6.0. Made by nodeforge; change the cluster file instead.
name: daos_server
access_points:
- node0
control_metadata:
  path: /var/lib/daos
port: 10001
transport_config:
  allow_insecure: true
provider: ofi+tcp;ofi_rxm
system_ram_reserved: 1
control_log_file: /var/log/daos/daos_server.log
helper_log_file: /var/log/daos/daos_server_helper.log
telemetry_port: 9191
engines:
- targets: 1
  nr_xs_helpers: 0
  first_core: 0
  fabric_iface: enp0s8
  fabric_iface_port: 31416
  log_file: /var/log/daos/daos_engine.0.log
  storage:
  - class: ram
    scm_mount: /mnt/daos_scm
    scm_size: 4
  - class: file
    bdev_list:
    - /var/daos/bdev0
    bdev_size: 16
    bdev_roles:
    - wal
    - meta
    - data
"#
    );
}

#[test]
fn agent_and_control_files_of_lab3_agree_with_the_server_file() {
    let cluster = cluster("examples/lab3.toml");
    let agent = daos::agent_yaml(&cluster, kind_with(&cluster, "client").0);
    let control = daos::control_yaml(&cluster);
    assert_eq!(
        read_by_pyyaml(&[agent, control]),
        [
            json!({
                "name": "daos_server", "access_points": ["node0"], "port": 10001,
                "transport_config": {"allow_insecure": true},
                "log_file": "/var/log/daos/daos_agent.log",
                "fabric_ifaces": [
                    {"numa_node": 0, "devices": [{"iface": "enp0s8", "domain": "enp0s8"}]}
                ],
            }),
            json!({
                "name": "daos_server", "port": 10001, "hostlist": ["node0", "node1"],
                "transport_config": {"allow_insecure": true},
            }),
        ]
    );
}

#[test]
fn a_client_has_the_nics_of_each_numa_node_with_their_domains() {
    let cluster = cluster("tests/corpus/daos/base/metal.toml");
    let agent = daos::config::agent_config(&cluster, kind_with(&cluster, "client").0);
    assert_eq!(
        serde_json::to_value(&agent.fabric_ifaces).unwrap(),
        json!([
            {"numa_node": 0, "devices": [{"iface": "fab0", "domain": "mlx5_0"}]},
            {"numa_node": 1, "devices": [{"iface": "fab1", "domain": "mlx5_1"}]},
        ])
    );
}

#[test]
fn an_auto_size_is_what_memory_allows_in_whole_gib() {
    let cluster = cluster("examples/titan.toml");
    let (kind, node) = kind_with(&cluster, "server");
    let config = daos::config::server_config(&cluster, kind, node);
    let sizes: Vec<Option<u64>> =
        config.engines.iter().map(|engine| engine.storage[0].scm_size).collect();
    // MemTotal 1006.2 GiB - 26 GiB of hugepages - 16 GiB reserved - 2 × 1.5 GiB, halved.
    assert_eq!(sizes, [Some(480), Some(480)]);
}

#[test]
fn only_the_fault_path_differs_between_nodes_of_a_kind() {
    let mut cluster = cluster("examples/lab3.toml");
    let at = cluster.nodes_with_role("server").next().unwrap().kind;
    let shared = daos::ServerYaml::of_kind(&cluster, &cluster.kinds[at]);
    let without = shared.for_node(&cluster.nodes[0]);
    cluster.nodes[0].fault_path = Some("/r01/node0".into());
    let with = shared.for_node(&cluster.nodes[0]);
    let line = "fault_path: /r01/node0\n";
    assert_eq!(with.matches(line).count(), 1);
    assert_eq!(with.replace(line, ""), without);
    let whole = daos::config::server_config(&cluster, &cluster.kinds[at], &cluster.nodes[0]);
    assert_eq!(read_by_pyyaml(&[with]), [serde_json::to_value(&whole).unwrap()]);
}

#[test]
fn strings_that_look_like_something_else_stay_strings() {
    let mut cluster = cluster("examples/titan.toml");
    let at = cluster.nodes_with_role("server").next().unwrap().kind;
    let span = cluster.top;
    let text = |text: &str| Sited { value: text.to_owned(), span };
    let engine = &mut cluster.kinds[at].engines[0];
    engine.bdevs[0].list.value =
        ["0000:17:00.0", "0000:5e:00.0", "0000:01:00.0", "10000:81:00.0"].map(text).into();
    engine.env =
        ["yes", "1e3", "0x10", "012", "1:30", "null", "~", "2001-01-01", "a: b", "#x", "a #b", ""]
            .map(text)
            .into();
    let names =
        ["yes", "on", "n", "0777", "1_000", "1.5", ".inf", "=", "<<", "- x", "12:30:45", "0b1"];
    let (mut files, mut configs) = (Vec::new(), Vec::new());
    for name in names {
        cluster.daos.system_name = text(name);
        cluster.nodes[0].fault_path = Some(format!("/{name}"));
        let (kind, node) = (&cluster.kinds[at], &cluster.nodes[0]);
        files.push(daos::server_yaml(&cluster, kind, node));
        let config = daos::config::server_config(&cluster, kind, node);
        configs.push(serde_json::to_value(&config).unwrap());
    }
    assert_eq!(read_by_pyyaml(&files), configs, "from:\n{}", files[0]);
}

/// What holds an engine's metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Storage {
    /// Class ram, with its metadata on SSD: every bdev tier has roles.
    MetadataOnSsd,
    /// Class dcpm.
    Pmem,
    /// Class ram and nothing that lasts.
    Ephemeral,
}

/// A cluster of the matrix, as a cluster file over base/metal.toml.
#[derive(Debug)]
struct Combination {
    storage: Storage,
    bdev: &'static str,
    /// Of block devices with Metadata-on-SSD, else with the scm tier.
    n_tiers: usize,
    n_engines: usize,
    provider: &'static str,
    security: &'static str,
    version: &'static str,
}

impl Combination {
    /// Three classes of storage × three of block devices × one to three tiers × one or two
    /// engines × three providers × insecure or certificates × three versions.
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for storage in [Storage::MetadataOnSsd, Storage::Pmem, Storage::Ephemeral] {
            for (bdev, n_tiers) in ["nvme", "file", "kdev"]
                .into_iter()
                .flat_map(|bdev| [1, 2, 3].map(|n_tiers| (bdev, n_tiers)))
                // Without block devices their class makes no difference.
                .filter(|(bdev, n)| storage == Storage::MetadataOnSsd || *n > 1 || *bdev == "nvme")
            {
                for provider in ["ofi+tcp;ofi_rxm", "ofi+verbs;ofi_rxm", "ucx+dc_x"] {
                    for (n_engines, security) in
                        [(1, "insecure"), (1, "certificates"), (2, "insecure"), (2, "certificates")]
                    {
                        for version in VERSIONS {
                            all.push(Self {
                                storage,
                                bdev,
                                n_tiers,
                                n_engines,
                                provider,
                                security,
                                version,
                            });
                        }
                    }
                }
            }
        }
        all
    }

    /// How many tiers of block devices an engine has.
    fn n_bdev_tiers(&self) -> usize {
        match self.storage {
            Storage::MetadataOnSsd => self.n_tiers,
            Storage::Pmem | Storage::Ephemeral => self.n_tiers - 1,
        }
    }

    /// Without roles DAOS takes one tier of block devices and refuses a second (315).
    fn is_refused(&self) -> bool {
        self.storage != Storage::MetadataOnSsd && self.n_bdev_tiers() > 1
    }

    fn cluster_file(&self) -> String {
        let base = folder("tests/corpus/daos/base/metal.toml");
        let engines: String = (0..self.n_engines).map(|at| self.engine(at)).collect();
        format!(
            "format = 1\ninclude = [\"{}\"]\n[daos]\nversion = \"{}\"\nprovider = \"{}\"\n\
             security = \"{}\"\n\n[hw.r760]\ninstall_disk = {{ bus = \"sata\", min = \"200GiB\" }}\n{engines}",
            base.display(),
            self.version,
            self.provider,
            self.security
        )
    }

    fn engine(&self, at: usize) -> String {
        let roles: &[&str] = match self.n_bdev_tiers() {
            0 => &[],
            1 => &[r#""wal", "meta", "data""#],
            2 => &[r#""wal""#, r#""data", "meta""#],
            _ => &[r#""wal""#, r#""meta""#, r#""data""#],
        };
        let tiers = roles.iter().enumerate().map(|(tier, roles)| {
            let (device, size) = match self.bdev {
                "nvme" => (format!("0000:{:02x}:00.0", 0x17 + 16 * at + tier), ""),
                "file" => (format!("/var/daos/engine{at}-{tier}"), ", size = \"4GiB\""),
                _ => (format!("/dev/disk/by-id/e{at}t{tier}"), ""),
            };
            let roles = match self.storage {
                Storage::MetadataOnSsd => format!(", roles = [{roles}]"),
                Storage::Pmem | Storage::Ephemeral => String::new(),
            };
            let class = self.bdev;
            format!("  {{ class = \"{class}\", list = [\"{device}\"]{size}{roles} }},\n")
        });
        let scm = match self.storage {
            Storage::Pmem => format!("class = \"dcpm\", list = [\"/dev/pmem{at}\"]"),
            Storage::MetadataOnSsd | Storage::Ephemeral => {
                "class = \"ram\", size = \"auto\"".to_owned()
            }
        };
        format!(
            "[[role.server.engine]]\nnuma = {at}\nfabric = \"fab{at}\"\ntargets = 4\n\
             scm = {{ {scm} }}\nbdev = [\n{}]\n",
            tiers.collect::<String>()
        )
    }
}

const VERSIONS: [&str; 3] = ["2.6.0", "2.6.5", "2.8.0"];

/// The keys of the three files by DAOS's documentation for the version (`utils/config/` and
/// the types that read them at its tag): `!` marks those without which a server of the matrix
/// does not start.
fn schema(version: &str) -> Value {
    let path = folder("tests/corpus/daos/keys").join(format!("{version}.json"));
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// What is wrong with `value` by `schema`, each with its path.
fn faults(value: &Value, schema: &Value, path: &str) -> Vec<String> {
    match (schema, value) {
        (Value::Object(keys), Value::Object(found)) => {
            let known = |key: &str| keys.get(key).or_else(|| keys.get(&format!("{key}!")));
            let unknown = found.keys().filter(|key| known(key).is_none());
            let unknown = unknown.map(|key| format!("{path}.{key} is unknown"));
            let needed = keys.keys().filter_map(|key| key.strip_suffix('!'));
            let missing = needed.filter(|key| !found.contains_key(*key));
            let missing = missing.map(|key| format!("{path}.{key} is missing"));
            let inside = found.iter().filter_map(|(key, value)| {
                Some(faults(value, known(key)?, &format!("{path}.{key}")))
            });
            unknown.chain(missing).chain(inside.flatten()).collect()
        }
        (Value::Array(of), Value::Array(found)) if !found.is_empty() => {
            found.iter().flat_map(|value| faults(value, &of[0], &format!("{path}[]"))).collect()
        }
        (Value::String(kind), value) => {
            let is_right = match kind.as_str() {
                "text" => value.is_string(),
                "int" => value.is_u64(),
                _ => value.is_boolean(),
            };
            (!is_right).then(|| format!("{path} is {value}, not {kind}")).into_iter().collect()
        }
        _ => vec![format!("{path} is {value}, against {schema}")],
    }
}

#[test]
fn every_combination_gives_files_that_parse_strictly_and_agree() {
    let (refused, combinations): (Vec<Combination>, Vec<Combination>) =
        Combination::all().into_iter().partition(Combination::is_refused);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cluster.toml");
    let problems_of = |combination: &Combination| {
        fs::write(&path, combination.cluster_file()).unwrap();
        let (cluster, _, problems) = check(&path);
        let codes: BTreeSet<String> =
            problems.iter().map(|problem| problem.code.to_string()).collect();
        (cluster, codes.into_iter().collect::<Vec<_>>())
    };
    for combination in &refused {
        assert_eq!(problems_of(combination).1, ["DAOS-315"], "of {combination:?}");
    }
    let mut texts = Vec::new();
    for combination in &combinations {
        let (cluster, codes) = problems_of(combination);
        assert_eq!(codes, [""; 0], "from\n{}", combination.cluster_file());
        let cluster = cluster.unwrap();
        let (kind, node) = kind_with(&cluster, "server");
        texts.push(daos::server_yaml(&cluster, kind, node));
        texts.push(daos::agent_yaml(&cluster, kind_with(&cluster, "client").0));
        texts.push(daos::control_yaml(&cluster));
    }
    let files = read_by_pyyaml(&texts);
    assert_eq!(files.len(), (9 + 4 + 4) * 3 * 4 * 3 * 3);
    assert_eq!(refused.len(), (3 + 3) * 3 * 4 * 3);
    let schemas = VERSIONS.map(schema);
    for ((combination, files), texts) in
        combinations.iter().zip(files.chunks(3)).zip(texts.chunks(3))
    {
        let [server, agent, control] = files else { panic!("three files each") };
        let at = VERSIONS.iter().position(|version| *version == combination.version).unwrap();
        for (name, file) in
            [("daos_server.yml", server), ("daos_agent.yml", agent), ("daos_control.yml", control)]
        {
            let found = faults(file, &schemas[at][name], name);
            assert!(found.is_empty(), "{found:?} in\n{}", texts.join("\n"));
        }
        assert_agree(combination, server, agent, control);
        assert_tiers(combination, server);
    }
}

/// Each class of storage has its keys and none of the others'.
fn assert_tiers(combination: &Combination, server: &Value) {
    let has_roles = combination.storage == Storage::MetadataOnSsd;
    assert_eq!(server.get("control_metadata").is_some(), has_roles, "{combination:?}");
    for engine in server["engines"].as_array().unwrap() {
        let (scm, bdevs) = engine["storage"].as_array().unwrap().split_first().unwrap();
        let keys = |tier: &Value| tier.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        match combination.storage {
            Storage::Pmem => assert_eq!(keys(scm), ["class", "scm_list", "scm_mount"]),
            _ => assert_eq!(keys(scm), ["class", "scm_mount", "scm_size"]),
        }
        assert_eq!(scm["class"], if combination.storage == Storage::Pmem { "dcpm" } else { "ram" });
        let mut expected = vec!["bdev_list", "bdev_roles", "bdev_size", "class"];
        expected.retain(|key| match *key {
            "bdev_roles" => has_roles,
            "bdev_size" => combination.bdev == "file",
            _ => true,
        });
        let mut roles: Vec<&str> = Vec::new();
        for bdev in bdevs {
            assert_eq!(keys(bdev), expected, "{combination:?}");
            assert_eq!(bdev["class"], combination.bdev);
            let of_tier = bdev.get("bdev_roles").and_then(Value::as_array);
            roles.extend(of_tier.into_iter().flatten().map(|role| role.as_str().unwrap()));
        }
        roles.sort();
        let all: &[&str] = if has_roles { &["data", "meta", "wal"] } else { &[] };
        assert_eq!(roles, all, "each role on one tier: {combination:?}");
    }
}

#[test]
fn the_schema_of_the_matrix_finds_unknown_missing_and_mistyped_keys() {
    let file = json!({
        "name": "daos_server", "port": "10001", "hostlist": ["node0"], "host_list": [],
        "transport_config": {},
    });
    assert_eq!(
        faults(&file, &schema("2.6.0")["daos_control.yml"], "control"),
        [
            "control.host_list is unknown",
            "control.port is \"10001\", not int",
            "control.transport_config.allow_insecure is missing",
        ]
    );
}

fn assert_agree(combination: &Combination, server: &Value, agent: &Value, control: &Value) {
    let points = ["srv1", "srv2", "srv3"];
    let replicas =
        if combination.version == "2.8.0" { "mgmt_svc_replicas" } else { "access_points" };
    assert_eq!(server[replicas], json!(points));
    assert_eq!(agent["access_points"], json!(points));
    assert_eq!(control["hostlist"], json!(["srv1", "srv2", "srv3", "srv4", "srv5", "srv6"]));
    let is_insecure = combination.security == "insecure";
    for file in [server, agent, control] {
        assert_eq!(file["name"], "daos_server");
        assert_eq!(file["port"], 10001);
        assert_eq!(file["transport_config"]["allow_insecure"], is_insecure);
        assert_eq!(file["transport_config"].get("key").is_none(), is_insecure);
        assert_eq!(
            file["transport_config"].get("ca_cert"),
            server["transport_config"].get("ca_cert")
        );
    }
    assert_eq!(server["provider"], combination.provider);
    let engines = server["engines"].as_array().unwrap();
    assert_eq!(engines.len(), combination.n_engines);
    let devices = |numa: usize| &agent["fabric_ifaces"][numa]["devices"][0];
    for (numa, engine) in engines.iter().enumerate() {
        let n_tiers = engine["storage"].as_array().unwrap().len();
        assert_eq!(n_tiers, 1 + combination.n_bdev_tiers());
        assert_eq!(engine["pinned_numa_node"], numa);
        assert_eq!(agent["fabric_ifaces"][numa]["numa_node"], numa);
        assert_eq!(engine["fabric_iface"], devices(numa)["iface"]);
        assert_eq!(devices(numa)["domain"], format!("mlx5_{numa}"));
    }
}

#[test]
fn the_plan_of_titan_shows_the_arithmetic() {
    let text = daos::sizing::size(&cluster("examples/titan.toml")).to_string();
    let of_kind = |nodes: &str, n_nodes: usize, n_data: usize| {
        format!(
            "{nodes} ({n_nodes} nodes, hw r760)
  MemTotal    1006.2 GiB (estimated: 1024 GiB of memory less 17.7 GiB for the kernel and crashkernel)
  hugepages   13312 of 2 MiB = 26 GiB
  reserved    16 GiB system + 2 × 1.5 GiB engine
  scm         at most 480.6 GiB an engine
  left        20.2 GiB beside hugepages and full RAM disks
  cores       34 of 64
  engine 0    NUMA 0, fab0 port 31316, 12 targets + 3 helpers on 17 cores; scm 480 GiB; 1 nvme for wal+meta; 3 nvme for data
  engine 1    NUMA 1, fab1 port 31416, 12 targets + 3 helpers on 17 cores; scm 480 GiB; 1 nvme for wal+meta; {n_data} nvme for data
"
        )
    };
    let expected = format!(
        "DAOS 2.6.0, access points srv001, srv129, srv257, srv385, srv512
formatted by adm1

{}
{}
cluster: 512 servers, 1024 engines, 12288 targets, 480 TiB of RAM disks, 4092 SSDs
",
        of_kind("srv[001-016,021-512]", 508, 3),
        of_kind("srv[017-020]", 4, 2)
    );
    assert_eq!(text, expected);
}

#[test]
fn the_plan_of_lab3_counts_its_files() {
    let text = daos::sizing::size(&cluster("examples/lab3.toml")).to_string();
    let last = text.lines().last().unwrap();
    assert_eq!(
        last,
        "cluster: 2 servers, 2 engines, 2 targets, 8 GiB of RAM disks, 32 GiB in files"
    );
}

/// The cluster of base/metal.toml with `more` above it.
fn metal_with(more: &str) -> Cluster {
    let folder_of_file = tempfile::tempdir().unwrap();
    let path = folder_of_file.path().join("cluster.toml");
    let base = folder("tests/corpus/daos/base/metal.toml");
    fs::write(&path, format!("format = 1\ninclude = [\"{}\"]\n{more}", base.display())).unwrap();
    let (cluster, _, problems) = check(&path);
    let errors: Vec<&Diagnostic> = problems.iter().filter(|problem| problem.is_error()).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    cluster.unwrap()
}

/// `what: old -> new (nodes)` for each immutable value that differs.
fn changes(old: &Cluster, new: &Cluster) -> Vec<String> {
    let told = |value: &Option<Value>| value.as_ref().map_or("nothing".into(), Value::to_string);
    let changes = daos::immutable::changes(old, new);
    let line = |change: &daos::immutable::Change| {
        let nodes = nodeforge::range::fold(&change.nodes);
        format!("{}: {} -> {} ({nodes})", change.what, told(&change.old), told(&change.new))
    };
    changes.iter().map(line).collect()
}

#[test]
fn what_format_fixes_is_told_with_the_nodes_it_changes_on() {
    let old = metal_with("");
    let engines = |targets: u32, numa1: &str| {
        let engine = |numa: u32, from: &str| {
            format!(
                "[[role.server.engine]]\nnuma = {numa}\nfabric = \"fab{numa}\"\ntargets = {targets}\n\
                 scm = {{ class = \"ram\", size = \"auto\" }}\n\
                 bdev = [{{ class = \"nvme\", {from}, wal_meta = 1 }}]\n"
            )
        };
        engine(0, "from = \"nvme.numa0\"") + &engine(1, numa1)
    };
    for (more, expected) in [
        (String::new(), vec![]),
        // What may change: the log, the provider, the version.
        (
            "[daos]\nversion = \"2.8.0\"\ncontrol_log_mask = \"DEBUG\"\nprovider = \"ucx+dc_x\"\n"
                .into(),
            vec![],
        ),
        (
            "[daos]\naccess_points = [\"srv2\", \"srv1\", \"srv3\"]\nsystem_name = \"daos2\"\n"
                .into(),
            vec![
                r#"access_points: ["srv1","srv2","srv3"] -> ["srv2","srv1","srv3"] (srv[1-6])"#,
                r#"name: "daos_server" -> "daos2" (srv[1-6])"#,
            ],
        ),
        (
            engines(12, "from = \"nvme.numa1\""),
            vec![
                "engines[0].nr_xs_helpers: 4 -> 3 (srv[1-6])",
                "engines[0].targets: 16 -> 12 (srv[1-6])",
                "engines[1].nr_xs_helpers: 4 -> 3 (srv[1-6])",
                "engines[1].targets: 16 -> 12 (srv[1-6])",
            ],
        ),
        (
            "[node.srv4]\nnvme.numa1 = [\"0000:c1:00.0\", \"0000:c9:00.0\"]\n".into(),
            vec![
                r#"engines[1].storage[2].bdev_list: ["0000:c2:00.0","0000:c3:00.0","0000:c4:00.0","0000:c5:00.0"] -> ["0000:c9:00.0"] (srv4)"#,
            ],
        ),
        (
            "[daos]\nfault_path = \"/{name}\"\n[node.srv4]\nserial = \"X\"\n".into(),
            vec![
                r#"fault_path: "/r1/srv1" -> "/srv1" (srv1)"#,
                r#"fault_path: "/r1/srv2" -> "/srv2" (srv2)"#,
                r#"fault_path: "/r1/srv3" -> "/srv3" (srv3)"#,
                r#"fault_path: "/r2/srv4" -> "/srv4" (srv4)"#,
                r#"fault_path: "/r2/srv5" -> "/srv5" (srv5)"#,
                r#"fault_path: "/r2/srv6" -> "/srv6" (srv6)"#,
            ],
        ),
        (
            "[daos]\ncontrol_metadata.path = \"/srv/daos\"\n".into(),
            vec![r#"control_metadata.path: "/var/lib/daos" -> "/srv/daos" (srv[1-6])"#],
        ),
    ] {
        assert_eq!(changes(&old, &metal_with(&more)), expected, "of {more}");
    }
}

/// What the example is kept for, and that it builds all the same where the file says so.
#[test]
fn the_cluster_as_blogged_builds_where_its_errors_are_allowed() {
    let scratch = crate::support::scratch();
    let text = fs::read_to_string(folder("examples/lab3-as-blogged.toml")).unwrap();
    let (head, rest) = text.split_once("\nformat = 1\n").unwrap();
    let allowed = format!("{head}\nformat = 1\nallow = [\"DAOS-214\", \"DAOS-706\"]\n{rest}");
    crate::support::write(scratch.path(), "cluster.toml", allowed);
    let output = std::process::Command::new(crate::examples::nodeforge())
        .args(["build", "cluster.toml", "-o", "out"])
        .current_dir(scratch.path())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    let heads = |start: &str| said.lines().filter(|line| line.starts_with(start)).count();
    assert_eq!((heads("allowed[DAOS-706]"), heads("allowed[DAOS-214]"), heads("error")), (1, 1, 0));
    for expected in [
        "warning[NF505]: AlmaLinux 8.9 is not on the support matrix of DAOS 2.6.0",
        "warning[NF520]: /var/tmp/daos-bdev lies where files are swept after 30 days",
        "warning[NF525]: FI_SOCKETS_MAX_CONN_RETRY has no effect with `ofi+tcp;ofi_rxm`",
        "warning[NF525]: FI_SOCKETS_CONN_TIMEOUT has no effect with `ofi+tcp;ofi_rxm`",
        "warning[NF526]: the signatures of DAOS's packages are not checked",
        "1024 hugepages of 2 MiB = 2 GiB, + 16 GiB system_ram_reserved, + 1 engine × (1 GiB reserve + 4 GiB scm) = 23 GiB",
    ] {
        assert!(said.contains(expected), "{expected:?} is missing: {said}");
    }
    let manifest = fs::read_to_string(scratch.path().join("out/current/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(manifest["allowed"], json!(["DAOS-214", "DAOS-706"]));
}

/// A default that a rule works out is shown as what the node gets.
#[test]
fn why_shows_the_value_of_a_default_and_what_a_list_of_ssds_is() {
    let why = |file: &str, node: &str, key: &str| {
        let printed = crate::examples::printed(&folder("."), &["why", file, node, key]);
        printed.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    for (key, value) in [
        ("daos.system_ram_reserved", "\"16GiB\""),
        ("daos.nr_hugepages", "13312"),
        ("daos.system_name", "\"daos_server\""),
        ("daos.port", "10001"),
        ("daos.repo.baseurl", "\"https://packages.daos.io/v2.6.0/EL8/packages/x86_64/\""),
        (
            "mem_total",
            "1006.2 GiB (estimated: 1024 GiB of memory less 17.7 GiB for the kernel and crashkernel)",
        ),
        ("hw.disk_boot", "\"exit\""),
        ("nic.fab0.boot", "false"),
    ] {
        let lines = why("examples/titan.toml", "srv001", key);
        assert_eq!(
            lines[..2],
            [format!("{key} = {value}"), "  by default; nothing sets it".into()]
        );
    }
    let lines = why("examples/titan.toml", "srv001", "nvme.numa0");
    assert_eq!(lines.last().unwrap(), "  Data SSDs by PCI address, in lists that engines name.");
}
