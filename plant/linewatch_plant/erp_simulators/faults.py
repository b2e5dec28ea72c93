# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with a call, whichever product is asked."""

import random
from dataclasses import dataclass

# How long a caller that is never answered is kept waiting, seconds; every sane time-out is shorter.
HANG_S = 120.0
# Between two bytes of an answer that drips.
DRIP_S = 0.2
# Of an answer that is far too large, bytes.
LARGE = 8 * 1024 * 1024

_chance = random.Random(20261121)
_decks: dict[str, list[bool]] = {}
"""By fault, what becomes of its next calls, of a hundred at a time."""


@dataclass(slots=True)
class Faults:
    """Each counts down with the calls it spoils; -1 = until it is set to 0. "create" is the call that makes an order."""

    # Every call, the token endpoint too, answers 503.
    down: int = 0
    # The token endpoint alone answers 503.
    token_503: int = 0
    # Create answers 500 and creates nothing.
    error_500: int = 0
    # Create makes the order and answers 500.
    error_500_after_create: int = 0
    # Create answers 500 and makes the order `late_ms` after it, as behind a proxy that gave up.
    error_500_create_late: int = 0
    # A setting, no count.
    late_ms: int = 1000
    # Create makes the order and never answers.
    hang_after_create: int = 0
    # Create makes the order; a proxy's page in HTML is the answer, with 502 or with 200.
    html_502_after_create: int = 0
    html_200_after_create: int = 0
    # Create makes the order; the answer sends to a page to sign in.
    redirect_after_create: int = 0
    # Create makes the order; the answer ends in the middle, with a right or a wrong length.
    truncated_after_create: int = 0
    reset_after_create: int = 0
    # Create makes the order and answers 201 with nothing in it.
    empty_after_create: int = 0
    # Create makes the order; its answer comes byte by byte, or is far too large.
    drip_after_create: int = 0
    large_after_create: int = 0
    # Create makes the order; the answer says 200 and tells of an error.
    error_in_200_after_create: int = 0
    # Create makes the order and answers with the newest other one, as a proxy or a cache that mixes answers up.
    another_after_create: int = 0
    # A read of one order answers with the newest other one.
    read_another: int = 0
    # A search for an asset answers others as well, and one of them first.
    assets_of_others: int = 0
    # Create answers 429 and creates nothing.
    too_many: int = 0
    # A setting, no count: seconds in the Retry-After of a 429.
    retry_after_s: int = 7
    # Create answers 422, or the product's own way to say that it does not want this order.
    refuse: int = 0
    # Create answers 403, 409, 412 and creates nothing.
    forbidden: int = 0
    conflict: int = 0
    precondition: int = 0
    # The search answers 500, a page in HTML with 200, a redirect, half an answer, byte by byte, far too much, never.
    find_500: int = 0
    find_html: int = 0
    # The search answers 500 and shows the request's headers, credentials too, as a gateway that debugs.
    find_echo: int = 0
    find_redirect: int = 0
    find_truncated: int = 0
    find_drip: int = 0
    find_large: int = 0
    find_hang: int = 0
    # Adding a note adds it and answers 500.
    note_500_after_create: int = 0
    # SAP no longer knows what became of a repeatable request: 400, "RequestID is outdated".
    request_outdated: int = 0
    # A setting, no count: SAP's long text is replaced by a change, not added to.
    long_text_replaces: int = 0
    # Settings, no counts: of each hundred calls, how many are spoilt so.
    error_500_percent: int = 0
    error_500_after_create_percent: int = 0
    hang_after_create_percent: int = 0
    find_500_percent: int = 0

    def strikes(self, name: str) -> bool:
        """Whether the fault spoils this call; counts it down."""
        left: int = getattr(self, name)
        if left > 0:
            setattr(self, name, left - 1)
        percent: int = getattr(self, f"{name}_percent", 0)
        return left != 0 or (percent > 0 and _drawn(f"{name} {percent}", percent))


def _drawn(deck: str, percent: int) -> bool:
    """As a card of a shuffled deck: at random, but `percent` of each hundred, however the calls of faults mix."""
    if not _decks.get(deck):
        _decks[deck] = [card < percent for card in range(100)]
        _chance.shuffle(_decks[deck])
    return _decks[deck].pop()
