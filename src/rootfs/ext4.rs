//! A filesystem inside a disk image, filled without a mount: mke2fs makes it, debugfs fills it, and
//! e2fsck looks at the result.
//!
//! Not `mke2fs -d`: before e2fsprogs 1.47.1 it numbers files as the host's folders list them, keeps
//! the times of the host's files, and takes their owners, which a plain user cannot set. A script of
//! debugfs's has the order, owners and times that we give it, with the e2fsprogs of EL8 (1.45.6) as
//! well as later ones; the bytes are the same for the same e2fsprogs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::format::MTIME_SECS;
use crate::format::gpt::Guid;
use crate::output::disk::named;
use crate::progress::Progress;
use crate::rootfs::tree::{Contents, Kind, Meta, Node, RootTree};
use crate::tool;
use crate::tree::TreePath;
use crate::units::ByteSize;

/// The programs of e2fsprogs that are run.
pub const PROGRAMS: [&str; 3] = ["mke2fs", "debugfs", "e2fsck"];

/// What EL8's kernel and GRUB can read, whatever the host's mke2fs.conf says.
const FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,\
                        flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize,\
                        metadata_csum";
const BLOCK: u64 = 4096;
/// Bytes for each inode that there is room for.
const INODE_RATIO: u64 = 16384;
const JOURNAL_MIB: u64 = 32;

/// The filesystem in a disk image.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub image: &'a Path,
    /// Where it begins, in bytes.
    pub offset: u64,
}

impl Place<'_> {
    /// As e2fsprogs opens it (`ext2fs_open2`, "?offset=").
    fn option(self) -> String {
        format!("{}?offset={}", self.image.display(), self.offset)
    }
}

/// Bytes of a filesystem that has room for `tree`, and an eighth for what is written later.
pub fn size_for(tree: &RootTree) -> ByteSize {
    let n_inodes = tree.nodes().count() as u64;
    let contents = tree.size().max(n_inodes * INODE_RATIO);
    // Inode tables are a sixty-fourth, bitmaps and the tables of groups less.
    let bytes = contents + contents / 8 + (JOURNAL_MIB << 20) + (64 << 20);
    ByteSize::from_bytes(bytes.next_multiple_of(1 << 20))
}

/// Makes an empty filesystem of `size`.
///
/// # Errors
///
/// Fails with what mke2fs says.
pub fn make(place: Place<'_>, size: ByteSize, id: Guid) -> Result<()> {
    let extended = format!(
        "offset={},hash_seed={id},root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1,nodiscard",
        place.offset
    );
    let mut arguments: Vec<String> =
        ["-q", "-F", "-t", "ext4", "-O", FEATURES, "-E", &extended].map(str::to_owned).into();
    let numbers = [("-b", BLOCK), ("-I", 256), ("-i", INODE_RATIO), ("-m", 1)];
    arguments
        .extend(numbers.iter().flat_map(|(name, value)| [(*name).to_owned(), value.to_string()]));
    let journal = format!("size={JOURNAL_MIB}");
    let names = ["-J", &journal, "-L", "root", "-U", &id.to_string()].map(str::to_owned);
    arguments.extend(names);
    arguments.push(place.image.display().to_string());
    arguments.push((size.bytes() / BLOCK).to_string());
    tool::output_with(&tool::found("mke2fs"), &arguments, &environment())
        .context("making the root filesystem")?;
    Ok(())
}

/// The clock of e2fsprogs (`ext2fs_initialize`, `ext2fs_open2`), and no configuration of the host's.
fn environment() -> [(&'static str, String); 5] {
    [
        ("E2FSPROGS_FAKE_TIME", MTIME_SECS.to_string()),
        ("SOURCE_DATE_EPOCH", MTIME_SECS.to_string()),
        ("MKE2FS_CONFIG", "/dev/null".to_owned()),
        ("LC_ALL", "C".to_owned()),
        ("TZ", "UTC".to_owned()),
    ]
}

/// Brings the filesystem from what `before` is to what `after` is. `spool` is an empty folder.
///
/// # Errors
///
/// Fails with what debugfs or e2fsck says; the image is of no use then.
pub fn change(place: Place<'_>, before: &RootTree, after: &RootTree, spool: &Path) -> Result<()> {
    let mut files = Files { folder: spool, n_files: 0 };
    let script = script(before, after, &mut files)?;
    let path = spool.join("script");
    fs::write(&path, &script.text).with_context(|| named("writing", &path))?;
    let progress = Progress::start(
        "filling the root filesystem",
        Some(script.n_bytes),
        crate::progress::Unit::Bytes,
    );
    let n_before = taken(place.image);
    let arguments = ["-w", "-f", &path.display().to_string(), &place.option()].map(str::to_owned);
    let said = tool::watched(&tool::found("debugfs"), &arguments, &environment(), &mut |_| {
        progress.reach(taken(place.image).saturating_sub(n_before).min(script.n_bytes));
    });
    progress.finish();
    let said = said.context("filling the root filesystem")?;
    // Its first line is its version; a command that fails says so and is passed over.
    let faults: Vec<&str> = said.lines().skip(1).filter(|line| !line.trim().is_empty()).collect();
    if let Some(first) = faults.first() {
        let full = "Could not allocate";
        match first.contains(full) {
            true => {
                bail!("the root filesystem is too small for the tree: give hw.vm a larger disk")
            }
            false => bail!("filling the root filesystem: debugfs: {first}"),
        }
    }
    let arguments = ["-f", "-n", &place.option()].map(str::to_owned);
    tool::output_with(&tool::found("e2fsck"), &arguments, &environment())
        .context("checking the root filesystem")?;
    Ok(())
}

/// Bytes that a sparse file takes on disk.
fn taken(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.blocks() * 512)
}

/// Commands for debugfs.
struct Script {
    text: String,
    /// Of the files that it writes.
    n_bytes: u64,
}

/// Files for contents that are none of the host's yet.
struct Files<'a> {
    folder: &'a Path,
    n_files: usize,
}

impl Files<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.folder.join(format!("c{}", self.n_files));
        self.n_files += 1;
        let written = File::create_new(&path).and_then(|mut file| file.write_all(bytes));
        written.with_context(|| named("writing", &path))?;
        Ok(path)
    }
}

/// What is in one folder, by name.
type Folder<'t> = BTreeMap<&'t str, (&'t TreePath, Option<&'t Node>, Option<&'t Node>)>;

/// The commands that make `after` of `before`, folder by folder, parents first.
fn script(before: &RootTree, after: &RootTree, files: &mut Files<'_>) -> Result<Script> {
    let mut script = Script { text: String::new(), n_bytes: 0 };
    if before.root != after.root || before.nodes().next().is_none() {
        script.set("/", S_IFDIR, &after.root, &mut Vec::new())?;
    }
    let mut links = Vec::new();
    for (folder, nodes) in folders(before, after) {
        let mut commands = Script { text: String::new(), n_bytes: 0 };
        for (name, (path, old, new)) in nodes {
            commands.replace(name, path, (old, new), files, &mut links)?;
        }
        if !commands.text.is_empty() {
            writeln!(script.text, "cd {}", quoted(&format!("/{folder}"))?)?;
            script.text.push_str(&commands.text);
            script.n_bytes += commands.n_bytes;
        }
    }
    script.add_links(&links)?;
    Ok(script)
}

fn folders<'t>(before: &'t RootTree, after: &'t RootTree) -> BTreeMap<&'t str, Folder<'t>> {
    let mut folders: BTreeMap<&str, Folder<'_>> = BTreeMap::new();
    let place = |path: &'t TreePath| path.as_str().rsplit_once('/').unwrap_or(("", path.as_str()));
    for (path, node) in before.nodes() {
        let (folder, name) = place(path);
        folders.entry(folder).or_default().insert(name, (path, Some(node), None));
    }
    for (path, node) in after.nodes() {
        let (folder, name) = place(path);
        let both = folders.entry(folder).or_default().entry(name).or_insert((path, None, None));
        both.2 = Some(node);
    }
    folders
}

const S_IFIFO: u32 = 0o010_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFBLK: u32 = 0o060_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;

/// A further name and the file that it is of.
type HardLink<'t> = (&'t TreePath, &'t TreePath);

impl Script {
    fn replace<'t>(
        &mut self,
        name: &'t str,
        path: &'t TreePath,
        (old, new): (Option<&'t Node>, Option<&'t Node>),
        files: &mut Files<'_>,
        links: &mut Vec<HardLink<'t>>,
    ) -> Result<()> {
        if old == new {
            return Ok(());
        }
        // debugfs takes a name in angle brackets for an inode's number; `write` and `mknod` make a
        // name, and take no path.
        let here = quoted(&format!("./{name}"))?;
        let is_folder = |node: &Node| node.kind == Kind::Folder;
        let stays = old.is_some_and(is_folder) && new.is_some_and(is_folder);
        if old.is_some() && !stays {
            // The last name of a file takes the file with it; a tree never loses a folder.
            writeln!(self.text, "rm {here}")?;
        }
        let Some(Node { meta, kind }) = new else { return Ok(()) };
        let mut attributes = Vec::new();
        for (attribute, value) in &meta.xattrs {
            attributes.push((attribute.as_str(), files.put(value)?));
        }
        let type_ = match kind {
            Kind::Folder => {
                if !stays {
                    writeln!(self.text, "mkdir {here}")?;
                }
                S_IFDIR
            }
            Kind::File(contents) => {
                let host = match contents {
                    Contents::Host(path, _) => path.clone(),
                    Contents::Bytes(bytes) => files.put(bytes)?,
                };
                let host = host.to_str().context("a path that is not UTF-8")?;
                writeln!(self.text, "write {} {}", quoted(host)?, quoted(name)?)?;
                self.n_bytes += contents.size();
                S_IFREG
            }
            Kind::Symlink(target) => {
                writeln!(self.text, "symlink {here} {}", quoted(target)?)?;
                S_IFLNK
            }
            Kind::HardLink(target) => {
                links.push((path, target));
                return Ok(());
            }
            Kind::Fifo => {
                writeln!(self.text, "mknod {} p", quoted(name)?)?;
                S_IFIFO
            }
            Kind::CharDevice { major, minor } => {
                writeln!(self.text, "mknod {} c {major} {minor}", quoted(name)?)?;
                S_IFCHR
            }
            Kind::BlockDevice { major, minor } => {
                writeln!(self.text, "mknod {} b {major} {minor}", quoted(name)?)?;
                S_IFBLK
            }
        };
        self.set(&format!("./{name}"), type_, meta, &mut attributes)
    }

    fn set(
        &mut self,
        path: &str,
        type_: u32,
        meta: &Meta,
        attributes: &mut Vec<(&str, PathBuf)>,
    ) -> Result<()> {
        let here = quoted(path)?;
        let Meta { mode, uid, gid, mtime_secs, .. } = meta;
        let mode = if type_ == S_IFLNK { 0o777 } else { mode.bits() };
        writeln!(self.text, "sif {here} mode 0{:o}", type_ | mode)?;
        writeln!(self.text, "sif {here} uid {uid}\nsif {here} gid {gid}")?;
        writeln!(self.text, "sif {here} mtime @{mtime_secs}")?;
        for (name, value) in attributes.drain(..) {
            let value = value.to_str().context("a path that is not UTF-8")?;
            writeln!(self.text, "ea_set -f {} {here} {name}", quoted(value)?)?;
        }
        Ok(())
    }

    /// debugfs's `ln` leaves the count to its caller.
    fn add_links(&mut self, links: &[HardLink<'_>]) -> Result<()> {
        let mut n_names: BTreeMap<&TreePath, u32> = BTreeMap::new();
        for (path, target) in links {
            let (target_text, path) =
                (quoted(&format!("/{target}"))?, quoted(&format!("/{path}"))?);
            writeln!(self.text, "ln {target_text} {path}")?;
            *n_names.entry(*target).or_insert(1) += 1;
        }
        for (target, n_names) in n_names {
            let target = quoted(&format!("/{target}"))?;
            writeln!(self.text, "sif {target} links_count {n_names}")?;
        }
        Ok(())
    }
}

/// The longest line that debugfs reads (debugfs.c, `source_file`), less the rest of a command.
const MAX_WORD: usize = 4096;

/// A word as debugfs's own reader takes it (lib/ss/parse.c): quotes are doubled, nothing else is
/// special.
fn quoted(word: &str) -> Result<String> {
    ensure!(!word.contains('\n'), "debugfs cannot be told of {word:?}, which holds a line's end");
    ensure!(word.len() <= MAX_WORD, "debugfs cannot be told of a path of {} bytes", word.len());
    Ok(format!("\"{}\"", word.replace('"', "\"\"")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Mode;

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    fn put(tree: &mut RootTree, at: &str, kind: Kind) {
        let mut meta = Meta::ours(Mode::FILE);
        meta.mtime_secs = 1;
        tree.insert(path(at), Node { meta, kind }).unwrap();
    }

    #[test]
    fn commands_make_one_tree_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = Files { folder: folder.path(), n_files: 0 };
        let host = Kind::File(Contents::Host("/h/\"1\"".into(), 5));
        let mut before = RootTree::default();
        put(&mut before, "a/x", host.clone());
        put(&mut before, "a/gone", Kind::Fifo);
        let mut after = before.clone();
        after.remove(&path("a/gone"));
        put(&mut after, "a/x", Kind::Symlink("y z".into()));
        put(&mut after, "a/b/<2>", host);
        put(&mut after, "n", Kind::HardLink(path("a/b/<2>")));
        let script = script(&before, &after, &mut files).unwrap();
        let set = |name: &str, mode: &str, mtime: u32| {
            format!(
                "sif \"{name}\" mode {mode}\nsif \"{name}\" uid 0\nsif \"{name}\" gid 0\n\
                 sif \"{name}\" mtime @{mtime}\n"
            )
        };
        let expected = [
            "cd \"/a\"\nmkdir \"./b\"\n",
            &set("./b", "040755", MTIME_SECS),
            "rm \"./gone\"\nrm \"./x\"\nsymlink \"./x\" \"y z\"\n",
            &set("./x", "0120777", 1),
            "cd \"/a/b\"\nwrite \"/h/\"\"1\"\"\" \"<2>\"\n",
            &set("./<2>", "0100644", 1),
            "ln \"/a/b/<2>\" \"/n\"\nsif \"/a/b/<2>\" links_count 2\n",
        ];
        assert_eq!(script.text, expected.concat());
        assert_eq!(script.n_bytes, 5);
        assert!(quoted("a\nb").is_err());
    }
}
