# SPDX-License-Identifier: Apache-2.0
"""The folder that goes to a device: configuration, authorities, certificates and keys, and the script that places them."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from linewatch_fleet.errors import CommandFailed
from linewatch_fleet.plan import Plan
from linewatch_fleet.provisioning.keys import write_whole
from linewatch_fleet.provisioning.nucleus import CREDENTIALS, ROOTS, Connection, Runtime, configuration

_SCRIPT = Path(__file__).with_name("install.sh")
_README = """# {thing}

For one device, and for nobody else: nucleus/key.pem and uplink/key.pem are its private keys. They were made here and
have never been sent anywhere. Copy the folder to the device, run the script, then delete the copies that you made.

    scp -r {folder} DEVICE:
    ssh DEVICE sudo sh {folder}/install.sh{installer}

The script shows what it would do and asks. docs/first-device.md tells what comes before and after.
"""


def files_of(
    thing: str,
    runtime: Runtime,
    connection: Connection,
    version: str,
    accelerator: str,
    authorities: bytes,
    facts: dict[str, str],
) -> dict[str, bytes]:
    """What the folder holds besides keys and certificates, by path in it."""
    script = _SCRIPT.read_text(encoding="utf-8")
    for name, value in (
        ("RUNTIME", runtime),
        ("THING", thing),
        ("VERSION", version),
        ("ROOT", ROOTS[runtime]),
        ("CREDENTIALS", CREDENTIALS[runtime]),
    ):
        script = script.replace(f"@{name}@", value)
    readme = _README.format(
        thing=thing, folder=thing, installer=" --installer DIR" if runtime == "classic" else ""
    )
    return {
        "nucleus/config.yaml": configuration(runtime, thing, connection, version, accelerator).encode(),
        "nucleus/ca.pem": authorities,
        "uplink/ca.pem": authorities,
        "install.sh": script.encode(),
        "README.md": readme.encode(),
        "device.json": (json.dumps({"schema": "linewatch.device/v1", **facts}, indent=2) + "\n").encode(),
    }


def plan_files(folder: Path, files: dict[str, bytes], plan: Plan) -> None:
    """Plans the files that are not there, or not as they must be."""
    for name, content in files.items():
        path = folder / name
        if path.is_file() and path.read_bytes() == content:
            continue
        plan.add("write", str(path), "", partial(write_whole, path, content))


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Holds a device's folder for one run; the lock ends with the process. Raises CommandFailed."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise CommandFailed(f"another run of linewatch provision is at work in {folder}") from error
    finally:
        os.close(handle)
