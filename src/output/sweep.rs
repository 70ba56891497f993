//! Removing what is ours and no longer needed, and nothing else.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};

use crate::format::digest::Digest;
use crate::output::disk::{self, named};
use crate::output::hold;
use crate::output::{CURRENT, GENERATIONS, N_KEPT_GENERATIONS, STAGING, STORE, generation_number};

/// Removes generations beyond the last few (never the current one, nor one that is held), folders of the store
/// that no generation refers to, and the staging folder.
///
/// A build makes its staging folder before it puts anything into the store and removes it
/// last, whether it ended or the next one finds it: without one there is nothing to look for.
pub fn sweep(root: &Path) -> Result<()> {
    let staging = root.join(STAGING);
    if !disk::exists(&staging)? {
        return Ok(());
    }
    old_generations(root)?;
    unreferenced(root)?;
    disk::remove_dir(&staging)
}

fn old_generations(root: &Path) -> Result<()> {
    let generations = root.join(GENERATIONS);
    let names = disk::names_in(&generations)?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| generation_number(name)).collect();
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    let current = fs::read_link(root.join(CURRENT)).unwrap_or_default();
    let is_current = |number: u64| current.file_name() == Some(OsStr::new(&number.to_string()));
    let mut old = numbers.into_iter().skip(N_KEPT_GENERATIONS).filter(|it| !is_current(*it));
    old.try_for_each(|number| {
        let path = generations.join(number.to_string());
        // Locked until it is gone, so that nobody takes hold of it half removed.
        match hold::lock_alone(&path)? {
            Some(_lock) => discard(root, &path),
            None => Ok(()),
        }
    })
}

/// Removes the folders of the store that no generation links to.
fn unreferenced(root: &Path) -> Result<()> {
    let store = root.join(STORE);
    let mut folders: BTreeSet<String> =
        disk::names_in(&store)?.into_iter().filter(|name| name.parse::<Digest>().is_ok()).collect();
    let generations = root.join(GENERATIONS);
    for name in disk::names_in(&generations)? {
        if generation_number(&name).is_some() {
            forget_referenced(&generations.join(name), &mut folders)?;
        }
    }
    folders.iter().try_for_each(|name| discard(root, &store.join(name)))
}

/// Takes out of `folders` those that the links of one generation lead to.
fn forget_referenced(generation: &Path, folders: &mut BTreeSet<String>) -> Result<()> {
    let mut links = vec![generation.join("pxe")];
    for place in ["layers", "nodes"] {
        let place = generation.join(place);
        if disk::exists(&place)? {
            links.extend(disk::names_in(&place)?.into_iter().map(|name| place.join(name)));
        }
    }
    for link in links {
        match fs::read_link(&link) {
            Ok(target) => {
                if let Some(digest) = target.file_name().and_then(|name| name.to_str()) {
                    folders.remove(digest);
                }
            }
            // Something that is no link, or is gone, refers to nothing.
            Err(fault)
                if matches!(
                    fault.kind(),
                    io::ErrorKind::InvalidInput | io::ErrorKind::NotFound
                ) => {}
            Err(fault) => return Err(fault).with_context(|| named("reading", &link)),
        }
    }
    Ok(())
}

/// Takes a folder away in one step, so that no part of it is ever found under its name.
fn discard(root: &Path, path: &Path) -> Result<()> {
    let away = root.join(STAGING).join("away");
    disk::remove_dir(&away)?;
    disk::rename(path, &away)?;
    disk::remove_dir(&away)
}
