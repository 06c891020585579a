# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sphinx's configuration of the documentation site, which tests/setup/docs makes."""

from __future__ import annotations

import pathlib

import yaml
from docutils import nodes

_TOP = pathlib.Path(__file__).resolve().parents[2]
_GALAXY = yaml.safe_load((_TOP / "galaxy.yml").read_text(encoding="utf-8"))

project = f"{_GALAXY['namespace']}.{_GALAXY['name']}"
copyright = "The racefree.block contributors"
version = release = str(_GALAXY["version"])
html_title = f"{project} {release}"

extensions = ["myst_parser", "sphinx_antsibull_ext", "sphinxcontrib.mermaid"]
include_patterns = [
    "index.md",
    "CODE_OF_CONDUCT.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "collections/racefree/block/**",
    "docs/*.md",
    "docs/campaign/*.md",
    "docs/decisions/*.md",
    "roles/*/README.md",
    "tests/kernel/README.md",
]
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
pygments_style = "default"
pygments_dark_style = "monokai"
# Links to a heading (docs/devices.md#sources) are checked down to this level.
myst_heading_anchors = 4
myst_enable_extensions = ["deflist"]
myst_fence_as_directive = ["mermaid"]

# Labels of ansible-core's own documentation. They are not looked up there, so that no network is needed.
_CORE = "https://docs.ansible.com/ansible/latest"
_CORE_PAGES = {
    "common_return_values": "reference_appendices/common_return_values.html",
    "list_of_collections": "collections/index.html",
}


def _link_to_core(_app, _env, node, content):
    """A link to a page of ansible-core for a label that is not on this site, or None: then Sphinx warns."""
    target = node.get("reftarget", "").lower()
    page = _CORE_PAGES.get(target)
    if target.startswith("ansible_collections.ansible.builtin."):
        page = f"collections/ansible/builtin/{target.rsplit('.', 1)[1]}.html"
    if page is None:
        return None
    return nodes.reference("", "", content, refuri=f"{_CORE}/{page}", internal=False)


def _drop_contents(_app, doctree):
    """Remove a page's own list of its headings: the theme shows one beside the page."""
    for each in list(doctree.findall(nodes.topic)):
        if "contents" in each["classes"]:
            each.parent.remove(each)


def setup(app):
    app.connect("missing-reference", _link_to_core)
    app.connect("doctree-read", _drop_contents)
