"""The second stage of the test installer: executes a kickstart in the order of anaconda
33.16.9.5, and dies where anaconda dies.

It takes the commands and options that nodeforge's kickstarts have. Every other one ends the
installation: what was passed over in silence would be a test that cannot fail.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import traceback

from pykickstart import constants
from pykickstart.errors import KickstartError
from pykickstart.parser import KickstartParser
from pykickstart.sections import NullSection, PreScriptSection, Section
from pykickstart.version import RHEL8, makeVersion

KICKSTART = "/run/ks.cfg"
TARGET = "/mnt/sysimage"
MIB = 1 << 20
SECTOR = 512

# Commands and, of each, the options. A value may follow as a word of its own.
KNOWN = {
    "bootloader": ["--location", "--boot-drive", "--timeout", "--append"],
    "clearpart": ["--all", "--none", "--list", "--drives", "--initlabel", "--disklabel"],
    "cmdline": [],
    "eula": ["--agreed"],
    "firewall": ["--disabled"],
    "firstboot": ["--disabled"],
    "ignoredisk": ["--only-use"],
    "keyboard": ["--vckeymap"],
    "lang": [],
    "module": ["--name", "--disable"],
    "network": [
        "--device", "--bootproto", "--ip", "--netmask", "--gateway", "--nameserver", "--mtu", "--hostname",
        "--noipv6", "--activate",
    ],
    "part": ["--fstype", "--label", "--ondisk", "--size", "--grow", "--onpart", "--noformat", "--fsoptions"],
    "poweroff": [],
    "reboot": ["--eject"],
    "repo": ["--name", "--baseurl", "--cost", "--excludepkgs", "--proxy"],
    "reqpart": ["--add-boot"],
    "rootpw": ["--iscrypted", "--lock"],
    "selinux": ["--disabled"],
    "services": ["--enabled"],
    "skipx": [],
    "sshkey": ["--username"],
    "text": [],
    "timezone": ["--utc", "--ntpservers"],
    "url": ["--url", "--proxy"],
    "zerombr": [],
}


class Failure(Exception):
    """What ends an installation, in words."""


def say(text):
    with open("/dev/console", "w") as console:
        console.write("nodeforge-boot-test: installer: %s\n" % text)
    log("anaconda", text)


def log(name, text):
    with open("/tmp/%s.log" % name, "a") as file:
        file.write(text.rstrip("\n") + "\n")


def run(*words, stdin=None, check=True):
    """Runs a program to its end and returns what it wrote to standard output."""
    done = subprocess.run(words, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log("program", "%s\n%s%s" % (" ".join(words), done.stdout, done.stderr))
    if check and done.returncode != 0:
        raise Failure("%s: error %d: %s" % (" ".join(words), done.returncode, done.stderr.strip()))
    return done.stdout


def chroot(*words, **options):
    return run("chroot", TARGET, *words, **options)


def target(path):
    return TARGET + path


def write(path, text, mode=0o644):
    os.makedirs(os.path.dirname(target(path)), exist_ok=True)
    with open(target(path), "w") as file:
        file.write(text)
    os.chmod(target(path), mode)


def kernel_line():
    with open("/proc/cmdline") as file:
        return file.read().split()


def argument(name):
    values = [word.split("=", 1)[1] for word in kernel_line() if word.startswith(name + "=")]
    return values[-1] if values else None


# ------------------------------------------------------------------------------- the kickstart


class PreParser(KickstartParser):
    """As anaconda's AnacondaPreParser: %pre, and nothing else is looked at."""

    def handleCommand(self, lineno, args):
        pass

    def setupSections(self):
        self.registerSection(PreScriptSection(self.handler, dataObj=None))
        super().setupSections()
        kept = PreScriptSection.sectionOpen
        for name in list(self._sections):
            if name != kept:
                self.registerSection(NullSection(self.handler, sectionOpen=name))


class Parser(KickstartParser):
    """The whole kickstart. It keeps the words of each command, as they were written."""

    def __init__(self, handler):
        super().__init__(handler)
        self.lines = []

    def handleCommand(self, lineno, args):
        command, words = args[0], args[1:]
        if command not in KNOWN:
            raise KickstartError("line %d: this installer does not know `%s`" % (lineno, command))
        for word in words:
            if word.startswith("--") and word.split("=", 1)[0] not in KNOWN[command]:
                raise KickstartError("line %d: this installer does not know `%s %s`" % (lineno, command, word))
        self.lines.append(command)
        return super().handleCommand(lineno, args)


def parse_pre():
    handler = makeVersion(RHEL8)
    PreParser(handler, missingIncludeIsFatal=False, followIncludes=False).readKickstart(KICKSTART)
    return handler.scripts


def parse():
    handler = makeVersion(RHEL8)
    parser = Parser(handler)
    parser.readKickstart(KICKSTART)
    for commands in (("text", "cmdline"), ("url",), ("rootpw",), ("reboot", "poweroff")):
        if not set(commands) & set(parser.lines):
            raise Failure("the kickstart has no `%s`: anaconda would ask, or wait" % "` or `".join(commands))
    return handler


def run_scripts(scripts, kind):
    for script in [it for it in scripts if it.type == kind]:
        run_script(script)


def run_script(script):
    """As AnacondaKSScript.run: a file in the root it runs in, and a log outside of it."""
    root = TARGET if script.inChroot else ""
    path = "/tmp/ks-script-%d" % script.lineno
    with open(root + path, "w") as file:
        file.write(script.script)
    os.chmod(root + path, 0o700)
    messages = script.logfile or "%s.log" % path
    if script.inChroot and script.logfile:
        messages = TARGET + messages
    words = [script.interp, path]
    if script.inChroot:
        words = ["chroot", TARGET] + words
    with open(messages, "w") as file:
        status = subprocess.call(words, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    os.remove(root + path)
    if status != 0 and script.errorOnFail:
        with open(messages) as file:
            raise Failure("the script of line %d ended with error %d:\n%s" % (script.lineno, status, file.read()[-2000:]))


# --------------------------------------------------------------------------------------- disks


class Disk:
    """The free space of a disk with a GPT. Sectors are of 512 bytes."""

    def __init__(self, name):
        self.name = name
        self.device = "/dev/" + name
        self.known = None
        if not os.path.exists(self.device):
            raise Failure("disk %s does not exist" % name)

    def new_table(self):
        run("wipefs", "--all", "--force", self.device)
        self.change("--wipe=always", self.device, stdin="label: gpt\n")

    def table(self):
        """As it stands on the disk; read once after each change, as a program more is a while here."""
        if self.known is None:
            self.known = json.loads(run("sfdisk", "--json", self.device))["partitiontable"]
        return self.known

    def change(self, *words, stdin=None):
        run("sfdisk", "--quiet", *words, stdin=stdin)
        self.known = None

    def delete(self, part):
        number = re.sub(r".*\D", "", part)
        for found in self.table().get("partitions", []):
            if found["node"] == "/dev/" + part:
                run("wipefs", "--all", "--force", "/dev/" + part)
                self.change("--delete", self.device, number)
                return
        raise Failure("clearpart --list: partition %s does not exist" % part)

    def gaps(self):
        """Free space as (start, end) in sectors, whole MiB, in the order on the disk."""
        table = self.table()
        align = MIB // SECTOR
        used = sorted((it["start"], it["start"] + it["size"]) for it in table.get("partitions", []))
        gaps, at = [], align
        for start, end in used + [(table["lastlba"] + 1, 0)]:
            start = start // align * align
            if start > at:
                gaps.append((at, start))
            at = -(-end // align) * align
        return gaps

    def add(self, mib, grows, kind):
        """Makes a partition and returns its device."""
        wanted = mib * MIB // SECTOR
        fitting = [gap for gap in self.gaps() if gap[1] - gap[0] >= wanted]
        if not fitting:
            raise Failure("not enough space on %s for %d MiB" % (self.name, mib))
        start, end = max(fitting, key=lambda gap: gap[1] - gap[0]) if grows else fitting[0]
        size = end - start if grows else wanted
        before = {it["node"] for it in self.table().get("partitions", [])}
        line = "start=%d, size=%d, type=%s\n" % (start, size, kind)
        self.change("--append", "--wipe=never", "--wipe-partitions=always", self.device, stdin=line)
        added = {it["node"] for it in self.table()["partitions"]} - before
        run("udevadm", "settle")
        return added.pop()


# Type GUIDs of the Discoverable Partitions Specification and of GRUB's BIOS boot partition.
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
BIOS_BOOT = "21686148-6449-6E6F-744E-656564454649"


class Storage:
    def __init__(self, handler):
        self.handler = handler
        self.efi = os.path.isdir("/sys/firmware/efi")
        # Mount point: (device, type, options).
        self.mounts = {}
        only = handler.ignoredisk.onlyuse
        if not only:
            raise Failure("ignoredisk --only-use is missing: anaconda would take every disk")
        self.disks = {name: Disk(name) for name in only}

    def disk(self, name):
        if name not in self.disks:
            raise Failure("disk %s is not one that ignoredisk lets anaconda see" % name)
        return self.disks[name]

    def clear(self):
        clear = self.handler.clearpart
        if clear.type == constants.CLEARPART_TYPE_ALL:
            if not (clear.initAll and clear.disklabel == "gpt" and self.handler.zerombr.zerombr):
                raise Failure("clearpart --all without --initlabel, --disklabel=gpt and zerombr")
            for name in clear.drives or self.disks:
                self.disk(name).new_table()
        elif clear.type == constants.CLEARPART_TYPE_LIST:
            for part in clear.devices:
                self.disk_of(part).delete(part)
        elif clear.type != constants.CLEARPART_TYPE_NONE:
            raise Failure("clearpart is missing")
        for disk in self.disks.values():
            run("blockdev", "--rereadpt", disk.device, check=False)
        run("udevadm", "settle")

    def disk_of(self, part):
        for disk in self.disks.values():
            if part.startswith(disk.name):
                return disk
        raise Failure("partition %s is on no disk that ignoredisk lets anaconda see" % part)

    def make(self):
        boot_disk = self.disk(self.handler.bootloader.bootDrive)
        if not self.handler.reqpart.addBoot:
            raise Failure("reqpart --add-boot is missing: there is no /boot")
        if self.efi:
            device = boot_disk.add(600, False, ESP)
            run("mkfs.vfat", "-F", "32", device)
            self.mounts["/boot/efi"] = (device, "vfat", "umask=0077,shortname=winnt")
        else:
            boot_disk.add(1, False, BIOS_BOOT)
        device = boot_disk.add(1024, False, LINUX)
        run("mkfs.xfs", "-q", "-f", device)
        self.mounts["/boot"] = (device, "xfs", "defaults")
        # Those that grow take what the others leave.
        for part in sorted(self.handler.partition.partitions, key=lambda it: bool(it.grow)):
            self.take(part)

    def take(self, part):
        options = part.fsopts or "defaults"
        if part.onPart:
            device = "/dev/" + part.onPart
            self.disk_of(part.onPart)
            if part.format:
                raise Failure("part --onpart without --noformat")
            kind = run("blkid", "-p", "-s", "TYPE", "-o", "value", device).strip()
            self.mounts[part.mountpoint] = (device, kind, options)
            return
        if part.fstype != "xfs" or not part.label or not part.disk:
            raise Failure("part %s: not as this installer knows it" % part.mountpoint)
        device = self.disk(part.disk).add(part.size, part.grow, LINUX)
        run("mkfs.xfs", "-q", "-f", "-L", part.label, device)
        self.mounts[part.mountpoint] = (device, "xfs", options)

    def mount(self):
        for at in sorted(self.mounts):
            device, kind, _ = self.mounts[at]
            os.makedirs(TARGET + at, exist_ok=True)
            run("mount", "-t", kind, device, TARGET + at)
        for folder in ("/proc", "/sys", "/dev", "/dev/pts", "/run"):
            os.makedirs(TARGET + folder, exist_ok=True)
            run("mount", "--bind", folder, TARGET + folder)
        run("mount", "--rbind", TARGET, "/mnt/sysroot")

    def uuid(self, at):
        run("udevadm", "settle")
        return run("blkid", "-p", "-s", "UUID", "-o", "value", self.mounts[at][0]).strip()

    def write_fstab(self):
        lines = []
        for at in sorted(self.mounts):
            _, kind, options = self.mounts[at]
            lines.append("UUID=%s %s %s %s 0 0\n" % (self.uuid(at), at, kind, options))
        write("/etc/fstab", "".join(lines))


# ------------------------------------------------------------------------------------ packages


def install_packages(handler):
    """What stands for the packages: a small system, and the programs of DAOS among them that
    %packages names."""
    mounted = ("proc", "sys", "dev", "run")
    names = list(handler.packages.packageList)
    trees = ["/packages"] + ["/packages-" + name for name in names if os.path.exists("/packages-" + name)]
    for tree in trees:
        folders = ["%s/%s" % (tree, name) for name in sorted(os.listdir(tree)) if name not in mounted]
        run("cp", "-a", "--target-directory=" + TARGET, *folders)
    shutil.copytree("/installer/target", TARGET, dirs_exist_ok=True)
    # Debian's, beside its units: EL8's packages have none, and systemctl enable would want Perl for them.
    for name in os.listdir(target("/etc/init.d")):
        if name.startswith("cloud-"):
            os.remove(target("/etc/init.d/" + name))
    listed = ["@" + group.name for group in handler.packages.groupList] + names
    write("/installer/packages", "\n".join(listed + [""]))
    for name in ("packages.sh", "fakes"):
        shutil.copy("/installer/" + name, target("/installer/" + name))
    chroot("bash", "-c", "set -euo pipefail\ncd /installer\n. ./packages.sh\ninstall_fakes\n")
    shutil.rmtree(target("/installer"))
    # As a package's scriptlet may make one.
    write("/etc/ssh/ssh_host_ed25519_key", "of this machine\n", 0o600)
    with open("/proc/sys/kernel/random/uuid") as file:
        write("/etc/machine-id", file.read().replace("-", ""), 0o444)


# --------------------------------------------------------------------------------- boot loader


def kernel_version():
    return os.listdir(target("/lib/modules"))[0]


def make_initramfs(version):
    """As kernel-core's scriptlet: it mounts root= and goes on there."""
    tree = "/tmp/initramfs"
    os.makedirs(tree + "/modules")
    os.makedirs(tree + "/bin")
    shutil.copy("/installer/busybox", tree + "/bin/busybox")
    shutil.copy("/installer/boot-init", tree + "/init")
    os.chmod(tree + "/init", 0o755)
    needed = chroot("modprobe", "--show-depends", "--set-version", version, "xfs")
    for number, line in enumerate(needed.splitlines()):
        if line.startswith("insmod "):
            path = line.split()[1]
            shutil.copy(target(path), "%s/modules/%02d-%s" % (tree, number, os.path.basename(path)))
    names = run("sh", "-c", "cd %s && find . | sort" % tree)
    pack = "cd %s && /installer/busybox cpio -o -H newc >%s/boot/initramfs-%s.img" % (tree, TARGET, version)
    run("sh", "-c", pack, stdin=names)


def environment_block(values):
    """GRUB's grubenv: 1024 bytes."""
    text = "# GRUB Environment Block\n" + "".join("%s=%s\n" % it for it in values)
    return text + "#" * (1024 - len(text))


GRUB_CONFIG = """set timeout=%(timeout)d
serial --unit=0 --speed=115200
terminal_input serial console
terminal_output serial console
search --no-floppy --fs-uuid --set=root %(boot)s
load_env --file /grub2/grubenv saved_entry kernelopts
menuentry 'AlmaLinux stand-in' {
  linux /vmlinuz-%(version)s $kernelopts
  initrd /initramfs-%(version)s.img
}
"""


def install_bootloader(handler, storage):
    loader = handler.bootloader
    version = kernel_version()
    make_initramfs(version)
    options = "root=UUID=%s ro %s" % (storage.uuid("/"), loader.appendLine)
    with open(target("/etc/machine-id")) as file:
        entry = "%s-%s" % (file.read().strip(), version)
    write("/boot/loader/entries/%s.conf" % entry,
          "title AlmaLinux stand-in\nversion %s\nlinux /vmlinuz-%s\ninitrd /initramfs-%s.img\n"
          "options $kernelopts $tuned_params\n" % (version, version, version))
    write("/boot/grub2/grubenv", environment_block([("saved_entry", entry), ("kernelopts", options)]))
    values = {"timeout": loader.timeout, "boot": storage.uuid("/boot"), "version": version}
    write("/boot/grub/grub.cfg", GRUB_CONFIG % values)
    if not storage.efi:
        run("grub-install", "--target=i386-pc", "--boot-directory=" + target("/boot"), "/dev/" + loader.bootDrive)
        return
    with open("/tmp/early.cfg", "w") as file:
        file.write("search --no-floppy --fs-uuid --set=root %(boot)s\nconfigfile ($root)/grub/grub.cfg\n" % values)
    made = "/tmp/grubx64.efi"
    run("grub-mkimage", "-O", "x86_64-efi", "-o", made, "-p", "/EFI/almalinux", "-c", "/tmp/early.cfg",
        "part_gpt", "fat", "xfs", "search", "search_fs_uuid", "configfile", "normal", "linux", "loadenv", "serial",
        "terminal", "echo", "test", "minicmd", "gzio")
    # shim and its second copy, which firmware without boot entries of its own starts.
    for name in ("almalinux/shimx64.efi", "almalinux/grubx64.efi", "BOOT/BOOTX64.EFI"):
        path = target("/boot/efi/EFI/" + name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        shutil.copy(made, path)


# ------------------------------------------------------------------------------- configuration


def enable_services(handler):
    for unit in handler.services.enabled:
        name = unit if "." in unit else unit + ".service"
        chroot("systemctl", "enable", name)


def nic_of(device):
    """bootif, link, or an address, as a name of the kernel's."""
    if device == "bootif":
        with open("/run/bootif") as file:
            return file.read().strip()
    if device == "link":
        return min(nic for nic in os.listdir("/sys/class/net") if nic != "lo")
    for nic in os.listdir("/sys/class/net"):
        with open("/sys/class/net/%s/address" % nic) as file:
            if device.lower() in (nic, file.read().strip()):
                return nic
    raise Failure("network --device=%s: no such device" % device)


def configure_network(handler):
    """anaconda leaves an ifcfg of every NIC; nodeforge's %post is to take them away."""
    (net,) = handler.network.network
    nic = nic_of(net.device)
    address = "BOOTPROTO=dhcp\n"
    if net.bootProto != "dhcp":
        address = "BOOTPROTO=none\nIPADDR=%s\nNETMASK=%s\n" % (net.ip, net.netmask)
    write("/etc/sysconfig/network-scripts/ifcfg-" + nic, "DEVICE=%s\n%sONBOOT=yes\n" % (nic, address))
    write("/etc/hostname", (net.hostname or "localhost.localdomain") + "\n")


def configure_users(handler):
    root = handler.rootpw
    if root.isCrypted:
        chroot("chpasswd", "--encrypted", stdin="root:%s\n" % root.password)
    elif root.lock:
        chroot("passwd", "--lock", "root")
    else:
        raise Failure("rootpw with a password in clear")
    for key in handler.sshkey.sshUserList:
        write("/root/.ssh/authorized_keys", key.key + "\n", 0o600)


def configure(handler):
    write("/etc/selinux/config", "SELINUX=disabled\nSELINUXTYPE=targeted\n")
    enable_services(handler)
    zone = "/usr/share/zoneinfo/" + handler.timezone.timezone
    if os.path.lexists(target("/etc/localtime")):
        os.remove(target("/etc/localtime"))
    os.symlink(".." + zone, target("/etc/localtime"))
    write("/etc/locale.conf", "LANG=%s\n" % handler.lang.lang)
    write("/etc/vconsole.conf", "KEYMAP=%s\n" % handler.keyboard.vc_keymap)
    configure_network(handler)
    configure_users(handler)
    # anaconda keeps it (data/post-scripts/99-copy-logs.ks, without NOSAVE_INPUT_KS).
    shutil.copy(KICKSTART, target("/root/original-ks.cfg"))
    os.chmod(target("/root/original-ks.cfg"), 0o600)


# --------------------------------------------------------------------------------- all of it


def install(scripts_of):
    say("%pre")
    scripts = parse_pre()
    scripts_of.extend(scripts)
    run_scripts(scripts, constants.KS_SCRIPT_PRE)
    say("reads the kickstart")
    handler = parse()
    scripts_of[:] = handler.scripts
    say("partitions")
    storage = Storage(handler)
    storage.clear()
    storage.make()
    storage.mount()
    say("packages")
    install_packages(handler)
    storage.write_fstab()
    say("boot loader")
    install_bootloader(handler, storage)
    say("configuration")
    configure(handler)
    say("%post")
    run_scripts(handler.scripts, constants.KS_SCRIPT_POST)
    say("installed")
    os.sync()
    run("umount", "--recursive", "--lazy", "/mnt/sysroot", check=False)
    run("umount", "--recursive", TARGET, check=False)
    run("systemctl", "poweroff" if handler.reboot.action == constants.KS_SHUTDOWN else "reboot")


def main():
    os.environ["ANA_INSTALL_PATH"] = "/mnt/sysroot"
    scripts = []
    try:
        install(scripts)
    except (Failure, KickstartError, OSError, AttributeError, ValueError) as failure:
        log("anaconda", traceback.format_exc())
        say("error: %s" % failure)
        log("anaconda", "error: %s" % failure)
        try:
            for script in [it for it in scripts if it.type == constants.KS_SCRIPT_ONERROR] or onerror_of_kickstart():
                run_script(script)
        finally:
            say("stopped by an error")
        sys.exit(1)
    time.sleep(60)
    sys.exit(1)


def onerror_of_kickstart():
    """Those of a kickstart whose commands cannot be read."""
    handler = makeVersion(RHEL8)
    parser = KickstartParser(handler, missingIncludeIsFatal=False, followIncludes=False, errorsAreFatal=False)
    parser.readKickstart(KICKSTART)
    return [it for it in handler.scripts if it.type == constants.KS_SCRIPT_ONERROR]


main()
