# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Waiting until the backend has told the guest its disk's new size, with a real xenstored."""

from __future__ import annotations

import threading
import time

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    DeadlineExceeded,
    XenStoreError,
)
from ansible_collections.racefree.block.plugins.module_utils._xen import grown
from ansible_collections.racefree.block.plugins.module_utils._xen.vbd_key import Key
from ansible_collections.racefree.block.plugins.module_utils._xenstore.pyxs_store import Store
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.xenstored import Xenstored

ONE, OTHER = Key(5, 51712), Key(5, 51728)


@pytest.fixture(name="daemon", scope="module")
def fixture_daemon():
    with Xenstored() as daemon:
        yield daemon


@pytest.fixture(name="store")
def fixture_store(daemon):
    """Two disks of a guest, of 8 and 16 sectors."""
    with Store(5, daemon.socket) as store:
        for key, sectors in ((ONE, 8), (OTHER, 16)):
            store.write(f"{key.backend}/state", "4")
            store.write(f"{key.backend}/sectors", str(sectors))
        yield store


def told(key, sectors):
    return grown.Told(key, f"the disk {key.devid}", sectors * 512)


def test_told_already_and_told_later(daemon, store):
    def tell():
        time.sleep(0.3)
        with Store(5, daemon.socket) as backend:
            backend.write(f"{OTHER.backend}/sectors", "32")

    thread = threading.Thread(target=tell)
    thread.start()
    assert grown.wait(store, [told(ONE, 8), told(OTHER, 32)], 20) == [None, None]
    assert store.read(f"{OTHER.backend}/sectors") == "32"
    thread.join()


def test_never_told(store):
    found = grown.wait(store, [told(ONE, 9), told(OTHER, 16)], 0.2)
    assert isinstance(found[0], DeadlineExceeded) and found[1] is None
    assert "51712: timed out after 0.2 s waiting for the backend to tell the guest" in str(found[0])
    assert "4608 bytes (it has told 4096 bytes)" in str(found[0])
    assert "The device itself has grown" in str(found[0])


@pytest.mark.parametrize("state", ["2", "6", None])
def test_a_guest_that_is_not_connected_reads_the_size_later(store, state):
    if state is None:
        store.remove(ONE.backend)
    else:
        store.write(f"{ONE.backend}/state", state)
    assert grown.wait(store, [told(ONE, 9)], 0.2) == [None]


def test_a_xenstored_that_does_not_answer(daemon):
    with Store(0.3, daemon.socket) as store:
        assert store.read("/") is not None
        daemon.freeze()
        try:
            found = grown.wait(store, [told(ONE, 9), told(OTHER, 16)], 0.2)
        finally:
            daemon.thaw()
    assert [isinstance(error, (DeadlineExceeded, XenStoreError)) for error in found] == [True, True]
