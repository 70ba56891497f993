//! The cluster as written: every file that has a say, parsed, nothing checked across them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::cluster::schema::CLUSTER_FILE;
use crate::diag::{Diagnostic, Problems, SourceId, SourceMap, Span, codes};
use crate::profile::Profile;
use crate::toml_doc::{self, Item, Key, Missing, Shape, Table, Value};

/// One cluster file or included file.
#[derive(Clone, Debug)]
pub struct Document {
    pub source: SourceId,
    pub table: Table,
    /// The folder that relative paths in it start from.
    pub folder: PathBuf,
    /// Whether so much of it is missing or unreadable that what is worked out from the rest
    /// would blame the wrong thing.
    pub is_partial: bool,
}

/// Everything that `Cluster::resolve` reads.
#[derive(Clone, Debug, Default)]
pub struct ClusterDoc {
    /// Included files first, in the order of inclusion; the file the user named is the last.
    pub documents: Vec<Document>,
    /// Whether an included file could not be read.
    pub lacks_files: bool,
    /// The text of each inventory by its path as joined with the folder that names it.
    pub inventories: BTreeMap<PathBuf, SourceId>,
    /// By name, built-in and the site's.
    pub profiles: BTreeMap<String, Profile>,
    /// The names of all overlays there are.
    pub overlays: Vec<String>,
}

impl ClusterDoc {
    /// The folder of the document that `span` points into.
    pub fn folder_of(&self, span: Span) -> &Path {
        let document = self.documents.iter().find(|document| document.source == span.source);
        document.map_or(Path::new(""), |document| &document.folder)
    }

    /// Whether something is missing that could be read for the user's own mistake only:
    /// what is worked out from the rest would blame the wrong thing.
    pub fn is_partial(&self) -> bool {
        self.lacks_files || self.documents.iter().any(|document| document.is_partial)
    }

    /// The place of every single value that is written somewhere: no tables, and of arrays
    /// the items too.
    pub fn values(&self) -> BTreeSet<Span> {
        let mut spans = BTreeSet::new();
        for document in &self.documents {
            collect_values(document.table.values(), &mut spans);
        }
        spans
    }

    /// The document the user named.
    ///
    /// # Panics
    ///
    /// If no document was added.
    pub fn main(&self) -> &Document {
        self.documents.last().expect("a cluster has at least the file that was named")
    }
}

fn collect_values<'a>(items: impl Iterator<Item = &'a Item>, spans: &mut BTreeSet<Span>) {
    for item in items {
        match &item.value {
            Value::Table(table) => collect_values(table.values(), spans),
            Value::Array(inner) => {
                if inner.iter().all(|item| item.table().is_none()) {
                    spans.insert(item.span);
                }
                collect_values(inner.iter(), spans);
            }
            _ => {
                spans.insert(item.span);
            }
        }
    }
}

/// Parses one cluster file; missing keys may come from another one. Returns whether the
/// table is a part only: see [`Document::is_partial`].
pub fn parse(sources: &SourceMap, source: SourceId, problems: &mut Problems) -> (Table, bool) {
    let (mut table, damage) = toml_doc::parse_damaged(sources, source, problems);
    if let Some(problem) = unknown_format(&table) {
        problems.push(problem);
        return (table, true);
    }
    let mut found = Problems::default();
    toml_doc::check(&table, CLUSTER_FILE, Missing::MayComeElsewhere, &mut found);
    let of_others = keys_of_others(&table);
    let misplaced = take_misplaced(&mut table);
    let places: Vec<Span> = misplaced
        .iter()
        .map(|(_, span)| *span)
        .chain(of_others.iter().filter_map(|found| Some(found.primary.as_ref()?.span)))
        .collect();
    found.retain(|problem| {
        let place = problem.primary.as_ref().map(|label| label.span);
        place.is_none_or(|place| !damage.explains(place) && !places.contains(&place))
    });
    let lacks_include = misplaced.iter().any(|(name, _)| name == "include");
    found.extend(misplaced.into_iter().map(|(name, span)| {
        let message = format!("`{name}` stands inside a table");
        Diagnostic::error(codes::UNKNOWN_KEY, message)
            .at(span)
            .help("write it at the top of the file, before the first `[table]`")
    }));
    found.extend(of_others);
    problems.extend(found.into_sorted());
    (table, lacks_include || !damage.is_none())
}

/// A file of another format may mean anything: nothing else is said of it.
fn unknown_format(table: &Table) -> Option<Diagnostic> {
    let item = table.get("format")?;
    let number = item.integer().filter(|number| *number != 1)?;
    let message = format!("format {number} is not known to this nodeforge");
    Some(
        Diagnostic::error(codes::BAD_FORMAT, message)
            .at(item.span)
            .help("write `format = 1`")
            .note("a file of a later format needs a later nodeforge"),
    )
}

/// Keys of the hardware in a role, and of roles in the hardware: known, in another place.
fn keys_of_others(table: &Table) -> Vec<Diagnostic> {
    let keys_of = |section: &str| -> &'static [Key] {
        match CLUSTER_FILE.iter().find(|key| key.name == section).map(|key| key.shape) {
            Some(Shape::Map(Shape::Table(keys))) => keys,
            _ => &[],
        }
    };
    let mut found = Vec::new();
    for (section, other, meaning) in [
        ("role", "hw", "a role says what a box does, not what it is"),
        ("hw", "role", "the hardware says what a box is, not what it does"),
    ] {
        let has = |section: &str, name: &str| keys_of(section).iter().any(|key| key.name == name);
        let tables = table.get(section).and_then(Item::table).into_iter().flatten();
        for (name, item) in tables.filter_map(|(_, item)| item.table()).flatten() {
            if has(other, name) && !has(section, name) {
                found.push(
                    Diagnostic::error(codes::UNKNOWN_KEY, format!("unknown key `{name}`"))
                        .at(item.key_span)
                        .help(format!("write it in `[{other}.NAME]` or in a node"))
                        .note(meaning),
                );
            }
        }
    }
    found
}

/// Takes out the keys of the top level that slipped into a table above them.
fn take_misplaced(table: &mut Table) -> Vec<(String, Span)> {
    let mut misplaced = Vec::new();
    for section in ["cluster", "boot", "os", "daos"] {
        let Some(Value::Table(inner)) = table.get_mut(section).map(|item| &mut item.value) else {
            continue;
        };
        for name in ["format", "include", "allow"] {
            misplaced.extend(inner.remove(name).map(|item| (name.to_owned(), item.key_span)));
        }
    }
    misplaced
}

/// The paths of `include`, with the place of each.
pub fn includes(table: &Table) -> Vec<(&str, Span)> {
    table.get("include").map(|item| item.texts().collect()).unwrap_or_default()
}

/// The inventories that node blocks name, with the place of each.
pub fn inventories(table: &Table) -> Vec<(&str, Span)> {
    let blocks = table.get("node").and_then(|item| item.table());
    blocks
        .into_iter()
        .flat_map(|blocks| blocks.values())
        .filter_map(|block| {
            let csv = block.table()?.get("facts")?.table()?.get("csv")?;
            Some((csv.text()?, csv.span))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The problems of a file, each as its line and message, and whether the rest is a part.
    fn parsed(text: &str) -> (Vec<String>, bool) {
        let mut sources = SourceMap::default();
        let id = sources.add("c.toml".into(), text.to_owned());
        let mut problems = Problems::default();
        let (_, is_partial) = parse(&sources, id, &mut problems);
        let line = |d: &Diagnostic| sources.line_column(d.primary.as_ref().unwrap().span).line;
        let found = problems.into_sorted();
        (found.iter().map(|d| format!("{} {}", line(d), d.message)).collect(), is_partial)
    }

    #[test]
    fn what_stands_below_a_broken_header_is_not_blamed() {
        let (found, is_partial) = parsed("format = 1\n[node.n[1-2]]\nhw = 3\n[os]\nselinx = 1\n");
        assert_eq!(found, ["2 unclosed table, expected `]`", "5 unknown key `selinx`"]);
        assert!(is_partial);
    }

    #[test]
    fn a_value_given_twice_leaves_the_rest_believable() {
        let (found, is_partial) = parsed("[daos]\nport = 1\nport = 2\nprot = 3\n");
        assert_eq!(found, ["3 `port` stands here for the second time", "4 unknown key `prot`"]);
        assert!(!is_partial);
    }

    #[test]
    fn a_later_format_is_the_only_thing_said() {
        let (found, is_partial) = parsed("format = 3\nnovelty = true\n");
        assert_eq!(found, ["1 format 3 is not known to this nodeforge"]);
        assert!(is_partial);
    }
}
