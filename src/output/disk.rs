//! Files and folders with explicit modes, whatever the umask, and errors that name the path.

use std::fs::{self, DirBuilder, DirEntry, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

pub const PUBLIC: u32 = 0o755;
pub const PUBLIC_FILE: u32 = 0o644;
pub const SECRET_DIR: u32 = 0o700;
pub const SECRET_FILE: u32 = 0o600;

/// `writing out/store/…`: what was done to which path.
pub fn named(action: &str, path: &Path) -> String {
    format!("{action} {}", path.display())
}

/// Makes sure that other programs and texts of ours can name `path` and what is below it.
///
/// # Errors
///
/// Fails if it is not UTF-8, or there is no current folder that it could be in.
pub fn require_text(path: &Path) -> Result<()> {
    let whole = std::path::absolute(path).with_context(|| named("looking for", path))?;
    ensure!(
        whole.to_str().is_some(),
        "the path {} is not UTF-8 text, as which other programs get it: rename the folder or file",
        whole.display()
    );
    Ok(())
}

/// Makes a folder that is not there yet.
pub fn make_dir(path: &Path, mode: u32) -> Result<()> {
    // The umask can only take bits away from the first call; the second gives them back.
    let make = || -> io::Result<()> {
        DirBuilder::new().mode(mode).create(path)?;
        fs::set_permissions(path, Permissions::from_mode(mode))
    };
    make().with_context(|| named("making", path))
}

/// Makes a folder unless there is one; another thread may be doing the same.
pub fn ensure_dir(path: &Path, mode: u32) -> Result<()> {
    let is_dir = || fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
    if is_dir() {
        return Ok(());
    }
    match make_dir(path, mode) {
        Err(_) if is_dir() => Ok(()),
        made => made,
    }
}

/// Makes the folders between `top` and the file at `top/name`.
pub fn ensure_parents(top: &Path, name: &str, mode: u32) -> Result<()> {
    name.match_indices('/').try_for_each(|(end, _)| ensure_dir(&top.join(&name[..end]), mode))
}

/// Creates a file that is not there yet.
pub fn create(path: &Path, mode: u32) -> Result<File> {
    let create = || -> io::Result<File> {
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        Ok(file)
    };
    create().with_context(|| named("creating", path))
}

/// Writes a file that is not there yet.
pub fn write_file(path: &Path, mode: u32, contents: &[u8]) -> Result<()> {
    create(path, mode)?.write_all(contents).with_context(|| named("writing", path))
}

/// Writes `text` into a file that has just been made.
pub fn fill_if_empty(mut file: &File, mode: u32, text: &str) -> io::Result<()> {
    if file.metadata()?.len() == 0 {
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())?;
    }
    Ok(())
}

/// Whether anything is at `path`, a link to nowhere too.
pub fn exists(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(fault) => Err(fault).with_context(|| named("looking at", path)),
    }
}

/// Whether `path` is a file of that size and mode.
pub fn is_file_of(path: &Path, size: u64, mode: u32) -> bool {
    fs::symlink_metadata(path)
        .is_ok_and(|it| it.is_file() && it.len() == size && mode_of(&it) == mode)
}

/// Whether `path` is a folder of that mode.
pub fn is_dir_of(path: &Path, mode: u32) -> bool {
    fs::symlink_metadata(path).is_ok_and(|it| it.is_dir() && mode_of(&it) == mode)
}

/// Permission bits, without the type.
pub fn mode_of(metadata: &Metadata) -> u32 {
    metadata.permissions().mode() & 0o7777
}

/// Removes a folder with all that is in it, if there is one.
pub fn remove_dir(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(fault) if fault.kind() != io::ErrorKind::NotFound => {
            Err(fault).with_context(|| named("removing", path))
        }
        _ => Ok(()),
    }
}

pub fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| named("renaming a finished part to", to))
}

/// Brings a folder's entries to disk.
pub fn sync_dir(path: &Path) -> Result<()> {
    let sync = || File::open(path)?.sync_all();
    sync().with_context(|| named("bringing to disk", path))
}

/// What is in a folder, in no order, by name; for names that are not UTF-8 something like
/// them.
pub fn entries_in(path: &Path) -> Result<Vec<(String, PathBuf)>> {
    let entry = |entry: io::Result<DirEntry>| {
        let entry = entry?;
        Ok((entry.file_name().to_string_lossy().into_owned(), entry.path()))
    };
    let read = || fs::read_dir(path)?.map(entry).collect::<io::Result<_>>();
    read().with_context(|| named("reading", path))
}

/// Names of what is in a folder, in no order; names that are not UTF-8 are not ours.
pub fn names_in(path: &Path) -> Result<Vec<String>> {
    let read = || -> io::Result<Vec<String>> {
        let names = fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        names.filter_map(Result::transpose).collect()
    };
    read().with_context(|| named("reading", path))
}
