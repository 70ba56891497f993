//! The sections that hold for the whole cluster: boot, daos, net, repo.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use crate::cluster::merge::MergedTable;
use crate::cluster::model::{
    Agent, Boot, Certificates, ControlMetadata, Daos, Net, NetKind, OverlayVia, Repo, RepoArchive,
    SecretsVia, Security, Sited,
};
use crate::cluster::resolve::pools;
use crate::cluster::resolve::reader::Reader;
use crate::cluster::text::TextKind;
use crate::daos::versions;
use crate::diag::{Diagnostic, Span, codes};
use crate::net::Ipv4Net;
use crate::range::NodeName;
use crate::toml_doc::Item;
use crate::tree::TreePath;
use crate::units::{ByteSize, Seconds};

pub fn boot(reader: &mut Reader, table: &MergedTable<'_>) -> Boot {
    let url = reader.text(table, "url", TextKind::Url);
    let mut url = reader.or(url, table, "http://boot.invalid".to_owned());
    while url.value.ends_with('/') {
        url.value.pop();
    }
    let overlay = reader.word(
        table,
        "overlay",
        &[
            ("http", OverlayVia::Http),
            ("media", OverlayVia::Media),
            ("embedded", OverlayVia::Embedded),
        ],
    );
    let secrets = reader.word(
        table,
        "secrets",
        &[
            ("token", SecretsVia::Token),
            ("media", SecretsVia::Media),
            ("embedded", SecretsVia::Embedded),
        ],
    );
    Boot {
        url,
        overlay: reader.or(overlay, table, OverlayVia::Http),
        secrets: reader.or(secrets, table, SecretsVia::Token),
    }
}

/// What the sections are read against.
pub struct Origin<'a> {
    pub boot_url: &'a str,
    /// The folder of the file that says what is at the place.
    pub folder: &'a dyn Fn(Span) -> PathBuf,
}

/// `[daos]`, except for what depends on the nodes: `format_by` is what the file says.
pub fn daos(reader: &mut Reader, table: &MergedTable<'_>, origin: &Origin<'_>) -> Daos {
    let word = TextKind::Word;
    let version = reader.text(table, "version", word);
    let version = reader.or(version, table, "2.6.0".to_owned());
    let security = reader.word(
        table,
        "security",
        &[("insecure", Security::Insecure), ("certificates", Security::Certificates)],
    );
    let certificates = table.table("certificates").and_then(|certificates| {
        let dir = reader.text(certificates, "dir", TextKind::DiskName)?;
        let dir = Sited { value: (origin.folder)(dir.span).join(&dir.value), span: dir.span };
        Some(Certificates {
            dir,
            days: reader.number(certificates, "days").map_or(1095, |days| days.value),
        })
    });
    let names = reader.hosts(table, "access_points");
    let access_points = Sited {
        value: names,
        span: table.item("access_points").map_or(table.span, |item| item.span),
    };
    let provider = reader.text(table, "provider", word);
    let system_name = reader.text(table, "system_name", word);
    let ram = reader.size(table, "system_ram_reserved");
    let release = versions::find_or_oldest(&version);
    let port = reader.number(table, "port");
    Daos {
        repo: daos_repo(reader, table, &version, origin),
        system_name: reader.or(system_name, table, "daos_server".to_owned()),
        provider: reader.or(provider, table, "ofi+tcp;ofi_rxm".to_owned()),
        access_points,
        port: reader.or(port, table, 10001),
        security: reader.or(security, table, Security::Certificates),
        certificates,
        system_ram_reserved: reader.or(ram, table, release.system_ram_reserved),
        telemetry_port: reader.number(table, "telemetry_port"),
        fault_path: fault_path(reader, table),
        format_by: reader
            .text(table, "format_by", TextKind::HostOrAddress)
            .map(|name| Sited { value: NodeName::new(name.value), span: name.span }),
        format_deadline: {
            let item = table.item("format_deadline");
            let deadline = item.and_then(|item| {
                Some(Sited { value: item.text()?.parse().ok()?, span: item.span })
            });
            reader.or(deadline, table, Seconds::from_hours(24))
        },
        pools: pools::pools(reader, table),
        control_metadata: control_metadata(reader, table),
        control_log_mask: reader.text(table, "control_log_mask", TextKind::LogMask),
        nr_hugepages: reader.number(table, "nr_hugepages"),
        disable_hugepages: reader.truth(table, "disable_hugepages", false),
        disable_vfio: reader.truth(table, "disable_vfio", false),
        disable_vmd: reader.truth(table, "disable_vmd", false),
        enable_hotplug: reader.truth(table, "enable_hotplug", false),
        disable_srx: reader.truth(table, "disable_srx", false),
        crt_timeout: reader.number(table, "crt_timeout"),
        core_dump_filter: reader.number(table, "core_dump_filter"),
        client_env: reader.texts(table, "client_env", TextKind::Environment),
        agent: agent(reader, table),
        span: table.span,
        version,
    }
}

fn fault_path(reader: &mut Reader, table: &MergedTable<'_>) -> Option<Sited<String>> {
    let item = table.item("fault_path")?;
    let path = Sited { value: item.text()?.to_owned(), span: item.span };
    let plain = path.value.replace(['{', '}'], "");
    if plain.contains(char::is_control) {
        reader.has_gaps = true;
        return None;
    }
    if TextKind::AbsolutePath.fault(&plain).is_some() {
        let message = format!("`fault_path` cannot be \"{}\"", path.value);
        reader.error(
            Diagnostic::error(codes::BAD_VALUE, message)
                .at(path.span)
                .help("write a path of one or two levels like `/{rack}/{name}`"),
        );
        return None;
    }
    Some(path)
}

fn control_metadata(reader: &mut Reader, table: &MergedTable<'_>) -> ControlMetadata {
    let inner = table.table("control_metadata");
    let path = inner.and_then(|inner| reader.text(inner, "path", TextKind::AbsolutePath));
    let size = inner.and_then(|inner| reader.size(inner, "size"));
    ControlMetadata {
        path: reader.or(path, inner.unwrap_or(table), "/var/lib/daos".to_owned()),
        size: reader.or(size, inner.unwrap_or(table), ByteSize::from_gib(8)),
    }
}

fn agent(reader: &mut Reader, table: &MergedTable<'_>) -> Agent {
    let Some(agent) = table.table("agent") else {
        return Agent {
            telemetry_port: None,
            disable_caching: Sited { value: false, span: table.span },
            cache_expiration: None,
            log_mask: None,
        };
    };
    Agent {
        telemetry_port: reader.number(agent, "telemetry_port"),
        disable_caching: reader.truth(agent, "disable_caching", false),
        cache_expiration: reader.number(agent, "cache_expiration"),
        log_mask: reader.text(agent, "log_mask", TextKind::LogMask),
    }
}

/// `daos.repo`, or the project's own repository for the version; its packages come with
/// module_hotfixes, as the pmdk module stream hides DAOS's libpmemobj otherwise.
fn daos_repo(
    reader: &mut Reader,
    table: &MergedTable<'_>,
    version: &Sited<String>,
    origin: &Origin<'_>,
) -> Repo {
    match table.table("repo") {
        Some(repo) => self::repo(reader, "daos", repo, true, origin),
        None => Repo {
            id: "daos".to_owned(),
            baseurl: Sited {
                value: format!("https://packages.daos.io/v{}/EL8/packages/x86_64/", version.value),
                span: version.span,
            },
            archive: None,
            gpgcheck: Sited { value: true, span: version.span },
            gpgkey: vec!["https://packages.daos.io/RPM-GPG-KEY-2023".to_owned()],
            module_hotfixes: true,
            priority: None,
            exclude: Vec::new(),
        },
    }
}

pub fn repos(
    reader: &mut Reader,
    table: &MergedTable<'_>,
    origin: &Origin<'_>,
) -> BTreeMap<String, Repo> {
    let mut repos = BTreeMap::new();
    for (id, inner) in table.tables("repo") {
        let is_id = id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
        let is_ours =
            matches!(id, "daos" | "baseos" | "appstream" | "extras" | "powertools" | "epel");
        if !is_id || is_ours {
            let message = format!("`{id}` cannot be the id of a repository");
            let help = match is_ours {
                true => "nodeforge writes this repository itself; choose another id",
                false => "use letters, digits, `_`, `-` and `.`",
            };
            reader.error(Diagnostic::error(codes::BAD_VALUE, message).at(inner.span).help(help));
            continue;
        }
        repos.insert(id.to_owned(), repo(reader, id, inner, false, origin));
    }
    repos
}

fn repo(
    reader: &mut Reader,
    id: &str,
    table: &MergedTable<'_>,
    hotfixes: bool,
    origin: &Origin<'_>,
) -> Repo {
    let url = reader.text(table, "baseurl", TextKind::Url);
    if let Some(url) = &url {
        check_folder_url(reader, url);
    }
    let archive = archive(reader, table, origin);
    check_one_source(reader, table);
    let baseurl = match &archive {
        Some(archive) => {
            Sited { value: format!("{}/pxe/repos/{id}/", origin.boot_url), span: archive.path.span }
        }
        None => reader.or(url, table, "http://repo.invalid/".to_owned()),
    };
    let gpgcheck = reader.truth(table, "gpgcheck", true);
    let gpgkey = reader.texts(table, "gpgkey", TextKind::Url);
    Repo {
        id: id.to_owned(),
        baseurl,
        archive,
        gpgcheck,
        gpgkey: gpgkey.into_iter().map(|key| key.value).collect(),
        module_hotfixes: reader.truth(table, "module_hotfixes", hotfixes).value,
        priority: reader.number(table, "priority").map(|priority| priority.value),
        exclude: reader
            .texts(table, "exclude", TextKind::Package)
            .into_iter()
            .map(|glob| glob.value)
            .collect(),
    }
}

/// What the build unpacks; whether it is there is for those to say who touch files.
fn archive(
    reader: &mut Reader,
    table: &MergedTable<'_>,
    origin: &Origin<'_>,
) -> Option<RepoArchive> {
    let folder = archive_folder(reader, table);
    let item = table.item("archive")?;
    let text = item.text().filter(|text| !text.contains(char::is_control))?;
    if text.is_empty() || text.contains("://") {
        let message = format!("`archive` cannot be \"{text}\"");
        reader.error(
            Diagnostic::error(codes::BAD_VALUE, message).at(item.span).help(
                "write the path of a file here; what is on a web server already is a `baseurl`",
            ),
        );
        return None;
    }
    let path = Sited { value: (origin.folder)(item.span).join(text), span: item.span };
    Some(RepoArchive { path, folder })
}

fn archive_folder(reader: &mut Reader, table: &MergedTable<'_>) -> Option<String> {
    let item = table.item("folder")?;
    let text = item.text()?;
    if table.item("archive").is_none() {
        reader.error(
            Diagnostic::error(codes::BAD_VALUE, "`folder` without `archive`")
                .at(item.span)
                .help("name the archive that the folder is in, or take `folder` out"),
        );
        return None;
    }
    match TreePath::new(text.trim_end_matches('/')) {
        Ok(path) => Some(path.as_str().to_owned()),
        Err(_) => {
            let message = format!("`folder` cannot be \"{}\"", text.escape_debug());
            reader.error(
                Diagnostic::error(codes::BAD_VALUE, message)
                    .at(item.span)
                    .help("write a path inside the archive, like `RPMS`"),
            );
            None
        }
    }
}

/// A repository has one source, which may come from either of two files.
fn check_one_source(reader: &mut Reader, table: &MergedTable<'_>) {
    match (table.item("baseurl"), table.item("archive")) {
        (None, None) => reader.error(
            Diagnostic::error(codes::MISSING, "neither `baseurl` nor `archive` is given")
                .at(table.span)
                .help("add `baseurl = \"http://…/\"`, or `archive = \"FILE.tgz\"` or `.iso`")
                .note("where the repository's packages are"),
        ),
        (Some(url), Some(archive)) => reader.error(
            Diagnostic::error(codes::GIVEN_TWICE, "`baseurl` and `archive` are both given")
                .at(archive.span)
                .also(url.span, "the URL")
                .help("keep one: what the build unpacks is served from the boot server"),
        ),
        _ => {}
    }
}

/// dnf and the installer want a folder with repodata/, not what vendors ship it in.
fn check_folder_url(reader: &mut Reader, url: &Sited<String>) {
    let path = url.value.trim_end_matches('/').to_ascii_lowercase();
    if ![".iso", ".tgz", ".tar.gz", ".tar", ".zip", ".rpm"].iter().any(|end| path.ends_with(end)) {
        return;
    }
    let file = path.rsplit('/').next().unwrap_or_default();
    let message = format!("`{file}` is one file; a repository is a folder with repodata/");
    reader.error(Diagnostic::error(codes::BAD_URL, message).at(url.span).help(
        "download it and write `archive = \"FILE\"` instead: the build unpacks it for the boot \
         server; or unpack it on a web server and name its folder of packages",
    ));
}

pub fn nets(reader: &mut Reader, table: &MergedTable<'_>) -> BTreeMap<String, Net> {
    let mut nets = BTreeMap::new();
    for (name, inner) in table.tables("net") {
        nets.insert(name.to_owned(), net(reader, name, inner));
    }
    nets
}

fn net(reader: &mut Reader, name: &str, table: &MergedTable<'_>) -> Net {
    // Where it is missing or unreadable, no address is blamed for lying outside.
    let everything = Ipv4Net::new(Ipv4Addr::UNSPECIFIED, 0).expect("0 is a prefix length");
    let subnet = subnet(reader, table).unwrap_or(Sited { value: everything, span: table.span });
    let gateway = table.item("gateway").and_then(|item| reader.address(item.text()?, item.span));
    if let Some(gateway) = gateway.as_ref().filter(|gateway| !subnet.contains(&gateway.value)) {
        let message = format!("the gateway {} lies outside {}", gateway.value, subnet.value);
        reader.error(
            Diagnostic::error(codes::OUTSIDE_SUBNET, message)
                .at(gateway.span)
                .also(subnet.span, "the subnet")
                .help("give an address inside the subnet"),
        );
    }
    let kind = reader.word(
        table,
        "kind",
        &[("ethernet", NetKind::Ethernet), ("infiniband", NetKind::Infiniband)],
    );
    let dns = table.item("dns").into_iter().flat_map(Item::texts);
    let dns: Vec<Sited<Ipv4Addr>> =
        dns.filter_map(|(text, span)| reader.address(text, span)).collect();
    Net {
        name: name.to_owned(),
        subnet,
        gateway,
        dns: dns.into_iter().map(|server| server.value).collect(),
        kind: reader.or(kind, table, NetKind::Ethernet).value,
    }
}

/// The subnet, as its network address: `192.168.3.7/24` is a slip worth asking about.
fn subnet(reader: &mut Reader, table: &MergedTable<'_>) -> Option<Sited<Ipv4Net>> {
    let item = table.item("subnet")?;
    let text = item.text()?;
    let wrong = |message: String| {
        Diagnostic::error(codes::BAD_ADDRESS, message)
            .at(item.span)
            .help("write it like `192.168.3.0/24`")
    };
    let Ok(subnet) = text.parse::<Ipv4Net>() else {
        reader.error(wrong(format!("`{text}` is not a subnet")));
        return None;
    };
    if subnet.trunc() != subnet {
        let message = format!("`{text}` is an address inside the subnet `{}`", subnet.trunc());
        reader.error(wrong(message));
    }
    // daos_server that finds its own name at loopback never joins.
    if subnet.addr().is_loopback() || subnet.addr().is_multicast() {
        let what = if subnet.addr().is_loopback() { "this box itself" } else { "groups" };
        reader.error(wrong(format!("`{text}` is for {what}: no other node reaches it")));
        return None;
    }
    if subnet.prefix_len() > 30 {
        reader.error(wrong(format!("`{text}` has no room for hosts")));
    }
    Some(Sited { value: subnet.trunc(), span: item.span })
}
