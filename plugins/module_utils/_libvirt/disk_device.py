# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The mapped device at the path in a domain definition: created on the disk's source, verified, and removed with
its last user.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

libvirt opens a path late. A separate mapped device for every disk makes this safe. Its name and UUID are used
for this disk only, and the kernel does not give them to a second device. Its table keeps the source open.
While it is open, nobody can remove it. Only renaming the device or changing the link can make the path lead
to another device, which is detected by comparing the device that blkback has opened. The device is created
with its deferred remove set, so it is removed when its last user closes it, even if that is a holder process
that is killed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from .._base import gone
from .._base import locks as _locks
from .._base.deadline import Deadline, pauses
from .._base.errors import DeviceBusy, InvalidValue, WrongDevice
from .._block import device as _device
from .._block import sysfs
from .._block.device import Device
from .._dm import control, lifetime, load, removal, udev
from .._dm import mapped as _mapped
from .._source import for_guest, lookup, orphans
from .._source import recipe as _recipe
from .._source.resources import Resources
from .._xen import guest as _guest
from .._xen import sharing as _sharing
from .._xen import stack
from .._xen.footprint import Extent, conflict, footprint
from .._xen.vbd_key import Key
from . import domain_xml, host_use

if TYPE_CHECKING:
    from .._source.spec import Source
    from .._xenstore.pyxs_store import Store

PREFIX = domain_xml.UUID_PREFIX
STATE = "/run/racefree-block/libvirt"
# Seconds that an earlier run of the same guest has to close the device.
_LETTING_GO = 20


class DiskSpec(NamedTuple):
    """
    One disk of one domain. ``source``: see ``_source.spec.parse``. ``shareable``: other guests may use the
    same storage. ``seal``: whether the device is sealed once blkback has opened it.
    """

    domain: str
    uuid: str
    target: str
    source: Source
    read_only: bool = False
    shareable: bool = False
    seal: _recipe.Seal = _recipe.Seal()

    @property
    def path(self) -> str:
        return domain_xml.path_of(self.uuid, self.target)

    @property
    def mapped_uuid(self) -> str:
        return domain_xml.mapped_uuid(self.uuid, self.target)

    def __str__(self) -> str:
        return f"{self.target} of {self.domain}"


class Replaces(NamedTuple):
    """
    A disk that does not count in the check for other users, because the new one takes its place. ``key``: of
    a guest of Xen; ``opened``: by QEMU.
    """

    key: Key | None = None
    opened: _sharing.QemuUse | None = None


_NOTHING = Replaces()


class _Place(NamedTuple):
    """Identifies the disk's user for the sharing check."""

    key: Key | None
    guest: _guest.Guest


def locked(limit: Deadline) -> _locks.Locks:
    """
    A context (``_base.locks.Locks``) that holds a lock from the check of what other guests use until their
    checks can see the new device. It is the last lock that is taken: a caller that needs the locks of a
    disk's source holds them already (docs/decisions/no-global-lock.md).

    Raises ``_base.locks.Unavailable`` if another process holds the lock for too long.
    """
    return _locks.held([_locks.Lock("guests' disks", "making guests' disks")], limit)


def make(resources: Resources, spec: DiskSpec, limit: Deadline, store: Store | None = None) -> Device:
    """
    Create the device for a disk, held by the resources, after checking that nobody else uses the storage. The
    caller must hold locks as for :func:`open_below`. ``store`` is for that check; None without Xen.

    The device's path may not exist yet, see :func:`settle`. Raises what opening the source raises,
    DeviceBusy, InvalidValue.
    """
    _make_room(resources, spec, limit)
    below = open_below(resources, spec, limit, store)
    return _make_over(resources, spec, Over(below, 0, below.size // 512, spec.read_only))


def open_below(
    resources: Resources,
    spec: DiskSpec,
    limit: Deadline,
    store: Store | None,
    replaces: Replaces = _NOTHING,
) -> Device:
    """
    The device of the disk's source, held by the resources, after checking that nobody else uses the storage,
    nor this host itself. The caller must hold :func:`locked`, and the locks of the source unless it holds the
    source's device. ``replaces``: a disk of this guest. Raises as :func:`make`.
    """
    below = for_guest.open_in_turn(resources, spec.source, limit, spec.read_only, spec.shareable)
    if below.read_only and not spec.read_only:
        raise InvalidValue(
            "mode",
            "w",
            f"{below.path} is read-only, so the guest can have it only with mode=r",
            device=str(spec),
        )
    if not spec.shareable:
        mine = footprint(below.id.major, below.id.minor, not spec.read_only, stack.questions(resources))
        check_users(resources, spec, mine, below.path, store, replaces)
        host_use.refuse(resources, below, mine, str(spec))
    return below


class Over(NamedTuple):
    """What a disk's device is made of: ``sectors`` of 512 bytes of ``below`` from the sector ``start`` on."""

    below: Device
    start: int
    sectors: int
    read_only: bool


def over(resources: Resources, device: Device) -> Over:
    """What a held device that this collection created is made of, with the device below held, too."""
    (line,) = resources.dm.table(control.by_device(device))[1]
    number, dummy, start = line.params.decode("ascii").partition(" ")
    found = sysfs.parse_number(number)
    if found is None:
        raise AssertionError  # the kernel always writes it in this form
    # The table has the device open, so its number is pinned.
    below = resources.enter_context(_device.open_number(*found))
    return Over(below, int(start), line.length, device.read_only)


def make_again(resources: Resources, spec: DiskSpec, made_of: Over, limit: Deadline) -> Device:
    """Create the device of a disk as it was before. The caller must hold :func:`locked`."""
    _make_room(resources, spec, limit)
    return _make_over(resources, spec, made_of)


def _make_over(resources: Resources, spec: DiskSpec, made_of: Over) -> Device:
    below = made_of.below
    line = (0, made_of.sectors, b"linear", f"{below.id.number} {made_of.start}".encode())
    device = _mapped.make(
        resources.dm,
        domain_xml.mapped_name(spec.uuid, spec.target),
        spec.mapped_uuid,
        load.Table((line,), made_of.read_only, held=(below,)),
        resources.cookie.next(udev.HANDS_OFF),
        persist=False,
    )
    return resources.enter_context(device)


def settle(resources: Resources, pairs: Iterable[tuple[DiskSpec, Device]], limit: Deadline) -> None:
    """
    Wait until each path of ``pairs``, a list of ``(DiskSpec, Device)``, leads to its device. Raises
    DeadlineExceeded, WrongDevice.
    """
    resources.settle(limit.left())
    for spec, device in pairs:
        for pause in pauses():
            found = _number_at(spec.path)
            if found == device.id.rdev:
                break
            if limit.expired and found is not None:
                raise WrongDevice(
                    f"{spec.path} leads to {os.major(found)}:{os.minor(found)}, not to {device.id.number}",
                    device=str(spec),
                )
            if limit.expired:
                raise limit.exceeded(
                    f"udev to make {spec.path}", device=str(spec), hint="Check that systemd-udevd runs"
                )
            limit.sleep(pause)


def find(resources: Resources, spec: DiskSpec) -> Device | None:
    """The held device of a disk, or None. DeviceBusy if another device has its name."""
    mapped = _mapped.find(resources.dm, domain_xml.mapped_name(spec.uuid, spec.target), spec.mapped_uuid)
    if mapped is None or mapped.device is None:
        return None
    if mapped.status.uuid != spec.mapped_uuid:
        raise _taken(resources, mapped, spec)
    return resources.enter_context(mapped.device)


def is_made_of(
    resources: Resources,
    device: Device,
    source: Source,
    is_device: Callable[[Source, Device, Resources], bool] = lookup.is_device,
) -> bool:
    """
    Whether a held device that this collection created is stacked on the source. ``is_device``: one of the
    functions of ``lookup``.
    """
    lines = resources.dm.table(control.by_device(device))[1]
    if len(lines) != 1 or lines[0].type != b"linear":
        return False
    number = sysfs.parse_number(lines[0].params.decode("ascii", "replace").partition(" ")[0])
    if number is None:
        raise AssertionError  # the kernel always writes it in this form
    # The table has the device open, so its number is pinned.
    with _device.open_number(*number) as below:
        return is_device(source, below, resources)


def of_domain(resources: Resources, uuid: str) -> list[tuple[str, Device]]:
    """``[(target, Device)]`` of all devices created for a domain's disks, held by the resources."""
    start = f"{PREFIX}{uuid}-"
    return [(full[len(start) :], device) for full, device in _ours(resources) if full.startswith(start)]


def _ours(resources: Resources) -> list[tuple[str, Device]]:
    found = []
    for entry in resources.dm.list_devices("racefree-"):
        mapped = _mapped.open_mapped(resources.dm, control.by_name(os.fsdecode(entry.name)))
        if mapped is not None and mapped.device is not None:
            device = resources.enter_context(mapped.device)
            if mapped.status.uuid.startswith(PREFIX):
                found.append((mapped.status.uuid, device))
    return found


def _make_room(resources: Resources, spec: DiskSpec, limit: Deadline) -> None:
    """
    Remove a device that an earlier run has left under this name. DeviceBusy if it is in use, or was not
    created for this disk.
    """
    # A killed run may have left it without a table, with this disk's UUID and a name of its own.
    orphans.reap(resources)
    name, patience = domain_xml.mapped_name(spec.uuid, spec.target), limit.sooner(_LETTING_GO)
    for pause in pauses():
        mapped = _mapped.find(resources.dm, name, spec.mapped_uuid)
        if mapped is None:
            return
        if (mapped.status.name, mapped.status.uuid) != (name, spec.mapped_uuid):
            raise _taken(resources, mapped, spec)
        if mapped.device is None:
            removal.remove_without_table(resources.dm, mapped.status)
            continue
        with mapped.device as device:
            # One opener is this process. Another one is a guest, which closes the device while it shuts down.
            if resources.dm.status(control.by_device(device)).open_count <= 1:
                lifetime.set_persist(resources.dm, device, False)
            elif patience.expired:
                raise DeviceBusy(
                    f"an earlier run of the guest still has it: {_mapped.describe(resources.dm, mapped)}",
                    device=str(spec),
                )
        patience.sleep(pause)


def _taken(resources: Resources, mapped: _mapped.Mapped, spec: DiskSpec) -> DeviceBusy:
    """The error for a device with this disk's name that was created by others. Closes the device."""
    try:
        return DeviceBusy(
            f"its name is taken by {_mapped.describe(resources.dm, mapped)}",
            device=str(spec),
            hint="Such names are for this collection only. Find out what made the device, and remove it",
        )
    finally:
        if mapped.device is not None:
            mapped.device.close()


def check_users(
    resources: Resources,
    spec: DiskSpec,
    mine: list[Extent],
    path: str,
    store: Store | None,
    replaces: Replaces = _NOTHING,
) -> None:
    """
    DeviceBusy if the Extents ``mine`` of a disk are in use, also by disks that were created but not attached
    yet, which are not in XenStore. ``path``: of the disk's device, for messages.
    """
    if store is not None:
        with _sharing.Sharing(stack.questions(resources)) as sharing:
            sharing.check_extents(
                store, mine, _Place(replaces.key, _guest.Guest(-1, spec.uuid, spec.domain)), path
            )
    check_others(resources, spec, mine, path, replaces.opened)


def check_others(
    resources: Resources,
    spec: DiskSpec,
    mine: list[Extent],
    path: str,
    own: _sharing.QemuUse | None = None,
) -> None:
    """
    The same without Xen's guests: the devices that were made for other disks, and what QEMU has open except
    for ``own``.
    """
    questions = stack.questions(resources)
    for uuid, device in _ours(resources):
        # Held no longer than that: an old disk that is being replaced must go when the guest has released it.
        with device:
            number, writes = (device.id.major, device.id.minor), not device.read_only
            pair = uuid != spec.mapped_uuid and conflict(
                mine, footprint(*number, writes, questions, is_others=True)
            )
        if pair:
            raise DeviceBusy(
                f"{_sharing.describe(*pair)} is in use as the disk {uuid[len(PREFIX) + 37 :]} "
                f"of the domain {uuid[len(PREFIX) : len(PREFIX) + 36]}",
                device=f"{path} for {spec}",
                hint="Attach it read-only to both guests, or set shared=true if they coordinate their writes",
            )
    with _sharing.Sharing(questions) as sharing:
        sharing.check_qemus(mine, f"{path} for {spec}", own)


def _number_at(path: str) -> int | None:
    """The number of the block device at a path; None if nothing is there (yet)."""
    try:
        there = os.stat(path)
    except OSError as error:
        if error.errno in gone.PATH:
            return None
        raise gone.not_seen(error, path) from error
    return there.st_rdev if stat.S_ISBLK(there.st_mode) else 0
