//! The files of a lab's nodes: a thin disk on the shared base, a seed, disks for data, and what
//! runs them elsewhere.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::format::qcow2::{Backing, overlay};
use crate::lab::base::Base;
use crate::output::whole_file::{self, Audience, WholeFile};
use crate::progress::{Progress, Unit};
use crate::units::ByteSize;
use crate::vm::{Disk, DiskUse, Machine, libvirt, qemu};

/// A node and what cloud-init reads on it.
#[derive(Debug)]
pub struct NodeImage {
    pub machine: Machine,
    pub seed: Vec<u8>,
    /// Of the seed.
    pub audience: Audience,
}

/// What becomes of data disks that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataDisks {
    Kept,
    Recreated,
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub n_files: usize,
    /// Data disks that were there and stay.
    pub kept: Vec<Kept>,
}

/// A data disk that stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub path: PathBuf,
    pub size: ByteSize,
    /// What the cluster file says.
    pub planned: ByteSize,
}

/// Where the files go, and on what.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    pub folder: &'a Path,
    pub base: &'a Base,
    pub data: DataDisks,
    /// The cluster's name.
    pub lab: &'a str,
}

/// As many nodes as go to disk together: a node has about five files open meanwhile.
const BATCH: usize = 64;

/// Room for the thin disk, the script and the XML of a node.
const THIN: ByteSize = ByteSize::from_bytes(288 << 10);

/// Writes the files of `nodes`. What they may grow to is for the caller to compare.
///
/// # Errors
///
/// Fails before anything is written if the folder has no room; a write that fails leaves no half
/// file under its name.
pub fn write(nodes: &[NodeImage], target: Target<'_>) -> Result<Written> {
    let seeds: ByteSize =
        nodes.iter().map(|node| ByteSize::from_bytes(node.seed.len() as u64)).sum();
    whole_file::require_folder(target.folder, seeds + THIN * nodes.len() as u64)?;
    let folder = fs::canonicalize(target.folder)
        .with_context(|| format!("opening {}", target.folder.display()))?;
    refuse_base_in_the_way(nodes, &folder, target.base)?;
    let mut written = Written::default();
    let progress = Progress::start("writing images", Some(nodes.len() as u64), Unit::Nodes);
    for batch in nodes.chunks(BATCH) {
        let mut files = Vec::new();
        for node in batch {
            files.extend(files_of(node, &folder, target, &mut written)?);
        }
        written.n_files += files.len();
        whole_file::publish(files)?;
        progress.advance(batch.len() as u64);
    }
    progress.finish();
    write_networks(nodes, &folder, target.lab)?;
    Ok(written)
}

/// What the disks of `nodes` may grow to, all of them together.
pub fn full_size(nodes: &[NodeImage], base: &Base) -> ByteSize {
    let disks = nodes.iter().flat_map(|node| &node.machine.disks);
    disks.map(|disk| disk_size(disk, base)).sum()
}

/// A guest's disk is never smaller than the base: its end may be in use.
fn disk_size(disk: &Disk, base: &Base) -> ByteSize {
    match disk.use_ {
        DiskUse::System => disk.size.max(base.size),
        DiskUse::Seed | DiskUse::Data => disk.size,
    }
}

/// A base in the folder that has the name of a node's disk would be written over.
fn refuse_base_in_the_way(nodes: &[NodeImage], folder: &Path, base: &Base) -> Result<()> {
    let is_in_the_way = |disk: &Disk| folder.join(&disk.file) == base.path;
    let disks = nodes.iter().flat_map(|node| &node.machine.disks);
    let in_the_way = disks.into_iter().any(is_in_the_way);
    ensure!(!in_the_way, "the base image {} has the name of a node's disk", base.path.display());
    Ok(())
}

fn files_of(
    node: &NodeImage,
    folder: &Path,
    target: Target<'_>,
    written: &mut Written,
) -> Result<Vec<WholeFile>> {
    let machine = &node.machine;
    let mut files = Vec::new();
    let put = |name: &str, audience, contents: &[u8]| {
        WholeFile::with_contents(&folder.join(name), audience, contents)
    };
    for disk in &machine.disks {
        let path = folder.join(&disk.file);
        match disk.use_ {
            DiskUse::System => {
                let thin = thin(disk, folder, target.base)
                    .with_context(|| format!("laying out {}", path.display()))?;
                // What the seed has of secrets will be on it.
                files.push(put(&disk.file, node.audience, &thin)?);
            }
            DiskUse::Seed => files.push(put(&disk.file, node.audience, &node.seed)?),
            DiskUse::Data if path.exists() && target.data == DataDisks::Kept => {
                let file = fs::metadata(&path)
                    .with_context(|| format!("looking at {}", path.display()))?;
                let size = ByteSize::from_bytes(file.len());
                written.kept.push(Kept { path, size, planned: disk.size });
            }
            DiskUse::Data => files.push(empty(&path, disk.size)?),
        }
    }
    let script = qemu::script(machine);
    let script = put(&format!("{}.sh", machine.name), Audience::Everybody, script.as_bytes())?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    script.file().set_permissions(mode).context("making the script executable")?;
    files.push(script);
    let domain = libvirt::domain(machine, target.lab, folder);
    files.push(put(&format!("{}.xml", machine.name), Audience::Everybody, domain.as_bytes())?);
    Ok(files)
}

fn thin(disk: &Disk, folder: &Path, base: &Base) -> std::io::Result<Vec<u8>> {
    let name = backing_name(folder, &base.path);
    overlay(disk_size(disk, base), Backing { name: &name, format: base.format })
}

/// Relative for a base inside the folder, so that the two can be moved together; `./` keeps a
/// colon from looking like a protocol.
fn backing_name(folder: &Path, base: &Path) -> String {
    match base.strip_prefix(folder) {
        Ok(inside) => format!("./{}", inside.display()),
        Err(_) => base.display().to_string(),
    }
}

/// A disk of zeros that takes no room until it is written to.
fn empty(path: &Path, size: ByteSize) -> Result<WholeFile> {
    let file = WholeFile::begin(path, Audience::Everybody)?;
    file.file()
        .set_len(size.bytes())
        .with_context(|| format!("making {} of {size}", path.display()))?;
    Ok(file)
}

fn write_networks(nodes: &[NodeImage], folder: &Path, lab: &str) -> Result<()> {
    let nets = crate::vm::networks(nodes.iter().map(|node| &node.machine));
    let files = nets.iter().map(|net| {
        let path = folder.join(format!("{lab}-{net}.network.xml"));
        WholeFile::with_contents(&path, Audience::Everybody, libvirt::network(lab, net).as_bytes())
    });
    whole_file::publish(files.collect::<Result<_>>()?)
}
