# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import GuestError, InvalidValue
from ansible_collections.racefree.block.plugins.module_utils._xen import guest as _guest
from ansible_collections.racefree.block.plugins.module_utils._xen.guest import Guest
from ansible_collections.racefree.block.plugins.module_utils._xenstore.pyxs_store import Store
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.xenstored import Xenstored

UUIDS = {number: f"0000000{number % 10}-1111-2222-3333-444444444444" for number in (3, 5, 7, 12)}


@pytest.fixture(scope="module")
def daemon():
    with Xenstored() as running:
        yield running


@pytest.fixture
def store(daemon):
    with Store(5, daemon.socket) as opened:
        opened.write("/local/domain/0/name", "Domain-0")
        opened.write("/local/domain/0/vm", "/vm/00000000-0000-0000-0000-000000000000")
        for number, name in ((3, "web"), (5, "db"), (7, "12"), (12, "other")):
            opened.write(f"/local/domain/{number}/name", name)
            opened.write(f"/local/domain/{number}/vm", "/vm/" + UUIDS[number])
        opened.write("/libxl/3/type", "pv")
        yield opened
        opened.remove("/local")
        opened.remove("/libxl")


@pytest.mark.parametrize("wanted", ["web", 3, "3", UUIDS[3], UUIDS[3].upper()])
def test_by_name_id_and_uuid(store, wanted):
    assert _guest.find(store, wanted) == Guest(3, UUIDS[3], "web", "pv")


def test_without_a_type(store):
    assert _guest.find(store, "db").kind is None


@pytest.mark.parametrize(
    "wanted", ["nobody", 4, "4", "00000009-1111-2222-3333-444444444444", "WEB", "we", "-3", -3, "03", "3.0"]
)
def test_a_missing_guest(store, wanted):
    with pytest.raises(GuestError, match="no guest of this name, id or uuid runs"):
        _guest.find(store, wanted)


@pytest.mark.parametrize("wanted", [0, "0", "Domain-0", "00000000-0000-0000-0000-000000000000"])
def test_domain_0(store, wanted):
    with pytest.raises(GuestError, match="domain 0"):
        _guest.find(store, wanted)


@pytest.mark.parametrize("wanted", ["", "a\nb", "a\0", "x" * 257, True])
def test_invalid_names_of_guests(store, wanted):
    with pytest.raises(InvalidValue):
        _guest.find(store, wanted)


def test_a_name_that_is_the_id_of_another_guest(store):
    with pytest.raises(GuestError, match="several guests match, with the ids 7, 12"):
        _guest.find(store, "12")
    assert _guest.find(store, 12).name == "other"
    assert _guest.find(store, UUIDS[7]).domid == 7


def test_two_guests_with_one_name(store):
    store.write("/local/domain/5/name", "web")
    with pytest.raises(GuestError, match="3, 5"):
        _guest.find(store, "web")


def test_a_guest_under_construction_does_not_count(store):
    store.write("/local/domain/20/name", "new")
    with pytest.raises(GuestError):
        _guest.find(store, "new")


def test_a_second_domain_with_the_same_uuid(store):
    store.write("/local/domain/5/vm", "/vm/" + UUIDS[5] + "-1")
    assert _guest.find(store, 5).uuid == UUIDS[5]


def test_proof(store):
    guest = _guest.find(store, "web")
    store.transaction(lambda tx: _guest.prove(tx, guest))
    assert _guest.lives(store, guest)
    store.write("/local/domain/3/vm", "/vm/" + UUIDS[5])
    assert not _guest.lives(store, guest)
    with pytest.raises(GuestError, match="its id 3 now belongs to another guest"):
        store.transaction(lambda tx: _guest.prove(tx, guest))
    store.remove("/local/domain/3")
    with pytest.raises(GuestError, match="has ended"):
        store.transaction(lambda tx: _guest.prove(tx, guest))


def test_a_guest_replaced_after_the_proof_makes_the_commit_fail(store, daemon):
    guest, runs = _guest.find(store, "web"), []

    def write(tx):
        _guest.prove(tx, guest)
        if not runs:
            with Store(5, daemon.socket) as other:
                other.write("/local/domain/3/vm", "/vm/" + UUIDS[5])
        runs.append(1)
        tx.write("/local/domain/3/device/vbd/51712/state", "1")

    with pytest.raises(GuestError):
        store.transaction(write)
    assert runs == [1]
    assert store.read("/local/domain/3/device/vbd/51712/state") is None
