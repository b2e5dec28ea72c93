# SPDX-License-Identifier: Apache-2.0
"""Settings: wrong ones are told by their variable's name, and the README's table is true."""

import re
from pathlib import Path

import pytest

from linewatch_capture.settings import Settings
from linewatch_runtime.settings import load

README = Path(__file__).resolve().parents[1] / "README.md"

GOOD = {
    "CAPTURE_LINE": "line-1", "CAPTURE_STATION": "station-1", "CAPTURE_PATH": "pictures", "CAPTURE_MODEL": "pv-el-cells",
}  # fmt: skip


@pytest.fixture
def environment(monkeypatch):
    def put(**changes):
        for name, value in (GOOD | {f"CAPTURE_{name}": value for name, value in changes.items()}).items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)

    return put


def test_model_and_version_are_told_apart(environment):
    environment(MODEL="pv-el-cells:1.0.0")

    settings = load(Settings)

    assert (settings.model_name, settings.model_version) == ("pv-el-cells", "1.0.0")


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("LINE", "device", "reserved"),
        ("LINE", "Line 1", "CAPTURE_LINE"),
        ("STATION", None, "CAPTURE_STATION: it must be set"),
        ("PATH", None, "CAPTURE_PATH: it must be set"),
        ("MODEL", "pv/el", "CAPTURE_MODEL"),
        ("RATE", "0", "CAPTURE_RATE"),
        ("RATE", "fast", "CAPTURE_RATE"),
        ("SOURCE", "camera", "CAPTURE_SOURCE"),
        ("INFERENCE_ADDRESS", "8081", "host:port"),
        ("EVIDENCE_OK_SHARE", "2", "CAPTURE_EVIDENCE_OK_SHARE"),
        ("RAET", "2", "did you mean CAPTURE_RATE?"),
    ],
)
def test_a_wrong_setting_ends_the_process_with_its_name(environment, capsys, name, value, told):
    environment(**{name: value})

    with pytest.raises(SystemExit) as end:
        load(Settings)

    assert end.value.code == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("name", ["LOOP", "PARTS"])
def test_a_watched_folder_has_no_end(environment, capsys, name):
    environment(SOURCE="watch", **{name: "1"})

    with pytest.raises(SystemExit):
        load(Settings)

    assert f"CAPTURE_{name}: a watched directory has no end" in capsys.readouterr().err


def test_the_readme_has_every_setting_as_it_is():
    rows = re.findall(r"^\| `(CAPTURE_\w+)` \| (.*?) \| (.*?) \|$", README.read_text(), re.MULTILINE)

    assert rows == table()


def table():
    """The settings as rows of the README: name, default, meaning."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = "required" if field.is_required() else "" if field.default is None else f"`{field.default}`"
        rows.append((f"CAPTURE_{name.upper()}", default, field.description))
    return rows
