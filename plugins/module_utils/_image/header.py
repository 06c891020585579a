# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What the header of a disk image says: the size of its disk, and the other files that it names.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Pure. The parsers get a Reader, so that they see the file that the caller holds. They accept only what they
understand: an image is handed to qemu-img after everything that it names has been found here.
"""

from __future__ import annotations

from .._base.errors import InvalidValue
from .._base.record import Record
from .._base.values import SECTOR

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Callable

    # The bytes of the file from an offset on, at most that many.
    Reader = Callable[[int, int], bytes]

RAW, QCOW2, VMDK, VHDX = "raw", "qcow2", "vmdk", "vhdx"
# The larger file systems end at 8 EiB, and Python's offsets at 2**63.
_MOST_BYTES = 2**63 - SECTOR


class Named(Record):
    """
    A file that an image names. ``role``: ``backing`` (the image contains only what differs from it), ``data``
    (it has the data of a qcow2 image) or ``extent`` (a part of a VMDK image). ``format``: as the image says
    it. ``line``: for an extent, its line in the descriptor, with ``{}`` in place of the file's name.
    """

    role: str
    name: str
    format: str
    line: str = ""


class Header(Record):
    """
    ``size``: of the disk, in bytes. ``named``: the files that it names. ``descriptor``: the lines of a VMDK
    descriptor without its extents and its parent, or None.
    """

    size: int
    named: tuple[Named, ...] = ()
    descriptor: tuple[str, ...] | None = None


def wrong(path: str, what: str, hint: str | None = None) -> InvalidValue:
    """The error for an image that is refused; ``what`` completes "image PATH: "."""
    return InvalidValue("image", path, what, hint=hint)


def checked_size(size: int, path: str) -> int:
    """The size in bytes, unchanged. InvalidValue unless it is at least one sector, and whole sectors."""
    if not 0 < size <= _MOST_BYTES or size % SECTOR:
        raise wrong(
            path,
            f"says that its disk has {size} bytes, and must have a multiple of {SECTOR}, "
            "more than 0 and less than 2^63",
        )
    return size


def text_of(data: bytes, path: str, what: str) -> str:
    """The text in a header. InvalidValue for an empty text, and for one that is not printable UTF-8."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    if not text or not text.isprintable():
        raise wrong(path, f"has a name for {what} that is empty or not printable UTF-8")
    return text


def need(data: bytes, length: int, path: str, what: str) -> bytes:
    """The bytes, unchanged. InvalidValue if there are fewer than ``length``."""
    if len(data) < length:
        raise wrong(path, f"ends within {what}")
    return data
