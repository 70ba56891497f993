//! From the cluster as written to a cluster that can be built: every problem in one run.
//!
//! Nodes that the same ranges cover share one kind, and only what differs by rule or by
//! inventory is worked out per node.

mod engine;
mod facts;
mod kind;
mod nodes;
mod pools;
mod reader;
mod sections;
mod why;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;

use crate::cluster::doc::{ClusterDoc, Document};
use crate::cluster::expr;
use crate::cluster::merge::{self, Layer, Level, MergedTable, Standing};
use crate::cluster::model::{Cluster, Sited};
use crate::cluster::resolve::facts::NodeFacts;
use crate::cluster::resolve::kind::{KindContext, KindDraft, unknown_name};
use crate::cluster::resolve::nodes::NodeDraft;
use crate::cluster::resolve::reader::Reader;
use crate::cluster::schema::{CLUSTER_FILE, NODE_KEYS};
use crate::cluster::text::TextKind;
use crate::diag::{Diagnostic, Problems, SourceMap, Span, codes};
use crate::range::{self, NodeName};
use crate::toml_doc::{Item, Table, check_required};

pub use why::{Rule, Said, Why, WhyError, why};

impl Cluster {
    /// Returns the cluster that `doc` describes, or `None` if something in it was missing or
    /// unreadable; `problems` then say what. Whether DAOS would accept it is another question,
    /// for [`daos::rules`](crate::daos::rules).
    pub fn resolve(doc: &ClusterDoc, sources: &SourceMap, problems: &mut Problems) -> Option<Self> {
        match Self::resolve_as_far(doc, sources, problems) {
            Resolved::Whole(cluster) => Some(*cluster),
            Resolved::Partly(_) | Resolved::Nothing => None,
        }
    }

    /// As [`resolve`](Self::resolve), and keeps what could be made of a file with errors.
    pub fn resolve_as_far(
        doc: &ClusterDoc,
        sources: &SourceMap,
        problems: &mut Problems,
    ) -> Resolved {
        if doc.is_partial() {
            return Resolved::Nothing;
        }
        let had_errors = problems.has_errors();
        let mut reader = Reader::default();
        let cluster = Resolver::new(doc, sources, &mut reader).resolve(&mut reader);
        check_names_of_tables(doc, &mut reader);
        let is_whole = !reader.has_gaps && !had_errors;
        problems.extend(reader.problems.into_sorted());
        match is_whole {
            true => Resolved::Whole(Box::new(cluster)),
            false => Resolved::Partly(Box::new(cluster)),
        }
    }
}

/// What came of a cluster file.
#[derive(Debug)]
pub enum Resolved {
    Whole(Box<Cluster>),
    /// Values that were missing or unreadable are made up: nothing may be built of it, and
    /// only what the file does say can be judged.
    Partly(Box<Cluster>),
    Nothing,
}

/// One `[node.RANGE]` block.
struct Block<'a> {
    range: &'a str,
    table: &'a Table,
    span: Span,
    names: Vec<NodeName>,
    /// The document it stands in: an including file wins over an included one.
    document: usize,
    facts: Option<facts::Facts>,
}

impl Block<'_> {
    /// Fewer nodes win; of equally many, the including file.
    fn standing(&self, peer: usize) -> Standing {
        let weight = ((range::MAX_NAMES - self.names.len()) as u64) << 16 | self.document as u64;
        Standing { level: Level::Node, weight, peer }
    }
}

/// The layers of one node, lowest first, and what they merge to.
struct Merge<'a> {
    layers: Vec<Layer<'a>>,
    table: MergedTable<'a>,
}

struct Resolver<'a> {
    doc: &'a ClusterDoc,
    sources: &'a SourceMap,
    /// What all documents say of the sections that hold for the whole cluster.
    whole: MergedTable<'a>,
    blocks: Vec<Block<'a>>,
    /// The blocks of each node, widest first.
    blocks_of: BTreeMap<NodeName, Vec<usize>>,
    top: Span,
}

impl<'a> Resolver<'a> {
    fn new(doc: &'a ClusterDoc, sources: &'a SourceMap, reader: &mut Reader) -> Self {
        let top = Span::new(doc.main().source, 0..0);
        let whole = merge_whole(doc, top, &mut reader.problems);
        let blocks = blocks(doc, reader);
        let mut blocks_of: BTreeMap<NodeName, Vec<usize>> = BTreeMap::new();
        for (at, block) in blocks.iter().enumerate() {
            for name in &block.names {
                blocks_of.entry(name.clone()).or_default().push(at);
            }
        }
        Self { doc, sources, whole, blocks, blocks_of, top }
    }

    fn resolve(&self, reader: &mut Reader) -> Cluster {
        self.check_required(reader);
        let folder = |span: Span| self.doc.folder_of(span).to_owned();
        let section = |name: &str| self.whole.table(name).cloned().unwrap_or(self.nothing());
        let nets = sections::nets(reader, &self.whole);
        let boot = sections::boot(reader, &section("boot"));
        let kinds = self.kinds(reader, &nets);
        let drafts = self.nodes(reader, &kinds);
        nodes::check_unique(reader, &drafts, &kinds.drafts);
        nodes::check_addresses(reader, &drafts, &kinds.drafts, &nets, host_of(&boot.url));
        let is_known = |name: &NodeName| self.blocks_of.contains_key(name);
        let (racks, rack_of) = nodes::racks(reader, &self.whole, is_known);
        let origin = sections::Origin { boot_url: &boot.url.value, folder: &folder };
        let mut daos = sections::daos(reader, &section("daos"), &origin);
        let repos = sections::repos(reader, &self.whole, &origin);
        let nodes = finish_nodes(reader, drafts, &kinds.drafts, rack_of, daos.fault_path.as_ref());
        let mut unknown: BTreeMap<Span, Vec<&NodeName>> = BTreeMap::new();
        for point in daos.access_points.value.iter().chain(&daos.format_by) {
            if !is_known(&point.value) {
                unknown.entry(point.span).or_default().push(&point.value);
            }
        }
        for (span, names) in unknown {
            reader.error(nodes::unknown_nodes(&names, span, self.blocks_of.keys()));
        }
        let kinds: Vec<_> = kinds.drafts.into_iter().map(|draft| draft.kind).collect();
        if daos.format_by.is_none() {
            let admins = nodes.iter().filter(|node| kinds[node.kind].is_admin());
            daos.format_by = admins
                .map(|node| Sited { value: node.name.clone(), span: node.span })
                .min_by(|a, b| a.value.cmp(&b.value));
        }
        let cluster = section("cluster");
        let name = reader.text(&cluster, "name", TextKind::ClusterName);
        let domain = reader.text(&cluster, "domain", TextKind::Domain);
        let timezone = reader.text(&cluster, "timezone", TextKind::TimeZone);
        let ntp = reader.texts(&cluster, "ntp", TextKind::HostOrAddress);
        let cluster = Cluster {
            name: reader.or(name, &cluster, "cluster".to_owned()).value,
            domain: domain.map_or_else(String::new, |domain| domain.value),
            timezone: timezone.map_or_else(|| "UTC".to_owned(), |timezone| timezone.value),
            ntp: ntp.into_iter().map(|server| server.value).collect(),
            boot,
            daos,
            nets,
            repos,
            layers: self.overlays_of_layers(reader, &kinds),
            kinds,
            nodes,
            racks,
            allow: self.allow(),
            vars: kind::vars(&self.whole),
            top: self.top,
        };
        self.warn_of_unused(reader, &cluster);
        cluster
    }

    fn nothing(&self) -> MergedTable<'a> {
        MergedTable { keys: BTreeMap::new(), span: self.top, origin: self.top }
    }

    fn allow(&self) -> Vec<Sited<String>> {
        let items = self.whole.item("allow").into_iter().flat_map(Item::texts);
        items.map(|(code, span)| Sited { value: code.to_owned(), span }).collect()
    }

    /// Missing keys count only after all files are merged.
    fn check_required(&self, reader: &mut Reader) {
        let n_before = reader.problems.len();
        let has_section = |name: &str| match name {
            "hw" | "node" | "os" => {
                self.doc.documents.iter().any(|document| document.table.contains_key(name))
            }
            _ => self.whole.keys.contains_key(name),
        };
        check_required(has_section, CLUSTER_FILE, self.top, &mut reader.problems);
        merge::check_required_within(&self.whole, CLUSTER_FILE, &mut reader.problems);
        reader.has_gaps |= reader.problems.len() > n_before;
    }

    fn kinds(&self, reader: &mut Reader, nets: &BTreeMap<String, crate::cluster::Net>) -> Kinds {
        let mut kinds = Kinds::default();
        let mut by_blocks: HashMap<&[usize], Option<usize>> = HashMap::new();
        for (name, blocks) in &self.blocks_of {
            let known = by_blocks.entry(blocks.as_slice()).or_insert_with(|| {
                let n_nodes = 0;
                let draft = self.kind(reader, blocks, nets, n_nodes)?;
                kinds.drafts.push(draft);
                Some(kinds.drafts.len() - 1)
            });
            let Some(kind) = *known else { continue };
            kinds.drafts[kind].kind.n_nodes += 1;
            kinds.of_node.insert(name.clone(), kind);
        }
        kinds
    }

    /// The kind of the nodes that `blocks` cover; `None` where it has no hw or roles.
    fn kind(
        &self,
        reader: &mut Reader,
        blocks: &[usize],
        nets: &BTreeMap<String, crate::cluster::Net>,
        n_nodes: usize,
    ) -> Option<KindDraft> {
        let narrowest = &self.blocks[*blocks.last().expect("a node has a block")];
        let (hw_name, roles) = self.hw_and_roles(reader, blocks)?;
        let merged = self.merge(reader, blocks, &hw_name, &roles);
        let n_before = reader.problems.len();
        merge::check_required_within(&merged.table, NODE_KEYS, &mut reader.problems);
        reader.has_gaps |= reader.problems.has_errors_since(n_before);
        let profiles = roles.iter().map(|role| self.profile_of(&role.value).to_owned()).collect();
        let context = KindContext {
            profiles,
            hw_span: self.hw_span(&hw_name),
            hw_name,
            roles,
            os_span: self.os_span(),
            ranges: blocks.iter().map(|at| self.blocks[*at].range.to_owned()).collect(),
            own_overlays: self.own_overlays(reader, blocks),
            nets,
            folder: &|span| self.doc.folder_of(span).to_owned(),
            n_nodes,
            span: narrowest.span,
        };
        Some(kind::kind(reader, &merged.table, context))
    }

    /// Where the user's own file defines the hw, or else an included one.
    fn hw_span(&self, hw: &Sited<String>) -> Span {
        let documents = self.doc.documents.iter().rev();
        let defined = documents.flat_map(|document| named_tables(document, "hw"));
        defined.into_iter().find(|(name, _)| *name == hw.value).map_or(hw.span, |(_, span)| span)
    }

    fn os_span(&self) -> Option<Span> {
        let mut documents = self.doc.documents.iter().rev();
        documents.find_map(|document| Some(document.table.get("os")?.key_span))
    }

    fn hw_and_roles(
        &self,
        reader: &mut Reader,
        blocks: &[usize],
    ) -> Option<(Sited<String>, Vec<Sited<String>>)> {
        let narrowest = &self.blocks[*blocks.last()?];
        let find = |key: &str| blocks.iter().rev().find_map(|at| self.blocks[*at].table.get(key));
        let mut missing = |key: &str, example: &str| {
            let message = format!("`{}` has no `{key}`", narrowest.range);
            reader.error(Diagnostic::error(codes::MISSING, message).at(narrowest.span).help(
                format!("add `{key} = {example}`, or correct the name: it makes a node of its own"),
            ));
        };
        let hw = find("hw")
            .and_then(|item| Some(Sited { value: item.text()?.to_owned(), span: item.span }));
        let roles = find("roles");
        if hw.is_none() {
            missing("hw", "\"…\"");
        }
        if roles.is_none() {
            missing("roles", "[\"server\"]");
        }
        let (hw, roles) = (hw?, roles?);
        if !self.hw_layers(&hw.value).any(|_| true) {
            let known = self.doc.documents.iter().flat_map(|document| named_tables(document, "hw"));
            let known: BTreeSet<&str> = known.map(|(name, _)| name).collect();
            reader.error(unknown_name("hw", &hw, known));
            return None;
        }
        let mut roles: Vec<Sited<String>> =
            roles.texts().map(|(role, span)| Sited { value: role.to_owned(), span }).collect();
        for (at, role) in roles.iter().enumerate() {
            let profile = self.profile_of(&role.value);
            if !self.doc.profiles.contains_key(profile) {
                let name = Sited { value: profile.to_owned(), span: role.span };
                reader.error(unknown_name(
                    "role",
                    &name,
                    self.doc.profiles.keys().map(String::as_str),
                ));
            }
            if roles[..at].iter().any(|other| other.value == role.value) {
                let message = format!("the role `{}` stands twice", role.value);
                let diagnostic = Diagnostic::error(codes::GIVEN_TWICE, message).at(role.span);
                reader.error(diagnostic.help("name each role once"));
            }
        }
        roles.retain(|role| self.doc.profiles.contains_key(self.profile_of(&role.value)));
        Some((hw, roles))
    }

    /// The profile a role builds on: the one it names, or that of its own name.
    fn profile_of<'s>(&'s self, role: &'s str) -> &'s str {
        self.role_layers(role)
            .filter_map(|(_, table)| table.get("profile")?.text())
            .last()
            .unwrap_or(role)
    }

    fn hw_layers<'s>(&'s self, name: &'s str) -> impl Iterator<Item = (usize, &'a Table)> + 's {
        self.layers_named("hw", name)
    }

    fn role_layers<'s>(&'s self, name: &'s str) -> impl Iterator<Item = (usize, &'a Table)> + 's {
        self.layers_named("role", name)
    }

    fn layers_named<'s>(
        &'s self,
        section: &'static str,
        name: &'s str,
    ) -> impl Iterator<Item = (usize, &'a Table)> + 's {
        let documents = self.doc.documents.iter().enumerate();
        documents.filter_map(move |(at, document)| {
            Some((at, document.table.get(section)?.table()?.get(name)?.table()?))
        })
    }

    /// Lays profile `common`, the profiles of the roles, the hw, `[os]`, the roles and the
    /// node's own blocks on top of each other.
    fn merge(
        &self,
        reader: &mut Reader,
        blocks: &[usize],
        hw: &Sited<String>,
        roles: &[Sited<String>],
    ) -> Merge<'a> {
        let mut layers: Vec<Layer<'a>> = Vec::new();
        let standing = |level, weight: usize, peer| Standing { level, weight: weight as u64, peer };
        if let Some(profile) = self.doc.profiles.get("common") {
            let standing = standing(Level::CommonProfile, 0, 0);
            layers.push(Layer { name: "profile common".into(), standing, table: &profile.table });
        }
        for (peer, role) in roles.iter().enumerate() {
            if let Some(profile) = self.doc.profiles.get(self.profile_of(&role.value)) {
                let name = format!("profile {}", self.profile_of(&role.value));
                let standing = standing(Level::RoleProfile, 0, peer);
                layers.push(Layer { name, standing, table: &profile.table });
            }
        }
        for (weight, table) in self.hw_layers(&hw.value) {
            let name = format!("[hw.{}]", hw.value);
            layers.push(Layer { name, standing: standing(Level::Hw, weight, 0), table });
        }
        for (weight, document) in self.doc.documents.iter().enumerate() {
            if let Some(table) = document.table.get("os").and_then(Item::table) {
                let standing = standing(Level::Cluster, weight, 0);
                layers.push(Layer { name: "[os]".into(), standing, table });
            }
        }
        for (peer, role) in roles.iter().enumerate() {
            for (_, table) in self.role_layers(&role.value) {
                let name = format!("[role.{}]", role.value);
                layers.push(Layer { name, standing: standing(Level::Role, 0, peer), table });
            }
        }
        for at in blocks {
            let block = &self.blocks[*at];
            let name = format!("[node.\"{}\"]", block.range);
            layers.push(Layer { name, standing: block.standing(*at), table: block.table });
        }
        let span = blocks.last().map_or(self.top, |at| self.blocks[*at].span);
        let conflicts = reader.problems.len();
        let table = merge::merge(&layers, NODE_KEYS, span, &mut reader.problems);
        reader.has_gaps |= reader.problems.has_errors_since(conflicts);
        Merge { layers, table }
    }

    fn nodes(&self, reader: &mut Reader, kinds: &Kinds) -> Vec<NodeDraft> {
        let mut inventories = facts::Inventories::default();
        let mut facts: HashMap<&NodeName, NodeFacts> = HashMap::new();
        for block in &self.blocks {
            if !block.table.contains_key("facts") {
                continue;
            }
            let mut found = match &block.facts {
                Some(wanted) => {
                    inventories.facts_of(reader, self.doc, self.sources, wanted, &block.names)
                }
                None => BTreeMap::new(),
            };
            for name in &block.names {
                let of_node = facts.entry(name).or_default();
                match found.remove(name) {
                    Some(found) => {
                        of_node.are_partial |= found.are_partial;
                        of_node.given.extend(found.given);
                    }
                    None => of_node.are_partial = true,
                }
            }
        }
        inventories.report_surplus(reader);
        nodes::check_names(
            reader,
            self.blocks_of.iter().map(|(name, blocks)| {
                (name, self.blocks[*blocks.last().expect("a node has a block")].span)
            }),
        );
        let nothing = NodeFacts::default();
        let mut drafts = Vec::with_capacity(self.blocks_of.len());
        for (name, blocks) in &self.blocks_of {
            let span = self.blocks[*blocks.last().expect("a node has a block")].span;
            let Some(kind) = kinds.of_node.get(name) else { continue };
            let facts = facts.get(name).unwrap_or(&nothing);
            drafts.push(nodes::node(reader, name, *kind, &kinds.drafts[*kind], facts, span));
        }
        drafts
    }

    /// The overlays of the layer `common` and of each role in use: those of the profile, and
    /// what `[os]` or the role adds and removes.
    fn overlays_of_layers(
        &self,
        reader: &mut Reader,
        kinds: &[crate::cluster::Kind],
    ) -> BTreeMap<String, Vec<Sited<String>>> {
        let roles: BTreeSet<&str> =
            kinds.iter().flat_map(|kind| &kind.roles).map(|role| role.value.as_str()).collect();
        let mut layers = BTreeMap::new();
        let os = self.doc.documents.iter().filter_map(|document| document.table.get("os")?.table());
        layers.insert("common".to_owned(), self.overlays(reader, "common", os.collect()));
        for role in roles {
            let said = self.role_layers(role).map(|(_, table)| table).collect();
            layers.insert(role.to_owned(), self.overlays(reader, self.profile_of(role), said));
        }
        layers
    }

    fn overlays(
        &self,
        reader: &mut Reader,
        profile: &str,
        said: Vec<&'a Table>,
    ) -> Vec<Sited<String>> {
        let profile = self.doc.profiles.get(profile).map(|profile| &profile.table);
        let tables = profile.into_iter().chain(said);
        let layers: Vec<Layer<'_>> = tables
            .map(|table| Layer {
                name: String::new(),
                standing: Standing { level: Level::Role, weight: 0, peer: 0 },
                table,
            })
            .collect();
        // The merge of each kind has reported what is wrong with the set.
        let merged = merge::merge(&layers, OVERLAYS_ONLY, self.top, &mut Problems::default());
        self.known_overlays(reader, merged.set("overlays"))
    }

    /// What a node's own blocks add; a shared layer cannot be cut for one node.
    fn own_overlays(&self, reader: &mut Reader, blocks: &[usize]) -> Vec<Sited<String>> {
        let mut added = Vec::new();
        for item in blocks.iter().filter_map(|at| self.blocks[*at].table.get("overlays")) {
            if item.table().is_some() {
                reader.error(
                    Diagnostic::error(codes::NOT_ALLOWED, "a node can only add overlays")
                        .at(item.span)
                        .help("remove it in the role, or give these nodes a role of their own"),
                );
            }
            added.extend(item.texts());
        }
        self.known_overlays(reader, added.into_iter())
    }

    fn known_overlays(
        &self,
        reader: &mut Reader,
        names: impl Iterator<Item = (&'a str, Span)>,
    ) -> Vec<Sited<String>> {
        let mut known = Vec::new();
        for (name, span) in names {
            if self.doc.overlays.iter().any(|overlay| overlay == name) {
                known.push(Sited { value: name.to_owned(), span });
                continue;
            }
            if name.contains(char::is_control) {
                // The check against the schema has said so.
                reader.has_gaps = true;
                continue;
            }
            let name = Sited { value: name.to_owned(), span };
            let mut diagnostic =
                unknown_name("overlay", &name, self.doc.overlays.iter().map(String::as_str));
            diagnostic.code = codes::UNKNOWN_OVERLAY;
            reader.error(diagnostic);
        }
        known
    }

    fn warn_of_unused(&self, reader: &mut Reader, cluster: &Cluster) {
        let hws: BTreeSet<&str> =
            cluster.kinds.iter().map(|kind| kind.hw.name.value.as_str()).collect();
        let roles: BTreeSet<&str> = cluster
            .kinds
            .iter()
            .flat_map(|kind| &kind.roles)
            .map(|role| role.value.as_str())
            .collect();
        let nets: BTreeSet<&str> = cluster
            .kinds
            .iter()
            .flat_map(|kind| &kind.hw.nics)
            .filter_map(|nic| Some(nic.net.as_ref()?.value.as_str()))
            .collect();
        // Only the main file: an included one is written for several clusters.
        let main = self.doc.main();
        for (section, used) in [("hw", hws), ("role", roles), ("net", nets)] {
            for (name, span) in named_tables(main, section) {
                if !used.contains(name) && !reader.has_gaps {
                    let message = format!("`{section}.{name}` is defined and never used");
                    let diagnostic = Diagnostic::warning(codes::UNUSED, message).at(span);
                    let help = match section {
                        "net" => "take it out, or put a NIC of a node on it",
                        _ => "take it out, or give it to a node",
                    };
                    reader.problems.push(diagnostic.help(help));
                }
            }
        }
    }
}

/// Names of the user's choice become names of folders, parts of URLs and of messages.
fn check_names_of_tables(doc: &ClusterDoc, reader: &mut Reader) {
    for document in &doc.documents {
        for section in ["hw", "net", "role"] {
            for (name, span) in named_tables(document, section) {
                check_plain(reader, section, name, span);
            }
        }
        let tables = |section: &str| {
            let tables = document.table.get(section).and_then(Item::table);
            tables.into_iter().flat_map(|tables| tables.values()).filter_map(Item::table)
        };
        for table in tables("hw").chain(tables("node")) {
            for section in ["nic", "nvme"] {
                let inner = table.get(section).and_then(Item::table).into_iter().flatten();
                for (name, item) in inner {
                    check_plain(reader, section, name, item.key_span);
                }
            }
        }
    }
}

fn check_plain(reader: &mut Reader, what: &str, name: &str, span: Span) {
    let is_plain = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    // A control character has been reported by the check against the schema.
    if !is_plain && !name.contains(char::is_control) {
        let message = format!("`{name}` cannot be the name of a {what}");
        reader.error(
            Diagnostic::error(codes::BAD_VALUE, message)
                .at(span)
                .help("use letters, digits, `_`, `-` and `.`, a letter or digit first"),
        );
    }
}

/// The kinds found so far, and which node is of which.
#[derive(Default)]
struct Kinds {
    drafts: Vec<KindDraft>,
    of_node: HashMap<NodeName, usize>,
}

const OVERLAYS_ONLY: &[crate::toml_doc::Key] = &[crate::toml_doc::Key {
    name: "overlays",
    shape: crate::toml_doc::Shape::Set,
    doc: "",
    default: "",
    example: "",
    need: crate::toml_doc::Need::Optional,
}];

fn named_tables<'a>(document: &'a Document, section: &str) -> Vec<(&'a str, Span)> {
    let tables = document.table.get(section).and_then(Item::table);
    tables.into_iter().flatten().map(|(name, item)| (name.as_str(), item.key_span)).collect()
}

/// Merges the sections that hold for the whole cluster; later documents win.
fn merge_whole<'a>(doc: &'a ClusterDoc, top: Span, problems: &mut Problems) -> MergedTable<'a> {
    let keys: Vec<_> = CLUSTER_FILE
        .iter()
        .filter(|key| !matches!(key.name, "os" | "hw" | "role" | "node" | "include"))
        .copied()
        .collect();
    merge::merge(&whole_layers(doc), &keys, top, problems)
}

/// Each document as one layer.
fn whole_layers(doc: &ClusterDoc) -> Vec<Layer<'_>> {
    let documents = doc.documents.iter().enumerate();
    documents
        .map(|(at, document)| Layer {
            name: "the cluster file".into(),
            standing: Standing { level: Level::Cluster, weight: at as u64, peer: 0 },
            table: &document.table,
        })
        .collect()
}

/// Every node block, widest first.
fn blocks<'a>(doc: &'a ClusterDoc, reader: &mut Reader) -> Vec<Block<'a>> {
    let mut blocks = Vec::new();
    for (at, document) in doc.documents.iter().enumerate() {
        let tables = document.table.get("node").and_then(Item::table).into_iter().flatten();
        for (range, item) in tables {
            let Some(table) = item.table() else { continue };
            let span = item.key_span;
            let names = reader.range(range, span);
            let facts = facts::facts(reader, doc, table);
            blocks.push(Block { range, table, span, names, document: at, facts });
        }
    }
    blocks.sort_by_key(|block| (block.standing(0).weight, block.span));
    blocks
}

/// The address in `http://192.168.3.1:8080`, if its host is one.
fn host_of(url: &str) -> Option<Ipv4Addr> {
    let (_, rest) = url.split_once("://")?;
    rest.split(['/', ':']).next()?.parse().ok()
}

/// Fills in racks and fault paths.
fn finish_nodes(
    reader: &mut Reader,
    drafts: Vec<NodeDraft>,
    kinds: &[KindDraft],
    mut rack_of: HashMap<NodeName, String>,
    fault_path: Option<&Sited<String>>,
) -> Vec<crate::cluster::Node> {
    let mut faults: BTreeMap<String, Vec<NodeName>> = BTreeMap::new();
    let mut nodes: Vec<crate::cluster::Node> = drafts.into_iter().map(|draft| draft.node).collect();
    for node in &mut nodes {
        node.rack = rack_of.remove(&node.name);
        let Some(path) = fault_path.filter(|_| kinds[node.kind].kind.is_server()) else { continue };
        match expr::fill(path, &node.name, node.rack.as_deref()) {
            Ok(path) => node.fault_path = Some(path),
            Err(fault) => faults.entry(fault.to_string()).or_default().push(node.name.clone()),
        }
    }
    if let (Some(path), Some((fault, names))) = (fault_path, faults.into_iter().next()) {
        let mut diagnostic = Diagnostic::error(codes::EXPRESSION, fault)
            .at(path.span)
            .help("write a path of one or two levels like `/{rack}/{name}`, and name the racks under `[rack]`");
        if names.len() > 1 {
            diagnostic = diagnostic.note(format!("the same goes for {}", range::fold(&names[1..])));
        }
        reader.error(diagnostic);
    }
    nodes
}
