# SPDX-License-Identifier: Apache-2.0
import json
from typing import Any

import pytest

from linewatch_plant.results import _order_seconds

EVENTS = {"part-1": {"time": "2026-11-21T10:00:00.000Z"}, "part-2": {"time": "2026-11-21T10:00:01.000Z"}}
QUEUED, PLACED, DECIDED = "2026-11-21T10:00:03.000Z", "2026-11-21T10:00:06.000Z", "2026-11-21T10:03:04.062Z"


def order(**more: Any) -> dict[str, Any]:
    return {
        "band": "automatic",
        "status": "created",
        "created_at": QUEUED,
        "in_erp_at": PLACED,
        "document": json.dumps({"event_ids": ["part-1", "part-2"]}),
        **more,
    }


@pytest.mark.parametrize("band", ["automatic", "approval"])
@pytest.mark.parametrize("by", ["M. Keller", "policy"])
def test_what_a_person_takes_to_decide_is_not_in_the_way_of_an_order(band: str, by: str) -> None:
    """A demo with PILOT=1 told 183,062 ms: its automatic band was approved by somebody who read first."""
    approved = order(band=band, decided_at=DECIDED, decided_by=by, in_erp_at=DECIDED)

    assert _order_seconds(EVENTS, [approved]) == [2.0]


@pytest.mark.parametrize("status", ["awaiting_approval", "merged"])
def test_an_order_that_waits_is_there_when_it_is_in_the_queue(status: str) -> None:
    waiting = order(status=status)
    del waiting["in_erp_at"]

    assert _order_seconds(EVENTS, [waiting]) == [2.0]


@pytest.mark.parametrize("status", ["created", "closed"])
def test_an_order_that_nobody_was_asked_about_is_there_when_the_erp_has_it(status: str) -> None:
    assert _order_seconds(EVENTS, [order(status=status)]) == [5.0]


def test_an_order_that_is_not_there_or_that_quiet_hours_held_has_no_time() -> None:
    creating = order(status="creating")
    del creating["in_erp_at"]

    assert _order_seconds(EVENTS, [creating, order(hold_until=1_795_000_000)]) == []
