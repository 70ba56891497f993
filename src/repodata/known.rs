//! Names of EL8's packages and groups that ship with nodeforge, for a warning about a likely
//! slip of the pen where no repository can be asked.

use std::sync::OnceLock;

/// One name a line, sorted by byte, after a heading of `#` lines. Made by
/// `cut -f1 NAMES.tsv | LC_ALL=C sort -u` from public advisories and metadata.
const PACKAGES: &str = include_str!("../data/el8-packages.txt");

/// Ids of comps groups and environments of EL8, sorted by byte.
const GROUPS: &str = include_str!("../data/el8-groups.txt");

/// Whether EL8 or DAOS is known to have a package `name`, with or without its architecture;
/// `@GROUP` and `@^ENVIRONMENT` are looked up among the groups.
///
/// The list is not complete: a name that is not in it may well exist.
pub fn is_known_package(name: &str) -> bool {
    let (names, name) = list_for(name);
    names.binary_search(&name).is_ok()
}

/// Returns the known name that is nearest to `name` in spelling, if one is near enough to be
/// meant; groups come without their `@`.
pub fn similar(name: &str) -> Option<&'static str> {
    let (names, name) = list_for(name);
    let near_enough = (name.chars().count() / 4).clamp(1, 3);
    names
        .iter()
        .filter(|known| known.len().abs_diff(name.len()) <= near_enough)
        .map(|known| (strsim::damerau_levenshtein(known, name), *known))
        .filter(|(distance, _)| (1..=near_enough).contains(distance))
        .min()
        .map(|(_, known)| known)
}

/// `name` without the architecture that kickstarts may add: `glibc.i686` is `glibc`.
pub(super) fn without_arch(name: &str) -> &str {
    const ARCHES: [&str; 4] = [".x86_64", ".noarch", ".i686", ".aarch64"];
    ARCHES.iter().find_map(|arch| name.strip_suffix(arch)).unwrap_or(name)
}

/// The list that `name` belongs to, and `name` as it would stand there.
fn list_for(name: &str) -> (&'static [&'static str], &str) {
    static NAMES: OnceLock<[Vec<&'static str>; 2]> = OnceLock::new();
    let [packages, groups] = NAMES.get_or_init(|| [PACKAGES, GROUPS].map(lines));
    match name.strip_prefix('@') {
        Some(group) => (groups, group.strip_prefix('^').unwrap_or(group)),
        None => (packages, without_arch(name)),
    }
}

fn lines(text: &'static str) -> Vec<&'static str> {
    text.lines().filter(|line| !line.starts_with('#')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_sorted_without_twins() {
        for text in [PACKAGES, GROUPS] {
            let names = lines(text);
            let unsorted: Vec<_> = names.windows(2).filter(|pair| pair[0] >= pair[1]).collect();
            assert_eq!(unsorted, Vec::<&[&str]>::new());
        }
        assert!(lines(PACKAGES).len() > 6000);
    }

    #[test]
    fn known_names_are_known() {
        for (name, is_known) in [
            ("389-ds-base", true),
            ("chrony", true),
            ("daos-server", true),
            ("glibc.i686", true),
            ("xfsprogs", true),
            ("chronyd", false),
            ("", false),
            ("# Package", false),
            ("@core", true),
            ("@^minimal-environment", true),
            ("@infiniband", true),
            ("@infinband", false),
            ("core", false),
        ] {
            assert_eq!(is_known_package(name), is_known, "{name:?}");
        }
    }

    #[test]
    fn slips_of_the_pen_lead_to_the_name_that_was_meant() {
        for (name, meant) in [
            ("daos-servr", Some("daos-server")),
            ("chronny", Some("chrony")),
            ("infiniband-diag", Some("infiniband-diags")),
            ("@infinband", Some("infiniband")),
            ("@^minimal-enviroment", Some("minimal-environment")),
            ("my-site-tools-of-nothing", None),
            ("", None),
        ] {
            assert_eq!(similar(name), meant, "for {name:?}");
        }
    }
}
