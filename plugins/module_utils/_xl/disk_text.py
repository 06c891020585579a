# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The text of one disk in the configuration of an xl guest, such as ``phy:/dev/vg/web1,xvda,w``.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Pure. The language is that of xl-disk-configuration(5) and of its scanner (tools/libs/util/libxlu_disk_l.l
of Xen): parameters separated by commas, ``key=value``, flags, and up to four without a key: target, format,
vdev, access. ``target=`` takes all that follows.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .._base.errors import InvalidValue
from .._xen import vdev as _vdev

SCRIPT = "block-racefree"
RECIPE = "recipe:"
_FORMATS = ("raw", "qcow", "qcow2", "vhd", "qed", "empty")
_BACKENDS = ("phy", "tap", "qdisk", "standalone")
_ACCESS = {"r": "r", "ro": "r", "w": "w", "rw": "w", "": "w"}
_KEPT = (
    "vdev",
    "script",
    "backend",
    "colo-host",
    "colo-export",
    "active-disk",
    "hidden-disk",
)
_KEYS = (*_KEPT, "format", "devtype", "access", "backendtype", "specification", "grant_usage", "colo-port")
_FLAGS = ("direct-io-safe", "discard", "no-discard", "colo", "no-colo", "trusted", "untrusted")
# Prefixes of the old syntax. With these, there is no parameter for the format.
_PREFIXES = ("tapdisk", "tap", "tap2", "aio", "ioemu", "file", "phy")
_FORMAT_PREFIXES = ("raw", "qcow", "qcow2", "vhd")
_SCRIPT_PREFIXES = ("iscsi", "nbd", "enbd", "drbd")
_VALUES = {"backendtype": _BACKENDS, "specification": ("xen", "virtio"), "grant_usage": ("0", "1")}
_PREFIX = re.compile(r"([a-z][a-z0-9]*):")


class DiskText(NamedTuple):
    """
    What a disk's text says. ``vdev``: as written. ``access``: ``r`` or ``w``. ``device_type``: ``disk`` or
    ``cdrom``. ``format``: None if not said.
    """

    vdev: str
    target: str
    access: str = "w"
    device_type: str = "disk"
    format: str | None = None
    script: str | None = None
    backend: str | None = None

    @property
    def key(self) -> object:
        """What two disks of a guest must not have in common: the number of the vdev, or its text."""
        return key_of(self.vdev)

    @property
    def recipe(self) -> str | None:
        """The name of the recipe, or None for a disk that has none."""
        is_ours = self.script is not None and self.script.rpartition("/")[2] == SCRIPT
        return self.target[len(RECIPE) :] if is_ours and self.target.startswith(RECIPE) else None


def key_of(vdev: str) -> object:
    try:
        return _vdev.parse(vdev).number
    except InvalidValue:
        return vdev


def written(disk: DiskText) -> str:
    """The text of a disk that the collection writes."""
    cdrom = ["devtype=cdrom"] if disk.device_type == "cdrom" else []
    parts = [f"vdev={disk.vdev}", *cdrom, f"access={disk.access}", f"script={disk.script}"]
    return ",".join([*parts, f"target={disk.target}"])


def parse(text: str) -> DiskText:
    """The DiskText of a text; ValueError, with the reason, for a text that xl refuses."""
    if "\n" in text:
        raise ValueError("it has a line break")
    reader = _Reader()
    rest = text
    while True:
        rest = rest.lstrip(" \t")
        if not rest:
            return reader.result()
        rest = reader.take(rest)


class _Reader:
    """Reads one parameter after the other, as xl's scanner does."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self.access = "w"
        self.access_given = False
        self.is_cdrom = False
        self.had_prefix = False

    def take(self, rest: str) -> str:
        """Read the parameter at the beginning of ``rest``; what follows it."""
        if rest.startswith("target="):
            target = rest[len("target=") :]
            # xl strips one comma from the end.
            self._save("target", target[:-1] if target.endswith(",") else target)
            return ""
        prefix = _PREFIX.match(rest)
        if prefix is not None and self._take_prefix(prefix.group(1), rest[prefix.end() :]):
            return rest[prefix.end() :]
        word, dummy, after = rest.partition(",")
        key, equals, value = word.partition("=")
        if equals:
            self._take_key(key, value, word)
        elif word == "cdrom":
            self.is_cdrom = True
        elif word not in _FLAGS:
            self._take_positional(word)
        return after

    def result(self) -> DiskText:
        vdev, target = self.found.get("vdev"), self.found.get("target")
        if not vdev:
            raise ValueError("it has no vdev")
        if target is None and not self.is_cdrom:
            raise ValueError("it has no target")
        return DiskText(
            vdev,
            target or "",
            "r" if self.is_cdrom else self.access,
            "cdrom" if self.is_cdrom else "disk",
            self.found.get("format"),
            self.found.get("script") or None,
            self.found.get("backend") or None,
        )

    def _take_prefix(self, name: str, rest: str) -> bool:
        """Whether the name and its colon are a prefix, and not part of a parameter without a key."""
        if name in _FORMAT_PREFIXES:
            self._set_format(name)
        elif name in _SCRIPT_PREFIXES:
            self._save("script", f"block-{name}")
        elif name not in _PREFIXES:
            if rest[:1].isascii() and rest[:1].isalnum() and not rest[:1].isupper():
                return False
            raise ValueError(f"{name}: is not a prefix that xl knows")
        self.had_prefix = True
        return True

    def _take_key(self, key: str, value: str, word: str) -> None:
        if key not in _KEYS:
            raise ValueError(f"{word} is not a parameter that xl knows")
        if key == "format":
            self._set_format(value)
        elif key == "access":
            self._set_access(value)
        elif key == "devtype":
            self._set_type(value)
        elif key in _KEPT or _is_known(key, value):
            self._save(key, value)
        else:
            raise ValueError(f"{word} has a value that xl does not know")

    def _take_positional(self, word: str) -> None:
        if "target" not in self.found:
            self.found["target"] = word
        elif not self.had_prefix and "format" not in self.found:
            if self.found["target"] or not self._take_vdev_with_type(word):
                self._set_format(word)
            else:
                self.found["format"] = "empty"
        elif "vdev" not in self.found:
            if not self._take_vdev_with_type(word):
                self.found["vdev"] = word
        elif not self.access_given:
            self.access_given = True
            self._set_access(word)
        else:
            raise ValueError(f"{word} is one parameter without a key too many")

    def _take_vdev_with_type(self, word: str) -> bool:
        vdev, colon, kind = word.rpartition(":")
        if not colon:
            return False
        self._save("vdev", vdev)
        self._set_type(kind)
        return True

    def _set_type(self, value: str) -> None:
        if value not in ("cdrom", "disk"):
            raise ValueError(f"{value} is not a type of device that xl knows")
        self.is_cdrom = value == "cdrom"

    def _set_access(self, value: str) -> None:
        if value not in _ACCESS:
            raise ValueError(f"{value} is not an access that xl knows")
        self.access = _ACCESS[value]

    def _set_format(self, value: str) -> None:
        value = value or "raw"
        if value not in _FORMATS:
            raise ValueError(f"{value} is not a format that xl knows")
        if self.found.setdefault("format", value) != value:
            raise ValueError(f"it has two formats, {self.found['format']} and {value}")

    def _save(self, key: str, value: str) -> None:
        if self.found.get(key):
            raise ValueError(f"it has {key} twice")
        self.found[key] = value


def _is_known(key: str, value: str) -> bool:
    if key == "colo-port":
        return value.isascii() and value.isdigit() and int(value) != 0
    return value in _VALUES[key]
