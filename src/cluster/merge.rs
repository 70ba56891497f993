//! Lays the layers that can set a key on top of each other and remembers who set what.
//!
//! Scalars and arrays replace, tables merge, sets add (`{ remove = […] }` and
//! `{ set = […] }` do the rest). Two layers of equal standing that set one value
//! differently are a conflict: the order in a file never decides.

use std::collections::BTreeMap;

use crate::diag::{Code, Diagnostic, Problems, Span, codes};
use crate::toml_doc::{Item, Key, Shape, Table, Value, check_required, did_you_mean};

/// One place that can set keys: a profile, `[os]`, a role, a range of nodes.
#[derive(Clone, Debug)]
pub struct Layer<'a> {
    /// For people: `profile server`, `[role.server]`, `[node."srv[001-512]"]`.
    pub name: String,
    pub standing: Standing,
    pub table: &'a Table,
}

/// How a layer ranks. Layers come in ascending order; two of the same level and weight with
/// different peers are of equal standing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Standing {
    pub level: Level,
    /// Within a level, the higher wins.
    pub weight: u64,
    /// Tells layers of equal level and weight apart.
    pub peer: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    CommonProfile,
    RoleProfile,
    Hw,
    Cluster,
    Role,
    Node,
}

impl Standing {
    fn equals(self, other: Self) -> bool {
        (self.level, self.weight) == (other.level, other.weight) && self.peer != other.peer
    }
}

/// What all layers together say under one key.
#[derive(Clone, Debug)]
pub enum Merged<'a> {
    Value(Chosen<'a>),
    Set(MergedSet<'a>),
    Table(MergedTable<'a>),
}

/// A value, who set it, and what it took the place of.
#[derive(Clone, Debug)]
pub struct Chosen<'a> {
    pub item: &'a Item,
    /// The index of the layer.
    pub layer: usize,
    /// The lowest layer first.
    pub overridden: Vec<(&'a Item, usize)>,
}

/// The members of a set, and every layer that had a say.
#[derive(Clone, Debug, Default)]
pub struct MergedSet<'a> {
    pub members: BTreeMap<&'a str, Span>,
    pub said: Vec<(&'a Item, usize)>,
}

#[derive(Clone, Debug)]
pub struct MergedTable<'a> {
    pub keys: BTreeMap<&'a str, Merged<'a>>,
    /// Where to point for what is missing: the key of the highest layer that has the table.
    pub span: Span,
    /// The key of the lowest layer that has the table: where what it stands for is defined.
    pub origin: Span,
}

/// Merges `layers`, lowest first, by the shapes of `keys`; `at` is where to point for what
/// no layer says.
pub fn merge<'a>(
    layers: &[Layer<'a>],
    keys: &[Key],
    at: Span,
    problems: &mut Problems,
) -> MergedTable<'a> {
    let mut merged = MergedTable { keys: BTreeMap::new(), span: at, origin: at };
    for index in 0..layers.len() {
        lay_table(&mut merged, layers[index].table, keys, index, layers, problems);
    }
    merged
}

fn lay_table<'a>(
    merged: &mut MergedTable<'a>,
    table: &'a Table,
    keys: &[Key],
    layer: usize,
    layers: &[Layer<'a>],
    problems: &mut Problems,
) {
    for (name, item) in table {
        if let Some(key) = keys.iter().find(|key| key.name == name) {
            lay(merged, name, item, &key.shape, layer, layers, problems);
        }
    }
}

fn lay<'a>(
    merged: &mut MergedTable<'a>,
    name: &'a str,
    item: &'a Item,
    shape: &Shape,
    layer: usize,
    layers: &[Layer<'a>],
    problems: &mut Problems,
) {
    match (shape, &item.value) {
        (Shape::Table(keys), Value::Table(table)) => {
            let inner = table_at(&mut merged.keys, name, item.key_span);
            lay_table(inner, table, keys, layer, layers, problems);
        }
        (Shape::Map(shape), Value::Table(table)) => {
            let inner = table_at(&mut merged.keys, name, item.key_span);
            for (name, item) in table {
                lay(inner, name, item, shape, layer, layers, problems);
            }
        }
        (Shape::Set, _) => {
            let empty = || Merged::Set(MergedSet::default());
            if let Merged::Set(set) = merged.keys.entry(name).or_insert_with(empty) {
                lay_set(set, name, item, layer, problems);
            }
        }
        _ => lay_value(merged, name, item, layer, layers, problems),
    }
}

fn table_at<'a, 'm>(
    keys: &'m mut BTreeMap<&'a str, Merged<'a>>,
    name: &'a str,
    span: Span,
) -> &'m mut MergedTable<'a> {
    let empty = || MergedTable { keys: BTreeMap::new(), span, origin: span };
    let slot = keys.entry(name).or_insert_with(|| Merged::Table(empty()));
    // A layer below wrote another type here, which the schema check has reported.
    if !matches!(slot, Merged::Table(_)) {
        *slot = Merged::Table(empty());
    }
    match slot {
        Merged::Table(table) => {
            table.span = span;
            table
        }
        _ => unreachable!("the slot was made a table above"),
    }
}

fn lay_set<'a>(
    set: &mut MergedSet<'a>,
    name: &str,
    item: &'a Item,
    layer: usize,
    problems: &mut Problems,
) {
    set.said.push((item, layer));
    let Some(operations) = item.table() else {
        set.members.extend(item.texts());
        return;
    };
    if let Some(members) = operations.get("set") {
        set.members = members.texts().collect();
    }
    for (member, span) in operations.get("remove").into_iter().flat_map(Item::texts) {
        if set.members.remove(member).is_none() {
            let message = format!("`{name}` has no `{member}` to remove");
            let help = match did_you_mean(member, set.members.keys().copied()) {
                Some(similar) => format!("did you mean `{similar}`?"),
                None => "take it out: no profile and nothing above adds it".to_owned(),
            };
            problems.push(Diagnostic::warning(codes::NOT_IN_SET, message).at(span).help(help));
        }
    }
}

fn lay_value<'a>(
    merged: &mut MergedTable<'a>,
    name: &'a str,
    item: &'a Item,
    layer: usize,
    layers: &[Layer<'a>],
    problems: &mut Problems,
) {
    let Some(Merged::Value(chosen)) = merged.keys.get_mut(name) else {
        let chosen = Chosen { item, layer, overridden: Vec::new() };
        merged.keys.insert(name, Merged::Value(chosen));
        return;
    };
    let is_conflict = layers[layer].standing.equals(layers[chosen.layer].standing)
        && !chosen.item.value.says_the_same(&item.value);
    if is_conflict {
        problems.push(conflict(name, chosen, item, &layers[chosen.layer], &layers[layer]));
    }
    chosen.overridden.push((chosen.item, chosen.layer));
    (chosen.item, chosen.layer) = (item, layer);
}

fn conflict(
    name: &str,
    chosen: &Chosen<'_>,
    item: &Item,
    a: &Layer<'_>,
    b: &Layer<'_>,
) -> Diagnostic {
    let (code, why): (Code, &str) = match b.standing.level {
        Level::Node => {
            (codes::RANGE_CONFLICT, "both ranges have equally many nodes, so neither wins")
        }
        _ => (codes::ROLE_CONFLICT, "two roles of one node have equal standing, so neither wins"),
    };
    let message = format!("{} and {} set `{name}` differently", a.name, b.name);
    let is_later = blame(item.span, chosen.item.span).0 == item.span;
    let (item, other) = if is_later { (item, chosen.item) } else { (chosen.item, item) };
    Diagnostic::error(code, message)
        .at_labelled(item.span, format!("{} here", item.display()))
        .also(other.span, format!("{} here", other.display()))
        .help("set it in one of them, or for the nodes that have both")
        .note(why)
}

/// Of two places that contradict each other, the one to change and the other one: the
/// user's own file before an included one, and the later line before the earlier.
pub fn blame(a: Span, b: Span) -> (Span, Span) {
    let is_a = (std::cmp::Reverse(a.source), a.start) >= (std::cmp::Reverse(b.source), b.start);
    if is_a { (a, b) } else { (b, a) }
}

/// Reports required keys that are missing in the tables within `merged`, but not in itself.
pub fn check_required_within(merged: &MergedTable<'_>, keys: &[Key], problems: &mut Problems) {
    for key in keys {
        match &key.shape {
            Shape::Table(keys) => {
                if let Some(inner) = merged.table(key.name) {
                    check_whole(inner, keys, problems);
                }
            }
            Shape::Map(Shape::Table(keys)) => {
                merged.tables(key.name).for_each(|(_, inner)| check_whole(inner, keys, problems));
            }
            _ => {}
        }
    }
}

fn check_whole(table: &MergedTable<'_>, keys: &[Key], problems: &mut Problems) {
    check_required(|name| table.keys.contains_key(name), keys, table.span, problems);
    check_required_within(table, keys, problems);
}

impl<'a> MergedTable<'a> {
    /// A table that stands in an array, as it is.
    pub fn of_item(item: &'a Item, keys: &[Key]) -> Self {
        let mut merged = Self { keys: BTreeMap::new(), span: item.span, origin: item.span };
        let Some(table) = item.table() else { return merged };
        let standing = Standing { level: Level::Node, weight: 0, peer: 0 };
        let layers = [Layer { name: String::new(), standing, table }];
        lay_table(&mut merged, table, keys, 0, &layers, &mut Problems::default());
        merged
    }

    pub fn item(&self, key: &str) -> Option<&'a Item> {
        match self.keys.get(key)? {
            Merged::Value(chosen) => Some(chosen.item),
            _ => None,
        }
    }

    pub fn table(&self, key: &str) -> Option<&MergedTable<'a>> {
        match self.keys.get(key)? {
            Merged::Table(table) => Some(table),
            _ => None,
        }
    }

    /// The tables of a map, by name.
    pub fn tables(&self, key: &str) -> impl Iterator<Item = (&'a str, &MergedTable<'a>)> {
        let keys = self.table(key).into_iter().flat_map(|table| &table.keys);
        keys.filter_map(|(name, merged)| match merged {
            Merged::Table(table) => Some((*name, table)),
            _ => None,
        })
    }

    /// The members of a set; empty where nobody says anything.
    pub fn set(&self, key: &str) -> impl Iterator<Item = (&'a str, Span)> {
        let members = match self.keys.get(key) {
            Some(Merged::Set(set)) => Some(&set.members),
            _ => None,
        };
        members.into_iter().flatten().map(|(member, span)| (*member, *span))
    }

    /// What stands under a path such as `nic.mgmt.ip`.
    pub fn find(&self, path: &str) -> Option<&Merged<'a>> {
        match path.split_once('.') {
            None => self.keys.get(path),
            Some((first, rest)) => self.table(first)?.find(rest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::schema::NODE_KEYS;
    use crate::diag::SourceMap;
    use crate::toml_doc::parse;

    /// Merges texts of node keys with the given standings and returns `path = value` of the
    /// asked paths, and the codes of the problems.
    fn merged(texts: &[(Level, u64, usize, &str)], paths: &[&str]) -> (Vec<String>, Vec<String>) {
        let mut sources = SourceMap::default();
        let mut problems = Problems::default();
        let ids: Vec<_> =
            texts.iter().map(|text| sources.add("x.toml".into(), text.3.to_owned())).collect();
        let tables: Vec<Table> = ids.iter().map(|id| parse(&sources, *id, &mut problems)).collect();
        let layers: Vec<Layer<'_>> = texts
            .iter()
            .zip(&tables)
            .map(|((level, weight, peer, _), table)| Layer {
                name: format!("{level:?}"),
                standing: Standing { level: *level, weight: *weight, peer: *peer },
                table,
            })
            .collect();
        let table = merge(&layers, NODE_KEYS, Span::new(ids[0], 0..0), &mut problems);
        let values = paths.iter().map(|path| match table.find(path) {
            Some(Merged::Value(chosen)) => format!("{path} = {}", chosen.item.display()),
            Some(Merged::Set(set)) => {
                format!("{path} = {:?}", set.members.keys().collect::<Vec<_>>())
            }
            Some(Merged::Table(_)) => format!("{path} is a table"),
            None => format!("{path} is not set"),
        });
        let values = values.collect();
        (values, problems.into_sorted().iter().map(|d| d.code.to_string()).collect())
    }

    #[test]
    fn scalars_replace_tables_merge_and_sets_add() {
        let (values, problems) = merged(
            &[
                (Level::Hw, 0, 0, "nic.mgmt = { name = \"lan0\", mtu = 1500 }\nmemory = \"1GiB\""),
                (Level::Cluster, 0, 0, "packages = [\"a\", \"b\"]"),
                (Level::Role, 0, 0, "packages = { remove = [\"a\"] }"),
                (Level::Node, 0, 0, "nic.mgmt.mtu = 9000\nmemory = \"2GiB\"\npackages = [\"c\"]"),
            ],
            &["nic.mgmt.name", "nic.mgmt.mtu", "memory", "packages", "cores"],
        );
        assert_eq!(
            values,
            [
                "nic.mgmt.name = \"lan0\"",
                "nic.mgmt.mtu = 9000",
                "memory = \"2GiB\"",
                "packages = [\"b\", \"c\"]",
                "cores is not set",
            ]
        );
        assert_eq!(problems, Vec::<String>::new());
    }

    #[test]
    fn layers_of_equal_standing_must_agree() {
        let differing = [
            (Level::Role, 0, 1, "selinux = \"disabled\""),
            (Level::Role, 0, 2, "selinux = \"enforcing\""),
        ];
        assert_eq!(merged(&differing, &[]).1, ["NF106"]);
        let equal = [(Level::Node, 7, 1, "cores = 4"), (Level::Node, 7, 2, "cores = 4")];
        assert_eq!(merged(&equal, &[]).1, Vec::<String>::new());
        let ranges = [(Level::Node, 7, 1, "cores = 4"), (Level::Node, 7, 2, "cores = 8")];
        assert_eq!(merged(&ranges, &[]).1, ["NF107"]);
    }

    #[test]
    fn a_set_can_be_replaced_and_a_useless_removal_is_a_warning() {
        let (values, problems) = merged(
            &[
                (Level::Cluster, 0, 0, "packages = [\"a\"]"),
                (Level::Node, 0, 0, "packages = { set = [\"z\"], remove = [\"a\"] }"),
            ],
            &["packages"],
        );
        assert_eq!(values, ["packages = [\"z\"]"]);
        assert_eq!(problems, ["NF118"]);
    }
}
