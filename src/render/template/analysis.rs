//! What a template mentions, read from its parsed form.

use std::collections::BTreeMap;
use std::ops::Range;

use handlebars::Template;
use handlebars::template::{DecoratorTemplate, HelperTemplate, Parameter, TemplateElement};
use serde_json::Value;

use crate::render::template::{Fault, TemplateError, Templates, helpers, tag_at};
use crate::toml_doc::did_you_mean;

/// The step of a path from a list to each of its items.
const ITEM: &str = "[]";

/// One mention of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// From the root, such as `repos`, `[]`, `baseurl`, where `[]` is each item of a list.
    pub path: Vec<String>,
    /// The template it stands in: the one asked about, or one that it includes.
    pub template: String,
    /// The place in bytes of that template's text.
    pub span: Range<usize>,
}

impl Reference {
    /// The path as a template at the root would write it.
    pub fn display(&self) -> String {
        self.path.join(".").replace(".[]", "[]")
    }
}

impl Templates {
    /// Every value that `name` and what it includes mention, in the order of the text;
    /// names inside `{{#each}}` and `{{#with}}` are traced back to the root.
    pub fn references(&self, name: &str) -> Vec<Reference> {
        let parsed = self.texts.get(name);
        parsed.map_or_else(Vec::new, |parsed| self.walk(name, &parsed.template).found)
    }

    /// Whether `part` of template `name`, or what it includes, mentions what lies at, above or
    /// below one of `paths`.
    pub(super) fn mentions_any(&self, name: &str, part: &Template, paths: &[&[&str]]) -> bool {
        let walk = self.walk(name, part);
        let touches = |reference: &Reference| {
            paths.iter().any(|path| reference.path.iter().zip(*path).all(|(a, b)| a == b))
        };
        walk.takes_all || walk.found.iter().any(touches)
    }

    fn walk(&self, name: &str, part: &Template) -> Walk<'_> {
        let mut walk = Walk { templates: self, found: Vec::new(), takes_all: false };
        let root = Scope { base: Some(Vec::new()), params: BTreeMap::new() };
        if let Some((name, parsed)) = self.texts.get_key_value(name) {
            walk.template(Place { name, text: &parsed.text }, part, &[root]);
        }
        walk
    }

    /// An error for each mention of what is not in `data`, except below the paths in `open`
    /// (such as `vars`), where anything may be.
    ///
    /// Also for branches that would not be rendered; so `data` should have an item in every
    /// list and a value for every option.
    pub fn undefined(&self, name: &str, data: &Value, open: &[&str]) -> Vec<TemplateError> {
        let is_open = |reference: &Reference| {
            let path = reference.display();
            open.iter()
                .any(|open| path.strip_prefix(open).is_some_and(|rest| rest.starts_with('.')))
        };
        let references = self.references(name).into_iter();
        let error = |reference: Reference| {
            let known = missing_step(&reference.path, data)?;
            let text = &self.texts.get(&reference.template)?.text;
            let message = format!("`{}` is not defined", reference.display());
            let span = reference.span.clone();
            let error = TemplateError::new(&reference.template, text, span, Fault::Value, message);
            Some(TemplateError { help: Some(known), ..error })
        };
        references.filter(|reference| !is_open(reference)).filter_map(error).collect()
    }

    /// Fails if `name` includes itself, whichever way round.
    pub(super) fn check_cycles(&self, name: &str) -> Result<(), TemplateError> {
        let Some(parsed) = self.texts.get(name) else { return Ok(()) };
        for (partial, line, column) in partials(&parsed.template) {
            if let Some(mut path) = self.path_to(&partial, name, &mut vec![name.to_owned()]) {
                path.insert(0, name.to_owned());
                let message = format!("templates include each other: {}", path.join(" → "));
                let span = tag_at(&parsed.text, line, column);
                let error = TemplateError::new(name, &parsed.text, span, Fault::Cycle, message);
                let help = Some("move what both need into a third one".to_owned());
                return Err(TemplateError { help, ..error });
            }
        }
        Ok(())
    }

    /// The way of inclusion from template `from` to template `to`, both included.
    fn path_to(&self, from: &str, to: &str, seen: &mut Vec<String>) -> Option<Vec<String>> {
        if from == to {
            return Some(vec![to.to_owned()]);
        }
        if seen.iter().any(|name| name == from) {
            return None;
        }
        seen.push(from.to_owned());
        let parsed = self.texts.get(from)?;
        partials(&parsed.template).into_iter().find_map(|(partial, ..)| {
            let mut path = self.path_to(&partial, to, seen)?;
            path.insert(0, from.to_owned());
            Some(path)
        })
    }
}

/// What to write instead of the first step of `path` that `data` lacks; `None` if all is there.
pub fn missing_step(path: &[String], data: &Value) -> Option<String> {
    let (step, rest) = path.split_first()?;
    match (data, step.as_str()) {
        (Value::Array(items), ITEM) => items.iter().find_map(|item| missing_step(rest, item)),
        (Value::Object(table), ITEM) => table.values().find_map(|item| missing_step(rest, item)),
        (Value::Array(items), index) => match index.parse::<usize>() {
            Ok(index) if index < items.len() => missing_step(rest, &items[index]),
            _ => Some("it is a list: go through it with `{{#each}}`".into()),
        },
        (Value::Object(table), key) => match table.get(key) {
            Some(value) => missing_step(rest, value),
            None => Some(known_keys(key, table)),
        },
        _ => Some("nothing lies below it".into()),
    }
}

fn known_keys(key: &str, table: &serde_json::Map<String, Value>) -> String {
    let keys = || table.keys().map(String::as_str);
    match did_you_mean(key, keys()) {
        Some(similar) => format!("did you mean `{similar}`?"),
        None if table.is_empty() => "define it in the cluster file, or leave it out here".into(),
        None => format!("known here: {}", keys().collect::<Vec<_>>().join(", ")),
    }
}

/// The text that positions are in.
#[derive(Clone, Copy)]
struct Place<'a> {
    name: &'a str,
    text: &'a str,
}

/// What relative names belong to inside a block.
#[derive(Clone)]
struct Scope {
    /// `None` inside what is no value of the context.
    base: Option<Vec<String>>,
    /// The names that `{{> partial name=…}}` gives.
    params: BTreeMap<String, Option<Vec<String>>>,
}

struct Walk<'a> {
    templates: &'a Templates,
    found: Vec<Reference>,
    /// Whether something mentions all there is, as `{{#each this}}` at the root.
    takes_all: bool,
}

impl Walk<'_> {
    fn template(&mut self, place: Place<'_>, template: &Template, scopes: &[Scope]) {
        for (element, line, column) in elements(template, (1, 1)) {
            let tag = tag_at(place.text, line, column);
            match element {
                TemplateElement::Expression(tag_element)
                | TemplateElement::HtmlExpression(tag_element) => {
                    self.expression(place, tag, tag_element, scopes);
                }
                TemplateElement::HelperBlock(block) => self.block(place, tag, block, scopes),
                TemplateElement::PartialExpression(partial) => {
                    self.partial(place, tag, partial, scopes);
                }
                _ => {}
            }
        }
    }

    fn expression(
        &mut self,
        place: Place<'_>,
        tag: Range<usize>,
        expression: &HelperTemplate,
        scopes: &[Scope],
    ) {
        if is_name_only(expression) {
            self.parameter(place, tag, &expression.name, scopes);
        } else {
            self.parameters(place, tag, expression, scopes);
        }
    }

    fn block(
        &mut self,
        place: Place<'_>,
        tag: Range<usize>,
        block: &HelperTemplate,
        scopes: &[Scope],
    ) {
        self.parameters(place, tag, block, scopes);
        let subject =
            block.params.first().and_then(|param| resolve(param.as_name()?, scopes).ok()?);
        let step: &[&str] = match block.name.as_name() {
            Some("each") => &[ITEM],
            Some("with") => &[],
            _ => {
                block.template.iter().for_each(|inner| self.template(place, inner, scopes));
                block.inverse.iter().for_each(|inner| self.template(place, inner, scopes));
                return;
            }
        };
        let base = subject.map(|mut path| {
            path.extend(step.iter().map(|&step| step.to_owned()));
            path
        });
        let inner_scopes = inside(scopes, Scope { base, params: BTreeMap::new() });
        block.template.iter().for_each(|inner| self.template(place, inner, &inner_scopes));
        block.inverse.iter().for_each(|inner| self.template(place, inner, scopes));
    }

    fn partial(
        &mut self,
        place: Place<'_>,
        tag: Range<usize>,
        partial: &DecoratorTemplate,
        scopes: &[Scope],
    ) {
        for parameter in partial.params.iter().chain(partial.hash.values()) {
            self.parameter(place, tag.clone(), parameter, scopes);
        }
        let path_of = |parameter: &Parameter| match parameter {
            Parameter::Path(_) => resolve(parameter.as_name()?, scopes).ok()?,
            _ => None,
        };
        let base = match partial.params.first() {
            Some(parameter) => path_of(parameter),
            None => scopes.last().and_then(|scope| scope.base.clone()),
        };
        let params = partial.hash.iter().map(|(name, value)| (name.clone(), path_of(value)));
        let scope = Scope { base, params: params.collect() };
        let included =
            partial.name.as_name().and_then(|name| self.templates.texts.get_key_value(name));
        if let Some((name, parsed)) = included {
            let place = Place { name, text: &parsed.text };
            self.template(place, &parsed.template, &inside(scopes, scope));
        }
    }

    fn parameters(
        &mut self,
        place: Place<'_>,
        tag: Range<usize>,
        helper: &HelperTemplate,
        scopes: &[Scope],
    ) {
        for parameter in helper.params.iter().chain(helper.hash.values()) {
            self.parameter(place, tag.clone(), parameter, scopes);
        }
    }

    fn parameter(
        &mut self,
        place: Place<'_>,
        tag: Range<usize>,
        parameter: &Parameter,
        scopes: &[Scope],
    ) {
        if let Parameter::Subexpression(inner) = parameter {
            for parameter in inner.params().into_iter().flatten() {
                self.parameter(place, tag.clone(), parameter, scopes);
            }
            return;
        }
        let Parameter::Path(_) = parameter else { return };
        let Some(raw) = parameter.as_name() else { return };
        match resolve(raw, scopes) {
            Ok(Some(path)) if path.is_empty() => self.takes_all = true,
            Ok(Some(path)) => {
                let span = find_word(place.text, tag, raw);
                self.found.push(Reference { path, template: place.name.to_owned(), span });
            }
            _ => {}
        }
    }
}

/// The steps of a path outside of any block; `None` for what is no value of the context.
pub(super) fn root_path(raw: &str) -> Option<Vec<String>> {
    let root = Scope { base: Some(Vec::new()), params: BTreeMap::new() };
    resolve(raw, &[root]).ok()?
}

fn inside(scopes: &[Scope], scope: Scope) -> Vec<Scope> {
    let mut scopes = scopes.to_vec();
    scopes.push(scope);
    scopes
}

/// `../` beyond the outermost block.
struct TooFarUp;

/// The path from the root that `raw` stands for; `None` for `@index` and its like, and for
/// what is no value of the context.
fn resolve(raw: &str, scopes: &[Scope]) -> Result<Option<Vec<String>>, TooFarUp> {
    let mut rest = raw;
    let mut n_up = 0;
    while let Some(below) = rest.strip_prefix("..") {
        n_up += 1;
        rest = below.trim_start_matches('/');
    }
    if let Some(below) = rest.strip_prefix("@root") {
        return Ok(Some(steps(below)));
    }
    if rest.starts_with('@') {
        return Ok(None);
    }
    let steps = steps(rest);
    let given = |name: &String| scopes.iter().rev().find_map(|scope| scope.params.get(name));
    if let Some((first, below)) = steps.split_first()
        && let Some(given) = given(first)
    {
        return Ok(given.as_ref().map(|path| path.iter().chain(below).cloned().collect()));
    }
    let at = scopes.len().checked_sub(n_up + 1).ok_or(TooFarUp)?;
    Ok(scopes[at].base.as_ref().map(|base| base.iter().chain(&steps).cloned().collect()))
}

/// `a.[b.c]/d` as its steps; `this` and `.` are none.
fn steps(path: &str) -> Vec<String> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        let (step, below) = match rest.strip_prefix('[') {
            Some(inner) => inner.split_once(']').unwrap_or((inner, "")),
            None => rest.split_at(rest.find(['.', '/', '[']).unwrap_or(rest.len())),
        };
        if !matches!(step, "" | "this") {
            steps.push(step.to_owned());
        }
        rest = below.strip_prefix(['.', '/']).unwrap_or(below);
    }
    steps
}

/// Where `word` stands in the tag at `tag`; the whole tag if it is not found.
fn find_word(text: &str, tag: Range<usize>, word: &str) -> Range<usize> {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '@' | '[');
    let inside = &text[tag.clone()];
    let ends_word = |at: usize| {
        !inside[..at].ends_with(is_part) && !inside[at + word.len()..].starts_with(is_part)
    };
    let at = inside.match_indices(word).map(|(at, _)| at).find(|&at| ends_word(at));
    at.map_or(tag.clone(), |at| tag.start + at..tag.start + at + word.len())
}

/// Elements with line and column; what the parser makes itself of `{{else if}}` has none
/// and gets `outer`, those of the block it belongs to.
fn elements(
    template: &Template,
    outer: (usize, usize),
) -> impl Iterator<Item = (&TemplateElement, usize, usize)> {
    let places = template.mapping.iter().map(|mapping| (mapping.0, mapping.1));
    let places = places.chain(std::iter::repeat(outer));
    template.elements.iter().zip(places).map(|(element, (line, column))| (element, line, column))
}

fn is_name_only(tag: &HelperTemplate) -> bool {
    !tag.block && tag.params.is_empty() && tag.hash.is_empty()
}

/// The templates that `template` includes, with the place of each `{{> name}}`.
fn partials(template: &Template) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for (element, line, column) in elements(template, (1, 1)) {
        match element {
            TemplateElement::PartialExpression(partial) => {
                let name = partial.name.as_name().map(str::to_owned);
                found.extend(name.map(|name| (name, line, column)));
            }
            TemplateElement::HelperBlock(block) => {
                found.extend(block.template.iter().flat_map(partials));
                found.extend(block.inverse.iter().flat_map(partials));
            }
            _ => {}
        }
    }
    found
}

/// Fails for the first thing in `template` that is not part of our language.
pub(super) fn check_language(
    name: &str,
    text: &str,
    template: &Template,
) -> Result<(), TemplateError> {
    check_elements(Place { name, text }, template, (1, 1))
}

fn check_elements(
    place: Place<'_>,
    template: &Template,
    outer: (usize, usize),
) -> Result<(), TemplateError> {
    for (element, line, column) in elements(template, outer) {
        let refuse = |message: String| {
            let tag = tag_at(place.text, line, column);
            let fault = Fault::Syntax;
            Err(TemplateError::new(place.name, place.text, tag, fault, message))
        };
        let fault = match element {
            TemplateElement::RawString(_) | TemplateElement::Comment(_) => None,
            TemplateElement::Expression(tag) | TemplateElement::HtmlExpression(tag) => {
                expression_fault(tag)
            }
            TemplateElement::HelperBlock(block) => block_fault(block),
            TemplateElement::PartialExpression(partial) => partial_fault(partial),
            _ => Some("only `{{> name}}` includes a template: there are no inline ones".into()),
        };
        if let Some(fault) = fault {
            return refuse(fault);
        }
        if let TemplateElement::HelperBlock(block) = element {
            for inner in block.template.iter().chain(&block.inverse) {
                check_elements(place, inner, (line, column))?;
            }
        }
    }
    Ok(())
}

fn expression_fault(tag: &HelperTemplate) -> Option<String> {
    let Some(name) = tag.name.as_name() else {
        return Some("write a path or the name of a helper between the braces".into());
    };
    if is_name_only(tag) {
        let is_helper = [helpers::QUOTING, helpers::QUESTIONS, helpers::BLOCKS].concat();
        return match is_helper.contains(&name) {
            true => Some(format!("`{name}` needs a value: `{{{{{name} path}}}}`")),
            false => None,
        };
    }
    if !helpers::QUOTING.contains(&name) {
        let help = did_you_mean(name, helpers::QUOTING.iter().copied());
        let help = match help {
            Some(similar) => format!("; did you mean `{similar}`?"),
            None => format!("; expected one of {}", helpers::QUOTING.join(", ")),
        };
        return Some(format!("there is no helper `{name}`{help}"));
    }
    parameters_fault(tag)
}

fn block_fault(block: &HelperTemplate) -> Option<String> {
    let name = block.name.as_name().unwrap_or_default();
    if !helpers::BLOCKS.contains(&name) {
        let blocks = helpers::BLOCKS.join("`, `#");
        return Some(format!("there is no block `#{name}`; there are `#{blocks}`"));
    }
    if block.block_param.is_some() {
        return Some("no `as |name|`: use `this` and `../` inside the block".into());
    }
    parameters_fault(block)
}

fn parameters_fault(tag: &HelperTemplate) -> Option<String> {
    let name = tag.name.as_name().unwrap_or_default();
    if tag.params.len() != 1 || !tag.hash.is_empty() {
        return Some(format!("`{name}` takes one value"));
    }
    question_fault(&tag.params[0])
}

fn question_fault(parameter: &Parameter) -> Option<String> {
    let Parameter::Subexpression(question) = parameter else { return None };
    let name = match question.element.as_ref() {
        TemplateElement::Expression(tag) => tag.name.as_name().unwrap_or_default(),
        _ => "",
    };
    if !helpers::QUESTIONS.contains(&name) {
        let known = helpers::QUESTIONS.join("`, `");
        return Some(format!("`({name} …)` is no question; there are `{known}`"));
    }
    question.params().into_iter().flatten().find_map(question_fault)
}

fn partial_fault(partial: &DecoratorTemplate) -> Option<String> {
    match partial.name.as_name() {
        Some(name) if !name.starts_with('@') => None,
        _ => Some("the name of an included template stands as it is: `{{> name}}`".into()),
    }
}
