# SPDX-License-Identifier: Apache-2.0
"""Why a request was not done. handler.py makes the answers of these: 400, 401, 403, 404, 409."""

from work_orders.orders import WorkOrder

LONGEST_NAME = 200


class BadRequestError(Exception):
    """One field of the request can't be used; the message names it and says what would do."""

    def __init__(self, name: str, why: str) -> None:
        # A name that nobody knows is whatever somebody sent.
        self.field = (name if name.isprintable() and name else ascii(name))[:LONGEST_NAME]
        super().__init__(f"{self.field}: {why}")


class UnauthorizedError(Exception):
    """Nobody knows who asks."""


class ForbiddenError(Exception):
    """The caller's role may not do this."""


class NotFoundError(Exception):
    """There is nothing of that name."""


class ConflictError(Exception):
    """Not in the state that the request needs, or somebody else was faster. `order`: as it is now, where it is one."""

    def __init__(self, why: str, order: WorkOrder | None = None) -> None:
        super().__init__(why)
        self.order = order


def named(error: ValueError) -> BadRequestError:
    """What other packages refuse as "<field>: why"."""
    name, _, why = str(error).partition(": ")
    return BadRequestError(name, why)
