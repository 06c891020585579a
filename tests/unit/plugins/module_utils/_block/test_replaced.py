# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Loop devices of files that were replaced or deleted since."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    WrongDevice,
)
from ansible_collections.racefree.block.plugins.module_utils._block import device as _device
from ansible_collections.racefree.block.plugins.module_utils._block import loop
from ansible_collections.racefree.block.plugins.module_utils._source import (
    opener,
    resources,
    spec,
)
from ansible_collections.racefree.block.plugins.modules import loop_device, loop_devices
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices

SIZE = 65536


def run(check=False, main=loop_device.main, **arguments):
    """The module's result."""
    output = io.StringIO()
    arguments = dict(arguments, _ansible_check_mode=check, _ansible_remote_tmp="/tmp")
    with patch_module_args(arguments), contextlib.redirect_stdout(output), pytest.raises(SystemExit):
        main()
    return json.loads(output.getvalue().strip().splitlines()[-1])


def test_a_replaced_file_and_the_removal_of_the_old_device_in_one_list(place):
    path, old = replaced(place)
    rows = [{"diskseq": old["diskseq"], "state": "absent"}, {"backing_file": path}]
    for check in (True, False):
        result = run(check, loop_devices.main, devices=rows)
        assert not result.get("failed") and [row["changed"] for row in result["devices"]] == [True, True], (
            result
        )
    run(backing_file=path, state="absent")


def replaced(place, **more):
    """
    The path of an image that was renamed over another one, and the row of the device that still has the old
    one.
    """
    path = loopdevices.image(place, "disk", content=b"old")
    made = run(backing_file=path, **more)["device"]
    os.rename(loopdevices.image(place, "new", content=b"new"), path)
    return path, made


@pytest.mark.parametrize("state", ["present", "absent"])
@pytest.mark.parametrize("through_a_link", [False, True])
def test_a_file_that_was_replaced(place, state, through_a_link):
    path, old = replaced(place)
    asked = path
    if through_a_link:
        asked = place + "/link"
        os.symlink(path, asked)
    for check in (True, False):
        result = run(check=check, backing_file=asked, state=state)
        assert (
            result["failed"] and not result.get("changed") and "replaced by another one" in result["msg"]
        ), result
        assert old["path"] in result["msg"] and f"diskseq={old['diskseq']}" in result["error"]["hint"]
    assert run(diskseq=old["diskseq"], state="absent")["changed"]
    if state == "absent":
        assert not run(backing_file=asked, state="absent")["changed"]
    else:
        assert run(backing_file=asked)["changed"] and run(backing_file=asked, state="absent")["gone"]


def test_a_file_that_was_replaced_under_a_source(place):
    path, old = replaced(place)
    with resources.Resources() as host, pytest.raises(WrongDevice, match=f"replaced.*{old['path']}"):
        opener.Opener(host).open(spec.parse(f"file:{path}"))
    run(diskseq=old["diskseq"], state="absent")


def test_an_old_device_that_is_removed_with_its_last_user(place):
    """That does not prevent a new device. But state=absent for the path is an error while it exists."""
    path, old = replaced(place)
    with _device.open_path(old["path"]) as device:
        assert run(diskseq=old["diskseq"], state="absent", deferred=True)["gone"] is False
        new = run(backing_file=path)
        with _device.open_path(new["device"]["path"]) as other:
            assert (
                new["changed"] and os.pread(other.fd, 3, 0) == b"new" and os.pread(device.fd, 3, 0) == b"old"
            )
        assert "replaced" in run(backing_file=path, state="absent")["msg"]
    assert loopdevices.nothing_bound(place + "/disk (deleted)")
    run(backing_file=path, state="absent")


def test_a_file_that_was_deleted(place):
    path = loopdevices.image(place, "disk")
    old = run(backing_file=path)["device"]
    os.unlink(path)
    assert "deleted while it was bound" in run(backing_file=path, state="absent")["msg"]
    assert not run(backing_file=path, offset=4096, size=512, state="absent").get("changed")
    loopdevices.image(place, "disk")
    assert "replaced by another one" in run(backing_file=path)["msg"]
    run(diskseq=old["diskseq"], state="absent")


def others_with_the_same_path(path, deleted):
    """
    A file system in another mount namespace, mounted over the directory of ``path``, and a loop device there
    on a file with that path. Returns ``(process that keeps the namespace, path of the device)``.
    """
    script = f'mount -t tmpfs none "{os.path.dirname(path)}" && truncate -s {SIZE} "{path}" || exit 1\n'
    script += f'losetup --show -f "{path}"\n'
    script += f'rm "{path}"\n' if deleted else ""
    process = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", script + "echo done; exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    device = process.stdout.readline().strip()
    assert process.stdout.readline() == "done\n"
    return process, device


@pytest.mark.parametrize("deleted", [False, True])
def test_a_device_of_another_mount_namespace(place, deleted):
    """Its file only has the same path: our file was not replaced, and the device is left unchanged."""
    path = loopdevices.image(place, "disk")
    process, theirs = others_with_the_same_path(path, deleted)
    try:
        made = run(backing_file=path)
        assert made["changed"] and theirs in str(made["warnings"]), made
        assert not run(backing_file=path)["changed"]
        gone = run(backing_file=path, state="absent")
        assert gone["changed"] and gone["gone"] and theirs in str(gone["warnings"])
        os.unlink(path)
        assert run(backing_file=path, state="absent")["gone"]
        with _device.open_path(theirs) as device:
            assert loop.info(device).sizelimit == 0, "still bound"
    finally:
        subprocess.run(["losetup", "-d", theirs], check=True, timeout=30)
        process.communicate(timeout=30)


def test_a_device_of_a_file_below_a_mount(place):
    directory = place + "/mounted"
    os.mkdir(directory)
    path = loopdevices.image(directory, "disk")
    below = run(backing_file=path)["device"]
    subprocess.run(["mount", "-t", "tmpfs", "none", directory], check=True, timeout=30)
    try:
        loopdevices.image(directory, "disk")
        made = run(backing_file=path)
        assert made["changed"] and below["path"] in str(made["warnings"]), made
        assert run(backing_file=path, state="absent")["gone"]
    finally:
        subprocess.run(["umount", "-l", directory], check=True, timeout=30)
    assert run(backing_file=path)["device"]["diskseq"] == below["diskseq"]
    assert run(backing_file=path, state="absent")["gone"]


def test_a_file_that_was_deleted_with_its_directory(place):
    os.mkdir(place + "/own")
    path = loopdevices.image(place + "/own", "disk")
    old = run(backing_file=path)["device"]
    os.unlink(path)
    os.rmdir(place + "/own")
    assert "deleted while it was bound" in run(backing_file=path, state="absent")["msg"]
    run(diskseq=old["diskseq"], state="absent")


def test_a_file_whose_name_ends_in_deleted(place):
    path, other = loopdevices.image(place, "disk"), loopdevices.image(place, "disk (deleted)")
    assert run(backing_file=other)["changed"]
    assert run(backing_file=path)["changed"]
    assert run(backing_file=path, state="absent")["changed"]
    os.unlink(path)
    assert not run(backing_file=path, state="absent")["changed"]
    assert run(backing_file=other, state="absent")["changed"]
