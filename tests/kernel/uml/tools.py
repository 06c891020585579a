# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The programs that the tier needs."""

from __future__ import annotations

from common import needs

from uml.recipe import KEYS, RELEASES

# program -> Debian package
FOR_BUILD = {
    "debootstrap": "debootstrap",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "apt-get": "apt",
    "chroot": "coreutils",
}
FOR_RUN = {"unshare": "util-linux", "setpriv": "util-linux", "mount": "mount", "chroot": "coreutils"}


def setup():
    """Install all missing programs; needs root and apt-get."""
    needs.setup([FOR_BUILD, FOR_RUN], [KEYS.get(release, release) for release in RELEASES])
