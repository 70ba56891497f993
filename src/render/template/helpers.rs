//! What stands between braces beside a path: printing, quoting, conditions.
//!
//! All of them refuse a parameter that is undefined: handlebars' own strictness ends at
//! `{{path}}`.

use handlebars::{
    BlockContext, Context, Handlebars, Helper, HelperDef, HelperResult, JsonTruthy, Output,
    PathAndJson, RenderContext, RenderError, RenderErrorReason, Renderable, ScopedJson,
};
use serde_json::Value;

/// What `{{path}}` becomes; no template can name it, for `#` is no part of a name.
pub(super) const PRINT_LINE: &str = "#line";

/// What `{{{path}}}` becomes.
pub(super) const PRINT_TEXT: &str = "#text";

/// Helpers that turn one value into text: `{{sh path}}`.
pub(super) const QUOTING: &[&str] = &["ini", "json", "sh", "unit", "yaml"];

/// Helpers that answer a question, in parentheses: `{{#if (eq a "b")}}`.
pub(super) const QUESTIONS: &[&str] = &["and", "eq", "ne", "not", "or"];

/// Helpers that open a block.
pub(super) const BLOCKS: &[&str] = &["each", "if", "unless", "with"];

const QUOTES: [(&str, Quote); 7] = [
    (PRINT_LINE, print_line),
    (PRINT_TEXT, print_text),
    ("sh", sh),
    ("json", json),
    ("yaml", json),
    ("ini", ini),
    ("unit", unit),
];

/// What the helper of that name makes of a value.
pub(super) fn quote_by(helper: &str) -> Option<Quote> {
    QUOTES.iter().find(|(name, _)| *name == helper).map(|(_, quote)| *quote)
}

pub(super) fn register(handlebars: &mut Handlebars<'static>) {
    for name in ["lookup", "raw", "log", "gt", "gte", "lt", "lte", "len"] {
        handlebars.unregister_helper(name);
    }
    for (name, quote) in QUOTES {
        handlebars.register_helper(name, Box::new(Quoting(quote)));
    }
    let questions: [(&str, Answer); 5] = [
        ("eq", |values| values.windows(2).all(|pair| pair[0] == pair[1])),
        ("ne", |values| values.windows(2).all(|pair| pair[0] != pair[1])),
        ("and", |values| values.iter().all(|value| holds(value))),
        ("or", |values| values.iter().any(|value| holds(value))),
        ("not", |values| !values.iter().any(|value| holds(value))),
    ];
    for (name, answer) in questions {
        handlebars.register_helper(name, Box::new(Question(answer)));
    }
    handlebars.register_helper("if", Box::new(If { wanted: true }));
    handlebars.register_helper("unless", Box::new(If { wanted: false }));
    handlebars.register_helper("each", Box::new(Each));
    handlebars.register_helper("with", Box::new(With));
}

/// Whether `{{#if value}}` holds: not for null, false, zero, and what is empty.
pub(super) fn holds(value: &Value) -> bool {
    value.is_truthy(false)
}

/// Turns a value into text, or says why not.
pub(super) type Quote = fn(&Value) -> Result<String, String>;

struct Quoting(Quote);

impl HelperDef for Quoting {
    fn call_inner<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
    ) -> Result<ScopedJson<'rc>, RenderError> {
        let param = only_param(helper)?;
        let text = (self.0)(param.value())
            .map_err(|fault| other(format!("`{}` {fault}", name_of(param))))?;
        Ok(ScopedJson::Derived(Value::String(text)))
    }
}

type Answer = fn(&[&Value]) -> bool;

struct Question(Answer);

impl HelperDef for Question {
    fn call_inner<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
    ) -> Result<ScopedJson<'rc>, RenderError> {
        Ok(ScopedJson::Derived(Value::Bool((self.0)(&defined_params(helper)?))))
    }
}

struct If {
    wanted: bool,
}

impl HelperDef for If {
    fn call<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        registry: &'reg Handlebars<'reg>,
        context: &'rc Context,
        render_context: &mut RenderContext<'reg, 'rc>,
        out: &mut dyn Output,
    ) -> HelperResult {
        let branch = match holds(only_param(helper)?.value()) == self.wanted {
            true => helper.template(),
            false => helper.inverse(),
        };
        branch.map_or(Ok(()), |branch| branch.render(registry, context, render_context, out))
    }
}

/// `{{#each list}}`: lists and tables; anything else is a mistake, not an empty list.
struct Each;

impl HelperDef for Each {
    fn call<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        registry: &'reg Handlebars<'reg>,
        context: &'rc Context,
        render_context: &mut RenderContext<'reg, 'rc>,
        out: &mut dyn Output,
    ) -> HelperResult {
        let param = only_param(helper)?;
        let items: Vec<(String, &Value)> = match param.value() {
            Value::Array(list) => {
                list.iter().enumerate().map(|(at, item)| (at.to_string(), item)).collect()
            }
            Value::Object(table) => table.iter().map(|(key, item)| (key.clone(), item)).collect(),
            _ => return Err(other(format!("`{}` is no list", name_of(param)))),
        };
        let (Some(body), false) = (helper.template(), items.is_empty()) else {
            let otherwise = helper.inverse();
            return otherwise.map_or(Ok(()), |t| t.render(registry, context, render_context, out));
        };
        let n_items = items.len();
        for (index, (key, item)) in items.into_iter().enumerate() {
            let mut block = block_at(param, Some(&key), item);
            block.set_local_var("index", index.into());
            block.set_local_var("first", (index == 0).into());
            block.set_local_var("last", (index + 1 == n_items).into());
            block.set_local_var("key", key.into());
            render_context.push_block(block);
            let rendered = body.render(registry, context, render_context, out);
            render_context.pop_block();
            rendered?;
        }
        Ok(())
    }
}

/// `{{#with table}}`: skipped for null and what else does not hold.
struct With;

impl HelperDef for With {
    fn call<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        registry: &'reg Handlebars<'reg>,
        context: &'rc Context,
        render_context: &mut RenderContext<'reg, 'rc>,
        out: &mut dyn Output,
    ) -> HelperResult {
        let param = only_param(helper)?;
        let (Some(body), true) = (helper.template(), holds(param.value())) else {
            let otherwise = helper.inverse();
            return otherwise.map_or(Ok(()), |t| t.render(registry, context, render_context, out));
        };
        render_context.push_block(block_at(param, None, param.value()));
        let rendered = body.render(registry, context, render_context, out);
        render_context.pop_block();
        rendered
    }
}

/// The scope inside a block: `value`, which is `param` or its part `key`.
fn block_at<'rc>(param: &PathAndJson<'rc>, key: Option<&str>, value: &Value) -> BlockContext<'rc> {
    let mut block = BlockContext::new();
    match param.context_path() {
        Some(path) => {
            block.base_path_mut().clone_from(path);
            block.base_path_mut().extend(key.map(str::to_owned));
        }
        None => block.set_base_value(value.clone()),
    }
    block
}

fn only_param<'h, 'rc>(helper: &'h Helper<'rc>) -> Result<&'h PathAndJson<'rc>, RenderError> {
    defined_params(helper)?;
    match helper.params().as_slice() {
        [param] => Ok(param),
        _ => Err(other(format!("`{}` takes one value", helper.name()))),
    }
}

fn name_of<'h>(param: &'h PathAndJson<'_>) -> &'h str {
    param.relative_path().map_or("the value", String::as_str)
}

/// The values of all parameters, if all are defined.
fn defined_params<'h>(helper: &'h Helper<'_>) -> Result<Vec<&'h Value>, RenderError> {
    let params = helper.params().iter();
    params
        .map(|param| match param.is_value_missing() {
            true => Err(RenderError::strict_error(param.relative_path())),
            false => Ok(param.value()),
        })
        .collect()
}

fn other(message: String) -> RenderError {
    RenderErrorReason::Other(message).into()
}

/// `{{path}}`: one line of text.
fn print_line(value: &Value) -> Result<String, String> {
    one_line(scalar(value)?)
}

/// `{{{path}}}`: text of any number of lines.
fn print_text(value: &Value) -> Result<String, String> {
    scalar(value)
}

/// One word of a POSIX shell (POSIX.1-2017, Shell 2.2.2).
fn sh(value: &Value) -> Result<String, String> {
    Ok(format!("'{}'", one_line(scalar(value)?)?.replace('\'', r"'\''")))
}

/// A string of JSON that is a double-quoted string of YAML 1.1, too: what that does not
/// print (§5.1), it wants escaped.
fn json(value: &Value) -> Result<String, String> {
    let quoted = serde_json::to_string(&scalar(value)?).expect("a string can be quoted");
    let escape = |c: char| match c {
        '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' => {
            format!("\\u{:04x}", c as u32)
        }
        c => c.to_string(),
    };
    Ok(quoted.chars().map(escape).collect())
}

/// A value of an INI file, NetworkManager's keyfiles included, whose backslash escapes and
/// whose readers strip blanks at the ends.
fn ini(value: &Value) -> Result<String, String> {
    let text = one_line(scalar(value)?)?;
    match text.trim() != text || text.contains('\\') {
        true => Err(format!("is {text:?}: no backslash and no blank at an end can stand here")),
        false => Ok(text),
    }
}

/// A value in a systemd unit, where `%` begins a specifier (systemd.unit(5), "Specifiers").
fn unit(value: &Value) -> Result<String, String> {
    Ok(ini(value)?.replace('%', "%%"))
}

fn scalar(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(value) => Ok(value.to_string()),
        Value::Null => Err("has no value here: ask with `{{#if}}` first".into()),
        Value::Array(_) => Err("is a list: go through it with `{{#each}}`".into()),
        Value::Object(_) => Err("is a table: name one of its fields".into()),
    }
}

fn one_line(text: String) -> Result<String, String> {
    match text.chars().find(|c| c.is_control()) {
        Some(c) => Err(format!(
            "holds the control character {}, which could change what the file means",
            c.escape_default()
        )),
        None => Ok(text),
    }
}
