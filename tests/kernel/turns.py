# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which of the tests with the mark ``rotated`` run in a turn (tests/setup/turn)."""

from __future__ import annotations

TURNS = 3


def of_turn(tests, turn):
    """
    A third of the list: those whose turn it is. Neighbours, which are often alike, are in different turns.

    Raises ValueError if ``turn`` is not the text of a number from 0 to 2: a mistake leaves nothing out.
    """
    if turn not in [str(number) for number in range(TURNS)]:
        raise ValueError(f"the turn is {turn!r}, and must be a number from 0 to {TURNS - 1}")
    return [test for place, test in enumerate(tests) if place % TURNS == int(turn)]
