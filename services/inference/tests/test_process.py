# SPDX-License-Identifier: Apache-2.0
"""The service as a process: its start, its engine events, its settings and its end."""

import datetime
import ipaddress
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import paho.mqtt.client as paho
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2, health_pb2_grpc
from nucleus_ipc import NucleusIpc
from running_server import Running, wait_until
from tiny_models import described, encoded, make_package, picture, spots_graph

from linewatch.v1 import inspector_pb2 as messages
from linewatch.v1 import inspector_pb2_grpc
from linewatch_plant.processes import free_port
from linewatch_runtime.mqtt_client import SessionClient

TIMEOUT_S = 60.0


class Process:
    """`python -m linewatch_inference` with some settings."""

    def __init__(
        self, root: Path, directory: Path, nucleus: NucleusIpc | None = None, **settings: object
    ) -> None:
        self.port, self.metrics_port = free_port(), free_port()
        told = {
            "PORT": self.port, "METRICS_PORT": self.metrics_port, "MODELS_DIR": root / "models",
            "TRUSTED_KEYS_DIR": root / "trusted-key", "STATE_DIR": directory / "state",
        } | {name.upper(): value for name, value in settings.items()}  # fmt: skip
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        self.environment = inherited | {f"INFERENCE_{name}": str(value) for name, value in told.items()}
        self.environment |= nucleus.environment("inference") if nucleus else {}
        self.log = directory / "inference.log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "linewatch_inference"],
                env=self.environment,
                stdout=output,
                stderr=output,
            )

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def events(self) -> list[str]:
        whole = self.log.read_text().rpartition("\n")[0]  # the last line may be half written
        return [json.loads(line)["event"] for line in whole.splitlines() if line.startswith("{")]

    def wait_for(self, event: str) -> None:
        wait_until(lambda: event in self.events() or self.process.poll() is not None, TIMEOUT_S)
        assert event in self.events(), self.log.read_text()

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=30) as answer:
            return answer.read().decode()

    def healthcheck(self) -> int:
        return subprocess.run(
            [sys.executable, "-m", "linewatch_inference.healthcheck"],
            env=self.environment,
            check=False,
            capture_output=True,
        ).returncode

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(TIMEOUT_S)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def run(root: Path, **settings: object) -> Process:
        started.append(Process(root, tmp_path, **settings))
        return started[-1]

    yield run
    for one in started:
        one.process.kill()
        one.process.wait()


def health(channel: grpc.Channel) -> int:
    return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30).status


def call_in_hand(
    process: Process, inspector: inspector_pb2_grpc.InspectorStub, request: messages.InspectRequest
) -> grpc.Future:
    """A call that a worker was just seen at. Of a machine on which it is over too soon to be seen, the next one is."""
    calls: list[grpc.Future] = []

    def is_seen() -> bool:
        if not calls or calls[-1].done():
            calls.append(inspector.Inspect.future(request, timeout=TIMEOUT_S))
        return "linewatch_inference_busy_workers 1.0" in process.metrics()

    wait_until(is_seen, TIMEOUT_S)
    return calls[-1]


def test_sigterm_lets_the_call_in_hand_end_then_exits_0(
    start: Callable[..., Process], own_copy: Path
) -> None:
    make_package(own_copy, described("segmentation", "1.1.0"), spots_graph(slow=500), own_copy / "key.pem")
    process = start(own_copy, models="spots", drain_s=TIMEOUT_S)
    process.wait_for("model_loaded")
    with grpc.insecure_channel(process.address) as channel:
        inspector = inspector_pb2_grpc.InspectorStub(channel)
        wait_until(lambda: health(channel) == health_pb2.HealthCheckResponse.SERVING)
        request = messages.InspectRequest(
            id="last", model_name="spots", encoded_image={"data": encoded(picture(10))}
        )
        in_hand = call_in_hand(process, inspector, request)

        process.process.send_signal(signal.SIGTERM)

        assert in_hand.result().id == "last"
        assert process.process.wait(TIMEOUT_S) == 0
    assert process.events()[-1] == "stopped"


def test_idle_stream_does_not_hold_up_a_stop(start: Callable[..., Process], released: Path) -> None:
    process = start(released, drain_s=4 * TIMEOUT_S)
    process.wait_for("model_loaded")
    over = threading.Event()

    def one_then_nothing() -> Iterator[messages.InspectRequest]:
        yield messages.InspectRequest(model_name="spots", encoded_image={"data": encoded(picture())})
        over.wait(4 * TIMEOUT_S)

    with grpc.insecure_channel(process.address) as channel:
        wait_until(lambda: health(channel) == health_pb2.HealthCheckResponse.SERVING)
        opened = inspector_pb2_grpc.InspectorStub(channel).InspectStream(one_then_nothing(), timeout=300)
        try:
            assert next(opened).WhichOneof("answer") == "response"
            assert process.stop() == 0
        finally:
            over.set()


def test_without_a_model_it_stays_up_not_serving_and_says_why(
    start: Callable[..., Process], own_copy: Path
) -> None:
    (own_copy / "models/spots/1.0.0/model.onnx").write_bytes(b"spoilt")

    process = start(own_copy, models="spots")
    process.wait_for("model_refused")

    with grpc.insecure_channel(process.address) as channel:
        assert health(channel) == health_pb2.HealthCheckResponse.NOT_SERVING
        request = messages.InspectRequest(model_name="spots", encoded_image={"data": encoded(picture())})
        with pytest.raises(grpc.RpcError) as caught:
            inspector_pb2_grpc.InspectorStub(channel).Inspect(request, timeout=TIMEOUT_S, wait_for_ready=True)
        assert caught.value.code() in {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE}
    assert process.healthcheck() == 1
    assert process.stop() == 0


def test_healthcheck_says_0_while_serving(start: Callable[..., Process], released: Path) -> None:
    process = start(released, models="wear:1.0.0")
    process.wait_for("model_loaded")

    wait_until(lambda: process.healthcheck() == 0)

    assert 'linewatch_inference_model_info{digest="sha256:' in process.metrics()


def test_taken_port_ends_the_start_with_2(start: Callable[..., Process], released: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()

        process = start(released, port=taken.getsockname()[1])

        assert process.process.wait(TIMEOUT_S) == 2
    assert "INFERENCE_PORT: can't listen" in process.log.read_text()


def test_second_inference_on_the_same_state_is_refused(
    start: Callable[..., Process], released: Path, tmp_path: Path
) -> None:
    first = start(released, mqtt_host="127.0.0.1", mqtt_port=free_port())
    first.wait_for("model_loaded")
    (tmp_path / "second").mkdir()

    second = Process(released, tmp_path / "second", mqtt_host="127.0.0.1", mqtt_port=free_port(),
                     state_dir=first.environment["INFERENCE_STATE_DIR"])  # fmt: skip

    assert second.process.wait(TIMEOUT_S) == 2
    assert "INFERENCE_STATE_DIR: another inference holds" in second.log.read_text()
    assert first.process.poll() is None


def test_on_an_empty_device_it_waits_and_serves_by_itself_once_key_and_model_are_there(
    start: Callable[..., Process], released: Path, tmp_path: Path
) -> None:
    device = tmp_path / "device"
    models = device / "models"
    with NucleusIpc(tmp_path / "ipc.socket", tokens={"inference"}) as nucleus:
        process = start(device, trusted_keys_dir=models / "trusted-keys", nucleus=nucleus)
        process.wait_for("no_models")
        process.wait_for("nucleus_connected")
        assert process.healthcheck() == 1
        assert nucleus.states == []

        shutil.copytree(released / "trusted-key", models / "trusted-keys")
        shutil.copytree(released / "models/spots", models / "spots")
        (models / "spots/active").write_text("1.0.0\n")

        nucleus.wait_for_state("inference", timeout_s=TIMEOUT_S)
        wait_until(lambda: process.healthcheck() == 0)
        outcome = Path(process.environment["INFERENCE_STATE_DIR"]) / "serving/spots"
        wait_until(outcome.exists)
        assert outcome.read_text().startswith("1.0.0 serving sha256:")
        assert process.stop() == 0


def test_killed_at_a_swap_it_comes_back_with_the_version_that_the_active_file_names(
    start: Callable[..., Process], own_copy: Path
) -> None:
    make_package(own_copy, described("segmentation", "1.1.0"), spots_graph(), own_copy / "key.pem")
    active = own_copy / "models/spots/active"
    active.write_text("1.0.0\n")
    for version in ("1.1.0", "1.0.0", "1.1.0"):
        process = start(own_copy, models="spots")
        outcome = Path(process.environment["INFERENCE_STATE_DIR"]) / "serving/spots"
        process.wait_for("model_loaded")
        outcome.unlink(missing_ok=True)
        new = active.with_name(".active.new")
        new.write_text(f"{version}\n")
        new.replace(active)
        wait_until(lambda process=process: process.events().count("model_loaded") == 2, TIMEOUT_S)
        process.process.kill()
        process.process.wait()

    process = start(own_copy, models="spots")
    process.wait_for("model_loaded")
    wait_until(lambda: outcome.exists() and outcome.read_text().startswith("1.1.0 serving sha256:"))
    with grpc.insecure_channel(process.address) as channel:
        wait_until(lambda: health(channel) == health_pb2.HealthCheckResponse.SERVING)
    assert process.stop() == 0


def test_an_update_waits_for_the_call_in_hand(
    start: Callable[..., Process], own_copy: Path, tmp_path: Path
) -> None:
    make_package(own_copy, described("segmentation", "1.1.0"), spots_graph(slow=500), own_copy / "key.pem")
    with NucleusIpc(tmp_path / "ipc.socket", tokens={"inference"}) as nucleus:
        process = start(own_copy, models="spots", nucleus=nucleus)
        nucleus.wait_for_state("inference", timeout_s=TIMEOUT_S)
        assert nucleus.ask_to_update("deployment-1") == {"inference": 0}
        with grpc.insecure_channel(process.address) as channel:
            request = messages.InspectRequest(
                id="a", model_name="spots", encoded_image={"data": encoded(picture())}
            )
            inspector = inspector_pb2_grpc.InspectorStub(channel)

            def answered_during_a_call() -> bool:
                call = call_in_hand(process, inspector, request)
                told = nucleus.ask_to_update("deployment-2", timeout_s=TIMEOUT_S)
                if was_in_hand := not call.done():
                    answers.append(told)
                assert call.result().id == "a"
                return was_in_hand

            answers: list[dict[str, int]] = []
            wait_until(answered_during_a_call, TIMEOUT_S)
            assert answers == [{"inference": 1000}]
        assert nucleus.update("deployment-2") < 20
        assert process.stop() == 0


def test_mutual_tls_lets_only_known_callers_in(
    start: Callable[..., Process], released: Path, tmp_path: Path
) -> None:
    certificate, key = make_certificate(tmp_path)
    process = start(
        released, tls_certificate_file=certificate, tls_key_file=key, tls_client_ca_file=certificate
    )
    process.wait_for("model_loaded")

    known = grpc.ssl_channel_credentials(certificate.read_bytes(), key.read_bytes(), certificate.read_bytes())
    unknown = grpc.ssl_channel_credentials(certificate.read_bytes())

    with grpc.secure_channel(f"localhost:{process.port}", known) as channel:
        wait_until(lambda: health(channel) == health_pb2.HealthCheckResponse.SERVING)
    with grpc.secure_channel(f"localhost:{process.port}", unknown) as channel, pytest.raises(grpc.RpcError):
        health(channel)
    wait_until(lambda: process.healthcheck() == 0)


def test_renewed_certificate_is_used_though_somebody_connected_while_it_was_written(
    serve: Callable[..., Running], released: Path, tmp_path: Path
) -> None:
    """The half-written file and the whole one may be of one tick of the disk's clock."""
    certificate, key = make_certificate(tmp_path)
    running = serve(released, tls_certificate_file=certificate, tls_key_file=key)
    (tmp_path / "renewed").mkdir()
    new_certificate, new_key = make_certificate(tmp_path / "renewed")

    def shown() -> str:
        try:
            return ssl.get_server_certificate(("127.0.0.1", running.server.port), timeout=TIMEOUT_S)
        except OSError:
            return ""

    before = certificate.read_text()
    assert shown() == before
    key.write_bytes(new_key.read_bytes())
    certificate.write_bytes(b"")
    tick = certificate.stat().st_mtime_ns
    assert shown() == before, "the one before, as long as the new one can't be used"
    certificate.write_bytes(new_certificate.read_bytes())
    os.utime(certificate, ns=(tick, tick))

    wait_until(lambda: shown() == new_certificate.read_text(), TIMEOUT_S)


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate for localhost that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = directory / "server.pem", directory / "server-key.pem"
    certificate_file.write_bytes(made.public_bytes(Encoding.PEM))
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificate_file, key_file


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[int]:
    """The device's embedded broker; gives its port."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "linewatch_plant.broker", "--port", f"{port}", "--state-dir", f"{tmp_path / 'broker'}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_until(listens, TIMEOUT_S)
    yield port
    process.kill()
    process.wait()


def test_engine_events_reach_the_broker_until_they_are_committed(
    start: Callable[..., Process], own_copy: Path, broker: int
) -> None:
    (own_copy / "models/wear/1.0.0/card.md").write_text("changed")
    shutil.copytree(own_copy / "models/spots/1.0.0", own_copy / "models/spots/0.9.0")
    heard: dict[str, dict[str, object]] = {}
    statuses: list[dict[str, object]] = []
    listener = SessionClient(paho.CallbackAPIVersion.VERSION2, "forwarder", protocol=paho.MQTTv5)

    def received(client: paho.Client, _: object, message: paho.MQTTMessage) -> None:
        told = json.loads(message.payload)
        if message.topic.endswith("/status"):
            statuses.append(told)
            return
        heard[told["id"]] = told
        committed = json.dumps({"event_ids": [told["id"]]})
        client.publish("linewatch/v1/plant-1/device/inference/committed", committed, qos=1)

    listener.on_message = received
    subscribed = threading.Event()
    listener.on_subscribe = lambda *_: subscribed.set()
    listener.connect("127.0.0.1", broker)
    listener.subscribe(
        [("linewatch/v1/+/device/inference/engine", 1), ("linewatch/v1/+/device/inference/status", 1)]
    )
    listener.loop_start()
    try:
        assert subscribed.wait(TIMEOUT_S)
        process = start(own_copy, models="spots,wear", mqtt_host="127.0.0.1", mqtt_port=broker)

        def kinds() -> list[str]:
            return [
                str(one["type"])
                for one in sorted(heard.values(), key=lambda one: one["data"]["origin"]["sequence"])
            ]

        wait_until(lambda: kinds() == ["EngineStarted", "ModelLoadSuccess", "ModelLoadError"], TIMEOUT_S)
        wait_until(lambda: any(one["state"] == "serving" for one in statuses), TIMEOUT_S)
        assert process.stop() == 0
        wait_until(lambda: kinds()[-1] == "EngineShutdown", TIMEOUT_S)
        wait_until(lambda: statuses[-1]["state"] == "stopped", TIMEOUT_S)
    finally:
        listener.close()

    told = {one["type"]: one for one in heard.values()}
    assert told["ModelLoadSuccess"]["source"] == "/linewatch/v1/plant-1/device/inference"
    assert told["ModelLoadSuccess"]["data"]["model"]["digest"].startswith("sha256:")
    assert told["ModelLoadSuccess"]["data"]["model"]["training_data_digest"] == "sha256:" + "4c" * 32
    assert "card.md" in told["ModelLoadError"]["data"]["message"]
    serving = next(one for one in statuses if one["state"] == "serving")
    assert {one["name"]: one["state"] for one in serving["models"]} == {
        "spots": "READY",
        "wear": "UNAVAILABLE",
    }
    assert {"name": "spots", "version": "0.9.0"} in serving["on_disk"], "the version before"
    assert not [one for one in serving["on_disk"] if (one["name"], one["version"]) == ("spots", "1.0.0")]
    assert serving["on_disk_more"] == 0


def statuses_heard(port: int, name: str) -> tuple[SessionClient, list[str]]:
    """A client of the broker and the states of inference that it hears, the retained one first."""
    states: list[str] = []
    listener = SessionClient(paho.CallbackAPIVersion.VERSION2, name, protocol=paho.MQTTv5)
    listener.on_message = lambda _c, _u, message: states.append(json.loads(message.payload)["state"])
    listener.connect("127.0.0.1", port)
    listener.subscribe("linewatch/v1/+/device/inference/status", 1)
    listener.loop_start()
    return listener, states


def test_the_last_status_is_that_it_stopped_also_where_nobody_takes_its_last_events(
    start: Callable[..., Process], own_copy: Path, broker: int
) -> None:
    listener, states = statuses_heard(broker, "console")
    try:
        process = start(own_copy, models="spots", mqtt_host="127.0.0.1", mqtt_port=broker)
        wait_until(lambda: "serving" in states, TIMEOUT_S)
        # It waits for a forwarder that is not there (LAST_WORDS_S), for longer than from one look at the status to the next.
        assert process.stop() == 0
        wait_until(lambda: "stopped" in states, TIMEOUT_S)
    finally:
        listener.close()
    listener, left = statuses_heard(broker, "who comes later")
    try:
        wait_until(lambda: bool(left), TIMEOUT_S)
    finally:
        listener.close()
    assert (states[-1], left[0]) == ("stopped", "stopped")
