# SPDX-License-Identifier: Apache-2.0
"""Pitfalls of containers under Greengrass, each with the part of our recipes that avoids it, and with a control.

A control is our own recipe without that part: the pitfall shows, so the tests of test_lifecycle.py can fail.
"""

import time

import psutil
import pytest
from brokers import wait_for
from conformance.device import BROKEN, FAILED, RUNNING, SUCCEEDED
from conformance.engine import containers
from conformance.line import BROKER, CAPTURE, CAPTURE2, CELLS, FORWARDER, INFERENCE, TURBOFAN, Line

pytestmark = pytest.mark.containers

LOOKS_S = 25
"""Seconds that a start looks for its image here, in place of 270: it looks every five, and twice even on a slow machine."""
STARTS = 3
NOWHERE = "127.0.0.1:5000/linewatch/nothing@sha256:" + "0" * 64


def image_of(line: Line, part: str) -> str:
    """What a component's artifact names."""
    uri: str = line.recipes[part].document["Manifests"][0]["Artifacts"][0]["Uri"]
    return uri.removeprefix("docker:")


def kill_client(line: Line, part: str) -> None:
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if words[:2] == ["docker", "run"] and line.container(part) in words:
            process.kill()


def test_control_without_removing_what_was_left_one_killed_client_breaks_the_component(
    new_line: Line,
) -> None:
    careless = new_line.recipes[BROKER].changed(
        "0.2.0-careless",
        {'docker rm -f "$LW_NAME" >': 'true "$LW_NAME" >', 'ask rm -f "$left"': 'true "$left"'},
    )
    # Three nets: before the start, behind the script's end, and on classic the shutdown step, which runs after an error too.
    del careless.document["Lifecycle"]["all"]["shutdown"]
    assert new_line.deploy({BROKER: careless}, only=(BROKER,)).status == SUCCEEDED
    container = new_line.container(BROKER)
    wait_for(lambda: containers(container, running_only=True).get(container), "it runs", 120)
    orphan = containers(container)[container]

    kill_client(new_line, BROKER)

    new_line.device.wait(careless, BROKEN)
    assert containers(container, running_only=True) == {container: orphan}
    assert "is already in use by container" in new_line.device.log(careless)


def test_control_with_run_a_service_without_its_broker_counts_as_running(new_line: Line) -> None:
    """Why the services have `startup`: on both runtimes `run` is RUNNING as soon as its script has started."""
    early = new_line.recipes[FORWARDER].changed("0.2.0-early")
    lifecycle = early.document["Lifecycle"]["all"]
    lifecycle["run"] = {key: value for key, value in lifecycle.pop("startup").items() if key != "Timeout"}

    assert new_line.deploy({FORWARDER: early}, only=(FORWARDER,)).status == SUCCEEDED

    assert new_line.device.state(early) == RUNNING
    assert "forwarder" not in new_line.ids()


def test_an_image_that_cannot_be_had_fails_the_deployment_by_name_and_touches_nothing(new_line: Line) -> None:
    assert new_line.deploy(only=(BROKER,)).status == SUCCEEDED
    wait_for(lambda: new_line.ids().keys() == {"broker"}, "it runs", 120)
    before = new_line.ids()

    outcome = new_line.deploy(
        {BROKER: new_line.recipes[BROKER].changed("0.2.1", {image_of(new_line, BROKER): NOWHERE})},
        only=(BROKER,),
    )

    assert outcome.status == FAILED
    assert NOWHERE in outcome.reason
    assert new_line.ids() == before


def test_an_image_that_somebody_removed_is_named_in_a_bounded_time(new_line: Line) -> None:
    """The artifact was there at deployment; at the start the image is gone and no registry answers. With less time."""
    recipe = new_line.recipes[BROKER].changed("0.2.1", {"+ 270)": f"+ {LOOKS_S})"})
    for manifest in recipe.document["Manifests"]:
        manifest["Artifacts"] = []
    gone = recipe.changed("0.2.1", {image_of(new_line, BROKER): NOWHERE})

    started = time.monotonic()
    new_line.deploy({BROKER: gone}, only=(BROKER,))
    new_line.device.wait(gone, BROKEN, 600)

    # A pull that hangs would have no end. What a start does besides takes a busy machine a while.
    assert time.monotonic() - started < STARTS * (LOOKS_S + 60)
    log = new_line.device._log(gone.name).read_text()
    # In each of its starts it looks at least twice, and is not silent meanwhile.
    assert log.count(f"linewatch: no image {NOWHERE} yet") >= 2 * STARTS
    assert log.count(f"linewatch: image {NOWHERE} is neither here nor to be had") == STARTS
    assert new_line.ids() == {}


def test_both_kinds_of_stations_work_side_by_side(new_line: Line) -> None:
    """Broker, inference, models, a camera's station, a machine's station, forwarder: from both sources to the uplink."""
    parts = (BROKER, INFERENCE, CAPTURE, CAPTURE2, FORWARDER, CELLS, TURBOFAN)
    assert new_line.deploy(only=parts).status == SUCCEEDED
    assert len(new_line.ids()) == 5
    new_line.uplink.start()

    def judged(line: str) -> int:
        mine = [event for event in new_line.inspections(line) if event["type"] == "InferenceCompleted"]
        return len({str(event["id"]) for event in mine})

    wait_for(lambda: judged("line-1") == new_line.parts, "every picture is judged and has arrived", 300)
    wait_for(lambda: judged("line-2") >= 10, "sensor windows are judged and arrive", 300)


def test_values_with_shell_characters_reach_the_service_as_they_are(new_line: Line) -> None:
    """Whoever may edit a configuration value may not run commands: values come by Setenv and go in by -e NAME."""
    canary = new_line.folder / "canary"
    nasty = f"x;touch${{IFS}}{canary};$(touch {canary})`touch {canary}`"
    broker = new_line.recipes[BROKER]
    new_line.device.deploy(broker, merge={broker.name: {**new_line.merge(BROKER), "Clients": nasty}})

    # The passwords are made from the value before the broker runs; where it makes none, three starts used it.
    wait_for(
        lambda: "broker" in new_line.ids() or new_line.device.state(broker) == BROKEN, "it was started", 240
    )
    assert not canary.exists()
