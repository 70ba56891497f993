//! Which lines differ between two texts.

use std::fmt::Write;

use imara_diff::{Algorithm, BasicLineDiffPrinter, Diff, InternedInput, UnifiedDiffConfig};

use crate::changes::Patches;
use crate::format::digest::{Digest, Hasher};

/// What a node is called; two nodes' lines that differ in nothing else are equal changes.
#[derive(Clone, Debug, Default)]
pub struct Identity(Vec<(String, &'static str)>);

impl Identity {
    /// `macs` as they stand in a manifest.
    pub fn new(name: &str, macs: &[String]) -> Self {
        let mut words = vec![(name.to_owned(), "{name}")];
        for mac in macs {
            words.push((mac.clone(), "{mac}"));
            words.push((mac.replace(':', "-"), "{mac}"));
        }
        Self(words)
    }

    /// `text` with placeholders for the node's own names.
    pub fn hide(&self, text: &str) -> String {
        let mut hidden = text.to_owned();
        for (word, placeholder) in &self.0 {
            if hidden.contains(word.as_str()) {
                hidden = replace_word(&hidden, word, placeholder);
            }
        }
        hidden
    }
}

/// Replaces `word` where it is no part of a longer one.
fn replace_word(text: &str, word: &str, with: &str) -> String {
    let mut replaced = String::with_capacity(text.len());
    let mut done = 0;
    for (at, _) in text.match_indices(word) {
        let end = at + word.len();
        let is_part = text[..at].ends_with(|c: char| c.is_ascii_alphanumeric())
            || text[end..].starts_with(|c: char| c.is_ascii_alphanumeric());
        if !is_part && at >= done {
            replaced.push_str(&text[done..at]);
            replaced.push_str(with);
            done = end;
        }
    }
    replaced + &text[done..]
}

/// The lines that two texts do not share.
#[derive(Clone, Debug)]
pub struct Difference<'t> {
    pub added: Vec<&'t str>,
    pub removed: Vec<&'t str>,
    /// In the form of `diff -u`, without names.
    pub patch: Option<String>,
}

impl<'t> Difference<'t> {
    /// Time grows with the texts and with what differs, not with their product, whatever they
    /// are.
    pub fn of(old: &'t str, new: &'t str, patches: Patches) -> Self {
        let input = InternedInput::new(old, new);
        let mut diff = Diff::compute(Algorithm::Histogram, &input);
        diff.postprocess_lines(&input);
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        for hunk in diff.hunks() {
            let lines = |tokens: &[imara_diff::Token]| {
                tokens.iter().map(|token| input.interner[*token]).collect::<Vec<&'t str>>()
            };
            removed
                .extend(lines(&input.before[hunk.before.start as usize..hunk.before.end as usize]));
            added.extend(lines(&input.after[hunk.after.start as usize..hunk.after.end as usize]));
        }
        let printer = BasicLineDiffPrinter(&input.interner);
        let patch = (patches == Patches::Kept)
            .then(|| diff.unified_diff(&printer, UnifiedDiffConfig::default(), &input).to_string());
        Self { added, removed, patch }
    }

    /// Equal for equal changes of nodes that are called differently.
    pub fn key(&self, old: &Identity, new: &Identity) -> Digest {
        let mut text = String::new();
        for (sign, lines, identity) in [('-', &self.removed, old), ('+', &self.added, new)] {
            for line in lines {
                writeln!(text, "{sign}{:?}", identity.hide(line))
                    .expect("a string takes all that is written");
            }
        }
        let mut hasher = Hasher::default();
        hasher.update(text.as_bytes());
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_own_names_are_hidden_and_longer_words_are_not() {
        let identity = Identity::new("srv1", &["02:00:00:00:00:0a".to_owned()]);
        for (line, hidden) in [
            ("srv1 srv12 asrv1 srv1.lab", "{name} srv12 asrv1 {name}.lab"),
            ("01-02-00-00-00-00-0a", "01-{mac}"),
            ("mac 02:00:00:00:00:0a", "mac {mac}"),
            ("srv1srv1 srv1", "srv1srv1 {name}"),
        ] {
            assert_eq!(identity.hide(line), hidden);
        }
    }

    #[test]
    fn lines_are_counted_and_shown_with_their_surroundings() {
        let (old, new) = ("1\n2\n3\n4\n5\n6\n", "1\n2\n3\n4\nfive\n6\nseven\n");
        let found = Difference::of(old, new, Patches::Kept);
        assert_eq!((found.removed, found.added), (vec!["5\n"], vec!["five\n", "seven\n"]));
        assert_eq!(found.patch.unwrap(), "@@ -2,5 +2,6 @@\n 2\n 3\n 4\n-5\n+five\n 6\n+seven\n");
    }

    /// A new range of addresses changes every line of /etc/hosts.
    #[test]
    fn texts_that_share_nothing_take_no_square_of_their_length() {
        let text = |of: &str| (0..100_000).map(|n| format!("{of} {n}\n")).collect::<String>();
        let (old, new) = (text("a"), text("b"));
        let found = Difference::of(&old, &new, Patches::Counted);
        assert_eq!((found.removed.len(), found.added.len()), (100_000, 100_000));
    }
}
