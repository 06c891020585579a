# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Areas of encrypted swap for tests: their configurations, and what the kernel has of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess

from ansible_collections.racefree.block.plugins.module_utils._swap import config, program

MIB = 2**20


def configured(tmp_path, monkeypatch, usual=64 * MIB):
    """
    A generator for a fixture: a function that writes the configuration NAME.json of an area, and returns the
    path of the area's file. ``usual``: its size. At the end, the areas are stopped and the files are removed.
    """
    monkeypatch.setattr(config, "DIRECTORY", str(tmp_path / "configuration"))
    os.mkdir(config.DIRECTORY)
    names = []

    def write(name="one", size=usual, **options):
        path = str(tmp_path / f"{name}.swap")
        values = dict({"source": {"file": path}, "size": size, "priority": 5}, **options)
        with open(os.path.join(config.DIRECTORY, f"{name}.json"), "w", encoding="utf-8") as file:
            json.dump(values, file)
        names.append(name)
        return path

    yield write
    for name in names:
        program.main(["stop", name])
        with contextlib.suppress(FileNotFoundError):
            os.unlink(tmp_path / f"{name}.swap")


def swaps():
    """{path: priority} of the areas that the kernel uses."""
    with open("/proc/swaps", encoding="ascii") as file:
        return {line.split()[0]: int(line.split()[4]) for line in file.readlines()[1:]}


def table(name):
    done = subprocess.run(
        ["dmsetup", "table", "--showkeys", name], capture_output=True, text=True, check=False
    )
    return done.stdout


def loops():
    return subprocess.run(["losetup", "-a"], capture_output=True, text=True, check=True).stdout
