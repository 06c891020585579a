# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The kernel's structures and numbers (``ffi``, ``lib``), and nothing else.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

``_kernel.uapi_cffi`` is generated; this file only adds what happens when the library cffi is not there.
"""

from __future__ import annotations

from .._base.errors import NotSupported
from . import uapi_cffi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Both are None without cffi: whoever needs them calls require() first. dlopen(None) gives the constants and
# the functions of the C library; no compiler and no shared object is needed.
ffi: Any = uapi_cffi.ffi
lib: Any = None if ffi is None else ffi.dlopen(None)


def require() -> None:
    """Raise NotSupported when cffi is missing; called once before a kernel structure is needed."""
    if ffi is None:
        raise NotSupported(
            "the Python library cffi is missing on this host",
            hint="Install python3-cffi (Debian) or cffi from PyPI for the Python that Ansible uses there",
        )
