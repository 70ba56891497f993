//! YAML as both DAOS's strict reader (Go's yaml.v2) and YAML 1.1 readers take it.

use serde::Serialize;

/// `value` as a block of YAML, keys in the order of the type's fields.
///
/// Strings that a YAML 1.1 reader would take for something else are quoted: PCI addresses
/// (`0000:17:00.0` is a base-60 number there), `yes`, numbers with leading zeros.
pub fn to_yaml<T: Serialize>(value: &T) -> String {
    let options = serde_saphyr::ser_options! {
        // DAOS's own examples indent so; long lines stay whole, so that they can be searched.
        compact_list_indent: true,
        prefer_block_scalars: false,
    };
    serde_saphyr::to_string_with_options(value, options)
        .expect("a tree of structs, lists, numbers and strings has a YAML form")
}
