# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What all devices of a run share: device-mapper's control node, a udev cookie, the index of loop devices, a
connection to xenstored. Each is created at its first use.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import NamedTuple

from .._base import gone, locks
from .._base.deadline import Deadline
from .._block import loop_index, sysfs

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from typing import Any, TypeVar

    from .._block.device import Device, DeviceId
    from .._dm import control, udev

    Shared = TypeVar("Shared", bound=contextlib.AbstractContextManager[Any])


UDEV_SECONDS = 60


class ToBe(NamedTuple):
    """
    A mapped device that the run creates before the ones that are stacked on it. ``uuid``: the requested one,
    or None; ``sectors`` of 512 bytes.
    """

    uuid: str | None
    sectors: int
    read_only: bool


class Resources(contextlib.ExitStack):
    """A context. Leaving it closes everything in it, and the devices that were added (``enter_context``)."""

    def __init__(self) -> None:
        super().__init__()
        self._dm: control.Control | None = None
        self._cookie: udev.Cookie | None = None
        self._shared: dict[type, Any] = {}
        self.loops = loop_index.LoopIndex()
        # Whether the run creates devices for guests: then the sharing check examines what guests use.
        self.for_guests = False
        # By name: the mapped devices that the run will create (ToBe), and those that it has created.
        self.mapped_to_be: dict[str | None, ToBe] = {}
        self.mapped_made: dict[str | None, Device] = {}
        # The numbers of the mapped devices that the run will remove.
        self.mapped_to_go: set[tuple[int, int]] = set()
        # Warnings for the user; see warn.
        self.warnings: list[str] = []
        # Entered first, so released last, after the devices are closed.
        self.locks = self.enter_context(locks.Locks())
        self.reaped: list[str] | None = None
        # Directories that only root can redirect, for ``_block.trusted_path``.
        self.walked: dict[str, tuple[str, bool]] = {}
        # New loop devices of entries that are already planned: areas and their descriptions, by (st_dev,
        # st_ino).
        self.planned: dict[tuple[int, int], Any] = {}
        # SHA-256 of files, by device, inode, size, and the times of modification and change.
        self.checksums: dict[tuple[int | None, ...], str] = {}
        # Domains, by URI and the given name or UUID: the UUID, and whether the domain runs, from libvirt.
        self.domains: dict[Any, Any] = {}
        self._links: list[tuple[str, DeviceId]] = []

    @property
    def dm(self) -> control.Control:
        """device-mapper's Control."""
        if self._dm is None:
            from .._dm import control  # many runs do not use device-mapper

            self._dm = self.enter_context(control.Control())
        return self._dm

    @property
    def cookie(self) -> udev.Cookie:
        """The run's udev Cookie."""
        if self._cookie is None:
            from .._dm import udev  # many runs do not use device-mapper

            self._cookie = self.enter_context(udev.Cookie())
        return self._cookie

    def shared(self, kind: type[Shared]) -> Shared:
        """
        The run's only object of this class, which takes no arguments; it is created and entered at its first
        use. For what this file must not import, as few modules need it: the connection to xenstored.
        """
        if kind not in self._shared:
            self._shared[kind] = self.enter_context(kind())
        found: Shared = self._shared[kind]
        return found

    def warn(self, text: str) -> None:
        """Warn the user, once for each text."""
        if text not in self.warnings:
            self.warnings.append(text)

    def link_goes(self, name: str, identity: DeviceId) -> None:
        """
        Let :meth:`settle` wait until udev has removed the link of a mapped device that is gone. A deferred
        remove has no cookie.
        """
        from .._dm import udev  # many runs do not use device-mapper

        if udev.is_running():
            self._links.append((name, identity))

    def settle(self, seconds: float = UDEV_SECONDS) -> bool:
        """Wait up to ``seconds`` until udev has processed all events of this run; returns whether it has."""
        limit = Deadline(seconds)
        done = self._cookie is None or self._cookie.wait(seconds)
        for name, identity in self._links:
            while _is_stale(name, identity):
                if limit.expired:
                    return False
                limit.sleep(0.01)
        return done


def _is_stale(name: str, identity: DeviceId) -> bool:
    """
    Whether the link still leads to the number of the removed device, and no other device has this name and
    number by now.
    """
    return _leads_to(f"/dev/mapper/{name}", f"dm-{identity.minor}") and not _is_anothers(name, identity)


def _is_anothers(name: str, identity: DeviceId) -> bool:
    base = f"/sys/dev/block/{identity.major}:{identity.minor}"
    before = sysfs.diskseq_of(identity.major, identity.minor)
    if before in (None, identity.diskseq) or sysfs.read(f"{base}/dm/name") != name:
        return False
    return sysfs.diskseq_of(identity.major, identity.minor) == before


def _leads_to(link: str, target: str) -> bool:
    try:
        return os.path.basename(os.readlink(link)) == target
    except OSError as error:
        # EINVAL: the path is not a link.
        if error.errno == errno.EINVAL or error.errno in gone.PATH:
            return False
        raise gone.not_seen(error, link) from error
