//! A cluster made ready to render: templates read, contexts filled, what nodes share worked
//! out once.
//!
//! Three scopes, by what a file mentions: the cluster's files go to the layers of `common` and
//! the roles, a kind's files to a layer of its own, and only the rest is rendered node by node.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;

use aws_lc_rs::digest::{Context, SHA256};
use serde::Serialize;

use crate::cluster::{Cluster, Kind, Node, Sited, VarValue};
use crate::daos::{self, ServerYaml};
use crate::diag::{Diagnostic, Problems, SourceId, SourceMap, codes};
use crate::overlay::{self, LibraryFiles};
use crate::render::context::{ClusterContext, KindContext, NodeContext};
use crate::render::install::{KindKickstart, NodeFiles};
use crate::render::kickstart;
use crate::render::media_scripts::{self, MediaScripts};
use crate::render::overlay::{OverlayUse, Renderer, Scope};
use crate::render::owners;
use crate::render::template::{SettledSet, TemplateError, Templates, Values};
use crate::toml_doc::did_you_mean;
use crate::tree::FileTree;

/// The layer of a node's own blocks in the cluster file, beside `common` and the roles.
const OWN: &str = "node";

/// Everything that rendering needs, for all nodes.
pub struct Prepared<'a> {
    cluster: &'a Cluster,
    overlays: Renderer,
    /// Kickstart and boot menus.
    templates: Templates,
    /// What every kickstart begins with.
    scripts: String,
    /// What the kickstarts of golden images do.
    golden_scripts: String,
    media_scripts: MediaScripts,
    /// Where the text of each of those templates is.
    sources: BTreeMap<String, SourceId>,
    /// Of the whole cluster, without what grows with it and no kind or node asks for: a copy
    /// for each kind stays small.
    shared_values: Values,
    /// Of the whole cluster, for the layers, which are made once; they are the largest.
    cluster_values: Mutex<Option<Values>>,
    kinds: Vec<PreparedKind<'a>>,
}

/// What of the cluster's values grows with the number of nodes.
const GROWING: [&[&str]; 4] =
    [&["hosts"], &["roles"], &["daos", "control_yaml"], &["daos", "format_json"]];

/// What nodes of a kind share.
struct PreparedKind<'a> {
    uses: Vec<OverlayUse<'a>>,
    values: Values,
    server_yaml: Option<ServerYaml>,
    kickstart: KindKickstart,
    /// The names of its shared layers, in the order of unpacking.
    layers: Vec<String>,
    /// The last of those layers: the kind's files, and the cluster's files of overlays that
    /// only these nodes have.
    tree: FileTree,
    /// What the node that was tried left ready.
    settled: SettledSet,
    settled_kickstart: SettledSet,
}

/// Reads every template that `cluster` uses and reports what is wrong with any of them.
///
/// `further` are templates beside the overlays and the kickstart, by their path below
/// `profiles/`. Returns `None` if something is wrong.
pub fn prepare<'a>(
    cluster: &'a Cluster,
    library: &LibraryFiles,
    further: &'static [&'static str],
    sources: &mut SourceMap,
    problems: &mut Problems,
) -> Option<Prepared<'a>> {
    let n_before = problems.len();
    let overlays = overlay::read(library, sources, problems);
    let overlays = Renderer::new(overlays, sources, problems);
    let mut templates = Templates::new();
    let mut template_sources = BTreeMap::new();
    let names = kickstart::FILES.iter().chain(&media_scripts::FILES).chain(further);
    let texts = texts(library, names.copied(), problems);
    for name in further {
        let Some((shown, text)) = texts.get(name) else { continue };
        template_sources.insert((*name).to_owned(), sources.add(shown.clone(), (*text).to_owned()));
    }
    let text_of = |name: &str| texts.get(name).map(|(_, text)| *text);
    // Places in it count the lines of the scripts it includes, so the source is the whole.
    let mut add_kickstart = |name: &str, shown: &str| {
        let parts = kickstart::template(name, text_of);
        let id = sources.add(PathBuf::from(shown), parts.own.clone());
        template_sources.insert(name.to_owned(), id);
        (templates.add(name, &parts.own), parts.scripts)
    };
    let (kickstart, scripts) = add_kickstart(kickstart::TEMPLATE, "<kickstart with its scripts>");
    let (golden, golden_scripts) =
        add_kickstart(kickstart::GOLDEN, "<golden image's kickstart with its scripts>");
    let further =
        further.iter().map(|name| (*name, text_of(name).map(|text| templates.add(name, text))));
    let added: Vec<_> = further.collect();
    for (name, fault) in added
        .into_iter()
        .filter_map(|(name, added)| Some((name, added?.err()?)))
        .chain(kickstart.err().map(|fault| (kickstart::TEMPLATE, fault)))
        .chain(golden.err().map(|fault| (kickstart::GOLDEN, fault)))
    {
        problems.push(fault.diagnostic(template_sources[name]));
    }
    if problems.has_errors_since(n_before) {
        return None;
    }
    let mut whole = cluster_values(cluster);
    let growing = GROWING.iter().filter(|path| !overlays.is_mentioned_by_nodes(path));
    let growing: Vec<_> = growing.map(|path| (path, whole.remove(path))).collect();
    let shared_values = whole.clone();
    growing.into_iter().for_each(|(path, value)| whole.put_back(path, value));
    let mut prepared = Prepared {
        cluster,
        scripts,
        golden_scripts,
        media_scripts: MediaScripts::of(text_of),
        shared_values,
        cluster_values: Mutex::new(Some(whole)),
        overlays,
        templates,
        sources: template_sources,
        kinds: Vec::new(),
    };
    for kind in &cluster.kinds {
        let kind = prepared.prepare_kind(kind, problems);
        prepared.kinds.push(kind);
    }
    prepared.report_unused_vars(problems);
    (!problems.has_errors_since(n_before)).then_some(prepared)
}

fn cluster_values(cluster: &Cluster) -> Values {
    Values::of(&ClusterContext::of(cluster, daos::control_yaml(cluster)))
}

/// The texts of `profiles/<name>` for all `names`, each with the path to show. They are all
/// there, as the binary brings them; a site's may not be text.
fn texts<'l>(
    library: &'l LibraryFiles,
    names: impl Iterator<Item = &'static str>,
    problems: &mut Problems,
) -> BTreeMap<&'static str, (PathBuf, &'l str)> {
    let mut texts = BTreeMap::new();
    for name in names {
        let file = &library[&format!("profiles/{name}")];
        match std::str::from_utf8(&file.bytes) {
            Ok(text) => {
                texts.insert(name, (file.shown.clone(), text));
            }
            Err(_) => {
                let message = format!("{} is not UTF-8 text", file.shown.display());
                problems.push(Diagnostic::error(codes::TEMPLATE_SYNTAX, message));
            }
        }
    }
    texts
}

impl<'a> Prepared<'a> {
    fn prepare_kind(&self, kind: &'a Kind, problems: &mut Problems) -> PreparedKind<'a> {
        let shared =
            std::iter::once("common").chain(kind.roles.iter().map(|role| role.value.as_str()));
        let uses: Vec<OverlayUse<'a>> =
            shared.clone().flat_map(|role| self.uses_of_layer(role)).collect();
        let own = kind.own_overlays.iter();
        let own_uses: Vec<OverlayUse<'a>> =
            own.map(|overlay| OverlayUse { overlay: &overlay.value, role: OWN }).collect();
        let all: Vec<OverlayUse<'a>> = uses.iter().chain(&own_uses).copied().collect();
        owners::check(kind, self.overlays.owners(&all), problems);
        let mut values = self.shared_values.clone();
        values.set(&KindContext::of(self.cluster, kind, self.overlays.owner_lines(&all)));
        let tree = self.kind_tree(&all, &own_uses, &mut values).unwrap_or_else(|faults| {
            problems.extend(faults);
            FileTree::default()
        });
        let mut layers: Vec<String> = shared.map(str::to_owned).collect();
        if !tree.is_empty() {
            layers.push(kind_layer(&tree));
        }
        let mut prepared = PreparedKind {
            server_yaml: kind.is_server().then(|| ServerYaml::of_kind(self.cluster, kind)),
            kickstart: KindKickstart::of(self.cluster, kind, &layers),
            layers,
            tree,
            uses: all,
            values,
            settled: SettledSet::default(),
            settled_kickstart: SettledSet::default(),
        };
        if let Some(node) =
            self.cluster.nodes.iter().find(|node| std::ptr::eq(self.cluster.kind_of(node), kind))
        {
            self.try_node(node, &mut prepared, problems);
        }
        prepared
    }

    fn kind_tree(
        &self,
        uses: &[OverlayUse<'_>],
        own_uses: &[OverlayUse<'_>],
        values: &mut Values,
    ) -> Result<FileTree, Vec<Diagnostic>> {
        let mut tree = match own_uses.is_empty() {
            true => FileTree::default(),
            false => {
                self.overlays.render(own_uses, Scope::Cluster, &mut cluster_values(self.cluster))?
            }
        };
        let own = self.overlays.render(uses, Scope::Kind, values)?;
        tree.overlay(&own)
            .map_err(|fault| vec![Diagnostic::error(codes::PATH_TWICE, fault.to_string())])?;
        Ok(tree)
    }

    /// Renders one node of a kind: what fails for it fails for all.
    fn try_node(&self, node: &Node, kind: &mut PreparedKind<'a>, problems: &mut Problems) {
        let mut values = kind.values.clone();
        let mut settled = SettledSet::default();
        if let Err(faults) = self.node_tree(node, kind, &mut values, &mut settled) {
            problems.extend(faults);
            return;
        }
        kind.settled = settled;
        problems.extend(self.overlays.clashes(&kind.uses, &values));
        let mut values = kind.kickstart.values();
        kind.kickstart.set_node(&mut values, self.cluster, node, NodeFiles::default());
        let settled = &mut kind.settled_kickstart;
        let text = kickstart::render_settled(&self.templates, &self.scripts, &values, settled);
        if let Err(fault) = text {
            problems.push(self.diagnostic(&fault));
        }
    }

    fn uses_of_layer(&self, layer: &str) -> Vec<OverlayUse<'a>> {
        let Some((role, overlays)) = self.cluster.layers.get_key_value(layer) else {
            return Vec::new();
        };
        overlays.iter().map(|overlay| OverlayUse { overlay: &overlay.value, role }).collect()
    }

    /// The template's problem at its place in the library.
    pub fn diagnostic(&self, fault: &TemplateError) -> Diagnostic {
        match self.sources.get(&fault.template) {
            Some(id) => fault.diagnostic(*id),
            None => Diagnostic::error(codes::TEMPLATE_VALUE, fault.to_string()),
        }
    }

    /// A free value that no template reads is a slip in its name, or in a template's.
    fn report_unused_vars(&self, problems: &mut Problems) {
        let named = self.kinds.iter().flat_map(|kind| &kind.uses).map(|used| used.overlay);
        let overlays: BTreeSet<&str> = named.collect();
        let read: BTreeSet<String> =
            overlays.iter().flat_map(|overlay| self.overlays.vars(overlay)).collect();
        let of_kinds = self.cluster.kinds.iter().flat_map(|kind| &kind.vars);
        let given: Vec<(&String, &Sited<VarValue>)> =
            self.cluster.vars.iter().chain(of_kinds).collect();
        for (name, value) in given {
            if read.contains(name) {
                continue;
            }
            let message = format!("no template uses `vars.{name}`");
            let diagnostic = Diagnostic::error(codes::UNUSED_VARIABLE, message).at(value.span);
            problems.push(match did_you_mean(name, read.iter().map(String::as_str)) {
                Some(similar) => diagnostic.help(format!("did you mean `{similar}`?")),
                None => diagnostic.help("take it out, or use it in an overlay of the site"),
            });
        }
    }

    /// The shared layers by name: `common`, the roles, and those of the kinds.
    ///
    /// # Errors
    ///
    /// Every template that fails.
    pub fn layers(&self) -> Result<BTreeMap<String, FileTree>, Vec<Diagnostic>> {
        let kept = self.cluster_values.lock().expect("no holder of the lock panics").take();
        let mut values = kept.unwrap_or_else(|| cluster_values(self.cluster));
        let names = self.cluster.layers.keys();
        let mut layers: BTreeMap<String, FileTree> = names
            .map(|name| {
                let uses = self.uses_of_layer(name);
                Ok((name.clone(), self.overlays.render(&uses, Scope::Cluster, &mut values)?))
            })
            .collect::<Result<_, Vec<Diagnostic>>>()?;
        for kind in self.kinds.iter().filter(|kind| !kind.tree.is_empty()) {
            let name = kind.layers.last().expect("a kind has a layer for its tree");
            layers.insert(name.clone(), kind.tree.clone());
        }
        Ok(layers)
    }

    /// The names of a kind's shared layers, in the order of unpacking; the node's own comes
    /// after them.
    pub fn layers_of(&self, kind: usize) -> &[String] {
        &self.kinds[kind].layers
    }

    /// Everything that the nodes of a kind are rendered with and that is not their own, but for
    /// the templates: equal texts mean equal nodes, if the nodes' own values are equal.
    pub fn kind_fingerprint(&self, kind: usize) -> String {
        let kind = &self.kinds[kind];
        let yaml = kind.server_yaml.as_ref().map(ServerYaml::text).unwrap_or_default();
        format!("{}\n{}\n{yaml}", kind.values.data(), kind.kickstart.values().data())
    }

    /// What renders the nodes of one kind, one after another.
    pub fn nodes_of_kind(&self, kind: usize) -> NodeRenderer<'_, 'a> {
        let kind = &self.kinds[kind];
        NodeRenderer {
            prepared: self,
            kind,
            values: kind.values.clone(),
            kickstart_values: kind.kickstart.values(),
            settled: kind.settled.clone(),
            settled_kickstart: kind.settled_kickstart.clone(),
        }
    }

    fn node_tree(
        &self,
        node: &Node,
        kind: &PreparedKind<'_>,
        values: &mut Values,
        settled: &mut SettledSet,
    ) -> Result<FileTree, Vec<Diagnostic>> {
        let server_yaml = kind.server_yaml.as_ref().map(|yaml| yaml.for_node(node));
        values.set(&NodeContext::of(self.cluster, node, server_yaml));
        self.overlays.render_settled(&kind.uses, Scope::Node, values, settled)
    }

    /// Renders one of the further templates.
    ///
    /// # Errors
    ///
    /// Fails when the template names what `context` lacks.
    pub fn render<T: Serialize>(&self, name: &str, context: &T) -> Result<String, TemplateError> {
        self.templates.render(name, context)
    }

    /// What the kickstarts of all nodes begin with.
    pub fn kickstart_scripts(&self) -> &str {
        &self.scripts
    }

    /// The kickstart of the golden image of a kind's nodes, and MiB that its disk has at least. It is
    /// the same for kinds that differ in nothing that is installed.
    ///
    /// # Errors
    ///
    /// Fails when a site's template names what is not there.
    pub fn golden_kickstart(&self, kind: usize) -> Result<(String, u64), Vec<Diagnostic>> {
        let context = self.kinds[kind].kickstart.golden();
        let (name, scripts) = (kickstart::GOLDEN, &self.golden_scripts);
        let text = kickstart::render(&self.templates, name, scripts, &Values::of(&context))
            .map_err(|fault| vec![self.diagnostic(&fault)])?;
        Ok((text, context.disk_mib()))
    }

    /// The scripts of media that are not a kickstart's.
    pub fn media_scripts(&self) -> &MediaScripts {
        &self.media_scripts
    }

    pub fn templates(&self) -> &Templates {
        &self.templates
    }
}

/// The name of a kind's layer follows from what is in it: kinds that differ in other things
/// share it, and a node's kickstart names exactly what it was made for.
fn kind_layer(tree: &FileTree) -> String {
    let mut hasher = Context::new(&SHA256);
    tree.describe(|bytes| hasher.update(bytes));
    let digest = hasher.finish();
    let hex: String = digest.as_ref()[..6].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("kind-{hex}")
}

/// Renders nodes of one kind; not shared between threads.
pub struct NodeRenderer<'p, 'a> {
    prepared: &'p Prepared<'a>,
    kind: &'p PreparedKind<'a>,
    values: Values,
    kickstart_values: Values,
    /// What the nodes before left ready.
    settled: SettledSet,
    settled_kickstart: SettledSet,
}

impl NodeRenderer<'_, '_> {
    /// The node's own layer: what is in none of the layers of [`Prepared::layers_of`].
    ///
    /// # Errors
    ///
    /// Every template that fails.
    pub fn own_tree(&mut self, node: &Node) -> Result<FileTree, Vec<Diagnostic>> {
        self.prepared.node_tree(node, self.kind, &mut self.values, &mut self.settled)
    }

    /// The names of the shared layers below the node's own, in the order of unpacking.
    pub fn layers(&self) -> &[String] {
        &self.kind.layers
    }

    /// The node's kickstart.
    ///
    /// # Errors
    ///
    /// Fails when a site's template names what is not there.
    pub fn kickstart(&mut self, node: &Node, files: NodeFiles) -> Result<String, Vec<Diagnostic>> {
        let (prepared, values) = (self.prepared, &mut self.kickstart_values);
        self.kind.kickstart.set_node(values, prepared.cluster, node, files);
        let settled = &mut self.settled_kickstart;
        kickstart::render_settled(&prepared.templates, &prepared.scripts, values, settled)
            .map_err(|fault| vec![prepared.diagnostic(&fault)])
    }
}
