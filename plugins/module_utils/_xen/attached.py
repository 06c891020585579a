# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Compare an attached vbd with the disk that is wanted in its place.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A running guest's disk is never replaced unless that is asked for, so a difference is an error that describes
the attached disk.
"""

from __future__ import annotations

from .._base.errors import BlockError, DeviceBusy, DeviceGone, InvalidValue, WrongDevice
from .._block import device as _device
from . import vbd_nodes, vbd_read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .._block.device import Device
    from .._xenstore.nodes import Nodes
    from .vbd_nodes import Vbd

_HINT_CD = "The medium of an HVM guest's CD drive is changed with xl cd-insert and xl cd-eject"
_HINT_DRIVER_DOMAIN = "A disk of a driver domain is changed with the toolstack that attached it"


def settings_of(vbd: Vbd) -> dict[str, str]:
    """``mode`` and ``device_type`` of the vbd, as values of the module options."""
    return {
        "mode": "w" if vbd.writable else "r",
        "device_type": "cdrom" if vbd.cdrom else "disk",
    }


def check_connected(vbd: Vbd, title: str, hint: str) -> None:
    """Raise DeviceBusy if the vbd is being detached, or if blkback has not opened its device."""
    if vbd.state in (vbd_nodes.CLOSING, vbd_nodes.CLOSED) or not vbd.online:
        raise DeviceBusy(
            f"the disk that the guest had as {vbd.dev} is being detached (state {vbd.state})",
            device=title,
            hint=hint,
        )
    # A connected backend has it open. Before that, the nodes only say what it is to open.
    if vbd.state != vbd_nodes.CONNECTED and vbd_read.opened_number(vbd.key) is None:
        said = f": {vbd.error}" if vbd.error else ""
        raise DeviceBusy(
            f"blkback has not opened the device of {vbd.dev} (state {vbd.state}){said}",
            device=title,
            hint="Wait until the toolstack that attaches it is done, and try again, or detach it first",
        )


def check_settings(vbd: Vbd, wanted: Mapping[str, Any], hint: str) -> None:
    """Raise InvalidValue if the vbd's mode or device type differs from the options ``wanted``."""
    for option, has in settings_of(vbd).items():
        if wanted[option] != has:
            wrong = f"cannot be changed: the disk is attached with {option}={has}. {hint}"
            raise InvalidValue(option, wanted[option], wrong)


def difference(
    vbd: Vbd, title: str, wanted: Mapping[str, Any], hint: str, leaving_hint: str
) -> BlockError | None:
    """The error of :func:`check_connected` or :func:`check_settings`, None if there is none."""
    try:
        check_connected(vbd, title, leaving_hint)
        check_settings(vbd, wanted, hint)
    except (DeviceBusy, InvalidValue) as error:
        return error
    return None


def refuse_served_by_others(store: Nodes, key: vbd_nodes.Key, vdev: str, title: str) -> None:
    """
    DeviceBusy if the guest has a disk there that blkback of this domain does not serve. Such a disk has no
    nodes where blkback has its own, so it must not be taken for none.
    """
    backend = store.read(f"{key.libxl}/backend") or ""
    if not backend or backend == key.backend:
        return
    # /local/domain/DOMID/backend/KIND/...
    words = (backend.split("/") + [""] * 6)[:6]
    if words[5] != "vbd":
        server, hint = words[5] or backend, _HINT_CD
    else:
        server, hint = f"the domain {words[3]}", _HINT_DRIVER_DOMAIN
    raise DeviceBusy(
        f"the guest has a disk {vdev}, served by {server} instead of blkback of this domain",
        device=title,
        hint=f"Only disks that blkback of this domain serves can be changed. {hint}",
    )


def refuse_nodes(store: Nodes, key: vbd_nodes.Key, vdev: str, title: str) -> None:
    """
    DeviceBusy if XenStore has nodes of a disk where one is to be attached. libxl looks at its own copy of
    them, too. A backend's directory without that copy is in use as well.
    """
    _refuse_nodes(store, (key.libxl, key.backend), vdev, title)


def refuse_libxl_nodes(store: Nodes, key: vbd_nodes.Key, vdev: str, title: str) -> None:
    """
    As :func:`refuse_nodes`, where libxl is to attach a disk: it removes a backend's directory without its own
    copy of the nodes itself (libxl__device_generic_add, tools/libs/light/libxl_device.c).
    """
    _refuse_nodes(store, (key.libxl,), vdev, title)


def _refuse_nodes(store: Nodes, paths: tuple[str, ...], vdev: str, title: str) -> None:
    there = [path for path in paths if store.exists(path)]
    if there:
        raise DeviceBusy(
            f"the guest has a disk {vdev} already, or nodes of one are left: {', '.join(there)}",
            device=title,
            hint="If xl block-list does not show the disk, its toolstack has died: remove its nodes with "
            "xenstore-rm",
        )


def open_device(vbd: Vbd) -> Device | None:
    """
    Open the device that blkback has open for the vbd, or is to open; None if there is none. The caller closes
    it.

    Only while blkback has the device open, its number is not reused for another one. So that is looked at
    again when it is open here, too. What blkback is yet to open must have the disk sequence number that was
    written for it.
    """
    opened = vbd_read.opened_number(vbd.key)
    number = opened or vbd.number
    if number is None or (opened is None and vbd.diskseq is None):
        return None
    try:
        device = _device.open_number(*number, diskseq=None if opened else vbd.diskseq)
    except (DeviceGone, WrongDevice):
        return None
    try:
        is_proved = opened is None or vbd_read.opened_number(vbd.key) == opened
    except BaseException:
        device.close()
        raise
    if not is_proved:
        device.close()
        return None
    return device


def other_disk(vbd: Vbd, device: Device | None) -> str:
    """Error text for a ``device`` (from ``open_device``) that is not the wanted one."""
    here = "nothing" if device is None else f"{device.path} (diskseq {device.id.diskseq})"
    return f"the guest has another disk there: {here}, params {vbd.params or '(none)'}"
