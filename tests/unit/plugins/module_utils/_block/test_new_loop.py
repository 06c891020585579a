# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks before a loop device is created: image formats, and other devices on the same area of the file."""

from __future__ import annotations

import contextlib
import io
import json
import os
import threading

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    DeviceBusy,
    InvalidValue,
)
from ansible_collections.racefree.block.plugins.module_utils._block import backing as _backing
from ansible_collections.racefree.block.plugins.module_utils._block import device as _device
from ansible_collections.racefree.block.plugins.module_utils._block import loop_index, new_loop
from ansible_collections.racefree.block.plugins.module_utils._hotplug import target as _target
from ansible_collections.racefree.block.plugins.module_utils._source import (
    lookup,
    opener,
    resources,
    spec,
)
from ansible_collections.racefree.block.plugins.module_utils._volumes import pool
from ansible_collections.racefree.block.plugins.modules import loop_device, loop_devices
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices

QCOW2 = b"QFI\xfb\0\0\0\3"
SIZE = 65536


def run(check=False, main=loop_device.main, **arguments):
    """The module's result."""
    output = io.StringIO()
    arguments = dict(arguments, _ansible_check_mode=check, _ansible_remote_tmp="/tmp")
    with patch_module_args(arguments), contextlib.redirect_stdout(output), pytest.raises(SystemExit):
        main()
    return json.loads(output.getvalue().strip().splitlines()[-1])


def run_many(rows):
    return run(main=loop_devices.main, devices=rows)


def by_module(path, **said):
    result = run(backing_file=path, **said)
    if result.get("failed"):
        assert run(check=True, backing_file=path, **said)["msg"] == result["msg"], "check mode tells it, too"
        raise InvalidValue("backing_file", path, result["msg"])
    run(backing_file=path, state="absent")
    return result["device"]["size"]


def by_source(path, **said):
    source = spec.parse(dict(said, file=path))
    with resources.Resources() as host:
        if not said:
            # The lookup in check mode.
            with pytest.raises(InvalidValue):
                lookup.find(source, host)
        return opener.Opener(host).open(source).size


def by_target(path, **said):
    with by_target_opened(f"file:raw:{path}" if said else path) as device:
        return device.size


def by_target_opened(text, is_shared=False):
    return _target.open_device(_target.parse(text, True), 5, is_shared)


MAKERS = [by_module, by_source, by_target]


@pytest.mark.parametrize("make", MAKERS)
def test_an_image_that_is_not_raw_is_refused(place, make):
    path = loopdevices.image(place, "disk", content=QCOW2)
    with pytest.raises(InvalidValue, match=r"format qcow2.*qemu-img convert -f qcow2 -O raw.*raw"):
        make(path)
    assert not loopdevices.bound_files(place)
    assert make(path, format="raw") == SIZE


@pytest.mark.parametrize("make", MAKERS)
def test_a_vhd_of_fixed_size(place, make):
    footer = bytes.fromhex("636f6e6563746978000000020001000000").ljust(512, b"\0")
    path = loopdevices.image(place, "disk", content=bytes(SIZE - 512) + footer)
    with pytest.raises(InvalidValue, match="format vpc"):
        make(path)
    assert make(path, format="raw") == SIZE


def test_a_descriptor_without_whole_sectors(place):
    """The size of the file suggests padding, but that would not help."""
    path = loopdevices.image(place, "disk", size=600, content=b"# Disk DescriptorFile\nversion=1\n")
    for make in MAKERS:
        with pytest.raises(InvalidValue, match="format vmdk"):
            make(path)


def test_an_existing_device_is_used_whatever_the_guest_wrote(place):
    """An existing device is found. Devices on other areas of the file do not matter."""
    path = loopdevices.image(place, "disk")
    made = run(backing_file=path)
    with _device.open_path(made["device"]["path"], writable=True) as device:
        os.pwrite(device.fd, QCOW2, 0)
        os.fsync(device.fd)
    again = run(backing_file=path)
    assert not again["changed"] and again["device"]["diskseq"] == made["device"]["diskseq"]
    with resources.Resources() as host:
        assert opener.Opener(host).open(spec.parse(f"file:{path}")).id.diskseq == made["device"]["diskseq"]
    run(backing_file=path, state="absent")
    neighbour = run(backing_file=path, offset=4096)
    assert neighbour["changed"]
    run(backing_file=path, offset=4096, state="absent")


def test_other_formats_are_never_accepted():
    assert "raw" in run(backing_file="/none", format="qcow2")["msg"]
    for source in (
        {"file": "/a", "format": "qcow2"},
        {"file": "/a", "format": True},
        {"file": "/a", "format": ""},
    ):
        with pytest.raises(InvalidValue, match="qemu-img convert"):
            spec.parse(source)


def test_data_files_of_a_new_pool(place):
    data = loopdevices.image(place, "data", content=QCOW2)
    with resources.Resources() as host:
        source = spec.parse(
            {"name": "p", "uuid": "P", "table": f"0 64 thin-pool file:{place}/meta file:raw:{data} 128 0"}
        )
        with pytest.raises(InvalidValue, match="pool.data.*image of the format qcow2"):
            pool.Pool(host, source)._refuse_image()


def overlapping(place):
    """A file with a persistent device on its second 4 KiB, and the row of that device."""
    path = loopdevices.image(place, "disk")
    made = run(backing_file=path, offset=4096, size=4096)
    assert made["changed"]
    return path, made["device"]


@pytest.mark.parametrize("make", MAKERS)
def test_a_second_writer(place, make):
    path, first = overlapping(place)
    with pytest.raises(
        (DeviceBusy, InvalidValue),
        match=f"{first['path']} .diskseq {first['diskseq']}. writes the same part.*(overlap|shared=true)",
    ):
        make(path)
    assert list(loopdevices.bound_files(place)) == [first["minor"]]
    run(backing_file=path, offset=4096, size=4096, state="absent")


@pytest.mark.parametrize(
    "more, is_refused",
    [
        ({"offset": 8192}, False),
        ({"size": 4096}, False),
        ({"size": 4608}, True),
        ({"offset": 7680}, True),
        ({"offset": 4096, "size": 512}, True),
        ({}, True),
        ({"read_only": True}, False),
        ({"overlap": True}, False),
        ({"offset": 4096, "size": 4096}, False),
    ],
)
def test_which_areas_overlap(place, more, is_refused):
    path, first = overlapping(place)
    for check in (True, False):
        result = run(check=check, backing_file=path, **more)
        assert bool(result.get("failed")) == is_refused, result
    if is_refused:
        assert result["error"]["kind"] == "DeviceBusy" and first["path"] in result["msg"]
    elif result["changed"]:
        run(backing_file=path, offset=more.get("offset", 0), size=more.get("size", 0), state="absent")
    run(backing_file=path, offset=4096, size=4096, state="absent")
    with resources.Resources() as host:
        source = spec.parse(dict(more, file=path))
        opener.Opener(host).open(source)


def test_a_reader_conflicts_with_nobody(place):
    path = loopdevices.image(place, "disk")
    run(backing_file=path, read_only=True)
    assert run(backing_file=path, offset=512, size=512)["changed"]
    run(backing_file=path, offset=512, size=512, state="absent")
    run(backing_file=path, state="absent")


def test_one_file_under_two_names(place):
    path, first = overlapping(place)
    os.link(path, place + "/other")
    assert first["path"] in run(backing_file=place + "/other")["msg"]
    run(backing_file=path, offset=4096, size=4096, state="absent")


def test_two_writers_in_one_list(place):
    """The second device is planned before the first one exists."""
    path = loopdevices.image(place, "disk")
    result = run_many([{"backing_file": path}, {"backing_file": path, "offset": 512}])
    assert (
        result["failed"] and "writes the same part" in result["devices"][1]["msg"] and not result["changed"]
    )
    assert loopdevices.nothing_bound(place)
    result = run_many([{"backing_file": path}, {"backing_file": path, "offset": 512, "overlap": True}])
    assert result["changed"] and len(loopdevices.bound_files(place)) == 2
    run_many(
        [{"backing_file": path, "state": "absent"}, {"backing_file": path, "offset": 512, "state": "absent"}]
    )


def test_a_device_that_is_being_removed(place):
    """Its last user has not closed it yet. It is waited for, or left to the check for guests."""
    path = loopdevices.image(place, "disk")
    going, dummy = loopdevices.bind_free(path)
    with by_target_opened(path) as device:
        assert device.size == SIZE
    timer = threading.Timer(0.3, os.close, [going])
    timer.start()
    try:
        assert run(backing_file=path, offset=512)["changed"]
    finally:
        timer.join()
    run(backing_file=path, offset=512, state="absent")


def test_a_device_that_cannot_be_removed(place, monkeypatch):
    monkeypatch.setattr(new_loop, "_GOING", 0.05)
    path = loopdevices.image(place, "disk")
    held, number = loopdevices.bind_free(path)
    try:
        assert f"/dev/loop{number} " in run(backing_file=path, offset=512)["msg"]
        with _backing.Backing(path) as backing:
            area = new_loop.Area(512)
            with pytest.raises(DeviceBusy):
                new_loop.check(backing, area, new_loop.Said(), loop_index.LoopIndex())
            new_loop.check(backing, area, new_loop.Said(), loop_index.LoopIndex(), for_guest=True)
            # Somebody has the device open exclusively, as for a mount: that is not a guest.
            claimed = os.open(f"/dev/loop{number}", os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC)
            try:
                with pytest.raises(DeviceBusy):
                    new_loop.check(backing, area, new_loop.Said(), loop_index.LoopIndex(), for_guest=True)
            finally:
                os.close(claimed)
    finally:
        os.close(held)


def test_a_device_that_the_list_removes_first_is_no_conflict(place):
    path = loopdevices.image(place, "disk")
    assert run(backing_file=path)["changed"]
    part = {"backing_file": path, "offset": 4096}
    rows = [{"backing_file": path, "state": "absent"}, part]
    for check in (True, False):
        assert "writes the same part" in run(check, loop_devices.main, devices=[part, rows[0]])["msg"]
    for check in (True, False):
        result = run(check, loop_devices.main, devices=rows)
        assert not result.get("failed") and [row["changed"] for row in result["devices"]] == [True, True], (
            result
        )
    held = os.open(result["devices"][1]["device"]["path"], os.O_RDONLY | os.O_CLOEXEC)
    try:
        # The device may stay, so the list is not started.
        rows = [dict(part, state="absent", deferred=True), {"backing_file": path}]
        for check in (True, False):
            assert "writes the same part" in run(check, loop_devices.main, devices=rows)["msg"]
    finally:
        os.close(held)
    run_many([dict(part, state="absent")])


@pytest.mark.parametrize("size", [SIZE // 2, SIZE * 2])
def test_the_error_names_a_device_of_another_size(place, size):
    """It had the whole file, until the file was truncated or has grown."""
    path = loopdevices.image(place, "disk")
    made = run(backing_file=path, size=SIZE)["device"]
    os.truncate(path, size)
    words = f"{made['path']} (diskseq {made['diskseq']}), {SIZE} bytes from 0 on"
    assert path not in str(run(backing_file=path, offset=SIZE, state="absent").get("warnings"))
    for check in (True, False):
        result = run(check, backing_file=path, state="absent")
        assert not result["changed"] and words in str(result["warnings"]), result
        refused = run(check, backing_file=path)["msg"]
        assert f"{made['path']} (diskseq" in refused and f"it has {SIZE} bytes from 0 on" in refused
    result = run(backing_file=path, size=SIZE, state="absent")
    assert result["changed"] and result["gone"]


def test_a_shared_hotplug_target(place):
    path, dummy = overlapping(place)
    with by_target_opened(path, True) as device:
        assert device.size == SIZE
    run(backing_file=path, offset=4096, size=4096, state="absent")


def test_a_path_that_others_can_redirect(place):
    os.mkdir(place + "/open")
    os.chmod(place + "/open", 0o777)
    path = loopdevices.image(place + "/open", "disk")
    for check in (True, False):
        message = run(check=check, backing_file=path, trusted_path=True)["msg"]
        assert f"through the directory {place}/open," in message
    assert run(backing_file=path)["changed"]
    run(backing_file=path, state="absent")


def test_a_truncated_file(place):
    path = loopdevices.image(place, "disk")
    made = run(backing_file=path)["device"]
    os.truncate(path, 4096)
    for check in (True, False):
        result = run(check=check, backing_file=path)
        assert (
            result["error"]["kind"] == "DeviceBusy"
            and "65536 bytes, but only 4096 are left in the file" in result["msg"]
            and "allow_shrink" in result["error"]["hint"]
        )
    with _device.open_path(made["path"]) as device, resources.Resources() as host:
        assert device.size == SIZE
        with pytest.raises(DeviceBusy, match="4096 are left in the file"):
            opener.Opener(host).open(spec.parse(f"file:{path}"))
        assert run(backing_file=path, allow_shrink=True)["changed"] and device.size == 4096
    assert not run(backing_file=path)["changed"]
    os.truncate(path, SIZE)
    assert run(backing_file=path)["device"]["size"] == SIZE
    run(backing_file=path, state="absent")


def test_a_declared_format_skips_the_check(place):
    with _backing.Backing(loopdevices.image(place, "disk", content=QCOW2)) as backing:
        loops = loop_index.LoopIndex()
        new_loop.check(backing, new_loop.Area(), new_loop.Said("raw"), loops)
        new_loop.check(backing, new_loop.Area(512), new_loop.Said(), loops)
        with pytest.raises(InvalidValue):
            new_loop.check(backing, new_loop.Area(size=512), new_loop.Said(), loops)
