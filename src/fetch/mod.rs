//! Fetches a release's installer images from a mirror or an ISO into a cache, and knows which
//! of them are whole.
//!
//! Start with [`fetch`]; [`cached`] is what a build asks, and [`ArchiveCache`] for repositories
//! that come as archives. Nothing enters the cache before its
//! digest was found right and its first bytes are those of a kernel, an initramfs and so on.
//! How far a digest can be trusted depends on the [`ImageSource`]:
//!
//! * from a tree, digests come from its `.treeinfo`, which is unsigned. Over https that is as
//!   good as the mirror; over **plain http it is integrity, not authenticity**: whoever can
//!   change an image on the way can change its digest too.
//! * from an ISO, the digest comes from the `CHECKSUM` file with AlmaLinux's signature, or is
//!   pinned here: genuine whatever the way. That is the choice for mirrors over plain http.

mod archive;
mod cache;
mod checksum;
mod http;
pub mod iso;
mod location;
pub mod magic;
mod part;
mod signature;
mod treeinfo;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde::Serialize;

use crate::format::digest::Digest;
use crate::progress::{Progress, Unit};

use self::cache::ReleaseFolder;
use self::part::Part;
use self::signature::SignatureError;
use self::treeinfo::TreeInfo;

pub use self::archive::{ArchiveCache, ArchiveError, Unpacked, look as look_at_archive};
pub use self::cache::{
    Assurance, CachedImage, CachedImages, ImageName, RecordedImage, cached, cached_image,
    default_folder,
};
pub use self::http::{Client, Download, Retries};
pub use self::location::{Location, ParseLocationError};
pub use self::signature::{Fingerprint, ParseFingerprintError};

/// What is said while work goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    Info(String),
    /// Something that the user should decide about.
    Warning(String),
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Info(text) => f.write_str(text),
            Note::Warning(text) => write!(f, "warning: {text}"),
        }
    }
}

/// Where the images are taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageSource {
    /// The mirror's `BaseOS/x86_64/TREE`, by its unsigned `.treeinfo`.
    Tree(String),
    /// The mirror's boot ISO, by the signed `CHECKSUM` beside it.
    MirrorIso,
    /// An ISO of this machine, by the signed `CHECKSUM`: the given one, else the one beside
    /// the ISO, else the mirror's.
    IsoFile { path: PathBuf, checksum: Option<PathBuf> },
}

/// Whether what is in the cache will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    Cached,
    FetchAnew,
}

/// What to fetch.
#[derive(Clone, Debug)]
pub struct Request {
    /// Such as `8.9`.
    pub release: String,
    /// Such as `https://vault.almalinux.org/8.9`.
    pub mirror: Location,
    pub source: ImageSource,
    /// Images beside the kernel and the initramfs.
    pub also: BTreeSet<ImageName>,
    pub freshness: Freshness,
    pub cache: PathBuf,
}

/// Whose word is taken for an ISO.
#[derive(Clone, Debug)]
pub struct Trust {
    /// Primary keys whose signatures count.
    pub fingerprints: Vec<Fingerprint>,
    /// Where those keys are looked for, in this order; see [`Trust::almalinux`].
    pub keys: Vec<Location>,
    /// ISOs that are known to be genuine, by release and digest.
    pub isos: Vec<(String, Digest)>,
    /// The time that expiry is judged by, in seconds since the epoch.
    pub now_secs: u64,
}

/// AlmaLinux 8's signing keys: that of 2021, which expired on 2024-01-12 and signed 8.9, and
/// that of 2023, which signs 8.10 (AlmaLinux, "GPG keys").
const ALMALINUX_KEYS: [&str; 2] =
    ["5E9B8F5617B5066CE92057C3488FCF7C3ABB34F8", "BC5EDDCADF502C077F1582882AE81E8ACED7258B"];

/// `AlmaLinux-8.9-x86_64-boot.iso`, by the CHECKSUM of its release.
const ALMALINUX_8_9_BOOT_ISO: &str =
    "ab861d80c8b68634f3c16d414a4141759a082548ad7b251d8924675fa09decab";

const KEY_NAMES: [&str; 2] = ["RPM-GPG-KEY-AlmaLinux", "RPM-GPG-KEY-AlmaLinux-8"];

impl Trust {
    /// AlmaLinux's keys, looked for in `key` if given, else on the mirror and then on
    /// AlmaLinux's own server. Where a key comes from does not matter, as only those with a
    /// pinned fingerprint are used.
    pub fn almalinux(mirror: &Location, key: Option<&Path>, now_secs: u64) -> Self {
        let official = Location::Http("https://repo.almalinux.org/almalinux".to_owned());
        let keys = match key {
            Some(path) => vec![Location::Local(path.to_owned())],
            None => [mirror, &official]
                .iter()
                .flat_map(|place| KEY_NAMES.map(|name| place.join(name)))
                .collect(),
        };
        let pinned = |text: &str| text.parse().expect("the pinned fingerprints are well formed");
        let boot_iso = ALMALINUX_8_9_BOOT_ISO.parse().expect("the pinned digest is well formed");
        Self {
            fingerprints: ALMALINUX_KEYS.iter().map(|text| pinned(text)).collect(),
            keys,
            isos: vec![("8.9".to_owned(), boot_iso)],
            now_secs,
        }
    }
}

/// The images of one release after a fetch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fetched {
    pub release: String,
    pub images: BTreeMap<ImageName, CachedImage>,
    /// Those that were not in the cache before.
    pub fetched: BTreeSet<ImageName>,
}

/// Brings the kernel, the initramfs and what else is asked for into the cache.
///
/// What is there and whole is left alone, without any use of the network, unless the source
/// asked for is a signed one and what is there came without a signature. A fetch that was cut
/// short goes on where it ended. Two at once wait for each other.
///
/// # Errors
///
/// Fails if an image cannot be had, or is not what its digest, signature or name says; the
/// cache is then as it was.
pub fn fetch(request: &Request, trust: &Trust, client: &Client) -> Result<Fetched> {
    let wanted: BTreeSet<ImageName> =
        [ImageName::Kernel, ImageName::Initrd].into_iter().chain(request.also.clone()).collect();
    if matches!(request.source, ImageSource::IsoFile { .. }) && wanted.contains(&ImageName::BootIso)
    {
        bail!("the boot ISO was asked for beside an ISO that is there already; leave one out");
    }
    let folder = ReleaseFolder::lock(&request.cache, &request.release, client)?;
    let job = Job { request, trust, client, folder: &folder };
    let missing = job.missing(&wanted);
    if missing.is_empty() {
        client.tell(Note::Info(format!(
            "release {}: all images are whole in {}, nothing was fetched",
            request.release,
            request.cache.join(&request.release).display()
        )));
    } else {
        job.run(&missing).with_context(|| format!("fetching release {}", request.release))?;
    }
    let images = wanted
        .into_iter()
        .map(|name| {
            let image = cached_image(&request.cache, &request.release, name);
            Ok((name, image.ok_or_else(|| anyhow!("{} is gone again", name.file_name()))?))
        })
        .collect::<Result<_>>()?;
    Ok(Fetched { release: request.release.clone(), images, fetched: missing })
}

/// One fetch into a folder that is ours.
struct Job<'a> {
    request: &'a Request,
    trust: &'a Trust,
    client: &'a Client<'a>,
    folder: &'a ReleaseFolder,
}

impl Job<'_> {
    /// Those of `wanted` that the cache lacks, or has with less assurance than asked for.
    fn missing(&self, wanted: &BTreeSet<ImageName>) -> BTreeSet<ImageName> {
        let asked = match self.request.source {
            ImageSource::Tree(_) => Assurance::MirrorDigest,
            ImageSource::MirrorIso | ImageSource::IsoFile { .. } => Assurance::Signed,
        };
        let is_there = |name: &ImageName| {
            self.request.freshness == Freshness::Cached
                && cached_image(&self.request.cache, &self.request.release, *name)
                    .is_some_and(|cached| cached.image.assurance >= asked)
        };
        wanted.iter().filter(|name| !is_there(name)).copied().collect()
    }

    fn run(&self, missing: &BTreeSet<ImageName>) -> Result<()> {
        let from_tree: BTreeSet<ImageName> =
            missing.iter().filter(|name| name.tree_path().is_some()).copied().collect();
        match &self.request.source {
            ImageSource::IsoFile { path, checksum } => {
                let iso = self.verified_iso_file(path, checksum.as_deref())?;
                self.extract(&iso, &self.with_siblings(&from_tree))
            }
            ImageSource::MirrorIso => {
                let path = self.boot_iso()?;
                let iso = Iso::open(&path)?;
                self.extract(&iso, &self.with_siblings(&from_tree))
            }
            ImageSource::Tree(tree) => {
                if missing.contains(&ImageName::BootIso) {
                    self.boot_iso()?;
                }
                self.fetch_tree(tree, &from_tree)
            }
        }
    }

    /// `images` with those of the same tree that are recorded already: a kernel and an initramfs
    /// of different builds do not boot, so none may stay that is of another tree.
    fn with_siblings(&self, images: &BTreeSet<ImageName>) -> BTreeSet<ImageName> {
        if images.is_empty() {
            return BTreeSet::new();
        }
        let recorded = self.folder.record().images.into_keys();
        let siblings = recorded.filter(|name| name.tree_path().is_some());
        images.iter().copied().chain(siblings).collect()
    }

    /// Fetches `images` from the mirror's tree, by the digests of its `.treeinfo`.
    fn fetch_tree(&self, tree: &str, images: &BTreeSet<ImageName>) -> Result<()> {
        if images.is_empty() {
            return Ok(());
        }
        let base = self.request.mirror.join(&format!("BaseOS/x86_64/{tree}"));
        if base.is_open_to_tampering() {
            self.client.tell(Note::Warning(format!(
                "{base} is plain http: the digests guard against accidents only; \
                 take the images out of the signed ISO to be sure that they are AlmaLinux's"
            )));
        }
        let (text, tree_info) = self.tree_info(&base)?;
        let record = self.folder.record();
        let mut staged = BTreeMap::new();
        for name in self.with_siblings(images) {
            let tree_path = name.tree_path().expect("only images of the tree are asked of it");
            let sha256 = *tree_info.sha256.get(tree_path).ok_or_else(|| {
                anyhow!("{base}/.treeinfo has no sha256 of {tree_path}; use another mirror")
            })?;
            let is_same = record.images.get(&name).is_some_and(|image| image.sha256 == sha256);
            if is_same && !images.contains(&name) {
                continue;
            }
            let from = base.join(tree_path);
            let download = Download { from: &from, sha256, max_bytes: name.max_bytes() };
            let size = self.client.download(&download, &self.folder.part_path(name))?;
            let source = from.to_string();
            let assurance = Assurance::MirrorDigest;
            staged.insert(name, RecordedImage { size, sha256, source, assurance });
        }
        self.folder.install(staged, Some(&text))
    }

    /// Reads a tree's list of files and sees that it is of our release.
    fn tree_info(&self, base: &Location) -> Result<(Vec<u8>, TreeInfo)> {
        // Some mirrors hide names with a dot; anaconda looks for both too.
        let texts = [".treeinfo", "treeinfo"].map(|name| base.join(name));
        let text = self.first_of(&texts)?.ok_or_else(|| {
            anyhow!(
                "{base} is no installation tree, it has no .treeinfo; check `os.mirror`, \
                 `os.tree` and `os.release`: releases that are not the newest are at \
                 https://vault.almalinux.org/"
            )
        })?;
        let tree_info = TreeInfo::parse(&String::from_utf8_lossy(&text))
            .map_err(|error| anyhow!("{base}/.treeinfo: {error}"))?;
        let release = &self.request.release;
        if !tree_info.may_be_release(release) {
            bail!("{base} is the tree of {}, not of {release}", tree_info.version);
        }
        if !matches!(tree_info.arch.as_str(), "" | "x86_64") {
            bail!("{base} is a tree for {}, not for x86_64", tree_info.arch);
        }
        Ok((text, tree_info))
    }

    /// Returns the path of the release's boot ISO in the cache; fetches it if it is not there.
    fn boot_iso(&self) -> Result<PathBuf> {
        let Request { cache, release, mirror, freshness, .. } = self.request;
        if *freshness == Freshness::Cached
            && let Some(iso) = cached_image(cache, release, ImageName::BootIso)
        {
            return Ok(iso.path);
        }
        let name = format!("AlmaLinux-{release}-x86_64-boot.iso");
        let isos = mirror.join("isos/x86_64");
        let digests = self.signed_digests(&isos.join("CHECKSUM"))?;
        let sha256 = *digests
            .get(&name)
            .ok_or_else(|| anyhow!("{isos}/CHECKSUM has no digest of {name}"))?;
        let from = isos.join(&name);
        let max_bytes = ImageName::BootIso.max_bytes();
        let part = self.folder.part_path(ImageName::BootIso);
        let size = self.client.download(&Download { from: &from, sha256, max_bytes }, &part)?;
        let (source, assurance) = (from.to_string(), Assurance::Signed);
        let image = RecordedImage { size, sha256, source, assurance };
        self.folder.install(BTreeMap::from([(ImageName::BootIso, image)]), None)?;
        Ok(cache.join(release).join(ImageName::BootIso.file_name()))
    }

    /// Opens an ISO of this machine once its digest is known to be that of our release.
    fn verified_iso_file(&self, path: &Path, checksum: Option<&Path>) -> Result<Iso> {
        let iso = Iso::open(path)?;
        let sha256 = iso.digest()?;
        let release = &self.request.release;
        if self.trust.isos.contains(&(release.clone(), sha256)) {
            return Ok(iso);
        }
        let beside = path.with_file_name("CHECKSUM");
        let checksum = match checksum {
            Some(given) => Location::Local(given.to_owned()),
            None if beside.exists() => Location::Local(beside),
            None => self.request.mirror.join("isos/x86_64/CHECKSUM"),
        };
        let digests = self.signed_digests(&checksum)?;
        let names: Vec<&str> = digests
            .iter()
            .filter(|(_, digest)| **digest == sha256)
            .map(|(name, _)| name.as_str())
            .collect();
        if names.is_empty() {
            bail!(
                "{} is no ISO that {checksum} knows: its sha256 is {sha256}; \
                 it is damaged or of another release: fetch it again",
                path.display()
            );
        }
        if !names.iter().any(|name| name.starts_with(&format!("AlmaLinux-{release}-x86_64-"))) {
            bail!("{} is {}, not of release {release}", path.display(), names.join(", "));
        }
        Ok(iso)
    }

    /// The digests of a `CHECKSUM` file, after its signature was found good.
    fn signed_digests(&self, checksum: &Location) -> Result<BTreeMap<String, Digest>> {
        let message = self.client.read(checksum, MAX_TEXT_BYTES)?.ok_or_else(|| {
            anyhow!("{checksum} does not exist: without it an ISO cannot be told to be genuine")
        })?;
        let message = String::from_utf8(message)
            .map_err(|_| anyhow!("{checksum} is no clear-signed text"))?;
        let text = self
            .verified(&message)
            .with_context(|| format!("checking the signature of {checksum}"))?;
        checksum::parse(&text).map_err(|error| anyhow!("{checksum}: {error}"))
    }

    /// The text of a clear-signed `message`, by the first key file that has its signer's key.
    fn verified(&self, message: &str) -> Result<String> {
        let mut tried = Vec::new();
        for place in &self.trust.keys {
            let key_file = match self.client.read(place, MAX_TEXT_BYTES) {
                Ok(Some(key_file)) => String::from_utf8_lossy(&key_file).into_owned(),
                Ok(None) => {
                    tried.push(format!("{place} does not exist"));
                    continue;
                }
                Err(error) => {
                    tried.push(format!("{place}: {error:#}"));
                    continue;
                }
            };
            let Trust { fingerprints, now_secs, .. } = self.trust;
            match signature::verify(message, &key_file, fingerprints, *now_secs) {
                Ok(verified) => {
                    if let Some(expired) = verified.expired_secs {
                        self.client.tell(Note::Warning(format!(
                            "the signature is good, but its key {} expired on {}",
                            verified.signer,
                            signature::date(expired)
                        )));
                    }
                    return Ok(verified.text);
                }
                Err(
                    error @ (SignatureError::UnknownSigner { .. } | SignatureError::BadKeyFile(_)),
                ) => tried.push(format!("{place}: {error}")),
                Err(error) => return Err(error.into()),
            }
        }
        bail!(
            "no trusted key for it was found; give AlmaLinux's key as a file \
             (on an AlmaLinux host /etc/pki/rpm-gpg/RPM-GPG-KEY-AlmaLinux); tried: {}",
            tried.join("; ")
        )
    }

    /// Takes `images` out of a genuine ISO.
    fn extract(&self, iso: &Iso, images: &BTreeSet<ImageName>) -> Result<()> {
        let mut staged = BTreeMap::new();
        for name in images {
            let tree_path = name.tree_path().expect("an ISO is not inside an ISO");
            let mut part = Part::open(&self.folder.part_path(*name))?;
            part.restart()?;
            let place = format!("{tree_path} in {}", iso.path.display());
            let mut file = &iso.file;
            let mut reader =
                iso::open(&mut file, tree_path).with_context(|| format!("reading {place}"))?;
            let size = reader.limit();
            part.ensure_room(size)?;
            let progress = Progress::start(name.file_name(), Some(size), Unit::Bytes);
            let outcome = part.append_all(&mut reader, &place, &progress);
            progress.finish();
            outcome?;
            let sha256 = part.digest();
            if part.finish()? != size {
                bail!("{place} is cut short");
            }
            let (source, assurance) = (place, Assurance::Signed);
            staged.insert(*name, RecordedImage { size, sha256, source, assurance });
        }
        self.folder.install(staged, None)
    }

    /// What the first of `places` that exists says.
    fn first_of(&self, places: &[Location]) -> Result<Option<Vec<u8>>> {
        for place in places {
            if let Some(text) = self.client.read(place, MAX_TEXT_BYTES)? {
                return Ok(Some(text));
            }
        }
        Ok(None)
    }
}

/// The longest `.treeinfo`, `CHECKSUM` or key file that is read, in bytes.
const MAX_TEXT_BYTES: u64 = 1 << 20;

/// An ISO file that stays open from its verification to the last read.
struct Iso {
    path: PathBuf,
    file: File,
}

impl Iso {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        Ok(Self { path: path.to_owned(), file })
    }

    fn digest(&self) -> Result<Digest> {
        let context = || format!("reading {}", self.path.display());
        let length = self.file.metadata().with_context(context)?.len();
        let progress = Progress::start("checking the ISO", Some(length), Unit::Bytes);
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0)).with_context(context)?;
        let digest = Digest::of_reader(file, |count| progress.advance(count));
        progress.finish();
        Ok(digest.with_context(context)?.0)
    }
}
