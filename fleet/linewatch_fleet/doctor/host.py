# SPDX-License-Identifier: Apache-2.0
"""The machine itself: Docker, the nucleus, disk, memory, clock, ports."""

from __future__ import annotations

import grp
import ipaddress
import json
import os
import pwd
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from linewatch_fleet.doctor.finding import FAIL, NOT_CHECKED, OK, WARN, Device, Finding, look

OLDEST_DOCKER = (20, 10)
"""The oldest engine in AWS's list of those that Greengrass was verified with."""

LEAST_FREE_BYTES, LITTLE_FREE_BYTES = 1 << 30, 4 << 30
LEAST_FREE_INODES = 10_000
LEAST_MEMORY_BYTES = 1 << 30
OLDEST_CLOCK_S = 1_790_000_000
"""A clock before this (September 2026, when this was written) has never been set: TLS would refuse every certificate."""

CONSOLE_PORT = 8080
NETWORK = "linewatch"


def docker(device: Device) -> Iterator[Finding]:  # noqa: ARG001 - all checks are called alike
    """The command line, the socket and the engine's age."""
    if not shutil.which("docker"):
        yield Finding(
            "docker", FAIL, "no docker command", "install Docker Engine 20.10 or newer, then run this again"
        )
        return
    said = look("docker", "version", "--format", "{{json .Server}}")
    if said.code:
        is_permission = "permission denied" in said.error.lower()
        yield Finding(
            "docker socket", FAIL, said.error.splitlines()[-1] if said.error else "no answer",
            "run the doctor as root" if is_permission and os.geteuid() else "start it: systemctl enable --now docker",
        )  # fmt: skip
        return
    version = str(json.loads(said.out).get("Version", "?"))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < OLDEST_DOCKER:
        yield Finding("docker", FAIL, f"engine {version}", "upgrade to Docker Engine 20.10 or newer")
    else:
        yield Finding("docker", OK, f"engine {version}")


def docker_group(device: Device) -> Iterator[Finding]:  # noqa: ARG001
    """Our recipes need no membership in the group; somebody in it is as good as root, so it is told."""
    try:
        members = grp.getgrnam("docker").gr_mem
    except KeyError:
        members = []
    try:
        pwd.getpwnam("ggc_user")
    except KeyError:
        yield Finding(
            "docker group", OK, "there is no user ggc_user; our start scripts run with RequiresPrivilege"
        )
        return
    if "ggc_user" in members:
        yield Finding(
            "docker group", WARN, "ggc_user is in group docker: every component of this device can become root",
            "Linewatch does not need it; unless another component does: gpasswd -d ggc_user docker",
        )  # fmt: skip
    else:
        yield Finding(
            "docker group", OK, "ggc_user is not in it; our start scripts run with RequiresPrivilege"
        )


def nucleus(device: Device) -> Iterator[Finding]:
    """Which Greengrass nucleus runs here, and whether it waits for Docker at boot."""
    if (device.root / "greengrass/v2/alts/current").exists():
        said = look("systemctl", "is-active", "greengrass.service")
        if said.code == 127:
            yield Finding("nucleus", NOT_CHECKED, "classic is installed; there is no systemctl to ask")
        elif said.code:
            yield Finding("nucleus", FAIL, f"classic, {said.out or 'not running'}", "systemctl start greengrass, and read /greengrass/v2/logs/greengrass.log")  # fmt: skip
        else:
            yield Finding("nucleus", OK, "classic, running")
        after = look("systemctl", "show", "-p", "After", "greengrass.service").out
        if after and "docker.service" not in after:
            yield Finding(
                "boot order", WARN, "greengrass.service does not wait for docker.service",
                "systemctl edit greengrass.service: [Unit] After=docker.service Wants=docker.service",
            )  # fmt: skip
    elif look("systemctl", "cat", "greengrass-lite.target").code == 0:
        active = look("systemctl", "is-active", "greengrass-lite.target")
        if active.code:
            yield Finding("nucleus", FAIL, f"lite, {active.out}", "systemctl start greengrass-lite.target, and read journalctl -u 'ggl.*'")  # fmt: skip
        else:
            yield Finding("nucleus", OK, "lite, running")
    else:
        yield Finding("nucleus", WARN, "no Greengrass nucleus found", "docs/first-device.md installs one; for a trial without, see docs/trying.md")  # fmt: skip


def disk(device: Device) -> Iterator[Finding]:
    """Room for spools and evidence, and for images."""
    docker_root = look("docker", "info", "--format", "{{.DockerRootDir}}").out
    for what, path in (
        ("disk", device.directory),
        ("disk of docker", Path(docker_root or "/var/lib/docker")),
    ):
        there = next((place for place in (path, *path.parents) if place.exists()), Path("/"))
        try:
            usage, files = shutil.disk_usage(there), os.statvfs(there)
        except OSError as error:
            yield Finding(what, FAIL, f"{there}: {error}", "mount it, or run the doctor as root")
            continue
        told = f"{path}: {usage.free / (1 << 30):.1f} GiB free of {usage.total / (1 << 30):.1f}"
        if usage.free < LEAST_FREE_BYTES or (files.f_files and files.f_favail < LEAST_FREE_INODES):
            yield Finding(
                what,
                FAIL,
                f"{told}, {files.f_favail} inodes",
                "make room: docker image prune, old evidence, old logs",
            )
        elif usage.free < LITTLE_FREE_BYTES:
            yield Finding(what, WARN, told, "an update needs room for a second set of images")
        else:
            yield Finding(what, OK, told)


def memory(device: Device) -> Iterator[Finding]:
    """Whether the containers' limits fit at all."""
    try:
        lines = (device.root / "proc/meminfo").read_text().splitlines()
        total = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal"))
    except (OSError, StopIteration, ValueError):
        yield Finding("memory", NOT_CHECKED, "/proc/meminfo can't be read")
        return
    state = OK if total >= LEAST_MEMORY_BYTES else WARN
    yield Finding(
        "memory", state, f"{total / (1 << 30):.1f} GiB", "" if state == OK else "lower the components' Memory"
    )


def clock(device: Device) -> Iterator[Finding]:  # noqa: ARG001
    """A wrong clock makes TLS fail, and dates lie."""
    now = time.time()
    if now < OLDEST_CLOCK_S:
        yield Finding(
            "clock", FAIL, time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now)), "set it, and enable NTP"
        )
        return
    said = look("timedatectl", "show", "-p", "NTPSynchronized", "--value")
    if said.code:
        yield Finding("clock", NOT_CHECKED, f"plausible; {said.error or 'timedatectl does not answer'}")
    elif said.out == "yes":
        yield Finding("clock", OK, "synchronised")
    else:
        yield Finding(
            "clock",
            WARN,
            "not synchronised",
            "timedatectl set-ntp true, and check that the time server is reached",
        )


def ports(device: Device) -> Iterator[Finding]:  # noqa: ARG001
    """The one port that we publish: free, or ours."""
    holder = look(
        "docker",
        "ps",
        "--format",
        '{{.Label "org.opencontainers.image.title"}}',
        "-f",
        f"publish={CONSOLE_PORT}",
    )
    if "linewatch-console" in holder.out:
        yield Finding("port 8080", OK, "held by the console")
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", CONSOLE_PORT))
        except OSError:
            yield Finding(
                "port 8080",
                WARN,
                "another program holds 127.0.0.1:8080",
                "set Port of io.linewatch.Console to a free one",
            )
            return
    yield Finding("port 8080", OK, "free")


def network(device: Device) -> Iterator[Finding]:  # noqa: ARG001
    """One network of our name, on addresses that nothing in the plant has."""
    ids = look("docker", "network", "ls", "-q", "--no-trunc", "-f", f"name=^{NETWORK}$").out.split()
    if not ids:
        yield Finding("network", OK, f"{NETWORK} is not made yet")
        return
    if len(ids) > 1:
        # Docker before 25 can make two of one name when two ask at once.
        yield Finding("network", FAIL, f"{len(ids)} Docker networks are called {NETWORK}", f"docker network rm {' '.join(sorted(ids)[1:])}")  # fmt: skip
        return
    said = look(
        "docker", "network", "inspect", NETWORK, "--format", "{{range .IPAM.Config}}{{.Subnet}} {{end}}"
    ).out
    own = [ipaddress.ip_network(one) for one in said.split()]
    taken = [
        route
        for route in _routes()
        if any(route.overlaps(one) for one in own if one.version == route.version)
    ]
    if taken:
        yield Finding(
            "network", WARN, f"{NETWORK} has {said}, which this machine also reaches elsewhere: {', '.join(map(str, taken))}",
            f"stop the components, docker network rm {NETWORK}, docker network create --subnet FREE {NETWORK}",
        )  # fmt: skip
    else:
        yield Finding("network", OK, f"{NETWORK}, {said}")


def _routes() -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Where this machine's routes lead, but for the default one and those of Docker's own bridges."""
    found = []
    for line in look("ip", "-o", "route").out.splitlines():
        words = line.split()
        if words[0] == "default" or " dev br-" in line or " dev docker" in line:
            continue
        try:
            found.append(ipaddress.ip_network(words[0]))
        except ValueError:
            continue
    return found
