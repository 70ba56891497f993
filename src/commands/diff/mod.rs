//! `nodeforge diff`: what a build would change, or how two generations differ.

mod print;

use anyhow::{Context, Result, bail};

use crate::build::Preview;
use crate::changes::{self, Changes, Patches};
use crate::cli::{ClusterArgs, Compared, DiffArgs};
use crate::commands::build::{Folders, Ingredients};
use crate::commands::{Outcome, build, lint, load, report};
use crate::diag::{Color, Problems};
use crate::output::Stored;
use crate::plan::Plan;
use crate::secrets::Reach;

/// The two sides, the older first.
enum Sides<'a> {
    Generations(&'a Compared, &'a Compared),
    Build(&'a Compared, ClusterArgs),
}

pub fn run(args: &DiffArgs, color: Color) -> Result<Outcome> {
    let patches = if args.patch { Patches::Kept } else { Patches::Counted };
    match sides(args)? {
        Sides::Generations(old, new) => {
            let (old, new) = (generation(args, old)?, generation(args, new)?);
            let changes = changes::compare(&old, &new, patches)?;
            let side = print::New::Generation(new.number());
            tell(args, &changes, old.number(), &side)
        }
        Sides::Build(old, cluster) => {
            let old = generation(args, old)?;
            match of_build(args, &cluster, &old, patches, color)? {
                Some(changes) => {
                    tell(args, &changes, old.number(), &print::New::Cluster(&cluster.cluster))
                }
                None => Ok(Outcome::Trouble),
            }
        }
    }
}

fn sides(args: &DiffArgs) -> Result<Sides<'_>> {
    let cluster =
        |path: &std::path::PathBuf| ClusterArgs { cluster: path.clone(), site: args.site.clone() };
    let sides = match args.sides.as_slice() {
        [Compared::Cluster(path)] => Sides::Build(&Compared::Current, cluster(path)),
        [Compared::Current] => bail!("`current` alone: name what to compare it with"),
        [number] => Sides::Generations(number, &Compared::Current),
        [Compared::Cluster(path), other] => bail!(
            "the older side comes first, and a cluster file is never older: {}",
            match other {
                Compared::Cluster(_) =>
                    "build one of the two and compare it with the other".to_owned(),
                _ => format!("`nodeforge diff … {}`", path.display()),
            }
        ),
        [old, Compared::Cluster(path)] => Sides::Build(old, cluster(path)),
        [old, new] => Sides::Generations(old, new),
        _ => bail!("one or two things can be compared"),
    };
    let is_of_build = args.site.is_some() || args.cache.is_some() || args.boot_programs.is_some();
    if matches!(sides, Sides::Generations(..)) && is_of_build {
        bail!(
            "--site, --cache and --boot-programs say how to build a cluster file, and none is named"
        );
    }
    Ok(sides)
}

fn generation(args: &DiffArgs, which: &Compared) -> Result<Stored> {
    match which {
        Compared::Generation(number) => Stored::open(&args.out, *number),
        _ => Stored::current(&args.out),
    }
}

/// `None` if the cluster file cannot be built, which has been told then.
fn of_build(
    args: &DiffArgs,
    cluster_args: &ClusterArgs,
    old: &Stored,
    patches: Patches,
    color: Color,
) -> Result<Option<Changes>> {
    let Some(mut loaded) = load::resolved(cluster_args, color)? else { return Ok(None) };
    let cluster = &loaded.cluster;
    let sources = build::sources(&loaded.source);
    let mut problems = Problems::default();
    let prepared = lint::prepare(cluster, &mut loaded.source, &mut problems);
    let secrets = lint::secrets(cluster, Reach::Everything, &mut problems);
    let errors: Vec<_> =
        problems.into_sorted().into_iter().filter(|problem| problem.is_error()).collect();
    let (Some(prepared), true) = (prepared, errors.is_empty()) else {
        report::draw(&errors, &loaded.source.map, color)?;
        eprintln!("{}: {}", cluster_args.cluster.display(), report::summary(&errors));
        return Ok(None);
    };
    let plan = Plan::of(cluster, &load::selection(cluster, None)?);
    let mut problems = Problems::default();
    let folders =
        Folders { cache: args.cache.as_deref(), boot_programs: args.boot_programs.as_deref() };
    let read = (&loaded.source.library, &sources);
    let ingredients = Ingredients::gather(cluster, read, secrets, &folders, &mut problems)?;
    if problems.has_errors() {
        report::draw(&problems.into_sorted(), &loaded.source.map, color)?;
        return Ok(None);
    }
    let input = ingredients.input(cluster, &plan, &prepared);
    match Preview::new(&input, old) {
        Ok(preview) => changes::compare(old, &preview, patches).map(Some),
        Err(fault) => {
            let problems = fault.into_problems()?;
            report::draw(&problems, &loaded.source.map, color)?;
            Ok(None)
        }
    }
}

fn tell(args: &DiffArgs, changes: &Changes, old: u64, new: &print::New<'_>) -> Result<Outcome> {
    if args.json {
        print::json(changes, old, new)?;
    } else if changes.is_empty() {
        let packed =
            if changes.is_packed_anew { "; the same files are packed otherwise" } else { "" };
        eprintln!("{}: {}{packed}", args.out.display(), print::nothing_differs(old, new));
    } else {
        print::text(changes, old, new).context("printing the changes")?;
    }
    if changes.unread_secrets > 0 {
        eprintln!(
            "note: the secrets of {} nodes are another user's and were not compared",
            changes.unread_secrets
        );
    }
    Ok(if changes.is_empty() { Outcome::Done } else { Outcome::Problems })
}
