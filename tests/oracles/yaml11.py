"""Reads YAML files as YAML 1.1 does and prints each as a line of JSON: {"read": …}, or
{"fault": "…"}.

Refuses what DAOS's strict reader refuses (duplicate keys, tabs) and what 1.1 turns into
something else than a string, number, list or map (dates, binary).
"""

import json
import sys

import yaml


class StrictLoader(yaml.SafeLoader):
    """The safe loader of YAML 1.1, with duplicate keys refused."""


def mapping(loader, node):
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    for key, (key_node, _) in zip(keys, node.value):
        if keys.count(key) > 1:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} stands twice", key_node.start_mark
            )
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} is read as a {type(key).__name__}", key_node.start_mark
            )
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)


def read(path):
    with open(path, encoding="utf-8") as file:
        text = file.read()
    for number, line in enumerate(text.splitlines(), 1):
        if "\t" in line:
            raise ValueError(f"line {number}: a tab")
    return yaml.load(text, StrictLoader)


for path in sys.argv[1:]:
    try:
        print(json.dumps({"read": read(path)}, sort_keys=True))
    except (ValueError, TypeError, yaml.YAMLError) as error:
        print(json.dumps({"fault": " ".join(str(error).split())}))
