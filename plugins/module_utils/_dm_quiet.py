# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Mapped devices suspended for a moment, and resumed whatever happens.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A suspended device stops whoever uses it. So a child process stands by with the devices open and resumes them when this process is killed.
"""

from __future__ import annotations

import contextlib
import os

from . import _dm
from ._errors import BlockError, DeviceBusy


@contextlib.contextmanager
def quiet(control, devices, seconds):
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
    with _standby(control, running):
        try:
            for device in running:
                _dm.suspend(control, device, _dm.Suspend(seconds=seconds))
            yield
        finally:
            _resume(control, running)


def check(control, device):
    """DeviceBusy unless a held mapped device can be suspended and resumed without a change."""
    status = _status(control, device)
    if status.has_inactive_table:
        raise DeviceBusy(
            "it has another table loaded, which would be taken live when it is resumed", device=status.name,
            hint="Resume it with that table, or drop the table (dmsetup clear), first",
        )


def _resume(control, devices):
    """Resume those that are suspended; the first error is raised when all have been tried."""
    problem = None
    for device in devices:
        try:
            # Asked for, as a suspend that was interrupted may have been complete. No cookie and no flags: for udev this is
            # an event of no importance, and what the device's owner told it about the device stays as it is.
            if _status(control, device).suspended:
                control.resume(_dm.number_of(device))
        except BlockError as error:
            problem = problem or error
    if problem is not None:
        raise problem


@contextlib.contextmanager
def _standby(control, devices):
    reading, writing = os.pipe()
    try:
        child = os.fork()
    except BaseException:
        os.close(reading)
        os.close(writing)
        raise
    if not child:
        _stand_by(control, devices, reading, writing)
    os.close(reading)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.write(writing, b".")
        os.close(writing)
        os.waitpid(child, 0)


def _stand_by(control, devices, reading, writing):
    """In the child: wait for the parent's word, or for its end."""
    try:
        os.close(writing)
        # What kills the parent's process group shall not kill this.
        os.setsid()
        if not os.read(reading, 1):
            _resume(control, devices)
    finally:
        os._exit(0)


def _status(control, device):
    return control.status(_dm.number_of(device))
