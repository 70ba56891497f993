//! Inventories: CSV files that give nodes their own values.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::cluster::doc::ClusterDoc;
use crate::cluster::model::Sited;
use crate::cluster::resolve::reader::Reader;
use crate::diag::{Diagnostic, SourceId, SourceMap, Span, codes};
use crate::range::{self, NodeName};
use crate::toml_doc::{Item, Table, did_you_mean};

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
    key_column: String,
    columns: Vec<(Sited<String>, Fact)>,
    span: Span,
}

/// Every inventory that blocks use, read once, and which of their rows were.
#[derive(Debug, Default)]
pub struct Inventories {
    read: BTreeMap<(PathBuf, String), Inventory>,
}

#[derive(Debug)]
struct Inventory {
    source: SourceId,
    /// Rows by the key column; cells by column, the empty ones absent.
    rows: BTreeMap<String, Row>,
    columns: Vec<String>,
    used: BTreeSet<String>,
}

#[derive(Debug)]
struct Row {
    span: Span,
    cells: BTreeMap<String, String>,
}

/// Reads the `facts` of a node block.
pub fn facts(reader: &mut Reader, doc: &ClusterDoc, block: &Table) -> Option<Facts> {
    let item = block.get("facts")?;
    let table = item.table()?;
    let text = |key: &str| table.get(key).and_then(Item::text);
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
        key_column: text("key")?.to_owned(),
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
    ) -> BTreeMap<NodeName, BTreeMap<Fact, Sited<String>>> {
        let key = (facts.inventory.clone(), facts.key_column.clone());
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
    ) -> BTreeMap<NodeName, BTreeMap<Fact, Sited<String>>> {
        let mut columns = Vec::new();
        for (column, fact) in &facts.columns {
            match self.columns.contains(&column.value) {
                true => columns.push((column, fact)),
                false => reader.error(self.no_column(column)),
            }
        }
        let mut found = BTreeMap::new();
        let mut without_row = Vec::new();
        for name in nodes {
            let Some(row) = self.rows.get(name.as_str()) else {
                without_row.push(name);
                continue;
            };
            self.used.insert(name.to_string());
            let cells = columns.iter().filter_map(|(column, fact)| {
                let value = row.cells.get(&column.value)?.clone();
                Some(((*fact).clone(), Sited { value, span: row.span }))
            });
            found.insert(name.clone(), cells.collect());
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
            .also(Span::new(self.source, 0..1), "the line that names the columns");
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
    let mut inventory =
        Inventory { source, rows: BTreeMap::new(), columns: Vec::new(), used: BTreeSet::new() };
    let header = match csv.headers() {
        Ok(header) => header.clone(),
        Err(fault) => {
            let message = format!("the inventory cannot be read: {fault}");
            reader.error(Diagnostic::error(codes::FACTS, message).at(Span::new(source, 0..0)));
            return inventory;
        }
    };
    inventory.columns =
        header.iter().map(|name| name.trim_start_matches('\u{feff}').to_owned()).collect();
    for (at, column) in inventory.columns.iter().enumerate() {
        if inventory.columns[..at].contains(column) {
            let message = format!("the inventory has the column `{column}` twice");
            reader.error(Diagnostic::error(codes::FACTS, message).at(line_at(text, source, 0)));
        }
    }
    let Some(key_at) = inventory.columns.iter().position(|column| *column == facts.key_column)
    else {
        let key = Sited { value: facts.key_column.clone(), span: facts.span };
        let problem = inventory.no_column(&key);
        reader.error(problem);
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
        return;
    }
    let key = record.get(key_at).unwrap_or_default().to_owned();
    if key.is_empty() {
        reader.error(
            Diagnostic::error(
                codes::FACTS,
                format!("the row has no `{}`", inventory.columns[key_at]),
            )
            .at(span),
        );
        return;
    }
    let cells = inventory.columns.iter().zip(record.iter());
    let cells = cells.filter(|(_, cell)| !cell.is_empty());
    let row = Row {
        span,
        cells: cells.map(|(column, cell)| (column.clone(), cell.to_owned())).collect(),
    };
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
