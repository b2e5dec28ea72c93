# SPDX-License-Identifier: Apache-2.0
"""A model directory with one package of each type, and a real server in front of it."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from prometheus_client import CollectorRegistry

sys.path.insert(0, str(Path(__file__).parent))

from running_server import HeardEvents, Running
from tiny_models import GRAPHS, described, make_key, make_package

from linewatch_inference.activation import Activation
from linewatch_inference.admission import Admission
from linewatch_inference.inspection import Inspection
from linewatch_inference.metrics import Metrics
from linewatch_inference.repository import Repository, Source
from linewatch_inference.server import Server
from linewatch_inference.settings import Settings
from linewatch_plant.processes import free_port


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """models/, key.pem and trusted-key/ with signed packages; copy it before changing it."""
    root = tmp_path_factory.mktemp("released")
    key, _ = make_key(root)
    for kind, graph in GRAPHS.items():
        make_package(root, described(kind), graph(), key)
    return root


@pytest.fixture
def own_copy(released: Path, tmp_path: Path) -> Path:
    """The released directory, for one test to change."""
    root = tmp_path / "own"
    shutil.copytree(released, root)
    return root


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts servers; they end with the test."""
    started: list[Running] = []

    def start(root: Path, **changes: object) -> Running:
        port = free_port()
        settings = Settings(
            **{
                "port": port,
                "models_dir": root / "models",
                "trusted_keys_dir": root / "trusted-key",
                **changes,
            }
        )
        events, registry = HeardEvents(), CollectorRegistry()
        metrics = Metrics(registry)
        source = Source(settings.models_dir, settings.trusted_keys_dir, settings.variant)
        repository = Repository(source, events, metrics)
        admission = Admission(settings.workers, settings.queue_limit)
        server = Server(settings, Inspection(repository, admission, metrics, events))
        repository.on_change = lambda: server.set_serving(is_serving=repository.is_serving)
        server.start()
        activation = Activation(repository, settings.models_dir, tmp_path / "serving", settings.wanted_models)
        activation.open()
        channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        started.append(
            Running(settings, repository, activation, admission, server, events, registry, channel)
        )
        return started[-1]

    yield start
    for one in started:
        one.channel.close()
        one.server.stop(0.0)
        one.repository.close()


@pytest.fixture
def running(serve: Callable[..., Running], released: Path) -> Running:
    """One server with the three models."""
    return serve(released)
