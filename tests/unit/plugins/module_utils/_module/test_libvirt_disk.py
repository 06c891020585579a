# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of libvirt_disk that are refused before libvirt is asked."""

from __future__ import annotations

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import InvalidValue
from ansible_collections.racefree.block.plugins.module_utils._module.libvirt_disk import ARGUMENTS, DiskItem
from ansible_collections.racefree.block.plugins.module_utils._source.resources import Resources


@pytest.mark.parametrize(
    "uri, is_here",
    [
        ("xen:///system", True),
        ("xen+unix:///system", True),
        ("qemu:///system", True),
        ("xen+ssh://other/system", False),
        ("xen://other/", False),
        ("qemu+ssh://other/system", False),
        ("qemu:///session", False),
    ],
)
def test_live_is_for_guests_of_this_host(uri, is_here):
    """The devices of another host are others. Its definitions can be changed."""
    params = {key: option.get("default") for key, option in ARGUMENTS.items()}
    params.update(domain="web", vdev="xvdb", source="file:/srv/a", uri=uri)
    with Resources() as resources:
        DiskItem(params, resources).check()
        item = DiskItem(dict(params, live=True), resources)
        if is_here:
            item.check()
        else:
            with pytest.raises(InvalidValue, match="only for xen:///system and qemu:///system"):
                item.check()
