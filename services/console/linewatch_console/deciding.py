# SPDX-License-Identifier: Apache-2.0
"""THE FLOW of a decision: written down and safe on disk, sent once, and what became of it written down as well.

Nothing is sent that could not be written down before. Nothing is ever sent twice by itself: when no answer comes the
person is told that it is not known, and the audit log says the same.
"""

from collections.abc import Mapping
from typing import Any

from linewatch_console.audit import Audit
from linewatch_console.cloud_api import CloudAway, CloudRefused, CloudUnclear
from linewatch_console.orders import Orders
from linewatch_console.people import Person


class Deciding:
    """What people decide."""

    def __init__(self, orders: Orders, audit: Audit) -> None:
        self._orders = orders
        self._audit = audit

    async def decide(
        self, person: Person, address: str, verb: str, reference: str, body: Mapping[str, str]
    ) -> dict[str, Any]:
        """Takes it to the cloud and gives the order as it is now; of an escape what was recorded.

        Raises:
            AuditError: it could not be written down, so it was not sent.
            CloudUnclear, CloudAway, CloudRefused: as Orders.send.
        """
        path = f"/work-orders/{reference}/{verb}" if reference else "/escapes"
        answer = await self._sent(person, address, verb, reference, body, path, body)
        return self._orders.changed(answer) if reference else answer

    async def put_policy(
        self, person: Person, address: str, document: str, told: Mapping[str, str]
    ) -> dict[str, Any]:
        """Takes a policy to the cloud; `told`: what the audit log keeps of it, `follows` among it. Raises as `decide`."""
        return await self._sent(person, address, "put_policy", "", told, "/policy", document)

    async def _sent(
        self, person: Person, address: str, verb: str, reference: str, told: Mapping[str, str], path: str,
        body: Mapping[str, str] | str,
    ) -> dict[str, Any]:  # fmt: skip
        asked = {
            "verb": verb,
            "reference": reference,
            "role": person.role,
            "from": address,
            "body": dict(told),
        }
        written = await self._audit.write("decision", person.name, asked)
        try:
            follows = told["follows"] if verb == "put_policy" else ""
            answer = await self._orders.send(verb, path, body, person, written.digest, follows)
        except CloudUnclear as error:
            await self._ended(written.digest, person, "not_known", str(error))
            raise
        except CloudAway as error:
            await self._ended(written.digest, person, "not_sent", str(error))
            raise
        except CloudRefused as error:
            await self._ended(written.digest, person, "refused", f"HTTP {error.status}: {error}")
            raise
        await self._ended(
            written.digest, person, "taken", str(answer.get("status") or answer.get("version", ""))
        )
        return answer

    async def _ended(self, digest: str, person: Person, outcome: str, why: str) -> None:
        await self._audit.note("outcome", person.name, {"of": digest, "outcome": outcome, "why": why[:300]})
