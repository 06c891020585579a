# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the tools report instead of a traceback."""

from __future__ import annotations


class Problem(Exception):
    """One line for the user: what is wrong and what to do about it. Exit code 2."""


class Failed(Problem):
    """Something that was tried and did not work, with nothing missing on the user's side. Exit code 1."""


class Unavailable(Failed):
    """What others provide, a Debian suite or a kernel, cannot be had or does not start: another one may do."""
