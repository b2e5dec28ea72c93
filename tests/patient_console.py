# SPDX-License-Identifier: Apache-2.0
"""The console with the patience of a machine that runs the whole cloud beside it.

A Lambda of the stand-in that starts, or waits for its turn, answers after more than the 10 s and 20 s in which the console
calls a read away and a decision unclear; how long those are is not what is tested here.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from linewatch_console import cloud_api

PATIENT_S = 60.0

# As sitecustomize of the console's own process. It ends at once where what it changes is not what it was.
_PATIENT = f"""\
import os

from linewatch_console import cloud_api

known = (cloud_api.DECISION_TIMEOUT_S, cloud_api.REPORT_TIMEOUT_S, cloud_api.CloudApi._get.__defaults__)
cloud_api.DECISION_TIMEOUT_S = {PATIENT_S} if known == (20.0, 20.0, (None, 10.0)) else os._exit(9)
cloud_api.REPORT_TIMEOUT_S = {PATIENT_S}
cloud_api.CloudApi._get.__defaults__ = (None, {PATIENT_S})
"""


def patient(environment: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The environment of a console's process, with which it waits; `folder` keeps what makes it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(_PATIENT)
    path = os.pathsep.join(filter(None, (str(folder), environment.get("PYTHONPATH"))))
    return {**environment, "PYTHONPATH": path}


def wait_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for the console's client of the API in this process."""
    for name in ("DECISION_TIMEOUT_S", "REPORT_TIMEOUT_S"):
        monkeypatch.setattr(cloud_api, name, PATIENT_S)
    monkeypatch.setattr(cloud_api.CloudApi._get, "__defaults__", (None, PATIENT_S))
