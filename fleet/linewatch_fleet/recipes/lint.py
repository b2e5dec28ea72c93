# SPDX-License-Identifier: Apache-2.0
"""The linter: every rule of GREENGRASS that a recipe can show, for the classic nucleus and for lite."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Importing a module registers its rules.
from linewatch_fleet.recipes import containers, host, images, platforms, shape, steps, variables  # noqa: F401
from linewatch_fleet.recipes.findings import Finding, findings
from linewatch_fleet.recipes.reading import Recipe, parse, read
from linewatch_fleet.recipes.variables import UNQUOTED


def lint(recipe: Recipe) -> list[Finding]:
    """Everything that is wrong, errors first."""
    return sorted(findings(recipe), key=lambda one: one.severity)


def lint_text(text: str) -> list[Finding]:
    """The same for a recipe's text. Raises BadInput when it is none."""
    return lint(parse(text))


def lint_file(path: Path) -> list[Finding]:
    """The same for a file. Raises BadInput."""
    return lint(read(path))


def unsafe_values(configuration: Mapping[str, Any]) -> list[str]:
    """Messages for configuration values that nucleus lite, exporting without quotes, would cut off or take for commands."""
    return [
        f"{key}: {value!r} has a blank or a character of the shell's, which nucleus lite exports without quotes; leave it out"
        for key, value in configuration.items()
        if isinstance(value, str) and UNQUOTED.search(value)
    ]
