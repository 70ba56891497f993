#!/usr/bin/env python3
"""Measures nodeforge on clusters of 10, 1,000 and 10,000 nodes and writes docs/benchmarks.md.

Each figure is the median of several runs of the whole program: CPU time of the user and of
the system, wall time, and peak resident memory (wait4(2)). Nothing is asserted: a benchmark
is for reading.
"""

import datetime
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
SIZES = (10, 1_000, 10_000)
CLUSTER = """\
format = 1
cluster = {{ name = "bench", domain = "bench.example" }}
boot = {{ url = "http://10.0.0.2:8080" }}
os = {{ release = "8.10" }}
daos = {{ version = "2.6.0", provider = "ofi+tcp", access_points = "srv[{first}]", security = "insecure", fault_path = "/{{rack}}/{{name}}" }}
net.mgmt = {{ subnet = "10.16.0.0/12", gateway = "10.16.0.1" }}
net.data = {{ subnet = "10.64.0.0/12" }}
rack."r[0001-{racks:04}]" = {{ nodes = "srv[{range}]", per = 16 }}

[hw.box]
firmware = "uefi"
memory = "512GiB"
sockets = 2
cores = 64
install_disk = {{ bus = "sata", max = "1TiB" }}
nic.mgmt = {{ name = "lan0", net = "mgmt", boot = true }}
nic.fab0 = {{ name = "fab0", net = "data", pci = "0000:17:00.0", numa = 0 }}
nvme.numa0 = ["0000:5e:00.0", "0000:5f:00.0", "0000:60:00.0", "0000:61:00.0"]
console = "ttyS0,115200"

[[role.server.engine]]
numa = 0
fabric = "fab0"
targets = 12
scm = {{ class = "ram", size = "auto" }}
bdev = [{{ class = "nvme", from = "nvme.numa0", wal_meta = 1 }}]

[node.adm1]
hw = "box"
roles = ["admin"]
nic.mgmt = {{ ip = "10.16.0.10", mac = "02:00:00:00:00:01" }}

[node."srv[{range}]"]
hw = "box"
roles = ["server"]
facts = {{ csv = "inventory.csv", key = "name", columns = ["mac.mgmt", "serial"] }}
nic.mgmt.ip = "10.17.0.0 + {{index}}"
nic.fab0.ip = "10.65.0.0 + {{index}}"

[node.srv{first}]
packages = ["{package}"]
"""


def write_cluster(folder: pathlib.Path, n_nodes: int, package: str = "tmux") -> None:
    """Writes a cluster of one admin and `n_nodes - 1` servers."""
    n_servers = n_nodes - 1
    width = len(str(n_servers))
    text = CLUSTER.format(
        first=f"{1:0{width}}",
        range=f"{1:0{width}}-{n_servers}",
        racks=-(-n_servers // 16),
        package=package,
    )
    (folder / "cluster.toml").write_text(text)
    rows = ["name,mac.mgmt,serial"]
    for index in range(1, n_servers + 1):
        octets = ":".join(f"{byte:02x}" for byte in (2 << 24 | index).to_bytes(4, "big"))
        rows.append(f"srv{index:0{width}},02:4e:{octets},S{index:05}")
    (folder / "inventory.csv").write_text("\n".join(rows) + "\n")


def measure(command: list[str], folder: pathlib.Path) -> tuple[float, float, float, float]:
    """User, system and wall seconds, and peak MiB of one run."""
    begin = datetime.datetime.now()
    with open(os.devnull, "w") as null:
        child = subprocess.Popen(command, cwd=folder, stdout=null, stderr=subprocess.PIPE)
        said = child.stderr.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    wall = (datetime.datetime.now() - begin).total_seconds()
    if child.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit code {child.returncode}\n{said.decode()}")
    return usage.ru_utime, usage.ru_stime, wall, usage.ru_maxrss / 1024


def median(runs: list[tuple[float, float, float, float]]) -> tuple[float, ...]:
    return tuple(statistics.median(column) for column in zip(*runs))


def rows_of_size(nodeforge: str, n_nodes: int, n_runs: int):
    """Yields (work, figures) for a cluster of `n_nodes`."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_cluster(folder, n_nodes)
        build = [nodeforge, "build", "cluster.toml", "-o", "out", "--cache", "none"]
        check = [nodeforge, "check", "cluster.toml"]
        yield "check", median([measure(check, folder) for _ in range(n_runs)])
        full = []
        for _ in range(n_runs):
            shutil.rmtree(folder / "out", ignore_errors=True)
            full.append(measure(build, folder))
        yield "full build", median(full)
        yield "build, nothing changed", median([measure(build, folder) for _ in range(n_runs)])
        changed = []
        for run in range(n_runs):
            write_cluster(folder, n_nodes, ("tmux", "screen")[run % 2 == 0])
            changed.append(measure(build, folder))
        yield "build, one node changed", median(changed)
        verify = [nodeforge, "verify", "out"]
        yield "verify", median([measure(verify, folder) for _ in range(n_runs)])


def processor() -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def main() -> None:
    nodeforge = str(pathlib.Path(sys.argv[1]).resolve())
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`; do not edit. Medians over whole runs of the release binary.",
        "",
        f"Measured on {datetime.date.today()}, {os.cpu_count()} × {processor()}, "
        f"Linux {platform.release()}.",
        "",
        "| nodes | work | user s | system s | wall s | peak MiB |",
        "|---:|---|---:|---:|---:|---:|",
    ]
    for n_nodes in SIZES:
        for work, figures in rows_of_size(nodeforge, n_nodes, 3 if n_nodes > 1_000 else 5):
            user, system, wall, peak = figures
            row = f"| {n_nodes:,} | {work} | {user:.3f} | {system:.3f} | {wall:.3f} | {peak:.0f} |"
            print(row, flush=True)
            lines.append(row)
    (REPOSITORY / "docs").mkdir(exist_ok=True)
    (REPOSITORY / "docs" / "benchmarks.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
