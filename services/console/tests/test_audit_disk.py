# SPDX-License-Identifier: Apache-2.0
"""A decision is on the disk before it goes to the cloud: by a disk that loses its power, and by one that fails.

Both fail where the log is only written and not fsynced, or fsynced after the decision went out.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from console_process import DEADLINE_S, CloudServer, Console, answers, unanswered, wait_for
from console_stand_in import work_order

from linewatch_console.audit.segments import newest, verify

SYNCED = Path(__file__).parent / "synced.py"


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return tmp_path / "disk"


@pytest.fixture
def begin(environment: dict[str, str], disk: Path, cloud: CloudServer, tmp_path: Path) -> Iterator[Callable[[], Console]]:  # fmt: skip
    """Starts the console on that disk."""
    started: list[Console] = []

    def start() -> Console:
        settings = {
            "DISK": str(disk), "CONSOLE_CLOUD_API_URL": f"http://127.0.0.1:{cloud.port}", "CONSOLE_CLOUD_API_TOKEN_FILE": str(tmp_path / "token"),
        }  # fmt: skip
        process = subprocess.Popen([sys.executable, str(SYNCED)], env=environment | settings, text=True)
        started.append(
            Console(int(environment["CONSOLE_PORT"]), Path(environment["CONSOLE_EVIDENCE_DIR"]), process)
        )
        wait_for("the console listens", lambda: answers(started[-1].port) or process.poll() is not None)
        return started[-1]

    yield start
    for console in started:
        console.http.close()
        console.process.kill()
        console.process.wait(DEADLINE_S)


def test_a_decision_that_reached_the_cloud_is_in_the_log_after_a_power_cut(
    begin: Callable[[], Console], disk: Path, cloud: CloudServer
) -> None:
    cloud.stand_in.add(work_order("lw-1"))
    cloud.stand_in.hangs = True
    console = begin()

    with unanswered(console, cloud, {"reason": "heard it"}):
        console.process.kill()
        console.process.wait(DEADLINE_S)

    # The power is back: what was not fsynced is not there.
    [last] = newest(disk / "durable", 1)
    assert (last.what, last.by) == ("decision", "supervisor")
    assert '"lw-1"' in last.detail
    assert "heard it" in last.detail
    assert verify(disk / "durable").fault == ""
    assert cloud.stand_in.headers[0]["x-linewatch-audit"] == last.digest, "that very entry"


def test_nothing_goes_out_while_the_disk_can_not_keep_it(
    begin: Callable[[], Console], disk: Path, cloud: CloudServer
) -> None:
    cloud.stand_in.add(work_order("lw-1"))
    console = begin()
    (disk / "fails").touch()

    refused = console.post("/api/work-orders/lw-1/approve", {"reason": "heard it"})

    assert refused.status_code == 503
    assert "Input/output error" in refused.json()["error"]
    assert refused.json()["outcome"] == "not_sent"
    assert cloud.stand_in.decided == []

    (disk / "fails").unlink()

    assert console.post("/api/work-orders/lw-1/approve", {"reason": "again"}).status_code == 200
    assert [one[1] for one in cloud.stand_in.decided] == ["approve"]
    assert "heard it" not in "".join(entry.detail for entry in newest(disk / "durable", 100))
