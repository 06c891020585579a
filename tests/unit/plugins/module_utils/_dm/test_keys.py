# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import KernelError
from ansible_collections.racefree.block.plugins.module_utils._dm import keys
from ansible_collections.racefree.block.plugins.module_utils._kernel import keyring

CRYPT = (0, 8, b"crypt", b"aes-xts-plain64 :32:logon:a:b 0 7:0 0")
CLEAR = (8, 8, b"crypt", b"aes-xts-plain64 " + b"00" * 32 + b" 0 7:0 0")
OTHERS = ((16, 8, b"zero", b""), (24, 8, b"linear", b"7:0 :32:logon:c:d"))


@pytest.fixture
def reached(monkeypatch):
    calls = []
    monkeypatch.setattr(keyring, "reach", lambda: calls.append(1))
    return calls


def test_the_keys_that_a_table_needs():
    assert keys.keys_of((CRYPT, CLEAR, *OTHERS, CRYPT)) == [":32:logon:a:b"]
    assert keys.keys_of((CLEAR, *OTHERS, (0, 8, b"crypt", b""))) == []


def test_keys_are_searched_only_if_the_table_needs_them(reached):
    with keys.reachable((CLEAR, *OTHERS)):
        assert reached == []
    with keys.reachable((CRYPT,)):
        assert reached == [1]


def test_a_keyring_that_is_refused(monkeypatch):
    """The key may be in another keyring."""

    def refuse():
        raise KernelError("cannot", errno=errno.EACCES)

    monkeypatch.setattr(keyring, "reach", refuse)
    with keys.reachable((CRYPT,)):
        pass


@pytest.mark.parametrize(
    "number, targets, words",
    [
        (errno.ENOKEY, (CRYPT,), [":32:logon:a:b", "kernel_key", "7:1"]),
        (errno.EKEYREVOKED, (CRYPT,), [":32:logon:a:b"]),
        (errno.EINVAL, (CRYPT,), ["cannot load"]),
        (errno.ENOKEY, (CLEAR,), ["cannot load"]),
    ],
)
def test_the_error_says_what_keys_are_missing(reached, number, targets, words):
    with pytest.raises(KernelError) as caught, keys.reachable(targets):
        raise KernelError("cannot load its table", device="7:1", errno=number)
    assert caught.value.errno == number
    for word in words:
        assert word in str(caught.value)
