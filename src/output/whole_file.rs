//! Single files outside of a boot tree, which have their name only when they are whole.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, openat, statvfs};

use crate::output::disk::{self, named};
use crate::units::ByteSize;

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    Everybody,
    /// The owner alone: it holds secrets.
    Owner,
}

/// A file that is being written. It has no name until [`publish`]: whatever ends the program
/// before, nothing is left.
#[derive(Debug)]
pub struct WholeFile {
    file: File,
    path: PathBuf,
    /// Its name meanwhile, on a filesystem that knows no files without one.
    part: Option<PathBuf>,
}

impl WholeFile {
    /// Begins a file that is to be at `path`; its folder exists.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be made there.
    pub fn begin(path: &Path, audience: Audience) -> Result<Self> {
        let mode = match audience {
            Audience::Everybody => disk::PUBLIC_FILE,
            Audience::Owner => disk::SECRET_FILE,
        };
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let (file, part) = match openat(CWD, folder_of(path), flags, Mode::from_raw_mode(mode)) {
            Ok(file) => (File::from(file), None),
            Err(_) => {
                let part = part_of(path);
                remove_if_there(&part)?;
                (disk::create(&part, mode)?, Some(part))
            }
        };
        // The umask has its say in the mode of a new file.
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        file.set_permissions(permissions).with_context(|| named("making", path))?;
        Ok(Self { file, path: path.to_owned(), part })
    }

    /// Begins a file with these contents.
    ///
    /// # Errors
    ///
    /// Fails if they cannot be written.
    pub fn with_contents(path: &Path, audience: Audience, contents: &[u8]) -> Result<Self> {
        let begun = Self::begin(path, audience)?;
        io::Write::write_all(&mut &begun.file, contents).with_context(|| named("writing", path))?;
        Ok(begun)
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where the file will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path by which another program can open it meanwhile (proc(5), `/proc/PID/fd`).
    pub fn path_meanwhile(&self) -> PathBuf {
        match &self.part {
            Some(part) => part.clone(),
            None => {
                PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()))
            }
        }
    }

    fn name(mut self) -> Result<()> {
        let part = match self.part.take() {
            Some(part) => part,
            None => {
                let part = part_of(&self.path);
                remove_if_there(&part)?;
                linkat(CWD, self.path_meanwhile(), CWD, &part, AtFlags::SYMLINK_FOLLOW)
                    .map_err(io::Error::from)
                    .with_context(|| named("naming", &part))?;
                part
            }
        };
        disk::rename(&part, &self.path)
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        if let Some(part) = &self.part {
            // Nobody takes it for the file itself.
            let _ = fs::remove_file(part);
        }
    }
}

/// Brings `files`, which are of one folder, to disk and gives them their names, in the place of
/// files that have them.
///
/// # Errors
///
/// Fails if the disk does; the file that failed and those after it are not there then.
pub fn publish(files: Vec<WholeFile>) -> Result<()> {
    let Some(first) = files.first() else { return Ok(()) };
    let folder = folder_of(&first.path).to_owned();
    for file in &files {
        file.file.sync_all().with_context(|| named("bringing to disk", &file.path))?;
    }
    files.into_iter().try_for_each(WholeFile::name)?;
    disk::sync_dir(&folder)
}

/// Makes a folder with those above it, and makes sure that `size` bytes will fit in it.
///
/// # Errors
///
/// Says how much there is and how much is needed.
pub fn require_folder(folder: &Path, size: ByteSize) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| named("making", folder))?;
    let space = statvfs(folder).map_err(io::Error::from);
    let space = space.with_context(|| named("asking for the free space of", folder))?;
    let free = ByteSize::from_bytes(space.f_bavail.saturating_mul(space.f_frsize));
    ensure!(
        free >= size,
        "{} has {} MiB free, and {} MiB are to be written: free some space, or choose another folder",
        folder.display(),
        free.mib(),
        size.mib() + 1,
    );
    Ok(())
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn part_of(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".part");
    path.with_file_name(name)
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(fault) if fault.kind() != io::ErrorKind::NotFound => {
            Err(fault).with_context(|| named("removing", path))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_has_its_name_only_when_it_is_published() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node0.img");
        fs::write(&path, "before").unwrap();
        let begun = WholeFile::with_contents(&path, Audience::Owner, b"after").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"before");
        assert_eq!(fs::read(begun.path_meanwhile()).unwrap(), b"after");
        drop(begun);
        assert_eq!(disk::names_in(folder.path()).unwrap(), ["node0.img"]);

        let begun = [("a", Audience::Owner, 0o600), ("node0.img", Audience::Everybody, 0o644)];
        let files = begun.map(|(name, audience, _)| {
            WholeFile::with_contents(&folder.path().join(name), audience, name.as_bytes()).unwrap()
        });
        publish(files.into()).unwrap();
        for (name, _, mode) in begun {
            let path = folder.path().join(name);
            assert_eq!(fs::read(&path).unwrap(), name.as_bytes());
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, mode);
        }
        assert_eq!(disk::names_in(folder.path()).unwrap().len(), 2);
    }

    #[test]
    fn a_filesystem_without_nameless_files_leaves_no_part_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node0.img");
        let begin = || {
            let part = part_of(&path);
            let file = disk::create(&part, disk::PUBLIC_FILE).unwrap();
            WholeFile { file, path: path.clone(), part: Some(part) }
        };
        drop(begin());
        assert_eq!(disk::names_in(folder.path()).unwrap(), [""; 0]);
        publish(vec![begin()]).unwrap();
        assert_eq!(disk::names_in(folder.path()).unwrap(), ["node0.img"]);
    }

    #[test]
    fn what_does_not_fit_is_refused_before_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let fault = require_folder(folder.path(), ByteSize::from_gib(1 << 30)).unwrap_err();
        assert!(fault.to_string().contains("1099511627777 MiB are to be written"), "{fault}");
        require_folder(&folder.path().join("a/b"), ByteSize::from_mib(1)).unwrap();
        assert!(folder.path().join("a/b").is_dir());
    }
}
