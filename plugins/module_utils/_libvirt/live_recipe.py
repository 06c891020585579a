# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Recipes of disks that were attached to a running domain, kept in the metadata of its active definition.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

libvirt writes the active definition to the file of a saved domain (libxlDoDomainSave in
src/libxl/libxl_driver.c). It passes that definition to the hook when the domain is restored, also after a
reboot of the host. Attaching a disk adds its path to the active definition, but no metadata.
"""

from __future__ import annotations

from .._base import locks
from .._base.deadline import Deadline
from .._base.errors import GuestError
from . import connection as _connection
from . import recipe_list
from .connection import Definition, libvirt
from .handles import Connection


def put(uri: str, running: Definition, target: str, recipe: str | None, limit: Deadline) -> None:
    """
    Set or remove (None) the recipe (text) of the disk ``target`` in the running domain. Other recipes are
    kept.

    GuestError if libvirt does not keep the recipe, or if this run of the domain has ended. DeadlineExceeded.
    """
    uuid, title = running.uuid, f"{target} of {running.name}"

    def exchange(connection: Connection) -> None:
        domain = _connection.look_up_run(connection, uuid, running.run, title)
        affects = libvirt.VIR_DOMAIN_AFFECT_LIVE
        recipes = recipe_list.put(domain, target, recipe, affects)
        if recipe_list.read(domain, affects) != recipes:
            raise GuestError("libvirt did not keep the recipe in the running definition", device=title)

    # The list is read, changed and written as a whole. This is a separate lock: the hook waits for the lock
    # for creating devices while libvirt has locked the domain, and this call waits for libvirt.
    with locks.held([locks.Lock(f"recipes {uuid}", f"the recipes of the running domain {uuid}")], limit):
        _connection.with_connection(uri, limit, title, exchange)
