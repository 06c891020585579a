# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
State of the vbds that the hotplug script serves: one small file per vbd, in /run.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A file is written atomically before any device is made, and removed with the vbd. A leftover file does no
harm, since what the script makes goes away with its last user. The files are for administrators and for a
script that is called twice for one vbd.
"""

from __future__ import annotations

import os

from .._base import gone, run_directory
from .._base.errors import KernelError
from .._base.files import write_whole
from .._xen.vbd_key import Key

DIRECTORY = "/run/racefree-block/hotplug"


def write(key: Key, facts: dict[str, str]) -> None:
    """
    Write ``facts``, a dictionary of one-line texts, as the vbd's state, replacing its previous one. Raises
    KernelError.
    """
    text = "".join(f"{name}={value}\n" for name, value in facts.items())
    path, temporary = f"{DIRECTORY}/{_name(key)}", f"{DIRECTORY}/.{_name(key)}.{os.getpid()}"
    try:
        try:
            write_whole(path, text, temporary)
        except FileNotFoundError:
            run_directory.make(DIRECTORY)
            write_whole(path, text, temporary)
    except OSError as error:
        raise KernelError.from_oserror(
            error, "record which device the disk gets", device=temporary
        ) from error


def read(key: Key) -> dict[str, str] | None:
    """The vbd's state as a dictionary, or None if there is none."""
    try:
        with open(f"{DIRECTORY}/{_name(key)}", encoding="utf-8") as file:
            return dict(line.rstrip("\n").split("=", 1) for line in file if "=" in line)
    except FileNotFoundError:
        return None


def targets() -> list[str]:
    """
    The targets of all vbds that the script serves. KernelError if they cannot be determined.
    """
    found = []
    for name in gone.list_directory(DIRECTORY):
        domid, dash, devid = name.partition("-")
        if not dash or not domid.isdigit() or not devid.isdigit():
            continue
        key = Key(int(domid), int(devid))
        facts = read(key) if gone.exists(key.sysfs, gone.SYSFS) else None
        if facts is not None and "target" in facts:
            found.append(facts["target"])
    return found


def forget(key: Key) -> bool:
    """Remove the vbd's file and return whether there was one."""
    return _unlink(_name(key))


def reap() -> list[str]:
    """
    Remove the files of vbds that no longer exist and temporary files of killed runs; the list of removed
    names.

    The vbd is in sysfs from before the script's first call until after its last.
    """
    try:
        names = os.listdir(DIRECTORY)
    except FileNotFoundError:
        return []
    return [name for name in names if _is_stale(name) and _unlink(name)]


def _is_stale(name: str) -> bool:
    if name.startswith("."):
        return not gone.exists(f"/proc/{name.rpartition('.')[2]}")
    domid, dash, devid = name.partition("-")
    if not domid.isdigit() or not devid.isdigit():
        return bool(dash)
    return not gone.exists(Key(int(domid), int(devid)).sysfs, gone.SYSFS)


def _name(key: Key) -> str:
    return f"{key.domid}-{key.devid}"


def _unlink(name: str) -> bool:
    try:
        os.unlink(f"{DIRECTORY}/{name}")
    except FileNotFoundError:
        return False
    return True
