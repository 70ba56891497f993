//! Rules about one engine's tiers: scm first, then block devices.

use std::collections::BTreeMap;

use crate::cluster::{Bdev, BdevClass, BdevRole, Engine, Scm, ScmClass, ScmSize, Sited};
use crate::daos::config::bdev_role;
use crate::daos::memory::MIN_RAMDISK;
use crate::daos::rules::Findings;
use crate::daos::rules::cluster::{Ground, check_whole_gib, ground};
use crate::daos::rules::engines::tier_name;
use crate::diag::{Diagnostic, Span, codes};
use crate::net::PciAddress;

pub(super) fn check(engine: &Engine, findings: &mut Findings<'_>) {
    check_scm(&engine.scm, findings);
    for bdev in &engine.bdevs {
        check_bdev(bdev, findings);
    }
    check_classes(engine, findings);
    check_devices_once(engine, findings);
    check_roles(engine, findings);
    check_places(engine, findings);
    check_spread(engine, findings);
}

fn check_scm(scm: &Scm, findings: &mut Findings<'_>) {
    match scm.class.value {
        ScmClass::Ram => check_ram(scm, findings),
        ScmClass::Dcpm => check_dcpm(scm, findings),
    }
}

fn check_ram(scm: &Scm, findings: &mut Findings<'_>) {
    if let Some(device) = scm.list.first() {
        findings.push(
            Diagnostic::error(codes::BAD_CONFIG, "scm of class ram has no devices")
                .at(device.span)
                .also(scm.class.span, "the class")
                .help("leave `list` out, or use class dcpm"),
        );
    }
    let Some(Sited { value: ScmSize::Fixed(value), span }) = scm.size else { return };
    if value < MIN_RAMDISK {
        findings.push(
            Diagnostic::error(
                codes::SCM_TOO_SMALL,
                format!("a RAM disk of {value}: DAOS wants at least {MIN_RAMDISK}"),
            )
            .at(span)
            .help("write `size = \"auto\"`, or 4GiB or more"),
        );
    } else {
        check_whole_gib("the scm size", &Sited { value, span }, findings);
    }
}

fn check_dcpm(scm: &Scm, findings: &mut Findings<'_>) {
    if let Some(size) = &scm.size {
        findings.push(
            Diagnostic::error(codes::BAD_CONFIG, "scm of class dcpm has the size of its device")
                .at(size.span)
                .also(scm.class.span, "the class")
                .help("leave `size` out"),
        );
    }
    if scm.list.len() != 1 {
        let message = match scm.list.len() {
            0 => "scm of class dcpm without a device".to_owned(),
            n => format!("scm of class dcpm with {n} devices: DAOS takes one an engine"),
        };
        findings.push(
            Diagnostic::error(codes::BAD_CONFIG, message)
                .at(scm.list.get(1).map_or(scm.span, |device| device.span))
                .help("name one: `list = [\"/dev/pmem0\"]`"),
        );
    }
    if scm.hugepages_disabled {
        findings.push(
            Diagnostic::error(
                codes::BAD_CONFIG,
                "`hugepages_disabled` is for RAM disks, and scm of class dcpm has none",
            )
            .at(scm.span)
            .help("leave `hugepages_disabled` out"),
        );
    }
}

fn check_bdev(bdev: &Bdev, findings: &mut Findings<'_>) {
    if bdev.list.is_empty() {
        let message = format!("a {} without devices", tier_name(bdev));
        findings.push(
            Diagnostic::error(codes::BAD_CONFIG, message)
                .at(bdev.list.span)
                .help("name its devices, or leave the tier out"),
        );
    }
    match bdev.class.value {
        BdevClass::Nvme => check_pci_addresses(bdev, findings),
        BdevClass::File => check_files(bdev, findings),
        BdevClass::Kdev => check_kernel_devices(bdev, findings),
    }
    if let Some(size) = bdev.size.as_ref().filter(|_| bdev.class.value != BdevClass::File) {
        let message = format!("DAOS ignores the size of a {}", tier_name(bdev));
        findings.push(
            Diagnostic::warning(codes::IGNORED, message).at(size.span).help("leave `size` out"),
        );
    }
    check_busid_range(bdev, findings);
}

fn check_pci_addresses(bdev: &Bdev, findings: &mut Findings<'_>) {
    for device in bdev.list.iter().filter(|device| device.parse::<PciAddress>().is_err()) {
        let message = format!("`{}` is not a full PCI address", device.value);
        findings.push(
            Diagnostic::error(codes::BAD_CONFIG, message)
                .at(device.span)
                .help("write domain, bus, device and function, like `0000:81:00.0` (`lspci -D`)"),
        );
    }
}

fn check_files(bdev: &Bdev, findings: &mut Findings<'_>) {
    match &bdev.size {
        None => findings.push(
            Diagnostic::error(codes::BAD_CONFIG, "a file tier without a size")
                .at(bdev.span)
                .help("say how large each file is: `size = \"16GiB\"`"),
        ),
        Some(size) if size.bytes() == 0 => findings.push(
            Diagnostic::error(codes::BAD_CONFIG, "a file tier of size 0")
                .at(size.span)
                .help("say how large each file is: `size = \"16GiB\"`"),
        ),
        Some(size) => check_whole_gib("the size of each file", size, findings),
    }
    for file in bdev.list.iter() {
        let help = "put it under /var/daos, which reinstalls keep";
        match ground(file) {
            Ground::Lasting => {}
            Ground::Swept => findings.push(
                Diagnostic::warning(
                    codes::SWEPT_PATH,
                    format!("{} lies where files are swept after 30 days", file.value),
                )
                .at(file.span)
                .help(help),
            ),
            Ground::Volatile | Ground::Unusable => findings.push(
                Diagnostic::error(codes::VOLATILE_PATH, format!("{} would not last", file.value))
                    .at(file.span)
                    .help(help),
            ),
        }
    }
}

fn check_kernel_devices(bdev: &Bdev, findings: &mut Findings<'_>) {
    for device in bdev.list.iter().filter(|device| !device.starts_with("/dev/")) {
        let message = format!("{} is no block device", device.value);
        findings.push(
            Diagnostic::error(codes::DEVICE_PATH, message)
                .at(device.span)
                .help("name a device like `/dev/disk/by-id/…`, or use class file"),
        );
    }
}

/// `0x80-0x8f` or `128-143` (`parsePCIBusRange`, server/storage/config.go).
fn check_busid_range(bdev: &Bdev, findings: &mut Findings<'_>) {
    let Some(range) = &bdev.busid_range else { return };
    if bdev.class.value != BdevClass::Nvme {
        let message = format!("DAOS ignores `busid_range` on a {}", tier_name(bdev));
        findings.push(
            Diagnostic::warning(codes::IGNORED, message)
                .at(range.span)
                .help("leave `busid_range` out"),
        );
    }
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(hex) => u8::from_str_radix(hex, 16).ok().filter(|_| !hex.starts_with('+')),
        None => text.parse::<u8>().ok().filter(|_| !text.starts_with('+')),
    };
    let ends = range.split_once('-').map(|(low, high)| (number(low), number(high)));
    if !matches!(ends, Some((Some(low), Some(high))) if low <= high) {
        let message = format!("`{}` is no range of PCI buses", range.value);
        findings.push(
            Diagnostic::error(codes::BUSID_RANGE, message)
                .at(range.span)
                .help("write it like `0x80-0x8f`"),
        );
    }
}

fn check_classes(engine: &Engine, findings: &mut Findings<'_>) {
    let is_nvme = |bdev: &&Bdev| bdev.class.value == BdevClass::Nvme;
    let nvme = engine.bdevs.iter().find(is_nvme);
    let emulated = engine.bdevs.iter().find(|bdev| !is_nvme(bdev));
    if let (Some(nvme), Some(emulated)) = (nvme, emulated) {
        findings.push(
            Diagnostic::error(codes::MIXED_TIERS, "SSDs and emulated devices in one engine")
                .at(emulated.class.span)
                .also(nvme.class.span, "the SSDs")
                .help("use class nvme for all tiers of an engine, or for none"),
        );
    }
}

/// One engine with an SSD in two tiers starts and then fails; two engines make
/// daos_server panic.
fn check_devices_once(engine: &Engine, findings: &mut Findings<'_>) {
    let mut seen: BTreeMap<String, Span> = BTreeMap::new();
    for device in engine.bdevs.iter().flat_map(|bdev| bdev.list.iter()) {
        let Some(first) = seen.insert(device.to_ascii_lowercase(), device.span) else { continue };
        let mut diagnostic = Diagnostic::error(
            codes::DEVICE_TWICE,
            format!("{} stands twice in the tiers of one engine", device.value),
        )
        .at(device.span)
        .help("a device belongs to one tier; two roles of one device are one tier with two roles");
        if first != device.span {
            diagnostic = diagnostic.also(first, "the first time");
        }
        findings.push(diagnostic);
    }
}

/// Metadata-on-SSD (`validateBdevRoles`, server/storage/config.go).
fn check_roles(engine: &Engine, findings: &mut Findings<'_>) {
    let bdevs = &engine.bdevs;
    if !engine.has_roles() {
        if let Some(second) = bdevs.get(1) {
            findings.push(
                Diagnostic::error(
                    codes::TIERS_WITHOUT_ROLES,
                    format!("{} bdev tiers without roles: DAOS takes one", bdevs.len()),
                )
                .at(second.span)
                .help("join them into one tier, or give each its `roles` (Metadata-on-SSD)"),
            );
        }
        return;
    }
    if let Some(without) = bdevs.iter().find(|bdev| bdev.roles.is_empty()) {
        findings.push(
            Diagnostic::error(codes::ROLES_MISSING, "bdev roles on some tiers and not on this one")
                .at(without.span)
                .help("give every bdev tier its `roles`, or none"),
        );
        return;
    }
    let role_span = bdevs[0].roles[0].span;
    if engine.scm.class.value == ScmClass::Dcpm {
        findings.push(
            Diagnostic::error(
                codes::ROLES_WITH_DCPM,
                "Metadata-on-SSD is for engines without persistent memory",
            )
            .at(role_span)
            .also(engine.scm.class.span, "scm of class dcpm")
            .help("leave the roles out, or use scm of class ram"),
        );
    }
    if let Some(fourth) = bdevs.get(3) {
        findings.push(
            Diagnostic::error(
                codes::TOO_MANY_TIERS,
                format!("{} bdev tiers: DAOS takes three with roles", bdevs.len()),
            )
            .at(fourth.span)
            .help("join tiers; `wal_meta = 1` makes two of one list"),
        );
        return;
    }
    check_role_counts(engine, findings);
}

fn check_role_counts(engine: &Engine, findings: &mut Findings<'_>) {
    let tiers_with = |role: BdevRole| {
        let has = move |bdev: &&Bdev| bdev.roles.iter().any(|of_tier| of_tier.value == role);
        engine.bdevs.iter().filter(has)
    };
    for role in [BdevRole::Wal, BdevRole::Meta, BdevRole::Data] {
        let tiers: Vec<&Bdev> = tiers_with(role).collect();
        let name = bdev_role(role);
        let (message, span) = match tiers.as_slice() {
            [_] => continue,
            [] => (format!("no bdev tier has the role `{name}`"), engine.bdevs[0].span),
            [_, second, ..] => {
                (format!("{} bdev tiers have the role `{name}`", tiers.len()), second.span)
            }
        };
        findings.push(
            Diagnostic::error(codes::ROLES_NOT_ONCE, message)
                .at(span)
                .help("give each of wal, meta and data to exactly one tier"),
        );
    }
    for tier in tiers_with(BdevRole::Wal) {
        let has = |role| tier.roles.iter().any(|of_tier| of_tier.value == role);
        // Without any meta, that is what is wrong.
        let is_meta_elsewhere = tiers_with(BdevRole::Meta).next().is_some();
        if has(BdevRole::Data) && !has(BdevRole::Meta) && is_meta_elsewhere {
            findings.push(
                Diagnostic::error(
                    codes::WAL_DATA_WITHOUT_META,
                    "a tier with wal and data, and meta on another one",
                )
                .at(tier.span)
                .help("put meta with wal, or with data"),
            );
        }
    }
}

/// How many targets, each with each of its roles, DAOS keeps with a device
/// (`SMD_MAX_TGT_CNT`, src/bio/smd/smd_internal.h).
const PLACES_OF_A_DEVICE: usize = 64;

fn check_places(engine: &Engine, findings: &mut Findings<'_>) {
    let targets = &engine.targets;
    for bdev in engine.bdevs.iter().filter(|bdev| !bdev.list.is_empty()) {
        let n_roles = bdev.roles.len().max(1);
        let most = PLACES_OF_A_DEVICE / n_roles * bdev.list.len();
        if targets.value as usize <= most {
            continue;
        }
        let devices = match bdev.list.len() {
            1 => "1 device".to_owned(),
            n => format!("{n} devices"),
        };
        let roles = match bdev.roles.len() {
            0 | 1 => String::new(),
            n => format!(" with {n} roles"),
        };
        let message = format!(
            "{} targets, and the {} of {devices}{roles} serves {most}",
            targets.value,
            tier_name(bdev)
        );
        findings.push(
            Diagnostic::error(codes::TOO_MANY_TARGETS, message)
                .at(targets.span)
                .also(bdev.span, "the tier")
                .help("lower the targets, or give the tier more devices or fewer roles"),
        );
    }
}

/// Each target works on one device: with 10 targets on 4 devices, two serve three targets
/// and two serve two.
fn check_spread(engine: &Engine, findings: &mut Findings<'_>) {
    let holds_data = |bdev: &&Bdev| {
        bdev.roles.is_empty() || bdev.roles.iter().any(|role| role.value == BdevRole::Data)
    };
    let n_devices: usize = engine.bdevs.iter().filter(holds_data).map(|bdev| bdev.list.len()).sum();
    let targets = &engine.targets;
    if n_devices > 0 && !(targets.value as usize).is_multiple_of(n_devices) {
        let message =
            format!("{} targets do not spread evenly over {n_devices} devices", targets.value);
        let multiple = (targets.value as usize).div_ceil(n_devices) * n_devices;
        findings.push(
            Diagnostic::warning(codes::UNEVEN_TARGETS, message)
                .at(targets.span)
                .help(format!("use a multiple of {n_devices}, such as {multiple}")),
        );
    }
}
