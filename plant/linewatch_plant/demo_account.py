# SPDX-License-Identifier: Apache-2.0
"""`build/demo/linewatch`: the command line as an operator of the demo's account has it."""

import shlex
import sys
from pathlib import Path

import yaml

from linewatch_plant.ministack_process import REGION
from linewatch_plant.provisioning import STACK
from linewatch_plant.standin_cloud import ADMINISTRATOR, StandinCloud

ENVIRONMENT = "demo"
# ministack's, as of every stand-in.
ACCOUNT = "000000000000"


def write_operator(cloud: StandinCloud, directory: Path) -> Path:
    """Writes `fleet.yaml` and the script `linewatch` that goes with it; gives the script."""
    fleet_file, script = directory / "fleet.yaml", directory / "linewatch"
    environment: dict[str, object] = {
        "name": ENVIRONMENT,
        "account": ACCOUNT,
        "region": REGION,
        "stack_name": STACK,
    }
    environment["gate"] = {"signature": False}
    fleet_file.write_text(yaml.safe_dump({"environments": [environment]}, sort_keys=False))
    own = {
        "AWS_ENDPOINT_URL": cloud.endpoint_url,
        **{name.upper(): value for name, value in ADMINISTRATOR.items()},
        "AWS_DEFAULT_REGION": REGION,
    }
    command = [str(Path(sys.executable).with_name("linewatch")), "--fleet", str(fleet_file)]
    script.write_text(
        "#!/bin/sh\n# Written by make demo: linewatch against its stand-in account, while it runs.\n"
        + "".join(f"export {name}={shlex.quote(value)}\n" for name, value in own.items())
        + f'exec {shlex.join(command)} "$@"\n'
    )
    script.chmod(0o700)
    return script


def shown(script: Path) -> str:
    """The script as it is typed: from here on, where it lies below."""
    here = Path.cwd()
    return str(script.relative_to(here)) if script.is_relative_to(here) else str(script)
