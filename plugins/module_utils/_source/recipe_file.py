# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Recipes kept in files of their own, one for each disk of a guest that xl starts:
``/etc/racefree-block/recipes/NAME.json``.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

``{"source": {...}, "shared": false, "disk": "xvda of web1"}``: ``source`` as for ``_source.spec.parse``;
``shared``: whether other guests may write to the same storage; ``disk``: for whom it was written. Whoever can
change a recipe decides which of the host's disks a guest gets. So a recipe that anybody but root can change
is refused.
"""

from __future__ import annotations

import json
import os

from .._base import locks, run_directory
from .._base.errors import DefinitionError, InvalidValue, KernelError
from .._base.files import write_whole
from .._base.record import Record
from .._block import trusted_file
from . import recipe as _recipe
from . import spec as _spec

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from typing import Any

    from .spec import Source

DIRECTORY = "/etc/racefree-block/recipes"
# A name is part of the name and the UUID of a mapped device, which have 127 and 128 characters at most.
LONGEST_NAME = 100
_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._+-")
_KEYS = ("source", "shared", "disk")
_MOST_BYTES = 2 * _recipe.MOST_CHARACTERS
_AGAIN = "Write the recipe again with racefree.block.xl_disk"


class KeptRecipe(Record):
    """
    A recipe that was read. ``disk``: the disk for which it was written, like ``xvda of web1``, or None.
    ``seal``: of the disk, while a guest has it; kept beside the source's own keys.
    """

    name: str
    source: Source
    shared: bool = False
    disk: str | None = None
    seal: _recipe.Seal = _recipe.Seal()


def check_name(name: object, option: str = "recipe") -> str:
    """The name; InvalidValue for one that is not valid, such as one that leads out of the directory."""
    if (
        not isinstance(name, str)
        or not 1 <= len(name) <= LONGEST_NAME
        or not _LETTERS.issuperset(name)
        or name[0] in ".-"
    ):
        wrong = (
            f"must be the name of a recipe: 1 to {LONGEST_NAME} characters out of A-Z a-z 0-9 . _ + -, the "
            "first one neither . nor -"
        )
        raise InvalidValue(option, name, wrong)
    return name


def named(source: Source, name: str) -> Source:
    """
    The source of the recipe ``name``; a mapped device that has no name gets one of its recipe. So there are
    never two of them, for example two snapshots over one store, when a guest starts again while blkback still
    closes the first.
    """
    if isinstance(source, _spec.TableSource) and not source.name and not source.uuid:
        return source._replace(name=f"racefree-recipe-{name}", uuid=f"RACEFREE-RECIPE-{name}")
    return source


def path_of(name: str) -> str:
    return f"{DIRECTORY}/{name}.json"


def lock_of(name: str) -> locks.Lock:
    """The lock for writing and removing the recipe. Readers need none: it is replaced atomically."""
    return locks.Lock(f"recipe {name}", f"the recipe {name}")


def exists(name: str) -> bool:
    """Whether there is a file for the recipe; KernelError if that cannot be determined."""
    try:
        os.lstat(path_of(name))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise KernelError.from_oserror(error, "look at the recipe", device=path_of(name)) from error
    return True


def read(name: str, option: str = "recipe") -> KeptRecipe:
    """
    Read a recipe. InvalidValue for its name or its source; DefinitionError if it does not exist, cannot be
    read, or if somebody other than root can change it; KernelError.
    """
    path = path_of(check_name(name, option))
    try:
        text = trusted_file.read(
            path, _MOST_BYTES, f"Find out who did that, and whether the recipe was changed. {_AGAIN}"
        )
    except FileNotFoundError as error:
        raise DefinitionError("there is no such recipe", path, error.errno, _AGAIN) from error
    except OSError as error:
        raise KernelError.from_oserror(error, "read the recipe", device=path) from error
    return _parse(text, name)


def write(kept: KeptRecipe) -> None:
    """
    Write the recipe, and read it again. InvalidValue if its source cannot be kept, KernelError and
    WrongDevice if it cannot be written. The caller holds :func:`lock_of`.
    """
    path = path_of(check_name(kept.name))
    text = text_of(kept)
    run_directory.make(DIRECTORY)
    try:
        write_whole(path, text, sync=True)
        _sync()
    except OSError as error:
        raise KernelError.from_oserror(error, "write the recipe", device=path) from error
    if text_of(read(kept.name)) != text:
        raise KernelError("the recipe is not what was written", device=path)


def remove(name: str) -> None:
    """Remove the recipe, if it exists. Raises KernelError. The caller holds :func:`lock_of`."""
    path = path_of(check_name(name))
    try:
        os.unlink(path)
        _sync()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise KernelError.from_oserror(error, "remove the recipe", device=path) from error


def text_of(kept: KeptRecipe) -> str:
    """The content of the file; equal recipes have equal texts."""
    plain: dict[str, Any] = {"source": json.loads(_recipe.text_of(kept.source, kept.seal))}
    if kept.shared:
        plain["shared"] = True
    if kept.disk is not None:
        plain["disk"] = kept.disk
    return json.dumps(plain, sort_keys=True, indent=2) + "\n"


def _parse(text: str, name: str) -> KeptRecipe:
    path = path_of(name)
    try:
        plain = json.loads(text)
        if not isinstance(plain, dict) or not isinstance(plain.get("source"), dict):
            raise ValueError("it must be a dictionary with source, which is a dictionary")
        unknown = ", ".join(key for key in plain if key not in _KEYS)
        if unknown:
            raise ValueError(f"it has an unknown key: {unknown}; the keys are {', '.join(_KEYS)}")
        shared, disk = plain.get("shared", False), plain.get("disk")
        if not isinstance(shared, bool) or not isinstance(disk, (str, type(None))):
            raise ValueError("shared must be true or false, and disk must be text")
    except (ValueError, RecursionError) as error:
        raise DefinitionError(f"the recipe cannot be read: {error}", device=path, hint=_AGAIN) from error
    source = json.dumps(plain["source"])
    return KeptRecipe(name, _recipe.parse(source, path), shared, disk, _recipe.seal_of(source, path))


def _sync() -> None:
    """Have the directory on disk, too, so that a configuration never outlives its recipe."""
    handle = os.open(DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
