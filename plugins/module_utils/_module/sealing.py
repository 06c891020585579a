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
from typing import TYPE_CHECKING, Any, Callable

from .._base import late
from .._base.errors import DeviceBusy, InvalidValue
from .._block.device import Device, DeviceId
from .._block.seal import place, reason_text

if TYPE_CHECKING:
    from .._block.seal import reaping, seals
    from .._block.seal.entry import Seal
else:
    # Most hosts have no sealed devices.
    reaping = late.Module(__name__, ".._block.seal.reaping")
    seals = late.Module(__name__, ".._block.seal.seals")

ARGUMENTS = {"sealed": {"type": "bool"}}
# Of modules whose devices are stacked on others.
BELOW_ARGUMENTS = {**ARGUMENTS, "sealed_below": {"type": "bool"}}


def check(params: dict[str, Any]) -> None:
    """InvalidValue if ``sealed`` or ``sealed_below`` do not make sense with the other options."""
    check_below(params)
    if params["state"] == "absent" and params["sealed"] is not None and not params["deferred"]:
        raise InvalidValue(
            "sealed",
            params["sealed"],
            "must not be set with state=absent, unless deferred=true has the device go with its last user",
        )


def check_below(params: dict[str, Any]) -> None:
    """InvalidValue if ``sealed_below`` is true without ``sealed``, or with a removal."""
    if params.get("sealed_below") and (not params["sealed"] or params["state"] in ("absent", "detached")):
        raise InvalidValue(
            "sealed_below",
            True,
            "is possible only with sealed=true, and not for a device that is removed: what lies below is "
            "sealed together with the device",
        )


def check_guest_disk(params: dict[str, Any], gone: str) -> None:
    """InvalidValue if the options do not make sense; ``gone``: the state in which there is no disk."""
    check_below(params)
    if params["sealed"] is not None and params["state"] == gone:
        raise InvalidValue(
            "sealed", params["sealed"], f"must not be set with state={gone}: the seal goes with the disk"
        )


def need_support() -> None:
    """Raise NotSupported or KernelError if this host cannot seal devices."""
    seals.probe()


def prepare() -> None:
    """Remove the seals of devices that no longer exist, at the beginning of every run."""
    if place.in_use():
        seals.reap()


def compare(
    params: dict[str, Any],
    device: Device | None,
    before: dict[str, Any],
    after: dict[str, Any],
    reason: str = reason_text.OWN,
) -> None:
    """
    Add ``sealed`` and ``sealed_below`` to the settings before and after the run, if the options are given or
    the device is sealed for this reason.

    A seal that was set by a deferred removal is lifted when the removal is cancelled. NotSupported or
    KernelError if the device cannot be sealed.
    """
    is_sealed = device is not None and is_for(device, reason)
    if params["sealed"] is None and not is_sealed:
        return
    stays = is_sealed and not (_with_removal(device) and after.get("persist"))
    after["sealed"] = stays if params["sealed"] is None else params["sealed"]
    if before:
        before["sealed"] = is_sealed
    if after["sealed"] and not is_sealed:
        seals.probe()
    _compare_below(params, device, before, after, reason)


def as_before(
    params: dict[str, Any], device: Device | None, before: dict[str, Any], reason: str
) -> dict[str, Any]:
    """
    The options for a disk that replaces the one on ``device`` (None if that is gone): what is not given, is
    as before. Adds how the old disk is sealed to the settings ``before``.
    """
    if device is None or not is_for(device, reason):
        return params
    before["sealed"] = True
    before["sealed_below"] = any(seals.are_sealed_below(*_number(device), reason))
    wanted = dict(params)
    if wanted["sealed"] is None:
        wanted["sealed"] = True
    if wanted["sealed_below"] is None and wanted["sealed"]:
        wanted["sealed_below"] = before["sealed_below"]
    return wanted


def _compare_below(
    params: dict[str, Any], device: Device | None, before: dict[str, Any], after: dict[str, Any], reason: str
) -> None:
    wanted = params.get("sealed_below")
    if wanted is None and not place.in_use():
        return
    there = [] if device is None else seals.are_sealed_below(*_number(device), reason)
    if wanted is None and not any(there):
        return
    after["sealed_below"] = bool(after["sealed"]) and (wanted or wanted is None)
    if before:
        before["sealed_below"] = all(there) if after["sealed_below"] else any(there)


def _with_removal(device: Device | None) -> bool:
    seal = None if device is None else _seal_of(device)
    return seal is not None and seal.with_removal


def _seal_of(device: Device) -> Seal | None:
    return seals.find(*_number(device)) if place.in_use() else None


def _number(device: Device) -> tuple[int, int, int]:
    return device.id.major, device.id.minor, device.id.diskseq


def is_missing(params: dict[str, Any], device: Device) -> bool:
    """Whether a device with a deferred removal must still be sealed. NotSupported if that is impossible."""
    if not params["sealed"] or is_for(device, reason_text.OWN):
        return False
    seals.probe()
    return True


def change(
    device: Device,
    before: dict[str, Any],
    after: dict[str, Any],
    restore: list[Callable[[], Any]],
    reason: str = reason_text.OWN,
) -> None:
    """
    Seal the held device, or lift its seal, as the settings say, and those below it. The steps that roll this
    back are added to ``restore``.
    """
    number = _number(device)
    has, wanted = bool(before.get("sealed")), bool(after.get("sealed"))
    if wanted and not has:
        restore.append(lambda: seals.lift(*number, reason))
        seals.seal(*number, reason=reason)
    if after.get("sealed_below"):
        # A new table may name more devices, so this is repeated.
        if not before.get("sealed_below"):
            restore.append(lambda: seals.lift_below(*number, reason))
        seals.seal_below(*number, reason)
    elif before.get("sealed_below"):
        restore.append(lambda: seals.seal_below(*number, reason))
        seals.lift_below(*number, reason)
    if has and not wanted:
        restore.append(lambda: seals.seal(*number, reason=reason))
        seals.lift(*number, reason)


@contextlib.contextmanager
def going(params: dict[str, Any], device: Device) -> Iterator[None]:
    """
    Seal a held device during its deferred removal, if the options say so. If the removal fails, the seal is
    lifted. When the device is gone, :func:`forget` removes the seal.
    """
    number = _number(device)
    is_new = bool(params["sealed"]) and not is_for(device, reason_text.OWN)
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
    DeviceBusy if one of the held devices that a table names is sealed by its own option ``sealed``. Devices
    that the mapped device is ``standing_on`` already are allowed, and those that are sealed only for others
    (a guest's disk, or a device above): they may be shared, as a thin pool or the origin of snapshots is.
    """
    for device in devices:
        number = device.id.major, device.id.minor
        if number not in standing_on and is_for(device, reason_text.OWN):
            raise DeviceBusy(
                "it is sealed, so that no table can be made over it",
                device=device.path,
                hint="Create the devices above it before it is sealed, or lift its seal with sealed=false",
            )


def is_for(device: Device, reason: str) -> bool:
    """Whether the held device is sealed for this reason."""
    return place.in_use() and reason in seals.reasons_of(*_number(device))


def lift(device: Device, reason: str) -> None:
    """Lift the seal for this reason, and with it what it sealed below."""
    if place.in_use():
        seals.lift(*_number(device), reason)


def forget(identity: DeviceId) -> None:
    """Remove the seal of a device that is gone, because its number may be reused."""
    if place.in_use():
        seals.forget(identity.major, identity.minor, identity.diskseq)


def described(device: Device) -> dict[str, Any] | None:
    """
    The seal of a held device as plain data, None if it is not sealed: its ``age`` in seconds, and how many
    opens were ``refused``, and the ``reasons`` for it.
    """
    seal = _seal_of(device)
    if seal is None:
        return None
    return {
        "age": max(0, reaping.boot_seconds() - seal.since),
        "refused": seal.refused,
        "reasons": sorted(seals.reasons_of(*_number(device))),
    }
