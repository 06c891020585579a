# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Where the parser and kernels differ, with the reason: the parser is stricter, or the table alone does not tell.

``docs/device-mapper-tables.md`` lists every entry by its name. A table that only one of the two accepts has to be covered by one of them.
"""

from __future__ import annotations

from collections import namedtuple

# ``target``: a target type, or None for all; ``what`` is refused; ``why``.
Stricter = namedtuple("Stricter", ("name", "target", "what", "why"))

STRICTER = (
    Stricter(
        "numbers",
        None,
        "Numbers that are not plain decimal digits, or that do not fit the field.",
        "The kernel takes a sign and lets most fields wrap: 4294967296 becomes 0.",
    ),
    Stricter(
        "ascii",
        None,
        "Characters beyond ASCII outside file:, path: and sources.",
        "The kernel takes the byte 0xA0 for white space and splits the UTF-8 form of many letters.",
    ),
    Stricter(
        "control-characters",
        None,
        "Control characters other than tabs.",
        "They make what is shown differ from what is sent.",
    ),
    Stricter(
        "paths",
        None,
        "Device names that are not absolute paths.",
        "The kernel looks a relative path up from the working directory of whoever happens to load the table.",
    ),
    Stricter(
        "leftovers",
        None,
        "Words behind the last one that the target reads, and counts that do not match the words behind them.",
        "Most constructors ignore them, so that a mistyped count silently drops options.",
    ),
    Stricter(
        "duplicates",
        None,
        "The same option twice.",
        "Most constructors take the last one without a word; the table printed back then differs from what was written.",
    ),
    Stricter(
        "read-only-devices",
        None,
        "A read-only device in a table that is not read-only.",
        "The table loads, and every write fails later.",
    ),
    Stricter(
        "device-modes",
        None,
        "The same device in two targets, where the first one does not open it for all that the second one does.",
        "The kernel frees what the first target holds, and goes on using it; seen to crash 6.1 at a read-only table with crypt and cache on one device.",
    ),
    Stricter(
        "same-device",
        None,
        "The same device in slots that must not share one, such as metadata and data, of one target or of two.",
        "Most constructors compare the words only, or not at all; data and metadata then overwrite each other.",
    ),
    Stricter(
        "error-arguments",
        "error",
        "Any argument.",
        "6.5 and newer take a device for its limits and ignore every other number of words; none of it is printed back.",
    ),
    Stricter(
        "snapshot-persistence",
        "snapshot",
        "Other words than P, PO and N.",
        "The kernel looks at the first two letters only: Never is N.",
    ),
    Stricter(
        "crypt-key-digits",
        "crypt",
        "A key with an odd number of hex digits.",
        "The kernel ignores the last digit.",
    ),
    Stricter(
        "crypt-no-iv",
        "crypt",
        "capi:SPEC without an IV, save for ecb.",
        "All sectors would be encrypted with the same IV.",
    ),
    Stricter(
        "crypt-sector-size-wrap",
        "crypt",
        "sector_size beyond 16 bits.",
        "The kernel reads 16 bits and lets the rest vanish: 66048 becomes 512.",
    ),
    Stricter(
        "verity-algorithm",
        "verity",
        "A root digest that does not fit the algorithm, and a hash tree beyond the hash device.",
        "The kernel refuses it too, but only where the algorithm is built in.",
    ),
    Stricter(
        "integrity-recalculate",
        "integrity",
        "recalculate without internal_hash.",
        "The kernel looks at the superblock as well, which is not known here.",
    ),
    Stricter(
        "integrity-recovery",
        "integrity",
        "recalculate in the recovery mode R.",
        "The kernel takes it, and its own thread stops with a BUG (6.1, with blocks of 4096 bytes), after which the device can never be removed.",
    ),
    Stricter(
        "mirror-userspace",
        "mirror",
        "Logs other than core and disk.",
        "A daemon in user space would have to say whether it takes them.",
    ),
    Stricter(
        "raid-devices",
        "raid",
        "Fewer devices than the level is made for, or too many of them absent.",
        "md refuses most of it, at some later time.",
    ),
    Stricter("raid-chunk", "raid", "A negative chunk size for raid1.", "The kernel ignores what it is."),
    Stricter(
        "raid-region",
        "raid",
        "A region_size of 0, which stands for the kernel's choice: it is left out for that.",
        "The kernel prints what it chose, and refuses just that for a target that is shorter.",
    ),
    Stricter(
        "raid-rounding",
        "raid",
        "A length of which each device's part ends inside a logical block.",
        "md rounds the parts down to whole chunks before device-mapper looks at them; what lies behind can be used, but is not rebuilt when a device fails.",
    ),
    Stricter(
        "cache-policy",
        "cache",
        "The arguments of mq with another policy, and unknown policies.",
        "Which policies there are depends on modules.",
    ),
    Stricter(
        "clone-counts",
        "clone",
        "The same core argument twice.",
        "The kernel takes the last one and prints both.",
    ),
    Stricter(
        "unstriped-stripes",
        "unstriped",
        "More than 2147483647 stripes.",
        "The kernel prints their number as a negative one.",
    ),
    Stricter(
        "unstriped-index",
        "unstriped",
        "An index that is the number of stripes, or any index when there is one stripe.",
        "The kernel is off by one.",
    ),
    Stricter(
        "multipath-first-group",
        "multipath",
        "A first group that does not exist.",
        "The kernel takes it and then picks one itself.",
    ),
    Stricter(
        "multipath-selectors",
        "multipath",
        "Unknown path selectors, and arguments that a selector ignores.",
        "Which ones there are depends on modules.",
    ),
    Stricter(
        "multipath-handler",
        "multipath",
        "A hardware handler with queue_mode bio.",
        "The kernel complains in its log and ignores the handler.",
    ),
    Stricter("vdo-version", "vdo", "Table lines before V4.", "They were never in a released kernel."),
    Stricter(
        "vdo-keys", "vdo", "Keys that vdo does not know.", "The kernel notes them in its log and goes on."
    ),
    Stricter(
        "vdo-era",
        "vdo",
        "An era of 0 or above 16380, and no cache blocks.",
        "The range of vdo's own tools; the kernel checks nothing here.",
    ),
)

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
