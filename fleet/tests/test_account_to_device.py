# SPDX-License-Identifier: Apache-2.0
"""The verbs one after another on one account, with the real template: provision, publish, deploy, upgrade, roll back;
every policy enforced."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from clouds import Cloud, running
from greengrass_account import AwsAccount

NAME = "dev"
THING = "linewatch-press-1"


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    with running(tmp_path) as made:
        made.ca_file.write_text(requests.get(f"{made.endpoint}/_ministack/iot/ca.pem", timeout=60).text)
        yield made


def linewatch(cloud: Cloud, verb: str, *arguments: Any) -> dict[str, Any]:
    result = cloud.run(verb, NAME, *map(str, arguments), "--json")
    assert result.exit_code == 0, result.stderr
    said: dict[str, Any] = json.loads(result.stdout)
    return said


def test_from_an_empty_account_to_a_device_and_back_a_release(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in cloud.variables.items():
        monkeypatch.setenv(name, value)
    cloud.fleet(NAME, repository_prefix=f"{NAME}/", gate={"signature": False})
    linewatch(cloud, "provision")
    linewatch(cloud, "provision", "--device", THING)
    shop = AwsAccount(cloud.directory, NAME, cloud.greengrass, cloud.variables, "")
    core = cloud.greengrass.add_core(THING, shop.group)

    first = shop.release("0.2.0", models=True)
    linewatch(cloud, "publish", "--release", first)
    deployed = linewatch(cloud, "deploy", "--release", first)
    assert deployed["devices"] == 1, "the forwarder's own thing is no core device"
    core.succeeds(shop.target)
    (device,) = linewatch(cloud, "status")["devices"]
    assert (device["device"], device["release"], device["wrong"]) == (THING, "0.2.0", [])
    merged = shop.latest()["components"]["io.linewatch.Console"]["configurationUpdate"]["merge"]
    outputs = cloud.client("cloudformation").describe_stacks(StackName=f"linewatch-{NAME}")["Stacks"][0][
        "Outputs"
    ]
    url = next(one["OutputValue"] for one in outputs if one["OutputKey"] == "ApiUrl")
    assert json.loads(merged)["CloudApiUrl"] == url

    second = shop.release("0.3.0", "inference", models=True)
    linewatch(cloud, "publish", "--release", second)
    linewatch(cloud, "deploy", "--release", second)
    core.succeeds(shop.target)
    assert linewatch(cloud, "status")["devices"][0]["release"] == "0.3.0"
    linewatch(cloud, "rollback")
    core.succeeds(shop.target)
    assert linewatch(cloud, "status")["devices"][0]["release"] == "0.2.0"
    changed = {name for name, one in core.installed.items() if one["componentVersion"] == "0.3.0"}
    assert changed == set()
