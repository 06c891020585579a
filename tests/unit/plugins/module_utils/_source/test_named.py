# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Tests of devices whose path is missing, on a host without device-mapper. Tests with it:
tests/kernel/test_over_block.py.
"""

from __future__ import annotations

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base import gone
from ansible_collections.racefree.block.plugins.module_utils._source import named, resources, spec


@pytest.mark.skipif(gone.exists("/sys/class/misc/device-mapper"), reason="this host has device-mapper")
def test_a_host_without_device_mapper_has_no_mapped_devices():
    source = spec.parse({"path": "/dev/mapper/missing", "uuid": "TEST-missing"})
    with resources.Resources() as host:
        assert named.moved_to(source, host) is None
