# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What libvirt's hook has to do at which moment for which disks of a domain.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Pure. libvirt's Xen driver calls ``HOOK guest operation suboperation extra`` with the definition on standard input (docs/hooks.rst). A non-zero
exit stops ``prepare``, ``start`` and ``started``; of a domain that runs already it must not be used.
"""

from __future__ import annotations

from typing import NamedTuple

from .._base.errors import BlockError, DefinitionError
from .._source import recipe as _recipe
from .._xen import vdev
from . import domain_xml
from .disk_device import DiskSpec

# Operation: what is done, and the seconds that it may take. Everything else (start, migrate, and what is to come) is none of its business.
OPERATIONS = {
    "prepare": ("make", 60),
    "started": ("hand_over", 30),
    "reconnect": ("adopt", 20),
    "stopped": ("take_back", 20),
    "release": ("take_back", 20),
}
# What is in the definition of any domain that is of interest, so that the others cost nothing.
MARKS = (domain_xml.NAMESPACE, domain_xml.PATHS)


class Job(NamedTuple):
    """``action`` and ``seconds`` of OPERATIONS; ``domid`` of a running domain, or None; ``problems``: what is wrong with disks left out, in words."""

    action: str
    seconds: int
    domain: str
    uuid: str
    domid: int | None
    disks: list[DiskSpec]
    problems: list[str]


def concerns(operation: str, text: str) -> bool:
    """Whether the hook has anything to do at all."""
    return operation in OPERATIONS and any(mark in text for mark in MARKS)


def job_of(operation: str, text: str) -> Job:
    """
    The Job for a definition (text). For ``make`` and ``hand_over`` DefinitionError when it contradicts itself; the others take each disk
    that they can read.
    """
    action, seconds = OPERATIONS[operation]
    domain = domain_xml.Domain(text)
    uuid = domain_xml.check_uuid(domain.uuid)
    domid = int(domain.id) if domain.id is not None and domain.id.isdigit() else None
    job = Job(action, seconds, domain.name or uuid, uuid, domid, [], [])
    if action in ("adopt", "take_back"):
        disks, problems = _lenient(domain, uuid)
        return job._replace(disks=disks, problems=problems)
    domain.recipes()
    return job._replace(disks=[wanted for disk in domain.disks() for wanted in _wanted(domain, uuid, disk)])


def _lenient(domain: domain_xml.Domain, uuid: str) -> tuple[list[DiskSpec], list[str]]:
    """``(disks, problems)``: what is wrong with one disk says nothing of the others."""
    found, problems = [], []
    for disk in domain.disks():
        try:
            found += _wanted(domain, uuid, disk)
        except BlockError as error:
            problems.append(str(error))
    return found, problems


def _wanted(domain: domain_xml.Domain, uuid: str, disk: domain_xml.Present) -> list[DiskSpec]:
    """A list of the DiskSpec of a disk, empty when the disk is not the collection's."""
    recipe = domain.recipe(disk.target)
    ours = disk.type == "block" and (disk.source or "").startswith(domain_xml.PATHS)
    if recipe is None and not ours:
        return []
    title = f"{disk.target} of {domain.name}"
    if recipe is None:
        raise DefinitionError(
            f"its path is {disk.source}, and there is no recipe for what is to be there",
            device=title,
            hint=_HINT,
        )
    path = domain_xml.path_of(uuid, disk.target)
    if (disk.type, disk.source) != ("block", path):
        raise DefinitionError(
            f"there is a recipe for it, but its source is {disk.source or '(none)'} instead of {path}",
            device=title,
            hint=_HINT,
        )
    vdev.parse(disk.target)
    read_only = disk.read_only or disk.device == "cdrom"
    return [
        DiskSpec(
            domain.name or uuid, uuid, disk.target, _recipe.parse(recipe, title), read_only, disk.shareable
        )
    ]


_HINT = "The definition was copied, or changed by hand: define the disk again with racefree.block.libvirt_disk, state present or absent"
