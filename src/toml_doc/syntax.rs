//! What is said of text that is no TOML, and how much of the file can still be believed.

use std::ops::Range;

use crate::diag::{Diagnostic, SourceId, Span, codes};

/// The problems of `faults`, the first of each line, and their damage: what follows a fault
/// on its line is its consequence, as are the keys of a table that was begun twice.
pub(super) fn judge(
    text: &str,
    source: SourceId,
    faults: &[toml::de::Error],
) -> (Vec<Diagnostic>, Damage) {
    let mut faults: Vec<(Range<usize>, &str)> =
        faults.iter().map(|fault| (fault.span().unwrap_or(0..0), fault.message())).collect();
    faults.sort_by_key(|(span, _)| (span.start, span.end));
    let (mut problems, mut damage) = (Vec::new(), Damage::default());
    let mut explained = 0..0;
    for (span, message) in faults {
        let line = line_at(text, span.start);
        let is_twice = is_said_twice(message);
        if explained.contains(&span.start) && (is_twice || line.start == explained.start) {
            continue;
        }
        let end =
            if is_header(&text[line.clone()]) { next_header(text, line.end) } else { line.end };
        // A value given twice is there all the same.
        if !is_twice {
            damage.lost.push(line.start..end);
        }
        explained = line.start..if is_twice { end } else { line.end + 1 };
        problems.push(problem(text, source, span, message));
    }
    (problems, damage)
}

fn problem(text: &str, source: SourceId, span: Range<usize>, message: &str) -> Diagnostic {
    let line = line_at(text, span.start);
    let header = &text[line.clone()];
    let at = Span::new(source, span.clone());
    let message_line = message.replace('\n', ", ");
    if is_said_twice(message) {
        let key = text.get(span.clone()).unwrap_or_default();
        let message_line = match message {
            "duplicate key" => format!("`{key}` stands here for the second time"),
            _ => message_line,
        };
        let mut diagnostic = Diagnostic::error(codes::SYNTAX, message_line).at(at);
        if let Some(first) = first_of(text, &line, key) {
            diagnostic = diagnostic.also(Span::new(source, first), "the first time");
        }
        return diagnostic.help(match (header.trim_start(), message) {
            (header, _) if header.starts_with("[[") => {
                "`[[…]]` adds an element to an array; take out the other value"
            }
            (header, _) if header.starts_with('[') => {
                "write the table once, with all its keys below one header"
            }
            (_, "duplicate key") => "keep one of them",
            _ => {
                "write a table in one way: `nic.mgmt = { ip = … }` cannot stand beside `nic.mgmt.ip = …` in one block"
            }
        });
    }
    let diagnostic = Diagnostic::error(codes::SYNTAX, message_line).at(at);
    let inner = header.trim_start().trim_start_matches('[');
    match is_header(header) && inner.contains('[') && !inner.contains('"') {
        true => diagnostic.help("quote a range: `[node.\"srv[001-016]\"]`"),
        false => diagnostic,
    }
}

fn is_said_twice(message: &str) -> bool {
    message.contains("duplicate key") || message.contains("extend") || message.contains("redefin")
}

/// Where `key` stands for the first time, as far as lines tell: the same header further up,
/// or a line of the same block that begins with the key.
fn first_of(text: &str, line: &Range<usize>, key: &str) -> Option<Range<usize>> {
    let own = text[line.clone()].trim();
    let mut found = None;
    let mut start = 0;
    for other in text[..line.start].split_inclusive('\n') {
        let trimmed = other.trim_start();
        let at = start + other.len() - trimmed.len();
        start += other.len();
        if is_header(own) {
            if trimmed.trim_end() == own && found.is_none() {
                found = Some(at..at + own.len());
            }
            continue;
        }
        if is_header(trimmed) {
            found = None;
        } else if let Some(rest) = trimmed.strip_prefix(key).filter(|_| !key.is_empty())
            && rest.trim_start().starts_with(['=', '.'])
            && found.is_none()
        {
            found = Some(at..at + key.len());
        }
    }
    found
}

fn line_at(text: &str, at: usize) -> Range<usize> {
    let at = at.min(text.len());
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    start..text[at..].find('\n').map_or(text.len(), |length| at + length)
}

fn is_header(line: &str) -> bool {
    line.trim_start().starts_with('[')
}

/// Where the first line after `from` begins that opens a table.
fn next_header(text: &str, from: usize) -> usize {
    let mut start = from;
    for line in text[from..].split_inclusive('\n') {
        if is_header(line) {
            break;
        }
        start += line.len();
    }
    start
}

/// What of a file cannot be believed because it is no TOML: the lines with faults, and the
/// keys below a header that cannot be read.
#[derive(Clone, Debug, Default)]
pub struct Damage {
    lost: Vec<Range<usize>>,
}

impl Damage {
    pub fn is_none(&self) -> bool {
        self.lost.is_empty()
    }

    /// Whether a problem at `span` may be a consequence.
    pub fn explains(&self, span: Span) -> bool {
        // What stands nowhere was made up to go on reading.
        let is_made_up = !self.is_none() && span.end == 0;
        is_made_up
            || self.lost.iter().any(|lost| (lost.start..=lost.end).contains(&span.range().start))
    }
}
