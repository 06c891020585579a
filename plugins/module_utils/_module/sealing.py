# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The option ``sealed`` of the modules that create devices, and their return values about seals.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Callable

from .._base.errors import DeviceBusy, InvalidValue
from .._block.device import Device, DeviceId
from .._block.seal import reaping, seals

ARGUMENTS = {"sealed": {"type": "bool"}}


def check(params: dict[str, Any]) -> None:
    """InvalidValue if ``sealed`` does not make sense with the other options."""
    if params["state"] == "absent" and params["sealed"] is not None and not params["deferred"]:
        raise InvalidValue(
            "sealed",
            params["sealed"],
            "must not be set with state=absent, unless deferred=true has the device go with its last user",
        )


def prepare() -> None:
    """Remove the seals of devices that no longer exist, at the beginning of every run."""
    seals.reap()


def compare(
    params: dict[str, Any], device: Device | None, before: dict[str, Any], after: dict[str, Any]
) -> None:
    """
    Add ``sealed`` to the settings before and after the run, if the option is given or the device is sealed.

    A seal that was set by a deferred removal is lifted when the removal is cancelled. NotSupported or
    KernelError if the device cannot be sealed.
    """
    seal = None if device is None else seals.find(device.id.major, device.id.minor, device.id.diskseq)
    if params["sealed"] is None and seal is None:
        return
    stays = seal is not None and not (seal.with_removal and after.get("persist"))
    after["sealed"] = stays if params["sealed"] is None else params["sealed"]
    if before:
        before["sealed"] = seal is not None
    if after["sealed"] and seal is None:
        seals.probe()


def is_missing(params: dict[str, Any], device: Device) -> bool:
    """Whether a device with a deferred removal must still be sealed. NotSupported if that is impossible."""
    if not params["sealed"] or seals.find(device.id.major, device.id.minor, device.id.diskseq):
        return False
    seals.probe()
    return True


def change(
    device: Device, before: dict[str, Any], after: dict[str, Any], restore: list[Callable[[], Any]]
) -> None:
    """
    Seal the held device, or lift its seal, as the settings say. The step that rolls this back is added to
    ``restore``.
    """
    number = device.id.major, device.id.minor, device.id.diskseq
    has, wanted = bool(before.get("sealed")), bool(after.get("sealed"))
    if wanted and not has:
        restore.append(lambda: seals.lift(*number))
        seals.seal(*number)
    elif has and not wanted:
        restore.append(lambda: seals.seal(*number))
        seals.lift(*number)


@contextlib.contextmanager
def going(params: dict[str, Any], device: Device) -> Iterator[None]:
    """
    Seal a held device during its deferred removal, if the options say so. If the removal fails, the seal is
    lifted. When the device is gone, :func:`forget` removes the seal.
    """
    number = device.id.major, device.id.minor, device.id.diskseq
    is_new = bool(params["sealed"]) and seals.find(*number) is None
    if is_new:
        seals.seal(*number, with_removal=True)
    try:
        yield
    except BaseException:
        if is_new:
            seals.lift(*number)
        raise


def refuse_sealed(devices: list[Device], standing_on: list[tuple[int, int]]) -> None:
    """
    DeviceBusy if one of the held devices that a table names is sealed, because the kernel could not open it.
    Devices that the mapped device is ``standing_on`` already are not opened again, so they are allowed.
    """
    for device in devices:
        number = device.id.major, device.id.minor
        if number not in standing_on and seals.find(*number, device.id.diskseq) is not None:
            raise DeviceBusy(
                "it is sealed, so that no table can be made over it",
                device=device.path,
                hint="Create the devices above it before it is sealed, or lift its seal with sealed=false",
            )


def forget(identity: DeviceId) -> None:
    """Remove the seal of a device that is gone, because its number may be reused."""
    seals.forget(identity.major, identity.minor, identity.diskseq)


def described(device: Device) -> dict[str, Any] | None:
    """
    The seal of a held device as plain data, None if it is not sealed: its ``age`` in seconds, and how many
    opens were ``refused``.
    """
    seal = seals.find(device.id.major, device.id.minor, device.id.diskseq)
    if seal is None:
        return None
    return {"age": max(0, reaping.boot_seconds() - seal.since), "refused": seal.refused}
