# SPDX-License-Identifier: Apache-2.0
"""Debian's docker-registry as a child process on a free port of loopback: a real registry for tests and trying."""

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import requests

from linewatch_plant.processes import PlantError, _die_with_parent, free_port

PROGRAM = "docker-registry"
START_S = 60.0
STOP_S = 30.0

_CONFIG = """version: 0.1
log: {{level: warn}}
storage: {{filesystem: {{rootdirectory: "{place}"}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}"}}
{auth}
"""


def is_installed() -> bool:
    """Whether the program is there: on Debian, apt-get install docker-registry."""
    return shutil.which(PROGRAM) is not None


@contextlib.contextmanager
def serving(place: Path, htpasswd: Path | None = None) -> Iterator[str]:
    """A registry that keeps its content below `place`; yields its host and port. `htpasswd`: asks for a password.

    Raises PlantError when it does not come up.
    """
    process, host = _started(place, htpasswd)
    try:
        yield host
    finally:
        process.kill()
        process.wait(STOP_S)


def _started(place: Path, htpasswd: Path | None) -> tuple[subprocess.Popen[bytes], str]:
    place.mkdir(parents=True, exist_ok=True)
    for is_last in (False, False, True):
        port = free_port()
        auth = f'auth: {{htpasswd: {{realm: test, path: "{htpasswd}"}}}}' if htpasswd else ""
        config = place / "registry.yml"
        config.write_text(_CONFIG.format(place=place / "content", port=port, auth=auth))
        with (place / "registry.log").open("ab") as log:
            process = subprocess.Popen(
                [PROGRAM, "serve", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - one system call, before exec
            )
        try:
            _wait_until_up(process, f"127.0.0.1:{port}", place)
        except PlantError:
            process.kill()
            process.wait(STOP_S)
            if is_last:
                raise
        else:
            return process, f"127.0.0.1:{port}"
    raise AssertionError  # pragma: no cover - the last try raises


def _wait_until_up(process: subprocess.Popen[bytes], host: str, place: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            words = (place / "registry.log").read_text(errors="replace").splitlines()[-3:]
            raise PlantError("docker-registry ended at its start:\n" + "\n".join(words))
        with contextlib.suppress(requests.RequestException):
            if requests.get(f"http://{host}/v2/", timeout=2).status_code in {200, 401}:
                return
        time.sleep(0.02)
    raise PlantError(f"docker-registry did not answer within {START_S:.0f} s; see {place / 'registry.log'}")
