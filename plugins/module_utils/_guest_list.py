# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
A list of guests and their disks, as people write it, turned into files to have and disks to define.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Pure; runs on the controller.
"""

from __future__ import annotations

import re

from ._errors import InvalidValue

_SIZE = re.compile(r"([0-9]{1,15})\s*([KMGT]?)(?:i?B)?\Z", re.IGNORECASE)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_KEYS = ("vdev", "file", "size", "image", "chunk_size", "source", "mode", "device_type", "shared", "state", "remove_file")
_SECTOR = 512


def files_of(guests):
    """
    ``[{path, size, image, state, remove, label}]`` of all disks that are kept in a file; sizes in bytes, or None.

    Raises InvalidValue for what cannot be meant, such as one file for two disks.
    """
    found, users = [], {}
    for option, label, guest, disk in _disks(guests):
        if disk.get("file") is None:
            continue
        other = users.setdefault(disk["file"], label)
        if other != label and not disk.get("shared") and disk.get("mode", "w") == "w":
            raise InvalidValue(f"{option}.file", disk["file"], f"a file of its own: {other} has this one")
        absent = disk.get("state", "present") == "absent"
        found.append({
            "path": disk["file"], "size": None if disk.get("size") is None else bytes_of(disk["size"], f"{option}.size"), "image": disk.get("image"),
            "state": "absent" if absent else "present", "remove": bool(absent and disk.get("remove_file")), "label": label,
        })
    return found


def to_resize(files, sizes):
    """Those of :func:`files_of` that have to be made or to grow, by ``sizes``: bytes by path of what is there. Raises InvalidValue for a cut."""
    found = []
    for file in files:
        there = sizes.get(file["path"])
        if file["state"] == "absent":
            continue
        if there is None and file["size"] is None:
            raise InvalidValue("size", None, f"the size of {file['path']}, since it is to be made", device=file["label"])
        if there is not None and file["size"] is not None and file["size"] < there:
            raise InvalidValue("size", file["size"], f"{there} or more: {file['path']} is that large, and to cut it would lose data", device=file["label"])
        if file["image"] is not None and not sizes.get(file["image"]):
            raise InvalidValue("image", file["image"], "an image that is there, and not empty", device=file["label"])
        if there is None or (file["size"] or 0) > there:
            found.append(file)
    return found


def entries_of(guests, state, sizes=None, common=None):
    """
    What ``libvirt_disks`` takes for all disks in this state. ``sizes``: bytes of images by path; ``common``: more options for every entry.

    A disk whose file is not among ``sizes`` is left out: it is not there yet, which is so in check mode only.
    """
    found = []
    for option, dummy, guest, disk in _disks(guests):
        if disk.get("state", "present") != state:
            continue
        entry = {"domain": guest["domain"], "vdev": disk["vdev"], "state": state}
        if state == "present":
            if disk.get("file") is not None and disk["file"] not in sizes:
                continue
            entry["source"] = _source_of(disk, option, sizes)
            for key in ("mode", "device_type", "shared"):
                if disk.get(key) is not None:
                    entry[key] = disk[key]
        found.append(dict(common or {}, **entry))
    return found


def bytes_of(value, option="size"):
    """``10G`` and the like in bytes."""
    match = _SIZE.match(str(value))
    if isinstance(value, bool) or match is None or not int(match.group(1)):
        raise InvalidValue(option, value, "bytes, or a number with K, M, G or T (of 1024)")
    size = int(match.group(1)) * _UNITS[match.group(2).upper()]
    if size % _SECTOR:
        raise InvalidValue(option, value, f"whole sectors of {_SECTOR} bytes")
    return size


def _disks(guests):
    if not isinstance(guests, list):
        raise InvalidValue("guests", guests, "a list of guests")
    for number, guest in enumerate(guests):
        if not isinstance(guest, dict) or not guest.get("domain") or not isinstance(guest.get("disks"), list):
            raise InvalidValue(f"guests[{number}]", guest, "a dictionary with domain and a list of disks")
        for index, disk in enumerate(guest["disks"]):
            option = f"guests[{number}].disks[{index}]"
            _check(disk, option)
            yield option, f"{disk['vdev']} of {guest['domain']}", guest, disk


def _check(disk, option):
    if not isinstance(disk, dict) or not disk.get("vdev"):
        raise InvalidValue(option, disk, "a dictionary with vdev")
    for key in disk:
        if key not in _KEYS:
            raise InvalidValue(f"{option}.{key}", disk[key], f"there is no such option; there are {', '.join(_KEYS)}")
    if disk.get("state", "present") not in ("present", "absent"):
        raise InvalidValue(f"{option}.state", disk["state"], "present or absent")
    if disk.get("file") is not None and not str(disk["file"]).startswith("/"):
        raise InvalidValue(f"{option}.file", disk["file"], "an absolute path")
    if disk.get("state", "present") == "present" and (disk.get("file") is None) == (disk.get("source") is None):
        raise InvalidValue(option, disk, "either file or source")
    if disk.get("image") is not None and disk.get("file") is None:
        raise InvalidValue(f"{option}.image", disk["image"], "only with file, which keeps what differs from the image")


def _source_of(disk, option, sizes):
    if disk.get("source") is not None:
        return disk["source"]
    if disk.get("image") is None:
        return {"file": disk["file"]}
    size = sizes[disk["image"]]
    if size % _SECTOR:
        raise InvalidValue(f"{option}.image", disk["image"], f"an image of whole sectors of {_SECTOR} bytes: it has {size} bytes")
    return {"table": [{
        "start": 0, "length": size // _SECTOR, "target": "snapshot", "origin": {"file": disk["image"], "read_only": True}, "cow": {"file": disk["file"]},
        "persistence": "P", "chunk_size": int(disk.get("chunk_size") or 8),
    }]}
