# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from hypothesis import settings

# How long an example takes depends on what else the machine does.
settings.register_profile("racefree", deadline=None)
settings.load_profile("racefree")


@pytest.fixture(autouse=True)
def modules_work_in_this_process(monkeypatch):
    """
    So that tests see what a module's work does, and change what it meets; _module/test_worker.py has the
    process of its own.
    """
    try:
        from ansible_collections.racefree.block.plugins.module_utils._module import worker
    except ImportError:
        # Python 3.9 has no ansible-core that the modules need.
        return
    monkeypatch.setattr(worker, "IN_PROCESS", True)


@pytest.fixture(autouse=True)
def warnings_are_returned(monkeypatch):
    """
    As on a host, and those of this test only: tests of filters import parts of the controller, where warnings
    are shown.
    """
    try:
        from ansible.module_utils import _internal
        from ansible.module_utils.common import warnings
    except ImportError:
        return
    monkeypatch.setattr(_internal, "is_controller", False)
    warnings._global_warnings.clear()
