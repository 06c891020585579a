# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The part of a file that a source with a partition means.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

The kernel does not read the partition table: the loop device is bound to these bytes of the file only. So all
checks of areas apply, and the user of one partition cannot reach the table or other partitions. A guest may
have written the table, so a partition with a problem is refused (``_block.partition_table``).
"""

from __future__ import annotations

from .._base.errors import InvalidValue

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from .._block.backing import Backing
    from .spec import FileSource


def of_source(source: FileSource, backing: Backing, option: str = "source") -> FileSource:
    """
    The FileSource with the offset and size of its partition according to the table in the open file, and
    without the partition. InvalidValue if the partition does not exist or must not be used, KernelError.
    """
    if source.partition is None:
        return source
    from .._block import partitions  # rarely needed, and it imports more files

    table = partitions.table_of(backing.fd, source.file, backing.size, source.sector_size or 512)
    entry = next((entry for entry in table.entries if entry.number == source.partition), None)
    option = f"{option}.partition"
    if entry is None:
        numbers = ", ".join(str(entry.number) for entry in table.entries)
        has = f"has the partitions {numbers}" if numbers else "has no partition table (GPT or MBR)"
        hint = (
            "For a disk with sectors of 4096 bytes, also set sector_size: 4096"
            if table.format is None
            else None
        )
        raise InvalidValue(option, source.partition, f"is not in {source.file}, which {has}", hint=hint)
    if entry.problem is not None:
        raise InvalidValue(option, source.partition, f"must not be used: {entry.problem}", device=source.file)
    return source._replace(offset=entry.start, size=entry.size, partition=None)
