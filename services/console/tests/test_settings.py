# SPDX-License-Identifier: Apache-2.0
import re
import socket
import subprocess
import sys
from pathlib import Path

from console_process import DEADLINE_S

from linewatch_console.settings import Settings

README = Path(__file__).parents[1] / "README.md"


def run(environment: dict[str, str], **settings: str) -> tuple[int, str]:
    """Starts the console with settings that it must refuse."""
    done = subprocess.run(
        [sys.executable, "-m", "linewatch_console"],
        env=environment | settings,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    return done.returncode, done.stderr


def test_other_machines_are_served_only_with_a_way_to_sign_in(environment: dict[str, str]) -> None:
    code, told = run(environment, CONSOLE_HOST="0.0.0.0")

    assert code == 2
    assert "CONSOLE_USERS_FILE, CONSOLE_PASSWORD_FILE or CONSOLE_OIDC_ISSUER must be set" in told
    assert "CONSOLE_HOST=127.0.0.1" in told


def test_short_password_is_refused(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hunter2\n")

    code, told = run(environment, CONSOLE_HOST="0.0.0.0", CONSOLE_PASSWORD_FILE=str(tmp_path / "password"))

    assert code == 2
    assert "at least 12 characters" in told
    assert "hunter2" not in told


def test_unknown_setting_is_refused_with_the_nearest_name(environment: dict[str, str]) -> None:
    code, told = run(environment, CONSOLE_EVIDENCE_DRI="/x")

    assert (code, "did you mean CONSOLE_EVIDENCE_DIR?" in told) == (2, True)


def test_api_without_token_is_refused(environment: dict[str, str]) -> None:
    code, told = run(environment, CONSOLE_CLOUD_API_URL="http://127.0.0.1:1")

    assert (code, "CONSOLE_CLOUD_API_TOKEN_FILE" in told) == (2, True)


def test_taken_port_is_told(environment: dict[str, str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        code, told = run(environment, CONSOLE_PORT=str(other.getsockname()[1]))

    assert code == 2
    assert told.startswith("CONSOLE_PORT: can't listen on 127.0.0.1:")


def test_readme_lists_every_setting_as_it_is() -> None:
    rows = re.findall(r"^\| `(CONSOLE_\w+)` \| (.*?) \| (.*?) \|$", README.read_text(), re.MULTILINE)

    expected = [
        (
            f"CONSOLE_{name.upper()}",
            "" if field.default in (None, "") else f"`{field.default}`",
            " ".join((field.description or "").split()),
        )
        for name, field in Settings.model_fields.items()
    ]
    assert rows == expected
