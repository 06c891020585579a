# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Checks before a new loop device is created for a file, unless the user said that this is intended.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

They run when a device is planned, so that check mode reports the errors, and again just before it is created.
Existing devices are not checked: what a guest has written to its disk since is no reason to refuse the disk.
"""

from __future__ import annotations

import os

from .._base import gone
from .._base.deadline import Deadline, pauses
from .._base.errors import DeviceBusy, InvalidValue, KernelError
from .._base.record import Record
from . import bound, image_format, over_block
from . import device as _device

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from typing import Protocol

    from .backing import Backing
    from .loop import LoopInfo
    from .loop_index import LoopIndex

    class HasSaid(Protocol):
        """A :class:`Said`, or a source with the same fields."""

        @property
        def format(self) -> str | None: ...

        @property
        def overlap(self) -> bool: ...


# The target of a hotplug script has no separate options.
_SAY_RAW = {"target": "write file:raw:/PATH"}
_SAY_OVERLAP = {
    "backing": "set overlap=true if two writers are intended",
    "backing_file": "set overlap=true if two writers are intended",
    "target": "use a recipe (module xl_disk) with shared=true if two writers are intended",
}
_OTHERWISE = "set overlap: true of the file if two writers are intended"
# Seconds to wait for a device with autoclear to be detached.
_GOING = 5


class Said(Record):
    """
    What the user stated about the file. A ``_source.spec.FileSource`` has the same fields.

    ``format``: ``raw`` if the file is known to be a raw image, otherwise None; ``overlap``: whether two
    writers are intended.
    """

    format: str | None = None
    overlap: bool = False


class Area(Record):
    """
    The area of the file for the device, in bytes (``size`` 0 means to the end). ``writes``: whether it will
    be written.
    """

    offset: int = 0
    size: int = 0
    writes: bool = True

    def meets(self, status: LoopInfo) -> bool:
        """Whether a ``_block.loop.LoopInfo`` of the same file overlaps this area."""
        return (not self.size or status.offset < self.offset + self.size) and (
            not status.sizelimit or self.offset < status.offset + status.sizelimit
        )

    def overlaps(self, other: Area) -> bool:
        """Whether another Area of the same file overlaps this one."""
        return (not self.size or other.offset < self.offset + self.size) and (
            not other.size or self.offset < other.offset + other.size
        )


def check(
    backing: Backing,
    area: Area,
    said: HasSaid,
    loops: LoopIndex,
    for_guest: bool = False,
    option: str = "backing_file",
) -> None:
    """
    Raise InvalidValue or DeviceBusy if the loop device must not be created.

    ``backing``: the open file (``_block.backing.Backing``). ``for_guest``: whether the sharing check, which
    knows what guests use, runs too. Waits up to 5 s for a device that is about to be detached.
    """
    # A guest may have written anything to a block device.
    if said.format is None and backing.block is None:
        _check_format(backing, area, option)
    if area.writes and not said.overlap:
        over_block.refuse_used(backing)
        _check_overlap(backing, area, loops, for_guest, option)


def _check_format(backing: Backing, area: Area, option: str) -> None:
    """Refuse an image that is not raw. An area with an offset is not a whole image, so it is not checked."""
    if area.offset:
        return
    found = format_of(backing, not area.size or area.size >= backing.size)
    if found is not None:
        raise InvalidValue(
            option,
            backing.path,
            f"is an image of the format {found}, not a raw disk image. "
            f"Convert it {image_format.way_out(found)}, or "
            f"{_SAY_RAW.get(option, 'set format=raw')} if a guest wrote these bytes to its own disk",
        )


def format_of(backing: Backing, to_the_end: bool = True) -> str | None:
    """
    The format (``_block.image_format``) of an open file; None for a possible raw image. Without
    ``to_the_end``, the last bytes are not read. Raises KernelError.
    """
    try:
        head = os.pread(backing.fd, image_format.HEAD, 0)
        start = image_format.tail_of(backing.size)
        tail = os.pread(backing.fd, image_format.TAIL, start) if to_the_end else b""
    except OSError as error:
        raise KernelError.from_oserror(error, "read the image", device=backing.path) from error
    return image_format.format_of(head, tail, start)


def _check_overlap(backing: Backing, area: Area, loops: LoopIndex, for_guest: bool, option: str) -> None:
    found = _lasting_rival(backing, area, loops, for_guest)
    if found is None:
        return
    raise DeviceBusy(
        f"{found.path} (diskseq {found.diskseq}) writes the same part of the {backing.kind}: "
        f"it has {found.area}",
        device=backing.path,
        hint=f"Use that device, or remove it first; or {_SAY_OVERLAP.get(option, _OTHERWISE)}",
    )


def _lasting_rival(backing: Backing, area: Area, loops: LoopIndex, for_guest: bool) -> _Rival | None:
    """
    Like :func:`_rival`, but a device that is about to be detached is waited for, or ignored with
    ``for_guest``.
    """
    limit = Deadline(_GOING)
    for pause in pauses():
        found = _rival(backing, area, loops)
        if found is None or (found.is_going and for_guest):
            break
        if not found.is_going or limit.expired:
            return found
        limit.sleep(pause)
    return None


def is_going(device: _device.Device, status: LoopInfo) -> bool:
    """
    Whether a held loop device (with its ``_block.loop.LoopInfo``) has autoclear set, and no lasting user such
    as a stacked device, a loop device over it, or a mount.
    """
    if not status.autoclear or gone.list_directory(f"{device.sysfs}/holders"):
        return False
    return not _device.is_claimed(device) and device.id.rdev not in bound.over_block()


def _meets(backing: Backing, area: Area, status: LoopInfo) -> bool:
    if backing.block is None:
        return area.meets(status)
    return over_block.meets(backing, area.offset, area.size, status)


class _Rival(Record):
    """A device that writes the same area. ``is_going``: see :func:`is_going`; ``area``: a description."""

    path: str
    diskseq: int
    is_going: bool
    area: str


def _rival(backing: Backing, area: Area, loops: LoopIndex) -> _Rival | None:
    """
    The first such device that stays, or else one that is about to be detached. None if nobody else writes the
    area.
    """
    going = None
    found = loops.over((backing.device, backing.inode)) if backing.block is None else loops.over_blocks()
    try:
        for device, status in found:
            if status.read_only or not _meets(backing, area, status):
                continue
            area_of_it = f"{device.size} bytes from {status.offset} on"
            rival = _Rival(device.path, device.id.diskseq, is_going(device, status), area_of_it)
            if not rival.is_going:
                return rival
            going = rival
    finally:
        for device, dummy in found:
            device.close()
    return going
