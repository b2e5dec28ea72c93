# SPDX-License-Identifier: Apache-2.0
"""Any service may be restarted, killed or replaced by another version while parts are inspected: nothing is lost or doubled.

The control: a count that is wrong by one is seen. Counting is `make demo`'s own (plant/tests/test_counts.py).
"""

import os
import subprocess

import pytest
from brokers import wait_for
from compose_stack import CAPTURES, SERVICES, SOON_S, Stack

pytestmark = pytest.mark.containers

# Of the stand-in cloud each start is a new account; it is treated apart, below.
DISTURBED = tuple(service for service in SERVICES if service != "standin-cloud")
NEXT_VERSION = "0.2.1"

# Compose starts again what depends on a service that was replaced.
DEPENDENTS = {
    "broker": {"inference", *CAPTURES, "forwarder", "console"},
    "inference": set(CAPTURES),
}


@pytest.mark.parametrize("service", DISTURBED)
def test_it_goes_on_after_a_restart(stack: Stack, service: str) -> None:
    stack.run("restart", service)

    wait_for(lambda: stack.is_healthy(service), f"{service} is healthy again", SOON_S)
    stack.flows()


@pytest.mark.parametrize("service", DISTURBED)
def test_it_goes_on_after_a_kill(stack: Stack, service: str) -> None:
    stack.kill(service)

    wait_for(lambda: stack.is_healthy(service), f"{service} is healthy again", SOON_S)
    stack.flows()


@pytest.fixture
def next_version(request: pytest.FixtureRequest, stack: Stack) -> str:
    """A next version of the image: the same code with another label, so other bytes and another digest."""
    name: str = request.param
    present = stack.inspect("capture-line-1" if name == "capture" else name)["Config"]["Image"]
    tag = f"linewatch-test/{name}-next:{os.getpid()}"
    subprocess.run(
        ["docker", "build", "--quiet", "--tag", tag, "-"],
        input=f"FROM {present}\nLABEL org.opencontainers.image.version={NEXT_VERSION}\n",
        text=True, capture_output=True, check=True,
    )  # fmt: skip
    return tag


@pytest.mark.parametrize(
    "next_version", ["broker", "inference", "capture", "forwarder", "console"], indirect=True
)
def test_an_upgrade_replaces_its_service_and_at_most_what_depends_on_it(
    stack: Stack, next_version: str
) -> None:
    name = next_version.partition("/")[2].partition("-next:")[0]
    upgraded = set(CAPTURES) if name == "capture" else {name}
    before = {service: stack.inspect(service)["Id"] for service in SERVICES}

    stack.up(**{f"LINEWATCH_{name.upper()}_IMAGE": next_version})

    replaced = {service for service in SERVICES if stack.inspect(service)["Id"] != before[service]}
    assert upgraded <= replaced <= upgraded | DEPENDENTS.get(name, set())
    for service in upgraded:
        assert stack.inspect(service)["Config"]["Labels"]["org.opencontainers.image.version"] == NEXT_VERSION
    stack.flows()


def test_after_all_that_every_part_and_event_is_counted_once(stack: Stack) -> None:
    # Alone, or on a machine that went through the tests above in no time, little has happened yet.
    wait_for(
        lambda: (
            all(stack.spool(one)[0].get(("", "judged"), 0) > 100 for one in CAPTURES)
            and sum(stack.cloud()["work_orders"].values())
        ),
        "parts are judged and a work order is raised",
        SOON_S,
    )

    counts = stack.drain()

    assert counts.disagreements() == []
    assert counts.parts["sent"] == counts.parts["judged"] > 100
    assert counts.work_orders["in_erp"] + counts.work_orders["awaiting_approval"] > 0


def test_a_count_that_is_wrong_by_one_would_be_seen(stack: Stack) -> None:
    stack.taken_along += 1
    try:
        assert stack.counts().disagreements()
    finally:
        stack.taken_along -= 1


@pytest.mark.parametrize("end", ["restart", "kill"])
def test_what_the_cloud_has_not_accepted_when_it_ends_goes_to_the_next_account(
    stack: Stack, end: str
) -> None:
    stack.up(LINEWATCH_PARTS="0")
    stack.flows()
    # What is on its way when the account ends is accepted by none of both or, sent again, by the next.
    stack.run("stop", "standin-cloud") if end == "restart" else stack.run("kill", "standin-cloud")
    stack.cloud_is_gone()

    stack.run("start", "standin-cloud")
    wait_for(lambda: stack.is_healthy("standin-cloud"), "standin-cloud is healthy again", SOON_S)
    stack.flows()

    assert stack.drain().disagreements() == []
