//! From staged folders to a new generation that readers see, in one step.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, ensure};
use rustix::fs::syncfs;

use crate::manifest::{
    Artifact, FileEntry, Folder, LAYER_SUMS, Manifest, SecretManifest, layer_sums, sha256sums,
};
use crate::output::disk::{self, PUBLIC, PUBLIC_FILE, SECRET_DIR, SECRET_FILE, named};
use crate::output::{
    CURRENT, GENERATIONS, Generation, MANIFEST, NewSecret, Output, SECRET, SUMS, SecretSource,
    generation_number, stage, store_link, sweep,
};

/// What a publication did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// The current generation is what was built already; nothing was written.
    Unchanged { generation: u64 },
    /// Readers see a new generation.
    New {
        generation: u64,
        /// Folders that were not in the store before.
        n_written: u64,
        /// Folders that were.
        n_reused: u64,
    },
}

/// The texts of a generation.
struct Texts {
    manifest: Vec<u8>,
    sums: String,
    layer_sums: String,
    secret_manifest: Vec<u8>,
    secret_sums: String,
}

impl Output {
    /// Makes what was staged the current generation, durably, and removes generations beyond
    /// the last [`N_KEPT_GENERATIONS`](super::N_KEPT_GENERATIONS).
    ///
    /// `manifest` names folders that [`stage`](Self::stage) or
    /// [`carry_node`](Self::carry_node) gave; the files of the generation itself are added
    /// to it here. If nothing differs from the current generation, nothing is written.
    ///
    /// # Errors
    ///
    /// Until `current` is swapped, any failure leaves the old generation as it was.
    pub fn publish(self, mut manifest: Manifest) -> Result<Published> {
        let layer_sums = layer_sums(&manifest.layers);
        manifest.files.insert(LAYER_SUMS.to_owned(), FileEntry::of(layer_sums.as_bytes()));
        let secrets = self.secret_manifest();
        let texts = Texts::of(&manifest, &secrets, layer_sums)?;
        if let Some(generation) = self.generation()
            && !self.has_staged_secret()
            && generation.is_whole_with(&manifest, &secrets, &texts)
        {
            if self.n_written.load(Ordering::Relaxed) > 0 {
                self.sync()?; // Damaged folders were replaced.
            }
            return Ok(Published::Unchanged { generation: generation.number });
        }
        let staged = self.stage_generation(&manifest, &texts)?;
        let generation = self.swap(&staged)?;
        sweep::sweep(&self.root)?;
        let n_written = self.n_written.load(Ordering::Relaxed);
        let n_folders = manifest.folders().count() as u64;
        let n_reused = n_folders.saturating_sub(n_written);
        Ok(Published::New { generation, n_written, n_reused })
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
    fn stage_generation(&self, manifest: &Manifest, texts: &Texts) -> Result<PathBuf> {
        let staged = self.staging()?.join("generation");
        for name in ["", "layers", "nodes"] {
            disk::make_dir(&staged.join(name), PUBLIC)?;
        }
        for (place, folder) in manifest.folders() {
            ensure!(self.is_in_store(folder), "the folder of {place} was not staged, or is lost");
            let link = staged.join(&place);
            symlink(store_link(&place, &folder.digest), &link)
                .with_context(|| named("linking", &link))?;
        }
        let put = |name: &str, text: &[u8]| disk::write_file(&staged.join(name), PUBLIC_FILE, text);
        put(MANIFEST, &texts.manifest)?;
        put(SUMS, texts.sums.as_bytes())?;
        put(LAYER_SUMS, texts.layer_sums.as_bytes())?;
        self.stage_secrets(&staged.join(SECRET), texts)?;
        Ok(staged)
    }

    fn stage_secrets(&self, folder: &Path, texts: &Texts) -> Result<()> {
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
        disk::write_file(&folder.join(MANIFEST), SECRET_FILE, &texts.secret_manifest)?;
        disk::write_file(&folder.join(SUMS), SECRET_FILE, texts.secret_sums.as_bytes())
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
        let synced = syncfs(&self.marker).map_err(io::Error::from);
        synced.with_context(|| named("bringing to disk", &self.root))
    }
}

impl Texts {
    fn of(manifest: &Manifest, secrets: &SecretManifest, layer_sums: String) -> Result<Self> {
        let (mut manifest_json, mut secret_manifest) = (Vec::new(), Vec::new());
        manifest.write_json(&mut manifest_json)?;
        secrets.write_json(&mut secret_manifest)?;
        let sums = sums_of(manifest.artifacts(), &manifest_json);
        let secret_sums = sums_of(secrets.artifacts(), &secret_manifest);
        Ok(Self { manifest: manifest_json, sums, layer_sums, secret_manifest, secret_sums })
    }
}

/// The text of `SHA256SUMS` for `artifacts` and the manifest that lists them.
pub(super) fn sums_of(artifacts: impl Iterator<Item = Artifact>, manifest: &[u8]) -> String {
    let manifest = Artifact { name: MANIFEST.to_owned(), file: FileEntry::of(manifest) };
    sha256sums([manifest].into_iter().chain(artifacts))
}

impl Generation {
    /// Whether this is what was built, its texts and links unharmed. The folders of the
    /// store and the secrets were looked at when they were staged.
    fn is_whole_with(&self, manifest: &Manifest, secrets: &SecretManifest, texts: &Texts) -> bool {
        let is_text = |name: &str, text: &[u8]| {
            fs::read(self.path.join(name)).is_ok_and(|found| found == text)
        };
        let is_link = |(place, folder): (String, &Folder)| {
            let target = fs::read_link(self.path.join(&place));
            target.is_ok_and(|target| target == Path::new(&store_link(&place, &folder.digest)))
        };
        self.manifest == *manifest
            && self.secrets.as_ref() == Some(secrets)
            && disk::is_dir_of(&self.path.join(SECRET), SECRET_DIR)
            && is_text(MANIFEST, &texts.manifest)
            && is_text(SUMS, texts.sums.as_bytes())
            && is_text(LAYER_SUMS, texts.layer_sums.as_bytes())
            && is_text("secret/manifest.json", &texts.secret_manifest)
            && is_text("secret/SHA256SUMS", texts.secret_sums.as_bytes())
            && manifest.folders().all(is_link)
    }
}
