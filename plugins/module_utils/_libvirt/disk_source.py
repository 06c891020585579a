# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The source of a libvirt disk: read before anything is changed, and converted to the recipe that is kept.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

``_source.to_keep`` does most of it; here, the domain's definition has a say in what a file contains.
"""

from __future__ import annotations

from .._base.errors import InvalidValue
from .._source import recipe as _recipe
from .._source import to_keep
from .._source.resources import Resources
from .._source.spec import FileSource
from .._source.to_keep import SourceState
from . import domain_xml, kept_format
from .connection import Definition
from .disk_request import DiskRequest

recipe_to_define = to_keep.kept_text


def read(resources: Resources, request: DiskRequest, definition: Definition) -> SourceState:
    """Read the source of a disk to add. Raises what opening it would raise, and InvalidValue."""
    source, domains = request.source, _domains(definition)
    if source is None:
        raise AssertionError
    if isinstance(source, FileSource):
        source = kept_format.known(source, domains, request.target)
    return to_keep.read(
        resources,
        source,
        request.read_only,
        lambda source, backing: kept_format.refuse_driver(source, backing, domains),
        lambda device: kept_format.refuse_driver_of_device(device, domains),
    )


def recipe_for_run(
    state: SourceState, title: str, seal: _recipe.Seal | None = None
) -> tuple[str | None, list[str]]:
    """
    ``(recipe, warnings)`` for restoring a saved guest. The recipe is None if it could refer to another disk
    by then.
    """
    doubts = state.doubts
    try:
        recipe = _recipe.text_of(state.source, seal)
    except InvalidValue as error:
        doubts = [str(error)]
    if not doubts:
        return recipe, []
    return None, [
        f"{title}: no recipe is kept for this disk, so a saved guest cannot be restored with it: {doubts[0]}"
    ]


def _domains(definition: Definition) -> list[domain_xml.Domain]:
    return [domain_xml.parsed(text) for text in (definition.xml, definition.live) if text is not None]
