# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What speaks against a new loop device over a file, unless the user said that it is meant.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Asked when a device is planned, so that check mode tells, and again just before it is made. A device that is
there already is not asked about: what a guest has written into its disk meanwhile is no reason to refuse it.
"""

from __future__ import annotations

import os

from .._base import gone
from .._base.deadline import Deadline, pauses
from .._base.errors import DeviceBusy, InvalidValue, KernelError
from .._base.record import Record
from . import device as _device
from . import image_format

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


# A target of the hotplug script has no options beside it.
_SAY_RAW = {"target": "write file:raw:/PATH"}
_SAY_OVERLAP = {
    "backing_file": "say overlap=true if two writers are meant",
    "target": "give the disk the mode w! if two writers are meant",
}
_OTHERWISE = "say overlap: true of the file if two writers are meant"
# Seconds that a device which goes with its last user has for going.
_GOING = 5


class Said(Record):
    """
    What the user said of the file; a ``_source.spec.FileSource`` has the same fields.

    ``format``: ``raw`` when the file is known to be a disk byte for byte, else None; ``overlap``: whether two
    writers are meant.
    """

    format: str | None = None
    overlap: bool = False


class Area(Record):
    """
    The part of the file that the device is to have, in bytes, ``size`` 0 for the rest; whether it is to be
    written.
    """

    offset: int = 0
    size: int = 0
    writes: bool = True

    def meets(self, status: LoopInfo) -> bool:
        """Whether a ``_block.loop.LoopInfo`` of the same file has a byte of it."""
        return (not self.size or status.offset < self.offset + self.size) and (
            not status.sizelimit or self.offset < status.offset + status.sizelimit
        )

    def overlaps(self, other: Area) -> bool:
        """Whether another Area of the same file has a byte of it."""
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
    Raise InvalidValue or DeviceBusy when there is to be no such loop device.

    ``backing``: the open file (``_block.backing.Backing``); ``area``: an Area; ``said``: a Said; ``loops``: a
    ``_block.loop_index.LoopIndex``. ``for_guest``: whether the sharing check, which knows what guests use, is made too.
    Waits up to 5 s for a device that is on its way out.
    """
    if said.format is None:
        _check_format(backing, area, option)
    if area.writes and not said.overlap:
        _check_overlap(backing, area, loops, for_guest, option)


def _check_format(backing: Backing, area: Area, option: str) -> None:
    """An area that begins later is no whole image, and its neighbours' bytes are none of its concern."""
    if area.offset:
        return
    found = format_of(backing, not area.size or area.size >= backing.size)
    if found is not None:
        raise InvalidValue(
            option,
            backing.path,
            f"is an image of the format {found}, not a disk byte for byte. "
            f"Convert it (qemu-img convert -f {found} -O raw), or "
            f"{_SAY_RAW.get(option, 'say format=raw')} if a guest wrote these bytes into a disk of its own",
        )


def format_of(backing: Backing, to_the_end: bool = True) -> str | None:
    """
    The format (``_block.image_format``) of an open file, or None for what can be raw; without ``to_the_end`` its
    last bytes are not looked at.
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
        f"{found.path} (diskseq {found.diskseq}) writes the same part of the file: it has {found.area}",
        device=backing.path,
        hint=f"Use that device, or remove it first; or {_SAY_OVERLAP.get(option, _OTHERWISE)}",
    )


def _lasting_rival(backing: Backing, area: Area, loops: LoopIndex, for_guest: bool) -> _Rival | None:
    """As :func:`_rival`, but one that is going is waited for; with ``for_guest`` it is none."""
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
    Whether a held loop device (and its ``_block.loop.LoopInfo``) goes with its last user, which is none that stands
    on it or has mounted it.
    """
    if not status.autoclear or gone.list_directory(f"{device.sysfs}/holders"):
        return False
    return not _device.is_claimed(device)


class _Rival(Record):
    """
    A device that writes what is wanted; ``is_going`` as of :func:`is_going`, ``area`` in words.
    """

    path: str
    diskseq: int
    is_going: bool
    area: str


def _rival(backing: Backing, area: Area, loops: LoopIndex) -> _Rival | None:
    """The first one that stays, else one that is going; None when nobody else writes the area."""
    going = None
    found = loops.over((backing.device, backing.inode))
    try:
        for device, status in found:
            if status.read_only or not area.meets(status):
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
