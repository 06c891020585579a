# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Errors that the tools report without a traceback."""

from __future__ import annotations


class Problem(Exception):
    """One line for the user: what is wrong and what to do about it. Exit code 2."""


class Failed(Problem):
    """An operation failed, although nothing is missing or wrong on the user's side. Exit code 1."""


class Unavailable(Failed):
    """
    Something that others provide (a Debian suite, a kernel) is not available or does not start; another one
    may work.
    """
