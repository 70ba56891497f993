//! The command line: types only. Their doc comments are the help and the man pages.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::format::digest::Digest;
use crate::units::Seconds;

/// Builds everything a DAOS storage cluster on AlmaLinux 8 needs, from one cluster file.
///
/// Exit codes: 0 done, 1 problems found or failed, 2 wrong command line. Of diff: 0 the
/// same, 1 different, 2 trouble.
#[derive(Debug, Parser)]
#[command(name = "nodeforge", version, max_term_width = 80, propagate_version = true)]
pub struct Cli {
    /// When to colour messages.
    #[arg(long, global = true, value_enum, default_value_t = ColorChoice::Auto)]
    pub color: ColorChoice,

    #[command(subcommand)]
    pub verb: Verb,
}

/// The command line of this process. Ends it with the exit code 2 and a message where that is wrong.
pub fn parse() -> Cli {
    let cli = Cli::parse();
    if let Verb::Image(args) = &cli.verb
        && let Err((kind, message)) = args.check()
    {
        let mut command = Cli::command();
        command.build();
        let image = command.find_subcommand_mut("image").expect("the verb was parsed");
        image.error(kind, message).exit();
    }
    cli
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal.
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Tells everything that is wrong with a cluster file, at once.
    Check(CheckArgs),
    /// Builds the boot tree: kickstarts, overlays, boot files, manifest.
    Build(BuildArgs),
    /// Lists the nodes: name, roles, MAC, address, rack.
    Nodes(NodesArgs),
    /// Shows what a node gets, or one rendered file.
    Show(ShowArgs),
    /// Tells which line set a value, and what it overrode.
    Why(WhyArgs),
    /// Compares every artefact of a boot tree with its manifest.
    Verify(VerifyArgs),
    /// Tells what a build would change, or how two generations differ.
    ///
    /// Exit codes: 0 nothing differs, 1 something does, 2 trouble: no such generation,
    /// a cluster file that cannot be built, a wrong command line.
    Diff(DiffArgs),
    /// Lists the generations of a boot tree: when, how large, what changed.
    Generations(GenerationsArgs),
    /// Makes an older generation of a boot tree the current one.
    Rollback(RollbackArgs),
    /// Serves a boot tree to the nodes: boots them, installs each once, hears from them.
    ///
    /// Stops at SIGINT or SIGTERM when running downloads are done.
    Serve(ServeArgs),
    /// Lets nodes be installed, once, at their next network boot.
    Arm(ArmArgs),
    /// Takes back what `arm` gave.
    Disarm(DisarmArgs),
    /// Shows how far the nodes are.
    Status(StatusArgs),
    /// Gets the installer's kernel and initrd from the mirror or an ISO into a cache.
    Fetch(FetchArgs),
    /// Makes media for machines without network boot, and checks them.
    #[command(subcommand)]
    Media(MediaVerb),
    /// Tells what the DAOS configuration adds up to, per kind of node.
    Plan(PlanArgs),
    /// Explains a code such as DAOS-706; without one, lists all.
    Explain(ExplainArgs),
    /// Makes the disks of virtual machines: a thin image per node on a shared base.
    Image(ImageArgs),
    /// Runs the cluster's nodes as virtual machines of this host, without root.
    #[command(subcommand)]
    Lab(LabVerb),
    /// Writes a commented cluster file to start from.
    Init(InitArgs),
    /// Makes parts of a cluster file from what is there.
    #[command(subcommand)]
    Generate(GenerateVerb),
    /// Makes the secrets that a cluster file names and that do not exist yet.
    #[command(subcommand)]
    Secrets(SecretsVerb),
    /// Makes, renews and shows the certificates of DAOS.
    #[command(subcommand)]
    Certs(CertsVerb),
    /// Prints shell completions.
    Completions(CompletionsArgs),
    /// Prints the JSON Schema of the cluster file, for editors.
    Schema,
    /// Writes the manual pages.
    Man(ManArgs),
}

/// A cluster file and the site's own profiles and overlays.
#[derive(Debug, Args)]
pub struct ClusterArgs {
    /// The cluster file.
    #[arg(value_name = "CLUSTER")]
    pub cluster: PathBuf,

    /// A folder whose profiles/ and overlays/ shadow the built-in ones, file by file.
    #[arg(long, value_name = "DIR")]
    pub site: Option<PathBuf>,
}

/// What counts as a failure beside errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Deny {
    /// Warnings fail too.
    Warnings,
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,

    /// Treat these as failures too.
    #[arg(long, value_enum)]
    pub deny: Option<Deny>,

    /// Print the problems as a JSON array on standard output.
    #[arg(long)]
    pub json: bool,

    /// Look package names up in this repository (a folder or a URL); an unknown
    /// name is then an error. May be given several times.
    #[arg(long, value_name = "URL|DIR")]
    pub repodata: Vec<String>,
}

#[derive(Debug, Args)]
pub struct BuildArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,

    /// The folder of the boot tree.
    #[arg(short, long, value_name = "DIR", default_value = "out")]
    pub out: PathBuf,

    /// Build these nodes only, such as 'srv[001-016]'; the others stay as they are.
    #[arg(long, value_name = "RANGE")]
    pub only: Option<String>,

    /// Make everything anew, as into an empty folder: mends what `verify` finds.
    #[arg(long, conflicts_with = "only")]
    pub fresh: bool,

    /// Where `fetch` keeps the installer's images, and build what it unpacks. Default:
    /// nodeforge in the user's cache folder.
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,

    /// A folder of boot programs to put into pxe/ as they lie there: undionly.kpxe,
    /// snponly.efi, lpxelinux.0 and ldlinux.c32, grub/shimx64.efi, grub/grubx64.efi.
    /// Default: boot-programs in the cache, if it exists.
    #[arg(long, value_name = "DIR")]
    pub boot_programs: Option<PathBuf>,

    /// Treat these as failures too.
    #[arg(long, value_enum)]
    pub deny: Option<Deny>,

    /// Print what was built as a JSON object on standard output.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct NodesArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,

    /// Only these nodes.
    #[arg(long, value_name = "RANGE")]
    pub only: Option<String>,

    /// As a JSON array.
    #[arg(long, group = "form")]
    pub json: bool,

    /// As lines of /etc/hosts.
    #[arg(long, group = "form")]
    pub hosts: bool,

    /// As lines of /etc/ethers.
    #[arg(long, group = "form")]
    pub ethers: bool,
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,

    /// The node.
    pub node: String,

    /// A path on the node such as /etc/daos/daos_server.yml, or `kickstart`, or `pxe`;
    /// without it, every file with mode, owner, size and origin.
    pub what: Option<String>,

    /// The list as a JSON array.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct WhyArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,

    /// The node.
    pub node: String,

    /// A key such as os.selinux, nic.mgmt.ip or daos.port.
    pub key: String,
}

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The folder of the boot tree.
    #[arg(value_name = "OUT", default_value = "out")]
    pub out: PathBuf,

    /// As a JSON object.
    #[arg(long)]
    pub json: bool,
}

/// One side of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compared {
    Current,
    Generation(u64),
    Cluster(PathBuf),
}

impl FromStr for Compared {
    type Err = String;

    /// Digits are a generation; `./3` is a cluster file that has such a name.
    fn from_str(word: &str) -> Result<Self, String> {
        let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
        match word {
            "" => Err("neither a generation nor a cluster file".to_owned()),
            "current" => Ok(Self::Current),
            _ if is_number => {
                let number = word.parse().map_err(|_| "there are not so many generations")?;
                Ok(Self::Generation(number))
            }
            _ => Ok(Self::Cluster(PathBuf::from(word))),
        }
    }
}

#[derive(Debug, Args)]
pub struct DiffArgs {
    /// A cluster file, to see what building it would change; or two generations, the
    /// older first; or a generation and a cluster file. Digits and `current` are
    /// generations, all else is a cluster file. One generation is compared with the
    /// current one.
    #[arg(value_name = "CLUSTER|N", required = true, num_args = 1..=2)]
    pub sides: Vec<Compared>,

    /// The folder of the boot tree.
    #[arg(short, long, value_name = "DIR", default_value = "out")]
    pub out: PathBuf,

    /// Show the changed lines too, once for all nodes that have the same change.
    #[arg(short = 'u', long, visible_alias = "unified")]
    pub patch: bool,

    /// As a JSON object.
    #[arg(long)]
    pub json: bool,

    /// A folder whose profiles/ and overlays/ shadow the built-in ones, file by file.
    #[arg(long, value_name = "DIR")]
    pub site: Option<PathBuf>,

    /// As of `build`: where `fetch` keeps the installer's images.
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,

    /// As of `build`: a folder of boot programs to put into pxe/.
    #[arg(long, value_name = "DIR")]
    pub boot_programs: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct GenerationsArgs {
    /// The folder of the boot tree.
    #[arg(short, long, value_name = "DIR", default_value = "out")]
    pub out: PathBuf,

    /// As a JSON array.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The generation to make current. Default: the one before the current one.
    #[arg(value_name = "N")]
    pub generation: Option<u64>,

    /// The folder of the boot tree.
    #[arg(short, long, value_name = "DIR", default_value = "out")]
    pub out: PathBuf,

    /// Print what was done as a JSON object on standard output.
    #[arg(long)]
    pub json: bool,
}

/// A span of time such as 90min or 24h.
fn seconds(text: &str) -> Result<Seconds, String> {
    let seconds: Seconds = text.parse().map_err(|fault| format!("{fault}"))?;
    match seconds.as_u64() {
        0 => Err("longer than nothing".to_owned()),
        1..=MAX_GRANT_SECS => Ok(seconds),
        _ => Err("at most 90d".to_owned()),
    }
}

const MAX_GRANT_SECS: u64 = 90 * 86_400;

#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The folder of the boot tree.
    #[arg(value_name = "OUT", default_value = "out")]
    pub out: PathBuf,

    /// Where to listen, such as 0.0.0.0:8080. Default: the address and port of boot.url.
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,

    /// The folder of the state and the key of all tokens. Default: OUT.state
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,

    /// Serve TFTP too, for PXELINUX, GRUB and firmware; --tftp=ADDR:PORT listens elsewhere than
    /// at port 69 of the address of HTTP. Part of --dhcp and --proxy-dhcp.
    #[arg(long, value_name = "ADDR", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub tftp: Option<String>,

    /// Serve DHCP: each node gets the address of the cluster file and what to boot, others get
    /// no answer. Not where another DHCP server gives out addresses.
    #[arg(long, conflicts_with = "proxy_dhcp")]
    pub dhcp: bool,

    /// Say what to boot, beside the network's own DHCP server, which gives out the addresses.
    #[arg(long)]
    pub proxy_dhcp: bool,

    /// Tell machines that are not of the cluster what to boot, too: they come as far as a
    /// script that boots their disk.
    #[arg(long, requires = "proxy_dhcp")]
    pub answer_strangers: bool,

    /// A proxy or a port forward stands between the nodes and this server: do not refuse an
    /// address that is not the one of boot.url.
    #[arg(long)]
    pub forwarded: bool,

    /// The certificate and what it is signed by, for a boot.url with https (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_certificate: Option<PathBuf>,

    /// The key of the certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub tls_key: Option<PathBuf>,

    /// How often a node may start the installer before it halts with a message.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub attempts: u32,

    /// How many connections are open at once.
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(16..))]
    pub max_connections: u32,
}

#[derive(Debug, Args)]
pub struct ArmArgs {
    /// The nodes, such as 'srv[001-512]'.
    #[arg(value_name = "RANGE")]
    pub nodes: String,

    /// How long they may take until they ask, such as 90min, 24h or 2d. An installation that
    /// began in time has six hours more.
    #[arg(long = "for", value_name = "TIME", default_value = "24h", value_parser = seconds)]
    pub lasting: Seconds,

    /// Give up DAOS's filesystems too, and let the next format overwrite the SSDs: all data
    /// of DAOS on these nodes is lost.
    #[arg(long)]
    pub wipe_daos: bool,

    /// Give up what is on the install disk, even if it is not nodeforge's.
    #[arg(long)]
    pub overwrite: bool,

    #[command(flatten)]
    pub bmc: BmcArgs,

    #[command(flatten)]
    pub place: ServedArgs,

    /// Print the grants as a JSON array on standard output.
    #[arg(long)]
    pub json: bool,
}

/// How the nodes' BMCs are told of it.
#[derive(Debug, Args)]
pub struct BmcArgs {
    /// Have the nodes' BMCs boot them from the network, once, by Redfish; what `bmc` says in
    /// this cluster file is how they are reached.
    #[arg(long, value_name = "CLUSTER")]
    pub network_boot: Option<PathBuf>,

    /// A folder whose profiles/ and overlays/ shadow the built-in ones.
    #[arg(long, value_name = "DIR", requires = "network_boot")]
    pub site: Option<PathBuf>,

    /// Restart the nodes now; start those that are off.
    #[arg(long, requires = "network_boot")]
    pub restart: bool,

    /// By UEFI HTTP boot instead of PXE.
    #[arg(long, requires = "network_boot")]
    pub uefi_http: bool,

    /// The authority of the BMCs' certificates, in PEM. Default: those that the system knows.
    #[arg(long, value_name = "FILE", requires = "network_boot")]
    pub bmc_ca: Option<PathBuf>,

    /// Take any certificate of a BMC: whoever is in between gets the password.
    #[arg(long, requires = "network_boot", conflicts_with = "bmc_ca")]
    pub any_bmc_certificate: bool,
}

#[derive(Debug, Args)]
pub struct DisarmArgs {
    /// The nodes, such as 'srv[001-512]'.
    #[arg(value_name = "RANGE")]
    pub nodes: String,

    #[command(flatten)]
    pub place: ServedArgs,

    /// Print the nodes as a JSON array on standard output.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Only these nodes.
    #[arg(value_name = "RANGE")]
    pub nodes: Option<String>,

    #[command(flatten)]
    pub place: ServedArgs,

    /// Print it again whenever it changes, until SIGINT.
    #[arg(long)]
    pub watch: bool,

    /// As a JSON object; with --watch, one a line.
    #[arg(long)]
    pub json: bool,
}

/// What is served, and where the server keeps its state.
#[derive(Debug, Args)]
pub struct ServedArgs {
    /// The folder of the boot tree.
    #[arg(short, long, value_name = "DIR", default_value = "out")]
    pub out: PathBuf,

    /// The folder of the server's state. Default: OUT.state
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct FetchArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,

    /// Where the images are kept. Default: nodeforge in the user's cache folder.
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,

    /// Take the images from this ISO instead of the mirror.
    #[arg(long, value_name = "FILE")]
    pub iso: Option<PathBuf>,

    /// The signed CHECKSUM file of that ISO. Default: the one beside it, or the
    /// mirror's.
    #[arg(long, value_name = "FILE", requires = "iso")]
    pub checksum: Option<PathBuf>,

    /// Take the images out of the mirror's signed boot ISO instead of its tree, whose
    /// checksums are not signed.
    #[arg(long, conflicts_with = "iso")]
    pub signed: bool,

    /// Fetch even what is in the cache.
    #[arg(long)]
    pub again: bool,

    /// The public key that signed the ISOs' checksums.
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,

    /// Also get images/install.img.
    #[arg(long)]
    pub install_img: bool,

    /// Also get the boot ISO.
    #[arg(long)]
    pub boot_iso: bool,

    /// Print what is in the cache as a JSON array on standard output.
    #[arg(long)]
    pub json: bool,
}

/// What an image assembled from a root tree comes as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ImageFormat {
    /// A sparse file, for `dd` and everything else.
    Raw,
    Qcow2,
    /// A quarter of the size, and slower to make.
    Qcow2Compressed,
    /// The node's root without boot loader and kernel, as .tar.gz for containers.
    Tar,
}

#[derive(Debug, Args)]
#[command(
    group = clap::ArgGroup::new("source").required(true).args(["base", "rootfs", "install"])
)]
pub struct ImageArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,

    /// The image that the nodes' disks are layers on: qcow2 or raw, with cloud-init, such
    /// as AlmaLinux's GenericCloud. It must stay as it is as long as they are used.
    #[arg(long, value_name = "IMAGE")]
    pub base: Option<PathBuf>,

    /// What the SHA-256 digest of the image must be; reads all of it.
    #[arg(long, value_name = "DIGEST", requires = "base")]
    pub base_sha256: Option<Digest>,

    /// A system with its packages, to assemble disks of that start by themselves: a folder,
    /// or a tar archive, plain or by gzip, xz or zstd. Owners are those of an archive, or of
    /// a folder of root's; another folder is taken to be all root's.
    #[arg(long, value_name = "DIR|TAR")]
    pub rootfs: Option<PathBuf>,

    /// The kernel of those disks; of all but --format tar, which have none.
    #[arg(
        long, value_name = "FILE", requires = "rootfs", conflicts_with_all = ["base", "iso"],
    )]
    pub kernel: Option<PathBuf>,

    /// Its initrd, unless it has all that it needs to find the root.
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub initrd: Option<PathBuf>,

    /// What the images of --rootfs come as; qcow2 unless said otherwise.
    #[arg(long, value_enum, requires = "rootfs", conflicts_with_all = ["base", "iso"])]
    pub format: Option<ImageFormat>,

    /// Install golden images in virtual machines, unattended and with the nodes' packages, one
    /// for all nodes that have the same installed, and make the nodes' disks layers on them.
    #[arg(long, requires = "iso")]
    pub install: bool,

    /// The vendor's ISO that starts the installer, such as AlmaLinux-8.9-x86_64-boot.iso. The
    /// packages come from the mirror, as they do for other machines.
    #[arg(
        long, value_name = "ISO", requires = "install", conflicts_with_all = ["base", "rootfs"],
    )]
    pub iso: Option<PathBuf>,

    /// What runs the instructions of those machines.
    #[arg(
        long, value_enum, default_value_t = AcceleratorChoice::Auto,
        requires = "install", conflicts_with_all = ["base", "rootfs"],
    )]
    pub accel: AcceleratorChoice,

    /// How long one installation may take, such as 90min.
    #[arg(
        long, value_name = "TIME", default_value = "4h", value_parser = seconds,
        requires = "install", conflicts_with_all = ["base", "rootfs"],
    )]
    pub timeout: Seconds,

    /// Only these nodes, such as 'srv[001-016]'.
    #[arg(long, value_name = "RANGE")]
    pub node: Option<String>,

    /// The folder to write to.
    #[arg(short, long, value_name = "DIR", default_value = "images")]
    pub out: PathBuf,

    /// Empty the disks for data that are there; else they stay as they are.
    #[arg(long, conflicts_with = "rootfs")]
    pub recreate_data: bool,
}

impl ImageArgs {
    /// What clap's rules cannot say: whether there is to be a kernel depends on the format, and on
    /// there being none.
    fn check(&self) -> Result<(), (ErrorKind, &'static str)> {
        let is_archive = self.format == Some(ImageFormat::Tar);
        match (&self.rootfs, &self.kernel) {
            (Some(_), None) if !is_archive => Err((
                ErrorKind::MissingRequiredArgument,
                "the following required arguments were not provided:\n  --kernel <FILE>",
            )),
            (Some(_), Some(_)) if is_archive => Err((
                ErrorKind::ArgumentConflict,
                "the argument '--kernel <FILE>' cannot be used with '--format tar'",
            )),
            _ => Ok(()),
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum LabVerb {
    /// Makes the images that are missing, starts the nodes, and waits until all are ready.
    Up(Box<LabUpArgs>),
    /// Shows which nodes run and how far they are.
    Status(LabStatusArgs),
    /// Joins the terminal with a node's console; Ctrl-] leaves it.
    Console(LabConsoleArgs),
    /// Shuts the nodes down and leaves nothing running.
    Down(LabDownArgs),
    /// Is the Ethernet of a lab, in the current folder, until it is ended.
    ///
    /// `up` starts it by itself; the scripts of `image` need one.
    Switch(LabSwitchArgs),
    /// Is a program that ends when the process that started it does.
    #[command(hide = true)]
    Tied(LabTiedArgs),
}

/// What runs the guests' instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AcceleratorChoice {
    /// KVM if this user may use /dev/kvm.
    Auto,
    Kvm,
    /// QEMU's own emulation, ten times slower.
    Tcg,
}

#[derive(Debug, Args)]
pub struct LabFolderArgs {
    /// The folder of the lab.
    #[arg(short, long, value_name = "DIR", default_value = "lab")]
    pub dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct LabUpArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,

    #[command(flatten)]
    pub lab: LabFolderArgs,

    /// The image that disks still to be made are layers on, as of `image`.
    #[arg(long, value_name = "IMAGE")]
    pub base: Option<PathBuf>,

    /// What the SHA-256 digest of the image must be; reads all of it.
    #[arg(long, value_name = "DIGEST", requires = "base")]
    pub base_sha256: Option<Digest>,

    /// Only these nodes, such as 'node[0-1]'.
    #[arg(long, value_name = "RANGE")]
    pub node: Option<String>,

    /// Make new system disks and seeds; disks for data stay as they are.
    #[arg(long, requires = "base")]
    pub fresh: bool,

    /// With --fresh: empty the disks for data too.
    #[arg(long, requires = "fresh")]
    pub recreate_data: bool,

    /// A kernel to start instead of the boot loader on the disk; `{node}` in the path is
    /// the node's name.
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<String>,

    /// The initrd of that kernel; `{node}` likewise.
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub initrd: Option<String>,

    /// The command line of that kernel; the node's kernel arguments follow it.
    #[arg(long, value_name = "WORDS", requires = "kernel", allow_hyphen_values = true)]
    pub append: Option<String>,

    /// What runs the guests' instructions.
    #[arg(long, value_enum, default_value_t = AcceleratorChoice::Auto)]
    pub accel: AcceleratorChoice,

    /// Further words for QEMU, such as those of a device to try out; `{node}` likewise,
    /// and files are looked for in the folder of the lab.
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    pub qemu: Option<String>,

    /// Let the guests reach nothing but each other.
    #[arg(long)]
    pub isolated: bool,

    /// Start the nodes and do not wait until they are ready.
    #[arg(long)]
    pub no_wait: bool,

    /// How long to wait for the nodes, such as 10min.
    #[arg(long, value_name = "TIME", default_value = "60min", value_parser = seconds)]
    pub timeout: Seconds,
}

#[derive(Debug, Args)]
pub struct LabStatusArgs {
    #[command(flatten)]
    pub lab: LabFolderArgs,

    /// As a JSON array.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct LabConsoleArgs {
    /// The node.
    pub node: String,

    #[command(flatten)]
    pub lab: LabFolderArgs,
}

#[derive(Debug, Args)]
pub struct LabDownArgs {
    #[command(flatten)]
    pub lab: LabFolderArgs,

    /// How long the nodes may take to shut down before their power is cut.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = seconds)]
    pub timeout: Seconds,
}

#[derive(Debug, Args)]
pub struct LabSwitchArgs {
    /// Started by `up`.
    #[arg(long, hide = true)]
    pub of_lab: bool,

    /// The networks, by their names in the cluster file.
    #[arg(value_name = "NET", required = true)]
    pub nets: Vec<String>,
}

#[derive(Debug, Args)]
pub struct LabTiedArgs {
    /// The process that starts it.
    #[arg(value_name = "PID")]
    pub parent: i32,

    /// The program and its arguments.
    #[arg(
        value_name = "WORD",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub words: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub enum MediaVerb {
    /// Makes a small volume a node, labelled OEMDRV, with its kickstart and all it needs.
    ///
    /// AlmaLinux's installer, booted from the untouched ISO, finds it on any disk, stick or
    /// virtual drive and installs the node unattended.
    Oemdrv(MediaVolumesArgs),
    /// Makes a seed a node for cloud-init, labelled CIDATA: a cloud image becomes the node.
    Seed(MediaVolumesArgs),
    /// Makes bootable ISOs from the vendor's, for BIOS and UEFI, CD and USB.
    ///
    /// One for all nodes, which finds out by MAC addresses and serial number which node a
    /// machine is; or, with --node, one a node.
    Iso(MediaIsoArgs),
    /// Checks an ISO or a volume that was made here.
    Verify(MediaVerifyArgs),
}

#[derive(Debug, Args)]
pub struct MediaVolumesArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,

    /// The nodes, such as node0 or 'srv[001-512]'.
    #[arg(value_name = "RANGE")]
    pub nodes: String,

    /// The folder to write to: NODE.oemdrv.img, NODE.seed.img.
    #[arg(short, long, value_name = "DIR", default_value = "media")]
    pub out: PathBuf,
}

#[derive(Debug, Args)]
pub struct MediaIsoArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,

    /// The vendor's ISO: AlmaLinux-8.9-x86_64-boot.iso, -minimal.iso or -dvd.iso.
    #[arg(long, value_name = "ISO")]
    pub base: PathBuf,

    /// One ISO for each of these nodes, such as 'srv[001-512]'.
    #[arg(long, value_name = "RANGE", conflicts_with = "all")]
    pub node: Option<String>,

    /// One ISO for all nodes of the cluster: the default.
    #[arg(long)]
    pub all: bool,

    /// The folder to write to: CLUSTER.iso, or NODE.iso and shared.iso.
    #[arg(short, long, value_name = "DIR", default_value = "media")]
    pub out: PathBuf,
}

#[derive(Debug, Args)]
pub struct MediaVerifyArgs {
    /// The ISO or volume.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// As a JSON object.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct PlanArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The code.
    pub code: Option<String>,
}

/// What kind of cluster to begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum InitKind {
    /// Three virtual machines.
    Lab,
    /// Bare metal with NVMe, PXE and certificates.
    BareMetal,
}

#[derive(Debug, Args)]
pub struct InitArgs {
    /// What kind of cluster.
    #[arg(long, value_enum, default_value_t = InitKind::Lab)]
    pub kind: InitKind,

    /// The file to write; `-` for standard output.
    #[arg(default_value = "cluster.toml")]
    pub file: PathBuf,
}

#[derive(Debug, Subcommand)]
pub enum GenerateVerb {
    /// Makes an `[hw.NAME]` block from the inventory of a real box.
    ///
    /// On the box: `nodeforge generate hw --script | ssh root@box sh > box.txt`.
    /// Then: `nodeforge generate hw --from box.txt`.
    Hw(GenerateHwArgs),
}

#[derive(Debug, Args)]
pub struct GenerateHwArgs {
    /// Outputs of the box's own tools, recognised by their content: a file, a folder
    /// of files, or `-` for standard input. May be given several times.
    #[arg(long, value_name = "FILE|DIR|-", required_unless_present = "script")]
    pub from: Vec<PathBuf>,

    /// Print the shell script that collects them on the box.
    #[arg(long, conflicts_with_all = ["from", "name", "json"])]
    pub script: bool,

    /// The NAME of the block. Default: what the box calls itself.
    #[arg(long)]
    pub name: Option<String>,

    /// Print the facts as JSON, which --from takes too.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum SecretsVerb {
    /// Makes the root password's hash and the certificates, where they do not exist yet.
    Init(SecretsInitArgs),
}

#[derive(Debug, Args)]
pub struct SecretsInitArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,

    /// Read the root password from standard input; otherwise one is made up and
    /// printed once.
    #[arg(long)]
    pub password_stdin: bool,
}

#[derive(Debug, Subcommand)]
pub enum CertsVerb {
    /// Makes a CA and the certificates of servers, agents and admins.
    Init(CertsInitArgs),
    /// Makes new certificates by the same CA and keeps the old ones.
    Rotate(CertsRotateArgs),
    /// Tells when the certificates expire.
    Show(CertsShowArgs),
}

#[derive(Debug, Args)]
pub struct CertsInitArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

#[derive(Debug, Args)]
pub struct CertsRotateArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,

    /// Make a new CA too.
    #[arg(long)]
    pub ca: bool,
}

#[derive(Debug, Args)]
pub struct CertsShowArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,

    /// As a JSON array.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub struct ManArgs {
    /// The folder to write them to; without it, the main page goes to standard output.
    pub dir: Option<PathBuf>,
}
