# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run modules in this process like Ansible: arguments in, the JSON that they print out."""

from __future__ import annotations

import contextlib
import io
import json

import pytest
from ansible.module_utils.common import warnings
from ansible.module_utils.testing import patch_module_args


def run(main, check=False, **arguments):
    """The result that Ansible would get from a module's ``main``."""
    warnings._global_warnings.clear()
    output = io.StringIO()
    arguments = dict(arguments, _ansible_check_mode=check, _ansible_diff=True, _ansible_remote_tmp="/tmp")
    with patch_module_args(arguments), contextlib.redirect_stdout(output), pytest.raises(SystemExit) as ended:
        main()
    result = json.loads(output.getvalue().strip().splitlines()[-1])
    assert bool(result.get("failed")) == (ended.value.code == 1)
    return result
