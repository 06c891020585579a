# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
A child process that resumes suspended mapped devices when this process is killed.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A suspended device stops whoever uses it, and nothing in the kernel resumes it by itself.
"""

from __future__ import annotations

import contextlib
import os

from .._base.errors import BlockError
from . import control as _control

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import NoReturn

    from .._block.device import Device


@contextlib.contextmanager
def standby(
    control: _control.Control,
    devices: Sequence[Device],
    then: Callable[[_control.Control, Sequence[Device]], None] | None = None,
) -> Iterator[None]:
    """
    Have a child process during the block that has the held mapped ``devices`` open, too, and does ``then(control, devices)`` if this process
    ends meanwhile: :func:`resume_all` unless it is given.
    """
    reading, writing = os.pipe()
    try:
        child = os.fork()
    except BaseException:
        os.close(reading)
        os.close(writing)
        raise
    if not child:
        _stand_by(lambda: (then or resume_all)(control, devices), reading, writing)
    os.close(reading)
    try:
        yield
    finally:
        with contextlib.suppress(BrokenPipeError):
            os.write(writing, b".")
        os.close(writing)
        os.waitpid(child, 0)


def resume_all(control: _control.Control, devices: Sequence[Device]) -> None:
    """Resume those of the held mapped devices that are suspended; the first error is raised when all have been tried."""
    problem = None
    for device in devices:
        address = _control.by_number(device.id.major, device.id.minor)
        try:
            # Asked for, as a suspend that was interrupted may have been complete. No cookie and no flags: for udev this is
            # an event of no importance, and what the device's owner told it about the device stays as it is.
            if control.status(address).suspended:
                control.resume(address)
        except BlockError as error:
            problem = problem or error
    if problem is not None:
        raise problem


def _stand_by(then: Callable[[], None], reading: int, writing: int) -> NoReturn:
    """In the child: wait for the parent's word, or for its end."""
    try:
        os.close(writing)
        # What kills the parent's process group shall not kill this.
        os.setsid()
        if not os.read(reading, 1):
            then()
    finally:
        os._exit(0)
