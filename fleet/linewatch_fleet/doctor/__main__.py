# SPDX-License-Identifier: Apache-2.0
"""`python3 doctor.pyz`: the doctor on a device that has nothing but Python. `linewatch doctor` is the same."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from linewatch_fleet.doctor import host, letters, plant, support_bundle
from linewatch_fleet.doctor.finding import FAIL, NOT_CHECKED, WARN, Device, Finding, worst

UNHEALTHY = 4
"""errors.UNHEALTHY; that module needs click."""

CHECKS: Sequence[Callable[[Device], Iterator[Finding]]] = (
    host.docker, host.docker_group, host.nucleus, host.disk, host.memory, host.clock, host.ports, host.network,
    plant.certificates, plant.cloud, plant.registry, plant.cameras, plant.provider, plant.models, plant.containers,
    letters.dead_letters,
)  # fmt: skip


def examine(device: Device, advance: Callable[[str], None] = lambda _: None) -> list[Finding]:
    """Every check, in order. One that breaks is a finding, not the end."""
    findings: list[Finding] = []
    for check in CHECKS:
        name = check.__name__.replace("_", " ")
        try:
            findings += check(device)
        except Exception as error:  # noqa: BLE001 - the doctor goes on to the next check, and says so
            findings.append(Finding(name, NOT_CHECKED, f"{type(error).__name__}: {error}"))
        advance(name)
    return findings


def show(findings: Sequence[Finding]) -> None:
    """Prints the findings; what is wrong comes with its remedy below."""
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        print(f"{finding.state:<11}  {finding.check:<{width}}  {' '.join(finding.detail.split())}")
        if finding.remedy and finding.state in {FAIL, WARN}:
            print(f"{'':<11}  {'':<{width}}  -> {finding.remedy}")


def main(arguments: Sequence[str] | None = None) -> int:
    """0 all well, 4 something is broken, 1 the support bundle could not be written."""
    parser = argparse.ArgumentParser(prog="doctor", description="Checks this device.")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument(
        "--bundle", type=Path, metavar="FILE", help="also write FILE (tar.gz) for support, secrets left out"
    )
    parser.add_argument(
        "--directory", type=Path, default=Device.directory, help="Linewatch's folder (default %(default)s)"
    )
    parser.add_argument("--registry", default="", help="registry host to reach")
    parser.add_argument("--endpoint", default="", help="IoT Core data endpoint, HOST[:PORT]")
    asked = parser.parse_args(arguments)
    device = Device(asked.directory, asked.registry, asked.endpoint)
    return report(device, examine(device), asked.bundle, as_json=asked.json)


def report(device: Device, findings: list[Finding], bundle: Path | None, *, as_json: bool) -> int:
    """Prints, writes the bundle, and gives the exit code."""
    if as_json:
        print(
            json.dumps(
                {"state": worst(findings), "findings": [vars(finding) for finding in findings]}, indent=2
            )
        )
    else:
        show(findings)
    if bundle:
        try:
            support_bundle.write(device, findings, bundle)
        except OSError as error:
            print(
                f"--bundle: {bundle}: {error.strerror}; name a new file in a folder that you may write to",
                file=sys.stderr,
            )
            return 1
        print(
            f"{bundle}: for support; secrets are left out, look through it before you send it",
            file=sys.stderr,
        )
    return UNHEALTHY if worst(findings) == FAIL else 0


if __name__ == "__main__":
    sys.exit(main())
