# SPDX-License-Identifier: Apache-2.0
"""Options that several verbs share, worded once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from linewatch_fleet.config import Environment, Fleet, read_fleet

Function = TypeVar("Function", bound=Callable[..., Any])


def dry_run(function: Function) -> Function:
    """--dry-run: show the plan and change nothing."""
    return click.option("--dry-run", is_flag=True, help="Show the plan and change nothing.")(function)


def as_json(function: Function) -> Function:
    """--json: one JSON document on stdout."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")(function)


def release_file(function: Function) -> Function:
    """--release FILE."""
    return click.option(
        "--release", "release_file", type=click.Path(path_type=Path), default=Path("release.yaml"),
        show_default=True, help="The release's manifest.",
    )(function)  # fmt: skip


def fleet_of(ctx: click.Context) -> Fleet:
    """The fleet file named on the command line."""
    return read_fleet(ctx.find_root().obj)


def environment_of(ctx: click.Context, name: str) -> Environment:
    """The environment of that name in the fleet file."""
    return fleet_of(ctx).environment(name)
