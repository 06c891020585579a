# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Give a mapped device another table, and restore the old one when the kernel rejects the new one.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import contextlib

from .._base.errors import BlockError, DeviceGone
from .._block import device as _device
from . import control as _control
from . import keys, suspended, udev
from .load import Table
from .standby import resume_all, standby

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Sequence


# Seconds that udev may take for the event of a restored table.
_UDEV_SECONDS = 30


def saved_table(control: _control.Control, device: _device.Device, stack: contextlib.ExitStack) -> Table:
    """
    The live Table of a held mapped device as the kernel has it, which :func:`reload` can restore; ``stack``
    holds the devices below.
    """
    address = _control.by_device(device)
    status, lines = control.table(address, secure=True)
    held = []
    for number in control.deps(address):
        with contextlib.suppress(DeviceGone):
            held.append(stack.enter_context(_device.open_number(*number)))
    return Table(
        tuple((line.start, line.length, line.type, line.params) for line in lines),
        status.read_only,
        True,
        tuple(held),
    )


def reload(
    control: _control.Control,
    device: _device.Device,
    table: Table,
    event_nr: int,
    how: suspended.Suspend = suspended.PLAIN,
) -> None:
    """
    Give a held mapped device a new table. If the kernel rejects it at resume, the old table becomes live
    again.

    A reload does not change the diskseq. ``event_nr`` (from a Cookie) goes with the resume. Raises
    KernelError, DeadlineExceeded.
    """
    address = _control.by_device(device)
    with contextlib.ExitStack() as below:
        # A new table that is accepted but fails to start has replaced the old one by then, whose devices
        # would go.
        old = saved_table(control, device, below)
        status = control.status(address)

        def keep_old(control: _control.Control, devices: Sequence[_device.Device]) -> None:
            control.clear(address)
            if not status.suspended:
                resume_all(control, devices)

        below.enter_context(standby(control, [device], keep_old))
        _load_and_suspend(control, device, table, how, status)
        try:
            control.resume(address, how.noflush, how.nolockfs, event_nr)
        except BaseException as error:
            _put_back(control, address, status, old, event_nr, error)
            raise


def _load_and_suspend(
    control: _control.Control,
    device: _device.Device,
    table: Table,
    how: suspended.Suspend,
    status: _control.MappedStatus,
) -> None:
    """Load the table into the held device and suspend it; on an error, the ``status`` is restored."""
    address = _control.by_device(device)
    with keys.reachable(table.targets):
        control.load(address, table.targets, table.read_only, table.secure)
    try:
        table.prove()
        suspended.suspend(control, device, how)
    except BaseException:
        control.clear(address)
        if not status.suspended and control.status(address).suspended:
            # The time was up just when the suspend succeeded.
            control.resume(address)
        raise


def _put_back(
    control: _control.Control,
    address: _control.Address,
    status: _control.MappedStatus,
    old: Table,
    event_nr: int,
    error: BaseException,
) -> None:
    """
    Make the Table ``old`` live again, and the device suspended if it was, after ``error`` at a resume with
    ``event_nr``.
    """
    try:
        with udev.Cookie() as cookie:
            replaced = (
                tuple(
                    (line.start, line.length, line.type, line.params)
                    for line in control.table(address, secure=True)[1]
                )
                != old.targets
            )
            if replaced:
                control.load(address, old.targets, old.read_only, secure=True)
            if replaced or not status.suspended:
                resumed = control.resume(address, event_nr=cookie.again(event_nr))
                if not resumed.uevent_generated:
                    cookie.not_sent()
            # Also before it is suspended again: udev's probers would read from it, and hang.
            cookie.wait(_UDEV_SECONDS)
            if status.suspended and not control.status(address).suspended:
                control.suspend(address, noflush=True, nolockfs=True)
        told = "The old table is live again"
    except BlockError as problem:
        told = f"The old table could not be restored, and the device is suspended: {problem.message}"
    if isinstance(error, BlockError):
        error.hint = told + (f". {error.hint}" if error.hint else "")
