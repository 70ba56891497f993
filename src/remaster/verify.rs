//! What a medium says of itself, held against what is on it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::format::digest::Digest;
use crate::format::{Archive, Body, fat};
use crate::media::all_nodes::NODES;
use crate::media::boot_config::{self, Entry, Language};
use crate::media::embed::{self, Owner};
use crate::media::install_archive as names;
use crate::media::node::OEMDRV;
use crate::media::seed;
use crate::remaster::{Config, EFIBOOT, GRUB_CONFIGS, ISOLINUX_CONFIG, Iso, SECTOR};

/// The largest volume that is taken for one of ours.
const MAX_VOLUME: u64 = 1 << 30;

/// What was found on a medium.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    pub kind: MediumKind,
    pub label: String,
    /// The nodes it installs.
    pub nodes: BTreeSet<String>,
    /// What is wrong, one a line.
    pub problems: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediumKind {
    Iso,
    Oemdrv,
    Seed,
}

impl MediumKind {
    pub fn as_str(self) -> &'static str {
        match self {
            MediumKind::Iso => "iso",
            MediumKind::Oemdrv => "oemdrv",
            MediumKind::Seed => "seed",
        }
    }
}

/// The files of a medium by name.
type Files = BTreeMap<String, Vec<u8>>;

/// Checks the ISO or the volume at `path`.
///
/// # Errors
///
/// Fails for what is no medium at all, and if it cannot be read.
pub fn verify(path: &Path) -> Result<Verified> {
    let shown = path.display();
    let size = fs::metadata(path).with_context(|| format!("looking at {shown}"))?.len();
    let mut start = vec![0; 512];
    let file = fs::File::open(path).with_context(|| format!("opening {shown}"))?;
    let is_volume = match file.read_exact_at(&mut start, 0) {
        // A jump over FAT's parameters, which end in the type (Microsoft, "FAT: General Overview
        // of On-Disk Format", 1.03).
        Ok(()) => {
            start[0] == 0xeb && (start[54..].starts_with(b"FAT") || start[82..].starts_with(b"FAT"))
        }
        Err(fault) if fault.kind() == ErrorKind::UnexpectedEof => false,
        Err(fault) => return Err(fault).with_context(|| format!("reading {shown}")),
    };
    match is_volume && size <= MAX_VOLUME {
        true => verify_volume(path),
        false => verify_iso(Iso::open(path)?),
    }
}

fn verify_volume(path: &Path) -> Result<Verified> {
    let mut bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let volume = fat::Volume::open(&mut bytes)?;
    let label = volume.label()?;
    let mut files = Files::new();
    for name in volume.names()? {
        files.insert(name.clone(), volume.read(&name).with_context(|| format!("reading {name}"))?);
    }
    let mut found = Findings::default();
    let kind = match label.as_str() {
        OEMDRV => {
            found.one_node(&files, names::KICKSTART);
            MediumKind::Oemdrv
        }
        seed::LABEL => {
            found.needs(&files, ["meta-data", "user-data", seed::SCRIPT]);
            found.one_node(&files, seed::VARIABLES);
            MediumKind::Seed
        }
        _ => bail!(
            "{} is a volume labelled `{label}`: neither {OEMDRV}, which installers look for, nor {}, which cloud-init does",
            path.display(),
            seed::LABEL
        ),
    };
    Ok(Verified { kind, label, nodes: found.nodes, problems: found.problems })
}

fn verify_iso(mut iso: Iso) -> Result<Verified> {
    let mut found = Findings::default();
    let configs = iso.configs()?;
    for needed in [ISOLINUX_CONFIG, GRUB_CONFIGS[0]] {
        if !configs.iter().any(|config| config.path == needed) {
            found.say(format!("{needed} is missing"));
        }
    }
    for config in &configs {
        found.config(&mut iso, config);
    }
    match iso.read(EFIBOOT)? {
        Some(mut efiboot) => found.efiboot(&mut efiboot, &configs),
        None => found.say(format!("{EFIBOOT} is missing")),
    }
    found.boot_sectors(&mut iso)?;
    if iso.has_implanted_checksum() {
        found.say(
            "it carries a checksum of implantisomd5, which cannot fit: nodeforge leaves none"
                .to_owned(),
        );
    }
    match iso.read(embed::PATH)? {
        Some(area) => found.area(&area),
        None => found.say(format!("{} is missing: it was not made by nodeforge", embed::PATH)),
    }
    let Findings { nodes, problems } = found;
    Ok(Verified { kind: MediumKind::Iso, label: iso.label, nodes, problems })
}

#[derive(Default)]
struct Findings {
    nodes: BTreeSet<String>,
    problems: Vec<String>,
}

impl Findings {
    fn say(&mut self, problem: String) {
        self.problems.push(problem);
    }

    fn needs<'n>(&mut self, files: &Files, names: impl IntoIterator<Item = &'n str>) {
        for name in names {
            if !files.contains_key(name) {
                self.say(format!("{name} is missing"));
            }
        }
    }

    /// One boot configuration in the tree.
    fn config(&mut self, iso: &mut Iso, config: &Config) {
        let path = config.path;
        let entries = boot_config::entries(&config.text, config.language);
        if !entries.iter().any(Entry::is_installer) {
            self.say(format!("{path}: no entry starts the installer"));
        }
        for searched in boot_config::searched_labels(&config.text) {
            if searched != iso.label {
                let label = &iso.label;
                self.say(format!(
                    "{path}: GRUB looks for the label `{searched}`, and the volume's is `{label}`"
                ));
            }
        }
        for entry in &entries {
            let place = format!("{path}, {}", entry.title);
            self.labels(&place, entry, &boot_config::escaped_label(&iso.label));
            if entry.is_installer() {
                self.installer(&place, entry);
                self.images(&place, entry, iso, config.language);
            }
        }
    }

    /// Where an entry's installer looks for the rest of it.
    fn labels(&mut self, place: &str, entry: &Entry, label: &str) {
        let arguments = entry.arguments.iter().filter_map(|word| word.split_once("=hd:LABEL="));
        for (name, rest) in arguments {
            let named = rest.split(':').next().unwrap_or(rest);
            if named != label {
                self.say(format!(
                    "{place}: {name} names the label `{named}`, and the volume's is `{label}`"
                ));
            }
        }
    }

    fn installer(&mut self, place: &str, entry: &Entry) {
        match entry.argument("inst.ks") {
            Some("file:/ks.cfg") => {}
            Some(other) => self.say(format!("{place}: inst.ks={other}, not file:/ks.cfg")),
            None => self.say(format!("{place}: no inst.ks=")),
        }
        if entry.arguments.iter().any(|word| word == "rd.live.check") {
            self.say(format!("{place}: checks the medium, whose checksum cannot fit"));
        }
    }

    /// The kernel and the initrds of an entry.
    fn images(&mut self, place: &str, entry: &Entry, iso: &mut Iso, language: Language) {
        if entry.initrds.last().map(String::as_str) != Some(embed::INITRD) {
            self.say(format!("{place}: the last initrd is not {}", embed::INITRD));
        }
        if entry.kernel.is_none() {
            self.say(format!("{place}: no kernel"));
        }
        for image in entry.kernel.iter().chain(&entry.initrds) {
            let inside = match (image.strip_prefix('/'), language) {
                (Some(inside), _) => inside.to_owned(),
                (None, Language::Isolinux) => format!("isolinux/{image}"),
                (None, Language::Grub) => image.clone(),
            };
            if iso.find(&inside).is_err() {
                self.say(format!("{place}: there is no {image}"));
            }
        }
    }

    /// The configurations that GRUB reads where UEFI starts it.
    fn efiboot(&mut self, efiboot: &mut [u8], configs: &[Config]) {
        let volume = match fat::Volume::open(efiboot) {
            Ok(volume) => volume,
            Err(fault) => return self.say(format!("{EFIBOOT}: {fault}")),
        };
        let mut n_found = 0;
        for path in GRUB_CONFIGS {
            let Ok(text) = volume.read(path) else { continue };
            n_found += 1;
            let in_tree = configs.iter().find(|config| config.path == path);
            if in_tree.is_none_or(|config| config.text.as_bytes() != text) {
                self.say(format!("{EFIBOOT}: its {path} is not the one in the tree"));
            }
        }
        if n_found == 0 {
            self.say(format!("{EFIBOOT}: it has no configuration of GRUB"));
        }
    }

    /// How firmware starts it: El Torito 1.0 (§2, boot catalog) and the first sector.
    fn boot_sectors(&mut self, iso: &mut Iso) -> Result<()> {
        let mut record = vec![0; SECTOR as usize];
        let mut catalog = vec![0; SECTOR as usize];
        let read = iso.file.read_exact_at(&mut record, 17 * SECTOR).and_then(|()| {
            let at = u32::from_le_bytes(*record[0x47..].first_chunk().expect("it is long"));
            iso.file.read_exact_at(&mut catalog, u64::from(at) * SECTOR)
        });
        if read.is_err() || &record[7..30] != b"EL TORITO SPECIFICATION" || catalog[0] != 1 {
            self.say("it has no boot catalog: no firmware starts it as a CD".to_owned());
            return Ok(());
        }
        const BOOTABLE: u8 = 0x88;
        const EFI: u8 = 0xef;
        let entries: Vec<&[u8]> = catalog.chunks_exact(32).collect();
        if catalog[1] != 0 || entries[1][0] != BOOTABLE {
            self.say("its boot catalog has no entry for BIOS".to_owned());
        }
        let sections = entries[2..].windows(2).filter(|pair| matches!(pair[0][0], 0x90 | 0x91));
        let mut for_efi = sections.filter(|pair| pair[0][1] == EFI && pair[1][0] == BOOTABLE);
        match for_efi
            .next()
            .map(|pair| u32::from_le_bytes(*pair[1][8..].first_chunk().expect("32 bytes")))
        {
            None => self.say("its boot catalog has no entry for UEFI".to_owned()),
            Some(sector) => {
                let efiboot = iso.find(EFIBOOT).ok().map(|(offset, _)| offset / SECTOR);
                if efiboot != Some(u64::from(sector)) {
                    self.say(format!("UEFI starts something else than {EFIBOOT}"));
                }
            }
        }
        if !iso.is_hybrid()? {
            self.say(
                "its first sector is no boot sector: no firmware starts it from a USB stick"
                    .to_owned(),
            );
        }
        Ok(())
    }

    fn area(&mut self, bytes: &[u8]) {
        let area = match embed::read(bytes) {
            Ok(area) => area,
            Err(fault) => return self.say(format!("{}: {fault}", embed::PATH)),
        };
        let files: Files = area.files.into_iter().collect();
        match area.owner {
            Owner::Nobody => self.needs(&files, [names::KICKSTART]),
            Owner::Node(node) => {
                self.one_node(&files, names::KICKSTART);
                if !self.nodes.contains(&node) {
                    self.say(format!(
                        "{}: it says that it is {node}'s, and its kickstart does not",
                        embed::PATH
                    ));
                }
            }
            Owner::Cluster(_) => self.all_nodes(&files),
        }
    }

    /// A medium for one node: `variables` is the file that says what it needs.
    fn one_node(&mut self, files: &Files, variables: &str) {
        self.needs(files, [variables, names::LAYER_SUMS, names::OVERLAY]);
        let Some(text) = files.get(variables) else { return };
        let overlay = files.get(names::OVERLAY).map(Vec::as_slice);
        let has_secrets = files.contains_key(names::SECRETS);
        self.node(&String::from_utf8_lossy(text), overlay, has_secrets, files);
    }

    fn all_nodes(&mut self, files: &Files) {
        self.needs(files, [names::KICKSTART, names::LAYER_SUMS, NODES]);
        let Some(archive) = files.get(NODES) else { return };
        let mut inside = Files::new();
        let read = Archive::Tar.read(archive, &mut |member| {
            if let Body::File(contents) = member.body {
                inside.insert(member.path.to_owned(), contents.to_vec());
            }
            Ok(())
        });
        if let Err(fault) = read {
            return self.say(format!("{NODES}: {fault}"));
        }
        let index = inside.get("index").map(|text| String::from_utf8_lossy(text).into_owned());
        let named: BTreeSet<&str> = index
            .iter()
            .flat_map(|text| text.lines())
            .filter_map(|line| line.rsplit(' ').next())
            .collect();
        if named.is_empty() {
            self.say(format!("{NODES}: it names no node"));
        }
        for name in named {
            let Some(pre) = inside.get(&format!("{name}/pre.sh")) else {
                self.say(format!("{NODES}: {name}/pre.sh is missing"));
                continue;
            };
            let overlay = inside.get(&format!("{name}/overlay.tar.gz")).map(Vec::as_slice);
            let has_secrets = inside.contains_key(&format!("{name}/secrets.tar.gz"));
            self.node(&String::from_utf8_lossy(pre), overlay, has_secrets, files);
            if !self.nodes.contains(name) {
                self.say(format!("{NODES}: what is named {name} is another node's"));
            }
        }
    }

    /// What the scripts of a node will check, too: `text` holds the assignments of its variables.
    fn node(&mut self, text: &str, overlay: Option<&[u8]>, has_secrets: bool, files: &Files) {
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
            Some(shlex::split(line)?.concat())
        };
        let Some(node) = value("NF_NODE") else {
            return self.say("the kickstart does not say which node it is for".to_owned());
        };
        let sums =
            files.get(names::LAYER_SUMS).map(|sums| String::from_utf8_lossy(sums).into_owned());
        let sums = sums.unwrap_or_default();
        for layer in
            value("NF_LAYERS").unwrap_or_default().split(' ').filter(|name| !name.is_empty())
        {
            let Some(bytes) = files.get(&names::layer(layer)) else {
                self.say(format!("{node}: the layer {layer} is missing"));
                continue;
            };
            let listed = format!("{}  {layer}/layer.tar.gz", Digest::of(bytes));
            if !sums.lines().any(|line| line == listed) {
                self.say(format!(
                    "{node}: the layer {layer} is not the one that {} lists",
                    names::LAYER_SUMS
                ));
            }
        }
        let expected = value("NF_OWN_SHA256").unwrap_or_default();
        match overlay {
            None => self.say(format!("{node}: its overlay is missing")),
            Some(overlay) if Digest::of(overlay).to_string() != expected => {
                self.say(format!("{node}: its overlay is not the one that its kickstart expects"));
            }
            Some(_) => {}
        }
        if value("NF_SECRETS").as_deref() == Some("media") && !has_secrets {
            self.say(format!("{node}: its secrets are missing"));
        }
        self.nodes.insert(node);
    }
}
