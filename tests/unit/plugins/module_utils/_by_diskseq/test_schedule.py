# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
When keys are due, compared with a plain dictionary.
"""

from __future__ import annotations

import random

from ansible_collections.racefree.block.plugins.module_utils._by_diskseq.schedule import Schedule


def test_it_is_a_dictionary_of_times() -> None:
    choose = random.Random(1)
    schedule: Schedule[int] = Schedule()
    expected: dict[int, float] = {}
    now = 0.0
    for dummy in range(20000):
        what, key = choose.random(), choose.randrange(20)
        if what < 0.6:
            when = now + choose.randrange(50)
            schedule.put(key, when)
            expected[key] = when
        elif what < 0.7:
            schedule.drop(key)
            expected.pop(key, None)
        elif what < 0.85:
            assert schedule.next() == min(expected.values(), default=None)
        else:
            now += choose.randrange(30)
            due = sorted((when, key) for key, when in expected.items() if when <= now)
            assert schedule.take(now) == [key for when, key in due]
            for when, key in due:
                del expected[key]


def test_what_is_put_off_again_and_again_takes_no_memory() -> None:
    schedule: Schedule[str] = Schedule()
    for when in range(10000):
        schedule.put("a", when)
    assert len(schedule._heap) == 1 and schedule.next() == 9999 and schedule.take(9998) == []
    assert schedule.take(9999) == ["a"] and schedule.next() is None


def test_an_earlier_time_counts() -> None:
    schedule: Schedule[str] = Schedule()
    schedule.put("a", 5)
    schedule.put("a", 1)
    schedule.put("b", 3)
    assert schedule.take(4) == ["a", "b"] and schedule.next() is None
    schedule.put("a", 9)
    assert schedule.next() == 9
