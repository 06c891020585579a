# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Kernel structures and constants (``ffi``, ``lib``).

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

``_kernel.uapi_cffi`` is generated. This file only handles a missing cffi library.
"""

from __future__ import annotations

from .._base.errors import NotSupported
from . import uapi_cffi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Both are None without cffi, so callers call require() first. dlopen(None) gives access to the constants and
# to the C library's functions; neither a compiler nor a shared object is needed.
ffi: Any = uapi_cffi.ffi
lib: Any = None if ffi is None else ffi.dlopen(None)


def require() -> None:
    """Raise NotSupported if cffi is missing. Call it before using a kernel structure."""
    if ffi is None:
        raise NotSupported(
            "the Python library cffi is missing on this host",
            hint="Install python3-cffi (Debian) or cffi from PyPI for the Python that Ansible uses there",
        )
