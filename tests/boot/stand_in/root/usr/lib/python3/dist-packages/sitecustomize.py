"""Takes away from /usr/libexec/platform-python what EL8's Python 3.6 does not have.

The syntax is judged elsewhere (tests/oracles/python36.py); this is for what only shows when
it runs.
"""

import sys


def refuse_newer_than_36():
    import datetime
    import math
    import os
    import shlex
    import shutil
    import subprocess
    import time

    for module, names in (
        (datetime.datetime, ()),
        (math, ("prod", "dist", "isqrt", "comb", "perm", "lcm", "nextafter")),
        (os, ("memfd_create", "posix_spawn", "waitstatus_to_exitcode")),
        (shlex, ("join",)),
        (time, ("time_ns", "monotonic_ns", "perf_counter_ns", "clock_gettime_ns")),
    ):
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    for name in ("dataclasses", "contextvars", "graphlib", "zoneinfo", "tomllib", "importlib.metadata"):
        sys.modules[name] = None

    class Popen(subprocess.Popen):
        def __init__(self, *arguments, **keywords):
            for name in ("text", "capture_output", "user", "group", "extra_groups", "umask"):
                if name in keywords:
                    raise TypeError("Python 3.6: Popen() has no " + name)
            super().__init__(*arguments, **keywords)

    def run(*arguments, **keywords):
        for name in ("text", "capture_output"):
            if name in keywords:
                raise TypeError("Python 3.6: run() has no " + name)
        return original_run(*arguments, **keywords)

    original_run = subprocess.run
    subprocess.Popen, subprocess.run = Popen, run
    original_copytree = shutil.copytree

    def copytree(*arguments, **keywords):
        if "dirs_exist_ok" in keywords:
            raise TypeError("Python 3.6: copytree() has no dirs_exist_ok")
        return original_copytree(*arguments, **keywords)

    shutil.copytree = copytree


if sys.executable == "/usr/libexec/platform-python":
    refuse_newer_than_36()
