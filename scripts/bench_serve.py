#!/usr/bin/env python3
"""Measures `nodeforge serve` beside nginx, on the same files in the same run: `make bench` does.

    scripts/bench_serve.py NODEFORGE

First 512 machines that are switched on at once: boot script, kickstart, overlay and an event each.
Then 1,000 kickstarts of armed nodes (for nodeforge each is checked against the state, for nginx it
is a file), their overlays, and one image of 100 MB, by wrk. Nothing is asserted, as figures of a
busy machine say little.
"""

import asyncio
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from bench_cluster import TOOLS, write_cluster

N_NODES = 1_000
SECONDS = 2
N_ROUNDS = 3
IMAGE_BYTES = 100_000_000
N_STORM = 512
PACKAGES = ("nginx", "wrk", "libluajit-5.1-2")

WRK = """\
local paths = {}
for path in io.lines("%s") do table.insert(paths, path) end
local at = 0
%s
request = function()
    at = at %% #paths + 1
    return wrk.format("GET", paths[at])
end
"""

NGINX = """\
daemon off; pid nginx.pid; error_log stderr crit; worker_processes auto; user root;
events {{ worker_connections 4096; }}
http {{
    access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_requests 100000000;
    open_file_cache off; client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3;
    uwsgi_temp_path t4; scgi_temp_path t5; default_type application/octet-stream;
    server {{ listen 127.0.0.1:{port} backlog=4096; root {root}; }}
}}
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(port: int) -> None:
    while True:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return


def load(wrk, folder: pathlib.Path, port: int, paths: list, connections: int, close: bool, environment):
    """Requests a second, bytes a second, and how many requests failed."""
    (folder / "paths").write_text("\n".join(paths) + "\n")
    header = 'wrk.headers["Connection"] = "close"' if close else ""
    (folder / "load.lua").write_text(WRK % (folder / "paths", header))
    command = [wrk, "-t1", f"-c{connections}", f"-d{SECONDS}s", "--timeout", "30s",
               "-s", str(folder / "load.lua"), f"http://127.0.0.1:{port}"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])
    number, unit = re.search(r"Transfer/sec:\s+([\d.]+)(\w+)", said).groups()
    errors = sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", said)))
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    errors += int(bad[1]) if bad else 0
    scale = {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}[unit]
    return rate, float(number) * scale, errors


async def ask(port: int, line: str, token: str = "-", body: str = "") -> str:
    """The body of a good answer, over a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{line} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n"
                 f"Content-Length: {len(body)}\r\n\r\n{body}".encode())
    head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
    writer.close()
    if head.split(b" ")[1] not in (b"200", b"204"):
        raise OSError(head.decode())
    return body.decode(errors="replace")


async def boot(port: int, node: str, mac: str) -> None:
    """What one machine asks for."""
    script = await ask(port, f"GET /pxe/ipxe/{mac.replace(':', '-')}.ipxe")
    token = re.search(r"nodeforge\.event_token=(\S+)", script)[1]
    await ask(port, f"GET /nodes/{node}/kickstart.ks")
    await ask(port, f"GET /nodes/{node}/overlay.tar.gz")
    event = {"node": node, "step": "disk", "state": "ended", "message": "fresh"}
    await ask(port, "POST /events", token, json.dumps(event))


async def storm(port: int, nodes: list) -> tuple[float, int]:
    """Wall time until all machines that are switched on at once have what they want, and how many
    do not get it."""
    begin = time.monotonic()
    boots = [boot(port, node, mac) for node, mac in nodes]
    ends = await asyncio.gather(*boots, return_exceptions=True)
    return time.monotonic() - begin, sum(end is not None for end in ends)


def peak_mib(pid: int) -> float:
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


def tools() -> tuple[dict, str | None]:
    """Paths of nginx and wrk and of wrk's library, unpacked from their packages: installed, nginx
    would be a service of this machine. Or why they are not there."""
    folder = TOOLS / "peer-nginx"
    found = {
        "nginx": folder / "usr/sbin/nginx",
        "wrk": folder / "usr/bin/wrk",
        "libraries": folder / "usr/lib" / f"{platform.machine()}-linux-gnu",
    }
    if all(path.exists() for path in found.values()):
        return found, None
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    download = ["apt-get", "download", "--quiet=2", *PACKAGES]
    try:
        done = subprocess.run(download, cwd=folder, capture_output=True, text=True)
    except FileNotFoundError:
        return {}, "nginx and wrk are taken from Debian's packages, and there is no apt-get"
    if done.returncode != 0:
        return {}, f"nginx and wrk cannot be had: {done.stderr.strip().splitlines()[-1:]}"
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "--extract", package, folder], check=True)
    return found, None


def rows(nodeforge: str, folder: pathlib.Path):
    """Serves 1,000 nodes. Rows (work, connections, ours, nginx's, how many of whose requests failed),
    requests or MiB a second; the peak MiB of nodeforge; wall time of a storm, and how many machines
    it left without. Or (None, why, None)."""
    found, fault = tools()
    if fault:
        return None, fault, None
    wrk = found["wrk"]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(found["libraries"])}
    # nginx's workers may run as another user.
    folder.chmod(0o755)
    write_cluster(folder, N_NODES)
    programs = folder / "programs"
    programs.mkdir()
    (programs / "image.bin").write_bytes(os.urandom(IMAGE_BYTES))

    def run(*words):
        subprocess.run([nodeforge, *words], cwd=folder, check=True, stderr=subprocess.DEVNULL)

    run("build", "cluster.toml", "-o", "out", "--cache", "none", "--boot-programs", "programs")
    ours, theirs = free_port(), free_port()
    server = subprocess.Popen(
        [nodeforge, "serve", "out", "--forwarded", "--listen", f"127.0.0.1:{ours}"],
        cwd=folder, stderr=subprocess.DEVNULL)
    (folder / "nginx.conf").write_text(NGINX.format(port=theirs, root=folder / "out/current"))
    nginx = [found["nginx"], "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    other = subprocess.Popen(nginx, env=environment, stderr=subprocess.DEVNULL)
    try:
        wait_for(ours)
        wait_for(theirs)
        manifest = json.loads((folder / "out/current/manifest.json").read_text())
        run("arm", f"srv[001-{N_NODES - 1:03}]")
        armed = [(node, entry["macs"][0]) for node, entry in manifest["nodes"].items()
                 if node.startswith("srv")]
        stormed = asyncio.run(storm(ours, armed[:N_STORM]))
        kickstarts = [f"/nodes/{node}/kickstart.ks" for node, _ in armed]
        overlays = [f"/nodes/{node}/overlay.tar.gz" for node in manifest["nodes"]]

        def both(paths, connections, close):
            """Of each server the medians of rounds, by turns."""
            rounds = [[load(wrk, folder, port, paths, connections, close, environment)
                       for port in (ours, theirs)] for _ in range(N_ROUNDS)]
            for of_server in zip(*rounds):
                rates, bytes_a_second, failed = zip(*of_server)
                yield statistics.median(rates), statistics.median(bytes_a_second), sum(failed)

        # Files come to memory, threads to life.
        list(both(kickstarts, 64, False))
        measured = []
        for what, paths in (("kickstarts of armed nodes", kickstarts), ("overlays", overlays)):
            for close in (False, True):
                for connections in (64, 512):
                    mine, other_one = both(paths, connections, close)
                    how = "a connection each" if close else "keep-alive"
                    measured.append((f"{what}, {how}, requests/s", connections, mine[0],
                                     other_one[0], mine[2] + other_one[2]))
        for connections in (1, 16):
            mine, other_one = both(["/pxe/image.bin"], connections, False)
            measured.append(("an initrd of 100 MB, MiB/s", connections, mine[1] / 2**20,
                             other_one[1] / 2**20, mine[2] + other_one[2]))
        return measured, peak_mib(server.pid), stormed
    finally:
        for child in (server, other):
            child.send_signal(signal.SIGTERM)
            child.wait()


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        measured, peak, stormed = rows(str(pathlib.Path(sys.argv[1]).resolve()), pathlib.Path(name))
    if measured is None:
        sys.exit(peak)
    for work, connections, ours, theirs, n_failed in measured:
        print(f"{work:52} {connections:4} {ours:12,.0f} {theirs:12,.0f} "
              f"{100 * ours / theirs:4.0f} % {n_failed} failed")
    print(f"peak memory of nodeforge serve: {peak:.0f} MiB")
    print(f"{N_STORM} machines switched on at once: {stormed[0]:.2f} s, {stormed[1]} failed")


if __name__ == "__main__":
    main()
