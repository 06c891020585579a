# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Loop devices: make, find, change, remove.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A loop device is known by its backing file's device and inode, its offset and its size limit: ``lo_file_name`` is cut at
63 bytes and may lie. Behaviour noted here was seen on Linux 6.1, 6.12 and 6.18 (drivers/block/loop.c).
"""

from __future__ import annotations

import _struct as struct  # the module struct adds nothing but a file to be found and read
import errno
import fcntl
import os
import stat
import time

from .._base import gone
from .._base.deadline import Deadline, pauses
from .._base.errors import (
    DeadlineExceeded,
    DeviceBusy,
    DeviceGone,
    InvalidValue,
    KernelError,
    NotSupported,
    WrongDevice,
    hint_of,
)
from .._base.files import open_regular
from .._base.record import Record
from .._kernel import uapi_plain
from . import device as _device
from . import mounts as _mounts
from .in_time import each_in_time

CONTROL = "/dev/loop-control"
# For how long a device that nobody has open may take to lose its file.
_GOING_SECONDS = 1.0
# No file has such a path, and none had it when a device was made.
NO_SUCH_FILE = (errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
MAJOR = 7
# What LOOP_CONFIGURE answers when another process took the free number first, or it is just being removed.
_TAKEN = (errno.EBUSY, errno.EAGAIN, errno.ENXIO, errno.ENOENT, errno.ENODEV)
_ATTACH_SECONDS = 30
# Seconds that a device has for telling its status, and for which one that has not is left in peace; by name and diskseq, and until when.
_ANSWER_SECONDS, _SILENT_SECONDS = 2, 60
_SILENT = {}
_PAGE = os.sysconf("SC_PAGE_SIZE")
_STATUS = struct.Struct(uapi_plain.LOOP_INFO64)
_CONFIG = struct.Struct(uapi_plain.LOOP_CONFIG)


class LoopInfo(Record):
    """LOOP_GET_STATUS64 of a bound loop device; ``offset`` and ``sizelimit`` in bytes, ``sizelimit`` 0 is "to the end"."""

    number: int
    backing_device: int
    backing_inode: int
    offset: int
    sizelimit: int
    flags: int

    @property
    def read_only(self):
        return bool(self.flags & uapi_plain.LO_FLAGS_READ_ONLY)

    @property
    def autoclear(self):
        return bool(self.flags & uapi_plain.LO_FLAGS_AUTOCLEAR)

    @property
    def partitions(self):
        return bool(self.flags & uapi_plain.LO_FLAGS_PARTSCAN)

    @property
    def direct_io(self):
        return bool(self.flags & uapi_plain.LO_FLAGS_DIRECT_IO)


class Backing:
    """An open backing file: ``path`` as given, ``fd``, ``device`` and ``inode`` that identify it, ``size`` in bytes, ``mtime_ns``."""

    def __init__(self, path, read_only=False, option="backing_file"):
        self.path = path
        self.read_only = read_only
        self.fd = _open_backing(path, read_only, option)
        there = os.fstat(self.fd)
        self.device, self.inode, self.size, self.mtime_ns = (
            there.st_dev,
            there.st_ino,
            there.st_size,
            there.st_mtime_ns,
        )

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)


def check_geometry(backing, offset=0, size=0, sector_size=None):
    """
    Raise InvalidValue unless the area fits the file and whole sectors; all in bytes, ``size`` 0 is "to the end of the file".

    Checked before the kernel sees it: it announces a new medium before it refuses a block size.
    """
    block = 512 if sector_size is None else sector_size
    if not 512 <= block <= _PAGE or block & (block - 1):
        raise InvalidValue(
            "sector_size", sector_size, f"must be a power of 2 from 512 to {_PAGE} bytes", device=backing.path
        )
    if offset < 0 or offset % 512:
        raise InvalidValue(
            "offset", offset, "must be a multiple of 512 bytes, 0 or more", device=backing.path
        )
    if size < 0 or size % block:
        raise InvalidValue(
            "size", size, f"must be a multiple of the sector size, {block} bytes", device=backing.path
        )
    if not backing.size:
        raise InvalidValue(
            "backing_file", backing.path, "is empty: give it the size that the disk shall have"
        )
    if offset + size > backing.size or offset >= backing.size:
        what, value = ("size", size) if size and offset < backing.size else ("offset", offset)
        raise InvalidValue(
            what, value, f"must lie inside the file, which has {backing.size} bytes", device=backing.path
        )
    rest = backing.size - offset
    if not size and rest % block:
        raise InvalidValue(
            "backing_file",
            backing.path,
            f"has {rest} bytes there, not a multiple of the sector size {block}: the last {rest % block} bytes would be cut off; "
            f"pad the file, or say size={rest - rest % block}",
        )


def check_direct_io(backing):
    """Raise NotSupported when the file system has no direct I/O at all; its alignment is only known once it is bound."""
    try:
        os.close(os.open(f"/proc/self/fd/{backing.fd}", os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC))
    except OSError as error:
        raise _no_direct_io(backing.path) from error


def attach(
    backing,
    offset=0,
    size=0,
    sector_size=None,
    read_only=False,
    direct_io=False,
    partitions=False,
    seconds=None,
):
    """
    Bind a free loop device to the open file and return it, held, with autoclear set.

    Until :func:`set_autoclear` takes that back the device goes with its last user, also when this process is killed.
    Offsets and sizes in bytes; ``seconds`` limits the tries when others take each free device first. Raises InvalidValue, NotSupported
    (direct I/O, kernel), DeadlineExceeded, KernelError.
    """
    check_geometry(backing, offset, size, sector_size)
    flags = (
        uapi_plain.LO_FLAGS_AUTOCLEAR
        | (uapi_plain.LO_FLAGS_PARTSCAN if partitions else 0)
        | (uapi_plain.LO_FLAGS_DIRECT_IO if direct_io else 0)
    )
    if read_only or backing.read_only:
        flags |= uapi_plain.LO_FLAGS_READ_ONLY
    config = _configuration(backing, offset, size, sector_size, flags)
    seconds = _ATTACH_SECONDS if seconds is None else seconds
    until = time.monotonic() + seconds
    last = None
    with _Control() as control:
        while True:
            number = control.free_number()
            device = _bind(number, config, backing, not flags & uapi_plain.LO_FLAGS_READ_ONLY)
            if device is not None:
                break
            if time.monotonic() > until:
                raise DeadlineExceeded("a free loop device", seconds, device=backing.path)
            if number == last:
                # Not a rival binding his file, but somebody who has this free device open exclusively for a while.
                time.sleep(0.001)
            last = number
    try:
        _check_bound(device, backing, direct_io)
    except BaseException:
        device.close()
        raise
    return device


def info(device):
    """LoopInfo of a held loop device; DeviceGone when no file is bound to it."""
    try:
        status = _get_status(device.fd)
    except OSError as error:
        if error.errno in gone.LOOP_FILE:
            raise DeviceGone("no file is bound to it", device=device.path, errno=error.errno) from error
        raise KernelError.from_oserror(error, "read the loop device's status", device=device.path) from error
    return LoopInfo(
        *(status["lo_" + name] for name in ("number", "device", "inode", "offset", "sizelimit", "flags"))
    )


def backing_path(device):
    """The backing file's path as sysfs tells it (a deleted file's ends in `` (deleted)``), or None."""
    return _device.read_sysfs(f"{device.sysfs}/loop/backing_file")


def is_loop(device):
    return device.id.major == MAJOR


def bound_numbers(files=None):
    """
    Minor numbers of the loop devices that have a file now, from sysfs: where to look, not a proof.

    ``files``: a set of ``(st_dev, st_ino)``, to leave out the devices that have none of them.
    """
    if files is None:
        names = _bound_names()
    else:
        there = statuses({device for device, dummy in files})
        return sorted(status["minor"] for dummy, status in there if _file_of(status) in files)
    numbers = [_number_of(name) for name in names]
    return sorted(number[1] for number in numbers if number is not None)


def _bound_names():
    gone.need_sysfs()
    names = gone.list_directory("/sys/block")
    return [name for name in names if is_name(name) and gone.exists(f"/sys/block/{name}/loop")]


def _bound_paths():
    """``{name: path of its file}`` of the loop devices that have a file now, as sysfs tells both."""
    gone.need_sysfs()
    names = [name for name in gone.list_directory("/sys/block") if is_name(name)]
    paths = {name: _device.read_sysfs(f"/sys/block/{name}/loop/backing_file") for name in names}
    return {name: path for name, path in paths.items() if path is not None}


def statuses(devices, paths=None):
    """
    Yield ``(name, status)`` (see :func:`read_status`) of the bound loop devices, as far as their file may be on one of the file systems ``devices``
    (st_dev).

    ``paths``: those of :func:`_bound_paths`, if they were read already. One that does not answer is left out
    when sysfs says that its file is on another one; otherwise DeadlineExceeded.
    """
    mounts, elsewhere = None, []
    for name, path in (_bound_paths() if paths is None else paths).items():
        mounts = mounts or _mounts.read()
        if _mounts.is_elsewhere(path, devices, mounts):
            elsewhere.append(name)
            continue
        status = read_status(name)
        if status is not None:
            yield name, status
    yield from _statuses_in_time(elsewhere)


def _statuses_in_time(names):
    """The same, of those whose file should be on another file system; those that do not answer are left out."""
    asked = {}
    for name in names:
        key = name, _device.read_sysfs(f"/sys/block/{name}/diskseq")
        # One that was silent is not waited for by each look.
        if time.monotonic() >= _SILENT.get(key, 0):
            asked[name] = key
    for name, answered, status in each_in_time(read_status, asked, _ANSWER_SECONDS):
        if not answered:
            _SILENT[asked[name]] = time.monotonic() + _SILENT_SECONDS
        elif status is not None:
            yield name, status


def _file_of(status):
    return status["lo_device"], status["lo_inode"]


def is_name(name):
    """Whether the kernel calls a loop device so: not a partition of one, nor loop-control."""
    return name.startswith("loop") and name[4:].isdigit()


def _number_of(name):
    """
    ``(major, minor)`` of the loop device that the kernel calls so, or None. The minor is another number when
    they have partitions' (max_part).
    """
    return _device.parse_number(_device.read_sysfs(f"/sys/block/{name}/dev") or "")


def read_status(name):
    """
    LOOP_GET_STATUS64, as a dictionary with the ``minor`` number, of the loop device that the kernel calls so,
    or None when no file is bound to it or there is no such device.

    It is not held.
    """
    try:
        status = _status_at(f"/dev/{name}")
        if status is not None and status["lo_number"] == int(name[4:]):
            return status
        # Not bound, or the node is missing or another device's.
        number = _number_of(name)
        if number is None:
            return None
        fd = _device.open_node(name, *number, os.O_RDONLY)
        try:
            return dict(_get_status(fd), minor=number[1])
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in gone.LOOP_FILE or error.errno in gone.DISK:
            return None
        tried = "read the loop device's status"
        raise KernelError.from_oserror(error, tried, device=f"/dev/{name}") from error


def _status_at(path):
    """
    The status of the loop device whose node it is, None when there is no such node or it has none; OSError
    for any other reason.
    """
    try:
        there = os.lstat(path)
        if not stat.S_ISBLK(there.st_mode) or os.major(there.st_rdev) != MAJOR:
            return None
        fd = _device.open_block(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            return dict(_get_status(fd), minor=os.minor(there.st_rdev))
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in gone.PATH or error.errno in gone.LOOP_FILE or error.errno in gone.DISK:
            return None
        raise


def open_bound(files=None):
    """
    Yield ``(Device, LoopInfo)`` for each bound loop device; the caller closes each Device.

    ``files``: as for :func:`bound_numbers`; the devices that are left out are not opened to be proved, which takes most of the time.
    """
    for minor in bound_numbers(files):
        device, status = _open_if_bound(minor)
        if device is not None:
            yield device, status


def is_same(status, backing, offset=0, size=0):
    """Whether the bound file, offset and size limit (bytes) are these."""
    return (status.backing_device, status.backing_inode, status.offset) == (
        backing.device,
        backing.inode,
        offset,
    ) and status.sizelimit in _same_limits(backing, offset, size)


class LoopIndex:
    """
    Which files the bound loop devices have, read once for a run over many files.

    It only says where to look: whatever :meth:`find` returns was opened and proved then.
    """

    def __init__(self):
        # By file system, each read when the first of its files is asked for.
        self._minors = {}
        self._paths = self._names = None
        self._directories = {}
        self._made = []
        self._left_out = ()
        self._going = set()

    def leave_out(self, devices):
        """Do not find these, a set of ``(major, minor, diskseq)``."""
        self._left_out = devices

    def expect_gone(self, devices):
        """The run is to remove these before it makes what is planned now: do not find them to be in the way."""
        self._going.update(device.id for device in devices)

    def expect_nothing(self):
        """What was to be removed first has been, or is in the way."""
        self._going.clear()

    def forget(self):
        """Have everything read again: others may have made loop devices since."""
        self._minors, self._paths, self._names = {}, None, None

    def real(self, path):
        """os.path.realpath of a file; the directories of a run's files are few."""
        directory, name = os.path.split(path)
        if name in ("", ".", ".."):
            return os.path.realpath(path)
        if directory not in self._directories:
            self._directories[directory] = os.path.realpath(directory)
        found = os.path.join(self._directories[directory], name)
        try:
            return os.path.realpath(found) if stat.S_ISLNK(os.lstat(found).st_mode) else found
        except OSError as error:
            if error.errno in gone.PATH or error.errno in NO_SUCH_FILE:
                return found
            raise gone.not_seen(error, found) from error

    def find(self, backing, offset=0, size=0):
        """All loop devices over this file, offset and size (bytes), held, as a list of ``(Device, LoopInfo)``."""
        return self._opened(
            self._minors_of((backing.device, backing.inode)),
            lambda status: is_same(status, backing, offset, size),
        )

    def over(self, file, with_going=False):
        """
        All loop devices over any part of the file ``(st_dev, st_ino)``, held, as a list of ``(Device, LoopInfo)``.

        ``with_going``: with those of :meth:`expect_gone`, too.
        """
        found = self._opened(
            self._minors_of(file), lambda status: (status.backing_device, status.backing_inode) == file
        )
        return found if with_going else self._staying(found)

    def _staying(self, found):
        for device, dummy in found:
            if device.id in self._going:
                device.close()
        return [row for row in found if row[0].id not in self._going]

    def named(self, paths):
        """All loop devices for whose file sysfs tells one of these paths now, held, as a list of ``(Device, LoopInfo)``: no proof of anything."""
        if self._names is None:
            self._names = {}
            for name, path in self._bound().items():
                self._names.setdefault(path, set()).add(name)
        numbers = [_number_of(name) for path in paths for name in self._names.get(path, ())]
        minors = {number[1] for number in numbers if number is not None}
        return self._staying(self._opened(minors, lambda status: True))

    def _bound(self):
        if self._paths is None:
            self._paths = _bound_paths()
        return self._paths

    def _opened(self, minors, is_wanted):
        found = []
        try:
            for minor in sorted(minors):
                device, status = _open_if_bound(minor)
                if device is None:
                    continue
                if is_wanted(status) and tuple(device.id)[:3] not in self._left_out:
                    found.append((device, status))
                else:
                    device.close()
        except BaseException:
            for device, _status in found:
                device.close()
            raise
        return found

    def add(self, device, status):
        """Take note of a loop device made since, which the caller holds."""
        self._made.append((device, status))
        if self._names is not None:
            self._names.setdefault(backing_path(device), set()).add(device.name)
        file = status.backing_device, status.backing_inode
        self._minors_of(file)
        self._minors[file[0]].setdefault(file, set()).add(device.id.minor)

    def doubles(self):
        """
        Look again, once after everything was made: ``{DeviceId: DeviceBusy}`` for each loop device noted with :meth:`add` that has a double, made
        meanwhile by a program that does not ask for our locks (``_base.locks``). Looked for under the path that sysfs tells.
        """
        found = {}
        numbers = {status.number for device, status in self._made if device.fd >= 0}
        made = {backing_path(device): (device, status) for device, status in self._made if device.fd >= 0}
        for name in os.listdir("/sys/block") if made else ():
            if name.startswith("loop") and name[4:].isdigit() and int(name[4:]) not in numbers:
                own = made.get(_device.read_sysfs(f"/sys/block/{name}/loop/backing_file"))
                error = own and _double(name, *own)
                if error:
                    found[own[0].id] = error
        return found

    def _minors_of(self, file):
        """The minor numbers of those that have the file ``(st_dev, st_ino)``."""
        scanned = self._minors.get(file[0])
        if scanned is None:
            scanned = self._minors[file[0]] = {}
            for dummy, status in statuses({file[0]}, self._bound()):
                if status["lo_device"] == file[0]:
                    scanned.setdefault(_file_of(status), set()).add(status["minor"])
        return scanned.get(file, ())


def _double(name, device, status):
    """The error for a held loop device when the one with this name has the same part of the same file; else None."""
    number = _device.parse_number(_device.read_sysfs(f"/sys/block/{name}/dev") or "")
    other, has = _open_if_bound(number[1]) if number else (None, None)
    if other is None:
        return None
    with other:
        alike = ("backing_device", "backing_inode", "offset", "sizelimit", "read_only")
        if any(getattr(has, what) != getattr(status, what) for what in alike):
            return None
        return DeviceBusy(
            f"another program bound it to {other.path} while it was being bound to {device.path}",
            device=backing_path(device),
            hint="The device that was made here is gone again. Try again: then that one is found",
        )


def find(backing, offset=0, size=0):
    """LoopIndex.find for one file."""
    return LoopIndex().find(backing, offset, size)


def set_autoclear(device, wanted):
    """Whether the device goes with its last user. SET_STATUS64 may set and clear this flag and changes no diskseq."""
    _set_flags(device, uapi_plain.LO_FLAGS_AUTOCLEAR, wanted)


def set_partitions(device):
    """Have the kernel scan for partitions; this cannot be taken back on a bound device."""
    _set_flags(device, uapi_plain.LO_FLAGS_PARTSCAN, True)


def set_direct_io(device, wanted):
    """Switch direct I/O; NotSupported when the file or its file system is not aligned for it."""
    try:
        fcntl.ioctl(device.fd, uapi_plain.LOOP_SET_DIRECT_IO, int(wanted))
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise _no_direct_io(device.path) from error
        raise KernelError.from_oserror(error, "switch direct I/O", device=device.path) from error


def set_capacity(device):
    """Let the device follow the size of its file, which has changed."""
    try:
        fcntl.ioctl(device.fd, uapi_plain.LOOP_SET_CAPACITY, 0)
    except OSError as error:
        raise KernelError.from_oserror(error, "take over the file's new size", device=device.path) from error


def cut(device, has, left, otherwise):
    """The error for a device that has more bytes than its file has left for it: who reads or writes behind the new end gets errors."""
    return DeviceBusy(
        f"the file was cut while it was bound: the device has {has} bytes, and {left} are left",
        device=device.path,
        hint=f"Give the file its size back (truncate --size), or {otherwise}",
    )


def detach(device, deferred=False, timeout=5.0):
    """
    Take the file off a held loop device, close it, and return whether it is gone already.

    Unless ``deferred``, a device that others still hold after ``timeout`` seconds stays as it was: DeviceBusy. While they are waited for, it is not
    marked to go with its last user: a process that is killed here shall leave it to them.
    """
    identity, limit = device.id, Deadline(timeout)
    if not deferred and _device.is_claimed(device):
        raise busy(device)
    with device:
        if deferred:
            set_autoclear(device, True)
        else:
            # A user for a moment, such as udev's prober after an event, is waited for; a lasting one is not cut off.
            for pause in pauses(0.01, 0.2):
                if _take_file(device):
                    break
                if limit.expired:
                    raise busy(device)
                limit.sleep(pause)
    limit = limit.sooner(_GOING_SECONDS) if deferred else Deadline(_GOING_SECONDS)
    for pause in pauses():
        if not _still_bound(identity):
            return True
        if limit.expired:
            return False
        limit.sleep(pause)
    return False


def _take_file(device):
    """
    Have a held loop device lose its file when it is closed, unless others have it open; whether that is so.

    LOOP_CLR_FD does it, or marks the device to go with the last of the others (drivers/block/loop.c, loop_clr_fd). Which of both, and in the second
    case the mark taken off again, is for one call: the status can no longer be set in the first case.
    """
    before = _get_bound_status(device)
    if before is None:
        return True
    status = _STATUS.pack(*before.values())
    try:
        fcntl.ioctl(device.fd, uapi_plain.LOOP_CLR_FD, 0)
        fcntl.ioctl(device.fd, uapi_plain.LOOP_SET_STATUS64, status)
    except OSError as error:
        if error.errno in gone.LOOP_FILE:
            return True
        raise KernelError.from_oserror(error, "take its file off it", device=device.path) from error
    return False


def _get_bound_status(device):
    """struct loop_info64 of a held loop device as a dictionary, or None when it has no file."""
    try:
        return _get_status(device.fd)
    except OSError as error:
        if error.errno in gone.LOOP_FILE:
            return None
        raise KernelError.from_oserror(error, "read the loop device's status", device=device.path) from error


def users(device):
    """What is known to use the device or its partitions: names of mapped devices and the like above it, and mount points."""
    names, numbers = gone.list_directory(f"{device.sysfs}/holders"), {device.id.number: ""}
    # The kernel names a partition by its disk (block/partitions/core.c).
    disk = device.name.replace("/", "!")
    for name in gone.list_directory(device.sysfs):
        if not name.startswith(disk):
            continue
        number = (
            _device.read_sysfs(f"{device.sysfs}/{name}/dev")
            if gone.exists(f"{device.sysfs}/{name}/partition")
            else None
        )
        if number is not None:
            numbers[number] = f" (partition {name})"
            names += [
                f"{holder} (partition {name})"
                for holder in gone.list_directory(f"{device.sysfs}/{name}/holders")
            ]
    mountinfo = "/proc/self/mountinfo"
    try:
        with open(mountinfo, encoding="utf-8", errors="surrogateescape") as mounts:
            for line in mounts:
                fields = line.split()
                if fields[2] in numbers:
                    names.append(f"mount {fields[4]}{numbers[fields[2]]}")
    except OSError as error:
        raise gone.not_seen(error, mountinfo) from error
    return names


def busy(device):
    names = users(device)
    return DeviceBusy(
        "it is in use" + (f" by {', '.join(names)}" if names else " by a program that has it open"),
        device=device.path,
        hint="End that use first, or say deferred=true to have it go with its last user",
    )


def _open_if_bound(minor):
    try:
        device = _device.open_number(MAJOR, minor)
    except DeviceGone:
        return None, None
    try:
        return device, info(device)
    except DeviceGone:
        device.close()
        return None, None
    except BaseException:
        device.close()
        raise


def _still_bound(identity):
    base = f"/sys/dev/block/{identity.number}"
    return _device.read_sysfs(f"{base}/diskseq") == str(identity.diskseq) and gone.exists(f"{base}/loop")


def _same_limits(backing, offset, size):
    # "To the end of the file" and a limit that says the same today are one device for who asks for the whole rest.
    return (size,) if size else (0, backing.size - offset)


def _open_backing(path, read_only, option):
    _device.check_path(path, option, "an absolute path of a regular file")
    try:
        return open_regular(path, option, os.O_RDONLY if read_only else os.O_RDWR)
    except OSError as error:
        raise _not_opened(error, path, read_only, option) from error


def _not_opened(error, path, read_only, option):
    """What is wrong with a backing file that cannot be opened."""
    number = error.errno
    if number == errno.ENOENT and os.path.islink(path):
        return InvalidValue(
            option,
            path,
            f"is a symbolic link to {os.path.realpath(path)}, which does not exist",
            errno=number,
        )
    if number == errno.ENOENT:
        return InvalidValue(option, path, "does not exist", errno=number)
    if number in NO_SUCH_FILE:
        return InvalidValue(
            option, path, f"cannot be a file: {error.strerror}", errno=number, hint=hint_of(number)
        )
    if number in (errno.EACCES, errno.EPERM) and os.geteuid():
        return InvalidValue(
            option, path, "may not be opened by this user", errno=number, hint=hint_of(number)
        )
    if number in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ETXTBSY) and not read_only:
        return InvalidValue(
            option,
            path,
            "cannot be opened for writing",
            errno=number,
            hint="Say read_only=true to have it read-only",
        )
    return KernelError.from_oserror(error, f"open {path}", device=path)


class _Control:
    """/dev/loop-control, open."""

    def __init__(self):
        try:
            self.fd = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
                raise NotSupported(
                    "this host has no loop devices", device=CONTROL, hint="Load the kernel module loop"
                ) from error
            if error.errno in (errno.EACCES, errno.EPERM):
                raise KernelError(
                    "only root may make loop devices",
                    device=CONTROL,
                    errno=error.errno,
                    hint="Use become: true",
                ) from error
            raise KernelError.from_oserror(error, f"open {CONTROL}") from error

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        os.close(self.fd)

    def free_number(self):
        # It reserves nothing: the number may be taken by another process before it is used.
        try:
            return fcntl.ioctl(self.fd, uapi_plain.LOOP_CTL_GET_FREE)
        except OSError as error:
            raise KernelError.from_oserror(error, "get a free loop device", device=CONTROL) from error


def _configuration(backing, offset, size, sector_size, flags):
    """struct loop_config, packed."""
    empty = dict(zip(uapi_plain.LOOP_CONFIG_FIELDS, _CONFIG.unpack(bytes(_CONFIG.size))))
    return _CONFIG.pack(
        *dict(
            empty,
            fd=backing.fd,
            block_size=sector_size or 0,
            lo_offset=offset,
            lo_sizelimit=size,
            lo_flags=flags,
            lo_file_name=os.fsencode(backing.path)[: uapi_plain.LO_NAME_SIZE - 1],
        ).values()
    )


def _get_status(fd):
    """struct loop_info64 of an open loop device as a dictionary."""
    buffer = bytearray(_STATUS.size)
    fcntl.ioctl(fd, uapi_plain.LOOP_GET_STATUS64, buffer)
    return dict(zip(uapi_plain.LOOP_INFO64_FIELDS, _STATUS.unpack(buffer)))


def _bind(number, config, backing, writable):
    """The held device, or None when another process was first with this number."""
    path = f"/dev/loop{number}"
    try:
        fd = _open_free(number, os.O_RDWR if writable else os.O_RDONLY)
    except OSError as error:
        if error.errno in _TAKEN:
            return None
        raise KernelError.from_oserror(error, f"open {path}", device=path) from error
    try:
        _check_free_node(os.fstat(fd), number, path)
        # Asked before anything is bound: a kernel without the number (before 5.15) is refused here.
        _device.read_diskseq(fd, path)
        # Never LOOP_CLR_FD when this fails: the file bound by then is somebody else's.
        fcntl.ioctl(fd, uapi_plain.LOOP_CONFIGURE, config)
    except OSError as error:
        os.close(fd)
        if error.errno in _TAKEN:
            return None
        raise KernelError.from_oserror(error, f"bind {backing.path}", device=path) from error
    except BaseException:
        os.close(fd)
        raise
    try:
        return _device.from_fd(fd, writable)
    except BaseException:
        os.close(fd)
        raise


def _open_free(number, flags):
    """
    A descriptor of the loop device, whose node is made when it is missing: /dev may be one that the kernel
    adds nothing to.
    """
    path, flags = f"/dev/loop{number}", flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    try:
        return _device.open_block(path, flags)
    except FileNotFoundError:
        known = _number_of(f"loop{number}")
        if known is None:
            # The device has just been removed, and its node with it.
            raise
    except OSError as error:
        if error.errno in gone.DISK:
            # Another node than the device's own would go on leading nowhere.
            _check_free_node(os.lstat(path), number, path)
        raise
    from . import node  # rarely needed, and a file more to be found and read

    was_missing = node.make(f"loop{number}", *known)
    try:
        return _device.open_block(path, flags)
    except OSError as error:
        if was_missing and error.errno in gone.DISK:
            # As above, only later.
            os.unlink(path)
        raise


def _check_free_node(there, number, path):
    """
    WrongDevice unless the node (its stat) is this loop device's own, so that the path which is returned leads
    there.
    """
    found = os.major(there.st_rdev), os.minor(there.st_rdev)
    # Minor numbers are not the loop devices' own numbers where those have partitions' minors (max_part).
    if stat.S_ISBLK(there.st_mode) and (found == (MAJOR, number) or found == _number_of(f"loop{number}")):
        return
    raise WrongDevice(
        "the node there is not the loop device's",
        device=path,
        hint=_device.node_advice(f"loop{number}", MAJOR, number),
    )


def _check_bound(device, backing, direct_io):
    status = info(device)
    if (status.backing_device, status.backing_inode) != (backing.device, backing.inode):
        raise WrongDevice(f"it is bound to another file than {backing.path}", device=device.path)
    # The kernel drops the flag in silence when the file is not aligned for direct I/O.
    if direct_io and not status.direct_io:
        raise _no_direct_io(backing.path)


def _no_direct_io(what):
    return NotSupported(
        "direct I/O cannot be had",
        device=what,
        errno=errno.EINVAL,
        hint="The file system must offer it, and offset and sector_size must be multiples of its block size",
    )


def _set_flags(device, flag, wanted):
    """Read, change one flag, write back: the device is held, so offset and size limit are still its own."""
    try:
        status = _get_status(device.fd)
        flags = status["lo_flags"] | flag if wanted else status["lo_flags"] & ~flag
        if flags != status["lo_flags"]:
            fcntl.ioctl(
                device.fd, uapi_plain.LOOP_SET_STATUS64, _STATUS.pack(*dict(status, lo_flags=flags).values())
            )
    except OSError as error:
        raise KernelError.from_oserror(error, "change the loop device's flags", device=device.path) from error
