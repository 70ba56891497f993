//! What `check` finds beyond the resolver: templates, package names, secrets.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::cluster::{Cluster, RepoArchive};
use crate::diag::{Diagnostic, Problems, Span, codes};
use crate::fetch::{self, ArchiveError, Client, Location, Note, Retries};
use crate::media::boot_tree;
use crate::render::prepared::{self, Prepared};
use crate::repodata::{self, Repodata};
use crate::secrets::{self, KindSecrets, Reach};
use crate::source::Source;

/// Makes `cluster` ready to render, and reports every template that is wrong.
pub fn prepare<'a>(
    cluster: &'a Cluster,
    source: &mut Source,
    problems: &mut Problems,
) -> Option<Prepared<'a>> {
    prepared::prepare(cluster, &source.library, boot_tree::TEMPLATES, &mut source.map, problems)
}

/// Reads the secrets as far as the verb may.
pub fn secrets(cluster: &Cluster, reach: Reach, problems: &mut Problems) -> Vec<KindSecrets> {
    secrets::read_kinds(cluster, reach, secrets::now_secs(), problems)
}

/// Archives of packages that are not there or are none; nothing is unpacked.
pub fn archives(cluster: &Cluster, reach: Reach, problems: &mut Problems) {
    for (_, archive) in cluster.archives() {
        let Err(fault) = fetch::look_at_archive(&archive.path) else { continue };
        let diagnostic = bad_archive(archive, &fault);
        problems.push(match (&fault, reach) {
            // The machine that checks may not be the one that has the archive.
            (ArchiveError::Unreadable(..), Reach::FilesOnly) => Diagnostic {
                severity: reach.severity(),
                ..diagnostic.note("`build` needs it and will refuse")
            },
            _ => diagnostic,
        });
    }
}

/// An archive of packages that cannot be used.
pub fn bad_archive(archive: &RepoArchive, fault: &ArchiveError) -> Diagnostic {
    Diagnostic::error(codes::REPO_ARCHIVE, fault.to_string())
        .at(archive.path.span)
        .help(fault.help())
}

/// Package names nobody knows. EL8's installer asks about a missing package, and nobody is
/// there to answer: the node hangs.
pub fn packages(cluster: &Cluster, repositories: Option<&Repodata>, problems: &mut Problems) {
    for (package, span) in wanted_packages(cluster) {
        let name = package.strip_prefix('-').unwrap_or(package);
        if name.contains('*') {
            continue;
        }
        match repositories {
            Some(found) if !found.has(name) => {
                let message = format!("no repository has a package `{name}`");
                problems.push(with_similar(
                    Diagnostic::error(codes::NO_SUCH_PACKAGE, message).at(span),
                    name,
                ));
            }
            None if !repodata::is_known_package(name) => {
                let message = format!("`{name}` is no package known in EL8");
                let diagnostic = Diagnostic::warning(codes::UNKNOWN_PACKAGE, message).at(span);
                problems.push(with_similar(diagnostic, name).note(
                    "the list is not complete; `check --repodata URL` asks the repositories themselves",
                ));
            }
            _ => {}
        }
    }
}

fn with_similar(diagnostic: Diagnostic, name: &str) -> Diagnostic {
    match repodata::similar(name) {
        Some(similar) => diagnostic.help(format!("did you mean `{similar}`?")),
        None => diagnostic.help("write the name that `dnf info` knows"),
    }
}

/// Every package of every kind once, with the place of the first that wants it.
fn wanted_packages(cluster: &Cluster) -> BTreeMap<&str, Span> {
    let mut wanted = BTreeMap::new();
    for (package, span) in cluster.kinds.iter().flat_map(|kind| &kind.os.packages) {
        wanted.entry(package.as_str()).or_insert(*span);
    }
    wanted
}

/// What the repositories at `locations` (folders or URLs) hold together; `None` for none.
///
/// # Errors
///
/// Fails if one of them cannot be read, or is not what its own checksums say.
pub fn repositories(locations: &[String]) -> Result<Option<Repodata>> {
    let tell = |note: Note| eprintln!("{note}");
    let client = Client::new(Retries::DEFAULT, &tell);
    let mut all: Option<Repodata> = None;
    for text in locations {
        let location: Location =
            text.parse().with_context(|| format!("reading --repodata {text}"))?;
        let found = repodata::read(&location, &client)?;
        match &mut all {
            Some(all) => all.extend(found),
            None => all = Some(found),
        }
    }
    Ok(all)
}
