# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Parse and open the device that a disk's target names, for the hotplug script. xl passes the target on
unchanged.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import os
import stat

from .._base import gone, locks
from .._base.deadline import Deadline
from .._base.errors import DeviceGone, InvalidValue, KernelError, WrongDevice
from .._base.files import kind_of_file
from .._block import backing as _backing
from .._block import bind, boot, loop_index, new_loop, sysfs
from .._block import device as _device
from .._source import spec
from .._source.spec import DiskseqSource, FileSource, PathSource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Union

    from .._block.device import Device
    from .._source.recipe_file import KeptRecipe

    Plain = Union[DiskseqSource, FileSource, PathSource]
    Recipe = Union[Plain, KeptRecipe]

_FORMS = ("diskseq:", "file:", "path:", "dm:")
_RECIPE = "recipe:"
SEALED, SEALED_BELOW = "sealed:", "sealed-below:"


def split_seal(text: str) -> tuple[str, str]:
    """
    Split a target into SEALED, SEALED_BELOW or nothing, and the rest, for ``parse``. With either, the device
    is to be sealed while the guest has it; with SEALED_BELOW also the loop and mapped devices below it.
    """
    for start in (SEALED, SEALED_BELOW):
        if text.startswith(start):
            return start, text[len(start) :]
    return "", text


def parse(text: str, writable: bool) -> Recipe:
    """
    Parse a target into a recipe (``_source.spec``). A target is one of the recipe's text forms, the name of a
    recipe that is kept in a file (``_source.recipe_file``) or, as for Xen's own script, the path of a block
    device or regular file; ``/dev/`` is prepended to relative paths.

    If ``writable`` is false, a file is bound read-only: the guest does not write it, so nobody needs to.
    """
    if not text.isascii() or not text.isprintable():
        raise InvalidValue("target", text, "must be printable ASCII")
    if text.startswith(_RECIPE):
        # Imported only for such targets, to save start-up time.
        from . import recipe_target

        return recipe_target.read(text[len(_RECIPE) :], writable)
    if text.startswith(_FORMS):
        recipe: Any = spec.parse(text, option="target")
        _check_kept(text, recipe)
    else:
        path = _full(text)
        _check_kept(text, PathSource(path))
        recipe = _guess(path)
    return recipe._replace(read_only=True) if isinstance(recipe, FileSource) and not writable else recipe


def seal_of(recipe: Recipe) -> str:
    """SEALED or SEALED_BELOW if a recipe that is kept in a file says so, otherwise nothing."""
    seal = getattr(recipe, "seal", None)
    if seal is None or not seal.sealed:
        return ""
    return SEALED_BELOW if seal.sealed_below else SEALED


def is_shared(recipe: Recipe, mode: str) -> bool:
    """Whether other guests may write to the same storage: the recipe or the disk's mode says so."""
    return "!" in mode or getattr(recipe, "shared", False) is True


def open_device(recipe: Recipe, seconds: float, shared: bool = False) -> Device:
    """
    Open, verify and return the device. For a file, a loop device is created that is removed with its last
    user; that may take ``seconds``.

    ``shared``: whether another device may write the same part of the file.

    The loop device is always a new one, except in a recipe from a file: an existing one would be removed or
    kept as somebody else decides.
    Raises KernelError for a mapped device that no longer works or that stands on one.
    """
    if not isinstance(recipe, (DiskseqSource, FileSource, PathSource)):
        from . import recipe_target

        return recipe_target.open_device(recipe, seconds)
    device = _open(recipe, seconds, shared)
    try:
        if gone.exists(f"{device.sysfs}/dm", gone.SYSFS):
            # Imported only for mapped devices, to save start-up time.
            from .._dm import control as _control
            from .._dm import health

            with _control.Control() as control:
                health.refuse_broken(control, device)
    except BaseException:
        device.close()
        raise
    return device


def _open(recipe: Plain, seconds: float, shared: bool) -> Device:
    if isinstance(recipe, FileSource):
        with _backing.Backing(recipe.file, recipe.read_only, option="target") as backing:
            if recipe.partition is not None:
                from .._source import area as _area  # rarely needed, so imported here to save start-up time

                recipe = _area.of_source(recipe, backing, "recipe")
            area = new_loop.Area(recipe.offset, recipe.size, not recipe.read_only)
            with locks.held([locks.of_inode(backing.device, backing.inode, recipe.file)], Deadline(seconds)):
                loops = loop_index.LoopIndex()
                new_loop.check(
                    backing, area, recipe._replace(overlap=shared), loops, for_guest=True, option="target"
                )
                return bind.attach(
                    backing,
                    recipe.offset,
                    recipe.size,
                    recipe.sector_size,
                    recipe.read_only,
                    recipe.direct_io,
                    seconds=seconds,
                )
    if isinstance(recipe, DiskseqSource):
        boot.check_boot(recipe.boot_id, recipe.diskseq)
        if recipe.partition is None:
            return _device.open_diskseq(recipe.diskseq)
        from .._block import partition  # rarely needed, so imported here to save start-up time

        return partition.open_partition(recipe.diskseq, recipe.partition)
    device = _device.open_path(recipe.path, diskseq=recipe.diskseq, option="target")
    if recipe.uuid is not None:
        _prove_uuid(device, recipe)
    return device


def _check_kept(text: str, recipe: spec.Source) -> None:
    """
    Reject a target with a disk sequence number that is not bound to a boot: a guest's configuration outlives
    the boot, and after it the number would identify another disk.
    """
    if isinstance(recipe, DiskseqSource):
        is_bound = recipe.boot_id is not None
    else:
        is_bound = not isinstance(recipe, PathSource) or not os.path.normpath(recipe.path).lstrip(
            "/"
        ).startswith(("dev/disk/by-diskseq/", "dev/racefree/link/disk/by-diskseq/"))
    if not is_bound:
        raise InvalidValue(
            "target",
            text,
            "does not name its boot: a disk sequence number is valid until the next boot, and a guest's "
            "configuration can outlive that. For a disk that is attached now, write diskseq:N@BOOT with the "
            "boot_id that was returned with the number; in a configuration give the file, dm:NAME,UUID, or a "
            "path in /dev/disk/by-id",
        )


def _full(text: str) -> str:
    path = text[4:] if text.startswith("phy:") else text
    return path if path.startswith("/") else "/dev/" + path


def _guess(path: str) -> FileSource | PathSource:
    """Guess the recipe from the file type. The type is verified again when the file or device is opened."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DeviceGone("there is no such device or file", device=path, errno=error.errno) from error
    except OSError as error:
        raise KernelError.from_oserror(error, f"look at {path}", device=path) from error
    if stat.S_ISREG(mode):
        return FileSource(path)
    if stat.S_ISBLK(mode):
        return PathSource(path)
    raise InvalidValue(
        "target", path, f"is a {kind_of_file(mode)}, and must be a block device or a regular file"
    )


def _prove_uuid(device: Device, recipe: PathSource) -> None:
    """
    Check the mapped device's UUID, which never changes. The open descriptor keeps the device number from
    being reused, so sysfs describes this device.
    """
    uuid = sysfs.read(f"{device.sysfs}/dm/uuid")
    if uuid != recipe.uuid:
        device.close()
        raise WrongDevice(
            "it is not a mapped device"
            if uuid is None
            else f"its uuid is {uuid or '(none)'}, not {recipe.uuid}",
            device=recipe.path,
        )
