# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Seals: block devices that nobody, root included, can open. The kernel asks a BPF program at every open.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""
