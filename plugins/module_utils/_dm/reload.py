# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Replace the table of a mapped device, and restore the old one if the kernel rejects the new one.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import contextlib

from .._base.errors import BlockError, DeviceGone
from .._block import device as _device
from . import control as _control
from . import keys, suspended, udev
from .load import Table, sealed_let_in
from .standby import resume_all, standby

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Sequence


# Seconds that udev may take to process the event of a restored table.
_UDEV_SECONDS = 30


def saved_table(control: _control.Control, device: _device.Device, stack: contextlib.ExitStack) -> Table:
    """
    The live Table of a held mapped device, as the kernel has it, so that :func:`reload` can restore it.
    ``stack`` holds the devices below.
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
    Replace the table of a held mapped device. If the kernel rejects the new table on resume, the old one
    becomes live again.

    A reload does not change the diskseq. ``event_nr`` (from a Cookie) is passed to the resume. Raises
    KernelError, DeadlineExceeded.
    """
    address = _control.by_device(device)
    with contextlib.ExitStack() as below:
        # Hold the devices below. If a new table is accepted but fails to start, it has already replaced the
        # old one, whose devices could then be removed.
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
    """
    Load the table into the held device and suspend it. On an error, the device gets its old ``status`` back.
    """
    address = _control.by_device(device)
    with keys.reachable(table.targets), sealed_let_in(table):
        control.load(address, table.targets, table.read_only, table.secure)
    try:
        table.prove()
        suspended.suspend(control, device, how)
    except BaseException:
        control.clear(address)
        if not status.suspended and control.status(address).suspended:
            # The time limit expired just when the suspend succeeded.
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
    Make the Table ``old`` live again after the ``error`` of a resume with ``event_nr``. If the device was
    suspended before, suspend it again.
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
            # Wait before the device is suspended again: udev's probers would read from it, and hang.
            cookie.wait(_UDEV_SECONDS)
            if status.suspended and not control.status(address).suspended:
                control.suspend(address, noflush=True, nolockfs=True)
        told = "The old table is live again"
    except BlockError as problem:
        told = f"The old table could not be restored, and the device is suspended: {problem.message}"
    if isinstance(error, BlockError):
        error.hint = told + (f". {error.hint}" if error.hint else "")
