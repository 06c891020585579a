# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What ``golden_image`` does: convert an image of another format to a raw golden image, once.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import errno
import os
import syslog
from typing import Any

from .._base import gone
from .._base import locks as _locks
from .._base.deadline import Deadline
from .._base.errors import DeviceBusy, InvalidValue, KernelError, WrongDevice
from .._base.values import bytes_or_0
from .._image import golden, qemu_img
from .._image.chain import FORMATS, Chain, State
from .._image.golden import File, Golden
from .._source.resources import Resources
from .item import Identities, Item, Params, Plan, check_seconds, known

ARGUMENTS = {
    "path": {"type": "path", "required": True},
    "image": {"type": "path", "required": True},
    "format": {"type": "str", "choices": list(FORMATS), "required": True},
    "backing": {"type": "bool", "default": False},
    "timeout": {"type": "int", "default": 3600},
    "memory": {"type": "str", "default": "1G"},
}
_LEAST_MEMORY, _MOST_MEMORY = 128 << 20, 1 << 46
# Percents between two lines in the log.
_STEP = 10


class GoldenItem(Item):
    ARGUMENTS = ARGUMENTS

    def __init__(self, params: Params, resources: Resources) -> None:
        super().__init__(params, resources)
        # Another run may be converting the same image.
        self.LOCK_SECONDS = params["timeout"] + 60
        self.before: Golden | None = None
        self.after: Golden | None = None
        self.there: File | None = None
        self.left: list[str] = []
        self.chain: Chain | None = None
        self._pending: golden.Pending | None = None
        self._new: golden.New | None = None
        self._updated = False

    def key(self) -> tuple[str, Any]:
        return "path", self.params["path"]

    def title(self) -> str:
        path: str = self.params["path"]
        return os.path.normpath(path)

    def identities(self) -> Identities:
        return {("path", self.title()): ""}

    def check(self) -> None:
        params = self.params
        golden.check_path(params["path"])
        check_seconds(params, "timeout", 1)
        memory = bytes_or_0(params["memory"], "memory")
        if not _LEAST_MEMORY <= memory <= _MOST_MEMORY:
            raise InvalidValue("memory", params["memory"], "must be from 128M to 64T")
        if os.path.normpath(params["path"]) == os.path.normpath(params["image"]):
            raise InvalidValue("image", params["image"], "must not be the same file as path")

    def locks(self) -> list[_locks.Lock]:
        path = self.title()
        return _locks.of_name("golden image", path, f"the golden image {path}")

    def plan(self) -> Plan:
        path = self.title()
        if not gone.exists(os.path.dirname(path)):
            raise InvalidValue("path", path, "must be in a directory that exists")
        self.there = golden.look(path)
        self.before = self._recorded(path)
        self.left = golden.unfinished(path)
        own = None if self.there is None else self._own(path)
        if self.there is None or self._image_exists():
            self._open()
        left = {"unfinished": self.left} if self.left else {}
        if own is None:
            size = known(self.chain).size
            wanted = {"path": path, "size": size, "image": self.params["image"]}
            return Plan(True, left, dict(wanted, format=self.params["format"]))
        self.after = own if self.chain is None else self._compared(path, own)
        return Plan(
            bool(self.left) or self._is_to_update(),
            dict(left, **_shown(path, self.before)),
            _shown(path, self.after),
        )

    def _recorded(self, path: str) -> Golden | None:
        """What is recorded, also if a run of this host was killed before the record was in its place."""
        # Looked for first, because it becomes the record.
        pending = None if self.there is None else golden.pending(path)
        found = golden.read_record(path)
        if pending is None or (found is not None and found.looks_like(known(self.there))):
            return found
        if not pending.is_own:
            raise DeviceBusy(
                "another host has made it, and has not recorded yet what it was made from, in "
                f"{pending.record}",
                device=path,
                hint="Run the task again when that host is done. If its run was killed, run the task on that "
                f"host first; if there is no such host any more, rename that file to {path}{golden.RECORD}",
            )
        self._pending = pending
        return pending.golden

    def _own(self, path: str) -> Golden:
        """
        What is recorded for the file, with what an older version did not record. WrongDevice for a file that
        this module did not make, or that was changed or replaced since.
        """
        before = self.before
        if before is None:
            raise WrongDevice(
                f"it exists, and what it was made from is not known: there is no {path}{golden.RECORD}",
                device=path,
                hint="If it is a raw image, use it as it is, without this module. Otherwise, give another "
                "path",
            )
        there, sha256 = known(self.there), before.sha256
        if before.is_untouched(there):
            return before
        if before.looks_like(there):
            # It may be a copy, or only have got another link or mode. Then its contents are still the same.
            read = golden.read_whole(path, Deadline(self.params["timeout"]))
            if read is None:
                raise DeviceBusy("it was removed meanwhile", device=path, hint="Run the task again")
            there, sha256 = read
        if not before.looks_like(there) or before.sha256 not in (None, sha256):
            raise WrongDevice(
                "it was written to after it was made, or replaced, so guests' snapshots no longer fit it",
                device=path,
                hint="Give another path for a new golden image, and keep this file while guests use it",
            )
        return before._replace(sha256=sha256, inode=there.inode, ctime_ns=there.ctime_ns)

    def _is_to_update(self) -> bool:
        """Whether it was made from other files than those that are recorded."""
        return known(self.after).made_from != known(self.before).made_from

    def _image_exists(self) -> bool:
        """
        Whether the image is still there. It may be removed after it was converted. KernelError if this
        cannot be known.
        """
        if gone.exists(self.params["image"]):
            return True
        first, params = known(self.before).made_from[0], self.params
        if (first.path, first.format) != (params["image"], params["format"]):
            raise InvalidValue("image", params["image"], "does not exist")
        return False

    def _open(self) -> None:
        params = self.params
        qemu_img.program()
        chain = Chain(params["image"], params["format"], params["backing"])
        self.chain = self.resources.enter_context(chain)

    def _compared(self, path: str, own: Golden) -> Golden:
        """
        What is to be recorded for the image as it is now. WrongDevice if it is another one than the one that
        was converted.
        """
        before, chain = known(self.before), known(self.chain)
        now = chain.states()
        if len(now) == len(before.made_from) and all(
            old.is_untouched(new) for old, new in zip(before.made_from, now)
        ):
            return own
        now = chain.read_whole(Deadline(self.params["timeout"]))
        if [_content(row) for row in now] != [_content(row) for row in before.made_from]:
            was, new = before.made_from[0], now[0]
            raise WrongDevice(
                f"it was made from another image: {_of(was)}, and {_of(new)} was asked for",
                device=path,
                hint="It was left unchanged, because guests' snapshots may need it. Give another path for "
                f"the new one, or remove it and {path}{golden.RECORD} first if no guest uses it",
            )
        return own._replace(made_from=tuple(now))

    def apply(self) -> None:
        path = self.title()
        if self._pending is not None:
            golden.put_record(path, self._pending.record)
        golden.remove_unfinished(path)
        if self.there is None:
            self._convert(path)
        elif self._is_to_update():
            self._update(path)

    def _update(self, path: str) -> None:
        after = golden.as_it_is(path, known(self.after))
        if after is None or golden.read_record(path) != self.before:
            raise DeviceBusy(
                "another host has changed it, or its record, meanwhile",
                device=path,
                errno=errno.EAGAIN,
                hint="Nothing was replaced. Run the task again",
            )
        self.after, self._updated = after, True
        golden.write_record(path, after)

    def _convert(self, path: str) -> None:
        chain, params = known(self.chain), self.params
        limit = Deadline(params["timeout"])
        limits = qemu_img.Limits(bytes_or_0(params["memory"], "memory"), limit)
        progress = _Progress(params["image"], path)
        size = qemu_img.virtual_size(chain, limits)
        if size != chain.size:
            raise KernelError(
                f"its header says that its disk has {chain.size} bytes, and qemu-img says {size}",
                device=params["image"],
                hint="Repair it (qemu-img check). Nothing was converted",
            )
        made_from = chain.read_whole(limit)
        new = golden.New(path)
        try:
            qemu_img.convert(chain, new.fd, limits, progress.told)
            chain.check_unchanged(made_from)
            made, sha256 = new.finish(limit)
            if made.size != size:
                raise KernelError(f"the converted image has {made.size} bytes instead of {size}", device=path)
            self.after = Golden(size, made.mtime_ns, tuple(made_from), sha256, made.inode)
            self._new = new
            new.name_it(self.after)
        finally:
            new.close()
        progress.finished()

    def remember(self) -> None:
        path, after = self.title(), known(self.after)
        recorded, now = golden.read_record(path), golden.as_it_is(path, after)
        # Unless another host has recorded something else meanwhile.
        if now is not None and recorded is not None and recorded.made_from == now.made_from:
            if recorded != now:
                golden.write_record(path, now)
            self.after = now

    def undo(self) -> None:
        if self._new is not None and self._new.is_recorded:
            golden.remove(self.title(), known(self.after), self.before)
            self._new = None
        elif self._updated:
            golden.write_record(self.title(), known(self.before))
            self._updated = False

    def remains(self) -> list[str]:
        if self._new is None or not self._new.is_named:
            return []
        return ["the image may be there already; then the next run records what it was made from"]

    def result(self) -> dict[str, Any]:
        """A size that is only predicted is returned, too: other tasks need it in check mode."""
        is_there = self.there is not None or (self._new is not None and self._new.is_named)
        image = self.after or self.before if is_there else None
        size = image.size if image is not None else self.chain.size if self.chain is not None else None
        made_from = image.made_from if image is not None else self.chain.states() if self.chain else ()
        return {
            "golden": {
                "path": self.title(),
                "exists": image is not None,
                "size": size,
                "mtime_ns": None if image is None else image.mtime_ns,
                "made_from": [_row(state) for state in made_from],
            }
        }


class _Progress:
    """Lines in the system's log, because Ansible shows nothing of a module before it has ended."""

    def __init__(self, image: str, path: str) -> None:
        self._text = f"{image} is converted to {path}"
        self._next = float(_STEP)
        syslog.openlog("racefree.block.golden_image")
        self._say("begins")

    def told(self, percent: float) -> None:
        if self._next <= percent < 100:
            self._next = percent // _STEP * _STEP + _STEP
            self._say(f"{percent:.0f} %")

    def finished(self) -> None:
        self._say("done")

    def _say(self, what: str) -> None:
        # It returns without an error where there is no daemon for the log.
        syslog.syslog(
            syslog.LOG_INFO, f"{self._text}: {what}".replace("\n", "?").encode(errors="replace").decode()
        )


def _content(state: State) -> tuple[str, str | None]:
    return state.format, state.sha256


def _of(state: State) -> str:
    return f"{state.path} ({state.format}, SHA-256 {state.sha256})"


def _row(state: State) -> dict[str, Any]:
    return {key: value for key, value in state._asdict().items() if key not in ("inode", "ctime_ns")}


def _shown(path: str, image: Golden | None) -> dict[str, Any]:
    if image is None:
        return {}
    first = image.made_from[0]
    return {"path": path, "size": image.size, "image": first.path, "format": first.format}
