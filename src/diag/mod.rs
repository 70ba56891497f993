//! Problems found in what the user wrote: where, what, and what to write instead.
//!
//! A [`Diagnostic`] points into a [`SourceMap`] by [`Span`]; [`render`] draws it for a
//! person and [`to_json`](Diagnostic::to_json) describes it for a script. Codes are listed
//! in [`codes`]. Failures of the world (a full disk) are not diagnostics but errors.

pub mod codes;
mod render;

use std::path::{Path, PathBuf};

pub use codes::Code;
pub use render::{Color, render};

/// One file that was read, by its place in the [`SourceMap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(u32);

/// A range of bytes in one source file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    pub source: SourceId,
    pub start: u32,
    pub end: u32,
}

impl Span {
    /// A span of `range`, in bytes from the start of `source`.
    pub fn new(source: SourceId, range: std::ops::Range<usize>) -> Self {
        let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Self { source, start: offset(range.start), end: offset(range.end) }
    }

    /// The range of bytes within the source's text.
    pub fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// The text of one file, under the name the user knows it by.
#[derive(Debug)]
pub struct SourceFile {
    /// As the user wrote it, or `<builtin>/…` for what the binary brings along.
    pub path: PathBuf,
    pub text: String,
}

/// A place as people and editors count it: both from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineColumn {
    pub line: usize,
    pub column: usize,
}

/// Every file that was read in this run.
#[derive(Debug, Default)]
pub struct SourceMap {
    files: Vec<SourceFile>,
}

impl SourceMap {
    pub fn add(&mut self, path: PathBuf, text: String) -> SourceId {
        self.files.push(SourceFile { path, text });
        SourceId(u32::try_from(self.files.len() - 1).expect("fewer than 4 billion files are read"))
    }

    /// All texts, in the order in which they were added.
    pub fn files(&self) -> impl Iterator<Item = &SourceFile> {
        self.files.iter()
    }

    pub fn file(&self, id: SourceId) -> &SourceFile {
        &self.files[id.0 as usize]
    }

    pub fn path(&self, id: SourceId) -> &Path {
        &self.file(id).path
    }

    /// The text that `span` covers.
    pub fn slice(&self, span: Span) -> &str {
        self.file(span.source).text.get(span.range()).unwrap_or_default()
    }

    /// Where `span` starts.
    pub fn line_column(&self, span: Span) -> LineColumn {
        let text = &self.file(span.source).text;
        let before = text.get(..span.range().start).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        LineColumn {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    /// `path:line:column` of where `span` starts.
    pub fn place(&self, span: Span) -> String {
        let LineColumn { line, column } = self.line_column(span);
        format!("{}:{line}:{column}", self.path(span.source).display())
    }
}

/// Whether a problem stops the build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    Warning,
    /// An error or warning that the cluster file allows by name: told, never denied.
    Allowed,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Allowed => "allowed",
        }
    }
}

/// A marked place and what is to be said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    pub span: Span,
    /// Stands behind the underline; may be empty.
    pub text: String,
}

/// One problem: what is wrong, where, why, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    pub code: Code,
    /// What is wrong: lower case, one line, no full stop.
    pub message: String,
    /// The place that has to change; `None` where no file says it.
    pub primary: Option<Label>,
    /// Other places that matter, such as the first use of a name that came twice.
    pub others: Vec<Label>,
    /// What to write instead.
    pub help: Vec<String>,
    /// Background: why it is so, who says so.
    pub notes: Vec<String>,
}

impl Diagnostic {
    pub fn error(code: Code, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, message.into())
    }

    pub fn warning(code: Code, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, message.into())
    }

    fn new(severity: Severity, code: Code, message: String) -> Self {
        let (others, help, notes) = Default::default();
        let message = on_one_line(message);
        Self { severity, code, message, primary: None, others, help, notes }
    }

    /// Marks the place that has to change.
    pub fn at(self, span: Span) -> Self {
        self.at_labelled(span, "")
    }

    /// Marks the place that has to change and says what is there.
    pub fn at_labelled(mut self, span: Span, text: impl Into<String>) -> Self {
        self.primary = Some(Label { span, text: on_one_line(text.into()) });
        self
    }

    /// Marks another place that matters.
    pub fn also(mut self, span: Span, text: impl Into<String>) -> Self {
        self.others.push(Label { span, text: on_one_line(text.into()) });
        self
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(on_one_line(help.into()));
        self
    }

    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(on_one_line(note.into()));
        self
    }

    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// A JSON object with `severity`, `code`, `message`, `file`, `line`, `column`, `end_line`,
    /// `end_column`, `label`, `related`, `help` and `notes`.
    pub fn to_json(&self, sources: &SourceMap) -> serde_json::Value {
        let place = |label: &Label| {
            let start = sources.line_column(label.span);
            let end = sources.line_column(Span { start: label.span.end, ..label.span });
            serde_json::json!({
                "file": sources.path(label.span.source).display().to_string(),
                "line": start.line, "column": start.column,
                "end_line": end.line, "end_column": end.column,
                "label": label.text,
            })
        };
        let mut json = serde_json::json!({
            "severity": self.severity.as_str(),
            "code": self.code.as_str(),
            "message": self.message,
            "related": self.others.iter().map(place).collect::<Vec<_>>(),
            "help": self.help,
            "notes": self.notes,
        });
        if let (Some(object), Some(primary)) = (json.as_object_mut(), &self.primary)
            && let serde_json::Value::Object(at) = place(primary)
        {
            object.extend(at);
        }
        json
    }
}

/// Control characters written as escapes: what a message quotes of the user's text can
/// neither break its lines nor steer a terminal.
fn on_one_line(text: String) -> String {
    match text.contains(char::is_control) {
        false => text,
        true => text
            .chars()
            .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
            .collect(),
    }
}

/// Every problem found so far; filled by each step and reported once.
#[derive(Clone, Debug, Default)]
pub struct Problems {
    found: Vec<Diagnostic>,
}

impl Problems {
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.found.push(diagnostic);
    }

    pub fn extend(&mut self, diagnostics: impl IntoIterator<Item = Diagnostic>) {
        self.found.extend(diagnostics);
    }

    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.found.iter()
    }

    pub fn has_errors(&self) -> bool {
        self.has_errors_since(0)
    }

    /// Whether an error is among the problems found after the first `n_before`.
    pub fn has_errors_since(&self, n_before: usize) -> bool {
        self.found[n_before..].iter().any(Diagnostic::is_error)
    }

    pub fn len(&self) -> usize {
        self.found.len()
    }

    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Leaves out the problems that `is_kept` refuses.
    pub fn retain(&mut self, is_kept: impl FnMut(&Diagnostic) -> bool) {
        self.found.retain(is_kept);
    }

    /// Downgrades the problems whose code is allowed; a code that allows nothing is one more.
    ///
    /// Only broken rules (DAOS-n, NF5xx) can be allowed: a file that cannot be understood
    /// cannot be built.
    pub fn allow<'a>(&mut self, codes: impl IntoIterator<Item = (&'a str, Span)>) {
        for (code, span) in codes {
            let is_rule = code.starts_with("DAOS-") || code.starts_with("NF5");
            let mut n_allowed = 0;
            for found in
                self.found.iter_mut().filter(|found| is_rule && found.code.as_str() == code)
            {
                found.severity = Severity::Allowed;
                n_allowed += 1;
            }
            if n_allowed > 0 {
                continue;
            }
            let known = || {
                let listed = codes::MEANINGS.iter().chain(codes::DAOS_MEANINGS);
                listed.map(|meaning| meaning.code.as_str())
            };
            let is_known = known().any(|known| known == code);
            let (message, help) = if !is_known {
                let upper = code.to_ascii_uppercase();
                let help = match known().find(|known| *known == upper) {
                    Some(known) => format!("did you mean `{known}`?"),
                    None => "write the code as a message shows it in brackets".to_owned(),
                };
                (format!("there is no code `{code}`"), help)
            } else if is_rule {
                (format!("`{code}` allows nothing here"), "take it out".to_owned())
            } else {
                let help = "only DAOS-n and NF5xx are rules to break".to_owned();
                (format!("`{code}` cannot be allowed"), help)
            };
            self.push(Diagnostic::warning(codes::UNKNOWN_CODE, message).at(span).help(help));
        }
    }

    /// All problems in the order of the files, each once.
    pub fn into_sorted(mut self) -> Vec<Diagnostic> {
        let place = |d: &Diagnostic| d.primary.as_ref().map(|label| label.span);
        self.found.sort_by(|a, b| {
            (place(a), a.code, &a.message, a.severity).cmp(&(
                place(b),
                b.code,
                &b.message,
                b.severity,
            ))
        });
        self.found.dedup();
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_lines_and_characters_from_one() {
        let mut sources = SourceMap::default();
        let id = sources.add("a.toml".into(), "x = 1\nä = 2\n".into());
        assert_eq!(sources.place(Span::new(id, 0..1)), "a.toml:1:1");
        assert_eq!(sources.place(Span::new(id, 11..12)), "a.toml:2:5");
    }

    #[test]
    fn messages_cannot_break_their_line_or_steer_a_terminal() {
        let diagnostic = Diagnostic::error(codes::UNKNOWN_NAME, "no `a\nb\u{1b}[2J`").help("a\tb");
        assert_eq!(diagnostic.message, "no `a\\nb\\u{1b}[2J`");
        assert_eq!(diagnostic.help, ["a\\tb"]);
    }

    #[test]
    fn problems_come_out_once_and_in_the_order_of_the_file() {
        let mut sources = SourceMap::default();
        let id = sources.add("a.toml".into(), "abcdef".into());
        let at =
            |start| Diagnostic::error(codes::UNKNOWN_KEY, "x").at(Span::new(id, start..start + 1));
        let mut problems = Problems::default();
        problems.extend([at(4), at(1), at(4)]);
        assert_eq!(problems.into_sorted(), [at(1), at(4)]);
    }
}
