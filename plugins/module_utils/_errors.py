# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The one family of exceptions of the collection.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Every error says what was tried and on which device; the message of an errno carries the errno's name, and
``hint`` says what the user can do. Nothing below the module layer knows Ansible: ``_module`` turns these
into ``fail_json`` in one place.
"""

from __future__ import annotations

import errno as _errno


def errno_name(number):
    """The symbolic name of an errno, ``EBUSY`` for 16; the number as text when it has none."""
    return _errno.errorcode.get(number, str(number))


class BlockError(Exception):
    """
    Base of all errors of the collection.

    ``message`` is one sentence without a full stop; ``device`` is the name, path or number concerned;
    ``errno`` is the number the kernel answered; ``hint`` says what to do.
    """

    def __init__(self, message, device=None, errno=None, hint=None):
        super().__init__(message)
        self.message = message
        self.device = device
        self.errno = errno
        self.hint = hint

    @property
    def errno_name(self):
        return None if self.errno is None else errno_name(self.errno)

    def __str__(self):
        text = self.message
        if self.device is not None and str(self.device) not in text:
            text = f"{self.device}: {text}"
        if self.errno is not None and self.errno_name not in text:
            text = f"{text} ({self.errno_name})"
        if self.hint:
            text = f"{text}. {self.hint}"
        return text

    def as_dict(self):
        """The error as plain data, for a module's return values."""
        return {
            "kind": type(self).__name__,
            "message": self.message,
            "device": None if self.device is None else str(self.device),
            "errno": self.errno_name,
            "hint": self.hint,
        }


class InvalidValue(BlockError):
    """An option has a value that is not allowed; found before anything was changed."""

    def __init__(self, option, value, allowed, device=None):
        super().__init__(f"{option}: {value!r} is not allowed: {allowed}", device=device)
        self.option = option
        self.value = value
        self.allowed = allowed


class KernelError(BlockError):
    """A system call failed."""

    @classmethod
    def from_oserror(cls, error, tried, device=None, hint=None):
        """``tried`` completes "cannot ...": ``"configure the loop device"``."""
        return cls(f"cannot {tried}: {error.strerror or error}", device=device, errno=error.errno, hint=hint)


class NotSupported(BlockError):
    """The kernel, Xen or an installed library lacks something that is needed."""


class WrongDevice(BlockError):
    """What was opened is not the device that was asked for; nothing was done with it."""


class DeviceGone(BlockError):
    """There is no such device (any more)."""


class DeviceBusy(BlockError):
    """The device, name or slot is in use by something else, which the message names."""


class DeadlineExceeded(BlockError):
    """A wait reached its time limit; the message says what it waited for."""

    def __init__(self, waited_for, seconds, device=None, hint=None):
        super().__init__(f"waited {seconds:g} s for {waited_for}, in vain", device=device, hint=hint)
        self.waited_for = waited_for
        self.seconds = seconds


class XenStoreError(BlockError):
    """xenstored answered with an error, or cannot be reached."""


class GuestError(BlockError):
    """The guest, its frontend or its backend did not do what was asked."""


class DefinitionError(BlockError):
    """A libvirt domain definition cannot be read, or holds something that stands in the way."""


class TableError(BlockError):
    """
    A device-mapper table is not valid.

    ``errors`` is a list of dictionaries: ``line`` (from 1), ``field``, ``value``, ``rule``, ``column`` (from 0, or None).
    """

    def __init__(self, message, errors, device=None):
        super().__init__(message, device=device)
        self.errors = errors

    def as_dict(self):
        result = super().as_dict()
        result["errors"] = self.errors
        return result
