# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The links of Markdown files in the archive."""

from __future__ import annotations

import pathlib

import pytest

CHECKOUT = pathlib.Path(__file__).resolve().parents[3]
ARCHIVE = {"README.md", "docs/a.md", "docs/images/p.svg", "roles/r/README.md", "roles/r/tasks/main.yml"}


@pytest.fixture
def links(monkeypatch):
    monkeypatch.syspath_prepend(str(CHECKOUT / "tools"))
    from archive import links

    return links


@pytest.fixture
def rewritten(links):
    def rewrite(text, path, url="https://forge.test/block/"):
        return links.rewritten(text, path, ARCHIVE, links.Repository(url, "1.2.3"))

    return rewrite


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("README.md", "[a](docs/a.md)", "[a](https://forge.test/block/blob/v1.2.3/docs/a.md)"),
        ("README.md", "[a](docs/a.md#x-y)", "[a](https://forge.test/block/blob/v1.2.3/docs/a.md#x-y)"),
        ("README.md", "[`a`](docs/a.md)", "[`a`](https://forge.test/block/blob/v1.2.3/docs/a.md)"),
        (
            "README.md",
            "![p\nq](docs/images/p.svg)",
            "![p\nq](https://forge.test/block/raw/v1.2.3/docs/images/p.svg)",
        ),
        ("roles/r/README.md", "[a](../../docs/a.md)", "[a](https://forge.test/block/blob/v1.2.3/docs/a.md)"),
        ("roles/r/README.md", "[r](../r)", "[r](https://forge.test/block/blob/v1.2.3/roles/r)"),
        ("docs/a.md", "[t](../tests/t.py)", "[t](https://forge.test/block/blob/v1.2.3/tests/t.py)"),
        ("docs/a.md", "[r](../roles/r/README.md) ![p](images/p.svg)", None),
        ("README.md", "[w](https://example.org/x) [h](#here) [m](mailto:a@b.test)", None),
        ("README.md", "`[a](docs/a.md)`\n\n```yaml\n[a](docs/a.md)\n```\n", None),
    ],
)
def test_a_file_that_is_not_shown_is_a_url(rewritten, path, text, expected):
    assert rewritten(text, path) == (text if expected is None else expected)


def test_while_there_is_no_repository_a_missing_file_is_no_link(rewritten):
    """RFC 2606: a domain below example leads nowhere."""
    text = "[a](docs/a.md) and [`test_x`](tests/x.py), ![p](docs/images/p.svg)"
    expected = "[a](docs/a.md) and `test_x`, ![p](docs/images/p.svg)"
    assert rewritten(text, "README.md", "https://racefree.example/block") == expected


def test_two_links_of_a_line_stay_apart(rewritten):
    url = "https://forge.test/block/blob/v1.2.3/docs/a.md"
    assert (
        rewritten("[a](docs/a.md), `b`, [c [d]](docs/a.md)", "README.md")
        == f"[a]({url}), `b`, [c [d]]({url})"
    )
