# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Find conflicts in a list of guests' disks: storage that two entries would use, or that one would remove.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Pure. An absent entry uses no storage: it may belong to another guest by now.
"""

from __future__ import annotations

from typing import Callable, Optional

from .._base.errors import InvalidValue, TableError
from .._source import named_storage, spec
from .._source.named_storage import Volume, plain
from .entry import Entry
from .pool import Pool

# Converts a path to the value that is compared; None for no path.
Key = Callable[[Optional[str]], Optional[str]]
# The label of a file's user, its entry (None for a pool), and the path.
User = tuple[str, Optional[Entry], str]

# Suffix of the record beside a snapshot store, which identifies the image of the store.
RECORD = ".image"


def check(entries: list[Entry], identities: dict[str, str] | None = None) -> None:
    """
    Raise InvalidValue for Entries (see ``_guest_disks.entry``) with the same storage, or the same name in a
    guest.

    ``identities``: for each path a text that is equal for all paths of one file, such as device and inode.
    Other paths are compared as text.
    """
    key = key_by(identities)
    _check_vdevs(entries)
    present = [entry for entry in entries if not entry.absent]
    pools = _pools_of(entries, key)
    files, writers = _check_files(present, pools, key)
    images: dict[str | None, str] = {}
    for entry in present:
        for path in _images_of(entry):
            images.setdefault(key(path), entry.label)
    _check_images(present, writers, key)
    _check_conversions(present, key)
    volumes = _check_volumes(present)
    _add_named(present, pools, key, files, volumes)
    for entry in entries:
        if entry.remove:
            _check_removed(
                entry,
                files.get(key(entry.file), images.get(key(entry.file))) if entry.thin is None else None,
                volumes,
            )


def _add_named(
    present: list[Entry],
    pools: dict[str, tuple[Pool, str]],
    key: Key,
    files: dict[str | None, str],
    volumes: dict[Volume, str],
) -> None:
    """Add the users of files and volumes that are named in sources, also by a part or inside a table."""
    named = [(entry.label, entry.source) for entry in present if entry.source is not None]
    for label, value in [*named, *((str(pool), pool.source) for pool, dummy in pools.values())]:
        try:
            paths, numbers = named_storage.of_source(spec.parse(value))
        except (InvalidValue, TableError):
            # The source is not valid: the modules refuse it before anything is removed.
            continue
        for path in paths:
            files.setdefault(key(path), label)
        for volume in numbers:
            volumes.setdefault(volume, label)


def key_by(identities: dict[str, str] | None) -> Key:
    """Return the function that converts a path to the value that is compared."""
    known = {plain(path): identity for path, identity in (identities or {}).items()}
    return lambda path: None if path is None else known.get(plain(path), plain(path))


def _check_vdevs(entries: list[Entry]) -> None:
    seen: dict[str, str] = {}
    for entry in entries:
        if entry.label in seen:
            raise InvalidValue(
                f"{entry.option}.vdev",
                entry.vdev,
                f"must be another name: {seen[entry.label]} is {entry.label} already",
            )
        seen[entry.label] = entry.option


def _pools_of(entries: list[Entry], key: Key) -> dict[str, tuple[Pool, str]]:
    """``{key: (pool, option)}``. InvalidValue if pools with the same name, UUID or device differ."""
    found: dict[str, tuple[Pool, str]] = {}
    parts: dict[str | None, str] = {}
    for entry in entries:
        if entry.thin is None:
            continue
        pool, option = entry.thin.pool, f"{entry.option}.thin.pool"
        other = found.setdefault(pool.key, (pool, option))
        if other[0].source != pool.source:
            raise InvalidValue(
                option, pool.key, f"must be the same as in {other[1]}, which has the same name or uuid"
            )
        for part in _parts_of(pool, option, key):
            if parts.setdefault(part, pool.key) != pool.key:
                raise InvalidValue(
                    option,
                    part,
                    f"must be used by one pool only: the pool {parts[part]} has this uuid or device too",
                )
    return found


def _parts_of(pool: Pool, option: str, key: Key) -> list[str | None]:
    source = pool.source
    parts = [key(source["path"])] if "path" in source else []
    for line in source.get("table", ()):
        parts += [
            key(device.get("file") or device["path"])
            for device in (line["metadata"], line["data"])
            if not device.get("offset")
        ]
    if len(set(parts)) < len(parts):
        # Metadata and data must be different devices: the kernel would refuse one device for both, too.
        raise InvalidValue(f"{option}.data", parts[0], "must be a different device from metadata")
    return [*parts, source["uuid"]]


def _check_files(
    present: list[Entry], pools: dict[str, tuple[Pool, str]], key: Key
) -> tuple[dict[str | None, str], dict[str | None, list[User]]]:
    """``{key of a path: label of its user}`` and ``{key of a path: [User that writes it]}`` of all files."""
    users: dict[str | None, list[User]] = {
        key(path): [(str(pool), None, path)]
        for pool, dummy in pools.values()
        for path, _size, _exact in pool.files
    }
    for entry in present:
        if entry.file is None:
            continue
        for other, theirs, path in users.setdefault(key(entry.file), []):
            if theirs is None or (entry.writes or theirs.writes) and not (entry.shared and theirs.shared):
                hint = "" if theirs is None else "; or set shared=true for both"
                raise InvalidValue(
                    f"{entry.option}.file",
                    entry.file,
                    f"must be a file that nothing else uses: {other} has it{_also(entry.file, path)}{hint}",
                )
        users[key(entry.file)].append((entry.label, entry, entry.file))
    _check_records(present, users)
    return {identity: rows[0][0] for identity, rows in users.items()}, {
        identity: [(label, entry, path) for label, entry, path in rows if entry is None or entry.writes]
        for identity, rows in users.items()
    }


def _check_records(present: list[Entry], users: dict[str | None, list[User]]) -> None:
    """No entry may use the record beside a snapshot's store as its file."""
    paths = {plain(path): label for rows in users.values() for label, dummy, path in rows}
    for entry in present:
        record = None if entry.image is None else plain(entry.file) + RECORD
        if record in paths:
            raise InvalidValue(
                f"{entry.option}.file",
                entry.file,
                f"must have another name: {record}, the record of the image, is used by {paths[record]}",
            )


def _check_images(present: list[Entry], writers: dict[str | None, list[User]], key: Key) -> None:
    for entry in present:
        for image in _images_of(entry):
            for other, dummy, path in writers.get(key(image), ()):
                what = f"{other} writes this file{_also(image, path)}"
                raise InvalidValue(
                    f"{entry.option}.image", image, f"must be an image that nobody writes: {what}"
                )


def _images_of(entry: Entry) -> list[str]:
    """The files that the disk only reads: its image, and what that is made from."""
    found = [] if entry.image is None else [entry.image]
    return found if entry.conversion is None else [*found, entry.conversion.path]


def _check_conversions(present: list[Entry], key: Key) -> None:
    """One golden image is made from one image, in one way."""
    seen: dict[str | None, Entry] = {}
    sources = {key(entry.conversion.path): entry for entry in present if entry.conversion is not None}
    for entry in present:
        if entry.conversion is None:
            continue
        option, golden = f"{entry.option}.image.golden", entry.conversion.golden
        other = seen.setdefault(key(golden), entry)
        if other.conversion is None or other.conversion._replace(golden=golden) != entry.conversion:
            wrong = f"must be another path: {other.label} makes it from another image, or in another way"
            raise InvalidValue(option, golden, wrong)
        if key(golden) in sources:
            wrong = f"must not be the image of {sources[key(golden)].label}"
            raise InvalidValue(option, golden, wrong)


def _also(path: str | None, other: str) -> str:
    return "" if plain(path) == plain(other) else f" as {other}"


def _check_volumes(present: list[Entry]) -> dict[Volume, str]:
    """``{(pool, id): label of its user}``, including the volumes from which snapshots are to be created."""
    users: dict[Volume, list[Entry]] = {}
    for entry in present:
        if entry.thin is None:
            continue
        others = users.setdefault((entry.thin.pool.key, entry.thin.id), [])
        for other in others:
            if (entry.writes or other.writes) and not (entry.shared and other.shared):
                used = f"{other.label} has it; or set shared=true for both"
                raise InvalidValue(
                    f"{entry.option}.thin.id",
                    entry.thin.id,
                    f"must be a volume that nothing else uses: {used}",
                )
        others.append(entry)
    labels = {volume: entries[0].label for volume, entries in users.items()}
    for entry in present:
        if entry.thin is not None and entry.thin.snapshot_of is not None:
            labels.setdefault((entry.thin.pool.key, entry.thin.snapshot_of), entry.label)
    return labels


def _check_removed(entry: Entry, user: str | None, volumes: dict[Volume, str]) -> None:
    """``user``: the label of the user of the Entry's file, or None."""
    option, what = f"{entry.option}.remove_file", entry.file
    if entry.thin is not None:
        option, what = f"{entry.option}.remove_volume", f"the volume {entry.thin.id} of {entry.thin.pool}"
        pool = entry.thin.pool
        names = [pool.key, pool.source["uuid"], plain(pool.source.get("path", f"/dev/mapper/{pool.key}"))]
        users = [volumes.get((name, entry.thin.id)) for name in names]
        user = next((label for label in users if label is not None), None)
    if user is not None:
        raise InvalidValue(option, True, f"must be false: {user} uses {what}")
