# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is refused before a loop device is made, by each of those who make some."""

from __future__ import annotations

import contextlib
import io
import json
import os

import pytest

from ansible.module_utils.testing import patch_module_args

from ansible_collections.racefree.block.plugins.module_utils import (
    _device, _domain_xml, _hotplug_target, _kept_format, _kept_recipe, _loop, _new_loop, _source, _thin_pool,
)
from ansible_collections.racefree.block.plugins.module_utils._errors import InvalidValue
from ansible_collections.racefree.block.plugins.module_utils._host import Host
from ansible_collections.racefree.block.plugins.modules import loop_device
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices

QCOW2 = b"QFI\xfb\0\0\0\3"
SIZE = 65536


@pytest.fixture
def place():
    loopdevices.need_loop()
    with loopdevices.directory() as path:
        yield path
        assert loopdevices.nothing_bound(path), "the test left a loop device"


def run(check=False, **arguments):
    """What the module loop_device says."""
    output = io.StringIO()
    arguments = dict(arguments, _ansible_check_mode=check, _ansible_remote_tmp="/tmp")
    with patch_module_args(arguments), contextlib.redirect_stdout(output), pytest.raises(SystemExit):
        loop_device.main()
    return json.loads(output.getvalue().strip().splitlines()[-1])


def by_module(path, **said):
    result = run(backing_file=path, **said)
    if result.get("failed"):
        assert run(check=True, backing_file=path, **said)["msg"] == result["msg"], "check mode tells it, too"
        raise InvalidValue("backing_file", path, result["msg"])
    run(backing_file=path, state="absent")
    return result["device"]["size"]


def by_source(path, **said):
    source = _source.parse(dict(said, file=path))
    with Host() as host:
        if not said:
            # The look that check mode makes.
            with pytest.raises(InvalidValue):
                _source.find(source, host)
        return _source.Opener(host).open(source).size


def by_target(path, **said):
    recipe = _hotplug_target.parse(f"file:raw:{path}" if said else path, True)
    with _hotplug_target.open_device(recipe, 5) as device:
        return device.size


MAKERS = [by_module, by_source, by_target]


@pytest.mark.parametrize("make", MAKERS)
def test_an_image_that_is_not_raw(place, make):
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
    """Padding, which the file's size would suggest, is not what helps."""
    path = loopdevices.image(place, "disk", size=600, content=b"# Disk DescriptorFile\nversion=1\n")
    for make in MAKERS:
        with pytest.raises(InvalidValue, match="format vmdk"):
            make(path)


def test_what_the_guest_wrote_into_its_disk(place):
    """A device that is there is found; neighbours in one file do not hinder each other."""
    path = loopdevices.image(place, "disk")
    made = run(backing_file=path)
    with _device.open_path(made["device"]["path"], writable=True) as device:
        os.pwrite(device.fd, QCOW2, 0)
        os.fsync(device.fd)
    again = run(backing_file=path)
    assert not again["changed"] and again["device"]["diskseq"] == made["device"]["diskseq"]
    with Host() as host:
        assert _source.Opener(host).open(_source.parse(f"file:{path}")).id.diskseq == made["device"]["diskseq"]
    run(backing_file=path, state="absent")
    neighbour = run(backing_file=path, offset=4096)
    assert neighbour["changed"]
    run(backing_file=path, offset=4096, state="absent")


def test_another_format_is_never_taken():
    assert "raw" in run(backing_file="/none", format="qcow2")["msg"]
    for source in ({"file": "/a", "format": "qcow2"}, {"file": "/a", "format": True}, {"file": "/a", "format": ""}):
        with pytest.raises(InvalidValue, match="qemu-img convert"):
            _source.parse(source)


def test_a_new_pools_data(place):
    data = loopdevices.image(place, "data", content=QCOW2)
    with Host() as host:
        source = _source.parse({"name": "p", "uuid": "P", "table": f"0 64 thin-pool file:{place}/meta file:raw:{data} 128 0"})
        with pytest.raises(InvalidValue, match="pool.data.*image of the format qcow2"):
            _thin_pool.Pool(host, source)._refuse_image()


# Definitions

XML = "<domain type='xen'><name>web1</name><devices>{}</devices></domain>"
DISK = "<disk type='file' device='disk'><driver name='qemu' type='{}'/><source file='{}'/><target dev='{}' bus='xen'/></disk>"


@pytest.mark.parametrize("kind, vdev, is_refused", [("qcow2", "xvda", True), ("vmdk", "xvdb", True), ("raw", "xvda", False)])
def test_what_a_definition_says_of_the_file(tmp_path, kind, vdev, is_refused):
    path, link = loopdevices.image(tmp_path, "disk"), str(tmp_path / "link")
    os.symlink(path, link)
    domains = [_domain_xml.Domain(XML.format(DISK.format("qcow2", tmp_path / "other", "xvdc") + DISK.format(kind, link, vdev)))]
    source = _source.FileSource(path)
    with _loop.Backing(path) as backing:
        if is_refused:
            with pytest.raises(InvalidValue, match=f"format {kind} .driver of {vdev}.*qemu-img convert -f {kind} -O raw"):
                _kept_format.refuse_driver(source, backing, domains)
        else:
            _kept_format.refuse_driver(source, backing, domains)
        _kept_format.refuse_driver(source._replace(format="raw"), backing, domains)


@pytest.mark.parametrize("kept, target, is_known", [
    ({"file": "/a", "format": "raw"}, "xvda", True), ({"file": "/a", "format": "raw", "read_only": True}, "xvda", True),
    ({"file": "/a"}, "xvda", False), ({"file": "/b", "format": "raw"}, "xvda", False), ({"file": "/a", "format": "raw"}, "xvdb", False),
    ({"file": "/a", "format": "raw", "offset": 512}, "xvda", False), ({"path": "/dev/vg/a"}, "xvda", False),
])
def test_what_a_recipe_says_of_the_file(kept, target, is_known):
    disk = _domain_xml.Disk("xvda", _domain_xml.path_of("00000005-1111-2222-3333-444444444444", "xvda"))
    text = _domain_xml.put(XML.format(""), disk, _kept_recipe.text_of(_source.parse(kept)))
    found = _kept_format.known(_source.FileSource("/a"), [_domain_xml.Domain(text)], target)
    assert found == _source.FileSource("/a", format="raw" if is_known else None)


def test_a_recipe_that_cannot_be_read_says_nothing():
    disk = _domain_xml.Disk("xvda", _domain_xml.path_of("00000005-1111-2222-3333-444444444444", "xvda"))
    domain = _domain_xml.Domain(_domain_xml.put(XML.format(""), disk, '{"file": 5, "format": "raw"}'))
    assert _kept_format.known(_source.FileSource("/a"), [domain], "xvda").format is None


def test_said(place):
    with _loop.Backing(loopdevices.image(place, "disk", content=QCOW2)) as backing:
        _new_loop.check(backing, (0, 0), _new_loop.Said("raw"))
        _new_loop.check(backing, (512, 0), _new_loop.Said())
        with pytest.raises(InvalidValue):
            _new_loop.check(backing, (0, 512), _new_loop.Said())
