//! Which lines differ between two texts.

use std::fmt::Write;

use imara_diff::{Algorithm, Diff, Hunk, InternedInput, Token};

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

    /// `text` with `{name}` and `{mac}` where the node's own names stand.
    pub fn hide(&self, text: &str) -> String {
        let mut hidden = text.to_owned();
        for (word, variable) in &self.0 {
            if hidden.contains(word.as_str()) {
                hidden = replace_word(&hidden, word, variable);
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
            let lines = |tokens: &[Token]| {
                tokens.iter().map(|token| input.interner[*token]).collect::<Vec<&'t str>>()
            };
            removed
                .extend(lines(&input.before[hunk.before.start as usize..hunk.before.end as usize]));
            added.extend(lines(&input.after[hunk.after.start as usize..hunk.after.end as usize]));
        }
        let patch = (patches == Patches::Kept).then(|| unified(&diff, &input));
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

/// Unchanged lines shown before and after changed ones.
const CONTEXT: u32 = 3;

/// The form of `diff -u` without its two lines of names. imara-diff's own printer counts wrong
/// where two changes are close to each other.
fn unified(diff: &Diff, input: &InternedInput<&str>) -> String {
    let mut parts: Vec<Vec<Hunk>> = Vec::new();
    for hunk in diff.hunks() {
        let last = parts.last().and_then(|part| part.last());
        match last.is_some_and(|last| hunk.before.start - last.before.end <= 2 * CONTEXT) {
            true => parts.last_mut().expect("there is a last part").push(hunk),
            false => parts.push(vec![hunk]),
        }
    }
    parts.iter().map(|part| unified_part(part, input)).collect()
}

/// Changes that share unchanged lines between them, under one header.
fn unified_part(hunks: &[Hunk], input: &InternedInput<&str>) -> String {
    let (first, last) = (&hunks[0], &hunks[hunks.len() - 1]);
    let n_before = first.before.start.min(CONTEXT);
    let n_after = (input.before.len() as u32 - last.before.end).min(CONTEXT);
    let old = first.before.start - n_before..last.before.end + n_after;
    let new = first.after.start - n_before..last.after.end + n_after;
    // A side without lines is told by the line before it.
    let range = |lines: &std::ops::Range<u32>| {
        let begin = if lines.is_empty() { lines.start } else { lines.start + 1 };
        format!("{begin},{}", lines.len())
    };
    let mut text = format!("@@ -{} +{} @@\n", range(&old), range(&new));
    let mut show = |sign: char, tokens: &[Token]| {
        for token in tokens {
            let line = input.interner[*token];
            let end = if line.ends_with('\n') { "" } else { "\n\\ No newline at end of file\n" };
            write!(text, "{sign}{line}{end}").expect("a string takes all that is written");
        }
    };
    let mut done = old.start;
    for hunk in hunks {
        show(' ', &input.before[done as usize..hunk.before.start as usize]);
        show('-', &input.before[hunk.before.start as usize..hunk.before.end as usize]);
        show('+', &input.after[hunk.after.start as usize..hunk.after.end as usize]);
        done = hunk.before.end;
    }
    show(' ', &input.before[done as usize..old.end as usize]);
    text
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

    #[test]
    fn far_changes_are_parts_of_their_own_and_a_missing_line_end_is_told() {
        let old: String = (1..=20).map(|n| format!("{n}\n")).collect();
        let new = old.replace("\n3\n", "\n").replace("\n20\n", "\n20");
        let patch = Difference::of(&old, &new, Patches::Kept).patch.unwrap();
        assert_eq!(
            patch,
            "@@ -1,6 +1,5 @@\n 1\n 2\n-3\n 4\n 5\n 6\n@@ -17,4 +16,4 @@\n 17\n 18\n 19\n\
             -20\n+20\n\\ No newline at end of file\n"
        );
        let patch = Difference::of("", "a\nb\n", Patches::Kept).patch.unwrap();
        assert_eq!(patch, "@@ -0,0 +1,2 @@\n+a\n+b\n");
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
