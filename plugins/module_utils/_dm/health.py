# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Detect mapped devices that no longer work, from the status of their targets: a snapshot with a full store, a
failed pool.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Status formats: snapshot_status in drivers/md/dm-snap.c, pool_status and thin_status in dm-thin.c,
cache_status in dm-cache-target.c.
"""

from __future__ import annotations

from .._base import gone
from .._base.errors import KernelError
from .._block import loop
from . import control as _control

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .._block.device import Device
    from .codec import TargetLine


_HINTS = {
    b"snapshot": "What was written to it is lost: remove the device, and give it a new store",
    b"snapshot-merge": "What was written to it is lost: remove the device, and give it a new store",
    b"thin-pool": "See thin_check and thin_repair, or give the pool more room",
}
# {target type: [(status words, meaning)]}, checked in this order.
_SNAPSHOT = [({b"Invalid", b"Overflow"}, "store has overflowed"), ({b"Merge failed"}, "merge has failed")]
_BROKEN = {
    b"snapshot": _SNAPSHOT,
    b"snapshot-merge": _SNAPSHOT,
    b"thin": [({b"Fail"}, "pool has failed")],
    b"cache": [({b"Fail"}, "cache has failed")],
}
_READ_ONLY = "pool is read-only"
_POOL = (
    (b"needs_check", "pool needs a check (thin_check)"),
    (b"ro", _READ_ONLY),
    (b"out_of_data_space", "pool is out of space"),
)


def problems_of(lines: Iterable[TargetLine]) -> list[tuple[bytes, str]]:
    """
    ``[(target type, problem)]`` from the status of targets (``Control.target_status``); empty if there is
    none. Pure.
    """
    found = []
    for line in lines:
        status = line.params.strip()
        if line.type == b"thin-pool":
            words = status.split()
            wrong = (
                "pool has failed"
                if words == [b"Fail"]
                else next((text for word, text in _POOL if word in words), None)
            )
        else:
            wrong = next((text for values, text in _BROKEN.get(line.type, ()) if status in values), None)
        if wrong is not None and (line.type, wrong) not in found:
            found.append((line.type, wrong))
    return found


def refuse_broken(control: _control.Control, device: Device) -> None:
    """
    Raise KernelError if the targets of a held mapped device, or of one below it, report that it cannot be
    used.
    """
    for name, kind, wrong in problems(control, device):
        raise KernelError(wrong, device=name, hint=_HINTS.get(kind))


def problems(control: _control.Control, device: Device) -> Iterator[tuple[str, bytes, str]]:
    """
    Yield ``(name, target type, problem)`` for a held mapped device and those below it. The table above keeps
    these open.
    """
    numbers, seen = [(device.id.major, device.id.minor)], set()
    while numbers:
        number = numbers.pop()
        if number in seen:
            continue
        seen.add(number)
        if gone.exists(f"/sys/dev/block/{number[0]}:{number[1]}/dm", gone.SYSFS):
            yield from _problems_at(control, _control.by_number(*number))
        numbers += loop.directly_below(*number)


def _problems_at(control: _control.Control, address: _control.Address) -> Iterator[tuple[str, bytes, str]]:
    status, lines = control.target_status(address)
    for kind, wrong in problems_of(lines):
        # A pool may be read-only intentionally.
        if wrong != _READ_ONLY or b"read_only" not in control.table(address)[1][0].params.split():
            yield status.name, kind, wrong
