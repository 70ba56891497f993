//! Overlays: folders that mirror a node's root, and what overlay.toml says of their files.
//!
//! ```text
//! overlays/NAME/overlay.toml      description, modes, owners by name, conditions, folders, links
//! overlays/NAME/rootfs/…          one file for each file of the node; NAME.hbs is a template
//! overlays/NAME/partials/P.hbs    included as {{> NAME/P}}, from any overlay
//! ```
//!
//! [`read`] turns all of them into [`Overlay`]s, or into every problem they have. Rendering
//! is [`crate::render::overlay`]'s. Files come as data, from the binary and from a site's
//! folder, which [`shadow`] lays over the other file by file.

mod condition;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use crate::diag::{Code, Diagnostic, Problems, SourceId, SourceMap, Span, codes};
use crate::toml_doc::{self, Item, Key, Missing, Need, Shape, Table, did_you_mean};
use crate::tree::{Mode, Owner, TreePath};

pub use condition::{Condition, Test};

/// One file of overlays/ or profiles/, wherever it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LibraryFile {
    /// As messages name it: `<builtin>/…`, or the site's own path.
    pub shown: PathBuf,
    pub bytes: Cow<'static, [u8]>,
}

/// Files by their path below the folder that holds `overlays` and `profiles`, such as
/// `overlays/hosts/rootfs/etc/hosts.hbs`.
pub type LibraryFiles = BTreeMap<String, LibraryFile>;

/// Lays a site's files over the built-in ones: the same path replaces, a new one adds.
///
/// A template and a plain file that would become the same file of the node replace each
/// other, too: the suffix `.hbs` is about how it is made, not about which file it is.
pub fn shadow(mut builtin: LibraryFiles, site: LibraryFiles) -> LibraryFiles {
    for path in site.keys() {
        let twin = match path.strip_suffix(TEMPLATE_SUFFIX) {
            Some(plain) => plain.to_owned(),
            None => format!("{path}{TEMPLATE_SUFFIX}"),
        };
        builtin.remove(&twin);
    }
    builtin.extend(site);
    builtin
}

/// Ends the name of a file that is a template.
pub const TEMPLATE_SUFFIX: &str = ".hbs";

/// One overlay as overlay.toml describes it.
#[derive(Clone, Debug)]
pub struct Overlay {
    pub name: String,
    /// One line for people.
    pub description: String,
    /// All must hold, or the node gets none of it.
    pub when: Vec<Condition>,
    /// Sorted by path.
    pub files: Vec<OverlayFile>,
    /// Folders that need more than to be there, or are there for themselves.
    pub dirs: Vec<OverlayDir>,
    pub links: Vec<OverlayLink>,
    pub partials: Vec<Partial>,
    /// The first key of overlay.toml.
    pub span: Span,
}

/// A file of the node.
#[derive(Clone, Debug)]
pub struct OverlayFile {
    /// With `each`, the file that the pattern takes the place of.
    pub path: TreePath,
    pub content: Content,
    pub mode: Mode,
    pub owner: Owner,
    pub when: Vec<Condition>,
    /// Makes one file for each item of a list.
    pub each: Option<Each>,
    /// Its entry in overlay.toml, or that file's start where it has none.
    pub span: Span,
}

#[derive(Clone, Debug)]
pub enum Content {
    /// Copied as it is.
    Verbatim(Arc<[u8]>),
    /// Rendered; the template's text is in the source map.
    Template(SourceId),
}

/// `each = "node.links"`, `name = "10-{name}.link"`.
#[derive(Clone, Debug)]
pub struct Each {
    /// The path of a list in the context.
    pub list: Vec<String>,
    /// The file's name: this, then the item's field, then that.
    pub before: String,
    pub field: String,
    pub after: String,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub struct OverlayDir {
    pub path: TreePath,
    pub mode: Mode,
    pub owner: Owner,
    pub when: Vec<Condition>,
    pub span: Span,
}

/// A symbolic link.
#[derive(Clone, Debug)]
pub struct OverlayLink {
    pub path: TreePath,
    /// May be a template.
    pub target: String,
    pub when: Vec<Condition>,
    pub span: Span,
    pub target_span: Span,
}

/// A template that others include as `{{> overlay/name}}`.
#[derive(Clone, Debug)]
pub struct Partial {
    pub name: String,
    pub source: SourceId,
}

/// The keys of overlay.toml.
pub const OVERLAY_FILE: &[Key] = &[
    Key {
        need: Need::Required,
        ..key("description", Shape::Text, "\"Who may log in\"", "What it is for, in one line.")
    },
    WHEN,
    key(
        "file",
        Shape::Map(&Shape::Table(FILE)),
        "{ \"etc/chrony.keys\" = { mode = \"0640\" } }",
        "What is special about a file below rootfs/, by its path on the node.",
    ),
    key(
        "dir",
        Shape::Map(&Shape::Table(DIR)),
        "{ \"root/.ssh\" = { mode = \"0700\" } }",
        "Folders to make, or with a mode or owner of their own.",
    ),
    key(
        "link",
        Shape::Map(&Shape::Table(LINK)),
        "{ \"etc/localtime\" = { target = \"../usr/share/zoneinfo/UTC\" } }",
        "Symbolic links to make.",
    ),
];

const WHEN: Key = key(
    "when",
    Shape::List(&Shape::Text),
    "[\"daos.security == certificates\"]",
    "Conditions that must all hold: `path`, `!path`, `path == value`, `path != value`.",
);

const FILE: &[Key] = &[
    key("mode", Shape::Text, "\"0600\"", "Octal; 0644 if not given."),
    OWNER,
    WHEN,
    key(
        "each",
        Shape::Text,
        "\"node.links\"",
        "A list: one file for each item, which the template sees as `item`.",
    ),
    key(
        "name",
        Shape::Text,
        "\"10-{name}.link\"",
        "With `each`, the file's name, with one field of the item in braces.",
    ),
];

const DIR: &[Key] =
    &[key("mode", Shape::Text, "\"0700\"", "Octal; 0755 if not given."), OWNER, WHEN];

const LINK: &[Key] = &[
    Key {
        need: Need::Required,
        ..key(
            "target",
            Shape::Text,
            "\"/usr/lib/systemd/system/x.service\"",
            "Where it points; may be a template.",
        )
    },
    WHEN,
];

const OWNER: Key = key(
    "owner",
    Shape::Text,
    "\"daos_server:daos_server\"",
    "User and group by name, set on the node; root:root if not given.",
);

const fn key(name: &'static str, shape: Shape, example: &'static str, doc: &'static str) -> Key {
    Key { name, shape, doc, default: "", example, need: Need::Optional }
}

/// All overlays among `files`, by name; texts that a problem may point at go to `sources`.
pub fn read(
    files: &LibraryFiles,
    sources: &mut SourceMap,
    problems: &mut Problems,
) -> BTreeMap<String, Overlay> {
    let mut folders: BTreeMap<&str, Folder<'_>> = BTreeMap::new();
    for (path, file) in files {
        let Some((name, inner)) =
            path.strip_prefix("overlays/").and_then(|below| below.split_once('/'))
        else {
            continue;
        };
        folders.entry(name).or_default().insert(inner, file);
    }
    let overlays = folders.iter().filter_map(|(name, folder)| {
        let overlay = Reader { name, folder, sources, problems }.read()?;
        Some(((*name).to_owned(), overlay))
    });
    overlays.collect()
}

/// The files of one overlay, by their path inside it.
type Folder<'a> = BTreeMap<&'a str, &'a LibraryFile>;

struct Reader<'a> {
    name: &'a str,
    folder: &'a Folder<'a>,
    sources: &'a mut SourceMap,
    problems: &'a mut Problems,
}

impl Reader<'_> {
    fn read(mut self) -> Option<Overlay> {
        let Some(file) = self.folder.get("overlay.toml") else {
            let any = self.folder.values().next().map(|file| file.shown.display().to_string());
            self.problems.push(
                Diagnostic::error(
                    codes::OVERLAY,
                    format!("overlay `{}` has no overlay.toml", self.name),
                )
                .help("add one with `description = \"…\"`: overlays/NAME/overlay.toml")
                .note(format!("it has {}", any.unwrap_or_default())),
            );
            return None;
        };
        let source = self.add_text("overlay.toml", file)?;
        let table = toml_doc::parse(self.sources, source, self.problems);
        let top = Span::new(source, 0..0);
        toml_doc::check(&table, OVERLAY_FILE, Missing::At(top), self.problems);
        self.refuse_strays(top);
        Some(Overlay {
            name: self.name.to_owned(),
            description: table.get("description").and_then(Item::text).unwrap_or_default().into(),
            when: self.when(&table),
            files: self.files(entries(&table, "file"), top),
            dirs: self.dirs(entries(&table, "dir")),
            links: self.links(entries(&table, "link")),
            partials: self.partials(),
            span: top,
        })
    }

    /// Adds a file that must be text to the source map.
    fn add_text(&mut self, path: &str, file: &LibraryFile) -> Option<SourceId> {
        match std::str::from_utf8(&file.bytes) {
            Ok(text) => Some(self.sources.add(file.shown.clone(), text.to_owned())),
            Err(_) => {
                let message = format!("{} of overlay `{}` is not UTF-8", path, self.name);
                self.problems.push(
                    Diagnostic::error(codes::OVERLAY, message)
                        .note(format!("it is {}", file.shown.display())),
                );
                None
            }
        }
    }

    fn refuse_strays(&mut self, top: Span) {
        for path in self.folder.keys() {
            let is_partial = path
                .strip_prefix("partials/")
                .is_some_and(|name| name.ends_with(TEMPLATE_SUFFIX) && !name.contains('/'));
            if *path != "overlay.toml" && !path.starts_with("rootfs/") && !is_partial {
                let message = format!("`{path}` is no part of an overlay");
                self.report(codes::OVERLAY, message, top).help(
                    "files of the node lie below rootfs/, included templates are partials/NAME.hbs",
                );
            }
        }
    }

    /// Adds a problem; help can be hung on to it.
    fn report(&mut self, code: Code, message: String, at: Span) -> Reported<'_> {
        let message = format!("overlay `{}`: {message}", self.name);
        Reported {
            diagnostic: Some(Diagnostic::error(code, message).at(at)),
            problems: self.problems,
        }
    }

    fn files(&mut self, entries: &Table, top: Span) -> Vec<OverlayFile> {
        let folder = self.folder;
        let rootfs =
            || folder.iter().filter_map(|(path, file)| Some((path.strip_prefix("rootfs/")?, file)));
        let on_node = |path: &str| path.strip_suffix(TEMPLATE_SUFFIX).unwrap_or(path).to_owned();
        let known: BTreeSet<String> = rootfs().map(|(path, _)| on_node(path)).collect();
        for (path, item) in entries.iter().filter(|(path, _)| !known.contains(*path)) {
            let similar = did_you_mean(path, known.iter().map(String::as_str)).map(str::to_owned);
            self.report(
                codes::OVERLAY,
                format!("there is no file `{path}` below rootfs/"),
                item.key_span,
            )
            .help(match similar {
                Some(similar) => format!("did you mean `{similar}`?"),
                None => {
                    "write the path on the node, without `.hbs` and without a leading `/`".into()
                }
            });
        }
        let files = rootfs().filter_map(|(path, file)| {
            let on_node = on_node(path);
            let item = entries.get(&on_node);
            let span = item.map_or(top, |item| item.key_span);
            let empty = Table::new();
            let settings = item.and_then(Item::table).unwrap_or(&empty);
            let content = match path.ends_with(TEMPLATE_SUFFIX) {
                true => Content::Template(self.add_text(path, file)?),
                false => Content::Verbatim(file.bytes.as_ref().into()),
            };
            Some(OverlayFile {
                path: self.tree_path(&on_node, span)?,
                mode: self.mode(settings, Mode::FILE),
                owner: self.owner(settings),
                when: self.when(settings),
                each: self.each(settings, &content, span),
                content,
                span,
            })
        });
        files.collect()
    }

    fn dirs(&mut self, entries: &Table) -> Vec<OverlayDir> {
        let dirs = entries.iter().filter_map(|(path, item)| {
            let settings = item.table()?;
            Some(OverlayDir {
                path: self.tree_path(path, item.key_span)?,
                mode: self.mode(settings, Mode::DIR),
                owner: self.owner(settings),
                when: self.when(settings),
                span: item.key_span,
            })
        });
        dirs.collect()
    }

    fn links(&mut self, entries: &Table) -> Vec<OverlayLink> {
        let links = entries.iter().filter_map(|(path, item)| {
            let settings = item.table()?;
            let target = settings.get("target")?;
            Some(OverlayLink {
                path: self.tree_path(path, item.key_span)?,
                target: target.text()?.to_owned(),
                when: self.when(settings),
                span: item.key_span,
                target_span: target.span,
            })
        });
        links.collect()
    }

    fn partials(&mut self) -> Vec<Partial> {
        let folder = self.folder;
        let partials = folder.iter().filter_map(|(path, file)| {
            let name = path.strip_prefix("partials/")?.strip_suffix(TEMPLATE_SUFFIX)?;
            let source = self.add_text(path, file)?;
            Some(Partial { name: format!("{}/{name}", self.name), source })
        });
        partials.collect()
    }

    fn tree_path(&mut self, path: &str, at: Span) -> Option<TreePath> {
        if let Some(fault) = unfit_path(path) {
            self.report(codes::BAD_PATH, format!("`{path}` {fault}"), at)
                .help("write where the file itself lies on the installed disk");
            return None;
        }
        match TreePath::new(path) {
            Ok(path) => Some(path),
            // The check against the schema has said so.
            Err(_) if path.contains(char::is_control) => None,
            Err(fault) => {
                self.report(codes::BAD_PATH, fault.to_string(), at)
                    .help("write it as below the node's root: `etc/chrony.conf`");
                None
            }
        }
    }

    fn mode(&mut self, settings: &Table, default: Mode) -> Mode {
        let Some(item) = settings.get("mode") else { return default };
        let Some(text) = item.text() else { return default };
        let is_octal =
            matches!(text.len(), 3 | 4) && text.bytes().all(|b| matches!(b, b'0'..=b'7'));
        let bits = is_octal.then(|| u32::from_str_radix(text, 8).ok()).flatten();
        bits.and_then(Mode::new).unwrap_or_else(|| {
            self.report(codes::OVERLAY, format!("`{text}` is no mode"), item.span)
                .help("write three or four octal digits: `mode = \"0640\"`");
            default
        })
    }

    fn owner(&mut self, settings: &Table) -> Owner {
        let Some(item) = settings.get("owner") else { return Owner::root() };
        let Some(text) = item.text() else { return Owner::root() };
        let owner = match text.split_once(':') {
            Some((user, group)) if is_account(user) && is_account(group) => {
                Some(Owner { user: user.into(), group: group.into() })
            }
            _ => None,
        };
        owner.unwrap_or_else(|| {
            self.report(codes::OVERLAY, format!("`{text}` is no owner"), item.span)
                .help("write user and group by name: `owner = \"daos_server:daos_server\"`");
            Owner::root()
        })
    }

    fn when(&mut self, settings: &Table) -> Vec<Condition> {
        let Some(item) = settings.get("when") else { return Vec::new() };
        let conditions = item.texts().filter_map(|(text, span)| {
            let condition = Condition::parse(text, span);
            if condition.is_none() {
                self.report(codes::OVERLAY, format!("`{text}` is no condition"), span)
                    .help("write `path`, `!path`, `path == value` or `path != value`");
            }
            condition
        });
        conditions.collect()
    }

    fn each(&mut self, settings: &Table, content: &Content, at: Span) -> Option<Each> {
        let (list, name) = match (settings.get("each"), settings.get("name")) {
            (None, None) => return None,
            (Some(list), Some(name)) => (list, name),
            _ => {
                self.report(codes::OVERLAY, "`each` and `name` go together".into(), at)
                    .help("each = \"node.links\", name = \"10-{name}.link\"");
                return None;
            }
        };
        let (text, pattern) = (list.text()?, name.text()?);
        if matches!(content, Content::Verbatim(_)) {
            self.report(codes::OVERLAY, "only a template can be made for each item".into(), at)
                .help("let the file's name end in .hbs");
        }
        let parts = pattern.split_once('{').and_then(|(before, rest)| {
            let (field, after) = rest.split_once('}')?;
            let is_one = !before.contains(['/', '}']) && !after.contains(['/', '{', '}']);
            (is_one && condition::is_path(field)).then_some((before, field, after))
        });
        let (Some((before, field, after)), true) = (parts, condition::is_path(text)) else {
            let message = format!("`{text}` and `{pattern}` name no list and file");
            self.report(codes::OVERLAY, message, name.span)
                .help("each = \"node.links\", name = \"10-{name}.link\", in the same folder");
            return None;
        };
        Some(Each {
            list: text.split('.').map(str::to_owned).collect(),
            before: before.to_owned(),
            field: field.to_owned(),
            after: after.to_owned(),
            span: name.span,
        })
    }
}

/// A problem that goes to the others when it is dropped, with the help it got.
struct Reported<'a> {
    diagnostic: Option<Diagnostic>,
    problems: &'a mut Problems,
}

impl Reported<'_> {
    fn help(mut self, help: impl Into<String>) {
        self.diagnostic = self.diagnostic.take().map(|diagnostic| diagnostic.help(help));
    }
}

impl Drop for Reported<'_> {
    fn drop(&mut self) {
        self.problems.extend(self.diagnostic.take());
    }
}

fn entries<'a>(table: &'a Table, key: &str) -> &'a Table {
    static NONE: Table = Table::new();
    table.get(key).and_then(Item::table).unwrap_or(&NONE)
}

/// A user or group name as EL8's shadow-utils take them (useradd(8), "CAVEATS").
fn is_account(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-');
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    starts && name.len() <= 32 && name.bytes().all(inner)
}

/// Why nothing can be laid at `path` on EL8, although it is clean: links that unpacking
/// would replace by folders (package `filesystem`), and what is no part of the disk.
pub fn unfit_path(path: &str) -> Option<String> {
    let first = path.split('/').next().unwrap_or_default();
    let linked = ["bin", "sbin", "lib", "lib64"];
    let mounted = ["dev", "proc", "run", "sys", "tmp"];
    if linked.contains(&first) {
        return Some(format!("goes through a link: `/{first}` is `usr/{first}` on EL8"));
    }
    if mounted.contains(&first) {
        return Some(format!("would be lost: `/{first}` is no part of the installed disk"));
    }
    let below = |folder: &str| {
        path.strip_prefix(folder).is_some_and(|r| r.is_empty() || r.starts_with('/'))
    };
    if below("var/run") || below("var/lock") {
        return Some("goes through a link: `/var/run` and `/var/lock` are below `/run`".into());
    }
    None
}

#[cfg(test)]
mod tests;
