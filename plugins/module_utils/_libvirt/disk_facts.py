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
    kept, running = _read(config, "the definition", target), _read(live, "the running guest", target)
    chosen = running if live is not None and live.recipe is not None else kept
    problem = running.problem or kept.problem or _problem(config, live, kept, running)
    return Facts(target, config, live, chosen.source, problem, chosen.seal)


class _Recipe(Record):
    """The recipe of one side: ``source`` is None if it has none, or one that cannot be read (``problem``)."""

    source: Source | None = None
    seal: _recipe.Seal = _recipe.Seal()
    problem: str | None = None


def _read(side: Side | None, where: str, target: str) -> _Recipe:
    if side is None or side.recipe is None:
        return _Recipe()
    try:
        return _Recipe(_recipe.parse(side.recipe, target), _recipe.seal_of(side.recipe, target))
    except BlockError as error:
        return _Recipe(problem=f"the recipe in {where}: {error}")


def _problem(config: Side | None, live: Side | None, kept: _Recipe, running: _Recipe) -> str | None:
    """What is wrong with a disk whose recipes can be read. One of them may be sealed and the other not."""
    for side, where in ((config, "the definition"), (live, "the running guest")):
        if side is not None and side.disk is None:
            return f"{where} has a recipe for a disk that it does not have"
    if config is None or live is None or config.disk is None or live.disk is None:
        return None
    if config.disk.source != live.disk.source or kept.source != running.source:
        return "the running guest has another disk than the definition describes"
    return None
