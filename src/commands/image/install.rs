//! `nodeforge image --install`: golden images, each installed once by the vendor's installer in a
//! virtual machine, and the nodes' disks on them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::build::BuildError;
use crate::cli::ImageArgs;
use crate::cluster::{Cluster, Firmware};
use crate::commands::image::spool::Spool;
use crate::commands::image::{Made, Wanted, make_with, refuse_running, write_thin};
use crate::commands::lab::{clock, wanted_accelerator};
use crate::commands::media::iso::warn_of_release;
use crate::commands::{Outcome, load};
use crate::diag::Color;
use crate::format::digest::Digest;
use crate::format::{Archive, gzip, pack};
use crate::lab::install::Installation;
use crate::lab::{base, host};
use crate::media::install_archive::{self, Handed, KICKSTART};
use crate::output::disk::named;
use crate::output::image_list::{self, Image, Installed};
use crate::output::whole_file::{self, Audience, WholeFile};
use crate::progress::{Progress, Unit};
use crate::range;
use crate::remaster::Base;
use crate::render::prepared::Prepared;
use crate::signals;
use crate::tool;
use crate::units::ByteSize;
use crate::vm::installer::{self, GoldenDisk};
use crate::vm::qemu::{Accelerator, Uefi};
use crate::vm::{Machine, WayOut};

/// Where the vendor's ISO has the installer's kernel and initrd (lorax 28.14).
const KERNEL: &str = "images/pxeboot/vmlinuz";
const INITRD: &str = "images/pxeboot/initrd.img";

/// What an installed system takes, of a disk that may be larger.
const ROOM: ByteSize = ByteSize::from_gib(6);

pub fn run(args: &ImageArgs, iso: &Path, color: Color) -> Result<Outcome> {
    let base = Base::open(iso)?;
    let wanted =
        Wanted { cluster: &args.cluster, nodes: args.node.as_deref(), way_out: WayOut::Open };
    let of_kinds = |prepared: &Prepared<'_>, cluster: &Cluster, kinds: &[usize]| {
        let names = load::selection(cluster, args.node.as_deref())?;
        let nodes: Vec<_> =
            cluster.nodes.iter().filter(|node| names.contains(&node.name)).collect();
        warn_of_release(&base, cluster, &nodes);
        kinds.iter().map(|kind| GoldenKind::of(prepared, cluster, *kind)).collect()
    };
    let Some((made, kinds)) = make_with(&wanted, color, of_kinds)? else {
        return Ok(Outcome::Problems);
    };
    let goldens = goldens(made, kinds);
    refuse_small_disks(&goldens)?;
    let host = Host::find(args, &goldens)?;
    refuse_running(&args.out)?;
    let spool = Spool::in_folder(&args.out)?;
    let installer = Installer::of(base, host, spool)?;
    let images = installer.images(args, &goldens)?;
    for (golden, image) in goldens.iter().zip(&images) {
        let started = Instant::now();
        let base = base::open(image, None)?;
        write_thin(args, &golden.made, &base, started)?;
    }
    Ok(Outcome::Done)
}

/// The golden image of a kind of nodes.
struct GoldenKind {
    kickstart: String,
    /// MiB that its disk has at least.
    disk_mib: u64,
    /// The kind's, joined; `node` without one.
    roles: String,
}

impl GoldenKind {
    fn of(prepared: &Prepared<'_>, cluster: &Cluster, kind: usize) -> Result<Self, BuildError> {
        let (kickstart, disk_mib) =
            prepared.golden_kickstart(kind).map_err(BuildError::Problems)?;
        let roles: Vec<&str> =
            cluster.kinds[kind].roles.iter().map(|role| role.value.as_str()).collect();
        let roles = if roles.is_empty() { "node".to_owned() } else { roles.join("-") };
        Ok(Self { kickstart, disk_mib, roles })
    }
}

/// A golden image and the nodes that are to stand on it.
struct Golden {
    kind: GoldenKind,
    disk: GoldenDisk,
    made: Made,
}

/// Nodes by what is installed for them: those with the same kickstart and the same kind of disk share
/// one image.
fn goldens(made: Made, kinds: Vec<GoldenKind>) -> Vec<Golden> {
    let mut goldens: Vec<Golden> = Vec::new();
    for (node, kind) in made.nodes.into_iter().zip(kinds) {
        let disk = GoldenDisk::of(&node.machine);
        let name = range::NodeName::new(node.machine.name.as_str());
        let same =
            |golden: &&mut Golden| golden.kind.kickstart == kind.kickstart && golden.disk == disk;
        match goldens.iter_mut().find(same) {
            Some(golden) => {
                golden.made.names.insert(name);
                golden.made.nodes.push(node);
            }
            None => {
                let names = BTreeSet::from([name]);
                let made = Made { name: made.name.clone(), names, nodes: vec![node] };
                goldens.push(Golden { kind, disk, made });
            }
        }
    }
    goldens
}

/// The kickstart would refuse them, half an hour later.
fn refuse_small_disks(goldens: &[Golden]) -> Result<()> {
    let problems: Vec<String> = goldens
        .iter()
        .filter(|golden| golden.disk.size.mib() < golden.kind.disk_mib)
        .map(|golden| {
            format!(
                "{}: a disk of {} MiB is too small, {} MiB are needed: make hw.vm.disk larger",
                range::fold(&golden.made.names),
                golden.disk.size.mib(),
                golden.kind.disk_mib
            )
        })
        .collect();
    ensure!(problems.is_empty(), "nothing was made:\n  {}", problems.join("\n  "));
    Ok(())
}

/// What this host has for an installation.
struct Host {
    qemu: PathBuf,
    accelerator: Accelerator,
    /// Firmware and fresh variables, if any golden image is for UEFI.
    uefi: Option<[&'static Path; 2]>,
}

impl Host {
    /// Tells everything that is missing at once.
    fn find(args: &ImageArgs, goldens: &[Golden]) -> Result<Self> {
        let mut lacks = Vec::new();
        let mut noted = |fault: anyhow::Error| lacks.push(format!("{fault:#}"));
        let qemu = host::qemu().map_err(&mut noted).ok();
        let accelerator =
            host::accelerator(wanted_accelerator(args.accel), 1).map_err(&mut noted).ok();
        let needs_uefi = goldens.iter().any(|golden| golden.disk.firmware == Firmware::Uefi);
        let uefi = needs_uefi.then(host::uefi).and_then(|found| found.map_err(&mut noted).ok());
        if tool::find("qemu-img").is_none() {
            lacks.push("qemu-img is not there: install qemu-utils (EL8: qemu-img)".to_owned());
        }
        match (qemu, accelerator) {
            (Some(qemu), Some(accelerator)) if lacks.is_empty() => {
                Ok(Self { qemu, accelerator, uefi })
            }
            _ => bail!("nothing can be installed here:\n  {}", lacks.join("\n  ")),
        }
    }
}

/// The installer of an ISO, ready to be started.
struct Installer {
    host: Host,
    spool: Spool,
    /// Absolute.
    iso: PathBuf,
    iso_sha256: Digest,
    kernel: PathBuf,
    initrd: Vec<u8>,
    /// The kernel's command line.
    line: String,
}

impl Installer {
    fn of(mut base: Base, host: Host, spool: Spool) -> Result<Self> {
        let shown = base.iso.path.display().to_string();
        let mut part = |path: &str| -> Result<Vec<u8>> {
            let read = base.iso.read(path)?;
            read.with_context(|| format!("{shown} has no {path}: it is no installer's ISO"))
        };
        let (kernel_bytes, initrd) = (part(KERNEL)?, part(INITRD)?);
        let kernel = spool.path.join("vmlinuz");
        fs::write(&kernel, kernel_bytes).with_context(|| named("writing", &kernel))?;
        let changed = base.changed(&arguments(host.accelerator))?;
        let line = changed.installer_line().context("the ISO's menu starts no installer")?;
        let iso =
            fs::canonicalize(&base.iso.path).with_context(|| named("opening", &base.iso.path))?;
        let progress = Progress::start("checking the ISO", Some(base.iso.size), Unit::Bytes);
        let file = File::open(&iso).with_context(|| named("opening", &iso))?;
        let read = Digest::of_reader(file, |bytes| progress.advance(bytes));
        let (iso_sha256, _) = read.with_context(|| named("reading", &iso))?;
        progress.finish();
        Ok(Self { host, spool, iso, iso_sha256, kernel, initrd, line })
    }

    /// The images of `goldens`: those that are there, and new ones of the others.
    fn images(&self, args: &ImageArgs, goldens: &[Golden]) -> Result<Vec<PathBuf>> {
        let listed = image_list::read(&args.out)?;
        let there: Vec<Option<PathBuf>> = goldens
            .iter()
            .map(|golden| self.image_that_is_there(&args.out, golden, &listed))
            .collect::<Result<_>>()?;
        let missing = goldens.iter().zip(&there).filter(|(_, there)| there.is_none());
        let room = missing.map(|(golden, _)| golden.disk.size.min(ROOM)).sum();
        whole_file::require_folder(&args.out, room)?;
        for path in there.iter().flatten() {
            let name = path.file_name().unwrap_or_default().display();
            eprintln!("{name}: kept, of the same ISO and kickstart");
        }
        if there.iter().all(Option::is_some) {
            return Ok(there.into_iter().flatten().collect());
        }
        let is_interrupted = signals::noticed()?;
        let install = |golden| {
            let path = self.install(args, golden, &is_interrupted)?;
            ensure!(!is_interrupted.load(Ordering::Relaxed), "interrupted");
            Ok(path)
        };
        let images = goldens.iter().zip(there);
        images.map(|(golden, there)| there.map_or_else(|| install(golden), Ok)).collect()
    }

    fn made_of(&self, golden: &Golden) -> Installed {
        Installed {
            iso: self.iso_sha256,
            kickstart: Digest::of(golden.kind.kickstart.as_bytes()),
            machine: golden.disk.describe(),
        }
    }

    /// What is installed from something else has another name: disks may stand on the image that has
    /// this one.
    fn name(&self, golden: &Golden) -> String {
        let made_of = self.made_of(golden);
        let text = format!("{}\0{}\0{}", made_of.iso, made_of.kickstart, made_of.machine);
        format!("{}-{}", golden.kind.roles, &Digest::of(text.as_bytes()).to_string()[..8])
    }

    /// The image of an earlier run. A changed one is nothing to stand on, and one that nobody knows
    /// is nothing to replace.
    fn image_that_is_there(
        &self,
        folder: &Path,
        golden: &Golden,
        listed: &[Image],
    ) -> Result<Option<PathBuf>> {
        let made_of = self.made_of(golden);
        let found = listed.iter().find(|image| image.installed.as_ref() == Some(&made_of));
        let path = found.map_or_else(
            || image_path(folder, &self.name(golden)),
            |image| folder.join(&image.file),
        );
        let file = match File::open(&path) {
            Err(fault) if fault.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            file => file.with_context(|| named("opening", &path))?,
        };
        let shown = path.display();
        let Some(found) = found else {
            bail!(
                "{shown} is there, and {} does not say what it was installed from: remove it, if no \
                 disk stands on it",
                image_list::LIST
            );
        };
        let now = Image::of(&path, file, "", &found.kind)?;
        ensure!(
            now.sha256 == found.sha256,
            "{shown} was changed since it was installed, and so the disks that stand on it are \
             broken: remove it and them"
        );
        Ok(Some(path))
    }

    fn install(
        &self,
        args: &ImageArgs,
        golden: &Golden,
        is_interrupted: &AtomicBool,
    ) -> Result<PathBuf> {
        let started = Instant::now();
        let name = self.name(golden);
        let path = image_path(&args.out, &name);
        let log = args.out.join(format!("{name}.install.log"));
        let shown = path.file_name().unwrap_or_default().display();
        let nodes = range::fold(&golden.made.names);
        eprintln!("{shown}: is being installed for {nodes}; its console is {}", log.display());
        let disk = self.empty_disk(&path, golden.disk.size)?;
        let machine = self.machine(&name, golden, &disk)?;
        let progress = Progress::waiting(&format!("installing {name}"));
        let timeout = Duration::from_secs(args.timeout.as_u64());
        let installed = self.start(golden, &machine, &log, timeout, &progress, is_interrupted);
        progress.finish();
        installed.with_context(|| format!("installing {shown}"))?;
        self.publish(disk, golden)?;
        eprintln!("{shown}: installed ({})", clock(started.elapsed()));
        Ok(path)
    }

    fn empty_disk(&self, path: &Path, size: ByteSize) -> Result<WholeFile> {
        let disk = WholeFile::begin(path, Audience::Everybody)?;
        let meanwhile = disk.path_meanwhile().display().to_string();
        let arguments = ["create", "-q", "-f", "qcow2", &meanwhile, &size.bytes().to_string()];
        tool::output_of(&tool::found("qemu-img"), &arguments)
            .with_context(|| named("making", path))?;
        Ok(disk)
    }

    fn machine(&self, name: &str, golden: &Golden, disk: &WholeFile) -> Result<Machine> {
        let node = golden.made.nodes.first().context("a golden image without nodes")?;
        let file = disk.path_meanwhile().display().to_string();
        Ok(installer::machine(name, &node.machine, &file))
    }

    fn start(
        &self,
        golden: &Golden,
        machine: &Machine,
        log: &Path,
        timeout: Duration,
        progress: &Progress,
        is_interrupted: &AtomicBool,
    ) -> Result<()> {
        let initrd = self.spool.path.join("initrd.img");
        let write = || fs::write(&initrd, self.initrd_with(&golden.kind.kickstart)?);
        write().with_context(|| named("writing", &initrd))?;
        let variables = self.spool.path.join("variables.fd");
        let variables = variables.to_str().context("the folder's path is no text")?;
        let uefi = match (golden.disk.firmware, self.host.uefi) {
            (Firmware::Uefi, Some([code, fresh])) => {
                fs::copy(fresh, variables).with_context(|| named("copying", fresh))?;
                let code = code.to_str().context("the firmware's path is no text")?;
                Some(Uefi { code, variables })
            }
            _ => None,
        };
        let installation = Installation {
            machine,
            accelerator: self.host.accelerator,
            qemu: &self.host.qemu,
            uefi,
            iso: &self.iso,
            kernel: &self.kernel,
            initrd: &initrd,
            line: &self.line,
            log,
            timeout,
        };
        installation.run(progress, is_interrupted)
    }

    /// The installer's initrd with the kickstart behind it (kernel
    /// `Documentation/driver-api/early-userspace/buffer-format.rst`).
    fn initrd_with(&self, kickstart: &str) -> std::io::Result<Vec<u8>> {
        let files = [Handed { name: KICKSTART, contents: kickstart.as_bytes() }];
        let tree = install_archive::tree(&files).expect("one file is in nobody's way");
        let archive = pack(&tree, Archive::Newc, gzip::Level::Fast)?;
        Ok([self.initrd.as_slice(), &archive].concat())
    }

    /// Gives a disk that was installed its name, and lists it. Nobody writes to it from now on.
    fn publish(&self, disk: WholeFile, golden: &Golden) -> Result<()> {
        let path = disk.path().to_owned();
        let meanwhile = disk.path_meanwhile().display().to_string();
        let arguments = ["check", "-q", "-f", "qcow2", &meanwhile];
        tool::output_of(&tool::found("qemu-img"), &arguments)
            .with_context(|| named("checking", &path))?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o444);
        disk.file().set_permissions(mode).with_context(|| named("making", &path))?;
        whole_file::publish(vec![disk])?;
        let file = File::open(&path).with_context(|| named("opening", &path))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let image = Image::of_installed(&path, file, "golden qcow2 disk", self.made_of(golden))?;
        image_list::add(folder, vec![image])
    }
}

fn image_path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.golden.qcow2"))
}

/// What the installer's kernel line has beside what the ISO says. Nobody is there to answer
/// questions, so one is to be a failure (anaconda 33.16, `inst.cmdline`).
fn arguments(accelerator: Accelerator) -> Vec<String> {
    let mut arguments = vec!["inst.cmdline", "console=tty0", "console=ttyS0,115200"];
    if matches!(accelerator, Accelerator::Tcg(_)) {
        // A kernel counts timer interrupts at its start, and panics where emulation is late with them.
        arguments.push("no_timer_check");
    }
    arguments.into_iter().map(str::to_owned).collect()
}
