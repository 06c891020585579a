# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Mapped devices suspended for a moment, and resumed whatever happens.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

The origin of a snapshot has to be suspended while the snapshot is made.
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
    Have held mapped devices suspended in the block, their I/O ended and file systems on them frozen; those that are suspended already are let be.

    ``seconds`` is the limit for each; DeadlineExceeded. DeviceBusy for a device with another table loaded, which its resume would take live.
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
    """DeviceBusy unless a held mapped device can be suspended and resumed without a change."""
    status = _status(control, device)
    if status.has_inactive_table:
        raise DeviceBusy(
            "it has another table loaded, which would be taken live when it is resumed",
            device=status.name,
            hint="Resume it with that table, or drop the table (dmsetup clear), first",
        )


def _status(control: _control.Control, device: Device) -> _control.MappedStatus:
    return control.status(_control.by_device(device))


class Suspend(NamedTuple):
    """
    How to suspend: ``noflush`` keeps outstanding I/O queued, ``nolockfs`` leaves a file system on it as it is, ``seconds`` is the limit
    for the I/O to end.
    """

    noflush: bool = False
    nolockfs: bool = False
    seconds: float = 60.0


# Suspended as dmsetup does it by default.
PLAIN = Suspend()


def suspend(control: _control.Control, device: Device, how: Suspend = PLAIN) -> None:
    """Suspend a held mapped device; DeadlineExceeded, and the device as it was, when its I/O does not end in time."""
    address = _control.by_device(device)
    status = control.status(address)
    try:
        with interrupting(
            how.seconds,
            "the outstanding reads and writes to end",
            device=status.name,
            hint="What they wait for is slow, suspended or out of space. Raise timeout, or say noflush=true for a target that keeps them",
        ):
            control.suspend(address, how.noflush, how.nolockfs)
    except BaseException:
        # The time was up just when it was done. Another table would be taken live by a resume: that is the caller's to decide.
        if not (status.suspended or status.has_inactive_table) and control.status(address).suspended:
            control.resume(address)
        raise
