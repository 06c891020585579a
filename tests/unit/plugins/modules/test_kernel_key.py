# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""kernel_key with a keyring that is a dictionary."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import json

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.racefree.block.plugins.module_utils._base.errors import KernelError
from ansible_collections.racefree.block.plugins.module_utils._kernel import keyring as _keyring
from ansible_collections.racefree.block.plugins.modules import kernel_key
from hypothesis import given
from hypothesis import strategies as st

ONE, TWO = "00" * 32, "Ab" * 32


class Keyring:
    """Keys by type and description. A logon key cannot be read."""

    def __init__(self):
        self.keys = {}
        self.serials = itertools.count(1000)
        self.changes = 0

    def find(self, kind, description):
        found = self.keys.get((kind, description))
        return None if found is None else found[0]

    def add(self, kind, description, payload):
        serial = self.find(kind, description) or next(self.serials)
        self.keys[kind, description] = (serial, payload)
        self.changes += 1
        return serial

    def read(self, serial):
        ((kind, payload),) = [
            (key[0], payload) for key, (number, payload) in self.keys.items() if number == serial
        ]
        if kind == "logon":
            raise KernelError("cannot read the key", errno=errno.EOPNOTSUPP)
        return payload

    def remove(self, serial):
        self.keys = {key: value for key, value in self.keys.items() if value[0] != serial}
        self.changes += 1


@pytest.fixture
def keyring(monkeypatch):
    fake = Keyring()
    for name in ("find", "add", "read", "remove"):
        monkeypatch.setattr(_keyring, name, getattr(fake, name))
    monkeypatch.setattr(_keyring, "reach", lambda: None)
    return fake


def run(check=False, **arguments):
    output = io.StringIO()
    arguments = dict(
        {"description": "a:b"},
        **arguments,
        _ansible_check_mode=check,
        _ansible_diff=True,
        _ansible_remote_tmp="/tmp",
    )
    with patch_module_args(arguments), contextlib.redirect_stdout(output), pytest.raises(SystemExit):
        kernel_key.main()
    text = output.getvalue().strip().splitlines()[-1]
    for secret in (ONE, TWO):
        assert secret not in text and secret.lower() not in text
    return json.loads(text)


@pytest.mark.parametrize("kind", ["logon", "user"])
def test_added_changed_and_removed(keyring, kind):
    assert run(True, type=kind, payload=ONE)["changed"] and not keyring.changes
    first = run(type=kind, payload=ONE)
    assert first["changed"] and first["key"] == {
        "type": kind,
        "description": "a:b",
        "serial": 1000,
        "size": 32,
        "table_key": f":32:{kind}:a:b",
    }
    assert keyring.keys[kind, "a:b"] == (1000, bytes(32))
    before = keyring.changes
    assert (
        not run(type=kind, payload=ONE)["changed"]
        and not run(True, type=kind, payload=ONE)["changed"]
        and keyring.changes == before
    )
    assert not run(type=kind, payload=f" {ONE} \n")["changed"]
    assert run(True, type=kind, payload=TWO)["changed"] and keyring.changes == before
    assert run(type=kind, payload=TWO)["changed"] and keyring.keys[kind, "a:b"] == (1000, bytes.fromhex(TWO))
    assert not run(type=kind, payload=TWO.lower())["changed"]
    assert run(True, type=kind, state="absent")["changed"] and keyring.keys
    assert run(type=kind, state="absent")["changed"] and not keyring.keys
    assert not run(type=kind, state="absent")["changed"]


def test_the_stored_digest_is_salted(keyring):
    run(payload=TWO)
    told = keyring.keys["user", "racefree.block:logon:a:b"][1]
    assert bytes.fromhex(TWO) not in told
    run(payload=ONE)
    run(payload=TWO)
    assert keyring.keys["user", "racefree.block:logon:a:b"][1][:64] != told[:64], "the same salt again"


@pytest.mark.parametrize(
    "change",
    [
        lambda keyring: keyring.remove(keyring.find("logon", "a:b")),
        lambda keyring: (
            keyring.remove(keyring.find("logon", "a:b")),
            keyring.add("logon", "a:b", bytes(32)),
        ),
        lambda keyring: keyring.remove(keyring.find("user", "racefree.block:logon:a:b")),
        lambda keyring: keyring.add("user", "racefree.block:logon:a:b", b""),
        lambda keyring: keyring.add("user", "racefree.block:logon:a:b", bytes(68)),
    ],
)
def test_a_key_changed_by_somebody_else(keyring, change):
    """A key whose payload cannot be verified is set again."""
    run(payload=ONE)
    change(keyring)
    assert (
        run(True, payload=ONE)["changed"] and run(payload=ONE)["changed"] and not run(payload=ONE)["changed"]
    )
    assert keyring.keys["logon", "a:b"][1] == bytes(32)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"payload": None}, ["payload"]),
        ({"payload": "abc"}, ["payload", "(not shown)"]),
        ({"payload": "zz"}, ["payload", "(not shown)"]),
        ({"payload": ""}, ["payload"]),
        ({"payload": "00" * 32768}, ["payload", "32767"]),
        ({"payload": ONE, "description": "plain"}, ["description", "PREFIX:NAME"]),
        ({"payload": ONE, "description": ":a"}, ["description", "PREFIX:NAME"]),
        ({"payload": ONE, "description": "a:b c"}, ["description", "spaces"]),
        ({"payload": ONE, "description": "a:\u00fc"}, ["description"]),
        ({"payload": ONE, "description": ""}, ["description"]),
        ({"payload": ONE, "type": "trusted"}, ["type"]),
    ],
)
def test_invalid_options_are_refused(keyring, arguments, words):
    for check in (True, False):
        result = run(check, **arguments)
        assert result["failed"] and not keyring.changes and "Traceback" not in str(result)
        for word in words:
            assert word in result["msg"], result["msg"]


@given(st.binary(min_size=1, max_size=64), st.binary(min_size=1, max_size=64))
def test_any_payload(one, two):
    with pytest.MonkeyPatch.context() as monkeypatch:
        fake = Keyring()
        for name in ("find", "add", "read", "remove"):
            monkeypatch.setattr(_keyring, name, getattr(fake, name))
        monkeypatch.setattr(_keyring, "reach", lambda: None)
        from ansible_collections.racefree.block.plugins.module_utils._module.kernel_key import KeyItem

        def changed(payload):
            item = KeyItem(
                {"description": "a:b", "type": "logon", "payload": payload.hex(), "state": "present"}, None
            )
            item.check()
            plan = item.plan()
            if plan.changed:
                item.apply()
            return plan.changed

        assert (
            changed(one)
            and not changed(one)
            and changed(two) == (one != two)
            and fake.keys["logon", "a:b"][1] == two
        )
