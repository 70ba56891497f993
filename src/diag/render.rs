//! Draws diagnostics the way rustc and cargo do, by `annotate-snippets`.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use crate::diag::{Diagnostic, Label, Severity, SourceId, SourceMap, codes};

/// Whether the text is meant for a terminal that shows colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    Never,
    Always,
}

/// The diagnostic as text of several lines, without a final newline.
pub fn render(diagnostic: &Diagnostic, sources: &SourceMap, color: Color) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Allowed => Level::NOTE.with_name("allowed"),
    };
    let title = level.primary_title(&diagnostic.message).id(diagnostic.code.as_str());
    let mut group = Group::with_title(title);
    for snippet in snippets(diagnostic, sources) {
        group = match snippet {
            Drawn::Lines(snippet) => group.element(snippet),
            Drawn::Place(origin) => group.element(origin),
        };
    }
    for help in &diagnostic.help {
        group = group.element(Level::HELP.message(help));
    }
    for note in &diagnostic.notes {
        group = group.element(Level::NOTE.message(note));
    }
    let renderer = match color {
        Color::Never => Renderer::plain(),
        Color::Always => Renderer::styled(),
    };
    renderer.render(&[group])
}

enum Drawn<'a> {
    Lines(Snippet<'a, annotate_snippets::Annotation<'a>>),
    Place(Origin<'a>),
}

/// One snippet a file, the file of the primary label first.
fn snippets<'a>(diagnostic: &'a Diagnostic, sources: &'a SourceMap) -> Vec<Drawn<'a>> {
    let mut files: Vec<SourceId> = Vec::new();
    let labels = || diagnostic.primary.iter().chain(&diagnostic.others);
    for label in labels() {
        if !files.contains(&label.span.source) {
            files.push(label.span.source);
        }
    }
    files
        .into_iter()
        .map(|id| {
            let file = sources.file(id);
            let path = file.path.to_string_lossy().into_owned();
            let here = || labels().filter(move |label| label.span.source == id);
            if diagnostic.code == codes::INLINE_SECRET {
                // A log is no better a place for a secret than the cluster file.
                let at = sources.line_column(here().next().expect("the file has a label").span);
                return Drawn::Place(Origin::path(path).line(at.line).char_column(at.column));
            }
            // An empty span at the start stands for the file as a whole.
            if file.text.is_empty() || here().all(|label| label.span.end == 0) {
                return Drawn::Place(Origin::path(path));
            }
            let is_primary = |label: &Label| diagnostic.primary.as_ref() == Some(label);
            Drawn::Lines(Snippet::source(&file.text).path(path).annotations(here().map(|label| {
                let kind = match is_primary(label) {
                    true => AnnotationKind::Primary,
                    false => AnnotationKind::Context,
                };
                kind.span(visible(&file.text, label.span.range()))
                    .label((!label.text.is_empty()).then_some(label.text.as_str()))
            })))
        })
        .collect()
}

/// A range of at least one character of a line, so that there is something to underline.
fn visible(text: &str, range: Range<usize>) -> Range<usize> {
    if !range.is_empty() {
        return range;
    }
    let at = range.start.min(text.len());
    match text[at..].chars().next().filter(|c| !matches!(c, '\r' | '\n')) {
        Some(next) => at..at + next.len_utf8(),
        None => {
            let line_start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
            let last = text[line_start..at].chars().next_back().map_or(0, char::len_utf8);
            at - last..at
        }
    }
}
