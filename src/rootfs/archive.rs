//! A node's root as a compressed tar archive, for containers and other tools.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

use crate::progress::{Progress, Unit};
use crate::rootfs::tree::{Contents, Kind, Meta, RootTree};
use crate::tree::TreePath;

/// Writes `tree` to `out`, which is a tar archive by gzip then: in path order, with owners by number,
/// and the capabilities of programs in pax records as GNU tar and bsdtar read them.
///
/// # Errors
///
/// Fails if `out` does, or a file cannot be read.
pub fn write(tree: &RootTree, out: impl Write) -> Result<()> {
    let gzip = GzBuilder::new().mtime(0).operating_system(255).write(out, Compression::new(6));
    let mut archive = Builder::new(gzip);
    let progress = Progress::start("packing the root tree", Some(tree.size()), Unit::Bytes);
    // Further names come last, so that what they are names of is there.
    let (links, others): (Vec<_>, Vec<_>) =
        tree.nodes().partition(|(_, node)| matches!(node.kind, Kind::HardLink(_)));
    let root = header_of(&tree.root, EntryType::Directory);
    append(&mut archive, root, "./", &[][..]).context("packing /")?;
    for (path, node) in others.into_iter().chain(links) {
        put(&mut archive, path, &node.meta, &node.kind)
            .with_context(|| format!("packing /{path}"))?;
        if let Kind::File(contents) = &node.kind {
            progress.advance(contents.size());
        }
    }
    archive.into_inner()?.finish()?.flush()?;
    progress.finish();
    Ok(())
}

fn put<W: Write>(
    archive: &mut Builder<W>,
    path: &TreePath,
    meta: &Meta,
    kind: &Kind,
) -> Result<()> {
    let name = path.as_str();
    put_attributes(archive, &meta.xattrs)?;
    let mut header = header_of(meta, type_of(kind));
    match kind {
        Kind::Folder => append(archive, header, &format!("{name}/"), &[][..])?,
        Kind::File(Contents::Bytes(bytes)) => {
            header.set_size(bytes.len() as u64);
            append(archive, header, name, &bytes[..])?;
        }
        Kind::File(Contents::Host(host, size)) => {
            header.set_size(*size);
            let file = File::open(host).with_context(|| format!("opening {}", host.display()))?;
            append(archive, header, name, Whole { file, n_left: *size })?;
        }
        Kind::Symlink(target) => archive.append_link(&mut header, name, target)?,
        Kind::HardLink(target) => archive.append_link(&mut header, name, target.as_str())?,
        Kind::Fifo => append(archive, header, name, &[][..])?,
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
            header.set_device_major(*major)?;
            header.set_device_minor(*minor)?;
            append(archive, header, name, &[][..])?;
        }
    }
    Ok(())
}

fn type_of(kind: &Kind) -> EntryType {
    match kind {
        Kind::Folder => EntryType::Directory,
        Kind::File(_) => EntryType::Regular,
        Kind::Symlink(_) => EntryType::Symlink,
        Kind::HardLink(_) => EntryType::Link,
        Kind::Fifo => EntryType::Fifo,
        Kind::CharDevice { .. } => EntryType::Char,
        Kind::BlockDevice { .. } => EntryType::Block,
    }
}

fn header_of(meta: &Meta, type_: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(type_);
    header.set_mode(meta.mode.bits());
    header.set_uid(meta.uid.into());
    header.set_gid(meta.gid.into());
    header.set_mtime(meta.mtime_secs);
    header.set_size(0);
    header
}

fn append<W: Write>(
    archive: &mut Builder<W>,
    mut header: Header,
    name: &str,
    data: impl Read,
) -> io::Result<()> {
    archive.append_data(&mut header, name, data)
}

fn put_attributes<W: Write>(
    archive: &mut Builder<W>,
    attributes: &BTreeMap<String, std::sync::Arc<[u8]>>,
) -> io::Result<()> {
    if attributes.is_empty() {
        return Ok(());
    }
    let keys: Vec<String> = attributes.keys().map(|key| format!("SCHILY.xattr.{key}")).collect();
    archive.append_pax_extensions(
        keys.iter().zip(attributes.values()).map(|(key, value)| (key.as_str(), &value[..])),
    )
}

/// A file that must have as many bytes as its header says: the crate would not tell.
struct Whole {
    file: File,
    n_left: u64,
}

impl Read for Whole {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n_read = self.file.read(buffer)?;
        let n_left = self.n_left.checked_sub(n_read as u64);
        match (n_read, n_left) {
            (0, Some(1..)) | (_, None) => Err(io::Error::other("it changed while it was read")),
            (n_read, Some(n_left)) => {
                self.n_left = n_left;
                Ok(n_read)
            }
        }
    }
}
