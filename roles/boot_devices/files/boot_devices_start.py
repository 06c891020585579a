# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The program of the unit racefree-boot-devices.service: boot_devices_start.py start|stop|apply|plan. Installed
in the directory of the library.
"""

import os
import sys


def main():
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from racefree_block._boot_devices import program

    sys.exit(program.main(sys.argv[1:]))


if __name__ == "__main__":
    main()
