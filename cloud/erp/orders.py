# SPDX-License-Identifier: Apache-2.0
"""What the adapters of products have in common beside HTTP: an order is looked for wherever it may be there already."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from erp.http import Answer
from erp.port import ErpError, ErpOrder, ErpRefusedError, ErpUnavailableError

# Ours are "lw-" and 16 hex digits. Whatever else comes here is not put into a filter, however well that is quoted.
REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
# Orders with one reference that are asked for; more than one is a double already.
MOST = 20


class OrdersByReference(ABC):
    """Orders of one product. An adapter translates: how it searches, what it is sent, and what its answer says."""

    @abstractmethod
    def find_all(self, reference: str) -> Sequence[ErpOrder]:
        """Every order with this external reference, oldest first."""

    @abstractmethod
    def _body(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """The order in the product's words; it may look up what they need, and creates nothing."""

    @abstractmethod
    def _post(self, body: Mapping[str, Any], order: Mapping[str, Any]) -> Answer:
        """Has the product create it."""

    @abstractmethod
    def _made(self, answer: Answer) -> tuple[ErpOrder, str]:
        """The order that the answer speaks of, and the reference that it bears there; empty: none. Raises ErpError."""

    def find_by_reference(self, reference: str) -> ErpOrder | None:
        """The oldest order with this external reference, or None."""
        found = self.find_all(reference)
        return found[0] if found else None

    def create(self, order: Mapping[str, Any]) -> ErpOrder:
        """The new order; where the product refuses it, the one that is there already.

        A unique field in the product refuses a second order with the same reference in words that differ from version to
        version: so every refusal is looked up.

        Raises:
            ErpUnavailableError: it may be there, and can't be found yet.
        """
        reference, body = str(order["external_reference"]), self._body(order)
        try:
            answer = self._post(body, order)
            if self._is_there(answer):
                return self._there(answer, reference)
            made, bears = self._made(answer)
            # Whose answer it is, only the reference tells: a proxy or a cache may have mixed two up.
            return made if bears == reference else self._there(answer, reference, made.id)
        except ErpRefusedError:
            try:
                found = self.find_by_reference(reference)
            except ErpError:
                found = None
            if found is None:
                raise
            return found

    def _is_there(self, answer: Answer) -> bool:
        """Whether the answer says that there is an order, and not which."""
        return answer.status == 409

    def _there(self, answer: Answer, reference: str, answered: str = "") -> ErpOrder:
        """The order that was answered, where a search by our reference finds it, too; else the oldest that is found."""
        said = f"{answer.what} answered {answer.status}: {answer.excerpt}"
        try:
            found = self.find_all(reference)
        except ErpError as error:
            raise ErpUnavailableError(f"{said}; looked up: {error}", may_have_created=True) from error
        if not found:
            raise ErpUnavailableError(said, may_have_created=True)
        return next((one for one in found if one.id == answered), found[0])


def checked_reference(reference: str) -> str:
    """The reference. Raises ErpRefusedError where it is none of ours."""
    if not REFERENCE.fullmatch(reference):
        raise ErpRefusedError(f"{reference[:40]!r} is no reference: letters, digits and . _ : - only")
    return reference


def listed(found: Any, answer: Answer) -> list[Mapping[str, Any]]:
    """A list of objects. Raises ErpUnavailableError where the answer holds anything else."""
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise answer.unclear(f"has no list of orders: {answer.excerpt[:120]}")
    return found


def about(asked: str, told: str, answer: Answer) -> None:
    """Raises ErpUnavailableError where the answer is about another id than the call; `told` may be empty."""
    if told and told != asked:
        raise answer.unclear(f"is about {asked[:40]} and was answered with {answer.hidden.out_of(told)[:40]}")


def identified(order: ErpOrder, answer: Answer) -> ErpOrder:
    """The order. Raises ErpUnavailableError where it has no id, by which it could be read again."""
    if not order.id.strip("/ "):
        raise answer.unclear(f"has an order without an id: {answer.excerpt[:120]}")
    return order
