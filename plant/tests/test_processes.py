# SPDX-License-Identifier: Apache-2.0
import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from brokers import until

from linewatch_plant import processes as plant_processes
from linewatch_plant.plant import PlantOptions, Station, running_plant
from linewatch_plant.processes import STOP_S, PlantError, Processes, Service, free_port, port_is_free


def module(tmp_path: Path, name: str, text: str) -> dict[str, str]:
    (tmp_path / f"{name}.py").write_text(text)
    return {"PYTHONPATH": str(tmp_path)}


async def until_started(service: Service, times: int) -> None:
    deadline = time.monotonic() + 60
    while service.starts < times:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def test_a_killed_service_is_started_again_and_all_stop_within_the_deadline(tmp_path: Path) -> None:
    environment = module(
        tmp_path,
        "stubborn",
        "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print(os.getpid(), 'is stubborn')\ntime.sleep(300)\n",
    )

    async def story() -> float:
        processes = Processes(tmp_path)
        service = Service("stubborn", "stubborn", environment)
        await processes.start(service)
        watch = asyncio.create_task(processes.watch(service))
        service.kill()
        await until_started(service, 2)
        assert processes.restarted() == {"stubborn": 1}
        log = tmp_path / "stubborn.log"
        await until(lambda: f"{service.pid} is stubborn" in log.read_text(), "one that does not mind", 60)
        started = time.monotonic()
        await processes.stop(last="broker")
        took_s = time.monotonic() - started
        await asyncio.wait_for(watch, 60)
        return took_s

    # SIGTERM did nothing, SIGKILL ended it.
    assert STOP_S <= asyncio.run(story()) < 10


def test_a_service_that_starts_while_all_stop_does_not_stay(tmp_path: Path) -> None:
    """A restart that was under way when everything was stopped left its process running."""
    environment = module(tmp_path, "late", "import time\ntime.sleep(300)\n")

    async def story() -> int:
        processes = Processes(tmp_path)
        await processes.stop(last="broker")
        service = Service("late", "late", environment)
        await processes.start(service)
        assert service.process is not None
        return await asyncio.wait_for(service.process.wait(), 60)

    assert asyncio.run(story()) == -signal.SIGKILL


def test_wrong_settings_are_told_with_the_services_last_words(tmp_path: Path) -> None:
    environment = module(tmp_path, "misfit", "import sys\nprint('CAPTURE_RATE: too fast')\nsys.exit(2)\n")

    async def story() -> None:
        processes = Processes(tmp_path)
        service = Service("misfit", "misfit", environment)
        await processes.start(service)
        await processes.watch(service)

    with pytest.raises(PlantError, match=r"misfit can't start: CAPTURE_RATE: too fast"):
        asyncio.run(story())


def test_a_service_that_never_lives_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plant_processes, "LONGEST_WAIT_S", 0.05)
    # Where Python itself takes two seconds to start, nothing "lives" because of that.
    monkeypatch.setattr(plant_processes, "STABLE_S", 300.0)
    environment = module(tmp_path, "stillborn", "raise SystemExit('no such thing')\n")

    async def story() -> None:
        processes = Processes(tmp_path)
        service = Service("stillborn", "stillborn", environment)
        await processes.start(service)
        await processes.watch(service)

    with pytest.raises(PlantError, match=r"stillborn died \d+ times at its start: no such thing"):
        asyncio.run(story())


def test_a_free_port_is_free_until_somebody_listens() -> None:
    import socket

    port = free_port()
    assert port_is_free(port)
    with socket.socket() as taken:
        # As every server does: what lay on the port a minute ago is no obstacle.
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert not port_is_free(port)


def test_no_port_is_given_twice_and_none_that_the_system_gives_to_a_connection() -> None:
    given = [free_port() for _ in range(50)]

    assert len(set(given)) == len(given)
    ports = Path("/proc/sys/net/ipv4/ip_local_port_range")
    first = int(ports.read_text().split()[0]) if ports.exists() else 32768
    assert max(given) < max(first, 32768)


COUNTS_FROM = """
import itertools, sys
from linewatch_plant import processes
processes.FIRST_GIVEN_PORT, processes._APART, processes._asked = int(sys.argv[1]), 0, itertools.count()
print(processes.free_port())
"""


def test_a_port_that_another_process_was_told_is_not_given_though_nobody_listens_there_yet() -> None:
    """Of two that were told the same one, the second never came up, or spoke to the first one's server."""
    port = free_port()

    told = subprocess.run(
        [sys.executable, "-c", COUNTS_FROM, str(port)], capture_output=True, text=True, check=True
    )

    assert port < int(told.stdout) < port + 100
    assert port_is_free(port)


def test_what_keeps_ports_is_bounded() -> None:
    before = len(plant_processes._kept)
    for _ in range(plant_processes._MOST_KEPT + 10):
        free_port()

    assert before <= len(plant_processes._kept) == plant_processes._MOST_KEPT


def test_a_second_demo_leaves_the_running_one_alone(tmp_path: Path) -> None:
    station = Station("line-1", "station-1", "folder", tmp_path, "no-such-model")
    options = PlantOptions(run_dir=tmp_path / "demo", stations=(station,))

    async def story() -> None:
        import fcntl

        with (tmp_path / "demo.lock").open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            async with running_plant(options):
                pass

    with pytest.raises(PlantError, match="another demo runs"):
        asyncio.run(story())
    assert not (tmp_path / "demo").exists()
