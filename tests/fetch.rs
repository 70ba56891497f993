//! `nodeforge fetch` from end to end, against a server, folders and ISOs made here.
//!
//! Programs used: xorriso (makes ISOs), gpg (signs), rpmbuild, createrepo_c and zstd (make
//! repositories).

#[path = "fetch/iso.rs"]
mod iso;
#[path = "fetch/repodata.rs"]
mod repodata;

pub use repodata::stub_repository;
#[path = "fetch/server.rs"]
mod server;
#[path = "fetch/tree.rs"]
mod tree;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use nodeforge::fetch::{
    self, Client, Fetched, Fingerprint, Freshness, ImageName, ImageSource, Location, Note, Request,
    Retries, Trust,
};
use nodeforge::format::digest::Digest;
use tempfile::TempDir;

/// 2026-01-01T00:00:00Z.
const NOW_SECS: u64 = 1_767_225_600;

/// A kernel as far as boot loaders look, of `length` bytes.
fn kernel(length: usize) -> Vec<u8> {
    let mut kernel: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
    kernel[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    kernel
}

/// The images of a tree by their path there.
fn images() -> BTreeMap<&'static str, Vec<u8>> {
    let with_start = |start: &[u8], length: usize| [start, &vec![b'.'; length]].concat();
    BTreeMap::from([
        ("images/pxeboot/vmlinuz", kernel(5001)),
        ("images/pxeboot/initrd.img", with_start(b"\x1f\x8b\x08\0", 3000)),
        ("images/install.img", with_start(b"hsqs", 2000)),
    ])
}

fn treeinfo(version: &str, images: &BTreeMap<&str, Vec<u8>>) -> String {
    let checksums: String = images
        .iter()
        .map(|(path, bytes)| format!("{path} = sha256:{}\n", Digest::of(bytes)))
        .collect();
    format!("[checksums]\n{checksums}[release]\nversion = {version}\n[tree]\narch = x86_64\n")
}

/// A cache of its own, and all that is said while fetching into it.
struct Bench {
    cache: TempDir,
    notes: RefCell<Vec<Note>>,
    trust: Trust,
}

impl Bench {
    fn new() -> Self {
        let trust = Trust {
            fingerprints: Vec::new(),
            keys: Vec::new(),
            isos: Vec::new(),
            now_secs: NOW_SECS,
        };
        Self { cache: tempfile::tempdir().unwrap(), notes: RefCell::default(), trust }
    }

    fn request(&self, mirror: &str, source: ImageSource) -> Request {
        Request {
            release: "8.9".to_owned(),
            mirror: mirror.parse().unwrap(),
            source,
            also: BTreeSet::new(),
            freshness: Freshness::Cached,
            cache: self.cache.path().to_owned(),
        }
    }

    fn fetch(&self, request: &Request) -> Result<Fetched> {
        let tell = |note| self.notes.borrow_mut().push(note);
        let client = Client::new(QUICK, &tell);
        fetch::fetch(request, &self.trust, &client)
    }

    /// The whole chain of what goes wrong.
    fn failure(&self, request: &Request) -> String {
        format!("{:#}", self.fetch(request).expect_err("the fetch must fail"))
    }

    fn take_notes(&self) -> Vec<Note> {
        self.notes.take()
    }

    /// Every file in the release's folder with its bytes, but for the lock.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        files_below(&self.cache.path().join("8.9"))
            .into_iter()
            .filter(|(name, _)| name != ".lock")
            .collect()
    }

    /// The names of `files`, without the record and the tree's own list.
    fn image_files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = self.files();
        files.retain(|name, _| !matches!(name.as_str(), "images.json" | ".treeinfo"));
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.cache.path().join("8.9").join(name)
    }
}

/// Three tries without waiting.
const QUICK: Retries = Retries { tries: 3, first_delay: Duration::ZERO };

fn files_below(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    walkdir::WalkDir::new(folder)
        .into_iter()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| {
            let name = entry.path().strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect()
}

/// The kernel and the initramfs as they stand in the cache.
fn boot_images() -> BTreeMap<String, Vec<u8>> {
    let images = images();
    BTreeMap::from([
        ("initrd.img".to_owned(), images["images/pxeboot/initrd.img"].clone()),
        ("vmlinuz".to_owned(), images["images/pxeboot/vmlinuz"].clone()),
    ])
}

fn names(names: &[ImageName]) -> BTreeSet<ImageName> {
    names.iter().copied().collect()
}

/// Runs a program that a test needs; one that is not there fails the test.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{stderr}", output.status);
    String::from_utf8(output.stdout).unwrap()
}
