# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The test plugin valid_dm_table and the filters dm_lines and dm_targets."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.racefree.block.plugins.filter.dm_lines import FilterModule as Lines
from ansible_collections.racefree.block.plugins.filter.dm_targets import FilterModule as Targets
from ansible_collections.racefree.block.plugins.plugin_utils import _dm_table
from ansible_collections.racefree.block.plugins.test.valid_dm_table import TestModule as Valid

dm_lines = Lines().filters()["dm_lines"]
dm_targets = Targets().filters()["dm_targets"]
valid_dm_table = Valid().tests()["valid_dm_table"]

TEXT = "0 2048 linear diskseq:42 0\n2048 8 zero"
PLAIN = [
    {"start": 0, "length": 2048, "target": "linear", "device": "diskseq:42", "offset": 0},
    {"start": 2048, "length": 8, "target": "zero"},
]
VERITY = "0 8 verity 1 /dev/a /dev/b 4096 4096 1 0 md5 " + "0" * 32 + " -"
STOPPING = "0 8 snapshot /dev/a /dev/b P 8 1 discard_zeroes_cow"
NEW = "0 8 flakey /dev/a 0 1 1 1 error_reads"


def test_lines_and_targets():
    assert dm_lines(PLAIN) == TEXT.split("\n")
    assert dm_lines(TEXT) == TEXT.split("\n")
    assert dm_targets(TEXT) == PLAIN
    assert dm_targets(PLAIN) == PLAIN
    assert dm_lines([dict(PLAIN[0], device={"diskseq": 42}), "2048 8 zero"]) == TEXT.split("\n")


@pytest.mark.parametrize("function", [dm_lines, dm_targets])
def test_filters_report_errors(function):
    with pytest.raises(AnsibleFilterError) as caught:
        function("0 8 linear /dev/a x")
    assert "offset x: must be a whole number of sectors" in str(caught.value)
    assert "^" in str(caught.value)
    for arguments in ({"kernels": ["6.1"]}, {"kernels": ["5.10"]}):
        with pytest.raises(AnsibleFilterError):
            function(NEW, **arguments)
    assert function(NEW, kernels=["6.12"])
    with pytest.raises(AnsibleFilterError):
        function(VERITY, read_only=False)
    assert function(VERITY, read_only=True)


def test_valid():
    assert valid_dm_table(TEXT) is True
    assert valid_dm_table(PLAIN) is True
    assert valid_dm_table("0 8 linear /dev/a x") is False
    assert valid_dm_table("") is False
    assert valid_dm_table(None) is False
    assert valid_dm_table(VERITY) is True
    assert valid_dm_table(VERITY, read_only=True) is True
    assert valid_dm_table(VERITY, read_only=False) is False
    assert valid_dm_table(NEW, kernels=["6.1", "6.12"]) is False
    assert valid_dm_table(NEW, kernels=["6.12"]) is True
    with pytest.raises(AnsibleFilterError):
        valid_dm_table(TEXT, kernels=["5.10"])


@pytest.mark.parametrize("function", [dm_lines, dm_targets, valid_dm_table])
def test_a_table_that_would_stop_some_kernel_gets_a_warning(function, monkeypatch):
    said = []
    monkeypatch.setattr(_dm_table.Display, "warning", lambda self, text: said.append(text))
    assert function(STOPPING)
    assert said and all("small-discards" in text for text in said)
    said.clear()
    assert function(STOPPING, kernels=["6.12"]) and not said
    if function is valid_dm_table:
        assert function(STOPPING, kernels=["7.2"]) is False
    else:
        with pytest.raises(AnsibleFilterError, match="small-discards"):
            function(STOPPING, kernels=["7.2"])
