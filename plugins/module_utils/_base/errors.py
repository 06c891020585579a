# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The exceptions of the collection.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Every error tells what is wrong, where, and what to do: ``WHERE: WHAT (ERRNO). WHAT TO DO``. A message with an
errno includes its symbolic name, and ``hint`` tells the user what to do. If an error lacks either, the
module's result takes it from the class, so neither is ever missing. Nothing below the module layer depends on
Ansible: only ``_module.runner`` converts these errors to ``fail_json``.
"""

from __future__ import annotations

import errno as _errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LONGEST_SHOWN = 200
# Default hints by errno. For EACCES and EPERM see hint_of.
_HINTS = {
    _errno.EMFILE: "Raise the limit of open files (ulimit -n, LimitNOFILE=)",
    _errno.ENFILE: "Raise the limit of open files of the whole host (sysctl fs.file-max)",
    _errno.ENOMEM: "Free some memory, then try again",
    _errno.ENOSPC: "Make room there, and try again",
    _errno.EDQUOT: "Make room there, and try again",
    _errno.EROFS: "The file system is mounted read-only: mount it writable, or give a path on one that is",
    _errno.EIO: "Look for the device's error in the kernel's log (dmesg)",
    _errno.ENAMETOOLONG: "A file name has at most 255 bytes and a path 4095: give a shorter one",
    _errno.ELOOP: "Too many symbolic links, or a loop of them: give the path of the file itself",
    _errno.ENOTDIR: "A part of the path is a file, not a directory: give another path",
    _errno.ENOENT: "Give a path that exists, or create it first",
    _errno.EBUSY: "End its other use first",
    _errno.EISDIR: "Give a file, not a directory",
    _errno.ENOTCONN: "The file system there does not answer: mount it again",
    _errno.ESTALE: "The file system there does not answer: mount it again",
}
_AS_ROOT = "Run the task as root: become: true"
_NOT_EVEN_ROOT = (
    "The kernel refuses this even to root: check its mount options, its attributes (lsattr) and security "
    "modules; for a device, whether it is sealed (racefree.block.device_info)"
)


def errno_name(number: int) -> str:
    """The symbolic name of an errno, such as ``EBUSY`` for 16, or the number as text if it has none."""
    return _errno.errorcode.get(number, str(number))


def hint_of(number: int | None) -> str | None:
    """The default hint for an errno, or None if there is none."""
    if number in (_errno.EACCES, _errno.EPERM):
        return _AS_ROOT if os.geteuid() else _NOT_EVEN_ROOT
    return None if number is None else _HINTS.get(number)


def shown(value: object) -> str:
    """Format a value as a user would write it, on one line and truncated if long."""
    if value is None:
        return "(none)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) >= 10**_LONGEST_SHOWN:
        return "(a number of more than 200 digits)"
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, (str, int, float)):
        import json  # needed for errors only, and slow to import

        value = json.dumps(value, ensure_ascii=False, default=str)
    text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(value))
    if len(text) > _LONGEST_SHOWN:
        return f"{text[:_LONGEST_SHOWN]}... ({len(text)} characters)"
    return text or "(empty)"


def one_value(value: object) -> object:
    """
    The value for a message, where one value is expected. A dictionary or list is not shown: it may be a
    table, with a key.
    """
    return "(not shown)" if isinstance(value, (dict, list)) else value


class BlockError(Exception):
    """
    Base class of all errors of the collection.

    ``message`` is one sentence without a full stop; ``device`` is the name, path or number concerned;
    ``errno`` is the number that the kernel returned; ``hint`` tells what to do. If an error has no errno or
    hint, the module's result uses ERRNO and HINT of the class.
    """

    ERRNO = _errno.EIO
    HINT: Any = "Look at the task's other messages and at the kernel's log (dmesg)"

    def __init__(
        self, message: str, device: object = None, errno: int | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.device = device
        self.errno = errno
        self.hint = hint

    @property
    def errno_name(self) -> str | None:
        return None if self.errno is None else errno_name(self.errno)

    def __str__(self) -> str:
        text = self.message
        if self.device is not None and str(self.device) not in text:
            text = f"{self.device}: {text}"
        name = self.errno_name
        if name is not None and name not in text:
            text = f"{text} ({name})"
        if self.hint:
            text = f"{text}. {self.hint}"
        return text

    def add_hint(self, text: str) -> None:
        """Add a sentence, without a full stop, to what the error tells to do."""
        self.hint = f"{self.hint or self.HINT}. {text}"

    def as_dict(self) -> dict[str, Any]:
        """The error as plain data, for a module's return values, beside its text as ``msg``."""
        return {
            "kind": type(self).__name__,
            "device": None if self.device is None else str(self.device),
            "errno": errno_name(self.ERRNO) if self.errno is None else self.errno_name,
            "hint": self.hint or hint_of(self.errno) or self.HINT,
        }


class InvalidValue(BlockError):
    """
    An option has an invalid value; raised before anything is changed.

    ``wrong`` completes "OPTION VALUE: ", for instance "must be 1 or more" or "does not exist".
    """

    ERRNO = _errno.EINVAL

    def __init__(
        self,
        option: str,
        value: object,
        wrong: str,
        device: object = None,
        errno: int | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(f"{option} {shown(value)}: {wrong}", device=device, errno=errno, hint=hint)
        self.option = option
        self.value = value
        self.wrong = wrong

    @property
    def HINT(self) -> str:
        return f"Correct {self.option}; nothing was changed"


class KernelError(BlockError):
    """A system call failed."""

    @classmethod
    def from_oserror(
        cls, error: OSError, tried: str, device: object = None, hint: str | None = None
    ) -> KernelError:
        """
        Make a KernelError from an OSError. ``tried`` completes "cannot ...": ``"configure the loop device"``.
        It is truncated if it contains a path that is too long for a message.
        """
        if len(tried) > 2 * _LONGEST_SHOWN:
            tried, device = shown(tried), None if device is None else shown(device)
        what = f"cannot {tried}: {error.strerror or error}"
        return cls(what, device=device, errno=error.errno, hint=hint or hint_of(error.errno))


def of_oserror(error: OSError) -> KernelError:
    """Make a KernelError from an unexpected OSError."""
    where = error.filename if error.filename is None else shown(error.filename)
    what = f"a system call failed: {error.strerror or error}"
    return KernelError(what, device=where, errno=error.errno, hint=hint_of(error.errno))


class NotSupported(BlockError):
    """The kernel, Xen or an installed library lacks a required feature."""

    ERRNO = _errno.EOPNOTSUPP
    HINT = "See what this host offers with racefree.block.device_info (features)"


class WrongDevice(BlockError):
    """The opened device is not the requested one; nothing was done to it."""

    ERRNO = _errno.ENODEV
    HINT = "List the devices with racefree.block.device_info, and name the device that is meant"


class DeviceGone(BlockError):
    """The device does not exist (any more)."""

    ERRNO = _errno.ENODEV
    HINT = "List the devices with racefree.block.device_info"


class DeviceBusy(BlockError):
    """The device, name or slot is in use; the message names the user."""

    ERRNO = _errno.EBUSY
    HINT = "End that use first, or choose another device or name"


class DeadlineExceeded(BlockError):
    """A wait timed out; the message tells what was waited for."""

    ERRNO = _errno.ETIMEDOUT
    HINT = "Find out why it takes so long (dmesg), or set a longer timeout"

    def __init__(
        self, waited_for: str, seconds: float, device: object = None, hint: str | None = None
    ) -> None:
        super().__init__(f"timed out after {seconds:g} s waiting for {waited_for}", device=device, hint=hint)
        self.waited_for = waited_for
        self.seconds = seconds


class XenStoreError(BlockError):
    """xenstored returned an error or cannot be reached."""

    HINT = "Check that this is domain 0 of a Xen host, and that xenstored runs: xenstore-ls"


class GuestError(BlockError):
    """The guest, its frontend or its backend did not do what was requested."""

    ERRNO = _errno.ESRCH
    HINT = "Look at the guest (xl list, xenstore-ls) and at its console"


class DefinitionError(BlockError):
    """A libvirt domain definition cannot be parsed, or contains something that prevents the operation."""

    ERRNO = _errno.EINVAL
    HINT = "Look at the definition (virsh dumpxml --inactive), and correct it"


class TableError(BlockError):
    """
    A device-mapper table is invalid.

    ``errors`` is a list of dictionaries with ``line`` (from 1), ``field``, ``value``, ``rule`` and ``column``
    (from 0, or None).
    """

    ERRNO = _errno.EINVAL
    HINT = "Correct the table; nothing was changed. The module racefree.block.dm_table checks one on the host"

    def __init__(self, message: str, errors: list[dict[str, Any]], device: object = None) -> None:
        super().__init__(message, device=device)
        self.errors = errors

    def as_dict(self) -> dict[str, Any]:
        result = super().as_dict()
        result["errors"] = self.errors
        return result
