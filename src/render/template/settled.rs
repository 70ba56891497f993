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
    /// A block whose bodies hold nothing but such pieces.
    Block {
        block: Block,
        path: Vec<String>,
        body: Vec<Piece>,
        otherwise: Vec<Piece>,
    },
    /// Any other block, or a partial, that mentions what changes.
    Template(Box<Template>),
}

/// `{{#if path}}` and its like; `path` and what is in the bodies is seen from where the block is,
/// but the body of `with` and `each` from the value or the item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    If,
    Unless,
    With,
    Each,
}

/// Longer lists are gone through without the engine, which takes several microseconds an item.
const LONG_LIST: usize = 64;

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
                match quick_piece(element, Scope::Root).filter(|_| !is_settled) {
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
        let whole = || self.render_by_engine(&settled.name, values);
        let text = settled.pieces.as_ref().and_then(|pieces| {
            let mut text = String::new();
            self.join(pieces, values, values.data(), &mut text).map(|()| text)
        });
        // The tests see to it that both ways lead to the same.
        debug_assert!(text.as_ref().is_none_or(|text| whole().as_ref() == Ok(text)));
        text.map_or_else(whole, Ok)
    }

    /// `scope` is what paths begin at. `None` if anything fails.
    fn join(
        &self,
        pieces: &[Piece],
        values: &Values,
        scope: &Value,
        text: &mut String,
    ) -> Option<()> {
        for piece in pieces {
            match piece {
                Piece::Text(settled) => *text += settled,
                Piece::Value { path, quote } => *text += &quote(value_at(path, scope)?).ok()?,
                Piece::Block { block, path, body, otherwise } => {
                    let value = value_at(path, scope)?;
                    match (block.scopes(value)?, block) {
                        (inner, _) if inner.is_empty() => {
                            self.join(otherwise, values, scope, text)?;
                        }
                        (_, Block::If | Block::Unless) => self.join(body, values, scope, text)?,
                        (inner, Block::With | Block::Each) => {
                            inner.iter().try_for_each(|it| self.join(body, values, it, text))?;
                        }
                    }
                }
                Piece::Template(part) => *text += &self.render_part(part, values)?,
            }
        }
        Some(())
    }

    /// Whether `name` goes through a list that is so long that settling it pays for one rendering.
    pub(super) fn has_long_list(&self, name: &str, values: &Values) -> bool {
        let is_long = |element: &TemplateElement| match element {
            TemplateElement::HelperBlock(block) if block.name.as_name() == Some("each") => {
                let path = block.params.first().and_then(|it| quick_path(it, Scope::Root));
                let list = path.and_then(|path| value_at(&path, values.data())?.as_array());
                list.is_some_and(|list| list.len() > LONG_LIST)
            }
            _ => false,
        };
        let template = self.texts.get(name).map(|parsed| &parsed.template);
        template.is_some_and(|template| template.elements.iter().any(is_long))
    }
}

impl Block {
    fn named(name: &str) -> Option<Self> {
        match name {
            "if" => Some(Self::If),
            "unless" => Some(Self::Unless),
            "with" => Some(Self::With),
            "each" => Some(Self::Each),
            _ => None,
        }
    }

    /// What the body is rendered for; `None` where that is a mistake.
    fn scopes(self, value: &Value) -> Option<Vec<&Value>> {
        match (self, value) {
            (Self::If | Self::With, _) => {
                Some(Vec::from_iter(helpers::holds(value).then_some(value)))
            }
            (Self::Unless, _) => Some(Vec::from_iter((!helpers::holds(value)).then_some(value))),
            (Self::Each, Value::Array(items)) => Some(items.iter().collect()),
            (Self::Each, Value::Object(table)) => Some(table.values().collect()),
            (Self::Each, _) => None,
        }
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

/// What the paths of a tag begin at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Root,
    /// The value or the item of a block.
    Inner,
}

/// What an element comes to without the engine; `None` for what only that understands.
fn quick_piece(element: &TemplateElement, scope: Scope) -> Option<Piece> {
    match element {
        TemplateElement::RawString(text) => Some(Piece::Text(text.clone())),
        TemplateElement::Expression(tag) => {
            quick_value(tag, helpers::quote_by(helpers::PRINT_LINE)?, scope)
        }
        TemplateElement::HtmlExpression(tag) => {
            quick_value(tag, helpers::quote_by(helpers::PRINT_TEXT)?, scope)
        }
        TemplateElement::HelperBlock(block) => quick_block(block, scope),
        _ => None,
    }
}

fn quick_value(tag: &HelperTemplate, plain: Quote, scope: Scope) -> Option<Piece> {
    let (parameter, quote) = match (tag.params.as_slice(), &tag.name) {
        ([], path) => (path, plain),
        ([path @ Parameter::Path(_)], name) => (path, helpers::quote_by(name.as_name()?)?),
        _ => return None,
    };
    Some(Piece::Value { path: quick_path(parameter, scope)?, quote })
}

fn quick_block(tag: &HelperTemplate, scope: Scope) -> Option<Piece> {
    let [parameter @ Parameter::Path(_)] = tag.params.as_slice() else { return None };
    if !tag.hash.is_empty() || tag.block_param.is_some() || tag.template.is_none() {
        return None;
    }
    let block = Block::named(tag.name.as_name()?)?;
    let inner = match block {
        Block::If | Block::Unless => scope,
        Block::With | Block::Each => Scope::Inner,
    };
    Some(Piece::Block {
        block,
        path: quick_path(parameter, scope)?,
        body: quick_pieces(tag.template.as_ref(), inner)?,
        otherwise: quick_pieces(tag.inverse.as_ref(), scope)?,
    })
}

fn quick_pieces(template: Option<&Template>, scope: Scope) -> Option<Vec<Piece>> {
    let elements = template.iter().flat_map(|template| &template.elements);
    elements.map(|element| quick_piece(element, scope)).collect()
}

/// Where a value lies, seen from `scope`.
fn quick_path(parameter: &Parameter, scope: Scope) -> Option<Vec<String>> {
    let raw = parameter.as_name()?;
    // Upwards out of a block, or to what the engine itself knows: that is for the engine.
    let is_elsewhere = scope == Scope::Inner && raw.starts_with(['.', '@']);
    let path = analysis::root_path(raw).filter(|_| !is_elsewhere)?;
    (scope == Scope::Inner || !path.is_empty()).then_some(path)
}

fn value_at<'v>(path: &[String], data: &'v Value) -> Option<&'v Value> {
    path.iter().try_fold(data, |value, step| value.as_object()?.get(step))
}
