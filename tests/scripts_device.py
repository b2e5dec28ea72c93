# SPDX-License-Identifier: Apache-2.0
"""A device to run the recipes' scripts on, with a `docker` that only writes down how it was called."""

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rendered_recipes import components

from linewatch_fleet.recipes import render

OURS = {one.name.removeprefix("io.linewatch."): one for one in components()}

DOCKER = r"""#!/bin/sh
# Arguments, and of `run` the environment, each ended by NUL; RS ends the arguments, GS the call. Written in one piece,
# because what a script leaves in the background calls, too.
( printf '%s\0' "$@"
  printf '\036\0'
  [ "$1" != run ] || env -0
  printf '\035\0' ) >"$DOCKER_CALLS.$$"
cat "$DOCKER_CALLS.$$" >>"$DOCKER_CALLS"
rm "$DOCKER_CALLS.$$"
case "$1 $2" in
  "container inspect") [ -n "$DOCKER_OLD" ] && [ ! -e "$DOCKER_CALLS.removed" ]; exit ;;
  "rm -f") [ "$3" != "$DOCKER_OLD" ] || touch "$DOCKER_CALLS.removed" ;;
  "image inspect") case "$3" in *"$DOCKER_LACKS"*) exit 1 ;; esac ;;
  "ps "*) printf %s "$DOCKER_PS" ;;
  "run "*)
    case " $* " in *" make-secrets "*) exit 0 ;; esac
    if [ -n "$DOCKER_STAYS" ]; then
      trap 'exit 143' TERM
      touch "$DOCKER_STAYS"
      while :; do sleep 0.05; done
    fi
    exit "$DOCKER_ENDS_WITH" ;;
esac
"""


class Device:
    """A folder that stands for a device: a fake `docker`, the place that scripts write to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.directory = folder / "lw"
        self.calls_file = folder / "calls"
        (folder / "bin").mkdir(parents=True)
        docker = folder / "bin" / "docker"
        docker.write_text(DOCKER)
        docker.chmod(0o755)
        # Nobody but root gives files away; where the tests do not run as root, that is left out.
        if os.getuid() != 0:
            (folder / "bin" / "chown").symlink_to("/bin/true")
        for client in ("inference", "forwarder", "console", "line-1", "line-2"):
            (self.directory / "secrets" / client).mkdir(parents=True)
            (self.directory / "secrets" / client / "mqtt-password").write_text("secret")
        (self.directory / "uplink").mkdir()
        for name in ("ca", "certificate", "key"):
            (self.directory / "uplink" / f"{name}.pem").write_text("pem")

    def command(
        self,
        component: render.Component,
        step: str,
        configured: Mapping[str, str],
        environment: Mapping[str, str],
    ) -> tuple[list[str], dict[str, str]]:
        """Script and environment as the classic nucleus makes them: `sh -c`, and Setenv beside the process."""
        lifecycle = component.recipe["Lifecycle"]["all"]
        texts = {
            **component.recipe["ComponentConfiguration"]["DefaultConfiguration"],
            "Directory": str(self.directory), **configured,
        }  # fmt: skip

        def put_in(text: str) -> str:
            return re.sub(r"\{configuration:/(\w+)\}", lambda found: texts[found[1]], text).replace(
                "{artifacts:path}", str(self.folder / "artifacts")
            )

        return ["sh", "-c", lifecycle[step]["Script"]], {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "DOCKER_CALLS": str(self.calls_file),
            "AWS_IOT_THING_NAME": "Press:Line_1",
            "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT": str(self.folder / "ipc.socket"),
            "SVCUID": "token",
            "DOCKER_LACKS": "inference-jetson@",
            "DOCKER_ENDS_WITH": "0",
            "DOCKER_PS": "",
            "DOCKER_OLD": "",
            "DOCKER_STAYS": "",
            **{key: put_in(value) for key, value in lifecycle["Setenv"].items()},
            **environment,
        }

    def run(
        self,
        name: str,
        step: str = "startup",
        configured: Mapping[str, str] | None = None,
        **environment: str,
    ) -> subprocess.CompletedProcess[str]:
        command, variables = self.command(OURS[name], step, configured or {}, environment)
        return subprocess.run(
            command, check=False, env=variables, cwd=self.folder, capture_output=True, text=True, timeout=300
        )

    @property
    def calls(self) -> list[dict[str, Any]]:
        text = self.calls_file.read_text() if self.calls_file.exists() else ""
        calls = []
        for call in text.split("\x1d\0")[:-1]:
            arguments, _, environment = call.partition("\x1e\0")
            pairs = (pair.partition("=") for pair in environment.split("\0")[:-1])
            calls.append(
                {
                    "arguments": arguments.split("\0")[:-1],
                    "environment": {key: value for key, _, value in pairs},
                }
            )
        return calls

    @property
    def service(self) -> dict[str, Any]:
        """The last `docker run`, as arguments and environment."""
        return [one for one in self.calls if one["arguments"][0] == "run"][-1]
