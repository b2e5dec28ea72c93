# SPDX-License-Identifier: Apache-2.0
"""What a service tells the nucleus, through the real client, over a real socket."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from brokers import until
from nucleus_ipc import SOCKET_VARIABLE, TOKEN_VARIABLE, NucleusIpc

from linewatch_runtime import nucleus, nucleus_ipc

pytestmark = pytest.mark.anyio

TOKEN = "token-of-this-start"


@pytest.fixture
def ipc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NucleusIpc]:
    """A nucleus that knows TOKEN, and its variables in our environment."""
    server = NucleusIpc(tmp_path / "ipc.socket", tokens={TOKEN})
    for name, value in server.environment(TOKEN).items():
        monkeypatch.setenv(name, value)
    with server:
        yield server


@contextlib.asynccontextmanager
async def telling(
    ready: Callable[[], bool] = lambda: True, busy: Callable[[], bool] | None = None
) -> AsyncIterator["asyncio.Task[None]"]:
    """A service's nucleus task, for the block."""
    task = asyncio.create_task(nucleus.Nucleus(ready, busy).run())
    try:
        yield task
        assert not task.done(), "it must never end the service"
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_running_is_told_when_the_service_is_ready_and_not_before(ipc: NucleusIpc) -> None:
    asked: list[bool] = []
    is_ready = False

    def ready() -> bool:
        asked.append(is_ready)
        return is_ready

    async with telling(ready):
        await until(lambda: len(asked) > 3, "it looks again and again")
        assert ipc.states == []

        is_ready = True
        await until(lambda: ipc.states_of(TOKEN) == ["RUNNING"], "RUNNING is told")


async def test_running_is_told_again_to_a_nucleus_that_restarted(ipc: NucleusIpc) -> None:
    async with telling():
        await until(lambda: ipc.states_of(TOKEN) == ["RUNNING"], "RUNNING is told")
        for times in (2, 3):
            ipc.stop()
            ipc.start()
            await until(lambda times=times: ipc.states_of(TOKEN) == ["RUNNING"] * times, "it is told again")


async def test_a_nucleus_that_is_not_there_yet_is_told_when_it_comes(ipc: NucleusIpc) -> None:
    ipc.stop()
    async with telling():
        await asyncio.sleep(0)
        ipc.start()
        await until(lambda: ipc.states_of(TOKEN) == ["RUNNING"], "RUNNING is told")


async def test_a_token_that_the_nucleus_does_not_know_ends_nothing_and_is_told_once(
    ipc: NucleusIpc, caplog: pytest.LogCaptureFixture
) -> None:
    ipc.tokens = {"another"}
    async with telling():
        await until(lambda: len(ipc.refused) >= 3, "it tries again")
        ipc.tokens = {TOKEN}
        await until(lambda: ipc.states_of(TOKEN) == ["RUNNING"], "RUNNING is told once it is known")

    told = [record.reason for record in caplog.records if record.message == "nucleus_unreachable"]
    assert all(TOKEN_VARIABLE in reason for reason in told)
    # The client tells a refusal in one of two ways, by chance; each is told when it changes.
    assert 1 <= len(told) <= len(ipc.refused)


async def test_a_nucleus_that_takes_the_connection_and_says_nothing_is_given_up_and_tried_again(
    ipc: NucleusIpc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nucleus_ipc, "CALL_TIMEOUT_S", 0.1)
    ipc.hang = True
    async with telling():
        await until(lambda: ipc.connections >= 3, "it tries again")
        monkeypatch.setattr(nucleus_ipc, "CALL_TIMEOUT_S", 10.0)
        ipc.hang = False
        await until(lambda: ipc.states_of(TOKEN) == ["RUNNING"], "RUNNING is told")


async def test_an_update_goes_on_at_once_when_nothing_is_under_inspection(ipc: NucleusIpc) -> None:
    async with telling(busy=lambda: False):
        await until(lambda: ipc.subscribers() == [TOKEN], "it subscribes")

        assert await asyncio.to_thread(ipc.ask_to_update, "deployment-1") == {TOKEN: 0}


async def test_an_update_waits_for_the_part_under_inspection(ipc: NucleusIpc) -> None:
    is_busy = True
    async with telling(busy=lambda: is_busy):
        await until(lambda: ipc.subscribers() == [TOKEN], "it subscribes")
        first = await asyncio.to_thread(ipc.ask_to_update, "deployment-1")
        is_busy = False
        second = await asyncio.to_thread(ipc.ask_to_update, "deployment-1")

    assert (first, second) == ({TOKEN: 1000}, {TOKEN: 0})
    assert [one.message for one in ipc.deferrals] == ["a part is under inspection", ""]


async def test_an_update_is_let_go_at_the_cap_and_the_next_deployment_has_its_own(
    ipc: NucleusIpc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nucleus, "RECHECK_S", 0.25)
    monkeypatch.setattr(nucleus, "MAX_DEFERRAL_S", 1.0)
    now = 1000.0  # as the nucleus waits exactly what it was told; a busy machine would wait longer, and ask less often
    monkeypatch.setattr(nucleus, "time", SimpleNamespace(monotonic=lambda: now))
    answers: list[int] = []
    async with telling(busy=lambda: True):
        await until(lambda: ipc.subscribers() == [TOKEN], "it subscribes")
        while not answers or answers[-1]:
            answers.append((await asyncio.to_thread(ipc.ask_to_update, "deployment-1"))[TOKEN])
            now += answers[-1] / 1000
            assert len(answers) < 10, answers
        again = await asyncio.to_thread(ipc.ask_to_update, "deployment-2")

    assert answers == [250, 250, 250, 250, 0], "all deferrals of one deployment together"
    assert again[TOKEN] > 0


def test_the_cap_is_half_a_minute() -> None:
    assert (nucleus.RECHECK_S, nucleus.MAX_DEFERRAL_S) == (1.0, 30.0)


async def test_a_service_that_holds_no_part_does_not_ask_to_be_asked(ipc: NucleusIpc) -> None:
    async with telling():
        await until(lambda: ipc.states_of(TOKEN) == ["RUNNING"], "RUNNING is told")

        assert ipc.subscribers() == []


async def test_nucleus_lite_is_told_the_state_and_its_lack_of_updates_is_logged_once(
    ipc: NucleusIpc, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    ipc.lite = True
    async with telling(busy=lambda: True):
        await until(lambda: ipc.states_of(TOKEN) == ["RUNNING"], "RUNNING is told")
        ipc.stop()
        ipc.start()
        await until(lambda: ipc.states_of(TOKEN) == ["RUNNING"] * 2, "RUNNING is told again")

        ipc.lite = False
        ipc.stop()
        ipc.start()
        await until(lambda: ipc.subscribers() == [TOKEN], "a nucleus that has them is asked again")

    told = [(one.message, one.levelname) for one in caplog.records if "component_updates" in one.message]
    assert told == [("nucleus_has_no_component_updates", "INFO")]


def test_outside_of_greengrass_nothing_is_imported_and_the_task_just_ends() -> None:
    program = (
        "import asyncio, sys; from linewatch_runtime.nucleus import Nucleus; asyncio.run(Nucleus(bool).run());"
        " sys.exit(sum(name.startswith('aws') for name in sys.modules))"
    )
    environment = {k: v for k, v in os.environ.items() if k not in {SOCKET_VARIABLE, TOKEN_VARIABLE}}

    assert subprocess.run([sys.executable, "-c", program], env=environment, check=False).returncode == 0


@pytest.mark.parametrize("missing", [SOCKET_VARIABLE, TOKEN_VARIABLE])
async def test_one_variable_without_the_other_is_told(
    ipc: NucleusIpc, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, missing: str
) -> None:
    monkeypatch.delenv(missing)

    await nucleus.Nucleus(lambda: True).run()

    (told,) = [record for record in caplog.records if record.message == "nucleus_not_told"]
    assert told.reason == f"{missing} is not set; pass both into the container"
    assert ipc.connections == 0


@pytest.mark.parametrize("hang", [False, True], ids=["a nucleus that answers", "a nucleus that hangs"])
def test_a_stop_does_not_wait_for_the_nucleus(ipc: NucleusIpc, hang: bool) -> None:
    ipc.hang = hang
    child = Path(__file__).with_name("service_child.py")
    with subprocess.Popen([sys.executable, child, "nucleus"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        with ipc.changed:
            assert ipc.changed.wait_for(lambda: ipc.states or (hang and ipc.connections), 60)

        process.send_signal(signal.SIGTERM)

        # Its calls may last five minutes (service_child.py), so no machine is too slow to tell a wait from none.
        try:
            assert process.wait(60) == 0
        finally:
            process.kill()
