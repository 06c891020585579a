# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Names of disks given to QEMU's guests by libvirt, with an adversary: a short sample of names_qemu.py.
"""

from __future__ import annotations

import os

import pytest

pytest.importorskip("pyfuse3")
pytest.importorskip("libvirt")

import names_qemu
import names_rounds


@pytest.mark.rotated
@pytest.mark.parametrize("tool", list(names_qemu.TOOLS))
def test_the_path_goes_to_the_guest(tool):
    """
    Left alone, the guest gets the disk. With a long grace time it gets this disk or none. RACEFREE_TRIES sets
    the number of tries with each name.
    """
    tries = int(os.environ.get("RACEFREE_TRIES", "2"))
    rows = names_rounds.rows(tool, names_qemu.TOOLS[tool](), tries, 60, 1)
    print(rows)
    assert [row["tries"] for row in rows] == [tries] * len(names_rounds.WAYS)
    assert [row["wrong"] for row in rows if row["name"] == names_rounds.SAFE] == [0]
