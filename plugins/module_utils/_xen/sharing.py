# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The sharing check: refuse to attach a device to a guest if it conflicts with storage that another guest uses,
whatever devices are stacked in between.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Xen's own script compares only device numbers and mounts (tools/hotplug/Linux/block), so it lets two guests
have one file, one through a loop device and one through a mapped device. This check compares the storage
below both (see ``_xen.footprint``).
"""

from __future__ import annotations

import os
import stat

from .._base import gone
from .._base.errors import DeviceBusy
from .._base.record import Record
from .._block import bound, loop, sysfs
from .._block import device as _device
from . import vbd_nodes
from .footprint import SOME_FILE, Extent, Questions, conflict, footprint
from .vbd_nodes import Key
from .vbd_read import list_served, opened_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Protocol

    from .._block.device import Device
    from .._process.open_files import Qemu, What
    from .._xenstore.nodes import Nodes
    from .guest import Guest

    class Asker(Protocol):
        """The guest for which the check is made. ``str()`` of it appears in messages."""

        @property
        def key(self) -> Key | None: ...

        @property
        def guest(self) -> Guest: ...

    class Request(Asker, Protocol):
        """A request to attach a device to a guest."""

        @property
        def key(self) -> Key: ...

        @property
        def device(self) -> Device: ...

        @property
        def mode(self) -> str: ...


_HINT = (
    "Detach it there, or attach it read-only to both guests. Set shared=true only for guests that "
    "coordinate their writes (a cluster file system)"
)
# These nodes are written once and never changed, so reading them in a transaction does not conflict with
# writes by busy guests. The first one names the disk's storage.
_BLKBACK_NODES = ("physical-device", "diskseq", "mode")
_QEMU_NODES = ("params", "mode")
# Suffixes that xl appends to the name of the new domain during a migration, and then to that of the old one.
_MOVING = ("--incoming", "--migratedaway")
# How often the check is retried for a device that changes meanwhile.
_TRIES = 20


class QemuUse(Record):
    """What a process of QEMU has open for a disk. ``what``: as ``_process.open_files.what``."""

    pid: int
    what: What


class Use(Record):
    """
    A guest's use of storage. ``extents`` are those of the disk, ``opened`` those of all files that the
    guest's QEMU has open. Some of the latter belong to the guest's other disks, so they count for other
    guests only.
    """

    key: Key
    extents: list[Extent]
    opened: Iterable[Extent] = ()

    def against(self, request: Asker) -> list[Extent]:
        """The Extents that must not conflict with the request's."""
        return self.extents if self.key.domid == request.guest.domid else [*self.extents, *self.opened]


class Sharing:
    """
    The storage that all guests use; a context manager.

    The guests' devices are not opened: one may be dead or lack its device node, and that must not block other
    guests. A device that blkback has open keeps its number, and an unchanged disk sequence number before and
    after the check confirms this. Only loop devices are opened briefly, since nothing else tells their file.
    If the storage of such a file has failed or does not answer, the file counts as each one of its file
    system. If a device cannot be examined, an error is raised, so that nothing is attached.

    ``questions`` are the functions of ``_xen.footprint.Questions``. Pass :meth:`guard` to
    ``_xen.blkback.attach``, which calls it in the transaction that writes. If another disk is attached
    concurrently, that transaction conflicts and is retried.
    """

    def __init__(
        self, questions: Questions, diskseq_of: Callable[[int, int], int | None] = sysfs.diskseq_of
    ) -> None:
        self._questions = Questions(*questions)
        self._diskseq_of = diskseq_of
        self._by_number: dict[tuple[_device.DeviceId, bool, bool], list[Extent]] = {}
        self._uses: dict[str, Use] = {}
        self._seen_in: Nodes | None = None
        # The host's QEMU processes (_process.open_files.Qemu), searched for once per look.
        self._qemus: list[Qemu] | None = None
        # The vbds found by the last look, perhaps in another transaction, and whether each had a device.
        # Their nodes can be requested in one batch: the shorter a transaction, the less often it conflicts
        # with other writers.
        self._expected: dict[str, tuple[Key, bool]] = {}
        self._prepared: set[tuple[_device.DeviceId, str]] = set()

    def __enter__(self) -> Sharing:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget everything that was read."""
        self._uses.clear()
        self._prepared.clear()
        self._by_number.clear()

    def look(self, store: Nodes) -> dict[str, Use]:
        """
        Read what all guests use now; the Uses by backend path.

        Nodes do not change within a transaction, so a second look in the same one reads only new vbds.
        """
        if self._seen_in is not store:
            self._uses.clear()
            self._seen_in = store
        before = {path: entry for path, entry in self._expected.items() if path not in self._uses}
        served, nodes = list_served(
            store,
            self._expected,
            [
                *map(_what, before),
                *_all_nodes(path for path, (dummy, had_device) in before.items() if had_device),
            ],
        )
        for path in set(self._uses) - {path for path, dummy in served}:
            del self._uses[path]
        unseen = {path: key for path, key in served if path not in self._uses}
        nodes.update(store.read_many([_what(path) for path in unseen if path not in before]))
        # Of the disks that are being attached concurrently, most have no device yet.
        new = {path: key for path, key in unseen.items() if nodes[_what(path)] is not None}
        nodes.update(store.read_many([path for path in _all_nodes(new) if path not in nodes]))
        self._expected = {path: (key, path in new or path in self._uses) for path, key in served}
        self._qemus = None
        for path, key in new.items():
            read = self._qemu_use if "/backend/qdisk/" in path else self._blkback_use
            use = read(key, {name: nodes[f"{path}/{name}"] for name in _names_of(path)}, store)
            if use is not None:
                # Otherwise there is no device behind it (any more); the next look reads it again.
                self._uses[path] = use
        return dict(self._uses)

    def prepare(self, request: Request) -> list[Extent]:
        """
        The Extents of the request's device. Raises DeviceBusy if the host itself uses it. This is the part of
        :meth:`guard` that examines the host, done once per device. Call it before the transaction to keep
        that short.
        """
        device = request.device
        mine = self._footprint(device.id, request.mode == "w")
        if (device.id, request.mode) in self._prepared:
            return mine
        refuse_mounted(mine, device.path, device, self._questions)
        if not device.read_only and _device.is_claimed(device):
            raise DeviceBusy(
                "this host itself uses it: it is mounted, swapped to, or part of a mapped device or an array",
                device=device.path,
                hint="Unmount it, or remove the devices on top of it, or attach the topmost one instead",
            )
        self._prepared.add((device.id, request.mode))
        return mine

    def guard(self, transaction: Nodes, request: Request) -> None:
        """Raise DeviceBusy if the request's device must not be attached; for ``_xen.blkback.attach``."""
        self.check_extents(transaction, self.prepare(request), request, request.device.path)

    def check_extents(self, store: Nodes, mine: list[Extent], request: Asker, name: str) -> None:
        """
        Raise DeviceBusy if a guest's use conflicts with the Extents ``mine``. Only ``key`` (or None) and
        ``guest`` of ``request`` are read, so this also works for a file that has no device yet.
        """
        for path, use in self.look(store).items():
            pair = None if use.key == request.key else conflict(mine, use.against(request))
            if pair is None:
                continue
            domid = use.key.domid
            nodes = store.read_many([f"{path}/dev", f"/local/domain/{domid}/vm"])
            if self._is_same_guest_moving(store, domid, nodes[f"/local/domain/{domid}/vm"], request) or (
                self._is_device_model(store, domid, request.guest.domid)
            ):
                continue
            dev = nodes[f"{path}/dev"] or _name_of(use.key.devid)
            raise DeviceBusy(
                f"{describe(*pair)} is in use as disk {dev} of domain {domid}",
                device=f"{name} for {request}",
                hint=_HINT,
            )

    def check_qemus(self, mine: list[Extent], name: str, own: QemuUse | None = None) -> None:
        """
        Raise DeviceBusy if QEMU has something open that conflicts with the Extents ``mine``, for a guest that
        is not Xen's (KVM), or as one of its tools (qemu-nbd, qemu-img). ``name``: of the device, for the
        message. ``own``: is left out.
        """
        from .._process import open_files  # not needed by the hotplug script, which is to start fast

        for qemu in open_files.find_qemus():
            # Those for Xen's guests are found through XenStore, which says which disk is whose.
            if qemu.domid is not None:
                continue
            for found, writes in open_files.of_process(qemu.pid):
                if own is not None and own == (int(qemu.pid), open_files.what(found)):
                    continue
                pair = conflict(mine, self._extents_of(found, writes) or [])
                if pair is not None:
                    raise DeviceBusy(
                        f"{describe(*pair)} is open in QEMU for {qemu.name} (process {qemu.pid})",
                        device=name,
                        hint=_HINT,
                    )

    @staticmethod
    def _is_same_guest_moving(store: Nodes, domid: int, vm: str | None, request: Asker) -> bool:
        """
        Whether the two domains are one guest during a migration to the same host. The same UUID is not
        enough, as two guests' configurations may contain it, so the names must also carry the suffixes that
        only xl gives (xl_migrate.c and xl_vmcontrol.c of Xen). xl starts one domain only after it has
        suspended the other.
        """
        own = request.guest.domid
        if domid == own or own < 0 or vm is None or vm[4:40].lower() != request.guest.uuid:
            return False
        paths = [f"/local/domain/{number}/name" for number in (domid, own)]
        names = store.read_many(paths)
        (one, is_one), (other, is_other) = (_moving_name(names[path] or "") for path in paths)
        return one == other != "" and is_one != is_other

    @staticmethod
    def _is_device_model(store: Nodes, one: int, other: int) -> bool:
        """
        Whether one domain is the stub domain that runs the other's device model, and therefore has the same
        disks (libxl_dm.c of Xen).
        """
        targets = store.read_many([f"/local/domain/{one}/target", f"/local/domain/{other}/target"])
        return (targets[f"/local/domain/{one}/target"], targets[f"/local/domain/{other}/target"]) in (
            (str(other), None),
            (None, str(one)),
        )

    def _footprint(self, identity: _device.DeviceId, writes: bool, is_others: bool = False) -> list[Extent]:
        """
        The Extents below a device, cached because many guests may use the same one. A table below it that
        changes meanwhile is seen by the next run only.
        """
        key = (identity, writes, is_others)
        if key not in self._by_number:
            self._by_number[key] = footprint(*identity[:2], writes, self._questions, is_others)
        return self._by_number[key]

    def _blkback_use(self, key: Key, nodes: dict[str, str | None], store: Nodes) -> Use | None:
        number = vbd_nodes.parse_number(nodes["physical-device"])
        if number is None:
            return None
        is_served = gone.exists(key.sysfs, gone.SYSFS)
        if not is_served and store.read(f"{key.backend}/state") == str(vbd_nodes.CLOSED):
            # blkback has released the device, and its number may be reused by now.
            return None
        writes = "w" in (nodes["mode"] or "w")
        noted = nodes["diskseq"]
        extents = self._use_of(
            number, writes, lambda diskseq: self._may_be_leftover(key, number, noted, diskseq)
        )
        return None if extents is None else Use(key, extents)

    @staticmethod
    def _may_be_leftover(key: Key, number: tuple[int, int], noted: str | None, diskseq: int) -> bool:
        """
        Whether blkback cannot have this device: it has another disk sequence number than the node, and
        blkback has not opened its number.

        An open device keeps its number, but a change of medium gives it a new disk sequence number.
        """
        return noted not in (None, f"{diskseq:x}") and opened_number(key) != number

    def _use_of(
        self,
        number: tuple[int, int],
        writes: bool,
        is_leftover: Callable[[int], bool] = lambda diskseq: False,
    ) -> list[Extent] | None:
        """
        The Extents below the device with this number, or None if the device is gone. Retried while the number
        changes hands.
        """
        for dummy in range(_TRIES):
            diskseq = self._diskseq_of(*number)
            if diskseq is None or is_leftover(diskseq):
                return None
            extents = self._footprint(_device.DeviceId(*number, diskseq), writes, True)
            if self._diskseq_of(*number) == diskseq:
                return extents
            self._by_number.clear()
        raise DeviceBusy(
            "the number was given to other devices repeatedly, so what is below it cannot be determined",
            device=f"{number[0]}:{number[1]}",
        )

    def _qemu_use(self, key: Key, nodes: dict[str, str | None], dummy: Nodes) -> Use | None:
        """
        The storage of a disk that QEMU serves: the path in ``params`` (``format:path``), and all that QEMU
        has open, since the path may by now lead to another file or to none.
        """
        path = (nodes["params"] or "").partition(":")[2]
        if not path:
            return None
        try:
            found = os.stat(path) if path.startswith("/") and "\0" not in path else None
        except OSError as error:
            if error.errno not in gone.PATH:
                raise gone.not_seen(error, path) from error
            found = None
        opened = self._of_qemu(key.domid)
        if found is None:
            return Use(key, opened)
        return Use(key, self._extents_of(found, "w" in (nodes["mode"] or "w")) or [], opened)

    def _extents_of(self, found: os.stat_result, writes: bool) -> list[Extent] | None:
        """The Extents of a regular file or block device, given its stat result; None for other file types."""
        if stat.S_ISREG(found.st_mode):
            return [Extent(("file", found.st_dev, found.st_ino), 0, None, writes)]
        if not stat.S_ISBLK(found.st_mode):
            return None
        return self._use_of((os.major(found.st_rdev), os.minor(found.st_rdev)), writes)

    def _of_qemu(self, domid: int) -> list[Extent]:
        """The Extents of all files and devices that the guest's QEMU has open."""
        from .._process import open_files  # rarely needed, so imported here to save start-up time

        if self._qemus is None:
            self._qemus = open_files.find_qemus()
        extents: list[Extent] = []
        for found, writes in open_files.of_qemu(domid, self._qemus):
            extents += self._extents_of(found, writes) or []
        return sorted(set(extents), key=str)


def refuse_mounted(extents: Iterable[Extent], name: str, own: Device | None, questions: Questions) -> None:
    """
    Raise DeviceBusy if the host itself uses a file among the Extents through a loop device other than
    ``own``, for instance after ``mount -o loop``; or a disk among them, or what is written through devices
    above a loop device or disk (``_xen.host_use``).
    """
    extents = list(extents)
    files = [extent for extent in extents if extent.leaf[0] == "file"]
    for device, status in bound.open_bound({extent.leaf[1:] for extent in files}) if files else ():
        with device:
            leaf = ("file", status.backing_device, status.backing_inode)
            end = status.offset + status.sizelimit if status.sizelimit else None
            if conflict(files, [Extent(leaf, status.offset, end, not status.read_only)]):
                _refuse_claimed(device, name, own, "file", extents, questions)
    _refuse_mounted_over_block(extents, name, own, questions)
    disks = {extent.leaf[1:3] for extent in extents if extent.writes and extent.leaf[0] == "disk"}
    if disks - set(() if own is None else [(own.id.major, own.id.minor)]):
        # Most of the hotplug script's devices are loop devices over files, which do not need it.
        from . import host_use

        host_use.refuse_above(disks, extents, name, own, questions)


def _refuse_mounted_over_block(
    extents: list[Extent], name: str, own: Device | None, questions: Questions
) -> None:
    """The same for loop devices over block devices."""
    for upper in bound.over_block().values():
        for number in filter(None, map(loop.number_of, upper)):
            found = bound.open_if_bound(number[1])
            if found is None:
                continue
            with found[0] as device:
                below = footprint(*number, not found[1].read_only, questions, is_others=True)
                if conflict(extents, below):
                    _refuse_claimed(device, name, own, "storage", extents, questions)


def _refuse_claimed(
    device: Device, name: str, own: Device | None, what: str, mine: list[Extent], questions: Questions
) -> None:
    """
    Raise DeviceBusy for a loop device that is not ``own``, and that the host has mounted or swapped to, or
    that has such a device above it.
    """
    if own is not None and device.id == own.id:
        return
    number = (device.id.major, device.id.minor)
    above = sysfs.holders_of(*number) or sysfs.partitions_of(*number)
    if above:
        from . import host_use  # rarely needed, so imported here to save start-up time

        host_use.refuse_above([number], mine, name, own, questions)
    elif _device.is_claimed(device):
        raise DeviceBusy(
            f"this host itself uses the {what}, as {device.path}: it is mounted, or swapped to",
            device=name,
            hint="Unmount it first",
        )


def _what(path: str) -> str:
    """The path of the node that names a disk's storage."""
    return f"{path}/{_names_of(path)[0]}"


def _names_of(path: str) -> tuple[str, ...]:
    return _QEMU_NODES if "/backend/qdisk/" in path else _BLKBACK_NODES


def _all_nodes(paths: Iterable[str]) -> list[str]:
    return [f"{path}/{name}" for path in paths for name in _names_of(path)]


def _name_of(devid: int) -> str:
    from . import vdev

    return vdev.name_of(devid)


def _moving_name(name: str) -> tuple[str, str]:
    """Split a domain name into ``(name of the guest, suffix that xl appended or "")``."""
    added = next((added for added in _MOVING if name.endswith(added)), "")
    return name[: len(name) - len(added)], added


def describe(mine: Extent, other: Extent) -> str:
    """Describe what two extents have in common, for messages."""
    kind = mine.leaf[0]
    if kind == "file" and SOME_FILE in (mine.leaf[2], other.leaf[2]):
        what = f"a file on {os.major(mine.leaf[1])}:{os.minor(mine.leaf[1])} whose storage does not answer,"
        return f"{what} perhaps the same one,"
    if kind == "file":
        what = f"the file with inode {mine.leaf[2]} on {os.major(mine.leaf[1])}:{os.minor(mine.leaf[1])}"
    elif kind == "thin":
        what = f"the thin volume {mine.leaf[3]} of the pool {mine.leaf[1]}:{mine.leaf[2]}"
    else:
        what = f"the disk {mine.leaf[1]}:{mine.leaf[2]}"
    low = max(mine.start, other.start)
    ends = [end for end in (mine.end, other.end) if end is not None]
    span = f"from byte {low}" + (f" to {min(ends)}" if ends else " on")
    return f"{what}, {span},"
