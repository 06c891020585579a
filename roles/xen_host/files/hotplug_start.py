# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The Python half of the hotplug script block-racefree: hotplug_start.py FORM add|remove.

It is installed in the library. The modules are loaded from one file, hotplug.codes, which unpack.py makes: to
find, open and read thirty files would take as long as everything else that the script does. Modules that are
not in that file are imported as usual, and so are all modules if another version of Python made the file.
"""

import marshal
import os
import sys
from _frozen_importlib_external import MAGIC_NUMBER

HERE = __file__.rpartition("/")[0]
PACKAGE = "racefree_block"
# The size of the index at the beginning of the file, in bytes.
INDEX_SIZE = 4096
Spec = type(sys.__spec__)


class Codes:
    """Finds and loads (importlib.abc) the modules in the file."""

    def __init__(self, path):
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self.index = {}
            return
        head = os.pread(self.fd, INDEX_SIZE, 0)
        # Where each module's code is, its size in bytes, and whether it is a package.
        self.index = marshal.loads(head[4:]) if head[:4] == MAGIC_NUMBER else {}

    def find_spec(self, name, path=None, target=None):
        if name not in self.index:
            return None
        is_package = self.index[name][2]
        spec = Spec(name, self, is_package=is_package)
        if is_package:
            spec.submodule_search_locations.append(HERE + name[len(PACKAGE) :].replace(".", "/"))
        return spec

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        place, size, _is_package = self.index[module.__name__]
        exec(
            marshal.loads(os.pread(self.fd, size, place)), module.__dict__
        )  # the library's own code, which the role compiled

    def get_source(self, name):
        """The text of a module, for a process that needs its own copy of the library."""
        path = HERE + name[len(PACKAGE) :].replace(".", "/")
        with open(path + ("/__init__.py" if self.index[name][2] else ".py"), encoding="utf-8") as file:
            return file.read()


def main():
    # The interpreter starts without site packages, which is faster. cffi is searched for in
    # Debian's directory and in the library.
    sys.path.insert(0, HERE.rpartition("/")[0])
    sys.path.append("/usr/lib/python3/dist-packages")
    sys.meta_path.insert(0, Codes(HERE + "/hotplug.codes"))
    form = sys.argv.pop(1)
    if form == "serve":
        from racefree_block._hotplug.service import serve

        serve()
        os._exit(0)

    from racefree_block._hotplug.script import main as hotplug

    code = hotplug(sys.argv, os.environ, form)
    sys.stderr.flush()
    # Not sys.exit: there is nothing to clean up, and the kernel ends the process faster.
    os._exit(code)


main()
