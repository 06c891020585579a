# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What xenguest reports instead of a traceback."""

from __future__ import annotations


class GuestProblem(Exception):
    """
    One line for the user; ``code`` is the exit code: 1 it failed, 2 wrong use, 125 the guest does not answer.
    """

    def __init__(self, message, code=1):
        super().__init__(message)
        self.code = code
