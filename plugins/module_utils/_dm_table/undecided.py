# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Where a kernel refuses what the parser takes, because the table alone does not tell.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

The documentation lists every entry by its name; a table that the parser takes and a kernel refuses has to be covered by one of them.
"""

from __future__ import annotations

from collections import namedtuple

# ``target``: a target type, or None for all; ``what`` the kernel refuses; ``why`` the parser cannot tell.
Undecided = namedtuple("Undecided", ("name", "target", "what", "why"))

UNDECIDED = (
    Undecided(
        "zoned-devices",
        "zoned",
        "Devices that are not zoned where one has to be, or that are where none may, and what is not formatted.",
        "Whether a device has zones is not among what the parser is told.",
    ),
    Undecided(
        "contents",
        None,
        "Devices that hold something else than the target expects of its metadata (a VDO volume is formatted by a program), "
        "and read-only ones that it would have to format.",
        "It stands on the device, not in the table.",
    ),
    Undecided(
        "crypto",
        None,
        "Ciphers, hashes and keys that the kernel's crypto interface refuses.",
        "Which algorithms there are, and what they take, depends on the kernel's modules.",
    ),
    Undecided(
        "metadata-room",
        "era",
        "A metadata device too small for what is to be kept there of each block.",
        "How much room it takes follows from the kernel's own way of keeping it.",
    ),
    Undecided(
        "integrity-room",
        "integrity",
        "A length that the device has no room for beside the checksums and the journal.",
        "How much room these take follows from the superblock, or from the kernel's own choice.",
    ),
    Undecided(
        "thin-volumes",
        "thin",
        "A volume that its pool does not have.",
        "Which volumes there are stands in the pool's metadata.",
    ),
)
