# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    # What holds for every module that changes devices.
    DOCUMENTATION = r"""
attributes:
  check_mode:
    support: full
    description: Can run in C(check_mode) and return changed status prediction without modifying target.
  diff_mode:
    support: full
    description: >-
      Will return details on what has changed (or possibly needs changing in C(check_mode)), when in diff
      mode.
  idempotent:
    support: full
    description: >-
      When run twice in a row outside check mode, with the same arguments, the second invocation indicates no
      change.
  platform:
    support: full
    description: Target OS/families that can be operated against.
    platforms: linux
notes:
  - Concurrent runs on one host that work on the same object wait for each other. An object is a file
    (identified by its inode), a mapped device (by name and UUID), a disk of a guest, a thin pool, a snapshot
    store or a key. A run that waits too long fails, and its error names the process that it waited for.
requirements:
  - Linux 5.15 or newer, for disk sequence numbers
  - Python 3.9 or newer on the host
  - cffi (Debian's package is python3-cffi)
"""

    # What holds for every module that only reads.
    INFO = r"""
attributes:
  check_mode:
    support: full
    description: Can run in C(check_mode) and return changed status prediction without modifying target.
    details:
      - This module does not modify anything.
  diff_mode:
    support: N/A
    description: >-
      Will return details on what has changed (or possibly needs changing in C(check_mode)), when in diff
      mode.
    details:
      - This module does not modify anything.
  idempotent:
    support: full
    description: >-
      When run twice in a row outside check mode, with the same arguments, the second invocation indicates no
      change.
    details:
      - This module does not modify anything.
  platform:
    support: full
    description: Target OS/families that can be operated against.
    platforms: linux
requirements:
  - Linux 5.15 or newer, for disk sequence numbers
  - Python 3.9 or newer on the host
  - cffi (Debian's package is python3-cffi)
"""

    # What holds for every module over a list.
    MANY = r"""
options:
  on_error:
    description:
      - What happens to the other devices of the task if one fails.
      - With V(rollback), everything that the task has created or changed so far is rolled back, and nothing
        else is started. A removal that is already done cannot be rolled back, but all entries are checked
        before the first one is removed. The result of each entry says what happened to it. An entry that is
        changed in spite of the error has C(changed=true).
      - With V(keep), the other entries are completed and kept. The task still fails, and returns the result
        of each entry.
      - If two entries are about the same device, both are errors, and nothing is done. Entries are compared
        by identity, not by how they are written. For example, a symbolic or hard link is the same as its
        file, C(/dev/loop7) is the same as its disk sequence number, V(xvdd) is the same as V(51760), and a
        guest is the same by name, ID or UUID.
    type: str
    choices: [rollback, keep]
    default: rollback
"""
