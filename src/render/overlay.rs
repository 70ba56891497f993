//! Overlays and contexts become the files of nodes.
//!
//! What a file mentions says how often it is rendered: [`Scope::Cluster`] once, for the
//! layer of the role that names its overlay; [`Scope::Kind`] once for nodes that are alike;
//! [`Scope::Node`] for each node. A [`Renderer`] knows all overlays; it finds what is wrong
//! with them without any cluster, and then renders one scope at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use crate::diag::{Diagnostic, Problems, SourceId, SourceMap, Span, codes};
use crate::overlay::{Condition, Content, Each, Overlay, OverlayDir, OverlayFile, OverlayLink};
use crate::render::context::{OPEN_ROOTS, TmpfilesLine, root_scope, sample};
use crate::render::template::{SettledSet, TemplateError, Templates, Values, missing_step};
use crate::tree::{Entry, FileTree, Mode, Owner, Placed, TreePath};

/// Whose values something depends on; the later ones include the earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    Cluster,
    Kind,
    Node,
}

/// An overlay, and the role whose profile names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverlayUse<'a> {
    pub overlay: &'a str,
    pub role: &'a str,
}

/// All overlays, ready to render.
pub struct Renderer {
    overlays: BTreeMap<String, Overlay>,
    templates: Templates,
    /// Where the text of each template is.
    places: BTreeMap<String, TemplatePlace>,
    /// What is known of each overlay's entries, in the order of [`parts`].
    mentions: BTreeMap<String, Vec<Mentions>>,
}

/// What an entry of an overlay mentions.
struct Mentions {
    /// Every path, in templates and conditions, those of the whole overlay not included.
    paths: Vec<Vec<String>>,
    scope: Scope,
}

enum TemplatePlace {
    File(SourceId),
    /// A value in overlay.toml; errors point at all of it.
    Value(Span),
}

/// The root under which a template that is rendered for each item sees the item.
const ITEM: &str = "item";

impl Renderer {
    /// Reads the templates of `overlays` and reports everything that is wrong with them:
    /// what does not parse, includes itself, names what no context has, or is asked of what
    /// cannot answer.
    pub fn new(
        overlays: BTreeMap<String, Overlay>,
        sources: &SourceMap,
        problems: &mut Problems,
    ) -> Self {
        let mut renderer = Self {
            overlays: BTreeMap::new(),
            templates: Templates::new(),
            places: BTreeMap::new(),
            mentions: BTreeMap::new(),
        };
        for overlay in overlays.values() {
            renderer.add_templates(overlay, sources, problems);
        }
        // After all: partials may be another overlay's.
        for (name, overlay) in &overlays {
            let mentions = parts(overlay).map(|part| renderer.mentions(overlay, part)).collect();
            renderer.mentions.insert(name.clone(), mentions);
        }
        renderer.overlays = overlays;
        renderer.check(&sample(), problems);
        renderer
    }

    pub fn has(&self, overlay: &str) -> bool {
        self.overlays.contains_key(overlay)
    }

    pub fn overlays(&self) -> impl Iterator<Item = &Overlay> {
        self.overlays.values()
    }

    /// What of `uses` depends on `scope` and on nothing narrower, in one tree.
    ///
    /// `values` must hold the contexts of `scope` and of the wider ones; beside them it is
    /// scratch space. An overlay that does not exist adds nothing: the resolver has said so.
    ///
    /// # Errors
    ///
    /// Every template that fails, and every path that two overlays want.
    pub fn render(
        &self,
        uses: &[OverlayUse<'_>],
        scope: Scope,
        values: &mut Values,
    ) -> Result<FileTree, Vec<Diagnostic>> {
        self.render_settled(uses, scope, values, &mut SettledSet::default())
    }

    /// As [`render`](Self::render), many times over: `settled` is of earlier calls for the same
    /// `uses` and `scope`, between which only the values of [`Scope::Node`] changed.
    ///
    /// # Errors
    ///
    /// Those of [`render`](Self::render).
    pub fn render_settled(
        &self,
        uses: &[OverlayUse<'_>],
        scope: Scope,
        values: &mut Values,
        settled: &mut SettledSet,
    ) -> Result<FileTree, Vec<Diagnostic>> {
        let tree = FileTree::default();
        let mut layer = Layer { renderer: self, scope, tree, faults: vec![], settled };
        for used in uses {
            if let Some(overlay) = self.overlays.get(used.overlay) {
                layer.add(overlay, used.role, values);
            }
        }
        match layer.faults.is_empty() {
            true => Ok(layer.tree),
            false => Err(layer.faults),
        }
    }

    /// The lines of tmpfiles.d that give files of `uses` to their owners: archives are root's.
    pub fn owner_lines(&self, uses: &[OverlayUse<'_>]) -> Vec<TmpfilesLine> {
        let overlays = uses.iter().filter_map(|used| self.overlays.get(used.overlay));
        let owned = overlays.flat_map(|overlay| {
            let files = overlay.files.iter().map(|file| (&file.path, file.mode, &file.owner));
            let dirs = overlay.dirs.iter().map(|dir| (&dir.path, dir.mode, &dir.owner));
            files.chain(dirs)
        });
        let line = |(path, mode, owner): (&TreePath, Mode, &Owner)| TmpfilesLine {
            action: "z".into(),
            path: format!("/{path}"),
            mode: mode.to_string(),
            user: owner.user.to_string(),
            group: owner.group.to_string(),
        };
        owned.filter(|(_, _, owner)| !owner.is_root()).map(line).collect()
    }

    /// Who owns the files and folders of `uses`, each with the path and the place that says so.
    pub fn owners<'s>(
        &'s self,
        uses: &'s [OverlayUse<'_>],
    ) -> impl Iterator<Item = (&'s TreePath, &'s Owner, Span)> {
        let overlays = uses.iter().filter_map(|used| self.overlays.get(used.overlay));
        overlays.flat_map(|overlay| {
            let files = overlay.files.iter().map(|file| (&file.path, &file.owner, file.span));
            files.chain(overlay.dirs.iter().map(|dir| (&dir.path, &dir.owner, dir.span)))
        })
    }

    /// The names below `vars` and `cluster.vars` that `overlay` mentions.
    pub fn vars(&self, overlay: &str) -> BTreeSet<String> {
        let Some(overlay) = self.overlays.get(overlay) else { return BTreeSet::new() };
        let mut paths: Vec<Vec<String>> = overlay.when.iter().map(|c| c.path.clone()).collect();
        let mentions = self.mentions.get(&overlay.name).into_iter().flatten();
        paths.extend(mentions.flat_map(|part| part.paths.iter().cloned()));
        let var = |path: Vec<String>| match path.iter().map(String::as_str).collect::<Vec<_>>()[..]
        {
            ["vars", name, ..] | ["cluster", "vars", name, ..] => Some(name.to_owned()),
            _ => None,
        };
        paths.into_iter().filter_map(var).collect()
    }

    /// An error for each path that two of `uses` want on a node with these values.
    pub fn clashes(&self, uses: &[OverlayUse<'_>], values: &Values) -> Vec<Diagnostic> {
        let mut wanted: BTreeMap<&TreePath, (&str, Span)> = BTreeMap::new();
        let mut clashes = Vec::new();
        for overlay in uses.iter().filter_map(|used| self.overlays.get(used.overlay)) {
            let held = parts(overlay).filter(|part| !matches!(part, Part::Dir(_)));
            for part in held.filter(|part| applies(overlay, part.when(), values.data())) {
                match wanted.insert(part.path(), (&overlay.name, part.span())) {
                    Some((other, at)) if other != overlay.name => {
                        clashes.push(clash(part.path(), (&overlay.name, part.span()), (other, at)));
                    }
                    _ => {}
                }
            }
        }
        clashes.extend(self.covered_folders(uses, values, &wanted));
        clashes
    }

    /// Files and links where another part of these overlays needs a folder: the layers are
    /// unpacked over each other, and a link would carry what is below it elsewhere.
    fn covered_folders(
        &self,
        uses: &[OverlayUse<'_>],
        values: &Values,
        wanted: &BTreeMap<&TreePath, (&str, Span)>,
    ) -> Vec<Diagnostic> {
        let mut found: BTreeMap<TreePath, Diagnostic> = BTreeMap::new();
        for overlay in uses.iter().filter_map(|used| self.overlays.get(used.overlay)) {
            for part in parts(overlay).filter(|part| applies(overlay, part.when(), values.data())) {
                let own = matches!(part, Part::Dir(_)).then(|| part.path().clone());
                for folder in part.path().ancestors().chain(own) {
                    let Some((name, at)) = wanted.get(&folder) else { continue };
                    let message = format!(
                        "`/{folder}` of overlay `{name}` is no folder, and overlay `{}` has `/{}`",
                        overlay.name,
                        part.path(),
                    );
                    let diagnostic = Diagnostic::error(codes::PATH_TWICE, message)
                        .at(*at)
                        .also(part.span(), "needs the folder")
                        .help("leave one overlay out of the profile, or choose another path");
                    found.entry(folder).or_insert(diagnostic);
                }
            }
        }
        found.into_values().collect()
    }

    /// What a part mentions, and so how often it has to be rendered.
    fn mentions(&self, overlay: &Overlay, part: Part<'_>) -> Mentions {
        let paths = self.paths(&overlay.name, part);
        let overall = overlay.when.iter().map(|condition| &condition.path);
        let scopes = overall.chain(&paths).filter_map(|path| root_scope(path.first()?));
        Mentions { scope: scopes.max().unwrap_or(Scope::Cluster), paths }
    }

    /// Whether anything that is rendered by kind or by node mentions `path`, what it stands
    /// in, or what stands in it; conditions of whole overlays count too.
    pub fn is_mentioned_by_nodes(&self, path: &[&str]) -> bool {
        let touches = |mentioned: &[String]| mentioned.iter().zip(path).all(|(a, b)| a == b);
        self.overlays.values().any(|overlay| {
            let parts = self.mentions[&overlay.name].iter();
            let narrow = parts.filter(|part| part.scope > Scope::Cluster);
            let mentioned = narrow.flat_map(|part| &part.paths);
            let conditions = overlay.when.iter().map(|condition| &condition.path);
            mentioned.chain(conditions).any(|mentioned| touches(mentioned))
        })
    }

    /// Every path that `part` mentions, in templates and conditions.
    fn paths(&self, overlay: &str, part: Part<'_>) -> Vec<Vec<String>> {
        let mut paths: Vec<Vec<String>> = part.when().iter().map(|c| c.path.clone()).collect();
        paths.extend(part.each().map(|each| each.list.clone()));
        let references = self.templates.references(&template_name(overlay, part));
        paths.extend(references.into_iter().map(|reference| reference.path));
        paths
    }

    fn add_templates(&mut self, overlay: &Overlay, sources: &SourceMap, problems: &mut Problems) {
        for partial in &overlay.partials {
            let text = &sources.file(partial.source).text;
            let place = TemplatePlace::File(partial.source);
            self.add_template(partial.name.clone(), text, place, problems);
        }
        for part in parts(overlay) {
            let (text, place) = match part {
                Part::File(OverlayFile { content: Content::Template(source), .. }) => {
                    (&sources.file(*source).text, TemplatePlace::File(*source))
                }
                Part::Link(link) if link.target.contains("{{") => {
                    (&link.target, TemplatePlace::Value(link.target_span))
                }
                _ => continue,
            };
            self.add_template(template_name(&overlay.name, part), text, place, problems);
        }
    }

    fn add_template(
        &mut self,
        name: String,
        text: &str,
        place: TemplatePlace,
        problems: &mut Problems,
    ) {
        let added = self.templates.add(&name, text);
        self.places.insert(name, place);
        if let Err(fault) = added {
            problems.push(self.diagnostic(&fault));
        }
    }

    fn diagnostic(&self, fault: &TemplateError) -> Diagnostic {
        match self.places.get(&fault.template) {
            Some(TemplatePlace::File(source)) => fault.diagnostic(*source),
            Some(TemplatePlace::Value(span)) => fault.diagnostic_at(*span),
            None => Diagnostic::error(fault.fault.code(), fault.to_string()),
        }
    }

    /// Checks everything that is mentioned against `sample`, which has all there can be.
    fn check(&self, sample: &Value, problems: &mut Problems) {
        for overlay in self.overlays.values() {
            problems.extend(overlay.when.iter().filter_map(|c| undefined_condition(c, sample)));
            for part in parts(overlay) {
                problems.extend(part.when().iter().filter_map(|c| undefined_condition(c, sample)));
                self.check_templates(overlay, part, sample, problems);
            }
        }
    }

    fn check_templates(
        &self,
        overlay: &Overlay,
        part: Part<'_>,
        sample: &Value,
        problems: &mut Problems,
    ) {
        let name = template_name(&overlay.name, part);
        let Some(each) = part.each() else {
            let faults = self.templates.undefined(&name, sample, OPEN_ROOTS);
            problems.extend(faults.iter().map(|fault| self.diagnostic(fault)));
            return;
        };
        let item = items(&each.list, sample).and_then(|items| items.first());
        let Some(item) = item.filter(|item| item.get(&each.field).is_some()) else {
            let list = each.list.join(".");
            let message = format!("`{list}` is no list of items with a `{}`", each.field);
            problems.push(Diagnostic::error(codes::OVERLAY, message).at(each.span));
            return;
        };
        let mut with_item = sample.clone();
        with_item[ITEM] = item.clone();
        let faults = self.templates.undefined(&name, &with_item, OPEN_ROOTS);
        problems.extend(faults.iter().map(|fault| self.diagnostic(fault)));
        if !part.is_root_owned() {
            let message = "files that are made for each item are root's".to_owned();
            problems.push(Diagnostic::error(codes::OVERLAY, message).at(part.span()));
        }
    }
}

/// One entry of an overlay.
#[derive(Clone, Copy)]
enum Part<'a> {
    Dir(&'a OverlayDir),
    File(&'a OverlayFile),
    Link(&'a OverlayLink),
}

/// Folders first: their modes stand before files bring folders along.
fn parts(overlay: &Overlay) -> impl Iterator<Item = Part<'_>> {
    let dirs = overlay.dirs.iter().map(Part::Dir);
    dirs.chain(overlay.files.iter().map(Part::File)).chain(overlay.links.iter().map(Part::Link))
}

impl<'a> Part<'a> {
    fn path(self) -> &'a TreePath {
        match self {
            Part::Dir(dir) => &dir.path,
            Part::File(file) => &file.path,
            Part::Link(link) => &link.path,
        }
    }

    fn when(self) -> &'a [Condition] {
        match self {
            Part::Dir(dir) => &dir.when,
            Part::File(file) => &file.when,
            Part::Link(link) => &link.when,
        }
    }

    fn span(self) -> Span {
        match self {
            Part::Dir(dir) => dir.span,
            Part::File(file) => file.span,
            Part::Link(link) => link.span,
        }
    }

    fn each(self) -> Option<&'a Each> {
        match self {
            Part::File(file) => file.each.as_ref(),
            _ => None,
        }
    }

    fn is_root_owned(self) -> bool {
        match self {
            Part::File(file) => file.owner.is_root(),
            _ => true,
        }
    }
}

/// What the template of a part is called: a file's or a link's, unlike any partial's.
fn template_name(overlay: &str, part: Part<'_>) -> String {
    format!("{overlay}:{}", part.path())
}

fn applies(overlay: &Overlay, when: &[Condition], data: &Value) -> bool {
    overlay.when.iter().chain(when).all(|condition| condition.holds(data) == Some(true))
}

/// The items of the list at `path`.
fn items<'v>(path: &[String], data: &'v Value) -> Option<&'v Vec<Value>> {
    path.iter().try_fold(data, |value, step| value.get(step))?.as_array()
}

fn undefined_condition(condition: &Condition, sample: &Value) -> Option<Diagnostic> {
    let path = condition.path.join(".");
    let is_open =
        OPEN_ROOTS.iter().any(|open| path.strip_prefix(open).is_some_and(|r| r.starts_with('.')));
    let help = missing_step(&condition.path, sample).filter(|_| !is_open)?;
    let message = format!("`{path}` is not defined");
    let diagnostic = Diagnostic::error(codes::TEMPLATE_VALUE, message).at(condition.span);
    Some(diagnostic.help(help))
}

fn clash(path: &TreePath, second: (&str, Span), first: (&str, Span)) -> Diagnostic {
    let message = format!("`/{path}` comes from overlay `{}` and from `{}`", first.0, second.0);
    Diagnostic::error(codes::PATH_TWICE, message)
        .at(second.1)
        .also(first.1, "the other one")
        .help("leave one overlay out of the profile, or shadow the file in a site's folder")
}

/// One tree being made.
struct Layer<'a> {
    renderer: &'a Renderer,
    scope: Scope,
    tree: FileTree,
    faults: Vec<Diagnostic>,
    settled: &'a mut SettledSet,
}

/// What changes from one node of a kind to the next.
const CHANGING: &[&[&str]] = &[&["node"], &[ITEM]];

impl Layer<'_> {
    fn add(&mut self, overlay: &Overlay, role: &str, values: &mut Values) {
        let (scope, mentions) = (self.scope, &self.renderer.mentions[&overlay.name]);
        if mentions.iter().all(|it| it.scope != scope) {
            return;
        }
        let origin: Arc<str> = format!("{} ({role})", overlay.name).into();
        for (part, _) in parts(overlay).zip(mentions).filter(|(_, it)| it.scope == scope) {
            if applies(overlay, part.when(), values.data()) {
                self.add_part(overlay, part, &origin, values);
            }
        }
    }

    fn add_part(
        &mut self,
        overlay: &Overlay,
        part: Part<'_>,
        origin: &Arc<str>,
        values: &mut Values,
    ) {
        let name = template_name(&overlay.name, part);
        match part {
            Part::Dir(dir) => {
                let entry = Entry::Dir { mode: dir.mode };
                self.place(dir.path.clone(), entry, &dir.owner, origin, part.span());
            }
            Part::File(file) => match (&file.each, &file.content) {
                (Some(each), _) => self.add_each(&name, file, each, origin, values),
                (None, Content::Verbatim(bytes)) => {
                    let entry = Entry::File { mode: file.mode, contents: bytes.clone() };
                    self.place(file.path.clone(), entry, &file.owner, origin, file.span);
                }
                (None, Content::Template(_)) => {
                    self.add_text(&name, file, file.path.clone(), origin, values);
                }
            },
            Part::Link(link) => {
                let target = match self.renderer.templates.has(&name) {
                    true => self.text(&name, values),
                    false => Some(link.target.clone()),
                };
                if let Some(target) = target {
                    let entry = Entry::Symlink { target };
                    self.place(link.path.clone(), entry, &Owner::root(), origin, link.span);
                }
            }
        }
    }

    /// One file for each item of a list.
    fn add_each(
        &mut self,
        name: &str,
        file: &OverlayFile,
        each: &Each,
        origin: &Arc<str>,
        values: &mut Values,
    ) {
        for item in items(&each.list, values.data()).cloned().unwrap_or_default() {
            let field = item.get(&each.field).and_then(Value::as_str).unwrap_or_default();
            let file_name = format!("{}{field}{}", each.before, each.after);
            let folder = file.path.as_str().rsplit_once('/').map_or("", |(folder, _)| folder);
            let path = match field.contains('/') {
                true => None,
                false => TreePath::new(&format!("{folder}/{file_name}")).ok(),
            };
            values.set_root(ITEM, item);
            match path {
                Some(path) => self.add_text(name, file, path, origin, values),
                None => {
                    let message = format!("`{file_name}` is no name of a file");
                    self.faults.push(Diagnostic::error(codes::BAD_PATH, message).at(each.span));
                }
            }
        }
    }

    fn add_text(
        &mut self,
        name: &str,
        file: &OverlayFile,
        path: TreePath,
        origin: &Arc<str>,
        values: &Values,
    ) {
        if let Some(text) = self.text(name, values) {
            let entry = Entry::File { mode: file.mode, contents: text.into_bytes().into() };
            self.place(path, entry, &file.owner, origin, file.span);
        }
    }

    fn text(&mut self, name: &str, values: &Values) -> Option<String> {
        let templates = &self.renderer.templates;
        let text = match self.scope {
            Scope::Node => self.settled.render(templates, name, values, CHANGING),
            Scope::Cluster | Scope::Kind => templates.render_values(name, values),
        };
        match text {
            Ok(text) => Some(text),
            Err(fault) => {
                self.faults.push(self.renderer.diagnostic(&fault));
                None
            }
        }
    }

    fn place(
        &mut self,
        path: TreePath,
        entry: Entry,
        owner: &Owner,
        origin: &Arc<str>,
        span: Span,
    ) {
        if !self.tree.has_folder_of(&path) {
            self.place_folders(&path, origin);
        }
        let placed = Placed { entry, owner: owner.clone(), origin: Arc::clone(origin) };
        if let Err(conflict) = self.tree.insert(path, placed) {
            self.faults.push(
                Diagnostic::error(codes::PATH_TWICE, conflict.to_string())
                    .at(span)
                    .help("leave one overlay out of the profile"),
            );
        }
    }

    /// Puts the folders above `path` that are not there.
    fn place_folders(&mut self, path: &TreePath, origin: &Arc<str>) {
        for parent in path.ancestors() {
            if self.tree.get(&parent).is_some() {
                continue;
            }
            let entry = Entry::Dir { mode: packaged_dir_mode(parent.as_str()) };
            let placed = Placed { entry, owner: Owner::root(), origin: Arc::clone(origin) };
            // A file in the way is reported for the path itself.
            if self.tree.insert(parent, placed).is_err() {
                break;
            }
        }
    }
}

/// The mode EL8's packages give to a folder: unpacking an archive sets the modes of folders
/// that are there already, and `rpm -V` would tell.
pub fn packaged_dir_mode(path: &str) -> Mode {
    let bits = match path {
        "boot" | "usr/bin" | "usr/lib" | "usr/lib64" | "usr/sbin" => 0o555,
        "root" => 0o550,
        "etc/audit" | "etc/audit/rules.d" | "etc/firewalld" | "etc/sudoers.d" => 0o750,
        "etc/firewalld/helpers" | "etc/firewalld/icmptypes" | "etc/firewalld/ipsets" => 0o750,
        "etc/firewalld/services" | "etc/firewalld/zones" => 0o750,
        "boot/efi" | "boot/efi/EFI" | "boot/grub2" | "boot/loader" | "var/log/audit" => 0o700,
        "root/.ssh" | "var/lib/private" => 0o700,
        "etc/polkit-1/rules.d" => 0o700,
        "var/tmp" => 0o1777,
        _ => return Mode::DIR,
    };
    Mode::new(bits).expect("the table holds permission bits")
}
