# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Relative links of Markdown files, as they must be in the archive.

Galaxy shows README files, but not the files that they link to, and tests are not in the archive: such links
become URLs of the repository that galaxy.yml names. As long as that is a placeholder, links between files of
the archive stay relative, and the other ones become plain text.
"""

from __future__ import annotations

import posixpath
import re
import urllib.parse
from collections.abc import Collection

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
_CODE = re.compile(r"(```.*?^ *```|`[^`\n]*`)", re.DOTALL | re.MULTILINE)
_WEB = re.compile(r"[a-z]+:|#")
# RFC 2606: nobody can own a domain below it.
_PLACEHOLDER = ".example"


class Repository:
    """``url``: the key ``repository`` of galaxy.yml. ``version``: of the collection; its tag is vVERSION."""

    def __init__(self, url: str, version: str) -> None:
        self._url, self._version = url.rstrip("/"), version
        self.is_placeholder = (urllib.parse.urlsplit(url).hostname or "").endswith(_PLACEHOLDER)

    def of(self, path: str, is_picture: bool) -> str:
        """The URL of a file of this version: of its page, or of the bytes of a picture."""
        return f"{self._url}/{'raw' if is_picture else 'blob'}/v{self._version}/{path}"


def rewritten(text: str, path: str, archive: Collection[str], repository: Repository) -> str:
    """
    The text of the Markdown file at ``path`` as it must be in the archive, which contains the files
    ``archive``. Paths are relative to the root of the collection.
    """

    def replace(match: re.Match[str]) -> str:
        picture, words, target = match.groups()
        if _WEB.match(target):
            return match.group()
        file, _hash, place = target.partition("#")
        file = posixpath.normpath(posixpath.join(posixpath.dirname(path), file))
        is_there = file in archive or any(each.startswith(f"{file}/") for each in archive)
        if repository.is_placeholder:
            return match.group() if is_there else str(words)
        if is_there and posixpath.basename(path) != "README.md":
            return match.group()
        url = repository.of(file, bool(picture)) + (f"#{place}" if place else "")
        return f"{picture}[{words}]({url})"

    parts = _CODE.split(text)
    # Odd parts are code, but the text of a link may have code in it.
    plain = "\0".join(parts[::2])
    codes = iter(parts[1::2])
    return re.sub("\0", lambda _match: next(codes), _LINK.sub(replace, plain))
