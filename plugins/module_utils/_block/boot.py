# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Identify the boot of the running kernel, because disk sequence numbers start again with each boot.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from .._base.errors import DeviceGone, InvalidValue, KernelError

_BOOT_ID = "/proc/sys/kernel/random/boot_id"

# Cached: no process outlives the boot.
_boot: list[str] = []


def boot_id() -> str:
    """The kernel's UUID of the current boot. Raises KernelError."""
    if _boot:
        return _boot[0]
    try:
        with open(_BOOT_ID, encoding="ascii") as file:
            _boot.append(file.read().strip())
            return _boot[0]
    except OSError as error:
        raise KernelError.from_oserror(error, f"read {_BOOT_ID}", device=_BOOT_ID) from error


def check_boot_id(value: object, option: str = "boot_id") -> str:
    """A boot_id in the form that :func:`boot_id` returns; InvalidValue for anything else."""
    text = str(value).lower()
    if tuple(map(len, text.split("-"))) != (8, 4, 4, 4, 12) or set(text) - set("0123456789abcdef-"):
        raise InvalidValue(
            option,
            value,
            f"must be a boot_id as the modules return it, in the form of {_BOOT_ID}",
        )
    return text


def check_boot(boot: str | None, number: int | None) -> None:
    """
    Raise DeviceGone if ``boot`` is the boot_id of another boot: the disk sequence number ``number`` then
    names no device, or another one.
    """
    if boot is not None and boot != boot_id():
        raise DeviceGone(
            f"this number belongs to another boot, {boot}",
            device=f"diskseq:{number}",
            hint="Disk sequence numbers start again with each boot: look up the device's current number",
        )
