# SPDX-License-Identifier: Apache-2.0
"""The band that outcomes justify, as a change of the policy's document: a JSON merge patch (RFC 7396). Pure.

It ends no pilot and changes nothing by itself: `linewatch policy` takes it, and a person decides.
"""

from collections.abc import Mapping
from typing import Any

from work_orders.policy_reading import parse


class NothingToProposeError(Exception):
    """The outcomes justify no other band than the present one; the message says which."""


def propose(report: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """The patch for the document from which the report's present bands come.

    Raises:
        NothingToProposeError: there is none.
        PolicyError: the document that would come of it contradicts itself.
        ValueError: bands by failure mode, which a policy does not have.
    """
    if report["by"] == "failure_mode":
        raise ValueError("by: a policy has no bands by failure mode; propose for all or by criticality")
    moved = {
        group["group"]: group["threshold"]
        for group in report["groups"]
        if group["threshold"] is not None and group["threshold"] != _present(group)
    }
    if not moved:
        raise NothingToProposeError("; ".join(f"{g['group']}: {g['sentence']}" for g in report["groups"]))
    patch: dict[str, Any] = {"version": _next(str(document["version"]))}
    bands = {band["name"]: band for band in document["bands"]}
    if report["by"] == "all":
        moved_bands = [
            {**band, **_limits(band, moved["all"], bands)} if band["name"] == "automatic" else band
            for band in document["bands"]
        ]
        patch["bands"] = moved_bands
    else:
        own = document.get("criticality", {})
        patch["criticality"] = {
            name: {
                "automatic": _limits(own.get(name, {}).get("automatic", bands["automatic"]), threshold, bands)
            }
            for name, threshold in moved.items()
        }
    parse(merged(document, patch))
    return patch


def merged(document: Any, patch: Any) -> Any:
    """The document after a JSON merge patch: null removes a key, a list replaces a list."""
    if not isinstance(patch, Mapping):
        return patch
    before = document if isinstance(document, Mapping) else {}
    after = {name: value for name, value in before.items() if name not in patch}
    return after | {
        name: merged(before.get(name), value) for name, value in patch.items() if value is not None
    }


def _present(group: Mapping[str, Any]) -> float:
    present: float = next(one["threshold"] for one in group["candidates"] if one["is_present"])
    return present


def _limits(band: Mapping[str, Any], on: float, bands: Mapping[str, Any]) -> dict[str, float]:
    """The new threshold with the same distance to where the band clears, which never lies under the weaker band's."""
    off = max(round(on - (band["on"] - band["off"]), 4), bands["approval"]["off"])
    return {"on": on, "off": off}


def _next(version: str) -> str:
    major, minor, _ = version.partition("-")[0].split(".")
    return f"{major}.{int(minor) + 1}.0"
