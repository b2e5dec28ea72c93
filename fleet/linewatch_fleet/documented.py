# SPDX-License-Identifier: Apache-2.0
"""Where a command is documented: its page is named when AWS says that a permission is missing."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from botocore.exceptions import ClientError

from linewatch_fleet.errors import CommandFailed

OTHER_WORDS: Final = ("403", "UnauthorizedException")
"""IoT's own word; and S3 answers a HEAD without a body, so that the status is all that is left of its refusal."""


@contextmanager
def documented(page: str) -> Iterator[None]:
    """Names the page of the documentation in every refusal for want of a permission."""
    try:
        yield
    except CommandFailed as error:
        cause = error.__cause__
        code = cause.response.get("Error", {}).get("Code", "") if isinstance(cause, ClientError) else ""
        if "AccessDenied" in code or code in OTHER_WORDS:
            message = error.message.partition("; the docs page")[0]
            raise CommandFailed(f"{message}; {page} lists the permissions that this command needs") from cause
        raise
