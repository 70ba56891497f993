//! A file that is on its way: `NAME.part`, with what its server called it in `NAME.part.tag`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::format::digest::{Digest, Hasher};
use crate::progress::Progress;

/// A part file that is open for appending, and the digest of what is in it.
pub(super) struct Part {
    path: PathBuf,
    file: File,
    hasher: Hasher,
    length: u64,
    /// The URL and its validator (an entity tag or a date), if a server gave one.
    tag: Option<(String, String)>,
}

impl Part {
    /// Opens or makes the part file and reads what an earlier run left in it.
    pub fn open(path: &Path) -> Result<Self> {
        let open = || -> io::Result<Self> {
            let mut options = OpenOptions::new();
            let mut file =
                options.read(true).write(true).create(true).truncate(false).open(path)?;
            let mut hasher = Hasher::default();
            let length = hasher.feed(&mut file, |_| ())?;
            let tag = fs::read_to_string(tag_path(path)).ok();
            let tag = tag.as_deref().and_then(|tag| tag.trim_end().split_once('\n'));
            let tag = tag.map(|(url, validator)| (url.to_owned(), validator.to_owned()));
            Ok(Self { path: path.to_owned(), file, hasher, length, tag })
        };
        open().with_context(|| format!("opening {}", path.display()))
    }

    /// Bytes that are there.
    pub fn length(&self) -> u64 {
        self.length
    }

    pub fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// What the server at `url` calls the file that the bytes are of.
    pub fn validator_for(&self, url: &str) -> Option<&str> {
        let (of_url, validator) = self.tag.as_ref()?;
        (of_url == url).then_some(validator)
    }

    /// Notes what `url` calls the file, for the `If-Range` of a later request.
    pub fn remember(&mut self, url: &str, validator: Option<&str>) -> Result<()> {
        let tag = validator.map(|validator| (url.to_owned(), validator.to_owned()));
        if tag == self.tag {
            return Ok(());
        }
        let path = tag_path(&self.path);
        match &tag {
            Some((url, validator)) => fs::write(&path, format!("{url}\n{validator}\n")),
            None => remove_if_there(&path),
        }
        .with_context(|| format!("writing {}", path.display()))?;
        self.tag = tag;
        Ok(())
    }

    /// Throws the bytes away.
    pub fn restart(&mut self) -> Result<()> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)))
            .with_context(|| format!("emptying {}", self.path.display()))?;
        self.hasher = Hasher::default();
        self.length = 0;
        Ok(())
    }

    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).with_context(|| writing(&self.path))?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Appends all of `source`, which messages call `name`.
    pub fn append_all(
        &mut self,
        source: &mut impl Read,
        name: &str,
        progress: &Progress,
    ) -> Result<()> {
        let mut piece = vec![0; 256 * 1024];
        loop {
            let count = source.read(&mut piece).with_context(|| format!("reading {name}"))?;
            if count == 0 {
                return Ok(());
            }
            self.append(&piece[..count])?;
            progress.advance(count as u64);
        }
    }

    /// Fails if `bytes` more do not fit on the file's disk.
    pub fn ensure_room(&self, bytes: u64) -> Result<()> {
        let stat = rustix::fs::fstatvfs(&self.file)
            .with_context(|| format!("asking for the free space of {}", self.path.display()))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if bytes > free {
            bail!(
                "no room for {}: it needs {bytes} more bytes, {free} are free; \
                 make room or choose another cache folder",
                self.path.display()
            );
        }
        Ok(())
    }

    /// Brings the bytes to the disk; returns how many there are.
    pub fn finish(self) -> Result<u64> {
        self.file.sync_all().with_context(|| writing(&self.path))?;
        let tag = tag_path(&self.path);
        remove_if_there(&tag).with_context(|| format!("removing {}", tag.display()))?;
        Ok(self.length)
    }

    /// Removes the file.
    pub fn discard(self) -> Result<()> {
        for path in [&self.path, &tag_path(&self.path)] {
            remove_if_there(path).with_context(|| format!("removing {}", path.display()))?;
        }
        Ok(())
    }
}

fn writing(path: &Path) -> String {
    format!("writing {} (what is there is kept for the next run)", path.display())
}

fn tag_path(part: &Path) -> PathBuf {
    let mut path = part.as_os_str().to_owned();
    path.push(".tag");
    PathBuf::from(path)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_goes_on_where_the_earlier_one_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vmlinuz.part");
        let mut part = Part::open(&path).unwrap();
        part.append(b"ab").unwrap();
        part.remember("http://m/vmlinuz", Some("\"v1\"")).unwrap();
        drop(part);

        let mut part = Part::open(&path).unwrap();
        assert_eq!(part.length(), 2);
        assert_eq!(part.validator_for("http://m/vmlinuz"), Some("\"v1\""));
        assert_eq!(part.validator_for("http://other/vmlinuz"), None);
        part.append(b"c").unwrap();
        assert_eq!(part.digest(), Digest::of(b"abc"));
        assert_eq!(part.finish().unwrap(), 3);
        assert_eq!(fs::read(&path).unwrap(), b"abc");
        assert!(!tag_path(&path).exists());
    }

    #[test]
    fn a_full_disk_is_said_with_the_file() {
        // /dev/full takes nothing, as a full disk does (full(4)).
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("install.img.part");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        let mut part =
            Part { path: path.clone(), file, hasher: Hasher::default(), length: 0, tag: None };
        let error = part.append(b"x").unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            format!(
                "writing {} (what is there is kept for the next run): \
                 No space left on device (os error 28)",
                path.display()
            )
        );
    }

    #[test]
    fn what_does_not_fit_is_refused_before_it_is_fetched() {
        let folder = tempfile::tempdir().unwrap();
        let part = Part::open(&folder.path().join("boot.iso.part")).unwrap();
        let error = part.ensure_room(u64::MAX).unwrap_err().to_string();
        assert!(error.contains("it needs 18446744073709551615 more bytes"), "{error}");
        part.ensure_room(1).unwrap();
    }
}
