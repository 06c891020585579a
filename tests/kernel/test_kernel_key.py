# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""kernel_key and crypt targets that name its keys, on a real kernel."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys

import pytest
from conftest import Failed, predict_and_run, read_device, refused, run_module, wait_until

SECTORS = 2048
LOADS = """
import os, sys
sys.path.insert(0, os.environ.get("RACEFREE_SITE", "/root/site"))
from ansible_collections.racefree.block.plugins.module_utils._dm import control as _dm_ioctl
from ansible_collections.racefree.block.plugins.module_utils._dm import keys as _dm_keys
from ansible_collections.racefree.block.plugins.module_utils._dm import names as _dm_name
from ansible_collections.racefree.block.plugins.module_utils._kernel import keyring as _keyring
with _dm_ioctl.Control() as control:
    address = _dm_ioctl.by_name(_dm_name.making_name())
    control.create(address.name)
    try:
        targets = ((0, 8, b"crypt", sys.argv[1].encode()),)
        with _dm_keys.reachable(targets):
            control.load(address, targets)
        print("loaded")
    finally:
        control.remove(address)
"""


@pytest.fixture
def key():
    """A function that returns options of kernel_key with this payload, or a new one."""
    name = f"test:{secrets.token_hex(8)}"
    yield lambda payload=None, **more: dict(
        {"description": name, "payload": payload or secrets.token_hex(32)}, **more
    )
    for kind in ("logon", "user"):
        run_module("kernel_key", description=name, type=kind, state="absent")


def in_keyring(text):
    with open("/proc/keys", encoding="utf-8") as file:
        return [line for line in file if text in line]


@pytest.mark.parametrize("kind", ["logon", "user"])
def test_a_key_is_added_changed_and_removed(key, kind):
    one, two = key(type=kind), key(type=kind)
    name = one["description"]
    done = predict_and_run("kernel_key", **one)
    assert done["key"]["table_key"] == f":32:{kind}:{name}" and done["key"]["serial"] > 0
    assert done["diff"]["before"] == {} and len(in_keyring(name)) == 2
    changed = predict_and_run("kernel_key", **two)
    assert changed["key"]["serial"] == done["key"]["serial"]
    assert one["payload"] not in json.dumps([done, changed]) and two["payload"] not in json.dumps(
        [done, changed]
    )
    invocation = run_module("kernel_key", invocation=True, **two)
    assert two["payload"] not in json.dumps(invocation)
    predict_and_run("kernel_key", description=name, type=kind, state="absent")
    # The kernel removes unreferenced keys later.
    wait_until(lambda: not in_keyring(name))


def test_a_key_that_somebody_else_added(key):
    """Its payload cannot be read."""
    options = key()
    from ansible_collections.racefree.block.plugins.module_utils._kernel import keyring

    keyring.reach()
    keyring.add("logon", options["description"], bytes.fromhex(options["payload"]))
    assert predict_and_run("kernel_key", **options)["changed"]
    # Removed and added again, so the marker belongs to another key.
    keyring.remove(keyring.find("logon", options["description"]))
    keyring.add("logon", options["description"], b"other" * 8)
    assert predict_and_run("kernel_key", **options)["changed"]


def test_refused(key):
    refused("kernel_key", "description", "PREFIX:NAME", **key(description="plain"))
    refused("kernel_key", "description", "spaces", **key(description="a:b c"))
    for payload in ("xyz", "abc", "0"):
        result = refused("kernel_key", "payload", "(not shown)", "hexadecimal", **key(payload=payload))
        assert payload not in result["msg"]
    with pytest.raises(Failed, match="payload"):
        run_module("kernel_key", description="a:b")


def test_a_device_over_its_own_key_only(key, name, image, cleanup):
    options, path = key(), image("disk.raw")
    cleanup(loop=path)
    cleanup(dm=name)
    table = [
        {
            "start": 0,
            "length": SECTORS,
            "target": "crypt",
            "cipher": "aes-xts-plain64",
            "key": f":32:logon:{options['description']}",
            "iv_offset": 0,
            "device": {"file": path},
            "offset": 0,
        }
    ]
    with pytest.raises(Failed) as caught:
        run_module("dm_device", name=name, table=table)
    error = caught.value.result["error"]
    assert (
        options["description"] in caught.value.result["msg"]
        and "kernel_key" in error["hint"]
        and error["errno"] == "ENOKEY"
    )
    run_module("kernel_key", **options)
    made = run_module("dm_device", name=name, table=table)["device"]
    with open(made["path"], "r+b", buffering=0) as disk:
        disk.write(b"secret" * 1024)
        os.fsync(disk.fileno())
    with open(path, "rb") as file:
        assert b"secret" not in file.read()
    run_module("dm_device", name=name, state="absent")
    run_module("kernel_key", **dict(options, payload=secrets.token_hex(32)))
    made = run_module("dm_device", name=name, table=table)["device"]
    assert read_device(made["path"], 0, 6) != b"secret"
    run_module("dm_device", name=name, state="absent")
    run_module("kernel_key", **options)
    made = run_module("dm_device", name=name, table=table)["device"]
    assert read_device(made["path"], 0, 6) == b"secret"


# As in a service, whose session keyring has no link to root's user keyring.
IN_A_SESSION = """
import json, sys
from conftest import Failed, run_module
try:
    print(json.dumps(run_module("dm_device", **json.loads(sys.argv[1]))))
except Failed as failed:
    print(json.dumps(failed.result))
"""


def in_a_session(**arguments):
    """The result of dm_device in a process with a session keyring of its own."""
    done = subprocess.run(
        ["keyctl", "session", "-", sys.executable, "-B", "-c", IN_A_SESSION, json.dumps(arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=os.path.dirname(__file__),
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def does_not_start(key, name, image, cleanup):
    """
    ``(options of a device over its key, table for it that does not start)``: the kernel refuses to take over
    the store of a live snapshot only at resume, when the old table is gone already.
    """
    files = [image(f"{word}.raw") for word in ("disk", "origin", "store")]
    for path in files:
        cleanup(loop=path)
    cleanup(dm=name)
    cleanup(dm=f"{name}-snapshot")
    options = key()
    run_module("kernel_key", **options)
    _device, origin, store = (
        f"diskseq:{run_module('loop_device', backing_file=path)['device']['diskseq']}" for path in files
    )
    snapshot = f"0 {SECTORS} snapshot {origin} {store} P 8"
    run_module("dm_device", name=f"{name}-snapshot", table=snapshot)
    words = f"crypt aes-xts-plain64 :32:logon:{options['description']} 0 {_device} 0"
    return {"name": name, "table": f"0 {SECTORS} {words}"}, snapshot.replace("snapshot", "snapshot-merge")


def test_the_old_table_gets_its_key_again_if_the_new_one_does_not_start(does_not_start):
    options, merge = does_not_start
    made = in_a_session(**options)["device"]
    failed = in_a_session(**dict(options, table=merge))
    assert "The old table is live again" in failed["msg"] and failed["changed"] is False
    after = run_module("device_info", diskseq=made["diskseq"], features=False)["devices"][0]
    assert after["table"] == made["table"] and not after["suspended"]


def test_an_old_table_whose_key_is_gone_cannot_be_restored(key, does_not_start):
    """The result tells that the device has changed, and how to repair it."""
    options, merge = does_not_start
    made = run_module("dm_device", **options)["device"]
    run_module("kernel_key", description=key()["description"], state="absent")
    with pytest.raises(Failed, match="could not be restored.*ENOKEY.*suspended with the new table") as caught:
        run_module("dm_device", **dict(options, table=merge))
    result = caught.value.result
    assert result["changed"] is True and "suspended with the new table" in str(result["warnings"])
    after = run_module("device_info", diskseq=made["diskseq"], features=False)["devices"][0]
    assert after["suspended"] and "snapshot-merge" in after["table"][0]
    run_module("kernel_key", **key())
    repaired = run_module("dm_device", **options)["device"]
    assert repaired["table"] == made["table"] and not repaired["suspended"]


@pytest.mark.systemd
@pytest.mark.gate("bookworm")
def test_from_a_service_that_was_started_by_the_init_system(key, image):
    """As libvirtd, and therefore the hook: their session keyring has no link to root's user keyring."""
    options, path = key(), image("disk.raw")
    run_module("kernel_key", **options)
    loop = subprocess.run(
        ["losetup", "--show", "-f", path], capture_output=True, text=True, check=True
    ).stdout.strip()
    device = os.stat(loop).st_rdev
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        params = f"aes-xts-plain64 :32:logon:{options['description']} 0 {number} 0"
        done = run_as_service(sys.executable, "-c", LOADS, params)
        assert done.stdout == "loaded\n", done.stderr
    finally:
        subprocess.run(["losetup", "-d", loop], check=True)


def run_as_service(*command):
    """
    Have systemd run the command with a session keyring of its own. On an emulated host whose machine is busy,
    systemd may not answer within its limit of 90 s.
    """
    words = ["systemd-run", "--quiet", "--wait", "--pipe", "-p", "KeyringMode=private", *command]
    for _try in range(3):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if "Connection timed out" not in done.stderr:
            break
        print(done.stderr)
    return done
