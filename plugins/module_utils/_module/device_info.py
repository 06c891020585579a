# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What ``device_info`` returns: loop and mapped devices, how they are stacked, and the host's features.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .._base import gone, late
from .._base.errors import DeviceGone, InvalidValue, KernelError, NotSupported
from .._block import bound, detach, loop, sysfs
from .._block import device as _device
from .._block.device import Device
from .._dm import health, mapped
from .._dm import space as _space
from .._dm.codec import NameEntry, decode_dev
from .._dm.control import by_device
from .._source.resources import Resources
from . import dm_describe, loop_describe, sealing
from .item import Params, check_percent

if TYPE_CHECKING:
    from .._block import partitions
    from . import features
else:
    # For the options of the same names.
    partitions = late.Module(__name__, ".._block.partitions")
    features = late.Module(__name__, ".features")

ARGUMENTS = {
    "diskseq": {"type": "int"},
    "path": {"type": "path"},
    "partitions": {"type": "bool", "default": False},
    "warn_percent": {"type": "int"},
    "features": {"type": "bool", "default": True},
}


def collect(params: Params, resources: Resources) -> dict[str, Any]:
    """The module's return values. Each device is described while it is held."""
    if params["diskseq"] is not None:
        _device.check_diskseq(params["diskseq"])
    check_percent(params)
    if params["path"] == "":
        raise InvalidValue("path", "", "must be the path of a block device: leave it out for all devices")
    if params["path"] is not None and params["diskseq"] is not None:
        raise InvalidValue(
            "path", params["path"], "must be left out if diskseq is given: one of them selects the device"
        )
    values: dict[str, Any] = {
        "devices": list(
            _picked(params, resources) if params["path"] or params["diskseq"] else _all(params, resources)
        )
    }
    values["nearly_full"] = [text for row in values["devices"] for text in row.pop("_nearly_full", ())]
    for text in values["nearly_full"]:
        resources.warn(text)
    if params["features"]:
        values["features"] = features.collect(resources)
    return values


def _picked(params: Params, resources: Resources) -> Iterator[dict[str, Any]]:
    try:
        device = (
            _device.open_path(params["path"]) if params["path"] else _device.open_diskseq(params["diskseq"])
        )
    except DeviceGone:
        return
    with device:
        yield from _described(params, resources, device)


def _all(params: Params, resources: Resources) -> Iterator[dict[str, Any]]:
    for device, _status in bound.open_bound():
        with device:
            yield from _described(params, resources, device)
    try:
        entries = resources.dm.list_devices()
    except NotSupported:
        return
    for entry in entries:
        try:
            device = _device.open_number(*_dm_number(entry))
        except DeviceGone:
            continue
        with device:
            yield from _described(params, resources, device)


def _dm_number(entry: NameEntry) -> tuple[int, int]:
    return decode_dev(entry.dev)


def _described(params: Params, resources: Resources, device: Device) -> Iterator[dict[str, Any]]:
    """A device that goes away while it is being described is left out."""
    try:
        yield _row(params, resources, device)
    except DeviceGone:
        return


def _row(params: Params, resources: Resources, device: Device) -> dict[str, Any]:
    if mapped.is_mapped(device):
        row = dict(dm_describe.describe(resources, device), kind="dm")
        _add_space(params, resources, device, row)
    elif loop.is_loop(device):
        row = dict(loop_describe.describe(device, loop.settings_of(device)), kind="loop")
    else:
        row = dict(device.as_dict(), kind="other")
    loops = resources.loops.names_over_block()
    holders = gone.list_directory(f"{device.sysfs}/holders", gone.SYSFS) + loops.get(device.id.rdev, [])
    above = _neighbours(holders)
    below = _neighbours(gone.list_directory(f"{device.sysfs}/slaves", gone.SYSFS))
    if row.get("backing"):
        below = [{key: row["backing"][key] for key in ("name", "diskseq")}]
    seal = sealing.described(device)
    if params["partitions"]:
        row.update(_partitions(device, row))
    return dict(row, seal=seal, holders=above, slaves=below, used_by=detach.users(device, loops))


def _add_space(params: Params, resources: Resources, device: Device, row: dict[str, Any]) -> None:
    """Add how full a store or pool is. What no longer works for lack of space is reported, too."""
    space, percent, name = _space.of_device(resources.dm, device), params["warn_percent"], row["mapper_name"]
    row["space"] = None if space is None else space.as_dict()
    if percent is not None:
        wrong = health.problems_of(resources.dm.target_status(by_device(device))[1])
        row["_nearly_full"] = [f"{name}: {text}" for _kind, text in wrong]
        row["_nearly_full"] += [] if space is None else space.warnings(name, percent)


def _neighbours(names: list[str]) -> list[dict[str, Any]]:
    """Devices directly above or below a device, each with its disk sequence number."""
    rows = []
    for name in names:
        diskseq = sysfs.read(f"/sys/class/block/{name}/diskseq")
        rows.append({"name": name, "diskseq": int(diskseq) if diskseq else None})
    return rows


def _partitions(device: Device, row: dict[str, Any]) -> dict[str, Any]:
    """The partitions of a whole disk. A disk that cannot be read does not hide the other ones."""
    if row["partition"] is not None:
        return {"partition_table": None, "partition_list": [], "partition_error": None}
    if row.get("suspended"):
        # Reading it would wait until it is resumed.
        wrong = "it is suspended, so its partition table cannot be read"
        return {"partition_table": None, "partition_list": None, "partition_error": wrong}
    try:
        return dict(partitions.describe(device), partition_error=None)
    except KernelError as error:
        return {"partition_table": None, "partition_list": None, "partition_error": str(error)}
