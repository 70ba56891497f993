//! `nodeforge fetch`: the installer's images of a cluster's releases, into the cache.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use crate::cli::FetchArgs;
use crate::cluster::Tree;
use crate::commands::{Outcome, build, load};
use crate::diag::Color;
use crate::fetch::{
    self, Client, Fetched, Freshness, ImageName, ImageSource, Location, Note, Request, Retries,
    Trust,
};

/// One release that nodes of the cluster run, by its `os.release`, `os.mirror`, `os.tree`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    pub release: String,
    pub mirror: String,
    pub tree: String,
}

/// Where the images are taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImagesFrom {
    /// The mirror's tree, by its unsigned `.treeinfo`.
    Tree,
    /// The mirror's boot ISO, by its signature.
    SignedIso,
    /// This ISO, by its signature, with the `CHECKSUM` file if it does not lie beside it.
    IsoFile { path: PathBuf, checksum: Option<PathBuf> },
}

/// How standard output looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One path a line.
    Paths,
    Json,
}

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct FetchOptions {
    pub releases: BTreeSet<Release>,
    pub from: ImagesFrom,
    /// Images beside the kernel and the initramfs.
    pub also: BTreeSet<ImageName>,
    pub freshness: Freshness,
    pub cache: PathBuf,
    /// AlmaLinux's public key; looked for on the mirror if not given.
    pub key: Option<PathBuf>,
    pub format: Format,
}

/// The verb: the images of every release that nodes of the cluster run.
///
/// # Errors
///
/// Fails on the first release that cannot be had; those before it are in the cache.
pub fn verb(args: &FetchArgs, color: Color) -> Result<Outcome> {
    let Some(loaded) = load::resolved(&args.cluster, color)? else { return Ok(Outcome::Problems) };
    let cache = args.cache.clone().or_else(build::default_cache);
    let releases = loaded.cluster.kinds.iter().map(|kind| Release {
        release: kind.os.release.value.clone(),
        mirror: kind.os.mirror.value.clone(),
        tree: match kind.os.tree {
            Tree::Kickstart => "kickstart".to_owned(),
            Tree::Os => "os".to_owned(),
        },
    });
    let also = [(args.install_img, ImageName::InstallImg), (args.boot_iso, ImageName::BootIso)];
    let options = FetchOptions {
        releases: releases.collect(),
        from: match (&args.iso, args.signed) {
            (Some(path), _) => {
                ImagesFrom::IsoFile { path: path.clone(), checksum: args.checksum.clone() }
            }
            (None, true) => ImagesFrom::SignedIso,
            (None, false) => ImagesFrom::Tree,
        },
        also: also.into_iter().filter(|(is_wanted, _)| *is_wanted).map(|(_, name)| name).collect(),
        freshness: if args.again { Freshness::FetchAnew } else { Freshness::Cached },
        cache: cache.context("there is no cache folder: give one with --cache")?,
        key: args.key.clone(),
        format: if args.json { Format::Json } else { Format::Paths },
    };
    run(&options, &mut std::io::stdout().lock(), &|note| eprintln!("{note}"))?;
    Ok(Outcome::Done)
}

/// Fetches, and prints what is then in the cache to `out`; tells `tell` what goes on.
///
/// # Errors
///
/// Fails on the first release that cannot be had; those before it are in the cache.
pub fn run(options: &FetchOptions, out: &mut dyn Write, tell: &dyn Fn(Note)) -> Result<()> {
    if matches!(options.from, ImagesFrom::IsoFile { .. }) && options.releases.len() > 1 {
        let releases: Vec<&str> = options.releases.iter().map(|r| r.release.as_str()).collect();
        bail!("one ISO cannot serve several releases ({})", releases.join(", "));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("reading the clock")?;
    let client = Client::new(Retries::DEFAULT, tell);
    let mut all = Vec::new();
    for release in &options.releases {
        let request = request(options, release)?;
        let key = options.key.as_deref();
        let trust = Trust::almalinux(&request.mirror, key, now.as_secs());
        all.push(fetch::fetch(&request, &trust, &client)?);
    }
    print(&all, options.format, out).context("writing to standard output")
}

fn request(options: &FetchOptions, release: &Release) -> Result<Request> {
    let mirror: Location = release.mirror.parse().context("reading `os.mirror`")?;
    let source = match &options.from {
        ImagesFrom::Tree => ImageSource::Tree(release.tree.clone()),
        ImagesFrom::SignedIso => ImageSource::MirrorIso,
        ImagesFrom::IsoFile { path, checksum } => {
            ImageSource::IsoFile { path: path.clone(), checksum: checksum.clone() }
        }
    };
    Ok(Request {
        release: release.release.clone(),
        mirror,
        source,
        also: options.also.clone(),
        freshness: options.freshness,
        cache: options.cache.clone(),
    })
}

fn print(all: &[Fetched], format: Format, out: &mut dyn Write) -> Result<()> {
    match format {
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, all)?;
            writeln!(out)?;
        }
        Format::Paths => {
            for cached in all.iter().flat_map(|fetched| fetched.images.values()) {
                writeln!(out, "{}", cached.path.display())?;
            }
        }
    }
    Ok(())
}
