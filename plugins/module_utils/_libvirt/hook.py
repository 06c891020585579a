# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The hook for libvirt's drivers for Xen and QEMU: creates and verifies the devices of a domain's disks when it
starts.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

``prepare`` creates a device at each path and starts a holder process that keeps the devices open. ``started``
verifies that blkback or QEMU has opened them, and ends the holder, so that the devices are removed when the
guest ends. ``stopped`` and ``release`` end a holder that is left over. For QEMU, ``migrate`` is refused, and
``restore`` checks the recipes. The hook never calls libvirt, which is waiting for the hook. Its standard
error becomes part of libvirt's error message; its standard output, which would replace the definition at
``migrate`` and ``restore``, stays empty.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import syslog
from collections.abc import Iterable
from typing import Callable

from .._base import locks as _locks
from .._base import run_directory
from .._base.deadline import Deadline, pauses
from .._base.errors import BlockError, DeviceGone, GuestError, NotSupported, WrongDevice
from .._base.files import write_whole
from .._block.device import Device
from .._block.seal import reason_text, seals
from .._dm import lifetime
from .._process import descriptors, identity
from .._process import holder as _holder
from .._process.supervise import supervised
from .._source import for_guest
from .._source.resources import Resources
from .._xen import domain0, vbd_read, vdev
from .._xen.vbd_nodes import Key
from .._xenstore.pyxs_store import Store
from . import disk_device, hook_plan, qemu_process

# A priority of syslog(3) and a line.
LogLine = tuple[int, str]

# Seconds for which a holder waits for `started`. Restoring the memory of a large guest takes that long, and
# libxl adds the disks after that. libvirt does not call `release` if another script refuses `prepare`
# (libxlDomainStartPrepare): then the devices are removed at this limit, or at the next start.
HOLD = 3600
# Seconds that blkback has to open a device, and seconds until a device without a holder is removed.
_OPENING = 15
_GOING = 5
# Seconds to wait, at the end of a domain, for the lock for creating devices. The process that holds the lock
# removes orphaned devices too.
_REAPING = 2
# What a child reads when the lock for creating devices is taken for it; otherwise it reads the error.
_TAKEN = b"+"


def main(argv: list[str], text: str) -> int:
    """
    Return the exit code for ``argv`` (guest, operation, ...) and the definition (text) that libvirt passed.
    """
    guest, operation = (argv + ["", ""])[:2]
    descriptors.raise_limit()
    if not hook_plan.concerns(operation, text):
        return 0
    syslog.openlog("racefree-libvirt-hook", syslog.LOG_PID, syslog.LOG_DAEMON)
    job = None
    try:
        job = hook_plan.job_of(operation, text)
        lines = _act(job, f"the disks of {job.domain} ({operation})")
    except BlockError as error:
        message = _one_line(f"racefree.block: {guest}: {operation}: {error}")
        syslog.syslog(syslog.LOG_ERR, message)
        sys.stderr.write(message + "\n")
        if job is not None and job.action == "make":
            # The child may have been killed after it started the holder, so end that.
            end_holder(job.uuid)
        # A running domain is not stopped because of an error that is found later.
        return 1 if operation in hook_plan.REFUSABLE else 0
    for priority, line in lines:
        syslog.syslog(priority, _one_line(f"{guest}: {operation}: {line}"))
    return 0


def _one_line(text: str) -> str:
    """A line break in a malicious name must not start a new line of the log."""
    return " ".join(text.split())


def _good(lines: Iterable[str]) -> list[LogLine]:
    return [(syslog.LOG_INFO, line) for line in lines]


def _act(job: hook_plan.Job, what: str) -> list[LogLine]:
    """
    Do the job in a child process, which is abandoned at its deadline. The lock for creating devices belongs
    to this process, which does not hang. The child has the locks of the sources, which are taken before.
    """
    if job.action == "refuse" and (job.disks or job.problems):
        raise _NO_MIGRATION
    if job.action not in _ACTIONS:
        return []
    lines: list[LogLine]
    # A lock is released early when the child says so, and otherwise when the child has ended or is abandoned.
    if job.action == "make" and job.disks:
        with _Turn(Deadline(job.seconds - 2)) as turn:
            lines = supervised(lambda told: make(job, turn.of_child(told)), job.seconds, what, turn.next)
    elif job.action == "release" and (free := _locked_or_none()) is not None:
        with free as locks:
            lines = supervised(lambda told: release(job, told), job.seconds, what, locks.close)
    else:
        lines = supervised(lambda: _ACTIONS[job.action](job), job.seconds, what)
    return lines


def _locked_or_none() -> _locks.Locks | None:
    """The lock for removing orphaned devices. None if another process holds it, which then removes them."""
    try:
        return disk_device.locked(Deadline(_REAPING))
    except _locks.Unavailable:
        return None


class _Turn:
    """
    The lock for creating devices (``_libvirt.disk_device.locked``), which this process takes and releases
    when its child asks for it: an abandoned child must not keep it.
    """

    def __init__(self, limit: Deadline) -> None:
        self._limit = limit
        self._locks: _locks.Locks | None = None
        self._reader, self._writer = os.pipe()

    def __enter__(self) -> _Turn:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._locks is not None:
            self._locks.close()
        os.close(self._reader)
        os.close(self._writer)

    def next(self) -> None:
        """Take the lock, and tell the child; the second time, release it."""
        if self._locks is not None:
            self._locks.close()
            return
        try:
            self._locks = disk_device.locked(self._limit)
            answer = _TAKEN
        except BlockError as error:
            answer = str(error).encode("utf-8", "backslashreplace")
        os.write(self._writer, answer)

    def of_child(self, told: Callable[[], None]) -> Callable[[], None]:
        """
        For the child: a function that it calls to have the lock taken, and again to have it released.
        ``told``: calls :meth:`next` in this process.
        """
        asked: list[bool] = []

        def call() -> None:
            told()
            if not asked:
                asked.append(True)
                answer = os.read(self._reader, select.PIPE_BUF)
                if answer != _TAKEN:
                    raise BlockError(answer.decode("utf-8", "replace"))

        return call


def make(job: hook_plan.Job, turn: Callable[[], None] = lambda: None) -> list[LogLine]:
    """
    ``prepare``: create the devices at their paths, with a holder. Returns lines for the log. On any error
    nothing is left.

    ``turn`` has ``_libvirt.disk_device.locked`` taken, and the second time released.
    """
    limit = Deadline(job.seconds - 2)
    end_holder(job.uuid)
    if not job.disks:
        return []
    if any(spec.seal.sealed for spec in job.disks):
        seals.probe()
    with Resources() as resources:
        for_guest.take_turn(resources, [spec.source for spec in job.disks], limit)
        turn()
        for_guest.reap(resources)
        store = resources.shared(Store) if job.is_xen or domain0.is_here() else None
        pairs = [(spec, disk_device.make(resources, spec, limit, store)) for spec in job.disks]
        turn()
        disk_device.settle(resources, pairs, limit)
        start_holder(job.uuid, [device for dummy, device in pairs])
        return _good(
            f"{spec.target} is {device.path} {device.id.number} diskseq {device.id.diskseq}"
            for spec, device in pairs
        )


def hand_over(job: hook_plan.Job) -> list[LogLine]:
    """``started``: verify that blkback or QEMU has opened the devices, and end the holder."""
    limit = Deadline(_OPENING)
    with Resources() as resources:
        try:
            return _good([_prove(resources, job, spec, limit) for spec in job.disks])
        finally:
            end_holder(job.uuid)


def adopt(job: hook_plan.Job) -> list[LogLine]:
    """
    ``reconnect``: the same check for a domain that was running before the daemon started, for each disk even
    if others fail.
    """
    limit, lines = Deadline(_OPENING), [(syslog.LOG_ERR, problem) for problem in job.problems]
    with Resources() as resources:
        for spec in job.disks:
            try:
                lines += _good([_prove(resources, job, spec, limit)])
            except BlockError as error:
                lines.append((syslog.LOG_ERR, str(error)))
    end_holder(job.uuid)
    return lines


def release(job: hook_plan.Job, told: Callable[[], None] | None = None) -> list[LogLine]:
    """
    ``stopped``, ``release``: end the holder. Devices that are still in use are removed when their last user
    closes them.

    With ``told``, the caller holds ``_libvirt.disk_device.locked`` until ``told`` is called.
    """
    end_holder(job.uuid)
    if told is not None:
        with Resources() as resources:
            for_guest.reap(resources)
        told()
    limit = Deadline(_GOING)
    for pause in pauses():
        with Resources() as resources:
            there = disk_device.of_domain(resources, job.uuid)
            for dummy, device in there:
                lifetime.set_persist(resources.dm, device, False)
            names = ", ".join(f"{target} ({device.path})" for target, device in there)
        if not there:
            return []
        if limit.expired:
            return _good([f"still in use, and removed when the last user closes it: {names}"])
        limit.sleep(pause)
    return []


_NO_MIGRATION = NotSupported(
    "its disks are made from recipes, which name files and devices of one host, so it cannot be migrated",
    hint="Shut it down, define its disks on the other host with libvirt_disk, and start it there",
)
_ACTIONS = {"make": make, "hand_over": hand_over, "adopt": adopt, "release": release}


def _prove(resources: Resources, job: hook_plan.Job, spec: disk_device.DiskSpec, limit: Deadline) -> str:
    device = disk_device.find(resources, spec)
    if device is None:
        raise DeviceGone("the device that was made for it is gone", device=str(spec))
    if job.is_xen:
        _prove_blkback(job, spec, device, limit)
    else:
        # QEMU has opened all disks before libvirt starts its processors.
        qemu_process.prove(qemu_process.find(job.domain, job.uuid), spec.path, device, str(spec))
    return f"{spec.target} is in use as {device.path} {device.id.number} diskseq {device.id.diskseq}"


def _prove_blkback(job: hook_plan.Job, spec: disk_device.DiskSpec, device: Device, limit: Deadline) -> None:
    if job.domid is None:
        raise GuestError("libvirt gave no domain id", device=str(spec))
    key = Key(job.domid, vdev.parse(spec.target).number)
    for pause in pauses():
        opened = vbd_read.opened_number(key)
        if opened is not None:
            break
        if limit.expired:
            raise limit.exceeded(
                f"blkback to open {device.path}",
                device=str(spec),
                hint="A disk with a recipe needs <driver name='phy'/>, so that blkback serves it",
            )
        limit.sleep(pause)
    if opened is not None and opened != (device.id.major, device.id.minor):
        raise WrongDevice(
            f"blkback opened {opened[0]}:{opened[1]} instead of {device.id.number}",
            device=str(spec),
            hint="Something made the path lead to another device meanwhile. Find out what, and try again",
        )
    _seal(key, spec, device)


def _seal(key: Key, spec: disk_device.DiskSpec, device: Device) -> None:
    """Seal the device, which blkback has open by now, if the recipe says so. It ends with the disk."""
    number, reason = (
        (device.id.major, device.id.minor, device.id.diskseq),
        reason_text.of_vbd(key.domid, key.devid),
    )
    if spec.seal.sealed:
        seals.seal(*number, reason=reason)
    if spec.seal.sealed_below:
        seals.seal_below(*number, reason)


# Holders: one for each domain. A file records its PID, so that a later run of this program can end it.


def start_holder(uuid: str, devices: list[Device]) -> None:
    """Leave a process behind that keeps the devices open, for HOLD seconds at most."""
    run_directory.make(disk_device.STATE)
    # A holder that is not recorded would keep the domain from starting until the holder's time limit.
    holder = _holder.hold_pending(devices, HOLD)
    try:
        write_whole(_record(uuid), f"{identity.mark_of(holder.pid, holder.pid)}\n")
        holder.stay()
    except BaseException:
        holder.release()
        raise


def end_holder(uuid: str) -> None:
    """
    End the holder of a domain's devices, if it can be identified. A holder in another PID namespace ends at
    its own deadline.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{_record(uuid)}.new")
    with contextlib.suppress(FileNotFoundError):
        with open(_record(uuid), encoding="ascii") as file:
            identity.end_marked(file.read().strip())
        os.unlink(_record(uuid))


def _record(uuid: str) -> str:
    return f"{disk_device.STATE}/{uuid}.holder"
