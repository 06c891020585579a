# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Holders: small processes that keep devices open even if the process that opened them is killed.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

From writing a device's number to XenStore until blkback opens the device, only an open file descriptor
prevents the number from being reused. A holder has its own descriptor, and exits at its time limit, whatever
happens to other processes.
"""

from __future__ import annotations

import errno
import math
import os
import signal

from .._base.errors import KernelError

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Protocol, TypeVar

    _Held = TypeVar("_Held", bound="Holder")

    class Device(Protocol):
        """An open device (``_block.device.Device``). This package must not import that one."""

        fd: int

        @property
        def path(self) -> str: ...

        def duplicate(self) -> Device: ...

        def close(self) -> None: ...


# cd: a holder must not keep the file system of the current directory busy. The shell is replaced by sleep.
_ATTACHED = 'cd / && exec sleep "$0"'
_TOLD = 'cd / && read -r word && exec sleep "$0" < /dev/null'
_DETACHED = 'cd / && { sleep "$0" & }'


class Holder:
    """A running holder, a child of this process. Leaving the context ends it. ``pid`` is its process ID."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._is_released = False

    def __enter__(self: _Held) -> _Held:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def release(self) -> None:
        """Kill the holder. Its descriptors are closed when this returns. Can be called twice."""
        if self._is_released:
            return
        self._is_released = True
        # It is an unreaped child, so its PID cannot belong to another process.
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


class Pending(Holder):
    """A holder that exits when this process ends, until :meth:`stay` is called."""

    def __init__(self, pid: int, pipe: int) -> None:
        super().__init__(pid)
        self._pipe = pipe

    def stay(self) -> None:
        """Make the holder independent of this process, like one of :func:`hold`."""
        os.write(self._pipe, b"stay\n")
        self._close()

    def release(self) -> None:
        self._close()
        super().release()

    def _close(self) -> None:
        pipe, self._pipe = self._pipe, -1
        if pipe >= 0:
            os.close(pipe)


def hold_pending(devices: Iterable[Device], seconds: float) -> Pending:
    """
    Start a Pending holder, for callers that must record its PID before it may outlive them. Raises
    KernelError.
    """
    reader, writer = os.pipe()
    try:
        return Pending(_spawn(_TOLD, devices, seconds, reader), writer)
    except BaseException:
        os.close(writer)
        raise
    finally:
        os.close(reader)


def hold(devices: Iterable[Device], seconds: float) -> Holder:
    """
    Start a Holder that keeps the devices open until it is released, or for ``seconds``. It also survives this
    process. Raises KernelError.
    """
    return Holder(_spawn(_ATTACHED, devices, seconds))


def hold_for(devices: Iterable[Device], seconds: float) -> None:
    """
    Keep the devices open for ``seconds``, in a process that is not waited for and outlives this one. Raises
    KernelError.
    """
    dummy, status = os.waitpid(_spawn(_DETACHED, devices, seconds), 0)
    if status:
        raise KernelError(
            f"cannot start a process that holds {_names(devices)}: "
            f"/bin/sh ended with {os.waitstatus_to_exitcode(status)}"
        )


def _spawn(script: str, devices: Iterable[Device], seconds: float, standard_input: int | None = None) -> int:
    """
    Start the shell with duplicates of the devices' descriptors and no others. Returns its process ID once it
    has them.
    """
    copies = []
    try:
        try:
            for device in devices:
                copies.append(device.duplicate())
            for copy in copies:
                os.set_inheritable(copy.fd, True)
            # The holder outlives its maker, so AnsibleModule.run_command, which waits, does not serve.
            return os.posix_spawn(  # pylint: disable=ansible-bad-function
                "/bin/sh",
                ["sh", "-c", script, str(max(1, math.ceil(seconds)))],
                {"PATH": "/usr/bin:/bin"},
                file_actions=_redirections({copy.fd for copy in copies}, standard_input),
                setsid=True,
                setsigmask=(),
                setsigdef=_SIGNALS,
            )
        except OSError as error:
            raise KernelError.from_oserror(error, f"start a process that holds {_names(devices)}") from error
    finally:
        for copy in copies:
            copy.close()


# Python ignores some signals, and a child process would inherit that.
_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)


def _redirections(keep: set[int], standard_input: int | None) -> list[tuple[Any, ...]]:
    """
    Standard streams are redirected to /dev/null, because a process that reads an inherited pipe would wait
    for its end. All other descriptors are closed.
    """
    actions: list[tuple[Any, ...]] = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)
        if standard_input is None
        else (os.POSIX_SPAWN_DUP2, standard_input, 0),
        (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0),
    ]
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        if number > 2 and number not in keep and _is_inheritable(number):
            actions.append((os.POSIX_SPAWN_CLOSE, number))
    return actions


def _is_inheritable(number: int) -> bool:
    try:
        return os.get_inheritable(number)
    except OSError as error:
        # The descriptor of the directory that was listed, which is closed by now.
        if error.errno != errno.EBADF:
            raise
        return False


def _names(devices: Iterable[Device]) -> str:
    return ", ".join(device.path for device in devices)
