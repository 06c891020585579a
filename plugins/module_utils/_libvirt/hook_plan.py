# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What libvirt's hook has to do for the disks of a domain, by operation.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Pure. libvirt's Xen driver calls ``HOOK guest operation suboperation extra`` with the definition on standard
input (docs/hooks.rst). A non-zero exit code makes ``prepare``, ``start`` and ``started`` fail. A non-zero
exit code must not be used for a domain that is already running.
"""

from __future__ import annotations

from typing import NamedTuple

from .._base.errors import BlockError, DefinitionError
from .._source import recipe as _recipe
from .._xen import vdev
from . import domain_xml
from .disk_device import DiskSpec

# For each operation the action and its time limit in seconds. All other operations (start, migrate ...) are
# ignored.
OPERATIONS = {
    "prepare": ("make", 60),
    "started": ("hand_over", 30),
    "reconnect": ("adopt", 20),
    "stopped": ("release", 20),
    "release": ("release", 20),
}
# Texts in the definition of every domain that has disks of this collection. Other definitions are not parsed.
MARKS = (domain_xml.NAMESPACE, domain_xml.PATHS)


class Job(NamedTuple):
    """
    ``action`` and ``seconds``: see OPERATIONS. ``domid``: of a running domain, or None. ``problems``: errors
    of disks that were left out, as texts.
    """

    action: str
    seconds: int
    domain: str
    uuid: str
    domid: int | None
    disks: list[DiskSpec]
    problems: list[str]


def concerns(operation: str, text: str) -> bool:
    """Whether the hook has anything to do."""
    return operation in OPERATIONS and any(mark in text for mark in MARKS)


def job_of(operation: str, text: str) -> Job:
    """
    The Job for a definition (text). For ``make`` and ``hand_over``, DefinitionError if the definition is
    inconsistent. The other actions handle each disk that can be read.
    """
    action, seconds = OPERATIONS[operation]
    domain = domain_xml.Domain(text)
    uuid = domain_xml.check_uuid(domain.uuid)
    domid = int(domain.id) if domain.id is not None and domain.id.isdigit() else None
    job = Job(action, seconds, domain.name or uuid, uuid, domid, [], [])
    if action in ("adopt", "release"):
        disks, problems = _lenient(domain, uuid)
        return job._replace(disks=disks, problems=problems)
    domain.recipes()
    return job._replace(disks=[wanted for disk in domain.disks() for wanted in _wanted(domain, uuid, disk)])


def _lenient(domain: domain_xml.Domain, uuid: str) -> tuple[list[DiskSpec], list[str]]:
    """``(disks, problems)``: an error of one disk does not affect the others."""
    found, problems = [], []
    for disk in domain.disks():
        try:
            found += _wanted(domain, uuid, disk)
        except BlockError as error:
            problems.append(str(error))
    return found, problems


def _wanted(domain: domain_xml.Domain, uuid: str, disk: domain_xml.Present) -> list[DiskSpec]:
    """A list with the DiskSpec of a disk. Empty if the disk was not defined by the collection."""
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
            domain.name or uuid,
            uuid,
            disk.target,
            _recipe.parse(recipe, title),
            read_only,
            disk.shareable,
            _recipe.seal_of(recipe, title),
        )
    ]


_HINT = (
    "The definition was copied, or changed by hand: define the disk again with "
    "racefree.block.libvirt_disk, state present or absent"
)
