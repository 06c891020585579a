# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import time

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import BlockError, DeviceGone
from ansible_collections.racefree.block.plugins.module_utils._block.in_time import each_in_time


def children():
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        return file.read().split()


@pytest.fixture(autouse=True)
def nothing_is_left():
    before = len(os.listdir("/proc/self/fd")), children()
    yield
    assert (len(os.listdir("/proc/self/fd")), children()) == before


def test_all_calls_return_in_time():
    values = {"a": 1, "b": {"x": (1, b"2", None)}, "c": "\udcff", "d": ["x" * 100000]}
    assert list(each_in_time(values.get, values, 5)) == [(key, True, value) for key, value in values.items()]
    assert not list(each_in_time(values.get, [], 5))


def test_some_calls_do_not_return():
    def look(key):
        if key % 2:
            time.sleep(3600)
        return key

    assert list(each_in_time(look, range(5), 0.3)) == [
        (0, True, 0),
        (1, False, None),
        (2, True, 2),
        (3, False, None),
        (4, True, 4),
    ]


def test_no_descriptors_are_left_open():
    with open("/dev/null", "rb"):
        # The pipe, and the directory being listed.
        assert list(each_in_time(lambda key: len(os.listdir("/proc/self/fd")), [1], 5)) == [(1, True, 2)]


def test_errors_of_the_calls():
    def look(key):
        raise DeviceGone("gone", device=key)

    with pytest.raises(BlockError, match="x: gone"):
        list(each_in_time(look, ["x"], 5))


def test_the_child_is_killed():
    with pytest.raises(BlockError, match="was killed"):
        list(each_in_time(lambda key: os.kill(os.getpid(), 9), ["x"], 5))
