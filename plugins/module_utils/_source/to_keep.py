# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Read a source that is to be kept as a recipe: the form to keep, and why it may be another disk after the next
boot.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

The source is opened when the guest starts, but it must already exist when the recipe is written.
"""

from __future__ import annotations

from .._base.errors import InvalidValue
from .._base.record import Record
from .._block import trusted_path
from .._block.device import Device
from .._dm import control, mapped
from . import files, lookup, spec
from . import recipe as _recipe
from . import slots as _slots
from .spec import FileSource, PathSource, TableSource

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from typing import Callable

    from .._block.backing import Backing
    from .resources import Resources
    from .spec import Source

    OfFile = Callable[[FileSource, Backing], None]
    OfDevice = Callable[[Device], None]


class SourceState(Record):
    """
    A source that was read. ``source``: the form to keep. ``device``: the existing device that it names, held
    by the resources. ``doubts``: why the recipe may refer to another device after the next boot, as texts.
    """

    source: Source
    device: Device | None
    doubts: list[str]


def read(
    resources: Resources,
    source: Source,
    read_only: bool,
    of_file: OfFile = lambda source, backing: None,
    of_device: OfDevice = lambda device: None,
) -> SourceState:
    """
    Read the source of a disk to add. ``read_only``: whether the guest only reads it. ``of_file(source,
    backing)`` and ``of_device(device)`` raise an error for what must not be used.

    Raises what opening the source would raise, and InvalidValue.
    """
    resources.for_guests = True
    if isinstance(source, FileSource):
        return SourceState(_read_file(resources, source, of_file), None, [])
    if isinstance(source, TableSource):
        return SourceState(source, None, _doubts_of_table(resources, source))
    return _read_device(resources, source, read_only, of_device)


def kept_text(state: SourceState, title: str, seal: _recipe.Seal | None = None) -> tuple[str, list[str]]:
    """``(text of the recipe, warnings)``. InvalidValue if the source cannot be kept."""
    warnings = list(state.doubts)
    if _recipe.boot_of(state.source):
        warnings.append(
            f"{title}: the guest cannot start with this disk after the host's next boot: "
            "its disk sequence number is valid for the current boot only"
        )
    return _recipe.text_of(state.source, seal), warnings


def is_kept(kept: Source, source: Source) -> bool:
    """Whether the recipe equals the one that would have been kept for the source."""
    if isinstance(source, PathSource) and isinstance(kept, PathSource) and source.uuid is None:
        # The UUID found at that time is kept, even if only the path was given.
        source = source._replace(uuid=kept.uuid)
    elif isinstance(source, FileSource) and isinstance(kept, FileSource):
        source = source._replace(read_only=kept.read_only)
    return _recipe.without_guards(kept) == _recipe.without_guards(source)


def known_raw(source: Source, kept: Source | None) -> Source:
    """The source, with ``format=raw`` if the earlier recipe ``kept`` has it for the same storage."""
    if not isinstance(source, FileSource) or not isinstance(kept, FileSource) or source.format is not None:
        return source
    is_same = all(getattr(kept, key) == getattr(source, key) for key in ("file", "offset", "partition"))
    return source._replace(format=kept.format) if is_same else source


def _read_file(resources: Resources, source: FileSource, of_file: OfFile) -> FileSource:
    trusted_path.check(source.file, source.trusted_path, resources.warn, "source.file")
    with files.backing_of(source) as backing:
        of_file(source, backing)
        # Whether others write the file is checked when the guest starts.
        files.check_new(source._replace(overlap=True), backing, resources)
    # From now on the guest writes the file, so its content does not show its format.
    return source._replace(format="raw")


def _read_device(resources: Resources, source: Source, read_only: bool, of_device: OfDevice) -> SourceState:
    found = lookup.find(source, resources)
    # Only a file or a table can have no device yet.
    if found is None:
        raise AssertionError
    device = resources.enter_context(found)
    if device.read_only and not read_only:
        raise InvalidValue(
            "mode", "w", f"{device.path} is read-only, so the guest can have it only with mode=r"
        )
    of_device(device)
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
