# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Suspend mapped devices: one, or several during a block.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

The origin of a snapshot must be suspended while the snapshot is created.
"""

from __future__ import annotations

import contextlib
from typing import NamedTuple

from .._base.errors import DeviceBusy
from .._process.interrupt import interrupting
from . import control as _control
from .standby import resume_all, standby

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .._block.device import Device


@contextlib.contextmanager
def quiet(control: _control.Control, devices: Sequence[Device], seconds: float) -> Iterator[None]:
    """
    Suspend held mapped devices during the block, with outstanding I/O completed and file systems frozen.
    Already suspended devices are left unchanged.

    ``seconds`` is the limit for each device; DeadlineExceeded. DeviceBusy for a device with another table
    loaded, because a resume would make that table live.
    """
    running = [device for device in devices if not _status(control, device).suspended]
    for device in running:
        check(control, device)
    if not running:
        yield
        return
    with standby(control, running):
        try:
            for device in running:
                suspend(control, device, Suspend(seconds=seconds))
            yield
        finally:
            resume_all(control, running)


def check(control: _control.Control, device: Device) -> None:
    """Raise DeviceBusy if resuming a held mapped device would change it."""
    status = _status(control, device)
    if status.has_inactive_table:
        raise DeviceBusy(
            "it has another table loaded, which would become live when it is resumed",
            device=status.name,
            hint="First resume it with that table, or drop the table (dmsetup clear)",
        )


def _status(control: _control.Control, device: Device) -> _control.MappedStatus:
    return control.status(_control.by_device(device))


class Suspend(NamedTuple):
    """
    How to suspend: ``noflush`` keeps outstanding I/O queued, ``nolockfs`` does not freeze a file system,
    ``seconds`` is the limit for outstanding I/O to complete.
    """

    noflush: bool = False
    nolockfs: bool = False
    seconds: float = 60.0


# The defaults of dmsetup.
PLAIN = Suspend()


def suspend(control: _control.Control, device: Device, how: Suspend = PLAIN) -> None:
    """
    Suspend a held mapped device. DeadlineExceeded if its I/O does not complete in time; the device is then
    left as it was. Raises KernelError.
    """
    address = _control.by_device(device)
    status = control.status(address)
    try:
        with interrupting(
            how.seconds,
            "the outstanding reads and writes to end",
            device=status.name,
            hint="What they wait for is slow, suspended or out of space. Raise timeout, or set "
            "noflush=true for a target that queues them",
        ):
            control.suspend(address, how.noflush, how.nolockfs)
    except BaseException:
        # The time limit may have expired just when the suspend succeeded. With another table loaded, a resume
        # would make that table live, so this is left to the caller.
        if not (status.suspended or status.has_inactive_table) and control.status(address).suspended:
            control.resume(address)
        raise
