# SPDX-License-Identifier: Apache-2.0
"""A policy that contradicts itself, or is none: the one before goes on, and the events go through."""

import copy
import json
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from cloud_line import Eventually, Line
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from linewatch_plant.erp_simulator import ErpClient
from linewatch_plant.standin_cloud import StandinCloud
from work_orders.observing import Desk, observe
from work_orders.policies import CACHE_S, Policies
from work_orders.policy_data import PATH, PolicyData
from work_orders.policy_reading import PolicyError, parse
from work_orders.records import Records
from work_orders.wiring import desk_of

BUNDLED = json.loads(PATH.read_text())

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64)
    | st.floats()
    | st.text(max_size=8)
    | st.just("2026-11-21"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in inside:
        yield (*path, key)
        yield from places(inner, (*path, key))


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(list(places(BUNDLED))), values)
def test_a_spoilt_policy_is_read_or_refused_with_its_place(path: tuple[Any, ...], value: Any) -> None:
    document = copy.deepcopy(BUNDLED)
    inner: Any = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value

    try:
        assert isinstance(parse(document), PolicyData)
    except PolicyError as error:
        told = str(error)
    else:
        told = "read"

    assert told


@pytest.fixture
def table(cloud: StandinCloud) -> Iterator[str]:
    """Of policies, for this test alone."""
    name = f"policies-{uuid.uuid4().hex[:8]}"
    dynamodb = cloud.client("dynamodb")
    dynamodb.create_table(
        TableName=name, BillingMode="PAY_PER_REQUEST", KeySchema=[{"AttributeName": "name", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "name", "AttributeType": "S"}],
    )  # fmt: skip
    yield name
    dynamodb.delete_table(TableName=name)


@pytest.fixture
def desk(environment: dict[str, str], table: str) -> Desk:
    tools = desk_of(environment)
    records = Records(tools.dynamodb, environment["RECORDS_TABLE"])
    return replace(tools, policies=Policies(tools.dynamodb, table, records, clock=lambda: 0.0))


BAD: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "bands that cross": (
        {"version": "9.0.0"},
        {"document": json.dumps({**BUNDLED, "version": "9.0.0", "bands": list(reversed(BUNDLED["bands"]))})},
    ),
    "needed above observations": (
        {"version": "9.0.0"},
        {"document": json.dumps({**BUNDLED, "version": "9.0.0", "needed": 99})},
    ),
    "no JSON": ({"version": "9.0.0"}, {"document": "{"}),
    "no object": ({"version": "9.0.0"}, {"document": "[1]"}),
    "too deep": ({"version": "9.0.0"}, {"document": "[" * 100_000}),
    "no document": ({"version": "9.0.0"}, {}),
    "a document of another kind": ({"version": "9.0.0"}, {"document": 7}),
    "a current one that is not there": ({"version": "9.0.0"}, None),
    "a pointer without a version": ({}, None),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_policy_that_is_none_changes_nothing_and_orders_go_on(
    machine: Line, desk: Desk, table: str, erp: ErpClient, eventually: Eventually, bad: str
) -> None:
    pointer, version = BAD[bad]
    desk.dynamodb.put_item(TableName=table, Item={"name": "current", **pointer})
    if version is not None:
        desk.dynamodb.put_item(TableName=table, Item={"name": "version/9.0.0", **version})
    machine.send(*(events := [machine.severity(0.95) for _ in range(5)]))
    eventually(lambda: machine.is_stored(*events), "the events")
    asset = {
        "asset_id": f"{machine.asset_id}-own", "asset_name": "a", "location": "l", "criticality": "A", "kind": "machine",
        "thing_name": "linewatch-plant-1-device-1", "failure_modes": {"HPC": "hpc-degradation"},
    }  # fmt: skip

    # As wiring.desk() does before every batch.
    desk = replace(desk, data=desk.policies.current())
    for event in events:
        observe({"event": event, "asset": asset}, desk)

    assert desk.policies.current().version == BUNDLED["version"]
    assert [one for one in erp.orders() if one["asset_id"] == asset["asset_id"]], "the order"


def test_a_good_policy_after_a_bad_one_holds(desk: Desk, table: str, environment: dict[str, str]) -> None:
    now = [0.0]
    records = Records(desk.dynamodb, environment["RECORDS_TABLE"])
    policies = Policies(desk.dynamodb, table, records, clock=lambda: now[0])
    desk.dynamodb.put_item(TableName=table, Item={"name": "current", "version": "9.0.0"})
    desk.dynamodb.put_item(TableName=table, Item={"name": "version/9.0.0", "document": "{"})
    assert policies.current().version == BUNDLED["version"]

    good = json.dumps({**BUNDLED, "version": "9.0.1"})
    desk.dynamodb.put_item(TableName=table, Item={"name": "version/9.0.1", "document": good})
    desk.dynamodb.put_item(TableName=table, Item={"name": "current", "version": "9.0.1"})
    now[0] = CACHE_S

    assert policies.current().version == "9.0.1"
