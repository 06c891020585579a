# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is refused before a loop device is created, by all code that creates one."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import threading

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    DeviceBusy,
    InvalidValue,
    WrongDevice,
)
from ansible_collections.racefree.block.plugins.module_utils._block import backing as _backing
from ansible_collections.racefree.block.plugins.module_utils._block import device as _device
from ansible_collections.racefree.block.plugins.module_utils._block import loop, loop_index, new_loop
from ansible_collections.racefree.block.plugins.module_utils._hotplug import target as _target
from ansible_collections.racefree.block.plugins.module_utils._libvirt import domain_xml, kept_format
from ansible_collections.racefree.block.plugins.module_utils._source import (
    lookup,
    opener,
    recipe,
    resources,
    spec,
)
from ansible_collections.racefree.block.plugins.module_utils._volumes import pool
from ansible_collections.racefree.block.plugins.modules import loop_device, loop_devices
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices

QCOW2 = b"QFI\xfb\0\0\0\3"
SIZE = 65536


@pytest.fixture
def place():
    loopdevices.need_loop()
    with loopdevices.directory() as path:
        yield path
        assert loopdevices.nothing_bound(path), "the test left a loop device"


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


# Two writers of one area of a file


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
        match=f"{first['path']} .diskseq {first['diskseq']}. writes the same part.*(overlap|w!)",
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


def test_a_replaced_file_and_the_removal_of_the_old_device_in_one_list(place):
    path, old = replaced(place)
    rows = [{"diskseq": old["diskseq"], "state": "absent"}, {"backing_file": path}]
    for check in (True, False):
        result = run(check, loop_devices.main, devices=rows)
        assert not result.get("failed") and [row["changed"] for row in result["devices"]] == [True, True], (
            result
        )
    run(backing_file=path, state="absent")


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
        assert (
            f"by the directory {place}/open," in run(check=check, backing_file=path, trusted_path=True)["msg"]
        )
    assert run(backing_file=path)["changed"]
    run(backing_file=path, state="absent")


# A file that was replaced or truncated


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


def test_a_truncated_file(place):
    path = loopdevices.image(place, "disk")
    made = run(backing_file=path)["device"]
    os.truncate(path, 4096)
    for check in (True, False):
        result = run(check=check, backing_file=path)
        assert (
            result["error"]["kind"] == "DeviceBusy"
            and "65536 bytes, and 4096 are left" in result["msg"]
            and "allow_shrink" in result["error"]["hint"]
        )
    with _device.open_path(made["path"]) as device, resources.Resources() as host:
        assert device.size == SIZE
        with pytest.raises(DeviceBusy, match="4096 are left"):
            opener.Opener(host).open(spec.parse(f"file:{path}"))
        assert run(backing_file=path, allow_shrink=True)["changed"] and device.size == 4096
    assert not run(backing_file=path)["changed"]
    os.truncate(path, SIZE)
    assert run(backing_file=path)["device"]["size"] == SIZE
    run(backing_file=path, state="absent")


# Domain definitions

XML = "<domain type='xen'><name>web1</name><devices>{}</devices></domain>"
DISK = (
    "<disk type='file' device='disk'><driver name='qemu' type='{}'/><source file='{}'/>"
    "<target dev='{}' bus='xen'/></disk>"
)


@pytest.mark.parametrize(
    "kind, vdev, is_refused", [("qcow2", "xvda", True), ("vmdk", "xvdb", True), ("raw", "xvda", False)]
)
def test_formats_in_libvirt_definitions(tmp_path, kind, vdev, is_refused):
    path, link = loopdevices.image(tmp_path, "disk"), str(tmp_path / "link")
    os.symlink(path, link)
    domains = [
        domain_xml.Domain(
            XML.format(DISK.format("qcow2", tmp_path / "other", "xvdc") + DISK.format(kind, link, vdev))
        )
    ]
    source = spec.FileSource(path)
    with _backing.Backing(path) as backing:
        if is_refused:
            with pytest.raises(
                InvalidValue, match=f"format {kind} .driver of {vdev}.*qemu-img convert -f {kind} -O raw"
            ):
                kept_format.refuse_driver(source, backing, domains)
        else:
            kept_format.refuse_driver(source, backing, domains)
        kept_format.refuse_driver(source._replace(format="raw"), backing, domains)


@pytest.mark.parametrize(
    "kept, target, is_known",
    [
        ({"file": "/a", "format": "raw"}, "xvda", True),
        ({"file": "/a", "format": "raw", "read_only": True}, "xvda", True),
        ({"file": "/a"}, "xvda", False),
        ({"file": "/b", "format": "raw"}, "xvda", False),
        ({"file": "/a", "format": "raw"}, "xvdb", False),
        ({"file": "/a", "format": "raw", "offset": 512}, "xvda", False),
        ({"path": "/dev/vg/a"}, "xvda", False),
    ],
)
def test_formats_in_recipes(kept, target, is_known):
    disk = domain_xml.Disk("xvda", domain_xml.path_of("00000005-1111-2222-3333-444444444444", "xvda"))
    text = domain_xml.put(XML.format(""), disk, recipe.text_of(spec.parse(kept)))
    found = kept_format.known(spec.FileSource("/a"), [domain_xml.Domain(text)], target)
    assert found == spec.FileSource("/a", format="raw" if is_known else None)


def test_a_recipe_that_cannot_be_read_is_ignored():
    disk = domain_xml.Disk("xvda", domain_xml.path_of("00000005-1111-2222-3333-444444444444", "xvda"))
    domain = domain_xml.Domain(domain_xml.put(XML.format(""), disk, '{"file": 5, "format": "raw"}'))
    assert kept_format.known(spec.FileSource("/a"), [domain], "xvda").format is None


def test_a_declared_format_skips_the_check(place):
    with _backing.Backing(loopdevices.image(place, "disk", content=QCOW2)) as backing:
        loops = loop_index.LoopIndex()
        new_loop.check(backing, new_loop.Area(), new_loop.Said("raw"), loops)
        new_loop.check(backing, new_loop.Area(512), new_loop.Said(), loops)
        with pytest.raises(InvalidValue):
            new_loop.check(backing, new_loop.Area(size=512), new_loop.Said(), loops)
