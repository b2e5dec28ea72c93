# SPDX-License-Identifier: Apache-2.0
"""Settings: wrong ones are told by their variable's name, and the README's table is true."""

import re
import tomllib
from pathlib import Path

import pytest

from linewatch_inference.open_inference import SERVICE_VERSION
from linewatch_inference.settings import Settings
from linewatch_runtime.settings import load

SERVICE = Path(__file__).resolve().parents[1]


def test_models_are_names_with_or_without_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_MODELS", "pv-el-cells, turbofan:1.2.0")

    assert load(Settings).wanted_models == [("pv-el-cells", ""), ("turbofan", "1.2.0")]


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("PORT", "70000", "INFERENCE_PORT"),
        ("MODELS", "pv:latest", "INFERENCE_MODELS: 'pv:latest' is neither"),
        ("VARIANT", "fp16", "INFERENCE_VARIANT"),
        ("WORKERS", "0", "INFERENCE_WORKERS"),
        ("QUEUE_LIMIT", "-1", "INFERENCE_QUEUE_LIMIT"),
        ("EXECUTION_PROVIDERS", " , ", "INFERENCE_EXECUTION_PROVIDERS: name at least one"),
        ("PROVIDER_POLICY", "maybe", "INFERENCE_PROVIDER_POLICY"),
        ("TLS_KEY_FILE", "key.pem", "INFERENCE_TLS_KEY_FILE: set both or none"),
        ("TLS_CLIENT_CA_FILE", "ca.pem", "INFERENCE_TLS_CLIENT_CA_FILE: needs"),
        (
            "QUEUE_LIMITS",
            "3",
            "INFERENCE_QUEUE_LIMITS: there is no such setting; did you mean INFERENCE_QUEUE_LIMIT?",
        ),
    ],
)
def test_wrong_setting_is_told_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str, told: str
) -> None:
    monkeypatch.setenv(f"INFERENCE_{name}", value)

    with pytest.raises(SystemExit) as end:
        load(Settings)

    assert end.value.code == 2
    assert told in capsys.readouterr().err


def test_key_that_is_none_ends_the_start_and_a_directory_that_waits_for_its_key_does_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("INFERENCE_TRUSTED_KEYS_DIR", str(tmp_path))
    assert load(Settings).trusted_keys_dir == tmp_path

    (tmp_path / "key.pem").write_text("no key")
    with pytest.raises(SystemExit):
        load(Settings)
    assert "key.pem is no public key" in capsys.readouterr().err


def table() -> list[tuple[str, str, str]]:
    """The settings as rows of the README: variable, default, meaning."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None or field.default == "" else f"`{field.default}`"
        rows.append((f"INFERENCE_{name.upper()}", default, str(field.description)))
    return rows


def test_the_readme_has_every_setting_as_it_is() -> None:
    text = (SERVICE / "README.md").read_text()

    assert re.findall(r"^\| `(INFERENCE_\w+)` \| (.*?) \| (.*?) \|$", text, re.MULTILINE) == table()


def test_the_version_is_the_packages() -> None:
    assert tomllib.loads((SERVICE / "pyproject.toml").read_text())["project"]["version"] == SERVICE_VERSION
