//! `nodeforge build`: the boot tree.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::json;
use walkdir::WalkDir;

use crate::build::{self, BootProgram, BuildInput, Built};
use crate::changes::ListedChanges;
use crate::cli::BuildArgs;
use crate::cluster::{Cluster, SecretsVia};
use crate::commands::{Outcome, lint, load, report};
use crate::diag::{Color, Problems};
use crate::fetch::{self, ArchiveCache, CachedImages, Note, Unpacked};
use crate::format::digest::{Digest, Hasher};
use crate::manifest::FileEntry;
use crate::output::{self, Output, Published, Remarks, Trust, Whole};
use crate::overlay::LibraryFiles;
use crate::plan::Plan;
use crate::progress::{Progress, Unit};
use crate::range::{self, NodeName};
use crate::render::prepared::Prepared;
use crate::secrets::{KindSecrets, Reach};
use crate::source::Source;
use crate::units::ByteSize;

pub fn run(args: &BuildArgs, color: Color) -> Result<Outcome> {
    // By one of the threads that make nodes: the allocator keeps what a thread frees for that
    // thread, and reading the cluster and making its layers take as much for a while as the nodes.
    rayon::scope(|_| make(args, color))
}

fn make(args: &BuildArgs, color: Color) -> Result<Outcome> {
    let started = Instant::now();
    let (mut source, cluster, mut problems) = load::read(&args.cluster)?;
    let Some(cluster) = cluster else { return failed(args, problems, &source.map, color) };
    let sources = sources(&source);
    let secrets = lint::secrets(&cluster, Reach::Everything, &mut problems);
    lint::packages(&cluster, None, &mut problems);
    lint::archives(&cluster, Reach::Everything, &mut problems);
    let so_far = load::sorted(problems.clone(), Some(&cluster));
    let folders =
        Folders { cache: args.cache.as_deref(), boot_programs: args.boot_programs.as_deref() };
    let ingredients = match report::outcome(&so_far, args.deny) {
        Outcome::Done => Some(Ingredients::gather(
            &cluster,
            (&source.library, &sources),
            secrets,
            &folders,
            &mut problems,
        )?),
        // The templates' problems are told with the others.
        _ => None,
    };
    if let Some(ingredients) = &ingredients
        && let Some(built) = as_before(args, ingredients)?
    {
        report::draw(&so_far, &source.map, color)?;
        return tell(args, &cluster, ingredients, &built, started);
    }
    let n_problems = problems.len();
    let prepared = lint::prepare(&cluster, &mut source, &mut problems);
    let remarks = match problems.len() == n_problems {
        true => Remarks::None,
        false => Remarks::Some,
    };
    let problems = load::sorted(problems, Some(&cluster));
    report::draw(&problems, &source.map, color)?;
    let (Some(prepared), Some(ingredients), Outcome::Done) =
        (prepared, ingredients, report::outcome(&problems, args.deny))
    else {
        eprintln!(
            "{}: {}; nothing was built",
            args.cluster.cluster.display(),
            report::summary(&problems)
        );
        return Ok(Outcome::Problems);
    };
    let plan = Plan::of(&cluster, &load::selection(&cluster, args.only.as_deref())?);
    let input = BuildInput {
        whole: args.only.is_none().then_some(ingredients.everything),
        remarks,
        ..ingredients.input(&cluster, &plan, &prepared)
    };
    let output = Output::open_with(&args.out, trust(args))?;
    if let Some(damage) = output.damage() {
        eprintln!("warning: the current generation is damaged and will be replaced: {damage}");
    }
    let progress = Progress::start("building", Some(plan.n_nodes() as u64), Unit::Nodes);
    let built = build::build(&input, output, &progress);
    progress.finish();
    let built = match built {
        Ok(built) => built,
        Err(fault) => {
            let mut problems = Problems::default();
            problems.extend(fault.into_problems()?);
            return failed(args, problems, &source.map, color);
        }
    };
    tell(args, &cluster, &ingredients, &built, started)
}

/// The current generation, if it was made from the same as now, and is whole. Templates were
/// prepared without a warning then: nothing has to be read of them to say so again.
fn as_before(args: &BuildArgs, ingredients: &Ingredients) -> Result<Option<Built>> {
    let same = Whole { digest: ingredients.everything, remarks: Remarks::None };
    if args.only.is_some() || args.fresh || output::made_from(&args.out) != Some(same) {
        return Ok(None);
    }
    Ok(build::unchanged(&Output::open_with(&args.out, trust(args))?, same.digest))
}

fn trust(args: &BuildArgs) -> Trust {
    if args.fresh { Trust::None } else { Trust::InWhatLooksRight }
}

/// Says what was built, and what is left to do.
fn tell(
    args: &BuildArgs,
    cluster: &Cluster,
    ingredients: &Ingredients,
    built: &Built,
    started: Instant,
) -> Result<Outcome> {
    warn_of_pending(cluster, &ingredients.images, &args.cluster.cluster);
    tell_of_secrets(cluster, &ingredients.secrets);
    for (layer, n_nodes) in &built.beyond {
        eprintln!(
            "warning: the layer {layer} is another one now, and of the nodes that have it {n_nodes} \
             not built: build without --only before they are installed",
            n_nodes = match n_nodes {
                1 => "1 was".to_owned(),
                n_nodes => format!("{n_nodes} were"),
            },
        );
    }
    match args.json {
        true => print_json(built)?,
        false => describe(built, args, started),
    }
    Ok(Outcome::Done)
}

/// Where a build looks for what it takes as it is.
pub(super) struct Folders<'a> {
    pub(super) cache: Option<&'a Path>,
    pub(super) boot_programs: Option<&'a Path>,
}

/// What a build starts from beside the cluster and the rendered library.
pub(super) struct Ingredients {
    secrets: Vec<KindSecrets>,
    images: BTreeMap<String, CachedImages>,
    boot_programs: BTreeMap<String, BootProgram>,
    repositories: BTreeMap<String, Unpacked>,
    /// Held until the build has linked what is in it.
    _archives: Option<ArchiveCache>,
    program: Digest,
    /// Of all that the build starts from.
    everything: Digest,
}

impl Ingredients {
    /// Finds what `cluster` needs in `folders`; archives that are wrong are `problems`. `read` are
    /// the library and the [digest](sources) of the sources.
    pub(super) fn gather(
        cluster: &Cluster,
        read: (&LibraryFiles, &Digest),
        secrets: Vec<KindSecrets>,
        folders: &Folders<'_>,
        problems: &mut Problems,
    ) -> Result<Self> {
        let archives = archive_cache(cluster, folders.cache)?;
        let mut ingredients = Self {
            secrets,
            images: images(cluster, folders.cache),
            boot_programs: boot_programs(folders.boot_programs, folders.cache)?,
            repositories: repositories(cluster, archives.as_ref(), problems),
            _archives: archives,
            program: program(read.0)?,
            everything: Digest::of(b""),
        };
        ingredients.everything = ingredients.digest(read.1);
        Ok(ingredients)
    }

    /// What a build of all nodes starts from.
    pub(super) fn input<'a>(
        &'a self,
        cluster: &'a Cluster,
        plan: &'a Plan,
        prepared: &'a Prepared<'a>,
    ) -> BuildInput<'a> {
        BuildInput {
            cluster,
            plan,
            prepared,
            secrets: &self.secrets,
            images: &self.images,
            boot_programs: &self.boot_programs,
            repositories: &self.repositories,
            program: self.program,
            whole: Some(self.everything),
            remarks: Remarks::Some,
        }
    }

    fn digest(&self, sources: &Digest) -> Digest {
        let mut hasher = Hasher::default();
        hasher.update(self.program.as_bytes());
        hasher.update(sources.as_bytes());
        for secrets in &self.secrets {
            hasher.update(format!("{}\n", secrets.bundle().len()).as_bytes());
            hasher.update(secrets.bundle());
            hasher.update(format!("{:?}\n", secrets.root_hash()).as_bytes());
        }
        let programs = self.boot_programs.iter().map(|(name, program)| (name, program.entry));
        let programs: Vec<_> = programs.collect();
        hasher.update(format!("{:?}\n{programs:?}\n", self.images).as_bytes());
        for (id, repository) in &self.repositories {
            hasher.update(format!("{id:?}\n{:?}\n", repository.files).as_bytes());
        }
        hasher.finish()
    }
}

/// The digest of the cluster file and all that it names. Templates, which are made sources later,
/// count as part of the library.
pub(super) fn sources(source: &Source) -> Digest {
    let mut hasher = Hasher::default();
    for file in source.map.files() {
        hasher.update(format!("{:?} {}\n", file.path, file.text.len()).as_bytes());
        hasher.update(file.text.as_bytes());
    }
    hasher.finish()
}

/// The digest of this program, as far as it can be told apart cheaply, and of the profiles and
/// overlays it builds with.
fn program(library: &LibraryFiles) -> Result<Digest> {
    let path = std::env::current_exe().context("looking for this program's own file")?;
    let metadata = path.metadata().with_context(|| format!("looking at {}", path.display()))?;
    let mut hasher = Hasher::default();
    let identity =
        (env!("CARGO_PKG_VERSION"), metadata.len(), metadata.mtime(), metadata.mtime_nsec());
    hasher.update(format!("{identity:?}\n").as_bytes());
    for (path, file) in library {
        hasher.update(format!("{path:?} {}\n", file.bytes.len()).as_bytes());
        hasher.update(&file.bytes);
    }
    Ok(hasher.finish())
}

fn failed(
    args: &BuildArgs,
    problems: Problems,
    sources: &crate::diag::SourceMap,
    color: Color,
) -> Result<Outcome> {
    let problems = problems.into_sorted();
    report::draw(&problems, sources, color)?;
    eprintln!(
        "{}: {}; nothing was built",
        args.cluster.cluster.display(),
        report::summary(&problems)
    );
    Ok(Outcome::Problems)
}

/// The images in the cache, by release.
fn images(cluster: &Cluster, cache: Option<&Path>) -> BTreeMap<String, CachedImages> {
    let Some(cache) = cache.map(Path::to_owned).or_else(default_cache) else {
        return BTreeMap::new();
    };
    let mut images = BTreeMap::new();
    for kind in &cluster.kinds {
        let release = &kind.os.release.value;
        if !images.contains_key(release)
            && let Some(found) = fetch::cached(&cache, release)
        {
            images.insert(release.clone(), found);
        }
    }
    images
}

/// The cache of archives, if the cluster has any.
fn archive_cache(cluster: &Cluster, cache: Option<&Path>) -> Result<Option<ArchiveCache>> {
    if cluster.archives().next().is_none() {
        return Ok(None);
    }
    let cache = cache.map(Path::to_owned).or_else(default_cache);
    let cache = cache.context("there is no $HOME for a cache: name a folder with --cache")?;
    ArchiveCache::open(&cache, &|note: Note| eprintln!("{note}")).map(Some)
}

/// What is in the archives of packages, by the ids of their repositories.
fn repositories(
    cluster: &Cluster,
    cache: Option<&ArchiveCache>,
    problems: &mut Problems,
) -> BTreeMap<String, Unpacked> {
    let mut repositories = BTreeMap::new();
    for (id, archive) in cluster.archives() {
        let Some(cache) = cache else { continue };
        match cache.unpack(&archive.path, archive.folder.as_deref()) {
            Ok(unpacked) => _ = repositories.insert(id.to_owned(), unpacked),
            Err(fault) => problems.push(lint::bad_archive(archive, &fault)),
        }
    }
    repositories
}

/// The files of the folder of boot programs by their path in it; none where the default
/// folder does not exist.
fn boot_programs(
    folder: Option<&Path>,
    cache: Option<&Path>,
) -> Result<BTreeMap<String, BootProgram>> {
    let default = || Some(cache.map(Path::to_owned).or_else(default_cache)?.join("boot-programs"));
    let default = default().filter(|folder| folder.is_dir());
    let Some(folder) = folder.map(Path::to_owned).or(default) else {
        return Ok(BTreeMap::new());
    };
    let mut programs = BTreeMap::new();
    for entry in WalkDir::new(&folder).follow_links(true).sort_by_file_name() {
        let entry = entry.context("reading the boot programs")?;
        if !entry.file_type().is_file() {
            continue;
        }
        let path = entry.into_path();
        let below = path.strip_prefix(&folder).expect("the walk starts at the folder");
        let name = below.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
        let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        let (sha256, size) = Digest::of_reader(file, |_| ())
            .with_context(|| format!("reading {}", path.display()))?;
        programs.insert(name.to_owned(), BootProgram { entry: FileEntry { size, sha256 }, path });
    }
    Ok(programs)
}

/// nodeforge in the user's cache folder.
pub fn default_cache() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    fetch::default_folder(variable("XDG_CACHE_HOME").as_deref(), variable("HOME").as_deref())
}

fn warn_of_pending(cluster: &Cluster, images: &BTreeMap<String, CachedImages>, path: &Path) {
    let mut pending: Vec<&str> = cluster
        .kinds
        .iter()
        .map(|kind| kind.os.release.value.as_str())
        .filter(|release| !images.contains_key(*release))
        .collect();
    pending.sort_unstable();
    pending.dedup();
    if !pending.is_empty() {
        eprintln!(
            "warning: the installer's kernel and initrd of {} are pending: `nodeforge fetch {}`, then build again",
            pending.join(", "),
            path.display(),
        );
    }
}

/// What a person still has to do so that nodes get their secrets.
fn tell_of_secrets(cluster: &Cluster, secrets: &[KindSecrets]) {
    if secrets.iter().all(KindSecrets::is_empty) {
        return;
    }
    let what = match cluster.boot.secrets.value {
        // `serve` gives each armed node its token.
        SecretsVia::Token => return,
        SecretsVia::Media => {
            "copy secret/NODE.tar.gz to a filesystem labelled OEMDRV of each node, as \
             nodeforge-secrets.tar.gz.ks"
        }
        SecretsVia::Embedded => {
            "the kickstarts are secrets themselves, in secret/: whoever can fetch them has the keys"
        }
    };
    eprintln!("note: {what} (docs/rollout.md, \"Secrets\")");
}

fn print_json(built: &Built) -> Result<()> {
    let (state, generation, n_written, n_reused) = match built.published {
        Published::Unchanged { generation, n_mended } => ("unchanged", generation, n_mended, None),
        Published::New { generation, n_written, n_reused } => {
            ("new", generation, n_written, Some(n_reused))
        }
    };
    let changes = built.changes.as_ref();
    let names = |of: fn(&ListedChanges) -> Vec<&NodeName>| {
        changes.map(|changes| of(changes).into_iter().map(NodeName::as_str).collect::<Vec<_>>())
    };
    let json = json!({
        "state": state,
        "added": names(|changes| changes.added.iter().collect()),
        "removed": names(|changes| changes.removed.iter().collect()),
        "changed": names(|changes| changes.changed.iter().map(|(name, _)| name).collect()),
        "changed_layers": changes.map(|changes| &changes.layers),
        "generation": generation,
        "nodes": built.n_nodes,
        "artifacts": built.n_artifacts,
        "bytes": built.size.bytes(),
        "folders_written": n_written,
        "folders_reused": n_reused,
    });
    let mut out = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, &json)?;
    writeln!(out)?;
    Ok(())
}

fn describe(built: &Built, args: &BuildArgs, started: Instant) {
    let out = args.out.join("current");
    let totals = format!(
        "{} nodes, {} artefacts, {:.1} MiB",
        built.n_nodes,
        built.n_artifacts,
        built.size.bytes() as f64 / f64::from(1 << 20),
    );
    let seconds = started.elapsed().as_secs_f64();
    match built.published {
        Published::Unchanged { generation, n_mended } => {
            let mended = match n_mended {
                0 => String::new(),
                1 => "; 1 folder was damaged and made anew".to_owned(),
                n_mended => format!("; {n_mended} folders were damaged and made anew"),
            };
            eprintln!(
                "{}: generation {generation} is up to date: {totals}{mended} ({seconds:.2} s)",
                out.display()
            );
        }
        Published::New { generation, n_written, n_reused } => eprintln!(
            "{}: generation {generation}: {totals}; {n_written} folder{} written, {n_reused} as before ({seconds:.2} s{})",
            out.display(),
            if n_written == 1 { "" } else { "s" },
            peak_memory().map_or_else(String::new, |peak| format!(", {} MiB", peak.mib())),
        ),
    }
    if let Some(changes) = &built.changes {
        describe_changes(changes);
    }
}

/// Which nodes are not as they were, the ones that changed alike in one line.
fn describe_changes(changes: &ListedChanges) {
    let tell = |what: &str, nodes: Vec<&NodeName>, files: &str| {
        if !nodes.is_empty() {
            eprintln!("  {what} {}: {}{files}", nodes.len(), range::fold(nodes));
        }
    };
    tell("added", changes.added.iter().collect(), "");
    tell("removed", changes.removed.iter().collect(), "");
    let mut alike: BTreeMap<&[String], Vec<&NodeName>> = BTreeMap::new();
    for (node, files) in &changes.changed {
        alike.entry(files).or_default().push(node);
    }
    for (files, nodes) in alike {
        tell("changed", nodes, &format!(" ({})", files.join(", ")));
    }
    if !changes.layers.is_empty() {
        eprintln!("  shared layers that are new: {}", changes.layers.join(", "));
    }
}

/// The most memory that this process had (proc(5), VmHWM).
fn peak_memory() -> Option<ByteSize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(ByteSize::from_bytes(kib << 10))
}
