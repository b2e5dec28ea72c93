# SPDX-License-Identifier: Apache-2.0
"""How every verb speaks: results on stdout (plain tables, or one JSON document), everything else on stderr.

What is printed often comes from others: a saved order, an ERP's answer, a dead letter. No sign of it reaches a terminal
that would obey it.
"""

import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TextIO

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

from linewatch_fleet.printable import in_json, on_a_line

_lost: list[str] = []


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints rows below their headings, without borders, so that it reads well in a log and cuts well in a shell."""
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(*("" if cell is None else escape(on_a_line(str(cell))) for cell in row))
    # Wide rather than folded when nobody looks at a terminal: a digest must stay on its line.
    terminal = Console()
    width = terminal.width if terminal.is_terminal else 400
    # Into a text first: rich ends the program itself when nobody reads what it writes.
    text = io.StringIO()
    console = Console(
        file=text, force_terminal=terminal.is_terminal, width=width, highlight=False, emoji=False
    )
    console.print(shown, crop=False)
    _write(text.getvalue(), sys.stdout)


def document(content: Any) -> None:
    """Prints one JSON document, the whole result of a command run with --json."""
    _write(in_json(json.dumps(content, indent=2, ensure_ascii=False, default=str)) + "\n", sys.stdout)


def say(message: str) -> None:
    """One line for the person who watches; never a part of the result."""
    _write(on_a_line(message) + "\n", sys.stderr)


def lost() -> str:
    """Why a part of the result could not be written; empty when all was, and when its reader went away by himself."""
    return _lost[0] if _lost else ""


def give_up(stream: TextIO) -> None:
    """Lets a stream that can't be written go nowhere, so that Python does not try it again at its end."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _write(text: str, stream: TextIO) -> None:
    """Writes. What the verb does goes on when that fails: half a rollout for want of a reader would be worse."""
    try:
        click.echo(text, file=stream, nl=False)
    except OSError as error:
        give_up(stream)
        if stream is sys.stdout and isinstance(error, BrokenPipeError):
            say("nobody reads the rest of the result; the command goes on")
        elif stream is sys.stdout:
            _lost.append(f"the result could not be written: {error.strerror}")


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
            bar.update(
                task, advance=steps, description=f"{what}: {escape(on_a_line(doing))}" if doing else what
            )

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
