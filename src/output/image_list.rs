//! What images are in a folder, as they were made: `images.json` for programs, `SHA256SUMS` for
//! `sha256sum -c`.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::format::digest::Digest;
use crate::manifest::Reproducible;
use crate::output::disk::named;
use crate::output::whole_file::{self, Audience, WholeFile};
use crate::progress::{Progress, Unit};

pub const LIST: &str = "images.json";
pub const SUMS: &str = "SHA256SUMS";

/// The version of the list's format.
const VERSION: u32 = 1;

/// An image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The name of its file.
    pub file: String,
    /// Whose it is; `None` of what is several nodes'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// `raw disk`, `qcow2 disk`, `seed`, …: for people.
    pub kind: String,
    /// In bytes.
    pub size: u64,
    pub sha256: Digest,
    pub reproducible: Reproducible,
    /// Why it is not reproducible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What it was installed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installed: Option<Installed>,
}

/// What an image that an installer made was made of: of the same nothing else is to be installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    /// The digest of the installer's ISO.
    pub iso: Digest,
    pub kickstart: Digest,
    /// Firmware, bus and size of its disk.
    pub machine: String,
}

#[derive(Serialize, Deserialize)]
struct List {
    version: u32,
    images: Vec<Image>,
}

impl Image {
    /// Of what was written at `path`.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be read.
    pub fn of(path: &Path, file: File, node: &str, kind: &str) -> Result<Self> {
        let length = file.metadata().with_context(|| named("reading", path))?.len();
        let progress = Progress::start("taking the image's digest", Some(length), Unit::Bytes);
        let read = Digest::of_reader(file, |bytes| progress.advance(bytes));
        let (sha256, size) = read.with_context(|| named("reading", path))?;
        progress.finish();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(Self {
            file: name.into_owned(),
            node: Some(node.to_owned()),
            kind: kind.to_owned(),
            size,
            sha256,
            reproducible: Reproducible::Yes,
            why: None,
            installed: None,
        })
    }

    /// Of what an installer wrote at `path`, for several nodes.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be read.
    pub fn of_installed(path: &Path, file: File, kind: &str, from: Installed) -> Result<Self> {
        Ok(Self {
            node: None,
            reproducible: Reproducible::No,
            why: Some("an installer made it".to_owned()),
            installed: Some(from),
            ..Self::of(path, file, "", kind)?
        })
    }
}

/// Adds `images` to the list in `folder`; those that were there before and still are stay in it.
///
/// # Errors
///
/// Fails if the list that is there is none of ours, and if the disk does.
pub fn add(folder: &Path, images: Vec<Image>) -> Result<()> {
    let mut all = read(folder)?;
    all.retain(|old| {
        let is_replaced = images.iter().any(|new| new.file == old.file);
        !is_replaced && folder.join(&old.file).exists()
    });
    all.extend(images);
    all.sort_by(|a, b| a.file.cmp(&b.file));
    let mut sums = String::new();
    for image in &all {
        writeln!(sums, "{}  {}", image.sha256, image.file)?;
    }
    let mut json = serde_json::to_vec_pretty(&List { version: VERSION, images: all })?;
    json.push(b'\n');
    let file = |name: &str, bytes: &[u8]| {
        WholeFile::with_contents(&folder.join(name), Audience::Everybody, bytes)
    };
    whole_file::publish(vec![file(LIST, &json)?, file(SUMS, sums.as_bytes())?])
}

/// The images in `folder` as they were when they were made.
///
/// # Errors
///
/// Fails if the list that is there is none of ours.
pub fn read(folder: &Path) -> Result<Vec<Image>> {
    let path = folder.join(LIST);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(fault) if fault.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(fault) => return Err(fault).with_context(|| named("reading", &path)),
    };
    let list: List = serde_json::from_slice(&text)
        .with_context(|| format!("{} is no list of images: remove it", path.display()))?;
    ensure!(
        list.version == VERSION,
        "{} is of version {}, and {VERSION} is known: remove it",
        path.display(),
        list.version
    );
    Ok(list.images)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_keeps_images_that_are_still_there() {
        let folder = tempfile::tempdir().unwrap();
        let image = |name: &str, bytes: &str| {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            Image::of(&path, File::open(&path).unwrap(), "node0", "raw disk").unwrap()
        };
        add(folder.path(), vec![image("b", "1"), image("a", "2"), image("c", "3")]).unwrap();
        fs::remove_file(folder.path().join("a")).unwrap();
        add(folder.path(), vec![image("b", "4")]).unwrap();
        let listed: Vec<(String, u64)> =
            read(folder.path()).unwrap().into_iter().map(|it| (it.file, it.size)).collect();
        assert_eq!(listed, [("b".to_owned(), 1), ("c".to_owned(), 1)]);
        let sums = fs::read_to_string(folder.path().join(SUMS)).unwrap();
        assert_eq!(sums, format!("{}  b\n{}  c\n", Digest::of(b"4"), Digest::of(b"3")));

        fs::write(folder.path().join(LIST), "[]").unwrap();
        let fault = add(folder.path(), Vec::new()).unwrap_err();
        assert!(fault.to_string().ends_with("is no list of images: remove it"), "{fault}");
    }
}
