# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Seals of the devices below a device."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  sealed_below:
    description:
      - With V(true), the loop and mapped devices below the device are sealed with it, but not what is below a
        logical volume of LVM. Devices that a new table adds are sealed, too. They are released with the
        device, unless somebody else has sealed them. Requires O(sealed=true).
      - With V(false), the seals that this option has set are lifted. If not given, they stay.
    type: bool
"""
