# SPDX-License-Identifier: Apache-2.0
"""Finds the event that ends a connection whenever it is published, so that it holds up no other one. Pure.

A broker that can't take a message may end the connection for it, and all that was on its way goes down with it. Once
that looks like more than chance one event at a time goes out, the suspects by turns with the rest, until it is known
which one it was. A network that breaks condemns nobody: it takes the others down too.
"""

from collections.abc import Collection, Iterable, Sequence

from linewatch_runtime.records import Stored

OF_A_PACKET = frozenset({0x81, 0x82, 0x90, 0x95, 0x99})
"""Reason codes that blame a packet, in a DISCONNECT or an acknowledgement: malformed packet, protocol error, topic name
invalid, packet too large, payload format invalid (MQTT 5, 2.4)."""

PROOFS = 3
"""Connections that an event has to end, on its way alone and with a code that blames a packet, to be the culprit."""

PROOFS_WITHOUT_A_REASON = 6
"""The same where the broker gives no reason; others have to pass before each of them."""

BREAKS_BY_CHANCE = 3
"""Connections in a row that ended without a reason and without one acknowledgement before it looks like no chance."""


class Suspects:
    """What is known of the events that were on their way when a connection ended."""

    def __init__(self) -> None:
        self._ended: dict[
            str, int
        ] = {}  # suspect -> connections that it ended alone; at most what was on its way
        self._others_passed = False
        self._breaks = 0
        self._turn_of_suspect = False

    @property
    def are_some(self) -> bool:
        """Whether one event at a time goes out."""
        return bool(self._ended)

    def choose(self, rows: Sequence[Stored]) -> list[Stored]:
        """What of the rows may be published now, in order."""
        if not self._ended:
            return list(rows)
        self._turn_of_suspect = not self._turn_of_suspect
        found = [row for row in rows if self._ended.get(row.record.event_id)]
        rest = [row for row in rows if not self._ended.get(row.record.event_id)]
        return ((found or rest) if self._turn_of_suspect else (rest or found))[:1]

    def passed(self, event_ids: Iterable[str]) -> None:
        """The broker took these."""
        for event_id in event_ids:
            self._breaks = 0
            self._others_passed = True
            self._ended.pop(event_id, None)

    def broke(self, event_ids: Collection[str], code: int) -> str:
        """The connection ended, with this reason code, while these were on their way. The culprit, once it is known."""
        blamed = code in OF_A_PACKET
        if len(event_ids) == 1 and self._ended:
            (event_id,) = event_ids
            ended = self._ended.get(event_id, 0) + (blamed or self._others_passed)
            self._others_passed = False
            self._ended[event_id] = ended
            if ended < (PROOFS if blamed else PROOFS_WITHOUT_A_REASON):
                return ""
            del self._ended[event_id]
            return event_id
        self._breaks += 1
        if event_ids and (blamed or self._breaks >= BREAKS_BY_CHANCE):
            self._ended = dict.fromkeys(event_ids, 0)
            self._others_passed = False
        return ""

    def forget(self, event_ids: Collection[str]) -> None:
        """Keeps only suspects among these: the others have left the spool."""
        self._ended = {event_id: count for event_id, count in self._ended.items() if event_id in event_ids}
