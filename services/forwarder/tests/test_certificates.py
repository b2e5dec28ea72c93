# SPDX-License-Identifier: Apache-2.0
"""Certificates that are renewed while the forwarder runs, over real mutual TLS."""

import asyncio
import re
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from brokers import (
    AT_THE_CLOUD,
    STATION,
    Cloud,
    Listener,
    inspection,
    issue,
    listening,
    make_certificates,
    running,
    skip_without_mosquitto,
    until,
)
from forwarding import state
from prometheus_client import REGISTRY

from linewatch_forwarder.delivery import Delivery
from linewatch_forwarder.evidence.notes import EvidenceNotes
from linewatch_forwarder.evidence.pins import ShadowPins
from linewatch_forwarder.streams.embedded import EmbeddedStreams
from linewatch_forwarder.uplinks.certificates import WARN_BELOW_DAYS, Certificates
from linewatch_forwarder.uplinks.iot_core import IotCore
from linewatch_runtime.mqtt import Connection, Endpoint, Tls, TlsContext
from linewatch_runtime.spool import Record, SpoolWorker

pytestmark = pytest.mark.anyio

LOOK_S = 0.05
DAY_S = 86_400


class Device:
    """The certificate files of a device, as its forwarder has them, and the authority behind them."""

    def __init__(self, folder: Path, cloud: Cloud) -> None:
        self.cloud = cloud
        self.authority = cloud.certificates.ca_file.parent
        self.ca, self.certificate, self.key = (
            folder / name for name in ("ca.pem", "device.pem", "device.key")
        )
        for there, here in (
            (cloud.certificates.ca_file, self.ca),
            (cloud.certificates.device_file, self.certificate),
            (cloud.certificates.device_key_file, self.key),
        ):
            shutil.copy(there, here)

    def watched(self) -> Certificates:
        return Certificates(self.ca, self.certificate, self.key, look_every_s=LOOK_S)

    def renew(self, common_name: str, days: float = 30) -> None:
        """Writes in place, the certificate first."""
        certificate, key = issue(self.authority, common_name, days=days)
        self.certificate.write_bytes(certificate)
        self.key.write_bytes(key)

    @property
    def names(self) -> list[str]:
        """By which names the cloud knew this device's sessions."""
        return re.findall(r"New client connected from \S+ as uplink .*u'([^']*)'", self.cloud.told())


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    skip_without_mosquitto()
    cloud = Cloud(tmp_path / "cloud")
    users = ["device-1", *(f"device-1-{number}" for number in range(1, 12))]
    acl = tmp_path / "cloud" / "acl"
    acl.write_text("".join(f"user {name}\ntopic readwrite linewatch/#\n" for name in users))
    (tmp_path / "device").mkdir()
    with running(cloud):
        yield Device(tmp_path / "device", cloud)


@asynccontextmanager
async def delivering(
    device: Device, worker: SpoolWorker, tls: TlsContext
) -> AsyncIterator[tuple[IotCore, Listener, Delivery]]:
    """A forwarder's way out with these certificates, and what arrives in the cloud."""
    connection = Connection(Endpoint("localhost", device.cloud.port, "uplink", tls=tls))
    uplink = IotCore(connection, certificates=tls if isinstance(tls, Certificates) else None)
    delivery, stop = Delivery(EmbeddedStreams(worker), uplink, 1000.0), asyncio.Event()
    async with listening(device.cloud.endpoint("rule"), *AT_THE_CLOUD) as rule:
        tasks = [asyncio.create_task(uplink.run()), asyncio.create_task(delivery.run(stop))]
        try:
            await asyncio.wait_for(connection.connected.wait(), 60)
            yield uplink, rule, delivery
        finally:
            stop.set()
            await asyncio.wait(tasks[1:], timeout=15)
            tasks[0].cancel()
            await asyncio.wait(tasks)


def record(sequence: int) -> Record:
    event_id, payload = inspection(sequence)
    return Record(event_id, "predictions-line-1", STATION.topic("inspection"), payload)


async def looks(count: int) -> None:
    """Long enough for that many looks at the files."""
    end = time.monotonic() + count * LOOK_S
    await until(lambda: time.monotonic() > end, "time passes")


def metric(name: str) -> float | None:
    return REGISTRY.get_sample_value(f"linewatch_forwarder_certificate_{name}")


async def test_ten_rotations_under_load_lose_nothing_and_each_is_used(
    device: Device, worker: SpoolWorker
) -> None:
    sent: list[str] = []
    enough = asyncio.Event()

    async def load() -> None:
        while not enough.is_set():
            await until(lambda: len(sent) - len(rule.ids) < 100, "there is room", 60)
            one = record(len(sent))
            await worker.run(worker.spool.append, [one])
            sent.append(one.event_id)
            delivery.wake()
            await asyncio.sleep(0.005)

    async with delivering(device, worker, device.watched()) as (uplink, rule, delivery):
        loading = asyncio.create_task(load())
        for number in range(1, 11):
            before = len(rule.ids)
            device.renew(f"device-1-{number}")
            await until(lambda number=number: device.names[-1] == f"device-1-{number}", "the new one is used")
            await until(lambda before=before: len(rule.ids) > before + 5, "it goes on")
        enough.set()
        await loading
        await until(lambda: state(worker).settled == len(sent), "all are accepted")
        await until(lambda: len(set(rule.ids)) == len(sent), "all arrive")
        assert not uplink.certificate_trouble
    assert device.names == ["device-1", *(f"device-1-{number}" for number in range(1, 11))], (
        "one session for each"
    )
    assert list(dict.fromkeys(rule.ids))[: len(sent)] == sent, "none is lost, and in order"
    assert len(rule.ids) == len(sent), (
        "no publish was on its way when a session was ended, so none is doubled"
    )


async def test_control_files_that_nobody_watches_are_not_used_by_a_session_that_lasts(
    device: Device, worker: SpoolWorker
) -> None:
    async with delivering(device, worker, Tls(device.ca, device.certificate, device.key)):
        device.renew("device-1-1")
        await looks(20)

        assert device.names == ["device-1"]


async def test_swapped_symlink_is_seen(device: Device, worker: SpoolWorker, tmp_path: Path) -> None:
    """As a secret that Kubernetes mounts: the files are links into a folder that is a link itself."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        shutil.copy(device.ca, tmp_path / name / "ca.pem")
    shutil.copy(device.certificate, tmp_path / "first" / "device.pem")
    shutil.copy(device.key, tmp_path / "first" / "device.key")
    certificate, key = issue(device.authority, "device-1-1")
    (tmp_path / "second" / "device.pem").write_bytes(certificate)
    (tmp_path / "second" / "device.key").write_bytes(key)
    (tmp_path / "now").symlink_to("first")
    device.ca, device.certificate, device.key = (
        tmp_path / "now" / name for name in ("ca.pem", "device.pem", "device.key")
    )
    async with delivering(device, worker, device.watched()):
        (tmp_path / "next").symlink_to("second")
        (tmp_path / "next").replace(tmp_path / "now")

        await until(lambda: device.names[-1] == "device-1-1", "the new one is used")


@pytest.mark.parametrize("what", ["half", "mismatched", "gone", "empty key"])
async def test_files_that_can_not_be_used_are_told_and_the_session_goes_on(
    device: Device, worker: SpoolWorker, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, key = issue(device.authority, "device-1-1")
    async with delivering(device, worker, device.watched()) as (uplink, rule, delivery):
        if what == "half":
            device.certificate.write_bytes(certificate[: len(certificate) // 2])
        elif what == "mismatched":
            device.certificate.write_bytes(certificate)
        elif what == "gone":
            device.certificate.unlink()
        else:
            device.key.write_bytes(b"")
        await until(lambda: uplink.certificate_trouble, "it is told")
        await until(lambda: metric("unusable") == 1, "the metric")
        await worker.run(worker.spool.append, [record(1)])
        delivery.wake()
        await until(lambda: len(rule.ids) == 1, "events go on")
        assert device.names == ["device-1"]
        assert [one.message for one in caplog.records].count("certificates_unusable") == 1
        assert "FORWARDER_UPLINK_" in uplink.certificate_trouble
        assert not uplink.trouble, "the cloud is reached"

        device.certificate.write_bytes(certificate)
        device.key.write_bytes(key)

        await until(lambda: device.names[-1] == "device-1-1", "the whole pair is used")
        assert not uplink.certificate_trouble
        assert metric("unusable") == 0


async def test_reconnect_with_unusable_files_goes_on_with_the_pair_before(
    device: Device, worker: SpoolWorker
) -> None:
    async with delivering(device, worker, device.watched()) as (uplink, rule, delivery):
        device.key.write_bytes(b"")
        await until(lambda: uplink.certificate_trouble, "it is told")
        device.cloud.kill()
        await until(lambda: not uplink.is_connected, "the break is seen")
        assert "can't be used" in uplink.trouble
        device.cloud.start()
        await until(lambda: uplink.is_connected and rule.connection.connected.is_set(), "back", 60)

        await worker.run(worker.spool.append, [record(1)])
        delivery.wake()
        await until(lambda: len(rule.ids) == 1, "events go on", 60)


async def test_pair_that_the_cloud_does_not_take_is_tried_by_turns_with_the_one_before(
    device: Device, worker: SpoolWorker, tmp_path: Path
) -> None:
    stranger = make_certificates(tmp_path / "stranger")
    async with delivering(device, worker, device.watched()) as (uplink, rule, delivery):
        device.certificate.write_bytes(stranger.device_file.read_bytes())
        device.key.write_bytes(stranger.device_key_file.read_bytes())
        await until(
            lambda: (
                "the one before" in uplink.certificate_trouble
                or "certificate before" in uplink.certificate_trouble
            ),
            "told",
            40,
        )
        await until(lambda: uplink.is_connected, "connected with the one before", 60)

        await worker.run(worker.spool.append, [record(1)])
        delivery.wake()
        await until(lambda: len(rule.ids) == 1, "events go on", 60)
        assert set(device.names) == {"device-1"}

        device.renew("device-1-1")
        await until(lambda: device.names[-1] == "device-1-1", "a good one is used", 60)
        assert not uplink.certificate_trouble


async def test_renewed_pair_stays_in_use_where_open_orders_are_followed_on_the_same_connection(
    device: Device, worker: SpoolWorker, tmp_path: Path
) -> None:
    """Both wait for each new session; the one that asked last took it from the other, and old and new went by turns."""
    async with delivering(device, worker, device.watched()) as (uplink, _, _):
        ShadowPins(uplink._connection, "device-1", EvidenceNotes(tmp_path / "evidence-state"))
        device.renew("device-1-1")
        await until(lambda: device.names[-1] == "device-1-1" and uplink.is_connected, "it is used", 60)
        for sessions in (3, 4, 5):
            uplink._connection.renew()
            await until(lambda: len(device.names) == sessions and uplink.is_connected, "a new session", 60)  # noqa: B023

        assert device.names == ["device-1", *["device-1-1"] * 4]


async def test_authority_of_the_cloud_changes_without_a_restart(
    device: Device, worker: SpoolWorker, tmp_path: Path
) -> None:
    files = device.cloud.certificates
    new = make_certificates(tmp_path / "new-authority")
    async with delivering(device, worker, device.watched()) as (uplink, _, _):
        device.ca.write_bytes(
            device.ca.read_bytes() + new.ca_file.read_bytes()
        )  # both, while the cloud changes over
        await until(lambda: len(device.names) == 2, "a session with both")
        shutil.copy(new.server_file, files.server_file)
        shutil.copy(new.server_key_file, files.server_key_file)
        device.cloud.kill()
        device.cloud.start()

        await until(lambda: len(device.names) == 3, "a session with the cloud's new certificate", 60)
        await until(lambda: uplink.is_connected, "connected")
        device.ca.write_bytes(new.ca_file.read_bytes())
        await until(lambda: len(device.names) == 4, "a session with the new authority alone", 60)


async def test_days_that_are_left_are_told_and_warned_of(device: Device) -> None:
    now = time.time()
    device.renew("device-1-1", days=20)
    watched = Certificates(device.ca, device.certificate, device.key, clock=lambda: now)
    assert watched.days_left == pytest.approx(20, abs=0.01)
    assert not watched.trouble

    now += (20 - WARN_BELOW_DAYS + 0.1) * DAY_S
    assert "expires on" in watched.trouble
    assert "renew it" in watched.trouble

    now += WARN_BELOW_DAYS * DAY_S
    assert "expired on" in watched.trouble
    assert watched.days_left < 0


async def test_expired_certificate_is_named_when_the_cloud_does_not_take_it(
    device: Device, worker: SpoolWorker
) -> None:
    device.renew("device-1-1", days=-1)
    connection = Connection(Endpoint("localhost", device.cloud.port, "uplink", tls=device.watched()))
    uplink = IotCore(connection, certificates=connection.endpoint.tls)
    task = asyncio.create_task(uplink.run())
    try:
        await until(lambda: "expired on" in uplink.trouble, "it is told")
        assert not uplink.is_connected
        device.renew("device-1-1")
        await until(lambda: uplink.is_connected, "the renewed one is used", 60)
    finally:
        task.cancel()
        await asyncio.wait([task])
