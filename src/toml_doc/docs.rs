//! What a schema looks like to an editor (JSON Schema) and to a reader (Markdown).

use serde_json::{Value, json};

use crate::toml_doc::{Key, Need, Shape};

/// The schema as a JSON Schema (draft 2020-12) object of one table.
pub fn json_schema(keys: &[Key]) -> Value {
    let properties: serde_json::Map<String, Value> = keys
        .iter()
        .map(|key| {
            let mut schema = shape_schema(&key.shape);
            schema["description"] = describe(key).into();
            (key.name.to_owned(), schema)
        })
        .collect();
    let required: Vec<&str> =
        keys.iter().filter(|key| key.need == Need::Required).map(|key| key.name).collect();
    let mut schema =
        json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    schema
}

fn describe(key: &Key) -> String {
    match key.default {
        "" => key.doc.to_owned(),
        default => format!("{} Default: {default}.", key.doc),
    }
}

fn shape_schema(shape: &Shape) -> Value {
    let texts = || json!({ "type": "array", "items": { "type": "string" } });
    match shape {
        Shape::Text => json!({ "type": "string" }),
        Shape::OneOf(words) => json!({ "enum": words }),
        Shape::Integer(min, max) => match *max {
            i64::MAX => json!({ "type": "integer", "minimum": min }),
            max => json!({ "type": "integer", "minimum": min, "maximum": max }),
        },
        Shape::Bool => json!({ "type": "boolean" }),
        Shape::Size => json!({ "type": "string", "pattern": "^[0-9]+ ?([KMGTP]i?B)$" }),
        Shape::SizeOrAuto => {
            json!({ "type": "string", "pattern": "^([0-9]+ ?([KMGTP]i?B)|auto)$" })
        }
        Shape::TimeSpan => json!({ "type": "string", "pattern": "^[0-9]+ ?(s|min|h|d)$" }),
        Shape::Scalar => json!({ "type": ["string", "integer", "boolean"] }),
        Shape::Secret => json!({
            "type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": false,
            "properties": {
                "file": { "type": "string" }, "env": { "type": "string" }, "cmd": { "type": "string" },
            },
        }),
        Shape::List(shape) => json!({ "type": "array", "items": shape_schema(shape) }),
        Shape::Set => json!({ "anyOf": [texts(), {
            "type": "object", "additionalProperties": false,
            "properties": { "remove": texts(), "set": texts() },
        }] }),
        Shape::HostList => json!({ "anyOf": [texts(), { "type": "string" }] }),
        Shape::Table(keys) => json_schema(keys),
        Shape::Map(shape) => {
            json!({ "type": "object", "additionalProperties": shape_schema(shape) })
        }
    }
}

/// The reference of a file and the tables in it, as Markdown headings of `level` and tables.
///
/// What stands in several places is described once, at the first: a table of the same keys
/// refers to it, and a table that takes all keys of an earlier one says so in a line.
pub fn reference(keys: &'static [Key], level: usize) -> String {
    let mut page = Page { level, described: Vec::new(), text: String::new() };
    page.describe("", keys, Place::Table);
    page.text
}

/// How a table is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// `[path]`
    Table,
    /// `[[path]]`, as often as one likes.
    Array,
}

struct Page {
    level: usize,
    /// The headings so far, each with its keys.
    described: Vec<(String, &'static [Key])>,
    text: String,
}

/// A table with fewer keys is not worth a line that refers to it.
const MANY_KEYS: usize = 8;

impl Page {
    fn describe(&mut self, path: &str, keys: &'static [Key], place: Place) {
        let heading = match (path, place) {
            ("", _) => "Top level".to_owned(),
            (path, Place::Table) => format!("`[{path}]`"),
            (path, Place::Array) => format!("`[[{path}]]`"),
        };
        self.text += &format!("\n{} {heading}\n\n", "#".repeat(self.level));
        let taken: Vec<(String, &'static [Key])> = self
            .described
            .iter()
            .filter(|(_, earlier)| takes_all(keys, earlier))
            .cloned()
            .collect();
        if !taken.is_empty() {
            let names: Vec<&str> = taken.iter().map(|(name, _)| name.as_str()).collect();
            self.text += &format!("Every key of {}, and:\n\n", names.join(" and of "));
        }
        let is_new = |key: &&Key| !taken.iter().any(|(_, keys)| has(keys, key));
        let own: Vec<&'static Key> = keys.iter().filter(is_new).collect();
        self.described.push((heading, keys));
        self.text += "| key | type | default | example | meaning |\n|---|---|---|---|---|\n";
        let rows: String = own.iter().map(|key| self.row(path, key)).collect();
        self.text += &rows;
        for key in own {
            if let Some((inner, keys, place)) = inner_table(path, key)
                && self.heading_of(keys).is_none()
            {
                self.describe(&inner, keys, place);
            }
        }
    }

    fn row(&self, path: &str, key: &Key) -> String {
        let default = match (key.default, key.need) {
            ("", Need::Required) => "required".to_owned(),
            ("", Need::Optional) => "–".to_owned(),
            // More than one word is an explanation, not a value.
            (default, _) if default.contains(' ') && !default.starts_with('{') => {
                default.to_owned()
            }
            (default, _) => format!("`{default}`"),
        };
        let elsewhere = inner_table(path, key)
            .and_then(|(_, keys, _)| self.heading_of(keys))
            .map_or_else(String::new, |heading| format!(", as {heading}"));
        let cells = [
            format!("`{}`", key.name),
            type_name(&key.shape) + &elsewhere,
            default,
            if key.example.is_empty() { "–".to_owned() } else { format!("`{}`", key.example) },
            key.doc.to_owned(),
        ];
        let cells = cells.map(|cell| cell.replace('|', "\\|"));
        format!("| {} |\n", cells.join(" | "))
    }

    fn heading_of(&self, keys: &'static [Key]) -> Option<&str> {
        let (heading, _) = self.described.iter().find(|(_, other)| std::ptr::eq(*other, keys))?;
        Some(heading)
    }
}

/// The table under `key`: how its keys begin, and what they are.
fn inner_table(path: &str, key: &Key) -> Option<(String, &'static [Key], Place)> {
    let inner = match path {
        "" => key.name.to_owned(),
        path => format!("{path}.{}", key.name),
    };
    match key.shape {
        Shape::Table(keys) => Some((inner, keys, Place::Table)),
        Shape::List(Shape::Table(keys)) => Some((inner, keys, Place::Array)),
        Shape::Map(Shape::Table(keys)) => Some((format!("{inner}.NAME"), keys, Place::Table)),
        _ => None,
    }
}

fn takes_all(keys: &[Key], earlier: &[Key]) -> bool {
    earlier.len() >= MANY_KEYS && earlier.iter().all(|key| has(keys, key))
}

fn has(keys: &[Key], key: &Key) -> bool {
    keys.iter().any(|other| (other.name, other.doc) == (key.name, key.doc))
}

fn type_name(shape: &Shape) -> String {
    match shape {
        Shape::Text => "text".into(),
        Shape::OneOf(words) => {
            words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
        }
        Shape::Integer(min, i64::MAX) => format!("number ≥ {min}"),
        Shape::Integer(min, max) if min == max => format!("number {min}"),
        Shape::Integer(min, max) => format!("number {min}–{max}"),
        Shape::Bool => "`true`, `false`".into(),
        Shape::Size => "size".into(),
        Shape::SizeOrAuto => "size or `auto`".into(),
        Shape::TimeSpan => "span of time".into(),
        Shape::Scalar => "text, number or truth value".into(),
        Shape::Secret => "secret".into(),
        Shape::List(shape) => format!("array of {}", type_name(shape)),
        Shape::Set => "set".into(),
        Shape::HostList => "node ranges".into(),
        Shape::Table(_) => "table".into(),
        Shape::Map(Shape::Table(_)) => "tables by name".into(),
        Shape::Map(Shape::List(shape)) => format!("arrays of {} by name", type_name(shape)),
        Shape::Map(shape) => format!("{} by name", type_name(shape)),
    }
}
