# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The format that libvirt's definitions and recipes give for a file."""

from __future__ import annotations

import os

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    InvalidValue,
)
from ansible_collections.racefree.block.plugins.module_utils._block import backing as _backing
from ansible_collections.racefree.block.plugins.module_utils._libvirt import domain_xml, kept_format
from ansible_collections.racefree.block.plugins.module_utils._source import (
    recipe,
    spec,
)
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices

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
