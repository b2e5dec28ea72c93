# SPDX-License-Identifier: Apache-2.0
"""The doctor names what is wrong with a device and the remedy, runs with Python alone, and gives no secret away."""

import ast
import datetime
import http.server
import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from brokers import wait_for
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from linewatch_fleet.bundle.assemble import doctor_program
from linewatch_fleet.doctor import __main__ as doctor
from linewatch_fleet.doctor import host, letters, plant, support_bundle
from linewatch_fleet.doctor.finding import FAIL, NOT_CHECKED, OK, WARN, Device, Finding, look, worst
from linewatch_inference.outcomes import Outcomes

FLEET = Path(__file__).resolve().parents[1]
IMAGE = "python:3.13-slim-trixie"


def make_pair(place: Path, days: int) -> None:
    """A certificate that ends in `days`, its key, and itself as the CA."""
    place.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "device-1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - datetime.timedelta(days=400)).not_valid_after(now + datetime.timedelta(days=days))
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = made.public_bytes(serialization.Encoding.PEM)
    (place / "certificate.pem").write_bytes(pem)
    (place / "ca.pem").write_bytes(pem)
    (place / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    (place / "key.pem").chmod(0o600)


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    monkeypatch.setattr(plant, "OWNER", os.getuid())
    return Device(directory=tmp_path / "linewatch", root=tmp_path / "root")


@pytest.mark.parametrize(("days", "state"), [(365, OK), (10, WARN), (-1, FAIL)])
def test_the_uplink_certificates_date_is_read(device: Device, days: int, state: str) -> None:
    make_pair(device.directory / "uplink", days)

    (found,) = plant.certificates(device)

    assert found.state == state
    assert found.detail.startswith("valid until 20")


def test_a_key_of_another_certificate_is_found(device: Device) -> None:
    make_pair(device.directory / "uplink", 365)
    make_pair(device.directory / "other", 365)
    (device.directory / "other/key.pem").replace(device.directory / "uplink/key.pem")

    (found,) = plant.certificates(device)

    assert found.state == FAIL
    assert "provision" in found.remedy


def test_a_key_that_the_container_can_not_read_is_found(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_pair(device.directory / "uplink", 365)
    monkeypatch.setattr(plant, "OWNER", os.getuid() + 1)

    found = list(plant.certificates(device))

    assert found[0].state == FAIL
    assert "chown" in found[0].remedy


def test_a_missing_uplink_file_is_named(device: Device) -> None:
    make_pair(device.directory / "uplink", 365)
    (device.directory / "uplink/ca.pem").unlink()

    (found,) = plant.certificates(device)

    assert (found.state, "ca.pem" in found.detail) == (FAIL, True)


def test_what_inference_refused_is_told_with_its_reason(device: Device) -> None:
    told = Outcomes(device.directory / "state/inference/serving")
    told.tell("cells", "1.1.0 refused golden outputs differ", "1.0.0")
    told.tell("turbofan", "1.0.0 serving sha256:ab", "1.0.0")
    told.write()

    found = {finding.check: finding for finding in plant.models(device)}

    assert set(found) == {"model cells", "model turbofan"}
    assert found["model cells"].state == FAIL
    assert "golden outputs differ" in found["model cells"].detail
    assert found["model turbofan"].state == OK


def test_nothing_but_a_plain_file_is_read_where_a_container_writes(device: Device, tmp_path: Path) -> None:
    serving = device.directory / "state/inference/serving"
    serving.mkdir(parents=True)
    (tmp_path / "root-only").write_text("hunter2-hunter2 serving")
    (serving / "link").symlink_to(tmp_path / "root-only")
    os.mkfifo(serving / "pipe")

    found = list(plant.models(device))

    assert {finding.state for finding in found} == {NOT_CHECKED}
    assert "hunter2" not in str(found)


def test_a_service_that_was_here_and_has_no_container_is_broken(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in ("broker", "capture"):
        (device.directory / "state" / part).mkdir(parents=True)
    runs = {
        "Name": "/linewatch-broker", "State": {"Status": "running", "StartedAt": "2026-11-21T07:00:00Z"},
        "Mounts": [{"Source": str(device.directory / "state/broker")}],
    }  # fmt: skip
    monkeypatch.setattr(plant, "inspected", lambda: [runs])

    found = {finding.check: finding for finding in plant.containers(device)}

    assert found["component capture"].state == FAIL
    assert "component broker" not in found
    assert "since 2026-11-21 07:00:00" in found["linewatch-broker"].detail


@pytest.mark.parametrize(
    ("said", "state", "told"),
    [
        ('{"count": 0, "dead_letters": []}', OK, "none"),
        ('{"count": 7, "dead_letters": [{"reason": "0x99"}]}', WARN, "7 in lw-forwarder, the newest: 0x99"),
        ("No module named linewatch_forwarder.dead_letters", NOT_CHECKED, "lw-forwarder: No module"),
    ],
)
def test_events_that_lie_aside_are_found_and_an_older_forwarder_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, state: str, told: str
) -> None:
    title = {"org.opencontainers.image.title": "linewatch-forwarder"}
    container = [{"Name": "/lw-forwarder", "State": {"Status": "running"}, "Config": {"Labels": title}}]
    (tmp_path / "inspect").write_text(json.dumps(container))
    (tmp_path / "exec").write_text(said)
    (tmp_path / "ps").write_text("lw-forwarder linewatch-forwarder")
    program = tmp_path / "docker"
    program.write_text(f'#!/bin/sh\ncat "{tmp_path}/$1"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    (found,) = letters.dead_letters(Device())

    assert found.state == state
    assert found.detail.startswith(told)
    assert bool(found.remedy) == (state == WARN)


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, str], Finding]:
    """What the doctor finds where `docker network ls`, `docker network inspect` and `ip route` say this."""

    def found(listed: str, subnet: str, routes: str) -> Finding:
        for name, text in {
            "docker": f'#!/bin/sh\n[ "$2" = ls ] && echo "{listed}" || echo "{subnet}"\n',
            "ip": f'#!/bin/sh\necho "{routes}"\n',
        }.items():
            (tmp_path / name).write_text(text)
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        (one,) = host.network(Device())
        return one

    return found


def test_two_networks_of_one_name_are_broken(networks: Callable[[str, str, str], Finding]) -> None:
    found = networks("bbb aaa", "", "")

    assert found.state == FAIL
    assert found.remedy == "docker network rm bbb"


def test_a_network_on_the_plants_own_addresses_is_told(networks: Callable[[str, str, str], Finding]) -> None:
    assert networks("aaa", "172.18.0.0/16", "172.18.4.0/24 dev eth1 scope link").state == WARN
    assert networks("aaa", "172.18.0.0/16", "172.18.0.0/16 dev br-aaa scope link").state == OK
    assert networks("aaa", "172.18.0.0/16", "10.0.0.0/8 dev eth1 scope link").state == OK


class _Registry(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(401 if self.path == "/v2/" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def registry() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Registry)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join(60)


def test_a_registry_that_asks_for_credentials_is_reached(registry: str) -> None:
    (found,) = plant.registry(Device(registry=registry))

    assert found.state == OK


def test_a_registry_that_is_away_is_a_warning_since_what_runs_goes_on() -> None:
    (found,) = plant.registry(Device(registry="127.0.0.1:1"))

    assert found.state == WARN


def test_a_jetson_without_its_container_runtime_is_broken(device: Device) -> None:
    (device.root / "etc").mkdir(parents=True)
    (device.root / "etc/nv_tegra_release").touch()

    found = list(plant.provider(device))

    assert found[0].state == FAIL
    assert "nvidia-ctk" in found[0].remedy


def test_without_docker_the_remedy_is_to_install_it(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")

    (found,) = host.docker(device)

    assert (found.state, "install" in found.remedy) == (FAIL, True)


def test_a_socket_that_refuses_is_told_apart_from_a_daemon_that_is_down(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "docker"
    program.write_text(
        '#!/bin/sh\necho "permission denied while trying to connect to the socket" >&2\nexit 1\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    (found,) = host.docker(device)

    assert found.state == FAIL
    assert "permission denied" in found.detail


def test_a_full_disk_is_broken(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "LEAST_FREE_BYTES", 1 << 60)

    assert {finding.state for finding in host.disk(device)} == {FAIL}


def test_a_check_that_breaks_is_a_finding_and_the_others_go_on(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(_: Device) -> Iterator[object]:
        raise RuntimeError("no such thing")
        yield

    monkeypatch.setattr(doctor, "CHECKS", (breaks, host.memory))

    found = doctor.examine(device)

    assert found[0].state == NOT_CHECKED
    assert len(found) == 2


def test_a_program_that_hangs_is_given_up() -> None:
    assert look("sleep", "60", timeout_s=0.2).code == 124


SECRETS = {
    "in an environment": "CONSOLE_PASSWORD=hunter2-hunter2",
    "in JSON": '{"SecretString": "hunter2-hunter2", "a": 1}',
    "in a list": '["SVCUID=hunter2-hunter2", "X=1"]',
    "of the nucleus": "AWS_CONTAINER_AUTHORIZATION_TOKEN=hunter2-hunter2",
    "in a header": "Authorization: Bearer hunter2-hunter2",
    "in an address": "mqtt://user:hunter2-hunter2@broker:1883",
    "a key": "-----BEGIN EC PRIVATE KEY-----\nhunter2-hunter2\n-----END EC PRIVATE KEY-----",
    "a key that is cut off": "-----BEGIN PRIVATE KEY-----\nhunter2-hunter2",
}


@pytest.mark.parametrize("text", SECRETS.values(), ids=SECRETS)
def test_a_secret_is_left_out(text: str) -> None:
    assert "hunter2" not in support_bundle.redacted(f"before\n{text}\nafter")


def test_what_is_no_secret_stays() -> None:
    text = "INFERENCE_PORT=8001 CAPTURE_MQTT_PASSWORD_FILE=/run/linewatch/mqtt-password CAPTURE_MQTT_HOST=broker sha256:ab 12 parts judged"

    assert support_bundle.redacted(text) == text


def test_the_support_bundle_names_files_and_holds_no_secret(device: Device, tmp_path: Path) -> None:
    make_pair(device.directory / "uplink", 365)
    secrets = device.directory / "secrets/console"
    secrets.mkdir(parents=True)
    (secrets / "page-password").write_text("hunter2-hunter2")
    logs = device.root / "greengrass/v2/logs"
    logs.mkdir(parents=True)
    (logs / "greengrass.log").write_text("starting\nAWS_CONTAINER_AUTHORIZATION_TOKEN=hunter2-hunter2\n")
    path = tmp_path / "support.tar.gz"

    assert doctor.report(device, doctor.examine(device), path, as_json=True) in {0, 4}

    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(path) as archive:
        texts = {
            member.name.removeprefix("linewatch-support/"): archive.extractfile(member).read().decode()  # type: ignore[union-attr]
            for member in archive.getmembers()
        }
    assert "page-password" in texts["files.txt"]
    assert "starting" in texts["nucleus/greengrass.log"]
    assert not [name for name, text in texts.items() if "hunter2" in text or "PRIVATE KEY" in text]
    assert json.loads(texts["findings.json"])


def test_the_support_bundle_never_overwrites(
    device: Device, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "there"
    path.write_text("mine")

    assert doctor.report(device, doctor.examine(device), path, as_json=True) == 1
    assert path.read_text() == "mine"
    assert "new file" in capsys.readouterr().err


def test_its_source_is_python_3_9() -> None:
    """What a device of 2021 has; newer syntax would end the doctor before its first finding."""
    for source in (FLEET / "linewatch_fleet/doctor").glob("*.py"):
        text = source.read_text()
        ast.parse(text, feature_version=(3, 9))
        assert "from __future__ import annotations" in text or source.name == "__init__.py", source


def test_it_runs_on_a_device_with_python_alone(tmp_path: Path) -> None:
    (tmp_path / "doctor.pyz").write_bytes(doctor_program())

    # -I and -S: no site-packages, no environment.
    said = subprocess.run(
        [sys.executable, "-I", "-S", str(tmp_path / "doctor.pyz"), "--json", "--directory", str(tmp_path / "none")],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip

    told = json.loads(said.stdout)
    assert told["state"] == worst([doctor.Finding(**one) for one in told["findings"]])
    assert {"disk", "memory"} <= {one["check"] for one in told["findings"]}


def test_the_command_gives_4_when_something_is_broken(tmp_path: Path) -> None:
    (tmp_path / "uplink").mkdir()

    said = subprocess.run(
        [sys.executable, "-m", "linewatch_fleet.cli", "doctor", "--directory", str(tmp_path)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip

    assert said.returncode == 4
    assert "key.pem missing" in said.stdout


@pytest.mark.containers
def test_an_unhealthy_container_is_found_with_what_its_health_check_said() -> None:
    if not subprocess.run(
        ["docker", "image", "inspect", IMAGE], capture_output=True, timeout=180, check=False
    ).stdout.strip(b"[]\n"):
        pytest.skip(f"no Docker engine answers, or it has no {IMAGE}; tools/containers/bases makes it")
    name = f"linewatch-doctor-test-{os.getpid()}"
    command = [
        "docker", "run", "-d", "--rm", "--name", name, "--label", "org.opencontainers.image.title=linewatch-test",
        "--health-cmd", "echo the spool is full; exit 1", "--health-interval", "1s", "--health-retries", "1",
        "-e", "TEST_PASSWORD=hunter2-hunter2", IMAGE, "sleep", "900",
    ]  # fmt: skip
    subprocess.run(command, capture_output=True, timeout=300, check=True)
    try:
        found: list[Finding] = []

        def is_unhealthy() -> bool:
            # A busy engine may not answer in the doctor's time.
            found[:] = [one for one in plant.containers(Device()) if one.check == name and one.state == FAIL]
            return bool(found)

        wait_for(is_unhealthy, "the container is unhealthy", 300)
        assert "the spool is full" in found[0].detail
        assert name in found[0].remedy
    finally:
        subprocess.run(["docker", "rm", "-f", name], capture_output=True, timeout=300, check=False)
