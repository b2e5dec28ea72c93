# SPDX-License-Identifier: Apache-2.0
"""What the forwarder tells of itself: the payload, what older and newer readers make of it, and the metrics."""

import json
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from linewatch_console.statuses import LARGEST_STATUS_BYTES, ForwarderStatus, read_status
from linewatch_forwarder.metrics import LookMetrics
from linewatch_forwarder.retention import Drain, Retention
from linewatch_forwarder.status import DeadLettersView, Look, StreamView, UplinkView, payload
from linewatch_forwarder.streams.port import DeadLetter
from linewatch_runtime.records import Record, StreamState


def stream(name: str = "predictions-line-1", **more: object) -> StreamView:
    state = StreamState(name, 3, 4096, 10_485_760, 12.34, 100, 90, 2, {"shed_good": 4, "damaged": 1})
    return StreamView(state, Retention(10.0, 1048.576, "bytes"), **more)


LETTER = DeadLetter(7, Record("an-id", "predictions-line-1", "a/topic", b"{}"), "0x99 payload format invalid")
LOOK = Look(
    "offline-uplink",
    "2026-11-21T04:00:00.000Z",
    UplinkView(
        connected=False, since="2026-11-21T03:00:00.000Z", for_s=3600.06, detail="why", certificate_days=29.96
    ),
    [stream()],
    Drain("stopped", 110.04, 9.96),
    DeadLettersView(1, newest=[LETTER]),
    unavailable="Stream Manager restarts",
    twin="another process connects with the client id x",
    evidence={"waiting": 3},
)


def test_status_says_when_delivered_is_worth_less() -> None:
    weaker = UplinkView(connected=True, since="", for_s=5.0, handed_over=7, resend_window_s=120.0)

    told = json.loads(payload(Look("online", "", weaker)))["uplink"]

    assert told["promise"] == "delivered is taken by the nucleus, which may lose it; sent again for 120 s"
    assert told["handed_over"] == 7


def test_status_tells_all_that_an_operator_asks() -> None:
    assert json.loads(payload(LOOK)) == {
        "state": "offline-uplink",
        "at": "2026-11-21T04:00:00.000Z",
        "uplink": {
            "connected": False, "since": "2026-11-21T03:00:00.000Z", "for_s": 3600.1, "detail": "why",
            "certificate_days": 30.0, "promise": "delivered is accepted by the cloud", "handed_over": 0,
        },
        "drain": {"state": "stopped", "rate_per_s": 110.0, "seconds": 10.0},
        "dead_letters": {
            "count": 1, "is_more": False,
            "newest": [
                {
                    "number": 7, "event_id": "an-id", "stream": "predictions-line-1",
                    "reason": "0x99 payload format invalid",
                }
            ],
        },
        "unavailable": "Stream Manager restarts",
        "twin": "another process connects with the client id x",
        "evidence": {"waiting": 3},
        "streams": [
            {
                "name": "predictions-line-1", "events": 3, "bytes": 4096, "max_bytes": 10_485_760, "oldest_age_s": 12.3,
                "stored": 100, "delivered": 90, "buried": 2, "dropped": 5, "dropped_by": {"damaged": 1, "shed_good": 4},
                "rate_per_s": 10.0, "retention_s": 1048.6, "retention_limit": "bytes", "full": "", "trouble": "",
            }
        ],
        "streams_left_out": 0,
    }  # fmt: skip


@pytest.mark.parametrize("text", ["x", "ü", "🙂"])
def test_status_stays_readable_whatever_a_producer_makes_up(text: str) -> None:
    troubled = stream("zz-troubled", full="its bytes are used")
    many = [stream(f"{number}{text * 200}", trouble=text * 5000) for number in range(3000)]
    look = replace(
        LOOK, streams=[replace(one, state=replace(one.state, dropped={})) for one in many] + [troubled],
        uplink=replace(LOOK.uplink, detail=text * 9000), unavailable=text * 9000, twin=text * 9000,
        dead_letters=DeadLettersView(
            100, is_more=True, newest=[replace(LETTER, reason=text * 9000)] * 100
        ),
    )  # fmt: skip

    told = payload(look)

    assert len(told) <= LARGEST_STATUS_BYTES
    read = read_status(ForwarderStatus, told)
    assert read is not None
    assert read.state == "offline-uplink"
    assert json.loads(told)["streams_left_out"] + len(read.streams) == 3001


def test_what_has_trouble_is_told_before_what_has_none() -> None:
    quiet = [replace(stream(f"line-{number}"), retention=Retention()) for number in range(200)]
    quiet = [
        replace(one, state=replace(one.state, dropped={}, events=number)) for number, one in enumerate(quiet)
    ]
    full = replace(quiet[0], full="its bytes are used", state=replace(quiet[0].state, name="zz", events=0))

    told = json.loads(payload(replace(LOOK, streams=[*quiet, full])))

    names = [one["name"] for one in told["streams"]]
    assert names == sorted(names)
    assert {"zz", "line-199"} <= set(names)
    assert "line-0" not in names


# --- metrics ---------------------------------------------------------------------------------------------------------


def scraped(look: Look | None) -> dict[str, float]:
    registry = CollectorRegistry()
    metrics = LookMetrics(lambda: True)
    metrics.look = look
    registry.register(metrics)
    lines = generate_latest(registry).decode().splitlines()
    samples = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
    return {name.removeprefix("linewatch_forwarder_"): float(value) for name, value in samples}


def test_metrics_tell_what_the_last_look_found() -> None:
    told = scraped(replace(LOOK, streams=[stream(is_refused=True)]))

    of_stream = '{stream="predictions-line-1"}'
    assert {name: told[name] for name in told if "{" not in name} == {
        "broker_connected": 1, "uplink_connected": 0, "offline_seconds": 3600.06, "streams_unavailable": 1,
        "certificate_seconds": pytest.approx(29.96 * 86400), "dead_letters": 1, "drain_seconds": 9.96,
        "drain_events_per_second": 110.04,
    }  # fmt: skip
    assert told[f"retention_seconds{of_stream}"] == 1048.576
    assert told[f"stream_refused{of_stream}"] == 1
    assert told['dropped_total{reason="damaged",stream="predictions-line-1"}'] == 1
    assert told['dropped_total{reason="expired",stream="predictions-line-1"}'] == 0, "there before the first"


def test_what_is_not_known_has_no_sample_and_before_the_first_look_nothing_has() -> None:
    unknown = replace(
        LOOK, drain=Drain(), streams=[replace(stream(), retention=Retention())],
        uplink=UplinkView(connected=True, since="", for_s=5.0),
    )  # fmt: skip

    told = scraped(unknown)

    assert not {name for name in told if "retention" in name or "drain" in name or "certificate" in name}
    assert told["offline_seconds"] == 0
    assert set(scraped(None)) == {
        "broker_connected",
        "uplink_connected",
        "offline_seconds",
        "streams_unavailable",
    }
