# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The disk that a guest has in a place where it is to get another one: whether it can be replaced, and how it is
attached again if the new one fails.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

blkback ignores a new device for an attached disk ("changing physical device not supported" in
drivers/block/xen-blkback/xenbus.c). So the guest must release the old disk, and for a moment it has none
there. Everything that can fail is therefore done before, and the old device stays open until the end of the
run.
"""

from __future__ import annotations

import os

from .._base.errors import BlockError, DeviceBusy, GuestError, NotSupported
from .._base.record import Record
from . import vbd_nodes, vbd_read, vdev
from .blkback import Detachment, Request
from .footprint import conflict, footprint
from .sharing import describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Protocol

    from .._block.device import Device
    from .._xenstore.nodes import Nodes
    from .blkback import Outcome
    from .footprint import Extent, Questions
    from .guest import Guest
    from .sharing import Sharing
    from .vbd_nodes import Key, Vbd

    class Old(Protocol):
        """A disk that is replaced. ``str()`` of it appears in messages; ``dev``: its name in the guest."""

        @property
        def dev(self) -> str: ...


# A script with another name may attach more than a block device of this host (block-iscsi, block-drbd).
_KNOWN_SCRIPTS = ("block", "block-racefree")


class OldDisk(Record):
    """
    ``device``: what blkback has open for the disk, held by the caller. None if the guest does not have the
    disk: it is releasing it already, or never got it. Then it is not attached again. ``discard``: whether the
    guest may discard blocks. ``is_shared``: whether others use its storage at the same time.
    """

    vbd: Vbd
    guest: Guest
    device: Device | None
    discard: bool | None
    is_shared: bool = False

    @property
    def dev(self) -> str:
        return self.vbd.dev

    @property
    def detachment(self) -> Detachment:
        return Detachment(self.vbd, self.guest)

    @property
    def is_attached(self) -> bool:
        """Whether the guest has the disk, and is not releasing it already."""
        return self.device is not None

    def __str__(self) -> str:
        if self.device is None:
            return f"its old disk ({self.vbd.params or 'no device'})"
        return f"its old disk ({self.device.path}, diskseq {self.device.id.diskseq})"

    def request(self) -> Request:
        """To attach it again. Must not be called without a device."""
        vbd = self.vbd
        if self.device is None:
            raise AssertionError
        # The target of a hotplug script, such as a recipe, is not a path that a toolstack would accept.
        params = vbd.params if (vbd.params or "").startswith("/") and ":" not in (vbd.params or "") else None
        return Request(
            self.guest,
            vdev.parse(str(vbd.key.devid)),
            self.device,
            "w" if vbd.writable else "r",
            "cdrom" if vbd.cdrom else "disk",
            params=params,
            discard=self.discard,
        )

    def replaced(self) -> dict[str, Any]:
        """Plain data for a module's return values."""
        has = self.device
        return {
            "path": None if has is None else has.path,
            "diskseq": None if has is None else has.id.diskseq,
            "params": self.vbd.params,
            "mode": "w" if self.vbd.writable else "r",
            "device_type": "cdrom" if self.vbd.cdrom else "disk",
        }

    def state_words(self, store: Nodes) -> list[str]:
        """
        What differs from how the disk was before, as texts: nothing if the guest has it as before. Reads what
        the guest has now.
        """
        now = vbd_read.read_vbd(store, *self.vbd.key)
        if now is None:
            return [f"the guest has no disk {self.vbd.dev} now"] if self.is_attached else []
        if is_leaving(now):
            has = "has released" if now.state == vbd_nodes.CLOSED else "was asked to release, and still has,"
            return [f"the guest {has} {self.vbd.dev} (state {now.state})"] if self.is_attached else []
        if self.is_attached and (now.number, now.diskseq or self._diskseq) == (
            self.vbd.number,
            self.vbd.diskseq or self._diskseq,
        ):
            return []
        return [f"the guest has {vbd_nodes.device_words(now.number, now.diskseq)} as {self.vbd.dev} now"]

    def is_released(self, store: Nodes) -> bool:
        """Whether the guest had the disk, and has released it. Its nodes may be left."""
        now = vbd_read.read_vbd(store, *self.vbd.key)
        if now is None:
            return self.is_attached
        is_same = (now.number, now.diskseq) == (self.vbd.number, self.vbd.diskseq)
        return self.is_attached and is_same and now.state == vbd_nodes.CLOSED

    @property
    def _diskseq(self) -> int | None:
        return None if self.device is None else self.device.id.diskseq


def is_leaving(vbd: Vbd) -> bool:
    """Whether the guest is releasing the disk, or has released it."""
    return vbd.state in (vbd_nodes.CLOSING, vbd_nodes.CLOSED) or not vbd.online


def look_at(store: Nodes, vbd: Vbd, guest: Guest, device: Device | None) -> OldDisk:
    """The OldDisk. NotSupported if it could not be attached again. ``device``: held."""
    script = os.path.basename(vbd.script or "block")
    if script not in _KNOWN_SCRIPTS:
        raise NotSupported(
            f"the guest's disk was attached by the hotplug script {script}, which alone could attach it "
            "again if the new disk failed",
            device=f"{vbd.dev} of {guest}",
            hint="Detach it first",
        )
    discard = store.read(f"{vbd.key.backend}/discard-enable")
    opened = vbd_read.opened_number(vbd.key)
    # Without a number, blkback has never had a device to open: a killed xl or script can leave that.
    if is_leaving(vbd) or (opened is None and vbd.number is None):
        device = None
    elif device is None or opened is None:
        raise GuestError(
            "blkback has no device open for the guest's disk, so it could not be attached again if the new "
            "disk failed",
            device=f"{vbd.dev} of {guest}",
            hint="Detach it first",
        )
    return OldDisk(vbd, guest, device, None if discard is None else discard == "1")


def with_sharing(old: OldDisk, store: Nodes, sharing: Sharing) -> OldDisk:
    """The same, having looked whether others use its storage, too: then it is attached again as it was."""
    if old.device is None:
        return old
    try:
        sharing.guard(store, old.request())
    except DeviceBusy:
        return old._replace(is_shared=True)
    return old


def clear(store: Nodes, key: Key, detach: Callable[[], Sequence[Outcome]]) -> None:
    """
    Remove what is left of a disk that the guest has released, so that another can be attached there.
    ``detach()`` detaches that disk, and refuses others.
    """
    if vbd_read.read_vbd(store, *key) is None:
        return
    for outcome in detach():
        if outcome.error is not None:
            raise outcome.error


def refuse_overlap(old: OldDisk, device: Device, writes: bool, questions: Questions) -> None:
    """
    DeviceBusy if a new stack of devices uses storage of the old disk, such as a snapshot's store: it would
    have read there what the guest still changes.
    """
    if old.device is None or old.device.id == device.id:
        return
    mine = footprint(device.id.major, device.id.minor, writes, questions)
    other = footprint(old.device.id.major, old.device.id.minor, old.vbd.writable, questions, is_others=True)
    refuse_common(mine, other, f"{old.dev} of {old.guest}")


def refuse_common(mine: list[Extent], other: list[Extent], title: str) -> None:
    """The same for the Extents of the new and of the old disk. ``title``: of the disk, for the message."""
    pair = conflict(mine, other)
    if pair is not None:
        raise DeviceBusy(
            f"{describe(*pair)} is part of the new disk and of the one that the guest has there",
            device=title,
            hint="The table of the new disk is made while the guest still uses the old one, so they must not "
            "share storage: detach the old disk first",
        )


def not_again(old: Old, failure: BlockError) -> GuestError:
    """The error for an old disk that could not be attached again."""
    return GuestError(f"the guest has no disk {old.dev} now: {old} could not be attached again: {failure}")


def has_again(error: BlockError, old: Old) -> None:
    """Add to the error that the old disk is attached again."""
    error.add_hint(f"The guest has {old} again")


def has_none(error: BlockError, old: Old, failure: BlockError | None) -> None:
    """Add to the error that the old disk is not attached again. ``failure``: why it could not be, if so."""
    why = (
        "was being attached or detached before this task"
        if failure is None
        else f"could not be attached again: {failure}"
    )
    error.add_hint(f"The guest has no disk {old.dev} now: {old} {why}")
