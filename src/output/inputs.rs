//! What the current generation was made from, so that the next build can tell what need not be
//! made again.
//!
//! The file is a cache beside the generations and no part of them: it speaks of the program
//! that built, and may be lost at any time. Secret inputs go into its digests, so it is its
//! owner's only.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Result;

use crate::format::digest::Digest;
use crate::output::disk::{self, SECRET_FILE};
use crate::output::generations::current_number;
use crate::output::{GENERATIONS, INPUTS, MANIFEST, Output};

/// Digests of inputs: equal ones gave what stands in the current generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inputs {
    /// Of the whole build; `None` where not all nodes were built.
    pub whole: Option<Whole>,
    pub layers: BTreeMap<String, Digest>,
    pub nodes: BTreeMap<String, Digest>,
}

/// Of all that a build started from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole {
    pub digest: Digest,
    pub remarks: Remarks,
}

/// Whether preparing templates and overlays gave warnings, which each build repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remarks {
    None,
    Some,
}

const FIRST_LINE: &str = "nodeforge inputs 2";
const QUIET: &str = "whole";
const REMARKED: &str = "whole-with-warnings";
const LAST_LINE: &str = "end";

impl Inputs {
    /// `None` for anything but a whole file about the generation that `stamp` tells.
    fn parse(text: &str, stamp: &str) -> Option<Self> {
        let mut lines = text.strip_suffix(&format!("{LAST_LINE}\n"))?.lines();
        let is_ours = lines.next() == Some(FIRST_LINE) && lines.next() == Some(stamp);
        if !is_ours {
            return None;
        }
        let mut inputs = Self::default();
        for line in lines {
            let (digest, of) = line.split_once(' ')?;
            let digest = digest.parse().ok()?;
            match of.split_once(' ') {
                None => inputs.whole = Some(Whole { digest, remarks: remarks(of)? }),
                Some(("layer", name)) => _ = inputs.layers.insert(name.to_owned(), digest),
                Some(("node", name)) => _ = inputs.nodes.insert(name.to_owned(), digest),
                _ => return None,
            }
        }
        Some(inputs)
    }

    fn text(&self, stamp: &str) -> String {
        let mut text = format!("{FIRST_LINE}\n{stamp}\n");
        text.extend(self.whole.map(|whole| {
            let what = match whole.remarks {
                Remarks::None => QUIET,
                Remarks::Some => REMARKED,
            };
            format!("{} {what}\n", whole.digest)
        }));
        text.extend(self.layers.iter().map(|(name, digest)| format!("{digest} layer {name}\n")));
        text.extend(self.nodes.iter().map(|(name, digest)| format!("{digest} node {name}\n")));
        text + LAST_LINE + "\n"
    }
}

fn remarks(of: &str) -> Option<Remarks> {
    match of {
        QUIET => Some(Remarks::None),
        REMARKED => Some(Remarks::Some),
        _ => None,
    }
}

/// The line of the whole alone, which is the first one.
fn parse_whole(text: &str, stamp: &str) -> Option<Whole> {
    let mut lines = text.strip_suffix(&format!("{LAST_LINE}\n"))?.lines();
    let is_ours = lines.next() == Some(FIRST_LINE) && lines.next() == Some(stamp);
    let (digest, of) = lines.next().filter(|_| is_ours)?.split_once(' ')?;
    Some(Whole { remarks: remarks(of)?, digest: digest.parse().ok()? })
}

/// What the current generation below `root` was made from, all nodes together, as far as that is
/// known; nothing is locked.
pub fn made_from(root: &Path) -> Option<Whole> {
    read_by(root, current_number(root)?, parse_whole)
}

impl Output {
    /// What the current generation was made from, all nodes together, as far as that is known.
    pub fn made_from(&self) -> Option<Whole> {
        read_by(&self.root, self.generation()?.number, parse_whole)
    }

    /// What the current generation was made from, as far as that is known.
    pub fn inputs(&self) -> Inputs {
        let number = self.generation().map(|generation| generation.number);
        number.and_then(|number| read(&self.root, number)).unwrap_or_default()
    }

    /// Notes what generation `number` was made from, unless that is noted already.
    pub(super) fn note_inputs(&self, number: u64, inputs: &Inputs) -> Result<()> {
        let Some(stamp) = stamp(&self.root, number) else { return Ok(()) };
        let (path, text) = (self.root.join(INPUTS), inputs.text(&stamp));
        if fs::read_to_string(&path).is_ok_and(|found| found == text) {
            return Ok(());
        }
        let staged = self.staging()?.join("inputs");
        disk::write_file(&staged, SECRET_FILE, text.as_bytes())?;
        disk::rename(&staged, &path)
    }
}

/// What generation `number` was made from; `None` unless it is the one that is noted.
pub(super) fn read(root: &Path, number: u64) -> Option<Inputs> {
    read_by(root, number, Inputs::parse)
}

fn read_by<T>(root: &Path, number: u64, parse: fn(&str, &str) -> Option<T>) -> Option<T> {
    parse(&fs::read_to_string(root.join(INPUTS)).ok()?, &stamp(root, number)?)
}

/// Tells one generation from another of the same number, in an output folder that was
/// restored or copied.
fn stamp(root: &Path, number: u64) -> Option<String> {
    let manifest = root.join(GENERATIONS).join(number.to_string()).join(MANIFEST);
    let of = |it: Metadata| {
        format!("generation {number} {} {}.{:09}", it.len(), it.mtime(), it.mtime_nsec())
    };
    fs::symlink_metadata(manifest).ok().map(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let digest = |text: &str| Digest::of(text.as_bytes());
        let inputs = Inputs {
            whole: Some(Whole { digest: digest("all"), remarks: Remarks::Some }),
            layers: BTreeMap::from([("common".to_owned(), digest("common"))]),
            nodes: BTreeMap::from([("node0".to_owned(), digest("node0"))]),
        };
        let text = inputs.text("generation 3");
        assert_eq!(parse_whole(&text, "generation 3"), inputs.whole);
        assert_eq!(parse_whole(&text, "generation 4"), None);
        assert_eq!(Inputs::parse(&text, "generation 3"), Some(inputs));
        assert_eq!(Inputs::parse(&text, "generation 4"), None);
        for n_bytes in 0..text.len() {
            assert_eq!(Inputs::parse(&text[..n_bytes], "generation 3"), None, "{n_bytes} bytes");
        }
    }
}
