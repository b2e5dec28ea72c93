# SPDX-License-Identifier: Apache-2.0
"""The stand-in stays on this machine's loopback and leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
from cloud_line import Eventually

from linewatch_plant.standin_cloud import StandinCloud


def test_it_listens_on_loopback_only(cloud: StandinCloud) -> None:
    processes = [p for p in psutil.process_iter() if _group(p.pid) == cloud.pid]
    listeners = [
        connection.laddr
        for process in processes
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]

    assert {address.ip for address in listeners} == {"127.0.0.1"}
    assert cloud.mqtt_port in {address.port for address in listeners}


def test_it_ends_with_its_parent_workers_included(tmp_path: Path, eventually: Eventually) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-m", "linewatch_plant.standin_cloud", "--directory", str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    told = json.loads("".join(iter(parent.stdout.readline, "}\n")) + "}")
    group = int(told["pid"])
    assert any(_group(p.pid) == group for p in psutil.process_iter())

    parent.send_signal(signal.SIGKILL)

    parent.wait(10)
    parent.stdout.close()
    eventually(lambda: not any(_group(p.pid) == group for p in psutil.process_iter()), "the end of the group")


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return -1
