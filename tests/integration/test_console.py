# SPDX-License-Identifier: Apache-2.0
"""A supervisor's job through the whole plant: signs in, sees why, decides once; and from a console elsewhere."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from brokers import until, wait_for
from patient_console import PATIENT_S, patient

from linewatch_plant import processes
from linewatch_plant.erp_simulator import ErpClient
from linewatch_plant.plant import Plant, PlantOptions, running_plant, sample_stations
from linewatch_plant.processes import free_port

DEADLINE_S = 240


class Page:
    """A browser with one user."""

    def __init__(self, url: str, name: str = "", password: str = "") -> None:
        self._url = url.rstrip("/")
        self._http = httpx.Client(base_url=self._url, timeout=2 * PATIENT_S)
        if name:
            answer = self._http.post(
                "/login", data={"name": name, "password": password}, headers={"Origin": self._url}
            )
            assert answer.status_code == 303, answer.text

    def close(self) -> None:
        self._http.close()

    def get(self, path: str) -> httpx.Response:
        return self._http.get(path)

    def post(self, path: str, body: dict[str, str]) -> httpx.Response:
        headers = {"Origin": self._url, "X-CSRF-Token": self.get("/api/me").json()["csrf"]}
        return self._http.post(path, json=body, headers=headers)

    def waiting(self) -> list[dict[str, Any]]:
        answer = self.get("/api/work-orders?status=awaiting_approval")
        return list(answer.json()["work_orders"]) if answer.status_code == 200 else []


@contextmanager
def console_elsewhere(plant: Plant, folder: Path) -> Iterator[str]:
    """A console without a line and without evidence of its own: only the cloud's API."""
    assert plant.cloud is not None
    (folder / "evidence").mkdir(parents=True)
    (folder / "token").write_text(plant.cloud.api_token)
    port = free_port()
    environment = {
        "CONSOLE_PORT": str(port), "CONSOLE_STATE_DIR": str(folder / "state"), "CONSOLE_EVIDENCE_DIR": str(folder / "evidence"),
        "CONSOLE_MQTT_PORT": str(free_port()), "CONSOLE_CLOUD_API_URL": plant.cloud.api_url,
        "CONSOLE_CLOUD_API_TOKEN_FILE": str(folder / "token"),
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "linewatch_console"], env=patient(environment, folder / "patient")
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def decide(plant: Plant, reference: str) -> None:
    """The job itself."""
    with ExitStack() as open_pages:
        viewer, approver, admin = (
            open_pages.enter_context(closing(Page(plant.console_url, name, plant.sign_ins[name])))
            for name in ("viewer", "approver", "admin")
        )
        _decide(plant, reference, viewer, approver, admin)


def _decide(plant: Plant, reference: str, viewer: Page, approver: Page, admin: Page) -> None:
    assert viewer.post(f"/api/work-orders/{reference}/approve", {}).status_code == 403

    taken = approver.post(f"/api/work-orders/{reference}/approve", {"reason": "gesehen, Grüße"})
    again = approver.post(f"/api/work-orders/{reference}/approve", {})

    assert taken.status_code == 200, taken.text
    assert (taken.json()["decided_by"], taken.json()["reason"]) == ("approver", "gesehen, Grüße")
    assert (again.status_code, again.json()["order"]["reference"]) == (409, reference)
    # Where the ERP did not answer at once, the queue goes on trying.
    wait_for(lambda: in_erp(plant, reference), "the order is in the ERP", DEADLINE_S)
    assert in_erp(plant, reference) == 1
    verdict = approver.get(f"/api/verify/{reference}").json()
    assert verdict["verified"], verdict
    why = approver.get(f"/api/work-orders/{reference}/why").json()
    assert "approver" in {entry["by"] for entry in why["entries"]}
    audit = admin.get("/api/audit").json()
    assert audit["verified"]
    done = [(one["detail"]["verb"], one["by"]) for one in audit["entries"] if one["what"] == "decision"]
    assert done == [("approve", "approver")] * 2
    assert [one["detail"]["outcome"] for one in audit["entries"] if one["what"] == "outcome"] == [
        "refused",
        "taken",
    ]


def in_erp(plant: Plant, reference: str) -> int:
    """How many of the ERP's orders are this one."""
    erp = ErpClient(plant.erp.url, timeout_s=60)  # the plant's own has no patience: it looks again
    return [order["external_reference"] for order in erp.orders()].count(reference)


def looked_at(url: str, reference: str) -> dict[str, bytes]:
    """Path -> content, of the order's evidence at the console elsewhere; empty while one of them is not there."""
    with closing(Page(url)) as page:
        order = page.get(f"/api/work-orders/{reference}")
        if order.status_code != 200:
            return {}
        answers = {one["path"]: page.get(one["url"]) for one in order.json()["evidence"]}
    found = all(answer.status_code == 200 for answer in answers.values())
    return {path: answer.content for path, answer in answers.items()} if found else {}


@pytest.fixture
def _patient_plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plant's console waits longer for the cloud, which starts on the same machine as everything else."""
    environment = processes._environment

    def with_patience(own: Mapping[str, str]) -> dict[str, str]:
        made = environment(own)
        return patient(made, tmp_path / "patient") if "CONSOLE_CLOUD_API_URL" in own else made

    monkeypatch.setattr(processes, "_environment", with_patience)


@pytest.mark.anyio
@pytest.mark.usefixtures("_patient_plant")
async def test_a_supervisor_decides_once_under_a_name_and_sees_the_evidence_from_anywhere(
    tmp_path: Path,
) -> None:
    options = PlantOptions(tmp_path / "run", sample_stations(120, 8), pilot=True)
    async with running_plant(options) as plant:
        await until(lambda: plant.failed() or plant.cloud_is_up.is_set(), "the cloud", DEADLINE_S)
        assert plant.failed() is None
        await until(lambda: port_answers(plant.console_url.rstrip("/")), "the console", DEADLINE_S)
        with closing(Page(plant.console_url, "viewer", plant.sign_ins["viewer"])) as page:
            waiting: list[dict[str, Any]] = []
            # What was seen counts: the next look may get no answer.
            await until(lambda: waiting.extend(page.waiting()) or waiting, "an order that waits", DEADLINE_S)
            order = waiting[0]

        await asyncio.to_thread(decide, plant, order["reference"])

        with console_elsewhere(plant, tmp_path / "elsewhere") as url:
            await until(lambda: port_answers(url), "the console elsewhere", DEADLINE_S)
            # In a thread: the uplink's cable runs in this loop.
            found: dict[str, bytes] = {}
            async with asyncio.timeout(DEADLINE_S):
                while not found:
                    found = await asyncio.to_thread(looked_at, url, order["reference"])
                    await asyncio.sleep(0.5)
            for path, content in found.items():
                assert content == (plant.evidence_dir / path).read_bytes()


def port_answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").status_code == 200
    except httpx.HTTPError:
        return False
