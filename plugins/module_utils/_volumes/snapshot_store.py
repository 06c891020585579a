# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The image that a snapshot store belongs to: a record in a file beside the store.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A persistent store (``drivers/md/dm-snap-persistent.c``) contains chunks and their locations, but does not
identify the origin. With another origin, or one that has changed, the guest would read a mixture of both
without any error. A checksum identifies the image even after it is copied, and on later boots. It is computed
once. The size, the inode number and the times of modification and change quickly show whether the image is
still the file that was read. The time of change (ctime) shows what ``touch`` hides. A link or another mode
changes it, too, so the checksum decides then.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets

from .._base.errors import InvalidValue, KernelError, WrongDevice
from .._base.files import open_regular, write_whole
from .._base.record import Record
from .._block import backing as _backing
from .._block import image_format, new_loop

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from typing import Optional

    # Device number, inode number, size, and the times of modification and change.
    Key = tuple[Optional[int], ...]

RECORD = ".image"
# SNAP_MAGIC, the first bytes of a store that has been used.
_MAGIC = (0x70416E53).to_bytes(4, "little")
_PIECE = 2**20
_MOST_BYTES = 65536


class Image(Record):
    """
    A store's image: its path, size in bytes, modification time, and SHA-256 (None: not read). ``inode`` and
    ``ctime_ns`` are None in records of older versions, which lack them.
    """

    path: str
    size: int
    mtime_ns: int
    sha256: str | None = None
    inode: int | None = None
    ctime_ns: int | None = None

    def __str__(self) -> str:
        return f"{self.path} ({self.size} bytes" + (f", SHA-256 {self.sha256})" if self.sha256 else ")")

    def is_untouched(self, now: Image) -> bool:
        """Whether ``now``, an Image without a checksum, is the same file, and nobody has changed it since."""
        return self.looks_like(now) and (self.inode, self.ctime_ns) == (now.inode, now.ctime_ns)

    def looks_like(self, now: Image) -> bool:
        """Whether ``now`` has the same path, size and modification time. Another file can have them, too."""
        return self[:3] == now[:3]

    def has_contents_of(self, other: Image | None) -> bool:
        """Whether path, size, modification time and checksum are the same, so that nothing has changed."""
        return other is not None and self[:4] == other[:4]


def is_used(path: str) -> bool:
    """Whether a store has content; False if it does not exist. InvalidValue if it is not a regular file."""
    try:
        with open(open_regular(path, "path"), "rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except FileNotFoundError:
        return False
    except OSError as error:
        raise KernelError.from_oserror(error, "read the store", device=path) from error


def look(path: str, is_raw: bool = False) -> Image:
    """
    The Image at a path as it is now, without its checksum. InvalidValue, also for an image of another format
    unless the user has said that it ``is_raw``; KernelError.
    """
    with _backing.Backing(path, read_only=True, option="image") as backing:
        if not backing.size:
            raise InvalidValue("image", path, "must be an image that is not empty")
        found = None if is_raw else new_loop.format_of(backing)
        if found is not None:
            raise InvalidValue(
                "image",
                path,
                f"is an image of the format {found}, not a raw disk image. "
                f"Convert it {image_format.way_out(found)}, or set format=raw if it is a raw disk after all",
            )
        return _now(backing)


def read_whole(path: str, known: dict[Key, str]) -> Image:
    """
    The Image at a path with its checksum. ``known`` (``Resources.checksums``) has the checksums that were
    computed before. WrongDevice if the file changes meanwhile; InvalidValue, KernelError.
    """
    with _backing.Backing(path, read_only=True, option="image") as backing:
        image = _now(backing)
        key = _key(backing, image)
        if key not in known:
            summed = hashlib.sha256()
            try:
                with open(os.dup(backing.fd), "rb", buffering=0) as file:
                    for piece in iter(lambda: file.read(_PIECE), b""):
                        summed.update(piece)
            except OSError as error:
                raise KernelError.from_oserror(error, "read the image", device=path) from error
            if _now(backing) != image:
                raise WrongDevice(
                    "it was written to while it was read",
                    device=path,
                    hint="A golden image must not change once snapshots of it exist",
                )
            known[key] = summed.hexdigest()
        return image._replace(sha256=known[key])


def learn(image: Image, known: dict[Key, str]) -> None:
    """Add the checksum of a recorded Image to ``known``, if the file is unchanged."""
    try:
        with _backing.Backing(image.path, read_only=True, option="image") as backing:
            now = _now(backing)
            if image.sha256 is not None and image.is_untouched(now):
                known.setdefault(_key(backing, now), image.sha256)
    except (InvalidValue, KernelError):
        pass


def read_record(store: str) -> Image | None:
    """The Image that is recorded for a store, or None. InvalidValue for a malformed record, KernelError."""
    path = store + RECORD
    try:
        with open(open_regular(path, "path"), "rb") as file:
            plain = json.loads(file.read(_MOST_BYTES))
        image = Image(str(plain["image"]), int(plain["size"]), int(plain["mtime_ns"]), str(plain["sha256"]))
        if plain.get("inode") is None or plain.get("ctime_ns") is None:
            return image
        return image._replace(inode=int(plain["inode"]), ctime_ns=int(plain["ctime_ns"]))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KernelError.from_oserror(error, "read which image the store is of", device=path) from error
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        wrong = f"has a record that cannot be read, {path}: {error}"
        raise InvalidValue(
            "path", store, wrong, hint="If it is not a record of this collection, move it away"
        ) from error


def write_record(store: str, image: Image | None) -> None:
    """Record an Image for a store, atomically. None removes the record."""
    path = store + RECORD
    try:
        if image is None:
            os.unlink(path)
            return
        plain = {"image" if name == "path" else name: value for name, value in image._asdict().items()}
        _exchange(path, json.dumps(plain, indent=1) + "\n")
    except OSError as error:
        raise KernelError.from_oserror(error, "record which image the store is of", device=path) from error


def _exchange(path: str, text: str) -> None:
    """
    Replace the file atomically, by a temporary file that no other run uses. On an error the old file stays.
    """
    ours = f"{path}.{hashlib.sha256(os.uname().nodename.encode()).hexdigest()[:8]}-"
    for name in os.listdir(os.path.dirname(path)):
        # Only one run of this host is here at a time, so such a file is left over from a killed run. A file
        # of another host, with a shared file system, may be in use.
        if name.startswith(os.path.basename(ours)) and name.endswith(".new"):
            os.unlink(os.path.join(os.path.dirname(path), name))
    write_whole(path, text, f"{ours}{secrets.token_hex(8)}.new", sync=True)


def _now(backing: _backing.Backing) -> Image:
    try:
        there = os.fstat(backing.fd)
    except OSError as error:
        raise KernelError.from_oserror(error, "look at the image", device=backing.path) from error
    return Image(backing.path, there.st_size, there.st_mtime_ns, None, there.st_ino, there.st_ctime_ns)


def _key(backing: _backing.Backing, image: Image) -> Key:
    return backing.device, image.inode, image.size, image.mtime_ns, image.ctime_ns
