"""Validates TOML files against a JSON Schema: json_schema.py SCHEMA FILE...

Prints `FILE: PLACE: what`, and exits 1 if there was anything to print. The schema itself is
checked first, against the draft that it names.
"""

import json
import sys
import tomllib

import jsonschema


def main(schema_path, paths):
    with open(schema_path, encoding="utf-8") as file:
        schema = json.load(file)
    validator_class = jsonschema.validators.validator_for(schema)
    try:
        validator_class.check_schema(schema)
    except jsonschema.SchemaError as error:
        print(f"{schema_path}: {error.json_path}: {error.message}")
        return 1
    validator = validator_class(schema)
    n_found = 0
    for path in paths:
        with open(path, "rb") as file:
            document = tomllib.load(file)
        for error in sorted(validator.iter_errors(document), key=lambda error: error.json_path):
            print(f"{path}: {error.json_path}: {error.message}")
            n_found += 1
    return 1 if n_found else 0


sys.exit(main(sys.argv[1], sys.argv[2:]))
