# SPDX-License-Identifier: Apache-2.0
"""An account for the operator's verbs: ministack and the stand-in for Greengrass, and `linewatch` run against them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import lambda_package
import yaml
from botocore.client import BaseClient
from botocore.config import Config
from click.testing import CliRunner, Result

from linewatch_fleet.aws import Account
from linewatch_fleet.cli import linewatch
from linewatch_plant.ministack_process import REGION, end, launched
from linewatch_plant.standin_greengrass import ACCOUNT, StandinGreengrass

_READING = ("Describe", "List", "Get", "Head")


class Cut(BaseException):
    """The process ends here, as by kill -9: nothing catches it."""


@dataclass(slots=True)
class Cloud:
    """A running account. Fleet file and device folders lie in `directory`."""

    directory: Path
    endpoint: str
    mqtt_port: int
    greengrass: StandinGreengrass
    ca_file: Path
    # Every operation that a command asked for, as service:Operation.
    operations: set[str] = field(default_factory=set)
    # Every request's body, when somebody listens.
    bodies: list[bytes] | None = None

    @property
    def variables(self) -> dict[str, str]:
        """How boto3 finds the account."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ENDPOINT_URL_GREENGRASSV2": self.greengrass.endpoint_url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": REGION,
        }

    def client(self, service: str) -> Any:
        """A client of the account's administrator."""
        endpoint = self.greengrass.endpoint_url if service == "greengrassv2" else self.endpoint
        return boto3.client(
            service,
            endpoint_url=endpoint,
            region_name=REGION,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def fleet(self, environment: str, **more: Any) -> Path:
        """A fleet file with one environment."""
        parameters = {"ErpBaseUrl": "http://127.0.0.1:9", "IsStandIn": "true", **more.pop("parameters", {})}
        content = {
            "environments": [
                {"name": environment, "account": ACCOUNT, "region": REGION, "parameters": parameters, **more}
            ]
        }
        path = self.directory / f"{environment}.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    def arguments(self, verb: str, environment: str, *arguments: str) -> list[str]:
        """A command line; the layer is this interpreter's, because the account's functions run on it."""
        fleet = self.directory / f"{environment}.yaml"
        if not fleet.exists():
            self.fleet(environment)
        line = ["--fleet", str(fleet), verb, environment, *arguments]
        if verb == "provision" and "--device" not in arguments and "--devices" not in arguments:
            line += ["--layer", str(lambda_package.layer_zip())]
        elif verb == "provision":
            line += [] if "--ca-file" in arguments else ["--ca-file", str(self.ca_file)]
            line += [] if "--out" in arguments else ["--out", str(self.directory / "devices")]
        return line

    def run(self, verb: str, environment: str, *arguments: str, typed: str = "") -> Result:
        """Runs a command in this process. What it says is in a failed test's output."""
        said = CliRunner().invoke(
            linewatch, self.arguments(verb, environment, *arguments), input=typed, env=self.variables
        )
        print(said.output)
        return said

    def start(self, verb: str, environment: str, *arguments: str) -> subprocess.Popen[str]:
        """Starts a command as a process."""
        return subprocess.Popen(
            [sys.executable, "-m", "linewatch_fleet.cli", *self.arguments(verb, environment, *arguments)],
            env={**os.environ, **self.variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def plan(self, verb: str, environment: str, *arguments: str) -> list[dict[str, str]]:
        """What a command would do or did, by its --json document."""
        said = self.run(verb, environment, *arguments, "--json")
        assert said.exit_code == 0, said.output
        plan: list[dict[str, str]] = json.loads(said.stdout)["plan"]
        return plan

    def device(self, thing: str) -> Path:
        """A device's folder."""
        return self.directory / "devices" / thing

    def certificates(self) -> dict[str, str]:
        """Status of every certificate of the account, by its id."""
        pages = self.client("iot").get_paginator("list_certificates").paginate()
        return {one["certificateId"]: one["status"] for page in pages for one in page["certificates"]}

    def certificates_of(self, thing: str) -> list[str]:
        """Ids of the certificates attached to a thing."""
        arns = self.client("iot").list_thing_principals(thingName=thing)["principals"]
        return [arn.rpartition("/")[2] for arn in arns]


@contextmanager
def listening(cloud: Cloud, at_call: Callable[[str, str], None] = lambda *_: None) -> Iterator[None]:
    """Has botocore tell of every operation that commands in this process ask for, before and after it."""
    made_of, tables_of = Account._made, Account.tables

    def client(self: Account, service: str, config: Config) -> BaseClient:
        return heard(made_of(self, service, config), service)

    def tables(self: Account) -> BaseClient:
        return heard(tables_of(self), "dynamodb")

    def heard(made: BaseClient, service: str) -> BaseClient:
        def before(model: Any, params: dict[str, Any], **_: Any) -> None:
            cloud.operations.add(f"{service}:{model.name}")
            if cloud.bodies is not None:
                body = params["body"]
                cloud.bodies.append(body if isinstance(body, bytes) else str(body).encode())
            at_call("before", model.name)

        made.meta.events.register(f"before-call.{service}", before)
        made.meta.events.register(f"after-call.{service}", lambda model, **_: at_call("after", model.name))
        return made

    Account._made, Account.tables = client, tables  # type: ignore[method-assign]
    try:
        yield
    finally:
        Account._made, Account.tables = made_of, tables_of  # type: ignore[method-assign]


@contextmanager
def cut(cloud: Cloud, at: int, when: str) -> Iterator[list[int]]:
    """Ends a command at its `at`-th request that changes something: "before" it is sent, or "after" AWS did it and the
    answer was lost. Requests that only read are passed over: a cut at them leaves what the change before them left.
    """
    seen = [0]

    def at_call(moment: str, operation: str) -> None:
        if moment == when and not operation.startswith(_READING):
            seen[0] += 1
            if seen[0] == at:
                raise Cut

    with listening(cloud, at_call):
        yield seen


@contextmanager
def running(directory: Path) -> Iterator[Cloud]:
    """Starts both stand-ins, with every policy enforced."""
    place = directory / "ministack"
    place.mkdir()
    process, http_port, mqtt_port = launched(place, enforce_policies=True)
    greengrass = StandinGreengrass()
    try:
        endpoint = f"http://127.0.0.1:{http_port}"
        yield Cloud(directory, endpoint, mqtt_port, greengrass, directory / "ca.pem")
    finally:
        greengrass.stop()
        end(process)
