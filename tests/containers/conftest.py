# SPDX-License-Identifier: Apache-2.0
"""One stack of docker-compose.yml for all tests, under a name, ports and volumes of its own, removed at the end.

Where no engine answers or no image can be had, the tests are skipped as "not run", with the reason.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from built_images import PLATFORMS, Built, build, docker, is_registry_there
from compose_stack import ROOT, ComposeFailed, Stack, not_run, why_no_engine

from linewatch_plant.processes import free_port

RATE = 6
BUILD_S = 3000
LOGS = ROOT / "build" / "containers"


@pytest.fixture(scope="session")
def engine() -> None:
    """Skips, with the reason, where containers can't be had."""
    if reason := why_no_engine():
        not_run(reason)


@pytest.fixture(scope="session")
def images(engine: None) -> Iterator[dict[str, str]]:
    """The images of docker-compose.yml, built under tags that nobody else on this machine moves: variable -> tag."""
    names = ("broker", "inference", "capture", "forwarder", "console", "plant")
    tags = {f"LINEWATCH_{name.upper()}_IMAGE": f"linewatch-test/{name}:{os.getpid()}" for name in names}
    Stack("linewatch-build", 0, tags).run("build", "--quiet", timeout_s=BUILD_S)
    yield tags
    subprocess.run(["docker", "rmi", "--force", *tags.values()], capture_output=True, check=False)


@pytest.fixture(scope="session")
def stack(images: dict[str, str]) -> Iterator[Stack]:
    """Healthy; both lines play without end. Logs stay in build/containers/."""
    ports = {name: str(free_port()) for name in ("CONSOLE_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT")}
    settings = (
        images
        | {f"LINEWATCH_{name}": port for name, port in ports.items()}
        | {
            "LINEWATCH_RATE": str(RATE),
            "LINEWATCH_PARTS": "0",
            "LINEWATCH_OBSERVABILITY_DIR": str(quick_rules(LOGS / "observability")),
        }
    )
    stack = Stack(f"linewatch-test-{os.getpid()}", int(ports["CONSOLE_PORT"]), settings)
    try:
        stack.up()
        yield stack
    finally:
        try:
            log = stack.run("--profile", "*", "logs", "--no-color", "--timestamps")
        except (ComposeFailed, subprocess.TimeoutExpired) as error:
            log = str(error)
        stack.run("--profile", "*", "down", "--volumes", "--remove-orphans", timeout_s=600)
        (LOGS / "stack.log").write_text(log)
        own = [value for name, value in stack.settings.items() if name.endswith("_IMAGE")]
        subprocess.run(["docker", "rmi", "--force", *own], capture_output=True, check=False)


@pytest.fixture(scope="session")
def prometheus(stack: Stack) -> str:
    """Prometheus of the stack, healthy; its address."""
    had = subprocess.run(
        [str(ROOT / "tools/containers/bases"), "prometheus"], capture_output=True, text=True, check=False
    )
    if had.returncode != 0:
        not_run(f"no image of Prometheus can be had ({had.stderr.strip()})")
    stack.up("prometheus")
    return f"http://127.0.0.1:{stack.settings['LINEWATCH_PROMETHEUS_PORT']}"


@pytest.fixture
def first_process(stack: Stack) -> Callable[[str], dict[str, str]]:
    """/proc/1/status of a service's container."""
    return lambda service: dict(
        re.findall(
            r"^(\w+):\s*(.*)$", stack.run("exec", "-T", service, "cat", "/proc/1/status"), re.MULTILINE
        )
    )


def quick_rules(folder: Path) -> Path:
    """observability/ with 5 seconds for each minute of the alert rules, so that a test sees one fire.

    The rules with their own minutes are tested in time that promtool makes up: observability/alerts.test.yml.
    """
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "observability", folder)
    rules = folder / "prometheus" / "alerts.yml"
    quick = re.sub(
        r"((?:\[|for: ))(\d+)m\b", lambda found: f"{found[1]}{5 * int(found[2])}s", rules.read_text()
    )
    rules.write_text(quick)
    for path in (folder, *folder.rglob("*")):  # read by other users, whatever the umask
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


@pytest.fixture(scope="session")
def built(engine: None) -> Built:
    """For both platforms where the engine keeps both; build/images.json is then this build's."""
    store = docker("info", "--format", "{{.DriverStatus}}")
    both = "containerd.snapshotter" in store and is_registry_there()
    return build(PLATFORMS=",".join(PLATFORMS) if both else "")


@pytest.fixture(scope="session")
def configs(built: Built) -> dict[tuple[str, str], dict[str, Any]]:
    """(image, platform) -> the image's configuration, pulled into the engine."""
    found = {}
    for name, image in built.told["images"].items():
        for one in image["platforms"]:
            reference = built.reference(name, one)
            if built.told["registry"]:
                docker("pull", "--quiet", "--platform", one, reference)
            found[name, one] = json.loads(docker("image", "inspect", reference))[0]
    return found
