# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The programs that xenhost needs."""

from __future__ import annotations

from common import needs

# program -> Debian package
FOR_BUILD = {
    "debootstrap": "debootstrap",
    "mkfs.ext4": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "apt-get": "apt",
    "ssh-keygen": "openssh-client",
}
FOR_UP = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "ssh": "openssh-client",
    "tar": "tar",
}


def setup(releases):
    """Install all missing programs; needs root and apt-get."""
    needs.setup([FOR_BUILD, FOR_UP], releases)
