# SPDX-License-Identifier: Apache-2.0
"""What stands still is told, what is wrong is named, and what was stopped goes on where it was."""

from pathlib import Path

import pytest
from brokers import wait_for
from compose_stack import ROOT, SERVICES, SOON_S, ComposeFailed, Stack, found
from engine_events import stops

pytestmark = pytest.mark.containers

GRACE_S = 12


def firing(prometheus: str, alert: str) -> set[str]:
    return {
        one["metric"].get("line", "")
        for one in found(prometheus, f'ALERTS{{alertname="{alert}",alertstate="firing"}}')
    }


def test_an_alert_fires_when_the_lines_stop_and_ends_when_they_go_on(prometheus: str, stack: Stack) -> None:
    stack.drain()
    wait_for(lambda: firing(prometheus, "LineStopped") == {"line-1", "line-2"}, "LineStopped fires", SOON_S)

    stack.up(LINEWATCH_PARTS="0")

    wait_for(lambda: not firing(prometheus, "LineStopped"), "LineStopped has ended", SOON_S)


def test_an_alert_names_a_service_that_is_gone(prometheus: str, stack: Stack) -> None:
    stack.run("stop", "capture-line-2")
    wait_for(lambda: firing(prometheus, "ServiceGone") == {"line-2"}, "ServiceGone fires", SOON_S)

    stack.up()

    wait_for(lambda: not firing(prometheus, "ServiceGone"), "ServiceGone has ended", SOON_S)


def test_up_names_the_service_that_cannot_start_and_its_log_says_why(stack: Stack, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.yml"
    overlay.write_text('services: {forwarder: {environment: {FORWARDER_UPLINK_RAET: "5"}}}\n')

    with pytest.raises(ComposeFailed) as failed:
        stack.run(
            "-f",
            str(ROOT / "docker-compose.yml"),
            "-f",
            str(overlay),
            "up",
            "--detach",
            "--wait",
            timeout_s=600,
        )

    assert f"{stack.project}-forwarder-1 is unhealthy" in str(failed.value)
    assert "there is no such setting; did you mean FORWARDER_UPLINK_RATE?" in stack.run("logs", "forwarder")
    stack.up()
    stack.flows()


def test_sigterm_stops_every_service_within_its_grace(stack: Stack) -> None:
    names = [stack.container(service) for service in SERVICES]
    with stops(f"{stack.project}-") as told:
        stack.run("stop")
        ended = told.wait(*names)

    codes = {service: stack.inspect(service)["State"]["ExitCode"] for service in SERVICES}
    assert codes == dict.fromkeys(SERVICES, 0)
    # By the engine's clock, each for itself: compose stops consumers before what they depend on.
    assert all(ended[name].took_s < GRACE_S for name in names), ended
    stack.cloud_is_gone()


def test_down_keeps_the_data_and_up_goes_on_with_it(stack: Stack) -> None:
    stack.up()
    counts = stack.drain()
    before = {
        "password": stack.run("exec", "-T", "console", "cat", "/run/linewatch/sign-in"),
        "orders": stack.orders(),
    }

    stack.run("--profile", "*", "down", timeout_s=600)
    stack.cloud_is_gone()
    stack.up(LINEWATCH_PARTS="0")
    stack.flows()

    assert stack.run("exec", "-T", "console", "cat", "/run/linewatch/sign-in") == before["password"]
    assert stack.orders()[: len(before["orders"])] == before["orders"]
    later = stack.drain()
    assert later.parts["sent"] > counts.parts["sent"]
    assert later.disagreements() == []
