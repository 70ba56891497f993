//! What nodes with the same hw, roles and settings have in common.

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::expr::AddressRule;
use crate::cluster::merge::{MergedTable, blame};
use crate::cluster::model::{
    Bmc, CpuVendor, DiskBoot, DiskRule, Firewall, Firmware, Hw, Kind, Link, Net, NetKind, Nic, Os,
    Selinux, Sited, Tree, VarValue, Vm,
};
use crate::cluster::resolve::engine;
use crate::cluster::resolve::reader::Reader;
use crate::cluster::secret_ref::SecretRef;
use crate::cluster::text::TextKind;
use crate::diag::{Diagnostic, Span, codes};
use crate::net::{InfinibandGuid, MacAddr, interface_name_fault};
use crate::toml_doc::{Item, Value, did_you_mean};
use crate::units::ByteSize;

/// A kind and the rules by which its nodes differ.
#[derive(Debug)]
pub struct KindDraft {
    pub kind: Kind,
    /// By the order of the kind's NICs.
    pub nics: Vec<NicRules>,
    pub serial: Option<Sited<String>>,
    pub bmc_ip: Option<Sited<AddressRule>>,
}

/// What the cluster file says of a NIC's own values.
#[derive(Debug)]
pub struct NicRules {
    /// Whether there is an address, if only one that cannot be read.
    pub says_ip: bool,
    pub says_mac: bool,
    pub ip: Option<Sited<AddressRule>>,
    pub mac: Option<Sited<MacAddr>>,
    pub guid: Option<Sited<InfinibandGuid>>,
}

/// What a kind is read with.
pub struct KindContext<'a> {
    pub hw_name: Sited<String>,
    pub roles: Vec<Sited<String>>,
    /// The profile of each role.
    pub profiles: Vec<String>,
    pub ranges: Vec<String>,
    pub own_overlays: Vec<Sited<String>>,
    pub nets: &'a BTreeMap<String, Net>,
    /// The folder that relative paths said at a place start from.
    pub folder: &'a dyn Fn(Span) -> std::path::PathBuf,
    pub n_nodes: usize,
    /// The `[node.RANGE]` key to point at.
    pub span: Span,
    /// The `[hw.NAME]` key.
    pub hw_span: Span,
    /// The `[os]` key, if there is one.
    pub os_span: Option<Span>,
}

pub fn kind(reader: &mut Reader, table: &MergedTable<'_>, context: KindContext<'_>) -> KindDraft {
    let (nics, rules) = nics(reader, table, &context);
    let hw = hw(reader, table, nics, &context);
    let os = os(reader, table, &hw, &context);
    let engines = engine::engines(reader, table, &hw);
    let run_as = reader.text(table, "run_as", TextKind::Word);
    let serial = reader.text(table, "serial", TextKind::DiskName);
    let bmc_ip = table.table("bmc").and_then(|bmc| address_rule(reader, bmc, "ip"));
    let kind = Kind {
        hw,
        roles: context.roles,
        profiles: context.profiles,
        os,
        run_as,
        engines,
        own_overlays: context.own_overlays,
        vars: vars(table),
        ranges: context.ranges,
        span: context.span,
        n_nodes: context.n_nodes,
    };
    let by_path = table.table("install_disk").and_then(|rule| rule.item("by_path"));
    check_install_disk(reader, &kind, by_path.map_or(kind.hw.install_disk.span, |item| item.span));
    KindDraft { kind, nics: rules, serial, bmc_ip }
}

/// The values under `vars`, whatever their type.
pub fn vars(table: &MergedTable<'_>) -> BTreeMap<String, Sited<VarValue>> {
    scalars(table, "vars")
}

/// The texts, numbers and truth values by name under `key`.
pub fn scalars(table: &MergedTable<'_>, key: &str) -> BTreeMap<String, Sited<VarValue>> {
    let Some(vars) = table.table(key) else { return BTreeMap::new() };
    let value = |item: &Item| match &item.value {
        Value::Text(text) => Some(VarValue::Text(text.clone())),
        Value::Integer(number) => Some(VarValue::Integer(*number)),
        Value::Bool(value) => Some(VarValue::Bool(*value)),
        _ => None,
    };
    let names = vars.keys.keys().copied();
    names
        .filter_map(|name| {
            let item = vars.item(name)?;
            Some((name.to_owned(), Sited { value: value(item)?, span: item.span }))
        })
        .collect()
}

fn hw(
    reader: &mut Reader,
    table: &MergedTable<'_>,
    nics: Vec<Nic>,
    context: &KindContext<'_>,
) -> Hw {
    require(reader, table, context, "firmware", "\"uefi\"");
    require(reader, table, context, "memory", "\"256GiB\"");
    let firmware =
        reader.word(table, "firmware", &[("bios", Firmware::Bios), ("uefi", Firmware::Uefi)]);
    let firmware = firmware.map_or(Firmware::Uefi, |firmware| firmware.value);
    let memory = reader
        .size(table, "memory")
        .unwrap_or(Sited { value: ByteSize::from_gib(1), span: context.hw_name.span });
    let cpu = reader.word(table, "cpu", &[("intel", CpuVendor::Intel), ("amd", CpuVendor::Amd)]);
    let disk_boot = reader.word(
        table,
        "disk_boot",
        &[
            ("exit", DiskBoot::Exit),
            ("exit 1", DiskBoot::ExitFail),
            ("sanboot", DiskBoot::Sanboot),
            ("chain", DiskBoot::Chain),
        ],
    );
    let default_disk_boot = match firmware {
        Firmware::Bios => DiskBoot::Sanboot,
        Firmware::Uefi => DiskBoot::Exit,
    };
    Hw {
        name: context.hw_name.clone(),
        firmware,
        cpu: cpu.map_or(CpuVendor::Intel, |cpu| cpu.value),
        memory,
        mem_total: reader.size(table, "mem_total"),
        sockets: reader.number(table, "sockets").map_or(1, |sockets| sockets.value),
        cores: reader.number(table, "cores"),
        install_disk: install_disk(reader, table, context),
        nics,
        nvme: nvme(reader, table),
        console: reader.text(table, "console", TextKind::Console).map(|console| console.value),
        bmc: table.table("bmc").map(|bmc| Bmc {
            kind: bmc.item("kind").and_then(Item::text).unwrap_or("redfish").to_owned(),
            port: reader.number(bmc, "port").map_or(443, |port| port.value),
            user: secret(reader, bmc, "user", context).map(|user| user.value),
            password: secret(reader, bmc, "password", context).map(|password| password.value),
        }),
        disk_boot: disk_boot.map_or(default_disk_boot, |disk_boot| disk_boot.value),
        vm: table.table("vm").and_then(|vm| {
            let disk = reader.size(vm, "disk")?;
            let ssd = reader.size(vm, "ssd").map_or(Vm::SSD, |ssd| ssd.value);
            Some(Vm { disk: disk.value, has_iommu: reader.truth(vm, "iommu", false).value, ssd })
        }),
    }
}

/// Reports a key of the hw that nothing sets; what is set and cannot be read has been
/// reported where it stands.
fn require(
    reader: &mut Reader,
    table: &MergedTable<'_>,
    context: &KindContext<'_>,
    key: &str,
    example: &str,
) {
    if !table.keys.contains_key(key) {
        let hw = &context.hw_name.value;
        reader.error(
            Diagnostic::error(codes::MISSING, format!("`{key}` of hw `{hw}` is missing"))
                .at(context.hw_span)
                .help(format!("add `{key} = {example}` to `[hw.{hw}]`")),
        );
    }
}

fn install_disk(
    reader: &mut Reader,
    table: &MergedTable<'_>,
    context: &KindContext<'_>,
) -> DiskRule {
    let Some(rule) = table.table("install_disk") else {
        require(reader, table, context, "install_disk", "{ bus = \"sata\", max = \"1TiB\" }");
        let (by_path, by_id, serial, wwn, bus) = Default::default();
        let span = context.hw_name.span;
        return DiskRule { by_path, by_id, serial, wwn, bus, min: None, max: None, span };
    };
    let mut text = |key| reader.text(rule, key, TextKind::DiskName).map(|name| name.value);
    let (by_path, by_id, serial, wwn, bus) =
        (text("by_path"), text("by_id"), text("serial"), text("wwn"), text("bus"));
    let (min, max) = (reader.size(rule, "min"), reader.size(rule, "max"));
    if let (Some(min), Some(max)) = (&min, &max)
        && min.value > max.value
    {
        let message = format!("no disk has at least {} and at most {}", min.value, max.value);
        reader.error(
            Diagnostic::error(codes::DISK_RULE, message)
                .at(min.span)
                .also(max.span, "the greatest size")
                .help("let `min` be the lesser one"),
        );
    }
    if rule.keys.is_empty() {
        reader.error(
            Diagnostic::error(codes::DISK_RULE, "a rule without conditions matches every disk")
                .at(rule.span)
                .help("name the disk by `by_path`, `serial`, `bus` or its size"),
        );
    }
    let value = |size: Option<Sited<ByteSize>>| size.map(|size| size.value);
    DiskRule { by_path, by_id, serial, wwn, bus, min: value(min), max: value(max), span: rule.span }
}

fn nvme(
    reader: &mut Reader,
    table: &MergedTable<'_>,
) -> BTreeMap<String, Sited<Vec<Sited<crate::net::PciAddress>>>> {
    let Some(lists) = table.table("nvme") else { return BTreeMap::new() };
    lists
        .keys
        .keys()
        .filter_map(|name| {
            let item = lists.item(name)?;
            let value = item.texts().map(|(text, span)| {
                // The place of one that cannot be read is kept: the list is as long as written.
                let unread = || Sited { value: crate::net::PciAddress::default(), span };
                reader.parse(text, span, codes::BAD_VALUE).unwrap_or_else(unread)
            });
            Some(((*name).to_owned(), Sited { value: value.collect(), span: item.span }))
        })
        .collect()
}

/// A data SSD is never the install disk: its PCI address in `by_path` is a slip that would
/// cost the data.
fn check_install_disk(reader: &mut Reader, kind: &Kind, at: Span) {
    let Some(by_path) = &kind.hw.install_disk.by_path else { return };
    let listed = kind
        .hw
        .nvme
        .values()
        .flat_map(|list| list.iter().map(|ssd| (ssd.as_str().to_owned(), ssd.span)));
    let in_tiers = kind
        .engines
        .iter()
        .flat_map(|engine| &engine.bdevs)
        .flat_map(|bdev| bdev.list.iter().map(|device| (device.value.clone(), device.span)));
    let data: BTreeMap<String, Span> = in_tiers.chain(listed).collect();
    for (address, span) in
        data.iter().filter(|(address, _)| by_path.contains(&format!("pci-{address}-")))
    {
        reader.error(
            Diagnostic::error(
                codes::DATA_DISK,
                format!("the install disk is the data SSD {address}"),
            )
            .at(at)
            .also(*span, "planned for data here")
            .help("choose another disk, or take the SSD out of the data lists"),
        );
    }
}

pub fn secret(
    reader: &mut Reader,
    table: &MergedTable<'_>,
    key: &str,
    context: &KindContext<'_>,
) -> Option<Sited<SecretRef>> {
    let item = table.item(key)?;
    let (kind, reference) = item.table()?.iter().next()?;
    let text = reference.text()?;
    if text.is_empty() {
        return None;
    }
    let value = match kind.as_str() {
        "file" => Ok(SecretRef::File((context.folder)(reference.span).join(text))),
        "env" => SecretRef::env(text),
        _ => SecretRef::cmd(text),
    };
    match value {
        Ok(value) => Some(Sited { value, span: item.span }),
        Err(fault) => {
            reader.error(
                Diagnostic::error(codes::BAD_VALUE, format!("`{key}`: {fault}")).at(reference.span),
            );
            None
        }
    }
}

fn os(reader: &mut Reader, table: &MergedTable<'_>, hw: &Hw, context: &KindContext<'_>) -> Os {
    let release = reader.text(table, "release", TextKind::Word);
    if !table.keys.contains_key("release") {
        reader.error(
            Diagnostic::error(codes::MISSING, "`release` is missing")
                .at(context.os_span.unwrap_or(context.span))
                .help("add `release = \"8.10\"` to `[os]`"),
        );
    }
    let release = reader.or(release, table, "8.10".to_owned());
    let mirror = reader.text(table, "mirror", TextKind::Url);
    let mut mirror = mirror.unwrap_or_else(|| default_mirror(&release));
    while mirror.value.ends_with('/') {
        mirror.value.pop();
    }
    let mut words = |key, kind, default: &str| {
        reader.text(table, key, kind).map_or_else(|| default.to_owned(), |text| text.value)
    };
    let locale = words("locale", TextKind::Locale, "en_US.UTF-8");
    let keyboard = words("keyboard", TextKind::Keyboard, "us");
    let epel_url = words(
        "epel_url",
        TextKind::Url,
        "https://dl.fedoraproject.org/pub/epel/8/Everything/x86_64/",
    );
    let tree = reader.word(table, "tree", &[("kickstart", Tree::Kickstart), ("os", Tree::Os)]);
    let selinux = reader.word(
        table,
        "selinux",
        &[
            ("disabled", Selinux::Disabled),
            ("permissive", Selinux::Permissive),
            ("enforcing", Selinux::Enforcing),
        ],
    );
    let firewall = reader.word(
        table,
        "firewall",
        &[("disabled", Firewall::Disabled), ("enabled", Firewall::Enabled)],
    );
    let packages = reader.set(table, "packages", TextKind::Package);
    let mut set = |key, kind| -> BTreeSet<String> {
        reader.set(table, key, kind).into_iter().map(|member| member.value).collect()
    };
    let (services, ports, sysctl, modules) = (
        set("services", TextKind::Unit),
        set("ports", TextKind::Port),
        set("sysctl", TextKind::Sysctl),
        set("modules", TextKind::Word),
    );
    let mut kernel_args = set("kernel_args", TextKind::KernelArgument);
    // AMD's IOMMU is on by itself; `amd_iommu=on` is no value the kernel knows
    // (Documentation/admin-guide/kernel-parameters.txt).
    if hw.cpu == CpuVendor::Intel
        && !kernel_args.iter().any(|word| word.starts_with("intel_iommu="))
    {
        kernel_args.insert("intel_iommu=on".to_owned());
    }
    Os {
        release,
        mirror,
        tree: tree.map_or(Tree::Kickstart, |tree| tree.value),
        selinux: selinux.map_or(Selinux::Enforcing, |selinux| selinux.value),
        firewall: firewall.map_or(Firewall::Enabled, |firewall| firewall.value),
        epel: reader.truth(table, "epel", true).value,
        epel_url,
        locale,
        keyboard,
        root_password: secret(reader, table, "root_password", context),
        ssh_keys: reader.texts(table, "ssh_keys", TextKind::SshKey),
        kernel_args,
        packages: packages.into_iter().map(|package| (package.value, package.span)).collect(),
        services,
        ports,
        sysctl,
        modules,
    }
}

/// 8.8 and 8.9 have moved to the vault; 8.10 is the release that stays.
fn default_mirror(release: &Sited<String>) -> Sited<String> {
    let value = match release.value.as_str() {
        "8.10" => "https://repo.almalinux.org/almalinux/8.10".to_owned(),
        older => format!("https://vault.almalinux.org/{older}"),
    };
    Sited { value, span: release.span }
}

fn nics(
    reader: &mut Reader,
    table: &MergedTable<'_>,
    context: &KindContext<'_>,
) -> (Vec<Nic>, Vec<NicRules>) {
    let nets = context.nets;
    let keys: Vec<&str> = table.tables("nic").map(|(key, _)| key).collect();
    let (mut nics, mut rules) = (Vec::new(), Vec::new());
    for (key, inner) in table.tables("nic") {
        nics.push(nic(reader, key, inner, nets, &keys));
        rules.push(NicRules {
            ip: address_rule(reader, inner, "ip"),
            says_ip: inner.keys.contains_key("ip"),
            says_mac: inner.keys.contains_key("mac"),
            mac: reader.parsed(inner, "mac", codes::BAD_MAC),
            guid: reader.parsed(inner, "guid", codes::BAD_MAC),
        });
    }
    let boot_of = |nic: &Nic| {
        let table = table.table("nic")?.table(&nic.key)?;
        Some(table.item("boot").map_or(table.origin, |item| item.span))
    };
    match nics.is_empty() {
        true => reader.error(
            Diagnostic::error(codes::BOOT_NIC, format!("hw `{}` has no NIC", context.hw_name.value))
                .at(context.hw_span)
                .help("add `nic.mgmt = { name = \"lan0\", net = \"mgmt\", boot = true }`: a node needs one to boot from"),
        ),
        false => {
            let span = table.table("nic").map_or(table.span, |nic| nic.origin);
            check_boot_nic(reader, &mut nics, span, |nic| boot_of(nic).unwrap_or(nic.span));
        }
    }
    check_names_of_nics(reader, &nics);
    (nics, rules)
}

fn nic(
    reader: &mut Reader,
    key: &str,
    table: &MergedTable<'_>,
    nets: &BTreeMap<String, Net>,
    keys: &[&str],
) -> Nic {
    let name = reader.text(table, "name", TextKind::Word);
    let name = reader.or(name, table, key.to_owned());
    if let Some(fault) = interface_name_fault(&name) {
        reader.error(
            Diagnostic::error(
                codes::KERNEL_NIC_NAME,
                format!("a NIC cannot be named `{}`", name.value),
            )
            .at(name.span)
            .help("choose a name of your own, like `lan0` or `fab0`")
            .note(fault),
        );
    }
    let net = reader.text(table, "net", TextKind::Word);
    // Without any net, `net` itself is missing or wrong, and that has been said.
    if let Some(net) = net.as_ref().filter(|net| !nets.is_empty() && !nets.contains_key(&net.value))
    {
        reader.error(unknown_name("net", net, nets.keys().map(String::as_str)));
    }
    let is_infiniband = net
        .as_ref()
        .and_then(|net| nets.get(&net.value))
        .is_some_and(|net| net.kind == NetKind::Infiniband);
    let link = link(reader, key, table, keys).unwrap_or(match is_infiniband {
        true => Link::Infiniband,
        false => Link::Ethernet,
    });
    let pci = reader.parsed(table, "pci", codes::BAD_VALUE);
    if link == Link::Infiniband && !table.keys.contains_key("pci") {
        reader.error(
            Diagnostic::error(
                codes::MISSING,
                format!("`pci` of the InfiniBand NIC `{key}` is missing"),
            )
            .at(table.origin)
            .help("add `pci = \"0000:17:00.0\"`: systemd names InfiniBand NICs by their path only"),
        );
    }
    Nic {
        key: key.to_owned(),
        name,
        net,
        is_boot: reader.truth(table, "boot", false).value,
        pci,
        domain: reader.text(table, "domain", TextKind::Word),
        numa: reader.number(table, "numa"),
        mtu: reader.number(table, "mtu").map(|mtu| mtu.value),
        link,
        span: table.origin,
    }
}

fn link(reader: &mut Reader, key: &str, table: &MergedTable<'_>, keys: &[&str]) -> Option<Link> {
    let known = |reader: &mut Reader, of: &Sited<String>| {
        if of.value == key {
            let message = format!("`{key}` cannot stand on itself");
            reader.error(
                Diagnostic::error(codes::UNKNOWN_NAME, message)
                    .at(of.span)
                    .help("name the NIC below it, by its key"),
            );
        } else if !keys.contains(&of.value.as_str()) {
            reader.error(unknown_name(
                "nic",
                of,
                keys.iter().copied().filter(|other| *other != key),
            ));
        }
    };
    if let (Some(vlan), Some(bond)) = (table.table("vlan"), table.table("bond")) {
        reader.error(
            Diagnostic::error(
                codes::GIVEN_TWICE,
                format!("`{key}` cannot be a VLAN and a bond at once"),
            )
            .at(vlan.span)
            .also(bond.span, "the bond")
            .help("define the bond, and a VLAN on it as a NIC of its own"),
        );
    }
    if let Some(vlan) = table.table("vlan") {
        let of = reader.text(vlan, "of", TextKind::Word)?;
        known(reader, &of);
        return Some(Link::Vlan { id: reader.number(vlan, "id")?.value, of: of.value });
    }
    let bond = table.table("bond")?;
    let members = reader.texts(bond, "of", TextKind::Word);
    for member in &members {
        known(reader, member);
    }
    Some(Link::Bond {
        mode: bond.item("mode").and_then(Item::text).unwrap_or("active-backup").to_owned(),
        members: members.into_iter().map(|member| member.value).collect(),
    })
}

/// Exactly one NIC boots; the only one there is needs not say so.
fn check_boot_nic(
    reader: &mut Reader,
    nics: &mut [Nic],
    span: Span,
    boot_of: impl Fn(&Nic) -> Span,
) {
    if let [only] = nics {
        only.is_boot = true;
    }
    let boots: Vec<&Nic> = nics.iter().filter(|nic| nic.is_boot).collect();
    match boots.as_slice() {
        [boot] if boot.link == Link::Ethernet => {}
        [boot] => reader.error(
            Diagnostic::error(
                codes::BOOT_NIC,
                format!("`{}` is no Ethernet NIC and cannot boot", boot.key),
            )
            .at(boot_of(boot))
            .help("set `boot = true` on the NIC whose firmware does PXE"),
        ),
        [] => reader.error(
            Diagnostic::error(codes::BOOT_NIC, "no NIC has `boot = true`")
                .at(span)
                .help("set `boot = true` on the NIC the node boots from"),
        ),
        [first, second, ..] => {
            let (at, other) = blame(boot_of(first), boot_of(second));
            reader.error(
                Diagnostic::error(codes::BOOT_NIC, "two NICs have `boot = true`")
                    .at(at)
                    .also(other, "the other one")
                    .help("leave it on the NIC the node boots from"),
            );
            // The first one boots, so that nothing more is asked of the others.
            nics.iter_mut().filter(|nic| nic.is_boot).skip(1).for_each(|nic| nic.is_boot = false);
        }
    }
}

fn check_names_of_nics(reader: &mut Reader, nics: &[Nic]) {
    for (at, nic) in nics.iter().enumerate() {
        if let Some(first) = nics[..at].iter().find(|other| other.name.value == nic.name.value) {
            let message =
                format!("`{}` and `{}` are both named `{}`", first.key, nic.key, nic.name.value);
            let (at, other) = blame(nic.name.span, first.name.span);
            reader.error(
                Diagnostic::error(codes::NAME_TWICE, message)
                    .at(at)
                    .also(other, "the other one")
                    .help("give each NIC a name of its own"),
            );
        }
    }
}

fn address_rule(
    reader: &mut Reader,
    table: &MergedTable<'_>,
    key: &str,
) -> Option<Sited<AddressRule>> {
    let item = table.item(key)?;
    match AddressRule::parse(item.text()?) {
        Ok(value) => Some(Sited { value, span: item.span }),
        Err(fault) => {
            reader.error(
                Diagnostic::error(codes::BAD_ADDRESS, fault.to_string()).at(item.span).help(
                    "write an address like `10.20.0.11`, or a rule like `10.20.1.0 + {index}`",
                ),
            );
            None
        }
    }
}

/// A name that refers to something which is not there.
pub fn unknown_name<'a>(
    what: &str,
    name: &Sited<String>,
    known: impl IntoIterator<Item = &'a str>,
) -> Diagnostic {
    let known: Vec<&str> = known.into_iter().collect();
    let what_people_call = if what == "nic" { "NIC" } else { what };
    let message = format!("there is no {what_people_call} `{}`", name.value);
    let diagnostic = Diagnostic::error(codes::UNKNOWN_NAME, message).at(name.span);
    match did_you_mean(&name.value, known.iter().copied()) {
        Some(similar) => diagnostic.help(format!("did you mean `{similar}`?")),
        None if known.is_empty() => diagnostic.help(format!("define `[{what}.{}]`", name.value)),
        None => diagnostic.help(format!("there are: {}", known.join(", "))),
    }
}
