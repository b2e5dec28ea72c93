# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from linewatch_console.hub import QUEUED_MESSAGES, RING_MESSAGES, Client, Hub, TooManyClients


def hub_with(messages: int) -> Hub:
    hub = Hub(max_clients=2)
    hub.snapshot = lambda: {"whole": True}
    for number in range(messages):
        hub.publish("tile", {"number": number})
    return hub


def read(message: bytes) -> tuple[str, str, dict[str, object]]:
    number, kind, content = message.decode().strip().split("\n")
    return number[4:], kind[7:], json.loads(content[6:])


def test_new_page_gets_a_snapshot_and_then_what_follows() -> None:
    hub = hub_with(3)
    client = hub.attach("")

    hub.publish("tile", {"number": 3})

    assert [read(message)[1] for message in client.missed] == ["snapshot"]
    assert read(client.queue.get_nowait() or b"")[2] == {"number": 3}


def test_page_that_comes_back_gets_exactly_what_it_missed() -> None:
    hub = hub_with(3)
    seen = read(hub.attach("").missed[0])[0]
    hub.publish("tile", {"number": 3})
    hub.publish("tile", {"number": 4})

    missed = [read(message) for message in hub.attach(seen).missed]

    assert [content for _, _, content in missed] == [{"number": 3}, {"number": 4}]


def test_page_that_missed_nothing_gets_nothing() -> None:
    hub = hub_with(3)
    seen = read(hub.attach("").missed[0])[0]

    assert hub.attach(seen).missed == []


@pytest.mark.parametrize("last", ["nonsense", "-", "0-0", "other-3", "-3", "x-99999999999999999999999"])
def test_unknown_place_gets_a_snapshot(last: str) -> None:
    assert read(hub_with(3).attach(last).missed[0])[1] == "snapshot"


def test_page_that_was_away_too_long_gets_a_snapshot() -> None:
    hub = hub_with(1)
    seen = read(hub.attach("").missed[0])[0]
    for number in range(RING_MESSAGES + 1):
        hub.publish("tile", {"number": number})

    assert [read(message)[1] for message in hub.attach(seen).missed] == ["snapshot"]


def test_page_that_does_not_read_is_dropped_and_others_stay() -> None:
    hub = hub_with(0)
    slow, quick = hub.attach(""), hub.attach("")

    for number in range(QUEUED_MESSAGES + 1):
        hub.publish("tile", {"number": number})
        quick.queue.get_nowait()

    assert drained(slow) == [None]
    hub.publish("tile", {})
    assert len(drained(quick)) == 1
    hub.attach("")  # the dropped page's place is free


def test_one_page_too_many_is_refused() -> None:
    hub = hub_with(0)
    hub.attach("")
    hub.attach("")

    with pytest.raises(TooManyClients):
        hub.attach("")


def test_page_that_comes_while_the_console_stops_is_ended_at_once() -> None:
    """Regression: it came between the end of the pages and that of the listener, and the stop waited its whole grace for it."""
    hub = hub_with(1)
    before = hub.attach("")

    hub.close()
    after = hub.attach("")

    assert [drained(before), drained(after), after.missed] == [[None], [None], []]
    hub.publish("tile", {})
    assert drained(after) == []


def test_text_from_outside_cannot_end_a_message() -> None:
    hub = hub_with(0)
    client = hub.attach("")

    hub.publish("tile", {"part_id": "x\n\nevent: orders\ndata: {}\u2028\r\n"})

    assert (client.queue.get_nowait() or b"").count(b"\n") == 4


def drained(client: Client) -> list[bytes | None]:
    read = []
    while not client.queue.empty():
        read.append(client.queue.get_nowait())
    return read
