# SPDX-License-Identifier: Apache-2.0
"""What the Docker engine says, for asserting; and clean-up of what a test's components made."""

import json
import subprocess
import time
from typing import Any


def docker(*arguments: str, check: bool = True, timeout_s: float = 240) -> str:
    """What the command printed; fails the test with what it complained of."""
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert not check or done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
    return done.stdout.strip()


def containers(prefix: str, *, running_only: bool = False) -> dict[str, str]:
    """Name -> id of the containers whose names begin so, ended ones too."""
    shown = docker("ps", *([] if running_only else ["-a"]), "--no-trunc", "--filter", f"name=^{prefix}", "--format", "{{.Names}} {{.ID}}")  # fmt: skip
    return dict(line.split() for line in shown.splitlines())  # type: ignore[misc]


def inspected(container: str) -> dict[str, Any]:
    """Everything that the engine knows of a container."""
    described: dict[str, Any] = json.loads(docker("inspect", container))[0]
    return described


def health(container: str) -> str:
    """healthy, unhealthy, starting; empty for a container that is gone or has no check."""
    return docker(
        "inspect", "-f", "{{if .State.Health}}{{.State.Health.Status}}{{end}}", container, check=False
    )


def remove(prefix: str, network: str) -> None:
    """Every container whose name begins so, and the network, also when the last client is just ending."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        for container in containers(prefix).values():
            docker("rm", "-f", "-v", container, check=False)
        docker("network", "rm", network, check=False)
        if not docker("network", "ls", "-q", "--filter", f"name=^{network}$"):
            return
        time.sleep(0.5)
