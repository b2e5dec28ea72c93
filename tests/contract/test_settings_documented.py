# SPDX-License-Identifier: Apache-2.0
"""Every service's README has its settings as they are, in their order: variable, default, meaning."""

import importlib
import re
from pathlib import Path

import pytest

from linewatch_runtime.settings import ServiceSettings

SERVICES = sorted(
    path.parent for path in (Path(__file__).parents[2] / "services").glob("*/linewatch_*/settings.py")
)


def settings_of(package: Path) -> type[ServiceSettings]:
    return importlib.import_module(f"{package.name}.settings").Settings


def rows_of(settings: type[ServiceSettings]) -> list[str]:
    prefix = settings.model_config["env_prefix"]
    rows = []
    for name, field in settings.model_fields.items():
        default = "" if field.default is None or field.default == "" else f"`{field.default}`"
        default = "required" if field.is_required() else default
        meaning = " ".join((field.description or "").split())
        rows.append(f"| `{prefix}{name.upper()}` | {default} | {meaning} |")
    return rows


@pytest.mark.parametrize("package", SERVICES, ids=lambda path: path.name)
def test_readme_has_every_setting_as_it_is(package: Path) -> None:
    settings = settings_of(package)
    prefix = settings.model_config["env_prefix"]

    table = re.findall(rf"^\| `{prefix}\w+` \|.*$", (package.parent / "README.md").read_text(), re.MULTILINE)

    assert table == rows_of(settings)


@pytest.mark.parametrize("package", SERVICES, ids=lambda path: path.name)
def test_every_setting_says_what_it_means(package: Path) -> None:
    undocumented = [
        name for name, field in settings_of(package).model_fields.items() if not field.description
    ]

    assert not undocumented
