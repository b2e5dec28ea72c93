# SPDX-License-Identifier: Apache-2.0
"""What a command can end with. Scripts and CI rely on the codes; `linewatch --help` prints them."""

import click

from linewatch_fleet.printable import on_lines

OK = 0
FAILED = 1
"""The command understood what to do and could not: the message says what and the remedy."""
USAGE = 2
"""Wrong arguments or a wrong file: nothing was tried. click's own code for usage, too."""
REFUSED = 3
"""A gate or a check said no: nothing was changed."""
UNHEALTHY = 4
"""The command worked, and what it looked at is not well (status, doctor)."""
INTERRUPTED = 130


class _Told(click.ClickException):
    """Its message may quote a file or an answer: a terminal gets none of their control characters."""

    def format_message(self) -> str:
        """As it is printed."""
        return on_lines(self.message)


class CommandFailed(_Told):
    """Something outside said no, or was not there."""

    exit_code = FAILED


class BadInput(_Told):
    """A file or an argument can't be used; the message names the field and the remedy."""

    exit_code = USAGE


class GateRefused(_Told):
    """A stated condition is not met; nothing was changed."""

    exit_code = REFUSED
