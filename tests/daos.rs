//! The DAOS model: the rendered files.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

use nodeforge::cluster::*;
use nodeforge::daos;
use nodeforge::diag::{SourceMap, Span};
use nodeforge::range::NodeName;
use nodeforge::units::ByteSize;

fn span() -> Span {
    Span::new(SourceMap::default().add("cluster.toml".into(), String::new()), 0..0)
}

fn at<T>(value: T) -> Sited<T> {
    Sited { value, span: span() }
}

fn text(text: &str) -> Sited<String> {
    at(text.to_owned())
}

fn daos(provider: &str, access_points: &[&str]) -> Daos {
    Daos {
        version: text("2.6.0"),
        repo: Repo {
            id: "daos".into(),
            baseurl: text("https://packages.daos.io/v2.6.0/EL8/packages/x86_64"),
            gpgcheck: at(false),
            gpgkey: vec![],
            module_hotfixes: true,
            priority: None,
            exclude: vec![],
        },
        system_name: text("daos_server"),
        provider: text(provider),
        access_points: at(access_points.iter().map(|name| at(NodeName::new(*name))).collect()),
        port: at(10001),
        security: at(Security::Insecure),
        certificates: None,
        system_ram_reserved: at(ByteSize::from_gib(1)),
        telemetry_port: Some(at(9191)),
        fault_path: None,
        format_by: Some(at(NodeName::new("node0"))),
        control_metadata: ControlMetadata {
            path: text("/var/lib/daos"),
            size: at(ByteSize::from_gib(8)),
        },
        control_log_mask: None,
        nr_hugepages: None,
        disable_hugepages: at(false),
        disable_vfio: at(false),
        disable_vmd: at(false),
        enable_hotplug: at(false),
        disable_srx: at(false),
        crt_timeout: None,
        core_dump_filter: None,
        client_env: vec![],
        agent: Agent {
            telemetry_port: None,
            disable_caching: at(false),
            cache_expiration: None,
            log_mask: None,
        },
        span: span(),
    }
}

fn nic(key: &str, name: &str, net: &str) -> Nic {
    Nic {
        key: key.into(),
        name: text(name),
        net: Some(text(net)),
        is_boot: key == "mgmt",
        pci: None,
        domain: None,
        numa: None,
        mtu: None,
        link: Link::Ethernet,
        span: span(),
    }
}

fn kind(roles: &[&str], nics: Vec<Nic>, engines: Vec<Engine>) -> Kind {
    Kind {
        hw: Hw {
            name: text("vm"),
            firmware: Firmware::Bios,
            cpu: CpuVendor::Intel,
            memory: at(ByteSize::from_gib(12)),
            mem_total: None,
            sockets: 1,
            cores: Some(at(4)),
            install_disk: DiskRule {
                by_path: None,
                by_id: None,
                serial: None,
                wwn: None,
                bus: Some("virtio".into()),
                min: Some(ByteSize::from_gib(40)),
                max: None,
                span: span(),
            },
            nics,
            nvme: BTreeMap::new(),
            console: None,
            bmc: None,
            disk_boot: DiskBoot::Sanboot,
            vm: Some(Vm { disk: ByteSize::from_gib(40), has_iommu: false }),
        },
        roles: roles.iter().map(|role| text(role)).collect(),
        os: Os {
            release: text("8.10"),
            mirror: text("http://mirror"),
            tree: Tree::Kickstart,
            selinux: Selinux::Disabled,
            firewall: Firewall::Disabled,
            epel: true,
            epel_url: String::new(),
            locale: String::new(),
            keyboard: String::new(),
            root_password: None,
            ssh_keys: vec![],
            kernel_args: BTreeSet::from(["transparent_hugepage=never".to_owned()]),
            packages: BTreeMap::new(),
            services: BTreeSet::new(),
            ports: BTreeSet::new(),
            sysctl: BTreeSet::new(),
            modules: BTreeSet::new(),
        },
        run_as: Some(text("root")),
        engines,
        own_overlays: vec![],
        vars: BTreeMap::new(),
        ranges: vec!["node0".into()],
        span: span(),
        n_nodes: 1,
    }
}

fn scm(size: ScmSize) -> Scm {
    Scm {
        class: at(ScmClass::Ram),
        size: Some(at(size)),
        mount: text("/mnt/daos{n}"),
        list: vec![],
        hugepages_disabled: false,
        span: span(),
    }
}

fn bdev(class: BdevClass, list: &[&str], roles: &[BdevRole]) -> Bdev {
    Bdev {
        class: at(class),
        list: at(list.iter().map(|device| text(device)).collect()),
        size: (class == BdevClass::File).then(|| at(ByteSize::from_gib(16))),
        roles: roles.iter().map(|role| at(*role)).collect(),
        busid_range: None,
        span: span(),
    }
}

fn engine(fabric_nic: usize, port: u32, targets: u32, bdevs: Vec<Bdev>) -> Engine {
    Engine {
        targets: at(targets),
        helpers: at(targets / 4),
        first_core: None,
        numa: None,
        fabric: text("mgmt"),
        fabric_nic,
        port: at(port),
        scm: scm(ScmSize::Fixed(ByteSize::from_gib(4))),
        bdevs,
        log_mask: None,
        log_file: text("/var/log/daos/daos_engine.{n}.log"),
        env: vec![],
        env_pass_through: vec![],
        span: span(),
    }
}

fn node(name: &str, kind: usize) -> Node {
    Node {
        name: NodeName::new(name),
        kind,
        rack: None,
        nics: vec![NodeNic::default(); 3],
        serial: None,
        bmc_ip: None,
        fault_path: None,
        span: span(),
    }
}

fn cluster(daos: Daos, kinds: Vec<Kind>, nodes: Vec<Node>) -> Cluster {
    Cluster {
        name: "lab3".into(),
        domain: "lab.local".into(),
        timezone: "UTC".into(),
        ntp: vec![],
        boot: Boot {
            url: text("http://192.168.3.1"),
            overlay: at(OverlayVia::Http),
            secrets: at(SecretsVia::Token),
        },
        daos,
        nets: BTreeMap::new(),
        repos: BTreeMap::new(),
        kinds,
        nodes,
        racks: BTreeMap::new(),
        allow: vec![],
        vars: BTreeMap::new(),
        top: span(),
    }
}

/// The cluster of examples/lab3.toml, as far as DAOS's files go.
fn lab3() -> Cluster {
    use BdevRole::{Data, Meta, Wal};
    let mgmt = || vec![nic("mgmt", "enp0s8", "mgmt")];
    let mut engine =
        engine(0, 31416, 1, vec![bdev(BdevClass::File, &["/var/daos/bdev0"], &[Meta, Wal, Data])]);
    engine.scm.mount = text("/mnt/daos_scm");
    engine.first_core = Some(at(0));
    let kinds = vec![
        kind(&["admin", "server"], mgmt(), vec![engine.clone()]),
        kind(&["server"], mgmt(), vec![engine]),
        kind(&["client"], mgmt(), vec![]),
    ];
    let nodes = vec![node("node0", 0), node("node1", 1), node("node2", 2)];
    cluster(daos("ofi+tcp;ofi_rxm", &["node0"]), kinds, nodes)
}

/// What a YAML 1.1 reader that is not ours makes of `yaml`.
fn read_by_pyyaml(yaml: &str) -> serde_json::Value {
    let script = "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)";
    let mut python = Command::new("python3")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 starts");
    python.stdin.take().unwrap().write_all(yaml.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "PyYAML refuses:\n{yaml}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_server_file_of_lab3_is_as_documented() {
    let cluster = lab3();
    let yaml = daos::server_yaml(&cluster, &cluster.kinds[0], &cluster.nodes[0]);
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
fn agent_and_control_files_agree_with_the_server_file() {
    let cluster = lab3();
    let agent = daos::agent_yaml(&cluster, &cluster.kinds[2]);
    let control = daos::control_yaml(&cluster);
    assert_eq!(
        read_by_pyyaml(&agent),
        serde_json::json!({
            "name": "daos_server", "access_points": ["node0"], "port": 10001,
            "transport_config": {"allow_insecure": true},
            "log_file": "/var/log/daos/daos_agent.log",
            "fabric_ifaces": [
                {"numa_node": 0, "devices": [{"iface": "enp0s8", "domain": "enp0s8"}]}
            ],
        })
    );
    assert_eq!(
        read_by_pyyaml(&control),
        serde_json::json!({
            "name": "daos_server", "port": 10001, "hostlist": ["node0", "node1"],
            "transport_config": {"allow_insecure": true},
        })
    );
}

#[test]
fn only_the_fault_path_differs_between_nodes_of_a_kind() {
    let mut cluster = lab3();
    let shared = daos::ServerYaml::of_kind(&cluster, &cluster.kinds[0]);
    let without = shared.for_node(&cluster.nodes[0]);
    cluster.nodes[0].fault_path = Some("/r01/node0".into());
    let with = shared.for_node(&cluster.nodes[0]);
    let line = "fault_path: /r01/node0\n";
    assert_eq!(with.matches(line).count(), 1);
    assert_eq!(with.replace(line, ""), without);
    let whole = daos::config::server_config(&cluster, &cluster.kinds[0], &cluster.nodes[0]);
    let whole = serde_json::to_value(&whole).unwrap();
    assert_eq!(read_by_pyyaml(&with), whole);
}

#[test]
fn strings_that_look_like_something_else_stay_strings() {
    let mut cluster = lab3();
    let kind = &mut cluster.kinds[0];
    kind.engines[0].bdevs = vec![bdev(
        BdevClass::Nvme,
        &["0000:17:00.0", "0000:5e:00.0", "0000:01:00.0", "10000:81:00.0"],
        &[],
    )];
    kind.engines[0].env =
        ["yes", "1e3", "0x10", "012", "1:30", "null", "~", "2001-01-01", "a: b", "#x", "a #b", ""]
            .map(text)
            .into();
    for name in
        ["yes", "on", "n", "0777", "1_000", "1.5", ".inf", "=", "<<", "- x", "12:30:45", "0b1"]
    {
        cluster.daos.system_name = text(name);
        cluster.nodes[0].fault_path = Some(format!("/{name}"));
        let (kind, node) = (&cluster.kinds[0], &cluster.nodes[0]);
        let config = serde_json::to_value(daos::config::server_config(&cluster, kind, node));
        let yaml = daos::server_yaml(&cluster, kind, node);
        assert_eq!(read_by_pyyaml(&yaml), config.unwrap(), "from:\n{yaml}");
    }
}
