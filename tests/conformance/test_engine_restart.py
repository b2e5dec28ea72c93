# SPDX-License-Identifier: Apache-2.0
"""The Docker engine stops and starts under a running component, and comes up later than the nucleus after a boot."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from brokers import wait_for
from conformance.conftest import folder
from conformance.device import RUNNING, SUCCEEDED, pull
from conformance.engine import containers
from conformance.line import BROKER, Line
from conformance.private_engine import PrivateEngine, private_engine
from conformance.recipe import Recipe

pytestmark = pytest.mark.containers

IMAGE = "linewatch/broker:conformance"


@pytest.fixture
def engine(rendered: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PrivateEngine]:
    for program in ("unshare", "ip", "dockerd"):
        if shutil.which(program) is None:
            pytest.skip(f"not run: {program} is not installed; an engine of the test's own needs it")
    recipe = Recipe.load(next((rendered / "recipes").glob("io.linewatch.Broker-*.json")))
    image = recipe.document["Manifests"][0]["Artifacts"][0]["Uri"].removeprefix("docker:")
    pull(image)
    with folder("lw-dockerd-") as place, private_engine(place) as made:
        made.load(image, IMAGE)
        monkeypatch.setenv("DOCKER_HOST", made.address)
        yield made


@pytest.fixture
def broker(engine: PrivateEngine, new_line: Line) -> Recipe:
    """The broker's component, deployed with the image that the engine has."""
    recipe = new_line.recipes[BROKER]
    image = recipe.document["Manifests"][0]["Artifacts"][0]["Uri"].removeprefix("docker:")
    new_line.recipes[BROKER] = recipe.changed(recipe.version, {image: IMAGE})
    assert new_line.deploy(only=(BROKER,)).status == SUCCEEDED
    wait_for(lambda: runs(new_line), "the broker runs", 240)
    return new_line.recipes[BROKER]


def runs(line: Line) -> list[str]:
    name = line.container(BROKER)
    return [container for one, container in containers(name, running_only=True).items() if one == name]


def test_an_engine_that_restarts_again_and_again_is_no_failure_of_any_component(
    engine: PrivateEngine, new_line: Line, broker: Recipe
) -> None:
    """Three failures within an hour are the end of a component, and an upgrade of Docker is none of its."""
    component = new_line.device.components[broker.name]
    failures, times = component.reason, component.entered(RUNNING)
    for turn in range(1, 4):
        before = runs(new_line)
        engine.stop()
        wait_for(
            lambda turn=turn: new_line.device.log(broker).count("Docker went away") == turn,
            "the component sees that the engine is gone", 120,
        )  # fmt: skip
        engine.start()

        wait_for(
            lambda before=before: runs(new_line) and runs(new_line) != before, "a new container runs", 240
        )
        assert len(runs(new_line)) == 1

    assert component.state == RUNNING
    assert (component.reason, component.entered(RUNNING)) == (failures, times)


def test_an_engine_that_comes_up_after_the_nucleus_is_waited_for(
    engine: PrivateEngine, new_line: Line, broker: Recipe
) -> None:
    """Nothing orders greengrass.service after docker.service: three quick errors would end the component for good."""
    new_line.device.power_cut()
    engine.stop()

    new_line.device.boot()
    component = new_line.device.components[broker.name]
    errors = component.reason
    wait_for(lambda: component.state == RUNNING, "the script runs and waits", 120)
    engine.start()

    wait_for(lambda: len(runs(new_line)) == 1, "the broker runs", 240)
    assert component.state == RUNNING
    assert component.reason == errors
