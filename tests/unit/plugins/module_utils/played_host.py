# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
A host with one running guest of Xen, for tests of xen_vbd: real loop devices and a real xenstored; blkback
and the guest are played.
"""

from __future__ import annotations

import time

from ansible_collections.racefree.block.plugins.module_utils._xen.vbd_nodes import Key
from ansible_collections.racefree.block.plugins.module_utils._xenstore import nodes, session
from ansible_collections.racefree.block.plugins.modules import xen_vbd
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.runs import run

UUID = "00000005-1111-2222-3333-444444444444"
XVDB, XVDC = 51728, 51744


def raw_write(store, path, value):
    """Write bytes, as toolstacks and guests can."""
    with session.Session(5, store._path) as raw:
        raw._execute("to write", path, nodes.WRITE, path.encode() + b"\0" + value)


class PlayedHost:
    """A host with one running guest. ``place``: the directory of its images."""

    def __init__(self, backend, store, place):
        self.backend, self.store, self.place = backend, store, place

    def image(self, name):
        return loopdevices.image(self.place, name)

    def vbd(self, source, vdev="xvdb", check=False, before=None, **options):
        arguments = {"domain": "web", "vdev": vdev, "persist": False, "toolstack": "xenstore", "timeout": 5}
        arguments.update({"source": source if isinstance(source, dict) else {"file": source}}, **options)
        return run(xen_vbd.main, arguments, check=check, before=before)

    def replace(self, source, vdev="xvdb", **options):
        return self.vbd(source, vdev, replace=True, **options)

    def nodes(self, devid=XVDB):
        backend = Key(5, devid).backend
        return {name: self.store.read(f"{backend}/{name}") for name in self.store.list(backend) or []}

    def bound(self):
        """The files that have loop devices, when those that nobody has open are gone."""
        for dummy in range(100):
            found = sorted(loopdevices.bound_files(self.place).values())
            if len(found) <= len([path for path in (self.backend.has(XVDB), self.backend.has(XVDC)) if path]):
                break
            time.sleep(0.02)
        return found
