# SPDX-License-Identifier: Apache-2.0
"""A producer as capture is one: spool, publisher, and events made at a pace. Killed and started again it goes on.

The count of made events changes in the transaction that stores them, and the id of event number n is always the same:
so the test knows every id that was ever appended, and none is appended twice. Once it has enough it says `made N`.
"""

import argparse
import asyncio
import re
import uuid
from pathlib import Path

from linewatch.v1 import event_pb2, verdict_pb2
from linewatch_runtime.events import Place, envelope, origin, stream_of
from linewatch_runtime.mqtt import Connection, Endpoint, Subscriptions
from linewatch_runtime.publisher import Publisher
from linewatch_runtime.spool import Record, Spool, SpoolFull, SpoolWorker

PLACE = Place("plant-1", "line-1", "station-1")
BATCH = 5
TRY_AGAIN_S = 0.2


def event_id(number: int) -> str:
    """The id of event `number`."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"event {number}"))


def event(number: int, epoch: int) -> Record:
    """Every fifth is an alarm."""
    result = verdict_pb2.Verdict.NG if number % 5 == 0 else verdict_pb2.Verdict.OK
    data = event_pb2.Inspection(
        origin=origin(PLACE, epoch, number + 1), part_id=f"part {number}", verdict=verdict_pb2.Verdict(result=result)
    )  # fmt: skip
    payload = envelope(event_id(number), "InferenceCompleted", PLACE, data)
    alarm = result == verdict_pb2.Verdict.NG
    return Record(event_id(number), stream_of(PLACE.line), PLACE.topic("inspection"), payload, alarm)


def ids_made(told: str) -> list[str]:
    """The ids of all its events, from what the process said; empty before it has enough."""
    said = re.findall(r"^made (\d+)\n", told, re.MULTILINE)
    return [event_id(number) for number in range(int(said[-1]))] if said else []


async def make(
    worker: SpoolWorker, publisher: Publisher, count: int, rate: float, enough: Path | None
) -> None:
    """Appends until `count` events were ever made, and behind them until the file `enough` is there."""
    epoch = await worker.run(worker.spool.next_epoch)
    while True:
        made = (await worker.run(worker.spool.counts)).get("made", 0)
        if made >= count and (enough is None or enough.exists()):
            break
        end = made + BATCH if enough else min(made + BATCH, count)
        batch = [event(number, epoch) for number in range(made, end)]
        try:
            await worker.run(worker.spool.append, batch, {"made": len(batch)})
        except SpoolFull:
            print("held", flush=True)  # as capture does: nothing of the batch was stored
            await asyncio.sleep(TRY_AGAIN_S)
            continue
        publisher.wake()
        await asyncio.sleep(BATCH / rate)
    print("made", made, flush=True)


async def main() -> None:
    """Runs until it is killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--spool", type=Path, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--enough", type=Path, help="makes events for as long as this file is not there")
    options = parser.parse_args()
    worker = SpoolWorker(lambda: Spool(options.spool))
    committed = Subscriptions([PLACE.topic("committed")])
    connection = Connection(Endpoint("127.0.0.1", options.port, "producer"), committed)
    publisher = Publisher(worker, connection)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(connection.run(), name="connection")
        tasks.create_task(publisher.run(), name="publisher")
        tasks.create_task(make(worker, publisher, options.count, options.rate, options.enough), name="make")


if __name__ == "__main__":
    asyncio.run(main())
