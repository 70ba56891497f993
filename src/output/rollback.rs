//! Making an older generation the current one.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::output::disk::{self, SECRET_DIR, named};
use crate::output::generations::{current_number, numbers, require_generation, require_ours};
use crate::output::verify::verify_generation;
use crate::output::{CURRENT, GENERATIONS, Generation, Lock, STAGING};

/// What a rollback did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RolledBack {
    /// The generation that was current; `None` if `current` led to none.
    pub from: Option<u64>,
    pub to: u64,
    /// The next build that changes something makes the one after it.
    pub highest: u64,
}

/// Makes generation `to` current, or the one before the current one; nothing is removed.
///
/// A reader sees the old set or the new one, and so does everybody after a crash. If `to` is
/// current already, nothing is written.
///
/// # Errors
///
/// Fails if there is no such generation, if it has lost files, or if a build is running; the
/// current generation stays then.
pub fn rollback(root: &Path, to: Option<u64>) -> Result<RolledBack> {
    require_ours(root)?;
    let _lock = Lock::take(root)?;
    let from = current_number(root);
    let to = match to {
        Some(number) => number,
        None => previous(root, from)?,
    };
    require_generation(root, to)?;
    let generation = Generation::read(root, to)
        .with_context(|| format!("generation {to} cannot be made current"))?;
    require_good(&generation)?;
    let highest = numbers(root)?.last().copied().unwrap_or(to);
    if from != Some(to) {
        point_current_to(root, to)?;
    }
    Ok(RolledBack { from, to, highest })
}

fn previous(root: &Path, from: Option<u64>) -> Result<u64> {
    let there = numbers(root)?;
    let Some(from) = from else {
        bail!("{} has no current generation: say which one to take", root.display());
    };
    let before = there.into_iter().rfind(|number| *number < from);
    before.with_context(|| format!("{} has no generation before {from}", root.display()))
}

/// Makes sure that every file that the generation lists has the bytes and the mode it was made with.
/// All are read: a rollback is rare, and made when things are bad already.
fn require_good(generation: &Generation) -> Result<()> {
    ensure!(
        generation.secrets.is_some(),
        "generation {} cannot be made current: its secrets are another user's, and cannot be looked at",
        generation.number
    );
    let found = verify_generation(generation, None)?;
    let modes = found.wrong_modes.iter().map(|wrong| &wrong.path);
    let wrong: Vec<&str> = found
        .files
        .missing
        .iter()
        .chain(&found.files.changed)
        .chain(modes)
        .map(|path| path.strip_prefix("current/").unwrap_or(path))
        .collect();
    let shown = match wrong.len() {
        0 => return Ok(()),
        1..=4 => wrong.join(", "),
        n_wrong => format!("{} and {} more", wrong[..3].join(", "), n_wrong - 3),
    };
    bail!(
        "generation {} cannot be made current: it is not as it was built: {shown}",
        generation.number
    )
}

/// Its folders came to disk when it was published; what is new is one link.
fn point_current_to(root: &Path, number: u64) -> Result<()> {
    let staging = root.join(STAGING);
    disk::ensure_dir(&staging, SECRET_DIR)?;
    // Not the name that a build uses: what a killed one left is for the next build to remove.
    let link = staging.join("rollback");
    if disk::exists(&link)? {
        fs::remove_file(&link).with_context(|| named("removing", &link))?;
    }
    symlink(format!("{GENERATIONS}/{number}"), &link).with_context(|| named("linking", &link))?;
    disk::rename(&link, &root.join(CURRENT))?;
    disk::sync_dir(root)?;
    // Fails where a killed build left something, which is as it should be.
    let _ = fs::remove_dir(&staging);
    Ok(())
}
