# SPDX-License-Identifier: Apache-2.0
"""How every verb speaks: results on stdout (plain tables, or one JSON document), everything else on stderr."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints rows below their headings, without borders, so that it reads well in a log and cuts well in a shell."""
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(*("" if cell is None else escape(str(cell)) for cell in row))
    # Wide rather than folded when nobody looks at a terminal: a digest must stay on its line.
    console = Console(highlight=False, emoji=False)
    if not console.is_terminal:
        console = Console(highlight=False, emoji=False, width=400)
    console.print(shown, crop=False)


def document(content: Any) -> None:
    """Prints one JSON document, the whole result of a command run with --json."""
    click.echo(json.dumps(content, indent=2, ensure_ascii=False, default=str))


def say(message: str) -> None:
    """One line for the person who watches; never a part of the result."""
    click.echo(message, err=True)


@contextmanager
def progress(what: str, total: int) -> Iterator[Any]:
    """A bar on stderr for long work, silent where stderr is no terminal; yields a function that advances it.

    The function takes an optional text that says what is being done.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)

        def advance(doing: str = "", steps: int = 1) -> None:
            bar.update(task, advance=steps, description=f"{what}: {escape(doing)}" if doing else what)

        yield advance


@contextmanager
def transfer(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr for `total` bytes, silent where stderr is no terminal; yields a function that takes bytes sent."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda size: bar.update(task, advance=size)
