# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The FUSE library, which hosts need only for the service: None if it cannot be imported.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import importlib
from typing import Any


def _load(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


pyfuse3: Any = _load("pyfuse3")
# pyfuse3 needs it.
trio: Any = _load("trio")
# The base class of the handlers, so that their modules can be imported without pyfuse3.
Operations: Any = object if pyfuse3 is None else pyfuse3.Operations
