//! Strict templates: an undefined value is an error, never an empty string.
//!
//! The language is handlebars without its traps, and small on purpose: `{{path}}`,
//! `{{{path}}}`, `{{helper path}}`, `{{#if}}`, `{{#unless}}`, `{{#each}}`, `{{#with}}` with
//! `{{else}}`, `{{> partial}}` and comments; `eq`, `ne`, `and`, `or`, `not` in parentheses.
//!
//! * `{{path}}` prints one line of text or a number. What is undefined, null, a list or a
//!   table is an error, and so is a line break: it could start a new section of the file.
//! * `{{{path}}}` prints text as it is, line breaks included: for text that is a file's body.
//! * Undefined names are errors also in `{{#if}}` and its like.
//! * Nothing is escaped. [`helpers`] quotes: `sh`, `json`, `yaml`, `ini`, `unit`.
//!
//! [`analysis`] says what a template mentions, without rendering it.

mod analysis;
mod helpers;
mod settled;

use std::collections::BTreeMap;
use std::ops::Range;

use handlebars::template::{HelperTemplate, Parameter, TemplateElement};
use handlebars::{Context, Handlebars, RenderError, RenderErrorReason, Template};
use serde::Serialize;
use serde_json::Value;

use crate::diag::{Code, Diagnostic, SourceId, Span, codes};

pub use analysis::{Reference, missing_step};
pub use settled::{Settled, SettledSet};

/// Named templates, ready to render.
pub struct Templates {
    handlebars: Handlebars<'static>,
    texts: BTreeMap<String, Parsed>,
}

/// A template as written and as parsed, before printing was made strict.
struct Parsed {
    text: String,
    template: Template,
}

impl Templates {
    pub fn new() -> Self {
        let mut handlebars = Handlebars::new();
        handlebars.set_strict_mode(true);
        handlebars.register_escape_fn(handlebars::no_escape);
        helpers::register(&mut handlebars);
        Self { handlebars, texts: BTreeMap::new() }
    }

    /// Adds `text` under `name`; `{{> name}}` in another template includes it, whichever of
    /// the two was added first.
    ///
    /// # Errors
    ///
    /// Fails for what does not parse, what is outside the language, and for a template that
    /// would include itself through those already there. It is not added then.
    pub fn add(&mut self, name: &str, text: &str) -> Result<(), TemplateError> {
        let template = Template::compile_with_name(text, name.to_owned())
            .map_err(|fault| syntax_error(name, text, &fault))?;
        analysis::check_language(name, text, &template)?;
        let parsed = Parsed { text: text.to_owned(), template: template.clone() };
        let before = self.texts.insert(name.to_owned(), parsed);
        if let Err(cycle) = self.check_cycles(name) {
            match before {
                Some(before) => self.texts.insert(name.to_owned(), before),
                None => self.texts.remove(name),
            };
            return Err(cycle);
        }
        let mut strict = template;
        print_strictly(&mut strict);
        self.handlebars.register_template(name, strict);
        Ok(())
    }

    pub fn has(&self, name: &str) -> bool {
        self.texts.contains_key(name)
    }

    /// The text of template `name` with the values of `context`.
    pub fn render<T: Serialize>(&self, name: &str, context: &T) -> Result<String, TemplateError> {
        self.render_values(name, &Values::of(context))
    }

    /// As [`render`](Self::render), with values that were made ready before: many templates
    /// can share them.
    pub fn render_values(&self, name: &str, values: &Values) -> Result<String, TemplateError> {
        match self.has_long_list(name, values) {
            // An empty path is above all others: whatever mentions a value may change.
            true => self.render_settled(&self.settle(name, values, &[&[]]), values),
            false => self.render_by_engine(name, values),
        }
    }

    fn render_by_engine(&self, name: &str, values: &Values) -> Result<String, TemplateError> {
        self.handlebars
            .render_with_context(name, &values.0)
            .map_err(|fault| self.render_error(name, values.data(), &fault))
    }

    fn render_error(&self, root: &str, data: &Value, fault: &RenderError) -> TemplateError {
        let name = fault.template_name.as_deref().unwrap_or(root);
        let text = self.texts.get(name).map_or("", |parsed| parsed.text.as_str());
        let (line, column) = (fault.line_no.unwrap_or(1), fault.column_no.unwrap_or(1));
        let tag = tag_at(text, line, column);
        let undefined = matches!(fault.reason(), RenderErrorReason::MissingVariable(_));
        if undefined {
            let at_tag = |error: &TemplateError| {
                error.template == name && tag.start <= error.span.start && error.span.end <= tag.end
            };
            if let Some(error) = self.undefined(root, data, &[]).into_iter().find(at_tag) {
                return error;
            }
        }
        let message = match fault.reason() {
            RenderErrorReason::MissingVariable(Some(path)) => format!("`{path}` is not defined"),
            RenderErrorReason::PartialNotFound(partial) => {
                format!("there is no template `{partial}` to include")
            }
            reason => reason.to_string(),
        };
        TemplateError { help: None, ..TemplateError::new(name, text, tag, Fault::Value, message) }
    }
}

impl Default for Templates {
    fn default() -> Self {
        Self::new()
    }
}

/// The values that templates are rendered with: one table of roots.
///
/// Serialized once and then changed root by root, so that what a whole cluster shares is
/// not made again for each node.
#[derive(Clone, Debug)]
pub struct Values(Context);

impl Values {
    /// # Panics
    ///
    /// For a type that JSON cannot say (a map whose keys are no strings).
    pub fn of<T: Serialize>(context: &T) -> Self {
        Self(Context::wraps(context).expect("contexts hold nothing that JSON cannot say"))
    }

    pub fn data(&self) -> &Value {
        self.0.data()
    }

    /// Puts the fields of `context` among the roots, in place of those of the same name.
    ///
    /// # Panics
    ///
    /// For a context that is no struct or map.
    pub fn set<T: Serialize>(&mut self, context: &T) {
        let json = serde_json::to_value(context).expect("contexts hold nothing JSON cannot say");
        let (Value::Object(fields), Value::Object(roots)) = (json, self.0.data_mut()) else {
            panic!("a context is a struct");
        };
        roots.extend(fields);
    }

    /// Takes out what stands under a path of names; templates that mention it fail then.
    pub fn remove(&mut self, path: &[&str]) -> Option<Value> {
        let (name, above) = path.split_last()?;
        self.table_at(above)?.remove(*name)
    }

    /// Puts back what was [removed](Self::remove) from `path`.
    pub fn put_back(&mut self, path: &[&str], value: Option<Value>) {
        let Some((name, above)) = path.split_last() else { return };
        if let (Some(value), Some(table)) = (value, self.table_at(above)) {
            table.insert((*name).to_owned(), value);
        }
    }

    fn table_at(&mut self, path: &[&str]) -> Option<&mut serde_json::Map<String, Value>> {
        let value = path.iter().try_fold(self.0.data_mut(), |value, step| value.get_mut(step));
        value?.as_object_mut()
    }

    /// Puts one root in the place of what was there.
    pub fn set_root(&mut self, name: &str, value: Value) {
        if let Value::Object(roots) = self.0.data_mut() {
            roots.insert(name.to_owned(), value);
        }
    }
}

/// What is wrong with a template, or with a value it needs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{template}:{line}:{column}: {message}")]
pub struct TemplateError {
    /// The template the place is in: the one rendered, or one it includes.
    pub template: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The place in bytes of the template's text.
    pub span: Range<usize>,
    pub fault: Fault,
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is no template.
    Syntax,
    /// A value is undefined or cannot be printed.
    Value,
    /// Templates include each other in a circle.
    Cycle,
}

impl TemplateError {
    fn new(template: &str, text: &str, span: Range<usize>, fault: Fault, message: String) -> Self {
        let before = &text[..span.start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            template: template.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            span,
            fault,
            message,
            help: None,
        }
    }

    /// The same as a diagnostic; `source` is the template's text in the source map.
    pub fn diagnostic(&self, source: SourceId) -> Diagnostic {
        self.diagnostic_at(Span::new(source, self.span.clone()))
    }

    /// The same as a diagnostic at another place: for a template inside another file.
    pub fn diagnostic_at(&self, span: Span) -> Diagnostic {
        let diagnostic = Diagnostic::error(self.fault.code(), self.message.clone()).at(span);
        match &self.help {
            Some(help) => diagnostic.help(help.clone()),
            None => diagnostic,
        }
    }
}

impl Fault {
    pub fn code(self) -> Code {
        match self {
            Fault::Syntax => codes::TEMPLATE_SYNTAX,
            Fault::Value => codes::TEMPLATE_VALUE,
            Fault::Cycle => codes::PARTIAL_CYCLE,
        }
    }
}

fn syntax_error(name: &str, text: &str, fault: &handlebars::TemplateError) -> TemplateError {
    let (line, column) = fault.pos().unwrap_or((1, 1));
    let at = offset(text, line, column);
    let message = match fault.reason() {
        // The parser's own list of what it expected names its rules, not our language.
        handlebars::TemplateErrorReason::InvalidSyntax(_) => "this is no template".to_owned(),
        handlebars::TemplateErrorReason::MismatchingClosedHelper(opened, closed) => {
            format!("`{{{{#{opened}}}}}` is closed by `{{{{/{closed}}}}}`")
        }
        reason => reason.to_string(),
    };
    TemplateError {
        help: Some("braces come in pairs, and every block is closed: `{{#if x}}…{{/if}}`".into()),
        ..TemplateError::new(name, text, shown(text, at), Fault::Syntax, message)
    }
}

/// What to underline for a fault at `at`: the rest of its line, or the end of the last line
/// that says something.
fn shown(text: &str, at: usize) -> Range<usize> {
    let at = if text[at..].trim().is_empty() { text.trim_end().len() } else { at };
    at..text[at..].find('\n').map_or(text.len(), |length| at + length)
}

/// Where line and column (both from 1, the column in characters) are in `text`, in bytes.
fn offset(text: &str, line: usize, column: usize) -> usize {
    let mut line_ends = memchr::memchr_iter(b'\n', text.as_bytes());
    let line_start = match line {
        1 => 0,
        _ => line_ends.nth(line - 2).map_or(text.len(), |end| end + 1),
    };
    let rest = &text[line_start..];
    let within = rest.char_indices().nth(column - 1).map_or(rest.len(), |(at, _)| at);
    line_start + within
}

/// The `{{…}}` that begins at line and column, in bytes.
fn tag_at(text: &str, line: usize, column: usize) -> Range<usize> {
    let start = offset(text, line, column);
    let rest = &text[start..];
    let end = rest.find("}}").map_or(rest.len(), |at| at + 2);
    let closes_three = rest[end..].starts_with('}') && rest.starts_with("{{{");
    start..start + end + usize::from(closes_three)
}

/// Makes every `{{path}}` a call of the helper that prints, because handlebars itself
/// prints null as nothing and a table as `[object]`.
fn print_strictly(template: &mut Template) {
    for element in &mut template.elements {
        match element {
            TemplateElement::Expression(tag) => print_by(tag, helpers::PRINT_LINE),
            TemplateElement::HtmlExpression(tag) => print_by(tag, helpers::PRINT_TEXT),
            TemplateElement::HelperBlock(block) => {
                block.template.iter_mut().for_each(print_strictly);
                block.inverse.iter_mut().for_each(print_strictly);
            }
            _ => {}
        }
    }
}

fn print_by(tag: &mut HelperTemplate, helper: &str) {
    if !tag.block && tag.params.is_empty() && tag.hash.is_empty() {
        let path = std::mem::replace(&mut tag.name, Parameter::Name(helper.to_owned()));
        tag.params.push(path);
    }
}

#[cfg(test)]
mod tests;
