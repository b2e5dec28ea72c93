# SPDX-License-Identifier: Apache-2.0
"""`make demo`: plays real parts through the whole plant, shows it live, and proves that every hop's count agrees."""

import argparse
import asyncio
import itertools
import json
import logging
import platform
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from linewatch_plant.broker import EMBEDDED, MOSQUITTO
from linewatch_plant.counts import Counts
from linewatch_plant.demo_account import shown
from linewatch_plant.plant import REPOSITORY, Plant, PlantOptions, running_plant, sample_stations
from linewatch_plant.processes import PlantError, port_is_free
from linewatch_plant.results import results
from linewatch_plant.view import View, how_to_sign_in
from linewatch_runtime.lifecycle import stop_on_signals, wait_until
from linewatch_runtime.mqtt import Connection, Endpoint, Subscriptions

BUILD = REPOSITORY / "build"
OUTAGE_PARTS = 200
SETTLE_S = 240.0
"""How long the last events may take to arrive, after the last part and the end of an outage."""

LOOK_EVERY_S = 0.5
LOOKS_A_LINE = 10
"""Looks between two lines of counts, where nothing can be redrawn."""
SIGN_IN_EVERY = 6
"""Lines between two that tell how to sign in, where nothing can be redrawn."""

EXIT_DISAGREES = 1
EXIT_CANNOT_START = 2


@dataclass(frozen=True, slots=True)
class Script:
    """What the demo does: how many parts (0: until stopped) and how long the uplink is cut in the middle."""

    parts: int
    outage_s: float


def main(arguments: list[str] | None = None) -> None:
    """The command line behind `make demo`."""
    options = _arguments(arguments)
    script = Script(options.parts or (OUTAGE_PARTS if options.outage else 0), options.outage)
    try:
        plant_options = _plant_options(options, script)
        code = asyncio.run(_demo(plant_options, script, options.json))
    except* PlantError as errors:
        for error in _leaves(errors):
            print(f"demo: {error}", file=sys.stderr)
        code = EXIT_CANNOT_START
    sys.exit(code)


def _leaves(errors: BaseExceptionGroup[PlantError]) -> list[str]:
    """The messages of a group, each once."""
    messages: list[str] = []
    for error in errors.exceptions:
        messages += _leaves(error) if isinstance(error, BaseExceptionGroup) else [str(error)]
    return list(dict.fromkeys(messages))


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument(
        "--parts", type=int, default=0, help="PARTS: stop after so many parts, both lines together"
    )
    parser.add_argument(
        "--outage", type=float, default=0.0, help="OUTAGE: cut the uplink for so many seconds in the middle"
    )
    parser.add_argument("--rate", type=float, default=4.0, help="RATE: parts per second on each line")
    parser.add_argument("--broker", choices=[EMBEDDED, MOSQUITTO], default=EMBEDDED, help="BROKER")
    parser.add_argument("--images", type=Path, help="IMAGES: your own folder of JPEG or PNG files for line 1")
    parser.add_argument("--model", default="", help="MODEL: the model package that judges line 1")
    parser.add_argument(
        "--models-dir", type=Path, help="MODELS_DIR: where packages lie, <name>/releases/<version>/"
    )
    parser.add_argument("--console-port", type=int, help="CONSOLE_PORT: where the web console listens")
    parser.add_argument("--pilot", action="store_true", help="PILOT=1: every work order awaits approval")
    parser.add_argument("--json", type=Path, default=BUILD / "demo.json", help="where the counts are written")
    return parser.parse_args(arguments)


def _plant_options(options: argparse.Namespace, script: Script) -> PlantOptions:
    if script.parts < 0 or options.rate <= 0 or script.outage_s < 0:
        raise PlantError("PARTS, RATE and OUTAGE are positive numbers")
    if options.console_port and not port_is_free(options.console_port):
        raise PlantError(f"CONSOLE_PORT={options.console_port} is taken; choose another one or leave it out")
    camera, machine = sample_stations(script.parts, options.rate)
    if options.images:
        if not options.images.is_dir():
            raise PlantError(f"IMAGES={options.images}: there is no such folder")
        camera = replace(camera, path=options.images.resolve())
    if options.model:
        camera = replace(camera, model=options.model)
    # Capture takes 0 for endless; a line without a part is left out.
    stations = tuple(one for one in (camera, machine) if not script.parts or one.parts)
    own = (options.models_dir.resolve(),) if options.models_dir else ()
    console_port = options.console_port or (8080 if port_is_free(8080) else None)
    return PlantOptions(
        run_dir=BUILD / "demo", stations=stations, broker=options.broker, models_dirs=(*own, REPOSITORY / "models"),
        console_port=console_port, pilot=options.pilot,
    )  # fmt: skip


async def _demo(plant_options: PlantOptions, script: Script, json_file: Path) -> int:
    started = time.monotonic()
    # The view tells how the connections are; their log would run through it.
    logging.getLogger("linewatch_runtime").setLevel(logging.CRITICAL)
    with stop_on_signals() as stop:
        async with running_plant(plant_options) as plant:
            view = View(plant.console_url)
            listener = Connection(
                Endpoint("127.0.0.1", plant.ports["mqtt"], "demo-view"),
                Subscriptions([f"linewatch/v1/+/+/+/{kind}" for kind in ("inspection", "engine", "status")]),
            )
            async with asyncio.TaskGroup() as tasks:
                beside = [
                    tasks.create_task(listener.run(), name="listen"),
                    tasks.create_task(_hear(listener, view, started), name="hear"),
                    tasks.create_task(_show(plant, view), name="show"),
                ]
                counts = await _play(plant, view, script, stop)
                for task in beside:
                    task.cancel()
            if counts is None:
                print("stopping …")
                return 0
            if not sys.stdout.isatty():
                _tell_news(plant, view)  # a short demo may be over before anybody looked again
            told = counts.disagreements()
            summary = await asyncio.to_thread(results, plant, counts)
            if view.first_verdict_at:
                summary["seconds_to_first_verdict"] = round(view.first_verdict_at - started, 1)
    _write(json_file, summary)
    for disagreement in told:
        print(f"DISAGREES: {disagreement}")
    if told:
        print("\n".join(view.trouble({})))
    return EXIT_DISAGREES if told else 0


async def _play(plant: Plant, view: View, script: Script, stop: asyncio.Event) -> Counts | None:
    """Waits for the parts, cuts the cable in the middle, waits until every event has arrived. None: stopped before."""
    view.phase = "starting: the device judges, the cloud comes up behind it"
    cut_for: float | None = None
    settling_since: float | None = None
    while not await wait_until(stop, LOOK_EVERY_S):
        _raise_failure(plant)
        counts = await plant.counts()
        done = sum(counts.parts[name] for name in ("judged", "not_inspected", "skipped"))
        if plant.cloud_is_up.is_set() and cut_for is None:
            view.phase = "running"
        if script.outage_s and cut_for is None and done * 2 >= script.parts and counts.events["delivered"]:
            cut_for = time.monotonic() + script.outage_s
            assert plant.cable is not None
            plant.cable.cut()
        if plant.cable and plant.cable.is_cut and cut_for is not None:
            left = cut_for - time.monotonic()
            view.phase = f"UPLINK CUT, {max(0.0, left):.0f} s left: the backlog grows, nothing is lost"
            if left <= 0:
                plant.cable.mend()
                view.phase = "uplink back: draining"
            continue
        if script.parts and done >= script.parts:
            settling_since = settling_since or time.monotonic()
            view.phase = "all parts judged, waiting until every event has arrived"
            assert settling_since is not None
            settled = plant.cloud_is_up.is_set() and await plant.at_rest(counts)
            if settled or time.monotonic() - settling_since > SETTLE_S:
                return await plant.counts()
    return None


def _raise_failure(plant: Plant) -> None:
    failure = plant.failed()
    if failure is not None:
        raise (
            failure if isinstance(failure, PlantError) else PlantError(f"{type(failure).__name__}: {failure}")
        )


async def _hear(listener: Connection, view: View, started: float) -> None:
    while True:
        view.hear(await listener.messages.get())
        if view.first_verdict_at and not sys.stdout.isatty() and started:
            print(f"first verdict after {view.first_verdict_at - started:.1f} s", flush=True)
            started = 0.0


async def _show(plant: Plant, view: View) -> None:
    """Draws until it is cancelled: live on a terminal, a line now and then elsewhere."""
    console = Console()
    print(f"console: {plant.console_url}", flush=True)
    if not sys.stdout.isatty():  # whatever FORCE_COLOR says: a log is no place to draw
        told = ""
        for number in itertools.count():
            counts = await plant.counts()
            phase = view.phase.partition(",")[0]  # without the seconds that are left of it
            if number % LOOKS_A_LINE == 0 or phase != told:  # a short one would be over before the next line
                told = phase
                print(view.plain(counts, plant.processes.restarted()), flush=True)
            # What was told once has scrolled away.
            if not _tell_news(plant, view) and view.sign_ins and number % (LOOKS_A_LINE * SIGN_IN_EVERY) == 0:
                print(how_to_sign_in(plant.console_url, view.sign_ins)[-1], flush=True)
            await asyncio.sleep(LOOK_EVERY_S)
    with Live(console=console, auto_refresh=False) as live:
        while True:
            view.sign_ins = plant.sign_ins
            view.command = shown(plant.command) if plant.command else ""
            live.update(view.draw(await plant.counts(), plant.processes.restarted()), refresh=True)
            await asyncio.sleep(LOOK_EVERY_S)


def _tell_news(plant: Plant, view: View) -> bool:
    """Prints, once, how the account is asked and how to sign in, as soon as they are known. Whether there was news."""
    is_news = view.sign_ins != plant.sign_ins
    if plant.command and not view.command:
        view.command = shown(plant.command)
        print(f"ask its account, while it runs: {view.command} orders list demo", flush=True)
    if is_news:
        view.sign_ins = plant.sign_ins
        print("\n".join(how_to_sign_in(plant.console_url, view.sign_ins)), flush=True)
    return is_news


def _write(path: Path, summary: dict[str, Any]) -> None:
    summary["machine"] = f"{platform.machine()}, Python {platform.python_version()}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(summary, indent=2) + "\n")
    print(json.dumps(summary, indent=2))
    print(f"written to {path}")


if __name__ == "__main__":
    main()
