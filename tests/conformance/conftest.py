# SPDX-License-Identifier: Apache-2.0
"""Devices of each flavour, in folders with short paths (unix sockets take 107 bytes), and a line of containers on each.

The line runs what `make images` and `make recipes` left in build/ (or in the folder that LINEWATCH_BUILD names).
Where there is no engine or nothing was built, its tests are skipped as "not run", with the reason.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conformance.classic import Classic
from conformance.device import Device
from conformance.line import Line
from conformance.lite import Lite
from conformance.uplink import IMAGE as UPLINK_IMAGE

ROOT = Path(__file__).resolve().parents[2]
FLAVOURS: dict[str, type[Device]] = {"classic": Classic, "lite": Lite}
PARTS = 8000
"""More than the slowest machine takes while the tests run: over half an hour of them. The last test ends the shift."""


@contextmanager
def folder(prefix: str) -> Iterator[Path]:
    """A folder that others may look into, for as long as the block lasts."""
    made = Path(tempfile.mkdtemp(prefix=prefix))
    made.chmod(0o755)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def root() -> Iterator[Path]:
    """The nucleus' root folder."""
    with folder("lw-gg-") as made:
        yield made


@pytest.fixture
def classic(root: Path) -> Iterator[Classic]:
    device = Classic(root)
    yield device
    device.close()


@pytest.fixture
def lite(root: Path) -> Iterator[Lite]:
    device = Lite(root)
    yield device
    device.close()


@pytest.fixture(params=sorted(FLAVOURS))
def shell_device(request: pytest.FixtureRequest, root: Path) -> Iterator[Device]:
    """Each flavour, for components of plain shell."""
    device = FLAVOURS[request.param](root)
    yield device
    device.close()


def not_run(reason: str) -> None:
    pytest.skip(f"not run: {reason}")


@pytest.fixture(scope="session")
def rendered() -> Iterator[Path]:
    """A copy of the rendered recipes and their files."""
    if not shutil.which("docker"):
        not_run("docker is not installed; on a root Debian tools/containers/engine installs it")
    if subprocess.run(["docker", "info"], capture_output=True, timeout=180, check=False).returncode:
        not_run("no Docker engine answers; on a root Debian tools/containers/engine starts one")
    if os.geteuid():
        not_run("the scripts need root, as on a device")
    if subprocess.run(
        ["docker", "image", "inspect", UPLINK_IMAGE], capture_output=True, check=False
    ).returncode:
        not_run(f"image {UPLINK_IMAGE} is not here; tools/containers/bases makes it")
    build = Path(os.environ.get("LINEWATCH_BUILD", ROOT / "build"))
    if not list((build / "recipes").glob("io.linewatch.Broker-*.json")):
        not_run(f"{build}/recipes holds no recipes: make images recipes")
    with folder("lw-built-") as made:
        for name in ("recipes", "artifacts"):
            shutil.copytree(build / name, made / name)
        yield made


@contextmanager
def line_of(flavour: str, rendered: Path, parts: int) -> Iterator[Line]:
    """A line on a device of that flavour, nothing deployed. What its components said stays in build/conformance/."""
    with folder("lw-gg-") as nucleus, folder("lw-device-") as device:
        line = Line(FLAVOURS[flavour], rendered, nucleus, device, parts)
        try:
            yield line
        finally:
            line.close()
            kept = ROOT / "build" / "conformance" / flavour
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(nucleus / "logs", kept)


@pytest.fixture(scope="module", params=sorted(FLAVOURS))
def line(request: pytest.FixtureRequest, rendered: Path) -> Iterator[Line]:
    """One line for a whole module, whose tests run in order."""
    with line_of(request.param, rendered, PARTS) as made:
        yield made


@pytest.fixture(params=sorted(FLAVOURS))
def new_line(request: pytest.FixtureRequest, rendered: Path) -> Iterator[Line]:
    """A line for one test, with a handful of parts."""
    with line_of(request.param, rendered, 20) as made:
        yield made
