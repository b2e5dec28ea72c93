# SPDX-License-Identifier: Apache-2.0
"""Bad input at the cloud's edge: whatever is sent, each event is taken or refused by name, and nothing else stops."""

import copy
import json
import math
import os
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cloud_line import Eventually, Line
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api import request
from api.errors import BadRequestError
from api.verifying import training_of
from dead_letters.letters import Drawer
from dead_letters.poison import CODES, PoisonError
from enrich import handler as enrich
from enrich import strict_json
from enrich.contract import LONGEST_LIFE, YEAR_S, name_fault
from enrich.enrichment import LARGEST_EVENT, MAX_EVENTS, Event, read
from linewatch.records import first_fault
from linewatch_plant.standin_cloud import StandinCloud
from work_orders import messages
from work_orders.document import seen_in, time_to_failure
from work_orders.observed import observation_of, part_from, part_of, to_observation
from work_orders.policy_data import load
from work_orders.records import Records

GOLDEN = {
    path.stem: json.loads(path.read_text())
    for path in sorted((Path(__file__).parents[2] / "protos/golden/v1").glob("*.json"))
}
NOW = datetime(2026, 11, 21, 5, tzinfo=UTC)
ASSET = {"asset_id": "A1", "kind": "machine", "failure_modes": {}, "criticality": "A"}


def good() -> dict[str, Any]:
    return copy.deepcopy(GOLDEN["inspection_ng_sensor"])


def at(path: str, value: Any, event: dict[str, Any] | None = None) -> dict[str, Any]:
    """A good event in which one place says something else; a value of ... takes the place away."""
    found = event or good()
    *parents, last = path.split(".")
    inner: Any = found
    for name in parents:
        inner = inner[int(name)] if isinstance(inner, list) else inner[name]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return found


def judged(body: str) -> list[Event | PoisonError]:
    return read(body, NOW)


def code_of(body: str) -> str:
    (one,) = judged(body)
    assert isinstance(one, PoisonError), "it was taken"
    assert one.why.isascii()
    return one.code


def nested(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


TWICE = json.dumps(good()).replace('"severity": 0.875', '"severity": 0.1, "severity": 0.99')

EXAMPLES: list[tuple[str, str]] = [
    ("not_json", "not json"),
    ("not_json", '{"specversion":"1.0"'),
    ("not_json", "[" * 200_000),
    ("not_json", "\x00"),
    ("not_json", '{"n": ' + "9" * 5000 + "}"),
    ("too_many", json.dumps({"events": [1] * (MAX_EVENTS + 1)})),
    ("too_deep", json.dumps(at("extension", nested(40)))),
    ("too_deep", json.dumps(at("data.invented", nested(40)))),
    ("too_large", json.dumps(at("data.part_id", "x" * 4 * 1024 * 1024))),
    ("too_large", json.dumps(at("subject", "Ä" * (LARGEST_EVENT // 6 + 1)))),
    ("duplicate_key", TWICE),
    ("duplicate_key", json.dumps(good())[:-1] + ',"id":"another"}'),
    ("not_finite", json.dumps(at("data.verdict.severity", float("nan")))),
    ("not_finite", json.dumps(at("data.verdict.severity", float("inf")))),
    ("not_finite", json.dumps(at("data.verdict.severity", "NaN"))),
    ("not_finite", json.dumps(at("data.verdict.time_to_failure.p50", "-Infinity"))),
    ("not_finite", json.dumps(at("data.verdict.severity", 0)).replace('"severity": 0', '"severity": 1e999')),
    ("not_finite", json.dumps(at("extension", float("-inf")))),
    ("bad_text", json.dumps(at("data.part_id", "a\0b"))),
    ("bad_text", json.dumps(at("data.verdict.label", "\ud800"))),
    ("bad_text", json.dumps(at("extension", {"\udfff": 1}))),
    ("not_a_cloudevent", "null"),
    ("not_a_cloudevent", "{}"),
    ("not_a_cloudevent", '"text"'),
    ("not_a_cloudevent", json.dumps(at("specversion", "0.3"))),
    ("not_a_cloudevent", json.dumps(at("source", ...))),
    ("not_a_cloudevent", json.dumps(at("time", 1_700_000_000))),
    ("bad_id", json.dumps(at("id", ...))),
    ("bad_id", json.dumps(at("id", ""))),
    ("bad_id", json.dumps(at("id", 7))),
    ("bad_id", json.dumps(at("id", "x" * 129))),
    ("bad_id", json.dumps(at("id", "a\nb"))),
    ("bad_id", json.dumps(at("id", "\u202eabc"))),
    ("unknown_type", json.dumps(at("type", "PartTasted"))),
    ("unknown_type", json.dumps(at("type", "__proto__"))),
    ("unknown_type", json.dumps(at("type", ["InferenceCompleted"]))),
    ("future_schema", json.dumps(at("dataschema", "linewatch/v2/event.proto"))),
    ("future_schema", json.dumps(at("dataschema", "linewatch/v2/event.proto", at("type", "PartTasted")))),
    ("unknown_schema", json.dumps(at("dataschema", "https://example.com/schema"))),
    ("unknown_schema", json.dumps(at("dataschema", 1))),
    ("bad_data", json.dumps(at("data", "text"))),
    ("bad_data", json.dumps(at("data", [1]))),
    ("bad_data", json.dumps(at("data.origin.sequence", -1))),
    ("bad_data", json.dumps(at("data.origin.sequence", 2**63))),
    ("bad_data", json.dumps(at("data.origin.epoch", 1.5))),
    ("bad_data", json.dumps(at("data.origin.epoch", True))),
    ("bad_data", json.dumps(at("data.origin.taken_at", "yesterday"))),
    ("bad_data", json.dumps(at("data.origin.taken_at", "99999-01-01T00:00:00Z"))),
    ("bad_data", json.dumps(at("data", None))),
    ("bad_data", json.dumps(at("data.verdict", []))),
    ("bad_data", json.dumps(at("data.origin.clock", "synchronised"))),
    ("bad_data", json.dumps(at("data.evidence", {"0": {}}))),
    ("bad_data", json.dumps(at("data.evidence", ["path"]))),
    ("bad_data", json.dumps(at("data.verdict.severity", 10**400))),
    ("bad_data", json.dumps(at("data.verdict.is_anomalous", "yes"))),
    ("bad_origin", json.dumps(at("data", ...))),
    ("bad_origin", json.dumps(at("data.origin", ...))),
    ("bad_origin", json.dumps(at("data.origin.line", ""))),
    ("bad_origin", json.dumps(at("data.origin.line", "line-1/station-1"))),
    ("bad_origin", json.dumps(at("data.origin.line", "../line-1"))),
    ("bad_origin", json.dumps(at("data.origin.station", "Station-1"))),
    ("bad_origin", json.dumps(at("data.origin.station", "st\u0430tion"))),
    ("bad_origin", json.dumps(at("data.origin.station", "x" * 65))),
    ("bad_origin", json.dumps(at("data.origin.station", "station-1\n"))),
    ("no_place", json.dumps(at("data.origin.sequence", ...))),
    ("no_place", json.dumps(at("data.origin.epoch", 0))),
    ("no_outcome", json.dumps(at("data.verdict", ...))),
    ("no_outcome", json.dumps(at("data.verdict.result", "SCRAP"))),
    ("no_outcome", json.dumps(at("data.verdict.result", ...))),
    ("no_outcome", json.dumps(at("type", "InferenceError"))),
    ("out_of_range", json.dumps(at("data.verdict.severity", 1.01))),
    ("out_of_range", json.dumps(at("data.verdict.score", -0.5))),
    ("out_of_range", json.dumps(at("data.verdict.class_scores.0.score", 1e308))),
    ("out_of_range", json.dumps(at("data.cycle_period_s", -1))),
    ("out_of_range", json.dumps(at("data.cycle_period_s", YEAR_S + 1))),
    ("out_of_range", json.dumps(at("data.verdict.time_to_failure.p90", 1e308))),
    ("out_of_range", json.dumps(at("data.verdict.time_to_failure.p10", -1e308))),
    ("out_of_range", json.dumps(at("data.verdict.time_to_failure.horizon", -1))),
    ("bad_name", json.dumps(at("data.verdict.failure_mode", "x" * 65))),
    ("bad_name", json.dumps(at("data.verdict.failure_mode", "__proto__"))),
    ("bad_name", json.dumps(at("data.verdict.label", "HPC\u200b"))),
    ("bad_name", json.dumps(at("data.verdict.label", "e\u0301"))),
    ("bad_path", json.dumps(at("data.evidence.0.path", "../../etc/passwd"))),
    ("bad_path", json.dumps(at("data.evidence.0.path", "/etc/passwd"))),
    ("bad_path", json.dumps(at("data.evidence.0.path", "a\\..\\b"))),
    ("bad_path", json.dumps(at("data.evidence.0.path", ""))),
    ("in_the_future", json.dumps(at("data.origin.taken_at", "9999-12-31T23:59:59Z"))),
    ("in_the_future", json.dumps(at("data.origin.corrected_at", "2026-11-23T05:00:00Z"))),
    ("too_old", json.dumps(at("data.origin.taken_at", "1970-01-01T00:00:00Z"))),
    ("too_old", json.dumps(at("data.origin.corrected_at", "2025-10-01T00:00:00Z"))),
]  # fmt: skip


@pytest.mark.parametrize(
    ("code", "body"), EXAMPLES, ids=[f"{number}-{code}" for number, (code, _) in enumerate(EXAMPLES)]
)
def test_bad_input_is_refused_by_its_name(code: str, body: str) -> None:
    assert code_of(body) == code


def test_every_code_of_an_event_has_an_example() -> None:
    of_work = {"asset_unusable", "not_enriched", "not_understood"}
    assert {code for code, _ in EXAMPLES} == set(CODES) - of_work


class Key(str):
    """A key that counts how often a key is compared."""

    __slots__ = ()
    compared = 0

    def __eq__(self, other: object) -> bool:
        Key.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_a_key_twice_is_found_by_looking_at_each_key_once() -> None:
    keys = 2_000
    pairs = [(Key(f"key {number}"), 0) for number in [*range(keys), keys - 1]]
    repeated = strict_json.Repeated(pairs)
    Key.compared = 0

    with pytest.raises(PoisonError) as refused:
        strict_json.check(repeated)

    assert refused.value.why == f"the event has the key 'key {keys - 1}' 2 times"
    assert Key.compared <= 4 * keys

    with pytest.raises(BadRequestError):
        request._without_doubles(pairs)
    assert Key.compared <= 8 * keys


def test_an_event_that_is_too_large_is_not_looked_at_any_further(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(strict_json, "check", seen.append)
    keys = ",".join(f'"{number:05d}":0' for number in range(LARGEST_EVENT // 10))

    assert code_of(json.dumps(good())[:-1] + f',{keys},"00000":1}}') == "too_large"
    assert seen == []


def test_the_longest_life_in_the_longest_cycles_has_hours_that_are_numbers() -> None:
    life = dict.fromkeys(("p10", "p50", "p90", "horizon"), LONGEST_LIFE)
    event = at("data.cycle_period_s", YEAR_S, at("data.verdict.time_to_failure", {**life, "unit": "cycle"}))

    (taken,) = judged(json.dumps(event))

    assert isinstance(taken, Event)
    told = seen_in([taken.document])["time_to_failure"]
    assert all(math.isfinite(value) for value in told["hours"].values())
    assert json.dumps(told, allow_nan=False)


def test_an_event_of_before_these_bounds_tells_no_hours_that_json_has_no_word_for() -> None:
    told = time_to_failure({"p10": 10.0, "p90": 1e308, "unit": "cycle"}, 1e5)

    assert told == {"p10": 10.0, "p90": 1e308, "unit": "cycle", "hours": None, "beyond_horizon": False}


@pytest.mark.parametrize("taken_at", ["1970-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"])
def test_a_device_that_does_not_know_the_time_is_not_asked(taken_at: str) -> None:
    event = at("data.origin.clock.synchronised", False, at("data.origin.taken_at", taken_at))
    (taken,) = judged(json.dumps(event))
    assert isinstance(taken, Event)
    assert part_of(taken.document).taken_at is None


@pytest.mark.parametrize("name", GOLDEN)
def test_every_event_that_a_release_wrote_is_taken_as_it_was(name: str) -> None:
    (taken,) = judged(json.dumps(GOLDEN[name]))
    assert isinstance(taken, Event)
    assert taken.document == GOLDEN[name]


@pytest.mark.parametrize("name", GOLDEN)
def test_fields_of_a_later_release_are_kept_at_every_depth(name: str) -> None:
    event = copy.deepcopy(GOLDEN[name])
    event["extension"] = {"a": [1]}
    _add_everywhere(event["data"])

    (taken,) = judged(json.dumps(event))

    assert isinstance(taken, Event)
    assert taken.document == event


def _add_everywhere(value: Any) -> None:
    if isinstance(value, dict):
        for inner in list(value.values()):
            _add_everywhere(inner)
        value["from_a_later_release"] = {"x": [1, None, "ü"], "__proto__": {}}
    elif isinstance(value, list):
        for inner in value:
            _add_everywhere(inner)


texts = st.text(max_size=30) | st.sampled_from(
    [
        "",
        "\0",
        "\ud800",
        "NaN",
        "-Infinity",
        "__proto__",
        "constructor",
        "../x",
        "\u202e",
        "x" * 70_000,
        "9" * 400,
        "OK",
    ]
)
numbers = st.sampled_from(
    [
        0,
        -1,
        1,
        2,
        2**31,
        2**32,
        2**63,
        -(2**63),
        10**400,
        0.5,
        1.0000001,
        1e308,
        -0.0,
        float("nan"),
        float("inf"),
    ]
)
times = st.sampled_from(
    ["1970-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z", "0000-00-00T00:00:00Z", "2026-11-21"]
)
scalars = st.none() | st.booleans() | numbers | texts | times
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in inside:
        yield (*path, key)
        yield from places(inner, (*path, key))


@st.composite
def spoilt(draw: st.DrawFn) -> Any:
    """An event as a device wrote it, with one to three places gone, replaced or added."""
    event = copy.deepcopy(GOLDEN[draw(st.sampled_from(sorted(GOLDEN)))])
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(places(event)) or [("id",)]))
        inner: Any = event
        for key in path[:-1]:
            inner = inner[key]
        how = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if how == "remove":
            del inner[path[-1]]
        elif how == "add" and isinstance(inner, dict):
            inner[draw(texts)] = draw(values)
        else:
            inner[path[-1]] = draw(values)
    return event


@settings(
    deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(spoilt())
def test_a_spoilt_event_is_refused_by_name_or_good_for_all_that_follows(event: Any) -> None:
    (one,) = judged(json.dumps(event))
    if isinstance(one, PoisonError):
        assert one.code in CODES
        # The dead letter is what came: read again, it is wrong in the same way.
        assert code_of(one.body) == one.code
        return
    text = json.dumps({"event": one.document, "asset": ASSET}, allow_nan=False)
    assert len(text) < 2 * LARGEST_EVENT
    message = messages.read(text)
    if one.is_of_a_station:
        part = part_from(observation_of(one.document))
        assert part == part_of(message["event"])
        observation = to_observation(part, ASSET, load())
        assert observation.weight is None or 0.0 <= observation.weight <= 1.0
        assert observation.failure_mode is None or not name_fault(observation.failure_mode)


@settings(deadline=None, max_examples=200)
@given(st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=20))
def test_any_json_is_refused_by_name(value: Any) -> None:
    body = json.dumps(value)
    for one in judged(body):
        assert isinstance(one, PoisonError)
    with pytest.raises(PoisonError):
        messages.read(body)


@settings(deadline=None)
@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda data: data.decode("latin-1")))
def test_any_text_is_refused_by_name(body: str) -> None:
    assert all(isinstance(one, PoisonError) for one in judged(body))


def test_a_batch_loses_only_what_is_wrong_in_it() -> None:
    broken = [
        json.loads(body)
        for code, body in EXAMPLES
        if code not in ("not_json", "too_many", "duplicate_key", "too_large")
    ]
    batch = [one for bad in broken[:45] for one in (bad, good())]

    found = judged(json.dumps({"events": batch}))

    assert [isinstance(one, PoisonError) for one in found] == [True, False] * 45


@pytest.fixture
def function(
    environment: dict[str, str], cloud: StandinCloud, monkeypatch: pytest.MonkeyPatch
) -> StandinCloud:
    """The handler's own code in this process, with the deployed function's variables and the stand-in's services."""
    assert environment
    deployed = cloud.client("lambda").get_function_configuration(
        FunctionName=cloud.outputs["EnrichFunctionName"]
    )
    for name, value in deployed["Environment"]["Variables"].items():
        monkeypatch.setitem(os.environ, name, value)
    enrich._dynamodb.cache_clear()
    enrich._client.cache_clear()
    return cloud


def invoke(*bodies: str) -> list[str]:
    """What the handler hands back to be delivered again, of messages by number."""
    records = [
        {
            "messageId": str(number), "receiptHandle": f"r{number}", "body": body, "attributes": {},
            "messageAttributes": {}, "md5OfBody": "", "eventSource": "aws:sqs", "eventSourceARN": "arn", "awsRegion": "r",
        }
        for number, body in enumerate(bodies)
    ]  # fmt: skip
    answer = enrich.handler({"Records": records}, None)
    return [one["itemIdentifier"] for one in answer["batchItemFailures"]]


@settings(
    deadline=None, max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
@given(events=st.lists(spoilt(), min_size=1, max_size=4))
def test_real_tables_and_queues_take_what_the_edge_takes_and_the_rest_of_a_batch_is_done(
    function: StandinCloud, machine: Line, events: list[Any]
) -> None:
    for event in events:
        if isinstance(event, dict) and isinstance(event.get("id"), str):
            event["id"] = str(uuid.uuid4()) if event["id"].startswith("01992f3e") else event["id"]
    beside = machine.severity(0.1)

    assert invoke(*(json.dumps(event) for event in events), json.dumps(beside)) == []

    assert machine.is_stored(beside)
    for event in events:
        (one,) = read(json.dumps(event))
        if isinstance(one, Event):
            assert machine.is_stored({"id": one.event_id})


def test_each_refusal_lies_aside_with_its_own_code(
    function: StandinCloud, machine: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqs, url = function.client("sqs"), function.outputs["InspectionsDeadLettersUrl"]
    sqs.purge_queue(QueueUrl=url)
    # Of the examples' day, whichever day it is: what lies ahead of them is the past for a clock of later.
    monkeypatch.setattr(enrich, "read", lambda body, keep: read(body, NOW, keep))
    # A bare NUL is nothing that SQS would ever have brought.
    chosen = [(code, body) for code, body in EXAMPLES if len(body) < 100_000 and body != "\0"]
    good_ones = [machine.severity(0.1) for _ in chosen]

    for (_, body), beside in zip(chosen, good_ones, strict=True):
        assert invoke(body, json.dumps(beside)) == []

    with Drawer(sqs, "inspections", url) as drawer:
        found = sorted((letter.code, letter.body) for letter in drawer)
    sqs.purge_queue(QueueUrl=url)
    assert [code for code, _ in found] == sorted(code for code, _ in chosen)
    assert {body for _, body in found} == {body for _, body in chosen}
    assert machine.is_stored(*good_ones)


def test_what_every_release_wrote_goes_through_the_deployed_line(
    machine: Line, cloud: StandinCloud, eventually: Eventually
) -> None:
    now = f"{datetime.now(UTC) - timedelta(minutes=1):%Y-%m-%dT%H:%M:%S.000Z}"
    run = []
    for number, golden in enumerate(GOLDEN.values(), 1):
        event = copy.deepcopy(golden)
        event["id"] = str(uuid.uuid4())
        origin = event["data"]["origin"]
        if origin["line"] != "device":
            origin |= {"line": machine.line, "station": "station-1", "epoch": 7, "sequence": number}
        for name in ("taken_at", "corrected_at"):
            if name in origin:
                origin[name] = now
        event["data"]["from_a_later_release"] = {"a": 1}
        run.append(event)
    before = cloud.dead_letters()
    machine.events += [
        event for event in run if event["type"] in ("InferenceCompleted", "InferenceError", "PartsSkipped")
    ]

    machine.send({"events": run})

    eventually(lambda: machine.is_stored(*run), "every golden event")
    eventually(machine.all_decided, "the policy has seen every part")
    assert cloud.dead_letters() == before
    for item in cloud.scan("EventsTable"):
        if item["event_id"]["S"] in {event["id"] for event in machine.events}:
            assert item["station_key"]["S"] == f"plant-1/{machine.line}/station-1"
            assert part_from(item["observation"]["S"]).epoch == 7
            assert json.loads(item["event"]["S"])["data"]["from_a_later_release"] == {"a": 1}


def test_a_station_whose_sequence_jumps_holds_up_no_other(
    machine: Line, cloud: StandinCloud, eventually: Eventually, request: pytest.FixtureRequest
) -> None:
    jumping = Line.register(cloud, f"{request.node.name} jumping", "product")
    before = cloud.dead_letters()
    together: list[dict[str, Any]] = []
    for number in range(5):
        jumping.sequence = number * 2**29
        together += [jumping.product("NG"), machine.severity(0.95)]

    machine.send({"events": together})

    eventually(lambda: machine.order("created") or machine.order("awaiting_approval"), "the other's order")
    eventually(lambda: jumping.all_decided() and machine.all_decided(), "every part")
    assert jumping.orders() == []
    assert cloud.dead_letters() == before


def test_the_first_load_of_a_model_is_on_record_once_with_its_training_data(
    function: StandinCloud, machine: Line
) -> None:
    digest, trained_on = "sha256:" + uuid.uuid4().hex * 2, "sha256:" + "4c" * 32
    model = {"name": "turbofan", "version": "1.0.0", "digest": digest}

    def loaded(**more: str) -> str:
        return json.dumps(machine.event("ModelLoadSuccess", {"model": {**model, **more}}))

    assert (
        invoke(
            loaded(),
            loaded(),
            loaded(training_data_digest=trained_on),
            loaded(training_data_digest=trained_on),
        )
        == []
    )

    entries = Records(enrich._dynamodb(), os.environ["RECORDS_TABLE"]).of(f"model/{digest}")
    assert [entry.what for entry in entries] == ["model_loaded", "training_data_known"]
    assert first_fault(entries) is None
    # A device of a release before 0.3.0 does not tell it; the page `why` finds what a later one did.
    assert training_of(entries[:1]) is None
    assert training_of(entries) == trained_on


def test_parts_go_to_the_bus_only_where_that_is_asked_for(
    function: StandinCloud, machine: Line, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    sqs, events, bus = function.client("sqs"), function.client("events"), function.outputs["EventBusName"]
    url = sqs.create_queue(QueueName="parts-on-the-bus")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events.put_rule(
        Name="parts", EventBusName=bus, EventPattern=json.dumps({"detail-type": ["InferenceCompleted"]})
    )
    events.put_targets(Rule="parts", EventBusName=bus, Targets=[{"Id": "parts", "Arn": arn}])
    try:
        first, second = machine.severity(0.1), machine.severity(0.1)
        assert invoke(json.dumps(first)) == []
        monkeypatch.setitem(os.environ, "PARTS_ON_BUS", "true")
        assert (
            invoke(
                json.dumps(second),
                json.dumps(machine.event("PartsSkipped", {"count": 1, "reason": "spool_full"})),
            )
            == []
        )
        got = eventually(
            lambda: sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"),
            "the part on the bus",
        )
        assert [json.loads(one["Body"])["detail"]["id"] for one in got] == [second["id"]]
    finally:
        events.remove_targets(Rule="parts", EventBusName=bus, Ids=["parts"])
        events.delete_rule(Name="parts", EventBusName=bus)
        sqs.delete_queue(QueueUrl=url)


def test_what_was_counted_is_told_with_few_dimensions(
    function: StandinCloud, machine: Line, capsys: pytest.CaptureFixture[str]
) -> None:
    known = [machine.severity(0.1) for _ in range(3)]
    machine.line = f"new-{machine.line}"[:40]
    invoke(json.dumps(known), json.dumps(machine.severity(0.1)), "not json")

    told = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"_aws"' in line]
    counted = {(one.get("line"), name): one[name][0] for one in told for name in one if name[0].isupper()}
    line = machine.line.removeprefix("new-")
    assert counted == {
        (line, "Predictions"): 3.0,
        ("other", "Predictions"): 1.0,
        (None, "UnknownAssets"): 1.0,
        (None, "Poison"): 1.0,
    }
    assert {one["_aws"]["CloudWatchMetrics"][0]["Namespace"] for one in told} == {"Linewatch"}
