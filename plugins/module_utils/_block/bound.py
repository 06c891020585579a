# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The loop devices that are currently bound to a file.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import os

from .._base import gone
from .._base.deadline import Deadline
from .._base.errors import DeviceGone, KernelError
from . import device as _device
from . import loop, sysfs
from . import mounts as _mounts
from .in_time import each_in_time

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from typing import Any


# Seconds within which a device must report its status; seconds for which a device that did not is not asked
# again; and those devices, as {(name, diskseq): until when}.
_ANSWER_SECONDS, _SILENT_SECONDS = 2, 60
_SILENT: dict[tuple[str, str | None], Deadline] = {}


def bound_numbers(files: set[tuple[int, int]] | None = None) -> list[int]:
    """
    Minor numbers of the loop devices that are currently bound, from sysfs. This tells where to look, and
    proves nothing.

    ``files``: a set as of :func:`file_of`; devices bound to other files are left out.
    """
    if files is None:
        names = _bound_names()
    else:
        there = statuses({device for device, dummy in files})
        return sorted(status["minor"] for dummy, status in there if file_of(status) in files)
    numbers = [loop.number_of(name) for name in names]
    return sorted(number[1] for number in numbers if number is not None)


def _bound_names() -> list[str]:
    gone.need_sysfs()
    names = gone.list_directory("/sys/block")
    return [name for name in names if loop.is_name(name) and gone.exists(f"/sys/block/{name}/loop")]


def read_paths() -> dict[str, str]:
    """``{name: path of the backing file}`` of the currently bound loop devices, both from sysfs."""
    gone.need_sysfs()
    names = [name for name in gone.list_directory("/sys/block") if loop.is_name(name)]
    found = {name: sysfs.read(f"/sys/block/{name}/loop/backing_file") for name in names}
    return {name: path for name, path in found.items() if path is not None}


def statuses(
    devices: Collection[int], paths: dict[str, str] | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """
    Yield ``(name, status)`` (see :func:`_block.loop.read_status`) of the bound loop devices whose file may be
    on one of the file systems ``devices`` (st_dev, or ``_block.loop.OVER_BLOCK``).

    ``paths``: the result of :func:`read_paths`, if it is already known. A device whose storage does not
    answer, or answers with an error, is left out if sysfs shows that its file is on another file system.
    """
    mounts, elsewhere = None, []
    if loop.OVER_BLOCK in devices:
        # Nodes of block devices are there; of others, those that answer are yielded.
        devices = {_nodes() if device == loop.OVER_BLOCK else device for device in devices}
    for name, path in (read_paths() if paths is None else paths).items():
        mounts = mounts or _mounts.read()
        if _mounts.is_elsewhere(path, devices, mounts):
            elsewhere.append(name)
            continue
        status = _status_if_answered(name, path)
        if status is not None:
            yield name, status
    yield from _statuses_in_time(elsewhere)


def _status_if_answered(name: str, path: str | None = None) -> dict[str, Any] | None:
    """
    Like :func:`_block.loop.read_status`; also None if the storage has failed. With ``path``, the backing
    file's, only if nothing is there either: the kernel shows a path below a mount that was taken away (umount
    --lazy) without its mount point.
    """
    try:
        return loop.read_status(name)
    except KernelError as error:
        if not loop.is_no_answer(error) or (path is not None and not _leads_nowhere(name, path)):
            raise
        return None


def _leads_nowhere(name: str, path: str) -> bool:
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno not in gone.PATH:
            return False
        # The file may have been renamed or deleted. Then the kernel shows another path now.
        deleted = path.endswith(" (deleted)")
        return not deleted and sysfs.read(f"/sys/block/{name}/loop/backing_file") == path
    return False


def _nodes() -> int:
    """The st_dev of /dev. Raises KernelError."""
    try:
        return os.stat("/dev").st_dev
    except OSError as error:
        raise gone.not_seen(error, "/dev") from error


def over_block() -> dict[int, list[str]]:
    """
    ``{st_rdev: [name]}``: the kernel's names of the loop devices over each block device, if its node is in
    /dev. Others are not asked, as their storage may be dead. Raises KernelError. This tells where to look,
    and proves nothing.
    """
    found: dict[int, list[str]] = {}
    for name, path in read_paths().items():
        # Nodes of block devices are in memory. What fails is another file system that is mounted there.
        status = _status_if_answered(name) if path.startswith("/dev/") else None
        device, number = (0, 0) if status is None else file_of(status)
        if device == loop.OVER_BLOCK:
            found.setdefault(number, []).append(name)
    return found


def _statuses_in_time(names: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """
    Like :func:`statuses`, for devices whose file should be on another file system. Devices that do not answer
    in time, or whose storage has failed, are left out.
    """
    asked = {}
    for name in names:
        key = name, sysfs.read(f"/sys/block/{name}/diskseq")
        # A device that did not answer is not waited for every time.
        if key not in _SILENT or _SILENT[key].expired:
            asked[name] = key
    for name, answered, status in each_in_time(_status_if_answered, asked, _ANSWER_SECONDS):
        if not answered:
            _SILENT[asked[name]] = Deadline(_SILENT_SECONDS)
        elif status is not None:
            yield name, status


def file_of(status: dict[str, Any]) -> tuple[int, int]:
    """See :func:`_block.loop.file_of`."""
    return loop.file_of(status)


def open_bound(files: set[tuple[int, int]] | None = None) -> Iterator[tuple[_device.Device, loop.LoopInfo]]:
    """
    Yield ``(Device, LoopInfo)`` for each bound loop device. The caller must close each Device.

    ``files``: as for :func:`bound_numbers`. Devices that are left out are not opened, which saves most of the
    time. Without it, devices whose storage has failed are included (``_block.loop.settings_of``).
    """
    read = loop.settings_of if files is None else loop.info
    for minor in bound_numbers(files):
        found = open_if_bound(minor, read)
        if found is not None:
            yield found


def open_if_bound(
    minor: int, read: Callable[[_device.Device], loop.LoopInfo] = loop.info
) -> tuple[_device.Device, loop.LoopInfo] | None:
    """
    The loop device with this minor number, held, and its LoopInfo from ``read``; None if it is not bound to a
    file.
    """
    try:
        device = _device.open_number(_device.LOOP_MAJOR, minor)
    except DeviceGone:
        return None
    try:
        return device, read(device)
    except DeviceGone:
        device.close()
        return None
    except BaseException:
        device.close()
        raise
