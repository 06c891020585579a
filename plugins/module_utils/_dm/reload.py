# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Replace the table of a mapped device, and restore the old one if the kernel rejects the new one.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import contextlib

from .._base import locks
from .._base.deadline import Deadline
from .._base.errors import BlockError, DeviceBusy, DeviceGone
from .._block import device as _device
from . import control as _control
from . import keys, recognize, suspended, udev
from .load import Table, sealed_let_in
from .standby import resume_all, standby

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .codec import TargetLine


# Seconds that udev may take to process the event of a restored table.
_UDEV_SECONDS = 30
# Seconds that the child of a killed run waits for another run. Users of the device wait meanwhile.
_STANDBY_SECONDS = 5


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
    return Table(recognize.targets_of(lines), status.read_only, True, tuple(held))


def reload(
    control: _control.Control,
    device: _device.Device,
    table: Table,
    cookie: udev.Cookie,
    flags: int = 0,
    how: suspended.Suspend = suspended.PLAIN,
    left: list[str] | None = None,
) -> None:
    """
    Replace the table of a held mapped device. If the kernel rejects the new table on resume, the old one
    becomes live again. A reload does not change the diskseq.

    ``flags`` (of ``_dm.udev``) are sent with the udev event, which ``cookie`` counts. If this fails and the
    device is not as it was, what is different is added to ``left``, as texts. Raises KernelError,
    DeadlineExceeded; DeviceBusy if another program dropped or replaced the new table before it was live.
    """
    with contextlib.ExitStack() as below:
        # Hold the devices below. If a new table is accepted but fails to start, it has already replaced the
        # old one, whose devices could then be removed.
        old = saved_table(control, device, below)
        run = _Reload(control, device, table, old, [] if left is None else left)
        below.enter_context(standby(control, [device], run.keep_old))
        # First, because nothing may fail while the device is suspended.
        event_nr = cookie.next(flags)
        try:
            run.load_and_suspend(how)
        except BaseException:
            cookie.not_sent()
            raise
        run.resume(cookie, event_nr, flags, how)


class _Reload:
    """The reload of a held device from the Table ``old`` to ``new``. ``left``: as for :func:`reload`."""

    def __init__(
        self, control: _control.Control, device: _device.Device, new: Table, old: Table, left: list[str]
    ) -> None:
        self._control = control
        self._device = device
        self._address = _control.by_device(device)
        self._new = new
        self._old = old
        self._left = left
        self._before = control.status(self._address)
        # In the child that stands by, the disk with the programs may be suspended.
        recognize.prepare(new.targets)

    def keep_old(self, control: _control.Control, devices: Sequence[_device.Device]) -> None:
        """
        In the child that stands by: drop the new table, and resume the device, unless it was suspended.

        This may happen late, when another run has loaded a table. Runs exclude each other by locks, which
        this child takes, and a table that is another one is not dropped. What remains: another program that
        takes no locks may load a table after this has looked, or one with the same content; and so may a run
        that has the locks for longer than the child waits. A run sees that after its resume.
        """
        with _locked(self._before):
            self._drop_new_surely()
            if not self._before.suspended:
                # If another program has loaded a table meanwhile, that becomes live. Nothing else would end
                # the suspension.
                resume_all(control, devices)

    def load_and_suspend(self, how: suspended.Suspend) -> None:
        """Load the new table and suspend the device. On an error, the device is as before."""
        control, address, new = self._control, self._address, self._new
        with keys.reachable(new.targets), sealed_let_in(new):
            control.load(address, new.targets, new.read_only, new.secure)
        try:
            new.prove()
            suspended.suspend(control, self._device, how)
        except BaseException as error:
            self._undo_load(error)
            raise

    def resume(self, cookie: udev.Cookie, event_nr: int, flags: int, how: suspended.Suspend) -> None:
        """Make the new table live, and see that it is. On an error, the old one is live again."""
        try:
            resumed = self._control.resume(self._address, how.noflush, how.nolockfs, event_nr)
        except BaseException as error:
            self._put_back(flags, error)
            cookie.not_sent()
            raise
        if not resumed.uevent_generated:
            # Another program has resumed it already.
            cookie.not_sent()
        self._see(cookie)

    def _undo_load(self, error: BaseException) -> None:
        """After the ``error``, drop the new table, and resume the device unless it was suspended."""
        try:
            self._drop_new_surely()
            if not self._before.suspended and self._control.status(self._address).suspended:
                # The time limit expired just when the suspend succeeded.
                self._control.resume(self._address)
        except BlockError as problem:
            _add_hint(error, self._what_remains(problem))

    def _drop_new_surely(self) -> None:
        """
        Like :meth:`_drop_new`. If it cannot be seen whose the inactive table is, it is dropped: the new one
        may be over a wrong device, and must not become live.
        """
        try:
            self._drop_new()
        except BlockError:
            self._control.clear(self._address)

    def _drop_new(self) -> None:
        """Drop the inactive table, unless another program has replaced it."""
        status, lines = self._control.table(self._address, inactive=True, secure=True)
        if status.has_inactive_table and recognize.is_table(lines, self._new.targets):
            self._control.clear(self._address)

    def _see(self, cookie: udev.Cookie) -> None:
        """Raise DeviceBusy unless the new table is live. A device that was suspended is suspended then."""
        try:
            status, lines = self._control.table(self._address, secure=True)
        except BlockError:
            self._left.append(f"the mapped device {self._before.name} may have the new table")
            raise
        has_old = self._is_old(status, lines)
        if recognize.is_table(lines, self._new.targets) and (
            status.read_only == self._new.read_only or not has_old
        ):
            return
        if not has_old:
            self._left.append(f"the mapped device {status.name} has a table of another program")
        if self._before.suspended:
            cookie.wait(_UDEV_SECONDS)
            self._suspend_again()
        if has_old:
            raise DeviceBusy(
                "another program dropped the new table before it was live; the old table is live",
                device=status.name,
                hint="Find out what else changes the device, for example with dmsetup clear, then try again",
            )
        raise DeviceBusy(
            "another program replaced the new table, and its own table is live",
            device=status.name,
            hint="Find out what else changes the device, for example with dmsetup load. "
            "racefree.block.device_info shows the table",
        )

    def _is_old(self, status: _control.MappedStatus, lines: Sequence[TargetLine]) -> bool:
        return (recognize.targets_of(lines), status.read_only) == (self._old.targets, self._old.read_only)

    def _put_back(self, flags: int, error: BaseException) -> None:
        """Make the old table live again after the ``error`` of a resume, whose hint tells what is live."""
        try:
            self._restore(flags)
            told = "The old table is live again"
        except BaseException as problem:
            told = self._what_remains(problem)
            if not isinstance(problem, BlockError):
                raise
        _add_hint(error, told)

    def _restore(self, flags: int) -> None:
        control, address, old = self._control, self._address, self._old
        with contextlib.ExitStack() as stack:
            cookie = udev.Cookie()
            with contextlib.suppress(BlockError):
                # Without a semaphore, udev's event is not waited for.
                stack.enter_context(cookie)
            is_replaced = not self._is_old(*control.table(address, secure=True))
            if is_replaced:
                # The new table was loaded with other devices and keys.
                with keys.reachable(old.targets), sealed_let_in(old):
                    control.load(address, old.targets, old.read_only, secure=True)
            else:
                # If the kernel did not even begin, the new table is still loaded, and the next resume would
                # make it live.
                self._drop_new_surely()
            if is_replaced or not self._before.suspended:
                resumed = control.resume(address, event_nr=cookie.next(flags))
                if not resumed.uevent_generated:
                    cookie.not_sent()
            # Wait before the device is suspended again: udev's probers would read from it, and hang.
            cookie.wait(_UDEV_SECONDS)
            self._suspend_again()

    def _suspend_again(self) -> None:
        if self._before.suspended and not self._control.status(self._address).suspended:
            self._control.suspend(self._address, noflush=True, nolockfs=True)

    def _what_remains(self, problem: BaseException) -> str:
        """
        Add to ``left`` in which state the device is, after the ``problem`` of restoring the old table.
        Returns the problem, that state, and how to get out of it.
        """
        name = self._before.name
        why = f"The old table could not be restored ({problem}). "
        try:
            status, lines = self._control.table(self._address, secure=True)
        except BlockError as error:
            self._left.append(f"the mapped device {name} may be suspended, and have the new table")
            return f"{why}The device may be suspended, and could not be looked at ({error})"
        has_old = self._is_old(status, lines)
        what = "the old" if has_old else "the new"
        if not status.suspended and has_old and not self._before.suspended:
            return f"{why}The device has the old table, and is not suspended"
        if not status.suspended:
            self._left.append(f"the mapped device {name} is not suspended and has {what} table")
            return f"{why}The device is not suspended, and has {what} table"
        self._left.append(f"the mapped device {name} is suspended with {what} table, and its users wait")
        said = f"{why}The device is suspended with {what} table, and its users wait. "
        if has_old:
            return f"{said}Resume it: set state=present, without a table"
        return (
            f"{said}Do not resume it as it is, because that would start the new table: "
            "give it the old table with racefree.block.dm_device"
        )


def _add_hint(error: BaseException, told: str) -> None:
    if isinstance(error, BlockError):
        error.hint = told + (f". {error.hint}" if error.hint else "")


@contextlib.contextmanager
def _locked(status: _control.MappedStatus) -> Iterator[None]:
    """A context that holds the locks of a mapped device, if they can be had soon."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(BlockError, OSError):
            wanted = locks.of_mapped(status.name, status.uuid)
            stack.enter_context(locks.held(wanted, Deadline(_STANDBY_SECONDS)))
        yield
