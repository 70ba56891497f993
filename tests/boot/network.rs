//! From firmware to the installer or to the disk: every way of booting from the network, served
//! by the program itself.
//!
//! Each test has a network of its own, in a user namespace: it needs no root, and nothing
//! leaves it. In each, three machines are started: a node that is armed, the same node when it
//! is not, and a machine that is not of the cluster. The first one comes up with its own
//! overlay, the others from their disk.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::examples::{nodeforge, printed};
use crate::oracles::archives::stand_in_cpio;
use crate::support;

use super::guest::{Guest, Turn};
use super::initrd;

/// Firmware, boot loaders and a kernel take half a minute, a machine that also compiles is five
/// times slower; firmware that waits for answers that never come, up to three minutes.
const TIMEOUT: Duration = Duration::from_secs(300);

const NEEDS: [&str; 16] = [
    "qemu-system-x86_64",
    "busybox",
    "cpio",
    support::KERNEL,
    "unshare",
    "nsenter",
    "ip",
    "dnsmasq",
    "grub-mkimage",
    "mkfs.vfat",
    "mcopy",
    "/usr/lib/grub/x86_64-efi/linuxefi.mod",
    "/usr/lib/ipxe/undionly.kpxe",
    "/usr/lib/PXELINUX/lpxelinux.0",
    "/usr/lib/syslinux/modules/bios/ldlinux.c32",
    OVMF_CODE,
];

pub const OVMF_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
pub const OVMF_VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// The MAC addresses of netlab.toml, and one that it has not.
const BIOS: &str = "52:54:00:78:00:11";
const UEFI: &str = "52:54:00:78:00:12";
const STRANGER: &str = "52:54:00:78:00:99";

/// What the machines say that came up from the disk, and the last words of those that came up
/// from the network.
const FROM_DISK: &str = "nodeforge-boot-test: disk";
const HOST: &str = "nodeforge-boot-test: host";

/// A network of its own with a switch, one address of ours, and ports for machines.
pub struct Net {
    /// Keeps the namespaces; ends with its standard input.
    holder: Child,
}

/// Reads to its end, so that nothing outlives the test.
const HOLD: &str = "echo ready; exec cat";

impl Net {
    #[track_caller]
    pub fn new() -> Self {
        let mut script = "set -e
            ip link set lo up
            ip link add br0 type bridge
            ip link set br0 address 52:54:00:78:00:01
            ip addr add 10.78.0.1/24 dev br0
            ip link set br0 up\n"
            .to_owned();
        for port in 0..3 {
            script += &format!(
                "ip tuntap add port{port} mode tap\nip link set port{port} master br0 up\n"
            );
        }
        let mut command = support::command("unshare");
        command.args(["--user", "--map-root-user", "--net", "sh", "-c", &(script + HOLD)]);
        Self { holder: held(command) }
    }

    /// A command that runs in this network.
    #[track_caller]
    pub fn command(&self, program: &Path) -> Command {
        self.enter(self.holder.id(), program)
    }

    #[track_caller]
    fn enter(&self, pid: u32, program: &Path) -> Command {
        let mut command = support::command("nsenter");
        command
            .args(["--target", &pid.to_string(), "--user", "--net", "--preserve-credentials", "--"])
            .arg(program);
        command
    }

    /// The site's own DHCP server, on a machine of its own: addresses for everybody, and about
    /// booting what `words` say.
    #[track_caller]
    fn start_dhcp_of_site(&self, words: &[&str]) -> Process {
        let unshare = support::find_program("unshare").expect("the test asked for it");
        let mut command = self.command(&unshare);
        command.args(["--net", "sh", "-c", HOLD]);
        let machine = held(command);
        let pid = machine.id();
        let ip = support::find_program("ip").expect("the test asked for it");
        let run = |mut command: Command, words: &str| {
            let status = command.args(words.split(' ')).status().unwrap();
            assert!(status.success(), "ip {words}");
        };
        run(self.command(&ip), &format!("link add site type veth peer name lan netns {pid}"));
        run(self.command(&ip), "link set site master br0 up");
        run(self.enter(pid, &ip), "addr add 10.78.0.2/24 dev lan");
        run(self.enter(pid, &ip), "link set lan up");
        let dnsmasq = support::find_program("dnsmasq").expect("the test asked for it");
        let mut command = self.enter(pid, &dnsmasq);
        command
            .args(DNSMASQ)
            .args(["--port=0", "--dhcp-range=10.78.0.100,10.78.0.200,1h"])
            .args(words);
        let server = Process::start(command, vec![machine]);
        server.wait_for("DHCP, IP range");
        server
    }
}

/// Not as a daemon: it cannot change to a group of its own in a user namespace.
const DNSMASQ: [&str; 3] = ["--no-daemon", "--log-facility=-", "--dhcp-leasefile=/dev/null"];

/// Starts what holds a namespace, and waits until it does.
#[track_caller]
fn held(mut command: Command) -> Child {
    let mut holder =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut line = String::new();
    let stdout = holder.stdout.as_mut().expect("stdout is piped");
    BufReader::new(stdout).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n", "a namespace cannot be made");
    holder
}

impl Drop for Net {
    fn drop(&mut self) {
        end(&mut self.holder);
    }
}

fn end(process: &mut Child) {
    // Both fail only where it has ended already.
    let _ = process.kill();
    let _ = process.wait();
}

/// A server of a test, and what it said on standard error.
pub struct Process {
    child: Child,
    lines: Receiver<String>,
    /// What it runs in, which ends after it.
    holders: Vec<Child>,
}

impl Process {
    #[track_caller]
    pub fn start(mut command: Command, holders: Vec<Child>) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("it starts");
        let stderr = child.stderr.take().expect("stderr is piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, holders }
    }

    /// Waits for a line that contains `marker`.
    #[track_caller]
    pub fn wait_for(&self, marker: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut said = String::new();
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(rest) {
                Ok(line) if line.contains(marker) => return,
                Ok(line) => said += &(line + "\n"),
                Err(error) => panic!("{error} before `{marker}`:\n{said}"),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        end(&mut self.child);
        self.holders.iter_mut().for_each(end);
        if std::thread::panicking() {
            let said: Vec<String> = self.lines.iter().collect();
            eprintln!("---- what the server said\n{}", said.join("\n"));
        }
    }
}

/// A built cluster, boot programs included.
struct Bench {
    folder: TempDir,
}

impl Bench {
    /// Builds netlab.toml with `programs`: their names in the boot tree, and where they are.
    #[track_caller]
    fn new(programs: &[(&str, &Path)]) -> Self {
        Self::with(programs, ("", ""))
    }

    /// As [`Bench::new`], with a text of netlab.toml replaced.
    #[track_caller]
    fn with(programs: &[(&str, &Path)], (old, new): (&str, &str)) -> Self {
        let bench = Self { folder: support::scratch() };
        let text = support::repository().join("tests/boot/netlab.toml");
        let text = std::fs::read_to_string(text).unwrap();
        assert!(text.contains(old), "{old}");
        support::write(bench.path(), "netlab.toml", text.replacen(old, new, 1));
        for (name, from) in programs {
            support::write(bench.path(), &format!("programs/{name}"), std::fs::read(from).unwrap());
        }
        bench.fill_cache();
        let words = ["build", "netlab.toml", "--cache", "cache", "--boot-programs", "programs"];
        printed(bench.path(), &words);
        bench
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// What `fetch` would have left: the guests' kernel, and an initrd that says what it finds.
    fn fill_cache(&self) {
        let tree = initrd::tree_with(INIT);
        let initrd = self.path().join("initrd");
        stand_in_cpio(tree.path(), &initrd);
        fill_cache(
            &self.path().join("cache"),
            &[("vmlinuz", &support::guest_kernel()), ("initrd.img", &initrd)],
        );
    }

    /// Starts the boot server with `words` and waits until it serves.
    #[track_caller]
    fn serve(&self, net: &Net, words: &[&str]) -> Process {
        let mut command = net.command(nodeforge());
        command.arg("serve").args(words).current_dir(self.path());
        let server = Process::start(command, Vec::new());
        server.wait_for("listening on 10.78.0.1:80");
        if words.iter().any(|word| word.ends_with("dhcp")) {
            server.wait_for(" on br0 (10.78.0.1)");
        }
        server
    }

    #[track_caller]
    fn arm(&self, node: &str) {
        printed(self.path(), &["arm", node]);
    }

    #[track_caller]
    fn disarm(&self, node: &str) {
        printed(self.path(), &["disarm", node]);
    }
}

/// Writes `images`, by name and where they are, into a cache as `fetch` leaves it.
#[track_caller]
pub fn fill_cache(cache: &Path, images: &[(&str, &Path)]) {
    let mut recorded = serde_json::Map::new();
    for (name, from) in images {
        let bytes = std::fs::read(from).unwrap();
        let record = serde_json::json!({
            "size": bytes.len(),
            "sha256": nodeforge::format::digest::Digest::of(&bytes),
            "source": "the tests",
            "assurance": "mirror_digest",
        });
        support::write(cache, &format!("8.9/{name}"), bytes);
        recorded.insert((*name).to_owned(), record);
    }
    let record = serde_json::json!({ "format": 1, "release": "8.9", "images": recorded });
    support::write(cache, "8.9/images.json", record.to_string());
}

/// Says which node's overlay came with the initrd, and what the boot loader said.
const INIT: &str = r#"#!/bin/busybox sh
b=/bin/busybox
$b mkdir -p /proc
$b mount -t proc proc /proc
$b echo
$b echo "nodeforge-boot-test: line $($b cat /proc/cmdline)"
$b echo "nodeforge-boot-test: host $($b sed -n "s/.*--hostname='\([^']*\)'.*/\1/p" /ks.cfg)."
$b sleep 60
$b poweroff -f
"#;

/// Says [`FROM_DISK`] on the first serial port, byte by byte as it is ready, then halts.
#[rustfmt::skip]
const BOOT_SECTOR: &[u8] = &[
    0x31, 0xc0,             // xor ax, ax
    0x8e, 0xd8,             // mov ds, ax
    0xbe, 0x21, 0x7c,       // mov si, the text behind the code
    0xac,                   // next: lodsb
    0x84, 0xc0,             // test al, al
    0x74, 0x12,             // jz halt
    0x88, 0xc4,             // mov ah, al
    0xba, 0xfd, 0x03,       // mov dx, line status
    0xec,                   // wait: in al, dx
    0xa8, 0x20,             // test al, ready
    0x74, 0xfb,             // jz wait
    0xba, 0xf8, 0x03,       // mov dx, data
    0x88, 0xe0,             // mov al, ah
    0xee,                   // out dx, al
    0xeb, 0xe9,             // jmp next
    0xf4,                   // halt: hlt
    0xeb, 0xfd,             // jmp halt
];

/// The disk of a BIOS machine.
fn bios_disk(folder: &Path) -> PathBuf {
    let mut sector = [BOOT_SECTOR, format!("\r\n{FROM_DISK}\r\n\0").as_bytes()].concat();
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    sector.resize(1 << 20, 0);
    let path = folder.join("bios.disk");
    std::fs::write(&path, sector).unwrap();
    path
}

/// The disk of a UEFI machine: an EFI system partition with a GRUB that says [`FROM_DISK`].
#[track_caller]
fn uefi_disk(folder: &Path) -> PathBuf {
    let script = format!(
        "serial --unit=0 --speed=115200\nterminal_output serial\necho\necho '{FROM_DISK}'\nsleep 60\nhalt\n"
    );
    support::write(folder, "disk.cfg", script);
    let (disk, program) = (folder.join("uefi.disk"), folder.join("disk.efi"));
    grub_image(
        &program,
        &["-p", "/", "-c", "disk.cfg"],
        &["serial", "terminal", "echo", "sleep", "halt"],
        folder,
    );
    std::fs::File::create(&disk).unwrap().set_len(8 << 20).unwrap();
    let disk_text = disk.display().to_string();
    let program = program.display().to_string();
    for (tool, words) in [
        ("mkfs.vfat", vec![disk_text.as_str()]),
        ("mmd", vec!["-i", &disk_text, "::/EFI", "::/EFI/BOOT"]),
        ("mcopy", vec!["-i", &disk_text, &program, "::/EFI/BOOT/BOOTX64.EFI"]),
    ] {
        let output = support::run(tool, &words);
        assert!(output.status.success(), "{tool}: {:?}", support::spoken_lines(&output));
    }
    disk
}

/// GRUB for the network, with the commands that EL8's own has built in.
#[track_caller]
pub fn network_grub(folder: &Path) -> PathBuf {
    let path = folder.join("grubx64.efi");
    let modules = [
        "efinet",
        "tftp",
        "http",
        "net",
        "linux",
        "linuxefi",
        "normal",
        "configfile",
        "echo",
        "serial",
        "terminal",
        "test",
        "minicmd",
        "chain",
        "search",
        "part_gpt",
        "fat",
    ];
    grub_image(&path, &["-p", "/grub"], &modules, folder);
    path
}

#[track_caller]
fn grub_image(path: &Path, options: &[&str], modules: &[&str], folder: &Path) {
    let output = support::command("grub-mkimage")
        .args(["-O", "x86_64-efi", "-o"])
        .arg(path)
        .args(options)
        .args(modules)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "grub-mkimage: {:?}", support::spoken_lines(&output));
}

/// The machines of one test.
struct Machines<'a> {
    turn: &'a Turn,
    net: &'a Net,
    folder: &'a Path,
    firmware: Firmware,
    disk: PathBuf,
}

#[derive(Clone, Copy)]
enum Firmware {
    /// Whose ROM is iPXE.
    Bios,
    Uefi,
    /// UEFI that has PXE switched off.
    UefiHttp,
}

impl<'a> Machines<'a> {
    fn new(turn: &'a Turn, net: &'a Net, folder: &'a Path, firmware: Firmware) -> Self {
        let disk = match firmware {
            Firmware::Uefi | Firmware::UefiHttp => uefi_disk(folder),
            Firmware::Bios => bios_disk(folder),
        };
        Self { turn, net, folder, firmware, disk }
    }

    /// Starts a machine at one of the switch's ports, of which there are three.
    #[track_caller]
    fn start(&self, name: &str, port: u8, mac: &str) -> Guest {
        let qemu = support::find_program("qemu-system-x86_64").expect("the test asked for it");
        let mut command = self.net.command(&qemu);
        let mut words = format!(
            "-accel tcg -m 768 \
             -drive if=none,id=disk,file={},format=raw,snapshot=on \
             -device virtio-blk-pci,drive=disk,bootindex=2 \
             -netdev tap,id=lan,ifname=port{port},script=no,downscript=no \
             -object rng-random,id=random,filename=/dev/urandom -device virtio-rng-pci,rng=random",
            self.disk.display()
        );
        let nic = format!("-device virtio-net-pci,netdev=lan,mac={mac}");
        words += &match self.firmware {
            Firmware::Bios => format!(" -machine q35,graphics=off {nic},bootindex=1"),
            Firmware::Uefi | Firmware::UefiHttp => {
                let variables = self.folder.join(format!("{name}.vars"));
                std::fs::copy(OVMF_VARS, &variables).unwrap();
                format!(
                    " -machine q35 {nic},bootindex=1,romfile= \
                     -drive if=pflash,unit=0,readonly=on,format=raw,file={OVMF_CODE} \
                     -drive if=pflash,unit=1,format=raw,file={}",
                    variables.display()
                )
            }
        };
        if matches!(self.firmware, Firmware::UefiHttp) {
            words += " -fw_cfg name=opt/org.tianocore/IPv4PXESupport,string=n";
        }
        command.args(words.split_whitespace());
        Guest::start_firmware(self.turn, name, command)
    }

    /// An armed node comes up with its own overlay and its own words.
    #[track_caller]
    fn assert_installs(&self, node: &str, mac: &str) {
        let mut guest = self.start(&format!("{node}-armed"), 0, mac);
        let line = guest.wait_for("nodeforge-boot-test: line", TIMEOUT);
        let bootif = format!("BOOTIF=01-{}", mac.replace(':', "-"));
        for word in [&*bootif, "inst.ks=file:/ks.cfg", "nodeforge.grant=", "nodeforge.event_token="]
        {
            assert!(line.contains(word), "{word} in {line}");
        }
        let host = guest.wait_for(HOST, TIMEOUT);
        assert_eq!(host, format!("{HOST} {node}."));
        guest.quit();
    }

    /// A machine that is not to be installed boots from its disk.
    #[track_caller]
    fn boots_from_disk(&self, name: &str, port: u8, mac: &str) -> Guest {
        let mut guest = self.start(name, port, mac);
        guest.wait_for(FROM_DISK, TIMEOUT);
        assert_eq!(guest.lines_with(HOST), [""; 0]);
        guest
    }

    /// A node that is not armed and a stranger boot from their disks.
    #[track_caller]
    fn assert_others_boot_from_disk(&self, mac: &str) {
        let mut unarmed = self.boots_from_disk("unarmed", 1, mac);
        // What its own script says is the last word.
        assert_eq!(unarmed.lines_with("is not known here"), [""; 0]);
        unarmed.quit();
        self.boots_from_disk("stranger", 2, STRANGER).quit();
    }
}

#[test]
fn bios_boots_by_ipxe_and_the_generated_dnsmasq_conf() {
    if support::lacks(&NEEDS) {
        return;
    }
    let (turn, net) = (Turn::wait_for_one(), Net::new());
    let bench = Bench::new(&[("undionly.kpxe", "/usr/lib/ipxe/undionly.kpxe".as_ref())]);
    let _server = bench.serve(&net, &[]);
    let dnsmasq = support::find_program("dnsmasq").expect("the test asked for it");
    let pxe = bench.path().join("out/current/pxe");
    let mut command = net.command(&dnsmasq);
    command
        .args(DNSMASQ)
        .arg("--conf-file=dnsmasq.conf")
        .arg(format!("--tftp-root={}", pxe.display()))
        .current_dir(&pxe);
    let dhcp = Process::start(command, Vec::new());
    dhcp.wait_for("TFTP root is");
    let machines = Machines::new(&turn, &net, bench.path(), Firmware::Bios);
    machines.assert_others_boot_from_disk(BIOS);
    bench.arm("bios");
    machines.assert_installs("bios", BIOS);
}

#[test]
fn bios_boots_by_pxelinux() {
    if support::lacks(&NEEDS) {
        return;
    }
    let (turn, net) = (Turn::wait_for_one(), Net::new());
    let bench = Bench::new(&[
        ("lpxelinux.0", "/usr/lib/PXELINUX/lpxelinux.0".as_ref()),
        ("ldlinux.c32", "/usr/lib/syslinux/modules/bios/ldlinux.c32".as_ref()),
    ]);
    // As at sites whose DHCP server names PXELINUX to everybody. Our own would know the ROM
    // of these machines for iPXE, and send it to its script.
    let _site = net.start_dhcp_of_site(&["--dhcp-boot=lpxelinux.0,,10.78.0.1"]);
    let _server = bench.serve(&net, &["--tftp"]);
    let machines = Machines::new(&turn, &net, bench.path(), Firmware::Bios);
    machines.assert_others_boot_from_disk(BIOS);
    bench.arm("bios");
    machines.assert_installs("bios", BIOS);
}

#[test]
fn bios_boots_by_ipxe_and_the_servers_own_dhcp() {
    if support::lacks(&NEEDS) {
        return;
    }
    let (turn, net) = (Turn::wait_for_one(), Net::new());
    let bench = Bench::new(&[("undionly.kpxe", "/usr/lib/ipxe/undionly.kpxe".as_ref())]);
    let _server = bench.serve(&net, &["--dhcp"]);
    let machines = Machines::new(&turn, &net, bench.path(), Firmware::Bios);
    machines.assert_others_boot_from_disk(BIOS);
    bench.arm("bios");
    machines.assert_installs("bios", BIOS);
    bench.disarm("bios");
}

#[test]
fn uefi_boots_by_grub() {
    if support::lacks(&NEEDS) {
        return;
    }
    let (turn, net) = (Turn::wait_for_one(), Net::new());
    let folder = support::scratch();
    let grub = network_grub(folder.path());
    let chain = ("disk_boot = \"exit 1\"", "disk_boot = \"chain\"");
    let bench = Bench::with(&[("grub/grubx64.efi", &grub)], chain);
    // GRUB 2.06 asks the server that its address came from, whatever a proxy said: so this site
    // names the boot server itself.
    let _site = net.start_dhcp_of_site(&["--dhcp-boot=grub/grubx64.efi,,10.78.0.1"]);
    let _server = bench.serve(&net, &["--tftp"]);
    let machines = Machines::new(&turn, &net, bench.path(), Firmware::Uefi);
    machines.assert_others_boot_from_disk(UEFI);
    bench.arm("uefi");
    machines.assert_installs("uefi", UEFI);
}

#[test]
fn uefi_boots_by_snponly_and_ipxe_beside_the_sites_dhcp() {
    boots_by_snponly_beside_the_sites_dhcp(Firmware::Uefi);
}

#[test]
fn uefi_boots_by_http_beside_the_sites_dhcp() {
    boots_by_snponly_beside_the_sites_dhcp(Firmware::UefiHttp);
}

#[track_caller]
fn boots_by_snponly_beside_the_sites_dhcp(firmware: Firmware) {
    if support::lacks(&NEEDS) {
        return;
    }
    let (turn, net) = (Turn::wait_for_one(), Net::new());
    let bench = Bench::new(&[("snponly.efi", "/usr/lib/ipxe/snponly.efi".as_ref())]);
    let _site = net.start_dhcp_of_site(&[]);
    let _server = bench.serve(&net, &["--proxy-dhcp", "--answer-strangers"]);
    let machines = Machines::new(&turn, &net, bench.path(), firmware);
    machines.assert_others_boot_from_disk(UEFI);
    bench.arm("uefi");
    machines.assert_installs("uefi", UEFI);
}
