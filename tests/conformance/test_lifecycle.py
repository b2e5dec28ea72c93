# SPDX-License-Identifier: Apache-2.0
"""What happens to a line on a device from its first deployment on, on the classic nucleus and on nucleus lite.

One line for all, in order: each test takes up where the one before left off, while parts flow from the source folder
to the uplink; the last one counts them. docs/lifecycle.md is the table of these tests.

Deadlines are for a machine that is slow and busy: none of them is a promise of ours, and each costs nothing when it is
kept. How long a service takes to stop is promised, and the engine's own clock says it.
"""

import itertools
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from brokers import wait_for
from conformance.device import BROKEN, ERRORED, FAILED, RUNNING, STARTING, SUCCEEDED
from conformance.engine import docker, health, inspected
from conformance.line import BROKER, CAPTURE, CELLS, CONSOLE, FORWARDER, INFERENCE, SERVICES, TURBOFAN, Line
from engine_events import stops

pytestmark = pytest.mark.containers

PARTS_OF_A_LINE = tuple(sorted(part.lower() for part in SERVICES))
STOP_S = 12
"""What a service has from SIGTERM to its end (recipes/run.sh, --stop-timeout)."""
SOON_S = 120.0
NUMBERS = itertools.count(1)
WRONG_SETTING = {"{configuration:/LogLevel}": "SHOUTING"}


def is_lite(line: Line) -> bool:
    return line.device.flavour == "lite"


def client_of(line: Line, part: str) -> psutil.Process:
    """The docker client that holds the service's container in the foreground."""
    name = line.container(part)
    found = [
        process
        for process in psutil.process_iter(["cmdline"])
        if (words := process.info["cmdline"]) and words[:2] == ["docker", "run"] and name in words
    ]
    assert len(found) == 1, found
    return found[0]


def unchanged(before: dict[str, str], after: dict[str, str], *changed: str) -> bool:
    """Whether all containers are those from before, but for the named parts, which have new ones."""
    names = {part.lower() for part in changed}
    return before.keys() == after.keys() and all(
        (before[name] == after[name]) != (name in names) for name in before
    )


def test_all_components_come_up_and_each_has_one_container(line: Line) -> None:
    outcome = line.deploy()

    assert outcome.status == SUCCEEDED, outcome
    assert tuple(sorted(line.ids())) == PARTS_OF_A_LINE
    for part in SERVICES:
        assert line.is_running(part)
    assert line.device.state(line.recipes[CELLS]) == RUNNING


def test_a_service_is_running_only_once_it_is_healthy_or_says_so(line: Line) -> None:
    """On classic the service reports itself; on lite the script reports what the container's health check says."""
    for part in (INFERENCE, CAPTURE, FORWARDER, CONSOLE):
        component = line.device.components[line.recipes[part].name]
        up = next(at for at, state in component.states if state == RUNNING)
        if is_lite(line):
            checks = inspected(line.container(part))["State"]["Health"]["Log"]
            assert any(check["ExitCode"] == 0 for check in checks), part
        else:
            reports = [one for one in line.device.ipc.states if one.token == component.token]
            assert reports, part
            assert reports[0].state == RUNNING
            assert up >= reports[0].at - 0.5
    for name in map(line.container, SERVICES):
        wait_for(lambda name=name: health(name) == "healthy", f"{name} is healthy", SOON_S)  # type: ignore[misc]


def test_containers_are_confined_as_the_recipes_say(line: Line) -> None:
    for part in SERVICES:
        host = inspected(line.container(part))["HostConfig"]
        assert host["ReadonlyRootfs"], part
        assert host["CapDrop"] == ["ALL"], part
        assert "no-new-privileges" in host["SecurityOpt"], part
        assert host["Memory"] == host["MemorySwap"] > 0, part
        assert host["PidsLimit"] > 0, part
        assert host["NetworkMode"] == line.prefix, part
        assert inspected(line.container(part))["Config"]["User"] == "10001:10001", part
    published = {part: inspected(line.container(part))["HostConfig"]["PortBindings"] for part in SERVICES}
    assert {part for part, ports in published.items() if ports} == {CONSOLE}
    with urllib.request.urlopen(f"http://127.0.0.1:{line.console_port}/healthz", timeout=60) as answer:
        assert answer.status == 200


def test_parts_flow_from_the_source_folder_to_the_uplink(line: Line) -> None:
    line.uplink.start()
    line.wait_judged(5)
    wait_for(lambda: len(line.inspections()) >= 5, "five parts have arrived", SOON_S)


def test_a_crash_is_followed_by_a_new_container_and_nothing_else_is_touched(line: Line) -> None:
    before, times = line.ids(), line.restarts_of(CAPTURE)

    docker("kill", line.container(CAPTURE))

    line.device.wait(line.recipes[CAPTURE], RUNNING, times=times + 1)
    assert unchanged(before, line.ids(), CAPTURE)
    assert f"container {line.container(CAPTURE)} ended with 137" in line.device.log(line.recipes[CAPTURE])
    line.wait_judged(3)


def test_a_killed_docker_client_leaves_no_second_container(line: Line) -> None:
    """kill -9 of the client leaves its container running, with our name: the next start removes it first."""
    before, times = line.ids(), line.restarts_of(FORWARDER)

    client_of(line, FORWARDER).kill()

    line.device.wait(line.recipes[FORWARDER], RUNNING, times=times + 1)
    assert unchanged(before, line.ids(), FORWARDER)
    line.wait_judged(3)


def test_a_broker_that_crashes_comes_back_and_the_others_wait_for_it(line: Line) -> None:
    before, times = line.ids(), line.restarts_of(BROKER)

    docker("kill", line.container(BROKER))

    line.device.wait(line.recipes[BROKER], RUNNING, times=times + 1)
    wait_for(lambda: unchanged(before, line.ids(), BROKER), "only the broker has a new container", SOON_S)
    heard = len(line.inspections())
    wait_for(lambda: len(line.inspections()) > heard, "parts arrive again", SOON_S)


def test_the_nucleus_ipc_may_go_and_come_without_any_service_noticing(line: Line) -> None:
    before = line.ids()

    line.device.restart_ipc()

    line.wait_judged(5)
    assert line.ids() == before
    assert all(line.is_running(part) for part in SERVICES)
    # The socket that the containers see is the old one.
    assert line.device.ipc.subscribers() == []


def test_an_update_of_one_component_leaves_the_others_alone(line: Line) -> None:
    before = line.ids()
    newer = line.recipes[CAPTURE].changed("0.2.1")

    outcome = line.deploy({CAPTURE: newer})

    assert outcome.status == SUCCEEDED, outcome
    assert unchanged(before, line.ids(), CAPTURE)
    assert line.is_running(CAPTURE)
    line.wait_judged(3)
    if not is_lite(line):
        # A new container sees the nucleus's new socket; those from before its restart do not.
        line.device.ipc.wait_for_subscribers(1, SOON_S)
        assert line.device.ipc.subscribers() == [line.device.components[newer.name].token]


def test_a_changed_setting_restarts_its_own_component_only(line: Line) -> None:
    before = line.ids()
    line.settings[CAPTURE] = {"LogLevel": "DEBUG"}

    assert line.deploy().status == SUCCEEDED

    assert unchanged(before, line.ids(), CAPTURE)
    assert "CAPTURE_LOG_LEVEL=DEBUG" in inspected(line.container(CAPTURE))["Config"]["Env"]
    line.wait_judged(3)


def test_a_service_that_does_not_reach_its_broker_is_not_running(line: Line) -> None:
    """So a deployment waits for what works, not for what was started."""
    recipe = line.recipes[CAPTURE].changed("0.2.1-gated")
    docker("pause", line.container(BROKER))
    with ThreadPoolExecutor(1) as pool:
        before = line.ids()["capture"]
        update = pool.submit(line.deploy, {CAPTURE: recipe})
        try:
            wait_for(
                lambda: line.ids().get("capture") not in {None, before}, "the new container is there", SOON_S
            )
            component, came = line.device.components[recipe.name], len(line.device.log(recipe))
            wait_for(
                lambda: "mqtt_unreachable" in line.device.log(recipe)[came:],
                "the service waited for its broker in vain", SOON_S,
            )  # fmt: skip
            assert component.state == STARTING
            assert not update.done()
        finally:
            docker("unpause", line.container(BROKER))
        assert update.result(300).status == SUCCEEDED
    line.wait_judged(3)


def test_a_version_that_fails_is_taken_back_on_classic_and_stays_broken_on_lite(line: Line) -> None:
    before, good = line.ids(), line.recipes[CAPTURE]

    outcome = line.deploy({CAPTURE: good.changed("0.2.2", WRONG_SETTING)})

    assert outcome.status == FAILED
    assert "0.2.2 is BROKEN" in outcome.reason
    assert "CAPTURE_LOG_LEVEL" in line.device.log(good)
    if is_lite(line):
        assert outcome.detail == "FAILED_ROLLBACK_NOT_REQUESTED"
        assert line.device.state(good) == BROKEN
        assert "capture" not in line.ids()
        # The others go on; what brings it back is a deployment of the version before.
        assert {**line.ids(), "capture": ""} == {**before, "capture": ""}
        assert line.deploy().status == SUCCEEDED
    else:
        assert outcome.detail == "FAILED_ROLLBACK_COMPLETE"
        assert line.device.components[good.name].recipe.version == good.version
    assert unchanged(before, line.ids(), CAPTURE)
    assert line.is_running(CAPTURE)
    line.wait_judged(3)


def test_a_model_is_updated_without_touching_inference(line: Line) -> None:
    before = line.ids()
    line.models.make("pv-el-cells", "1.0.1")

    outcome = line.deploy({CELLS: line.recipes[CELLS].changed("1.0.1", {"1.0.0": "1.0.1"})})

    assert outcome.status == SUCCEEDED, (outcome, line.device.log(line.recipes[CELLS]))
    assert line.ids() == before
    said = (line.folder / "state/inference/serving/pv-el-cells").read_text()
    assert said.startswith("1.0.1 serving sha256:")
    wait_for(
        lambda: line.inspections()[-1]["data"]["verdict"]["model"]["version"] == "1.0.1", "it judges", SOON_S
    )


def test_a_bad_model_fails_its_deployment_and_the_old_one_goes_on_serving(line: Line) -> None:
    before = line.ids()
    line.models.make("pv-el-cells", "1.0.2", spoiled=True)

    outcome = line.deploy({CELLS: line.recipes[CELLS].changed("1.0.2", {"1.0.1": "1.0.2"})})

    assert outcome.status == FAILED
    log = line.device.log(line.recipes[CELLS])
    assert "inference does not serve pv-el-cells 1.0.2: 1.0.2 refused" in log
    assert (line.folder / "models/pv-el-cells/active").read_text().splitlines()[0] == "1.0.1"
    if is_lite(line):
        assert outcome.detail == "FAILED_ROLLBACK_NOT_REQUESTED"
        assert line.device.state(line.recipes[CELLS]) == BROKEN
        assert line.deploy().status == SUCCEEDED
    else:
        assert outcome.detail == "FAILED_ROLLBACK_COMPLETE"
    assert line.device.state(line.recipes[CELLS]) == RUNNING
    assert line.ids() == before
    line.wait_judged(3)
    assert line.inspections()[-1]["data"]["verdict"]["model"]["version"] == "1.0.1"


def test_a_bad_model_fails_its_deployment_also_when_inference_is_changed_by_the_same_one(line: Line) -> None:
    """Inference is away for a moment: who asks then whether its container is there must not take that for a yes."""
    before = line.ids()
    line.models.make("pv-el-cells", "1.0.3", spoiled=True)
    changed = {
        INFERENCE: line.recipes[INFERENCE].changed("0.2.0-beside"),
        CELLS: line.recipes[CELLS].changed("1.0.3", {"1.0.1": "1.0.3"}),
    }

    outcome = line.deploy(changed)

    assert outcome.status == FAILED
    assert "does not serve pv-el-cells 1.0.3: 1.0.3 refused" in line.device.log(line.recipes[CELLS])
    if is_lite(line):
        assert line.deploy().status == SUCCEEDED
    wait_for(lambda: line.is_running(INFERENCE) and line.is_running(CELLS), "both are RUNNING again", 240)
    assert unchanged(before, line.ids(), INFERENCE)
    line.wait_judged(3)
    assert line.inspections()[-1]["data"]["verdict"]["model"]["version"] == "1.0.1"


def test_a_model_that_inference_is_set_not_to_serve_is_put_ready_and_says_so(line: Line) -> None:
    line.settings[INFERENCE] = {"Models": "pv-el-cells:1.0.1"}
    for model in (CELLS, TURBOFAN):
        line.models.make(line.recipes[model].name.rpartition(".")[2], "1.0.4")
    changed = {
        CELLS: line.recipes[CELLS].changed("1.0.4", {"1.0.1": "1.0.4"}),
        TURBOFAN: line.recipes[TURBOFAN].changed("1.0.4", {"1.0.0": "1.0.4"}),
    }
    was = {part: line.recipes[part] for part in changed}

    outcome = line.deploy(changed)

    assert outcome.status == SUCCEEDED, outcome
    assert "1.0.4 set-aside INFERENCE_MODELS pins pv-el-cells to 1.0.1" in line.device.log(was[CELLS])
    assert "1.0.4 set-aside INFERENCE_MODELS does not name turbofan" in line.device.log(was[TURBOFAN])
    line.settings[INFERENCE] = {"Models": ""}
    assert line.deploy(was).status == SUCCEEDED
    line.wait_judged(3)
    assert line.inspections()[-1]["data"]["verdict"]["model"]["version"] == "1.0.1"


def test_inference_is_updated_without_touching_the_models(line: Line) -> None:
    before = line.ids()
    runs = [len(line.device.components[line.recipes[part].name].states) for part in (CELLS, TURBOFAN)]

    outcome = line.deploy({INFERENCE: line.recipes[INFERENCE].changed("0.2.1")})

    assert outcome.status == SUCCEEDED, outcome
    assert unchanged(before, line.ids(), INFERENCE)
    assert runs == [len(line.device.components[line.recipes[part].name].states) for part in (CELLS, TURBOFAN)]
    line.wait_judged(3)
    assert line.inspections()[-1]["data"]["verdict"]["model"]["version"] == "1.0.1"


def test_an_update_waits_for_the_part_under_inspection_on_classic_and_ends_it_first_on_both(
    line: Line,
) -> None:
    """Inference is held in the middle of a part; the update of the console must not begin before the part is judged."""
    docker("pause", line.container(INFERENCE))
    if not is_lite(line):
        # Capture says so itself; inference would be asked, too, and can't answer.
        wait_for(
            lambda: any(line.device.ipc.ask_to_update(f"ask-{next(NUMBERS)}", timeout_s=1).values()),
            "a part is under inspection", SOON_S,
        )  # fmt: skip
    before, console = len(line.device.ipc.deferrals), line.ids()["console"]
    with ThreadPoolExecutor(1) as pool:
        update = pool.submit(line.deploy, {CONSOLE: line.recipes[CONSOLE].changed("0.2.1")})
        try:
            if is_lite(line):
                wait_for(
                    lambda: line.ids().get("console") not in {None, console}, "lite does not ask", SOON_S
                )
                assert len(line.device.ipc.deferrals) == before
            else:
                wait_for(
                    lambda: [
                        one
                        for one in line.device.ipc.deferrals[before:]
                        if one.recheck_after_ms and one.deployment_id.startswith("deployment-")
                    ],
                    "a service defers the update", SOON_S,
                )  # fmt: skip
                assert line.ids()["console"] == console
        finally:
            docker("unpause", line.container(INFERENCE))
        assert update.result(300).status == SUCCEEDED
    assert line.ids()["console"] != console
    assert line.counts().parts["not_inspected"] == 0


def test_a_stale_container_with_our_name_is_no_obstacle(line: Line) -> None:
    """One that was made and never ran, as a power cut may leave: it holds the name, and `docker ps` does not show it."""
    before, recipe = line.ids(), line.recipes[CONSOLE]
    image = inspected(line.container(CONSOLE))["Config"]["Image"]
    others = tuple(part for part in (*SERVICES, CELLS, TURBOFAN) if part != CONSOLE)
    assert line.deploy(only=others).status == SUCCEEDED
    wait_for(lambda: "console" not in line.ids(), "the engine has removed it", SOON_S)
    stale = docker("create", "--name", line.container(CONSOLE), image)

    assert line.deploy().status == SUCCEEDED

    assert line.ids()["console"] not in {stale, before["console"]}
    assert line.device.state(recipe) == RUNNING


def test_a_stop_reaches_the_service_which_ends_by_itself_within_its_time(line: Line) -> None:
    others = tuple(part for part in (*SERVICES, CELLS, TURBOFAN) if part not in {CAPTURE, FORWARDER})
    marks = {part: len(line.device.log(line.recipes[part])) for part in (CAPTURE, FORWARDER)}
    names = {line.container(CAPTURE), line.container(FORWARDER)}
    with stops(line.prefix) as told:
        assert line.deploy(only=others).status == SUCCEEDED
        wait_for(lambda: line.ids().keys() == {"broker", "inference", "console"}, "they are gone", SOON_S)
        ended = told.wait(*names)

    assert {name: one.code for name, one in ended.items()} == dict.fromkeys(names, 0)
    assert all(one.took_s < STOP_S for one in ended.values()), ended
    for part, mark in marks.items():
        assert "stopped" in line.device.log(line.recipes[part])[mark:], part
    at_rest = line.counts()
    assert at_rest.parts["sent"] == at_rest.parts["judged"] > 0

    assert line.deploy().status == SUCCEEDED
    assert tuple(sorted(line.ids())) == PARTS_OF_A_LINE


def test_a_nucleus_that_stops_takes_every_container_along_and_brings_it_back(line: Line) -> None:
    line.device.close()
    wait_for(lambda: line.ids() == {}, "no container is left", SOON_S)

    line.device.boot()

    line.wait_running()
    assert tuple(sorted(line.ids())) == PARTS_OF_A_LINE
    assert line.counts().parts["not_inspected"] == 0


def test_after_a_power_cut_everything_comes_up_again_with_one_container_each(line: Line) -> None:
    """The engine removed one container with the cut (--rm), others still run, and one ended and kept its name."""
    before = line.ids()
    line.device.power_cut()
    docker("rm", "-f", line.container(CAPTURE))
    image = inspected(line.container(FORWARDER))["Config"]["Image"]
    docker("rm", "-f", line.container(FORWARDER))
    docker("create", "--name", line.container(FORWARDER), image)

    line.device.boot()

    line.wait_running()
    # The broker's component is RUNNING as soon as its script is, and the old broker may be there a little longer.
    wait_for(
        lambda: tuple(sorted(after := line.ids())) == PARTS_OF_A_LINE
        and not set(before.values()) & set(after.values()),
        "each part has one container, and a new one", SOON_S,
    )  # fmt: skip
    wait_for(
        lambda: line.device.state(line.recipes[CELLS]) == RUNNING, "the model's component ran again", 240
    )
    said = (line.folder / "models/pv-el-cells/active").read_text().splitlines()[0]
    assert said == "1.0.1"


def test_three_crashes_break_it_with_a_reason_and_leave_no_orphan(line: Line) -> None:
    before = line.ids()
    component = line.device.components[line.recipes[CONSOLE].name]
    for _ in range(3):
        times = line.restarts_of(CONSOLE)
        container = line.ids()["console"]
        docker("kill", container)
        wait_for(
            lambda since=times: component.state == BROKEN or line.restarts_of(CONSOLE) > since,  # type: ignore[misc]
            "it is up again, or broken", SOON_S,
        )  # fmt: skip
        if component.state == BROKEN:
            break

    assert component.state == BROKEN
    assert "137" in component.reason
    assert f"container {line.container(CONSOLE)} ended with 137" in line.device.log(line.recipes[CONSOLE])
    wait_for(lambda: "console" not in line.ids(), "no container is left", SOON_S)
    assert {**line.ids(), "console": ""} == {**before, "console": ""}
    assert ERRORED in [state for _, state in component.states] or is_lite(line)
    # It stays so until a deployment.
    assert line.deploy().status == SUCCEEDED
    assert line.is_running(CONSOLE)


def test_no_part_was_lost_or_counted_twice_by_all_of_this(line: Line) -> None:
    line.end_shift()

    def all_there() -> bool:
        counts = line.counts()
        return (
            counts.parts["sent"] == line.parts
            and not counts.backlog
            and len(line.inspections()) >= line.parts
        )

    wait_for(all_there, f"every part is sent, and its event at the uplink: {line.counts()}", 600)
    counts, inspections = line.counts(), line.inspections()
    assert counts.parts == {"sent": line.parts, "judged": line.parts, "not_inspected": 0, "skipped": 0}
    assert counts.events["published"] == counts.events["stored"] == counts.events["delivered"] == line.parts
    assert sorted(event["subject"] for event in inspections) == [
        f"part-{n:05}.jpg" for n in range(line.parts)
    ]
    keys = {(event["data"]["origin"]["epoch"], event["data"]["origin"]["sequence"]) for event in inspections}
    assert len(keys) == line.parts
    # Repeats on the wire are the price of "at least once"; the event's id tells the consumer.
    assert len(line.uplink.heard()) >= line.parts
