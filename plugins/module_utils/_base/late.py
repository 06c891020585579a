# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Modules that are imported when they are first used.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Ansible sends the source of a module for each task, so Python compiles every file that is imported. This is
for files that most runs do not need. Ansible, type checkers and readers find their import statements under
``if TYPE_CHECKING``.
"""

from __future__ import annotations

import importlib
from typing import Any


class Module:
    """Stands for a module of this collection; its first use imports it."""

    def __init__(self, importer: str, name: str) -> None:
        """
        ``name``: a relative name, such as ``.._block.partitions``, as seen from the module ``importer``.

        ``importer`` is the ``__name__`` of the caller: while Python 3.9 imports a module from a zip file, and
        Ansible sends one, ``__package__`` is not set yet (``_load_backward_compatible`` of importlib).
        """
        self._package, self._name = importer.rpartition(".")[0], name

    def __getattr__(self, name: str) -> Any:
        # importlib looks in sys.modules first, so no copy is kept here.
        return getattr(importlib.import_module(self._name, self._package), name)
