# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The option ``sealed`` of the modules that make devices, and what modules tell of a seal.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Callable

from .._base.errors import DeviceBusy, InvalidValue
from .._block.device import Device, DeviceId
from .._seal import reaping, seals

ARGUMENTS = {"sealed": {"type": "bool"}}


def check(params: dict[str, Any]) -> None:
    """InvalidValue for a value of ``sealed`` that has no meaning beside the other options."""
    if params["state"] == "absent" and params["sealed"] is not None and not params["deferred"]:
        raise InvalidValue(
            "sealed",
            params["sealed"],
            "must be left out with state=absent, unless deferred=true has the device go with its last user",
        )


def prepare() -> None:
    """What every run does at its beginning: seals whose devices are gone go."""
    seals.reap()


def compare(
    params: dict[str, Any], device: Device | None, before: dict[str, Any], after: dict[str, Any]
) -> None:
    """
    Put ``sealed`` into the settings before and after the run, when the option is given or the device is sealed.

    A seal that came with a deferred removal goes when the removal is cancelled. NotSupported, KernelError when the
    device is to be sealed and cannot be.
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
    """Whether a device that goes with its last user is to be sealed and is not yet; NotSupported when it cannot be."""
    if not params["sealed"] or seals.find(device.id.major, device.id.minor, device.id.diskseq):
        return False
    seals.probe()
    return True


def change(
    device: Device, before: dict[str, Any], after: dict[str, Any], restore: list[Callable[[], Any]]
) -> None:
    """Seal the held device, or lift its seal, as the settings say; ``restore`` gets what takes that back."""
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
    For the deferred removal of a held device: nobody opens it any more, if the options say so; unless the removal
    fails. Its seal is taken away by :func:`forget` when it is gone.
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
    DeviceBusy when one of the held devices that a table names is sealed: the kernel would be refused, too. It is not for
    those that the mapped device is ``standing_on`` already, which are not opened again.
    """
    for device in devices:
        number = device.id.major, device.id.minor
        if number not in standing_on and seals.find(*number, device.id.diskseq) is not None:
            raise DeviceBusy(
                "it is sealed, so that no table can be made over it",
                device=device.path,
                hint="Make what stands on a device first, and seal it then; or lift its seal with sealed=false",
            )


def forget(identity: DeviceId) -> None:
    """The device is gone, and its number is free."""
    seals.forget(identity.major, identity.minor, identity.diskseq)


def described(device: Device) -> dict[str, Any] | None:
    """
    The seal of a held device as plain data, None when it has none: ``age`` in seconds, and how many opens were
    ``refused``.
    """
    seal = seals.find(device.id.major, device.id.minor, device.id.diskseq)
    if seal is None:
        return None
    return {"age": max(0, reaping.boot_seconds() - seal.since), "refused": seal.refused}
