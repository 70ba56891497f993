//! Which packages there are: by a list that ships with nodeforge ([`is_known_package`]), which
//! is good for a warning, and by a repository's own metadata ([`read`]), which is good for an
//! error.
//!
//! Of the metadata only names are read: packages, what they provide, groups. Versions, files
//! and modules are left to dnf, so a package that a module stream hides counts as there.

mod known;
mod xml;

use std::collections::BTreeSet;
use std::io::{self, BufReader, Read};

use anyhow::{Context, Result, anyhow, bail};
use aws_lc_rs::digest::{SHA256, SHA384, SHA512, digest};
use flate2::read::MultiGzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::StreamingDecoder;

use crate::fetch::{Client, Location};

use self::xml::DataFile;

pub use self::known::{is_known_package, similar};

/// The names that one or several repositories offer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repodata {
    /// Binary packages.
    pub packages: BTreeSet<String>,
    /// What packages provide, such as `mail-server`, without versions.
    pub provides: BTreeSet<String>,
    /// Groups by id and by English name.
    pub groups: BTreeSet<String>,
    /// Environments by id and by English name.
    pub environments: BTreeSet<String>,
}

impl Repodata {
    /// Whether a kickstart's `%packages` may name `name`: a package with or without its
    /// architecture, something provided, `@GROUP` or `@^ENVIRONMENT`.
    pub fn has(&self, name: &str) -> bool {
        if let Some(environment) = name.strip_prefix("@^") {
            return self.environments.contains(environment);
        }
        if let Some(group) = name.strip_prefix('@') {
            return self.groups.contains(group);
        }
        self.packages.contains(name)
            || self.provides.contains(name)
            || self.packages.contains(known::without_arch(name))
    }

    /// Adds what another repository offers.
    pub fn extend(&mut self, other: Self) {
        self.packages.extend(other.packages);
        self.provides.extend(other.provides);
        self.groups.extend(other.groups);
        self.environments.extend(other.environments);
    }
}

/// The longest `repomd.xml`, in bytes; real ones have a few thousand.
const MAX_REPOMD_BYTES: u64 = 4 << 20;
/// The longest compressed file, in bytes; AppStream's primary has ten million.
const MAX_FILE_BYTES: u64 = 512 << 20;
/// The longest uncompressed file, in bytes, whatever it says of itself.
const MAX_OPEN_BYTES: u64 = 2 << 30;
/// What a decoder may take for its window, in bytes: that of `xz -9e` or `zstd --long`.
const MAX_WINDOW_BYTES: u64 = 128 << 20;

/// Reads the metadata of the repository at `location`, the folder that holds `repodata/`.
///
/// # Errors
///
/// Fails if there is no repository, if a file is not what `repomd.xml` says (SHA-256, SHA-384
/// or SHA-512), is compressed otherwise than by gzip, xz or zstd, or grows beyond all measure.
pub fn read(location: &Location, client: &Client) -> Result<Repodata> {
    let place = location.join("repodata/repomd.xml");
    let repomd = client.read(&place, MAX_REPOMD_BYTES)?.ok_or_else(|| {
        anyhow!("{location} is no package repository: there is no {place}; name the folder above `repodata`")
    })?;
    let files = xml::parse_repomd(&repomd[..]).with_context(|| format!("reading {place}"))?;
    let file = |kinds: &[&str]| kinds.iter().find_map(|kind| files.get(*kind));
    let mut repodata = Repodata::default();
    let primary = file(&["primary"])
        .ok_or_else(|| anyhow!("{place} lists no `primary`; make the repository anew"))?;
    with_contents(location, primary, client, |xml| xml::parse_primary(xml, &mut repodata))?;
    if let Some(comps) = file(&["group", "group_gz", "group_xz", "group_zst"]) {
        with_contents(location, comps, client, |xml| xml::parse_comps(xml, &mut repodata))?;
    }
    Ok(repodata)
}

/// Gives the checked and decompressed contents of `file` to `parse`.
fn with_contents(
    location: &Location,
    file: &DataFile,
    client: &Client,
    parse: impl FnOnce(&mut dyn io::BufRead) -> Result<()>,
) -> Result<()> {
    let is_below = |part: &str| !matches!(part, "" | "." | "..");
    if !file.href.split('/').all(is_below) {
        bail!("{location}: `{}` is no path inside the repository", file.href);
    }
    let place = location.join(&file.href);
    let max_bytes = file.size.map_or(MAX_FILE_BYTES, |size| size.min(MAX_FILE_BYTES));
    let bytes = client
        .read(&place, max_bytes)?
        .ok_or_else(|| anyhow!("{place} does not exist, though repomd.xml lists it"))?;
    ensure_checksum(&bytes, file).with_context(|| place.to_string())?;
    let open_bytes = file.open_size.map_or(MAX_OPEN_BYTES, |size| size.min(MAX_OPEN_BYTES));
    let contents = decoder(&file.href, &bytes)
        .and_then(|decoder| parse(&mut BufReader::new(Budget { decoder, left: open_bytes })));
    contents.with_context(|| format!("reading {place}"))
}

fn ensure_checksum(bytes: &[u8], file: &DataFile) -> Result<()> {
    let algorithm = match file.checksum_kind.as_str() {
        "sha256" => &SHA256,
        "sha384" => &SHA384,
        "sha512" => &SHA512,
        other => bail!(
            "its checksum is of the kind `{other}`, which proves nothing; \
             make the repository anew with `createrepo_c --checksum sha256`"
        ),
    };
    let digest = digest(algorithm, bytes);
    let actual: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    if !actual.eq_ignore_ascii_case(&file.checksum) {
        bail!(
            "it has the {} {actual}, repomd.xml says {}: the mirror is broken or in the middle \
             of an update, try again later",
            file.checksum_kind,
            file.checksum
        );
    }
    Ok(())
}

fn decoder<'a>(name: &str, bytes: &'a [u8]) -> Result<Box<dyn Read + 'a>> {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    Ok(match extension {
        "xml" => Box::new(bytes),
        "gz" => Box::new(MultiGzDecoder::new(bytes)),
        "xz" => {
            let max_kib = u32::try_from(MAX_WINDOW_BYTES / 1024)?;
            Box::new(XzReader::new_mem_limit(bytes, true, max_kib))
        }
        "zst" => Box::new(StreamingDecoder::new_with_max_window_size(bytes, MAX_WINDOW_BYTES)?),
        other => bail!(
            "it is compressed by `{other}`; nodeforge reads gz, xz and zst: make the repository \
             anew with `createrepo_c --general-compress-type gz`"
        ),
    })
}

/// A reader that fails, rather than ends, when more comes than was announced.
struct Budget<R> {
    decoder: R,
    /// Bytes.
    left: u64,
}

impl<R: Read> Read for Budget<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.decoder.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "it unpacks to more than it announces")
        })?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_knows_packages_provides_groups_and_environments_apart() {
        let set = |name: &str| BTreeSet::from([name.to_owned()]);
        let repodata = Repodata {
            packages: set("glibc"),
            provides: set("mail-server"),
            groups: set("core"),
            environments: set("minimal-environment"),
        };
        for (name, has) in [
            ("glibc", true),
            ("glibc.i686", true),
            ("mail-server", true),
            ("@core", true),
            ("@^minimal-environment", true),
            ("core", false),
            ("@glibc", false),
            ("@minimal-environment", false),
            ("@^core", false),
            ("postfix", false),
        ] {
            assert_eq!(repodata.has(name), has, "{name}");
        }
    }

    #[test]
    fn a_budget_fails_on_the_first_byte_too_many() {
        let read = |left| {
            let mut bytes = Vec::new();
            Budget { decoder: &b"abc"[..], left }.read_to_end(&mut bytes).map(|_| bytes)
        };
        assert_eq!(read(3).unwrap(), b"abc");
        assert_eq!(read(2).unwrap_err().to_string(), "it unpacks to more than it announces");
    }
}
