# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
An area's mapped device: whether the kernel swaps to it, and whether it is as configured.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from .._base import gone
from .._base.errors import BlockError, DeviceBusy, DeviceGone, WrongDevice
from .._block import device as _device
from .._dm import control, mapped
from .._source import lookup
from . import config, users

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from .._block.device import Device
    from .._source.resources import Resources
    from .config import Config

_SECTOR = 512


def find(resources: Resources, name: str) -> mapped.Mapped | None:
    """
    The mapped device of the area ``name``, held, or None. DeviceBusy if its name or UUID is that of another
    one.
    """
    wanted = config.identity(name)
    found = mapped.find(resources.dm, *wanted)
    if found is None or (found.status.name, found.status.uuid) == wanted:
        return found
    if found.device is not None:
        found.device.close()
    raise DeviceBusy(
        f"it is not this area's device: it has the name {found.status.name}, and the uuid "
        f"{found.status.uuid or 'none'}",
        device=wanted[0],
        hint=f"Rename or remove it: dmsetup info {found.status.name}",
    )


def differences(resources: Resources, device: Device, priority: int, wanted: Config) -> list[str]:
    """
    How the area in use differs from its configuration, as texts; empty if it does not. ``device``: its mapped
    device, held. Raises BlockError if that cannot be told.
    """
    (line,) = resources.dm.table(control.by_device(device))[1]
    cipher, key, *rest = line.params.split(b" ")
    has = [
        ("cipher", cipher.decode("ascii"), wanted.cipher),
        ("key size", 4 * len(key), wanted.key_size),
        ("discard", b"allow_discards" in rest, wanted.discard),
    ]
    if wanted.size is not None:
        has.append(("size", device.size, wanted.size // _SECTOR * _SECTOR))
    if wanted.priority is not None or priority >= 0:
        has.append(
            ("priority", priority, "the kernel's choice" if wanted.priority is None else wanted.priority)
        )
    return _of_storage(resources, device, wanted) + [
        f"the {what} is {_word(now)} instead of {_word(then)}" for what, now, then in has if now != then
    ]


def _word(value: object) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def _of_storage(resources: Resources, device: Device, wanted: Config) -> list[str]:
    """Whether the device that the live table has open is the one that the source names now."""
    (number,) = resources.dm.deps(control.by_device(device))
    with _device.open_number(*number) as below:
        if _is_named(resources, wanted, below):
            return []
        return [f"it is on {users.shown(below)} instead of {wanted.parsed()}"]


def _is_named(resources: Resources, wanted: Config, below: Device) -> bool:
    try:
        return lookup.is_device(wanted.parsed(), below, resources)
    except (DeviceGone, WrongDevice, DeviceBusy):
        return False
    except BlockError as error:
        if error.errno in gone.PATH:
            return False
        raise
