# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Tables that stop some kernels, by a panic or an endless wait.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Such a table is rejected on the kernels that it stops and allowed on the others. If the kernel is unknown, as
on the controller, there is a warning. Sources: ``block/blk-settings.c``, ``drivers/md/dm-snap.c``,
``dm-raid.c`` and ``md.c`` of 6.1.192, 6.12.117 and 7.2.12; each was tested on those kernels.
"""

from __future__ import annotations

from collections import namedtuple

# ``since``: the first affected kernel, as (major, minor). ``what``: what the table contains. ``happens``:
# what the kernel then does. ``seen``: how the failure shows.
Stop = namedtuple("Stop", ("name", "target", "since", "what", "happens", "seen"))

SMALL_DISCARDS = Stop(
    "small-discards",
    "snapshot",
    (6, 13),
    "`discard_zeroes_cow` with chunks below 512 sectors: those of the table, of the header that a COW device "
    "has from earlier (it overrides the table), or the default of 32, which 0 can stand for.",
    "divides by zero",
    "A divide error in `blk_stack_limits`, on resume, if one of the two devices takes discards.",
)
# Observed on 7.2.7 and not on 6.12.118; the first affected version between them is unknown.
UNFINISHED_SYNC = Stop(
    "unfinished-sync",
    "raid",
    (6, 13),
    "The word `sync` with raid4, raid5 or raid6 and without metadata devices.",
    "cannot suspend or remove the device while it synchronizes",
    "Whoever suspends or removes the device before its first synchronization has ended stays in state D, in "
    "`raid5_quiesce`, and so does every process that asks for the device later.",
)

STOPS = (SMALL_DISCARDS, UNFINISHED_SYNC)
