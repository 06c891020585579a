# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Documentation fragments that are made from others, so that each option is documented once. Pure.

Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.

A fragment is YAML text with ``options``. Option names in its descriptions, as in ``O(size=0)``, are those of
the module itself; names of other plugins' options have ``#``, as in ``O(ns.name.plugin#module:option)``.

Attributes that are made here are annotated (``LIST: str = in_list(...)``): the yamllint of ansible-test takes
what is assigned without an annotation for a string.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from typing import Any

import yaml

_OWN_OPTION = re.compile(r"\bO\((?![\w.]+#)")


def in_list(option: str, *fragments: str) -> str:
    """
    The options of the fragments as sub-options of the list ``option``. Where an option is in two fragments,
    the first one says more of it, as in Ansible.
    """
    merged: dict[str, Any] = {}
    for fragment in fragments:
        for name, described in yaml.safe_load(fragment)["options"].items():
            merged[name] = {**described, **merged.get(name, {})}
    inner = _with_names(merged, lambda text: _OWN_OPTION.sub(f"O({option}[].", text))
    return json.dumps({"options": {option: {"suboptions": inner}}})


def keys_as(option: str, fragment: str, keys: Collection[str]) -> str:
    """
    Some of the sub-options of the only option in a fragment, as those of another option. Paragraphs about the
    others are left out.
    """
    ((old, described),) = yaml.safe_load(fragment)["options"].items()
    about_others = re.compile(rf"\bO\({old}\.(?!(?:{'|'.join(keys)})\b)")
    some = {}
    for key in keys:
        told = _as_list(described["suboptions"][key]["description"])
        told = [text for text in told if not about_others.search(text)]
        some[key] = {**described["suboptions"][key], "description": told}
    some = _with_names(some, lambda text: text.replace(f"O({old}.", f"O({option}."))
    return json.dumps({"options": {option: {"type": described["type"], "suboptions": some}}})


def _with_names(options: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """The options with changed descriptions, at each level."""
    changed = {}
    for name, described in options.items():
        told = described.get("description", [])
        changed[name] = {**described, "description": [change(text) for text in _as_list(told)]}
        if "suboptions" in described:
            changed[name]["suboptions"] = _with_names(described["suboptions"], change)
    return changed


def _as_list(told: Any) -> list[str]:
    return [told] if isinstance(told, str) else list(told)
