//! Inventories: CSV files that give nodes their own values.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::cluster::doc::ClusterDoc;
use crate::cluster::model::Sited;
use crate::cluster::resolve::reader::Reader;
use crate::diag::{Diagnostic, SourceId, SourceMap, Span, codes};
use crate::range::{self, NodeName};
use crate::toml_doc::{Table, did_you_mean};

/// What a column may give.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fact {
    /// `mac.NIC`
    Mac(String),
    /// `guid.NIC`
    Guid(String),
    Serial,
    BmcIp,
}

impl Fact {
    fn of_column(column: &str) -> Option<Self> {
        match (column, column.split_once('.')) {
            ("serial", _) => Some(Fact::Serial),
            ("bmc_ip", _) => Some(Fact::BmcIp),
            (_, Some(("mac", nic))) => Some(Fact::Mac(nic.to_owned())),
            (_, Some(("guid", nic))) => Some(Fact::Guid(nic.to_owned())),
            _ => None,
        }
    }
}

/// One inventory as a block of nodes uses it.
#[derive(Debug)]
pub struct Facts {
    inventory: PathBuf,
    key_column: Sited<String>,
    columns: Vec<(Sited<String>, Fact)>,
    span: Span,
}

/// What inventories say of one node.
#[derive(Clone, Debug, Default)]
pub struct NodeFacts {
    pub given: BTreeMap<Fact, Given>,
    /// Whether something was asked of an inventory that it did not say; that is reported.
    pub are_partial: bool,
}

/// One cell, and the place in the cluster file that asks for its column.
#[derive(Clone, Debug)]
pub struct Given {
    pub cell: Sited<String>,
    pub column: Span,
}

/// Every inventory that blocks use, read once, and which of their rows were.
#[derive(Debug, Default)]
pub struct Inventories {
    read: BTreeMap<(PathBuf, String), Inventory>,
}

#[derive(Debug)]
struct Inventory {
    source: SourceId,
    header: Span,
    /// Rows by the key column; cells by column, the empty ones absent.
    rows: BTreeMap<String, Row>,
    columns: Vec<String>,
    used: BTreeSet<String>,
    /// Nodes whose rows cannot be read.
    faulty: BTreeSet<String>,
    /// Whether nothing in it can be found, for a reason that was reported.
    is_unreadable: bool,
}

#[derive(Debug)]
struct Row {
    span: Span,
    /// Each with its place.
    cells: BTreeMap<String, Sited<String>>,
}

/// Reads the `facts` of a node block.
pub fn facts(reader: &mut Reader, doc: &ClusterDoc, block: &Table) -> Option<Facts> {
    let item = block.get("facts")?;
    let table = item.table()?;
    let key = table.get("key")?;
    let csv = table.get("csv")?;
    let mut columns = Vec::new();
    for (column, span) in table.get("columns")?.texts() {
        let name = Sited { value: column.to_owned(), span };
        match Fact::of_column(column) {
            Some(fact) => columns.push((name, fact)),
            None => reader.error(
                Diagnostic::error(codes::NOT_ALLOWED, format!("a column `{column}` gives nothing"))
                    .at(span)
                    .help("take `mac.NIC`, `guid.NIC`, `serial` or `bmc_ip`; other columns are left alone"),
            ),
        }
    }
    Some(Facts {
        inventory: doc.folder_of(csv.span).join(csv.text()?),
        key_column: Sited { value: key.text()?.to_owned(), span: key.span },
        columns,
        span: item.span,
    })
}

impl Inventories {
    /// The facts of one node, each with the place of its row.
    pub fn facts_of(
        &mut self,
        reader: &mut Reader,
        doc: &ClusterDoc,
        sources: &SourceMap,
        facts: &Facts,
        nodes: &[NodeName],
    ) -> BTreeMap<NodeName, NodeFacts> {
        let key = (facts.inventory.clone(), facts.key_column.value.clone());
        if !self.read.contains_key(&key) {
            // A file that cannot be read has been reported where it was tried.
            let Some(source) = doc.inventories.get(&facts.inventory) else {
                reader.has_gaps = true;
                return BTreeMap::new();
            };
            let inventory = read(reader, sources, *source, facts);
            self.read.insert(key.clone(), inventory);
        }
        let inventory = self.read.get_mut(&key).expect("it was read above");
        inventory.facts_of(reader, facts, nodes)
    }

    /// Warns of rows that no node took.
    pub fn report_surplus(&self, reader: &mut Reader) {
        for inventory in self.read.values() {
            let surplus: Vec<(&String, &Row)> =
                inventory.rows.iter().filter(|(key, _)| !inventory.used.contains(*key)).collect();
            let Some((_, first)) = surplus.iter().min_by_key(|(_, row)| row.span) else { continue };
            let names: Vec<NodeName> = surplus.iter().map(|(key, _)| NodeName::new(*key)).collect();
            let message = format!("rows of no node: {}", range::fold(&names));
            reader.problems.push(
                Diagnostic::warning(codes::SURPLUS_ROWS, message)
                    .at(first.span)
                    .help("add the nodes to the cluster file, or take the rows out"),
            );
        }
    }
}

impl Inventory {
    fn facts_of(
        &mut self,
        reader: &mut Reader,
        facts: &Facts,
        nodes: &[NodeName],
    ) -> BTreeMap<NodeName, NodeFacts> {
        if self.is_unreadable {
            return BTreeMap::new();
        }
        let mut columns = Vec::new();
        let mut lacks_columns = false;
        for (column, fact) in &facts.columns {
            if self.columns.contains(&column.value) {
                columns.push((column, fact));
            } else {
                lacks_columns = true;
                reader.error(self.no_column(column));
            }
        }
        let mut found = BTreeMap::new();
        let mut without_row = Vec::new();
        for name in nodes {
            let Some(row) = self.rows.get(name.as_str()) else {
                if !self.faulty.contains(name.as_str()) {
                    without_row.push(name);
                }
                continue;
            };
            self.used.insert(name.to_string());
            let cells = columns.iter().filter_map(|(column, fact)| {
                let cell = row.cells.get(&column.value)?.clone();
                Some(((*fact).clone(), Given { cell, column: column.span }))
            });
            let facts = NodeFacts { given: cells.collect(), are_partial: lacks_columns };
            found.insert(name.clone(), facts);
        }
        if !without_row.is_empty() {
            let message = format!("the inventory has no row for {}", range::fold(without_row));
            reader.error(
                Diagnostic::error(codes::FACTS, message)
                    .at(facts.span)
                    .help("add the rows, or narrow the range"),
            );
        }
        found
    }

    fn no_column(&self, column: &Sited<String>) -> Diagnostic {
        let message = format!("the inventory has no column `{}`", column.value);
        let diagnostic = Diagnostic::error(codes::FACTS, message)
            .at(column.span)
            .also(self.header, "the line that names the columns");
        match did_you_mean(&column.value, self.columns.iter().map(String::as_str)) {
            Some(similar) => diagnostic.help(format!("did you mean `{similar}`?")),
            None => diagnostic.help(format!("there are: {}", self.columns.join(", "))),
        }
    }
}

fn read(reader: &mut Reader, sources: &SourceMap, source: SourceId, facts: &Facts) -> Inventory {
    let text = &sources.file(source).text;
    let mut csv =
        csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_reader(text.as_bytes());
    let mut inventory = Inventory {
        source,
        header: line_at(text, source, 0),
        rows: BTreeMap::new(),
        columns: Vec::new(),
        used: BTreeSet::new(),
        faulty: BTreeSet::new(),
        is_unreadable: false,
    };
    if text.trim().is_empty() {
        let message = "the inventory is empty";
        reader.error(
            Diagnostic::error(codes::FACTS, message)
                .at(Span::new(source, 0..0))
                .help("let its first line name the columns: `name,mac.mgmt`"),
        );
        inventory.is_unreadable = true;
        return inventory;
    }
    let header = match csv.headers() {
        Ok(header) => header.clone(),
        Err(fault) => {
            let message = format!("the inventory cannot be read: {fault}");
            reader.error(Diagnostic::error(codes::FACTS, message).at(Span::new(source, 0..0)));
            inventory.is_unreadable = true;
            return inventory;
        }
    };
    inventory.columns =
        header.iter().map(|name| name.trim_start_matches('\u{feff}').to_owned()).collect();
    for (at, column) in inventory.columns.iter().enumerate() {
        if inventory.columns[..at].contains(column) {
            let message = format!("the inventory has the column `{column}` twice");
            reader.error(
                Diagnostic::error(codes::FACTS, message)
                    .at(inventory.header)
                    .help("give each column a name of its own"),
            );
        }
    }
    let is_key = |column: &String| *column == facts.key_column.value;
    let Some(key_at) = inventory.columns.iter().position(is_key) else {
        let problem = inventory.no_column(&facts.key_column);
        reader.error(problem);
        inventory.is_unreadable = true;
        return inventory;
    };
    for record in csv.records() {
        match record {
            Ok(record) => add_row(reader, &mut inventory, text, key_at, &record),
            Err(fault) => {
                let start = fault.position().map_or(0, |position| position.byte() as usize);
                let message = format!("a row of the inventory cannot be read: {fault}");
                reader.error(
                    Diagnostic::error(codes::FACTS, message).at(line_at(text, source, start)),
                );
            }
        }
    }
    inventory
}

fn add_row(
    reader: &mut Reader,
    inventory: &mut Inventory,
    text: &str,
    key_at: usize,
    record: &csv::StringRecord,
) {
    let start = record.position().map_or(0, |position| position.byte() as usize);
    let span = line_at(text, inventory.source, start);
    if record.len() != inventory.columns.len() {
        let message =
            format!("the row has {} cells for {} columns", record.len(), inventory.columns.len());
        reader.error(
            Diagnostic::error(codes::FACTS, message)
                .at(span)
                .help("write an empty cell for what is not known"),
        );
        inventory.faulty.extend(record.get(key_at).map(str::to_owned));
        return;
    }
    let key = record.get(key_at).unwrap_or_default().to_owned();
    if key.is_empty() {
        reader.error(
            Diagnostic::error(
                codes::FACTS,
                format!("the row has no `{}`", inventory.columns[key_at]),
            )
            .at(span)
            .help("name the node, or take the row out"),
        );
        return;
    }
    let cells = inventory.columns.iter().zip(record.iter()).enumerate();
    let cells = cells.filter(|(_, (_, cell))| !cell.is_empty());
    let cells = cells.map(|(at, (column, cell))| {
        let span = cell_at(text, span, at);
        (column.clone(), Sited { value: cell.to_owned(), span })
    });
    let row = Row { span, cells: cells.collect() };
    if let Some(first) = inventory.rows.get(&key) {
        reader.error(
            Diagnostic::error(codes::FACTS, format!("`{key}` has two rows"))
                .at(span)
                .also(first.span, "the first one")
                .help("keep one of them"),
        );
        return;
    }
    inventory.rows.insert(key, row);
}

/// The line of `text` that holds the byte `start`, past line breaks before it.
fn line_at(text: &str, source: SourceId, start: usize) -> Span {
    let skipped = text[start..].len() - text[start..].trim_start_matches(['\r', '\n']).len();
    let start = start + skipped;
    let length = text[start..].find(['\r', '\n']).unwrap_or(text.len() - start);
    Span::new(source, start..start + length)
}

/// The cell at `index` of a row; the row itself where quotes make that hard to say.
fn cell_at(text: &str, row: Span, index: usize) -> Span {
    let line = text.get(row.range()).unwrap_or_default();
    let mut cells = line.split(',');
    let before: usize = cells.by_ref().take(index).map(|cell| cell.len() + 1).sum();
    match cells.next() {
        Some(cell) if !line.contains('"') => {
            let start = row.range().start + before + (cell.len() - cell.trim_start().len());
            Span::new(row.source, start..start + cell.trim().len())
        }
        _ => row,
    }
}
