# SPDX-License-Identifier: Apache-2.0
"""The uplink through the nucleus: the real client against a stand-in of the nucleus's IPC server, and the flow behind it."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from brokers import STATION, inspection, until
from nucleus_ipc import DIE, SPOOL_FULL, Published
from nucleus_ipc import NucleusIpc as Nucleus

from linewatch_forwarder.delivery import Delivery
from linewatch_forwarder.handed_over import MOST_HANDED_OVER
from linewatch_forwarder.streams.embedded import EmbeddedStreams
from linewatch_forwarder.uplinks import greengrass_ipc
from linewatch_forwarder.uplinks.greengrass_ipc import GreengrassIpc
from linewatch_forwarder.uplinks.settings import UplinkSettings
from linewatch_runtime import nucleus_ipc
from linewatch_runtime.nucleus_ipc import NucleusGone, NucleusIpc
from linewatch_runtime.records import Record
from linewatch_runtime.spool import Spool, SpoolWorker, StreamLimit

pytestmark = pytest.mark.anyio

TOKEN = "of-the-forwarder"
WINDOW_S = 60.0


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[SpoolWorker]:
    made = SpoolWorker(lambda: Spool(tmp_path / "forwarder.db", StreamLimit()))
    yield made
    made.close()


@pytest.fixture
def nucleus(tmp_path: Path) -> Iterator[Nucleus]:
    with Nucleus(tmp_path / "ipc.socket", tokens={TOKEN}) as made:
        yield made


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in trouble is tried again soon."""
    monkeypatch.setattr("linewatch_forwarder.rests.LONGEST_BACKOFF_S", 0.1)
    monkeypatch.setattr(greengrass_ipc, "LONGEST_BACKOFF_S", 0.3)


def record(number: int, result: str = "OK", line: str = "line-1", size: int = 0) -> Record:
    place = STATION.__class__(STATION.site, line, STATION.station)
    event_id, payload = inspection(number, result)
    if size:
        event = json.loads(payload)
        event["padding"] = "x" * (size - len(payload) - 14)
        payload = json.dumps(event, separators=(",", ":")).encode()
    stream = f"predictions-{line}"
    return Record(event_id, stream, place.topic("inspection"), payload, alarm=result != "OK")


def events_of(published: Sequence[Published]) -> list[str]:
    """Ids of the events, in the order in which the nucleus took them; a publish holds one or several."""
    found = []
    for one in published:
        told = json.loads(one.payload)
        found += [event["id"] for event in told.get("events", [told])]
    return found


@asynccontextmanager
async def delivering(
    worker: SpoolWorker, nucleus: Nucleus, window_s: float = 0.5
) -> AsyncIterator[tuple[Delivery, GreengrassIpc]]:
    uplink = GreengrassIpc(NucleusIpc(str(nucleus.path), TOKEN), window_s)
    delivery, stop = Delivery(EmbeddedStreams(worker), uplink, 100_000), asyncio.Event()
    tasks = [asyncio.create_task(delivery.run(stop)), asyncio.create_task(uplink.run())]
    try:
        yield delivery, uplink
    finally:
        stop.set()
        async with asyncio.timeout(20):
            await tasks[0]
        tasks[1].cancel()
        await asyncio.wait(tasks)


class Window:
    """The resend window by a clock that only the test moves: on a slow machine it would pass before the test has looked."""

    def __init__(self, delivery: Delivery) -> None:
        self._now = 0.0
        delivery._handed_over._clock = lambda: self._now

    def passes(self) -> None:
        self._now += WINDOW_S


async def store(worker: SpoolWorker, *records: Record) -> list[str]:
    await worker.run(worker.spool.append, list(records))
    return [one.event_id for one in records]


def waiting(worker: SpoolWorker) -> int:
    return sum(one.events for one in worker._thread.submit(worker.spool.streams).result())


async def test_the_nucleus_carries_about_forty_events_a_second_for_long_as_the_readme_says() -> None:
    window_s = UplinkSettings.model_fields["resend_window_s"].default
    assert MOST_HANDED_OVER / window_s == pytest.approx(40, abs=2)
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    assert (
        f"{MOST_HANDED_OVER:,} events go in each window: with the default of {window_s:g} s about 40 a second"
        in readme
    )


async def test_events_go_through_the_nucleus_in_order_and_leave_after_the_window(
    worker: SpoolWorker, nucleus: Nucleus
) -> None:
    ids = await store(worker, *[record(number) for number in range(25)])
    async with delivering(worker, nucleus, WINDOW_S) as (delivery, uplink):
        window = Window(delivery)
        await until(lambda: len(events_of(nucleus.published)) == 25, "the nucleus took all")
        assert waiting(worker) == 25, "success is not delivery"
        await until(lambda: delivery.handed_over == 25, "every answer is there")
        assert (uplink.is_connected, uplink.trouble) == (True, "")

        window.passes()
        await until(lambda: not waiting(worker), "the window has passed")

    assert events_of(nucleus.published) == ids
    assert {one.qos for one in nucleus.published} == {"1"}
    assert {one.token for one in nucleus.published} == {TOKEN}


async def test_what_goes_together_fits_the_buffer_of_nucleus_lite(
    worker: SpoolWorker, tmp_path: Path
) -> None:
    with Nucleus(tmp_path / "ipc.socket", tokens={TOKEN}, largest=10_000) as lite:
        ids = await store(worker, *[record(number, size=900) for number in range(40)])
        ids += await store(worker, *[record(number, "NG", size=5_900) for number in range(3)])
        async with delivering(worker, lite):
            await until(lambda: not waiting(worker), "all are taken", 60)

        assert sorted(events_of(lite.published)) == sorted(ids)
        assert len(lite.published) < 20, "several to a publish"
        assert lite.connections == 1


async def test_a_nucleus_that_forgets_gets_again_what_is_inside_the_window_and_no_more(
    worker: SpoolWorker, nucleus: Nucleus
) -> None:
    """The promise of this uplink, and its limit: a control, as it were, that loses."""
    async with delivering(worker, nucleus, WINDOW_S) as (delivery, _):
        window = Window(delivery)
        old = await store(worker, *[record(number) for number in range(5)])
        await until(lambda: delivery.handed_over == 5, "handed over")
        window.passes()
        await until(lambda: not waiting(worker), "past the window")
        young = await store(worker, *[record(number) for number in range(5, 10)])
        await until(lambda: delivery.handed_over == 5, "inside the window")

        nucleus.stop()
        assert events_of(nucleus.forget()) == old + young
        nucleus.start()
        await until(lambda: len(events_of(nucleus.published)) == 5, "sent again")
        await until(lambda: delivery.handed_over == 5, "inside the window again")
        window.passes()
        await until(lambda: not waiting(worker), "and settled", 60)

    assert events_of(nucleus.published) == young, "what was past the window is lost, as the docs say"


async def test_a_new_socket_file_is_found_and_each_session_has_a_new_client(
    worker: SpoolWorker, nucleus: Nucleus
) -> None:
    async with delivering(worker, nucleus, 0.2) as (_, uplink):
        for number in range(3):
            ids = await store(worker, record(number))
            await until(lambda ids=ids: set(ids) <= set(events_of(nucleus.published)), "taken", 60)
            sessions = uplink.session
            nucleus.stop()
            await until(lambda: not uplink.is_connected, "it notices")
            assert uplink.session == sessions + 1
            await until(lambda: uplink.trouble, "it says why")
            nucleus.start()
        await until(lambda: uplink.is_connected and not waiting(worker), "all are settled", 60)


async def test_a_full_spool_is_trouble_for_all_and_passes(worker: SpoolWorker, nucleus: Nucleus) -> None:
    nucleus.on_publish = lambda _: SPOOL_FULL
    ids = await store(worker, record(1), record(2))
    async with delivering(worker, nucleus) as (delivery, _):
        await until(lambda: "Message spool is full" in delivery.trouble, "it is told")
        assert delivery.stopped
        assert (waiting(worker), delivery.handed_over) == (2, 0)

        nucleus.on_publish = lambda _: None
        await until(lambda: not waiting(worker), "delivered at last")
    assert events_of(nucleus.published) == ids
    assert nucleus.connections == 1


async def test_a_topic_that_the_recipe_does_not_allow_holds_its_own_line_and_names_the_remedy(
    worker: SpoolWorker, nucleus: Nucleus
) -> None:
    nucleus.on_publish = lambda one: (
        ("UnauthorizedError", "Principal is not authorized") if "line-2" in one.topic else None
    )
    await store(worker, record(1), record(2))
    await store(worker, record(1, line="line-2"))
    async with delivering(worker, nucleus) as (delivery, _):
        await until(lambda: delivery.troubled("predictions-line-2"), "it is told")
        await until(lambda: waiting(worker) == 1, "the other line goes on")
        told = delivery.troubled("predictions-line-2")
        assert "aws.greengrass.ipc.mqttproxy" in told
        assert "accessControl" in told
        assert not delivery.stopped


async def test_what_the_nucleus_calls_invalid_is_found_in_its_batch_and_buried_alone(
    worker: SpoolWorker, nucleus: Nucleus
) -> None:
    records = [record(number) for number in range(6)]
    poison = records[3].event_id
    nucleus.on_publish = lambda one: (
        ("InvalidArgumentsError", "no such thing") if poison.encode() in one.payload else None
    )
    ids = await store(worker, *records)
    async with delivering(worker, nucleus):
        await until(lambda: not waiting(worker), "none is left")
    assert sorted(events_of(nucleus.published)) == sorted(set(ids) - {poison})
    ((_, one, reason),) = await worker.run(worker.spool.buried)
    assert (one.event_id, reason) == (poison, "the nucleus: no such thing")


async def test_a_large_event_that_ends_every_connection_is_buried_and_holds_nobody(
    worker: SpoolWorker, tmp_path: Path
) -> None:
    with Nucleus(tmp_path / "ipc.socket", tokens={TOKEN}, largest=10_000) as lite:
        large, others = record(1, size=20_000), [record(number) for number in range(2, 8)]
        ids = await store(worker, large, *others)
        ids += await store(worker, record(1, "NG", line="line-2"))
        async with delivering(worker, lite):
            await until(lambda: not waiting(worker), "none is left", 60)
        assert set(events_of(lite.published)) == set(ids) - {large.event_id}
    ((_, one, reason),) = await worker.run(worker.spool.buried)
    assert one.event_id == large.event_id
    assert f"{len(large.payload)} bytes" in reason


async def test_a_large_event_goes_through_a_nucleus_that_takes_it(
    worker: SpoolWorker, nucleus: Nucleus
) -> None:
    (large,) = await store(worker, record(1, size=100_000))
    async with delivering(worker, nucleus):
        await until(lambda: not waiting(worker), "taken and settled")
    assert events_of(nucleus.published) == [large]


async def test_a_large_event_that_the_nucleus_refuses_for_now_holds_its_own_line(
    worker: SpoolWorker, nucleus: Nucleus
) -> None:
    nucleus.on_publish = lambda one: ("ServiceError", "too large") if len(one.payload) > 9_000 else None
    await store(worker, record(1, size=20_000))
    await store(worker, record(1, line="line-2"))
    async with delivering(worker, nucleus) as (delivery, _):
        await until(lambda: waiting(worker) == 1, "the other line goes on")
        await until(lambda: "too large" in delivery.troubled("predictions-line-1"), "it is told")


async def test_a_small_event_is_never_blamed_for_a_nucleus_that_dies(
    worker: SpoolWorker, nucleus: Nucleus
) -> None:
    deaths = 0

    def die(_: Published) -> tuple[str, str] | None:
        nonlocal deaths
        deaths += 1
        return DIE if deaths <= 6 else None

    nucleus.on_publish = die
    ids = await store(worker, record(1))
    async with delivering(worker, nucleus):
        await until(lambda: not waiting(worker), "taken and settled", 60)
    assert events_of(nucleus.published) == ids


@pytest.mark.parametrize("when", ["at the connect", "at a publish"])
async def test_a_nucleus_that_says_nothing_is_left_after_the_timeout(
    worker: SpoolWorker, nucleus: Nucleus, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    monkeypatch.setattr(nucleus_ipc, "CALL_TIMEOUT_S", 1.0)
    nucleus.hang = when == "at the connect"
    async with delivering(worker, nucleus) as (_, uplink):
        if not nucleus.hang:
            await until(lambda: uplink.is_connected, "there is a session")
            nucleus.hang = True
        ids = await store(worker, record(1))
        await until(lambda: "did not answer" in uplink.trouble, "it is told")
        before = nucleus.connections
        await until(lambda: nucleus.connections > before, "with a new client")

        monkeypatch.setattr(nucleus_ipc, "CALL_TIMEOUT_S", 60.0)
        nucleus.hang = False
        await until(lambda: not waiting(worker), "taken and settled", 30)
    assert set(events_of(nucleus.published)) == set(ids)


async def test_a_connection_that_ends_late_does_not_end_the_next_ones_session() -> None:
    """Given up for its silence, a connection tells its own end later; by then there is another one."""
    ends: list[Callable[[NucleusGone], object]] = []

    class Ipc:
        socket = "nucleus.socket"

        async def connect(self, gone: Callable[[NucleusGone], object]) -> SimpleNamespace:
            ends.append(gone)
            return SimpleNamespace(close=lambda **_: None)

    uplink = GreengrassIpc(Ipc(), 10.0)  # type: ignore[arg-type]
    running = asyncio.create_task(uplink.run())
    await until(lambda: uplink.is_connected, "there is a session")
    ends[0](NucleusGone("it says nothing"))
    await until(lambda: uplink.is_connected, "there is the next one", 60)
    ends[0](NucleusGone("it ended the connection"))

    assert (uplink.is_connected, uplink.session) == (True, 1)
    running.cancel()
    await asyncio.wait([running])


async def test_a_socket_of_before_the_nucleus_restart_names_the_remedy(
    worker: SpoolWorker, nucleus: Nucleus
) -> None:
    """What a container sees whose mount shows the file of before: a socket that nobody listens on."""
    nucleus.stop()
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(nucleus.path))
    async with delivering(worker, nucleus) as (_, uplink):
        await until(
            lambda: "restart the component: its mount shows the old socket" in uplink.trouble, "it is told"
        )


async def test_a_token_that_the_nucleus_does_not_know_is_told(worker: SpoolWorker, nucleus: Nucleus) -> None:
    nucleus.tokens = {"another"}
    async with delivering(worker, nucleus) as (_, uplink):
        await until(lambda: nucleus.refused, "it is turned away")
        await until(lambda: "SVCUID" in uplink.trouble, "it is told")
        assert not uplink.is_connected
