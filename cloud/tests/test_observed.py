# SPDX-License-Identifier: Apache-2.0
"""Which time of an event the cloud believes: for what people see, and for what is compared with a person's decision."""

from datetime import UTC, datetime
from typing import Any

import pytest

from work_orders.document import describe
from work_orders.observed import observation_of, observed_at, part_from, part_of, to_observation
from work_orders.policy import Decision
from work_orders.policy_data import PolicyData, load

TAKEN, CORRECTED = "2000-01-01T01:10:11.500Z", "2026-11-21T04:00:00.373Z"


def origin(synchronised: bool | None, **more: str) -> dict[str, Any]:
    clock: dict[str, Any] = {"boot_id": "5a1d6f0e", "monotonic_s": 4211.5}
    if synchronised is not None:
        clock["synchronised"] = synchronised
    place = {"site": "plant-1", "line": "line-1", "station": "station-1", "epoch": 3, "sequence": 7}
    return {**place, "taken_at": TAKEN, "clock": clock, **more}


@pytest.mark.parametrize(
    ("given", "known"),
    [
        (origin(synchronised=True), TAKEN),
        (origin(synchronised=False), None),
        (origin(synchronised=None), None),
        (origin(synchronised=False, corrected_at=CORRECTED), CORRECTED),
        ({}, None),
    ],
    ids=["synchronised", "not synchronised", "can't be known", "corrected", "an old producer"],
)
def test_only_a_clock_that_was_right_is_believed(given: dict[str, Any], known: str | None) -> None:
    assert observed_at(given) == known


def event(given: dict[str, Any]) -> dict[str, Any]:
    verdict = {"result": "NG", "label": "crack", "severity": 0.9, "score": 0.9, "model": {}}
    return {"id": "an-id", "type": "InferenceCompleted", "data": {"origin": given, "verdict": verdict}}


ASSET = {"kind": "machine", "failure_modes": {"crack": "cell-crack"}, "asset_id": "ASSET-1"}


def test_corrected_part_is_compared_with_a_decision_by_its_true_time_and_ordered_by_its_count() -> None:
    data: PolicyData = load()

    seen = to_observation(part_of(event(origin(synchronised=False, corrected_at=CORRECTED))), ASSET, data)

    assert seen.taken_at == datetime(2026, 11, 21, 4, 0, 0, 373_000, UTC).timestamp()
    assert (seen.position.epoch, seen.position.sequence) == (3, 7)


@pytest.mark.parametrize("known", [CORRECTED, None])
def test_work_order_shows_the_true_time_or_none(known: str | None) -> None:
    given = origin(synchronised=False, **({"corrected_at": known} if known else {}))

    document = describe(
        ASSET,
        "cell-crack",
        Decision("automatic", 0.9, ("an-id",), frozenset(("an-id",)), None),
        [event(given)],
        load(),
        load().rules["machine"],
        pilot=False,
    )

    assert document["observed_at"] == known


def test_a_part_kept_for_replays_is_read_as_it_was() -> None:
    told = event(origin(synchronised=True))
    not_judged = {"id": "x", "type": "InferenceError", "data": {"origin": origin(synchronised=None)}}

    assert part_from(observation_of(told)) == part_of(told)
    assert part_from(observation_of(not_judged)) == part_of(not_judged)
    assert to_observation(part_of(not_judged), ASSET, load()).weight is None
