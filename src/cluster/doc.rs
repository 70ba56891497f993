//! The cluster as written: every file that has a say, parsed, nothing checked across them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::cluster::schema::CLUSTER_FILE;
use crate::diag::{Problems, SourceId, SourceMap, Span};
use crate::profile::Profile;
use crate::toml_doc::{self, Missing, Table};

/// One cluster file or included file.
#[derive(Clone, Debug)]
pub struct Document {
    pub source: SourceId,
    pub table: Table,
    /// The folder that relative paths in it start from.
    pub folder: PathBuf,
}

/// Everything that `Cluster::resolve` reads.
#[derive(Clone, Debug, Default)]
pub struct ClusterDoc {
    /// Included files first, in the order of inclusion; the file the user named is the last.
    pub documents: Vec<Document>,
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

    /// The document the user named.
    ///
    /// # Panics
    ///
    /// If no document was added.
    pub fn main(&self) -> &Document {
        self.documents.last().expect("a cluster has at least the file that was named")
    }
}

/// Parses one cluster file; missing keys may come from another one.
pub fn parse(sources: &SourceMap, source: SourceId, problems: &mut Problems) -> Table {
    let table = toml_doc::parse(sources, source, problems);
    toml_doc::check(&table, CLUSTER_FILE, Missing::MayComeElsewhere, problems);
    table
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
