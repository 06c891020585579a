# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Create the directory given as argument from ``{path: text}`` on standard input, and compile the files. The
directory is created atomically.

The role runs this on the host: all files take one transfer instead of one each.
"""

from __future__ import annotations

import compileall
import json
import os
import shutil
import sys
import tempfile

PACKAGE = "racefree_block"


def unpack(texts: dict[str, str], destination: str) -> None:
    parent = os.path.dirname(destination)
    os.makedirs(parent, 0o755, exist_ok=True)
    place = tempfile.mkdtemp(prefix=".unpack-", dir=parent)
    try:
        os.chmod(place, 0o755)
        for path, text in {"__init__.py": "", **texts}.items():
            target = os.path.join(place, path)
            os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
            with open(target, "w", encoding="utf-8") as file:
                file.write(text)
        # Compiled files contain the final path, not the temporary one.
        if not compileall.compile_dir(place, quiet=1, stripdir=place, prependdir=f"{parent}/{PACKAGE}"):
            raise SystemExit("the library could not be compiled")
        os.rename(place, destination)
    except BaseException:
        shutil.rmtree(place)
        raise


if __name__ == "__main__":
    os.umask(0o022)
    unpack(json.load(sys.stdin), sys.argv[1])
