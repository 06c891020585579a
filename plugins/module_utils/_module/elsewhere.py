# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The device with the number in the option ``diskseq``, when the other options of a task do not lead to it.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

It may have been renamed, for example, or its file was. So it is looked up before it is called gone.
"""

from __future__ import annotations

from typing import Any

from .._base.errors import DeviceGone, WrongDevice
from .._block import device as _device
from .._block import loop, sysfs


def refuse(params: dict[str, Any], title: str, wrong: str) -> None:
    """
    Raise WrongDevice if the device exists, and for another state than absent also if it is gone. ``wrong``:
    why the other options do not lead to it.
    """
    number, is_removal = params["diskseq"], params["state"] == "absent"
    where = _where(number)
    if where is not None:
        hint = "Nothing was done. To use that device, say where it is now; to make a new one, omit diskseq"
        if is_removal:
            hint = "To remove that device, set diskseq and state=absent only"
        raise WrongDevice(f"{wrong}, but diskseq={number} is {where}", device=title, hint=hint)
    if not is_removal:
        raise WrongDevice(
            f"{wrong}, but diskseq={number} was given",
            device=title,
            hint="The device that had this number is gone; leave diskseq out to make a new one",
        )


def _where(number: int) -> str | None:
    """What the device with this number is now, for a message; None if it is gone."""
    try:
        # Closed again: another entry of the list may remove it.
        with _device.open_diskseq(number) as device:
            if loop.is_loop(device):
                # DeviceGone without a file: then only the number is left of it.
                offset = loop.settings_of(device).offset
                file = loop.backing_path(device) or "an unknown file"
                return f"{device.path} with {file}" + (f" from byte {offset} on" if offset else "")
            name = sysfs.read(f"{device.sysfs}/dm/name")
            return device.path if name is None else f"{device.path}, the mapped device {name}"
    except DeviceGone:
        return None
