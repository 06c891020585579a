# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
A child process that resumes suspended mapped devices when this process is killed.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A suspended device blocks all its users, and the kernel never resumes it by itself.
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
    During the block, a child process also has the held mapped ``devices`` open. If this process ends, the
    child calls ``then(control, devices)``, by default :func:`resume_all`.
    """
    # For errors of the child's calls. It must not read files, for they may be on a device that is suspended.
    from . import kernel_log

    del kernel_log
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
    """
    Resume those of the held mapped devices that are suspended. All are tried before the first error is
    raised.
    """
    problem = None
    for device in devices:
        address = _control.by_number(device.id.major, device.id.minor)
        try:
            # Read the status, because an interrupted suspend may have completed. Without cookie and flags,
            # udev ignores the event, and keeps the settings that the device's owner gave it.
            if control.status(address).suspended:
                control.resume(address)
        except BlockError as error:
            problem = problem or error
    if problem is not None:
        raise problem


def _stand_by(then: Callable[[], None], reading: int, writing: int) -> NoReturn:
    """In the child: wait for a byte from the parent, or for its end. Never returns."""
    try:
        os.close(writing)
        # A signal to the parent's process group must not kill this process.
        os.setsid()
        if not os.read(reading, 1):
            then()
    finally:
        os._exit(0)
