# SPDX-License-Identifier: Apache-2.0
"""What support needs, in one archive, without a secret in it.

Guarantee: no file below secrets/ or uplink/ is read, and every text passes `redacted`.
Proved by: fleet/tests/test_doctor.py.
"""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
import time
from pathlib import Path

from linewatch_fleet.doctor.finding import Device, Finding, look
from linewatch_fleet.doctor.plant import inspected

LOG_LINES = 2000
MAX_LOG_BYTES = 4 << 20

NUCLEUS_LOGS = ("greengrass/v2/logs/greengrass.log", "greengrass/v2/logs/io.linewatch.*.log")

_SECRET_NAME = re.compile(
    r"(?i)((?:(?![a-z0-9_-]*_file\b)[a-z0-9_-]*(?:password|passwd|secret|token|authorization|credential|private_?key|api_?key|svcuid)[a-z0-9_-]*)"
    r"""["']?\s*[=:]\s*)(?:"[^"]*"|'[^']*'|(?:bearer|basic)\s+\S+|[^\s,;"'}]+)"""
)
_KEY_BLOCK = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)", re.DOTALL
)
_AWS_KEY = re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b")
_IN_ADDRESS = re.compile(r"(\w+://[^\s/:@]+:)[^\s/@]+@")

LEFT_OUT = "(left out)"


def redacted(text: str) -> str:
    """`text` without values of anything that is named like a secret, private keys and AWS access keys."""
    text = _KEY_BLOCK.sub(LEFT_OUT, text)
    text = _SECRET_NAME.sub(rf"\1{LEFT_OUT}", text)
    text = _IN_ADDRESS.sub(rf"\1{LEFT_OUT}@", text)
    return _AWS_KEY.sub(LEFT_OUT, text)


def write(device: Device, findings: list[Finding], path: Path) -> None:
    """Writes the archive, readable for its owner only. Raises FileExistsError."""
    parts = {
        "findings.json": json.dumps([vars(finding) for finding in findings], indent=2),
        "system.txt": _said(
            ("uname", "-a"),
            ("cat", "/etc/os-release"),
            ("df", "-h"),
            ("df", "-i"),
            ("free", "-m"),
            ("uptime",),
        ),
        "docker.txt": _said(
            ("docker", "version"),
            ("docker", "info"),
            ("docker", "ps", "-a"),
            ("docker", "images", "--digests"),
        ),
        "files.txt": _listing(device.directory),
    }
    for one in inspected():
        name = one["Name"].lstrip("/")
        parts[f"containers/{name}.json"] = json.dumps(one, indent=2)
        logs = look("docker", "logs", "--tail", str(LOG_LINES), "--timestamps", name, timeout_s=60)
        parts[f"containers/{name}.log"] = (logs.out + "\n" + logs.error)[-MAX_LOG_BYTES:]
    for pattern in NUCLEUS_LOGS:
        for log in sorted(device.root.glob(pattern)):
            parts[f"nucleus/{log.name}"] = _tail(log)
    if (device.root / "run/systemd/system").is_dir():
        parts["nucleus/journal.log"] = look(
            "journalctl", "-u", "ggl.*", "-n", str(LOG_LINES), "--no-pager", timeout_s=60
        ).out
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, text in sorted(parts.items()):
            data = redacted(text).encode()
            entry = tarfile.TarInfo(f"linewatch-support/{name}")
            entry.size, entry.mtime, entry.mode = len(data), int(time.time()), 0o600
            archive.addfile(entry, io.BytesIO(data))


def _said(*commands: tuple[str, ...]) -> str:
    told = []
    for command in commands:
        said = look(*command)
        told.append(f"$ {' '.join(command)}\n{said.out}\n{said.error}".rstrip())
    return "\n\n".join(told)


def _listing(directory: Path) -> str:
    """Names, sizes, owners and modes below our folder; never a content."""
    lines = []
    for place, _, names in os.walk(directory):
        for name in sorted(names)[:500]:
            try:
                status = (Path(place) / name).lstat()
            except OSError as error:
                lines.append(f"{place}/{name}: {error}")
                continue
            lines.append(
                f"{status.st_mode & 0o7777:04o} {status.st_uid}:{status.st_gid} {status.st_size:>12} {place}/{name}"
            )
        if len(lines) > 5000:
            lines.append("... and more")
            break
    return "\n".join(lines)


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - MAX_LOG_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError as error:
        return f"{path}: {error}"
