//! The embed area of an ISO: a file of fixed size that boot loaders hand to the kernel as a further
//! initrd, and that is written anew for each node where it lies, without making the ISO anew.
//!
//! It is one gzip member with a cpio archive, then zeros, which the kernel skips between archives
//! (`init/initramfs.c`, `unpack_to_rootfs`). The member's file name (RFC 1952 §2.3.1, FNAME,
//! which the kernel passes over: `lib/decompress_inflate.c`) says what the area is and whose.

use std::fmt;
use std::io::{self, Read};

use flate2::bufread::GzDecoder;

use crate::format::{Archive, Body, gzip, pack_around};
use crate::media::install_archive::{self, Handed};
use crate::units::ByteSize;

/// Where the area is in the ISO. ISOLINUX knows names of 8.3 characters only.
pub const PATH: &str = "isolinux/node.img";
/// As boot configurations name it.
pub const INITRD: &str = "/isolinux/node.img";
/// Bytes of the area on an ISO for one node: layers, overlay and kickstart of a node take some
/// 100 KiB, and a site's own layers may be large.
pub const SIZE: ByteSize = ByteSize::from_mib(4);
/// What the name of the member begins with; the version, size and owner follow.
const MAGIC: &str = "nodeforge-area-1";
/// More than any area unpacks to.
const MAX_UNPACKED: u64 = 1 << 30;
const N_HEADER_BYTES: usize = 10;
/// RFC 1952 §2.3.1: a file name follows the header.
const FNAME: u8 = 1 << 3;

/// Whose an area is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// An ISO that nodes' ISOs are made from; it installs nothing.
    Nobody,
    Node(String),
    /// All nodes of the cluster of that name.
    Cluster(String),
}

impl Owner {
    fn as_words(&self) -> String {
        match self {
            Owner::Nobody => "nobody".to_owned(),
            Owner::Node(name) => format!("node {name}"),
            Owner::Cluster(name) => format!("cluster {name}"),
        }
    }

    fn of_words(words: &str) -> Option<Self> {
        match words.split_once(' ') {
            None if words == "nobody" => Some(Owner::Nobody),
            Some(("node", name)) => Some(Owner::Node(name.to_owned())),
            Some(("cluster", name)) => Some(Owner::Cluster(name.to_owned())),
            _ => None,
        }
    }
}

/// An area that does not hold what it should.
#[derive(Debug, thiserror::Error)]
pub enum AreaError {
    #[error("{needed} bytes do not fit into an embed area of {size}")]
    TooLarge { needed: usize, size: usize },
    #[error("it is no embed area of nodeforge")]
    NoArea,
    #[error("it says that it has {said} bytes, and has {found}")]
    Size { said: usize, found: usize },
    #[error("something stands behind its archive")]
    Surplus,
    #[error("its archive is damaged: {0}")]
    Damaged(io::Error),
    #[error("packing it: {0}")]
    Packing(io::Error),
}

/// Packs `files`, by their names in the root of the initrd, as the content of an area of `size`
/// bytes. `ready` is what many areas have in common.
///
/// The same arguments give the same bytes.
///
/// # Errors
///
/// [`AreaError::TooLarge`] where they do not fit; [`AreaError::Packing`] for a name that comes
/// twice.
pub fn packed(
    files: &[(String, &[u8])],
    ready: Option<&gzip::Ready>,
    owner: &Owner,
    size: usize,
) -> Result<Vec<u8>, AreaError> {
    let member = member(files, ready)?;
    with_name(&member, owner, size)
}

/// As [`packed`], for an area that is as large as it has to be, in MiB and not below [`SIZE`].
///
/// # Errors
///
/// Those of [`packed`].
pub fn packed_whole(
    files: &[(String, &[u8])],
    ready: Option<&gzip::Ready>,
    owner: &Owner,
) -> Result<(Vec<u8>, usize), AreaError> {
    let member = member(files, ready)?;
    let size = (member.len() + 1024).next_multiple_of(1 << 20).max(SIZE.bytes() as usize);
    Ok((with_name(&member, owner, size)?, size))
}

fn member(files: &[(String, &[u8])], ready: Option<&gzip::Ready>) -> Result<Vec<u8>, AreaError> {
    let handed: Vec<Handed<'_>> =
        files.iter().map(|(name, contents)| Handed { name, contents }).collect();
    let fault = |fault: String| AreaError::Packing(io::Error::other(fault));
    let tree = install_archive::tree(&handed).map_err(|twice| fault(twice.to_string()))?;
    pack_around(&tree, Archive::Newc, gzip::Level::Fast, ready).map_err(AreaError::Packing)
}

fn with_name(member: &[u8], owner: &Owner, size: usize) -> Result<Vec<u8>, AreaError> {
    let name = format!("{MAGIC} {size} {}\0", owner.as_words());
    let needed = member.len() + name.len();
    if needed > size {
        return Err(AreaError::TooLarge { needed, size });
    }
    let (header, rest) = member.split_at(N_HEADER_BYTES);
    let mut named = Vec::with_capacity(needed);
    named.extend_from_slice(header);
    named[3] |= FNAME;
    named.extend_from_slice(name.as_bytes());
    named.extend_from_slice(rest);
    Ok(named)
}

/// An area that was read.
#[derive(Clone, PartialEq, Eq)]
pub struct Area {
    pub owner: Owner,
    /// Bytes that are not padding.
    pub n_used: usize,
    /// By their names in the root of the initrd.
    pub files: Vec<(String, Vec<u8>)>,
}

impl fmt::Debug for Area {
    /// Names only: secrets are among the files.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.files.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Area")
            .field("owner", &self.owner)
            .field("n_used", &self.n_used)
            .field("files", &names)
            .finish()
    }
}

/// The size and owner that an area says it has; `start` is its first 512 bytes.
///
/// # Errors
///
/// [`AreaError::NoArea`]
pub fn begins(start: &[u8]) -> Result<(usize, Owner), AreaError> {
    let name = start.strip_prefix(&[0x1f, 0x8b, 8, FNAME]).and_then(|rest| rest.get(6..));
    let name = name.and_then(|rest| rest.split(|byte| *byte == 0).next());
    let name = name.and_then(|name| std::str::from_utf8(name).ok());
    let rest = name.and_then(|name| name.strip_prefix(MAGIC)?.strip_prefix(' '));
    let (size, words) = rest.and_then(|rest| rest.split_once(' ')).ok_or(AreaError::NoArea)?;
    let size = size.parse().map_err(|_| AreaError::NoArea)?;
    Ok((size, Owner::of_words(words).ok_or(AreaError::NoArea)?))
}

/// Reads a whole area.
///
/// # Errors
///
/// [`AreaError`] for anything that [`packed`] does not write.
pub fn read(area: &[u8]) -> Result<Area, AreaError> {
    let (said, owner) = begins(area)?;
    if said != area.len() {
        return Err(AreaError::Size { said, found: area.len() });
    }
    let mut member = GzDecoder::new(area);
    let mut archive = Vec::new();
    let n_read = member.by_ref().take(MAX_UNPACKED).read_to_end(&mut archive);
    n_read.map_err(AreaError::Damaged)?;
    let rest = member.into_inner();
    if rest.iter().any(|byte| *byte != 0) {
        return Err(AreaError::Surplus);
    }
    let mut files = Vec::new();
    let read = Archive::Newc.read(&archive, &mut |found| {
        if let Body::File(contents) = found.body {
            files.push((found.path.to_owned(), contents.to_vec()));
        }
        Ok(())
    });
    read.map_err(AreaError::Damaged)?;
    Ok(Area { owner, n_used: area.len() - rest.len(), files })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Vec<(String, &'static [u8])> {
        vec![
            ("ks.cfg".to_owned(), b"text\n"),
            ("nodeforge-overlay.tar.gz.ks".to_owned(), b"\x1f\x8b"),
        ]
    }

    #[test]
    fn an_area_is_read_as_it_was_written() {
        for owner in [Owner::Nobody, Owner::Node("srv001".into()), Owner::Cluster("lab3".into())] {
            let (mut area, size) = packed_whole(&files(), None, &owner).unwrap();
            let n_used = area.len();
            assert_eq!(size, 4 << 20);
            area.resize(size, 0);
            let files = files().into_iter().map(|(name, bytes)| (name, bytes.to_vec())).collect();
            assert_eq!(read(&area).unwrap(), Area { owner: owner.clone(), n_used, files });
            assert_eq!(begins(&area[..512]).unwrap(), (size, owner));
        }
    }

    #[test]
    fn an_area_that_is_not_whole_is_refused() {
        let fault = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut area = packed(&files(), None, &Owner::Nobody, 4096).unwrap();
            area.resize(4096, 0);
            change(&mut area);
            read(&area).unwrap_err().to_string()
        };
        assert_eq!(fault(&|area| area[12] = b'X'), "it is no embed area of nodeforge");
        assert_eq!(
            fault(&|area| area.truncate(2048)),
            "it says that it has 4096 bytes, and has 2048"
        );
        assert_eq!(fault(&|area| area[4000] = 1), "something stands behind its archive");
        assert!(fault(&|area| area[80] ^= 1).starts_with("its archive is damaged: "));
        assert_eq!(
            packed(&files(), None, &Owner::Nobody, 64)
                .unwrap_err()
                .to_string()
                .split(' ')
                .skip(1)
                .collect::<Vec<_>>()
                .join(" "),
            "bytes do not fit into an embed area of 64"
        );
    }
}
