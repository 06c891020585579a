# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Installs pip in a new virtual environment from the interpreter's own wheels, then installs what the arguments
name.

ansible-test runs this instead of the script that it would download, with the same arguments.
"""

from __future__ import annotations

import subprocess
import sys

# Options of the downloaded script that pip itself does not know.
UNKNOWN_TO_PIP = ("--no-setuptools", "--no-wheel")


def main():
    subprocess.check_call([sys.executable, "-m", "ensurepip", "--upgrade", "--default-pip"])
    arguments = [argument for argument in sys.argv[1:] if argument not in UNKNOWN_TO_PIP]
    subprocess.check_call([sys.executable, "-m", "pip", "install"] + arguments)


if __name__ == "__main__":
    main()
