# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest
from pydantic import Field, model_validator

from linewatch_runtime.settings import EXIT_BAD_SETTINGS, ServiceSettings, load, service_settings


class Settings(ServiceSettings):
    model_config = service_settings("PRESS_")

    rate: float = Field(default=4.0, gt=0)
    """Parts per second."""
    model: str
    """Name of the model package."""

    @model_validator(mode="after")
    def _pair(self) -> "Settings":
        if self.mqtt_username and not self.mqtt_password_file:
            raise ValueError("PRESS_MQTT_PASSWORD_FILE must be set with PRESS_MQTT_USERNAME")
        return self


@pytest.fixture(autouse=True)
def _model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESS_MODEL", "pv-el-cells")


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    with pytest.raises(SystemExit) as ended:
        load(Settings)
    assert ended.value.code == EXIT_BAD_SETTINGS == 2
    return capsys.readouterr().err.splitlines()


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESS_RATE", "2.5")
    monkeypatch.setenv("PRESS_STATE_DIR", "state")
    monkeypatch.setenv("OTHER_RATE", "no business of ours")

    settings = load(Settings)

    assert (settings.rate, settings.state_dir, settings.site) == (2.5, Path("state"), "plant-1")


def test_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESS_RATE", "")
    monkeypatch.setenv("PRESS_HEARTBEAT_FILE", "")

    assert load(Settings).rate == 4.0
    assert load(Settings).heartbeat_file is None


def test_unknown_variable_is_fatal_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PRESS_RAET", "5")
    monkeypatch.setenv("PRESS_XYZZY_QUUX", "5")

    assert told(capsys) == [
        "PRESS_RAET: there is no such setting; did you mean PRESS_RATE?",
        "PRESS_XYZZY_QUUX: there is no such setting; remove it, or see the service's README for the names",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PRESS_RATE", "-1"), ("PRESS_RATE", "fast"), ("PRESS_MQTT_PORT", "0"), ("PRESS_MQTT_PORT", "65536"),
        ("PRESS_SITE", "Plant 1"), ("PRESS_SITE", "a/b"), ("PRESS_DEVICE", "#"), ("PRESS_LOG_LEVEL", "LOUD"),
        ("PRESS_HEARTBEAT_FILE", "/no/such/heartbeat"),
    ],
)  # fmt: skip
def test_bad_value_names_the_variable_the_value_and_the_meaning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)

    (line,) = told(capsys)

    assert line.startswith(f"{name}: ")
    assert repr(value) in line
    assert line.endswith(".)")


def test_missing_value_is_told_with_its_meaning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PRESS_MODEL")

    assert told(capsys) == ["PRESS_MODEL: it must be set (Name of the model package.)"]


def test_check_over_several_settings_tells_its_own_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PRESS_MQTT_USERNAME", "press")

    assert told(capsys) == ["PRESS_MQTT_PASSWORD_FILE must be set with PRESS_MQTT_USERNAME"]


def test_every_problem_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("PRESS_RATE", "PRESS_MQTT_PORT", "PRESS_TYPO"):
        monkeypatch.setenv(name, "x")

    assert len(told(capsys)) == 3
