# SPDX-License-Identifier: Apache-2.0
import asyncio
import time
from pathlib import Path

import pytest

from linewatch_plant import processes as plant_processes
from linewatch_plant.plant import PlantOptions, Station, running_plant
from linewatch_plant.processes import PlantError, Processes, Service, free_port, port_is_free


def module(tmp_path: Path, name: str, text: str) -> dict[str, str]:
    (tmp_path / f"{name}.py").write_text(text)
    return {"PYTHONPATH": str(tmp_path)}


async def until_started(service: Service, times: int) -> None:
    deadline = time.monotonic() + 20
    while service.starts < times:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def test_a_killed_service_is_started_again_and_all_stop_within_the_deadline(tmp_path: Path) -> None:
    environment = module(
        tmp_path,
        "stubborn",
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)\n",
    )

    async def story() -> float:
        processes = Processes(tmp_path)
        service = Service("stubborn", "stubborn", environment)
        await processes.start(service)
        watch = asyncio.create_task(processes.watch(service))
        service.kill()
        await until_started(service, 2)
        assert processes.restarted() == {"stubborn": 1}
        started = time.monotonic()
        await processes.stop(last="broker")
        await asyncio.wait_for(watch, 1)
        return time.monotonic() - started

    assert asyncio.run(story()) < 10


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
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert not port_is_free(port)


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
