# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
An index of the bound loop devices by their backing files.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import os
import stat

from .._base import gone
from .._base.errors import DeviceBusy
from . import backing as _backing
from . import bound, loop, sysfs

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from . import device as _device

    Found = list[tuple[_device.Device, loop.LoopInfo]]


class LoopIndex:
    """
    The bound loop devices by their backing files, read once for a run over many files.

    The index only tells where to look: everything that :meth:`find` returns was opened and verified at that
    time.
    """

    def __init__(self) -> None:
        # By file system. Each is scanned when its first file is looked up.
        self._minors: dict[int, dict[tuple[int, int], set[int]]] = {}
        self._paths: dict[str, str] | None = None
        self._names: dict[str | None, set[str]] | None = None
        self._over_block: dict[int, list[str]] | None = None
        self._directories: dict[str, str] = {}
        self._made: Found = []
        self._left_out: Collection[tuple[int, int, int]] = ()
        self._going: set[_device.DeviceId] = set()

    def leave_out(self, devices: Collection[tuple[int, int, int]]) -> None:
        """Never return these devices, a set of ``(major, minor, diskseq)``."""
        self._left_out = devices

    def expect_gone(self, devices: Iterable[_device.Device]) -> None:
        """Treat these devices as gone: the run removes them before it creates what is being planned."""
        self._going.update(device.id for device in devices)

    def expect_nothing(self) -> None:
        """End :meth:`expect_gone`: devices that still exist count again."""
        self._going.clear()

    def forget(self) -> None:
        """Read everything again, because other processes may have created loop devices since."""
        self._minors, self._paths, self._names, self._over_block = {}, None, None, None
        self._directories = {}

    def real(self, path: str) -> str:
        """
        os.path.realpath of a file. The directories are cached, because a run's files are in few of them.
        Raises KernelError.
        """
        directory, name = os.path.split(path)
        if name in ("", ".", ".."):
            return os.path.realpath(path)
        if directory not in self._directories:
            self._directories[directory] = os.path.realpath(directory)
        found = os.path.join(self._directories[directory], name)
        try:
            return os.path.realpath(found) if stat.S_ISLNK(os.lstat(found).st_mode) else found
        except OSError as error:
            if error.errno in gone.PATH or error.errno in _backing.NO_SUCH_FILE:
                return found
            raise gone.not_seen(error, found) from error

    def find(self, backing: _backing.Backing, offset: int = 0, size: int = 0) -> Found:
        """
        All loop devices bound to this file with this offset and size (bytes), held: ``[(Device, LoopInfo)]``.
        """
        return self._opened(
            self._minors_of((backing.device, backing.inode)),
            lambda status: loop.is_same(status, backing, offset, size),
        )

    def over(self, file: tuple[int, int], with_going: bool = False) -> Found:
        """
        All loop devices bound to any area of the file ``(st_dev, st_ino)``, held: ``[(Device, LoopInfo)]``.

        ``with_going``: include those of :meth:`expect_gone`.
        """
        found = self._opened(
            self._minors_of(file), lambda status: (status.backing_device, status.backing_inode) == file
        )
        return found if with_going else self._staying(found)

    def over_blocks(self) -> Found:
        """All loop devices over block devices, held: ``[(Device, LoopInfo)]``."""
        self._minors_of((loop.OVER_BLOCK, 0))
        minors = set().union(*self._minors[loop.OVER_BLOCK].values())
        return self._staying(self._opened(minors, lambda status: status.backing_device == loop.OVER_BLOCK))

    def names_over_block(self) -> dict[int, list[str]]:
        """``_block.bound.over_block``, read once."""
        if self._over_block is None:
            self._over_block = bound.over_block()
        return self._over_block

    def _staying(self, found: Found) -> Found:
        for device, dummy in found:
            if device.id in self._going:
                device.close()
        return [row for row in found if row[0].id not in self._going]

    def named(self, paths: Iterable[str]) -> Found:
        """
        All loop devices whose file currently has one of these paths according to sysfs, held: ``[(Device,
        LoopInfo)]``. A path proves nothing.
        """
        if self._names is None:
            self._names = {}
            for name, path in self._bound().items():
                self._names.setdefault(path, set()).add(name)
        numbers = [loop.number_of(name) for path in paths for name in self._names.get(path, ())]
        minors = {number[1] for number in numbers if number is not None}
        return self._staying(self._opened(minors, lambda status: True))

    def _bound(self) -> dict[str, str]:
        if self._paths is None:
            self._paths = bound.read_paths()
        return self._paths

    def _opened(self, minors: Iterable[int], is_wanted: Callable[[loop.LoopInfo], bool]) -> Found:
        found: Found = []
        try:
            for minor in sorted(minors):
                row = bound.open_if_bound(minor)
                if row is None:
                    continue
                device, status = row
                identity = device.id.major, device.id.minor, device.id.diskseq
                if is_wanted(status) and identity not in self._left_out:
                    found.append(row)
                else:
                    device.close()
        except BaseException:
            for device, _status in found:
                device.close()
            raise
        return found

    def add(self, device: _device.Device, status: loop.LoopInfo) -> None:
        """Add a loop device that was created since. The caller holds it."""
        self._made.append((device, status))
        if self._names is not None:
            self._names.setdefault(loop.backing_path(device), set()).add(device.name)
        file = status.backing_device, status.backing_inode
        self._minors_of(file)
        self._minors[file[0]].setdefault(file, set()).add(device.id.minor)

    def doubles(self) -> dict[_device.DeviceId, DeviceBusy]:
        """
        Look again, once after everything was created. Returns ``{DeviceId: DeviceBusy}`` for each loop device
        given to :meth:`add` that has a duplicate, which a program that does not use our locks
        (``_base.locks``) has created meanwhile. Duplicates are found by the path in sysfs.
        """
        found: dict[_device.DeviceId, DeviceBusy] = {}
        numbers = {status.number for device, status in self._made if device.fd >= 0}
        made: dict[str | None, Found] = {}
        for device, status in self._made:
            if device.fd >= 0:
                made.setdefault(loop.backing_path(device), []).append((device, status))
        over_block = [
            row for rows in made.values() for row in rows if row[1].backing_device == loop.OVER_BLOCK
        ]
        for name in os.listdir("/sys/block") if made else ():
            if name.startswith("loop") and name[4:].isdigit() and int(name[4:]) not in numbers:
                path = sysfs.read(f"/sys/block/{name}/loop/backing_file")
                # A block device can have any number of nodes.
                rows = made.get(path) or (over_block if (path or "").startswith("/dev/") else [])
                for own in rows:
                    error = _double(name, *own)
                    if error is not None:
                        found[own[0].id] = error
        return found

    def _minors_of(self, file: tuple[int, int]) -> Collection[int]:
        """The minor numbers of the devices bound to the file ``(st_dev, st_ino)``."""
        scanned = self._minors.get(file[0])
        if scanned is None:
            scanned = self._minors[file[0]] = {}
            for dummy, status in bound.statuses({file[0]}, self._bound()):
                if bound.file_of(status)[0] == file[0]:
                    scanned.setdefault(bound.file_of(status), set()).add(status["minor"])
        return scanned.get(file, ())


def _double(name: str, device: _device.Device, status: loop.LoopInfo) -> DeviceBusy | None:
    """
    The error for a held loop device if the device ``name`` has the same area of the same file; otherwise
    None.
    """
    number = sysfs.parse_number(sysfs.read(f"/sys/block/{name}/dev") or "")
    found = bound.open_if_bound(number[1]) if number else None
    if found is None:
        return None
    other, has = found
    with other:
        alike = ("backing_device", "backing_inode", "offset", "sizelimit", "read_only")
        if any(getattr(has, what) != getattr(status, what) for what in alike):
            return None
        return DeviceBusy(
            f"another program bound it to {other.path} while it was being bound to {device.path}",
            device=loop.backing_path(device),
            hint="The new device was removed. Run the task again: it then uses the other device",
        )


def find(backing: _backing.Backing, offset: int = 0, size: int = 0) -> Found:
    """:meth:`LoopIndex.find` for a single file."""
    return LoopIndex().find(backing, offset, size)
