# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Start or stop one encrypted swap area: ``start NAME``, ``stop NAME``. Say what is wrong with areas that are to
be: ``plan``, which reads them from standard input, changes nothing, and prints JSON.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Before the mapped device is resumed, it and all devices made for it below are set to be removed with their
last user (deferred removal, autoclear). Until the kernel swaps to the device, this process is the user. If it
is killed, no device in use stays. Between loading the table and the deferred removal, a killed process leaves
a mapped device that was never live, with its key. The next run removes it, and the unit runs ``stop`` at
once. After that the swap is the user, and swapoff(2) removes the device, its key and the loop device. The key
is random, is passed only to the kernel, and is stored nowhere else.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys

from .._base import gone, locks
from .._base.deadline import Deadline, pauses
from .._base.errors import BlockError, DeviceBusy, DeviceGone, InvalidValue, KernelError
from .._block import sysfs
from .._block.device import Device, is_claimed, open_number
from .._block.seal import seals, way_in
from .._dm import control, lifetime, load, mapped, removal, udev
from .._source import below, opener, orphans, spec
from .._source.resources import Resources
from . import area, config, contents, file, plan, running, suspended, users

_UDEV_SECONDS = 30
# How long to wait for a disk or a file that does not exist yet: the host may be booting. The role
# boot_devices waits as long by default.
_LATE_SECONDS = 30
_GOING_SECONDS = 10
_RELEASE_SECONDS = 1
_SECTOR = 512


def main(arguments: list[str]) -> int:
    """Run the program and return the exit code. Errors are printed to standard error."""
    try:
        if arguments == ["plan"]:
            sys.stdout.write(json.dumps(plan.plan(sys.stdin.read())._asdict()) + "\n")
            return 0
        if len(arguments) != 2 or arguments[0] not in ("start", "stop"):
            raise InvalidValue("arguments", " ".join(arguments), "must be start NAME, stop NAME or plan")
        action, name = arguments
        config.check_name(name)
        # What runs can be stopped, whatever its configuration says by now.
        wanted = config.read(name) if action == "start" else None
        if wanted is not None:
            wait_for(wanted)
        with Resources() as resources:
            seals.reap()
            orphans.reap(resources)
            resources.locks.take(locks.of_mapped(*config.identity(name)))
            if wanted is not None:
                start(resources, wanted)
            else:
                stop(resources, name)
    except BlockError as error:
        _say(str(error))
        return 1
    return 0


def _say(text: str) -> None:
    sys.stderr.write(f"racefree-encrypted-swap: {text}\n")


def wait_for(wanted: config.Config) -> None:
    """
    Wait until the path of the area's storage exists. If it does not in time, the start says what is missing.
    """
    source = wanted.parsed()
    if isinstance(source, spec.FileSource):
        # With a size, the file is made.
        path = None if wanted.size is not None else source.file
    else:
        path = source.path if isinstance(source, spec.PathSource) else None
    limit = Deadline(_LATE_SECONDS)
    for pause in pauses():
        if path is None or limit.expired or gone.exists(path):
            return
        limit.sleep(pause)


def start(resources: Resources, wanted: config.Config) -> None:
    """
    Make a new device with a new key and make the kernel swap to it. Does nothing if it already does. The
    caller holds the locks of the device.
    """
    if _is_running(resources, wanted):
        return
    seals.probe()
    storage = _storage(resources, wanted)
    event_nr = resources.cookie.next(udev.HANDS_OFF)
    try:
        device = mapped.make(
            resources.dm, wanted.device_name, wanted.uuid, _table(storage, wanted), event_nr, persist=False
        )
    except BaseException:
        resources.cookie.not_sent()
        raise
    number = device.id.major, device.id.minor, device.id.diskseq
    with device:
        device.need_node()
        try:
            # A program that takes no locks may have made another one meanwhile.
            users.refuse_other_holders(storage, device)
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


def stop(resources: Resources, name: str) -> None:
    """
    Read back what is swapped out, and wait until the device of the area ``name`` is gone and does not use its
    storage any more. The caller holds the locks of the device.
    """
    found = running.find(resources, name)
    if found is None or found.device is None:
        # A device whose last user was killed may have gone after main() looked for stale seals.
        _reap_what_is_going(resources.dm)
        return
    with contextlib.ExitStack() as held:
        with found.device as device:
            identity = device.id
            loops, staying = _storage_of(resources, device, held)
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
                    f"{config.identity(name)[0]} to be removed",
                    hint="Look for who has it open: fuser, dmsetup ls --tree",
                )
            limit.sleep(pause)
        seals.forget(identity.major, identity.minor, identity.diskseq)
        limit = Deadline(_RELEASE_SECONDS)
        for device in staying:
            _wait_released(device, limit)


def _wait_released(device: Device, limit: Deadline) -> None:
    """
    Wait until the held device is free for others, such as mkfs, or has a new user. If that cannot be seen
    within the limit, say so: the area is stopped all the same.

    Since Linux 6.9, a mapped device with a deferred remove gives up its claim of the devices below a moment
    after it is gone from sysfs (the asynchronous fput() in close_table_device(), drivers/md/dm.c).
    """
    unseen: KernelError | None = None
    for pause in pauses():
        try:
            # A claim without a holder in sysfs is the old one, or that of a mount or program that came after
            # it. The latter is no error, and not worth a longer wait.
            if not is_claimed(device) or sysfs.holders_of(device.id.major, device.id.minor):
                return
            unseen = None
        except KernelError as error:
            if error.errno in gone.DISK:
                # Nobody can open a disk that is gone.
                return
            # Another one, such as EMFILE, says nothing about the claim.
            unseen = error
        if limit.expired:
            break
        limit.sleep(pause)
    if unseen is not None:
        _say(f"stopped, but whether its storage is free could not be seen: {unseen}")


def _reap_what_is_going(dm: control.Control) -> None:
    """
    Remove the seals of mapped devices that are being removed. The kernel first removes a device's name and a
    moment later its entry in sysfs, which decides whether its seal is stale (dm_destroy() in
    drivers/md/dm.c). After the time limit, the seal of a device that does not go is left to the next run.
    """
    limit = Deadline(_GOING_SECONDS)
    for pause in pauses():
        seals.reap()
        if limit.expired or not any(_is_going(dm, *number) for number in seals.found()):
            return
        limit.sleep(pause)


def _is_going(dm: control.Control, major: int, minor: int) -> bool:
    """Whether it is a mapped device that device-mapper does not know any more, or no device at all."""
    name = sysfs.kernel_name(major, minor)
    if name is None or not name.startswith("dm-"):
        return name is None
    try:
        dm.status(control.by_number(major, minor))
    except DeviceGone:
        return True
    return False


def _storage_of(
    resources: Resources, device: Device, held: contextlib.ExitStack
) -> tuple[list[str], list[Device]]:
    """
    What is below the held mapped device. First the sysfs attribute ``backing_file`` of each loop device that
    has autoclear set: it exists as long as the loop device is bound. Then the other devices, which are held
    until ``held`` is closed. Those that cannot be opened are named on standard error: broken storage does not
    keep the swap from being stopped.
    """
    going, staying = [], []
    for major, minor in resources.dm.deps(control.by_device(device)):
        base = f"/sys/dev/block/{major}:{minor}/loop"
        if sysfs.read(f"{base}/autoclear") == "1":
            going.append(f"{base}/backing_file")
        else:
            try:
                staying.append(held.enter_context(open_number(major, minor)))
            except BlockError as error:
                _say(f"its storage cannot be waited for: {error}")
    return going, staying


def _is_running(resources: Resources, wanted: config.Config) -> bool:
    """
    Whether the kernel swaps to the device. DeviceBusy if the device exists but is not used for swap, or is
    not as wanted: its last stop has failed, and the configuration was changed.
    """
    found = running.find(resources, wanted.name)
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
    differences = running.differences(resources, device, priority, wanted)
    if differences:
        raise DeviceBusy(
            f"the kernel swaps to it, but it is not as configured now: {'; '.join(differences)}",
            device=wanted.device_name,
            hint=f"Stop it, then start it: systemctl restart racefree-encrypted-swap@{wanted.name}. What is "
            "swapped out must fit into memory or into other swap",
        )


def _storage(resources: Resources, wanted: config.Config) -> Device:
    """
    The held device that the area is to be on, which nobody else uses, and which has nothing on it that is
    known. It is locked until the resources are closed. Raises BlockError.
    """
    source = wanted.parsed()
    prepared = file.prepare(resources, source, wanted) if isinstance(source, spec.FileSource) else None
    # Loop devices that have gone since must not be found.
    resources.loops.forget()
    maker = opener.Opener(resources, udev.HANDS_OFF)
    device = maker.open(source)
    resources.locks.take([below.lock_of(device)])
    name = wanted.place(device)
    if isinstance(source, spec.FileSource) and prepared is not None:
        file.check_made(resources, source, prepared, device, is_new=device in maker.made)
        name = device.path if prepared.part.offset else source.file
    else:
        users.refuse_device(device, name)
        suspended.refuse(device, name)
    if not wanted.overwrite:
        contents.refuse(device.fd, name)
    area.check_size(device.size)
    return device


def _table(storage: Device, wanted: config.Config) -> load.Table:
    """One crypt target over the whole device, with a key that is generated here."""
    sectors = storage.size // _SECTOR
    key = os.urandom(wanted.key_size // 8).hex()
    discards = " 1 allow_discards" if wanted.discard else ""
    text = f"{wanted.cipher} {key} 0 {storage.id.number} 0{discards}"
    return load.Table(((0, sectors, b"crypt", text.encode("ascii")),), False, True, (storage,))


def _write_header(device: Device, wanted: config.Config) -> None:
    writable = None
    try:
        with way_in.let_in([(device.id.major, device.id.minor)]):
            writable = os.open(device.held_path, os.O_WRONLY | os.O_CLOEXEC)
        os.pwrite(writable, area.header(device.size, wanted.name), 0)
        os.fsync(writable)
    except OSError as error:
        raise KernelError.from_oserror(error, "write a swap area's header", device=device.path) from error
    finally:
        if writable is not None:
            os.close(writable)
