# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Devices that are made at each boot of the host, and stay until it is shut down. The role boot_devices makes
systemd start and stop this program.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""
