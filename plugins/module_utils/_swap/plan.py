# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What is wrong with areas that are to be, and which of them run already, without changing anything.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import json
import os

from .._base import gone
from .._base.errors import BlockError, DefinitionError, DeviceGone, InvalidValue
from .._base.record import Record
from .._block import new_loop
from .._dm import mapped
from .._source import files, lookup, recipe, spec
from .._source.resources import Resources
from . import area, config, contents, file, running, suspended, users

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

    from .._source.below import Lower


class Plan(Record):
    """
    ``errors`` and ``warnings`` as texts. ``running``: the names of the areas that the kernel swaps to as they
    are to be. ``directories``: {name: the directory of the file that the area is on}.
    """

    errors: list[str]
    warnings: list[str]
    running: list[str]
    directories: dict[str, str]


class _Storage(Record):
    """
    What a source names now, to compare: an existing file or device, or else the text of the source. ``part``
    of a file: a ``_block.new_loop.Area``.
    """

    what: tuple[Any, ...]
    part: new_loop.Area

    def meets(self, other: _Storage) -> bool:
        return self.what == other.what and self.part.overlaps(other.part)


def plan(text: str) -> Plan:
    """
    The Plan for ``{"areas": {name: configuration}, "removed": [name]}`` as JSON. Raises BlockError if it
    cannot be told what is there.
    """
    try:
        given = json.loads(text)
        areas, removed = dict(given["areas"]), list(given["removed"])
    except (ValueError, TypeError, KeyError) as error:
        raise DefinitionError(f"the areas cannot be read: {error}", hint="Apply the role again") from error
    found = Plan([], [], [], {})
    with Resources() as resources:
        wanted = {name: _config(found.errors, name, values) for name, values in areas.items()}
        valid = {name: one for name, one in wanted.items() if one is not None}
        for name, one in valid.items():
            source = one.parsed()
            if isinstance(source, spec.FileSource):
                found.directories[name] = os.path.dirname(source.file)
        _compare(resources, found, valid, [*areas, *removed])
        ours = _devices_of(resources, [config.identity(name) for name in removed])
        for name, one in valid.items():
            _try(found.errors, name, _look, resources, found, one, ours)
        found.warnings.extend(resources.warnings)
    return found


def _try(errors: list[str], name: str, function: Any, *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except BlockError as error:
        errors.append(f"{name}: {error}")
        return None


def _config(errors: list[str], name: str, values: Any) -> config.Config | None:
    found: config.Config | None = _try(errors, name, _checked, name, values)
    return found


def _checked(name: str, values: Any) -> config.Config:
    config.check_name(name)
    found = config.of_values(name, values)
    # Another device after the next boot would be overwritten then.
    recipe.check(found.parsed())
    return found


def _compare(
    resources: Resources, found: Plan, valid: dict[str, config.Config], listed: Collection[str]
) -> None:
    """
    Add an error for each two areas on the same storage. Areas that are not ``listed`` stay on the host, so
    they count, too.
    """
    everything = dict(valid)
    for name in config.names():
        if name not in listed:
            try:
                everything[name] = config.read(name)
            except InvalidValue as error:
                found.warnings.append(f"{name}: this area is not in the list, and cannot start: {error}")
    known: dict[str, _Storage] = {}
    for name, one in everything.items():
        storage = _try(found.errors, name, _storage_of, resources, one.parsed())
        if storage is None:
            continue
        for other, there in known.items():
            if storage.meets(there):
                found.errors.append(
                    f"{other} and {name}: both areas are on {one.parsed()}, and each would overwrite what is "
                    "swapped out to the other one: give each its own, or set state: absent for one of them"
                )
        known[name] = storage


def _storage_of(resources: Resources, source: Lower) -> _Storage:
    whole = new_loop.Area()
    if isinstance(source, spec.FileSource):
        if not gone.exists(source.file):
            path = resources.loops.real(source.file)
            return _Storage(("path", path), new_loop.Area(source.offset, source.size))
        with files.backing_of(source, read_only=True) as backing:
            return _Storage(("file", backing.device, backing.inode), file.part_of(source, backing))
    text = "source", recipe.text_of(source)
    try:
        device = lookup.find(source, resources)
    except DeviceGone:
        device = None
    if device is None:
        return _Storage(text, whole)
    with device:
        return _Storage(("device", device.id), whole)


def _devices_of(resources: Resources, identities: list[tuple[str, str]]) -> set[str]:
    """The kernel's names of the mapped devices with these names and UUIDs."""
    names = set()
    for name, uuid in identities:
        found = mapped.find(resources.dm, name, uuid)
        if found is not None and found.device is not None:
            with found.device as device:
                if (found.status.name, found.status.uuid) == (name, uuid):
                    names.add(device.name)
    return names


def _look(resources: Resources, found: Plan, wanted: config.Config, removed: set[str]) -> None:
    """Raise what starting the area would raise, as far as that is known before."""
    source = wanted.parsed()
    own = running.find(resources, wanted.name)
    ours = set(removed)
    if own is not None and own.device is not None:
        device = resources.enter_context(own.device)
        ours.add(device.name)
        priority = area.priority_of(device.id.major, device.id.minor)
        if priority is not None and not running.differences(resources, device, priority, wanted):
            found.running.append(wanted.name)
            _warn(resources, source)
            return
    if isinstance(source, spec.FileSource):
        file.check(resources, source, wanted, ours)
        return
    storage = lookup.find(source, resources)
    if storage is not None:
        with storage:
            name = wanted.place(storage)
            users.refuse_device(storage, name, ours)
            suspended.refuse(storage, name)
            if not wanted.overwrite:
                contents.refuse(storage.fd, name)
    _warn(resources, source)


def _warn(resources: Resources, source: Lower) -> None:
    """Warn about a path that can lead to another device after the next boot."""
    if not isinstance(source, spec.PathSource):
        return
    try:
        found = lookup.find(source, resources)
    except DeviceGone:
        return
    if found is not None:
        with found:
            doubt = recipe.doubt(source.path, mapped.is_mapped(found), source.uuid)
            if doubt:
                resources.warn(doubt)
