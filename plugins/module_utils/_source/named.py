# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Existing devices named by a disk sequence number or a path.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from .._base import gone
from .._base.errors import DeviceGone, WrongDevice
from .._block import boot, partition
from .._block import device as _device
from .._dm import control
from . import spec

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from .resources import Resources

_DEVICE_MAPPER = "/sys/class/misc/device-mapper"


def open_diskseq(source: spec.DiskseqSource) -> _device.Device:
    """
    The disk or partition of a DiskseqSource, held; DeviceGone if it does not exist, or if the number is from
    another boot.
    """
    boot.check_boot(source.boot_id, source.diskseq)
    if source.partition is None:
        return _device.open_diskseq(source.diskseq)
    return partition.open_partition(source.diskseq, source.partition)


def open_path(source: spec.PathSource, resources: Resources) -> _device.Device:
    """
    The device at the path of a PathSource, held; WrongDevice if it does not have the UUID or the diskseq of
    the source.
    """
    boot.check_boot(source.boot_id, source.diskseq)
    device = _device.open_path(source.path, diskseq=source.diskseq)
    if source.uuid is None:
        return device
    try:
        if not gone.exists(f"{device.sysfs}/dm", gone.SYSFS):
            raise WrongDevice("it is not a mapped device, so it has no uuid", device=source.path)
        uuid = resources.dm.status(control.by_device(device)).uuid
        if uuid != source.uuid:
            raise WrongDevice(f"its uuid is {uuid or '(none)'}, not {source.uuid}", device=source.path)
    except BaseException:
        device.close()
        raise
    return device


def moved_to(source: spec.PathSource, resources: Resources) -> str | None:
    """
    What the device of a PathSource is now, for a message, if its path leads nowhere; None if it is gone, or
    if only the path says which device. A missing link is not a missing device.
    """
    gone.need_sysfs()
    try:
        boot.check_boot(source.boot_id, source.diskseq)
        if source.diskseq is not None:
            with _device.open_diskseq(source.diskseq) as device:
                return device.path
        # A host may have no device-mapper to ask, and then no mapped devices either.
        if source.uuid is not None and gone.exists(_DEVICE_MAPPER, gone.SYSFS):
            return f"the mapped device {resources.dm.status(control.by_uuid(source.uuid)).name}"
    except DeviceGone:
        pass
    return None
