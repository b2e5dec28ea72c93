# SPDX-License-Identifier: Apache-2.0
"""Poison lies aside with its reason, `linewatch dead-letters` tells it, and a replay loses and doubles nothing."""

import base64
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cloud_line import Eventually, Line
from operators import Operator, operator_of

from dead_letters.burying import CantBuryError, bury
from dead_letters.discarding import CHAIN
from dead_letters.explaining import Today, explain
from dead_letters.letters import Drawer, Letter
from dead_letters.poison import CODES, LONGEST_WHY, PoisonError
from linewatch.records import first_fault
from linewatch_fleet.published import stack_parameters
from linewatch_fleet.verbs import dead_letters as verb
from linewatch_plant.erp_simulator import ErpClient
from linewatch_plant.standin_cloud import StandinCloud
from work_orders import handler as work_orders
from work_orders.wiring import desk_of

ROOT = Path(__file__).resolve().parents[2]
LETTERS = ("InspectionsDeadLettersUrl", "EnrichedDeadLettersUrl", "RuleErrorsUrl", "LifecycleDeadLettersUrl")


@pytest.fixture
def operator(cloud: StandinCloud, tmp_path: Path) -> Iterator[Operator]:
    """Its letters alone: other tests leave some."""
    _empty(cloud)
    yield operator_of(cloud, tmp_path)
    _empty(cloud)


def _empty(cloud: StandinCloud) -> None:
    for output in LETTERS:
        cloud.client("sqs").purge_queue(QueueUrl=cloud.outputs[output])


def letters(operator: Operator, *arguments: str, queue: str = "inspections") -> list[dict[str, Any]]:
    shown = operator.run("dead-letters", "list", "test", "--json", "--queue", queue, *arguments)
    told: list[dict[str, Any]] = json.loads(shown.stdout)
    return told


def lies_aside(operator: Operator, event_id: str) -> Callable[[], dict[str, Any] | None]:
    return lambda: next((one for one in letters(operator) if one["event_id"] == event_id), None)


def test_every_code_has_a_row_in_the_page_and_no_other() -> None:
    page = (ROOT / "docs/dead-letters.md").read_text().partition("# In the cloud")[2]
    rows = dict(re.findall(r"^\| `([a-z_]+)` \|[^|]*\|([^|]+)\|$", page, re.MULTILINE))

    assert set(rows) == set(CODES)
    assert all(remedy.strip() for remedy in rows.values())


def test_every_code_is_given_by_something() -> None:
    given = "".join(path.read_text() for path in (ROOT / "cloud").glob("*/*.py") if path.name != "poison.py")

    assert {code for code in CODES if f'"{code}"' not in given} == set()


def test_poison_lies_aside_at_once_with_its_reason_and_nobody_waits(
    machine: Line, operator: Operator, eventually: Eventually
) -> None:
    good = machine.severity(0.1)
    bad = machine.severity(0.95)
    bad["data"]["verdict"]["severity"] = 7

    machine.send([good, bad])

    letter = eventually(lies_aside(operator, bad["id"]), "the letter")
    assert letter["code"] == "out_of_range"
    assert letter["why"] == "out_of_range: data.verdict.severity is 7.0; it lies within 0 and 1"
    assert letter["queue"] == "inspections"
    assert machine.is_stored(good)
    assert not machine.is_stored(bad)
    shown = operator.run("dead-letters", "list", "test")
    assert shown.exit_code == 4
    assert "1 dead letters" in shown.stderr
    # The rest of its batch is none.
    told = json.loads(operator.run("dead-letters", "explain", "test", "--id", bad["id"], "--json").stdout)
    assert json.loads(told[0]["body"]) == bad


def test_a_list_leaves_every_letter_where_it_was(
    machine: Line, operator: Operator, eventually: Eventually
) -> None:
    machine.send(*(f"not json {number}" for number in range(23)))
    eventually(lambda: len(letters(operator)) == 23, "the letters")

    for _ in range(3):
        assert len({one["id"] for one in letters(operator)}) == 23
    assert len(letters(operator, "--limit", "5")) == 5
    assert len(letters(operator)) == 23
    assert letters(operator, queue="enriched") == []


def test_what_is_still_unreadable_stays_and_what_is_readable_goes(
    machine: Line, operator: Operator, eventually: Eventually, cloud: StandinCloud
) -> None:
    good = machine.severity(0.1)
    sqs, url = cloud.client("sqs"), cloud.outputs["InspectionsDeadLettersUrl"]
    bury(sqs, url, json.dumps(good), PoisonError("unknown_type", "as an older release had it", good["id"]))
    bury(sqs, url, "not json", PoisonError("not_json", "it is not"))
    assert len(letters(operator)) == 2

    planned = operator.run("dead-letters", "replay", "test", "--all", "--dry-run")
    assert "would replay 1, 1 stay" in planned.stderr
    assert len(letters(operator)) == 2
    done = operator.run("dead-letters", "replay", "test", "--all")

    assert done.exit_code == 4
    assert "stays, not_json" in done.stdout
    eventually(lambda: machine.is_stored(good), "the replayed event")
    assert [one["code"] for one in letters(operator)] == ["not_json"]
    anyway = operator.run("dead-letters", "replay", "test", "--all", "--anyway")
    assert "replayed 1, 0 stay" in anyway.stderr
    eventually(
        lambda: [one["code"] for one in letters(operator)] == ["not_json"], "the letter that came back"
    )


def test_a_part_that_is_too_old_for_this_stack_is_not_called_readable(
    machine: Line, operator: Operator, cloud: StandinCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EventDays is the stack's; by the default of 400 days every replay would make a new letter."""
    part = machine.severity(0.1)
    taken_at = datetime.now(UTC) - timedelta(days=100)
    part["data"]["origin"] |= {"taken_at": taken_at.isoformat(), "clock": {"synchronised": True}}
    bury(
        cloud.client("sqs"), cloud.outputs["InspectionsDeadLettersUrl"], json.dumps(part),
        PoisonError("too_old", "by EventDays of 28", part["id"]),
    )  # fmt: skip
    assert [one["wrong_now"] for one in letters(operator)] == [[]], "this stack's EventDays are 400"

    # As a stack would tell it that was made with 28.
    monkeypatch.setattr(
        verb, "stack_parameters", lambda account: {**stack_parameters(account), "EventDays": "28"}
    )

    ((wrong,),) = [one["wrong_now"] for one in letters(operator)]
    assert wrong["code"] == "too_old"
    assert "replayed 0, 1 stay" in operator.run("dead-letters", "replay", "test", "--all").stderr


def test_a_row_that_can_not_be_used_stops_its_station_only_until_it_is_mended(
    machine: Line,
    operator: Operator,
    cloud: StandinCloud,
    erp: ErpClient,
    eventually: Eventually,
) -> None:
    stringer = Line.register(cloud, "another station", "product")
    dynamodb, table = cloud.client("dynamodb"), cloud.outputs["AssetsTable"]
    key = {"station_key": {"S": f"plant-1/{machine.line}/station-1"}}
    kind = {"ExpressionAttributeNames": {"#kind": "kind"}, "UpdateExpression": "SET #kind = :kind"}
    dynamodb.update_item(
        TableName=table, Key=key, **kind, ExpressionAttributeValues={":kind": {"S": "robot"}}
    )
    run = [machine.severity(0.95) for _ in range(5)]

    machine.send([*run, stringer.product("OK")])
    eventually(lambda: len(letters(operator)) == 5, "the letters")

    assert {one["code"] for one in letters(operator)} == {"asset_unusable"}
    assert "kind: 'robot' is none of machine, product" in letters(operator)[0]["why"]
    assert machine.is_stored(*run), "a replay is not needed for the events themselves"
    eventually(stringer.all_decided, "the other station")
    assert operator.run("dead-letters", "replay", "test", "--all").exit_code == 4, "it is still broken"
    dynamodb.update_item(
        TableName=table, Key=key, **kind, ExpressionAttributeValues={":kind": {"S": "machine"}}
    )

    assert operator.run("dead-letters", "replay", "test", "--all").exit_code == 0

    eventually(lambda: machine.order("created"), "the order")
    assert letters(operator) == []
    assert len([order for order in erp.orders() if order["asset_id"] == machine.asset_id]) == 1


def test_what_work_orders_can_not_read_goes_through_enrich_again(
    machine: Line, operator: Operator, cloud: StandinCloud, eventually: Eventually
) -> None:
    event = machine.severity(0.1)
    broken = {"asset_id": machine.asset_id, "kind": "robot", "failure_modes": {}}
    for body in (json.dumps({"event": event, "asset": broken}), "[]", json.dumps({"place": 7})):
        cloud.client("sqs").send_message(QueueUrl=cloud.outputs["EnrichedQueueUrl"], MessageBody=body)

    eventually(lambda: len(letters(operator, queue="enriched")) == 3, "the letters")

    codes = sorted(one["code"] for one in letters(operator, queue="enriched"))
    assert codes == ["asset_unusable", "not_enriched", "not_enriched"]
    assert "replayed 1, 2 stay" in operator.run("dead-letters", "replay", "test", "--all").stderr
    eventually(lambda: machine.is_stored(event) and machine.all_decided(), "the replayed event")


def test_what_goes_wrong_in_the_doing_is_no_poison_and_comes_again(
    machine: Line,
    operator: Operator,
    cloud: StandinCloud,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A policy without a rule for machines: the event is well, and must not lie aside for it."""
    tools = desk_of(environment)
    broken = replace(tools, data=replace(tools.data, rules={}))
    monkeypatch.setattr(work_orders, "desk", lambda: broken)
    for name in ("ENRICHED_QUEUE_URL", "ENRICHED_DEAD_LETTERS_URL"):
        monkeypatch.setitem(os.environ, name, environment[name])
    asset = {"asset_id": machine.asset_id, "kind": "machine", "failure_modes": {}}
    records = [
        {"messageId": name, "receiptHandle": "r", "body": body, "attributes": {}, "eventSource": "aws:sqs"}
        for name, body in (
            ("well", json.dumps({"event": machine.severity(0.9), "asset": asset})),
            ("poison", "[]"),
        )
    ]

    answer = work_orders.handler({"Records": records}, None)

    assert answer == {"batchItemFailures": [{"itemIdentifier": "well"}]}
    assert [one["code"] for one in letters(operator, queue="enriched")] == ["not_enriched"]


def test_what_a_rule_could_not_pass_on_is_told_and_replayed(
    machine: Line, operator: Operator, cloud: StandinCloud, eventually: Eventually
) -> None:
    event = machine.severity(0.1)
    told = {
        "ruleName": "linewatch_inspections",
        "topic": "linewatch/v1/plant-1/line-1/station-1/inspection",
        "base64OriginalPayload": base64.b64encode(json.dumps(event).encode()).decode(),
        "failures": [{"failedAction": "SqsAction", "errorMessage": "KMS key is disabled"}],
    }
    cloud.client("sqs").send_message(QueueUrl=cloud.outputs["RuleErrorsUrl"], MessageBody=json.dumps(told))

    (letter,) = letters(operator, queue="rules")
    assert (letter["queue"], letter["event_id"], letter["goes_to"]) == ("rules", event["id"], "inspections")
    assert "KMS key is disabled" in letter["why"]
    assert operator.run("dead-letters", "replay", "test", "--id", event["id"]).exit_code == 0
    eventually(lambda: machine.is_stored(event), "the replayed event")
    assert letters(operator, queue="rules") == []


def test_what_the_bus_could_not_deliver_is_told_and_put_there_again(
    operator: Operator, cloud: StandinCloud, eventually: Eventually
) -> None:
    sqs = cloud.client("sqs")
    seen = sqs.create_queue(QueueName="seen-on-the-bus")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=seen, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    bus, events = cloud.outputs["EventBusName"], cloud.client("events")
    pattern = json.dumps({"detail-type": ["EngineError"]})
    events.put_rule(Name="seen", EventBusName=bus, EventPattern=pattern)
    events.put_targets(Rule="seen", EventBusName=bus, Targets=[{"Id": "seen", "Arn": arn}])
    body = {"source": "edge.ai.inference", "detail-type": "EngineError", "detail": {"id": "e-1"}}
    sqs.send_message(
        QueueUrl=cloud.outputs["LifecycleDeadLettersUrl"],
        MessageBody=json.dumps(body),
        MessageAttributes={
            "ERROR_CODE": {"DataType": "String", "StringValue": "NO_PERMISSIONS"},
            "ERROR_MESSAGE": {"DataType": "String", "StringValue": "the log group's policy"},
        },
    )

    try:
        (letter,) = letters(operator, queue="lifecycle")
        assert (letter["why"], letter["goes_to"]) == ("NO_PERMISSIONS: the log group's policy", "bus")
        assert operator.run("dead-letters", "replay", "test", "--id", letter["id"][:8]).exit_code == 0
        found = eventually(lambda: sqs.receive_message(QueueUrl=seen).get("Messages"), "the event on the bus")
        assert json.loads(found[0]["Body"])["detail"] == {"id": "e-1"}
        assert letters(operator, queue="lifecycle") == []
    finally:
        events.remove_targets(Rule="seen", EventBusName=bus, Ids=["seen"])
        events.delete_rule(Name="seen", EventBusName=bus)
        sqs.delete_queue(QueueUrl=seen)


KILLED = """
import os, signal, sys
import boto3
from dead_letters.letters import Drawer

sqs = boto3.client("sqs")
def dies(*arguments, **more):
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[3] == "before the delete":
    sqs.delete_message = dies
with Drawer(sqs, "inspections", sys.argv[1], hide_s=1) as drawer:
    for letter in drawer:
        if sys.argv[3] == "before the send":
            dies()
        drawer.replay(letter, lambda: sqs.send_message(QueueUrl=sys.argv[2], MessageBody=letter.body))
"""


@pytest.mark.parametrize("when", ["before the send", "before the delete"])
def test_a_replay_that_is_killed_loses_nothing_and_doubles_nothing(
    machine: Line, operator: Operator, cloud: StandinCloud, erp: ErpClient, eventually: Eventually, when: str
) -> None:
    sqs, url = cloud.client("sqs"), cloud.outputs["InspectionsDeadLettersUrl"]
    run = [machine.severity(0.95) for _ in range(5)]
    for event in run:
        bury(
            sqs,
            url,
            json.dumps(event),
            PoisonError("unknown_type", "as an older release had it", event["id"]),
        )
    eventually(cloud.queues_are_empty, "an end of what others sent")
    enriched = cloud.counts()["enriched"]
    environment = os.environ | {
        "AWS_ENDPOINT_URL": cloud.endpoint_url, "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }  # fmt: skip

    killed = subprocess.run(
        [sys.executable, "-c", KILLED, url, cloud.outputs["InspectionsQueueUrl"], when],
        env=environment,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    eventually(lambda: len(letters(operator)) == 5, "every letter, visible again")
    assert operator.run("dead-letters", "replay", "test", "--all").exit_code == 0

    eventually(lambda: machine.order("created") and machine.all_decided(), "the order")
    assert letters(operator) == []
    assert cloud.counts()["enriched"] - enriched == 5, (
        "the copy of the one that was sent twice counts nothing"
    )
    assert len([order for order in erp.orders() if order["asset_id"] == machine.asset_id]) == 1


def test_one_that_is_not_there_and_no_choice_are_errors(operator: Operator) -> None:
    assert (
        "no dead letter is called 01992f3e"
        in operator.run("dead-letters", "explain", "test", "--id", "01992f3e").stderr
    )
    assert operator.run("dead-letters", "replay", "test").exit_code == 2
    assert operator.run("dead-letters", "replay", "test", "--all", "--id", "x").exit_code == 2
    assert operator.run("dead-letters", "list", "test").exit_code == 0


def test_a_discarded_letter_is_shown_saved_and_on_record_before_it_is_gone(
    cloud: StandinCloud, operator: Operator, environment: dict[str, str], tmp_path: Path
) -> None:
    sqs, url, file = (
        cloud.client("sqs"),
        cloud.outputs["InspectionsDeadLettersUrl"],
        tmp_path / "letters.json",
    )
    for name in ("of-no-use", "kept"):
        bury(sqs, url, f"{name}, no json", PoisonError("not_json", "it is not", name))
    asked = ("discard", "test", "--id", "of-no-use", "--reason", "a test of the gateway", "--by", "M. Keller")

    planned = operator.run("dead-letters", *asked, "--save", file, "--dry-run")
    assert "would discard 1" in planned.stderr
    assert (len(letters(operator)), file.exists()) == (2, False)
    done = operator.run("dead-letters", *asked, "--save", file)

    assert done.exit_code == 0, done.stderr
    assert "of-no-use, no json" in done.stdout
    assert [one["event_id"] for one in letters(operator)] == ["kept"]
    (saved,) = json.loads(file.read_text())
    assert saved["body"] == "of-no-use, no json"
    entries = desk_of(environment).records.of(CHAIN)
    detail = json.loads(entries[-1].detail)
    assert (entries[-1].what, entries[-1].by, detail["reason"]) == (
        "discarded", "M. Keller", "a test of the gateway"
    )  # fmt: skip
    assert detail["body"] == "sha256:" + hashlib.sha256(saved["body"].encode()).hexdigest()
    assert detail["id"] == saved["id"]
    assert first_fault(entries) is None
    again = operator.run("dead-letters", "discard", "test", "--id", "kept", "--reason", "x", "--save", file)
    assert (again.exit_code, len(letters(operator))) == (2, 1), "nothing is overwritten"


@pytest.mark.parametrize("reason", [None, "", "  ", "two\nlines", "x" * 501])
def test_without_a_reason_no_letter_is_discarded(
    cloud: StandinCloud, operator: Operator, reason: str | None
) -> None:
    poison = PoisonError("not_json", "it is not", "stays-here")
    bury(cloud.client("sqs"), cloud.outputs["InspectionsDeadLettersUrl"], "not json", poison)
    given = [] if reason is None else ["--reason", reason]

    refused = operator.run("dead-letters", "discard", "test", "--id", "stays-here", *given)

    assert (refused.exit_code, len(letters(operator))) == (2, 1)
    assert "--reason" in refused.stderr


def test_letters_are_discarded_all_or_none_where_one_is_not_there(
    cloud: StandinCloud, operator: Operator
) -> None:
    poison = PoisonError("not_json", "it is not", "stays-here")
    bury(cloud.client("sqs"), cloud.outputs["InspectionsDeadLettersUrl"], "not json", poison)
    discard = partial(operator.run, "dead-letters", "discard", "test", "--reason", "of no use")

    assert "no dead letter is called other" in discard("--id", "stays-here", "--id", "other").stderr
    assert discard().exit_code == 2, "nothing is chosen"
    assert len(letters(operator)) == 1


def test_a_letter_goes_only_after_its_record(cloud: StandinCloud, operator: Operator) -> None:
    sqs, url = cloud.client("sqs"), cloud.outputs["InspectionsDeadLettersUrl"]
    bury(sqs, url, "not json", PoisonError("not_json", "it is not", "stays-here"))

    def dies() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Drawer(sqs, "inspections", url) as drawer:
        for letter in drawer:
            drawer.discard(letter, dies)

    assert len(letters(operator)) == 1


def test_a_reason_is_text_that_every_queue_takes(cloud: StandinCloud, operator: Operator) -> None:
    poison = PoisonError("bad_text", "label '\0\ud800\uffff\x1b[31m ü' " + "x" * 2000, "id\0")
    bury(cloud.client("sqs"), cloud.outputs["InspectionsDeadLettersUrl"], '"\\ud800"', poison)

    (letter,) = letters(operator)
    assert letter["why"].isascii()
    assert letter["why"].isprintable()
    assert len(poison.why) <= LONGEST_WHY


def test_a_letter_that_does_not_fit_with_its_reason_is_left_to_the_redrive(
    machine: Line, cloud: StandinCloud, operator: Operator, eventually: Eventually
) -> None:
    body = '"' + "x" * (256 * 1024 - 10) + '"'
    with pytest.raises(CantBuryError):
        bury(
            cloud.client("sqs"),
            cloud.outputs["InspectionsDeadLettersUrl"],
            body,
            PoisonError("not_json", "y" * 400),
        )

    machine.send(body)

    letter = eventually(lambda: next(iter(letters(operator)), None), "the letter, by the queue's redrive")
    assert letter["code"] == ""
    assert letter["wrong_now"][0]["code"] == "too_large"


@pytest.mark.parametrize("queue", ["inspections", "enriched", "rules", "lifecycle"])
@pytest.mark.parametrize(
    "body", ["", "[]", "{}", "null", '{"events": 1}', '{"base64OriginalPayload": "%"}', "[" * 5000]
)
def test_any_letter_is_explained(queue: str, body: str) -> None:
    found = explain(
        Letter(queue, "m", "r", body, "2026-11-21T04:00:00Z"), Today(lambda _: "", timedelta(days=400))
    )
    assert found.wrong or body == "[]", "an empty batch has nothing wrong with it"


def test_letters_of_a_later_moment_are_left_alone(cloud: StandinCloud, operator: Operator) -> None:
    sqs, url = cloud.client("sqs"), cloud.outputs["InspectionsDeadLettersUrl"]
    for number in range(3):
        sqs.send_message(QueueUrl=url, MessageBody=f"{number}")
    with Drawer(sqs, "inspections", url) as drawer:
        taken = []
        for letter in drawer:
            taken.append(letter.message_id)
            # Each comes back at once, as poison does that is replayed.
            drawer.replay(letter, lambda: sqs.send_message(QueueUrl=url, MessageBody="again"))
            assert len(taken) < 5000, "without end"
    assert len(letters(operator)) == 3
