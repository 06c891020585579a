# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The locks that xen_vbd holds while it works, with a real xenstored."""

from __future__ import annotations

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base import locks
from ansible_collections.racefree.block.plugins.module_utils._module.xen_vbd import ARGUMENTS, VbdItem
from ansible_collections.racefree.block.plugins.module_utils._source import resources
from ansible_collections.racefree.block.plugins.module_utils._xenstore.session import Session
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.xenstored import Xenstored

UUID = "6f0f5bd9-0d6a-4c2e-9d5e-0b1f6f1d7a05"


@pytest.fixture
def host(monkeypatch):
    with Xenstored() as started, resources.Resources() as made:
        monkeypatch.setenv("XENSTORED_PATH", started.socket)
        with Session(5, started.socket) as store:
            for path, value in (
                ("/local/domain/5/name", "web1"),
                ("/local/domain/5/vm", f"/vm/{UUID}"),
                (f"/vm/{UUID}/uuid", UUID),
            ):
                store.write(path, value)
            yield made


def names(host, **params):
    item = VbdItem(
        dict({name: options.get("default") for name, options in ARGUMENTS.items()}, **params), host
    )
    item.check()
    return [lock.name for lock in item.locks()]


def test_all_names_of_a_disk_give_one_lock(host, tmp_path):
    """
    The guest by name, id and UUID, the disk by name and number, the file by path and link: always the same
    lock for the disk and the same lock for the file.
    """
    path, link = tmp_path / "a", tmp_path / "b"
    path.write_bytes(b"x" * 4096)
    link.symlink_to(path)
    wanted = [locks.of_vbd(5, 51760, "").name] + [lock.name for lock in locks.of_file(str(path))]
    for domain in ("web1", "5", UUID):
        for vdev in ("xvdd", "51760"):
            for file in (path, link):
                assert names(host, domain=domain, vdev=vdev, source={"file": str(file)}) == wanted
    assert names(host, domain="web1", vdev="xvdd", state="detached") == wanted[:1]
    assert names(host, domain="none", vdev="xvdd", state="detached") == []
