//! A root tree as somebody made it: a folder, or a tar archive, plain or by gzip, xz or zstd.
//!
//! An archive says who owns what; a folder does if root made it, and else all of it is taken for
//! root's. Labels of SELinux are left behind: they are those of the host's policy.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use flate2::read::MultiGzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::StreamingDecoder;
use tar::{Archive, Entry, EntryType};
use walkdir::WalkDir;

use crate::output::disk::named;
use crate::progress::{Progress, Unit};
use crate::rootfs::tree::{Contents, Kind, Meta, Node, RootTree};
use crate::tree::{Mode, TreePath};

/// What a decoder may take for its window, in bytes: that of `xz -9e` or `zstd --long`.
const MAX_WINDOW_BYTES: u64 = 128 << 20;
/// The attributes that are kept: what packages grant their programs.
const CAPABILITY: &str = "security.capability";
/// How archives name attributes (star, GNU tar, bsdtar).
const PAX_XATTR: &str = "SCHILY.xattr.";
/// Made by mke2fs itself.
const LOST_FOUND: &str = "lost+found";
/// As many problems as are told at once.
const MAX_TOLD: usize = 20;

/// Reads the tree at `path`; files of an archive are put into the folder `spool`.
///
/// # Errors
///
/// Says what the tree has that no disk can have, and what cannot be read.
pub fn read(path: &Path, spool: &Path) -> Result<RootTree> {
    let metadata = fs::metadata(path).with_context(|| named("opening the root tree", path))?;
    let mut reading = Reading::default();
    match metadata.is_dir() {
        true => reading.folder(path)?,
        false => reading.archive(path, spool)?,
    }
    reading.finish(path)
}

/// A tree while it is read, and what is wrong with it.
#[derive(Default)]
struct Reading {
    tree: RootTree,
    problems: Vec<String>,
}

impl Reading {
    fn finish(mut self, path: &Path) -> Result<RootTree> {
        let n_more = self.problems.len().saturating_sub(MAX_TOLD);
        self.problems.truncate(MAX_TOLD);
        if n_more > 0 {
            self.problems.push(format!("and {n_more} more"));
        }
        let shown = path.display();
        ensure!(self.problems.is_empty(), "the root tree {shown}: {}", self.problems.join("; "));
        for needed in ["etc", "usr"] {
            let is_there = self.tree.resolve(needed).is_some();
            ensure!(is_there, "{shown} is no root tree: it has no /{needed}");
        }
        Ok(self.tree)
    }

    fn put(&mut self, path: TreePath, node: Node) {
        if let Err(problem) = self.tree.insert(path, node) {
            self.problems.push(problem);
        }
    }

    fn folder(&mut self, top: &Path) -> Result<()> {
        let is_roots = fs::metadata(top).with_context(|| named("reading", top))?.uid() == 0;
        let progress = Progress::start("reading the root tree", None, Unit::Files);
        let mut first_names: HashMap<(u64, u64), TreePath> = HashMap::new();
        for entry in WalkDir::new(top).sort_by_file_name() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(fault) => {
                    self.problems.push(fault.to_string());
                    continue;
                }
            };
            progress.advance(1);
            let metadata = entry.metadata().with_context(|| named("reading", entry.path()))?;
            let below = entry.path().strip_prefix(top).expect("it is below");
            let mut meta = meta_of(&metadata);
            if !is_roots {
                (meta.uid, meta.gid) = (0, 0);
            }
            if below.as_os_str().is_empty() {
                self.tree.root = meta;
                continue;
            }
            if below.starts_with(LOST_FOUND) {
                continue;
            }
            let Some(path) = self.tree_path(below) else { continue };
            let mut first_name = || {
                let id = (metadata.dev(), metadata.ino());
                first_names.entry(id).or_insert_with(|| path.clone()).clone()
            };
            let kind = match metadata.nlink() > 1 && metadata.is_file() {
                true => Some(first_name()).filter(|first| *first != path).map(Kind::HardLink),
                false => None,
            };
            if let Some(kind) = kind.or_else(|| self.kind_on_disk(entry.path(), &metadata)) {
                meta.xattrs = capabilities(entry.path(), &kind)?;
                self.put(path, Node { meta, kind });
            }
        }
        progress.finish();
        Ok(())
    }

    fn tree_path(&mut self, path: &Path) -> Option<TreePath> {
        let clean = path.to_str().and_then(|text| TreePath::new(text).ok());
        if clean.is_none() {
            self.problems
                .push(format!("{path:?} is no clean path: control characters, or not UTF-8"));
        }
        clean
    }

    /// `None` for what a new system has no use for: sockets.
    fn kind_on_disk(&mut self, path: &Path, metadata: &fs::Metadata) -> Option<Kind> {
        let type_ = metadata.file_type();
        if type_.is_dir() {
            return Some(Kind::Folder);
        }
        if type_.is_symlink() {
            let target = fs::read_link(path)
                .ok()
                .and_then(|target| target.into_os_string().into_string().ok());
            if target.is_none() {
                self.problems.push(format!("{} leads to a path that is not UTF-8", path.display()));
            }
            return target.map(Kind::Symlink);
        }
        if type_.is_file() {
            if let Err(fault) = File::open(path) {
                self.problems.push(format!("{}: {fault}", path.display()));
            }
            return Some(Kind::File(Contents::Host(path.to_owned(), metadata.len())));
        }
        let (major, minor) =
            (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
        match () {
            () if type_.is_fifo() => Some(Kind::Fifo),
            () if type_.is_char_device() => Some(Kind::CharDevice { major, minor }),
            () if type_.is_block_device() => Some(Kind::BlockDevice { major, minor }),
            () => None,
        }
    }

    fn archive(&mut self, path: &Path, spool: &Path) -> Result<()> {
        let file = File::open(path).with_context(|| named("opening", path))?;
        let size = file.metadata().with_context(|| named("reading", path))?.len();
        let progress = Progress::start("unpacking the root tree", Some(size), Unit::Bytes);
        let counted = Counted { file, progress: progress.clone() };
        let plain = unpacked(BufReader::with_capacity(1 << 20, counted))
            .with_context(|| named("unpacking", path))?;
        let mut spooled = Spool { folder: spool, n_files: 0 };
        let mut archive = Archive::new(plain);
        let entries = archive.entries().with_context(|| named("reading", path))?;
        for entry in entries {
            let entry =
                entry.with_context(|| format!("{} is no whole tar archive", path.display()))?;
            self.member(entry, &mut spooled).with_context(|| named("unpacking", path))?;
        }
        progress.finish();
        self.check_hard_links();
        Ok(())
    }

    fn member<R: Read>(&mut self, mut entry: Entry<'_, R>, spool: &mut Spool<'_>) -> Result<()> {
        let name = entry.path().context("reading a name")?.into_owned();
        let name = name.strip_prefix("/").unwrap_or(&name);
        let parts = name.components().filter(|part| *part != std::path::Component::CurDir);
        let below: PathBuf = parts.collect();
        let meta = member_meta(&mut entry).with_context(|| named("reading", &below))?;
        if below.as_os_str().is_empty() {
            self.tree.root = meta;
            return Ok(());
        }
        if below.starts_with(LOST_FOUND) {
            return Ok(());
        }
        let Some(path) = self.tree_path(&below) else { return Ok(()) };
        let kind = match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                Kind::File(spool.keep(&mut entry).with_context(|| named("unpacking", &below))?)
            }
            EntryType::Directory => Kind::Folder,
            EntryType::Fifo => Kind::Fifo,
            EntryType::Symlink => Kind::Symlink(link_text(&entry)?),
            EntryType::Link => {
                let target = link_text(&entry)?;
                let target = target.trim_start_matches("./").trim_start_matches('/');
                match TreePath::new(target) {
                    Ok(target) => Kind::HardLink(target),
                    Err(fault) => {
                        self.problems.push(format!("/{path} is a second name of {fault}"));
                        return Ok(());
                    }
                }
            }
            EntryType::Char | EntryType::Block => {
                let number = |number: io::Result<Option<u32>>| number.ok().flatten().unwrap_or(0);
                let header = entry.header();
                let major = number(header.device_major());
                let minor = number(header.device_minor());
                match header.entry_type() {
                    EntryType::Char => Kind::CharDevice { major, minor },
                    _ => Kind::BlockDevice { major, minor },
                }
            }
            other => {
                self.problems.push(format!("/{path} is of the unknown type {other:?}"));
                return Ok(());
            }
        };
        self.put(path, Node { meta, kind });
        Ok(())
    }

    /// A name of a name is a name of the file; one of nothing is a problem.
    fn check_hard_links(&mut self) {
        let links = self.tree.nodes().filter_map(|(path, node)| match &node.kind {
            Kind::HardLink(target) => Some((path.clone(), target.clone())),
            _ => None,
        });
        for (path, mut target) in links.collect::<Vec<_>>() {
            let mut seen = BTreeSet::from([path.clone()]);
            while let Some(Node { kind: Kind::HardLink(next), .. }) = self.tree.get(&target) {
                if !seen.insert(target.clone()) {
                    break;
                }
                target = next.clone();
            }
            match self.tree.get(&target).map(|node| &node.kind) {
                Some(Kind::File(_)) => {
                    let meta = self.tree.get(&target).expect("it is there").meta.clone();
                    self.put(path, Node { meta, kind: Kind::HardLink(target) });
                }
                _ => self
                    .problems
                    .push(format!("/{path} is a second name of /{target}, which is no file")),
            }
        }
    }
}

fn meta_of(metadata: &fs::Metadata) -> Meta {
    Meta {
        mode: Mode::new(metadata.mode() & 0o7777).expect("12 bits"),
        uid: metadata.uid(),
        gid: metadata.gid(),
        mtime_secs: u64::try_from(metadata.mtime()).unwrap_or(0),
        xattrs: BTreeMap::new(),
    }
}

fn capabilities(path: &Path, kind: &Kind) -> Result<BTreeMap<String, Arc<[u8]>>> {
    let mut found = BTreeMap::new();
    let mut value = [0; 256];
    if matches!(kind, Kind::File(_)) {
        match rustix::fs::lgetxattr(path, CAPABILITY, &mut value[..]) {
            Ok(n_bytes) => drop(found.insert(CAPABILITY.to_owned(), Arc::from(&value[..n_bytes]))),
            Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => {}
            Err(fault) => {
                return Err(io::Error::from(fault)).with_context(|| named("reading", path));
            }
        }
    }
    Ok(found)
}

fn member_meta<R: Read>(entry: &mut Entry<'_, R>) -> Result<Meta> {
    let header = entry.header();
    let mode = header.mode()? & 0o7777;
    let number = |number: u64| u32::try_from(number).context("a user's number is too large");
    let (uid, gid) = (number(header.uid()?)?, number(header.gid()?)?);
    let mut meta = Meta { uid, gid, ..Meta::ours(Mode::new(mode).expect("12 bits")) };
    meta.mtime_secs = header.mtime()?;
    if let Some(extensions) = entry.pax_extensions()? {
        for extension in extensions {
            let extension = extension?;
            let key = extension.key().unwrap_or_default();
            let text = || extension.value().unwrap_or_default();
            match key {
                "uid" => meta.uid = text().parse()?,
                "gid" => meta.gid = text().parse()?,
                "mtime" => {
                    meta.mtime_secs = text().split('.').next().unwrap_or("0").parse().unwrap_or(0)
                }
                _ if key.strip_prefix(PAX_XATTR) == Some(CAPABILITY) => {
                    meta.xattrs.insert(CAPABILITY.to_owned(), extension.value_bytes().into());
                }
                _ => {}
            }
        }
    }
    Ok(meta)
}

fn link_text<R: Read>(entry: &Entry<'_, R>) -> Result<String> {
    let target = entry.link_name_bytes().context("a link leads to nothing")?;
    String::from_utf8(target.into_owned()).context("a link leads to a path that is not UTF-8")
}

/// Files of an archive, by numbers.
struct Spool<'a> {
    folder: &'a Path,
    n_files: usize,
}

impl Spool<'_> {
    fn keep(&mut self, contents: &mut impl Read) -> Result<Contents> {
        let path = self.folder.join(self.n_files.to_string());
        self.n_files += 1;
        let copied = File::create_new(&path).and_then(|mut file| io::copy(contents, &mut file));
        let size = copied.with_context(|| named("writing", &path))?;
        Ok(Contents::Host(path, size))
    }
}

/// A file whose bytes move a bar.
struct Counted {
    file: File,
    progress: Progress,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n_read = self.file.read(buffer)?;
        self.progress.advance(n_read as u64);
        Ok(n_read)
    }
}

/// The archive without its compression, told by its first bytes.
fn unpacked(mut file: BufReader<Counted>) -> Result<Box<dyn Read>> {
    let begin = io::BufRead::fill_buf(&mut file)?;
    let is = |magic: &[u8]| begin.starts_with(magic);
    Ok(if is(b"\x1f\x8b") {
        Box::new(MultiGzDecoder::new(file))
    } else if is(b"\xfd7zXZ\0") {
        Box::new(XzReader::new_mem_limit(file, true, u32::try_from(MAX_WINDOW_BYTES / 1024)?))
    } else if is(b"\x28\xb5\x2f\xfd") {
        Box::new(StreamingDecoder::new_with_max_window_size(file, MAX_WINDOW_BYTES)?)
    } else if begin.get(257..262) == Some(b"ustar") {
        Box::new(file)
    } else {
        bail!("it is neither a folder nor a tar archive, plain or by gzip, xz or zstd")
    })
}
