# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
A list of guests and their disks, converted to the files, snapshot stores and thin volumes to create, and the
disks to define.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Pure; runs on the controller.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._base.errors import InvalidValue
from .._base.values import SECTOR
from .._source.named_storage import plain
from . import conflicts
from .conflicts import RECORD
from .entry import Entry, Sizes, SourceData, entry_of, source_of

# Guests as the role guest_disks takes them.
Guests = list[dict[str, Any]]


def entries(guests: Guests, identities: dict[str, str] | None = None) -> list[Entry]:
    """
    [Entry] of all disks, checked one by one and against each other. InvalidValue for mistakes, such as one
    file for two disks.

    ``identities``: see :func:`_guest_disks.conflicts.check`.
    """
    if not isinstance(guests, list):
        raise InvalidValue("guests", "(not shown)", "must be a list of guests")
    found = []
    for number, guest in enumerate(guests):
        if not isinstance(guest, dict) or not guest.get("domain") or not isinstance(guest.get("disks"), list):
            raise InvalidValue(
                f"guests[{number}]", "(not shown)", "must be a dictionary with domain and a list of disks"
            )
        found += [
            entry_of(disk, guest["domain"], f"guests[{number}].disks[{index}]")
            for index, disk in enumerate(guest["disks"])
        ]
    conflicts.check(found, identities)
    return found


def files_of(guests: Guests, identities: dict[str, str] | None = None) -> list[dict[str, Any]]:
    """
    ``[{path, size, exact, image, converted, state, remove, label}]`` of all files of disks and pools. Sizes
    in bytes, or None. ``exact``: whether a larger file is refused. ``converted``: what the image is made
    from, or None. ``remove``: the paths to remove.
    """
    found, pools = [], {}
    for entry in entries(guests, identities):
        if entry.thin is not None and not entry.absent:
            pools[entry.thin.pool.key] = entry.thin.pool
        if entry.file is None:
            continue
        found.append(
            {
                "path": entry.file,
                "size": entry.size,
                "exact": True,
                "image": entry.image,
                "converted": None if entry.conversion is None else entry.conversion.path,
                "state": "absent" if entry.absent else "present",
                "remove": [entry.file, *([entry.file + RECORD] if entry.image is not None else [])]
                if entry.remove
                else [],
                "label": entry.label,
            }
        )
    for pool in pools.values():
        found += [
            {
                "path": path,
                "size": size,
                "exact": exact,
                "image": None,
                "converted": None,
                "state": "present",
                "remove": [],
                "label": str(pool),
            }
            for path, size, exact in pool.files
        ]
    return found


def to_resize(
    files: list[dict[str, Any]], sizes: Sizes, identities: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    """
    Those of :func:`files_of` that have to be created or enlarged. ``sizes``: bytes of existing files by path.
    InvalidValue if a file would become smaller.
    """
    found = []
    key = conflicts.key_by(identities)
    images = {
        key(file["image"]): file["label"]
        for file in files
        if file["image"] is not None and file["state"] == "present"
    }
    for file in files:
        there = sizes.get(file["path"])
        if file["state"] == "absent":
            continue
        _check_sizes(file, there, sizes)
        if there is None or (file["size"] or 0) > there:
            user = images.get(key(file["path"]))
            if user is not None:
                raise InvalidValue(
                    "size",
                    file["size"],
                    f"must be {there}: {file['path']} is the image of {user}, and is never changed",
                    device=file["label"],
                )
            found.append(file)
    return found


def _check_sizes(file: dict[str, Any], there: int | None, sizes: Sizes) -> None:
    """InvalidValue for a file whose size is unknown or would shrink, or whose image is missing."""
    if there is None and file["size"] is None:
        raise InvalidValue(
            "size",
            None,
            f"must be the size of {file['path']}, which does not exist yet",
            device=file["label"],
        )
    if file["exact"] and there is not None and file["size"] is not None and file["size"] < there:
        raise InvalidValue(
            "size",
            file["size"],
            f"must be {there} or more: {file['path']} is that large, and cutting it would lose data",
            device=file["label"],
        )
    if file["image"] is not None and not sizes.get(file["image"]):
        raise InvalidValue(
            "image", file["image"], "must be an existing image that is not empty", device=file["label"]
        )


def images_of(guests: Guests) -> list[dict[str, Any]]:
    """The options for ``golden_image`` of each image that has to be converted."""
    found = {
        plain(entry.conversion.golden): entry.conversion.options
        for entry in entries(guests)
        if entry.conversion is not None and not entry.absent
    }
    return list(found.values())


def stores_of(guests: Guests, sizes: Sizes | None = None) -> list[dict[str, Any]]:
    """
    The entries for ``snapshot_stores`` for all snapshots that guests must have. With ``sizes`` (bytes of
    existing images by path), those are left out whose image has yet to be converted.
    """
    # A store that guests share is one.
    found = {
        plain(entry.file): entry for entry in entries(guests) if entry.image is not None and not entry.absent
    }
    return [
        {
            "path": entry.file,
            "image": entry.image,
            "adopt": entry.adopt,
            **({"format": "raw"} if entry.conversion is not None else {}),
        }
        for entry in found.values()
        if sizes is None or entry.conversion is None or sizes.get(entry.image)
    ]


def volumes_of(guests: Guests, states: Sequence[str] = ("present", "absent")) -> list[dict[str, Any]]:
    """
    ``[{pool, volumes, label}]`` for ``thin_volumes``: the volumes that guests should have, and those to be
    removed.
    """
    pools: dict[str, dict[str, Any]] = {}
    for entry in entries(guests):
        state = "absent" if entry.absent else "present"
        if entry.thin is None or state not in states or (entry.absent and not entry.remove):
            continue
        row = pools.setdefault(
            entry.thin.pool.key,
            {"pool": entry.thin.pool.source, "volumes": [], "label": str(entry.thin.pool)},
        )
        volume = {"id": entry.thin.id, "state": state}
        if entry.thin.snapshot_of is not None and not entry.absent:
            volume["snapshot_of"] = entry.thin.snapshot_of
        if volume["id"] not in [other["id"] for other in row["volumes"]]:
            row["volumes"].append(volume)
    return list(pools.values())


def entries_of(
    guests: Guests,
    state: str,
    sizes: Sizes | None = None,
    common: dict[str, Any] | None = None,
    check_mode: bool = False,
    mtimes: Sizes | None = None,
) -> list[dict[str, Any]]:
    """
    The entries for ``libvirt_disks`` of all disks in this state. ``sizes``: bytes of files and images by
    path. ``common``: more options for every entry. ``mtimes``: modification times of images by path, in
    nanoseconds.

    With ``check_mode``, disks are left out whose file does not exist yet or has to grow, or whose image has
    yet to be converted. Otherwise
    InvalidValue for a missing file.
    """
    sizes = sizes or {}
    found = []
    for disk in entries(guests):
        if disk.absent != (state == "absent"):
            continue
        entry = {"domain": disk.domain, "vdev": disk.vdev, "state": state}
        if disk.absent:
            source = _guard_of(disk, sizes)
            # An old entry must not take the disk that came after it.
            entry.update({"source": source} if source is not None else {})
            keys: Sequence[str] = ("mode",) if source is not None else ()
        else:
            if check_mode and not _is_ready(disk, sizes):
                continue
            entry["source"] = source_of(disk, sizes, mtimes)
            keys = ("mode", "device_type", "shared")
        entry.update({key: disk.given[key] for key in keys if disk.given.get(key) is not None})
        found.append(dict(common or {}, **entry))
    return found


def _is_ready(disk: Entry, sizes: Sizes) -> bool:
    """Whether a disk can be checked before its files are created or enlarged."""
    if disk.thin is not None and any(
        (sizes.get(path) or 0) < size
        for path, size, exact in disk.thin.pool.files
        if exact or not sizes.get(path)
    ):
        return False
    if disk.file is None:
        return True
    if disk.conversion is not None and not sizes.get(disk.image):
        return False
    there = sizes.get(disk.file)
    grows = there is not None and disk.size is not None and disk.size > there
    return there is not None and not (grows and (not there or there % SECTOR))


def _guard_of(disk: Entry, sizes: Sizes) -> SourceData | None:
    """The source that an absent disk must have. None if the entry does not name one."""
    if disk.file is None:
        return source_of(disk, sizes) if disk.source is not None or disk.thin is not None else None
    if disk.image is None:
        if disk.crypt is not None and not sizes.get(disk.file) and disk.size is None:
            return {"file": disk.file}
        return source_of(disk, dict(sizes, **{disk.file: sizes.get(disk.file) or disk.size}))
    size = sizes.get(disk.image)
    if size and not size % SECTOR:
        return source_of(disk, dict(sizes, **{disk.file: None}))
    return {"file": disk.file}
