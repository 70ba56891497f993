"""The cluster that benchmarks measure, and where their tools are."""

import os
import pathlib

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
TOOLS = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target")) / "test-tools"
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
