//! `[[role.server.engine]]`: the engines of a kind, with their NIC and devices found.

use crate::cluster::merge::MergedTable;
use crate::cluster::model::{Bdev, BdevClass, BdevRole, Engine, Hw, Scm, ScmClass, ScmSize, Sited};
use crate::cluster::resolve::kind::unknown_name;
use crate::cluster::resolve::reader::Reader;
use crate::cluster::schema::{BDEV, ENGINE};
use crate::cluster::text::TextKind;
use crate::diag::{Diagnostic, codes};
use crate::toml_doc::Item;

pub fn engines(reader: &mut Reader, table: &MergedTable<'_>, hw: &Hw) -> Vec<Engine> {
    let items = table.item("engine").and_then(Item::array).unwrap_or_default();
    let read = items.iter().enumerate();
    read.filter_map(|(at, item)| engine(reader, &MergedTable::of_item(item, ENGINE), at, hw))
        .collect()
}

fn engine(reader: &mut Reader, table: &MergedTable<'_>, at: usize, hw: &Hw) -> Option<Engine> {
    let fabric = reader.text(table, "fabric", TextKind::Word)?;
    let Some(fabric_nic) = hw.nics.iter().position(|nic| nic.key == fabric.value) else {
        reader.error(unknown_name("nic", &fabric, hw.nics.iter().map(|nic| nic.key.as_str())));
        return None;
    };
    let targets: Sited<u32> = reader.number(table, "targets")?;
    let helpers = reader.number(table, "helpers");
    let port = reader.number(table, "port");
    let log_file = reader.text(table, "log_file", TextKind::AbsolutePath);
    Some(Engine {
        helpers: reader.or(helpers, table, targets.value / 4),
        targets,
        first_core: reader.number(table, "first_core"),
        numa: reader.number(table, "numa"),
        fabric,
        fabric_nic,
        port: reader.or(port, table, 31316 + 1000 * u32::try_from(at).unwrap_or(0)),
        scm: scm(reader, table.table("scm")?, at),
        bdevs: bdevs(reader, table, hw),
        log_mask: reader.text(table, "log_mask", TextKind::LogMask),
        log_file: reader.or(log_file, table, format!("/var/log/daos/daos_engine.{at}.log")),
        env: reader.texts(table, "env", TextKind::Environment),
        env_pass_through: {
            let names = reader.texts(table, "env_pass_through", TextKind::Word);
            names.into_iter().map(|name| name.value).collect()
        },
        span: table.span,
    })
}

fn scm(reader: &mut Reader, table: &MergedTable<'_>, at: usize) -> Scm {
    let class = reader.word(table, "class", &[("ram", ScmClass::Ram), ("dcpm", ScmClass::Dcpm)]);
    let size = table.item("size").and_then(|item| {
        let value = match item.text()? {
            "auto" => ScmSize::Auto,
            text => ScmSize::Fixed(text.parse().ok()?),
        };
        Some(Sited { value, span: item.span })
    });
    let class = reader.or(class, table, ScmClass::Ram);
    let mount = reader.text(table, "mount", TextKind::AbsolutePath);
    Scm {
        // Unset, DAOS takes all it can get: the same as `auto`, which is computed here.
        size: match (size, class.value) {
            (None, ScmClass::Ram) => Some(Sited { value: ScmSize::Auto, span: table.span }),
            (size, _) => size,
        },
        class,
        mount: reader.or(mount, table, format!("/mnt/daos{at}")),
        list: reader.texts(table, "list", TextKind::AbsolutePath),
        hugepages_disabled: reader.truth(table, "hugepages_disabled", false).value,
        span: table.span,
    }
}

fn bdevs(reader: &mut Reader, table: &MergedTable<'_>, hw: &Hw) -> Vec<Bdev> {
    let items = table.item("bdev").and_then(Item::array).unwrap_or_default();
    items.iter().flat_map(|item| bdev(reader, &MergedTable::of_item(item, BDEV), hw)).collect()
}

/// One tier, or two where `wal_meta` splits the list.
fn bdev(reader: &mut Reader, table: &MergedTable<'_>, hw: &Hw) -> Vec<Bdev> {
    let words = [("nvme", BdevClass::Nvme), ("file", BdevClass::File), ("kdev", BdevClass::Kdev)];
    let Some(class) = reader.word(table, "class", &words) else { return Vec::new() };
    let Some(list) = devices(reader, table, class.value, hw) else { return Vec::new() };
    let tier = Bdev {
        class,
        list,
        size: reader.size(table, "size"),
        roles: roles(table),
        busid_range: reader.text(table, "busid_range", TextKind::Word),
        span: table.span,
    };
    match reader.number::<usize>(table, "wal_meta") {
        None => vec![tier],
        Some(wal_meta) => split(reader, tier, wal_meta),
    }
}

fn roles(table: &MergedTable<'_>) -> Vec<Sited<BdevRole>> {
    let items = table.item("roles").into_iter().flat_map(Item::texts);
    items
        .filter_map(|(text, span)| {
            let value = match text {
                "wal" => BdevRole::Wal,
                "meta" => BdevRole::Meta,
                "data" => BdevRole::Data,
                _ => return None,
            };
            Some(Sited { value, span })
        })
        .collect()
}

/// The devices of a tier: its own list, or one of the hw.
fn devices(
    reader: &mut Reader,
    table: &MergedTable<'_>,
    class: BdevClass,
    hw: &Hw,
) -> Option<Sited<Vec<Sited<String>>>> {
    let own = table.item("list");
    let from = reader.text(table, "from", TextKind::Word);
    match (own, from) {
        (Some(list), None) => {
            let kind = match class {
                BdevClass::Nvme => TextKind::Word,
                BdevClass::File | BdevClass::Kdev => TextKind::AbsolutePath,
            };
            Some(Sited { value: reader.texts(table, "list", kind), span: list.span })
        }
        (None, Some(from)) => {
            let name = from.value.strip_prefix("nvme.").unwrap_or(&from.value);
            let Some(list) = hw.nvme.get(name) else {
                let lists: Vec<String> =
                    hw.nvme.keys().map(|name| format!("nvme.{name}")).collect();
                reader.error(unknown_name("nvme list", &from, lists.iter().map(String::as_str)));
                return None;
            };
            let ssds = list.iter().map(|ssd| Sited { value: ssd.to_string(), span: ssd.span });
            Some(Sited { value: ssds.collect(), span: list.span })
        }
        (Some(list), Some(from)) => {
            reader.error(
                Diagnostic::error(codes::GIVEN_TWICE, "`list` and `from` both name the devices")
                    .at(from.span)
                    .also(list.span, "the other one")
                    .help("keep one of them"),
            );
            None
        }
        (None, None) => {
            reader.error(
                Diagnostic::error(codes::MISSING, "a tier without devices")
                    .at(table.span)
                    .help("add `list = […]`, or `from = \"nvme.numa0\"`"),
            );
            None
        }
    }
}

/// The first `wal_meta` devices hold wal and meta, the rest data.
fn split(reader: &mut Reader, tier: Bdev, wal_meta: Sited<usize>) -> Vec<Bdev> {
    if let Some(role) = tier.roles.first() {
        reader.error(
            Diagnostic::error(
                codes::GIVEN_TWICE,
                "`roles` and `wal_meta` both say what the tier holds",
            )
            .at(wal_meta.span)
            .also(role.span, "the roles")
            .help("keep one of them"),
        );
        return vec![tier];
    }
    if wal_meta.value >= tier.list.len() {
        let message = format!(
            "wal_meta = {} leaves no device of {} for data",
            wal_meta.value,
            tier.list.len()
        );
        reader.error(
            Diagnostic::error(codes::OUT_OF_RANGE, message)
                .at(wal_meta.span)
                .also(tier.list.span, "the devices")
                .help("leave at least one device for data, or name the roles of a single tier"),
        );
        return vec![tier];
    }
    let role = |value| Sited { value, span: wal_meta.span };
    let part = |list: &[Sited<String>], roles| Bdev {
        list: Sited { value: list.to_vec(), span: tier.list.span },
        roles,
        ..tier.clone()
    };
    let (first, rest) = tier.list.split_at(wal_meta.value);
    vec![
        part(first, vec![role(BdevRole::Wal), role(BdevRole::Meta)]),
        part(rest, vec![role(BdevRole::Data)]),
    ]
}
