# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What speaks against a new loop device over a file, unless the user said that it is meant.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Asked when a device is planned, so that check mode tells, and again just before it is made. A device that is there already is not asked about:
what a guest has written into its disk meanwhile is no reason to refuse it.
"""

from __future__ import annotations

import os

from . import _image_format
from ._errors import InvalidValue, KernelError
from ._record import Record


# A target of the hotplug script has no options beside it.
_SAY_RAW = {"target": "write file:raw:/PATH"}


class Said(Record):
    """
    What the user said of the file; a ``_recipe.FileSource`` has the same fields.

    ``format``: ``raw`` when the file is known to be a disk byte for byte, else None.
    """

    format: str | None = None


def check(backing, area, said, option="backing_file"):
    """
    Raise InvalidValue when there is to be no such loop device.

    ``backing``: the open file (``_loop.Backing``); ``area``: ``(offset, size)`` in bytes, size 0 for the rest; ``said``: a Said.
    """
    if said.format is None:
        _check_format(backing, area, option)


def _check_format(backing, area, option):
    """An area that begins later is no whole image, and its neighbours' bytes are none of its concern."""
    offset, size = area
    if offset:
        return
    found = format_of(backing, not size or size >= backing.size)
    if found is not None:
        raise InvalidValue(
            option, backing.path,
            f"it is an image of the format {found}, not a disk byte for byte. Convert it (qemu-img convert -f {found} -O raw), or "
            f"{_SAY_RAW.get(option, 'say format=raw')} if a guest wrote these bytes into a disk of its own",
        )


def format_of(backing, to_the_end=True):
    """The format (``_image_format``) of an open file, or None for what can be raw; without ``to_the_end`` its last bytes are not looked at."""
    try:
        head = os.pread(backing.fd, _image_format.HEAD, 0)
        tail = os.pread(backing.fd, _image_format.TAIL, backing.size - _image_format.TAIL) if to_the_end and backing.size >= _image_format.TAIL else b""
    except OSError as error:
        raise KernelError.from_oserror(error, "read the image", device=backing.path) from error
    return _image_format.format_of(head, tail)
