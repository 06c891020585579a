# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What a domain's definition says about the format of a disk's file: raw in a recipe, or the driver of a disk
that libvirt manages.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from .._base.errors import BlockError, InvalidValue, KernelError
from .._block import image_format
from .._block.backing import Backing
from .._block.device import Device
from .._source import recipe as _recipe
from .._source import spec
from .._source.spec import FileSource
from .domain_xml import Domain


def known(source: FileSource, domains: Iterable[Domain], target: str) -> FileSource:
    """
    The FileSource, with ``format=raw`` if the recipe of this target has it for the same storage.
    ``domains``: ``_libvirt.domain_xml.Domain`` objects.
    """
    if source.format is None and any(_says_raw(domain.recipe(target), source, target) for domain in domains):
        return source._replace(format=image_format.RAW)
    return source


def refuse_driver(
    source: FileSource, backing: Backing, domains: Iterable[Domain], option: str = "source.file"
) -> None:
    """
    Raise InvalidValue if a disk of the definition has this open file (``_block.backing.Backing``) with a
    driver for another format.
    """
    if source.format is not None:
        return
    for domain in domains:
        for disk in domain.disks():
            if disk.type != "file" or disk.format in (None, image_format.RAW):
                continue
            if _is_file(disk.source, backing):
                raise InvalidValue(
                    option,
                    source.file,
                    f"is an image of the format {disk.format} (driver of {disk.target}) according to the "
                    "definition, but a guest would get it byte for byte. Convert it "
                    f"{image_format.way_out(disk.format)}, or set "
                    "format=raw if the definition is wrong",
                )


def refuse_driver_of_device(device: Device, domains: Iterable[Domain]) -> None:
    """
    InvalidValue if a disk of the definition has this block device with a driver for a format other than raw.
    """
    for domain in domains:
        for disk in domain.disks():
            if disk.type != "block" or disk.format in (None, image_format.RAW):
                continue
            if _is_device(disk.source, device):
                raise InvalidValue(
                    "source",
                    device.path,
                    f"holds an image of the format {disk.format} (driver of {disk.target}), as the "
                    "definition says, and a guest gets it byte for byte. Convert it onto another device "
                    f"(qemu-img convert -f {disk.format} -O raw), or correct the definition "
                    "(type='raw') if it is wrong",
                )


def _says_raw(recipe: str | None, source: FileSource, target: str) -> bool:
    try:
        kept = None if recipe is None else _recipe.parse(recipe, target)
    except BlockError:
        # A recipe that cannot be read is ignored. The file itself is then checked.
        return False
    if not isinstance(kept, spec.FileSource) or kept.format != image_format.RAW:
        return False
    return all(getattr(kept, key) == getattr(source, key) for key in ("file", "offset", "partition"))


def _is_file(path: str | None, backing: Backing) -> bool:
    found = _look(path)
    return found is not None and (found.st_dev, found.st_ino) == (backing.device, backing.inode)


def _is_device(path: str | None, device: Device) -> bool:
    found = _look(path)
    if found is None or not stat.S_ISBLK(found.st_mode):
        return False
    return (os.major(found.st_rdev), os.minor(found.st_rdev)) == (device.id.major, device.id.minor)


def _look(path: str | None) -> os.stat_result | None:
    if path is None:
        return None
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        # The path does not exist, or is not a path.
        return None
    except OSError as error:
        raise KernelError.from_oserror(error, "look at a disk of the definition", device=path) from error
