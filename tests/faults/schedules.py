# SPDX-License-Identifier: Apache-2.0
"""Plays one seed: twenty minutes of a plant, faults for forty-five, then everybody comes to rest."""

import random
from dataclasses import dataclass
from typing import Any

from faults.schedule_checks import acts_of_policy, acts_of_poll, broken
from faults.schedule_world import (
    BEGIN,
    FAULTS_FOR_S,
    POISON,
    SETTLE_S,
    Station,
    World,
    schedule_world_text,
    world_of,
)

from work_orders.order_items import NEVER


@dataclass(frozen=True, slots=True)
class Played:
    """What a schedule led to."""

    seed: int
    faults: list[str]
    orders: int
    deaths: int
    erp_faults: int
    decisions: int
    conflicts: int
    # What the policy did besides opening orders: escalations, holds, ends of holds, orders above the rate limit.
    escalations: int
    held: int
    released: int
    limited: int
    # Answers of AWS that are neither yes nor no: a transaction met another one, a batch left items out.
    spoilings: int
    # Orders that the poll ended, findings that it corrected, and orders that the sweep opened.
    ended: int
    corrected: int
    opened_by_sweep: int
    steps: int
    log: list[str]


def play(seed: int, **changed: Any) -> Played:
    """`changed`: what a control puts in the place of the product's own."""
    with world_of(seed, **changed) as world:
        _begin(world)
        world.hub.run_until(BEGIN + FAULTS_FOR_S)
        _come_to_rest(world)
        return Played(
            seed, broken(world), len(world.erp.orders), world.deaths, sum(world.erp.counted.values()),
            world.decisions, world.conflicts, *acts_of_policy(world), world.spoilings, *acts_of_poll(world),
            world.opened_by_sweep, world.hub.steps, world.hub.log,
        )  # fmt: skip


def _begin(world: World) -> None:
    """What happens, happens mostly at a few moments: that is when callers meet."""
    chance = world.chance
    busy = sorted(chance.uniform(0, FAULTS_FOR_S - 600) for _ in range(chance.choice((2, 3, 4))))
    together = chance.choice((0.5, 3.0, 30.0))

    def moment(since: int = 0) -> float:
        return BEGIN + chance.choice(busy[since:]) + chance.uniform(0, together)

    for number in range(chance.choice((1, 2, 3))):
        station = Station(f"ASSET-{number}", f"line-{number}")
        world.stations.append(station)
        begin, pace = BEGIN + busy[0], chance.choice((0.0, 0.05, 1.0, 20.0))
        for cycle, severity in enumerate(_severities(chance)):
            world.hub.at(
                begin + cycle * pace, lambda station=station, now=severity: world.bad_part(station, now)
            )
        if chance.random() < 0.3:  # the technician was there, and it comes back
            for cycle in range(5):
                again = BEGIN + busy[-1] + cycle * pace
                world.hub.at(again, lambda station=station: world.bad_part(station, 0.95))
            if chance.random() < 0.7:  # and the ERP is asked later still
                world.technician_later(BEGIN + busy[-1] - chance.uniform(0, together))
                world.poll_later(BEGIN + busy[-1] + chance.uniform(60, 600), is_repeated=False)
    for _ in range(chance.randrange(8)):
        begin = moment(1)
        for name in ("mei", "omar", "ada")[: chance.choice((1, 2, 3))]:
            world.person_later(begin + chance.choice((0.0, 0.0, 0.1, 1.0)), name)
    for _ in range(chance.randrange(3)):
        world.sweep_later(moment(1), is_repeated=False)
    if chance.random() < 0.1:
        world.send(chance.choice(POISON))
    for _ in range(chance.randrange(2)):
        world.hub.at(moment(), world.erp.revoke)
    world.sweep_later(BEGIN + chance.uniform(0, 300))
    for _ in range(chance.randrange(6)):
        world.technician_later(moment(1))
    for _ in range(chance.randrange(3)):
        world.poll_later(moment(1), is_repeated=False)
    for _ in range(chance.randrange(5)):
        world.hint_later(moment(1))
    world.poll_later(BEGIN + chance.uniform(0, 900))


def _severities(chance: random.Random) -> list[float]:
    """Of the station's cycles: one level, or one that rises while its order waits, is placed, is held or is in the ERP."""
    first = chance.choice((0.95, 0.85, 0.65, 0.65))
    if chance.random() < 0.5:
        return [first] * 4 + [chance.choice((first, 0.95)) for _ in range(chance.randrange(4))]
    # Four cycles make a level count.
    levels = [first, *(level for level in (0.75, 0.85, 0.95, 0.99) if level > first)]
    left_out = {level for level in levels[1:] if chance.random() < 0.4}
    return [level for level in levels if level not in left_out for _ in range(4)]


def _come_to_rest(world: World) -> None:
    """No more faults; the queue is worked off, the sweep runs as long as it has something to do, the ERP is asked for all."""
    world.erp.percent, world.erp.away = 0.0, []
    is_asked = False
    for _ in range(60):
        world.hub.run_until(world.hub.now + 1000)
        world.sweep_later(world.hub.now)
        world.hub.run_until(world.hub.now + 120)
        items = world.dynamodb.scan(TableName=world.tables["WorkOrdersTable"])["Items"]
        due = [item["last_tried_at"] for item in items if item["last_tried_at"] != NEVER]
        shadows = [item for item in items if item["shadow"] != "written"]
        if not world.queue and not world.hub.actors and not due and not shadows:
            if is_asked:
                return
            # Every order is where it will be: now the ERP is asked for each, and what follows is worked off, too.
            is_asked = True
            world.hint_later(world.hub.now)


def play_at(crash_point: str) -> Played:
    """One machine, one fault at a fixed point, nothing by chance: what a control fails every time."""
    with world_of(1, faults=False) as world:
        station = Station("ASSET-0", "line-0")
        world.stations.append(station)
        if crash_point == "two at once":
            # Both have looked before either has created.
            world.slow_at = {"before erp create": 20.0}
        elif crash_point == "made and not answered":
            world.erp.next_create = "500 made"
        elif crash_point == "made late":
            # The next try comes as soon as it may; the ERP commits as late as it may.
            world.retry_base_s, world.erp.next_create, world.erp.late_s = 1.0, "late", SETTLE_S - 1
        elif crash_point == "stands still":
            # The technician was done before the machine's last parts, and the poll comes after them.
            ended_at = schedule_world_text(BEGIN + 600)
            world.hub.at(BEGIN + 800, lambda: world.erp.technician(ended_at))
            for cycle in range(5):
                world.hub.at(BEGIN + 700 + cycle, lambda: world.bad_part(station, 0.95, times=1))
            world.poll_later(BEGIN + 900, is_repeated=False)
        else:
            world.dies_at = crash_point
        for cycle in range(6):
            world.hub.at(BEGIN + cycle * 1e-3, lambda: world.bad_part(station, 0.95, times=1))
        world.hub.run_until(BEGIN + FAULTS_FOR_S)
        _come_to_rest(world)
        return Played(
            1, broken(world), len(world.erp.orders), world.deaths, sum(world.erp.counted.values()), 0, 0,
            *acts_of_policy(world), world.spoilings, *acts_of_poll(world), world.opened_by_sweep, world.hub.steps,
            world.hub.log,
        )  # fmt: skip
