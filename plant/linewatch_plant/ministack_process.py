# SPDX-License-Identifier: Apache-2.0
"""ministack as a child process: an environment of its own, free ports of loopback, a group that ends as one."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import requests

from linewatch_plant.processes import PlantError, free_port, port_is_free

REGION = "eu-central-1"
START_S = 120.0
STOP_S = 60.0


def launched(place: Path, enforce_policies: bool) -> tuple[subprocess.Popen[bytes], int, int]:
    """A ministack that answers, with its ports; tries again when somebody else took a port in between."""
    for is_last in (False, False, True):
        http_port, mqtt_port = free_port(), free_port()
        process = _launch(place, http_port, mqtt_port, enforce_policies)
        try:
            _wait_until_up(http_port, mqtt_port, process, place)
        except PlantError:
            end(process)
            if is_last:
                raise
        else:
            break
    return process, http_port, mqtt_port


def _launch(place: Path, http_port: int, mqtt_port: int, enforce_policies: bool) -> subprocess.Popen[bytes]:
    scratch = place / "scratch"
    scratch.mkdir(exist_ok=True)
    # Lambda workers inherit this environment: nothing of ours may be in it.
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "GATEWAY_PORT": str(http_port),
        "BIND_HOST": "127.0.0.1",
        "MINISTACK_HOST": "localhost",
        "MINISTACK_REGION": REGION,
        "IOT_MTLS_PORT": str(mqtt_port),
        "LAMBDA_EXECUTOR": "local",
        "LAMBDA_WARM_TTL_SECONDS": "86400",
        "SFTP_ENABLED": "0",
        "DOCKER_HOST": f"unix://{scratch}/no-docker.sock",
        "AUTH": "true" if enforce_policies else "false",
        "PERSIST_STATE": "0",
        "STATE_DIR": str(scratch / "state"),
        "S3_DATA_DIR": str(scratch / "s3"),
        "LOG_LEVEL": "INFO",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "PYTHONUNBUFFERED": "1",
    }
    with (place / "ministack.log").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "linewatch_plant.ministack_launcher"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            cwd=scratch,
            start_new_session=True,
        )


def _wait_until_up(http_port: int, mqtt_port: int, process: subprocess.Popen[bytes], place: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            words = (place / "ministack.log").read_text(errors="replace").splitlines()[-5:]
            raise PlantError("the stand-in cloud ended at its start:\n" + "\n".join(words))
        with contextlib.suppress(requests.RequestException):
            if requests.get(f"http://127.0.0.1:{http_port}/_ministack/health", timeout=2).ok:
                # A port that is taken costs it the MQTT listener and no more than a warning.
                if port_is_free(mqtt_port):
                    raise PlantError(f"the stand-in cloud does not listen for MQTT on port {mqtt_port}")
                return
        time.sleep(0.05)
    raise PlantError(
        f"the stand-in cloud did not answer within {START_S:.0f} s; see {place / 'ministack.log'}"
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends the process group, workers included. Nothing is kept, so there is nothing to wait for politely."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    if process.stdin:
        process.stdin.close()


def delete(place: Path, *, everything: bool) -> None:
    """Deletes the whole directory, or only what ministack and its workers wrote."""
    shutil.rmtree(place if everything else place / "scratch", ignore_errors=True)
