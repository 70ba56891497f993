//! TOML as written: every value with its place, checked against a closed schema.
//!
//! The cluster file, profiles and overlay.toml are read through here. One table of [`Key`]s
//! says what a file may hold; from it come the check for unknown keys and wrong types, the
//! JSON Schema for editors and the reference in docs/. Whether a MAC address is one, or a
//! name is defined, is not known here.

mod check;
mod docs;
mod syntax;

use std::collections::BTreeMap;

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diag::{Problems, SourceId, SourceMap, Span};

pub use check::{Missing, check, check_required, did_you_mean};
pub use docs::{json_schema, reference};
pub use syntax::Damage;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub value: Value,
    pub span: Span,
    /// Where its key stands; in an array, where the value stands.
    pub key_span: Span,
}

/// The keys of one table, sorted.
pub type Table = BTreeMap<String, Item>;

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(String),
    Integer(i64),
    Float(f64),
    Bool(bool),
    Datetime(String),
    Array(Vec<Item>),
    Table(Table),
}

impl Value {
    /// What a person calls this type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Text(_) => "a string",
            Value::Integer(_) => "a whole number",
            Value::Float(number) if number.is_infinite() => "a number beyond all bounds",
            Value::Float(_) => "a fraction",
            Value::Bool(_) => "true or false",
            Value::Datetime(_) => "a date",
            Value::Array(_) => "an array",
            Value::Table(_) => "a table",
        }
    }

    /// Whether both say the same, wherever they stand.
    pub fn says_the_same(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Array(a), Value::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.value.says_the_same(&b.value))
            }
            (Value::Table(a), Value::Table(b)) => {
                a.len() == b.len()
                    && a.iter().zip(b).all(|((a_key, a), (b_key, b))| {
                        a_key == b_key && a.value.says_the_same(&b.value)
                    })
            }
            _ => self == other,
        }
    }
}

impl Item {
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn integer(&self) -> Option<i64> {
        match self.value {
            Value::Integer(number) => Some(number),
            _ => None,
        }
    }

    pub fn bool(&self) -> Option<bool> {
        match self.value {
            Value::Bool(value) => Some(value),
            _ => None,
        }
    }

    pub fn array(&self) -> Option<&[Item]> {
        match &self.value {
            Value::Array(items) => Some(items),
            _ => None,
        }
    }

    pub fn table(&self) -> Option<&Table> {
        match &self.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    /// The strings of an array; what is no string was reported by [`check`].
    pub fn texts(&self) -> impl Iterator<Item = (&str, Span)> {
        let items = self.array().unwrap_or_default();
        items.iter().filter_map(|item| Some((item.text()?, item.span)))
    }

    /// The value as it would be written in TOML, for messages and `why`.
    pub fn display(&self) -> String {
        match &self.value {
            Value::Text(text) => toml::Value::String(text.clone()).to_string(),
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            Value::Bool(value) => value.to_string(),
            Value::Datetime(text) => text.clone(),
            Value::Array(items) => {
                let items: Vec<String> = items.iter().map(Item::display).collect();
                format!("[{}]", items.join(", "))
            }
            Value::Table(table) => {
                let pairs: Vec<String> =
                    table.iter().map(|(key, item)| format!("{key} = {}", item.display())).collect();
                format!("{{ {} }}", pairs.join(", "))
            }
        }
    }
}

/// What may stand under one key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    pub name: &'static str,
    pub shape: Shape,
    /// One or two sentences for the reference and for editors.
    pub doc: &'static str,
    /// The value that holds where the key is not given, as text; empty where there is none.
    pub default: &'static str,
    /// A value as it would be written.
    pub example: &'static str,
    pub need: Need,
}

/// Whether a table is incomplete without the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Required,
    Optional,
}

/// The type of a value.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    Text,
    OneOf(&'static [&'static str]),
    /// A whole number from the first to the second, both included.
    Integer(i64, i64),
    Bool,
    /// Text that [`ByteSize`](crate::units::ByteSize) reads.
    Size,
    /// Text that [`ByteSize`](crate::units::ByteSize) reads, or the word `auto`.
    SizeOrAuto,
    /// Text that [`Seconds`](crate::units::Seconds) reads.
    TimeSpan,
    /// Text, a number or a truth value: what a site wants.
    Scalar,
    /// `{ file = … }`, `{ env = … }` or `{ cmd = … }`; never the secret itself.
    Secret,
    List(&'static Shape),
    /// A set of texts: an array adds, `{ remove = […] }` and `{ set = […] }` do the rest.
    Set,
    /// Names of nodes: an array of ranges, or one string of ranges.
    HostList,
    Table(&'static [Key]),
    /// A table whose keys are names of the user's choice.
    Map(&'static Shape),
}

/// The keys of a secret reference.
pub const SECRET_KEYS: &[&str] = &["cmd", "env", "file"];

/// The keys that stand for an operation on a set.
pub const SET_KEYS: &[&str] = &["remove", "set"];

impl Shape {
    /// What a person calls values of this shape.
    pub fn describe(&self) -> String {
        match self {
            Shape::Text => "a string".into(),
            Shape::OneOf(words) => {
                let words: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
                words.join(" or ")
            }
            Shape::Integer(min, max) => match (*min, *max) {
                (min, i64::MAX) => format!("a whole number from {min}"),
                (min, max) => format!("a whole number from {min} to {max}"),
            },
            Shape::Bool => "true or false".into(),
            Shape::Size => "a size like \"16GiB\"".into(),
            Shape::SizeOrAuto => "a size like \"16GiB\", or \"auto\"".into(),
            Shape::TimeSpan => "a span of time like \"24h\"".into(),
            Shape::Scalar => "a string, a number or a truth value".into(),
            Shape::Secret => "`{ file = \"…\" }`, `{ env = \"…\" }` or `{ cmd = \"…\" }`".into(),
            Shape::List(shape) => format!("an array, each {}", shape.describe()),
            Shape::Set => "an array of strings, `{ remove = […] }` or `{ set = […] }`".into(),
            Shape::HostList => "an array of node ranges, or one string of ranges".into(),
            Shape::Table(_) => "a table".into(),
            Shape::Map(shape) => format!("a table of names, each {}", shape.describe()),
        }
    }
}

/// Reads the text of `source`; what is not well formed becomes a problem, the rest is kept.
pub fn parse(sources: &SourceMap, source: SourceId, problems: &mut Problems) -> Table {
    parse_damaged(sources, source, problems).0
}

/// As [`parse`], and says what of the table cannot be believed.
pub fn parse_damaged(
    sources: &SourceMap,
    source: SourceId,
    problems: &mut Problems,
) -> (Table, Damage) {
    let text = &sources.file(source).text;
    let (root, faults) = DeTable::parse_recoverable(text);
    let (found, damage) = syntax::judge(text, source, &faults);
    problems.extend(found);
    (table(root.into_inner(), source), damage)
}

fn table(table: DeTable<'_>, source: SourceId) -> Table {
    table
        .into_iter()
        .map(|(key, value)| {
            let key_span = Span::new(source, key.span());
            (key.into_inner().into_owned(), item(value, key_span, source))
        })
        .collect()
}

fn item(spanned: Spanned<DeValue<'_>>, key_span: Span, source: SourceId) -> Item {
    let span = Span::new(source, spanned.span());
    let value = match spanned.into_inner() {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(number) => {
            match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Value::Integer(number),
                // Beyond 64 bits: no key takes so much, and `check` says what it takes.
                Err(_) => Value::Float(f64::INFINITY),
            }
        }
        DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(value) => Value::Bool(value),
        DeValue::Datetime(datetime) => Value::Datetime(datetime.to_string()),
        DeValue::Array(items) => Value::Array(
            items
                .into_iter()
                .map(|value| {
                    let at = Span::new(source, value.span());
                    item(value, at, source)
                })
                .collect(),
        ),
        DeValue::Table(inner) => Value::Table(table(inner, source)),
    };
    Item { value, span, key_span }
}
