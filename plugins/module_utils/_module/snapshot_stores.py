# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What ``snapshot_stores`` does with one store.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import os
from typing import Any

from .._base import files
from .._base import locks as _locks
from .._base.errors import WrongDevice
from .._dm.space import Space
from .._source.resources import Resources
from .._volumes import snapshot_store, store_space
from . import duplicates
from .item import Identities, Item, Params, Plan, check_percent, known

ARGUMENTS = {
    "path": {"type": "path", "required": True},
    "image": {"type": "path", "required": True},
    "adopt": {"type": "bool", "default": False},
    "warn_percent": {"type": "int"},
    "format": {"type": "str", "choices": ["raw"]},
}


class StoreItem(Item):
    ARGUMENTS = ARGUMENTS
    # Another run may take this long, because it may have to read a whole image.
    LOCK_SECONDS = 1800

    def __init__(self, params: Params, resources: Resources) -> None:
        super().__init__(params, resources)
        # The recorded image, and the image as it is now, without a checksum until that is needed.
        self.before: snapshot_store.Image | None = None
        self.image: snapshot_store.Image | None = None

    def key(self) -> tuple[str, Any]:
        return "path", self.params["path"]

    def title(self) -> str:
        path: str = self.params["path"]
        return os.path.normpath(path)

    def identities(self) -> Identities:
        """A store is identified by its inode. One that does not exist yet is identified by its real path."""
        return dict([duplicates.path_identity(self.params["path"])])

    def check(self) -> None:
        for option in ("path", "image"):
            files.check_path(self.params[option], option, "an absolute path of a regular file")
        check_percent(self.params)

    def locks(self) -> list[_locks.Lock]:
        path = self.params["path"]
        return _locks.of_name("store", path, f"the record of the store {path}")

    def plan(self) -> Plan:
        path = self.params["path"]
        is_used = snapshot_store.is_used(path)
        self.image = snapshot_store.look(self.params["image"], self.params["format"] == "raw")
        self.before = snapshot_store.read_record(path)
        if self.before is not None:
            snapshot_store.learn(self.before, self.resources.checksums)
            if self.before.is_untouched(self.image):
                self.image = self.before
            elif self.before.looks_like(self.image):
                self.image = snapshot_store.read_whole(self.params["image"], self.resources.checksums)
        if is_used and not self.image.has_contents_of(self.before):
            self._check_used(path)
        changed = not self.image.has_contents_of(self.before)
        return Plan(changed, _shown(self.before), _shown(self.image))

    def _check_used(self, path: str) -> None:
        """
        Refuse a store that has changes of another image than the recorded one, whatever the image's path is
        now.
        """
        if self.before is None:
            if not self.params["adopt"]:
                raise WrongDevice(
                    f"it has changes of an unknown image: {path}{snapshot_store.RECORD} does not exist. "
                    f"{known(self.image).path} was asked for",
                    device=path,
                    hint="If it is a snapshot of this image, set adopt=true. Otherwise, give an empty file",
                )
            return
        self.image = snapshot_store.read_whole(self.params["image"], self.resources.checksums)
        if (self.image.size, self.image.sha256) != (self.before.size, self.before.sha256):
            raise WrongDevice(
                f"it holds changes of {self.before}, and {self.image} is another image",
                device=path,
                hint="With this image the guest would read a mixture of both. Give the image that the "
                "store belongs to, or an empty file as the store",
            )

    def apply(self) -> None:
        if known(self.image).sha256 is None:
            self.image = snapshot_store.read_whole(self.params["image"], self.resources.checksums)
        snapshot_store.write_record(self.params["path"], self.image)

    def remember(self) -> None:
        # The same contents in another inode, or with another time of change; or a record of an older version.
        # In the result, this is record_changed without changed.
        if self.image != self.before and snapshot_store.read_record(self.params["path"]) == self.before:
            snapshot_store.write_record(self.params["path"], self.image)

    def undo(self) -> None:
        # A process that does not use our lock, for example on another host with the same file system, may
        # have written another record since.
        if snapshot_store.read_record(self.params["path"]) == self.image:
            snapshot_store.write_record(self.params["path"], self.before)

    def result(self) -> dict[str, Any]:
        path, percent = self.params["path"], self.params["warn_percent"]
        room = store_space.of_file(path)
        space = None if room is None else Space("store", room)
        if space is not None and percent is not None:
            self.warnings += space.warnings(path, percent)
        return {
            "store": {
                "path": path,
                "space": None if space is None else space.as_dict(),
                "image": None if self.image is None else _row(self.image),
                "record_changed": self.image != self.before,
            }
        }


def _row(image: snapshot_store.Image) -> dict[str, Any]:
    return {key: value for key, value in image._asdict().items() if key not in ("inode", "ctime_ns")}


def _shown(image: snapshot_store.Image | None) -> dict[str, Any]:
    # The checksum is left out: computing it for an image is not a change.
    return {} if image is None else {"image": image.path, "size": image.size, "mtime_ns": image.mtime_ns}
