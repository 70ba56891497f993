//! What one build made: every public artefact with its size and digest.
//!
//! A manifest says nothing about time, host, user or path, so that equal builds have equal
//! manifests. Secret files are in a list of their own, which lies beside them. Start with
//! [`Manifest`]; [`compare`] holds it against what was found on a disk.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::ops::Index;
use std::sync::Arc;

use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::format::digest::{Digest, DigestWriter, Hasher};
use crate::tree::TreePath;

/// The format of manifests that this version writes, and the only one it reads.
pub const FORMAT: u32 = 1;

/// Where the layers' digests stand, seen from the root of a generation.
pub const LAYER_SUMS: &str = "layers/SHA256SUMS";

/// One file that a build made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Artifact {
    /// Its path, seen from the folder it is in: `pxelinux.cfg/default`.
    pub name: String,
    pub file: FileEntry,
}

/// Passes an artefact's bytes on to `out`, and knows its size and digest in the end.
pub struct ArtifactWriter<W>(String, DigestWriter<W>);

impl<W: Write> ArtifactWriter<W> {
    pub fn new(name: &str, out: W) -> Self {
        Self(name.to_owned(), DigestWriter::new(out))
    }

    /// The underlying writer and the artefact whose bytes it took.
    pub fn finish(self) -> (W, Artifact) {
        let (out, size, sha256) = self.1.finish();
        (out, Artifact { name: self.0, file: FileEntry { size, sha256 } })
    }
}

impl<W: Write> Write for ArtifactWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.1.flush()
    }
}

/// Size in bytes and digest of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileEntry {
    pub size: u64,
    pub sha256: Digest,
}

impl FileEntry {
    pub fn of(bytes: &[u8]) -> Self {
        Self { size: bytes.len() as u64, sha256: Digest::of(bytes) }
    }
}

/// The files of one folder of the store, which is named by its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folder {
    pub digest: Digest,
    pub files: Files,
}

/// Files by path inside their folder, in the order of the paths. Thousands of folders have files
/// of the same names, which are kept once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files(Box<[(Arc<str>, FileEntry)]>);

impl Files {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &FileEntry)> {
        self.0.iter().map(|(name, file)| (&**name, file))
    }

    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|(name, _)| name)
    }

    pub fn contains_key(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub fn get(&self, name: &str) -> Option<&FileEntry> {
        self.get_key_value(name).map(|(_, file)| file)
    }

    /// A file with its name.
    pub fn get_key_value(&self, name: &str) -> Option<&(Arc<str>, FileEntry)> {
        self.position(name).map(|at| &self.0[at])
    }

    /// Which of the files it is, by the order of the paths.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.0.binary_search_by(|(known, _)| (**known).cmp(name)).ok()
    }

    /// The file at that [position](Self::position), with its name.
    pub fn at(&self, position: usize) -> &(Arc<str>, FileEntry) {
        &self.0[position]
    }
}

impl Index<&str> for Files {
    type Output = FileEntry;

    fn index(&self, name: &str) -> &FileEntry {
        self.get(name).expect("the folder has a file of that name")
    }
}

impl From<BTreeMap<Arc<str>, FileEntry>> for Files {
    fn from(files: BTreeMap<Arc<str>, FileEntry>) -> Self {
        Self(files.into_iter().collect())
    }
}

/// A name that many folders have in common is the same one in memory.
pub fn shared_name(name: &str) -> Arc<str> {
    thread_local! {
        static NAMES: RefCell<BTreeSet<Arc<str>>> = const { RefCell::new(BTreeSet::new()) };
    }
    // Names in subfolders are those of one machine each.
    if name.contains('/') {
        return name.into();
    }
    NAMES.with_borrow_mut(|names| match names.get(name) {
        Some(known) => Arc::clone(known),
        None => {
            let name: Arc<str> = name.into();
            names.insert(Arc::clone(&name));
            name
        }
    })
}

/// A name as it is read, without a copy of its own where it is known.
struct SharedName(Arc<str>);

impl<'de> Deserialize<'de> for SharedName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;

        impl Visitor<'_> for Name {
            type Value = SharedName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a file's name")
            }

            fn visit_str<E>(self, name: &str) -> Result<SharedName, E> {
                Ok(SharedName(shared_name(name)))
            }
        }

        deserializer.deserialize_str(Name)
    }
}

impl Serialize for Files {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Files {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Files;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("files by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Files, A::Error> {
                let mut files: Vec<(Arc<str>, FileEntry)> = Vec::with_capacity(4);
                let mut is_sorted = true;
                while let Some((SharedName(name), file)) = map.next_entry()? {
                    is_sorted &= files.last().is_none_or(|(last, _)| *last < name);
                    files.push((name, file));
                }
                if !is_sorted {
                    // Not our writing: of equal names the last one counts, as in any map.
                    let by_name: BTreeMap<Arc<str>, FileEntry> = files.into_iter().collect();
                    files = by_name.into_iter().collect();
                }
                Ok(Files(files.into()))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

impl Folder {
    /// The folder of `files` by [shared name](shared_name); its digest is that of the lines
    /// "name size sha256", in the order of the names.
    pub fn of(files: BTreeMap<Arc<str>, FileEntry>) -> Self {
        let files = Files::from(files);
        let mut lines = Hasher::default();
        for (name, file) in files.iter() {
            lines.update(format!("{name} {} {}\n", file.size, file.sha256).as_bytes());
        }
        Self { digest: lines.finish(), files }
    }

    /// The names of the files that the two do not share.
    pub fn differing<'f>(&'f self, other: &'f Folder) -> BTreeSet<&'f str> {
        let (ours, theirs) = (&self.files, &other.files);
        let names = ours.keys().chain(theirs.keys());
        names.filter(|name| ours.get(name) != theirs.get(name)).collect()
    }
}

/// What a node gets, and what is known about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEntry {
    pub roles: Vec<String>,
    /// In the order in which they are unpacked; the node's own comes after them.
    pub layers: Vec<String>,
    /// Of all its NICs that have one; the boot NIC's first.
    pub macs: Vec<String>,
    /// The release of AlmaLinux it installs.
    pub release: String,
    pub folder: Folder,
    /// What the boot server needs to know; `None` in trees of versions that did not serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<NodeBoot>,
}

/// How a node boots, as far as nothing secret is needed for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeBoot {
    /// The address of its boot NIC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rack: Option<String>,
    /// The version of DAOS that it serves with; `None` of a node that is no server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daos: Option<String>,
    /// The installer's kernel arguments, as its boot menus have them.
    pub arguments: String,
    /// How its boot loaders hand over to the disk, as the cluster file calls it.
    pub disk_boot: String,
    /// Whether its secrets are fetched with a token.
    pub needs_token: bool,
}

/// What the boot server needs to know of the whole cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterBoot {
    /// Where the nodes look for the boot tree, without a slash at the end.
    pub url: String,
    /// The DNS domain of the nodes; empty if there is none.
    pub domain: String,
    /// Those that are given by address.
    pub ntp: Vec<Ipv4Addr>,
    /// The subnets that nodes boot from, in the order of their names.
    pub nets: Vec<BootNet>,
}

/// A subnet that nodes boot from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootNet {
    pub name: String,
    pub network: Ipv4Addr,
    pub netmask: Ipv4Addr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Ipv4Addr>,
    pub dns: Vec<Ipv4Addr>,
}

/// What firmware and boot loaders get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PxeEntry {
    pub folder: Folder,
    /// Installer images that boot entries name and that are not there yet, by path inside
    /// the folder.
    pub pending: BTreeSet<String>,
}

/// Whether an equal build gives equal bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reproducible {
    Yes,
    /// Some artefact is the work of an installer that makes up identifiers as it runs.
    No,
}

/// Everything public that a build made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    /// The version of nodeforge that wrote it.
    pub nodeforge: String,
    pub cluster: String,
    pub reproducible: Reproducible,
    /// The codes of refusals that the cluster file lets through.
    pub allowed: BTreeSet<String>,
    pub nodes: BTreeMap<String, NodeEntry>,
    pub layers: BTreeMap<String, Folder>,
    pub pxe: PxeEntry,
    /// `None` in trees of versions that did not serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<ClusterBoot>,
    /// Files that belong to the generation itself, by path from its root.
    pub files: BTreeMap<String, FileEntry>,
}

impl Manifest {
    /// A manifest of this version of nodeforge with nothing in it yet.
    pub fn new(cluster: &str, reproducible: Reproducible) -> Self {
        Self {
            format: FORMAT,
            nodeforge: env!("CARGO_PKG_VERSION").to_owned(),
            cluster: cluster.to_owned(),
            reproducible,
            allowed: BTreeSet::new(),
            nodes: BTreeMap::new(),
            layers: BTreeMap::new(),
            pxe: PxeEntry { folder: Folder::of(BTreeMap::new()), pending: BTreeSet::new() },
            boot: None,
            files: BTreeMap::new(),
        }
    }

    /// Reads a manifest back.
    ///
    /// # Errors
    ///
    /// Fails for a format other than [`FORMAT`], and for names that would lead out of the
    /// folders they are in: whoever reads a manifest may open what it names.
    pub fn from_json(json: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Self = parse(json)?;
        require_format(manifest.format)?;
        let single_parts = manifest.nodes.keys().chain(manifest.layers.keys());
        if let Some(name) = single_parts.clone().find(|name| name.contains('/')) {
            return Err(ManifestError::Path(name.clone()));
        }
        let own = single_parts.chain(manifest.files.keys()).map(String::as_str);
        check_paths(own)?;
        manifest.folders().try_for_each(|(_, folder)| check_paths(folder.files.keys()))?;
        Ok(manifest)
    }

    /// Writes the manifest as JSON with a line end, the same for equal manifests.
    ///
    /// # Errors
    ///
    /// Fails if `out` fails.
    pub fn write_json<W: Write>(&self, out: W) -> io::Result<()> {
        write_json(self, out)
    }

    /// Each folder of the store that this build uses, with its path from the generation's
    /// root: `nodes/node0`, `layers/common`, `pxe`.
    pub fn folders(&self) -> impl Iterator<Item = (String, &Folder)> {
        let layers = self.layers.iter().map(|(name, folder)| (format!("layers/{name}"), folder));
        let nodes = self.nodes.iter().map(|(name, node)| (format!("nodes/{name}"), &node.folder));
        layers.chain(nodes).chain([("pxe".to_owned(), &self.pxe.folder)])
    }

    /// How much [`artifacts`](Self::artifacts) there are, without making their names.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        self.files.iter().for_each(|(name, file)| totals.add("", name, file));
        for (place, folder) in self.folders() {
            folder.files.iter().for_each(|(name, file)| totals.add(&place, name, file));
        }
        totals
    }

    /// Each public artefact with its path from the generation's root, in a fixed order. The
    /// manifest itself is not among them.
    pub fn artifacts(&self) -> impl Iterator<Item = Artifact> + '_ {
        let own =
            self.files.iter().map(|(name, file)| Artifact { name: name.clone(), file: *file });
        own.chain(self.folders().flat_map(|(place, folder)| {
            let files: Vec<Artifact> = folder
                .files
                .iter()
                .map(|(name, file)| Artifact { name: format!("{place}/{name}"), file: *file })
                .collect();
            files
        }))
    }
}

/// What lists of artefacts add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub n_artifacts: usize,
    pub n_bytes: u64,
    /// Of their paths.
    pub n_name_bytes: u64,
}

impl Totals {
    fn add(&mut self, place: &str, name: &str, file: &FileEntry) {
        let n_slashes = usize::from(!place.is_empty());
        self.n_artifacts += 1;
        // A list of somebody else's may say anything.
        self.n_bytes = self.n_bytes.saturating_add(file.size);
        self.n_name_bytes += (place.len() + n_slashes + name.len()) as u64;
    }
}

/// The text of `layers/SHA256SUMS`: the files of `layers` with paths seen from `layers/`.
pub fn layer_sums(layers: &BTreeMap<String, Folder>) -> String {
    let artifact_of = |layer: &str, (name, file): (&str, &FileEntry)| Artifact {
        name: format!("{layer}/{name}"),
        file: *file,
    };
    sha256sums(layers.iter().flat_map(|(layer, folder)| {
        folder.files.iter().map(move |entry| artifact_of(layer, entry))
    }))
}

/// Lines that `sha256sum -c` accepts.
pub fn sha256sums(artifacts: impl IntoIterator<Item = Artifact>) -> String {
    let mut lines = Vec::new();
    write_sha256sums(artifacts, &mut lines).expect("memory takes all that is written");
    String::from_utf8(lines).expect("digests and names are text")
}

/// Writes lines that `sha256sum -c` accepts.
///
/// # Errors
///
/// Fails if `out` fails.
pub fn write_sha256sums<W: Write>(
    artifacts: impl IntoIterator<Item = Artifact>,
    mut out: W,
) -> io::Result<()> {
    for Artifact { name, file } in artifacts {
        writeln!(out, "{}  {name}", file.sha256)?;
    }
    Ok(())
}

/// Everything secret that a build made; lies beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretManifest {
    pub format: u32,
    /// By path inside `secret/`.
    pub files: BTreeMap<String, SecretEntry>,
}

/// A secret file and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretEntry {
    pub node: String,
    pub size: u64,
    pub sha256: Digest,
}

impl SecretEntry {
    pub fn file(&self) -> FileEntry {
        FileEntry { size: self.size, sha256: self.sha256 }
    }
}

impl SecretManifest {
    pub fn new(files: BTreeMap<String, SecretEntry>) -> Self {
        Self { format: FORMAT, files }
    }

    /// Reads a list of secrets back; see [`Manifest::from_json`].
    pub fn from_json(json: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Self = parse(json)?;
        require_format(manifest.format)?;
        check_paths(manifest.files.keys().map(String::as_str))?;
        Ok(manifest)
    }

    /// Writes the list as JSON with a line end.
    ///
    /// # Errors
    ///
    /// Fails if `out` fails.
    pub fn write_json<W: Write>(&self, out: W) -> io::Result<()> {
        write_json(self, out)
    }

    /// How much of them there are.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        self.files.iter().for_each(|(name, secret)| totals.add("", name, &secret.file()));
        totals
    }

    /// Each secret file with its path inside `secret/`.
    pub fn artifacts(&self) -> impl Iterator<Item = Artifact> + '_ {
        self.files.iter().map(|(name, secret)| Artifact { name: name.clone(), file: secret.file() })
    }
}

/// Whether `name` can be the name of an artefact: a clean relative path that `sha256sum`
/// prints as it is.
pub fn is_clean_name(name: &str) -> bool {
    TreePath::is_clean(name) && !name.contains('\\')
}

/// A manifest that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("it is of format {0}, and this version of nodeforge reads format {FORMAT}")]
    Format(u32),
    #[error("`{0}` is no name of an artefact")]
    Path(String),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// What does not parse may be of another format, which says more than what was expected.
fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, ManifestError> {
    #[derive(Deserialize)]
    struct OnlyFormat {
        format: u32,
    }
    serde_json::from_slice(json).map_err(|fault| match serde_json::from_slice(json) {
        Ok(OnlyFormat { format }) if format != FORMAT => ManifestError::Format(format),
        _ => fault.into(),
    })
}

fn require_format(format: u32) -> Result<(), ManifestError> {
    match format {
        FORMAT => Ok(()),
        _ => Err(ManifestError::Format(format)),
    }
}

fn check_paths<'a>(mut names: impl Iterator<Item = &'a str>) -> Result<(), ManifestError> {
    match names.find(|name| !is_clean_name(name)) {
        None => Ok(()),
        Some(name) => Err(ManifestError::Path(name.to_owned())),
    }
}

fn write_json<T: Serialize, W: Write>(value: &T, mut out: W) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut out, value)?;
    out.write_all(b"\n")
}

/// Where files and a list of them disagree, each by path in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// In the list and not there.
    pub missing: Vec<String>,
    /// There with another size or digest.
    pub changed: Vec<String>,
    /// There and not in the list.
    pub foreign: Vec<String>,
}

impl Comparison {
    pub fn is_equal(&self) -> bool {
        *self == Self::default()
    }
}

/// Compares what should be there with what was found.
pub fn compare(
    expected: &BTreeMap<String, FileEntry>,
    found: &BTreeMap<String, FileEntry>,
) -> Comparison {
    let mut comparison = Comparison::default();
    for (path, file) in expected {
        match found.get(path) {
            None => comparison.missing.push(path.clone()),
            Some(found) if found != file => comparison.changed.push(path.clone()),
            Some(_) => {}
        }
    }
    let foreign = found.keys().filter(|path| !expected.contains_key(*path));
    comparison.foreign.extend(foreign.cloned());
    comparison
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files<K, const N: usize>(files: [(&str, &str); N]) -> BTreeMap<K, FileEntry>
    where
        K: Ord + for<'name> From<&'name str>,
    {
        files.map(|(name, text)| (K::from(name), FileEntry::of(text.as_bytes()))).into()
    }

    fn sample() -> Manifest {
        let mut manifest = Manifest::new("lab3", Reproducible::Yes);
        manifest.nodeforge = "0.0.0".to_owned();
        manifest.allowed.insert("DAOS-706".to_owned());
        let node = NodeEntry {
            roles: vec!["server".into(), "admin".into()],
            layers: vec!["common".into(), "server".into()],
            macs: vec!["52:54:00:03:00:11".into()],
            release: "8.9".into(),
            folder: Folder::of(files([("kickstart.ks", "text\n")])),
            boot: None,
        };
        manifest.nodes.insert("node0".into(), node);
        manifest.layers.insert("common".into(), Folder::of(files([("layer.tar.gz", "c")])));
        manifest.pxe.folder = Folder::of(files([("boot.ipxe", "#!ipxe\n")]));
        manifest.pxe.pending.insert("images/8.9/vmlinuz".into());
        let sums = layer_sums(&manifest.layers);
        manifest.files.insert(LAYER_SUMS.into(), FileEntry::of(sums.as_bytes()));
        manifest
    }

    fn json(manifest: &Manifest) -> String {
        let mut json = Vec::new();
        manifest.write_json(&mut json).unwrap();
        String::from_utf8(json).unwrap()
    }

    #[test]
    fn a_manifest_is_this_json() {
        let expected = r##"{
  "format": 1,
  "nodeforge": "0.0.0",
  "cluster": "lab3",
  "reproducible": "yes",
  "allowed": [
    "DAOS-706"
  ],
  "nodes": {
    "node0": {
      "roles": [
        "server",
        "admin"
      ],
      "layers": [
        "common",
        "server"
      ],
      "macs": [
        "52:54:00:03:00:11"
      ],
      "release": "8.9",
      "folder": {
        "digest": "NODE",
        "files": {
          "kickstart.ks": {
            "size": 5,
            "sha256": "KICKSTART"
          }
        }
      }
    }
  },
  "layers": {
    "common": {
      "digest": "COMMON",
      "files": {
        "layer.tar.gz": {
          "size": 1,
          "sha256": "LAYER"
        }
      }
    }
  },
  "pxe": {
    "folder": {
      "digest": "PXE",
      "files": {
        "boot.ipxe": {
          "size": 7,
          "sha256": "BOOT"
        }
      }
    },
    "pending": [
      "images/8.9/vmlinuz"
    ]
  },
  "files": {
    "layers/SHA256SUMS": {
      "size": 86,
      "sha256": "SUMS"
    }
  }
}
"##;
        let digest = |text: &str| Digest::of(text.as_bytes()).to_string();
        let folder =
            |name: &str, text: &str| digest(&format!("{name} {} {}\n", text.len(), digest(text)));
        let expected = expected
            .replace("NODE", &folder("kickstart.ks", "text\n"))
            .replace("KICKSTART", &digest("text\n"))
            .replace("COMMON", &folder("layer.tar.gz", "c"))
            .replace("LAYER", &digest("c"))
            .replace("PXE", &folder("boot.ipxe", "#!ipxe\n"))
            .replace("BOOT", &digest("#!ipxe\n"))
            .replace("\"SUMS\"", &format!("\"{}\"", digest(&layer_sums(&sample().layers))));
        assert_eq!(json(&sample()), expected);
    }

    #[test]
    fn a_manifest_reads_back_equal() {
        assert_eq!(Manifest::from_json(json(&sample()).as_bytes()).unwrap(), sample());
    }

    #[test]
    fn sums_are_in_the_format_of_sha256sum() {
        let digest = |text: &str| Digest::of(text.as_bytes());
        let expected = format!(
            "{}  layers/SHA256SUMS\n{}  layers/common/layer.tar.gz\n\
             {}  nodes/node0/kickstart.ks\n{}  pxe/boot.ipxe\n",
            digest(&format!("{}  common/layer.tar.gz\n", digest("c"))),
            digest("c"),
            digest("text\n"),
            digest("#!ipxe\n"),
        );
        assert_eq!(sha256sums(sample().artifacts()), expected);
    }

    #[test]
    fn a_manifest_of_another_format_is_refused_whatever_it_holds() {
        let fault = Manifest::from_json(b"{\"format\": 2, \"knots\": []}").unwrap_err();
        assert_eq!(
            fault.to_string(),
            "it is of format 2, and this version of nodeforge reads format 1"
        );
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for (good, bad) in [
            ("kickstart.ks", "../kickstart.ks"),
            ("kickstart.ks", "/etc/shadow"),
            ("kickstart.ks", "a\\\\b"),
            ("\"node0\"", "\"..\""),
            ("\"node0\"", "\"a/b\""),
            ("\"common\": {", "\"a/b\": {"),
            ("layers/SHA256SUMS", "layers/../x"),
        ] {
            let fault = Manifest::from_json(json(&sample()).replace(good, bad).as_bytes());
            assert!(matches!(fault, Err(ManifestError::Path(_))), "{bad}");
        }
    }

    #[test]
    fn a_folder_is_named_by_its_files_names_sizes_and_digests() {
        let folder = |name, text| Folder::of(files([(name, text), ("other", "")])).digest;
        assert_eq!(folder("a", "1"), folder("a", "1"));
        assert_ne!(folder("a", "1"), folder("b", "1"));
        assert_ne!(folder("a", "1"), folder("a", "2"));
    }

    #[test]
    fn an_artifact_is_digested_as_it_is_written() {
        let mut writer = ArtifactWriter::new("kickstart.ks", Vec::new());
        writer.write_all(b"te").unwrap();
        writer.write_all(b"xt\n").unwrap();
        let (out, artifact) = writer.finish();
        let file = FileEntry::of(b"text\n");
        let expected = Artifact { name: "kickstart.ks".into(), file };
        assert_eq!((out, artifact), (b"text\n".to_vec(), expected));
    }

    #[test]
    fn comparing_names_what_is_missing_changed_and_foreign() {
        let expected = files([("a", "1"), ("b", "2"), ("c", "3")]);
        let found = files([("b", "2"), ("c", "33"), ("d", "4")]);
        let comparison = compare(&expected, &found);
        assert_eq!(
            comparison,
            Comparison {
                missing: vec!["a".into()],
                changed: vec!["c".into()],
                foreign: vec!["d".into()]
            }
        );
        assert!(!comparison.is_equal() && compare(&found, &found).is_equal());
    }
}
