# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Source files of a checkout or of a git revision, as text."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile

HOUSE = "plugins/module_utils/"
# Directories that hold no source of the collection.
SKIPPED = ("tests/output",)


def is_source(path: str) -> bool:
    """Whether the path (relative to the checkout) is Python or YAML source."""
    return path.endswith((".py", ".yml", ".yaml"))


def from_checkout(checkout: str) -> dict[str, str]:
    """{path relative to the checkout: text} of the source files, as they are on disk."""
    found = {}
    for directory, directories, names in os.walk(checkout):
        here = os.path.relpath(directory, checkout)
        directories[:] = [
            name
            for name in directories
            if not name.startswith(".") and os.path.normpath(os.path.join(here, name)) not in SKIPPED
        ]
        for name in names:
            path = os.path.normpath(os.path.join(here, name))
            if is_source(path):
                with open(os.path.join(checkout, path), encoding="utf-8") as file:
                    found[path] = file.read()
    return found


def from_revision(checkout: str, revision: str) -> dict[str, str]:
    """The same of a git revision. Raises subprocess.CalledProcessError if git does not know it."""
    command = ["git", "-C", checkout, "archive", "--format=tar", revision]
    archive = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isfile() and is_source(member.name) else None
            if content is not None:
                found[member.name] = content.read().decode()
    return found


def house_of(sources: dict[str, str]) -> dict[str, str]:
    """{"_block/loop.py": text}: the files below plugins/module_utils, named relative to it."""
    return {
        path[len(HOUSE) :]: text
        for path, text in sources.items()
        if path.startswith(HOUSE) and path.endswith(".py")
    }
