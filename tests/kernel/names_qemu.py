# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
An adversary against names of disks in the definitions of QEMU's guests: it gives the name's device to another
disk while libvirt starts the guest, or attaches the disk to a running one. libvirt looks at the path, and
gives QEMU a /dev of its own, where QEMU opens it.

See names_rounds.py. It is read from QEMU's own open descriptors which disk the guest has.
``names_qemu.py --help`` lists the options. It prints a row in JSON for each tool and name
(``tests/kernel/names_campaign.py hosts`` stores them). Exit code 1 if a name by disk sequence number, with a
grace time longer than any run of a tool, ever led to the other disk.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator

import libvirt

if __name__ == "__main__":
    sys.path.insert(0, os.environ.get("RACEFREE_SITE", "/root/site"))

import names_rounds
import qemuhost
from names_service import diskseq_of

GUEST = "names-qemu"


def disk(path: str) -> str:
    """The definition of a disk with this path."""
    return (
        "<disk type='block'><driver name='qemu' type='raw'/>"
        f"<source dev='{path}'/><target dev='vda' bus='virtio'/></disk>"
    )


def held() -> int | None:
    """The disk sequence number of the block device that the guest's QEMU has open, or None."""
    found = {diskseq_of(path) for path in qemuhost.open_disks(GUEST)}
    assert len(found) < 2, found
    return found.pop() if found else None


class Start:
    """Starts a guest that has the path in its definition; its processors do not run."""

    domain: libvirt.virDomain | None = None

    @contextlib.contextmanager
    def guest(self) -> Iterator[None]:
        qemuhost.start_daemon()
        libvirt.registerErrorHandler(lambda context, error: None, None)
        self.connection = libvirt.open(qemuhost.URI)
        try:
            yield
        finally:
            self.connection.close()

    def attach(self, path: str) -> int | None:
        text = qemuhost.definition(GUEST, devices=disk(path))
        try:
            self.domain = self.connection.createXML(text, libvirt.VIR_DOMAIN_START_PAUSED)
        except libvirt.libvirtError:
            return None
        return held()

    def detach(self) -> None:
        if self.domain is not None:
            self.domain.destroy()
            self.domain = None


class Attach(Start):
    """Attaches a disk with the path to a guest whose processors do not run."""

    @contextlib.contextmanager
    def guest(self) -> Iterator[None]:
        with super().guest():
            self._start()
            try:
                yield
            finally:
                super().detach()

    def _start(self) -> None:
        text = qemuhost.definition(GUEST, acpi=True)
        self.domain = self.connection.createXML(text, libvirt.VIR_DOMAIN_START_PAUSED)

    def attach(self, path: str) -> int | None:
        assert self.domain is not None
        try:
            self.domain.attachDevice(disk(path))
        except libvirt.libvirtError:
            return None
        return held()

    def detach(self) -> None:
        # Such a guest does not release a disk, so each try has a new one.
        super().detach()
        self._start()


TOOLS: dict[str, Callable[[], Start]] = {
    "libvirt's start, QEMU": Start,
    "libvirt's attach, QEMU": Attach,
}

if __name__ == "__main__":
    sys.exit(names_rounds.main(__doc__, TOOLS))
