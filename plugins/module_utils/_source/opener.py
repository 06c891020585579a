# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Sources: the one language for "which device". Plain data in, a held device out.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

The language itself is in ``_source.opener.spec``.
"""

from __future__ import annotations

import time

from .. import _dm_table
from .._base import locks as _locks
from .._base.deadline import Deadline, pauses
from .._base.errors import DeviceBusy, DeviceGone, WrongDevice
from .._block import backing as _backing
from .._block import bind, boot, loop, new_loop, partition, replaced, sysfs, trusted_path
from .._block import device as _device
from .._dm import health, names
from .._dm import mapped as _mapped
from . import spec

# For how long another run may take until a device has its live table, and from giving it its name on.
_MAKING_SECONDS = 30.0
_FINISHING_SECONDS = 5.0
DiskseqSource, NumberSource, PathSource = spec.DiskseqSource, spec.NumberSource, spec.PathSource
FileSource, TableSource = spec.FileSource, spec.TableSource
parse = spec.parse


def find(source, host):
    """The existing device that the source names, held; None when a file or a table has no device yet."""
    if isinstance(source, DiskseqSource):
        return open_diskseq(source)
    if isinstance(source, NumberSource):
        return _device.open_number(source.major, source.minor)
    if isinstance(source, PathSource):
        return _open_path(source, host)
    if isinstance(source, FileSource):
        return _find_file(source, host)
    return _find_table(source, host)


def open_diskseq(source):
    """The disk or partition of a DiskseqSource; DeviceGone when it is not there, or the number is of another boot."""
    boot.check_boot(source.boot_id, source.diskseq)
    if source.partition is None:
        return _device.open_diskseq(source.diskseq)
    return partition.open_partition(source.diskseq, source.partition)


def is_device(source, device, host):
    """Whether a held device is one that the source names, also when it would pick another one of several."""
    if isinstance(source, FileSource):
        if not loop.is_loop(device):
            return False
        with backing_of(source, read_only=True) as backing:
            status = loop.info(device)
            return loop.is_same(status, backing, source.offset, source.size) and _fits(source, device, status)
    if isinstance(source, TableSource) and not source.name and not source.uuid:
        return _has_table(source, device, host)
    try:
        found = find(source, host)
    except DeviceGone:
        return False
    if found is None:
        return False
    with found:
        return found.id == device.id


def size_to_be(source, device):
    """The size in bytes that a device found for the source has once it is used: a file's device follows its file, which may have grown."""
    if not isinstance(source, FileSource) or source.size:
        return device.size
    with backing_of(source, read_only=True) as backing:
        return max(device.size, (backing.size - source.offset) // 512 * 512)


def follow_file(source, device):
    """Have a device that was found for the source that size; whether it has grown."""
    grows = size_to_be(source, device) > device.size
    if grows:
        loop.set_capacity(device)
    return grows


def backing_of(source, read_only=None, option="source.file"):
    """The open file (``_block.backing.Backing``) of a FileSource; WrongDevice when it has changed since the source was written."""
    backing = _backing.Backing(
        source.file, source.read_only if read_only is None else read_only, option=option
    )
    if source.mtime_ns not in (None, backing.mtime_ns):
        backing.close()
        raise WrongDevice(
            f"it was changed at {_time_of(backing.mtime_ns)}, and is asked for as it was at {_time_of(source.mtime_ns)}",
            device=source.file,
            hint="A snapshot's store that is used with a changed image shows a mixture of both. Put the image back as it was; if it is unchanged "
            "(only its time differs), the role guest_disks finds that out by its checksum",
        )
    return backing


def refuse_broken(host, device):
    """KernelError when the held device is a mapped device that no longer works, or stands on one."""
    if _mapped.is_mapped(device):
        health.refuse_broken(host.dm, device)


class Opener:
    """
    Opens sources, making what is not there yet; ``made`` lists the devices made, which go with their last user.

    :meth:`keep` has those made stay. Everything is held until the opener's host is left. ``flags`` (of ``_dm.mapped.udev``) go with the udev events of the
    mapped devices made.
    """

    def __init__(self, host, flags=0, limit=None):
        """``limit``: until when other runs are waited for, a Deadline; ``_base.locks.SECONDS`` unless given."""
        self.host = host
        self.limit = limit
        self.flags = flags
        self.made = []
        # What was done that nothing takes back, as texts.
        self.grown = []

    def open(self, source):
        """The device, held by the host; KernelError when it is a mapped device, or stands on one, that no longer works."""
        device = self._find_or_make(source)
        refuse_broken(self.host, device)
        return device

    def _find_or_make(self, source):
        device = find(source, self.host)
        if device is not None:
            return self._use(source, device)
        return (
            self._find_or_make_file(source)
            if isinstance(source, FileSource)
            else self._find_or_make_table(source)
        )

    def _use(self, source, device):
        device = self.host.enter_context(device)
        self.follow(source, device)
        return device

    def follow(self, source, device):
        """``follow_file``, of which a note is kept."""
        if follow_file(source, device):
            self.grown.append(f"{device.path} has {device.size} bytes, as its file allows")

    def keep(self):
        """Take back "goes with its last user" for all that was made."""
        for device in self.made:
            self._set_persist(device, True)

    def give_up(self):
        """The opposite of :meth:`keep`: what was made goes with its last user after all."""
        for device in reversed(self.made):
            self._set_persist(device, False)

    def _set_persist(self, device, wanted):
        if loop.is_loop(device):
            loop.set_autoclear(device, not wanted)
        else:
            _mapped.set_persist(self.host.dm, device, wanted)

    def _find_or_make_file(self, source):
        with backing_of(source) as backing:
            if self._wait_turn([_locks.of_inode(backing.device, backing.inode, source.file)]):
                self.host.loops.forget()
                device = _find_file(source, self.host)
                if device is not None:
                    return self._use(source, device)
            check_new(source, backing, self.host)
            device = self._keep_note(
                bind.attach(
                    backing,
                    source.offset,
                    source.size,
                    source.sector_size,
                    source.read_only,
                    source.direct_io,
                )
            )
        self.host.loops.add(device, loop.info(device))
        return device

    def _find_or_make_table(self, source):
        if self._wait_turn(_locks.of_mapped(source.name, source.uuid)):
            device = _find_table(source, self.host)
            if device is not None:
                return self._use(source, device)
        try:
            device = self._make_table(source)
        except DeviceBusy as error:
            # Another program makes it, or a run that has other locks.
            return self._use(source, self._wait_for_another(source, error))
        return self._keep_note(device)

    def _wait_for_another(self, source, error):
        """The device that another run has made of the same source meanwhile; ``error`` when there is none."""
        limit, left_alone = Deadline(_MAKING_SECONDS), Deadline(_FINISHING_SECONDS)
        for pause in pauses():
            device = find(source, self.host)
            if device is not None:
                return device
            status = _status_of(source, self.host)
            if status is None or limit.expired or (left_alone.expired and not names.is_held(status.name)):
                raise error
            limit.sleep(pause)

    def _wait_turn(self, locks):
        """
        Have the locks, until the host is left: who comes next finds the device, or that it did not come to be.

        Whether they were not had already, so that somebody may have made the device since it was looked for.
        """
        locks = [lock for lock in locks if not self.host.locks.has(lock)]
        self.host.locks.take(locks, self.limit)
        return bool(locks)

    def _keep_note(self, device):
        self.made.append(device)
        return self.host.enter_context(device)

    def _make_table(self, source):
        from . import slots

        table = slots.host_slots(self.host, source.table).make(source.table, source.read_only, self)
        name = source.name or names.unused_name()
        return _mapped.make(
            self.host.dm, name, source.uuid, table, self.host.cookie.next(self.flags), persist=False
        )


def _time_of(nanoseconds):
    seconds, rest = divmod(nanoseconds, 10**9)
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(seconds))}.{rest:09} UTC"


def parse_slot(slot):
    """The source that a table's device slot holds."""
    return parse(slot.value, option=slot.field, numbers=True)


def _open_path(source, host):
    boot.check_boot(source.boot_id, source.diskseq)
    device = _device.open_path(source.path, diskseq=source.diskseq)
    if source.uuid is None:
        return device
    try:
        if not _mapped.is_mapped(device):
            raise WrongDevice("it is not a mapped device, so it has no uuid", device=source.path)
        uuid = host.dm.status(_mapped.number_of(device)).uuid
        if uuid != source.uuid:
            raise WrongDevice(f"its uuid is {uuid or '(none)'}, not {source.uuid}", device=source.path)
    except BaseException:
        device.close()
        raise
    return device


def _find_file(source, host):
    trusted_path.check(source.file, source.trusted_path, host.warn, "source.file")
    with backing_of(source) as backing:
        chosen = None
        for device, status in host.loops.find(backing, source.offset, source.size):
            if chosen is None and _fits(source, device, status):
                chosen = device
            else:
                device.close()
        try:
            if chosen is None:
                check_new(source, backing, host)
            else:
                _check_found(source, backing, chosen)
        except BaseException:
            if chosen is not None:
                chosen.close()
            raise
        return chosen


def check_new(source, backing, host, option="source.file"):
    """Raise InvalidValue, DeviceBusy or WrongDevice when a FileSource's open file (``backing_of``) cannot, or is not to, have a new loop device."""
    area = new_loop.Area(source.offset, source.size, not source.read_only)
    if not host.for_guests:
        file = backing.device, backing.inode
        replaced.refuse(source.file, file, area, host.loops, host.warn, with_going=False)
    new_loop.check(backing, area, source, host.loops, host.for_guests, option)
    _backing.check_geometry(backing, source.offset, source.size, source.sector_size)


def _check_found(source, backing, device):
    _backing.check_geometry(backing, source.offset, source.size, source.sector_size)
    left = (backing.size - source.offset) // device.logical_block * device.logical_block
    if not source.size and left < device.size:
        raise _backing.cut(
            device, device.size, left, "give the device its new size (loop_device with allow_shrink=true)"
        )


def _fits(source, device, status):
    return (
        status.read_only == source.read_only
        and source.sector_size in (None, device.logical_block)
        and (status.direct_io or not source.direct_io)
    )


def _find_table(source, host):
    if not source.name and not source.uuid:
        return None
    mapped = _mapped.find(host.dm, source.name or "", source.uuid or "")
    if mapped is None:
        return None
    if _is_unfinished(source, mapped.status):
        # Another run is making it, or somebody else has left it so: the opener waits for it.
        if mapped.device is not None:
            mapped.device.close()
        return None
    try:
        _check_same_table(source, host, mapped)
    except BaseException:
        if mapped.device is not None:
            mapped.device.close()
        raise
    return mapped.device


def _is_unfinished(source, status):
    """Whether the device of the MappedStatus is the source's, by all it is named by, and has no live table."""
    is_named = source.name in (None, "", status.name) or names.holder_of(status.name) is not None
    return not status.has_live_table and status.uuid == (source.uuid or status.uuid) and is_named


def _has_table(source, device, host):
    """Whether a held mapped device has this table, which names no device: over what its slots name, also when they would pick another."""
    from . import slots

    if (
        not _mapped.is_mapped(device)
        or host.dm.status(_mapped.number_of(device)).read_only != source.read_only
    ):
        return False
    live = slots.live_table(host, device)
    wanted = _dm_table.parse_table(source.table)
    there = {(index, slot.field): slot.value for index, slot in live.devices()} if live is not None else {}
    numbers = {}
    for index, slot in wanted.devices():
        number = sysfs.parse_number(there.get((index, slot.field), ""))
        if number is None:
            return False
        # The table has it open, so its number is its own.
        with _device.open_number(*number) as below:
            if not is_device(parse_slot(slot), below, host):
                return False
        numbers[slot.text] = below.id.number
    return live is not None and bool(wanted.with_devices(numbers).same_as(live))


def _status_of(source, host):
    """The MappedStatus of the device with the source's uuid or name, or None."""
    mapped = (
        _mapped.find(host.dm, source.name or "", source.uuid or "") if source.name or source.uuid else None
    )
    if mapped is not None and mapped.device is not None:
        mapped.device.close()
    return None if mapped is None else mapped.status


def _check_same_table(source, host, mapped):
    """An existing device under the source's name serves only if it is exactly the one that the source describes."""
    name = source.name or source.uuid
    taken = DeviceBusy(
        f"there is another device under this name: {_mapped.describe(host.dm, mapped)}", device=name
    )
    if (
        mapped.device is None
        or (source.uuid and mapped.status.uuid != source.uuid)
        or (source.name and mapped.status.name != source.name)
    ):
        raise taken
    if not _has_table(source, mapped.device, host):
        raise taken
