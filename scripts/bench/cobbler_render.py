"""Makes the kickstart and the boot menus of N systems by Cobbler, without its daemon.

    cobbler_render.py KICKSTART N FOLDER

KICKSTART is a Cheetah template that names `$name`. What `cobbler sync` and Cobbler's web server
do for a system is done by the same functions of its library (autoinstallgen, tftpgen): the
kickstart, and the menus of PXELINUX, GRUB and iPXE. Not done: its database and its triggers.
FOLDER gets the files in out/, and what Cobbler wants to have in /etc and /var.
"""

import builtins
import os
import pathlib
import shutil
import sys

# Where Cobbler's library looks, whatever its settings say.
ABSOLUTE = ("/etc/cobbler", "/var/lib/cobbler", "/var/log/cobbler", "/var/www/cobbler")


def move(top: pathlib.Path) -> None:
    """Has this process open files below `top` in the place of those."""

    def moving(module, name):
        function = getattr(module, name)

        def moved(path, *rest, **options):
            if isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(ABSOLUTE):
                path = f"{top}{os.fspath(path)}"
            return function(path, *rest, **options)

        setattr(module, name, moved)

    moving(builtins, "open")
    for name in ("access", "listdir", "mkdir", "scandir", "stat"):
        moving(os, name)
    for name in ("exists", "isdir", "isfile"):
        moving(os.path, name)


def prepare(kickstart: pathlib.Path, top: pathlib.Path) -> None:
    packages = next(path for path in map(pathlib.Path, sys.path) if (path / "cobbler").is_dir())
    for folder in ("etc", "var"):
        shutil.copytree(packages / folder, top / folder)
    for folder in ("collections", "triggers"):
        (top / "var/lib/cobbler" / folder).mkdir(parents=True, exist_ok=True)
    shutil.copy(kickstart, top / "var/lib/cobbler/templates/node.ks")
    for name in ("vmlinuz", "initrd.img"):
        (top / name).write_text(name)
    for folder in ("pxelinux.cfg", "grub/system", "grub/system_link", "esxi/system"):
        (top / "out" / folder).mkdir(parents=True)


def main() -> None:
    kickstart, n_systems, top = pathlib.Path(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3])
    top = top.absolute()
    prepare(kickstart, top)
    move(top)
    from cobbler.api import CobblerAPI

    api = CobblerAPI(settingsfile_location=str(top / "etc/cobbler/settings.yaml"))
    distro = api.new_distro()
    distro.name = "el8"
    distro.kernel, distro.initrd = str(top / "vmlinuz"), str(top / "initrd.img")
    distro.breed, distro.os_version, distro.arch = "redhat", "rhel8", "x86_64"
    api.add_distro(distro, save=False)
    profile = api.new_profile()
    profile.name, profile.distro, profile.autoinstall = "node", "el8", "node.ks"
    profile.kernel_options = "inst.text inst.sshd=0 intel_iommu=on console=ttyS0,115200"
    api.add_profile(profile, save=False)
    for number in range(n_systems):
        system = api.new_system()
        system.name, system.profile, system.netboot_enabled = f"srv{number:04}", "node", True
        mac = f"52:54:00:00:{number >> 8:02x}:{number & 255:02x}"
        system.interfaces = {"eth0": {"mac_address": mac}}
        api.add_system(system, save=False)
    out = top / "out"
    api.tftpgen.bootloc = str(out)
    menu = api.tftpgen.get_menu_items()
    for system in api.systems():
        text = api.autoinstallgen.generate_autoinstall_for_system(system.name)
        (out / f"{system.name}.ks").write_text(text)
        api.tftpgen.write_all_system_files(system, menu)
        (out / f"{system.name}.ipxe").write_text(api.tftpgen.generate_ipxe("system", system.name))


if __name__ == "__main__":
    main()
