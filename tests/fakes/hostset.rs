//! Host sets as DAOS prints them: `node[0-2]:10001`.

use std::collections::BTreeMap;

/// Folds hosts of one port: names that differ only in the number at their end share brackets.
pub fn fold(hosts: &[String], port: u16) -> String {
    let mut groups: BTreeMap<&str, Vec<(u64, &str)>> = BTreeMap::new();
    for host in hosts {
        let prefix = host.trim_end_matches(|c: char| c.is_ascii_digit());
        let digits = &host[prefix.len()..];
        groups.entry(prefix).or_default().push((digits.parse().unwrap_or(0), digits));
    }
    let folded: Vec<String> = groups
        .into_iter()
        .map(|(prefix, mut numbers)| {
            numbers.sort();
            format!("{prefix}{}:{port}", numbers_of(&numbers))
        })
        .collect();
    folded.join(",")
}

/// As [`fold`], without the port: for tables.
pub fn fold_names(hosts: &[String]) -> String {
    fold(hosts, 0).replace(":0", "")
}

/// `0-2,5`, in brackets where there are several.
pub fn ranges(numbers: &[(u64, &str)]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for at in 0..numbers.len() {
        match runs.last_mut() {
            Some((_, last)) if numbers[*last].0 + 1 == numbers[at].0 => *last = at,
            _ => runs.push((at, at)),
        }
    }
    let texts: Vec<String> = runs
        .iter()
        .map(|(first, last)| match first == last {
            true => numbers[*first].1.to_owned(),
            false => format!("{}-{}", numbers[*first].1, numbers[*last].1),
        })
        .collect();
    texts.join(",")
}

fn numbers_of(numbers: &[(u64, &str)]) -> String {
    match numbers {
        [(_, only)] => (*only).to_owned(),
        _ => format!("[{}]", ranges(numbers)),
    }
}
