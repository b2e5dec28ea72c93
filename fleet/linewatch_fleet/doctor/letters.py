# SPDX-License-Identifier: Apache-2.0
"""Whether events lie aside on this device that could not be delivered: the forwarder's own command tells."""

from __future__ import annotations

import json
from collections.abc import Iterator

from linewatch_fleet.doctor.finding import NOT_CHECKED, OK, WARN, Device, Finding, look
from linewatch_fleet.doctor.plant import inspected

TITLE = "linewatch-forwarder"
COMMAND = ("python3", "-m", "linewatch_forwarder.dead_letters", "list", "--json", "--limit", "1")
SHOWN = 120


def dead_letters(_device: Device) -> Iterator[Finding]:
    """Those of each forwarder's container that runs here."""
    for one in inspected():
        labels, name = one["Config"].get("Labels") or {}, one["Name"].lstrip("/")
        if labels.get("org.opencontainers.image.title") != TITLE or one["State"]["Status"] != "running":
            continue
        said = look("docker", "exec", name, *COMMAND)
        try:
            told = json.loads(said.out)
            count, newest = int(told["count"]), told["dead_letters"]
        except (ValueError, KeyError, TypeError):
            yield Finding("dead letters", NOT_CHECKED, f"{name}: {(said.error or said.out)[:SHOWN]}")
            continue
        if not count:
            yield Finding("dead letters", OK, "none")
            continue
        reason = str(newest[0].get("reason", "")) if newest else ""
        yield Finding(
            "dead letters", WARN, f"{count} in {name}, the newest: {reason[:SHOWN]}", "docs/dead-letters.md"
        )
