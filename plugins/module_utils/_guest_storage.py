# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What one entry of a list of guests' disks writes or removes is no other's.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Pure. An absent entry uses nothing: its storage may be another guest's by now.
"""

from __future__ import annotations

import posixpath

from ._errors import InvalidValue

# Beside a snapshot's store: which image it belongs to.
RECORD = ".image"


def check(entries):
    """Raise InvalidValue for Entries (of ``_guest_entry``) that would have the same storage, or the same place in a guest."""
    _check_vdevs(entries)
    present = [entry for entry in entries if not entry.absent]
    pools = _pools_of(entries)
    files, images = _check_files(present, pools), _images_of(present)
    _check_images(present, files)
    volumes = _check_volumes(present)
    for entry in entries:
        if entry.remove:
            _check_removed(entry, files, images, volumes)


def plain(path):
    """A path in the one form in which it is compared."""
    return "/" + posixpath.normpath(str(path)).lstrip("/")


def _check_vdevs(entries):
    seen = {}
    for entry in entries:
        if entry.label in seen:
            raise InvalidValue(f"{entry.option}.vdev", entry.vdev, f"each disk of a guest once: {seen[entry.label]} is {entry.label} already")
        seen[entry.label] = entry.option


def _pools_of(entries):
    """``{key: (pool, option)}``; the same name, uuid or device is the same pool everywhere."""
    found, parts = {}, {}
    for entry in entries:
        if entry.thin is None:
            continue
        pool, option = entry.thin.pool, f"{entry.option}.thin.pool"
        other = found.setdefault(pool.key, (pool, option))
        if other[0].source != pool.source:
            raise InvalidValue(option, pool.key, f"the same as in {other[1]}, which has the same name or uuid")
        for part in _parts_of(pool, option):
            if parts.setdefault(part, pool.key) != pool.key:
                raise InvalidValue(option, part, f"a uuid and devices of its own: the pool {parts[part]} has this one")
    return found


def _parts_of(pool, option):
    source = pool.source
    parts = [plain(source["path"])] if "path" in source else []
    for line in source.get("table", ()):
        parts += [plain(device.get("file") or device["path"]) for device in (line["metadata"], line["data"]) if not device.get("offset")]
    if len(set(parts)) < len(parts):
        # Metadata and data; the kernel would refuse it, too.
        raise InvalidValue(f"{option}.data", parts[0], "another device than metadata")
    return [*parts, source["uuid"]]


def _check_files(present, pools):
    """``{path: label of who has it}`` of all that is written or made."""
    users = {}
    for pool, option in pools.values():
        for path, *dummy in pool.files:
            users[plain(path)] = [(str(pool), None)]
    for entry in present:
        if entry.file is None:
            continue
        for other, theirs in users.setdefault(plain(entry.file), []):
            if theirs is None or (entry.writes or theirs.writes) and not (entry.shared and theirs.shared):
                hint = "" if theirs is None else "; or shared=true for both"
                raise InvalidValue(f"{entry.option}.file", entry.file, f"a file of its own: {other} has this one{hint}")
        users[plain(entry.file)].append((entry.label, entry))
    for entry in present:
        record = None if entry.image is None else plain(entry.file) + RECORD
        if record in users:
            raise InvalidValue(f"{entry.option}.file", entry.file, f"another name: {record}, which tells the store's image, is of {users[record][0][0]}")
    return users


def _images_of(present):
    images = {}
    for entry in present:
        if entry.image is not None:
            images.setdefault(plain(entry.image), entry.label)
    return images


def _check_images(present, users):
    for entry in present:
        for other, theirs in users.get(plain(entry.image), ()) if entry.image is not None else ():
            if theirs is None or theirs.writes:
                raise InvalidValue(f"{entry.option}.image", entry.image, f"an image that nobody writes: {other} writes this file")


def _check_volumes(present):
    """``{(pool, id): label of who has it}``, also of those that a volume is to be made from."""
    users = {}
    for entry in present:
        if entry.thin is None:
            continue
        volume = (entry.thin.pool.key, entry.thin.id)
        other = users.get(volume)
        if other is not None and (entry.writes or other.writes) and not (entry.shared and other.shared):
            raise InvalidValue(f"{entry.option}.thin.id", entry.thin.id, f"a volume of its own: {other.label} has this one; or shared=true for both")
        users.setdefault(volume, entry)
    labels = {volume: entry.label for volume, entry in users.items()}
    for entry in present:
        if entry.thin is not None and entry.thin.snapshot_of is not None:
            labels.setdefault((entry.thin.pool.key, entry.thin.snapshot_of), entry.label)
    return labels


def _check_removed(entry, files, images, volumes):
    if entry.thin is not None:
        user = volumes.get((entry.thin.pool.key, entry.thin.id))
        if user is not None:
            raise InvalidValue(f"{entry.option}.remove_volume", True, f"false: {user} uses the volume {entry.thin.id} of {entry.thin.pool}")
        return
    path = plain(entry.file)
    user = files[path][0][0] if path in files else images.get(path)
    if user is not None:
        raise InvalidValue(f"{entry.option}.remove_file", True, f"false: {user} uses {entry.file}")
