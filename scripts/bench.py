#!/usr/bin/env python3
"""Measures nodeforge on clusters of 10, 1,000 and 10,000 nodes, and beside it what others do for
the same files; writes docs/benchmarks.md.

    scripts/bench.py NODEFORGE [OVERLAY]

OVERLAY is the program of scripts/bench/overlay.rs; without it, cargo builds it. Each figure is the
median of several runs of a whole program: CPU time of the user and of the system, wall time, and
peak resident memory (wait4(2)). Each build goes into a new folder; none is removed while
something is measured. Nothing is asserted: a benchmark is for reading. A peer that cannot be
installed, or a tool that is missing, is told in the table.
"""

import datetime
import gzip
import json
import os
import pathlib
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import bench_serve
from bench_cluster import REPOSITORY, TOOLS, write_cluster

# Cobbler's own list has modules for its web server and LDAP, which need compilers and headers;
# its templar needs these.
PEERS = {
    "ansible": ["ansible-core==2.19.*"],
    "cobbler": ["cobbler==3.3.10", "CT3", "dnspython", "distro", "file-magic", "netaddr",
                "pyyaml", "requests", "schema"],
}
SIZES = (10, 1_000, 10_000)


def measure(command, folder, environment=None):
    """User, system and wall seconds, and peak MiB of one run."""
    begin = time.monotonic()
    with open(os.devnull, "w") as null:
        child = subprocess.Popen(
            [str(word) for word in command],
            cwd=folder,
            stdout=null,
            stderr=subprocess.PIPE,
            env={**os.environ, **(environment or {})},
        )
        said = child.stderr.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    wall = time.monotonic() - begin
    if child.returncode != 0:
        sys.exit(f"{command}: exit code {child.returncode}\n{said.decode()}")
    return usage.ru_utime, usage.ru_stime, wall, usage.ru_maxrss / 1024


def typical(runs):
    """What a run takes. The kernel may count processor time in ticks of 4 ms, of which short runs
    take few: of many runs the mean tells more than the median does."""
    middle = statistics.mean if len(runs) > 5 else statistics.median
    return tuple(middle(column) for column in zip(*runs))


def rows_of_size(nodeforge: str, folder: pathlib.Path, n_nodes: int, n_runs: int):
    """Yields (work, figures) for a cluster of `n_nodes`; its last build stays in folder/out0."""
    write_cluster(folder, n_nodes)

    def build(out: str):
        return measure([nodeforge, "build", "cluster.toml", "-o", out, "--cache", "none"], folder)

    check = [nodeforge, "check", "cluster.toml"]
    yield "check", typical([measure(check, folder) for _ in range(n_runs)])
    yield "full build", typical([build(f"out{run}") for run in range(n_runs)])
    yield "build, nothing changed", typical([build("out0") for _ in range(n_runs)])
    changed = []
    for run in range(n_runs):
        write_cluster(folder, n_nodes, ("tmux", "screen")[run % 2 == 0])
        changed.append(build("out0"))
    yield "build, one node changed", typical(changed)
    yield "verify", typical([measure([nodeforge, "verify", "out0"], folder) for _ in range(n_runs)])


def n_writes_of_noop(nodeforge: str, folder: pathlib.Path):
    """How many calls of a build that changes nothing change the filesystem."""
    if not shutil.which("strace"):
        return None
    calls = "mkdir,mkdirat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,rmdir,chmod,fchmod,ftruncate,syncfs,fsync"
    build = [nodeforge, "build", "cluster.toml", "-o", "out0", "--cache", "none"]
    measure(build, folder)
    measure(["strace", "-f", "-qq", "-o", "trace", "-e", f"trace={calls}", *build], folder)
    # strace has no name for what a thread is in when the process ends.
    return sum("???(" not in line for line in (folder / "trace").read_text().splitlines())


def durable_ratio(nodeforge: str, folder: pathlib.Path):
    """Wall time of a full build with its syncs, over that of one where strace leaves them out."""
    if not shutil.which("strace"):
        return None
    walls = {}
    for run in range(3):
        for name, inject in (("with", []), ("without", ["-e", "inject=syncfs,fsync:retval=0"])):
            trace = ["strace", "-f", "-qq", "--seccomp-bpf", "-o", "trace"]
            trace += ["-e", "trace=syncfs,fsync", *inject]
            os.sync()
            build = [nodeforge, "build", "cluster.toml", "-o", f"{name}{run}", "--cache", "none"]
            walls.setdefault(name, []).append(measure(trace + build, folder)[2])
    return statistics.median(walls["with"]) / statistics.median(walls["without"])


N_MADE = 10_000


def made_alone(command: list, folder: pathlib.Path, out: str) -> float:
    """CPU s of a program that fills a folder, after all that is on its way to the disk: what is
    written and removed beside it costs system time."""
    (folder / out).mkdir()
    os.sync()
    made = measure(command, folder)
    return made[0] + made[1]


def floor(folder: pathlib.Path):
    """CPU ms a node of the loop in C, for a node's own archive; (None, why) if it cannot be had."""
    node = next(iter((folder / "out0/current/nodes").iterdir())).name
    archive = folder / "out0/current/nodes" / node / "overlay.cpio.gz"
    (folder / "prototype.cpio").write_bytes(gzip.decompress(archive.read_bytes()))
    program = folder / "floor"
    source = REPOSITORY / "scripts/bench/floor.c"
    compiled = subprocess.run(["cc", "-O2", "-o", program, source, "-lz"], capture_output=True)
    if compiled.returncode != 0:
        return None, "scripts/bench/floor.c needs cc and zlib1g-dev"
    costs = []
    for run in range(3):
        out = f"floor-{run}"
        cpu = made_alone([program, "prototype.cpio", node, N_MADE, out], folder, out)
        costs.append(1000 * cpu / N_MADE)
    return statistics.median(costs), None


def parts(folder: pathlib.Path, program: str) -> dict[str, float]:
    """CPU ms a node of parts of a build: its overlays, or its kickstart and boot menus."""
    cpu = {}
    for work in ("prepare", "overlays", "boot"):
        outs = [f"{work}-{run}" for run in range(3)]
        runs = [made_alone([program, "cluster.toml", out, work], folder, out) for out in outs]
        cpu[work] = statistics.median(runs)
    return {work: 1000 * (cpu[work] - cpu["prepare"]) / N_MADE for work in ("overlays", "boot")}


# What is in an installer's ISO, for the cost of making it anew; nothing in it boots.
ISOLINUX = "default linux\nlabel linux\n  kernel vmlinuz\n  append initrd=initrd.img inst.stage2=hd:LABEL=BENCH\n"
GRUB = "menuentry 'Install' {\n  linuxefi /vmlinuz inst.stage2=hd:LABEL=BENCH\n  initrdefi /initrd.img\n}\n"
ISO_MIB = 900
MEDIA_TOOLS = ("xorriso", "mkfs.vfat", "mmd", "mcopy")


def stand_in_iso(folder: pathlib.Path):
    """An ISO as large as AlmaLinux's boot.iso, with its ways to boot; or why there is none."""
    isolinux = pathlib.Path("/usr/lib/ISOLINUX/isolinux.bin")
    missing = [tool for tool in MEDIA_TOOLS if not shutil.which(tool)]
    missing += [] if isolinux.exists() else [str(isolinux)]
    if missing:
        return None, ", ".join(missing) + " missing"
    tree = folder / "iso"
    for name, text in (("isolinux/isolinux.cfg", ISOLINUX), ("EFI/BOOT/grub.cfg", GRUB),
                       ("isolinux/vmlinuz", "k"), ("isolinux/initrd.img", "i")):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    shutil.copy(isolinux, tree / "isolinux")
    (tree / "images").mkdir()
    with open(tree / "images/install.img", "wb") as image:
        for _ in range(ISO_MIB):
            image.write(os.urandom(1 << 20))
    efiboot = tree / "images/efiboot.img"
    with open(efiboot, "wb") as volume:
        volume.truncate(4 << 20)
    for command in (["mkfs.vfat", efiboot], ["mmd", "-i", efiboot, "::EFI", "::EFI/BOOT"],
                    ["mcopy", "-i", efiboot, tree / "EFI/BOOT/grub.cfg", "::EFI/BOOT/"]):
        subprocess.run(command, check=True, capture_output=True)
    iso = folder / "base.iso"
    make = ["xorriso", "-as", "mkisofs", "-quiet", "-V", "BENCH", "-R", "-o", iso,
            "-isohybrid-mbr", "/usr/lib/ISOLINUX/isohdpfx.bin", "-b", "isolinux/isolinux.bin",
            "-c", "isolinux/boot.cat", "-boot-load-size", "4", "-boot-info-table", "-no-emul-boot",
            "-eltorito-alt-boot", "-e", "images/efiboot.img", "-no-emul-boot",
            "-isohybrid-gpt-basdat", tree]
    subprocess.run(make, check=True, capture_output=True)
    shutil.rmtree(tree)
    return iso, None


def media(nodeforge: str, folder: pathlib.Path):
    """Wall times: s of 1,000 OEMDRV volumes; ms a node to copy the shared ISO, to write what is the
    node's and to bring it to disk; ms of xorriso to make one ISO anew; or why there are none."""
    write_cluster(folder, 1_000)
    names = ["adm1", "srv[001-999]"]
    oemdrv = [nodeforge, "media", "oemdrv", "cluster.toml", ",".join(names)]
    volumes = statistics.median(
        measure([*oemdrv, "-o", f"oemdrv{run}"], folder)[2] for run in range(3)
    )
    base, fault = stand_in_iso(folder)
    if fault:
        return volumes, None, fault
    isos = [nodeforge, "media", "iso", "cluster.toml", "--base", base, "-o", "isos", "--node"]
    measure([*isos, "srv001"], folder)
    (folder / "ks.cfg").write_bytes(b"#" * 100_000)
    # By turns, each with nothing of the one before left to write: the kernel slows down who writes
    # while much is waiting to be written.
    made, rebuilt = [], []
    for run in range(5):
        os.sync()
        told = subprocess.run([*map(str, isos), f"srv00{run + 2}"], cwd=folder, capture_output=True,
                              text=True, check=True).stderr
        made.append([float(value) for value in re.findall(r"([0-9.]+) ms", told)])
        rebuild = ["xorriso", "-indev", base, "-outdev", f"rebuilt{run}.iso", "-boot_image", "any",
                   "replay", "-map", "ks.cfg", "/ks.cfg", "-commit"]
        os.sync()
        rebuilt.append(1000 * measure(rebuild, folder)[2])
    each = map(statistics.median, zip(*made))
    return volumes, (*each, statistics.median(rebuilt)), None


def install(peer: str):
    """The folder of a Python environment with a peer in it; or why there is none."""
    environment = TOOLS / f"peer-{peer}"
    stamp = environment / "installed"
    if stamp.exists() and stamp.read_text() == str(PEERS[peer]):
        return environment, None
    shutil.rmtree(environment, ignore_errors=True)
    commands = [[sys.executable, "-m", "venv", environment]]
    pip = [environment / "bin/pip", "install", "--quiet"]
    first, *further = PEERS[peer]
    if further:
        commands += [[*pip, "--no-deps", first], [*pip, *further]]
    else:
        commands += [[*pip, first]]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            return None, f"{first} cannot be installed: {done.stderr.strip().splitlines()[-1:]}"
    stamp.write_text(str(PEERS[peer]))
    return environment, None


# The files of DAOS and of the node around them, as the shared and own layers hold them.
SIX_FILES = (
    "etc/daos/daos_server.yml",
    "etc/daos/daos_agent.yml",
    "etc/daos/daos_control.yml",
    "etc/hosts",
    "etc/hostname",
    "etc/yum.repos.d/daos.repo",
)


def texts_of(nodeforge: str, folder: pathlib.Path, node: str) -> dict[str, str]:
    """Six files of one node; one that it does not get has a like text in its place."""
    texts = {}
    for path in SIX_FILES:
        shown = subprocess.run(
            [nodeforge, "show", "cluster.toml", node, path],
            cwd=folder,
            capture_output=True,
            text=True,
        )
        texts[path] = shown.stdout if shown.returncode == 0 else f"# {path} of {node}\n" * 20
    return texts


def ansible(nodeforge: str, folder: pathlib.Path):
    """CPU ms a node for six templates a node, of a run with five nodes less one without tasks."""
    environment, fault = install("ansible")
    if fault:
        return None, fault
    work = folder / "ansible"
    work.mkdir()
    write_cluster(folder, 10)
    node = "srv1"
    tasks = []
    for number, text in enumerate(texts_of(nodeforge, folder, node).values()):
        text = "{% raw %}" + text.replace(node, "{% endraw %}{{ inventory_hostname }}{% raw %}")
        (work / f"{number}.j2").write_text(text + "{% endraw %}\n")
        dest = f"{work}/{{{{ inventory_hostname }}}}.{number}"
        tasks.append({"template": {"src": str(work / f"{number}.j2"), "dest": dest}})
    n_hosts = 5
    hosts = "".join(f"srv{number}\n" for number in range(1, n_hosts + 1))
    (work / "hosts").write_text(f"[all]\n{hosts}[all:vars]\nansible_connection=local\n"
                                f"ansible_python_interpreter={sys.executable}\n")
    cpu = []
    for name, todo in (("nothing", []), ("templates", tasks)):
        play = [{"hosts": "all", "gather_facts": False, "tasks": todo}]
        (work / f"{name}.json").write_text(json.dumps(play))
        command = [environment / "bin/ansible-playbook", "-i", "hosts", f"{name}.json"]
        made = measure(command, work, {"ANSIBLE_LOCAL_TEMP": str(work / "tmp"), "HOME": str(work)})
        cpu.append(made[0] + made[1])
    return 1000 * (cpu[1] - cpu[0]) / n_hosts, None


def cobbler(nodeforge: str, folder: pathlib.Path):
    """CPU ms a node for a kickstart and three boot menus, of 40 systems less those of none."""
    environment, fault = install("cobbler")
    if fault:
        return None, fault
    write_cluster(folder, 10)
    measure([nodeforge, "build", "cluster.toml", "-o", "ten", "--cache", "none"], folder)
    text = (folder / "ten/current/nodes/srv1/kickstart.ks").read_text()
    # Shell is full of `$` and `#`, which are Cheetah's: raw but for the node's name.
    lines = [f"#raw\n{line}\n#end raw\n" if "srv1" not in line else
             "${name}".join(escape(part) for part in line.split("srv1")) + "\n"
             for line in text.splitlines()]
    template = folder / "cobbler.ks"
    template.write_text("".join(lines).replace("#end raw\n#raw\n", ""))
    cpu = []
    for n_systems in (0, 40):
        out = folder / f"cobbler-{n_systems}"
        script = REPOSITORY / "scripts/bench/cobbler_render.py"
        made = measure([environment / "bin/python", "-B", script, template, n_systems, out], folder)
        cpu.append(made[0] + made[1])
        kinds = ("*.ks", "pxelinux.cfg/*", "grub/system/*", "*.ipxe")
        n_files = sum(len(list((out / "out").glob(kind))) for kind in kinds)
        if n_files != len(kinds) * n_systems:
            return None, f"Cobbler made {n_files} files for {n_systems} systems"
    return 1000 * (cpu[1] - cpu[0]) / 40, None


def thin_images(nodeforge: str, folder: pathlib.Path):
    """Milliseconds of wall time a node for a thin qcow2, a seed and the rest of `image`, and for
    `qemu-img create` and xorriso, which make the first two: both on files in memory's reach, ours
    brought to disk. (None, why) where a tool is missing."""
    for tool in ("qemu-img", "xorriso"):
        if shutil.which(tool) is None:
            return None, f"{tool} is missing"
    n_nodes = 100
    folder.mkdir()
    write_cluster(folder, n_nodes)
    path = folder / "cluster.toml"
    text = path.read_text().replace('console = "ttyS0', 'vm = { disk = "40GiB", iommu = true }\nconsole = "ttyS0')
    path.write_text(text)
    base = folder / "base.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", base, "10G"], check=True)
    runs = iter(range(100))
    def ours():
        out = f"images{next(runs)}"
        return measure([nodeforge, "image", path, "--base", base, "-o", out], folder)[2]
    seed = folder / "seed"
    seed.mkdir()
    for name in ("meta-data", "user-data", "network-config"):
        (seed / name).write_text("#cloud-config\n" * 100)
    def theirs():
        number = next(runs)
        thin = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, f"{number}.qcow2", "40G"]
        iso = ["xorriso", "-as", "mkisofs", "-quiet", "-J", "-r", "-V", "cidata", "-o", f"{number}.iso", "seed"]
        return sum(measure(command, folder)[2] for command in (thin, iso))
    return (1000 * statistics.median(ours() for _ in range(5)) / n_nodes,
            1000 * statistics.median(theirs() for _ in range(5)))


def escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("$", "\\$").replace("#", "\\#")


def processor() -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


class Targets:
    """The table of what was aimed at."""

    def __init__(self):
        self.rows = ["| work | target | measured | met |", "|---|---|---:|---|"]

    def add(self, work, target, shown, is_met):
        self.rows.append(f"| {work} | {target} | {shown} | {'yes' if is_met else 'no'} |")
        print(self.rows[-1], flush=True)

    def missing(self, work, target, why):
        self.rows.append(f"| {work} | {target} | not measured: {why} | |")
        print(self.rows[-1], flush=True)


def overlay_program(arguments: list[str]) -> str:
    """The program of scripts/bench/overlay.rs."""
    if arguments:
        return str(pathlib.Path(arguments[0]).resolve())
    command = ["cargo", "bench", "--locked", "--no-run", "--bench", "overlay"]
    command += ["--message-format", "json"]
    built = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, check=True, text=True)
    messages = map(json.loads, built.stdout.splitlines())
    return next(it["executable"] for it in messages
                if it.get("executable") and it["target"]["name"] == "overlay")


def compare_targets(figures, beside) -> list[str]:
    """The table of targets: `figures` by size and work, `beside` what was measured beside them."""
    targets = Targets()

    def user(size, work):
        return figures[size, work][0]

    for size, most in ((10, 0.015), (1_000, 0.5), (10_000, 5)):
        seconds = user(size, "full build")
        work = f"full build of {size:,} nodes, user CPU"
        targets.add(work, f"≤ {most:g} s", f"{seconds:.3f} s", seconds <= most)
    ratio = user(10_000, "full build") / user(1_000, "full build")
    targets.add("10,000 nodes against 1,000", "≤ 11×", f"{ratio:.1f}×", ratio <= 11)
    peak = figures[10_000, "full build"][3]
    targets.add("peak memory of 10,000 nodes", "≤ 64 MiB", f"{peak:.0f} MiB", peak <= 64)
    further = (peak - figures[1_000, "full build"][3]) * 1024 / 9_000
    targets.add("memory a further node", "≤ 4 KiB", f"{further:.1f} KiB", further <= 4)
    for size, most in ((1_000, 0.05), (10_000, 0.4)):
        seconds = user(size, "check")
        targets.add(f"check of {size:,}", f"≤ {most:g} s", f"{seconds:.3f} s", seconds <= most)
    for work, most in (("build, nothing changed", 0.03), ("build, one node changed", 0.04)):
        seconds = user(1_000, work)
        targets.add(f"{work}, of 1,000", f"≤ {most:g} s", f"{seconds:.3f} s", seconds <= most)
    writes = beside["writes"]
    if writes is None:
        targets.missing("writes of a build that changes nothing", "0", "strace is missing")
    else:
        targets.add("writes of a build that changes nothing", "0", str(writes), writes == 0)
    ours = beside["parts"]
    cost, fault = beside["floor"]
    work = "overlay part against the loop in C, a node"
    if fault:
        targets.missing(work, "≤ 3×", fault)
    else:
        shown = f"{ours['overlays']:.3f} / {cost:.3f} ms = {ours['overlays'] / cost:.1f}×"
        targets.add(work, "≤ 3×", shown, ours["overlays"] <= 3 * cost)
    durable = beside["durable"]
    if durable is None:
        targets.missing("publication that is durable, against one that is not", "≤ 1.5×", "strace is missing")
    else:
        work = "publication that is durable, against one that is not (wall, 1,000 nodes)"
        targets.add(work, "≤ 1.5×", f"{durable:.2f}×", durable <= 1.5)
    images, theirs = beside["images"]
    work = "thin qcow2, seed, script and XML a node (wall), against qemu-img create + xorriso"
    if images is None:
        targets.missing(work, "≤ 20 ms", theirs)
    else:
        targets.add(work, "≤ 20 ms", f"{images:.1f} / {theirs:.1f} ms", images <= 20)
    volumes, isos, fault = beside["media"]
    targets.add("1,000 OEMDRV volumes (wall)", "≤ 5 s", f"{volumes:.2f} s", volumes <= 5)
    if fault:
        targets.missing("an ISO a node, without the copy", "≤ 10 ms", fault)
    else:
        copy, patch, sync, rebuild = isos
        shown = f"{patch:.1f} ms; to copy {ISO_MIB} MiB {copy:,.0f} ms, to bring it to disk {sync:,.0f} ms"
        targets.add("an ISO a node, without the copy (wall)", "≤ 10 ms", shown, patch <= 10)
        shown = f"{rebuild:,.0f} / {copy + patch:,.1f} ms = {rebuild / (copy + patch):,.1f}×"
        targets.add("the same by a full rebuild with xorriso, neither brought to disk", "≥ 1×", shown, rebuild > copy + patch)
    whole = 1000 * sum(figures[1_000, "full build"][:2]) / 1_000
    for peer, least, part, what in (
        ("ansible", 5_000, "overlays", "six files, against our overlay part"),
        ("cobbler", 15, "boot", "a kickstart and three menus, against ours for these"),
    ):
        cost, fault = beside[peer]
        work = f"CPU of {peer} for {what}"
        if fault:
            targets.missing(work, f"≥ {least:,}×", fault)
        else:
            shown = f"{cost:,.1f} / {ours[part]:.2f} ms = {cost / ours[part]:,.0f}×"
            shown += f"; for all of a node we take {whole:.2f} ms"
            targets.add(work, f"≥ {least:,}×", shown, cost >= least * ours[part])
    compare_serve(targets, *beside["serve"])
    return targets.rows


def compare_serve(targets: Targets, measured, peak, stormed) -> None:
    """The rows of `nodeforge serve`, most of them beside nginx."""
    if measured is None:
        targets.missing("serve against nginx", "≥ 80 %", peak)
        return
    n_failed = sum(row[4] for row in measured)
    for work, connections, ours, theirs, _ in measured:
        least = 90 if "MiB" in work else 80
        work = f"serve against nginx: {work}, {connections} connections"
        shown = f"{ours:,.0f} / {theirs:,.0f} = {100 * ours / theirs:.0f} %"
        targets.add(work, f"≥ {least} %", shown, 100 * ours >= least * theirs)
    targets.add("the same: requests that failed", "0", f"{n_failed:,}", n_failed == 0)
    most = 64 + 512 * 16 / 1024
    targets.add("the same: peak memory of nodeforge", f"≤ {most:.0f} MiB", f"{peak:.0f} MiB", peak <= most)
    seconds, n_without = stormed
    work = f"{bench_serve.N_STORM} machines at once: script, kickstart, overlay, event (wall)"
    targets.add(work, "≤ 2 s, none fails", f"{seconds:.2f} s, {n_without} failed", seconds <= 2 and not n_without)


def main() -> None:
    nodeforge = str(pathlib.Path(sys.argv[1]).resolve())
    overlay = overlay_program(sys.argv[2:])
    figures, rows, beside = {}, [], {}
    with tempfile.TemporaryDirectory() as name:
        top = pathlib.Path(name)
        for n_nodes in SIZES:
            folder = top / str(n_nodes)
            folder.mkdir()
            n_runs = {10: 40, 1_000: 5}.get(n_nodes, 3)
            for work, row in rows_of_size(nodeforge, folder, n_nodes, n_runs):
                figures[n_nodes, work] = row
                user, system, wall, peak = row
                rows.append(f"| {n_nodes:,} | {work} | {user:.3f} | {system:.3f} | {wall:.3f} | {peak:.0f} |")
                print(rows[-1], flush=True)
        beside["writes"] = n_writes_of_noop(nodeforge, top / "1000")
        beside["durable"] = durable_ratio(nodeforge, top / "1000")
        beside["floor"] = floor(top / "10000")
        beside["parts"] = parts(top / "10000", overlay)
        beside["images"] = thin_images(nodeforge, top / "images")
        (top / "media").mkdir()
        beside["media"] = media(nodeforge, top / "media")
        (top / "serve").mkdir()
        beside["serve"] = bench_serve.rows(nodeforge, top / "serve")
        beside["ansible"] = ansible(nodeforge, top / "10")
        beside["cobbler"] = cobbler(nodeforge, top / "10")
    targets = compare_targets(figures, beside)
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`; do not edit. Medians over whole runs of the release binary, for 10",
        "nodes the mean of 40 runs.",
        "",
        f"Measured on {datetime.date.today()}, {os.cpu_count()} × {processor()}, "
        f"Linux {platform.release()}; load {os.getloadavg()[2]:.1f} in the last quarter of an hour.",
        "",
        "## Targets",
        "",
        *targets,
        "",
        "What is compared: the loop in C (scripts/bench/floor.c) puts names into the same texts,",
        "formats newc, deflates at level 1 and writes one file a node; our overlay part renders,",
        "packs, reads back and writes the same archive. Ansible's template module writes six files a",
        "node, on this machine without ssh. Cobbler's library makes a kickstart of the same text and",
        "three boot menus a node, as its daemon does for `sync` and for its web server, without the",
        "daemon and its database; ours renders and writes the same four. nginx sends the same files",
        "without asking who may have them; client and servers share the processors.",
        "",
        "## All figures",
        "",
        "| nodes | work | user s | system s | wall s | peak MiB |",
        "|---:|---|---:|---:|---:|---:|",
        *rows,
    ]
    (REPOSITORY / "docs" / "benchmarks.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
