# SPDX-License-Identifier: Apache-2.0
"""The permissions that the pages about orders, policy, accuracy and the ERP list are enough for every form of their verbs.

Those of assets and dead letters: test_assets_and_letters_permissions.py.
"""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from cloud_line import Eventually, Line
from test_assets_and_letters_permissions import Run, allow, user

from linewatch_fleet.errors import FAILED, OK, UNHEALTHY
from linewatch_plant.erp_simulator import ErpClient
from linewatch_plant.standin_cloud import StandinCloud
from work_orders.policy_data import PATH

__all__ = ["user"]

DOCS = Path(__file__).parents[2] / "docs"
# As pages name them after one with its service.
SHORT = ("GetItem", "BatchGetItem", "Query", "Scan", "PutItem", "UpdateItem", "DeleteItem")
EVERY = {"GetCallerIdentity", "DescribeStacks"}
Statements = list[dict[str, Any]]
Users = Callable[[Statements], Run]


@pytest.fixture(scope="module")
def arn(cloud: StandinCloud) -> Callable[[str], str]:
    """Of a table, by our name of it."""
    dynamodb = cloud.client("dynamodb")
    tables = {
        "work_orders": "WorkOrdersTable", "records": "RecordsTable", "events": "EventsTable", "policies": "PoliciesTable",
        "outcomes": "OutcomesTable", "assets": "AssetsTable",
    }  # fmt: skip
    found = {
        name: str(dynamodb.describe_table(TableName=cloud.outputs[output])["Table"]["TableArn"])
        for name, output in tables.items()
    }
    return lambda name: found[name]


@pytest.fixture
def placed(machine: Line, cloud: StandinCloud, eventually: Eventually) -> str:
    """An order that the ERP has."""
    machine.send(*(machine.severity(0.65) for _ in range(5)))
    waiting = eventually(lambda: machine.order("awaiting_approval"), "the order")
    assert cloud.api("POST", f"/work-orders/{waiting['reference']}/approve", {"by": "M. Keller"}).ok
    return str(eventually(lambda: machine.order("created"), "the order in the ERP")["reference"])


@pytest.fixture
def parked(machine: Line, erp: ErpClient, eventually: Eventually) -> str:
    """An order that the ERP refuses, however often: a try whose answer was too slow for its second is made again."""
    erp.set_faults(refuse=1_000)
    machine.send(*(machine.severity(0.95) for _ in range(5)))
    return str(eventually(lambda: machine.order("parked"), "the parked order")["reference"])


def of_function(cloud: StandinCloud, output: str) -> dict[str, Any]:
    name = cloud.outputs[output]
    found = cloud.client("lambda").get_function_configuration(FunctionName=name)["FunctionArn"]
    return allow(found, "lambda:GetFunctionConfiguration")


def of_secret(cloud: StandinCloud) -> dict[str, Any]:
    return allow(cloud.outputs["ErpSecretId"], "secretsmanager:GetSecretValue")


def looking(cloud: StandinCloud, arn: Callable[[str], str]) -> Statements:
    """docs/why.md without the indexes and the secret."""
    tables = [arn(name) for name in ("work_orders", "records", "events", "policies", "outcomes")]
    return [
        of_function(cloud, "ApiFunctionName"),
        allow(tables, "dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:Query"),
    ]


def named(page: str) -> set[str]:
    """The actions that a page lists, without their service."""
    _, _, after = (DOCS / page).read_text().partition("Permissions")
    section = re.split(r"\n## |Held by", after)[0]
    return set(re.findall(r"`[a-z]+:([A-Z][A-Za-z]+)`", section)) | {
        one for one in SHORT if f"`{one}`" in section
    }


def in_statements(statements: Statements) -> set[str]:
    return {action.rpartition(":")[2] for one in statements for action in one["Action"]} | EVERY


def is_done(run: Run, *arguments: str | Path, codes: Iterable[int] = (OK,)) -> None:
    told = run(*arguments)
    assert told.exit_code in codes, f"{arguments}: {told.exit_code}: {told.output}"
    assert "AccessDenied" not in told.output, f"{arguments}: {told.output}"


def is_as_written(run: Run, reference: str, *arguments: str, asked: bool) -> None:
    """`verify` reads every order, those of other tests too; of this one it says that nothing was changed."""
    told = run("verify", "test", *arguments, "--json")
    assert told.exit_code in {OK, UNHEALTHY}, f"{told.exit_code}: {told.output}"
    assert "AccessDenied" not in told.output, told.output
    (order,) = [one for one in json.loads(told.stdout)["orders"] if one["reference"] == reference]
    assert order["records"]
    assert not order["faults"], order["faults"]
    assert bool(order["anchor"]) == asked
    assert any("the ERP was not asked" in note for note in order["not_checked"]) != asked


def is_refused(run: Run, page: str, *arguments: str | Path) -> None:
    told = run(*arguments)
    assert told.exit_code == FAILED, f"{arguments}: {told.exit_code}: {told.output} {told.exception!r}"
    assert f"docs/{page} lists the permissions" in told.stderr, told.stderr
    assert told.stderr.splitlines()[-1].startswith("Error: AWS refused "), "no traceback"


def test_why_and_verify(
    cloud: StandinCloud, user: Users, arn: Callable[[str], str], placed: str, tmp_path: Path
) -> None:
    """`verify --all` was refused with exactly what the page listed: it reads an index."""
    one = looking(cloud, arn)
    every = [*one, allow(arn("work_orders") + "/index/*", "dynamodb:Query")]
    asking = [*every, of_secret(cloud)]
    assert named("why.md") == in_statements(asking)

    for verb in (("why", "test", placed), ("verify", "test", placed), ("verify", "test", "--all")):
        is_refused(user([]), "why.md", *verb)
        # Of the function's settings alone, no table can be read.
        is_refused(user(one[:1]), "why.md", *verb)
    is_refused(user(one), "why.md", "verify", "test", "--all", "--no-erp")

    run = user(one)
    is_done(run, "why", "test", placed, "--no-erp", "--save", tmp_path / "order.json")
    is_done(run, "why", "test", placed, "--no-erp", "--json")
    is_done(run, "verify", "test", placed, "--no-erp")
    is_done(user([]), "verify", "--file", tmp_path / "order.json")
    is_as_written(user(every), placed, "--all", "--no-erp", asked=False)
    run = user(asking)
    is_done(run, "why", "test", placed)
    is_done(run, "verify", "test", placed)
    is_as_written(run, placed, "--all", asked=True)


@pytest.mark.parametrize("verb", ["why", "verify"])
def test_without_the_secret_the_erp_is_not_asked_and_the_page_is_named(
    cloud: StandinCloud, user: Users, arn: Callable[[str], str], placed: str, verb: str
) -> None:
    told = user(looking(cloud, arn))(verb, "test", placed)

    assert told.exit_code == OK, told.output
    assert "can't be read: AccessDenied" in told.stderr
    assert "docs/why.md lists the permissions" in told.stderr


def test_orders(cloud: StandinCloud, user: Users, arn: Callable[[str], str], parked: str) -> None:
    """`orders list` was refused with exactly what the page listed: it reads an index."""
    every = [*looking(cloud, arn), allow(arn("work_orders") + "/index/*", "dynamodb:Query")]
    replaying = [
        *every,
        allow(arn("work_orders"), "dynamodb:UpdateItem"),
        allow(arn("records"), "dynamodb:PutItem"),
    ]
    assert named("work-orders.md") | named("why.md") == in_statements([*replaying, of_secret(cloud)])

    forms = (
        ("list", "test"),
        ("explain", "test", parked),
        ("replay", "test", parked),
        ("replay", "test", "--all-parked"),
    )
    for form in forms:
        is_refused(user([]), "work-orders.md", "orders", *form)
    is_refused(user(looking(cloud, arn)), "work-orders.md", "orders", "list", "test")
    is_refused(user(every), "work-orders.md", "orders", "replay", "test", parked)

    run = user(every)
    is_done(run, "orders", "list", "test", codes=(UNHEALTHY,))
    is_done(run, "orders", "list", "test", "--status", "parked")
    is_done(run, "orders", "explain", "test", parked)
    is_done(run, "orders", "replay", "test", "--all-parked", "--dry-run")
    run = user(replaying)
    is_done(run, "orders", "replay", "test", parked, "--reason", "mended")
    is_done(run, "orders", "replay", "test", "--all-parked")


def test_accuracy_and_pilot_exit(user: Users, arn: Callable[[str], str], placed: str) -> None:
    one = [
        allow([arn("outcomes"), arn("work_orders") + "/index/by_status"], "dynamodb:Query"),
        allow(arn("work_orders"), "dynamodb:BatchGetItem"),
    ]
    both = [*one, allow(arn("policies"), "dynamodb:GetItem")]
    assert named("accuracy.md") == in_statements(both)

    is_refused(user([]), "accuracy.md", "accuracy", "test")
    is_refused(user(one), "accuracy.md", "pilot-exit", "test", "--risk", "0.1")
    run = user(one)
    is_done(run, "accuracy", "test")
    is_done(run, "accuracy", "test", "--by", "model", "--per", "week", "--months", "12", "--json")
    run = user(both)
    is_done(run, "pilot-exit", "test", "--risk", "0.1")
    is_done(run, "pilot-exit", "test", "--risk", "0.1", "--by", "criticality", "--json")


def test_policy(user: Users, arn: Callable[[str], str], placed: str, tmp_path: Path) -> None:
    """A refusal was a traceback."""
    showing = [allow(arn("policies"), "dynamodb:GetItem")]
    replaying = [
        *showing,
        allow(arn("assets"), "dynamodb:Scan"),
        allow(arn("events") + "/index/by_station", "dynamodb:Query"),
    ]
    putting = [
        allow(arn("policies"), "dynamodb:GetItem", "dynamodb:PutItem"),
        allow(arn("records"), "dynamodb:Query", "dynamodb:PutItem"),
    ]
    assert named("policy.md") == in_statements([*replaying, *putting])
    # What the release brings, so that the other tests of this environment go on as before.
    file = tmp_path / "policy.json"
    file.write_text(json.dumps(json.loads(PATH.read_text())))

    is_refused(user([]), "policy.md", "policy", "show", "test")
    is_refused(user([]), "policy.md", "policy", "show", "test", "--version", "2.0.0")
    is_refused(user(showing), "policy.md", "policy", "what-if", "test", file)
    is_refused(user([]), "policy.md", "policy", "what-if", "test", file)
    is_refused(user([]), "policy.md", "policy", "put", "test", file)
    is_refused(user(showing), "policy.md", "policy", "put", "test", file)
    is_done(user([]), "policy", "check", file)
    run = user(showing)
    is_done(run, "policy", "show", "test")
    is_done(run, "policy", "put", "test", file, "--dry-run")
    run = user(replaying)
    is_done(run, "policy", "what-if", "test", file, "--save", tmp_path / "parts")
    is_done(user([]), "policy", "what-if", "test", file, "--events", tmp_path / "parts", "--against", file)
    is_done(user(putting), "policy", "put", "test", file)
    is_done(user(showing), "policy", "show", "test", "--version", json.loads(file.read_text())["version"])


def test_erp_check(cloud: StandinCloud, user: Users) -> None:
    configured = [of_function(cloud, "WorkOrdersFunctionName")]
    all_of_it = [*configured, of_secret(cloud)]
    assert named("erp.md") == in_statements(all_of_it)

    is_refused(user([]), "erp.md", "erp", "check", "test")
    without = user(configured)("erp", "check", "test")
    assert without.exit_code == UNHEALTHY
    assert "docs/erp.md lists the permissions" in without.stderr
    is_done(user(all_of_it), "erp", "check", "test")
    is_done(user(all_of_it), "erp", "check", "test", "--create", "--asset", "ENGINE-1")
