# SPDX-License-Identifier: Apache-2.0
"""What supervisors do with orders through the HTTP API, one at a time and two at once."""

import hashlib
import hmac
import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
import requests
from cloud_line import Eventually, Line

from linewatch_plant.erp_simulator import ErpClient
from linewatch_plant.standin_cloud import ANSWER_S, StandinCloud

KELLER, YILMAZ = "M. Keller", "A. Yılmaz"


def call(
    cloud: StandinCloud,
    method: str,
    path: str,
    body: Any = None,
    *,
    user: str = KELLER,
    role: str = "approver",
) -> requests.Response:
    """As the console calls, for one of its users."""
    headers = {
        "Authorization": f"Bearer {cloud.api_token}",
        "X-Linewatch-User": quote(user),
        "X-Linewatch-Role": role,
    }
    return requests.request(method, cloud.api_url + path, json=body, headers=headers, timeout=ANSWER_S)


def awaiting(line: Line, eventually: Eventually, severity: float = 0.65) -> dict[str, Any]:
    """A new order in the approval band."""
    before = len(line.orders())
    line.send(*(line.severity(severity) for _ in range(5)))
    eventually(lambda: len(line.orders()) > before, "the order")
    eventually(line.all_decided, "the rest")
    order: dict[str, Any] = line.orders()[-1]
    assert order["status"] == "awaiting_approval"
    return order


@pytest.fixture
def order(machine: Line, eventually: Eventually) -> dict[str, Any]:
    return awaiting(machine, eventually)


@pytest.fixture
def neighbour(cloud: StandinCloud, machine: Line, eventually: Eventually) -> dict[str, Any]:
    """An order of another asset on the same line."""
    # The first of all names: of a registry that other files filled, similar orders are those of its first thousand assets.
    other = Line(cloud, machine.line, f"0-{machine.asset_id}", "machine")
    item = cloud.client("dynamodb").get_item(
        TableName=cloud.outputs["AssetsTable"],
        Key={"station_key": {"S": f"plant-1/{machine.line}/station-1"}},
    )["Item"]
    item |= {"station_key": {"S": f"plant-1/{machine.line}/station-2"}, "asset_id": {"S": other.asset_id}}
    cloud.client("dynamodb").put_item(TableName=cloud.outputs["AssetsTable"], Item=item)
    events = [other.severity(0.65) for _ in range(5)]
    for event in events:
        event["data"]["origin"]["station"] = "station-2"
    other.send(*events)
    return eventually(lambda: other.order("awaiting_approval"), "the neighbour's order")


def test_whoever_comes_second_is_told_who_decided_what(
    cloud: StandinCloud, erp: ErpClient, order: dict[str, Any]
) -> None:
    path = f"/work-orders/{order['reference']}"
    decisions = [
        ("approve", {"reason": "heard it too"}, KELLER),
        ("reject", {"reason": "sensor was loose"}, YILMAZ),
    ] * 3

    with ThreadPoolExecutor(6) as pool:
        answers = list(
            pool.map(lambda one: call(cloud, "POST", f"{path}/{one[0]}", one[1], user=one[2]), decisions)
        )

    won = [answer.json() for answer in answers if answer.status_code == 200]
    lost = [answer.json() for answer in answers if answer.status_code == 409]
    assert (len(won), len(lost)) == (1, 5)
    decided_by = won[0]["decided_by"]
    assert decided_by in (KELLER, YILMAZ)
    for answer in lost:
        assert answer["order"]["decided_by"] == decided_by
        assert decided_by in answer["error"]
    placed = [one for one in erp.orders() if one["external_reference"] == order["reference"]]
    assert len(placed) == (1 if won[0]["status"] == "created" else 0)


def test_an_order_of_before_with_a_number_that_json_lacks_is_listed_without_it(
    cloud: StandinCloud, order: dict[str, Any]
) -> None:
    dynamodb = cloud.client("dynamodb")
    named = {"TableName": cloud.outputs["WorkOrdersTable"], "Key": {"reference": {"S": order["reference"]}}}
    stored = dynamodb.get_item(**named)["Item"]["document"]["S"]
    document = json.loads(stored)
    document["time_to_failure"]["hours"]["p90"] = math.inf
    set_to = "SET document = :document"

    dynamodb.update_item(
        **named,
        UpdateExpression=set_to,
        ExpressionAttributeValues={":document": {"S": json.dumps(document)}},
    )
    # Of this asset: the newest of all may be other files'.
    answer = call(cloud, "GET", f"/work-orders?limit=200&asset_id={order['asset_id']}")
    dynamodb.update_item(
        **named, UpdateExpression=set_to, ExpressionAttributeValues={":document": {"S": stored}}
    )

    listed = json.loads(answer.text, parse_constant=pytest.fail)["work_orders"]
    (found,) = [one for one in listed if one["reference"] == order["reference"]]
    hours = found["time_to_failure"]["hours"]
    assert hours["p90"] is None
    assert hours["p50"] == order["time_to_failure"]["hours"]["p50"]


def test_a_viewer_decides_nothing(cloud: StandinCloud, order: dict[str, Any]) -> None:
    for verb in ("approve", "reject", "merge", "close", "replay"):
        refused = call(
            cloud, "POST", f"/work-orders/{order['reference']}/{verb}", {"reason": "x"}, role="viewer"
        )
        assert refused.status_code == 403
    assert call(cloud, "PUT", "/policy", {}, role="approver").status_code == 403
    assert call(cloud, "GET", f"/work-orders/{order['reference']}", role="viewer").json()["status"] == (
        "awaiting_approval"
    )


def test_the_header_says_who_decides_and_the_body_does_not(
    cloud: StandinCloud, order: dict[str, Any]
) -> None:
    path = f"/work-orders/{order['reference']}/reject"

    answer = call(cloud, "POST", path, {"by": "somebody else", "reason": "loose"}, user=YILMAZ)

    assert answer.json()["decided_by"] == YILMAZ
    for name in ("policy", "ERP"):
        refused = cloud.api("POST", path, {"by": name, "reason": "loose"})
        assert (refused.status_code, refused.json()["field"]) == (400, "by")


def test_the_detail_has_what_a_decision_needs(
    cloud: StandinCloud, machine: Line, order: dict[str, Any]
) -> None:
    detail = call(cloud, "GET", f"/work-orders/{order['reference']}").json()

    # Events may arrive in another order than they were sent; a place that is not known yet is not over.
    assert sum(place["over"] for place in detail["persistence"]) >= detail["needed"] == 4
    assert detail["thresholds"]["approval"] == {"on": 0.5, "inclusive": True, "off": 0.4}
    assert detail["raised_in"] == "approval"
    assert detail["asset"] | {"maintenance_history": []} == {
        "asset_id": machine.asset_id, "name": detail["asset_name"],
        "location": "hall A", "criticality": "A", "warranty_until": None, "last_maintenance": None,
        "maintenance_history": [], "is_known": True,
    }  # fmt: skip
    assert detail["approval"]["on_expiry"] in ("reject", "create", "keep")
    assert [entry["what"] for entry in detail["history"]] == ["opened"]
    # None of its own asset yet; of others those with the same failure mode, whatever other tests left there.
    assert len(detail["similar"]) <= 5
    assert all(one["asset_id"] != machine.asset_id for one in detail["similar"])
    assert all(one["failure_mode"] == "hpc-degradation" for one in detail["similar"])
    assert not detail["standing"]["is_stuck"]
    assert detail["standing"]["where"].startswith("It waits for a supervisor since ")


def test_merging_ends_one_order_in_the_other_and_its_episode_with_it(
    cloud: StandinCloud, erp: ErpClient, machine: Line, order: dict[str, Any], neighbour: dict[str, Any],
    eventually: Eventually,
) -> None:  # fmt: skip
    into, path = neighbour["reference"], f"/work-orders/{order['reference']}/merge"
    assert call(cloud, "POST", path, {"into": into}).json()["field"] == "reason"
    assert call(cloud, "POST", path, {"into": "lw-none", "reason": "x"}).json()["field"] == "into"
    assert call(cloud, "POST", path, {"into": order["reference"], "reason": "x"}).status_code == 409

    merged = call(cloud, "POST", path, {"into": into, "reason": "one inspection does both"})

    assert (merged.status_code, merged.json()["status"], merged.json()["merged_into"]) == (
        200,
        "merged",
        into,
    )
    assert call(cloud, "POST", path, {"into": into, "reason": "again"}).status_code == 409
    machine.send(*(machine.severity(0.65) for _ in range(5)))
    eventually(machine.all_decided, "the silent episode")
    assert [one["status"] for one in machine.orders()] == ["merged"]
    call(cloud, "POST", f"/work-orders/{into}/approve", {})
    eventually(lambda: call(cloud, "GET", f"/work-orders/{into}").json()["status"] == "created", "the order")
    closed = call(cloud, "POST", f"/work-orders/{into}/close", {"finding": "confirmed"})
    assert closed.json()["merged"] == [order["reference"]]
    assert closed.status_code == 200
    again = awaiting(machine, eventually)
    assert again["episode"] == 2
    detail = call(cloud, "GET", f"/work-orders/{again['reference']}").json()
    assert [(one["reference"], one["why"]) for one in detail["similar"]][:1] == [
        (order["reference"], "the same failure of this asset")
    ]
    assert neighbour["reference"] in [one["reference"] for one in detail["similar"]]


def test_an_order_of_another_line_is_no_place_to_merge_into(
    cloud: StandinCloud, order: dict[str, Any], request: pytest.FixtureRequest, eventually: Eventually
) -> None:
    elsewhere = awaiting(Line.register(cloud, request.node.name + " elsewhere", "machine"), eventually)

    refused = call(
        cloud, "POST", f"/work-orders/{order['reference']}/merge",
        {"into": elsewhere["reference"], "reason": "x"},
    )  # fmt: skip

    assert refused.status_code == 409
    assert "another line" in refused.json()["error"]


def test_a_finding_closes_and_a_later_one_corrects(
    cloud: StandinCloud, machine: Line, order: dict[str, Any], eventually: Eventually
) -> None:
    path = f"/work-orders/{order['reference']}"
    assert call(cloud, "POST", f"{path}/close", {"finding": "confirmed"}).status_code == 409
    call(cloud, "POST", f"{path}/approve", {})
    eventually(lambda: machine.order("created"), "the order")
    assert call(cloud, "POST", f"{path}/close", {"finding": "perhaps"}).json()["field"] == "finding"

    first = call(cloud, "POST", f"{path}/close", {"finding": "no fault found", "note": "nothing seen"})
    second = call(
        cloud, "POST", f"{path}/close", {"finding": "other_fault", "found_failure": "bearing", "note": "after a day"},
        user=YILMAZ,
    )  # fmt: skip

    assert (first.json()["status"], first.json()["finding"]) == ("closed", "no_fault")
    assert (second.json()["status"], second.json()["finding"], second.json()["found_failure"]) == (
        "closed", "other_fault", "bearing",
    )  # fmt: skip
    assert [entry["what"] for entry in second.json()["history"]][-2:] == ["closed", "corrected"]
    why = call(cloud, "GET", f"{path}/why").json()
    assert why["verified"], why["faults"]
    assert f"{YILMAZ} corrected the finding" in why["entries"][-1]["text"]


def test_pages_follow_each_other_without_a_gap_or_a_double(
    cloud: StandinCloud, machine: Line, eventually: Eventually
) -> None:
    made = []
    for _ in range(3):
        order = awaiting(machine, eventually)
        call(cloud, "POST", f"/work-orders/{order['reference']}/reject", {"reason": "loose"})
        machine.send(*(machine.severity(0.35) for _ in range(6)))
        eventually(machine.all_decided, "the quiet")
        made.append(order["reference"])

    def pages(query: str) -> list[str]:
        found: list[str] = []
        token = ""
        for _ in range(500):
            answer = call(cloud, "GET", f"/work-orders?limit=2{query}{token}").json()
            assert len(answer["work_orders"]) <= 2
            found += [one["reference"] for one in answer["work_orders"]]
            if not answer["next"]:
                return found
            token = f"&next={quote(answer['next'])}"
        raise AssertionError("the pages never end")

    for query in ("", "&status=rejected", f"&asset_id={machine.asset_id}"):
        found = pages(query)
        assert len(found) == len(set(found))
        assert [reference for reference in found if reference in made] == made[::-1]
    assert pages(f"&asset_id={machine.asset_id}") == made[::-1]
    for token in ("nonsense", "Cg==", "eAp5", "A" * 5_000, "MjAyNi0xMS0yMVQxMDowMDowMFoK"):
        assert call(cloud, "GET", f"/work-orders?next={token}").json()["field"] == "next"
    assert call(cloud, "GET", f"/work-orders?asset_id={'A' * 3_000}").json()["field"] == "asset_id"
    assert call(cloud, "GET", f"/records/{'A' * 3_000}").json()["field"] == "chain"
    assert call(cloud, "GET", f"/events/{'A' * 3_000}").json()["field"] == "event_id"
    assert call(cloud, "GET", f"/work-orders/{'A' * 3_000}").status_code == 404
    assert call(cloud, "GET", "/work-orders?status=lost").json()["field"] == "status"


def test_a_policy_is_put_once_by_an_admin_and_holds(cloud: StandinCloud) -> None:
    document = call(cloud, "GET", "/policy").json()["document"]
    other = {
        **document,
        "version": "2.0.1-test",
        "approval": {**document["approval"], "remind_after_hours": 2},
    }
    assert (
        call(cloud, "PUT", "/policy", {**other, "bands": []}, role="admin")
        .json()["field"]
        .startswith("bands")
    )

    half = {**other["unlisted_failure_mode"], "failure_type": "\ud800"}
    refused = call(cloud, "PUT", "/policy", {**other, "unlisted_failure_mode": half}, role="admin")
    assert (refused.status_code, refused.json()["field"]) == (400, "unlisted_failure_mode.failure_type")

    put = call(cloud, "PUT", "/policy", other, role="admin", user=YILMAZ)

    assert (put.status_code, put.json()["version"]) == (200, "2.0.1-test")
    assert call(cloud, "GET", "/policy").json()["document"] == other
    assert call(cloud, "PUT", "/policy", other, role="admin").status_code == 200
    changed = {**other, "remember": 70}
    assert call(cloud, "PUT", "/policy", changed, role="admin").status_code == 409
    chain = call(cloud, "GET", "/records/policy").json()["entries"]
    assert next(entry["by"] for entry in chain if "2.0.1-test" in entry["detail"]) == YILMAZ
    assert (
        call(cloud, "PUT", "/policy", {**document, "version": "2.0.2-test"}, role="admin").status_code == 200
    )


@pytest.mark.parametrize("name", ["{id}.csv", "line-2/20261121/{id}.review.csv"])
def test_evidence_is_shown_for_a_minute_and_only_what_an_event_names(
    cloud: StandinCloud, machine: Line, eventually: Eventually, name: str
) -> None:
    """Regression: a path as capture makes it, in folders and with the part's mark, was refused."""
    content = f"cycle,p30\n1,554.0\n{name}".encode()
    digest = hashlib.sha256(content).hexdigest()
    event = machine.severity(0.1)
    event["data"]["evidence"][0]["digest"] = f"sha256:{digest}"
    path = event["data"]["evidence"][0]["path"] = name.format(id=event["id"])
    machine.send(event)
    eventually(lambda: machine.is_stored(event), "the event")
    assert call(cloud, "GET", f"/evidence?path={path}").status_code == 404
    cloud.client("s3").put_object(
        Bucket=cloud.outputs["EvidenceBucketName"],
        Key=f"evidence/linewatch-plant-1-device-1-forwarder/sha256/{digest[:2]}/{digest}.csv",
        Body=content,
    )

    for query in (f"path={path}", f"path={path}&thing=linewatch-plant-1-device-1"):
        answer = call(cloud, "GET", f"/evidence?{query}", role="viewer")
        assert requests.get(answer.json()["url"], timeout=ANSWER_S).content == content
        assert "X-Amz-Expires=60" in answer.json()["url"]

    for wrong in ("../secret", "a/b.csv", "x", "%00.csv", path.replace(".csv", ".jpg")):
        assert call(cloud, "GET", f"/evidence?path={quote(wrong)}").status_code in (400, 404), wrong
    assert call(cloud, "GET", f"/evidence?path={path}&thing=../x").json()["field"] == "thing"


def test_a_hint_of_the_erp_is_taken_from_whoever_can_sign(cloud: StandinCloud, order: dict[str, Any]) -> None:
    secret = json.loads(
        cloud.client("secretsmanager").get_secret_value(SecretId=cloud.outputs["WebhookSecretId"])[
            "SecretString"
        ]
    )["secret"]
    body = json.dumps({"reference": order["reference"]}).encode()

    def sent(signed_at: float, key: str, text: bytes = body, **headers: str) -> int:
        signature = hmac.new(key.encode(), f"{int(signed_at)}.".encode() + body, hashlib.sha256).hexdigest()
        given = {"X-Linewatch-Signature": f"t={int(signed_at)},v1={signature}"} if key else {}
        return requests.post(
            f"{cloud.api_url}/erp/events", data=text, headers={**given, **headers}, timeout=ANSWER_S
        ).status_code

    now = time.time()
    assert sent(now, secret) == 202
    assert sent(now, secret) == 202  # a hint that comes twice is one look more
    assert sent(now, "", Authorization=f"Bearer {secret}") == 202
    assert sent(now, "wrong") == 401
    assert sent(now, "") == 401
    assert sent(now, "", Authorization=f"Bearer {cloud.api_token}") == 401
    assert sent(now - 301, secret) == 401
    assert sent(now + 400, secret) == 401
    assert sent(now, secret, text=body + b" ") == 401
    assert sent(now, "", Authorization=f"Bearer {secret}", text=b"{}") == 400


def test_a_signed_hint_brings_the_technicians_finding_at_once(
    cloud: StandinCloud, erp: ErpClient, machine: Line, order: dict[str, Any], eventually: Eventually
) -> None:
    call(cloud, "POST", f"/work-orders/{order['reference']}/approve", {})
    placed = eventually(lambda: machine.order("created"), "the order in the ERP")
    erp.technician(placed["erp_id"], state="completed", finding="no_fault", note="nothing seen", by="B. Roy")
    secret = json.loads(
        cloud.client("secretsmanager").get_secret_value(SecretId=cloud.outputs["WebhookSecretId"])[
            "SecretString"
        ]
    )["secret"]
    # A forged finding in the hint is nobody's: what the ERP says is what counts.
    body = json.dumps({"reference": order["reference"], "finding": "confirmed"}).encode()
    signed_at = int(time.time())
    signature = hmac.new(secret.encode(), f"{signed_at}.".encode() + body, hashlib.sha256).hexdigest()

    answer = requests.post(
        f"{cloud.api_url}/erp/events", data=body, timeout=ANSWER_S,
        headers={"X-Linewatch-Signature": f"t={signed_at},v1={'0' * 64},v1={signature}"},
    )  # fmt: skip

    assert (answer.status_code, answer.json()) == (202, {"polled": True})
    closed = machine.order("closed")
    assert closed is not None
    assert (closed["finding"], closed["finding_source"]) == ("no_fault", "erp_poll")


def test_reports_and_escapes_are_routed(cloud: StandinCloud, machine: Line) -> None:
    assert "trend" in call(cloud, "GET", "/accuracy?months=3&by=line", role="viewer").json()
    assert call(cloud, "GET", "/accuracy?by=phase").json()["field"] == "by"
    assert call(cloud, "GET", "/accuracy?moons=3").json()["field"] == "moons"
    assert "groups" in call(cloud, "GET", "/pilot-exit?risk=0.1", role="viewer").json()
    assert call(cloud, "GET", "/pilot-exit?risk=2").json()["field"] == "risk"
    report = {
        "asset_id": machine.asset_id,
        "failure_mode": "hpc-degradation",
        "found_at": (datetime.now(UTC) - timedelta(days=1)).isoformat(timespec="seconds"),
    }
    assert call(cloud, "POST", "/escapes", {**report, "found_at": "yesterday"}).json()["field"] == "found_at"
    first, again = (call(cloud, "POST", "/escapes", report) for _ in range(2))
    assert (first.status_code, first.json()["by"]) == (201, KELLER)
    assert first.json()["reference"] == again.json()["reference"]
    assert machine.asset_id in [one["asset_id"] for one in call(cloud, "GET", "/assets").json()["assets"]]


def test_an_order_of_release_0_2_is_shown_decided_and_on_record_from_then_on(
    cloud: StandinCloud, erp: ErpClient, machine: Line, order: dict[str, Any], eventually: Eventually
) -> None:
    dynamodb, key = cloud.client("dynamodb"), {"reference": {"S": order["reference"]}}
    table, records = cloud.outputs["WorkOrdersTable"], cloud.outputs["RecordsTable"]
    item = dynamodb.get_item(TableName=table, Key=key)["Item"]
    # As 0.2.0 stored it: none of what came since, its history on it, no chain, no digests among its facts.
    known = (
        "reference", "kind", "status", "created_at", "updated_at", "asset_id", "failure_mode", "episode", "band",
        "attempts", "lease_until", "last_tried_at", "shadow",
    )  # fmt: skip
    facts = json.loads(item["document"]["S"])
    # These and no others: recorded from a stack of 0.2.0. Without `observed_at` its approval after the update ended in a
    # KeyError, and the order was never placed.
    of_0_2_0 = (
        "asset_name", "location", "criticality", "thing_name", "site", "line", "station", "failure_type", "severity",
        "risk", "priority", "ai_generated", "pilot", "recommended_action", "time_to_failure", "evidence", "event_ids",
        "model",
    )  # fmt: skip
    facts = {name: facts[name] for name in of_0_2_0}
    opened = {"at": "2026-11-20T10:00:00.000Z", "what": "opened", "by": "policy", "detail": "band approval"}
    old = {
        **{name: item[name] for name in known},
        "document": {"S": json.dumps({**facts, "policy_version": "1.0.0"})},
        "history": {"L": [{"M": {name: {"S": text} for name, text in opened.items()}}]},
    }
    dynamodb.put_item(TableName=table, Item=old)
    dynamodb.delete_item(TableName=records, Key={"chain": {"S": order["reference"]}, "number": {"N": "0"}})
    path = f"/work-orders/{order['reference']}"

    before = call(cloud, "GET", path).json()
    told = call(cloud, "GET", f"{path}/why").json()
    approved = call(cloud, "POST", f"{path}/approve", {"reason": "after the upgrade"})

    assert before["history"] == [opened]
    assert (before["head"], before["persistence"], before["records"]) == (None, None, 0)
    assert (told["verified"], told["fault"], told["policy"]["is_known"]) == (False, None, False)
    assert approved.status_code == 200
    placed = eventually(lambda: machine.order("created"), "the order in the ERP")
    after = call(cloud, "GET", f"{path}/why?erp=true").json()
    assert after["verified"], after["faults"]
    assert [entry["what"] for entry in after["entries"]] == ["before_records", "approved", "created"]
    assert [one["external_reference"] for one in erp.orders()].count(placed["reference"]) == 1
