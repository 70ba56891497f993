//! What cannot change once the storage is formatted.
//!
//! DAOS's documentation marks these keys; a change needs a new format, which loses the data,
//! so a comparison of two configurations must shout.

/// A key of daos_server.yml that format fixes, and where the cluster file says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImmutableKey {
    /// As in daos_server.yml; `[]` stands for each item.
    pub yaml: &'static str,
    /// As in the cluster file; `None` where nodeforge does not write the key.
    pub cluster: Option<&'static str>,
    /// What a change does.
    pub consequence: &'static str,
}

/// Every such key, in the order of daos_server.yml (`utils/config/daos_server.yml`, "Immutable
/// after running \"dmg storage format\"").
pub const IMMUTABLE: &[ImmutableKey] = &[
    key("name", Some("daos.system_name"), "servers refuse each other, as another system's (603)"),
    key("access_points", Some("daos.access_points"), "a second, empty system may be founded"),
    key("mgmt_svc_replicas", Some("daos.access_points"), "a second, empty system may be founded"),
    key(
        "control_metadata.path",
        Some("daos.control_metadata.path"),
        "superblocks are not found, and the next format wipes the SSDs",
    ),
    key(
        "control_metadata.device",
        None,
        "superblocks are not found, and the next format wipes the SSDs",
    ),
    key(
        "fault_path",
        Some("daos.fault_path"),
        "ranks join with another fault domain than their data was laid out for",
    ),
    key("bdev_exclude", None, "SSDs appear or vanish under formatted engines"),
    key("engines[].targets", Some("engine.targets"), "the engine does not find its targets' data"),
    key(
        "engines[].nr_xs_helpers",
        Some("engine.helpers"),
        "the engine's threads no longer match its layout",
    ),
    key(
        "engines[].first_core",
        Some("engine.first_core"),
        "the engine's threads no longer match its layout",
    ),
    key(
        "engines[].storage[].class",
        Some("engine.scm.class, engine.bdev.class"),
        "the engine does not find its data",
    ),
    key(
        "engines[].storage[].bdev_list",
        Some("engine.bdev.list"),
        "the engine does not find its data, or takes it for another role's",
    ),
];

const fn key(
    yaml: &'static str,
    cluster: Option<&'static str>,
    consequence: &'static str,
) -> ImmutableKey {
    ImmutableKey { yaml, cluster, consequence }
}

/// The entry for a path into daos_server.yml such as `engines[1].storage[2].bdev_list[0]`,
/// if format fixes it or what it is part of.
pub fn find(path: &str) -> Option<&'static ImmutableKey> {
    let path = without_indices(path);
    IMMUTABLE.iter().find(|key| {
        let rest = path.strip_prefix(key.yaml);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    })
}

/// `engines[1].targets` as `engines[].targets`.
fn without_indices(path: &str) -> String {
    let mut is_index = false;
    path.chars()
        .filter(|c| {
            match c {
                '[' => is_index = true,
                ']' => is_index = false,
                _ => return !is_index,
            }
            true
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_into_the_file_find_what_format_fixes() {
        for (path, found) in [
            ("name", Some("name")),
            ("access_points[2]", Some("access_points")),
            ("engines[1].targets", Some("engines[].targets")),
            ("engines[0].storage[2].bdev_list[11]", Some("engines[].storage[].bdev_list")),
            ("engines[0].storage[0].scm_size", None),
            ("engines[0].targets_more", None),
            ("control_log_mask", None),
        ] {
            assert_eq!(find(path).map(|key| key.yaml), found, "of {path}");
        }
    }
}
