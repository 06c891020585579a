# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which mapped device counts as the old disk of a guest of xl that the hotplug script has made anew."""

from __future__ import annotations

import pytest
from ansible_collections.racefree.block.plugins.module_utils._block import device as _device
from ansible_collections.racefree.block.plugins.module_utils._dm import load, mapped, removal
from ansible_collections.racefree.block.plugins.module_utils._source import opener, resources, spec
from ansible_collections.racefree.block.plugins.module_utils._xl.old_device import OldDevice
from conftest import wait_until


def make(host, name, below, start=0, read_only=False):
    """A mapped device over one that is held. It goes with its last user."""
    line = (0, 2048, b"linear", f"{below.id.number} {start}".encode())
    table = load.Table((line,), read_only, held=(below,))
    return mapped.make(host.dm, name, f"TEST-{name}", table, 0, persist=False)


@pytest.mark.parametrize(
    "other, options, is_same",
    [
        (False, {}, True),
        (True, {}, False),
        (False, {"start": 8}, False),
        (False, {"read_only": True}, False),
    ],
)
def test_a_mapped_device_that_is_made_anew(image, name, other, options, is_same):
    """It has the same name each time, so the first one must be gone, and with it what held its storage."""
    with resources.Resources() as host:
        with resources.Resources() as making:
            files = [image(each) for each in ("old", "other")]
            # Held for the moment only.
            one, two = (opener.Opener(making).open(spec.parse({"file": path})) for path in files)
            device = make(making, name, one)
            number, first = one.id.number, device.id
            was = OldDevice(host, device)
            assert was.is_same(device)
            device.close()
            wait_until(lambda: not removal.is_there(first))
            one.close()
            # What was below it is held, so its number means the same.
            with _device.open_number(*map(int, number.split(":"))) as below:
                assert below.id == one.id
                with make(making, name, two if other else below, **options) as again:
                    assert again.id != first and was.is_same(again) == is_same
            assert not was.is_same(two)


@pytest.mark.parametrize("other", [False, True])
def test_a_device_of_nested_tables_that_is_made_anew(image, name, other):
    """The inner device has no name of its own, so it is another one each time, over the same storage."""

    def source(path):
        inner = {"start": 0, "length": 2048, "target": "linear", "offset": 0}
        outer = dict(inner, device={"table": [dict(inner, device={"file": path})]})
        return spec.parse({"table": [outer], "name": name, "uuid": f"TEST-{name}"})

    paths = [image(each) for each in ("old", "other")]
    with resources.Resources() as host:
        with resources.Resources() as making:
            device = opener.Opener(making).open(source(paths[0]))
            first = device.id
            was = OldDevice(host, device)
        wait_until(lambda: not removal.is_there(first))
        with resources.Resources() as making:
            again = opener.Opener(making).open(source(paths[other]))
            assert again.id != first and was.is_same(again) != other
