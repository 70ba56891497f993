//! `[[daos.pool]]`: pools and containers to make after the format.

use std::collections::BTreeMap;

use crate::cluster::merge::MergedTable;
use crate::cluster::model::{Container, Pool, PoolSize, Sited, VarValue};
use crate::cluster::resolve::kind::scalars;
use crate::cluster::resolve::reader::Reader;
use crate::cluster::schema::{CONTAINER, POOL};
use crate::cluster::text::TextKind;
use crate::diag::{Diagnostic, codes};
use crate::toml_doc::Item;
use crate::units::ByteSize;

pub fn pools(reader: &mut Reader, table: &MergedTable<'_>) -> Vec<Pool> {
    let items = table.item("pool").and_then(Item::array).unwrap_or_default();
    items.iter().filter_map(|item| pool(reader, &MergedTable::of_item(item, POOL))).collect()
}

fn pool(reader: &mut Reader, table: &MergedTable<'_>) -> Option<Pool> {
    let ranks = table.item("ranks").and_then(Item::array).unwrap_or_default();
    let rank = |item: &Item| {
        let value = u32::try_from(item.integer()?).ok()?;
        Some(Sited { value, span: item.span })
    };
    // All are read before the first that is missing ends it: every problem in one run.
    let label = reader.text(table, "label", TextKind::Label);
    let size = size(reader, table);
    let pool = Pool {
        tier_ratio: reader.number(table, "tier_ratio"),
        ranks: ranks.iter().filter_map(rank).collect(),
        properties: properties(reader, table),
        user: reader.text(table, "user", TextKind::Principal),
        group: reader.text(table, "group", TextKind::Principal),
        acl: reader.texts(table, "acl", TextKind::AclEntry),
        containers: containers(reader, table),
        span: table.span,
        label: label?,
        size: size?,
    };
    Some(pool)
}

/// `90%` or `10TiB`.
fn size(reader: &mut Reader, table: &MergedTable<'_>) -> Option<Sited<PoolSize>> {
    let item = table.item("size")?;
    let text = item.text()?;
    let value = match text.strip_suffix('%') {
        Some(share) => share
            .parse()
            .ok()
            .filter(|share| (1..=100).contains(share) && !text.starts_with('+'))
            .map(PoolSize::Share),
        None => text.parse::<ByteSize>().ok().filter(|size| size.bytes() > 0).map(PoolSize::Total),
    };
    if value.is_none() {
        reader.error(
            Diagnostic::error(codes::BAD_VALUE, format!("`size` cannot be \"{text}\""))
                .at(item.span)
                .help("write a share of what is free like `90%`, or a size like `10TiB`"),
        );
    }
    Some(Sited { value: value?, span: item.span })
}

fn containers(reader: &mut Reader, table: &MergedTable<'_>) -> Vec<Container> {
    let items = table.item("container").and_then(Item::array).unwrap_or_default();
    let read = |item| container(reader, &MergedTable::of_item(item, CONTAINER));
    items.iter().filter_map(read).collect()
}

fn container(reader: &mut Reader, table: &MergedTable<'_>) -> Option<Container> {
    let kind = reader.text(table, "type", TextKind::Word);
    Some(Container {
        label: reader.text(table, "label", TextKind::Label)?,
        kind: kind.map_or_else(|| "POSIX".to_owned(), |kind| kind.value),
        properties: properties(reader, table),
        span: table.span,
    })
}

/// Names and values that fit between the colons and commas of dmg's option.
fn properties(reader: &mut Reader, table: &MergedTable<'_>) -> BTreeMap<String, Sited<VarValue>> {
    let mut properties = scalars(table, "properties");
    properties.retain(|name, value| {
        let name_fault = TextKind::PropertyName.fault(name);
        let value_fault = match &value.value {
            VarValue::Text(text) => TextKind::PropertyValue.fault(text),
            VarValue::Integer(_) | VarValue::Bool(_) => None,
        };
        if let Some(expected) = name_fault.or(value_fault) {
            let message = format!("the property `{name}` cannot be written so");
            reader.error(
                Diagnostic::error(codes::BAD_VALUE, message)
                    .at(value.span)
                    .help(format!("write {expected}")),
            );
            return false;
        }
        true
    });
    properties
}
