# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Builds the archive of the collection in the current directory.

Usage: python -m tools.archive DIRECTORY
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import yaml

from .links import Repository, rewritten


def build(source: Path, destination: Path) -> Path:
    """Build the archive of the collection in ``source``; returns its path."""
    destination.mkdir(parents=True, exist_ok=True)
    command = ["ansible-galaxy", "collection", "build", "--force", "--output-path", str(destination)]
    subprocess.run(command, cwd=source, check=True, stdout=subprocess.DEVNULL)
    about = metadata(source)
    return destination / f"{about['namespace']}-{about['name']}-{about['version']}.tar.gz"


def metadata(source: Path) -> dict[str, Any]:
    """What galaxy.yml says."""
    found: dict[str, Any] = yaml.safe_load((source / "galaxy.yml").read_text(encoding="utf-8"))
    return found


def members(archive: Path) -> set[str]:
    with tarfile.open(archive) as opened:
        return {each.name for each in opened.getmembers() if each.isfile()}


def main() -> None:
    (destination,) = sys.argv[1:]
    with tempfile.TemporaryDirectory() as place:
        # The first archive only tells which files are in it.
        names = members(build(Path.cwd(), Path(place, "first")))
        copy = Path(place, "collection")
        shutil.copytree(Path.cwd(), copy, symlinks=True)
        about = metadata(copy)
        repository = Repository(about["repository"], about["version"])
        for name in sorted(each for each in names if each.endswith(".md")):
            file = copy / name
            file.write_text(
                rewritten(file.read_text(encoding="utf-8"), name, names, repository), encoding="utf-8"
            )
        print(build(copy, Path(destination)))


if __name__ == "__main__":
    main()
