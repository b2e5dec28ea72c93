# SPDX-License-Identifier: Apache-2.0
"""A policy through the console and the cloud's own API: the same document back, and a wrong one refused by its field."""

import json
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "services" / "console" / "tests"))

from console_process import PASSWORDS, Console, begun, ended, environment_in, users_in
from patient_console import PATIENT_S, patient

from linewatch_plant.standin_cloud import StandinCloud


@pytest.fixture
def console(cloud: StandinCloud, tmp_path: Path) -> Iterator[Console]:
    environment = environment_in(tmp_path) | {
        "CONSOLE_CLOUD_API_URL": cloud.api_url,
        "CONSOLE_CLOUD_API_TOKEN_FILE": str(tmp_path / "token"),
        "CONSOLE_USERS_FILE": str(users_in(tmp_path)),
    }
    (tmp_path / "token").write_text(cloud.api_token)
    started = begun(patient(environment, tmp_path / "patient"))
    started.http.timeout = 2 * PATIENT_S  # a read before each put
    yield started
    ended(started)


def test_a_policy_goes_through_the_console_to_the_api_as_it_was_written(console: Console) -> None:
    assert console.sign_in("admin", PASSWORDS["admin"]) == 303
    before = console.http.get("/api/policy").json()
    limit, quiet = {"orders": 99, "hours": 24}, [{"days": ["monday", "tuesday", "wednesday"]}]
    changed = before["document"] | {
        "version": "9.0.1",
        "needed": 9,
        "rate_limit": limit,
        "quiet_hours": quiet,
    }
    twice = before["text"].replace('"needed": 4', '"needed": 5, "needed": 4')

    wrong = console.post("/api/policy", {"document": json.dumps(changed), "base": before["digest"]})
    doubled = console.post("/api/policy", {"document": twice, "base": before["digest"]})
    # The one that holds, so that nothing changes for the other tests of this cloud.
    put = console.post("/api/policy", {"document": before["text"], "base": before["digest"]})

    assert wrong.status_code == 400
    # More than one line of a screen holds, and none is cut.
    assert [line.partition(": ")[0] for line in wrong.json()["error"].split("\n")] == [
        "needed", *["quiet_hours[0]"] * 3, *[f"quiet_hours[0].days[{n}]" for n in range(3)], "rate_limit.orders",
    ]  # fmt: skip
    assert wrong.json()["error"].endswith("must be a whole number from 0 to 50, got 99")
    assert (doubled.status_code, doubled.json()["error"]) == (400, "needed: is there twice")
    assert put.status_code == 200, put.text
    after = put.json()
    assert (after["version"], after["digest"]) == (before["version"], before["digest"])
    assert (after["puts"][0]["by"], after["puts"][0]["version"]) == ("admin", before["version"])


def test_of_two_admins_who_put_at_once_one_is_refused(console: Console) -> None:
    assert console.sign_in("admin", PASSWORDS["admin"]) == 303
    before = console.http.get("/api/policy").json()
    own = uuid.uuid4().int % 10**9
    # The same rules, so that nothing changes for the other tests of this cloud.
    both = [json.dumps(before["document"] | {"version": f"3.{own}.{n}"}) for n in range(2)]

    with ThreadPoolExecutor(2) as pool:
        answers = list(
            pool.map(
                lambda one: console.post("/api/policy", {"document": one, "base": before["digest"]}), both
            )
        )

    assert sorted(answer.status_code for answer in answers) == [200, 409], [answer.text for answer in answers]
    held = console.http.get("/api/policy").json()["version"]
    (refused,) = (answer.json()["error"] for answer in answers if answer.status_code == 409)
    assert f"version {held}" in refused
    assert "somebody put" in refused
