# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Maps disagreements between the parser and a kernel to their names in docs/device-mapper-tables.md.

Every row has a name, a target type or None for all, and a pattern: of the parser's ``field: rule`` where the
parser is stricter, of the kernel's ``errno reason`` where the parser cannot tell.
"""

from __future__ import annotations

import re

STRICTER = (
    ("read-only-devices", None, r": must be a writable device, or the table must be read-only"),
    ("error-arguments", "error", r"parameters: is not a parameter"),
    ("leftovers", None, r": (is not a parameter: |must be the number of (words|groups|paths))|#\S+: "),
    (
        "duplicates",
        None,
        r": (must not be repeated|cannot be combined with another of these|must not repeat a value)",
    ),
    (
        "same-device",
        None,
        r": must (be a different device from|not repeat a device|be a device that nothing else)",
    ),
    ("paths", None, r": must be a device: MAJ:MIN"),
    ("ascii", None, r": must be ASCII only"),
    ("control-characters", None, r": must not contain control characters"),
    ("snapshot-persistence", "snapshot", r"persistence: "),
    ("snapshot-persistence", "snapshot-merge", r"persistence: "),
    ("crypt-no-iv", "crypt", r"only (the mode )?ecb needs no IV"),
    ("verity-algorithm", "verity", r"root_digest: |hash: must be a device of at least"),
    ("integrity-recalculate", "integrity", r"(recalculate|reset_recalculate): needs internal_hash"),
    ("mirror-userspace", "mirror", r"log: "),
    ("raid-devices", "raid", r"#?members: must be at least"),
    ("raid-chunk", "raid", r"chunk_size: must be a whole number"),
    ("raid-region", "raid", r"region_size: must be a whole number"),
    ("raid-rounding", "raid", r"data: must have a length that is a multiple of the logical block"),
    (
        "cache-policy",
        "cache",
        r"(policy: must be one of|only with the policy mq|policy_arguments: must be one of)",
    ),
    ("unstriped-stripes", "unstriped", r"stripes: must be a whole number"),
    ("unstriped-index", "unstriped", r"index: must be less than"),
    ("multipath-first-group", "multipath", r"first_group: "),
    ("multipath-selectors", "multipath", r"(selector: must be one of|arguments: must be a list of at most)"),
    ("multipath-handler", "multipath", r"handler: must be absent with"),
    ("vdo-version", "vdo", r"version: "),
    ("vdo-keys", "vdo", r"features: must be one of"),
    ("vdo-era", "vdo", r"(era|cache_blocks): must be a whole number"),
)

# A kernel with this message has accepted all of the words before.
FORMAT = ("contents", "vdo", r"vdo: Could not load geometry block")

UNDECIDED = (
    ("zoned-devices", "zoned", r"zoned: "),
    ("contents", "snapshot", r"snapshot: Failed to read snapshot metadata"),
    ("contents", "snapshot-merge", r"snapshot-merge: Failed to read snapshot metadata"),
    FORMAT,
    ("crypto", "verity", r"ENOENT .*verity: Cannot initialize hash function"),
    ("crypto", "crypt", r"crypt: Error allocating crypto tfm"),
    # Two targets of one table use the same device for their metadata.
    ("contents", None, r"block manager: superblock validator check failed"),
    ("contents", "integrity", r"EIO .*integrity: Error initializing (journal|superblock)"),
    # All superblocks are new, and one member has none; the kernel accepts this with superblocks of an
    # existing set.
    ("contents", "raid", r"EINVAL .*raid: New device injected into existing raid set"),
    ("metadata-room", "era", r"ENOSPC era: metadata_(resize|commit)"),
    ("integrity-room", "integrity", r"integrity: (Not enough provided sectors|The device is too small)"),
    ("thin-volumes", "thin", r"thin: Couldn't open thin internal device"),
    # A read-only pool over metadata that was never formatted (__open_or_format_metadata in
    # drivers/md/dm-thin-metadata.c).
    ("contents", "thin-pool", r"EPERM thin-pool: Error creating metadata object"),
)


def stricter(error, errors):
    """
    The name, out of ``deviations.STRICTER``, of why the parser refuses what the kernel took; None when there
    is none. ``errors``: all of the table; where a count could not be read, what else the line lacks follows
    from that.
    """
    for other in errors:
        if (
            other is not error
            and other["line"] == error["line"]
            and other["field"].startswith("#")
            and "is missing" in error["rule"]
        ):
            return stricter(other, ())
    if error["rule"].startswith("is missing") and not error["field"].startswith("#"):
        return None
    text = f"{error['field']}: {error['rule']}"
    value = str(error["value"])
    if "a whole number" in error["rule"] and (not re.fullmatch("[0-9]+", value) or int(value) >= 1 << 32):
        return "numbers"
    if (
        error["target"] == "crypt"
        and error["field"] == "sector_size"
        and value.isdigit()
        and int(value) >= 1 << 16
    ):
        return "crypt-sector-size-wrap"
    return _first(STRICTER, {error["target"]}, text)


def undecided(table, verdict):
    """
    The name, out of ``deviations.UNDECIDED``, of why the kernel refused what the parser took; None when there
    is none.
    """
    return _first(UNDECIDED, {target.TYPE for target in table}, f"{verdict.errno} {verdict.reason}")


def words_taken(types, verdict):
    """
    Whether the kernel took the words of a table with these target types: it took the table, or refused it for
    what it then read from a device (a VDO volume would have to be formatted).
    """
    return verdict.phase is None or _first((FORMAT,), types, f"{verdict.errno} {verdict.reason}") is not None


def _first(rows, types, text):
    for name, target, pattern in rows:
        if (target is None or target in types) and re.search(pattern, text):
            return name
    return None
