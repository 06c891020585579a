# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Deliberate differences between the parser and the kernels, with the reason: the parser is stricter, or the
table alone is not sufficient to decide.

``docs/device-mapper-tables.md`` lists every entry by name. Each table that only the parser or only the kernel
accepts must be covered by an entry.
"""

from __future__ import annotations

from collections import namedtuple

# ``target``: a target type, or None for all. ``what`` is rejected, for the reason ``why``.
Stricter = namedtuple("Stricter", ("name", "target", "what", "why"))

STRICTER = (
    Stricter(
        "numbers",
        None,
        "Numbers that are not plain decimal digits, or that do not fit the field.",
        "The kernel accepts a sign, and lets most fields overflow: 4294967296 becomes 0.",
    ),
    Stricter(
        "ascii",
        None,
        "Non-ASCII characters outside file:, path: and sources.",
        "The kernel treats the byte 0xA0 as white space, and so splits the UTF-8 form of many letters.",
    ),
    Stricter(
        "control-characters",
        None,
        "Control characters other than tabs.",
        "They make the table look different from what is sent to the kernel.",
    ),
    Stricter(
        "paths",
        None,
        "Device names that are not absolute paths.",
        "The kernel resolves a relative path from the working directory of the process that loads the table.",
    ),
    Stricter(
        "leftovers",
        None,
        "Words after the last one that the target reads, and counts that do not match the words after them.",
        "Most constructors ignore them, so a mistyped count silently drops options.",
    ),
    Stricter(
        "duplicates",
        None,
        "The same option twice.",
        "Most constructors silently take the last one, and the table that is printed back "
        "differs from what was written.",
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
        "The same device in two targets, where the first one opens it with fewer "
        "permissions than the second one.",
        "The kernel frees what the first target holds, and continues to use it; 6.1 "
        "crashed with a read-only table with crypt and cache on one device.",
    ),
    Stricter(
        "same-device",
        None,
        "The same device in places that must not share one, such as metadata and data, of "
        "one target or of two.",
        "Most constructors compare only the words, or nothing; data and metadata then overwrite each other.",
    ),
    Stricter(
        "error-arguments",
        "error",
        "Any argument.",
        "6.5 and newer accept a device for its limits, and ignore any other number of "
        "words; none of it is printed back.",
    ),
    Stricter(
        "snapshot-persistence",
        "snapshot",
        "Words other than P, PO and N.",
        "The kernel looks at the first two letters only: Never means N.",
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
        "capi:SPEC without an IV, except for ecb.",
        "All sectors would be encrypted with the same IV.",
    ),
    Stricter(
        "crypt-sector-size-wrap",
        "crypt",
        "sector_size of more than 16 bits.",
        "The kernel reads 16 bits and drops the rest: 66048 becomes 512.",
    ),
    Stricter(
        "verity-algorithm",
        "verity",
        "A root digest whose length does not match the algorithm, and a hash tree beyond "
        "the end of the hash device.",
        "The kernel refuses them too, but only if the algorithm is built in.",
    ),
    Stricter(
        "integrity-recalculate",
        "integrity",
        "recalculate without internal_hash.",
        "The kernel also looks at the superblock, which the parser does not know.",
    ),
    Stricter(
        "integrity-recovery",
        "integrity",
        "recalculate in the recovery mode R.",
        "The kernel accepts it, and then its own thread stops with a BUG (6.1, with "
        "blocks of 4096 bytes). After that the device can never be removed.",
    ),
    Stricter(
        "mirror-userspace",
        "mirror",
        "Logs other than core and disk.",
        "Whether they are accepted depends on a daemon in user space.",
    ),
    Stricter(
        "raid-devices",
        "raid",
        "Fewer devices than the level needs, or too many of them missing.",
        "md refuses most of these, but later.",
    ),
    Stricter(
        "raid-chunk",
        "raid",
        "A negative chunk size for raid1.",
        "The kernel ignores its value.",
    ),
    Stricter(
        "raid-region",
        "raid",
        "A region_size of 0, which means the kernel's choice: leave region_size out instead.",
        "The kernel prints the size that it chose, and refuses that very size for a shorter target.",
    ),
    Stricter(
        "raid-rounding",
        "raid",
        "A length with which each device's part ends inside a logical block.",
        "md rounds the parts down to whole chunks before device-mapper looks at them. The "
        "space behind can be used, but is not rebuilt when a device fails.",
    ),
    Stricter(
        "cache-policy",
        "cache",
        "The arguments of mq with another policy, and unknown policies.",
        "Which policies exist depends on modules.",
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
        "The kernel prints their number as a negative number.",
    ),
    Stricter(
        "unstriped-index",
        "unstriped",
        "An index equal to the number of stripes, or any index if there is one stripe.",
        "The kernel is off by one.",
    ),
    Stricter(
        "multipath-first-group",
        "multipath",
        "A first group that does not exist.",
        "The kernel accepts it and then picks a group itself.",
    ),
    Stricter(
        "multipath-selectors",
        "multipath",
        "Unknown path selectors, and arguments that a selector ignores.",
        "Which selectors exist depends on modules.",
    ),
    Stricter(
        "multipath-handler",
        "multipath",
        "A hardware handler with queue_mode bio.",
        "The kernel logs a message and ignores the handler.",
    ),
    Stricter(
        "vdo-version",
        "vdo",
        "Table lines of a version before V4.",
        "They were never in a released kernel.",
    ),
    Stricter(
        "vdo-keys",
        "vdo",
        "Keys that vdo does not know.",
        "The kernel logs them and continues.",
    ),
    Stricter(
        "vdo-era",
        "vdo",
        "An era of 0 or above 16380, and a cache of no blocks.",
        "This is the range of vdo's own tools; the kernel checks nothing here.",
    ),
)

# ``target``: a target type, or None for all. The kernel rejects ``what``; ``why`` is the reason why the
# parser cannot tell.
Undecided = namedtuple("Undecided", ("name", "target", "what", "why"))

UNDECIDED = (
    Undecided(
        "zoned-devices",
        "zoned",
        "Devices that are not zoned where one must be, devices that are zoned where none "
        "may be, and devices that are not formatted.",
        "The parser does not know whether a device has zones.",
    ),
    Undecided(
        "contents",
        None,
        "Devices whose contents are not what the target expects as its metadata (a "
        "program formats VDO volumes), and read-only devices, and read-only pools, that the "
        "target would have to format.",
        "It depends on what is on the device, not on the table.",
    ),
    Undecided(
        "crypto",
        None,
        "Ciphers, hashes and keys that the kernel's crypto interface refuses.",
        "Which algorithms exist, and what they accept, depends on the kernel's modules.",
    ),
    Undecided(
        "metadata-room",
        "era",
        "A metadata device that is too small for what must be stored about each block.",
        "How much space this takes depends on the kernel's own format.",
    ),
    Undecided(
        "integrity-room",
        "integrity",
        "A length for which the device has no space beside the checksums and the journal.",
        "How much space these take depends on the superblock, or on the kernel's own choice.",
    ),
    Undecided(
        "thin-volumes",
        "thin",
        "A volume that its pool does not have.",
        "Which volumes exist is stored in the pool's metadata.",
    ),
)
