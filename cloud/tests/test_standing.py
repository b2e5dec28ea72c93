# SPDX-License-Identifier: Apache-2.0
"""Where an order stands, in words: what is stuck, and what is only on its way."""

from typing import Any

import pytest

from api.standing import standing
from work_orders.order_items import NEVER, WorkOrder, from_item, text_of

NOW = 1_795_000_000.0


def order(status: str, **item: Any) -> WorkOrder:
    return from_item({
        "reference": "lw-0123456789abcdef", "status": status, "asset_id": "ENGINE-1", "failure_mode": "hpc", "band": "x",
        "document": "{}", "attempts": 0, "lease_until": 0, "shadow": "written", "episode": 1,
        "created_at": text_of(NOW), "updated_at": text_of(NOW), "last_tried_at": text_of(NOW + 60), **item,
    })  # fmt: skip


STUCK = [
    ("parked by an ERP that is away", order("parked", failure="GET answered 503", attempts=3), 0, True, "The sweep takes it"),
    ("refused", order("parked", is_refused=True, last_tried_at=NEVER, attempts=1), 0, True, "mend the cause"),
    ("being placed", order("creating"), 600, False, "sweep"),
    ("stranded", order("creating"), 3_600, True, "sweep"),
    ("held back", order("creating", hold_until=int(NOW) + 9_000), 3_600, False, "Then the sweep places it"),
    ("waiting", order("awaiting_approval", announced_at=text_of(NOW)), 90_000, False, "It waits until somebody decides"),
    ("shown in a moment", order("created", erp_id="WO-1", shadow="pending"), 60, False, "finding ends it"),
    ("not shown for long", order("created", erp_id="WO-1", shadow="pending"), 1_000, True, "shadow does not show it"),
    ("no room on the device", order("created", erp_id="WO-1", shadow="left_out"), 1_000, True, "no room"),
    ("a note that waits", order("created", erp_id="WO-1", pending_notes='[{"key": "k", "text": "t"}]'), 1_000, True, "1 notes"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("what", "one", "later_s", "is_stuck", "words"), STUCK, ids=[row[0] for row in STUCK]
)
def test_what_stands_still_is_told_from_what_is_on_its_way(
    what: str, one: WorkOrder, later_s: float, is_stuck: bool, words: str
) -> None:
    found = standing(one, NOW + later_s)

    assert (found.is_stuck, words in f"{found.next} {found.why}") == (is_stuck, True), (what, found)
