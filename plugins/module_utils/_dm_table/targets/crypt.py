# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
``crypt CIPHER KEY IV_OFFSET DEV OFFSET [#n OPTION...]``: encryption.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Source: ``drivers/md/dm-crypt.c``.
"""

from __future__ import annotations

import re
from collections import namedtuple

from ..grammar.fields import BAD, Device, Field, Number, Secret, Sectors
from ..grammar.layout import Colon, Flag, Options
from ..grammar.limits import Limits
from ..grammar.target import Target
from ..grammar.text import HIDDEN, names_key
from .cipher import key_sizes, parse_cipher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from ..grammar.context import Facts
    from ..grammar.report import LineReport

_HEX_KEY = re.compile(r"(?:[0-9A-Fa-f]{2})+\Z")
_KEYRING = re.compile(r":([0-9]{1,5}):(logon|user|encrypted|trusted):([!-~]+)\Z")
# The maximum payload of the kernel's user and logon keys.
_KEYRING_BYTES = 32767
KEY_RULE = (
    "the key as an even number of hex digits, - for none, or :SIZE:TYPE:DESCRIPTION of a kernel key, "
    f"SIZE from 1 to {_KEYRING_BYTES} bytes, TYPE one of logon, user, encrypted, trusted"
)
_INTEGRITY_RULE = "integrity:BYTES:PROFILE, BYTES from 1 to 480, PROFILE one of aead, none"

Integrity = namedtuple("Integrity", ("tag_size", "profile"))


class _CipherField(Field):
    rule = "a cipher: CIPHER[:KEYCOUNT]-MODE-IV[:OPTIONS] or capi:SPEC-IV[:OPTIONS]"

    def read(self, word: str, path: str, report: LineReport) -> Any:
        rule = parse_cipher(word)[1]
        if rule is None and not (word.isascii() and word.isprintable() and " " not in word):
            rule = self.rule
        if rule is not None:
            report.error(path, word, rule)
            return BAD
        return word


class _KeyField(Secret):
    rule = KEY_RULE

    def read(self, word: str, path: str, report: LineReport) -> Any:
        if word == "-":
            return word
        if _HEX_KEY.match(word):
            return word.lower()
        found = _KEYRING.match(word)
        if found is None or not 1 <= int(found.group(1)) <= _KEYRING_BYTES:
            report.error(path, HIDDEN, KEY_RULE)
            return BAD
        return f":{int(found.group(1))}:{found.group(2)}:{found.group(3)}"

    def load(self, plain: Any, path: str, report: LineReport) -> Any:
        if not isinstance(plain, str):
            report.error(path, HIDDEN, KEY_RULE + "; write it in quotes")
            return BAD
        return self.read(plain, path, report)

    def redact(self, value: Any) -> Any:
        return value if names_key(value) else HIDDEN


class _IntegrityField(Field):
    rule = _INTEGRITY_RULE

    def read(self, word: str, path: str, report: LineReport) -> Any:
        size, colon, profile = word.partition(":")
        number = Number("tag_size", low=1, high=480).read(size, path, report) if colon else BAD
        if not colon or profile.lower() not in ("aead", "none"):
            report.error(path, word, self.rule)
            return BAD
        return BAD if number is BAD else Integrity(number, profile.lower())

    def load(self, plain: Any, path: str, report: LineReport) -> Any:
        if isinstance(plain, dict) and set(plain) == {"tag_size", "profile"}:
            return self.read(f"{plain['tag_size']}:{plain['profile']}", path, report)
        report.error(path, plain, "a dictionary with tag_size (1 to 480 bytes) and profile (aead or none)")
        return BAD

    def show(self, value: Any) -> Any:
        return f"{value.tag_size}:{value.profile}"

    def dump(self, value: Any) -> Any:
        return {"tag_size": value.tag_size, "profile": value.profile}


_KEY = _KeyField("key")


class Crypt(Target):
    """``iv_offset`` and ``offset`` in sectors, ``sector_size`` in bytes. ``key`` is secret."""

    TYPE = "crypt"
    SECRETS = {"key": _KEY}
    LAYOUT = (
        _CipherField("cipher"),
        _KEY,
        Number("iv_offset", high=Limits.U64, unit="sectors"),
        Device("device"),
        Sectors("offset"),
        Options(
            (
                Flag("allow_discards"),
                Flag("same_cpu_crypt"),
                Flag("high_priority"),
                Flag("submit_from_crypt_cpus"),
                Flag("no_read_workqueue"),
                Flag("no_write_workqueue"),
                Colon(_IntegrityField("integrity")),
                Colon(Number("sector_size", low=512, high=4096, power=True, unit="bytes", implied=512)),
                Flag("iv_large_sectors"),
                Colon(Number("integrity_key_size", low=1, high=Limits.U32, unit="bytes")),
            )
        ),
    )

    @classmethod
    def secret_words(cls, words: Sequence[str]) -> Iterable[tuple[int, int]]:
        return ((1, 0),) if len(words) > 1 else ()

    @property
    def key_size(self) -> int:
        """The size of the key in bytes."""
        if self.key == "-":
            return 0
        if self.key.startswith(":"):
            return int(self.key.split(":", 2)[1])
        return len(self.key) // 2

    def check(self, report: LineReport) -> None:
        cipher = parse_cipher(self.cipher)[0]
        if cipher is None:
            raise AssertionError
        sectors = (self.sector_size or 512) >> 9
        if self.length % sectors:
            report.error("length", self.length, f"a multiple of sector_size, {sectors} sectors")
        if self.iv_offset % sectors:
            report.error("iv_offset", self.iv_offset, f"a multiple of sector_size, {sectors} sectors")
        if self.integrity is not None and self.integrity.profile == "aead":
            if not cipher.api:
                report.error("cipher", self.cipher, "capi:SPEC-IV, which the integrity profile aead needs")
            if cipher.iv == "lmk":
                report.error(
                    "cipher",
                    self.cipher,
                    "an IV generator other than lmk, which the integrity profile aead excludes",
                )
        if cipher.iv in ("lmk", "tcw") and sectors != 1:
            report.error("sector_size", self.sector_size, f"512 bytes with the IV generator {cipher.iv}")
        sizes = key_sizes(cipher)
        if sizes is not None and self.key_size not in sizes:
            report.error(
                "key",
                HIDDEN,
                f"a key of {', '.join(map(str, sizes))} bytes for {self.cipher}; it has {self.key_size}",
            )

    def areas(self, facts: Facts) -> dict[str, tuple[int, int]]:
        return {"device": (self.offset, self.length)}

    def logical_block(self) -> int:
        return self.sector_size or 512

    def same_field(self, path: str, mine: Any, theirs: Any) -> bool | None:
        if path != "key" or mine.startswith(":") or theirs.startswith(":") or len(mine) != len(theirs):
            return False
        # dmsetup without --showkeys prints zeros, and so does the kernel after the message "key wipe".
        return None if not mine.strip("0") or not theirs.strip("0") else False
