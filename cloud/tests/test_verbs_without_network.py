# SPDX-License-Identifier: Apache-2.0
"""A network that is away ends each verb that reads the cloud: one line, exit code 1, within a bounded time."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from botocore.config import Config
from click.testing import CliRunner, Result
from operators import operator_of
from test_hostile_terminal import obeyed

from assets.asset import Asset
from assets.csv_file import written
from erp.choose import erp_of
from linewatch_fleet import aws
from linewatch_fleet.cli import linewatch
from linewatch_fleet.errors import FAILED
from linewatch_fleet.order_desk import MOST_SILENCES, OrderDesk
from linewatch_plant.standin_cloud import REGION, StandinCloud
from work_orders.order_items import WorkOrder
from work_orders.policy_data import PATH

# Of one test; what holds is looked at in test_the_time_is_bounded.
QUICK = Config(connect_timeout=0.3, read_timeout=0.3, retries={"mode": "standard", "total_max_attempts": 1})
DEADLINE_S = 30.0
# A verb pays for one time-out, and not for each thing that it looks at.
MOST_TIME_OUTS = 1

REFERENCE = "lw-0123456789abcdef"
VERBS = (
    "why test REFERENCE", "why test REFERENCE --json", "verify test REFERENCE", "verify test --all",
    "orders list test", "orders list test --status parked", "orders explain test REFERENCE",
    "orders replay test REFERENCE", "orders replay test --all-parked",
    "accuracy test", "pilot-exit test --risk 0.1",
    "policy show test", "policy show test --version 1", "policy put test POLICY", "policy what-if test POLICY",
    "erp check test",
    "assets export test OUT", "assets check test ASSETS", "assets import test ASSETS", "assets unknown test",
    "dead-letters list test", "dead-letters explain test", "dead-letters replay test --all",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Dead:
    """An address behind which nobody answers, and whoever waits there."""

    url: str
    taken: list[socket.socket] = field(default_factory=list)


@contextlib.contextmanager
def hanging() -> Iterator[Dead]:
    """It takes connections and never answers."""
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def take() -> None:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(server.accept()[0])

        taker = threading.Thread(target=take)
        taker.start()
        try:
            yield Dead(f"http://127.0.0.1:{server.getsockname()[1]}", taken)
        finally:
            server.shutdown(socket.SHUT_RDWR)
            taker.join(60)
            for one in taken:
                one.close()


@contextlib.contextmanager
def refusing() -> Iterator[Dead]:
    """It refuses. Its port is held, so that nobody else on this machine comes to listen there."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield Dead(f"http://127.0.0.1:{held.getsockname()[1]}")


@pytest.fixture(params=[refusing, hanging], ids=["refuses", "hangs"])
def dead(request: pytest.FixtureRequest) -> Iterator[Dead]:
    with request.param() as made:
        yield made


def run(cloud: StandinCloud, tmp_path: Path, verb: str, **endpoints: str) -> Result:
    places = {
        "REFERENCE": REFERENCE, "POLICY": str(PATH), "OUT": str(tmp_path / "out.csv"),
        "ASSETS": str(tmp_path / "one.csv"),
    }  # fmt: skip
    row = Asset("plant-8", "line-1", "station-1", "N8", "press", "", "B", "machine", "d", {})
    (tmp_path / "one.csv").write_bytes(written([row]))
    environ = {
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL": cloud.endpoint_url, **endpoints,
    }  # fmt: skip
    fleet_file = operator_of(cloud, tmp_path).fleet_file
    began = time.monotonic()
    told = CliRunner().invoke(
        linewatch,
        ["--fleet", str(fleet_file), *(places.get(word, word) for word in verb.split())],
        env=environ,
    )
    assert time.monotonic() - began < DEADLINE_S
    return told


def ended_well(told: Result) -> None:
    assert told.exit_code == FAILED, (told.output, told.exception)
    assert isinstance(told.exception, SystemExit), repr(told.exception)
    assert told.stdout == ""
    assert told.stderr.startswith("Error: AWS could not be asked: ")
    assert told.stderr.count("\n") == 1, told.stderr
    assert obeyed(told.stderr) == set()


@pytest.mark.parametrize("verb", VERBS)
def test_an_account_that_does_not_answer(
    cloud: StandinCloud, dead: Dead, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aws, "READING", QUICK)

    ended_well(run(cloud, tmp_path, verb, AWS_ENDPOINT_URL=dead.url))

    assert len(dead.taken) <= MOST_TIME_OUTS


@pytest.mark.parametrize("verb", [one for one in VERBS if "erp check" not in one])
def test_tables_that_do_not_answer_while_the_rest_does(
    cloud: StandinCloud, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network goes in the middle of a command."""
    monkeypatch.setattr(aws, "READING", QUICK)
    # Letters lie in queues.
    service = "SQS" if verb.startswith("dead-letters") else "DYNAMODB"
    with hanging() as dead:
        ended_well(run(cloud, tmp_path, verb, **{f"AWS_ENDPOINT_URL_{service}": dead.url}))

        assert len(dead.taken) <= MOST_TIME_OUTS


def test_the_time_is_bounded(cloud: StandinCloud, tmp_path: Path) -> None:
    """As it is shipped: the tries and the pauses between them, and no more."""
    with refusing() as dead:
        ended_well(run(cloud, tmp_path, "orders list test", AWS_ENDPOINT_URL=dead.url))

    tries = aws.READING.retries["total_max_attempts"]
    pauses_s = sum(min(2**number, 20) for number in range(tries - 1))
    assert tries * (aws.READING.connect_timeout + aws.READING.read_timeout) + pauses_s <= 90


def placed(number: int) -> WorkOrder:
    item = {"reference": f"lw-{number}", "erp_id": f"WO-{number}", "episode": 1, "last_tried_at": ""}
    return WorkOrder(f"lw-{number}", "created", "A", "fan", "automatic", {}, 0, 0.0, "none", item)


def test_an_erp_that_does_not_answer_is_not_asked_for_every_order(
    cloud: StandinCloud, environment: dict[str, str], dead: Dead
) -> None:
    """`verify --all` over 10,000 orders took a time-out for each of them."""
    settings = {**environment, "ERP_BASE_URL": dead.url, "ERP_TIMEOUT_S": "0.3"}
    erp = erp_of(settings, cloud.client("secretsmanager"))
    nothing = dict.fromkeys(("orders", "records", "events", "policies"))
    desk = OrderDesk(**nothing, erp=lambda: erp)  # type: ignore[arg-type]

    told = [desk.anchor(placed(number)) for number in range(100)]

    assert all(found is None for found, _ in told)
    asked = [why for _, why in told if why.startswith("the ERP was asked and did not tell")]
    assert len(asked) == MOST_SILENCES
    assert all(why.startswith("the ERP is not asked any more") for _, why in told[MOST_SILENCES:])
    assert all("\n" not in why for _, why in told)
