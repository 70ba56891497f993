//! `schema`, `completions`, `man`: what is said of nodeforge itself.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use clap::CommandFactory;
use serde_json::json;

use crate::cli::{Cli, CompletionsArgs, ManArgs};
use crate::cluster::schema::CLUSTER_FILE;
use crate::commands::Outcome;
use crate::toml_doc;

/// Prints the JSON Schema of the cluster file.
pub fn schema() -> Result<Outcome> {
    let mut schema = toml_doc::json_schema(CLUSTER_FILE);
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("nodeforge cluster file");
    // An included file holds a part only, and `[os]` keys may come from a role: what is
    // missing altogether is for `check` to say.
    if let Some(object) = schema.as_object_mut() {
        object.remove("required");
    }
    let mut out = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, &schema)?;
    writeln!(out)?;
    Ok(Outcome::Done)
}

/// Prints completions for a shell.
pub fn completions(args: &CompletionsArgs) -> Result<Outcome> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "nodeforge", &mut text);
    std::io::stdout().lock().write_all(&text)?;
    Ok(Outcome::Done)
}

/// Writes the manual pages: one for nodeforge and one for each verb.
pub fn man(args: &ManArgs) -> Result<Outcome> {
    let mut command = Cli::command();
    command.build();
    let Some(dir) = &args.dir else {
        std::io::stdout().lock().write_all(&page(&command)?)?;
        return Ok(Outcome::Done);
    };
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    write_pages(&command, "nodeforge", dir)?;
    Ok(Outcome::Done)
}

fn write_pages(command: &clap::Command, name: &str, dir: &Path) -> Result<()> {
    let path = dir.join(format!("{name}.1"));
    let named = command.clone().name(name.to_owned());
    fs::write(&path, page(&named)?).with_context(|| format!("writing {}", path.display()))?;
    for verb in command.get_subcommands().filter(|verb| is_told_of(verb)) {
        write_pages(verb, &format!("{name}-{}", verb.get_name()), dir)?;
    }
    Ok(())
}

/// `help` is no verb of its own, and what is hidden is nothing that a person starts.
fn is_told_of(verb: &clap::Command) -> bool {
    verb.get_name() != "help" && !verb.is_hide_set()
}

fn page(command: &clap::Command) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone()).date("").render(&mut text)?;
    Ok(text)
}
