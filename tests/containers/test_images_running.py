# SPDX-License-Identifier: Apache-2.0
"""The images at work on both platforms, each alone: started, asked for its health, stopped; inference judges a part."""

import os
import platform
from typing import Any

import grpc
import pytest
from brokers import wait_for
from built_images import EMULATOR, PLATFORMS, ROOT, WITHOUT_SHELL, Built, Container, container, docker

from linewatch.v1 import inspector_pb2, inspector_pb2_grpc

pytestmark = pytest.mark.containers

HERE = {"x86_64": "linux/amd64", "aarch64": "linux/arm64"}[platform.machine()]
GRACE_S = 12
START_S = 1200
"""Emulated on a busy machine; a tenth of it otherwise."""
EACH = pytest.mark.parametrize("platform", PLATFORMS)

SAMPLES = ROOT / "plant" / "sample" / "pv-el-cells" / "images"
CRACKED = SAMPLES / "1-steady" / "FSEC_5GC47_22.jpg"
MODELS = ("--volume", f"{ROOT / 'models'}:/var/lib/linewatch/models:ro")
STATE = ("--volume", "/var/lib/linewatch/state")
# What each says once it runs, though nothing that it talks to is there.
STANDING_ALONE = {
    "capture": (
        "mqtt_unreachable",
        (
            *STATE, "--volume", f"{SAMPLES}:/source:ro", "--env", "CAPTURE_LINE=line-1", "--env", "CAPTURE_STATION=station-1",
            "--env", "CAPTURE_PATH=/source", "--env", "CAPTURE_MODEL=pv-el-cells", "--volume", "/var/lib/linewatch/evidence",
        ),
    ),
    "console": ("mqtt_unreachable", STATE),
    "forwarder": ("mqtt_unreachable", (*STATE, "--env", "FORWARDER_UPLINK=none")),
    "inference": ("model_loaded", (*STATE, *MODELS)),
}  # fmt: skip


def runnable(built: Built, name: str, platform: str) -> str:
    """The image's reference; skips where it can't be run."""
    built.has(name, platform)
    if platform != HERE and not EMULATOR.exists():
        pytest.skip(f"not run: no emulator for {platform} programs; tools/containers/engine sets it up")
    return built.reference(name, platform)


# The other platform's inference takes a minute to start, and runs this way below.
@pytest.mark.parametrize(
    ("name", "platform"),
    [(name, one) for name in STANDING_ALONE for one in PLATFORMS if name != "inference" or one == HERE],
)
def test_a_service_runs_without_a_shell_and_stops_when_told_though_nothing_answers_it(
    built: Built, configs: Any, name: str, platform: str
) -> None:
    told, options = STANDING_ALONE[name]
    reference = runnable(built, name, platform)
    with container(reference, "--platform", platform, *WITHOUT_SHELL, *options) as running:
        running.until(told, START_S)
        # 1: not healthy yet, and it says so; 126 and 127 would be: there is no such command.
        assert running.health() in {0, 1}
        code, took_s = running.stop(GRACE_S)

    assert code == 0
    assert took_s < GRACE_S


ASK = """
import boto3, sys
from botocore.config import Config
from botocore.exceptions import EndpointConnectionError
session = boto3.Session("id", "secret", region_name="eu-central-1")
quick = Config(retries={"total_max_attempts": 1}, connect_timeout=2)
calls = {
    "events": lambda client: client.put_events(Entries=[{"Source": "s", "DetailType": "d", "Detail": "{}"}]),
    "s3": lambda client: client.put_object(Bucket="b", Key="k", Body=b"x", ChecksumAlgorithm="SHA256"),
}
for service, call in calls.items():
    try:
        call(session.client(service, config=quick))
    except EndpointConnectionError as error:
        print(service, error)
print(*session.get_available_services())
"""


@EACH
def test_the_forwarder_asks_the_two_aws_services_that_its_image_knows_and_no_other_is_in_it(
    built: Built, platform: str
) -> None:
    """botocore is cut down to them when the image is built: the rest of it is larger than all of the image's own layers."""
    reference = runnable(built, "forwarder", platform)

    told = docker(
        "run", "--rm", "--platform", platform, "--network", "none", "--read-only", "--tmpfs", "/tmp", reference,
        "python3", "-c", ASK,
    ).splitlines()  # fmt: skip

    assert "https://events.eu-central-1.amazonaws.com/" in told[0]
    assert "https://s3.eu-central-1.amazonaws.com/b/k" in told[1]
    assert told[2].split() == ["events", "s3"]


@EACH
def test_the_broker_makes_its_secrets_is_healthy_and_stops_when_told(
    built: Built, configs: Any, platform: str
) -> None:
    reference = runnable(built, "broker", platform)
    volume = f"linewatch-test-images-{os.getpid()}"
    try:
        docker(
            "run",
            "--rm",
            "--platform",
            platform,
            "--network",
            "none",
            "--read-only",
            "--tmpfs",
            "/tmp",
            "--volume",
            f"{volume}:/secrets",
            reference,
            "make-secrets",
            "x",
        )
        secrets = f"type=volume,source={volume},target=/run/linewatch,volume-subpath=broker,readonly"
        with container(
            reference,
            "--platform",
            platform,
            "--tmpfs",
            "/mosquitto/log",
            "--volume",
            "/mosquitto/data",
            "--mount",
            secrets,
        ) as broker:
            wait_for(lambda: broker.health() == 0, "the broker lets its own health check in", START_S)
            code, took_s = broker.stop(GRACE_S)
    finally:
        docker("volume", "rm", "--force", volume)

    assert code == 0
    assert took_s < GRACE_S


@pytest.fixture(scope="module")
def answers(built: Built, configs: Any) -> dict[str, inspector_pb2.InspectResponse]:
    """Platform -> what its inference image says of the same part. An image serves only what passes its golden samples."""
    part = CRACKED.read_bytes()
    found = {}
    for one in PLATFORMS:
        runnable(built, "inference", one)
        options = ("--env", "INFERENCE_HOST=0.0.0.0", "--network", "bridge", "--publish", "127.0.0.1::8001")
        trusted = ("--env", "INFERENCE_TRUSTED_KEYS_DIR=/var/lib/linewatch/models/trusted-keys")
        with container(
            built.reference("inference", one),
            "--platform",
            one,
            *STATE,
            *MODELS,
            *WITHOUT_SHELL,
            *options,
            *trusted,
        ) as running:
            for model in ("pv-el-cells", "turbofan"):
                running.until(f'"event": "model_loaded", "model": "{model}"', START_S)
            found[one] = inspected(running, part)
            wait_for(lambda: running.health() == 0, "inference is healthy", START_S)
            code, took_s = running.stop(GRACE_S)
            assert (code, took_s < GRACE_S) == (0, True)
    return found


def inspected(running: Container, part: bytes) -> inspector_pb2.InspectResponse:
    (binding,) = running.inspect()["NetworkSettings"]["Ports"]["8001/tcp"]
    with grpc.insecure_channel(f"127.0.0.1:{binding['HostPort']}") as channel:
        request = inspector_pb2.InspectRequest(
            id="1",
            model_name="pv-el-cells",
            encoded_image=inspector_pb2.EncodedImage(data=part),
            with_heatmap=True,
        )
        answer: inspector_pb2.InspectResponse = inspector_pb2_grpc.InspectorStub(channel).Inspect(
            request, timeout=600, wait_for_ready=True
        )
    return answer


def test_the_arm64_image_judges_as_the_amd64_image_does(answers: Any) -> None:
    amd64, arm64 = (answers[one] for one in PLATFORMS)

    assert amd64.verdict.regions
    assert arm64.verdict.result == amd64.verdict.result
    assert arm64.verdict.score == pytest.approx(amd64.verdict.score, abs=1e-4)
    assert [region.label for region in arm64.verdict.regions] == [
        region.label for region in amd64.verdict.regions
    ]
    heat = list(zip(arm64.heatmap.values, amd64.heatmap.values, strict=True))
    assert heat
    assert max(abs(one - other) for one, other in heat) <= 1
