//! The kickstart of a node: what anaconda of EL8 installs, where, and how the node gets its
//! overlay.
//!
//! The text is in `profiles/kickstart/`: one template, which renders the commands, the package
//! list and one block of quoted shell variables, and plain shell scripts that read nothing
//! but those variables. What is decided on the node (which disk, whether it is installed
//! already) is in `disk.sh`; what is decided before is in [`KickstartContext`].

use std::fmt::Display;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use crate::render::install;
use crate::render::template::{SettledSet, TemplateError, Templates, Values};

/// The template of a node's kickstart.
pub const TEMPLATE: &str = "kickstart/kickstart.ks.hbs";

/// The template of the kickstart of a golden image.
pub const GOLDEN: &str = "kickstart/golden.ks.hbs";

/// Every file that makes up the kickstarts, by its path in `profiles/`.
pub const FILES: [&str; 15] = [
    TEMPLATE,
    GOLDEN,
    "kickstart/boot.sh",
    "kickstart/disk.sh",
    "kickstart/disks.ks.hbs",
    "kickstart/fetch.sh",
    "kickstart/finish.sh",
    "kickstart/golden.sh",
    "kickstart/lib.sh",
    "kickstart/onerror.sh",
    "kickstart/packages.ks.hbs",
    "kickstart/security.ks.hbs",
    "kickstart/system.ks.hbs",
    "kickstart/target.sh",
    "kickstart/unpack.sh",
];

/// MiB that `/` gets at least; it grows over what is left of the disk.
pub const DEFAULT_ROOT_MIB: u64 = 10 * 1024;
/// MiB of `/var/log`, a filesystem of its own so that logs cannot fill another.
pub const DEFAULT_LOG_MIB: u64 = 2 * 1024;
/// MiB of [`DAOSMETA`]: the raft database and a superblock an engine, which stay far below.
pub const DEFAULT_META_MIB: u64 = 8 * 1024;

/// Label of the filesystem with DAOS's control metadata.
pub const DAOSMETA: &str = "DAOSMETA";
/// Label of the filesystem with DAOS's bdevs of class file. One of its own: the files are as
/// large as the plan says, and neither logs nor the raft database may compete with them.
pub const DAOSDATA: &str = "DAOSDATA";

/// The template in two parts: scripts, which are the same in every kickstart, and after them
/// what is to be rendered.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    pub scripts: String,
    pub own: String,
}

/// The template `name` with every script and part pasted in, once, instead of a partial that the
/// engine would render again for each node. What precedes its first tag is text and no template.
///
/// `name` is [`TEMPLATE`] or [`GOLDEN`]; `text_of` gives the texts of [`FILES`].
pub fn template<'a>(name: &str, text_of: impl Fn(&str) -> Option<&'a str>) -> Parts {
    let commands = text_of(name).unwrap_or_default();
    let mut template = String::new();
    for line in commands.split_inclusive('\n') {
        let partial = line.trim_end().strip_prefix("{{> ").and_then(|line| line.strip_suffix("}}"));
        template += partial.and_then(&text_of).unwrap_or(line);
    }
    // A tag alone on its line takes the whole line with it.
    let first_tag = template.find("{{").unwrap_or(template.len());
    let own = template.split_off(template[..first_tag].rfind('\n').map_or(0, |end| end + 1));
    Parts { scripts: template, own }
}

/// Returns the kickstart of one node, or of a golden image.
///
/// `templates` holds the own part of [`template`] as `name`, `scripts` is its other part; `values` are
/// those of a [`KickstartContext`]. None may hold a control character: a line end in one would add
/// a line to the kickstart.
///
/// # Errors
///
/// Fails when a (site's) template uses a value that is not in `context`.
pub fn render(
    templates: &Templates,
    name: &str,
    scripts: &str,
    values: &Values,
) -> Result<String, TemplateError> {
    let own = templates.render_values(name, values)?;
    Ok([scripts, &own].concat())
}

/// As [`render`], for nodes of one kind, one after another: `settled` is of the kickstarts before.
///
/// # Errors
///
/// Those of [`render`].
pub fn render_settled(
    templates: &Templates,
    scripts: &str,
    values: &Values,
    settled: &mut SettledSet,
) -> Result<String, TemplateError> {
    let own = settled.render(templates, TEMPLATE, values, install::OWN_PATHS)?;
    Ok([scripts, &own].concat())
}

/// Everything a kickstart says of its node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KickstartContext {
    /// The node's name, as in `nodes/<name>/`.
    pub node: String,
    /// Where the boot tree is served, without a slash at the end.
    pub boot_url: String,
    pub overlay: OverlaySource,
    pub secrets: SecretsSource,
    /// Shared layers in the order of unpacking: `common`, then the roles.
    #[serde(serialize_with = "by_spaces")]
    pub layers: Vec<String>,
    /// Digest of the node's own `overlay.tar.gz`, in lower-case hex.
    pub overlay_sha256: String,
    /// Archives inside the kickstart itself; empty unless `overlay` or `secrets` say so.
    pub embedded: Vec<EmbeddedFile>,

    /// The installation tree, `<mirror>/BaseOS/x86_64/kickstart/` or `…/os/`.
    pub url: String,
    /// An HTTP proxy for `url` and `repos`.
    pub proxy: Option<String>,
    pub repos: Vec<Repo>,
    /// Module streams that would hide packages of other repositories.
    pub disabled_modules: Vec<String>,
    /// Names, `@groups` and `@^environments`, all known to be in the repositories: EL8's
    /// installer stops and asks about a missing one.
    pub packages: Vec<String>,
    pub excluded_packages: Vec<String>,
    /// Units to enable, of packages only: services are enabled before `%post` brings the
    /// overlay, and a missing unit ends the installation.
    #[serde(serialize_with = "by_commas")]
    pub services: Vec<String>,

    /// `en_US.UTF-8`.
    pub lang: String,
    /// A console keymap: `us`.
    pub keymap: String,
    pub timezone: String,
    #[serde(serialize_with = "by_commas")]
    pub ntp_servers: Vec<String>,
    pub network: Network,
    /// A `$6$` or `$5$` hash, only where the kickstart is itself a secret; else the account is
    /// locked until the secrets bundle brings the hash.
    pub root_hash: Option<String>,
    pub ssh_keys: Vec<String>,
    pub selinux: Selinux,
    pub firewall: Firewall,
    /// Arguments of the installed kernel, `console=` among them; without `"` and spaces.
    #[serde(serialize_with = "by_spaces")]
    pub kernel_args: Vec<String>,

    pub install_disk: DiskRule,
    /// Where the kept filesystems go if not on the install disk.
    pub meta_disk: Option<DiskRule>,
    /// PCI addresses of DAOS's SSDs; no disk at one of them, or behind it, is ever touched.
    #[serde(serialize_with = "by_spaces")]
    pub data_pci: Vec<String>,
    /// Block devices of DAOS (class kdev), as paths: `/dev/disk/by-id/…`.
    #[serde(serialize_with = "by_spaces")]
    pub data_devices: Vec<String>,
    pub root_mib: u64,
    pub log_mib: u64,
    /// Filesystems that outlive a reinstallation; empty on a node without a server role.
    #[serde(serialize_with = "by_spaces")]
    pub kept: Vec<KeptFilesystem>,

    /// The tmpfiles list that sets owners and modes by name: `/usr/lib/tmpfiles.d/….conf`.
    pub tmpfiles: String,
    /// Packages whose set-id bits are restored after that, where they are installed.
    #[serde(serialize_with = "by_spaces")]
    pub setperms: Vec<String>,
}

/// Where the installer gets the layers and the node's overlay from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OverlaySource {
    /// `layers/<role>/layer.tar.gz`, `layers/SHA256SUMS` and `nodes/<name>/overlay.tar.gz`
    /// below `boot_url`.
    Http,
    /// `nodeforge-overlay.tar.gz.ks`, `nodeforge-layer-<role>.tar.gz.ks` and
    /// `nodeforge-SHA256SUMS.ks`, in the root of the installer's initrd or of a filesystem
    /// labelled OEMDRV.
    Media,
    /// [`KickstartContext::embedded`]: `overlay.tar.gz`, `layer-<role>.tar.gz`, `SHA256SUMS`.
    Embedded,
}

/// Where the installer gets the node's secrets from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretsSource {
    /// The node has none.
    None,
    /// `secret/<name>.tar.gz` below `boot_url`, with the token of the kernel line.
    Token,
    /// `nodeforge-secrets.tar.gz.ks`, like [`OverlaySource::Media`].
    Media,
    /// [`KickstartContext::embedded`]: `secrets.tar.gz`. The kickstart is a secret then.
    Embedded,
}

/// A file inside the kickstart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EmbeddedFile {
    pub name: String,
    /// In lines of any length.
    pub base64: Vec<String>,
}

/// A `repo` line: what EL8's installer reads packages from besides `url`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Repo {
    pub name: String,
    pub baseurl: String,
    /// Lower wins; anaconda's default is 1000.
    pub cost: Option<u32>,
    #[serde(serialize_with = "by_commas")]
    pub exclude: Vec<String>,
}

/// The boot NIC, as the installer uses it. All other NICs, and this one on the installed
/// node, are configured by the overlay's keyfiles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Network {
    /// `bootif` where the boot loader passes `BOOTIF=`, else the NIC's MAC address.
    pub device: String,
    pub ip: String,
    pub netmask: String,
    pub gateway: Option<String>,
    #[serde(serialize_with = "by_commas")]
    pub nameservers: Vec<String>,
    /// Bytes.
    pub mtu: Option<u32>,
    /// Fully qualified.
    pub hostname: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Selinux {
    Disabled,
    Permissive,
    Enforcing,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Firewall {
    Disabled,
    /// Everything closed but ssh and these, like `10001:tcp`.
    Enabled {
        ports: Vec<String>,
    },
}

impl Serialize for Firewall {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (enabled, ports) = match self {
            Firewall::Disabled => (false, String::new()),
            Firewall::Enabled { ports } => (true, ports.join(",")),
        };
        let mut fields = serializer.serialize_struct("Firewall", 2)?;
        fields.serialize_field("enabled", &enabled)?;
        fields.serialize_field("ports", &ports)?;
        fields.end()
    }
}

/// Which disk is meant: the one that meets every condition given. None or several that do are
/// refused on the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DiskRule {
    /// A name under `/dev/disk/by-path/`, with or without the folder.
    #[serde(serialize_with = "or_empty")]
    pub by_path: Option<String>,
    /// A name under `/dev/disk/by-id/`, with or without the folder.
    #[serde(serialize_with = "or_empty")]
    pub by_id: Option<String>,
    #[serde(serialize_with = "or_empty")]
    pub serial: Option<String>,
    /// With or without `0x`, `naa.` or `eui.` before it, in any case.
    #[serde(serialize_with = "or_empty")]
    pub wwn: Option<String>,
    #[serde(serialize_with = "or_empty")]
    pub bus: Option<Bus>,
    /// The size in bytes, both ends included.
    #[serde(serialize_with = "or_empty")]
    pub min_bytes: Option<u64>,
    #[serde(serialize_with = "or_empty")]
    pub max_bytes: Option<u64>,
}

impl KickstartContext {
    /// MiB that a disk needs for all partitions, as `choose_disk` of `disk.sh` adds them up: `/boot`
    /// and `/boot/efi`, the table, and what the fields name.
    pub fn disk_mib(&self) -> u64 {
        let kept: u64 = self.kept.iter().map(|kept| kept.size_mib).sum();
        1024 + 600 + 2 + self.root_mib + self.log_mib + kept
    }
}

/// What a disk hangs on, told by its place in sysfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    Mmc,
    Nvme,
    Sas,
    Sata,
    /// Any other SCSI host: RAID controllers, virtio-scsi.
    Scsi,
    /// Only ever chosen where a rule names it.
    Usb,
    Virtio,
}

impl Bus {
    pub const fn as_str(self) -> &'static str {
        match self {
            Bus::Mmc => "mmc",
            Bus::Nvme => "nvme",
            Bus::Sas => "sas",
            Bus::Sata => "sata",
            Bus::Scsi => "scsi",
            Bus::Usb => "usb",
            Bus::Virtio => "virtio",
        }
    }
}

impl Display for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// A filesystem that a reinstallation keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptFilesystem {
    /// [`DAOSMETA`] or [`DAOSDATA`].
    pub label: &'static str,
    /// Size of a new one.
    pub size_mib: u64,
    /// An absolute path without spaces and colons.
    pub mount: String,
}

impl Display for KeptFilesystem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.label, self.size_mib, self.mount)
    }
}

fn by_spaces<T: Display, S: Serializer>(values: &[T], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&joined(values, " "))
}

fn by_commas<T: Display, S: Serializer>(values: &[T], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&joined(values, ","))
}

fn joined<T: Display>(values: &[T], separator: &str) -> String {
    let words: Vec<String> = values.iter().map(T::to_string).collect();
    words.join(separator)
}

/// A shell variable that is empty when there is nothing to say.
fn or_empty<T: Display, S: Serializer>(
    value: &Option<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_str(""),
    }
}
