//! How the contexts follow from the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::Value;

use crate::cluster::{
    BdevClass, Cluster, CpuVendor, Daos, Engine, Firewall, Firmware, Kind, Link, Net, NetKind, Nic,
    Node, NodeNic, Os, Repo, Security, Selinux, Sited, Tree, VarValue,
};
use crate::daos::{self, FormatPlan};
use crate::render::context::*;
use crate::render::node_plan::KindPlan;
use crate::render::node_plan::NodePlan;

/// The list of owners and modes by name, on the node: applied after the packages, at every
/// boot by systemd-tmpfiles-setup, and again by firstboot.
pub const TMPFILES: &str = "usr/lib/tmpfiles.d/nodeforge.conf";

/// The kernel arguments the node should have, on the node, one a line: firstboot's grubby
/// step reads it.
pub const KERNEL_ARGS_FILE: &str = "etc/nodeforge/kernel-args";

/// Where DAOS keeps what it logs, made by us: its packages bring no such folder, and
/// without it no daemon starts.
const LOG_DIR: &str = "/var/log/daos";

/// The user and group of daos_server's package.
const SERVER_USER: &str = "daos_server";

/// The user and group of daos_agent's package.
const AGENT_USER: &str = "daos_agent";

/// The keys of AlmaLinux 8: the one that almalinux-release installs, and the one that
/// signs since January 2024 and that almalinux-release of 8.9's release tree lacks.
const ALMALINUX_KEYS: &str = "file:///etc/pki/rpm-gpg/RPM-GPG-KEY-AlmaLinux \
     https://repo.almalinux.org/almalinux/RPM-GPG-KEY-AlmaLinux-8";

/// EPEL's key by URL: the file under /etc/pki comes only with epel-release.
const EPEL_KEY: &str = "https://dl.fedoraproject.org/pub/epel/RPM-GPG-KEY-EPEL-8";

impl ClusterContext {
    /// What all nodes of `cluster` share; `control_yaml` is the text of daos_control.yml.
    pub fn of(cluster: &Cluster, control_yaml: String) -> Self {
        Self {
            cluster: ClusterValues {
                name: cluster.name.clone(),
                domain: cluster.domain.clone(),
                timezone: cluster.timezone.clone(),
                ntp: cluster.ntp.clone(),
                vars: vars(&cluster.vars),
            },
            boot: BootValues { url: cluster.boot.url.value.clone() },
            daos: daos_values(&cluster.daos, control_yaml, FormatPlan::of(cluster).to_json()),
            net: cluster.nets.iter().map(|(name, net)| (name.clone(), net_values(net))).collect(),
            repos: cluster.repos.values().map(repo_values).collect(),
            hosts: hosts(cluster, |_| true),
            roles: roles(cluster),
        }
    }
}

impl KindContext {
    /// What the nodes of `kind` share; `owners` are the lines for files of their overlays
    /// that are not root's (see [`owner_lines`](crate::render::overlay::Renderer::owner_lines)).
    pub fn of(cluster: &Cluster, kind: &Kind, owners: Vec<TmpfilesLine>) -> Self {
        let mut site_vars = vars(&cluster.vars);
        site_vars.extend(vars(&kind.vars));
        Self {
            os: os_values(cluster, kind),
            hw: HwValues {
                name: kind.hw.name.value.clone(),
                firmware: match kind.hw.firmware {
                    Firmware::Bios => "bios".into(),
                    Firmware::Uefi => "uefi".into(),
                },
                cpu: match kind.hw.cpu {
                    CpuVendor::Intel => "intel".into(),
                    CpuVendor::Amd => "amd".into(),
                },
                sockets: kind.hw.sockets,
                cores: kind.hw.cores.as_ref().map(|cores| cores.value),
                console: kind.hw.console.clone(),
            },
            kind: kind_values(cluster, kind, owners),
            engines: kind
                .engines
                .iter()
                .enumerate()
                .map(|(index, engine)| engine_values(kind, index, engine))
                .collect(),
            vars: site_vars,
        }
    }
}

impl NodeContext {
    /// What is `node`'s own; `server_yaml` is the text of its daos_server.yml.
    pub fn of(cluster: &Cluster, node: &Node, server_yaml: Option<String>) -> Self {
        let kind = cluster.kind_of(node);
        let name = node.name.as_str();
        let format_by = cluster.daos.format_by.as_ref();
        Self {
            node: NodeValues {
                name: name.to_owned(),
                fqdn: fqdn(name, &cluster.domain),
                address: cluster.primary_address(node).map(|address| address.to_string()),
                rack: node.rack.clone(),
                serial: node.serial.clone(),
                formats: format_by.is_some_and(|admin| admin.value == node.name),
                connections: connections(cluster, kind, node),
                links: links(kind, node),
                server_yaml,
                plan_json: NodePlan::of(cluster, node, fqdn(name, &cluster.domain)).to_json(),
            },
        }
    }
}

fn vars(vars: &BTreeMap<String, Sited<VarValue>>) -> BTreeMap<String, Value> {
    let json = |value: &VarValue| match value {
        VarValue::Text(text) => Value::from(text.clone()),
        VarValue::Integer(number) => Value::from(*number),
        VarValue::Bool(value) => Value::from(*value),
    };
    vars.iter().map(|(name, value)| (name.clone(), json(&value.value))).collect()
}

fn daos_values(daos: &Daos, control_yaml: String, format_json: String) -> DaosValues {
    DaosValues {
        version: daos.version.value.clone(),
        repo: RepoValues {
            title: format!("DAOS {}", daos.version.value),
            ..repo_values(&daos.repo)
        },
        system_name: daos.system_name.value.clone(),
        provider: daos.provider.value.clone(),
        transport: transport(&daos.provider.value).to_owned(),
        access_points: daos.access_points.iter().map(|name| name.value.as_str().into()).collect(),
        port: daos.port.value,
        security: match daos.security.value {
            Security::Insecure => "insecure".into(),
            Security::Certificates => "certificates".into(),
        },
        telemetry_port: daos.telemetry_port.as_ref().map(|port| port.value),
        agent_telemetry_port: daos.agent.telemetry_port.as_ref().map(|port| port.value),
        format_by: daos.format_by.as_ref().map(|admin| admin.value.as_str().into()),
        control_yaml,
        format_json,
    }
}

/// `tcp` of `ofi+tcp;ofi_rxm`.
fn transport(provider: &str) -> &str {
    let transport = provider.split_once('+').map_or(provider, |(_, transport)| transport);
    transport.split(';').next().unwrap_or(transport)
}

fn net_values(net: &Net) -> NetValues {
    NetValues {
        subnet: net.subnet.value.to_string(),
        gateway: net.gateway.as_ref().map(|gateway| gateway.value.to_string()),
        dns: net.dns.iter().map(Ipv4Addr::to_string).collect(),
        kind: match net.kind {
            NetKind::Ethernet => "ethernet".into(),
            NetKind::Infiniband => "infiniband".into(),
        },
    }
}

fn repo_values(repo: &Repo) -> RepoValues {
    RepoValues {
        id: repo.id.clone(),
        title: repo.id.clone(),
        baseurl: repo.baseurl.value.clone(),
        gpgcheck: repo.gpgcheck.value.into(),
        gpgkey: repo.gpgkey.join(" "),
        module_hotfixes: repo.module_hotfixes,
        priority: repo.priority,
        exclude: repo.exclude.join(" "),
    }
}

/// The hosts of the nodes that `is_wanted`: a node's name stands for its primary address,
/// `NAME-KEY` for each further one.
pub fn hosts(cluster: &Cluster, is_wanted: impl Fn(&Node) -> bool) -> Vec<HostValues> {
    let mut lines: Vec<(Ipv4Addr, String)> = Vec::new();
    for node in cluster.nodes.iter().filter(|node| is_wanted(node)) {
        let kind = cluster.kind_of(node);
        let primary = kind.primary_nic();
        for (index, (nic, node_nic)) in kind.hw.nics.iter().zip(&node.nics).enumerate() {
            let Some(address) = node_nic.ip else { continue };
            let name = match primary == Some(index) {
                true => node.name.as_str().to_owned(),
                false => format!("{}-{}", node.name.as_str(), host_part(&nic.key)),
            };
            lines.push((address, name));
        }
    }
    lines.sort();
    let names = |name: String| match cluster.domain.as_str() {
        "" => name,
        domain => format!("{name}.{domain} {name}"),
    };
    let line = |(address, name): (Ipv4Addr, String)| HostValues {
        address: address.to_string(),
        names: names(name),
    };
    lines.into_iter().map(line).collect()
}

/// A NIC's key as part of a host name (RFC 1123 §2.1 knows no underscores).
fn host_part(key: &str) -> String {
    key.to_ascii_lowercase().replace(['_', '.'], "-")
}

fn fqdn(name: &str, domain: &str) -> String {
    match domain {
        "" => name.to_owned(),
        domain => format!("{name}.{domain}"),
    }
}

fn roles(cluster: &Cluster) -> BTreeMap<String, Vec<String>> {
    let built_in = ["admin", "server", "client"].map(|role| (role.to_owned(), Vec::new()));
    let mut roles = BTreeMap::from(built_in);
    for node in &cluster.nodes {
        for role in &cluster.kind_of(node).roles {
            roles.entry(role.value.clone()).or_default().push(node.name.as_str().to_owned());
        }
    }
    roles
}

fn os_values(cluster: &Cluster, kind: &Kind) -> OsValues {
    let os = &kind.os;
    OsValues {
        release: os.release.value.clone(),
        mirror: os.mirror.value.clone(),
        selinux: match os.selinux {
            Selinux::Disabled => "disabled".into(),
            Selinux::Permissive => "permissive".into(),
            Selinux::Enforcing => "enforcing".into(),
        },
        firewall: match os.firewall {
            Firewall::Disabled => "disabled".into(),
            Firewall::Enabled => "enabled".into(),
        },
        locale: os.locale.clone(),
        keyboard: os.keyboard.clone(),
        epel: os.epel,
        ssh_keys: os.ssh_keys.iter().map(|key| key.value.clone()).collect(),
        kernel_args: os.kernel_args.iter().cloned().collect(),
        modules: modules(cluster, kind),
        sysctl: sysctl(kind),
        ports: open_ports(cluster, kind).iter().map(|port| port_values(port)).collect(),
        repos: ["BaseOS", "AppStream", "extras"].map(|name| almalinux_repo(os, name)).into(),
        powertools: almalinux_repo(os, "PowerTools"),
        epel_repo: RepoValues {
            id: "epel".into(),
            title: "Extra Packages for Enterprise Linux 8".into(),
            baseurl: os.epel_url.clone(),
            gpgcheck: 1,
            gpgkey: EPEL_KEY.into(),
            module_hotfixes: false,
            priority: None,
            exclude: String::new(),
        },
    }
}

/// One of AlmaLinux's repositories below the mirror. `extras` has no tree of the release as
/// shipped.
fn almalinux_repo(os: &Os, name: &str) -> RepoValues {
    let tree = match (os.tree, name) {
        (Tree::Kickstart, "BaseOS" | "AppStream" | "PowerTools") => "kickstart",
        _ => "os",
    };
    RepoValues {
        id: name.to_ascii_lowercase(),
        title: format!("AlmaLinux {} - {name}", os.release.value),
        baseurl: format!("{}/{name}/x86_64/{tree}/", os.mirror.value.trim_end_matches('/')),
        gpgcheck: 1,
        gpgkey: ALMALINUX_KEYS.into(),
        module_hotfixes: false,
        priority: None,
        exclude: String::new(),
    }
}

/// The modules of the profiles, and vfio-pci where engines drive SSDs themselves: DAOS 2.6
/// hands them to it (`disable_vfio: false`), and a module that is there at boot cannot be
/// missing later for want of its kernel's packages.
fn modules(cluster: &Cluster, kind: &Kind) -> Vec<String> {
    let mut modules = kind.os.modules.clone();
    if kind.uses_bdev_class(BdevClass::Nvme) && !cluster.daos.disable_vfio.value {
        modules.insert("vfio-pci".into());
    }
    modules.into_iter().collect()
}

/// The settings of the profiles over those that several NICs need; sorted by key.
fn sysctl(kind: &Kind) -> Vec<SysctlValues> {
    let mut settings = several_nics_sysctl(kind);
    for setting in &kind.os.sysctl {
        let (key, value) = setting.split_once('=').unwrap_or((setting, ""));
        settings.insert(key.trim().to_owned(), value.trim().to_owned());
    }
    settings.into_iter().map(|(key, value)| SysctlValues { key, value }).collect()
}

/// DAOS's admin guide, "Network Deployment", for hosts with several NICs: otherwise the
/// kernel answers ARP for one NIC's address on another, and drops what comes back.
fn several_nics_sysctl(kind: &Kind) -> BTreeMap<String, String> {
    let networked: Vec<&Nic> = kind.hw.nics.iter().filter(|nic| nic.net.is_some()).collect();
    if networked.len() < 2 {
        return BTreeMap::new();
    }
    let nets: BTreeSet<&str> =
        networked.iter().filter_map(|nic| nic.net.as_ref()).map(|net| net.value.as_str()).collect();
    let arp_ignore = if nets.len() < networked.len() { "2" } else { "1" };
    let mut settings = BTreeMap::from([
        ("net.ipv4.conf.all.accept_local".to_owned(), "1".to_owned()),
        ("net.ipv4.conf.all.arp_ignore".to_owned(), arp_ignore.to_owned()),
    ]);
    // Slashes, as sysctl.d(5) wants where an interface name holds a dot.
    let rp_filter =
        |nic: &&Nic| (format!("net/ipv4/conf/{}/rp_filter", nic.name.value), "2".into());
    settings.extend(networked.iter().map(rp_filter));
    settings
}

/// What an enabled firewall must let in beside ssh, such as `10001/tcp` or `31416-31421/tcp`:
/// for the kickstart's `firewall` line and for firewalld's zone alike.
///
/// An engine listens on its port and, with TCP fabrics, on further ones: one for each
/// target and helper and two for itself. RDMA does not pass the firewall.
pub fn open_ports(cluster: &Cluster, kind: &Kind) -> BTreeSet<String> {
    let daos = &cluster.daos;
    let mut ports = kind.os.ports.clone();
    if kind.is_server() {
        ports.insert(format!("{}/tcp", daos.port.value));
        ports.extend(daos.telemetry_port.as_ref().map(|port| format!("{}/tcp", port.value)));
        if matches!(transport(&daos.provider.value), "tcp" | "sockets") {
            ports.extend(kind.engines.iter().map(|engine| {
                let first = engine.port.value;
                let last = first + engine.targets.value + engine.helpers.value + 2;
                format!("{first}-{last}/tcp")
            }));
        }
    }
    if kind.is_client() {
        ports.extend(daos.agent.telemetry_port.as_ref().map(|port| format!("{}/tcp", port.value)));
    }
    ports
}

fn port_values(port: &str) -> PortValues {
    let (port, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    PortValues { port: port.to_owned(), protocol: protocol.to_owned() }
}

fn kind_values(cluster: &Cluster, kind: &Kind, owners: Vec<TmpfilesLine>) -> KindValues {
    let run_as = kind.run_as.as_ref().map_or(SERVER_USER, |user| user.value.as_str());
    let mut tmpfiles = folders(cluster, kind, run_as);
    if cluster.daos.security.value == Security::Certificates {
        tmpfiles.extend(certificate_lines(kind, run_as));
    }
    tmpfiles.extend(owners);
    // As systemd-tmpfiles goes about it: what makes a path, then what adjusts it.
    let adjusts = |line: &TmpfilesLine| matches!(line.action.as_str(), "z" | "Z");
    tmpfiles.sort_by(|a, b| (&a.path, adjusts(a)).cmp(&(&b.path, adjusts(b))));
    let control_metadata =
        kind.has_control_metadata().then(|| cluster.daos.control_metadata.path.value.clone());
    let logs = |names: &[&str]| names.iter().map(|name| format!("{LOG_DIR}/{name}")).collect();
    KindValues {
        roles: kind.roles.iter().map(|role| role.value.clone()).collect(),
        run_as: run_as.to_owned(),
        runs_as_packaged: run_as == SERVER_USER,
        mounts: kept_folders(cluster, kind).into_iter().collect::<Vec<_>>().join(" "),
        control_metadata,
        server_logs: match kind.is_server() {
            true => logs(&["daos_server.log", "daos_server_helper.log"]),
            false => Vec::new(),
        },
        agent_logs: if kind.is_client() { logs(&["daos_agent.log"]) } else { Vec::new() },
        tmpfiles,
        agent_yaml: kind.is_client().then(|| daos::agent_yaml(cluster, kind)),
        plan_json: KindPlan::of(cluster, kind, run_as).to_json(),
    }
}

/// The folders that outlive a reinstall: control_metadata and those of file bdevs.
fn kept_folders(cluster: &Cluster, kind: &Kind) -> BTreeSet<String> {
    let mut folders = BTreeSet::new();
    if kind.has_control_metadata() {
        folders.insert(cluster.daos.control_metadata.path.value.clone());
    }
    let files = kind.engines.iter().flat_map(|engine| &engine.bdevs);
    for bdev in files.filter(|bdev| bdev.class.value == BdevClass::File) {
        folders.extend(bdev.list.iter().filter_map(|file| parent(&file.value)));
    }
    folders
}

fn parent(path: &str) -> Option<String> {
    path.rsplit_once('/').map(|(parent, _)| parent.to_owned()).filter(|parent| !parent.is_empty())
}

fn folders(cluster: &Cluster, kind: &Kind, run_as: &str) -> Vec<TmpfilesLine> {
    let mut lines = Vec::new();
    if kind.is_server() {
        lines.extend(log_folders(kind).iter().map(|folder| line("d", folder, "0755", run_as)));
        let mounts = kind.engines.iter().map(|engine| &engine.scm.mount.value);
        lines.extend(mounts.map(|mount| line("d", mount, "0755", run_as)));
        for folder in kept_folders(cluster, kind) {
            lines.push(line("d", &folder, "0755", run_as));
            // A reinstalled node kept the files, and its packages may have made their users
            // with other numbers.
            lines.push(line("Z", &folder, "-", run_as));
        }
    }
    if kind.is_client() {
        match kind.is_server() {
            // The server owns the folder: the agent gets its file made for it.
            true => lines.push(line("f", &format!("{LOG_DIR}/daos_agent.log"), "0644", AGENT_USER)),
            false => lines.push(line("d", LOG_DIR, "0755", AGENT_USER)),
        }
    }
    lines
}

/// Owners and modes of the certificates a node of `kind` holds, as DAOS's loader demands
/// them: keys 0400 and the daemon's own (`src/control/security/pem.go` of 2.6.0).
///
/// The bundle of secrets comes root:root like every archive; these lines finish it.
pub fn certificate_lines(kind: &Kind, run_as: &str) -> Vec<TmpfilesLine> {
    let file = |name: &str, mode: &str, user: &str| {
        line("z", &format!("/etc/daos/certs/{name}"), mode, user)
    };
    let mut lines = vec![file("daosCA.crt", "0644", "root")];
    if kind.is_server() {
        lines.extend([
            file("server.crt", "0644", run_as),
            file("server.key", "0400", run_as),
            line("d", "/etc/daos/certs/clients", "0700", run_as),
            line("Z", "/etc/daos/certs/clients", "-", run_as),
        ]);
    }
    if kind.is_client() {
        lines
            .extend([file("agent.crt", "0644", AGENT_USER), file("agent.key", "0400", AGENT_USER)]);
    }
    if kind.is_admin() {
        lines.extend([file("admin.crt", "0644", "root"), file("admin.key", "0400", "root")]);
    }
    lines
}

fn line(action: &str, path: &str, mode: &str, user: &str) -> TmpfilesLine {
    let [action, path, mode, user] = [action, path, mode, user].map(str::to_owned);
    TmpfilesLine { action, path, mode, group: user.clone(), user }
}

/// The folder of the daemons' logs and those of the engines' logs.
fn log_folders(kind: &Kind) -> BTreeSet<String> {
    let mut folders = BTreeSet::from([LOG_DIR.to_owned()]);
    folders.extend(kind.engines.iter().filter_map(|engine| parent(&engine.log_file.value)));
    folders
}

fn engine_values(kind: &Kind, index: usize, engine: &Engine) -> EngineValues {
    EngineValues {
        index,
        interface: kind.hw.nics[engine.fabric_nic].name.value.clone(),
        port: engine.port.value,
        targets: engine.targets.value,
        helpers: engine.helpers.value,
        numa: engine.numa.as_ref().map(|numa| numa.value),
        scm_mount: engine.scm.mount.value.clone(),
        log_file: engine.log_file.value.clone(),
    }
}

/// A profile for every NIC with an address, and for those that others are made of.
fn connections(cluster: &Cluster, kind: &Kind, node: &Node) -> Vec<ConnectionValues> {
    let nics = &kind.hw.nics;
    let has_address = |nic: &Nic| {
        nics.iter().zip(&node.nics).any(|(other, own)| other.key == nic.key && own.ip.is_some())
    };
    let carries = |below: &Nic| {
        nics.iter().any(|above| match &above.link {
            Link::Vlan { of, .. } => *of == below.key && has_address(above),
            Link::Bond { members, .. } => members.contains(&below.key),
            _ => false,
        })
    };
    let connect = |(nic, own): (&Nic, &NodeNic)| connection(cluster, kind, node, nic, own);
    nics.iter()
        .zip(&node.nics)
        .filter(|(nic, own)| own.ip.is_some() || carries(nic))
        .map(connect)
        .collect()
}

fn connection(
    cluster: &Cluster,
    kind: &Kind,
    node: &Node,
    nic: &Nic,
    own: &NodeNic,
) -> ConnectionValues {
    let interface_of = |key: &str| {
        let nic = kind.hw.nics.iter().find(|nic| nic.key == key);
        nic.map_or_else(|| key.to_owned(), |nic| nic.name.value.clone())
    };
    let bond_over = kind.hw.nics.iter().find(
        |above| matches!(&above.link, Link::Bond { members, .. } if members.contains(&nic.key)),
    );
    let ipv4 = ipv4(cluster, kind, nic, own);
    ConnectionValues {
        key: nic.key.clone(),
        id: nic.name.value.clone(),
        uuid: connection_uuid(&cluster.name, node.name.as_str(), &nic.key),
        kind: match nic.link {
            Link::Ethernet => "ethernet".into(),
            Link::Infiniband => "infiniband".into(),
            Link::Vlan { .. } => "vlan".into(),
            Link::Bond { .. } => "bond".into(),
        },
        priority: 100,
        mac: match nic.link {
            Link::Ethernet => own.mac.map(|mac| mac.to_string()),
            _ => None,
        },
        mtu: nic.mtu,
        // A datagram is one InfiniBand packet: 4092 bytes beside IPoIB's header of 4 at most
        // (kernel Documentation/infiniband/ipoib.rst).
        transport_mode: match (&nic.link, nic.mtu) {
            (Link::Infiniband, Some(4093..)) => Some("connected".into()),
            (Link::Infiniband, _) => Some("datagram".into()),
            _ => None,
        },
        vlan: match &nic.link {
            Link::Vlan { id, of } => Some(VlanValues { id: *id, parent: interface_of(of) }),
            _ => None,
        },
        bond: match &nic.link {
            Link::Bond { mode, .. } => Some(BondValues { mode: mode.clone() }),
            _ => None,
        },
        master: bond_over.map(|bond| bond.name.value.clone()),
        without_address: ipv4.is_none() && bond_over.is_none(),
        ipv4,
    }
}

fn ipv4(cluster: &Cluster, kind: &Kind, nic: &Nic, own: &NodeNic) -> Option<Ipv4Values> {
    let address = own.ip?;
    let net = cluster.nets.get(&nic.net.as_ref()?.value)?;
    let primary = kind.primary_nic().map(|index| &kind.hw.nics[index].key);
    let list = |items: &[String]| items.iter().map(|item| format!("{item};")).collect::<String>();
    let dns: Vec<String> = net.dns.iter().map(Ipv4Addr::to_string).collect();
    Some(Ipv4Values {
        address: format!("{address}/{}", net.subnet.prefix_len()),
        gateway: match primary == Some(&nic.key) {
            true => net.gateway.as_ref().map(|gateway| gateway.value.to_string()),
            false => None,
        },
        dns_search: match cluster.domain.as_str() {
            domain if !domain.is_empty() && !dns.is_empty() => list(&[domain.to_owned()]),
            _ => String::new(),
        },
        dns: list(&dns),
    })
}

/// A .link file for every NIC that is real and can be told apart.
fn links(kind: &Kind, node: &Node) -> Vec<LinkValues> {
    let shares_its_address = |nic: &Nic| {
        kind.hw.nics.iter().any(|above| match &above.link {
            Link::Vlan { of, .. } => *of == nic.key,
            Link::Bond { members, .. } => members.contains(&nic.key),
            _ => false,
        })
    };
    let place = |nic: &Nic| nic.pci.as_ref().map(|pci| format!("pci-{}", pci.value.as_str()));
    let link = |(nic, own): (&Nic, &NodeNic)| {
        let (mac, path) = match (&nic.link, own.mac) {
            (Link::Ethernet, Some(mac)) if shares_its_address(nic) => {
                (Some(mac.to_string()), Some("*".to_owned()))
            }
            (Link::Ethernet, Some(mac)) => (Some(mac.to_string()), None),
            (Link::Ethernet | Link::Infiniband, _) => (None, place(nic)),
            (Link::Vlan { .. } | Link::Bond { .. }, _) => (None, None),
        };
        let is_known = mac.is_some() || path.is_some();
        is_known.then(|| LinkValues { name: nic.name.value.clone(), mac, path })
    };
    kind.hw.nics.iter().zip(&node.nics).filter_map(link).collect()
}

/// The same UUID for the same NIC in every build (RFC 9562 §5.8, version 8: a digest of the
/// names): a profile that keeps its UUID is updated in place, not doubled.
pub fn connection_uuid(cluster: &str, node: &str, nic: &str) -> String {
    let digest =
        digest(&SHA256, format!("nodeforge connection\n{cluster}\n{node}\n{nic}").as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_ref()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
}
