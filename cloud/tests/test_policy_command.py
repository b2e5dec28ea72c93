# SPDX-License-Identifier: Apache-2.0
"""`linewatch policy`: what is put holds in every function, and a replay orders what the live line ordered."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cloud_line import Eventually, Line
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import Operator, operator_of

from linewatch_plant.standin_cloud import StandinCloud
from work_orders.consequence import consequence
from work_orders.episodes import Episode
from work_orders.observed import Part, to_observation
from work_orders.policy import Latch, decide
from work_orders.policy_data import PATH, load
from work_orders.states import StationState, add
from work_orders.what_if import Seen, replay

ASSET = {
    "asset_id": "TF-01",
    "kind": "machine",
    "criticality": "A",
    "failure_modes": {"HPC": "hpc-degradation"},
}


@pytest.fixture
def operator(cloud: StandinCloud, tmp_path: Path) -> Operator:
    return operator_of(cloud, tmp_path)


def document(**changes: Any) -> dict[str, Any]:
    return {**json.loads(PATH.read_text()), **changes}


def written(path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps(document(**changes)))
    return path


def part(sequence: int, severity: float, epoch: int = 1) -> Part:
    result = "NG" if severity >= 0.8 else "OK"
    return Part(epoch, sequence, f"e{epoch}-{sequence}", None, result, "HPC", "", severity, severity, "1.0.0")


def seen(*severities: float, every_s: float = 60.0) -> list[Seen]:
    return [Seen(n * every_s, "p/l/s", part(n, severity)) for n, severity in enumerate(severities, 1)]


def test_a_bad_file_is_refused_with_its_place(operator: Operator, tmp_path: Path) -> None:
    bad = written(tmp_path / "bad.json", needed=9)
    (tmp_path / "no.json").write_text("{")

    refused = operator.run("policy", "check", bad)
    assert refused.exit_code == 2
    assert "needed: must be a whole number from 1 to 5, got 9" in refused.stderr
    assert "is no JSON" in operator.run("policy", "check", tmp_path / "no.json").stderr
    assert operator.run("policy", "put", "test", bad).exit_code == 2


def test_a_file_with_several_mistakes_has_each_named_on_a_line(operator: Operator, tmp_path: Path) -> None:
    bad = written(tmp_path / "bad.json", needed=9, rate_limit={"orders": 99, "hours": 24}, version="two")

    for arguments in (("check", bad), ("put", "test", bad)):
        refused = operator.run("policy", *arguments)

        assert refused.exit_code == 2
        assert refused.stderr.splitlines()[-3:] == [
            f"Error: {bad}: version: must be a version such as 2.1.0",
            f"{bad}: needed: must be a whole number from 1 to 5, got 9",
            f"{bad}: rate_limit.orders: must be a whole number from 0 to 50, got 99",
        ]


def test_what_is_put_is_shown_recorded_and_put_once(operator: Operator, tmp_path: Path) -> None:
    version = f"3.0.{datetime.now(UTC):%H%M%S%f}"
    good = written(tmp_path / "good.json", version=version)

    assert operator.run("policy", "put", "test", good, "--dry-run").exit_code == 0
    assert json.loads(operator.run("policy", "show", "test").stdout)["version"] != version
    assert operator.run("policy", "put", "test", good, "--by", "erna").exit_code == 0
    assert json.loads(operator.run("policy", "show", "test").stdout)["version"] == version
    assert operator.run("policy", "put", "test", good).exit_code == 0  # the same again changes nothing
    other = written(tmp_path / "other.json", version=version, needed=3)
    refused = operator.run("policy", "put", "test", other)
    assert (refused.exit_code, "exists with another content" in refused.stderr) == (3, True)
    entries = operator.cloud.client("dynamodb").query(
        TableName=operator.cloud.outputs["RecordsTable"], KeyConditionExpression="#chain = :chain",
        ExpressionAttributeNames={"#chain": "chain"}, ExpressionAttributeValues={":chain": {"S": "policy"}},
    )["Items"]  # fmt: skip
    assert {"by": {"S": "erna"}, "what": {"S": "put"}}.items() <= entries[-2].items()
    assert version in entries[-2]["detail"]["S"]
    operator.run("policy", "put", "test", written(tmp_path / "back.json", version=f"{version}-back"))


def test_a_month_is_replayed_against_another_policy(
    cloud: StandinCloud,
    operator: Operator,
    machine: Line,
    eventually: Eventually,
    tmp_path: Path,
) -> None:
    for severity in (0.2, 0.6, 0.6, 0.6, 0.6, 0.65, 0.3):
        machine.send(machine.severity(severity))

    def all_stored() -> bool:
        stored = cloud.client("dynamodb").query(
            TableName=cloud.outputs["EventsTable"], IndexName="by_station",
            KeyConditionExpression="station_key = :station",
            ExpressionAttributeValues={":station": {"S": f"plant-1/{machine.line}/station-1"}},
        )  # fmt: skip
        return stored["Count"] == 7

    eventually(all_stored, "the parts at their station")
    before, after = (
        document(version="7.0.0", pilot={"is_on": False}),
        document(version="7.0.1", pilot={"is_on": False}),
    )
    after["bands"][0] |= {"on": 0.55, "off": 0.5}
    (tmp_path / "before.json").write_text(json.dumps(before))
    (tmp_path / "after.json").write_text(json.dumps(after))
    kept = tmp_path / "parts.jsonl"

    told = operator.run(
        "policy",
        "what-if",
        "test",
        tmp_path / "after.json",
        "--against",
        tmp_path / "before.json",
        "--save",
        kept,
        "--json",
    )
    assert told.exit_code == 0, told.output
    result = json.loads(told.stdout)
    mine = {
        name: [order for order in result[name]["orders"] if order["asset_id"] == machine.asset_id]
        for name in ("present", "candidate")
    }
    assert [(order["what"], order["band"]) for order in mine["present"]] == [("asked", "approval")]
    assert [(order["what"], order["band"]) for order in mine["candidate"]] == [("created", "automatic")]
    offline = operator.run(
        "policy",
        "what-if",
        "nowhere",
        tmp_path / "after.json",
        "--against",
        tmp_path / "before.json",
        "--events",
        kept,
    )
    assert offline.exit_code == 0, offline.output
    assert re.search(r"asked -> created.*" + machine.asset_id, offline.stdout)


def test_a_broken_file_of_parts_names_its_line(operator: Operator, tmp_path: Path) -> None:
    policy = written(tmp_path / "policy.json")
    parts = tmp_path / "parts.jsonl"
    parts.write_text('{"assets": {}}\n[1, "p/l/s"]\n')

    told = operator.run("policy", "what-if", "x", policy, "--against", policy, "--events", parts)

    assert (told.exit_code, "line 2 is no part" in told.stderr) == (2, True)


SEVERITIES = st.lists(st.sampled_from([0.1, 0.45, 0.5, 0.6, 0.75, 0.8, 0.85, 0.95]), max_size=40)


@settings(max_examples=150, deadline=None)
@given(severities=SEVERITIES, kind=st.sampled_from(["machine", "product"]))
def test_a_replay_decides_as_the_flow_does(severities: list[float], kind: str) -> None:
    policy = replace(load(), pilot=replace(load().pilot, is_on=False))
    asset = {**ASSET, "kind": kind}
    rule = policy.rule(kind, "A")
    state, episode, opened = (
        StationState("TF-01", "p/l/s", 0, (), {}),
        Episode("TF-01", "hpc-degradation"),
        [],
    )
    for one in seen(*severities):
        state = add(state, to_observation(one.part, asset, policy), rule, policy.remember, {})
        decision = decide(state.observations, "hpc-degradation", rule, Latch())
        if decision.band and not episode.is_open:
            meant = consequence(decision, policy, one.at, episode.opened_at, pilot=False)
            episode = episode.opened(one.at)
            opened.append((one.at, decision.band, meant.what == "ask", decision.event_ids))

    replayed = replay(seen(*severities), {"p/l/s": asset}, policy, closed_after_s=1e9, pilot=False)

    told = [(order.at, order.band, order.what == "asked", order.event_ids) for order in replayed.orders]
    assert told == opened


def test_an_order_that_is_closed_makes_room_for_the_next_by_later_parts_only() -> None:
    policy = load()
    alarms = seen(*[0.9] * 4, *[0.2] * 6, *[0.9] * 4, every_s=3600.0)

    soon = replay(alarms, {"p/l/s": ASSET}, policy, closed_after_s=2 * 3600, pilot=False)
    never = replay(alarms, {"p/l/s": ASSET}, policy, closed_after_s=1e9, pilot=False)

    assert [order.episode for order in soon.orders] == [1, 2]
    assert soon.orders[1].event_ids == ("e1-11", "e1-12", "e1-13", "e1-14")
    assert [order.episode for order in never.orders] == [1]


def test_severity_that_lasts_escalates_and_one_spike_does_not() -> None:
    policy = load()
    spike = replay(
        seen(0.6, 0.6, 0.6, 0.6, 0.99, 0.6), {"p/l/s": ASSET}, policy, closed_after_s=1e9, pilot=False
    )
    rising = replay(seen(*[0.6] * 4, *[0.95] * 4), {"p/l/s": ASSET}, policy, closed_after_s=1e9, pilot=False)

    assert (spike.orders[0].priority, spike.orders[0].worst) == ("low", "low")
    assert (rising.orders[0].priority, rising.orders[0].worst) == ("low", "urgent")


def test_parts_of_unknown_stations_are_counted() -> None:
    replayed = replay(seen(0.9), {}, load(), closed_after_s=1, pilot=False)
    assert (replayed.parts, replayed.unknown, replayed.orders) == (1, 1, [])
