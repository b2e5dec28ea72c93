# SPDX-License-Identifier: Apache-2.0
"""Real MQTT brokers for tests, each on a port and in a folder of its own, and waiting with a deadline.

The embedded broker runs everywhere; a test that wants mosquitto skips, with the reason, where it is not installed.
"""

import asyncio
import datetime
import ipaddress
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from linewatch.v1 import event_pb2, verdict_pb2
from linewatch_plant.processes import free_port, port_is_free
from linewatch_plant.uplink_cable import close
from linewatch_runtime.events import Place, envelope, new_event_id, origin
from linewatch_runtime.mqtt import Connection, Endpoint, Subscriptions, Tls, Will

EMBEDDED, MOSQUITTO = "embedded", "mosquitto"
MOSQUITTO_PROGRAM = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
NO_MOSQUITTO = "mosquitto is not installed (Debian: apt-get install mosquitto)"

STATION = Place("plant-1", "line-1", "station-1")

AT_THE_CLOUD = tuple(f"linewatch/v1/+/+/+/{kind}" for kind in ("inspection", "engine", "batch"))
"""All that a forwarder sends up."""


# --- waiting ---------------------------------------------------------------------------------------------------------


WAIT_S = 60.0
"""For what a test waits where nothing else is said: no guarantee, and it costs nothing where it holds."""


def wait_for(condition: Callable[[], object], what: str, deadline_s: float = WAIT_S) -> None:
    """Returns when the condition holds; fails the test at the deadline."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"not within {deadline_s:g} s: {what}"
        time.sleep(0.01)


async def until(condition: Callable[[], object], what: str, deadline_s: float = WAIT_S) -> None:
    """`wait_for` inside an event loop."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"not within {deadline_s:g} s: {what}"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def answering(
    handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], **options: Any
) -> AsyncIterator[int]:
    """A port of loopback whose connections `handler` takes, until the block ends: then all are closed, the last one, too."""
    handling: set[asyncio.Task[None]] = set()
    writers: list[asyncio.StreamWriter] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handling.add(task)
        writers.append(writer)
        try:
            await handler(reader, writer)
        except asyncio.CancelledError:
            pass  # the block has ended
        finally:
            writer.close()
            handling.discard(task)

    server = await asyncio.start_server(handle, "127.0.0.1", 0, **options)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        await close(server)
        for task in handling:
            task.cancel()
        if handling:
            await asyncio.wait(handling, timeout=WAIT_S)
        for writer in writers:
            writer.transport.abort()  # what nobody reads would keep it open
        for _ in range(3):
            await asyncio.sleep(0)


def listens(port: int) -> bool:
    """Whether somebody accepts connections on the port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


# --- processes -------------------------------------------------------------------------------------------------------


class Child:
    """A child process of a test that can be killed -9 and started again; its output goes to one file."""

    def __init__(
        self, command: Sequence[str], output: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.command = [str(part) for part in command]
        self.output = output
        self.environment = {**_BARE, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=self.environment
            )

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "not started"
        return self._process

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """kill -9, and waits until the process is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(60)

    def end(self, within_s: float = 60.0) -> int:
        """SIGTERM; its exit code. Where that is not 0, a test that fails shows what it said last."""
        self.process.terminate()
        if code := self.process.wait(within_s):
            print(f"{self.command[-1]} ended with {code}:\n{self.told()[-8000:]}")
        return code

    def told(self) -> str:
        """All that it wrote."""
        return self.output.read_text(errors="replace") if self.output.exists() else ""


_BARE = {
    name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME", "LANG", "TMPDIR") if name in os.environ
} | {"PYTHONUNBUFFERED": "1"}


class Broker(Child):
    """A broker process; `kill` and `start` keep port and folder."""

    def __init__(self, kind: str, folder: Path, configuration: str | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.kind = kind
        self.port = free_port()
        if configuration is None:
            command = [sys.executable, "-m", "linewatch_plant.broker", "--port", str(self.port),
                       "--state-dir", str(folder), "--kind", kind]  # fmt: skip
        else:
            path = folder / "mosquitto.conf"
            user = "user root\n" if os.geteuid() == 0 else ""
            path.write_text(user + configuration.format(port=self.port, folder=folder))
            command = [MOSQUITTO_PROGRAM or "", "-c", str(path)]
        super().__init__(command, folder / "broker.log")

    def start(self) -> None:
        assert port_is_free(self.port), f"somebody listens on {self.port}"
        super().start()
        wait_for(lambda: listens(self.port) or not self.runs, f"{self.kind} listens")
        assert self.runs, self.told()

    def endpoint(self, client_id: str, **more: object) -> Endpoint:
        return Endpoint("127.0.0.1", self.port, client_id, **more)  # type: ignore[arg-type]


@contextmanager
def running(child: Child) -> Iterator[Child]:
    """Started, and killed with the block."""
    try:
        child.start()
        yield child
    finally:
        child.kill()


def skip_without_mosquitto() -> None:
    """Skips the test, with the reason, where mosquitto is not installed."""
    if MOSQUITTO_PROGRAM is None:
        pytest.skip(NO_MOSQUITTO)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=[EMBEDDED, MOSQUITTO])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    """Each test runs against both brokers."""
    if request.param == MOSQUITTO:
        skip_without_mosquitto()
    made = Broker(request.param, tmp_path / "broker")
    with running(made):
        yield made


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Broker]:
    """The broker of a device as plant/ configures it, always mosquitto."""
    skip_without_mosquitto()
    made = Broker(MOSQUITTO, tmp_path / "broker")
    with running(made):
        yield made


# --- a stand-in for IoT Core: mosquitto with mutual TLS ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files of a certificate authority, a server called localhost and one device."""

    ca_file: Path
    server_file: Path
    server_key_file: Path
    device_file: Path
    device_key_file: Path


def make_certificates(folder: Path, addresses: Sequence[str] = ("127.0.0.1",)) -> Certificates:
    """Writes a throw-away PKI; the server is localhost and has these addresses."""
    folder.mkdir(parents=True, exist_ok=True)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = _certificate("Linewatch test CA", ca_key, None, ca_key)
    (folder / "ca.pem").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    (folder / "ca.key").write_bytes(_key_text(ca_key))
    for name, common_name in (("server", "localhost"), ("device", "device-1")):
        certificate, key = issue(folder, common_name, addresses)
        (folder / f"{name}.pem").write_bytes(certificate)
        (folder / f"{name}.key").write_bytes(key)
    return Certificates(
        folder / "ca.pem", folder / "server.pem", folder / "server.key", folder / "device.pem", folder / "device.key"
    )  # fmt: skip


def issue(
    folder: Path, common_name: str, addresses: Sequence[str] = ("127.0.0.1",), days: float = 30
) -> tuple[bytes, bytes]:
    """A new certificate by the authority in that folder, and its key, as they stand in files."""
    ca = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    ca_key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certificate(common_name, key, ca, ca_key, addresses, days)  # type: ignore[arg-type]
    return certificate.public_bytes(serialization.Encoding.PEM), _key_text(key)


def _key_text(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _certificate(
    common_name: str, key: ec.EllipticCurvePrivateKey, issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey, addresses: Sequence[str] = (), days: float = 30,
) -> x509.Certificate:  # fmt: skip
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=2))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
        .add_extension(
            x509.KeyUsage(
                digital_signature=True, content_commitment=False, key_encipherment=False,
                data_encipherment=False, key_agreement=False, key_cert_sign=issuer is None,
                crl_sign=issuer is None, encipher_only=False, decipher_only=False,
            ),
            critical=True,
        )
    )  # fmt: skip
    if issuer:
        ips = [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        names = [x509.DNSName("localhost"), *ips]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False).add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
    return builder.sign(issuer_key, hashes.SHA256())


_CLOUD = """\
listener {{port}} {host}
cafile {ca}
certfile {certificate}
keyfile {key}
require_certificate true
use_identity_as_username true
allow_anonymous false
max_inflight_messages 1000
# Not 0: mosquitto before 2.0.17 then ends the connection of a client whose publish it denies.
max_queued_messages 100000
acl_file {{folder}}/acl
log_dest stderr
"""


class Cloud(Broker):
    """What IoT Core is to the forwarder: MQTT 5 over mutual TLS, with a policy on topics."""

    def __init__(
        self, folder: Path, allowed: str = "linewatch/#", host: str = "127.0.0.1",
        addresses: Sequence[str] = ("127.0.0.1",),
    ) -> None:  # fmt: skip
        self.certificates = files = make_certificates(folder / "certificates", addresses)
        of_files = {"ca": files.ca_file, "certificate": files.server_file, "key": files.server_key_file}
        super().__init__(MOSQUITTO, folder, _CLOUD.format(host=host, **of_files))
        (folder / "acl").write_text(f"user device-1\ntopic readwrite {allowed}\n")

    def endpoint(self, client_id: str, **more: object) -> Endpoint:
        files = self.certificates
        tls = Tls(files.ca_file, files.device_file, files.device_key_file)
        return Endpoint("localhost", self.port, client_id, tls=tls, **more)  # type: ignore[arg-type]

    def settings(self, port: int | None = None) -> dict[str, str]:
        """The forwarder's environment for this uplink; `port` of a cable in between."""
        return {
            "FORWARDER_UPLINK_HOST": "localhost",
            "FORWARDER_UPLINK_PORT": str(port or self.port),
            "FORWARDER_UPLINK_CA_FILE": str(self.certificates.ca_file),
            "FORWARDER_UPLINK_CERTIFICATE_FILE": str(self.certificates.device_file),
            "FORWARDER_UPLINK_KEY_FILE": str(self.certificates.device_key_file),
        }


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    """The uplink's far end."""
    skip_without_mosquitto()
    made = Cloud(tmp_path / "cloud")
    with running(made):
        yield made


# --- speaking --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Listener:
    """A connection that keeps all it hears."""

    connection: Connection
    heard: list[tuple[str, bytes]] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        """Event ids in the order of arrival, repeats and all; batches are taken apart."""
        told = [json.loads(payload) for _, payload in self.heard]
        return [event["id"] for one in told for event in one.get("events", [one])]

    def last(self, topic: str) -> dict[str, object]:
        """The newest JSON payload on a topic; empty before the first."""
        return next((json.loads(payload) for at, payload in reversed(self.heard) if at == topic), {})

    async def hear(self) -> None:
        while True:
            message = await self.connection.messages.get()
            self.heard.append((message.topic, message.payload))


@asynccontextmanager
async def connected(
    endpoint: Endpoint, subscriptions: Subscriptions | None = None, will: Will | None = None, *, wait: bool = True
) -> AsyncIterator[Connection]:  # fmt: skip
    """A connection that runs inside the block."""
    connection = Connection(endpoint, subscriptions, will)
    task = asyncio.create_task(connection.run(), name="connection")
    try:
        if wait:
            await asyncio.wait_for(connection.connected.wait(), WAIT_S)
        yield connection
    finally:
        task.cancel()
        await asyncio.wait([task])


@asynccontextmanager
async def listening(endpoint: Endpoint, *topics: str) -> AsyncIterator[Listener]:
    """Hears the topics inside the block."""
    async with connected(endpoint, Subscriptions(topics)) as connection:
        listener = Listener(connection)
        task = asyncio.create_task(listener.hear(), name="listener")
        try:
            yield listener
        finally:
            task.cancel()


def inspection(
    sequence: int, result: str = "OK", place: Place = STATION, event_id: str | None = None
) -> tuple[str, bytes]:
    """An event id and an InferenceCompleted as it travels."""
    event_id = event_id or new_event_id()
    verdict = verdict_pb2.Verdict(
        result=verdict_pb2.Verdict.Result.Value(result), label="ok" if result == "OK" else "crack",
        score=0.02 if result == "OK" else 0.97, is_anomalous=result != "OK",
    )  # fmt: skip
    data = event_pb2.Inspection(
        origin=origin(place, 1, sequence), part_id=f"part {sequence}", verdict=verdict
    )
    return event_id, envelope(event_id, "InferenceCompleted", place, data, subject=data.part_id)
