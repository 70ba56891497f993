//! The kickstart: judged by ksvalidator and shellcheck, and its scripts run for real, section
//! by section, on made-up machines.

mod disks;
mod golden;
mod judges;
pub mod machine;
mod overlay;
mod target;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use nodeforge::render::kickstart::{
    self, DAOSMETA, DEFAULT_LOG_MIB, DEFAULT_META_MIB, DEFAULT_ROOT_MIB, DiskRule, Firewall,
    KeptFilesystem, KickstartContext, Network, OverlaySource, Repo, SecretsSource, Selinux,
};
use nodeforge::render::template::{Templates, Values};

fn profiles(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn templates(name: &str) -> (Templates, String) {
    let texts: BTreeMap<&str, String> = kickstart::FILES.map(|file| (file, profiles(file))).into();
    let mut templates = Templates::new();
    let template = kickstart::template(name, |file| texts.get(file).map(String::as_str));
    templates.add(name, &template.own).unwrap();
    (templates, template.scripts)
}

fn rendered(context: &KickstartContext) -> String {
    rendered_as(kickstart::TEMPLATE, context)
}

fn rendered_as(name: &str, context: &KickstartContext) -> String {
    let (templates, scripts) = templates(name);
    kickstart::render(&templates, name, &scripts, &Values::of(context)).unwrap()
}

/// The bodies of the sections that begin with `opening`, in order.
pub fn sections(kickstart: &str, opening: &str) -> Vec<String> {
    let mut bodies = Vec::new();
    let mut body: Option<String> = None;
    for line in kickstart.lines() {
        match &mut body {
            None if line.starts_with(opening) => body = Some(String::new()),
            None => {}
            Some(_) if line == "%end" => bodies.extend(body.take()),
            Some(text) => *text += &format!("{line}\n"),
        }
    }
    bodies
}

/// All that runs before anaconda looks at disks.
pub fn pre(kickstart: &str) -> String {
    sections(kickstart, "%pre ").concat()
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// A client that needs nothing from the network.
fn client() -> KickstartContext {
    KickstartContext {
        node: "cli1".into(),
        boot_url: "http://127.0.0.1:1".into(),
        overlay: OverlaySource::Http,
        secrets: SecretsSource::None,
        layers: words("common client"),
        overlay_sha256: "0".repeat(64),
        embedded: Vec::new(),
        url: "https://vault.almalinux.org/8.9/BaseOS/x86_64/kickstart/".into(),
        proxy: None,
        repos: vec![
            Repo {
                name: "appstream".into(),
                baseurl: "https://vault.almalinux.org/8.9/AppStream/x86_64/kickstart/".into(),
                cost: None,
                exclude: Vec::new(),
            },
            Repo {
                name: "mlnx_ofed".into(),
                baseurl: "http://10.20.0.2:8080/repos/mlnx_ofed-5.8/rhel8.9/x86_64/".into(),
                cost: Some(900),
                exclude: words("rdma-core* opensm*"),
            },
        ],
        disabled_modules: words("pmdk"),
        packages: words("@^minimal-environment chrony daos-client"),
        excluded_packages: words("iwl7260-firmware cockpit"),
        services: words("chronyd sshd"),
        lang: "en_US.UTF-8".into(),
        keymap: "us".into(),
        timezone: "Asia/Shanghai".into(),
        ntp_servers: words("192.168.3.1 192.168.3.2"),
        network: Network {
            device: "bootif".into(),
            ip: "192.168.3.13".into(),
            netmask: "255.255.255.0".into(),
            gateway: Some("192.168.3.1".into()),
            nameservers: words("192.168.3.1 192.168.3.2"),
            mtu: Some(9000),
            hostname: "cli1.lab.local".into(),
        },
        root_hash: None,
        ssh_keys: vec!["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 it's #1 \"admin\"@lab".into()],
        selinux: Selinux::Disabled,
        firewall: Firewall::Disabled,
        kernel_args: words("intel_iommu=on console=ttyS0,115200"),
        install_disk: DiskRule::default(),
        meta_disk: None,
        data_pci: words("0000:5e:00.0 0000:5f:00.0"),
        data_devices: Vec::new(),
        root_mib: DEFAULT_ROOT_MIB,
        log_mib: DEFAULT_LOG_MIB,
        kept: Vec::new(),
        tmpfiles: "/usr/lib/tmpfiles.d/nodeforge.conf".into(),
        setperms: words("daos-server daos-client"),
    }
}

/// A server with DAOS's metadata on its install disk.
fn server() -> KickstartContext {
    KickstartContext {
        node: "srv1".into(),
        layers: words("common server"),
        packages: words("@^minimal-environment chrony daos-server"),
        kept: vec![KeptFilesystem {
            label: DAOSMETA,
            size_mib: DEFAULT_META_MIB,
            mount: "/var/lib/daos".into(),
        }],
        ..client()
    }
}
