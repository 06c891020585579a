# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
xl's own parser of configurations (libxlutil), compared with the collection's.

``xlutil.py CORPUS SEED COUNT`` compares generated configurations; exit code 1 if xl reads one in another way,
or refuses one that the collection accepts. The library is found by its name, or with LD_LIBRARY_PATH.
"""

from __future__ import annotations

import collections
import ctypes
import glob
import os
import pathlib
import random
import sys

if __name__ == "__main__":
    sys.path.insert(0, os.environ.get("RACEFREE_SITE", "/root/site"))

from ansible_collections.racefree.block.plugins.module_utils._base.errors import DefinitionError
from ansible_collections.racefree.block.plugins.module_utils._xl import edit
from ansible_collections.racefree.block.plugins.module_utils._xl.config import Config
from ansible_collections.racefree.block.plugins.module_utils._xl.disk_text import SCRIPT, DiskText

ADDED = DiskText("xvdq", "recipe:a-xvdq", script=SCRIPT)
# Pieces of configurations, and of disks.
WORDS = (
    "disk = [ ] += , ; \n #c\n 'a,,sda' 'phy:/x,xvdb,w' \"file:/x,hdc:cdrom,r\" 'vdev=sdc,target=a,b' 5 name "
    "'x\\'y' 'raw:/a,sdd' disk= \r \\ ' \" ' '"
).split(" ")
TARGETS = ("phy:/a", "/a", "raw:/a", "a", "file:b", "iscsi:i", "", "tap:aio:/x", "ioemu:z", "foo:b", "foo:/b")
FORMATS = ("", "raw", "qcow2", "sda", "xvdb:cdrom", "ioemu:hda")
VDEVS = ("sda", "hdc:cdrom", "xvdb", "", "d5")
MODES = ("r", "w", "", "rw", "cdrom", "x")
MORE = (
    "cdrom discard no-discard direct-io-safe colo vdev= vdev=xvda target= target=x target=x, format= "
    "format=raw format=qcow2 access=r access= access=rw backendtype=phy backendtype=x script=s script= "
    "backend=d devtype=cdrom devtype=disk devtype=x x=1 xx=yy A: 9: colo-port=5 colo-port=x colo-host=h"
).split(" ")


class _Disk(ctypes.Structure):
    """The beginning of libxl_device_disk (tools/libs/light/libxl_types.idl of Xen), and room for its rest."""

    _fields_ = (
        ("backend_domid", ctypes.c_uint32),
        ("backend_domname", ctypes.c_char_p),
        ("pdev_path", ctypes.c_char_p),
        ("vdev", ctypes.c_char_p),
        ("backend", ctypes.c_int),
        ("format", ctypes.c_int),
        ("script", ctypes.c_char_p),
        ("removable", ctypes.c_int),
        ("readwrite", ctypes.c_int),
        ("is_cdrom", ctypes.c_int),
        ("rest", ctypes.c_char * 1024),
    )


class Xlutil:
    """libxlutil. Its messages are dropped."""

    def __init__(self):
        places = [*os.environ.get("LD_LIBRARY_PATH", "").split(":"), "/usr/lib/x86_64-linux-gnu"]
        found = [path for place in places if place for path in glob.glob(f"{place}/libxlutil.so.4.*")]
        self.library = library = ctypes.CDLL(found[0])
        pointer, text = ctypes.c_void_p, ctypes.c_char_p
        library.xlu_cfg_init.restype = pointer
        library.xlu_cfg_init.argtypes = (pointer, text)
        library.xlu_cfg_destroy.argtypes = (pointer,)
        library.xlu_cfg_readdata.argtypes = (pointer, text, ctypes.c_int)
        library.xlu_cfg_get_list.argtypes = (
            pointer,
            text,
            ctypes.POINTER(pointer),
            ctypes.POINTER(ctypes.c_int),
            ctypes.c_int,
        )
        library.xlu_cfg_get_listitem.argtypes = (pointer, ctypes.c_int)
        library.xlu_cfg_get_listitem.restype = text
        library.xlu_disk_parse.argtypes = (pointer, ctypes.c_int, ctypes.POINTER(text), pointer)
        system = ctypes.CDLL(None)
        system.fopen.restype = pointer
        self.nowhere = pointer(system.fopen(b"/dev/null", b"w"))

    def disks(self, text):
        """
        ``[(vdev, target, writable, cdrom, script, backend)]`` of a configuration (bytes), as xl reads it;
        None if it refuses the configuration or one of the disks.
        """
        library, config = self.library, self.library.xlu_cfg_init(self.nowhere, b"test")
        try:
            if library.xlu_cfg_readdata(config, text, len(text)):
                return None
            listed, count = ctypes.c_void_p(), ctypes.c_int()
            if library.xlu_cfg_get_list(config, b"disk", ctypes.byref(listed), ctypes.byref(count), 1):
                return []
            found = [
                self._disk(config, library.xlu_cfg_get_listitem(listed, index))
                for index in range(count.value)
            ]
        finally:
            library.xlu_cfg_destroy(config)
        return None if None in found else found

    def _disk(self, config, text):
        disk = _Disk()
        if text is None or self.library.xlu_disk_parse(
            config, 1, (ctypes.c_char_p * 1)(text), ctypes.byref(disk)
        ):
            return None
        return (
            disk.vdev,
            disk.pdev_path or b"",
            bool(disk.readwrite),
            bool(disk.is_cdrom),
            disk.script or b"",
            disk.backend_domname or b"",
        )


def ours(config):
    """What the collection has read, in the same form."""

    def plain(text):
        return (text or "").encode("utf-8", "surrogateescape")

    return [
        (
            plain(says.vdev),
            plain(says.target),
            says.access == "w",
            says.device_type == "cdrom",
            plain(says.script),
            plain(says.backend),
        )
        for says in (disk.says for disk in config.disks)
    ]


def difference(xl, text):
    """
    ``(what happened, what is wrong or None)``. The collection may refuse more than xl. A disk that it adds or
    removes must be one for xl, too.
    """
    theirs = xl.disks(text)
    try:
        config = Config(text, "generated")
    except DefinitionError:
        return ("refused" if theirs is None else "refused only here"), None
    if theirs != ours(config):
        return "wrong", f"xl reads {theirs}, and the collection {ours(config)}"
    if config.disk("xvdq") is None:
        added = edit.put(config, ADDED)
        if xl.disks(added) != [*theirs, (b"xvdq", b"recipe:a-xvdq", True, False, SCRIPT.encode(), b"")]:
            return "wrong", f"with a disk added, xl reads {xl.disks(added)}"
        if edit.drop(Config(added, "generated"), "xvdq") != text:
            return "wrong", "added and removed again, it is another text"
    for index, disk in enumerate(config.disks):
        if xl.disks(edit.drop(config, disk.says.vdev)) != theirs[:index] + theirs[index + 1 :]:
            return "wrong", f"without {disk.says.vdev}, xl reads other disks"
    return "the same", None


def generated(chance, corpus):
    """A configuration: a mutated one of the corpus, random pieces, or one disk of random parameters."""
    kind = chance.random()
    if kind < 0.35:
        text = bytearray(chance.choice(corpus))
        for _mutation in range(chance.randint(1, 2)):
            place = chance.randrange(len(text) + 1)
            new = chance.choice((b"", chance.choice(WORDS).encode(), bytes([chance.randrange(1, 256)])))
            text[place : place + chance.choice((0, 1, 6))] = new
        return bytes(text)
    if kind < 0.5:
        return "".join(chance.choice((word, f"{word} ")) for word in chance.choices(WORDS, k=9)).encode()
    parts = [chance.choice(options) for options in (TARGETS, FORMATS, VDEVS, MODES)]
    if chance.random() < 0.2:
        chance.shuffle(parts)
    for more in chance.choices(MORE, k=chance.randint(0, 2)):
        parts.insert(chance.randrange(len(parts) + 1), chance.choice(("", " ")) + more)
    if chance.random() < 0.5:
        parts.append("target=q, r:s")
    quote, end = chance.choice("'\""), chance.choice(("", " ,", "\n", "#x\n"))
    return f"name='a'\ndisk = [ {quote}{','.join(parts)}{quote}{end}]\n".encode()


def compare(corpus, seed, count):
    """``(how often what happened, [(text, what is wrong)])`` for so many configurations."""
    chance, xl = random.Random(seed), Xlutil()
    happened, wrong = collections.Counter(), []
    for _number in range(count):
        text = generated(chance, corpus)
        what, problem = difference(xl, text)
        happened[what] += 1
        if problem is not None:
            wrong.append((text, problem))
    return happened, wrong


def main(argv):
    corpus = [path.read_bytes() for path in sorted(pathlib.Path(argv[1]).iterdir())]
    happened, wrong = compare(corpus, int(argv[2]), int(argv[3]))
    for text, problem in wrong:
        print(f"{text!r}: {problem}")
    print(dict(happened))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
