//! When a node gets a file: a question to a value of the context.

use serde_json::Value;

use crate::diag::Span;

/// `path`, `!path`, `path == value` or `path != value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// From a root of the context: `daos`, `security`.
    pub path: Vec<String>,
    pub test: Test,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// True, not zero, not empty, not null.
    Holds,
    HoldsNot,
    Is(String),
    IsNot(String),
}

impl Condition {
    /// `None` for what is no condition.
    pub fn parse(text: &str, span: Span) -> Option<Self> {
        let (path, test) = match (text.split_once("=="), text.split_once("!=")) {
            (Some((path, value)), None) => (path, Test::Is(word(value)?)),
            (None, Some((path, value))) => (path, Test::IsNot(word(value)?)),
            (None, None) => match text.strip_prefix('!') {
                Some(path) => (path, Test::HoldsNot),
                None => (text, Test::Holds),
            },
            (Some(_), Some(_)) => return None,
        };
        let path = path.trim();
        is_path(path).then(|| Self {
            path: path.split('.').map(str::to_owned).collect(),
            test,
            span,
        })
    }

    /// Whether it holds in `context`; `None` if the path is not defined there.
    pub fn holds(&self, context: &Value) -> Option<bool> {
        let mut value = context;
        for step in &self.path {
            value = value.get(step)?;
        }
        Some(match &self.test {
            Test::Holds => is_something(value),
            Test::HoldsNot => !is_something(value),
            Test::Is(text) => says(value, text),
            Test::IsNot(text) => !says(value, text),
        })
    }
}

fn word(text: &str) -> Option<String> {
    let word = text.trim();
    let is_word = !word.is_empty() && !word.contains(|c: char| c.is_whitespace() || c == '=');
    is_word.then(|| word.to_owned())
}

/// Whether `text` is a path of a context: names with dots between.
pub(super) fn is_path(text: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'))
    };
    text.split('.').all(is_name)
}

fn is_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(table) => !table.is_empty(),
    }
}

fn says(value: &Value, text: &str) -> bool {
    match value {
        Value::String(value) => value == text,
        Value::Number(value) => value.to_string() == text,
        Value::Bool(value) => value.to_string() == text,
        _ => false,
    }
}
