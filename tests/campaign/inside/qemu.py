# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
libvirt_disk with libvirtd and QEMU: killed after one of its system calls, or stopped before one while
somebody else replaces the domain or changes its definition.
"""

from __future__ import annotations

import os
import sys
import uuid

sys.path[:0] = [os.environ.get("RACEFREE_SITE", "/root/site"), "/root/site/tests"]

import jobs
import kills
import libvirt
import qemuhost
import victim
from jobs import Job
from score import Score, finish, now, options, rounds
from uevents import Udev
from world import World

VDEV, THEIRS = "vda", "words of somebody else"


class Domains:
    """A domain, and somebody else's domain of the same name. A context."""

    def __init__(self, image):
        self.name = "campaign"
        self.ours, self.foreign = str(uuid.uuid4()), str(uuid.uuid4())
        self.connection = libvirt.open(qemuhost.URI)
        self.disk = {"domain": self.ours, "vdev": VDEV, "source": {"file": image}, "uri": qemuhost.URI}
        self.read_only = {**self.disk, "mode": "r"}
        self.gone = {"domain": self.ours, "vdev": VDEV, "state": "absent", "uri": qemuhost.URI}

    def __enter__(self):
        # Do not print errors: that a domain does not exist is expected.
        libvirt.registerErrorHandler(lambda *_ignored: None, None)
        self.begin()
        return self

    def __exit__(self, *exc):
        self.undefine()
        self.connection.close()

    def define(self, number, words=""):
        text = qemuhost.definition(self.name).replace("</name>", f"</name><uuid>{number}</uuid>")
        if words:
            text = text.replace("</uuid>", f"</uuid><description>{words}</description>")
        self.connection.defineXML(text)

    def undefine(self):
        for number in (self.ours, self.foreign):
            if self.text(number):
                self.connection.lookupByUUIDString(number).undefine()

    def begin(self):
        """Define our domain, without disks, and undefine the other one."""
        self.undefine()
        self.define(self.ours)

    def text(self, number):
        """The definition of the domain with this UUID; empty if there is none."""
        try:
            return self.connection.lookupByUUIDString(number).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
            return ""

    def has_disk(self, number=None):
        return f"<target dev='{VDEV}'" in self.text(number or self.ours)

    def is_read_only(self, number=None):
        return "<readonly/>" in self.text(number or self.ours)

    def exchange(self):
        """Undefine the domain, and give its name to somebody else's domain."""
        self.undefine()
        self.define(self.foreign)

    def change(self):
        """Give the domain a description, and leave the rest of its definition unchanged."""
        domain = self.connection.lookupByUUIDString(self.ours)
        domain.setMetadata(
            libvirt.VIR_DOMAIN_METADATA_DESCRIPTION, THEIRS, None, None, libvirt.VIR_DOMAIN_AFFECT_CONFIG
        )


def killed(domains):
    """The Jobs whose runs are killed."""
    made = [("libvirt_disk", domains.disk)]
    return [
        Job(
            "libvirt_disk present, killed",
            ("libvirt_disk", domains.disk),
            lambda: "" if domains.has_disk() else "the definition does not have it",
            forget=domains.begin,
        ),
        Job(
            "libvirt_disk absent, killed",
            ("libvirt_disk", domains.gone),
            lambda: "the definition still has it" if domains.has_disk() else "",
            made,
            forget=domains.begin,
        ),
        Job(
            "libvirt_disk changed, killed",
            ("libvirt_disk", domains.read_only),
            lambda: "" if domains.is_read_only() else "it is not read-only",
            made,
            forget=domains.begin,
        ),
    ]


class Swap:
    """A run of libvirt_disk, and what somebody else does before one of its system calls."""

    def __init__(self, domains, state, way):
        self.domains, self.state, self.way = domains, state, way
        self.title = (
            f"libvirt_disk {state}, {'domain exchanged' if way == 'exchange' else 'definition changed'}"
        )
        self.calls = None

    def attempt(self, score, random):
        if self.calls is None:
            self.calls = self._run(10**9)[2]
        count = random.randint(1, self.calls)
        run, met, _calls = self._run(count)
        is_ok = victim.is_ok(run.answer())
        if met:
            score.note(
                self.title, "right" if is_ok else "refused", self._problems(is_ok), f"before call {count}"
            )

    def _run(self, count):
        domains, self.was_done = self.domains, False
        domains.begin()
        if self.state != "present":
            victim.run("libvirt_disk", **domains.disk)
        wanted = {"present": domains.disk, "absent": domains.gone, "changed": domains.read_only}
        run = victim.Run("libvirt_disk", wanted[self.state])
        met, _code, calls = run.stopped(count, lambda pid, number: self._meet())
        return run, met, calls

    def _meet(self):
        self.was_done = self._is_done()
        if self.way == "exchange":
            self.domains.exchange()
        else:
            self.domains.change()

    def _is_done(self):
        if self.state == "changed":
            return self.domains.is_read_only()
        return self.domains.has_disk() is (self.state == "present")

    def _problems(self, is_ok):
        domains, problems = self.domains, []
        if self.way == "exchange":
            if not domains.text(domains.foreign) or domains.has_disk(domains.foreign):
                problems.append(("wrong", "somebody else's domain was changed"))
            if domains.text(domains.ours):
                problems.append(("left", "the domain that was undefined is there again"))
            if is_ok and not self.was_done and self.state != "absent":
                problems.append(("lies", "said ok, and the domain is gone"))
            return problems
        if THEIRS not in domains.text(domains.ours):
            problems.append(("wrong", "what somebody else wrote into the definition is gone"))
        if is_ok and not self._is_done():
            problems.append(("lies", f"said ok, and the definition is not {self.state}"))
        return problems


def main():
    chosen = options(__doc__)
    score = Score("libvirt", chosen.seed)
    qemuhost.start_daemon()
    victim.load_all(1, ("libvirt_disk",))
    with World() as world, Udev() as udev, Domains(world.file("image", b"I")) as domains:
        rows = killed(domains)
        swaps = [
            Swap(domains, state, way)
            for state in ("present", "absent", "changed")
            for way in ("exchange", "change")
        ]
        ways = {job: jobs.Way(world, job) for job in rows}
        for is_cold, random in rounds(score, chosen, udev):
            for job in rows:
                now(f"libvirt: {job.title}, seed {chosen.seed}, round {score.round}")
                victim.seed(random.random())
                way = ways[job].cold(random.randrange(2)) if is_cold else ways[job]
                kills.attempt(score, world, way, random)
            for swap in swaps:
                now(f"libvirt: {swap.title}, seed {chosen.seed}, round {score.round}")
                swap.attempt(score, random)
    return finish(score, chosen.report)


if __name__ == "__main__":
    sys.exit(main())
