# SPDX-License-Identifier: Apache-2.0
"""Options of the verbs that deploy, worded once."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])


def thing(function: Function) -> Function:
    """--thing NAME."""
    return click.option(
        "--thing", metavar="NAME", help="One thing, instead of the environment's thing group."
    )(function)


def rollout(function: Function) -> Function:
    """--replace, --wait and what belongs to it."""
    for option in (
        click.option("--limit", "limit_min", type=click.IntRange(0, 10080), default=120, show_default=True, metavar="MINUTES",
                     help="Longest time to --wait."),
        click.option("--every", "every_s", type=click.FloatRange(0.01, 600), default=5, show_default=True, metavar="SECONDS",
                     help="How often --wait looks."),
        click.option("--wait", is_flag=True, help="Follow every device to the end; exit code 4 when one does not succeed."),
        click.option("--replace", is_flag=True, help="Also while devices work on another deployment."),
    ):  # fmt: skip
        function = option(function)
    return function
