# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The disk of a running guest that grows: whether another guest uses the new part, and whether the backend has
told the guest.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Sources: xen_blkif_schedule and xen_vbd_resize (drivers/block/xen-blkback/blkback.c), connect
(drivers/block/xen-blkback/xenbus.c) and blkback_changed (drivers/block/xen-blkfront.c) of Linux.

While a guest is connected, a thread of blkback for each ring compares the device's size with the size that
the guest was told. It does so after each batch of requests, and every 100 ms (LRU_INTERVAL) if there are
none. So nothing needs to wake it, and an idle guest is told, too. It writes the node sectors, and its state
again, for which the guest watches. If that transaction fails, blkback does not try again. A thread that
stopped because the guest broke the ring's protocol never tells anything. A guest that is not connected reads
the size when it connects.
"""

from __future__ import annotations

from .._base import digits
from .._base.deadline import Deadline, pauses
from .._base.errors import BlockError
from .._base.record import Record
from . import sharing as _sharing
from . import stack, vbd_nodes
from .footprint import Questions, footprint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Protocol

    from .._block.device import Device
    from .._xenstore.nodes import Nodes
    from .guest import Guest
    from .vbd_key import Key
    from .vbd_nodes import Vbd

    Number = tuple[int, int]
    Line = tuple[int, int, str, str]

    class Grows(Protocol):
        """What is needed of a ``_source.growth.Growth``."""

        size: int

        @property
        def changes(self) -> bool: ...

        def sizes(self) -> tuple[dict[str, int], dict[str, int]]: ...


_SECTOR = 512  # the unit of the node sectors
_HINT = (
    "The device itself has grown, and keeps its size. Run the task again to wait for longer. Otherwise the "
    "guest gets the size when it connects again: after its next start, or after the disk was detached and "
    "attached. See the kernel's messages (dmesg) of this host for the reason"
)


class Place(Record):
    """The disk that grows, as the sharing check identifies it. ``name``: of the disk in the guest."""

    key: Key
    guest: Guest
    name: str

    def __str__(self) -> str:
        return f"{self.name} of {self.guest}"


class Told(Record):
    """What a guest must be told: ``size`` in bytes. ``title``: the disk's name in messages."""

    key: Key
    title: str
    size: int


def guard(
    resources: stack.Resources, store: Nodes, place: Place, device: Device, writes: bool
) -> Callable[[dict[Number, list[Line]], dict[Number, int]], None]:
    """
    A function ``(tables, limits)`` that raises DeviceBusy if the guest's held device would use storage that
    another guest uses, once the devices with these numbers have these tables and size limits (bytes).
    """

    def check(tables: dict[Number, list[Line]], limits: dict[Number, int]) -> None:
        now = stack.questions(resources)
        to_be = questions_to_be(now, tables, limits)
        mine = footprint(device.id.major, device.id.minor, writes, to_be)
        with _sharing.Sharing(now) as sharing:
            sharing.check_extents(store, mine, place, device.path)
        _sharing.refuse_mounted(mine, device.path, device, now)

    return check


def questions_to_be(now: Questions, tables: dict[Number, list[Line]], limits: dict[Number, int]) -> Questions:
    """
    The Questions once the devices with these numbers have these tables and size limits (bytes). ``now``:
    those that are answered now.
    """

    def loop_of(major: int, minor: int) -> tuple[int, int, int, int] | None:
        found = now.loop_of(major, minor)
        limit = limits.get((major, minor))
        return found if found is None or limit is None else (*found[:3], limit)

    return Questions(
        lambda major, minor: tables.get((major, minor)) or now.table_of(major, minor),
        loop_of,
        now.partition_of,
        now.members_of,
        now.others_loop_of,
    )


def compare(
    store: Nodes,
    vbd: Vbd,
    device: Device,
    growth: Grows | None,
    before: dict[str, Any],
    after: dict[str, Any],
) -> bool:
    """
    Add to the settings of an attached disk what grows below it (``sizes``), and the ``size`` that the guest
    knows if that changes; all in bytes. Returns whether the guest must be told its disk's size.
    """
    size = device.size
    if growth is not None:
        if growth.changes:
            before["sizes"], after["sizes"] = growth.sizes()
        size = growth.size
    state, told = _read(store, [vbd.key])[vbd.key]
    # A guest that is not connected reads the size when it connects.
    if state != str(vbd_nodes.CONNECTED) or told in (None, size):
        return False
    before["size"], after["size"] = told, size
    return True


def wait(store: Nodes, disks: Sequence[Told], seconds: float) -> list[BlockError | None]:
    """
    Wait until the backend has told the guests the new sizes; ``seconds`` for all together. An error or None
    for each disk: DeadlineExceeded, XenStoreError.
    """
    errors: list[BlockError | None] = [None] * len(disks)
    pending, limit = dict(enumerate(disks)), Deadline(seconds)
    for pause in pauses(0.01, 0.1):
        is_late = limit.expired
        try:
            nodes = _read(store, [told.key for told in pending.values()])
        except BlockError as error:
            for index in pending:
                errors[index] = error
            return errors
        for index, told in list(pending.items()):
            state, size = nodes[told.key]
            # A guest that is not connected (any more) reads the size when it connects.
            if state != str(vbd_nodes.CONNECTED) or size == told.size:
                del pending[index]
            elif is_late:
                said = "no size" if size is None else f"{size} bytes"
                waited_for = (
                    f"the backend to tell the guest that the disk has {told.size} bytes (it has told {said})"
                )
                errors[index] = limit.exceeded(waited_for, device=told.title, hint=_HINT)
        if not pending or is_late:
            break
        limit.sleep(pause)
    return errors


def _read(store: Nodes, keys: Sequence[Key]) -> dict[Key, tuple[str | None, int | None]]:
    """``{key: (state of the backend, size in bytes that it has told)}``"""
    paths = [f"{key.backend}/{name}" for key in keys for name in ("state", "sectors")]
    values = store.read_many(paths)
    found = {}
    for key in keys:
        text = values[f"{key.backend}/sectors"] or ""
        size = int(text) * _SECTOR if digits.is_decimal(text, 19) else None
        found[key] = values[f"{key.backend}/state"], size
    return found
