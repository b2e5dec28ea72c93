# SPDX-License-Identifier: Apache-2.0
"""The stand-in stays on this machine's loopback and leaves nothing behind."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
from cloud_line import Eventually, Line

from linewatch_plant.standin_cloud import StandinCloud


def test_it_listens_on_loopback_only(cloud: StandinCloud) -> None:
    listeners = [address for process in _group(cloud.pid) for address in _listened(process)]

    assert {address.ip for address in listeners} == {"127.0.0.1"}
    assert cloud.mqtt_port in {address.port for address in listeners}


def test_it_ends_with_its_parent_workers_included(tmp_path: Path, eventually: Eventually) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-m", "linewatch_plant.standin_cloud", "--directory", str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    told = ""
    while not told.endswith("}\n"):
        line = parent.stdout.readline()
        assert line, f"it ended with {parent.wait(60)} after saying {told!r}"
        told += line
    group = int(json.loads(told)["pid"])
    assert _group(group)

    parent.send_signal(signal.SIGKILL)

    parent.wait(60)
    parent.stdout.close()
    eventually(lambda: not _group(group), "the end of the group")


def test_counting_takes_any_thread_and_leaves_the_documents_where_they_are(
    cloud: StandinCloud, machine: Line, eventually: Eventually
) -> None:
    machine.send(*(machine.severity(0.65) for _ in range(5)))
    eventually(lambda: machine.order("awaiting_approval") and machine.all_decided(), "the order")
    # A station that some later release stored without crossings.
    cloud.client("dynamodb").put_item(
        TableName=cloud.outputs["PolicyStateTable"],
        Item={"asset_id": {"S": "ASSET-bare"}, "station": {"S": "bare"}},
    )
    fresh = replace(cloud, _clients={})
    with ThreadPoolExecutor(8) as pool:
        clients = list(pool.map(lambda _: fresh.client("dynamodb"), range(8)))
    seen = set[str]()
    fresh.client("dynamodb").meta.events.register(
        "after-call.dynamodb.Scan",
        lambda parsed, **_: seen.update(name for item in parsed["Items"] for name in item),
    )

    try:
        counted = fresh.counts()
    finally:
        cloud.client("dynamodb").delete_item(
            TableName=cloud.outputs["PolicyStateTable"],
            Key={"asset_id": {"S": "ASSET-bare"}, "station": {"S": "bare"}},
        )

    assert counted["work_orders"]["awaiting_approval"] >= 1
    assert counted["enriched"] >= 5
    assert len(set(map(id, clients))) == 1
    assert seen <= {"inspections", "engine", "status", "erp_id", "crossed"}


def _group(group: int) -> list[psutil.Process]:
    """Its processes. One that has ended and that nobody has waited for is none: pid 1 of a container may leave it so."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _listened(process: psutil.Process) -> list[Any]:
    """Addresses; none of a process that has ended since it was found, as Lambda workers do."""
    with contextlib.suppress(psutil.NoSuchProcess):
        connections = process.net_connections("inet")
        return [one.laddr for one in connections if one.status == psutil.CONN_LISTEN]
    return []
