# SPDX-License-Identifier: Apache-2.0
"""Open work orders hold their evidence: from the cloud's shadow to the file that capture reads, under the real policies."""

import asyncio
import contextlib
import hashlib
import json
import subprocess
import threading
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
from brokers import Broker, Child, until, wait_for
from forwarding import Forwarder
from hypothesis import given
from hypothesis import strategies as st

from linewatch_capture.evidence_notes import EvidenceNotes as CapturesNotes
from linewatch_capture.evidence_notes import state_dir_of as captures_state_dir_of
from linewatch_capture.evidence_value import MARKS, Worth
from linewatch_forwarder.evidence.files import RANKS
from linewatch_forwarder.evidence.notes import MOST_PINS, EvidenceNotes, state_dir_of
from linewatch_forwarder.evidence.pins import NotAShadow, ShadowPins, read
from linewatch_plant.standin_cloud import REGION, StandinCloud
from linewatch_runtime.mqtt import Connection, Endpoint, Message

DAY = "20261121"


# ---------------------------------------------------------------- what the shadow says


def test_the_events_of_every_open_order_are_read() -> None:
    desired = {
        "ASSET-1": {"crack": {"reference": "lw-1", "event_ids": ["a-1", "a-2"]}, "dark": None},
        "ASSET-2": {"hpc": {"reference": "lw-2", "erp_id": "4711", "status": "created"}},
        "ASSET-3": None,
    }

    assert read(json.dumps({"state": {"desired": desired}, "version": 7}).encode()) == (7, {"a-1", "a-2"})
    change = {"previous": {"state": {}}, "current": {"state": {"desired": desired}, "version": 8}}
    assert read(json.dumps(change).encode()) == (8, {"a-1", "a-2"})
    assert read(b'{"state": {"reported": {}}, "version": 1}') == (1, set())


def test_what_could_be_no_event_id_is_passed_over() -> None:
    wrong = ["../pins", "a b", "a\nb", 7, None, "", "x" * 65, "good-1"]
    document = {"state": {"desired": {"A": {"m": {"event_ids": wrong}}}}, "version": 1}

    assert read(json.dumps(document).encode()) == (1, {"good-1"})


@pytest.mark.parametrize(
    "payload",
    [b"", b"[]", b"{", b'{"version": 1}', b'{"state": {"desired": 7}, "version": 1}', b"null", b"7", b"\xff",
     b'{"state": {"desired": {"a": {"m": {"event_ids": 7}}}}, "version": 1}', b" " * 200_000, b"[" * 100_000,
     b'{"state": {}, "version": 1e999}'],
)  # fmt: skip
def test_garbage_is_told_and_changes_nothing(payload: bytes) -> None:
    with pytest.raises(NotAShadow):
        read(payload)


@given(st.binary(max_size=300))
def test_no_payload_breaks_the_reader(payload: bytes) -> None:
    with contextlib.suppress(NotAShadow):
        read(payload)


# ---------------------------------------------------------------- the notes, as both sides have them


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "evidence").mkdir()
    return tmp_path / "evidence"


def test_capture_reads_what_the_forwarder_notes(root: Path) -> None:
    assert state_dir_of(root) == captures_state_dir_of(root)
    forwarder = EvidenceNotes(state_dir_of(root))
    capture = CapturesNotes(state_dir_of(root), "line-1")

    forwarder.pin({"a-1", "a-2"})
    forwarder.add_uploaded("line-1", f"{DAY}/a-1.jpg")
    forwarder.add_uploaded("line-2", f"{DAY}/b-1.jpg")
    assert capture.read_pins()
    assert capture.pins == {"a-1", "a-2"}
    assert not capture.read_pins()
    assert capture.read_uploaded() == [f"{DAY}/a-1.jpg"]

    forwarder.pin(set())
    for number in range(300):
        forwarder.add_uploaded("line-1", f"{DAY}/{number}.jpg")
    capture.read_uploaded()
    forwarder.keep_only("line-1", {f"{DAY}/7.jpg"})
    assert capture.read_pins()
    assert capture.pins == frozenset()
    assert capture.read_uploaded() == [f"{DAY}/7.jpg"]
    assert capture.uploaded == {f"{DAY}/7.jpg"}


def test_both_know_the_same_marks() -> None:
    ranks = {worth: RANKS.get(mark.removeprefix("."), 1) for worth, mark in MARKS.items()}

    assert sorted(Worth, key=lambda worth: ranks[worth]) == [Worth.UNCERTAIN, Worth.CERTAIN, Worth.GOOD]


def test_a_restart_knows_the_pins_and_the_uploads_and_passes_over_half_a_line(root: Path) -> None:
    notes = EvidenceNotes(state_dir_of(root))
    notes.pin({"a-1"})
    notes.add_uploaded("line-1", f"{DAY}/a-1.jpg")
    with (state_dir_of(root) / "uploaded/line-1").open("ab") as file:
        file.write(f"{DAY}/half".encode())

    again = EvidenceNotes(state_dir_of(root))
    assert again.pins == {"a-1"}
    assert set(again.uploaded("line-1")) == {f"{DAY}/a-1.jpg"}
    again.add_uploaded("line-1", f"{DAY}/a-2.jpg")
    third = EvidenceNotes(state_dir_of(root))
    assert {f"{DAY}/a-1.jpg", f"{DAY}/a-2.jpg"} <= set(third.uploaded("line-1"))


def test_pins_are_bounded_and_the_newest_stay(root: Path) -> None:
    notes = EvidenceNotes(state_dir_of(root))

    notes.pin({f"{number:04}" for number in range(MOST_PINS + 10)})

    assert len(notes.pins) == MOST_PINS
    assert "0009" not in notes.pins


@pytest.mark.anyio
async def test_version_of_an_ended_session_overtakes_nothing_of_the_next_one(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one may lead to another account, whose shadow counts anew."""
    notes = EvidenceNotes(state_dir_of(root))
    connection = Connection(Endpoint("127.0.0.1", 1, "device-1"))
    pins = ShadowPins(connection, "device-1", notes)
    pin, is_written, may_go_on = notes.pin, threading.Event(), threading.Event()

    def slowly(event_ids: Collection[str]) -> bool:
        is_written.set()
        may_go_on.wait(60)
        return pin(event_ids)

    def say(session: object, version: int, event_id: str) -> None:
        desired = {"ASSET-1": {"crack": {"event_ids": [event_id]}}}
        told = json.dumps({"state": {"desired": desired}, "version": version}).encode()
        topic = "$aws/things/device-1/shadow/name/work-orders/get/accepted"
        connection.messages.put_nowait(Message(topic, told, 1, 1, False, {}, session))

    monkeypatch.setattr(notes, "pin", slowly)
    running = asyncio.create_task(pins.run())
    say("first", 9, "a-1")
    await until(is_written.is_set, "the disk is slow")
    for call in connection.on_connected:
        call()
    may_go_on.set()
    say("second", 1, "b-1")
    await until(connection.messages.empty, "both are heard")
    with contextlib.suppress(AssertionError):
        await until(lambda: notes.pins == {"b-1"}, "the new one holds", 5)
    running.cancel()
    await asyncio.wait([running])

    assert notes.pins == {"b-1"}


def test_pins_that_cannot_be_written_leave_the_old_ones(root: Path) -> None:
    notes = EvidenceNotes(state_dir_of(root))
    notes.pin({"a-1"})
    (state_dir_of(root) / ".pins").mkdir()

    with pytest.raises(OSError):
        notes.pin({"a-2"})

    assert notes.pins == {"a-1"}
    assert (state_dir_of(root) / "pins").read_text() == "a-1\n"


# ---------------------------------------------------------------- the process, at a cloud that enforces its policies


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandinCloud]:
    running = StandinCloud.start(tmp_path_factory.mktemp("cloud"), warm=False)
    yield running
    running.stop()


def process(account: StandinCloud, broker: Broker, tmp_path: Path, **more: str) -> Forwarder:
    return Forwarder(
        tmp_path,
        broker.port,
        FORWARDER_UPLINK_HOST="localhost",
        FORWARDER_UPLINK_PORT=str(account.mqtt_port),
        FORWARDER_UPLINK_CLIENT_ID=account.client_id,
        FORWARDER_UPLINK_CA_FILE=str(account.ca_file),
        FORWARDER_UPLINK_CERTIFICATE_FILE=str(account.certificate_file),
        FORWARDER_UPLINK_KEY_FILE=str(account.key_file),
        FORWARDER_EVIDENCE_DIR=str(tmp_path / "evidence"),
        **more,
    )


def show(account: StandinCloud, event_ids: list[str] | None) -> None:
    """As the Lambda work_orders writes it."""
    entry = None if event_ids is None else {"reference": "lw-1", "event_ids": event_ids}
    account.client("iot-data").update_thing_shadow(
        thingName=account.client_id,
        shadowName="work-orders",
        payload=json.dumps({"state": {"desired": {"ASSET-1": {"crack": entry}}}}),
    )


def pins_of(tmp_path: Path) -> list[str]:
    path = state_dir_of(tmp_path / "evidence") / "pins"
    return path.read_text().split() if path.exists() else []


def ended(child: Child) -> None:
    if child.runs:
        child.end()


def test_pins_follow_the_orders_and_stay_while_the_cloud_is_away(
    account: StandinCloud, mosquitto: Broker, tmp_path: Path, root: Path
) -> None:
    show(account, ["a-1"])
    forwarder = process(account, mosquitto, tmp_path)
    try:
        forwarder.start()
        wait_for(lambda: pins_of(tmp_path) == ["a-1"], f"asked for: {forwarder.told()}", 60)
        show(account, ["a-1", "a-2"])
        wait_for(lambda: pins_of(tmp_path) == ["a-1", "a-2"], f"told: {forwarder.told()}")
        forwarder.kill()

        show(account, ["a-3"])
        away = process(account, mosquitto, tmp_path)
        away.environment["FORWARDER_UPLINK_PORT"] = "9"
        away.start()
        wait_for(lambda: away.events("mqtt_unreachable"), "it tries")
        assert pins_of(tmp_path) == ["a-1", "a-2"], "the last that is known"
        away.kill()

        forwarder.start()
        wait_for(lambda: pins_of(tmp_path) == ["a-3"], f"what changed meanwhile: {forwarder.told()}", 60)
        show(account, None)
        wait_for(lambda: pins_of(tmp_path) == [], f"closed: {forwarder.told()}")
    finally:
        ended(forwarder)


def test_a_policy_that_forbids_the_shadow_costs_the_pins_and_nothing_else(
    account: StandinCloud, mosquitto: Broker, tmp_path: Path, root: Path
) -> None:
    iot = account.client("iot")
    arn = iot.list_thing_principals(thingName=account.client_id)["principals"][0]
    whole = account.outputs["DevicePolicyName"]
    statements = json.loads(iot.get_policy(policyName=whole)["policyDocument"])
    statements["Statement"] = [one for one in statements["Statement"] if "$aws" not in json.dumps(one)]
    iot.create_policy(policyName="without-shadow", policyDocument=json.dumps(statements))
    iot.attach_policy(policyName="without-shadow", target=arn)
    iot.detach_policy(policyName=whole, target=arn)
    show(account, ["a-1"])
    forwarder = process(account, mosquitto, tmp_path)
    try:
        forwarder.start()
        wait_for(lambda: forwarder.events("mqtt_not_subscribed"), f"refused: {forwarder.told()}", 60)
        wait_for(
            lambda: [one for one in forwarder.events("mqtt_connected") if one["client_id"] == account.client_id],
            f"connected: {forwarder.told()}",
        )  # fmt: skip
        assert not [
            one for one in forwarder.events("mqtt_disconnected") if str(account.mqtt_port) in str(one)
        ]
        assert pins_of(tmp_path) == []
        assert forwarder.runs
    finally:
        ended(forwarder)
        iot.attach_policy(policyName=whole, target=arn)
        iot.detach_policy(policyName="without-shadow", target=arn)


def test_the_process_uploads_to_the_stacks_bucket_below_its_own_name(
    account: StandinCloud, mosquitto: Broker, tmp_path: Path, root: Path
) -> None:
    (root / "line-1" / DAY).mkdir(parents=True)
    (root / "line-1" / DAY / "a-1.review.jpg").write_bytes(b"\xff\xd8 uncertain")
    forwarder = process(
        account, mosquitto, tmp_path,
        FORWARDER_EVIDENCE_BUCKET=account.outputs["EvidenceBucketName"], FORWARDER_AWS_REGION=REGION,
        AWS_ENDPOINT_URL_S3=account.endpoint_url, AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test",
    )  # fmt: skip
    try:
        forwarder.start()
        wait_for(lambda: objects(account), f"uploaded: {forwarder.told()}", 60)
    finally:
        ended(forwarder)

    digest = hashlib.sha256(b"\xff\xd8 uncertain").hexdigest()
    assert objects(account) == [f"evidence/{account.client_id}/sha256/{digest[:2]}/{digest}.jpg"]


def objects(account: StandinCloud) -> list[str]:
    answer: dict[str, Any] = account.client("s3").list_objects_v2(
        Bucket=account.outputs["EvidenceBucketName"]
    )
    return [one["Key"] for one in answer.get("Contents", [])]


@pytest.fixture
def image_root(tmp_path: Path) -> Iterator[Path]:
    """A root that can only be read, with the folder that the image has and without the one that it has not."""
    place = tmp_path / "image"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,mode=0755", "tmpfs", place], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("not run: a file system of the test's own needs root")
    try:
        (place / "evidence-state").mkdir()
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def test_an_image_whose_evidence_is_not_mounted_carries_events_without_it(
    image_root: Path, tmp_path: Path
) -> None:
    """As an older release's compose file starts it: the image names the place, and nothing is there."""
    place = {"FORWARDER_EVIDENCE_DIR": str(image_root / "evidence")}
    forwarder = Forwarder(tmp_path, 1, FORWARDER_UPLINK="none", **place)
    forwarder.start()
    try:
        wait_for(lambda: forwarder.events("evidence_not_mounted"), f"told: {forwarder.told()}", 60)
        wait_for(lambda: forwarder.events("mqtt_unreachable"), f"works: {forwarder.told()}", 60)
    finally:
        ended(forwarder)

    uploads = Forwarder(
        tmp_path, 1, FORWARDER_UPLINK="none", FORWARDER_EVIDENCE_BUCKET="a-bucket", FORWARDER_AWS_REGION="eu-central-1",
        AWS_ACCESS_KEY_ID="a", **place,
    )  # fmt: skip
    uploads.start()
    assert uploads.process.wait(60) == 2, "what is to be uploaded has to be there"
    assert "FORWARDER_EVIDENCE_DIR: " in uploads.told()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"FORWARDER_EVIDENCE_BUCKET": "a-bucket"}, "FORWARDER_EVIDENCE_DIR must be set"),
        (
            {"FORWARDER_EVIDENCE_BUCKET": "a-bucket", "FORWARDER_EVIDENCE_DIR": "/tmp/e"},
            "FORWARDER_AWS_REGION must be set: FORWARDER_EVIDENCE_BUCKET needs it",
        ),
        ({"FORWARDER_EVIDENCE_BUCKET": "Not A Bucket"}, "FORWARDER_EVIDENCE_BUCKET"),
        ({"FORWARDER_EVIDENCE_BYTES_PER_S": "1"}, "FORWARDER_EVIDENCE_BYTES_PER_S"),
        ({"FORWARDER_EVIDENCE_DIR": "/proc/nowhere/evidence"}, "FORWARDER_EVIDENCE_DIR: "),
    ],
)
def test_a_wrong_setting_ends_the_start_and_names_the_remedy(
    more: dict[str, str], says: str, tmp_path: Path
) -> None:
    forwarder = Forwarder(tmp_path, 1, FORWARDER_UPLINK="none", **more)
    forwarder.start()

    assert forwarder.process.wait(60) == 2
    assert says in forwarder.told()
