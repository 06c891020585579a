# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of comparing a held device with a source, with real loop devices."""

from __future__ import annotations

import pytest
from ansible_collections.racefree.block.plugins.module_utils._source import lookup, opener, resources, spec
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices


@pytest.mark.parametrize("read_only", [False, True])
def test_the_mode_of_a_removed_disk_does_not_matter(read_only):
    """All else does: the file, the part of it, and what kind of device it is."""
    loopdevices.need_loop()
    with loopdevices.directory() as place, resources.Resources() as host:
        path, other = (loopdevices.image(place, name, 65536) for name in ("disk", "other"))
        device = opener.Opener(host).open(spec.parse({"file": path, "read_only": read_only}))

        def is_removed(**source):
            return lookup.is_device_in_any_mode(spec.parse(source), device, host)

        assert is_removed(file=path) and is_removed(file=path, read_only=True)
        assert is_removed(path=device.path) and is_removed(diskseq=device.id.diskseq)
        assert not is_removed(file=other) and not is_removed(file=path, size=4096)
        assert not lookup.is_device(spec.parse({"file": path, "read_only": not read_only}), device, host)
