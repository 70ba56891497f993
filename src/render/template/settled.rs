//! Templates of which only a part changes from one rendering to the next: the rest is rendered
//! once.
//!
//! Of what thousands of nodes are rendered with, most is the same for a whole kind. [`settle`]
//! renders that part of a template and keeps the text; what is left is mostly single values and
//! conditions, which are put between the texts without the engine. What a [`Settled`] gives is what the
//! template itself gives: where it cannot, it asks the template.
//!
//! [`settle`]: Templates::settle

use std::collections::BTreeMap;
use std::sync::Arc;

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
    /// `{{#if path}}`, `{{#unless path}}` or `{{#with path}}` with bodies that hold nothing but
    /// such pieces.
    Condition {
        path: Vec<String>,
        if_holds: Vec<Piece>,
        otherwise: Vec<Piece>,
    },
    /// Any other block, or a partial, that mentions what changes.
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
                match quick_piece(element, &[]).filter(|_| !is_settled) {
                    Some(piece) => pieces.push(piece),
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
        let text = settled.pieces.as_ref().and_then(|pieces| {
            let mut text = String::new();
            self.join(pieces, values, &mut text).map(|()| text)
        });
        // The tests see to it that both ways lead to the same.
        debug_assert!(text.as_ref().is_none_or(|text| whole().as_ref() == Ok(text)));
        text.map_or_else(whole, Ok)
    }

    /// `None` if anything fails.
    fn join(&self, pieces: &[Piece], values: &Values, text: &mut String) -> Option<()> {
        for piece in pieces {
            match piece {
                Piece::Text(settled) => *text += settled,
                Piece::Value { path, quote } => {
                    *text += &quote(value_at(path, values.data())?).ok()?
                }
                Piece::Condition { path, if_holds, otherwise } => {
                    match helpers::holds(value_at(path, values.data())?) {
                        true => self.join(if_holds, values, text)?,
                        false => self.join(otherwise, values, text)?,
                    }
                }
                Piece::Template(part) => *text += &self.render_part(part, values)?,
            }
        }
        Some(())
    }
}

/// The settled forms of many templates, made when they are first asked for. A copy shares what
/// is there already.
#[derive(Clone, Debug, Default)]
pub struct SettledSet {
    by_name: BTreeMap<String, Arc<Settled>>,
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
            self.by_name.insert(name.to_owned(), Arc::new(settled));
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

/// What an element comes to without the engine, inside of blocks `{{#with}}` that lead to `base`;
/// `None` for what only the engine understands.
fn quick_piece(element: &TemplateElement, base: &[String]) -> Option<Piece> {
    match element {
        TemplateElement::RawString(text) => Some(Piece::Text(text.clone())),
        TemplateElement::Expression(tag) => {
            quick_value(tag, helpers::quote_by(helpers::PRINT_LINE)?, base)
        }
        TemplateElement::HtmlExpression(tag) => {
            quick_value(tag, helpers::quote_by(helpers::PRINT_TEXT)?, base)
        }
        TemplateElement::HelperBlock(block) => quick_condition(block, base),
        _ => None,
    }
}

fn quick_value(tag: &HelperTemplate, plain: Quote, base: &[String]) -> Option<Piece> {
    let (parameter, quote) = match (tag.params.as_slice(), &tag.name) {
        ([], path) => (path, plain),
        ([path @ Parameter::Path(_)], name) => (path, helpers::quote_by(name.as_name()?)?),
        _ => return None,
    };
    Some(Piece::Value { path: quick_path(parameter, base)?, quote })
}

fn quick_condition(block: &HelperTemplate, base: &[String]) -> Option<Piece> {
    let [parameter @ Parameter::Path(_)] = block.params.as_slice() else { return None };
    if !block.hash.is_empty() || block.block_param.is_some() {
        return None;
    }
    let path = quick_path(parameter, base)?;
    let inner = match block.name.as_name()? {
        "with" => path.as_slice(),
        "if" | "unless" => base,
        _ => return None,
    };
    let body = quick_pieces(block.template.as_ref(), inner)?;
    let inverse = quick_pieces(block.inverse.as_ref(), base)?;
    let (if_holds, otherwise) = match block.name.as_name()? {
        "unless" => (inverse, body),
        _ => (body, inverse),
    };
    Some(Piece::Condition { path, if_holds, otherwise })
}

fn quick_pieces(template: Option<&Template>, base: &[String]) -> Option<Vec<Piece>> {
    let elements = template.iter().flat_map(|template| &template.elements);
    elements.map(|element| quick_piece(element, base)).collect()
}

/// Where a value lies, seen from the root.
fn quick_path(parameter: &Parameter, base: &[String]) -> Option<Vec<String>> {
    let raw = parameter.as_name()?;
    // Upwards out of a block, or to what the engine itself knows: that is for the engine.
    if !base.is_empty() && raw.starts_with(['.', '@']) {
        return None;
    }
    let below = analysis::root_path(raw)?;
    (!below.is_empty()).then(|| [base, &below].concat())
}

fn value_at<'v>(path: &[String], data: &'v Value) -> Option<&'v Value> {
    path.iter().try_fold(data, |value, step| value.as_object()?.get(step))
}
