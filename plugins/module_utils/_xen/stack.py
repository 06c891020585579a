# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Answer ``_xen.footprint.Questions`` about the devices below a device, from sysfs, device-mapper and the loop
driver.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

The device at the top must be held open by the caller or somebody else. While it is, the devices below it
cannot go away or change their numbers.
"""

from __future__ import annotations

from .._base import gone
from .._base.errors import DeviceGone
from .._block import device, loop, loop_files, sysfs
from .footprint import Questions, SomeFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from .._dm.control import Control

    class Resources(Protocol):
        """What is needed of a run (``_source.resources.Resources``)."""

        @property
        def dm(self) -> Control: ...


def questions(resources: Resources) -> Questions:
    """
    The Questions, answered with a run's resources. A device that cannot be examined raises an error, except
    for loop devices of others over storage that does not answer.
    """
    files = loop_files.LoopFiles()
    return Questions(
        lambda major, minor: _table(resources, major, minor),
        _loop_file,
        sysfs.partition_of,
        sysfs.members_of,
        lambda major, minor: _others_loop_file(files, major, minor),
    )


def _table(resources: Resources, major: int, minor: int) -> list[tuple[int, int, str, str]] | None:
    if not gone.exists(f"/sys/dev/block/{major}:{minor}/dm", gone.SYSFS):
        return None
    from .._dm import control

    try:
        lines = resources.dm.table(control.by_number(major, minor), secure=True)[1]
    except DeviceGone:
        # The device is being removed. If it still exists, it counts as a disk rather than as a device with
        # nothing below.
        return None
    return [
        (
            line.start,
            line.length,
            line.type.decode("ascii", "replace"),
            line.params.decode("utf-8", "surrogateescape"),
        )
        for line in lines
    ]


def _loop_file(major: int, minor: int) -> tuple[int, int, int, int] | None:
    name = _loop_name(major, minor)
    # sysfs gives only the file's path, which may by now lead to another file, or belong to another mount
    # namespace.
    return _file_of(loop.read_status(name)) if name is not None else None


def _others_loop_file(
    files: loop_files.LoopFiles, major: int, minor: int
) -> tuple[int, int, int, int] | SomeFile | None:
    name = _loop_name(major, minor)
    answer = files.status(name) if name is not None else None
    return SomeFile(answer) if isinstance(answer, tuple) else _file_of(answer)


def _loop_name(major: int, minor: int) -> str | None:
    name = sysfs.kernel_name(major, minor) if major == device.LOOP_MAJOR else None
    return name if name is not None and loop.is_name(name) else None


def _file_of(status: dict[str, Any] | None) -> tuple[int, int, int, int] | None:
    if not status:
        return None
    return (*loop.file_of(status), status["lo_offset"], status["lo_sizelimit"])
