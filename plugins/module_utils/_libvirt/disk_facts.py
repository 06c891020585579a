# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The disks of a libvirt domain as its definition and the running guest have them, with their recipes. Pure.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from .._base.errors import BlockError
from .._base.record import Record
from .._source import recipe as _recipe
from .connection import Definition
from .domain_xml import Domain, Present

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .._source.spec import Source


class Side(Record):
    """A disk in the definition, or in the running guest. ``recipe``: its text, or None."""

    disk: Present | None
    recipe: str | None


class Facts(Record):
    """
    One disk. ``config`` and ``live`` are None where there is neither such a disk nor a recipe for it.
    ``source``: the recipe of the running guest if there is one, otherwise the definition's. ``problem``: what
    is wrong, or None. ``seal``: of the same recipe.
    """

    target: str
    config: Side | None
    live: Side | None
    source: Source | None
    problem: str | None
    seal: _recipe.Seal = _recipe.Seal()


def of_domain(definition: Definition) -> list[Facts]:
    """
    The Facts of all disks, in the order of the definition. DefinitionError if a definition cannot be parsed.
    """
    config, live = (_sides(text) for text in (definition.xml, definition.live))
    return [_facts(target, config.get(target), live.get(target)) for target in {**config, **live}]


def _sides(text: str | None) -> dict[str, Side]:
    if text is None:
        return {}
    domain = Domain(text)
    disks, recipes = {disk.target: disk for disk in domain.disks()}, domain.recipes()
    return {target: Side(disks.get(target), recipes.get(target)) for target in {**disks, **recipes}}


def _facts(target: str, config: Side | None, live: Side | None) -> Facts:
    source, problem, seal = None, None, _recipe.Seal()
    chosen = next((side for side in (live, config) if side is not None and side.recipe is not None), None)
    if chosen is not None and chosen.recipe is not None:
        try:
            source, seal = _recipe.parse(chosen.recipe, target), _recipe.seal_of(chosen.recipe, target)
        except BlockError as error:
            problem = str(error)
    return Facts(target, config, live, source, problem or _problem(config, live, target), seal)


def _problem(config: Side | None, live: Side | None, target: str) -> str | None:
    for side, where in ((config, "the definition"), (live, "the running guest")):
        if side is not None and side.disk is None:
            return f"{where} has a recipe for a disk that it does not have"
    if config is None or live is None or config.disk is None or live.disk is None:
        return None
    if config.disk.source != live.disk.source or not _are_same(config.recipe, live.recipe, target):
        return "the running guest has another disk than the definition describes"
    return None


def _are_same(one: str | None, other: str | None, target: str) -> bool:
    """Whether both recipes have the same source; one may be sealed and the other not."""
    if one == other or one is None or other is None:
        return one == other
    try:
        return _recipe.parse(one, target) == _recipe.parse(other, target)
    except BlockError:
        # One cannot be read: they are not known to be the same.
        return False
