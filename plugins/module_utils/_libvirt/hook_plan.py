# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What libvirt's hook has to do for the disks of a domain, by operation.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Pure. libvirt's drivers for Xen and QEMU call ``HOOK guest operation suboperation extra`` with the definition
on standard input (docs/hooks.rst). A non-zero exit code makes ``prepare``, ``start``, ``started``,
``migrate`` and ``restore`` fail. A non-zero exit code must not be used for a domain that is already running.
"""

from __future__ import annotations

from typing import NamedTuple

from .._base.errors import BlockError, DefinitionError
from .._source import recipe as _recipe
from .._xen import vdev
from . import domain_xml
from .disk_device import DiskSpec

# For each operation the action and its time limit in seconds. All other operations (start, attach ...) are
# ignored.
OF_XEN = {
    "prepare": ("make", 60),
    "started": ("hand_over", 30),
    "reconnect": ("adopt", 20),
    "stopped": ("release", 20),
    "release": ("release", 20),
}
# A migration calls the hook on the host that the guest would move to. `restore` comes before `prepare`, and
# a refusal there keeps the saved guest as it is.
OF_QEMU = {**OF_XEN, "migrate": ("refuse", 5), "restore": ("check", 20)}
# Operations that a non-zero exit code makes fail, while nothing runs yet that it could end by mistake.
REFUSABLE = ("prepare", "started", "migrate", "restore")
XEN = "xen"
# Texts in the definition of every domain that has disks of this collection. Other definitions are not parsed.
MARKS = (domain_xml.NAMESPACE, domain_xml.PATHS)


class Job(NamedTuple):
    """
    ``action`` and ``seconds``: see OF_QEMU, or ``ignore``. ``domid``: of a running domain, or None.
    ``problems``: errors of disks that were left out, as texts. ``is_xen``: whether Xen runs it, not QEMU.
    """

    action: str
    seconds: int
    domain: str
    uuid: str
    domid: int | None
    disks: list[DiskSpec]
    problems: list[str]
    is_xen: bool = True


def concerns(operation: str, text: str) -> bool:
    """Whether the hook has anything to do."""
    return operation in OF_QEMU and any(mark in text for mark in MARKS)


def job_of(operation: str, text: str) -> Job:
    """
    The Job for a definition (text). For ``make``, ``check`` and ``hand_over``, DefinitionError if the
    definition is inconsistent. The other actions handle each disk that can be read.
    """
    domain = domain_xml.Domain(text)
    is_xen = domain.type == XEN
    action, seconds = (OF_XEN if is_xen else OF_QEMU).get(operation, ("ignore", 0))
    uuid = domain_xml.check_uuid(domain.uuid)
    domid = int(domain.id) if domain.id is not None and domain.id.isdigit() else None
    job = Job(action, seconds, domain.name or uuid, uuid, domid, [], [], is_xen)
    if action in ("adopt", "release", "refuse", "ignore"):
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
            f"its path is {disk.source}, but the definition has no recipe for it",
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
    seal = _recipe.seal_of(recipe, title)
    if domain.type == XEN:
        vdev.parse(disk.target)
    elif seal.sealed:
        raise DefinitionError(
            "its recipe has sealed, which is possible only for Xen",
            device=title,
            hint="Define the disk again with racefree.block.libvirt_disk, sealed=false",
        )
    read_only = disk.read_only or disk.device == "cdrom"
    return [
        DiskSpec(
            domain.name or uuid,
            uuid,
            disk.target,
            _recipe.parse(recipe, title),
            read_only,
            disk.shareable,
            seal,
        )
    ]


_HINT = (
    "The definition was copied, or changed by hand: define the disk again with "
    "racefree.block.libvirt_disk, or remove it with state=absent"
)
