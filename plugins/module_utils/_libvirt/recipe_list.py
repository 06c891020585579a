# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Read and change the recipes in the metadata of a domain's active or inactive definition.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

All recipes of a domain are in one element, which virDomainSetMetadata replaces.
"""

from __future__ import annotations

from . import domain_xml
from .connection import libvirt
from .handles import DomainHandle


def read(domain: DomainHandle, affects: int) -> dict[str, str]:
    """
    ``{target: recipe}`` of one definition: ``affects`` is VIR_DOMAIN_AFFECT_LIVE for the active or
    VIR_DOMAIN_AFFECT_CONFIG for the inactive one.
    """
    is_inactive = affects == libvirt.VIR_DOMAIN_AFFECT_CONFIG
    flags = libvirt.VIR_DOMAIN_XML_INACTIVE if is_inactive else 0
    return domain_xml.Domain(domain.XMLDesc(flags)).recipes()


def put(domain: DomainHandle, target: str, recipe: str | None, affects: int) -> dict[str, str]:
    """
    Set or remove (None) the recipe (text) of one disk. The others are kept: the list is read directly before
    it is replaced. Returns the new list.
    """
    recipes = read(domain, affects)
    if recipes.get(target) != recipe:
        recipes.pop(target, None)
        if recipe is not None:
            recipes[target] = recipe
        domain.setMetadata(
            libvirt.VIR_DOMAIN_METADATA_ELEMENT,
            domain_xml.recipe_list(recipes),
            domain_xml.KEY,
            domain_xml.NAMESPACE,
            affects,
        )
    return recipes
