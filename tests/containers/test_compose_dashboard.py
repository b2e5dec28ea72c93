# SPDX-License-Identifier: Apache-2.0
"""Prometheus sees every service, its rules hold, and each panel of the dashboard shows something."""

import json
import subprocess

import pytest
from brokers import wait_for
from compose_stack import DEVICE, ROOT, SOON_S, Stack, asked, found, not_run

pytestmark = pytest.mark.containers

DASHBOARD = json.loads((ROOT / "observability/grafana/dashboards/linewatch.json").read_text())
QUERIES = sorted(
    {
        target["expr"].replace("$line", ".*")
        for panel in DASHBOARD["panels"]
        for target in panel.get("targets", [])
    }
)


def test_every_service_of_the_device_is_watched(prometheus: str) -> None:
    # The broker has no metrics of its own; what reaches it says whether it does.
    watched = {service for service in DEVICE if service != "broker"}

    wait_for(
        lambda: (
            {one["metric"]["instance"].partition(":")[0] for one in found(prometheus, "up == 1")} >= watched
        ),
        "every target answers",
        SOON_S,
    )
    wait_for(
        lambda: len(found(prometheus, '{__name__=~"linewatch_.+_broker_connected"} == 1')) == len(watched),
        "each says that it reaches the broker",
        SOON_S,
    )


def test_prometheus_accepts_the_rules_and_they_do_what_they_say(prometheus: str) -> None:
    image = json.loads(compose_config())["services"]["prometheus"]["image"]
    for arguments in (
        ["check", "config", "/etc/prometheus/prometheus.yml"],
        ["test", "rules", "/observability/alerts.test.yml"],
    ):
        done = subprocess.run(
            ["docker", "run", "--rm", "--network", "none", "--entrypoint", "promtool",
             "--volume", f"{ROOT}/observability:/observability:ro",
             "--volume", f"{ROOT}/observability/prometheus:/etc/prometheus:ro", "--workdir", "/tmp", image, *arguments],
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    loaded = asked(prometheus, "/api/v1/rules")["data"]["groups"]
    assert {group["name"] for group in loaded} == {"line", "inference", "uplink", "device"}
    assert all(rule["health"] != "err" for group in loaded for rule in group["rules"])


def test_each_panel_of_the_dashboard_shows_something(prometheus: str, stack: Stack) -> None:
    stack.flows()
    empty: list[str] = []

    def all_answer() -> bool:
        empty[:] = [query for query in QUERIES if not found(prometheus, query)]
        return not empty

    try:
        wait_for(all_answer, "every query has data", SOON_S)
    except AssertionError:
        pytest.fail("no data for:\n" + "\n".join(empty))


def test_what_is_shown_is_true(prometheus: str, stack: Stack) -> None:
    def shown_models() -> dict[str, dict[str, str]]:
        info = found(prometheus, "linewatch_inference_model_info")
        return {one["metric"]["model"]: one["metric"] for one in info}

    # Prometheus looks now and then: alone, this test comes before its first look.
    wait_for(lambda: shown_models().keys() == {"pv-el-cells", "turbofan"}, "both models are shown", SOON_S)
    models = shown_models()
    metadata = json.loads(
        (
            ROOT / "models/pv-el-cells/releases" / models["pv-el-cells"]["version"] / "metadata.json"
        ).read_text()
    )
    assert metadata["model_name"] == "pv-el-cells"
    assert models["pv-el-cells"]["provider"] == "CPUExecutionProvider"
    query = 'sum(linewatch_capture_parts_total{line="line-1"})'
    wait_for(
        lambda: any(float(one["value"][1]) for one in found(prometheus, query)), "parts are shown", SOON_S
    )
    # A later look at the spool can't have fewer parts than an earlier look by Prometheus.
    (shown,) = found(prometheus, query)
    assert 0 < float(shown["value"][1]) <= stack.spool("capture-line-1")[0]["", "sent"]


def test_prometheus_is_confined_and_on_loopback_only(prometheus: str, stack: Stack) -> None:
    described = stack.inspect("prometheus")

    assert described["Config"]["User"] == "65534:65534"
    assert described["HostConfig"]["ReadonlyRootfs"]
    assert described["HostConfig"]["CapDrop"] == ["ALL"]
    assert {one["HostIp"] for one in described["HostConfig"]["PortBindings"]["9090/tcp"]} == {"127.0.0.1"}


def test_grafana_shows_the_provisioned_dashboard(prometheus: str, stack: Stack) -> None:
    image = json.loads(compose_config())["services"]["grafana"]["image"]
    if subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False).returncode:
        pulled = subprocess.run(
            ["docker", "pull", "--quiet", image], capture_output=True, text=True, check=False
        )
        if pulled.returncode != 0:
            not_run(
                f"no image of Grafana can be had, and Debian has none: {pulled.stderr.strip().splitlines()[-1]}"
            )
    stack.up("grafana")
    grafana = f"http://127.0.0.1:{stack.settings['LINEWATCH_GRAFANA_PORT']}"
    password = stack.run("exec", "-T", "grafana", "cat", "/run/linewatch/page-password").strip()

    shown = asked(grafana, "/api/dashboards/uid/linewatch", f"admin:{password}")
    assert len(shown["dashboard"]["panels"]) == len(DASHBOARD["panels"])
    assert asked(grafana, "/api/datasources/uid/prometheus/health", f"admin:{password}")["status"] == "OK"
    assert stack.inspect("grafana")["Config"]["User"] == "10001:10001"


def compose_config() -> str:
    return subprocess.run(
        ["docker", "compose", "--profile", "observability", "config", "--format", "json"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
