# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The disk of a running guest of QEMU that is to be replaced, see ``_libvirt.old_disk``.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

The device or file that QEMU has open for it stays open until the end of the run. So it cannot become another
one, and when the disk is attached again by its path, what QEMU has opened then is compared with it.
"""

from __future__ import annotations

import os
from typing import Any

from .._base import gone
from .._base.deadline import Deadline
from .._base.errors import DeviceBusy, GuestError, NotSupported, WrongDevice
from .._block import device as _device
from .._block.device import Device
from .._process import open_files
from .._source.resources import Resources
from .._xen import replacing, stack
from .._xen.footprint import Extent, footprint
from .._xen.sharing import QemuUse
from .._xenstore.pyxs_store import Store
from . import disk_device, domain_xml, qemu_process
from .disk_device import DiskSpec, Replaces
from .disk_request import DiskRequest
from .old_disk import OldRunningDisk
from .qemu_disk import QemuDisk

_HINT = "Remove it first with state=absent"


class OldQemuDisk(OldRunningDisk):
    """
    ``listed``: as libvirt lists it. ``device``: what QEMU has open for it, held; None if that is a file.

    NotSupported if it could not be attached again as it was, or QEMU cannot take it from a running guest.
    """

    def __init__(
        self,
        resources: Resources,
        request: DiskRequest,
        spec: DiskSpec,
        place: QemuDisk,
        listed: domain_xml.Present,
        device: Device | None,
        store: Store | None,
    ) -> None:
        super().__init__(resources, request, spec, device, store)
        self.listed = listed
        self._place = place
        place.refuse_fixed(listed)
        self._path = self._path_of(listed)
        self._what = ("block", *device.id[:2]) if device is not None else self._hold_file()
        self._is_shared = listed.shareable

    def __str__(self) -> str:
        if self.device is None:
            return f"its old disk ({self._path})"
        return f"its old disk ({self.device.path}, diskseq {self.device.id.diskseq})"

    def check(self, below: Device, is_new_table: bool) -> None:
        if is_new_table:
            writes = not self._spec.read_only
            mine = footprint(below.id.major, below.id.minor, writes, stack.questions(self._resources))
            replacing.refuse_common(mine, self._extents(), self._request.title)
        try:
            self._check_users()
        except DeviceBusy:
            # Others use its storage, too: then it is attached again as it was.
            self._is_shared = True

    def replaced(self) -> dict[str, Any]:
        return {
            "path": self._path if self.device is None else self.device.path,
            "diskseq": None if self.device is None else self.device.id.diskseq,
            "params": self.listed.source,
            "mode": self.listed.mode,
            "device_type": self.listed.device,
        }

    def state_words(self) -> list[str]:
        now, dev = self._place.listed(), self.dev
        if now is None:
            return [f"the guest has no disk {dev} now"]
        if not self._is_same(now):
            return [f"the guest has {now.source or 'another disk'} as {dev} now"]
        if self._place.was_asked and not self._is_taken:
            return [
                f"the guest was asked to release {dev}, which QEMU cannot withdraw: it still has the disk, "
                "and may release it later"
            ]
        return []

    @property
    def replaces(self) -> Replaces:
        return Replaces(opened=QemuUse(self._place.process.pid, self._what))

    @property
    def _can_come_back(self) -> bool:
        return True

    def _detach(self) -> None:
        now = self._place.listed()
        if now is not None and not self._is_same(now):
            raise WrongDevice(
                "the guest's disk is another one now; it is left unchanged", device=self._request.title
            )
        self._place.detach(self.listed, self._request.limit())

    def _is_released(self) -> bool:
        # QEMU closes it a moment after libvirt has forgotten it.
        return self._place.listed() is None

    def _attach(self, limit: Deadline) -> Device | None:
        device = self._make_again(limit)
        held = [] if device is None else [device]
        what = self._what if device is None else ("block", *device.id[:2])
        self._place.attach(self.listed.xml, what, held, lambda: self._prove(device), limit)
        return device

    def _refuse_others(self) -> None:
        if not self._is_shared:
            self._check_users()

    def _prove(self, device: Device | None) -> None:
        process = self._place.process
        if device is not None:
            qemu_process.prove(process, self._path, device, self._request.title)
        elif not self._has_file():
            raise WrongDevice(f"QEMU has opened another file than the one that was at {self._path}")

    def _is_same(self, now: domain_xml.Present) -> bool:
        """Whether the listed disk is this one, which may have been attached again."""
        if now.source != self._path:
            return False
        device = self.again or self.device
        if device is None:
            return self._has_file()
        number = qemu_process.number_at(self._place.process, self._path)
        if number != device.id[:2]:
            return False
        with _device.open_number(*number) as found:
            return found.id == device.id

    def _has_file(self) -> bool:
        process = self._place.process
        return qemu_process.at(process, self._path) == self._what and (
            qemu_process.count(process, self._what) > 0
        )

    def _path_of(self, listed: domain_xml.Present) -> str:
        if (
            listed.source is None
            or listed.type not in ("block", "file")
            or listed.format not in (None, "raw")
        ):
            form = f"{listed.type}, format {listed.format or 'raw'}"
            raise NotSupported(
                f"the guest's disk is of the type {form}. Only raw disks of a block device or file can be "
                "attached again and proved to be the same, which is done if the new disk fails",
                device=self._request.title,
                hint=_HINT,
            )
        return listed.source

    def _hold_file(self) -> open_files.What:
        """Keep the file open until the end of the run; returns what it is."""
        path, title = self._path, self._request.title
        found = None
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            self._resources.callback(os.close, fd)
            found = open_files.what(os.fstat(fd))
        except OSError as error:
            if error.errno not in gone.PATH:
                raise gone.not_seen(error, path) from error
        if self.listed.type == "block" or found is None or not qemu_process.count(self._place.process, found):
            raise GuestError(
                f"QEMU has not opened what is at {path}, so the disk could not be attached again if the "
                "new one failed",
                device=title,
                hint=_HINT,
            )
        return found

    def _extents(self) -> list[Extent]:
        """The storage of the disk."""
        kind, *numbers = self._what
        writes = self.listed.mode == "w"
        if kind == "file":
            return [Extent(("file", *numbers), 0, None, writes)]
        below = self._over.below if self._over is not None else self.device
        if below is None:
            raise AssertionError
        return footprint(*below.id[:2], writes, stack.questions(self._resources))

    def _check_users(self) -> None:
        """DeviceBusy if somebody else uses its storage."""
        disk_device.check_users(
            self._resources, self._spec, self._extents(), self._path, self.store, self.replaces
        )
