# SPDX-License-Identifier: Apache-2.0
"""The tests' cloud refuses what the API refuses: else a page that offers it looks right."""

import pytest
from console_process import CloudServer, Console
from console_stand_in import work_order


@pytest.mark.parametrize(
    ("changes", "into", "status", "told"),
    [
        ({"asset_id": "X-1", "line": "line-9"}, "lw-2", 409, "of another asset on another line"),
        ({"status": "closed"}, "lw-2", 409, "an open order is due"),
        ({}, "lw-1", 409, "into itself"),
        ({}, "lw-3", 400, "into: no such work order"),
    ],
)
def test_the_tests_cloud_merges_as_the_api_does(
    console: Console, cloud: CloudServer, changes: dict[str, str], into: str, status: int, told: str
) -> None:
    cloud.stand_in.add(work_order("lw-1"))
    cloud.stand_in.add(work_order("lw-2", **changes))

    answer = console.post("/api/work-orders/lw-1/merge", {"into": into, "reason": "same shift"})

    assert (answer.status_code, cloud.stand_in.decided) == (status, [])
    assert told in answer.json()["error"]
    if status == 409:
        assert answer.json()["order"]["status"] == "awaiting_approval"
