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
    description: Will return details on what has changed (or possibly needs changing in C(check_mode)), when in diff mode.
  idempotent:
    support: full
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
  platform:
    support: full
    description: Target OS/families that can be operated against.
    platforms: linux
notes:
  - Runs that work on the same thing at once, on one host, come one after the other. The same thing is a file by its inode, a mapped device by
    name and uuid, a disk of a guest, a pool, a store, a key. A run that waits too long for another one fails, and names that process.
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
    description: Will return details on what has changed (or possibly needs changing in C(check_mode)), when in diff mode.
    details:
      - This module does not modify anything.
  idempotent:
    support: full
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
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
      - What becomes of the other devices of the task when one fails.
      - With V(rollback), what the task has made or changed until then is rolled back, and the rest is not begun.
        A removal that was done already cannot be rolled back; all entries are checked before the first is removed.
        Each entry tells what became of it; one that is changed in spite of the error has C(changed=true).
      - With V(keep), the others are done and stay. The task still fails, and tells for each entry how it went.
      - Two entries for one device are an error of both, found before anything is done. They are compared by what they are and not by how they are
        written. A symbolic or hard link is its file, C(/dev/loop7) and its disk sequence number are one device, V(xvdd) and V(51760) are one disk, and
        so is a guest by name, id or uuid.
    type: str
    choices: [rollback, keep]
    default: rollback
"""
