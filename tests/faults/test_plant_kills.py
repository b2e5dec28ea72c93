# SPDX-License-Identifier: Apache-2.0
"""The whole plant under kill -9: every process of the device dies 20 times while parts are judged.

The control that must fail lies in test_kills.py, beside the same spool and publisher. The stand-in cloud is never
killed: it loses what it acknowledged.
"""

import asyncio
import json
import random
import shutil
import time
from pathlib import Path

import pytest

from linewatch_plant.broker import EMBEDDED, MOSQUITTO
from linewatch_plant.counts import Counts
from linewatch_plant.plant import Plant, PlantOptions, running_plant, sample_stations

pytestmark = pytest.mark.faults

KILLS = 20
PARTS = 720
RATE = 4.0
VICTIMS = ("broker", "inference", "capture-line-1", "capture-line-2", "forwarder")
SEED = 20261121
REST_S = 180.0


async def kill_each(plant: Plant, chance: random.Random) -> None:
    """Kills in a random order, each time once the victim runs again."""
    order = [name for name in VICTIMS for _ in range(KILLS)]
    chance.shuffle(order)
    for name in order:
        service = plant.processes.services[name]
        while service.pid is None:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        await asyncio.sleep(chance.uniform(0.05, 1.2))  # where it dies is the point of the test
        service.kill()


async def at_rest(plant: Plant) -> Counts:
    deadline = time.monotonic() + REST_S
    while time.monotonic() < deadline:
        failure = plant.failed()
        assert failure is None, failure
        counts = await plant.counts()
        if counts.parts["sent"] >= PARTS and await plant.at_rest(counts):
            return counts
        await asyncio.sleep(0.5)
    return await plant.counts()


def test_every_process_killed_20_times_loses_and_doubles_nothing(tmp_path: Path) -> None:
    kind = MOSQUITTO if shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin") else EMBEDDED
    options = PlantOptions(run_dir=tmp_path / "plant", stations=sample_stations(PARTS, RATE), broker=kind)

    async def story() -> tuple[Counts, list[str]]:
        async with running_plant(options) as plant:
            await asyncio.wait_for(plant.cloud_is_up.wait(), 90)
            started = time.monotonic()
            await kill_each(plant, random.Random(SEED))
            seconds = time.monotonic() - started
            before = await plant.counts()
            assert before.parts["sent"] < PARTS, "the parts ran out before the kills did: raise PARTS"
            print(f"{len(VICTIMS) * KILLS} kills in {seconds:.0f} s, broker {kind}; at rest after:")
            counts = await at_rest(plant)
            assert plant.cloud is not None
            events = [json.loads(row["event"]["S"]) for row in plant.cloud.scan("EventsTable")]
            return counts, [event["subject"] for event in events if event["type"] == "InferenceCompleted"]

    counts, subjects = asyncio.run(story())

    print(counts)
    assert counts.disagreements() == []
    assert counts.parts == {"sent": PARTS, "judged": PARTS, "not_inspected": 0, "skipped": 0}
    # Not only the counts: each part of the recording was judged as often as it was played.
    machine = [subject for subject in subjects if "cycle" in subject]
    assert len(machine) == PARTS // 2
    assert len(subjects) == PARTS
