# SPDX-License-Identifier: Apache-2.0
"""Events through the deployed Lambdas to the ERP simulator."""

import json
import ssl
import time
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from cloud_line import DEADLINE_S, Eventually, Line, wait_for

from linewatch_forwarder.uplinks.batches import Limits, Publish, turn
from linewatch_plant.erp_simulator import ErpClient
from linewatch_plant.standin_cloud import StandinCloud
from linewatch_runtime.mqtt_client import SessionClient
from linewatch_runtime.records import Record


def in_erp(erp: ErpClient, line: Line) -> list[dict[str, Any]]:
    return [order for order in erp.orders() if order["asset_id"] == line.asset_id]


def counted_at_rest(cloud: StandinCloud, eventually: Eventually) -> int:
    """Events that were enriched, once nothing is under way that a test before has sent."""
    eventually(cloud.queues_are_empty, "an end of what others sent")
    return int(cloud.counts()["enriched"])


def crossed(cloud: StandinCloud, line: Line) -> int:
    """Parts of this asset that found a band crossed, as counts() adds them up over all assets."""
    states = [item for item in cloud.scan("PolicyStateTable") if item["asset_id"]["S"] == line.asset_id]
    return sum(int(n["N"]) for state in states for n in state["crossed"]["M"].values())


def test_a_failing_machine_gets_one_order(machine: Line, erp: ErpClient, eventually: Eventually) -> None:
    machine.send(*(machine.severity(0.95) for _ in range(8)))

    order = eventually(lambda: machine.order("created"), "the order")

    eventually(machine.all_decided, "the rest")
    assert [found["external_reference"] for found in in_erp(erp, machine)] == [order["reference"]]
    assert order["band"] == "automatic"
    assert order["erp_id"] == in_erp(erp, machine)[0]["id"]
    assert order["recommended_action"] == "Replace the high-pressure compressor module"
    assert order["ai_generated"] is True
    assert order["time_to_failure"]["hours"]["p50"] == pytest.approx(125 * 0.05 * 227 / 3600, abs=0.01)
    assert set(order["event_ids"]) <= {event["id"] for event in machine.events}
    assert len(order["evidence"]) == len(order["event_ids"]) >= 4


def test_repeats_change_nothing(
    machine: Line, erp: ErpClient, cloud: StandinCloud, eventually: Eventually
) -> None:
    before = counted_at_rest(cloud, eventually)
    run = [machine.severity(0.95) for _ in range(6)]

    machine.send(*run, *run, *reversed(run))

    eventually(lambda: machine.order("created") and machine.all_decided(), "the order")
    assert len(in_erp(erp, machine)) == len(machine.orders()) == 1
    assert cloud.counts()["enriched"] - before == 6
    # Six over the threshold: the 4th crosses and orders, the 5th and 6th are suppressed. Of this asset: the sum of all is
    # cut off at 0 while other files have opened more orders than parts have crossed.
    assert crossed(cloud, machine) == 3


def test_a_single_bad_part_is_not_a_bad_machine(stringer: Line, eventually: Eventually) -> None:
    stringer.send(*(stringer.product(result) for result in ("OK", "NG", "OK", "NG", "OK", "OK")))

    eventually(stringer.all_decided, "the parts")
    assert stringer.orders() == []


def test_a_run_of_bad_parts_points_at_the_stringer(
    stringer: Line, erp: ErpClient, eventually: Eventually
) -> None:
    stringer.send(*(stringer.product("NG") for _ in range(14)))

    order = eventually(lambda: stringer.order("created"), "the order")

    assert order["failure_mode"] == "cell-crack"
    eventually(stringer.all_decided, "the rest")
    assert len(in_erp(erp, stringer)) == 1


def test_parts_that_were_not_judged_never_raise(machine: Line, eventually: Eventually) -> None:
    machine.send(*(machine.not_inspected() for _ in range(8)))
    machine.send(machine.event("PartsSkipped", {"count": 9, "reason": "replaced_by_newer"}))

    eventually(machine.all_decided, "the parts")
    assert machine.is_stored(*machine.events)
    assert machine.orders() == []


def test_an_unknown_asset_is_flagged_not_dropped(
    machine: Line, cloud: StandinCloud, eventually: Eventually
) -> None:
    machine.line = "line-nobody-knows"
    event = machine.severity(0.95)

    machine.send(event)

    eventually(lambda: machine.is_stored(event), "the event")
    shown = cloud.api("GET", f"/events/{event['id']}").json()
    assert shown["is_asset_known"] is False
    assert shown["event"]["data"]["verdict"]["severity"] == 0.95


def test_a_batch_and_fields_of_a_newer_release_are_taken(machine: Line, eventually: Eventually) -> None:
    run = [machine.severity(0.1) for _ in range(3)]
    run[0]["data"]["invented_later"] = {"x": 1}
    run[1]["extension"] = "kept"

    machine.send(run)

    eventually(lambda: machine.is_stored(*run), "the batch")


def test_a_stored_event_knows_when_it_may_go(
    machine: Line, cloud: StandinCloud, eventually: Eventually
) -> None:
    event = machine.severity(0.1)

    machine.send(event)

    eventually(lambda: machine.is_stored(event), "the event")
    stored = next(item for item in cloud.scan("EventsTable") if item["event_id"]["S"] == event["id"])
    assert int(stored["expires_at"]["N"]) == pytest.approx(time.time() + 400 * 86_400, abs=3600)


@pytest.mark.parametrize(
    "body", ["not json", '{"specversion":"0.3"}', '{"specversion":"1.0","id":"x","type":"Nonsense"}']
)
def test_poison_goes_to_the_dead_letters_and_holds_nobody(
    machine: Line, cloud: StandinCloud, eventually: Eventually, body: str
) -> None:
    before = cloud.dead_letters()
    good = machine.severity(0.1)

    machine.send(body, good)

    eventually(lambda: machine.is_stored(good), "the good event")
    eventually(lambda: cloud.dead_letters() > before, "the dead letter")


def test_an_event_published_by_mqtt_is_enriched(
    machine: Line, cloud: StandinCloud, eventually: Eventually
) -> None:
    event = machine.severity(0.2)
    engine = machine.event("ModelLoadSuccess", {"service_version": "1.0.0"})
    del engine["data"]["part_id"]
    client = device(cloud, cloud.client_id)
    client.connect("localhost", cloud.mqtt_port)
    client.loop_start()

    topic = f"linewatch/v1/plant-1/{machine.line}/station-1"
    client.publish(f"{topic}/inspection", json.dumps(event), qos=1).wait_for_publish(10)
    client.publish(f"{topic}/engine", json.dumps(engine), qos=1).wait_for_publish(10)

    eventually(lambda: machine.is_stored(event, engine), "both events")
    client.close()


def published(cloud: StandinCloud, topic: str, payload: bytes) -> int:
    """The acknowledgement's reason code."""
    client = device(cloud, cloud.client_id)
    codes: list[int] = []
    client.on_publish = lambda _c, _u, _mid, code, _p: codes.append(code.value)
    client.connect("localhost", cloud.mqtt_port)
    client.loop_start()
    client.publish(topic, payload, qos=1).wait_for_publish(10)
    wait_for(lambda: codes, "the acknowledgement")
    client.close()
    return codes[0]


def batch_of(machine: Line, events: list[dict[str, Any]]) -> Publish:
    """What a forwarder makes of these events, in one turn."""
    topic = f"linewatch/v1/plant-1/{machine.line}/station-1/inspection"
    payloads = [json.dumps(event).encode() for event in events]
    ids = [event.get("id", f"none {number}") for number, event in enumerate(events)]
    stream = f"predictions-{machine.line}"
    records = [Record(one, stream, topic, payload) for one, payload in zip(ids, payloads, strict=True)]
    (publish,) = turn(records, Limits(50, 128 * 1024))
    assert publish.is_batch
    return publish


def test_a_batch_that_a_forwarder_makes_passes_the_rule_whole(
    machine: Line, cloud: StandinCloud, eventually: Eventually
) -> None:
    events = [machine.severity(0.1) for _ in range(40)]
    batch = batch_of(machine, events)

    assert published(cloud, batch.topic, batch.payload) < 0x80

    eventually(lambda: machine.is_stored(*events), "every event")


def test_one_poison_event_in_a_batch_takes_no_other_with_it(
    machine: Line, cloud: StandinCloud, eventually: Eventually
) -> None:
    before = cloud.dead_letters()
    counted = counted_at_rest(cloud, eventually)
    events = [machine.severity(0.1) for _ in range(9)]
    poison = {**events[0], "id": "poison", "type": "Nonsense"}
    batch = batch_of(machine, [*events[:4], poison, *events[4:]])

    assert published(cloud, batch.topic, batch.payload) < 0x80

    eventually(lambda: machine.is_stored(*events), "the others")
    eventually(lambda: cloud.dead_letters() > before, "the dead letter")
    assert cloud.counts()["enriched"] - counted == 9, "the repeats on the way there count nothing twice"
    assert machine.orders() == []


def test_basic_ingest_passes_its_rule_and_the_policy_allows_no_other(
    machine: Line, cloud: StandinCloud, eventually: Eventually
) -> None:
    events = [machine.severity(0.1) for _ in range(5)]
    batch = batch_of(machine, events)
    rule = cloud.outputs["IngestRuleName"]

    assert published(cloud, f"$aws/rules/{rule}/{batch.topic}", batch.payload) < 0x10

    eventually(lambda: machine.is_stored(*events), "every event")
    assert published(cloud, f"$aws/rules/no_such_rule/{batch.topic}", batch.payload) == 0x87, "not authorized"


def test_a_client_without_certificate_is_refused(cloud: StandinCloud) -> None:
    context = ssl.create_default_context(cafile=str(cloud.ca_file))
    client = SessionClient(mqtt.CallbackAPIVersion.VERSION2, "stranger", protocol=mqtt.MQTTv5)
    client.tls_set_context(context)
    connected: list[Any] = []
    client.on_connect = lambda *arguments: connected.append(arguments[3])

    with pytest.raises((ssl.SSLError, OSError)):
        client.connect("localhost", cloud.mqtt_port)
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            assert client.loop(0.2) == mqtt.MQTT_ERR_SUCCESS or not connected
            if client.socket() is None:
                raise ConnectionRefusedError

    client.close()
    assert connected == []


def shadow_of(cloud: StandinCloud, thing: str, line: Line, failure_mode: str = "hpc-degradation") -> Any:
    """What a thing's shadow says of this asset; None when nothing."""
    client = cloud.client("iot-data")
    try:
        shadow = client.get_thing_shadow(thingName=thing, shadowName="work-orders")
    except client.exceptions.ResourceNotFoundException:
        return None
    desired = json.loads(shadow["payload"].read())["state"].get("desired", {})
    return desired.get(line.asset_id, {}).get(failure_mode)


DEVICE = "linewatch-plant-1-device-1"


def test_the_device_shadow_shows_the_order(
    machine: Line, cloud: StandinCloud, eventually: Eventually
) -> None:
    machine.send(*(machine.severity(0.9) for _ in range(5)))
    order = eventually(lambda: machine.order("created"), "the order")

    shown = eventually(lambda: shadow_of(cloud, DEVICE, machine), "the shadow")
    told = {"reference": order["reference"], "erp_id": order["erp_id"], "status": "created"}
    assert shown.items() >= told.items()


def test_the_forwarders_shadow_names_the_evidence_of_an_open_order_until_it_is_closed(
    machine: Line, cloud: StandinCloud, eventually: Eventually
) -> None:
    machine.send(*(machine.severity(0.9) for _ in range(5)))
    order = eventually(lambda: machine.order("created"), "the order")

    held = eventually(lambda: shadow_of(cloud, f"{DEVICE}-forwarder", machine), "the shadow")
    assert held["reference"] == order["reference"]
    assert held["event_ids"] == [one["path"].partition(".")[0] for one in order["evidence"]]
    assert set(held["event_ids"]) <= {event["id"] for event in machine.events}

    answer = cloud.api(
        "POST", f"/work-orders/{order['reference']}/close", {"by": "t", "finding": "confirmed"}
    )
    assert answer.status_code == 200, answer.text
    eventually(lambda: shadow_of(cloud, f"{DEVICE}-forwarder", machine) is None, "the evidence's release")
    assert shadow_of(cloud, DEVICE, machine) is None


def test_an_order_that_awaits_approval_holds_its_evidence_and_a_rejection_lets_it_go(
    machine: Line, cloud: StandinCloud, eventually: Eventually
) -> None:
    machine.send(*(machine.severity(0.7) for _ in range(5)))
    order = eventually(lambda: machine.order("awaiting_approval"), "the order")

    held = eventually(lambda: shadow_of(cloud, f"{DEVICE}-forwarder", machine), "the shadow")
    assert held["event_ids"]
    assert shadow_of(cloud, DEVICE, machine) is None, "it is not in the ERP"

    answer = cloud.api("POST", f"/work-orders/{order['reference']}/reject", {"by": "s", "reason": "no"})
    assert answer.status_code == 200, answer.text
    eventually(lambda: shadow_of(cloud, f"{DEVICE}-forwarder", machine) is None, "the evidence's release")


def device(cloud: StandinCloud, client_id: str) -> SessionClient:
    client = SessionClient(mqtt.CallbackAPIVersion.VERSION2, client_id, protocol=mqtt.MQTTv5)
    client.tls_set(str(cloud.ca_file), str(cloud.certificate_file), str(cloud.key_file))
    return client
