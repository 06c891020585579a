# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures for tests with a guest of Xen that is played."""

from __future__ import annotations

import pytest
from ansible_collections.racefree.block.plugins.module_utils._xen.vbd_nodes import Key
from ansible_collections.racefree.block.plugins.module_utils._xenstore.pyxs_store import Store
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.played_blkback import PlayedBlkback
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.played_host import UUID, PlayedHost
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.xenstored import Xenstored


@pytest.fixture(name="daemon", scope="module")
def fixture_daemon():
    with Xenstored() as daemon:
        yield daemon


@pytest.fixture(name="host")
def fixture_host(daemon, monkeypatch, tmp_path):
    loopdevices.need_loop()
    sysfs = tmp_path / "xen-backend"
    sysfs.mkdir()
    monkeypatch.setattr(Key, "sysfs", property(lambda key: f"{sysfs}/vbd-{key.domid}-{key.devid}"))
    with Store(5, daemon.socket) as store, loopdevices.directory() as place:
        monkeypatch.setenv("XENSTORED_PATH", daemon.socket)
        for path, value in (
            ("/local/domain/5/name", "web"),
            ("/local/domain/5/vm", f"/vm/{UUID}"),
            ("/libxl/5/type", "pv"),
        ):
            store.write(path, value)
        with PlayedBlkback(daemon.socket, 5, sysfs) as backend:
            yield PlayedHost(backend, store, place)
        for path in ("/local", "/libxl"):
            store.remove(path)
        assert loopdevices.nothing_bound(place)
