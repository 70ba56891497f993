//! Reads typed values out of merged tables; what cannot be read becomes a problem.

use std::fmt::Display;
use std::net::Ipv4Addr;
use std::str::FromStr;

use crate::cluster::merge::MergedTable;
use crate::cluster::model::Sited;
use crate::cluster::text::TextKind;
use crate::diag::{Code, Diagnostic, Problems, Span, codes};
use crate::range::{self, NodeName};
use crate::units::ByteSize;

/// Collects the problems of reading, and whether anything had to be made up to go on.
#[derive(Debug, Default)]
pub struct Reader {
    pub problems: Problems,
    /// Set when a required value was missing or unreadable: what is computed from the result
    /// would blame the wrong thing.
    pub has_gaps: bool,
}

impl Reader {
    pub fn error(&mut self, diagnostic: Diagnostic) {
        self.has_gaps = true;
        self.problems.push(diagnostic);
    }

    /// A text of `kind`.
    pub fn text(
        &mut self,
        table: &MergedTable<'_>,
        key: &str,
        kind: TextKind,
    ) -> Option<Sited<String>> {
        let item = table.item(key)?;
        let text = Sited { value: item.text()?.to_owned(), span: item.span };
        self.judge(key, &text, kind).then_some(text)
    }

    /// Texts of `kind`; those that are not of it are left out.
    pub fn texts(
        &mut self,
        table: &MergedTable<'_>,
        key: &str,
        kind: TextKind,
    ) -> Vec<Sited<String>> {
        let items = table.item(key).into_iter().flat_map(|item| item.texts());
        items
            .map(|(text, span)| Sited { value: text.to_owned(), span })
            .filter(|text| self.judge(key, text, kind))
            .collect()
    }

    /// The members of a set, all of `kind`.
    pub fn set(
        &mut self,
        table: &MergedTable<'_>,
        key: &str,
        kind: TextKind,
    ) -> Vec<Sited<String>> {
        table
            .set(key)
            .map(|(text, span)| Sited { value: text.to_owned(), span })
            .filter(|text| self.judge(key, text, kind))
            .collect()
    }

    fn judge(&mut self, key: &str, text: &Sited<String>, kind: TextKind) -> bool {
        let Some(expected) = kind.fault(text) else { return true };
        if text.value.contains(char::is_control) {
            // The check against the schema has said so.
            self.has_gaps = true;
            return false;
        }
        let message = format!("`{key}` cannot be \"{}\"", text.value);
        self.error(
            Diagnostic::error(kind.code(), message).at(text.span).help(format!("write {expected}")),
        );
        false
    }

    /// A value that has a text form of its own, such as a MAC address.
    pub fn parsed<T>(&mut self, table: &MergedTable<'_>, key: &str, code: Code) -> Option<Sited<T>>
    where
        T: FromStr<Err: Display>,
    {
        let item = table.item(key)?;
        self.parse(item.text()?, item.span, code)
    }

    pub fn parse<T>(&mut self, text: &str, span: Span, code: Code) -> Option<Sited<T>>
    where
        T: FromStr<Err: Display>,
    {
        match text.parse() {
            Ok(value) => Some(Sited { value, span }),
            Err(fault) => {
                self.error(Diagnostic::error(code, fault.to_string()).at(span));
                None
            }
        }
    }

    pub fn address(&mut self, text: &str, span: Span) -> Option<Sited<Ipv4Addr>> {
        let value = text.parse().ok();
        if value.is_none() {
            let message = format!("`{text}` is not an IPv4 address");
            self.error(
                Diagnostic::error(codes::BAD_ADDRESS, message)
                    .at(span)
                    .help("write four numbers from 0 to 255, like `10.20.0.11`"),
            );
        }
        Some(Sited { value: value?, span })
    }

    /// A size; the check against the schema has said so where it is none.
    pub fn size(&self, table: &MergedTable<'_>, key: &str) -> Option<Sited<ByteSize>> {
        let item = table.item(key)?;
        Some(Sited { value: item.text()?.parse().ok()?, span: item.span })
    }

    /// One of a few words.
    pub fn word<T: Copy>(
        &mut self,
        table: &MergedTable<'_>,
        key: &str,
        words: &[(&str, T)],
    ) -> Option<Sited<T>> {
        let item = table.item(key)?;
        let text = item.text()?;
        let (_, value) = words.iter().find(|(word, _)| *word == text)?;
        Some(Sited { value: *value, span: item.span })
    }

    /// A number; its range was checked against the schema.
    pub fn number<T: TryFrom<i64>>(
        &mut self,
        table: &MergedTable<'_>,
        key: &str,
    ) -> Option<Sited<T>> {
        let item = table.item(key)?;
        Some(Sited { value: T::try_from(item.integer()?).ok()?, span: item.span })
    }

    pub fn truth(&mut self, table: &MergedTable<'_>, key: &str, default: bool) -> Sited<bool> {
        let item = table.item(key).and_then(|item| Some((item.bool()?, item.span)));
        let (value, span) = item.unwrap_or((default, table.span));
        Sited { value, span }
    }

    /// The nodes of a host list, in the order written, each with its place.
    pub fn hosts(&mut self, table: &MergedTable<'_>, key: &str) -> Vec<Sited<NodeName>> {
        let Some(item) = table.item(key) else { return Vec::new() };
        let texts: Vec<(&str, Span)> = match item.text() {
            Some(text) => vec![(text, item.span)],
            None => item.texts().collect(),
        };
        let mut hosts = Vec::new();
        for (text, span) in texts {
            let names = self.range(text, span);
            hosts.extend(names.into_iter().map(|value| Sited { value, span }));
        }
        hosts
    }

    /// The names of a range; empty if it cannot be read.
    pub fn range(&mut self, text: &str, span: Span) -> Vec<NodeName> {
        range::expand(text).unwrap_or_else(|fault| {
            let message = format!("`{text}` is no range of nodes: {fault}");
            self.error(
                Diagnostic::error(codes::BAD_RANGE, message).at(span).help(
                    "write ranges like `srv[001-512]`, `n[1,3,7-9]` or `srv[001-512]!srv017`",
                ),
            );
            Vec::new()
        })
    }

    /// The value, or `default` where the file says nothing; problems then point at the table.
    pub fn or<T>(&self, value: Option<Sited<T>>, table: &MergedTable<'_>, default: T) -> Sited<T> {
        value.unwrap_or(Sited { value: default, span: table.span })
    }
}
