# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
A thread that plays blkback and one guest's blkfront, for tests with a real xenstored on a machine without
Xen.

It opens what is in physical-device, gives disks back when it is asked to, and can refuse either. The order of
states is that of drivers/block/xen-blkback/xenbus.c and drivers/block/xen-blkfront.c. tests/host has the real
ones.
"""

from __future__ import annotations

import os
import shutil
import threading
import time

from ansible_collections.racefree.block.plugins.module_utils._xen.vbd_nodes import Key
from ansible_collections.racefree.block.plugins.module_utils._xenstore.pyxs_store import Store

CONNECTED, CLOSING, CLOSED = "4", "5", "6"


class PlayedBlkback(threading.Thread):
    """
    ``rejects``: files of loop devices (their paths) that it fails to open. ``keeps``: vdevs (numbers) that
    the guest does not give back: "silent", as a paused guest, or "busy", as an old Linux that has it mounted.
    ``opened``: what it has opened, in order, as paths of files.
    """

    def __init__(self, socket, domid, sysfs):
        super().__init__(daemon=True)
        self.socket, self.domid, self.sysfs = socket, domid, str(sysfs)
        self.rejects, self.keeps, self.opened = set(), {}, []
        self._ends = threading.Event()
        self._held = {}

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc):
        self._ends.set()
        self.join()
        for fd in self._held.values():
            os.close(fd)

    def run(self):
        with Store(5, self.socket) as store:
            while not self._ends.is_set():
                for name in store.list(f"/local/domain/0/backend/vbd/{self.domid}") or []:
                    self.step(store, Key(self.domid, int(name)))
                for name in list(self._held):
                    if store.read(f"{Key(self.domid, name).backend}/state") is None:
                        self.release(Key(self.domid, name))
                time.sleep(0.003)

    def step(self, store, key):
        state = store.read(f"{key.backend}/state")
        number = store.read(f"{key.backend}/physical-device")
        if state == "1" and number is not None and key.devid not in self._held:
            self.open(store, key, number)
        elif state == CLOSING and store.read(f"{key.backend}/online") == "0":
            self.close(store, key)

    def open(self, store, key, number):
        major, minor = (int(word, 16) for word in number.split(":"))
        path = file_of(major, minor)
        if path in self.rejects:
            store.write(f"{key.backend_error}/error", "22 creating vbd structure")
            store.write(f"{key.backend}/state", CLOSING)
            return
        self._held[key.devid] = os.open(f"/dev/loop{minor}", os.O_RDONLY)
        self.opened.append(path)
        os.makedirs(key.sysfs)
        with open(f"{key.sysfs}/new", "w", encoding="ascii") as file:
            file.write(f"{number}\n")
        os.rename(f"{key.sysfs}/new", f"{key.sysfs}/physical_device")
        store.write(f"{key.frontend}/state", CONNECTED)
        store.write(f"{key.backend}/state", CONNECTED)

    def close(self, store, key):
        keeps = self.keeps.get(key.devid)
        if keeps == "silent" or key.devid not in self._held:
            return
        store.write(f"{key.frontend}/state", CLOSING)
        if keeps == "busy":
            store.write(key.frontend_error, "16 Device in use; refusing to close")
            return
        self.release(key)
        store.write(f"{key.frontend}/state", CLOSED)
        if store.read(f"{key.backend}/state") is not None:
            store.write(f"{key.backend}/state", CLOSED)

    def release(self, key):
        fd = self._held.pop(key.devid, None)
        if fd is not None:
            os.close(fd)
        shutil.rmtree(key.sysfs, ignore_errors=True)

    def has(self, vdev):
        """The file of the loop device that it has open for the vdev (a number), or None."""
        fd = self._held.get(vdev)
        return None if fd is None else file_of(7, os.minor(os.fstat(fd).st_rdev))


def file_of(major, minor):
    assert major == 7, "it plays with loop devices only"
    try:
        with open(f"/sys/block/loop{minor}/loop/backing_file", encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return None
