//! What makes a root tree a node's: the overlay, and what the installer's own commands do elsewhere.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;

use crate::cluster::{Firewall, Os, Selinux};
use crate::format::{Body, gzip, tar};
use crate::media::node::NodeMedium;
use crate::render::kickstart::KeptFilesystem;
use crate::rootfs::tree::{Contents, Kind, Meta, Node, RootTree};
use crate::rootfs::units;
use crate::secrets::ROOT_HASH_PATH;
use crate::tree::{Mode, TreePath};

/// The most that an archive of a node's may unpack to.
const MAX_ARCHIVE: usize = 1 << 30;
/// A file that only root reads.
const SECRET: Mode = Mode::SECRET;

/// What a node's tree is made from.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    pub medium: &'a NodeMedium<'a>,
    pub os: &'a Os,
}

/// `tree` with all that is the node's own, and without what no two nodes may share.
///
/// # Errors
///
/// Everything that the tree lacks, or has in the way.
pub fn system(tree: &RootTree, wanted: Wanted<'_>) -> Result<RootTree, Vec<String>> {
    let mut made = Making { tree: tree.clone(), problems: Vec::new() };
    made.forget_the_host();
    let medium = wanted.medium;
    for (name, layer) in &medium.layers {
        made.unpack(&format!("layer {name}"), layer);
    }
    made.unpack("overlay", &medium.overlay);
    if medium.has_secrets() {
        made.unpack("secrets", medium.secrets);
    }
    made.set_root_password();
    made.enable(&wanted.os.services);
    if wanted.os.firewall == Firewall::Disabled {
        made.disable_firewall();
    }
    made.finish()
}

/// How a disk is started.
#[derive(Clone, Debug)]
pub struct Boot<'a> {
    pub node: &'a str,
    pub has_initrd: bool,
    /// The arguments of the kernel, without the root.
    pub kernel_args: &'a [String],
    /// As the kernel finds the root: `PARTUUID=…`.
    pub root: &'a str,
    /// Each on a partition that is named like it.
    pub kept: &'a [KeptFilesystem],
    pub selinux: Selinux,
}

/// `tree` with the kernel and initrd that all nodes' disks start.
///
/// # Errors
///
/// What the tree has in the way.
pub fn with_kernel(
    tree: RootTree,
    kernel: Contents,
    initrd: Option<Contents>,
) -> Result<RootTree, Vec<String>> {
    let mut made = Making { tree, problems: Vec::new() };
    made.file(KERNEL, Mode::FILE, kernel);
    if let Some(initrd) = initrd {
        made.file(INITRD, SECRET, initrd);
    }
    made.finish()
}

/// `tree`, which is a node's, with what starts it from a disk.
///
/// # Errors
///
/// What the tree has in the way.
pub fn bootable(tree: RootTree, boot: &Boot<'_>) -> Result<RootTree, Vec<String>> {
    let mut made = Making { tree, problems: Vec::new() };
    made.text("boot/grub/grub.cfg", Mode::FILE, &grub_config(boot));
    made.text("etc/fstab", Mode::FILE, &fstab(boot));
    if !boot.kept.is_empty() {
        made.text(MAKE_FILESYSTEM, Mode::FILE, include_str!("filesystem.service"));
    }
    if boot.selinux != Selinux::Disabled {
        // Read by selinux-autorelabel(8) of the tree's own policycoreutils, with its own policy.
        made.text(".autorelabel", Mode::FILE, "-F\n");
    }
    // The disk counts as installed: the installer goes back to it without a grant.
    made.text("var/lib/nodeforge/grant", SECRET, "0\n");
    made.finish()
}

const KERNEL: &str = "boot/nodeforge/vmlinuz";
const INITRD: &str = "boot/nodeforge/initrd.img";
const MAKE_FILESYSTEM: &str = "etc/systemd/system/nodeforge-filesystem@.service";

fn grub_config(boot: &Boot<'_>) -> String {
    let mut text = "# Made by nodeforge; edit the cluster file, not this.\n\
                    set timeout=3\nset default=0\nset gfxpayload=keep\n"
        .to_owned();
    let console = boot.kernel_args.iter().find_map(|word| word.strip_prefix("console=ttyS"));
    if let Some(console) = console {
        let (port, speed) = console.split_once(',').unwrap_or((console, "115200"));
        let speed: String = speed.chars().take_while(char::is_ascii_digit).collect();
        let _ = write!(
            text,
            "serial --unit={port} --speed={speed}\n\
             terminal_input console serial\nterminal_output console serial\n"
        );
    }
    let words = boot.kernel_args.iter().map(|word| format!(" {}", quoted(word)));
    let words: String = words.collect();
    let _ = write!(
        text,
        "menuentry {} {{\n    linux /{KERNEL} root={} ro{words}\n",
        quoted(boot.node),
        boot.root
    );
    if boot.has_initrd {
        let _ = writeln!(text, "    initrd /{INITRD}");
    }
    text.push_str("}\n");
    text
}

/// As GRUB's scripts take a word (GRUB's manual, "Quoting").
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_=.,:/+-@%".contains(&byte);
    match word.bytes().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

fn fstab(boot: &Boot<'_>) -> String {
    let mut text = format!(
        "# Made by nodeforge; edit the cluster file, not this.\n{} / ext4 defaults 1 1\n",
        boot.root
    );
    for KeptFilesystem { label, mount, .. } in boot.kept {
        let _ = writeln!(
            text,
            "LABEL={label} {mount} xfs defaults,x-systemd.requires=nodeforge-filesystem@{label}.service 0 0"
        );
    }
    text
}

struct Making {
    tree: RootTree,
    problems: Vec<String>,
}

impl Making {
    fn finish(self) -> Result<RootTree, Vec<String>> {
        if self.problems.is_empty() { Ok(self.tree) } else { Err(self.problems) }
    }

    fn put(&mut self, path: &str, node: Node) {
        let put = TreePath::new(path).map_err(|fault| fault.to_string());
        if let Err(problem) = put.and_then(|path| self.tree.insert(path, node)) {
            self.problems.push(problem);
        }
    }

    fn file(&mut self, path: &str, mode: Mode, contents: Contents) {
        self.put(path, Node { meta: Meta::ours(mode), kind: Kind::File(contents) });
    }

    fn text(&mut self, path: &str, mode: Mode, text: &str) {
        self.file(path, mode, Contents::Bytes(text.as_bytes().into()));
    }

    /// What one machine made of itself for the others to trust it by.
    fn forget_the_host(&mut self) {
        let is_host_key = |path: &TreePath| path.as_str().starts_with("etc/ssh/ssh_host_");
        let keys: Vec<TreePath> =
            self.tree.nodes().map(|(path, _)| path.clone()).filter(is_host_key).collect();
        for path in keys {
            self.tree.remove(&path);
        }
        if let Ok(seed) = TreePath::new("var/lib/systemd/random-seed") {
            self.tree.remove(&seed);
        }
        // Empty, systemd makes one and keeps it (machine-id(5)).
        self.text("etc/machine-id", Mode::new(0o444).expect("9 bits"), "");
    }

    /// As unpack.sh of the kickstart does: root's, with the modes of the archive, and folders that
    /// are there keep theirs.
    fn unpack(&mut self, what: &str, packed: &[u8]) {
        let mut plain = Vec::new();
        let unpacked = gzip::read(packed, MAX_ARCHIVE, &mut plain).and_then(|()| {
            tar::read(&plain, &mut |member| {
                let kind = match member.body {
                    Body::Dir => Kind::Folder,
                    Body::File(bytes) => Kind::File(Contents::Bytes(bytes.into())),
                    Body::Symlink(target) => Kind::Symlink(target.to_owned()),
                };
                let is_there = || {
                    let path = TreePath::new(member.path).ok()?;
                    self.tree.get(&path).filter(|there| there.kind == Kind::Folder)
                };
                if kind != Kind::Folder || is_there().is_none() {
                    self.put(member.path, Node { meta: Meta::ours(member.mode), kind });
                }
                Ok(())
            })
        });
        if let Err(fault) = unpacked {
            self.problems.push(format!("the {what} cannot be unpacked: {fault}"));
        }
    }

    /// In the place of target.sh: from the file that the secrets bring, or locked.
    fn set_root_password(&mut self) {
        let contents = |tree: &RootTree, path: &str| -> Option<io::Result<Vec<u8>>> {
            tree.file(path).map(|(_, contents)| contents.read())
        };
        let hash = match contents(&self.tree, ROOT_HASH_PATH) {
            Some(Ok(hash)) => String::from_utf8_lossy(&hash).trim().to_owned(),
            _ => "!!".to_owned(),
        };
        if let Ok(path) = TreePath::new(ROOT_HASH_PATH) {
            self.tree.remove(&path);
        }
        let shadow = match contents(&self.tree, SHADOW) {
            Some(Ok(shadow)) => String::from_utf8_lossy(&shadow).into_owned(),
            Some(Err(fault)) => return self.problems.push(format!("/{SHADOW}: {fault}")),
            None => return self.problems.push(no_root()),
        };
        let Some(shadow) = with_password(&shadow, &hash) else {
            return self.problems.push(no_root());
        };
        let meta = self.tree.file(SHADOW).map_or(Meta::ours(SECRET), |(meta, _)| meta.clone());
        let meta = Meta { mtime_secs: Meta::ours(SECRET).mtime_secs, ..meta };
        let kind = Kind::File(Contents::Bytes(shadow.into_bytes().into()));
        self.put(SHADOW, Node { meta, kind });
    }

    fn enable<'u>(&mut self, services: impl IntoIterator<Item = &'u String>) {
        match units::enabled(&self.tree, services.into_iter().map(String::as_str)) {
            Ok(links) => {
                for (path, target) in links {
                    let meta = Meta::ours(Mode::FILE);
                    self.put(&path, Node { meta, kind: Kind::Symlink(target) });
                }
            }
            Err(missing) => self.problems.push(format!(
                "the tree has no {}, to be enabled: install what brings it into the tree",
                missing.join(", ")
            )),
        }
    }

    fn disable_firewall(&mut self) {
        for link in [
            "etc/systemd/system/multi-user.target.wants/firewalld.service",
            "etc/systemd/system/dbus-org.fedoraproject.FirewallD1.service",
        ] {
            if let Ok(path) = TreePath::new(link) {
                self.tree.remove(&path);
            }
        }
    }
}

const SHADOW: &str = "etc/shadow";

fn no_root() -> String {
    format!("/{SHADOW} knows no root: install the package setup (Debian: passwd) into the tree")
}

/// The text of shadow(5) with another password of root's; `None` without root.
fn with_password(shadow: &str, hash: &str) -> Option<String> {
    let mut is_there = false;
    let lines = shadow.lines().map(|line| {
        let mut fields: Vec<&str> = line.split(':').collect();
        if fields[0] == "root" && fields.len() > 1 {
            is_there = true;
            fields[1] = hash;
        }
        format!("{}\n", fields.join(":"))
    });
    let text: String = lines.collect();
    is_there.then_some(text)
}

/// Whether a kernel of that version finds its modules in `tree`.
pub fn has_modules(tree: &RootTree, version: &str) -> bool {
    tree.resolve(&format!("lib/modules/{version}")).is_some()
}

/// Problems of nodes, each told once with the nodes that have it.
pub fn told(problems: &BTreeMap<String, Vec<String>>) -> String {
    let lines = problems.iter().map(|(problem, nodes)| format!("{}: {problem}", nodes.join(",")));
    lines.collect::<Vec<_>>().join("\n  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_menu_and_fstab_say_what_the_disk_is() {
        let args = ["console=tty0", "console=ttyS1,57600n8", "a;b"].map(str::to_owned);
        let kept =
            [KeptFilesystem { label: "DAOSMETA", size_mib: 1, mount: "/var/lib/daos".into() }];
        let mut boot = Boot {
            node: "node0",
            has_initrd: false,
            kernel_args: &args,
            root: "PARTUUID=1",
            kept: &kept,
            selinux: Selinux::Disabled,
        };
        assert_eq!(
            grub_config(&boot),
            "# Made by nodeforge; edit the cluster file, not this.\n\
             set timeout=3\nset default=0\nset gfxpayload=keep\n\
             serial --unit=1 --speed=57600\n\
             terminal_input console serial\nterminal_output console serial\n\
             menuentry node0 {\n    \
             linux /boot/nodeforge/vmlinuz root=PARTUUID=1 ro console=tty0 \
             console=ttyS1,57600n8 'a;b'\n}\n"
        );
        boot.has_initrd = true;
        assert!(grub_config(&boot).contains("    initrd /boot/nodeforge/initrd.img\n}\n"));
        assert_eq!(
            fstab(&boot),
            "# Made by nodeforge; edit the cluster file, not this.\n\
             PARTUUID=1 / ext4 defaults 1 1\n\
             LABEL=DAOSMETA /var/lib/daos xfs \
             defaults,x-systemd.requires=nodeforge-filesystem@DAOSMETA.service 0 0\n"
        );
    }

    #[test]
    fn root_gets_another_password_and_nobody_else() {
        let shadow = "bin:*:1:0\nroot:old:2:0:::\nrooty:x:3\n";
        let expected = "bin:*:1:0\nroot:$6$new:2:0:::\nrooty:x:3\n";
        assert_eq!(with_password(shadow, "$6$new").as_deref(), Some(expected));
        assert_eq!(with_password("bin:*:1\n", "x"), None);
    }
}
