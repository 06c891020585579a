# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Open the source of a guest's disk when the guest starts. Shared by libvirt's hook and the hotplug script.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Everything that is created is removed with its last user, so nothing is left if the caller fails or is killed.
"""

from __future__ import annotations

from .._dm import udev
from . import journal, needed_locks, opener, orphans, spec

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .._base.deadline import Deadline
    from .._block.device import Device
    from .resources import Resources
    from .spec import Source


def reap(resources: Resources) -> None:
    """
    Remove devices orphaned by killed runs: those in a journal, and those whose name shows that their creator
    has ended.
    """
    for text in journal.recover(resources):
        resources.warn(text)
    orphans.reap(resources)
    udev.reap()


def take_turn(resources: Resources, sources: Iterable[Source], limit: Deadline) -> None:
    """
    Take the locks of all sources at once, and hold them until the resources are closed. All runs take locks
    in the same order; taking them one by one could deadlock. Raises ``_base.locks.Unavailable``.
    """
    wanted = [lock for source in sources for lock in needed_locks.of_source(source)]
    locks = [lock for lock in wanted if not resources.locks.has(lock)]
    resources.locks.take(locks, limit)
    if locks:
        resources.loops.forget()


def open_source(
    resources: Resources, source: Source, limit: Deadline, read_only: bool = False, shared: bool = False
) -> Device:
    """
    The source's device, held by the resources; an existing one is used, otherwise one is created. udev
    ignores created mapped devices. ``read_only``: whether the guest only reads it; ``shared``: whether other
    guests may write to the same storage.

    Raises what ``_source.opener.Opener.open`` raises.
    """
    take_turn(resources, [source], limit)
    return _open(resources, source, limit, read_only, shared)


def open_in_turn(
    resources: Resources, source: Source, limit: Deadline, read_only: bool = False, shared: bool = False
) -> Device:
    """
    As :func:`open_source`, for a caller that holds the locks of the source (:func:`take_turn`), unless it
    holds the source's device. It never waits for such a lock, so the caller can hold a lock that is taken
    after those. Raises ``_base.locks.Unavailable`` if another run has one that is needed.
    """
    missing = [lock for lock in needed_locks.of_source(source) if not resources.locks.has(lock)]
    # A path may lead to another file by now, for which a device is made.
    taken = [lock for lock in missing if resources.locks.try_take(lock)]
    if missing:
        resources.loops.forget()
    try:
        # Creating a device takes those that are still missing, or fails at once.
        return _open(resources, source, limit.sooner(0), read_only, shared)
    finally:
        resources.locks.release(taken)


def _open(resources: Resources, source: Source, limit: Deadline, read_only: bool, shared: bool) -> Device:
    if isinstance(source, spec.FileSource):
        source = source._replace(read_only=read_only or source.read_only, overlap=shared or source.overlap)
    resources.for_guests = True
    return opener.Opener(resources, udev.HANDS_OFF, limit).open(source)
