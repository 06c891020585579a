# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
A list of guests and their disks, as people write it, turned into files to have and disks to define.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Pure; runs on the controller.
"""

from __future__ import annotations

import posixpath
import re

from . import _vdev
from ._errors import InvalidValue

_SIZE = re.compile(r"([0-9]{1,15})\s*([KMGT]?)(?:i?B)?\Z", re.IGNORECASE)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_KEYS = ("vdev", "file", "size", "image", "chunk_size", "source", "mode", "device_type", "shared", "state", "remove_file")
_SECTOR = 512
# As Ansible reads them (ansible.module_utils.parsing.convert_bool); 1 and 1.0 are True already.
_BOOLEANS = {**dict.fromkeys(("y", "yes", "on", "1", "true", "t", True), True), **dict.fromkeys(("n", "no", "off", "0", "false", "f", False), False)}


def files_of(guests):
    """
    ``[{path, size, image, state, remove, label}]`` of all disks that are kept in a file; sizes in bytes, or None.

    Raises InvalidValue for what cannot be meant, such as one file for two disks.
    """
    found = []
    for option, label, dummy, disk in _disks(guests):
        if disk.get("file") is None:
            continue
        absent = _is_absent(disk)
        found.append({
            "path": disk["file"], "size": None if disk.get("size") is None else bytes_of(disk["size"], f"{option}.size"), "image": disk.get("image"),
            "state": "absent" if absent else "present", "remove": bool(absent and disk.get("remove_file")), "label": label,
        })
    return found


def to_resize(files, sizes):
    """Those of :func:`files_of` that have to be made or to grow, by ``sizes``: bytes by path of what is there. Raises InvalidValue for a cut."""
    found = []
    images = {_plain(file["image"]): file["label"] for file in files if file["image"] is not None and file["state"] == "present"}
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
            user = images.get(_plain(file["path"]))
            if user is not None:
                raise InvalidValue("size", file["size"], f"{there}: {file['path']} is the image of {user}, and stays as it is", device=file["label"])
            found.append(file)
    return found


def entries_of(guests, state, sizes=None, common=None, check_mode=False):
    """
    What ``libvirt_disks`` takes for all disks in this state. ``sizes``: bytes of files and images by path; ``common``: more options for every entry.

    With ``check_mode`` disks are left out whose file is not there yet, or is yet to grow into one; else InvalidValue for a file that is not there.
    """
    sizes = sizes or {}
    found = []
    for option, dummy, guest, disk in _disks(guests):
        if disk.get("state", "present") != state:
            continue
        entry = {"domain": guest["domain"], "vdev": disk["vdev"], "state": state}
        if state == "absent":
            source = _guard_of(disk, option, sizes)
            # An old entry must not take the disk that came after it.
            entry.update({"source": source} if source is not None else {})
            keys = ("mode",) if source is not None else ()
        else:
            if check_mode and not _is_ready(disk, option, sizes):
                continue
            entry["source"] = _source_of(disk, option, sizes)
            keys = ("mode", "device_type", "shared")
        entry.update({key: disk[key] for key in keys if disk.get(key) is not None})
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
    """``[(option, label, guest, disk)]`` of all disks, each checked, and with one another."""
    if not isinstance(guests, list):
        raise InvalidValue("guests", guests, "a list of guests")
    found = []
    for number, guest in enumerate(guests):
        if not isinstance(guest, dict) or not guest.get("domain") or not isinstance(guest.get("disks"), list):
            raise InvalidValue(f"guests[{number}]", guest, "a dictionary with domain and a list of disks")
        for index, disk in enumerate(guest["disks"]):
            option = f"guests[{number}].disks[{index}]"
            _check(disk, option)
            booleans = {key: _boolean(disk[key], f"{option}.{key}") for key in ("shared", "remove_file") if disk.get(key) is not None}
            found.append((option, f"{_name(disk['vdev'])} of {guest['domain']}", guest, dict(disk, **booleans)))
    _check_vdevs(found)
    _check_files(found)
    return found


def _check_vdevs(disks):
    seen = {}
    for option, label, dummy, disk in disks:
        if label in seen:
            raise InvalidValue(f"{option}.vdev", disk["vdev"], f"each disk of a guest once: {seen[label]} is {label} already")
        seen[label] = option


def _check_files(disks):
    """What one entry writes or removes is no other's. An absent entry uses nothing: its file may be another guest's by now."""
    users, images = {}, {}
    present = [(option, label, disk) for option, label, dummy, disk in disks if disk.get("file") is not None and not _is_absent(disk)]
    for option, label, disk in present:
        for other, theirs in users.setdefault(_plain(disk["file"]), []):
            if (_is_writer(disk) or _is_writer(theirs)) and not (disk.get("shared") and theirs.get("shared")):
                raise InvalidValue(f"{option}.file", disk["file"], f"a file of its own: {other} has this one; or shared=true for both")
        users[_plain(disk["file"])].append((label, disk))
    for option, label, disk in present:
        if disk.get("image") is None:
            continue
        images.setdefault(_plain(disk["image"]), label)
        for other, theirs in users.get(_plain(disk["image"]), ()):
            if _is_writer(theirs):
                raise InvalidValue(f"{option}.image", disk["image"], f"an image that nobody writes: {other} writes this file")
    for option, dummy, dummy_, disk in disks:
        if disk.get("file") is None or not _is_absent(disk) or not disk.get("remove_file"):
            continue
        path = _plain(disk["file"])
        user = users[path][0][0] if path in users else images.get(path)
        if user is not None:
            raise InvalidValue(f"{option}.remove_file", True, f"false: {user} uses {disk['file']}")


def _is_absent(disk):
    return disk.get("state", "present") == "absent"


def _is_writer(disk):
    # A snapshot writes its own records, also when the guest may only read.
    return disk.get("mode", "w") == "w" or disk.get("image") is not None


def _plain(path):
    return "/" + posixpath.normpath(str(path)).lstrip("/")


def _name(vdev):
    """The one name of a disk that can be written in several ways; as it is when it is not Xen's."""
    try:
        return _vdev.parse(vdev).name
    except InvalidValue:
        return str(vdev)


def _boolean(value, option):
    key = value.lower().strip() if isinstance(value, str) else value
    if not isinstance(key, (str, int, float)) or key not in _BOOLEANS:
        raise InvalidValue(option, value, "a boolean: true or false")
    return _BOOLEANS[key]


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


def _is_ready(disk, option, sizes):
    """Whether a disk can be looked at before its file is made or has grown."""
    if disk.get("file") is None:
        return True
    there = sizes.get(disk["file"])
    grows = there is not None and disk.get("size") is not None and bytes_of(disk["size"], f"{option}.size") > there
    return there is not None and not (grows and (not there or there % _SECTOR))


def _guard_of(disk, option, sizes):
    """The source that an absent disk must have; None when the entry says nothing of it."""
    if disk.get("file") is None:
        return disk.get("source")
    size = None if disk.get("image") is None else sizes.get(disk["image"])
    if size and not size % _SECTOR:
        return _source_of(disk, option, dict(sizes, **{disk["file"]: None}))
    return {"file": disk["file"]}


def _source_of(disk, option, sizes):
    if disk.get("source") is not None:
        return disk["source"]
    if disk["file"] not in sizes:
        raise InvalidValue(f"{option}.file", disk["file"], "a file that is there")
    if disk.get("image") is None:
        return {"file": disk["file"]}
    size = sizes.get(disk["image"])
    if not size:
        raise InvalidValue(f"{option}.image", disk["image"], "an image that is there, and not empty")
    if size % _SECTOR:
        raise InvalidValue(f"{option}.image", disk["image"], f"an image of whole sectors of {_SECTOR} bytes: it has {size} bytes")
    return {"table": [{
        "start": 0, "length": size // _SECTOR, "target": "snapshot", "origin": {"file": disk["image"], "read_only": True}, "cow": {"file": disk["file"]},
        "persistence": "P", "chunk_size": int(disk.get("chunk_size") or 8),
    }]}
