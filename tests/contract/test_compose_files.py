# SPDX-License-Identifier: Apache-2.0
"""What docker-compose.yml promises can be read off it, without an engine: tests/containers runs it."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
RUNNING = sorted(SERVICES.keys() - {"secrets", "users"})
VERSION = (ROOT / "VERSION").read_text().strip()
DOCUMENT = (ROOT / "docs/compose.md").read_text()
RULES = yaml.safe_load((ROOT / "observability/prometheus/alerts.yml").read_text())["groups"]
ALERTS = {rule["alert"]: rule for group in RULES for rule in group["rules"]}
DASHBOARD = json.loads((ROOT / "observability/grafana/dashboards/linewatch.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def variables() -> dict[str, str]:
    """Name -> default, as docker-compose.yml has them; "" where it has none or takes another variable's."""
    text = "\n".join(line for line in TEXT.splitlines() if not line.lstrip().startswith("#"))
    given = re.findall(r"\$\{([A-Z_]+):-([^$}]*)", text)
    # A key without a value takes the shell's variable of the same name.
    passed_on = re.findall(r"[{,] *([A-Z_]+): *[},]", text)
    return {name: value for name, value in given if name != "SSL_CERT_FILE"} | dict.fromkeys(passed_on, "")


def test_env_example_has_every_variable_with_its_default() -> None:
    example = (ROOT / ".env.example").read_text()

    assert dict(re.findall(r"^#([A-Z_]+)=(.*)$", example, re.MULTILINE)) == variables()
    # A copy of it changes nothing.
    assert not re.findall(r"^[^#\n]", example, re.MULTILINE)


@pytest.mark.parametrize("name", sorted(variables()))
def test_every_variable_is_documented(name: str) -> None:
    assert f"`{name}`" in DOCUMENT or f"| {name} |" in DOCUMENT


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a_service_is_confined(service: str) -> None:
    described = SERVICES[service]

    assert described["read_only"] is True
    assert described["cap_drop"] == ["ALL"]
    assert described["security_opt"] == ["no-new-privileges:true"]
    assert described["pids_limit"] > 0
    assert described["mem_limit"] == described["memswap_limit"]
    assert described["logging"]["options"].keys() == {"max-size", "max-file"}
    assert not described.keys() & {"privileged", "cap_add", "devices", "pid", "ipc", "userns_mode"}
    assert described.get("network_mode") in {None, "none"}
    for volume in described.get("volumes", []):
        # `users` writes the console's list of users, and sees the console's secrets only.
        if isinstance(volume, dict) and service != "users":
            # What is not the service's own state is read.
            assert volume["read_only"] is True
        assert "docker.sock" not in str(volume)


@pytest.mark.parametrize("service", RUNNING)
def test_a_running_service_restarts_stops_in_time_and_has_a_health_check(service: str) -> None:
    described = SERVICES[service]
    dockerfile = described.get("build", {}).get("dockerfile") or next(
        (one["build"]["dockerfile"] for one in SERVICES.values() if one["image"] == described["image"] and "build" in one), None,
    )  # fmt: skip

    assert described["restart"] == "unless-stopped"
    assert described["stop_grace_period"] == "12s"
    assert described["init"] is True
    assert described["cpus"] > 0
    assert "healthcheck" in described or "\nHEALTHCHECK " in (ROOT / dockerfile).read_text()


def test_the_forwarder_of_the_release_before_knows_every_variable() -> None:
    """It refuses one that it does not know, and its image alone can be put back: docs/compose.md promises it."""
    known = {
        "METRICS_HOST", "METRICS_PORT", "MQTT_HOST", "MQTT_USERNAME", "MQTT_PASSWORD_FILE", "UPLINK_HOST", "UPLINK_PORT",
        "UPLINK_CLIENT_ID", "UPLINK_CA_FILE", "UPLINK_CERTIFICATE_FILE", "UPLINK_KEY_FILE",
    }  # fmt: skip
    forwarder = SERVICES["forwarder"]
    assert {name.removeprefix("FORWARDER_") for name in forwarder["environment"]} <= known

    # So the image has to know by itself what is mounted.
    image = (ROOT / forwarder["build"]["dockerfile"]).read_text()
    (place,) = re.findall(r"\bFORWARDER_EVIDENCE_DIR=(\S+)", image)
    mounted = str(forwarder["volumes"])
    assert f"'target': '{place}', 'read_only': True" in mounted
    assert f"evidence-state:{place}-state" in mounted


def test_ports_are_published_on_loopback_only() -> None:
    for service, described in SERVICES.items():
        for port in described.get("ports", []):
            assert port.startswith("127.0.0.1:"), service


def test_images_are_this_version_or_pinned() -> None:
    for service, described in SERVICES.items():
        tag = re.search(r":-([^}]*):([^}:]+)}", described["image"])
        assert tag, service
        if tag[1].startswith("linewatch/"):
            assert tag[2] == VERSION
        else:
            assert re.fullmatch(r"v?\d+\.\d+\.\d+", tag[2]), service


@pytest.mark.parametrize("name", sorted(SERVICES) + sorted(COMPOSE["volumes"]))
def test_every_service_and_volume_is_documented(name: str) -> None:
    assert re.search(rf"^\|.*\b{name}\b.*\|", DOCUMENT, re.MULTILINE)


def test_everything_with_metrics_is_watched() -> None:
    config = yaml.safe_load((ROOT / "observability/prometheus/prometheus.yml").read_text())
    watched = {
        target
        for job in config["scrape_configs"]
        for one in job["static_configs"]
        for target in one["targets"]
    }
    offered = {
        f"{service}:{value}"
        for service, described in SERVICES.items()
        for name, value in described.get("environment", {}).items()
        if name.endswith("_METRICS_PORT")
    }

    assert watched - {"127.0.0.1:9090"} == offered


def metric_names(text: str) -> set[str]:
    """Metrics of ours that an expression names, as the services define them."""
    return {
        re.sub(r"_(bucket|count|sum|total)$", "", name)
        for name in re.findall(r"\blinewatch_[a-z_]+\b(?!\.)", text)
    }


def defined() -> str:
    ours = [*ROOT.glob("services/*/linewatch_*/**/*.py"), *ROOT.glob("runtime/linewatch_runtime/*.py")]
    return "\n".join(path.read_text() for path in ours)


@pytest.mark.parametrize(
    "name",
    sorted(
        metric_names(" ".join(rule["expr"] for rule in ALERTS.values()))
        | metric_names(" ".join(target["expr"] for panel in PANELS for target in panel["targets"]))
    ),
)
def test_a_metric_that_is_asked_for_is_one_of_ours(name: str) -> None:
    service, short = re.fullmatch(r"linewatch_([a-z]+)_(.*)", name).groups()  # type: ignore[union-attr]
    stages = "queue|preprocess|predict|postprocess"
    if service == "inference" and re.fullmatch(rf"({stages})_seconds", short):
        short = "{stage}_seconds"

    assert re.search(rf'"(linewatch_{service}_|{{_?PREFIX}}|{{prefix}})?{re.escape(short)}"', defined()), name


NAMES = """
import asyncio
import linewatch_capture.metrics
import linewatch_console.web
import linewatch_forwarder.__main__
from linewatch_forwarder.metrics import LookMetrics
from linewatch_inference.metrics import Metrics
import linewatch_runtime.mqtt
from prometheus_client import REGISTRY

async def main():
    Metrics().watch_broker(lambda: True)
    REGISTRY.register(LookMetrics(lambda: True))

asyncio.run(main())
for one in REGISTRY.collect():
    if one.name.startswith("linewatch_"):
        print(one.name + ("_total" if one.type == "counter" else ""))
"""


def test_every_metric_is_documented_and_no_other() -> None:
    # In a process of its own: the registry is the process's.
    done = subprocess.run([sys.executable, "-c", NAMES], capture_output=True, text=True, check=True)
    ours = set(done.stdout.split())

    document = (ROOT / "observability/README.md").read_text()
    documented: set[str] = set()
    for service in ("capture", "inference", "forwarder", "console", "mqtt"):
        table = document.partition(f": `linewatch_{service}_…` |")[2].partition("\n\n")[0]
        cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
        names = [name for cell in cells for name in re.findall(r"`([a-z_]+)(?:{[^}]*})?`", cell)]
        documented |= {f"linewatch_{service}_{name}" for name in names}
    assert documented == ours


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_an_alert_says_what_it_means_and_what_to_do_and_is_tested_both_ways(alert: str) -> None:
    tested = [
        one["exp_alerts"]
        for test in yaml.safe_load((ROOT / "observability/alerts.test.yml").read_text())["tests"]
        for one in test["alert_rule_test"]
        if one["alertname"] == alert
    ]

    assert ALERTS[alert]["labels"]["severity"] in {"page", "ticket"}
    assert ALERTS[alert]["annotations"].keys() == {"summary", "remedy"}
    assert any(tested)
    assert not all(tested)


def test_the_dashboard_is_provisioned_and_each_panel_says_what_it_shows() -> None:
    provisioning = ROOT / "observability/grafana/provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((provisioning / "dashboards/linewatch.yml").read_text())["providers"]

    assert source["url"] == "http://prometheus:9090"
    assert any(one.get("target") == provider["options"]["path"] for one in SERVICES["grafana"]["volumes"])
    assert DASHBOARD["uid"] == "linewatch"
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {source["uid"]}


def test_no_panel_lies_over_another_or_beyond_the_edge() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
