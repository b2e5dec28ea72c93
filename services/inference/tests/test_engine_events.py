# SPDX-License-Identifier: Apache-2.0
"""Engine events never stop the judging."""

import asyncio
from pathlib import Path

import pytest
from full_disk import fill_to_the_last_page

from linewatch_inference.engine_events import SpooledEvents, place_of
from linewatch_runtime.spool import Spool, SpoolWorker


@pytest.mark.anyio
@pytest.mark.parametrize("trouble", ["full", "broken"])
async def test_full_or_broken_disk_is_logged_and_the_caller_goes_on(
    trouble: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    worker = SpoolWorker(lambda: Spool(tmp_path / "inference.db"))
    events = SpooledEvents(worker, place_of("plant-1"), 1, lambda: None)
    if trouble == "full":
        await worker.run(fill_to_the_last_page, worker.spool)
    else:
        await worker.run(worker.spool.close)

    # An event is larger than a page's rest, so that several surely meet the end.
    for _ in range(20):
        await asyncio.to_thread(events.publish, "EngineStarted")

    assert "engine_event_lost" in [one.msg for one in caplog.records]
    worker.close()
