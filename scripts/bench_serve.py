#!/usr/bin/env python3
"""Measures `nodeforge serve` beside nginx, on the same files in the same run.

    scripts/bench-serve.py NODEFORGE [NGINX [WRK]]

1,000 kickstarts of armed nodes (for nodeforge each is checked against the state, for nginx it
is a file) and one image of 100 MB, by wrk. Prints a table; nothing is asserted, as figures of a
busy machine say little.
"""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import bench  # noqa: E402

N_NODES = 1_000
SECONDS = 5

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


def load(wrk: str, folder: pathlib.Path, port: int, paths: list, connections: int, close: bool):
    """Requests a second, bytes a second, and errors."""
    (folder / "paths").write_text("\n".join(paths) + "\n")
    header = 'wrk.headers["Connection"] = "close"' if close else ""
    (folder / "load.lua").write_text(WRK % (folder / "paths", header))
    command = [wrk, "-t1", f"-c{connections}", f"-d{SECONDS}s", "--timeout", "30s",
               "-s", str(folder / "load.lua"), f"http://127.0.0.1:{port}"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])
    number, unit = re.search(r"Transfer/sec:\s+([\d.]+)(\w+)", said).groups()
    errors = sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", said)))
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    errors += int(bad[1]) if bad else 0
    scale = {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}[unit]
    return rate, float(number) * scale, errors


def peak_mib(pid: int) -> float:
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


def main() -> None:
    nodeforge = str(pathlib.Path(sys.argv[1]).resolve())
    nginx = sys.argv[2] if len(sys.argv) > 2 else "nginx"
    wrk = sys.argv[3] if len(sys.argv) > 3 else "wrk"
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        # nginx's workers may run as another user.
        folder.chmod(0o755)
        bench.write_cluster(folder, N_NODES)
        programs = folder / "programs"
        programs.mkdir()
        (programs / "image.bin").write_bytes(os.urandom(100_000_000))
        run = lambda *words: subprocess.run([nodeforge, *words], cwd=folder, check=True,
                                            stderr=subprocess.DEVNULL)
        run("build", "cluster.toml", "-o", "out", "--cache", "none", "--boot-programs", "programs")
        ours, theirs = free_port(), free_port()
        server = subprocess.Popen([nodeforge, "serve", "out", "--forwarded",
                                   "--listen", f"127.0.0.1:{ours}"],
                                  cwd=folder, stderr=subprocess.DEVNULL)
        (folder / "nginx.conf").write_text(NGINX.format(port=theirs, root=folder / "out/current"))
        other = subprocess.Popen([nginx, "-p", str(folder), "-c", str(folder / "nginx.conf")])
        try:
            wait_for(ours)
            wait_for(theirs)
            manifest = json.loads((folder / "out/current/manifest.json").read_text())
            run("arm", f"srv[001-{N_NODES - 1:03}]")
            kickstarts = [f"/nodes/{node}/kickstart.ks" for node in manifest["nodes"]
                          if node.startswith("srv")]
            small = [f"/nodes/{node}/overlay.tar.gz" for node in manifest["nodes"]]
            print("| work | connections | nodeforge | nginx | share | errors |")
            print("|---|---:|---:|---:|---:|---:|")
            load(wrk, folder, ours, kickstarts, 64, False)
            for what, paths in (("kickstarts, checked", kickstarts), ("overlays", small)):
                for close in (False, True):
                    for connections in (64, 512):
                        mine = load(wrk, folder, ours, paths, connections, close)
                        other_one = load(wrk, folder, theirs, paths, connections, close)
                        how = "close" if close else "keep-alive"
                        print(f"| {what}, {how} | {connections} | {mine[0]:,.0f}/s | "
                              f"{other_one[0]:,.0f}/s | {100 * mine[0] / other_one[0]:.0f} % | "
                              f"{mine[2]} / {other_one[2]} |", flush=True)
            for connections in (1, 16):
                mine = load(wrk, folder, ours, ["/pxe/image.bin"], connections, False)
                other_one = load(wrk, folder, theirs, ["/pxe/image.bin"], connections, False)
                print(f"| 100 MB | {connections} | {mine[1] / 2**20:,.0f} MiB/s | "
                      f"{other_one[1] / 2**20:,.0f} MiB/s | {100 * mine[1] / other_one[1]:.0f} % | "
                      f"{mine[2]} / {other_one[2]} |", flush=True)
            print(f"\npeak memory of nodeforge serve: {peak_mib(server.pid):.0f} MiB")
        finally:
            for child in (server, other):
                child.send_signal(signal.SIGTERM)
                child.wait()


main()
