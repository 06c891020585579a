# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Start or stop one encrypted swap area: ``start NAME``, ``stop NAME``.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Before the mapped device is resumed, it and all devices made for it below are set to be removed with their
last user (deferred removal, autoclear). Until the kernel swaps to the device, this process is the user. If it
is killed, no device in use stays. Between loading the table and the deferred removal, a killed process leaves
a mapped device that was never live, with its key. The next run removes it, and the unit runs ``stop`` at
once. After that the swap is the user, and swapoff(2) removes the device, its key and the loop device. The key
is random, is passed only to the kernel, and is stored nowhere else.
"""

from __future__ import annotations

import os
import sys

from .._base import locks
from .._base.deadline import Deadline, pauses
from .._base.errors import BlockError, DeviceBusy, InvalidValue, KernelError
from .._block import sysfs
from .._block.device import Device
from .._block.seal import seals, way_in
from .._dm import control, lifetime, load, mapped, removal, udev
from .._source import opener, orphans, spec
from .._source.resources import Resources
from . import area, config

_UDEV_SECONDS = 30
_GOING_SECONDS = 10
_SECTOR = 512


def main(arguments: list[str]) -> int:
    """Run the program and return the exit code. Errors are printed to standard error."""
    try:
        if len(arguments) != 2 or arguments[0] not in ("start", "stop"):
            raise InvalidValue("arguments", " ".join(arguments), "must be start NAME or stop NAME")
        wanted = config.read(arguments[1])
        with Resources() as resources:
            seals.reap()
            orphans.reap(resources)
            resources.locks.take(locks.of_mapped(wanted.device_name, wanted.uuid))
            if arguments[0] == "start":
                start(resources, wanted)
            else:
                stop(resources, wanted)
    except BlockError as error:
        _say(str(error))
        return 1
    return 0


def _say(text: str) -> None:
    sys.stderr.write(f"racefree-encrypted-swap: {text}\n")


def start(resources: Resources, wanted: config.Config) -> None:
    """
    Make a new device with a new key and make the kernel swap to it. Does nothing if it already does. The
    caller holds the locks of the device.
    """
    if _is_running(resources, wanted):
        return
    seals.probe()
    _have_file(wanted)
    maker = opener.Opener(resources, udev.HANDS_OFF)
    below = maker.open(spec.parse(wanted.source))
    event_nr = resources.cookie.next(udev.HANDS_OFF)
    try:
        device = mapped.make(
            resources.dm, wanted.device_name, wanted.uuid, _table(below, wanted), event_nr, persist=False
        )
    except BaseException:
        resources.cookie.not_sent()
        raise
    number = device.id.major, device.id.minor, device.id.diskseq
    with device:
        device.need_node()
        try:
            seals.seal(*number)
            _write_header(device, wanted)
            with way_in.let_in([number[:2]]):
                area.swap_on(device.path, wanted.priority, wanted.discard)
        except BaseException:
            device.close()
            seals.lift(*number)
            raise
    if not resources.settle(_UDEV_SECONDS):
        _say("udev did not finish with the device in time")


def stop(resources: Resources, wanted: config.Config) -> None:
    """
    Read back what is swapped out, and wait until the device is gone. The caller holds the locks of the
    device.
    """
    found = _find(resources, wanted)
    if found is None or found.device is None:
        # A device whose last user was killed may have gone after main() looked for stale seals.
        seals.reap()
        return
    with found.device as device:
        identity = device.id
        loops = _going_with_it(resources, device)
        if area.priority_of(identity.major, identity.minor) is not None:
            with way_in.let_in([(identity.major, identity.minor)]):
                area.swap_off(device.path)
        lifetime.set_persist(resources.dm, device, False)
    limit = Deadline(_GOING_SECONDS)
    for pause in pauses():
        if not removal.is_there(identity) and not any(sysfs.read(path) for path in loops):
            break
        if limit.expired:
            raise limit.exceeded(
                f"{wanted.device_name} to be removed",
                hint="Look for who has it open: fuser, dmsetup ls --tree",
            )
        limit.sleep(pause)
    seals.forget(identity.major, identity.minor, identity.diskseq)


def _going_with_it(resources: Resources, device: Device) -> list[str]:
    """
    The sysfs attribute ``backing_file`` of each loop device below that has autoclear set. It exists as long
    as the loop device is bound.
    """
    found = []
    for major, minor in resources.dm.deps(control.by_device(device)):
        base = f"/sys/dev/block/{major}:{minor}/loop"
        if sysfs.read(f"{base}/autoclear") == "1":
            found.append(f"{base}/backing_file")
    return found


def _is_running(resources: Resources, wanted: config.Config) -> bool:
    """
    Whether the kernel swaps to the device. DeviceBusy if the device exists but is not used for swap, or is
    not as wanted: its last stop has failed, and the configuration was changed.
    """
    found = _find(resources, wanted)
    if found is None:
        return False
    if found.device is not None:
        with found.device as device:
            priority = area.priority_of(device.id.major, device.id.minor)
            if priority is not None:
                _need_as_wanted(resources, device, priority, wanted)
                # Seal it again, in case somebody lifted the seal.
                seals.seal(device.id.major, device.id.minor, device.id.diskseq)
                return True
    raise DeviceBusy(
        "the device exists already, but the kernel does not swap to it",
        device=wanted.device_name,
        hint=f"Remove it first: dmsetup remove {wanted.device_name}",
    )


def _need_as_wanted(resources: Resources, device: Device, priority: int, wanted: config.Config) -> None:
    """Raise DeviceBusy unless the area in use is as the configuration describes it."""
    (line,) = resources.dm.table(control.by_device(device))[1]
    cipher, key, *rest = line.params.split(b" ")
    is_wanted = (cipher.decode("ascii"), 4 * len(key), b"allow_discards" in rest) == (
        wanted.cipher,
        wanted.key_size,
        wanted.discard,
    )
    is_wanted = is_wanted and wanted.priority in (None, priority)
    is_wanted = is_wanted and (wanted.size is None or wanted.size // _SECTOR == device.size // _SECTOR)
    if not is_wanted:
        raise DeviceBusy(
            "the kernel swaps to it, but with other options than those that are configured now",
            device=wanted.device_name,
            hint="Stop it first. What is swapped out must fit into memory or into other swap",
        )


def _find(resources: Resources, wanted: config.Config) -> mapped.Mapped | None:
    """The area's mapped device, held, or None. DeviceBusy if its name or UUID is that of another one."""
    found = mapped.find(resources.dm, wanted.device_name, wanted.uuid)
    if found is None or (found.status.name, found.status.uuid) == (wanted.device_name, wanted.uuid):
        return found
    if found.device is not None:
        found.device.close()
    raise DeviceBusy(
        f"it is not this area's device: it has the name {found.status.name}, and the uuid "
        f"{found.status.uuid or 'none'}",
        device=wanted.device_name,
        hint=f"Rename or remove it: dmsetup info {found.status.name}",
    )


def _have_file(wanted: config.Config) -> None:
    """
    Create or resize the file, and allocate all of its blocks. Does nothing without ``size``. Raises
    KernelError.
    """
    if wanted.size is None:
        return
    path = wanted.source["file"]
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if os.fstat(handle).st_size != wanted.size:
                os.ftruncate(handle, wanted.size)
            os.posix_fallocate(handle, 0, wanted.size)
        finally:
            os.close(handle)
    except OSError as error:
        raise KernelError.from_oserror(
            error, f"allocate {wanted.size} bytes in {path}", device=path
        ) from error


def _table(below: Device, wanted: config.Config) -> load.Table:
    """One crypt target over the whole device below, with a key that is generated here."""
    sectors = below.size // _SECTOR
    key = os.urandom(wanted.key_size // 8).hex()
    discards = " 1 allow_discards" if wanted.discard else ""
    text = f"{wanted.cipher} {key} 0 {below.id.number} 0{discards}"
    return load.Table(((0, sectors, b"crypt", text.encode("ascii")),), False, True, (below,))


def _write_header(device: Device, wanted: config.Config) -> None:
    page = os.sysconf("SC_PAGE_SIZE")
    writable = None
    try:
        with way_in.let_in([(device.id.major, device.id.minor)]):
            writable = os.open(device.held_path, os.O_WRONLY | os.O_CLOEXEC)
        os.pwrite(writable, area.header(device.size, page, wanted.name), 0)
        os.fsync(writable)
    except OSError as error:
        raise KernelError.from_oserror(error, "write a swap area's header", device=device.path) from error
    finally:
        if writable is not None:
            os.close(writable)
