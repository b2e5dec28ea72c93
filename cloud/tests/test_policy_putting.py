# SPDX-License-Identifier: Apache-2.0
"""Of two who put a policy, the second one has seen what the first one put, or is refused."""

import json
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests
from operators import Operator, operator_of

from linewatch_plant.standin_cloud import ANSWER_S, StandinCloud
from work_orders import aws
from work_orders.policies import Policies, PolicyConflictError
from work_orders.policy_data import PATH
from work_orders.records import Records

AT = "2026-11-21T10:00:00.000Z"


def document(version: str, **changes: Any) -> dict[str, Any]:
    return {**json.loads(PATH.read_text()), "version": version, **changes}


@pytest.fixture
def tables(cloud: StandinCloud) -> Iterator[dict[str, str]]:
    """Policies and records as the template makes them, for one test alone."""
    dynamodb = cloud.client("dynamodb")
    made = {}
    for output in ("PoliciesTable", "RecordsTable"):
        described = dynamodb.describe_table(TableName=cloud.outputs[output])["Table"]
        made[output] = f"{output}-{uuid.uuid4().hex[:8]}"
        keys = {key["AttributeName"] for key in described["KeySchema"]}
        dynamodb.create_table(
            TableName=made[output], BillingMode="PAY_PER_REQUEST", KeySchema=described["KeySchema"],
            AttributeDefinitions=[one for one in described["AttributeDefinitions"] if one["AttributeName"] in keys],
        )  # fmt: skip
    yield made
    for name in made.values():
        dynamodb.delete_table(TableName=name)


def policies(tables: dict[str, str]) -> Policies:
    """As one function, or one command, has them."""
    dynamodb = aws.dynamodb()
    return Policies(dynamodb, tables["PoliciesTable"], Records(dynamodb, tables["RecordsTable"]))


def test_of_two_at_once_one_holds_and_the_other_is_told_which(
    environment: dict[str, str], tables: dict[str, str]
) -> None:
    del environment  # how boto3 finds the account
    who = [policies(tables) for _ in range(2)]
    over = None
    for turn in range(5):
        together = threading.Barrier(2)

        def put(n: int, over: str | None = over, turn: int = turn, together: Any = together) -> str:
            together.wait(60)
            try:
                return who[n].put(document(f"1.{turn}.{n}"), f"admin-{n}", AT, over).version
            except PolicyConflictError as error:
                return str(error)

        with ThreadPoolExecutor(2) as pool:
            told = list(pool.map(put, range(2)))

        held = who[0].held()
        assert held in told
        (refused,) = (one for one in told if one != held)
        assert refused == f"somebody put version {held} meanwhile: look at it and put again"
        assert Records(aws.dynamodb(), tables["RecordsTable"]).last("policy").number == turn, (
            "one record a turn"
        )
        over = held


def test_a_first_try_whose_answer_was_lost_can_be_repeated(
    environment: dict[str, str], tables: dict[str, str]
) -> None:
    del environment
    admin = policies(tables)
    admin.put(document("1.0.0"), "erna", AT, None)

    assert admin.put(document("1.0.0"), "erna", AT, None).version == "1.0.0"
    with pytest.raises(PolicyConflictError, match=r"somebody put version 1\.0\.0 meanwhile"):
        admin.put(document("1.1.0"), "otto", AT, None)
    assert admin.put(document("1.1.0"), "otto", AT, "1.0.0").version == "1.1.0"


def test_a_spoilt_word_of_which_one_holds_keeps_nobody_from_putting(
    environment: dict[str, str], tables: dict[str, str]
) -> None:
    del environment
    aws.dynamodb().put_item(TableName=tables["PoliciesTable"], Item={"name": "current"})
    admin = policies(tables)

    assert admin.put(document("1.0.0"), "erna", AT, admin.held()).version == "1.0.0"


def test_the_api_refuses_who_has_seen_another_policy(cloud: StandinCloud) -> None:
    def put(body: dict[str, Any], follows: str) -> requests.Response:
        headers = {
            "Authorization": f"Bearer {cloud.api_token}", "X-Linewatch-User": quote("A. Keller"),
            "X-Linewatch-Role": "admin", **({"X-Linewatch-Follows": follows} if follows else {}),
        }  # fmt: skip
        return requests.put(f"{cloud.api_url}/policy", json=body, headers=headers, timeout=ANSWER_S)

    own = uuid.uuid4().int % 10**9
    seen = put(document(f"1.{own}.0"), "").json()["digest"]
    first, second = document(f"1.{own}.1"), document(f"1.{own}.2")

    assert put(first, seen).status_code == 200
    late = put(second, seen)

    assert (late.status_code, late.json()["error"]) == (
        409, f"somebody put version 1.{own}.1 meanwhile: look at it and put again",
    )  # fmt: skip
    again = put(first, seen)
    assert again.status_code == 200, "the answer to the first try was lost"
    assert put(second, again.json()["digest"]).status_code == 200
    assert (put(first, "sha256:1").status_code, put(first, "sha256:1").json()["field"]) == (
        400, "X-Linewatch-Follows",
    )  # fmt: skip


def test_the_command_refuses_who_has_seen_another_policy(cloud: StandinCloud, tmp_path: Path) -> None:
    operator: Operator = operator_of(cloud, tmp_path)
    own = uuid.uuid4().int % 10**9
    for n in range(3):
        (tmp_path / f"{n}.json").write_text(json.dumps(document(f"2.{own}.{n}")))
    assert operator.run("policy", "put", "test", tmp_path / "0.json").exit_code == 0
    assert (
        operator.run("policy", "put", "test", tmp_path / "1.json", "--instead-of", f"2.{own}.0").exit_code
        == 0
    )

    late = operator.run("policy", "put", "test", tmp_path / "2.json", "--instead-of", f"2.{own}.0")

    assert late.exit_code == 3
    assert f"somebody put version 2.{own}.1 meanwhile: look at it and put again" in late.stderr
    assert json.loads(operator.run("policy", "show", "test").stdout)["version"] == f"2.{own}.1"
