# SPDX-License-Identifier: Apache-2.0
"""Statuses of older, newer and broken services, as the page takes them."""

import json

import pytest

from linewatch_console.statuses import ForwarderStatus, InferenceStatus, read_status

OLDEST = {
    "state": "online",
    "uplink": {"connected": True, "since": "2026-11-21T04:01:00Z", "detail": ""},
    "streams": [{"name": "predictions-line-1", "events": 3, "dropped": 2}],
}


def test_status_of_an_older_forwarder_is_taken_and_what_it_does_not_say_is_not_known() -> None:
    read = read_status(ForwarderStatus, json.dumps(OLDEST).encode())

    assert read is not None
    assert (read.drain, read.dead_letters, read.evidence, read.twin) == (None, None, None, "")
    assert (read.uplink.for_s, read.uplink.certificate_days) == (None, None)
    assert (read.streams[0].retention_s, read.streams[0].dropped_by) == (None, {})


def test_what_a_newer_forwarder_says_beside_is_ignored() -> None:
    newer = OLDEST | {"moon": "full", "drain": {"state": "draining", "rate_per_s": 110.37, "tide": 3}}

    read = read_status(ForwarderStatus, json.dumps(newer).encode())

    assert read is not None
    assert (read.drain.state, read.drain.rate_per_s, read.drain.seconds) == ("draining", 110.0, None)


@pytest.mark.parametrize(
    ("for_s", "told"), [(4.2, 4.2), (119.9, 119.9), (125.0, 120.0), (7259.0, 7200.0), (None, None)]
)
def test_what_only_grows_with_time_is_no_news_each_second(for_s: float | None, told: float | None) -> None:
    status = OLDEST | {"uplink": OLDEST["uplink"] | {"for_s": for_s}}

    assert read_status(ForwarderStatus, json.dumps(status).encode()).uplink.for_s == told


@pytest.mark.parametrize(
    ("rate", "told"), [(9.96, 10.0), (0.01234, 0.012), (123.4, 120.0), (0.0, 0.0), (None, None)]
)
def test_rate_that_wavers_is_no_news_each_second(rate: float | None, told: float | None) -> None:
    status = OLDEST | {"streams": [{"name": "a", "rate_per_s": rate}]}

    assert read_status(ForwarderStatus, json.dumps(status).encode()).streams[0].rate_per_s == told


@pytest.mark.parametrize(
    "broken",
    [
        {"streams": [{"name": "a", "rate_per_s": "NaN"}]}, {"drain": {"seconds": -1}}, {"dead_letters": {"count": -1}},
        {"streams": [{"name": "a", "dropped_by": {str(number): 1 for number in range(17)}}]}, {"twin": "x" * 301},
        {"dead_letters": {"newest": [{"number": 1}] * 17}},
    ],
)  # fmt: skip
def test_broken_status_is_refused_as_a_whole(broken: dict[str, object]) -> None:
    assert read_status(ForwarderStatus, json.dumps(OLDEST | broken).encode()) is None


def test_odd_names_of_models_at_rest_cost_no_status() -> None:
    """A folder's name is bounded by nobody, nor is how many a newer inference tells."""
    resting = [{"name": "m" * 200, "version": f"1.0.{number}"} for number in range(70)]
    status = {"state": "ready", "models": [{"name": "caps"}], "on_disk": resting, "on_disk_more": 3}

    read = read_status(InferenceStatus, json.dumps(status).encode())

    assert [model.name for model in read.models] == ["caps"]
    assert (len(read.on_disk), read.on_disk[0].name, read.on_disk_more) == (64, "m" * 80, 3)
