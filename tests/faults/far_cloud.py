# SPDX-License-Identifier: Apache-2.0
"""A cloud in a network namespace of its own, behind a cable that the kernel can spoil: loss, black hole, reset, a slow link.

Two cables lead there. Over the first one comes the device, and only that one is spoiled; over the second one the test
looks at what arrived. Both, and every rule, go with the namespace. Needs root, ip, tc and iptables.
"""

import contextlib
import functools
import ipaddress
import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from brokers import Certificates, Cloud, wait_for

from linewatch_runtime.mqtt import Endpoint, Tls

TOOLS = ("ip", "tc", "iptables")
_numbers = itertools.count()


def why_not() -> str:
    """Why there can be no namespace here; empty when there can."""
    if os.geteuid() != 0:
        return "not run: network namespaces need root"
    missing = [tool for tool in TOOLS if shutil.which(tool, path="/usr/sbin:/sbin:/usr/bin:/bin") is None]
    if missing:
        return f"not run: {', '.join(missing)} not installed (Debian: apt-get install iproute2 iptables)"
    probe = f"lw-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"not run: no network namespace to be had: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", probe], check=True)
    return ""


class FarCloud(Cloud):
    """tests/brokers.Cloud behind two cables. `device_address` is the one that can be spoiled."""

    def __init__(self, folder: Path) -> None:
        number = os.getpid() * 7 + next(_numbers)  # apart from another run's
        self.name = f"lw{number % 100_000}"
        # Two /30 of the addresses that are kept for measurements (RFC 2544): no machine has a network there.
        block = ipaddress.ip_address("198.18.0.0") + number % 16384 * 8
        self._near, self.device_address = str(block + 1), str(block + 2)
        self._near_test, self.test_address = str(block + 5), str(block + 6)
        super().__init__(folder, host="0.0.0.0", addresses=[self.device_address, self.test_address])
        self.command = ["ip", "netns", "exec", self.name, *self.command]

    def lay_cables(self) -> None:
        """Makes the namespace with both cables."""
        _run("ip", "netns", "add", self.name)
        for side, near, far in (
            ("d", self._near, self.device_address), ("t", self._near_test, self.test_address),
        ):  # fmt: skip
            inner = f"{self.name}{side}1"
            _run(
                "ip",
                "link",
                "add",
                f"{self.name}{side}0",
                "type",
                "veth",
                "peer",
                "name",
                inner,
                "netns",
                self.name,
            )
            _run("ip", "addr", "add", f"{near}/30", "dev", f"{self.name}{side}0")
            _run("ip", "link", "set", f"{self.name}{side}0", "up")
            self._inside("ip", "addr", "add", f"{far}/30", "dev", inner)
            self._inside("ip", "link", "set", inner, "up")
        self._inside("ip", "link", "set", "lo", "up")

    def remove(self) -> None:
        """Takes the namespace away, and both cables with it."""
        self.kill()
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True, check=False)

    def start(self) -> None:
        super(Cloud.__mro__[1], self).start()  # a Child's start: the port is free in a namespace of its own
        wait_for(self._listens, f"the far cloud listens: {self.told()}")

    def endpoint(self, client_id: str, **more: object) -> Endpoint:
        files: Certificates = self.certificates
        tls = Tls(files.ca_file, files.device_file, files.device_key_file)
        return Endpoint(self.test_address, self.port, client_id, tls=tls, **more)  # type: ignore[arg-type]

    def settings(self, port: int | None = None) -> dict[str, str]:
        return {**super().settings(port), "FORWARDER_UPLINK_HOST": self.device_address}

    # --- spoiling the device's cable ---

    def lose(self, share: float) -> None:
        """Loses this share of the packets, both ways."""
        chance = ("-m", "statistic", "--mode", "random", "--probability", str(share))
        self._rule("INPUT", "-i", *chance, "-j", "DROP")
        self._rule("OUTPUT", "-o", *chance, "-j", "DROP")

    def swallow(self) -> None:
        """A black hole: nothing goes through, and nobody says so."""
        self._rule("INPUT", "-i", "-j", "DROP")
        self._rule("OUTPUT", "-o", "-j", "DROP")

    def reset(self) -> None:
        """Every packet of the device is answered with a TCP reset."""
        self._rule("INPUT", "-i", "-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset")

    def slow(self, kbit_per_s: int) -> None:
        """Both directions at this rate at most."""
        shape = ("root", "tbf", "rate", f"{kbit_per_s}kbit", "burst", "4kb", "latency", "2s")
        self._inside("tc", "qdisc", "add", "dev", f"{self.name}d1", *shape)
        _run("tc", "qdisc", "add", "dev", f"{self.name}d0", *shape)

    def spoiled_packets(self) -> int:
        """How many packets the faults of now have dropped, answered or made wait."""
        rules = self._told("iptables", "-L", "-v", "-x", "-n")
        hit = sum(
            int(line.split()[0]) for line in rules.splitlines() if line.split()[2:3] in (["DROP"], ["REJECT"])
        )
        shaped = self._told("tc", "-s", "qdisc", "show", "dev", f"{self.name}d1")
        shaped += subprocess.run(
            ["tc", "-s", "qdisc", "show", "dev", f"{self.name}d0"], capture_output=True, text=True, check=True
        ).stdout
        return hit + sum(int(count) for count in re.findall(r"overlimits (\d+)", shaped))

    def heal(self) -> None:
        """The cable as it was laid."""
        self._inside("iptables", "-F")
        for run, device in ((self._inside, f"{self.name}d1"), (_run, f"{self.name}d0")):
            with contextlib.suppress(subprocess.CalledProcessError):  # it may never have been slow
                run("tc", "qdisc", "del", "dev", device, "root")

    def _rule(self, chain: str, direction: str, *rule: str) -> None:
        self._inside("iptables", "-A", chain, direction, f"{self.name}d1", *rule)

    def _inside(self, *command: str) -> None:
        _run("ip", "netns", "exec", self.name, *command)

    def _told(self, *command: str) -> str:
        inside = ["ip", "netns", "exec", self.name, *command]
        return subprocess.run(inside, capture_output=True, text=True, check=True).stdout

    def _listens(self) -> bool:
        return bool(self._told("ss", "-Htln", f"sport = :{self.port}").strip())


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


_why_not_here = functools.cache(why_not)


@pytest.fixture
def far_cloud(tmp_path: Path) -> Iterator[FarCloud]:
    """Running, behind whole cables."""
    if reason := _why_not_here():
        pytest.skip(reason)
    made = FarCloud(tmp_path / "far-cloud")
    try:
        made.lay_cables()
        made.start()
        yield made
    finally:
        made.remove()
