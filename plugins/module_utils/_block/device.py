# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
An open block device: its identity, and the file descriptor that proves it.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

The kernel reuses ``major:minor`` and names as soon as nothing holds a device open. So each ``open_*``
function opens the device first, then verifies the identity through the open file descriptor, and returns both
as a :class:`Device`. While the descriptor is open, its number cannot be given to another device
(block/bdev.c: an open block device keeps its dev_t).
"""

from __future__ import annotations

import _struct as struct  # the module struct only adds a file to find and read
import errno
import fcntl
import os
import stat
import time

from .._base import digits, files, gone
from .._base.errors import DeviceBusy, DeviceGone, InvalidValue, KernelError, NotSupported, WrongDevice
from .._base.files import kind_of_file
from .._base.record import Record
from .._kernel import uapi_plain
from . import boot
from . import node as _node
from . import sysfs as _sysfs

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from typing import Any


_U64_MAX = 2**64 - 1
# include/uapi/linux/major.h
LOOP_MAJOR = 7
# What LOOP_GET_STATUS64 returns if the file's storage fails: the loop driver asks the file system for the
# inode number (vfs_getattr in loop_get_status), and returns its error. The driver's own ones are ENXIO,
# EINTR, ENOMEM and EFAULT, and a security module's is EACCES. From fs/fuse/dev.c, for a server that has
# ended, ends or has failed to start: ENOTCONN, ECONNABORTED, ECONNREFUSED. From NFS, SMB and 9p, for a file
# that the server does not know any more: ESTALE, ENOENT; for a server that cannot be reached: the other
# network errors. EIO: a file system that was shut down (xfs), or any storage.
LOOP_STORAGE = (
    errno.EIO,
    errno.ENOENT,
    errno.ENODEV,
    errno.EREMOTEIO,
    errno.ESTALE,
    errno.ENOTCONN,
    errno.ESHUTDOWN,
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EPIPE,
    errno.ETIMEDOUT,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
)
_STATUS_SIZE = struct.calcsize(uapi_plain.LOOP_INFO64)
_BY_DISKSEQ = "/dev/disk/by-diskseq/"


class DeviceId(Record):
    """
    The identity of a device, unique during this boot: a ``diskseq`` is never reused (block/genhd.c, Linux
    5.15).
    """

    major: int
    minor: int
    diskseq: int

    @property
    def number(self) -> str:
        """``major:minor`` in decimal, the form used in device-mapper tables and sysfs."""
        return f"{self.major}:{self.minor}"

    @property
    def rdev(self) -> int:
        """The device number in the form of st_rdev."""
        return os.makedev(self.major, self.minor)


class Device:
    """
    A block device and the open file descriptor that proves its identity. Leaving the context closes the
    descriptor.

    ``id`` (DeviceId), ``fd`` (int), ``name`` (the kernel's, such as ``dm-3``), ``writable``. Sizes are in
    bytes.
    """

    __slots__ = ("fd", "id", "name", "writable")

    def __init__(self, fd: int, device_id: DeviceId, name: str, writable: bool = False) -> None:
        self.fd = fd
        self.id = device_id
        self.name = name
        self.writable = writable

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "" if self.fd >= 0 else " closed"
        return f"<Device {self.name} {self.id.number} diskseq {self.id.diskseq}{state}>"

    def close(self) -> None:
        """Close the descriptor. The number may be reused from then on. Can be called twice."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)

    @property
    def path(self) -> str:
        """The path of the node. It names this device for as long as the device is open."""
        return "/dev/" + self.name

    @property
    def has_node(self) -> bool:
        """Whether :attr:`path` leads to this device. The node can be missing, or belong to another device."""
        return _node.is_node_of(self.path, self.id.rdev)

    def need_node(self) -> None:
        """Raise WrongDevice unless :attr:`path` leads to this device. For callers that pass the path on."""
        if not self.has_node:
            raise WrongDevice(
                "its node in /dev is missing or belongs to another device",
                device=self.path,
                hint=_node.advice(self.name, self.id.major, self.id.minor),
            )

    @property
    def held_path(self) -> str:
        """
        A path that leads to this device for as long as it is held. For programs that accept only a path.
        """
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    @property
    def partition(self) -> int | None:
        """
        The partition number, or None for a whole disk. DeviceGone if the kernel no longer has the device.
        """
        if _is_whole(self.sysfs):
            return None
        text = _sysfs.read(f"{self.sysfs}/partition")
        if text is not None:
            return int(text)
        # Checked last: a device that disappears in between would look like a whole disk.
        if _sysfs.read(f"{self.sysfs}/dev") is None:
            raise DeviceGone("it is gone, or is a partition that was deleted", device=self.id.number)
        return None

    @property
    def by_diskseq(self) -> str | None:
        """
        udev's link to this device or partition by disk sequence number; None if the kernel no longer has the
        device.
        """
        return self._partition_and_link()[1]

    @property
    def size(self) -> int:
        """Size in bytes (BLKGETSIZE64)."""
        return _get(self.fd, uapi_plain.BLKGETSIZE64, "Q", self.name)

    @property
    def logical_block(self) -> int:
        """Logical block size in bytes (BLKSSZGET)."""
        return _get(self.fd, uapi_plain.BLKSSZGET, "i", self.name)

    @property
    def read_only(self) -> bool:
        """Whether the device is read-only (BLKROGET)."""
        return bool(_get(self.fd, uapi_plain.BLKROGET, "i", self.name))

    @property
    def sysfs(self) -> str:
        """The device's directory in sysfs."""
        return f"/sys/dev/block/{self.id.number}"

    def prove(self) -> None:
        """
        Raise WrongDevice unless the descriptor still refers to the medium that was opened; DeviceGone if
        there is no medium any more.

        While a device is held, a drive can get another medium, and a loop device another file. Both change
        the diskseq.
        """
        check_bound(self.fd, self.id.major, self.path)
        now = read_diskseq(self.fd, self.name)
        if now != self.id.diskseq:
            raise WrongDevice(
                f"its diskseq is now {now}, it was {self.id.diskseq} when it was opened", device=self.path
            )

    def duplicate(self) -> Device:
        """Another Device with its own descriptor, for a holder that outlives this one."""
        return Device(fcntl.fcntl(self.fd, fcntl.F_DUPFD_CLOEXEC, 3), self.id, self.name, self.writable)

    def _partition_and_link(self) -> tuple[int | None, str | None]:
        try:
            partition = self.partition
        except DeviceGone:
            return None, None
        return partition, f"/dev/disk/by-diskseq/{self.id.diskseq}" + (
            "" if partition is None else f"-part{partition}"
        )

    def as_dict(self) -> dict[str, Any]:
        """
        The identity as plain data, as every module of the collection returns it. ``path`` is None if the node
        is missing or belongs to another device.
        """
        partition, link = self._partition_and_link()
        return {
            "path": self.path if self.has_node else None,
            "name": self.name,
            "major": self.id.major,
            "minor": self.id.minor,
            "diskseq": self.id.diskseq,
            "boot_id": boot.boot_id(),
            "partition": partition,
            "by_diskseq": link,
            "size": self.size,
            "sector_size": self.logical_block,
            "read_only": self.read_only,
        }


def check_diskseq(value: object, option: str = "diskseq") -> int:
    """A disk sequence number as an int from 1 to 2**64-1, or InvalidValue. The kernel never assigns 0."""
    text = str(value)
    if isinstance(value, bool) or not digits.is_decimal(text, 20) or not 1 <= int(text) <= _U64_MAX:
        raise InvalidValue(option, value, "must be a disk sequence number, a whole number from 1 to 2^64-1")
    return int(text)


def open_path(path: str, writable: bool = False, diskseq: int | None = None, option: str = "path") -> Device:
    """
    Open a block device by a path, and verify its identity.

    ``diskseq`` is the expected disk sequence number (otherwise WrongDevice). A path that ends in the kernel's
    own name of a device, ``/dev/NAME``, means that device: it is opened even if its node is missing. If its
    node belongs to another device, WrongDevice is raised. A path in /dev/disk/by-diskseq means the disk with
    this number, or its partition: udev makes and removes its links there late, so a link is no proof.

    Raises InvalidValue if the path is not absolute or does not lead to a block device, DeviceGone if nothing
    is there, KernelError.
    """
    files.check_path(path, option, "an absolute path of a block device")
    plain = "/" + os.path.normpath(path).lstrip("/")
    if plain.startswith(_BY_DISKSEQ):
        return _open_by_diskseq(plain[len(_BY_DISKSEQ) :], path, writable, diskseq, option)
    return _open_path(path, writable, diskseq, option)


def _open_by_diskseq(name: str, path: str, writable: bool, diskseq: int | None, option: str) -> Device:
    number, mark, partition = name.partition("-part" if "-" in name else "p")
    numbers = (number, partition) if mark else (number,)
    if not all(digits.is_decimal(text, 20) and text[0] != "0" for text in numbers):
        raise InvalidValue(option, path, "must end with a disk sequence number N, or N-partM")
    if diskseq not in (None, int(number)):
        raise WrongDevice(f"its name says diskseq {number}, not {diskseq}", device=path)
    if not mark:
        return open_diskseq(number, writable)
    device = _open_path(path, writable, check_diskseq(number, option), option)
    try:
        if device.partition != int(partition):
            raise WrongDevice(f"its link leads to {device.path}", device=path)
    except BaseException:
        device.close()
        raise
    return device


def _open_path(path: str, writable: bool, diskseq: int | None, option: str) -> Device:
    try:
        # O_PATH has no side effects. A normal open of a FIFO, a tape or a watchdog would have some.
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in gone.PATH:
            raise KernelError.from_oserror(error, f"open {path}", device=path) from error
        number = _sysfs.number_named(path)
        if number is None:
            raise DeviceGone("there is no such device", device=path, errno=error.errno) from error
        return open_number(*number, writable=writable, diskseq=diskseq)
    try:
        there = os.fstat(handle)
        if not stat.S_ISBLK(there.st_mode):
            raise InvalidValue(
                option, path, f"is a {kind_of_file(there.st_mode)}, and must be a block device"
            )
        device = _reopen(f"/proc/self/fd/{handle}", path, writable, there.st_rdev)
    finally:
        os.close(handle)
    return _expect(device, diskseq, path)


def open_number(major: int, minor: int, writable: bool = False, diskseq: int | None = None) -> Device:
    """
    Open the device that currently has the number ``major:minor``; DeviceGone if there is none.

    If its node in /dev is missing or belongs to another device, a private node is used.
    """
    name = _sysfs.kernel_name(major, minor)
    if name is None:
        raise DeviceGone("no block device has this number", device=f"{major}:{minor}")
    path = f"/dev/{name}"
    try:
        fd = _node.open_node(name, major, minor, os.O_RDWR if writable else os.O_RDONLY)
    except OSError as error:
        raise _open_failed(error, path) from error
    return _expect(_from_opened(fd, writable), diskseq, path)


def open_diskseq(diskseq: object, writable: bool = False) -> Device:
    """Open the whole disk that has this disk sequence number; DeviceGone if there is none (any more)."""
    wanted = check_diskseq(diskseq)
    gone.need_sysfs()
    for name in gone.list_directory("/sys/block"):
        if _sysfs.read(f"/sys/block/{name}/diskseq") != str(wanted):
            continue
        number = _sysfs.parse_number(_sysfs.read(f"/sys/block/{name}/dev") or "")
        if number is None:
            break
        try:
            # sysfs only tells where to look: the descriptor is the proof.
            return open_number(*number, writable=writable, diskseq=wanted)
        except (WrongDevice, DeviceGone):
            break
    raise DeviceGone(
        f"no disk has the disk sequence number {wanted}",
        device=f"diskseq:{wanted}",
        hint="It was removed, or given another medium, or the number is from before the last boot",
    )


def is_claimed(device: Device) -> bool:
    """
    Whether someone has the device open exclusively: a mount, a mapped device, md, swap, an opener with O_EXCL
    (block/bdev.c).

    Other openers, such as blkback or QEMU, are not detected. Raises KernelError.
    """
    # Another process that does this check also has it open exclusively for a moment.
    for pause in (0.002, 0.01, None):
        try:
            handle = _node.open_block(
                f"/proc/self/fd/{device.fd}", os.O_RDONLY | os.O_EXCL | _node.OPEN_FLAGS
            )
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise KernelError.from_oserror(error, "open it exclusively", device=device.path) from error
            if pause is not None:
                time.sleep(pause)
        else:
            os.close(handle)
            return False
    return True


def _is_whole(link: str) -> bool:
    """
    Whether sysfs shows a whole disk there. Most disks have the path ``.../block/NAME``; a partition is below
    its disk.
    """
    try:
        return os.readlink(link).split("/")[-2:-1] == ["block"]
    except OSError as error:
        if error.errno in gone.SYSFS:
            return False
        raise gone.not_seen(error, link) from error


def _reopen(link: str, path: str, writable: bool, rdev: int) -> Device:
    """
    Open the device behind the node with the number ``rdev`` that ``link`` leads to. ``path`` is what the user
    gave.
    """
    try:
        device = _from_opened(_open_link(link, path, writable), writable)
    except DeviceGone:
        _refuse_foreign(path, rdev)
        raise
    if path != device.path:
        try:
            _refuse_foreign(path, rdev)
        except BaseException:
            device.close()
            raise
    return device


def _refuse_foreign(path: str, rdev: int) -> None:
    """
    Raise WrongDevice if the path is the kernel's name of another device: the node then does not belong to
    that device.
    """
    number = _sysfs.number_named(path)
    if number is not None and os.makedev(*number) != rdev:
        name = _sysfs.kernel_name(*number) or "NAME"
        raise WrongDevice(
            f"this node has the number {os.major(rdev)}:{os.minor(rdev)}, "
            f"but {name} has {number[0]}:{number[1]}",
            device=path,
            hint=_node.advice(name, *number),
        )


def _open_link(link: str, path: str, writable: bool) -> int:
    try:
        return _node.open_block(link, (os.O_RDWR if writable else os.O_RDONLY) | _node.OPEN_FLAGS)
    except OSError as error:
        raise _open_failed(error, path) from error


def _open_failed(error: OSError, path: str) -> DeviceGone | DeviceBusy | KernelError:
    """The error for a failed open of an existing node."""
    if error.errno in gone.DISK:
        return DeviceGone("the node has no device behind it", device=path, errno=error.errno)
    if error.errno == errno.EBUSY:
        return DeviceBusy(
            "it cannot be opened: someone has it open exclusively", device=path, errno=error.errno
        )
    return KernelError.from_oserror(error, f"open {path}", device=path)


def _from_opened(fd: int, writable: bool) -> Device:
    """Like :func:`from_fd`, but closes the descriptor on failure."""
    try:
        return from_fd(fd, writable)
    except BaseException:
        os.close(fd)
        raise


def from_fd(fd: int, writable: bool = False) -> Device:
    """Create a Device that takes over an open descriptor of a block device."""
    opened = os.fstat(fd)
    if not stat.S_ISBLK(opened.st_mode):
        raise WrongDevice(f"the descriptor leads to a {kind_of_file(opened.st_mode)}, not to a block device")
    major, minor = os.major(opened.st_rdev), os.minor(opened.st_rdev)
    number = f"{major}:{minor}"
    diskseq = read_diskseq(fd, number)
    # The descriptor pins the number, so sysfs cannot show another device under it. A removed disk has no
    # entry.
    name = _sysfs.kernel_name(major, minor)
    if name is None:
        raise DeviceGone("it went away while it was being opened", device=number)
    return Device(fd, DeviceId(major, minor, diskseq), name, writable)


def check_bound(fd: int, major: int, path: str) -> None:
    """
    Raise DeviceGone if this is a loop device without a file. Other devices pass.

    If others hold the device, LOOP_CLR_FD leaves its file bound until the last close. Before Linux 6.11, an
    open during the detach succeeds too (drivers/block/loop.c, loop_clr_fd), still with the old diskseq, and
    the device can then be bound to another file. LOOP_GET_STATUS64 fails from the start of the detach. So
    once it has succeeded for a descriptor, the device keeps its file while the descriptor is open.
    """
    if major != LOOP_MAJOR:
        return
    try:
        fcntl.ioctl(fd, uapi_plain.LOOP_GET_STATUS64, bytearray(_STATUS_SIZE))
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise DeviceGone(
                "no file is bound to this loop device (any more)", device=path, errno=error.errno
            ) from error
        if error.errno in LOOP_STORAGE:
            # The driver asks the storage only if a file is bound.
            return
        raise KernelError.from_oserror(error, "read the loop device's status", device=path) from error


def _expect(device: Device, diskseq: int | None, path: str) -> Device:
    if diskseq is not None:
        try:
            check_bound(device.fd, device.id.major, path)
        except BaseException:
            device.close()
            raise
    if diskseq is not None and device.id.diskseq != diskseq:
        found = device.id.diskseq
        device.close()
        raise WrongDevice(
            f"its disk sequence number is {found}, not {diskseq}",
            device=path,
            hint="The name now belongs to a device other than the requested one; nothing was done",
        )
    return device


def read_diskseq(fd: int, name: str) -> int:
    """BLKGETDISKSEQ of an open block device; NotSupported on a kernel without it (before Linux 5.15)."""
    try:
        number = _get(fd, uapi_plain.BLKGETDISKSEQ, "Q", name)
    except KernelError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL):
            raise NotSupported(
                "this kernel has no disk sequence numbers",
                device=name,
                errno=error.errno,
                hint="Linux 5.15 or newer is needed to tell devices apart",
            ) from error
        raise
    if number == 0:
        raise WrongDevice("the kernel gave the disk sequence number 0, which is never valid", device=name)
    return number


def _get(fd: int, request: int, form: str, name: str) -> int:
    buffer = bytearray(struct.calcsize(form))
    try:
        fcntl.ioctl(fd, request, buffer)
    except OSError as error:
        raise KernelError.from_oserror(
            error, f"ask the device ({_request_name(request)})", device=name
        ) from error
    return int(struct.unpack(form, buffer)[0])


def _request_name(request: int) -> str:
    for name in ("BLKGETSIZE64", "BLKSSZGET", "BLKROGET", "BLKGETDISKSEQ"):
        if getattr(uapi_plain, name) == request:
            return name
    return hex(request)
