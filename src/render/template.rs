//! Strict templates: an undefined value is an error, never an empty string.

use handlebars::{Context, Handlebars, Helper, HelperResult, Output, RenderContext};
use serde::Serialize;

/// Named templates, ready to render.
pub struct Templates(Handlebars<'static>);

impl Templates {
    pub fn new() -> Self {
        let mut handlebars = Handlebars::new();
        handlebars.set_strict_mode(true);
        handlebars.register_escape_fn(handlebars::no_escape);
        handlebars.register_helper("sh", Box::new(sh));
        Self(handlebars)
    }

    /// Adds `text` under `name`; `{{> name}}` in another template includes it.
    pub fn add(&mut self, name: &str, text: &str) -> Result<(), TemplateError> {
        self.0.register_template_string(name, text).map_err(|e| TemplateError(e.to_string()))
    }

    pub fn render<T: Serialize>(&self, name: &str, context: &T) -> Result<String, TemplateError> {
        self.0.render(name, context).map_err(|e| TemplateError(e.to_string()))
    }
}

impl Default for Templates {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TemplateError(String);

/// `{{sh value}}`: the value as one word of a POSIX shell.
fn sh(
    helper: &Helper<'_>,
    _: &Handlebars<'_>,
    _: &Context,
    _: &mut RenderContext<'_, '_>,
    out: &mut dyn Output,
) -> HelperResult {
    let value = helper.param(0).map(|param| param.value().render_text()).unwrap_or_default();
    out.write(&format!("'{}'", value.replace('\'', r"'\''")))?;
    Ok(())
}

trait RenderText {
    fn render_text(&self) -> String;
}

impl RenderText for serde_json::Value {
    fn render_text(&self) -> String {
        match self {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }
}
