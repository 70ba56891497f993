//! `nodeforge verify`: every artefact against the manifest.

use std::io::Write;

use anyhow::Result;
use serde_json::json;

use crate::cli::VerifyArgs;
use crate::commands::Outcome;
use crate::output::{self, Secrets, Verification};

pub fn run(args: &VerifyArgs) -> Result<Outcome> {
    let found = output::verify(&args.out)?;
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &as_json(&found))?;
        writeln!(out)?;
    } else {
        let lists = [
            ("missing", &found.files.missing),
            ("changed", &found.files.changed),
            ("foreign", &found.files.foreign),
        ];
        for (what, paths) in lists {
            for path in paths {
                writeln!(out, "{what}  {path}")?;
            }
        }
        for wrong in &found.wrong_modes {
            writeln!(
                out,
                "mode     {}: {:04o} should be {:04o}",
                wrong.path, wrong.found, wrong.expected
            )?;
        }
    }
    eprintln!("{}", summary(&found, args));
    if !found.is_good() {
        eprintln!(
            "help: `nodeforge build CLUSTER -o {} --fresh` makes everything anew",
            args.out.display()
        );
    }
    Ok(if found.is_good() { Outcome::Done } else { Outcome::Problems })
}

fn summary(found: &Verification, args: &VerifyArgs) -> String {
    let n_wrong = found.files.missing.len()
        + found.files.changed.len()
        + found.files.foreign.len()
        + found.wrong_modes.len();
    let state = match n_wrong {
        0 => "as built".to_owned(),
        1 => "1 problem".to_owned(),
        n_wrong => format!("{n_wrong} problems"),
    };
    let secrets = match found.secrets {
        Secrets::Verified => "",
        Secrets::NotReadable => "; secret/ is another user's and was not looked at",
    };
    format!(
        "{}: generation {}: {} files good, {state}{secrets}",
        args.out.display(),
        found.generation,
        found.n_good
    )
}

fn as_json(found: &Verification) -> serde_json::Value {
    let modes = found.wrong_modes.iter().map(|wrong| {
        json!({
            "path": wrong.path,
            "found": format!("{:04o}", wrong.found),
            "expected": format!("{:04o}", wrong.expected),
        })
    });
    json!({
        "good": found.is_good(),
        "generation": found.generation,
        "files_good": found.n_good,
        "missing": found.files.missing,
        "changed": found.files.changed,
        "foreign": found.files.foreign,
        "wrong_modes": modes.collect::<Vec<_>>(),
        "secrets_verified": found.secrets == Secrets::Verified,
    })
}
