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

/// The reference of a table and the tables in it, as Markdown; `path` is how its keys begin
/// and `level` how deep its heading is.
pub fn reference(path: &str, keys: &[Key], level: usize) -> String {
    let mut text = String::new();
    if !path.is_empty() {
        text += &format!("\n{} `[{path}]`\n", "#".repeat(level));
    }
    text += "\n| key | type | default | example | meaning |\n|---|---|---|---|---|\n";
    for key in keys {
        let default = match (key.default, key.need) {
            ("", Need::Required) => "required".to_owned(),
            ("", Need::Optional) => "–".to_owned(),
            (default, _) => format!("`{default}`"),
        };
        let cells = [
            format!("`{}`", key.name),
            type_name(&key.shape),
            default,
            if key.example.is_empty() { "–".to_owned() } else { format!("`{}`", key.example) },
            key.doc.to_owned(),
        ];
        let cells = cells.map(|cell| cell.replace('|', "\\|"));
        text += &format!("| {} |\n", cells.join(" | "));
    }
    for key in keys {
        let inner = match path {
            "" => key.name.to_owned(),
            path => format!("{path}.{}", key.name),
        };
        match key.shape {
            Shape::Table(keys) => text += &reference(&inner, keys, level + 1),
            Shape::List(Shape::Table(keys)) => {
                text += &reference(&format!("[{inner}]"), keys, level + 1)
            }
            Shape::Map(Shape::Table(keys)) => {
                text += &reference(&format!("{inner}.NAME"), keys, level + 1)
            }
            _ => {}
        }
    }
    text
}

fn type_name(shape: &Shape) -> String {
    match shape {
        Shape::Text => "text".into(),
        Shape::OneOf(words) => {
            words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
        }
        Shape::Integer(min, i64::MAX) => format!("number ≥ {min}"),
        Shape::Integer(min, max) => format!("number {min}–{max}"),
        Shape::Bool => "`true`, `false`".into(),
        Shape::Size => "size".into(),
        Shape::SizeOrAuto => "size or `auto`".into(),
        Shape::Scalar => "text, number or truth value".into(),
        Shape::Secret => "secret".into(),
        Shape::List(shape) => format!("array of {}", type_name(shape)),
        Shape::Set => "set".into(),
        Shape::HostList => "node ranges".into(),
        Shape::Table(_) => "table".into(),
        Shape::Map(shape) => format!("names → {}", type_name(shape)),
    }
}
