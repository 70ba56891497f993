//! `nodeforge image --rootfs`: disks that start by themselves, assembled from a root tree.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::build::BuildError;
use crate::build::media::MediaBuilder;
use crate::cli::{ImageArgs, ImageFormat};
use crate::cluster::{Cluster, Node};
use crate::commands::image::refuse_running;
use crate::commands::image::spool::Spool;
use crate::commands::{Outcome, load, media};
use crate::diag::Color;
use crate::fetch::magic;
use crate::output::disk::named;
use crate::output::image_list::{self, Image};
use crate::output::whole_file::{self, Audience, WholeFile};
use crate::range;
use crate::render::install::{kept, kernel_args};
use crate::rootfs::disk::{self, Assembly, Compression, EFI_SYSTEM_BYTES, Layout, NodeDisk};
use crate::rootfs::loader::Loader;
use crate::rootfs::node::{self, Boot, Wanted};
use crate::rootfs::tree::{Contents, RootTree};
use crate::rootfs::{archive, ext4, loader, read};
use crate::tool;
use crate::units::ByteSize;

/// What a node's own files may take beyond the tree's.
const OWN: ByteSize = ByteSize::from_mib(64);

pub fn run(args: &ImageArgs, rootfs: &Path, color: Color) -> Result<Outcome> {
    let started = Instant::now();
    let format = args.format.unwrap_or(ImageFormat::Qcow2);
    require_tools(format)?;
    let kernel = match (format, &args.kernel) {
        (ImageFormat::Tar, _) => None,
        (_, None) => unreachable!("the command line is refused without it"),
        (_, Some(kernel)) => Some(Kernel::open(kernel, args.initrd.as_deref())?),
    };
    refuse_running(&args.out)?;
    media::with_builder(&args.cluster, color, |builder| {
        let cluster = builder.cluster();
        let wanted = load::selection(cluster, args.node.as_deref())?;
        let nodes: Vec<&Node> =
            cluster.nodes.iter().filter(|node| wanted.contains(&node.name)).collect();
        let spool = Spool::in_folder(&args.out)?;
        let tree = read::read(rootfs, &spool.folder("tree")?)?;
        let tree = match &kernel {
            None => tree,
            Some(kernel) => kernel.put_into(tree)?,
        };
        let making = Making { args, format, builder, tree: &tree, spool: &spool.path };
        making.check(&nodes, kernel.as_ref())?;
        let made = making.write(&nodes, kernel.as_ref())?;
        let size: u64 = made.iter().map(|image| image.size).sum();
        eprintln!(
            "{}: {} of {} from {}: {} file{}, {:.1} MiB ({:.2} s)",
            args.out.display(),
            kind_of(format),
            range::fold(nodes.iter().map(|node| &node.name)),
            rootfs.display(),
            made.len(),
            if made.len() == 1 { "" } else { "s" },
            size as f64 / f64::from(1 << 20),
            started.elapsed().as_secs_f64(),
        );
        media::tell_of_secrets(nodes.iter().filter(|node| builder.has_secrets(node)).count());
        Ok(())
    })
}

/// Everything that this host lacks, at once.
fn require_tools(format: ImageFormat) -> Result<()> {
    if format == ImageFormat::Tar {
        return Ok(());
    }
    let mut lacks = loader::lacks();
    let is_missing = |program: &&str| tool::find(program).is_none();
    let missing: Vec<&str> = ext4::PROGRAMS.into_iter().filter(is_missing).collect();
    if !missing.is_empty() {
        lacks.push(format!("{} is not there: install e2fsprogs", missing.join(", ")));
    }
    if format != ImageFormat::Raw && tool::find("qemu-img").is_none() {
        lacks.push("qemu-img is not there: install qemu-utils (EL8: qemu-img)".to_owned());
    }
    ensure!(lacks.is_empty(), "disks cannot be assembled here:\n  {}", lacks.join("\n  "));
    Ok(())
}

fn kind_of(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Raw => "raw disks",
        ImageFormat::Qcow2 => "qcow2 disks",
        ImageFormat::Qcow2Compressed => "compressed qcow2 disks",
        ImageFormat::Tar => "tar archives",
    }
}

/// What the disks start.
struct Kernel {
    kernel: Contents,
    initrd: Option<Contents>,
    /// As it says of itself: `4.18.0-513.5.1.el8_9.x86_64`.
    version: Option<String>,
}

impl Kernel {
    fn open(kernel: &Path, initrd: Option<&Path>) -> Result<Self> {
        let open = |path: &Path| -> Result<(File, Contents)> {
            let open = || -> std::io::Result<_> {
                let path = fs::canonicalize(path)?;
                let file = File::open(&path)?;
                let size = file.metadata()?.len();
                Ok((file, Contents::Host(path, size)))
            };
            open().with_context(|| named("opening", path))
        };
        let (mut file, contents) = open(kernel)?;
        let shown = kernel.display();
        let is_kernel =
            magic::is_linux_kernel(&mut file).with_context(|| named("reading", kernel))?;
        ensure!(is_kernel, "{shown} is no Linux kernel: give a vmlinuz");
        let version = version_in(&mut file).with_context(|| named("reading", kernel))?;
        let initrd = match initrd {
            None => None,
            Some(path) => {
                let (_, contents) = open(path)?;
                ensure!(contents.size() > 0, "{} is empty: give an initrd", path.display());
                Some(contents)
            }
        };
        Ok(Self { kernel: contents, initrd, version })
    }

    fn put_into(&self, tree: RootTree) -> Result<RootTree> {
        if let Some(version) = &self.version
            && !node::has_modules(&tree, version)
        {
            eprintln!(
                "warning: the tree has no /lib/modules/{version}, and so no modules for the kernel"
            );
        }
        node::with_kernel(tree, self.kernel.clone(), self.initrd.clone())
            .map_err(|problems| anyhow::anyhow!("the root tree: {}", problems.join("; ")))
    }
}

/// The first word of a kernel's version (kernel `Documentation/arch/x86/boot.rst`,
/// `kernel_version`); `None` for a header that does not say it.
fn version_in(kernel: &mut (impl Read + Seek)) -> std::io::Result<Option<String>> {
    let mut place = [0; 2];
    kernel.seek(SeekFrom::Start(0x20e))?;
    kernel.read_exact(&mut place)?;
    let place = u16::from_le_bytes(place);
    if place == 0 {
        return Ok(None);
    }
    let mut text = Vec::new();
    kernel.seek(SeekFrom::Start(u64::from(place) + 0x200))?;
    kernel.take(128).read_to_end(&mut text)?;
    let end = text.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(0);
    let version = String::from_utf8_lossy(&text[..end]).into_owned();
    Ok(Some(version).filter(|version| !version.is_empty()))
}

struct Making<'m, 'a> {
    args: &'m ImageArgs,
    format: ImageFormat,
    builder: &'m MediaBuilder<'a>,
    tree: &'m RootTree,
    spool: &'m Path,
}

/// A node's tree, and what its disk is to be.
struct NodeTree {
    tree: RootTree,
    layout: Option<Layout>,
    audience: Audience,
}

/// Does something with a node and its tree, or with all that is wrong with that.
type TakeNode<'t> = dyn FnMut(&Node, Result<NodeTree, Vec<String>>) -> Result<()> + 't;

impl<'a> Making<'_, 'a> {
    /// Finds everything that any node's image will lack, and that the folder has room for all.
    fn check(&self, nodes: &[&'a Node], kernel: Option<&Kernel>) -> Result<(), BuildError> {
        let mut problems: BTreeMap<String, Vec<String>> = BTreeMap::new();
        self.for_each(nodes, kernel, &mut |node, made| {
            if let Err(found) = made {
                for problem in found {
                    problems.entry(problem).or_default().push(node.name.to_string());
                }
            }
            Ok(())
        })?;
        if !problems.is_empty() {
            let told = node::told(&problems);
            return Err(anyhow::anyhow!("nothing was made:\n  {told}").into());
        }
        let n_images = nodes.len() as u64;
        let n_copies = match self.format {
            ImageFormat::Raw => 1 + n_images,
            ImageFormat::Qcow2 => 2 + n_images,
            ImageFormat::Qcow2Compressed => 2 + n_images / 2,
            ImageFormat::Tar => n_images.div_ceil(2),
        };
        let size = ByteSize::from_bytes(self.tree.size()) * n_copies;
        Ok(whole_file::require_folder(&self.args.out, size)?)
    }

    fn write(&self, nodes: &[&'a Node], kernel: Option<&Kernel>) -> Result<Vec<Image>, BuildError> {
        let loader: Option<Loader> = match kernel {
            Some(_) => Some(loader::make(self.spool, EFI_SYSTEM_BYTES)?),
            None => None,
        };
        let cluster = self.builder.cluster();
        let mut assembly = loader.as_ref().map(|loader| Assembly {
            cluster: &cluster.name,
            tree: self.tree,
            loader,
            spool: self.spool,
            shared: BTreeMap::new(),
        });
        let mut made = Vec::new();
        self.for_each(nodes, kernel, &mut |node, tree| {
            let tree = tree.map_err(|problems| anyhow::anyhow!("{}", problems.join("; ")))?;
            let file = match (&mut assembly, &tree.layout) {
                (Some(assembly), Some(layout)) => {
                    self.disk(cluster, node, &tree, layout, assembly)?
                }
                _ => self.archive(node, &tree)?,
            };
            let path = file.path().to_owned();
            whole_file::publish(vec![file])?;
            let file = File::open(&path).with_context(|| named("opening", &path))?;
            let kind = kind_of(self.format).trim_end_matches('s');
            let image = Image::of(&path, file, node.name.as_str(), kind)?;
            image_list::add(&self.args.out, vec![image.clone()])?;
            made.push(image);
            Ok(())
        })?;
        Ok(made)
    }

    /// Shows `take` each node with its tree, or with what is wrong with it.
    fn for_each(
        &self,
        nodes: &[&'a Node],
        kernel: Option<&Kernel>,
        take: &mut TakeNode<'_>,
    ) -> Result<(), BuildError> {
        let cluster = self.builder.cluster();
        for of_kind in nodes.chunk_by(|a, b| a.kind == b.kind) {
            let mut renderer = self.builder.renderer(of_kind[0].kind);
            for node in of_kind {
                let medium = self.builder.node(node, &mut renderer)?;
                let os = &cluster.kind_of(node).os;
                let system = node::system(self.tree, Wanted { medium: &medium, os });
                let audience = media::audience(&medium);
                let made = system.and_then(|tree| match kernel {
                    None => Ok(NodeTree { tree, layout: None, audience }),
                    Some(kernel) => self.bootable(cluster, node, kernel, tree, audience),
                });
                take(node, made)?;
            }
        }
        Ok(())
    }

    fn bootable(
        &self,
        cluster: &Cluster,
        node: &Node,
        kernel: &Kernel,
        tree: RootTree,
        audience: Audience,
    ) -> Result<NodeTree, Vec<String>> {
        let kind = cluster.kind_of(node);
        let kept = kept(cluster, kind);
        let needed = ext4::size_for(self.tree) + OWN;
        let disk = kind.hw.vm.as_ref().map(|vm| vm.disk);
        let layout = Layout::of(needed, &kept, disk).map_err(|problem| vec![problem])?;
        let root = disk::root_guid(&cluster.name, node.name.as_str());
        let boot = Boot {
            node: node.name.as_str(),
            has_initrd: kernel.initrd.is_some(),
            kernel_args: &kernel_args(kind),
            root: &format!("PARTUUID={root}"),
            kept: &kept,
            selinux: kind.os.selinux,
        };
        let tree = node::bootable(tree, &boot)?;
        Ok(NodeTree { tree, layout: Some(layout), audience })
    }

    fn disk(
        &self,
        cluster: &Cluster,
        node: &Node,
        made: &NodeTree,
        layout: &Layout,
        assembly: &mut Assembly<'_>,
    ) -> Result<WholeFile> {
        let kept = kept(cluster, cluster.kind_of(node));
        let name = node.name.as_str();
        let disk = NodeDisk { node: name, tree: &made.tree, layout, kept: &kept };
        let out = |end: &str| self.args.out.join(format!("{name}.{end}"));
        let compression = match self.format {
            ImageFormat::Qcow2Compressed => Compression::Deflate,
            _ => Compression::None,
        };
        if self.format == ImageFormat::Raw {
            let file = WholeFile::begin(&out("raw"), made.audience)?;
            assembly.write(disk, file.file(), &file.path_meanwhile())?;
            return Ok(file);
        }
        let raw = self.spool.join(format!("{name}.raw"));
        let file = File::options().read(true).write(true).create_new(true).open(&raw);
        let file = file.with_context(|| named("making", &raw))?;
        assembly.write(disk, &file, &raw)?;
        let image = disk::to_qcow2(&raw, &out("qcow2"), made.audience, compression)?;
        fs::remove_file(&raw).with_context(|| named("removing", &raw))?;
        Ok(image)
    }

    fn archive(&self, node: &Node, made: &NodeTree) -> Result<WholeFile> {
        let path = self.args.out.join(format!("{}.tar.gz", node.name));
        let file = WholeFile::begin(&path, made.audience)?;
        archive::write(&made.tree, BufWriter::with_capacity(1 << 20, file.file()))
            .with_context(|| named("writing", &path))?;
        Ok(file)
    }
}
