"""Renders texts for N systems by Cobbler's own templar, without its daemon.

    cobbler_render.py TEMPLATES N FOLDER

TEMPLATES is a folder of Cheetah templates that name `$name`; each is rendered for each system
and written. Cobbler does more for a system (its database, snippets); this is the least of it.
"""

import pathlib
import sys

from cobbler import templar


class Settings:
    """What templar asks for: no modules may be imported, and Cheetah is the default."""

    cheetah_import_whitelist = []
    default_template_type = "cheetah"


class Api:
    def settings(self):
        return Settings()


def main() -> None:
    templates, n_systems, folder = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    renderer = templar.Templar(Api())
    texts = {path.name: path.read_text() for path in sorted(templates.iterdir())}
    for number in range(n_systems):
        name = f"srv{number:04}"
        for file, text in texts.items():
            rendered = renderer.render_cheetah(text, {"name": name})
            (pathlib.Path(folder) / f"{name}.{file}").write_text(rendered)


if __name__ == "__main__":
    main()
