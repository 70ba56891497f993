//! From staged folders to a new generation that readers see, in one step.

use std::cell::OnceCell;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, ensure};
use rustix::fs::{AtFlags, CWD, linkat, syncfs};

use crate::manifest::{
    Artifact, ArtifactWriter, FileEntry, Folder, LAYER_SUMS, Manifest, SecretManifest, Totals,
    layer_sums, sha256sums, write_sha256sums,
};
use crate::output::disk::{self, PUBLIC, PUBLIC_FILE, SECRET_DIR, SECRET_FILE, named};
use crate::output::{
    CURRENT, GENERATIONS, Generation, Inputs, MANIFEST, NewSecret, Output, SECRET, SUMS,
    SecretSource, generation_number, stage, store_link, sweep,
};

/// What a publication did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// The current generation is what was built already; nothing was written but what was lost.
    Unchanged {
        generation: u64,
        /// Folders that were damaged or lost, and made anew.
        n_mended: u64,
    },
    /// Readers see a new generation.
    New {
        generation: u64,
        /// Folders that were not in the store before.
        n_written: u64,
        /// Folders that were.
        n_reused: u64,
    },
}

impl Output {
    /// Makes what was staged the current generation, durably, and removes generations beyond
    /// the last [`N_KEPT_GENERATIONS`](super::N_KEPT_GENERATIONS).
    ///
    /// `manifest` names folders that [`stage`](Self::stage) or
    /// [`carry_node`](Self::carry_node) gave, or that the current generation has; the files of
    /// the generation itself are added to it here. `inputs` are what it was made from. If nothing differs from the current generation, nothing is written.
    ///
    /// # Errors
    ///
    /// Until `current` is swapped, any failure leaves the old generation as it was.
    pub fn publish(self, mut manifest: Manifest, inputs: &Inputs) -> Result<Published> {
        let layer_sums = layer_sums(&manifest.layers);
        manifest.files.insert(LAYER_SUMS.to_owned(), FileEntry::of(layer_sums.as_bytes()));
        let secrets = self.secret_manifest();
        let texts = Texts {
            manifest: &manifest,
            secrets: &secrets,
            layer_sums,
            manifest_file: OnceCell::new(),
            secret_manifest_file: OnceCell::new(),
        };
        if let Some(generation) = self.generation()
            && !self.has_staged_secret()
            && generation.is_whole_with(&texts)
        {
            let n_mended = self.n_written.load(Ordering::Relaxed);
            if n_mended > 0 {
                self.sync()?;
            }
            self.note_inputs(generation.number, inputs)?;
            return Ok(Published::Unchanged { generation: generation.number, n_mended });
        }
        let staged = self.stage_generation(&texts)?;
        let generation = self.swap(&staged)?;
        self.note_inputs(generation, inputs)?;
        sweep::sweep(&self.root)?;
        let n_written = self.n_written.load(Ordering::Relaxed);
        let n_folders = manifest.folders().count() as u64;
        let n_reused = n_folders.saturating_sub(n_written);
        Ok(Published::New { generation, n_written, n_reused })
    }

    /// The current generation, if all that it lists is still there: names, sizes, modes and
    /// links are looked at.
    pub fn untouched(&self) -> Option<(u64, &Manifest)> {
        let generation = self.generation()?;
        let manifest = &generation.manifest;
        let secrets = generation.secrets.as_ref()?;
        let sums = sums_size(manifest.totals());
        let secret_sums = sums_size(secrets.totals());
        let is_public =
            |(name, size)| disk::is_file_of(&generation.path.join(name), size, PUBLIC_FILE);
        let own = manifest.files.iter().map(|(name, file)| (name.as_str(), file.size));
        let folder = generation.path.join(SECRET);
        let is_secret =
            |(name, size): (&str, u64)| disk::is_file_of(&folder.join(name), size, SECRET_FILE);
        let secret_files = secrets.files.iter().map(|(name, file)| (name.as_str(), file.size));
        let is_whole = own.chain([(SUMS, sums)]).all(is_public)
            && disk::is_dir_of(&folder, SECRET_DIR)
            && secret_files.chain([(SUMS, secret_sums)]).all(is_secret)
            && manifest
                .folders()
                .all(|(place, it)| generation.links_to(&place, it) && self.is_in_store(it));
        is_whole.then_some((generation.number, manifest))
    }

    fn secret_manifest(&self) -> SecretManifest {
        let secrets = self.secrets.lock().expect("no holder of the lock panics");
        let entry = |(name, secret): (&String, &NewSecret)| (name.clone(), secret.entry.clone());
        SecretManifest::new(secrets.iter().map(entry).collect())
    }

    /// Whether some secret is new, changed, or not as the current generation should have it.
    fn has_staged_secret(&self) -> bool {
        let secrets = self.secrets.lock().expect("no holder of the lock panics");
        secrets.values().any(|secret| secret.source == SecretSource::Staged)
    }

    /// Builds the generation's folder under a name that readers do not look at.
    fn stage_generation(&self, texts: &Texts<'_>) -> Result<PathBuf> {
        let staged = self.staging()?.join("generation");
        for name in ["", "layers", "nodes"] {
            disk::make_dir(&staged.join(name), PUBLIC)?;
        }
        for (place, folder) in texts.manifest.folders() {
            let is_there = self.has_seen(folder) || self.is_in_store(folder);
            ensure!(is_there, "the folder of {place} was not staged, or is lost");
            self.link_to_store(&staged, &place, folder)
                .with_context(|| named("linking", &staged.join(&place)))?;
        }
        for text in Text::PUBLIC {
            texts.put(text, &staged.join(text.name()), PUBLIC_FILE)?;
        }
        self.stage_secrets(&staged.join(SECRET), texts)?;
        Ok(staged)
    }

    /// Makes the link at `place` in a staged generation. Where the current one has the same, that
    /// gets a second name (link(2)): ext4 looks long for an inode where thousands were given back a
    /// moment ago (find_inode_bit() and recently_deleted() in fs/ext4/ialloc.c), as each build does.
    fn link_to_store(&self, staged: &Path, place: &str, folder: &Folder) -> io::Result<()> {
        let link = staged.join(place);
        let current = self.generation().filter(|current| current.links_to(place, folder));
        let is_linked = current.is_some_and(|current| {
            linkat(CWD, current.path.join(place), CWD, &link, AtFlags::empty()).is_ok()
        });
        match is_linked {
            true => Ok(()),
            // Filesystems may have no second names for links, or no more than some.
            false => symlink(store_link(place, &folder.digest), &link),
        }
    }

    fn stage_secrets(&self, folder: &Path, texts: &Texts<'_>) -> Result<()> {
        let staged = self.staging()?.join(SECRET);
        if disk::exists(&staged)? {
            disk::rename(&staged, folder)?;
        } else {
            disk::make_dir(folder, SECRET_DIR)?;
        }
        let secrets = self.secrets.lock().expect("no holder of the lock panics");
        for (name, secret) in secrets.iter() {
            if secret.source == SecretSource::CurrentGeneration {
                let generation = self.generation().expect("a secret was taken over from it");
                let source = generation.path.join(SECRET).join(name);
                disk::ensure_parents(folder, name, SECRET_DIR)?;
                let file = secret.entry.file();
                stage::link_or_copy(&source, &folder.join(name), SECRET_FILE, file)?;
            }
        }
        for text in Text::SECRET {
            texts.put(text, &folder.join(text.name()), SECRET_FILE)?;
        }
        Ok(())
    }

    /// Brings everything to disk, then lets readers see it. The order matters: a name must
    /// not become durable before what it names.
    fn swap(&self, staged: &Path) -> Result<u64> {
        let generations = self.root.join(GENERATIONS);
        let taken = disk::names_in(&generations)?;
        let last = taken.iter().filter_map(|name| generation_number(name)).max().unwrap_or(0);
        let number = last + 1;
        self.sync()?;
        disk::rename(staged, &generations.join(number.to_string()))?;
        disk::sync_dir(&generations)?;
        let link = self.staging()?.join(CURRENT);
        symlink(format!("{GENERATIONS}/{number}"), &link)
            .with_context(|| named("linking", &link))?;
        disk::rename(&link, &self.root.join(CURRENT))?;
        disk::sync_dir(&self.root)?;
        Ok(number)
    }

    /// Brings everything written to the filesystem to disk.
    fn sync(&self) -> Result<()> {
        let synced = syncfs(&self.marker.0).map_err(io::Error::from);
        synced.with_context(|| named("bringing to disk", &self.root))
    }
}

/// A file of lists that a generation has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Text {
    Manifest,
    Sums,
    LayerSums,
    SecretManifest,
    SecretSums,
}

impl Text {
    const PUBLIC: [Text; 3] = [Text::Manifest, Text::Sums, Text::LayerSums];
    const SECRET: [Text; 2] = [Text::SecretManifest, Text::SecretSums];

    /// Its path in the generation, or in the folder of secrets.
    fn name(self) -> &'static str {
        match self {
            Text::Manifest | Text::SecretManifest => MANIFEST,
            Text::Sums | Text::SecretSums => SUMS,
            Text::LayerSums => LAYER_SUMS,
        }
    }
}

/// The lists of a generation. They grow with the cluster and are written piece by piece.
struct Texts<'a> {
    manifest: &'a Manifest,
    secrets: &'a SecretManifest,
    layer_sums: String,
    /// Sizes and digests of the manifests, once they have been written.
    manifest_file: OnceCell<FileEntry>,
    secret_manifest_file: OnceCell<FileEntry>,
}

impl Texts<'_> {
    fn write<W: Write>(&self, text: Text, mut out: W) -> io::Result<()> {
        match text {
            Text::Manifest => self.manifest.write_json(out),
            Text::LayerSums => out.write_all(self.layer_sums.as_bytes()),
            Text::SecretManifest => self.secrets.write_json(out),
            Text::Sums => write_sums(self.entry(Text::Manifest)?, self.manifest.artifacts(), out),
            Text::SecretSums => {
                write_sums(self.entry(Text::SecretManifest)?, self.secrets.artifacts(), out)
            }
        }
    }

    fn entry(&self, text: Text) -> io::Result<FileEntry> {
        match self.known(text).and_then(OnceCell::get) {
            Some(entry) => Ok(*entry),
            None => self.write_digested(text, io::sink()),
        }
    }

    /// Where the size and digest of a text go that another text lists.
    fn known(&self, text: Text) -> Option<&OnceCell<FileEntry>> {
        match text {
            Text::Manifest => Some(&self.manifest_file),
            Text::SecretManifest => Some(&self.secret_manifest_file),
            Text::Sums | Text::LayerSums | Text::SecretSums => None,
        }
    }

    fn write_digested<W: Write>(&self, text: Text, out: W) -> io::Result<FileEntry> {
        let mut out = BufWriter::new(ArtifactWriter::new("", out));
        self.write(text, &mut out)?;
        let entry = out.into_inner()?.finish().1.file;
        // The same as before, if it was known already.
        _ = self.known(text).map(|known| known.set(entry));
        Ok(entry)
    }

    fn put(&self, text: Text, path: &Path, mode: u32) -> Result<()> {
        let file = disk::create(path, mode)?;
        let written = match self.known(text) {
            Some(_) => self.write_digested(text, file).map(drop),
            None => {
                let mut out = BufWriter::new(file);
                self.write(text, &mut out).and_then(|()| out.flush())
            }
        };
        written.with_context(|| named("writing", path))
    }

    /// Whether the file at `path` holds exactly this text.
    fn is_at(&self, text: Text, path: &Path) -> bool {
        let compare = || -> io::Result<bool> {
            let mut comparing = Comparing(BufReader::new(File::open(path)?));
            let mut out = BufWriter::new(&mut comparing);
            // Dropping it would flush it, too, and keep a difference to itself.
            self.write(text, &mut out).and_then(|()| out.flush())?;
            drop(out);
            Ok(comparing.0.fill_buf()?.is_empty())
        };
        compare().unwrap_or(false)
    }
}

/// Takes only what its reader gives.
struct Comparing<R>(R);

impl<R: Read> Write for Comparing<R> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut found = vec![0; bytes.len()];
        self.0.read_exact(&mut found)?;
        match found == bytes {
            true => Ok(bytes.len()),
            false => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes `SHA256SUMS` for `artifacts` and the manifest that lists them.
fn write_sums<W: Write>(
    manifest: FileEntry,
    artifacts: impl Iterator<Item = Artifact>,
    out: W,
) -> io::Result<()> {
    let manifest = Artifact { name: MANIFEST.to_owned(), file: manifest };
    write_sha256sums([manifest].into_iter().chain(artifacts), out)
}

/// The text of `SHA256SUMS` for `artifacts` and the manifest that lists them.
pub(super) fn sums_of(artifacts: impl Iterator<Item = Artifact>, manifest: &[u8]) -> String {
    let manifest = Artifact { name: MANIFEST.to_owned(), file: FileEntry::of(manifest) };
    sha256sums([manifest].into_iter().chain(artifacts))
}

/// The size of `SHA256SUMS` for artefacts and the manifest that lists them.
fn sums_size(of: Totals) -> u64 {
    let n_lines = of.n_artifacts as u64 + 1;
    n_lines * (64 + 2 + 1) + of.n_name_bytes + MANIFEST.len() as u64
}

impl Generation {
    /// Whether the link at `place` leads to that folder of the store.
    fn links_to(&self, place: &str, folder: &Folder) -> bool {
        let target = fs::read_link(self.path.join(place));
        target.is_ok_and(|target| target == Path::new(&store_link(place, &folder.digest)))
    }

    /// Whether this is what was built, its texts and links unharmed. The folders of the
    /// store and the secrets were looked at when they were staged.
    fn is_whole_with(&self, texts: &Texts<'_>) -> bool {
        let secret = self.path.join(SECRET);
        self.manifest == *texts.manifest
            && self.secrets.as_ref() == Some(texts.secrets)
            && disk::is_dir_of(&secret, SECRET_DIR)
            && Text::PUBLIC.iter().all(|text| texts.is_at(*text, &self.path.join(text.name())))
            && Text::SECRET.iter().all(|text| texts.is_at(*text, &secret.join(text.name())))
            && texts.manifest.folders().all(|(place, folder)| self.links_to(&place, folder))
    }
}
