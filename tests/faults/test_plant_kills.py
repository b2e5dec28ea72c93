# SPDX-License-Identifier: Apache-2.0
"""R1: the whole way under kill -9, from capture to the work order, Lambda functions included.

Four machines, each judged by the sensor model: capture x 4, inference, broker, forwarder, enrich and work_orders die at
random moments while parts are judged. What is compared is what each end keeps for itself: capture's counts, which change
in the transaction that stores an event, and the events that the cloud has. The stand-in cloud is never killed: it loses
what it acknowledged. The controls that must fail are in test_kills.py and test_exactly_once.py.

Guards: services/{capture,inference,forwarder}, runtime/linewatch_runtime, cloud/{enrich,work_orders}.
"""

import json
import random
import shutil
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from brokers import MOSQUITTO, MOSQUITTO_PROGRAM, NO_MOSQUITTO, Broker, Child, wait_for
from pumped_cloud import ENRICH, WORK_ORDERS, PumpedCloud, pumped_cloud

from linewatch_forwarder.delivery import LOOK_AHEAD
from linewatch_plant.counts import Counts, doubled, edge_counts
from linewatch_plant.processes import free_port

pytestmark = [pytest.mark.faults, pytest.mark.timeout(7200)]

ROOT = Path(__file__).resolve().parents[2]
SEED = 20261121
LINES = ("line-1", "line-2", "line-3", "line-4")
REST_S = 1200.0
PATIENCE_S = 60.0
"""For a verdict. A machine that starts a process every half second may let one wait longer than capture's own 5 s: that
part would be recorded as not inspected, as it should be, and is not what dies here."""


@dataclass(slots=True)
class Size:
    """How large a run is. `parts` and `rate` (parts/s) are of one line; `between`: parts between two kills, on average.

    So the kills fall while parts are judged, on a fast machine and on a slow one, and end before the parts do.
    """

    kills: int
    parts: int
    rate: float
    between: int


# Of the short form's 300 parts a line had once sent 180 and more when the last kill came: a kill takes what it takes.
SHORT, LONG = Size(100, 400, 8.0, 4), Size(500, 12_500, 25.0, 40)


@dataclass(slots=True)
class Device:
    """The processes of one device, each a child that can be killed."""

    folder: Path
    broker: Broker
    services: dict[str, Child]

    @property
    def capture_spools(self) -> dict[str, Path]:
        return {line: self.folder / f"capture-{line}" / "capture.db" for line in LINES}

    def counts(self) -> Counts:
        return edge_counts(self.capture_spools, self.folder / "forwarder" / "forwarder.db")


def device(folder: Path, pumped: PumpedCloud, size: Size) -> Device:
    """Not started."""
    models, keys = folder / "models", folder / "keys"
    models.mkdir(parents=True)
    keys.mkdir()
    (models / "turbofan").symlink_to(ROOT / "models" / "turbofan")
    for key in (ROOT / "models" / "trusted-keys").glob("*.pem"):
        shutil.copy(key, keys)
    broker, inference = Broker(MOSQUITTO, folder / "broker"), free_port()
    cloud = pumped.cloud

    def service(name: str, module: str, **own: object) -> Child:
        prefix = module.removeprefix("linewatch_").upper()
        common = {"SITE": "plant-1", "STATE_DIR": folder / name, "MQTT_PORT": broker.port}
        variables = {f"{prefix}_{key}": str(value) for key, value in {**common, **own}.items()}
        return Child(
            [sys.executable, "-m", module],
            folder / f"{name}.log",
            {"ORT_DISABLE_TELEMETRY": "1", **variables},
        )

    services = {
        "broker": broker,
        "inference": service(
            "inference", "linewatch_inference", HOST="127.0.0.1", PORT=inference, MODELS_DIR=models,
            TRUSTED_KEYS_DIR=keys, MODELS="turbofan",
        ),
        "forwarder": service(
            "forwarder", "linewatch_forwarder", UPLINK_HOST="localhost", UPLINK_PORT=cloud.mqtt_port,
            UPLINK_CLIENT_ID=cloud.client_id, UPLINK_CA_FILE=cloud.ca_file,
            UPLINK_CERTIFICATE_FILE=cloud.certificate_file, UPLINK_KEY_FILE=cloud.key_file,
        ),
    }  # fmt: skip
    for line in LINES:
        services[f"capture-{line}"] = service(
            f"capture-{line}", "linewatch_capture", LINE=line, STATION="machine-1", SOURCE="records",
            PATH=ROOT / "plant" / "sample" / "turbofan" / "records.csv.gz", LOOP="true", PARTS=size.parts,
            RATE=size.rate, MODEL="turbofan", INFERENCE_ADDRESS=f"127.0.0.1:{inference}",
            INSPECT_DEADLINE_S=PATIENCE_S,
        )  # fmt: skip
    return Device(folder, broker, services)


@contextmanager
def running_all(made: Device, functions: dict[str, Child]) -> Iterator[dict[str, Child]]:
    """Everything that may die, started; killed with the block."""
    victims = {**made.services, **functions}
    try:
        for victim in victims.values():
            victim.start()
        yield victims
    finally:
        for victim in victims.values():
            victim.kill()


def kill_all(made: Device, victims: dict[str, Child], size: Size, chance: random.Random) -> Counter[str]:
    """Kills in random order at random moments, each victim as often as the others, and starts each again at once.

    Some fall together; but in all so many parts were judged between them as the size says.
    """
    names = list(victims) * -(-size.kills // len(victims))
    chance.shuffle(names)
    wanted = made.counts().parts["judged"]
    for name in names[: size.kills]:
        wanted += chance.randint(0, 2 * size.between)
        wait_for(lambda: made.counts().parts["judged"] >= wanted, "parts are judged", 300)  # noqa: B023
        time.sleep(chance.uniform(0, 0.2))  # where it dies is the point of the test
        assert victims[name].runs or name.startswith("capture"), victims[name].told()[-2000:]
        victims[name].kill()
        victims[name].start()
    return Counter(names[: size.kills])


def at_rest(made: Device, pumped: PumpedCloud, size: Size) -> bool:
    """Whether every part is judged and every event is where it ends."""
    counts = made.counts()
    if counts.parts["sent"] < size.parts * len(LINES) or counts.backlog:
        return False
    events = counts.events
    return events["published"] == events["stored"] == events["delivered"] and pumped.cloud.queues_are_empty()


def gaps(events: list[dict]) -> list[str]:
    """Stations with a number missing or twice: an epoch's sequence is 1, 2, 3 … in what one process made."""
    numbers: defaultdict[tuple, list[int]] = defaultdict(list)
    for event in events:
        origin = event["data"]["origin"]
        numbers[origin["line"], origin["station"], origin["epoch"]].append(origin["sequence"])
    return [
        f"{key}: {sorted(found)[:5]} … {max(found)}"
        for key, found in numbers.items()
        if sorted(found) != list(range(1, len(found) + 1))
    ]


def test_every_process_killed_again_and_again_loses_and_doubles_nothing(
    tmp_path: Path, tally, long: bool
) -> None:
    if MOSQUITTO_PROGRAM is None:
        pytest.skip(NO_MOSQUITTO)
    size = LONG if long else SHORT
    with pumped_cloud(tmp_path) as pumped:
        for line in LINES:
            pumped.register(f"plant-1/{line}/machine-1", f"ASSET-{line}")
        made = device(tmp_path / "device", pumped, size)
        functions = {"enrich": pumped.pump(ENRICH), "work_orders": pumped.pump(WORK_ORDERS)}
        if long:  # work_orders asks the tables five times for an event: one process of it would take an hour
            functions |= {f"work_orders-{number}": pumped.pump(WORK_ORDERS) for number in (2, 3, 4)}
        with running_all(made, functions) as victims:
            wait_for(lambda: made.counts().events["stored"] > 0, "the first event is stored", 300)

            began = time.monotonic()
            kills = kill_all(made, victims, size, random.Random(SEED))
            seconds = time.monotonic() - began

            before = made.counts()
            wait_for(
                lambda: at_rest(made, pumped, size), "everything is at rest", REST_S if not long else 3600
            )
            counts = made.counts()
        events = [json.loads(row["event"]["S"]) for row in pumped.cloud.scan("EventsTable")]
        # An ERP that takes more than a second, as on a busy machine, leaves orders to the sweep.
        wait_for(lambda: pumped.unplaced_after_a_sweep() == 0, "every order is in the ERP", 300)
        orders, said, dead = pumped.erp.orders(), pumped.cloud.counts(), pumped.dead_letters()
        repeats = pumped.accepted()

    of_lines = [event for event in events if event["type"] == "InferenceCompleted"]
    parts = size.parts * len(LINES)
    again = sum(repeats.values()) - len(repeats)
    tally.accepted, tally.doubled = counts.events["published"], doubled(orders)
    tally.lost = counts.events["published"] - len(of_lines)
    tally.note = (
        f"{kills.total()} kills of {len(kills)} processes in {seconds:.0f} s, {before.parts['judged']} parts were judged "
        f"meanwhile; {again} repeats at the cloud; {len(orders)} work orders"
    )
    print(tally.note, counts)
    assert before.parts["judged"] > size.kills * size.between / 2, "the kills fell while nothing flowed"
    assert before.parts["sent"] < parts, "the parts ran out before the kills did: raise the parts"
    assert counts.parts == {"sent": parts, "judged": parts, "not_inspected": 0, "skipped": 0}
    assert counts.events["published"] == len(of_lines) == said["enriched"] == parts
    assert gaps(of_lines) == []
    assert not dead
    assert again <= kills["forwarder"] * LOOK_AHEAD, "only a killed forwarder sends again, at most its window"
    assert orders
    assert len(orders) == said["work_orders"]["created"]
    assert doubled(orders) == 0
    assert not [name for name, victim in victims.items() if "Traceback" in victim.told()]
