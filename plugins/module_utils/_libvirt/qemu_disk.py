# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
A place for a disk in a running guest of QEMU: what libvirt lists there, and how a disk is attached and
detached.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

libvirt accepts only a path. This is safe: the device at the path stays open, also in a holder process that
outlives a killed run, so its number cannot become another device's. Afterwards, what QEMU has opened is
compared with it.

A disk on the virtio bus is detached by the guest: QEMU asks for it (device_del), and cannot withdraw that.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Callable, TypeVar

from .._base.deadline import Deadline, pauses
from .._base.errors import BlockError, DeadlineExceeded, DeviceGone, GuestError, NotSupported, WrongDevice
from .._block import device as _device
from .._process import open_files
from .._process.holder import hold, hold_for
from . import connection as _connection
from . import domain_xml, qemu_process
from .connection import Definition, NotAsked, libvirt
from .disk_request import DiskRequest
from .handles import DomainHandle

if TYPE_CHECKING:
    from .._block.device import Device

T = TypeVar("T")
# Seconds for undoing what libvirt did, for one answer of libvirt, and for holding a device for a daemon that
# may still attach it.
_TAKING_BACK = 20
_ANSWERING = 10
_LATE = 600
# Buses whose disks QEMU adds to a running guest, and takes from it (qemuDomainDetachPrepDisk and
# qemuDomainAttachDeviceDiskLiveInternal, src/qemu/qemu_hotplug.c of libvirt).
_BUSES = ("virtio", "scsi", "usb")
# The bus that libvirt chooses by a disk's name, if it is none of those (virDomainDiskDefParseXML).
_OTHER_BUSES = {"hd": "ide", "fd": "fdc", "xv": "xen", "ub": "uml"}
# What QEMU answers to a second request for the same disk, before the guest has released it
# (qmp_device_del, system/qdev-monitor.c).
_ASKED_BEFORE = "in the process of unplug"
# libvirt 9.0 leaves its label on the node of a device that is gone before libvirt looks at it: that of a disk
# that the guest has released when no task waited for it (virSecurityDACSetOwnership, security_dac.c).
_STALE_LABEL = "Setting different DAC user or group"
_STALE_HINT = (
    "libvirt 9.0 keeps the label of a disk that the guest has released late, and refuses other devices with "
    "the number of that device until the next start of the guest. Set live=false, and start the guest again"
)


def _kept(what: open_files.What | None) -> contextlib.AbstractContextManager[object]:
    """
    Keep the device open that QEMU has as a disk. A device that is removed with its last user must not go
    before libvirt has removed what it has recorded at the device's node in the guest's own /dev. Otherwise
    the next device with this number cannot be attached to this guest ("Setting different DAC user or group
    on ... which is already in use"; seen with libvirt 9.0).
    """
    if what is None or what[0] != "block":
        return contextlib.nullcontext()
    try:
        return _device.open_number(*what[1:])
    except DeviceGone:
        return contextlib.nullcontext()


class QemuDisk:
    """
    ``process``: the guest's QEMU. ``was_asked``: whether this run has asked the guest for its disk, which
    cannot be withdrawn. ``is_stuck``: whether a disk that failed could not be detached again.
    """

    def __init__(self, request: DiskRequest, definition: Definition) -> None:
        self.request = request
        self.uuid, self.run = definition.uuid, definition.run
        self.process = qemu_process.find(definition.name, definition.uuid)
        self.was_asked = False
        self.is_stuck = False

    def listed(self, limit: Deadline | None = None) -> domain_xml.Present | None:
        """What libvirt lists there now, or None. Raises GuestError or DeadlineExceeded."""
        return self._disk_in(self._live(limit or Deadline(_ANSWERING)))

    def is_running(self) -> bool:
        """Whether the guest runs now. Raises GuestError or DeadlineExceeded."""
        return self._live(Deadline(_ANSWERING)) is not None

    def _disk_in(self, definition: str | None) -> domain_xml.Present | None:
        return None if definition is None else domain_xml.Domain(definition).disk(self.request.target)

    def _live(self, limit: Deadline) -> str | None:
        """The definition of the running guest; None if it does not run."""
        return _connection.read(self.request.uri, self.uuid, limit).live

    def attach(
        self,
        xml: str,
        what: open_files.What,
        held: list[Device],
        prove: Callable[[], None],
        limit: Deadline,
    ) -> None:
        """
        Attach a disk. ``what``: the device or file that QEMU is to open, which the caller has open; ``held``:
        its devices; ``prove`` raises an error unless QEMU has opened the right one. Whatever fails, the disk
        is detached again, and the error says so if that fails too.
        """
        is_done = False
        # If this process is killed while libvirt attaches, QEMU may open the device yet.
        holding = hold(held, limit.left() + _TAKING_BACK) if held else contextlib.nullcontext()
        with holding:
            try:
                self.call(limit, lambda domain: domain.attachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE))
                is_done = True
                prove()
            except NotAsked:
                raise
            except BlockError as error:
                if isinstance(error, DeadlineExceeded):
                    # The path must not lead to another device by then.
                    if held:
                        hold_for(held, _LATE)
                    error.hint = (
                        f"{error.hint}. libvirt may still attach the disk, so the device stays open for "
                        f"{_LATE} s"
                    )
                if _STALE_LABEL in error.message:
                    error.hint = _STALE_HINT
                self._take_back(error, domain_xml.source_in(xml), None if is_done else what)
                raise

    def _take_back(self, error: BlockError, source: str | None, what: open_files.What | None) -> None:
        """
        After a failure, detach what libvirt attached: a disk with this source, of which QEMU has ``what``
        open unless that is None. If that fails too, or the guest has another disk there, add this to the
        error.
        """
        self.is_stuck = True
        try:
            now = _connection.read(self.request.uri, self.uuid, Deadline(_TAKING_BACK))
            listed = self._disk_in(now.live)
            if now.run != self.run:
                self._take_from_next_run(now, source)
            elif listed is not None and self.is_disk(listed, source, what):
                self.detach(listed, Deadline(_TAKING_BACK))
            elif listed is not None:
                error.add_hint(self.other_words(listed))
            self.is_stuck = False
        except BlockError as failure:
            hint = error.hint or "It could not be rolled back"
            error.hint = f"{hint}. The disk {self.request.target} may still be attached: {failure}"

    def _take_from_next_run(self, now: Definition, source: str | None) -> None:
        """
        The guest was started again just when libvirt was to attach the disk, which the next run may have got.
        A disk that is in the inactive definition too is the next run's own.
        """
        listed = self._disk_in(now.live)
        is_ours = listed is not None and listed.source == source
        if listed is not None and is_ours and now.xml is not None and self._disk_in(now.xml) is None:
            QemuDisk(self.request, now).detach(listed, Deadline(_TAKING_BACK))

    def is_disk(
        self, listed: domain_xml.Present, source: str | None, what: open_files.What | None = None
    ) -> bool:
        """
        Whether what libvirt lists has this source, and QEMU has opened ``what``, a device or file that the
        caller has open.
        """
        if listed.source != source:
            return False
        return what is None or (
            source is not None
            and qemu_process.at(self.process, source) == what
            and qemu_process.count(self.process, what) > 0
        )

    def other_words(self, listed: domain_xml.Present) -> str:
        """What to say of a disk that somebody else has attached meanwhile."""
        return (
            f"The guest has {listed.source or 'another disk'} as {self.request.target} now, which this run "
            "did not attach: it is left unchanged"
        )

    def detach(self, listed: domain_xml.Present, limit: Deadline) -> None:
        """
        Ask the guest for the disk, and wait until QEMU has closed it: libvirt itself waits for a few seconds
        only, and then reports success (qemuDomainDetachDeviceLiveAndConfig). WrongDevice if the guest has
        another disk there by now, DeadlineExceeded.
        """
        now = self.listed(limit)
        if now is None:
            return
        if now.source != listed.source:
            raise WrongDevice(
                "the guest's disk is another one now; it is left unchanged", device=self.request.title
            )
        has = qemu_process.at(self.process, now.source) if now.source and now.source[0] == "/" else None
        with _kept(has):
            if self._is_released(now, has, limit):
                self._wait_for_job()
                return
        raise limit.exceeded(
            "the guest to release the disk",
            device=self.request.title,
            hint="Its system must run, and must not use the disk. The guest still has it, and QEMU cannot "
            "withdraw the request, so it may release the disk later; run the task again to see",
        )

    def _is_released(self, now: domain_xml.Present, has: open_files.What | None, limit: Deadline) -> bool:
        """Ask for the disk. Returns whether QEMU has closed it within the limit."""
        before = 0 if has is None else qemu_process.count(self.process, has)
        self._ask(now, limit)
        for pause in pauses():
            # At the end of the limit, libvirt must still have time to answer. It forgets the disk before QEMU
            # closes it.
            if self.listed() is None and (
                has is None or qemu_process.count(self.process, has) < max(before, 1)
            ):
                return True
            if limit.expired:
                break
            limit.sleep(pause)
        return False

    def _wait_for_job(self) -> None:
        """
        Wait until libvirt has done what it does after QEMU has closed a disk: it is part of the same job, and
        this question has to wait for it.
        """
        try:
            self.call(Deadline(_ANSWERING), lambda domain: domain.memoryStats())
        except GuestError:
            # A guest that has ended has no jobs.
            if self._live(Deadline(_ANSWERING)) is not None:
                raise

    def _ask(self, listed: domain_xml.Present, limit: Deadline) -> None:
        self.was_asked = True
        try:
            self.call(
                limit,
                lambda domain: domain.detachDeviceFlags(listed.xml, libvirt.VIR_DOMAIN_AFFECT_LIVE),
            )
        except NotAsked:
            self.was_asked = False
            raise
        except GuestError as error:
            # An earlier run has asked for it.
            if _ASKED_BEFORE not in error.message and self.listed() is not None:
                self.was_asked = False
                raise

    def refuse_fixed(self, listed: domain_xml.Present) -> None:
        """NotSupported for a disk that QEMU cannot take from a running guest."""
        if listed.device not in ("disk", "lun"):
            raise NotSupported(
                f"the running guest has a {listed.device} there, which QEMU cannot take from it",
                device=self.request.title,
                hint="With live=false, the guest has the wanted disk from its next start on",
            )
        self._refuse_bus(listed.bus)

    def refuse_new(self, bus: str | None) -> None:
        """NotSupported for a disk that QEMU cannot add to a running guest. ``bus``: None as libvirt likes."""
        self._refuse_bus(bus or _OTHER_BUSES.get(self.request.target[:2]))

    def _refuse_bus(self, bus: str | None) -> None:
        if bus not in (None, *_BUSES):
            raise NotSupported(
                f"QEMU cannot add or remove disks on the bus {bus} while the guest runs",
                device=self.request.title,
                hint=f"It can on {', '.join(_BUSES)}. With live=false, the change is made at the next start",
            )

    def call(self, limit: Deadline, function: Callable[[DomainHandle], T]) -> T:
        """
        ``function(domain)``, called within the limit while this run of the guest lasts. Raises GuestError or
        DeadlineExceeded.
        """
        title = self.request.title
        return _connection.with_connection(
            self.request.uri,
            limit,
            title,
            lambda connection: function(_connection.look_up_run(connection, self.uuid, self.run, title)),
        )
