# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What the definitions of libvirt's domains name as storage of their disks. Pure.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from collections.abc import Iterator

from .._source import named_storage
from .._source import recipe as _recipe
from .._source.named_storage import Mention
from .connection import Definition
from .domain_xml import Domain
from .xml_edit import Element


def of_definition(definition: Definition) -> Iterator[tuple[str, bool, Mention]]:
    """
    Yield ``(target, whether the running guest has it, Mention)`` for each disk. DefinitionError for a
    definition, or a recipe in it, that cannot be read.
    """
    for text, is_live in ((definition.xml, False), (definition.live, True)):
        if text is None:
            continue
        domain = Domain(text)
        where = "as it runs" if is_live else "in its definition of libvirt"
        for target, recipe in domain.recipes().items():
            files, volumes = named_storage.of_source(_recipe.parse(recipe, f"{target} of {definition.name}"))
            yield target, is_live, Mention(f"{target} of {definition.name}, {where}", files, volumes)
        for disk in domain.disks():
            element = domain.disk_element(disk.target)
            files = [] if element is None else list(_paths_in(element))
            yield disk.target, is_live, Mention(f"{disk.target} of {definition.name}, {where}", files, [])


def _paths_in(element: Element) -> Iterator[str]:
    """The files of a disk's sources, also of those below a snapshot (backingStore, mirror, dataStore)."""
    for child in element.children:
        if child.name == "source":
            yield from (path for path in (child.get("file"), child.get("dev")) if path)
        yield from _paths_in(child)
