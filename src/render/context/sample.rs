//! A context with everything in it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::render::context::*;

/// All roots of all three scopes; every list has an element, every option a value.
///
/// A name that is not in here (but below `vars`, which is the site's) can never be in a
/// context: templates are checked against it without any cluster.
pub fn sample() -> Value {
    let mut roots = serde_json::Map::new();
    let contexts = [
        serde_json::to_value(sample_cluster()),
        serde_json::to_value(sample_kind()),
        serde_json::to_value(sample_node()),
    ];
    for context in contexts {
        let context = context.expect("contexts hold nothing that JSON cannot say");
        roots.extend(context.as_object().cloned().expect("a struct is an object"));
    }
    Value::Object(roots)
}

fn sample_cluster() -> ClusterContext {
    ClusterContext {
        cluster: ClusterValues {
            name: "lab3".into(),
            domain: "lab.local".into(),
            timezone: "Asia/Shanghai".into(),
            ntp: vec!["192.168.3.1".into()],
            vars: BTreeMap::new(),
        },
        boot: BootValues { url: "http://192.168.3.1:8080".into() },
        daos: DaosValues {
            version: "2.6.0".into(),
            repo: sample_repo("daos"),
            system_name: "daos_server".into(),
            provider: "ofi+tcp;ofi_rxm".into(),
            transport: "tcp".into(),
            access_points: vec!["node0".into()],
            port: 10001,
            security: "certificates".into(),
            telemetry_port: Some(9191),
            agent_telemetry_port: Some(9192),
            format_by: Some("node0".into()),
            control_yaml: "name: daos_server\n".into(),
            format_json: "{\"system\": \"daos_server\"}\n".into(),
        },
        net: BTreeMap::from([(
            "mgmt".to_owned(),
            NetValues {
                subnet: "192.168.3.0/24".into(),
                gateway: Some("192.168.3.1".into()),
                dns: vec!["192.168.3.1".into()],
                kind: "ethernet".into(),
            },
        )]),
        repos: vec![sample_repo("mlnx_ofed")],
        hosts: vec![HostValues {
            address: "192.168.3.11".into(),
            names: "node0.lab.local node0".into(),
        }],
        roles: ["admin", "client", "server"].map(|role| (role.into(), vec!["node0".into()])).into(),
    }
}

fn sample_repo(id: &str) -> RepoValues {
    RepoValues {
        id: id.into(),
        title: id.into(),
        baseurl: format!("http://192.168.3.1:8080/repos/{id}/"),
        gpgcheck: 1,
        gpgkey: format!("http://192.168.3.1:8080/repos/{id}.key"),
        module_hotfixes: true,
        priority: Some(90),
        exclude: "rdma-core* libibverbs*".into(),
    }
}

fn sample_kind() -> KindContext {
    KindContext {
        os: OsValues {
            release: "8.9".into(),
            mirror: "https://vault.almalinux.org/8.9".into(),
            selinux: "enforcing".into(),
            firewall: "enabled".into(),
            locale: "en_US.UTF-8".into(),
            keyboard: "us".into(),
            epel: true,
            ssh_keys: vec!["ssh-ed25519 AAAA admin@lab".into()],
            kernel_args: vec!["intel_iommu=on".into()],
            modules: vec!["vfio-pci".into()],
            sysctl: vec![SysctlValues { key: "vm.swappiness".into(), value: "1".into() }],
            ports: vec![PortValues { port: "10001".into(), protocol: "tcp".into() }],
            repos: vec![sample_repo("baseos")],
            powertools: sample_repo("powertools"),
            epel_repo: sample_repo("epel"),
        },
        hw: HwValues {
            name: "vm".into(),
            firmware: "bios".into(),
            cpu: "intel".into(),
            sockets: 1,
            cores: Some(4),
            console: Some("ttyS0,115200".into()),
        },
        kind: KindValues {
            roles: vec!["server".into()],
            run_as: "root".into(),
            runs_as_packaged: false,
            control_metadata: Some("/var/lib/daos".into()),
            mounts: "/var/daos /var/lib/daos".into(),
            server_logs: vec!["/var/log/daos/daos_server.log".into()],
            agent_logs: vec!["/var/log/daos/daos_agent.log".into()],
            tmpfiles: vec![TmpfilesLine {
                action: "d".into(),
                path: "/var/log/daos".into(),
                mode: "0755".into(),
                user: "root".into(),
                group: "root".into(),
            }],
            agent_yaml: Some("name: daos_server\n".into()),
            plan_json: "{}\n".into(),
        },
        engines: vec![EngineValues {
            index: 0,
            interface: "lan0".into(),
            port: 31416,
            targets: 1,
            helpers: 0,
            numa: Some(0),
            scm_mount: "/mnt/daos0".into(),
            log_file: "/var/log/daos/daos_engine.0.log".into(),
        }],
        vars: BTreeMap::new(),
    }
}

fn sample_node() -> NodeContext {
    NodeContext {
        node: NodeValues {
            name: "node0".into(),
            fqdn: "node0.lab.local".into(),
            address: Some("192.168.3.11".into()),
            rack: Some("r01".into()),
            serial: Some("7CXK1234".into()),
            formats: true,
            connections: vec![ConnectionValues {
                key: "mgmt".into(),
                id: "lan0".into(),
                uuid: connection_uuid("lab3", "node0", "mgmt"),
                kind: "ethernet".into(),
                priority: 100,
                mac: Some("52:54:00:03:00:11".into()),
                mtu: Some(9000),
                transport_mode: Some("datagram".into()),
                vlan: Some(VlanValues { id: 100, parent: "lan0".into() }),
                bond: Some(BondValues { mode: "802.3ad".into() }),
                master: Some("bond0".into()),
                ipv4: Some(Ipv4Values {
                    address: "192.168.3.11/24".into(),
                    gateway: Some("192.168.3.1".into()),
                    dns: "192.168.3.1;".into(),
                    dns_search: "lab.local;".into(),
                }),
                without_address: true,
            }],
            links: vec![LinkValues {
                name: "lan0".into(),
                mac: Some("52:54:00:03:00:11".into()),
                path: Some("pci-0000:17:00.0".into()),
            }],
            server_yaml: Some("name: daos_server\n".into()),
            plan_json: "{}\n".into(),
        },
    }
}
