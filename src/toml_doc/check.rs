//! Checks a table against its schema: unknown keys, wrong types, values out of range, and
//! characters that could change the meaning of a file made from them.

use crate::diag::{Diagnostic, Problems, Span, codes};
use crate::toml_doc::{Item, Key, Need, SECRET_KEYS, SET_KEYS, Shape, Table, Value};
use crate::units::{ByteSize, Seconds};

/// Whether a key that is not there is a fault of this table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Nobody's fault yet: another layer may give it.
    MayComeElsewhere,
    /// Point here.
    At(Span),
}

/// Reports everything in `table` that `keys` do not allow.
pub fn check(table: &Table, keys: &[Key], missing: Missing, problems: &mut Problems) {
    for (name, item) in table {
        match keys.iter().find(|key| key.name == name) {
            Some(key) => check_item(name, item, &key.shape, missing, problems),
            None => problems.push(unknown_key(name, item, keys)),
        }
    }
    if let Missing::At(at) = missing {
        let meant: Vec<&str> = table
            .keys()
            .filter(|name| keys.iter().all(|key| key.name != *name))
            .filter_map(|name| did_you_mean(name, keys.iter().map(|key| key.name)))
            .collect();
        let is_there = |name: &str| table.contains_key(name) || meant.contains(&name);
        check_required(is_there, keys, at, problems);
    }
}

/// Reports the required keys that are not there, to be added at `at`.
pub fn check_required(
    is_there: impl Fn(&str) -> bool,
    keys: &[Key],
    at: Span,
    problems: &mut Problems,
) {
    for key in keys.iter().filter(|key| key.need == Need::Required) {
        if !is_there(key.name) {
            problems.push(
                Diagnostic::error(codes::MISSING, format!("`{}` is missing", key.name))
                    .at(at)
                    .help(format!("add `{} = {}`", key.name, key.example))
                    .note(key.doc),
            );
        }
    }
}

fn unknown_key(name: &str, item: &Item, keys: &[Key]) -> Diagnostic {
    let diagnostic =
        Diagnostic::error(codes::UNKNOWN_KEY, format!("unknown key `{name}`")).at(item.key_span);
    let is_known = |inner: &str| keys.iter().any(|key| key.name == inner);
    if let Some((inner, _)) = item.table().and_then(|table| table.first_key_value())
        && is_known(inner)
    {
        return diagnostic.help(format!("write `{inner}` itself here, without `{name}.`"));
    }
    match did_you_mean(name, keys.iter().map(|key| key.name)) {
        Some(similar) => diagnostic.help(format!("did you mean `{similar}`?")),
        None => {
            let names: Vec<&str> = keys.iter().map(|key| key.name).collect();
            diagnostic.help(format!("known here: {}", names.join(", ")))
        }
    }
}

/// The candidate closest to `name`, if one is close enough to be a slip of the pen.
pub fn did_you_mean<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().min(name.len()) / 4)
        .min()
        .map(|(_, candidate)| candidate)
}

fn check_item(name: &str, item: &Item, shape: &Shape, missing: Missing, problems: &mut Problems) {
    match (shape, &item.value) {
        (Shape::Text | Shape::Scalar, Value::Text(text)) => {
            check_text(name, text, item.span, problems)
        }
        (Shape::Scalar, Value::Integer(_) | Value::Bool(_)) | (Shape::Bool, Value::Bool(_)) => {}
        (Shape::OneOf(words), Value::Text(text)) => {
            if !words.contains(&text.as_str()) {
                problems.push(not_allowed(name, text, words, item.span));
            }
        }
        (Shape::Integer(min, max), Value::Integer(number)) => {
            if !(*min..=*max).contains(number) {
                let message = format!("`{name}` is {number}; expected {}", shape.describe());
                problems.push(Diagnostic::error(codes::OUT_OF_RANGE, message).at(item.span));
            }
        }
        (Shape::SizeOrAuto, Value::Text(text)) if text == "auto" => {}
        (Shape::Size | Shape::SizeOrAuto, Value::Text(text)) => {
            if let Err(fault) = text.parse::<ByteSize>() {
                problems.push(Diagnostic::error(codes::BAD_VALUE, fault.to_string()).at(item.span));
            }
        }
        (Shape::TimeSpan, Value::Text(text)) => {
            if let Err(fault) = text.parse::<Seconds>() {
                problems.push(Diagnostic::error(codes::BAD_VALUE, fault.to_string()).at(item.span));
            }
        }
        (Shape::Secret, _) => check_secret(name, item, problems),
        (Shape::List(shape), Value::Array(items)) => {
            for item in items {
                check_item(name, item, shape, Missing::At(item.span), problems);
            }
        }
        (Shape::Set | Shape::HostList, Value::Array(items)) => {
            for item in items {
                check_item(name, item, &Shape::Text, missing, problems);
            }
        }
        (Shape::HostList, Value::Text(text)) => check_text(name, text, item.span, problems),
        (Shape::Set, Value::Table(table)) => check_set(table, problems),
        (Shape::Table(keys), Value::Table(table)) => {
            let missing = match missing {
                Missing::At(_) => Missing::At(item.key_span),
                Missing::MayComeElsewhere => missing,
            };
            check(table, keys, missing, problems);
        }
        (Shape::Map(shape), Value::Table(table)) => {
            for (name, item) in table {
                check_text(name, name, item.key_span, problems);
                check_item(name, item, shape, missing, problems);
            }
        }
        _ => problems.push(wrong_type(name, item, shape)),
    }
}

fn check_text(name: &str, text: &str, at: Span, problems: &mut Problems) {
    if let Some(character) = text.chars().find(|c| c.is_control()) {
        let message =
            format!("`{name}` holds the control character {}", character.escape_default());
        problems.push(Diagnostic::error(codes::UNSAFE_TEXT, message).at(at).help(
            "write it on one line: a line break here could add lines to a kickstart or a unit",
        ));
    }
}

fn not_allowed(name: &str, text: &str, words: &[&str], at: Span) -> Diagnostic {
    let message = format!("`{name}` cannot be \"{text}\"");
    let help = match did_you_mean(text, words.iter().copied()) {
        Some(similar) => format!("did you mean \"{similar}\"?"),
        None => format!(
            "write {}",
            words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ")
        ),
    };
    Diagnostic::error(codes::NOT_ALLOWED, message).at(at).help(help)
}

fn wrong_type(name: &str, item: &Item, shape: &Shape) -> Diagnostic {
    let expected = shape.describe();
    let message = format!("`{name}` is {}; expected {expected}", item.value.type_name());
    Diagnostic::error(codes::WRONG_TYPE, message)
        .at_labelled(item.span, format!("expected {expected}"))
}

fn check_secret(name: &str, item: &Item, problems: &mut Problems) {
    let help = format!(
        "keep the secret outside the cluster file: {name} = {{ file = \"secrets/{name}\" }}"
    );
    let table = match &item.value {
        Value::Table(table) => table,
        _ => {
            let message = format!("`{name}` is a secret and must not stand in the cluster file");
            problems
                .push(Diagnostic::error(codes::INLINE_SECRET, message).at(item.span).help(help));
            return;
        }
    };
    let known: Vec<&str> =
        table.keys().map(String::as_str).filter(|key| SECRET_KEYS.contains(key)).collect();
    for (key, item) in table {
        if !SECRET_KEYS.contains(&key.as_str()) {
            let message = format!("unknown key `{key}`");
            problems.push(
                Diagnostic::error(codes::UNKNOWN_KEY, message).at(item.key_span).help(&*help),
            );
            continue;
        }
        match item.text() {
            None => problems.push(wrong_type(key, item, &Shape::Text)),
            Some("") => problems.push(
                Diagnostic::error(codes::BAD_VALUE, format!("`{key}` is empty"))
                    .at(item.span)
                    .help(&*help),
            ),
            Some(text) => check_text(key, text, item.span, problems),
        }
    }
    let code = if known.is_empty() { codes::MISSING } else { codes::GIVEN_TWICE };
    if known.len() > 1 || table.is_empty() {
        let message = format!("`{name}` needs exactly one of `file`, `env` and `cmd`");
        problems.push(Diagnostic::error(code, message).at(item.span).help(help));
    }
}

fn check_set(table: &Table, problems: &mut Problems) {
    for (key, item) in table {
        match SET_KEYS.contains(&key.as_str()) {
            true => {
                let shape = Shape::List(&Shape::Text);
                check_item(key, item, &shape, Missing::MayComeElsewhere, problems);
            }
            false => {
                let message = format!("unknown key `{key}`");
                problems
                    .push(Diagnostic::error(codes::UNKNOWN_KEY, message).at(item.key_span).help(
                    "a set takes an array, which adds, or `{ remove = […] }` or `{ set = […] }`",
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::SourceMap;
    use crate::toml_doc::parse;

    const fn key(name: &'static str, shape: Shape, need: Need) -> Key {
        Key { name, shape, doc: "A key.", default: "", example: "1", need }
    }

    const KEYS: &[Key] = &[
        key("name", Shape::Text, Need::Required),
        key("mode", Shape::OneOf(&["disabled", "enforcing"]), Need::Optional),
        key("port", Shape::Integer(1, 65535), Need::Optional),
        key("size", Shape::Size, Need::Optional),
        key("hash", Shape::Secret, Need::Optional),
        key("packages", Shape::Set, Need::Optional),
        key("hosts", Shape::HostList, Need::Optional),
        key(
            "nic",
            Shape::Map(&Shape::Table(&[key("ip", Shape::Text, Need::Optional)])),
            Need::Optional,
        ),
    ];

    fn problems_of(text: &str) -> Vec<String> {
        let mut sources = SourceMap::default();
        let id = sources.add("c.toml".into(), text.into());
        let mut problems = Problems::default();
        let table = parse(&sources, id, &mut problems);
        check(&table, KEYS, Missing::At(Span::new(id, 0..0)), &mut problems);
        let found = problems.into_sorted();
        let place = |d: &Diagnostic| sources.line_column(d.primary.as_ref().unwrap().span);
        found
            .iter()
            .map(|d| format!("{}:{} {} {}", place(d).line, place(d).column, d.code, d.message))
            .collect()
    }

    #[test]
    fn a_good_file_has_no_problems() {
        let text = "name = \"x\"\nmode = \"disabled\"\nport = 1\nsize = \"1GiB\"\nhash = { file = \"f\" }\n\
                    packages = { remove = [\"a\"] }\nhosts = \"n[1-2]\"\nnic.a.ip = \"1\"\n";
        assert_eq!(problems_of(text), Vec::<String>::new());
    }

    #[test]
    fn every_problem_is_reported_with_its_place() {
        let text = "mode = \"disbled\"\nport = 70000\nsize = \"4.5GiB\"\nhash = \"hunter2\"\n\
                    packages = { add = [] }\nnic.a.pi = \"1\"\nhosts = 3\n";
        assert_eq!(
            problems_of(text),
            [
                "1:1 NF103 `name` is missing",
                "1:8 NF104 `mode` cannot be \"disbled\"",
                "2:8 NF105 `port` is 70000; expected a whole number from 1 to 65535",
                "3:8 NF121 `4.5GiB` is not a size; expected a whole number and a unit, like `16GiB` or `512MiB`",
                "4:8 NF401 `hash` is a secret and must not stand in the cluster file",
                "5:14 NF101 unknown key `add`",
                "6:7 NF101 unknown key `pi`",
                "7:9 NF102 `hosts` is a whole number; expected an array of node ranges, or one string of ranges",
            ]
        );
    }

    #[test]
    fn line_breaks_in_text_are_refused() {
        assert_eq!(
            problems_of("name = \"a\\n%post\"\n"),
            ["1:8 NF308 `name` holds the control character \\n"]
        );
    }

    #[test]
    fn several_syntax_errors_are_found_in_one_run() {
        let found = problems_of("name = \"x\"\nport = = 3\n[nic.a]\nip = \"x\n");
        assert!(found.iter().filter(|line| line.contains("NF100")).count() >= 2, "{found:?}");
    }

    #[test]
    fn slips_of_the_pen_find_the_key_meant() {
        for (slip, meant) in
            [("selinx", Some("selinux")), ("firewal", Some("firewall")), ("zzz", None)]
        {
            assert_eq!(did_you_mean(slip, ["selinux", "firewall"]), meant, "{slip}");
        }
    }
}
