# SPDX-License-Identifier: Apache-2.0
"""Every metric that an alarm or the dashboard names is one that a function emits, with those dimensions, and vice versa."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cfnlint.decode import cfn_yaml

CLOUD = Path(__file__).parents[1]
TEMPLATE = CLOUD / "template.yaml"
# What each function is called as a dimension: POWERTOOLS_SERVICE_NAME.
SERVICES = ("enrich", "work_orders", "sweep", "watch", "api")


@pytest.fixture(scope="module")
def resources() -> dict[str, Any]:
    return dict(cfn_yaml.load(str(TEMPLATE))["Resources"])


def documented() -> dict[str, dict[str, str]]:
    """Metric -> its row of the table in README.md: emitted by, dimensions, unit."""
    page = (CLOUD / "README.md").read_text().partition("\n## Metrics and alarms\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|", page, re.MULTILINE)
    return {name: {"by": by.strip(), "dimensions": dims.strip()} for name, by, dims, _ in rows}


def emitted() -> set[str]:
    """The literal names that the code hands to Powertools."""
    found: set[str] = set()
    for path in CLOUD.rglob("*.py"):
        if "tests" in path.parts or "powertools.metrics" not in path.read_text():
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            named: list[ast.expr] = []
            if isinstance(node, ast.Call):
                called = (
                    node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                )
                if called in ("add_metric", "_metric", "single_metric"):
                    named = [*node.args[:1], *(k.value for k in node.keywords if k.arg == "name")]
            elif isinstance(node, ast.Tuple) and node.elts and isinstance(node.elts[-1], ast.Attribute):
                # Names that a loop goes over: (("UnknownAssets", ...), ...).
                named = node.elts[:1]
            found |= {
                str(one.value)
                for one in named
                if isinstance(one, ast.Constant) and re.fullmatch(r"[A-Z][A-Za-z]+", str(one.value))
            }
    return found


def dashboard(resources: dict[str, Any]) -> dict[str, Any]:
    """The dashboard's body, its references left as they are but for the one number."""
    text = str(resources["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"])
    return dict(json.loads(text.replace("${ApprovalAlarmHours}", "24")))


# Emitted by parts of issue 5 that are still on their way.
AWAITED: set[str] = set()


def test_the_page_lists_every_metric_that_the_code_emits_and_no_other() -> None:
    assert documented().keys() == emitted()
    assert len(emitted()) == 11


def test_every_metric_is_shown_on_the_dashboard(resources: dict[str, Any]) -> None:
    shown = set()
    for widget in dashboard(resources)["widgets"]:
        for metric in widget["properties"].get("metrics", []):
            if isinstance(metric[0], dict):
                shown |= set(re.findall(r'MetricName="(\w+)"', metric[0]["expression"]))
            elif metric[0] == "Linewatch":
                shown.add(metric[1])

    assert shown == documented().keys()


def test_alarms_and_dashboard_ask_for_the_dimensions_that_are_emitted(resources: dict[str, Any]) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []
    for entry in resources.values():
        if entry["Type"] == "AWS::CloudWatch::Alarm" and entry["Properties"]["Namespace"] == "Linewatch":
            dimensions = {one["Name"]: one["Value"] for one in entry["Properties"]["Dimensions"]}
            asked.append((entry["Properties"]["MetricName"], dimensions))
    for widget in dashboard(resources)["widgets"]:
        for metric in widget["properties"].get("metrics", []):
            if metric[0] == "Linewatch":
                _, name, *pairs = (one for one in metric if isinstance(one, str))
                asked.append((name, dict(zip(pairs[::2], pairs[1::2], strict=True))))
            elif isinstance(metric[0], dict):
                schema, name = re.findall(
                    r'\{Linewatch,([a-z,]+)\} MetricName="(\w+)"', metric[0]["expression"]
                )[0]
                asked.append((name, dict.fromkeys(schema.split(","), "any")))
                assert 'environment="${Environment}"' in metric[0]["expression"]

    assert len(asked) >= 15
    for name, dimensions in asked:
        row = documented()[name]
        assert ", ".join(sorted(dimensions)) == row["dimensions"], name
        assert dimensions["service"] == "any" or dimensions["service"] in row["by"], name


def test_each_service_is_a_function_of_the_template(resources: dict[str, Any]) -> None:
    named = {
        entry["Properties"]["Environment"]["Variables"]["POWERTOOLS_SERVICE_NAME"]
        for entry in resources.values()
        if entry["Type"] == "AWS::Lambda::Function"
    }

    assert named == set(SERVICES)
    for entry in resources.values():
        if entry["Type"] == "AWS::Lambda::Function":
            assert entry["Properties"]["Environment"]["Variables"]["ENVIRONMENT"] == {"Ref": "Environment"}


# What a function does, in a process with a function's environment: Powertools reads it once.
COUNTING = """
from enrich.metrics import Tally
from work_orders.metrics import metrics, tell_doubled, tell_metrics
tally = Tally()
tally.predicted("line-1", is_known=True)
tally.unknown_assets, tally.poison = 2, 3
tally.told()
for _ in range(2):
    metrics.add_metric("OrdersCreated", "Count", 1)
    tell_metrics()
tell_doubled(1)
"""


def test_what_is_written_to_the_log_is_what_cloudwatch_reads() -> None:
    environment = {
        "POWERTOOLS_SERVICE_NAME": "sweep",
        "ENVIRONMENT": "dev",
        "PYTHONPATH": os.pathsep.join((str(CLOUD), str(CLOUD.parent / "protos"))),
    }
    said = subprocess.run(
        [sys.executable, "-c", COUNTING], env=environment, capture_output=True, text=True, check=True
    )

    lines = [json.loads(line) for line in said.stdout.splitlines()]
    told = {entry["_aws"]["CloudWatchMetrics"][0]["Metrics"][0]["Name"]: entry for entry in lines}
    assert told.keys() == {"Predictions", "UnknownAssets", "Poison", "OrdersCreated", "OrdersDoubled"}
    assert len(lines) == 6
    for entry in lines:
        (form,) = entry["_aws"]["CloudWatchMetrics"]
        (metric,) = form["Metrics"]
        assert form["Namespace"] == "Linewatch"
        assert ", ".join(sorted(form["Dimensions"][0])) == documented()[metric["Name"]]["dimensions"]
        assert all(dimension in entry for dimension in form["Dimensions"][0])
        assert entry["environment"] == "dev"
    assert told["Predictions"]["line"] == "line-1"
    assert told["OrdersCreated"]["service"] == "sweep"
    assert told["OrdersDoubled"]["service"] == "work_orders"


@pytest.mark.parametrize(
    "handler", ["work_orders/handler.py", "work_orders/sweep.py", "watch/handler.py", "api/handler.py"]
)
def test_every_function_that_counts_tells_at_the_end_of_each_invocation(handler: str) -> None:
    """Lambda freezes a worker after its answer: what is not told by then is told late or never."""
    tree = ast.parse((CLOUD / handler).read_text())
    (entry,) = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "handler"]
    ends = [
        statement for node in ast.walk(entry) if isinstance(node, ast.Try) for statement in node.finalbody
    ]

    assert any("tell_metrics()" in ast.unparse(statement) for statement in ends)
