# SPDX-License-Identifier: Apache-2.0
"""`linewatch erp check` against each product's simulator, with the settings and the secret of a deployed environment."""

import json
import math
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from erp_products import CANARY, PRODUCTS, Connected, credentials, serving
from erp_products import environment as erp_environment
from operators import Operator, operator_of

from erp import check
from linewatch_plant.standin_cloud import StandinCloud


@pytest.fixture(scope="module", params=PRODUCTS)
def product(request: pytest.FixtureRequest) -> Iterator[Connected]:
    with serving(request.param) as connected:
        yield connected


@pytest.fixture
def before(product: Connected) -> int:
    """Orders that the product has before a test."""
    return len(product.simulator.orders())


@pytest.fixture
def operator(cloud: StandinCloud, product: Connected, tmp_path: Path) -> Iterator[Operator]:
    """Of an environment whose ERP is this product."""
    functions = cloud.client("lambda")
    name = cloud.outputs["WorkOrdersFunctionName"]
    before = functions.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    secret_id = f"erp-{uuid.uuid4().hex[:8]}"
    secrets = cloud.client("secretsmanager")
    secrets.create_secret(Name=secret_id, SecretString=json.dumps(credentials(product.product, CANARY)))
    configure(
        functions,
        name,
        {**before, **erp_environment(product.product, product.url), "ERP_SECRET_ID": secret_id},
    )
    yield operator_of(cloud, tmp_path)
    configure(functions, name, before)


def configure(functions: Any, name: str, variables: dict[str, str]) -> None:
    functions.update_function_configuration(FunctionName=name, Environment={"Variables": variables})


def steps(result: Any) -> dict[str, bool | None]:
    return {step["name"]: step["is_good"] for step in json.loads(result.stdout)["steps"]}


@pytest.fixture
def _any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a busy machine's search takes says nothing of the product."""
    monkeypatch.setattr(check, "SLOW_S", math.inf)


@pytest.mark.usefixtures("_any_time")
def test_a_check_reads_only(operator: Operator, product: Connected, before: int) -> None:
    result = operator.run("erp", "check", "test", "--json")

    assert result.exit_code == 0, result.stdout
    assert steps(result) == {"signs in and searches": True, "searches in time": True}
    assert len(product.simulator.orders()) == before
    assert CANARY not in result.output


@pytest.mark.parametrize("product", ["rest"], indirect=True)
def test_a_search_that_is_too_slow_for_the_functions_is_told(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "SLOW_S", 0.0)

    result = operator.run("erp", "check", "test", "--json")

    assert result.exit_code == 4
    assert steps(result) == {"signs in and searches": True, "searches in time": False}
    assert "too slow for the functions" in result.stdout


@pytest.mark.usefixtures("_any_time")
def test_with_create_one_order_is_made_and_ended(operator: Operator, product: Connected, before: int) -> None:
    result = operator.run("erp", "check", "test", "--create", "--asset", "COMP-7", "--json")

    (order,) = product.simulator.orders()[before:]
    told = steps(result)
    assert result.exit_code == 0, result.stdout
    assert told.pop("ends it") is (None if product.product == "rest" else True)
    assert all(told.values())
    assert len(told) == 7
    assert order["external_reference"].startswith("lw-")
    assert "".join(order["notes"]).count("A note of linewatch erp check") == 1
    status = product.erp.status(str(order["id"]))
    assert status.state in ({"open"} if product.product == "rest" else {"completed", "cancelled"})


@pytest.mark.usefixtures("_any_time")
def test_what_fails_is_told_and_the_order_that_was_made_is_ended(
    operator: Operator, product: Connected, before: int
) -> None:
    product.simulator.set_faults(error_500_after_create=1)

    result = operator.run("erp", "check", "test", "--create", "--asset", "COMP-7")

    assert result.exit_code == 4
    assert "FAILED" in result.stdout
    assert "1 of" in result.stderr
    (order,) = product.simulator.orders()[before:]
    if product.product != "rest":
        assert product.erp.status(str(order["id"])).state in {"completed", "cancelled"}


def test_a_secret_that_is_refused_is_told(operator: Operator, product: Connected) -> None:
    product.simulator.rotate("another one")

    result = operator.run("erp", "check", "test")
    product.simulator.rotate(CANARY)

    assert result.exit_code == 4
    assert "secret" in result.stdout or "permissions" in result.stdout


@pytest.mark.usefixtures("_any_time")
def test_an_order_that_is_named_is_read(operator: Operator, product: Connected) -> None:
    made = product.erp.create(
        {
            "external_reference": f"lw-{uuid.uuid4().hex[:16]}",
            "asset_id": "A-1",
            "title": "Fan",
            "priority": "low",
        }
    )

    result = operator.run("erp", "check", "test", "--order", made.id)

    assert result.exit_code == 0
    assert "open" in result.stdout


@pytest.mark.parametrize("product", ["sap"], indirect=True)
def test_settings_that_are_wrong_are_named(operator: Operator, cloud: StandinCloud) -> None:
    name = cloud.outputs["WorkOrdersFunctionName"]
    functions = cloud.client("lambda")
    variables = functions.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    configure(functions, name, {**variables, "ERP_SETTINGS": '{"planner_group": "1"}'})

    result = operator.run("erp", "check", "test")

    assert result.exit_code == 2
    assert "planner_group" in result.stderr


@pytest.mark.parametrize("product", ["rest"], indirect=True)
def test_create_wants_an_asset(operator: Operator, product: Connected, before: int) -> None:
    assert operator.run("erp", "check", "test", "--create").exit_code == 2
    assert operator.run("erp", "check", "test", "--asset", "A").exit_code == 2
    assert len(product.simulator.orders()) == before
