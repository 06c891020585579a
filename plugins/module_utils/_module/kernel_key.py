# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What ``kernel_key`` does with one key.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A logon key cannot be read. A second key of type user, the marker, records which payload it has: a random
salt, the HMAC of the payload with this salt, and the serial number of the key. Only root can read the marker,
and a random key as used by dm-crypt cannot be guessed from it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import struct
from typing import Any

from .._base import locks as _locks
from .._base.errors import InvalidValue, KernelError
from .._kernel import keyring
from .._source.resources import Resources
from .item import Item, Params, Plan, known

ARGUMENTS = {
    "description": {"type": "str", "required": True},
    "type": {"type": "str", "choices": ["logon", "user"], "default": "logon"},
    "payload": {"type": "str", "no_log": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}
_DESCRIPTION = re.compile(r"[!-~]+\Z")
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})+\Z")
# The kernel truncates longer descriptions of keys (KEY_MAX_DESC_SIZE in include/linux/key.h), and the
# marker's description has a prefix.
_LONGEST = 4000
_SALT, _SERIAL = 32, struct.Struct("<i")
_DIGEST = hashlib.sha256().digest_size


class KeyItem(Item):
    ARGUMENTS = ARGUMENTS
    CONSTRAINTS = {"required_if": [("state", "present", ("payload",))]}

    def __init__(self, params: Params, resources: Resources) -> None:
        super().__init__(params, resources)
        self.payload: bytes | None = None
        self.serial: int | None = None
        self.was_touched = False

    def key(self) -> tuple[str, Any]:
        return "description", (self.params["type"], self.params["description"])

    def title(self) -> str:
        return f"{self.params['type']}:{self.params['description']}"

    def check(self) -> None:
        text = self.params["description"]
        if not _DESCRIPTION.match(text) or len(text) > _LONGEST:
            raise InvalidValue(
                "description",
                text,
                f"must be up to {_LONGEST} printable ASCII characters without spaces, because tables refer "
                "to the key by it",
            )
        if self.params["type"] == "logon" and not text.find(":") > 0:
            raise InvalidValue(
                "description", text, "must be PREFIX:NAME: the kernel requires a prefix for logon keys"
            )
        if self.params["state"] == "present":
            payload = (self.params["payload"] or "").strip()
            if not _HEX.match(payload) or len(payload) > 2 * keyring.MOST_BYTES:
                raise InvalidValue(
                    "payload",
                    "(not shown)",
                    f"must be an even number of hexadecimal digits, for up to {keyring.MOST_BYTES} bytes; "
                    "put it in quotes in YAML",
                )
            self.payload = bytes.fromhex(payload)

    def locks(self) -> list[_locks.Lock]:
        return [
            _locks.Lock(f"key {self.params['type']} {self.params['description']}", f"the key {self.title()}")
        ]

    def plan(self) -> Plan:
        keyring.reach()
        kind = self.params["type"]
        self.serial = keyring.find(kind, self.params["description"])
        if self.params["state"] == "absent":
            return Plan(
                self.serial is not None or self._marker() is not None,
                self._shown(self.serial is not None),
                {},
            )
        is_right = self.serial is not None and self._is_right()
        before = self._shown(self.serial is not None)
        # The difference is not shown, only that there is one.
        after = dict(self._shown(True), payload="as wanted")
        return Plan(
            not is_right,
            dict(
                before, payload="as wanted" if is_right else "another, or one that was added by somebody else"
            )
            if before
            else {},
            after,
        )

    def apply(self) -> None:
        kind, text = self.params["type"], self.params["description"]
        marker = self._marker()
        if marker is not None:
            # Remove the marker first, so that it never describes a payload that the key no longer has.
            keyring.remove(marker)
            self.was_touched = True
        if self.params["state"] == "absent":
            if self.serial is not None:
                keyring.remove(self.serial)
                self.was_touched = True
            return
        self.serial = keyring.add(kind, text, known(self.payload))
        self.was_touched = True
        salt = secrets.token_bytes(_SALT)
        keyring.add(
            "user", self._marker_name(), salt + _digest(salt, known(self.payload)) + _SERIAL.pack(self.serial)
        )

    def is_removal(self) -> bool:
        # The previous payload cannot be read, and so cannot be restored.
        return True

    def remains(self) -> list[str]:
        return ["the key or its record was replaced or removed"] if self.was_touched else []

    def result(self) -> dict[str, Any]:
        if self.params["state"] == "absent":
            return {"key": None}
        kind, text = self.params["type"], self.params["description"]
        return {
            "key": {
                "type": kind,
                "description": text,
                "serial": self.serial,
                "size": len(known(self.payload)),
                "table_key": f":{len(known(self.payload))}:{kind}:{text}",
            }
        }

    def _marker_name(self) -> str:
        return f"racefree.block:{self.params['type']}:{self.params['description']}"

    def _marker(self) -> int | None:
        return keyring.find("user", self._marker_name())

    def _is_right(self) -> bool:
        marker = self._marker()
        if marker is None:
            return False
        try:
            told = keyring.read(marker)
        except KernelError as error:
            if error.errno in keyring.NOT_THERE:
                return False
            raise
        if len(told) != _SALT + _DIGEST + _SERIAL.size:
            return False
        salt, digest = told[:_SALT], told[_SALT : _SALT + _DIGEST]
        return (
            hmac.compare_digest(digest, _digest(salt, known(self.payload)))
            and _SERIAL.unpack(told[_SALT + _DIGEST :])[0] == self.serial
        )

    def _shown(self, is_there: bool) -> dict[str, Any]:
        return {"type": self.params["type"], "description": self.params["description"]} if is_there else {}


def _digest(salt: bytes, payload: bytes) -> bytes:
    return hmac.new(salt, payload, hashlib.sha256).digest()
