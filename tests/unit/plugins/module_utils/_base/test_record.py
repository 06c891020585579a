# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.record import Record


class Point(Record):
    """Three fields, the last with a default."""

    x: int
    y: int
    name: str | None = None

    @property
    def sum(self):
        return self.x + self.y


def test_fields_and_defaults():
    point = Point(1, y=2)
    assert (point.x, point.y, point.name, point.sum) == (1, 2, None, 3)
    assert point == (1, 2, None) == Point(1, 2, None) and hash(point) == hash((1, 2, None))
    assert Point(y=2, x=1, name="a").name == "a"
    x, y, name = point
    assert (x, y, name) == point
    assert repr(point) == "Point(x=1, y=2, name=None)"
    assert Point._fields == ("x", "y", "name") and point._asdict() == {"x": 1, "y": 2, "name": None}
    assert point._replace(y=5) == (1, 5, None)
    assert isinstance(point._replace(y=5), Point)
    assert copy.copy(point) == pickle.loads(pickle.dumps(point)) == point


@pytest.mark.parametrize(
    "values, named",
    [
        ((), {}),
        ((1,), {}),
        ((1, 2, 3, 4), {}),
        ((1, 2), {"z": 1}),
        ((1, 2, 3), {"name": "a"}),
        ((1,), {"x": 1, "y": 2}),
        ((1, 2), {"x": 3}),
    ],
)
def test_wrong_fields_are_refused(values, named):
    with pytest.raises(TypeError):
        Point(*values, **named)


def test_records_are_immutable():
    with pytest.raises(AttributeError):
        Point(1, 2).x = 3


def test_slow_modules_are_not_imported():
    """Each of these modules takes longer to import than everything the script does."""
    code = (
        "import sys\n"
        "from ansible_collections.racefree.block.plugins.module_utils._hotplug import script as _hotplug\n"
        "from ansible_collections.racefree.block.plugins.module_utils._hotplug import add as _hotplug_add\n"
        "from ansible_collections.racefree.block.plugins.module_utils._dm import control as _dm_ioctl\n"
        "print(' '.join({'typing', 're', 'enum', 'socket', 'pyxs', 'contextlib', 'collections', "
        "'subprocess', 'random', 'json', 'signal'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-S",
            "-c",
            "import sys; sys.path[:0] = sys.argv[1].split(':');" + code,
            ":".join(sys.path),
        ],
        stdout=subprocess.PIPE,
        check=True,
    )
    assert done.stdout.decode().strip() == ""
