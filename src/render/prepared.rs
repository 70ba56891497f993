//! A cluster made ready to render: templates read, contexts filled, what nodes share worked
//! out once.
//!
//! Three scopes, by what a file mentions: the cluster's files go to the shared layers, a
//! kind's files are rendered once for all its nodes, and only the rest is rendered node by
//! node.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Serialize;

use crate::cluster::{Cluster, Kind, Node, Sited, VarValue};
use crate::daos::{self, ServerYaml};
use crate::diag::{Diagnostic, Problems, SourceId, SourceMap, codes};
use crate::overlay::{self, LibraryFiles};
use crate::render::context::{ClusterContext, DaosFiles, KindContext, NodeContext};
use crate::render::install::{KindKickstart, NodeFiles};
use crate::render::kickstart;
use crate::render::overlay::{OverlayUse, Renderer, Scope};
use crate::render::owners;
use crate::render::template::{TemplateError, Templates, Values};
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
    /// Where the text of each of those templates is.
    sources: BTreeMap<String, SourceId>,
    /// Of the whole cluster.
    values: Values,
    /// The same without what grows with the cluster and no kind or node asks for: a copy for
    /// each kind stays small.
    shared_values: Values,
    kinds: Vec<PreparedKind<'a>>,
}

/// What of the cluster's values grows with the number of nodes.
const GROWING: [&[&str]; 3] = [&["hosts"], &["roles"], &["daos", "control_yaml"]];

/// What nodes of a kind share.
struct PreparedKind<'a> {
    uses: Vec<OverlayUse<'a>>,
    own_uses: Vec<OverlayUse<'a>>,
    values: Values,
    server_yaml: Option<ServerYaml>,
    agent_yaml: Option<String>,
    kickstart: KindKickstart,
    /// The kind's files, and the cluster's files of overlays that only these nodes have.
    tree: FileTree,
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
    let texts = texts(library, kickstart::FILES.iter().chain(further).copied(), problems);
    for name in further {
        let Some((shown, text)) = texts.get(name) else { continue };
        template_sources.insert((*name).to_owned(), sources.add(shown.clone(), (*text).to_owned()));
    }
    let text_of = |name: &str| texts.get(name).map(|(_, text)| *text);
    // Places in it count the lines of the scripts it includes, so the source is the whole.
    let kickstart = kickstart::template(text_of);
    let shown = PathBuf::from("<kickstart with its scripts>");
    template_sources.insert(kickstart::TEMPLATE.to_owned(), sources.add(shown, kickstart.clone()));
    let kickstart = templates.add(kickstart::TEMPLATE, &kickstart);
    let further =
        further.iter().map(|name| (*name, text_of(name).map(|text| templates.add(name, text))));
    let added: Vec<_> = further.collect();
    for (name, fault) in added
        .into_iter()
        .filter_map(|(name, added)| Some((name, added?.err()?)))
        .chain(kickstart.err().map(|fault| (kickstart::TEMPLATE, fault)))
    {
        problems.push(fault.diagnostic(template_sources[name]));
    }
    if problems.has_errors_since(n_before) {
        return None;
    }
    let values = Values::of(&ClusterContext::of(cluster, daos::control_yaml(cluster)));
    let mut shared_values = values.clone();
    for path in GROWING {
        if !overlays.is_mentioned_by_nodes(path) {
            shared_values.remove(path);
        }
    }
    let mut prepared = Prepared {
        cluster,
        shared_values,
        overlays,
        templates,
        sources: template_sources,
        values,
        kinds: Vec::new(),
    };
    for kind in &cluster.kinds {
        let kind = prepared.prepare_kind(kind, problems);
        prepared.kinds.push(kind);
    }
    prepared.report_unused_vars(problems);
    (!problems.has_errors_since(n_before)).then_some(prepared)
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
        let uses: Vec<OverlayUse<'a>> = shared.flat_map(|role| self.uses_of_layer(role)).collect();
        let own = kind.own_overlays.iter();
        let own_uses: Vec<OverlayUse<'a>> =
            own.map(|overlay| OverlayUse { overlay: &overlay.value, role: OWN }).collect();
        let all: Vec<OverlayUse<'a>> = uses.iter().chain(&own_uses).copied().collect();
        owners::check(kind, self.overlays.owners(&all), problems);
        let mut values = self.shared_values.clone();
        values.set(&KindContext::of(self.cluster, kind, self.overlays.owner_lines(&all)));
        let mut prepared = PreparedKind {
            server_yaml: kind.is_server().then(|| ServerYaml::of_kind(self.cluster, kind)),
            agent_yaml: kind.is_client().then(|| daos::agent_yaml(self.cluster, kind)),
            kickstart: KindKickstart::of(self.cluster, kind),
            tree: FileTree::default(),
            uses: all,
            own_uses,
            values,
        };
        match self.kind_tree(&mut prepared) {
            Ok(tree) => prepared.tree = tree,
            Err(faults) => problems.extend(faults),
        }
        if let Some(node) =
            self.cluster.nodes.iter().find(|node| std::ptr::eq(self.cluster.kind_of(node), kind))
        {
            self.try_node(node, &mut prepared, problems);
        }
        prepared
    }

    fn kind_tree(&self, kind: &mut PreparedKind<'_>) -> Result<FileTree, Vec<Diagnostic>> {
        let mut tree = match kind.own_uses.is_empty() {
            true => FileTree::default(),
            false => {
                self.overlays.render(&kind.own_uses, Scope::Cluster, &mut self.values.clone())?
            }
        };
        let own = self.overlays.render(&kind.uses, Scope::Kind, &mut kind.values)?;
        tree.overlay(&own)
            .map_err(|fault| vec![Diagnostic::error(codes::PATH_TWICE, fault.to_string())])?;
        Ok(tree)
    }

    /// Renders one node of a kind: what fails for it fails for all.
    fn try_node(&self, node: &Node, kind: &mut PreparedKind<'a>, problems: &mut Problems) {
        let mut values = kind.values.clone();
        if let Err(faults) = self.node_tree(node, kind, &mut values) {
            problems.extend(faults);
            return;
        }
        problems.extend(self.overlays.clashes(&kind.uses, &values));
        let context = kind.kickstart.of_node(self.cluster, node, NodeFiles::default());
        if let Err(fault) = kickstart::render(&self.templates, &context) {
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

    /// The shared layers by name: `common`, then the roles.
    ///
    /// # Errors
    ///
    /// Every template that fails.
    pub fn layers(&self) -> Result<BTreeMap<String, FileTree>, Vec<Diagnostic>> {
        let mut values = self.values.clone();
        let names = self.cluster.layers.keys();
        names
            .map(|name| {
                let uses = self.uses_of_layer(name);
                Ok((name.clone(), self.overlays.render(&uses, Scope::Cluster, &mut values)?))
            })
            .collect()
    }

    /// What renders the nodes of one kind, one after another.
    pub fn nodes_of_kind(&self, kind: usize) -> NodeRenderer<'_, 'a> {
        NodeRenderer {
            prepared: self,
            kind: &self.kinds[kind],
            values: self.kinds[kind].values.clone(),
        }
    }

    fn node_tree(
        &self,
        node: &Node,
        kind: &PreparedKind<'_>,
        values: &mut Values,
    ) -> Result<FileTree, Vec<Diagnostic>> {
        let files = DaosFiles {
            server_yaml: kind.server_yaml.as_ref().map(|yaml| yaml.for_node(node)),
            agent_yaml: kind.agent_yaml.clone(),
        };
        values.set(&NodeContext::of(self.cluster, node, files));
        let own = self.overlays.render(&kind.uses, Scope::Node, values)?;
        let mut tree = kind.tree.clone();
        tree.overlay(&own)
            .map_err(|fault| vec![Diagnostic::error(codes::PATH_TWICE, fault.to_string())])?;
        Ok(tree)
    }

    /// Renders one of the further templates.
    ///
    /// # Errors
    ///
    /// Fails when the template names what `context` lacks.
    pub fn render<T: Serialize>(&self, name: &str, context: &T) -> Result<String, TemplateError> {
        self.templates.render(name, context)
    }

    pub fn templates(&self) -> &Templates {
        &self.templates
    }
}

/// Renders nodes of one kind; not shared between threads.
pub struct NodeRenderer<'p, 'a> {
    prepared: &'p Prepared<'a>,
    kind: &'p PreparedKind<'a>,
    values: Values,
}

impl NodeRenderer<'_, '_> {
    /// The node's own layer: what is neither in `common` nor in its roles' layers.
    ///
    /// # Errors
    ///
    /// Every template that fails.
    pub fn own_tree(&mut self, node: &Node) -> Result<FileTree, Vec<Diagnostic>> {
        self.prepared.node_tree(node, self.kind, &mut self.values)
    }

    /// The node's kickstart.
    ///
    /// # Errors
    ///
    /// Fails when a site's template names what is not there.
    pub fn kickstart(&self, node: &Node, files: NodeFiles) -> Result<String, Vec<Diagnostic>> {
        let context = self.kind.kickstart.of_node(self.prepared.cluster, node, files);
        kickstart::render(&self.prepared.templates, &context)
            .map_err(|fault| vec![self.prepared.diagnostic(&fault)])
    }
}
