# SPDX-License-Identifier: Apache-2.0
"""User and password for a registry that is no ECR: what `docker login` left, read where Docker reads it.

Nothing is ever put on a command line: a credential helper is asked over its standard input.
"""

import base64
import binascii
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from linewatch_fleet.errors import BadInput, CommandFailed

HELPER_TIMEOUT_S = 30


def docker_credentials(host: str) -> tuple[str, str] | None:
    """What Docker has for the host; None when nothing. Raises BadInput for a file that can't be read."""
    path = Path(os.environ.get("DOCKER_CONFIG", Path.home() / ".docker")) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: can't be read: {error}; it is written by `docker login`") from error
    if not isinstance(config, dict):
        raise BadInput(f"{path}: is no JSON object; it is written by `docker login`")
    helper = config.get("credHelpers", {}).get(host) or config.get("credsStore")
    return _from_helper(helper, host) if helper else _from_file(config, host, path)


def _from_file(config: dict[str, Any], host: str, path: Path) -> tuple[str, str] | None:
    encoded = config.get("auths", {}).get(host, {}).get("auth")
    if not encoded:
        return None
    try:
        user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: auths.{host}.auth can't be read; run `docker login {host}` again") from error
    return user, password


def _from_helper(name: str, host: str) -> tuple[str, str] | None:
    program = f"docker-credential-{name}"
    try:
        done = subprocess.run(
            [program, "get"],
            input=host,
            capture_output=True,
            text=True,
            check=False,
            timeout=HELPER_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandFailed(
            f"{program}, which Docker's configuration names, can't be asked: {error}"
        ) from error
    if done.returncode != 0:
        return None
    answer = json.loads(done.stdout)
    return answer["Username"], answer["Secret"]
