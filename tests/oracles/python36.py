"""Tells what keeps the given scripts from running under EL8's platform-python, 3.6.

Prints `FILE:LINE: what`, and exits 1 if there was anything to print. The parser itself knows
most new syntax (ast.parse, feature_version); the tables hold what it lets through, from the
"What's New" pages of Python 3.7 to 3.11.
"""

import ast
import sys

MODULES = {
    "contextvars": "3.7",
    "dataclasses": "3.7",
    "graphlib": "3.9",
    "importlib.metadata": "3.8",
    "importlib.resources": "3.7",
    "tomllib": "3.11",
    "zoneinfo": "3.9",
}

# Names that are distinctive enough to be told from an object's own attributes.
ATTRIBUTES = {
    "cached_property": "3.8",
    "fromisoformat": "3.7",
    "is_relative_to": "3.9",
    "isascii": "3.7",
    "monotonic_ns": "3.7",
    "removeprefix": "3.9",
    "removesuffix": "3.9",
    "time_ns": "3.7",
}

FUNCTIONS = {("shlex", "join"): "3.8", ("math", "prod"): "3.8", ("asyncio", "run"): "3.7"}

KEYWORDS = {
    ("run", "capture_output"): "3.7",
    ("run", "text"): "3.7",
    ("check_output", "text"): "3.7",
    ("check_call", "text"): "3.7",
    ("Popen", "text"): "3.7",
    ("unlink", "missing_ok"): "3.8",
    ("copytree", "dirs_exist_ok"): "3.8",
    ("zip", "strict"): "3.10",
    ("ThreadingHTTPServer", "directory"): "3.7",
}


def came_with(what, version):
    return f"`{what}` came with Python {version}"


def imported(node):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] + [f"{node.module}.{alias.name}" for alias in node.names]


def too_new(node):
    """Yields what `node` needs that Python 3.6 lacks."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        for name in imported(node):
            if name == "__future__.annotations":
                yield came_with("from __future__ import annotations", "3.7")
            elif name in MODULES:
                yield came_with(name, MODULES[name])
    elif isinstance(node, ast.Attribute):
        owner = node.value.id if isinstance(node.value, ast.Name) else None
        if node.attr in ATTRIBUTES:
            yield came_with(f".{node.attr}", ATTRIBUTES[node.attr])
        elif (owner, node.attr) in FUNCTIONS:
            yield came_with(f"{owner}.{node.attr}", FUNCTIONS[owner, node.attr])
    elif isinstance(node, ast.Call):
        name = getattr(node.func, "attr", getattr(node.func, "id", None))
        if name == "breakpoint":
            yield came_with("breakpoint()", "3.7")
        for keyword in node.keywords:
            if (name, keyword.arg) in KEYWORDS:
                yield came_with(f"{name}({keyword.arg}=…)", KEYWORDS[name, keyword.arg])


def findings(source):
    try:
        tree = ast.parse(source, feature_version=(3, 6))
        compile(source, "script", "exec", dont_inherit=True)
    except SyntaxError as error:
        yield error.lineno or 1, error.msg
        return
    for node in ast.walk(tree):
        for what in too_new(node):
            yield node.lineno, what


def main(paths):
    n_found = 0
    for path in paths:
        with open(path, encoding="utf-8") as file:
            for line, what in sorted(set(findings(file.read()))):
                print(f"{path}:{line}: {what}")
                n_found += 1
    return 1 if n_found else 0


sys.exit(main(sys.argv[1:]))
