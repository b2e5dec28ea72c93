# SPDX-License-Identifier: Apache-2.0
"""`linewatch ...` against the stand-in cloud: the environment "test" of a fleet file, over HTTP as in an account."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from click.testing import CliRunner, Result

from linewatch_fleet.cli import linewatch
from linewatch_plant.standin_cloud import REGION, StandinCloud

ENVIRONMENT = "test"
ACCOUNT = "000000000000"


@dataclass(slots=True)
class Operator:
    """Somebody with a fleet file and credentials."""

    cloud: StandinCloud
    fleet_file: Path

    def run(self, verb: str, *arguments: str | Path) -> Result:
        """`linewatch verb arguments` in this process; "test" is the environment's name. A traceback fails the test."""
        with _environment(self.cloud):
            command = ["--fleet", str(self.fleet_file), verb, *map(str, arguments)]
            result = CliRunner().invoke(linewatch, command)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result


def operator_of(cloud: StandinCloud, directory: Path) -> Operator:
    """An operator whose fleet file lies in `directory`."""
    path = directory / "fleet.yaml"
    environment = {"name": ENVIRONMENT, "account": ACCOUNT, "region": REGION, "gate": {"signature": False}}
    path.write_text(yaml.safe_dump({"environments": [environment]}))
    return Operator(cloud, path)


@contextmanager
def _environment(cloud: StandinCloud) -> Iterator[None]:
    own = {
        "AWS_ENDPOINT_URL": cloud.endpoint_url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": REGION,
    }
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
