# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Copies the files of a checkout into another directory if they changed, and removes files there that no longer
exist.

Usage: python3 stage.py CHECKOUT DESTINATION
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

# Files that ansible-test writes into its copy and needs later.
KEPT = "tests/output/"


def wanted_files(checkout):
    """The paths, relative to the checkout, of tracked files, and of untracked files that are not ignored."""
    # The checkout may belong to another user.
    command = [
        "git",
        "-c",
        f"safe.directory={checkout}",
        "-C",
        checkout,
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    paths = {os.fsdecode(path) for path in output.split(b"\0") if path}
    return {path for path in paths if os.path.lexists(os.path.join(checkout, path))}


def present_files(destination):
    """The paths, relative to the destination, of all files there."""
    found = set()
    for directory, directories, names in os.walk(destination):
        for name in names + [name for name in directories if os.path.islink(os.path.join(directory, name))]:
            found.add(os.path.relpath(os.path.join(directory, name), destination))
    return found


def is_same(source, target):
    """Whether the target has the same type, mode, size and modification time as the source."""
    try:
        there = os.lstat(target)
    except (FileNotFoundError, NotADirectoryError):
        return False
    here = os.lstat(source)
    return (here.st_mode, here.st_size, here.st_mtime_ns) == (there.st_mode, there.st_size, there.st_mtime_ns)


def remove_empty_directories(destination):
    for directory, _directories, _names in os.walk(destination, topdown=False):
        if directory != destination and not os.listdir(directory):
            os.rmdir(directory)


def main():
    checkout, destination = sys.argv[1:]
    wanted = wanted_files(checkout)
    for path in present_files(destination) - wanted:
        if not path.startswith(KEPT):
            os.unlink(os.path.join(destination, path))
    remove_empty_directories(destination)
    for path in sorted(wanted):
        source, target = os.path.join(checkout, path), os.path.join(destination, path)
        if not is_same(source, target):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            if os.path.lexists(target):
                os.unlink(target)
            shutil.copy2(source, target, follow_symlinks=False)


if __name__ == "__main__":
    main()
