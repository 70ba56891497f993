//! Ranges of node names, such as `srv[001-512]`.
//!
//! The syntax is ClusterShell's, which operators know from `clush` and `dmg`: numbers and
//! spans in brackets (zero padding kept), several terms joined by commas, and `!` to leave
//! some out: `srv[001-512]!srv[017-020]`.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};
use std::fmt;

/// The most names one expression may stand for; a typing error (`n[1-9999999999]`) would
/// otherwise fill the memory.
pub const MAX_NAMES: usize = 100_000;

/// A node's name, ordered as people count: `node2` before `node10`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeName(String);

impl NodeName {
    /// Any text; whether it is a host name is checked where the cluster is resolved.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number at the end of the name as written: `srv017` gives 17.
    pub fn index(&self) -> Option<u64> {
        split_number(&self.0)?.1.parse().ok()
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Ord for NodeName {
    fn cmp(&self, other: &Self) -> Ordering {
        if self.0 == other.0 {
            return Ordering::Equal;
        }
        let split = |name| split_number(name).unwrap_or((name, ""));
        let ((prefix, digits), (other_prefix, other_digits)) = (split(&self.0), split(&other.0));
        // Most names of a cluster have equally many digits, which compare as they stand.
        let number = |digits: &str| digits.parse::<u64>().ok();
        prefix.cmp(other_prefix).then_with(|| match digits.len() == other_digits.len() {
            true => digits.cmp(other_digits),
            false => number(digits).cmp(&number(other_digits)).then_with(|| self.0.cmp(&other.0)),
        })
    }
}

impl PartialOrd for NodeName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// `srv017` split into `srv` and `017`; `None` without a number at the end.
fn split_number(name: &str) -> Option<(&str, &str)> {
    let digits = name.bytes().rev().take_while(u8::is_ascii_digit).count();
    (digits > 0).then(|| name.split_at(name.len() - digits))
}

/// The names that `expression` stands for, in the order written, each once, with the number
/// in the last bracket.
///
/// # Errors
///
/// Says what is wrong with the expression, in words for its author.
pub fn expand(expression: &str) -> Result<Vec<NodeName>, RangeError> {
    let mut names: Vec<String> = Vec::new();
    for (at, part) in expression.split('!').enumerate() {
        let terms = expand_terms(part)?;
        if at == 0 {
            names = terms;
            continue;
        }
        let known: HashSet<&str> = names.iter().map(String::as_str).collect();
        if let Some(unknown) = terms.iter().find(|name| !known.contains(name.as_str())) {
            return Err(RangeError(format!(
                "`!{part}` leaves out `{unknown}`, which is not in the range"
            )));
        }
        let left_out: HashSet<String> = terms.into_iter().collect();
        names.retain(|name| !left_out.contains(name));
    }
    let mut seen = HashSet::new();
    if let Some(twice) = names.iter().find(|name| !seen.insert(name.as_str())) {
        return Err(RangeError(format!("`{twice}` comes twice in `{expression}`")));
    }
    if names.is_empty() {
        return Err(RangeError(format!("`{expression}` names no node")));
    }
    Ok(names.into_iter().map(NodeName).collect())
}

/// A range expression that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RangeError(String);

fn expand_terms(expression: &str) -> Result<Vec<String>, RangeError> {
    let mut names = Vec::new();
    for term in split_outside_brackets(expression)? {
        let term = term.trim();
        if term.is_empty() {
            return Err(RangeError(format!("an empty name in `{expression}`")));
        }
        expand_term("", term, &mut names)?;
    }
    Ok(names)
}

fn split_outside_brackets(expression: &str) -> Result<Vec<&str>, RangeError> {
    let (mut terms, mut start, mut is_inside) = (Vec::new(), 0, false);
    for (at, character) in expression.char_indices() {
        match (character, is_inside) {
            ('[', false) => is_inside = true,
            (']', true) => is_inside = false,
            ('[', true) | (']', false) => {
                return Err(RangeError(format!("unbalanced `{character}` in `{expression}`")));
            }
            (',', false) => {
                terms.push(&expression[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if is_inside {
        return Err(RangeError(format!("`[` without `]` in `{expression}`")));
    }
    terms.push(&expression[start..]);
    Ok(terms)
}

/// Expands the first bracket of `rest` and goes on with what follows it.
fn expand_term(prefix: &str, rest: &str, names: &mut Vec<String>) -> Result<(), RangeError> {
    let Some((before, bracket)) = rest.split_once('[') else {
        if names.len() >= MAX_NAMES {
            return Err(RangeError(format!("more than {MAX_NAMES} names")));
        }
        names.push(format!("{prefix}{rest}"));
        return Ok(());
    };
    let (inside, after) = bracket.split_once(']').expect("brackets were found balanced");
    for span in inside.split(',') {
        for number in numbers(span.trim())? {
            expand_term(&format!("{prefix}{before}{number}"), after, names)?;
        }
    }
    Ok(())
}

/// `001-003` as `001`, `002`, `003`; `7` as itself.
fn numbers(span: &str) -> Result<impl Iterator<Item = String> + use<>, RangeError> {
    let (first, last) = span.split_once('-').unwrap_or((span, span));
    let number = |digits: &str| {
        let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        let number = is_number.then(|| digits.parse::<u64>().ok()).flatten();
        number.ok_or_else(|| {
            RangeError(format!("`{span}` is neither a number nor a span like `1-9`"))
        })
    };
    let (low, high) = (number(first)?, number(last)?);
    let is_padded = |digits: &str| digits.len() > 1 && digits.starts_with('0');
    if (is_padded(first) || is_padded(last)) && first.len() != last.len() {
        return Err(RangeError(format!("`{span}` pads its ends to different widths")));
    }
    if low > high {
        return Err(RangeError(format!("`{span}` counts down; write `{last}-{first}`")));
    }
    if high - low >= MAX_NAMES as u64 {
        return Err(RangeError(format!("`{span}` is more than {MAX_NAMES} names")));
    }
    let width = first.len();
    Ok((low..=high).map(move |number| format!("{number:0width$}")))
}

/// Names folded into as few ranges as possible, for messages: `node[0-2],srv[001-512]`.
pub fn fold<'a>(names: impl IntoIterator<Item = &'a NodeName>) -> String {
    let mut sorted: Vec<&NodeName> = names.into_iter().collect();
    sorted.sort();
    sorted.dedup();
    let mut groups: BTreeMap<(&str, usize), Vec<u64>> = BTreeMap::new();
    let mut plain: Vec<&str> = Vec::new();
    for name in sorted {
        match split_number(&name.0).and_then(|(prefix, digits)| {
            let padded_width = if digits.starts_with('0') { digits.len() } else { 0 };
            Some(((prefix, padded_width), digits.parse().ok()?))
        }) {
            Some((group, number)) => groups.entry(group).or_default().push(number),
            None => plain.push(&name.0),
        }
    }
    let mut padded: Vec<(&str, usize)> =
        groups.keys().filter(|(_, width)| *width > 0).copied().collect();
    padded.sort();
    // `srv099` and `srv100` are of one padded group although only the first shows a zero.
    for (prefix, width) in padded {
        let Some(wide) = groups.get_mut(&(prefix, 0)) else { continue };
        let (same, other): (Vec<u64>, Vec<u64>) =
            wide.drain(..).partition(|number| number.to_string().len() == width);
        *wide = other;
        groups.entry((prefix, width)).or_default().extend(same);
    }
    groups.retain(|_, numbers| !numbers.is_empty());
    let mut folded: Vec<String> = plain.into_iter().map(str::to_owned).collect();
    folded.extend(
        groups.into_iter().map(|((prefix, width), numbers)| fold_numbers(prefix, width, numbers)),
    );
    folded.sort();
    folded.join(",")
}

fn fold_numbers(prefix: &str, width: usize, mut numbers: Vec<u64>) -> String {
    numbers.sort_unstable();
    if let [only] = numbers.as_slice() {
        return format!("{prefix}{only:0width$}");
    }
    let mut spans: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        match spans.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => spans.push((number, number)),
        }
    }
    let spans: Vec<String> = spans
        .into_iter()
        .map(|(first, last)| match first == last {
            true => format!("{first:0width$}"),
            false => format!("{first:0width$}-{last:0width$}"),
        })
        .collect();
    format!("{prefix}[{}]", spans.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(expression: &str) -> Vec<String> {
        expand(expression).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ranges_expand_in_order_and_keep_their_padding() {
        for (expression, names) in [
            ("node0", vec!["node0"]),
            ("n[1,3,7-9]", vec!["n1", "n3", "n7", "n8", "n9"]),
            ("srv[099-101]", vec!["srv099", "srv100", "srv101"]),
            ("r[1-2]n[1-2]", vec!["r1n1", "r1n2", "r2n1", "r2n2"]),
            ("a,b[1-2]", vec!["a", "b1", "b2"]),
            ("n[1-5]!n[2-4]", vec!["n1", "n5"]),
        ] {
            assert_eq!(expanded(expression), names, "from {expression:?}");
        }
    }

    #[test]
    fn faulty_ranges_say_what_is_wrong() {
        for (expression, message) in [
            ("n[1-", "`[` without `]` in `n[1-`"),
            ("n1]", "unbalanced `]` in `n1]`"),
            ("n[5-1]", "`5-1` counts down; write `1-5`"),
            ("n[a-b]", "`a-b` is neither a number nor a span like `1-9`"),
            ("n[01-100]", "`01-100` pads its ends to different widths"),
            ("n[1-2],n1", "`n1` comes twice in `n[1-2],n1`"),
            ("n[1-2]!n[1-2]", "`n[1-2]!n[1-2]` names no node"),
            ("n[1-2]!n3", "`!n3` leaves out `n3`, which is not in the range"),
            ("a,,b", "an empty name in `a,,b`"),
            ("n[1-9999999]", "`1-9999999` is more than 100000 names"),
        ] {
            assert_eq!(expand(expression).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn names_sort_as_people_count() {
        let mut names: Vec<NodeName> =
            ["node10", "node2", "adm1", "node02"].into_iter().map(NodeName::new).collect();
        names.sort();
        let sorted: Vec<&str> = names.iter().map(NodeName::as_str).collect();
        assert_eq!(sorted, ["adm1", "node02", "node2", "node10"]);
    }

    #[test]
    fn folding_undoes_expanding() {
        for expression in
            ["node0", "node[0-2]", "srv[001-512]", "srv[001-016,018-512]", "adm[1-2],n[7,9]"]
        {
            assert_eq!(fold(&expand(expression).unwrap()), expression);
        }
    }
}
