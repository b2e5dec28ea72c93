# SPDX-License-Identifier: Apache-2.0
"""docs/retention.md says how long everything is kept: each row against the template, the code and the settings."""

import re
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from cfnlint.decode import cfn_yaml

from linewatch_capture.mask import MAX_AREAS, mask_of
from linewatch_fleet.recipes.variables import UNQUOTED

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "retention.md"
SETTINGS = ("capture", "forwarder", "console")


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    return dict(cfn_yaml.load(str(ROOT / "cloud" / "template.yaml")))


def rows() -> dict[str, dict[str, str]]:
    """Class of data -> its row."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    head, *body = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {cells[0]: dict(zip(head, cells, strict=True)) for cells in body if not cells[0].startswith("---")}


def row(words: str) -> dict[str, str]:
    (found,) = [cells for name, cells in rows().items() if name.startswith(words)]
    return found


def test_every_setting_that_the_page_names_is_there(template: dict[str, Any]) -> None:
    named = set(re.findall(r"`((?:[A-Z]+_)+[A-Z]+|[A-Z][a-z]+[A-Z][A-Za-z]+)", PAGE.read_text()))
    documented = {
        name
        for service in SETTINGS
        for name in re.findall(r"^\| `(\w+)` \|", (ROOT / f"services/{service}/README.md").read_text(), re.M)
    }

    assert len(named) >= 12
    assert named - documented - template["Parameters"].keys() == set()


@pytest.mark.parametrize(
    ("name", "parameter"),
    [
        ("events", "EventDays"),
        ("all of these, uploaded", "EvidenceDays"),
        ("work orders", "OrderDays"),
        ("outcomes (what the technician found)", "OrderDays"),
    ],
)
def test_the_days_are_the_parameters_defaults(template: dict[str, Any], name: str, parameter: str) -> None:
    assert f"{template['Parameters'][parameter]['Default']} days" in rows()[name]["kept by default"]
    assert rows()[name]["changed by"] == f"`{parameter}`"


def test_what_dynamodb_forgets_are_the_rows_that_say_so_and_no_other(template: dict[str, Any]) -> None:
    """And a table that nothing is deleted from says so in its row."""
    tables = {
        n: e["Properties"] for n, e in template["Resources"].items() if e["Type"] == "AWS::DynamoDB::Table"
    }
    forgets = {n for n, p in tables.items() if "TimeToLiveSpecification" in p}
    page = {
        cells["where"].partition("`")[2].partition("`")[0]
        for cells in rows().values()
        if cells["who deletes it"].startswith("time to live")
    }

    assert {
        name.removesuffix("Table").lower().replace("workorders", "work_orders") for name in forgets
    } == page
    assert {"PolicyStateTable", "EpisodesTable", "CountersTable", "AssetsTable", "PoliciesTable"} == set(
        tables
    ) - forgets
    assert row("versions of the policy")["kept by default"] == "for ever"
    assert "present state" in row("stations, episodes")["kept by default"]


@pytest.mark.parametrize(
    ("path", "written"),
    [
        ("enrich/handler.py", r'"expires_at": int\(\(enriched_at \+ timedelta\(days=int\(os\.environ\["EVENT_DAYS"\]'),
        ("work_orders/orders.py", r"return int\(self\._clock\(\) \+ self\._order_days \* DAY_S\)"),
        ("work_orders/order_items.py", r'"last_tried_at": text_of\(now_s\), "expires_at": expires_at\}'),
        ("work_orders/order_deciding.py", r"\*\*ended\(now_s, expires_at\)"),
        ("work_orders/order_closing.py", r"\*\*ended\(now_s, expires_at\)"),
        ("work_orders/orders.py", r'item = \{"expires_at": self\._expires_at\(\), \*\*outcome\}'),
        ("outcomes/escapes.py", r"expires_at = int\(now\.timestamp\(\) \+ order_days \* DAY_S\)"),
        ("work_orders/sweep.py", r"give_records_their_end\("),
        ("work_orders/records.py", r"SET expires_at = :at"),
    ],
)  # fmt: skip
def test_the_day_is_written_where_the_page_says(path: str, written: str) -> None:
    """That the items bear it is seen by the tests of each; this holds the list whole."""
    assert re.search(written, (ROOT / "cloud" / path).read_text())


def test_an_event_in_the_cloud_bears_its_day(cloud: Any, machine: Any, eventually: Any) -> None:
    sent = machine.severity(0.1)
    machine.send(sent)
    key = {"event_id": {"S": sent["id"]}}
    table = cloud.outputs["EventsTable"]
    item = eventually(
        lambda: cloud.client("dynamodb").get_item(TableName=table, Key=key).get("Item"), "the event"
    )

    enriched_at = datetime.fromisoformat(item["enriched_at"]["S"]).timestamp()
    assert abs(int(item["expires_at"]["N"]) - enriched_at - 400 * 86_400) <= 1


def test_an_ended_order_and_its_records_get_their_day_from_the_deployed_sweep(
    cloud: Any, machine: Any, eventually: Any
) -> None:
    """By the sweep's own rights: of a record it may write nothing else."""
    machine.send(*(machine.severity(0.65) for _ in range(5)))
    waiting = eventually(lambda: machine.order("awaiting_approval"), "the order")
    reference = waiting["reference"]
    said = cloud.api("POST", f"/work-orders/{reference}/reject", {"by": "Kim", "reason": "a shadow"})
    assert said.ok, said.text
    dynamodb, due = cloud.client("dynamodb"), time.time() + 3650 * 86_400

    def records() -> list[dict[str, Any]]:
        found = dynamodb.query(
            TableName=cloud.outputs["RecordsTable"],
            KeyConditionExpression="#chain = :chain",
            ExpressionAttributeNames={"#chain": "chain"},
            ExpressionAttributeValues={":chain": {"S": reference}},
        )
        return list(found["Items"])

    def have_their_day() -> bool:
        cloud.sweep()
        return bool(records()) and all("expires_at" in item for item in records())

    eventually(have_their_day, "the day of every record")
    key = {"reference": {"S": reference}}
    order = dynamodb.get_item(TableName=cloud.outputs["WorkOrdersTable"], Key=key)["Item"]
    days = {int(item["expires_at"]["N"]) for item in [*records(), order]}
    assert len(days) == 1
    assert abs(days.pop() - due) < 3600


def test_logs_queues_archive_and_versions_are_kept_as_long_as_the_page_says(template: dict[str, Any]) -> None:
    of: dict[str, list[Any]] = {}
    for entry in template["Resources"].values():
        of.setdefault(entry["Type"], []).append(entry["Properties"])

    assert {p["RetentionInDays"] for p in of["AWS::Logs::LogGroup"]} == {30}
    assert row("what the functions and devices log")["kept by default"] == "30 days"
    assert {p["MessageRetentionPeriod"] for p in of["AWS::SQS::Queue"]} == {14 * 86_400}
    assert row("messages, dead letters")["kept by default"] == "14 days"
    assert {p["RetentionDays"] for p in of["AWS::Events::Archive"]} == {30}
    assert row("engine events")["kept by default"] == "30 days"
    component, evidence = (
        template["Resources"][n]["Properties"]["LifecycleConfiguration"]["Rules"][0]
        for n in ("ComponentBucket", "EvidenceBucket")
    )
    assert component["NoncurrentVersionExpiration"]["NoncurrentDays"] == 90
    assert row("old versions of models")["kept by default"] == "90 days"
    assert evidence["ExpirationInDays"] == {"Ref": "EvidenceDays"}
    assert evidence["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] == 7
    for table in of["AWS::DynamoDB::Table"]:
        assert table["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"] is True
        assert "RecoveryPeriodInDays" not in table["PointInTimeRecoverySpecification"], (
            "35 days is DynamoDB's default"
        )


def test_the_devices_limits_are_the_defaults_of_their_settings() -> None:
    def default(service: str, name: str) -> float:
        text = (ROOT / f"services/{service}/README.md").read_text()
        (found,) = re.findall(rf"^\| `{name}` \| `([^`]+)` \|", text, re.M)
        return float(found)

    assert default("capture", "CAPTURE_EVIDENCE_OK_SHARE") == 0.02
    assert "2 %" in row("the same of good parts")["kept by default"]
    assert default("forwarder", "FORWARDER_STREAM_MAX_AGE_S") == 7 * 86_400
    assert row("events that wait")["kept by default"].startswith("7 days")
    assert default("console", "CONSOLE_AUDIT_MAX_MB") == 32
    assert "32 MB" in row("audit log of the console")["kept by default"]
    assert 'options: {max-size: 10m, max-file: "3"}' in (ROOT / "docker-compose.yml").read_text()
    assert row("container logs")["kept by default"].startswith("3 files of 10 MB")


def test_the_page_tells_of_the_mask_as_capture_has_it() -> None:
    """Its promise is held by services/capture/tests/test_mask.py, the verdicts by tests/integration/test_mask.py."""
    page = PAGE.read_text()
    settings = (ROOT / "services/capture/README.md").read_text()
    recipe = (ROOT / "recipes/Capture.json").read_text()
    (example,) = re.findall(r"`CAPTURE_MASK=([\d.,/]+)`", page)

    assert len(mask_of(example)) == 2
    assert not UNQUOTED.search(example)  # a shell of nucleus lite would cut it to a smaller mask
    assert f"up to {MAX_AREAS}." in page
    assert re.findall(r"^\| `(CAPTURE_(?:MASK|CROP|ROI)\w*)`", settings, re.MULTILINE) == ["CAPTURE_MASK"]
    assert '"CAPTURE_MASK": "{configuration:/Mask}"' in recipe


def test_no_role_of_ours_deletes_anything(template: dict[str, Any]) -> None:
    """Deleting is the services' own doing, by rules and times, or an administrator's."""
    text = str({n: e for n, e in template["Resources"].items() if e["Type"].startswith("AWS::IAM::")})

    assert set(re.findall(r"'(\w+:Delete\w+)'", text)) == {"sqs:DeleteMessage"}
