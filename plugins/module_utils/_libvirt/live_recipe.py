# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Recipes of disks that a running domain got while it ran, kept in the metadata of its running definition.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

The definition of the run is what libvirt writes into a saved domain's file (libxlDoDomainSave in src/libxl/libxl_driver.c) and gives to the hook when
the domain is restored, after a boot of the host too. A disk that is attached brings its path there, and no metadata.
"""

from __future__ import annotations

from .._base import locks
from .._base.deadline import Deadline
from .._base.errors import GuestError
from . import connection as _connection
from . import domain_xml
from .connection import Connection, DomainHandle, libvirt


def put(uri: str, uuid: str, target: str, recipe: str | None, limit: Deadline) -> None:
    """
    Have the running domain keep this recipe (text), or none, for the disk ``target``, beside those of its other disks.

    GuestError when libvirt does not keep it, DeadlineExceeded.
    """

    def exchange(connection: Connection) -> None:
        domain = connection.lookupByUUIDString(uuid)
        recipes = _recipes(domain)
        if recipes.get(target) == recipe:
            return
        recipes.pop(target, None)
        if recipe is not None:
            recipes[target] = recipe
        domain.setMetadata(
            libvirt.VIR_DOMAIN_METADATA_ELEMENT,
            domain_xml.recipe_list(recipes),
            domain_xml.KEY,
            domain_xml.NAMESPACE,
            libvirt.VIR_DOMAIN_AFFECT_LIVE,
        )
        if _recipes(domain) != recipes:
            raise GuestError(
                "libvirt did not keep the recipe in the running definition",
                device=f"{target} of {domain.name()}",
            )

    # The list is read, changed and written whole. Not the lock for making devices: the hook waits for that while libvirt has the domain locked, which
    # this waits for.
    with locks.held([locks.Lock(f"recipes {uuid}", f"the recipes of the running domain {uuid}")], limit):
        _connection.with_connection(uri, limit, f"{target} of {uuid}", exchange)


def _recipes(domain: DomainHandle) -> dict[str, str]:
    return domain_xml.Domain(domain.XMLDesc(0)).recipes()
