# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What ``unused_storage`` does: remove files that were guests' disks, if nobody uses them, and refuse thin
volumes that somebody else names.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from typing import Any

from .._base import files, gone
from .._base import locks as _locks
from .._base.deadline import Deadline
from .._base.errors import DeviceBusy, InvalidValue, KernelError, WrongDevice
from .._boot_devices import config as _boot
from .._libvirt import connection
from .._libvirt import mentions as _libvirt
from .._source import file_users, named_storage, spec
from .._source.named_storage import Mention, Volume, plain
from .._source.resources import Resources
from .._swap import config as _swap
from .._xl import mentions as _xl
from .._xl.disk_text import key_of
from .item import Identities, Item, Params, Plan, check_seconds

ARGUMENTS = {
    "files": {"type": "list", "elements": "path"},
    "pool": {"type": "raw"},
    "volumes": {"type": "list", "elements": "int"},
    "going": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "domain": {"type": "str", "required": True},
            "vdev": {"type": "str", "required": True},
        },
    },
    "live": {"type": "bool", "default": False},
    "uri": {"type": "str"},
    "timeout": {"type": "int", "default": 60},
}
_HINT = (
    "Nothing was removed. End that use, or remove the disk there. To keep the storage, set remove_file=false "
    "or remove_volume=false in the role guest_disks"
)
# A path that cannot lead to a file.
_NO_FILE = (*gone.PATH, errno.ENAMETOOLONG, errno.ELOOP)
# st_dev and st_ino.
_File = tuple[int, int]


class UnusedStorageItem(Item):
    ARGUMENTS = ARGUMENTS
    CONSTRAINTS = {"required_one_of": [("files", "pool")], "required_by": {"pool": ("volumes",)}}

    def __init__(self, params: Params, resources: Resources) -> None:
        super().__init__(params, resources)
        # The paths that lead to something: what a name is (a link itself), and the file that it leads to.
        self.names: dict[str, _File] = {}
        self.there: dict[str, _File | None] = {}
        self.removed: list[str] = []
        self.paths: list[str] = params["files"] or []

    def key(self) -> tuple[str, Any]:
        return "files", ", ".join(self.paths) or None

    def title(self) -> str:
        return str(self.key()[1] or "the volumes")

    def identities(self) -> Identities:
        return {}

    def check(self) -> None:
        for path in self.paths:
            files.check_path(path, "files", "absolute paths of files")
        if self.params["pool"] is not None:
            spec.parse(self.params["pool"], option="pool")
        check_seconds(self.params, "timeout", 1)

    def locks(self) -> list[_locks.Lock]:
        # Whoever makes a loop device of this collection over a file takes the same lock.
        return [lock for path in self.paths for lock in _locks.of_file(path)]

    def plan(self) -> Plan:
        for path in self.paths:
            name = _status_of(path, follow=False)
            if name is None:
                continue
            if not stat.S_ISREG(name.st_mode) and not stat.S_ISLNK(name.st_mode):
                kind = files.kind_of_file(name.st_mode)
                raise InvalidValue("files", path, f"is a {kind}, not a file, so remove_file cannot remove it")
            target = _status_of(path)
            self.names[path] = (name.st_dev, name.st_ino)
            self.there[path] = None if target is None else (target.st_dev, target.st_ino)
        if self.names or self.params["pool"] is not None:
            self._refuse_named()
        # A disk that will be detached has its file until then.
        if self.names and not (self.check_mode and self.params["live"] and self.params["going"]):
            self._refuse_opened()
        return Plan(bool(self.names), {"files": list(self.names)} if self.names else {}, {})

    def apply(self) -> None:
        """All was looked at: what is left is the step that cannot be rolled back."""

    def finish(self) -> None:
        for path, identity in self.names.items():
            now = _status_of(path, follow=False)
            if now is None:
                continue
            if (now.st_dev, now.st_ino) != identity:
                raise WrongDevice(
                    "another file has this name since it was looked at",
                    device=path,
                    hint="It was not removed. Run the task again",
                )
            try:
                os.unlink(path)
            except OSError as error:
                raise KernelError.from_oserror(error, "remove the file", device=path) from error
            self.removed.append(path)

    def is_removal(self) -> bool:
        return True

    def remains(self) -> list[str]:
        return [f"{path} is removed" for path in self.removed]

    def result(self) -> dict[str, Any]:
        return {"files": list(self.names)}

    def _refuse_opened(self) -> None:
        users = file_users.find(self.resources, {file for file in self.there.values() if file is not None})
        for path, file in self.there.items():
            if file in users:
                raise DeviceBusy(f"it is in use by {users[file]}", device=path, hint=_HINT)

    def _refuse_named(self) -> None:
        volumes: dict[Volume, str] = {}
        if self.params["pool"] is not None:
            pool = spec.parse(self.params["pool"])
            for number in self.params["volumes"]:
                for volume in named_storage.volume_of(pool, number):
                    volumes[volume] = f"the volume {number} of {volume[0]}"
        texts = {plain(path): path for path in self.names}
        inodes = {file: path for path, file in self.there.items() if file is not None}
        for mention in self._mentions():
            for volume in mention.volumes:
                if volume in volumes:
                    raise DeviceBusy(f"{mention.who} names it", device=volumes[volume], hint=_HINT)
            for other in mention.files:
                path = texts.get(plain(other)) or self._same_file(other, inodes)
                if path is not None:
                    also = "" if plain(path) == plain(other) else f", as {other}"
                    raise DeviceBusy(f"{mention.who} names it{also}", device=path, hint=_HINT)

    @staticmethod
    def _same_file(path: str, inodes: dict[_File, str]) -> str | None:
        if not inodes or "\0" in path:
            return None
        # Not every text is a path: a target of xl can be for a script.
        found = _status_of(path, none=_NO_FILE)
        return None if found is None else inodes.get((found.st_dev, found.st_ino))

    def _mentions(self) -> Iterator[Mention]:
        """What everybody names, but for the disks that are going. Outside check mode they must be gone."""
        rows = self.params["going"] if self.check_mode else []
        going = {(row["domain"], key_of(row["vdev"])) for row in rows}
        # As libvirt finds a guest by any spelling of its UUID.
        going |= {(_plain_uuid(domain), key) for domain, key in going}
        for disk, mention in _xl.of_recipes():
            # A guest's name can contain " of ", a vdev cannot.
            vdev, dummy, guest = disk.partition(" of ")
            if (guest, key_of(vdev)) not in going:
                yield mention
        for guest, vdev, mention in _xl.of_configurations():
            if (guest, key_of(vdev)) not in going:
                yield mention
        yield from _of_host()
        if self.params["uri"] is None:
            return
        for definition in connection.read_all(self.params["uri"], Deadline(self.params["timeout"])):
            for target, is_live, mention in _libvirt.of_definition(definition):
                names = definition.name, _plain_uuid(definition.uuid)
                is_going = any((name, key_of(target)) in going for name in names)
                if not is_going or (is_live and not self.params["live"]):
                    yield mention


def _of_host() -> Iterator[Mention]:
    """What the host makes for itself at each boot. It may be stopped, or have failed, until then."""
    boot = _boot.read() if gone.exists(_boot.PATH) else None
    if boot is not None:
        for error in boot.wrong.values():
            raise error
        for entry in boot.entries:
            yield Mention(f"the device {entry.name} in {_boot.PATH}", *named_storage.of_source(entry.source))
    for name in _swap.names():
        source = _swap.read(name).parsed()
        yield Mention(f"the encrypted swap {name}", *named_storage.of_source(source))


def _plain_uuid(text: str) -> str:
    """A UUID for comparison. It is not the name of a domain."""
    return "uuid:" + text.replace("-", "").lower()


def _status_of(path: str, follow: bool = True, none: tuple[int, ...] = gone.PATH) -> os.stat_result | None:
    """None if there is no such path, which the errnos ``none`` say; KernelError if that cannot be seen."""
    try:
        return os.stat(path, follow_symlinks=follow)
    except OSError as error:
        if error.errno in none:
            return None
        raise gone.not_seen(error, path) from error
