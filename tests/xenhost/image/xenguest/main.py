# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Start of the xenguest program; everything else is in modules, whose compiled form Python keeps."""

from __future__ import annotations

import sys


def start():
    # -I keeps the script's own directory out.
    sys.path.insert(0, "/usr/local/lib/xenguest")
    from guest_cli import main

    return main(sys.argv[1:])


sys.exit(start())
