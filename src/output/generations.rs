//! Reading what was published, without the lock: a generation does not change.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};

use crate::changes::{Secret, Side};
use crate::format::{Archive, Body, gzip};
use crate::manifest::{FileEntry, Folder, Manifest};
use crate::output::disk::{self, named};
use crate::output::{
    CURRENT, Current, GENERATIONS, Generation, Inputs, MANIFEST, MARKER, SECRET, STORE,
    generation_number, inputs,
};
use crate::plan;
use crate::tree::{Entry, FileTree, Owner, Placed, TreePath};

/// Files of the boot tree up to this size are texts that may be shown; images are larger.
const MAX_TEXT: u64 = 4 << 20;

/// What an archive may unpack to: many times what nodeforge packs for one node.
const MAX_UNPACKED: usize = 1 << 30;

/// A generation of an output folder, and the files it leads to.
#[derive(Debug)]
pub struct Stored {
    root: PathBuf,
    generation: Generation,
}

impl Stored {
    /// Opens the current generation.
    ///
    /// # Errors
    ///
    /// Fails if there is none, or its manifest cannot be used.
    pub fn current(root: &Path) -> Result<Self> {
        require_ours(root)?;
        match Current::read(root)? {
            Current::Generation(generation) => {
                Ok(Self { root: root.to_owned(), generation: *generation })
            }
            Current::Nothing => bail!("nothing has been built into {} yet", root.display()),
            Current::Damaged(reason) => bail!("the current generation cannot be used: {reason}"),
        }
    }

    /// Opens generation `number`.
    ///
    /// # Errors
    ///
    /// Fails if it is not there, or its manifest cannot be used.
    pub fn open(root: &Path, number: u64) -> Result<Self> {
        require_ours(root)?;
        require_generation(root, number)?;
        let generation = Generation::read(root, number)
            .with_context(|| format!("generation {number} cannot be used"))?;
        Ok(Self { root: root.to_owned(), generation })
    }

    pub fn number(&self) -> u64 {
        self.generation.number
    }

    /// What it was made from, as far as that is known.
    pub fn inputs(&self) -> Inputs {
        inputs::read(&self.root, self.generation.number).unwrap_or_default()
    }

    /// The bytes of a file in the store, which must be those of the manifest.
    ///
    /// # Errors
    ///
    /// Fails if they are others, or cannot be read.
    pub fn read(&self, folder: &Folder, name: &str) -> Result<Vec<u8>> {
        let path = self.root.join(STORE).join(folder.digest.to_string()).join(name);
        let entry = folder.files.get(name);
        let entry = entry.with_context(|| format!("{} is in no manifest", path.display()))?;
        let file = fs::File::open(&path).with_context(|| named("opening", &path))?;
        let mut bytes = Vec::new();
        file.take(entry.size + 1)
            .read_to_end(&mut bytes)
            .with_context(|| named("reading", &path))?;
        ensure!(
            FileEntry::of(&bytes) == *entry,
            "{} is not what was built; `nodeforge verify` tells more",
            path.display()
        );
        Ok(bytes)
    }

    fn tree(&self, folder: &Folder, archive: &str) -> Result<FileTree> {
        let unpack = || -> Result<FileTree> {
            let mut plain = Vec::new();
            gzip::read(&self.read(folder, archive)?, MAX_UNPACKED, &mut plain)?;
            unpacked(&plain)
        };
        unpack().with_context(|| format!("reading {archive} of generation {}", self.number()))
    }
}

impl Side for Stored {
    fn manifest(&self) -> &Manifest {
        &self.generation.manifest
    }

    fn layer(&self, name: &str) -> Result<FileTree> {
        let folder = self.manifest().layers.get(name);
        let folder = folder.with_context(|| {
            format!("the manifest of generation {} lacks the layer {name}", self.number())
        })?;
        self.tree(folder, plan::LAYER_TAR)
    }

    fn node(&self, name: &str) -> Result<FileTree> {
        self.tree(&self.manifest().nodes[name].folder, plan::OVERLAY_TAR)
    }

    fn kickstart(&self, node: &str) -> Result<Option<String>> {
        let folder = &self.manifest().nodes[node].folder;
        let bytes = if folder.files.contains_key(plan::KICKSTART) {
            self.read(folder, plan::KICKSTART)?
        } else {
            let path = self.generation.path.join(SECRET).join(format!("{node}.ks"));
            match fs::read(&path) {
                Err(fault) if fault.kind() == ErrorKind::PermissionDenied => return Ok(None),
                read => read.with_context(|| named("reading", &path))?,
            }
        };
        let text = String::from_utf8(bytes);
        Ok(Some(text.with_context(|| format!("reading the kickstart of {node}"))?))
    }

    fn boot_file(&self, _node: Option<&str>, path: &str) -> Result<Option<Vec<u8>>> {
        let folder = &self.manifest().pxe.folder;
        match folder.files.get(path) {
            Some(entry) if entry.size <= MAX_TEXT => self.read(folder, path).map(Some),
            _ => Ok(None),
        }
    }

    fn secret(&self, node: &str) -> Secret {
        match &self.generation.secrets {
            None => Secret::NotReadable,
            Some(secrets) => secrets
                .files
                .get(&format!("{node}.tar.gz"))
                .map_or(Secret::None, |entry| Secret::Bundle(entry.sha256)),
        }
    }
}

fn unpacked(plain: &[u8]) -> Result<FileTree> {
    let mut tree = FileTree::default();
    let origin = "store".into();
    let invalid = |fault: String| std::io::Error::new(ErrorKind::InvalidData, fault);
    Archive::Tar.read(plain, &mut |member| {
        let entry = match member.body {
            Body::Dir => Entry::Dir { mode: member.mode },
            Body::File(bytes) => Entry::File { mode: member.mode, contents: bytes.into() },
            Body::Symlink(target) => Entry::Symlink { target: target.to_owned() },
        };
        let path = TreePath::new(member.path).map_err(|fault| invalid(fault.to_string()))?;
        let placed = Placed { entry, owner: Owner::root(), origin: std::sync::Arc::clone(&origin) };
        tree.insert(path, placed).map_err(|fault| invalid(fault.to_string()))
    })?;
    Ok(tree)
}

/// A generation as it is listed.
#[derive(Debug)]
pub struct ListedGeneration {
    pub number: u64,
    pub is_current: bool,
    /// When its folder was made.
    pub made: SystemTime,
    /// Or why it cannot be used.
    pub manifest: Result<Manifest, String>,
}

/// All generations below `root`, oldest first; `visit` has one at a time in memory.
///
/// # Errors
///
/// Fails if the folder is not nodeforge's or cannot be read, or with `visit`'s error.
pub fn generations(
    root: &Path,
    mut visit: impl FnMut(ListedGeneration) -> Result<()>,
) -> Result<()> {
    require_ours(root)?;
    let current = current_number(root);
    for number in numbers(root)? {
        let path = root.join(GENERATIONS).join(number.to_string());
        let made = fs::symlink_metadata(&path).and_then(|metadata| metadata.modified());
        visit(ListedGeneration {
            number,
            is_current: current == Some(number),
            made: made.with_context(|| named("looking at", &path))?,
            manifest: read_manifest(&path).map_err(|fault| format!("{fault:#}")),
        })?;
    }
    Ok(())
}

fn read_manifest(generation: &Path) -> Result<Manifest> {
    let file = generation.join(MANIFEST);
    let json = fs::read(&file).with_context(|| named("reading", &file))?;
    Manifest::from_json(&json).with_context(|| named("reading", &file))
}

/// The numbers of all generations, in order.
pub(super) fn numbers(root: &Path) -> Result<Vec<u64>> {
    let generations = root.join(GENERATIONS);
    if !disk::exists(&generations)? {
        return Ok(Vec::new());
    }
    let names = disk::names_in(&generations)?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| generation_number(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Where `current` leads, whether that is there or not.
pub(super) fn current_number(root: &Path) -> Option<u64> {
    let target = fs::read_link(root.join(CURRENT)).ok()?;
    generation_number(target.strip_prefix(GENERATIONS).ok()?.to_str()?)
}

pub(super) fn require_ours(root: &Path) -> Result<()> {
    ensure!(disk::exists(&root.join(MARKER))?, "{} was not made by nodeforge", root.display());
    Ok(())
}

pub(super) fn require_generation(root: &Path, number: u64) -> Result<()> {
    let there = numbers(root)?;
    let list: Vec<String> = there.iter().map(u64::to_string).collect();
    ensure!(
        there.contains(&number),
        "{} has no generation {number}; {}",
        root.display(),
        match list.is_empty() {
            true => "nothing has been built into it yet".to_owned(),
            false => format!("there are: {}", list.join(", ")),
        }
    );
    Ok(())
}
