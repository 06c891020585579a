# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Something is mounted over a part of /sys: no device counts as gone because of that."""

from __future__ import annotations

import contextlib
import io
import json

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.racefree.block.plugins.modules import loop_device
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices, own_dev


def run(**arguments):
    """The module's result."""
    output = io.StringIO()
    with patch_module_args(dict(arguments, _ansible_remote_tmp="/tmp")), contextlib.redirect_stdout(output):
        with pytest.raises(SystemExit):
            loop_device.main()
    return json.loads(output.getvalue().strip().splitlines()[-1])


def hidden(path, requests):
    """The module's result for each of the requests while an empty file system is mounted over ``path``."""

    def work():
        own_dev._mount("none", path, "tmpfs", 0)
        return [run(**arguments) for arguments in requests]

    return own_dev.run(work)


@pytest.mark.parametrize(
    "path, words",
    [
        (
            "/sys/block",
            "/sys/block: something else is mounted over sysfs, which lists the devices",
        ),
        ("/sys/dev/block", "/sys/dev/block: something else is mounted over sysfs"),
        ("/sys/dev", "/sys/dev/block: sysfs, which lists the devices, is not mounted"),
        ("/sys", "/sys/dev/block: sysfs, which lists the devices, is not mounted"),
    ],
)
def test_a_part_of_sysfs_is_hidden(place, path, words):
    image = loopdevices.image(place, "disk")
    made = run(backing_file=image)["device"]
    requests = [
        {"backing_file": image},
        {"backing_file": image, "state": "absent"},
        {"diskseq": made["diskseq"], "state": "absent"},
    ]
    if path != "/sys/block":
        # Otherwise everything that a removal by path needs is visible, and the device is removed.
        requests.append({"path": made["path"], "state": "absent"})
    for arguments, result in zip(requests, hidden(path, requests)):
        assert result.get("failed") and not result.get("changed") and not result.get("gone"), (
            arguments,
            result,
        )
        assert words in result["msg"], (arguments, result)
    assert not run(backing_file=image)["changed"], "nobody has touched it"
    assert run(backing_file=image, state="absent")["gone"]
