# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Device-mapper's control node: one method per ioctl, with the flags that this ioctl accepts.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A mapped device is addressed by its UUID or by its number, rarely by its name. A name can move to another
device between two calls; a number cannot while the device is held open.

All methods raise KernelError, and DeviceGone if there is no such mapped device. Sectors are of 512 bytes.
"""

from __future__ import annotations

import errno
import fcntl
import os

from .._base import gone
from .._base.errors import BlockError, DeviceBusy, DeviceGone, KernelError, NotSupported
from .._base.record import Record
from .._kernel import uapi
from . import codec

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .._block.device import Device


CONTROL = "/dev/mapper/control"
_ROOM = 16384

# The lowest sufficient minor version of interface 4. The kernel rejects a version higher than its own.
_MINORS = {
    "DM_VERSION": 0,
    "DM_LIST_DEVICES": 0,
    "DM_DEV_CREATE": 0,
    "DM_DEV_REMOVE": 0,
    "DM_DEV_RENAME": 0,
    "DM_DEV_SUSPEND": 0,
    "DM_DEV_STATUS": 0,
    "DM_TABLE_LOAD": 0,
    "DM_TABLE_CLEAR": 0,
    "DM_TABLE_DEPS": 0,
    "DM_TABLE_STATUS": 0,
    "DM_LIST_VERSIONS": 1,
    "DM_TARGET_MSG": 2,
    "DM_GET_TARGET_VERSION": 41,
}
# Ioctls that a target may reject. The target logs the reason.
_EXPLAINED = frozenset(("DM_TABLE_LOAD", "DM_DEV_SUSPEND", "DM_TARGET_MSG"))
_BY_DEV, _NOFLUSH, _SECURE, _DEFERRED = 3, 12, 20, 27


class Address(Record):
    """How a mapped device is addressed: exactly one of UUID, name and ``(major, minor)``."""

    uuid: str = ""
    name: str = ""
    number: tuple[int, int] = (0, 0)

    def fields(self) -> dict[str, Any]:
        """The fields of the request that carry the address."""
        if self.uuid:
            return {"uuid": os.fsencode(self.uuid)}
        if self.name:
            return {"name": os.fsencode(self.name)}
        return {"dev": codec.encode_dev(*self.number)}

    def __str__(self) -> str:
        return self.name or (f"uuid {self.uuid}" if self.uuid else f"{self.number[0]}:{self.number[1]}")


def by_uuid(uuid: str) -> Address:
    return Address(uuid=uuid)


def by_name(name: str) -> Address:
    return Address(name=name)


def by_number(major: int, minor: int) -> Address:
    return Address(number=(major, minor))


def by_device(device: Device) -> Address:
    """The address of a held mapped device: its number, which cannot be reused while the device is held."""
    return by_number(device.id.major, device.id.minor)


class MappedStatus(Record):
    """The kernel's status of a mapped device (the answer of DM_DEV_STATUS)."""

    name: str
    uuid: str
    major: int
    minor: int
    open_count: int
    event_nr: int
    flags: int
    target_count: int

    @property
    def read_only(self) -> bool:
        return bool(self.flags & uapi.lib.DM_READONLY_FLAG)

    @property
    def suspended(self) -> bool:
        return bool(self.flags & uapi.lib.DM_SUSPEND_FLAG)

    @property
    def has_live_table(self) -> bool:
        return bool(self.flags & uapi.lib.DM_ACTIVE_PRESENT_FLAG)

    @property
    def has_inactive_table(self) -> bool:
        return bool(self.flags & uapi.lib.DM_INACTIVE_PRESENT_FLAG)

    @property
    def deferred_remove(self) -> bool:
        return bool(self.flags & uapi.lib.DM_DEFERRED_REMOVE)

    @property
    def uevent_generated(self) -> bool:
        return bool(self.flags & uapi.lib.DM_UEVENT_GENERATED_FLAG)

    @property
    def number(self) -> str:
        """``major:minor`` in decimal."""
        return f"{self.major}:{self.minor}"


class Control:
    """
    /dev/mapper/control, open. One serves many devices. NotSupported or KernelError if it cannot be opened.
    """

    def __init__(self) -> None:
        uapi.require()
        try:
            self.fd = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
                raise NotSupported(
                    "this host has no device-mapper",
                    device=CONTROL,
                    errno=error.errno,
                    hint="Load the kernel module dm_mod, or use a kernel that has it",
                ) from error
            if error.errno in (errno.EACCES, errno.EPERM):
                raise KernelError(
                    "only root may use device-mapper",
                    device=CONTROL,
                    errno=error.errno,
                    hint="Use become: true",
                ) from error
            raise KernelError.from_oserror(error, f"open {CONTROL}") from error

    def __enter__(self) -> Control:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)

    def version(self) -> tuple[int, int, int]:
        """``(major, minor, patch)`` of the kernel's interface."""
        return self._call("DM_VERSION", "ask for the interface version")[1].version

    def speaks_version_5(self) -> bool:
        """
        Whether the kernel has the strict interface proposed in June 2023. A kernel without it answers EINVAL,
        which is harmless.
        """
        buffer = codec.encode((5, 0, 0))
        try:
            fcntl.ioctl(self.fd, uapi.lib.DM_VERSION, buffer)
        except OSError as error:
            if error.errno != errno.EINVAL:
                tried = "ask for the interface version"
                raise KernelError.from_oserror(error, tried, device=CONTROL) from error
            return False
        return True

    def list_devices(self, name_prefix: str = "") -> list[codec.NameEntry]:
        """
        [NameEntry] of all mapped devices, with UUIDs if the kernel reports them (interface 4.44, Linux 5.13).
        """
        flags = uapi.lib.DM_UUID_FLAG
        buffer, header = self._call(
            "DM_LIST_DEVICES", "list the mapped devices", name=os.fsencode(name_prefix), flags=flags
        )
        return codec.decode_names(buffer, header, True)

    def target_versions(self) -> dict[str, tuple[int, int, int]]:
        """``{target: (major, minor, patch)}`` of the target types that are loaded now."""
        return codec.decode_versions(*self._call("DM_LIST_VERSIONS", "list the targets"))

    def target_version(self, target: str) -> tuple[int, int, int] | None:
        """
        The version of one target type; the kernel loads its module first. None if the kernel does not have
        it.
        """
        try:
            answer = self._call(
                "DM_GET_TARGET_VERSION",
                f"ask for the target {target}",
                name=os.fsencode(target),
                room=_ROOM,
            )
        except DeviceGone:
            return None
        except KernelError as error:
            if error.errno == errno.EINVAL:
                return None
            raise
        return codec.decode_versions(*answer).get(target)

    def create(self, name: str, uuid: str = "") -> MappedStatus:
        """Create a mapped device without a table. DeviceBusy if the name or the UUID is taken."""
        try:
            _buffer, header = self._call(
                "DM_DEV_CREATE", f"create {name}", name=os.fsencode(name), uuid=os.fsencode(uuid)
            )
        except KernelError as error:
            if error.errno == errno.EBUSY:
                raise DeviceBusy("the name or the uuid is taken", device=name, errno=error.errno) from error
            raise
        return _status(header)

    def remove(self, address: Address, deferred: bool = False, event_nr: int = 0) -> bool:
        """
        Remove the device. ``deferred``: if it is in use, on last close. Returns whether a uevent was sent.
        """
        flags = uapi.lib.DM_DEFERRED_REMOVE if deferred else 0
        _buffer, header = self._on(
            address,
            "DM_DEV_REMOVE",
            "remove it",
            flags=flags,
            event_nr=event_nr,
            minor=_DEFERRED if deferred else 0,
        )
        return bool(header.flags & uapi.lib.DM_UEVENT_GENERATED_FLAG)

    def rename(self, address: Address, new_name: str, event_nr: int = 0) -> MappedStatus:
        """
        Rename the device at ``address``. Returns the MappedStatus of the device that was renamed, which the
        caller must compare.

        The kernel looks up the device only by its name (dm_hash_rename in drivers/md/dm-ioctl.c), and answers
        with the number of the device that it found. So the name is read immediately before the rename.
        Another device is renamed only if somebody renames both devices between these two calls. DeviceBusy if
        the new name is taken.
        """
        name = address.name or self.status(address).name
        try:
            _buffer, header = self._call(
                "DM_DEV_RENAME",
                f"rename {name} to {new_name}",
                device=name,
                name=os.fsencode(name),
                payload=codec.encode_text(os.fsencode(new_name)),
                event_nr=event_nr,
            )
        except KernelError as error:
            if error.errno == errno.EBUSY:
                raise DeviceBusy(f"the name {new_name} is taken", device=name, errno=error.errno) from error
            raise
        return _status(header)

    def suspend(self, address: Address, noflush: bool = False, nolockfs: bool = False) -> MappedStatus:
        """
        Suspend the device. ``noflush``: keep outstanding I/O queued; ``nolockfs``: do not freeze a file
        system on the device.
        """
        flags = uapi.lib.DM_SUSPEND_FLAG | (uapi.lib.DM_NOFLUSH_FLAG if noflush else 0)
        flags |= uapi.lib.DM_SKIP_LOCKFS_FLAG if nolockfs else 0
        return _status(
            self._on(address, "DM_DEV_SUSPEND", "suspend it", flags=flags, minor=_NOFLUSH if noflush else 0)[
                1
            ]
        )

    def resume(
        self, address: Address, noflush: bool = False, nolockfs: bool = False, event_nr: int = 0
    ) -> MappedStatus:
        """Resume the device. An inactive table becomes live."""
        flags = (uapi.lib.DM_NOFLUSH_FLAG if noflush else 0) | (
            uapi.lib.DM_SKIP_LOCKFS_FLAG if nolockfs else 0
        )
        return _status(
            self._on(
                address,
                "DM_DEV_SUSPEND",
                "resume it",
                flags=flags,
                event_nr=event_nr,
                minor=_NOFLUSH if noflush else 0,
            )[1]
        )

    def status(self, address: Address) -> MappedStatus:
        """The MappedStatus; DeviceGone if there is no such device."""
        return _status(self._on(address, "DM_DEV_STATUS", "ask for its status")[1])

    def load(
        self,
        address: Address,
        targets: Sequence[tuple[int, int, bytes, bytes]],
        read_only: bool = False,
        secure: bool = False,
        strict: bool = True,
    ) -> MappedStatus:
        """
        Load the inactive table from ``(start, length, type, params)``: sectors, bytes.

        ``secure``: for tables with a key; the kernel wipes its copy of the buffer, and this method wipes its
        own. ``strict``: as for ``codec.encode_targets``; if False, gaps and overlaps are left for the kernel
        to detect.
        """
        lib = uapi.lib
        flags = (lib.DM_READONLY_FLAG if read_only else 0) | (lib.DM_SECURE_DATA_FLAG if secure else 0)
        return _status(
            self._on(
                address,
                "DM_TABLE_LOAD",
                "load its table",
                flags=flags,
                target_count=len(targets),
                payload=codec.encode_targets(targets, strict),
                minor=_SECURE if secure else 0,
            )[1]
        )

    def clear(self, address: Address) -> MappedStatus:
        """Drop the inactive table."""
        return _status(self._on(address, "DM_TABLE_CLEAR", "drop its inactive table")[1])

    def table(
        self, address: Address, inactive: bool = False, secure: bool = False
    ) -> tuple[MappedStatus, list[codec.TargetLine]]:
        """``(MappedStatus, [TargetLine])``: the live table, or the inactive one."""
        return self._table(address, "read its table", uapi.lib.DM_STATUS_TABLE_FLAG, inactive, secure)

    def target_status(
        self, address: Address, noflush: bool = True
    ) -> tuple[MappedStatus, list[codec.TargetLine]]:
        """``(MappedStatus, [TargetLine])`` whose params are each target's status."""
        return self._table(
            address, "read its targets' status", uapi.lib.DM_NOFLUSH_FLAG if noflush else 0, False, False
        )

    def deps(self, address: Address, inactive: bool = False) -> list[tuple[int, int]]:
        """``[(major, minor)]`` of the devices that the table has open."""
        flags = uapi.lib.DM_QUERY_INACTIVE_TABLE_FLAG if inactive else 0
        return codec.decode_deps(*self._on(address, "DM_TABLE_DEPS", "ask what it uses", flags=flags))

    def message(self, address: Address, text: str, sector: int = 0, secure: bool = False) -> str | None:
        """
        Send a message to the target at ``sector``. Returns the text of the answer, or None. ``secure``: the
        message may contain a key.
        """
        flags = uapi.lib.DM_SECURE_DATA_FLAG if secure else 0
        buffer, header = self._on(
            address,
            "DM_TARGET_MSG",
            "send it a message" if secure else f"send it the message {text!r}",
            flags=flags,
            payload=codec.encode_message(sector, text.encode("ascii")),
        )
        if not header.flags & uapi.lib.DM_DATA_OUT_FLAG:
            return None
        return bytes(buffer[header.data_start : header.data_size]).split(b"\0")[0].decode("ascii", "replace")

    def _table(
        self, address: Address, tried: str, flags: int, inactive: bool, secure: bool
    ) -> tuple[MappedStatus, list[codec.TargetLine]]:
        lib = uapi.lib
        flags |= (lib.DM_QUERY_INACTIVE_TABLE_FLAG if inactive else 0) | (
            lib.DM_SECURE_DATA_FLAG if secure else 0
        )
        minor = _SECURE if secure else _NOFLUSH if flags & lib.DM_NOFLUSH_FLAG else 0
        buffer, header = self._on(address, "DM_TABLE_STATUS", tried, flags=flags, minor=minor)
        targets = codec.decode_table(buffer, header)
        if secure:
            buffer[:] = bytes(len(buffer))
        return _status(header), targets

    def _on(
        self, address: Address, command: str, tried: str, minor: int = 0, **fields: Any
    ) -> tuple[bytearray, codec.Header]:
        if command not in _EXPLAINED:
            return self._call(
                command, tried, device=str(address), minor=max(minor, _BY_DEV), **address.fields(), **fields
            )
        # Only errors of a few ioctls need this, and regular expressions take long to import.
        from . import kernel_log

        with kernel_log.KernelLog() as log:
            try:
                return self._call(
                    command,
                    tried,
                    device=str(address),
                    minor=max(minor, _BY_DEV),
                    **address.fields(),
                    **fields,
                )
            except BlockError as error:
                # DeviceGone if the device itself is gone. A missing device below it also gives ENXIO.
                status = self.status(address)
                reason = kernel_log.find_reason(log.lines(), status.number)
                raise KernelError(
                    error.message
                    if isinstance(error, KernelError)
                    else f"cannot {tried}: a device that it needs is not there",
                    device=error.device,
                    errno=error.errno,
                    hint=reason and f"The kernel's reason: {reason}",
                ) from error

    def _call(
        self,
        command: str,
        tried: str,
        device: str | None = None,
        minor: int = 0,
        room: int = _ROOM,
        **fields: Any,
    ) -> tuple[bytearray, codec.Header]:
        """
        ``(buffer, Header)`` of one ioctl, retried with a buffer of twice the size while the answer does not
        fit.
        """
        lib = uapi.lib
        version = (4, max(minor, _MINORS[command]), 0)
        secure = fields.get("flags", 0) & lib.DM_SECURE_DATA_FLAG
        while True:
            buffer = codec.encode(version, room=room, **fields)
            try:
                fcntl.ioctl(self.fd, getattr(lib, command), buffer)
            except OSError as error:
                if error.errno in gone.MAPPED:
                    raise DeviceGone(
                        "there is no such mapped device", device=device, errno=error.errno
                    ) from error
                raise KernelError.from_oserror(error, tried, device=device) from error
            finally:
                if secure and command in ("DM_TABLE_LOAD", "DM_TARGET_MSG"):
                    buffer[codec.HEADER :] = bytes(len(buffer) - codec.HEADER)
            header = codec.decode_header(buffer)
            if not header.flags & lib.DM_BUFFER_FULL_FLAG:
                return buffer, header
            room *= 2


def _status(header: codec.Header) -> MappedStatus:
    major, minor = codec.decode_dev(header.dev)
    return MappedStatus(
        os.fsdecode(header.name),
        os.fsdecode(header.uuid),
        major,
        minor,
        header.open_count,
        header.event_nr,
        header.flags,
        header.target_count,
    )
