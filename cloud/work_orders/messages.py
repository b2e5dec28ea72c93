# SPDX-License-Identifier: Apache-2.0
"""What may lie in the queue `enriched`, read before anything is done. Pure.

Only what can't be read is poison. What goes wrong afterwards, with the policy or the ERP or in this code, is no fault of the
message: it is delivered again.
"""

import json
from collections.abc import Mapping
from typing import Any

from dead_letters.poison import PoisonError
from work_orders.observed import part_of

ASSET_NEEDS = ("asset_id", "kind", "failure_modes")


def read(body: str) -> dict[str, Any]:
    """{"event": CloudEvent, "asset": card or None} as enrich writes it, or {"place": reference}. Raises PoisonError."""
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise PoisonError("not_json", f"the body is not JSON: {error}") from error
    if not isinstance(message, dict):
        raise PoisonError("not_enriched", "the message is no JSON object")
    if "place" in message:
        if not isinstance(message["place"], str) or not message["place"]:
            raise PoisonError("not_enriched", "place is no order's reference")
        return message
    event, asset = message.get("event"), message.get("asset")
    if (
        not isinstance(event, dict)
        or not isinstance(event.get("id"), str)
        or not isinstance(event.get("data"), dict)
    ):
        raise PoisonError("not_enriched", "event is no CloudEvent with an id and an object as data")
    if not isinstance(event.get("type"), str) or not isinstance(event.get("source"), str):
        raise PoisonError("not_enriched", "event has no type or no source", event["id"])
    if asset is not None:
        _check_asset(asset, event["id"])
    if "origin" in event["data"]:
        _check_part(event)
    return message


def _check_asset(asset: Any, event_id: str) -> None:
    if not isinstance(asset, Mapping):
        raise PoisonError("not_enriched", "asset is neither null nor an object", event_id)
    for name in ASSET_NEEDS:
        if not asset.get(name) and name != "failure_modes":
            raise PoisonError(
                "asset_unusable", f"the asset has no {name}; mend it with `linewatch assets import`", event_id
            )
    if asset["kind"] not in ("machine", "product"):
        why = f"the asset's kind {asset['kind']!r} is neither machine nor product; mend it with `linewatch assets import`"
        raise PoisonError("asset_unusable", why, event_id)
    if not isinstance(asset.get("failure_modes"), Mapping):
        raise PoisonError("asset_unusable", "the asset's failure_modes are no map of label to code", event_id)


def _check_part(event: Mapping[str, Any]) -> None:
    try:
        origin = event["data"]["origin"]
        for name in ("site", "line", "station"):
            if not isinstance(origin[name], str):
                raise TypeError(f"origin.{name} is no text")
        part_of(event)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise PoisonError("not_understood", f"the event can't be read: {error!r}", event["id"]) from error
