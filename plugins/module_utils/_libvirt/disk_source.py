# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The source of a libvirt disk: read before anything is changed, and converted to the recipe that is kept.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

The source is opened when the guest starts, but it must already exist when the recipe is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .._base.errors import InvalidValue
from .._block import trusted_path
from .._block.device import Device
from .._dm import control, mapped
from .._source import files, lookup, spec
from .._source import recipe as _recipe
from .._source import slots as _slots
from .._source.resources import Resources
from .._source.spec import FileSource, PathSource, TableSource
from . import domain_xml, kept_format
from .connection import Definition
from .disk_request import DiskRequest

if TYPE_CHECKING:
    from .._source.spec import Source


class SourceState(NamedTuple):
    """
    A source that was read. ``source``: the form to keep. ``device``: the existing device that it names, held
    by the resources. ``doubts``: why the recipe may refer to another device after the next boot, as texts.
    """

    source: Source
    device: Device | None
    doubts: list[str]


def read(resources: Resources, request: DiskRequest, definition: Definition) -> SourceState:
    """Read the source of a disk to add. Raises what opening it would raise, and InvalidValue."""
    resources.for_guests = True
    source = request.source
    if source is None:
        raise AssertionError
    if isinstance(source, FileSource):
        return SourceState(_read_file(resources, source, request, definition), None, [])
    if isinstance(source, TableSource):
        return SourceState(source, None, _doubts_of_table(resources, source))
    return _read_device(resources, source, request, definition)


def recipe_to_define(state: SourceState, title: str) -> tuple[str, list[str]]:
    """``(recipe, warnings)`` for the inactive definition. InvalidValue if the source cannot be kept."""
    warnings = list(state.doubts)
    if _recipe.boot_of(state.source):
        warnings.append(
            f"{title}: the guest cannot start with this disk after the host's next boot: "
            "its disk sequence number is valid for the current boot only"
        )
    return _recipe.text_of(state.source), warnings


def recipe_for_run(state: SourceState, title: str) -> tuple[str | None, list[str]]:
    """
    ``(recipe, warnings)`` for restoring a saved guest. The recipe is None if it could refer to another disk
    by then.
    """
    doubts = state.doubts
    try:
        recipe = _recipe.text_of(state.source)
    except InvalidValue as error:
        doubts = [str(error)]
    if not doubts:
        return recipe, []
    return None, [
        f"{title}: no recipe is kept for this disk, so a saved guest cannot be restored with it: {doubts[0]}"
    ]


def _domains(definition: Definition) -> list[domain_xml.Domain]:
    return [domain_xml.Domain(text) for text in (definition.xml, definition.live) if text is not None]


def _read_file(
    resources: Resources, source: FileSource, request: DiskRequest, definition: Definition
) -> FileSource:
    domains = _domains(definition)
    source = kept_format.known(source, domains, request.target)
    trusted_path.check(source.file, source.trusted_path, resources.warn, "source.file")
    with files.backing_of(source) as backing:
        kept_format.refuse_driver(source, backing, domains)
        # Whether others write the file is checked when the guest starts.
        files.check_new(source._replace(overlap=True), backing, resources)
    # From now on the guest writes the file, so its content does not show its format.
    return source._replace(format="raw")


def _read_device(
    resources: Resources, source: Source, request: DiskRequest, definition: Definition
) -> SourceState:
    found = lookup.find(source, resources)
    # Only a file or a table can have no device yet.
    if found is None:
        raise AssertionError
    device = resources.enter_context(found)
    if device.read_only and not request.read_only:
        raise InvalidValue(
            "mode", "w", f"{device.path} is read-only, so the guest can have it only with mode=r"
        )
    kept_format.refuse_driver_of_device(device, _domains(definition))
    if not isinstance(source, PathSource):
        return SourceState(source, device, [])
    uuid, is_mapped = source.uuid, mapped.is_mapped(device)
    if uuid is None and is_mapped:
        # At the next start another device may have this name. The UUID, kept with the path, detects that.
        uuid = resources.dm.status(control.by_device(device)).uuid or None
    doubt = _recipe.doubt(source.path, is_mapped, uuid)
    return SourceState(source._replace(uuid=uuid), device, [doubt] if doubt else [])


def _doubts_of_table(resources: Resources, source: TableSource) -> list[str]:
    slots = _slots.Slots(resources)
    table = slots.look(source.table, source.read_only).written
    doubts: list[str] = []
    for dummy, slot in table.devices(source.read_only):
        below, device = spec.parse_slot(slot), slots.device(slot)
        if device is not None and isinstance(below, PathSource):
            doubt = _recipe.doubt(below.path, mapped.is_mapped(device), below.uuid)
            if doubt and doubt not in doubts:
                doubts.append(doubt)
    return doubts
