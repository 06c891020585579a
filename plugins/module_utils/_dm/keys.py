# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Keys of ``crypt`` targets in the kernel's keyring: make them searchable while a table is loaded.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

The kernel searches the keyrings of the process that loads the table (crypt_set_keyring_key in
drivers/md/dm-crypt.c), and copies the keys.
"""

from __future__ import annotations

import contextlib

from .._base.errors import BlockError, KernelError
from .._kernel import keyring

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@contextlib.contextmanager
def reachable(targets: Sequence[tuple[int, int, bytes, bytes]]) -> Iterator[None]:
    """
    Make root's user keyring searchable while ``targets``, ``(start, length, type, params)``, are loaded. A
    KernelError of the load then names the missing keys.
    """
    names = keys_of(targets)
    if names:
        # If this is rejected, the keys may still be in the session keyring.
        with contextlib.suppress(BlockError):
            keyring.reach()
    try:
        yield
    except KernelError as error:
        if names and error.errno in keyring.NOT_THERE:
            raise KernelError(
                f"the key {' or '.join(names)} is not in the kernel's keyring",
                device=error.device,
                errno=error.errno,
                hint="A boot removes keys: add it with the module racefree.block.kernel_key, then try again",
            ) from error
        raise


def keys_of(targets: Sequence[tuple[int, int, bytes, bytes]]) -> list[str]:
    """The keyring keys that the targets use, as ``:SIZE:TYPE:DESCRIPTION``."""
    names = []
    for dummy, dummy_, kind, params in targets:
        words = params.split() if kind == b"crypt" else []
        if len(words) > 1 and words[1].startswith(b":"):
            names.append(words[1].decode("ascii", "replace"))
    return list(dict.fromkeys(names))
