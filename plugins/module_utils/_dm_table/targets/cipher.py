# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The cipher specification of ``crypt``.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Source: ``drivers/md/dm-crypt.c`` (crypt_ctr_cipher_old, crypt_ctr_cipher_new, crypt_ctr_ivmode).
"""

from __future__ import annotations

import re
from collections import namedtuple

IV_MODES = (
    "plain",
    "plain64",
    "plain64be",
    "essiv",
    "benbi",
    "null",
    "lmk",
    "tcw",
    "random",
    "eboiv",
    "elephant",
)
_NAME = re.compile(r"[A-Za-z0-9_.]+\Z")
_SPEC = re.compile(r"[A-Za-z0-9_.,()-]+\Z")
_KEY_COUNT = re.compile(r"[0-9]{1,9}\Z")
_SIMPLE = re.compile(r"(cbc|ecb|ctr|xts)\((aes|camellia|twofish)\)\Z")

# CRYPTO_MAX_ALG_NAME, including the NUL.
_NAME_LENGTH = 128

# Key sizes of these ciphers in bytes; xts takes two keys.
_KEY_BYTES = (16, 24, 32)
# With these IV modes the key has additional parts whose size depends on the cipher.
_KEY_WITH_EXTRAS = ("lmk", "tcw", "elephant")

# ``api``: whether it was given as ``capi:``. ``spec``: the crypto API's name. ``key_count``: number of keys
# in the key. ``iv`` and ``iv_options`` may be None.
Cipher = namedtuple("Cipher", ("api", "spec", "key_count", "iv", "iv_options"))

IV_RULE = f"an IV generator: {', '.join(IV_MODES)}"


def parse_cipher(text: str) -> tuple[Cipher | None, str | None]:
    """Parse a cipher specification: ``(Cipher, None)``, or ``(None, rule)`` if it is invalid."""
    cipher, rule = _parse_api(text[5:]) if text.startswith("capi:") else _parse_plain(text)
    if cipher is not None:
        rule = _check_iv(cipher)
    return (cipher, None) if rule is None else (None, rule)


def _parse_plain(text: str) -> tuple[Cipher | None, str | None]:
    head, separator, rest = text.partition("-")
    name, colon, count = head.partition(":")
    mode, separator, rest = rest.partition("-")
    iv, iv_colon, options = rest.partition(":")
    if not _NAME.match(name):
        return None, "CIPHER[:KEYCOUNT]-MODE-IV[:OPTIONS] or capi:SPEC-IV[:OPTIONS]"
    key_count = 1
    if colon:
        if not _KEY_COUNT.match(count) or int(count) == 0 or int(count) & (int(count) - 1):
            return None, "a key count that is a power of 2"
        key_count = int(count)
    if not mode or (mode == "plain" and not iv):
        # dm-crypt's behaviour before it had modes.
        mode, iv = "cbc", "plain"
    if not _NAME.match(mode):
        return None, "CIPHER[:KEYCOUNT]-MODE-IV[:OPTIONS], where the mode is a name"
    if mode != "ecb" and not iv:
        return None, "CIPHER-MODE-IV: only the mode ecb needs no IV"
    spec = f"{mode}({name})"
    if len(spec) >= _NAME_LENGTH:
        return None, f"made of names of fewer than {_NAME_LENGTH} characters"
    return Cipher(False, spec, key_count, iv or None, options if iv_colon else None), None


def _parse_api(text: str) -> tuple[Cipher | None, str | None]:
    spec, colon, options = text.rpartition(":")
    if not colon:
        spec = text
    name, dash, iv = spec.rpartition("-")
    if not dash:
        name = spec
        if not name.startswith("ecb("):
            return None, "capi:SPEC-IV[:OPTIONS]: only ecb needs no IV"
    if not _SPEC.match(name) or name.count("(") != name.count(")"):
        return None, "capi:SPEC-IV[:OPTIONS] with a name of the kernel's crypto API"
    if len(name) >= _NAME_LENGTH:
        return None, f"a name of fewer than {_NAME_LENGTH} characters"
    return Cipher(True, name, 1, iv if dash else None, options if colon else None), None


def _check_iv(cipher: Cipher) -> str | None:
    if cipher.iv is not None and cipher.iv not in IV_MODES:
        return IV_RULE
    if cipher.iv == "essiv" and not cipher.iv_options:
        return "essiv:HASH, such as essiv:sha256"
    return None


def key_sizes(cipher: Cipher) -> tuple[int, ...] | None:
    """The valid key sizes in bytes, or None if they are unknown here."""
    found = _SIMPLE.match(cipher.spec)
    if found is None or cipher.iv in _KEY_WITH_EXTRAS:
        return None
    factor = cipher.key_count * (2 if found.group(1) == "xts" else 1)
    return tuple(size * factor for size in _KEY_BYTES)
