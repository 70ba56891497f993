//! What may be served: the files of one generation's manifests, and nothing else.
//!
//! A path of a request is only ever a key: it is looked up in the manifest, and what is opened
//! is what the manifest names. The generation is held by a shared lock on its folder, which a
//! build's sweep respects and which the kernel takes away when the server dies.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use crate::manifest::{FileEntry, Manifest, NodeBoot, NodeEntry, SecretManifest};
use crate::media::boot_tree::{self, Loader};
use crate::net::MacAddr;
use crate::output::{self, Held};
use crate::plan;
use crate::serve::machine::There;

/// The files of one generation.
#[derive(Debug)]
pub struct Catalog {
    held: Held,
    root: PathBuf,
    folder: File,
    manifest: Manifest,
    secrets: Option<SecretManifest>,
    /// `manifest.json` and `SHA256SUMS`, which no manifest lists.
    own: BTreeMap<&'static str, FileEntry>,
    by_mac: HashMap<MacAddr, Arc<str>>,
    by_address: HashMap<Ipv4Addr, Arc<str>>,
}

/// A file that may be served, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub file: FileEntry,
    pub access: Access,
    /// From the output folder.
    place: PathBuf,
}

/// Who may have a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    Anyone,
    /// A node that is armed, or is being installed.
    Kickstart(Arc<str>),
    /// Whoever has the node's secret token.
    Token(Arc<str>),
    /// A secret that a boot loader or the installer fetches, which cannot show a token: as a
    /// kickstart, and no safer.
    Embedded(Arc<str>),
    /// Made per request.
    Script(MacAddr, Loader),
}

impl Catalog {
    /// The current generation below `root`, held.
    ///
    /// # Errors
    ///
    /// Fails if there is none, it cannot be used, or it was built by a version that knew
    /// nothing of serving.
    pub fn current(root: &Path) -> Result<Self> {
        Self::of(root, output::hold_current(root)?)
    }

    /// Generation `number` below `root`, held.
    ///
    /// # Errors
    ///
    /// As [`current`](Self::current).
    pub fn generation(root: &Path, number: u64) -> Result<Self> {
        Self::of(root, output::hold(root, number)?)
    }

    fn of(root: &Path, held: Held) -> Result<Self> {
        let (manifest, secrets) = held.manifests()?;
        ensure!(
            manifest.boot.is_some(),
            "generation {} was built by a version of nodeforge that did not serve: build again",
            held.number()
        );
        let mut boots = manifest.nodes.values().filter_map(|node| node.boot.as_ref());
        ensure!(
            secrets.is_some() || !boots.any(|boot| boot.needs_token),
            "the secrets of generation {} are another user's, and nodes fetch theirs from the \
             server: run it as the user who built {}",
            held.number(),
            root.display()
        );
        let folder = File::open(root).with_context(|| format!("opening {}", root.display()))?;
        let mut catalog = Self {
            own: BTreeMap::new(),
            by_mac: HashMap::new(),
            by_address: HashMap::new(),
            root: root.to_owned(),
            folder,
            manifest,
            secrets,
            held,
        };
        for name in ["manifest.json", "SHA256SUMS"] {
            let bytes = catalog.held.read(name)?;
            catalog.own.insert(name, FileEntry::of(&bytes));
        }
        catalog.index()?;
        Ok(catalog)
    }

    fn index(&mut self) -> Result<()> {
        for (name, node) in &self.manifest.nodes {
            let name: Arc<str> = name.as_str().into();
            for mac in &node.macs {
                let mac = mac.parse().with_context(|| format!("the manifest's node {name}"))?;
                if let Some(other) = self.by_mac.insert(mac, Arc::clone(&name)) {
                    bail!("the manifest gives {mac} to {other} and to {name}");
                }
            }
            if let Some(address) = node.boot.as_ref().and_then(|boot| boot.address) {
                self.by_address.insert(address, name);
            }
        }
        Ok(())
    }

    pub fn number(&self) -> u64 {
        self.held.number()
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The node that has a NIC of this address.
    pub fn node_of_mac(&self, mac: MacAddr) -> Option<&Arc<str>> {
        self.by_mac.get(&mac)
    }

    /// The node whose boot NIC has this address.
    pub fn node_of_address(&self, address: Ipv4Addr) -> Option<&Arc<str>> {
        self.by_address.get(&address)
    }

    pub fn node(&self, name: &str) -> Option<&NodeEntry> {
        self.manifest.nodes.get(name)
    }

    /// What a grant of `node` must fit.
    pub fn there(&self, node: &str) -> There<'_> {
        let Some(entry) = self.node(node) else { return There::default() };
        let daos = entry.boot.as_ref().and_then(|boot| boot.daos.as_deref());
        There { daos, macs: &entry.macs }
    }

    /// How `node` boots; `None` for one without a MAC address.
    pub fn boot_of(&self, node: &str) -> Option<&NodeBoot> {
        self.node(node)?.boot.as_ref()
    }

    /// The file of this path, as `pxe/boot.ipxe` or `nodes/node0/kickstart.ks`.
    pub fn find(&self, path: &str) -> Option<Item> {
        let (top, rest) = path.split_once('/').unwrap_or(("", path));
        match top {
            "nodes" => self.find_of_node(rest),
            "layers" if !self.manifest.files.contains_key(path) => {
                let (layer, name) = rest.split_once('/')?;
                self.in_store(self.manifest.layers.get(layer)?, name, Access::Anyone)
            }
            "pxe" => {
                let access = script_of(rest)
                    .map_or(Access::Anyone, |(mac, loader)| Access::Script(mac, loader));
                self.in_store(&self.manifest.pxe.folder, rest, access)
            }
            "secret" => self.find_secret(rest),
            _ => {
                let file = self.manifest.files.get(path).or_else(|| self.own.get(path))?;
                let place = self.held.place().join(path);
                Some(Item { file: *file, access: Access::Anyone, place })
            }
        }
    }

    fn find_of_node(&self, rest: &str) -> Option<Item> {
        let (node, name) = rest.split_once('/')?;
        let (node, entry) = self.manifest.nodes.get_key_value(node)?;
        let access = match name {
            plan::KICKSTART | plan::INSTALL_CPIO => Access::Kickstart(node.as_str().into()),
            _ => Access::Anyone,
        };
        self.in_store(&entry.folder, name, access)
    }

    fn find_secret(&self, name: &str) -> Option<Item> {
        let entry = self.secrets.as_ref()?.files.get(name)?;
        let node: Arc<str> = entry.node.as_str().into();
        let access = match name.ends_with(".tar.gz") {
            true => Access::Token(node),
            false => Access::Embedded(node),
        };
        let place = self.held.place().join("secret").join(name);
        Some(Item { file: entry.file(), access, place })
    }

    fn in_store(
        &self,
        folder: &crate::manifest::Folder,
        name: &str,
        access: Access,
    ) -> Option<Item> {
        let file = *folder.files.get(name)?;
        let place = output::store_path(&folder.digest).join(name);
        Some(Item { file, access, place })
    }

    /// Opens an item of this catalogue: never through a symbolic link, never outside of the
    /// output folder, and only with the size that the manifest says.
    ///
    /// # Errors
    ///
    /// Fails if it is gone, or is not what was built.
    pub fn open(&self, item: &Item) -> Result<File> {
        let file = open_below(&self.folder, &item.place)
            .map_err(std::io::Error::from)
            .with_context(|| format!("opening {}", self.root.join(&item.place).display()))?;
        let metadata = file.metadata()?;
        ensure!(
            metadata.is_file() && metadata.len() == item.file.size,
            "{} is not what was built; `nodeforge verify` tells more",
            self.root.join(&item.place).display()
        );
        Ok(file)
    }
}

/// openat2(2) refuses links in every part of the path; kernels before 5.6 do not have it and
/// refuse one in the last part only.
fn open_below(folder: &File, path: &Path) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let opened = match openat2(folder.as_fd(), path, flags, Mode::empty(), resolve) {
        Err(Errno::NOSYS | Errno::PERM) => openat(folder.as_fd(), path, flags, Mode::empty()),
        opened => opened,
    };
    opened.map(File::from)
}

/// Whose script a path below `pxe/` is.
fn script_of(path: &str) -> Option<(MacAddr, Loader)> {
    let mac = |text: &str| text.parse::<MacAddr>().ok();
    let (mac, loader) = if let Some(name) = path.strip_prefix("pxelinux.cfg/01-") {
        (mac(name)?, Loader::Pxelinux)
    } else if let Some(name) = path.strip_prefix("grub/grub.cfg-01-") {
        (mac(name)?, Loader::Grub)
    } else {
        (mac(path.strip_prefix("ipxe/")?.strip_suffix(".ipxe")?)?, Loader::Ipxe)
    };
    let own = boot_tree::node_paths(mac);
    own.iter().any(|own| own == path).then_some((mac, loader))
}
