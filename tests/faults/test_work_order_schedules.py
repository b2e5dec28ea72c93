# SPDX-License-Identifier: Apache-2.0
"""Effectively one work order: thousands of seeded schedules of the work-orders flow, in virtual time.

At every call of DynamoDB, of a shadow and of the ERP others may go on, the process may die or AWS may fail; transactions
meet others, batches leave items out; the ERP answers 500, 429, 409, garbage, late or never, before or after it made the
order; people decide meanwhile, two at once, and technicians end what the ERP has, of which the poll and its webhook tell.
What ran is the product between the queue and the ERP's wire (schedule_world.py). Each control breaks one thing that the
product does, fails at a fixed crash point every time, and is seen by the schedules.

A seed that fails is named; `SEED=<seed> pytest tests/faults/test_work_order_schedules.py -k seed -s` plays it alone.

Guards: cloud/work_orders, cloud/outcomes/polling.py, cloud/outcomes/closing.py, cloud/api/deciding.py, cloud/erp.
"""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest
from faults.schedule_controls import CONTROLS
from faults.schedules import Played, play, play_at

pytestmark = [pytest.mark.faults, pytest.mark.timeout(7200)]

FIRST = 1_000_000
SHORT, LONG = 2_000, 20_000
SHARE = 25
"""Seeds that a process plays before it tells."""

ENOUGH = 2
"""Schedules that must see a control; the short form then stops."""

CRASH_POINTS = {
    "check_then_post": "after erp create",
    "no_lease": "two at once",
    "no_next": "stands still",
    "no_reconcile": "made and not answered",
    "no_settle": "made late",
    "record_apart": "after TransactWriteItems",
}

FAULTS_AT = {"stands still": 2}
"""How many faults the machine has at a fixed point, where it is more than one: each has its order."""


def quiet() -> None:
    """In each process that plays: what the product logs of 2,000 outages is of no use here."""
    os.environ["POWERTOOLS_LOG_LEVEL"] = "CRITICAL"


def played(seeds: range) -> list[Played]:
    return [play(seed) for seed in seeds]


def spread(work: Callable[[Any], Any], shares: list[Any]) -> list[Any]:
    """In as many processes as there are cores."""
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), initializer=quiet) as processes:
        return list(processes.map(work, shares))


def told(failed: list[Played]) -> str:
    lines = [f"seed {one.seed}: {'; '.join(one.faults[:3])}" for one in failed[:10]]
    again = (
        f"SEED={failed[0].seed} pytest tests/faults/test_work_order_schedules.py -k seed -s" if failed else ""
    )
    return "\n".join([f"{len(failed)} schedules broke a promise", *lines, again])


def test_every_schedule_leaves_one_order_for_each_fault(tally, long: bool) -> None:
    count = LONG if long else SHORT
    shares = [range(at, min(at + SHARE, FIRST + count)) for at in range(FIRST, FIRST + count, SHARE)]

    runs = [run for share in spread(played, shares) for run in share]

    failed = [run for run in runs if run.faults]
    sums = {
        name: sum(getattr(run, name) for run in runs)
        for name in Played.__slots__
        if name not in ("faults", "log")
    }
    tally.accepted, tally.lost = len(runs), sum(any("lost" in f for f in run.faults) for run in failed)
    tally.doubled = sum(any("doubled" in f for f in run.faults) for run in failed)
    tally.note = (
        f"{len(runs)} schedules, {sums['steps']} steps, {sums['deaths']} deaths, {sums['erp_faults']} spoiled creations, "
        f"{sums['orders']} orders, {sums['escalations']} escalations, {sums['held']} holds, {sums['decisions']} decisions, {sums['conflicts']} came second, "
        f"{sums['ended']} ended by the poll, {sums['corrected']} corrected by it, {sums['opened_by_sweep']} opened by the sweep"
    )
    assert not failed, told(failed)
    assert len(runs) == count
    # The schedules must meet what they are about.
    assert sums["deaths"] > count
    assert sums["erp_faults"] > count / 4
    assert sums["conflicts"] > count / 10
    assert sums["spoilings"] > count
    # And what the policy does on its own: severity that rises, quiet hours, the rate limit.
    assert sums["escalations"] > count / 4
    assert sums["held"] > count / 20
    assert sums["released"] > count / 100
    assert sums["limited"] > count / 200
    # Polls that end orders and correct findings, and machines that stand still after the technician's end.
    assert sums["ended"] > count / 10
    assert sums["corrected"] > count / 200
    assert sums["opened_by_sweep"] > count / 200


@pytest.mark.skipif("SEED" not in os.environ, reason="SEED names no schedule to be played alone")
def test_seed_alone() -> None:
    run = play(int(os.environ["SEED"]))
    print("\n".join(run.log))
    assert not run.faults, told([run])


def compared(seed: int) -> tuple[Played, Played]:
    return play(seed), play(seed, engine="stand-in")


def test_a_share_of_the_schedules_runs_the_same_on_the_stand_ins_engine(tally, long: bool) -> None:
    seeds = list(range(FIRST, FIRST + (1_000 if long else 60)))

    pairs = spread(compared, seeds)

    tally.accepted, tally.lost = len(pairs), sum(memory != standin for memory, standin in pairs)
    tally.note = "the same seeds on ministack's DynamoDB, step by step the same"
    for memory, standin in pairs:
        assert memory == standin


@pytest.mark.parametrize("name", CONTROLS)
def test_fixed_crash_point_costs_us_nothing_and_the_control_fails(name: str, tally) -> None:
    ours = play_at(CRASH_POINTS[name])
    with CONTROLS[name]():
        control = play_at(CRASH_POINTS[name])

    faults = FAULTS_AT.get(CRASH_POINTS[name], 1)
    tally.accepted, tally.lost, tally.doubled = faults, len(ours.faults), max(0, ours.orders - faults)
    tally.control_lost = len(control.faults)
    tally.note = f"{CRASH_POINTS[name]}; the control: {control.faults[:1]}"
    assert ours.faults == []
    assert ours.orders == faults
    assert control.faults, "the control must fail, or the schedules see nothing"


def failing_share(share: tuple[str, range]) -> int:
    name, seeds = share
    with CONTROLS[name]():
        return sum(bool(play(seed).faults) for seed in seeds)


@pytest.mark.parametrize("name", CONTROLS)
def test_schedules_see_the_control(name: str, tally, long: bool) -> None:
    count = 2_000 if long else 1_000
    shares = [(name, range(at, at + SHARE)) for at in range(FIRST, FIRST + count, SHARE)]
    played_so_far = failed = 0
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), initializer=quiet) as processes:
        for at in range(0, len(shares), 2):
            failed += sum(processes.map(failing_share, shares[at : at + 2]))
            played_so_far += sum(len(seeds) for _, seeds in shares[at : at + 2])
            if failed >= ENOUGH and not long:
                break

    tally.accepted, tally.control_lost = played_so_far, failed
    tally.note = f"{failed} of {played_so_far} schedules break a promise under the control"
    assert failed, "no schedule sees it: they are blind"
