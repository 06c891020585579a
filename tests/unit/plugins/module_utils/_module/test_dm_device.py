# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks of a table before the kernel sees it, on a host that need not have device-mapper."""

from __future__ import annotations

import contextlib
import os

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import TableError
from ansible_collections.racefree.block.plugins.module_utils._dm_table import parse_table
from ansible_collections.racefree.block.plugins.module_utils._module import dm_device, dm_table
from ansible_collections.racefree.block.plugins.module_utils._source import (
    files,
    lookup,
    opener,
    resources,
    slots,
    spec,
)


class Targets:
    """Stub of device-mapper: target types that are loaded, and those that a kernel module provides."""

    loaded = {"linear": (1, 4, 0), "striped": (1, 6, 0), "error": (1, 5, 0)}
    modules = {"crypt": (1, 24, 0), "flakey": (1, 5, 0), "thin-pool": (1, 22, 0), "zero": (1, 1, 0)}

    def __init__(self):
        self.asked = []

    def target_versions(self):
        return dict(self.loaded)

    def target_version(self, name):
        self.asked.append(name)
        return self.modules.get(name)


@pytest.fixture(name="any_host")
def fixture_any_host(monkeypatch):
    """A host with Linux 6.1 and this machine's devices."""
    monkeypatch.setattr(
        os, "uname", lambda: os.uname_result(("Linux", "host", "6.1.0-40-amd64", "#1", "x86_64"))
    )
    with resources.Resources() as host:
        host._dm = Targets()
        yield host


@pytest.fixture(name="host")
def fixture_host(any_host, monkeypatch):
    """A host on which the devices at a table's paths do not exist yet."""
    monkeypatch.setattr(lookup, "find", lambda source, host: None)
    return any_host


def device(host, table):
    item = dm_device.DmItem(
        dict.fromkeys(dm_device.ARGUMENTS)
        | {"name": "a", "table": table, "read_only": False, "hold": 0, "timeout": 10},
        host,
    )
    item.check()
    return item


def wanted(host, table, live=None):
    return device(host, table)._wanted_table({} if live is None else {"table": parse_table(live)})


def test_an_option_of_a_newer_kernel_is_refused(host):
    assert wanted(host, "0 8 flakey /dev/a 0 1 1 1 drop_writes").lines() == [
        "0 8 flakey /dev/a 0 1 1 1 drop_writes"
    ]
    with pytest.raises(TableError, match="refused by Linux 6.1"):
        wanted(host, "0 8 flakey /dev/a 0 1 1 1 error_reads")


def test_a_target_type_that_the_host_lacks_is_refused_and_one_that_is_not_loaded_is_not(host):
    assert wanted(host, ["0 8 linear /dev/a 0", {"start": 8, "length": 8, "target": "zero"}]).length == 16
    assert host.dm.asked == ["zero"]
    with pytest.raises(TableError, match="a target type of this host"):
        wanted(
            host,
            [{"start": 0, "length": 8, "target": "dust", "device": "/dev/a", "offset": 0, "block_size": 512}],
        )


def test_an_immutable_target_is_not_replaced(host):
    pool = "0 8 thin-pool 8:0 8:1 128 0"
    assert wanted(host, pool.replace("0 8 ", "0 16 ", 1), pool).length == 16
    assert wanted(host, "0 8 error", pool).lines() == ["0 8 error"]
    with pytest.raises(TableError, match="thin-pool, as in the table that it replaces"):
        wanted(host, "0 8 zero", pool)


def test_a_bad_table_is_refused_even_if_its_devices_are_created_first(host, monkeypatch):
    monkeypatch.setattr(
        lookup,
        "find",
        lambda source, host: None if isinstance(source, spec.TableSource) else contextlib.nullcontext(source),
    )
    monkeypatch.setattr(slots, "_facts", lambda device, host, slot, least: None)
    monkeypatch.setattr(files, "size_to_be", lambda source, device: 0)
    monkeypatch.setattr(files, "follow", lambda source, device: None)
    monkeypatch.setattr(opener._mapped, "is_mapped", lambda device: False)
    item = device(host, "0 8 flakey /dev/a 0 1 1 1 error_reads")
    with pytest.raises(TableError, match="refused by Linux 6.1"):
        item._create()
    inner = spec.parse({"table": ["0 8 dust /dev/a 0 512"]})
    with pytest.raises(TableError, match="a target type of this host"):
        opener.Opener(host).open(inner)


# dm_table


def checked(host, table, fail=False):
    return dm_table.collect(
        {"table": table, "keys": None, "read_only": False, "name": None, "kernels": [], "fail": fail}, host
    )


def test_missing_devices_are_reported_with_the_other_errors(any_host):
    table = [
        "0 8 linear /dev/no/such 0",
        {"start": 8, "length": 8, "target": "linear", "device": {"file": "/no/such.raw"}, "offset": 0},
        "16 8 linear /dev/null 0",
        "24 8 linear diskseq:18446744073709551615 0",
        "32 8 linear /dev/a 5x",
        {
            "start": 40,
            "length": 8,
            "target": "striped",
            "chunk_size": 4,
            "stripes": [{"device": "/dev/no/such", "offset": 0}, {"device": "/dev/null", "offset": 0}],
        },
        {
            "start": 48,
            "length": 8,
            "target": "linear",
            "device": {"path": "/dev/a", "colour": "red"},
            "offset": 0,
        },
        "57 8 error",
    ]
    result = checked(any_host, table)
    assert not result["valid"] and result["lines"] is None
    found = [(error["line"], error["field"], error["value"]) for error in result["errors"]]
    assert found == [
        (1, "device", "/dev/no/such"),
        (2, "device", "file:/no/such.raw"),
        (3, "device", "/dev/null"),
        (4, "device", "diskseq:18446744073709551615"),
        (5, "offset", "5x"),
        (6, "stripes[0].device", "/dev/no/such"),
        (6, "stripes[1].device", "/dev/null"),
        (7, "device", '{"colour":"red","path":"/dev/a"}'),
        (8, "start", 57),
    ]
    rules = [error["rule"] for error in result["errors"]]
    assert (
        "ENOENT" in rules[0]
        and "/no/such.raw" in rules[1]
        and "character device" in rules[2]
        and "colour" in rules[7]
    )
    assert result["errors"][0]["column"] == 11 and result["errors"][0]["text"] == table[0]
    with pytest.raises(TableError, match="9 errors") as caught:
        checked(any_host, table, fail=True)
    assert caught.value.errors == result["errors"]


def test_a_key_next_to_a_missing_device_is_not_shown(any_host):
    nested = {"table": ["0 8 crypt aes-cbc-plain var:data 0 /dev/a 0"], "path": "/dev/b"}
    table = [{"start": 0, "length": 8, "target": "linear", "device": nested, "offset": 0}]
    result = dm_table.collect(
        {
            "table": table,
            "keys": {"data": "c0ffee" * 8},
            "read_only": False,
            "name": None,
            "kernels": [],
            "fail": False,
        },
        any_host,
    )
    assert len(result["errors"]) == 1 and "c0ffee" not in str(result)


def test_a_slot_is_returned_without_its_key(host):
    table = [
        {
            "start": 0,
            "length": 8,
            "target": "linear",
            "device": {"table": ["0 8 crypt aes-cbc-plain var:data 0 /dev/a 0"]},
            "offset": 0,
        }
    ]
    result = dm_table.collect(
        {
            "table": table,
            "keys": {"data": "c0ffee00" * 4},
            "read_only": False,
            "name": None,
            "kernels": [],
            "fail": True,
        },
        host,
    )
    assert result["valid"] and "c0ffee" not in str(result) and "hidden" in result["devices"][0]["value"]


@pytest.mark.parametrize(
    "nested, words",
    [
        ("0 8 dust /dev/a 0 512", "a target type of this host"),
        ("0 8 flakey /dev/a 0 1 1 1 error_reads", "refused by Linux 6.1"),
        ("0 8 linear /dev/a x", "offset"),
        ({"table": "0 8 dust /dev/a 0 512"}, "a target type of this host"),
    ],
)
def test_a_table_in_a_slot_is_checked_before_anything_is_created(host, nested, words):
    if isinstance(nested, dict):
        nested = [{"start": 0, "length": 8, "target": "linear", "device": nested, "offset": 0}]
    with pytest.raises(TableError, match=words):
        wanted(
            host, [{"start": 0, "length": 8, "target": "linear", "device": {"table": nested}, "offset": 0}]
        )


def test_a_table_longer_than_the_table_in_its_slot_is_refused(host):
    table = [{"start": 0, "length": 9, "target": "linear", "device": {"table": "0 8 zero"}, "offset": 0}]
    with pytest.raises(TableError, match="it has 8 in all"):
        wanted(host, table)
    table[0]["length"] = 8
    assert wanted(host, table).length == 8
