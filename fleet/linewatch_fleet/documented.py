# SPDX-License-Identifier: Apache-2.0
"""Where a command is documented: its page is named when AWS says that a permission is missing."""

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import ClientError

from linewatch_fleet.errors import CommandFailed


@contextmanager
def documented(page: str) -> Iterator[None]:
    """Names the page of the documentation in every refusal for want of a permission."""
    try:
        yield
    except CommandFailed as error:
        cause = error.__cause__
        if isinstance(cause, ClientError) and "AccessDenied" in cause.response.get("Error", {}).get(
            "Code", ""
        ):
            message = error.message.partition("; the docs page")[0]
            raise CommandFailed(f"{message}; {page} lists the permissions that this command needs") from cause
        raise
