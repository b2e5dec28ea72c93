# SPDX-License-Identifier: Apache-2.0
"""A device of each flavour for a test, in a folder with a short path (unix sockets take 107 bytes)."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conformance.classic import Classic
from conformance.device import Device
from conformance.lite import Lite

FLAVOURS: dict[str, type[Device]] = {"classic": Classic, "lite": Lite}


@pytest.fixture
def root() -> Iterator[Path]:
    """The nucleus' root folder."""
    folder = Path(tempfile.mkdtemp(prefix="lw-gg-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


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
