# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
A libvirt domain definition: its disks and their recipes, and how to add, change and remove both.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Pure: text in, text out. Everything that is not part of a change stays the same, byte for byte. libvirt
rewrites a definition when it is defined (it sorts, indents, and adds ``<address>``, ``<alias>``,
``<backingStore/>`` and so on), so disks are compared by meaning.

A definition can name a disk only by a path. So ``<source>`` has a path that is used only for this disk of
this domain (:func:`path_of`). The recipe for the device that must be there is in ``<metadata>``, where
libvirt keeps elements of other namespaces::

    <metadata>
      <racefree:disks xmlns:racefree='urn:ansible:racefree.block:disks:1'>
        <racefree:disk target='xvda'>{"file": "/srv/guests/web1.raw"}</racefree:disk>
      </racefree:disks>
    </metadata>
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

from .._base.errors import DefinitionError, InvalidValue, shown
from . import xml_edit
from .xml_edit import Element

NAMESPACE = "urn:ansible:racefree.block:disks:1"
PATHS = "/dev/mapper/racefree-"
# What the UUIDs of the disks' mapped devices begin with.
UUID_PREFIX = "RACEFREE-LIBVIRT-"
KEY = "racefree"
_PREFIX = KEY + ":"
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
_TARGET = re.compile(r"(?:xvd|vd|sd|hd|fd|ubd)[a-z]{1,3}[0-9]{0,3}\Z")
# Elements besides <source> that describe the medium of a disk, and do not apply to another medium.
_OF_THE_SOURCE = ("auth", "backingStore", "encryption", "mirror")
# Elements that precede <metadata> when libvirt writes a definition.
_HEAD = ("name", "uuid", "genid", "title", "description")


class Disk(NamedTuple):
    """
    A wanted disk. ``target``: like ``xvda``. ``path``: of the block device, None for an empty CD drive.
    ``driver``: ``phy`` or ``qemu``. ``device``: ``disk`` or ``cdrom``. ``bus``: None lets libvirt choose.
    """

    target: str
    path: str | None
    driver: str = "phy"
    device: str = "disk"
    read_only: bool = False
    shareable: bool = False
    bus: str | None = None


class Present(NamedTuple):
    """
    A disk in a definition. ``type``: kind of its source (``block``, ``file``, ``network`` ...). ``source``:
    its path, name or address, or None. ``xml``: text of the element.
    """

    target: str
    type: str
    source: str | None
    driver: str | None
    format: str | None
    device: str
    read_only: bool
    shareable: bool
    bus: str | None
    xml: str

    @property
    def mode(self) -> str:
        """``r`` or ``w``."""
        return "r" if self.read_only or self.device == "cdrom" else "w"

    def serves(self, disk: Disk) -> bool:
        """Whether the disk is equivalent to the wanted one."""
        # libvirt may leave out the driver of an empty drive, and choose its type.
        is_same = (
            self.source is None
            if disk.path is None
            else (self.type, self.source, self.driver, self.format)
            == ("block", disk.path, disk.driver, "raw")
        )
        return (
            is_same
            and (self.device, self.read_only, self.shareable) == (disk.device, disk.read_only, disk.shareable)
            and disk.bus in (None, self.bus)
        )


class Domain:
    """
    A parsed definition. ``uuid``, ``name``, ``type`` (like ``xen``) and ``id`` (of a running domain) are text
    or None.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            self.raw = text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DefinitionError("the definition contains invalid characters") from error
        self.root = root = xml_edit.parse(self.raw)
        if (root.namespace, root.name) != ("", "domain"):
            raise DefinitionError(f"the definition is one of <{root.name}>, not of <domain>")
        self.type = root.get("type")
        self.id = root.get("id")
        self.name = _text(root.first("name"))
        self.uuid = _canonical_uuid(_text(root.first("uuid")))

    @property
    def os_type(self) -> str | None:
        """``hvm``, ``linux`` (a paravirtual guest of Xen) and so on, or None."""
        system = self.root.first("os")
        return _text(None if system is None else system.first("type"))

    def disks(self) -> list[Present]:
        """All disks, as a list of Present, in the definition's order."""
        return [self.present(element) for element in self._disk_elements()]

    def disk(self, target: str) -> Present | None:
        """The disk with this target, or None."""
        element = self.disk_element(target)
        return None if element is None else self.present(element)

    def recipes(self) -> dict[str, str]:
        """The text of each recipe by its target. DefinitionError if one target has two."""
        targets = sorted({entry.get("target", "") for entry in self.recipe_elements()})
        return {
            target: recipe for target in targets for recipe in [self.recipe(target)] if recipe is not None
        }

    def recipe(self, target: str) -> str | None:
        """The text of this target's recipe, or None. DefinitionError if it has two."""
        found = self.recipe_elements(target)
        if len(found) > 1:
            raise DefinitionError(f"the definition has two recipes for {shown(target)}", device=self.name)
        return found[0].text.strip() if found else None

    @property
    def has_plain_recipes(self) -> bool:
        """Whether the metadata has nothing else of this collection than one list of recipes."""
        metadata = self.root.first("metadata")
        if metadata is None:
            return True
        lists = [child for child in metadata.children if child.namespace == NAMESPACE]
        return [element.name for element in lists] in ([], ["disks"]) and all(
            (entry.namespace, entry.name, [*entry.attributes], entry.children)
            == (NAMESPACE, "disk", ["target"], [])
            for element in lists
            for entry in element.children
        )

    def disk_element(self, target: str) -> Element | None:
        found = [element for element in self._disk_elements() if _target(element) == target]
        if len(found) > 1:
            raise DefinitionError(f"the definition has two disks {target}", device=self.name)
        return found[0] if found else None

    def recipe_elements(self, target: str | None = None) -> list[Element]:
        metadata = self.root.first("metadata")
        lists = [] if metadata is None else metadata.all("disks", NAMESPACE)
        return [
            entry
            for element in lists
            for entry in element.all("disk", NAMESPACE)
            if target in (None, entry.get("target", ""))
        ]

    def slice(self, element: Element) -> str:
        return self.raw[element.start : element.end].decode("utf-8")

    def _disk_elements(self) -> list[Element]:
        return [disk for devices in self.root.all("devices") for disk in devices.all("disk")]

    def present(self, element: Element) -> Present:
        source, driver, target = element.first("source"), element.first("driver"), element.first("target")
        kind = element.get("type", "file")
        return Present(
            _target(element),
            kind,
            _source_of(source, kind),
            None if driver is None else driver.get("name"),
            None if driver is None else driver.get("type"),
            element.get("device", "disk"),
            element.first("readonly") is not None,
            element.first("shareable") is not None,
            None if target is None else target.get("bus"),
            self.slice(element),
        )


@functools.lru_cache(maxsize=16)
def parsed(text: str) -> Domain:
    """The parsed definition. Many functions ask about the same text, so the last ones are kept."""
    return Domain(text)


def check_target(value: object, option: str = "vdev") -> str:
    """A disk's name in the guest, as libvirt accepts it, or InvalidValue."""
    if not isinstance(value, str) or not _TARGET.match(value):
        raise InvalidValue(option, value, "must be a disk's name in the guest, like xvda, vdb, hda or sda")
    return value


def check_uuid(value: object, option: str = "uuid") -> str:
    """A domain's UUID in lower case, or InvalidValue."""
    if not isinstance(value, str) or not _UUID.match(value.lower()):
        raise InvalidValue(option, value, "must be a domain's uuid: 8-4-4-4-12 hexadecimal digits")
    return value.lower()


def path_of(uuid: str, target: str) -> str:
    """
    The path of this disk in the definition of the domain ``uuid``: the path of the mapped device with
    :func:`mapped_uuid`.
    """
    return "/dev/mapper/" + mapped_name(uuid, target)


def mapped_name(uuid: str, target: str) -> str:
    return f"racefree-{check_uuid(uuid)}-{check_target(target)}"


def mapped_uuid(uuid: str, target: str) -> str:
    return f"{UUID_PREFIX}{check_uuid(uuid)}-{check_target(target)}"


def put(text: str, disk: Disk, recipe: str | None = None) -> str:
    """
    The definition (text) with the disk, and with its recipe (text) or without one. The same text if nothing
    has to change.

    Other elements of an existing disk (address, alias, boot order, tuning ...) are kept, except those that
    belong to another source.
    """
    check_target(disk.target)
    domain = parsed(text)
    edits = xml_edit.Edits(domain.raw)
    element = domain.disk_element(disk.target)
    if element is None:
        _add_disk(domain, edits, disk)
    elif not domain.present(element).serves(disk):
        _change_disk(edits, element, disk)
    if recipe is None:
        _remove_recipe(domain, edits, disk.target)
    else:
        _put_recipe(domain, edits, disk.target, recipe)
    return edits.done().decode("utf-8")


def drop(text: str, target: str) -> str:
    """The definition (text) without the disk of this target and without its recipe."""
    domain = parsed(text)
    edits = xml_edit.Edits(domain.raw)
    element = domain.disk_element(target)
    if element is not None:
        edits.remove(element)
    _remove_recipe(domain, edits, target)
    return edits.done().decode("utf-8")


def recipe_list(recipes: dict[str, str]) -> str | None:
    """
    The argument of virDomainSetMetadata for ``{target: recipe}``; None if there are no recipes. The call adds
    the namespace, and refuses a text that already has it (virXMLInjectNamespace in src/util/virxml.c).
    """
    return (
        "<disks>"
        + "".join(_entry(target, recipe, "") for target, recipe in sorted(recipes.items()))
        + "</disks>"
        if recipes
        else None
    )


def excerpt(text: str, target: str) -> str:
    """The parts of a definition about one disk, for a diff: its element and its recipe."""
    domain = parsed(text)
    disk = domain.disk_element(target)
    parts = [] if disk is None else [domain.slice(disk)]
    parts += [domain.slice(entry) for entry in domain.recipe_elements(target)]
    return "".join(part + "\n" for part in parts)


def _text(element: Element | None) -> str | None:
    return None if element is None else element.text.strip()


def _canonical_uuid(text: str | None) -> str | None:
    """Normalize a UUID: libvirt writes it with dashes, and also reads it without them."""
    digits = (text or "").replace("-", "").lower()
    if len(digits) != 32:
        return text or None
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _target(element: Element) -> str:
    target = element.first("target")
    return "" if target is None else target.get("dev", "")


def source_in(disk: str) -> str | None:
    """The source of a disk, given the text of its element."""
    element = xml_edit.parse(disk.encode())
    return _source_of(element.first("source"), element.get("type", "file"))


def _source_of(source: Element | None, kind: str) -> str | None:
    if source is None:
        return None
    if kind == "volume":
        return f"{source.get('pool', '')}/{source.get('volume', '')}"
    return source.get({"block": "dev", "file": "file", "dir": "dir"}.get(kind, "name"))


# Disks


def _add_disk(domain: Domain, edits: xml_edit.Edits, disk: Disk) -> None:
    devices = domain.root.first("devices")
    if devices is None:
        margin = _margin(edits, domain.root)
        step = margin and margin + "  "
        block = f"{margin}<devices>{disk_text(disk, step)}{margin}</devices>"
        _append(edits, domain.root, block, margin)
        return
    before = devices.all("disk") or devices.all("emulator")
    if before:
        edits.insert(before[-1].end, disk_text(disk, edits.indent(before[-1])))
    elif devices.children:
        edits.insert(devices.inside, disk_text(disk, edits.indent(devices.children[0])))
    else:
        outer = edits.indent(devices)
        _append(edits, devices, disk_text(disk, outer and outer + "  "), outer)


def disk_text(disk: Disk, indent: str = "") -> str:
    """The element of a wanted disk, each line after the text ``indent`` (a line end and spaces, or empty)."""
    quoted, inner = xml_edit.quoted, indent and indent + "  "
    parts = [
        f"<driver name={quoted(disk.driver)} type='raw'/>",
        *([] if disk.path is None else [f"<source dev={quoted(disk.path)}/>"]),
        f"<target dev={quoted(disk.target)}{'' if disk.bus is None else ' bus=' + quoted(disk.bus)}/>",
    ]
    parts += ["<readonly/>"] if disk.read_only else []
    parts += ["<shareable/>"] if disk.shareable else []
    content = "".join(inner + part for part in parts)
    return f"{indent}<disk type='block' device={quoted(disk.device)}>{content}{indent}</disk>"


def _change_disk(edits: xml_edit.Edits, element: Element, disk: Disk) -> None:
    if element.get("type", "file") != "block":
        edits.set_attribute(element, "type", "block")
    if element.get("device", "disk") != disk.device:
        edits.set_attribute(element, "device", disk.device)
    _change_driver(edits, element, disk)
    _change_source(edits, element, disk)
    target = element.required("target")
    if disk.bus is not None and disk.bus != target.get("bus"):
        edits.set_attribute(target, "bus", disk.bus)
        # An address is one on the old bus. libvirt gives the disk a new one.
        for address in element.all("address"):
            edits.remove(address)
    for name, wanted in (("readonly", disk.read_only), ("shareable", disk.shareable)):
        flags = element.all(name)
        if wanted and not flags:
            edits.insert(target.end, f"{edits.indent(target)}<{name}/>")
        for flag in [] if wanted else flags:
            edits.remove(flag)


def _change_driver(edits: xml_edit.Edits, element: Element, disk: Disk) -> None:
    driver = element.first("driver")
    if driver is None:
        first = element.children[0]
        edits.insert(
            element.inside, f"{edits.indent(first)}<driver name={xml_edit.quoted(disk.driver)} type='raw'/>"
        )
        return
    for name, value in (("name", disk.driver), ("type", "raw")):
        if driver.get(name) != value:
            edits.set_attribute(driver, name, value)


def _change_source(edits: xml_edit.Edits, element: Element, disk: Disk) -> None:
    sources = element.all("source")
    if disk.path is None:
        for child in sources + [child for name in _OF_THE_SOURCE for child in element.all(name)]:
            edits.remove(child)
        return
    if element.get("type", "file") == "block" and len(sources) == 1 and sources[0].get("dev") == disk.path:
        return
    new = f"<source dev={xml_edit.quoted(disk.path)}/>"
    if sources:
        edits.replace(sources[0].start, sources[0].end, new)
    else:
        target = element.required("target")
        edits.insert(edits.space_before(target.start), edits.indent(target) + new)
    for other in sources[1:] + [child for name in _OF_THE_SOURCE for child in element.all(name)]:
        edits.remove(other)


# Recipes


def _put_recipe(domain: Domain, edits: xml_edit.Edits, target: str, recipe: str) -> None:
    there = domain.recipe_elements(target)
    if there:
        if there[0].text.strip() != recipe or there[0].children:
            _exchange_content(edits, there[0], xml_edit.text_of(recipe))
        for other in there[1:]:
            edits.remove(other)
        return
    metadata = domain.root.first("metadata")
    lists = [] if metadata is None else metadata.all("disks", NAMESPACE)
    if lists and lists[-1].children:
        last = lists[-1].children[-1]
        edits.insert(last.end, edits.indent(last) + _entry(target, recipe, edits.prefix(lists[-1])))
    elif lists:
        outer = edits.indent(lists[-1])
        _append(
            edits,
            lists[-1],
            (outer and outer + "  ") + _entry(target, recipe, edits.prefix(lists[-1])),
            outer,
        )
    elif metadata is None:
        _add_metadata(domain, edits, target, recipe)
    elif metadata.children:
        last = metadata.children[-1]
        edits.insert(last.end, _list(target, recipe, edits.indent(last)))
    else:
        outer = edits.indent(metadata)
        _append(edits, metadata, _list(target, recipe, outer and outer + "  "), outer)


def _add_metadata(domain: Domain, edits: xml_edit.Edits, target: str, recipe: str) -> None:
    head = [child for child in domain.root.children if not child.namespace and child.name in _HEAD]
    anchor = head[-1] if head else None
    margin = edits.indent(anchor) if anchor is not None else _margin(edits, domain.root)
    block = f"{margin}<metadata>{_list(target, recipe, margin and margin + '  ')}{margin}</metadata>"
    if anchor is not None:
        edits.insert(anchor.end, block)
    else:
        _append(edits, domain.root, block, margin)


def _list(target: str, recipe: str, indent: str) -> str:
    entry = (indent and indent + "  ") + _entry(target, recipe, _PREFIX)
    return (
        f"{indent}<{_PREFIX}disks xmlns:{KEY}={xml_edit.quoted(NAMESPACE)}>{entry}{indent}</{_PREFIX}disks>"
    )


def _entry(target: str, recipe: str, prefix: str) -> str:
    return f"<{prefix}disk target={xml_edit.quoted(target)}>{xml_edit.text_of(recipe)}</{prefix}disk>"


def _exchange_content(edits: xml_edit.Edits, element: Element, text: str) -> None:
    if element.is_closed_at_once:
        edits.fill(element, text, "")
    else:
        edits.replace(element.inside, element.outside, text)


def _remove_recipe(domain: Domain, edits: xml_edit.Edits, target: str) -> None:
    """Also remove the list and the metadata if they become empty."""
    for entry in domain.recipe_elements(target):
        edits.remove(entry)
        holder = entry.parent
        while (
            holder is not None and holder is not domain.root and edits.is_blank(holder.inside, holder.outside)
        ):
            edits.drop_within(edits.space_before(holder.start), holder.end)
            edits.remove(holder)
            holder = holder.parent


def _margin(edits: xml_edit.Edits, root: Element) -> str:
    """The indentation of the root's children."""
    return edits.indent(root.children[0]) if root.children else ""


def _append(edits: xml_edit.Edits, element: Element, text: str, last_indent: str) -> None:
    """
    Append the text to an element's content. ``last_indent`` is the indentation of the element's end tag.
    """
    if element.children:
        last = element.children[-1]
        edits.insert(last.end, text)
    elif element.is_closed_at_once:
        edits.fill(element, text, last_indent)
    else:
        edits.insert(element.inside, text if element.inside != element.outside else text + last_indent)
