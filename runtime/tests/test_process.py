# SPDX-License-Identifier: Apache-2.0
"""How a process starts, tells and ends: signals, logs, heartbeat, metrics. With real processes."""

import asyncio
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from brokers import until

from linewatch_plant.processes import free_port
from linewatch_runtime import clocks, health, logs
from linewatch_runtime.lifecycle import EXIT_NOW, in_daemon_thread, to_the_end, wait_until
from linewatch_runtime.telemetry import serve_metrics


@contextmanager
def service(kind: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, Path(__file__).with_name("service_child.py"), kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_asks_and_the_process_ends_with_0(number: signal.Signals) -> None:
    with service("quiet") as process:
        process.send_signal(number)

        assert process.wait(60) == 0
        assert process.stdout.read() == "asked\nclean\n"


def test_second_signal_means_now() -> None:
    with service("stuck") as process:
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "asked\n"

        process.send_signal(signal.SIGINT)

        assert process.wait(60) == EXIT_NOW
        assert not process.stdout.read()


def test_crashed_task_ends_the_process_with_1_and_its_traceback() -> None:
    with service("crash") as process:
        assert process.wait(60) == 1
        assert "RuntimeError: a task failed" in process.stderr.read()


@pytest.mark.anyio
@pytest.mark.parametrize("turns", range(6))
async def test_cancelled_wait_ends_even_when_its_event_comes_at_the_same_time(turns: int) -> None:
    event = asyncio.Event()

    async def look_whenever_told() -> None:
        while True:
            await wait_until(event, 60)
            event.clear()

    task = asyncio.create_task(look_whenever_told())
    await asyncio.sleep(0)
    event.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()

    done, _ = await asyncio.wait([task], timeout=30)

    task.cancel()
    assert done


@pytest.mark.anyio
async def test_blocking_call_gives_its_error_and_can_be_left_alone() -> None:
    def fail() -> None:
        raise OSError("no way")

    with pytest.raises(OSError, match="no way"):
        await in_daemon_thread(fail)
    left = threading.Event()
    task = asyncio.create_task(in_daemon_thread(lambda: left.wait(60)))
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task

    left.set()


@pytest.mark.anyio
async def test_cleaning_up_ends_before_who_waits_for_it_though_it_is_cancelled() -> None:
    may_end, ended = threading.Event(), threading.Event()

    def clean() -> None:
        may_end.wait(60)
        ended.set()

    task = asyncio.create_task(to_the_end(clean))
    await asyncio.sleep(0)
    task.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    may_end.set()

    with pytest.raises(asyncio.CancelledError):
        await task

    assert ended.is_set()


def test_cleaning_up_that_began_in_the_last_turn_of_a_loop_is_done() -> None:
    """The loop's end cancels each task, also one that has not begun."""
    ended = threading.Event()

    async def cleans() -> None:
        await to_the_end(ended.set)

    async def ends_at_once() -> None:
        cleaning.append(asyncio.create_task(cleans()))
        await asyncio.sleep(0)

    cleaning: list[asyncio.Task[None]] = []
    asyncio.run(ends_at_once())

    assert ended.wait(60)


# --- logs ------------------------------------------------------------------------------------------------------------


def test_log_line_is_one_json_object_with_the_event_and_its_fields(
    capsys: pytest.CaptureFixture[str],
) -> None:
    record = logging.LogRecord("x", logging.INFO, "f.py", 1, "delivered %d", (3,), None)
    record.event_id, record.path = "0198", Path("a\nb")

    line = logs.JsonLines("forwarder").format(record)

    assert "\n" not in line
    told = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told.pop("time"))
    assert told == {
        "level": "INFO", "service": "forwarder", "event": "delivered 3", "event_id": "0198", "path": "a\nb",
    }  # fmt: skip


def test_logged_exception_has_its_traceback_in_the_same_line() -> None:
    try:
        raise ValueError("broken\nline")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "f.py", 1, "failed", (), sys.exc_info())

    line = logs.JsonLines("forwarder").format(record)

    assert "\n" not in line
    assert "ValueError: broken\nline" in json.loads(line)["traceback"]


def test_configured_level_decides_what_is_told() -> None:
    code = (
        "import logging; from linewatch_runtime import logs; logs.configure('press', 'WARNING');"
        "logging.getLogger('a').info('no'); logging.getLogger('a').warning('yes', extra={'count': 2})"
    )

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    (line,) = run.stdout.splitlines()
    assert json.loads(line)["event"] == "yes"
    assert json.loads(line)["count"] == 2
    assert not run.stderr


# --- heartbeat -------------------------------------------------------------------------------------------------------


def judge(path: Path, limit_s: float) -> tuple[int, str]:
    command = [sys.executable, "-m", "linewatch_runtime.health", str(path), str(limit_s)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return run.returncode, run.stdout.strip()


def test_health_command_judges_the_age_of_the_heartbeat(tmp_path: Path) -> None:
    path = tmp_path / "heartbeat"
    assert judge(path, 10) == (
        1,
        f"no heartbeat yet: {path}; the service can't do its work, and its log says why",
    )

    health.Heartbeat(path).beat()
    code, words = judge(path, 60)  # the command may be slow to start
    assert (code, words[:15]) == (0, "last heartbeat ")

    a_minute_ago = clocks.since_boot() - 60
    os.utime(path, (a_minute_ago, a_minute_ago))
    code, words = judge(path, 10)
    assert code == 1
    assert "limit 10 s; the service can't do its work any more" in words


def test_health_command_takes_no_beat_of_an_earlier_boot_for_one_of_this(tmp_path: Path) -> None:
    path = tmp_path / "heartbeat"
    path.touch()
    longer_than_this_boot = clocks.since_boot() + 3600
    os.utime(path, (longer_than_this_boot, longer_than_this_boot))

    assert judge(path, 10)[0] == 1
    assert "no heartbeat yet" in judge(path, 10)[1]


@pytest.mark.parametrize("jump", ["-1y", "+1y"])
def test_wall_clock_that_jumps_by_a_year_makes_nobody_look_dead_and_nobody_look_well(
    tmp_path: Path, jump: str
) -> None:
    program = shutil.which("faketime")
    if not program:
        pytest.skip("faketime is not installed (Debian: apt-get install faketime)")
    path = tmp_path / "heartbeat"
    command = [program, "-f", jump, sys.executable, "-m", "linewatch_runtime.health", str(path)]
    # NO_FAKE_STAT: the program would turn the files' times too.
    turned = os.environ | {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}

    def code(limit_s: int) -> int:
        return subprocess.run(
            [*command, str(limit_s)], env=turned, capture_output=True, check=False
        ).returncode

    health.Heartbeat(path).beat()
    assert code(60) == 0
    a_minute_ago = clocks.since_boot() - 60
    os.utime(path, (a_minute_ago, a_minute_ago))
    assert code(10) == 1


def test_heartbeat_that_can_not_be_written_ends_no_service(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    heartbeat = health.Heartbeat(folder / "heartbeat")
    folder.rmdir()

    heartbeat.beat()

    assert judge(folder / "heartbeat", 10)[0] == 1


@pytest.mark.anyio
async def test_heartbeat_stays_out_while_the_service_cannot_work_and_none_is_inherited(
    tmp_path: Path,
) -> None:
    path, stop, looks = tmp_path / "heartbeat", asyncio.Event(), []
    path.touch()
    heartbeat = health.Heartbeat(path)
    assert not path.exists(), "an earlier process's beat"

    def ready() -> bool:
        looks.append(1)
        return len(looks) > 3

    task = asyncio.create_task(heartbeat.keep(stop, ready, every_s=0.01))
    await until(path.exists, "the first beat")
    assert len(looks) > 3

    stop.set()
    await asyncio.wait_for(task, 60)


@pytest.mark.anyio
async def test_heartbeat_is_kept_until_the_stop(tmp_path: Path) -> None:
    path, stop = tmp_path / "heartbeat", asyncio.Event()
    task = asyncio.create_task(health.Heartbeat(path).keep(stop, every_s=0.01))
    await until(path.exists, "the first beat")
    path.unlink()

    await until(path.exists, "the next beat")

    stop.set()
    await asyncio.wait_for(task, 60)


# --- metrics ---------------------------------------------------------------------------------------------------------


def test_metrics_are_served_and_port_0_serves_none() -> None:
    port = free_port()
    serve_metrics("127.0.0.1", 0)
    serve_metrics("127.0.0.1", port)

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        assert b"python_info" in answer.read()


def test_taken_metrics_port_ends_the_process_and_names_the_variable(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(SystemExit) as ended:
            serve_metrics("127.0.0.1", port, "PRESS_METRICS_PORT")

    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"PRESS_METRICS_PORT: can't listen on 127.0.0.1:{port}: ")
