# SPDX-License-Identifier: Apache-2.0
"""What the flow needs of an ERP or CMMS, whichever it is. Each product is one adapter beside this page.

No product of this kind dedupes by itself, so an answer that did not come is never taken for a "no": whoever creates
looks the reference up before, and after an unclear answer again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from erp.text import Anchor, cut

WORD, NOTE = 200, 4_000
"""Characters of what an ERP says that are kept: names, and a technician's note. An id beyond it is no id."""


class ErpError(Exception):
    """The order is not known to be in the ERP."""

    def __init__(self, message: str = "") -> None:
        # It may hold the ERP's own words, and is recorded.
        super().__init__(cut(message, NOTE))


class ErpUnavailableError(ErpError):
    """No answer, 429 or 5xx. `may_have_created`: the request left and what became of it is not known."""

    def __init__(self, message: str, *, may_have_created: bool = False, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.may_have_created = may_have_created
        # Seconds that the ERP asks for before the next try; 0: it says nothing. At most 15 minutes.
        self.retry_after_s = retry_after_s


class ErpAwayError(ErpUnavailableError):
    """It gives no token or can't look up: no order at all can be placed now."""


class ErpRefusedError(ErpError):
    """The ERP understood and said no; trying again at once changes nothing."""


@dataclass(frozen=True, slots=True)
class ErpOrder:
    """A work order as the ERP names it."""

    id: str
    status: str

    def __post_init__(self) -> None:
        _clean(self, WORD, "id", "status")


Finding = Literal["confirmed", "other_fault", "no_fault", "unstated"]
"""What the technician found. `unstated`: the order ended and nobody said; it counts for no accuracy."""

State = Literal["open", "in_progress", "completed", "cancelled"]


@dataclass(frozen=True, slots=True)
class ErpStatus:
    """Where the ERP's order stands."""

    state: State
    # The product's own word for it.
    status: str
    # Only of a completed order.
    finding: Finding | None = None
    # Failure mode or code that the technician named, in the ERP's words.
    found_failure: str = ""
    note: str = ""
    by: str = ""
    # RFC 3339; the day's end where the ERP keeps days only; empty where it does not tell.
    ended_at: str = ""
    # What the order bears of ours; empty where it has lost it, or the ERP does not tell.
    reference: str = ""

    def __post_init__(self) -> None:
        _clean(self, WORD, "status", "found_failure", "by", "ended_at", "reference")
        _clean(self, NOTE, "note")


def _clean(said: ErpOrder | ErpStatus, most: int, *names: str) -> None:
    """No ERP's text is recorded with what DynamoDB can't store (a lone surrogate), or at any length."""
    for name in names:
        object.__setattr__(said, name, cut(getattr(said, name), most))


class Erp(Protocol):
    """What a CMMS or ERP must be able to do. Every method raises ErpError."""

    def find_by_reference(self, reference: str) -> ErpOrder | None:
        """The oldest order with this external reference."""

    def find_all(self, reference: str) -> Sequence[ErpOrder]:
        """Every order with this external reference, oldest first: more than one is a double."""

    def create(self, order: Mapping[str, Any]) -> ErpOrder:
        """Creates the order; `order["external_reference"]` is its reference. placing.payload tells the keys.

        An answer that does not bear the reference is looked up.
        """

    def status(self, erp_id: str) -> ErpStatus:
        """Where the order stands and what was found; `reference` tells whose order it is."""

    def anchor(self, erp_id: str) -> Anchor:
        """Reference and `record_digest` that the order was created with: an ERP that was restored from a backup gives
        an id twice (docs/why.md).
        """

    def add_note(self, erp_id: str, key: str, text: str) -> None:
        """Adds a note; one that bears the same `key` already is not added again, where the product can list notes."""
