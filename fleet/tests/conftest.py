# SPDX-License-Identifier: Apache-2.0
"""Registries, and a signed release in a folder of its own."""

from collections.abc import Callable, Iterator
from pathlib import Path

import greengrass_account
import pytest
from scripts_device import Device
from shops import Shop

from linewatch_fleet.signing import make_keys
from linewatch_plant import oci_registry


@pytest.fixture
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """Starts registries, each empty, on ports of their own."""
    if not oci_registry.is_installed():
        pytest.skip("docker-registry is not installed (Debian: apt-get install docker-registry)")
    running = []

    def start(htpasswd: Path | None = None) -> str:
        one = oci_registry.serving(tmp_path_factory.mktemp("registry"), htpasswd)
        running.append(one)
        return one.__enter__()

    yield start
    for one in running:
        one.__exit__(None, None, None)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path / "device")


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    made = Shop(tmp_path, environment={"DOCKER_CONFIG": str(tmp_path / "docker")})
    make_keys(tmp_path / "keys" / "release.key", tmp_path / "keys" / "release.pem", None)
    return made


@pytest.fixture(scope="session")
def ministack_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One ministack for every test that wants an account."""
    with greengrass_account.ministack(tmp_path_factory.mktemp("ministack")) as endpoint:
        yield endpoint


@pytest.fixture
def aws(tmp_path: Path, ministack_endpoint: str) -> Iterator[greengrass_account.AwsAccount]:
    """An environment of its own in it, with a greengrassv2 of its own."""
    with greengrass_account.account(tmp_path, ministack_endpoint) as account:
        yield account
