# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The hotplug script as the role installs it: the shell part, the Python part, and the file with its modules.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
FILES = ROOT / "roles/xen_host/files"
FLOOR = ROOT / "plugins/module_utils"
PYTHON = os.path.realpath(sys.executable)


class Host:
    """The hotplug script, with all its paths below one directory."""

    def __init__(self, place):
        self.state = place / "state"
        self.vbds = place / "devices"
        self.library = place / "lib/racefree_block"
        self.service = place / "service"
        for directory in (self.state, self.vbds):
            directory.mkdir()
        texts = {
            str(path.relative_to(FLOOR)): path.read_text(encoding="utf-8") for path in FLOOR.rglob("*.py")
        }
        assert "/run/racefree-block/service" in texts["_hotplug/service.py"]
        texts["_hotplug/service.py"] = texts["_hotplug/service.py"].replace(
            "/run/racefree-block/service", str(self.service)
        )
        texts["hotplug_start.py"] = (FILES / "hotplug_start.py").read_text(encoding="utf-8")
        subprocess.run(
            [PYTHON, "-I", FILES / "unpack.py", self.library],
            input=json.dumps(texts).encode(),
            check=True,
            timeout=120,
        )
        program = (FILES / "block-racefree").read_text(encoding="utf-8")
        for ours, its in (
            ("/usr/local/lib/racefree-block/racefree_block", self.library),
            ("/run/racefree-block/hotplug", self.state),
            ("/sys/bus/xen-backend/devices", self.vbds),
            ("/usr/bin/python3", PYTHON),
            ("/run/racefree-block/service", self.service),
        ):
            assert ours in program
            program = program.replace(ours, str(its))
        self.script = place / "block-racefree"
        self.script.write_text(program, encoding="utf-8")
        self.script.chmod(0o755)

    @contextlib.contextmanager
    def serving(self, store="/nonexistent"):
        """Run the service with a XenStore at that socket."""
        with subprocess.Popen(
            [PYTHON, "-IS", self.library / "hotplug_start.py", "serve"],
            env={"XENSTORED_PATH": str(store), "XENSTORED_RUNDIR": "/nonexistent"},
        ) as process:
            try:
                wait_until((self.service / "server").exists, "the service")
                yield process
            finally:
                process.kill()

    def call(self, *words, path="backend/vbd/5/51728", preexec_fn=None, **more):
        """Run the script; returns ``(exit code, output)``."""
        done = subprocess.run(
            [self.script, *words],
            env={"XENBUS_PATH": path, "PATH": "/usr/bin:/bin", **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=60,
            preexec_fn=preexec_fn,
        )
        return done.returncode, done.stdout.decode()

    def keep(self, *names):
        for name in names:
            (self.state / name).write_text("target=/dev/none\n", encoding="ascii")

    def remove_sources(self):
        """Remove all modules of the library except the program itself."""
        for path in self.library.rglob("*.py"):
            if path.name != "hotplug_start.py":
                path.unlink()

    def begin_with(self, lines):
        """Make the program run this code before its own work."""
        start, first = (
            self.library / "hotplug_start.py",
            "from racefree_block._hotplug.script import main as hotplug",
        )
        text = start.read_text(encoding="utf-8")
        assert text.count(first) == 1
        start.write_text(text.replace(first, f"{lines}\n    {first}"), encoding="utf-8")

    def kept(self):
        return sorted(path.name for path in self.state.iterdir())


def wait_until(condition, what, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"timed out waiting for {what}"
        time.sleep(0.01)


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


@pytest.mark.parametrize(
    "words, path, message",
    [
        (["add"], "backend/vbd/5", "backend/vbd/DOMID/DEVID"),
        (["add", "more"], "backend/vbd/5/51728", "add or remove"),
        ([], "", "add or remove"),
        (["remove"], "backend/vbd/5/x", "backend/vbd/DOMID/DEVID"),
        (["remove"], "backend/vbd//51728", "backend/vbd/DOMID/DEVID"),
        (["remove"], "backend/vbd/5/1/../../x", "backend/vbd/DOMID/DEVID"),
        (["remove"], "/etc/passwd", "backend/vbd/DOMID/DEVID"),
    ],
)
def test_wrong_calls(host, words, path, message):
    code, text = host.call(*words, path=path)
    assert code == 1 and message in text and "Traceback" not in text


def test_remove_needs_no_python_for_what_the_script_served(host):
    """
    The script removes its own file, and files orphaned by killed runs. Files of other disks stay: each disk
    of a guest has its own call.
    """
    host.script.write_text(host.script.read_text().replace(PYTHON, "/nonexistent"))
    own = os.getpid()
    host.keep(
        "5-51728",
        "5-51744",
        "5-51760",
        "55-51760",
        "6-51712",
        "7-51712",
        f".8-51712.{own}",
        ".8-51712.999999999",
    )
    for name in ("5-51744", "7-51712"):
        (host.vbds / f"vbd-{name}").mkdir()
    assert host.call("remove") == (0, "")
    assert host.kept() == [f".8-51712.{own}", "5-51744", "5-51760", "7-51712"]
    # Another call has already removed the file. But if this is the default script, the disk may belong to
    # Xen's own script, which the Python part checks.
    assert host.call("remove") == (0, "")
    assert host.call("remove", script="/etc/xen/scripts/block")[0] == 127


def test_names_are_not_interpreted(host):
    host.keep("5-51728", "6-5 -rf", "6-$(id)", "6-;id")
    assert host.call("remove") == (0, "") and host.kept() == []


def test_modules_are_loaded_from_the_compiled_file(host):
    host.remove_sources()
    code, text = host.call("add", XENSTORED_PATH="/nonexistent/socket", XENSTORED_RUNDIR="/nonexistent")
    assert (
        code == 1
        and ("xenstored cannot be reached" in text or "XenStore" in text)
        and "Traceback" not in text
    )


@pytest.mark.parametrize("damage", ["another Python's", "gone"])
def test_without_the_compiled_file(host, damage):
    codes = host.library / "hotplug.codes"
    if damage == "gone":
        codes.unlink()
    else:
        codes.write_bytes(b"\0\0\r\n" + codes.read_bytes()[4:])
    code, text = host.call("add", path="nonsense")
    assert code == 1 and "backend/vbd/DOMID/DEVID" in text and "Traceback" not in text
    host.remove_sources()
    assert "ModuleNotFoundError" in host.call("add", path="nonsense")[1]


def test_modules_missing_in_the_compiled_file_are_loaded_from_their_own(host):
    """For example, the modules of the hook."""
    host.begin_with(
        "from racefree_block._hotplug import script\n    from racefree_block._libvirt import hook\n"
        "    print(type(script.__spec__.loader).__name__, hook.__file__, file=sys.stderr)"
    )
    code, text = host.call("add", path="nonsense")
    assert code == 1 and text.startswith(f"Codes {host.library}/_libvirt/hook.py")


def test_the_compiled_file_has_all_modules_of_the_script(host):
    """Each module of the hotplug script can be imported from this file alone."""
    names = [
        path.stem
        for path in FLOOR.glob("_hotplug/*.py")
        if path.stem not in ("__init__", "service", "keeper", "recipe_target")
    ]
    assert len(names) >= 5
    host.remove_sources()
    host.begin_with(
        f"from racefree_block._hotplug import {', '.join(names)}\n"
        "    from racefree_block._dm import control\n    from racefree_block._xen import vdev"
    )
    assert "backend/vbd/DOMID/DEVID" in host.call("add", path="nonsense")[1]


def test_the_compiled_file_has_no_modules_for_recipes_only(host):
    """It is found beside it, and only when a target names a recipe."""
    host.begin_with(
        "from racefree_block._hotplug import script, service\n"
        "    from racefree_block._hotplug import recipe_target\n"
        "    print(type(script.__spec__.loader).__name__, recipe_target.__file__, file=sys.stderr)"
    )
    assert f"Codes {host.library}/_hotplug/recipe_target.py" in host.call("add", path="nonsense")[1]
    assert b"_dm_table" not in (host.library / "hotplug.codes").read_bytes()[:4096]


def test_targets_without_a_recipe_import_nothing_for_them(host):
    host.begin_with(
        "from racefree_block._hotplug import add, target, worker\n"
        "    target.parse('file:/dev/null', True)\n"
        "    found = [name for name in sys.modules if 'recipe' in name or '_dm_table' in name]\n"
        "    print(found, file=sys.stderr)"
    )
    assert host.call("add", path="nonsense")[1].startswith("[]\n")


def test_the_texts_that_the_role_replaces_exist():
    """The program contains the texts that vars/main.yml replaces."""
    program = (FILES / "block-racefree").read_text(encoding="utf-8")
    variables = (ROOT / "roles/xen_host/vars/main.yml").read_text(encoding="utf-8")
    for text in ("\nPYTHON=/usr/bin/python3\n", "\nFORM=diskseq\n"):
        assert program.count(text) == 1 and f"replace('{text.strip()}', " in variables


def children(pid):
    return [
        int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    ]


def descriptors(pid):
    found = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        # A thread may close the descriptor in the meantime.
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(path))
    return sorted(found)


def test_the_service_does_the_same_as_the_script(host):
    """Python is not started, and errors are reported as without the service."""
    without = host.call("add")
    assert without[0] == 1
    host.script.write_text(host.script.read_text().replace(f"PYTHON={PYTHON}", "PYTHON=/nonexistent"))
    with host.serving() as service:
        before = descriptors(service.pid)
        # Modules are read from this file when they are needed.
        assert str(host.library / "hotplug.codes") in before
        code, text = host.call("add", XENSTORED_PATH="/elsewhere")
        assert (
            code == 1
            and text.startswith("block-racefree: add ")
            and "/nonexistent" in text
            and "Traceback" not in text
        )
        with contextlib.ExitStack() as stack:
            calls = [
                stack.enter_context(
                    subprocess.Popen(
                        [host.script, "add"],
                        env={"XENBUS_PATH": f"backend/vbd/5/{number}", "PATH": "/usr/bin:/bin"},
                        stderr=subprocess.PIPE,
                    )
                )
                for number in range(20)
            ]
            answers = [(call.communicate(timeout=60)[1].decode(), call.returncode) for call in calls]
        assert all(
            f"/5/{number}: " in answer and code == 1 for number, (answer, code) in enumerate(answers)
        ), answers
        wait_until(lambda: descriptors(service.pid) == before, "its descriptors to be closed")
        # Invalid calls.
        assert (
            host.call("add", path="backend/vbd/5/1/../2")[0] == 127
            and host.call("remove", path="backend/vbd/5/1/../2")[0] == 127
        )


def test_the_service_answers_when_it_is_out_of_descriptors(host):
    """
    With any limit that is too low, a call is refused with the reason, and no descriptor is leaked. With a
    higher limit, calls work again.
    """
    with host.serving() as service:
        before, told = descriptors(service.pid), []
        numbers = [int(path.name) for path in Path(f"/proc/{service.pid}/fd").iterdir()]
        last = max(number for number in numbers if number != 60)
        limits = resource.prlimit(service.pid, resource.RLIMIT_NOFILE)
        assert limits[0] == min(65536, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        for limit in range(last + 1, last + 9):
            resource.prlimit(service.pid, resource.RLIMIT_NOFILE, (limit, limits[1]))
            code, text = host.call("add", XENSTORED_PATH="/elsewhere")
            assert (code, text[:20]) == (1, "block-racefree: add ") and "/elsewhere" not in text, (
                limit,
                text,
            )
            told.append("Too many open files" in text)
            assert service.poll() is None
        assert told[0] and not told[-1] and told == sorted(told, reverse=True)
        resource.prlimit(service.pid, resource.RLIMIT_NOFILE, limits)
        assert "/nonexistent" in host.call("add")[1]
        wait_until(lambda: descriptors(service.pid) == before, "its descriptors to be closed")


def test_the_script_raises_its_limit(host):
    """The script works with any limit set by its caller, with and without the service."""

    def few(limit):
        return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))

    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    # With a lower limit, the shell cannot read the script, and fails.
    for limit in (13, 16, 24):
        places = {"XENSTORED_PATH": "/elsewhere", "XENSTORED_RUNDIR": "/nonexistent"}
        code, text = host.call("add", preexec_fn=few(limit), **places)
        assert code == 1 and "/elsewhere" in text
    with host.serving():
        for limit in (13, 16, 24):
            code, text = host.call("add", preexec_fn=few(limit))
            assert code == 1 and "/nonexistent" in text


def test_without_the_service_the_script_does_the_work(host):
    with host.serving() as service:
        keeper = children(service.pid)
    assert service.wait() == -signal.SIGKILL
    wait_until(lambda: not os.path.exists(f"/proc/{keeper[0]}"), "the keeper's end")
    assert (host.service / "server").exists()
    code, text = host.call("add", XENSTORED_PATH="/elsewhere", XENSTORED_RUNDIR="/nonexistent")
    assert code == 1 and "/elsewhere" in text


def test_a_script_in_another_mount_namespace_does_the_work(host):
    """
    In another mount namespace, the same path may lead to another file, so the script does not use the
    service.
    """
    with host.serving():
        script, host.script = host.script, "unshare"
        assert (
            "/elsewhere"
            not in host.call(
                "--fork", script, "add", XENSTORED_PATH="/elsewhere", XENSTORED_RUNDIR="/nonexistent"
            )[1]
        )
        assert (
            "/elsewhere"
            in host.call(
                "--mount", script, "add", XENSTORED_PATH="/elsewhere", XENSTORED_RUNDIR="/nonexistent"
            )[1]
        )


@pytest.fixture
def mute_store(host):
    """A socket on which nobody answers, as if xenstored were stopped."""
    path = host.script.parent / "xs"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield listener


# A service that exits as soon as it has accepted a call.
SHORT_LIVED = """
import os, sys
os.chdir(sys.argv[1])
for name in ("calls", "alive"):
    os.path.exists(name) or os.mkfifo(name)
calls, alive = (os.open(name, os.O_RDWR) for name in ("calls", "alive"))
os.dup2(alive, 60)
with open("server.new", "w") as file:
    file.write(f"{os.getpid()}\\n")
os.rename("server.new", "server")
os.read(calls, 1)
"""


def test_a_service_that_exits_before_the_script_waits(host):
    host.service.mkdir()
    for _again in range(20):
        with subprocess.Popen([PYTHON, "-IS", "-c", SHORT_LIVED, host.service]) as service:
            wait_until((host.service / "server").exists, "the service")
            assert host.call("add") == (
                1,
                "block-racefree: add backend/vbd/5/51728: the service was killed\n",
            )
        assert service.returncode == 0
        (host.service / "server").unlink()


@pytest.mark.parametrize("victim", ["service", "keeper", "ended"])
def test_killed_during_a_call(host, mute_store, victim):
    """
    If the service is killed, this is reported at once. If the keeper is killed, the service accepts no more
    calls, and the script works without it.
    """
    with host.serving(mute_store.getsockname()) as service:
        keeper, idle = children(service.pid)[0], len(descriptors(service.pid))
        with subprocess.Popen(
            [host.script, "add"],
            env={"XENBUS_PATH": "backend/vbd/5/1", "PATH": "/usr/bin:/bin"},
            stderr=subprocess.PIPE,
        ) as call:
            wait_until(lambda: len(descriptors(service.pid)) > idle, "the call to be taken")
            {
                "service": service.kill,
                "ended": service.terminate,
                "keeper": lambda: os.kill(keeper, signal.SIGKILL),
            }[victim]()
            mute_store.close()
            said = call.communicate(timeout=60)[1].decode()
        assert call.returncode == 1
        assert ("the service was killed" if victim == "service" else "xenstored") in said
        assert service.wait(20) == (-signal.SIGKILL if victim == "service" else 0)
    wait_until(lambda: not os.path.exists(f"/proc/{keeper}"), "the keeper's end")
    assert (host.service / "server").exists() == (victim == "service")


def test_invalid_calls_are_ignored(host):
    """Invalid lines, and lines that name processes other than the script. These processes get no signal."""
    with host.serving(), subprocess.Popen(["sleep", "60"]) as other:
        try:
            with open(host.service / "calls", "wb") as calls:
                calls.write(
                    f"\n\0\n1 2\n{other.pid} diskseq backend/vbd/5/1\n999999999 diskseq backend/vbd/5/1\nx "
                    "diskseq y\n".encode()
                    + b"\xff\n"
                )
            assert host.call("add")[0] == 1
            assert other.poll() is None
        finally:
            other.kill()
