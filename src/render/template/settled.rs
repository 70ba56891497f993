//! Templates of which only a part changes from one rendering to the next: the rest is rendered
//! once.
//!
//! Of what thousands of nodes are rendered with, most is the same for a whole kind. [`settle`]
//! renders that part of a template and keeps the text; what is left is mostly single values,
//! which are put between the texts without the engine. What a [`Settled`] gives is what the
//! template itself gives: where it cannot, it asks the template.
//!
//! [`settle`]: Templates::settle

use std::collections::BTreeMap;

use handlebars::template::{HelperTemplate, Parameter, TemplateElement};
use handlebars::{RenderContext, Renderable, StringOutput, Template};
use serde_json::Value;

use crate::render::template::helpers::{self, Quote};
use crate::render::template::{TemplateError, Templates, Values, analysis, print_strictly};

/// A template, the parts of which that do not change are rendered.
#[derive(Debug)]
pub struct Settled {
    name: String,
    /// `None` where the template is to be rendered as a whole.
    pieces: Option<Vec<Piece>>,
}

#[derive(Debug)]
enum Piece {
    Text(String),
    /// `{{path}}`, `{{{path}}}` or `{{helper path}}`.
    Value {
        path: Vec<String>,
        quote: Quote,
    },
    /// A block or a partial that mentions what changes.
    Template(Box<Template>),
}

impl Templates {
    /// Renders what of `name` mentions nothing that lies at, above or below one of the paths in
    /// `changing`; `values` need not have what lies there.
    pub fn settle(&self, name: &str, values: &Values, changing: &[&[&str]]) -> Settled {
        let pieces = self.texts.get(name).and_then(|parsed| {
            let mut pieces = Vec::new();
            let template = &parsed.template;
            let mut none = template.clone();
            none.elements.clear();
            none.mapping.clear();
            for (at, element) in template.elements.iter().enumerate() {
                let mut part = none.clone();
                part.elements.push(element.clone());
                part.mapping.extend(template.mapping.get(at).cloned());
                let is_settled = !self.mentions_any(name, &part, changing);
                match quick_value(element).filter(|_| !is_settled) {
                    Some((path, quote)) => pieces.push(Piece::Value { path, quote }),
                    None => {
                        let mut strict = part;
                        print_strictly(&mut strict);
                        match is_settled {
                            true => push_text(&mut pieces, &self.render_part(&strict, values)?),
                            false => pieces.push(Piece::Template(Box::new(strict))),
                        }
                    }
                }
            }
            Some(pieces)
        });
        Settled { name: name.to_owned(), pieces }
    }

    /// `None` if it fails, whatever the reason.
    fn render_part(&self, part: &Template, values: &Values) -> Option<String> {
        let mut out = StringOutput::new();
        let mut context = RenderContext::new(part.name.as_ref());
        part.render(&self.handlebars, &values.0, &mut context, &mut out).ok()?;
        out.into_string().ok()
    }

    /// As [`render_values`](Self::render_values), the quicker way.
    ///
    /// # Errors
    ///
    /// Those of [`render_values`](Self::render_values).
    pub fn render_settled(
        &self,
        settled: &Settled,
        values: &Values,
    ) -> Result<String, TemplateError> {
        let whole = || self.render_values(&settled.name, values);
        let text = settled.pieces.as_ref().and_then(|pieces| self.join(pieces, values));
        // The tests see to it that both ways lead to the same.
        debug_assert!(text.as_ref().is_none_or(|text| whole().as_ref() == Ok(text)));
        text.map_or_else(whole, Ok)
    }

    fn join(&self, pieces: &[Piece], values: &Values) -> Option<String> {
        let mut text = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(settled) => text += settled,
                Piece::Value { path, quote } => {
                    text += &quote(value_at(path, values.data())?).ok()?
                }
                Piece::Template(part) => text += &self.render_part(part, values)?,
            }
        }
        Some(text)
    }
}

/// The settled forms of many templates, made when they are first asked for.
#[derive(Debug, Default)]
pub struct SettledSet {
    by_name: BTreeMap<String, Settled>,
}

impl SettledSet {
    /// As [`Templates::render_settled`]; `name` is settled with the `values` of the first call.
    ///
    /// # Errors
    ///
    /// Those of [`Templates::render_values`].
    pub fn render(
        &mut self,
        templates: &Templates,
        name: &str,
        values: &Values,
        changing: &[&[&str]],
    ) -> Result<String, TemplateError> {
        if !self.by_name.contains_key(name) {
            let settled = templates.settle(name, values, changing);
            self.by_name.insert(name.to_owned(), settled);
        }
        templates.render_settled(&self.by_name[name], values)
    }
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) {
    match pieces.last_mut() {
        Some(Piece::Text(before)) => before.push_str(text),
        _ => pieces.push(Piece::Text(text.to_owned())),
    }
}

/// Where the one value of a tag lies, and what makes text of it; `None` for any other element.
fn quick_value(element: &TemplateElement) -> Option<(Vec<String>, Quote)> {
    let (tag, plain): (&HelperTemplate, Quote) = match element {
        TemplateElement::Expression(tag) => (tag, helpers::quote_by(helpers::PRINT_LINE)?),
        TemplateElement::HtmlExpression(tag) => (tag, helpers::quote_by(helpers::PRINT_TEXT)?),
        _ => return None,
    };
    let (parameter, quote) = match (tag.params.as_slice(), &tag.name) {
        ([], path) => (path, plain),
        ([path @ Parameter::Path(_)], name) => (path, helpers::quote_by(name.as_name()?)?),
        _ => return None,
    };
    let path = analysis::root_path(parameter.as_name()?)?;
    (!path.is_empty()).then_some((path, quote))
}

fn value_at<'v>(path: &[String], data: &'v Value) -> Option<&'v Value> {
    path.iter().try_fold(data, |value, step| value.as_object()?.get(step))
}
