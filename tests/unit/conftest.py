# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import importlib
import sys

import pytest
from hypothesis import settings

# The duration of an example depends on the load of the machine.
settings.register_profile("racefree", deadline=None)
settings.load_profile("racefree")


@pytest.fixture
def programs(monkeypatch):
    """
    A function ``programs(folder)``, which returns a function that imports the files of this folder as its
    programs do. They are forgotten after the test.
    """
    loaded = set(sys.modules)
    folders = []

    def of(folder):
        folders.append(folder)
        monkeypatch.syspath_prepend(str(folder))
        return importlib.import_module

    yield of
    for path in (path for folder in folders for path in folder.glob("*.py")):
        if path.stem not in loaded:
            sys.modules.pop(path.stem, None)


@pytest.fixture(autouse=True)
def modules_work_in_this_process(monkeypatch):
    """
    Run a module's work in the test's process, so that tests can observe it and change its environment.
    _module/test_worker.py tests the separate process.
    """
    try:
        from ansible_collections.racefree.block.plugins.module_utils._module import worker
    except ImportError:
        # There is no ansible-core for Python 3.9 that the modules could use.
        return
    monkeypatch.setattr(worker, "IN_PROCESS", True)


@pytest.fixture(autouse=True)
def warnings_are_returned(monkeypatch):
    """
    Return warnings as on a host, and only those of the current test. Tests of filters import parts of the
    controller, where warnings are printed.
    """
    try:
        from ansible.module_utils import _internal
        from ansible.module_utils.common import warnings
    except ImportError:
        return
    monkeypatch.setattr(_internal, "is_controller", False)
    warnings._global_warnings.clear()
